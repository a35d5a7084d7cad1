/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers for model tests: the same from the same seed, on every machine. xorshift, shifts 13 7 17 after Marsaglia. */
#ifndef TESTS_UNIT_MODEL_RNG_H
#define TESTS_UNIT_MODEL_RNG_H

#include <stdint.h>

struct rng {
    uint64_t state; /* not 0 */
};

static inline uint64_t rng_next(struct rng *rng)
{
    rng->state ^= rng->state << 13;
    rng->state ^= rng->state >> 7;
    rng->state ^= rng->state << 17;
    return rng->state;
}

/* 0..below-1 */
static inline uint32_t rng_below(struct rng *rng, uint32_t below)
{
    return (uint32_t)((rng_next(rng) >> 32) % below);
}

#endif
