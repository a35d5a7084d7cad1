/* SPDX-License-Identifier: Apache-2.0 */
/* The ports of a PC that end a guest or tell it the time, as its kernel uses them: through the bus. */
#include "vmm/platform.h"
#include "vmm/platform_ports.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define LEAP_DAY 1709251199 /* 2024-02-29 23:59:59 UTC, a Thursday */

struct rig {
    struct platform_ports ports;
    struct bus bus;
    time_t now;
    unsigned nr[3]; /* by enum platform_end */
};

static void on_end(void *ctx, enum platform_end end)
{
    struct rig *rig = ctx;

    rig->nr[end]++;
}

static time_t rig_now(void *ctx)
{
    const struct rig *rig = ctx;

    return rig->now;
}

static struct rig *rig_make(void)
{
    struct rig *rig = calloc(1, sizeof(*rig));

    ck_assert_ptr_nonnull(rig);
    rig->now = LEAP_DAY;
    rig->ports = (struct platform_ports){.on_end = on_end, .ctx = rig, .now = rig_now, .now_ctx = rig};
    platform_ports_init(&rig->ports);
    bus_init(&rig->bus);
    ck_assert_int_eq(platform_ports_attach(&rig->ports, &rig->bus), 0);
    return rig;
}

static void rig_free(struct rig *rig)
{
    platform_ports_fini(&rig->ports);
    free(rig);
}

static void out(struct rig *rig, uint64_t port, uint8_t value)
{
    bus_write(&rig->bus, BUS_PORT, port, 1, 0, value);
}

static uint8_t in(struct rig *rig, uint64_t port)
{
    return (uint8_t)bus_read(&rig->bus, BUS_PORT, port, 1, 0);
}

static uint8_t cmos(struct rig *rig, uint8_t reg)
{
    out(rig, PLATFORM_CMOS_PORT, reg);
    return in(rig, PLATFORM_CMOS_PORT + 1);
}

static void assert_ends(const struct rig *rig, unsigned poweroff, unsigned reset, unsigned panic)
{
    ck_assert_uint_eq(rig->nr[PLATFORM_POWEROFF], poweroff);
    ck_assert_uint_eq(rig->nr[PLATFORM_RESET], reset);
    ck_assert_uint_eq(rig->nr[PLATFORM_PANIC], panic);
}

START_TEST(test_platform_ports_clock_tells_utc_in_binary)
{
    struct rig *rig = rig_make();

    ck_assert_uint_eq(cmos(rig, 0x00), 59);
    ck_assert_uint_eq(cmos(rig, 0x02), 59);
    ck_assert_uint_eq(cmos(rig, 0x04), 23);
    ck_assert_uint_eq(cmos(rig, 0x06), 5);
    ck_assert_uint_eq(cmos(rig, 0x07), 29);
    ck_assert_uint_eq(cmos(rig, 0x08), 2);
    ck_assert_uint_eq(cmos(rig, 0x09), 24);
    ck_assert_uint_eq(cmos(rig, 0x32), 20);
    rig->now++;
    ck_assert_uint_eq(cmos(rig, 0x00), 0);
    ck_assert_uint_eq(cmos(rig, 0x07), 1);
    ck_assert_uint_eq(cmos(rig, 0x08), 3);
    rig_free(rig);
}
END_TEST

START_TEST(test_platform_ports_clock_never_updates_and_is_good)
{
    struct rig *rig = rig_make();

    for (unsigned i = 0; i < 1000; i++, rig->now++)
        ck_assert_uint_eq(cmos(rig, 0x0a) & 0x80, 0); /* update in progress: a kernel would wait */
    ck_assert_uint_eq(cmos(rig, 0x0b) & 0x06, 0x06);  /* binary, 24 hours */
    ck_assert_uint_eq(cmos(rig, 0x0c), 0);
    ck_assert_uint_eq(cmos(rig, 0x0d) & 0x80, 0x80);
    rig_free(rig);
}
END_TEST

START_TEST(test_platform_ports_cmos_written_is_kept_but_not_the_time)
{
    struct rig *rig = rig_make();

    for (unsigned reg = 0; reg < 256; reg++) {
        out(rig, PLATFORM_CMOS_PORT, (uint8_t)reg);
        out(rig, PLATFORM_CMOS_PORT + 1, (uint8_t)(reg ^ 0x5a));
    }
    ck_assert_uint_eq(cmos(rig, 0x40), 0xc0 ^ 0x5a); /* bit 7 of the index is the NMI's: 0xc0 is 0x40 */
    ck_assert_uint_eq(cmos(rig, 0x7f), 0xff ^ 0x5a);
    ck_assert_uint_eq(cmos(rig, 0x00), 59);
    ck_assert_uint_eq(cmos(rig, 0x0a) & 0x80, 0);
    ck_assert_uint_eq(in(rig, PLATFORM_CMOS_PORT), 0x0a);
    assert_ends(rig, 0, 0, 0);
    rig_free(rig);
}
END_TEST

START_TEST(test_platform_ports_keyboard_command_resets_only_by_fe)
{
    struct rig *rig = rig_make();

    ck_assert_uint_eq(in(rig, PLATFORM_I8042_PORT), 0); /* neither buffer full: the kernel does not wait */
    for (unsigned command = 0; command < 0xfe; command++)
        out(rig, PLATFORM_I8042_PORT, (uint8_t)command);
    out(rig, PLATFORM_I8042_PORT, 0xff);
    assert_ends(rig, 0, 0, 0);
    out(rig, PLATFORM_I8042_PORT, 0xfe);
    assert_ends(rig, 0, 1, 0);
    rig_free(rig);
}
END_TEST

START_TEST(test_platform_ports_reset_port_resets_by_bit_2)
{
    struct rig *rig = rig_make();

    out(rig, PLATFORM_RESET_PORT, 0x02); /* what kernels write first: a hard reset, not yet */
    assert_ends(rig, 0, 0, 0);
    ck_assert_uint_eq(in(rig, PLATFORM_RESET_PORT), 0);
    out(rig, PLATFORM_RESET_PORT, 0x06);
    assert_ends(rig, 0, 1, 0);
    rig_free(rig);
}
END_TEST

START_TEST(test_platform_ports_sleep_type_5_with_enable_is_poweroff)
{
    struct rig *rig = rig_make();

    for (unsigned value = 0; value < 256; value++)
        if ((value & 0x3c) != 0x34) /* SLP_EN is bit 5, SLP_TYP bits 2 to 4 */
            out(rig, PLATFORM_SLEEP_PORT, (uint8_t)value);
    out(rig, PLATFORM_SLEEP_PORT + 1, 0x34); /* the status register */
    assert_ends(rig, 0, 0, 0);
    ck_assert_uint_eq(in(rig, PLATFORM_SLEEP_PORT + 1), 0);
    out(rig, PLATFORM_SLEEP_PORT, 0x34);
    assert_ends(rig, 1, 0, 0);
    rig_free(rig);
}
END_TEST

START_TEST(test_platform_ports_panic_port_tells_only_of_panics)
{
    struct rig *rig = rig_make();

    ck_assert_uint_eq(in(rig, PLATFORM_PANIC_PORT), 1);
    out(rig, PLATFORM_PANIC_PORT, 2); /* a crash kernel was loaded: not ours to hear */
    assert_ends(rig, 0, 0, 0);
    out(rig, PLATFORM_PANIC_PORT, 1);
    assert_ends(rig, 0, 0, 1);
    rig_free(rig);
}
END_TEST

START_TEST(test_platform_ports_taken_port_is_an_error)
{
    struct rig *rig = rig_make();
    struct bus bus;
    const struct bus_device other = {0};

    bus_init(&bus);
    ck_assert_int_eq(bus_add(&bus, BUS_PORT, PLATFORM_PANIC_PORT, 1, &other), 0);
    ck_assert_int_eq(platform_ports_attach(&rig->ports, &bus), -EEXIST);
    rig_free(rig);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("platform_ports");
    TCase *tcase = tcase_create("platform_ports");

    tcase_add_test(tcase, test_platform_ports_clock_tells_utc_in_binary);
    tcase_add_test(tcase, test_platform_ports_clock_never_updates_and_is_good);
    tcase_add_test(tcase, test_platform_ports_cmos_written_is_kept_but_not_the_time);
    tcase_add_test(tcase, test_platform_ports_keyboard_command_resets_only_by_fe);
    tcase_add_test(tcase, test_platform_ports_reset_port_resets_by_bit_2);
    tcase_add_test(tcase, test_platform_ports_sleep_type_5_with_enable_is_poweroff);
    tcase_add_test(tcase, test_platform_ports_panic_port_tells_only_of_panics);
    tcase_add_test(tcase, test_platform_ports_taken_port_is_an_error);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
