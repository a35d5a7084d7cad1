/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aml: the few words of ACPI Machine Language that a DSDT of fixed devices needs, put at the end of a table.
 * What is opened returns a mark, and is closed with it, the innermost first: a length can only be written when it is known.
 * Names are four characters, "COM1"; a path may begin with a backslash.
 * Source: ACPI specification 6.4, chapter 20 (encoding) and section 6.4 (resources).
 */
#ifndef VMM_BOOT_AML_H
#define VMM_BOOT_AML_H

#include "vmm/boot/acpi.h"

must_check uint32_t aml_open_scope(struct acpi_table *table, const char *name);
must_check uint32_t aml_open_device(struct acpi_table *table, const char *name);
must_check uint32_t aml_open_package(struct acpi_table *table, uint8_t nr_elements);
void aml_close(struct acpi_table *table, uint32_t mark);

/* Name (@name, ...); the value is what is put next. */
void aml_name(struct acpi_table *table, const char *name);
void aml_integer(struct acpi_table *table, uint64_t value);
void aml_string(struct acpi_table *table, const char *text);
/* @id: "PNP0501": three capitals, four hexadecimal digits. */
void aml_eisa_id(struct acpi_table *table, const char *id);

/* A resource template in the making: what stands in a _CRS. */
struct aml_resources {
    uint32_t bytes;
    uint8_t data[48]; /* one memory or port range and one interrupt take 23 */
};
void aml_resource_ports(struct aml_resources *resources, uint16_t first, uint8_t nr);
void aml_resource_memory(struct aml_resources *resources, uint32_t start, uint32_t bytes);
/* Edge-triggered, active high, exclusive. */
void aml_resource_interrupt(struct aml_resources *resources, uint32_t gsi);
/* The template with its end, as a buffer. */
void aml_resources(struct acpi_table *table, const struct aml_resources *resources);

#endif
