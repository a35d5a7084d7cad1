/* SPDX-License-Identifier: Apache-2.0 */
/* Migrate types: single operations, what traps, what zone_check sees. test_zone_types_model.c has the random ones. */
#include <check.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "mm/frame/zone.h"

#define MAX_PAGES (1u << MAX_ORDER)
#define NR_FRAMES (4 * MAX_PAGES)
#define NR_PAGEBLOCKS (NR_FRAMES / BLOCK_PAGES)

static struct frame frames[NR_FRAMES], frames_before[NR_FRAMES];
static uint8_t types[NR_PAGEBLOCKS], types_before[NR_PAGEBLOCKS];
static struct zone zone, zone_before;

static void make(fn_t start, uint32_t nr)
{
    memset(frames, 0xff, sizeof(frames));
    memset(types, 0xff, sizeof(types));
    zone_init(&zone, "Test", frames, types, start, nr, PLANE_FILLED);
}

static void teardown(void)
{
    zone_fini(&zone);
}

static void check(void)
{
    const char *why = NULL;
    bool ok = zone_check(&zone, &why);
    ck_assert_msg(ok, "%s", why);
}

static fn_t alloc(unsigned order, enum migratetype type)
{
    fn_t fn = FN_NONE;
    ck_assert_int_eq(zone_alloc_type(&zone, order, PLANE_FILLED, type, &fn), 0);
    check();
    return fn;
}

static uint32_t nr_blocks(unsigned order, enum migratetype type)
{
    struct zone_types stat;
    zone_types(&zone, &stat);
    return stat.nr_blocks[PLANE_FILLED][type][order];
}

static uint32_t nr_pageblocks(enum migratetype type)
{
    struct zone_types stat;
    zone_types(&zone, &stat);
    return stat.nr_pageblocks[type];
}

/* Every page of the first @nr pageblocks is given out singly, as something that nobody knows to be movable. */
static void take_all(uint32_t nr)
{
    fn_t fn;
    for (uint32_t i = 0; i < nr * BLOCK_PAGES; i++)
        ck_assert_int_eq(zone_alloc(&zone, 0, PLANE_FILLED, &fn), 0);
}

START_TEST(test_zone_types_at_first_all_is_movable)
{
    make(100, 3000);
    check();
    ck_assert_uint_eq(nr_pageblocks(MIGRATE_MOVABLE), 7); /* [0, 512) .. [3072, 3584): two are parts */
    ck_assert_uint_eq(get_pageblock_migratetype(&zone, 100), MIGRATE_MOVABLE);
    ck_assert_uint_eq(get_pageblock_migratetype(&zone, 3099), MIGRATE_MOVABLE);
    ck_assert_uint_eq(types[7], 0xff);
}
END_TEST

START_TEST(test_zone_types_unmovable_takes_largest_block_and_its_pageblocks)
{
    make(0, NR_FRAMES);
    fn_t movable = alloc(0, MIGRATE_MOVABLE); /* breaks the first block of order 10 */
    fn_t fn = alloc(0, MIGRATE_UNMOVABLE);
    ck_assert_uint_eq(movable, 0);
    ck_assert_uint_eq(fn, MAX_PAGES);
    ck_assert_uint_eq(nr_pageblocks(MIGRATE_UNMOVABLE), 2);
    ck_assert_uint_eq(nr_blocks(9, MIGRATE_UNMOVABLE), 1);
    ck_assert_uint_eq(alloc(0, MIGRATE_UNMOVABLE), MAX_PAGES + 1); /* its own from now on */
    ck_assert_uint_eq(alloc(0, MIGRATE_MOVABLE), 1);
}
END_TEST

START_TEST(test_zone_types_reclaimable_prefers_unmovable_to_movable)
{
    make(0, NR_FRAMES);
    set_pageblock_migratetype(&zone, 3 * BLOCK_PAGES, MIGRATE_UNMOVABLE);
    take_all(2);
    while (nr_blocks(MAX_ORDER, MIGRATE_MOVABLE))
        alloc(MAX_ORDER, MIGRATE_MOVABLE);
    /* one block of order 9 each: [1024, 1536) movable, [1536, 2048) unmovable */
    ck_assert_uint_eq(alloc(0, MIGRATE_RECLAIMABLE), 3 * BLOCK_PAGES);
    ck_assert_uint_eq(nr_pageblocks(MIGRATE_RECLAIMABLE), 1);
    ck_assert_uint_eq(nr_pageblocks(MIGRATE_UNMOVABLE), 0);
}
END_TEST

/* A zone of one pageblock of type @type of which [0, free) is left, in single steps of 2. */
static void make_strewn(uint32_t nr_taken, enum migratetype type)
{
    make(0, BLOCK_PAGES);
    take_all(1);
    for (fn_t fn = nr_taken; fn < BLOCK_PAGES; fn++)
        zone_free(&zone, fn, 0, PLANE_FILLED);
    set_pageblock_migratetype(&zone, 0, type);
    check();
}

START_TEST(test_zone_types_small_movable_takes_smallest_and_leaves_the_type)
{
    make_strewn(BLOCK_PAGES - 7, MIGRATE_UNMOVABLE); /* free: [505, 512): orders 0 1 2 */
    ck_assert_uint_eq(alloc(1, MIGRATE_MOVABLE), 506);
    ck_assert_uint_eq(nr_pageblocks(MIGRATE_UNMOVABLE), 1);
    ck_assert_uint_eq(nr_blocks(2, MIGRATE_UNMOVABLE), 1);
    ck_assert_uint_eq(alloc(1, MIGRATE_MOVABLE), 508); /* splits: what is left stays unmovable */
    ck_assert_uint_eq(nr_blocks(1, MIGRATE_UNMOVABLE), 1);
}
END_TEST

START_TEST(test_zone_types_half_free_pageblock_is_claimed_with_both_planes)
{
    make_strewn(BLOCK_PAGES / 2, MIGRATE_RECLAIMABLE);
    zone_free_range(&zone, 8, 8, PLANE_EMPTY);
    alloc(0, MIGRATE_UNMOVABLE);
    ck_assert_uint_eq(nr_pageblocks(MIGRATE_UNMOVABLE), 1);
    ck_assert_uint_eq(zone.area[PLANE_EMPTY][MIGRATE_UNMOVABLE].blocks[3].nr, 1);
    ck_assert_uint_eq(zone.area[PLANE_EMPTY][MIGRATE_RECLAIMABLE].orders, 0);
}
END_TEST

START_TEST(test_zone_types_less_than_half_free_pageblock_is_not_claimed)
{
    make_strewn(BLOCK_PAGES / 2 + 1, MIGRATE_RECLAIMABLE);
    alloc(0, MIGRATE_UNMOVABLE);
    ck_assert_uint_eq(nr_pageblocks(MIGRATE_RECLAIMABLE), 1);
    ck_assert_uint_gt(zone.area[PLANE_FILLED][MIGRATE_RECLAIMABLE].orders, 0);
}
END_TEST

START_TEST(test_zone_types_movable_pages_count_for_a_movable_claim)
{
    make_strewn(BLOCK_PAGES - 32, MIGRATE_UNMOVABLE); /* free: one block of order 5 */
    for (fn_t fn = 0; fn < BLOCK_PAGES / 2 - 32; fn++)
        frames[fn].use = FRAME_STANDBY;
    frames[0].use = FRAME_USED;
    alloc(4, MIGRATE_MOVABLE); /* one page short of a half */
    ck_assert_uint_eq(nr_pageblocks(MIGRATE_UNMOVABLE), 1);
    zone_free(&zone, BLOCK_PAGES - 32, 4, PLANE_FILLED);
    frames[0].use = FRAME_STANDBY;
    alloc(4, MIGRATE_MOVABLE);
    ck_assert_uint_eq(nr_pageblocks(MIGRATE_MOVABLE), 1);
}
END_TEST

START_TEST(test_zone_types_used_pages_count_for_an_unmovable_claim)
{
    make_strewn(BLOCK_PAGES - 1, MIGRATE_MOVABLE);
    for (fn_t fn = 0; fn < BLOCK_PAGES / 2; fn++)
        frames[fn].use = FRAME_STANDBY;
    ck_assert_uint_eq(alloc(0, MIGRATE_RECLAIMABLE), BLOCK_PAGES - 1);
    ck_assert_uint_eq(nr_pageblocks(MIGRATE_RECLAIMABLE), 1);
}
END_TEST

START_TEST(test_zone_types_movable_takes_back_whole_blocks)
{
    make(0, BLOCK_PAGES);
    fn_t fn = alloc(9, MIGRATE_UNMOVABLE);
    zone_free(&zone, fn, 9, PLANE_FILLED);
    ck_assert_uint_eq(nr_pageblocks(MIGRATE_UNMOVABLE), 1);
    alloc(0, MIGRATE_MOVABLE);
    ck_assert_uint_eq(nr_pageblocks(MIGRATE_MOVABLE), 1);
}
END_TEST

START_TEST(test_zone_types_alloc_that_fails_leaves_zone_unchanged)
{
    make(0, 2 * BLOCK_PAGES);
    fn_t fn = 4711;
    set_pageblock_migratetype(&zone, 0, MIGRATE_RECLAIMABLE);
    set_pageblock_migratetype(&zone, BLOCK_PAGES, MIGRATE_ISOLATE);
    memcpy(frames_before, frames, sizeof(frames));
    memcpy(types_before, types, sizeof(types));
    zone_before = zone;
    ck_assert_int_eq(zone_alloc_type(&zone, 10, PLANE_FILLED, MIGRATE_UNMOVABLE, &fn), -ENOMEM);
    ck_assert_int_eq(zone_alloc_type(&zone, 0, PLANE_EMPTY, MIGRATE_RECLAIMABLE, &fn), -ENOMEM);
    ck_assert_uint_eq(fn, 4711);
    ck_assert_mem_eq(frames, frames_before, sizeof(frames));
    ck_assert_mem_eq(types, types_before, sizeof(types));
    ck_assert_mem_eq(zone.area, zone_before.area, sizeof(zone.area));
    ck_assert_uint_eq(zone.nr_alloc, zone_before.nr_alloc);
    check();
}
END_TEST

START_TEST(test_zone_types_isolated_pageblock_gives_nothing_out)
{
    make(0, MAX_PAGES);
    fn_t fn, held = alloc(3, MIGRATE_MOVABLE);
    ck_assert_uint_eq(set_pageblock_migratetype(&zone, 5, MIGRATE_ISOLATE), MIGRATE_MOVABLE);
    check();
    ck_assert_uint_eq(zone_nr_free(&zone, PLANE_FILLED), BLOCK_PAGES);
    ck_assert_uint_eq(zone.nr_isolated[PLANE_FILLED], BLOCK_PAGES - 8);
    alloc(9, MIGRATE_MOVABLE);
    for (enum migratetype type = 0; type < MIGRATE_PCPTYPES; type++)
        ck_assert_int_eq(zone_alloc_type(&zone, 0, PLANE_FILLED, type, &fn), -ENOMEM);
    zone_free(&zone, held, 3, PLANE_FILLED);
    check();
    ck_assert_int_eq(zone_alloc(&zone, 0, PLANE_FILLED, &fn), -ENOMEM);
    ck_assert_uint_eq(set_pageblock_migratetype(&zone, 5, MIGRATE_ISOLATE), MIGRATE_ISOLATE);
    ck_assert_uint_eq(set_pageblock_migratetype(&zone, 5, MIGRATE_MOVABLE), MIGRATE_ISOLATE);
    check();
    ck_assert_uint_eq(zone_nr_free(&zone, PLANE_FILLED), BLOCK_PAGES);
    ck_assert_uint_eq(alloc(9, MIGRATE_MOVABLE), 0);
}
END_TEST

START_TEST(test_zone_types_half_of_a_block_of_order_10_is_isolated_and_comes_back)
{
    fn_t half = _i ? BLOCK_PAGES : 0;
    make(0, MAX_PAGES);
    set_pageblock_migratetype(&zone, half + 17, MIGRATE_ISOLATE);
    check();
    ck_assert_uint_eq(zone.nr_isolated[PLANE_FILLED], BLOCK_PAGES);
    fn_t fn = alloc(9, MIGRATE_MOVABLE);
    ck_assert_uint_eq(fn, BLOCK_PAGES - half);
    zone_free(&zone, fn, 9, PLANE_FILLED);
    check();
    ck_assert_uint_eq(nr_blocks(10, MIGRATE_MOVABLE), 0); /* two types do not merge */
    set_pageblock_migratetype(&zone, half, MIGRATE_MOVABLE);
    check();
    ck_assert_uint_eq(nr_blocks(10, MIGRATE_MOVABLE), 1);
}
END_TEST

START_TEST(test_zone_types_block_of_order_10_over_two_types_is_freed_as_two)
{
    make(0, MAX_PAGES);
    fn_t fn = alloc(10, MIGRATE_MOVABLE);
    set_pageblock_migratetype(&zone, BLOCK_PAGES, MIGRATE_RECLAIMABLE);
    zone_free(&zone, fn, 10, PLANE_FILLED);
    check();
    ck_assert_uint_eq(nr_blocks(9, MIGRATE_MOVABLE), 1);
    ck_assert_uint_eq(nr_blocks(9, MIGRATE_RECLAIMABLE), 1);
    ck_assert_int_eq(zone_alloc(&zone, 10, PLANE_FILLED, &fn), -ENOMEM);
}
END_TEST

START_TEST(test_zone_types_parts_of_pageblocks_at_the_ends_change_alone)
{
    make(100, 1000); /* [100, 512) [512, 1024) [1024, 1100) */
    set_pageblock_migratetype(&zone, 100, MIGRATE_ISOLATE);
    check();
    set_pageblock_migratetype(&zone, 1099, MIGRATE_UNMOVABLE);
    check();
    ck_assert_uint_eq(zone.nr_isolated[PLANE_FILLED], 412);
    ck_assert_uint_eq(alloc(0, MIGRATE_UNMOVABLE), 1096); /* 64 8 4 */
    ck_assert_uint_eq(alloc(9, MIGRATE_MOVABLE), 512);
}
END_TEST

START_TEST(test_zone_types_bulk_falls_back_but_not_into_isolated)
{
    fn_t out[64];
    make(0, 2 * BLOCK_PAGES);
    set_pageblock_migratetype(&zone, 0, MIGRATE_ISOLATE);
    set_pageblock_migratetype(&zone, BLOCK_PAGES, MIGRATE_UNMOVABLE);
    ck_assert_uint_eq(zone_alloc_bulk(&zone, PLANE_FILLED, out, 64), 64);
    ck_assert_uint_eq(out[0], BLOCK_PAGES);
    check();
}
END_TEST

START_TEST(test_zone_types_alloc_of_isolate_traps)
{
    fn_t fn;
    make(0, BLOCK_PAGES);
    int err = zone_alloc_type(&zone, 0, PLANE_FILLED, MIGRATE_ISOLATE, &fn);
    ck_assert_int_eq(err, 0);
}
END_TEST

START_TEST(test_zone_types_set_outside_the_zone_traps)
{
    make(0, BLOCK_PAGES);
    set_pageblock_migratetype(&zone, BLOCK_PAGES, MIGRATE_UNMOVABLE);
}
END_TEST

/* ---- what compaction asks ---- */

START_TEST(test_zone_pageblock_use_counts_every_frame_once)
{
    struct pageblock_use use;
    make(100, 1500); /* [100, 512) [512, 1024) [1024, 1536) [1536, 1600) */
    zone_pageblock_use(&zone, 100, &use);
    ck_assert_uint_eq(use.nr_free[PLANE_FILLED], 412);
    zone_pageblock_use(&zone, 1599, &use);
    ck_assert_uint_eq(use.nr_free[PLANE_FILLED], 64);
    fn_t fn = alloc(9, MIGRATE_MOVABLE);
    zone_split(&zone, fn, 9);
    for (fn_t at = fn; at < fn + 100; at++)
        frames[at].use = FRAME_STANDBY;
    zone_free_range(&zone, fn + 200, 30, PLANE_EMPTY);
    zone_free_range(&zone, fn + 300, 7, PLANE_FILLED);
    zone_pageblock_use(&zone, fn + 77, &use);
    ck_assert_uint_eq(use.nr_movable, 100);
    ck_assert_uint_eq(use.nr_free[PLANE_EMPTY], 30);
    ck_assert_uint_eq(use.nr_free[PLANE_FILLED], 7);
    ck_assert_uint_eq(use.nr_other, BLOCK_PAGES - 137);
}
END_TEST

START_TEST(test_zone_pageblock_use_halves_of_order_10_are_free)
{
    struct pageblock_use use;
    make(0, MAX_PAGES);
    ck_assert_uint_eq(nr_blocks(10, MIGRATE_MOVABLE), 1);
    zone_pageblock_use(&zone, _i ? BLOCK_PAGES + 5 : 5, &use);
    ck_assert_uint_eq(use.nr_free[PLANE_FILLED], BLOCK_PAGES);
    ck_assert_uint_eq(use.nr_movable + use.nr_other, 0);
}
END_TEST

/* All of the pageblock is held but [100, 105) filled, [200, 300) empty, [400, 401) filled. */
static void make_for_taking(void)
{
    make(0, MAX_PAGES);
    alloc(10, MIGRATE_MOVABLE);
    zone_free_range(&zone, 100, 5, PLANE_FILLED);
    zone_free_range(&zone, 200, 100, PLANE_EMPTY);
    zone_free_range(&zone, 400, 1, PLANE_FILLED);
}

START_TEST(test_zone_take_free_gives_the_highest_of_the_plane)
{
    fn_t out[BLOCK_PAGES];
    make_for_taking();
    ck_assert_uint_eq(zone_take_free(&zone, 3, PLANE_FILLED, out, 3), 3);
    check();
    ck_assert_uint_eq(out[0], 400);
    ck_assert_uint_eq(out[1], 104);
    ck_assert_uint_eq(out[2], 103);
    ck_assert_uint_eq(frames[103].use, FRAME_USED);
    ck_assert_uint_eq(zone_nr_free(&zone, PLANE_FILLED), 3);
    for (uint32_t max = 1, left = 100; left; left -= MIN_OF(max, left), max = max * 2 + 1) {
        ck_assert_uint_eq(zone_take_free(&zone, 3, PLANE_EMPTY, out, max), MIN_OF(max, left));
        check();
        ck_assert_uint_eq(out[0], 199 + left);
    }
    ck_assert_uint_eq(zone_take_free(&zone, 511, PLANE_FILLED, out, BLOCK_PAGES), 3);
    ck_assert_uint_eq(zone_take_free(&zone, 3, PLANE_FILLED, out, 1), 0);
    check();
}
END_TEST

START_TEST(test_zone_take_free_leaves_whole_and_isolated_pageblocks)
{
    fn_t out[8];
    make(0, 3 * BLOCK_PAGES); /* a block of order 10, one of 9 */
    for (fn_t fn = 0; fn < 3 * BLOCK_PAGES; fn += BLOCK_PAGES)
        ck_assert_uint_eq(zone_take_free(&zone, fn + 3, PLANE_FILLED, out, 8), 0);
    alloc(0, MIGRATE_MOVABLE);
    ck_assert_uint_eq(zone_take_free(&zone, 2 * BLOCK_PAGES, PLANE_FILLED, out, 8), 8);
    set_pageblock_migratetype(&zone, 2 * BLOCK_PAGES, MIGRATE_ISOLATE);
    ck_assert_uint_eq(zone_take_free(&zone, 2 * BLOCK_PAGES, PLANE_FILLED, out, 8), 0);
    check();
}
END_TEST

static void expect_broken(const char *text)
{
    const char *why = NULL;
    ck_assert(!zone_check(&zone, &why));
    ck_assert_str_eq(why, text);
}

START_TEST(test_zone_check_wrong_types_are_found)
{
    make(0, MAX_PAGES);
    types[1] = MIGRATE_UNMOVABLE;
    expect_broken("a free block stands on the list of another type");
    types[1] = 17;
    expect_broken("a pageblock is of no type");
    types[1] = MIGRATE_MOVABLE;
    zone.area[PLANE_EMPTY][MIGRATE_UNMOVABLE].orders = 4;
    expect_broken("the map of orders that have free blocks is wrong");
    zone.area[PLANE_EMPTY][MIGRATE_UNMOVABLE].orders = 0;
    zone.nr_isolated[PLANE_FILLED]++;
    expect_broken("the count of isolated pages is wrong");
    zone.nr_isolated[PLANE_FILLED]--;
    check();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("zone_types");
    TCase *tc = tcase_create("zone_types");
    tcase_add_checked_fixture(tc, NULL, teardown);
    tcase_add_test(tc, test_zone_types_at_first_all_is_movable);
    tcase_add_test(tc, test_zone_types_unmovable_takes_largest_block_and_its_pageblocks);
    tcase_add_test(tc, test_zone_types_reclaimable_prefers_unmovable_to_movable);
    tcase_add_test(tc, test_zone_types_small_movable_takes_smallest_and_leaves_the_type);
    tcase_add_test(tc, test_zone_types_half_free_pageblock_is_claimed_with_both_planes);
    tcase_add_test(tc, test_zone_types_less_than_half_free_pageblock_is_not_claimed);
    tcase_add_test(tc, test_zone_types_movable_pages_count_for_a_movable_claim);
    tcase_add_test(tc, test_zone_types_used_pages_count_for_an_unmovable_claim);
    tcase_add_test(tc, test_zone_types_movable_takes_back_whole_blocks);
    tcase_add_test(tc, test_zone_types_alloc_that_fails_leaves_zone_unchanged);
    tcase_add_test(tc, test_zone_types_isolated_pageblock_gives_nothing_out);
    tcase_add_loop_test(tc, test_zone_types_half_of_a_block_of_order_10_is_isolated_and_comes_back, 0, 2);
    tcase_add_test(tc, test_zone_types_block_of_order_10_over_two_types_is_freed_as_two);
    tcase_add_test(tc, test_zone_types_parts_of_pageblocks_at_the_ends_change_alone);
    tcase_add_test(tc, test_zone_types_bulk_falls_back_but_not_into_isolated);
    tcase_add_test_raise_signal(tc, test_zone_types_alloc_of_isolate_traps, SIGILL);
    tcase_add_test_raise_signal(tc, test_zone_types_set_outside_the_zone_traps, SIGILL);
    tcase_add_test(tc, test_zone_pageblock_use_counts_every_frame_once);
    tcase_add_loop_test(tc, test_zone_pageblock_use_halves_of_order_10_are_free, 0, 2);
    tcase_add_test(tc, test_zone_take_free_gives_the_highest_of_the_plane);
    tcase_add_test(tc, test_zone_take_free_leaves_whole_and_isolated_pageblocks);
    tcase_add_test(tc, test_zone_check_wrong_types_are_found);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
