/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>

#include "mm/frame/pcp.h"
#include "tests/unit/model_rng.h"

#define NR_FRAMES 512

static struct frame frames[NR_FRAMES];
static uint8_t types[NR_FRAMES / BLOCK_PAGES + 1];
static struct zone zone;
static struct pcp pcp;

static void make(uint32_t nr_frames, uint32_t high, uint32_t batch)
{
    zone_init(&zone, "Test", frames, types, 0, nr_frames, PLANE_FILLED);
    pcp_init(&pcp, &zone, high, batch);
}

static void teardown(void)
{
    zone_fini(&zone);
}

/* Marks, links and count of the list, the zone below it, and no frame lost among @nr_held held ones. */
static bool is_sound(uint32_t nr_held)
{
    const char *why;
    uint32_t nr = 0;
    fn_t prev = FN_NONE;
    for (fn_t fn = pcp.list.head; fn != FN_NONE; prev = fn, fn = frames[fn].next, nr++) {
        const struct frame *frame = &frames[fn];
        if (frame->use != FRAME_PCP || frame->flags || frame->order || frame->prev != prev || nr > zone.nr_frames)
            return false;
    }
    return nr == pcp.list.nr && pcp.list.tail == prev && nr <= pcp.high &&
           nr + nr_held + zone_nr_free(&zone, PLANE_FILLED) == zone.nr_frames && zone_check(&zone, &why);
}

static fn_t alloc(void)
{
    fn_t fn = FN_NONE;
    ck_assert_int_eq(pcp_alloc(&pcp, &fn), 0);
    ck_assert_uint_eq(frames[fn].use, FRAME_USED);
    ck_assert_uint_eq(frames[fn].order, 0);
    return fn;
}

START_TEST(test_pcp_init_zero_means_defaults)
{
    make(NR_FRAMES, 0, 0);
    ck_assert_uint_eq(pcp.high, 186);
    ck_assert_uint_eq(pcp.batch, 31);
    pcp_init(&pcp, &zone, 10, 10);
    ck_assert_uint_eq(pcp.high, 10);
    ck_assert_uint_eq(pcp.batch, 10);
    ck_assert(is_sound(0));
}
END_TEST

START_TEST(test_pcp_alloc_empty_list_takes_one_batch)
{
    make(NR_FRAMES, 0, 0);
    ck_assert_uint_eq(alloc(), 0);
    ck_assert_uint_eq(pcp.list.nr, 30);
    ck_assert_uint_eq(pcp.nr_refill, 1);
    ck_assert_uint_eq(pcp.nr_hit, 0);
    for (fn_t fn = 1; fn <= 30; fn++)
        ck_assert_uint_eq(alloc(), fn);
    ck_assert_uint_eq(pcp.nr_refill, 1);
    ck_assert_uint_eq(pcp.nr_hit, 30);
    ck_assert(is_sound(31));
    alloc();
    ck_assert_uint_eq(pcp.nr_refill, 2);
    ck_assert(is_sound(32));
}
END_TEST

START_TEST(test_pcp_free_hot_comes_back_first_cold_last)
{
    make(NR_FRAMES, 20, 4);
    fn_t hot = alloc(), cold = alloc(), older = alloc();
    pcp_free(&pcp, older, true);
    pcp_free(&pcp, cold, false);
    pcp_free(&pcp, hot, true);
    ck_assert(is_sound(0));
    ck_assert_uint_eq(alloc(), hot);
    ck_assert_uint_eq(alloc(), older);
    alloc();
    ck_assert_uint_eq(alloc(), cold);
    ck_assert_uint_eq(pcp.list.nr, 0);
}
END_TEST

START_TEST(test_pcp_free_clears_flags_and_use)
{
    make(NR_FRAMES, 20, 4);
    fn_t fn = alloc();
    frames[fn].use = FRAME_STANDBY;
    frames[fn].flags = FRAME_F_INCOMPRESSIBLE;
    pcp_free(&pcp, fn, true);
    ck_assert(is_sound(0));
    ck_assert_uint_eq(alloc(), fn);
    ck_assert_uint_eq(frames[fn].flags, 0);
}
END_TEST

START_TEST(test_pcp_free_above_high_gives_cold_batch_back)
{
    fn_t held[11];
    make(NR_FRAMES, 10, 3);
    for (unsigned i = 0; i < ARRAY_LEN(held); i++)
        held[i] = alloc();
    pcp_drain(&pcp);
    for (unsigned i = 0; i < 10; i++)
        pcp_free(&pcp, held[i], true);
    ck_assert_uint_eq(pcp.list.nr, 10); /* high itself is allowed */
    ck_assert_uint_eq(pcp.nr_drain, 0);
    pcp_free(&pcp, held[10], true);
    ck_assert_uint_eq(pcp.list.nr, 8);
    ck_assert_uint_eq(pcp.nr_drain, 1);
    ck_assert_uint_eq(pcp.list.head, held[10]);
    ck_assert_uint_eq(pcp.list.tail, held[3]); /* the three coldest went */
    ck_assert(is_sound(0));
}
END_TEST

START_TEST(test_pcp_alloc_short_zone_gives_all_then_enomem)
{
    make(10, 8, 8);
    for (unsigned i = 0; i < 10; i++) {
        alloc();
        ck_assert(is_sound(i + 1));
    }
    fn_t fn = 4711;
    ck_assert_int_eq(pcp_alloc(&pcp, &fn), -ENOMEM);
    ck_assert_uint_eq(fn, 4711);
    ck_assert(is_sound(10));
    pcp_free(&pcp, 3, false);
    ck_assert_uint_eq(alloc(), 3);
    for (fn = 0; fn < 10; fn++)
        pcp_free(&pcp, fn, false);
    pcp_drain(&pcp);
    ck_assert_uint_eq(zone_nr_free(&zone, PLANE_FILLED), 10);
    ck_assert(is_sound(0));
}
END_TEST

START_TEST(test_pcp_alloc_leaves_empty_slots_alone)
{
    fn_t fn;
    zone_init(&zone, "Test", frames, types, 0, NR_FRAMES, PLANE_EMPTY);
    pcp_init(&pcp, &zone, 0, 0);
    ck_assert_int_eq(pcp_alloc(&pcp, &fn), -ENOMEM);
    ck_assert_uint_eq(zone_nr_free(&zone, PLANE_EMPTY), NR_FRAMES);
}
END_TEST

/* Batches larger than what one hold of the zone's lock moves. */
START_TEST(test_pcp_large_batch_moves_all_of_it)
{
    make(NR_FRAMES, 300, 200);
    alloc();
    ck_assert_uint_eq(pcp.list.nr, 199);
    ck_assert(is_sound(1));
    pcp_drain(&pcp);
    ck_assert_uint_eq(pcp.list.nr, 0);
    ck_assert_uint_eq(zone_nr_free(&zone, PLANE_FILLED), NR_FRAMES - 1);
    ck_assert(is_sound(1));
    pcp_drain(&pcp);
    ck_assert(is_sound(1));
}
END_TEST

START_TEST(test_pcp_random_operations_match_held_set)
{
    static fn_t held[NR_FRAMES];
    static bool is_held[NR_FRAMES];
    struct rng rng = {(uint64_t)_i + 1};
    uint32_t nr_held = 0;
    make(400, 1 + rng_below(&rng, 90), 1);
    pcp.batch = 1 + rng_below(&rng, pcp.high);
    for (unsigned step = 0; step < 3000; step++) {
        bool right = true;
        fn_t fn;
        if (rng_below(&rng, 200) == 0) {
            pcp_drain(&pcp);
        } else if (rng_below(&rng, 2 + step / 500 % 2)) {
            uint32_t had = pcp.list.nr + zone_nr_free(&zone, PLANE_FILLED);
            int err = pcp_alloc(&pcp, &fn);
            right = err == (had ? 0 : -ENOMEM);
            if (!err) {
                right = !is_held[fn] && frames[fn].use == FRAME_USED;
                is_held[fn] = true;
                held[nr_held++] = fn;
                frames[fn].use = FRAME_ZPOOL;
            }
        } else if (nr_held) {
            uint32_t at = rng_below(&rng, nr_held);
            fn = held[at];
            held[at] = held[--nr_held];
            is_held[fn] = false;
            pcp_free(&pcp, fn, rng_below(&rng, 2));
        }
        right &= is_sound(nr_held);
        ck_assert_msg(right, "seed %d step %u", _i + 1, step);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("pcp");
    TCase *tc = tcase_create("pcp");
    tcase_add_checked_fixture(tc, NULL, teardown);
    tcase_add_test(tc, test_pcp_init_zero_means_defaults);
    tcase_add_test(tc, test_pcp_alloc_empty_list_takes_one_batch);
    tcase_add_test(tc, test_pcp_free_hot_comes_back_first_cold_last);
    tcase_add_test(tc, test_pcp_free_clears_flags_and_use);
    tcase_add_test(tc, test_pcp_free_above_high_gives_cold_batch_back);
    tcase_add_test(tc, test_pcp_alloc_short_zone_gives_all_then_enomem);
    tcase_add_test(tc, test_pcp_alloc_leaves_empty_slots_alone);
    tcase_add_test(tc, test_pcp_large_batch_moves_all_of_it);
    tcase_add_loop_test(tc, test_pcp_random_operations_match_held_set, 0, 5);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
