/* SPDX-License-Identifier: Apache-2.0 */
/* The edges of memory: what goes on, and for how long, when little or nothing is free. */
#include "tests/unit/mm_rig.h"

#include <errno.h>

static const struct mm_config zram_only = {.budget_bytes = 8 * MIB, .zram = {.limit_bytes = 6 * MIB}};

START_TEST(test_mm_incompressible_pages_do_not_hide_compressible_ones)
{
    struct mm_rig *rig = mm_rig_create(&zram_only, 16 * MIB, 1);
    mm_rig_fill(rig, 0, 1200, RANDOM);
    mm_rig_fill(rig, 1200, 3600, TEXT);
    mm_rig_check(rig);
    for (gfn_t gfn = 0; gfn < 3600; gfn++)
        mm_rig_verify(rig, 0, gfn);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_incompressible_pages_leave_once_swap_is_added)
{
    struct mm_rig *rig = mm_rig_create(&zram_only, 16 * MIB, 1);
    gfn_t gfn = 0;
    while (!mm_rig_write(rig, 0, gfn, RANDOM))
        gfn++;
    ck_assert_uint_gt(gfn, 1800);
    mm_rig_check(rig);
    mm_rig_swapon(rig, "disk", 4096);
    mm_rig_fill(rig, gfn, 3600, RANDOM);
    for (gfn = 0; gfn < 3600; gfn++)
        mm_rig_verify(rig, 0, gfn);
    mm_rig_destroy(rig);
}
END_TEST

/* One instruction needs @nr pages at once: code, stack, data, tables. -ETIMEDOUT: they never were all there. */
static int touch_all(struct mm_rig *rig, gfn_t nr)
{
    for (unsigned tries = 0; tries < 200; tries++) {
        gfn_t there = 0;
        for (gfn_t gfn = 0; gfn < nr; gfn++) {
            int err = mm_rig_touch(rig, 0, gfn);
            if (err)
                return err;
        }
        while (there < nr && mm_rig_is_present(rig, there))
            there++;
        if (there == nr)
            return 0;
    }
    return -ETIMEDOUT;
}

/* A guest that runs on pages which compress, and writes ever more that does not. */
START_TEST(test_mm_only_the_hot_pages_reclaimable_is_out_of_memory_not_thrashing)
{
    const struct mm_config config = {.budget_bytes = 8 * MIB, .zram = {.limit_bytes = 2 * MIB}, .thp = false};
    const gfn_t hot = 60;
    struct mm_rig *rig = mm_rig_create(&config, 16 * MIB, 1);
    int err = 0;
    mm_rig_swapon(rig, "small", 256);
    mm_rig_fill(rig, 0, hot, TEXT);
    for (gfn_t gfn = hot; gfn < rig->nr_pages && !err; gfn++) {
        err = touch_all(rig, hot);
        err = err ? err : mm_rig_write(rig, 0, gfn, RANDOM);
    }
    ck_assert_int_eq(err, -ENOMEM);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_sequence_in_long_windows_leaves_the_reserve)
{
    struct mm_rig *rig = mm_rig_create(&zram_only, 24 * MIB, 1);
    uint32_t least = UINT32_MAX;
    mm_rig_fill(rig, 0, 6000, TEXT);
    for (unsigned round = 0; round < 3; round++) {
        mm_reclaim(rig->thread[0], rig->vm, 6000, true);
        for (gfn_t gfn = 0; gfn < 6000; gfn++) {
            mm_rig_verify(rig, 0, gfn);
            least = MIN_OF(least, mm_rig_free_pages(rig));
        }
    }
    ck_assert_uint_ge(least, rig->host->pool.wmark[WMARK_MIN] / 2);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_sequence_in_long_windows_wakes_kswapd_at_the_low_watermark)
{
    struct mm_rig *rig = mm_rig_create(&zram_only, 16 * MIB, 1);
    struct fake_host_stat before, after;
    gfn_t gfn = 0;
    mm_rig_fill(rig, 0, 3000, TEXT);
    mm_reclaim(rig->thread[0], rig->vm, 3000, true);
    fake_host_stat(rig->fh, &before);
    while (mm_rig_free_pages(rig) >= rig->host->pool.wmark[WMARK_LOW])
        mm_rig_verify(rig, 0, gfn++);
    ck_assert_uint_lt(gfn, 2900);
    mm_rig_verify(rig, 0, gfn + 64);
    fake_host_stat(rig->fh, &after);
    ck_assert_uint_gt(after.nr_kicks[MM_KSWAPD], before.nr_kicks[MM_KSWAPD]);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_first_touch_in_small_budget_leaves_the_reserve)
{
    struct mm_rig *rig = mm_rig_create(&zram_only, 16 * MIB, 4);
    uint32_t least = UINT32_MAX;
    for (gfn_t gfn = 0; gfn < 2500; gfn++) {
        ck_assert_int_eq(mm_rig_write(rig, gfn / 8 % 4, gfn, HALF), 0);
        least = MIN_OF(least, mm_rig_free_pages(rig));
    }
    ck_assert_uint_ge(least, rig->host->pool.wmark[WMARK_MIN] / 2);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_many_threads_hide_no_memory)
{
    const struct mm_config config = {.budget_bytes = 8 * MIB};
    struct mm_rig *rig = mm_rig_create(&config, 16 * MIB, RIG_MAX_THREADS);
    /* every thread gives pages back that came home and were wanted again */
    for (unsigned thread = 0; thread < RIG_MAX_THREADS; thread++) {
        for (gfn_t gfn = 0; gfn < 400; gfn++)
            ck_assert_int_eq(mm_rig_touch(rig, thread, gfn), 0);
        mm_reclaim(rig->thread[thread], rig->vm, 400, false);
        for (gfn_t gfn = 0; gfn < 400; gfn += 2)
            ck_assert_int_eq(mm_rig_touch(rig, thread, gfn), 0);
    }
    mm_rig_fill(rig, 0, 1400, RANDOM);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_store_larger_than_the_budget_ends_in_refusal)
{
    struct mm_config config = zram_only;
    config.zram.limit_bytes = 64 * MIB;
    struct mm_rig *rig = mm_rig_create(&config, 64 * MIB, 1);
    gfn_t gfn = 0;
    while (gfn < rig->nr_pages && !mm_rig_write(rig, 0, gfn, HALF))
        gfn++;
    ck_assert_uint_gt(gfn, 2500);
    ck_assert_uint_lt(gfn, rig->nr_pages);
    mm_rig_check(rig);
    mm_rig_swapon(rig, "disk", 8192);
    for (gfn_t k = 0; k < gfn; k++)
        mm_rig_verify(rig, 0, k);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_swapoff_leaves_the_reserve)
{
    struct mm_rig *rig = mm_rig_create(&zram_only, 16 * MIB, 2);
    mm_rig_swapon(rig, "disk", 4096);
    mm_rig_fill(rig, 0, 2800, RANDOM);
    int err = mm_swapoff(rig->thread[1], "disk");
    ck_assert_int_eq(err, -ENOMEM);
    ck_assert_uint_ge(mm_rig_free_pages(rig), rig->host->pool.wmark[WMARK_MIN] / 2);
    for (gfn_t gfn = 0; gfn < 2800; gfn++)
        mm_rig_verify(rig, 0, gfn);
    mm_rig_destroy(rig);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("mm_pressure");
    TCase *cases = tcase_create("cases");
    tcase_set_timeout(cases, 60);
    tcase_add_test(cases, test_mm_incompressible_pages_do_not_hide_compressible_ones);
    tcase_add_test(cases, test_mm_incompressible_pages_leave_once_swap_is_added);
    tcase_add_test(cases, test_mm_only_the_hot_pages_reclaimable_is_out_of_memory_not_thrashing);
    tcase_add_test(cases, test_mm_sequence_in_long_windows_leaves_the_reserve);
    tcase_add_test(cases, test_mm_sequence_in_long_windows_wakes_kswapd_at_the_low_watermark);
    tcase_add_test(cases, test_mm_first_touch_in_small_budget_leaves_the_reserve);
    tcase_add_test(cases, test_mm_many_threads_hide_no_memory);
    tcase_add_test(cases, test_mm_store_larger_than_the_budget_ends_in_refusal);
    tcase_add_test(cases, test_mm_swapoff_leaves_the_reserve);
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
