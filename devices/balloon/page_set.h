/* SPDX-License-Identifier: Apache-2.0 */
/*
 * page_set: a set of guest pages, one bit a page, that is read out as runs of neighbours. Balloon requests are collected
 * in one, so that what the guest sends in any order and in many buffers leaves in as few host operations as it can.
 *
 * The size is that of guest memory, whatever the guest sends. A second bitmap says which blocks of 512 bits are in use:
 * reading out and emptying cost what was added, not what there could be. No lock: the owner's.
 */
#ifndef DEVICES_BALLOON_PAGE_SET_H
#define DEVICES_BALLOON_PAGE_SET_H

#include "mm/map/guest_mem.h"

struct page_set {
    const struct guest_mem *mem;          /* regions start and end at pages */
    uint64_t base[GUEST_MEM_MAX_REGIONS]; /* bit of each region's first page: a multiple of 512 */
    uint64_t nr_blocks;                   /* groups of 512 bits */
    uint64_t *bits;                       /* 8 words a block */
    uint64_t *blocks;                     /* one bit a block: it may have bits */
    uint64_t nr_pages;                    /* in the set */
};

/* Empty. @mem outlives it. 0 or -ENOMEM, with nothing left. */
must_check int page_set_init(struct page_set *set, const struct guest_mem *mem);
/* Also after a failed page_set_init, and twice. */
void page_set_fini(struct page_set *set);
/*
 * Adds the pages [gpa, gpa + pages * PAGE_BYTES), @gpa a multiple of PAGE_BYTES. *added: those that were not there.
 * 0, or -EFAULT with nothing added: not inside one region.
 */
must_check int page_set_add(struct page_set *set, gpa_t gpa, uint64_t pages, uint64_t *added);
/* Each run of neighbours once, as long as it is inside one region, in rising order. @each does not change the set. */
void page_set_for_each(const struct page_set *set, void (*each)(void *ctx, gpa_t gpa, uint64_t bytes), void *ctx);
/* The same for runs of whole blocks (512 pages from the region's start on) alone, which leave the set. */
void page_set_take_blocks(struct page_set *set, void (*each)(void *ctx, gpa_t gpa, uint64_t bytes), void *ctx);
/* Takes pages out; those that are not there, or not in a region, do not matter. */
void page_set_remove(struct page_set *set, gpa_t gpa, uint64_t pages);
void page_set_clear(struct page_set *set);

#endif
