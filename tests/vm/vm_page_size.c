/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks in single pages that become huge pages again, on the kernel and without KVM: AnonHugePages of /proc/self/smaps
 * says whether they are, and a thread that writes to them all the time that nothing is lost.
 */
#include <check.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mm/policy/page_size.h"
#include "vmm/hostmem.h"
#include "vmm/memhost.h"
#include "vmm/uffd.h"

#define MIB (UINT64_C(1) << 20)
#define VM_BYTES (64 * MIB)
#define VM_PAGES ((uint32_t)(VM_BYTES / PAGE_BYTES))
#define VM_BLOCKS (VM_BYTES / BLOCK_BYTES)
#define WORDS (PAGE_BYTES / 8)

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

static void rig_open(struct rig *rig, uint64_t budget_bytes)
{
    struct diag diag = {0};
    struct mm_region region = {.start = {0}, .bytes = VM_BYTES};
    struct memhost_config config = {
        .transport = TRANSPORT_MOVE,
        .mm = {.budget_bytes = budget_bytes, .zram = {.limit_bytes = VM_BYTES}, .thp = true, .collapse_pct = 100},
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
    const char *why = NULL;
    ck_assert_int_eq(rig->fatal_err, 0);
    mm_thread_destroy(rig->thread);
    ck_assert_msg(mm_check(memhost_mm(rig->mh), &why), "%s", why);
    memhost_vm_remove(rig->vm);
    memhost_destroy(rig->mh);
}

static volatile uint64_t *words_of(const struct rig *rig, uint32_t page)
{
    return (volatile uint64_t *)(void *)(rig->memory + page * PAGE_BYTES);
}

/* First and last word of every page: @round and the page's number. */
static void write_page(const struct rig *rig, uint32_t page, uint64_t round)
{
    words_of(rig, page)[0] = words_of(rig, page)[WORDS - 1] = round << 32 | page;
}

static bool holds(const struct rig *rig, uint32_t page, uint64_t round)
{
    return words_of(rig, page)[0] == (round << 32 | page) && words_of(rig, page)[WORDS - 1] == (round << 32 | page);
}

/* Every block in the guest, in single pages: parts of huge pages of the kernel's that broke, or pages of @zram's. */
static void fill_single(const struct rig *rig, bool zram)
{
    uint64_t dropped;
    for (uint32_t page = 0; page < VM_PAGES; page++)
        write_page(rig, page, 0);
    if (zram)
        ck_assert_uint_ge(mm_reclaim(rig->thread, rig->mm, VM_PAGES, true), VM_PAGES);
    for (uint32_t page = 0; page < VM_PAGES; page++)
        ck_assert(holds(rig, page, 0));
    for (uint32_t page = 0; page < VM_PAGES; page += BLOCK_PAGES) {
        ck_assert(!mm_drop(rig->thread, rig->mm, gpa_of(page), PAGE_BYTES, MM_DROP_FREE, 0, &dropped));
        write_page(rig, page, 0);
    }
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

static uint64_t event_of(const struct rig *rig, enum vm_event event)
{
    struct mm_host_stat stat;
    mm_host_stat(memhost_mm(rig->mh), &stat);
    return stat.event[event];
}

/* Passes of the scanner, without its waits. */
static void scan(const struct rig *rig, unsigned passes)
{
    uint64_t end = event_of(rig, EV_khugepaged_full_scans) + passes;
    while (event_of(rig, EV_khugepaged_full_scans) < end) {
        memhost_mm(rig->mh)->collapse.due_ns = 0;
        if (!collapse_scan(rig->thread))
            return;
    }
}

START_TEST(test_page_size_rebuilt_blocks_are_huge_pages_of_the_kernel)
{
    struct rig rig;
    struct mm_vm_stat vm;
    rig_open(&rig, 2 * VM_BYTES);
    bool can = !memhost_mm(rig.mh)->ops->keeps_tables;
    fill_single(&rig, _i);
    uint64_t huge_bytes = kernel_huge_bytes(&rig);
    ck_assert_uint_le(huge_bytes, VM_BYTES / 16);
    scan(&rig, 3); /* once more than needed: a fault thread may still have the lock of the last block */
    mm_vm_stat(rig.mm, &vm);
    uint64_t rebuilt = event_of(&rig, EV_khugepaged_pages_collapsed);
    ck_assert_uint_eq(event_of(&rig, EV_thp_collapse_keeps_tables), !can);
    ck_assert_uint_ge(rebuilt, can ? VM_BLOCKS / 16 * 15 : 0);
    if (can) {
        ck_assert_uint_eq(vm.nr_huge_blocks, VM_BLOCKS);
        /* the kernel is asked for huge pages and may be short of them */
        ck_assert_uint_ge(kernel_huge_bytes(&rig), huge_bytes + rebuilt * BLOCK_BYTES / 4 * 3);
    }
    uint64_t faults = event_of(&rig, EV_pgfault);
    for (uint32_t page = 0; page < VM_PAGES; page++)
        ck_assert(holds(&rig, page, 0));
    ck_assert_uint_eq(event_of(&rig, EV_pgfault), faults);
    if (can)
        printf("%llu blocks rebuilt, locked for %llu us each, %llu at most\n", (unsigned long long)rebuilt,
               (unsigned long long)(event_of(&rig, EV_thp_collapse_held_ns) / rebuilt / 1000),
               (unsigned long long)(memhost_mm(rig.mh)->collapse.longest_held_ns / 1000));
    rig_close(&rig);
}
END_TEST

/* ---- with a full budget ---- */

#define FULL_BYTES (48 * MIB)
#define HOT_PAGES ((uint32_t)(32 * MIB / PAGE_BYTES))

/* Blocks of the first HOT_PAGES that are one frame. */
static unsigned nr_hot_huge(const struct rig *rig)
{
    struct mm_page_info info;
    unsigned nr = 0;
    for (uint32_t page = 0; page < HOT_PAGES; page += BLOCK_PAGES)
        nr += !mm_page_info(rig->mm, gpa_of(page), &info) && info.huge;
    return nr;
}

/* Two thirds of the budget are hot, in single pages; the rest of the VM, which does not fit beside them, is not touched again. */
START_TEST(test_page_size_hot_blocks_are_rebuilt_in_a_full_budget_of_cold_pages)
{
    struct rig rig;
    uint64_t dropped;
    rig_open(&rig, FULL_BYTES);
    bool can = !memhost_mm(rig.mh)->ops->keeps_tables;
    for (uint32_t page = HOT_PAGES; page < VM_PAGES; page++)
        write_page(&rig, page, 0);
    for (uint32_t page = 0; page < HOT_PAGES; page++)
        write_page(&rig, page, 0);
    for (uint32_t page = 0; page < HOT_PAGES; page += BLOCK_PAGES) {
        ck_assert(!mm_drop(rig.thread, rig.mm, gpa_of(page), PAGE_BYTES, MM_DROP_FREE, 0, &dropped));
        write_page(&rig, page, 0);
    }
    ck_assert_uint_gt(event_of(&rig, EV_zswpout), 0);
    ck_assert_uint_eq(nr_hot_huge(&rig), 0);
    for (unsigned i = 0; i < 3; i++)
        for (uint32_t page = 0; page < HOT_PAGES; page++)
            ck_assert(holds(&rig, page, 0));
    uint64_t major = event_of(&rig, EV_pgmajfault);
    for (unsigned i = 0; can && i < 60 && nr_hot_huge(&rig) < HOT_PAGES / BLOCK_PAGES; i++) {
        mm_kswapd(rig.thread, 0);
        scan(&rig, 1);
        for (uint32_t page = 0; page < HOT_PAGES; page++)
            ck_assert(holds(&rig, page, 0));
    }
    if (can) {
        ck_assert_uint_ge(nr_hot_huge(&rig) * 10, HOT_PAGES / BLOCK_PAGES * 9);
        ck_assert_uint_gt(event_of(&rig, EV_pgsteal_khugepaged), 0);
        printf("full budget: %u of %u hot blocks rebuilt, %llu cold pages evicted for it, %llu major faults\n",
               nr_hot_huge(&rig), HOT_PAGES / BLOCK_PAGES, (unsigned long long)event_of(&rig, EV_pgsteal_khugepaged),
               (unsigned long long)(event_of(&rig, EV_pgmajfault) - major));
    }
    for (uint32_t page = 0; page < VM_PAGES; page++)
        ck_assert(holds(&rig, page, 0));
    rig_close(&rig);
}
END_TEST

/* ---- writers ---- */

struct writer {
    const struct rig *rig;
    atomic_bool stop, wrong;
    uint64_t round; /* the last one, complete */
};

static void *writer_main(void *arg)
{
    struct writer *w = arg;
    for (uint64_t round = 1; !atomic_load(&w->stop); round++) {
        for (uint32_t page = 0; page < VM_PAGES; page++) {
            if (!holds(w->rig, page, round - 1))
                atomic_store(&w->wrong, true);
            write_page(w->rig, page, round);
        }
        w->round = round;
    }
    return NULL;
}

START_TEST(test_page_size_writer_of_blocks_that_are_rebuilt_loses_nothing)
{
    struct rig rig;
    struct writer writer = {.rig = &rig};
    pthread_t thread;
    uint64_t dropped;
    rig_open(&rig, 2 * VM_BYTES);
    fill_single(&rig, false);
    ck_assert(!pthread_create(&thread, NULL, writer_main, &writer));
    for (unsigned round = 0; round < 20; round++) {
        scan(&rig, 2);
        mm_reclaim(rig.thread, rig.mm, VM_PAGES / 16, round % 2);
    }
    atomic_store(&writer.stop, true);
    pthread_join(thread, NULL);
    ck_assert(!writer.wrong);
    for (uint32_t page = 0; page < VM_PAGES; page++)
        ck_assert(holds(&rig, page, writer.round));
    if (!memhost_mm(rig.mh)->ops->keeps_tables)
        ck_assert_uint_gt(event_of(&rig, EV_khugepaged_pages_collapsed), VM_BLOCKS / 2);
    ck_assert(!mm_drop(rig.thread, rig.mm, (gpa_t){0}, VM_BYTES, MM_DROP_FREE, 0, &dropped));
    rig_close(&rig);
}
END_TEST

int main(void)
{
    struct diag diag = {0};
    uint64_t features = 0;
    if (uffd_probe(&features, &diag) == 0 && !hostmem_can_move(features)) {
        puts("SKIP: this kernel has no UFFDIO_MOVE: no huge page can be placed");
        return EXIT_SUCCESS;
    }
    Suite *suite = suite_create("page_size");
    TCase *tests = tcase_create("kernel");
    tcase_set_timeout(tests, 120);
    tcase_add_loop_test(tests, test_page_size_rebuilt_blocks_are_huge_pages_of_the_kernel, 0, 2);
    tcase_add_test(tests, test_page_size_hot_blocks_are_rebuilt_in_a_full_budget_of_cold_pages);
    tcase_add_test(tests, test_page_size_writer_of_blocks_that_are_rebuilt_loses_nothing);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
