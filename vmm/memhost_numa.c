/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/memhost_numa.h"

#include <stdlib.h>
#include <string.h>

/* Index of the node of @config that is nearest to the host's node @from. */
static uint8_t nearest(const struct mm_config *config, const struct numa_node *from)
{
    unsigned best = 0;
    for (unsigned i = 1; i < config->nr_nodes; i++)
        if (from->distance[config->nodes[i].id] < from->distance[config->nodes[best].id])
            best = i;
    return (uint8_t)best;
}

static void fill(struct memhost_numa *numa, const struct mm_config *config, const struct numa_host *host)
{
    for (unsigned i = 0; i < config->nr_nodes; i++) {
        const struct numa_node *node = numa_host_node(host, config->nodes[i].id);
        if (node)
            numa->node_cpus[i] = node->cpus;
    }
    for (unsigned cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        const struct numa_node *node = numa_host_node(host, numa_host_node_of_cpu(host, (int)cpu));
        if (node)
            numa->node_of_cpu[cpu] = nearest(config, node);
    }
}

void memhost_numa_init(struct memhost_numa *numa, const struct mm_config *config, const struct numa_host *host)
{
    memset(numa, 0, sizeof(*numa));
    if (config->nr_nodes == 0 || config->nodes[0].id < 0)
        return;
    struct numa_host *here = host ? NULL : malloc(sizeof(*here));
    if (here)
        numa_host_read(here);
    if (here || host)
        fill(numa, config, here ? here : host);
    free(here);
}

void memhost_numa_arena(const struct mm_config *config, struct hostmem_config *out)
{
    fn_t start[MM_MAX_NODES + 1];
    unsigned nr = mm_arena_layout(config, start);
    out->nr_slots = start[nr];
    out->nr_nodes = nr;
    for (unsigned i = 0; i < nr; i++)
        out->nodes[i] = (struct hostmem_node){
            .id = config->nr_nodes ? config->nodes[i].id : MM_NODE_ANY,
            .start = start[i],
            .nr_slots = start[i + 1] - start[i],
        };
}

int memhost_numa_place(struct mm_vm *vm, const struct mm_region *regions, unsigned nr, const struct mm_policy *policy,
                       struct diag *diag)
{
    for (unsigned i = 0; i < nr && policy->nodes; i++) {
        int err = mm_vm_place(vm, regions[i].start, regions[i].bytes, policy);
        if (err)
            return diag_set(diag, EXIT_USAGE, "guest memory cannot be placed on these nodes: %s", strerror(-err));
    }
    return 0;
}

int memhost_numa_bind(struct mm_host *host, struct mm_vm *vm, gpa_t gpa, uint64_t bytes, int node, struct diag *diag)
{
    for (unsigned i = 0; i < mm_nr_nodes(host); i++) {
        struct mm_node_stat stat;
        mm_node_stat(host, i, &stat);
        if (stat.id != node)
            continue;
        const struct mm_region part = {.start = gpa, .bytes = bytes};
        const struct mm_policy policy = {.mode = MM_POLICY_BIND, .nodes = (uint8_t)(1u << i)};
        return memhost_numa_place(vm, &part, 1, &policy, diag);
    }
    return diag_set(diag, EXIT_USAGE, "no part of the budget is on node %d of this host; see --numa", node);
}
