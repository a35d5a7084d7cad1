/* SPDX-License-Identifier: Apache-2.0 */
/* Options of `ebb run`: where memory is. */
#include "vmm/option_table.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/size.h"
#include "vmm/suggest.h"

#define TEXT_BYTES 256
#define NUMA_FORM "policy=bind|preferred|interleave|local[,nodes=0-1+3][,node=0][,unit=2M|4K]"
#define TIERS_FORM "fast=0-1,slow=2: names as you like, the fastest first, + between nodes"

/* A copy of @value that may be cut up. */
static int copy_text(struct option_parse *p, const char *value, char text[TEXT_BYTES])
{
    if (snprintf(text, TEXT_BYTES, "%s", value) >= TEXT_BYTES)
        return option_bad(p, value, "is too long");
    return 0;
}

static int parse_nodes(struct option_parse *p, const char *text, uint64_t *out)
{
    switch (numa_set_parse(text, out)) {
    case 0:
        return 0;
    case -ERANGE:
        return diag_set(p->diag, EXIT_USAGE, "--%s: %.60s: nodes have numbers below %d; `numactl -H` lists this host's",
                        p->option->name, text, NUMA_MAX_NODES);
    default:
        return diag_set(p->diag, EXIT_USAGE, "--%s: \"%.60s\" names no nodes; write them as 0, as 0-1, or as 0-1+3",
                        p->option->name, text);
    }
}

/* --- --numa ------------------------------------------------------------------------------------------------- */

static const char *const mode_words[] = {"local", "bind", "preferred", "interleave", NULL};

struct numa_text {
    bool has_mode, has_nodes, has_node, has_unit, by_page;
    enum mm_policy_mode mode;
    uint64_t nodes;
};

static int read_mode(struct option_parse *p, const char *word, struct numa_text *out)
{
    char near[SUGGEST_TEXT];

    for (unsigned i = 0; mode_words[i]; i++)
        if (strcmp(word, mode_words[i]) == 0) {
            out->mode = (enum mm_policy_mode)i;
            out->has_mode = true;
            return 0;
        }
    return diag_set(p->diag, EXIT_USAGE, "--numa policy=%.40s: must be one of bind, preferred, interleave, local%s",
                    word, suggest_text(near, word, mode_words));
}

static int read_numa_part(struct option_parse *p, const char *part, struct numa_text *out)
{
    if ((out->has_mode && strncmp(part, "policy=", 7) == 0) || (out->has_nodes && strncmp(part, "nodes=", 6) == 0) ||
        (out->has_node && strncmp(part, "node=", 5) == 0) || (out->has_unit && strncmp(part, "unit=", 5) == 0))
        return option_bad(p, part, "is the second of its kind; leave one out, nodes are joined by +");
    if (strncmp(part, "policy=", 7) == 0)
        return read_mode(p, part + 7, out);
    if (strncmp(part, "nodes=", 6) == 0) {
        out->has_nodes = true;
        return parse_nodes(p, part + 6, &out->nodes);
    }
    if (strncmp(part, "node=", 5) == 0) {
        out->has_node = true;
        if (parse_nodes(p, part + 5, &out->nodes))
            return -1;
        if (out->nodes & (out->nodes - 1))
            return option_bad(p, part, "is one node; several go with nodes=");
        return 0;
    }
    if (strcmp(part, "unit=4K") == 0 || strcmp(part, "unit=2M") == 0) {
        out->has_unit = true;
        out->by_page = strcmp(part, "unit=4K") == 0;
        return 0;
    }
    if (strncmp(part, "unit=", 5) == 0)
        return option_bad(p, part, "the unit of interleaving is 2M or 4K");
    return option_bad(p, part, "is not known (nodes are joined by +, not by commas); write " NUMA_FORM);
}

static int check_numa(struct option_parse *p, const struct numa_text *numa, const char *value)
{
    if (!numa->has_mode)
        return option_bad(p, value, "names no policy; write " NUMA_FORM);
    if (numa->has_nodes && numa->has_node)
        return option_bad(p, value, "node= and nodes= exclude each other; take one of them");
    if (numa->has_unit && numa->mode != MM_POLICY_INTERLEAVE)
        return option_bad(p, value, "unit= is for policy=interleave; leave it out");
    if (numa->mode == MM_POLICY_PREFERRED && !numa->has_node)
        return option_bad(p, value, "a preferred node is one; write policy=preferred,node=1");
    if (numa->mode != MM_POLICY_PREFERRED && numa->has_node)
        return option_bad(p, value, "node= is for policy=preferred; the others take nodes=");
    if (numa->mode != MM_POLICY_LOCAL && !numa->nodes)
        return option_bad(p, value, "needs nodes, as in nodes=0-1");
    return 0;
}

static int read_numa(struct option_parse *p, const char *value)
{
    struct numa_options *out = &p->out->numa;
    char text[TEXT_BYTES], *rest = text, *part;
    struct numa_text numa = {0};

    if (copy_text(p, value, text))
        return -1;
    if (out->has_policy)
        return option_bad(p, value, "stands there twice; one policy is for all VMs");
    while ((part = strsep(&rest, ",")))
        if (read_numa_part(p, part, &numa))
            return -1;
    if (check_numa(p, &numa, value))
        return -1;
    out->has_policy = true;
    out->mode = numa.by_page ? MM_POLICY_INTERLEAVE_PAGES : numa.mode;
    out->nodes = numa.nodes;
    return 0;
}

const char *numa_mode_text(enum mm_policy_mode mode)
{
    static const char *const names[] = {"local", "bind", "preferred", "interleave by 2M", "interleave by 4K"};
    return names[mode];
}

/* --- --node-budget, --tiers ------------------------------------------------------------------------------------ */

static int read_budget(struct option_parse *p, const char *value)
{
    struct numa_options *out = &p->out->numa;
    char text[TEXT_BYTES], *size = text;
    uint64_t nodes, bytes = 0;

    if (copy_text(p, value, text))
        return -1;
    const char *node = strsep(&size, "=");
    if (!size || numa_set_parse(node, &nodes) || nodes & (nodes - 1))
        return option_bad(p, value, "write NODE=SIZE, as in 0=512M; once for each node");
    if (size_parse(size, &bytes))
        return option_bad(p, value, "that is not a size; write a number and K, M, G or T, as in 0=512M");
    if (bytes < MM_MIN_NODE_BUDGET)
        return option_bad(p, value, "is too small; the least is 2M, or leave the node out");
    if (bytes % PAGE_BYTES)
        return option_bad(p, value, "must be a multiple of 4K, the page size");
    int id = __builtin_ctzll(nodes);
    for (unsigned i = 0; i < out->nr_budgets; i++)
        if (out->budgets[i].node == id)
            return option_bad(p, value, "this node has a budget already");
    if (out->nr_budgets == MM_MAX_NODES)
        return diag_set(p->diag, EXIT_USAGE, "--node-budget: one run uses at most %d nodes", MM_MAX_NODES);
    out->budgets[out->nr_budgets++] = (struct numa_budget){id, bytes};
    return 0;
}

static int read_tier(struct option_parse *p, char *part)
{
    struct numa_options *out = &p->out->numa;
    char *nodes = part;
    const char *name = strsep(&nodes, "=");
    struct numa_tier *tier = &out->tiers[out->nr_tiers];

    if (!nodes || !*name)
        return option_bad(p, part, "names no nodes; write " TIERS_FORM);
    if (strlen(name) >= sizeof(tier->name) || name[strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-_")])
        return option_bad(p, name, "a tier's name is 1 to 15 small letters and digits");
    if (out->nr_tiers == MM_MAX_NODES)
        return diag_set(p->diag, EXIT_USAGE, "--tiers: there are at most %d", MM_MAX_NODES);
    if (parse_nodes(p, nodes, &tier->nodes))
        return -1;
    for (unsigned i = 0; i < out->nr_tiers; i++) {
        if (strcmp(out->tiers[i].name, name) == 0)
            return option_bad(p, name, "stands there twice; join nodes of one tier with +");
        if (out->tiers[i].nodes & tier->nodes)
            return diag_set(p->diag, EXIT_USAGE, "--tiers: node %d is in two tiers, %s and %s; it can be in one",
                            __builtin_ctzll(out->tiers[i].nodes & tier->nodes), out->tiers[i].name, name);
    }
    snprintf(tier->name, sizeof(tier->name), "%s", name);
    out->nr_tiers++;
    return 0;
}

static int read_tiers(struct option_parse *p, const char *value)
{
    struct numa_options *out = &p->out->numa;
    char text[TEXT_BYTES], *rest = text, *part;

    if (copy_text(p, value, text))
        return -1;
    if (out->nr_tiers)
        return option_bad(p, value, "stands there twice; name all tiers in one");
    while ((part = strsep(&rest, ",")))
        if (read_tier(p, part))
            return -1;
    if (out->nr_tiers < 2)
        return option_bad(p, value, "is one tier; at least two are needed, as in " TIERS_FORM);
    return 0;
}

/* --- rates, balancing -------------------------------------------------------------------------------------------- */

static int read_rate(struct option_parse *p, const char *value)
{
    uint64_t *out = option_target(p);
    char text[TEXT_BYTES];

    if (copy_text(p, value, text))
        return -1;
    char *unit = strchr(text, '/');
    if (unit && strcmp(unit, "/s") == 0)
        *unit = '\0';
    if (size_parse(text, out))
        return option_bad(p, value, "is no rate; write bytes a second, as in 200M/s");
    if (*out == 0)
        return option_bad(p, value, "nothing would ever move; give at least 4K/s, or leave --tiers out");
    if (*out < PAGE_BYTES)
        return option_bad(p, value, "is less than a page a second; give at least 4K/s");
    return 0;
}

static int read_balancing(struct option_parse *p, const char *value)
{
    if (strcmp(value, "on") != 0 && strcmp(value, "off") != 0)
        return option_bad(p, value, "must be one of on, off");
    p->out->numa.balancing = strcmp(value, "on") == 0;
    return 0;
}

uint64_t options_numa_guest(const struct numa_options *options)
{
    uint64_t set = 0;

    for (unsigned id = 0; id < NUMA_MAX_NODES; id++)
        if (options->guest_bytes[id])
            set |= UINT64_C(1) << id;
    return set;
}

int options_numa_check(struct numa_options *options, struct diag *diag)
{
    const char *rate = options->demote_bytes_per_s ? "demote" : options->promote_bytes_per_s ? "promote" : NULL;

    if (rate && !options->nr_tiers)
        return diag_set(diag, EXIT_USAGE, "--%s-rate is for --tiers: give --tiers fast=0,slow=1, or leave it out",
                        rate);
    if (!options->demote_bytes_per_s)
        options->demote_bytes_per_s = NUMA_DEFAULT_RATE;
    if (!options->promote_bytes_per_s)
        options->promote_bytes_per_s = NUMA_DEFAULT_RATE;
    return 0;
}

static const struct option options[] = {
    {"numa", HAS_VALUE, 0, read_numa,
     .help = "  --numa policy=bind,nodes=0-1          on these nodes and nowhere else\n"
             "  --numa policy=preferred,node=1        on this one while it has room, then on the nearest\n"
             "  --numa policy=interleave,nodes=0-1[,unit=2M|4K]\n"
             "                                        on these in turn\n"
             "  --numa policy=local[,nodes=0-1]       on the node of the vCPU that touches a page first\n"
             "                      Default: none of these, the kernel places pages. Sets of nodes: 0-1, or 0-1+3;\n"
             "                      they are joined by +, as commas come between the parts of an option\n"},
    {"node-budget", HAS_VALUE, 0, read_budget,
     .help = "  --node-budget NODE=SIZE\n"
             "                      how much of the budget is on a node; once for each, the rest is divided\n"},
    {"tiers", HAS_VALUE, 0, read_tiers,
     .help = "  --tiers fast=0-1,slow=2\n"
             "                      nodes by speed, the fastest first: cold pages go to the next slower ones\n"
             "                      before they go to zram and swap. Names are yours\n"},
    {"demote-rate", HAS_VALUE, 0, read_rate,
     .help = "  --demote-rate 200M/s, --promote-rate 100M/s\n"
             "                      the most that moves between tiers in a second; default 256M/s\n",
     OPTION_AT(numa.demote_bytes_per_s)},
    {"promote-rate", HAS_VALUE, 0, read_rate, .help = NULL, OPTION_AT(numa.promote_bytes_per_s)},
    {"numa-balancing", HAS_VALUE, 0, read_balancing,
     .help = "  --numa-balancing on|off\n"
             "                      pages follow the vCPUs that use them; default off\n"},
};

const struct option_group option_group_numa = {
    "Where it is, on hosts with several NUMA nodes (numactl -H lists them, and ebb show numa)", options,
    ARRAY_LEN(options), NULL};
