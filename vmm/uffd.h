/* SPDX-License-Identifier: Apache-2.0 */
/*
 * userfaultfd: opening it, and one thin wrapper for each operation that hostmem uses. Definitions that are younger
 * than the C library's kernel headers stand here too.
 *
 * Every range is in bytes, page aligned, not empty. The operations that work page by page report in *done how many
 * bytes came about before an error; they wait out EAGAIN, which the kernel answers for conditions that pass (a locked
 * folio, a changing page table), for about a second.
 */
#ifndef VMM_UFFD_H
#define VMM_UFFD_H

#include <stdbool.h>
#include <stdint.h>

#include <linux/userfaultfd.h>

#include "mm/base/types.h"
#include "vmm/diag.h"

/* include/uapi/linux/userfaultfd.h of Linux 6.8 */
#ifndef UFFDIO_MOVE
struct uffdio_move {
    __u64 dst;
    __u64 src;
    __u64 len;
    __u64 mode;
    __s64 move; /* out: bytes moved, or -errno */
};
#define UFFDIO_MOVE _IOWR(UFFDIO, 0x05, struct uffdio_move)
#define UFFDIO_MOVE_MODE_DONTWAKE ((__u64)1 << 0)
#define UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES ((__u64)1 << 1)
#define UFFD_FEATURE_MOVE (1 << 16)
#endif

/*
 * uffd_probe - features that this kernel offers to this process, faults from inside the kernel (KVM) included.
 * Returns 0, or -1 with diag: no such thing in this kernel, or no right to it.
 */
must_check int uffd_probe(uint64_t *features, struct diag *diag);

/* uffd_open - a userfaultfd with @features agreed upon; reads block. Returns the descriptor, or -errno. */
must_check int uffd_open(uint64_t features);

/* @mode: UFFDIO_REGISTER_MODE_*. Returns 0 or -errno. */
must_check int uffd_register(int fd, const void *start, uint64_t bytes, uint64_t mode);

/*
 * uffd_copy - new pages at @dst, absent until now, with the content of @src. Wakes who waits for them.
 * -EEXIST: the page at dst + *done is there; -ENOMEM.
 */
must_check int uffd_copy(int fd, void *dst, const void *src, uint64_t bytes, uint64_t *done);

/*
 * uffd_move - the pages of @src become those of @dst, absent until now. Wakes who waits for them. A huge page moves
 * as one where both are aligned and @dst has no page table yet.
 * @holes: absent source pages are skipped and count as done. -EEXIST: as above; -ENOENT: hole; -EBUSY: pinned.
 */
must_check int uffd_move(int fd, void *dst, void *src, uint64_t bytes, bool holes, uint64_t *done);

/* uffd_zeropage - maps the kernel's shared page of zeros, which costs no memory until it is written. Wakes. */
must_check int uffd_zeropage(int fd, void *dst, uint64_t bytes);

/* Whoever waits for a fault in the range tries again. */
void uffd_wake(int fd, void *start, uint64_t bytes);

/* uffd_protect - present pages of the range become read-only, or (@on false) writable again, which wakes. */
must_check int uffd_protect(int fd, void *start, uint64_t bytes, bool on);

#endif
