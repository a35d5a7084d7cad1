/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "mm/frame/slab.h"
#include "tests/unit/slab_source.h"

START_TEST(test_slab_init_bad_sizes_are_refused)
{
    static const uint32_t bad[][2] = {{0, 0}, {7, 0}, {4097, 0}, {64, 3}, {64, 24}, {64, 8192}, {UINT32_MAX, 0}};
    for (unsigned i = 0; i < ARRAY_LEN(bad); i++)
        ck_assert_int_eq(slab_cache_init(&cache, "bad", bad[i][0], bad[i][1], NULL, &pages), -EINVAL);
}
END_TEST

static const uint32_t sizes[][2] = {{8, 0},     {8, 8},     {9, 0},    {24, 16},    {64, 64},     {100, 0},
                                    {100, 128}, {512, 0},   {1000, 0}, {1024, 256}, {2048, 2048}, {2049, 2048},
                                    {3000, 0},  {4088, 16}, {4095, 8}, {4096, 0},   {4096, 4096}, {40, 4096},
                                    {8, 1},     {72, 2},    {16, 2048}};

START_TEST(test_slab_every_size_gives_aligned_objects_that_do_not_overlap)
{
    enum { NR = 300 };
    static uint8_t *objects[NR];
    uint32_t bytes = sizes[_i][0], align = sizes[_i][1] > 8 ? sizes[_i][1] : 8;
    uint32_t nr_wrong = 0;
    make(bytes, sizes[_i][1], NULL);
    for (unsigned i = 0; i < NR; i++) {
        objects[i] = slab_alloc(&cache);
        ck_assert_ptr_nonnull(objects[i]);
        nr_wrong += (uintptr_t)objects[i] % align != 0;
        fill(objects[i], bytes, (uint8_t)(i * 7));
    }
    check();
    for (unsigned i = 0; i < NR; i++)
        nr_wrong += !is_filled(objects[i], bytes, (uint8_t)(i * 7));
    ck_assert_uint_eq(nr_wrong, 0);
    struct slab_stat stat = stat_of_cache();
    ck_assert_uint_eq(stat.nr_used, NR);
    ck_assert_uint_eq(stat.nr_total, stat.nr_slabs * stat.nr_per_slab);
    ck_assert_uint_eq(stat.nr_slabs, (NR + stat.nr_per_slab - 1) / stat.nr_per_slab);
    ck_assert_uint_ge(stat.pages_per_slab * PAGE_BYTES, stat.nr_per_slab * bytes);
    for (unsigned i = 0; i < NR; i++)
        slab_free(&cache, objects[i * 7 % NR]);
    ck_assert_uint_eq(stat_of_cache().nr_used, 0);
    finish();
}
END_TEST

START_TEST(test_slab_page_tables_waste_no_page)
{
    void *tables[64];
    make(4096, 4096, NULL);
    for (unsigned i = 0; i < 64; i++) {
        tables[i] = slab_alloc(&cache);
        ck_assert_uint_eq((uintptr_t)tables[i] % 4096, 0);
    }
    ck_assert_uint_eq(stat_of_cache().nr_total, 64);
    ck_assert_int_le(source.nr_pages, 64 + 2); /* a page of headers, one to find them */
    for (unsigned i = 0; i < 64; i++)
        slab_free(&cache, tables[i]);
    finish();
}
END_TEST

/* More slabs than the table that finds their headers has buckets. */

START_TEST(test_slab_many_page_tables_are_found_in_long_chains)
{
    enum { NR = 6000 };
    static uint32_t *tables[NR];
    make(4096, 4096, NULL);
    for (uint32_t i = 0; i < NR; i++) {
        tables[i] = slab_alloc(&cache);
        *tables[i] = i;
    }
    check();
    uint32_t nr_wrong = 0;
    for (uint32_t i = 0; i < NR; i++) {
        uint32_t at = i * 4099 % NR;
        nr_wrong += *tables[at] != at;
        slab_free(&cache, tables[at]);
    }
    ck_assert_uint_eq(nr_wrong, 0);
    check();
    ck_assert_uint_ge(slab_shrink(&cache), NR);
    ck_assert_int_eq(source.nr_pages, 0);
    finish();
}
END_TEST

START_TEST(test_slab_colours_differ_from_slab_to_slab)
{
    make(1000, 0, NULL); /* four in 4096 bytes leave room for colours */
    uint32_t per_slab = stat_of_cache().nr_per_slab;
    void *objects[16] = {NULL};
    ck_assert_uint_le(per_slab * 2, ARRAY_LEN(objects));
    for (uint32_t i = 0; i < per_slab * 2; i++)
        objects[i] = slab_alloc(&cache);
    ck_assert_uint_ne((uintptr_t)objects[0] % 4096, (uintptr_t)objects[per_slab] % 4096);
    for (uint32_t i = 0; i < per_slab * 2; i++)
        slab_free(&cache, objects[i]);
    finish();
}
END_TEST

static unsigned nr_constructed;

static void construct(void *object)
{
    fill(object, 48, 99);
    nr_constructed++;
}

START_TEST(test_slab_ctor_runs_once_an_object_and_content_stays)
{
    make(48, 0, construct);
    uint32_t per_slab = stat_of_cache().nr_per_slab;
    void *object = slab_alloc(&cache);
    ck_assert_uint_eq(nr_constructed, per_slab);
    ck_assert(is_filled(object, 48, 99));
    slab_free(&cache, object);
    ck_assert(is_filled(object, 48, 99)); /* the free chain is not in the object */
    ck_assert_ptr_eq(slab_alloc(&cache), object);
    ck_assert(is_filled(object, 48, 99));
    ck_assert_uint_eq(nr_constructed, per_slab);
    slab_free(&cache, object);
    finish();
}
END_TEST

START_TEST(test_slab_ctor_off_slab_objects_are_constructed)
{
    make(4096, 4096, construct);
    void *object = slab_alloc(&cache);
    ck_assert_uint_eq(nr_constructed, 8);
    ck_assert(is_filled(object, 48, 99));
    slab_free(&cache, object);
    finish();
}
END_TEST

START_TEST(test_slab_lists_follow_use)
{
    make(1000, 0, NULL);
    uint32_t per_slab = stat_of_cache().nr_per_slab;
    void *objects[8];
    for (uint32_t i = 0; i < per_slab; i++) {
        objects[i] = slab_alloc(&cache);
        ck_assert_int_eq(cache.partial != NULL, i + 1 < per_slab);
        ck_assert_int_eq(cache.full != NULL, i + 1 == per_slab);
    }
    slab_free(&cache, objects[0]);
    ck_assert_ptr_nonnull(cache.partial);
    ck_assert_ptr_null(cache.full);
    for (uint32_t i = 1; i < per_slab; i++)
        slab_free(&cache, objects[i]);
    ck_assert_ptr_null(cache.partial);
    ck_assert_ptr_nonnull(cache.free);
    ck_assert_uint_eq(cache.nr_free_slabs, 1);
    finish();
}
END_TEST

START_TEST(test_slab_partial_slabs_are_used_before_free_ones)
{
    make(1000, 0, NULL);
    uint32_t per_slab = stat_of_cache().nr_per_slab;
    void *objects[24];
    for (uint32_t i = 0; i < per_slab * 3; i++)
        objects[i] = slab_alloc(&cache);
    for (uint32_t i = 1; i < per_slab * 3; i++)
        slab_free(&cache, objects[i]); /* one slab partial, two free */
    ck_assert_uint_eq(cache.nr_free_slabs, 2);
    for (uint32_t i = 1; i < per_slab; i++)
        objects[i] = slab_alloc(&cache);
    ck_assert_uint_eq(cache.nr_free_slabs, 2);
    for (uint32_t i = 0; i < per_slab; i++)
        slab_free(&cache, objects[i]);
    finish();
}
END_TEST

START_TEST(test_slab_shrink_gives_free_slabs_back_only)
{
    make(512, 0, NULL);
    uint32_t per_slab = stat_of_cache().nr_per_slab;
    void *objects[64];
    ck_assert_uint_eq(slab_shrink(&cache), 0);
    for (uint32_t i = 0; i < per_slab * 3; i++)
        objects[i] = slab_alloc(&cache);
    ck_assert_uint_eq(slab_shrink(&cache), 0);
    for (uint32_t i = 0; i < per_slab * 2; i++)
        slab_free(&cache, objects[i]);
    long had = source.nr_pages;
    uint32_t given = slab_shrink(&cache);
    ck_assert_uint_eq(given, 2 * stat_of_cache().pages_per_slab);
    ck_assert_int_eq(source.nr_pages, had - (long)given);
    check();
    ck_assert_uint_eq(stat_of_cache().nr_slabs, 1);
    for (uint32_t i = per_slab * 2; i < per_slab * 3; i++)
        slab_free(&cache, objects[i]);
    finish();
}
END_TEST

START_TEST(test_slab_shrink_off_slab_counts_header_pages)
{
    void *objects[20];
    make(4096, 4096, NULL);
    for (unsigned i = 0; i < 20; i++)
        objects[i] = slab_alloc(&cache);
    for (unsigned i = 0; i < 20; i++)
        slab_free(&cache, objects[i]);
    long had = source.nr_pages;
    ck_assert_int_eq((long)slab_shrink(&cache), had);
    ck_assert_int_eq(source.nr_pages, 0);
    check();
    ck_assert_ptr_nonnull(objects[0] = slab_alloc(&cache)); /* and it starts anew */
    slab_free(&cache, objects[0]);
    finish();
}
END_TEST

START_TEST(test_slab_reap_takes_slabs_free_since_the_last_round)
{
    make(1000, 0, NULL);
    uint32_t per_slab = stat_of_cache().nr_per_slab;
    void *objects[40];
    ck_assert_uint_le(per_slab * 4, ARRAY_LEN(objects));
    for (uint32_t i = 0; i < per_slab * 4; i++)
        objects[i] = slab_alloc(&cache);
    for (uint32_t i = 0; i < per_slab * 4; i++)
        slab_free(&cache, objects[i]);
    ck_assert_uint_eq(slab_reap(&cache), 0); /* they have just become free */
    check();
    objects[0] = slab_alloc(&cache); /* the first of the list is in use again */
    slab_free(&cache, objects[0]);
    ck_assert_uint_eq(slab_reap(&cache), 3 * stat_of_cache().pages_per_slab);
    check();
    ck_assert_uint_eq(slab_reap(&cache), 1 * stat_of_cache().pages_per_slab);
    ck_assert_int_eq(source.nr_pages, 0);
    ck_assert_uint_eq(slab_reap(&cache), 0);
    finish();
}
END_TEST

/* Each page that the source is asked for fails once; nothing may change. */

START_TEST(test_slab_alloc_without_page_is_null_and_unchanged)
{
    uint32_t bytes = _i ? 4096 : 64, nr_calls = _i ? 3 : 1;
    make(bytes, bytes, NULL);
    for (uint32_t nth = 1; nth <= nr_calls; nth++) {
        source.fail_at = (long)nth;
        ck_assert_ptr_null(slab_alloc(&cache));
        ck_assert_int_eq(source.fail_at, 0);
        ck_assert_int_eq(source.nr_pages, 0);
        ck_assert_uint_eq(stat_of_cache().nr_slabs, 0);
        check();
    }
    source.fail_at = (long)nr_calls + 1;
    void *object = slab_alloc(&cache);
    ck_assert_ptr_nonnull(object);
    ck_assert_int_eq(source.fail_at, 1); /* no further call was made */
    source.fail_at = 0;
    slab_free(&cache, object);
    finish();
}
END_TEST

START_TEST(test_slab_alloc_without_page_keeps_other_slabs)
{
    enum { NR = 8 };
    void *objects[NR];
    make(4096, 4096, NULL);
    for (unsigned i = 0; i < NR; i++) {
        objects[i] = slab_alloc(&cache);
        fill(objects[i], 4096, (uint8_t)i);
    }
    long had = source.nr_pages;
    source.fail_at = 1;
    ck_assert_ptr_null(slab_alloc(&cache));
    ck_assert_int_eq(source.nr_pages, had);
    ck_assert_uint_eq(stat_of_cache().nr_used, NR);
    check();
    for (unsigned i = 0; i < NR; i++) {
        ck_assert(is_filled(objects[i], 4096, (uint8_t)i));
        slab_free(&cache, objects[i]);
    }
    finish();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("slab");
    TCase *tc = tcase_create("slab");
    tcase_add_test(tc, test_slab_init_bad_sizes_are_refused);
    tcase_add_loop_test(tc, test_slab_every_size_gives_aligned_objects_that_do_not_overlap, 0, ARRAY_LEN(sizes));
    tcase_add_test(tc, test_slab_page_tables_waste_no_page);
    tcase_add_test(tc, test_slab_many_page_tables_are_found_in_long_chains);
    tcase_add_test(tc, test_slab_colours_differ_from_slab_to_slab);
    tcase_add_test(tc, test_slab_ctor_runs_once_an_object_and_content_stays);
    tcase_add_test(tc, test_slab_ctor_off_slab_objects_are_constructed);
    tcase_add_test(tc, test_slab_lists_follow_use);
    tcase_add_test(tc, test_slab_partial_slabs_are_used_before_free_ones);
    tcase_add_test(tc, test_slab_shrink_gives_free_slabs_back_only);
    tcase_add_test(tc, test_slab_shrink_off_slab_counts_header_pages);
    tcase_add_test(tc, test_slab_reap_takes_slabs_free_since_the_last_round);
    tcase_add_loop_test(tc, test_slab_alloc_without_page_is_null_and_unchanged, 0, 2);
    tcase_add_test(tc, test_slab_alloc_without_page_keeps_other_slabs);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
