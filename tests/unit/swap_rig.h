/* SPDX-License-Identifier: Apache-2.0 */
/* Swap areas over a backend in memory, and pages that are told by a stamp; for tests of mm/swap. */
#ifndef TESTS_UNIT_SWAP_RIG_H
#define TESTS_UNIT_SWAP_RIG_H

#include "mm/swap/area.h"
#include "tests/fake/fake_swap.h"

#include <check.h>

#define PAGE_WORDS (PAGE_BYTES / sizeof(uint64_t))

typedef struct {
    _Alignas(4096) uint64_t word[PAGE_WORDS];
} page_t;

static inline void page_fill(page_t *page, uint64_t stamp)
{
    for (unsigned i = 0; i < PAGE_WORDS; i++)
        page->word[i] = stamp * (i | 1);
}

static inline bool page_is(const page_t *page, uint64_t stamp)
{
    for (unsigned i = 0; i < PAGE_WORDS; i++)
        if (page->word[i] != stamp * (i | 1))
            return false;
    return true;
}

static inline struct swap_set *set_create(void)
{
    struct swap_set *set;
    ck_assert_int_eq(swap_set_create(&set), 0);
    return set;
}

static inline struct fake_swap *add_area(struct swap_set *set, const char *name, uint64_t nr_slots, int priority,
                                         int *area)
{
    struct fake_swap *disk = fake_swap_create(nr_slots);
    ck_assert_ptr_nonnull(disk);
    *area = swap_area_add(set, name, "file", nr_slots, priority, &fake_swap_backend, disk);
    ck_assert_int_ge(*area, 0);
    return disk;
}

static inline void assert_check(struct swap_set *set)
{
    const char *why = "";
    ck_assert_msg(swap_check(set, &why), "%s", why);
}

#endif
