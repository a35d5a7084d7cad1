/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A memory host over several nodes: tables made of hosts by hand, and a real one over this host's nodes (the one there
 * is counts twice). The test's own thread is the guest.
 */
#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <linux/mman.h>
#include <numaif.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "mm/policy/access.h"
#include "vmm/memhost.h"
#include "vmm/memhost_numa.h"

#define MIB (UINT64_C(1) << 20)
#define VM_BYTES (32 * MIB)
#define VM_PAGES (VM_BYTES / PAGE_BYTES)

/* Nodes 0, 1 and 4; CPUs 0-1, 2-3 and none. */
static struct numa_host *make_host(void)
{
    static const uint8_t distance[3][3] = {{10, 20, 31}, {20, 10, 30}, {31, 30, 10}};
    static const int ids[3] = {0, 1, 4};
    struct numa_host *host = calloc(1, sizeof(*host));
    host->nr = 3;
    for (unsigned i = 0; i < 3; i++) {
        struct numa_node *node = &host->nodes[i];
        node->id = ids[i];
        for (unsigned j = 0; j < 3; j++)
            node->distance[ids[j]] = distance[i][j];
        for (unsigned cpu = 2 * i; i < 2 && cpu < 2 * i + 2; cpu++)
            CPU_SET(cpu, &node->cpus);
        node->nr_cpus = (unsigned)CPU_COUNT(&node->cpus);
    }
    return host;
}

START_TEST(test_memhost_numa_cpus_have_the_nearest_node_of_the_configuration)
{
    struct numa_host *host = make_host();
    struct memhost_numa *numa = malloc(sizeof(*numa));
    struct mm_config config = {.nr_nodes = 2, .nodes = {{.id = 1}, {.id = 4}}};
    memhost_numa_init(numa, &config, host);
    for (unsigned cpu = 0; cpu < 4; cpu++)
        ck_assert_uint_eq(numa->node_of_cpu[cpu], 0);
    ck_assert_int_eq(CPU_COUNT(&numa->node_cpus[0]), 2);
    ck_assert(CPU_ISSET(2, &numa->node_cpus[0]) && CPU_ISSET(3, &numa->node_cpus[0]));
    ck_assert_int_eq(CPU_COUNT(&numa->node_cpus[1]), 0);
    config = (struct mm_config){.nr_nodes = 3, .nodes = {{.id = 0}, {.id = 1}, {.id = 4}}};
    memhost_numa_init(numa, &config, host);
    ck_assert_uint_eq(numa->node_of_cpu[1], 0);
    ck_assert_uint_eq(numa->node_of_cpu[2], 1);
    ck_assert_uint_eq(numa->node_of_cpu[CPU_SETSIZE - 1], 0);
    config = (struct mm_config){0};
    memhost_numa_init(numa, &config, host);
    ck_assert_uint_eq(numa->node_of_cpu[2], 0);
    ck_assert_int_eq(CPU_COUNT(&numa->node_cpus[0]), 0);
    free(numa);
    free(host);
}
END_TEST

START_TEST(test_memhost_numa_arena_has_a_part_for_each_node)
{
    struct mm_config config = {
        .budget_bytes = 48 * MIB,
        .nr_nodes = 2,
        .nodes = {{.id = 1, .budget_bytes = 32 * MIB}, {.id = 4, .budget_bytes = 16 * MIB}},
    };
    struct hostmem_config out = {0};
    memhost_numa_arena(&config, &out);
    ck_assert_uint_eq(out.nr_nodes, 2);
    ck_assert_uint_eq(out.nr_slots, mm_arena_slots(&config));
    ck_assert_int_eq(out.nodes[1].id, 4);
    ck_assert_uint_eq(out.nodes[0].start, 0);
    ck_assert_uint_eq(out.nodes[1].start, out.nodes[0].nr_slots);
    ck_assert_uint_eq(out.nodes[0].nr_slots + out.nodes[1].nr_slots, out.nr_slots);
    ck_assert_uint_ge(out.nodes[0].nr_slots, 32 * MIB / PAGE_BYTES);
    config.nr_nodes = 0;
    memhost_numa_arena(&config, &out);
    ck_assert_uint_eq(out.nr_nodes, 1);
    ck_assert_int_eq(out.nodes[0].id, MM_NODE_ANY);
    ck_assert_uint_eq(out.nodes[0].nr_slots, mm_arena_slots(&config));
}
END_TEST

/* --- a real one ---------------------------------------------------------------------------------------------- */

struct rig {
    struct memhost *mh;
    struct memhost_vm *vm;
    struct mm_config config;
};

static void rig_open(struct rig *rig, enum transport transport, struct mm_policy policy)
{
    struct diag diag = {0};
    struct numa_host *host = malloc(sizeof(*host));
    numa_host_read(host);
    uint64_t nodes = numa_host_with_memory(host);
    free(host);
    *rig = (struct rig){.config = {.budget_bytes = 64 * MIB, .nr_nodes = 2, .fault_around_pages = 1}};
    rig->config.thp = policy.mode != MM_POLICY_INTERLEAVE_PAGES;
    for (unsigned i = 0; i < 2; i++) {
        uint64_t left = nodes & (nodes - 1);
        rig->config.nodes[i] =
            (struct mm_node_config){.id = __builtin_ctzll(nodes), .budget_bytes = 32 * MIB, .distance = {20, 20}};
        rig->config.nodes[i].distance[i] = 10;
        nodes = left ? left : nodes;
    }
    const struct memhost_config config = {.transport = transport, .mm = rig->config, .policy = policy};
    ck_assert_msg(memhost_create(&config, &rig->mh, &diag) == 0, "%s", diag.text);
    access_configure(memhost_mm(rig->mh), 0, NULL); /* what was touched stays where it is looked for */
    const struct mm_region region = {.start = {0}, .bytes = VM_BYTES};
    const struct memhost_vm_config vm = {.regions = &region, .nr_regions = 1, .nr_fault_threads = 1};
    ck_assert_msg(memhost_vm_add(rig->mh, &vm, &rig->vm, &diag) == 0, "%s", diag.text);
}

static void rig_close(struct rig *rig)
{
    memhost_vm_remove(rig->vm);
    memhost_destroy(rig->mh);
}

static char *page_at(struct rig *rig, uint64_t page)
{
    return memhost_vm_hva(rig->vm, (gpa_t){page * PAGE_BYTES}, PAGE_BYTES);
}

/* Touches the first @nr pages; each is on the host's node of the configuration's node that @index_of says. */
static void touch_and_look(struct rig *rig, uint64_t nr, unsigned (*index_of)(uint64_t page))
{
    for (uint64_t i = 0; i < nr; i++)
        *(volatile uint64_t *)(void *)page_at(rig, i) = i;
    for (uint64_t i = 0; i < nr; i++) {
        void *page = page_at(rig, i);
        int status = -1;
        ck_assert_int_eq(move_pages(0, 1, &page, NULL, &status, 0), 0);
        ck_assert_int_eq(status, rig->config.nodes[index_of(i)].id);
        ck_assert_uint_eq(*(uint64_t *)page, i);
    }
}

/*
 * Pages of the VM by node, as mm/ counts them. The last one that was touched is counted after the guest has it: to ask for it
 * waits for that.
 */
static void expect_nodes(struct rig *rig, uint64_t first, uint64_t second)
{
    uint64_t pages[MM_MAX_NODES];
    struct mm_page_info info;
    ck_assert_int_eq(mm_page_info(memhost_vm_mm(rig->vm), gpa_of((gfn_t)(first + second - 1)), &info), 0);
    mm_vm_nodes(memhost_vm_mm(rig->vm), pages);
    ck_assert_uint_eq(pages[0], first);
    ck_assert_uint_eq(pages[1], second);
}

static unsigned second_node(uint64_t page)
{
    (void)page;
    return 1;
}

static unsigned by_block(uint64_t page)
{
    return page / BLOCK_PAGES % 2;
}

static unsigned by_page(uint64_t page)
{
    return page % 2;
}

static const enum transport transports[] = {TRANSPORT_AUTO, TRANSPORT_COPY};

START_TEST(test_memhost_numa_bind_puts_every_page_on_the_node)
{
    struct rig rig;
    rig_open(&rig, transports[_i], (struct mm_policy){MM_POLICY_BIND, 2});
    touch_and_look(&rig, VM_PAGES / 2, second_node);
    expect_nodes(&rig, 0, VM_PAGES / 2);
    rig_close(&rig);
}
END_TEST

START_TEST(test_memhost_numa_interleave_puts_equal_parts_on_both)
{
    struct rig rig;
    rig_open(&rig, transports[_i], (struct mm_policy){MM_POLICY_INTERLEAVE, 3});
    touch_and_look(&rig, VM_PAGES, by_block);
    expect_nodes(&rig, VM_PAGES / 2, VM_PAGES / 2);
    rig_close(&rig);
    rig_open(&rig, transports[_i], (struct mm_policy){MM_POLICY_INTERLEAVE_PAGES, 3});
    touch_and_look(&rig, VM_PAGES, by_page);
    expect_nodes(&rig, VM_PAGES / 2, VM_PAGES / 2);
    rig_close(&rig);
}
END_TEST

/* MADV_COLLAPSE does at once what khugepaged does some time. */
START_TEST(test_memhost_numa_pages_in_turn_are_not_made_one_huge_page_on_one_node)
{
    struct rig rig;
    rig_open(&rig, transports[_i], (struct mm_policy){MM_POLICY_INTERLEAVE_PAGES, 3});
    touch_and_look(&rig, VM_PAGES, by_page);
    ck_assert_int_eq(madvise(page_at(&rig, 0), VM_BYTES, MADV_COLLAPSE), -1);
    ck_assert_int_eq(errno, EINVAL);
    touch_and_look(&rig, VM_PAGES, by_page);
    rig_close(&rig);
}
END_TEST

START_TEST(test_memhost_numa_policy_of_a_node_that_is_not_there_is_refused)
{
    const struct memhost_config config = {.mm = {.budget_bytes = 64 * MIB}, .policy = {MM_POLICY_BIND, 2}};
    const struct mm_region region = {.start = {0}, .bytes = VM_BYTES};
    const struct memhost_vm_config vm_config = {.regions = &region, .nr_regions = 1};
    struct memhost *mh;
    struct memhost_vm *vm;
    struct diag diag = {0};
    ck_assert_int_eq(memhost_create(&config, &mh, &diag), 0);
    ck_assert_int_eq(memhost_vm_add(mh, &vm_config, &vm, &diag), -1);
    ck_assert_int_eq(diag.code, EXIT_USAGE);
    memhost_destroy(mh);
}
END_TEST

/* Number of this process's threads that are called @name, and the CPUs of one. */
static unsigned threads_called(const char *name, cpu_set_t *cpus)
{
    DIR *dir = opendir("/proc/self/task");
    unsigned nr = 0;
    ck_assert_ptr_nonnull(dir);
    for (struct dirent *entry; (entry = readdir(dir));) {
        char path[300], comm[32] = "";
        snprintf(path, sizeof(path), "/proc/self/task/%.200s/comm", entry->d_name);
        FILE *file = fopen(path, "re");
        if (!file)
            continue;
        if (fscanf(file, "%31s", comm) == 1 && strcmp(comm, name) == 0) {
            ck_assert_int_eq(sched_getaffinity(atoi(entry->d_name), sizeof(*cpus), cpus), 0);
            nr++;
        }
        fclose(file);
    }
    closedir(dir);
    return nr;
}

START_TEST(test_memhost_numa_each_node_has_a_kswapd_on_its_cpus)
{
    struct memhost_numa *numa = malloc(sizeof(*numa));
    struct rig rig;
    cpu_set_t cpus, all;
    rig_open(&rig, TRANSPORT_AUTO, (struct mm_policy){0});
    memhost_numa_init(numa, &rig.config, NULL);
    ck_assert_int_eq(sched_getaffinity(0, sizeof(all), &all), 0);
    for (unsigned i = 0; i < 2; i++) {
        char name[16];
        snprintf(name, sizeof(name), "ebb-kswapd%u", i);
        ck_assert_uint_eq(threads_called(name, &cpus), 1);
        ck_assert(CPU_EQUAL(&cpus, CPU_COUNT(&numa->node_cpus[i]) ? &numa->node_cpus[i] : &all));
    }
    free(numa);
    rig_close(&rig);
}
END_TEST

int main(void)
{
    int mode;
    Suite *suite = suite_create("memhost_numa");
    TCase *tc = tcase_create("numa");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, test_memhost_numa_cpus_have_the_nearest_node_of_the_configuration);
    tcase_add_test(tc, test_memhost_numa_arena_has_a_part_for_each_node);
    tcase_add_test(tc, test_memhost_numa_policy_of_a_node_that_is_not_there_is_refused);
    if (get_mempolicy(&mode, NULL, 0, NULL, 0) < 0) {
        puts("SKIP: this kernel has no NUMA: nothing can be bound to a node");
    } else {
        tcase_add_loop_test(tc, test_memhost_numa_bind_puts_every_page_on_the_node, 0, ARRAY_LEN(transports));
        tcase_add_loop_test(tc, test_memhost_numa_interleave_puts_equal_parts_on_both, 0, ARRAY_LEN(transports));
        tcase_add_loop_test(tc, test_memhost_numa_pages_in_turn_are_not_made_one_huge_page_on_one_node, 0,
                            ARRAY_LEN(transports));
        tcase_add_test(tc, test_memhost_numa_each_node_has_a_kswapd_on_its_cpus);
    }
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
