/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The options of `ebb run` that say where memory is: read here as text, without a look at the host. numa_plan.h makes
 * of them, and of the host's nodes, what mm/ is to do.
 */
#ifndef VMM_OPTIONS_NUMA_H
#define VMM_OPTIONS_NUMA_H

#include "mm/mm.h"
#include "vmm/diag.h"
#include "vmm/numa.h"

/* Chosen, unmeasured: a small part of what any memory of today moves in a second. */
#define NUMA_DEFAULT_RATE (UINT64_C(256) << 20)

struct numa_tier {
    char name[16];
    uint64_t nodes; /* bit by the host's number, not empty */
};

struct numa_options {
    bool has_policy; /* --numa */
    enum mm_policy_mode mode;
    uint64_t nodes; /* bit by the host's number; empty with MM_POLICY_LOCAL only: not named */
    unsigned nr_budgets;
    struct numa_budget {
        int node;
        uint64_t bytes;
    } budgets[MM_MAX_NODES];
    unsigned nr_tiers; /* 0, or at least 2; the fastest first, no node in two of them */
    struct numa_tier tiers[MM_MAX_NODES];
    uint64_t demote_bytes_per_s, promote_bytes_per_s; /* 0: not given */
    bool balancing;
    /* Of --guest-numa: memory of guest nodes that are to be on this node of the host, by number; and of all others. */
    uint64_t guest_bytes[NUMA_MAX_NODES], guest_other_bytes;
};

/* Nodes of the host that guest nodes are to be on. */
uint64_t options_numa_guest(const struct numa_options *options);

/* options_numa_check - what joins them; fills in the rates. Returns as above. */
must_check int options_numa_check(struct numa_options *options, struct diag *diag);

/* "bind", "preferred", ...; for a policy that interleaves, "interleave" and the unit: "interleave by 2M". */
const char *numa_mode_text(enum mm_policy_mode mode);

#endif
