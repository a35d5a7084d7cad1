/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The embedded guest with nodes on /dev/kvm: its zones, from which node a vCPU's pages come, and that all of them stay
 * right when they wander between nodes.
 */
#include <check.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/fake/program.h"
#include "vmm/machine.h"

#define MIB (UINT64_C(1) << 20)
#define MIB_PAGES 256u

struct rig {
    struct memhost *mh;
    struct machine *machine;
    struct guest_numa numa;
    pthread_mutex_t lock;
    char console[16384]; /* guarded by lock */
};

static void keep_line(void *ctx, const char *line)
{
    struct rig *rig = ctx;

    pthread_mutex_lock(&rig->lock);
    size_t at = strlen(rig->console);
    snprintf(rig->console + at, sizeof(rig->console) - at, "%s\n", line);
    pthread_mutex_unlock(&rig->lock);
}

/* Runs @text to its end in a guest of @numa's memory; the machine's result must be good. */
static void rig_run(struct rig *rig, const struct guest_numa *numa, unsigned nr_cpus, const char *text)
{
    uint64_t memory_bytes = 0;
    struct memhost_config host = {.backend = BACKEND_EBB, .mm = {.budget_bytes = 192 * MIB, .thp = true}};
    struct diag diag = {0};
    struct workload workload;

    memset(rig, 0, sizeof(*rig));
    pthread_mutex_init(&rig->lock, NULL);
    rig->numa = *numa;
    for (unsigned i = 0; i < numa->nr_nodes; i++)
        memory_bytes += numa->node[i].memory_bytes;
    const struct machine_config config = {.name = "test",
                                          .memory_bytes = memory_bytes,
                                          .nr_cpus = nr_cpus,
                                          .numa = &rig->numa,
                                          .workload = &workload,
                                          .on_line = keep_line,
                                          .ctx = rig};
    ck_assert_msg(guest_numa_finish(&rig->numa, memory_bytes, nr_cpus, &diag) == 0, "%s", diag.text);
    ck_assert_msg(workload_parse(text, memory_bytes, &workload, &diag) == 0, "%s", diag.text);
    ck_assert_msg(memhost_create(&host, &rig->mh, &diag) == 0, "%s", diag.text);
    ck_assert_msg(machine_create(rig->mh, &config, &rig->machine, &diag) == 0, "%s", diag.text);
    memset(&rig->numa, 0xff, sizeof(rig->numa)); /* the machine has its own */
    ck_assert_msg(machine_start(rig->machine, &diag) == 0, "%s", diag.text);
    const struct machine_result *result = machine_join(rig->machine);
    ck_assert_msg(result->state == MACHINE_DONE, "%s", result->reason);
    ck_assert_uint_eq(result->pages_bad, 0);
}

static void rig_fini(struct rig *rig)
{
    machine_destroy(rig->machine);
    memhost_destroy(rig->mh);
    pthread_mutex_destroy(&rig->lock);
}

static void says(const struct rig *rig, const char *line)
{
    ck_assert_msg(strstr(rig->console, line) != NULL, "no \"%s\" in: %s", line, rig->console);
}

/* What the guest said last of the free pages of @node. */
static unsigned free_pages(const struct rig *rig, unsigned node)
{
    unsigned pages = UINT32_MAX, number, found;

    for (const char *line = rig->console; line; line = strchr(line, '\n')) {
        char word[8] = "";

        line += *line == '\n';
        if (sscanf(line, "node %u: %u pages %4s", &number, &found, word) == 3 && number == node &&
            strcmp(word, "free") == 0)
            pages = found;
    }
    ck_assert_uint_ne(pages, UINT32_MAX);
    return pages;
}

/* Two vCPUs with a node of 32 MiB each. */
static const struct guest_numa two = {.nr_nodes = 2, .node = {{1, 32 * MIB, -1}, {2, 32 * MIB, -1}}};

START_TEST(test_guest_numa_zones_are_those_of_each_node)
{
    struct rig rig;

    rig_run(&rig, &two, 2, "fill:1M;verify");
    says(&rig, "node 0: vCPUs 0x1, 32 MiB\nzone DMA: from 0x100000, 3840 pages");
    says(&rig, "node 1: vCPUs 0x2, 32 MiB\nzone DMA32: from 0x2000000, 2048 pages");
    says(&rig, "zone Movable: from 0x2800000, 6144 pages");
    rig_fini(&rig);
}
END_TEST

/* A node whose memory begins in the kernel's own, and one that is all of it. */
START_TEST(test_guest_numa_small_nodes_lose_what_the_kernel_keeps)
{
    struct guest_numa numa = {.nr_nodes = 4,
                              .node = {{1, 2 * MIB, -1}, {0, 14 * MIB, -1}, {0, 2 * MIB, -1}, {2, 46 * MIB, -1}}};
    uint64_t usable = ebb_usable_pages(64 * MIB, 0);
    struct rig rig;

    rig_run(&rig, &numa, 2, "fill,pattern=same;verify;free;fill;verify");
    ck_assert_uint_eq(machine_join(rig.machine)->pages_verified, 2 * usable);
    says(&rig, "node 0: vCPUs 0x1, 2 MiB\nzone DMA: from 0x100000, 256 pages");
    says(&rig, "node 2: vCPUs 0x0, 2 MiB\nnode 3:");
    for (unsigned node = 0; node < 4; node++)
        ck_assert_uint_eq(free_pages(&rig, node), 0);
    rig_fini(&rig);
}
END_TEST

START_TEST(test_guest_numa_pages_are_of_the_vcpus_own_node)
{
    struct rig rig;

    rig_run(&rig, &two, 2, "fill:24M;verify");
    unsigned kept = (unsigned)(64 * MIB_PAGES - ebb_usable_pages(64 * MIB, 0));
    ck_assert_uint_eq(free_pages(&rig, 0), 32 * MIB_PAGES - kept - 12 * MIB_PAGES);
    ck_assert_uint_eq(free_pages(&rig, 1), 32 * MIB_PAGES - 12 * MIB_PAGES);
    rig_fini(&rig);
}
END_TEST

/* vCPU 0's node is small: what does not fit comes from the nearest of the other two, which is the last. */
START_TEST(test_guest_numa_pages_come_from_the_nearest_when_the_own_are_gone)
{
    struct guest_numa numa = {.nr_nodes = 3,
                              .node = {{3, 32 * MIB, -1}, {0, 32 * MIB, -1}, {0, 32 * MIB, -1}},
                              .distance = {{0, 40, 30}, {40, 0, 0}, {30, 0, 0}}};
    struct rig rig;

    rig_run(&rig, &numa, 2, "fill:34M;verify");
    ck_assert_uint_eq(free_pages(&rig, 0), 0);
    ck_assert_uint_eq(free_pages(&rig, 1), 32 * MIB_PAGES);
    ck_assert_uint_lt(free_pages(&rig, 2), 32 * MIB_PAGES);
    rig_fini(&rig);
}
END_TEST

START_TEST(test_guest_numa_pages_stay_right_when_they_wander)
{
    struct rig rig;

    rig_run(&rig, &two, 2,
            "fill:40M,pattern=mixed;churn,ops=400;zipf:40M,ops=5000,write=30;free:8M;fill:44M,pattern=random;churn,"
            "ops=200;verify");
    ck_assert_uint_eq(machine_join(rig.machine)->pages_verified, 44 * MIB_PAGES);
    rig_fini(&rig);
}
END_TEST

START_TEST(test_guest_numa_one_node_says_no_more_than_none)
{
    struct guest_numa numa = {.nr_nodes = 1, .node = {{1, 64 * MIB, -1}}};
    struct rig rig;

    rig_run(&rig, &numa, 1, "fill:1M;verify");
    says(&rig, "zone DMA: from 0x100000, 3840 pages");
    ck_assert_ptr_null(strstr(rig.console, "node "));
    rig_fini(&rig);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("guest_numa");
    TCase *tc = tcase_create("guest_numa");

    if (!program_has_kvm("the embedded guest with nodes"))
        return EXIT_SUCCESS;
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, test_guest_numa_zones_are_those_of_each_node);
    tcase_add_test(tc, test_guest_numa_small_nodes_lose_what_the_kernel_keeps);
    tcase_add_test(tc, test_guest_numa_pages_are_of_the_vcpus_own_node);
    tcase_add_test(tc, test_guest_numa_pages_come_from_the_nearest_when_the_own_are_gone);
    tcase_add_test(tc, test_guest_numa_pages_stay_right_when_they_wander);
    tcase_add_test(tc, test_guest_numa_one_node_says_no_more_than_none);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
