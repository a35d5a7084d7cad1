/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/views_numa.h"

#include <stdio.h>
#include <string.h>

#include "vmm/numa_plan.h"
#include "vmm/views.h"

/* The host's number of a node; null where the kernel chooses. */
static json_t *node_number(int id)
{
    return id == MM_NODE_ANY ? json_null() : json_integer(id);
}

json_t *view_pages_by_node(const struct mm_node_stat *nodes, unsigned nr, const uint64_t pages[MM_MAX_NODES])
{
    json_t *list = json_array();

    for (unsigned i = 0; i < nr; i++) {
        json_t *row = json_object();
        json_object_set_new(row, "node", node_number(nodes[i].id));
        view_put(row, "pages", pages[i]);
        json_array_append_new(list, row);
    }
    return list;
}

static json_t *host_node(const struct numa_host *host, unsigned index)
{
    const struct numa_node *node = &host->nodes[index];
    json_t *row = json_object(), *distances = json_array();
    char cpus[256];

    view_put(row, "node", (uint64_t)node->id);
    view_put(row, "total_bytes", node->total_bytes);
    view_put(row, "free_bytes", node->free_bytes);
    view_put(row, "available_bytes", node->available_bytes);
    json_object_set_new(row, "cpus", view_text(numa_cpus_text(cpus, sizeof(cpus), &node->cpus)));
    for (unsigned j = 0; j < host->nr; j++)
        json_array_append_new(distances, json_integer(node->distance[host->nodes[j].id]));
    json_object_set_new(row, "distances", distances);
    return row;
}

static void put_sizes(json_t *row, const struct mm_node_stat *node)
{
    view_put(row, "budget_bytes", node->budget_bytes);
    view_put(row, "free_bytes", node->free_bytes);
    view_put(row, "resident_bytes", node->resident_bytes);
    view_put(row, "standby_bytes", node->standby_bytes);
}

static json_t *used_node(const struct mm_node_stat *node)
{
    json_t *row = json_object();

    json_object_set_new(row, "node", node_number(node->id));
    view_put(row, "rank", node->rank);
    put_sizes(row, node);
    view_put(row, "zeroed_stock_bytes", node->zeroed_stock_bytes);
    view_put(row, "min_pages", node->wmark_pages[WMARK_MIN]);
    view_put(row, "low_pages", node->wmark_pages[WMARK_LOW]);
    view_put(row, "high_pages", node->wmark_pages[WMARK_HIGH]);
    view_put(row, "numa_hit", node->numa_hit);
    view_put(row, "numa_miss", node->numa_miss);
    view_put(row, "numa_foreign", node->numa_foreign);
    view_put(row, "interleave_hit", node->interleave_hit);
    view_put(row, "local_node", node->local_node);
    view_put(row, "other_node", node->other_node);
    return row;
}

json_t *view_nodes(const struct mm_node_stat *nodes, unsigned nr)
{
    json_t *list = json_array();

    for (unsigned i = 0; i < nr; i++)
        json_array_append_new(list, used_node(&nodes[i]));
    return list;
}

/* "bind, node 0"; "none" */
static void policy_text(const struct view_numa *numa, char *out, size_t bytes)
{
    char nodes[NUMA_SET_TEXT];
    uint64_t set = 0;

    for (unsigned i = 0; i < numa->nr_nodes; i++)
        if (numa->policy.nodes >> i & 1 && numa->nodes[i].id != MM_NODE_ANY)
            set |= UINT64_C(1) << numa->nodes[i].id;
    if (set)
        snprintf(out, bytes, "%s, %s %s", numa_mode_text(numa->policy.mode), set & (set - 1) ? "nodes" : "node",
                 numa_set_text(nodes, set));
    else
        snprintf(out, bytes, "none");
    set = numa->options ? options_numa_guest(numa->options) : 0;
    if (set)
        snprintf(out + strlen(out), bytes - strlen(out), "; guest nodes on %s", numa_set_text(nodes, set));
}

static json_t *vcpu_list(const struct view_numa_vm *vm)
{
    json_t *list = json_array();

    for (unsigned i = 0; i < vm->nr_vcpus; i++) {
        const struct view_numa_vcpu *vcpu = &vm->vcpus[i];
        json_t *row = json_object();
        view_put(row, "vcpu", vcpu->vcpu);
        view_put(row, "node", vcpu->stat.node);
        view_put(row, "numa_hint_faults", vcpu->stat.numa_hint_faults);
        view_put(row, "numa_hint_faults_local", vcpu->stat.numa_hint_faults_local);
        json_array_append_new(list, row);
    }
    return list;
}

/* The counters of mm/ whose names have @part in them. */
static void put_events(json_t *out, const struct mm_host_stat *stat, const char *part)
{
    for (unsigned i = 0; i < NR_VM_EVENTS; i++)
        if (strstr(vm_event_names[i], part))
            view_put(out, vm_event_names[i], stat->event[i]);
}

json_t *view_numa(const struct view_numa *numa, const struct view_numa_vm *vms, unsigned nr_vms)
{
    json_t *o = json_object(), *host = json_array(), *list = json_array();
    char policy[2 * NUMA_SET_TEXT + 80];

    policy_text(numa, policy, sizeof(policy));
    json_object_set_new(o, "host_nodes", host);
    for (unsigned i = 0; i < numa->host->nr; i++)
        json_array_append_new(host, host_node(numa->host, i));
    json_object_set_new(o, "nodes", view_nodes(numa->nodes, numa->nr_nodes));
    json_object_set_new(o, "vms", list);
    for (unsigned i = 0; i < nr_vms; i++) {
        json_t *row = json_object();
        json_object_set_new(row, "name", view_text(vms[i].name));
        json_object_set_new(row, "policy", view_text(policy));
        json_t *pages = view_pages_by_node(numa->nodes, numa->nr_nodes, vms[i].pages);
        json_object_set_new(row, "pages_by_node", pages);
        for (unsigned n = 0; n < numa->nr_nodes; n++)
            view_put(json_array_get(pages, n), "standby_pages", vms[i].standby_pages[n]);
        json_object_set_new(row, "vcpus", vcpu_list(&vms[i]));
        json_array_append_new(list, row);
    }
    json_t *counters = json_object();
    json_object_set_new(o, "counters", counters);
    put_events(counters, &numa->stat, "numa_");
    put_events(counters, &numa->stat, "pgmigrate_");
    return o;
}

/* All nodes of one rank. */
static json_t *tier(const struct view_numa *numa, unsigned rank)
{
    struct mm_node_stat sum = {0};
    char nodes[NUMA_SET_TEXT];
    const char *name = "-";
    uint64_t set = 0;

    for (unsigned i = 0; i < numa->nr_nodes; i++) {
        const struct mm_node_stat *node = &numa->nodes[i];
        if (node->rank != rank || node->id == MM_NODE_ANY)
            continue;
        set |= UINT64_C(1) << node->id;
        name = numa_tier_name(numa->options, node->id);
        sum.budget_bytes += node->budget_bytes;
        sum.free_bytes += node->free_bytes;
        sum.resident_bytes += node->resident_bytes;
        sum.standby_bytes += node->standby_bytes;
    }
    if (!set)
        return NULL;
    json_t *row = json_object();
    view_put(row, "rank", rank);
    json_object_set_new(row, "tier", view_text(name));
    json_object_set_new(row, "nodes", view_text(numa_set_text(nodes, set)));
    put_sizes(row, &sum);
    return row;
}

json_t *view_tiers(const struct view_numa *numa)
{
    json_t *o = json_object(), *list = json_array(), *counters = json_object();
    bool tiers = numa->options && numa->options->nr_tiers;

    view_put(o, "host_nodes", numa->host->nr);
    json_object_set_new(o, "tiers", list);
    for (unsigned rank = 0; tiers && rank < MM_MAX_NODES; rank++) {
        json_t *row = tier(numa, rank);
        if (row)
            json_array_append_new(list, row);
    }
    if (tiers) {
        view_put(o, "demote_limit_bytes_per_s", numa->options->demote_bytes_per_s);
        view_put(o, "promote_limit_bytes_per_s", numa->options->promote_bytes_per_s);
    }
    json_object_set_new(o, "counters", counters);
    put_events(counters, &numa->stat, "pgdemote_");
    put_events(counters, &numa->stat, "pgpromote_");
    return o;
}
