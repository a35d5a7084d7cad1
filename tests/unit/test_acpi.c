/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ACPI tables as a guest finds them, read by a small reader of its own: sums, lengths, pointers, and the AML of the DSDT
 * walked by its package lengths.
 */
#include "vmm/boot/acpi.h"
#include "vmm/boot/aml.h"
#include "vmm/platform.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define START UINT64_C(0xe0000)
#define END UINT64_C(0x100000)

static struct guest_mem mem;
static struct acpi_tables tables;

static void setup(void)
{
    char *low = calloc(1, END);
    ck_assert_ptr_nonnull(low);
    mem = (struct guest_mem){.nr = 1, .region = {{{0}, END, low}}};
    acpi_start(&tables, &mem, (gpa_t){START}, (gpa_t){END});
}

static void teardown(void)
{
    free(mem.region[0].hva);
}

static void build(unsigned nr_cpus, unsigned nr_devices)
{
    acpi_start(&tables, &mem, (gpa_t){START}, (gpa_t){END});
    ck_assert_int_eq(acpi_add_platform(&tables, nr_cpus, nr_devices), 0);
    ck_assert_int_eq(acpi_finish(&tables), 0);
}

static uint64_t number(const uint8_t *at, unsigned bytes)
{
    uint64_t value = 0;

    memcpy(&value, at, bytes);
    return value;
}

static const uint8_t *bytes_at(uint64_t gpa, uint64_t bytes)
{
    const void *at = guest_mem_hva(&mem, (gpa_t){gpa}, bytes);

    ck_assert_ptr_nonnull(at);
    return at;
}

static uint8_t sum(const uint8_t *at, uint64_t bytes)
{
    uint8_t total = 0;

    for (uint64_t i = 0; i < bytes; i++)
        total = (uint8_t)(total + at[i]);
    return total;
}

/* The table at @gpa, which is right in itself; its length in *bytes. */
static const uint8_t *table_at(uint64_t gpa, const char *signature, uint64_t *bytes)
{
    const uint8_t *at = bytes_at(gpa, 36);

    ck_assert_uint_ge(gpa, START);
    *bytes = number(at + 4, 4);
    at = bytes_at(gpa, *bytes);
    ck_assert_int_eq(memcmp(at, signature, 4), 0);
    ck_assert_uint_ge(*bytes, 36);
    ck_assert_uint_eq(sum(at, *bytes), 0);
    return at;
}

/* The table that the XSDT lists as number @index. */
static const uint8_t *listed(unsigned index, const char *signature, uint64_t *bytes)
{
    const uint8_t *rsdp = bytes_at(START, 36);
    const uint8_t *xsdt = table_at(number(rsdp + 24, 8), "XSDT", bytes);

    ck_assert_uint_lt(36 + index * 8, *bytes);
    return table_at(number(xsdt + 36 + index * 8, 8), signature, bytes);
}

static const uint8_t *dsdt(uint64_t *bytes)
{
    return table_at(number(listed(0, "FACP", bytes) + 140, 8), "DSDT", bytes);
}

START_TEST(test_acpi_rsdp_leads_to_all_tables)
{
    uint64_t bytes;

    build(2, 18);
    const uint8_t *rsdp = bytes_at(START, 36);
    ck_assert_int_eq(memcmp(rsdp, "RSD PTR ", 8), 0);
    ck_assert_uint_eq(sum(rsdp, 20), 0);
    ck_assert_uint_eq(sum(rsdp, 36), 0);
    ck_assert_uint_eq(rsdp[15], 2);
    ck_assert_uint_eq(number(rsdp + 16, 4), 0);
    ck_assert_uint_eq(number(rsdp + 20, 4), 36);
    table_at(number(rsdp + 24, 8), "XSDT", &bytes);
    ck_assert_uint_eq(bytes, 36 + 2 * 8);
    listed(0, "FACP", &bytes);
    listed(1, "APIC", &bytes);
    dsdt(&bytes);
}
END_TEST

static void check_port(const uint8_t *address, uint64_t port)
{
    const uint8_t expected[4] = {1, 8, 0, 1};

    ck_assert_int_eq(memcmp(address, expected, 4), 0);
    ck_assert_uint_eq(number(address + 4, 8), port);
}

START_TEST(test_acpi_fadt_says_hardware_reduced_and_how_to_end)
{
    uint64_t bytes;

    build(1, 0);
    const uint8_t *fadt = listed(0, "FACP", &bytes);
    ck_assert_uint_eq(bytes, 276);
    ck_assert_uint_eq(fadt[8], 6);
    ck_assert_uint_eq(number(fadt + 40, 4), number(fadt + 140, 8));
    ck_assert_uint_eq(number(fadt + 109, 2), 0x3c);
    ck_assert_uint_eq(number(fadt + 112, 4), 1u << 20 | 1u << 10 | 1u << 5 | 1u << 4 | 1);
    check_port(fadt + 116, 0xcf9);
    ck_assert_uint_eq(fadt[128], 6);
    check_port(fadt + 244, 0x600);
    check_port(fadt + 256, 0x601);
    /* Power management hardware that is not there. */
    for (unsigned i = 44; i < 109; i++)
        ck_assert_uint_eq(fadt[i], 0);
    for (unsigned i = 148; i < 244; i++)
        ck_assert_uint_eq(fadt[i], 0);
}
END_TEST

START_TEST(test_acpi_madt_has_every_cpu_and_the_ioapic)
{
    static const unsigned nr_cpus[] = {1, 2, 64, 255};

    for (unsigned i = 0; i < ARRAY_LEN(nr_cpus); i++) {
        uint64_t bytes, at = 44, cpu = 0;
        bool ioapic = false;
        build(nr_cpus[i], 1);
        const uint8_t *madt = listed(1, "APIC", &bytes);
        ck_assert_uint_eq(number(madt + 36, 4), 0xfee00000);
        ck_assert_uint_eq(number(madt + 40, 4), 0);
        for (; at < bytes; at += madt[at + 1]) {
            if (madt[at] == 0) {
                ck_assert_uint_eq(madt[at + 1], 8);
                ck_assert_uint_eq(madt[at + 2], cpu);
                ck_assert_uint_eq(madt[at + 3], cpu++);
                ck_assert_uint_eq(number(madt + at + 4, 4), 1);
            } else {
                ck_assert_uint_eq(madt[at], 1);
                ck_assert_uint_eq(madt[at + 1], 12);
                ck_assert_uint_eq(number(madt + at + 4, 4), 0xfec00000);
                ck_assert_uint_eq(number(madt + at + 8, 4), 0);
                ioapic = true;
            }
        }
        ck_assert_uint_eq(at, bytes);
        ck_assert_uint_eq(cpu, nr_cpus[i]);
        ck_assert(ioapic);
    }
}
END_TEST

/* --- AML -------------------------------------------------------------------------------------------- */

/* What a device said of itself. */
struct device {
    char name[5], hid[12];
    uint32_t uid, memory, memory_bytes, interrupt, ports, nr_ports;
    uint8_t interrupt_flags;
};

struct walk {
    unsigned nr;
    struct device device[32];
    unsigned nr_s5;
    uint64_t s5[4];
};

/* PkgLength at @at: where its package ends; *after: where its content begins. */
static const uint8_t *package_end(const uint8_t *at, const uint8_t *limit, const uint8_t **after)
{
    unsigned more = at[0] >> 6;
    uint32_t length = more ? at[0] & 0xf : at[0] & 0x3f;

    for (unsigned i = 0; i < more; i++)
        length |= (uint32_t)at[1 + i] << (4 + 8 * i);
    /* No longer than it has to be. */
    ck_assert(more == 0 || length >= (more == 1 ? 0x40u : 0x1000u));
    ck_assert_uint_gt(length, more);
    ck_assert_uint_le(length, (size_t)(limit - at));
    *after = at + 1 + more;
    return at + length;
}

static const uint8_t *integer(const uint8_t *at, uint64_t *value)
{
    unsigned bytes = at[0] == 0x0a ? 1 : at[0] == 0x0b ? 2 : at[0] == 0x0c ? 4 : at[0] == 0x0e ? 8 : 0;

    ck_assert(bytes > 0 || at[0] <= 1);
    *value = bytes ? number(at + 1, bytes) : at[0];
    return at + 1 + bytes;
}

static void walk_resources(const uint8_t *at, const uint8_t *end, struct device *device)
{
    while (at < end - 2) {
        if (at[0] == 0x47) {
            ck_assert_uint_eq(at[1], 1);
            ck_assert_uint_eq(number(at + 2, 2), number(at + 4, 2));
            device->ports = (uint32_t)number(at + 2, 2);
            device->nr_ports = at[7];
            at += 8;
        } else if (at[0] == 0x86) {
            ck_assert_uint_eq(number(at + 1, 2), 9);
            ck_assert_uint_eq(at[3], 1);
            device->memory = (uint32_t)number(at + 4, 4);
            device->memory_bytes = (uint32_t)number(at + 8, 4);
            at += 12;
        } else {
            ck_assert_uint_eq(at[0], 0x89);
            ck_assert_uint_eq(number(at + 1, 2), 6);
            device->interrupt_flags = at[3];
            ck_assert_uint_eq(at[4], 1);
            device->interrupt = (uint32_t)number(at + 5, 4);
            at += 9;
        }
    }
    ck_assert_ptr_eq(at, end - 2);
    ck_assert_uint_eq(at[0], 0x79);
}

static const uint8_t *walk_value(const uint8_t *at, const uint8_t *end, const char *name, struct walk *walk)
{
    struct device *device = walk->nr ? &walk->device[walk->nr - 1] : NULL;
    const uint8_t *content, *close;
    uint64_t value;

    if (at[0] == 0x0d) {
        ck_assert_str_eq(name, "_HID");
        snprintf(device->hid, sizeof(device->hid), "%s", (const char *)at + 1);
        return at + 2 + strlen((const char *)at + 1);
    }
    if (at[0] == 0x11) {
        ck_assert_str_eq(name, "_CRS");
        close = package_end(at + 1, end, &content);
        content = integer(content, &value);
        ck_assert_uint_eq(value, (uint64_t)(close - content));
        walk_resources(content, close, device);
        return close;
    }
    if (at[0] == 0x12) {
        ck_assert_str_eq(name, "_S5_");
        close = package_end(at + 1, end, &content);
        ck_assert_uint_eq(content[0], 4);
        for (content++; content < close; walk->nr_s5++)
            content = integer(content, &walk->s5[walk->nr_s5]);
        ck_assert_ptr_eq(content, close);
        return close;
    }
    at = integer(at, &value);
    if (strcmp(name, "_HID") == 0) {
        uint32_t id = __builtin_bswap32((uint32_t)value);
        snprintf(device->hid, sizeof(device->hid), "%c%c%c%04X", (int)(0x40 + (id >> 26 & 31)),
                 (int)(0x40 + (id >> 21 & 31)), (int)(0x40 + (id >> 16 & 31)), id & 0xffff);
    } else {
        ck_assert_str_eq(name, "_UID");
        device->uid = (uint32_t)value;
    }
    return at;
}

static void walk_terms(const uint8_t *at, const uint8_t *end, struct walk *walk)
{
    const uint8_t *content, *close;
    char name[5] = "";

    while (at < end) {
        if (at[0] == 0x08) {
            memcpy(name, at + 1, 4);
            at = walk_value(at + 5, end, name, walk);
            continue;
        }
        bool device = at[0] == 0x5b;
        at += device;
        ck_assert_uint_eq(at[0], device ? 0x82 : 0x10);
        close = package_end(at + 1, end, &content);
        if (device)
            memcpy(walk->device[walk->nr++].name, content, 4);
        else
            ck_assert_int_eq(memcmp(content++, "\\_SB_", 5), 0);
        walk_terms(content + 4, close, walk);
        at = close;
    }
    ck_assert_ptr_eq(at, end);
}

static void walk_dsdt(struct walk *walk)
{
    uint64_t bytes;
    const uint8_t *table = dsdt(&bytes);

    memset(walk, 0, sizeof(*walk));
    ck_assert_uint_eq(table[8], 2);
    walk_terms(table + 36, table + bytes, walk);
}

START_TEST(test_acpi_dsdt_has_every_device_with_its_resources)
{
    struct walk walk;

    for (unsigned nr = 0; nr <= PLATFORM_MAX_VIRTIO; nr++) {
        build(1, nr);
        walk_dsdt(&walk);
        ck_assert_uint_eq(walk.nr, 2 + nr);
        ck_assert_str_eq(walk.device[0].hid, "PNP0501");
        ck_assert_uint_eq(walk.device[0].ports, 0x3f8);
        ck_assert_uint_eq(walk.device[0].nr_ports, 8);
        ck_assert_uint_eq(walk.device[0].interrupt, 4);
        ck_assert_uint_eq(walk.device[0].interrupt_flags, 3);
        ck_assert_str_eq(walk.device[1].hid, "QEMU0001");
        ck_assert_uint_eq(walk.device[1].ports, 0x505);
        ck_assert_uint_eq(walk.device[1].nr_ports, 1);
        for (unsigned i = 0; i < nr; i++) {
            const struct device *device = &walk.device[2 + i];
            ck_assert_str_eq(device->hid, "LNRO0005");
            ck_assert_uint_eq(device->uid, i);
            ck_assert_uint_eq(device->memory, 0xd1000000 + i * 0x1000);
            ck_assert_uint_eq(device->memory_bytes, 0x1000);
            ck_assert_uint_eq(device->interrupt, 5 + i);
            ck_assert_uint_eq(device->interrupt_flags, 3);
            for (unsigned j = 0; j < 2 + i; j++)
                ck_assert_str_ne(walk.device[j].name, device->name);
        }
    }
}
END_TEST

START_TEST(test_acpi_dsdt_powers_off_with_type_five)
{
    struct walk walk;

    build(1, 1);
    walk_dsdt(&walk);
    ck_assert_uint_eq(walk.nr_s5, 4);
    ck_assert_uint_eq(walk.s5[0], 5);
    ck_assert_uint_eq(walk.s5[1], 5);
}
END_TEST

/* Each side of the limits at which PkgLength takes one more byte. */
START_TEST(test_acpi_package_lengths_are_right_at_their_limits)
{
    static const uint32_t sizes[] = {1, 58, 59, 62, 63, 64, 4089, 4090, 4093, 4094, 4095, 8000};
    static struct acpi_table table;

    for (unsigned i = 0; i < ARRAY_LEN(sizes); i++) {
        const uint8_t *content;
        acpi_table_start(&table, "TEST", 1);
        uint32_t mark = aml_open_package(&table, 0xaa);
        for (uint32_t j = 1; j < sizes[i]; j++)
            acpi_put_u8(&table, (uint8_t)(j | 1));
        aml_close(&table, mark);
        const uint8_t *end = package_end(table.data + mark, table.data + table.bytes, &content);
        ck_assert_ptr_eq(end, table.data + table.bytes);
        ck_assert_uint_eq((size_t)(end - content), sizes[i]);
        ck_assert_uint_eq(content[0], 0xaa);
        for (uint32_t j = 1; j < sizes[i]; j++)
            ck_assert_uint_eq(content[j], (uint8_t)(j | 1));
    }
}
END_TEST

START_TEST(test_acpi_integers_take_the_shortest_form)
{
    static const uint64_t values[] = {0, 1, 2, 255, 256, 65535, 65536, UINT32_MAX, UINT64_C(1) << 32, UINT64_MAX};
    static const uint32_t bytes[] = {1, 1, 2, 2, 3, 3, 5, 5, 9, 9};
    static struct acpi_table table;

    for (unsigned i = 0; i < ARRAY_LEN(values); i++) {
        uint64_t value;
        acpi_table_start(&table, "TEST", 1);
        aml_integer(&table, values[i]);
        ck_assert_uint_eq(table.bytes - 36, bytes[i]);
        ck_assert_ptr_eq(integer(table.data + 36, &value), table.data + table.bytes);
        ck_assert_uint_eq(value, values[i]);
    }
}
END_TEST

/* --- room ------------------------------------------------------------------------------------------- */

START_TEST(test_acpi_other_tables_can_be_added)
{
    static struct acpi_table table;
    uint64_t bytes;

    ck_assert_int_eq(acpi_add_platform(&tables, 1, 1), 0);
    acpi_table_start(&table, "SLIT", 1);
    acpi_put_u64(&table, 1);
    acpi_put_u8(&table, 10);
    ck_assert_int_eq(acpi_table_finish(&table, &tables, true, NULL), 0);
    ck_assert_int_eq(acpi_finish(&tables), 0);
    const uint8_t *slit = listed(2, "SLIT", &bytes);
    ck_assert_uint_eq(bytes, 45);
    ck_assert_uint_eq(slit[44], 10);
}
END_TEST

START_TEST(test_acpi_table_that_is_too_large_is_refused)
{
    static struct acpi_table table;

    for (uint32_t over = 0; over < 2; over++) {
        acpi_start(&tables, &mem, (gpa_t){START}, (gpa_t){END});
        acpi_table_start(&table, "BIG ", 1);
        acpi_put_zeros(&table, ACPI_TABLE_BYTES - 36 + over);
        acpi_put_u8(&table, 0); /* too much either way, and stays so */
        ck_assert_uint_le(table.bytes, ACPI_TABLE_BYTES);
        uint32_t mark = aml_open_package(&table, 1);
        aml_close(&table, mark);
        ck_assert_int_eq(acpi_table_finish(&table, &tables, true, NULL), -ENOSPC);
        ck_assert_uint_eq(tables.nr, 0);
    }
    acpi_table_start(&table, "BIG ", 1);
    acpi_put_zeros(&table, ACPI_TABLE_BYTES - 36);
    ck_assert_int_eq(acpi_table_finish(&table, &tables, true, NULL), 0);
    ck_assert_uint_eq(tables.nr, 1);
}
END_TEST

START_TEST(test_acpi_one_table_too_many_is_refused)
{
    static struct acpi_table table;

    acpi_table_start(&table, "TEST", 1);
    for (unsigned i = 0; i < ACPI_MAX_TABLES; i++)
        ck_assert_int_eq(acpi_table_finish(&table, &tables, true, NULL), 0);
    gpa_t next = tables.next;
    ck_assert_int_eq(acpi_table_finish(&table, &tables, true, NULL), -ENOSPC);
    ck_assert_uint_eq(tables.next.v, next.v);
    ck_assert_int_eq(acpi_finish(&tables), 0);
}
END_TEST

/* Every end that comes too early is an error, and nothing is written beyond it. */
START_TEST(test_acpi_room_that_is_too_small_is_refused)
{
    build(2, 18);
    uint64_t needed = tables.next.v;
    unsigned nr_refused = 0, nr_built = 0;

    for (uint64_t end = START + 40; end <= needed + 8; end += 8) {
        memset(mem.region[0].hva, 0, END);
        acpi_start(&tables, &mem, (gpa_t){START}, (gpa_t){end});
        int err = acpi_add_platform(&tables, 2, 18);
        if (!err)
            err = acpi_finish(&tables);
        ck_assert(err == 0 || err == -ENOSPC);
        nr_refused += err != 0;
        nr_built += err == 0;
        uint64_t at = end;
        while (at < needed + PAGE_BYTES && mem.region[0].hva[at] == 0)
            at++;
        ck_assert_uint_eq(at, needed + PAGE_BYTES);
    }
    ck_assert_uint_gt(nr_refused, 100);
    ck_assert_uint_gt(nr_built, 0);
}
END_TEST

START_TEST(test_acpi_memory_that_is_not_there_is_refused)
{
    mem.region[0].bytes = START;
    ck_assert_int_eq(acpi_add_platform(&tables, 1, 1), -EFAULT);
    ck_assert_int_eq(acpi_finish(&tables), -EFAULT);
    mem.region[0].bytes = END;
    acpi_start(&tables, &mem, (gpa_t){END}, (gpa_t){END + 4096}); /* for the RSDP alone */
    tables.next.v = START;
    ck_assert_int_eq(acpi_finish(&tables), -EFAULT);
}
END_TEST

/* ACPI_DUMP=DIR: the tables as files, for iasl -d. */
START_TEST(test_acpi_tables_can_be_dumped)
{
    static const char *const names[] = {"DSDT", "FACP", "APIC", "XSDT"};
    const char *folder = getenv("ACPI_DUMP");

    build(2, 18);
    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        uint64_t bytes;
        const uint8_t *table = i == 0   ? dsdt(&bytes)
                               : i == 3 ? table_at(number(bytes_at(START, 36) + 24, 8), "XSDT", &bytes)
                                        : listed(i - 1, names[i], &bytes);
        ck_assert_uint_gt(bytes, 36);
        if (!folder)
            continue;
        char path[256];
        snprintf(path, sizeof(path), "%.200s/%s.dat", folder, names[i]);
        FILE *file = fopen(path, "w");
        ck_assert_ptr_nonnull(file);
        ck_assert_uint_eq(fwrite(table, 1, bytes, file), bytes);
        fclose(file);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("acpi");
    TCase *tcase = tcase_create("acpi");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_acpi_rsdp_leads_to_all_tables);
    tcase_add_test(tcase, test_acpi_fadt_says_hardware_reduced_and_how_to_end);
    tcase_add_test(tcase, test_acpi_madt_has_every_cpu_and_the_ioapic);
    tcase_add_test(tcase, test_acpi_dsdt_has_every_device_with_its_resources);
    tcase_add_test(tcase, test_acpi_dsdt_powers_off_with_type_five);
    tcase_add_test(tcase, test_acpi_package_lengths_are_right_at_their_limits);
    tcase_add_test(tcase, test_acpi_integers_take_the_shortest_form);
    tcase_add_test(tcase, test_acpi_other_tables_can_be_added);
    tcase_add_test(tcase, test_acpi_table_that_is_too_large_is_refused);
    tcase_add_test(tcase, test_acpi_one_table_too_many_is_refused);
    tcase_add_test(tcase, test_acpi_room_that_is_too_small_is_refused);
    tcase_add_test(tcase, test_acpi_memory_that_is_not_there_is_refused);
    tcase_add_test(tcase, test_acpi_tables_can_be_dumped);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
