/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guest_numa: the nodes that a guest is told of. Nodes take the guest's memory in the order of their numbers:
 *
 *   offset in the memory   0 ......... node 0 ......... | ..... node 1 ..... | ... node 2 ...
 *   guest address          0 ................. end of low memory | hole | 4 GiB ..............
 *
 * so a node that reaches across the end of low memory has two ranges of addresses, every other one has one. The ranges
 * of all nodes are the guest's memory, each byte once; virtio-mem's region is beside it. A vCPU is of exactly one node.
 */
#ifndef VMM_GUEST_NUMA_H
#define VMM_GUEST_NUMA_H

#include "mm/base/types.h"
#include "vmm/diag.h"

#define GUEST_NUMA_MAX_NODES 8
#define GUEST_NUMA_MAX_CPUS 64 /* bits of struct guest_numa_node.cpus */
#define GUEST_NUMA_NO_HOST (-1)

#define GUEST_NUMA_SELF 10   /* distance of a node to itself; ACPI 6.5, 5.2.17 */
#define GUEST_NUMA_REMOTE 20 /* to another one, unless it is said */
#define GUEST_NUMA_FARTHEST 254

struct guest_numa_node {
    uint64_t cpus;         /* bit i: vCPU i; 0: memory only */
    uint64_t memory_bytes; /* multiple of BLOCK_BYTES; 0: this node was not given */
    int host;              /* the host's number of the node that it stands for, or GUEST_NUMA_NO_HOST */
};

struct guest_numa {
    unsigned nr_nodes; /* 0: the guest is told nothing */
    struct guest_numa_node node[GUEST_NUMA_MAX_NODES];
    uint8_t distance[GUEST_NUMA_MAX_NODES][GUEST_NUMA_MAX_NODES]; /* SLIT units; 0: not said */
};

struct guest_numa_range {
    gpa_t start;
    uint64_t bytes; /* multiple of BLOCK_BYTES, never 0 */
};

/*
 * guest_numa_finish - is this a machine of @memory_bytes with vCPUs 0 .. @nr_cpus - 1 (at most GUEST_NUMA_MAX_CPUS)?
 * Distances that were not said become 10 and 20. 0, or -1 with @diag (EXIT_USAGE) and @numa unchanged: a gap in the
 * numbers, memory that does not add up, a vCPU that is in no node, in two, or not there, a distance of an unknown node.
 */
must_check int guest_numa_finish(struct guest_numa *numa, uint64_t memory_bytes, unsigned nr_cpus, struct diag *diag);

/*
 * guest_numa_check_hosts - @has says whether this host has a node of that number. 0, or -1 with @diag (EXIT_USAGE): the
 * first guest node whose host= is not there.
 */
must_check int guest_numa_check_hosts(const struct guest_numa *numa, bool (*has)(void *ctx, int node), void *ctx,
                                      struct diag *diag);

/* All below: after guest_numa_finish. */

/*
 * guest_numa_range - the addresses of node @node in the order of addresses, where guest memory below the hole ends at
 * @low_bytes. Returns how many: 1 or 2.
 */
unsigned guest_numa_range(const struct guest_numa *numa, unsigned node, uint64_t low_bytes,
                          struct guest_numa_range out[2]);

/* The node of vCPU @cpu, which is there. */
unsigned guest_numa_of_cpu(const struct guest_numa *numa, unsigned cpu);

/*
 * guest_numa_order - all nodes by their distance from @node, itself first, equals by number: where to look for memory.
 */
void guest_numa_order(const struct guest_numa *numa, unsigned node, uint8_t out[GUEST_NUMA_MAX_NODES]);

/*
 * guest_numa_package_cpus - the largest power of two such that no aligned run of so many vCPUs is of two nodes; at least
 * all vCPUs where there is one node. These make a processor package: Linux wants no last-level cache in two nodes.
 */
unsigned guest_numa_package_cpus(const struct guest_numa *numa, unsigned nr_cpus);

#endif
