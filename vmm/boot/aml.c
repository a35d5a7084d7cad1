/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/boot/aml.h"

#include <string.h>

enum {
    AML_NAME = 0x08,
    AML_BYTE = 0x0a,
    AML_WORD = 0x0b,
    AML_DWORD = 0x0c,
    AML_STRING = 0x0d,
    AML_QWORD = 0x0e,
    AML_SCOPE = 0x10,
    AML_BUFFER = 0x11,
    AML_PACKAGE = 0x12,
    AML_EXTENDED = 0x5b,
    AML_DEVICE = 0x82, /* after AML_EXTENDED */
};

static void put_name(struct acpi_table *table, const char *name)
{
    acpi_put(table, name, (uint32_t)strlen(name));
}

uint32_t aml_open_scope(struct acpi_table *table, const char *name)
{
    acpi_put_u8(table, AML_SCOPE);
    uint32_t mark = table->bytes;
    put_name(table, name);
    return mark;
}

uint32_t aml_open_device(struct acpi_table *table, const char *name)
{
    acpi_put_u8(table, AML_EXTENDED);
    acpi_put_u8(table, AML_DEVICE);
    uint32_t mark = table->bytes;
    put_name(table, name);
    return mark;
}

uint32_t aml_open_package(struct acpi_table *table, uint8_t nr_elements)
{
    acpi_put_u8(table, AML_PACKAGE);
    uint32_t mark = table->bytes;
    acpi_put_u8(table, nr_elements);
    return mark;
}

/*
 * PkgLength goes in at the mark, and counts itself: 6 bits in one byte; or 4 bits, then 8 in each of 1 or 2 more bytes
 * (3 more: not with our largest table), whose number stands in the two highest bits.
 */
void aml_close(struct acpi_table *table, uint32_t mark)
{
    uint32_t content = table->bytes - mark, nr = content + 1 < 0x40 ? 1 : content + 2 < 0x1000 ? 2 : 3;
    uint32_t length = content + nr;
    uint8_t encoded[3] = {(uint8_t)(nr == 1 ? length : ((nr - 1) << 6) | (length & 0xf)), (uint8_t)(length >> 4),
                          (uint8_t)(length >> 12)};

    acpi_put_zeros(table, nr);
    if (table->full)
        return;
    memmove(table->data + mark + nr, table->data + mark, content);
    memcpy(table->data + mark, encoded, nr);
}

void aml_name(struct acpi_table *table, const char *name)
{
    acpi_put_u8(table, AML_NAME);
    put_name(table, name);
}

void aml_integer(struct acpi_table *table, uint64_t value)
{
    if (value <= 1) {
        acpi_put_u8(table, (uint8_t)value); /* ZeroOp, OneOp */
    } else if (value <= UINT8_MAX) {
        acpi_put_u8(table, AML_BYTE);
        acpi_put_u8(table, (uint8_t)value);
    } else if (value <= UINT16_MAX) {
        acpi_put_u8(table, AML_WORD);
        acpi_put_u16(table, (uint16_t)value);
    } else if (value <= UINT32_MAX) {
        acpi_put_u8(table, AML_DWORD);
        acpi_put_u32(table, (uint32_t)value);
    } else {
        acpi_put_u8(table, AML_QWORD);
        acpi_put_u64(table, value);
    }
}

void aml_string(struct acpi_table *table, const char *text)
{
    acpi_put_u8(table, AML_STRING);
    acpi_put(table, text, (uint32_t)strlen(text) + 1);
}

static uint32_t hex_digit(char digit)
{
    return (uint32_t)(digit <= '9' ? digit - '0' : digit - 'A' + 10);
}

void aml_eisa_id(struct acpi_table *table, const char *id)
{
    uint32_t value = 0;

    for (unsigned i = 0; i < 3; i++)
        value = value << 5 | ((uint32_t)id[i] - 0x40);
    for (unsigned i = 3; i < 7; i++)
        value = value << 4 | hex_digit(id[i]);
    /* Big-endian in a little-endian word. */
    acpi_put_u8(table, AML_DWORD);
    acpi_put_u32(table, __builtin_bswap32(value));
}

static void add(struct aml_resources *resources, const void *data, uint32_t bytes)
{
    if (bytes > sizeof(resources->data) - resources->bytes)
        __builtin_trap(); /* more resources in one device than the template was made for: our own table of devices */
    memcpy(resources->data + resources->bytes, data, bytes);
    resources->bytes += bytes;
}

void aml_resource_ports(struct aml_resources *resources, uint16_t first, uint8_t nr)
{
    const uint8_t low = (uint8_t)first, high = (uint8_t)(first >> 8);
    /* IO port descriptor, 16-bit decode; lowest and highest base, alignment 1, length */
    const uint8_t data[] = {0x47, 0x01, low, high, low, high, 1, nr};

    add(resources, data, sizeof(data));
}

void aml_resource_memory(struct aml_resources *resources, uint32_t start, uint32_t bytes)
{
    const uint8_t head[] = {0x86, 9, 0, 1}; /* 32-bit fixed memory, writable */

    add(resources, head, sizeof(head));
    add(resources, &start, sizeof(start));
    add(resources, &bytes, sizeof(bytes));
}

void aml_resource_interrupt(struct aml_resources *resources, uint32_t gsi)
{
    /* extended interrupt, one; bit 0: consumer, bit 1: edge, bit 2 clear: active high, bit 3 clear: exclusive */
    const uint8_t head[] = {0x89, 6, 0, 0x03, 1};

    add(resources, head, sizeof(head));
    add(resources, &gsi, sizeof(gsi));
}

void aml_resources(struct acpi_table *table, const struct aml_resources *resources)
{
    const uint8_t end[] = {0x79, 0}; /* end tag; checksum 0: not used */

    acpi_put_u8(table, AML_BUFFER);
    uint32_t mark = table->bytes;
    aml_integer(table, resources->bytes + sizeof(end));
    acpi_put(table, resources->data, resources->bytes);
    acpi_put(table, end, sizeof(end));
    aml_close(table, mark);
}
