/* SPDX-License-Identifier: Apache-2.0 */
/* The edges of memory: what goes on, and for how long, when little or nothing is free. */
#include "mm/reclaim/evict.h"
#include "tests/unit/mm_rig.h"
#include "tests/unit/model_rng.h"

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

/* Writes to slots from @first on fail, as on a disk that is full. */
static void refuse_writes(struct fake_swap *disk, uint64_t first)
{
    for (uint64_t slot = first; slot < disk->nr_slots; slot++)
        disk->write_error[slot] = -ENOSPC;
}

START_TEST(test_mm_pages_that_a_full_disk_refuses_do_not_hide_compressible_ones)
{
    struct mm_rig *rig = mm_rig_create(&zram_only, 16 * MIB, 1);
    struct fake_swap *disk = mm_rig_swapon(rig, "full", 4096);
    refuse_writes(disk, 300);
    mm_rig_fill(rig, 0, 1200, RANDOM);
    mm_rig_fill(rig, 1200, 3600, TEXT);
    mm_rig_check(rig);
    /* room again: what was refused leaves in the next run of kswapd */
    memset(disk->write_error, 0, disk->nr_slots * sizeof(int));
    mm_kswapd(rig->thread[0], 0);
    mm_rig_fill(rig, 3600, 4000, RANDOM);
    ck_assert_uint_gt(disk->nr_written, 600);
    for (gfn_t gfn = 0; gfn < 4000; gfn++)
        mm_rig_verify(rig, 0, gfn);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_swap_area_on_a_full_disk_leaves_it_to_the_next_area)
{
    const struct mm_config config = {.budget_bytes = 8 * MIB};
    struct mm_rig *rig = mm_rig_create(&config, 16 * MIB, 1);
    refuse_writes(mm_rig_swapon(rig, "full", 4096), 300);
    mm_rig_swapon(rig, "next", 4096);
    mm_rig_fill(rig, 0, 3600, RANDOM);
    for (gfn_t gfn = 0; gfn < 3600; gfn++)
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

/* A loop over a little more than fits: each page is wanted again soon after it left, and yet there is room for all. */
START_TEST(test_mm_loop_over_a_little_more_than_fits_goes_on)
{
    struct mm_rig *rig = mm_rig_create(&zram_only, 16 * MIB, 1);
    const gfn_t nr = 2200;
    mm_rig_fill(rig, 0, nr, TEXT);
    for (unsigned round = 0; round < 120; round++)
        for (gfn_t gfn = 0; gfn < nr; gfn++)
            ck_assert_msg(!mm_rig_touch(rig, 0, gfn), "round %u, page %u refused", round, gfn);
    for (gfn_t gfn = 0; gfn < nr; gfn++)
        mm_rig_verify(rig, 0, gfn);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_random_access_to_a_little_more_than_fits_goes_on)
{
    struct mm_rig *rig = mm_rig_create(&zram_only, 16 * MIB, 1);
    struct rng rng = {7};
    const gfn_t nr = 2200;
    mm_rig_fill(rig, 0, nr, TEXT);
    for (unsigned access = 0; access < 600000; access++)
        ck_assert_msg(!mm_rig_touch(rig, 0, rng_below(&rng, nr)), "access %u refused", access);
    mm_rig_destroy(rig);
}
END_TEST

/* The guest that needs more than there is ends; another, which does not, has all it needs afterwards. */
START_TEST(test_mm_thrashing_ended_by_the_end_of_a_vm_leaves_the_others_alone)
{
    struct mm_rig *rig = mm_rig_create(&zram_only, 16 * MIB, 1);
    const struct mm_region region = {.start = {0}, .bytes = 32 * MIB};
    struct mm_vm *big;
    uint64_t page[PAGE_BYTES / 8];
    int err = 0;
    ck_assert_int_eq(mm_vm_create(rig->host, &region, 1, &big), 0);
    fake_host_add_vm(rig->fh, mm_vm_id(big), (uint32_t)(region.bytes / PAGE_BYTES));
    mm_rig_fill(rig, 0, 100, TEXT);
    for (gfn_t gfn = 0; !err; gfn = (gfn + 1) % 8192) {
        err = mm_fault(rig->thread[0], big, gpa_of(gfn), MM_FAULT_WRITE);
        rig_make_page(page, gfn, HALF);
        if (!err)
            (void)!fake_host_guest_write(rig->fh, mm_vm_id(big), gfn, 0, page, (uint32_t)PAGE_BYTES);
        err = err ? err : mm_rig_touch(rig, 0, gfn % 100);
    }
    ck_assert_int_eq(err, -ENOMEM);
    vmid_t id = mm_vm_id(big);
    mm_vm_destroy(rig->thread[0], big);
    fake_host_remove_vm(rig->fh, id);
    mm_rig_fill(rig, 0, 3000, TEXT);
    for (gfn_t gfn = 0; gfn < 3000; gfn++)
        mm_rig_verify(rig, 0, gfn);
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
    ck_assert_uint_ge(least, rig->host->node[0].pool.wmark[WMARK_MIN] / 2);
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
    while (mm_rig_free_pages(rig) >= rig->host->node[0].pool.wmark[WMARK_LOW])
        mm_rig_verify(rig, 0, gfn++);
    ck_assert_uint_lt(gfn, 2900);
    mm_rig_verify(rig, 0, gfn + 64);
    fake_host_stat(rig->fh, &after);
    ck_assert_uint_gt(after.nr_kicks[MM_KSWAPD(0)], before.nr_kicks[MM_KSWAPD(0)]);
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
    ck_assert_uint_ge(least, rig->host->node[0].pool.wmark[WMARK_MIN] / 2);
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

/* As many as 256 VMs with two vCPUs have, most of them idle. */
#define NR_IDLE 512u

START_TEST(test_mm_idle_threads_of_hundreds_of_vms_hide_no_memory)
{
    const struct mm_config config = {.budget_bytes = 16 * MIB, .fault_around_pages = 1};
    struct mm_rig *rig = mm_rig_create(&config, 32 * MIB, 1);
    struct mm_thread *idle[NR_IDLE];
    gfn_t gfn;
    for (unsigned i = 0; i < NR_IDLE; i++)
        ck_assert_int_eq(mm_thread_create(rig->host, &idle[i]), 0);
    for (unsigned i = 0; i < NR_IDLE; i++)
        ck_assert_int_eq(mm_fault(idle[i], rig->vm, gpa_of(i), MM_FAULT_WRITE), 0);
    /* and what comes back from home */
    for (unsigned round = 0; round < 8; round++) {
        mm_reclaim(rig->thread[0], rig->vm, NR_IDLE, false);
        for (unsigned i = 0; i < NR_IDLE; i++)
            ck_assert_int_eq(mm_fault(idle[i], rig->vm, gpa_of(i), MM_FAULT_WRITE), 0);
    }
    mm_rig_check(rig);
    for (gfn = 0; gfn < rig->nr_pages && mm_rig_touch(rig, 0, gfn) == 0;)
        gfn++;
    ck_assert_uint_gt(gfn, 16 * MIB / PAGE_BYTES / 8 * 7);
    for (unsigned i = 0; i < NR_IDLE; i++)
        mm_thread_destroy(idle[i]);
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
    ck_assert_uint_ge(mm_rig_free_pages(rig), rig->host->node[0].pool.wmark[WMARK_MIN] / 2);
    for (gfn_t gfn = 0; gfn < 2800; gfn++)
        mm_rig_verify(rig, 0, gfn);
    mm_rig_destroy(rig);
}
END_TEST

#define SECOND_NS UINT64_C(1000000000)
#define HOUR_NS (3600 * SECOND_NS)
#define NR_REFUSED 1500u
#define NR_WRITTEN 4300u

/*
 * Most of the budget is in pages that cannot be stored and in zram, so that little is left to reclaim, and yet many pages
 * of text find room. Before that the host thrashed; when nothing was stored any more, no epoch ended.
 */
static struct mm_rig *rig_after_thrashing(void)
{
    struct mm_rig *rig = mm_rig_create(&zram_only, 24 * MIB, 1);
    mm_rig_fill(rig, 0, NR_REFUSED, RANDOM);
    mm_reclaim(rig->thread[0], rig->vm, NR_REFUSED, true);
    mm_rig_fill(rig, NR_REFUSED, NR_WRITTEN, TEXT);
    fake_host_advance_ns(rig->fh, HOUR_NS);
    mm_rig_has_thrashed(rig, 1000, SECOND_NS);
    return rig;
}

START_TEST(test_mm_thrashing_of_long_ago_stops_no_vm)
{
    struct mm_rig *rig = rig_after_thrashing();
    fake_host_advance_ns(rig->fh, HOUR_NS);
    mm_rig_fill(rig, NR_WRITTEN, NR_WRITTEN + 300, TEXT);
    mm_rig_destroy(rig);
}
END_TEST

/* The same without the hour. */
START_TEST(test_mm_thrashing_until_now_stops_a_vm)
{
    struct mm_rig *rig = rig_after_thrashing();
    gfn_t gfn = NR_WRITTEN;
    while (gfn < NR_WRITTEN + 300 && !mm_rig_write(rig, 0, gfn, TEXT))
        gfn++;
    ck_assert_uint_lt(gfn, NR_WRITTEN + 200);
    mm_rig_destroy(rig);
}
END_TEST

/* It does not go on from where it was. */
START_TEST(test_mm_thrashing_after_an_hour_of_calm_is_counted_anew)
{
    struct mm_rig *rig = rig_after_thrashing();
    const uint32_t epoch = rig->host->lru.epoch;
    fake_host_advance_ns(rig->fh, HOUR_NS);
    rig->host->lru.mistakes = NR_WRITTEN;
    for (gfn_t gfn = NR_WRITTEN; rig->host->lru.epoch == epoch; gfn++)
        ck_assert_int_eq(mm_rig_write(rig, 0, gfn, TEXT), 0);
    ck_assert_uint_eq(rig->host->lru.nr_thrashing, 1);
    mm_rig_destroy(rig);
}
END_TEST

/* Epochs that took an hour each: it is not for the scanner, nor for reclaim, to wait for fifteen hours. */
START_TEST(test_mm_thrashing_in_long_epochs_is_over_when_mistakes_end)
{
    struct mm_rig *rig = rig_after_thrashing();
    for (unsigned i = 0; i < 16; i++) {
        fake_host_advance_ns(rig->fh, HOUR_NS);
        mm_rig_has_thrashed(rig, 1000, HOUR_NS);
    }
    ck_assert_uint_eq(evict_nr_thrashing(rig->host), 1000);
    fake_host_advance_ns(rig->fh, 2 * SECOND_NS);
    ck_assert_uint_eq(evict_nr_thrashing(rig->host), 0);
    mm_rig_destroy(rig);
}
END_TEST

/* It goes on at a quarter of the speed, and then hardly at all. */
START_TEST(test_mm_thrashing_that_slows_down_goes_on)
{
    struct mm_rig *rig = rig_after_thrashing();
    uint32_t pages = (uint32_t)host_nr_resident(rig->host) / 2;
    mm_rig_has_thrashed(rig, 1000, 60 * SECOND_NS);
    for (unsigned i = 1; i <= 4; i++) {
        fake_host_advance_ns(rig->fh, 60 * SECOND_NS);
        rig->host->lru.mistakes = pages / 4 * i;
        ck_assert_uint_eq(evict_nr_thrashing(rig->host), 1000);
    }
    fake_host_advance_ns(rig->fh, 240 * SECOND_NS);
    ck_assert_uint_eq(evict_nr_thrashing(rig->host), 0);
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
    tcase_add_test(cases, test_mm_pages_that_a_full_disk_refuses_do_not_hide_compressible_ones);
    tcase_add_test(cases, test_mm_swap_area_on_a_full_disk_leaves_it_to_the_next_area);
    tcase_add_test(cases, test_mm_only_the_hot_pages_reclaimable_is_out_of_memory_not_thrashing);
    tcase_add_test(cases, test_mm_loop_over_a_little_more_than_fits_goes_on);
    tcase_add_test(cases, test_mm_random_access_to_a_little_more_than_fits_goes_on);
    tcase_add_test(cases, test_mm_thrashing_ended_by_the_end_of_a_vm_leaves_the_others_alone);
    tcase_add_test(cases, test_mm_sequence_in_long_windows_leaves_the_reserve);
    tcase_add_test(cases, test_mm_sequence_in_long_windows_wakes_kswapd_at_the_low_watermark);
    tcase_add_test(cases, test_mm_first_touch_in_small_budget_leaves_the_reserve);
    tcase_add_test(cases, test_mm_many_threads_hide_no_memory);
    tcase_add_test(cases, test_mm_idle_threads_of_hundreds_of_vms_hide_no_memory);
    tcase_add_test(cases, test_mm_store_larger_than_the_budget_ends_in_refusal);
    tcase_add_test(cases, test_mm_swapoff_leaves_the_reserve);
    tcase_add_test(cases, test_mm_thrashing_in_long_epochs_is_over_when_mistakes_end);
    tcase_add_test(cases, test_mm_thrashing_that_slows_down_goes_on);
    tcase_add_test(cases, test_mm_thrashing_of_long_ago_stops_no_vm);
    tcase_add_test(cases, test_mm_thrashing_until_now_stops_a_vm);
    tcase_add_test(cases, test_mm_thrashing_after_an_hour_of_calm_is_counted_anew);
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
