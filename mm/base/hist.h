/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Latency histogram: 16 linear steps per power of two (error below 1/16), 1 ns to 2^40 ns and beyond. Adding is a few
 * relaxed atomic operations, so several threads may share one, and it may be read meanwhile. All zero is empty.
 */
#ifndef MM_BASE_HIST_H
#define MM_BASE_HIST_H

#include "mm/base/types.h"

#define HIST_STEPS 16
#define HIST_BUCKETS (41 * HIST_STEPS)

struct hist {
    uint64_t nr[HIST_BUCKETS];
    uint64_t count, sum_ns, max_ns;
};

void hist_add(struct hist *hist, uint64_t ns);
/* @pct 0..100. Upper end of the bucket, at most max; 0 when empty. */
uint64_t hist_percentile(const struct hist *hist, double pct);
void hist_merge(struct hist *into, const struct hist *from);

#endif
