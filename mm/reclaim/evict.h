/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From standby to the stores, and who asks for it.
 *
 * A frame is isolated, its content stored with no lock held (it cannot change: the guest's access would fault, and a
 * fault copies it out), then the entry is switched under block.lock. If its guest took the page back meanwhile, the
 * stored copy is dropped.
 */
#ifndef MM_RECLAIM_EVICT_H
#define MM_RECLAIM_EVICT_H

#include "mm/reclaim/lru.h"

enum reclaimer { RECLAIM_KSWAPD, RECLAIM_DIRECT, RECLAIM_KHUGEPAGED };

/*
 * evict_standby - stores pages from the tail of @node's standby until @pages are freed or nothing goes any more.
 * Returns pages of @node that were freed, those that only went to a slower node included; thread.nr_stored counts the
 * others, and those that made room there. No lock held. Does I/O.
 */
uint32_t evict_standby(struct mm_thread *thread, unsigned node, uint32_t pages, enum reclaimer who);

/* Epochs in a row, until now, in which nearly all that was stored was wanted again soon. 0: it is over, or never was. */
uint32_t evict_nr_thrashing(const struct mm_host *host);

/* The age of a page that comes back from a store, whose entry is @old; counts it when storing it was a mistake. */
uint8_t evict_age_back(struct mm_host *host, const struct s2_entry *old);

/*
 * demote - the contents of isolated frames fn[0, *nr) go to standby on nodes of the next tier down, the nearest that has
 * room, as far as their policies, that room and the rate allow; what stays is kept in fn[0, *nr). Where no node has room,
 * it is made on the nearest in the same way. *open: the nodes that may take pages; those that had no room are struck off,
 * all of them when the rate is used up. kswapd leaves what is hot, at the head of standby. No lock held. Returns frames
 * freed.
 */
uint32_t demote(struct mm_thread *thread, unsigned node, fn_t fn[], uint8_t flags[], unsigned *nr, enum reclaimer who,
                nodemask_t *open);
/* The same for the 2 MiB frame at the tail of @node's standby. Pages freed, 0 or BLOCK_PAGES. */
uint32_t demote_huge_tail(struct mm_thread *thread, unsigned node, nodemask_t open, enum reclaimer who);
/* The nodes that are slower than @node. */
nodemask_t demote_nodes(const struct mm_host *host, unsigned node);

/*
 * reclaim_round - keeps @node's standby at its share of resident memory, evicts @pages of it. @force: ages do not protect.
 * Returns pages of @node freed.
 */
uint32_t reclaim_round(struct mm_thread *thread, unsigned node, uint32_t pages, bool force, enum reclaimer who);

#endif
