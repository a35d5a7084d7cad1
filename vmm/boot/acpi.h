/* SPDX-License-Identifier: Apache-2.0 */
/*
 * acpi: what a guest is told about its machine: hardware-reduced ACPI (no PM timer, no SCI, no legacy interrupts).
 *
 *   RSDP (at the start) -> XSDT -> FADT -> DSDT
 *                               -> MADT, and whatever else was added before acpi_finish
 *
 * A table is made in a struct acpi_table and then written: acpi_table_start, acpi_put..., acpi_table_finish. Others, as
 * those of NUMA (vmm/boot/acpi_numa.h), are added the same way between acpi_add_platform and acpi_finish.
 * Source: ACPI specification 6.4, chapters 4 and 5.
 */
#ifndef VMM_BOOT_ACPI_H
#define VMM_BOOT_ACPI_H

#include "mm/map/guest_mem.h"

#define ACPI_MAX_TABLES 16     /* in the XSDT */
#define ACPI_TABLE_BYTES 16384 /* largest table */

/* Where tables go. */
struct acpi_tables {
    const struct guest_mem *mem;
    gpa_t rsdp, next, end;
    unsigned nr;
    uint64_t listed[ACPI_MAX_TABLES];
};

/* One table in the making. What does not fit is noted, and acpi_table_finish says so. */
struct acpi_table {
    uint32_t bytes;
    bool full;
    uint8_t data[ACPI_TABLE_BYTES];
};

void acpi_table_start(struct acpi_table *table, const char signature[4], uint8_t revision);
void acpi_put(struct acpi_table *table, const void *data, uint32_t bytes);
void acpi_put_u8(struct acpi_table *table, uint8_t value);
void acpi_put_u16(struct acpi_table *table, uint16_t value);
void acpi_put_u32(struct acpi_table *table, uint32_t value);
void acpi_put_u64(struct acpi_table *table, uint64_t value);
void acpi_put_zeros(struct acpi_table *table, uint32_t bytes);

/*
 * acpi_table_finish - length and checksum, then to the next free address, *at (may be NULL). @listed: in the XSDT.
 * 0; -ENOSPC: too large, or too many; -EFAULT: no such guest memory. After an error nothing is written.
 */
must_check int acpi_table_finish(struct acpi_table *table, struct acpi_tables *tables, bool listed, gpa_t *at);

/* The RSDP will stand at @start, a multiple of 16 in 0xe0000 .. 0xfffff, where it can also be searched for; the tables
 * between it and @end. */
void acpi_start(struct acpi_tables *tables, const struct guest_mem *mem, gpa_t start, gpa_t end);
/* DSDT, FADT, MADT of vmm/platform.h's machine. APIC ids 0 .. nr_cpus - 1, nr_cpus 1..255; nr_devices 0..18.
 * Results of acpi_table_finish. */
must_check int acpi_add_platform(struct acpi_tables *tables, unsigned nr_cpus, unsigned nr_devices);
/* XSDT and RSDP; the last call. Results of acpi_table_finish. */
must_check int acpi_finish(struct acpi_tables *tables);

#endif
