/* SPDX-License-Identifier: Apache-2.0 */
/* VMs that come and go while the workers, and reclaim by hand, deal with the pages of all. */
#include "tests/unit/mm_rig.h"
#include "tests/unit/model_rng.h"

#include <errno.h>
#include <pthread.h>

#define NR_ROUNDS 60u
#define NR_WRITTEN 700u

struct churn {
    struct mm_rig *rig;
    int stop, wrong; /* atomic */
};

static void *workers_main(void *arg)
{
    struct churn *churn = arg;
    struct mm_thread *thread = churn->rig->thread[1];
    while (!__atomic_load_n(&churn->stop, __ATOMIC_RELAXED)) {
        mm_housekeep(thread);
        mm_kswapd(thread, 0);
        mm_reclaim(thread, NULL, 64, true);
    }
    return NULL;
}

/* One VM, from its first page to its end. Every other page goes and returns, so that the store has holes. */
static void one_life(struct churn *churn, struct rng *rng)
{
    struct mm_rig *rig = churn->rig;
    const struct mm_region region = {.start = {0}, .bytes = 256 * MIB};
    uint64_t page[PAGE_BYTES / 8];
    struct mm_vm *vm;
    if (mm_vm_create(rig->host, &region, 1, &vm))
        abort();
    vmid_t id = mm_vm_id(vm);
    fake_host_add_vm(rig->fh, id, (uint32_t)(region.bytes / PAGE_BYTES));
    for (gfn_t gfn = 0; gfn < NR_WRITTEN; gfn++) {
        rig_make_page(page, gfn, rng_below(rng, 2) ? TEXT : HALF);
        while (fake_host_guest_write(rig->fh, id, gfn, 0, page, (uint32_t)PAGE_BYTES))
            if (mm_fault(rig->thread[2], vm, gpa_of(gfn), MM_FAULT_WRITE))
                abort();
    }
    mm_reclaim(rig->thread[2], vm, NR_WRITTEN, true);
    for (gfn_t gfn = 0; gfn < NR_WRITTEN; gfn += 2)
        if (mm_fault(rig->thread[2], vm, gpa_of(gfn), 0))
            abort();
    mm_vm_destroy(rig->thread[2], vm);
    fake_host_remove_vm(rig->fh, id);
}

START_TEST(test_mm_vms_come_and_go_beside_the_workers)
{
    const struct mm_config config = {.budget_bytes = 12 * MIB, .zram = {.limit_bytes = 8 * MIB}};
    struct mm_rig *rig = mm_rig_create(&config, 8 * MIB, 3);
    struct churn churn = {.rig = rig};
    struct rng rng = {(uint64_t)_i + 5};
    pthread_t workers;
    ck_assert_int_eq(pthread_create(&workers, NULL, workers_main, &churn), 0);
    mm_rig_fill(rig, 0, 1800, TEXT);
    for (unsigned round = 0; round < NR_ROUNDS; round++) {
        one_life(&churn, &rng);
        gfn_t gfn = (gfn_t)rng_below(&rng, 1700);
        for (unsigned i = 0; i < 100; i++)
            mm_rig_verify(rig, 0, gfn + i);
    }
    __atomic_store_n(&churn.stop, 1, __ATOMIC_RELAXED);
    pthread_join(workers, NULL);
    for (gfn_t gfn = 0; gfn < 1800; gfn++)
        mm_rig_verify(rig, 0, gfn);
    mm_rig_destroy(rig);
}
END_TEST

static void *scanner_main(void *arg)
{
    struct churn *churn = arg;
    while (!__atomic_load_n(&churn->stop, __ATOMIC_RELAXED)) {
        fake_host_advance_ns(churn->rig->fh, UINT64_C(500000000));
        mm_scan(churn->rig->thread[1]);
    }
    return NULL;
}

/* The scan read policies while they were written: half of one, an empty set of nodes, and it looked beyond the last. */
START_TEST(test_mm_vms_get_their_policies_beside_the_scan)
{
    struct mm_config config = {.budget_bytes = 16 * MIB, .numa_balancing = true, .nr_nodes = 2};
    const struct mm_region region = {.start = {0}, .bytes = 16 * MIB};
    for (unsigned n = 0; n < 2; n++)
        config.nodes[n] = (struct mm_node_config){.id = (int)n, .budget_bytes = 8 * MIB, .distance = {20, 20}};
    for (unsigned n = 0; n < 2; n++)
        config.nodes[n].distance[n] = 10;
    struct mm_rig *rig = mm_rig_create(&config, 8 * MIB, 2);
    struct churn churn = {.rig = rig};
    pthread_t scanner;
    ck_assert_int_eq(pthread_create(&scanner, NULL, scanner_main, &churn), 0);
    for (unsigned round = 0; round < 300; round++) {
        struct mm_vm *vm;
        ck_assert_int_eq(mm_vm_create(rig->host, &region, 1, &vm), 0);
        vmid_t id = mm_vm_id(vm);
        fake_host_add_vm(rig->fh, id, (uint32_t)(region.bytes / PAGE_BYTES));
        for (unsigned half = 0; half < 2; half++) {
            const struct mm_policy policy = {.mode = half ? MM_POLICY_INTERLEAVE : MM_POLICY_BIND, .nodes = 3};
            ck_assert_int_eq(mm_vm_place(vm, (gpa_t){half * 8 * MIB}, 8 * MIB, &policy), 0);
        }
        ck_assert_int_eq(mm_fault(rig->thread[0], vm, (gpa_t){0}, MM_FAULT_WRITE), 0);
        mm_vm_destroy(rig->thread[0], vm);
        fake_host_remove_vm(rig->fh, id);
    }
    __atomic_store_n(&churn.stop, 1, __ATOMIC_RELAXED);
    pthread_join(scanner, NULL);
    mm_rig_destroy(rig);
}
END_TEST

/* ---- */

struct writer {
    struct mm_rig *rig;
    unsigned number;
    int err;
};

static void *writer_main(void *arg)
{
    struct writer *writer = arg;
    for (gfn_t gfn = writer->number; gfn < writer->rig->nr_pages && !writer->err; gfn += 4)
        writer->err = mm_rig_write(writer->rig, writer->number, gfn, RANDOM);
    return NULL;
}

/*
 * Each of them has pages on the way to a store that will refuse them when another looks. The share of each is more than
 * the budget: however they are scheduled, none can come to its end.
 */
START_TEST(test_mm_out_of_memory_is_told_to_every_thread)
{
    const struct mm_config config = {.budget_bytes = 8 * MIB, .zram = {.limit_bytes = 4 * MIB}};
    struct mm_rig *rig = mm_rig_create(&config, 36 * MIB, 4);
    struct writer writer[4];
    pthread_t thread[4];
    for (unsigned i = 0; i < 4; i++) {
        writer[i] = (struct writer){.rig = rig, .number = i};
        ck_assert_int_eq(pthread_create(&thread[i], NULL, writer_main, &writer[i]), 0);
    }
    for (unsigned i = 0; i < 4; i++) {
        pthread_join(thread[i], NULL);
        ck_assert_int_eq(writer[i].err, -ENOMEM);
    }
    mm_rig_check(rig);
    mm_rig_swapon(rig, "disk", 4096);
    for (gfn_t gfn = 0; gfn < rig->nr_pages; gfn++)
        mm_rig_verify(rig, 0, gfn);
    mm_rig_destroy(rig);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("mm_vms_threads");
    TCase *cases = tcase_create("cases");
    tcase_set_timeout(cases, 240);
    tcase_add_loop_test(cases, test_mm_vms_come_and_go_beside_the_workers, 0, 2);
    tcase_add_test(cases, test_mm_vms_get_their_policies_beside_the_scan);
    tcase_add_test(cases, test_mm_out_of_memory_is_told_to_every_thread);
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
