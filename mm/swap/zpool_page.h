/* SPDX-License-Identifier: Apache-2.0 */
/* How zpool.c and zpool_class.c read struct frame and places. Private to the two. */
#ifndef MM_SWAP_ZPOOL_PAGE_H
#define MM_SWAP_ZPOOL_PAGE_H

#include "mm/swap/zpool.h"

/* frame.data of a zspage's head */
struct zspage {
    uint8_t nr_used;   /* 0..nr_per_zspage; 0 only between get() and the first object, or the last one and put() */
    uint8_t nr_fresh;  /* objects [nr_fresh, nr_per_zspage) were never used */
    uint8_t free_head; /* index of the first object of the free chain, or ZSPAGE_NONE */
};
#define ZSPAGE_NONE 0xffu
_Static_assert(ZPOOL_MAX_OBJECTS < ZSPAGE_NONE, "object indices and counts fit in a byte");

static inline struct zspage zspage_read(const struct frame *head)
{
    return (struct zspage){.nr_used = (uint8_t)head->data,
                           .nr_fresh = (uint8_t)(head->data >> 8),
                           .free_head = (uint8_t)(head->data >> 16)};
}

static inline void zspage_write(struct frame *head, struct zspage state)
{
    head->data = state.nr_used | (uint32_t)state.nr_fresh << 8 | (uint32_t)state.free_head << 16;
}

/* frame.data16 of every frame of a zspage */
static inline uint16_t zframe_make(unsigned c, unsigned distance)
{
    return (uint16_t)(c << 2 | distance);
}
static inline unsigned zframe_class(uint16_t data16)
{
    return data16 >> 2;
}
static inline unsigned zframe_distance(uint16_t data16)
{
    return data16 & 3u;
}

/* A place taken apart. */
struct zplace {
    uint64_t place;
    fn_t head;
    unsigned class, index;
};

static inline uint64_t place_make(fn_t head, unsigned index, uint32_t object_bytes)
{
    return ((uint64_t)head * PAGE_BYTES + index * object_bytes) / ZPOOL_UNIT;
}

/* The object at @place is in use: only then do the frames under it tell its class without a lock. */
static inline struct zplace zplace_find(const struct zpool *pool, uint64_t place)
{
    fn_t fn = (fn_t)(place / (PAGE_BYTES / ZPOOL_UNIT));
    uint16_t data16 = pool->pages.frames[fn].data16;
    fn_t head = fn - zframe_distance(data16);
    unsigned c = zframe_class(data16);
    uint32_t offset = (uint32_t)(place * ZPOOL_UNIT - (uint64_t)head * PAGE_BYTES);

    return (struct zplace){.place = place, .head = head, .class = c, .index = offset / pool->classes[c].object_bytes};
}

#endif
