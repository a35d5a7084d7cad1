/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pins: pages that stay in the guest while a device does I/O on them. A block counts its pins under its lock, and while
 * there are any, nothing that is in the guest leaves it: reclaim passes it over, drops leave it alone, unplugging is
 * refused. The block's pin comes first, then what is missing comes in by the way of every fault, which may wait for
 * memory: so none is held then.
 */
#include "mm/fault.h"

#include <assert.h>
#include <errno.h>
#include <time.h>

/* How long a pin sleeps for an unplug to come to its end. Chosen, unmeasured. */
#define WAIT_NS 50000

/* The first page of [first, end) that is not in the guest, or @end. Caller holds block.lock. */
static unsigned first_missing(const struct block *block, unsigned first, unsigned end)
{
    uint8_t state = pmd_read(block).state;
    if (state != S2_TABLE)
        return state == S2_RESIDENT ? end : first;
    while (first < end && pte_read(block, first).state == S2_RESIDENT)
        first++;
    return first;
}

static void unpin_block(struct block *block)
{
    lock_acquire(&block->lock);
    assert(block->nr_pins > 0);
    block->nr_pins--;
    lock_release(&block->lock);
}

/* One pin more, once it is known whether the block is to be unplugged. Returns with block.lock held. */
static void hold_block(struct block *block)
{
    lock_acquire(&block->lock);
    while (block->closing) {
        lock_release(&block->lock);
        nanosleep(&(struct timespec){.tv_nsec = WAIT_NS}, NULL);
        lock_acquire(&block->lock);
    }
    block->nr_pins++;
}

static int pin_block(struct mm_thread *thread, struct block *block, unsigned first, unsigned end)
{
    int err = 0;
    hold_block(block);
    first = first_missing(block, first, end);
    lock_release(&block->lock);
    while (first < end && !err) {
        err = fault_page(thread, block, block->start + first, MM_FAULT_WRITE | FAULT_UNLESS_RESIDENT);
        lock_acquire(&block->lock);
        first = first_missing(block, first, end);
        lock_release(&block->lock);
    }
    if (err)
        unpin_block(block);
    return err;
}

static void unpin(struct mm_vm *vm, gfn_t start, gfn_t end)
{
    for (gfn_t gfn = start; gfn < end; gfn = (gfn | (BLOCK_PAGES - 1)) + 1)
        unpin_block(vm_block(vm, gfn));
}

/* The page after the last one that the @bytes, which are not 0, touch. */
static gfn_t end_of(gpa_t gpa, uint64_t bytes)
{
    return (gfn_t)((gpa.v + bytes - 1) >> PAGE_SHIFT) + 1;
}

int mm_pin(struct mm_thread *thread, struct mm_vm *vm, gpa_t gpa, uint64_t bytes)
{
    if (!vm_has_range(vm, gpa, bytes))
        return -EFAULT;
    gfn_t start = gfn_of(gpa), end = bytes ? end_of(gpa, bytes) : start;
    for (gfn_t gfn = start; gfn < end;) {
        struct block *block = vm_block(vm, gfn);
        gfn_t next = MIN_OF(end, block->start + BLOCK_PAGES);
        int err = pin_block(thread, block, gfn - block->start, next - block->start);
        if (err) {
            unpin(vm, start, gfn);
            return err;
        }
        gfn = next;
    }
    return 0;
}

void mm_unpin(struct mm_vm *vm, gpa_t gpa, uint64_t bytes)
{
    if (bytes)
        unpin(vm, gfn_of(gpa), end_of(gpa, bytes));
}
