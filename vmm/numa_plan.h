/* SPDX-License-Identifier: Apache-2.0 */
/*
 * numa_plan: which nodes of the host a run uses, how much of the budget is on each, and where the VMs' pages come from.
 * Pure: what was asked for and what the host has in, the memory manager's configuration out.
 *
 *   asked for                 nodes                          the budget, beyond what --node-budget says
 *   policy=bind, interleave   those named                    in equal parts, or refused
 *   policy=preferred          all that have memory           on that node as far as there is room, then by distance
 *   policy=local              those named, or with CPUs      in equal parts, as far as there is room
 *   --tiers                   those of the tiers             as much as there is room on the faster ones; a sixteenth
 *                                                            at least on each
 *   --node-budget alone       those that have one            nothing is left over
 *   --guest-numa, host=       those of guest nodes           by how much guest memory is to be on each
 *   nothing                   none: the kernel places pages as it likes
 *
 *   the nodes' budgets sum up to the budget; each is at most what its node has available
 */
#ifndef VMM_NUMA_PLAN_H
#define VMM_NUMA_PLAN_H

#include "vmm/numa.h"
#include "vmm/options_numa.h"

/*
 * numa_plan - @config: budget_bytes is set; fills in nr_nodes and nodes, in the order of the host's numbers, balancing
 * and rates. *policy: for all memory of all VMs; it names no nodes where nr_nodes is 0.
 * Returns 0, or -1 with diag (EXIT_USAGE).
 */
must_check int numa_plan(const struct numa_options *options, const struct numa_host *host, struct mm_config *config,
                         struct mm_policy *policy, struct diag *diag);

/* The name of the tier that node @id of the host is in; "-": none. */
const char *numa_tier_name(const struct numa_options *options, int id);

#endif
