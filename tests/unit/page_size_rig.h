/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of page sizes share: blocks in single pages, passes of the scanner, who is huge. */
#ifndef TESTS_UNIT_PAGE_SIZE_RIG_H
#define TESTS_UNIT_PAGE_SIZE_RIG_H

#include "mm/policy/page_size.h"
#include "mm/reclaim/evict.h"
#include "tests/unit/mm_rig.h"
#include "tests/unit/model_rng.h"

#define SECOND_NS UINT64_C(1000000000)

static inline uint64_t event_of(const struct mm_rig *rig, enum vm_event event)
{
    return counter_read(&rig->host->event[event]);
}

static inline struct block *block_at(const struct mm_rig *rig, unsigned block)
{
    return vm_block(rig->vm, block * BLOCK_PAGES);
}

static inline bool is_huge(const struct mm_rig *rig, unsigned block)
{
    return pmd_read(block_at(rig, block)).state == S2_RESIDENT;
}

/* All pages of the block are in the guest, singly: its 2 MiB frame lost one for a moment. */
static inline void make_single(struct mm_rig *rig, unsigned block, enum content content)
{
    uint64_t dropped;
    gfn_t start = block * BLOCK_PAGES;
    mm_rig_fill(rig, start, start + BLOCK_PAGES, content);
    ck_assert_int_eq(mm_drop(rig->thread[0], rig->vm, gpa_of(start), PAGE_BYTES, MM_DROP_FREE, 0, &dropped), 0);
    ck_assert(!mm_rig_write(rig, 0, start, content));
    ck_assert_uint_eq(pmd_read(block_at(rig, block)).state, S2_TABLE);
}

/* One whole pass over all blocks. */
static inline void scan_pass(struct mm_rig *rig)
{
    uint64_t passes = event_of(rig, EV_khugepaged_full_scans);
    while (event_of(rig, EV_khugepaged_full_scans) == passes) {
        fake_host_advance_ns(rig->fh, 100 * SECOND_NS);
        ck_assert_uint_gt(collapse_scan(rig->thread[0]), 0);
    }
}

/* As many passes as a block needs that is fit for it. */
static inline void scan_twice(struct mm_rig *rig)
{
    scan_pass(rig);
    scan_pass(rig);
}

static inline void verify_pages(struct mm_rig *rig, gfn_t start, gfn_t end)
{
    for (gfn_t gfn = start; gfn < end; gfn++)
        mm_rig_verify(rig, 0, gfn);
}

/* Eighths of what a block may have outside the guest: where each kind of page of a scattered block begins, and how many. */
#define SCATTER_NR 12u
enum { IN_ZRAM = 100, IN_SWAP = 200, AT_HOME = 300, GIVEN_ZEROS = 400, GIVEN_WORDS = 440 };
#define SCATTER_WORD 0x5aa55aa5u

static inline bool in_part(unsigned index, unsigned part)
{
    return index >= part && index < part + SCATTER_NR;
}

/*
 * A block in single pages of which SCATTER_NR pages each are stored in zram and in swap, at home as standby, dropped, and
 * dropped with a word. For hosts with readahead_pages 1, room for the block in zram, and a swap area.
 */
static inline void scatter(struct mm_rig *rig, unsigned block)
{
    gfn_t start = block * BLOCK_PAGES;
    uint64_t dropped;
    make_single(rig, block, TEXT);
    mm_rig_fill(rig, start + IN_SWAP, start + IN_SWAP + SCATTER_NR, RANDOM);
    ck_assert_uint_ge(mm_reclaim(rig->thread[0], rig->vm, BLOCK_PAGES, true), BLOCK_PAGES);
    for (unsigned i = 0; i < BLOCK_PAGES; i++)
        if (!in_part(i, IN_ZRAM) && !in_part(i, IN_SWAP))
            mm_rig_verify(rig, 0, start + i);
    ck_assert_uint_ge(mm_reclaim(rig->thread[0], rig->vm, BLOCK_PAGES - 2 * SCATTER_NR, false),
                      BLOCK_PAGES - 2 * SCATTER_NR);
    for (unsigned i = 0; i < BLOCK_PAGES; i++)
        if (!in_part(i, IN_ZRAM) && !in_part(i, IN_SWAP) && !in_part(i, AT_HOME))
            mm_rig_verify(rig, 0, start + i);
    ck_assert(!mm_drop(rig->thread[0], rig->vm, gpa_of(start + GIVEN_ZEROS), SCATTER_NR * PAGE_BYTES, MM_DROP_FREE, 0,
                       &dropped));
    memset(rig->content + start + GIVEN_ZEROS, NOTHING, SCATTER_NR);
    ck_assert(!mm_drop(rig->thread[0], rig->vm, gpa_of(start + GIVEN_WORDS), SCATTER_NR * PAGE_BYTES, MM_DROP_FREE,
                       SCATTER_WORD, &dropped));
}

/* Every page of a scattered block holds what it should. */
static inline void verify_scattered(struct mm_rig *rig, unsigned block)
{
    for (unsigned i = 0; i < BLOCK_PAGES; i++) {
        gfn_t gfn = block * BLOCK_PAGES + i;
        uint32_t words[PAGE_BYTES / 4];
        if (!in_part(i, GIVEN_WORDS)) {
            mm_rig_verify(rig, 0, gfn);
            continue;
        }
        do
            ck_assert(!mm_rig_touch(rig, 0, gfn));
        while (fake_host_guest_read(rig->fh, mm_vm_id(rig->vm), gfn, 0, words, sizeof(words)));
        for (unsigned k = 0; k < ARRAY_LEN(words); k++)
            ck_assert_uint_eq(words[k], SCATTER_WORD);
    }
}

/* Pages of the block by state. */
static inline void count_states(const struct mm_rig *rig, unsigned block, unsigned pages[S2_TABLE + 1])
{
    memset(pages, 0, (S2_TABLE + 1) * sizeof(pages[0]));
    if (pmd_read(block_at(rig, block)).state != S2_TABLE) {
        pages[pmd_read(block_at(rig, block)).state] = BLOCK_PAGES;
        return;
    }
    for (unsigned i = 0; i < BLOCK_PAGES; i++)
        pages[pte_read(block_at(rig, block), i).state]++;
}

#endif
