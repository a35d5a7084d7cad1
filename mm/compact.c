/* SPDX-License-Identifier: Apache-2.0 */
/* See compact.h. Who compacts when is in kcompactd.c. */
#include "mm/compact.h"
#include "mm/reclaim/migrate.h"

#define HALF_BLOCK (BLOCK_PAGES / 2)

static struct mm_host *host_of(const struct compact *c)
{
    return c->thread->host;
}

static struct pool *pool_at(const struct compact *c)
{
    return &c->node->pool;
}

static fn_t zone_end(const struct zone *zone)
{
    return zone->start_fn + zone->nr_frames;
}

void compact_rewind(struct compact_cursor *cursor, const struct zone *zone)
{
    *cursor = (struct compact_cursor){
        .migrate = zone->start_fn, .free = zone_end(zone) - BLOCK_PAGES, .strays = true, .deep = false};
}

static void scan(struct compact *c, fn_t fn, enum vm_event event, struct pageblock_use *use)
{
    zone_pageblock_use(c->zone, fn, use);
    event_add(host_of(c), event, BLOCK_PAGES);
    c->left -= MIN_OF(c->left, BLOCK_PAGES);
}

static bool is_run(const struct pageblock_use *use)
{
    return use->nr_free[PLANE_FILLED] == BLOCK_PAGES || use->nr_free[PLANE_EMPTY] == BLOCK_PAGES;
}

/* ---- the free scanner ---- */

/* To the next pageblock. False: there is none. */
static bool next_place(struct compact *c)
{
    struct compact_cursor *cursor = c->cursor;
    fn_t last = cursor->strays ? c->zone->start_fn : cursor->migrate + BLOCK_PAGES;
    if (cursor->free > last) {
        cursor->free -= BLOCK_PAGES;
        return true;
    }
    if (!cursor->strays)
        return false;
    cursor->strays = false;
    cursor->free = zone_end(c->zone) - BLOCK_PAGES;
    return cursor->free > cursor->migrate;
}

/* May pages be moved to the pageblock that the free scanner is at? */
static bool is_place(struct compact *c)
{
    fn_t fn = c->cursor->free;
    struct pageblock_use use;
    if ((!c->cursor->strays && fn <= c->cursor->migrate) || get_pageblock_migratetype(c->zone, fn) != MIGRATE_MOVABLE)
        return false;
    scan(c, fn, EV_compact_free_scanned, &use);
    return c->cursor->strays ? use.nr_other > 0 : use.nr_other == 0 && use.nr_movable > 0;
}

/* Empty slots, highest first, become filled ones, run by run. Returns how many of the first are; the others are given back. */
static uint32_t fill_slots(struct compact *c, const fn_t slot[], uint32_t nr)
{
    struct pool *pool = pool_at(c);
    uint32_t done = 0;
    if (pool_charge(pool, nr)) {
        zone_free_bulk(c->zone, PLANE_EMPTY, slot, nr);
        return 0;
    }
    while (done < nr) {
        uint32_t run = 1;
        while (done + run < nr && slot[done + run] == slot[done] - run)
            run++;
        if (pool->ops->populate(pool->ops_ctx, slot[done + run - 1], run))
            break;
        event_add(host_of(c), EV_pool_grow, run);
        done += run;
    }
    zone_free_bulk(c->zone, PLANE_EMPTY, slot + done, nr - done);
    pool_uncharge(pool, nr - done);
    return done;
}

/*
 * The scanner does not come back to places that were found and given up. So a search that has some goes on beyond its
 * round, which costs no pass more than one walk over the zone; but a fault does not wait for that.
 */
static bool looks_on(const struct compact *c, uint32_t got)
{
    return c->left || (got && c->want > 1);
}

/* Places for @nr pages; as many as there are, highest first. */
static uint32_t take_places(struct compact *c, fn_t place[], uint32_t nr)
{
    uint32_t got = 0;
    while (got < nr && looks_on(c, got)) {
        fn_t fn = c->cursor->free;
        if (is_place(c)) {
            got += zone_take_free(c->zone, fn, PLANE_FILLED, place + got, nr - got);
            uint32_t slots = zone_take_free(c->zone, fn, PLANE_EMPTY, place + got, nr - got);
            got += slots ? fill_slots(c, place + got, slots) : 0;
        }
        if (got < nr && !next_place(c)) {
            c->no_room = true;
            break;
        }
    }
    return got;
}

/* ---- the migrate scanner ---- */

/* The @nr standby pages of the pageblock at @start move to where there is room for all of them. False: there is not. */
static bool evacuate(struct compact *c, fn_t start, uint32_t nr)
{
    struct mm_host *host = host_of(c);
    const struct pool *pool = pool_at(c);
    fn_t place[BLOCK_PAGES], moved[BLOCK_PAGES];
    uint32_t nr_moved = 0, nr_failed = 0;
    /* the places are nobody's for a moment: no fault shall reclaim for that */
    if (pool_nr_free(pool) < pool->wmark[WMARK_MIN] + nr) {
        c->no_room = true;
        return false;
    }
    uint32_t left = take_places(c, place, nr);
    bool room = left == nr;
    event_add(host, EV_compact_isolated, left);
    for (fn_t fn = start; room && fn < start + BLOCK_PAGES && left; fn++) {
        if (frame_use(&host->frames[fn]) != FRAME_STANDBY)
            continue;
        if (migrate_standby(host, fn, place[left - 1])) {
            nr_failed++;
        } else {
            left--;
            moved[nr_moved++] = fn;
        }
    }
    zone_free_bulk(c->zone, PLANE_FILLED, moved, nr_moved);
    zone_free_bulk(c->zone, PLANE_FILLED, place, left);
    event_add(host, EV_compact_isolated, nr_moved);
    event_add(host, EV_pgmigrate_success, nr_moved);
    event_add(host, EV_pgmigrate_fail, nr_failed);
    return room;
}

/* What is filled in a free pageblock goes back to the kernel: all of its slots are empty then. */
static void give_filled_back(struct compact *c, fn_t start)
{
    struct pool *pool = pool_at(c);
    fn_t slot[BLOCK_PAGES];
    uint32_t nr = zone_take_free(c->zone, start, PLANE_FILLED, slot, BLOCK_PAGES);
    for (uint32_t done = 0, run; done < nr; done += run) {
        for (run = 1; done + run < nr && slot[done + run] == slot[done] - run;)
            run++;
        pool->ops->release(pool->ops_ctx, slot[done + run - 1], run);
    }
    zone_free_bulk(c->zone, PLANE_EMPTY, slot, nr);
    pool_uncharge(pool, nr);
    event_add(host_of(c), EV_pool_release, nr);
}

/* A pageblock that nobody uses any more becomes a run of one plane. */
static void make_run(struct compact *c, fn_t start)
{
    struct pageblock_use use;
    zone_pageblock_use(c->zone, start, &use);
    if (use.nr_other || use.nr_movable)
        return;
    if (!is_run(&use)) {
        give_filled_back(c, start);
        zone_pageblock_use(c->zone, start, &use);
    }
    c->made += is_run(&use);
}

/* The pageblock is worth a try in this pass. */
static bool is_source(const struct compact *c, fn_t fn, const struct pageblock_use *use)
{
    if (use->nr_other || is_run(use) || get_pageblock_migratetype(c->zone, fn) == MIGRATE_ISOLATE)
        return false;
    if (c->no_room && use->nr_movable)
        return false;
    return use->nr_movable <= (c->cursor->deep ? BLOCK_PAGES - 1 : HALF_BLOCK);
}

bool compact_zone(struct compact *c)
{
    struct compact_cursor *cursor = c->cursor;
    c->no_room = false;
    while (c->left && c->made < c->want) {
        struct pageblock_use use;
        if (cursor->migrate >= zone_end(c->zone)) {
            bool end = cursor->deep;
            compact_rewind(cursor, c->zone);
            if (end)
                return true;
            cursor->deep = true;
            c->no_room = false;
        }
        fn_t fn = cursor->migrate;
        scan(c, fn, EV_compact_migrate_scanned, &use);
        if (is_source(c, fn, &use)) {
            if (use.nr_movable && !evacuate(c, fn, use.nr_movable) && !c->left)
                return false; /* here again next time */
            make_run(c, fn);
        }
        cursor->migrate += BLOCK_PAGES;
    }
    return false;
}
