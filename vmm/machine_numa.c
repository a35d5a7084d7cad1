/* SPDX-License-Identifier: Apache-2.0 */
/* Nodes of the guest that stand for nodes of the host: their memory is there. */
#include "vmm/machine_parts.h"

static int bind_node(const struct machine *m, unsigned node, struct diag *diag)
{
    struct guest_numa_range range[2];
    unsigned nr = guest_numa_range(&m->numa, node, m->low_bytes, range);

    for (unsigned i = 0; i < nr; i++)
        if (memhost_vm_bind(m->memory, range[i].start, range[i].bytes, m->numa.node[node].host, diag))
            return -1;
    return 0;
}

int machine_bind_nodes(struct machine *m, struct diag *diag)
{
    for (unsigned i = 0; i < m->numa.nr_nodes; i++) {
        if (m->numa.node[i].host == GUEST_NUMA_NO_HOST)
            continue;
        if (bind_node(m, i, diag))
            return -1;
        if (m->hotplug_bytes > 0 && m->want->has_hotplug_node && m->want->hotplug_node == i &&
            memhost_vm_bind(m->memory, m->hotplug_gpa, m->hotplug_bytes, m->numa.node[i].host, diag))
            return -1;
    }
    return 0;
}
