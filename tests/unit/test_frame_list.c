/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <stdlib.h>

#include "mm/frame/frame.h"
#include "tests/unit/model_rng.h"

#define NR_FRAMES 32

static struct frame frames[NR_FRAMES];

/* Do the list's links, both ways, say exactly want[0..nr)? */
static bool list_is(const struct frame_list *list, const fn_t *want, uint32_t nr)
{
    fn_t fn = list->head, prev = FN_NONE;
    for (uint32_t i = 0; i < nr; i++) {
        if (fn != want[i] || frames[fn].prev != prev)
            return false;
        prev = fn;
        fn = frames[fn].next;
    }
    return fn == FN_NONE && list->tail == prev && list->nr == nr;
}

START_TEST(test_frame_list_empty_pops_none)
{
    struct frame_list list;
    frame_list_init(&list);
    ck_assert_uint_eq(frame_list_pop_head(&list, frames), FN_NONE);
    ck_assert_uint_eq(frame_list_pop_tail(&list, frames), FN_NONE);
    ck_assert(list_is(&list, NULL, 0));
}
END_TEST

START_TEST(test_frame_list_both_ends_keep_order)
{
    struct frame_list list;
    frame_list_init(&list);
    frame_list_push_head(&list, frames, 5);
    ck_assert(list_is(&list, (fn_t[]){5}, 1));
    frame_list_push_head(&list, frames, 0);
    frame_list_push_tail(&list, frames, NR_FRAMES - 1);
    ck_assert(list_is(&list, (fn_t[]){0, 5, NR_FRAMES - 1}, 3));
    ck_assert_uint_eq(frame_list_pop_tail(&list, frames), NR_FRAMES - 1);
    ck_assert_uint_eq(frame_list_pop_head(&list, frames), 0);
    ck_assert(list_is(&list, (fn_t[]){5}, 1));
    frame_list_remove(&list, frames, 5);
    ck_assert(list_is(&list, NULL, 0));
    frame_list_push_tail(&list, frames, 7);
    ck_assert(list_is(&list, (fn_t[]){7}, 1));
}
END_TEST

/* The first, the middle, the last, the only one. */
START_TEST(test_frame_list_replace_keeps_the_place)
{
    struct frame_list list;
    frame_list_init(&list);
    for (fn_t fn = 1; fn <= 3; fn++)
        frame_list_push_tail(&list, frames, fn);
    frame_list_replace(&list, frames, 2, 12);
    ck_assert(list_is(&list, (fn_t[]){1, 12, 3}, 3));
    frame_list_replace(&list, frames, 1, 11);
    frame_list_replace(&list, frames, 3, 13);
    ck_assert(list_is(&list, (fn_t[]){11, 12, 13}, 3));
    ck_assert(frames[3].next == FN_NONE && frames[3].prev == FN_NONE);
    frame_list_remove(&list, frames, 11);
    frame_list_remove(&list, frames, 13);
    frame_list_replace(&list, frames, 12, 5);
    ck_assert(list_is(&list, (fn_t[]){5}, 1));
}
END_TEST

START_TEST(test_frame_list_removed_frame_has_no_links)
{
    struct frame_list list;
    frame_list_init(&list);
    for (fn_t fn = 1; fn <= 3; fn++)
        frame_list_push_tail(&list, frames, fn);
    frame_list_remove(&list, frames, 2);
    ck_assert_uint_eq(frames[2].next, FN_NONE);
    ck_assert_uint_eq(frames[2].prev, FN_NONE);
    ck_assert(list_is(&list, (fn_t[]){1, 3}, 2));
}
END_TEST

/* The naive reference: an array in list order. */
struct model {
    fn_t fns[NR_FRAMES];
    uint32_t nr;
    bool on_list[NR_FRAMES];
};

static void model_insert(struct model *model, uint32_t at, fn_t fn)
{
    for (uint32_t i = model->nr++; i > at; i--)
        model->fns[i] = model->fns[i - 1];
    model->fns[at] = fn;
    model->on_list[fn] = true;
}

static fn_t model_remove(struct model *model, uint32_t at)
{
    if (at >= model->nr)
        return FN_NONE;
    fn_t fn = model->fns[at];
    for (model->nr--; at < model->nr; at++)
        model->fns[at] = model->fns[at + 1];
    model->on_list[fn] = false;
    return fn;
}

static void model_step(struct rng *rng, struct model *model, struct frame_list *list)
{
    fn_t fn = rng_below(rng, NR_FRAMES);
    switch (rng_below(rng, 5)) {
    case 0:
        if (!model->on_list[fn]) {
            frame_list_push_head(list, frames, fn);
            model_insert(model, 0, fn);
        }
        break;
    case 1:
        if (!model->on_list[fn]) {
            frame_list_push_tail(list, frames, fn);
            model_insert(model, model->nr, fn);
        }
        break;
    case 2:
        ck_assert_uint_eq(frame_list_pop_head(list, frames), model_remove(model, 0));
        break;
    case 3:
        ck_assert_uint_eq(frame_list_pop_tail(list, frames), model_remove(model, model->nr - 1));
        break;
    default:
        if (model->nr) {
            uint32_t at = rng_below(rng, model->nr);
            frame_list_remove(list, frames, model->fns[at]);
            model_remove(model, at);
        }
    }
}

START_TEST(test_frame_list_random_operations_match_array)
{
    struct rng rng = {(uint64_t)_i + 1};
    struct model model = {.nr = 0};
    struct frame_list list;
    frame_list_init(&list);
    for (unsigned step = 0; step < 5000; step++) {
        model_step(&rng, &model, &list);
        ck_assert_msg(list_is(&list, model.fns, model.nr), "seed %d step %u", _i + 1, step);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("frame_list");
    TCase *tc = tcase_create("frame_list");
    tcase_add_test(tc, test_frame_list_empty_pops_none);
    tcase_add_test(tc, test_frame_list_both_ends_keep_order);
    tcase_add_test(tc, test_frame_list_replace_keeps_the_place);
    tcase_add_test(tc, test_frame_list_removed_frame_has_no_links);
    tcase_add_loop_test(tc, test_frame_list_random_operations_match_array, 0, 4);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
