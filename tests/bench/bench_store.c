/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages into the compressed store and back: Ebb's mm_reclaim and userfaultfd beside MADV_PAGEOUT and the kernel's own
 * zram. A third arm runs nothing but LZ4_compress_fast over the same pages, so that the time beyond the compressor is
 * known for both.
 */
#include "tests/bench/harness.h"

#include <lz4.h>
#include <sys/mman.h>

enum { EVICT = 1, FAULT_RANDOM, FAULT_SEQUENTIAL };

struct store_arm {
    const struct harness *h;
    enum backend backend;
    uint32_t pattern;
    uint64_t pages;
    bool huge; /* the memory starts as 2 MiB pages */
    /* the child's own */
    struct memhost *mh;
    struct memhost_vm *vm;
    char *memory;
    double *samples;
    uint64_t seed;
};

static uint64_t stored_pages(const struct store_arm *arm)
{
    if (arm->backend == BACKEND_KERNEL)
        return arm->pages - MIN_OF(arm->pages, memhost_vm_resident_bytes(arm->vm) / PAGE_BYTES);
    struct mm_vm_stat stat;
    mm_vm_stat(memhost_vm_mm(arm->vm), &stat);
    return stat.zram_bytes / PAGE_BYTES;
}

static int set_up(struct store_arm *arm)
{
    uint64_t bytes = arm->pages * PAGE_BYTES;
    struct memhost_config config = {
        .backend = arm->backend,
        .mm = {.budget_bytes = bytes * 3,
               .zram = {.algo = ZRAM_LZ4, .limit_bytes = bytes + bytes / 4},
               .thp = arm->huge},
    };
    void *memory;

    if (harness_memory(arm->h, &config, bytes, &arm->mh, &arm->vm, &memory))
        return -1;
    arm->memory = memory;
    if (arm->backend == BACKEND_KERNEL && madvise(memory, bytes, arm->huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE))
        return -1;
    arm->samples = calloc(arm->pages, sizeof(*arm->samples));
    harness_fill(memory, arm->pages, arm->pattern);
    return arm->samples ? 0 : -1;
}

static int tear_down(struct store_arm *arm)
{
    memhost_vm_remove(arm->vm);
    memhost_destroy(arm->mh);
    return 0;
}

/* out: ns a page, share of the pages that went. */
static int evict(struct store_arm *arm, double out[])
{
    uint64_t start, bytes = arm->pages * PAGE_BYTES;

    if (arm->backend == BACKEND_KERNEL) {
        start = cpu_ns();
        if (madvise(arm->memory, bytes, MADV_PAGEOUT))
            return -1;
    } else {
        struct mm_thread *thread = memhost_lock_thread(arm->mh);
        start = cpu_ns();
        mm_reclaim(thread, memhost_vm_mm(arm->vm), arm->pages, true);
        memhost_unlock_thread(arm->mh);
    }
    out[0] = (double)(cpu_ns() - start) / (double)arm->pages;
    out[1] = (double)stored_pages(arm) / (double)arm->pages;
    return 0;
}

/*
 * Writes one word of each page, in no order that readahead could see. out: median and 99th percentile of the time that passes, mean CPU time; in ns.
 */
static int fault_random(struct store_arm *arm, double out[])
{
    uint64_t before = cpu_ns();

    arm->seed++;
    for (uint64_t i = 0; i < arm->pages; i++) {
        char *page = arm->memory + (uint64_t)scatter((uint32_t)i, (uint32_t)arm->pages, arm->seed) * PAGE_BYTES;
        uint64_t start = now_ns();
        *(volatile uint64_t *)(void *)(page + 2048) += 0;
        arm->samples[i] = (double)(now_ns() - start);
    }
    out[2] = (double)(cpu_ns() - before) / (double)arm->pages;
    out[0] = percentile(arm->samples, arm->pages, 50);
    out[1] = percentile(arm->samples, arm->pages, 99);
    return 0;
}

static int fault_sequential(struct store_arm *arm, double out[])
{
    uint64_t start = cpu_ns();

    for (uint64_t i = 0; i < arm->pages; i++)
        *(volatile uint64_t *)(void *)(arm->memory + i * PAGE_BYTES + 2048) += 0;
    out[0] = (double)(cpu_ns() - start) / (double)arm->pages;
    return 0;
}

static int store_body(void *ctx, int command, double out[HARNESS_MAX_OUT])
{
    struct store_arm *arm = ctx;

    switch (command) {
    case HARNESS_SETUP:
        return set_up(arm);
    case EVICT:
        return evict(arm, out);
    case FAULT_RANDOM:
        return fault_random(arm, out);
    case FAULT_SEQUENTIAL:
        return fault_sequential(arm, out);
    default:
        return tear_down(arm);
    }
}

/* The compressor and nothing else. */
static int bare_body(void *ctx, int command, double out[HARNESS_MAX_OUT])
{
    struct store_arm *arm = ctx;
    char packed[LZ4_COMPRESSBOUND(4096)];
    uint64_t bytes = arm->pages * PAGE_BYTES, packed_bytes = 0;

    if (command == HARNESS_SETUP) {
        arm->memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (arm->memory == MAP_FAILED)
            return -1;
        harness_fill(arm->memory, arm->pages, arm->pattern);
    }
    uint64_t start = cpu_ns();
    for (uint64_t i = 0; i < arm->pages; i++)
        packed_bytes +=
            (uint64_t)LZ4_compress_fast(arm->memory + i * PAGE_BYTES, packed, (int)PAGE_BYTES, (int)sizeof(packed), 1);
    out[0] = (double)(cpu_ns() - start) / (double)arm->pages;
    out[1] = (double)bytes / (double)packed_bytes;
    return 0;
}

struct rows {
    struct harness_row evict, beyond, median, p99, mean, sequential;
};

static void run_rounds(const struct harness *h, struct harness_arm arms[3], bool bare, struct rows *rows)
{
    double ebb[HARNESS_MAX_OUT], kernel[HARNESS_MAX_OUT], lz4[HARNESS_MAX_OUT] = {0}, *out[2] = {ebb, kernel};

    for (unsigned round = 0; round < h->nr_pairs; round++) {
        for (unsigned i = 0; i < 2; i++)
            if (!harness_round(&arms[i], EVICT, out[i]))
                harness_die("eviction failed");
        if (round == 0 && (ebb[1] < 0.99 || kernel[1] < 0.99))
            printf("  stored: %.1f%% and %.1f%% of the pages\n", ebb[1] * 100, kernel[1] * 100);
        if (bare && !harness_round(&arms[2], 1, lz4))
            harness_die("compression failed");
        row_add(&rows->evict, ebb[0], kernel[0]);
        row_add(&rows->beyond, MAX_OF(ebb[0] - lz4[0], 1), MAX_OF(kernel[0] - lz4[0], 1));
        for (unsigned i = 0; i < 2; i++)
            if (!harness_round(&arms[i], FAULT_RANDOM, out[i]))
                harness_die("fault failed");
        row_add(&rows->median, ebb[0], kernel[0]);
        row_add(&rows->p99, ebb[1], kernel[1]);
        row_add(&rows->mean, ebb[2], kernel[2]);
        for (unsigned i = 0; i < 2; i++)
            if (!harness_round(&arms[i], EVICT, NULL))
                harness_die("eviction failed");
        for (unsigned i = 0; i < 2; i++)
            if (!harness_round(&arms[i], FAULT_SEQUENTIAL, out[i]))
                harness_die("fault failed");
        row_add(&rows->sequential, ebb[0], kernel[0]);
    }
}

static void compare(const struct harness *h, const char *name, uint32_t pattern, bool huge, double aim_evict)
{
    bool bare = pattern == EBB_PATTERN_TEXT && !huge, full = bare;
    char text[6][64];
    struct rows rows = {
        .evict = {.work = text[0], .unit = "ns/page", .aim = aim_evict},
        .beyond = {.work = text[1], .unit = "ns/page", .aim = 4},
        .median = {.work = text[2], .unit = "ns", .aim = full ? 1 / 1.1 : 0},
        .p99 = {.work = text[3], .unit = "ns", .aim = full ? 1 : 0},
        .mean = {.work = text[5], .unit = "ns"},
        .sequential = {.work = text[4], .unit = "ns/page", .aim = full ? 1.3 : 0},
    };
    struct store_arm ctx[3];
    struct harness_arm arms[3];

    for (unsigned i = 0; i < 3; i++)
        ctx[i] = (struct store_arm){.h = h,
                                    .backend = i == 1 ? BACKEND_KERNEL : BACKEND_EBB,
                                    .pattern = pattern,
                                    .huge = huge,
                                    .pages = h->quick ? 1024 : 16384};
    snprintf(text[0], sizeof(text[0]), "evict %s", name);
    snprintf(text[1], sizeof(text[1]), "  of it beyond the compressor");
    snprintf(text[2], sizeof(text[2]), "random fault back %s, median", name);
    snprintf(text[3], sizeof(text[3]), "random fault back %s, p99", name);
    snprintf(text[5], sizeof(text[5]), "random fault back %s, CPU, mean", name);
    snprintf(text[4], sizeof(text[4]), "sequential fault back %s", name);
    bool up =
        harness_arm_start(h, &arms[0], store_body, &ctx[0]) && harness_arm_start(h, &arms[1], store_body, &ctx[1]);
    if (!up || (bare && !harness_arm_start(h, &arms[2], bare_body, &ctx[2])))
        harness_die("an arm cannot run here");
    run_rounds(h, arms, bare, &rows);
    row_print(h, &rows.evict);
    if (bare)
        row_print(h, &rows.beyond);
    row_print(h, &rows.median);
    row_print(h, &rows.p99);
    row_print(h, &rows.mean);
    row_print(h, &rows.sequential);
    for (unsigned i = 0; i < (bare ? 3 : 2); i++)
        harness_arm_stop(&arms[i]);
}

int main(int argc, char **argv)
{
    struct harness h = harness_init(argc, argv);

    harness_heading("compressed store, lz4, one CPU");
    compare(&h, "text", EBB_PATTERN_TEXT, false, 1.5);
    compare(&h, "text from 2 MiB pages", EBB_PATTERN_TEXT, true, 0);
    compare(&h, "zero", EBB_PATTERN_ZERO, false, 4);
    compare(&h, "same", EBB_PATTERN_SAME, false, 4);
    /* a quarter of these does not compress: the kernel stores it whole, Ebb keeps it for a swap area */
    compare(&h, "mixed", EBB_PATTERN_MIXED, false, 0);
    return 0;
}
