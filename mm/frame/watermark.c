/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The square root keeps the reserve useful for small pools (where it is a larger share) and cheap for large ones.
 * Source of the rule: Linux mm/page_alloc.c, calculate_min_free_kbytes and __setup_per_zone_wmarks; unlike there,
 * a pool so small that high would pass a quarter of it gets smaller marks.
 */
#include "mm/frame/zone.h"

#define KB_PER_PAGE (PAGE_BYTES / 1024)
#define MIN_FREE_LEAST_KB 128
#define MIN_FREE_MOST_KB 262144

/* Largest r with r * r <= value, one bit of r at a time. */
static uint64_t isqrt(uint64_t value)
{
    uint64_t root = 0;
    for (uint64_t bit = UINT64_C(1) << 31; bit; bit >>= 1) {
        if ((root | bit) * (root | bit) <= value)
            root |= bit;
    }
    return root;
}

void watermark_compute(uint32_t managed_pages, uint32_t wmark[NR_WMARK])
{
    uint64_t min_kb = isqrt(16 * KB_PER_PAGE * managed_pages);
    min_kb = MIN_OF(MAX_OF(min_kb, MIN_FREE_LEAST_KB), MIN_FREE_MOST_KB);
    /* high = 6/4 min <= managed / 4 */
    uint32_t min = MIN_OF((uint32_t)(min_kb / KB_PER_PAGE), managed_pages / 6);
    wmark[WMARK_MIN] = min;
    wmark[WMARK_LOW] = min + min / 4;
    wmark[WMARK_HIGH] = min + min / 2;
}

void watermark_set(struct zone *zone, uint32_t managed_pages)
{
    watermark_compute(managed_pages, zone->wmark);
}
