/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Does the cost of a page grow with guest memory, or with the number of VMs in a pod? All memory is filled with
 * same-filled pages (no compressor hides what is looked for), reclaimed into the store, and a sample of it is faulted
 * back in random order. The two sides run one after the other, a size at a time: together they would not fit.
 */
#include "tests/bench/harness.h"

#include <sys/mman.h>

#define MAX_VMS 16u
#define SAMPLE_PAGES 32768u

struct scale_arm {
    const struct harness *h;
    enum backend backend;
    unsigned nr_vms;
    uint64_t vm_bytes;
    /* the child's own */
    struct memhost *mh;
    struct memhost_vm *vms[MAX_VMS];
    char *memory[MAX_VMS];
};

struct cost {
    double fill_ns, reclaim_ns, fault_ns; /* a page */
};

static int set_up(struct scale_arm *arm)
{
    uint64_t total = arm->nr_vms * arm->vm_bytes;
    struct mm_region region = {.start = {0}, .bytes = arm->vm_bytes};
    struct memhost_vm_config vm_config = {.regions = &region,
                                          .nr_regions = 1,
                                          .nr_fault_threads = 1,
                                          .fault_cpus = &arm->h->cpu,
                                          .on_fatal = harness_fatal};
    struct memhost_config config = {
        .backend = arm->backend,
        .mm = {.budget_bytes = total + total / 8, .zram = {.algo = ZRAM_LZ4, .limit_bytes = total / 4}, .thp = true},
    };
    struct diag diag = {0};

    harness_warm(total);
    if (memhost_create(&config, &arm->mh, &diag))
        goto fail;
    for (unsigned i = 0; i < arm->nr_vms; i++) {
        if (memhost_vm_add(arm->mh, &vm_config, &arm->vms[i], &diag))
            goto fail;
        arm->memory[i] = memhost_vm_hva(arm->vms[i], region.start, region.bytes);
        if (arm->backend == BACKEND_KERNEL && madvise(arm->memory[i], arm->vm_bytes, MADV_HUGEPAGE))
            goto fail;
    }
    return 0;
fail:
    fprintf(stderr, "bench: %s\n", diag.text);
    return -1;
}

static void tear_down(struct scale_arm *arm)
{
    for (unsigned i = 0; i < arm->nr_vms; i++)
        memhost_vm_remove(arm->vms[i]);
    memhost_destroy(arm->mh);
}

static void fill_all(struct scale_arm *arm)
{
    for (unsigned i = 0; i < arm->nr_vms; i++)
        harness_fill(arm->memory[i], arm->vm_bytes / PAGE_BYTES, EBB_PATTERN_SAME);
}

static void reclaim_all(struct scale_arm *arm)
{
    for (unsigned i = 0; i < arm->nr_vms && arm->backend == BACKEND_KERNEL; i++)
        madvise(arm->memory[i], arm->vm_bytes, MADV_PAGEOUT);
    if (arm->backend == BACKEND_EBB) {
        struct mm_thread *thread = memhost_lock_thread(arm->mh);
        mm_reclaim(thread, NULL, arm->nr_vms * arm->vm_bytes / PAGE_BYTES, true);
        memhost_unlock_thread(arm->mh);
    }
}

static void fault_sample(struct scale_arm *arm, uint32_t nr)
{
    uint32_t vm_pages = (uint32_t)(arm->vm_bytes / PAGE_BYTES), all = vm_pages * arm->nr_vms;

    for (uint32_t i = 0; i < nr; i++) {
        uint32_t page = scatter(i, all, 3);
        *(volatile char *)(arm->memory[page / vm_pages] + (uint64_t)(page % vm_pages) * PAGE_BYTES) += 1;
    }
}

static int scale_body(void *ctx, int command, double out[HARNESS_MAX_OUT])
{
    struct scale_arm *arm = ctx;
    double pages = (double)(arm->nr_vms * arm->vm_bytes / PAGE_BYTES);
    uint32_t sample = (uint32_t)MIN_OF((uint64_t)SAMPLE_PAGES, arm->nr_vms * arm->vm_bytes / PAGE_BYTES / 2);

    if (command == HARNESS_SETUP)
        return set_up(arm);
    if (command == HARNESS_TEARDOWN) {
        tear_down(arm);
        return 0;
    }
    uint64_t t0 = cpu_ns();
    fill_all(arm);
    uint64_t t1 = cpu_ns();
    reclaim_all(arm);
    uint64_t t2 = cpu_ns();
    fault_sample(arm, sample);
    uint64_t t3 = cpu_ns();
    out[0] = (double)(t1 - t0) / pages;
    out[1] = (double)(t2 - t1) / pages;
    out[2] = (double)(t3 - t2) / sample;
    return 0;
}

/* One size; false when it does not fit this machine. */
static bool measure(const struct harness *h, unsigned nr_vms, uint64_t vm_bytes, struct cost cost[2])
{
    for (unsigned side = 0; side < 2; side++) {
        struct scale_arm ctx = {
            .h = h, .backend = side ? BACKEND_KERNEL : BACKEND_EBB, .nr_vms = nr_vms, .vm_bytes = vm_bytes};
        struct harness_arm arm;
        double out[HARNESS_MAX_OUT];
        if (!harness_arm_start(h, &arm, scale_body, &ctx) || !harness_round(&arm, 1, out))
            return false;
        cost[side] = (struct cost){out[0], out[1], out[2]};
        harness_arm_stop(&arm);
    }
    return true;
}

struct growth {
    struct cost first[2], worst[2];
};

static void note(struct growth *growth, unsigned index, const struct cost cost[2])
{
    for (unsigned side = 0; side < 2; side++) {
        struct cost *worst = &growth->worst[side];
        if (index == 0)
            growth->first[side] = *worst = cost[side];
        worst->fill_ns = MAX_OF(worst->fill_ns, cost[side].fill_ns);
        worst->reclaim_ns = MAX_OF(worst->reclaim_ns, cost[side].reclaim_ns);
        worst->fault_ns = MAX_OF(worst->fault_ns, cost[side].fault_ns);
    }
}

/* Median of @repeats runs, each figure by itself. */
static bool measure_median(const struct harness *h, unsigned nr_vms, uint64_t vm_bytes, unsigned repeats,
                           struct cost cost[2])
{
    double figures[6][HARNESS_MAX_PAIRS];

    for (unsigned i = 0; i < repeats; i++) {
        if (!measure(h, nr_vms, vm_bytes, cost))
            return false;
        for (unsigned side = 0; side < 2; side++) {
            figures[side * 3][i] = cost[side].fill_ns;
            figures[side * 3 + 1][i] = cost[side].reclaim_ns;
            figures[side * 3 + 2][i] = cost[side].fault_ns;
        }
    }
    for (unsigned side = 0; side < 2; side++)
        cost[side] = (struct cost){median(figures[side * 3], repeats), median(figures[side * 3 + 1], repeats),
                                   median(figures[side * 3 + 2], repeats)};
    return true;
}

static void print_cost(const struct harness *h, unsigned nr_vms, uint64_t vm_bytes, const struct cost cost[2])
{
    printf("%3u VM%s of %5llu MiB %28.0f %8.0f %8.0f %12.0f %8.0f %8.0f\n", nr_vms, nr_vms > 1 ? "s" : " ",
           (unsigned long long)(vm_bytes / MIB), cost[0].fill_ns, cost[0].reclaim_ns, cost[0].fault_ns, cost[1].fill_ns,
           cost[1].reclaim_ns, cost[1].fault_ns);
    if (h->json)
        fprintf(
            h->json,
            "{\"work\": \"scale\", \"vms\": %u, \"vm_bytes\": %llu, \"ebb_ns\": {\"fill\": %.0f, \"reclaim\": %.0f, "
            "\"fault\": %.0f}, \"kernel_ns\": {\"fill\": %.0f, \"reclaim\": %.0f, \"fault\": %.0f}}\n",
            nr_vms, (unsigned long long)vm_bytes, cost[0].fill_ns, cost[0].reclaim_ns, cost[0].fault_ns,
            cost[1].fill_ns, cost[1].reclaim_ns, cost[1].fault_ns);
}

/* What the machine can hold beside everything else. */
static uint64_t memory_limit(void)
{
    return (uint64_t)sysconf(_SC_AVPHYS_PAGES) * PAGE_BYTES / 10 * 7;
}

static void run_series(const struct harness *h, bool by_vms)
{
    struct growth growth = {0};
    struct cost cost[2];
    uint64_t bytes = h->quick ? 16 * MIB : 256 * MIB;
    unsigned last = h->quick ? 1 : by_vms ? 4 : 5, index = 0;

    for (; index <= last; index++) {
        unsigned nr_vms = by_vms ? 1u << index : 1;
        uint64_t vm_bytes = by_vms ? bytes : bytes << index;
        unsigned repeats = h->quick || nr_vms * vm_bytes > 2048 * MIB ? 1 : 3;
        if (nr_vms * vm_bytes > memory_limit() || !measure_median(h, nr_vms, vm_bytes, repeats, cost))
            break;
        print_cost(h, nr_vms, vm_bytes, cost);
        note(&growth, index, cost);
    }
    if (index == 0)
        harness_die("not even the smallest size fits");
    printf("largest over smallest size %24.2f %8.2f %8.2f %12.2f %8.2f %8.2f%s\n",
           growth.worst[0].fill_ns / growth.first[0].fill_ns, growth.worst[0].reclaim_ns / growth.first[0].reclaim_ns,
           growth.worst[0].fault_ns / growth.first[0].fault_ns, growth.worst[1].fill_ns / growth.first[1].fill_ns,
           growth.worst[1].reclaim_ns / growth.first[1].reclaim_ns, growth.worst[1].fault_ns / growth.first[1].fault_ns,
           index <= last ? "  (larger ones do not fit)" : "");
}

int main(int argc, char **argv)
{
    struct harness h = harness_init(argc, argv);

    for (unsigned by_vms = 0; by_vms < 2; by_vms++) {
        printf("\n%-40s %26s %30s\n", by_vms ? "by number of VMs, ns a page" : "by guest memory, ns a page",
               "Ebb: fill reclaim fault", "kernel: fill reclaim fault");
        run_series(&h, by_vms);
    }
    return 0;
}
