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

/*
 * Linux 6.18: an attempt of the kernel's that has to begin again inside one call, as when a vCPU's fault puts a page
 * table where a huge page is about to go, moves pages, does not count them, and fails with EEXIST on what it has moved
 * itself. *nr: pages at the start that are there while their source, of at least one page, is empty: those.
 */
static int count_moved(const struct hostmem *hm, const char *to, const char *from, uint32_t *nr)
{
    uint32_t left = *nr;
    for (*nr = 0; *nr < left;) {
        uint64_t there, behind, at = *nr * PAGE_BYTES;
        uint32_t step = MIN_OF(left - *nr, HOSTMEM_COPY_PAGES);
        if (hostmem_present(hm, to + at, step, &there) || hostmem_present(hm, from + at, step, &behind))
            return -EIO;
        uint64_t moved = there & ~behind;
        uint32_t run = ~moved ? (uint32_t)__builtin_ctzll(~moved) : step;
        *nr += MIN_OF(run, step);
        if (run < step)
            break;
    }
    return 0;
}

/* uffd_move of @nr pages to a range that was empty. Whoever waits for one of them is woken. */
static int move(const struct hostmem *hm, int uffd, char *to, char *from, uint32_t nr, bool holes, uint32_t *done)
{
    for (*done = 0;;) {
        uint64_t bytes, at = *done * PAGE_BYTES;
        int err = uffd_move(uffd, to + at, from + at, nr * PAGE_BYTES - at, holes, &bytes);
        *done += (uint32_t)(bytes / PAGE_BYTES);
        if (err != -EEXIST)
            return err;
        at = *done * PAGE_BYTES;
        uint32_t moved = nr - *done;
        if (count_moved(hm, to + at, from + at, &moved) || moved == 0)
            return err;
        uffd_wake(uffd, to + at, moved * PAGE_BYTES);
        *done += moved;
        if (*done == nr)
            return 0;
    }
}

int hostmem_move_take(struct hostmem_vm *vm, gfn_t gfn, fn_t fn, uint32_t nr, uint32_t *done)
{
    struct hostmem *hm = vm->hm;
    char *guest = hostmem_guest(vm, gfn, nr);
    prepare(hm->arena, hm->tables, fn, vm->tables, (uint64_t)(guest - vm->range.base) / PAGE_BYTES, nr);
    int err = move(hm, hm->uffd, hostmem_slot(hm, fn), guest, nr, true, done);
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
        uint64_t offset = *done * PAGE_BYTES;
        uint32_t one;
        int err = move(hm, vm->uffd, guest + offset, slot + offset, nr - *done, false, &one);
        *done += one;
        if (err != -EBUSY && err != -EAGAIN)
            return err;
        /* Pinned, by swap I/O on this very slot for one: the guest gets a copy, the page goes when it is let go. */
        err = hostmem_copy_place(vm, gfn + *done, fn + *done, 1, &one);
        *done += one;
        if (err || *done == nr)
            return err;
    }
}
