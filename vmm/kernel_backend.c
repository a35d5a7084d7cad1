/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/kernel_backend.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "vmm/kernel_cgroup.h"
#include "vmm/kernel_zram.h"

struct kernel_backend {
    struct kernel_cgroup cgroup;
    struct kernel_zram zram; /* number -1: none */
    bool entered;
    uint64_t limit_bytes;
    atomic_bool stop;
    pthread_t refresher;
};

/*
 * Linux decides whether a cgroup's active list has to be looked at by figures that it sums up now and then. Where a
 * guest uses all its pages, so that all stand on the active list, it decides by old figures that there is nothing to
 * do, 16 times within 3 ms, and kills the process (seen on 6.18, in most runs of a 256 MiB guest in 64 MiB). Reading memory.stat sums them up.
 */
static void *refresh_stats(void *arg)
{
    struct kernel_backend *kb = arg;
    const struct timespec pause = {.tv_nsec = 1000 * 1000};

    while (!atomic_load_explicit(&kb->stop, memory_order_relaxed)) {
        kernel_cgroup_refresh(&kb->cgroup);
        nanosleep(&pause, NULL);
    }
    return NULL;
}

int kernel_backend_create(uint64_t budget_bytes, const struct zram_config *zram, struct kernel_backend **out,
                          struct diag *diag)
{
    struct kernel_backend *kb = calloc(1, sizeof(*kb));

    if (!kb)
        return diag_set(diag, EXIT_HOST, "out of memory");
    kb->zram.number = -1;
    kb->limit_bytes = budget_bytes;
    if (kernel_cgroup_find(&kb->cgroup, diag))
        goto fail;
    kernel_zram_sweep();
    kernel_cgroup_sweep(&kb->cgroup);
    if (kernel_cgroup_make(&kb->cgroup, budget_bytes, diag))
        goto fail;
    if (zram && zram->limit_bytes && kernel_zram_make(&kb->zram, kb->cgroup.name, zram, diag))
        goto fail_cgroup;
    if (pthread_create(&kb->refresher, NULL, refresh_stats, kb)) {
        diag_set(diag, EXIT_HOST, "cannot start a thread");
        goto fail_zram;
    }
    *out = kb;
    return 0;
fail_zram:
    kernel_zram_remove(&kb->zram);
fail_cgroup:
    kernel_cgroup_remove(&kb->cgroup);
fail:
    free(kb);
    return -1;
}

int kernel_backend_enter(struct kernel_backend *kb)
{
    int err = kernel_cgroup_enter(&kb->cgroup);

    if (!err)
        kb->entered = true;
    return err;
}

int kernel_backend_set_limit(struct kernel_backend *kb, uint64_t budget_bytes)
{
    int err = kernel_cgroup_set_limit(&kb->cgroup, budget_bytes);

    if (!err)
        __atomic_store_n(&kb->limit_bytes, budget_bytes, __ATOMIC_RELAXED);
    return err;
}

void kernel_backend_stat(struct kernel_backend *kb, struct kernel_backend_stat *out)
{
    memset(out, 0, sizeof(*out));
    out->limit_bytes = __atomic_load_n(&kb->limit_bytes, __ATOMIC_RELAXED);
    out->usage_bytes = kernel_cgroup_usage_bytes(&kb->cgroup);
    out->peak_bytes = kernel_cgroup_peak_bytes(&kb->cgroup);
    out->nr_limit_hits = kernel_cgroup_limit_hits(&kb->cgroup);
    out->has_zram = kb->zram.number >= 0;
    if (!out->has_zram)
        return;
    kernel_zram_stat(&kb->zram, &out->zram);
    out->swap_bytes = kb->zram.disk_bytes;
    out->swap_used_bytes = kernel_zram_used_bytes(&kb->zram);
}

void kernel_backend_destroy(struct kernel_backend *kb)
{
    if (!kb)
        return;
    atomic_store_explicit(&kb->stop, true, memory_order_relaxed);
    pthread_join(kb->refresher, NULL);
    /* A group of threads that cannot go home stays where it is; the next create removes the group. */
    bool left = !kb->entered || kernel_cgroup_leave(&kb->cgroup) == 0;
    kernel_zram_remove(&kb->zram);
    if (left)
        kernel_cgroup_remove(&kb->cgroup);
    free(kb);
}
