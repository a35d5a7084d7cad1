/* SPDX-License-Identifier: Apache-2.0 */
/* How much of a zone is free in whole blocks of 2 MiB, and how much could be. For tests of compaction. */
#ifndef TESTS_UNIT_COMPACT_RUNS_H
#define TESTS_UNIT_COMPACT_RUNS_H

#include "mm/frame/zone.h"

static inline uint32_t count_runs(struct zone *zone)
{
    uint32_t runs = 0;
    for (fn_t fn = zone->start_fn; fn < zone->start_fn + zone->nr_frames; fn += BLOCK_PAGES) {
        struct pageblock_use use;
        zone_pageblock_use(zone, fn, &use);
        runs += use.nr_free[PLANE_FILLED] == BLOCK_PAGES || use.nr_free[PLANE_EMPTY] == BLOCK_PAGES;
    }
    return runs;
}

/*
 * How many pageblocks can be free as a whole: those without pages that stay, but for as many as the movable pages fill that
 * find no place in the others.
 */
static inline uint32_t most_runs(struct zone *zone)
{
    uint32_t clean = 0, movable = 0, places = 0;
    for (fn_t fn = zone->start_fn; fn < zone->start_fn + zone->nr_frames; fn += BLOCK_PAGES) {
        struct pageblock_use use;
        zone_pageblock_use(zone, fn, &use);
        clean += use.nr_other == 0;
        movable += use.nr_other ? 0 : use.nr_movable;
        if (use.nr_other && get_pageblock_migratetype(zone, fn) == MIGRATE_MOVABLE)
            places += use.nr_free[PLANE_FILLED] + use.nr_free[PLANE_EMPTY];
    }
    movable -= MIN_OF(movable, places);
    return clean - (movable + BLOCK_PAGES - 1) / BLOCK_PAGES;
}

#endif
