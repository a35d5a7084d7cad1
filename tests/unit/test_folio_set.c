/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/folio_set.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>

#include "tests/fake/fail_alloc.h"

#define NR 5000u

/* Far apart, side by side, and the first frame of all. */
static uint64_t head_of(uint64_t i)
{
    return i % 3 ? i * 64 : i << 40 | i;
}

static bool idle_of(uint64_t i)
{
    return i % 7 == 0;
}

static void check_has(const struct folio_set *set, uint64_t from, uint64_t end)
{
    for (uint64_t i = 0; i < NR; i++) {
        bool is_idle;
        bool there = folio_set_find(set, head_of(i), &is_idle);
        ck_assert_int_eq(there, i >= from && i < end);
        ck_assert_int_eq(is_idle, there && idle_of(i));
    }
}

START_TEST(test_folio_set_finds_what_was_added_and_nothing_else)
{
    struct folio_set set = {0};
    check_has(&set, 0, 0);
    for (uint64_t i = 0; i < NR; i++) {
        ck_assert_int_eq(folio_set_add(&set, head_of(i), idle_of(i)), 0);
        if (i % 1000 == 3)
            check_has(&set, 0, i + 1);
    }
    ck_assert_uint_eq(set.nr, NR);
    check_has(&set, 0, NR);
    folio_set_fini(&set);
    check_has(&set, 0, 0);
}
END_TEST

START_TEST(test_folio_set_cleared_is_empty_and_takes_as_many_again_without_memory)
{
    struct folio_set set = {0};
    folio_set_clear(&set);
    for (uint64_t i = 0; i < NR / 2; i++)
        ck_assert_int_eq(folio_set_add(&set, head_of(i), idle_of(i)), 0);
    folio_set_clear(&set);
    check_has(&set, 0, 0);
    int err = 0;
    fail_alloc_at(1);
    for (uint64_t i = NR / 2; i < NR && !err; i++)
        err = folio_set_add(&set, head_of(i), idle_of(i));
    fail_alloc_at(-1);
    ck_assert_int_eq(err, 0);
    check_has(&set, NR / 2, NR);
    folio_set_fini(&set);
}
END_TEST

START_TEST(test_folio_set_without_memory_is_as_it_was)
{
    struct folio_set set = {0};
    uint64_t i = 0;
    fail_alloc_at(1);
    int err = folio_set_add(&set, head_of(0), true);
    fail_alloc_at(-1);
    ck_assert_int_eq(err, -ENOMEM);
    check_has(&set, 0, 0);
    ck_assert_int_eq(folio_set_add(&set, head_of(i++), true), 0);
    fail_alloc_at(1);
    while (!folio_set_add(&set, head_of(i), idle_of(i)))
        i++;
    fail_alloc_at(-1);
    ck_assert_uint_eq(set.nr, i);
    check_has(&set, 0, i);
    ck_assert_int_eq(folio_set_add(&set, head_of(i), idle_of(i)), 0);
    check_has(&set, 0, i + 1);
    folio_set_fini(&set);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("folio_set");
    TCase *tc = tcase_create("folio_set");
    tcase_add_test(tc, test_folio_set_finds_what_was_added_and_nothing_else);
    tcase_add_test(tc, test_folio_set_cleared_is_empty_and_takes_as_many_again_without_memory);
    tcase_add_test(tc, test_folio_set_without_memory_is_as_it_was);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
