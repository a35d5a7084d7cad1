/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "mm/frame/slab.h"
#include "tests/unit/model_rng.h"
#include "tests/unit/slab_source.h"

/* Random operations beside an array of what is held; contents carry a tag an object. */

START_TEST(test_slab_random_operations_keep_every_object)
{
    enum { MAX = 200 };
    static const uint32_t model_sizes[][2] = {{24, 0}, {200, 64}, {1500, 0}, {4096, 4096}};
    struct {
        void *object;
        uint8_t tag;
    } held[MAX];
    uint32_t nr = 0, bytes = model_sizes[_i][0];
    struct rng rng = {(uint64_t)_i + 11};
    make(bytes, model_sizes[_i][1], NULL);
    for (unsigned step = 0; step < 3000; step++) {
        bool right = true;
        uint32_t what = rng_below(&rng, 100), favour = step / 400 % 2 ? 70 : 25;
        if (what < 3) {
            long had = source.nr_pages;
            uint32_t given = what == 0 ? slab_shrink(&cache) : slab_reap(&cache);
            right = source.nr_pages == had - (long)given;
        } else if (what < favour && nr < MAX) {
            long had = source.nr_pages;
            source.fail_at = rng_below(&rng, 3);
            held[nr].object = slab_alloc(&cache);
            source.fail_at = 0;
            if (held[nr].object) {
                held[nr].tag = (uint8_t)step;
                fill(held[nr].object, bytes, held[nr].tag);
                nr++;
            } else {
                right = source.nr_pages == had;
            }
        } else if (nr) {
            uint32_t at = rng_below(&rng, nr);
            right = is_filled(held[at].object, bytes, held[at].tag);
            slab_free(&cache, held[at].object);
            held[at] = held[--nr];
        }
        const char *why = "pages or contents";
        right = right && slab_check(&cache, &why) && cache.nr_objects_used == nr;
        ck_assert_msg(right, "size %u step %u: %s", bytes, step, why);
    }
    while (nr)
        slab_free(&cache, held[--nr].object);
    finish();
}
END_TEST

static void *use_cache(void *seed)
{
    void *objects[50];
    uint8_t tag = (uint8_t)(uintptr_t)seed;
    uintptr_t nr_wrong = 0;
    for (unsigned round = 0; round < 100; round++) {
        for (unsigned i = 0; i < 50; i++) {
            objects[i] = slab_alloc(&cache);
            fill(objects[i], 100, tag);
        }
        for (unsigned i = 0; i < 50; i++) {
            nr_wrong += !is_filled(objects[i], 100, tag);
            slab_free(&cache, objects[i]);
        }
        if (round % 10 == 0)
            slab_reap(&cache);
    }
    return (void *)nr_wrong;
}

START_TEST(test_slab_threads_share_a_cache)
{
    pthread_t threads[3];
    make(100, 0, NULL);
    for (uintptr_t i = 0; i < ARRAY_LEN(threads); i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, use_cache, (void *)(i + 1)), 0);
    for (unsigned i = 0; i < ARRAY_LEN(threads); i++) {
        void *nr_wrong;
        pthread_join(threads[i], &nr_wrong);
        ck_assert_ptr_null(nr_wrong);
    }
    finish();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("slab_model");
    TCase *tc = tcase_create("slab_model");
    tcase_add_loop_test(tc, test_slab_random_operations_keep_every_object, 0, 4);
    tcase_add_test(tc, test_slab_threads_share_a_cache);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
