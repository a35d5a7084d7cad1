/* SPDX-License-Identifier: Apache-2.0 */
/* Nodes of a guest: what makes a machine of them, where their memory lies, what is near, what is one package. */
#include "vmm/guest_numa.h"
#include "vmm/platform.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)

/* Three nodes of 512 MiB: vCPUs 0 and 1, 2 and 3, none. */
static struct guest_numa three(void)
{
    return (struct guest_numa){
        .nr_nodes = 3, .node = {{0x3, 512 * MIB, -1}, {0xc, 512 * MIB, -1}, {0, 512 * MIB, GUEST_NUMA_NO_HOST}}};
}

static void refused(struct guest_numa *numa, uint64_t memory_bytes, unsigned nr_cpus, const char *says)
{
    struct guest_numa before = *numa;
    struct diag diag = {0};

    ck_assert_int_eq(guest_numa_finish(numa, memory_bytes, nr_cpus, &diag), -1);
    ck_assert_int_eq(diag.code, EXIT_USAGE);
    ck_assert_msg(strstr(diag.text, says) != NULL, "no \"%s\" in: %s", says, diag.text);
    ck_assert_mem_eq(numa, &before, sizeof(before));
}

START_TEST(test_guest_numa_distances_that_were_not_said_are_10_and_20)
{
    static const uint8_t expected[3][3] = {{10, 40, 20}, {40, 10, 20}, {20, 20, 10}};
    struct guest_numa numa = three();
    struct diag diag = {0};

    numa.distance[0][1] = numa.distance[1][0] = 40;
    ck_assert_msg(guest_numa_finish(&numa, 1536 * MIB, 4, &diag) == 0, "%s", diag.text);
    for (unsigned i = 0; i < 3; i++)
        ck_assert_mem_eq(numa.distance[i], expected[i], 3);
    ck_assert_uint_eq(numa.distance[0][3], 0);
}
END_TEST

START_TEST(test_guest_numa_none_stays_none)
{
    struct guest_numa numa = {.nr_nodes = 0}, none = numa;
    struct diag diag = {0};

    ck_assert_int_eq(guest_numa_finish(&numa, 256 * MIB, 64, &diag), 0);
    ck_assert_mem_eq(&numa, &none, sizeof(none));
}
END_TEST

START_TEST(test_guest_numa_what_is_no_machine_is_refused)
{
    struct guest_numa numa = three();

    refused(&numa, 1024 * MIB, 4, "1536M together, the guest has 1G");
    refused(&numa, 1538 * MIB, 4, "1538M");
    refused(&numa, 1536 * MIB, 3, "vCPU 3");
    refused(&numa, 1536 * MIB, 5, "vCPU 4 is in no node");
    numa.node[2].cpus = 1;
    refused(&numa, 1536 * MIB, 4, "vCPU 0 is in 2 nodes");
    numa = three();
    numa.node[1].cpus = UINT64_C(1) << 63;
    refused(&numa, 1536 * MIB, 2, "vCPU 63");
    numa = three();
    numa.node[0].memory_bytes = 0;
    refused(&numa, 1024 * MIB, 4, "node 0 is missing");
    numa = three();
    numa.node[1].memory_bytes = 0;
    refused(&numa, 1024 * MIB, 4, "node 1 is missing");
    numa = three();
    numa.distance[1][3] = numa.distance[3][1] = 30;
    refused(&numa, 1536 * MIB, 4, "no guest node 3");
    numa = (struct guest_numa){.distance[0][0] = 10};
    refused(&numa, 1536 * MIB, 4, "no guest node 0");
}
END_TEST

static bool has_even(void *ctx, int node)
{
    (*(unsigned *)ctx)++;
    return node % 2 == 0;
}

START_TEST(test_guest_numa_host_node_that_is_not_there_is_refused)
{
    struct guest_numa numa = three();
    struct diag diag = {0};
    unsigned nr_asked = 0;

    ck_assert_int_eq(guest_numa_check_hosts(&numa, has_even, &nr_asked, &diag), 0);
    ck_assert_uint_eq(nr_asked, 0);
    numa.node[0].host = 2;
    numa.node[2].host = 0;
    ck_assert_int_eq(guest_numa_check_hosts(&numa, has_even, &nr_asked, &diag), 0);
    ck_assert_uint_eq(nr_asked, 2);
    numa.node[1].host = 5;
    ck_assert_int_eq(guest_numa_check_hosts(&numa, has_even, &nr_asked, &diag), -1);
    ck_assert_int_eq(diag.code, EXIT_USAGE);
    ck_assert_msg(strstr(diag.text, "node 1 is to be on node 5"), "%s", diag.text);
}
END_TEST

/* Every split of a memory with one, no and much memory above the hole: the ranges are the memory, each byte once. */
START_TEST(test_guest_numa_ranges_are_all_of_the_memory_once)
{
    static const uint64_t high[] = {0, BLOCK_BYTES, 4 * GIB};
    static const uint64_t first[] = {BLOCK_BYTES, GIB, 3 * GIB - BLOCK_BYTES};

    for (unsigned h = 0; h < ARRAY_LEN(high); h++)
        for (unsigned f = 0; f < ARRAY_LEN(first); f++) {
            uint64_t low = PLATFORM_HOLE_GPA, rest = low + high[h] - first[f], sum = 0;
            struct guest_numa numa = {.nr_nodes = 2, .node = {{1, first[f], -1}, {0, rest, -1}}};
            gpa_t next = {0};

            for (unsigned node = 0; node < 2; node++) {
                struct guest_numa_range range[2];
                unsigned nr = guest_numa_range(&numa, node, low, range);

                ck_assert_uint_eq(nr, node == 1 && high[h] > 0 ? 2 : 1);
                for (unsigned i = 0; i < nr; i++) {
                    ck_assert_uint_eq(range[i].start.v, next.v);
                    ck_assert_uint_gt(range[i].bytes, 0);
                    next.v += range[i].bytes;
                    sum += range[i].bytes;
                    ck_assert(next.v <= low || range[i].start.v >= PLATFORM_HIGH_GPA);
                    if (next.v == low)
                        next.v = PLATFORM_HIGH_GPA;
                }
            }
            ck_assert_uint_eq(sum, low + high[h]);
        }
}
END_TEST

/* First, last and one past: nodes that end and begin where the hole does. */
START_TEST(test_guest_numa_node_boundary_at_the_hole_leaves_one_range_each)
{
    struct guest_numa numa = {.nr_nodes = 2, .node = {{1, PLATFORM_HOLE_GPA, -1}, {0, GIB, -1}}};
    struct guest_numa_range range[2];

    ck_assert_uint_eq(guest_numa_range(&numa, 0, PLATFORM_HOLE_GPA, range), 1);
    ck_assert_uint_eq(range[0].start.v, 0);
    ck_assert_uint_eq(range[0].bytes, PLATFORM_HOLE_GPA);
    ck_assert_uint_eq(guest_numa_range(&numa, 1, PLATFORM_HOLE_GPA, range), 1);
    ck_assert_uint_eq(range[0].start.v, PLATFORM_HIGH_GPA);
    ck_assert_uint_eq(range[0].bytes, GIB);
    numa.node[0].memory_bytes += BLOCK_BYTES;
    ck_assert_uint_eq(guest_numa_range(&numa, 0, PLATFORM_HOLE_GPA, range), 2);
    ck_assert_uint_eq(range[1].start.v, PLATFORM_HIGH_GPA);
    ck_assert_uint_eq(range[1].bytes, BLOCK_BYTES);
    ck_assert_uint_eq(guest_numa_range(&numa, 1, PLATFORM_HOLE_GPA, range), 1);
    ck_assert_uint_eq(range[0].start.v, PLATFORM_HIGH_GPA + BLOCK_BYTES);
}
END_TEST

START_TEST(test_guest_numa_order_is_by_distance_then_by_number)
{
    static const uint8_t distances[4][4] = {{10, 30, 20, 30}, {30, 10, 40, 20}, {20, 40, 10, 40}, {30, 20, 40, 10}};
    static const uint8_t expected[4][4] = {{0, 2, 1, 3}, {1, 3, 0, 2}, {2, 0, 1, 3}, {3, 1, 0, 2}};
    struct guest_numa numa = {.nr_nodes = 4};
    uint8_t order[GUEST_NUMA_MAX_NODES];

    for (unsigned i = 0; i < 4; i++)
        memcpy(numa.distance[i], distances[i], 4);
    for (unsigned i = 0; i < 4; i++) {
        guest_numa_order(&numa, i, order);
        ck_assert_mem_eq(order, expected[i], 4);
    }
}
END_TEST

START_TEST(test_guest_numa_packages_never_reach_across_nodes)
{
    static const struct {
        uint64_t cpus[2];
        unsigned nr_cpus, expected;
    } cases[] = {
        {{0x1, 0x2}, 2, 1},  {{0x3, 0xc}, 4, 2},  {{0x5, 0xa}, 4, 1}, {{0x7, 0x38}, 6, 1},
        {{0xf, 0x30}, 6, 4}, {{0xff, 0x0}, 8, 8}, {{0x7, 0x0}, 3, 4}, {{0x1, 0x0}, 1, 1},
        {{0xf, 0xf0}, 8, 4}, {{0x3, 0x4}, 3, 2},  {{0xc, 0x3}, 4, 2}, {{UINT64_MAX << 32, UINT32_MAX}, 64, 32},
        {{0xf, 0x10}, 5, 4},
    };

    for (unsigned c = 0; c < ARRAY_LEN(cases); c++) {
        struct guest_numa numa = {.nr_nodes = 2, .node = {{cases[c].cpus[0], GIB, -1}, {cases[c].cpus[1], GIB, -1}}};
        unsigned run = guest_numa_package_cpus(&numa, cases[c].nr_cpus);

        ck_assert_msg(run == cases[c].expected, "case %u: %u", c, run);
        for (unsigned cpu = 0; cpu < cases[c].nr_cpus; cpu++) {
            unsigned node = guest_numa_of_cpu(&numa, cpu);
            ck_assert(numa.node[node].cpus >> cpu & 1);
            ck_assert_uint_eq(node, guest_numa_of_cpu(&numa, cpu / run * run));
        }
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("guest_numa");
    TCase *tc = tcase_create("guest_numa");

    tcase_add_test(tc, test_guest_numa_distances_that_were_not_said_are_10_and_20);
    tcase_add_test(tc, test_guest_numa_none_stays_none);
    tcase_add_test(tc, test_guest_numa_what_is_no_machine_is_refused);
    tcase_add_test(tc, test_guest_numa_host_node_that_is_not_there_is_refused);
    tcase_add_test(tc, test_guest_numa_ranges_are_all_of_the_memory_once);
    tcase_add_test(tc, test_guest_numa_node_boundary_at_the_hole_leaves_one_range_each);
    tcase_add_test(tc, test_guest_numa_order_is_by_distance_then_by_number);
    tcase_add_test(tc, test_guest_numa_packages_never_reach_across_nodes);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
