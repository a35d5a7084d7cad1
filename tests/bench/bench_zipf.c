/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A thread works on memory twice the size of the physical memory it may have: zipf 0.99, 20% writes, text pages.
 * Physical memory is everything that holds the pages: for Ebb the budget, in which its store counts; for the kernel the
 * resident guest pages and the zram device's memory together. The cgroup's limit is adjusted after each round so that
 * the sum is Ebb's budget; what else the cgroup is charged for (page tables, this program) comes on top of it.
 */
#include "tests/bench/harness.h"

#include "vmm/kernel_backend.h"

enum { ROUND = 1 };

/* Pages on their way, when swapped pages are compared with slots in use. */
#define SWAP_SLACK_BYTES (4 * MIB)

struct zipf_arm {
    const struct harness *h;
    enum backend backend;
    uint64_t pages, budget_bytes, ops;
    struct zipf zipf;
    /* the child's own */
    struct memhost *mh;
    struct memhost_vm *vm;
    char *memory;
    uint64_t rng;
};

struct faults {
    uint64_t minor, major;
};

static struct faults count_faults(const struct zipf_arm *arm)
{
    if (arm->backend == BACKEND_KERNEL) {
        struct rusage usage;
        getrusage(RUSAGE_SELF, &usage);
        return (struct faults){(uint64_t)usage.ru_minflt, (uint64_t)usage.ru_majflt};
    }
    struct mm_host_stat stat;
    mm_host_stat(memhost_mm(arm->mh), &stat);
    return (struct faults){stat.event[EV_pgfault] - stat.event[EV_pgmajfault], stat.event[EV_pgmajfault]};
}

static uint64_t physical_bytes(const struct zipf_arm *arm)
{
    if (arm->backend == BACKEND_KERNEL) {
        struct kernel_backend_stat stat;
        kernel_backend_stat(memhost_kernel(arm->mh), &stat);
        return memhost_vm_resident_bytes(arm->vm) + stat.zram.mem_used_bytes;
    }
    struct mm_host_stat stat;
    mm_host_stat(memhost_mm(arm->mh), &stat);
    return stat.charged_bytes;
}

/* The kernel's cgroup gets what its zram leaves of the budget. */
static int share_budget(struct zipf_arm *arm)
{
    struct kernel_backend_stat stat;

    if (arm->backend != BACKEND_KERNEL)
        return 0;
    kernel_backend_stat(memhost_kernel(arm->mh), &stat);
    uint64_t used = stat.zram.mem_used_bytes, resident = memhost_vm_resident_bytes(arm->vm);
    if (stat.swap_used_bytes + SWAP_SLACK_BYTES < arm->pages * PAGE_BYTES - resident) {
        fprintf(stderr, "bench: pages go to a swap area that is not ours: swapoff the others\n");
        return -1;
    }
    uint64_t extra = stat.usage_bytes > resident ? stat.usage_bytes - resident : 0;
    return used >= arm->budget_bytes
               ? -1
               : kernel_backend_set_limit(memhost_kernel(arm->mh), arm->budget_bytes - used + extra);
}

static int set_up(struct zipf_arm *arm)
{
    struct memhost_config config = {
        .backend = arm->backend,
        .mm = {.budget_bytes = arm->budget_bytes,
               .zram = {.algo = ZRAM_LZ4, .limit_bytes = arm->budget_bytes / 4 * 3},
               .thp = true},
    };
    void *memory;

    if (harness_memory(arm->h, &config, arm->pages * PAGE_BYTES, &arm->mh, &arm->vm, &memory))
        return -1;
    arm->memory = memory;
    harness_fill(memory, arm->pages, EBB_PATTERN_TEXT);
    return share_budget(arm);
}

static uint64_t work(struct zipf_arm *arm)
{
    uint64_t sum = 0;

    for (uint64_t i = 0; i < arm->ops; i++) {
        uint32_t rank = zipf_sample(&arm->zipf, &arm->rng);
        uint64_t page = scatter(rank, (uint32_t)arm->pages, 7);
        volatile uint64_t *word = (uint64_t *)(void *)(arm->memory + page * PAGE_BYTES + 2048);
        if (rng_below(&arm->rng, 100) < 20)
            *word = arm->rng;
        else
            sum += *word;
    }
    return sum;
}

/* out: ns an access, major and minor faults per 1000 accesses, physical MiB. */
static int zipf_body(void *ctx, int command, double out[HARNESS_MAX_OUT])
{
    struct zipf_arm *arm = ctx;

    if (command == HARNESS_SETUP)
        return set_up(arm);
    if (command == HARNESS_TEARDOWN) {
        memhost_vm_remove(arm->vm);
        memhost_destroy(arm->mh);
        return 0;
    }
    struct faults before = count_faults(arm);
    uint64_t start = cpu_ns();
    out[4] = (double)work(arm);
    out[0] = (double)(cpu_ns() - start) / (double)arm->ops;
    struct faults after = count_faults(arm);
    out[1] = (double)(after.major - before.major) * 1000 / (double)arm->ops;
    out[2] = (double)(after.minor - before.minor) * 1000 / (double)arm->ops;
    out[3] = (double)physical_bytes(arm) / (double)MIB;
    return share_budget(arm);
}

static void warm_up(const struct harness *h, const struct harness_arm *arms)
{
    for (unsigned round = 0; round < (h->quick ? 1 : 10); round++)
        for (unsigned i = 0; i < 2; i++)
            if (!harness_round(&arms[i], ROUND, NULL))
                harness_die("zipf failed");
}

int main(int argc, char **argv)
{
    struct harness h = harness_init(argc, argv);
    static struct zipf_arm ctx[2];
    struct harness_arm arms[2];
    struct harness_row time = {.work = "zipf 0.99, 2:1, 20% writes", .unit = "ns/op", .aim = 1};
    struct harness_row major = {.work = "  major faults", .unit = "/1000", .kind = ROW_COUNT};
    struct harness_row minor = {.work = "  minor faults", .unit = "/1000", .kind = ROW_COUNT};
    struct harness_row memory = {.work = "  physical memory", .unit = "MiB", .kind = ROW_COUNT};

    harness_heading("zipf, one thread, same physical memory, one CPU");
    for (unsigned i = 0; i < 2; i++) {
        uint64_t bytes = (h.quick ? 32 : 256) * MIB;
        ctx[i] = (struct zipf_arm){.h = &h,
                                   .backend = i ? BACKEND_KERNEL : BACKEND_EBB,
                                   .pages = bytes / PAGE_BYTES,
                                   .budget_bytes = bytes / 2,
                                   .ops = h.quick ? 5000 : 100000};
        zipf_init(&ctx[i].zipf, (uint32_t)ctx[i].pages, 990);
        if (!harness_arm_start(&h, &arms[i], zipf_body, &ctx[i]))
            harness_die("an arm cannot run here");
    }
    warm_up(&h, arms);
    for (unsigned round = 0; round < h.nr_pairs; round++) {
        double ebb[HARNESS_MAX_OUT], kernel[HARNESS_MAX_OUT];
        if (!harness_round(&arms[0], ROUND, ebb) || !harness_round(&arms[1], ROUND, kernel))
            harness_die("zipf failed");
        row_add(&time, ebb[0], kernel[0]);
        row_add(&major, ebb[1], kernel[1]);
        row_add(&minor, ebb[2], kernel[2]);
        row_add(&memory, ebb[3], kernel[3]);
    }
    row_print(&h, &time);
    row_print(&h, &major);
    row_print(&h, &minor);
    row_print(&h, &memory);
    harness_arm_stop(&arms[0]);
    harness_arm_stop(&arms[1]);
    return 0;
}
