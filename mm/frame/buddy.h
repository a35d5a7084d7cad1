/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What zone.c, migratetype.c, pageblock.c and zone_check.c share: marks, lists, types. Internal to mm/frame; zone.h says
 * what holds.
 *
 * A holder writes the use of its frames without zone.lock, so a buddy lookup may read a use while it changes. It is
 * one byte, and no holder ever writes FRAME_FREE: whatever value is seen, the answer "not free" is right.
 */
#ifndef MM_FRAME_BUDDY_H
#define MM_FRAME_BUDDY_H

#include "mm/frame/zone.h"

/* A broken contract is a bug of ours: stop here, before it becomes lost memory. */
static inline void require(bool ok)
{
    if (!ok)
        __builtin_trap();
}

static inline uint32_t pages_of(unsigned order)
{
    return 1u << order;
}

static inline unsigned flags_of(enum plane plane)
{
    return plane == PLANE_EMPTY ? FRAME_F_EMPTY : 0;
}

/* Is [fn, fn + nr) inside the zone? Without overflow, and right for fn below the start too. */
static inline bool zone_has(const struct zone *zone, fn_t fn, uint32_t nr)
{
    uint32_t index = fn - zone->start_fn;
    return index < zone->nr_frames && nr <= zone->nr_frames - index;
}

static inline unsigned use_of(const struct zone *zone, fn_t fn)
{
    return frame_use(&zone->frames[fn]);
}

static inline bool is_free_head(const struct zone *zone, fn_t fn, unsigned order, enum plane plane)
{
    if (!zone_has(zone, fn, pages_of(order)) || use_of(zone, fn) != FRAME_FREE)
        return false;
    return zone->frames[fn].order == order && zone->frames[fn].flags == flags_of(plane);
}

static inline unsigned type_of(const struct zone *zone, fn_t fn)
{
    return __atomic_load_n(&zone->types[fn >> BLOCK_ORDER], __ATOMIC_RELAXED);
}

static inline enum plane plane_of(const struct frame *head)
{
    return head->flags & FRAME_F_EMPTY ? PLANE_EMPTY : PLANE_FILLED;
}

/* @area: of the block's plane and type, here and below. */
static inline void list_block(struct zone *zone, struct free_area *area, fn_t fn, unsigned order, enum plane plane)
{
    struct frame *head = &zone->frames[fn];
    head->use = FRAME_FREE;
    head->flags = flags_of(plane) & 0xf;
    head->order = (uint8_t)order;
    frame_list_push_head(&area->blocks[order], zone->frames, fn);
    area->orders |= 1u << order;
}

/* The marks of the head are the caller's to change. */
static inline void unlist_block(struct zone *zone, struct free_area *area, fn_t fn, unsigned order)
{
    frame_list_remove(&area->blocks[order], zone->frames, fn);
    if (!area->blocks[order].nr)
        area->orders &= ~(1u << order);
}

/* @pages more (or less) free pages in pageblocks of @type. zone_nr_free reads without the lock. */
static inline void count_free(struct zone *zone, enum plane plane, unsigned type, uint32_t pages)
{
    uint32_t *count = type == MIGRATE_ISOLATE ? &zone->nr_isolated[plane] : &zone->nr_free[plane];
    __atomic_store_n(count, *count + pages, __ATOMIC_RELAXED);
}

/* A block of order @from that stands on no list is given out but for what is more than @order. Returns @fn. */
static inline fn_t buddy_give_locked(struct zone *zone, struct free_area *area, fn_t fn, unsigned from, unsigned order,
                                     enum plane plane)
{
    while (from > order) {
        from--;
        list_block(zone, area, fn + pages_of(from), from, plane);
    }
    struct frame *head = &zone->frames[fn];
    head->use = FRAME_USED;
    head->flags = 0;
    head->order = (uint8_t)order;
    /* never out of an isolated pageblock */
    __atomic_store_n(&zone->nr_free[plane], zone->nr_free[plane] - pages_of(order), __ATOMIC_RELAXED);
    zone->nr_alloc += pages_of(order);
    return fn;
}

/* The frames of @fn's pageblock that are in the zone, [*start, *end). */
static inline void pageblock_range(const struct zone *zone, fn_t fn, fn_t *start, fn_t *end)
{
    fn_t first = fn & ~(BLOCK_PAGES - 1);
    fn_t before = zone->start_fn > first ? zone->start_fn - first : 0;
    uint32_t left = zone->start_fn + zone->nr_frames - (first + before);
    *start = first + before;
    *end = *start + MIN_OF(BLOCK_PAGES - before, left);
}

/* As zone_pageblock_use. */
void pageblock_use_locked(const struct zone *zone, fn_t fn, struct pageblock_use *out);
/* A block that stands on no list and whose tails are marked goes to the lists of @type, its pageblock's, merged. */
void buddy_merge_locked(struct zone *zone, fn_t fn, unsigned order, enum plane plane, unsigned type);
/* As zone_alloc_type says; FN_NONE when no block of @plane is large enough. */
fn_t buddy_alloc_locked(struct zone *zone, unsigned order, enum plane plane, unsigned type);
/* The same, where @type has no block that is large enough. */
fn_t buddy_fallback_locked(struct zone *zone, unsigned order, enum plane plane, unsigned type);

#endif
