/* SPDX-License-Identifier: Apache-2.0 */
/* Placement: which node a page comes from, by the policy of its range (mm_vm_place). */
#ifndef MM_RECLAIM_PLACE_H
#define MM_RECLAIM_PLACE_H

#include "mm/reclaim/host.h"

struct wish {
    unsigned node;      /* from here, if it has room */
    nodemask_t allowed; /* or else from the nearest of these */
    bool single;        /* the neighbours have wishes of their own: pages come one by one */
    bool interleaved;
    bool knows_toucher;
    unsigned toucher; /* node of who touched the page */
};

/* place_wish - for page @gfn of @vm, touched as the MM_FAULT_FROM in @flags says. No lock. */
void place_wish(const struct mm_vm *vm, gfn_t gfn, unsigned flags, struct wish *out);
/* The nodes that page @gfn may be on. */
nodemask_t place_allowed(const struct mm_vm *vm, gfn_t gfn);
/* The node with most free pages of those that the policy allows for page @gfn. */
unsigned place_roomiest(const struct mm_vm *vm, gfn_t gfn);
/* wish_count - @pages came from @node; see struct mm_node_stat. */
void wish_count(struct mm_host *host, const struct wish *wish, unsigned node, uint32_t pages);

#endif
