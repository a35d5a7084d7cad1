/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages move between three nodes, two of them fast and one slow, 2 MiB and 4 KiB, while writers run on all of them: the
 * scan arms pages, faults migrate and promote them, a kswapd a node demotes them, and the kernel refuses now and then.
 */
#include "tests/unit/stress_rig.h"

#define NR_GUESTS 3u
#define NR_NODES 3u
#define NR_STEPS 40000u
#define NR_ROUNDS 300u /* of the worker */

static unsigned nr_rounds; /* atomic */

static bool guest_step(struct stress_thread *t, unsigned number)
{
    if (number > NR_STEPS && __atomic_load_n(&nr_rounds, __ATOMIC_RELAXED) >= NR_ROUNDS)
        return false;
    if (number % 512 == 0)
        t->node = rng_below(&t->rng, NR_NODES); /* its vCPU runs elsewhere from now on */
    /* a hot part and a cold one */
    unsigned all = stress_nr_slots(t->s), slot = rng_below(&t->rng, rng_below(&t->rng, 4) ? all / 8 : all);
    unsigned vm = rng_below(&t->rng, 2);
    stress_access(t, vm, slot, rng_below(&t->rng, 2) ? ((uint64_t)number << 32) | slot : 0);
    return true;
}

static void work_round(struct stress_thread *t)
{
    struct stress *s = t->s;
    struct mm_host_stat stat;
    __atomic_add_fetch(&nr_rounds, 1, __ATOMIC_RELAXED);
    mm_kswapd(t->thread, rng_below(&t->rng, NR_NODES));
    mm_housekeep(t->thread);
    fake_host_advance_ns(s->fh, UINT64_C(200000000));
    mm_scan(t->thread);
    fake_host_fail(s->fh, &(struct fake_failure){.op = FAKE_PLACE_COPY, .nth = 20, .err = EAGAIN, .again = 2});
    if (rng_below(&t->rng, 8) == 0)
        mm_reclaim(t->thread, s->vm[rng_below(&t->rng, 2)], rng_below(&t->rng, 700), rng_below(&t->rng, 2));
    mm_host_stat(s->host, &stat);
}

static void run(const struct mm_config *config)
{
    static void (*const rounds[])(struct stress_thread *) = {work_round};
    struct mm_host_stat stat;
    struct stress s;
    stress_init(&s, config, NR_GUESTS);
    s.faults_may_fail = true;
    nr_rounds = 0;
    stress_run(&s, guest_step, rounds, ARRAY_LEN(rounds));
    stress_fini(&s, &stat);
    ck_assert_uint_gt(stat.event[EV_numa_pages_migrated], 0);
    ck_assert_uint_gt(stat.event[EV_pgpromote_success], 0);
    ck_assert_uint_gt(stat.event[EV_pgdemote_kswapd] + stat.event[EV_pgdemote_direct], 0);
    ck_assert_uint_gt(stat.event[EV_pgmigrate_fail], 0);
}

static struct mm_config three_nodes(bool thp)
{
    struct mm_config config = {.budget_bytes = 15 * MIB, .zram = {.limit_bytes = 4 * MIB}, .thp = thp};
    config.numa_balancing = true;
    config.nr_nodes = NR_NODES;
    for (unsigned n = 0; n < NR_NODES; n++) {
        config.nodes[n] = (struct mm_node_config){.id = (int)n, .budget_bytes = 5 * MIB, .rank = n == 2};
        for (unsigned k = 0; k < NR_NODES; k++)
            config.nodes[n].distance[k] = n == k ? 10 : 20;
    }
    return config;
}

START_TEST(test_mm_numa_threads_every_page_right_while_pages_move)
{
    struct mm_config config = three_nodes(_i);
    run(&config);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("mm_numa_threads");
    TCase *cases = tcase_create("stress");
    tcase_set_timeout(cases, 240);
    tcase_add_loop_test(cases, test_mm_numa_threads_every_page_right_while_pages_move, 0, 2);
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
