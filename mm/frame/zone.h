/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Zones and the buddy allocator, orders 0..MAX_ORDER. Freestanding.
 *
 * A zone is a range of frames. Its free blocks stand on one list per plane, migrate type and order:
 *
 *     plane FILLED: every slot of the block has a physical page     plane EMPTY: none has
 *
 * The two planes are never merged with each other: filled runs can become huge pages or be given back whole,
 * empty runs are what batches of pages come home to. The guest kernel has filled blocks only.
 *
 * Types. Each pageblock (BLOCK_PAGES frames, aligned, as far as it is in the zone) has one migrate type, which rules both
 * planes of it. Who allocates says what it is going to do with the pages, and gets them from a pageblock of that type
 * while there is one: what cannot be moved stays together, and what can be moved leaves whole pageblocks when it goes.
 * A free block of order 10 spans two pageblocks: both are of its type, buddies of two types are not merged.
 *
 * Marks. Every frame of the zone is in one of three states:
 *   head of a free block    use FRAME_FREE, order its order, FRAME_F_EMPTY iff the block is in plane EMPTY; on that list
 *   inside a free block     use FRAME_TAIL; the other fields mean nothing
 *   given out               any use but FRAME_FREE; all fields are the holder's
 * FRAME_FREE is written and removed under zone.lock only, so a buddy lookup needs one frame: the block at fn is free, of
 * that order and plane, iff use, order and plane of frames[fn] say so. Giving out a block leaves its tails as they are,
 * and a merge marks just the one head it swallows: taking or giving back a block costs the same for 4 KiB and 4 MiB, as
 * long as the holder left the tails alone (zone_free says when).
 *
 * Invariants (zone_check):
 *   sum over types but ISOLATE and orders of nr_blocks << order  ==  nr_free[plane]; over ISOLATE: nr_isolated[plane]
 *   nr_free + nr_isolated of both planes + nr_alloc - nr_freed  ==  nr_frames
 *   every free block stands on the list of its pageblock's type (order 10: of both its pageblocks)
 *   no two free buddies of one order, one plane and one type stand unmerged below MAX_ORDER
 *   every free block is aligned to its order and inside the zone, its head marked as above, the rest FRAME_TAIL
 *   no other frame of the zone is FRAME_FREE
 *   bit o of free_area.orders  ==  the list of order o is not empty
 */
#ifndef MM_FRAME_ZONE_H
#define MM_FRAME_ZONE_H

#include "mm/base/lock.h"
#include "mm/frame/frame.h"

enum plane { PLANE_FILLED, PLANE_EMPTY, NR_PLANES };

enum watermark { WMARK_MIN, WMARK_LOW, WMARK_HIGH, NR_WMARK };

/* What the pages of a pageblock are used for. The first MIGRATE_PCPTYPES can be asked for. */
enum migratetype {
    MIGRATE_UNMOVABLE,   /* stays where it is for its life: what devices were told of */
    MIGRATE_MOVABLE,     /* can be copied elsewhere, its one record follows: standby pages */
    MIGRATE_RECLAIMABLE, /* cannot be moved by itself, but given up or moved by its owner: the compressed store */
    MIGRATE_PCPTYPES,
    MIGRATE_ISOLATE = MIGRATE_PCPTYPES, /* gives nothing out; what is freed stays */
    MIGRATE_TYPES,
};

struct free_area {
    uint32_t orders; /* bit o: there are blocks of order o */
    struct frame_list blocks[MAX_ORDER + 1];
};

struct zone {
    const char *name; /* "Normal", "Huge", "DMA32" ... */
    struct frame *frames;
    fn_t start_fn;
    uint32_t nr_frames;
    struct mm_lock lock;
    /* guarded by lock */
    uint8_t *types; /* enum migratetype of pageblock fn >> BLOCK_ORDER; read racily */
    struct free_area area[NR_PLANES][MIGRATE_TYPES];
    uint32_t nr_free[NR_PLANES];     /* pages that can be given out */
    uint32_t nr_isolated[NR_PLANES]; /* pages free in isolated pageblocks */
    uint64_t nr_alloc, nr_freed;     /* pages, since zone_init */
    /* set before the zone is shared: by watermark_set, and by whoever has several zones; 0 from zone_init */
    uint32_t wmark[NR_WMARK]; /* pages */
    uint32_t lowmem_reserve;  /* pages kept from allocations that could use a higher zone */
};

/*
 * zone_init - all frames [start, start + nr) become free blocks of @plane, of type MOVABLE. One pass over them.
 * @frames: the whole frames array, indexed by fn; @types: a byte for each pageblock, indexed by fn >> BLOCK_ORDER. Both
 * are caller's memory and outlive the zone; what they hold does not matter, but frames of zeros are not written, heads
 * apart, so that new memory is taken only as blocks are cut. No two zones share a pageblock.
 */
void zone_init(struct zone *zone, const char *name, struct frame *frames, uint8_t *types, fn_t start, uint32_t nr,
               enum plane plane);
void zone_fini(struct zone *zone);

/*
 * zone_alloc - one block of 2^order frames from @plane for pages that can be moved; *out is its head, marked FRAME_USED
 * with its order and no flags, the rest FRAME_TAIL. Smallest sufficient block is split, low half kept.
 * Returns 0, or -ENOMEM with the zone unchanged. Takes zone.lock.
 */
must_check int zone_alloc(struct zone *zone, unsigned order, enum plane plane, fn_t *out);

/*
 * zone_alloc_type - as zone_alloc, for pages of @type, which is not ISOLATE.
 * Without a block of that type another type's is taken: the largest first, so that a new pageblock is begun rather than a
 * few pages strewn over many. Its pageblock changes type when the block is of order 4 or more, or the pages cannot be
 * moved, and at least half of the pageblock is free or of the new type's kind as it is. Else movable pages take the
 * smallest block that does, and no more than they need. Source: the idea of Linux mm/page_alloc.c, __rmqueue_fallback.
 */
must_check int zone_alloc_type(struct zone *zone, unsigned order, enum plane plane, enum migratetype type, fn_t *out);

/*
 * set_pageblock_migratetype - the pageblock of @fn is of @type from now on, and its free blocks stand on that type's
 * lists. MIGRATE_ISOLATE: they are not given out, nor what is freed there, until the type is another one; what is given
 * out already, threads' lists included, stays so. Returns the type that it had. Takes zone.lock.
 */
enum migratetype set_pageblock_migratetype(struct zone *zone, fn_t fn, enum migratetype type);
/* The type of @fn's pageblock; a racy read. */
enum migratetype get_pageblock_migratetype(const struct zone *zone, fn_t fn);

/*
 * zone_free - [fn, fn + 2^order) becomes free in @plane and merges with its free buddies there. Takes zone.lock.
 * When the head has this very order and a use that speaks for the whole block (USED, HOME, ZEROED), the tails are
 * taken to be FRAME_TAIL still. A holder that gave tails a use of their own frees with zone_free_range.
 * A misaligned block, one outside the zone or one that heads a free block already is a bug of the caller and traps.
 */
void zone_free(struct zone *zone, fn_t fn, unsigned order, enum plane plane);

/*
 * zone_free_range - as zone_free for any run [fn, fn + nr): cut into aligned blocks, every tail marked, so the frames
 * may have had any use. One lock hold.
 */
void zone_free_range(struct zone *zone, fn_t fn, uint32_t nr, enum plane plane);

/*
 * zone_alloc_bulk - up to @nr single movable frames of @plane into out[], one lock hold. Returns how many.
 */
uint32_t zone_alloc_bulk(struct zone *zone, enum plane plane, fn_t *out, uint32_t nr);

/* zone_free_bulk - @nr single frames, anywhere in the zone, become free in @plane. One lock hold. */
void zone_free_bulk(struct zone *zone, enum plane plane, const fn_t *fns, uint32_t nr);

/* What the frames of a pageblock are used for; the sum is BLOCK_PAGES, or less at the ends of the zone. */
struct pageblock_use {
    uint32_t nr_free[NR_PLANES]; /* isolated or not */
    uint32_t nr_movable;         /* single standby pages */
    uint32_t nr_other;           /* given out for anything else */
};
/* The pageblock of @fn. What is given out may change meanwhile. Takes zone.lock. */
void zone_pageblock_use(struct zone *zone, fn_t fn, struct pageblock_use *out);
/*
 * zone_take_free - up to @max frames that are free in @plane of @fn's pageblock, highest first, become single frames of the
 * caller, FRAME_USED. None of an isolated pageblock, nor of one that is free as a whole. Returns how many. Takes zone.lock.
 */
uint32_t zone_take_free(struct zone *zone, fn_t fn, enum plane plane, fn_t out[], uint32_t max);

/* zone_split - an allocated compound block becomes 2^order allocated frames of order 0, all FRAME_USED with no flags.
 * Takes no lock: the block is the caller's. */
void zone_split(struct zone *zone, fn_t head, unsigned order);

/* Pages of @plane that can be given out: free, and not isolated; a racy read. */
uint32_t zone_nr_free(const struct zone *zone, enum plane plane);

/* Blocks of @plane that can be given out, of all types, by order. Takes zone.lock. */
void zone_count_free(struct zone *zone, enum plane plane, uint32_t nr[MAX_ORDER + 1]);

struct zone_types {
    uint32_t nr_blocks[NR_PLANES][MIGRATE_TYPES][MAX_ORDER + 1]; /* free blocks */
    uint32_t nr_pageblocks[MIGRATE_TYPES];                       /* those at the zone's ends may be parts */
};
/* What /proc/pagetypeinfo shows of Linux. Takes zone.lock for the blocks; the pageblocks are a racy read. */
void zone_types(struct zone *zone, struct zone_types *out);

/* True when every invariant above holds; otherwise false and *why (a static string). Takes zone.lock. */
bool zone_check(struct zone *zone, const char **why);

/*
 * watermark_set - min from min_free_kbytes = clamp(sqrt(16 * managed_kb), 128, 262144) as Linux
 * (mm/page_alloc.c, calculate_min_free_kbytes), low = 5/4 min, high = 6/4 min; high is at most a quarter of the pages.
 * @managed_pages: pages the zone may hold (host: its share of the budget).
 */
void watermark_set(struct zone *zone, uint32_t managed_pages);
/* The same rule for any pool of pages: fills wmark[NR_WMARK], pages. */
void watermark_compute(uint32_t managed_pages, uint32_t wmark[NR_WMARK]);

/* A node is a list of zones in fallback order, the preferred one last in address, as in Linux. */
#define MAX_ZONES 4
struct node {
    unsigned nr_zones;
    struct zone zones[MAX_ZONES];
};

#endif
