/* SPDX-License-Identifier: Apache-2.0 */
/* First touch; also of pages that their guest gave up, and of those in the balloon. See fault_parts.h. */
#include "mm/compact.h"
#include "mm/fault_parts.h"
#include "mm/policy/access_note.h"

#include <errno.h>

static bool may_fault_huge(const struct fault *f)
{
    const struct pool *pool = &f->host->node[f->node].pool;
    return f->host->config.thp && !f->block->small && !f->wish.single &&
           pool_nr_free(pool) >= pool->wmark[WMARK_HIGH] + BLOCK_PAGES;
}

/* Zeroed blocks are wanted. Where there was none, because none had been for long, the housekeeper has not looked for some
 * seconds. */
static void want_stock(struct mm_host *host, struct mm_node *node)
{
    if (__atomic_load_n(&node->stock_used, __ATOMIC_RELAXED) ||
        __atomic_exchange_n(&node->stock_used, true, __ATOMIC_RELAXED))
        return;
    if (!__atomic_load_n(&node->pool.nr_stock, __ATOMIC_RELAXED))
        host->ops->kick(host->ops_ctx, MM_HOUSEKEEPER);
}

static int fault_zero_huge(struct fault *f, struct s2_entry entry)
{
    struct mm_host *host = f->host;
    struct block *block = f->block;
    struct pool *pool = &host->node[f->node].pool;
    fn_t fn;
    uint32_t done = 0;
    int err = pool_alloc_block(pool, true, &fn);
    if (err && compact_direct(f->thread, f->node))
        err = pool_alloc_block(pool, true, &fn);
    if (err)
        return err;
    want_stock(host, &host->node[f->node]);
    if (entry.state == S2_FILL)
        entry_fill_pages(host_page(host, fn), BLOCK_PAGES, &entry);
    err = host->ops->place(host->ops_ctx, block->vm->id, block->start, fn, BLOCK_PAGES, &done);
    if (err && done == 0) {
        pool_free_filled(pool, fn, BLOCK_PAGES);
        return err;
    }
    wish_count(host, &f->wish, f->node, done);
    struct s2_entry leaf = {.state = S2_RESIDENT, .payload = fn, .perm = S2_RWX};
    if (err) {
        /* a part of it is in the guest: the block goes on in single pages */
        block_split(block);
        fault_enter_resident(f, 0, done, f->node);
        pool_free_empty(pool, fn, done);
        pool_free_filled(pool, fn + done, BLOCK_PAGES - done);
        return f->index < done ? 0 : err;
    }
    pmd_write(block, &entry, &leaf);
    access_came_huge(block, &entry, f->locked_ns);
    block->note = fault_touch_note(f);
    host->frames[fn].use = FRAME_HOME;
    host->frames[fn].order = BLOCK_ORDER;
    host->frames[fn].vm = block->vm->id;
    host->frames[fn].gfn = block->start;
    lru_add_block(host, block, f->node);
    event_add(host, EV_thp_fault_alloc, 1);
    return 0;
}

static bool page_is(const struct block *block, unsigned index, const struct s2_entry *entry)
{
    struct s2_entry page = pte_read(block, index);
    return entry_is_same(&page, entry);
}

/*
 * The pages around the fault, all as @entry says, that come in with it: inside an aligned window, or a sequence's next
 * ones. What is in the balloon comes out singly: nobody asked for its neighbours.
 */
static void absent_window(const struct fault *f, const struct s2_entry *entry, unsigned *first, unsigned *end)
{
    const struct pool *pool = &f->host->node[f->node].pool;
    unsigned around = f->host->config.fault_around_pages, window = fault_sequence_window(f);
    if (window == 0)
        window = pool_nr_free(pool) < pool->wmark[WMARK_LOW] ? 1 : around;
    unsigned start = window > around ? f->index : f->index & ~(window - 1);
    unsigned stop = MIN_OF(start + window, BLOCK_PAGES), most = MIN_OF(f->thread->charged[f->node], MM_BUFFER_PAGES);
    *first = f->index;
    *end = f->index + 1;
    if (entry->state == S2_BALLOON || f->wish.single)
        return;
    while (*end < stop && *end - *first < most && page_is(f->block, *end, entry))
        (*end)++;
    while (*first > start && *end - *first < most && page_is(f->block, *first - 1, entry))
        (*first)--;
}

int fault_zero(struct fault *f, struct s2_entry entry)
{
    struct mm_host *host = f->host;
    if (block_prepare_table(f->block))
        return -ENOMEM;
    event_add(host, EV_pgfault_zero, 1);
    if (pmd_read(f->block).state != S2_TABLE) {
        if (entry.state != S2_BALLOON && may_fault_huge(f)) {
            if (!fault_zero_huge(f, entry))
                return 0;
            event_add(host, EV_thp_fault_fallback, 1);
        }
        if (pmd_read(f->block).state != S2_TABLE)
            block_split(f->block);
    }
    unsigned first, end;
    absent_window(f, &entry, &first, &end);
    if (entry.payload)
        entry_fill_pages(f->thread->buffer, end - first, &entry);
    uint32_t done;
    int err = fault_place_copy(f, first, entry.payload ? f->thread->buffer : host->zeros, end - first, &done);
    fault_enter_resident(f, first, done, f->node);
    event_add(host, EV_balloon_fault, entry.state == S2_BALLOON ? done : 0);
    fault_sequence_note(f, first + done, end - first);
    return f->index < first + done ? 0 : err;
}
