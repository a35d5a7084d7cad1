/* SPDX-License-Identifier: Apache-2.0 */
/* The views numa and tiers, and the report's part about nodes: of figures written down here, to the letter. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/render.h"
#include "vmm/report.h"
#include "vmm/views_numa.h"

#define MIB (UINT64_C(1) << 20)

struct fixture {
    struct numa_host host;
    struct numa_options options;
    struct view_numa numa;
};

/* The lab's nodes, the last one a tier of its own. */
static struct fixture *make(void)
{
    static const uint8_t distance[3][3] = {{10, 20, 40}, {20, 10, 40}, {40, 40, 10}};
    struct fixture *f = calloc(1, sizeof(*f));
    f->host.nr = 3;
    f->options =
        (struct numa_options){.nr_tiers = 2, .demote_bytes_per_s = 200 * MIB, .promote_bytes_per_s = 100 * MIB};
    f->options.tiers[0] = (struct numa_tier){"fast", 3};
    f->options.tiers[1] = (struct numa_tier){"slow", 4};
    f->numa = (struct view_numa){
        .host = &f->host, .options = &f->options, .policy = {MM_POLICY_INTERLEAVE, 3}, .nr_nodes = 3};
    for (unsigned i = 0; i < 3; i++) {
        struct numa_node *node = &f->host.nodes[i];
        *node = (struct numa_node){.id = (int)i, .total_bytes = 1024 * MIB, .free_bytes = 512 * MIB};
        node->available_bytes = 600 * MIB;
        memcpy(node->distance, distance[i], sizeof(distance[i]));
        if (i < 2)
            CPU_SET(i, &node->cpus);
        f->numa.nodes[i] = (struct mm_node_stat){
            .id = (int)i,
            .rank = i == 2,
            .budget_bytes = 64 * MIB,
            .free_bytes = 8 * MIB,
            .resident_bytes = (40 + i) * MIB,
            .standby_bytes = 2 * MIB,
            .wmark_pages = {10, 20, 30},
            .numa_hit = 100 + i,
            .numa_miss = 7,
            .interleave_hit = 90,
        };
    }
    return f;
}

static char *rendered(const char *view, json_t *json)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    ck_assert_ptr_nonnull(json);
    ck_assert_int_eq(render_view(view, json, out), 0);
    json_decref(json);
    fclose(out);
    return text;
}

START_TEST(test_views_numa_shows_nodes_distances_budgets_counters_and_vms)
{
    static const char expected[] = "Nodes of this host\n"
                                   "  node  total     free  available  CPUs\n"
                                   "     0  1 GiB  512 MiB    600 MiB  0\n"
                                   "     1  1 GiB  512 MiB    600 MiB  1\n"
                                   "     2  1 GiB  512 MiB    600 MiB  none\n"
                                   "Distances (10: to itself)\n"
                                   "  node   0   1   2\n"
                                   "     0  10  20  40\n"
                                   "     1  20  10  40\n"
                                   "     2  40  40  10\n"
                                   "The budget by node (min, low, high: free pages at which reclaim begins and ends)\n"
                                   "  node  budget   free  resident  standby  min  low  high\n"
                                   "     0  64 MiB  8 MiB    40 MiB    2 MiB   10   20    30\n"
                                   "     1  64 MiB  8 MiB    41 MiB    2 MiB   10   20    30\n"
                                   "     2  64 MiB  8 MiB    42 MiB    2 MiB   10   20    30\n"
                                   "Pages so far, as in numastat(8)\n"
                                   "  node  numa_hit  numa_miss  numa_foreign  interleave_hit  local_node  other_node\n"
                                   "     0       100          7             0              90           0           0\n"
                                   "     1       101          7             0              90           0           0\n"
                                   "     2       102          7             0              90           0           0\n"
                                   "Pages of the VMs by node\n"
                                   "  vm   policy                       node  resident  standby\n"
                                   "  vm0  interleave by 2M, nodes 0-1     0     1,000       24\n"
                                   "                                       1     1,001        0\n"
                                   "                                       2         0        0\n"
                                   "Touches of pages that were out to see who touches them\n"
                                   "  vm   vcpu  node  hint_faults  local\n"
                                   "  vm0     0     1           20     15\n"
                                   "          3     0            1      0\n";
    struct fixture *f = make();
    const struct view_numa_vm vm = {.name = "vm0",
                                    .pages = {1000, 1001, 0},
                                    .standby_pages = {24},
                                    .nr_vcpus = 2,
                                    .vcpus = {{0, {1, 20, 15}}, {3, {0, 1, 0}}}};
    char *text = rendered("numa", view_numa(&f->numa, &vm, 1));
    ck_assert_msg(strncmp(text, expected, strlen(expected)) == 0, "%s", text);
    free(text);
    free(f);
}
END_TEST

START_TEST(test_views_numa_of_one_node_that_is_not_bound_says_so)
{
    struct fixture *f = make();
    f->host.nr = f->numa.nr_nodes = 1;
    f->numa.nodes[0].id = MM_NODE_ANY;
    f->numa.options = NULL;
    f->numa.policy = (struct mm_policy){0};
    const struct view_numa_vm vm = {.name = "vm0", .pages = {5}};
    json_t *json = view_numa(&f->numa, &vm, 1);
    ck_assert(json_is_null(json_object_get(json_array_get(json_object_get(json, "nodes"), 0), "node")));
    char *text = rendered("numa", json);
    ck_assert_ptr_nonnull(strstr(text, "This host has one node\n"));
    ck_assert_ptr_nonnull(strstr(text, "Not bound: "));
    ck_assert_ptr_nonnull(strstr(text, "   any  64 MiB"));
    ck_assert_ptr_nonnull(strstr(text, "  vm0  none     any         5        0\n"));
    ck_assert_ptr_null(strstr(text, "Distances"));
    free(text);
    text = rendered("tiers", view_tiers(&f->numa));
    ck_assert_str_eq(text, "no tiers: this host has one node of memory, tiers take two\n");
    free(text);
    free(f);
}
END_TEST

START_TEST(test_views_tiers_sums_up_the_nodes_of_a_rank)
{
    static const char expected[] = "rank  tier  nodes   budget    free  resident  standby\n"
                                   "   0  fast  0-1    128 MiB  16 MiB    81 MiB    4 MiB\n"
                                   "   1  slow  2       64 MiB   8 MiB    42 MiB    2 MiB\n"
                                   "at most a second, demoted   200 MiB\n"
                                   "at most a second, promoted  100 MiB\n";
    struct fixture *f = make();
    json_t *json = view_tiers(&f->numa);
    ck_assert_uint_eq(json_array_size(json_object_get(json, "tiers")), 2);
    char *text = rendered("tiers", json);
    ck_assert_msg(strncmp(text, expected, strlen(expected)) == 0, "%s", text);
    free(text);
    f->options.nr_tiers = 0;
    text = rendered("tiers", view_tiers(&f->numa));
    ck_assert_ptr_nonnull(strstr(text, "--tiers fast=0,slow=1"));
    free(text);
    free(f);
}
END_TEST

START_TEST(test_views_numa_guest_nodes_are_said)
{
    struct fixture *f = make();
    const struct view_numa_vm vm = {.name = "vm0"};
    f->options.guest_bytes[0] = f->options.guest_bytes[2] = 64 * MIB;
    f->numa.policy = (struct mm_policy){MM_POLICY_LOCAL, 7};
    json_t *json = view_numa(&f->numa, &vm, 1), *row = json_array_get(json_object_get(json, "vms"), 0);
    ck_assert_str_eq(json_string_value(json_object_get(row, "policy")), "local, nodes 0-2; guest nodes on 0+2");
    json_decref(json);
    free(f);
}
END_TEST

/* Every counter of mm/ about nodes is in one of the two views. */
START_TEST(test_views_numa_counters_are_those_of_the_memory_manager)
{
    struct fixture *f = make();
    json_t *numa = view_numa(&f->numa, NULL, 0), *tiers = view_tiers(&f->numa);
    json_t *counters = json_object();
    json_object_update(counters, json_object_get(numa, "counters"));
    json_object_update(counters, json_object_get(tiers, "counters"));
    for (unsigned i = 0; i < NR_VM_EVENTS; i++) {
        const char *name = vm_event_names[i];
        bool here = strstr(name, "numa_") || strncmp(name, "pgmigrate_", 10) == 0 ||
                    strncmp(name, "pgdemote_", 9) == 0 || strncmp(name, "pgpromote_", 10) == 0;
        ck_assert_msg(json_is_integer(json_object_get(counters, name)) == here, "%s", name);
    }
    json_decref(counters);
    json_decref(numa);
    json_decref(tiers);
    free(f);
}
END_TEST

static char *table_of(const struct report *report)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    ck_assert_int_eq(report_table(report, out), 0);
    fclose(out);
    return text;
}

START_TEST(test_report_has_pages_by_node_where_there_are_several)
{
    const struct run_options options = {.nr_vms = 2};
    struct report *report = report_create(&options);
    struct fixture *f = make();
    report->has_mm = report->vms[0].has_mm = report->vms[1].has_mm = true;
    report->transport = "move";
    report->nr_nodes = 1;
    memcpy(report->nodes, f->numa.nodes, sizeof(report->nodes));
    report->nodes[0].numa_miss = 0;
    for (unsigned i = 0; i < 2; i++)
        memcpy(report->vms[i].node_pages, (const uint64_t[]){256, 512, 0}, 3 * sizeof(uint64_t));
    char *text = table_of(report);
    ck_assert_ptr_null(strstr(text, "By node"));
    free(text);
    report->nr_nodes = 3;
    text = table_of(report);
    ck_assert_ptr_nonnull(strstr(text,
                                 "By node of this host\n"
                                 "  node 0    2 MiB  33.3%  of a budget of  64 MiB\n"
                                 "  node 1    4 MiB  66.7%  of a budget of  64 MiB  some because another node was "
                                 "full\n"));
    free(text);
    json_t *json = report_json(report), *vm = json_array_get(json_object_get(json, "vms"), 1);
    json_t *row = json_array_get(json_object_get(vm, "pages_by_node"), 1);
    ck_assert_int_eq(json_integer_value(json_object_get(row, "node")), 1);
    ck_assert_int_eq(json_integer_value(json_object_get(row, "pages")), 512);
    ck_assert_uint_eq(json_array_size(json_object_get(json, "nodes")), 3);
    json_decref(json);
    report_destroy(report);
    free(f);
}
END_TEST

/* Bound memory runs out on its nodes: to say that all of the budget is full, or to have it raised, helped nobody. */
START_TEST(test_report_out_of_memory_on_a_node_names_the_node)
{
    struct fixture *f = make();
    char text[200];
    ck_assert(!report_full_budget(text, sizeof(text), f->numa.nodes, 3));
    ck_assert_str_eq(text, "budget 192 MiB");
    f->numa.nodes[1].free_bytes = 9 * PAGE_BYTES;
    ck_assert(report_full_budget(text, sizeof(text), f->numa.nodes, 3));
    ck_assert_str_eq(text, "budget 64 MiB on node 1");
    f->numa.nodes[2].free_bytes = 0;
    ck_assert(report_full_budget(text, sizeof(text), f->numa.nodes, 3));
    ck_assert_str_eq(text, "budget 128 MiB on nodes 1-2");
    f->numa.nodes[0].free_bytes = 0;
    ck_assert(!report_full_budget(text, sizeof(text), f->numa.nodes, 3));
    ck_assert_str_eq(text, "budget 192 MiB");
    f->numa.nodes[0].id = MM_NODE_ANY;
    ck_assert(!report_full_budget(text, sizeof(text), f->numa.nodes, 1));
    ck_assert_str_eq(text, "budget 64 MiB");
    free(f);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("views_numa");
    TCase *tc = tcase_create("views");
    tcase_add_test(tc, test_views_numa_shows_nodes_distances_budgets_counters_and_vms);
    tcase_add_test(tc, test_views_numa_of_one_node_that_is_not_bound_says_so);
    tcase_add_test(tc, test_views_tiers_sums_up_the_nodes_of_a_rank);
    tcase_add_test(tc, test_views_numa_guest_nodes_are_said);
    tcase_add_test(tc, test_views_numa_counters_are_those_of_the_memory_manager);
    tcase_add_test(tc, test_report_has_pages_by_node_where_there_are_several);
    tcase_add_test(tc, test_report_out_of_memory_on_a_node_names_the_node);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
