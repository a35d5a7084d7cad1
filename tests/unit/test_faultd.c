/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fault threads over a memory manager of one page: slot i is the home of guest page i. Threads of the test stand for
 * vCPUs.
 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "tests/unit/hostmem_fixture.h"
#include "tests/unit/model_rng.h"
#include "vmm/faultd.h"
#include "vmm/thread.h"
#include "vmm/workers.h"

#define NR_PAGES (2 * BLOCK_PAGES)
#define MAX_VCPUS 4
#define BURST 1000

enum place { ABSENT, HOME, GUEST };

struct tiny {
    struct fix fix;
    struct faultd *faultd;
    pthread_mutex_t lock;
    uint8_t place[NR_PAGES]; /* enum place; guarded by lock */
    atomic_uint nr_faults, nr_wp, nr_fatal, nr_bad, nr_bursts;
    atomic_uint last_flags; /* of the youngest fault */
    atomic_int fail_with;
    atomic_bool release_at_once;
    gpa_t fatal_gpa;
    int fatal_err;
};

static int tiny_fault(void *ctx, unsigned thread, gpa_t gpa, unsigned flags)
{
    struct tiny *tiny = ctx;
    struct fix *fix = &tiny->fix;
    static const char zeros[PAGE_BYTES];
    (void)thread;
    atomic_fetch_add(&tiny->nr_faults, 1);
    atomic_store(&tiny->last_flags, flags);
    if (flags & MM_FAULT_WP)
        atomic_fetch_add(&tiny->nr_wp, 1);
    int err = atomic_load(&tiny->fail_with);
    if (err)
        return err;
    gfn_t gfn = gfn_of(gpa);
    uint32_t done;
    pthread_mutex_lock(&tiny->lock);
    if (tiny->place[gfn] == ABSENT)
        err = fix->ops->place_copy(fix->hm, FIX_VM, gfn, zeros, 1, 0, &done);
    else if (tiny->place[gfn] == HOME)
        err = fix->ops->place(fix->hm, FIX_VM, gfn, gfn, 1, &done);
    else
        fix->ops->wake(fix->hm, FIX_VM, gfn, 1);
    tiny->place[gfn] = GUEST;
    pthread_mutex_unlock(&tiny->lock);
    return err;
}

static void tiny_fatal(void *ctx, int err, gpa_t gpa)
{
    struct tiny *tiny = ctx;
    tiny->fatal_err = err;
    tiny->fatal_gpa = gpa;
    if (tiny->release_at_once)
        hostmem_vm_release(tiny->fix.vm);
    atomic_fetch_add(&tiny->nr_fatal, 1);
}

/* CPU 0 is on node 3, CPU 1 on node 5, the others on node 0 of the configuration. */
static const uint8_t tiny_nodes[CPU_SETSIZE] = {3, 5};

static struct tiny *tiny_open(int transport, unsigned nr_threads)
{
    static const int cpus[MAX_VCPUS]; /* all on CPU 0 */
    struct tiny *tiny = calloc(1, sizeof(*tiny));
    struct diag diag = {0};
    fix_open(&tiny->fix, transport);
    pthread_mutex_init(&tiny->lock, NULL);
    struct faultd_config config = {
        .mem = tiny->fix.vm,
        .nr_threads = nr_threads,
        .cpus = nr_threads > 1 ? NULL : cpus,
        .node_of_cpu = tiny_nodes,
        .handle = tiny_fault,
        .on_fatal = tiny_fatal,
        .ctx = tiny,
    };
    ck_assert_msg(faultd_start(&config, &tiny->faultd, &diag) == 0, "%s", diag.text);
    return tiny;
}

static void tiny_close(struct tiny *tiny)
{
    faultd_stop(tiny->faultd);
    fix_close(&tiny->fix);
    pthread_mutex_destroy(&tiny->lock);
    free(tiny);
}

START_TEST(test_faultd_stop_without_a_fault_ends_all_threads)
{
    for (unsigned nr = 1; nr <= MAX_VCPUS; nr++)
        tiny_close(tiny_open(_i, nr));
}
END_TEST

START_TEST(test_faultd_a_cpu_that_is_not_there_is_named)
{
    struct fix fix;
    struct diag diag = {0};
    struct faultd *faultd;
    const int cpus[2] = {0, 1023};
    fix_open(&fix, _i);
    struct faultd_config config = {.mem = fix.vm, .nr_threads = 2, .cpus = cpus};
    ck_assert_int_eq(faultd_start(&config, &faultd, &diag), -1);
    ck_assert_int_eq(diag.code, EXIT_HOST);
    ck_assert_ptr_nonnull(strstr(diag.text, "1023"));
    fix_close(&fix);
}
END_TEST

START_TEST(test_faultd_first_touch_reads_zeros_and_keeps_what_is_written)
{
    struct tiny *tiny = tiny_open(_i, 1);
    for (gfn_t gfn = 0; gfn < NR_PAGES; gfn++) {
        ck_assert(fix_holds(fix_guest(&tiny->fix, gfn), 0));
        fix_write(fix_guest(&tiny->fix, gfn), gfn);
    }
    for (gfn_t gfn = 0; gfn < NR_PAGES; gfn++)
        ck_assert(fix_holds(fix_guest(&tiny->fix, gfn), gfn));
    ck_assert_uint_eq(tiny->nr_faults, NR_PAGES);
    tiny_close(tiny);
}
END_TEST

START_TEST(test_faultd_tells_what_a_fault_costs_beside_being_handled)
{
    struct tiny *tiny = tiny_open(_i, 1);
    const uint32_t *fault_ns = &tiny->fix.hm->ops.fault_ns;
    ck_assert_uint_eq(__atomic_load_n(fault_ns, __ATOMIC_RELAXED), 0);
    for (gfn_t gfn = 0; gfn < NR_PAGES; gfn++)
        fix_write(fix_guest(&tiny->fix, gfn), gfn);
    uint32_t ns = __atomic_load_n(fault_ns, __ATOMIC_RELAXED);
    ck_assert_uint_ge(ns, 100); /* a system call at least */
    ck_assert_uint_le(ns, 1000000);
    tiny_close(tiny);
}
END_TEST

/* --- who faults --- */

struct toucher {
    struct tiny *tiny;
    int vcpu; /* -1: no vCPU */
    int cpu;  /* what faultd is told */
    gfn_t gfn;
    unsigned flags; /* of its fault */
};

static void *vcpu_touch(void *arg)
{
    struct toucher *toucher = arg;
    if (toucher->vcpu >= 0)
        faultd_add_vcpu(toucher->tiny->faultd, (unsigned)toucher->vcpu, gettid(), toucher->cpu);
    fix_write(fix_guest(&toucher->tiny->fix, toucher->gfn), 1);
    toucher->flags = atomic_load(&toucher->tiny->last_flags);
    return NULL;
}

/* Flags of a fault by a thread of its own. */
static unsigned flags_of(struct tiny *tiny, int vcpu, int cpu, gfn_t gfn)
{
    struct toucher toucher = {.tiny = tiny, .vcpu = vcpu, .cpu = cpu, .gfn = gfn};
    pthread_t thread;
    ck_assert_int_eq(thread_start(&thread, "toucher", THREAD_ANY_CPU, vcpu_touch, &toucher), 0);
    pthread_join(thread, NULL);
    return toucher.flags & ~(MM_FAULT_WRITE | MM_FAULT_WP);
}

START_TEST(test_faultd_fault_of_a_vcpu_says_which_and_the_node_of_its_cpu)
{
    struct tiny *tiny = tiny_open(_i, 1); /* the fault thread is on CPU 0 */
    ck_assert(tiny->fix.vm->says_who);
    ck_assert_uint_eq(flags_of(tiny, 0, 1, 0), MM_FAULT_FROM(5u, 0u));
    ck_assert_uint_eq(flags_of(tiny, 7, 0, 1), MM_FAULT_FROM(3u, 7u));
    ck_assert_uint_eq(flags_of(tiny, FAULTD_MAX_VCPUS - 1, CPU_SETSIZE - 1, 2),
                      MM_FAULT_FROM(0u, FAULTD_MAX_VCPUS - 1));
    /* not bound: near the fault thread */
    ck_assert_uint_eq(flags_of(tiny, 2, THREAD_ANY_CPU, 3), MM_FAULT_FROM(3u, 2u));
    /* vCPU 7 anew, in another thread */
    ck_assert_uint_eq(flags_of(tiny, 7, 1, 4), MM_FAULT_FROM(5u, 7u));
    tiny_close(tiny);
}
END_TEST

START_TEST(test_faultd_fault_of_another_thread_says_nothing)
{
    struct tiny *tiny = tiny_open(_i, 1);
    ck_assert_uint_eq(flags_of(tiny, -1, 0, 0), 0);
    faultd_add_vcpu(tiny->faultd, 4, gettid(), 1);
    ck_assert_uint_eq(flags_of(tiny, -1, 0, 1), 0);
    fix_write(fix_guest(&tiny->fix, 2), 1);
    ck_assert_uint_eq(tiny->last_flags & ~(MM_FAULT_WRITE | MM_FAULT_WP), MM_FAULT_FROM(5u, 4u));
    tiny_close(tiny);
}
END_TEST

/* --- threads on several CPUs --- */

static void *affinity_run(void *arg)
{
    cpu_set_t *set = arg;
    ck_assert_int_eq(sched_getaffinity(0, sizeof(*set), set), 0);
    return NULL;
}

START_TEST(test_thread_start_on_runs_on_these_cpus_and_the_empty_set_is_any)
{
    cpu_set_t mine, one, got;
    pthread_t thread;
    ck_assert_int_eq(sched_getaffinity(0, sizeof(mine), &mine), 0);
    CPU_ZERO(&one);
    for (unsigned cpu = 0; cpu < CPU_SETSIZE && !CPU_COUNT(&one); cpu++)
        if (CPU_ISSET(cpu, &mine))
            CPU_SET(cpu, &one);
    ck_assert_int_eq(thread_start_on(&thread, "one", &one, affinity_run, &got), 0);
    pthread_join(thread, NULL);
    ck_assert(CPU_EQUAL(&got, &one));
    ck_assert_int_eq(thread_start_on(&thread, "mine", &mine, affinity_run, &got), 0);
    pthread_join(thread, NULL);
    ck_assert(CPU_EQUAL(&got, &mine));
    CPU_ZERO(&one);
    ck_assert_int_eq(thread_start_on(&thread, "any", &one, affinity_run, &got), 0);
    pthread_join(thread, NULL);
    ck_assert(CPU_EQUAL(&got, &mine));
    ck_assert_int_eq(thread_start_on(&thread, "any", NULL, affinity_run, &got), 0);
    pthread_join(thread, NULL);
    ck_assert(CPU_EQUAL(&got, &mine));
    CPU_SET(CPU_SETSIZE - 1, &one);
    ck_assert_int_eq(thread_start_on(&thread, "none", &one, affinity_run, &got), -EINVAL);
}
END_TEST

/* --- writers against a taker --- */

struct writer {
    struct tiny *tiny;
    unsigned index;
    uint32_t nr_pages; /* that it writes to */
    atomic_bool *stop;
    uint32_t expected[NR_PAGES];
};

/* Counts up one word of each page, page by page at random: every value that it finds is the one it left there. */
static void *writer_run(void *arg)
{
    struct writer *writer = arg;
    struct rng rng = {.state = writer->index + 1};
    while (!atomic_load_explicit(writer->stop, memory_order_relaxed)) {
        gfn_t gfn = rng_below(&rng, writer->nr_pages);
        volatile uint32_t *words = (uint32_t *)(void *)fix_guest(&writer->tiny->fix, gfn);
        uint32_t at = writer->index * 256 + 17;
        for (unsigned i = 0; i < BURST; i++) {
            if (words[at] != writer->expected[gfn])
                atomic_fetch_add(&writer->tiny->nr_bad, 1);
            words[at] = ++writer->expected[gfn];
        }
        atomic_fetch_add(&writer->tiny->nr_bursts, 1);
    }
    return NULL;
}

/* Takes a run of the first @nr_pages pages home and sometimes brings it back at once. Runs of whole blocks too. */
static void take_run(struct tiny *tiny, struct rng *rng, uint32_t nr_pages)
{
    struct fix *fix = &tiny->fix;
    uint32_t nr = 1 + rng_below(rng, MIN_OF(nr_pages, 64u)), done;
    gfn_t gfn = rng_below(rng, nr_pages - nr + 1);
    if (nr_pages == NR_PAGES && rng_below(rng, 16) == 0) {
        nr = BLOCK_PAGES;
        gfn = rng_below(rng, 2) * BLOCK_PAGES;
    }
    pthread_mutex_lock(&tiny->lock);
    for (uint32_t i = 0; i < nr; i++)
        if (tiny->place[gfn + i] == HOME) /* its slot is filled: the run ends here */
            nr = i;
    if (nr > 0) {
        ck_assert_int_eq(fix->ops->take(fix->hm, FIX_VM, gfn, gfn, nr, &done), 0);
        for (uint32_t i = 0; i < nr; i++)
            if (tiny->place[gfn + i] == GUEST)
                tiny->place[gfn + i] = HOME;
    }
    for (uint32_t i = 0; i < nr && rng_below(rng, 4) == 0; i++) {
        if (tiny->place[gfn + i] != HOME)
            continue;
        ck_assert_int_eq(fix->ops->place(fix->hm, FIX_VM, gfn + i, gfn + i, 1, &done), 0);
        tiny->place[gfn + i] = GUEST;
    }
    pthread_mutex_unlock(&tiny->lock);
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define NR_TAKES 150
#else
#define NR_TAKES 400
#endif

static void writers_against_taker(int transport, unsigned nr_writers, unsigned nr_fault_threads, uint32_t nr_pages)
{
    struct tiny *tiny = tiny_open(transport, nr_fault_threads);
    struct rng rng = {.state = 99};
    atomic_bool stop = false;
    struct writer *writers = calloc(nr_writers, sizeof(*writers));
    pthread_t threads[MAX_VCPUS];
    for (unsigned i = 0; i < nr_writers; i++) {
        writers[i] = (struct writer){.tiny = tiny, .index = i, .nr_pages = nr_pages, .stop = &stop};
        ck_assert_int_eq(thread_start(&threads[i], "writer", THREAD_ANY_CPU, writer_run, &writers[i]), 0);
    }
    for (unsigned i = 0; i < NR_TAKES; i++) {
        unsigned before = atomic_load(&tiny->nr_bursts);
        take_run(tiny, &rng, nr_pages);
        while (atomic_load(&tiny->nr_bursts) == before)
            sched_yield();
    }
    atomic_store(&stop, true);
    for (unsigned i = 0; i < nr_writers; i++)
        pthread_join(threads[i], NULL);
    ck_assert_uint_eq(tiny->nr_bad, 0);
    ck_assert_uint_gt(tiny->nr_faults, NR_TAKES / 10);
    ck_assert_uint_eq(tiny->nr_fatal, 0);
    for (gfn_t gfn = 0; gfn < NR_PAGES; gfn++)
        for (unsigned i = 0; i < nr_writers; i++)
            ck_assert_uint_eq(((uint32_t *)(void *)fix_guest(&tiny->fix, gfn))[i * 256 + 17], writers[i].expected[gfn]);
    free(writers);
    tiny_close(tiny);
}

START_TEST(test_faultd_one_writer_under_takes_loses_no_write)
{
    writers_against_taker(_i, 1, 1, NR_PAGES);
}
END_TEST

START_TEST(test_faultd_four_writers_and_two_threads_lose_no_write)
{
    writers_against_taker(_i, 4, 2, NR_PAGES);
}
END_TEST

START_TEST(test_faultd_two_writers_to_few_hot_pages_lose_no_write)
{
    writers_against_taker(_i, 2, 1, 8);
}
END_TEST

/* --- the end of a VM --- */

/* No atomics: the thread sanitizer holds a lock of its own while it does one, through the fault. */
static void *touch_run(void *arg)
{
    *(volatile char *)arg = 1;
    return NULL;
}

START_TEST(test_faultd_failed_fault_is_reported_once_and_released_later)
{
    struct tiny *tiny = tiny_open(_i, 2);
    pthread_t threads[3];
    atomic_store(&tiny->fail_with, -ENOMEM);
    for (gfn_t i = 0; i < 3; i++)
        ck_assert_int_eq(thread_start(&threads[i], "vcpu", THREAD_ANY_CPU, touch_run, fix_guest(&tiny->fix, 5) + i), 0);
    while (atomic_load(&tiny->nr_fatal) == 0 || atomic_load(&tiny->nr_faults) < 3)
        sched_yield();
    ck_assert_int_eq(tiny->fatal_err, -ENOMEM);
    ck_assert_uint_eq(tiny->fatal_gpa.v, 5 * PAGE_BYTES);
    hostmem_vm_release(tiny->fix.vm);
    for (unsigned i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    ck_assert_uint_eq(tiny->nr_fatal, 1);
    ck_assert_uint_eq(guest_range_resident_bytes(&tiny->fix.vm->range), PAGE_BYTES);
    tiny_close(tiny);
}
END_TEST

START_TEST(test_faultd_release_inside_on_fatal_frees_the_waiter)
{
    struct tiny *tiny = tiny_open(_i, 1);
    atomic_store(&tiny->fail_with, -EIO);
    tiny->release_at_once = true;
    *fix_guest(&tiny->fix, FIX_HIGH_GFN) = 1;
    while (atomic_load(&tiny->nr_fatal) == 0)
        sched_yield();
    ck_assert_uint_eq(tiny->fatal_gpa.v, (uint64_t)FIX_HIGH_GFN << PAGE_SHIFT);
    ck_assert_uint_eq(tiny->nr_fatal, 1);
    tiny_close(tiny);
}
END_TEST

/* --- workers --- */

struct rounds {
    atomic_uint nr[MM_MAX_WORKERS];
    atomic_uint todo; /* housekeeper rounds that say "more" */
};

static bool round_run(void *ctx, enum mm_worker worker)
{
    struct rounds *rounds = ctx;
    atomic_fetch_add(&rounds->nr[worker], 1);
    if (worker == MM_KSWAPD(0))
        return true;
    unsigned todo = atomic_load(&rounds->todo);
    if (todo > 0)
        atomic_store(&rounds->todo, todo - 1);
    return todo > 0;
}

START_TEST(test_workers_each_kick_is_followed_by_a_round)
{
    struct rounds rounds = {0};
    struct workers *workers;
    struct diag diag = {0};
    ck_assert_int_eq(
        workers_create(&(struct workers_config){.run = round_run, .nr_nodes = 1, .ctx = &rounds}, &workers), 0);
    workers_kick(workers, MM_KSWAPD(0)); /* before there is a thread */
    ck_assert_int_eq(workers_start(workers, &diag), 0);
    for (unsigned i = 0; i < 20000; i++) {
        enum mm_worker worker = i % 2 ? MM_KSWAPD(0) : MM_HOUSEKEEPER;
        unsigned before = atomic_load(&rounds.nr[worker]);
        workers_kick(workers, worker);
        if (i % 16 < 14)
            continue; /* a burst: no wait */
        while (atomic_load(&rounds.nr[worker]) == before)
            sched_yield();
    }
    workers_destroy(workers);
}
END_TEST

START_TEST(test_workers_housekeeper_goes_on_while_there_is_more)
{
    struct rounds rounds = {.todo = 500};
    struct workers *workers;
    struct diag diag = {0};
    ck_assert_int_eq(
        workers_create(&(struct workers_config){.run = round_run, .nr_nodes = 1, .ctx = &rounds}, &workers), 0);
    ck_assert_int_eq(workers_start(workers, &diag), 0);
    while (atomic_load(&rounds.nr[MM_HOUSEKEEPER]) < 501)
        sched_yield();
    workers_stop(workers);
    unsigned nr = atomic_load(&rounds.nr[MM_HOUSEKEEPER]);
    workers_kick(workers, MM_HOUSEKEEPER);
    ck_assert_uint_eq(atomic_load(&rounds.nr[MM_HOUSEKEEPER]), nr);
    workers_destroy(workers);
}
END_TEST

START_TEST(test_workers_stop_right_after_the_start_ends)
{
    for (unsigned i = 0; i < 200; i++) {
        struct rounds rounds = {0};
        struct workers *workers;
        struct diag diag = {0};
        ck_assert_int_eq(
            workers_create(&(struct workers_config){.run = round_run, .nr_nodes = 1, .ctx = &rounds}, &workers), 0);
        ck_assert_int_eq(workers_start(workers, &diag), 0);
        workers_destroy(workers);
    }
}
END_TEST

int main(void)
{
    int end = fix_end();
    Suite *suite = suite_create("faultd");
    TCase *faults = tcase_create("faults");
    tcase_set_timeout(faults, 120);
    tcase_add_loop_test(faults, test_faultd_stop_without_a_fault_ends_all_threads, 0, end);
    tcase_add_loop_test(faults, test_faultd_a_cpu_that_is_not_there_is_named, 0, end);
    tcase_add_loop_test(faults, test_faultd_first_touch_reads_zeros_and_keeps_what_is_written, 0, end);
    tcase_add_loop_test(faults, test_faultd_tells_what_a_fault_costs_beside_being_handled, 0, end);
    tcase_add_loop_test(faults, test_faultd_fault_of_a_vcpu_says_which_and_the_node_of_its_cpu, 0, end);
    tcase_add_loop_test(faults, test_faultd_fault_of_another_thread_says_nothing, 0, end);
    tcase_add_test(faults, test_thread_start_on_runs_on_these_cpus_and_the_empty_set_is_any);
    tcase_add_loop_test(faults, test_faultd_one_writer_under_takes_loses_no_write, 0, end);
    tcase_add_loop_test(faults, test_faultd_four_writers_and_two_threads_lose_no_write, 0, end);
    tcase_add_loop_test(faults, test_faultd_two_writers_to_few_hot_pages_lose_no_write, 0, end);
    tcase_add_loop_test(faults, test_faultd_failed_fault_is_reported_once_and_released_later, 0, end);
    tcase_add_loop_test(faults, test_faultd_release_inside_on_fatal_frees_the_waiter, 0, end);
    TCase *workers = tcase_create("workers");
    tcase_set_timeout(workers, 60);
    tcase_add_test(workers, test_workers_each_kick_is_followed_by_a_round);
    tcase_add_test(workers, test_workers_housekeeper_goes_on_while_there_is_more);
    tcase_add_test(workers, test_workers_stop_right_after_the_start_ends);
    suite_add_tcase(suite, faults);
    suite_add_tcase(suite, workers);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
