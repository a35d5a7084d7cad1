/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Console, net and vsock with their loop in a thread of its own, programs of the host in another, the driver here: data
 * is whole, and a reset may come at any moment.
 */
#include <check.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "devices/console/console.h"
#include "devices/net/state.h"
#include "devices/vsock/state.h"
#include "tests/fake/fake_driver.h"

#define ALL_RINGS (UINT64_C(1) << VIRTIO_F_RING_PACKED | UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX)
#define MRG_RXBUF (UINT64_C(1) << VIRTIO_NET_F_MRG_RXBUF)
#define CID 3
#define TOTAL_BYTES (256u << 10)
#define NR_RESETS 50
#define BUFFER_BYTES 4096
#define FRAME_BYTES 9000 /* three buffers */
#define WAIT_MS 20000

static struct fake_memory memory;
static struct loop *loop;
static struct device_env env;
static struct virtio_mmio mmio;
static struct fake_driver driver;
static pthread_t device_thread, host_thread;
static char folder[32], path[64], path_7[64], why[200];
static atomic_bool stop;
static gpa_t buffers[16];

static void *run_loop(void *ctx)
{
    loop_run(ctx);
    return NULL;
}

static void setup(void)
{
    strcpy(folder, "/tmp/ebb-threads-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/v", folder);
    snprintf(path_7, sizeof(path_7), "%s/v_7", folder);
    fake_memory_init(&memory, 0x100000, 32 << 20);
    for (unsigned i = 0; i < ARRAY_LEN(buffers); i++)
        buffers[i] = fake_memory_alloc(&memory, BUFFER_BYTES, 4096);
    ck_assert_int_eq(loop_create(&loop), 0);
    env = (struct device_env){.mem = &memory.mem, .loop = loop};
    atomic_store(&stop, false);
}

static void attach(struct virtio_device *device)
{
    ck_assert_int_eq(virtio_mmio_init(&mmio, device), 0);
    fake_driver_init(&driver, &mmio, &memory);
    ck_assert_int_eq(pthread_create(&device_thread, NULL, run_loop, loop), 0);
}

/* Loop and host's thread have ended; the device can be destroyed. */
static void detach(void)
{
    atomic_store(&stop, true);
    pthread_join(host_thread, NULL);
    loop_stop(loop);
    pthread_join(device_thread, NULL);
    virtio_mmio_fini(&mmio);
}

static void teardown(void)
{
    loop_destroy(loop);
    fake_memory_fini(&memory);
    ck_assert_int_eq(rmdir(folder), 0);
}

static void add_in(unsigned queue, gpa_t gpa)
{
    struct fake_buffer buffer = {gpa, BUFFER_BYTES};
    void *at = fake_memory_at(&memory, gpa, BUFFER_BYTES);

    ck_assert_int_eq(fake_driver_add(&driver, queue, &buffer, 0, 1, false, at), 0);
}

static void wait_interrupt(void)
{
    struct pollfd wait = {.fd = mmio.irq_fd, .events = POLLIN};

    ck_assert_msg(poll(&wait, 1, WAIT_MS) == 1, "no interrupt came");
    (void)fake_driver_interrupts(&driver);
}

static void wait_fd(int fd, short events)
{
    struct pollfd wait = {.fd = fd, .events = events};

    (void)poll(&wait, 1, 100);
}

/* --- vsock ----------------------------------------------------------------------------------------- */

/* Sends back what it reads, until the end. */
static void *echo_program(void *ctx)
{
    static char bytes[10000];
    int listener = *(const int *)ctx, fd;

    while ((fd = unix_accept(listener)) < 0)
        wait_fd(listener, POLLIN);
    for (;;) {
        ptrdiff_t got = unix_recv(fd, bytes, sizeof(bytes));

        if (got == -EAGAIN) {
            wait_fd(fd, POLLIN);
            continue;
        }
        if (got <= 0)
            break;
        for (ptrdiff_t done = 0; done < got;) {
            ptrdiff_t sent = unix_send(fd, bytes + done, (size_t)(got - done));

            if (sent == -EAGAIN)
                wait_fd(fd, POLLOUT);
            else if (sent < 0)
                break;
            else
                done += sent;
        }
    }
    close(fd);
    return NULL;
}

/* The guest's end of a connection from port 5 to port 7, which obeys credit. */
struct guest {
    uint32_t sent, passed, room; /* to the host */
    uint32_t got;
    bool open, shut;
    bool tx_busy;
    gpa_t tx;
};

static void guest_send(struct guest *guest, uint16_t op, uint32_t flags, uint32_t nr)
{
    struct virtio_vsock_hdr header = {.src_cid = CID,
                                      .dst_cid = VSOCK_HOST_CID,
                                      .src_port = 5,
                                      .dst_port = 7,
                                      .len = nr,
                                      .type = VIRTIO_VSOCK_TYPE_STREAM,
                                      .op = op,
                                      .flags = flags,
                                      .buf_alloc = 16384,
                                      .fwd_cnt = guest->got};
    struct fake_buffer buffer = {guest->tx, (uint32_t)sizeof(header) + nr};
    uint8_t *at = fake_memory_at(&memory, guest->tx, BUFFER_BYTES);

    memcpy(at, &header, sizeof(header));
    for (uint32_t i = 0; i < nr; i++)
        at[sizeof(header) + i] = (uint8_t)((guest->sent + i) * 31 >> 3);
    guest->sent += nr;
    ck_assert_int_eq(fake_driver_add(&driver, VSOCK_TX, &buffer, 1, 0, false, NULL), 0);
    fake_driver_kick(&driver, VSOCK_TX);
    guest->tx_busy = true;
}

static void guest_hear(struct guest *guest)
{
    struct virtio_vsock_hdr header;
    struct fake_used used;

    while (fake_driver_collect(&driver, VSOCK_RX, &used) == 1) {
        const uint8_t *data = (const uint8_t *)used.token + sizeof(header);

        memcpy(&header, used.token, sizeof(header));
        guest->open |= header.op == VIRTIO_VSOCK_OP_RESPONSE;
        guest->shut |= header.op == VIRTIO_VSOCK_OP_SHUTDOWN;
        ck_assert_uint_ne(header.op, VIRTIO_VSOCK_OP_RST);
        for (uint32_t i = 0; i < header.len; i++)
            ck_assert_uint_eq(data[i], (uint8_t)((guest->got + i) * 31 >> 3));
        guest->got += header.len;
        guest->room = header.buf_alloc;
        guest->passed = header.fwd_cnt;
        for (unsigned i = 0; i < ARRAY_LEN(buffers); i++)
            if (fake_memory_at(&memory, buffers[i], 1) == used.token)
                add_in(VSOCK_RX, buffers[i]);
    }
    if (fake_driver_collect(&driver, VSOCK_TX, &used) == 1)
        guest->tx_busy = false;
    fake_driver_kick(&driver, VSOCK_RX);
}

START_TEST(test_devices_threads_vsock_stream_is_whole)
{
    const struct vsock_config config = {.guest_cid = CID, .path = path};
    struct guest guest = {.tx = fake_memory_alloc(&memory, BUFFER_BYTES, 4096)};
    uint32_t told = 0;
    struct vsock *vsock;
    const char *breach = "";

    ck_assert_int_eq(vsock_create(&config, &env, &vsock, why, sizeof(why)), 0);
    attach(vsock_device(vsock));
    int listener = unix_listen(path_7, 4, why, sizeof(why));
    ck_assert_int_ge(listener, 0);
    ck_assert_int_eq(pthread_create(&host_thread, NULL, echo_program, &listener), 0);
    ck_assert_int_eq(fake_driver_start(&driver, _i ? ALL_RINGS : 0, 0), 0);
    for (unsigned i = 0; i < ARRAY_LEN(buffers); i++)
        add_in(VSOCK_RX, buffers[i]);
    fake_driver_kick(&driver, VSOCK_RX);
    guest_send(&guest, VIRTIO_VSOCK_OP_REQUEST, 0, 0);
    while (guest.got < TOTAL_BYTES) {
        uint32_t nr = MIN_OF(guest.room - (guest.sent - guest.passed), TOTAL_BYTES - guest.sent);

        if (!guest.tx_busy && guest.open && nr > 0)
            guest_send(&guest, VIRTIO_VSOCK_OP_RW, 0, MIN_OF(nr, 3000u));
        else if (!guest.tx_busy && guest.got - told >= 8192)
            guest_send(&guest, VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0, 0), told = guest.got;
        else if (!fake_driver_has_used(&driver, VSOCK_RX) && !fake_driver_has_used(&driver, VSOCK_TX))
            wait_interrupt();
        guest_hear(&guest);
    }
    while (guest.tx_busy || !guest.shut) {
        if (!guest.tx_busy && guest.sent == TOTAL_BYTES)
            guest_send(&guest, VIRTIO_VSOCK_OP_SHUTDOWN, VIRTIO_VSOCK_SHUTDOWN_SEND, 0), guest.sent++;
        else if (!fake_driver_has_used(&driver, VSOCK_RX) && !fake_driver_has_used(&driver, VSOCK_TX))
            wait_interrupt();
        guest_hear(&guest);
    }
    detach();
    ck_assert_msg(vsock_check(vsock, &breach), "%s", breach);
    vsock_destroy(vsock);
    unix_unlisten(listener, path_7);
}
END_TEST

/* Programs that come and go as fast as they can. */
static void *restless_programs(void *ctx)
{
    static char bytes[3000];

    while (!atomic_load(&stop)) {
        int fd = unix_connect(ctx);

        if (fd < 0) {
            usleep(100);
            continue;
        }
        (void)!unix_send(fd, "CONNECT 5\n", 10);
        (void)!unix_send(fd, bytes, sizeof(bytes));
        wait_fd(fd, POLLIN);
        (void)!unix_recv(fd, bytes, sizeof(bytes));
        close(fd);
    }
    return NULL;
}

START_TEST(test_devices_threads_vsock_reset_at_any_moment)
{
    const struct vsock_config config = {.guest_cid = CID, .path = path};
    struct guest guest = {.tx = fake_memory_alloc(&memory, BUFFER_BYTES, 4096)};
    struct vsock *vsock;
    const char *breach = "";

    ck_assert_int_eq(vsock_create(&config, &env, &vsock, why, sizeof(why)), 0);
    attach(vsock_device(vsock));
    ck_assert_int_eq(pthread_create(&host_thread, NULL, restless_programs, path), 0);
    for (unsigned i = 0; i < NR_RESETS; i++) {
        ck_assert_int_eq(fake_driver_start(&driver, i & 1 ? ALL_RINGS : 0, 0), 0);
        for (unsigned k = 0; k < ARRAY_LEN(buffers); k++)
            add_in(VSOCK_RX, buffers[k]);
        fake_driver_kick(&driver, VSOCK_RX);
        guest_send(&guest, VIRTIO_VSOCK_OP_REQUEST, 0, 0);
        usleep(i % 7 * 200);
        ck_assert_msg(vsock_check(vsock, &breach), "%s", breach);
    }
    detach();
    vsock_destroy(vsock);
}
END_TEST

/* --- console --------------------------------------------------------------------------------------- */

static void *type_for_ever(void *ctx)
{
    size_t typed = 0;

    while (!atomic_load(&stop)) {
        size_t taken = console_input(ctx, &"0123456789"[typed], 10 - typed);

        typed = (typed + taken) % 10;
        if (taken == 0)
            usleep(100);
    }
    return NULL;
}

START_TEST(test_devices_threads_console_input_and_reset_at_any_moment)
{
    const struct console_port_config port = {"agent", path};
    const struct console_config config = {.input_fd = -1, .nr_ports = 1, .ports = &port};
    struct console *console;
    struct fake_used used;
    uint64_t nr = 0;

    ck_assert_int_eq(console_create(&config, &env, &console, why, sizeof(why)), 0);
    attach(console_device(console));
    ck_assert_int_eq(pthread_create(&host_thread, NULL, type_for_ever, console), 0);
    for (unsigned i = 0; i < NR_RESETS; i++) {
        ck_assert_int_eq(fake_driver_start(&driver, i & 1 ? ALL_RINGS : 0, 0), 0);
        for (unsigned k = 0; k < ARRAY_LEN(buffers); k++)
            add_in(0, buffers[k]);
        fake_driver_kick(&driver, 0);
        wait_interrupt();
        while (fake_driver_collect(&driver, 0, &used) == 1) {
            const char *at = used.token;

            for (uint32_t b = 1; b < used.written_bytes; b++)
                ck_assert_int_eq(at[b], at[b - 1] == '9' ? '0' : at[b - 1] + 1);
            nr += used.written_bytes;
        }
    }
    detach();
    ck_assert_uint_gt(nr, NR_RESETS);
    console_destroy(console);
}
END_TEST

/* --- net ------------------------------------------------------------------------------------------- */

static void *send_frames(void *ctx)
{
    static uint8_t frame[TAP_HEADER_BYTES + FRAME_BYTES];
    int wire = *(const int *)ctx;

    memset(frame, 0, TAP_HEADER_BYTES);
    for (unsigned seed = 0; !atomic_load(&stop); seed++) {
        memset(frame + TAP_HEADER_BYTES, (int)(seed & 0xff), FRAME_BYTES);
        if (send(wire, frame, sizeof(frame), MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
            wait_fd(wire, POLLOUT);
    }
    return NULL;
}

/* The rest of a frame whose first buffer is @used: all of it is there as soon as that one is. */
static void check_frame(const struct fake_used *first)
{
    struct virtio_net_hdr_v1 header;
    struct fake_used used = *first;
    uint32_t bytes = 0;
    uint8_t content = ((const uint8_t *)first->token)[TAP_HEADER_BYTES];

    memcpy(&header, first->token, sizeof(header));
    ck_assert_uint_eq(header.num_buffers, 3);
    for (unsigned i = 0; i < 3; i++) {
        if (i > 0)
            ck_assert_int_eq(fake_driver_collect(&driver, NET_RX, &used), 1);
        for (uint32_t b = i == 0 ? TAP_HEADER_BYTES : 0; b < used.written_bytes; b++)
            if (((const uint8_t *)used.token)[b] != content)
                ck_abort_msg("a byte of another frame");
        bytes += used.written_bytes;
    }
    ck_assert_uint_eq(bytes, TAP_HEADER_BYTES + FRAME_BYTES);
}

START_TEST(test_devices_threads_net_frames_and_reset_at_any_moment)
{
    struct net_config config = {0};
    struct fake_used used;
    struct net *net;
    uint64_t nr = 0, nr_looks = 0;
    int ends[2];

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, ends), 0);
    config.fd = ends[0];
    ck_assert_int_eq(net_create(&config, &env, &net, why, sizeof(why)), 0);
    attach(net_device(net));
    ck_assert_int_eq(pthread_create(&host_thread, NULL, send_frames, &ends[1]), 0);
    for (unsigned i = 0; i < NR_RESETS; i++) {
        ck_assert_int_eq(fake_driver_start(&driver, MRG_RXBUF | (i & 1 ? ALL_RINGS : 0), 0), 0);
        for (unsigned k = 0; k < ARRAY_LEN(buffers); k++)
            add_in(NET_RX, buffers[k]);
        fake_driver_kick(&driver, NET_RX);
        wait_interrupt();
        do {
            while (fake_driver_collect(&driver, NET_RX, &used) == 1) {
                check_frame(&used);
                nr++;
            }
        } while (++nr_looks % 256 != 0); /* while the device goes on */
    }
    detach();
    ck_assert_uint_ge(nr, NR_RESETS);
    net_destroy(net);
    close(ends[1]);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("devices_threads");
    TCase *tcase = tcase_create("devices_threads");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 60);
    tcase_add_loop_test(tcase, test_devices_threads_vsock_stream_is_whole, 0, 2);
    tcase_add_test(tcase, test_devices_threads_vsock_reset_at_any_moment);
    tcase_add_test(tcase, test_devices_threads_console_input_and_reset_at_any_moment);
    tcase_add_test(tcase, test_devices_threads_net_frames_and_reset_at_any_moment);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
