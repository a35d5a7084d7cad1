/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Nodes of hostmem. Where the kernel takes a new page from is said in two ways:
 *
 *   made in the arena (populate, take by copying)     by the policy of the node's slots, mbind
 *   made in a guest (place_copy, place by copying)    by the policy of the calling thread, set_mempolicy: a guest's range
 *                                                     has pages of all nodes, and no policy of its own
 *   moved                                             the page stays where it is
 *
 * Both are MPOL_BIND, so that a page is on its node or nowhere. A thread keeps its policy from call to call: the key
 * says which one it has.
 *
 * The kernel's own NUMA balancing would move pages of guests to other nodes behind mm/'s back. It passes over memory
 * without a policy when the thread that scans has one that does not ask for it (mm/mempolicy.c, vma_policy_mof). So
 * every thread has one: who makes the hostmem gets MPOL_LOCAL, and the threads that it starts inherit that.
 */
#include "vmm/hostmem.h"

#include <errno.h>
#include <numaif.h>

#ifndef MPOL_F_STATIC_NODES
#define MPOL_F_STATIC_NODES (1 << 15) /* include/uapi/linux/mempolicy.h, which libnuma's header does not go with */
#endif
/* The kernel reads one bit less than it is told (mm/mempolicy.c, get_nodes). */
#define MASK_BITS (8 * sizeof(unsigned long) + 1)
#define BIND (MPOL_BIND | MPOL_F_STATIC_NODES)

static int check_nodes(const struct hostmem *hm)
{
    const struct hostmem_config *config = &hm->config;
    fn_t at = 0;
    for (unsigned i = 0; i < config->nr_nodes; i++) {
        const struct hostmem_node *node = &config->nodes[i];
        if (node->id >= (int)(MASK_BITS - 1) || node->start != at || node->start % BLOCK_PAGES || node->nr_slots == 0 ||
            (node->id < 0) != (config->nodes[0].id < 0))
            return -EINVAL;
        at += node->nr_slots;
    }
    return config->nr_nodes && at != config->nr_slots ? -EINVAL : 0;
}

static int refused(int err, int id, struct diag *diag)
{
    if (err == EINVAL)
        return diag_set(diag, EXIT_HOST,
                        "node %d: this process may not use its memory (see cpuset.mems), or it is gone", id);
    if (err == EPERM)
        return diag_set(
            diag, EXIT_HOST,
            "node %d: this process may not say where its memory is; a container needs the capability SYS_NICE", id);
    return diag_host(diag, err, "binding memory to node %d", id);
}

int hostmem_nodes_open(struct hostmem *hm, struct diag *diag)
{
    if (check_nodes(hm))
        return diag_set(diag, EXIT_USAGE, "the nodes' parts of the arena do not fit together");
    if (hm->config.nr_nodes == 0 || hm->config.nodes[0].id < 0)
        return 0;
    for (unsigned i = 0; i < hm->config.nr_nodes; i++) {
        const struct hostmem_node *node = &hm->config.nodes[i];
        unsigned long mask = 1ul << node->id;
        if (mbind(hostmem_slot(hm, node->start), node->nr_slots * PAGE_BYTES, BIND, &mask, MASK_BITS, 0) == 0)
            continue;
        if (errno == ENOSYS && hm->config.nr_nodes == 1)
            return 0; /* a kernel without NUMA: all memory is on the one node */
        return refused(errno, node->id, diag);
    }
    int err = pthread_key_create(&hm->thread_node, NULL);
    if (err)
        return diag_host(diag, err, "a key for the threads' nodes");
    hm->bound = true;
    if (set_mempolicy(MPOL_LOCAL, NULL, 0))
        return refused(errno, hm->config.nodes[0].id, diag);
    return 0;
}

void hostmem_nodes_close(struct hostmem *hm)
{
    if (!hm->bound)
        return;
    pthread_key_delete(hm->thread_node);
    (void)!set_mempolicy(MPOL_DEFAULT, NULL, 0);
}

unsigned hostmem_node_of(const struct hostmem *hm, fn_t fn)
{
    unsigned node = 0;
    while (node + 1 < hm->config.nr_nodes && fn >= hm->config.nodes[node + 1].start)
        node++;
    return node;
}

int hostmem_node_use(struct hostmem *hm, unsigned node)
{
    const void *now = &hm->config.nodes[node]; /* NULL: none yet */
    if (!hm->bound || pthread_getspecific(hm->thread_node) == now)
        return 0;
    unsigned long mask = 1ul << hm->config.nodes[node].id;
    if (set_mempolicy(BIND, &mask, MASK_BITS))
        return -ENOMEM; /* the node is gone for this process: its memory cannot be had */
    return -pthread_setspecific(hm->thread_node, now);
}
