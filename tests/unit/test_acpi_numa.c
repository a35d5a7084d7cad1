/* SPDX-License-Identifier: Apache-2.0 */
/* SRAT, SLIT and HMAT read back as ACPI 6.5 has them: sums, lengths, and each entry by its offsets. */
#include "vmm/boot/acpi_numa.h"
#include "vmm/platform.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define START UINT64_C(0xe0000)
#define END UINT64_C(0x100000)
#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)

static struct guest_mem mem;
static struct acpi_tables tables;
static struct guest_numa nodes;
static struct acpi_numa numa;

/* Nodes 0 and 2 with vCPUs, node 1 without; node 1 lies across the hole, node 2 above it. */
static void setup(void)
{
    char *low = calloc(1, END);
    ck_assert_ptr_nonnull(low);
    mem = (struct guest_mem){.nr = 1, .region = {{{0}, END, low}}};
    nodes = (struct guest_numa){.nr_nodes = 3,
                                .node = {{0x5, 2 * GIB, -1}, {0, 2 * GIB, 3}, {0xa, 512 * MIB, -1}},
                                .distance = {{10, 40, 21}, {40, 10, 254}, {21, 254, 10}}};
    numa = (struct acpi_numa){.nodes = &nodes, .nr_cpus = 4, .low_bytes = PLATFORM_HOLE_GPA};
    acpi_start(&tables, &mem, (gpa_t){START}, (gpa_t){END});
}

static void teardown(void)
{
    free(mem.region[0].hva);
}

static uint64_t number(const uint8_t *at, unsigned bytes)
{
    uint64_t value = 0;

    memcpy(&value, at, bytes);
    return value;
}

static bool is_zero(const uint8_t *at, unsigned bytes)
{
    while (bytes > 0 && at[bytes - 1] == 0)
        bytes--;
    return bytes == 0;
}

static const uint8_t *bytes_at(uint64_t gpa, uint64_t bytes)
{
    const void *at = guest_mem_hva(&mem, (gpa_t){gpa}, bytes);

    ck_assert_ptr_nonnull(at);
    return at;
}

static void build(void)
{
    acpi_start(&tables, &mem, (gpa_t){START}, (gpa_t){END});
    ck_assert_int_eq(acpi_add_platform(&tables, numa.nr_cpus, 1), 0);
    ck_assert_int_eq(acpi_add_numa(&tables, &numa), 0);
    ck_assert_int_eq(acpi_finish(&tables), 0);
}

/* The table that the XSDT lists as number @index, right in itself. */
static const uint8_t *listed(unsigned index, const char *signature, uint8_t revision, uint64_t *bytes)
{
    const uint8_t *xsdt = bytes_at(number(bytes_at(START, 36) + 24, 8), 36);
    uint64_t gpa = number(xsdt + 36 + index * 8, 8);
    uint8_t sum = 0;

    ck_assert_uint_lt(36 + index * 8, number(xsdt + 4, 4));
    *bytes = number(bytes_at(gpa, 36) + 4, 4);
    const uint8_t *table = bytes_at(gpa, *bytes);
    ck_assert_int_eq(memcmp(table, signature, 4), 0);
    ck_assert_uint_eq(table[8], revision);
    for (uint64_t i = 0; i < *bytes; i++)
        sum = (uint8_t)(sum + table[i]);
    ck_assert_uint_eq(sum, 0);
    return table;
}

/* --- SRAT ------------------------------------------------------------------------------------------- */

struct memory {
    uint64_t node, start, bytes, flags;
};

struct srat {
    unsigned nr_cpus, nr_memory;
    uint64_t cpu_seen, cpu_node[64];
    uint8_t last_node; /* they stand in the order of their nodes */
    struct memory memory[32];
};

static void read_srat(struct srat *out)
{
    uint64_t bytes, at = 48;
    const uint8_t *srat = listed(2, "SRAT", 3, &bytes);

    memset(out, 0, sizeof(*out));
    ck_assert_uint_eq(number(srat + 36, 4), 1);
    ck_assert(is_zero(srat + 40, 8));
    for (; at < bytes; at += srat[at + 1]) {
        const uint8_t *entry = srat + at;

        if (entry[0] == 0) {
            ck_assert_uint_eq(entry[1], 16);
            ck_assert_uint_eq(number(entry + 4, 4), 1);
            ck_assert(is_zero(entry + 8, 8));
            ck_assert_uint_lt(entry[3], 64);
            ck_assert_uint_eq(out->cpu_seen >> entry[3] & 1, 0);
            ck_assert_uint_ge(entry[2], out->last_node);
            out->cpu_seen |= UINT64_C(1) << entry[3];
            out->cpu_node[entry[3]] = out->last_node = entry[2];
            out->nr_cpus++;
        } else {
            struct memory *memory = &out->memory[out->nr_memory++];
            ck_assert_uint_eq(entry[0], 1);
            ck_assert_uint_eq(entry[1], 40);
            *memory = (struct memory){number(entry + 2, 4), number(entry + 8, 8), number(entry + 16, 8),
                                      number(entry + 28, 4)};
            ck_assert(is_zero(entry + 6, 2) && is_zero(entry + 24, 4) && is_zero(entry + 32, 8));
        }
    }
    ck_assert_uint_eq(at, bytes);
}

START_TEST(test_acpi_numa_srat_has_every_cpu_and_all_memory)
{
    static const struct memory expected[] = {
        {0, 0, 2 * GIB, 1}, {1, 2 * GIB, GIB, 1}, {1, 4 * GIB, GIB, 1}, {2, 5 * GIB, 512 * MIB, 1}};
    struct srat srat;

    build();
    read_srat(&srat);
    ck_assert_uint_eq(srat.nr_cpus, 4);
    ck_assert_uint_eq(srat.cpu_seen, 0xf);
    for (unsigned cpu = 0; cpu < 4; cpu++)
        ck_assert_uint_eq(srat.cpu_node[cpu], cpu % 2 ? 2 : 0);
    ck_assert_uint_eq(srat.nr_memory, ARRAY_LEN(expected));
    ck_assert_mem_eq(srat.memory, expected, sizeof(expected));
}
END_TEST

START_TEST(test_acpi_numa_srat_names_memory_to_be_plugged)
{
    struct srat srat;

    numa.hotplug_gpa = (gpa_t){6 * GIB};
    numa.hotplug_bytes = 256 * MIB;
    numa.hotplug_node = 1;
    build();
    read_srat(&srat);
    ck_assert_uint_eq(srat.nr_memory, 5);
    ck_assert_uint_eq(srat.memory[4].node, 1);
    ck_assert_uint_eq(srat.memory[4].start, 6 * GIB);
    ck_assert_uint_eq(srat.memory[4].bytes, 256 * MIB);
    ck_assert_uint_eq(srat.memory[4].flags, 3); /* enabled, hot pluggable */
}
END_TEST

/* --- SLIT ------------------------------------------------------------------------------------------- */

START_TEST(test_acpi_numa_slit_is_the_matrix_of_distances)
{
    static const uint8_t expected[] = {10, 40, 21, 40, 10, 254, 21, 254, 10};
    uint64_t bytes;

    build();
    const uint8_t *slit = listed(3, "SLIT", 1, &bytes);
    ck_assert_uint_eq(bytes, 36 + 8 + 9);
    ck_assert_uint_eq(number(slit + 36, 8), 3);
    ck_assert_mem_eq(slit + 44, expected, sizeof(expected));
}
END_TEST

/* --- HMAT ------------------------------------------------------------------------------------------- */

/* Memory proximity domain attributes at @entry: of node @node, whose own vCPUs are the initiator, if it has some. */
static void check_attributes(const uint8_t *entry, unsigned node, bool has_cpus)
{
    ck_assert_uint_eq(number(entry, 2), 0);
    ck_assert_uint_eq(number(entry + 4, 4), 40);
    ck_assert_uint_eq(number(entry + 8, 2), has_cpus);
    ck_assert_uint_eq(number(entry + 12, 4), has_cpus ? node : 0);
    ck_assert_uint_eq(number(entry + 16, 4), node);
    ck_assert(is_zero(entry + 2, 2) && is_zero(entry + 10, 2) && is_zero(entry + 20, 20));
}

/* Latency or bandwidth at @entry: from nodes 0 and 2 to all three. */
static void check_locality(const uint8_t *entry, uint8_t data, uint64_t unit, const uint16_t expected[6])
{
    ck_assert_uint_eq(number(entry, 2), 1);
    ck_assert_uint_eq(number(entry + 4, 4), 32 + 4 * 2 + 4 * 3 + 2 * 6);
    ck_assert_uint_eq(entry[8], 0);
    ck_assert_uint_eq(entry[9], data);
    ck_assert_uint_eq(number(entry + 12, 4), 2);
    ck_assert_uint_eq(number(entry + 16, 4), 3);
    ck_assert(is_zero(entry + 2, 2) && is_zero(entry + 10, 2) && is_zero(entry + 20, 4));
    ck_assert_uint_eq(number(entry + 24, 8), unit);
    ck_assert_uint_eq(number(entry + 32, 4), 0);
    ck_assert_uint_eq(number(entry + 36, 4), 2);
    for (unsigned i = 0; i < 3; i++)
        ck_assert_uint_eq(number(entry + 40 + 4 * i, 4), i);
    for (unsigned i = 0; i < 6; i++)
        ck_assert_uint_eq(number(entry + 52 + 2 * i, 2), expected[i]);
}

START_TEST(test_acpi_numa_hmat_follows_from_the_distances)
{
    static const uint16_t latency_ns[6] = {100, 400, 210, 210, 2540, 100};
    static const uint16_t bandwidth_mbs[6] = {10000, 2500, 4761, 4761, 393, 10000};
    uint64_t bytes;

    build();
    const uint8_t *hmat = listed(4, "HMAT", 2, &bytes);
    ck_assert(is_zero(hmat + 36, 4));
    for (unsigned i = 0; i < 3; i++)
        check_attributes(hmat + 40 + 40 * i, i, i != 1);
    ck_assert_uint_eq(bytes, 40 + 3 * 40 + 2 * 64);
    check_locality(hmat + 160, 0, 1000, latency_ns); /* access latency, in units of 1000 ps */
    check_locality(hmat + 224, 3, 1, bandwidth_mbs); /* access bandwidth, in MB/s */
}
END_TEST

/* --- sizes ------------------------------------------------------------------------------------------ */

/* One node; and as many nodes and vCPUs as there can be, with the largest DSDT. */
START_TEST(test_acpi_numa_least_and_most_fit)
{
    struct srat srat;
    uint64_t bytes;

    nodes = (struct guest_numa){.nr_nodes = 1, .node = {{1, 64 * MIB, -1}}, .distance = {{10}}};
    numa = (struct acpi_numa){.nodes = &nodes, .nr_cpus = 1, .low_bytes = 64 * MIB};
    build();
    read_srat(&srat);
    ck_assert_uint_eq(srat.nr_memory, 1);
    ck_assert_uint_eq(srat.memory[0].bytes, 64 * MIB);

    nodes = (struct guest_numa){.nr_nodes = GUEST_NUMA_MAX_NODES};
    memset(nodes.distance, 20, sizeof(nodes.distance));
    for (unsigned i = 0; i < GUEST_NUMA_MAX_NODES; i++)
        nodes.node[i] = (struct guest_numa_node){UINT64_C(0xff) << 8 * i, GIB, -1};
    numa = (struct acpi_numa){.nodes = &nodes, .nr_cpus = GUEST_NUMA_MAX_CPUS, .low_bytes = PLATFORM_HOLE_GPA};
    acpi_start(&tables, &mem, (gpa_t){START}, (gpa_t){END});
    ck_assert_int_eq(acpi_add_platform(&tables, GUEST_NUMA_MAX_CPUS, PLATFORM_MAX_VIRTIO), 0);
    ck_assert_int_eq(acpi_add_numa(&tables, &numa), 0);
    ck_assert_int_eq(acpi_finish(&tables), 0);
    read_srat(&srat);
    ck_assert_uint_eq(srat.nr_cpus, 64);
    ck_assert_uint_eq(srat.cpu_node[63], 7);
    ck_assert_uint_eq(srat.nr_memory, 8);
    listed(4, "HMAT", 2, &bytes);
    ck_assert_uint_eq(bytes, 40 + 8 * 40 + 2 * (32 + 2 * 4 * 8 + 2 * 64));
}
END_TEST

/* Every end that comes too early is an error. */
START_TEST(test_acpi_numa_room_that_is_too_small_is_refused)
{
    unsigned nr_refused = 0;

    build();
    uint64_t needed = tables.next.v;
    for (uint64_t end = START + 64; end < needed - 64; end += 8) {
        acpi_start(&tables, &mem, (gpa_t){START}, (gpa_t){end});
        int err = acpi_add_numa(&tables, &numa);
        ck_assert(err == 0 || err == -ENOSPC);
        nr_refused += err != 0;
    }
    ck_assert_uint_gt(nr_refused, 20);
    mem.region[0].bytes = START;
    acpi_start(&tables, &mem, (gpa_t){START}, (gpa_t){END});
    ck_assert_int_eq(acpi_add_numa(&tables, &numa), -EFAULT);
}
END_TEST

/* ACPI_DUMP=DIR: the tables as files, for iasl -d. */
START_TEST(test_acpi_numa_tables_can_be_dumped)
{
    static const char *const names[] = {"SRAT", "SLIT", "HMAT"};
    static const uint8_t revisions[] = {3, 1, 2};
    const char *folder = getenv("ACPI_DUMP");

    numa.hotplug_gpa = (gpa_t){6 * GIB};
    numa.hotplug_bytes = 256 * MIB;
    build();
    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        char path[256];
        uint64_t bytes;
        const uint8_t *table = listed(2 + i, names[i], revisions[i], &bytes);

        ck_assert_uint_gt(bytes, 36);
        if (!folder)
            continue;
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
    Suite *suite = suite_create("acpi_numa");
    TCase *tc = tcase_create("acpi_numa");

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, test_acpi_numa_srat_has_every_cpu_and_all_memory);
    tcase_add_test(tc, test_acpi_numa_srat_names_memory_to_be_plugged);
    tcase_add_test(tc, test_acpi_numa_slit_is_the_matrix_of_distances);
    tcase_add_test(tc, test_acpi_numa_hmat_follows_from_the_distances);
    tcase_add_test(tc, test_acpi_numa_least_and_most_fit);
    tcase_add_test(tc, test_acpi_numa_room_that_is_too_small_is_refused);
    tcase_add_test(tc, test_acpi_numa_tables_can_be_dumped);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
