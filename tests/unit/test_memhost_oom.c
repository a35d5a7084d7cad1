/* SPDX-License-Identifier: Apache-2.0 */
/* Who is stopped when memory has run out: guests of 32 MiB on a memory host of two nodes, without a store. */
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "mm/reclaim/host.h"
#include "vmm/memhost.h"
#include "vmm/thread.h"

#define MIB (UINT64_C(1) << 20)
#define NODE_BYTES (32 * MIB)
#define VM_BYTES (32 * MIB)

struct guest {
    struct memhost_vm *mem;
    char *memory;
    uint64_t wants_bytes; /* of its thread */
    pthread_t thread;
    atomic_int err; /* it was stopped */
};

static struct memhost *host;
static struct guest guests[3];

static void setup(void)
{
    struct memhost_config config = {.mm = {.budget_bytes = 2 * NODE_BYTES, .nr_nodes = 2}};
    struct diag diag = {0};
    for (unsigned i = 0; i < 2; i++) {
        config.mm.nodes[i] =
            (struct mm_node_config){.id = MM_NODE_ANY, .budget_bytes = NODE_BYTES, .distance = {20, 20}};
        config.mm.nodes[i].distance[i] = 10;
    }
    ck_assert_msg(memhost_create(&config, &host, &diag) == 0, "%s", diag.text);
}

static void on_fatal(void *ctx, int err, gpa_t gpa)
{
    struct guest *guest = ctx;
    (void)gpa;
    atomic_store(&guest->err, err);
    memhost_vm_release_waiters(guest->mem);
}

/* A guest with @bytes in memory, all of which has to be on @node. */
static void add(struct guest *guest, unsigned node, uint64_t bytes)
{
    const struct mm_region region = {.start = {0}, .bytes = VM_BYTES};
    const struct memhost_vm_config config = {
        .regions = &region, .nr_regions = 1, .nr_fault_threads = 1, .on_fatal = on_fatal, .ctx = guest};
    const struct mm_policy policy = {.mode = MM_POLICY_BIND, .nodes = (uint8_t)(1u << node)};
    struct diag diag = {0};
    *guest = (struct guest){0};
    ck_assert_msg(memhost_vm_add(host, &config, &guest->mem, &diag) == 0, "%s", diag.text);
    ck_assert_int_eq(mm_vm_place(memhost_vm_mm(guest->mem), (gpa_t){0}, VM_BYTES, &policy), 0);
    /* as a vCPU does before it runs; it is also what tells the thread sanitizer that the policy comes before faults */
    memhost_vm_add_vcpu(guest->mem, 0, THREAD_ANY_CPU);
    guest->memory = memhost_vm_hva(guest->mem, (gpa_t){0}, VM_BYTES);
    for (uint64_t at = 0; at < bytes; at += PAGE_BYTES)
        guest->memory[at] = 1;
}

static void *touch_run(void *arg)
{
    struct guest *guest = arg;
    for (uint64_t at = 0; at < guest->wants_bytes && !atomic_load(&guest->err); at += PAGE_BYTES)
        guest->memory[at] = 1;
    return NULL;
}

static void start(struct guest *guest, void *(*run)(void *guest), uint64_t bytes)
{
    guest->wants_bytes = bytes;
    ck_assert_int_eq(pthread_create(&guest->thread, NULL, run, guest), 0);
}

/* Until one of them is stopped. */
static struct guest *wait_for_victim(void)
{
    for (unsigned i = 0;; i = (i + 1) % (unsigned)ARRAY_LEN(guests)) {
        if (atomic_load(&guests[i].err))
            return &guests[i];
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    }
}

/* The one that holds most is on the other node: stopping it would not help. */
START_TEST(test_memhost_oom_vm_on_a_node_with_room_is_not_stopped)
{
    struct guest *away = &guests[0], *large = &guests[1], *asks = &guests[2];
    setup();
    add(away, 1, 24 * MIB);
    add(large, 0, 18 * MIB);
    add(asks, 0, 0);
    start(asks, touch_run, 20 * MIB);
    ck_assert_ptr_eq(wait_for_victim(), large);
    ck_assert_int_eq(large->err, -ENOMEM);
    memhost_vm_remove(large->mem);
    pthread_join(asks->thread, NULL);
    ck_assert_int_eq(asks->err, 0);
    ck_assert_int_eq(away->err, 0);
    memhost_vm_remove(asks->mem);
    memhost_vm_remove(away->mem);
    memhost_destroy(host);
}
END_TEST

/* As while one of its pages is read from a slow disk. */
START_TEST(test_memhost_oom_victim_is_chosen_though_a_block_of_another_vm_is_busy)
{
    struct guest *busy = &guests[0], *large = &guests[1], *asks = &guests[2];
    setup();
    add(busy, 1, 4 * MIB);
    add(large, 0, 18 * MIB);
    add(asks, 0, 0);
    struct block *block = vm_block(memhost_vm_mm(busy->mem), 0);
    lock_acquire(&block->lock);
    start(asks, touch_run, 20 * MIB);
    ck_assert_ptr_eq(wait_for_victim(), large);
    lock_release(&block->lock);
    memhost_vm_remove(large->mem);
    pthread_join(asks->thread, NULL);
    ck_assert_int_eq(asks->err, 0);
    memhost_vm_remove(asks->mem);
    memhost_vm_remove(busy->mem);
    memhost_destroy(host);
}
END_TEST

/* As a disk does for each request. */
static void *pin_run(void *arg)
{
    struct guest *guest = arg;
    struct mm_thread *thread;
    bool again = true;
    ck_assert_int_eq(mm_thread_create(memhost_mm(host), &thread), 0);
    for (uint64_t at = 0; at < guest->wants_bytes && again; at += PAGE_BYTES) {
        struct mm_vm *vm = memhost_vm_mm(guest->mem);
        uint64_t seen = 0;
        int err;
        do
            err = mm_pin(thread, vm, (gpa_t){at}, PAGE_BYTES);
        while (err && (again = memhost_vm_no_page(guest->mem, err, (gpa_t){at}, &seen)));
        if (!err)
            mm_unpin(vm, (gpa_t){at}, PAGE_BYTES);
    }
    mm_thread_destroy(thread);
    return NULL;
}

START_TEST(test_memhost_oom_device_without_memory_stops_the_vm_that_holds_most)
{
    struct guest *large = &guests[0], *other = &guests[1], *asks = &guests[2];
    setup();
    add(large, 0, 18 * MIB);
    add(other, 0, 0);
    add(asks, 0, 0);
    start(asks, pin_run, 20 * MIB);
    ck_assert_ptr_eq(wait_for_victim(), large);
    memhost_vm_remove(large->mem);
    pthread_join(asks->thread, NULL);
    ck_assert_int_eq(asks->err, 0);
    ck_assert_int_eq(other->err, 0);
    memhost_vm_remove(asks->mem);
    memhost_vm_remove(other->mem);
    memhost_destroy(host);
}
END_TEST

/* Alone it is the one, and hears so once; another error is no matter of choice. */
START_TEST(test_memhost_oom_device_of_the_vm_that_holds_most_stops_it)
{
    static const int errors[] = {-ENOMEM, -EIO};
    struct guest *asks = &guests[0];
    struct mm_host_stat stat;
    uint64_t seen = 0;
    setup();
    add(asks, 0, 8 * MIB);
    ck_assert(!memhost_vm_no_page(asks->mem, errors[_i], (gpa_t){0}, &seen));
    ck_assert_int_eq(asks->err, errors[_i]);
    ck_assert(!memhost_vm_no_page(asks->mem, errors[_i], (gpa_t){0}, &seen));
    mm_host_stat(memhost_mm(host), &stat);
    ck_assert_uint_eq(stat.event[EV_oom_kill], errors[_i] == -ENOMEM);
    memhost_vm_remove(asks->mem);
    memhost_destroy(host);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("memhost_oom");
    TCase *tcase = tcase_create("memhost_oom");
    tcase_add_test(tcase, test_memhost_oom_vm_on_a_node_with_room_is_not_stopped);
    tcase_add_test(tcase, test_memhost_oom_victim_is_chosen_though_a_block_of_another_vm_is_busy);
    tcase_add_test(tcase, test_memhost_oom_device_without_memory_stops_the_vm_that_holds_most);
    tcase_add_loop_test(tcase, test_memhost_oom_device_of_the_vm_that_holds_most_stops_it, 0, 2);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
