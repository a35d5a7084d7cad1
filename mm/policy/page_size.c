/* SPDX-License-Identifier: Apache-2.0 */
/* The scanner: which blocks are rebuilt, and how much time that may take. See page_size.h. */
#include "mm/policy/page_size.h"
#include "mm/reclaim/lru.h"
#include "mm/reclaim/place.h"

#define NS_PER_MS UINT64_C(1000000)
/* A round ends after so many blocks, or after the first one past so much time. A block takes about half a millisecond. */
#define ROUND_MAX_BLOCKS 256u
#define ROUND_NS (1 * NS_PER_MS)
#define ROUND_MIN_WAIT_NS (10 * NS_PER_MS)
/*
 * From one pass over all blocks to the next: what is cold has so long to be taken before it is called hot. Linux waits 10 s
 * between eighths of a pass (khugepaged scan_sleep_millisecs, pages_to_scan); a look costs less here. Chosen, unmeasured.
 */
#define PASS_WAIT_NS (1000 * NS_PER_MS)
/* After the n-th failure in a row a block is left alone for 2^n passes: what a device holds it may hold for long. */
#define MAX_BACKOFF 7u

/* A block is on trial when reclaim took it so often and it came back, twice that each time all of it was found to be hot. */
#define TRIAL_TAKES 3u
#define MAX_ACQUITTALS 2u
/*
 * Trials from one round to the next, and what one may cost: each page a minor fault by copy of 8.8 us. Three are at most
 * 14 ms, which are paid for by a longer wait after the next round.
 */
#define ROUND_TRIALS 3u
#define TRIAL_NS (BLOCK_PAGES * UINT64_C(8800))

const char *collapse_why_not(const struct mm_host *host)
{
    if (!host->config.thp)
        return "2 MiB frames are switched off";
    if (!host->config.collapse_pct)
        return "no time is allowed for it";
    if (host->ops->no_huge)
        return "pages are copied to guests, which makes no huge pages";
    if (host->ops->keeps_tables)
        return "the kernel keeps page tables of memory that was given up (before Linux 6.14, or without "
               "CONFIG_PT_RECLAIM)";
    return NULL;
}

bool collapse_take_trial(struct mm_host *host)
{
    uint32_t *left = &host->collapse.trials_left, have = __atomic_load_n(left, __ATOMIC_RELAXED);
    while (have > 0 && !__atomic_compare_exchange_n(left, &have, have - 1, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        ;
    return have > 0;
}

bool split_is_due(struct mm_host *host, struct block *block)
{
    if (collapse_why_not(host) || block->nr_takes < TRIAL_TAKES << block->nr_acquittals || !collapse_take_trial(host))
        return false;
    block->nr_takes = 0;
    block->on_trial = true;
    event_add(host, EV_thp_split_trial, 1);
    return true;
}

/* Whether the policy of the block lets it be one frame on @node. */
static bool policy_allows(const struct block *block, unsigned node)
{
    struct wish wish;
    place_wish(block->vm, block->start, 0, &wish);
    return !wish.single && wish.allowed >> node & 1;
}

/* Whether the block is to be rebuilt: fit for it at this look and at the last one, and not left alone for failures. */
static bool is_due(struct mm_host *host, struct block *block, unsigned *node)
{
    if (!lock_try(&block->lock))
        return false; /* somebody is at it: at the next pass */
    bool table = pmd_read(block).state == S2_TABLE, fits = table && collapse_fits(block, node);
    bool due = fits && block->was_whole && !block->passes_to_wait;
    block->was_whole = fits;
    block->passes_to_wait = (uint8_t)(block->passes_to_wait - (block->passes_to_wait > 0));
    lock_release(&block->lock);
    if (table)
        event_add(host, EV_khugepaged_pages_scanned, BLOCK_PAGES);
    return due;
}

static void note_held(struct mm_host *host, uint64_t ns)
{
    event_add(host, EV_thp_collapse_held_ns, ns);
    if (ns > counter_read(&host->collapse.longest_held_ns))
        __atomic_store_n(&host->collapse.longest_held_ns, ns, __ATOMIC_RELAXED);
}

static void collapse_locked(struct mm_thread *thread, struct block *block, fn_t fn)
{
    struct mm_host *host = thread->host;
    uint64_t start_ns = host->ops->clock_ns(host->ops_ctx);
    if (collapse_block(thread, block, fn)) {
        block->nr_failures = (uint8_t)MIN_OF(block->nr_failures + 1u, MAX_BACKOFF);
        block->passes_to_wait = (uint8_t)(1u << block->nr_failures);
    } else {
        block->nr_failures = block->nr_takes = 0;
        if (block->on_trial || pmd_read(block).age > 0)
            block->nr_acquittals = (uint8_t)MIN_OF(block->nr_acquittals + 1u, MAX_ACQUITTALS);
        block->on_trial = false;
    }
    block->was_whole = false;
    note_held(host, host->ops->clock_ns(host->ops_ctx) - start_ns);
}

static void visit(struct mm_thread *thread, struct block *block)
{
    struct mm_host *host = thread->host;
    unsigned node;
    fn_t fn;
    if (!is_due(host, block, &node) || !policy_allows(block, node))
        return;
    struct pool *pool = &host->node[node].pool;
    bool room = collapse_has_room(&host->node[node]) || collapse_make_room(thread, block, node);
    if (!room || pool_alloc_block_any(pool, &fn)) {
        event_add(host, EV_thp_collapse_alloc_failed, 1);
        if (room)
            node_want_block(host, &host->node[node]);
        return;
    }
    event_add(host, EV_thp_collapse_alloc, 1);
    lock_acquire(&block->lock);
    unsigned now;
    if (collapse_fits(block, &now) && now == node)
        collapse_locked(thread, block, fn);
    else
        pool_free_filled(pool, fn, BLOCK_PAGES);
    lock_release(&block->lock);
}

/* One block, or a step to the next region or VM. False: all of them have been looked at. */
static bool scan_one(struct mm_thread *thread)
{
    struct mm_host *host = thread->host;
    struct collapse_state *at = &host->collapse;
    unsigned id = at->vm;
    struct mm_vm *vm = vm_hold_from(host, &id);
    if (!vm || id != at->vm) {
        at->vm = id;
        at->region = 0;
        at->block = 0;
    }
    if (!vm)
        return false;
    if (at->region >= vm->nr_regions) {
        at->vm++;
        at->region = 0;
    } else if (at->block >= vm->regions[at->region].bytes >> BLOCK_SHIFT) {
        at->region++;
        at->block = 0;
    } else {
        visit(thread, &vm->blocks[at->region][at->block++]);
    }
    vm_put(vm);
    return true;
}

/* How long to wait after a round that took @took_ns, for it to be that share of the time. */
static uint64_t wait_ns(const struct mm_host *host, uint64_t took_ns, bool pass_done)
{
    uint64_t share = took_ns * 100 / host->config.collapse_pct - took_ns;
    return MAX_OF(share, pass_done ? PASS_WAIT_NS : ROUND_MIN_WAIT_NS);
}

static unsigned ms_until(uint64_t now_ns, uint64_t due_ns)
{
    return (unsigned)((due_ns - now_ns + NS_PER_MS - 1) / NS_PER_MS);
}

unsigned collapse_scan(struct mm_thread *thread)
{
    struct mm_host *host = thread->host;
    struct collapse_state *at = &host->collapse;
    if (collapse_why_not(host)) {
        event_add(host, EV_thp_collapse_keeps_tables, host->ops->keeps_tables);
        return 0;
    }
    uint64_t start_ns = host->ops->clock_ns(host->ops_ctx), now_ns = start_ns;
    if (!at->due_ns)
        __atomic_store_n(&at->trials_left, ROUND_TRIALS, __ATOMIC_RELAXED); /* the first round of all */
    if (start_ns < at->due_ns)
        return ms_until(start_ns, at->due_ns);
    bool more = true;
    uint64_t cpu_ns = host->ops->cpu_ns(host->ops_ctx);
    for (unsigned i = 0; more && i < ROUND_MAX_BLOCKS && now_ns - start_ns < ROUND_NS; i++) {
        more = scan_one(thread);
        now_ns = host->ops->clock_ns(host->ops_ctx);
    }
    if (!more) {
        at->vm = 0;
        collapse_end_pass(host, now_ns);
        event_add(host, EV_khugepaged_full_scans, 1);
    }
    uint32_t tried = ROUND_TRIALS - __atomic_exchange_n(&at->trials_left, ROUND_TRIALS, __ATOMIC_RELAXED);
    cpu_ns = host->ops->cpu_ns(host->ops_ctx) - cpu_ns;
    event_add(host, EV_thp_collapse_busy_ns, cpu_ns);
    at->due_ns = now_ns + wait_ns(host, cpu_ns + tried * TRIAL_NS, !more);
    return ms_until(now_ns, at->due_ns);
}
