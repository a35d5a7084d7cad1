/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/oom.h"

#include <check.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#define NODES 1u

struct fake_vm {
    struct oom *oom;
    struct oom_vm vm;
    uint64_t bytes;
    uint8_t nodes; /* that they are on */
    atomic_uint nr_stops;
    /* a thread that waits */
    pthread_t thread;
    uint64_t seen;
    atomic_bool waiting, again;
};

static uint64_t fake_bytes(void *ctx, uint8_t nodes)
{
    const struct fake_vm *vm = ctx;
    return nodes & vm->nodes ? vm->bytes : 0;
}

static void fake_stop(void *ctx)
{
    atomic_fetch_add(&((struct fake_vm *)ctx)->nr_stops, 1);
}

static void add(struct oom *oom, struct fake_vm *vm, uint64_t bytes)
{
    *vm = (struct fake_vm){
        .oom = oom, .bytes = bytes, .nodes = NODES, .vm = {.bytes = fake_bytes, .stop = fake_stop, .ctx = vm}};
    oom_add(oom, &vm->vm);
}

/* Its thread knows of all memory that came free so far, and found none. */
static bool ask(struct fake_vm *vm)
{
    vm->seen = vm->oom->nr_freed;
    return oom_wait(vm->oom, &vm->vm, NODES, &vm->seen);
}

static void *wait_run(void *arg)
{
    struct fake_vm *vm = arg;
    atomic_store(&vm->again, oom_wait(vm->oom, &vm->vm, NODES, &vm->seen));
    atomic_store(&vm->waiting, false);
    return NULL;
}

static void start_waiting(struct fake_vm *vm)
{
    vm->seen = vm->oom->nr_freed;
    atomic_store(&vm->waiting, true);
    ck_assert_int_eq(pthread_create(&vm->thread, NULL, wait_run, vm), 0);
}

static bool finish_waiting(struct fake_vm *vm)
{
    pthread_join(vm->thread, NULL);
    return atomic_load(&vm->again);
}

static void until_stopped(struct fake_vm *vm)
{
    while (atomic_load(&vm->nr_stops) == 0)
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
}

START_TEST(test_oom_only_vm_is_the_victim_itself)
{
    struct oom oom;
    struct fake_vm a;
    oom_init(&oom);
    add(&oom, &a, 10);
    ck_assert(!ask(&a));
    ck_assert(oom_is_victim(&oom, &a.vm));
    ck_assert_uint_eq(a.nr_stops, 0); /* it hears so from its own thread */
    ck_assert(oom_end(&oom, &a.vm));
    oom_leave(&oom, &a.vm);
    oom_freed(&oom, &a.vm);
    ck_assert(!oom_is_victim(&oom, &a.vm));
    oom_fini(&oom);
}
END_TEST

START_TEST(test_oom_largest_is_stopped_and_the_others_wait_for_its_memory)
{
    struct oom oom;
    struct fake_vm a, b, c;
    oom_init(&oom);
    add(&oom, &a, 10);
    add(&oom, &b, 30);
    add(&oom, &c, 20);
    start_waiting(&a);
    until_stopped(&b);
    start_waiting(&c);
    ck_assert(!ask(&b));
    ck_assert(oom_end(&oom, &b.vm));
    oom_leave(&oom, &b.vm);
    ck_assert(a.waiting && c.waiting);
    oom_freed(&oom, &b.vm);
    ck_assert(finish_waiting(&a));
    ck_assert(finish_waiting(&c));
    ck_assert_uint_eq(a.nr_stops + c.nr_stops, 0);
    ck_assert_uint_eq(b.nr_stops, 1);
    oom_fini(&oom);
}
END_TEST

START_TEST(test_oom_of_equals_the_one_that_asks_goes)
{
    struct oom oom;
    struct fake_vm a, b;
    oom_init(&oom);
    add(&oom, &a, 10);
    add(&oom, &b, 10);
    ck_assert(!ask(&a));
    ck_assert_uint_eq(b.nr_stops, 0);
    oom_fini(&oom);
}
END_TEST

START_TEST(test_oom_vm_that_has_ended_gives_its_memory_first)
{
    struct oom oom;
    struct fake_vm a, b, c;
    oom_init(&oom);
    add(&oom, &a, 10);
    add(&oom, &b, 100);
    add(&oom, &c, 1);
    ck_assert(!oom_end(&oom, &c.vm));
    start_waiting(&a);
    while (!oom_is_victim(&oom, &c.vm))
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    oom_leave(&oom, &c.vm);
    oom_freed(&oom, &c.vm);
    ck_assert(finish_waiting(&a));
    ck_assert_uint_eq(b.nr_stops + c.nr_stops, 0);
    oom_fini(&oom);
}
END_TEST

START_TEST(test_oom_ended_vm_without_memory_is_no_victim)
{
    struct oom oom;
    struct fake_vm a, b;
    oom_init(&oom);
    add(&oom, &a, 10);
    add(&oom, &b, 0);
    oom_end(&oom, &b.vm);
    ck_assert(!ask(&a));
    ck_assert(oom_is_victim(&oom, &a.vm));
    oom_fini(&oom);
}
END_TEST

/* The largest has nothing that the one that asks could use; one that ended has nothing there, either. */
START_TEST(test_oom_vm_whose_memory_is_on_another_node_is_not_stopped)
{
    struct oom oom;
    struct fake_vm a, b, c, d;
    oom_init(&oom);
    add(&oom, &a, 10);
    add(&oom, &b, 100);
    add(&oom, &c, 20);
    add(&oom, &d, 100);
    b.nodes = d.nodes = 2 * NODES;
    oom_end(&oom, &d.vm);
    start_waiting(&a);
    until_stopped(&c);
    ck_assert(oom_is_victim(&oom, &c.vm));
    oom_leave(&oom, &c.vm);
    oom_freed(&oom, &c.vm);
    ck_assert(finish_waiting(&a));
    ck_assert(!ask(&a));
    ck_assert_uint_eq(b.nr_stops + d.nr_stops, 0);
    oom_fini(&oom);
}
END_TEST

START_TEST(test_oom_end_lets_waiting_threads_go)
{
    struct oom oom;
    struct fake_vm a, b;
    oom_init(&oom);
    add(&oom, &a, 10);
    add(&oom, &b, 20);
    start_waiting(&a);
    until_stopped(&b);
    ck_assert(!oom_end(&oom, &a.vm));
    ck_assert(!finish_waiting(&a));
    ck_assert(oom_is_victim(&oom, &b.vm));
    oom_fini(&oom);
}
END_TEST

START_TEST(test_oom_memory_that_came_free_meanwhile_is_tried_first)
{
    struct oom oom;
    struct fake_vm a, b;
    oom_init(&oom);
    add(&oom, &a, 10);
    add(&oom, &b, 20);
    uint64_t seen = 0;
    oom_leave(&oom, &b.vm);
    oom_freed(&oom, &b.vm);
    ck_assert(oom_wait(&oom, &a.vm, NODES, &seen));
    ck_assert(!oom_wait(&oom, &a.vm, NODES, &seen));
    oom_fini(&oom);
}
END_TEST

START_TEST(test_oom_vm_that_is_being_freed_is_waited_for)
{
    struct oom oom;
    struct fake_vm a, b, c;
    oom_init(&oom);
    add(&oom, &a, 10);
    add(&oom, &b, 20);
    add(&oom, &c, 30);
    oom_leave(&oom, &b.vm);
    start_waiting(&a);
    oom_freed(&oom, &b.vm);
    ck_assert(finish_waiting(&a));
    ck_assert_uint_eq(c.nr_stops, 0);
    oom_fini(&oom);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("oom");
    TCase *tcase = tcase_create("oom");
    tcase_add_test(tcase, test_oom_only_vm_is_the_victim_itself);
    tcase_add_test(tcase, test_oom_largest_is_stopped_and_the_others_wait_for_its_memory);
    tcase_add_test(tcase, test_oom_of_equals_the_one_that_asks_goes);
    tcase_add_test(tcase, test_oom_vm_that_has_ended_gives_its_memory_first);
    tcase_add_test(tcase, test_oom_ended_vm_without_memory_is_no_victim);
    tcase_add_test(tcase, test_oom_vm_whose_memory_is_on_another_node_is_not_stopped);
    tcase_add_test(tcase, test_oom_end_lets_waiting_threads_go);
    tcase_add_test(tcase, test_oom_memory_that_came_free_meanwhile_is_tried_first);
    tcase_add_test(tcase, test_oom_vm_that_is_being_freed_is_waited_for);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
