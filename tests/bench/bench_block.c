/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 2 MiB at a time: first touch with zeroed frames ready, beside the kernel's huge page fault; and frames taken home and
 * given back through mm, beside the bare UFFDIO_MOVE.
 */
#include "tests/bench/harness.h"

#include <sys/mman.h>

#include "vmm/uffd.h"

enum { ROUND = 1 };

#define TOUCH_BLOCKS 8u
#define MOVE_BLOCKS 64u

struct block_arm {
    const struct harness *h;
    enum backend backend;
    uint64_t blocks; /* of guest memory */
    /* the child's own */
    struct memhost *mh;
    struct memhost_vm *vm;
    char *memory;
    uint64_t next; /* block to be touched next */
    int uffd;
    char *from, *to;
};

static int set_up(struct block_arm *arm)
{
    uint64_t bytes = arm->blocks * BLOCK_BYTES;
    struct memhost_config config = {.backend = arm->backend, .mm = {.budget_bytes = bytes + bytes / 2, .thp = true}};
    void *memory;

    if (harness_memory(arm->h, &config, bytes, &arm->mh, &arm->vm, &memory))
        return -1;
    arm->memory = memory;
    return arm->backend == BACKEND_KERNEL && madvise(memory, bytes, MADV_HUGEPAGE) ? -1 : 0;
}

static int tear_down(struct block_arm *arm)
{
    memhost_vm_remove(arm->vm);
    memhost_destroy(arm->mh);
    return 0;
}

/* --- first touch --- */

/* Until the housekeeper has made @want bytes of stock, or for two seconds. */
static uint64_t wait_for_stock(struct block_arm *arm, uint64_t want)
{
    struct mm_host_stat stat = {0};

    for (unsigned tries = 0; arm->backend == BACKEND_EBB && tries < 40; tries++) {
        mm_host_stat(memhost_mm(arm->mh), &stat);
        if (stat.zeroed_stock_bytes >= want)
            break;
        nanosleep(&(struct timespec){.tv_nsec = 50 * 1000 * 1000}, NULL);
    }
    return stat.zeroed_stock_bytes;
}

/* out: ns a block in the thread that touches, CPU ns a block of the whole process until the stock is full again. */
static int touch_body(void *ctx, int command, double out[HARNESS_MAX_OUT])
{
    struct block_arm *arm = ctx;

    if (command == HARNESS_SETUP)
        return set_up(arm);
    if (command == HARNESS_TEARDOWN)
        return tear_down(arm);
    if (arm->next + TOUCH_BLOCKS > arm->blocks)
        return -1;
    uint64_t stock = wait_for_stock(arm, arm->next ? 2 * TOUCH_BLOCKS * BLOCK_BYTES : UINT64_MAX);
    harness_warm(4 * TOUCH_BLOCKS * BLOCK_BYTES);
    double sample[TOUCH_BLOCKS];
    uint64_t cpu = cpu_ns();
    for (unsigned i = 0; i < TOUCH_BLOCKS; i++) {
        uint64_t start = now_ns();
        *(volatile char *)(arm->memory + arm->next++ * BLOCK_BYTES) = 1;
        sample[i] = (double)(now_ns() - start);
    }
    wait_for_stock(arm, stock);
    out[1] = (double)(cpu_ns() - cpu) / TOUCH_BLOCKS;
    out[0] = percentile(sample, TOUCH_BLOCKS, 50);
    return 0;
}

static void first_touch(const struct harness *h)
{
    struct block_arm ctx[2];
    struct harness_arm arms[2];
    struct harness_row thread = {.work = "first touch of 2 MiB, in the faulting thread", .unit = "us", .aim = 10};
    struct harness_row cpu = {.work = "first touch of 2 MiB, CPU of all threads", .unit = "us", .aim = 1};

    for (unsigned i = 0; i < 2; i++) {
        ctx[i] = (struct block_arm){
            .h = h, .backend = i ? BACKEND_KERNEL : BACKEND_EBB, .blocks = 128 + TOUCH_BLOCKS * h->nr_pairs};
        if (!harness_arm_start(h, &arms[i], touch_body, &ctx[i]))
            harness_die("an arm cannot run here");
    }
    for (unsigned round = 0; round < h->nr_pairs; round++) {
        double ebb[HARNESS_MAX_OUT], kernel[HARNESS_MAX_OUT];
        if (!harness_round(&arms[0], ROUND, ebb) || !harness_round(&arms[1], ROUND, kernel))
            harness_die("first touch failed");
        row_add(&thread, ebb[0] / 1000, kernel[0] / 1000);
        row_add(&cpu, ebb[1] / 1000, kernel[1] / 1000);
    }
    row_print(h, &thread);
    row_print(h, &cpu);
    harness_arm_stop(&arms[0]);
    harness_arm_stop(&arms[1]);
}

/* --- take and give back --- */

static double gib_per_second(uint64_t blocks, uint64_t ns)
{
    return (double)(blocks * BLOCK_BYTES) / (double)(1u << 30) / ((double)ns / 1e9);
}

/* out: GiB/s of taking, giving, both. */
static void report_rates(double out[], uint64_t start, uint64_t middle, uint64_t end)
{
    out[0] = gib_per_second(MOVE_BLOCKS, middle - start);
    out[1] = gib_per_second(MOVE_BLOCKS, end - middle);
    out[2] = gib_per_second(2 * MOVE_BLOCKS, end - start);
}

static int move_body(void *ctx, int command, double out[HARNESS_MAX_OUT])
{
    struct block_arm *arm = ctx;

    if (command == HARNESS_TEARDOWN)
        return tear_down(arm);
    if (command == HARNESS_SETUP) {
        if (set_up(arm))
            return -1;
        for (uint64_t i = 0; i < MOVE_BLOCKS; i++)
            *(volatile char *)(arm->memory + i * BLOCK_BYTES) = 1;
        return 0;
    }
    struct mm_thread *thread = memhost_lock_thread(arm->mh);
    uint64_t start = now_ns();
    uint64_t taken = mm_reclaim(thread, memhost_vm_mm(arm->vm), MOVE_BLOCKS * BLOCK_PAGES, false);
    uint64_t middle = now_ns();
    int err = 0;
    for (uint64_t i = 0; i < MOVE_BLOCKS && !err; i++)
        err = mm_fault(thread, memhost_vm_mm(arm->vm), (gpa_t){i * BLOCK_BYTES}, MM_FAULT_WRITE);
    report_rates(out, start, middle, now_ns());
    memhost_unlock_thread(arm->mh);
    return err || taken != MOVE_BLOCKS * BLOCK_PAGES ? -1 : 0;
}

static int bare_set_up(struct block_arm *arm)
{
    uint64_t bytes = MOVE_BLOCKS * BLOCK_BYTES;
    char *range = mmap(NULL, 2 * bytes + BLOCK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (range == MAP_FAILED)
        return -1;
    arm->from = range + (BLOCK_BYTES - (uintptr_t)range % BLOCK_BYTES) % BLOCK_BYTES;
    arm->to = arm->from + bytes;
    if (madvise(arm->from, 2 * bytes, MADV_HUGEPAGE))
        return -1;
    memset(arm->from, 1, bytes);
    arm->uffd = uffd_open(UFFD_FEATURE_MOVE);
    return arm->uffd < 0 ? -1 : uffd_register(arm->uffd, arm->from, 2 * bytes, UFFDIO_REGISTER_MODE_WP);
}

static int bare_body(void *ctx, int command, double out[HARNESS_MAX_OUT])
{
    struct block_arm *arm = ctx;
    uint64_t done = 0, time[3] = {now_ns()};
    int err = 0;

    if (command == HARNESS_SETUP)
        return bare_set_up(arm);
    for (unsigned way = 0; way < 2; way++) {
        char *from = way ? arm->to : arm->from, *to = way ? arm->from : arm->to;
        for (uint64_t i = 0; i < MOVE_BLOCKS && !err; i++)
            err = uffd_move(arm->uffd, to + i * BLOCK_BYTES, from + i * BLOCK_BYTES, BLOCK_BYTES, false, &done);
        time[way + 1] = now_ns();
    }
    report_rates(out, time[0], time[1], time[2]);
    return err;
}

static void take_and_give(const struct harness *h)
{
    struct block_arm ebb_ctx = {.h = h, .backend = BACKEND_EBB, .blocks = 256}, bare_ctx = {.h = h};
    struct harness_arm arms[2];
    struct harness_row rows[3] = {
        {.work = "take 2 MiB frames home", .unit = "GiB/s", .kind = ROW_RATE, .other = "bare ioctl"},
        {.work = "give 2 MiB frames back", .unit = "GiB/s", .kind = ROW_RATE, .other = "bare ioctl"},
        {.work = "take and give 2 MiB frames",
         .unit = "GiB/s",
         .kind = ROW_RATE,
         .other = "bare ioctl",
         .aim_ebb = 500},
    };

    if (!harness_arm_start(h, &arms[0], move_body, &ebb_ctx) || !harness_arm_start(h, &arms[1], bare_body, &bare_ctx))
        harness_die("an arm cannot run here");
    for (unsigned round = 0; round < h->nr_pairs; round++) {
        double ebb[HARNESS_MAX_OUT], bare[HARNESS_MAX_OUT];
        if (!harness_round(&arms[0], ROUND, ebb) || !harness_round(&arms[1], ROUND, bare))
            harness_die("moving failed");
        for (unsigned i = 0; i < 3; i++)
            row_add(&rows[i], ebb[i], bare[i]);
    }
    for (unsigned i = 0; i < 3; i++)
        row_print(h, &rows[i]);
    harness_arm_stop(&arms[0]);
    harness_arm_stop(&arms[1]);
}

/* --- given up --- */

/* What a VMM does with a report that comes in pieces of 4 MiB, the largest free blocks of Linux's buddy allocator. */
static int drop_bare(struct block_arm *arm)
{
    int err = 0;

    for (uint64_t i = 0; i < MOVE_BLOCKS && !err; i += 2)
        err = madvise(arm->memory + i * BLOCK_BYTES, 2 * BLOCK_BYTES, MADV_DONTNEED);
    return err;
}

static int drop_ebb(struct block_arm *arm)
{
    struct mm_thread *thread = memhost_lock_thread(arm->mh);
    uint64_t dropped = 0;
    int err = mm_drop(thread, memhost_vm_mm(arm->vm), (gpa_t){0}, MOVE_BLOCKS * BLOCK_BYTES, MM_DROP_FREE, 0, &dropped);

    memhost_unlock_thread(arm->mh);
    return err || dropped != MOVE_BLOCKS * BLOCK_PAGES ? -1 : 0;
}

/* out: CPU us a GiB in the thread that drops. */
static int drop_body(void *ctx, int command, double out[HARNESS_MAX_OUT])
{
    struct block_arm *arm = ctx;

    if (command == HARNESS_SETUP)
        return set_up(arm);
    if (command == HARNESS_TEARDOWN)
        return tear_down(arm);
    for (uint64_t i = 0; i < MOVE_BLOCKS; i++)
        *(volatile char *)(arm->memory + i * BLOCK_BYTES) = 1;
    struct timespec from, to;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &from);
    int err = arm->backend == BACKEND_EBB ? drop_ebb(arm) : drop_bare(arm);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &to);
    double ns = (double)(to.tv_sec - from.tv_sec) * 1e9 + (double)(to.tv_nsec - from.tv_nsec);
    out[0] = ns / 1000 * (double)(1u << 30) / (double)(MOVE_BLOCKS * BLOCK_BYTES);
    return err;
}

static void give_up(const struct harness *h)
{
    struct block_arm ctx[2];
    struct harness_arm arms[2];
    struct harness_row row = {
        .work = "128 MiB given up by the guest, CPU a GiB", .unit = "us", .other = "madvise of 4 MiB at a time"};

    for (unsigned i = 0; i < 2; i++) {
        ctx[i] = (struct block_arm){.h = h, .backend = i ? BACKEND_KERNEL : BACKEND_EBB, .blocks = 2 * MOVE_BLOCKS};
        if (!harness_arm_start(h, &arms[i], drop_body, &ctx[i]))
            harness_die("an arm cannot run here");
    }
    for (unsigned round = 0; round < h->nr_pairs; round++) {
        double ebb[HARNESS_MAX_OUT], bare[HARNESS_MAX_OUT];
        if (!harness_round(&arms[0], ROUND, ebb) || !harness_round(&arms[1], ROUND, bare))
            harness_die("giving up failed");
        row_add(&row, ebb[0], bare[0]);
    }
    row_print(h, &row);
    harness_arm_stop(&arms[0]);
    harness_arm_stop(&arms[1]);
}

int main(int argc, char **argv)
{
    struct harness h = harness_init(argc, argv);

    harness_heading("2 MiB at a time, one CPU");
    first_touch(&h);
    harness_heading("2 MiB frames between guest and pool, beside the bare ioctl");
    take_and_give(&h);
    harness_heading("2 MiB frames that the guest does not want any more");
    give_up(&h);
    return 0;
}
