/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernel_backend: what a user has without Ebb. Guest memory is plain anonymous memory of this process, in a memory
 * cgroup whose limit is the budget, with a zram device of the kernel's own as swap.
 *
 *   cgroup   <memory controller>/<own group>/ebb-<pid>-<n>     v1 or v2, found from /proc/self/mountinfo
 *   zram     a device of its own by /sys/class/zram-control/hot_add, label "ebb-<pid>-<n>" in its swap header
 *
 * Both names carry the pid: what a killed process left behind is removed by the next create. The kernel does not count
 * a zram device's memory in any cgroup: budget and mem_used together are what this backend holds.
 */
#ifndef VMM_KERNEL_BACKEND_H
#define VMM_KERNEL_BACKEND_H

#include "mm/swap/zram.h"
#include "vmm/diag.h"

struct kernel_backend;

struct kernel_backend_stat {
    uint64_t limit_bytes;     /* of the cgroup */
    uint64_t usage_bytes;     /* charged now: anonymous memory, page tables, page cache */
    uint64_t peak_bytes;      /* largest usage; 0 where the kernel does not tell (v2 before 5.19) */
    uint64_t nr_limit_hits;   /* v1 memory.failcnt, v2 "max" of memory.events */
    bool has_zram;            /* the rest is 0 without */
    struct zram_stat zram;    /* mm_stat of the device; failed_reads from its io_stat */
    uint64_t swap_bytes;      /* size of the device */
    uint64_t swap_used_bytes; /* slots in use, from /proc/swaps */
};

/*
 * kernel_backend_create - makes the cgroup with @budget_bytes as its limit and, where zram->limit_bytes is not 0, a
 * zram device whose mem_limit is that, as swap of a priority above every other area's. The process stays where it is.
 * @zram may be NULL. The device's size (what it can hold uncompressed) is 8 times its limit.
 * Returns 0; -1 with @diag (EXIT_HOST: no memory controller, no zram module, no such compressor, no permission; each
 * with the way to mend it), nothing left behind.
 */
must_check int kernel_backend_create(uint64_t budget_bytes, const struct zram_config *zram, struct kernel_backend **out,
                                     struct diag *diag);

/*
 * kernel_backend_enter - moves the calling process, all its threads, into the cgroup; children that it forks from now
 * on too. Memory it already has stays charged where it was. Returns 0 or -errno.
 */
must_check int kernel_backend_enter(struct kernel_backend *kb);

/* kernel_backend_set_limit - another limit, from any thread. Returns 0 or -errno (-EBUSY: cannot shrink that far). */
must_check int kernel_backend_set_limit(struct kernel_backend *kb, uint64_t budget_bytes);

void kernel_backend_stat(struct kernel_backend *kb, struct kernel_backend_stat *out);

/*
 * kernel_backend_destroy - the process leaves for the cgroup it came from, swap is turned off (what is in it comes back
 * into memory: unmap guest memory first), device and cgroup are removed. NULL is allowed.
 */
void kernel_backend_destroy(struct kernel_backend *kb);

#endif
