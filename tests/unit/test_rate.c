/* SPDX-License-Identifier: Apache-2.0 */
/* Limits in bytes per second: what a burst is, what is owed after it, what is given back. */
#include "mm/base/rate.h"

#include <check.h>
#include <stdlib.h>

/* A page is a millisecond, so a burst is a hundred of them. */
#define PAGES_PER_S 1000u
#define PAGE_NS UINT64_C(1000000)
#define BURST 100u
#define START_NS (50 * RATE_NS_PER_S)

static const struct rate limited = {.bytes_per_s = PAGES_PER_S * PAGE_BYTES};

/* Pages that pass one by one at @now_ns, at most 10000. */
static unsigned pass(struct rate *rate, uint64_t now_ns)
{
    unsigned nr = 0;
    while (nr < 10000 && rate_take(rate, PAGE_BYTES, now_ns))
        nr++;
    return nr;
}

START_TEST(test_rate_without_a_limit_all_passes)
{
    struct rate rate = {0};
    ck_assert_uint_eq(pass(&rate, START_NS), 10000);
    rate_give_back(&rate, PAGE_BYTES);
    ck_assert_uint_eq(rate.paid_ns, 0);
}
END_TEST

START_TEST(test_rate_a_burst_is_a_tenth_of_a_second_however_long_it_was_quiet)
{
    struct rate rate = limited;
    ck_assert_uint_eq(pass(&rate, START_NS), BURST);
    ck_assert_uint_eq(pass(&rate, START_NS), 0);
    ck_assert_uint_eq(pass(&rate, START_NS + 3600 * RATE_NS_PER_S), BURST);
}
END_TEST

START_TEST(test_rate_what_comes_after_a_burst_passes_at_the_rate)
{
    struct rate rate = limited;
    ck_assert_uint_eq(pass(&rate, START_NS), BURST);
    ck_assert_uint_eq(pass(&rate, START_NS + PAGE_NS - 1), 0);
    ck_assert_uint_eq(pass(&rate, START_NS + PAGE_NS), 1);
    ck_assert_uint_eq(pass(&rate, START_NS + 31 * PAGE_NS), 30);
}
END_TEST

START_TEST(test_rate_more_than_a_burst_passes_when_nothing_is_owed_and_is_owed_afterwards)
{
    struct rate rate = limited;
    ck_assert(rate_take(&rate, 500 * PAGE_BYTES, START_NS));
    ck_assert(!rate_take(&rate, 500 * PAGE_BYTES, START_NS + 500 * PAGE_NS - 1));
    ck_assert_uint_eq(pass(&rate, START_NS + 400 * PAGE_NS), 0);
    ck_assert_uint_eq(pass(&rate, START_NS + 401 * PAGE_NS), 1);
    ck_assert(rate_take(&rate, 500 * PAGE_BYTES, START_NS + 501 * PAGE_NS));
}
END_TEST

START_TEST(test_rate_what_is_given_back_may_pass_again)
{
    struct rate rate = limited;
    ck_assert_uint_eq(pass(&rate, START_NS), BURST);
    for (unsigned i = 0; i < 7; i++)
        rate_give_back(&rate, PAGE_BYTES);
    ck_assert_uint_eq(pass(&rate, START_NS), 7);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("rate");
    TCase *cases = tcase_create("rate");
    tcase_add_test(cases, test_rate_without_a_limit_all_passes);
    tcase_add_test(cases, test_rate_a_burst_is_a_tenth_of_a_second_however_long_it_was_quiet);
    tcase_add_test(cases, test_rate_what_comes_after_a_burst_passes_at_the_rate);
    tcase_add_test(cases, test_rate_more_than_a_burst_passes_when_nothing_is_owed_and_is_owed_afterwards);
    tcase_add_test(cases, test_rate_what_is_given_back_may_pass_again);
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
