/* SPDX-License-Identifier: Apache-2.0 */
/* Single operations of the buddy allocator and their limits. test_zone_model.c has the random operations. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "mm/frame/zone.h"

#define MAX_PAGES (1u << MAX_ORDER)
#define NR_FRAMES (4 * MAX_PAGES)

static struct frame frames[NR_FRAMES], frames_before[NR_FRAMES];
static uint8_t types[NR_FRAMES / BLOCK_PAGES], types_before[NR_FRAMES / BLOCK_PAGES];
static struct zone zone, zone_before;

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

static uint32_t nr_blocks(unsigned order, enum plane plane)
{
    uint32_t nr = 0;
    for (unsigned type = 0; type < MIGRATE_TYPES; type++)
        nr += zone.area[plane][type].blocks[order].nr;
    return nr;
}

static fn_t alloc(unsigned order, enum plane plane)
{
    fn_t fn = FN_NONE;
    ck_assert_int_eq(zone_alloc(&zone, order, plane, &fn), 0);
    return fn;
}

/* Everything but the lock, which a sanitizer may have a word in. */
static void remember(void)
{
    zone_before = zone;
    memcpy(frames_before, frames, sizeof(frames));
    memcpy(types_before, types, sizeof(types));
}

static bool unchanged(void)
{
    return !memcmp(frames, frames_before, sizeof(frames)) && !memcmp(types, types_before, sizeof(types)) &&
           !memcmp(zone.area, zone_before.area, sizeof(zone.area)) &&
           !memcmp(zone.nr_free, zone_before.nr_free, sizeof(zone.nr_free)) && zone.nr_alloc == zone_before.nr_alloc &&
           zone.nr_freed == zone_before.nr_freed;
}

START_TEST(test_zone_init_aligned_range_is_largest_blocks)
{
    make(MAX_PAGES, 3 * MAX_PAGES, PLANE_FILLED);
    check();
    ck_assert_uint_eq(nr_blocks(MAX_ORDER, PLANE_FILLED), 3);
    ck_assert_uint_eq(zone_nr_free(&zone, PLANE_FILLED), 3 * MAX_PAGES);
    ck_assert_uint_eq(zone_nr_free(&zone, PLANE_EMPTY), 0);
    ck_assert_uint_eq(alloc(0, PLANE_FILLED), MAX_PAGES); /* the lowest first */
}
END_TEST

START_TEST(test_zone_init_odd_range_is_cut_into_aligned_blocks)
{
    make(5, MAX_PAGES + 10, PLANE_EMPTY); /* [5, 1039): 1 2 8 16 ... 512, 8 4 2 1 */
    check();
    ck_assert_uint_eq(zone_nr_free(&zone, PLANE_EMPTY), MAX_PAGES + 10);
    ck_assert_uint_eq(nr_blocks(0, PLANE_EMPTY), 2);
    ck_assert_uint_eq(nr_blocks(1, PLANE_EMPTY), 2);
    ck_assert_uint_eq(nr_blocks(2, PLANE_EMPTY), 1);
    ck_assert_uint_eq(nr_blocks(3, PLANE_EMPTY), 2);
    ck_assert_uint_eq(nr_blocks(9, PLANE_EMPTY), 1);
    ck_assert_uint_eq(nr_blocks(MAX_ORDER, PLANE_EMPTY), 0);
}
END_TEST

START_TEST(test_zone_init_single_frame_is_one_block)
{
    make(7, 1, PLANE_FILLED);
    check();
    ck_assert_uint_eq(alloc(0, PLANE_FILLED), 7);
    check();
    zone_free(&zone, 7, 0, PLANE_FILLED);
    check();
    ck_assert_uint_eq(nr_blocks(0, PLANE_FILLED), 1);
}
END_TEST

START_TEST(test_zone_init_no_frames_is_valid_and_gives_none)
{
    fn_t fn = 1;
    make(0, 0, PLANE_FILLED);
    check();
    ck_assert_int_eq(zone_alloc(&zone, 0, PLANE_FILLED, &fn), -ENOMEM);
    ck_assert_uint_eq(fn, 1);
    zone_free_range(&zone, 0, 0, PLANE_FILLED);
    check();
}
END_TEST

START_TEST(test_zone_init_leaves_frames_outside_alone)
{
    make(100, 50, PLANE_FILLED);
    ck_assert_uint_eq(frames[99].next, UINT32_MAX);
    ck_assert_uint_eq(frames[99].order, 0xff);
    ck_assert_uint_eq(frames[150].order, 0xff);
    ck_assert_uint_eq(frames[100].use, FRAME_FREE);
    ck_assert_uint_eq(frames[149].use, FRAME_TAIL);
}
END_TEST

/* A write to each frame would take 16 bytes of memory for each page of an arena, most of which is never used. */
START_TEST(test_zone_init_writes_only_heads_of_new_memory)
{
    uint32_t nr_written = 0;
    memset(frames, 0, sizeof(frames));
    for (uint32_t i = 0; i < NR_FRAMES; i++)
        frames[i].data = 7;
    zone_init(&zone, "Test", frames, types, 0, NR_FRAMES, PLANE_EMPTY);
    frames_before[0] = (struct frame){.data = 7};
    for (uint32_t i = 0; i < NR_FRAMES; i++)
        nr_written += memcmp(&frames[i], &frames_before[0], sizeof(frames[i])) != 0;
    ck_assert_uint_eq(nr_written, NR_FRAMES / MAX_PAGES);
    check();
}
END_TEST

START_TEST(test_zone_alloc_splits_smallest_block_and_keeps_low_half)
{
    make(0, MAX_PAGES, PLANE_FILLED);
    ck_assert_uint_eq(alloc(3, PLANE_FILLED), 0);
    check();
    for (unsigned order = 3; order < MAX_ORDER; order++)
        ck_assert_uint_eq(nr_blocks(order, PLANE_FILLED), 1);
    ck_assert_uint_eq(alloc(0, PLANE_FILLED), 8); /* out of the block of order 3, not a larger one */
    ck_assert_uint_eq(nr_blocks(3, PLANE_FILLED), 0);
    ck_assert_uint_eq(nr_blocks(4, PLANE_FILLED), 1);
    ck_assert_uint_eq(zone_nr_free(&zone, PLANE_FILLED), MAX_PAGES - 9);
    check();
}
END_TEST

START_TEST(test_zone_alloc_marks_head_and_tails)
{
    make(0, MAX_PAGES, PLANE_EMPTY);
    fn_t head = alloc(BLOCK_ORDER, PLANE_EMPTY);
    ck_assert_uint_eq(frames[head].use, FRAME_USED);
    ck_assert_uint_eq(frames[head].order, BLOCK_ORDER);
    ck_assert_uint_eq(frames[head].flags, 0);
    unsigned nr_tails = 0;
    for (fn_t fn = head + 1; fn < head + BLOCK_PAGES; fn++)
        nr_tails += frames[fn].use == FRAME_TAIL;
    ck_assert_uint_eq(nr_tails, BLOCK_PAGES - 1);
    ck_assert_uint_eq(frames[head + BLOCK_PAGES].use, FRAME_FREE);
    ck_assert_uint_eq(frames[head + BLOCK_PAGES].flags, FRAME_F_EMPTY);
}
END_TEST

START_TEST(test_zone_alloc_every_order_until_empty_gives_each_frame_once)
{
    static unsigned char taken[NR_FRAMES];
    unsigned order = (unsigned)_i;
    fn_t fn;
    memset(taken, 0, sizeof(taken));
    make(0, 3 * MAX_PAGES, PLANE_FILLED);
    uint32_t nr = 0, twice = 0, misaligned = 0;
    for (; !zone_alloc(&zone, order, PLANE_FILLED, &fn); nr++) {
        misaligned += fn % (1u << order) != 0;
        for (fn_t at = fn; at < fn + (1u << order); at++)
            twice += taken[at]++;
    }
    ck_assert_uint_eq(nr, 3 * MAX_PAGES >> order);
    ck_assert_uint_eq(twice + misaligned, 0);
    ck_assert_uint_eq(zone_nr_free(&zone, PLANE_FILLED), 0);
    check();
}
END_TEST

START_TEST(test_zone_alloc_order_10_not_there_leaves_zone_unchanged)
{
    make(1, 2 * MAX_PAGES - 1, PLANE_FILLED); /* one block of order 10, [1024, 2048) */
    fn_t fn = alloc(MAX_ORDER, PLANE_FILLED);
    ck_assert_uint_eq(fn, MAX_PAGES);
    fn = 4711;
    remember();
    ck_assert_int_eq(zone_alloc(&zone, MAX_ORDER, PLANE_FILLED, &fn), -ENOMEM);
    ck_assert(unchanged());
    ck_assert_uint_eq(fn, 4711);
    ck_assert_int_eq(zone_alloc(&zone, 0, PLANE_EMPTY, &fn), -ENOMEM);
    ck_assert(unchanged());
    check();
    ck_assert_uint_eq(zone_nr_free(&zone, PLANE_FILLED), MAX_PAGES - 1);
}
END_TEST

START_TEST(test_zone_free_in_any_order_merges_to_largest_blocks)
{
    fn_t fns[64];
    make(0, MAX_PAGES, PLANE_FILLED);
    for (unsigned i = 0; i < 64; i++)
        fns[i] = alloc(4, PLANE_FILLED);
    for (unsigned i = 0; i < 64; i++) {
        zone_free(&zone, fns[i * 37 % 64], 4, PLANE_FILLED);
        check();
    }
    ck_assert_uint_eq(nr_blocks(MAX_ORDER, PLANE_FILLED), 1);
    ck_assert_uint_eq(zone.nr_alloc, MAX_PAGES);
    ck_assert_uint_eq(zone.nr_freed, MAX_PAGES);
}
END_TEST

START_TEST(test_zone_free_planes_do_not_merge)
{
    make(0, MAX_PAGES, PLANE_FILLED);
    fn_t low = alloc(9, PLANE_FILLED), high = alloc(9, PLANE_FILLED);
    zone_free(&zone, low, 9, PLANE_FILLED);
    zone_free(&zone, high, 9, PLANE_EMPTY);
    check();
    ck_assert_uint_eq(nr_blocks(9, PLANE_FILLED), 1);
    ck_assert_uint_eq(nr_blocks(9, PLANE_EMPTY), 1);
    ck_assert_uint_eq(alloc(9, PLANE_EMPTY), high);
    zone_free(&zone, high, 9, PLANE_FILLED);
    check();
    ck_assert_uint_eq(nr_blocks(MAX_ORDER, PLANE_FILLED), 1);
}
END_TEST

START_TEST(test_zone_free_largest_blocks_stay_apart)
{
    make(0, 2 * MAX_PAGES, PLANE_FILLED);
    fn_t first = alloc(MAX_ORDER, PLANE_FILLED), last = alloc(MAX_ORDER, PLANE_FILLED);
    zone_free(&zone, first, MAX_ORDER, PLANE_FILLED);
    zone_free(&zone, last, MAX_ORDER, PLANE_FILLED);
    check();
    ck_assert_uint_eq(nr_blocks(MAX_ORDER, PLANE_FILLED), 2);
}
END_TEST

/* The neighbours outside the zone look like free buddies of the right order: they must not be taken in. */

START_TEST(test_zone_free_at_the_ends_does_not_look_outside)
{
    make(16, 32, PLANE_FILLED); /* [16, 32) and [32, 48): buddies are [0, 16) and [48, 64) */
    frames[0] = (struct frame){.use = FRAME_FREE, .order = 4, .next = FN_NONE, .prev = FN_NONE};
    frames[48] = frames[0];
    fn_t low = alloc(4, PLANE_FILLED), high = alloc(4, PLANE_FILLED);
    ck_assert_uint_eq(low + high, 48);
    zone_free(&zone, low, 4, PLANE_FILLED);
    zone_free(&zone, high, 4, PLANE_FILLED);
    check();
    ck_assert_uint_eq(nr_blocks(4, PLANE_FILLED), 2);
    ck_assert_uint_eq(frames[0].use, FRAME_FREE);
    ck_assert_uint_eq(frames[48].use, FRAME_FREE);
}
END_TEST

START_TEST(test_zone_free_whole_block_leaves_tails_untouched)
{
    static const enum frame_use whole_uses[] = {FRAME_USED, FRAME_HOME, FRAME_ZEROED};
    make(0, MAX_PAGES, PLANE_FILLED);
    fn_t head = alloc(9, PLANE_FILLED);
    frames[head].use = whole_uses[_i] & 0xf;
    frames[head + 100].gfn = 12345;
    remember();
    zone_free(&zone, head, 9, PLANE_FILLED);
    check();
    ck_assert_mem_eq(&frames[1], &frames_before[1], (BLOCK_PAGES - 1) * sizeof(frames[0]));
}
END_TEST

START_TEST(test_zone_free_split_frames_as_block_marks_tails)
{
    make(0, MAX_PAGES, PLANE_FILLED);
    fn_t head = alloc(9, PLANE_FILLED);
    frames[head].flags = FRAME_F_HUGE;
    zone_split(&zone, head, 9);
    unsigned nr_single = 0;
    for (fn_t fn = head; fn < head + BLOCK_PAGES; fn++) {
        nr_single += frames[fn].use == FRAME_USED && frames[fn].order == 0 && frames[fn].flags == 0;
        frames[fn].use = FRAME_STANDBY;
    }
    ck_assert_uint_eq(nr_single, BLOCK_PAGES);
    zone_free(&zone, head, 9, PLANE_FILLED);
    check();
    ck_assert_uint_eq(nr_blocks(MAX_ORDER, PLANE_FILLED), 1);
}
END_TEST

START_TEST(test_zone_free_block_headed_by_standby_page_marks_tails)
{
    make(0, MAX_PAGES, PLANE_FILLED);
    fn_t head = alloc(9, PLANE_FILLED);
    for (fn_t fn = head; fn < head + BLOCK_PAGES; fn++)
        frames[fn].use = FRAME_STANDBY;
    zone_free(&zone, head, 9, PLANE_FILLED);
    check();
}
END_TEST

START_TEST(test_zone_free_range_marks_tails_of_any_use)
{
    make(0, MAX_PAGES, PLANE_FILLED);
    fn_t head = alloc(9, PLANE_FILLED);
    for (fn_t fn = head + 1; fn < head + BLOCK_PAGES; fn++)
        frames[fn].use = FRAME_STANDBY; /* and the head still says USED, order 9 */
    zone_free_range(&zone, head, BLOCK_PAGES, PLANE_EMPTY);
    check();
    ck_assert_uint_eq(nr_blocks(9, PLANE_EMPTY), 1);
}
END_TEST

START_TEST(test_zone_free_range_odd_run_is_cut_and_merges)
{
    make(3, 2000, PLANE_FILLED);
    fn_t fn;
    while (!zone_alloc(&zone, 0, PLANE_FILLED, &fn))
        continue;
    zone_free_range(&zone, 3, 1, PLANE_FILLED);
    zone_free_range(&zone, 2002, 1, PLANE_FILLED); /* the last */
    check();
    zone_free_range(&zone, 5, 1500, PLANE_FILLED);
    check();
    zone_free_range(&zone, 4, 1, PLANE_FILLED);
    zone_free_range(&zone, 1505, 497, PLANE_FILLED);
    check();
    ck_assert_uint_eq(zone_nr_free(&zone, PLANE_FILLED), 2000);
    memcpy(&zone_before, &zone, sizeof(zone));
    zone_fini(&zone);
    make(3, 2000, PLANE_FILLED);
    for (unsigned order = 0; order <= MAX_ORDER; order++)
        ck_assert_uint_eq(zone_before.area[PLANE_FILLED][MIGRATE_MOVABLE].blocks[order].nr,
                          nr_blocks(order, PLANE_FILLED));
}
END_TEST

START_TEST(test_zone_alloc_bulk_gives_neighbours_in_order)
{
    fn_t out[64];
    make(0, MAX_PAGES, PLANE_EMPTY);
    ck_assert_uint_eq(zone_alloc_bulk(&zone, PLANE_EMPTY, out, 64), 64);
    for (fn_t i = 0; i < 64; i++)
        ck_assert_uint_eq(out[i], i);
    check();
    zone_free_bulk(&zone, PLANE_EMPTY, out, 64);
    check();
    ck_assert_uint_eq(nr_blocks(MAX_ORDER, PLANE_EMPTY), 1);
}
END_TEST

START_TEST(test_zone_alloc_bulk_more_than_there_is_gives_what_there_is)
{
    fn_t out[40];
    make(10, 33, PLANE_FILLED);
    ck_assert_uint_eq(zone_alloc_bulk(&zone, PLANE_FILLED, out, 0), 0);
    ck_assert_uint_eq(zone_alloc_bulk(&zone, PLANE_EMPTY, out, 40), 0);
    ck_assert_uint_eq(zone_alloc_bulk(&zone, PLANE_FILLED, out, 40), 33);
    check();
    ck_assert_uint_eq(zone_nr_free(&zone, PLANE_FILLED), 0);
    zone_free_bulk(&zone, PLANE_FILLED, out, 33);
    check();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("zone");
    TCase *tc = tcase_create("zone");
    tcase_add_checked_fixture(tc, NULL, teardown);
    tcase_add_test(tc, test_zone_init_aligned_range_is_largest_blocks);
    tcase_add_test(tc, test_zone_init_odd_range_is_cut_into_aligned_blocks);
    tcase_add_test(tc, test_zone_init_single_frame_is_one_block);
    tcase_add_test(tc, test_zone_init_writes_only_heads_of_new_memory);
    tcase_add_test(tc, test_zone_init_no_frames_is_valid_and_gives_none);
    tcase_add_test(tc, test_zone_init_leaves_frames_outside_alone);
    tcase_add_test(tc, test_zone_alloc_splits_smallest_block_and_keeps_low_half);
    tcase_add_test(tc, test_zone_alloc_marks_head_and_tails);
    tcase_add_loop_test(tc, test_zone_alloc_every_order_until_empty_gives_each_frame_once, 0, MAX_ORDER + 1);
    tcase_add_test(tc, test_zone_alloc_order_10_not_there_leaves_zone_unchanged);
    tcase_add_test(tc, test_zone_free_in_any_order_merges_to_largest_blocks);
    tcase_add_test(tc, test_zone_free_planes_do_not_merge);
    tcase_add_test(tc, test_zone_free_largest_blocks_stay_apart);
    tcase_add_test(tc, test_zone_free_at_the_ends_does_not_look_outside);
    tcase_add_loop_test(tc, test_zone_free_whole_block_leaves_tails_untouched, 0, 3);
    tcase_add_test(tc, test_zone_free_split_frames_as_block_marks_tails);
    tcase_add_test(tc, test_zone_free_block_headed_by_standby_page_marks_tails);
    tcase_add_test(tc, test_zone_free_range_marks_tails_of_any_use);
    tcase_add_test(tc, test_zone_free_range_odd_run_is_cut_and_merges);
    tcase_add_test(tc, test_zone_alloc_bulk_gives_neighbours_in_order);
    tcase_add_test(tc, test_zone_alloc_bulk_more_than_there_is_gives_what_there_is);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
