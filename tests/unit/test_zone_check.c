/* SPDX-License-Identifier: Apache-2.0 */
/* Bugs of a caller trap; a broken zone is seen by zone_check. */
#include <check.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "mm/frame/zone.h"

#define MAX_PAGES (1u << MAX_ORDER)
#define NR_FRAMES (4 * MAX_PAGES)

static struct frame frames[NR_FRAMES];
static uint8_t types[NR_FRAMES / BLOCK_PAGES];
static struct zone zone;

static void make(fn_t start, uint32_t nr, enum plane plane)
{
    memset(frames, 0xff, sizeof(frames));
    zone_init(&zone, "Test", frames, types, start, nr, plane);
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
    ck_assert_ptr_null(why);
}

static fn_t alloc(unsigned order, enum plane plane)
{
    fn_t fn = FN_NONE;
    ck_assert_int_eq(zone_alloc(&zone, order, plane, &fn), 0);
    return fn;
}

/* Bugs of a caller trap at once. */

START_TEST(test_zone_free_twice_traps)
{
    make(0, MAX_PAGES, PLANE_FILLED);
    fn_t fn = alloc(MAX_ORDER, PLANE_FILLED);
    zone_free(&zone, fn, MAX_ORDER, PLANE_FILLED);
    zone_free(&zone, fn, MAX_ORDER, PLANE_FILLED);
}
END_TEST

START_TEST(test_zone_free_misaligned_traps)
{
    make(0, MAX_PAGES, PLANE_FILLED);
    fn_t fn = alloc(MAX_ORDER, PLANE_FILLED);
    zone_free(&zone, fn + 1, 1, PLANE_FILLED);
}
END_TEST

START_TEST(test_zone_free_past_the_end_traps)
{
    make(0, MAX_PAGES, PLANE_FILLED);
    zone_free(&zone, MAX_PAGES, 0, PLANE_FILLED);
}
END_TEST

START_TEST(test_zone_free_before_the_start_traps)
{
    make(MAX_PAGES, MAX_PAGES, PLANE_FILLED);
    zone_free(&zone, MAX_PAGES - 1, 0, PLANE_FILLED);
}
END_TEST

START_TEST(test_zone_free_range_over_the_end_traps)
{
    make(0, MAX_PAGES, PLANE_FILLED);
    alloc(MAX_ORDER, PLANE_FILLED);
    zone_free_range(&zone, MAX_PAGES - 1, 2, PLANE_FILLED);
}
END_TEST

START_TEST(test_zone_free_range_with_free_block_in_it_traps)
{
    make(0, MAX_PAGES, PLANE_FILLED);
    alloc(MAX_ORDER, PLANE_FILLED);
    zone_free(&zone, 8, 3, PLANE_FILLED);
    zone_free_range(&zone, 0, 32, PLANE_FILLED);
}
END_TEST

START_TEST(test_zone_free_bulk_twice_traps)
{
    make(0, MAX_PAGES, PLANE_FILLED);
    fn_t fns[2] = {0, 0};
    alloc(1, PLANE_FILLED);
    zone_free_bulk(&zone, PLANE_FILLED, fns, 2);
}
END_TEST

/* Each invariant, broken once: zone_check must see it, and name it. */

/* Free in zone [0, 4096): filled [0,8) [16,24) of order 3; empty [32,40) of order 3; the rest is given out. */
static void make_for_breaking(void)
{
    make(0, NR_FRAMES, PLANE_FILLED);
    for (unsigned i = 0; i < NR_FRAMES / MAX_PAGES; i++)
        alloc(MAX_ORDER, PLANE_FILLED);
    zone_free(&zone, 16, 3, PLANE_FILLED);
    zone_free(&zone, 0, 3, PLANE_FILLED);
    zone_free(&zone, 32, 3, PLANE_EMPTY);
    check();
}

static void expect_broken(const char *text)
{
    const char *why = NULL;
    ck_assert(!zone_check(&zone, &why));
    ck_assert_str_eq(why, text);
}

START_TEST(test_zone_check_wrong_marks_are_found)
{
    make_for_breaking();
    frames[0].use = FRAME_USED;
    expect_broken("the head of a free block is marked wrongly");
    frames[0].use = FRAME_FREE;
    frames[0].order = 2;
    expect_broken("the head of a free block is marked wrongly");
    frames[0].order = 3;
    frames[32].flags = 0;
    expect_broken("the head of a free block is marked wrongly");
    frames[32].flags = FRAME_F_EMPTY;
    frames[5].use = FRAME_STANDBY;
    expect_broken("a frame inside a free block is not FRAME_TAIL");
    frames[5].use = FRAME_TAIL;
    check();
}
END_TEST

START_TEST(test_zone_check_stale_head_is_found)
{
    make_for_breaking();
    frames[1000].use = FRAME_FREE;
    expect_broken("a frame that heads no free block is FRAME_FREE");
    frames[1000].use = FRAME_USED;
    check();
}
END_TEST

START_TEST(test_zone_check_wrong_links_are_found)
{
    make_for_breaking();
    frames[16].prev = 32;
    expect_broken("a free list's back link is wrong");
    frames[16].prev = 0;
    zone.area[PLANE_FILLED][MIGRATE_MOVABLE].blocks[3].tail = 0;
    expect_broken("a free list's tail is wrong");
    zone.area[PLANE_FILLED][MIGRATE_MOVABLE].blocks[3].tail = 16;
    zone.area[PLANE_FILLED][MIGRATE_MOVABLE].blocks[3].nr = 1;
    expect_broken("a free list's count is wrong");
    zone.area[PLANE_FILLED][MIGRATE_MOVABLE].blocks[3].nr = 2;
    check();
}
END_TEST

START_TEST(test_zone_check_misplaced_blocks_are_found)
{
    make_for_breaking();
    struct frame_list *list = &zone.area[PLANE_FILLED][MIGRATE_MOVABLE].blocks[3];
    frame_list_push_tail(list, frames, 50);
    expect_broken("a free block is not aligned to its order");
    frame_list_remove(list, frames, 50);
    zone.nr_frames = 20;
    expect_broken("a free block lies outside the zone");
    zone.nr_frames = NR_FRAMES;
    frames[8].use = FRAME_FREE;
    frames[8].flags = 0;
    frames[8].order = 3;
    expect_broken("two free buddies are not merged");
    frames[8].use = FRAME_USED;
    check();
}
END_TEST

START_TEST(test_zone_check_wrong_counts_are_found)
{
    make_for_breaking();
    zone.nr_free[PLANE_EMPTY]++;
    expect_broken("the count of free pages is wrong");
    zone.nr_free[PLANE_EMPTY]--;
    zone.nr_freed++;
    expect_broken("pages were lost or freed twice");
    zone.nr_freed--;
    check();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("zone_check");
    TCase *tc = tcase_create("zone_check");
    tcase_add_checked_fixture(tc, NULL, teardown);
    tcase_add_test_raise_signal(tc, test_zone_free_twice_traps, SIGILL);
    tcase_add_test_raise_signal(tc, test_zone_free_misaligned_traps, SIGILL);
    tcase_add_test_raise_signal(tc, test_zone_free_past_the_end_traps, SIGILL);
    tcase_add_test_raise_signal(tc, test_zone_free_before_the_start_traps, SIGILL);
    tcase_add_test_raise_signal(tc, test_zone_free_range_over_the_end_traps, SIGILL);
    tcase_add_test_raise_signal(tc, test_zone_free_range_with_free_block_in_it_traps, SIGILL);
    tcase_add_test_raise_signal(tc, test_zone_free_bulk_twice_traps, SIGILL);
    tcase_add_test(tc, test_zone_check_wrong_marks_are_found);
    tcase_add_test(tc, test_zone_check_stale_head_is_found);
    tcase_add_test(tc, test_zone_check_wrong_links_are_found);
    tcase_add_test(tc, test_zone_check_misplaced_blocks_are_found);
    tcase_add_test(tc, test_zone_check_wrong_counts_are_found);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
