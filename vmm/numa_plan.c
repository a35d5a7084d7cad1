/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/numa_plan.h"

#include <string.h>

#include "vmm/size.h"

/* What is left on a node that is filled as far as there is room: for the kernel, and page tables. Chosen, unmeasured. */
#define SPARE_PART 16
/* The least part of the budget that a node of a tier has: without it there is nowhere to demote to. Chosen. */
#define TIER_PART 16

struct plan_node {
    const struct numa_node *host;
    unsigned level; /* the lower ones are filled first */
    uint64_t budget;
    uint64_t weight; /* among those of its level */
    bool fixed;      /* by --node-budget */
};

struct plan {
    const struct numa_options *options;
    const struct numa_host *host;
    struct diag *diag;
    uint64_t budget, rest; /* rest: on no node yet */
    bool strict;           /* equal parts, whatever there is room for */
    unsigned nr, nr_levels;
    struct plan_node nodes[NUMA_MAX_NODES];
};

static bool has(uint64_t set, int id)
{
    return set >> id & 1;
}

/* --- which nodes --------------------------------------------------------------------------------------------- */

/* Every node of @set is there and has memory. @what: the option. */
static int check_set(const struct plan *p, const char *what, uint64_t set)
{
    char text[NUMA_SET_TEXT];
    uint64_t all = 0;

    for (unsigned i = 0; i < p->host->nr; i++)
        all |= UINT64_C(1) << p->host->nodes[i].id;
    if (set & ~all)
        return diag_set(p->diag, EXIT_USAGE, "--%s: this host has no node %d; it has %s", what,
                        __builtin_ctzll(set & ~all), numa_set_text(text, all));
    set &= ~numa_host_with_memory(p->host);
    if (set)
        return diag_set(p->diag, EXIT_USAGE, "--%s: node %d has no memory that this process may use; those that do: %s",
                        what, __builtin_ctzll(set), numa_set_text(text, numa_host_with_memory(p->host)));
    return 0;
}

static int check_sets(const struct plan *p)
{
    const struct numa_options *o = p->options;
    char text[NUMA_SET_TEXT];
    uint64_t tiers = 0, guest = options_numa_guest(o);

    for (unsigned i = 0; i < o->nr_tiers; i++)
        tiers |= o->tiers[i].nodes;
    for (unsigned i = 0; i < o->nr_budgets; i++)
        if (check_set(p, "node-budget", UINT64_C(1) << o->budgets[i].node))
            return -1;
    if (check_set(p, "numa", o->nodes) || check_set(p, "tiers", tiers) || check_set(p, "guest-numa", guest))
        return -1;
    uint64_t usable = tiers ? tiers : o->has_policy && o->mode != MM_POLICY_PREFERRED && o->nodes ? o->nodes : guest;
    if (guest & ~usable)
        return diag_set(p->diag, EXIT_USAGE, "--guest-numa: host=%d is not among the nodes of %s, %s",
                        __builtin_ctzll(guest & ~usable), tiers ? "--tiers" : "--numa", numa_set_text(text, usable));
    if (tiers && o->nodes & ~tiers)
        return diag_set(p->diag, EXIT_USAGE, "--numa: node %d is in no tier; --tiers has %s",
                        __builtin_ctzll(o->nodes & ~tiers), numa_set_text(text, tiers));
    return 0;
}

static void add_nodes(struct plan *p, uint64_t set, unsigned level)
{
    for (unsigned i = 0; i < p->host->nr; i++)
        if (has(set, p->host->nodes[i].id))
            p->nodes[p->nr++] = (struct plan_node){.host = &p->host->nodes[i], .level = level, .weight = 1};
    p->nr_levels = MAX_OF(p->nr_levels, level + 1);
}

/* The preferred node, then all others that have memory, the nearest first. */
static void add_by_distance(struct plan *p, uint64_t first)
{
    const struct numa_node *from = numa_host_node(p->host, __builtin_ctzll(first));
    uint64_t left = numa_host_with_memory(p->host) & ~first;

    add_nodes(p, first, 0);
    for (unsigned level = 1; left; level++) {
        int nearest = __builtin_ctzll(left);
        for (int id = nearest; id < NUMA_MAX_NODES; id++)
            if (has(left, id) && from->distance[id] < from->distance[nearest])
                nearest = id;
        add_nodes(p, UINT64_C(1) << nearest, level);
        left &= ~(UINT64_C(1) << nearest);
    }
}

/* Where nothing is named: nodes with CPUs, for who touches a page runs there, and those that were given a budget. */
static uint64_t local_nodes(const struct plan *p)
{
    uint64_t memory = numa_host_with_memory(p->host), set = numa_host_with_cpus(p->host) & memory;

    for (unsigned i = 0; i < p->options->nr_budgets; i++)
        set |= UINT64_C(1) << p->options->budgets[i].node;
    set |= options_numa_guest(p->options);
    return set ? set : memory;
}

/* By how much guest memory is to be on each node; what may be on any of them counts for all alike. */
static void weigh_nodes(struct plan *p)
{
    uint64_t other = p->options->guest_other_bytes / p->nr;

    for (unsigned i = 0; i < p->nr; i++)
        p->nodes[i].weight = MAX_OF((p->options->guest_bytes[p->nodes[i].host->id] + other) / BLOCK_BYTES, 1u);
}

static void choose_nodes(struct plan *p)
{
    const struct numa_options *o = p->options;
    uint64_t budgets = 0, guest = options_numa_guest(o);

    for (unsigned i = 0; i < o->nr_budgets; i++)
        budgets |= UINT64_C(1) << o->budgets[i].node;
    for (unsigned i = 0; i < o->nr_tiers; i++)
        add_nodes(p, o->tiers[i].nodes, i);
    if (o->nr_tiers)
        return;
    if (!o->has_policy && (budgets || (guest && !o->guest_other_bytes)))
        add_nodes(p, budgets | guest, 0);
    else if (!o->has_policy || (o->mode == MM_POLICY_LOCAL && !o->nodes))
        add_nodes(p, local_nodes(p), 0);
    else if (o->mode == MM_POLICY_PREFERRED)
        add_by_distance(p, o->nodes);
    else
        add_nodes(p, o->nodes, 0);
    if (guest && (!o->has_policy || o->mode != MM_POLICY_PREFERRED))
        weigh_nodes(p);
    p->strict = o->has_policy && o->mode != MM_POLICY_LOCAL && o->mode != MM_POLICY_PREFERRED;
}

/* --- how much ------------------------------------------------------------------------------------------------ */

static int fix_budgets(struct plan *p)
{
    char sum[SIZE_TEXT], all[SIZE_TEXT];
    unsigned nr_fixed = 0;

    for (unsigned i = 0; i < p->options->nr_budgets; i++) {
        const struct numa_budget *budget = &p->options->budgets[i];
        struct plan_node *node = p->nodes;
        while (node < p->nodes + p->nr && node->host->id != budget->node)
            node++;
        if (node == p->nodes + p->nr)
            return diag_set(p->diag, EXIT_USAGE, "--node-budget %d: neither --numa nor --tiers names this node",
                            budget->node);
        node->fixed = true;
        node->budget = budget->bytes;
        p->rest -= MIN_OF(budget->bytes, p->rest);
        nr_fixed++;
    }
    uint64_t total = 0;
    for (unsigned i = 0; i < p->nr; i++)
        total += p->nodes[i].budget;
    if (total > p->budget || (nr_fixed == p->nr && total != p->budget))
        return diag_set(p->diag, EXIT_USAGE, "--node-budget: the nodes' parts sum up to %s, and --budget is %s; %s",
                        size_option(sum, total), size_option(all, p->budget),
                        total > p->budget ? "give the nodes less" : "they must be equal");
    return 0;
}

/* Bytes that a node can have beyond what it was given, for one that is filled as far as there is room. */
static uint64_t room_of(const struct plan_node *node)
{
    uint64_t room = node->host->available_bytes - node->host->available_bytes / SPARE_PART;

    return room > node->budget ? (room - node->budget) / BLOCK_BYTES * BLOCK_BYTES : 0;
}

static bool takes(const struct plan *p, const struct plan_node *node, unsigned level)
{
    return !node->fixed && node->level == level && (p->strict || room_of(node) > 0);
}

/* The least part of each node of a tier, as far as there is room. */
static void give_least(struct plan *p)
{
    uint64_t least = MAX_OF(p->budget / TIER_PART / BLOCK_BYTES * BLOCK_BYTES, MM_MIN_NODE_BUDGET);

    for (unsigned i = 0; i < p->nr; i++) {
        struct plan_node *node = &p->nodes[i];
        uint64_t bytes = MIN_OF(least, MIN_OF(room_of(node), p->rest));
        if (node->fixed)
            continue;
        node->budget += bytes;
        p->rest -= bytes;
    }
}

/* Whole blocks to the nodes of @level, by their weights; who has no room leaves its part to the others. */
static void fill_level(struct plan *p, unsigned level)
{
    for (;;) {
        uint64_t all = 0, blocks = p->rest / BLOCK_BYTES;
        for (unsigned i = 0; i < p->nr; i++)
            all += takes(p, &p->nodes[i], level) ? p->nodes[i].weight : 0;
        if (!all || !blocks)
            return;
        for (unsigned i = 0; i < p->nr && p->rest >= BLOCK_BYTES; i++) {
            struct plan_node *node = &p->nodes[i];
            if (!takes(p, node, level))
                continue;
            /* 0: fewer blocks than nodes, the first ones get one each */
            uint64_t part = MAX_OF(blocks * node->weight / all, 1u) * BLOCK_BYTES;
            uint64_t bytes = MIN_OF(part, p->strict ? p->rest : room_of(node));
            bytes = MIN_OF(bytes, p->rest / BLOCK_BYTES * BLOCK_BYTES);
            node->budget += bytes;
            p->rest -= bytes;
        }
    }
}

static void give_rest(struct plan *p, bool used)
{
    for (unsigned level = 0; level < p->nr_levels && p->rest; level++)
        for (unsigned i = 0; i < p->nr && p->rest; i++) {
            struct plan_node *node = &p->nodes[i];
            if (node->fixed || node->level != level || (used && !node->budget))
                continue;
            node->budget += p->rest;
            p->rest = 0;
        }
}

/* Less than a block is left: to the first node that has a part already; where none has, check_parts names the node. */
static void give_remainder(struct plan *p)
{
    give_rest(p, true);
    give_rest(p, false);
}

static int spread(struct plan *p)
{
    char rest[SIZE_TEXT], room[SIZE_TEXT], nodes[NUMA_SET_TEXT];
    uint64_t set = 0, room_bytes = 0, wanted = p->rest;

    for (unsigned i = 0; i < p->nr; i++) {
        if (p->nodes[i].fixed)
            continue;
        set |= UINT64_C(1) << p->nodes[i].host->id;
        room_bytes += room_of(&p->nodes[i]);
    }
    if (p->options->nr_tiers)
        give_least(p);
    for (unsigned level = 0; level < p->nr_levels; level++)
        fill_level(p, level);
    if (p->rest >= BLOCK_BYTES)
        return diag_set(
            p->diag, EXIT_USAGE,
            "%s of the budget are to be on %s %s, where there is room for %s; give a smaller --budget or more nodes",
            size_text(rest, wanted), set & (set - 1) ? "nodes" : "node", numa_set_text(nodes, set),
            size_text(room, room_bytes));
    give_remainder(p);
    return 0;
}

/* What cannot be: a part too small to work with, or more than the node has. */
static int check_parts(const struct plan *p)
{
    char part[SIZE_TEXT], room[SIZE_TEXT];

    for (unsigned i = 0; i < p->nr; i++) {
        const struct plan_node *node = &p->nodes[i];
        /* Where the budget is divided as there is room, a node that gets nothing is not used. */
        bool named = p->strict || p->options->nr_tiers ||
                     has(p->options->nodes | options_numa_guest(p->options), node->host->id);
        if (node->budget < MM_MIN_NODE_BUDGET && (node->budget || named))
            return diag_set(p->diag, EXIT_USAGE,
                            "node %d would have %s of the budget, too little to work with; the least is 2M: give a "
                            "larger --budget, fewer nodes, or --node-budget %d=SIZE",
                            node->host->id, size_text(part, node->budget), node->host->id);
        if (node->budget > node->host->available_bytes)
            return diag_set(p->diag, EXIT_USAGE,
                            "node %d is to have %s of the budget, and has %s free; give it less, or name more nodes",
                            node->host->id, size_text(part, node->budget),
                            size_text(room, node->host->available_bytes));
    }
    return 0;
}

/* --- the result ---------------------------------------------------------------------------------------------- */

static const struct plan_node *find(const struct plan *p, int id)
{
    for (unsigned i = 0; i < p->nr; i++)
        if (p->nodes[i].host->id == id && p->nodes[i].budget)
            return &p->nodes[i];
    return NULL;
}

static int fill_config(const struct plan *p, struct mm_config *config)
{
    struct mm_node_config *nodes = config->nodes;
    unsigned nr = 0;

    for (int id = 0; id < NUMA_MAX_NODES; id++) {
        const struct plan_node *node = find(p, id);
        if (!node)
            continue;
        if (nr == MM_MAX_NODES)
            return diag_set(p->diag, EXIT_USAGE,
                            "one run uses at most %d nodes; name them with --numa, nodes=", MM_MAX_NODES);
        nodes[nr++] = (struct mm_node_config){
            .id = id,
            .budget_bytes = node->budget,
            .rank = (uint8_t)(p->options->nr_tiers ? node->level : 0),
        };
    }
    for (unsigned i = 0; i < nr; i++)
        for (unsigned j = 0; j < nr; j++)
            nodes[i].distance[j] = numa_host_node(p->host, nodes[i].id)->distance[nodes[j].id];
    config->nr_nodes = nr;
    return 0;
}

static void fill_policy(const struct plan *p, const struct mm_config *config, struct mm_policy *policy)
{
    uint64_t named = p->options->nodes;

    policy->mode = p->options->has_policy ? p->options->mode : MM_POLICY_LOCAL;
    policy->nodes = 0;
    for (unsigned i = 0; i < config->nr_nodes; i++)
        if (!named || has(named, config->nodes[i].id))
            policy->nodes |= (uint8_t)(1u << i);
}

static bool host_has_one_node(const struct numa_host *host)
{
    return __builtin_popcountll(numa_host_with_memory(host)) == 1;
}

/*
 * Balancing brings pages to who uses them: from another node, to one that has CPUs. Where the host has one node that
 * is no mistake of whoever asked, so it is said and nothing else.
 */
static int check_balancing(const struct plan *p)
{
    unsigned nr = 0, nr_with_cpus = 0;
    bool asked =
        p->options->has_policy || p->options->nr_tiers || p->options->nr_budgets || options_numa_guest(p->options);

    for (unsigned i = 0; i < p->nr; i++) {
        nr += p->nodes[i].budget > 0;
        nr_with_cpus += p->nodes[i].budget && p->nodes[i].host->nr_cpus;
    }
    if (!p->options->balancing || (nr > 1 && nr_with_cpus) || !asked || host_has_one_node(p->host))
        return 0;
    return diag_set(p->diag, EXIT_USAGE, "--numa-balancing on: %s, there is nothing to balance; leave it out",
                    nr > 1 ? "no node with a part of the budget has CPUs" : "the budget is on one node");
}

int numa_plan(const struct numa_options *options, const struct numa_host *host, struct mm_config *config,
              struct mm_policy *policy, struct diag *diag)
{
    struct plan p = {
        .options = options,
        .host = host,
        .diag = diag,
        .budget = config->budget_bytes,
        .rest = config->budget_bytes,
    };
    bool balancing = options->balancing && __builtin_popcountll(numa_host_with_memory(host)) > 1;

    config->nr_nodes = 0;
    *policy = (struct mm_policy){.mode = MM_POLICY_LOCAL};
    if (!options->has_policy && !options->nr_tiers && !options->nr_budgets && !balancing &&
        !options_numa_guest(options))
        return 0;
    if (check_sets(&p))
        return -1;
    choose_nodes(&p);
    if (fix_budgets(&p) || spread(&p) || check_parts(&p) || check_balancing(&p) || fill_config(&p, config))
        return -1;
    fill_policy(&p, config, policy);
    config->numa_balancing = options->balancing && config->nr_nodes > 1;
    config->demote_bytes_per_s = options->demote_bytes_per_s;
    config->promote_bytes_per_s = options->promote_bytes_per_s;
    return 0;
}

const char *numa_tier_name(const struct numa_options *options, int id)
{
    for (unsigned i = 0; i < options->nr_tiers; i++)
        if (has(options->tiers[i].nodes, id))
            return options->tiers[i].name;
    return "-";
}
