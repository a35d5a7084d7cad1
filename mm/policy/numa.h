/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a page belongs: balancing between nodes, promotion from slower ones. mm/ sees no accessed bits, so pages are
 * taken home ("armed") at a limited rate, and the fault that follows says who touched them when.
 *
 *   balancing   a page that was touched twice in a row from one other node of its rank moves there
 *   promotion   a page of a slow node that was touched again and again within NUMA_HOT_S (or two passes of the scan)
 *               and soon after it was taken home moves to the nearest faster node
 *
 * A page that faults is at home, so moving it is to give the guest a copy that is made on the other node.
 */
#ifndef MM_POLICY_NUMA_H
#define MM_POLICY_NUMA_H

#include "mm/reclaim/lru.h"
#include "mm/reclaim/place.h"

#define NUMA_HOT_S 10u

/* A page that is about to come back to its guest from standby. */
struct numa_touch {
    struct block *block;
    unsigned home;         /* node it is on */
    fn_t fn;               /* slot it is in */
    struct page_note note; /* of the touch before this one */
    uint64_t sampled_ns;   /* when it was taken home for a sample of its own; 0: it was not */
    bool armed, huge;
    const struct wish *wish;
    unsigned vcpu; /* + 1; 0: nobody known */
    uint64_t now_ns;
};

/* numa_create - as the configuration wants it; -ENOMEM. numa_destroy: also of NULL. */
must_check int numa_create(struct mm_host *host);
void numa_destroy(struct mm_host *host);

/* numa_choose - counts the touch; returns the node on which the page should be from now on, and in *heat what its note is to say. Caller holds block.lock. */
unsigned numa_choose(struct mm_host *host, const struct numa_touch *touch, uint8_t *heat);
/* Each touch of an armed page of @node counts: its neighbours do not come along with it. */
bool numa_is_slow(const struct mm_host *host, unsigned node);
/* numa_allow - may @pages move from @from to @to now? Counts what is to be promoted, and its bytes against the rate. */
must_check bool numa_allow(struct mm_host *host, unsigned from, unsigned to, uint32_t pages);
/* numa_moved - @pages of @block came from node @from to @to; 0: they could not. Caller holds block.lock, but for 0. */
void numa_moved(struct mm_host *host, struct block *block, unsigned from, unsigned to, uint32_t pages);
/* numa_pay - the fault of an armed page took @ns of CPU time: of the scan's quota. */
void numa_pay(struct mm_host *host, uint64_t ns);
/* One round of the scan; as mm_scan. */
unsigned numa_scan(struct mm_thread *thread);

#endif
