/* SPDX-License-Identifier: Apache-2.0 */
/* --guest-numa, --guest-distance and the node of --hotplug-memory: what they say, and each way to say it wrong. */
#include "vmm/options.h"
#include "vmm/options_guest_numa.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MIB (UINT64_C(1) << 20)
#define MAX_WORDS 32

/* Two nodes with a vCPU each, in words that can go on. */
#define TWO "--memory 512M --cpus 2 --guest-numa node=0,cpus=0,memory=256M --guest-numa node=1,cpus=1,memory=256M"

static int parse(const char *line, struct run_options *out, struct diag *diag)
{
    static char copy[4096];
    char *words[MAX_WORDS], *rest = copy, *word;
    int nr = 0;

    memset(diag, 0, sizeof(*diag));
    snprintf(copy, sizeof(copy), "%s", line);
    while ((word = strsep(&rest, " ")))
        words[nr++] = word;
    return options_parse_run(nr, words, out, diag);
}

START_TEST(test_options_guest_numa_none_is_asked_for_unless_it_is)
{
    struct guest_numa none = {.nr_nodes = 0};
    struct run_options o;
    struct diag diag;

    ck_assert_int_eq(parse("--kernel k --hotplug-memory 64M", &o, &diag), 0);
    ck_assert_mem_eq(&o.guest_numa, &none, sizeof(none));
    ck_assert(!o.linux.has_hotplug_node);
}
END_TEST

START_TEST(test_options_guest_numa_every_part_is_read_in_any_order)
{
    struct run_options o;
    struct diag diag;

    ck_assert_msg(parse("--guest-distance 2,0,30 --guest-distance=1,2,254 --guest-numa host=3,memory=1G,node=2 "
                        "--guest-numa node=1,cpus=0-1:3,memory=510M,host=0 --guest-numa cpus=2:4-4,memory=2M,node=0 "
                        "--memory 1536M --cpus 5 --guest-distance 0,2,30 --guest-distance 1,1,10",
                        &o, &diag) == 0,
                  "%s", diag.text);
    static const uint8_t distance[3][3] = {{10, 20, 30}, {20, 10, 254}, {30, 254, 10}};
    static const struct guest_numa_node node[3] = {{0x14, 2 * MIB, -1}, {0xb, 510 * MIB, 0}, {0, 1024 * MIB, 3}};
    ck_assert_uint_eq(o.guest_numa.nr_nodes, 3);
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_uint_eq(o.guest_numa.node[i].cpus, node[i].cpus);
        ck_assert_uint_eq(o.guest_numa.node[i].memory_bytes, node[i].memory_bytes);
        ck_assert_int_eq(o.guest_numa.node[i].host, node[i].host);
        ck_assert_mem_eq(o.guest_numa.distance[i], distance[i], 3);
    }
}
END_TEST

START_TEST(test_options_guest_numa_most_nodes_and_cpus)
{
    struct run_options o;
    struct diag diag;

    ck_assert_msg(parse("--memory 64M --cpus 64 --guest-numa node=0,cpus=0-63,memory=50M --guest-numa node=1,memory=2M "
                        "--guest-numa node=2,memory=2M --guest-numa node=3,memory=2M --guest-numa node=4,memory=2M "
                        "--guest-numa node=5,memory=2M --guest-numa node=6,memory=2M --guest-numa node=7,memory=2M",
                        &o, &diag) == 0,
                  "%s", diag.text);
    ck_assert_uint_eq(o.guest_numa.nr_nodes, GUEST_NUMA_MAX_NODES);
    ck_assert_uint_eq(o.guest_numa.node[0].cpus, UINT64_MAX);
}
END_TEST

START_TEST(test_options_guest_numa_plugged_memory_has_a_node)
{
    struct run_options o;
    struct diag diag;

    ck_assert_msg(parse(TWO " --kernel k --hotplug-memory 64M,node=1", &o, &diag) == 0, "%s", diag.text);
    ck_assert(o.linux.has_hotplug_node);
    ck_assert_uint_eq(o.linux.hotplug_node, 1);
    ck_assert_uint_eq(o.linux.hotplug_bytes, 64 * MIB);
    /* The first, unless it is said; and the last one of two counts, all of it. */
    ck_assert_int_eq(parse(TWO " --kernel k --hotplug-memory 64M,node=1 --hotplug-memory 32M", &o, &diag), 0);
    ck_assert(o.linux.has_hotplug_node);
    ck_assert_uint_eq(o.linux.hotplug_node, 0);
    ck_assert_uint_eq(o.linux.hotplug_bytes, 32 * MIB);
}
END_TEST

/* What is wrong, and words that the line about it must have. */
static const struct {
    const char *line, *says;
} wrong[] = {
    {"--guest-numa", "needs a value"},
    {"--guest-numa=", "is not known"},
    {"--guest-numa node=0", "needs memory="},
    {"--guest-numa memory=256M,cpus=0", "needs node="},
    {"--guest-numa 0", "write --guest-numa"},
    {"--guest-numa node=0,cpu=0,memory=256M", "cpu is not known"},
    {"--guest-numa node=0,cpus=0,1,memory=256M", "cpus=0-1:3"},
    {"--guest-numa node=8,memory=256M", "0 to 7"},
    {"--guest-numa node=-1,memory=256M", "0 to 7"},
    {"--guest-numa node=,memory=256M", "0 to 7"},
    {"--guest-numa node=1x,memory=256M", "0 to 7"},
    {"--guest-numa node=99999999999999999999,memory=256M", "0 to 7"},
    {"--guest-numa node=0,node=1,memory=256M", "node= stands there twice"},
    {"--guest-numa node=0,memory=1M,memory=256M", "multiple of 2M; the next one is 2M"},
    {"--guest-numa node=0,memory=2M,memory=256M", "memory= stands there twice"},
    {"--guest-numa node=0,cpus=0,cpus=1,memory=256M", "cpus= stands there twice"},
    {"--guest-numa node=0,host=0,host=1,memory=256M", "host= stands there twice"},
    {"--guest-numa node=0,memory=lots", "memory=512M"},
    {"--guest-numa node=0,memory=0", "memory=512M"},
    {"--guest-numa node=0,memory=8388607T", "more than a guest can have"},
    {"--guest-numa node=0,memory=255M,cpus=0", "next one is 256M"},
    {"--guest-numa node=0,memory=256M,cpus=", "0-1:3"},
    {"--guest-numa node=0,memory=256M,cpus=64", "up to 63"},
    {"--guest-numa node=0,memory=256M,cpus=1-0", "no list of vCPUs"},
    {"--guest-numa node=0,memory=256M,cpus=0-", "no list of vCPUs"},
    {"--guest-numa node=0,memory=256M,cpus=0:", "no list of vCPUs"},
    {"--guest-numa node=0,memory=256M,cpus=0-1-2", "no list of vCPUs"},
    {"--guest-numa node=0,memory=256M,cpus=+1", "no list of vCPUs"},
    {"--guest-numa node=0,memory=256M,cpus=0,host=", "number of a node of this host"},
    {"--guest-numa node=0,memory=256M,cpus=0,host=-1", "number of a node of this host"},
    {"--guest-numa node=0,memory=256M,cpus=0,host=1024", "number of a node of this host"},
    {"--guest-numa node=0,memory=128M,cpus=0 --guest-numa node=0,memory=128M", "node 0 stands there twice"},
    {"--guest-numa node=1,memory=256M,cpus=0", "node 0 is missing"},
    {"--guest-numa node=0,memory=128M,cpus=0 --guest-numa node=2,memory=128M", "node 1 is missing"},
    {"--guest-numa node=0,memory=254M,cpus=0", "254M together, the guest has 256M"},
    {"--guest-numa node=0,memory=258M,cpus=0", "add up"},
    {"--guest-numa node=0,memory=256M", "vCPU 0 is in no node"},
    {"--guest-numa node=0,memory=256M,cpus=0 --cpus 2", "vCPU 1 is in no node"},
    {"--guest-numa node=0,memory=256M,cpus=0-1", "raise --cpus"},
    {"--guest-numa node=0,memory=128M,cpus=0-1 --guest-numa node=1,memory=128M,cpus=1 --cpus 2",
     "vCPU 1 is in 2 nodes"},
    {"--guest-distance", "needs a value"},
    {"--guest-distance 0,1,20", "no guest node 0; give --guest-numa"},
    {TWO " --guest-distance 0,2,20", "no guest node 2"},
    {TWO " --guest-distance 0,8,20", "0 to 7"},
    {TWO " --guest-distance 0,1", "0,1,20"},
    {TWO " --guest-distance 0", "0,1,20"},
    {TWO " --guest-distance 0-1,20", "0,1,20"},
    {TWO " --guest-distance ,1,20", "0,1,20"},
    {TWO " --guest-distance 0,1,20,30", "from 11 to 254"},
    {TWO " --guest-distance 0,1,", "from 11 to 254"},
    {TWO " --guest-distance 0,1,0", "from 11 to 254"},
    {TWO " --guest-distance 0,1,9", "from 11 to 254"},
    {TWO " --guest-distance 0,1,10", "from 11 to 254"},
    {TWO " --guest-distance 0,1,255", "from 11 to 254"},
    {TWO " --guest-distance 0,1,-20", "from 11 to 254"},
    {TWO " --guest-distance 0,0,20", "it is 10"},
    {TWO " --guest-distance 0,1,20 --guest-distance 1,0,21", "same both ways"},
    {TWO " --guest-distance 0,1,20 --guest-distance 0,1,21", "same both ways"},
    {TWO " --kernel k --hotplug-memory 64M,node=2", "no guest node 2"},
    {TWO " --kernel k --hotplug-memory 64M,node=8", "number of a guest node"},
    {TWO " --kernel k --hotplug-memory 64M,node=", "number of a guest node"},
    {TWO " --kernel k --hotplug-memory node=0", "needs a size"},
    {TWO " --kernel k --hotplug-memory 64M,32M", "32M is not a size"},
    {"--kernel k --hotplug-memory 64M,node=0", "give --guest-numa"},
};

START_TEST(test_options_guest_numa_wrong_is_one_line_that_says_what_is_right)
{
    struct run_options o;
    struct diag diag;

    ck_assert_int_eq(parse(wrong[_i].line, &o, &diag), -1);
    ck_assert_int_eq(diag.code, EXIT_USAGE);
    ck_assert_msg(strstr(diag.text, wrong[_i].says), "\"%s\" does not say \"%s\"", diag.text, wrong[_i].says);
    ck_assert_ptr_null(strchr(diag.text, '\n'));
}
END_TEST

START_TEST(test_options_guest_numa_that_is_refused_changes_nothing)
{
    static const char *const nodes[] = {"node=1,memory=3M", "node=0,memory=2M", "node=2", "x", ""};
    static const char *const distances[] = {"0,1,9", "0,1,21", "1,0,255", "0,0,11", "0,9,20", ""};
    struct guest_numa numa = {.nr_nodes = 0}, before;
    struct diag diag = {0};
    char text[600];

    ck_assert_int_eq(options_parse_guest_numa("node=0,memory=4M,cpus=0", &numa, &diag), 0);
    ck_assert_int_eq(options_parse_guest_distance("0,1,20", &numa, &diag), 0);
    before = numa;
    for (unsigned i = 0; i < ARRAY_LEN(nodes); i++)
        ck_assert_int_eq(options_parse_guest_numa(nodes[i], &numa, &diag), -1);
    for (unsigned i = 0; i < ARRAY_LEN(distances); i++)
        ck_assert_int_eq(options_parse_guest_distance(distances[i], &numa, &diag), -1);
    snprintf(text, sizeof(text), "node=1,memory=2M%0550d", 0);
    diag = (struct diag){0};
    ck_assert_int_eq(options_parse_guest_numa(text, &numa, &diag), -1);
    ck_assert_msg(strstr(diag.text, "too long"), "%s", diag.text);
    ck_assert_mem_eq(&numa, &before, sizeof(before));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("options_guest_numa");
    TCase *tc = tcase_create("options_guest_numa");

    tcase_add_test(tc, test_options_guest_numa_none_is_asked_for_unless_it_is);
    tcase_add_test(tc, test_options_guest_numa_every_part_is_read_in_any_order);
    tcase_add_test(tc, test_options_guest_numa_most_nodes_and_cpus);
    tcase_add_test(tc, test_options_guest_numa_plugged_memory_has_a_node);
    tcase_add_loop_test(tc, test_options_guest_numa_wrong_is_one_line_that_says_what_is_right, 0, ARRAY_LEN(wrong));
    tcase_add_test(tc, test_options_guest_numa_that_is_refused_changes_nothing);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
