/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All threads of mm/ at once: faulting threads, kswapd, the housekeeper, reclaim by hand, compaction, swapoff, the
 * scanner and who looks on.
 */
#include "tests/unit/stress_rig.h"

#include "mm/policy/access.h"

#include <time.h>

#define NR_GUESTS 2u
#define NR_STEPS 12000u
#define NR_MOVES 100u

/* On a busy machine the thread that compacts may come late. */
static bool moved_enough(const struct stress *s)
{
    struct mm_host_stat stat;
    mm_host_stat(s->host, &stat);
    return stat.event[EV_pgmigrate_success] >= NR_MOVES;
}

static bool guest_step(struct stress_thread *t, unsigned number)
{
    if (number > NR_STEPS && (number >= 100 * NR_STEPS || moved_enough(t->s)))
        return false;
    unsigned slot = rng_below(&t->rng, stress_nr_slots(t->s)), vm = rng_below(&t->rng, 2);
    stress_access(t, vm, slot, rng_below(&t->rng, 2) ? ((uint64_t)number << 32) | slot : 0);
    return true;
}

/* Another disk comes, and the one there is goes, if faults let it. */
static void exchange_disks(struct stress_thread *t)
{
    bool zero = swap_area_find(mm_swap_set(t->s->host), "zero") >= 0;
    const char *old = zero ? "zero" : "one", *new = zero ? "one" : "zero";
    stress_add_disk(t->s, new);
    if (mm_swapoff(t->thread, old) && mm_swapoff(t->thread, new))
        __atomic_add_fetch(&t->s->errors, 1, __ATOMIC_RELAXED);
}

static void work_round(struct stress_thread *t)
{
    struct mm_host_stat stat;
    mm_kswapd(t->thread, 0);
    mm_housekeep(t->thread);
    mm_reclaim(t->thread, t->s->vm[rng_below(&t->rng, 2)], rng_below(&t->rng, 700), rng_below(&t->rng, 2));
    mm_host_stat(t->s->host, &stat);
    if (rng_below(&t->rng, 8) == 0)
        exchange_disks(t);
}

/* Standby pages move all the time, as far as there is room. */
static void compact_round(struct stress_thread *t)
{
    uint64_t runs;
    mm_reclaim(t->thread, NULL, 256, true);
    if (mm_compact(t->thread, 0, &runs))
        abort();
}

/* A tenth of a second passes each time. */
static void scan_round(struct stress_thread *t)
{
    mm_scan(t->thread);
    fake_host_advance_ns(t->s->fh, 100000000);
}

/* Somebody who looks on. */
static void look_round(struct stress_thread *t)
{
    static struct access_map map;
    struct access_stat stat;
    struct access_idle idle;
    access_idle(t->s->vm[0], &idle);
    access_map(t->s->vm[1], &map);
    access_stat(t->s->host, &stat);
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

static void run(const struct mm_config *config)
{
    static void (*const rounds[])(struct stress_thread *) = {work_round, compact_round, scan_round, look_round};
    struct mm_host_stat stat;
    struct stress s;
    stress_init(&s, config, NR_GUESTS);
    ck_assert_int_eq(mm_compaction_set(s.host, &(struct mm_compaction){.proactiveness = 100}), 0);
    access_configure(s.host, 20000, NULL);
    stress_run(&s, guest_step, rounds, ARRAY_LEN(rounds));
    stress_fini(&s, &stat);
    ck_assert_uint_ge(stat.event[EV_pgmigrate_success], NR_MOVES);
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
