/* SPDX-License-Identifier: Apache-2.0 */
/* What a page holds, read where it is: for who saves a VM and does not want all of it to come in for that. */
#include "mm/reclaim/host.h"

#include <errno.h>
#include <string.h>

static void fill_page(void *page, uint32_t word)
{
    uint32_t *words = page;
    for (unsigned i = 0; i < PAGE_BYTES / sizeof(*words); i++)
        words[i] = word;
}

static int peek_stored(struct mm_thread *thread, const struct s2_entry *entry, void *page)
{
    struct mm_host *host = thread->host;
    void *pages[1] = {page};
    int error[1] = {0};
    int err = entry->state == S2_ZRAM ? zram_load(host->zram, thread->zram, entry->payload, page)
                                      : swap_read(host->swap, swap_ref_unpack(entry->payload), pages, 1, error);
    return err || error[0] ? -EIO : 0;
}

static int peek_locked(struct mm_thread *thread, const struct block *block, unsigned index, enum mm_peek *where,
                       void *page)
{
    struct s2_entry entry = pmd_read(block);
    bool huge = entry.state != S2_TABLE;
    if (!huge)
        entry = pte_read(block, index);
    *where = MM_PEEK_COPIED;
    switch (entry.state) {
    case S2_ABSENT:
    case S2_BALLOON: /* nobody may count on what it holds */
        *where = MM_PEEK_ZERO;
        return 0;
    case S2_UNPLUGGED:
        *where = MM_PEEK_NOTHING;
        return 0;
    case S2_RESIDENT:
        *where = MM_PEEK_RESIDENT;
        return 0;
    case S2_STANDBY:
        memcpy(page, host_page(thread->host, (fn_t)entry.payload + (huge ? index : 0)), PAGE_BYTES);
        return 0;
    case S2_FILL:
        fill_page(page, (uint32_t)entry.payload);
        return 0;
    case S2_ZRAM:
    case S2_SWAP:
        return peek_stored(thread, &entry, page);
    default:
        return -EIO;
    }
}

int mm_peek(struct mm_thread *thread, struct mm_vm *vm, gpa_t gpa, enum mm_peek *where, void *page)
{
    gfn_t gfn = gfn_of(gpa);
    struct block *block = vm_block(vm, gfn);
    if (!block)
        return -EFAULT;
    lock_acquire(&block->lock);
    int err = peek_locked(thread, block, gfn & (BLOCK_PAGES - 1), where, page);
    lock_release(&block->lock);
    return err;
}
