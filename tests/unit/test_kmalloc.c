/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "mm/frame/slab.h"
#include "tests/unit/slab_source.h"

START_TEST(test_kmalloc_every_size_fits_its_class)
{
    struct kmalloc km;
    uint32_t nr_wrong = 0;
    ck_assert_int_eq(kmalloc_init(&km, &pages), 0);
    for (uint32_t bytes = 1; bytes <= 4096; bytes++) {
        void *object = kmalloc_alloc(&km, bytes);
        uint32_t size = 16;
        unsigned class = 0;
        for (; size < bytes; size *= 2)
            class ++;
        nr_wrong += !object || (uintptr_t)object % size || km.cache[class].nr_objects_used != 1;
        fill(object, bytes, 1);
        kmalloc_free(&km, object, bytes);
    }
    ck_assert_uint_eq(nr_wrong, 0);
    ck_assert_str_eq(km.cache[0].name, "kmalloc-16");
    ck_assert_str_eq(km.cache[NR_KMALLOC - 1].name, "kmalloc-4096");
    kmalloc_fini(&km);
    ck_assert_int_eq(source.nr_pages, 0);
}
END_TEST

START_TEST(test_kmalloc_sizes_out_of_range_are_null)
{
    struct kmalloc km;
    ck_assert_int_eq(kmalloc_init(&km, &pages), 0);
    ck_assert_ptr_null(kmalloc_alloc(&km, 0));
    ck_assert_ptr_null(kmalloc_alloc(&km, 4097));
    ck_assert_ptr_null(kmalloc_alloc(&km, UINT32_MAX));
    source.fail_at = 1;
    ck_assert_ptr_null(kmalloc_alloc(&km, 100));
    kmalloc_fini(&km);
}
END_TEST

START_TEST(test_kmalloc_free_of_impossible_size_traps)
{
    struct kmalloc km;
    ck_assert_int_eq(kmalloc_init(&km, &pages), 0);
    kmalloc_free(&km, kmalloc_alloc(&km, 4096), 4097);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("kmalloc");
    TCase *tc = tcase_create("kmalloc");
    tcase_add_test(tc, test_kmalloc_every_size_fits_its_class);
    tcase_add_test(tc, test_kmalloc_sizes_out_of_range_are_null);
    tcase_add_test_raise_signal(tc, test_kmalloc_free_of_impossible_size_traps, SIGILL);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
