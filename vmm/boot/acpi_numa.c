/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/boot/acpi_numa.h"

enum { SRAT_ENABLED = 1 << 0, SRAT_HOT_PLUGGABLE = 1 << 1 };

/* --- SRAT ------------------------------------------------------------------------------------------ */

/* As in the MADT: a local APIC, whose id has 8 bits. */
static void put_cpu(struct acpi_table *table, unsigned cpu, unsigned node)
{
    acpi_put_u8(table, 0); /* local APIC affinity */
    acpi_put_u8(table, 16);
    acpi_put_u8(table, (uint8_t)node);
    acpi_put_u8(table, (uint8_t)cpu);
    acpi_put_u32(table, SRAT_ENABLED);
    acpi_put_zeros(table, 16 - 8); /* EID, the domain's upper bytes, clock domain */
}

static void put_memory(struct acpi_table *table, unsigned node, gpa_t start, uint64_t bytes, uint32_t flags)
{
    acpi_put_u8(table, 1); /* memory affinity */
    acpi_put_u8(table, 40);
    acpi_put_u32(table, node);
    acpi_put_u16(table, 0);
    acpi_put_u64(table, start.v);
    acpi_put_u64(table, bytes);
    acpi_put_u32(table, 0);
    acpi_put_u32(table, flags);
    acpi_put_u64(table, 0);
}

/* Node by node: Linux numbers nodes as it meets them, those of vCPUs before those of memory alone. */
static void put_cpus(struct acpi_table *table, const struct acpi_numa *numa)
{
    for (unsigned node = 0; node < numa->nodes->nr_nodes; node++)
        for (unsigned cpu = 0; cpu < numa->nr_cpus; cpu++)
            if (guest_numa_of_cpu(numa->nodes, cpu) == node)
                put_cpu(table, cpu, node);
}

static int add_srat(struct acpi_tables *tables, const struct acpi_numa *numa)
{
    struct acpi_table table;

    acpi_table_start(&table, "SRAT", 3);
    acpi_put_u32(&table, 1); /* a reserved field that must be 1 */
    acpi_put_u64(&table, 0);
    put_cpus(&table, numa);
    for (unsigned node = 0; node < numa->nodes->nr_nodes; node++) {
        struct guest_numa_range range[2];
        unsigned nr = guest_numa_range(numa->nodes, node, numa->low_bytes, range);

        for (unsigned i = 0; i < nr; i++)
            put_memory(&table, node, range[i].start, range[i].bytes, SRAT_ENABLED);
    }
    if (numa->hotplug_bytes > 0)
        put_memory(&table, numa->hotplug_node, numa->hotplug_gpa, numa->hotplug_bytes,
                   SRAT_ENABLED | SRAT_HOT_PLUGGABLE);
    return acpi_table_finish(&table, tables, true, NULL);
}

/* --- SLIT ------------------------------------------------------------------------------------------ */

static int add_slit(struct acpi_tables *tables, const struct guest_numa *nodes)
{
    struct acpi_table table;

    acpi_table_start(&table, "SLIT", 1);
    acpi_put_u64(&table, nodes->nr_nodes);
    for (unsigned i = 0; i < nodes->nr_nodes; i++)
        acpi_put(&table, nodes->distance[i], nodes->nr_nodes);
    return acpi_table_finish(&table, tables, true, NULL);
}

/* --- HMAT ------------------------------------------------------------------------------------------ */

/* A node of memory alone has no initiator of its own: the guest finds the nearest by latency and bandwidth. */
static void put_attributes(struct acpi_table *table, const struct guest_numa *nodes, unsigned node)
{
    bool has_cpus = nodes->node[node].cpus != 0;

    acpi_put_u16(table, 0); /* memory proximity domain attributes */
    acpi_put_u16(table, 0);
    acpi_put_u32(table, 40);
    acpi_put_u16(table, has_cpus); /* the initiator is valid */
    acpi_put_u16(table, 0);
    acpi_put_u32(table, has_cpus ? node : 0);
    acpi_put_u32(table, node);
    acpi_put_zeros(table, 40 - 20);
}

enum hmat_data { HMAT_ACCESS_LATENCY = 0, HMAT_ACCESS_BANDWIDTH = 3 };

/* In units of 1000 ps, or of 1 MB/s. */
static uint16_t hmat_entry(enum hmat_data data, unsigned distance)
{
    return (uint16_t)(data == HMAT_ACCESS_LATENCY ? distance * ACPI_NUMA_LATENCY_NS : ACPI_NUMA_BANDWIDTH / distance);
}

static void put_locality(struct acpi_table *table, const struct guest_numa *nodes, enum hmat_data data)
{
    unsigned nr_initiators = 0, nr = nodes->nr_nodes;

    for (unsigned i = 0; i < nr; i++)
        nr_initiators += nodes->node[i].cpus != 0;
    acpi_put_u16(table, 1); /* system locality latency and bandwidth information */
    acpi_put_u16(table, 0);
    acpi_put_u32(table, 32 + 4 * nr_initiators + 4 * nr + 2 * nr_initiators * nr);
    acpi_put_u8(table, 0); /* of the memory itself, not of a cache */
    acpi_put_u8(table, (uint8_t)data);
    acpi_put_u16(table, 0);
    acpi_put_u32(table, nr_initiators);
    acpi_put_u32(table, nr);
    acpi_put_u32(table, 0);
    acpi_put_u64(table, data == HMAT_ACCESS_LATENCY ? 1000 : 1);
    for (unsigned i = 0; i < nr; i++)
        if (nodes->node[i].cpus)
            acpi_put_u32(table, i);
    for (unsigned i = 0; i < nr; i++)
        acpi_put_u32(table, i);
    for (unsigned i = 0; i < nr; i++)
        for (unsigned j = 0; nodes->node[i].cpus && j < nr; j++)
            acpi_put_u16(table, hmat_entry(data, nodes->distance[i][j]));
}

static int add_hmat(struct acpi_tables *tables, const struct guest_numa *nodes)
{
    struct acpi_table table;

    acpi_table_start(&table, "HMAT", 2);
    acpi_put_u32(&table, 0);
    for (unsigned i = 0; i < nodes->nr_nodes; i++)
        put_attributes(&table, nodes, i);
    put_locality(&table, nodes, HMAT_ACCESS_LATENCY);
    put_locality(&table, nodes, HMAT_ACCESS_BANDWIDTH);
    return acpi_table_finish(&table, tables, true, NULL);
}

int acpi_add_numa(struct acpi_tables *tables, const struct acpi_numa *numa)
{
    int err = add_srat(tables, numa);

    if (!err)
        err = add_slit(tables, numa->nodes);
    return err ? err : add_hmat(tables, numa->nodes);
}
