/* SPDX-License-Identifier: Apache-2.0 */
/*
 * zpool: the size-class allocator under zram.
 *
 *   class    object_bytes, order, nr_per_zspage; nine lists of zspages by how full they are; one lock
 *   zspage   2^order neighbouring slots of the arena, order 0..2, cut into objects without regard to page borders
 *   object   struct zobject: 12 bytes of header, then the data
 *
 *   +--------+--------+--------+--------+------+
 *   | object | object |  free  | object | tail |    a zspage; free objects are chained through their headers
 *   +--------+--------+--------+--------+------+
 *
 * A place is where an object starts, in units of 16 bytes from slot 0.
 */
#ifndef MM_SWAP_ZPOOL_H
#define MM_SWAP_ZPOOL_H

#include "mm/base/lock.h"
#include "mm/swap/zram.h"

#define ZPOOL_UNIT 16u              /* bytes; every object starts at a multiple of it */
#define ZPOOL_MAX_ORDER 2u          /* pages of a zspage: 2^order */
#define ZPOOL_MIN_OBJECT_BYTES 32u  /* header and one word, in units */
#define ZPOOL_MAX_OBJECT_BYTES 3264 /* five of them in four pages */
#define ZPOOL_MAX_OBJECTS 128u      /* per zspage: one page of the smallest */
#define ZPOOL_MAX_CLASSES 64u
#define ZPOOL_NR_PARTIAL 8u /* lists of partly used zspages; full ones stand on a list of their own */
#define ZPOOL_FULL ZPOOL_NR_PARTIAL

/* Bits of zobject.len: the length of the data, and one that is the owner's to use. */
#define ZOBJECT_LEN_MASK 0x0fffu
#define ZOBJECT_FLAG 0x8000u

/* In a free object vm is 0 (never a VM) and gfn the index of the next free object of the zspage. */
struct zobject {
    gfn_t gfn;
    vmid_t vm;
    uint16_t len; /* bytes of data, ZOBJECT_FLAG */
    uint32_t checksum;
    unsigned char data[];
};
_Static_assert(sizeof(struct zobject) == 12, "12 bytes an object");
#define ZPOOL_MAX_DATA_BYTES (ZPOOL_MAX_OBJECT_BYTES - sizeof(struct zobject))

struct zclass {
    struct mm_lock lock;
    uint16_t object_bytes;
    uint8_t order;
    uint8_t nr_per_zspage;
    uint8_t fallback; /* the next larger class of a smaller order, or ZPOOL_MAX_CLASSES */
    /* guarded by lock; the counters may be read without it */
    struct frame_list zspages[ZPOOL_NR_PARTIAL + 1]; /* [i]: at least i/8 used; [ZPOOL_FULL]: all */
    uint64_t nr_zspages, nr_used, data_bytes;
} __attribute__((aligned(64)));

struct zpool {
    struct zram_pages pages;
    uint64_t limit_pages;
    unsigned nr_classes;
    uint8_t class_of[ZPOOL_MAX_OBJECT_BYTES / ZPOOL_UNIT + 1]; /* by size in units, rounded up */
    uint64_t used_pages, max_pages;                            /* atomic */
    struct zclass classes[ZPOOL_MAX_CLASSES];
};

/* An object as zpool_sparsest saw it. */
struct zpool_item {
    uint64_t place;
    gfn_t gfn;
    vmid_t vm;
};

/* zpool_init - caller's memory, aligned to 64 bytes. Holds no page until the first object. */
void zpool_init(struct zpool *pool, const struct zram_pages *pages, uint64_t limit_pages);
/* Gives every page back; objects still there are forgotten. */
void zpool_fini(struct zpool *pool);

/*
 * zpool_alloc - an object for header->len bytes of data, 1..ZPOOL_MAX_DATA_BYTES; its header is written, the data is
 * the caller's to fill. header->vm is not 0. Where the class cannot grow, a larger class of a smaller order is tried.
 * Returns 0 and *place; -ENOSPC: the limit; -ENOMEM: get() failed. After an error the pool is unchanged.
 * Takes one class lock; calls get() without it.
 */
must_check int zpool_alloc(struct zpool *pool, const struct zobject *header, uint64_t *place);
/* Returns pages that went back, 0 mostly. Takes one class lock; calls put() without it. */
uint32_t zpool_free(struct zpool *pool, uint64_t place);

/* The object itself. It stays where it is until its owner calls zpool_free or zpool_move. */
static inline struct zobject *zpool_object(const struct zpool *pool, uint64_t place)
{
    return (struct zobject *)(void *)(pool->pages.arena + place * ZPOOL_UNIT);
}

/* Bytes of data that the object at @place has room for. As zpool_object, for the owner. Takes no lock. */
uint32_t zpool_room(const struct zpool *pool, uint64_t place);

/*
 * zpool_move - copy the object at @place into a zspage of its class that is at least as full, and free it here.
 * Returns the new place, or @place when there is no such zspage. *freed_pages: pages that went back.
 */
uint64_t zpool_move(struct zpool *pool, uint64_t place, uint32_t *freed_pages);
/*
 * zpool_sparsest - the objects of the sparsest zspage of a class, at most ZPOOL_MAX_OBJECTS. Returns how many: 0 when
 * the class could not do with fewer zspages.
 */
unsigned zpool_sparsest(struct zpool *pool, unsigned class, struct zpool_item *out);

/* Sums over classes; each is exact when no other thread is in the pool. */
void zpool_count(const struct zpool *pool, uint64_t *nr_used, uint64_t *data_bytes);
unsigned zpool_class_stat(const struct zpool *pool, struct zram_class_stat *out, unsigned max);
/*
 * Invariants, per class: nr_used == sum of used objects == sum of live headers; a zspage stands on the list of its
 * fullness; no zspage is empty; the free chain holds exactly the objects that were used once and are not now;
 * sum of zspages << order over the classes == used_pages <= limit_pages.
 */
bool zpool_check(struct zpool *pool, const char **why);

#endif
