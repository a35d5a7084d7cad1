/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The data path over a pair of sockets, whose other end is the wire: a frame behind its header per read and write. What
 * only a tap can show is tested on one that the test makes in a network namespace of its own.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "devices/net/net.h"
#include "devices/net/state.h"
#include "tests/fake/fail_alloc.h"
#include "tests/fake/fake_driver.h"

#define FEATURE(name) (UINT64_C(1) << VIRTIO_NET_F_##name)
#define ALL_RINGS (UINT64_C(1) << VIRTIO_F_RING_PACKED | UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX)
#define HEADER TAP_HEADER_BYTES
#define MAX_BYTES (HEADER + NET_FRAME_BYTES)

static struct fake_memory memory;
static struct loop *loop;
static struct device_env env;
static struct net *net;
static struct virtio_mmio mmio;
static struct fake_driver driver;
static int wire = -1;
static char why[300];
static const uint8_t mac[NET_MAC_BYTES] = {0x52, 0x54, 0, 1, 2, 3};

static void attach(void)
{
    ck_assert_int_eq(virtio_mmio_init(&mmio, net_device(net)), 0);
    fake_driver_init(&driver, &mmio, &memory);
}

static void make(void)
{
    struct net_config config = {0};
    int ends[2];

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    memcpy(config.mac, mac, sizeof(mac));
    config.fd = ends[0];
    wire = ends[1];
    ck_assert_msg(net_create(&config, &env, &net, why, sizeof(why)) == 0, "%s", why);
    attach();
}

static void setup(void)
{
    fake_memory_init(&memory, 0x100000, 32 << 20);
    ck_assert_int_eq(loop_create(&loop), 0);
    env = (struct device_env){.mem = &memory.mem, .loop = loop};
    net = NULL;
    wire = -1;
}

static void teardown(void)
{
    if (net) {
        virtio_mmio_fini(&mmio);
        net_destroy(net);
    }
    if (wire >= 0)
        close(wire);
    loop_destroy(loop);
    fake_memory_fini(&memory);
}

static void start(uint64_t features)
{
    ck_assert_int_eq(fake_driver_start(&driver, features, 0), 0);
    fake_driver_run(&driver);
}

static struct net_stat stats(void)
{
    struct net_stat stat;

    net_stats(net, &stat);
    return stat;
}

/* A header and a frame of @bytes, which differ by @seed. */
static uint32_t make_packet(uint8_t *to, uint32_t bytes, unsigned seed)
{
    memset(to, 0, HEADER);
    for (uint32_t i = 0; i < bytes; i++)
        to[HEADER + i] = (uint8_t)(i * 7 + seed);
    return HEADER + bytes;
}

/* --- the guest's side ------------------------------------------------------------------------------ */

static void guest_sends(const uint8_t *packet, uint32_t bytes)
{
    /* Two pieces, and none of them the header. */
    uint32_t first = MIN_OF(bytes, 17u);
    struct fake_buffer buffers[2] = {{fake_memory_alloc(&memory, first, 1), first},
                                     {fake_memory_alloc(&memory, bytes - first + 1, 1), bytes - first}};

    memcpy(fake_memory_at(&memory, buffers[0].gpa, first), packet, first);
    memcpy(fake_memory_at(&memory, buffers[1].gpa, bytes - first), packet + first, bytes - first);
    ck_assert_int_eq(fake_driver_add(&driver, NET_TX, buffers, bytes > first ? 2 : 1, 0, false, NULL), 0);
    fake_driver_kick(&driver, NET_TX);
    fake_driver_run(&driver);
}

static unsigned nr_sent(void)
{
    struct fake_used used;
    unsigned nr = 0;

    while (fake_driver_collect(&driver, NET_TX, &used) == 1)
        nr++;
    return nr;
}

static void give_buffers(unsigned nr, uint32_t bytes)
{
    for (unsigned i = 0; i < nr; i++) {
        struct fake_buffer buffer = {fake_memory_alloc(&memory, bytes, 1), bytes};
        void *at = fake_memory_at(&memory, buffer.gpa, bytes);

        ck_assert_int_eq(fake_driver_add(&driver, NET_RX, &buffer, 0, 1, false, at), 0);
    }
    fake_driver_kick(&driver, NET_RX);
    fake_driver_run(&driver);
}

/* One frame with its header, out of as many buffers as it says: bytes, 0: none. */
static uint32_t guest_gets(uint8_t *to, unsigned *nr_buffers)
{
    struct virtio_net_hdr_v1 header;
    struct fake_used used;
    uint32_t nr = 0;

    *nr_buffers = 0;
    if (fake_driver_collect(&driver, NET_RX, &used) != 1)
        return 0;
    ck_assert_uint_ge(used.written_bytes, sizeof(header));
    memcpy(&header, used.token, sizeof(header));
    for (unsigned i = 1;; i++) {
        ck_assert_uint_le(nr + used.written_bytes, MAX_BYTES);
        memcpy(to + nr, used.token, used.written_bytes);
        nr += used.written_bytes;
        if (i >= header.num_buffers)
            break;
        ck_assert_int_eq(fake_driver_collect(&driver, NET_RX, &used), 1); /* all are there at once */
    }
    *nr_buffers = header.num_buffers;
    return nr;
}

/* --- the data path --------------------------------------------------------------------------------- */

START_TEST(test_net_frames_reach_the_wire)
{
    static uint8_t packet[MAX_BYTES], got[MAX_BYTES];
    static const uint32_t sizes[] = {14, 60, 1514, 4000, 65000};

    make();
    start(_i ? ALL_RINGS : 0);
    for (unsigned i = 0; i < 300; i++) {
        uint32_t bytes = make_packet(packet, sizes[i % ARRAY_LEN(sizes)], i);

        guest_sends(packet, bytes);
        ck_assert_uint_eq(nr_sent(), 1);
        ck_assert_int_eq(recv(wire, got, sizeof(got), 0), bytes);
        ck_assert_int_eq(memcmp(got, packet, bytes), 0);
    }
    ck_assert_uint_eq(stats().tx_packets, 300);
    ck_assert_uint_eq(stats().tx_bytes, 60 * (14 + 60 + 1514 + 4000 + 65000));
    ck_assert_uint_eq(stats().nr_malformed, 0);
}
END_TEST

START_TEST(test_net_frames_reach_the_guest)
{
    static uint8_t packet[MAX_BYTES], got[MAX_BYTES];
    unsigned nr_buffers;

    make();
    start(_i ? ALL_RINGS : 0);
    for (unsigned i = 0; i < 300; i++) {
        uint32_t bytes = make_packet(packet, 14 + i * 5, i);

        give_buffers(1, 1526);
        ck_assert_int_eq(send(wire, packet, bytes, 0), bytes);
        fake_driver_run(&driver);
        ck_assert_uint_eq(guest_gets(got, &nr_buffers), bytes);
        ck_assert_uint_eq(nr_buffers, 1);
        ck_assert_int_eq(memcmp(got + HEADER, packet + HEADER, bytes - HEADER), 0);
        ck_assert_uint_ne(fake_driver_interrupts(&driver) & VIRTIO_INT_USED, 0);
    }
    ck_assert_uint_eq(stats().rx_packets, 300);
}
END_TEST

START_TEST(test_net_large_frame_is_merged_from_small_buffers)
{
    static uint8_t packet[MAX_BYTES], got[MAX_BYTES];
    unsigned nr_buffers;

    make();
    start(FEATURE(MRG_RXBUF) | (_i ? ALL_RINGS : 0));
    for (unsigned round = 0; round < 20; round++) {
        uint32_t bytes = make_packet(packet, 40000, round);

        ck_assert_int_eq(send(wire, packet, bytes, 0), bytes);
        fake_driver_run(&driver);
        give_buffers(10, 1500);
        ck_assert_uint_eq(guest_gets(got, &nr_buffers), 0); /* not before it fits whole */
        give_buffers(30, 1500);
        ck_assert_uint_eq(guest_gets(got, &nr_buffers), bytes);
        ck_assert_uint_eq(nr_buffers, (bytes + 1499) / 1500);
        ck_assert_int_eq(memcmp(got + HEADER, packet + HEADER, bytes - HEADER), 0);
        for (unsigned i = 0; i < 40 - nr_buffers; i++) { /* the rest, one each */
            bytes = make_packet(packet, 100, i);
            ck_assert_int_eq(send(wire, packet, bytes, 0), bytes);
        }
        fake_driver_run(&driver);
        for (unsigned i = 0, rest = 40 - nr_buffers; i < rest; i++) {
            ck_assert_uint_eq(guest_gets(got, &nr_buffers), 100 + HEADER);
            ck_assert_uint_eq(nr_buffers, 1);
        }
    }
    ck_assert_uint_eq(stats().rx_dropped, 0);
}
END_TEST

START_TEST(test_net_guest_without_buffers_leaves_frames_on_the_wire)
{
    static uint8_t packet[MAX_BYTES], got[MAX_BYTES];
    unsigned nr_buffers, nr_on_wire = 0;

    make();
    start(0);
    while (send(wire, packet, make_packet(packet, 1000, nr_on_wire), 0) > 0) {
        nr_on_wire++;
        fake_driver_run(&driver); /* ends */
        ck_assert_uint_lt(nr_on_wire, 10000);
    }
    for (unsigned i = 0; i < nr_on_wire; i++) {
        give_buffers(1, 1526);
        make_packet(packet, 1000, i);
        ck_assert_uint_eq(guest_gets(got, &nr_buffers), 1000 + HEADER);
        ck_assert_int_eq(memcmp(got + HEADER, packet + HEADER, 1000), 0);
    }
    ck_assert_uint_eq(stats().rx_dropped, 0);
}
END_TEST

START_TEST(test_net_full_wire_holds_the_transmit_queue)
{
    static uint8_t packet[MAX_BYTES], got[MAX_BYTES];
    uint32_t bytes = make_packet(packet, 4000, 1);
    unsigned nr_got = 0, nr_back = 0;

    make();
    start(_i ? ALL_RINGS : 0);
    for (unsigned i = 0; i < 120; i++)
        guest_sends(packet, bytes);
    nr_back = nr_sent();
    ck_assert_uint_lt(nr_back, 120);
    for (unsigned turn = 0; turn < 1000 && nr_got < 120; turn++) {
        while (recv(wire, got, sizeof(got), 0) == bytes)
            nr_got++;
        fake_driver_run(&driver);
        nr_back += nr_sent();
    }
    ck_assert_uint_eq(nr_got, 120);
    ck_assert_uint_eq(nr_back, 120);
    ck_assert_uint_eq(stats().tx_packets, 120);
}
END_TEST

START_TEST(test_net_reset_forgets_what_was_under_way)
{
    static uint8_t packet[MAX_BYTES], got[MAX_BYTES];
    uint32_t bytes = make_packet(packet, 3000, 1);
    unsigned nr_buffers;

    make();
    start(FEATURE(MRG_RXBUF));
    give_buffers(1, 1500);
    ck_assert_int_eq(send(wire, packet, bytes, 0), bytes); /* half of it has a place */
    fake_driver_run(&driver);
    while (guest_sends(packet, bytes), nr_sent() == 1)
        ;
    fake_driver_reset(&driver);
    fake_driver_run(&driver);
    while (recv(wire, got, sizeof(got), 0) > 0)
        ;
    start(0);
    bytes = make_packet(packet, 200, 9);
    give_buffers(1, 1526);
    ck_assert_int_eq(send(wire, packet, bytes, 0), bytes);
    fake_driver_run(&driver);
    ck_assert_uint_eq(guest_gets(got, &nr_buffers), bytes);
    ck_assert_int_eq(memcmp(got + HEADER, packet + HEADER, 200), 0);
    guest_sends(packet, bytes);
    ck_assert_uint_eq(nr_sent(), 1);
    ck_assert_int_eq(recv(wire, got, sizeof(got), 0), bytes);
}
END_TEST

START_TEST(test_net_no_driver_reads_nothing)
{
    static uint8_t packet[MAX_BYTES];

    make();
    ck_assert_int_gt(send(wire, packet, make_packet(packet, 100, 0), 0), 0);
    fake_driver_run(&driver); /* ends */
    ck_assert_uint_eq(stats().rx_packets + stats().rx_dropped, 0);
}
END_TEST

START_TEST(test_net_wire_that_ends_takes_the_link_down)
{
    static uint8_t packet[MAX_BYTES];
    uint16_t status = 0;

    make();
    start(FEATURE(STATUS));
    fake_driver_config_read(&driver, 6, &status, 2);
    ck_assert_uint_eq(status, VIRTIO_NET_S_LINK_UP);
    close(wire);
    wire = -1;
    fake_driver_run(&driver); /* ends */
    fake_driver_config_read(&driver, 6, &status, 2);
    ck_assert_uint_eq(status, 0);
    ck_assert_uint_ne(fake_driver_interrupts(&driver) & VIRTIO_INT_CONFIG, 0);
    guest_sends(packet, make_packet(packet, 100, 0));
    ck_assert_uint_eq(nr_sent(), 1);
    ck_assert_uint_eq(stats().tx_dropped, 1);
    ck_assert(!stats().link_up);
}
END_TEST

/* --- headers --------------------------------------------------------------------------------------- */

/* Does the wire get a frame of 100 bytes with @header? Its header in *@got. */
static bool passes(struct virtio_net_hdr_v1 header, struct virtio_net_hdr_v1 *got)
{
    uint8_t packet[HEADER + 100], back[HEADER + 100];

    make_packet(packet, 100, 5);
    memcpy(packet, &header, HEADER);
    guest_sends(packet, sizeof(packet));
    ck_assert_uint_eq(nr_sent(), 1); /* refused or not, the buffer comes back */
    if (recv(wire, back, sizeof(back), 0) != sizeof(back))
        return false;
    memcpy(got, back, HEADER);
    return true;
}

START_TEST(test_net_offloads_that_were_not_negotiated_are_refused)
{
    struct virtio_net_hdr_v1 got;

    make();
    start(0);
    ck_assert(!passes((struct virtio_net_hdr_v1){.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = 34}, &got));
    ck_assert(!passes((struct virtio_net_hdr_v1){.gso_type = VIRTIO_NET_HDR_GSO_TCPV4, .gso_size = 1000}, &got));
    ck_assert(!passes((struct virtio_net_hdr_v1){.gso_type = VIRTIO_NET_HDR_GSO_ECN}, &got));
    ck_assert_uint_eq(stats().nr_malformed, 3);
    /* What means nothing from this side is cleared. */
    ck_assert(passes(
        (struct virtio_net_hdr_v1){
            .flags = VIRTIO_NET_HDR_F_DATA_VALID | 0x80, .gso_size = 9, .hdr_len = 70, .num_buffers = 77},
        &got));
    ck_assert_uint_eq(got.flags, 0);
    ck_assert_uint_eq(got.gso_size, 0);
    ck_assert_uint_eq(got.hdr_len, 0);
    ck_assert_uint_eq(got.num_buffers, 0);
    ck_assert_uint_eq(stats().nr_malformed, 3);
}
END_TEST

START_TEST(test_net_negotiated_offloads_pass_as_they_are)
{
    struct virtio_net_hdr_v1 got, header = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
                                            .gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
                                            .hdr_len = 54,
                                            .gso_size = 20,
                                            .csum_start = 34,
                                            .csum_offset = 16};

    make();
    start(FEATURE(CSUM) | FEATURE(HOST_TSO4));
    ck_assert(passes(header, &got));
    ck_assert_int_eq(memcmp(&header, &got, sizeof(got)), 0);
    header.gso_type = VIRTIO_NET_HDR_GSO_TCPV6;
    ck_assert(!passes(header, &got));
    header.gso_type = VIRTIO_NET_HDR_GSO_UDP;
    ck_assert(!passes(header, &got));
    header.gso_type = VIRTIO_NET_HDR_GSO_TCPV4 | VIRTIO_NET_HDR_GSO_ECN;
    ck_assert(!passes(header, &got));
    header.gso_type = VIRTIO_NET_HDR_GSO_TCPV4;
    header.gso_size = 0;
    ck_assert(!passes(header, &got));
    header.gso_size = 20;
    header.hdr_len = 101;
    ck_assert(!passes(header, &got));
    header.hdr_len = 54;
    header.csum_start = 83; /* 83 + 16 + 2 > 100 */
    ck_assert(!passes(header, &got));
    header.csum_start = 0xffff;
    header.csum_offset = 0xffff;
    ck_assert(!passes(header, &got));
    header.csum_start = 82;
    header.csum_offset = 16;
    ck_assert(passes(header, &got));
    header.flags = 0; /* segmentation without a checksum */
    ck_assert(!passes(header, &got));
    ck_assert_uint_eq(stats().nr_malformed, 8);
}
END_TEST

/* Whether a frame with @header reaches the guest, and with which. */
static bool arrives(struct virtio_net_hdr_v1 header, struct virtio_net_hdr_v1 *got)
{
    static uint8_t packet[MAX_BYTES];
    unsigned nr_buffers;
    uint32_t bytes = make_packet(packet, 100, 1);

    memcpy(packet, &header, sizeof(header));
    give_buffers(1, 1526);
    ck_assert_int_eq(send(wire, packet, bytes, 0), bytes);
    fake_driver_run(&driver);
    bytes = guest_gets(packet, &nr_buffers);
    memcpy(got, packet, sizeof(*got));
    ck_assert(bytes == 0 || (bytes == HEADER + 100 && got->num_buffers == 1));
    return bytes > 0;
}

/* As frames from a card that checks sums have it (DATA_VALID), and frames that wait for the driver before this one. */
START_TEST(test_net_driver_without_guest_offloads_gets_headers_of_offloads)
{
    const struct virtio_net_hdr_v1 plain = {.num_buffers = 1};
    struct virtio_net_hdr_v1 got, header = {.flags = VIRTIO_NET_HDR_F_DATA_VALID};

    make();
    start(_i ? ALL_RINGS : 0);
    ck_assert(arrives(header, &got));
    ck_assert_int_eq(memcmp(&got, &plain, sizeof(got)), 0);
    header.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
    ck_assert(!arrives(header, &got));
    header.gso_type = VIRTIO_NET_HDR_GSO_TCPV4;
    header.gso_size = 20;
    ck_assert(!arrives(header, &got));
    ck_assert_uint_eq(stats().rx_dropped, 2);
    ck_assert(arrives(plain, &got));
}
END_TEST

START_TEST(test_net_negotiated_guest_offloads_arrive_as_they_are)
{
    struct virtio_net_hdr_v1 got, header = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
                                            .gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
                                            .hdr_len = 54,
                                            .gso_size = 20,
                                            .csum_start = 34,
                                            .csum_offset = 16,
                                            .num_buffers = 1};

    make();
    net_device(net)->features |= FEATURE(GUEST_CSUM) | FEATURE(GUEST_TSO4); /* as over a tap */
    start(FEATURE(GUEST_CSUM) | FEATURE(GUEST_TSO4));
    ck_assert(arrives(header, &got));
    ck_assert_int_eq(memcmp(&got, &header, sizeof(got)), 0);
    header.gso_type = VIRTIO_NET_HDR_GSO_TCPV6;
    ck_assert(!arrives(header, &got));
    header.gso_type = VIRTIO_NET_HDR_GSO_TCPV4 | VIRTIO_NET_HDR_GSO_ECN;
    ck_assert(!arrives(header, &got));
    header = (struct virtio_net_hdr_v1){.flags = VIRTIO_NET_HDR_F_DATA_VALID, .num_buffers = 1};
    ck_assert(arrives(header, &got));
    ck_assert_int_eq(memcmp(&got, &header, sizeof(got)), 0);
}
END_TEST

/* --- a hostile driver ------------------------------------------------------------------------------ */

START_TEST(test_net_frames_too_short_or_too_long_are_refused)
{
    static uint8_t packet[MAX_BYTES + 1], got[MAX_BYTES + 1];

    make();
    start(0);
    guest_sends(packet, 1);
    guest_sends(packet, HEADER);
    guest_sends(packet, HEADER + NET_ETHER_BYTES - 1);
    guest_sends(packet, MAX_BYTES + 1);
    ck_assert_uint_eq(nr_sent(), 4);
    ck_assert_uint_eq(stats().nr_malformed, 4);
    ck_assert_int_lt(recv(wire, got, sizeof(got), 0), 0);
    guest_sends(packet, MAX_BYTES);
    guest_sends(packet, HEADER + NET_ETHER_BYTES);
    ck_assert_uint_eq(stats().tx_packets, 2);
}
END_TEST

START_TEST(test_net_writable_buffer_in_the_transmit_queue_is_refused)
{
    struct fake_buffer buffer = {fake_memory_alloc(&memory, 2000, 1), 2000};

    make();
    start(0);
    ck_assert_int_eq(fake_driver_add(&driver, NET_TX, &buffer, 0, 1, false, NULL), 0);
    fake_driver_kick(&driver, NET_TX);
    fake_driver_run(&driver);
    ck_assert_uint_eq(nr_sent(), 1);
    ck_assert_uint_eq(stats().nr_malformed, 1);
    ck_assert_uint_eq(stats().tx_packets, 0);
}
END_TEST

START_TEST(test_net_buffers_smaller_than_a_header_come_back_empty)
{
    static uint8_t packet[MAX_BYTES], got[MAX_BYTES];
    struct fake_used used;
    unsigned nr_buffers, nr = 0;

    make();
    start(FEATURE(MRG_RXBUF));
    ck_assert_int_eq(send(wire, packet, make_packet(packet, 100, 3), 0), 112);
    give_buffers(200, HEADER - 1);
    while (fake_driver_collect(&driver, NET_RX, &used) == 1) {
        ck_assert_uint_eq(used.written_bytes, 0);
        nr++;
    }
    ck_assert_uint_eq(nr, 200);
    ck_assert_uint_eq(stats().nr_malformed, 200);
    give_buffers(9, HEADER + 1); /* 13 bytes each: 117 */
    ck_assert_uint_eq(guest_gets(got, &nr_buffers), 112);
    ck_assert_uint_eq(nr_buffers, 9);
    ck_assert_int_eq(memcmp(got + HEADER, packet + HEADER, 100), 0);
}
END_TEST

START_TEST(test_net_frame_that_no_buffer_can_hold_is_dropped_alone)
{
    static uint8_t packet[MAX_BYTES], got[MAX_BYTES];
    unsigned nr_buffers;

    make();
    start(_i ? FEATURE(MRG_RXBUF) : 0);
    give_buffers(_i ? NET_MAX_MERGED : 1, 512);
    ck_assert_int_gt(send(wire, packet, make_packet(packet, 40000, 1), 0), 0);
    ck_assert_int_gt(send(wire, packet, make_packet(packet, 300, 2), 0), 0);
    fake_driver_run(&driver);
    ck_assert_uint_eq(guest_gets(got, &nr_buffers), 312);
    ck_assert_int_eq(memcmp(got + HEADER, packet + HEADER, 300), 0);
    ck_assert_uint_eq(stats().rx_dropped, 1);
}
END_TEST

START_TEST(test_net_runt_from_the_wire_is_dropped)
{
    static uint8_t packet[MAX_BYTES], got[MAX_BYTES];
    unsigned nr_buffers;

    make();
    start(0);
    give_buffers(1, 2000);
    ck_assert_int_eq(send(wire, packet, HEADER + NET_ETHER_BYTES - 1, 0), HEADER + NET_ETHER_BYTES - 1);
    ck_assert_int_eq(send(wire, packet, 1, 0), 1);
    fake_driver_run(&driver);
    ck_assert_uint_eq(guest_gets(got, &nr_buffers), 0);
    ck_assert_uint_eq(stats().rx_dropped, 2);
}
END_TEST

START_TEST(test_net_broken_queue_stops_both_until_reset)
{
    static uint8_t packet[MAX_BYTES], got[MAX_BYTES];
    struct fake_buffer buffer = {{UINT64_C(1) << 40}, 2000};
    unsigned nr_buffers;

    make();
    start(0);
    give_buffers(2, 2000);
    ck_assert_int_eq(fake_driver_add(&driver, NET_TX, &buffer, 1, 0, false, NULL), 0);
    fake_driver_kick(&driver, NET_TX);
    fake_driver_run(&driver);
    ck_assert_uint_ne(fake_driver_status(&driver) & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
    ck_assert_int_gt(send(wire, packet, make_packet(packet, 300, 2), 0), 0);
    fake_driver_run(&driver); /* ends */
    ck_assert_uint_eq(guest_gets(got, &nr_buffers), 0);
    start(0);
    give_buffers(1, 2000);
    ck_assert_uint_eq(guest_gets(got, &nr_buffers), 312);
}
END_TEST

/* --- making ---------------------------------------------------------------------------------------- */

START_TEST(test_net_address_is_the_given_or_a_random_one)
{
    uint8_t got[NET_MAC_BYTES], told[NET_MAC_BYTES];
    struct net_config config = {.fd = -1};
    struct net *other;
    int ends[2];

    make();
    ck_assert_uint_ne(fake_driver_offered(&driver) & FEATURE(MAC), 0);
    fake_driver_config_read(&driver, 0, got, sizeof(got));
    ck_assert_int_eq(memcmp(got, mac, sizeof(mac)), 0);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), 0);
    config.fd = ends[0];
    config.mac[0] = 0x01;
    ck_assert_int_eq(net_create(&config, &env, &other, why, sizeof(why)), -EINVAL);
    ck_assert_ptr_nonnull(strstr(why, "group"));
    config.mac[0] = 0;
    ck_assert_int_eq(net_create(&config, &env, &other, why, sizeof(why)), 0);
    net_mac(other, told);
    ck_assert_uint_eq(told[0] & 3, 2);
    net_destroy(other);
    close(ends[1]);
}
END_TEST

START_TEST(test_net_bad_tap_names_are_refused)
{
    static const char *const names[] = {"", "a-name-of-16-ch.", "a/b", "tap%d", "a b", ".", ".."};

    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        const struct net_config config = {.tap = names[i]};

        ck_assert_int_eq(net_create(&config, &env, &net, why, sizeof(why)), -EINVAL);
        ck_assert_ptr_null(net);
        ck_assert_ptr_nonnull(strstr(why, names[i]));
    }
}
END_TEST

START_TEST(test_net_no_memory_leaves_nothing)
{
    int ends[2];
    struct net_config config = {0};

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), 0);
    config.fd = ends[0];
    for (long n = 1;; n++) {
        fail_alloc_at(n);
        int err = net_create(&config, &env, &net, why, sizeof(why));
        bool failed = fail_alloc_fired();
        fail_alloc_at(-1);
        if (!failed) {
            ck_assert_int_eq(err, 0);
            break;
        }
        ck_assert_int_eq(err, -ENOMEM);
        ck_assert_ptr_null(net);
        ck_assert_int_ge(fcntl(ends[0], F_GETFD), 0);
    }
    net_destroy(net);
    net = NULL;
    close(ends[1]);
}
END_TEST

/* --- a tap ----------------------------------------------------------------------------------------- */

/* Makes tap "ebbtest" in a network namespace of this process's own (Check forks one a test). NULL, or why not. */
static const char *make_tap(void)
{
    struct ifreq request = {.ifr_name = "ebbtest", .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};

    if (geteuid() != 0)
        return "needs root";
    if (unshare(CLONE_NEWNET))
        return "no network namespace";
    /* the kernel sends nothing of its own */
    int fd = open("/proc/sys/net/ipv6/conf/default/disable_ipv6", O_WRONLY | O_CLOEXEC);
    if (fd >= 0 && (write(fd, "1", 1) != 1 || close(fd)))
        return "IPv6 cannot be turned off";
    fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return "no /dev/net/tun";
    if (ioctl(fd, TUNSETIFF, &request) || ioctl(fd, TUNSETPERSIST, 1))
        return "no tap can be made";
    close(fd);
    return NULL;
}

static bool skip(const char *reason)
{
    if (reason)
        printf("SKIP: tap: %s\n", reason);
    return reason != NULL;
}

static int open_raw(void)
{
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, 0);
    struct sockaddr_storage storage = {0};
    /* struct sockaddr_ll, whose header does not go together with that of the tap */
    struct {
        uint16_t family, protocol;
        int index;
    } address = {AF_PACKET, 0x0300 /* all, big endian */, (int)if_nametoindex("ebbtest")};

    ck_assert_int_ge(fd, 0);
    memcpy(&storage, &address, sizeof(address));
    ck_assert_int_eq(bind(fd, (const struct sockaddr *)&storage, 20), 0);
    return fd;
}

static void set_up(void)
{
    struct ifreq request = {.ifr_name = "ebbtest"};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ioctl(fd, SIOCGIFFLAGS, &request), 0);
    request.ifr_flags |= IFF_UP;
    ck_assert_int_eq(ioctl(fd, SIOCSIFFLAGS, &request), 0);
    close(fd);
}

/* Root, but no master of the network: as a user. For the rest of this process, which is this test's. */
static void lose_net_admin(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];

    ck_assert_int_eq(syscall(SYS_capget, &header, data), 0);
    data[0].effective &= ~(1u << CAP_NET_ADMIN);
    ck_assert_int_eq(syscall(SYS_capset, &header, data), 0);
}

static void make_on_tap(void)
{
    const struct net_config config = {.tap = "ebbtest", .fd = -1, .mac = {0x52, 0x54, 0, 1, 2, 3}};

    ck_assert_msg(net_create(&config, &env, &net, why, sizeof(why)) == 0, "%s", why);
    attach();
}

START_TEST(test_net_tap_carries_frames_both_ways)
{
    static uint8_t packet[MAX_BYTES], got[MAX_BYTES];
    unsigned nr_buffers, nr_tries = 0;
    ssize_t nr;

    if (skip(make_tap()))
        return;
    make_on_tap();
    start(FEATURE(MRG_RXBUF) | FEATURE(CSUM) | FEATURE(HOST_TSO4) | FEATURE(GUEST_CSUM) | FEATURE(GUEST_TSO4));
    uint32_t bytes = make_packet(packet, 100, 1);
    packet[HEADER + 12] = 0x88; /* an ethertype of nobody */
    packet[HEADER + 13] = 0xb5;
    guest_sends(packet, bytes);
    ck_assert_uint_eq(nr_sent(), 1);
    ck_assert_uint_eq(stats().tx_dropped, 1); /* the link is down on the host */
    set_up();
    int raw = open_raw();
    guest_sends(packet, bytes);
    while ((nr = recv(raw, got, sizeof(got), 0)) != 100 || memcmp(got, packet + HEADER, 100) != 0) {
        ck_assert_uint_lt(nr_tries++, 1000);
        usleep(1000);
    }
    give_buffers(32, 2048);
    while (guest_gets(got, &nr_buffers) > 0) /* what the host says by itself: multicast */
        ;
    packet[HEADER + 20] = 0x77;
    ck_assert_int_eq(send(raw, packet + HEADER, 100, 0), 100);
    do {
        ck_assert_uint_lt(nr_tries++, 1000);
        fake_driver_run(&driver);
        bytes = guest_gets(got, &nr_buffers);
        if (bytes == 0)
            usleep(1000);
    } while (bytes != 112 || memcmp(got + HEADER, packet + HEADER, 100) != 0);
    ck_assert_uint_eq(nr_buffers, 1);
    close(raw);
}
END_TEST

START_TEST(test_net_tap_offers_what_it_can)
{
    if (skip(make_tap()))
        return;
    make_on_tap();
    ck_assert_uint_ne(fake_driver_offered(&driver) & FEATURE(GUEST_TSO4), 0);
    ck_assert_uint_ne(fake_driver_offered(&driver) & FEATURE(GUEST_CSUM), 0);
    start(FEATURE(GUEST_TSO4)); /* without checksums: makes no sense, does no harm */
    start(FEATURE(GUEST_TSO4) | FEATURE(GUEST_CSUM));
}
END_TEST

START_TEST(test_net_tap_that_is_missing_or_used_is_explained)
{
    const struct net_config missing = {.tap = "ebbnone"}, used = {.tap = "ebbtest"}, loopback = {.tap = "lo"};
    struct net *other = NULL;

    if (skip(make_tap()))
        return;
    ck_assert_int_eq(net_create(&missing, &env, &other, why, sizeof(why)), -ENODEV);
    ck_assert_ptr_nonnull(strstr(why, "ip tuntap add dev ebbnone mode tap"));
    ck_assert_uint_eq(if_nametoindex("ebbnone"), 0); /* and was not made */
    ck_assert_int_eq(net_create(&loopback, &env, &other, why, sizeof(why)), -EINVAL);
    ck_assert_ptr_nonnull(strstr(why, "not a tap"));
    make_on_tap();
    ck_assert_int_eq(net_create(&used, &env, &other, why, sizeof(why)), -EBUSY);
    ck_assert_ptr_nonnull(strstr(why, "another program uses it"));
    ck_assert_ptr_null(other);
}
END_TEST

START_TEST(test_net_tap_of_somebody_else_is_explained)
{
    const struct net_config config = {.tap = "ebbtest"};
    struct ifreq request = {.ifr_name = "ebbtest", .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};

    if (skip(make_tap()))
        return;
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ioctl(fd, TUNSETIFF, &request), 0);
    ck_assert_int_eq(ioctl(fd, TUNSETOWNER, 12345ul), 0);
    close(fd);
    lose_net_admin();
    ck_assert_int_eq(net_create(&config, &env, &net, why, sizeof(why)), -EPERM);
    ck_assert_ptr_null(net);
    ck_assert_ptr_nonnull(strstr(why, "not yours"));
}
END_TEST

START_TEST(test_net_tap_that_is_deleted_takes_the_link_down)
{
    uint16_t status = 1;

    if (skip(make_tap()))
        return;
    make_on_tap();
    set_up();
    start(FEATURE(STATUS));
    ck_assert_int_eq(system("ip link del ebbtest"), 0);
    fake_driver_run(&driver); /* ends */
    fake_driver_config_read(&driver, 6, &status, 2);
    ck_assert_uint_eq(status, 0);
}
END_TEST

static TCase *data_cases(void)
{
    TCase *tcase = tcase_create("data");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_loop_test(tcase, test_net_frames_reach_the_wire, 0, 2);
    tcase_add_loop_test(tcase, test_net_frames_reach_the_guest, 0, 2);
    tcase_add_loop_test(tcase, test_net_large_frame_is_merged_from_small_buffers, 0, 2);
    tcase_add_test(tcase, test_net_guest_without_buffers_leaves_frames_on_the_wire);
    tcase_add_loop_test(tcase, test_net_full_wire_holds_the_transmit_queue, 0, 2);
    tcase_add_test(tcase, test_net_reset_forgets_what_was_under_way);
    tcase_add_test(tcase, test_net_no_driver_reads_nothing);
    tcase_add_test(tcase, test_net_wire_that_ends_takes_the_link_down);
    tcase_add_test(tcase, test_net_offloads_that_were_not_negotiated_are_refused);
    tcase_add_test(tcase, test_net_negotiated_offloads_pass_as_they_are);
    tcase_add_loop_test(tcase, test_net_driver_without_guest_offloads_gets_headers_of_offloads, 0, 2);
    tcase_add_test(tcase, test_net_negotiated_guest_offloads_arrive_as_they_are);
    tcase_add_test(tcase, test_net_frames_too_short_or_too_long_are_refused);
    tcase_add_test(tcase, test_net_writable_buffer_in_the_transmit_queue_is_refused);
    tcase_add_test(tcase, test_net_buffers_smaller_than_a_header_come_back_empty);
    tcase_add_loop_test(tcase, test_net_frame_that_no_buffer_can_hold_is_dropped_alone, 0, 2);
    tcase_add_test(tcase, test_net_runt_from_the_wire_is_dropped);
    tcase_add_test(tcase, test_net_broken_queue_stops_both_until_reset);
    return tcase;
}

static TCase *making_cases(void)
{
    TCase *tcase = tcase_create("making");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_net_address_is_the_given_or_a_random_one);
    tcase_add_test(tcase, test_net_bad_tap_names_are_refused);
    tcase_add_test(tcase, test_net_no_memory_leaves_nothing);
    tcase_add_test(tcase, test_net_tap_carries_frames_both_ways);
    tcase_add_test(tcase, test_net_tap_offers_what_it_can);
    tcase_add_test(tcase, test_net_tap_that_is_missing_or_used_is_explained);
    tcase_add_test(tcase, test_net_tap_of_somebody_else_is_explained);
    tcase_add_test(tcase, test_net_tap_that_is_deleted_takes_the_link_down);
    return tcase;
}

int main(void)
{
    Suite *suite = suite_create("net");

    suite_add_tcase(suite, data_cases());
    suite_add_tcase(suite, making_cases());
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
