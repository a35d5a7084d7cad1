/* SPDX-License-Identifier: Apache-2.0 */
/* See drop.h. */
#include "mm/reclaim/drop.h"

#include <errno.h>
#include <string.h>

/* Nothing of the block is in the guest or in a table. It begins anew. */
static void start_anew(struct block *block)
{
    __atomic_store_n(&block->ra_next, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&block->ra_window, 0, __ATOMIC_RELAXED);
    block->nr_failures = block->passes_to_wait = block->nr_takes = block->nr_acquittals = 0;
    block->was_whole = block->on_trial = false;
    block->small &= block->vm->host->ops->keeps_tables;
    block->armed = false;
    block->note = (struct page_note){0};
    block_forget_accesses(block);
}

/* Pages of each node that were @before in a guest and are not any more are not charged any more. */
static void uncharge(struct mm_host *host, const uint16_t before[MM_MAX_NODES], const uint16_t now[MM_MAX_NODES])
{
    for (unsigned n = 0; n < host->nr_nodes; n++)
        if (before[n] != now[n])
            pool_uncharge(&host->node[n].pool, (uint32_t)before[n] - now[n]);
}

/* What entries [first, end) name, pages in the guest left out, is given up. Returns those that are not @what. */
static uint32_t forget_pages(struct mm_thread *thread, const struct block *block, unsigned first, unsigned end,
                             const struct s2_entry *what)
{
    uint32_t others = 0;
    for (unsigned i = first; i < end; i++) {
        struct s2_entry entry = pte_read(block, i);
        others += !entry_is_same(&entry, what);
        thread_forget_entry(thread, &entry);
    }
    return others;
}

/* The slots or pages of a 2 MiB frame are free. */
static void forget_leaf(struct mm_host *host, const struct s2_entry *entry)
{
    if (entry->state == S2_RESIDENT)
        pool_free_empty(pool_of(host, (fn_t)entry->payload), (fn_t)entry->payload, BLOCK_PAGES);
    else if (entry->state == S2_STANDBY && lru_forget_standby(host, (fn_t)entry->payload))
        pool_free_filled(pool_of(host, (fn_t)entry->payload), (fn_t)entry->payload, BLOCK_PAGES);
}

/* The block is all @what, and none of its pages is in the guest's mapping. Returns pages that were something else. */
static uint32_t forget_block(struct mm_thread *thread, struct block *block, const struct s2_entry *what)
{
    struct mm_host *host = thread->host;
    struct s2_entry entry = pmd_read(block);
    uint32_t dropped = 0;
    uint16_t resident[MM_MAX_NODES];
    memcpy(resident, block->nr_on_node, sizeof(resident));
    lru_del_block(host, block);
    if (entry.state == S2_TABLE) {
        dropped = forget_pages(thread, block, 0, BLOCK_PAGES, what);
        block_merge(block, what);
    } else if (!entry_is_same(&entry, what)) {
        dropped = BLOCK_PAGES;
        forget_leaf(host, &entry);
        pmd_write(block, &entry, what);
        stage2_table_free(&block->vm->stage2, block->table);
        block->table = NULL;
    }
    uncharge(host, resident, block->nr_on_node);
    start_anew(block);
    return dropped;
}

uint32_t drop_blocks(struct mm_thread *thread, struct block *block, unsigned nr, const struct s2_entry *what)
{
    struct mm_host *host = thread->host;
    uint32_t dropped = 0;
    bool any = false;
    for (unsigned i = 0; i < nr; i++)
        any |= block[i].nr_resident != 0;
    if (any)
        host->ops->drop(host->ops_ctx, block->vm->id, block->start, nr * BLOCK_PAGES);
    for (unsigned i = 0; i < nr; i++)
        dropped += forget_block(thread, &block[i], what);
    return dropped;
}

void drop_table_if_same(struct block *block)
{
    struct mm_host *host = block->vm->host;
    struct s2_entry entry;
    if (pmd_read(block).state != S2_TABLE || block->table[0] != block->table[BLOCK_PAGES - 1])
        return;
    entry = pte_read(block, 0);
    if (entry.state != S2_ABSENT && entry.state != S2_FILL && entry.state != S2_BALLOON)
        return;
    for (unsigned i = 1; i < BLOCK_PAGES; i++)
        if (block->table[i] != block->table[0])
            return;
    block_merge(block, &entry);
    /* nothing is there: for the page table, which the host drops with a whole block only */
    if (!host->ops->keeps_tables)
        host->ops->drop(host->ops_ctx, block->vm->id, block->start, BLOCK_PAGES);
    start_anew(block);
}

/*
 * A leaf becomes a table, which is there. A 2 MiB frame in the guest gives up its home; the kernel has the pages of it
 * that are dropped back when it splits the huge page, or when the rest is dropped too.
 */
static void split_leaf(struct mm_host *host, struct block *block, const struct s2_entry *entry)
{
    if (entry->state == S2_STANDBY) {
        lru_split_standby(host, block, (fn_t)entry->payload, STANDBY_YOUNG);
        return;
    }
    block_split(block);
    if (entry->state != S2_RESIDENT)
        return;
    pool_free_empty(pool_of(host, (fn_t)entry->payload), (fn_t)entry->payload, BLOCK_PAGES);
    event_add(host, EV_thp_split_page, 1);
}

int drop_pages(struct mm_thread *thread, struct block *block, unsigned first, unsigned end, const struct s2_entry *what,
               uint64_t *dropped)
{
    struct mm_host *host = thread->host;
    struct s2_entry entry = pmd_read(block);
    if (entry_is_same(&entry, what))
        return 0;
    if (block_prepare_table(block))
        return -ENOMEM;
    if (entry.state != S2_TABLE)
        split_leaf(host, block, &entry);
    uint16_t resident[MM_MAX_NODES];
    memcpy(resident, block->nr_on_node, sizeof(resident));
    bool any = false;
    for (unsigned i = first; i < end && !any; i++)
        any = pte_read(block, i).state == S2_RESIDENT;
    if (any)
        host->ops->drop(host->ops_ctx, block->vm->id, block->start + first, end - first);
    *dropped += forget_pages(thread, block, first, end, what);
    for (unsigned i = first; i < end; i++) {
        entry = pte_read(block, i);
        pte_write(block, i, &entry, what);
    }
    uncharge(host, resident, block->nr_on_node);
    if (block->nr_resident == 0)
        lru_del_block(host, block);
    drop_table_if_same(block);
    return 0;
}
