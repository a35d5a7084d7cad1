/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is known of the accesses to one block: kept in struct block, written by mm/policy/access*.c under block.lock.
 * All zero: nothing.
 */
#ifndef MM_RECLAIM_ACCESS_BLOCK_H
#define MM_RECLAIM_ACCESS_BLOCK_H

#include "mm/base/types.h"

/* Pages of a block of single pages that stand for all of it: as many faults at most come of one look. */
#define ACCESS_PANEL 8u

/* One thing that is watched, a page or a 2 MiB frame. Times are of host_ops.clock_ns. */
struct access_watch {
    uint64_t last_ns;    /* the last access that is known; 0: none */
    uint64_t armed_ns;   /* the next access will be seen, and there was none since then; 0: it will not */
    uint64_t wait_ns;    /* from arming to the access, last time; 0: there was no such time yet */
    uint32_t prepaid_ns; /* what the fault is expected to cost, taken from the quota already */
    uint16_t index;      /* panel: page in its block */
    bool used;           /* panel: the entry names a page */
    bool sampled;        /* taken home by the access scanner: the fault is of its cost */
    bool seen_idle;      /* the look after the one that armed it found it untouched */
};

struct access_block {
    struct access_watch whole;  /* last_ns: of any of its pages; the rest while it is a 2 MiB frame */
    struct access_watch *panel; /* ACCESS_PANEL of them from the first look on as a block of single pages; or NULL */
    uint64_t home_ns;  /* reclaim took pages of it last; or the last access to those that left the panel since then */
    uint16_t drawn_of; /* pages that the panel was drawn from */
    uint16_t nr_looks; /* at it as a block of single pages, modulo 65536 */
    uint16_t nr_came;  /* pages that came in since the heat map's column began */
};

/* Entries of the panel: none before there is one. */
static inline unsigned access_panel_size(const struct access_block *access)
{
    return access->panel ? ACCESS_PANEL : 0;
}

/* When the watched thing was touched last, as far as is known or to be thought. 0: nothing is known. */
static inline uint64_t access_last(const struct access_watch *watch, uint64_t now_ns)
{
    if (watch->armed_ns || !watch->wait_ns || watch->wait_ns >= now_ns)
        return watch->last_ns;
    return MAX_OF(watch->last_ns, now_ns - watch->wait_ns);
}

/* From now on an access is seen. What was not known to have been touched lately is idle since it was known. */
static inline void access_arm(struct access_watch *watch, uint64_t now_ns, bool sampled)
{
    watch->last_ns = access_last(watch, now_ns);
    watch->armed_ns = now_ns;
    watch->sampled = sampled;
    watch->seen_idle = false;
    watch->prepaid_ns = 0;
}

#endif
