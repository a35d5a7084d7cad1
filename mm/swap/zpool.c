/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Allocation, freeing and moving of objects. The class table, figures and the checker are in zpool_class.c.
 *
 * What a zspage knows of itself is in struct frame:
 *   head.next, prev   the list of its fullness
 *   head.data         struct zspage, below
 *   data16            of every frame: class, and the frame's distance from the head
 *
 * Objects are handed out from the front once (nr_fresh), then from the chain of free ones: a new zspage costs no
 * pass over its pages, and an object beyond nr_fresh has no header yet.
 *
 * Who writes what: headers and chain under the class lock; the data of an object only by its owner, without a lock.
 * So the owner reads its object without a lock too, and nobody else looks at data. zpool_move copies data for the
 * owner, who called it.
 *
 * One lock a class, not one a store: on a host where waking another CPU costs 65 us a contended mutex is dear, and
 * classes part most threads. get() and put() are called with no lock held, so a store that has to grow delays nobody.
 */
#include "mm/swap/zpool.h"

#include <errno.h>
#include <string.h>
#include "mm/swap/zpool_page.h"

#define SCAN_MAX 16 /* zspages of one list looked at for the best one; chosen, unmeasured */

static unsigned fullness(const struct zclass *class, unsigned nr_used)
{
    return nr_used == class->nr_per_zspage ? ZPOOL_FULL : nr_used * ZPOOL_NR_PARTIAL / class->nr_per_zspage;
}

/* Bytes of data that fit in an object. */
static uint32_t object_room(const struct zclass *class)
{
    return class->object_bytes - (uint32_t)sizeof(struct zobject);
}

uint32_t zpool_room(const struct zpool *pool, uint64_t place)
{
    return object_room(&pool->classes[zplace_find(pool, place).class]);
}

/* Counters have one writer at a time (the class lock) and readers without a lock. */
static void counter_add(uint64_t *counter, uint64_t n)
{
    __atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

/* Frames of the pool: reserve before get(), so that the limit holds at every moment. */
static bool pages_reserve(struct zpool *pool, uint32_t nr)
{
    uint64_t used = __atomic_load_n(&pool->used_pages, __ATOMIC_RELAXED);
    do {
        if (used + nr > pool->limit_pages)
            return false;
    } while (
        !__atomic_compare_exchange_n(&pool->used_pages, &used, used + nr, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return true;
}

static void pages_unreserve(struct zpool *pool, uint32_t nr)
{
    __atomic_fetch_sub(&pool->used_pages, nr, __ATOMIC_RELAXED);
}

static void pages_note_max(struct zpool *pool)
{
    uint64_t used = __atomic_load_n(&pool->used_pages, __ATOMIC_RELAXED);
    uint64_t max = __atomic_load_n(&pool->max_pages, __ATOMIC_RELAXED);
    while (used > max &&
           !__atomic_compare_exchange_n(&pool->max_pages, &max, used, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        ;
}

static int zspage_get(struct zpool *pool, unsigned c, fn_t *out)
{
    unsigned order = pool->classes[c].order;
    fn_t head;

    if (!pages_reserve(pool, 1u << order))
        return -ENOSPC;
    if (pool->pages.get(pool->pages.ctx, order, &head)) {
        pages_unreserve(pool, 1u << order);
        return -ENOMEM;
    }
    pages_note_max(pool);

    struct frame *frames = pool->pages.frames;
    for (unsigned i = 0; i < 1u << order; i++)
        frames[head + i].data16 = zframe_make(c, i);
    frames[head].use = FRAME_ZPOOL;
    zspage_write(&frames[head], (struct zspage){.free_head = ZSPAGE_NONE});
    *out = head;
    return 0;
}

static void zspage_put(struct zpool *pool, fn_t head, unsigned order)
{
    pool->pages.frames[head].use = FRAME_USED;
    pool->pages.put(pool->pages.ctx, head, order);
    pages_unreserve(pool, 1u << order);
}

/* Writes the state of a zspage back and keeps it on the list of its fullness. */
static void zspage_update_locked(struct zpool *pool, struct zclass *class, fn_t head, struct zspage state)
{
    struct frame *frames = pool->pages.frames;
    unsigned before = fullness(class, zspage_read(&frames[head]).nr_used);
    unsigned after = fullness(class, state.nr_used);

    zspage_write(&frames[head], state);
    if (before == after)
        return;
    frame_list_remove(&class->zspages[before], frames, head);
    frame_list_push_head(&class->zspages[after], frames, head);
}

/* The zspage is not full. */
static uint64_t object_take_locked(struct zpool *pool, struct zclass *class, fn_t head, const struct zobject *header)
{
    struct zspage state = zspage_read(&pool->pages.frames[head]);
    unsigned index = state.free_head;
    if (index == ZSPAGE_NONE)
        index = state.nr_fresh++;

    uint64_t place = place_make(head, index, class->object_bytes);
    struct zobject *object = zpool_object(pool, place);
    if (state.free_head != ZSPAGE_NONE)
        state.free_head = (uint8_t)object->gfn;
    *object = *header;
    state.nr_used++;
    zspage_update_locked(pool, class, head, state);
    counter_add(&class->nr_used, 1);
    counter_add(&class->data_bytes, header->len & ZOBJECT_LEN_MASK);
    return place;
}

/* True when the zspage is empty now: it is off its list, and the caller's to put. */
static bool object_release_locked(struct zpool *pool, struct zclass *class, const struct zplace *at)
{
    struct frame *frames = pool->pages.frames;
    struct zspage state = zspage_read(&frames[at->head]);
    struct zobject *object = zpool_object(pool, at->place);

    counter_add(&class->nr_used, (uint64_t)-1);
    counter_add(&class->data_bytes, -(uint64_t)(object->len & ZOBJECT_LEN_MASK));
    object->vm = 0;
    object->gfn = state.free_head;
    state.free_head = (uint8_t)at->index;
    state.nr_used--;
    zspage_update_locked(pool, class, at->head, state);
    if (state.nr_used)
        return false;
    frame_list_remove(&class->zspages[0], frames, at->head);
    counter_add(&class->nr_zspages, (uint64_t)-1);
    return true;
}

/* A zspage with room, a fuller list first. */
static fn_t zspage_with_room_locked(const struct zclass *class)
{
    for (unsigned i = ZPOOL_NR_PARTIAL; i-- > 0;) {
        if (class->zspages[i].head != FN_NONE)
            return class->zspages[i].head;
    }
    return FN_NONE;
}

static int class_alloc(struct zpool *pool, unsigned c, const struct zobject *header, uint64_t *place)
{
    struct zclass *class = &pool->classes[c];

    lock_acquire(&class->lock);
    fn_t head = zspage_with_room_locked(class);
    if (head == FN_NONE) {
        lock_release(&class->lock);
        int rc = zspage_get(pool, c, &head);
        if (rc)
            return rc;
        lock_acquire(&class->lock);
        frame_list_push_head(&class->zspages[0], pool->pages.frames, head);
        counter_add(&class->nr_zspages, 1);
    }
    *place = object_take_locked(pool, class, head, header);
    lock_release(&class->lock);
    return 0;
}

int zpool_alloc(struct zpool *pool, const struct zobject *header, uint64_t *place)
{
    uint32_t bytes = (uint32_t)sizeof(*header) + (header->len & ZOBJECT_LEN_MASK);
    unsigned c = pool->class_of[(bytes + ZPOOL_UNIT - 1) / ZPOOL_UNIT];
    int rc = class_alloc(pool, c, header, place);

    while (rc && pool->classes[c].fallback < ZPOOL_MAX_CLASSES) {
        c = pool->classes[c].fallback;
        if (!class_alloc(pool, c, header, place))
            return 0;
    }
    return rc;
}

uint32_t zpool_free(struct zpool *pool, uint64_t place)
{
    struct zplace at = zplace_find(pool, place);
    struct zclass *class = &pool->classes[at.class];

    lock_acquire(&class->lock);
    bool empty = object_release_locked(pool, class, &at);
    lock_release(&class->lock);
    if (!empty)
        return 0;
    zspage_put(pool, at.head, class->order);
    return 1u << class->order;
}

/* Where an object of zspage @from can go: another one at least as full, with room. FN_NONE: nowhere. */
static fn_t zspage_better_locked(const struct zpool *pool, const struct zclass *class, fn_t from)
{
    const struct frame *frames = pool->pages.frames;
    unsigned nr_used = zspage_read(&frames[from]).nr_used;
    unsigned lowest = fullness(class, nr_used);

    for (unsigned i = ZPOOL_NR_PARTIAL; i-- > lowest;) {
        fn_t fn = class->zspages[i].head;
        for (unsigned n = 0; fn != FN_NONE && n < SCAN_MAX; n++, fn = frames[fn].next) {
            if (fn != from && zspage_read(&frames[fn]).nr_used >= nr_used)
                return fn;
        }
    }
    return FN_NONE;
}

uint64_t zpool_move(struct zpool *pool, uint64_t place, uint32_t *freed_pages)
{
    struct zplace at = zplace_find(pool, place);
    struct zclass *class = &pool->classes[at.class];
    const struct zobject *object = zpool_object(pool, place);
    bool empty = false;

    *freed_pages = 0;
    lock_acquire(&class->lock);
    fn_t to = zspage_better_locked(pool, class, at.head);
    if (to != FN_NONE) {
        place = object_take_locked(pool, class, to, object);
        uint32_t room = object_room(class); /* the length in a damaged header must not reach the next object */
        memcpy(zpool_object(pool, place)->data, object->data, MIN_OF(object->len & ZOBJECT_LEN_MASK, room));
        empty = object_release_locked(pool, class, &at);
    }
    lock_release(&class->lock);
    if (empty) {
        zspage_put(pool, at.head, class->order);
        *freed_pages = 1u << class->order;
    }
    return place;
}

/* The least used of the first few zspages of the sparsest list. */
static fn_t zspage_sparsest_locked(const struct zpool *pool, const struct zclass *class)
{
    const struct frame *frames = pool->pages.frames;
    unsigned i = 0, least = ZPOOL_MAX_OBJECTS + 1;
    fn_t best = FN_NONE;

    while (i < ZPOOL_NR_PARTIAL && class->zspages[i].head == FN_NONE)
        i++;
    fn_t fn = class->zspages[i].head;
    for (unsigned n = 0; fn != FN_NONE && n < SCAN_MAX; n++, fn = frames[fn].next) {
        unsigned nr_used = zspage_read(&frames[fn]).nr_used;
        if (nr_used < least) {
            least = nr_used;
            best = fn;
        }
    }
    return best;
}

unsigned zpool_sparsest(struct zpool *pool, unsigned c, struct zpool_item *out)
{
    struct zclass *class = &pool->classes[c];
    unsigned nr = 0;

    lock_acquire(&class->lock);
    uint64_t nr_needed = (class->nr_used + class->nr_per_zspage - 1) / class->nr_per_zspage;
    if (class->nr_zspages > nr_needed) {
        fn_t head = zspage_sparsest_locked(pool, class);
        unsigned nr_fresh = zspage_read(&pool->pages.frames[head]).nr_fresh;
        for (unsigned i = 0; i < nr_fresh; i++) {
            uint64_t place = place_make(head, i, class->object_bytes);
            const struct zobject *object = zpool_object(pool, place);
            if (object->vm)
                out[nr++] = (struct zpool_item){.place = place, .gfn = object->gfn, .vm = object->vm};
        }
    }
    lock_release(&class->lock);
    return nr;
}
