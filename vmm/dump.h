/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dump: guest memory as an ELF core file, one PT_LOAD a region, with physical addresses. What reads as zeros and what the
 * guest says is free becomes a hole: the file is as large as memory, and takes as much disk as is in use.
 */
#ifndef VMM_DUMP_H
#define VMM_DUMP_H

#include "mm/map/guest_mem.h"
#include "mm/mm.h"
#include "vmm/diag.h"

#include <stdatomic.h>

struct dump_config {
    struct mm_thread *thread;
    struct mm_vm *vm;
    const struct guest_mem *mem;
    /* Pages that are left out: bit gfn; NULL: none. */
    const uint64_t *free_pages;
    uint64_t nr_free_bits;   /* pages beyond it are none of them */
    const atomic_bool *stop; /* true: give up soon; NULL: never */
};

struct dump_stat {
    uint64_t memory_bytes;  /* all of it; the next three sum to it */
    uint64_t written_bytes; /* in the file */
    uint64_t zero_bytes;    /* holes: pages that read as zeros */
    uint64_t free_bytes;    /* holes: pages that the guest does not use */
};

/*
 * dump_write - @fd: an empty regular file, open for writing. The guest must not run. Pages stay where they are; those in
 * the guest are read there. Nothing is asked to be on the disk: the guest need not wait for that.
 * 0, or -1 with @diag: EXIT_GUEST for a page that is lost or a disk that is full; @path names the file there.
 */
must_check int dump_write(const struct dump_config *config, int fd, const char *path, struct dump_stat *stat,
                          struct diag *diag);

/*
 * dump_read_page - what the page holds, wherever it is, in @page (PAGE_BYTES); *zeros: nothing but zeros, and @page may be
 * left as it was. Waits for a page that is in the guest and leaves it now. 0, or -errno as mm_peek.
 */
must_check int dump_read_page(struct mm_thread *thread, struct mm_vm *vm, const struct guest_mem *mem, gfn_t gfn,
                              char *page, bool *zeros);

#endif
