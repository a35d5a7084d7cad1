/* SPDX-License-Identifier: Apache-2.0 */
/* Text tables, and views whose JSON is written down here: what a person sees, to the letter. */
#include "vmm/render.h"
#include "vmm/table.h"
#include "vmm/views.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static char *rendered(const char *view, const char *json_text)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    json_t *json = json_loads(json_text, 0, NULL);

    ck_assert_ptr_nonnull(json);
    ck_assert_int_eq(render_view(view, json, out), 0);
    json_decref(json);
    fclose(out);
    return text;
}

static const struct {
    const char *view, *json, *text;
} exact[] = {
    {"balloon", "{\"vms\": [{\"vm\": \"vm0\"}]}", "vm0\n  no balloon; `ebb run --balloon` gives it one\n"},
    {"devices", "{\"vms\": [{\"vm\": \"vm0\", \"devices\": []}]}", "vm0\n  no devices\n"},
    {"vmstat", "{\"pgfault\": 12, \"pswpin\": 0}", "pgfault 12\npswpin 0\n"},
    {"buddyinfo",
     "{\"zones\": [{\"node\": 0, \"zone\": \"Normal\", \"plane\": \"empty\","
     " \"free_blocks\": [1,2,3,4,5,6,7,8,9,10,100000]}]}",
     "Node 0, zone   Normal,  empty       1      2      3      4      5      6      7      8      9     10 100000\n"},
    {"pagetypeinfo",
     "{\"page_block_order\": 9, \"pages_per_block\": 512, \"free\": [{\"node\": 1, \"zone\": \"Normal\", \"plane\": "
     "\"empty\","
     " \"type\": \"Reclaimable\", \"free_blocks\": [1,2,3,4,5,6,7,8,9,10,100000]}], \"blocks\": [{\"node\": 1, "
     "\"zone\":"
     " \"Normal\", \"Unmovable\": 1, \"Movable\": 22, \"Reclaimable\": 333, \"Isolate\": 0}]}",
     "Page block order: 9\nPages per block:  512\n\n"
     "Free pages count per migrate type at order                  0      1      2      3      4      5      6      7   "
     "   8"
     "      9     10\n"
     "Node    1, zone   Normal,  empty, type  Reclaimable       1      2      3      4      5      6      7      8     "
     " 9"
     "     10 100000\n\n"
     "Number of blocks type      Unmovable      Movable  Reclaimable      Isolate\n"
     "Node    1, zone   Normal,           1           22          333            0\n"},
    {"extfrag",
     "{\"zones\": [{\"node\": 0, \"zone\": \"Huge\", \"plane\": \"filled\","
     " \"extfrag_index_thousandths\": [-1000, -500, 0, 1, 45, 999, 1000, 0, 0, 0, 7],"
     " \"unusable_index_thousandths\": [0, 10, 200, 1000]}]}",
     "extfrag_index by order: -1.000 would succeed; towards 0 lack of memory, towards 1 fragmentation\n"
     "Node    0, zone     Huge, filled  -1.000 -0.500  0.000  0.001  0.045  0.999  1.000  0.000  0.000  0.000  0.007\n"
     "unusable_index by order: share of free memory in blocks that are too small\n"
     "Node    0, zone     Huge, filled   0.000  0.010  0.200  1.000  0.000  0.000  0.000  0.000  0.000  0.000  "
     "0.000\n"},
    {"swaps",
     "{\"swaps\": [{\"filename\": \"/a.swap\", \"type\": \"file\", \"size_bytes\": 1048576, \"used_bytes\": 4096,"
     " \"priority\": -2, \"read_pages\": 1234, \"written_pages\": 7, \"read_errors\": 1, \"write_errors\": 2}]}",
     "Filename  Type   Size   Used  Priority   Read  Written  Errors\n"
     "/a.swap   file  1 MiB  4 KiB        -2  1,234        7       3\n"},
    {"swaps", "{\"swaps\": []}", "Filename  Type  Size  Used  Priority  Read  Written  Errors\n"},
    {"slabinfo",
     "{\"caches\": [{\"name\": \"block\", \"active_objs\": 5, \"num_objs\": 42, \"objsize\": 96, \"objperslab\": 42,"
     " \"pagesperslab\": 1, \"num_slabs\": 1}]}",
     "name   active_objs  num_objs  objsize  objperslab  pagesperslab  num_slabs\n"
     "block            5        42       96          42             1          1\n"},
    {"page",
     "{\"vm\": \"vm0\", \"gpa\": \"0x1000\", \"state\": \"zram\", \"age\": 3, \"huge\": false, \"frame\": null,"
     " \"level2_entry\": \"0x7\", \"level1_entry\": \"0x10\"}",
     "vm       vm0\ngpa      0x1000\nstate    zram\nage      3\nlevel 2  0x7\nlevel 1  0x10\n"},
    {"page",
     "{\"vm\": \"vm0\", \"gpa\": \"0x1000\", \"state\": \"resident\", \"age\": 3, \"huge\": true, \"node\": 2, "
     "\"frame\": 9,"
     " \"level2_entry\": \"0x7\", \"level1_entry\": \"0x0\"}",
     "vm       vm0\ngpa      0x1000\nstate    resident, in a 2 MiB frame\nage      3\nnode     2\nframe    9\n"
     "level 2  0x7\nlevel 1  0x0\n"},
    {"zram", "{\"algorithm\": null}", "no compressed store; `ebb run --zram SIZE` makes one\n"},
};

START_TEST(test_render_view_is_the_expected_text)
{
    char *text = rendered(exact[_i].view, exact[_i].json);
    ck_assert_str_eq(text, exact[_i].text);
    free(text);
}
END_TEST

static const char *const views[] = {"vmstat", "zoneinfo", "buddyinfo",    "slabinfo", "lru",  "zram",
                                    "swaps",  "stage2",   "regions",      "free",     "page", "pageclass",
                                    "numa",   "tiers",    "pagetypeinfo", "extfrag"};

START_TEST(test_render_missing_members_are_no_crash)
{
    free(rendered(views[_i], "{}"));
    free(rendered(views[_i], "[]"));
    free(rendered(views[_i], "{\"zones\": 7, \"vms\": [1, {\"regions\": [null]}], \"swaps\": {}, \"caches\": \"a\","
                             " \"classes\": [0], \"algorithm\": \"lz4\", \"budget\": [], \"resident_bytes\": true}"));
}
END_TEST

START_TEST(test_render_unknown_view_is_refused)
{
    json_t *json = json_object();
    ck_assert_int_eq(render_view("xyzzy", json, stdout), -EINVAL);
    json_decref(json);
}
END_TEST

START_TEST(test_render_free_is_one_table)
{
    char *text = rendered("free", "{\"budget\": {\"total_bytes\": 67108864, \"used_bytes\": 60817408,"
                                  " \"free_bytes\": 6291456, \"guests_bytes\": 33554432, \"standby_bytes\": 4096,"
                                  " \"zram_bytes\": 1048576, \"available_bytes\": 6295552},"
                                  " \"vms\": [{\"name\": \"vm0\", \"memory_bytes\": 268435456}]}");
    ck_assert_ptr_nonnull(strstr(text, "Budget:   64 MiB"));
    ck_assert_ptr_nonnull(strstr(text, "vm0      256 MiB"));
    ck_assert_ptr_null(strstr(text, " \n"));
    free(text);
}
END_TEST

START_TEST(test_table_columns_take_their_widest_cell)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    struct table table;
    table_init(&table, "lrl");
    table_cell(&table, "a");
    table_count(&table, 1000);
    table_cell(&table, "%s", "");
    table_cell(&table, "longer");
    table_size(&table, 4096);
    table_cell(&table, "x");
    ck_assert_int_eq(table_print(&table, 1, out), 0);
    table_fini(&table);
    fclose(out);
    ck_assert_str_eq(text, " a       1,000\n longer  4 KiB  x\n");
    free(text);
}
END_TEST

START_TEST(test_table_large_keeps_every_cell)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    struct table table;
    unsigned lines = 0;
    table_init(&table, "r");
    for (unsigned i = 0; i < 5000; i++)
        table_cell(&table, "%u", i);
    ck_assert_int_eq(table_print(&table, 0, out), 0);
    table_fini(&table);
    fclose(out);
    for (const char *at = text; *at; at++)
        lines += *at == '\n';
    ck_assert_uint_eq(lines, 5000);
    ck_assert_uint_eq(bytes, 5 * 5000);
    free(text);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("render");
    TCase *tc = tcase_create("render");
    tcase_add_loop_test(tc, test_render_view_is_the_expected_text, 0, ARRAY_LEN(exact));
    tcase_add_loop_test(tc, test_render_missing_members_are_no_crash, 0, ARRAY_LEN(views));
    tcase_add_test(tc, test_render_unknown_view_is_refused);
    tcase_add_test(tc, test_render_free_is_one_table);
    tcase_add_test(tc, test_table_columns_take_their_widest_cell);
    tcase_add_test(tc, test_table_large_keeps_every_cell);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
