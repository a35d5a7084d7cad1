/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Page size: which 2 MiB blocks go in single pages, and which are one 2 MiB frame.
 *
 *   split      a frame at home that is touched while its node is short of pages, or that is on trial (split_is_due): its
 *              pages go back singly as they are touched, the rest is evicted like any other standby page
 *   collapse   a block in single pages of which nearly all are in the guest is copied into one frame. This is here
 *
 *        collapse_scan   --->  look at a block: fit for it now, and the last time? room?  --->  collapse_block
 *        a round: at most so many blocks and so much time; the wait after it keeps the share of a CPU that is configured
 *
 * Hot is what reclaim does not take, or what comes back when it does: a block must be nearly all in the guest at two looks
 * in a row, a pass over all blocks apart. Where there is no room for a frame, that is not enough: the block has to prove that
 * it is hot, and what is known to be cold makes room for it (collapse_room.c).
 */
#ifndef MM_POLICY_PAGE_SIZE_H
#define MM_POLICY_PAGE_SIZE_H

#include "mm/reclaim/host.h"

/*
 * split_is_due - whether the 2 MiB frame of @block, at home and touched just now, is split although its node has room for
 * it as a whole. A block that came back whole a few times may be hot in one page or in all of them; on trial it shows: what
 * is hot comes back singly, the rest is evicted, and where nearly all comes back it is rebuilt, and left in peace for
 * longer. Trials are paid for from the quota. Never where blocks are not rebuilt. Caller holds block.lock.
 */
must_check bool split_is_due(struct mm_host *host, struct block *block);

/*
 * collapse_take_trial - one of the few trials of this round, each of which costs the guest up to 512 minor faults and is paid
 * for from the quota. False: there is none left. Any thread.
 */
must_check bool collapse_take_trial(struct mm_host *host);

/* NULL: blocks are rebuilt. Otherwise why they never are, for people: the configuration, or what the host cannot do. */
const char *collapse_why_not(const struct mm_host *host);
/*
 * collapse_scan - one round of the scanner, one caller at a time: looks at blocks, rebuilds those that are fit for it.
 * Returns ms until the next round is due; called before that it does nothing and says what is left. 0: never, see
 * collapse_why_not. Takes block locks; may do I/O.
 */
unsigned collapse_scan(struct mm_thread *thread);

/*
 * Pages of a block that may be out of the guest, never touched, at home or stored alike. An eighth: a block grows by no more
 * than that. Linux's khugepaged has the same for swapped pages (max_ptes_swap) and takes a block with any page at all
 * in it otherwise (max_ptes_none 511), which is memory that a hard budget does not have.
 */
#define COLLAPSE_MAX_OUT (BLOCK_PAGES / 8)

/*
 * collapse_fits - whether the block could be rebuilt now: in single pages, nearly all in the guest, none given up to the
 * balloon or lost, no pins. *node: where most of its pages are. Caller holds block.lock.
 */
bool collapse_fits(const struct block *block, unsigned *node);
/*
 * collapse_block - the block, which fits, becomes the 2 MiB frame @fn, filled and of any content, which is used or freed.
 * Returns 0; -EIO: a stored page could not be read, nothing has changed; -EBUSY, or what host_ops.take or place says:
 * what came home until then is standby or back in the guest in single pages. No page loses its content. Caller holds
 * block.lock.
 */
must_check int collapse_block(struct mm_thread *thread, struct block *block, fn_t fn);

/* Whether a frame can be had on the node and its high watermark holds. Racy. */
bool collapse_has_room(const struct mm_node *node);
/*
 * collapse_make_room - room for @block, which is fit for it, on @node, which has none. Pages are evicted only if they are known
 * to be cold, are enough for a frame, and the block has proved that it is hot; else what is missing is looked for, the
 * outcome of which the next pass sees. Backs off where looks are fruitless or evicted pages are wanted again. True: there
 * is room now. The scanner only; no lock held; does I/O.
 */
must_check bool collapse_make_room(struct mm_thread *thread, struct block *block, unsigned node);
/* All blocks have been looked at, the last one at @now_ns. The scanner only. */
void collapse_end_pass(struct mm_host *host, uint64_t now_ns);

#endif
