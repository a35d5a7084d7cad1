/* SPDX-License-Identifier: Apache-2.0 */
/* The views numa and tiers as text. */
#include "vmm/render_parts.h"

#include <errno.h>

static void put_sizes(struct table *table, const json_t *row, const char *const names[], size_t nr)
{
    for (size_t i = 0; i < nr; i++)
        table_size(table, number(row, names[i]));
}

static void put_numbers(struct table *table, const json_t *row, const char *const names[], size_t nr)
{
    for (size_t i = 0; i < nr; i++)
        put_number(table, row, names[i]);
}

/* The number of a node, or "any": pages are where the kernel likes. */
static void put_node(struct table *table, const json_t *row)
{
    const json_t *node = json_object_get(row, "node");

    if (json_is_integer(node))
        table_cell(table, "%" JSON_INTEGER_FORMAT, json_integer_value(node));
    else
        table_cell(table, "any");
}

static int render_host(const json_t *nodes, FILE *out)
{
    static const char *const sizes[] = {"total_bytes", "free_bytes", "available_bytes"};
    struct table table;

    fprintf(out, json_array_size(nodes) > 1 ? "Nodes of this host\n" : "This host has one node\n");
    table_init(&table, "rrrrl");
    titles(&table, "node total free available CPUs");
    for (size_t i = 0; i < json_array_size(nodes); i++) {
        const json_t *row = json_array_get(nodes, i);
        put_node(&table, row);
        put_sizes(&table, row, sizes, ARRAY_LEN(sizes));
        table_cell(&table, "%s", text(row, "cpus"));
    }
    return finish(&table, 2, out);
}

/* As `numactl -H` has them, if there is more than one and the table has room for them. */
static int render_distances(const json_t *nodes, FILE *out)
{
    char align[TABLE_MAX_COLUMNS + 1] = "";
    size_t nr = json_array_size(nodes);
    struct table table;

    if (nr < 2 || nr >= TABLE_MAX_COLUMNS)
        return 0;
    fprintf(out, "Distances (10: to itself)\n");
    for (size_t i = 0; i <= nr; i++)
        align[i] = 'r';
    table_init(&table, align);
    table_cell(&table, "node");
    for (size_t i = 0; i < nr; i++)
        put_node(&table, json_array_get(nodes, i));
    for (size_t i = 0; i < nr; i++) {
        const json_t *row = json_array_get(nodes, i), *distances = json_object_get(row, "distances");
        put_node(&table, row);
        for (size_t j = 0; j < nr; j++)
            table_cell(&table, "%" JSON_INTEGER_FORMAT, json_integer_value(json_array_get(distances, j)));
    }
    return finish(&table, 2, out);
}

static int render_budgets(const json_t *nodes, FILE *out)
{
    static const char *const sizes[] = {"budget_bytes", "free_bytes", "resident_bytes", "standby_bytes"};
    static const char *const marks[] = {"min_pages", "low_pages", "high_pages"};
    struct table table;

    fprintf(out, "The budget by node (min, low, high: free pages at which reclaim begins and ends)\n");
    table_init(&table, "rrrrrrrr");
    titles(&table, "node budget free resident standby min low high");
    for (size_t i = 0; i < json_array_size(nodes); i++) {
        const json_t *row = json_array_get(nodes, i);
        put_node(&table, row);
        put_sizes(&table, row, sizes, ARRAY_LEN(sizes));
        put_numbers(&table, row, marks, ARRAY_LEN(marks));
    }
    return finish(&table, 2, out);
}

static int render_counts(const json_t *nodes, FILE *out)
{
    static const char *const names[] = {"numa_hit",       "numa_miss",  "numa_foreign",
                                        "interleave_hit", "local_node", "other_node"};
    struct table table;

    fprintf(out, "Pages so far, as in numastat(8)\n");
    table_init(&table, "rrrrrrr");
    titles(&table, "node numa_hit numa_miss numa_foreign interleave_hit local_node other_node");
    for (size_t i = 0; i < json_array_size(nodes); i++) {
        put_node(&table, json_array_get(nodes, i));
        put_numbers(&table, json_array_get(nodes, i), names, ARRAY_LEN(names));
    }
    return finish(&table, 2, out);
}

static int render_vms(const json_t *vms, FILE *out)
{
    struct table table;

    fprintf(out, "Pages of the VMs by node\n");
    table_init(&table, "llrrr");
    titles(&table, "vm policy node resident standby");
    for (size_t i = 0; i < json_array_size(vms); i++) {
        const json_t *vm = json_array_get(vms, i), *nodes = json_object_get(vm, "pages_by_node");
        for (size_t k = 0; k < json_array_size(nodes); k++) {
            table_cell(&table, "%s", k ? "" : text(vm, "name"));
            table_cell(&table, "%s", k ? "" : text(vm, "policy"));
            put_node(&table, json_array_get(nodes, k));
            table_count(&table, number(json_array_get(nodes, k), "pages"));
            table_count(&table, number(json_array_get(nodes, k), "standby_pages"));
        }
    }
    return finish(&table, 2, out);
}

static int render_vcpus(const json_t *vms, FILE *out)
{
    bool any = false;
    struct table table;

    for (size_t i = 0; i < json_array_size(vms); i++)
        any = any || json_array_size(json_object_get(json_array_get(vms, i), "vcpus"));
    if (!any)
        return 0;
    fprintf(out, "Touches of pages that were out to see who touches them\n");
    table_init(&table, "lrrrr");
    titles(&table, "vm vcpu node hint_faults local");
    for (size_t i = 0; i < json_array_size(vms); i++) {
        const json_t *vm = json_array_get(vms, i), *vcpus = json_object_get(vm, "vcpus");
        for (size_t k = 0; k < json_array_size(vcpus); k++) {
            const json_t *vcpu = json_array_get(vcpus, k);
            table_cell(&table, "%s", k ? "" : text(vm, "name"));
            put_number(&table, vcpu, "vcpu");
            put_node(&table, vcpu);
            put_number(&table, vcpu, "numa_hint_faults");
            put_number(&table, vcpu, "numa_hint_faults_local");
        }
    }
    return finish(&table, 2, out);
}

static void render_counters(const json_t *counters, FILE *out)
{
    const char *name;
    json_t *value;

    json_object_foreach((json_t *)(uintptr_t)counters, name, value)
        fprintf(out, "%s %" JSON_INTEGER_FORMAT "\n", name, json_integer_value(value));
}

int render_numa(const json_t *json, FILE *out)
{
    const json_t *host = json_object_get(json, "host_nodes"), *nodes = json_object_get(json, "nodes");
    int error = render_host(host, out);

    if (!error)
        error = render_distances(host, out);
    if (!error && json_array_size(nodes) && !json_is_integer(json_object_get(json_array_get(nodes, 0), "node")))
        fprintf(out, "Not bound: the kernel places pages as it likes; `ebb run --numa` says where\n");
    if (!error)
        error = render_budgets(nodes, out);
    if (!error)
        error = render_counts(nodes, out);
    if (!error)
        error = render_vms(json_object_get(json, "vms"), out);
    if (!error)
        error = render_vcpus(json_object_get(json, "vms"), out);
    render_counters(json_object_get(json, "counters"), out);
    return error;
}

int render_tiers(const json_t *json, FILE *out)
{
    static const char *const sizes[] = {"budget_bytes", "free_bytes", "resident_bytes", "standby_bytes"};
    const json_t *tiers = json_object_get(json, "tiers");
    struct table table;

    if (!json_array_size(tiers)) {
        fprintf(out, number(json, "host_nodes") > 1
                         ? "no tiers; `ebb run --tiers fast=0,slow=1` makes them of this host's nodes\n"
                         : "no tiers: this host has one node of memory, tiers take two\n");
        return 0;
    }
    table_init(&table, "rllrrrr");
    titles(&table, "rank tier nodes budget free resident standby");
    for (size_t i = 0; i < json_array_size(tiers); i++) {
        const json_t *row = json_array_get(tiers, i);
        put_number(&table, row, "rank");
        table_cell(&table, "%s", text(row, "tier"));
        table_cell(&table, "%s", text(row, "nodes"));
        put_sizes(&table, row, sizes, ARRAY_LEN(sizes));
    }
    int error = finish(&table, 0, out);
    table_init(&table, "lr");
    table_cell(&table, "at most a second, demoted");
    table_size(&table, number(json, "demote_limit_bytes_per_s"));
    table_cell(&table, "at most a second, promoted");
    table_size(&table, number(json, "promote_limit_bytes_per_s"));
    int error2 = finish(&table, 0, out);
    render_counters(json_object_get(json, "counters"), out);
    return error ? error : error2;
}
