/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Swap areas over a backend in memory: random operations against a reference that knows each slot's count and content,
 * and threads that verify every page while areas come and go.
 */
#include "tests/unit/swap_rig.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t rnd(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static unsigned rnd_below(uint64_t *state, unsigned n)
{
    return (unsigned)(rnd(state) % n);
}

/* --- the model -------------------------------------------------------------------------------- */

#define MODEL_AREAS 5
#define MODEL_MAX_SLOTS 1500

struct model_area {
    struct fake_swap *disk; /* NULL: no such area */
    char name[16];
    int number, priority;
    bool enabled, closed;
    bool refuses; /* no page of its last write went through */
    uint64_t nr_slots, nr_used;
    uint16_t uses[MODEL_MAX_SLOTS];
    uint64_t stamp[MODEL_MAX_SLOTS]; /* 0: content unknown */
};

struct model {
    struct swap_set *set;
    uint64_t seed;
    struct model_area area[MODEL_AREAS];
    unsigned nr_names;
    page_t page[SWAP_MAX_IO];
    int error[SWAP_MAX_IO];
    void *pages[SWAP_MAX_IO];
};

static struct model_area *model_by_number(struct model *m, int number)
{
    for (unsigned i = 0; i < MODEL_AREAS; i++)
        if (m->area[i].disk && m->area[i].number == number)
            return &m->area[i];
    ck_abort_msg("area %d is not known", number);
    return NULL;
}

static void model_add(struct model *m, struct model_area *a)
{
    static const unsigned sizes[] = {2, 17, 256, 257, 700, MODEL_MAX_SLOTS};
    memset(a, 0, sizeof(*a));
    a->nr_slots = sizes[rnd_below(&m->seed, ARRAY_LEN(sizes))];
    a->priority = (int)rnd_below(&m->seed, 3);
    a->enabled = true;
    snprintf(a->name, sizeof(a->name), "area%u", m->nr_names++);
    a->disk = add_area(m->set, a->name, a->nr_slots, a->priority, &a->number);
    a->disk->closed = &a->closed;
    ck_assert_int_eq(swap_area_find(m->set, a->name), a->number);
}

static bool model_has_room(const struct model_area *a, bool refusing)
{
    return a->disk && a->enabled && a->nr_used < a->nr_slots - 1 && a->refuses == refusing;
}

static bool model_is_writable(const struct model *m)
{
    bool writable = false;
    for (unsigned i = 0; i < MODEL_AREAS; i++)
        writable |= model_has_room(&m->area[i], false);
    return writable;
}

/* The area that must serve next has the highest priority of those with room; one that refuses, if there is no other. */
static int model_best_priority(const struct model *m)
{
    int best = -1;
    bool refusing = !model_is_writable(m);
    for (unsigned i = 0; i < MODEL_AREAS; i++)
        if (model_has_room(&m->area[i], refusing))
            best = MAX_OF(best, m->area[i].priority);
    return best;
}

static void model_alloc(struct model *m)
{
    unsigned want = 1 + rnd_below(&m->seed, SWAP_MAX_IO);
    int best = model_best_priority(m);
    struct swap_ref first;
    unsigned nr = swap_alloc(m->set, want, &first);
    ck_assert_uint_le(nr, want);
    ck_assert_int_eq(nr > 0, best >= 0);
    if (nr == 0)
        return;
    struct model_area *a = model_by_number(m, first.area);
    ck_assert(a->enabled);
    ck_assert_int_eq(a->priority, best);
    ck_assert_uint_ge(first.slot, 1);
    ck_assert_uint_le(first.slot + nr, a->nr_slots);
    for (unsigned i = 0; i < nr; i++) {
        ck_assert_uint_eq(a->uses[first.slot + i], 0);
        a->uses[first.slot + i] = 1;
        a->stamp[first.slot + i] = 0;
    }
    a->nr_used += nr;
}

/* A used slot of a random area, and how many neighbours from it on are used, up to @max. 0: none. */
static unsigned model_pick(struct model *m, struct model_area **area, uint64_t *slot, unsigned max)
{
    struct model_area *a = &m->area[rnd_below(&m->seed, MODEL_AREAS)];
    if (!a->disk || a->nr_used == 0)
        return 0;
    uint64_t at = rnd(&m->seed) % a->nr_slots;
    while (a->uses[at] == 0)
        at = (at + 1) % a->nr_slots;
    unsigned nr = 0;
    while (nr < max && at + nr < a->nr_slots && a->uses[at + nr] > 0)
        nr++;
    *area = a;
    *slot = at;
    return nr;
}

static void model_write(struct model *m)
{
    struct model_area *a;
    uint64_t slot;
    unsigned nr = model_pick(m, &a, &slot, 1 + rnd_below(&m->seed, SWAP_MAX_IO));
    if (nr == 0)
        return;
    unsigned bad = rnd_below(&m->seed, 4 * nr); /* one write in four has a page that fails */
    if (bad < nr)
        a->disk->write_error[slot + bad] = -ENOSPC;
    uint64_t stamp[SWAP_MAX_IO];
    for (unsigned i = 0; i < nr; i++) {
        stamp[i] = rnd(&m->seed) | 1;
        page_fill(&m->page[i], stamp[i]);
    }
    struct swap_ref first = {(uint8_t)a->number, slot};
    ck_assert_int_eq(swap_write(m->set, first, m->pages, nr, m->error), bad < nr ? -ENOSPC : 0);
    for (unsigned i = 0; i < nr; i++) {
        ck_assert_int_eq(m->error[i], i == bad ? -ENOSPC : 0);
        if (i != bad)
            a->stamp[slot + i] = stamp[i];
    }
    a->refuses = bad == 0 && nr == 1;
    if (bad < nr)
        a->disk->write_error[slot + bad] = 0;
}

static void model_try_again(struct model *m)
{
    swap_try_again(m->set);
    for (unsigned i = 0; i < MODEL_AREAS; i++)
        m->area[i].refuses = false;
}

static void model_read(struct model *m)
{
    struct model_area *a;
    uint64_t slot;
    unsigned nr = model_pick(m, &a, &slot, 1 + rnd_below(&m->seed, SWAP_MAX_IO));
    if (nr == 0)
        return;
    unsigned bad = rnd_below(&m->seed, 4 * nr);
    bool corrupt = rnd_below(&m->seed, 2);
    if (bad < nr && corrupt)
        fake_swap_corrupt(a->disk, slot + bad);
    else if (bad < nr)
        a->disk->read_error[slot + bad] = -EIO;
    struct swap_ref first = {(uint8_t)a->number, slot};
    int err = swap_read(m->set, first, m->pages, nr, m->error);
    bool any = false;
    for (unsigned i = 0; i < nr; i++) {
        any |= m->error[i] != 0;
        if (i == bad)
            ck_assert_int_eq(m->error[i], corrupt ? -EILSEQ : -EIO);
        else if (a->stamp[slot + i])
            ck_assert(m->error[i] == 0 && page_is(&m->page[i], a->stamp[slot + i]));
    }
    ck_assert_int_eq(err != 0, any);
    if (bad < nr && corrupt)
        fake_swap_corrupt(a->disk, slot + bad);
    else if (bad < nr)
        a->disk->read_error[slot + bad] = 0;
}

static void model_dup(struct model *m)
{
    struct model_area *a;
    uint64_t slot;
    if (model_pick(m, &a, &slot, 1) == 0)
        return;
    ck_assert_int_eq(swap_dup(m->set, (struct swap_ref){(uint8_t)a->number, slot}), 0);
    a->uses[slot]++;
}

static void model_free(struct model *m)
{
    struct model_area *a;
    uint64_t slot;
    unsigned nr = model_pick(m, &a, &slot, 1 + rnd_below(&m->seed, SWAP_MAX_IO));
    for (unsigned i = 0; i < nr; i++) {
        swap_free(m->set, (struct swap_ref){(uint8_t)a->number, slot + i});
        if (--a->uses[slot + i] == 0)
            a->nr_used--;
    }
}

static void model_drain(struct model *m, struct model_area *a)
{
    for (uint64_t slot = 1; slot < a->nr_slots; slot++)
        for (; a->uses[slot] > 0; a->uses[slot]--)
            swap_free(m->set, (struct swap_ref){(uint8_t)a->number, slot});
    a->nr_used = 0;
}

static void model_area_op(struct model *m)
{
    struct model_area *a = &m->area[rnd_below(&m->seed, MODEL_AREAS)];
    if (!a->disk) {
        model_add(m, a);
        return;
    }
    switch (rnd_below(&m->seed, 4)) {
    case 0:
        a->enabled = rnd_below(&m->seed, 2);
        swap_area_enable(m->set, a->number, a->enabled);
        return;
    case 1:
        if (!a->enabled)
            model_drain(m, a);
        return;
    default:
        break;
    }
    bool idle = !a->enabled && a->nr_used == 0;
    ck_assert_int_eq(swap_area_remove(m->set, a->number), idle ? 0 : -EBUSY);
    ck_assert_int_eq(a->closed, idle);
    if (idle) {
        ck_assert_int_eq(swap_area_find(m->set, a->name), -ENOENT);
        a->disk = NULL;
    }
}

static void model_compare(struct model *m)
{
    assert_check(m->set);
    struct swap_area_stat stat[MODEL_AREAS + 1];
    unsigned nr = swap_stat(m->set, stat, ARRAY_LEN(stat));
    uint64_t nr_free = 0;
    unsigned nr_areas = 0;
    for (unsigned i = 0; i < MODEL_AREAS; i++) {
        const struct model_area *a = &m->area[i];
        nr_areas += a->disk != NULL;
        nr_free += a->disk && a->enabled ? a->nr_slots - 1 - a->nr_used : 0;
    }
    ck_assert_uint_eq(nr, nr_areas);
    ck_assert_uint_eq(swap_nr_free(m->set), nr_free);
    ck_assert_int_eq(swap_is_writable(m->set), model_is_writable(m));
    for (unsigned i = 0; i < nr; i++) {
        const struct model_area *a = model_by_number(m, swap_area_find(m->set, stat[i].name));
        ck_assert_uint_eq(stat[i].used_bytes, a->nr_used * PAGE_BYTES);
        ck_assert_uint_eq(stat[i].size_bytes, (a->nr_slots - 1) * PAGE_BYTES);
        ck_assert_int_eq(stat[i].priority, a->priority);
        ck_assert_int_eq(stat[i].enabled, a->enabled);
        ck_assert_uint_eq(stat[i].nr_writes, a->disk->nr_written);
        ck_assert_uint_ge(a->disk->nr_read, stat[i].nr_reads);
        ck_assert(i == 0 || stat[i - 1].priority >= stat[i].priority);
    }
}

static void model_step(struct model *m)
{
    unsigned dice = rnd_below(&m->seed, 100);
    if (dice < 24)
        model_alloc(m);
    else if (dice < 44)
        model_write(m);
    else if (dice < 66)
        model_read(m);
    else if (dice < 72)
        model_dup(m);
    else if (dice < 94)
        model_free(m);
    else if (dice < 95)
        model_try_again(m);
    else
        model_area_op(m);
}

START_TEST(test_swap_model_random_operations_match_the_model)
{
    struct model *m = aligned_alloc(_Alignof(struct model), sizeof(*m));
    ck_assert_ptr_nonnull(m);
    memset(m, 0, sizeof(*m));
    m->seed = (uint64_t)_i * 7919 + 1;
    m->set = set_create();
    for (unsigned i = 0; i < SWAP_MAX_IO; i++)
        m->pages[i] = &m->page[i];
    for (unsigned step = 0; step < 1500; step++) {
        model_step(m);
        model_compare(m);
    }
    swap_set_destroy(m->set);
    for (unsigned i = 0; i < MODEL_AREAS; i++)
        ck_assert(!m->area[i].disk || m->area[i].closed);
    free(m);
}
END_TEST

/* --- threads ---------------------------------------------------------------------------------- */

#define NR_THREADS 4
#define THREAD_RUNS 16

struct run {
    struct swap_ref ref;
    unsigned nr;
    uint64_t stamp;
};

struct worker {
    struct swap_set *set;
    uint64_t seed;
    struct run run[THREAD_RUNS];
    page_t *page; /* THREAD_RUNS of them */
    unsigned nr_bad;
};

static void worker_put(struct worker *w, struct run *run)
{
    void *pages[THREAD_RUNS];
    int error[THREAD_RUNS];
    for (unsigned i = 0; i < run->nr; i++)
        pages[i] = &w->page[i];
    if (run->nr && swap_read(w->set, run->ref, pages, run->nr, error) != 0)
        w->nr_bad++;
    for (unsigned i = 0; i < run->nr; i++) {
        w->nr_bad += !page_is(&w->page[i], run->stamp + i);
        swap_free(w->set, (struct swap_ref){run->ref.area, run->ref.slot + i});
    }
    run->nr = 0;
}

static void worker_take(struct worker *w, struct run *run)
{
    void *pages[THREAD_RUNS];
    int error[THREAD_RUNS];
    run->nr = swap_alloc(w->set, 1 + rnd_below(&w->seed, THREAD_RUNS), &run->ref);
    run->stamp = rnd(&w->seed);
    for (unsigned i = 0; i < run->nr; i++) {
        page_fill(&w->page[i], run->stamp + i);
        pages[i] = &w->page[i];
    }
    if (run->nr && swap_write(w->set, run->ref, pages, run->nr, error) != 0)
        w->nr_bad++;
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    for (unsigned i = 0; i < 1500; i++) {
        struct run *run = &w->run[rnd_below(&w->seed, THREAD_RUNS)];
        worker_put(w, run);
        if (i < 1400)
            worker_take(w, run);
    }
    for (unsigned i = 0; i < THREAD_RUNS; i++)
        worker_put(w, &w->run[i]);
    return NULL;
}

/* Areas are disabled, removed, added and looked at under the workers. */
START_TEST(test_swap_model_threads_find_their_pages_while_areas_change)
{
    struct swap_set *set = set_create();
    int area[2], number;
    add_area(set, "a", 700, 1, &area[0]);
    add_area(set, "b", 300, 1, &area[1]);
    struct worker *w = calloc(NR_THREADS, sizeof(*w));
    pthread_t thread[NR_THREADS];
    for (unsigned i = 0; i < NR_THREADS; i++) {
        w[i].set = set;
        w[i].seed = i + 1;
        w[i].page = aligned_alloc(4096, THREAD_RUNS * sizeof(page_t));
        ck_assert_int_eq(pthread_create(&thread[i], NULL, worker_main, &w[i]), 0);
    }
    uint64_t seed = 99;
    struct swap_area_stat stat[3];
    for (unsigned i = 0; i < 300; i++) {
        number = swap_area_find(set, "b");
        if (number < 0) {
            add_area(set, "b", 200 + i, (int)rnd_below(&seed, 3), &number);
            continue;
        }
        swap_area_enable(set, number, rnd_below(&seed, 2));
        int err = swap_area_remove(set, number);
        ck_assert(err == 0 || err == -EBUSY);
        ck_assert_uint_ge(swap_stat(set, stat, 3), 1);
    }
    for (unsigned i = 0; i < NR_THREADS; i++) {
        ck_assert_int_eq(pthread_join(thread[i], NULL), 0);
        ck_assert_uint_eq(w[i].nr_bad, 0);
        free(w[i].page);
    }
    unsigned nr = swap_stat(set, stat, 3);
    for (unsigned i = 0; i < nr; i++)
        ck_assert_uint_eq(stat[i].used_bytes, 0);
    assert_check(set);
    free(w);
    swap_set_destroy(set);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("swap_model");
    TCase *model = tcase_create("model");
    tcase_set_timeout(model, 60);
    tcase_add_loop_test(model, test_swap_model_random_operations_match_the_model, 0, 8);
    tcase_add_test(model, test_swap_model_threads_find_their_pages_while_areas_change);
    suite_add_tcase(suite, model);

    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
