/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Migrate types of pageblocks: what is taken from another type's pageblocks when there is no block of one's own, and
 * when such a pageblock changes sides.
 *
 *     wanted        taken from, the first that has a block
 *     UNMOVABLE     RECLAIMABLE, MOVABLE
 *     MOVABLE       RECLAIMABLE, UNMOVABLE
 *     RECLAIMABLE   UNMOVABLE, MOVABLE
 *
 * Nothing is ever taken from an isolated pageblock.
 */
#include "mm/frame/buddy.h"

#define NR_FALLBACKS 2
static const uint8_t fallbacks[MIGRATE_PCPTYPES][NR_FALLBACKS] = {
    [MIGRATE_UNMOVABLE] = {MIGRATE_RECLAIMABLE, MIGRATE_MOVABLE},
    [MIGRATE_MOVABLE] = {MIGRATE_RECLAIMABLE, MIGRATE_UNMOVABLE},
    [MIGRATE_RECLAIMABLE] = {MIGRATE_UNMOVABLE, MIGRATE_MOVABLE},
};

/* From this order on a movable allocation takes over the pageblock too: Linux mm/page_alloc.c, pageblock_order / 2. */
#define STEAL_ORDER (BLOCK_ORDER / 2)

static void set_type(struct zone *zone, fn_t fn, unsigned type)
{
    __atomic_store_n(&zone->types[fn >> BLOCK_ORDER], (uint8_t)type, __ATOMIC_RELAXED);
}

/* A free block that covers all of the pageblock at @first leaves its list, cut down to it. False: there is none. */
static bool unlist_covering(struct zone *zone, fn_t first, unsigned type, enum plane *plane)
{
    for (unsigned order = BLOCK_ORDER; order <= MAX_ORDER; order++) {
        fn_t fn = first & ~(pages_of(order) - 1);
        if (!zone_has(zone, fn, pages_of(order)) || use_of(zone, fn) != FRAME_FREE || zone->frames[fn].order != order)
            continue;
        *plane = plane_of(&zone->frames[fn]);
        struct free_area *area = &zone->area[*plane][type];
        unlist_block(zone, area, fn, order);
        if (order > BLOCK_ORDER)
            list_block(zone, area, first ^ BLOCK_PAGES, BLOCK_ORDER, *plane);
        zone->frames[first].use = FRAME_TAIL;
        return true;
    }
    return false;
}

static void retype_locked(struct zone *zone, fn_t fn, unsigned type)
{
    unsigned old = type_of(zone, fn);
    fn_t start, end;
    enum plane plane;
    pageblock_range(zone, fn, &start, &end);
    bool whole = end - start == BLOCK_PAGES && unlist_covering(zone, start, old, &plane);
    set_type(zone, fn, type);
    if (whole) {
        count_free(zone, plane, old, -BLOCK_PAGES);
        count_free(zone, plane, type, BLOCK_PAGES);
        buddy_merge_locked(zone, start, BLOCK_ORDER, plane, type);
        return;
    }
    while (start < end) {
        const struct frame *head = &zone->frames[start];
        if (use_of(zone, start) != FRAME_FREE) {
            start++;
            continue;
        }
        plane = plane_of(head);
        unlist_block(zone, &zone->area[plane][old], start, head->order);
        list_block(zone, &zone->area[plane][type], start, head->order, plane);
        count_free(zone, plane, old, -pages_of(head->order));
        count_free(zone, plane, type, pages_of(head->order));
        start += pages_of(head->order);
    }
}

/*
 * The pageblock of @fn, of which a part is free, becomes one of @type if that is what it is mostly used for then: at
 * least half of it is free or, as far as can be seen, of that kind.
 */
static bool claim_locked(struct zone *zone, fn_t fn, unsigned type)
{
    unsigned old = type_of(zone, fn);
    struct pageblock_use use;
    uint32_t alike = 0;
    pageblock_use_locked(zone, fn, &use);
    uint32_t nr_free = use.nr_free[PLANE_FILLED] + use.nr_free[PLANE_EMPTY];
    if (type == MIGRATE_MOVABLE)
        alike = use.nr_movable;
    else if (old == MIGRATE_MOVABLE)
        alike = use.nr_other;
    if (2 * (nr_free + alike) < nr_free + use.nr_movable + use.nr_other)
        return false;
    retype_locked(zone, fn, type);
    return true;
}

fn_t buddy_fallback_locked(struct zone *zone, unsigned order, enum plane plane, unsigned type)
{
    const struct free_area *first = &zone->area[plane][fallbacks[type][0]];
    const struct free_area *second = &zone->area[plane][fallbacks[type][1]];
    unsigned usable = (first->orders | second->orders) >> order << order;
    if (!usable)
        return FN_NONE;
    unsigned from = 31u - (unsigned)__builtin_clz(usable);
    bool steal = from >= STEAL_ORDER || type != MIGRATE_MOVABLE;
    if (!steal)
        from = (unsigned)__builtin_ctz(usable);

    unsigned victim = fallbacks[type][first->orders >> from & 1 ? 0 : 1];
    fn_t fn = zone->area[plane][victim].blocks[from].head;
    if (from < BLOCK_ORDER && steal && claim_locked(zone, fn, type))
        return buddy_alloc_locked(zone, order, plane, type);
    unlist_block(zone, &zone->area[plane][victim], fn, from);
    if (from >= BLOCK_ORDER) {
        for (fn_t at = fn; at < fn + pages_of(from); at += BLOCK_PAGES)
            set_type(zone, at, type);
        victim = type;
    }
    return buddy_give_locked(zone, &zone->area[plane][victim], fn, from, order, plane);
}

enum migratetype set_pageblock_migratetype(struct zone *zone, fn_t fn, enum migratetype type)
{
    require(zone_has(zone, fn, 1) && type < MIGRATE_TYPES);
    lock_acquire(&zone->lock);
    unsigned old = type_of(zone, fn);
    if (old != type)
        retype_locked(zone, fn, type);
    lock_release(&zone->lock);
    return (enum migratetype)old;
}

enum migratetype get_pageblock_migratetype(const struct zone *zone, fn_t fn)
{
    return (enum migratetype)type_of(zone, fn);
}

void zone_count_free(struct zone *zone, enum plane plane, uint32_t nr[MAX_ORDER + 1])
{
    lock_acquire(&zone->lock);
    for (unsigned order = 0; order <= MAX_ORDER; order++) {
        nr[order] = 0;
        for (unsigned type = 0; type < MIGRATE_PCPTYPES; type++)
            nr[order] += zone->area[plane][type].blocks[order].nr;
    }
    lock_release(&zone->lock);
}

void zone_types(struct zone *zone, struct zone_types *out)
{
    *out = (struct zone_types){0};
    lock_acquire(&zone->lock);
    for (unsigned plane = 0; plane < NR_PLANES; plane++)
        for (unsigned type = 0; type < MIGRATE_TYPES; type++)
            for (unsigned order = 0; order <= MAX_ORDER; order++)
                out->nr_blocks[plane][type][order] = zone->area[plane][type].blocks[order].nr;
    lock_release(&zone->lock);
    for (fn_t start = zone->start_fn, end = start; end < zone->start_fn + zone->nr_frames; start = end) {
        pageblock_range(zone, start, &start, &end);
        out->nr_pageblocks[type_of(zone, start)]++;
    }
}
