/* SPDX-License-Identifier: Apache-2.0 */
/* Options of `ebb run` that give a guest NUMA nodes: each value read on its own. guest_numa_finish joins them. */
#ifndef VMM_OPTIONS_GUEST_NUMA_H
#define VMM_OPTIONS_GUEST_NUMA_H

#include "vmm/guest_numa.h"

/* Each: 0, or -1 with @diag (EXIT_USAGE) and @numa unchanged: what is wrong, what would be right. */

/*
 * "node=N,memory=SIZE[,cpus=LIST][,host=N]" in any order. LIST: vCPUs and ranges of them joined by colons, as in 0-1:3,
 * for the comma ends a part.
 */
int options_parse_guest_numa(const char *text, struct guest_numa *numa, struct diag *diag);
/* "A,B,N": both directions. What was said before may be said again, but not otherwise. */
int options_parse_guest_distance(const char *text, struct guest_numa *numa, struct diag *diag);
/* The number of a guest node, 0 .. GUEST_NUMA_MAX_NODES - 1; false: @text is none. */
bool options_read_guest_node(const char *text, unsigned *out);

/*
 * options_check_guest_numa - the guest's nodes with its memory and vCPUs; of which of them virtio-mem's region is, the
 * first unless it is said; how much of it is to be on which node of the host. 0, or -1 with @diag (EXIT_USAGE).
 */
struct run_options;
int options_check_guest_numa(struct run_options *options, struct diag *diag);

#endif
