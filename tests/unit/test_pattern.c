/* SPDX-License-Identifier: Apache-2.0 */
/* The guest's page patterns and its zipf sampler, compiled for the host. */
#include <check.h>
#include <lz4.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "guest-images/ebbguest/pattern.c"
#include "guest-images/ebbguest/zipf.c"

#define PAGE 4096

static struct page_id make_id(uint32_t gfn, uint16_t generation, int pattern)
{
    return (struct page_id){.gfn = gfn, .generation = generation, .pattern = (uint8_t)pattern, .seed = 42};
}

static void write_page(uint64_t *page, uint32_t gfn, uint16_t generation, int pattern)
{
    struct page_id id = make_id(gfn, generation, pattern);

    page_write(page, &id);
}

static void assert_kind(const uint64_t *page, const struct page_id *id, uint32_t kind)
{
    struct ebb_bad bad;

    ck_assert(!page_check(page, id, &bad));
    ck_assert_uint_eq(bad.kind, kind);
    ck_assert_uint_eq(bad.gfn, id->gfn);
    ck_assert_uint_eq(bad.expected_generation, id->pattern == EBB_PATTERN_ZERO ? 0 : id->generation);
}

START_TEST(test_pattern_written_page_is_right)
{
    uint64_t page[PAGE_WORDS];
    struct ebb_bad bad;

    for (uint32_t gfn = 1; gfn < 30; gfn++) {
        struct page_id id = make_id(gfn * 7919, (uint16_t)(gfn * 331), _i);

        page_write(page, &id);
        ck_assert(page_check(page, &id, &bad));
        for (uint32_t pick = 0; pick < 300; pick++)
            ck_assert(page_check_quick(page, &id, pick, &bad));
    }
}
END_TEST

START_TEST(test_pattern_any_flipped_bit_is_found)
{
    uint64_t page[PAGE_WORDS];
    struct page_id id = make_id(1234, 7, _i);
    struct ebb_bad bad;

    page_write(page, &id);
    for (unsigned bit = 0; bit < PAGE * 8; bit += 97) {
        page[bit / 64] ^= UINT64_C(1) << (bit % 64);
        ck_assert(!page_check(page, &id, &bad));
        ck_assert_uint_ne(bad.kind, EBB_BAD_LOST);
        page[bit / 64] ^= UINT64_C(1) << (bit % 64);
    }
    ck_assert(page_check(page, &id, &bad));
}
END_TEST

START_TEST(test_pattern_torn_page_is_named)
{
    uint64_t page[PAGE_WORDS], newer[PAGE_WORDS];
    struct page_id id = make_id(1234, 8, _i);

    write_page(page, 1234, 7, _i);
    page_write(newer, &id);
    memcpy(page, newer, PAGE / 2); /* the second half is of the generation before */
    assert_kind(page, &id, EBB_BAD_TORN);
}
END_TEST

START_TEST(test_pattern_stale_page_is_named)
{
    uint64_t page[PAGE_WORDS];
    struct page_id id = make_id(1234, 7, _i);
    struct ebb_bad bad;

    for (int old = EBB_PATTERN_SAME; old <= EBB_PATTERN_RANDOM; old++) {
        write_page(page, 1234, 5, old);
        assert_kind(page, &id, EBB_BAD_STALE);
        ck_assert(!page_check_quick(page, &id, 3, &bad));
        ck_assert_uint_eq(bad.found_generation, 5);
    }
}
END_TEST

START_TEST(test_pattern_swapped_page_is_named)
{
    uint64_t page[PAGE_WORDS];
    struct page_id id = make_id(1234, 7, _i);
    struct ebb_bad bad;

    for (int other = EBB_PATTERN_SAME; other <= EBB_PATTERN_RANDOM; other++) {
        write_page(page, 4321, 7, other);
        assert_kind(page, &id, EBB_BAD_SWAPPED);
        ck_assert(!page_check_quick(page, &id, 3, &bad));
        ck_assert_uint_eq(bad.found_gfn, 4321);
    }
}
END_TEST

START_TEST(test_pattern_lost_page_is_named)
{
    uint64_t page[PAGE_WORDS] = {0};
    struct page_id id = make_id(1234, 7, _i);

    assert_kind(page, &id, EBB_BAD_LOST);
}
END_TEST

START_TEST(test_pattern_neighbours_and_generations_differ)
{
    uint64_t a[PAGE_WORDS], b[PAGE_WORDS];
    unsigned equal = 0;

    write_page(a, 1234, 7, EBB_PATTERN_RANDOM);
    write_page(b, 1234, 8, EBB_PATTERN_RANDOM);
    for (unsigned i = HEADER_WORDS; i < PAGE_WORDS; i++)
        equal += a[i] == b[i];
    ck_assert_uint_eq(equal, 0);
    write_page(b, 1235, 7, EBB_PATTERN_RANDOM);
    for (unsigned i = HEADER_WORDS; i < PAGE_WORDS; i++)
        equal += a[i] == b[i];
    ck_assert_uint_eq(equal, 0);
}
END_TEST

static double lz4_ratio(int pattern)
{
    uint64_t page[PAGE_WORDS];
    char out[LZ4_COMPRESSBOUND(PAGE)];
    uint64_t bytes = 0, nr = 200;

    for (uint32_t gfn = 0; gfn < nr; gfn++) {
        write_page(page, gfn, 1, pattern);
        bytes += (uint64_t)LZ4_compress_default((const char *)page, out, PAGE, sizeof(out));
    }
    return (double)(nr * PAGE) / (double)bytes;
}

START_TEST(test_pattern_text_compresses_three_to_one_random_not)
{
    ck_assert_double_gt(lz4_ratio(EBB_PATTERN_TEXT), 2.7);
    ck_assert_double_lt(lz4_ratio(EBB_PATTERN_TEXT), 3.3);
    ck_assert_double_lt(lz4_ratio(EBB_PATTERN_RANDOM), 1.01);
}
END_TEST

START_TEST(test_pattern_mixed_keeps_its_shares)
{
    unsigned nr[EBB_NR_PATTERNS] = {0};

    for (uint32_t i = 0; i < 1600; i++)
        nr[pattern_of(EBB_PATTERN_MIXED, i)]++;
    ck_assert_uint_eq(nr[EBB_PATTERN_ZERO], 200);
    ck_assert_uint_eq(nr[EBB_PATTERN_SAME], 200);
    ck_assert_uint_eq(nr[EBB_PATTERN_TEXT], 800);
    ck_assert_uint_eq(nr[EBB_PATTERN_RANDOM], 400);
    ck_assert_uint_eq(pattern_of(EBB_PATTERN_TEXT, 3), EBB_PATTERN_TEXT);
}
END_TEST

/* --- zipf ------------------------------------------------------------------------------------------ */

/* Integer power against libm's. */
START_TEST(test_zipf_weight_matches_pow)
{
    for (uint32_t theta = 0; theta <= 2000; theta += 250) {
        for (uint32_t rank = 1; rank < 3000000; rank = rank * 3 / 2 + 1) {
            double want = pow(rank, -(double)theta / 1000);
            double got = (double)weight_q62(rank - 1, rank, theta) / (double)ONE_Q62;

            ck_assert_double_eq_tol(got / want, 1, 1e-6);
        }
    }
}
END_TEST

/* A bucket's share of all draws, exactly, from the alias table. */
static double bucket_share(const struct zipf *zipf, uint32_t wanted)
{
    double share = 0;

    for (uint32_t i = 0; i < zipf->nr_buckets; i++) {
        double own = (double)(zipf->bucket[i].threshold < zipf->total ? zipf->bucket[i].threshold : zipf->total) /
                     (double)zipf->total;

        if (i == wanted)
            share += own;
        if (zipf->bucket[i].alias == wanted && own < 1)
            share += 1 - own;
    }
    return share / zipf->nr_buckets;
}

static const struct {
    uint32_t nr, theta_milli;
} zipfs[] = {{1, 990}, {2, 500}, {64, 990}, {65, 0}, {1000, 990}, {51200, 0}, {51200, 990}, {51200, 2000}};

START_TEST(test_zipf_table_holds_the_distribution)
{
    struct zipf *zipf = malloc(sizeof(*zipf));
    uint32_t nr = zipfs[_i].nr;
    double theta = zipfs[_i].theta_milli / 1000.0, sum = 0;

    zipf_init(zipf, nr, zipfs[_i].theta_milli);
    for (uint32_t rank = 1; rank <= nr; rank++)
        sum += pow(rank, -theta);
    for (uint32_t i = 0; i < zipf->nr_buckets; i++) {
        double want = 0;

        for (uint32_t rank = zipf->bucket[i].start; rank < zipf->bucket[i + 1].start; rank++)
            want += pow(rank + 1, -theta);
        ck_assert_double_eq_tol(bucket_share(zipf, i), want / sum, want / sum * 0.001 + 1e-9);
    }
    ck_assert_uint_eq(zipf->bucket[zipf->nr_buckets].start, nr);
    free(zipf);
}
END_TEST

START_TEST(test_zipf_samples_stay_in_range)
{
    struct zipf *zipf = malloc(sizeof(*zipf));
    uint64_t rng = 5;
    uint32_t first = 0, nr = zipfs[_i].nr;

    zipf_init(zipf, nr, zipfs[_i].theta_milli);
    for (unsigned i = 0; i < 4000; i++) {
        uint32_t rank = zipf_sample(zipf, &rng);

        ck_assert_uint_lt(rank, nr);
        first += rank == 0;
    }
    if (zipfs[_i].theta_milli >= 500)
        ck_assert_uint_gt(first, 200);
    free(zipf);
}
END_TEST

START_TEST(test_zipf_largest_range_fits_its_table)
{
    struct zipf *zipf = malloc(sizeof(*zipf));

    zipf_init(zipf, UINT32_MAX, 990);
    ck_assert_uint_le(zipf->nr_buckets, ZIPF_MAX_BUCKETS);
    ck_assert_uint_eq(zipf->bucket[zipf->nr_buckets].start, UINT32_MAX);
    free(zipf);
}
END_TEST

START_TEST(test_scatter_is_one_to_one)
{
    static uint8_t seen[2500];

    for (uint32_t nr = 1; nr < 2500; nr = nr * 2 + 1) {
        memset(seen, 0, sizeof(seen));
        for (uint32_t i = 0; i < nr; i++) {
            uint32_t to = scatter(i, nr, (uint64_t)_i);

            ck_assert_uint_lt(to, nr);
            ck_assert_uint_eq(seen[to]++, 0);
        }
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("pattern");
    TCase *pages = tcase_create("pages"), *zipf = tcase_create("zipf");
    const int nr_zipfs = sizeof(zipfs) / sizeof(zipfs[0]);

    tcase_add_loop_test(pages, test_pattern_written_page_is_right, 0, EBB_PATTERN_MIXED);
    tcase_add_loop_test(pages, test_pattern_any_flipped_bit_is_found, 0, EBB_PATTERN_MIXED);
    tcase_add_loop_test(pages, test_pattern_torn_page_is_named, EBB_PATTERN_SAME, EBB_PATTERN_MIXED);
    tcase_add_loop_test(pages, test_pattern_stale_page_is_named, 0, EBB_PATTERN_MIXED);
    tcase_add_loop_test(pages, test_pattern_swapped_page_is_named, 0, EBB_PATTERN_MIXED);
    tcase_add_loop_test(pages, test_pattern_lost_page_is_named, EBB_PATTERN_SAME, EBB_PATTERN_MIXED);
    tcase_add_test(pages, test_pattern_neighbours_and_generations_differ);
    tcase_add_test(pages, test_pattern_text_compresses_three_to_one_random_not);
    tcase_add_test(pages, test_pattern_mixed_keeps_its_shares);
    suite_add_tcase(suite, pages);
    tcase_add_test(zipf, test_zipf_weight_matches_pow);
    tcase_add_loop_test(zipf, test_zipf_table_holds_the_distribution, 0, nr_zipfs);
    tcase_add_loop_test(zipf, test_zipf_samples_stay_in_range, 0, nr_zipfs);
    tcase_add_test(zipf, test_zipf_largest_range_fits_its_table);
    tcase_add_loop_test(zipf, test_scatter_is_one_to_one, 0, 3);
    suite_add_tcase(suite, zipf);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
