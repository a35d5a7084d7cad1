/* SPDX-License-Identifier: Apache-2.0 */
/* What a guest says of its own memory: given up, taken out of the balloon, plugged, unplugged. Block by block. */
#include "mm/reclaim/drop.h"

#include <errno.h>

/*
 * Whole blocks that leave by one host operation, all locked: to free 2 MiB costs the kernel less than to be called. Nobody
 * wants these pages, so what waits for the locks is a look at them. Fewer than a thread may hold (base/lock.c).
 */
#define MAX_JOINED 16u

/* A block's part of a range of pages. */
struct part {
    struct block *block;
    unsigned first, end; /* indexes in the block */
};

/* The part of [gfn, gfn + nr) in its first block; nr is not 0. */
static struct part first_part(const struct mm_vm *vm, gfn_t gfn, uint64_t nr)
{
    struct part part = {.block = vm_block(vm, gfn), .first = gfn & (BLOCK_PAGES - 1)};
    part.end = (unsigned)MIN_OF(part.first + nr, (uint64_t)BLOCK_PAGES);
    return part;
}

static bool is_whole(const struct part *part)
{
    return part->end - part->first == BLOCK_PAGES;
}

static bool range_is_good(const struct mm_vm *vm, gpa_t gpa, uint64_t bytes)
{
    return !((gpa.v | bytes) & (PAGE_BYTES - 1)) && vm_has_range(vm, gpa, bytes);
}

/* ---- dropped ---- */

static bool may_drop(const struct block *block)
{
    return !block->nr_pins && pmd_read(block).state != S2_UNPLUGGED;
}

static int drop_part(struct mm_thread *thread, const struct part *part, const struct s2_entry *what, uint64_t *dropped)
{
    struct block *block = part->block;
    int err = 0;
    lock_acquire(&block->lock);
    if (may_drop(block))
        err = drop_pages(thread, block, part->first, part->end, what, dropped);
    lock_release(&block->lock);
    return err;
}

/* Waits for the first of @max blocks; those after it are locked up to one that is not free now. Returns how many are. */
static unsigned lock_blocks(struct block *block, unsigned max)
{
    unsigned nr = 1;
    lock_acquire(&block->lock);
    while (nr < max && lock_try(&block[nr].lock))
        nr++;
    return nr;
}

/* Whole blocks from @block on, @max at most and one at least. Those that may not go are left. Returns how many it was at. */
static unsigned drop_whole(struct mm_thread *thread, struct block *block, unsigned max, const struct s2_entry *what,
                           uint64_t *dropped)
{
    unsigned nr = lock_blocks(block, MIN_OF(max, MAX_JOINED));
    for (unsigned start = 0, end = 0; end <= nr; end++) {
        if (end < nr && may_drop(&block[end]))
            continue;
        if (end > start)
            *dropped += drop_blocks(thread, &block[start], end - start, what);
        start = end + 1;
    }
    for (unsigned i = 0; i < nr; i++)
        lock_release(&block[i].lock);
    return nr;
}

int mm_drop(struct mm_thread *thread, struct mm_vm *vm, gpa_t gpa, uint64_t bytes, enum mm_drop_how how, uint32_t fill,
            uint64_t *dropped_pages)
{
    struct s2_entry what = {.state = S2_BALLOON, .payload = fill};
    *dropped_pages = 0;
    if (!range_is_good(vm, gpa, bytes))
        return -EFAULT;
    if (how == MM_DROP_FREE)
        what.state = fill ? S2_FILL : S2_ABSENT;
    int err = 0;
    gfn_t gfn = gfn_of(gpa);
    for (uint64_t left = bytes >> PAGE_SHIFT; left > 0 && !err;) {
        struct part part = first_part(vm, gfn, left);
        uint32_t nr = part.end - part.first;
        if (is_whole(&part))
            nr = BLOCK_PAGES * drop_whole(thread, part.block, (unsigned)(left / BLOCK_PAGES), &what, dropped_pages);
        else
            err = drop_part(thread, &part, &what, dropped_pages);
        left -= nr;
        gfn += nr;
    }
    event_add(thread->host, EV_pgdrop, *dropped_pages);
    return err;
}

/* ---- out of the balloon ---- */

/* What a page of the balloon is once it is out of it. */
static struct s2_entry returned(const struct s2_entry *balloon)
{
    return (struct s2_entry){.state = balloon->payload ? S2_FILL : S2_ABSENT, .payload = balloon->payload};
}

static void return_part_locked(const struct part *part)
{
    struct block *block = part->block;
    struct s2_entry entry = pmd_read(block), new = returned(&entry);
    if (entry.state == S2_BALLOON && is_whole(part)) {
        pmd_write(block, &entry, &new);
        return;
    }
    if (entry.state == S2_BALLOON) {
        /* without a table the pages stay in the balloon until they are touched, which takes them out as well */
        if (block_prepare_table(block))
            return;
        block_split(block);
    } else if (entry.state != S2_TABLE) {
        return;
    }
    for (unsigned i = part->first; i < part->end; i++) {
        entry = pte_read(block, i);
        new = returned(&entry);
        if (entry.state == S2_BALLOON)
            pte_write(block, i, &entry, &new);
    }
    drop_table_if_same(block);
}

int mm_balloon_return(struct mm_vm *vm, gpa_t gpa, uint64_t bytes)
{
    if (!range_is_good(vm, gpa, bytes))
        return -EFAULT;
    gfn_t gfn = gfn_of(gpa);
    for (uint64_t left = bytes >> PAGE_SHIFT; left > 0;) {
        struct part part = first_part(vm, gfn, left);
        lock_acquire(&part.block->lock);
        return_part_locked(&part);
        lock_release(&part.block->lock);
        left -= part.end - part.first;
        gfn += part.end - part.first;
    }
    return 0;
}

/* ---- plugged ---- */

static void open_blocks(struct mm_vm *vm, gfn_t gfn, gfn_t end)
{
    for (; gfn < end; gfn += BLOCK_PAGES) {
        struct block *block = vm_block(vm, gfn);
        lock_acquire(&block->lock);
        block->closing = false;
        lock_release(&block->lock);
    }
}

/* All blocks of [gfn, end) take no more pins, or none has changed: -EBUSY. */
static int close_blocks(struct mm_vm *vm, gfn_t gfn, gfn_t end)
{
    for (gfn_t at = gfn; at < end; at += BLOCK_PAGES) {
        struct block *block = vm_block(vm, at);
        lock_acquire(&block->lock);
        bool busy = block->nr_pins || block->closing; /* closing: somebody else is at it */
        block->closing |= !busy;
        lock_release(&block->lock);
        if (busy) {
            open_blocks(vm, gfn, at);
            return -EBUSY;
        }
    }
    return 0;
}

static void plug_block(struct mm_thread *thread, struct block *block, bool plugged)
{
    struct s2_entry absent = {.state = S2_ABSENT}, unplugged = {.state = S2_UNPLUGGED};
    lock_acquire(&block->lock);
    if (!plugged)
        drop_blocks(thread, block, 1, &unplugged);
    else if (pmd_read(block).state == S2_UNPLUGGED)
        pmd_write(block, &unplugged, &absent);
    block->closing = false;
    lock_release(&block->lock);
}

int mm_plug(struct mm_thread *thread, struct mm_vm *vm, gpa_t gpa, uint64_t bytes, bool plugged)
{
    if ((gpa.v | bytes) & (BLOCK_BYTES - 1))
        return -EINVAL;
    if (!vm_has_range(vm, gpa, bytes))
        return -EFAULT;
    gfn_t start = gfn_of(gpa), end = start + (gfn_t)(bytes >> PAGE_SHIFT);
    int err = plugged ? 0 : close_blocks(vm, start, end);
    for (gfn_t gfn = start; gfn < end && !err; gfn += BLOCK_PAGES)
        plug_block(thread, vm_block(vm, gfn), plugged);
    return err;
}
