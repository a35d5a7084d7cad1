/* SPDX-License-Identifier: Apache-2.0 */
/* Pinned pages are in the guest and stay there; nothing else changes for them or for their neighbours. */
#include "tests/unit/mm_rig.h"

#include <errno.h>
#include <pthread.h>
#include <time.h>

static const struct mm_config huge = {.budget_bytes = 16 * MIB, .zram = {.limit_bytes = 4 * MIB}, .thp = true};
static const struct mm_config plain = {.budget_bytes = 8 * MIB, .zram = {.limit_bytes = 4 * MIB}};
static const struct mm_config no_store = {.budget_bytes = 8 * MIB};
static const struct mm_config no_zram = {.budget_bytes = 8 * MIB, .readahead_pages = 1};

static int pin(struct mm_rig *rig, uint64_t gpa, uint64_t bytes)
{
    int err = mm_pin(rig->thread[0], rig->vm, (gpa_t){gpa}, bytes);
    mm_rig_check(rig);
    return err;
}

static void unpin(struct mm_rig *rig, uint64_t gpa, uint64_t bytes)
{
    mm_unpin(rig->vm, (gpa_t){gpa}, bytes);
    mm_rig_check(rig);
}

static uint64_t nr_pins(const struct mm_rig *rig)
{
    uint64_t nr = 0;
    for (gfn_t gfn = 0; gfn < rig->nr_pages; gfn += BLOCK_PAGES)
        nr += vm_block(rig->vm, gfn)->nr_pins;
    return nr;
}

static uint64_t event(struct mm_rig *rig, enum vm_event nr)
{
    return rig->host->event[nr];
}

static void reclaim_all(struct mm_rig *rig)
{
    mm_reclaim(rig->thread[0], rig->vm, rig->nr_pages, true);
    mm_reclaim(rig->thread[0], NULL, rig->nr_pages, true);
    mm_rig_check(rig);
}

START_TEST(test_mm_pin_brings_in_what_is_missing_and_keeps_it)
{
    struct mm_rig *rig = mm_rig_create(&plain, 16 * MIB, 1);
    mm_rig_swapon(rig, "disk", 8192);
    mm_rig_fill(rig, 0, 60, RANDOM);
    mm_rig_fill(rig, 60, 120, TEXT);
    mm_reclaim(rig->thread[0], rig->vm, 120, true);
    mm_rig_fill(rig, 120, 180, TEXT);
    mm_reclaim(rig->thread[0], rig->vm, 60, false);
    ck_assert_str_eq(mm_rig_state(rig, 10), "swap");
    ck_assert_str_eq(mm_rig_state(rig, 70), "zram");
    ck_assert_str_eq(mm_rig_state(rig, 130), "standby");
    ck_assert_int_eq(pin(rig, 5, 200 * PAGE_BYTES), 0);
    for (gfn_t gfn = 0; gfn < 201; gfn++)
        ck_assert(mm_rig_is_present(rig, gfn));
    reclaim_all(rig);
    for (gfn_t gfn = 0; gfn < 201; gfn++)
        ck_assert(mm_rig_is_present(rig, gfn));
    ck_assert_uint_gt(event(rig, EV_take_pinned), 0);
    unpin(rig, 5, 200 * PAGE_BYTES);
    reclaim_all(rig);
    for (gfn_t gfn = 0; gfn < 201; gfn++)
        ck_assert(!mm_rig_is_present(rig, gfn));
    for (gfn_t gfn = 0; gfn < 201; gfn++)
        mm_rig_verify(rig, 0, gfn);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_pin_of_resident_pages_counts_no_fault)
{
    struct mm_rig *rig = mm_rig_create(&huge, 16 * MIB, 1);
    struct mm_page_info info;
    mm_rig_fill(rig, 0, 2 * BLOCK_PAGES, TEXT);
    uint64_t faults = event(rig, EV_pgfault);
    ck_assert_int_eq(pin(rig, 100, 3 * MIB), 0);
    ck_assert_uint_eq(event(rig, EV_pgfault), faults);
    ck_assert_uint_eq(event(rig, EV_pgfault_spurious), 0);
    reclaim_all(rig);
    ck_assert_int_eq(mm_page_info(rig->vm, gpa_of(0), &info), 0);
    ck_assert_str_eq(info.state, "resident");
    ck_assert(info.huge);
    unpin(rig, 100, 3 * MIB);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_pins_nest_and_the_last_one_lets_go)
{
    struct mm_rig *rig = mm_rig_create(&plain, 16 * MIB, 1);
    mm_rig_fill(rig, 0, 100, TEXT);
    ck_assert_int_eq(pin(rig, 0, 10 * PAGE_BYTES), 0);
    ck_assert_int_eq(pin(rig, 9 * PAGE_BYTES, 1), 0);
    ck_assert_uint_eq(nr_pins(rig), 2);
    unpin(rig, 0, 10 * PAGE_BYTES);
    reclaim_all(rig);
    ck_assert(mm_rig_is_present(rig, 9));
    unpin(rig, 9 * PAGE_BYTES, 1);
    reclaim_all(rig);
    ck_assert(!mm_rig_is_present(rig, 9));
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_pin_of_any_bytes_pins_the_blocks_they_touch)
{
    static const struct {
        uint64_t gpa, bytes, blocks;
    } range[] = {
        {0, 0, 0},
        {16 * MIB, 0, 0},
        {123, 0, 0},
        {PAGE_BYTES - 1, 1, 1},
        {PAGE_BYTES - 1, 2, 1},
        {BLOCK_BYTES - 1, 1, 1},
        {BLOCK_BYTES - 1, 2, 2},
        {BLOCK_BYTES, BLOCK_BYTES, 1},
        {BLOCK_BYTES - 1, BLOCK_BYTES + 2, 3},
        {16 * MIB - 1, 1, 1},
    };
    struct mm_rig *rig = mm_rig_create(&plain, 16 * MIB, 1);
    for (unsigned i = 0; i < ARRAY_LEN(range); i++) {
        ck_assert_int_eq(pin(rig, range[i].gpa, range[i].bytes), 0);
        ck_assert_uint_eq(nr_pins(rig), range[i].blocks);
        for (uint64_t at = range[i].gpa & ~(PAGE_BYTES - 1); range[i].bytes && at < range[i].gpa + range[i].bytes;
             at += PAGE_BYTES)
            ck_assert(mm_rig_is_present(rig, (gfn_t)(at >> PAGE_SHIFT)));
        unpin(rig, range[i].gpa, range[i].bytes);
        ck_assert_uint_eq(nr_pins(rig), 0);
    }
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_pin_outside_memory_refused_and_nothing_pinned)
{
    static const struct {
        uint64_t gpa, bytes;
    } wrong[] = {{16 * MIB, 1}, {16 * MIB - 1, 2}, {0, 16 * MIB + 1}, {UINT64_MAX, 1}, {4096, UINT64_MAX}};
    struct mm_rig *rig = mm_rig_create(&plain, 16 * MIB, 1);
    for (unsigned i = 0; i < ARRAY_LEN(wrong); i++)
        ck_assert_int_eq(pin(rig, wrong[i].gpa, wrong[i].bytes), -EFAULT);
    ck_assert_int_eq(mm_plug(rig->thread[0], rig->vm, (gpa_t){4 * MIB}, BLOCK_BYTES, false), 0);
    ck_assert_int_eq(pin(rig, 3 * MIB, 2 * MIB), -EFAULT);
    ck_assert_int_eq(pin(rig, 4 * MIB + 5 * PAGE_BYTES, 2 * MIB), -EFAULT);
    ck_assert_uint_eq(nr_pins(rig), 0);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_pin_whose_page_is_lost_refused_and_nothing_pinned)
{
    struct mm_rig *rig = mm_rig_create(&no_zram, 16 * MIB, 1);
    struct fake_swap *disk = mm_rig_swapon(rig, "disk", 8192);
    mm_rig_fill(rig, 500, 600, RANDOM);
    reclaim_all(rig);
    disk->fail_at = 50;
    disk->fail_error = -EIO;
    ck_assert_int_eq(pin(rig, 500 * PAGE_BYTES, 100 * PAGE_BYTES), -EIO);
    ck_assert_uint_eq(nr_pins(rig), 0);
    ck_assert_int_eq(pin(rig, 500 * PAGE_BYTES, 100 * PAGE_BYTES), -EIO);
    ck_assert_uint_eq(nr_pins(rig), 0);
    ck_assert_int_eq(pin(rig, 500 * PAGE_BYTES, 40 * PAGE_BYTES), 0);
    unpin(rig, 500 * PAGE_BYTES, 40 * PAGE_BYTES);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_pin_whose_host_call_fails_refused_and_nothing_pinned)
{
    for (uint32_t after = 0; after < 2; after++) {
        struct mm_rig *rig = mm_rig_create(&plain, 16 * MIB, 1);
        mm_rig_fill(rig, 1000, 1050, TEXT);
        fake_host_fail(rig->fh,
                       &(struct fake_failure){.op = FAKE_PLACE_COPY, .nth = 3, .err = ENOMEM, .after_pages = after});
        ck_assert_int_eq(pin(rig, 1000 * PAGE_BYTES, 100 * PAGE_BYTES), after ? 0 : -ENOMEM);
        ck_assert_uint_eq(nr_pins(rig), after ? 2 : 0);
        if (after)
            unpin(rig, 1000 * PAGE_BYTES, 100 * PAGE_BYTES);
        for (gfn_t gfn = 1000; gfn < 1100; gfn++)
            mm_rig_verify(rig, 0, gfn);
        mm_rig_destroy(rig);
    }
}
END_TEST

START_TEST(test_mm_all_pinned_and_no_memory_ends_in_enomem)
{
    struct mm_rig *rig = mm_rig_create(&no_store, 64 * MIB, 1);
    gfn_t gfn = 0;
    int err = 0;
    mm_rig_swapon(rig, "disk", 16384);
    for (; gfn < rig->nr_pages && !err; gfn += 16)
        err = pin(rig, gfn * PAGE_BYTES, 16 * PAGE_BYTES);
    ck_assert_int_eq(err, -ENOMEM);
    ck_assert_uint_eq(nr_pins(rig), gfn / 16 - 1);
    /* a guest's fault ends like that too */
    for (gfn_t other = gfn; !err || other == gfn; other++)
        err = mm_fault(rig->thread[0], rig->vm, gpa_of(other), 0);
    ck_assert_int_eq(err, -ENOMEM);
    ck_assert(!mm_kswapd(rig->thread[0], 0));
    mm_rig_check(rig);
    /* let go, all of them can leave, and there is room again */
    for (gfn_t k = 0; k < gfn - 16; k += 16)
        mm_unpin(rig->vm, gpa_of(k), 16 * PAGE_BYTES);
    for (gfn_t k = 0; k < rig->nr_pages; k++)
        mm_rig_verify(rig, 0, k);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_pinned_block_is_not_dropped)
{
    struct mm_rig *rig = mm_rig_create(&huge, 16 * MIB, 1);
    struct mm_vm_stat stat;
    uint64_t dropped;
    mm_rig_fill(rig, 0, 3 * BLOCK_PAGES, TEXT);
    ck_assert_int_eq(pin(rig, 3 * MIB, 1), 0);
    ck_assert_int_eq(mm_drop(rig->thread[0], rig->vm, (gpa_t){0}, 3 * BLOCK_BYTES, MM_DROP_BALLOON, 0, &dropped), 0);
    ck_assert_uint_eq(dropped, 2 * BLOCK_PAGES);
    ck_assert_int_eq(mm_drop(rig->thread[0], rig->vm, (gpa_t){BLOCK_BYTES}, PAGE_BYTES, MM_DROP_FREE, 0, &dropped), 0);
    ck_assert_uint_eq(dropped, 0);
    mm_vm_stat(rig->vm, &stat);
    ck_assert_uint_eq(stat.balloon_bytes, 2 * BLOCK_BYTES);
    unpin(rig, 3 * MIB, 1);
    memset(rig->content, NOTHING, BLOCK_PAGES);
    memset(rig->content + 2 * BLOCK_PAGES, NOTHING, BLOCK_PAGES);
    for (gfn_t gfn = 0; gfn < 3 * BLOCK_PAGES; gfn++)
        mm_rig_verify(rig, 0, gfn);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_swapoff_goes_on_beside_pins)
{
    struct mm_rig *rig = mm_rig_create(&no_zram, 16 * MIB, 1);
    mm_rig_swapon(rig, "disk", 8192);
    mm_rig_fill(rig, 0, 200, RANDOM);
    reclaim_all(rig);
    ck_assert_int_eq(pin(rig, 0, 50 * PAGE_BYTES), 0);
    ck_assert_int_eq(mm_swapoff(rig->thread[0], "disk"), 0);
    for (gfn_t gfn = 0; gfn < 50; gfn++)
        ck_assert(mm_rig_is_present(rig, gfn));
    ck_assert_str_eq(mm_rig_state(rig, 60), "standby");
    unpin(rig, 0, 50 * PAGE_BYTES);
    for (gfn_t gfn = 0; gfn < 200; gfn++)
        mm_rig_verify(rig, 0, gfn);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_pin_takes_pages_out_of_the_balloon)
{
    struct mm_rig *rig = mm_rig_create(&plain, 16 * MIB, 1);
    struct mm_vm_stat stat;
    uint64_t dropped;
    ck_assert_int_eq(mm_drop(rig->thread[0], rig->vm, (gpa_t){0}, BLOCK_BYTES, MM_DROP_BALLOON, 0, &dropped), 0);
    ck_assert_int_eq(pin(rig, 3 * PAGE_BYTES, 2 * PAGE_BYTES), 0);
    mm_vm_stat(rig->vm, &stat);
    ck_assert_uint_eq(stat.balloon_bytes, BLOCK_BYTES - 2 * PAGE_BYTES);
    unpin(rig, 3 * PAGE_BYTES, 2 * PAGE_BYTES);
    mm_rig_destroy(rig);
}
END_TEST

/* ---- a pin that meets others half way ---- */

static struct mm_rig *overtaken;
static uint64_t (*real_clock_ns)(void *ctx);

/* The first to ask for the time is the pin's fault: another thread's fault brings the page in just then. */
static uint64_t overtaking_clock_ns(void *ctx)
{
    struct mm_rig *rig = overtaken;
    overtaken = NULL;
    if (rig)
        ck_assert_int_eq(mm_rig_touch(rig, 1, 700), 0);
    return real_clock_ns(ctx);
}

START_TEST(test_mm_pin_overtaken_by_a_fault_counts_nothing)
{
    struct mm_rig *rig = mm_rig_create(&plain, 16 * MIB, 2);
    struct mm_vm_stat stat;
    real_clock_ns = fake_host_ops(rig->fh)->clock_ns;
    fake_host_ops(rig->fh)->clock_ns = overtaking_clock_ns;
    overtaken = rig;
    ck_assert_int_eq(pin(rig, 700 * PAGE_BYTES, 1), 0);
    ck_assert_ptr_null(overtaken);
    ck_assert_uint_eq(event(rig, EV_pgfault), 1);
    ck_assert_uint_eq(event(rig, EV_pgfault_spurious), 0);
    mm_vm_stat(rig->vm, &stat);
    ck_assert_uint_eq(stat.nr_minor + stat.nr_major, 1);
    unpin(rig, 700 * PAGE_BYTES, 1);
    mm_rig_destroy(rig);
}
END_TEST

static void *pin_main(void *arg)
{
    struct mm_rig *rig = arg;
    return (void *)(intptr_t)mm_pin(rig->thread[1], rig->vm, (gpa_t){BLOCK_BYTES}, 1);
}

START_TEST(test_mm_pin_waits_for_an_unplug_to_be_decided)
{
    for (unsigned unplugged = 0; unplugged < 2; unplugged++) {
        struct mm_rig *rig = mm_rig_create(&plain, 16 * MIB, 2);
        struct block *block = vm_block(rig->vm, BLOCK_PAGES);
        pthread_t thread;
        void *err;
        lock_acquire(&block->lock);
        block->closing = true;
        lock_release(&block->lock);
        ck_assert_int_eq(pthread_create(&thread, NULL, pin_main, rig), 0);
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
        lock_acquire(&block->lock);
        ck_assert_uint_eq(block->nr_pins, 0);
        block->closing = false;
        lock_release(&block->lock);
        int busy = unplugged ? mm_plug(rig->thread[0], rig->vm, (gpa_t){BLOCK_BYTES}, BLOCK_BYTES, false) : 0;
        pthread_join(thread, &err);
        /* whoever came first: it is pinned and plugged, or neither */
        ck_assert_int_eq((int)(intptr_t)err, unplugged && !busy ? -EFAULT : 0);
        ck_assert(!busy || busy == -EBUSY);
        ck_assert_uint_eq(nr_pins(rig), err ? 0 : 1);
        if (!err)
            unpin(rig, BLOCK_BYTES, 1);
        mm_rig_destroy(rig);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("mm_pin");
    TCase *cases = tcase_create("cases");
    tcase_set_timeout(cases, 120);
    tcase_add_test(cases, test_mm_pin_brings_in_what_is_missing_and_keeps_it);
    tcase_add_test(cases, test_mm_pin_of_resident_pages_counts_no_fault);
    tcase_add_test(cases, test_mm_pins_nest_and_the_last_one_lets_go);
    tcase_add_test(cases, test_mm_pin_of_any_bytes_pins_the_blocks_they_touch);
    tcase_add_test(cases, test_mm_pin_outside_memory_refused_and_nothing_pinned);
    tcase_add_test(cases, test_mm_pin_whose_page_is_lost_refused_and_nothing_pinned);
    tcase_add_test(cases, test_mm_pin_whose_host_call_fails_refused_and_nothing_pinned);
    tcase_add_test(cases, test_mm_all_pinned_and_no_memory_ends_in_enomem);
    tcase_add_test(cases, test_mm_pinned_block_is_not_dropped);
    tcase_add_test(cases, test_mm_swapoff_goes_on_beside_pins);
    tcase_add_test(cases, test_mm_pin_takes_pages_out_of_the_balloon);
    tcase_add_test(cases, test_mm_pin_overtaken_by_a_fault_counts_nothing);
    tcase_add_test(cases, test_mm_pin_waits_for_an_unplug_to_be_decided);
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
