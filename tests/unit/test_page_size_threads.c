/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks are rebuilt while their guest writes to them.
 *
 *   writers  each has every other block: writes, verifies, drops single pages of it, so that huge pages break
 *   pinner   has blocks of its own, pins pages there and writes to them without a fault
 *   scanner  rebuilds without waiting for its quota
 *   worker   kswapd, housekeeper, reclaim by hand
 */
#include "tests/unit/page_size_rig.h"

#include <pthread.h>
#include <time.h>

#define NR_WRITERS 2u
#define NR_BLOCKS 8u
#define NR_PAGES (NR_BLOCKS * BLOCK_PAGES)
#define PIN_BLOCKS 2u
#define NR_STEPS 1000u
#define NR_HELPERS 3u

struct stress {
    struct mm_rig *rig;
    uint64_t least_collapsed; /* the writers go on until so many blocks have been rebuilt */
    int stop, wrong;          /* atomic */
};

struct worker {
    struct stress *s;
    struct mm_thread *thread;
    unsigned number;
    struct rng rng;
    void (*round)(struct worker *w);
    uint64_t now[NR_PAGES]; /* writers: the first 8 bytes of each page */
};

static void wrong(struct stress *s)
{
    __atomic_add_fetch(&s->wrong, 1, __ATOMIC_RELAXED);
}

static void access_page(struct worker *w, gfn_t gfn, uint64_t write)
{
    struct mm_rig *rig = w->s->rig;
    uint64_t got = 0;
    for (;;) {
        int err = write ? fake_host_guest_write(rig->fh, mm_vm_id(rig->vm), gfn, 0, &write, sizeof(write))
                        : fake_host_guest_read(rig->fh, mm_vm_id(rig->vm), gfn, 0, &got, sizeof(got));
        if (!err)
            break;
        if (mm_fault(w->thread, rig->vm, gpa_of(gfn), write ? MM_FAULT_WRITE : 0)) {
            wrong(w->s);
            return;
        }
    }
    if (write)
        w->now[gfn] = write;
    else if (got != w->now[gfn])
        wrong(w->s);
}

static void drop_page(struct worker *w, gfn_t gfn)
{
    uint64_t dropped;
    if (mm_drop(w->thread, w->s->rig->vm, gpa_of(gfn), PAGE_BYTES, MM_DROP_FREE, 0, &dropped))
        wrong(w->s);
    w->now[gfn] = 0;
}

/* A walk over a part of a block of the writer's own, now and then one page less of it. */
static void write_some(struct worker *w)
{
    gfn_t start = (rng_below(&w->rng, NR_BLOCKS / NR_WRITERS) * NR_WRITERS + w->number) * BLOCK_PAGES;
    unsigned first = rng_below(&w->rng, BLOCK_PAGES);
    bool write = rng_below(&w->rng, 2);
    for (unsigned i = 0; i < 40; i++)
        access_page(w, start + (first + i) % BLOCK_PAGES, write ? rng_next(&w->rng) : 0);
    if (rng_below(&w->rng, 20) == 0)
        drop_page(w, start + first);
}

static void *writer_main(void *arg)
{
    struct worker *w = arg;
    uint64_t *collapsed = &w->s->rig->host->event[EV_khugepaged_pages_collapsed];
    for (unsigned step = 0; step < NR_STEPS || counter_read(collapsed) < w->s->least_collapsed; step++)
        write_some(w);
    for (gfn_t gfn = 0; gfn < NR_PAGES; gfn++)
        if (gfn / BLOCK_PAGES % NR_WRITERS == w->number)
            access_page(w, gfn, 0);
    return NULL;
}

static void pin_round(struct worker *w)
{
    struct mm_rig *rig = w->s->rig;
    uint64_t word = rng_next(&w->rng);
    gfn_t gfn = NR_PAGES + rng_below(&w->rng, PIN_BLOCKS * BLOCK_PAGES);
    if (mm_pin(w->thread, rig->vm, gpa_of(gfn), PAGE_BYTES)) {
        wrong(w->s);
        return;
    }
    for (unsigned i = 0; i < 20; i++)
        if (fake_host_guest_write(rig->fh, mm_vm_id(rig->vm), gfn, 0, &word, sizeof(word)))
            wrong(w->s);
    mm_unpin(rig->vm, gpa_of(gfn), PAGE_BYTES);
}

static void scan_round(struct worker *w)
{
    w->s->rig->host->collapse.due_ns = 0;
    if (!collapse_scan(w->thread))
        wrong(w->s);
}

static void work_round(struct worker *w)
{
    struct mm_rig *rig = w->s->rig;
    mm_kswapd(w->thread, 0);
    mm_housekeep(w->thread);
    if (rng_below(&w->rng, 4) == 0)
        mm_reclaim(w->thread, rng_below(&w->rng, 2) ? rig->vm : NULL, rng_below(&w->rng, 300), rng_below(&w->rng, 2));
    nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
}

static void *helper_main(void *arg)
{
    struct worker *w = arg;
    while (!__atomic_load_n(&w->s->stop, __ATOMIC_RELAXED))
        w->round(w);
    return NULL;
}

static void run(const struct mm_config *config, uint64_t least_collapsed)
{
    static void (*const rounds[NR_HELPERS])(struct worker *) = {pin_round, scan_round, work_round};
    struct worker *workers = calloc(NR_WRITERS + NR_HELPERS, sizeof(*workers));
    pthread_t thread[NR_WRITERS + NR_HELPERS];
    struct stress s = {.least_collapsed = least_collapsed};
    s.rig = mm_rig_create(config, (NR_BLOCKS + PIN_BLOCKS) * BLOCK_BYTES, NR_WRITERS + NR_HELPERS);
    for (unsigned i = 0; i < NR_WRITERS + NR_HELPERS; i++) {
        bool helper = i >= NR_WRITERS;
        workers[i].s = &s;
        workers[i].thread = s.rig->thread[i];
        workers[i].number = i;
        workers[i].rng.state = i + 99;
        workers[i].round = helper ? rounds[i - NR_WRITERS] : NULL;
        ck_assert(!pthread_create(&thread[i], NULL, helper ? helper_main : writer_main, &workers[i]));
    }
    for (unsigned i = 0; i < NR_WRITERS; i++)
        pthread_join(thread[i], NULL);
    __atomic_store_n(&s.stop, 1, __ATOMIC_RELAXED);
    for (unsigned i = NR_WRITERS; i < NR_WRITERS + NR_HELPERS; i++)
        pthread_join(thread[i], NULL);
    ck_assert_int_eq(s.wrong, 0);
    mm_rig_destroy(s.rig);
    free(workers);
}

START_TEST(test_page_size_threads_writers_of_blocks_that_are_rebuilt_lose_nothing)
{
    const struct mm_config config = {
        .budget_bytes = 48 * MIB, .zram = {.limit_bytes = 8 * MIB}, .thp = true, .collapse_pct = 100};
    run(&config, 10);
}
END_TEST

/* Not all of it fits: pages come and go while blocks are rebuilt, if there is room for one. */
START_TEST(test_page_size_threads_under_pressure_lose_nothing)
{
    const struct mm_config config = {
        .budget_bytes = 18 * MIB, .zram = {.limit_bytes = 8 * MIB}, .thp = true, .collapse_pct = 100};
    run(&config, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("page_size_threads");
    TCase *tests = tcase_create("stress");
    tcase_set_timeout(tests, 300);
    tcase_add_test(tests, test_page_size_threads_writers_of_blocks_that_are_rebuilt_lose_nothing);
    tcase_add_test(tests, test_page_size_threads_under_pressure_lose_nothing);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
