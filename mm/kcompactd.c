/* SPDX-License-Identifier: Apache-2.0 */
/* Who compacts when: a fault for itself, the housekeeper in the background, a person by hand. */
#include "mm/compact.h"
#include "mm/frame/fragindex.h"

#include <errno.h>
#include <time.h>

/* Frames that a fault and a round of the housekeeper look at, at most. Chosen, unmeasured. */
#define DIRECT_FRAMES (64 * BLOCK_PAGES)
#define ROUND_FRAMES (64 * BLOCK_PAGES)
/* After failures one in so many faults tries, and the background rests for as many rounds of Linux's kcompactd, each 500 ms. */
#define MAX_DEFER_SHIFT 6 /* COMPACT_MAX_DEFER_SHIFT */
#define REST_NS ((UINT64_C(500000000)) << MAX_DEFER_SHIFT)
/* Linux fragmentation_score_wmark: no score below this begins or goes on, and how far the two marks are apart. */
#define MIN_SCORE 5u
#define SCORE_GAP 10u

struct free_blocks {
    uint32_t nr[NR_PLANES][MAX_ORDER + 1];
};

static void count_blocks(struct zone *zone, struct free_blocks *out)
{
    for (enum plane plane = PLANE_FILLED; plane < NR_PLANES; plane++)
        zone_count_free(zone, plane, out->nr[plane]);
}

static void add_blocks(uint32_t to[MAX_ORDER + 1], const uint32_t from[MAX_ORDER + 1])
{
    for (unsigned order = 0; order <= MAX_ORDER; order++)
        to[order] += from[order];
}

static bool has_block(const uint32_t nr[MAX_ORDER + 1])
{
    return nr[BLOCK_ORDER] + nr[MAX_ORDER] > 0;
}

unsigned compact_score(struct mm_node *node)
{
    uint64_t score = 0;
    for (unsigned z = 0; z < POOL_NR_ZONES; z++) {
        struct zone *zone = &node->pool.zones[z];
        struct free_blocks blocks;
        count_blocks(zone, &blocks);
        add_blocks(blocks.nr[PLANE_FILLED], blocks.nr[PLANE_EMPTY]);
        if (zone_nr_free(zone, PLANE_FILLED) + zone_nr_free(zone, PLANE_EMPTY))
            score += (uint64_t)zone->nr_frames * (uint32_t)unusable_index(blocks.nr[PLANE_FILLED], BLOCK_ORDER);
    }
    return (unsigned)(score / node->pool.nr_slots / 10);
}

/* Would pool_alloc_block get one? It needs empty slots for it in zone Huge, and 512 pages of budget. */
static bool block_is_there(struct pool *pool)
{
    struct free_blocks huge;
    if (__atomic_load_n(&pool->nr_stock, __ATOMIC_RELAXED))
        return true;
    count_blocks(&pool->zones[POOL_HUGE], &huge);
    return has_block(huge.nr[PLANE_EMPTY]) && __atomic_load_n(&pool->uncharged, __ATOMIC_RELAXED) >= BLOCK_PAGES;
}

/* A free filled block of 2 MiB is as good: given back, it is slots and budget. True: there is a block now. */
static bool use_filled_block(struct pool *pool)
{
    struct free_blocks huge, normal;
    count_blocks(&pool->zones[POOL_HUGE], &huge);
    count_blocks(&pool->zones[POOL_NORMAL], &normal);
    if (!has_block(huge.nr[PLANE_FILLED]) && !(has_block(huge.nr[PLANE_EMPTY]) && has_block(normal.nr[PLANE_FILLED])))
        return false;
    pool_trim(pool, BLOCK_PAGES);
    return block_is_there(pool);
}

/*
 * How much it is the pieces' fault that there is no block of 2 MiB: of zone Huge while it has no empty one, else of the
 * filled pages that are to make room in the budget.
 */
static int fragmentation(struct pool *pool)
{
    struct free_blocks huge, normal;
    count_blocks(&pool->zones[POOL_HUGE], &huge);
    count_blocks(&pool->zones[POOL_NORMAL], &normal);
    bool slots = has_block(huge.nr[PLANE_EMPTY]);
    add_blocks(huge.nr[PLANE_FILLED], slots ? normal.nr[PLANE_FILLED] : huge.nr[PLANE_EMPTY]);
    return extfrag_index(huge.nr[PLANE_FILLED], BLOCK_ORDER);
}

/* ---- one at a time ---- */

static bool begin(struct mm_node *node)
{
    /* pairs with the release in end */
    return !__atomic_exchange_n(&node->compact.busy, true, __ATOMIC_ACQUIRE);
}

static void end(struct mm_node *node)
{
    __atomic_store_n(&node->compact.busy, false, __ATOMIC_RELEASE);
}

static void compact_on(struct mm_thread *thread, struct mm_node *node, unsigned z, struct compact *c)
{
    c->thread = thread;
    c->node = node;
    c->zone = &node->pool.zones[z];
    c->cursor = &node->compact.cursor[z];
}

/* ---- a fault ---- */

static bool is_deferred(struct compact_state *state)
{
    uint32_t shift = __atomic_load_n(&state->defer_shift, __ATOMIC_RELAXED);
    return __atomic_add_fetch(&state->considered, 1, __ATOMIC_RELAXED) < 1u << shift;
}

static void note_result(struct compact_state *state, bool success)
{
    uint32_t shift = __atomic_load_n(&state->defer_shift, __ATOMIC_RELAXED);
    __atomic_store_n(&state->considered, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&state->defer_shift, success ? 0 : MIN_OF(shift + 1, (uint32_t)MAX_DEFER_SHIFT), __ATOMIC_RELAXED);
}

bool compact_direct(struct mm_thread *thread, unsigned node_index)
{
    struct mm_host *host = thread->host;
    struct mm_node *node = &host->node[node_index];
    struct pool *pool = &node->pool;
    if (use_filled_block(pool))
        return true;
    int threshold = (int)__atomic_load_n(&host->compaction.extfrag_threshold, __ATOMIC_RELAXED);
    if (fragmentation(pool) <= threshold)
        return false;
    if (is_deferred(&node->compact) || !begin(node)) {
        node_want_block(host, node);
        return false;
    }
    event_add(host, EV_compact_stall, 1);
    struct compact c = {.left = DIRECT_FRAMES, .want = 1};
    bool success = false;
    for (unsigned z = 0; z < POOL_NR_ZONES && !success; z++) {
        compact_on(thread, node, z, &c);
        for (bool through = false; c.left && !through && !success;) {
            c.made = 0;
            through = compact_zone(&c);
            success = c.made && (block_is_there(pool) || use_filled_block(pool));
        }
    }
    end(node);
    event_add(host, success ? EV_compact_success : EV_compact_fail, 1);
    note_result(&node->compact, success);
    if (!success)
        node_want_block(host, node);
    return success;
}

/* ---- the background ---- */

/* Is there a reason to go on? The score begins at the upper mark and ends at the lower one. */
static bool has_reason(const struct mm_host *host, struct mm_node *node)
{
    struct compact_state *state = &node->compact;
    uint32_t proactiveness = __atomic_load_n(&host->compaction.proactiveness, __ATOMIC_RELAXED);
    uint32_t low = MAX_OF(100 - proactiveness, MIN_SCORE), high = MIN_OF(low + SCORE_GAP, 100u);
    if (host->ops->clock_ns(host->ops_ctx) < state->rest_until_ns)
        return false;
    if (__atomic_load_n(&state->wanted, __ATOMIC_RELAXED)) {
        if (!block_is_there(&node->pool) && !use_filled_block(&node->pool))
            return true;
        __atomic_store_n(&state->wanted, false, __ATOMIC_RELAXED);
    }
    unsigned score = proactiveness ? compact_score(node) : 0;
    bool was = state->proactive;
    state->proactive = proactiveness > 0 && score > (was ? low : high);
    return state->proactive;
}

/* All zones are through: what was to be had is there, or is not to be had. */
static void end_cycle(const struct mm_host *host, struct compact_state *state)
{
    if (!state->made) {
        state->rest_until_ns = host->ops->clock_ns(host->ops_ctx) + REST_NS;
        state->proactive = false;
        __atomic_store_n(&state->wanted, false, __ATOMIC_RELAXED);
    }
    state->made = 0;
    state->zone = 0;
}

static bool compact_node(struct mm_thread *thread, struct mm_node *node)
{
    struct compact_state *state = &node->compact;
    bool was = state->proactive;
    if (!has_reason(thread->host, node))
        return false;
    if (state->proactive && !was)
        event_add(thread->host, EV_compact_daemon_wake, 1);
    struct compact c = {.left = ROUND_FRAMES, .want = UINT32_MAX};
    compact_on(thread, node, state->zone, &c);
    bool through = compact_zone(&c);
    state->made += c.made;
    if (!through || ++state->zone < POOL_NR_ZONES)
        return true;
    end_cycle(thread->host, state);
    return false;
}

bool compact_background(struct mm_thread *thread)
{
    bool more = false;
    for (unsigned n = 0; n < thread->host->nr_nodes; n++) {
        struct mm_node *node = &thread->host->node[n];
        if (!begin(node))
            continue;
        more |= compact_node(thread, node);
        end(node);
    }
    return more;
}

/* ---- by hand ---- */

static bool is_stopped(const struct mm_host *host)
{
    return __atomic_load_n(&host->work_stopped, __ATOMIC_RELAXED);
}

int mm_compact(struct mm_thread *thread, unsigned node_index, uint64_t *runs)
{
    struct mm_host *host = thread->host;
    *runs = 0;
    if (node_index >= host->nr_nodes)
        return -EINVAL;
    struct mm_node *node = &host->node[node_index];
    while (!begin(node)) {
        if (is_stopped(host))
            return -ECANCELED;
        nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
    }
    pcp_drain(&thread->pcp[node_index]);
    for (unsigned z = 0; z < POOL_NR_ZONES && !is_stopped(host); z++) {
        bool through = false;
        struct compact_cursor cursor;
        compact_rewind(&cursor, &node->pool.zones[z]);
        while (!through && !is_stopped(host)) {
            struct compact c = {.left = ROUND_FRAMES, .want = UINT32_MAX};
            compact_on(thread, node, z, &c);
            c.cursor = &cursor;
            through = compact_zone(&c);
            *runs += c.made;
        }
    }
    end(node);
    return is_stopped(host) ? -ECANCELED : 0;
}

int mm_compaction_set(struct mm_host *host, const struct mm_compaction *compaction)
{
    if (compaction->extfrag_threshold > 1000 || compaction->proactiveness > 100)
        return -EINVAL;
    __atomic_store_n(&host->compaction.extfrag_threshold, compaction->extfrag_threshold, __ATOMIC_RELAXED);
    __atomic_store_n(&host->compaction.proactiveness, compaction->proactiveness, __ATOMIC_RELAXED);
    return 0;
}

void mm_compaction_get(const struct mm_host *host, struct mm_compaction *out)
{
    out->extfrag_threshold = __atomic_load_n(&host->compaction.extfrag_threshold, __ATOMIC_RELAXED);
    out->proactiveness = __atomic_load_n(&host->compaction.proactiveness, __ATOMIC_RELAXED);
}
