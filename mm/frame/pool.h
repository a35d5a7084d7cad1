/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pool: Ebb's physical memory on one node. Its slots of the arena in two zones, and its budget.
 *
 *   zone Huge    whole 2 MiB frames. Their slots are filled and emptied only together, so the kernel keeps them as one
 *                huge page; a block that drains page by page stays filled until all of it is free. It has slots for the
 *                budget in frames, and what is left of a broken one can be moved: there is always a place for the next.
 *   zone Normal  single pages and runs: where pages taken from a guest come home, and pages of the stores.
 *
 * The budget counts physical pages wherever they are:
 *
 *   budget = uncharged + filled slots (free, stock, standby, store) + pages in guests + charges cached by threads
 *   free   = uncharged + free filled slots + stock of zeroed blocks          (what the watermarks look at)
 *
 * Whoever makes a page come into being (place_copy, populate) charges first; whoever gives one back to the kernel
 * (release, drop) uncharges after. A page that moves between a guest and a slot changes nothing.
 */
#ifndef MM_FRAME_POOL_H
#define MM_FRAME_POOL_H

#include "mm/frame/zone.h"
#include "mm/host_ops.h"
#include "mm/stats.h"

enum { POOL_HUGE, POOL_NORMAL, POOL_NR_ZONES };

struct pool {
    const struct host_ops *ops;
    void *ops_ctx;
    char *arena;          /* address of slot 0, all nodes' */
    struct frame *frames; /* by slot, all nodes' */
    fn_t start_fn;
    uint32_t nr_slots;
    uint32_t budget_pages;
    uint32_t wmark[NR_WMARK];
    uint64_t *events; /* the host's counters, relaxed atomics */
    struct zone zones[POOL_NR_ZONES];
    uint32_t uncharged;  /* pages of budget behind which there is no page; atomic */
    struct mm_lock lock; /* LOCK_POOL */
    /* guarded by lock */
    struct frame_list stock; /* zeroed 2 MiB frames */
    uint32_t nr_stock;       /* blocks; read racily */
};

/* Slots for a budget, both zones. */
uint32_t pool_nr_slots(uint32_t budget_pages);
/*
 * Slots [start, start + pool_nr_slots()) are empty, all of the budget is uncharged. @arena, @frames: of all slots; @types:
 * a byte for each of their pageblocks.
 */
void pool_init(struct pool *pool, const struct host_ops *ops, void *ops_ctx, void *arena, struct frame *frames,
               uint8_t *types, fn_t start, uint32_t budget_pages, uint64_t *events);
/* Releases every free page. */
void pool_fini(struct pool *pool);

static inline void *pool_page(const struct pool *pool, fn_t fn)
{
    return pool->arena + (uint64_t)fn * PAGE_BYTES;
}

/* Pages that can be had without reclaim. Racy. */
uint32_t pool_nr_free(const struct pool *pool);

/*
 * pool_charge - the right to @nr more pages. Where the budget has no uncharged pages left, free filled ones are
 * given back to the kernel in batches. -ENOMEM with nothing charged. Calls host_ops.
 */
must_check int pool_charge(struct pool *pool, uint32_t nr);
void pool_uncharge(struct pool *pool, uint32_t nr);

/*
 * pool_alloc_filled - a run of 2^order filled pages of any content, for pages of @type. Order <= 3 can be had while so many pages are free,
 * neighbours or not, and the kernel plays along. Only what is MOVABLE is put in zone Huge: for all else free pages there
 * are given up for pages in zone Normal, unless the kernel refuses these (docs/decisions/007); the stock of zeroed frames
 * last of all.
 * Without @may_populate only what is filled already is looked at, zone Huge last, and no host_ops is called: for callers
 * with locks.
 */
must_check int pool_alloc_filled(struct pool *pool, unsigned order, enum migratetype type, bool may_populate,
                                 fn_t *out);
/* A run of 2^order filled pages that may be moved out singly, from what is free now; never part of a huge page. -ENOMEM. */
must_check int pool_alloc_run(struct pool *pool, unsigned order, fn_t *out);
/* At least @nr single filled pages stand ready afterwards, in whichever zone, or -ENOMEM: what a store needs is made before
 * its locks are taken. */
must_check int pool_prefill(struct pool *pool, uint32_t nr);
/* A run of empty slots, as long as can be had but at most @nr (1..512); *got says how long. -ENOMEM. */
must_check int pool_alloc_empty(struct pool *pool, uint32_t nr, fn_t *out, uint32_t *got);
/* Pages and slots back. */
void pool_free_filled(struct pool *pool, fn_t fn, uint32_t nr);
void pool_free_empty(struct pool *pool, fn_t fn, uint32_t nr);

/*
 * A zeroed 2 MiB frame: from the stock, or with @may_populate charged and populated now. -ENOMEM.
 */
must_check int pool_alloc_block(struct pool *pool, bool may_populate, fn_t *out);
/*
 * pool_alloc_block_any - a 2 MiB frame of any content. Where neither a free one nor uncharged budget is left, free pages
 * are given up for one. -ENOMEM. Calls host_ops.
 */
must_check int pool_alloc_block_any(struct pool *pool, fn_t *out);
/* Makes one zeroed block for the stock. -ENOMEM: the budget has no room. */
must_check int pool_stock_one(struct pool *pool);
/* Gives the stock up but for @keep blocks: the others become free filled ones. */
void pool_drain_stock(struct pool *pool, uint32_t keep);
/* Gives at least @pages free filled ones back to the kernel, whole blocks before runs, no run below 64 KiB. Returns pages. */
uint32_t pool_trim(struct pool *pool, uint32_t pages);

/* The equations above hold for zones and stock. No other thread in the pool. */
bool pool_check(struct pool *pool, const char **why);

#endif
