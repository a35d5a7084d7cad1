/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "devices/serial.h"

struct lines {
    unsigned nr;
    char last[SERIAL_LINE_BYTES + 16];
};

static void keep_line(void *ctx, const char *line)
{
    struct lines *lines = ctx;

    lines->nr++;
    ck_assert_uint_lt(strlen(line), SERIAL_LINE_BYTES);
    strcpy(lines->last, line);
}

static void send(struct serial *serial, const char *text)
{
    for (; *text; text++)
        serial_write(serial, 0, (uint8_t)*text);
}

START_TEST(test_serial_bytes_become_lines)
{
    struct lines lines = {0};
    struct serial serial;

    serial_init(&serial, keep_line, &lines);
    send(&serial, "one\r\ntw");
    ck_assert_uint_eq(lines.nr, 1);
    ck_assert_str_eq(lines.last, "one");
    send(&serial, "o\n\n");
    ck_assert_uint_eq(lines.nr, 3);
    ck_assert_str_eq(lines.last, "");
    send(&serial, "rest");
    serial_fini(&serial);
    ck_assert_uint_eq(lines.nr, 4);
    ck_assert_str_eq(lines.last, "rest");
}
END_TEST

START_TEST(test_serial_unprintable_bytes_are_replaced)
{
    struct lines lines = {0};
    struct serial serial;

    serial_init(&serial, keep_line, &lines);
    send(&serial, "a\x1b[2J\x7f\xc3\xa9\n");
    ck_assert_str_eq(lines.last, "a?[2J???");
    serial_fini(&serial);
    ck_assert_uint_eq(lines.nr, 1);
}
END_TEST

START_TEST(test_serial_endless_line_is_cut)
{
    struct lines lines = {0};
    struct serial serial;

    serial_init(&serial, keep_line, &lines);
    for (unsigned i = 0; i < 10 * (SERIAL_LINE_BYTES - 1); i++)
        serial_write(&serial, 0, 'x');
    ck_assert_uint_eq(lines.nr, 10);
    serial_fini(&serial);
    ck_assert_uint_eq(lines.nr, 10);
}
END_TEST

START_TEST(test_serial_driver_probe_finds_a_16550)
{
    struct lines lines = {0};
    struct serial serial;

    serial_init(&serial, keep_line, &lines);
    serial_write(&serial, 7, 0xa5);
    ck_assert_uint_eq(serial_read(&serial, 7), 0xa5);
    serial_write(&serial, 3, 0x83); /* divisor latch */
    serial_write(&serial, 0, 0x34);
    serial_write(&serial, 1, 0x12);
    ck_assert_uint_eq(serial_read(&serial, 0), 0x34);
    ck_assert_uint_eq(serial_read(&serial, 1), 0x12);
    serial_write(&serial, 3, 0x03);
    ck_assert_uint_eq(serial_read(&serial, 3), 0x03);
    ck_assert_uint_eq(serial_read(&serial, 0), 0);
    serial_write(&serial, 1, 0xff);
    ck_assert_uint_eq(serial_read(&serial, 1), 0x0f);
    ck_assert_uint_eq(serial_read(&serial, 2), 0x01);
    ck_assert_uint_eq(serial_read(&serial, 5), 0x60);
    ck_assert_uint_eq(serial_read(&serial, 6), 0xb0);
    serial_write(&serial, 4, 0x10); /* loop: what is sent stays inside */
    ck_assert_uint_eq(serial_read(&serial, 4), 0x10);
    send(&serial, "hidden\n");
    serial_write(&serial, 4, 0);
    serial_write(&serial, 2, 0xff);
    serial_write(&serial, 5, 0xff);
    serial_write(&serial, 6, 0xff);
    ck_assert_uint_eq(serial_read(&serial, 5), 0x60);
    serial_fini(&serial);
    ck_assert_uint_eq(lines.nr, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("serial");
    TCase *tcase = tcase_create("serial");

    tcase_add_test(tcase, test_serial_bytes_become_lines);
    tcase_add_test(tcase, test_serial_unprintable_bytes_are_replaced);
    tcase_add_test(tcase, test_serial_endless_line_is_cut);
    tcase_add_test(tcase, test_serial_driver_probe_finds_a_16550);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
