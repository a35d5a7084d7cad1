/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bucket of a value v with its top bit e:
 *
 *     v < 16:  bucket v, exact
 *     else:    bucket (e - 3) * 16 + the four bits below the top bit
 *
 * so bucket b >= 16 with e = b / 16 + 3 and s = b % 16 holds [(16 + s) << (e - 4), (16 + s + 1) << (e - 4)).
 * Readers may run beside writers: a percentile is taken over the buckets as they were read.
 */
#include "mm/base/hist.h"

#define STEP_BITS 4
_Static_assert(HIST_STEPS == 1 << STEP_BITS, "a bucket is found by shifting");

static unsigned bucket_of(uint64_t ns)
{
    if (ns < HIST_STEPS)
        return (unsigned)ns;
    unsigned top = 63u - (unsigned)__builtin_clzll(ns);
    unsigned step = (unsigned)(ns >> (top - STEP_BITS)) & (HIST_STEPS - 1);
    unsigned bucket = (top - STEP_BITS + 1) * HIST_STEPS + step;
    return MIN_OF(bucket, (unsigned)HIST_BUCKETS - 1);
}

static uint64_t bucket_last(unsigned bucket)
{
    if (bucket < HIST_STEPS)
        return bucket;
    unsigned shift = bucket / HIST_STEPS - 1;
    uint64_t step = bucket % HIST_STEPS;
    return ((HIST_STEPS + step + 1) << shift) - 1;
}

static void raise_max(uint64_t *max, uint64_t ns)
{
    uint64_t seen = __atomic_load_n(max, __ATOMIC_RELAXED);
    while (seen < ns && !__atomic_compare_exchange_n(max, &seen, ns, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        continue;
}

void hist_add(struct hist *hist, uint64_t ns)
{
    __atomic_fetch_add(&hist->nr[bucket_of(ns)], 1, __ATOMIC_RELAXED);
    __atomic_fetch_add(&hist->count, 1, __ATOMIC_RELAXED);
    __atomic_fetch_add(&hist->sum_ns, ns, __ATOMIC_RELAXED);
    raise_max(&hist->max_ns, ns);
}

/* How many of @count samples, sorted, are at or below the wanted one: 1..count. */
static uint64_t rank_of(uint64_t count, double pct)
{
    double exact = (double)count * pct / 100.0;
    uint64_t rank = exact <= 0 ? 0 : (uint64_t)exact;
    if ((double)rank < exact)
        rank++;
    return rank < 1 ? 1 : MIN_OF(rank, count);
}

uint64_t hist_percentile(const struct hist *hist, double pct)
{
    uint64_t count = 0, below = 0;
    for (unsigned i = 0; i < HIST_BUCKETS; i++)
        count += __atomic_load_n(&hist->nr[i], __ATOMIC_RELAXED);
    if (!count)
        return 0;

    uint64_t rank = rank_of(count, pct), max_ns = __atomic_load_n(&hist->max_ns, __ATOMIC_RELAXED);
    for (unsigned i = 0; i < HIST_BUCKETS - 1; i++) {
        below += __atomic_load_n(&hist->nr[i], __ATOMIC_RELAXED);
        if (below >= rank)
            return MIN_OF(bucket_last(i), max_ns);
    }
    return max_ns;
}

void hist_merge(struct hist *into, const struct hist *from)
{
    for (unsigned i = 0; i < HIST_BUCKETS; i++)
        __atomic_fetch_add(&into->nr[i], __atomic_load_n(&from->nr[i], __ATOMIC_RELAXED), __ATOMIC_RELAXED);
    __atomic_fetch_add(&into->count, __atomic_load_n(&from->count, __ATOMIC_RELAXED), __ATOMIC_RELAXED);
    __atomic_fetch_add(&into->sum_ns, __atomic_load_n(&from->sum_ns, __ATOMIC_RELAXED), __ATOMIC_RELAXED);
    raise_max(&into->max_ns, __atomic_load_n(&from->max_ns, __ATOMIC_RELAXED));
}
