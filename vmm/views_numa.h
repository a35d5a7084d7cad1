/* SPDX-License-Identifier: Apache-2.0 */
/* The views numa and tiers, made as those of views.h are. */
#ifndef VMM_VIEWS_NUMA_H
#define VMM_VIEWS_NUMA_H

#include "vmm/faultd.h"
#include "vmm/numa.h"
#include "vmm/options_numa.h"

#include <jansson.h>

/* What is asked of the memory manager for these views. */
struct view_numa {
    const struct numa_host *host;       /* as it is now */
    const struct numa_options *options; /* NULL: nothing was asked for */
    struct mm_policy policy;            /* of the run; no nodes: none */
    unsigned nr_nodes;
    struct mm_node_stat nodes[MM_MAX_NODES]; /* id MM_NODE_ANY: wherever the kernel likes */
    struct mm_host_stat stat;
};

struct view_numa_vm {
    const char *name;
    uint64_t pages[MM_MAX_NODES];         /* in the guest, by node */
    uint64_t standby_pages[MM_MAX_NODES]; /* taken home with their content, by node */
    /* vCPUs that touched pages of which balancing or promotion wanted to know by whom */
    unsigned nr_vcpus;
    struct view_numa_vcpu {
        unsigned vcpu;
        struct mm_vcpu_stat stat;
    } vcpus[FAULTD_MAX_VCPUS];
};

json_t *view_numa(const struct view_numa *numa, const struct view_numa_vm *vms, unsigned nr_vms);
json_t *view_tiers(const struct view_numa *numa);

/* One object a node that is used: what it has of the budget, watermarks, counters. */
json_t *view_nodes(const struct mm_node_stat *nodes, unsigned nr);
/* [{"node": N or null, "pages": n}, ...] */
json_t *view_pages_by_node(const struct mm_node_stat *nodes, unsigned nr, const uint64_t pages[MM_MAX_NODES]);

#endif
