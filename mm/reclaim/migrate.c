/* SPDX-License-Identifier: Apache-2.0 */
/* See migrate.h. */
#include "mm/reclaim/migrate.h"
#include "mm/reclaim/note.h"

#include <errno.h>
#include <string.h>

/* The block of the single standby page @fn, locked, its VM held. NULL: there is no such page, or the block is busy. */
static struct block *hold_block(struct mm_host *host, fn_t fn)
{
    struct block *block = NULL;
    lock_acquire(&host->lru.lock);
    const struct frame *frame = &host->frames[fn];
    if (frame_use(frame) == FRAME_STANDBY && !(frame->flags & FRAME_F_HUGE)) {
        struct mm_vm *vm = lru_frame_vm(host, fn);
        block = vm_block(vm, frame->gfn);
        if (!lock_try(&block->lock))
            block = NULL;
        else
            vm_get(vm);
    }
    lock_release(&host->lru.lock);
    return block;
}

int migrate_standby(struct mm_host *host, fn_t from, fn_t to)
{
    struct block *block = hold_block(host, from);
    if (!block)
        return -EAGAIN;
    /* a store may be at the page from here on, but it cannot end before it has the block's lock */
    unsigned index = host->frames[from].gfn & (BLOCK_PAGES - 1);
    memcpy(host_page(host, to), host_page(host, from), PAGE_BYTES);
    bool moved = lru_replace_standby(host, from, to);
    if (moved) {
        struct s2_entry old = pte_read(block, index), new = old;
        new.payload = old.payload >> NOTE_STANDBY_SHIFT << NOTE_STANDBY_SHIFT | to;
        pte_write(block, index, &old, &new);
    }
    lock_release(&block->lock);
    vm_put(block->vm);
    return moved ? 0 : -EAGAIN;
}
