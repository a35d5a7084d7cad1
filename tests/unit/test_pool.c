/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pool over the fake host. After every step of every test
 *
 *     budget  = uncharged + free filled + stock + filled runs held + charges held      (no page is in a guest here)
 *     filled slots of the fake host = free filled + stock + filled runs held
 */
#include "mm/frame/pool.h"
#include "tests/fake/fake_host.h"
#include "tests/unit/model_rng.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BUDGET 4096u
#define MAX_RUNS 256u

struct run {
    fn_t fn;
    uint32_t nr;
};

struct rig {
    struct fake_host *fh;
    struct pool pool;
    uint64_t events[NR_VM_EVENTS];
    struct frame *frames;
    uint8_t *types;
    /* what the test holds */
    uint32_t charged;
    unsigned nr_filled, nr_empty;
    struct run filled[MAX_RUNS], empty[MAX_RUNS];
};

static struct rig *rig_create(void)
{
    struct rig *rig = calloc(1, sizeof(*rig));
    rig->fh = fake_host_create(pool_nr_slots(BUDGET));
    fake_host_set_budget(rig->fh, BUDGET);
    rig->frames = calloc(pool_nr_slots(BUDGET), sizeof(*rig->frames));
    rig->types = calloc(pool_nr_slots(BUDGET) / BLOCK_PAGES, 1);
    pool_init(&rig->pool, fake_host_ops(rig->fh), rig->fh, fake_host_arena(rig->fh), rig->frames, rig->types, 0, BUDGET,
              rig->events);
    return rig;
}

static void check(struct rig *rig)
{
    const struct pool *pool = &rig->pool;
    const char *why = NULL;
    struct fake_host_stat fake;
    uint32_t held = 0;
    for (unsigned i = 0; i < rig->nr_filled; i++)
        held += rig->filled[i].nr;
    fake_host_stat(rig->fh, &fake);
    ck_assert_msg(pool_check(&rig->pool, &why), "%s", why);
    ck_assert_msg(!fake_host_breach(rig->fh), "%s", fake_host_breach(rig->fh));
    ck_assert_uint_eq(pool_nr_free(pool) + held + rig->charged, BUDGET);
    ck_assert_uint_eq(fake.filled_pages, pool_nr_free(pool) - pool->uncharged + held);
}

static void hold(struct rig *rig, bool filled, fn_t fn, uint32_t nr)
{
    unsigned *count = filled ? &rig->nr_filled : &rig->nr_empty;
    for (uint32_t i = 0; i < nr; i++)
        ck_assert_int_eq(fake_host_is_filled(rig->fh, fn + i), filled);
    ck_assert_uint_lt(*count, MAX_RUNS);
    (filled ? rig->filled : rig->empty)[(*count)++] = (struct run){fn, nr};
}

/* Gives the first @nr pages of run @i back; the rest stays held. */
static void give_back(struct rig *rig, bool filled, unsigned i, uint32_t nr)
{
    unsigned *count = filled ? &rig->nr_filled : &rig->nr_empty;
    struct run *run = &(filled ? rig->filled : rig->empty)[i];
    if (filled)
        pool_free_filled(&rig->pool, run->fn, nr);
    else
        pool_free_empty(&rig->pool, run->fn, nr);
    run->fn += nr;
    run->nr -= nr;
    if (run->nr == 0)
        *run = (filled ? rig->filled : rig->empty)[--*count];
}

static void rig_destroy(struct rig *rig)
{
    struct fake_host_stat fake;
    pool_uncharge(&rig->pool, rig->charged);
    rig->charged = 0;
    while (rig->nr_filled)
        give_back(rig, true, 0, rig->filled[0].nr);
    while (rig->nr_empty)
        give_back(rig, false, 0, rig->empty[0].nr);
    check(rig);
    ck_assert_uint_eq(pool_nr_free(&rig->pool), BUDGET);
    pool_fini(&rig->pool);
    free(rig->frames);
    free(rig->types);
    fake_host_stat(rig->fh, &fake);
    ck_assert_uint_eq(fake.filled_pages, 0);
    fake_host_destroy(rig->fh);
    free(rig);
}

static int charge(struct rig *rig, uint32_t nr)
{
    int err = pool_charge(&rig->pool, nr);
    rig->charged += err ? 0 : nr;
    check(rig);
    return err;
}

static int alloc_type(struct rig *rig, unsigned order, enum migratetype type, bool may_populate)
{
    fn_t fn;
    int err = pool_alloc_filled(&rig->pool, order, type, may_populate, &fn);
    if (!err)
        hold(rig, true, fn, 1u << order);
    check(rig);
    return err;
}

static int alloc_filled(struct rig *rig, unsigned order, bool may_populate)
{
    return alloc_type(rig, order, MIGRATE_MOVABLE, may_populate);
}

/* Is the run that was taken last in zone Huge? */
static bool last_is_in_huge(const struct rig *rig)
{
    return rig->filled[rig->nr_filled - 1].fn < rig->pool.zones[POOL_NORMAL].start_fn;
}

static int alloc_block(struct rig *rig, bool may_populate)
{
    fn_t fn;
    int err = pool_alloc_block(&rig->pool, may_populate, &fn);
    if (!err) {
        static const char zeros[PAGE_BYTES];
        hold(rig, true, fn, BLOCK_PAGES);
        ck_assert_uint_eq(fn % BLOCK_PAGES, 0);
        for (unsigned i = 0; i < BLOCK_PAGES; i += 73)
            ck_assert_int_eq(memcmp(pool_page(&rig->pool, fn + i), zeros, PAGE_BYTES), 0);
    }
    check(rig);
    return err;
}

static uint32_t alloc_empty(struct rig *rig, uint32_t nr)
{
    fn_t fn;
    uint32_t got = 0;
    if (!pool_alloc_empty(&rig->pool, nr, &fn, &got)) {
        ck_assert_uint_ge(got, 1);
        ck_assert_uint_le(got, nr);
        hold(rig, false, fn, got);
    }
    check(rig);
    return got;
}

/* All of the budget is filled, in single pages of Normal, every other one free: no two free ones are neighbours. */
static void fragment(struct rig *rig)
{
    fn_t odd[BUDGET / 2];
    unsigned nr_odd = 0;
    for (uint32_t done = 0; done < BUDGET; done += 16) {
        fn_t fn;
        ck_assert_int_eq(pool_alloc_filled(&rig->pool, 4, MIGRATE_MOVABLE, true, &fn), 0);
        for (fn_t i = 1; i < 16; i += 2)
            odd[nr_odd++] = fn + i;
        hold(rig, true, fn, 16);
    }
    for (unsigned i = 0; i < nr_odd; i++)
        pool_free_filled(&rig->pool, odd[i], 1);
}

/* What fragment() left held: the even pages of each run. */
static void defragment(struct rig *rig)
{
    while (rig->nr_filled) {
        struct run run = rig->filled[--rig->nr_filled];
        for (fn_t i = 0; i < 16; i += 2)
            pool_free_filled(&rig->pool, run.fn + i, 1);
    }
}

/* ---- */

START_TEST(test_pool_created_all_uncharged_and_empty)
{
    struct rig *rig = rig_create();
    check(rig);
    ck_assert_uint_eq(pool_nr_free(&rig->pool), BUDGET);
    ck_assert_uint_ge(rig->pool.nr_slots, 2 * BUDGET);
    ck_assert_uint_gt(rig->pool.wmark[WMARK_MIN], 0);
    ck_assert_uint_lt(rig->pool.wmark[WMARK_MIN], rig->pool.wmark[WMARK_LOW]);
    ck_assert_uint_lt(rig->pool.wmark[WMARK_LOW], rig->pool.wmark[WMARK_HIGH]);
    rig_destroy(rig);
}
END_TEST

START_TEST(test_pool_slots_for_the_largest_budget_are_a_number)
{
    const uint32_t budget = UINT32_MAX / 4;
    ck_assert_uint_gt(pool_nr_slots(budget), 2 * budget);
    ck_assert_uint_lt(pool_nr_slots(budget), FN_NONE);
}
END_TEST

START_TEST(test_pool_charge_to_the_last_page_and_no_more)
{
    struct rig *rig = rig_create();
    ck_assert_int_eq(charge(rig, BUDGET - 1), 0);
    ck_assert_int_eq(charge(rig, 2), -ENOMEM);
    ck_assert_int_eq(charge(rig, 1), 0);
    ck_assert_int_eq(charge(rig, 1), -ENOMEM);
    ck_assert_int_eq(charge(rig, 0), 0);
    rig_destroy(rig);
}
END_TEST

START_TEST(test_pool_charge_gives_free_filled_pages_back_to_the_kernel)
{
    struct rig *rig = rig_create();
    for (unsigned i = 0; i < 100; i++)
        ck_assert_int_eq(alloc_filled(rig, 0, true), 0);
    for (unsigned i = 0; i < 50; i++)
        give_back(rig, true, rig->nr_filled - 1, 1);
    ck_assert_int_eq(charge(rig, BUDGET - 50), 0);
    ck_assert_uint_eq(rig->events[EV_pool_release], 50);
    ck_assert_int_eq(charge(rig, 1), -ENOMEM);
    rig_destroy(rig);
}
END_TEST

START_TEST(test_pool_charge_takes_the_stock_and_then_parts_of_huge_pages)
{
    struct rig *rig = rig_create();
    ck_assert_int_eq(pool_stock_one(&rig->pool), 0);
    ck_assert_int_eq(pool_stock_one(&rig->pool), 0);
    check(rig);
    ck_assert_int_eq(alloc_block(rig, false), 0);
    give_back(rig, true, 0, 100);
    check(rig);
    ck_assert_int_eq(charge(rig, BUDGET - BLOCK_PAGES + 100), 0);
    ck_assert_uint_eq(rig->pool.nr_stock, 0);
    ck_assert_int_eq(charge(rig, 1), -ENOMEM);
    rig_destroy(rig);
}
END_TEST

START_TEST(test_pool_empty_run_of_every_length)
{
    struct rig *rig = rig_create();
    for (uint32_t nr = 1; nr <= BLOCK_PAGES; nr++) {
        ck_assert_uint_eq(alloc_empty(rig, nr), nr);
        if (nr % 3) {
            give_back(rig, false, 0, rig->empty[0].nr);
            check(rig);
        } else {
            /* in two parts, as holes and pages are */
            give_back(rig, false, 0, 1 + nr / 3);
            check(rig);
            give_back(rig, false, 0, rig->empty[0].nr);
            check(rig);
        }
    }
    rig_destroy(rig);
}
END_TEST

START_TEST(test_pool_empty_run_in_fragments_is_the_longest_there_is)
{
    struct rig *rig = rig_create();
    unsigned nr_runs = rig->pool.zones[POOL_NORMAL].nr_frames / 64;
    for (unsigned i = 0; i < nr_runs; i++)
        ck_assert_uint_eq(alloc_empty(rig, 64), 64);
    ck_assert_uint_eq(alloc_empty(rig, 1), 0);
    for (unsigned i = 0; i < nr_runs; i++)
        give_back(rig, false, i, 3);
    check(rig);
    for (unsigned i = 0; i < nr_runs; i++)
        ck_assert_uint_eq(alloc_empty(rig, BLOCK_PAGES), 2);
    for (unsigned i = 0; i < nr_runs; i++)
        ck_assert_uint_eq(alloc_empty(rig, 2), 1);
    ck_assert_uint_eq(alloc_empty(rig, 2), 0);
    rig_destroy(rig);
}
END_TEST

START_TEST(test_pool_filled_page_without_populate_only_from_what_is_there)
{
    struct rig *rig = rig_create();
    ck_assert_int_eq(alloc_filled(rig, 0, false), -ENOMEM);
    ck_assert_int_eq(alloc_filled(rig, 2, true), 0);
    give_back(rig, true, 0, 4);
    ck_assert_int_eq(alloc_filled(rig, 2, false), 0);
    ck_assert_int_eq(alloc_filled(rig, 0, false), -ENOMEM);
    /* a huge page that is free serves as well */
    ck_assert_int_eq(alloc_block(rig, true), 0);
    give_back(rig, true, 1, BLOCK_PAGES);
    ck_assert_int_eq(alloc_filled(rig, 0, false), 0);
    rig_destroy(rig);
}
END_TEST

START_TEST(test_pool_run_in_fragments_costs_as_many_single_pages)
{
    struct rig *rig = rig_create();
    fragment(rig);
    ck_assert_uint_eq(pool_nr_free(&rig->pool), BUDGET / 2);
    fn_t fn;
    ck_assert_int_eq(pool_alloc_run(&rig->pool, 2, &fn), -ENOMEM);
    ck_assert_int_eq(pool_alloc_filled(&rig->pool, 2, MIGRATE_MOVABLE, false, &fn), -ENOMEM);
    ck_assert_int_eq(pool_alloc_filled(&rig->pool, 2, MIGRATE_MOVABLE, true, &fn), 0);
    ck_assert_uint_eq(pool_nr_free(&rig->pool), BUDGET / 2 - 4);
    for (unsigned i = 0; i < 4; i++)
        ck_assert(fake_host_is_filled(rig->fh, fn + i));
    pool_free_filled(&rig->pool, fn, 4);
    defragment(rig);
    rig_destroy(rig);
}
END_TEST

START_TEST(test_pool_run_never_from_a_huge_page)
{
    struct rig *rig = rig_create();
    fn_t fn;
    ck_assert_int_eq(alloc_block(rig, true), 0);
    give_back(rig, true, 0, BLOCK_PAGES);
    ck_assert_int_eq(pool_alloc_run(&rig->pool, 0, &fn), -ENOMEM);
    ck_assert_int_eq(alloc_filled(rig, 4, true), 0);
    give_back(rig, true, 0, 16);
    ck_assert_int_eq(pool_alloc_run(&rig->pool, 3, &fn), 0);
    hold(rig, true, fn, 8);
    check(rig);
    rig_destroy(rig);
}
END_TEST

/* Pages of a store and pages that can be moved, asked for in turn: none of either in a pageblock of the other. */
START_TEST(test_pool_types_do_not_share_pageblocks)
{
    struct rig *rig = rig_create();
    fn_t fn[2][100];
    for (unsigned i = 0; i < 100; i++) {
        ck_assert_int_eq(pool_alloc_filled(&rig->pool, 0, MIGRATE_RECLAIMABLE, true, &fn[0][i]), 0);
        ck_assert_int_eq(pool_alloc_filled(&rig->pool, 0, MIGRATE_MOVABLE, true, &fn[1][i]), 0);
    }
    for (unsigned i = 0; i < 100; i++) {
        const struct zone *normal = &rig->pool.zones[POOL_NORMAL];
        ck_assert_int_eq(get_pageblock_migratetype(normal, fn[0][i]), MIGRATE_RECLAIMABLE);
        ck_assert_int_eq(get_pageblock_migratetype(normal, fn[1][i]), MIGRATE_MOVABLE);
        pool_free_filled(&rig->pool, fn[0][i], 1);
        pool_free_filled(&rig->pool, fn[1][i], 1);
    }
    rig_destroy(rig);
}
END_TEST

/* The budget is in 2 MiB frames, but for one that is broken: a half of it and two pages more are free. */
static struct rig *rig_of_huge_pages(void)
{
    struct rig *rig = rig_create();
    while (!alloc_block(rig, true))
        continue;
    struct run last = rig->filled[rig->nr_filled - 1];
    zone_split(&rig->pool.zones[POOL_HUGE], last.fn, BLOCK_ORDER);
    give_back(rig, true, rig->nr_filled - 1, BLOCK_PAGES / 2);
    rig->filled[rig->nr_filled - 1] = (struct run){last.fn + BLOCK_PAGES / 2 + 2, BLOCK_PAGES / 2 - 2};
    pool_free_filled(&rig->pool, last.fn + BLOCK_PAGES / 2, 2);
    check(rig);
    ck_assert_uint_eq(pool_nr_free(&rig->pool), BLOCK_PAGES / 2 + 2);
    return rig;
}

START_TEST(test_pool_page_that_cannot_be_moved_stays_out_of_zone_huge)
{
    struct rig *rig = rig_of_huge_pages();
    ck_assert_int_eq(alloc_type(rig, 2, MIGRATE_RECLAIMABLE, true), 0);
    ck_assert(!last_is_in_huge(rig));
    ck_assert_int_eq(alloc_type(rig, 0, MIGRATE_UNMOVABLE, true), 0);
    ck_assert(!last_is_in_huge(rig));
    /* down to the last two, which are free in zone Huge as the others were */
    while (pool_nr_free(&rig->pool) > 2) {
        ck_assert_int_eq(alloc_type(rig, pool_nr_free(&rig->pool) > 5 ? 2 : 0, MIGRATE_RECLAIMABLE, true), 0);
        ck_assert(!last_is_in_huge(rig));
    }
    ck_assert_int_eq(alloc_type(rig, 0, MIGRATE_MOVABLE, true), 0);
    ck_assert(last_is_in_huge(rig));
    ck_assert_int_eq(alloc_type(rig, 0, MIGRATE_RECLAIMABLE, true), 0);
    ck_assert(!last_is_in_huge(rig));
    ck_assert_int_eq(alloc_type(rig, 0, MIGRATE_RECLAIMABLE, true), -ENOMEM);
    rig_destroy(rig);
}
END_TEST

/* The first page of a store for which there was no room took all zeroed frames, beside parts of broken ones that were free. */
START_TEST(test_pool_page_that_cannot_be_moved_takes_parts_of_broken_frames_before_the_stock)
{
    struct rig *rig = rig_create();
    ck_assert_int_eq(alloc_block(rig, true), 0);
    give_back(rig, true, 0, 100);
    ck_assert_int_eq(pool_stock_one(&rig->pool), 0);
    ck_assert_int_eq(pool_stock_one(&rig->pool), 0);
    ck_assert_int_eq(charge(rig, BUDGET - 3 * BLOCK_PAGES), 0);
    for (unsigned i = 0; i < 100; i++) {
        ck_assert_int_eq(alloc_type(rig, 0, MIGRATE_RECLAIMABLE, true), 0);
        ck_assert(!last_is_in_huge(rig));
        ck_assert_uint_eq(rig->pool.nr_stock, 2);
    }
    ck_assert_int_eq(alloc_type(rig, 0, MIGRATE_RECLAIMABLE, true), 0);
    ck_assert(!last_is_in_huge(rig));
    ck_assert_uint_lt(rig->pool.nr_stock, 2);
    rig_destroy(rig);
}
END_TEST

START_TEST(test_pool_page_that_cannot_be_moved_is_in_zone_huge_rather_than_nowhere)
{
    struct rig *rig = rig_of_huge_pages();
    ck_assert_int_eq(alloc_type(rig, 0, MIGRATE_RECLAIMABLE, false), 0);
    ck_assert(last_is_in_huge(rig));
    give_back(rig, true, rig->nr_filled - 1, 1);
    fake_host_fail(rig->fh, &(struct fake_failure){.op = FAKE_POPULATE, .nth = 1, .err = ENOMEM});
    ck_assert_int_eq(alloc_type(rig, 0, MIGRATE_RECLAIMABLE, true), 0);
    ck_assert(last_is_in_huge(rig));
    rig_destroy(rig);
}
END_TEST

START_TEST(test_pool_prefill_makes_pages_ready)
{
    struct rig *rig = rig_create();
    ck_assert_int_eq(pool_prefill(&rig->pool, 20), 0);
    check(rig);
    for (unsigned i = 0; i < 20; i++)
        ck_assert_int_eq(alloc_filled(rig, 0, false), 0);
    rig_destroy(rig);
}
END_TEST

START_TEST(test_pool_prefill_to_the_last_page_and_no_more)
{
    struct rig *rig = rig_create();
    ck_assert_int_eq(charge(rig, BUDGET - 3), 0);
    ck_assert_int_eq(pool_prefill(&rig->pool, 3), 0);
    check(rig);
    ck_assert_int_eq(pool_prefill(&rig->pool, 4), -ENOMEM);
    check(rig);
    rig_destroy(rig);
}
END_TEST

START_TEST(test_pool_prefill_from_the_stock_when_nothing_else_is_free)
{
    struct rig *rig = rig_create();
    ck_assert_int_eq(pool_stock_one(&rig->pool), 0);
    ck_assert_int_eq(charge(rig, BUDGET - BLOCK_PAGES), 0);
    ck_assert_int_eq(pool_prefill(&rig->pool, 4), 0);
    check(rig);
    for (unsigned i = 0; i < 4; i++)
        ck_assert_int_eq(alloc_filled(rig, 0, false), 0);
    rig_destroy(rig);
}
END_TEST

START_TEST(test_pool_block_from_the_stock_first)
{
    struct rig *rig = rig_create();
    ck_assert_int_eq(alloc_block(rig, false), -ENOMEM);
    ck_assert_int_eq(pool_stock_one(&rig->pool), 0);
    check(rig);
    ck_assert_int_eq(alloc_block(rig, false), 0);
    ck_assert_uint_eq(rig->pool.nr_stock, 0);
    for (unsigned i = 1; i < BUDGET / BLOCK_PAGES; i++)
        ck_assert_int_eq(alloc_block(rig, true), 0);
    ck_assert_int_eq(alloc_block(rig, true), -ENOMEM);
    ck_assert_int_eq(pool_stock_one(&rig->pool), -ENOMEM);
    check(rig);
    rig_destroy(rig);
}
END_TEST

START_TEST(test_pool_block_drained_in_parts_is_whole_again)
{
    struct rig *rig = rig_create();
    ck_assert_int_eq(alloc_block(rig, true), 0);
    zone_split(&rig->pool.zones[POOL_HUGE], rig->filled[0].fn, BLOCK_ORDER);
    for (unsigned i = 0; i < BLOCK_PAGES; i += 8) {
        give_back(rig, true, 0, 8);
        check(rig);
    }
    ck_assert_uint_eq(pool_trim(&rig->pool, 1), BLOCK_PAGES);
    check(rig);
    rig_destroy(rig);
}
END_TEST

START_TEST(test_pool_trim_leaves_short_runs)
{
    struct rig *rig = rig_create();
    fragment(rig);
    ck_assert_uint_eq(pool_trim(&rig->pool, BUDGET), 0);
    defragment(rig);
    check(rig);
    ck_assert_uint_ge(pool_trim(&rig->pool, 100), 100);
    check(rig);
    ck_assert_uint_gt(pool_trim(&rig->pool, BUDGET), 0);
    check(rig);
    ck_assert_uint_eq(pool_trim(&rig->pool, BUDGET), 0);
    ck_assert_uint_eq(rig->pool.uncharged, BUDGET);
    rig_destroy(rig);
}
END_TEST

START_TEST(test_pool_trim_leaves_the_stock)
{
    struct rig *rig = rig_create();
    ck_assert_int_eq(pool_stock_one(&rig->pool), 0);
    ck_assert_uint_eq(pool_trim(&rig->pool, BUDGET), 0);
    ck_assert_uint_eq(rig->pool.nr_stock, 1);
    pool_drain_stock(&rig->pool, 0);
    check(rig);
    ck_assert_uint_eq(pool_trim(&rig->pool, BUDGET), BLOCK_PAGES);
    rig_destroy(rig);
}
END_TEST

START_TEST(test_pool_populate_fails_and_nothing_changed)
{
    struct rig *rig = rig_create();
    struct fake_failure failure = {.op = FAKE_POPULATE, .nth = 1, .err = ENOMEM};
    fake_host_fail(rig->fh, &failure);
    ck_assert_int_eq(alloc_block(rig, true), -ENOMEM);
    fake_host_fail(rig->fh, &failure);
    ck_assert_int_eq(pool_stock_one(&rig->pool), -ENOMEM);
    check(rig);
    ck_assert_uint_eq(rig->pool.uncharged, BUDGET);
    /* one failure is not the end: prefill tries with less, a run once more */
    fake_host_fail(rig->fh, &failure);
    ck_assert_int_eq(pool_prefill(&rig->pool, 4), 0);
    check(rig);
    fake_host_fail(rig->fh, &failure);
    ck_assert_int_eq(alloc_filled(rig, 4, true), 0);
    rig_destroy(rig);
}
END_TEST

START_TEST(test_pool_check_sees_damage)
{
    struct rig *rig = rig_create();
    const char *why;
    ck_assert_int_eq(pool_stock_one(&rig->pool), 0);
    rig->pool.nr_stock++;
    ck_assert(!pool_check(&rig->pool, &why));
    rig->pool.nr_stock--;
    rig->pool.uncharged += BUDGET;
    ck_assert(!pool_check(&rig->pool, &why));
    rig->pool.uncharged -= BUDGET;
    rig->pool.zones[POOL_NORMAL].nr_free[PLANE_EMPTY]++;
    ck_assert(!pool_check(&rig->pool, &why));
    rig->pool.zones[POOL_NORMAL].nr_free[PLANE_EMPTY]--;
    rig_destroy(rig);
}
END_TEST

/* ---- random operations ---- */

static void random_alloc(struct rig *rig, struct rng *rng)
{
    fn_t fn;
    unsigned order = rng_below(rng, 6);
    if (rig->nr_filled + 4 > MAX_RUNS || rig->nr_empty + 4 > MAX_RUNS)
        return;
    switch (rng_below(rng, 6)) {
    case 0:
        if (!pool_alloc_run(&rig->pool, order, &fn))
            hold(rig, true, fn, 1u << order);
        break;
    case 1:
        if (alloc_block(rig, rng_below(rng, 2)) == 0 && rng_below(rng, 2))
            zone_split(&rig->pool.zones[POOL_HUGE], rig->filled[rig->nr_filled - 1].fn, BLOCK_ORDER);
        break;
    case 2:
        alloc_empty(rig, 1 + rng_below(rng, BLOCK_PAGES));
        break;
    default: {
        /* small runs can always be had while so many pages are free in all */
        uint32_t free_pages = pool_nr_free(&rig->pool) - rig->pool.nr_stock * BLOCK_PAGES;
        int err = alloc_type(rig, order, (enum migratetype)rng_below(rng, MIGRATE_PCPTYPES), true);
        ck_assert(!err || err == -ENOMEM);
        if (order <= 3 && free_pages >= 1u << order)
            ck_assert_msg(!err || fake_host_failed(rig->fh), "order %u, %u pages free", order, free_pages);
    }
    }
}

static void random_step(struct rig *rig, struct rng *rng)
{
    uint32_t nr;
    switch (rng_below(rng, 10)) {
    case 0:
        nr = rng_below(rng, 600);
        bool fits = nr <= pool_nr_free(&rig->pool);
        ck_assert_int_eq(charge(rig, nr), fits ? 0 : -ENOMEM);
        break;
    case 1:
        nr = rng_below(rng, rig->charged + 1);
        pool_uncharge(&rig->pool, nr);
        rig->charged -= nr;
        break;
    case 2:
        pool_trim(&rig->pool, rng_below(rng, 1000));
        break;
    case 3:
        nr = rng_below(rng, 40);
        fits = nr <= pool_nr_free(&rig->pool);
        int err = pool_prefill(&rig->pool, nr);
        ck_assert(err == -ENOMEM ? !fits || fake_host_failed(rig->fh) : fits);
        break;
    case 4:
        if (rng_below(rng, 4) == 0)
            pool_drain_stock(&rig->pool, 0);
        else if (pool_stock_one(&rig->pool) == 0)
            ck_assert_uint_gt(rig->pool.nr_stock, 0);
        break;
    case 5:
    case 6: {
        bool filled = rng_below(rng, 2);
        unsigned count = filled ? rig->nr_filled : rig->nr_empty;
        if (count == 0)
            break;
        unsigned i = rng_below(rng, count);
        nr = (filled ? rig->filled : rig->empty)[i].nr;
        give_back(rig, filled, i, rng_below(rng, 2) ? nr : 1 + rng_below(rng, nr));
        break;
    }
    default:
        random_alloc(rig, rng);
    }
    check(rig);
}

static void random_run(uint64_t seed, bool failures)
{
    struct rig *rig = rig_create();
    struct rng rng = {seed};
    for (unsigned step = 0; step < 2000; step++) {
        if (failures && step % 4 == 0)
            fake_host_fail(rig->fh, &(struct fake_failure){
                                        .op = FAKE_POPULATE, .nth = 1 + (long)rng_below(&rng, 3), .err = ENOMEM});
        random_step(rig, &rng);
    }
    rig_destroy(rig);
}

START_TEST(test_pool_model_random_operations_no_page_lost)
{
    random_run((uint64_t)_i + 1, false);
}
END_TEST

START_TEST(test_pool_model_failing_populate_loses_nothing)
{
    random_run((uint64_t)_i + 50, true);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("pool");
    TCase *cases = tcase_create("cases");
    tcase_set_timeout(cases, 60);
    tcase_add_test(cases, test_pool_created_all_uncharged_and_empty);
    tcase_add_test(cases, test_pool_slots_for_the_largest_budget_are_a_number);
    tcase_add_test(cases, test_pool_charge_to_the_last_page_and_no_more);
    tcase_add_test(cases, test_pool_charge_gives_free_filled_pages_back_to_the_kernel);
    tcase_add_test(cases, test_pool_charge_takes_the_stock_and_then_parts_of_huge_pages);
    tcase_add_test(cases, test_pool_empty_run_of_every_length);
    tcase_add_test(cases, test_pool_empty_run_in_fragments_is_the_longest_there_is);
    tcase_add_test(cases, test_pool_filled_page_without_populate_only_from_what_is_there);
    tcase_add_test(cases, test_pool_run_in_fragments_costs_as_many_single_pages);
    tcase_add_test(cases, test_pool_run_never_from_a_huge_page);
    tcase_add_test(cases, test_pool_types_do_not_share_pageblocks);
    tcase_add_test(cases, test_pool_page_that_cannot_be_moved_stays_out_of_zone_huge);
    tcase_add_test(cases, test_pool_page_that_cannot_be_moved_is_in_zone_huge_rather_than_nowhere);
    tcase_add_test(cases, test_pool_page_that_cannot_be_moved_takes_parts_of_broken_frames_before_the_stock);
    tcase_add_test(cases, test_pool_prefill_makes_pages_ready);
    tcase_add_test(cases, test_pool_prefill_to_the_last_page_and_no_more);
    tcase_add_test(cases, test_pool_prefill_from_the_stock_when_nothing_else_is_free);
    tcase_add_test(cases, test_pool_block_from_the_stock_first);
    tcase_add_test(cases, test_pool_block_drained_in_parts_is_whole_again);
    tcase_add_test(cases, test_pool_trim_leaves_short_runs);
    tcase_add_test(cases, test_pool_trim_leaves_the_stock);
    tcase_add_test(cases, test_pool_populate_fails_and_nothing_changed);
    tcase_add_test(cases, test_pool_check_sees_damage);
    suite_add_tcase(suite, cases);
    TCase *model = tcase_create("model");
    tcase_set_timeout(model, 120);
    tcase_add_loop_test(model, test_pool_model_random_operations_no_page_lost, 0, 4);
    tcase_add_loop_test(model, test_pool_model_failing_populate_loses_nothing, 0, 4);
    suite_add_tcase(suite, model);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
