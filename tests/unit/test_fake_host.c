/* SPDX-License-Identifier: Apache-2.0 */
/* The fakes: what every other test relies on. */
#include "tests/fake/fail_alloc.h"
#include "tests/fake/fake_host.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define VM 1
#define SLOTS (4 * BLOCK_PAGES)
#define GUEST_PAGES (4 * BLOCK_PAGES)

static struct fake_host *fh;
static struct host_ops *ops;

static void setup(void)
{
    fh = fake_host_create(SLOTS);
    ops = fake_host_ops(fh);
    fake_host_add_vm(fh, VM, GUEST_PAGES);
}

static void teardown(void)
{
    fake_host_destroy(fh);
}

static uint8_t *slot(fn_t fn)
{
    return (uint8_t *)fake_host_arena(fh) + fn * PAGE_BYTES;
}

static struct fake_host_stat stat_of(void)
{
    struct fake_host_stat stat;
    fake_host_stat(fh, &stat);
    return stat;
}

static void assert_no_breach(void)
{
    ck_assert_msg(!fake_host_breach(fh), "%s", fake_host_breach(fh));
}

static void assert_breach(const char *words)
{
    ck_assert_ptr_nonnull(fake_host_breach(fh));
    ck_assert_ptr_nonnull(strstr(fake_host_breach(fh), words));
}

static void place(gfn_t gfn, fn_t fn, uint32_t nr)
{
    uint32_t done;
    ck_assert_int_eq(ops->place(fh, VM, gfn, fn, nr, &done), 0);
    ck_assert_uint_eq(done, nr);
}

START_TEST(test_fake_host_page_travels_content_kept)
{
    uint32_t done, word = 0;
    ck_assert_uint_eq((uintptr_t)fake_host_arena(fh) % BLOCK_BYTES, 0);
    ck_assert_int_eq(ops->populate(fh, 7, 2), 0);
    ck_assert_uint_eq(slot(8)[4095], 0);
    memcpy(slot(8), "page", 4);
    place(100, 7, 2);
    ck_assert(!fake_host_is_filled(fh, 8) && fake_host_is_present(fh, VM, 101));
    ck_assert_int_eq(fake_host_guest_read(fh, VM, 101, 0, &word, 4), 0);
    ck_assert_mem_eq(&word, "page", 4);
    ck_assert_int_eq(fake_host_guest_write(fh, VM, 101, 4092, "tail", 4), 0);
    ck_assert_int_eq(ops->take(fh, VM, 100, 20, 4, &done), 0);
    ck_assert_uint_eq(done, 4);
    ck_assert(fake_host_is_filled(fh, 20) && fake_host_is_filled(fh, 21) && !fake_host_is_filled(fh, 22));
    ck_assert_mem_eq(slot(21), "page", 4);
    ck_assert_mem_eq(slot(21) + 4092, "tail", 4);
    ck_assert_int_eq(fake_host_guest_read(fh, VM, 101, 0, &word, 4), -EFAULT);
    ops->release(fh, 20, 2);
    ck_assert_uint_eq(stat_of().physical_pages, 0);
    ck_assert_uint_eq(stat_of().peak_pages, 2);
    assert_no_breach();
}
END_TEST

START_TEST(test_fake_host_copy_and_drop_counted)
{
    uint32_t done;
    char src[2 * 4096] = "first";
    fake_host_set_budget(fh, 2);
    ck_assert_int_eq(ops->place_copy(fh, VM, 5, src, 2, 0, &done), 0);
    ck_assert_uint_eq(stat_of().present_pages, 2);
    ops->drop(fh, VM, 0, 16);
    ck_assert_uint_eq(stat_of().nr_drop_pages, 2);
    ck_assert_uint_eq(stat_of().physical_pages, 0);
    assert_no_breach();
    ck_assert_int_eq(ops->populate(fh, 0, 3), 0);
    assert_breach("budget");
}
END_TEST

START_TEST(test_fake_host_transient_pages_reach_the_peak)
{
    uint32_t done;
    ops->transient_pages = 4;
    ck_assert_int_eq(ops->populate(fh, 0, 8), 0);
    place(0, 0, 8);
    ck_assert_int_eq(ops->take(fh, VM, 0, 8, 2, &done), 0);
    ck_assert_uint_eq(stat_of().peak_pages, 12);
    assert_no_breach();
}
END_TEST

START_TEST(test_fake_host_huge_page_moves_as_one_and_splits)
{
    uint32_t done;
    ck_assert_int_eq(ops->populate(fh, BLOCK_PAGES, BLOCK_PAGES), 0);
    place(BLOCK_PAGES, BLOCK_PAGES, BLOCK_PAGES);
    ck_assert_int_eq(ops->take(fh, VM, BLOCK_PAGES, BLOCK_PAGES, BLOCK_PAGES, &done), 0);
    place(0, BLOCK_PAGES, BLOCK_PAGES);
    ck_assert_uint_eq(stat_of().nr_huge_place, 2);
    ck_assert_uint_eq(stat_of().nr_huge_take, 1);
    ck_assert_uint_eq(stat_of().nr_splits, 0);
    ck_assert_int_eq(ops->take(fh, VM, 3, 0, 1, &done), 0);
    ck_assert_uint_eq(stat_of().nr_splits, 1);
    ops->drop(fh, VM, 0, BLOCK_PAGES);
    ck_assert_uint_eq(stat_of().nr_splits, 1);
    assert_no_breach();
}
END_TEST

START_TEST(test_fake_host_nth_call_fails_partly_once)
{
    uint32_t done;
    fake_host_fail(fh, &(struct fake_failure){.op = FAKE_PLACE, .nth = 2, .err = ENOMEM, .after_pages = 3});
    ck_assert_int_eq(ops->populate(fh, 0, 16), 0);
    place(0, 0, 1);
    ck_assert(!fake_host_failed(fh));
    ck_assert_int_eq(ops->place(fh, VM, 1, 1, 8, &done), -ENOMEM);
    ck_assert(fake_host_failed(fh));
    ck_assert_uint_eq(done, 3);
    ck_assert(fake_host_is_present(fh, VM, 3) && !fake_host_is_present(fh, VM, 4) && fake_host_is_filled(fh, 4));
    place(4, 4, 5);

    fake_host_fail_at(fh, 1, EAGAIN);
    ck_assert_int_eq(ops->populate(fh, 100, 4), -EAGAIN);
    ck_assert(!fake_host_is_filled(fh, 100));
    ck_assert_int_eq(ops->populate(fh, 100, 4), 0);
    assert_no_breach();
}
END_TEST

START_TEST(test_fake_host_pinned_page_stays)
{
    uint32_t done;
    ck_assert_int_eq(ops->populate(fh, 0, 4), 0);
    place(0, 0, 4);
    fake_host_pin(fh, VM, 2, true);
    ck_assert_int_eq(ops->take(fh, VM, 0, 8, 4, &done), -EBUSY);
    ck_assert_uint_eq(done, 2);
    ck_assert(fake_host_is_present(fh, VM, 2) && fake_host_is_present(fh, VM, 3));
    fake_host_pin(fh, VM, 2, false);
    ck_assert_int_eq(ops->take(fh, VM, 2, 10, 2, &done), 0);
    assert_no_breach();
}
END_TEST

START_TEST(test_fake_host_clock_and_kicks)
{
    uint64_t before = ops->clock_ns(fh);
    fake_host_advance_ns(fh, 1000);
    ck_assert_uint_gt(ops->clock_ns(fh), before + 999);
    ops->kick(fh, MM_KSWAPD(0));
    ops->kick(fh, MM_KSWAPD(0));
    ck_assert_uint_eq(stat_of().nr_kicks[MM_KSWAPD(0)], 2);
    ck_assert_uint_eq(stat_of().nr_kicks[MM_HOUSEKEEPER], 0);
    ops->wake(fh, VM, 3, 1);
    ck_assert_uint_eq(stat_of().nr_wakes, 1);
}
END_TEST

START_TEST(test_fake_host_broken_contract_reported)
{
    uint32_t done;
    char page[4096] = "";
    ck_assert_int_eq(ops->populate(fh, 0, 4), 0);
    switch (_i) {
    case 0:
        ck_assert_int_eq(ops->populate(fh, 3, 2), 0);
        assert_breach("populate: slot 3 is filled");
        break;
    case 1:
        place(0, 0, 1);
        ck_assert_int_eq(ops->place(fh, VM, 0, 1, 1, &done), -EEXIST);
        assert_breach("is present");
        break;
    case 2:
        ck_assert_int_eq(ops->place(fh, VM, 0, 4, 1, &done), -ENOENT);
        assert_breach("is empty");
        break;
    case 3:
        place(0, 0, 1);
        ck_assert_int_eq(ops->take(fh, VM, 0, 1, 1, &done), -EEXIST);
        assert_breach("is filled");
        break;
    case 4:
        ops->release(fh, 2, 3);
        assert_breach("release: slot 4 is empty");
        break;
    case 5:
        ck_assert_int_eq(ops->place_copy(fh, VM, GUEST_PAGES, page, 1, 0, &done), -EINVAL);
        assert_breach("no guest pages");
        break;
    case 6:
        ops->drop(fh, VM + 1, 0, 1);
        assert_breach("no guest pages");
        break;
    case 7:
        ck_assert_int_eq(ops->populate(fh, SLOTS - 1, 2), -EINVAL);
        assert_breach("outside the arena");
        break;
    case 8:
        place(0, 0, 1);
        fake_host_remove_vm(fh, VM);
        assert_breach("still present");
        break;
    default:
        place(0, 0, 1);
        ck_assert_int_eq(ops->place_copy(fh, VM, 0, page, 1, 0, &done), -EEXIST);
        assert_breach("is present");
    }
}
END_TEST

START_TEST(test_fail_alloc_nth_fails_once)
{
    void *volatile p;
    fail_alloc_at(2);
    p = malloc(16);
    bool first = p != NULL;
    free(p);
    p = malloc(16);
    bool second = p != NULL;
    free(p);
    p = malloc(16);
    bool third = p != NULL;
    free(p);
    long count = fail_alloc_count();
    bool fired = fail_alloc_fired();
    fail_alloc_at(-1);
    ck_assert(first && !second && third && fired);
    ck_assert_int_eq(count, 3);
}
END_TEST

START_TEST(test_fail_alloc_every_function_fails)
{
    void *volatile p = NULL;
    void *aligned = NULL;
    fail_alloc_at(1);
    p = calloc(4, 4);
    bool calloc_failed = p == NULL;
    fail_alloc_at(1);
    p = realloc(NULL, 64);
    bool realloc_failed = p == NULL;
    fail_alloc_at(1);
    p = aligned_alloc(64, 64);
    bool aligned_failed = p == NULL;
    fail_alloc_at(1);
    int err = posix_memalign(&aligned, 64, 64);
    fail_alloc_at(-1);
    ck_assert(calloc_failed && realloc_failed && aligned_failed);
    ck_assert_int_eq(err, ENOMEM);
    ck_assert(!fail_alloc_fired());
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("fakes");
    TCase *host = tcase_create("fake_host");
    tcase_add_checked_fixture(host, setup, teardown);
    tcase_add_test(host, test_fake_host_page_travels_content_kept);
    tcase_add_test(host, test_fake_host_copy_and_drop_counted);
    tcase_add_test(host, test_fake_host_transient_pages_reach_the_peak);
    tcase_add_test(host, test_fake_host_huge_page_moves_as_one_and_splits);
    tcase_add_test(host, test_fake_host_nth_call_fails_partly_once);
    tcase_add_test(host, test_fake_host_pinned_page_stays);
    tcase_add_test(host, test_fake_host_clock_and_kicks);
    tcase_add_loop_test(host, test_fake_host_broken_contract_reported, 0, 10);
    suite_add_tcase(suite, host);
    TCase *alloc = tcase_create("fail_alloc");
    tcase_add_test(alloc, test_fail_alloc_nth_fails_once);
    tcase_add_test(alloc, test_fail_alloc_every_function_fails);
    suite_add_tcase(suite, alloc);
    SRunner *sr = srunner_create(suite);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}
