/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/model_rng.h"
#include "vmm/bus.h"

/* Remembers the last access; reads give all address bits that the bus may not let through. */
struct probe {
    struct bus_access access;
    uint64_t value;
    unsigned nr;
};

static uint64_t probe_read(void *ctx, const struct bus_access *access)
{
    struct probe *probe = ctx;

    probe->access = *access;
    probe->nr++;
    return UINT64_C(0x8877665544332211);
}

static void probe_write(void *ctx, const struct bus_access *access, uint64_t value)
{
    struct probe *probe = ctx;

    probe->access = *access;
    probe->value = value;
    probe->nr++;
}

static void assert_sound(const struct bus *bus)
{
    const char *why = "";

    ck_assert_msg(bus_check(bus, &why), "%s", why);
}

START_TEST(test_bus_access_inside_reaches_its_device)
{
    struct bus bus;
    struct probe probe = {0};
    const struct bus_device device = {probe_read, probe_write, &probe};

    bus_init(&bus);
    ck_assert_int_eq(bus_add(&bus, BUS_MMIO, 0xd0001000, 0x100, &device), 0);
    ck_assert_uint_eq(bus_read(&bus, BUS_MMIO, 0xd0001000, 4, 3), 0x44332211);
    ck_assert_uint_eq(probe.access.offset, 0);
    ck_assert_uint_eq(probe.access.bytes, 4);
    ck_assert_uint_eq(probe.access.cpu, 3);
    ck_assert_uint_eq(bus_read(&bus, BUS_MMIO, 0xd00010f8, 8, 0), UINT64_C(0x8877665544332211));
    bus_write(&bus, BUS_MMIO, 0xd00010ff, 1, 0, 0x1234);
    ck_assert_uint_eq(probe.access.offset, 0xff);
    ck_assert_uint_eq(probe.value, 0x34);
    ck_assert_uint_eq(bus_nr_unanswered(&bus, BUS_MMIO), 0);
}
END_TEST

START_TEST(test_bus_access_across_an_end_is_nobodys)
{
    struct bus bus;
    struct probe probe = {0};
    const struct bus_device device = {probe_read, probe_write, &probe};

    bus_init(&bus);
    ck_assert_int_eq(bus_add(&bus, BUS_PORT, 0x3f8, 8, &device), 0);
    ck_assert_uint_eq(bus_read(&bus, BUS_PORT, 0x3ff, 2, 0), 0xffff);
    ck_assert_uint_eq(bus_read(&bus, BUS_PORT, 0x3f7, 1, 0), 0xff);
    ck_assert_uint_eq(bus_read(&bus, BUS_PORT, 0x400, 1, 0), 0xff);
    bus_write(&bus, BUS_PORT, 0x3fe, 4, 0, 1);
    ck_assert_uint_eq(probe.nr, 0);
    ck_assert_uint_eq(bus_nr_unanswered(&bus, BUS_PORT), 4);
    ck_assert_uint_eq(bus_nr_unanswered(&bus, BUS_MMIO), 0);
}
END_TEST

START_TEST(test_bus_missing_handler_reads_ones_and_is_counted)
{
    struct bus bus;
    const struct bus_device device = {0};

    bus_init(&bus);
    ck_assert_int_eq(bus_add(&bus, BUS_PORT, 0x70, 2, &device), 0);
    ck_assert_uint_eq(bus_read(&bus, BUS_PORT, 0x71, 1, 0), 0xff);
    bus_write(&bus, BUS_PORT, 0x70, 1, 0, 5);
    ck_assert_uint_eq(bus_nr_unanswered(&bus, BUS_PORT), 2);
}
END_TEST

START_TEST(test_bus_bad_range_is_refused_and_bus_kept)
{
    struct bus bus, before;
    const struct bus_device device = {0};

    bus_init(&bus);
    ck_assert_int_eq(bus_add(&bus, BUS_PORT, 100, 10, &device), 0);
    ck_assert_int_eq(bus_add(&bus, BUS_MMIO, UINT64_MAX - 9, 10, &device), 0);
    before = bus;
    ck_assert_int_eq(bus_add(&bus, BUS_PORT, 50, 0, &device), -EINVAL);
    ck_assert_int_eq(bus_add(&bus, BUS_PORT, UINT64_MAX, 2, &device), -EINVAL);
    ck_assert_int_eq(bus_add(&bus, BUS_PORT, 109, 1, &device), -EEXIST);
    ck_assert_int_eq(bus_add(&bus, BUS_PORT, 91, 10, &device), -EEXIST);
    ck_assert_int_eq(bus_add(&bus, BUS_PORT, 0, UINT64_MAX, &device), -EEXIST);
    ck_assert_int_eq(bus_add(&bus, BUS_MMIO, UINT64_MAX, 1, &device), -EEXIST);
    ck_assert_mem_eq(&bus, &before, sizeof(bus));
    ck_assert_int_eq(bus_add(&bus, BUS_PORT, 90, 10, &device), 0);
    ck_assert_int_eq(bus_add(&bus, BUS_PORT, 110, 1, &device), 0);
    assert_sound(&bus);
}
END_TEST

START_TEST(test_bus_full_space_refuses_one_more)
{
    struct bus bus;
    const struct bus_device device = {0};

    bus_init(&bus);
    for (uint64_t i = 0; i < BUS_MAX_RANGES; i++)
        ck_assert_int_eq(bus_add(&bus, BUS_PORT, i * 8, 8, &device), 0);
    ck_assert_int_eq(bus_add(&bus, BUS_PORT, 0x1000, 8, &device), -ENOSPC);
    ck_assert_int_eq(bus_add(&bus, BUS_MMIO, 0x1000, 8, &device), 0);
    assert_sound(&bus);
}
END_TEST

#define SPACE_BYTES 256

/* owner[address]: which range holds it, -1 for none. */
static int naive_add(int *owner, int id, unsigned nr, uint64_t start, uint64_t bytes)
{
    if (bytes == 0)
        return -EINVAL;
    for (uint64_t at = start; at < start + bytes; at++) {
        if (owner[at] >= 0)
            return -EEXIST;
    }
    if (nr == BUS_MAX_RANGES)
        return -ENOSPC;
    for (uint64_t at = start; at < start + bytes; at++)
        owner[at] = id;
    return 0;
}

START_TEST(test_bus_model_random_ranges_agree_with_map)
{
    struct probe probes[BUS_MAX_RANGES];
    struct bus bus;
    int owner[SPACE_BYTES + 32];
    unsigned nr = 0;
    struct rng rng = {(uint64_t)_i};

    bus_init(&bus);
    memset(owner, -1, sizeof(owner));
    memset(probes, 0, sizeof(probes));
    for (unsigned step = 0; step < 3000; step++) {
        uint64_t at = rng_below(&rng, SPACE_BYTES), bytes = rng_below(&rng, 9);
        const struct bus_device device = {probe_read, probe_write, &probes[nr % BUS_MAX_RANGES]};

        if (step % 10 == 0) {
            int want = naive_add(owner, (int)nr, nr, at, bytes);
            ck_assert_int_eq(bus_add(&bus, BUS_PORT, at, bytes, &device), want);
            nr += want == 0;
        } else {
            unsigned size = 1u << rng_below(&rng, 4);
            int id = owner[at];
            for (unsigned i = 0; i < size; i++)
                id = owner[at + i] == id ? id : -1;
            unsigned before = id >= 0 ? probes[id].nr : 0;
            uint64_t missed = bus_nr_unanswered(&bus, BUS_PORT);

            bus_read(&bus, BUS_PORT, at, size, 0);
            ck_assert_uint_eq(bus_nr_unanswered(&bus, BUS_PORT), missed + (id < 0));
            if (id >= 0)
                ck_assert_uint_eq(probes[id].nr, before + 1);
        }
        assert_sound(&bus);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("bus");
    TCase *tcase = tcase_create("bus");

    tcase_add_test(tcase, test_bus_access_inside_reaches_its_device);
    tcase_add_test(tcase, test_bus_access_across_an_end_is_nobodys);
    tcase_add_test(tcase, test_bus_missing_handler_reads_ones_and_is_counted);
    tcase_add_test(tcase, test_bus_bad_range_is_refused_and_bus_kept);
    tcase_add_test(tcase, test_bus_full_space_refuses_one_more);
    tcase_add_loop_test(tcase, test_bus_model_random_ranges_agree_with_map, 1, 5);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
