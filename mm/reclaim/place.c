/* SPDX-License-Identifier: Apache-2.0 */
/* See place.h. */
#include "mm/reclaim/place.h"

static struct mm_policy policy_of(const struct mm_vm *vm, gfn_t gfn)
{
    for (unsigned i = vm->nr_places; i-- > 0;)
        if (gfn >= vm->places[i].start && gfn < vm->places[i].end)
            return vm->places[i].policy;
    return (struct mm_policy){.mode = MM_POLICY_LOCAL, .nodes = (nodemask_t)((1u << vm->host->nr_nodes) - 1)};
}

/* Number @index, modulo how many there are, of the nodes in @mask. */
static unsigned nth_node(nodemask_t mask, uint32_t index)
{
    for (index %= (uint32_t)__builtin_popcount(mask); index > 0; index--)
        mask = (nodemask_t)(mask & (mask - 1));
    return (unsigned)__builtin_ctz(mask);
}

static unsigned nearest_allowed(const struct mm_host *host, unsigned from, nodemask_t mask)
{
    const uint8_t *nearest = host->node[from].nearest;
    unsigned i = 0;
    while (!(mask >> nearest[i] & 1))
        i++;
    return nearest[i];
}

void place_wish(const struct mm_vm *vm, gfn_t gfn, unsigned flags, struct wish *out)
{
    const struct mm_host *host = vm->host;
    unsigned from = flags >> 16 & 15;
    *out = (struct wish){.knows_toucher = from > 0, .allowed = (nodemask_t)((1u << host->nr_nodes) - 1)};
    if (host->nr_nodes == 1)
        return;
    struct mm_policy policy = policy_of(vm, gfn);
    /* a device, for one: what it touches is for the vCPUs */
    out->toucher = from > 0 && from <= host->nr_nodes ? from - 1 : __atomic_load_n(&vm->toucher, __ATOMIC_RELAXED);
    out->node = nearest_allowed(host, out->toucher, policy.nodes);
    switch (policy.mode) {
    case MM_POLICY_LOCAL:
    case MM_POLICY_BIND:
        out->allowed = policy.nodes;
        break;
    case MM_POLICY_PREFERRED:
        out->node = nth_node(policy.nodes, 0);
        break;
    case MM_POLICY_INTERLEAVE:
    case MM_POLICY_INTERLEAVE_PAGES:
        out->single = policy.mode == MM_POLICY_INTERLEAVE_PAGES;
        out->interleaved = true;
        out->node = nth_node(policy.nodes, out->single ? gfn : gfn >> BLOCK_ORDER);
        break;
    }
}

nodemask_t place_allowed(const struct mm_vm *vm, gfn_t gfn)
{
    struct wish wish;
    place_wish(vm, gfn, 0, &wish);
    return wish.allowed;
}

unsigned place_roomiest(const struct mm_vm *vm, gfn_t gfn)
{
    const struct mm_host *host = vm->host;
    struct wish wish;
    place_wish(vm, gfn, 0, &wish);
    unsigned best = wish.node;
    for (unsigned n = 0; n < host->nr_nodes; n++)
        if (wish.allowed >> n & 1 && pool_nr_free(&host->node[n].pool) > pool_nr_free(&host->node[best].pool))
            best = n;
    return best;
}

void wish_count(struct mm_host *host, const struct wish *wish, unsigned node, uint32_t pages)
{
    struct numa_counts *got = &host->node[node].numa;
    bool hit = node == wish->node;
    counter_add(hit ? &got->hit : &got->miss, pages);
    if (!hit)
        counter_add(&host->node[wish->node].numa.foreign, pages);
    if (hit && wish->interleaved)
        counter_add(&got->interleave_hit, pages);
    if (wish->knows_toucher)
        counter_add(node == wish->toucher ? &got->local : &got->other, pages);
}
