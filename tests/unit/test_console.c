/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/resource.h>
#include <unistd.h>

#include "devices/console/console.h"
#include "devices/console/state.h"
#include "tests/fake/fail_alloc.h"
#include "tests/fake/fake_driver.h"

#define FEATURE(bit) (UINT64_C(1) << (bit))
#define MULTIPORT FEATURE(VIRTIO_CONSOLE_F_MULTIPORT)
#define ALL_RINGS (FEATURE(VIRTIO_F_RING_PACKED) | FEATURE(VIRTIO_RING_F_EVENT_IDX))
#define BUFFER_BYTES 1024

static struct fake_memory memory;
static struct loop *loop;
static struct device_env env;
static struct console *console;
static struct virtio_mmio mmio;
static struct fake_driver driver;
static char folder[32], path[64], path2[64];
static char why[200];

static struct {
    char bytes[65536];
    size_t nr;
    char line[LINE_BYTES];
    unsigned nr_lines, nr_rooms;
} seen;

static void on_bytes(void *ctx, const void *bytes, size_t nr)
{
    ck_assert_ptr_eq(ctx, &seen);
    ck_assert_uint_le(seen.nr + nr, sizeof(seen.bytes));
    memcpy(seen.bytes + seen.nr, bytes, nr);
    seen.nr += nr;
}

static void on_line(void *ctx, const char *line)
{
    (void)ctx;
    snprintf(seen.line, sizeof(seen.line), "%s", line);
    seen.nr_lines++;
}

static void on_room(void *ctx)
{
    (void)ctx;
    seen.nr_rooms++;
}

static struct console_config config_of(unsigned nr_ports, const struct console_port_config *ports)
{
    return (struct console_config){.on_line = on_line,
                                   .on_bytes = on_bytes,
                                   .on_room = on_room,
                                   .ctx = &seen,
                                   .input_fd = -1,
                                   .nr_ports = nr_ports,
                                   .ports = ports};
}

static void make(const struct console_config *config)
{
    ck_assert_msg(console_create(config, &env, &console, why, sizeof(why)) == 0, "%s", why);
    ck_assert_int_eq(virtio_mmio_init(&mmio, console_device(console)), 0);
    fake_driver_init(&driver, &mmio, &memory);
}

static void make_with_ports(unsigned nr)
{
    const struct console_port_config ports[] = {{"agent", path}, {"second", path2}};
    const struct console_config config = config_of(nr, ports);

    make(&config);
}

static void setup(void)
{
    strcpy(folder, "/tmp/ebb-console-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/agent", folder);
    snprintf(path2, sizeof(path2), "%s/second", folder);
    memset(&seen, 0, sizeof(seen));
    fake_memory_init(&memory, 0x100000, 4 << 20);
    ck_assert_int_eq(loop_create(&loop), 0);
    env = (struct device_env){.mem = &memory.mem, .loop = loop};
    console = NULL;
}

static void destroy(void)
{
    virtio_mmio_fini(&mmio);
    console_destroy(console);
    console = NULL;
}

static void teardown(void)
{
    if (console)
        destroy();
    loop_destroy(loop);
    fake_memory_fini(&memory);
    ck_assert_int_eq(rmdir(folder), 0); /* every socket is gone */
}

/* --- the guest's side ------------------------------------------------------------------------------ */

static void send_bytes(unsigned queue, const void *bytes, uint32_t nr)
{
    struct fake_buffer buffer = {fake_memory_alloc(&memory, nr, 1), nr};

    memcpy(fake_memory_at(&memory, buffer.gpa, nr), bytes, nr);
    ck_assert_int_eq(fake_driver_add(&driver, queue, &buffer, 1, 0, false, NULL), 0);
    fake_driver_kick(&driver, queue);
    fake_driver_run(&driver);
}

static unsigned nr_back(unsigned queue)
{
    struct fake_used used;
    unsigned nr = 0;

    while (fake_driver_collect(&driver, queue, &used) == 1) {
        ck_assert_uint_eq(used.written_bytes, 0);
        nr++;
    }
    return nr;
}

/* @nr buffers for the device to write; their content is the token. */
static void give_buffers(unsigned queue, unsigned nr, uint32_t bytes)
{
    for (unsigned i = 0; i < nr; i++) {
        struct fake_buffer buffer = {fake_memory_alloc(&memory, bytes, 1), bytes};
        void *at = fake_memory_at(&memory, buffer.gpa, bytes);

        ck_assert_int_eq(fake_driver_add(&driver, queue, &buffer, 0, 1, false, at), 0);
    }
    fake_driver_kick(&driver, queue);
    fake_driver_run(&driver);
}

/* Bytes that came back in queue @queue, ended by 0. */
static size_t received(unsigned queue, char *to, size_t room)
{
    struct fake_used used;
    size_t nr = 0;

    while (fake_driver_collect(&driver, queue, &used) == 1) {
        ck_assert_uint_lt(nr + used.written_bytes, room);
        memcpy(to + nr, used.token, used.written_bytes);
        nr += used.written_bytes;
    }
    to[nr] = 0;
    return nr;
}

static void say(uint32_t id, uint16_t event, uint16_t value)
{
    struct virtio_console_control message = {.id = id, .event = event, .value = value};

    send_bytes(CONSOLE_CONTROL_TX, &message, sizeof(message));
    nr_back(CONSOLE_CONTROL_TX);
}

/* The next control message as "event id value [name]", or "". */
static const char *heard(void)
{
    static char text[100];
    struct virtio_console_control message;
    struct fake_used used;

    text[0] = 0;
    if (fake_driver_collect(&driver, CONSOLE_CONTROL_RX, &used) != 1)
        return text;
    ck_assert_uint_ge(used.written_bytes, sizeof(message));
    memcpy(&message, used.token, sizeof(message));
    snprintf(text, sizeof(text), "%u %u %u%s%.*s", message.event, message.id, message.value,
             used.written_bytes > sizeof(message) ? " " : "", (int)(used.written_bytes - sizeof(message)),
             (const char *)used.token + sizeof(message));
    return text;
}

static void start(uint64_t features)
{
    ck_assert_int_eq(fake_driver_start(&driver, features, 0), 0);
    fake_driver_run(&driver);
}

/* As Linux: buffers for messages, device ready, ports ready. */
static void start_ports(uint64_t features, unsigned nr_named)
{
    start(features | MULTIPORT);
    give_buffers(CONSOLE_CONTROL_RX, 32, 128);
    say(0, VIRTIO_CONSOLE_DEVICE_READY, 1);
    for (unsigned i = 0; i <= nr_named; i++) {
        char text[32];

        snprintf(text, sizeof(text), "1 %u 1", i);
        ck_assert_str_eq(heard(), text);
    }
    for (unsigned i = 0; i <= nr_named; i++)
        say(i, VIRTIO_CONSOLE_PORT_READY, 1);
    ck_assert_str_eq(heard(), "4 0 1");
    ck_assert_str_eq(heard(), "6 0 1");
    ck_assert_str_eq(heard(), "7 1 1 agent");
    if (nr_named > 1)
        ck_assert_str_eq(heard(), "7 2 1 second");
}

/* --- the host's side ------------------------------------------------------------------------------- */

static int dial(const char *to)
{
    int fd = unix_connect(to);

    ck_assert_int_ge(fd, 0);
    fake_driver_run(&driver);
    return fd;
}

static size_t host_gets(int fd, char *to, size_t room)
{
    size_t nr = 0;
    ptrdiff_t got;

    while ((got = unix_recv(fd, to + nr, room - 1 - nr)) > 0) {
        nr += (size_t)got;
        fake_driver_run(&driver);
    }
    to[nr] = 0;
    return nr;
}

static struct console_stat stats(void)
{
    struct console_stat stat;

    console_stats(console, &stat);
    return stat;
}

/* --- port 0 ---------------------------------------------------------------------------------------- */

/* _i: which of the transport's features. */
START_TEST(test_console_output_comes_as_bytes_and_lines)
{
    make_with_ports(0);
    start((_i & 1 ? FEATURE(VIRTIO_F_RING_PACKED) : 0) | (_i & 2 ? FEATURE(VIRTIO_RING_F_EVENT_IDX) : 0));
    for (unsigned i = 0; i < 200; i++) {
        send_bytes(1, "hello\r\nwor", 10);
        send_bytes(1, "ld", 2);
        ck_assert_uint_eq(nr_back(1), 2);
        ck_assert_uint_eq(seen.nr, 12);
        ck_assert_int_eq(memcmp(seen.bytes, "hello\r\nworld", 12), 0);
        ck_assert_str_eq(seen.line, i == 0 ? "hello" : "worldhello");
        seen.nr = 0;
    }
    destroy();
    ck_assert_str_eq(seen.line, "world");
    ck_assert_uint_eq(seen.nr_lines, 201);
}
END_TEST

START_TEST(test_console_input_reaches_the_guest_in_order)
{
    char got[20000];

    make_with_ports(0);
    start(_i ? ALL_RINGS : 0);
    ck_assert_uint_eq(console_input(console, "before ", 7), 7);
    give_buffers(0, 2, 5);
    ck_assert_uint_eq(received(0, got, sizeof(got)), 7);
    ck_assert_str_eq(got, "before ");
    give_buffers(0, 1, 64);
    ck_assert_uint_eq(received(0, got, sizeof(got)), 0);
    ck_assert_uint_eq(console_input(console, "after", 5), 5);
    fake_driver_run(&driver);
    ck_assert_uint_eq(received(0, got, sizeof(got)), 5);
    ck_assert_str_eq(got, "after");
    ck_assert_uint_ne(fake_driver_interrupts(&driver) & VIRTIO_INT_USED, 0);
    ck_assert_uint_eq(stats().in_bytes, 12);
}
END_TEST

START_TEST(test_console_full_input_takes_no_more_and_says_when_it_can)
{
    static char many[CONSOLE_INPUT_BYTES + 100], got[2 * CONSOLE_INPUT_BYTES];

    for (unsigned i = 0; i < sizeof(many); i++)
        many[i] = (char)('a' + i % 26);
    make_with_ports(0);
    start(0);
    ck_assert_uint_eq(console_input(console, many, sizeof(many)), CONSOLE_INPUT_BYTES);
    ck_assert_uint_eq(console_input(console, many, 1), 0);
    fake_driver_run(&driver);
    ck_assert_uint_eq(seen.nr_rooms, 0);
    give_buffers(0, 5, BUFFER_BYTES);
    ck_assert_uint_eq(seen.nr_rooms, 1);
    ck_assert_uint_eq(received(0, got, sizeof(got)), CONSOLE_INPUT_BYTES);
    ck_assert_int_eq(memcmp(got, many, CONSOLE_INPUT_BYTES), 0);
    ck_assert_uint_eq(console_input(console, many + CONSOLE_INPUT_BYTES, 100), 100);
    fake_driver_run(&driver);
    ck_assert_uint_eq(received(0, got, sizeof(got)), 100);
    ck_assert_uint_eq(seen.nr_rooms, 1);
}
END_TEST

START_TEST(test_console_descriptor_is_read_as_the_guest_takes)
{
    struct console_config config = config_of(0, NULL);
    static char many[3 * CONSOLE_INPUT_BYTES], got[4 * CONSOLE_INPUT_BYTES];
    int ends[2];
    size_t nr = 0;

    ck_assert_int_eq(pipe(ends), 0);
    memset(many, 'm', sizeof(many));
    ck_assert_int_eq(write(ends[1], many, sizeof(many)), sizeof(many));
    config.input_fd = ends[0];
    make(&config);
    start(0);
    ck_assert_uint_eq(console_input(console, "x", 1), 0); /* the ring is full of the pipe's */
    for (unsigned i = 0; i < 12; i++) {
        give_buffers(0, 1, BUFFER_BYTES);
        nr += received(0, got + nr, sizeof(got) - nr);
    }
    ck_assert_uint_eq(nr, sizeof(many));
    ck_assert_int_eq(memcmp(many, got, nr), 0);
    close(ends[1]); /* the end of input ends nothing else, and is no reason to turn for ever */
    fake_driver_run(&driver);
    ck_assert_uint_eq(console_input(console, "x", 1), 1);
    give_buffers(0, 1, BUFFER_BYTES);
    ck_assert_uint_eq(received(0, got, sizeof(got)), 1);
    destroy();
    ck_assert_int_eq(close(ends[0]), 0); /* stayed open */
}
END_TEST

START_TEST(test_console_file_as_input_is_read_to_its_end)
{
    struct console_config config = config_of(0, NULL);
    static char many[3 * CONSOLE_INPUT_BYTES], got[4 * CONSOLE_INPUT_BYTES];
    FILE *file = tmpfile();

    ck_assert_ptr_nonnull(file);
    memset(many, 'f', sizeof(many));
    ck_assert_uint_eq(fwrite(many, 1, sizeof(many), file), sizeof(many));
    rewind(file);
    config.input_fd = fileno(file);
    make(&config);
    start(0);
    give_buffers(0, 20, BUFFER_BYTES);
    ck_assert_uint_eq(received(0, got, sizeof(got)), sizeof(many));
    fake_driver_run(&driver);
    ck_assert_uint_eq(console_input(console, "x", 1), 1);
    destroy();
    fclose(file);
}
END_TEST

START_TEST(test_console_emergency_write_needs_no_queue)
{
    make_with_ports(0);
    ck_assert_uint_ne(fake_driver_offered(&driver) & FEATURE(VIRTIO_CONSOLE_F_EMERG_WRITE), 0);
    ck_assert_int_eq(fake_driver_negotiate(&driver, FEATURE(VIRTIO_CONSOLE_F_EMERG_WRITE)), 0);
    fake_driver_config_write(&driver, 8, "!\0\0\0", 4);
    fake_driver_config_write(&driver, 0, "?\0\0\0", 4);
    ck_assert_uint_eq(seen.nr, 1);
    ck_assert_int_eq(seen.bytes[0], '!');
}
END_TEST

/* Early boot, and a guest whose rings are broken: nobody has spoken to the device, or it waits for a reset. */
START_TEST(test_console_emergency_write_is_heard_before_there_is_a_driver)
{
    make_with_ports(0);
    fake_driver_config_write(&driver, 8, "!\0\0\0", 4);
    fake_driver_config_write(&driver, 4, "?\0\0\0", 4);
    ck_assert_uint_eq(seen.nr, 1);
    ck_assert_int_eq(seen.bytes[0], '!');
    ck_assert_int_eq(fake_driver_start(&driver, 0, 0), 0);
    fake_driver_reset(&driver);
    fake_driver_config_write(&driver, 8, "+", 1);
    ck_assert_uint_eq(seen.nr, 2);
    ck_assert_int_eq(seen.bytes[1], '+');
}
END_TEST

START_TEST(test_console_without_ports_offers_no_multiport)
{
    uint32_t nr = 0;

    make_with_ports(0);
    ck_assert_uint_eq(fake_driver_offered(&driver) & MULTIPORT, 0);
    ck_assert_uint_eq(console_device(console)->nr_queues, 2);
    fake_driver_config_read(&driver, 4, &nr, 4);
    ck_assert_uint_eq(nr, 1);
}
END_TEST

START_TEST(test_console_driver_without_multiport_still_has_a_console)
{
    char got[100];

    make_with_ports(2);
    ck_assert_uint_eq(console_device(console)->nr_queues, 8);
    start(0);
    send_bytes(1, "out", 3);
    ck_assert_uint_eq(seen.nr, 3);
    ck_assert_uint_eq(console_input(console, "in", 2), 2);
    give_buffers(0, 1, 10);
    ck_assert_uint_eq(received(0, got, sizeof(got)), 2);
}
END_TEST

/* --- ports ----------------------------------------------------------------------------------------- */

START_TEST(test_console_port_carries_both_ways)
{
    char got[100];

    make_with_ports(2);
    start_ports(_i ? ALL_RINGS : 0, 2);
    int fd = dial(path);
    ck_assert_str_eq(heard(), "6 1 1");
    say(1, VIRTIO_CONSOLE_PORT_OPEN, 1);
    give_buffers(4, 4, 100);
    ck_assert_int_eq(unix_send(fd, "ping", 4), 4);
    fake_driver_run(&driver);
    ck_assert_uint_eq(received(4, got, sizeof(got)), 4);
    ck_assert_str_eq(got, "ping");
    send_bytes(5, "pong", 4);
    ck_assert_uint_eq(nr_back(5), 1);
    ck_assert_uint_eq(host_gets(fd, got, sizeof(got)), 4);
    ck_assert_str_eq(got, "pong");
    int second = dial(path2);
    ck_assert_str_eq(heard(), "6 2 1");
    send_bytes(7, "two", 3);
    ck_assert_uint_eq(host_gets(second, got, sizeof(got)), 3);
    ck_assert_str_eq(got, "two");
    ck_assert_uint_eq(host_gets(fd, got, sizeof(got)), 0);
    ck_assert_uint_eq(stats().nr_connections, 2);
    ck_assert_uint_eq(stats().out_bytes, 7);
    ck_assert_uint_eq(seen.nr, 0);
    close(second);
    close(fd);
}
END_TEST

START_TEST(test_console_port_waits_for_the_guest_to_open_it)
{
    char got[100];

    make_with_ports(1);
    int fd = dial(path); /* before there is a driver */
    ck_assert_int_eq(unix_send(fd, "early", 5), 5);
    start(MULTIPORT); /* with the reset that every driver begins with */
    give_buffers(CONSOLE_CONTROL_RX, 32, 128);
    give_buffers(4, 4, 100);
    say(0, VIRTIO_CONSOLE_DEVICE_READY, 1);
    say(1, VIRTIO_CONSOLE_PORT_READY, 1);
    ck_assert_str_eq(heard(), "1 0 1");
    ck_assert_str_eq(heard(), "1 1 1");
    ck_assert_str_eq(heard(), "7 1 1 agent");
    ck_assert_str_eq(heard(), "6 1 1");
    ck_assert_uint_eq(received(4, got, sizeof(got)), 0);
    close(fd); /* what it sent is not lost */
    fake_driver_run(&driver);
    say(1, VIRTIO_CONSOLE_PORT_OPEN, 1);
    ck_assert_uint_eq(received(4, got, sizeof(got)), 5);
    ck_assert_str_eq(got, "early");
    ck_assert_str_eq(heard(), "6 1 0");
}
END_TEST

START_TEST(test_console_port_takes_one_connection_after_the_other)
{
    char got[100];

    make_with_ports(1);
    start_ports(0, 1);
    say(1, VIRTIO_CONSOLE_PORT_OPEN, 1);
    int first = dial(path), second = dial(path);
    ck_assert_str_eq(heard(), "6 1 1");
    ck_assert_int_eq(unix_send(second, "2", 1), 1);
    ck_assert_int_eq(unix_send(first, "1", 1), 1);
    fake_driver_run(&driver);
    ck_assert_str_eq(heard(), "");
    close(first);
    fake_driver_run(&driver);
    ck_assert_str_eq(heard(), ""); /* the guest has not taken what it sent */
    give_buffers(4, 1, 100);
    ck_assert_uint_eq(received(4, got, sizeof(got)), 1);
    ck_assert_str_eq(got, "1");
    ck_assert_str_eq(heard(), "6 1 0");
    ck_assert_str_eq(heard(), "6 1 1");
    give_buffers(4, 1, 100);
    ck_assert_uint_eq(received(4, got, sizeof(got)), 1);
    ck_assert_str_eq(got, "2");
    ck_assert_uint_eq(stats().nr_connections, 2);
    close(second);
}
END_TEST

START_TEST(test_console_connection_without_a_descriptor_for_it_keeps_nobody_busy)
{
    struct rlimit limit, none;
    unsigned nr_busy = 0;

    make_with_ports(1);
    start_ports(0, 1);
    int fd = unix_connect(path);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    none = (struct rlimit){.rlim_cur = 0, .rlim_max = limit.rlim_max};
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
    for (unsigned i = 0; i < 20; i++)
        nr_busy += loop_turn(loop, 0) > 0;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    ck_assert_uint_le(nr_busy, 2);
    ck_assert_uint_eq(stats().nr_connections, 0);
    send_bytes(5, "x", 1); /* any kick: tried again */
    ck_assert_uint_eq(stats().nr_connections, 1);
    close(fd);
}
END_TEST

START_TEST(test_console_port_without_room_for_messages_waits_with_the_next)
{
    make_with_ports(1);
    start(MULTIPORT);
    say(0, VIRTIO_CONSOLE_DEVICE_READY, 1);
    say(1, VIRTIO_CONSOLE_PORT_READY, 1);
    close(dial(path));
    close(dial(path)); /* waits: the guest knows nothing of the first */
    fake_driver_run(&driver);
    give_buffers(CONSOLE_CONTROL_RX, 32, 128);
    ck_assert_str_eq(heard(), "1 0 1");
    ck_assert_str_eq(heard(), "1 1 1");
    ck_assert_str_eq(heard(), "7 1 1 agent");
    ck_assert_str_eq(heard(), "6 1 1");
    ck_assert_str_eq(heard(), "");
    say(1, VIRTIO_CONSOLE_PORT_OPEN, 1);
    ck_assert_str_eq(heard(), "6 1 0");
    ck_assert_str_eq(heard(), "6 1 1");
    ck_assert_str_eq(heard(), "6 1 0");
    ck_assert_str_eq(heard(), "");
    ck_assert_uint_eq(stats().nr_connections, 2);
}
END_TEST

START_TEST(test_console_port_slow_reader_holds_the_queue)
{
    static char big[60000], got[200000];
    size_t nr = 0;
    unsigned nr_sent = 0, back = 0;

    memset(big, 'b', sizeof(big));
    make_with_ports(1);
    start_ports(_i ? ALL_RINGS : 0, 1);
    int fd = dial(path);
    struct fake_buffer buffer = {fake_memory_alloc(&memory, sizeof(big), 1), sizeof(big)};
    memcpy(fake_memory_at(&memory, buffer.gpa, sizeof(big)), big, sizeof(big));
    for (; nr_sent < 60; nr_sent++)
        ck_assert_int_eq(fake_driver_add(&driver, 5, &buffer, 1, 0, false, NULL), 0);
    fake_driver_kick(&driver, 5);
    fake_driver_run(&driver); /* ends, although the socket is full */
    back = nr_back(5);
    ck_assert_uint_lt(back, nr_sent);
    for (unsigned turn = 0; turn < 1000 && nr < nr_sent * sizeof(big); turn++) {
        nr += host_gets(fd, got, sizeof(got));
        fake_driver_run(&driver);
        back += nr_back(5);
    }
    ck_assert_uint_eq(nr, nr_sent * sizeof(big));
    ck_assert_uint_eq(back, nr_sent);
    ck_assert_uint_eq(stats().out_bytes, nr);
    close(fd);
}
END_TEST

START_TEST(test_console_port_output_in_memory_that_was_unplugged_comes_back)
{
    static char big[60000];
    const uint64_t all = UINT64_MAX, none = 0;

    memory.mem.plugged = &all;
    make_with_ports(1);
    start_ports(0, 1);
    int fd = dial(path);
    for (unsigned i = 0; i < 20; i++)
        send_bytes(5, big, sizeof(big));
    unsigned back = nr_back(5);
    ck_assert_uint_lt(back, 20);
    memory.mem.plugged = &none; /* of the chain in hand; rings stay where they are */
    while (host_gets(fd, big, sizeof(big)) > 0)
        fake_driver_run(&driver); /* ends */
    memory.mem.plugged = &all;
    ck_assert_uint_ge(back + nr_back(5), back + 1);
    close(fd);
}
END_TEST

START_TEST(test_console_port_reader_that_leaves_frees_the_queue)
{
    static char big[60000];
    unsigned back = 0;

    make_with_ports(1);
    start_ports(0, 1);
    int fd = dial(path);
    for (unsigned i = 0; i < 20; i++)
        send_bytes(5, big, sizeof(big));
    ck_assert_uint_lt(back += nr_back(5), 20);
    close(fd);
    fake_driver_run(&driver);
    ck_assert_uint_eq(back + nr_back(5), 20);
    ck_assert_uint_gt(stats().discarded_bytes, 0);
    ck_assert_uint_eq(stats().discarded_bytes + stats().out_bytes, 20 * sizeof(big));
    ck_assert_str_eq(heard(), "6 1 1");
    ck_assert_str_eq(heard(), "6 1 0");
}
END_TEST

START_TEST(test_console_port_output_without_reader_is_discarded)
{
    make_with_ports(1);
    start_ports(0, 1);
    send_bytes(5, "nobody", 6);
    ck_assert_uint_eq(nr_back(5), 1);
    ck_assert_uint_eq(stats().discarded_bytes, 6);
    ck_assert_uint_eq(stats().out_bytes, 0);
}
END_TEST

START_TEST(test_console_reset_hangs_up_and_frees_the_chain_in_hand)
{
    static char big[60000];
    char got[10];

    make_with_ports(1);
    start_ports(0, 1);
    int fd = dial(path);
    for (unsigned i = 0; i < 20; i++)
        send_bytes(5, big, sizeof(big));
    fake_driver_reset(&driver);
    fake_driver_run(&driver);
    while (host_gets(fd, big, sizeof(big)) > 0)
        ;
    ck_assert_int_eq(unix_recv(fd, got, 1), 0);
    close(fd);
    start_ports(0, 1);
    fd = dial(path);
    ck_assert_str_eq(heard(), "6 1 1");
    send_bytes(5, "new", 3);
    ck_assert_uint_eq(host_gets(fd, got, sizeof(got)), 3);
    ck_assert_str_eq(got, "new");
    close(fd);
}
END_TEST

/* --- a hostile driver ------------------------------------------------------------------------------ */

START_TEST(test_console_driver_that_is_ready_twice_is_told_of_its_ports_twice)
{
    make_with_ports(1);
    start_ports(0, 1);
    say(1, VIRTIO_CONSOLE_PORT_OPEN, 1);
    say(0, VIRTIO_CONSOLE_DEVICE_READY, 1);
    ck_assert_str_eq(heard(), "");
    int fd = dial(path); /* the port is as it was */
    ck_assert_str_eq(heard(), "6 1 1");
    say(0, VIRTIO_CONSOLE_DEVICE_READY, 0); /* it has failed: it is told nothing more */
    close(fd);
    fake_driver_run(&driver);
    ck_assert_str_eq(heard(), "");
    say(0, VIRTIO_CONSOLE_DEVICE_READY, 1);
    ck_assert_str_eq(heard(), "");
    start_ports(0, 1); /* a reset: all anew */
}
END_TEST

START_TEST(test_console_malformed_messages_are_counted)
{
    make_with_ports(1);
    start(MULTIPORT);
    send_bytes(CONSOLE_CONTROL_TX, "1234567", 7); /* short */
    say(9, VIRTIO_CONSOLE_PORT_READY, 1);         /* no such port */
    say(UINT32_MAX, VIRTIO_CONSOLE_PORT_OPEN, 1);
    say(2, VIRTIO_CONSOLE_PORT_OPEN, 0);
    say(1, 77, 1); /* no such event */
    say(1, VIRTIO_CONSOLE_PORT_ADD, 1);
    ck_assert_uint_eq(stats().nr_malformed, 6);
    ck_assert_uint_eq(fake_driver_status(&driver) & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
    ck_assert_str_eq(heard(), "");
}
END_TEST

START_TEST(test_console_message_buffer_too_short_is_counted)
{
    struct fake_used used;

    make_with_ports(1);
    start(MULTIPORT);
    give_buffers(CONSOLE_CONTROL_RX, 1, 3);
    say(0, VIRTIO_CONSOLE_DEVICE_READY, 1);
    ck_assert_int_eq(fake_driver_collect(&driver, CONSOLE_CONTROL_RX, &used), 1);
    ck_assert_uint_eq(used.written_bytes, 3);
    ck_assert_uint_eq(stats().nr_malformed, 1);
}
END_TEST

START_TEST(test_console_readable_buffer_in_the_receive_queue_is_counted_and_comes_back)
{
    struct fake_buffer buffer = {fake_memory_alloc(&memory, 64, 1), 64};
    struct fake_used used;
    char got[10];

    make_with_ports(0);
    start(0);
    ck_assert_uint_eq(console_input(console, "abc", 3), 3);
    ck_assert_int_eq(fake_driver_add(&driver, 0, &buffer, 1, 0, false, NULL), 0);
    fake_driver_kick(&driver, 0);
    fake_driver_run(&driver);
    ck_assert_int_eq(fake_driver_collect(&driver, 0, &used), 1);
    ck_assert_uint_eq(used.written_bytes, 0);
    ck_assert_uint_eq(stats().nr_malformed, 1);
    give_buffers(0, 1, 64);
    ck_assert_uint_eq(received(0, got, sizeof(got)), 3);
}
END_TEST

START_TEST(test_console_writable_buffer_in_the_transmit_queue_sends_nothing)
{
    struct fake_buffer buffer = {fake_memory_alloc(&memory, 64, 1), 64};

    make_with_ports(0);
    start(0);
    ck_assert_int_eq(fake_driver_add(&driver, 1, &buffer, 0, 1, false, NULL), 0);
    fake_driver_kick(&driver, 1);
    fake_driver_run(&driver);
    ck_assert_uint_eq(nr_back(1), 1);
    ck_assert_uint_eq(seen.nr, 0);
}
END_TEST

START_TEST(test_console_broken_queue_stops_all_until_reset)
{
    struct fake_buffer buffer = {{memory.mem.region[0].start.v + (64 << 20)}, 64}; /* no memory there */

    make_with_ports(1);
    start_ports(0, 1);
    int fd = dial(path);
    ck_assert_int_eq(fake_driver_add(&driver, 5, &buffer, 1, 0, false, NULL), 0);
    fake_driver_kick(&driver, 5);
    fake_driver_run(&driver);
    ck_assert_uint_ne(fake_driver_status(&driver) & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
    ck_assert_int_eq(unix_send(fd, "x", 1), 1);
    fake_driver_run(&driver);
    send_bytes(1, "dead", 4);
    ck_assert_uint_eq(seen.nr, 0);
    start_ports(0, 1);
    send_bytes(1, "alive", 5);
    ck_assert_uint_eq(seen.nr, 5);
    close(fd);
}
END_TEST

/* --- making ---------------------------------------------------------------------------------------- */

static int create(unsigned nr, const struct console_port_config *ports)
{
    const struct console_config config = config_of(nr, ports);

    why[0] = 0;
    return console_create(&config, &env, &console, why, sizeof(why));
}

START_TEST(test_console_bad_configuration_is_refused)
{
    const struct console_port_config none[] = {{"", path}}, space[] = {{"a b", path}}, null[] = {{NULL, path}};
    const struct console_port_config twice[] = {{"a", path}, {"a", path2}};
    const struct console_port_config four[] = {{"a", path}, {"b", path}, {"c", path}, {"d", path}};
    const struct console_port_config lost[] = {{"a", path}, {"b", "/nonexistent/folder/socket"}};
    char long_name[CONSOLE_NAME_BYTES + 1];
    const struct console_port_config too_long[] = {{long_name, path}};

    memset(long_name, 'n', sizeof(long_name) - 1);
    long_name[CONSOLE_NAME_BYTES] = 0;
    ck_assert_int_eq(create(1, none), -EINVAL);
    ck_assert_int_eq(create(1, space), -EINVAL);
    ck_assert_int_eq(create(1, null), -EINVAL);
    ck_assert_int_eq(create(1, too_long), -EINVAL);
    ck_assert_int_eq(create(2, twice), -EINVAL);
    ck_assert_ptr_nonnull(strstr(why, "two console ports are named a"));
    ck_assert_int_eq(create(4, four), -EINVAL);
    ck_assert_int_eq(create(2, lost), -ENOENT);
    ck_assert_ptr_nonnull(strstr(why, "/nonexistent/folder/socket"));
    ck_assert_ptr_null(console);
    ck_assert_int_ne(access(path, F_OK), 0); /* the first socket is gone, too */
}
END_TEST

START_TEST(test_console_socket_is_private_and_replaces_only_a_dead_one)
{
    const struct console_port_config one[] = {{"a", path}};
    struct console *other = NULL;
    struct stat st;

    make_with_ports(1);
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_uint_eq(st.st_mode & 0777, 0600);
    const struct console_config config = config_of(1, one);
    ck_assert_int_eq(console_create(&config, &env, &other, why, sizeof(why)), -EADDRINUSE);
    destroy();
    int dead = unix_listen(path, 1, why, sizeof(why));
    ck_assert_int_ge(dead, 0);
    close(dead); /* left behind, as by a process that was killed */
    make_with_ports(1);
    destroy();
    FILE *file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    fclose(file);
    ck_assert_int_eq(create(1, one), -EADDRINUSE);
    ck_assert_int_eq(unlink(path), 0); /* the file stayed */
}
END_TEST

/* Every error was told as one of the path: take a path in a directory that can be written. */
START_TEST(test_console_socket_without_descriptors_is_not_the_paths_fault)
{
    const struct console_port_config nowhere[] = {{"a", "/tmp/ebb-no-such-directory/a"}};
    struct rlimit old;

    ck_assert_int_eq(create(1, nowhere), -ENOENT);
    ck_assert_ptr_nonnull(strstr(why, "directory that can be written"));
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &old), 0);
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &(struct rlimit){0, old.rlim_max}), 0);
    int fd = unix_listen(path, 1, why, sizeof(why));
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &old), 0);
    ck_assert_int_eq(fd, -EMFILE);
    ck_assert_msg(!strstr(why, "directory"), "%s", why);
}
END_TEST

START_TEST(test_console_no_memory_leaves_nothing)
{
    const struct console_port_config one[] = {{"a", path}};

    for (long n = 1;; n++) {
        fail_alloc_at(n);
        int err = create(1, one);
        bool failed = fail_alloc_fired();
        fail_alloc_at(-1);
        if (!failed) {
            ck_assert_int_eq(err, 0);
            break;
        }
        ck_assert_int_eq(err, -ENOMEM);
        ck_assert_ptr_null(console);
        ck_assert_int_ne(access(path, F_OK), 0);
    }
    console_destroy(console);
    console = NULL;
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("console");
    TCase *tcase = tcase_create("console");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_loop_test(tcase, test_console_output_comes_as_bytes_and_lines, 0, 4);
    tcase_add_loop_test(tcase, test_console_input_reaches_the_guest_in_order, 0, 2);
    tcase_add_test(tcase, test_console_full_input_takes_no_more_and_says_when_it_can);
    tcase_add_test(tcase, test_console_descriptor_is_read_as_the_guest_takes);
    tcase_add_test(tcase, test_console_file_as_input_is_read_to_its_end);
    tcase_add_test(tcase, test_console_emergency_write_needs_no_queue);
    tcase_add_test(tcase, test_console_emergency_write_is_heard_before_there_is_a_driver);
    tcase_add_test(tcase, test_console_without_ports_offers_no_multiport);
    tcase_add_test(tcase, test_console_driver_without_multiport_still_has_a_console);
    tcase_add_loop_test(tcase, test_console_port_carries_both_ways, 0, 2);
    tcase_add_test(tcase, test_console_port_waits_for_the_guest_to_open_it);
    tcase_add_test(tcase, test_console_port_takes_one_connection_after_the_other);
    tcase_add_test(tcase, test_console_connection_without_a_descriptor_for_it_keeps_nobody_busy);
    tcase_add_test(tcase, test_console_port_without_room_for_messages_waits_with_the_next);
    tcase_add_loop_test(tcase, test_console_port_slow_reader_holds_the_queue, 0, 2);
    tcase_add_test(tcase, test_console_port_output_in_memory_that_was_unplugged_comes_back);
    tcase_add_test(tcase, test_console_port_reader_that_leaves_frees_the_queue);
    tcase_add_test(tcase, test_console_port_output_without_reader_is_discarded);
    tcase_add_test(tcase, test_console_reset_hangs_up_and_frees_the_chain_in_hand);
    tcase_add_test(tcase, test_console_driver_that_is_ready_twice_is_told_of_its_ports_twice);
    tcase_add_test(tcase, test_console_malformed_messages_are_counted);
    tcase_add_test(tcase, test_console_message_buffer_too_short_is_counted);
    tcase_add_test(tcase, test_console_readable_buffer_in_the_receive_queue_is_counted_and_comes_back);
    tcase_add_test(tcase, test_console_writable_buffer_in_the_transmit_queue_sends_nothing);
    tcase_add_test(tcase, test_console_broken_queue_stops_all_until_reset);
    tcase_add_test(tcase, test_console_bad_configuration_is_refused);
    tcase_add_test(tcase, test_console_socket_is_private_and_replaces_only_a_dead_one);
    tcase_add_test(tcase, test_console_socket_without_descriptors_is_not_the_paths_fault);
    tcase_add_test(tcase, test_console_no_memory_leaves_nothing);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
