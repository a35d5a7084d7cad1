/* SPDX-License-Identifier: Apache-2.0 */
#include "devices/balloon/page_set.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define WORD_BITS 64u
#define BLOCK_WORDS (BLOCK_PAGES / WORD_BITS)

int page_set_init(struct page_set *set, const struct guest_mem *mem)
{
    *set = (struct page_set){.mem = mem};
    for (unsigned i = 0; i < mem->nr; i++) {
        set->base[i] = set->nr_blocks * BLOCK_PAGES;
        set->nr_blocks += (mem->region[i].bytes + BLOCK_BYTES - 1) / BLOCK_BYTES;
    }
    /* calloc: pages of it that are never written cost nothing */
    set->bits = calloc(MAX_OF(set->nr_blocks, 1u), BLOCK_WORDS * sizeof(uint64_t));
    set->blocks = calloc(set->nr_blocks / WORD_BITS + 1, sizeof(uint64_t));
    if (set->bits && set->blocks)
        return 0;
    page_set_fini(set);
    return -ENOMEM;
}

void page_set_fini(struct page_set *set)
{
    free(set->bits);
    free(set->blocks);
    *set = (struct page_set){0};
}

/* Region that holds all of it, or mem.nr. */
static unsigned region_of(const struct guest_mem *mem, gpa_t gpa, uint64_t pages)
{
    for (unsigned i = 0; i < mem->nr; i++) {
        const struct guest_mem_region *region = &mem->region[i];
        if (gpa.v >= region->start.v && gpa.v - region->start.v < region->bytes)
            return pages <= (region->bytes - (gpa.v - region->start.v)) >> PAGE_SHIFT ? i : mem->nr;
    }
    return mem->nr;
}

/* A piece of [*bit, *bit + *nr) inside one word: its mask; the range is what is left. */
static uint64_t next_mask(uint64_t *bit, uint64_t *nr)
{
    unsigned shift = (unsigned)(*bit % WORD_BITS);
    unsigned some = (unsigned)MIN_OF(*nr, WORD_BITS - shift);
    *bit += some;
    *nr -= some;
    return (some == WORD_BITS ? UINT64_MAX : (UINT64_C(1) << some) - 1) << shift;
}

static uint64_t bit_of(const struct page_set *set, unsigned region, gpa_t gpa)
{
    return set->base[region] + ((gpa.v - set->mem->region[region].start.v) >> PAGE_SHIFT);
}

int page_set_add(struct page_set *set, gpa_t gpa, uint64_t pages, uint64_t *added)
{
    unsigned i = region_of(set->mem, gpa, pages);
    *added = 0;
    if (i == set->mem->nr)
        return -EFAULT;
    for (uint64_t bit = bit_of(set, i, gpa); pages > 0;) {
        uint64_t *word = &set->bits[bit / WORD_BITS], block = bit / BLOCK_PAGES;
        uint64_t mask = next_mask(&bit, &pages);
        *added += (unsigned)__builtin_popcountll(mask & ~*word);
        *word |= mask;
        set->blocks[block / WORD_BITS] |= UINT64_C(1) << block % WORD_BITS;
    }
    set->nr_pages += *added;
    return 0;
}

void page_set_remove(struct page_set *set, gpa_t gpa, uint64_t pages)
{
    unsigned i = region_of(set->mem, gpa, pages);
    if (i == set->mem->nr || set->nr_pages == 0)
        return;
    for (uint64_t bit = bit_of(set, i, gpa); pages > 0;) {
        uint64_t *word = &set->bits[bit / WORD_BITS];
        uint64_t mask = next_mask(&bit, &pages);
        set->nr_pages -= (unsigned)__builtin_popcountll(mask & *word);
        *word &= ~mask;
    }
}

/* First block >= @block that may have bits, or nr_blocks. */
static uint64_t next_block(const struct page_set *set, uint64_t block)
{
    while (block < set->nr_blocks) {
        uint64_t word = set->blocks[block / WORD_BITS] >> block % WORD_BITS;
        if (word)
            return MIN_OF(block + (unsigned)__builtin_ctzll(word), set->nr_blocks);
        block = (block / WORD_BITS + 1) * WORD_BITS;
    }
    return set->nr_blocks;
}

/* The run that is being put together, in bits. */
struct run {
    uint64_t start, end;
    unsigned region;
    void (*each)(void *ctx, gpa_t gpa, uint64_t bytes);
    void *ctx;
};

static void run_flush(const struct page_set *set, struct run *run)
{
    if (run->end > run->start)
        run->each(
            run->ctx,
            (gpa_t){set->mem->region[run->region].start.v + ((run->start - set->base[run->region]) << PAGE_SHIFT)},
            (run->end - run->start) << PAGE_SHIFT);
    run->start = run->end = 0;
}

static void run_extend(const struct page_set *set, struct run *run, uint64_t start, uint64_t end)
{
    if (run->end == start && run->end > run->start) {
        run->end = end;
        return;
    }
    run_flush(set, run);
    run->start = start;
    run->end = end;
}

static void block_runs(const struct page_set *set, struct run *run, uint64_t block)
{
    for (unsigned i = 0; i < BLOCK_WORDS; i++) {
        uint64_t word = set->bits[block * BLOCK_WORDS + i], bit = block * BLOCK_PAGES + i * WORD_BITS;
        for (unsigned at = 0; at < WORD_BITS && word >> at;) {
            at += (unsigned)__builtin_ctzll(word >> at);
            uint64_t clear = ~(word >> at);
            unsigned nr = clear ? MIN_OF((unsigned)__builtin_ctzll(clear), WORD_BITS - at) : WORD_BITS;
            run_extend(set, run, bit + at, bit + at + nr);
            at += nr;
        }
    }
}

void page_set_for_each(const struct page_set *set, void (*each)(void *ctx, gpa_t gpa, uint64_t bytes), void *ctx)
{
    struct run run = {.each = each, .ctx = ctx};
    for (unsigned i = 0; i < set->mem->nr; i++) {
        uint64_t end = i + 1 < set->mem->nr ? set->base[i + 1] / BLOCK_PAGES : set->nr_blocks;
        run.region = i;
        for (uint64_t block = next_block(set, set->base[i] / BLOCK_PAGES); block < end;
             block = next_block(set, block + 1))
            block_runs(set, &run, block);
        run_flush(set, &run);
    }
}

static bool block_is_full(const struct page_set *set, uint64_t block)
{
    uint64_t all = UINT64_MAX;
    for (unsigned i = 0; i < BLOCK_WORDS; i++)
        all &= set->bits[block * BLOCK_WORDS + i];
    return all == UINT64_MAX;
}

static void block_clear(struct page_set *set, uint64_t block)
{
    memset(&set->bits[block * BLOCK_WORDS], 0, BLOCK_WORDS * sizeof(uint64_t));
    set->blocks[block / WORD_BITS] &= ~(UINT64_C(1) << block % WORD_BITS);
}

void page_set_take_blocks(struct page_set *set, void (*each)(void *ctx, gpa_t gpa, uint64_t bytes), void *ctx)
{
    struct run run = {.each = each, .ctx = ctx};
    for (unsigned i = 0; i < set->mem->nr; i++) {
        uint64_t end = i + 1 < set->mem->nr ? set->base[i + 1] / BLOCK_PAGES : set->nr_blocks;
        run.region = i;
        for (uint64_t block = next_block(set, set->base[i] / BLOCK_PAGES); block < end;
             block = next_block(set, block + 1)) {
            if (!block_is_full(set, block))
                continue;
            run_extend(set, &run, block * BLOCK_PAGES, (block + 1) * BLOCK_PAGES);
            block_clear(set, block);
            set->nr_pages -= BLOCK_PAGES;
        }
        run_flush(set, &run);
    }
}

void page_set_clear(struct page_set *set)
{
    for (uint64_t block = next_block(set, 0); block < set->nr_blocks; block = next_block(set, block + 1))
        block_clear(set, block);
    set->nr_pages = 0;
}
