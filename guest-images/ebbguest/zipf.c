/* SPDX-License-Identifier: Apache-2.0 */
#include "guest-images/ebbguest/zipf.h"
#include "guest-images/ebbguest/pattern.h"

typedef unsigned __int128 u128;

#define ONE_Q62 (UINT64_C(1) << 62)
#define LN2_Q62 UINT64_C(0x2c5c85fdf473de6b) /* ln 2 * 2^62 */
#define EXP_TERMS 18                         /* (ln 2)^18 / 18! is below 2^-62 */
#define NO_BUCKET UINT16_MAX

uint64_t rng_next(uint64_t *rng)
{
    *rng += UINT64_C(0x9e3779b97f4a7c15);
    return mix64(*rng);
}

uint64_t rng_below(uint64_t *rng, uint64_t limit)
{
    return (uint64_t)((u128)rng_next(rng) * limit >> 64);
}

/* log2 of @x, at least 1, in 1/2^32: the whole part is the top bit, each squaring gives one bit of the rest. */
static uint64_t log2_q32(uint64_t x)
{
    unsigned top = 63u - (unsigned)__builtin_clzll(x);
    uint64_t mantissa = x << (63 - top);
    uint64_t result = top;

    for (unsigned i = 0; i < 32; i++) {
        u128 square = (u128)mantissa * mantissa;
        unsigned bit = (unsigned)(square >> 127);

        mantissa = (uint64_t)(square >> (63 + bit));
        result = result << 1 | bit;
    }
    return result;
}

/* 2^-y in 1/2^62, y in 1/2^32: the series of e^-(y ln 2) for the fraction, a shift for the whole part. */
static uint64_t exp2_neg_q62(uint64_t y_q32)
{
    uint64_t whole = y_q32 >> 32;
    uint64_t x = (uint64_t)((u128)LN2_Q62 * (y_q32 & UINT32_MAX) >> 32);
    uint64_t term = ONE_Q62, plus = ONE_Q62, minus = 0;

    for (unsigned i = 1; i <= EXP_TERMS; i++) {
        term = (uint64_t)((u128)term * x >> 62) / i;
        if (i & 1)
            minus += term;
        else
            plus += term;
    }
    return whole > 62 ? 0 : (plus - minus) >> whole;
}

/* Weight of the ranks [start, end), counted from 0, by their middle; exact for one rank. */
static u128 weight_q62(uint32_t start, uint32_t end, uint32_t theta_milli)
{
    uint64_t twice_middle = (uint64_t)start + end + 1; /* ranks from 1: (start + 1) + end */
    uint64_t log = log2_q32(twice_middle) - (UINT64_C(1) << 32);

    return (u128)exp2_neg_q62(log * theta_milli / 1000) * (end - start);
}

static uint32_t cut_buckets(struct zipf *zipf, uint32_t nr_ranks)
{
    uint32_t nr = 0;
    uint64_t start = 0;

    while (start < nr_ranks) {
        uint64_t width = start < ZIPF_ALONE ? 1 : (UINT64_C(1) << (63 - __builtin_clzll(start))) / ZIPF_ALONE;

        zipf->bucket[nr++].start = (uint32_t)start;
        start += width;
    }
    zipf->bucket[nr].start = nr_ranks;
    return nr;
}

static void push(struct zipf *zipf, uint16_t *list, uint16_t i)
{
    zipf->bucket[i].todo = *list;
    *list = i;
}

static uint16_t pop(struct zipf *zipf, uint16_t *list)
{
    uint16_t i = *list;

    *list = zipf->bucket[i].todo;
    return i;
}

/*
 * Each bucket of weight * nr below total is filled up from one above it, which then is its alias. What is left over by
 * rounding keeps its whole column.
 */
static void make_aliases(struct zipf *zipf)
{
    uint16_t small = NO_BUCKET, large = NO_BUCKET;

    for (uint32_t i = 0; i < zipf->nr_buckets; i++)
        push(zipf, zipf->bucket[i].threshold < zipf->total ? &small : &large, (uint16_t)i);
    while (small != NO_BUCKET && large != NO_BUCKET) {
        uint16_t s = pop(zipf, &small);
        uint16_t l = pop(zipf, &large);

        zipf->bucket[s].alias = l;
        zipf->bucket[l].threshold -= zipf->total - zipf->bucket[s].threshold;
        push(zipf, zipf->bucket[l].threshold < zipf->total ? &small : &large, l);
    }
    for (uint16_t *list = small != NO_BUCKET ? &small : &large; *list != NO_BUCKET;)
        zipf->bucket[pop(zipf, list)].threshold = zipf->total;
}

void zipf_init(struct zipf *zipf, uint32_t nr_ranks, uint32_t theta_milli)
{
    unsigned shift = 0;
    u128 sum = 0;

    zipf->nr_ranks = nr_ranks;
    zipf->nr_buckets = cut_buckets(zipf, nr_ranks);
    for (uint32_t i = 0; i < zipf->nr_buckets; i++)
        sum += weight_q62(zipf->bucket[i].start, zipf->bucket[i + 1].start, theta_milli);
    while (sum >> shift >= UINT64_C(1) << 51) /* times nr_buckets, at most 2^11, must fit into 64 bits */
        shift++;
    zipf->total = 0;
    for (uint32_t i = 0; i < zipf->nr_buckets; i++) {
        struct zipf_bucket *bucket = &zipf->bucket[i];
        uint64_t weight = (uint64_t)(weight_q62(bucket->start, bucket[1].start, theta_milli) >> shift);

        zipf->total += weight;
        bucket->threshold = weight * zipf->nr_buckets;
        bucket->alias = (uint16_t)i;
    }
    make_aliases(zipf);
}

uint32_t zipf_sample(const struct zipf *zipf, uint64_t *rng)
{
    const struct zipf_bucket *bucket = &zipf->bucket[rng_below(rng, zipf->nr_buckets)];

    if (rng_below(rng, zipf->total) >= bucket->threshold)
        bucket = &zipf->bucket[bucket->alias];
    uint32_t width = bucket[1].start - bucket->start;
    return bucket->start + (width > 1 ? (uint32_t)rng_below(rng, width) : 0);
}

/* Odd factors and shifts are one to one on [0, 2^bits); what falls beyond nr goes round again. */
uint32_t scatter(uint32_t index, uint32_t nr, uint64_t seed)
{
    unsigned bits = nr > 2 ? 32u - (unsigned)__builtin_clz(nr - 1) : 1;
    uint64_t mask = (UINT64_C(1) << bits) - 1;
    uint64_t x = index;

    do {
        x = ((x ^ (seed & mask)) * UINT64_C(0x9e3779b97f4a7c15)) & mask;
        x ^= x >> (bits / 2 + 1);
        x = (x * UINT64_C(0xbf58476d1ce4e5b9)) & mask;
        x ^= x >> (bits / 2 + 1);
    } while (x >= nr);
    return (uint32_t)x;
}
