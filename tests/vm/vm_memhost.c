/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A whole memory host, without KVM: threads of the test are the vCPUs of VMs whose memory is overcommitted. Each page
 * holds a pattern made from its VM, its number and a generation; every page is verified in full, again and again, while
 * kswapd, reclaim by hand and swapoff work against it. A sampler watches the process's resident memory.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "mm/reclaim/host.h"
#include "tests/fake/fail_alloc.h"
#include "tests/unit/model_rng.h"
#include "vmm/hostmem.h"
#include "vmm/memhost.h"
#include "vmm/swapfile.h"
#include "vmm/thread.h"
#include "vmm/uffd.h"

#define BUDGET_BYTES (UINT64_C(16) << 20)
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define NR_OPS 2000u
#define CHECK_RESIDENT false /* shadow memory counts as resident */
#else
#define NR_OPS 10000u
#define CHECK_RESIDENT true
#endif
/* The kernel orders a fault thread's work before the vCPU's next step; the thread sanitizer cannot see that. */
#ifdef __SANITIZE_THREAD__
#define CHECK_BESIDE_FAULT_THREADS false
#else
#define CHECK_BESIDE_FAULT_THREADS true
#endif

/* What the process may have beside the budget. */
#define OVERHEAD_BYTES (UINT64_C(24) << 20)
#define OVERHEAD_VM_BYTES (UINT64_C(1) << 20)
#define WORDS (PAGE_BYTES / 8)
#define MAX_VMS 4
#define MAX_THREADS 2

struct test;

struct vcpu {
    struct test *test;
    unsigned vm, index;
    pthread_t thread;
    uint64_t nr_bad;
};

struct vm {
    struct memhost_vm *mem;
    char *memory;
    uint32_t nr_pages;
    uint32_t *generation; /* by page; each page has one vCPU that uses it */
    struct vcpu vcpus[MAX_THREADS];
    atomic_int fatal_err;
    atomic_bool stopped;
};

struct test {
    struct memhost *mh;
    unsigned nr_vms, nr_threads;
    struct vm vms[MAX_VMS];
    atomic_bool done;
    atomic_uint nr_running;
    pthread_t sampler;
    atomic_ullong peak_bytes;
};

/* --- patterns --- */

/* Word @i of page @page of VM @vm. A quarter each: same-filled, compressible, random, zeros but for the ends. */
static uint64_t word_at(unsigned vm, uint32_t page, uint32_t generation, unsigned i)
{
    uint64_t seed = ((uint64_t)vm << 56 | (uint64_t)generation << 32 | page) * UINT64_C(0x9e3779b97f4a7c15);
    switch (page % 4) {
    case 0:
        return seed;
    case 1:
        return i % 4 ? seed & 0xff : seed + i;
    case 2:
        seed += i * UINT64_C(0xbf58476d1ce4e5b9);
        seed = (seed ^ seed >> 30) * UINT64_C(0x94d049bb133111eb);
        return seed ^ seed >> 31;
    default:
        return i == 0 || i == WORDS - 1 ? seed : 0;
    }
}

static volatile uint64_t *page_words(const struct vm *vm, uint32_t page)
{
    return (volatile uint64_t *)(void *)(vm->memory + page * PAGE_BYTES);
}

static void page_fill(struct test *test, unsigned v, uint32_t page)
{
    struct vm *vm = &test->vms[v];
    volatile uint64_t *words = page_words(vm, page);
    uint32_t generation = ++vm->generation[page];
    for (unsigned i = 0; i < WORDS; i++)
        words[i] = word_at(v, page, generation, i);
}

/* Generation 0 is a page never written: zeros. */
static bool page_is_right(struct test *test, unsigned v, uint32_t page)
{
    struct vm *vm = &test->vms[v];
    volatile uint64_t *words = page_words(vm, page);
    uint32_t generation = vm->generation[page];
    for (unsigned i = 0; i < WORDS; i++)
        if (words[i] != (generation ? word_at(v, page, generation, i) : 0))
            return false;
    return true;
}

/* --- threads --- */

static void verify_own(struct vcpu *vcpu)
{
    struct test *test = vcpu->test;
    for (uint32_t page = vcpu->index; page < test->vms[vcpu->vm].nr_pages; page += test->nr_threads)
        vcpu->nr_bad += !page_is_right(test, vcpu->vm, page);
}

/* Fills its pages, uses them at random with a hot eighth, verifies all. */
static void *vcpu_run(void *arg)
{
    struct vcpu *vcpu = arg;
    struct test *test = vcpu->test;
    struct vm *vm = &test->vms[vcpu->vm];
    struct rng rng = {.state = vcpu->vm * 16 + vcpu->index + 1};
    uint32_t nr_own = vm->nr_pages / test->nr_threads;
    for (uint32_t i = 0; i < nr_own; i++)
        if (i % 16 != 5) /* some are never touched before the end */
            page_fill(test, vcpu->vm, i * test->nr_threads + vcpu->index);
    for (unsigned op = 0; op < NR_OPS; op++) {
        uint32_t own = rng_below(&rng, rng_below(&rng, 4) ? nr_own / 8 : nr_own);
        uint32_t page = own * test->nr_threads + vcpu->index;
        vcpu->nr_bad += !page_is_right(test, vcpu->vm, page);
        if (rng_below(&rng, 3) == 0)
            page_fill(test, vcpu->vm, page);
    }
    verify_own(vcpu);
    atomic_fetch_sub(&test->nr_running, 1);
    return NULL;
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

static void *sampler_run(void *arg)
{
    struct test *test = arg;
    while (!atomic_load(&test->done)) {
        uint64_t now = resident_bytes();
        if (now > atomic_load(&test->peak_bytes))
            atomic_store(&test->peak_bytes, now);
        nanosleep(&(struct timespec){.tv_nsec = 500000}, NULL);
    }
    return NULL;
}

/* --- setting up --- */

static void on_fatal(void *ctx, int err, gpa_t gpa)
{
    struct vm *vm = ctx;
    (void)gpa;
    atomic_store(&vm->fatal_err, err);
    atomic_store(&vm->stopped, true);
    memhost_vm_release_waiters(vm->mem);
}

static struct memhost_config config_of(enum transport transport)
{
    return (struct memhost_config){
        .transport = transport,
        .mm = {.budget_bytes = BUDGET_BYTES,
               .zram = {.algo = ZRAM_LZ4, .limit_bytes = BUDGET_BYTES / 4},
               .thp = transport == TRANSPORT_MOVE},
    };
}

static void add_swap(struct test *test, const char *name, uint64_t bytes)
{
    struct diag diag = {0};
    char path[64];
    snprintf(path, sizeof(path), "/tmp/vm_memhost.%d.%s", (int)getpid(), name);
    ck_assert_msg(!swapfile_add(mm_swap_set(memhost_mm(test->mh)), path, bytes, -1, 0, &diag), "%s", diag.text);
}

static void add_vm(struct test *test, uint64_t bytes)
{
    struct diag diag = {0};
    struct vm *vm = &test->vms[test->nr_vms];
    int cpus[MAX_THREADS];
    for (unsigned i = 0; i < MAX_THREADS; i++)
        cpus[i] = (int)(i % (unsigned)sysconf(_SC_NPROCESSORS_ONLN));
    struct mm_region regions[2] = {{.start = {0}, .bytes = bytes / 2},
                                   {.start = {UINT64_C(1) << 32}, .bytes = bytes / 2}};
    struct memhost_vm_config config = {
        .regions = regions,
        .nr_regions = 2,
        .nr_fault_threads = test->nr_threads,
        .fault_cpus = cpus,
        .on_fatal = on_fatal,
        .ctx = vm,
    };
    ck_assert_msg(memhost_vm_add(test->mh, &config, &vm->mem, &diag) == 0, "%s", diag.text);
    vm->memory = memhost_vm_hva(vm->mem, (gpa_t){0}, bytes / 2);
    ck_assert_ptr_nonnull(vm->memory);
    vm->nr_pages = (uint32_t)(bytes / PAGE_BYTES);
    vm->generation = calloc(vm->nr_pages, sizeof(uint32_t));
    test->nr_vms++;
}

static void start(struct test *test, const struct memhost_config *config, unsigned nr_threads)
{
    struct diag diag = {0};
    memset(test, 0, sizeof(*test));
    test->nr_threads = nr_threads;
    ck_assert_msg(memhost_create(config, &test->mh, &diag) == 0, "%s", diag.text);
    ck_assert_int_eq(thread_start(&test->sampler, "sampler", THREAD_ANY_CPU, sampler_run, test), 0);
}

static void run_vcpus(struct test *test)
{
    atomic_store(&test->nr_running, test->nr_vms * test->nr_threads);
    for (unsigned v = 0; v < test->nr_vms; v++)
        for (unsigned i = 0; i < test->nr_threads; i++) {
            struct vcpu *vcpu = &test->vms[v].vcpus[i];
            *vcpu = (struct vcpu){.test = test, .vm = v, .index = i};
            int cpu = (int)(i % (unsigned)sysconf(_SC_NPROCESSORS_ONLN));
            ck_assert_int_eq(thread_start(&vcpu->thread, "vcpu", cpu, vcpu_run, vcpu), 0);
        }
}

static void join_vcpus(struct test *test)
{
    for (unsigned v = 0; v < test->nr_vms; v++)
        for (unsigned i = 0; i < test->nr_threads; i++) {
            pthread_join(test->vms[v].vcpus[i].thread, NULL);
            ck_assert_int_eq(test->vms[v].fatal_err, 0);
            ck_assert_uint_eq(test->vms[v].vcpus[i].nr_bad, 0);
        }
}

static void remove_vm(struct vm *vm)
{
    memhost_vm_remove(vm->mem);
    free(vm->generation);
}

static void end(struct test *test)
{
    atomic_store(&test->done, true);
    pthread_join(test->sampler, NULL);
    uint64_t limit = BUDGET_BYTES + OVERHEAD_BYTES + test->nr_vms * OVERHEAD_VM_BYTES;
    if (CHECK_RESIDENT)
        ck_assert_uint_le(test->peak_bytes, limit);
    for (unsigned v = 0; v < test->nr_vms; v++)
        remove_vm(&test->vms[v]);
    memhost_destroy(test->mh);
}

/* --- tests --- */

static const struct {
    enum transport transport;
    unsigned nr_vms, nr_threads, ratio;
} cases[] = {
    {TRANSPORT_MOVE, 1, 1, 1}, {TRANSPORT_MOVE, 1, 2, 2}, {TRANSPORT_MOVE, 1, 2, 8}, {TRANSPORT_MOVE, 4, 1, 4},
    {TRANSPORT_MOVE, 4, 2, 8}, {TRANSPORT_COPY, 1, 1, 1}, {TRANSPORT_COPY, 1, 2, 2}, {TRANSPORT_COPY, 1, 2, 8},
    {TRANSPORT_COPY, 4, 1, 4}, {TRANSPORT_COPY, 4, 2, 8},
};

/* Blocks of 2 MiB in two regions each. */
static uint64_t vm_bytes(unsigned ratio, unsigned nr_vms)
{
    uint64_t bytes = BUDGET_BYTES * ratio / nr_vms;
    return MAX_OF(bytes - bytes % (2 * BLOCK_BYTES), 2 * BLOCK_BYTES);
}

START_TEST(test_memhost_overcommit_keeps_every_page)
{
    struct test test;
    struct memhost_config config = config_of(cases[_i].transport);
    start(&test, &config, cases[_i].nr_threads);
    ck_assert_str_eq(memhost_transport(test.mh), cases[_i].transport == TRANSPORT_MOVE ? "move" : "copy");
    add_swap(&test, "swap", BUDGET_BYTES * 10);
    for (unsigned v = 0; v < cases[_i].nr_vms; v++)
        add_vm(&test, vm_bytes(cases[_i].ratio, cases[_i].nr_vms));
    run_vcpus(&test);
    join_vcpus(&test);
    end(&test);
}
END_TEST

static enum transport transport_of(int i)
{
    return i == 0 ? TRANSPORT_COPY : TRANSPORT_MOVE;
}

/* Takes pages away as fast as it can: to standby and through to the stores. */
START_TEST(test_memhost_reclaim_at_the_highest_rate_keeps_every_page)
{
    struct test test;
    struct memhost_config config = config_of(transport_of(_i));
    start(&test, &config, 2);
    add_swap(&test, "swap", BUDGET_BYTES * 6);
    add_vm(&test, vm_bytes(2, 1));
    add_vm(&test, vm_bytes(1, 1));
    run_vcpus(&test);
    struct rng rng = {.state = 5};
    uint64_t nr_freed = 0;
    while (atomic_load(&test.nr_running) > 0) {
        struct vm *vm = &test.vms[rng_below(&rng, 2)];
        struct mm_thread *thread = memhost_lock_thread(test.mh);
        nr_freed += mm_reclaim(thread, memhost_vm_mm(vm->mem), 1 + rng_below(&rng, 600), rng_below(&rng, 2));
        memhost_unlock_thread(test.mh);
    }
    ck_assert_uint_gt(nr_freed, 0);
    join_vcpus(&test);
    end(&test);
}
END_TEST

START_TEST(test_memhost_swapoff_under_load_keeps_every_page)
{
    struct test test;
    struct memhost_config config = config_of(transport_of(_i));
    start(&test, &config, 2);
    char first[64];
    snprintf(first, sizeof(first), "/tmp/vm_memhost.%d.%s", (int)getpid(), "first");
    add_swap(&test, "second", BUDGET_BYTES * 6);
    add_vm(&test, vm_bytes(3, 1));
    run_vcpus(&test);
    unsigned nr_off = 0;
    for (unsigned round = 0; atomic_load(&test.nr_running) > 0; round++) {
        struct diag diag = {0};
        ck_assert_msg(!swapfile_add(mm_swap_set(memhost_mm(test.mh)), first, BUDGET_BYTES * 4, 10, 0, &diag), "%s",
                      diag.text);
        for (unsigned i = 0; i < 20 && atomic_load(&test.nr_running) > 0; i++)
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        int err = mm_swapoff(memhost_lock_thread(test.mh), first);
        memhost_unlock_thread(test.mh);
        ck_assert_int_eq(err, 0);
        nr_off++;
    }
    ck_assert_uint_gt(nr_off, 0);
    join_vcpus(&test);
    end(&test);
}
END_TEST

/* Fills with what no store takes, until told to stop. */
static void *glutton_run(void *arg)
{
    struct vcpu *vcpu = arg;
    struct vm *vm = &vcpu->test->vms[vcpu->vm];
    for (uint32_t page = 2; page < vm->nr_pages && !atomic_load(&vm->stopped); page += 4)
        page_fill(vcpu->test, vcpu->vm, page);
    return NULL;
}

START_TEST(test_memhost_out_of_memory_stops_one_vm_and_the_other_goes_on)
{
    struct test test;
    struct memhost_config config = config_of(transport_of(_i));
    start(&test, &config, 1);
    add_vm(&test, 2 * BLOCK_BYTES);
    add_vm(&test, BUDGET_BYTES * 8);
    for (uint32_t page = 0; page < 500; page++)
        page_fill(&test, 0, page);
    struct vcpu glutton = {.test = &test, .vm = 1};
    ck_assert_int_eq(thread_start(&glutton.thread, "glutton", THREAD_ANY_CPU, glutton_run, &glutton), 0);
    pthread_join(glutton.thread, NULL);
    ck_assert_int_eq(test.vms[1].fatal_err, -ENOMEM);
    remove_vm(&test.vms[1]);
    test.nr_vms = 1;
    for (uint32_t page = 0; page < test.vms[0].nr_pages; page++) {
        ck_assert(page_is_right(&test, 0, page));
        page_fill(&test, 0, page);
    }
    ck_assert_int_eq(test.vms[0].fatal_err, 0);
    end(&test);
}
END_TEST

START_TEST(test_memhost_after_the_vms_are_gone_everything_is_free)
{
    struct test test;
    struct memhost_config config = config_of(transport_of(_i));
    config.no_workers = true;
    start(&test, &config, 1);
    add_swap(&test, "swap", BUDGET_BYTES * 4);
    const char *why = "";
    for (unsigned round = 0; round < 3; round++) {
        add_vm(&test, vm_bytes(2, 1));
        run_vcpus(&test);
        join_vcpus(&test);
        if (CHECK_BESIDE_FAULT_THREADS)
            ck_assert_msg(mm_check(memhost_mm(test.mh), &why), "%s", why);
        remove_vm(&test.vms[0]);
        test.nr_vms = 0;
        ck_assert_msg(mm_check(memhost_mm(test.mh), &why), "%s", why);
    }
    struct mm_host_stat stat;
    mm_host_stat(memhost_mm(test.mh), &stat);
    ck_assert_uint_eq(stat.resident_bytes, 0);
    ck_assert_uint_eq(stat.standby_bytes, 0);
    ck_assert_uint_eq(stat.zram_used_bytes, 0);
    end(&test);
}
END_TEST

/* Pages [first, end), of the first region; they are expected to be zeros from now on. */
static void forget(struct test *test, uint32_t first, uint32_t end)
{
    struct vm *vm = &test->vms[0];
    memhost_vm_forget(vm->mem, (gpa_t){first * PAGE_BYTES}, (end - first) * PAGE_BYTES);
    memset(vm->generation + first, 0, (end - first) * sizeof(*vm->generation));
}

static void check_pages(struct test *test)
{
    for (uint32_t page = 0; page < test->vms[0].nr_pages; page++)
        ck_assert_msg(page_is_right(test, 0, page), "page %u", page);
}

/* Resident or in a store; whole blocks, and parts of them. */
START_TEST(test_memhost_forgotten_pages_are_zeros_and_take_no_memory)
{
    struct test test;
    struct memhost_config config = config_of(transport_of(_i));
    struct mm_vm_stat stat;
    start(&test, &config, 1);
    add_swap(&test, "swap", BUDGET_BYTES * 4);
    add_vm(&test, 2 * BUDGET_BYTES);
    run_vcpus(&test);
    join_vcpus(&test);
    forget(&test, 100, 3 * BLOCK_PAGES + 5);
    mm_vm_stat(memhost_vm_mm(test.vms[0].mem), &stat);
    ck_assert_uint_ge(stat.untouched_bytes, (3 * BLOCK_PAGES + 5 - 100) * PAGE_BYTES);
    check_pages(&test);
    end(&test);
}
END_TEST

/* Takes the page tables that can be had without an allocation, so that the next one needs one. */
static unsigned take_tables(struct mm_host *mm, void *tables[], unsigned max)
{
    unsigned nr = 0;
    fail_alloc_at(1);
    while (nr < max && (tables[nr] = slab_alloc(&mm->tables)))
        nr++;
    fail_alloc_at(-1);
    ck_assert_uint_lt(nr, max);
    return nr;
}

static bool page_is_all(const struct vm *vm, uint32_t page, uint64_t word)
{
    volatile uint64_t *words = page_words(vm, page);
    for (unsigned i = 0; i < WORDS; i++)
        if (words[i] != word)
            return false;
    return true;
}

/* A block that was given up as a whole reads as a word, and there is no page table to say that a part of it does not. */
START_TEST(test_memhost_forgotten_pages_that_cannot_be_dropped_are_zeros_all_the_same)
{
    const uint32_t first = BLOCK_PAGES + 7, end_page = BLOCK_PAGES + 99;
    struct test test;
    struct memhost_config config = config_of(transport_of(_i));
    struct mm_vm_stat stat;
    void *tables[64];
    uint64_t dropped;
    config.no_workers = true;
    start(&test, &config, 1);
    add_vm(&test, 4 * BLOCK_BYTES);
    struct mm_host *mm = memhost_mm(test.mh);
    struct mm_vm *vm = memhost_vm_mm(test.vms[0].mem);
    ck_assert_int_eq(mm_drop(memhost_lock_thread(test.mh), vm, (gpa_t){BLOCK_BYTES}, BLOCK_BYTES, MM_DROP_FREE,
                             0x5a5a5a5a, &dropped),
                     0);
    memhost_unlock_thread(test.mh);
    unsigned nr = take_tables(mm, tables, ARRAY_LEN(tables));
    fail_alloc_at(1);
    forget(&test, first, end_page);
    bool failed = fail_alloc_fired();
    fail_alloc_at(-1);
    ck_assert(failed);
    /* who wrote the zeros goes on before the fault thread has counted what it brought in */
    struct block *block = vm_block(vm, first);
    lock_acquire(&block->lock);
    lock_release(&block->lock);
    mm_vm_stat(vm, &stat);
    ck_assert_uint_ge(stat.resident_bytes, (end_page - first) * PAGE_BYTES);
    while (nr > 0)
        slab_free(&mm->tables, tables[--nr]);
    for (uint32_t page = BLOCK_PAGES; page < 2 * BLOCK_PAGES; page++)
        ck_assert(page_is_all(&test.vms[0], page, page < first || page >= end_page ? UINT64_C(0x5a5a5a5a5a5a5a5a) : 0));
    end(&test);
}
END_TEST

START_TEST(test_memhost_wrong_settings_are_refused_with_a_reason)
{
    struct memhost *mh;
    struct diag diag = {0};
    struct memhost_config config = config_of(TRANSPORT_AUTO);
    config.mm.budget_bytes = 4096;
    ck_assert_int_eq(memhost_create(&config, &mh, &diag), -1);
    ck_assert_int_eq(diag.code, EXIT_USAGE);
    ck_assert_ptr_nonnull(strstr(diag.text, "--budget"));
}
END_TEST

START_TEST(test_memhost_kernel_backend_holds_the_pages_too)
{
    struct test test = {.nr_threads = 1};
    struct diag diag = {0};
    struct memhost_config config = {.backend = BACKEND_KERNEL, .mm = {.budget_bytes = UINT64_C(256) << 20}};
    if (memhost_create(&config, &test.mh, &diag)) {
        ck_assert_int_eq(diag.code, EXIT_HOST);
        printf("SKIP: %s\n", diag.text);
        fflush(stdout);
        return;
    }
    ck_assert_str_eq(memhost_transport(test.mh), "kernel");
    ck_assert_ptr_null(memhost_mm(test.mh));
    add_vm(&test, 8 * BLOCK_BYTES);
    ck_assert_uint_eq(memhost_vm_resident_bytes(test.vms[0].mem), 0);
    run_vcpus(&test);
    join_vcpus(&test);
    ck_assert_uint_eq(memhost_vm_resident_bytes(test.vms[0].mem), 8 * BLOCK_BYTES);
    forget(&test, 1, 2 * BLOCK_PAGES);
    ck_assert_uint_eq(memhost_vm_resident_bytes(test.vms[0].mem), 6 * BLOCK_BYTES + PAGE_BYTES);
    check_pages(&test);
    remove_vm(&test.vms[0]);
    memhost_destroy(test.mh);
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
    Suite *suite = suite_create("memhost");
    TCase *tests = tcase_create("memhost");
    tcase_set_timeout(tests, 250);
    for (int i = 0; i < (int)ARRAY_LEN(cases); i++)
        if (move || cases[i].transport == TRANSPORT_COPY)
            tcase_add_loop_test(tests, test_memhost_overcommit_keeps_every_page, i, i + 1);
    tcase_add_loop_test(tests, test_memhost_reclaim_at_the_highest_rate_keeps_every_page, 0, end_i);
    tcase_add_loop_test(tests, test_memhost_swapoff_under_load_keeps_every_page, 0, end_i);
    tcase_add_loop_test(tests, test_memhost_out_of_memory_stops_one_vm_and_the_other_goes_on, 0, end_i);
    tcase_add_loop_test(tests, test_memhost_after_the_vms_are_gone_everything_is_free, 0, end_i);
    tcase_add_loop_test(tests, test_memhost_forgotten_pages_are_zeros_and_take_no_memory, 0, end_i);
    tcase_add_loop_test(tests, test_memhost_forgotten_pages_that_cannot_be_dropped_are_zeros_all_the_same, 0, end_i);
    tcase_add_test(tests, test_memhost_wrong_settings_are_refused_with_a_reason);
    tcase_add_test(tests, test_memhost_kernel_backend_holds_the_pages_too);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
