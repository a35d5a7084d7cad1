/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A limit in bytes per second, with bursts of at most a tenth of a second: the generic cell rate algorithm. One word
 * says when all that was let through would be paid for at the rate.
 */
#ifndef MM_BASE_RATE_H
#define MM_BASE_RATE_H

#include "mm/base/types.h"

#define RATE_NS_PER_S UINT64_C(1000000000)
#define RATE_BURST_NS (RATE_NS_PER_S / 10)

struct rate {
    uint64_t bytes_per_s; /* 0: no limit; constant */
    uint64_t paid_ns;     /* atomic */
};

static inline uint64_t rate_cost_ns(const struct rate *rate, uint64_t bytes)
{
    return (uint64_t)((double)bytes * (double)RATE_NS_PER_S / (double)rate->bytes_per_s);
}

/* rate_take - may @bytes pass at @now_ns? True: they are counted. More than a burst passes when nothing is owed. */
static inline bool rate_take(struct rate *rate, uint64_t bytes, uint64_t now_ns)
{
    if (!rate->bytes_per_s)
        return true;
    uint64_t cost_ns = rate_cost_ns(rate, bytes);
    uint64_t paid_ns = __atomic_load_n(&rate->paid_ns, __ATOMIC_RELAXED), then;
    do {
        then = MAX_OF(paid_ns, now_ns);
        if (then - now_ns > 0 && then - now_ns + cost_ns > RATE_BURST_NS)
            return false;
    } while (!__atomic_compare_exchange_n(&rate->paid_ns, &paid_ns, then + cost_ns, true, __ATOMIC_RELAXED,
                                          __ATOMIC_RELAXED));
    return true;
}

/* rate_give_back - @bytes that one rate_take let through did not pass. */
static inline void rate_give_back(struct rate *rate, uint64_t bytes)
{
    if (rate->bytes_per_s)
        __atomic_sub_fetch(&rate->paid_ns, rate_cost_ns(rate, bytes), __ATOMIC_RELAXED);
}

#endif
