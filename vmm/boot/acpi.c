/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/boot/acpi.h"

#include "vmm/boot/aml.h"
#include "vmm/platform.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define TABLE_ALIGN 64
#define LENGTH_OFFSET 4
#define CHECKSUM_OFFSET 9
#define RSDP_BYTES 36
#define RSDP_OLD_BYTES 20 /* what the first checksum covers */
#define OEM_ID "EBB   "

#define IOAPIC_GPA 0xfec00000u
#define LAPIC_GPA 0xfee00000u

/* --- tables ---------------------------------------------------------------------------------------- */

void acpi_put(struct acpi_table *table, const void *data, uint32_t bytes)
{
    if (table->full || bytes > sizeof(table->data) - table->bytes) {
        table->full = true;
        return;
    }
    memcpy(table->data + table->bytes, data, bytes);
    table->bytes += bytes;
}

void acpi_put_u8(struct acpi_table *table, uint8_t value)
{
    acpi_put(table, &value, sizeof(value));
}

void acpi_put_u16(struct acpi_table *table, uint16_t value)
{
    acpi_put(table, &value, sizeof(value));
}

void acpi_put_u32(struct acpi_table *table, uint32_t value)
{
    acpi_put(table, &value, sizeof(value));
}

void acpi_put_u64(struct acpi_table *table, uint64_t value)
{
    acpi_put(table, &value, sizeof(value));
}

void acpi_put_zeros(struct acpi_table *table, uint32_t bytes)
{
    for (uint32_t i = 0; i < bytes; i++)
        acpi_put_u8(table, 0);
}

void acpi_table_start(struct acpi_table *table, const char signature[4], uint8_t revision)
{
    table->bytes = 0;
    table->full = false;
    acpi_put(table, signature, 4);
    acpi_put_u32(table, 0); /* length, later */
    acpi_put_u8(table, revision);
    acpi_put_u8(table, 0); /* checksum, later */
    acpi_put(table, OEM_ID, 6);
    acpi_put(table, "EBBVM   ", 8);
    acpi_put_u32(table, 1);
    acpi_put(table, "EBB ", 4);
    acpi_put_u32(table, 1);
}

/* What makes the sum of all bytes 0. */
static uint8_t checksum(const uint8_t *data, uint32_t bytes)
{
    uint8_t sum = 0;

    for (uint32_t i = 0; i < bytes; i++)
        sum = (uint8_t)(sum + data[i]);
    return (uint8_t)-sum;
}

int acpi_table_finish(struct acpi_table *table, struct acpi_tables *tables, bool listed, gpa_t *at)
{
    gpa_t here = tables->next;

    if (table->full || here.v > tables->end.v || table->bytes > tables->end.v - here.v ||
        (listed && tables->nr == ACPI_MAX_TABLES))
        return -ENOSPC;
    memcpy(table->data + LENGTH_OFFSET, &table->bytes, sizeof(table->bytes));
    table->data[CHECKSUM_OFFSET] = 0;
    table->data[CHECKSUM_OFFSET] = checksum(table->data, table->bytes);
    if (guest_mem_write(tables->mem, here, table->data, table->bytes))
        return -EFAULT;
    tables->next.v = (here.v + table->bytes + TABLE_ALIGN - 1) & ~(uint64_t)(TABLE_ALIGN - 1);
    if (listed)
        tables->listed[tables->nr++] = here.v;
    if (at)
        *at = here;
    return 0;
}

void acpi_start(struct acpi_tables *tables, const struct guest_mem *mem, gpa_t start, gpa_t end)
{
    *tables = (struct acpi_tables){.mem = mem, .rsdp = start, .next = {start.v + TABLE_ALIGN}, .end = end};
}

static int write_rsdp(const struct acpi_tables *tables, gpa_t xsdt)
{
    uint8_t rsdp[RSDP_BYTES] = "RSD PTR ";
    const uint32_t bytes = RSDP_BYTES;

    memcpy(rsdp + 9, OEM_ID, 6);
    rsdp[15] = 2; /* revision: with an XSDT, and no RSDT */
    memcpy(rsdp + 20, &bytes, sizeof(bytes));
    memcpy(rsdp + 24, &xsdt.v, sizeof(xsdt.v));
    rsdp[8] = checksum(rsdp, RSDP_OLD_BYTES);
    rsdp[32] = checksum(rsdp, RSDP_BYTES);
    return guest_mem_write(tables->mem, tables->rsdp, rsdp, sizeof(rsdp));
}

int acpi_finish(struct acpi_tables *tables)
{
    struct acpi_table table;
    gpa_t xsdt;

    acpi_table_start(&table, "XSDT", 1);
    acpi_put(&table, tables->listed, tables->nr * (uint32_t)sizeof(tables->listed[0]));
    int err = acpi_table_finish(&table, tables, false, &xsdt);
    return err ? err : write_rsdp(tables, xsdt);
}

/* --- the machine ----------------------------------------------------------------------------------- */

static void put_serial(struct acpi_table *table)
{
    struct aml_resources resources = {0};
    uint32_t device = aml_open_device(table, "COM1");

    aml_name(table, "_HID");
    aml_eisa_id(table, "PNP0501"); /* 16550A */
    aml_name(table, "_UID");
    aml_integer(table, 1);
    aml_name(table, "_CRS");
    aml_resource_ports(&resources, PLATFORM_SERIAL_PORT, 8);
    aml_resource_interrupt(&resources, PLATFORM_SERIAL_GSI);
    aml_resources(table, &resources);
    aml_close(table, device);
}

static void put_panic(struct acpi_table *table)
{
    struct aml_resources resources = {0};
    uint32_t device = aml_open_device(table, "PEVT");

    aml_name(table, "_HID");
    aml_string(table, "QEMU0001");
    aml_name(table, "_CRS");
    aml_resource_ports(&resources, PLATFORM_PANIC_PORT, 1);
    aml_resources(table, &resources);
    aml_close(table, device);
}

static void put_virtio(struct acpi_table *table, unsigned index)
{
    struct aml_resources resources = {0};
    char name[16];

    snprintf(name, sizeof(name), "VR%02u", index);
    uint32_t device = aml_open_device(table, name);
    aml_name(table, "_HID");
    aml_string(table, "LNRO0005"); /* virtio-mmio, in Linux's drivers/virtio/virtio_mmio.c */
    aml_name(table, "_UID");
    aml_integer(table, index);
    aml_name(table, "_CRS");
    aml_resource_memory(&resources, (uint32_t)(PLATFORM_VIRTIO_GPA + index * PAGE_BYTES), (uint32_t)PAGE_BYTES);
    aml_resource_interrupt(&resources, PLATFORM_VIRTIO_GSI + index);
    aml_resources(table, &resources);
    aml_close(table, device);
}

static int add_dsdt(struct acpi_tables *tables, unsigned nr_devices, gpa_t *at)
{
    struct acpi_table table;

    acpi_table_start(&table, "DSDT", 2);
    /* The value that powers off when it is written to SLEEP_CONTROL_REG. */
    aml_name(&table, "_S5_");
    uint32_t package = aml_open_package(&table, 4);
    for (unsigned i = 0; i < 4; i++)
        aml_integer(&table, i < 2 ? 5 : 0);
    aml_close(&table, package);
    uint32_t scope = aml_open_scope(&table, "\\_SB_");
    put_serial(&table);
    put_panic(&table);
    for (unsigned i = 0; i < nr_devices; i++)
        put_virtio(&table, i);
    aml_close(&table, scope);
    return acpi_table_finish(&table, tables, false, at);
}

/* Generic address: one byte of port space. */
static void put_port(struct acpi_table *table, uint16_t port)
{
    acpi_put_u8(table, 1); /* ports */
    acpi_put_u8(table, 8); /* bits */
    acpi_put_u8(table, 0);
    acpi_put_u8(table, 1); /* accessed as bytes */
    acpi_put_u64(table, port);
}

/* Fields by their offset; what is not named is hardware that a reduced machine does not have. */
static int add_fadt(struct acpi_tables *tables, gpa_t dsdt)
{
    enum { WBINVD = 1 << 0, PWR_BUTTON = 1 << 4, SLP_BUTTON = 1 << 5, RESET_REG_SUP = 1 << 10, HW_REDUCED = 1 << 20 };
    /* So that nobody looks for them. There is a clock at the CMOS ports, but kvmclock is quicker to ask. The 8042 and
     * legacy devices are absent unless their bits say they are there. */
    enum { NO_VGA = 1 << 2, NO_MSI = 1 << 3, NO_ASPM = 1 << 4, NO_CMOS_CLOCK = 1 << 5 };
    struct acpi_table table;

    acpi_table_start(&table, "FACP", 6);
    acpi_put_u32(&table, 0);                                         /* 36: FIRMWARE_CTRL: none */
    acpi_put_u32(&table, (uint32_t)dsdt.v);                          /* 40: DSDT */
    acpi_put_zeros(&table, 109 - 44);                                /* 44: PM hardware */
    acpi_put_u16(&table, NO_VGA | NO_MSI | NO_ASPM | NO_CMOS_CLOCK); /* 109: IAPC_BOOT_ARCH */
    acpi_put_u8(&table, 0);
    /* No buttons of fixed hardware: the bits say that they are not there. */
    acpi_put_u32(&table, WBINVD | PWR_BUTTON | SLP_BUTTON | RESET_REG_SUP | HW_REDUCED); /* 112: Flags */
    put_port(&table, PLATFORM_RESET_PORT);                                               /* 116: RESET_REG */
    acpi_put_u8(&table, 6);                                                              /* 128: RESET_VALUE */
    acpi_put_u16(&table, 0);                                                             /* 129: ARM_BOOT_ARCH */
    acpi_put_u8(&table, 4);                                                              /* 131: minor version: 6.4 */
    acpi_put_u64(&table, 0);                                                             /* 132: X_FIRMWARE_CTRL */
    acpi_put_u64(&table, dsdt.v);                                                        /* 140: X_DSDT */
    acpi_put_zeros(&table, 244 - 148);                                                   /* 148: PM hardware */
    put_port(&table, PLATFORM_SLEEP_PORT);                                               /* 244: SLEEP_CONTROL_REG */
    put_port(&table, PLATFORM_SLEEP_PORT + 1);                                           /* 256: SLEEP_STATUS_REG */
    acpi_put(&table, "EBB\0\0\0\0", 8);                                                  /* 268: hypervisor vendor */
    return acpi_table_finish(&table, tables, true, NULL);
}

/* No interrupt source overrides: they are for ISA interrupts, which a reduced machine does not have. Each device says
 * in its _CRS what its interrupt is like. */
static int add_madt(struct acpi_tables *tables, unsigned nr_cpus)
{
    struct acpi_table table;

    acpi_table_start(&table, "APIC", 5);
    acpi_put_u32(&table, LAPIC_GPA);
    acpi_put_u32(&table, 0); /* no 8259 to be masked */
    for (unsigned i = 0; i < nr_cpus; i++) {
        acpi_put_u8(&table, 0); /* local APIC */
        acpi_put_u8(&table, 8);
        acpi_put_u8(&table, (uint8_t)i);
        acpi_put_u8(&table, (uint8_t)i);
        acpi_put_u32(&table, 1); /* enabled */
    }
    acpi_put_u8(&table, 1); /* IOAPIC, GSI 0 on */
    acpi_put_u8(&table, 12);
    acpi_put_u16(&table, 0);
    acpi_put_u32(&table, IOAPIC_GPA);
    acpi_put_u32(&table, 0);
    return acpi_table_finish(&table, tables, true, NULL);
}

int acpi_add_platform(struct acpi_tables *tables, unsigned nr_cpus, unsigned nr_devices)
{
    gpa_t dsdt;
    int err = add_dsdt(tables, nr_devices, &dsdt);

    if (!err)
        err = add_fadt(tables, dsdt);
    return err ? err : add_madt(tables, nr_cpus);
}
