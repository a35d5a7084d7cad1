/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that is given up, pinned, plugged and reclaimed by several threads at once.
 *
 *   owners    each has every other block of the first region: writes, verifies, drops, gives to the balloon, takes back
 *   toucher   faults on any page of either region, whoever is at it
 *   pinner    pins ranges of either region, and sees that they stay in the guest
 *   plugger   plugs and unplugs the second region
 *   worker    kswapd, housekeeper, reclaim by hand, swapoff
 *
 * A drop leaves a block alone that is pinned just then, so what an owner reads next is the old content or the new.
 */
#include "mm/mm.h"
#include "tests/fake/fake_host.h"
#include "tests/fake/fake_swap.h"
#include "tests/unit/model_rng.h"

#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MIB (UINT64_C(1) << 20)
#define NR_OWNERS 2u
#define NR_BLOCKS 8u
#define OWNED_PAGES (NR_BLOCKS * BLOCK_PAGES)
#define ALL_PAGES (OWNED_PAGES + 4 * BLOCK_PAGES)
#define NR_STEPS 6000u
#define SWAP_SLOTS 16384u

static const struct mm_region regions[2] = {
    {.start = {0}, .bytes = OWNED_PAGES * PAGE_BYTES},
    {.start = {OWNED_PAGES * PAGE_BYTES}, .bytes = 4 * BLOCK_BYTES, .unplugged = true},
};

struct stress {
    struct fake_host *fh;
    struct mm_host *host;
    struct mm_vm *vm;
    vmid_t id;
    int stop;        /* atomic */
    int wrong;       /* atomic: pages that were not what they should be, pinned pages that were gone */
    int errors;      /* atomic: calls refused that should not be */
    uint64_t nr_pin; /* atomic: pins that held */
};

struct owner {
    struct stress *s;
    unsigned number;
    struct rng rng;
    struct mm_thread *thread;
    uint64_t now[OWNED_PAGES]; /* the page's first 8 bytes */
    uint64_t maybe[OWNED_PAGES];
    bool unsure[OWNED_PAGES]; /* it may be maybe instead */
};

static void count(int *counter)
{
    __atomic_add_fetch(counter, 1, __ATOMIC_RELAXED);
}

static bool stopped(const struct stress *s)
{
    return __atomic_load_n(&s->stop, __ATOMIC_RELAXED);
}

/* ---- owners ---- */

static void access_page(struct owner *o, gfn_t gfn, uint64_t write)
{
    struct stress *s = o->s;
    uint64_t got = 0;
    for (;;) {
        int err = write ? fake_host_guest_write(s->fh, s->id, gfn, 0, &write, sizeof(write))
                        : fake_host_guest_read(s->fh, s->id, gfn, 0, &got, sizeof(got));
        if (!err)
            break;
        if (mm_fault(o->thread, s->vm, gpa_of(gfn), write ? MM_FAULT_WRITE : 0)) {
            count(&s->errors);
            return;
        }
    }
    if (!write && got != o->now[gfn] && (!o->unsure[gfn] || got != o->maybe[gfn]))
        count(&s->wrong);
    o->now[gfn] = write ? write : got;
    o->unsure[gfn] = false;
}

static void give_up(struct owner *o, gfn_t start, uint32_t nr)
{
    static const uint32_t words[] = {0, 0, 0x5a5a5a5au};
    struct stress *s = o->s;
    uint32_t word = words[rng_below(&o->rng, ARRAY_LEN(words))];
    enum mm_drop_how how = rng_below(&o->rng, 2) ? MM_DROP_BALLOON : MM_DROP_FREE;
    uint64_t dropped;
    /* one doubt a page is all that is kept */
    for (gfn_t gfn = start; gfn < start + nr; gfn++)
        if (o->unsure[gfn])
            access_page(o, gfn, 0);
    if (mm_drop(o->thread, s->vm, gpa_of(start), nr * PAGE_BYTES, how, word, &dropped) || dropped > nr)
        count(&s->errors);
    for (gfn_t gfn = start; gfn < start + nr; gfn++) {
        o->maybe[gfn] = (uint64_t)word << 32 | word;
        o->unsure[gfn] = true;
    }
    if (rng_below(&o->rng, 2) && mm_balloon_return(s->vm, gpa_of(start), nr * PAGE_BYTES))
        count(&s->errors);
}

static void *owner_main(void *arg)
{
    struct owner *o = arg;
    if (mm_thread_create(o->s->host, &o->thread))
        abort();
    for (unsigned step = 1; step <= NR_STEPS; step++) {
        gfn_t block = (rng_below(&o->rng, NR_BLOCKS / NR_OWNERS) * NR_OWNERS + o->number) * BLOCK_PAGES;
        unsigned index = rng_below(&o->rng, BLOCK_PAGES), action = rng_below(&o->rng, 32);
        unsigned nr = MIN_OF(24, BLOCK_PAGES - index);
        if (action == 0)
            give_up(o, block, BLOCK_PAGES);
        else if (action < 4)
            give_up(o, block + index, nr);
        else
            for (unsigned i = 0; i < nr; i++)
                access_page(o, block + index + i, action % 2 ? (uint64_t)step << 32 | (index + i) : 0);
    }
    for (gfn_t gfn = 0; gfn < OWNED_PAGES; gfn++)
        if (gfn / BLOCK_PAGES % NR_OWNERS == o->number)
            access_page(o, gfn, 0);
    mm_thread_destroy(o->thread);
    return NULL;
}

/* ---- the others ---- */

struct helper {
    struct stress *s;
    struct rng rng;
    struct mm_thread *thread;
    void (*round)(struct helper *h);
};

static void touch_round(struct helper *h)
{
    struct stress *s = h->s;
    gfn_t gfn = rng_below(&h->rng, ALL_PAGES);
    int err = mm_fault(h->thread, s->vm, gpa_of(gfn), 0);
    if (err && (err != -EFAULT || gfn < OWNED_PAGES))
        count(&s->errors);
}

static void pin_round(struct helper *h)
{
    struct stress *s = h->s;
    uint32_t nr = 1 + rng_below(&h->rng, 100);
    gfn_t start = rng_below(&h->rng, rng_below(&h->rng, 2) ? OWNED_PAGES - nr : ALL_PAGES - nr);
    int err = mm_pin(h->thread, s->vm, gpa_of(start), nr * PAGE_BYTES);
    if (err && (err != -EFAULT || start + nr <= OWNED_PAGES))
        count(&s->errors);
    if (err)
        return;
    for (unsigned look = 0; look < 3; look++) {
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
        for (gfn_t gfn = start; gfn < start + nr; gfn++)
            if (!fake_host_is_present(s->fh, s->id, gfn))
                count(&s->wrong);
    }
    mm_unpin(s->vm, gpa_of(start), nr * PAGE_BYTES);
    __atomic_add_fetch(&s->nr_pin, 1, __ATOMIC_RELAXED);
}

static void plug_round(struct helper *h)
{
    struct stress *s = h->s;
    gfn_t start = OWNED_PAGES + rng_below(&h->rng, 4) * BLOCK_PAGES;
    uint64_t bytes = (1 + rng_below(&h->rng, (ALL_PAGES - start) / BLOCK_PAGES)) * BLOCK_BYTES, dropped;
    bool plugged = rng_below(&h->rng, 3);
    int err = mm_plug(h->thread, s->vm, gpa_of(start), bytes, plugged);
    if (err && (err != -EBUSY || plugged))
        count(&s->errors);
    if (mm_drop(h->thread, s->vm, gpa_of(start), PAGE_BYTES * 7, MM_DROP_BALLOON, 0, &dropped))
        count(&s->errors);
}

static void work_round(struct helper *h)
{
    struct stress *s = h->s;
    struct mm_host_stat host;
    struct mm_vm_stat vm;
    mm_kswapd(h->thread, 0);
    mm_housekeep(h->thread);
    mm_reclaim(h->thread, rng_below(&h->rng, 2) ? s->vm : NULL, rng_below(&h->rng, 700), rng_below(&h->rng, 2));
    mm_host_stat(s->host, &host);
    mm_vm_stat(s->vm, &vm);
    if (rng_below(&h->rng, 8))
        return;
    bool one = swap_area_find(mm_swap_set(s->host), "zero") < 0;
    if (swap_area_add(mm_swap_set(s->host), one ? "zero" : "one", "file", SWAP_SLOTS, -1, &fake_swap_backend,
                      fake_swap_create(SWAP_SLOTS)) < 0)
        abort();
    if (mm_swapoff(h->thread, one ? "one" : "zero") && mm_swapoff(h->thread, one ? "zero" : "one"))
        count(&s->errors);
}

static void *helper_main(void *arg)
{
    struct helper *h = arg;
    if (mm_thread_create(h->s->host, &h->thread))
        abort();
    while (!stopped(h->s))
        h->round(h);
    mm_thread_destroy(h->thread);
    return NULL;
}

/* ---- */

static void start(struct stress *s, const struct mm_config *config)
{
    s->fh = fake_host_create(mm_arena_slots(config));
    fake_host_set_budget(s->fh, (uint32_t)(config->budget_bytes / PAGE_BYTES));
    ck_assert_int_eq(mm_host_create(config, fake_host_ops(s->fh), s->fh, fake_host_arena(s->fh), &s->host), 0);
    ck_assert_int_ge(swap_area_add(mm_swap_set(s->host), "zero", "file", SWAP_SLOTS, -1, &fake_swap_backend,
                                   fake_swap_create(SWAP_SLOTS)),
                     0);
    ck_assert_int_eq(mm_vm_create(s->host, regions, 2, &s->vm), 0);
    s->id = mm_vm_id(s->vm);
    fake_host_add_vm(s->fh, s->id, ALL_PAGES);
}

static void finish(struct stress *s)
{
    const char *why = NULL;
    struct mm_thread *thread;
    struct fake_host_stat fake;
    ck_assert_int_eq(s->wrong, 0);
    ck_assert_int_eq(s->errors, 0);
    ck_assert_uint_gt(s->nr_pin, 0);
    ck_assert_msg(mm_check(s->host, &why), "%s", why);
    ck_assert_int_eq(mm_thread_create(s->host, &thread), 0);
    mm_vm_destroy(thread, s->vm);
    mm_thread_destroy(thread);
    mm_host_destroy(s->host);
    fake_host_stat(s->fh, &fake);
    ck_assert_uint_eq(fake.physical_pages, 0);
    ck_assert_msg(!fake_host_breach(s->fh), "%s", fake_host_breach(s->fh));
    fake_host_destroy(s->fh);
}

static void run(const struct mm_config *config)
{
    static void (*const rounds[])(struct helper *) = {touch_round, pin_round, plug_round, work_round};
    struct stress s = {0};
    struct owner *owners = calloc(NR_OWNERS, sizeof(*owners));
    struct helper helpers[ARRAY_LEN(rounds)];
    pthread_t owner[NR_OWNERS], helper[ARRAY_LEN(rounds)];
    start(&s, config);
    for (unsigned i = 0; i < NR_OWNERS; i++) {
        owners[i].s = &s;
        owners[i].number = i;
        owners[i].rng.state = i + 77;
        ck_assert_int_eq(pthread_create(&owner[i], NULL, owner_main, &owners[i]), 0);
    }
    for (unsigned i = 0; i < ARRAY_LEN(rounds); i++) {
        helpers[i] = (struct helper){.s = &s, .rng = {i + 4711}, .round = rounds[i]};
        ck_assert_int_eq(pthread_create(&helper[i], NULL, helper_main, &helpers[i]), 0);
    }
    for (unsigned i = 0; i < NR_OWNERS; i++)
        pthread_join(owner[i], NULL);
    __atomic_store_n(&s.stop, 1, __ATOMIC_RELAXED);
    for (unsigned i = 0; i < ARRAY_LEN(rounds); i++)
        pthread_join(helper[i], NULL);
    finish(&s);
    free(owners);
}

START_TEST(test_mm_threads_give_and_pin_with_zram_every_page_right)
{
    run(&(struct mm_config){.budget_bytes = 12 * MIB, .zram = {.limit_bytes = 4 * MIB}, .thp = true});
}
END_TEST

START_TEST(test_mm_threads_give_and_pin_with_room_every_page_right)
{
    run(&(struct mm_config){.budget_bytes = 48 * MIB, .zram = {.limit_bytes = 4 * MIB}, .thp = true});
}
END_TEST

START_TEST(test_mm_threads_give_and_pin_without_zram_every_page_right)
{
    run(&(struct mm_config){.budget_bytes = 12 * MIB, .readahead_pages = 1});
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("mm_give_threads");
    TCase *cases = tcase_create("stress");
    tcase_set_timeout(cases, 240);
    tcase_add_test(cases, test_mm_threads_give_and_pin_with_zram_every_page_right);
    tcase_add_test(cases, test_mm_threads_give_and_pin_with_room_every_page_right);
    tcase_add_test(cases, test_mm_threads_give_and_pin_without_zram_every_page_right);
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
