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
    ck_assert_uint_eq(serial_read(&serial, 2), 0x02);
    ck_assert_uint_eq(serial_read(&serial, 2), 0x01);
    ck_assert_uint_eq(serial_read(&serial, 5), 0x60);
    ck_assert_uint_eq(serial_read(&serial, 6), 0xb0);
    serial_write(&serial, 4, 0x10); /* loop: what is sent stays inside */
    ck_assert_uint_eq(serial_read(&serial, 4), 0x10);
    send(&serial, "hidden\n");
    serial_write(&serial, 4, 0);
    serial_write(&serial, 2, 0xff); /* clears the receiver */
    serial_write(&serial, 5, 0xff);
    serial_write(&serial, 6, 0xff);
    ck_assert_uint_eq(serial_read(&serial, 5), 0x62); /* an overrun: there was no FIFO for the word */
    ck_assert_uint_eq(serial_read(&serial, 5), 0x60);
    serial_fini(&serial);
    ck_assert_uint_eq(lines.nr, 0);
}
END_TEST

/* --- interrupts and the receiver ------------------------------------------------------------------- */

struct board {
    struct serial serial;
    bool level;
    unsigned nr_edges, nr_rooms, nr_bytes;
    uint8_t bytes[64];
};

static void on_irq(void *ctx, bool level)
{
    struct board *board = ctx;

    ck_assert(level != board->level);
    board->level = level;
    board->nr_edges++;
}

static void on_byte(void *ctx, uint8_t byte)
{
    struct board *board = ctx;

    ck_assert_uint_lt(board->nr_bytes, sizeof(board->bytes));
    board->bytes[board->nr_bytes++] = byte;
}

static void on_room(void *ctx)
{
    struct board *board = ctx;

    board->nr_rooms++;
}

static void board_init(struct board *board)
{
    memset(board, 0, sizeof(*board));
    serial_init(&board->serial, NULL, NULL);
    const struct serial_wires wires = {
        .irq = on_irq, .irq_ctx = board, .on_byte = on_byte, .on_room = on_room, .host_ctx = board};
    serial_connect(&board->serial, &wires);
}

enum { DATA, IER, IIR, LCR, MCR, LSR, MSR, FCR = IIR };

START_TEST(test_serial_raw_output_comes_byte_by_byte)
{
    struct board board;

    board_init(&board);
    send(&board.serial, "login: \r\n\x1b[1m");
    ck_assert_uint_eq(board.nr_bytes, 13);
    ck_assert_int_eq(memcmp(board.bytes, "login: \r\n\x1b[1m", 13), 0);
    serial_fini(&board.serial);
}
END_TEST

START_TEST(test_serial_raw_and_lines_both_get_what_is_sent)
{
    struct lines lines = {0};
    struct board board;

    board_init(&board);
    board.serial.line.on_line = keep_line;
    board.serial.line.ctx = &lines;
    send(&board.serial, "a\r\nb");
    ck_assert_uint_eq(board.nr_bytes, 4);
    ck_assert_uint_eq(lines.nr, 1);
    ck_assert_str_eq(lines.last, "a");
    serial_fini(&board.serial);
    ck_assert_uint_eq(lines.nr, 2);
}
END_TEST

START_TEST(test_serial_input_is_polled_through_lsr)
{
    struct board board;

    board_init(&board);
    serial_write(&board.serial, FCR, 0x01);
    ck_assert_uint_eq(serial_read(&board.serial, LSR), 0x60);
    ck_assert_uint_eq(serial_input(&board.serial, "hi", 2), 2);
    ck_assert_uint_eq(serial_read(&board.serial, LSR), 0x61);
    ck_assert_uint_eq(serial_read(&board.serial, DATA), 'h');
    ck_assert_uint_eq(serial_read(&board.serial, LSR), 0x61);
    ck_assert_uint_eq(serial_read(&board.serial, DATA), 'i');
    ck_assert_uint_eq(serial_read(&board.serial, LSR), 0x60);
    ck_assert_uint_eq(serial_read(&board.serial, DATA), 0);
    ck_assert_uint_eq(board.nr_edges, 0); /* nothing was enabled */
    serial_fini(&board.serial);
}
END_TEST

START_TEST(test_serial_full_receiver_takes_no_more_and_says_when_it_can)
{
    struct board board;

    board_init(&board);
    ck_assert_uint_eq(serial_input(&board.serial, "abc", 3), 1); /* no FIFO: one byte */
    ck_assert_uint_eq(board.nr_rooms, 0);
    ck_assert_uint_eq(serial_read(&board.serial, DATA), 'a');
    ck_assert_uint_eq(board.nr_rooms, 1);
    serial_write(&board.serial, FCR, 0x01);
    ck_assert_uint_eq(serial_input(&board.serial, "0123456789abcdefg", 17), 16);
    ck_assert_uint_eq(serial_input(&board.serial, "h", 1), 0);
    for (unsigned i = 0; i < 15; i++)
        ck_assert_uint_eq(serial_read(&board.serial, DATA), (uint8_t) "0123456789abcdef"[i]);
    ck_assert_uint_eq(board.nr_rooms, 1);
    ck_assert_uint_eq(serial_read(&board.serial, DATA), 'f');
    ck_assert_uint_eq(board.nr_rooms, 2);
    ck_assert_uint_eq(serial_read(&board.serial, LSR), 0x60); /* no overrun: the host waited */
    ck_assert_uint_eq(serial_input(&board.serial, "x", 1), 1);
    serial_read(&board.serial, DATA);
    ck_assert_uint_eq(board.nr_rooms, 2); /* nobody waits */
    struct serial_stat stat;
    serial_stats(&board.serial, &stat);
    ck_assert_uint_eq(stat.in_bytes, 18);
    ck_assert_uint_eq(stat.nr_overruns, 0);
    serial_fini(&board.serial);
}
END_TEST

START_TEST(test_serial_received_byte_holds_the_line_until_it_is_read)
{
    struct board board;

    board_init(&board);
    serial_write(&board.serial, FCR, 0x01);
    serial_write(&board.serial, IER, 0x01);
    ck_assert(!board.level);
    ck_assert_uint_eq(serial_input(&board.serial, "ab", 2), 2);
    ck_assert(board.level);
    ck_assert_uint_eq(serial_read(&board.serial, IIR), 0xc4);
    ck_assert_uint_eq(serial_read(&board.serial, IIR), 0xc4); /* reading the cause does not end it */
    serial_read(&board.serial, DATA);
    ck_assert(board.level);
    serial_read(&board.serial, DATA);
    ck_assert(!board.level);
    ck_assert_uint_eq(serial_read(&board.serial, IIR), 0xc1);
    ck_assert_uint_eq(board.nr_edges, 2);
    serial_fini(&board.serial);
}
END_TEST

START_TEST(test_serial_fewer_bytes_than_the_trigger_are_a_timeout)
{
    struct board board;

    board_init(&board);
    serial_write(&board.serial, FCR, 0xc1); /* 14 */
    serial_write(&board.serial, IER, 0x01);
    ck_assert_uint_eq(serial_input(&board.serial, "0123456789abc", 13), 13);
    ck_assert(board.level);
    ck_assert_uint_eq(serial_read(&board.serial, IIR), 0xcc);
    ck_assert_uint_eq(serial_input(&board.serial, "d", 1), 1);
    ck_assert_uint_eq(serial_read(&board.serial, IIR), 0xc4);
    serial_write(&board.serial, FCR, 0xc3); /* cleared by the driver */
    ck_assert(!board.level);
    ck_assert_uint_eq(serial_read(&board.serial, LSR), 0x60);
    serial_fini(&board.serial);
}
END_TEST

/* Linux enables the cause twice and wants it both times; then each byte raises it again. */
START_TEST(test_serial_empty_transmitter_interrupts_once_per_byte_and_enable)
{
    struct board board;

    board_init(&board);
    serial_write(&board.serial, IER, 0x02);
    ck_assert(board.level);
    ck_assert_uint_eq(serial_read(&board.serial, IIR), 0x02);
    ck_assert(!board.level);
    ck_assert_uint_eq(serial_read(&board.serial, IIR), 0x01);
    serial_write(&board.serial, IER, 0x02); /* was enabled: nothing new */
    ck_assert(!board.level);
    serial_write(&board.serial, IER, 0);
    serial_write(&board.serial, IER, 0x02);
    ck_assert(board.level);
    ck_assert_uint_eq(serial_read(&board.serial, IIR), 0x02);
    serial_write(&board.serial, DATA, 'x');
    ck_assert(board.level);
    serial_write(&board.serial, IER, 0);
    ck_assert(!board.level);
    serial_fini(&board.serial);
}
END_TEST

START_TEST(test_serial_received_byte_comes_before_empty_transmitter)
{
    struct board board;

    board_init(&board);
    serial_write(&board.serial, IER, 0x03);
    ck_assert_uint_eq(serial_input(&board.serial, "a", 1), 1);
    ck_assert_uint_eq(serial_read(&board.serial, IIR), 0x04);
    serial_read(&board.serial, DATA);
    ck_assert_uint_eq(serial_read(&board.serial, IIR), 0x02); /* it was not lost meanwhile */
    ck_assert_uint_eq(serial_read(&board.serial, IIR), 0x01);
    serial_fini(&board.serial);
}
END_TEST

START_TEST(test_serial_loopback_overrun_is_a_line_interrupt)
{
    struct board board;
    struct serial_stat stat;

    board_init(&board);
    serial_write(&board.serial, FCR, 0x01);
    serial_write(&board.serial, MCR, 0x10);
    serial_write(&board.serial, IER, 0x05);
    for (unsigned i = 0; i < SERIAL_FIFO_BYTES; i++)
        serial_write(&board.serial, DATA, (uint8_t)i);
    ck_assert_uint_eq(serial_read(&board.serial, IIR), 0xc4);
    serial_write(&board.serial, DATA, 99);
    ck_assert_uint_eq(serial_read(&board.serial, IIR), 0xc6);
    ck_assert_uint_eq(serial_read(&board.serial, LSR), 0x63);
    ck_assert_uint_eq(serial_read(&board.serial, IIR), 0xc4);
    for (unsigned i = 0; i < SERIAL_FIFO_BYTES; i++)
        ck_assert_uint_eq(serial_read(&board.serial, DATA), i);
    ck_assert(!board.level);
    serial_stats(&board.serial, &stat);
    ck_assert_uint_eq(stat.nr_overruns, 1);
    ck_assert_uint_eq(stat.out_bytes, 0);
    ck_assert_uint_eq(board.nr_bytes, 0);
    serial_fini(&board.serial);
}
END_TEST

START_TEST(test_serial_loopback_keeps_the_host_waiting)
{
    struct board board;

    board_init(&board);
    serial_write(&board.serial, MCR, 0x10);
    ck_assert_uint_eq(serial_input(&board.serial, "a", 1), 0);
    ck_assert_uint_eq(board.nr_rooms, 0);
    serial_write(&board.serial, MCR, 0x0b);
    ck_assert_uint_eq(board.nr_rooms, 1);
    ck_assert_uint_eq(serial_input(&board.serial, "a", 1), 1);
    serial_fini(&board.serial);
}
END_TEST

START_TEST(test_serial_loopback_modem_lines_follow_the_outputs)
{
    struct board board;

    board_init(&board);
    serial_write(&board.serial, MCR, 0x1a); /* what Linux probes with: OUT2 and RTS */
    ck_assert_uint_eq(serial_read(&board.serial, MSR) & 0xf0, 0x90);
    serial_write(&board.serial, IER, 0x08);
    ck_assert(!board.level);                /* deltas were read */
    serial_write(&board.serial, MCR, 0x1e); /* ring begins: no delta */
    ck_assert(!board.level);
    serial_write(&board.serial, MCR, 0x1b); /* ring ends, DTR comes */
    ck_assert(board.level);
    ck_assert_uint_eq(serial_read(&board.serial, IIR), 0x00);
    ck_assert_uint_eq(serial_read(&board.serial, MSR), 0xb6);
    ck_assert(!board.level);
    ck_assert_uint_eq(serial_read(&board.serial, MSR), 0xb0);
    serial_fini(&board.serial);
}
END_TEST

START_TEST(test_serial_fifo_is_shown_and_switching_it_empties_the_receiver)
{
    struct board board;

    board_init(&board);
    ck_assert_uint_eq(serial_read(&board.serial, IIR), 0x01);
    serial_write(&board.serial, FCR, 0x01);
    ck_assert_uint_eq(serial_read(&board.serial, IIR), 0xc1);
    ck_assert_uint_eq(serial_input(&board.serial, "abc", 3), 3);
    serial_write(&board.serial, FCR, 0x01); /* no change */
    ck_assert_uint_eq(serial_read(&board.serial, LSR), 0x61);
    serial_write(&board.serial, FCR, 0x00);
    ck_assert_uint_eq(serial_read(&board.serial, LSR), 0x60);
    ck_assert_uint_eq(serial_read(&board.serial, IIR), 0x01);
    serial_fini(&board.serial);
}
END_TEST

/* Any registers in any order: the line says what IIR says, and the receiver stays in bounds. */
START_TEST(test_serial_any_accesses_line_and_cause_agree)
{
    struct board board;
    uint32_t random = 12345;

    board_init(&board);
    board.serial.wires.on_byte = NULL;
    for (unsigned i = 0; i < 100000; i++) {
        random = random * 1664525 + 1013904223;
        unsigned reg = random >> 29;
        uint8_t value = (uint8_t)(random >> 16);

        if (random >> 8 & 1)
            serial_write(&board.serial, reg, value);
        else
            serial_read(&board.serial, reg);
        if ((random >> 9 & 7) == 0)
            ck_assert_uint_le(serial_input(&board.serial, "0123456789abcdefghij", 20), SERIAL_FIFO_BYTES);
        ck_assert_uint_le(board.serial.nr_rx, board.serial.fifo_enabled ? SERIAL_FIFO_BYTES : 1);
        bool level = board.level;
        ck_assert(level == !(serial_read(&board.serial, IIR) & 1));
    }
    serial_fini(&board.serial);
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
    tcase_add_test(tcase, test_serial_raw_output_comes_byte_by_byte);
    tcase_add_test(tcase, test_serial_raw_and_lines_both_get_what_is_sent);
    tcase_add_test(tcase, test_serial_input_is_polled_through_lsr);
    tcase_add_test(tcase, test_serial_full_receiver_takes_no_more_and_says_when_it_can);
    tcase_add_test(tcase, test_serial_received_byte_holds_the_line_until_it_is_read);
    tcase_add_test(tcase, test_serial_fewer_bytes_than_the_trigger_are_a_timeout);
    tcase_add_test(tcase, test_serial_empty_transmitter_interrupts_once_per_byte_and_enable);
    tcase_add_test(tcase, test_serial_received_byte_comes_before_empty_transmitter);
    tcase_add_test(tcase, test_serial_loopback_overrun_is_a_line_interrupt);
    tcase_add_test(tcase, test_serial_loopback_keeps_the_host_waiting);
    tcase_add_test(tcase, test_serial_loopback_modem_lines_follow_the_outputs);
    tcase_add_test(tcase, test_serial_fifo_is_shown_and_switching_it_empties_the_receiver);
    tcase_add_test(tcase, test_serial_any_accesses_line_and_cause_agree);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
