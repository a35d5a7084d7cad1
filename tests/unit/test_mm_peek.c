/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/mm_rig.h"

#define MIB (UINT64_C(1) << 20)

static enum mm_peek peek(struct mm_rig *rig, gfn_t gfn, void *page)
{
    enum mm_peek where;
    ck_assert_int_eq(mm_peek(rig->thread[0], rig->vm, gpa_of(gfn), &where, page), 0);
    return where;
}

static struct mm_rig *make_rig(bool thp)
{
    const struct mm_config config = {.budget_bytes = 16 * MIB, .zram = {.limit_bytes = 8 * MIB}, .thp = thp};
    return mm_rig_create(&config, 8 * MIB, 1);
}

static void expect_content(struct mm_rig *rig, gfn_t gfn, enum content content, const char *state)
{
    uint64_t want[PAGE_BYTES / 8], got[PAGE_BYTES / 8];
    rig_make_page(want, gfn, content);
    ck_assert_str_eq(mm_rig_state(rig, gfn), state);
    ck_assert_int_eq(peek(rig, gfn, got), MM_PEEK_COPIED);
    ck_assert_mem_eq(want, got, PAGE_BYTES);
    ck_assert_str_eq(mm_rig_state(rig, gfn), state);
}

START_TEST(test_mm_peek_page_is_read_where_it_is_and_stays_there)
{
    char page[PAGE_BYTES];
    struct mm_rig *rig = make_rig(false);
    mm_rig_swapon(rig, "disk", 4096);
    ck_assert_int_eq(peek(rig, 3, page), MM_PEEK_ZERO);
    mm_rig_fill(rig, 0, 64, TEXT);
    ck_assert_int_eq(peek(rig, 3, page), MM_PEEK_RESIDENT);
    mm_rig_fill(rig, 512, 600, RANDOM);
    mm_reclaim(rig->thread[0], rig->vm, 152, false);
    expect_content(rig, 3, TEXT, "standby");
    mm_reclaim(rig->thread[0], rig->vm, 152, true);
    expect_content(rig, 3, TEXT, "zram");
    expect_content(rig, 520, RANDOM, "swap");
    mm_rig_check(rig);
    mm_rig_verify(rig, 0, 3);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_peek_page_of_a_standby_block_is_found_by_its_number)
{
    struct mm_rig *rig = make_rig(true);
    mm_rig_fill(rig, 512, 1024, TEXT);
    mm_reclaim(rig->thread[0], rig->vm, 512, false);
    expect_content(rig, 512, TEXT, "standby");
    expect_content(rig, 777, TEXT, "standby");
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_peek_what_the_guest_gave_up_reads_as_it_will)
{
    uint32_t page[PAGE_BYTES / 4];
    uint64_t dropped;
    struct mm_rig *rig = make_rig(false);
    mm_rig_fill(rig, 0, 16, TEXT);
    ck_assert_int_eq(mm_drop(rig->thread[0], rig->vm, gpa_of(0), 4 * PAGE_BYTES, MM_DROP_FREE, 0xaa55aa55u, &dropped),
                     0);
    ck_assert_int_eq(mm_drop(rig->thread[0], rig->vm, gpa_of(4), 4 * PAGE_BYTES, MM_DROP_BALLOON, 0, &dropped), 0);
    ck_assert_int_eq(mm_plug(rig->thread[0], rig->vm, gpa_of(1024), BLOCK_BYTES, false), 0);
    ck_assert_int_eq(peek(rig, 1, page), MM_PEEK_COPIED);
    for (unsigned i = 0; i < PAGE_BYTES / 4; i++)
        ck_assert_uint_eq(page[i], 0xaa55aa55u);
    ck_assert_int_eq(peek(rig, 5, page), MM_PEEK_ZERO);
    ck_assert_int_eq(peek(rig, 1030, page), MM_PEEK_NOTHING);
    memset(rig->content, NOTHING, 16);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_peek_unreadable_page_is_told_and_kept)
{
    enum mm_peek where;
    char page[PAGE_BYTES];
    struct mm_rig *rig = make_rig(false);
    struct fake_swap *disk = mm_rig_swapon(rig, "disk", 4096);
    mm_rig_fill(rig, 0, 8, RANDOM);
    mm_reclaim(rig->thread[0], rig->vm, 8, true);
    ck_assert_str_eq(mm_rig_state(rig, 2), "swap");
    disk->fail_at = 1; /* the next page */
    disk->fail_error = -EIO;
    ck_assert_int_eq(mm_peek(rig->thread[0], rig->vm, gpa_of(2), &where, page), -EIO);
    ck_assert_str_eq(mm_rig_state(rig, 2), "swap");
    ck_assert_int_eq(mm_peek(rig->thread[0], rig->vm, gpa_of(2), &where, page), 0);
    ck_assert_int_eq(mm_peek(rig->thread[0], rig->vm, (gpa_t){8 * MIB}, &where, page), -EFAULT);
    mm_rig_destroy(rig);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("mm_peek");
    TCase *cases = tcase_create("cases");
    tcase_add_test(cases, test_mm_peek_page_is_read_where_it_is_and_stays_there);
    tcase_add_test(cases, test_mm_peek_page_of_a_standby_block_is_found_by_its_number);
    tcase_add_test(cases, test_mm_peek_what_the_guest_gave_up_reads_as_it_will);
    tcase_add_test(cases, test_mm_peek_unreadable_page_is_told_and_kept);
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
