/* SPDX-License-Identifier: Apache-2.0 */
/* What is done in the background, in bounded rounds: stock, pool, compaction, store, slabs. */
#include "mm/compact.h"
#include "mm/reclaim/evict.h"

#include <errno.h>
#include <string.h>

/* Zeroed 2 MiB frames kept ready: a sixteenth of the budget, 1 to 16. Chosen, unmeasured. */
#define STOCK_MAX_BLOCKS 16u
#define STOCK_SHARE 16u
/* Rounds after which a stock that nobody uses goes back. The round that filled it is the first, the waits after it double from
 * 200 ms: 1.4 seconds, or more where first touches or other work came between. */
#define STOCK_IDLE_ROUNDS 4u
/* Rounds the pool must be above its high watermark before it shrinks: at one round every 200 ms, a second. */
#define SHRINK_AFTER_ROUNDS 5u
#define SHRINK_BLOCKS 8u
/* The store is compacted when more than a quarter of its memory is not data. */
#define COMPACT_WASTE_SHARE 4u
#define COMPACT_PAGES 32u

/*
 * A table for each block of the stock, its memory touched: the kernel's fault for a new page of metadata was a third of
 * the first touch of 2 MiB.
 */
static void fill_tables(struct mm_host *host)
{
    void *table[STOCK_MAX_BLOCKS];
    unsigned nr = 0, want = 0;
    for (unsigned n = 0; n < host->nr_nodes; n++)
        want += __atomic_load_n(&host->node[n].pool.nr_stock, __ATOMIC_RELAXED);
    while (nr < MIN_OF(want, STOCK_MAX_BLOCKS) && (table[nr] = slab_alloc(&host->tables)))
        memset(table[nr++], 0, PAGE_BYTES);
    while (nr > 0)
        slab_free(&host->tables, table[--nr]);
}

/* Tables beyond those of the stock go back. */
static void reap_tables(struct mm_host *host)
{
    struct slab_stat stat;
    slab_stat(&host->tables, &stat);
    if (stat.nr_total - stat.nr_used > STOCK_MAX_BLOCKS)
        slab_reap(&host->tables);
}

/* Zeroed blocks to keep ready: none while nobody takes any. */
static uint32_t stock_target(struct mm_node *node)
{
    node->stock_rounds = __atomic_exchange_n(&node->stock_used, false, __ATOMIC_RELAXED) ? 0 : node->stock_rounds + 1;
    if (node->stock_rounds >= STOCK_IDLE_ROUNDS) {
        node->stock_rounds = STOCK_IDLE_ROUNDS;
        return 0;
    }
    return MAX_OF(1u, MIN_OF(STOCK_MAX_BLOCKS, node->pool.budget_pages / BLOCK_PAGES / STOCK_SHARE));
}

/* One zeroed block if the pool can spare it. True: there may be another. */
static bool stock_one(struct pool *pool, uint32_t want)
{
    if (__atomic_load_n(&pool->nr_stock, __ATOMIC_RELAXED) >= want)
        return false;
    uint32_t uncharged = __atomic_load_n(&pool->uncharged, __ATOMIC_RELAXED);
    if (uncharged < BLOCK_PAGES || pool_nr_free(pool) < pool->wmark[WMARK_HIGH] + 2 * BLOCK_PAGES)
        return false;
    return pool_stock_one(pool) == 0;
}

static bool fill_stock(struct mm_host *host, struct mm_node *node)
{
    struct pool *pool = &node->pool;
    uint32_t want = stock_target(node), have = __atomic_load_n(&pool->nr_stock, __ATOMIC_RELAXED);
    if (have > want) {
        pool_drain_stock(pool, want);
        return pool_trim(pool, (have - want) * BLOCK_PAGES) > 0;
    }
    bool more = host->config.thp && stock_one(pool, want);
    if (more)
        node->stock_rounds = 0;
    return more;
}

/* Free blocks go back to the kernel when the pool has had plenty for a while. True: some did. */
static bool shrink_pool(struct mm_node *node)
{
    struct pool *pool = &node->pool;
    uint32_t filled =
        zone_nr_free(&pool->zones[POOL_HUGE], PLANE_FILLED) + zone_nr_free(&pool->zones[POOL_NORMAL], PLANE_FILLED);
    if (filled < BLOCK_PAGES || pool_nr_free(pool) < pool->wmark[WMARK_HIGH]) {
        node->idle_rounds = 0;
        return false;
    }
    return ++node->idle_rounds >= SHRINK_AFTER_ROUNDS && pool_trim(pool, SHRINK_BLOCKS * BLOCK_PAGES) > 0;
}

/* A stored object gets a better place: under its page's lock, if the page still names it. */
static int relocate(void *ctx, vmid_t id, gfn_t gfn, uint64_t payload)
{
    struct mm_host *host = ctx;
    lock_acquire(&host->lru.lock);
    struct mm_vm *vm = host->vms[id];
    struct block *block = vm ? vm_block(vm, gfn) : NULL;
    if (block && !lock_try(&block->lock))
        block = NULL;
    if (block)
        vm_get(vm);
    lock_release(&host->lru.lock);
    if (!block)
        return -EAGAIN;
    int err = -EAGAIN;
    unsigned index = gfn & (BLOCK_PAGES - 1);
    struct s2_entry old = {.state = S2_ABSENT};
    if (pmd_read(block).state == S2_TABLE)
        old = pte_read(block, index);
    if (old.state == S2_ZRAM && old.payload == payload) {
        struct s2_entry new = old;
        new.payload = zram_move(host->zram, payload);
        pte_write(block, index, &old, &new);
        err = 0;
    }
    lock_release(&block->lock);
    vm_put(vm);
    return err;
}

static bool compact_store(struct mm_host *host)
{
    struct zram_stat stat;
    if (!host->zram)
        return false;
    zram_stat(host->zram, &stat);
    if (stat.mem_used_bytes <= COMPACT_PAGES * PAGE_BYTES ||
        stat.mem_used_bytes - MIN_OF(stat.mem_used_bytes, stat.compr_data_bytes) <
            stat.mem_used_bytes / COMPACT_WASTE_SHARE)
        return false;
    return zram_compact(host->zram, relocate, host, COMPACT_PAGES) >= COMPACT_PAGES;
}

bool mm_housekeep(struct mm_thread *thread)
{
    struct mm_host *host = thread->host;
    bool more = false;
    for (unsigned n = 0; n < host->nr_nodes; n++)
        more |= fill_stock(host, &host->node[n]);
    if (more)
        fill_tables(host);
    for (unsigned n = 0; n < host->nr_nodes; n++)
        more |= shrink_pool(&host->node[n]);
    more |= compact_background(thread);
    more |= compact_store(host);
    reap_tables(host);
    return more;
}
