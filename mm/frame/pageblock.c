/* SPDX-License-Identifier: Apache-2.0 */
/* What compaction asks of a zone: what a pageblock holds, and its free frames one by one. */
#include "mm/frame/buddy.h"

/* Is the pageblock of @fn the lower or the upper half of a free block of order 10, whose head is *head? */
static bool in_largest_block(const struct zone *zone, fn_t fn, fn_t *head)
{
    *head = fn & ~(pages_of(MAX_ORDER) - 1);
    return zone_has(zone, *head, pages_of(MAX_ORDER)) && use_of(zone, *head) == FRAME_FREE &&
           zone->frames[*head].order == MAX_ORDER;
}

void pageblock_use_locked(const struct zone *zone, fn_t fn, struct pageblock_use *out)
{
    fn_t at, end, head;
    *out = (struct pageblock_use){0};
    if (in_largest_block(zone, fn, &head)) {
        out->nr_free[plane_of(&zone->frames[head])] = BLOCK_PAGES;
        return;
    }
    pageblock_range(zone, fn, &at, &end);
    while (at < end) {
        unsigned use = use_of(zone, at);
        uint32_t nr = use == FRAME_FREE ? pages_of(zone->frames[at].order) : 1;
        if (use == FRAME_FREE)
            out->nr_free[plane_of(&zone->frames[at])] += nr;
        else if (use == FRAME_STANDBY)
            out->nr_movable++;
        else
            out->nr_other++;
        at += nr;
    }
}

void zone_pageblock_use(struct zone *zone, fn_t fn, struct pageblock_use *out)
{
    require(zone_has(zone, fn, 1));
    lock_acquire(&zone->lock);
    pageblock_use_locked(zone, fn, out);
    lock_release(&zone->lock);
}

/* The highest @nr frames of the free block at @head are given out, the others are free blocks again. */
static void take_top_locked(struct zone *zone, fn_t head, unsigned order, enum plane plane, uint32_t nr)
{
    unsigned type = type_of(zone, head);
    struct free_area *area = &zone->area[plane][type];
    fn_t at = head, end = head + pages_of(order), first = end - nr;
    unlist_block(zone, area, head, order);
    zone->frames[head].use = FRAME_TAIL;
    while (at < first) {
        /* the largest aligned piece that ends before @first; its buddy is not free, so nothing is to be merged */
        unsigned piece = (unsigned)__builtin_ctz(at | pages_of(order));
        while (pages_of(piece) > first - at)
            piece--;
        list_block(zone, area, at, piece, plane);
        at += pages_of(piece);
    }
    for (; at < end; at++) {
        zone->frames[at].use = FRAME_USED;
        zone->frames[at].flags = 0;
        zone->frames[at].order = 0;
    }
    count_free(zone, plane, type, -nr);
    zone->nr_alloc += nr;
}

uint32_t zone_take_free(struct zone *zone, fn_t fn, enum plane plane, fn_t out[], uint32_t max)
{
    uint32_t got = 0;
    fn_t start, end, head;
    require(zone_has(zone, fn, 1));
    lock_acquire(&zone->lock);
    pageblock_range(zone, fn, &start, &end);
    bool any = type_of(zone, fn) != MIGRATE_ISOLATE && !in_largest_block(zone, fn, &head);
    for (head = end; any && got < max && head-- > start;) {
        if (use_of(zone, head) != FRAME_FREE || plane_of(&zone->frames[head]) != plane)
            continue;
        unsigned order = zone->frames[head].order;
        if (order == BLOCK_ORDER)
            break;
        uint32_t nr = MIN_OF(pages_of(order), max - got);
        take_top_locked(zone, head, order, plane, nr);
        for (uint32_t i = 1; i <= nr; i++)
            out[got++] = head + pages_of(order) - i;
    }
    lock_release(&zone->lock);
    return got;
}
