/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory as addresses of this process: the regions of one VM stand one after the other in a single private
 * anonymous mapping, 2 MiB aligned, so that guest address and process address agree modulo 2 MiB.
 *
 *     guest:    [region 0)      [region 1)
 *     process:  [region 0)[region 1)[tail)
 */
#ifndef VMM_GUEST_RANGE_H
#define VMM_GUEST_RANGE_H

#include "mm/mm.h"

struct guest_range {
    char *base;
    uint64_t bytes;      /* of all regions */
    uint64_t tail_bytes; /* mapped behind them, for the owner's use */
    unsigned nr_regions;
    struct mm_region regions[MM_MAX_REGIONS];
};

/* A private anonymous mapping without reserve, 2 MiB aligned, left out of fork and core dumps. NULL: no room. */
void *block_map(uint64_t bytes);
void block_unmap(void *base, uint64_t bytes);

/* @tail_bytes: multiple of PAGE_BYTES. Returns 0, -EINVAL (regions break the rules of struct mm_region), -ENOMEM. */
must_check int guest_range_map(struct guest_range *range, const struct mm_region *regions, unsigned nr,
                               uint64_t tail_bytes);
void guest_range_unmap(struct guest_range *range);

/* Address of [gpa, gpa + bytes); NULL when that is not inside one region. */
void *guest_range_hva(const struct guest_range *range, gpa_t gpa, uint64_t bytes);
/* The other way, for one byte. False: not guest memory. */
bool guest_range_gpa(const struct guest_range *range, const void *hva, gpa_t *out);
/* Bytes of guest memory with a physical page now, from pagemap; 0 where /proc is not readable. */
uint64_t guest_range_resident_bytes(const struct guest_range *range);

#endif
