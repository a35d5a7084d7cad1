/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/guest_numa.h"

#include "vmm/platform.h"
#include "vmm/size.h"

/* --- is it a machine? ------------------------------------------------------------------------------ */

static int check_numbers(const struct guest_numa *numa, struct diag *diag)
{
    for (unsigned i = 0; i < numa->nr_nodes; i++)
        if (numa->node[i].memory_bytes == 0)
            return diag_set(diag, EXIT_USAGE, "--guest-numa: node %u is missing; number the nodes from 0 without gaps",
                            i);
    return 0;
}

static int check_memory(const struct guest_numa *numa, uint64_t memory_bytes, struct diag *diag)
{
    char sum_text[SIZE_TEXT], memory_text[SIZE_TEXT];
    uint64_t sum = 0;

    for (unsigned i = 0; i < numa->nr_nodes; i++)
        sum += numa->node[i].memory_bytes;
    if (sum == memory_bytes)
        return 0;
    return diag_set(diag, EXIT_USAGE, "--guest-numa: the nodes have %s together, the guest has %s; let them add up",
                    size_option(sum_text, sum), size_option(memory_text, memory_bytes));
}

static int check_cpus(const struct guest_numa *numa, unsigned nr_cpus, struct diag *diag)
{
    for (unsigned cpu = 0; cpu < GUEST_NUMA_MAX_CPUS; cpu++) {
        unsigned nr = 0, last = 0;

        for (unsigned i = 0; i < numa->nr_nodes; i++)
            if (numa->node[i].cpus >> cpu & 1) {
                nr++;
                last = i;
            }
        if (nr > 0 && cpu >= nr_cpus)
            return diag_set(diag, EXIT_USAGE, "--guest-numa: node %u names vCPU %u, but there are %u; raise --cpus",
                            last, cpu, nr_cpus);
        if (nr > 1)
            return diag_set(diag, EXIT_USAGE, "--guest-numa: vCPU %u is in %u nodes; put it into one", cpu, nr);
        if (nr == 0 && cpu < nr_cpus)
            return diag_set(diag, EXIT_USAGE, "--guest-numa: vCPU %u is in no node; add it to the cpus= of one", cpu);
    }
    return 0;
}

static int check_distances(const struct guest_numa *numa, struct diag *diag)
{
    for (unsigned i = 0; i < GUEST_NUMA_MAX_NODES; i++)
        for (unsigned j = 0; j < GUEST_NUMA_MAX_NODES; j++) {
            if (numa->distance[i][j] == 0 || (i < numa->nr_nodes && j < numa->nr_nodes))
                continue;
            return diag_set(diag, EXIT_USAGE, "--guest-distance %u,%u,%u: there is no guest node %u; give --guest-numa",
                            i, j, numa->distance[i][j], i >= numa->nr_nodes ? i : j);
        }
    return 0;
}

int guest_numa_finish(struct guest_numa *numa, uint64_t memory_bytes, unsigned nr_cpus, struct diag *diag)
{
    if (check_distances(numa, diag))
        return -1;
    if (numa->nr_nodes == 0)
        return 0;
    if (check_numbers(numa, diag) || check_memory(numa, memory_bytes, diag) || check_cpus(numa, nr_cpus, diag))
        return -1;
    for (unsigned i = 0; i < numa->nr_nodes; i++)
        for (unsigned j = 0; j < numa->nr_nodes; j++)
            if (numa->distance[i][j] == 0)
                numa->distance[i][j] = i == j ? GUEST_NUMA_SELF : GUEST_NUMA_REMOTE;
    return 0;
}

int guest_numa_check_hosts(const struct guest_numa *numa, bool (*has)(void *ctx, int node), void *ctx,
                           struct diag *diag)
{
    for (unsigned i = 0; i < numa->nr_nodes; i++) {
        int host = numa->node[i].host;

        if (host != GUEST_NUMA_NO_HOST && !has(ctx, host))
            return diag_set(diag, EXIT_USAGE,
                            "--guest-numa: node %u is to be on node %d of this host, which has no such node; see "
                            "`numactl -H`",
                            i, host);
    }
    return 0;
}

/* --- what follows from it -------------------------------------------------------------------------- */

unsigned guest_numa_range(const struct guest_numa *numa, unsigned node, uint64_t low_bytes,
                          struct guest_numa_range out[2])
{
    uint64_t start = 0, bytes = numa->node[node].memory_bytes;
    unsigned nr = 0;

    for (unsigned i = 0; i < node; i++)
        start += numa->node[i].memory_bytes;
    if (start < low_bytes) {
        uint64_t below = MIN_OF(bytes, low_bytes - start);

        out[nr++] = (struct guest_numa_range){{start}, below};
        start += below;
        bytes -= below;
    }
    if (bytes > 0)
        out[nr++] = (struct guest_numa_range){{PLATFORM_HIGH_GPA + start - low_bytes}, bytes};
    return nr;
}

unsigned guest_numa_of_cpu(const struct guest_numa *numa, unsigned cpu)
{
    unsigned node = 0;

    while (node + 1 < numa->nr_nodes && !(numa->node[node].cpus >> cpu & 1))
        node++;
    return node;
}

void guest_numa_order(const struct guest_numa *numa, unsigned node, uint8_t out[GUEST_NUMA_MAX_NODES])
{
    const uint8_t *distance = numa->distance[node];
    unsigned nr = 0;

    out[nr++] = (uint8_t)node;
    for (unsigned i = 0; i < numa->nr_nodes; i++) {
        unsigned at = nr;

        if (i == node)
            continue;
        for (; at > 1 && distance[out[at - 1]] > distance[i]; at--)
            out[at] = out[at - 1];
        out[at] = (uint8_t)i;
        nr++;
    }
}

/* No aligned run of @run vCPUs is of two nodes. */
static bool runs_are_whole(const struct guest_numa *numa, unsigned nr_cpus, unsigned run)
{
    for (unsigned cpu = 0; cpu < nr_cpus; cpu++)
        if (guest_numa_of_cpu(numa, cpu) != guest_numa_of_cpu(numa, cpu / run * run))
            return false;
    return true;
}

unsigned guest_numa_package_cpus(const struct guest_numa *numa, unsigned nr_cpus)
{
    unsigned run = 1;

    while (run < nr_cpus && runs_are_whole(numa, nr_cpus, 2 * run))
        run *= 2;
    return run;
}
