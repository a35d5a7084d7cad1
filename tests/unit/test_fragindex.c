/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <stdlib.h>

#include "mm/frame/fragindex.h"

struct example {
    const char *what;
    uint32_t nr_blocks[MAX_ORDER + 1];
    unsigned order;
    int extfrag, unusable;
};

static const struct example examples[] = {
    {"nothing is free", {0}, 0, 0, 1000},
    {"nothing is free, large", {0}, MAX_ORDER, 0, 1000},
    {"a page for a page", {1}, 0, -1000, 0},
    {"a page for two", {1}, 1, 0, 1000},
    {"one block of 2 MiB", {[9] = 1}, 9, -1000, 0},
    {"one of 4 MiB serves 2 MiB", {[10] = 1}, 9, -1000, 0},
    {"one of 2 MiB does not serve 4 MiB", {[9] = 1}, 10, 0, 1000},
    {"512 single pages for 2 MiB: pieces", {512}, 9, 1000 - 2000 / 512, 1000},
    {"8 single pages for 2 MiB: too few", {8}, 9, 1000 - (1000 + 8000 / 512) / 8, 1000},
    {"2 pieces of half", {[8] = 2}, 9, 0, 1000},
    {"half of it in one piece", {[0] = 512, [9] = 1}, 9, -1000, 500},
    {"a third", {[3] = 64, [9] = 2}, 9, -1000, 333},
    {"a terabyte in single pages", {UINT32_C(1) << 28}, 9, 1000 - 1, 1000},
    {"the largest numbers", {[10] = UINT32_MAX}, 10, -1000, 0},
};

START_TEST(test_fragindex_examples_are_as_expected)
{
    const struct example *e = &examples[_i];
    ck_assert_msg(extfrag_index(e->nr_blocks, e->order) == e->extfrag, "%s: %d, not %d", e->what,
                  extfrag_index(e->nr_blocks, e->order), e->extfrag);
    ck_assert_msg(unusable_index(e->nr_blocks, e->order) == e->unusable, "%s: %d, not %d", e->what,
                  unusable_index(e->nr_blocks, e->order), e->unusable);
}
END_TEST

/* More pieces of the same amount: never a lower index. */
START_TEST(test_fragindex_finer_pieces_never_lower_the_index)
{
    int before = -1000;
    for (unsigned piece = 9; piece-- > 0;) {
        uint32_t nr_blocks[MAX_ORDER + 1] = {0};
        nr_blocks[piece] = 4096u >> piece;
        int index = extfrag_index(nr_blocks, 9);
        ck_assert_int_gt(index, before);
        ck_assert_int_le(index, 1000);
        before = index;
    }
}
END_TEST

/* -1 would be success, so nothing may stand between -1 and 0. */
START_TEST(test_fragindex_one_block_that_is_too_small_is_a_lack_of_memory)
{
    for (unsigned order = 1; order <= MAX_ORDER; order++)
        for (unsigned have = 0; have < order; have++) {
            uint32_t nr_blocks[MAX_ORDER + 1] = {0};
            nr_blocks[have] = 1;
            ck_assert_int_eq(extfrag_index(nr_blocks, order), 0);
        }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("fragindex");
    TCase *tc = tcase_create("fragindex");
    tcase_add_loop_test(tc, test_fragindex_examples_are_as_expected, 0, (int)ARRAY_LEN(examples));
    tcase_add_test(tc, test_fragindex_finer_pieces_never_lower_the_index);
    tcase_add_test(tc, test_fragindex_one_block_that_is_too_small_is_a_lack_of_memory);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
