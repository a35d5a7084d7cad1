/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The class table, start and end of a pool, figures and the checker.
 *
 * Which sizes are classes: for each multiple of 16 bytes take the order whose zspage wastes least at its end, a
 * higher order being charged ORDER_COST_PCT for each step, because runs of filled pages are scarce in a full pool.
 * The size is a class when that zspage has no room for larger objects of the same number. That gives 44 classes:
 * 29 of one page, 9 of two, 6 of four. Pages lost to headers, rounding, tails and half-filled zspages, lengths evenly
 * spread over 48..3071, by what a step costs:
 *
 *     cost     classes   2,000 objects   100,000 objects
 *     0        58        14.7%           7.1%
 *     3        51        10.8%           7.2%
 *     5        44         9.8%           7.4%
 *     7        38        10.0%           8.3%
 *     order 0 only  30                   29%
 */
#include "mm/swap/zpool.h"

#include <string.h>
#include "mm/swap/zpool_page.h"

#define ORDER_COST_PCT 5u

struct layout {
    uint32_t order, nr;
};

static uint32_t zspage_bytes(uint32_t order)
{
    return (uint32_t)PAGE_BYTES << order;
}

static struct layout layout_best(uint32_t object_bytes)
{
    struct layout best = {0, 0};
    uint32_t best_cost = UINT32_MAX;

    for (uint32_t order = 0; order <= ZPOOL_MAX_ORDER; order++) {
        uint32_t nr = zspage_bytes(order) / object_bytes;
        uint32_t lost = zspage_bytes(order) - nr * object_bytes;
        /* all in bytes of the largest zspage times 100 */
        uint32_t cost =
            100 * (lost << (ZPOOL_MAX_ORDER - order)) + order * ORDER_COST_PCT * zspage_bytes(ZPOOL_MAX_ORDER);
        if (cost < best_cost) {
            best_cost = cost;
            best = (struct layout){order, nr};
        }
    }
    return best;
}

static void class_init(struct zclass *class, uint32_t object_bytes, struct layout layout)
{
    lock_init(&class->lock, LOCK_ZRAM);
    class->object_bytes = (uint16_t)object_bytes;
    class->order = (uint8_t)layout.order;
    class->nr_per_zspage = (uint8_t)layout.nr;
    class->fallback = ZPOOL_MAX_CLASSES;
    for (unsigned i = 0; i < ARRAY_LEN(class->zspages); i++)
        frame_list_init(&class->zspages[i]);
}

static void fallbacks_init(struct zpool *pool)
{
    for (unsigned c = 0; c < pool->nr_classes; c++) {
        unsigned f = c + 1;
        while (f < pool->nr_classes && pool->classes[f].order >= pool->classes[c].order)
            f++;
        if (f < pool->nr_classes)
            pool->classes[c].fallback = (uint8_t)f;
    }
}

void zpool_init(struct zpool *pool, const struct zram_pages *pages, uint64_t limit_pages)
{
    uint32_t units = 0; /* sizes up to here have a class */

    memset(pool, 0, sizeof(*pool));
    pool->pages = *pages;
    pool->limit_pages = limit_pages;
    for (uint32_t bytes = ZPOOL_MIN_OBJECT_BYTES; bytes <= ZPOOL_MAX_OBJECT_BYTES; bytes += ZPOOL_UNIT) {
        struct layout layout = layout_best(bytes);
        if ((bytes + ZPOOL_UNIT) * layout.nr <= zspage_bytes(layout.order))
            continue;
        class_init(&pool->classes[pool->nr_classes], bytes, layout);
        while (units <= bytes / ZPOOL_UNIT)
            pool->class_of[units++] = (uint8_t)pool->nr_classes;
        pool->nr_classes++;
    }
    fallbacks_init(pool);
}

void zpool_fini(struct zpool *pool)
{
    struct frame *frames = pool->pages.frames;

    for (unsigned c = 0; c < pool->nr_classes; c++) {
        struct zclass *class = &pool->classes[c];
        for (unsigned i = 0; i < ARRAY_LEN(class->zspages); i++) {
            fn_t head;
            while ((head = frame_list_pop_head(&class->zspages[i], frames)) != FN_NONE) {
                frames[head].use = FRAME_USED;
                pool->pages.put(pool->pages.ctx, head, class->order);
            }
        }
        lock_fini(&class->lock);
    }
}

void zpool_count(const struct zpool *pool, uint64_t *nr_used, uint64_t *data_bytes)
{
    *nr_used = 0;
    *data_bytes = 0;
    for (unsigned c = 0; c < pool->nr_classes; c++) {
        *nr_used += __atomic_load_n(&pool->classes[c].nr_used, __ATOMIC_RELAXED);
        *data_bytes += __atomic_load_n(&pool->classes[c].data_bytes, __ATOMIC_RELAXED);
    }
}

unsigned zpool_class_stat(const struct zpool *pool, struct zram_class_stat *out, unsigned max)
{
    unsigned nr = MIN_OF(pool->nr_classes, max);

    for (unsigned c = 0; c < nr; c++) {
        const struct zclass *class = &pool->classes[c];
        uint32_t nr_zspages = (uint32_t)__atomic_load_n(&class->nr_zspages, __ATOMIC_RELAXED);
        out[c] = (struct zram_class_stat){
            .object_bytes = class->object_bytes,
            .nr_objects = nr_zspages * class->nr_per_zspage,
            .nr_used = (uint32_t)__atomic_load_n(&class->nr_used, __ATOMIC_RELAXED),
            .nr_pages = nr_zspages << class->order,
        };
    }
    return nr;
}

struct tally {
    uint64_t nr_zspages, nr_used, data_bytes;
};

/* Frames, headers and free chain of one zspage. */
static const char *zspage_fault(const struct zpool *pool, unsigned c, fn_t head, struct tally *tally)
{
    const struct zclass *class = &pool->classes[c];
    const struct frame *frames = pool->pages.frames;
    struct zspage state = zspage_read(&frames[head]);
    unsigned nr_live = 0, nr_free = 0;

    if (frames[head].use != FRAME_ZPOOL)
        return "head of a zspage is not marked FRAME_ZPOOL";
    for (unsigned i = 0; i < 1u << class->order; i++) {
        if (frames[head + i].data16 != zframe_make(c, i))
            return "frame of a zspage names another class or head";
    }
    if (state.nr_fresh > class->nr_per_zspage || state.nr_used > state.nr_fresh)
        return "zspage counts more objects than it has";
    for (unsigned i = 0; i < state.nr_fresh; i++) {
        const struct zobject *object = zpool_object(pool, place_make(head, i, class->object_bytes));
        if (!object->vm)
            continue;
        uint32_t len = object->len & ZOBJECT_LEN_MASK;
        if (!len || sizeof(*object) + len > class->object_bytes)
            return "object is longer than its class";
        nr_live++;
        tally->data_bytes += len;
    }
    for (unsigned i = state.free_head; i != ZSPAGE_NONE; nr_free++) {
        if (i >= state.nr_fresh || nr_free == state.nr_fresh)
            return "free chain leaves its zspage or runs in a circle";
        const struct zobject *object = zpool_object(pool, place_make(head, i, class->object_bytes));
        if (object->vm)
            return "free chain holds a used object";
        i = object->gfn;
    }
    if (nr_live != state.nr_used || nr_live + nr_free != state.nr_fresh)
        return "used and free objects do not add up in a zspage";
    tally->nr_used += nr_live;
    tally->nr_zspages++;
    return NULL;
}

static const char *list_fault(const struct zpool *pool, unsigned c, unsigned fullness, struct tally *tally)
{
    const struct zclass *class = &pool->classes[c];
    const struct frame_list *list = &class->zspages[fullness];
    const struct frame *frames = pool->pages.frames;
    fn_t prev = FN_NONE;
    uint32_t nr = 0;

    for (fn_t fn = list->head; fn != FN_NONE; prev = fn, fn = frames[fn].next) {
        uint32_t nr_used = zspage_read(&frames[fn]).nr_used;
        if (frames[fn].prev != prev || ++nr > list->nr)
            return "list of zspages is not linked both ways";
        if (!nr_used)
            return "empty zspage was kept";
        if (nr_used * ZPOOL_NR_PARTIAL / class->nr_per_zspage != fullness)
            return "zspage stands on the wrong list";
        const char *fault = zspage_fault(pool, c, fn, tally);
        if (fault)
            return fault;
    }
    return list->tail == prev && nr == list->nr ? NULL : "list of zspages has a wrong tail or count";
}

static const char *class_fault_locked(const struct zpool *pool, unsigned c)
{
    const struct zclass *class = &pool->classes[c];
    struct tally tally = {0, 0, 0};

    for (unsigned i = 0; i < ARRAY_LEN(class->zspages); i++) {
        const char *fault = list_fault(pool, c, i, &tally);
        if (fault)
            return fault;
    }
    if (tally.nr_zspages != class->nr_zspages || tally.nr_used != class->nr_used)
        return "class counters differ from its zspages";
    return tally.data_bytes == class->data_bytes ? NULL : "class counts another sum of data";
}

bool zpool_check(struct zpool *pool, const char **why)
{
    const char *fault = NULL;
    uint64_t nr_pages = 0;

    for (unsigned c = 0; c < pool->nr_classes && !fault; c++) {
        struct zclass *class = &pool->classes[c];
        lock_acquire(&class->lock);
        fault = class_fault_locked(pool, c);
        nr_pages += class->nr_zspages << class->order;
        lock_release(&class->lock);
    }
    if (!fault && nr_pages != __atomic_load_n(&pool->used_pages, __ATOMIC_RELAXED))
        fault = "pages of the classes differ from pages in use";
    if (!fault && nr_pages > pool->limit_pages)
        fault = "more pages than the limit allows";
    *why = fault;
    return !fault;
}
