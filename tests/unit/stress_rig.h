/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mm/ with many threads over the fake host: guests that write to two VMs, and helpers that do the rest, round by round,
 * until the guests are done. Each page has one guest, who alone knows its content.
 */
#ifndef TESTS_UNIT_STRESS_RIG_H
#define TESTS_UNIT_STRESS_RIG_H

#include "mm/mm.h"
#include "tests/fake/fake_host.h"
#include "tests/fake/fake_swap.h"
#include "tests/unit/model_rng.h"

#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#define MIB (UINT64_C(1) << 20)
#define STRESS_VM_PAGES 6144u
#define STRESS_SWAP_SLOTS 16384u
#define STRESS_MAX_THREADS 8u

struct stress {
    struct fake_host *fh;
    struct mm_host *host;
    struct mm_vm *vm[2];
    bool faults_may_fail; /* the test lets the host refuse: -EAGAIN is no error */
    unsigned nr_guests;
    int stop;   /* atomic */
    int wrong;  /* atomic: pages that were not what they should be */
    int errors; /* atomic: faults refused, and what else should not be */
};

struct stress_thread {
    struct stress *s;
    struct mm_thread *thread;
    struct rng rng;
    unsigned number;                                        /* guests: of its vCPU */
    unsigned node;                                          /* guests: that it runs on */
    bool (*step)(struct stress_thread *t, unsigned number); /* guests: from 1 on; false: done */
    void (*round)(struct stress_thread *t);                 /* helpers */
    uint64_t generation[2][STRESS_VM_PAGES];                /* guests */
};

static inline void stress_add_disk(struct stress *s, const char *name)
{
    if (swap_area_add(mm_swap_set(s->host), name, "file", STRESS_SWAP_SLOTS, -1, &fake_swap_backend,
                      fake_swap_create(STRESS_SWAP_SLOTS)) < 0)
        abort();
}

/* The host, two VMs, one disk. */
static inline void stress_init(struct stress *s, const struct mm_config *config, unsigned nr_guests)
{
    const struct mm_region region = {.start = {0}, .bytes = STRESS_VM_PAGES * PAGE_BYTES};
    fn_t start[MM_MAX_NODES + 1];
    *s = (struct stress){.fh = fake_host_create(mm_arena_slots(config)), .nr_guests = nr_guests};
    fake_host_set_nodes(s->fh, mm_arena_layout(config, start), start);
    fake_host_set_budget(s->fh, (uint32_t)(config->budget_bytes / PAGE_BYTES));
    ck_assert_int_eq(mm_host_create(config, fake_host_ops(s->fh), s->fh, fake_host_arena(s->fh), &s->host), 0);
    stress_add_disk(s, "zero");
    for (unsigned i = 0; i < 2; i++) {
        ck_assert_int_eq(mm_vm_create(s->host, &region, 1, &s->vm[i]), 0);
        fake_host_add_vm(s->fh, mm_vm_id(s->vm[i]), STRESS_VM_PAGES);
    }
}

/* Pages that are each guest's own, of each VM. */
static inline unsigned stress_nr_slots(const struct stress *s)
{
    return STRESS_VM_PAGES / s->nr_guests;
}

/*
 * A vCPU's access to page @slot of its own, and the fault that it may need, until it went through. @write: what is
 * written; 0: the page is read and has to be what was written last.
 */
static inline void stress_access(struct stress_thread *t, unsigned vm, unsigned slot, uint64_t write)
{
    struct stress *s = t->s;
    gfn_t gfn = slot * s->nr_guests + t->number;
    vmid_t id = mm_vm_id(s->vm[vm]);
    uint64_t words[2] = {write, write ^ gfn}, got[2];
    for (;;) {
        int err = write ? fake_host_guest_write(s->fh, id, gfn, 1000, words, sizeof(words))
                        : fake_host_guest_read(s->fh, id, gfn, 1000, got, sizeof(got));
        if (!err)
            break;
        unsigned flags = MM_FAULT_FROM(t->node, t->number);
        err = mm_fault(t->thread, s->vm[vm], gpa_of(gfn), write ? flags | MM_FAULT_WRITE : flags);
        if (err && !(s->faults_may_fail && err == -EAGAIN)) {
            __atomic_add_fetch(&s->errors, 1, __ATOMIC_RELAXED);
            return;
        }
    }
    uint64_t want = t->generation[vm][gfn];
    if (write)
        t->generation[vm][gfn] = write;
    else if (got[0] != want || got[1] != (want ? want ^ gfn : 0))
        __atomic_add_fetch(&s->wrong, 1, __ATOMIC_RELAXED);
}

static inline void *stress_main(void *arg)
{
    struct stress_thread *t = arg;
    if (mm_thread_create(t->s->host, &t->thread))
        abort();
    if (t->round)
        while (!__atomic_load_n(&t->s->stop, __ATOMIC_RELAXED))
            t->round(t);
    for (unsigned number = 1; t->step && t->step(t, number);)
        number++;
    for (unsigned vm = 0; t->step && vm < 2; vm++)
        for (unsigned slot = 0; slot < stress_nr_slots(t->s); slot++)
            stress_access(t, vm, slot, 0);
    mm_thread_destroy(t->thread);
    return NULL;
}

/* The guests take steps until they are done and have looked at all their pages, a helper for each of @rounds beside. */
static inline void stress_run(struct stress *s, bool (*step)(struct stress_thread *t, unsigned number),
                              void (*const rounds[])(struct stress_thread *t), unsigned nr_rounds)
{
    struct stress_thread *threads = calloc(s->nr_guests + nr_rounds, sizeof(*threads));
    pthread_t ids[STRESS_MAX_THREADS];
    ck_assert_uint_le(s->nr_guests + nr_rounds, STRESS_MAX_THREADS);
    for (unsigned i = 0; i < s->nr_guests + nr_rounds; i++) {
        bool guest = i < s->nr_guests;
        threads[i].s = s;
        threads[i].number = i;
        threads[i].rng.state = guest ? i + 77 : 4711;
        threads[i].step = guest ? step : NULL;
        threads[i].round = guest ? NULL : rounds[i - s->nr_guests];
        ck_assert_int_eq(pthread_create(&ids[i], NULL, stress_main, &threads[i]), 0);
    }
    for (unsigned i = 0; i < s->nr_guests + nr_rounds; i++) {
        if (i == s->nr_guests)
            __atomic_store_n(&s->stop, 1, __ATOMIC_RELAXED);
        pthread_join(ids[i], NULL);
    }
    free(threads);
}

/* Every page was right, and mm/ is as it should be. Fills @stat; all is freed. */
static inline void stress_fini(struct stress *s, struct mm_host_stat *stat)
{
    struct mm_thread *thread;
    const char *why = NULL;
    mm_host_stat(s->host, stat);
    ck_assert_int_eq(s->wrong, 0);
    ck_assert_int_eq(s->errors, 0);
    ck_assert_msg(mm_check(s->host, &why), "%s", why);
    ck_assert_msg(!fake_host_breach(s->fh), "%s", fake_host_breach(s->fh));
    ck_assert_int_eq(mm_thread_create(s->host, &thread), 0);
    for (unsigned i = 0; i < 2; i++)
        mm_vm_destroy(thread, s->vm[i]);
    mm_thread_destroy(thread);
    mm_host_destroy(s->host);
    fake_host_destroy(s->fh);
}

#endif
