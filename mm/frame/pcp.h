/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Per-thread page lists: single FILLED frames before the zone, so that the usual free and the next allocation take no
 * lock. Recently used frames stand at the hot end (their lines are in the cache), batches from the zone at the cold
 * end. One thread owns a pcp. Freestanding.
 */
#ifndef MM_FRAME_PCP_H
#define MM_FRAME_PCP_H

#include "mm/frame/zone.h"

struct pcp {
    struct zone *zone;
    struct frame_list list; /* head hot, tail cold */
    uint32_t high;          /* at more than this, `batch` cold frames go back to the zone */
    uint32_t batch;
    uint64_t nr_hit, nr_refill, nr_drain;
};

/* @high, @batch: frames, batch <= high. 0 for the default (186 and 31, Linux's shape for small zones). */
void pcp_init(struct pcp *pcp, struct zone *zone, uint32_t high, uint32_t batch);
/* One frame from the hot end; refills a batch from the zone when empty. -ENOMEM: neither has one. */
must_check int pcp_alloc(struct pcp *pcp, fn_t *out);
/* @hot: the page was touched just now. */
void pcp_free(struct pcp *pcp, fn_t fn, bool hot);
/* All frames back to the zone. */
void pcp_drain(struct pcp *pcp);

#endif
