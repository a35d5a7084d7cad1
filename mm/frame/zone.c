/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The buddy allocator. zone.h says how frames are marked and what holds; watermark.c has the watermarks, migratetype.c
 * what happens where a type has no block left.
 */
#include <errno.h>

#include "mm/frame/buddy.h"

/* Largest order of a block that starts at @fn and has at most @nr pages. */
static unsigned order_at(fn_t fn, uint32_t nr)
{
    unsigned aligned = fn ? (unsigned)__builtin_ctz(fn) : MAX_ORDER;
    unsigned fits = 31u - (unsigned)__builtin_clz(nr);
    unsigned order = MIN_OF(aligned, fits);
    return MIN_OF(order, (unsigned)MAX_ORDER);
}

static void mark_tails(struct zone *zone, fn_t fn, unsigned order)
{
    for (fn_t end = fn + pages_of(order); ++fn != end;)
        zone->frames[fn].use = FRAME_TAIL;
}

static inline void merge_locked(struct zone *zone, fn_t fn, unsigned order, enum plane plane, unsigned type)
{
    struct free_area *area = &zone->area[plane][type];
    for (; order < MAX_ORDER; order++) {
        fn_t half = pages_of(order), buddy = fn ^ half;
        if (!is_free_head(zone, buddy, order, plane) || (order >= BLOCK_ORDER && type_of(zone, buddy) != type))
            break;
        unlist_block(zone, area, buddy, order);
        zone->frames[fn | half].use = FRAME_TAIL;
        fn &= ~half;
    }
    list_block(zone, area, fn, order, plane);
}

void buddy_merge_locked(struct zone *zone, fn_t fn, unsigned order, enum plane plane, unsigned type)
{
    merge_locked(zone, fn, order, plane, type);
}

/* The block's tails are marked; its head may have any use but FRAME_FREE. */
static void free_block_locked(struct zone *zone, fn_t fn, unsigned order, enum plane plane)
{
    unsigned type = type_of(zone, fn);
    if (order > BLOCK_ORDER && type_of(zone, fn + BLOCK_PAGES) != type) {
        free_block_locked(zone, fn, BLOCK_ORDER, plane);
        free_block_locked(zone, fn + BLOCK_PAGES, BLOCK_ORDER, plane);
        return;
    }
    count_free(zone, plane, type, pages_of(order));
    zone->nr_freed += pages_of(order);
    merge_locked(zone, fn, order, plane, type);
}

fn_t buddy_alloc_locked(struct zone *zone, unsigned order, enum plane plane, unsigned type)
{
    struct free_area *area = &zone->area[plane][type];
    unsigned orders = area->orders >> order;
    if (!orders)
        return buddy_fallback_locked(zone, order, plane, type);
    unsigned from = order + (unsigned)__builtin_ctz(orders);
    fn_t fn = area->blocks[from].head;
    unlist_block(zone, area, fn, from);
    return buddy_give_locked(zone, area, fn, from, order, plane);
}

/* All of it MOVABLE, on lists that are empty. */
static void init_types(struct zone *zone)
{
    for (unsigned plane = 0; plane < NR_PLANES; plane++)
        for (unsigned type = 0; type < MIGRATE_TYPES; type++)
            for (unsigned order = 0; order <= MAX_ORDER; order++)
                frame_list_init(&zone->area[plane][type].blocks[order]);
    for (uint32_t i = 0; i < zone->nr_frames; i += BLOCK_PAGES)
        zone->types[(zone->start_fn + i) >> BLOCK_ORDER] = MIGRATE_MOVABLE;
    if (zone->nr_frames)
        zone->types[(zone->start_fn + zone->nr_frames - 1) >> BLOCK_ORDER] = MIGRATE_MOVABLE;
}

void zone_init(struct zone *zone, const char *name, struct frame *frames, uint8_t *types, fn_t start, uint32_t nr,
               enum plane plane)
{
    *zone = (struct zone){.name = name, .frames = frames, .types = types, .start_fn = start, .nr_frames = nr};
    lock_init(&zone->lock, LOCK_ZONE);
    init_types(zone);
    count_free(zone, plane, MIGRATE_MOVABLE, nr);

    struct free_area *area = &zone->area[plane][MIGRATE_MOVABLE];
    for (uint32_t done = 0; done < nr;) {
        fn_t fn = start + done;
        unsigned order = order_at(fn, nr - done);
        for (uint32_t i = 0; i < pages_of(order); i++)
            if (frames[fn + i].use != FRAME_TAIL) /* not written, memory that is new and zero takes no page */
                frames[fn + i].use = FRAME_TAIL;
        frames[fn].use = FRAME_FREE;
        frames[fn].flags = flags_of(plane) & 0xf;
        frames[fn].order = (uint8_t)order;
        frame_list_push_tail(&area->blocks[order], frames, fn);
        area->orders |= 1u << order;
        done += pages_of(order);
    }
}

void zone_fini(struct zone *zone)
{
    lock_fini(&zone->lock);
}

int zone_alloc_type(struct zone *zone, unsigned order, enum plane plane, enum migratetype type, fn_t *out)
{
    require(type < MIGRATE_PCPTYPES);
    lock_acquire(&zone->lock);
    fn_t fn = buddy_alloc_locked(zone, order, plane, type);
    lock_release(&zone->lock);
    if (fn == FN_NONE)
        return -ENOMEM;
    *out = fn;
    return 0;
}

int zone_alloc(struct zone *zone, unsigned order, enum plane plane, fn_t *out)
{
    return zone_alloc_type(zone, order, plane, MIGRATE_MOVABLE, out);
}

uint32_t zone_alloc_bulk(struct zone *zone, enum plane plane, fn_t *out, uint32_t nr)
{
    uint32_t got = 0;
    lock_acquire(&zone->lock);
    while (got < nr) {
        fn_t fn = buddy_alloc_locked(zone, 0, plane, MIGRATE_MOVABLE);
        if (fn == FN_NONE)
            break;
        out[got++] = fn;
    }
    lock_release(&zone->lock);
    return got;
}

/* Does the head speak for the whole block, so that nobody has touched the tails? */
static bool is_whole(const struct frame *head, unsigned order)
{
    return head->order == order && (head->use == FRAME_USED || head->use == FRAME_HOME || head->use == FRAME_ZEROED);
}

void zone_free(struct zone *zone, fn_t fn, unsigned order, enum plane plane)
{
    require(order <= MAX_ORDER && !(fn & (pages_of(order) - 1)) && zone_has(zone, fn, pages_of(order)));
    require(zone->frames[fn].use != FRAME_FREE);
    if (!is_whole(&zone->frames[fn], order))
        mark_tails(zone, fn, order);
    lock_acquire(&zone->lock);
    free_block_locked(zone, fn, order, plane);
    lock_release(&zone->lock);
}

void zone_free_range(struct zone *zone, fn_t fn, uint32_t nr, enum plane plane)
{
    require(!nr || zone_has(zone, fn, nr));
    for (uint32_t i = 0; i < nr; i++) {
        require(zone->frames[fn + i].use != FRAME_FREE);
        zone->frames[fn + i].use = FRAME_TAIL;
    }
    lock_acquire(&zone->lock);
    while (nr) {
        unsigned order = order_at(fn, nr);
        free_block_locked(zone, fn, order, plane);
        fn += pages_of(order);
        nr -= pages_of(order);
    }
    lock_release(&zone->lock);
}

void zone_free_bulk(struct zone *zone, enum plane plane, const fn_t *fns, uint32_t nr)
{
    lock_acquire(&zone->lock);
    for (uint32_t i = 0; i < nr; i++) {
        require(zone_has(zone, fns[i], 1) && zone->frames[fns[i]].use != FRAME_FREE);
        free_block_locked(zone, fns[i], 0, plane);
    }
    lock_release(&zone->lock);
}

void zone_split(struct zone *zone, fn_t head, unsigned order)
{
    for (fn_t fn = head; fn != head + pages_of(order); fn++) {
        zone->frames[fn].use = FRAME_USED;
        zone->frames[fn].flags = 0;
        zone->frames[fn].order = 0;
    }
}

uint32_t zone_nr_free(const struct zone *zone, enum plane plane)
{
    return __atomic_load_n(&zone->nr_free[plane], __ATOMIC_RELAXED);
}
