/* SPDX-License-Identifier: Apache-2.0 */
/* Where memory is to be: sets of nodes, options as text, and the plan over hosts made by hand. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm/numa.h"
#include "vmm/numa_plan.h"
#include "vmm/options.h"
#include "vmm/pin.h"

#define MIB (UINT64_C(1) << 20)

/* --- sets --------------------------------------------------------------------------------------------------- */

static const struct {
    const char *text;
    uint64_t set;
    const char *again;
} sets[] = {
    {"0", 1, "0"},
    {"0-1", 3, "0-1"},
    {"0-1+3", 0xb, "0-1+3"},
    {"0:2", 5, "0+2"},
    {"2+1+0", 7, "0-2"},
    {"3-3", 8, "3"},
    {"1+1", 2, "1"},
    {"63", UINT64_C(1) << 63, "63"},
    {"0-63", UINT64_MAX, "0-63"},
};

START_TEST(test_numa_set_parse_reads_what_text_writes)
{
    char text[NUMA_SET_TEXT];
    uint64_t set = 0;
    ck_assert_int_eq(numa_set_parse(sets[_i].text, &set), 0);
    ck_assert_uint_eq(set, sets[_i].set);
    ck_assert_str_eq(numa_set_text(text, set), sets[_i].again);
    ck_assert_int_eq(numa_set_parse(text, &set), 0);
    ck_assert_uint_eq(set, sets[_i].set);
}
END_TEST

START_TEST(test_numa_set_parse_wrong_text_is_refused_and_leaves_out_alone)
{
    static const struct {
        const char *text;
        int err;
    } wrong[] = {
        {"", -EINVAL},
        {"a", -EINVAL},
        {"0-", -EINVAL},
        {"-1", -EINVAL},
        {"0+", -EINVAL},
        {"+0", -EINVAL},
        {"1-0", -EINVAL},
        {"0,1", -EINVAL},
        {"0 1", -EINVAL},
        {"0-1-2", -EINVAL},
        {"64", -ERANGE},
        {"0-64", -ERANGE},
        {"99999999999999999999", -ERANGE},
        {"0x1", -EINVAL},
    };
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        uint64_t set = 42;
        ck_assert_msg(numa_set_parse(wrong[i].text, &set) == wrong[i].err, "\"%s\"", wrong[i].text);
        ck_assert_uint_eq(set, 42);
    }
}
END_TEST

START_TEST(test_numa_set_text_longest_fits)
{
    char text[NUMA_SET_TEXT];
    uint64_t set = UINT64_C(0xaaaaaaaaaaaaaaaa), again = 0;
    numa_set_text(text, set);
    ck_assert_int_eq(numa_set_parse(text, &again), 0);
    ck_assert_uint_eq(again, set);
    ck_assert_str_eq(numa_set_text(text, 0), "none");
}
END_TEST

/* --- this host ------------------------------------------------------------------------------------------------ */

START_TEST(test_numa_host_read_agrees_with_the_kernel)
{
    struct numa_host *host = malloc(sizeof(*host));
    numa_host_read(host);
    ck_assert_uint_ge(host->nr, 1);
    uint64_t total = 0;
    unsigned nr_cpus = 0;
    cpu_set_t allowed;
    ck_assert_int_eq(sched_getaffinity(0, sizeof(allowed), &allowed), 0);
    for (unsigned i = 0; i < host->nr; i++) {
        const struct numa_node *node = &host->nodes[i];
        ck_assert(i == 0 || node->id > host->nodes[i - 1].id);
        ck_assert_uint_le(node->free_bytes, node->total_bytes);
        ck_assert_uint_le(node->available_bytes, node->total_bytes);
        ck_assert_uint_ge(node->available_bytes, node->free_bytes);
        ck_assert_uint_eq(node->distance[node->id], NUMA_LOCAL_DISTANCE);
        ck_assert_ptr_eq(numa_host_node(host, node->id), node);
        total += node->total_bytes;
        nr_cpus += node->nr_cpus;
    }
    uint64_t ram = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    ck_assert_uint_le(total, ram + ram / 10);
    ck_assert_uint_ge(total, ram - ram / 10);
    ck_assert_uint_eq(nr_cpus, (unsigned)CPU_COUNT(&allowed));
    int node = numa_host_node_of_cpu(host, sched_getcpu());
    ck_assert_ptr_nonnull(numa_host_node(host, node));
    ck_assert_int_eq(numa_host_node_of_cpu(host, -1), -1);
    ck_assert_int_eq(numa_host_node_of_cpu(host, CPU_SETSIZE), -1);
    ck_assert_ptr_null(numa_host_node(host, NUMA_MAX_NODES - 1));
    ck_assert_uint_ne(numa_host_with_memory(host), 0);
    ck_assert_uint_ne(numa_host_with_cpus(host), 0);
    free(host);
}
END_TEST

/* --- options as text -------------------------------------------------------------------------------------------- */

/* "--name value --name value": options of `ebb run` */
static int parse(const char *line, struct run_options *out, struct diag *diag)
{
    static char copy[1000];
    char *words[32], *rest = copy, *word;
    int nr = 0;
    memset(diag, 0, sizeof(*diag));
    snprintf(copy, sizeof(copy), "%s", line);
    while ((word = strsep(&rest, " ")))
        words[nr++] = word;
    return options_parse_run(nr, words, out, diag);
}

START_TEST(test_options_numa_every_option_is_read)
{
    struct run_options o;
    struct diag diag;
    ck_assert_msg(parse("--numa policy=interleave,nodes=0-1+3,unit=4K --node-budget 0=40M --node-budget 1=24M "
                        "--tiers fast=0-1,slow=3 --demote-rate 200M/s --promote-rate 100M --numa-balancing on",
                        &o, &diag) == 0,
                  "%s", diag.text);
    ck_assert(o.demonstration); /* where memory is says nothing about how much there is */
    ck_assert(o.numa.has_policy && o.numa.balancing);
    ck_assert_int_eq(o.numa.mode, MM_POLICY_INTERLEAVE_PAGES);
    ck_assert_uint_eq(o.numa.nodes, 0xb);
    ck_assert_uint_eq(o.numa.nr_budgets, 2);
    ck_assert_int_eq(o.numa.budgets[1].node, 1);
    ck_assert_uint_eq(o.numa.budgets[1].bytes, 24 * MIB);
    ck_assert_uint_eq(o.numa.nr_tiers, 2);
    ck_assert_str_eq(o.numa.tiers[0].name, "fast");
    ck_assert_uint_eq(o.numa.tiers[0].nodes, 3);
    ck_assert_str_eq(o.numa.tiers[1].name, "slow");
    ck_assert_uint_eq(o.numa.tiers[1].nodes, 8);
    ck_assert_uint_eq(o.numa.demote_bytes_per_s, 200 * MIB);
    ck_assert_uint_eq(o.numa.promote_bytes_per_s, 100 * MIB);
    ck_assert_str_eq(numa_tier_name(&o.numa, 3), "slow");
    ck_assert_str_eq(numa_tier_name(&o.numa, 2), "-");
}
END_TEST

START_TEST(test_options_numa_defaults)
{
    struct run_options o;
    struct diag diag;
    ck_assert_int_eq(parse("--tiers a=0,b=1", &o, &diag), 0);
    ck_assert_uint_eq(o.numa.demote_bytes_per_s, NUMA_DEFAULT_RATE);
    ck_assert_uint_eq(o.numa.promote_bytes_per_s, NUMA_DEFAULT_RATE);
    ck_assert(!o.numa.has_policy && !o.numa.balancing);
    ck_assert_int_eq(parse("--numa policy=interleave,nodes=0", &o, &diag), 0);
    ck_assert_int_eq(o.numa.mode, MM_POLICY_INTERLEAVE);
    ck_assert_int_eq(parse("--numa policy=local", &o, &diag), 0);
    ck_assert_int_eq(o.numa.mode, MM_POLICY_LOCAL);
    ck_assert_uint_eq(o.numa.nodes, 0);
    ck_assert_int_eq(parse("--numa policy=preferred,node=1", &o, &diag), 0);
    ck_assert_int_eq(o.numa.mode, MM_POLICY_PREFERRED);
    ck_assert_int_eq(parse("--numa policy=bind,nodes=0 --numa-balancing off", &o, &diag), 0);
    ck_assert_int_eq(o.numa.mode, MM_POLICY_BIND);
}
END_TEST

static const struct {
    const char *line, *says;
} wrong_options[] = {
    {"--numa", "needs a value"},
    {"--numa=", "not known"},
    {"--numa nodes=0", "names no policy"},
    {"--numa policy=bnid,nodes=0", "did you mean bind?"},
    {"--numa policy=", "bind, preferred"},
    {"--numa policy=bind", "needs nodes"},
    {"--numa policy=bind,nodes=", "names no nodes"},
    {"--numa policy=bind,nodes=x", "0-1+3"},
    {"--numa policy=bind,nodes=64", "below 64"},
    {"--numa policy=bind,nodes=0,1", "joined by +"},
    {"--numa policy=bind,node=0", "nodes="},
    {"--numa policy=bind,nodes=0,unit=2M", "unit= is for"},
    {"--numa policy=bind,nodes=0,node=0", "exclude"},
    {"--numa policy=interleave", "needs nodes"},
    {"--numa policy=interleave,nodes=0,unit=1G", "2M or 4K"},
    {"--numa policy=preferred", "node=1"},
    {"--numa policy=preferred,nodes=0", "node=1"},
    {"--numa policy=preferred,node=0-1", "one node"},
    {"--numa policy=local --numa policy=local", "twice"},
    {"--numa policy=local,speed=1", "policy=bind|"},
    {"--node-budget 64M", "NODE=SIZE"},
    {"--node-budget =64M", "NODE=SIZE"},
    {"--node-budget 0-1=64M", "once for each node"},
    {"--node-budget 0=lots", "not a size"},
    {"--node-budget 0=0", "too small"},
    {"--node-budget 0=1M", "2M"},
    {"--node-budget 0=4194305", "4K"},
    {"--node-budget 0=8M --node-budget 0=8M", "already"},
    {"--tiers fast=0", "at least two"},
    {"--tiers fast=0,slow", "names no nodes"},
    {"--tiers fast=0,slow=", "names no nodes"},
    {"--tiers =0,slow=1", "names no nodes"},
    {"--tiers Fast=0,slow=1", "small letters"},
    {"--tiers abcdefghijklmnop=0,slow=1", "1 to 15"},
    {"--tiers fast=0,fast=1", "twice"},
    {"--tiers fast=0-1,slow=1", "node 1 is in two tiers, fast and slow"},
    {"--tiers a=0,b=1,c=2,d=3,e=4,f=5,g=6,h=7,i=8", "at most 8"},
    {"--tiers a=0,b=1 --tiers a=0,b=1", "twice"},
    {"--tiers a=0,b=1 --demote-rate 0", "nothing would ever move"},
    {"--tiers a=0,b=1 --promote-rate 0/s", "nothing would ever move"},
    {"--tiers a=0,b=1 --promote-rate 100/s", "4K/s"},
    {"--tiers a=0,b=1 --promote-rate 1M/m", "200M/s"},
    {"--tiers a=0,b=1 --demote-rate fast", "200M/s"},
    {"--demote-rate 1M/s", "--tiers"},
    {"--promote-rate 1M/s", "--tiers"},
    {"--numa-balancing yes", "on, off"},
    {"--numa policy=bind,policy=local,nodes=0", "second of its kind"},
    {"--numa policy=bind,nodes=0,nodes=1", "joined by +"},
    {"--numa policy=preferred,node=0,node=1", "second of its kind"},
    {"--numa policy=interleave,nodes=0,unit=4K,unit=2M", "second of its kind"},
    {"--guest-numa node=0,cpus=0,memory=256M,host=64", "below 64"},
    {"--backend kernel --guest-numa node=0,cpus=0,memory=256M,host=0", "numactl"},
    {"--backend kernel --numa policy=local", "numactl"},
    {"--backend kernel --tiers a=0,b=1", "numactl"},
    {"--backend kernel --node-budget 0=64M", "numactl"},
};

START_TEST(test_options_numa_wrong_is_one_line_that_says_what_is_right)
{
    struct run_options o;
    struct diag diag;
    ck_assert_int_eq(parse(wrong_options[_i].line, &o, &diag), -1);
    ck_assert_int_eq(diag.code, EXIT_USAGE);
    ck_assert_msg(strstr(diag.text, wrong_options[_i].says), "%s: \"%s\" does not say \"%s\"", wrong_options[_i].line,
                  diag.text, wrong_options[_i].says);
    ck_assert_ptr_null(strchr(diag.text, '\n'));
}
END_TEST

/* --- the plan ------------------------------------------------------------------------------------------------- */

/* @nr nodes of @mib each, a CPU on each; distance 10, 20 to the next, 30 to the one behind it, ... */
static struct numa_host *make_host(unsigned nr, uint64_t mib)
{
    struct numa_host *host = calloc(1, sizeof(*host));
    host->nr = nr;
    for (unsigned i = 0; i < nr; i++) {
        struct numa_node *node = &host->nodes[i];
        node->id = (int)i;
        node->total_bytes = node->free_bytes = node->available_bytes = mib * MIB;
        node->nr_cpus = 1;
        CPU_SET(i, &node->cpus);
        for (unsigned j = 0; j < nr; j++)
            node->distance[j] = (uint8_t)(10 + 10 * (i < j ? j - i : i - j));
    }
    return host;
}

/* The lab: two nodes with a CPU, one of memory only. */
static struct numa_host *make_lab(void)
{
    struct numa_host *host = make_host(3, 1024);
    host->nodes[2].nr_cpus = 0;
    CPU_ZERO(&host->nodes[2].cpus);
    host->nodes[2].distance[0] = host->nodes[2].distance[1] = 40;
    host->nodes[0].distance[2] = host->nodes[1].distance[2] = 40;
    return host;
}

struct planned {
    struct mm_config config;
    struct mm_policy policy;
    struct diag diag;
};

static int plan(const struct numa_host *host, const char *line, struct planned *out)
{
    static struct run_options o;
    memset(out, 0, sizeof(*out));
    ck_assert_msg(parse(line, &o, &out->diag) == 0, "%s", out->diag.text);
    out->config = o.mm;
    return numa_plan(&o.numa, host, &out->config, &out->policy, &out->diag);
}

/* The plan of @line: "ID=MIB ID=MIB ...", and the sum is the budget. */
static void expect_plan(const struct numa_host *host, const char *line, const char *nodes, struct planned *out)
{
    char text[200] = "";
    uint64_t sum = 0;
    ck_assert_msg(plan(host, line, out) == 0, "%s: %s", line, out->diag.text);
    for (unsigned i = 0; i < out->config.nr_nodes; i++) {
        const struct mm_node_config *node = &out->config.nodes[i];
        snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s%d=%g", i ? " " : "", node->id,
                 (double)node->budget_bytes / (double)MIB);
        sum += node->budget_bytes;
        ck_assert_uint_eq(node->budget_bytes % PAGE_BYTES, 0);
        ck_assert_uint_eq(node->distance[i], NUMA_LOCAL_DISTANCE);
    }
    ck_assert_msg(strcmp(text, nodes) == 0, "%s: %s instead of %s", line, text, nodes);
    if (out->config.nr_nodes)
        ck_assert_uint_eq(sum, out->config.budget_bytes);
}

/* A guest of two nodes, three parts and one part of its memory; and one of which one node is to be on host node 2. */
#define GUEST_3_1 "--memory 256M --guest-numa node=0,cpus=0,memory=192M,host=0 --guest-numa node=1,memory=64M,host=1 "
#define GUEST_ONE "--memory 256M --guest-numa node=0,cpus=0-1,memory=190M --guest-numa node=1,memory=66M,host=2 "

static const struct {
    const char *line, *nodes;
    enum mm_policy_mode mode;
    uint8_t mask;
} plans[] = {
    /* nothing asked: the kernel places pages */
    {"--budget 64M", "", MM_POLICY_LOCAL, 0},
    {"--budget 64M --numa-balancing off", "", MM_POLICY_LOCAL, 0},
    {"--budget 64M --numa-balancing on", "0=32 1=32", MM_POLICY_LOCAL, 3},
    {"--budget 64M --numa policy=bind,nodes=0", "0=64", MM_POLICY_BIND, 1},
    {"--budget 64M --numa policy=bind,nodes=2", "2=64", MM_POLICY_BIND, 1},
    {"--budget 64M --numa policy=bind,nodes=0+2", "0=32 2=32", MM_POLICY_BIND, 3},
    {"--budget 1024M --numa policy=bind,nodes=1", "1=1024", MM_POLICY_BIND, 1},
    {"--budget 64M --numa policy=interleave,nodes=0-2", "0=22 1=22 2=20", MM_POLICY_INTERLEAVE, 7},
    {"--budget 64M --numa policy=interleave,nodes=0-1,unit=4K", "0=32 1=32", MM_POLICY_INTERLEAVE_PAGES, 3},
    {"--budget 65M --numa policy=interleave,nodes=0-1", "0=33 1=32", MM_POLICY_INTERLEAVE, 3},
    {"--budget 64M --numa policy=preferred,node=1", "1=64", MM_POLICY_PREFERRED, 1},
    /* a sixteenth stays free; then the nearest */
    {"--budget 1024M --numa policy=preferred,node=1", "0=64 1=960", MM_POLICY_PREFERRED, 2},
    {"--budget 2000M --numa policy=preferred,node=2", "0=960 1=80 2=960", MM_POLICY_PREFERRED, 4},
    {"--budget 64M --numa policy=local", "0=32 1=32", MM_POLICY_LOCAL, 3},
    {"--budget 64M --numa policy=local,nodes=1-2", "1=32 2=32", MM_POLICY_LOCAL, 3},
    {"--budget 64M --node-budget 0=40M --node-budget 2=24M", "0=40 2=24", MM_POLICY_LOCAL, 3},
    {"--budget 64M --numa policy=bind,nodes=0-1 --node-budget 1=16M", "0=48 1=16", MM_POLICY_BIND, 3},
    {"--budget 64M --numa policy=interleave,nodes=0-2 --node-budget 1=16M", "0=24 1=16 2=24", MM_POLICY_INTERLEAVE, 7},
    {"--budget 64M --numa policy=local --node-budget 2=16M", "0=24 1=24 2=16", MM_POLICY_LOCAL, 7},
    {"--budget 64M --numa policy=preferred,node=0 --node-budget 0=16M", "0=16 1=48", MM_POLICY_PREFERRED, 1},
    {"--budget 64M --tiers fast=0-1,slow=2", "0=30 1=30 2=4", MM_POLICY_LOCAL, 7},
    {"--budget 3G --tiers fast=0,slow=1", NULL, MM_POLICY_LOCAL, 0},
    {"--budget 1500M --tiers fast=0,slow=1", "0=960 1=540", MM_POLICY_LOCAL, 3},
    {"--budget 1500M --tiers fast=2,slow=0", "0=540 2=960", MM_POLICY_LOCAL, 3},
    {"--budget 64M --tiers fast=0,slow=2 --node-budget 0=16M", "0=16 2=48", MM_POLICY_LOCAL, 3},
    {"--budget 64M --tiers fast=0,slow=2 --numa policy=bind,nodes=0", "0=60 2=4", MM_POLICY_BIND, 1},
    {"--numa policy=bind,nodes=0", "0=64", MM_POLICY_BIND, 1}, /* the demonstration */
    /* by the memory of guest nodes that are to be there */
    {GUEST_3_1 "--budget 256M", "0=192 1=64", MM_POLICY_LOCAL, 3},
    {GUEST_3_1 "--budget 256M --numa policy=bind,nodes=0-1", "0=192 1=64", MM_POLICY_BIND, 3},
    {GUEST_3_1 "--budget 256M --node-budget 1=128M", "0=128 1=128", MM_POLICY_LOCAL, 3},
    {GUEST_3_1 "--budget 256M --numa policy=preferred,node=2", NULL, MM_POLICY_LOCAL, 0},
    {GUEST_3_1 "--budget 64M --tiers a=0-1,b=2", "0=30 1=30 2=4", MM_POLICY_LOCAL, 7},
    {GUEST_ONE "--budget 256M --cpus 2", "0=64 1=62 2=130", MM_POLICY_LOCAL, 7},
};

START_TEST(test_numa_plan_divides_the_budget)
{
    struct numa_host *host = make_lab();
    struct planned p;
    if (!plans[_i].nodes) {
        ck_assert_int_eq(plan(host, plans[_i].line, &p), -1);
        ck_assert_int_eq(p.diag.code, EXIT_USAGE);
    } else {
        expect_plan(host, plans[_i].line, plans[_i].nodes, &p);
        ck_assert_int_eq(p.policy.mode, plans[_i].mode);
        ck_assert_uint_eq(p.policy.nodes, plans[_i].mask);
    }
    free(host);
}
END_TEST

START_TEST(test_numa_plan_ranks_and_distances_are_the_hosts)
{
    struct numa_host *host = make_lab();
    struct planned p;
    expect_plan(host, "--budget 96M --tiers fast=1,middle=0,slow=2", "0=6 1=84 2=6", &p);
    ck_assert_uint_eq(p.config.nodes[0].rank, 1);
    ck_assert_uint_eq(p.config.nodes[1].rank, 0);
    ck_assert_uint_eq(p.config.nodes[2].rank, 2);
    ck_assert_uint_eq(p.config.nodes[0].distance[1], 20);
    ck_assert_uint_eq(p.config.nodes[2].distance[0], 40);
    expect_plan(host, "--budget 64M --numa policy=bind,nodes=1-2", "1=32 2=32", &p);
    ck_assert_uint_eq(p.config.nodes[0].distance[1], 40);
    ck_assert_uint_eq(p.config.nodes[1].rank, 0);
    free(host);
}
END_TEST

START_TEST(test_numa_plan_equal_parts_leave_out_who_has_no_room)
{
    struct numa_host *host = make_host(4, 1024);
    struct planned p;
    host->nodes[1].available_bytes = 64 * MIB; /* of them 60 */
    host->nodes[2].available_bytes = 0;
    expect_plan(host, "--budget 660M --numa policy=local", "0=300 1=60 3=300", &p);
    ck_assert_uint_eq(p.policy.nodes, 7);
    free(host);
}
END_TEST

/* It was given to the first node, one that had got nothing: 1 MiB there is too little, and the run was refused. */
START_TEST(test_numa_plan_remainder_goes_to_a_node_that_has_a_part)
{
    struct numa_host *host = make_host(2, 1024);
    struct planned p;
    host->nodes[0].available_bytes = 0;
    expect_plan(host, "--budget 65M --numa policy=local", "1=65", &p);
    free(host);
}
END_TEST

START_TEST(test_numa_plan_eight_nodes_of_many)
{
    struct numa_host *host = make_host(9, 1024);
    struct planned p;
    expect_plan(host, "--budget 64M --numa policy=interleave,nodes=0-7", "0=8 1=8 2=8 3=8 4=8 5=8 6=8 7=8", &p);
    ck_assert_uint_eq(p.policy.nodes, 0xff);
    expect_plan(host, "--budget 64M --numa policy=interleave,nodes=1-8", "1=8 2=8 3=8 4=8 5=8 6=8 7=8 8=8", &p);
    ck_assert_uint_eq(p.config.nodes[7].distance[0], 80);
    ck_assert_int_eq(plan(host, "--budget 64M --numa policy=local", &p), -1);
    ck_assert_ptr_nonnull(strstr(p.diag.text, "at most 8 nodes"));
    free(host);
}
END_TEST

/* Pages on a node of memory only come to who uses them. */
START_TEST(test_numa_plan_balancing_needs_one_node_with_cpus)
{
    struct numa_host *host = make_lab();
    struct planned p;
    expect_plan(host, "--budget 64M --numa-balancing on --numa policy=bind,nodes=0+2", "0=32 2=32", &p);
    ck_assert(p.config.numa_balancing);
    host->nodes[0].nr_cpus = host->nodes[1].nr_cpus = 0;
    ck_assert_int_eq(plan(host, "--budget 64M --numa-balancing on --numa policy=bind,nodes=0-2", &p), -1);
    ck_assert_ptr_nonnull(strstr(p.diag.text, "no node with a part of the budget has CPUs"));
    free(host);
}
END_TEST

START_TEST(test_numa_plan_one_node_serves_every_policy)
{
    static const char *const lines[] = {
        "--budget 64M --numa policy=bind,nodes=0",
        "--budget 64M --numa policy=preferred,node=0",
        "--budget 64M --numa policy=interleave,nodes=0",
        "--budget 64M --numa policy=interleave,nodes=0,unit=4K",
        "--budget 64M --numa policy=local",
        "--budget 64M --node-budget 0=64M",
    };
    struct numa_host *host = make_host(1, 1024);
    struct planned p;
    for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
        expect_plan(host, lines[i], "0=64", &p);
        ck_assert_uint_eq(p.policy.nodes, 1);
    }
    free(host);
}
END_TEST

/* The same commands work on any host; `ebb run` says that there is nothing to balance. */
START_TEST(test_numa_plan_balancing_on_a_host_with_one_node_is_no_mistake)
{
    struct numa_host *host = make_host(1, 1024);
    struct planned p;
    expect_plan(host, "--budget 64M --numa-balancing on", "", &p);
    expect_plan(host, "--budget 64M --numa-balancing on --numa policy=local", "0=64", &p);
    ck_assert(!p.config.numa_balancing);
    expect_plan(host, "--budget 64M --numa-balancing on --guest-numa node=0,cpus=0,memory=256M,host=0", "0=64", &p);
    ck_assert(!p.config.numa_balancing);
    free(host);
}
END_TEST

static const struct {
    const char *line, *says;
} wrong_plans[] = {
    {"--budget 64M --numa policy=bind,nodes=3", "no node 3; it has 0-2"},
    {"--budget 64M --numa policy=bind,nodes=0-7", "no node 3"},
    {"--budget 64M --numa policy=preferred,node=9", "no node 9"},
    {"--budget 64M --numa policy=local,nodes=5", "no node 5"},
    {"--budget 64M --tiers fast=0,slow=4", "--tiers: this host has no node 4"},
    {"--budget 64M --node-budget 6=64M", "--node-budget: this host has no node 6"},
    {"--budget 64M --numa policy=bind,nodes=0 --node-budget 1=8M", "neither --numa nor --tiers"},
    {"--budget 64M --tiers a=0,b=1 --node-budget 2=8M", "neither --numa nor --tiers"},
    {"--budget 64M --tiers a=0,b=1 --numa policy=bind,nodes=2", "node 2 is in no tier"},
    {GUEST_3_1 "--numa policy=bind,nodes=0", "host=1 is not among the nodes of --numa, 0"},
    {GUEST_3_1 "--tiers a=0,b=2", "host=1 is not among the nodes of --tiers, 0+2"},
    {"--guest-numa node=0,cpus=0,memory=256M,host=5", "--guest-numa: this host has no node 5"},
    {"--budget 1025M --numa policy=bind,nodes=0", "has 1 GiB free"},
    {"--budget 2G --numa policy=interleave,nodes=0-1 --node-budget 0=8M", "node 1 is to have"},
    {"--budget 2G --node-budget 0=1500M --node-budget 1=548M", "node 0 is to have"},
    {"--budget 2G --numa policy=local", "on nodes 0-1, where there is room for 1.9 GiB"},
    {"--budget 3G --numa policy=preferred,node=0", "where there is room for 2.8 GiB"},
    {"--budget 2G --numa policy=local,nodes=0-1 --node-budget 0=512M", "1.5 GiB of the budget are to be on node 1"},
    {"--budget 64M --node-budget 0=32M", "must be equal"},
    {"--budget 64M --node-budget 0=128M", "less"},
    {"--budget 64M --numa policy=bind,nodes=0 --node-budget 0=32M", "sum up to 32M"},
    {"--budget 64M --numa policy=bind,nodes=0-1 --node-budget 0=64M", "node 1 would have 0 bytes"},
    {"--budget 64M --numa policy=bind,nodes=0-1 --node-budget 0=63M", "node 1 would have 1 MiB"},
    {"--budget 64M --tiers a=0,b=1 --node-budget 0=64M", "node 1 would have 0 bytes"},
    {"--budget 64M --numa-balancing on --numa policy=bind,nodes=0", "nothing to balance"},
    {"--budget 64M --numa-balancing on --numa policy=bind,nodes=2", "on one node"},
};

START_TEST(test_numa_plan_wrong_is_one_line_that_says_what_is_right)
{
    struct numa_host *host = make_lab();
    struct planned p;
    ck_assert_int_eq(plan(host, wrong_plans[_i].line, &p), -1);
    ck_assert_int_eq(p.diag.code, EXIT_USAGE);
    ck_assert_msg(strstr(p.diag.text, wrong_plans[_i].says), "%s: \"%s\" does not say \"%s\"", wrong_plans[_i].line,
                  p.diag.text, wrong_plans[_i].says);
    free(host);
}
END_TEST

START_TEST(test_numa_plan_node_without_memory_is_named)
{
    struct numa_host *host = make_host(3, 1024);
    struct planned p;
    host->nodes[1].total_bytes = host->nodes[1].free_bytes = host->nodes[1].available_bytes = 0;
    ck_assert_int_eq(plan(host, "--budget 64M --numa policy=bind,nodes=1", &p), -1);
    ck_assert_ptr_nonnull(strstr(p.diag.text, "node 1 has no memory"));
    ck_assert_ptr_nonnull(strstr(p.diag.text, "0+2"));
    expect_plan(host, "--budget 64M --numa policy=local", "0=32 2=32", &p);
    free(host);
}
END_TEST

START_TEST(test_numa_plan_hands_on_balancing_and_rates)
{
    struct numa_host *host = make_lab();
    struct planned p;
    expect_plan(host, "--budget 64M --tiers a=0-1,b=2 --demote-rate 1M/s --promote-rate 2M/s --numa-balancing on",
                "0=30 1=30 2=4", &p);
    ck_assert(p.config.numa_balancing);
    ck_assert_uint_eq(p.config.demote_bytes_per_s, MIB);
    ck_assert_uint_eq(p.config.promote_bytes_per_s, 2 * MIB);
    expect_plan(host, "--budget 64M --numa policy=local", "0=32 1=32", &p);
    ck_assert(!p.config.numa_balancing);
    ck_assert_uint_eq(p.config.demote_bytes_per_s, NUMA_DEFAULT_RATE);
    free(host);
}
END_TEST

/* --- vCPUs on CPUs ---------------------------------------------------------------------------------------------- */

/* Nodes 0 and 1 with CPUs 0-1 and 2-3; node 2 has none. */
static void expect_pins(const struct guest_numa *guest, unsigned vm, unsigned nr, const int *expected)
{
    struct numa_host *host = make_host(3, 1024);
    cpu_set_t allowed;
    int cpus[8];
    CPU_ZERO(&allowed);
    for (unsigned n = 0; n < 3; n++)
        CPU_ZERO(&host->nodes[n].cpus);
    for (unsigned cpu = 0; cpu < 4; cpu++) {
        CPU_SET(cpu, &allowed);
        CPU_SET(cpu, &host->nodes[cpu / 2].cpus);
    }
    pin_choose(host, guest, &allowed, vm, nr, cpus);
    for (unsigned i = 0; i < nr; i++)
        ck_assert_msg(cpus[i] == expected[i], "VM %u, vCPU %u: CPU %d", vm, i, cpus[i]);
    free(host);
}

START_TEST(test_pin_vcpus_go_round_the_cpus)
{
    const struct guest_numa none = {0};
    expect_pins(&none, 0, 6, (const int[]){0, 1, 2, 3, 0, 1});
    expect_pins(&none, 1, 3, (const int[]){3, 0, 1});
}
END_TEST

START_TEST(test_pin_vcpus_of_guest_nodes_stay_on_the_hosts_node)
{
    /* vCPUs 0 and 1 on node 1, 2 anywhere, 3 on node 2, which has no CPU */
    const struct guest_numa guest = {.nr_nodes = 3, .node = {{3, 0, 1}, {4, 0, GUEST_NUMA_NO_HOST}, {8, 0, 2}}};
    expect_pins(&guest, 0, 4, (const int[]){2, 3, 2, 3});
    const struct guest_numa crossed = {.nr_nodes = 2, .node = {{1, 0, 1}, {2, 0, 0}}};
    expect_pins(&crossed, 0, 2, (const int[]){2, 0});
    expect_pins(&crossed, 1, 2, (const int[]){3, 1});
    expect_pins(&crossed, 2, 2, (const int[]){2, 0});
}
END_TEST

/* Numbers with a gap, as where a socket has no memory. */
START_TEST(test_numa_plan_numbers_with_a_gap)
{
    struct numa_host *host = make_host(2, 1024);
    struct planned p;
    host->nodes[1].id = 5;
    host->nodes[0].distance[5] = host->nodes[1].distance[0] = 31;
    host->nodes[1].distance[5] = 10;
    expect_plan(host, "--budget 64M --numa policy=interleave,nodes=0+5", "0=32 5=32", &p);
    ck_assert_uint_eq(p.config.nodes[0].distance[1], 31);
    ck_assert_uint_eq(p.policy.nodes, 3);
    ck_assert_int_eq(plan(host, "--budget 64M --numa policy=bind,nodes=1", &p), -1);
    ck_assert_ptr_nonnull(strstr(p.diag.text, "it has 0+5"));
    free(host);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("numa");
    TCase *tc = tcase_create("numa");
    tcase_add_loop_test(tc, test_numa_set_parse_reads_what_text_writes, 0, ARRAY_LEN(sets));
    tcase_add_test(tc, test_numa_set_parse_wrong_text_is_refused_and_leaves_out_alone);
    tcase_add_test(tc, test_numa_set_text_longest_fits);
    tcase_add_test(tc, test_numa_host_read_agrees_with_the_kernel);
    tcase_add_test(tc, test_options_numa_every_option_is_read);
    tcase_add_test(tc, test_options_numa_defaults);
    tcase_add_loop_test(tc, test_options_numa_wrong_is_one_line_that_says_what_is_right, 0, ARRAY_LEN(wrong_options));
    tcase_add_loop_test(tc, test_numa_plan_divides_the_budget, 0, ARRAY_LEN(plans));
    tcase_add_test(tc, test_numa_plan_ranks_and_distances_are_the_hosts);
    tcase_add_test(tc, test_numa_plan_equal_parts_leave_out_who_has_no_room);
    tcase_add_test(tc, test_numa_plan_remainder_goes_to_a_node_that_has_a_part);
    tcase_add_test(tc, test_numa_plan_eight_nodes_of_many);
    tcase_add_test(tc, test_numa_plan_balancing_needs_one_node_with_cpus);
    tcase_add_test(tc, test_numa_plan_one_node_serves_every_policy);
    tcase_add_test(tc, test_numa_plan_balancing_on_a_host_with_one_node_is_no_mistake);
    tcase_add_loop_test(tc, test_numa_plan_wrong_is_one_line_that_says_what_is_right, 0, ARRAY_LEN(wrong_plans));
    tcase_add_test(tc, test_numa_plan_node_without_memory_is_named);
    tcase_add_test(tc, test_numa_plan_numbers_with_a_gap);
    tcase_add_test(tc, test_numa_plan_hands_on_balancing_and_rates);
    tcase_add_test(tc, test_pin_vcpus_go_round_the_cpus);
    tcase_add_test(tc, test_pin_vcpus_of_guest_nodes_stay_on_the_hosts_node);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
