/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/sysctl.h"
#include "tests/unit/mm_rig.h"

static struct mm_rig *make(void)
{
    return mm_rig_create(&(struct mm_config){.budget_bytes = 16 * MIB, .readahead_pages = 1}, 32 * MIB, 1);
}

START_TEST(test_sysctl_read_of_all_has_what_can_be_read)
{
    struct mm_rig *rig = make();
    struct diag diag = {0};
    json_t *all = sysctl_read(rig->host, NULL, &diag);
    ck_assert_uint_eq(json_object_size(all), 3);
    ck_assert_int_eq(json_integer_value(json_object_get(all, "vm.extfrag_threshold")), 500);
    ck_assert_int_eq(json_integer_value(json_object_get(all, "vm.compaction_proactiveness")), 20);
    ck_assert_int_eq(json_integer_value(json_object_get(all, "vm.min_free_kbytes")),
                     rig->host->node[0].pool.wmark[WMARK_MIN] * 4);
    json_decref(all);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_sysctl_write_is_read_again)
{
    static const char *const names[] = {"vm.extfrag_threshold", "vm.compaction_proactiveness"};
    struct mm_rig *rig = make();
    struct diag diag = {0};
    json_t *answer;
    ck_assert_int_eq(sysctl_write(rig->thread[0], rig->host, names[_i], 7, &answer, &diag), 0);
    ck_assert_int_eq(json_integer_value(json_object_get(answer, names[_i])), 7);
    json_decref(answer);
    answer = sysctl_read(rig->host, names[_i], &diag);
    ck_assert_uint_eq(json_object_size(answer), 1);
    ck_assert_int_eq(json_integer_value(json_object_get(answer, names[_i])), 7);
    json_decref(answer);
    struct mm_compaction now;
    mm_compaction_get(rig->host, &now);
    ck_assert_uint_eq(now.extfrag_threshold, _i == 0 ? 7 : 500);
    ck_assert_uint_eq(now.proactiveness, _i == 1 ? 7 : 20);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_sysctl_compact_memory_compacts_and_says_how_much)
{
    struct mm_rig *rig = make();
    struct diag diag = {0};
    json_t *answer;
    mm_rig_fill(rig, 0, 2048, TEXT);
    mm_reclaim(rig->thread[0], rig->vm, 2048, false);
    for (gfn_t gfn = 0; gfn < 2048; gfn += 2)
        mm_rig_verify(rig, 0, gfn);
    pcp_drain(&rig->thread[0]->pcp[0]);
    ck_assert_int_eq(sysctl_write(rig->thread[0], rig->host, "vm.compact_memory", 1, &answer, &diag), 0);
    ck_assert_int_eq(json_integer_value(json_object_get(answer, "compacted_blocks")), 2);
    json_decref(answer);
    mm_stop_work(rig->host);
    ck_assert_int_eq(sysctl_write(rig->thread[0], rig->host, "vm.compact_memory", 1, &answer, &diag), -1);
    ck_assert_int_eq(diag.code, EXIT_GUEST);
    ck_assert_ptr_null(answer);
    mm_rig_destroy(rig);
}
END_TEST

static const struct {
    const char *name;
    bool written;
    int64_t value;
    const char *text;
} wrong[] = {
    {"vm.compact_memory", false, 0, "sysctl: vm.compact_memory can only be written: `ebb sysctl vm.compact_memory=1`"},
    {"vm.compact_memory", true, 0, "sysctl: vm.compact_memory takes 1 only"},
    {"vm.compact_memory", true, 2, "sysctl: vm.compact_memory takes 1 only"},
    {"vm.min_free_kbytes", true, 1, "sysctl: vm.min_free_kbytes can only be read; the budget decides it"},
    {"vm.extfrag_threshold", true, -1, "sysctl: vm.extfrag_threshold must be from 0 to 1000"},
    {"vm.extfrag_threshold", true, 1001, "sysctl: vm.extfrag_threshold must be from 0 to 1000"},
    {"vm.extfrag_threshold", true, INT64_MAX, "sysctl: vm.extfrag_threshold must be from 0 to 1000"},
    {"vm.compaction_proactiveness", true, 101, "sysctl: vm.compaction_proactiveness must be from 0 to 100"},
    {"vm.extfrag_treshold", true, 1,
     "sysctl: there is no vm.extfrag_treshold; did you mean vm.extfrag_threshold? `ebb sysctl` lists them"},
    {"", false, 0, "sysctl: there is no ; `ebb sysctl` lists them"},
    {"swappiness", false, 0, "sysctl: there is no swappiness; `ebb sysctl` lists them"},
};

START_TEST(test_sysctl_wrong_request_is_one_line_and_changes_nothing)
{
    struct mm_rig *rig = make();
    struct diag diag = {0};
    struct mm_compaction now;
    json_t *answer = NULL;
    if (wrong[_i].written)
        ck_assert_int_eq(sysctl_write(rig->thread[0], rig->host, wrong[_i].name, wrong[_i].value, &answer, &diag), -1);
    else
        ck_assert_ptr_null(sysctl_read(rig->host, wrong[_i].name, &diag));
    ck_assert_ptr_null(answer);
    ck_assert_int_eq(diag.code, EXIT_USAGE);
    ck_assert_str_eq(diag.text, wrong[_i].text);
    mm_compaction_get(rig->host, &now);
    ck_assert_uint_eq(now.extfrag_threshold, 500);
    ck_assert_uint_eq(now.proactiveness, 20);
    mm_rig_destroy(rig);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("sysctl");
    TCase *tc = tcase_create("sysctl");
    tcase_add_test(tc, test_sysctl_read_of_all_has_what_can_be_read);
    tcase_add_loop_test(tc, test_sysctl_write_is_read_again, 0, 2);
    tcase_add_test(tc, test_sysctl_compact_memory_compacts_and_says_how_much);
    tcase_add_loop_test(tc, test_sysctl_wrong_request_is_one_line_and_changes_nothing, 0, (int)ARRAY_LEN(wrong));
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
