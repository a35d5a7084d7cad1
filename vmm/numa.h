/* SPDX-License-Identifier: Apache-2.0 */
/*
 * numa: the nodes of this host's memory, as libnuma tells them: sizes, CPUs, distances. Read once into a plain struct,
 * which tests fill by hand. A host without NUMA is one node with the number 0.
 */
#ifndef VMM_NUMA_H
#define VMM_NUMA_H

#include <sched.h>

#include "mm/base/types.h"

/* Nodes with larger numbers are left out; of one run there are at most MM_MAX_NODES. */
#define NUMA_MAX_NODES 64
/* SLIT's distance of a node to itself. */
#define NUMA_LOCAL_DISTANCE 10

struct numa_node {
    int id;                           /* the kernel's number, below NUMA_MAX_NODES */
    uint64_t total_bytes;             /* 0: CPUs only, or memory that this process may not use */
    uint64_t free_bytes;              /* in no use at all */
    uint64_t available_bytes;         /* free, or holding file pages that the kernel can drop; when it was read */
    unsigned nr_cpus;                 /* in cpus */
    cpu_set_t cpus;                   /* those of the node on which this process may run */
    uint8_t distance[NUMA_MAX_NODES]; /* to node numbers, not to places in nodes[]; 0: no such node */
};

struct numa_host {
    unsigned nr; /* at least 1 */
    struct numa_node nodes[NUMA_MAX_NODES];
};

/* numa_host_read - nodes that have memory or CPUs, in the order of their numbers. */
void numa_host_read(struct numa_host *out);
/* NULL: no such node. */
const struct numa_node *numa_host_node(const struct numa_host *host, int id);
/* The number of the node that has @cpu, or -1. */
int numa_host_node_of_cpu(const struct numa_host *host, int cpu);
/* Nodes in numa_host.nodes[] as a set: bit i is the node with the number i. */
uint64_t numa_host_with_memory(const struct numa_host *host);
uint64_t numa_host_with_cpus(const struct numa_host *host);

/*
 * Sets of nodes as people write them: "0", "0-1", "0-1+3"; ":" for "+" is as good. Commas separate other things.
 * numa_set_parse: 0; -EINVAL: not such a text, or empty; -ERANGE: a number of NUMA_MAX_NODES or more.
 */
must_check int numa_set_parse(const char *text, uint64_t *out);
/* CPUs as Linux lists them: "0-3,8". Returns @out, cut off where @bytes end; "none" for the empty set. */
char *numa_cpus_text(char *out, size_t bytes, const cpu_set_t *cpus);
/* Fills @out with the shortest such text and returns it; "none" for the empty set. */
#define NUMA_SET_TEXT 200
char *numa_set_text(char *out, uint64_t set);

#endif
