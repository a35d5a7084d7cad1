/* SPDX-License-Identifier: Apache-2.0 */
/* A host of several nodes with a VM on it, for tests of who moves where: the scan, touches from a node, what is where. */
#ifndef TESTS_UNIT_NUMA_RIG_H
#define TESTS_UNIT_NUMA_RIG_H

#include "mm/policy/access.h"
#include "mm/policy/numa.h"
#include "mm/reclaim/evict.h"
#include "tests/unit/mm_rig.h"

#include <errno.h>

#define NODE_BYTES (16 * MIB)
#define NODE_PAGES ((uint32_t)(NODE_BYTES / PAGE_BYTES))
#define VM_BYTES (64 * MIB)
#define MS UINT64_C(1000000)
#define SET_PAGES (2 * BLOCK_PAGES)

static inline struct mm_config config_of(unsigned nr_nodes, bool thp)
{
    struct mm_config config = {.budget_bytes = nr_nodes * NODE_BYTES, .thp = thp, .nr_nodes = nr_nodes};
    for (unsigned n = 0; n < nr_nodes; n++) {
        config.nodes[n] = (struct mm_node_config){.id = (int)n, .budget_bytes = NODE_BYTES};
        for (unsigned k = 0; k < nr_nodes; k++)
            config.nodes[n].distance[k] = n == k ? 10 : 20;
    }
    return config;
}

static inline struct mm_config balancing(bool thp)
{
    struct mm_config config = config_of(3, thp);
    config.numa_balancing = true;
    return config;
}

/* Node 0 is fast, node 1 slow. */
static inline struct mm_config tiers(bool thp)
{
    struct mm_config config = config_of(2, thp);
    config.nodes[1].rank = 1;
    return config;
}

/* Without samples of mm/policy/access.c, which arm pages for a purpose of their own. */
static inline struct mm_rig *rig_create(const struct mm_config *config)
{
    struct mm_rig *rig = mm_rig_create(config, VM_BYTES, 1);
    access_configure(rig->host, 0, NULL);
    return rig;
}

static inline uint64_t event(struct mm_rig *rig, enum vm_event which)
{
    return __atomic_load_n(&rig->host->event[which], __ATOMIC_RELAXED);
}

static inline uint64_t now_ns(struct mm_rig *rig)
{
    return rig->host->ops->clock_ns(rig->fh);
}

/* What a vCPU that runs on @node does: pages that are mapped are not seen. */
static inline void touch(struct mm_rig *rig, gfn_t start, gfn_t end, unsigned node)
{
    for (gfn_t gfn = start; gfn < end; gfn++)
        while (!mm_rig_is_present(rig, gfn))
            ck_assert_int_eq(mm_fault(rig->thread[0], rig->vm, gpa_of(gfn), MM_FAULT_WRITE | MM_FAULT_FROM(node, node)),
                             0);
}

static inline void fill_from(struct mm_rig *rig, gfn_t start, gfn_t end, unsigned node)
{
    for (gfn_t gfn = start; gfn < end; gfn++) {
        touch(rig, gfn, gfn + 1, node);
        ck_assert_int_eq(mm_rig_write(rig, 0, gfn, TEXT), 0);
    }
}

/* The scan goes over everything once, and arms what it may. At most two pauses of it, 100 ms a round. */
static inline void scan_pass(struct mm_rig *rig)
{
    uint64_t start = event(rig, EV_numa_pte_updates), before;
    unsigned rounds = 0;
    do {
        before = event(rig, EV_numa_pte_updates);
        fake_host_advance_ns(rig->fh, 100 * MS);
        ck_assert_uint_gt(mm_scan(rig->thread[0]), 0);
    } while ((event(rig, EV_numa_pte_updates) == start || event(rig, EV_numa_pte_updates) != before) && ++rounds < 400);
    mm_rig_check(rig);
}

static inline uint64_t pages_on(struct mm_rig *rig, unsigned node)
{
    uint64_t pages[MM_MAX_NODES];
    fake_host_count_nodes(rig->fh, mm_vm_id(rig->vm), pages);
    return pages[node];
}

static inline void verify(struct mm_rig *rig, gfn_t start, gfn_t end)
{
    for (gfn_t gfn = start; gfn < end; gfn++)
        mm_rig_verify(rig, 0, gfn);
}

/* Its kswapd keeps room on the fast node, as it does where it has a thread of its own. */
static inline void fill_fast(struct mm_rig *rig, gfn_t start, gfn_t end)
{
    const struct pool *pool = &rig->host->node[0].pool;
    for (gfn_t gfn = start; gfn < end; gfn++) {
        if (pool_nr_free(pool) < pool->wmark[WMARK_LOW] + MM_BUFFER_PAGES)
            mm_kswapd(rig->thread[0], 0);
        fill_from(rig, gfn, gfn + 1, 0);
    }
}

/* Pages [0, SET_PAGES) on the slow node, resident, with room on the fast one. */
static inline struct mm_rig *rig_with_slow_set(const struct mm_config *config)
{
    struct mm_rig *rig = rig_create(config);
    const struct mm_policy slow = {.mode = MM_POLICY_PREFERRED, .nodes = 2};
    ck_assert_int_eq(mm_vm_place(rig->vm, (gpa_t){0}, VM_BYTES, &slow), 0);
    fill_from(rig, 0, SET_PAGES, 0);
    ck_assert_uint_eq(pages_on(rig, 1), SET_PAGES);
    return rig;
}

#endif
