/* SPDX-License-Identifier: Apache-2.0 */
/* The pool: see pool.h for the equations. No host_ops call is made under a lock. */
#include "mm/frame/pool.h"

#include <errno.h>

/* Pages given back to the kernel at once when the budget runs dry: 64 pages in one MADV_DONTNEED cost about as much as
 * ten single calls (FACTS: 150-240 ns a page in bulk). */
#define RELEASE_BATCH_ORDER 6
/* Shorter runs cost more to give back (0.5 us a call and more) than they are worth to an idle host. Chosen, unmeasured. */
#define TRIM_MIN_ORDER 4
/* Single pages made at once when a store needs filled ones and none is free. Chosen, unmeasured. */
#define PREFILL_PAGES 16u

static void count(struct pool *pool, enum vm_event event, uint64_t nr)
{
    __atomic_add_fetch(&pool->events[event], nr, __ATOMIC_RELAXED);
}

static uint32_t round_up_block(uint64_t pages)
{
    return (uint32_t)((pages + BLOCK_PAGES - 1) / BLOCK_PAGES * BLOCK_PAGES);
}

uint32_t pool_nr_slots(uint32_t budget_pages)
{
    return round_up_block(budget_pages) + round_up_block((uint64_t)budget_pages * 5 / 4);
}

void pool_init(struct pool *pool, const struct host_ops *ops, void *ops_ctx, void *arena, struct frame *frames,
               uint8_t *types, fn_t start, uint32_t budget_pages, uint64_t *events)
{
    uint32_t nr_huge = round_up_block(budget_pages);
    *pool = (struct pool){
        .ops = ops,
        .ops_ctx = ops_ctx,
        .arena = arena,
        .frames = frames,
        .start_fn = start,
        .nr_slots = pool_nr_slots(budget_pages),
        .budget_pages = budget_pages,
        .events = events,
        .uncharged = budget_pages,
    };
    lock_init(&pool->lock, LOCK_POOL);
    frame_list_init(&pool->stock);
    zone_init(&pool->zones[POOL_HUGE], "Huge", frames, types, start, nr_huge, PLANE_EMPTY);
    zone_init(&pool->zones[POOL_NORMAL], "Normal", frames, types, start + nr_huge, pool->nr_slots - nr_huge,
              PLANE_EMPTY);
    watermark_set(&pool->zones[POOL_NORMAL], budget_pages);
    watermark_compute(budget_pages, pool->wmark);
}

static struct zone *zone_of(struct pool *pool, fn_t fn)
{
    return &pool->zones[fn < pool->zones[POOL_NORMAL].start_fn ? POOL_HUGE : POOL_NORMAL];
}

uint32_t pool_nr_free(const struct pool *pool)
{
    return __atomic_load_n(&pool->uncharged, __ATOMIC_RELAXED) + zone_nr_free(&pool->zones[POOL_HUGE], PLANE_FILLED) +
           zone_nr_free(&pool->zones[POOL_NORMAL], PLANE_FILLED) +
           __atomic_load_n(&pool->nr_stock, __ATOMIC_RELAXED) * BLOCK_PAGES;
}

static bool try_charge(struct pool *pool, uint32_t nr)
{
    uint32_t have = __atomic_load_n(&pool->uncharged, __ATOMIC_RELAXED);
    while (have >= nr)
        if (__atomic_compare_exchange_n(&pool->uncharged, &have, have - nr, true, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
            return true;
    return false;
}

/* One free filled block of exactly @order goes back to the kernel. False: there is none. */
static bool release_one(struct pool *pool, struct zone *zone, unsigned order)
{
    fn_t fn;
    if (zone_alloc(zone, order, PLANE_FILLED, &fn))
        return false;
    uint32_t nr = 1u << order;
    pool->ops->release(pool->ops_ctx, fn, nr);
    zone_free(zone, fn, order, PLANE_EMPTY);
    count(pool, EV_pool_release, nr);
    pool_uncharge(pool, nr);
    return true;
}

uint32_t pool_trim(struct pool *pool, uint32_t pages)
{
    uint32_t done = 0;
    unsigned order = BLOCK_ORDER;
    while (done < pages && order >= TRIM_MIN_ORDER) {
        if ((order == BLOCK_ORDER && release_one(pool, &pool->zones[POOL_HUGE], order)) ||
            release_one(pool, &pool->zones[POOL_NORMAL], order))
            done += 1u << order;
        else
            order--;
    }
    return done;
}

/* A part of a huge page, which the kernel really has back only when it splits the page. */
static bool release_part(struct pool *pool)
{
    for (unsigned order = BLOCK_ORDER; order-- > 0;)
        if (release_one(pool, &pool->zones[POOL_HUGE], order))
            return true;
    return false;
}

/*
 * Turns free filled pages into uncharged ones: whole blocks first, they are cheap (5 us), then the longest runs, then the
 * stock, and parts of huge pages as the last resort. @for_store: the stock after these, for what a page of a store wants is
 * a place, and the stock would be gone for one page.
 */
static bool release_some(struct pool *pool, bool for_store)
{
    if (release_one(pool, &pool->zones[POOL_HUGE], BLOCK_ORDER))
        return true;
    for (unsigned order = RELEASE_BATCH_ORDER + 1; order-- > 0;)
        if (release_one(pool, &pool->zones[POOL_NORMAL], order))
            return true;
    if (for_store && release_part(pool))
        return true;
    if (__atomic_load_n(&pool->nr_stock, __ATOMIC_RELAXED)) {
        pool_drain_stock(pool, 0);
        if (release_one(pool, &pool->zones[POOL_HUGE], BLOCK_ORDER))
            return true;
    }
    return release_part(pool);
}

static int charge(struct pool *pool, uint32_t nr, bool for_store)
{
    while (!try_charge(pool, nr))
        if (!release_some(pool, for_store))
            return -ENOMEM;
    return 0;
}

int pool_charge(struct pool *pool, uint32_t nr)
{
    return charge(pool, nr, false);
}

void pool_uncharge(struct pool *pool, uint32_t nr)
{
    __atomic_add_fetch(&pool->uncharged, nr, __ATOMIC_ACQ_REL);
}

/* Empty slots of @zone become one filled run, which is charged. After an error it is not. */
static int populate_charged(struct pool *pool, struct zone *zone, unsigned order, enum migratetype type, fn_t *out)
{
    uint32_t nr = 1u << order;
    int err = zone_alloc_type(zone, order, PLANE_EMPTY, type, out);
    if (!err) {
        err = pool->ops->populate(pool->ops_ctx, *out, nr);
        if (err)
            zone_free(zone, *out, order, PLANE_EMPTY);
    }
    if (err)
        pool_uncharge(pool, nr);
    else
        count(pool, EV_pool_grow, nr);
    return err;
}

static int populate(struct pool *pool, struct zone *zone, unsigned order, enum migratetype type, fn_t *out)
{
    return try_charge(pool, 1u << order) ? populate_charged(pool, zone, order, type, out) : -ENOMEM;
}

int pool_alloc_filled(struct pool *pool, unsigned order, enum migratetype type, bool may_populate, fn_t *out)
{
    struct zone *normal = &pool->zones[POOL_NORMAL], *huge = &pool->zones[POOL_HUGE];
    count(pool, EV_pgalloc_normal, UINT64_C(1) << order);
    if (!zone_alloc_type(normal, order, PLANE_FILLED, type, out) ||
        (may_populate && !populate(pool, normal, order, type, out)))
        return 0;
    /* of a huge page that is broken already the smallest piece, for what can be moved out of the way of the next one */
    if (type == MIGRATE_MOVABLE && !zone_alloc(huge, order, PLANE_FILLED, out))
        return 0;
    /* free pages there may be, but no run of them, or in zone Huge only: as many are given up for one */
    if (may_populate && !charge(pool, 1u << order, type != MIGRATE_MOVABLE) &&
        !populate_charged(pool, normal, order, type, out))
        return 0;
    return zone_alloc(huge, order, PLANE_FILLED, out);
}

int pool_alloc_run(struct pool *pool, unsigned order, fn_t *out)
{
    return zone_alloc(&pool->zones[POOL_NORMAL], order, PLANE_FILLED, out);
}

/* One run for prefill, as long as can be had. */
static int prefill_some(struct pool *pool)
{
    struct zone *normal = &pool->zones[POOL_NORMAL];
    _Static_assert(PREFILL_PAGES == 1u << 4, "one populate call");
    for (unsigned order = 5; order-- > 0;) {
        fn_t fn;
        if (populate(pool, normal, order, MIGRATE_RECLAIMABLE, &fn))
            continue;
        zone_free(normal, fn, order, PLANE_FILLED);
        return 0;
    }
    return -ENOMEM;
}

int pool_prefill(struct pool *pool, uint32_t nr)
{
    const struct zone *normal = &pool->zones[POOL_NORMAL], *huge = &pool->zones[POOL_HUGE];
    while (zone_nr_free(normal, PLANE_FILLED) + zone_nr_free(huge, PLANE_FILLED) < nr) {
        if (!prefill_some(pool))
            continue;
        if (!__atomic_load_n(&pool->nr_stock, __ATOMIC_RELAXED))
            return -ENOMEM;
        pool_drain_stock(pool, 0);
    }
    return 0;
}

int pool_alloc_empty(struct pool *pool, uint32_t nr, fn_t *out, uint32_t *got)
{
    unsigned order = 0;
    while (order < BLOCK_ORDER && (1u << order) < nr)
        order++;
    for (struct zone *normal = &pool->zones[POOL_NORMAL];; order--) {
        if (!zone_alloc(normal, order, PLANE_EMPTY, out)) {
            *got = MIN_OF(nr, 1u << order);
            if (*got < 1u << order)
                zone_free_range(normal, *out + *got, (1u << order) - *got, PLANE_EMPTY);
            return 0;
        }
        if (order == 0)
            return -ENOMEM;
    }
}

static void free_run(struct pool *pool, fn_t fn, uint32_t nr, enum plane plane)
{
    /* zone_free leaves the marks of a block that was never taken apart */
    if (nr == BLOCK_PAGES && fn % BLOCK_PAGES == 0)
        zone_free(zone_of(pool, fn), fn, BLOCK_ORDER, plane);
    else
        zone_free_range(zone_of(pool, fn), fn, nr, plane);
}

void pool_free_filled(struct pool *pool, fn_t fn, uint32_t nr)
{
    count(pool, EV_pgfree, nr);
    free_run(pool, fn, nr, PLANE_FILLED);
}

void pool_free_empty(struct pool *pool, fn_t fn, uint32_t nr)
{
    free_run(pool, fn, nr, PLANE_EMPTY);
}

int pool_alloc_block(struct pool *pool, bool may_populate, fn_t *out)
{
    lock_acquire(&pool->lock);
    *out = frame_list_pop_head(&pool->stock, pool->frames);
    if (*out != FN_NONE)
        __atomic_sub_fetch(&pool->nr_stock, 1, __ATOMIC_RELAXED);
    lock_release(&pool->lock);
    if (*out != FN_NONE)
        return 0;
    return may_populate ? populate(pool, &pool->zones[POOL_HUGE], BLOCK_ORDER, MIGRATE_MOVABLE, out) : -ENOMEM;
}

int pool_alloc_block_any(struct pool *pool, fn_t *out)
{
    struct zone *huge = &pool->zones[POOL_HUGE];
    if (!zone_alloc(huge, BLOCK_ORDER, PLANE_FILLED, out) || !populate(pool, huge, BLOCK_ORDER, MIGRATE_MOVABLE, out) ||
        !pool_alloc_block(pool, false, out))
        return 0;
    return pool_charge(pool, BLOCK_PAGES) ? -ENOMEM : populate_charged(pool, huge, BLOCK_ORDER, MIGRATE_MOVABLE, out);
}

int pool_stock_one(struct pool *pool)
{
    fn_t fn;
    int err = populate(pool, &pool->zones[POOL_HUGE], BLOCK_ORDER, MIGRATE_MOVABLE, &fn);
    if (err)
        return err;
    lock_acquire(&pool->lock);
    pool->frames[fn].use = FRAME_ZEROED;
    frame_list_push_tail(&pool->stock, pool->frames, fn);
    __atomic_add_fetch(&pool->nr_stock, 1, __ATOMIC_RELAXED);
    lock_release(&pool->lock);
    return 0;
}

void pool_drain_stock(struct pool *pool, uint32_t keep)
{
    for (fn_t fn; __atomic_load_n(&pool->nr_stock, __ATOMIC_RELAXED) > keep && !pool_alloc_block(pool, false, &fn);)
        zone_free(&pool->zones[POOL_HUGE], fn, BLOCK_ORDER, PLANE_FILLED);
}

void pool_fini(struct pool *pool)
{
    pool_drain_stock(pool, 0);
    for (unsigned z = 0; z < POOL_NR_ZONES; z++) {
        for (unsigned order = MAX_ORDER + 1; order-- > 0;)
            while (release_one(pool, &pool->zones[z], order))
                continue;
        zone_fini(&pool->zones[z]);
    }
    lock_fini(&pool->lock);
}

bool pool_check(struct pool *pool, const char **why)
{
    for (unsigned z = 0; z < POOL_NR_ZONES; z++)
        if (!zone_check(&pool->zones[z], why))
            return false;
    *why = "pool: stock length";
    if (pool->stock.nr != pool->nr_stock)
        return false;
    *why = "pool: more uncharged pages than the budget has";
    return pool->uncharged <= pool->budget_pages;
}
