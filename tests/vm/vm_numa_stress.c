/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages move between three nodes, two fast ones and a slow one, 2 MiB and 4 KiB, while writers run: on the kernel, with
 * its userfaultfd and all threads of a memory host, and without KVM. On a host with fewer nodes some count twice; in the
 * lab they are real, and the writers run on CPUs of two of them.
 */
#include <check.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/unit/model_rng.h"
#include "vmm/memhost.h"
#include "vmm/memhost_numa.h"

#define MIB (UINT64_C(1) << 20)
#define VM_BYTES (48 * MIB)
#define VM_PAGES ((uint32_t)(VM_BYTES / PAGE_BYTES))
#define NR_WRITERS 3u
#define OWN_PAGES (VM_PAGES / NR_WRITERS)
#define HOT_SHARE 12u /* of a writer's pages, which three of four accesses go to */
#define STEPS_AT_ONCE 4000u
#define WORDS (PAGE_BYTES / 8)
/* Until everything that is to be seen has happened; after so long it is a failure. */
#define MOST_SECONDS 240

struct stress {
    struct memhost *mh;
    struct memhost_vm *vm;
    char *memory;
    atomic_int fatal_err, wrong, stop;
};

struct writer {
    struct stress *s;
    unsigned index;
    uint64_t generation[OWN_PAGES];
};

static void on_fatal(void *ctx, int err, gpa_t gpa)
{
    struct stress *s = ctx;
    (void)gpa;
    atomic_store(&s->fatal_err, err);
    memhost_vm_release_waiters(s->vm);
}

static volatile uint64_t *page_of(const struct writer *w, uint32_t slot)
{
    return (volatile uint64_t *)(void *)(w->s->memory + ((uint64_t)slot * NR_WRITERS + w->index) * PAGE_BYTES);
}

/* Three words of a page say its generation, or are zero. */
static void access_page(struct writer *w, uint32_t slot, uint64_t write)
{
    volatile uint64_t *words = page_of(w, slot);
    uint64_t want = w->generation[slot];
    if (words[1] != want || words[WORDS / 2] != (want ? want ^ slot : 0) || words[WORDS - 1] != want)
        atomic_fetch_add(&w->s->wrong, 1);
    if (!write)
        return;
    words[1] = words[WORDS - 1] = write;
    words[WORDS / 2] = write ^ slot;
    w->generation[slot] = write;
}

/* Its turn on the CPUs that there are: pages are to have users on more than one node. */
static void run_on(const struct writer *w, unsigned cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (!sched_setaffinity(0, sizeof(set), &set))
        memhost_vm_add_vcpu(w->s->vm, w->index, (int)cpu);
}

static void *writer_main(void *arg)
{
    struct writer *w = arg;
    struct rng rng = {w->index + 1};
    unsigned nr_cpus = (unsigned)sysconf(_SC_NPROCESSORS_CONF);
    for (uint64_t round = 1; !atomic_load(&w->s->stop) && !atomic_load(&w->s->fatal_err); round++) {
        if (round % 64 == 1)
            run_on(w, (unsigned)((w->index + round / 64) % nr_cpus));
        for (unsigned step = 0; step < STEPS_AT_ONCE; step++) {
            uint32_t slot = rng_below(&rng, rng_below(&rng, 4) ? OWN_PAGES / HOT_SHARE : OWN_PAGES);
            access_page(w, slot, rng_below(&rng, 2) ? round << 32 | step << 8 | 1 : 0);
        }
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    for (uint32_t slot = 0; slot < OWN_PAGES && !atomic_load(&w->s->fatal_err); slot++)
        access_page(w, slot, 0);
    return NULL;
}

/* Nodes of this host, the last of which is the slow one; those there are count again where they are too few. */
static struct mm_config make_config(bool thp)
{
    struct mm_config config = {.budget_bytes = 44 * MIB, .zram = {.limit_bytes = 12 * MIB}, .thp = thp};
    struct numa_host *host = malloc(sizeof(*host));
    numa_host_read(host);
    uint64_t all = numa_host_with_memory(host), nodes = all;
    config.numa_balancing = true;
    config.collapse_pct = 5;
    config.nr_nodes = 3;
    for (unsigned n = 0; n < 3; n++) {
        nodes = nodes ? nodes : all;
        config.nodes[n] =
            (struct mm_node_config){.id = __builtin_ctzll(nodes), .distance = {20, 20, 20}, .rank = n == 2};
        config.nodes[n].budget_bytes = (n == 2 ? 20 : 12) * MIB;
        config.nodes[n].distance[n] = 10;
        nodes &= nodes - 1;
    }
    free(host);
    return config;
}

static void stress_open(struct stress *s, bool thp)
{
    struct diag diag = {0};
    struct numa_host *host = malloc(sizeof(*host));
    numa_host_read(host);
    const struct memhost_config config = {
        .mm = make_config(thp), .policy = {.mode = MM_POLICY_LOCAL, .nodes = 7}, .numa = host};
    const struct mm_region region = {.start = {0}, .bytes = VM_BYTES};
    const struct memhost_vm_config vm = {
        .regions = &region, .nr_regions = 1, .nr_fault_threads = 2, .on_fatal = on_fatal, .ctx = s};
    memset(s, 0, sizeof(*s));
    ck_assert_msg(memhost_create(&config, &s->mh, &diag) == 0, "%s", diag.text);
    ck_assert_msg(memhost_vm_add(s->mh, &vm, &s->vm, &diag) == 0, "%s", diag.text);
    s->memory = memhost_vm_hva(s->vm, (gpa_t){0}, VM_BYTES);
    free(host);
}

static bool all_seen(const struct mm_host_stat *stat)
{
    return stat->event[EV_pgmigrate_success] >= 1000 && stat->event[EV_pgpromote_success] >= 100 &&
           stat->event[EV_pgdemote_kswapd] + stat->event[EV_pgdemote_direct] >= 1000 && stat->event[EV_zswpin] > 0 &&
           stat->event[EV_numa_hint_faults] >= 1000;
}

START_TEST(test_numa_stress_every_page_is_right_while_pages_move_between_nodes_and_tiers)
{
    struct stress s;
    struct mm_host_stat stat;
    pthread_t threads[NR_WRITERS];
    struct writer *writers = calloc(NR_WRITERS, sizeof(*writers));
    stress_open(&s, _i);
    for (unsigned i = 0; i < NR_WRITERS; i++) {
        writers[i].s = &s;
        writers[i].index = i;
        ck_assert_int_eq(pthread_create(&threads[i], NULL, writer_main, &writers[i]), 0);
    }
    for (unsigned tenths = 0; tenths < 10 * MOST_SECONDS; tenths++) {
        mm_host_stat(memhost_mm(s.mh), &stat);
        if (all_seen(&stat) || atomic_load(&s.fatal_err))
            break;
        nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
    }
    atomic_store(&s.stop, 1);
    for (unsigned i = 0; i < NR_WRITERS; i++)
        pthread_join(threads[i], NULL);
    printf("%s: %llu pages moved, %llu demoted, %llu promoted, %llu to nodes of their users, %llu refused\n",
           _i ? "with 2 MiB" : "4 KiB", (unsigned long long)stat.event[EV_pgmigrate_success],
           (unsigned long long)(stat.event[EV_pgdemote_kswapd] + stat.event[EV_pgdemote_direct]),
           (unsigned long long)stat.event[EV_pgpromote_success], (unsigned long long)stat.event[EV_numa_pages_migrated],
           (unsigned long long)stat.event[EV_pgmigrate_fail]);
    ck_assert_int_eq(s.fatal_err, 0);
    ck_assert_int_eq(s.wrong, 0);
    ck_assert(all_seen(&stat));
    memhost_vm_remove(s.vm);
    memhost_destroy(s.mh);
    free(writers);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("numa_stress");
    TCase *cases = tcase_create("stress");
    tcase_set_timeout(cases, 2 * MOST_SECONDS);
    tcase_add_loop_test(cases, test_numa_stress_every_page_is_right_while_pages_move_between_nodes_and_tiers, 0, 2);
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
