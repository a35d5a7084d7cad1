/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "mm/base/hist.h"
#include "tests/unit/model_rng.h"

static struct hist hist, other;

static void fill(struct hist *into, uint64_t first, uint64_t last)
{
    for (uint64_t ns = first; ns <= last; ns++)
        hist_add(into, ns);
}

START_TEST(test_hist_empty_percentile_is_zero)
{
    ck_assert_uint_eq(hist_percentile(&hist, 50), 0);
    ck_assert_uint_eq(hist_percentile(&hist, 100), 0);
}
END_TEST

START_TEST(test_hist_small_values_are_exact)
{
    fill(&hist, 0, 31);
    ck_assert_uint_eq(hist.count, 32);
    ck_assert_uint_eq(hist.sum_ns, 31 * 32 / 2);
    ck_assert_uint_eq(hist.max_ns, 31);
    for (unsigned i = 1; i <= 32; i++)
        ck_assert_uint_eq(hist_percentile(&hist, 100.0 * i / 32), i - 1);
}
END_TEST

START_TEST(test_hist_percentile_out_of_range_is_first_or_last)
{
    fill(&hist, 3, 12);
    ck_assert_uint_eq(hist_percentile(&hist, 0), 3);
    ck_assert_uint_eq(hist_percentile(&hist, -5), 3);
    ck_assert_uint_eq(hist_percentile(&hist, 100), 12);
    ck_assert_uint_eq(hist_percentile(&hist, 300), 12);
}
END_TEST

START_TEST(test_hist_single_value_is_reported_within_a_sixteenth)
{
    for (unsigned bit = 0; bit < 44; bit++) {
        uint64_t at = UINT64_C(1) << bit;
        for (uint64_t ns = at - 1; ns <= at + 1; ns++) {
            memset(&hist, 0, sizeof(hist));
            hist_add(&hist, ns);
            hist_add(&hist, UINT64_C(1) << 60); /* so that the maximum does not bound the bucket */
            uint64_t seen = hist_percentile(&hist, 50);
            ck_assert_uint_ge(seen, ns);
            ck_assert_uint_le(seen - ns, ns / 16);
        }
    }
}
END_TEST

START_TEST(test_hist_upper_end_is_at_most_max)
{
    hist_add(&hist, 1000);
    ck_assert_uint_eq(hist_percentile(&hist, 50), 1000);
    ck_assert_uint_eq(hist_percentile(&hist, 99), 1000);
}
END_TEST

START_TEST(test_hist_huge_values_stay_in_the_last_bucket)
{
    hist_add(&hist, UINT64_C(1) << 44);
    hist_add(&hist, UINT64_MAX);
    ck_assert_uint_eq(hist.nr[HIST_BUCKETS - 1], 2);
    ck_assert_uint_eq(hist_percentile(&hist, 50), UINT64_MAX);
}
END_TEST

START_TEST(test_hist_merge_equals_adding_all)
{
    static struct hist all;
    struct rng rng = {77};
    for (unsigned i = 0; i < 2000; i++) {
        uint64_t ns = rng_next(&rng) >> (20 + rng_below(&rng, 40));
        hist_add(i % 3 ? &hist : &other, ns);
        hist_add(&all, ns);
    }
    hist_merge(&hist, &other);
    ck_assert_mem_eq(&hist, &all, sizeof(all));
}
END_TEST

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

START_TEST(test_hist_random_values_match_sorted_array)
{
    enum { NR = 3000 };
    static uint64_t sorted[NR];
    struct rng rng = {(uint64_t)_i + 1};
    for (unsigned i = 0; i < NR; i++) {
        sorted[i] = rng_next(&rng) >> (24 + rng_below(&rng, 40));
        hist_add(&hist, sorted[i]);
    }
    qsort(sorted, NR, sizeof(sorted[0]), compare);
    for (unsigned rank = 1; rank <= NR; rank += 7) {
        uint64_t want = sorted[rank - 1], seen = hist_percentile(&hist, 100.0 * (rank - 0.5) / NR);
        ck_assert_msg(seen >= want && seen - want <= want / 16, "seed %d rank %u", _i + 1, rank);
    }
}
END_TEST

static void *add_many(void *arg)
{
    struct rng rng = {(uint64_t)(uintptr_t)arg};
    for (unsigned i = 0; i < 20000; i++)
        hist_add(&hist, rng_below(&rng, 1000000));
    return NULL;
}

START_TEST(test_hist_threads_lose_no_sample)
{
    pthread_t threads[3];
    for (uintptr_t i = 0; i < ARRAY_LEN(threads); i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, add_many, (void *)(i + 1)), 0);
    ck_assert_uint_le(hist_percentile(&hist, 50), 1000000);
    for (unsigned i = 0; i < ARRAY_LEN(threads); i++)
        pthread_join(threads[i], NULL);
    uint64_t nr = 0;
    for (unsigned i = 0; i < HIST_BUCKETS; i++)
        nr += hist.nr[i];
    ck_assert_uint_eq(nr, 60000);
    ck_assert_uint_eq(hist.count, 60000);
}
END_TEST

static void clear(void)
{
    memset(&hist, 0, sizeof(hist));
    memset(&other, 0, sizeof(other));
}

int main(void)
{
    Suite *suite = suite_create("hist");
    TCase *tc = tcase_create("hist");
    tcase_add_checked_fixture(tc, clear, NULL);
    tcase_add_test(tc, test_hist_empty_percentile_is_zero);
    tcase_add_test(tc, test_hist_small_values_are_exact);
    tcase_add_test(tc, test_hist_percentile_out_of_range_is_first_or_last);
    tcase_add_test(tc, test_hist_single_value_is_reported_within_a_sixteenth);
    tcase_add_test(tc, test_hist_upper_end_is_at_most_max);
    tcase_add_test(tc, test_hist_huge_values_stay_in_the_last_bucket);
    tcase_add_test(tc, test_hist_merge_equals_adding_all);
    tcase_add_loop_test(tc, test_hist_random_values_match_sorted_array, 0, 4);
    tcase_add_test(tc, test_hist_threads_lose_no_sample);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
