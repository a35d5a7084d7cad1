/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of this folder share.
 *
 *   device.c     queues, reset, making; the programs of the host
 *   connection.c the table; one connection's way to its end
 *   request.c    packets of the guest
 *   reply.c      packets for the guest
 *
 * A connection's life. The guest's packets do not find it FLUSHING any more, and DEAD only to be refused.
 *
 *   FREE -> HELLO     a program of the host has connected, its line is not complete
 *        -> ASKED     the guest is asked for the connection
 *        -> OPEN      (from FREE at once when the guest asks)
 *        -> FLUSHING  the guest is through with it; what it sent still goes to the host
 *        -> DEAD      the guest must hear of the end: a reset, then FREE
 *   OPEN -> DEAD      too: the program has hung up, and the guest neither ends it nor takes anything (VSOCK_LINGER_MS)
 *   GONE              the device was reset: the device thread closes it, then FREE
 */
#ifndef DEVICES_VSOCK_STATE_H
#define DEVICES_VSOCK_STATE_H

#include "devices/byte_ring.h"
#include "devices/unix_socket.h"
#include "devices/vsock/vsock.h"
#include "devices/watch.h"

#include <linux/virtio_vsock.h>

#define VSOCK_RX 0
#define VSOCK_TX 1
#define VSOCK_EVENT 2
#define VSOCK_HOST_CID 2
#define VSOCK_HEADER_BYTES 44
#define VSOCK_PIECE_BYTES (64u << 10) /* of one packet to the guest, at most */
#define VSOCK_MAX_RESETS 64
#define VSOCK_HELLO_BYTES 32 /* "CONNECT 4294967295\n" and some */
/* How long nothing may move where the program has hung up. Then a guest that was told so hears the end; one that was
 * not, for want of room or buffers, is asked for its credit, and has the time once more. As Linux waits for the answer
 * to a shutdown (VSOCK_CLOSE_TIMEOUT in net/vmw_vsock/virtio_transport_common.c). */
#define VSOCK_LINGER_MS 8000
#define VSOCK_SHUT_BOTH (VIRTIO_VSOCK_SHUTDOWN_RCV | VIRTIO_VSOCK_SHUTDOWN_SEND)

_Static_assert(sizeof(struct virtio_vsock_hdr) == VSOCK_HEADER_BYTES, "header as in the specification");

enum conn_state { CONN_FREE, CONN_HELLO, CONN_ASKED, CONN_OPEN, CONN_FLUSHING, CONN_DEAD, CONN_GONE };

/* Packets that the guest must still get, in the order in which they are sent; SHUTDOWN after all data. */
enum { SAY_REQUEST = 1, SAY_RESPONSE = 2, SAY_RESET = 4, SAY_CREDIT = 8, SAY_ASK = 16, SAY_SHUTDOWN = 32 };

struct vsock_conn {
    struct vsock *vsock;
    enum conn_state state;
    uint8_t say;
    uint32_t guest_port, host_port;
    struct watch peer; /* the program of the host */
    bool readable;     /* the program may have sent something; not waited for then */
    bool hung_up;      /* it has closed its end, both ways; what it sent may still be there */
    bool refuses;      /* it takes no more now: a write said so */
    /* To the guest. sent - passed = what the guest buffers <= room, all modulo 2^32 and as the guest says. */
    uint32_t sent_bytes, guest_room_bytes, guest_passed_bytes;
    uint32_t host_shut, guest_shut; /* VIRTIO_VSOCK_SHUTDOWN_*: what this side said or will say; what the guest said */
    /* Since hung_up: when something was last sent, or credit changed, or the guest was asked for it. CLOCK_MONOTONIC */
    uint64_t moved_ns;
    bool asked;
    /* From the guest. passed + in.nr = what the guest has sent. */
    uint32_t passed_bytes, told_passed_bytes;
    struct byte_ring from_guest;
    unsigned nr_hello;
    char hello[VSOCK_HELLO_BYTES];
};

/* A reset for a packet that belongs to no connection. */
struct vsock_reset {
    uint64_t cid; /* whom the guest spoke to */
    uint32_t guest_port, host_port;
    uint16_t type;
};

/* All guarded by device.lock, but for what vsock_create sets. */
struct vsock {
    struct virtio_device device;
    uint64_t guest_cid;
    char path[UNIX_PATH_BYTES];
    struct watch wake, listener;
    struct watch late; /* timerfd: connections linger */
    bool late_armed;
    unsigned linger_ms; /* VSOCK_LINGER_MS */
    bool accept_failed; /* out of descriptors: not tried again before one is free */
    uint32_t next_host_port;
    unsigned next_conn; /* whose turn it is */
    struct vsock_stat stat;
    unsigned first_reset, nr_resets;
    struct vsock_reset reset[VSOCK_MAX_RESETS];
    bool has_rx; /* rx was taken for data that was not there */
    struct virtq_chain rx;
    uint8_t piece[VSOCK_PIECE_BYTES];
    struct vsock_conn conn[VSOCK_MAX_CONNECTIONS];
    uint8_t *buffers; /* of all connections: VSOCK_BUFFER_BYTES each */
};

/* All of these: lock held, device thread. */

/* connection.c. NULL: the table is full. */
struct vsock_conn *vsock_new(struct vsock *vsock, enum conn_state state, int fd);
struct vsock_conn *vsock_find(struct vsock *vsock, uint32_t guest_port, uint32_t host_port);
/* Closed and FREE; the guest hears nothing. */
void vsock_free(struct vsock_conn *conn);
/* Closed; the guest hears of it if it knows the connection. */
void vsock_kill(struct vsock_conn *conn);
/* The ring to the program, as far as it takes it; ends the connection where all is said and done. */
void vsock_flush(struct vsock_conn *conn);
/* The program has closed its end. What it sent before still reaches the guest. */
void vsock_hang_up(struct vsock_conn *conn);
/*
 * What the guest may still send, in bytes: out of what it was told, which is never more than there is room for, and may
 * be less.
 */
uint32_t vsock_granted(const struct vsock_conn *conn);
/* Something has moved: where the program has hung up, the guest has linger_ms from now. */
void vsock_linger(struct vsock_conn *conn);
/* Ends connections that have waited so long, or asks for credit first, and waits for the others. */
void vsock_end_late(struct vsock *vsock);
/* What the guest would still take, in bytes. */
uint32_t vsock_credit(const struct vsock_conn *conn);
/* Is there something to read for the guest, and room for it there? */
bool vsock_may_read(const struct vsock_conn *conn);
/* The program's line, as far as it is there. */
void vsock_hear_hello(struct vsock_conn *conn);
/* The guest accepted: the program hears it. */
void vsock_say_ok(struct vsock_conn *conn);

/* request.c, reply.c. Each does a bounded piece and wakes the device when something is left. */
void vsock_hear(struct vsock *vsock);
void vsock_speak(struct vsock *vsock);

/* device.c: of a connection's descriptor. */
void vsock_peer_ready(void *ctx, uint32_t events);
/* The next chain of queue @index; none: the driver is asked to kick. */
bool vsock_next_chain(struct vsock *vsock, unsigned index, struct virtq_chain *chain);

#endif
