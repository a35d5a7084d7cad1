/* SPDX-License-Identifier: Apache-2.0 */
/* Transport of Linux 6.8 and later: UFFDIO_MOVE. Moving is atomic, so there is no write protection here. */
#include "vmm/hostmem.h"

#include <errno.h>

#include "vmm/uffd.h"

static bool whole_block(uint64_t page, uint32_t nr)
{
    return nr == BLOCK_PAGES && page % BLOCK_PAGES == 0;
}

/* Both ends of a move of [from, from + nr) to [to, to + nr), in pages of their ranges; @base: of the destination. */
static void prepare(char *base, atomic_uchar *to_tables, uint64_t to, atomic_uchar *from_tables, uint64_t from,
                    uint32_t nr)
{
    if (whole_block(to, nr) && whole_block(from, nr) &&
        !atomic_load_explicit(&from_tables[from / BLOCK_PAGES], memory_order_relaxed)) {
        hostmem_block_clear(base, to_tables, to);
        return;
    }
    hostmem_block_note(to_tables, to, nr);
    hostmem_block_note(from_tables, from, nr);
}

int hostmem_move_take(struct hostmem_vm *vm, gfn_t gfn, fn_t fn, uint32_t nr, uint32_t *done)
{
    struct hostmem *hm = vm->hm;
    char *guest = hostmem_guest(vm, gfn, nr);
    prepare(hm->arena, hm->tables, fn, vm->tables, (uint64_t)(guest - vm->range.base) / PAGE_BYTES, nr);
    uint64_t bytes;
    int err = uffd_move(hm->uffd, hostmem_slot(hm, fn), guest, nr * PAGE_BYTES, true, &bytes);
    *done = (uint32_t)(bytes / PAGE_BYTES);
    return err == -EAGAIN ? -EBUSY : err;
}

int hostmem_move_place(struct hostmem_vm *vm, gfn_t gfn, fn_t fn, uint32_t nr, uint32_t *done)
{
    struct hostmem *hm = vm->hm;
    char *guest = hostmem_guest(vm, gfn, nr), *slot = hostmem_slot(hm, fn);
    uint64_t page = (uint64_t)(guest - vm->range.base) / PAGE_BYTES;
    if (whole_block(page, nr)) /* the fault that wants the block has made one */
        hostmem_block_note(vm->tables, page, nr);
    prepare(vm->range.base, vm->tables, page, hm->tables, fn, nr);
    *done = 0;
    for (;;) {
        uint64_t bytes, offset = *done * PAGE_BYTES;
        int err = uffd_move(vm->uffd, guest + offset, slot + offset, nr * PAGE_BYTES - offset, false, &bytes);
        *done += (uint32_t)(bytes / PAGE_BYTES);
        if (err != -EBUSY && err != -EAGAIN)
            return err;
        /* Pinned, by swap I/O on this very slot for one: the guest gets a copy, the page goes when it is let go. */
        uint32_t one;
        err = hostmem_copy_place(vm, gfn + *done, fn + *done, 1, &one);
        *done += one;
        if (err || *done == nr)
            return err;
    }
}
