/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Slots and guest pages on nodes of the host, as the kernel tells where pages are. Every node that has memory takes part;
 * on a host with one node each part of the arena is there.
 */
#include <errno.h>
#include <numaif.h>
#include <string.h>
#include <sys/mman.h>

#include "tests/unit/hostmem_fixture.h"
#include "vmm/numa.h"
#include "vmm/thread.h"

#define PART (2u * BLOCK_PAGES)

static struct hostmem_config make_config(int transport)
{
    struct hostmem_config config = {.move = transport == FIX_MOVE};
    struct numa_host *host = malloc(sizeof(*host));
    numa_host_read(host);
    uint64_t nodes = numa_host_with_memory(host);
    free(host);
    while (config.nr_nodes < 2 || (nodes && config.nr_nodes < MM_MAX_NODES)) {
        struct hostmem_node *node = &config.nodes[config.nr_nodes];
        *node = (struct hostmem_node){.start = config.nr_slots, .nr_slots = PART};
        node->id = nodes ? __builtin_ctzll(nodes) : config.nodes[0].id;
        nodes &= nodes - 1;
        config.nr_slots += PART;
        config.nr_nodes++;
    }
    return config;
}

/* Each of the @nr pages at @base is present, and on the node with the number @id. */
static void expect_on(const char *base, uint32_t nr, int id)
{
    void **pages = calloc(nr, sizeof(*pages));
    int *status = calloc(nr, sizeof(*status));
    for (uint32_t i = 0; i < nr; i++)
        pages[i] = (void *)(uintptr_t)(base + i * PAGE_BYTES);
    ck_assert_int_eq(move_pages(0, nr, pages, NULL, status, 0), 0);
    for (uint32_t i = 0; i < nr; i++)
        ck_assert_msg(status[i] == id, "page %u: %d instead of node %d", i, status[i], id);
    free((void *)pages);
    free(status);
}

/* " N0=12 N2=3" of a line of numa_maps: all on @id. Returns how many there are. */
static uint64_t pages_of_line(const char *line, int id)
{
    uint64_t nr = 0;
    for (const char *at = strstr(line, " N"); at; at = strstr(at + 1, " N")) {
        int node;
        unsigned long long pages;
        if (sscanf(at, " N%d=%llu", &node, &pages) != 2)
            continue;
        ck_assert_msg(node == id, "%s", line);
        nr += pages;
    }
    return nr;
}

/* /proc/self/numa_maps of [base, base + bytes): bound to @id, and the pages are there. Returns how many. */
static uint64_t pages_bound(const char *base, uint64_t bytes, int id)
{
    FILE *file = fopen("/proc/self/numa_maps", "re");
    char line[1000], policy[40];
    uint64_t nr = 0;
    unsigned nr_lines = 0;
    ck_assert_ptr_nonnull(file);
    snprintf(policy, sizeof(policy), " bind=static:%d ", id);
    while (fgets(line, sizeof(line), file)) {
        uintptr_t start = strtoull(line, NULL, 16);
        if (start < (uintptr_t)base || start >= (uintptr_t)base + bytes)
            continue;
        ck_assert_msg(strstr(line, policy) != NULL, "no \"%s\" in %s", policy, line);
        nr += pages_of_line(line, id);
        nr_lines++;
    }
    fclose(file);
    ck_assert_uint_gt(nr_lines, 0);
    return nr;
}

/* The calling thread's policy: mode, and the set of nodes. */
static int policy_now(unsigned long *mask)
{
    int mode = -1;
    *mask = 0;
    unsigned long nodes[16] = {0};
    ck_assert_int_eq(get_mempolicy(&mode, nodes, 8 * sizeof(nodes), NULL, 0), 0);
    *mask = nodes[0];
    return mode & 0xff;
}

START_TEST(test_hostmem_node_slots_are_on_their_node_and_numa_maps_agrees)
{
    struct hostmem_config config = make_config(_i);
    struct fix fix;
    fix_open_config(&fix, &config);
    for (unsigned n = 0; n < config.nr_nodes; n++) {
        fn_t start = config.nodes[n].start;
        ck_assert_int_eq(fix.ops->populate(fix.hm, start, BLOCK_PAGES), 0);
        ck_assert_int_eq(fix.ops->populate(fix.hm, start + BLOCK_PAGES + 7, 99), 0);
        expect_on(fix_slot(&fix, start), BLOCK_PAGES, config.nodes[n].id);
        expect_on(fix_slot(&fix, start + BLOCK_PAGES + 7), 99, config.nodes[n].id);
    }
    /* where neighbours are on one node, the kernel joins them: whole runs of equal numbers */
    for (unsigned n = 0, end; n < config.nr_nodes; n = end) {
        for (end = n + 1; end < config.nr_nodes && config.nodes[end].id == config.nodes[n].id; end++)
            ;
        uint64_t nr =
            pages_bound(fix_slot(&fix, config.nodes[n].start), (end - n) * PART * PAGE_BYTES, config.nodes[n].id);
        ck_assert_uint_eq(nr, (end - n) * (BLOCK_PAGES + 99));
    }
    fix_close(&fix);
}
END_TEST

START_TEST(test_hostmem_node_place_copy_makes_pages_on_the_node_named)
{
    struct hostmem_config config = make_config(_i);
    struct fix fix;
    uint32_t done;
    char *page = calloc(1, PAGE_BYTES);
    fix_open_config(&fix, &config);
    /* in turn, so that every call changes the node where there are several */
    for (gfn_t gfn = 0; gfn < 64; gfn++) {
        unsigned node = gfn % config.nr_nodes;
        fix_write(page, gfn);
        ck_assert_int_eq(fix.ops->place_copy(fix.hm, FIX_VM, gfn, page, 1, node, &done), 0);
        expect_on(fix_guest(&fix, gfn), 1, config.nodes[node].id);
    }
    for (gfn_t gfn = 0; gfn < 64; gfn++) {
        ck_assert(fix_holds(fix_guest(&fix, gfn), gfn));
        expect_on(fix_guest(&fix, gfn), 1, config.nodes[gfn % config.nr_nodes].id);
    }
    free(page);
    fix_close(&fix);
}
END_TEST

START_TEST(test_hostmem_node_pages_keep_their_node_on_the_way_out_and_home)
{
    struct hostmem_config config = make_config(_i);
    struct fix fix;
    uint32_t done;
    fix_open_config(&fix, &config);
    for (unsigned n = 0; n < config.nr_nodes; n++) {
        static const uint32_t sizes[] = {1, 64, 300, BLOCK_PAGES};
        fn_t fn = config.nodes[n].start;
        for (unsigned s = 0; s < ARRAY_LEN(sizes); s++) {
            fix_fill(&fix, fn, sizes[s], 1);
            ck_assert_int_eq(fix.ops->place(fix.hm, FIX_VM, BLOCK_PAGES, fn, sizes[s], &done), 0);
            expect_on(fix_guest(&fix, BLOCK_PAGES), sizes[s], config.nodes[n].id);
            ck_assert_int_eq(fix.ops->take(fix.hm, FIX_VM, BLOCK_PAGES, fn, sizes[s], &done), 0);
            expect_on(fix_slot(&fix, fn), sizes[s], config.nodes[n].id);
            fix.ops->release(fix.hm, fn, sizes[s]);
        }
    }
    fix_close(&fix);
}
END_TEST

struct policy_of_thread {
    struct fix *fix;
    int before, after;
    unsigned long mask;
};

static void *place_one(void *arg)
{
    struct policy_of_thread *p = arg;
    static const char zeros[PAGE_BYTES];
    uint32_t done;
    p->before = policy_now(&p->mask);
    ck_assert_int_eq(p->fix->ops->place_copy(p->fix->hm, FIX_VM, 5, zeros, 1, 1, &done), 0);
    p->after = policy_now(&p->mask);
    return NULL;
}

/* A thread without a policy would let the kernel's own balancing move guests' pages. */
START_TEST(test_hostmem_node_each_thread_has_a_policy_of_its_own)
{
    struct hostmem_config config = make_config(FIX_COPY);
    struct fix fix;
    unsigned long mask;
    pthread_t thread;
    ck_assert_int_eq(policy_now(&mask), MPOL_DEFAULT);
    fix_open_config(&fix, &config);
    ck_assert_int_eq(policy_now(&mask), MPOL_LOCAL);
    struct policy_of_thread p = {.fix = &fix};
    ck_assert_int_eq(thread_start(&thread, "place", THREAD_ANY_CPU, place_one, &p), 0);
    pthread_join(thread, NULL);
    ck_assert_int_eq(p.before, MPOL_LOCAL);
    ck_assert_int_eq(p.after, MPOL_BIND);
    ck_assert_uint_eq(p.mask, 1ul << config.nodes[1].id);
    ck_assert_int_eq(policy_now(&mask), MPOL_LOCAL);
    fix_close(&fix);
    ck_assert_int_eq(policy_now(&mask), MPOL_DEFAULT);
}
END_TEST

START_TEST(test_hostmem_node_unbound_leaves_all_policies_alone)
{
    struct hostmem_config config = {.nr_slots = PART, .nr_nodes = 1, .nodes = {{MM_NODE_ANY, 0, PART}}};
    struct fix fix;
    static const char zeros[PAGE_BYTES];
    unsigned long mask;
    uint32_t done;
    for (unsigned nr = 0; nr < 2; nr++) {
        config.nr_nodes = nr;
        fix_open_config(&fix, &config);
        ck_assert_int_eq(fix.ops->place_copy(fix.hm, FIX_VM, 5, zeros, 1, 0, &done), 0);
        ck_assert_int_eq(policy_now(&mask), MPOL_DEFAULT);
        int mode = -1;
        ck_assert_int_eq(get_mempolicy(&mode, NULL, 0, fix.hm->arena, MPOL_F_ADDR), 0);
        ck_assert_int_eq(mode, MPOL_DEFAULT);
        fix_close(&fix);
    }
}
END_TEST

START_TEST(test_hostmem_node_that_is_not_there_is_named_and_nothing_remains)
{
    struct hostmem_config config = {.nr_slots = PART, .nr_nodes = 1, .nodes = {{63, 0, PART}}};
    struct hostmem *hm = NULL;
    struct diag diag = {0};
    unsigned long mask;
    ck_assert_int_eq(hostmem_create(&config, &hm, &diag), -1);
    ck_assert_int_eq(diag.code, EXIT_HOST);
    ck_assert_msg(strstr(diag.text, "node 63") != NULL, "%s", diag.text);
    ck_assert_ptr_null(hm);
    ck_assert_int_eq(policy_now(&mask), MPOL_DEFAULT);
}
END_TEST

START_TEST(test_hostmem_node_parts_that_do_not_fit_are_refused)
{
    static const struct hostmem_config wrong[] = {
        {.nr_slots = PART, .nr_nodes = 1, .nodes = {{0, 0, PART + BLOCK_PAGES}}},
        {.nr_slots = PART, .nr_nodes = 1, .nodes = {{0, BLOCK_PAGES, BLOCK_PAGES}}},
        {.nr_slots = PART, .nr_nodes = 2, .nodes = {{0, 0, 100}, {0, 100, PART - 100}}},
        {.nr_slots = PART, .nr_nodes = 2, .nodes = {{0, 0, PART}, {0, PART, 0}}},
        {.nr_slots = PART, .nr_nodes = 2, .nodes = {{0, 0, BLOCK_PAGES}, {MM_NODE_ANY, BLOCK_PAGES, BLOCK_PAGES}}},
        {.nr_slots = PART, .nr_nodes = 1, .nodes = {{64, 0, PART}}},
    };
    for (unsigned i = 0; i < ARRAY_LEN(wrong); i++) {
        struct hostmem *hm = NULL;
        struct diag diag = {0};
        ck_assert_msg(hostmem_create(&wrong[i], &hm, &diag) == -1, "%u", i);
        ck_assert_int_eq(diag.code, EXIT_USAGE);
        ck_assert_ptr_null(hm);
    }
}
END_TEST

int main(void)
{
    int end = fix_end(), mode;
    Suite *suite = suite_create("hostmem_node");
    TCase *tc = tcase_create("nodes");
    tcase_set_timeout(tc, 60);
    if (get_mempolicy(&mode, NULL, 0, NULL, 0) < 0) {
        puts("SKIP: this kernel has no NUMA: nothing can be bound to a node");
    } else {
        tcase_add_loop_test(tc, test_hostmem_node_slots_are_on_their_node_and_numa_maps_agrees, 0, end);
        tcase_add_loop_test(tc, test_hostmem_node_place_copy_makes_pages_on_the_node_named, 0, end);
        tcase_add_loop_test(tc, test_hostmem_node_pages_keep_their_node_on_the_way_out_and_home, 0, end);
        tcase_add_test(tc, test_hostmem_node_each_thread_has_a_policy_of_its_own);
        tcase_add_test(tc, test_hostmem_node_unbound_leaves_all_policies_alone);
        tcase_add_test(tc, test_hostmem_node_that_is_not_there_is_named_and_nothing_remains);
    }
    tcase_add_test(tc, test_hostmem_node_parts_that_do_not_fit_are_refused);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
