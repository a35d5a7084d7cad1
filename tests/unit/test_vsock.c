/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "devices/vsock/state.h"
#include "devices/vsock/vsock.h"
#include "tests/fake/fail_alloc.h"
#include "tests/fake/fake_driver.h"

#define ALL_RINGS (UINT64_C(1) << VIRTIO_F_RING_PACKED | UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX)
#define CID 42
#define ROOM (256u << 10) /* what the guest says it buffers */
#define RX_BYTES 4096

static struct fake_memory memory;
static struct loop *loop;
static struct device_env env;
static struct vsock *vsock;
static struct virtio_mmio mmio;
static struct fake_driver driver;
static char folder[32], path[64], path_1234[64];
static char why[200];
static gpa_t tx_page, rx_page[128];
static unsigned next_rx;

static void setup(void)
{
    const struct vsock_config config = {.guest_cid = CID, .path = path};

    strcpy(folder, "/tmp/ebb-vsock-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/v", folder);
    snprintf(path_1234, sizeof(path_1234), "%s/v_1234", folder);
    fake_memory_init(&memory, 0x100000, 8 << 20);
    tx_page = fake_memory_alloc(&memory, 1 << 20, 4096);
    for (unsigned i = 0; i < ARRAY_LEN(rx_page); i++)
        rx_page[i] = fake_memory_alloc(&memory, RX_BYTES, 4096);
    next_rx = 0;
    ck_assert_int_eq(loop_create(&loop), 0);
    env = (struct device_env){.mem = &memory.mem, .loop = loop};
    ck_assert_msg(vsock_create(&config, &env, &vsock, why, sizeof(why)) == 0, "%s", why);
    ck_assert_int_eq(virtio_mmio_init(&mmio, vsock_device(vsock)), 0);
    fake_driver_init(&driver, &mmio, &memory);
}

static void teardown(void)
{
    ck_assert_msg(vsock_check(vsock, &(const char *){NULL}), "invariants");
    virtio_mmio_fini(&mmio);
    vsock_destroy(vsock);
    loop_destroy(loop);
    fake_memory_fini(&memory);
    ck_assert_int_eq(rmdir(folder), 0); /* every socket is gone */
}

static void run(void)
{
    const char *breach = "";

    fake_driver_run(&driver);
    ck_assert_msg(vsock_check(vsock, &breach), "%s", breach);
}

static struct vsock_stat stats(void)
{
    struct vsock_stat stat;

    vsock_stats(vsock, &stat);
    return stat;
}

/* --- the guest's side ------------------------------------------------------------------------------ */

static void give_buffers(unsigned nr, uint32_t bytes)
{
    for (unsigned i = 0; i < nr; i++) {
        struct fake_buffer buffer = {rx_page[next_rx++ % ARRAY_LEN(rx_page)], bytes};
        void *at = fake_memory_at(&memory, buffer.gpa, bytes);

        ck_assert_int_eq(fake_driver_add(&driver, VSOCK_RX, &buffer, 0, 1, false, at), 0);
    }
    fake_driver_kick(&driver, VSOCK_RX);
    run();
}

static void start(uint64_t features, unsigned nr_buffers)
{
    ck_assert_int_eq(fake_driver_start(&driver, features, 0), 0);
    run();
    give_buffers(nr_buffers, RX_BYTES);
}

static struct virtio_vsock_hdr header_of(uint16_t op, uint32_t guest_port, uint32_t host_port)
{
    return (struct virtio_vsock_hdr){.src_cid = CID,
                                     .dst_cid = VSOCK_HOST_CID,
                                     .src_port = guest_port,
                                     .dst_port = host_port,
                                     .type = VIRTIO_VSOCK_TYPE_STREAM,
                                     .op = op,
                                     .buf_alloc = ROOM};
}

/* Header and @nr bytes as one chain of two. */
static void guest_sends(struct virtio_vsock_hdr header, const void *bytes, uint32_t nr)
{
    struct fake_buffer buffers[2] = {{tx_page, sizeof(header)}, {{tx_page.v + 64}, nr}};
    struct fake_used used;

    memcpy(fake_memory_at(&memory, tx_page, sizeof(header)), &header, sizeof(header));
    if (nr > 0)
        memcpy(fake_memory_at(&memory, buffers[1].gpa, nr), bytes, nr);
    ck_assert_int_eq(fake_driver_add(&driver, VSOCK_TX, buffers, nr > 0 ? 2 : 1, 0, false, NULL), 0);
    fake_driver_kick(&driver, VSOCK_TX);
    run();
    ck_assert_int_eq(fake_driver_collect(&driver, VSOCK_TX, &used), 1);
    ck_assert_uint_eq(used.written_bytes, 0);
}

static void guest_says(uint16_t op, uint32_t guest_port, uint32_t host_port)
{
    guest_sends(header_of(op, guest_port, host_port), NULL, 0);
}

static void guest_shuts(uint32_t guest_port, uint32_t host_port, uint32_t flags)
{
    struct virtio_vsock_hdr header = header_of(VIRTIO_VSOCK_OP_SHUTDOWN, guest_port, host_port);

    header.flags = flags;
    guest_sends(header, NULL, 0);
}

static void guest_writes(uint32_t guest_port, uint32_t host_port, const void *bytes, uint32_t nr)
{
    struct virtio_vsock_hdr header = header_of(VIRTIO_VSOCK_OP_RW, guest_port, host_port);

    header.len = nr;
    guest_sends(header, bytes, nr);
}

/* The next packet: its header; its data to @data, ended by 0. False: none. A new buffer takes the place of its own. */
static bool guest_hears(struct virtio_vsock_hdr *header, char *data)
{
    struct fake_used used;

    if (fake_driver_collect(&driver, VSOCK_RX, &used) != 1)
        return false;
    ck_assert_uint_ge(used.written_bytes, sizeof(*header));
    memcpy(header, used.token, sizeof(*header));
    ck_assert_uint_eq(header->len + sizeof(*header), used.written_bytes);
    ck_assert_uint_eq(header->dst_cid, CID);
    memcpy(data, (const char *)used.token + sizeof(*header), header->len);
    data[header->len] = 0;
    return true;
}

/* "op guest_port host_port flags [data]" of the next packet, or "". */
static const char *heard(void)
{
    static const char *const names[] = {"?", "request", "response", "reset", "shutdown", "data", "credit", "ask"};
    static char text[RX_BYTES + 100], data[RX_BYTES + 1];
    struct virtio_vsock_hdr header;

    if (!guest_hears(&header, data))
        return "";
    ck_assert_uint_lt(header.op, ARRAY_LEN(names));
    snprintf(text, sizeof(text), "%s %u %u %u%s%s", names[header.op], header.dst_port, header.src_port, header.flags,
             header.len > 0 ? " " : "", data);
    return text;
}

/* --- the host's side ------------------------------------------------------------------------------- */

static int dial(const char *line)
{
    int fd = unix_connect(path);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(unix_send(fd, line, strlen(line)), (ptrdiff_t)strlen(line));
    run();
    return fd;
}

static const char *host_reads(int fd)
{
    static char text[200];
    ptrdiff_t nr = unix_recv(fd, text, sizeof(text) - 1);

    if (nr == 0)
        return "end";
    if (nr < 0)
        return nr == -EAGAIN ? "" : "error";
    text[nr] = 0;
    return text;
}

/* A connection that the host opens to guest port 99: first host port is 1 << 30. */
static int open_from_host(uint32_t *host_port)
{
    int fd = dial("CONNECT 99\n");
    char text[100];

    *host_port = 1u << 30;
    snprintf(text, sizeof(text), "request 99 %u 0", *host_port);
    ck_assert_str_eq(heard(), text);
    ck_assert_str_eq(host_reads(fd), "");
    guest_says(VIRTIO_VSOCK_OP_RESPONSE, 99, *host_port);
    snprintf(text, sizeof(text), "OK %u\n", *host_port);
    ck_assert_str_eq(host_reads(fd), text);
    return fd;
}

/* A connection that the guest opens from port 77 to 1234. */
static int open_from_guest(void)
{
    int listener = unix_listen(path_1234, 4, why, sizeof(why));

    ck_assert_msg(listener >= 0, "%s", why);
    guest_says(VIRTIO_VSOCK_OP_REQUEST, 77, 1234);
    int fd = unix_accept(listener);
    ck_assert_int_ge(fd, 0);
    unix_unlisten(listener, path_1234);
    return fd;
}

/* --- opening --------------------------------------------------------------------------------------- */

START_TEST(test_vsock_host_opens_and_both_talk)
{
    uint32_t port;
    char text[100];

    start(_i ? ALL_RINGS : 0, 32);
    int fd = open_from_host(&port);
    ck_assert_int_eq(unix_send(fd, "ping", 4), 4);
    run();
    snprintf(text, sizeof(text), "data 99 %u 0 ping", port);
    ck_assert_str_eq(heard(), text);
    guest_writes(99, port, "pong", 4);
    ck_assert_str_eq(host_reads(fd), "pong");
    ck_assert_uint_eq(stats().nr_from_host, 1);
    ck_assert_uint_eq(stats().nr_open, 1);
    ck_assert_uint_eq(stats().in_bytes, 4);
    ck_assert_uint_eq(stats().out_bytes, 4);
    close(fd);
}
END_TEST

START_TEST(test_vsock_guest_opens_and_both_talk)
{
    start(_i ? ALL_RINGS : 0, 32);
    int fd = open_from_guest();
    ck_assert_str_eq(heard(), "response 77 1234 0");
    guest_writes(77, 1234, "hello", 5);
    ck_assert_str_eq(host_reads(fd), "hello");
    ck_assert_int_eq(unix_send(fd, "you", 3), 3);
    run();
    ck_assert_str_eq(heard(), "data 77 1234 0 you");
    ck_assert_uint_eq(stats().nr_from_guest, 1);
    close(fd);
}
END_TEST

START_TEST(test_vsock_guest_is_refused_where_nobody_listens)
{
    start(0, 32);
    guest_says(VIRTIO_VSOCK_OP_REQUEST, 77, 1234);
    ck_assert_str_eq(heard(), "reset 77 1234 0");
    ck_assert_uint_eq(stats().nr_refused, 1);
    ck_assert_uint_eq(stats().nr_open, 0);
}
END_TEST

START_TEST(test_vsock_host_is_refused_where_nobody_listens)
{
    start(0, 32);
    int fd = dial("CONNECT 5\n");
    guest_says(VIRTIO_VSOCK_OP_RST, 5, 1u << 30);
    ck_assert_str_eq(host_reads(fd), "end");
    ck_assert_uint_eq(stats().nr_refused, 1);
    ck_assert_uint_eq(stats().nr_open, 0);
    close(fd);
}
END_TEST

START_TEST(test_vsock_line_may_come_in_pieces_and_with_data_behind)
{
    char text[100];

    start(0, 32);
    int fd = dial("CONN");
    ck_assert_str_eq(heard(), "");
    ck_assert_int_eq(unix_send(fd, "ECT 4294967295\nfirst", 20), 20);
    run();
    snprintf(text, sizeof(text), "request 4294967295 %u 0", 1u << 30);
    ck_assert_str_eq(heard(), text);
    ck_assert_str_eq(heard(), ""); /* not before the guest has accepted */
    guest_says(VIRTIO_VSOCK_OP_RESPONSE, UINT32_MAX, 1u << 30);
    snprintf(text, sizeof(text), "data 4294967295 %u 0 first", 1u << 30);
    ck_assert_str_eq(heard(), text);
    close(fd);
}
END_TEST

START_TEST(test_vsock_bad_lines_end_the_connection)
{
    static const char *const lines[] = {
        "\n",
        "CONNECT\n",
        "CONNECT \n",
        "CONNECT x\n",
        "connect 1\n",
        "CONNECT 1 \n",
        "CONNECT 4294967296\n",
        "CONNECT 99999999999999999999999999999999999\n",
        "CONNECT -1\n",
        "CONNECT 0x10\n",
        "GET / HTTP/1.1\r\n\r\n",
        "CONNECT 1\r\n",
    };

    start(0, 32);
    for (unsigned i = 0; i < ARRAY_LEN(lines); i++) {
        int fd = dial(lines[i]);
        char byte;

        ck_assert_int_le(unix_recv(fd, &byte, 1), 0); /* the end, or a reset: it had sent more */
        ck_assert_uint_eq(stats().nr_open, 0);
        close(fd);
    }
    ck_assert_str_eq(heard(), "");
}
END_TEST

START_TEST(test_vsock_program_waits_for_the_driver)
{
    int fd = dial("CONNECT 99\n");

    ck_assert_uint_eq(stats().nr_open, 0);
    start(0, 4);
    ck_assert_str_eq(heard(), "request 99 1073741824 0");
    close(fd);
}
END_TEST

START_TEST(test_vsock_program_that_leaves_before_the_answer_is_forgotten)
{
    start(0, 0);
    close(dial("CONNECT 99\n")); /* the guest was not even asked */
    run();
    ck_assert_uint_eq(stats().nr_open, 0);
    give_buffers(4, RX_BYTES);
    ck_assert_str_eq(heard(), "");
    close(dial("CONNECT 99\n"));
    run();
    ck_assert_str_eq(heard(), "request 99 1073741825 0");
    ck_assert_str_eq(heard(), "reset 99 1073741825 0");
    ck_assert_uint_eq(stats().nr_open, 0);
    guest_says(VIRTIO_VSOCK_OP_RESPONSE, 99, (1u << 30) + 1); /* crossed with it */
    ck_assert_str_eq(heard(), "reset 99 1073741825 0");
}
END_TEST

START_TEST(test_vsock_full_table_refuses_the_guest_and_keeps_the_host_waiting)
{
    int fds[VSOCK_MAX_CONNECTIONS + 1];

    start(0, 128);
    for (unsigned i = 0; i <= VSOCK_MAX_CONNECTIONS; i++)
        fds[i] = dial("CONNECT 99\n");
    ck_assert_uint_eq(stats().nr_open, VSOCK_MAX_CONNECTIONS);
    int listener = unix_listen(path_1234, 4, why, sizeof(why));
    ck_assert_int_ge(listener, 0);
    for (unsigned i = 0; i < VSOCK_MAX_CONNECTIONS; i++)
        ck_assert_int_eq(strncmp(heard(), "request", 7), 0);
    guest_says(VIRTIO_VSOCK_OP_REQUEST, 77, 1234);
    ck_assert_str_eq(heard(), "reset 77 1234 0");
    unix_unlisten(listener, path_1234);
    guest_says(VIRTIO_VSOCK_OP_RST, 99, (1u << 30) + 5); /* one goes, the last one comes */
    ck_assert_str_eq(heard(), "request 99 1073741888 0");
    ck_assert_uint_eq(stats().nr_open, VSOCK_MAX_CONNECTIONS);
    for (unsigned i = 0; i <= VSOCK_MAX_CONNECTIONS; i++)
        close(fds[i]);
    run();
    while (*heard()) /* a reset each: more than there were buffers for */
        give_buffers(1, RX_BYTES);
    ck_assert_uint_eq(stats().nr_open, 0);
}
END_TEST

/* --- credit ---------------------------------------------------------------------------------------- */

/* Returns the last header; *nr: bytes of data that were heard. */
static struct virtio_vsock_hdr hear_all(uint64_t *nr)
{
    struct virtio_vsock_hdr header = {0};
    static char data[RX_BYTES + 1];

    while (guest_hears(&header, data)) {
        *nr += header.len;
        give_buffers(1, RX_BYTES);
    }
    return header;
}

START_TEST(test_vsock_guest_gets_no_more_than_it_has_room_for)
{
    static char big[20000];
    struct virtio_vsock_hdr header;
    uint64_t nr = 0;

    start(_i ? ALL_RINGS : 0, 32);
    int fd = open_from_guest();
    ck_assert_str_eq(heard(), "response 77 1234 0");
    header = header_of(VIRTIO_VSOCK_OP_CREDIT_UPDATE, 77, 1234);
    header.buf_alloc = 10000;
    guest_sends(header, NULL, 0);
    ck_assert_int_eq(unix_send(fd, big, sizeof(big)), sizeof(big));
    run();
    hear_all(&nr);
    ck_assert_uint_eq(nr, 10000);
    header.fwd_cnt = 1;
    guest_sends(header, NULL, 0);
    hear_all(&nr);
    ck_assert_uint_eq(nr, 10001);
    header.fwd_cnt = 10001;
    header.buf_alloc = 0; /* less room than before */
    guest_sends(header, NULL, 0);
    hear_all(&nr);
    ck_assert_uint_eq(nr, 10001);
    header.buf_alloc = UINT32_MAX;
    guest_sends(header, NULL, 0);
    hear_all(&nr);
    ck_assert_uint_eq(nr, 20000);
    header.fwd_cnt = 30000; /* more than it got: no credit out of that */
    header.buf_alloc = 100;
    guest_sends(header, NULL, 0);
    ck_assert_int_eq(unix_send(fd, big, 50), 50);
    run();
    hear_all(&nr);
    ck_assert_uint_eq(nr, 20000);
    close(fd);
}
END_TEST

START_TEST(test_vsock_guest_hears_of_room_in_time)
{
    static char big[VSOCK_BUFFER_BYTES], sink[VSOCK_BUFFER_BYTES];
    struct virtio_vsock_hdr header;
    static char data[RX_BYTES + 1];
    uint32_t sent = 0, passed = 0;

    start(_i ? ALL_RINGS : 0, 64);
    int fd = open_from_guest();
    ck_assert_str_eq(heard(), "response 77 1234 0");
    /* A guest that uses all its credit, 30 times over: it never stands still. */
    for (unsigned round = 0; sent < 30 * VSOCK_BUFFER_BYTES; round++) {
        uint32_t room = VSOCK_BUFFER_BYTES - (sent - passed);

        ck_assert_uint_gt(room, 0);
        uint32_t nr = MIN_OF(room, 20000u + round);
        guest_writes(77, 1234, big, nr);
        sent += nr;
        while (unix_recv(fd, sink, sizeof(sink)) > 0)
            run();
        while (guest_hears(&header, data)) {
            ck_assert_uint_eq(header.op, VIRTIO_VSOCK_OP_CREDIT_UPDATE);
            ck_assert_uint_eq(header.buf_alloc, VSOCK_BUFFER_BYTES);
            passed = header.fwd_cnt;
            give_buffers(1, RX_BYTES);
        }
    }
    ck_assert_uint_eq(stats().out_bytes, sent);
    guest_says(VIRTIO_VSOCK_OP_CREDIT_REQUEST, 77, 1234);
    ck_assert(guest_hears(&header, data));
    ck_assert_uint_eq(header.op, VIRTIO_VSOCK_OP_CREDIT_UPDATE);
    ck_assert_uint_eq(header.fwd_cnt, sent);
    close(fd);
}
END_TEST

/* Fills the program's socket and then the buffer, to the last byte of credit: how many bytes that were. */
static uint64_t fill(void)
{
    static char big[4096];
    struct vsock_conn *conn = vsock_find(vsock, 77, 1234);
    uint64_t sent = 0;

    memset(big, 'x', sizeof(big));
    for (uint32_t nr; (nr = MIN_OF(vsock_granted(conn), (uint32_t)sizeof(big))) > 0; sent += nr) {
        guest_writes(77, 1234, big, nr);
        ck_assert_uint_lt(sent, 64 << 20);
    }
    return sent;
}

static uint64_t drain(int fd)
{
    static char sink[1 << 16];
    uint64_t nr = 0;
    ptrdiff_t got;

    while ((got = unix_recv(fd, sink, sizeof(sink))) > 0) {
        nr += (uint64_t)got;
        run();
    }
    return nr;
}

START_TEST(test_vsock_slow_program_fills_its_buffer_alone)
{
    uint32_t port;

    start(_i ? ALL_RINGS : 0, 64);
    int other = open_from_host(&port);
    int fd = open_from_guest();
    uint64_t sent = fill();
    guest_writes(99, port, "quick", 5); /* the other one is not held up */
    ck_assert_str_eq(host_reads(other), "quick");
    ck_assert_uint_eq(drain(fd), sent);
    ck_assert_uint_eq(stats().out_bytes, sent + 5);
    ck_assert_uint_eq(stats().nr_credit_breaches, 0);
    close(other);
    close(fd);
}
END_TEST

START_TEST(test_vsock_guest_beyond_its_credit_is_reset)
{
    char byte = 'y';

    start(0, 64);
    int fd = open_from_guest();
    ck_assert_str_eq(heard(), "response 77 1234 0");
    fill();
    ck_assert_uint_eq(stats().nr_open, 1);
    while (*heard())
        ;
    guest_writes(77, 1234, &byte, 1);
    ck_assert_str_eq(heard(), "reset 77 1234 0");
    ck_assert_uint_eq(stats().nr_credit_breaches, 1);
    ck_assert_uint_eq(stats().nr_open, 0);
    drain(fd);
    ck_assert_str_eq(host_reads(fd), "end");
    close(fd);
}
END_TEST

/* Room that the guest was not told of is not credit: it has no buffer to hear of it. */
START_TEST(test_vsock_guest_beyond_what_it_was_told_is_reset)
{
    static char big[VSOCK_BUFFER_BYTES], sink[VSOCK_BUFFER_BYTES];

    start(0, 1);
    int fd = open_from_guest();
    ck_assert_str_eq(heard(), "response 77 1234 0");
    guest_writes(77, 1234, big, sizeof(big));
    while (unix_recv(fd, sink, sizeof(sink)) > 0) /* all of it */
        run();
    ck_assert_uint_eq(stats().nr_open, 1);
    guest_writes(77, 1234, big, 1);
    ck_assert_uint_eq(stats().nr_credit_breaches, 1);
    give_buffers(1, RX_BYTES);
    ck_assert_str_eq(heard(), "reset 77 1234 0");
    close(fd);
}
END_TEST

START_TEST(test_vsock_guest_without_buffers_leaves_data_with_the_program)
{
    static char big[4096];
    uint64_t sent = 0, nr = 0;
    ptrdiff_t part;

    start(_i ? ALL_RINGS : 0, 1);
    int fd = open_from_guest();
    ck_assert_str_eq(heard(), "response 77 1234 0");
    while ((part = unix_send(fd, big, sizeof(big))) > 0) {
        sent += (uint64_t)part;
        run(); /* ends */
    }
    ck_assert_uint_eq(stats().in_bytes, 0);
    give_buffers(1, RX_BYTES);
    struct virtio_vsock_hdr header = header_of(VIRTIO_VSOCK_OP_CREDIT_UPDATE, 77, 1234);
    for (unsigned i = 0; i < 1000 && nr < sent; i++) {
        hear_all(&nr);
        header.fwd_cnt = (uint32_t)nr;
        guest_sends(header, NULL, 0);
    }
    ck_assert_uint_eq(nr, sent);
    close(fd);
}
END_TEST

/* --- the end --------------------------------------------------------------------------------------- */

START_TEST(test_vsock_program_closes_and_the_guest_hears_it_after_the_data)
{
    start(0, 1);
    int fd = open_from_guest();
    ck_assert_str_eq(heard(), "response 77 1234 0");
    ck_assert_int_eq(unix_send(fd, "last", 4), 4);
    close(fd);
    run(); /* ends */
    give_buffers(8, RX_BYTES);
    ck_assert_str_eq(heard(), "data 77 1234 0 last");
    ck_assert_str_eq(heard(), "shutdown 77 1234 3");
    guest_says(VIRTIO_VSOCK_OP_RST, 77, 1234);
    ck_assert_str_eq(heard(), "");
    ck_assert_uint_eq(stats().nr_open, 0);
}
END_TEST

/* Programs that ask a service of the guest's which hangs, and give up: nobody else could connect after 64 of them. */
START_TEST(test_vsock_guest_that_never_answers_a_shutdown_keeps_its_place)
{
    uint32_t port;
    char text[100];

    start(_i ? ALL_RINGS : 0, 32);
    vsock->linger_ms = 1;
    int fd = open_from_host(&port);
    ck_assert_int_eq(unix_send(fd, "ping", 4), 4);
    close(fd);
    run();
    snprintf(text, sizeof(text), "data 99 %u 0 ping", port);
    ck_assert_str_eq(heard(), text);
    snprintf(text, sizeof(text), "shutdown 99 %u 3", port);
    ck_assert_str_eq(heard(), text);
    for (unsigned i = 0; i < 1000 && stats().nr_open > 0; i++)
        (void)loop_turn(loop, 10);
    ck_assert_uint_eq(stats().nr_open, 0);
    snprintf(text, sizeof(text), "reset 99 %u 0", port);
    ck_assert_str_eq(heard(), text);
    ck_assert_str_eq(heard(), "");
}
END_TEST

/* The guest has room for 4 bytes on its port 99, and has read @nr_read. */
static void guest_has_room_for_4(uint32_t host_port, uint32_t nr_read)
{
    struct virtio_vsock_hdr header = header_of(VIRTIO_VSOCK_OP_CREDIT_UPDATE, 99, host_port);

    header.buf_alloc = 4;
    header.fwd_cnt = nr_read;
    guest_sends(header, NULL, 0);
}

/* The same with more left than the guest has room for: the end of it never came, and so no shutdown. */
START_TEST(test_vsock_guest_that_leaves_more_than_its_credit_unread_keeps_its_place)
{
    uint32_t port;
    char text[100];

    start(_i ? ALL_RINGS : 0, 32);
    vsock->linger_ms = 1;
    int fd = open_from_host(&port);
    guest_has_room_for_4(port, 0);
    ck_assert_int_eq(unix_send(fd, "12345678", 8), 8);
    close(fd);
    for (unsigned i = 0; i < 1000 && stats().nr_open > 0; i++)
        (void)loop_turn(loop, 10);
    ck_assert_uint_eq(stats().nr_open, 0);
    snprintf(text, sizeof(text), "data 99 %u 0 1234", port);
    ck_assert_str_eq(heard(), text);
    snprintf(text, sizeof(text), "ask 99 %u 0", port);
    ck_assert_str_eq(heard(), text);
    snprintf(text, sizeof(text), "reset 99 %u 0", port);
    ck_assert_str_eq(heard(), text);
    ck_assert_str_eq(heard(), "");
}
END_TEST

START_TEST(test_vsock_guest_without_buffers_keeps_the_place_of_a_closed_connection)
{
    uint32_t port;
    char text[100];

    start(_i ? ALL_RINGS : 0, 1);
    vsock->linger_ms = 1;
    int fd = open_from_host(&port);
    ck_assert_int_eq(unix_send(fd, "ping", 4), 4);
    close(fd);
    for (unsigned i = 0; i < 1000 && vsock->conn[0].state == CONN_OPEN; i++)
        (void)loop_turn(loop, 10);
    give_buffers(8, RX_BYTES);
    snprintf(text, sizeof(text), "reset 99 %u 0", port);
    ck_assert_str_eq(heard(), text);
    ck_assert_str_eq(heard(), "");
    ck_assert_uint_eq(stats().nr_open, 0);
}
END_TEST

/* As if nothing had happened for VSOCK_LINGER_MS. */
static void time_passes(void)
{
    pthread_mutex_lock(&vsock->device.lock);
    ck_assert_uint_ne(vsock->conn[0].moved_ns, 0);
    vsock->conn[0].moved_ns -= VSOCK_LINGER_MS * UINT64_C(1000000);
    vsock_end_late(vsock);
    pthread_mutex_unlock(&vsock->device.lock);
    wake_up(&vsock->wake);
    run();
}

/* Linux says what its program has read when that is much, or when it is asked. */
START_TEST(test_vsock_guest_that_reads_slowly_gets_all_that_a_closed_program_left)
{
    static const char left[] = "123456789";
    uint32_t port;
    char text[100];

    start(_i ? ALL_RINGS : 0, 32);
    int fd = open_from_host(&port);
    guest_has_room_for_4(port, 0);
    ck_assert_int_eq(unix_send(fd, left, 9), 9);
    close(fd);
    run();
    snprintf(text, sizeof(text), "data 99 %u 0 1234", port);
    ck_assert_str_eq(heard(), text);
    for (uint32_t nr_read = 1; nr_read <= 5; nr_read++) { /* a byte at a time */
        time_passes();
        snprintf(text, sizeof(text), "ask 99 %u 0", port);
        ck_assert_str_eq(heard(), text);
        guest_has_room_for_4(port, nr_read);
        snprintf(text, sizeof(text), "data 99 %u 0 %c", port, left[nr_read + 3]);
        ck_assert_str_eq(heard(), text);
    }
    ck_assert_str_eq(heard(), ""); /* no room to look whether there is more */
    guest_has_room_for_4(port, 6);
    snprintf(text, sizeof(text), "shutdown 99 %u 3", port);
    ck_assert_str_eq(heard(), text);
    vsock->conn[0].moved_ns = 1;
    guest_has_room_for_4(port, 7); /* nothing more to send, and yet it goes on */
    ck_assert_uint_gt(vsock->conn[0].moved_ns, 1);
    guest_says(VIRTIO_VSOCK_OP_RST, 99, port);
    ck_assert_str_eq(heard(), "");
    ck_assert_uint_eq(stats().nr_open, 0);
}
END_TEST

START_TEST(test_vsock_guest_that_gives_buffers_late_has_all_its_time_to_answer)
{
    uint32_t port;
    char text[100];

    start(_i ? ALL_RINGS : 0, 1);
    int fd = open_from_host(&port);
    ck_assert_int_eq(unix_send(fd, "ping", 4), 4);
    close(fd);
    run();
    for (unsigned i = 0; i < 2; i++) {
        ck_assert_str_eq(heard(), "");
        vsock->conn[0].moved_ns = 1;
        give_buffers(1, RX_BYTES);
        ck_assert_uint_gt(vsock->conn[0].moved_ns, 1);
        snprintf(text, sizeof(text), i == 0 ? "data 99 %u 0 ping" : "shutdown 99 %u 3", port);
        ck_assert_str_eq(heard(), text);
    }
}
END_TEST

START_TEST(test_vsock_guest_that_writes_and_does_not_read_keeps_its_place)
{
    uint32_t port;

    start(_i ? ALL_RINGS : 0, 32);
    int fd = open_from_host(&port);
    guest_has_room_for_4(port, 0);
    ck_assert_int_eq(unix_send(fd, "12345678", 8), 8);
    close(fd);
    run();
    for (unsigned i = 0; i < 2; i++) {
        struct virtio_vsock_hdr header = header_of(VIRTIO_VSOCK_OP_RW, 99, port);

        header.buf_alloc = 4;
        header.len = 5;
        guest_sends(header, "hello", 5);
        ck_assert_uint_eq(stats().nr_open, 1);
        time_passes(); /* it is asked, then it ends */
        guest_has_room_for_4(port, 0);
    }
    ck_assert_uint_eq(stats().nr_open, 0);
}
END_TEST

START_TEST(test_vsock_program_ends_its_half_first)
{
    start(0, 32);
    int fd = open_from_guest();
    ck_assert_str_eq(heard(), "response 77 1234 0");
    ck_assert_int_eq(shutdown(fd, SHUT_WR), 0);
    run(); /* ends */
    ck_assert_str_eq(heard(), "shutdown 77 1234 2");
    guest_writes(77, 1234, "answer", 6);
    ck_assert_str_eq(host_reads(fd), "answer");
    close(fd);
    run();
    ck_assert_str_eq(heard(), "shutdown 77 1234 3");
    guest_writes(77, 1234, "too late", 8); /* goes nowhere, and says so once only */
    ck_assert_str_eq(heard(), "");
    guest_shuts(77, 1234, 3);
    ck_assert_str_eq(heard(), "reset 77 1234 0");
    ck_assert_uint_eq(stats().nr_open, 0);
}
END_TEST

START_TEST(test_vsock_guest_closes_and_the_program_gets_all)
{
    start(0, 64);
    int fd = open_from_guest();
    ck_assert_str_eq(heard(), "response 77 1234 0");
    uint64_t sent = fill();
    while (*heard())
        ;
    guest_shuts(77, 1234, 3);
    ck_assert_str_eq(heard(), ""); /* the reset waits for the program */
    ck_assert_uint_eq(drain(fd), sent);
    ck_assert_str_eq(host_reads(fd), "end");
    const char *last = heard();
    if (strncmp(last, "credit", 6) == 0)
        last = heard();
    ck_assert_str_eq(last, "reset 77 1234 0");
    ck_assert_uint_eq(stats().nr_open, 0);
    close(fd);
}
END_TEST

/* Linux waits for the reset for some seconds and then sends one. */
START_TEST(test_vsock_guest_that_does_not_wait_loses_nothing)
{
    start(0, 64);
    int fd = open_from_guest();
    uint64_t sent = fill();
    guest_shuts(77, 1234, 3);
    guest_says(VIRTIO_VSOCK_OP_RST, 77, 1234);
    while (*heard())
        ;
    ck_assert_uint_eq(stats().nr_open, 1);
    int again = open_from_guest(); /* the guest may use the port again */
    ck_assert_str_eq(heard(), "response 77 1234 0");
    ck_assert_uint_eq(drain(fd), sent);
    ck_assert_str_eq(host_reads(fd), "end");
    ck_assert_uint_eq(stats().nr_open, 1);
    guest_writes(77, 1234, "new", 3);
    ck_assert_str_eq(host_reads(again), "new");
    close(fd);
    close(again);
}
END_TEST

START_TEST(test_vsock_guest_ends_its_half_first)
{
    start(0, 32);
    int fd = open_from_guest();
    ck_assert_str_eq(heard(), "response 77 1234 0");
    guest_writes(77, 1234, "ask", 3);
    guest_shuts(77, 1234, VIRTIO_VSOCK_SHUTDOWN_SEND);
    ck_assert_str_eq(host_reads(fd), "ask");
    ck_assert_str_eq(host_reads(fd), "end");
    ck_assert_int_eq(unix_send(fd, "answer", 6), 6);
    run();
    ck_assert_str_eq(heard(), "data 77 1234 0 answer");
    guest_writes(77, 1234, "more", 4); /* it said that there is none */
    ck_assert_str_eq(heard(), "reset 77 1234 0");
    ck_assert_uint_eq(stats().nr_malformed, 1);
    close(fd);
}
END_TEST

START_TEST(test_vsock_guest_that_receives_no_more_stops_the_program)
{
    start(0, 32);
    int fd = open_from_guest();
    ck_assert_str_eq(heard(), "response 77 1234 0");
    guest_shuts(77, 1234, VIRTIO_VSOCK_SHUTDOWN_RCV);
    ck_assert_int_eq(unix_send(fd, "x", 1), -EPIPE);
    guest_writes(77, 1234, "still", 5);
    ck_assert_str_eq(host_reads(fd), "still");
    close(fd);
    run(); /* ends */
    ck_assert_str_eq(heard(), "shutdown 77 1234 3");
    guest_says(VIRTIO_VSOCK_OP_RST, 77, 1234);
    ck_assert_uint_eq(stats().nr_open, 0);
}
END_TEST

START_TEST(test_vsock_program_that_leaves_unread_data_does_not_hold_the_guest)
{
    start(0, 64);
    int fd = open_from_guest();
    fill();
    close(fd);
    run(); /* ends */
    const char *last = "", *text;
    char kept[64] = "";
    while (*(text = heard())) {
        snprintf(kept, sizeof(kept), "%.60s", text);
        last = kept;
    }
    /* A Unix socket closed over unread data is a reset for us; otherwise an orderly end. */
    ck_assert_msg(strcmp(last, "shutdown 77 1234 3") == 0 || strcmp(last, "reset 77 1234 0") == 0, "%s", last);
    guest_says(VIRTIO_VSOCK_OP_RST, 77, 1234);
    ck_assert_uint_eq(stats().nr_open, 0);
}
END_TEST

START_TEST(test_vsock_reset_of_the_device_ends_every_connection)
{
    uint32_t port;

    start(0, 64);
    int one = open_from_host(&port), two = open_from_guest(), three = dial("CONNECT 5");
    fake_driver_reset(&driver);
    run();
    ck_assert_uint_eq(stats().nr_open, 0);
    ck_assert_str_eq(host_reads(one), "end");
    ck_assert_str_eq(host_reads(two), "end");
    ck_assert_str_eq(host_reads(three), "end");
    start(0, 64);
    ck_assert_str_eq(heard(), "");
    guest_writes(77, 1234, "old", 3);
    ck_assert_str_eq(heard(), "reset 77 1234 0");
    close(one);
    close(two);
    close(three);
}
END_TEST

START_TEST(test_vsock_reset_and_start_before_the_loop_turns)
{
    start(0, 16);
    int fd = open_from_guest();
    int listener = unix_listen(path_1234, 4, why, sizeof(why));
    ck_assert_int_ge(listener, 0);
    ck_assert_int_eq(fake_driver_start(&driver, 0, 0), 0);
    guest_says(VIRTIO_VSOCK_OP_REQUEST, 77, 1234); /* same ports: a new connection */
    give_buffers(4, RX_BYTES);
    ck_assert_str_eq(heard(), "response 77 1234 0");
    ck_assert_str_eq(host_reads(fd), "end");
    ck_assert_uint_eq(stats().nr_open, 1);
    close(fd);
    unix_unlisten(listener, path_1234);
}
END_TEST

/* --- a hostile driver ------------------------------------------------------------------------------ */

START_TEST(test_vsock_packets_of_no_connection_are_reset)
{
    static const uint16_t ops[] = {VIRTIO_VSOCK_OP_INVALID,
                                   VIRTIO_VSOCK_OP_RESPONSE,
                                   VIRTIO_VSOCK_OP_SHUTDOWN,
                                   VIRTIO_VSOCK_OP_RW,
                                   VIRTIO_VSOCK_OP_CREDIT_UPDATE,
                                   VIRTIO_VSOCK_OP_CREDIT_REQUEST,
                                   8,
                                   0xffff};

    start(0, 32);
    for (unsigned i = 0; i < ARRAY_LEN(ops); i++) {
        guest_says(ops[i], 1, 2);
        ck_assert_str_eq(heard(), "reset 1 2 0");
    }
    guest_says(VIRTIO_VSOCK_OP_RST, 1, 2); /* no reset for a reset */
    ck_assert_str_eq(heard(), "");
    ck_assert_uint_eq(stats().nr_resets, ARRAY_LEN(ops));
}
END_TEST

START_TEST(test_vsock_wrong_type_or_address_is_reset)
{
    struct virtio_vsock_hdr header = header_of(VIRTIO_VSOCK_OP_REQUEST, 7, 8), got;
    char data[RX_BYTES + 1];

    start(0, 32);
    header.type = VIRTIO_VSOCK_TYPE_SEQPACKET;
    guest_sends(header, NULL, 0);
    ck_assert(guest_hears(&got, data));
    ck_assert_uint_eq(got.op, VIRTIO_VSOCK_OP_RST);
    ck_assert_uint_eq(got.type, VIRTIO_VSOCK_TYPE_SEQPACKET);
    header = header_of(VIRTIO_VSOCK_OP_REQUEST, 7, 8);
    header.dst_cid = 43; /* another guest */
    guest_sends(header, NULL, 0);
    ck_assert(guest_hears(&got, data));
    ck_assert_uint_eq(got.op, VIRTIO_VSOCK_OP_RST);
    ck_assert_uint_eq(got.src_cid, 43);
    header = header_of(VIRTIO_VSOCK_OP_REQUEST, 7, 8);
    header.src_cid = 43; /* it is not who it says */
    guest_sends(header, NULL, 0);
    ck_assert(!guest_hears(&got, data));
    ck_assert_uint_eq(stats().nr_malformed, 1);
}
END_TEST

START_TEST(test_vsock_wrong_packets_of_a_connection_reset_it)
{
    static const uint16_t ops[] = {VIRTIO_VSOCK_OP_INVALID, VIRTIO_VSOCK_OP_REQUEST, VIRTIO_VSOCK_OP_RESPONSE, 99};

    start(0, 32);
    for (unsigned i = 0; i < ARRAY_LEN(ops); i++) {
        int fd = open_from_guest();

        ck_assert_str_eq(heard(), "response 77 1234 0");
        guest_says(ops[i], 77, 1234);
        ck_assert_str_eq(heard(), "reset 77 1234 0");
        ck_assert_str_eq(host_reads(fd), "end");
        close(fd);
    }
    ck_assert_uint_eq(stats().nr_malformed, ARRAY_LEN(ops));
    ck_assert_uint_eq(stats().nr_open, 0);
}
END_TEST

START_TEST(test_vsock_answer_to_a_question_not_asked_yet_is_refused)
{
    start(0, 0);
    int fd = dial("CONNECT 99\n"); /* no buffer to ask in */
    guest_says(VIRTIO_VSOCK_OP_RESPONSE, 99, 1u << 30);
    ck_assert_str_eq(host_reads(fd), "end");
    ck_assert_uint_eq(stats().nr_malformed, 1);
    ck_assert_uint_eq(stats().nr_open, 0);
    close(fd);
}
END_TEST

START_TEST(test_vsock_lengths_are_not_believed)
{
    struct virtio_vsock_hdr header = header_of(VIRTIO_VSOCK_OP_RW, 77, 1234);
    static const uint32_t lengths[] = {6, 1000, 1u << 31, UINT32_MAX, UINT32_MAX - 43};

    start(0, 64);
    for (unsigned i = 0; i < ARRAY_LEN(lengths); i++) {
        int fd = open_from_guest();

        ck_assert_str_eq(heard(), "response 77 1234 0");
        header.len = lengths[i]; /* of 5 */
        guest_sends(header, "12345", 5);
        ck_assert_str_eq(heard(), "reset 77 1234 0");
        ck_assert_str_eq(host_reads(fd), "end");
        close(fd);
    }
    int fd = open_from_guest();
    header.len = 3; /* fewer than there are: fine */
    guest_sends(header, "12345", 5);
    ck_assert_str_eq(host_reads(fd), "123");
    header.len = 0;
    guest_sends(header, NULL, 0);
    ck_assert_str_eq(host_reads(fd), "");
    close(fd);
}
END_TEST

START_TEST(test_vsock_short_headers_are_counted)
{
    struct fake_buffer buffer = {tx_page, VSOCK_HEADER_BYTES - 1};
    struct fake_used used;

    start(0, 4);
    ck_assert_int_eq(fake_driver_add(&driver, VSOCK_TX, &buffer, 1, 0, false, NULL), 0);
    ck_assert_int_eq(fake_driver_add(&driver, VSOCK_TX, &buffer, 0, 1, false, NULL), 0);
    fake_driver_kick(&driver, VSOCK_TX);
    run();
    ck_assert_int_eq(fake_driver_collect(&driver, VSOCK_TX, &used), 1);
    ck_assert_int_eq(fake_driver_collect(&driver, VSOCK_TX, &used), 1);
    ck_assert_uint_eq(stats().nr_malformed, 2);
    ck_assert_str_eq(heard(), "");
}
END_TEST

START_TEST(test_vsock_receive_buffers_too_small_come_back_empty)
{
    struct fake_used used;
    unsigned nr = 0;

    start(0, 0);
    guest_says(VIRTIO_VSOCK_OP_REQUEST, 1, 2);
    give_buffers(100, VSOCK_HEADER_BYTES);
    while (fake_driver_collect(&driver, VSOCK_RX, &used) == 1) {
        ck_assert_uint_eq(used.written_bytes, 0);
        nr++;
    }
    ck_assert_uint_eq(nr, 100);
    ck_assert_uint_eq(stats().nr_malformed, 100);
    give_buffers(1, VSOCK_HEADER_BYTES + 1);
    ck_assert_str_eq(heard(), "reset 1 2 0");
}
END_TEST

START_TEST(test_vsock_full_list_of_resets_holds_the_queue)
{
    struct virtio_vsock_hdr header = header_of(VIRTIO_VSOCK_OP_RW, 1, 2);
    struct fake_buffer buffer = {tx_page, sizeof(header)};
    struct fake_used used;
    unsigned nr = 0, nr_resets = 0;

    start(0, 0);
    memcpy(fake_memory_at(&memory, tx_page, sizeof(header)), &header, sizeof(header));
    for (unsigned i = 0; i < 100; i++)
        ck_assert_int_eq(fake_driver_add(&driver, VSOCK_TX, &buffer, 1, 0, false, NULL), 0);
    fake_driver_kick(&driver, VSOCK_TX);
    run();
    while (fake_driver_collect(&driver, VSOCK_TX, &used) == 1)
        nr++;
    ck_assert_uint_eq(nr, VSOCK_MAX_RESETS);
    give_buffers(100, RX_BYTES);
    while (fake_driver_collect(&driver, VSOCK_TX, &used) == 1)
        nr++;
    ck_assert_uint_eq(nr, 100);
    while (strcmp(heard(), "reset 1 2 0") == 0)
        nr_resets++;
    ck_assert_uint_eq(nr_resets, 100);
}
END_TEST

START_TEST(test_vsock_buffers_for_events_are_kept)
{
    struct fake_buffer buffer = {rx_page[0], 8};

    start(0, 0);
    ck_assert_int_eq(fake_driver_add(&driver, VSOCK_EVENT, &buffer, 0, 1, false, NULL), 0);
    fake_driver_kick(&driver, VSOCK_EVENT);
    run();
    ck_assert(!fake_driver_has_used(&driver, VSOCK_EVENT));
}
END_TEST

/* --- making ---------------------------------------------------------------------------------------- */

START_TEST(test_vsock_identity)
{
    uint64_t cid = 0;

    ck_assert_uint_eq(vsock_device(vsock)->id, VIRTIO_ID_VSOCK);
    fake_driver_config_read(&driver, 0, &cid, 8);
    ck_assert_uint_eq(cid, CID);
}
END_TEST

START_TEST(test_vsock_bad_configuration_is_refused)
{
    static const uint64_t cids[] = {0, 1, 2, UINT32_MAX, UINT64_MAX};
    char long_path[120];
    struct vsock_config config = {.path = path_1234};
    struct vsock *other = NULL;

    for (unsigned i = 0; i < ARRAY_LEN(cids); i++) {
        config.guest_cid = cids[i];
        ck_assert_int_eq(vsock_create(&config, &env, &other, why, sizeof(why)), -EINVAL);
    }
    config.guest_cid = 3;
    memset(long_path, 'p', sizeof(long_path));
    long_path[UNIX_PATH_BYTES - 11] = 0;
    config.path = long_path;
    ck_assert_int_eq(vsock_create(&config, &env, &other, why, sizeof(why)), -ENAMETOOLONG);
    config.path = path; /* it is the first one's */
    ck_assert_int_eq(vsock_create(&config, &env, &other, why, sizeof(why)), -EADDRINUSE);
    ck_assert_ptr_nonnull(strstr(why, path));
    ck_assert_ptr_null(other);
}
END_TEST

START_TEST(test_vsock_no_memory_leaves_nothing)
{
    const struct vsock_config config = {.guest_cid = 3, .path = path_1234};
    struct vsock *other = NULL;

    for (long n = 1;; n++) {
        fail_alloc_at(n);
        int err = vsock_create(&config, &env, &other, why, sizeof(why));
        bool failed = fail_alloc_fired();
        fail_alloc_at(-1);
        if (!failed) {
            ck_assert_int_eq(err, 0);
            break;
        }
        ck_assert_int_eq(err, -ENOMEM);
        ck_assert_ptr_null(other);
        ck_assert_int_ne(access(path_1234, F_OK), 0);
    }
    vsock_destroy(other);
}
END_TEST

START_TEST(test_vsock_no_memory_to_wait_ends_the_connection_alone)
{
    uint32_t port;
    int fds[4];
    unsigned nr_ended = 0;

    start(0, 64);
    int other = open_from_host(&port);
    for (unsigned i = 0; i < 4; i++) {
        fds[i] = unix_connect(path);
        ck_assert_int_ge(fds[i], 0);
        fail_alloc_at(1); /* the loop's, for the new descriptor */
        fake_driver_run(&driver);
        fail_alloc_at(-1);
        nr_ended += strcmp(host_reads(fds[i]), "end") == 0;
    }
    ck_assert_uint_eq(nr_ended, 4);
    guest_writes(99, port, "alive", 5);
    ck_assert_str_eq(host_reads(other), "alive");
    for (unsigned i = 0; i < 4; i++)
        close(fds[i]);
    close(other);
}
END_TEST

static TCase *life_cases(void)
{
    TCase *tcase = tcase_create("life");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_loop_test(tcase, test_vsock_host_opens_and_both_talk, 0, 2);
    tcase_add_loop_test(tcase, test_vsock_guest_opens_and_both_talk, 0, 2);
    tcase_add_test(tcase, test_vsock_guest_is_refused_where_nobody_listens);
    tcase_add_test(tcase, test_vsock_host_is_refused_where_nobody_listens);
    tcase_add_test(tcase, test_vsock_line_may_come_in_pieces_and_with_data_behind);
    tcase_add_test(tcase, test_vsock_bad_lines_end_the_connection);
    tcase_add_test(tcase, test_vsock_program_waits_for_the_driver);
    tcase_add_test(tcase, test_vsock_program_that_leaves_before_the_answer_is_forgotten);
    tcase_add_test(tcase, test_vsock_full_table_refuses_the_guest_and_keeps_the_host_waiting);
    tcase_add_test(tcase, test_vsock_program_closes_and_the_guest_hears_it_after_the_data);
    tcase_add_loop_test(tcase, test_vsock_guest_that_never_answers_a_shutdown_keeps_its_place, 0, 2);
    tcase_add_loop_test(tcase, test_vsock_guest_that_leaves_more_than_its_credit_unread_keeps_its_place, 0, 2);
    tcase_add_loop_test(tcase, test_vsock_guest_without_buffers_keeps_the_place_of_a_closed_connection, 0, 2);
    tcase_add_loop_test(tcase, test_vsock_guest_that_reads_slowly_gets_all_that_a_closed_program_left, 0, 2);
    tcase_add_loop_test(tcase, test_vsock_guest_that_gives_buffers_late_has_all_its_time_to_answer, 0, 2);
    tcase_add_loop_test(tcase, test_vsock_guest_that_writes_and_does_not_read_keeps_its_place, 0, 2);
    tcase_add_test(tcase, test_vsock_program_ends_its_half_first);
    tcase_add_test(tcase, test_vsock_guest_closes_and_the_program_gets_all);
    tcase_add_test(tcase, test_vsock_guest_that_does_not_wait_loses_nothing);
    tcase_add_test(tcase, test_vsock_guest_ends_its_half_first);
    tcase_add_test(tcase, test_vsock_guest_that_receives_no_more_stops_the_program);
    tcase_add_test(tcase, test_vsock_program_that_leaves_unread_data_does_not_hold_the_guest);
    tcase_add_test(tcase, test_vsock_reset_of_the_device_ends_every_connection);
    tcase_add_test(tcase, test_vsock_reset_and_start_before_the_loop_turns);
    return tcase;
}

static TCase *hostile_cases(void)
{
    TCase *tcase = tcase_create("hostile");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_loop_test(tcase, test_vsock_guest_gets_no_more_than_it_has_room_for, 0, 2);
    tcase_add_loop_test(tcase, test_vsock_guest_hears_of_room_in_time, 0, 2);
    tcase_add_loop_test(tcase, test_vsock_slow_program_fills_its_buffer_alone, 0, 2);
    tcase_add_test(tcase, test_vsock_guest_beyond_its_credit_is_reset);
    tcase_add_test(tcase, test_vsock_guest_beyond_what_it_was_told_is_reset);
    tcase_add_loop_test(tcase, test_vsock_guest_without_buffers_leaves_data_with_the_program, 0, 2);
    tcase_add_test(tcase, test_vsock_packets_of_no_connection_are_reset);
    tcase_add_test(tcase, test_vsock_wrong_type_or_address_is_reset);
    tcase_add_test(tcase, test_vsock_wrong_packets_of_a_connection_reset_it);
    tcase_add_test(tcase, test_vsock_answer_to_a_question_not_asked_yet_is_refused);
    tcase_add_test(tcase, test_vsock_lengths_are_not_believed);
    tcase_add_test(tcase, test_vsock_short_headers_are_counted);
    tcase_add_test(tcase, test_vsock_receive_buffers_too_small_come_back_empty);
    tcase_add_test(tcase, test_vsock_full_list_of_resets_holds_the_queue);
    tcase_add_test(tcase, test_vsock_buffers_for_events_are_kept);
    return tcase;
}

static TCase *making_cases(void)
{
    TCase *tcase = tcase_create("making");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_vsock_identity);
    tcase_add_test(tcase, test_vsock_bad_configuration_is_refused);
    tcase_add_test(tcase, test_vsock_no_memory_leaves_nothing);
    tcase_add_test(tcase, test_vsock_no_memory_to_wait_ends_the_connection_alone);
    return tcase;
}

int main(void)
{
    Suite *suite = suite_create("vsock");

    suite_add_tcase(suite, life_cases());
    suite_add_tcase(suite, hostile_cases());
    suite_add_tcase(suite, making_cases());
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
