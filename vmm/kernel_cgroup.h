/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A memory cgroup of our own, v1 or v2. On v1 it stands below the group we run in. On v2, where a group with processes
 * has no children with controllers, it stands below the nearest group upwards that hands the memory controller down.
 */
#ifndef VMM_KERNEL_CGROUP_H
#define VMM_KERNEL_CGROUP_H

#include <limits.h>

#include "vmm/diag.h"
#include "mm/base/types.h"

struct kernel_cgroup {
    bool v2;
    char home[PATH_MAX]; /* directory of the group the process came from */
    char base[PATH_MAX]; /* directory that ours stands in */
    char name[32];       /* "" before kernel_cgroup_make */
};

/* kernel_cgroup_find - home, base and version, from /proc/self. 0, or -1 with @diag (EXIT_HOST). */
must_check int kernel_cgroup_find(struct kernel_cgroup *cg, struct diag *diag);
/* kernel_cgroup_make - a new group "ebb-<pid>-<n>" with @limit_bytes, n the first free one. 0, or -1 with @diag. */
must_check int kernel_cgroup_make(struct kernel_cgroup *cg, uint64_t limit_bytes, struct diag *diag);
/* Moves this process into the group, or back home. 0 or -errno. */
must_check int kernel_cgroup_enter(const struct kernel_cgroup *cg);
must_check int kernel_cgroup_leave(const struct kernel_cgroup *cg);
must_check int kernel_cgroup_set_limit(const struct kernel_cgroup *cg, uint64_t limit_bytes);
/* Removes the group, which must be empty; waits up to a second for a process that is just leaving it. */
void kernel_cgroup_remove(const struct kernel_cgroup *cg);
/* Removes the groups in base that belong to processes which are gone. */
void kernel_cgroup_sweep(const struct kernel_cgroup *cg);

/* Makes the kernel sum up the group's figures. */
void kernel_cgroup_refresh(const struct kernel_cgroup *cg);

uint64_t kernel_cgroup_usage_bytes(const struct kernel_cgroup *cg);
uint64_t kernel_cgroup_peak_bytes(const struct kernel_cgroup *cg);
uint64_t kernel_cgroup_limit_hits(const struct kernel_cgroup *cg);

/* True when @name is "ebb-<pid>-<n>" of a process that is gone. */
bool kernel_name_is_stale(const char *name);

#endif
