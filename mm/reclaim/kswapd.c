/* SPDX-License-Identifier: Apache-2.0 */
/* Who reclaims when: kswapd between the low and the high watermark, a faulting thread below min, a person by hand. */
#include "mm/reclaim/evict.h"

#include <errno.h>
#include <time.h>

/* Pages a round evicts: small enough that a fault waits for one round only. Chosen, unmeasured. */
#define KSWAPD_ROUND 128u
#define DIRECT_ROUND 32u
/* Rounds without a page before ages stop to protect, and before there is nothing to be had. */
#define ROUNDS_BEFORE_FORCE 4u
#define ROUNDS_BEFORE_OOM 8u
/* Pages, and share of the budget. Chosen, unmeasured. */
#define BOOST_STEP 64u
#define BOOST_SHARE 32u
/* Nobody but reclaim gets these: two zspages, so that it can go on once there is something to reclaim. */
#define LAST_PAGES 8u
/* How long a thread sleeps for others to free what they are at. Chosen, unmeasured. */
#define WAIT_NS 50000

static void wait_for_others(void)
{
    nanosleep(&(struct timespec){.tv_nsec = WAIT_NS}, NULL);
}

/* Until one of the evictions under way is done: a write may take its time, and then there is a page or there is not. */
static void wait_for_eviction(const struct mm_lru *lru)
{
    uint32_t before = __atomic_load_n(&lru->nr_evictions, __ATOMIC_RELAXED);
    while (__atomic_load_n(&lru->nr_isolated, __ATOMIC_RELAXED) &&
           __atomic_load_n(&lru->nr_evictions, __ATOMIC_RELAXED) == before)
        wait_for_others();
}

/* Epochs of nothing but mistakes before it is called thrashing. Chosen: about a second of it. */
#define EPOCHS_BEFORE_OOM 64u
/* With more of the budget than that in use, mistakes are what a loop over a little more than fits makes, and it goes on. */
#define THRASHING_BUDGET_SHARE 8u

/*
 * What could be reclaimed is what the guests run on, and the rest has nowhere to go: swap is full or refuses it, and
 * zram refused it or has grown until hardly a page was left beside it. Going on would take and give back the same few
 * pages for ever, each time with success.
 */
static bool only_thrashing_left(struct mm_host *host, const struct mm_node *node)
{
    uint64_t pages = counter_read(&node->nr_resident) + counter_read(&node->nr_standby);
    uint64_t refused = counter_read(&node->nr_refused), usable = pages - MIN_OF(pages, refused);
    bool mistakes = evict_nr_thrashing(host) >= EPOCHS_BEFORE_OOM;
    if (usable >= (mistakes ? node->pool.budget_pages / THRASHING_BUDGET_SHARE : node->pool.wmark[WMARK_MIN]))
        return false;
    return !swap_is_writable(host->swap);
}

/*
 * Watermarks are a few hundred pages, which a sequence of faults uses up before kswapd has woken. After a run in which
 * faults had to reclaim by themselves it keeps more free, up to a 32nd of the budget; after one without, an eighth less.
 */
static void adapt_boost(struct mm_node *node)
{
    uint64_t stalls = counter_read(&node->nr_stalls);
    uint32_t boost = __atomic_load_n(&node->boost_pages, __ATOMIC_RELAXED);
    boost = stalls != node->kswapd_stalls ? 2 * boost + BOOST_STEP : boost - (boost + 7) / 8;
    boost = MAX_OF(boost, node->headroom);
    __atomic_store_n(&node->boost_pages, MIN_OF(boost, node->pool.budget_pages / BOOST_SHARE), __ATOMIC_RELAXED);
    node->kswapd_stalls = stalls;
}

bool mm_kswapd(struct mm_thread *thread, unsigned which)
{
    struct mm_host *host = thread->host;
    struct mm_node *node = &host->node[which];
    uint32_t freed_all = 0, dry = 0;
    event_add(host, EV_pageoutrun, 1);
    adapt_boost(node);
    swap_try_again(host->swap);
    uint32_t target = node->pool.wmark[WMARK_HIGH] + node->boost_pages;
    while (pool_nr_free(&node->pool) < target && dry < ROUNDS_BEFORE_OOM) {
        uint32_t freed = reclaim_round(thread, which, KSWAPD_ROUND, dry >= ROUNDS_BEFORE_FORCE, RECLAIM_KSWAPD);
        dry = freed ? 0 : dry + 1;
        freed_all += freed;
        if (only_thrashing_left(host, node))
            dry = ROUNDS_BEFORE_OOM;
    }
    /* what a slower node has no room for now, or the rate forbids, may go there soon */
    bool failed = dry >= ROUNDS_BEFORE_OOM && !demote_nodes(host, which);
    __atomic_store_n(&node->kswapd_failed, failed, __ATOMIC_RELAXED);
    return freed_all > 0;
}

/*
 * Rounds until one frees a page, each page looked at once. Fruitless: a round that neither freed a page nor learnt of one
 * that zram refuses, nobody else's did, and no area waits to be put back in use.
 */
static int reclaim_or_give_up(struct mm_thread *thread, unsigned which, uint32_t *freed)
{
    struct mm_host *host = thread->host;
    const struct mm_node *node = &host->node[which];
    const uint64_t *refusals = &host->lru.nr_refusals;
    uint64_t enough = counter_read(refusals) + counter_read(&node->nr_resident) + counter_read(&node->nr_standby);
    bool force = false;
    for (uint32_t dry = 0; pool_nr_free(&node->pool) < node->pool.wmark[WMARK_MIN];) {
        bool swapoff = __atomic_load_n(&host->nr_swapoffs, __ATOMIC_RELAXED) > 0;
        uint64_t stolen = counter_read(&node->nr_stolen), refused = counter_read(refusals);
        *freed =
            only_thrashing_left(host, node) ? 0 : reclaim_round(thread, which, DIRECT_ROUND, force, RECLAIM_DIRECT);
        if (*freed)
            return 0;
        wait_for_eviction(&host->lru);
        bool learnt = counter_read(refusals) != refused && refused < enough;
        dry = counter_read(&node->nr_stolen) == stolen && !learnt ? dry + 1 : 0;
        force |= dry >= ROUNDS_BEFORE_FORCE;
        if (dry < ROUNDS_BEFORE_OOM)
            continue;
        if (!swapoff)
            return -ENOMEM;
        /* the area that is being emptied has the room */
        __atomic_store_n(&host->swapoff_yield, true, __ATOMIC_RELAXED);
        wait_for_others();
    }
    return 0;
}

/* Free pages above min, or @freed pages more than before. -ENOMEM: nothing is left to reclaim. */
static int direct_reclaim(struct mm_thread *thread, unsigned which, uint32_t *freed)
{
    struct mm_node *node = &thread->host->node[which];
    uint32_t free_pages = pool_nr_free(&node->pool);
    *freed = 0;
    if (free_pages >= node->pool.wmark[WMARK_MIN])
        return 0;
    /* to look at all there is for each of the last pages would keep a VM from its end, or from living on the edge */
    if (free_pages > __atomic_load_n(&node->retry_below, __ATOMIC_RELAXED))
        return -ENOMEM;
    event_add(thread->host, EV_allocstall, 1);
    counter_add(&node->nr_stalls, 1);
    int err = reclaim_or_give_up(thread, which, freed);
    __atomic_store_n(&node->retry_below, err ? MAX_OF(free_pages / 2, LAST_PAGES) : UINT32_MAX, __ATOMIC_RELAXED);
    if (*freed)
        __atomic_store_n(&node->kswapd_failed, false, __ATOMIC_RELAXED);
    return err;
}

/* @batch pages of the node, or one. True: the thread has some. */
static bool charge_some(struct mm_thread *thread, unsigned node, uint32_t batch)
{
    for (uint32_t nr = batch;; nr = 1) {
        if (!pool_charge(&thread->host->node[node].pool, nr)) {
            thread->charged[node] += nr;
            return true;
        }
        if (nr == 1)
            return thread->charged[node] > 0;
    }
}

/* A kswapd that found nothing is woken again once there was room without it: other nodes may have saved faults from reclaim. */
static void wake_kswapd(struct mm_host *host, unsigned which, uint32_t free_pages)
{
    struct mm_node *node = &host->node[which];
    bool low = free_pages < node->pool.wmark[WMARK_LOW] + __atomic_load_n(&node->boost_pages, __ATOMIC_RELAXED);
    bool failed = __atomic_load_n(&node->kswapd_failed, __ATOMIC_RELAXED);
    if (low && !failed)
        host->ops->kick(host->ops_ctx, MM_KSWAPD(which));
    else if (!low && failed)
        __atomic_store_n(&node->kswapd_failed, false, __ATOMIC_RELAXED);
}

bool thread_charge_above(struct mm_thread *thread, unsigned which, enum watermark mark)
{
    struct mm_host *host = thread->host;
    const struct pool *pool = &host->node[which].pool;
    if (thread->charged[which] >= host->thread_batch)
        return true;
    uint32_t free_pages = pool_nr_free(pool);
    wake_kswapd(host, which, free_pages);
    return free_pages >= pool->wmark[mark] && charge_some(thread, which, host->thread_batch);
}

static int charge_or_reclaim(struct mm_thread *thread, unsigned which)
{
    struct mm_host *host = thread->host;
    struct mm_node *node = &host->node[which];
    const uint32_t *wmark = node->pool.wmark;
    while (thread->charged[which] < host->thread_batch) {
        uint32_t free_pages = pool_nr_free(&node->pool), batch = host->thread_batch, freed;
        wake_kswapd(host, which, free_pages);
        /*
         * The pages below min are for reclaim itself: zram needs memory to make memory. A thread gets a quarter of what
         * it reclaimed, as the store may keep three (zram.h), and of the rest only when nothing can be reclaimed.
         */
        int stuck = 0;
        if (free_pages < wmark[WMARK_MIN]) {
            if (thread->charged[which] > 0)
                return 0;
            stuck = direct_reclaim(thread, which, &freed);
            batch = MAX_OF(freed / 4, 1u);
        } else if (__atomic_load_n(&node->retry_below, __ATOMIC_RELAXED) != UINT32_MAX) {
            __atomic_store_n(&node->retry_below, UINT32_MAX, __ATOMIC_RELAXED);
        }
        bool last = stuck && free_pages <= LAST_PAGES;
        if (!last && charge_some(thread, which, batch))
            return 0;
        if (stuck || direct_reclaim(thread, which, &freed))
            return -ENOMEM;
        if (!freed)
            wait_for_others();
    }
    return 0;
}

int thread_charge(struct mm_thread *thread, unsigned node, nodemask_t allowed, unsigned *out)
{
    struct mm_host *host = thread->host;
    const uint8_t *nearest = host->node[node].nearest;
    /* with one node to choose from, the last loop does what these do */
    bool choice = allowed & (allowed - 1);
    static const enum watermark marks[] = {WMARK_LOW, WMARK_MIN};
    for (unsigned m = 0; choice && m < ARRAY_LEN(marks); m++)
        for (unsigned i = 0; i < host->nr_nodes; i++)
            if (allowed >> nearest[i] & 1 && thread_charge_above(thread, nearest[i], marks[m])) {
                *out = nearest[i];
                return 0;
            }
    for (unsigned i = 0; i < host->nr_nodes; i++)
        if (allowed >> nearest[i] & 1 && !charge_or_reclaim(thread, nearest[i])) {
            *out = nearest[i];
            return 0;
        }
    /* a VM is going to end: the others begin anew */
    __atomic_store_n(&host->lru.nr_thrashing, 0, __ATOMIC_RELAXED);
    return -ENOMEM;
}

static uint64_t deactivate_vm(struct mm_thread *thread, struct mm_vm *vm, uint64_t pages)
{
    uint64_t taken = 0, scanned = 0;
    for (unsigned r = 0; r < vm->nr_regions; r++)
        for (uint64_t i = 0; i < vm->regions[r].bytes >> BLOCK_SHIFT && taken < pages; i++) {
            struct block *block = &vm->blocks[r][i];
            if (!__atomic_load_n(&block->on_lru, __ATOMIC_RELAXED))
                continue;
            lock_acquire(&block->lock);
            for (unsigned n = 0; n < thread->host->nr_nodes; n++)
                taken += lru_deactivate_block(thread, block, n, true, &scanned);
            if (block->nr_resident == 0)
                lru_del_block(thread->host, block);
            lock_release(&block->lock);
        }
    event_add(thread->host, EV_pgscan_direct, scanned);
    return taken;
}

/* The nodes' indexes, the slowest first: what is there is least in use. */
static void slowest_first(const struct mm_host *host, uint8_t order[MM_MAX_NODES])
{
    for (unsigned n = 0; n < host->nr_nodes; n++) {
        unsigned at = n;
        for (; at > 0 && host->node[order[at - 1]].config.rank < host->node[n].config.rank; at--)
            order[at] = order[at - 1];
        order[at] = (uint8_t)n;
    }
}

/* @pages, or as many as there are, from whichever node. Returns pages taken. */
static uint64_t deactivate_all(struct mm_thread *thread, uint32_t pages)
{
    uint64_t taken = 0, scanned = 0;
    uint8_t order[MM_MAX_NODES];
    slowest_first(thread->host, order);
    for (unsigned i = 0; i < thread->host->nr_nodes && taken < pages; i++)
        taken += lru_deactivate(thread, order[i], pages - (uint32_t)taken, true, &scanned);
    return taken;
}

/*
 * Until @pages have left the host's memory, or no more do. A page of a fast node may go to a slower one instead, from where
 * it is stored the next time round: one tier at a time, so that there are no more rounds than tiers. Returns pages stored.
 */
static uint64_t evict_all(struct mm_thread *thread, uint32_t pages)
{
    const struct mm_host *host = thread->host;
    uint64_t before = thread->nr_stored, stored = 0;
    uint32_t freed = 1;
    uint8_t order[MM_MAX_NODES];
    slowest_first(host, order);
    for (unsigned round = 0; freed && round < host->nr_nodes; round++) {
        freed = 0;
        for (unsigned i = 0; i < host->nr_nodes && stored < pages; i++) {
            freed += evict_standby(thread, order[i], pages - (uint32_t)stored, RECLAIM_DIRECT);
            stored = thread->nr_stored - before;
        }
    }
    return stored;
}

uint64_t mm_reclaim(struct mm_thread *thread, struct mm_vm *vm, uint64_t pages, bool to_store)
{
    uint64_t done = 0;
    while (done < pages && !__atomic_load_n(&thread->host->work_stopped, __ATOMIC_RELAXED)) {
        /* in steps of a block, so that frames that come free serve the next step */
        uint32_t step = (uint32_t)MIN_OF(pages - done, (uint64_t)BLOCK_PAGES);
        uint64_t taken = vm ? deactivate_vm(thread, vm, step) : deactivate_all(thread, step);
        uint64_t freed = to_store ? evict_all(thread, MAX_OF(step, (uint32_t)taken)) : taken;
        if (!freed)
            break;
        done += freed;
    }
    return done;
}
