/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that a guest gives up or pins, on the kernel and without KVM: what is dropped is really gone from this process,
 * what comes back is zeros or the word asked for, and what is pinned stays under reclaim at the highest rate.
 */
#include <check.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mm/reclaim/host.h"
#include "tests/unit/model_rng.h"
#include "vmm/hostmem.h"
#include "vmm/memhost.h"
#include "vmm/thread.h"
#include "vmm/uffd.h"

#define MIB (UINT64_C(1) << 20)
#define VM_BYTES (64 * MIB)
#define VM_PAGES ((uint32_t)(VM_BYTES / PAGE_BYTES))
#define WORDS (PAGE_BYTES / 4)
#define WORD 0x5aa5c33cu

struct rig {
    struct memhost *mh;
    struct memhost_vm *vm;
    struct mm_vm *mm;
    struct mm_thread *thread;
    char *memory;
    atomic_int fatal_err;
};

static void on_fatal(void *ctx, int err, gpa_t gpa)
{
    struct rig *rig = ctx;
    (void)gpa;
    atomic_store(&rig->fatal_err, err);
    memhost_vm_release_waiters(rig->vm);
}

static void rig_open(struct rig *rig, int i, uint64_t budget_bytes)
{
    struct diag diag = {0};
    struct mm_region region = {.start = {0}, .bytes = VM_BYTES};
    struct memhost_config config = {
        .transport = i ? TRANSPORT_MOVE : TRANSPORT_COPY,
        .mm = {.budget_bytes = budget_bytes, .zram = {.limit_bytes = budget_bytes / 2}, .thp = i},
        .no_workers = true,
    };
    struct memhost_vm_config vm = {
        .regions = &region, .nr_regions = 1, .nr_fault_threads = 1, .on_fatal = on_fatal, .ctx = rig};
    memset(rig, 0, sizeof(*rig));
    ck_assert_msg(memhost_create(&config, &rig->mh, &diag) == 0, "%s", diag.text);
    ck_assert_msg(memhost_vm_add(rig->mh, &vm, &rig->vm, &diag) == 0, "%s", diag.text);
    rig->mm = memhost_vm_mm(rig->vm);
    rig->memory = memhost_vm_hva(rig->vm, (gpa_t){0}, VM_BYTES);
    ck_assert_int_eq(mm_thread_create(memhost_mm(rig->mh), &rig->thread), 0);
}

static void rig_close(struct rig *rig)
{
    ck_assert_int_eq(rig->fatal_err, 0);
    mm_thread_destroy(rig->thread);
    memhost_vm_remove(rig->vm);
    memhost_destroy(rig->mh);
}

static uint64_t resident_bytes(void)
{
    char text[128] = {0};
    unsigned long long size, resident = 0;
    int fd = open("/proc/self/statm", O_RDONLY);
    if (fd >= 0 && read(fd, text, sizeof(text) - 1) > 0)
        sscanf(text, "%llu %llu", &size, &resident);
    if (fd >= 0)
        close(fd);
    return resident * PAGE_BYTES;
}

static volatile uint32_t *words_of(const struct rig *rig, uint32_t page)
{
    return (volatile uint32_t *)(void *)(rig->memory + page * PAGE_BYTES);
}

static void fill(const struct rig *rig, uint32_t start, uint32_t nr, uint32_t seed)
{
    for (uint32_t page = start; page < start + nr; page++)
        for (unsigned i = 0; i < WORDS; i += 16)
            words_of(rig, page)[i] = seed + page * 31 + i;
}

static bool holds(const struct rig *rig, uint32_t page, uint32_t seed)
{
    for (unsigned i = 0; i < WORDS; i++)
        if (words_of(rig, page)[i] != (i % 16 ? 0 : seed + page * 31 + i))
            return false;
    return true;
}

static bool is_words(const struct rig *rig, uint32_t page, uint32_t word)
{
    for (unsigned i = 0; i < WORDS; i++)
        if (words_of(rig, page)[i] != word)
            return false;
    return true;
}

static void drop(const struct rig *rig, uint32_t start, uint32_t nr, enum mm_drop_how how, uint32_t word)
{
    uint64_t dropped;
    ck_assert_int_eq(mm_drop(rig->thread, rig->mm, gpa_of(start), nr * PAGE_BYTES, how, word, &dropped), 0);
    ck_assert_uint_eq(dropped, nr);
}

/* The thread that served the last fault counts it after the guest has its page: asking for that page waits for it. */
static unsigned nr_huge(const struct rig *rig)
{
    struct mm_vm_stat stat;
    struct mm_page_info info;
    ck_assert_int_eq(mm_page_info(rig->mm, gpa_of(VM_PAGES - 1), &info), 0);
    mm_vm_stat(rig->mm, &stat);
    return (unsigned)stat.nr_huge_blocks;
}

/* Guest memory that the kernel has mapped as huge pages. */
static uint64_t kernel_huge_bytes(const struct rig *rig)
{
    char line[256];
    unsigned long long start, end, kb, bytes = 0;
    bool ours = false;
    FILE *file = fopen("/proc/self/smaps", "re");
    ck_assert_ptr_nonnull(file);
    while (fgets(line, sizeof(line), file)) {
        if (sscanf(line, "%llx-%llx ", &start, &end) == 2)
            ours = start < (uintptr_t)rig->memory + VM_BYTES && end > (uintptr_t)rig->memory;
        else if (ours && sscanf(line, "AnonHugePages: %llu kB", &kb) == 1)
            bytes += kb << 10;
    }
    fclose(file);
    return bytes;
}

START_TEST(test_give_dropped_memory_leaves_the_process_and_is_huge_again)
{
    struct rig rig;
    uint64_t first_huge_bytes = 0;
    rig_open(&rig, _i, 2 * VM_BYTES);
    for (unsigned round = 0; round < 3; round++) {
        fill(&rig, 0, VM_PAGES, round);
        uint64_t full = resident_bytes();
        bool huge = _i && (round == 0 || !memhost_mm(rig.mh)->ops->keeps_tables);
        ck_assert_uint_eq(nr_huge(&rig), huge ? VM_BYTES / BLOCK_BYTES : 0);
        if (round == 0)
            first_huge_bytes = kernel_huge_bytes(&rig);
        if (huge)
            ck_assert_uint_ge(kernel_huge_bytes(&rig), first_huge_bytes / 4 * 3);
        /* whole, or page by page from a shuffled beginning */
        if (round < 2)
            drop(&rig, 0, VM_PAGES, MM_DROP_FREE, 0);
        for (uint32_t page = 0; round == 2 && page < VM_PAGES; page++)
            drop(&rig, (page * 37) % VM_PAGES, 1, MM_DROP_BALLOON, 0);
        ck_assert_uint_ge(full - resident_bytes(), VM_BYTES / 100 * 98);
        for (uint32_t page = 3; page < VM_PAGES; page += 100)
            ck_assert(is_words(&rig, page, 0));
    }
    rig_close(&rig);
}
END_TEST

START_TEST(test_give_pages_come_back_with_the_word)
{
    struct rig rig;
    rig_open(&rig, _i, 2 * VM_BYTES);
    fill(&rig, 0, VM_PAGES, 1);
    drop(&rig, 0, VM_PAGES / 2, MM_DROP_FREE, WORD);
    drop(&rig, VM_PAGES / 2 + 7, 700, MM_DROP_BALLOON, WORD);
    for (uint32_t page = 0; page < VM_PAGES; page++)
        if (page < VM_PAGES / 2 || (page >= VM_PAGES / 2 + 7 && page < VM_PAGES / 2 + 707))
            ck_assert_msg(is_words(&rig, page, WORD), "page %u", page);
        else
            ck_assert_msg(holds(&rig, page, 1), "page %u", page);
    rig_close(&rig);
}
END_TEST

/* ---- pinned under reclaim ---- */

static void *reclaim_run(void *arg)
{
    struct rig *rig = arg;
    struct mm_thread *thread = memhost_lock_thread(rig->mh);
    for (unsigned i = 0; i < 60; i++)
        mm_reclaim(thread, rig->mm, VM_PAGES, i % 2);
    memhost_unlock_thread(rig->mh);
    return NULL;
}

START_TEST(test_give_pinned_pages_stay_under_reclaim)
{
    struct rig rig;
    struct mm_page_info info;
    pthread_t thread;
    rig_open(&rig, _i, 2 * VM_BYTES);
    fill(&rig, 0, VM_PAGES, 1);
    ck_assert_int_eq(mm_pin(rig.thread, rig.mm, gpa_of(1000), 3000 * PAGE_BYTES), 0);
    ck_assert_int_eq(thread_start(&thread, "reclaim", THREAD_ANY_CPU, reclaim_run, &rig), 0);
    /* a device reads into them meanwhile: the call fails where a page is not there */
    int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    for (unsigned i = 0; i < 200; i++)
        for (uint32_t page = 1000; page < 4000; page += 500) {
            ck_assert_int_eq(read(zero, rig.memory + page * PAGE_BYTES, 64), 64);
            ck_assert_int_eq(mm_page_info(rig.mm, gpa_of(page), &info), 0);
            ck_assert_str_eq(info.state, "resident");
        }
    close(zero);
    pthread_join(thread, NULL);
    for (uint32_t page = 1000; page < 4000; page++) {
        ck_assert_int_eq(mm_page_info(rig.mm, gpa_of(page), &info), 0);
        ck_assert_str_eq(info.state, "resident");
    }
    mm_unpin(rig.mm, gpa_of(1000), 3000 * PAGE_BYTES);
    for (uint32_t page = 0; page < VM_PAGES; page++)
        if (page < 1000 || page >= 4000 || page % 500)
            ck_assert_msg(holds(&rig, page, 1), "page %u", page);
    rig_close(&rig);
}
END_TEST

/* ---- a guest that gives up and uses while it is reclaimed ---- */

START_TEST(test_give_and_use_under_reclaim_every_page_right)
{
    enum { RUN = 64, NR_RUNS = VM_BYTES / PAGE_BYTES / RUN };
    struct rig rig;
    struct rng rng = {(uint64_t)_i + 5};
    uint32_t seed[NR_RUNS] = {0}; /* 0: given up */
    pthread_t thread;
    rig_open(&rig, _i, VM_BYTES / 2);
    ck_assert_int_eq(thread_start(&thread, "reclaim", THREAD_ANY_CPU, reclaim_run, &rig), 0);
    for (unsigned step = 1; step <= 4000; step++) {
        uint32_t run = rng_below(&rng, NR_RUNS), start = run * RUN;
        uint64_t dropped;
        for (uint32_t page = start; page < start + RUN; page += 9)
            ck_assert_msg(seed[run] ? holds(&rig, page, seed[run]) : is_words(&rig, page, 0), "page %u", page);
        if (seed[run] && rng_below(&rng, 2)) {
            bool balloon = rng_below(&rng, 2);
            ck_assert_int_eq(mm_drop(rig.thread, rig.mm, gpa_of(start), RUN * PAGE_BYTES,
                                     balloon ? MM_DROP_BALLOON : MM_DROP_FREE, 0, &dropped),
                             0);
            ck_assert_uint_eq(dropped, RUN);
            if (balloon && rng_below(&rng, 2))
                ck_assert_int_eq(mm_balloon_return(rig.mm, gpa_of(start), RUN * PAGE_BYTES), 0);
            seed[run] = 0;
        } else if (!seed[run]) {
            seed[run] = step;
            fill(&rig, start, RUN, step);
        }
    }
    pthread_join(thread, NULL);
    for (uint32_t page = 0; page < VM_PAGES; page++)
        ck_assert_msg(seed[page / RUN] ? holds(&rig, page, seed[page / RUN]) : is_words(&rig, page, 0), "page %u",
                      page);
    rig_close(&rig);
}
END_TEST

int main(void)
{
    struct diag diag = {0};
    uint64_t features = 0;
    bool move = uffd_probe(&features, &diag) || hostmem_can_move(features);
    if (!move)
        puts("SKIP: this kernel has no UFFDIO_MOVE: the moving transport was not tested");
    int end_i = move ? 2 : 1;
    Suite *suite = suite_create("give");
    TCase *tests = tcase_create("give");
    tcase_set_timeout(tests, 120);
    tcase_add_loop_test(tests, test_give_dropped_memory_leaves_the_process_and_is_huge_again, 0, end_i);
    tcase_add_loop_test(tests, test_give_pages_come_back_with_the_word, 0, end_i);
    tcase_add_loop_test(tests, test_give_pinned_pages_stay_under_reclaim, 0, end_i);
    tcase_add_loop_test(tests, test_give_and_use_under_reclaim_every_page_right, 0, end_i);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
