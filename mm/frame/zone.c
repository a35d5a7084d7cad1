/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The buddy allocator. zone.h says how frames are marked and what holds; watermark.c has the marks.
 *
 * A holder writes the use of its frames without zone.lock, so a buddy lookup may read a use while it changes. It is
 * one byte, and no holder ever writes FRAME_FREE: whatever value is seen, the answer "not free" is right. Only
 * use_of() reads a frame that may be another's, and it is exempt from the thread sanitizer for this reason.
 */
#include <errno.h>

#include "mm/frame/zone.h"

/* A broken contract is a bug of ours: stop here, before it becomes lost memory. */
static void require(bool ok)
{
    if (!ok)
        __builtin_trap();
}

static uint32_t pages_of(unsigned order)
{
    return 1u << order;
}

static struct frame_list *list_of(struct zone *zone, unsigned order, enum plane plane)
{
    return &zone->area[order].blocks[plane];
}

static unsigned flags_of(enum plane plane)
{
    return plane == PLANE_EMPTY ? FRAME_F_EMPTY : 0;
}

/* Is [fn, fn + nr) inside the zone? Without overflow, and right for fn below the start too. */
static bool zone_has(const struct zone *zone, fn_t fn, uint32_t nr)
{
    uint32_t index = fn - zone->start_fn;
    return index < zone->nr_frames && nr <= zone->nr_frames - index;
}

__attribute__((no_sanitize("thread"))) static unsigned use_of(const struct zone *zone, fn_t fn)
{
    const volatile struct frame *frame = &zone->frames[fn];
    return frame->use;
}

static bool is_free_head(const struct zone *zone, fn_t fn, unsigned order, enum plane plane)
{
    if (!zone_has(zone, fn, pages_of(order)) || use_of(zone, fn) != FRAME_FREE)
        return false;
    return zone->frames[fn].order == order && zone->frames[fn].flags == flags_of(plane);
}

/* Largest order of a block that starts at @fn and has at most @nr pages. */
static unsigned order_at(fn_t fn, uint32_t nr)
{
    unsigned aligned = fn ? (unsigned)__builtin_ctz(fn) : MAX_ORDER;
    unsigned fits = 31u - (unsigned)__builtin_clz(nr);
    unsigned order = MIN_OF(aligned, fits);
    return MIN_OF(order, (unsigned)MAX_ORDER);
}

/* nr_free is read without the lock by zone_nr_free. */
static void set_nr_free(struct zone *zone, enum plane plane, uint32_t pages)
{
    __atomic_store_n(&zone->nr_free[plane], pages, __ATOMIC_RELAXED);
}

static void mark_tails(struct zone *zone, fn_t fn, unsigned order)
{
    for (fn_t end = fn + pages_of(order); ++fn != end;)
        zone->frames[fn].use = FRAME_TAIL;
}

static void list_block(struct zone *zone, fn_t fn, unsigned order, enum plane plane)
{
    struct frame *head = &zone->frames[fn];
    head->use = FRAME_FREE;
    head->flags = flags_of(plane) & 0xf;
    head->order = (uint8_t)order;
    frame_list_push_head(list_of(zone, order, plane), zone->frames, fn);
}

/* The block's tails are marked; its head may have any use but FRAME_FREE. */
static void free_block_locked(struct zone *zone, fn_t fn, unsigned order, enum plane plane)
{
    set_nr_free(zone, plane, zone->nr_free[plane] + pages_of(order));
    zone->nr_freed += pages_of(order);
    for (; order < MAX_ORDER; order++) {
        fn_t half = pages_of(order), buddy = fn ^ half;
        if (!is_free_head(zone, buddy, order, plane))
            break;
        frame_list_remove(list_of(zone, order, plane), zone->frames, buddy);
        zone->frames[fn | half].use = FRAME_TAIL;
        fn &= ~half;
    }
    list_block(zone, fn, order, plane);
}

/* FN_NONE when no block of @plane is large enough. */
static fn_t alloc_block_locked(struct zone *zone, unsigned order, enum plane plane)
{
    unsigned from = order;
    while (from <= MAX_ORDER && !list_of(zone, from, plane)->nr)
        from++;
    if (from > MAX_ORDER)
        return FN_NONE;

    fn_t fn = frame_list_pop_head(list_of(zone, from, plane), zone->frames);
    while (from > order) {
        from--;
        list_block(zone, fn + pages_of(from), from, plane);
    }
    struct frame *head = &zone->frames[fn];
    head->use = FRAME_USED;
    head->flags = 0;
    head->order = (uint8_t)order;
    set_nr_free(zone, plane, zone->nr_free[plane] - pages_of(order));
    zone->nr_alloc += pages_of(order);
    return fn;
}

void zone_init(struct zone *zone, const char *name, struct frame *frames, fn_t start, uint32_t nr, enum plane plane)
{
    *zone = (struct zone){.name = name, .frames = frames, .start_fn = start, .nr_frames = nr};
    lock_init(&zone->lock, LOCK_ZONE);
    for (unsigned order = 0; order <= MAX_ORDER; order++) {
        frame_list_init(list_of(zone, order, PLANE_FILLED));
        frame_list_init(list_of(zone, order, PLANE_EMPTY));
    }
    set_nr_free(zone, plane, nr);

    for (uint32_t done = 0; done < nr;) {
        fn_t fn = start + done;
        unsigned order = order_at(fn, nr - done);
        for (uint32_t i = 0; i < pages_of(order); i++)
            frames[fn + i] = (struct frame){.next = FN_NONE, .prev = FN_NONE, .use = FRAME_TAIL};
        frames[fn].use = FRAME_FREE;
        frames[fn].flags = flags_of(plane) & 0xf;
        frames[fn].order = (uint8_t)order;
        frame_list_push_tail(list_of(zone, order, plane), frames, fn);
        done += pages_of(order);
    }
}

void zone_fini(struct zone *zone)
{
    lock_fini(&zone->lock);
}

int zone_alloc(struct zone *zone, unsigned order, enum plane plane, fn_t *out)
{
    lock_acquire(&zone->lock);
    fn_t fn = alloc_block_locked(zone, order, plane);
    lock_release(&zone->lock);
    if (fn == FN_NONE)
        return -ENOMEM;
    *out = fn;
    return 0;
}

uint32_t zone_alloc_bulk(struct zone *zone, enum plane plane, fn_t *out, uint32_t nr)
{
    uint32_t got = 0;
    lock_acquire(&zone->lock);
    while (got < nr) {
        fn_t fn = alloc_block_locked(zone, 0, plane);
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

/* NULL, or what is wrong with the free block at @fn, which the list of its order and plane follows after @prev. */
static const char *check_block(const struct zone *zone, fn_t fn, fn_t prev, unsigned order, enum plane plane)
{
    if (!zone_has(zone, fn, pages_of(order)))
        return "a free block lies outside the zone";
    if (fn & (pages_of(order) - 1))
        return "a free block is not aligned to its order";
    if (!is_free_head(zone, fn, order, plane))
        return "the head of a free block is marked wrongly";
    if (zone->frames[fn].prev != prev)
        return "a free list's back link is wrong";
    if (order < MAX_ORDER && is_free_head(zone, fn ^ pages_of(order), order, plane))
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
static const char *check_list(struct zone *zone, unsigned order, enum plane plane)
{
    const struct frame_list *list = list_of(zone, order, plane);
    fn_t prev = FN_NONE;
    uint32_t nr = 0;
    for (fn_t fn = list->head; fn != FN_NONE; prev = fn, fn = zone->frames[fn].next, nr++) {
        const char *why = check_block(zone, fn, prev, order, plane);
        if (why)
            return why;
    }
    if (list->tail != prev)
        return "a free list's tail is wrong";
    return nr == list->nr ? NULL : "a free list's count is wrong";
}

static const char *check_locked(struct zone *zone)
{
    uint32_t nr_heads = 0;
    for (enum plane plane = PLANE_FILLED; plane < NR_PLANES; plane++) {
        uint64_t pages = 0;
        for (unsigned order = 0; order <= MAX_ORDER; order++) {
            const char *why = check_list(zone, order, plane);
            if (why)
                return why;
            nr_heads += list_of(zone, order, plane)->nr;
            pages += (uint64_t)list_of(zone, order, plane)->nr << order;
        }
        if (pages != zone->nr_free[plane])
            return "the count of free pages is wrong";
    }
    for (uint32_t i = 0; i < zone->nr_frames; i++)
        nr_heads -= use_of(zone, zone->start_fn + i) == FRAME_FREE;
    if (nr_heads)
        return "a frame that heads no free block is FRAME_FREE";
    uint64_t nr_free = (uint64_t)zone->nr_free[PLANE_FILLED] + zone->nr_free[PLANE_EMPTY];
    return nr_free + zone->nr_alloc - zone->nr_freed == zone->nr_frames ? NULL : "pages were lost or freed twice";
}

bool zone_check(struct zone *zone, const char **why)
{
    lock_acquire(&zone->lock);
    *why = check_locked(zone);
    lock_release(&zone->lock);
    return !*why;
}
