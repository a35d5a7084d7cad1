/* SPDX-License-Identifier: Apache-2.0 */
/*
 * acpi_numa: the tables by which a guest learns of its nodes. The proximity domain of a node is its number.
 *
 *   SRAT   which vCPUs and which addresses are of which node; virtio-mem's region, as memory to be plugged
 *   SLIT   how far nodes are from each other
 *   HMAT   latency and bandwidth from every node with vCPUs to every node, which follow from the distances:
 *          10 ns times the distance, 100,000 MB/s through the distance (100 ns and 10,000 MB/s at home)
 *
 * Source: ACPI specification 6.5, sections 5.2.16, 5.2.17 and 5.2.28.
 */
#ifndef VMM_BOOT_ACPI_NUMA_H
#define VMM_BOOT_ACPI_NUMA_H

#include "vmm/boot/acpi.h"
#include "vmm/guest_numa.h"

#define ACPI_NUMA_LATENCY_NS 10     /* per unit of distance */
#define ACPI_NUMA_BANDWIDTH 100000u /* MB/s, at a distance of 1 */

struct acpi_numa {
    const struct guest_numa *nodes; /* at least one; guest_numa_finish has said that they are good */
    unsigned nr_cpus;               /* APIC ids 0 .. nr_cpus - 1 */
    uint64_t low_bytes;             /* of memory below the hole */
    gpa_t hotplug_gpa;              /* of virtio-mem's region */
    uint64_t hotplug_bytes;         /* 0: none */
    unsigned hotplug_node;
};

/* Between acpi_add_platform and acpi_finish. Results of acpi_table_finish. */
must_check int acpi_add_numa(struct acpi_tables *tables, const struct acpi_numa *numa);

#endif
