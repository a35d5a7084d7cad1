/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Zipf sampler: rank r (from 1) comes up in proportion to r^-theta. Integers only, so that it runs anywhere, and
 * 28 KiB whatever the number of ranks.
 *
 * The first 64 ranks stand alone; after them each power of two is cut into 64 buckets, inside which ranks are equally
 * likely (their weights differ by less than theta * 1.6%). A bucket is drawn by the alias method (Walker; the set-up is
 * Vose's): one table line a sample.
 */
#ifndef EBBGUEST_ZIPF_H
#define EBBGUEST_ZIPF_H

#include <stdbool.h>
#include <stdint.h>

#define ZIPF_ALONE 64
#define ZIPF_MAX_BUCKETS (ZIPF_ALONE + 26 * ZIPF_ALONE)

struct zipf_bucket {
    uint64_t threshold; /* below it the bucket itself is meant, otherwise its alias. Of zipf.total */
    uint32_t start;     /* first rank, from 0; it ends where the next one starts */
    uint16_t alias;
    uint16_t todo; /* used while the table is made */
};

struct zipf {
    uint32_t nr_ranks, nr_buckets;
    uint64_t total; /* of the weights, below 2^52 */
    struct zipf_bucket bucket[ZIPF_MAX_BUCKETS + 1];
};

/* @nr_ranks: at least 1. @theta_milli: 0 (uniform) to 2000. */
void zipf_init(struct zipf *zipf, uint32_t nr_ranks, uint32_t theta_milli);
/* A rank from 0, the most frequent, to nr_ranks - 1. *rng is any number and is advanced. */
uint32_t zipf_sample(const struct zipf *zipf, uint64_t *rng);

/* Sends [0, nr) to itself, one to one, without visible order. */
uint32_t scatter(uint32_t index, uint32_t nr, uint64_t seed);

/* Next number of a sequence that any start value gives. */
uint64_t rng_next(uint64_t *rng);
/* Next number below @limit. */
uint64_t rng_below(uint64_t *rng, uint64_t limit);

#endif
