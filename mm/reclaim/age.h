/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How hot a page is, without accessed bits: what is known is when it was taken and that it came back.
 *
 *   age a     the page is taken at every 2^a-th scan of its block; 0 for a page that was never asked for again
 *   standby   a page that comes back from there was wanted within one list length:      a + 2
 *   store     one that comes back soon after it was stored was stored by mistake:        a + 4; later: 0
 *   stored    a - 1, and the epoch is kept in its entry; an epoch is half of the resident pages evicted
 *
 * docs/decisions/002-replacement.md has the simulation beside LRU, CLOCK, LFU and Belady that these numbers come from.
 */
#ifndef MM_RECLAIM_AGE_H
#define MM_RECLAIM_AGE_H

#include "mm/map/stage2.h"

#define AGE_TOP 8
#define AGE_GROUP_ORDER 5 /* 32 pages: the default readahead */
#define AGE_STANDBY_STEP 2
#define AGE_MISTAKE_STEP 4

/*
 * Whether this scan, the @scans-th of its block, takes the page. The hash spreads pages of one age over the scans, but
 * neighbours stay together: what leaves singly comes back singly.
 */
static inline bool age_is_cold(uint8_t age, uint32_t scans, gfn_t gfn)
{
    return ((scans + ((gfn >> AGE_GROUP_ORDER) * UINT32_C(0x9e3779b1) >> 16)) & ((1u << age) - 1)) == 0;
}

static inline uint8_t age_from_standby(uint8_t age)
{
    return (uint8_t)MIN_OF(age + AGE_STANDBY_STEP, AGE_TOP);
}

static inline uint8_t age_when_stored(uint8_t age)
{
    return age > 0 ? (uint8_t)(age - 1) : 0;
}

/* The page was stored in this epoch or the last one. */
static inline bool age_was_mistake(uint8_t stamp, uint32_t epoch)
{
    return ((epoch - stamp) & S2_STAMP_MAX) <= 1;
}

static inline uint8_t age_from_store(uint8_t age, uint8_t stamp, uint32_t epoch)
{
    return age_was_mistake(stamp, epoch) ? (uint8_t)MIN_OF(age + AGE_MISTAKE_STEP, AGE_TOP) : 0;
}

#endif
