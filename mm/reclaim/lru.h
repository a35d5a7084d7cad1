/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The lists.
 *
 *   active    2 MiB blocks that have pages in the guest, in a ring. Each node has a hand that goes round and takes pages
 *             of that node only
 *   standby   of each node: frames at home with their content intact, in the order they came; the tail is evicted
 *   refused   of each node: standby frames that zram cannot take: they wait for a swap area with room, or for a slower
 *             node, and are in nobody's way
 *
 *              hand, cold: take                           tail: store or write
 *     active -----------------------> standby -----------------------------------> zram, swap
 *        ^                              |
 *        +---------- touched -----------+
 *
 * Ebb sees no accessed bits: that a page is hot is learnt when it comes back. age.h says what follows from it.
 */
#ifndef MM_RECLAIM_LRU_H
#define MM_RECLAIM_LRU_H

#include "mm/reclaim/host.h"

void lru_init(struct mm_lru *lru);
void lru_fini(struct mm_lru *lru);

/* The block has pages in the guest: on the ring, where @node's hand comes last, unless it is there. Caller holds block.lock. Takes lru.lock. */
void lru_add_block(struct mm_host *host, struct block *block, unsigned node);
void lru_del_block(struct mm_host *host, struct block *block);

/* One bit for each page of a block. */
struct page_map {
    uint64_t word[BLOCK_PAGES / 64];
};

static inline bool map_test(const struct page_map *map, unsigned index)
{
    return map->word[index / 64] >> (index % 64) & 1;
}

static inline void map_set(struct page_map *map, unsigned index)
{
    map->word[index / 64] |= UINT64_C(1) << (index % 64);
}

static inline void map_set_range(struct page_map *map, unsigned start, unsigned end)
{
    for (unsigned i = start; i < end; i++)
        map_set(map, i);
}

/* Where pages come to on the list: young at the head, old at the tail, or at the head to see who touches them next. */
enum standby_end { STANDBY_YOUNG, STANDBY_OLD, STANDBY_ARMED };
/*
 * lru_enter_standby - pages [start, start + nr) of the block that are in @map are home in [fn, ...), and stand on the
 * list: their entries and frames say so. Caller holds block.lock and has split the block. Returns pages entered.
 */
uint32_t lru_enter_standby(struct mm_host *host, struct block *block, const struct page_map *map, unsigned start,
                           fn_t fn, uint32_t nr, enum standby_end end);
/* The 2 MiB frame @fn, named by its vm and gfn, is home. The entry is the caller's. */
void lru_enter_standby_huge(struct mm_host *host, fn_t fn);

/* The block's 2 MiB standby frame is copied to @to, a filled block of any node, and stands there. Caller holds block.lock. */
void lru_rehome_huge(struct mm_host *host, struct block *block, fn_t to);

/*
 * lru_forget_standby - frame @fn of the guest page that its caller (block.lock held) has just taken out of standby.
 * True: the frame is the caller's. False: it is being written back, and its writer frees it.
 */
must_check bool lru_forget_standby(struct mm_host *host, fn_t fn);
/* lru_claim_standby - the same, but of a frame that is being written back nothing changes. Caller holds block.lock. */
must_check bool lru_claim_standby(struct mm_host *host, fn_t fn);
/*
 * lru_replace_standby - frame @by, the caller's and of the same node, takes the place of the single standby page @fn, whose
 * frame is the caller's from now on. Caller holds block.lock and writes the entry. False: a store is at the page, nothing
 * has changed.
 */
must_check bool lru_replace_standby(struct mm_host *host, fn_t fn, fn_t by);
/* A 2 MiB standby frame becomes 512 pages. Caller holds block.lock. */
void lru_split_standby(struct mm_host *host, struct block *block, fn_t fn, enum standby_end end);

/*
 * lru_deactivate_block - of the block's pages on @node what is cold goes to standby, nothing while it is pinned. @force:
 * whatever its age. Caller holds block.lock. Returns pages taken; *scanned grows by pages looked at.
 */
uint32_t lru_deactivate_block(struct mm_thread *thread, struct block *block, unsigned node, bool force,
                              uint64_t *scanned);
/*
 * lru_look_block - the same, to learn what is cold while nothing presses: a 2 MiB frame goes home armed, so that it comes
 * back whole. Caller holds block.lock. Returns pages taken; *scanned grows by pages looked at.
 */
uint32_t lru_look_block(struct mm_thread *thread, struct block *block, unsigned node, uint64_t *scanned);
/* The same for the next block under @node's hand, which goes on; *left goes down by blocks of other nodes passed. */
uint32_t lru_look_next(struct mm_thread *thread, unsigned node, uint64_t *left, uint64_t *scanned);
/*
 * lru_arm_block - of the block's pages, those on @nodes go home to show who touches them next, whatever their age; a
 * 2 MiB frame as one. Nothing while it is pinned. Caller holds block.lock. Returns pages taken.
 */
uint32_t lru_arm_block(struct mm_thread *thread, struct block *block, nodemask_t nodes);
/*
 * lru_arm_pages - the same for the pages of the guest in @map, of a block of single pages, one by one. What could not be
 * taken is struck from @map. They are a few of many, so block.armed_ms stays.
 */
uint32_t lru_arm_pages(struct mm_thread *thread, struct block *block, struct page_map *map);
/* Whether @pages could be had and the watermark would still hold, on each node that has pages of the block. Racy. */
bool lru_has_room(const struct block *block, enum watermark which, uint32_t pages);
/*
 * lru_take_block - all pages of a block with a table come home to standby, whatever their age. 0; -EBUSY: some stayed.
 * Either way the entries say who is where. Caller holds block.lock; the block is not pinned.
 */
must_check int lru_take_block(struct mm_thread *thread, struct block *block);
/* lru_deactivate - @pages of @node from where its hand is, or as many as one round gives. Returns pages taken. */
uint32_t lru_deactivate(struct mm_thread *thread, unsigned node, uint32_t pages, bool force, uint64_t *scanned);

/* lru_mark - what is on @node's standby now is told apart from what comes there later. The last NR_STANDBY_MARKS count. */
void lru_mark(struct mm_host *host, unsigned node);
/* Pages at the tail of @node's standby that have stood there since the oldest mark; counted until there are @most. */
uint32_t lru_nr_marked(struct mm_host *host, unsigned node, uint32_t most);

/*
 * lru_isolate - up to @max pages from the tail of @node's standby, or of refused while there are any and @refused says
 * that somebody takes them, become FRAME_WRITEBACK, off the list, and their VMs are held
 * (vm_put each). flags[i]: FRAME_F_INCOMPRESSIBLE or 0. 2 MiB frames are split on the way. Returns how many; lru_isolate_done says when the last is dealt
 * with.
 */
unsigned lru_isolate(struct mm_thread *thread, unsigned node, bool refused, fn_t out[], uint8_t flags[], unsigned max);
void lru_isolate_done(struct mm_host *host, unsigned nr);
/* An isolated page that could not be stored goes back to the head, with @flags added, unless its guest took it back. */
void lru_putback(struct mm_thread *thread, fn_t fn, uint8_t flags);
/* The VM that lru_isolate held for @fn. */
struct mm_vm *lru_frame_vm(struct mm_host *host, fn_t fn);
/* mm_vm_destroy waits for whoever holds the VM. Get: under lru.lock, while the VM is in its host's table. */
void vm_get(struct mm_vm *vm);
/* The first VM of number *id or later, got; *id: its number. It may be destroyed meanwhile, then its blocks are empty.
 * NULL: there is none. */
struct mm_vm *vm_hold_from(struct mm_host *host, unsigned *id);
void vm_put(struct mm_vm *vm);

#endif
