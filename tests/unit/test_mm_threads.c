/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mm/ with all its threads over the fake host: faulting threads, kswapd, the housekeeper, reclaim by hand, compaction,
 * swapoff, the scanner and who looks on, at once. Each page has one owner, who alone knows its content; others only read it into the store and back.
 */
#include "mm/mm.h"
#include "mm/policy/access.h"
#include "tests/fake/fake_host.h"
#include "tests/fake/fake_swap.h"
#include "tests/unit/model_rng.h"

#include <check.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MIB (UINT64_C(1) << 20)
#define VM_PAGES 6144u
#define NR_GUESTS 2u
#define NR_STEPS 12000u
#define NR_MOVES 100u
#define SWAP_SLOTS 16384u

struct stress {
    struct fake_host *fh;
    struct mm_host *host;
    struct mm_vm *vm[2];
    int stop;   /* atomic */
    int wrong;  /* atomic: pages that were not what they should be */
    int errors; /* atomic: faults refused */
};

struct guest_thread {
    struct stress *s;
    unsigned number;
    uint64_t generation[2][VM_PAGES / NR_GUESTS];
};

/* A vCPU: the access and the fault that it may need, until it went through. */
static void access_page(struct guest_thread *g, struct mm_thread *thread, unsigned vm, unsigned slot, uint64_t write)
{
    struct stress *s = g->s;
    gfn_t gfn = slot * NR_GUESTS + g->number;
    vmid_t id = mm_vm_id(s->vm[vm]);
    uint64_t words[2] = {write, write ^ gfn}, got[2];
    for (;;) {
        int err = write ? fake_host_guest_write(s->fh, id, gfn, 1000, words, sizeof(words))
                        : fake_host_guest_read(s->fh, id, gfn, 1000, got, sizeof(got));
        if (!err)
            break;
        if (mm_fault(thread, s->vm[vm], gpa_of(gfn), write ? MM_FAULT_WRITE : 0)) {
            __atomic_add_fetch(&s->errors, 1, __ATOMIC_RELAXED);
            return;
        }
    }
    uint64_t want = g->generation[vm][slot];
    if (write)
        g->generation[vm][slot] = write;
    else if (got[0] != want || got[1] != (want ? want ^ gfn : 0))
        __atomic_add_fetch(&s->wrong, 1, __ATOMIC_RELAXED);
}

/* On a busy machine the thread that compacts may come late. */
static bool moved_enough(const struct stress *s)
{
    struct mm_host_stat stat;
    mm_host_stat(s->host, &stat);
    return stat.event[EV_pgmigrate_success] >= NR_MOVES;
}

static void *guest_main(void *arg)
{
    struct guest_thread *g = arg;
    struct mm_thread *thread;
    struct rng rng = {g->number + 77};
    if (mm_thread_create(g->s->host, &thread))
        abort();
    for (unsigned step = 1; step <= NR_STEPS || (step < 100 * NR_STEPS && !moved_enough(g->s)); step++) {
        unsigned slot = rng_below(&rng, VM_PAGES / NR_GUESTS);
        access_page(g, thread, rng_below(&rng, 2), slot, rng_below(&rng, 2) ? ((uint64_t)step << 32) | slot : 0);
    }
    for (unsigned vm = 0; vm < 2; vm++)
        for (unsigned slot = 0; slot < VM_PAGES / NR_GUESTS; slot++)
            access_page(g, thread, vm, slot, 0);
    mm_thread_destroy(thread);
    return NULL;
}

static void add_disk(struct stress *s, unsigned number)
{
    if (swap_area_add(mm_swap_set(s->host), number ? "one" : "zero", "file", SWAP_SLOTS, -1, &fake_swap_backend,
                      fake_swap_create(SWAP_SLOTS)) < 0)
        abort();
}

/* Another disk comes, and the one there is goes, if faults let it. */
static void exchange_disks(struct stress *s, struct mm_thread *thread)
{
    unsigned old = swap_area_find(mm_swap_set(s->host), "zero") < 0;
    add_disk(s, !old);
    if (mm_swapoff(thread, old ? "one" : "zero") && mm_swapoff(thread, old ? "zero" : "one"))
        __atomic_add_fetch(&s->errors, 1, __ATOMIC_RELAXED);
}

static void *worker_main(void *arg)
{
    struct stress *s = arg;
    struct mm_thread *thread;
    struct rng rng = {4711};
    if (mm_thread_create(s->host, &thread))
        abort();
    while (!__atomic_load_n(&s->stop, __ATOMIC_RELAXED)) {
        struct mm_host_stat stat;
        mm_kswapd(thread, 0);
        mm_housekeep(thread);
        mm_reclaim(thread, s->vm[rng_below(&rng, 2)], rng_below(&rng, 700), rng_below(&rng, 2));
        mm_host_stat(s->host, &stat);
        if (rng_below(&rng, 8) == 0)
            exchange_disks(s, thread);
    }
    mm_thread_destroy(thread);
    return NULL;
}

/* Standby pages move all the time, as far as there is room. */
static void *compact_main(void *arg)
{
    struct stress *s = arg;
    struct mm_thread *thread;
    uint64_t runs;
    if (mm_thread_create(s->host, &thread))
        abort();
    while (!__atomic_load_n(&s->stop, __ATOMIC_RELAXED)) {
        mm_reclaim(thread, NULL, 256, true);
        if (mm_compact(thread, 0, &runs))
            abort();
    }
    mm_thread_destroy(thread);
    return NULL;
}

/* The scanner: a tenth of a second passes at each round. */
static void *scan_main(void *arg)
{
    struct stress *s = arg;
    struct mm_thread *thread;
    if (mm_thread_create(s->host, &thread))
        abort();
    access_configure(s->host, 20000, NULL);
    while (!__atomic_load_n(&s->stop, __ATOMIC_RELAXED)) {
        mm_scan(thread);
        fake_host_advance_ns(s->fh, 100000000);
    }
    mm_thread_destroy(thread);
    return NULL;
}

/* Somebody who looks on. */
static void *look_main(void *arg)
{
    static struct access_map map;
    struct stress *s = arg;
    struct access_stat stat;
    struct access_idle idle;
    while (!__atomic_load_n(&s->stop, __ATOMIC_RELAXED)) {
        access_idle(s->vm[0], &idle);
        access_map(s->vm[1], &map);
        access_stat(s->host, &stat);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    return NULL;
}

static void run(const struct mm_config *config)
{
    struct stress s = {.fh = fake_host_create(mm_arena_slots(config))};
    const struct mm_region region = {.start = {0}, .bytes = VM_PAGES * PAGE_BYTES};
    struct guest_thread *guests = calloc(NR_GUESTS, sizeof(*guests));
    struct mm_thread *thread;
    const char *why = NULL;
    struct mm_host_stat stat;
    pthread_t threads[NR_GUESTS + 4];
    fake_host_set_budget(s.fh, (uint32_t)(config->budget_bytes / PAGE_BYTES));
    ck_assert_int_eq(mm_host_create(config, fake_host_ops(s.fh), s.fh, fake_host_arena(s.fh), &s.host), 0);
    add_disk(&s, 0);
    for (unsigned i = 0; i < 2; i++) {
        ck_assert_int_eq(mm_vm_create(s.host, &region, 1, &s.vm[i]), 0);
        fake_host_add_vm(s.fh, mm_vm_id(s.vm[i]), VM_PAGES);
    }
    for (unsigned i = 0; i < NR_GUESTS; i++) {
        guests[i] = (struct guest_thread){.s = &s, .number = i};
        ck_assert_int_eq(pthread_create(&threads[i], NULL, guest_main, &guests[i]), 0);
    }
    ck_assert_int_eq(mm_compaction_set(s.host, &(struct mm_compaction){.proactiveness = 100}), 0);
    ck_assert_int_eq(pthread_create(&threads[NR_GUESTS], NULL, worker_main, &s), 0);
    ck_assert_int_eq(pthread_create(&threads[NR_GUESTS + 1], NULL, compact_main, &s), 0);
    ck_assert_int_eq(pthread_create(&threads[NR_GUESTS + 2], NULL, scan_main, &s), 0);
    ck_assert_int_eq(pthread_create(&threads[NR_GUESTS + 3], NULL, look_main, &s), 0);
    for (unsigned i = 0; i < NR_GUESTS; i++)
        pthread_join(threads[i], NULL);
    __atomic_store_n(&s.stop, 1, __ATOMIC_RELAXED);
    for (unsigned i = NR_GUESTS; i < NR_GUESTS + 4; i++)
        pthread_join(threads[i], NULL);
    ck_assert_int_eq(s.wrong, 0);
    ck_assert_int_eq(s.errors, 0);
    ck_assert_msg(mm_check(s.host, &why), "%s", why);
    mm_host_stat(s.host, &stat);
    ck_assert_uint_ge(stat.event[EV_pgmigrate_success], NR_MOVES);
    ck_assert_msg(!fake_host_breach(s.fh), "%s", fake_host_breach(s.fh));
    ck_assert_int_eq(mm_thread_create(s.host, &thread), 0);
    for (unsigned i = 0; i < 2; i++)
        mm_vm_destroy(thread, s.vm[i]);
    mm_thread_destroy(thread);
    mm_host_destroy(s.host);
    fake_host_destroy(s.fh);
    free(guests);
}

START_TEST(test_mm_threads_with_zram_every_page_right)
{
    run(&(struct mm_config){.budget_bytes = 10 * MIB, .zram = {.limit_bytes = 4 * MIB}, .thp = true});
}
END_TEST

START_TEST(test_mm_threads_without_zram_every_page_right)
{
    run(&(struct mm_config){.budget_bytes = 12 * MIB, .thp = false, .readahead_pages = 1});
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("mm_threads");
    TCase *cases = tcase_create("stress");
    tcase_set_timeout(cases, 240);
    tcase_add_test(cases, test_mm_threads_with_zram_every_page_right);
    tcase_add_test(cases, test_mm_threads_without_zram_every_page_right);
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
