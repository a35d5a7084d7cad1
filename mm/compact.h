/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Compaction of a zone: two scanners by pageblock.
 *
 *      migrate scanner -->                                            <-- free scanner
 *     | s.f.s.f. | other | ffsf.... | ........ | ffffffff | s.s.f.f. | ssfsssfs |
 *           |                |                     left alone:    ^          ^
 *           +----------------+----- standby pages are copied -----+----------+
 *
 *     s: standby page   f: free filled   .: free empty   other: pages that stay, whoever has them
 *
 * A pageblock is evacuated whole or not at all: there is a place for each of its pages before the first one moves. Places
 * are free filled slots, or empty ones that are populated for it, first in pageblocks that have pages which stay (these can
 * never be free as a whole), then from the top. What was evacuated is free filled. Where its other slots are empty, its
 * filled ones are given back to the kernel: then it is a run of 2 MiB in plane EMPTY, and the budget has the pages. (To
 * populate the rest would make it a filled run, but not a huge page.)
 * The first pass takes pageblocks that are at most half used, the second all others: the least is copied for the most runs.
 *
 * When a zone is through, the free slots outside whole pageblocks that could be evacuated are less than one pageblock's:
 *     runs = floor(free slots of pageblocks without other pages / 512), if other pageblocks take none
 */
#ifndef MM_COMPACT_H
#define MM_COMPACT_H

#include "mm/reclaim/host.h"

struct compact {
    struct mm_thread *thread;
    struct mm_node *node;
    struct zone *zone;
    struct compact_cursor *cursor;
    uint32_t left; /* frames that may be looked at still */
    uint32_t want; /* runs after which it is enough */
    uint32_t made; /* runs that became free */
    bool no_room;  /* there is no place for more pages in this pass */
};

/* At the beginning of @zone. */
void compact_rewind(struct compact_cursor *cursor, const struct zone *zone);
/* Goes on until one of the limits or the end of the zone is reached. True: that is the end. The node's compact.busy is the
 * caller's. Calls host_ops; a block lock may be held. */
bool compact_zone(struct compact *compact);

/*
 * compact_direct - a block of 2 MiB for a fault, from free memory that is in pieces. True: try again, there may be one.
 * Bounded; after failures only every so many times. Caller may hold a block lock.
 */
bool compact_direct(struct mm_thread *thread, unsigned node);
/* One bounded round in the background. True: there is more to do at once. No lock held. */
bool compact_background(struct mm_thread *thread);
/* 0..100: share of the node's free memory that is in pieces, its zones weighed by their size; Linux's fragmentation score. */
unsigned compact_score(struct mm_node *node);

#endif
