/* SPDX-License-Identifier: Apache-2.0 */
/* zone_check: the invariants of zone.h, one by one. */
#include "mm/frame/buddy.h"

/* NULL, or what is wrong with the free block at @fn, which its list follows after @prev. */
static const char *check_block(const struct zone *zone, fn_t fn, fn_t prev, unsigned order, enum plane plane,
                               unsigned type)
{
    if (!zone_has(zone, fn, pages_of(order)))
        return "a free block lies outside the zone";
    if (fn & (pages_of(order) - 1))
        return "a free block is not aligned to its order";
    if (!is_free_head(zone, fn, order, plane))
        return "the head of a free block is marked wrongly";
    if (zone->frames[fn].prev != prev)
        return "a free list's back link is wrong";
    if (type_of(zone, fn) != type || type_of(zone, fn + pages_of(order) - 1) != type)
        return "a free block stands on the list of another type";
    if (order < MAX_ORDER && is_free_head(zone, fn ^ pages_of(order), order, plane) &&
        type_of(zone, fn ^ pages_of(order)) == type)
        return "two free buddies are not merged";
    for (uint32_t i = 1; i < pages_of(order); i++) {
        if (use_of(zone, fn + i) != FRAME_TAIL)
            return "a frame inside a free block is not FRAME_TAIL";
    }
    return NULL;
}

/*
 * A block cannot be counted twice: its back link and its marks fit one place on one list. So the heads that the lists
 * reach are as many as the frames marked FRAME_FREE iff no stale head exists.
 */
static const char *check_list(const struct zone *zone, unsigned order, enum plane plane, unsigned type)
{
    const struct free_area *area = &zone->area[plane][type];
    const struct frame_list *list = &area->blocks[order];
    fn_t prev = FN_NONE;
    uint32_t nr = 0;
    for (fn_t fn = list->head; fn != FN_NONE; prev = fn, fn = zone->frames[fn].next, nr++) {
        const char *why = check_block(zone, fn, prev, order, plane, type);
        if (why)
            return why;
    }
    if (list->tail != prev)
        return "a free list's tail is wrong";
    if ((area->orders >> order & 1) != (nr > 0))
        return "the map of orders that have free blocks is wrong";
    return nr == list->nr ? NULL : "a free list's count is wrong";
}

/* The lists of one plane and type; *pages and *nr_heads grow by what stands there. */
static const char *check_area(const struct zone *zone, enum plane plane, unsigned type, uint64_t *pages,
                              uint32_t *nr_heads)
{
    for (unsigned order = 0; order <= MAX_ORDER; order++) {
        const char *why = check_list(zone, order, plane, type);
        if (why)
            return why;
        uint32_t nr = zone->area[plane][type].blocks[order].nr;
        *nr_heads += nr;
        *pages += (uint64_t)nr << order;
    }
    return NULL;
}

static const char *check_locked(const struct zone *zone)
{
    uint32_t nr_heads = 0;
    uint64_t nr_known = 0;
    for (uint32_t i = 0; i < zone->nr_frames; i++)
        if (type_of(zone, zone->start_fn + i) >= MIGRATE_TYPES)
            return "a pageblock is of no type";
    for (enum plane plane = PLANE_FILLED; plane < NR_PLANES; plane++) {
        uint64_t pages = 0, isolated = 0;
        for (unsigned type = 0; type < MIGRATE_TYPES; type++) {
            const char *why = check_area(zone, plane, type, type == MIGRATE_ISOLATE ? &isolated : &pages, &nr_heads);
            if (why)
                return why;
        }
        if (pages != zone->nr_free[plane])
            return "the count of free pages is wrong";
        if (isolated != zone->nr_isolated[plane])
            return "the count of isolated pages is wrong";
        nr_known += pages + isolated;
    }
    for (uint32_t i = 0; i < zone->nr_frames; i++)
        nr_heads -= use_of(zone, zone->start_fn + i) == FRAME_FREE;
    if (nr_heads)
        return "a frame that heads no free block is FRAME_FREE";
    return nr_known + zone->nr_alloc - zone->nr_freed == zone->nr_frames ? NULL : "pages were lost or freed twice";
}

bool zone_check(struct zone *zone, const char **why)
{
    lock_acquire(&zone->lock);
    *why = check_locked(zone);
    lock_release(&zone->lock);
    return !*why;
}
