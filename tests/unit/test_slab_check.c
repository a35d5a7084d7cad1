/* SPDX-License-Identifier: Apache-2.0 */
/* Bugs of a caller trap; a broken cache is seen by slab_check. */
#include <check.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "mm/frame/slab.h"
#include "tests/unit/slab_source.h"

/* Bugs of a caller trap at once. */

START_TEST(test_slab_free_twice_traps)
{
    make(64, 0, NULL);
    void *object = slab_alloc(&cache);
    slab_free(&cache, object);
    slab_free(&cache, object);
}
END_TEST

START_TEST(test_slab_free_inside_an_object_traps)
{
    make(64, 0, NULL);
    slab_free(&cache, (char *)slab_alloc(&cache) + 8);
}
END_TEST

START_TEST(test_slab_free_of_the_header_traps)
{
    make(64, 0, NULL);
    slab_free(&cache, (void *)((uintptr_t)slab_alloc(&cache) & ~(uintptr_t)4095));
}
END_TEST

START_TEST(test_slab_free_to_another_cache_traps)
{
    static struct slab_cache other;
    make(64, 0, NULL);
    ck_assert_int_eq(slab_cache_init(&other, "other", 64, 0, NULL, &pages), 0);
    slab_free(&other, slab_alloc(&cache));
}
END_TEST

START_TEST(test_slab_free_foreign_page_table_traps)
{
    static struct slab_cache other;
    make(4096, 4096, NULL);
    ck_assert_int_eq(slab_cache_init(&other, "other", 4096, 4096, NULL, &pages), 0);
    if (_i)
        ck_assert_ptr_nonnull(slab_alloc(&other));
    slab_free(&other, slab_alloc(&cache));
}
END_TEST

START_TEST(test_slab_fini_with_objects_traps)
{
    make(64, 0, NULL);
    ck_assert_ptr_nonnull(slab_alloc(&cache));
    slab_cache_fini(&cache);
}
END_TEST

/* slab_check sees each invariant broken. */

static void expect_broken(const char *text)
{
    const char *why = NULL;
    ck_assert(!slab_check(&cache, &why));
    ck_assert_str_eq(why, text);
}

START_TEST(test_slab_check_wrong_counts_are_found)
{
    make(4096, 4096, NULL);
    void *object = slab_alloc(&cache);
    cache.nr_objects_used++;
    expect_broken("slabs or objects were lost");
    cache.nr_objects_used--;
    cache.nr_slabs++;
    expect_broken("slabs or objects were lost");
    cache.nr_slabs--;
    cache.nr_free_slabs++;
    expect_broken("the count of free slabs is wrong");
    cache.nr_free_slabs--;
    cache.nr_free_untouched++;
    expect_broken("the count of free slabs is wrong");
    cache.nr_free_untouched--;
    slab_free(&cache, object);
    finish();
}
END_TEST

START_TEST(test_slab_check_wrong_list_is_found)
{
    make(64, 0, NULL);
    void *object = slab_alloc(&cache);
    cache.full = cache.partial;
    cache.partial = NULL;
    expect_broken("a slab stands on the wrong list");
    cache.partial = cache.full;
    cache.full = NULL;
    slab_free(&cache, object);
    finish();
}
END_TEST

/* An object of the slab is overrun backwards into header and links. */

START_TEST(test_slab_check_overrun_header_is_found)
{
    make(64, 0, NULL);
    char *object = slab_alloc(&cache), saved[PAGE_BYTES];
    char *header = (char *)((uintptr_t)object & ~(uintptr_t)4095);
    size_t header_bytes = (size_t)(object - header);
    const char *why;
    memcpy(saved, header, header_bytes);
    for (size_t at = header_bytes / 2 & ~(size_t)1; at > header_bytes / 4; at -= 2) {
        memset(header + at, 0, 2);
        bool ok = slab_check(&cache, &why);
        memcpy(header, saved, header_bytes);
        ck_assert_msg(!ok, "offset %zu", at);
    }
    slab_free(&cache, object);
    finish();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("slab_check");
    TCase *tc = tcase_create("slab_check");
    tcase_add_test_raise_signal(tc, test_slab_free_twice_traps, SIGILL);
    tcase_add_test_raise_signal(tc, test_slab_free_inside_an_object_traps, SIGILL);
    tcase_add_test_raise_signal(tc, test_slab_free_of_the_header_traps, SIGILL);
    tcase_add_test_raise_signal(tc, test_slab_free_to_another_cache_traps, SIGILL);
    tcase_add_loop_test_raise_signal(tc, test_slab_free_foreign_page_table_traps, SIGILL, 0, 2);
    tcase_add_test_raise_signal(tc, test_slab_fini_with_objects_traps, SIGILL);
    tcase_add_test(tc, test_slab_check_wrong_counts_are_found);
    tcase_add_test(tc, test_slab_check_wrong_list_is_found);
    tcase_add_test(tc, test_slab_check_overrun_header_is_found);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
