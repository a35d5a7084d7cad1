/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/pin.h"

/* CPU number @index of @set, counted round and round. */
static int nth_cpu(const cpu_set_t *set, unsigned index)
{
    index %= (unsigned)CPU_COUNT(set);
    for (unsigned cpu = 0;; cpu++)
        if (CPU_ISSET(cpu, set) && index-- == 0)
            return (int)cpu;
}

/* Of vCPUs [0, @end), those whose guest node stands for the host's node @host_node. */
static unsigned count_on(const struct guest_numa *guest, unsigned end, int host_node)
{
    unsigned nr = 0;

    for (unsigned i = 0; i < end; i++)
        nr += guest->node[guest_numa_of_cpu(guest, i)].host == host_node;
    return nr;
}

void pin_choose(const struct numa_host *host, const struct guest_numa *guest, const cpu_set_t *allowed, unsigned vm,
                unsigned nr_cpus, int *cpus)
{
    for (unsigned i = 0; i < nr_cpus; i++) {
        int id = guest->nr_nodes ? guest->node[guest_numa_of_cpu(guest, i)].host : GUEST_NUMA_NO_HOST;
        const struct numa_node *node = id == GUEST_NUMA_NO_HOST ? NULL : numa_host_node(host, id);
        cpu_set_t set;
        CPU_ZERO(&set);
        if (node)
            CPU_AND(&set, &node->cpus, allowed);
        if (CPU_COUNT(&set))
            cpus[i] = nth_cpu(&set, vm * count_on(guest, nr_cpus, id) + count_on(guest, i, id));
        else
            cpus[i] = nth_cpu(allowed, vm * nr_cpus + i);
    }
}
