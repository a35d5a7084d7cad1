/* SPDX-License-Identifier: Apache-2.0 */
#include "devices/vsock/state.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

/* What one turn does, so that a busy guest does not keep the loop: chosen, unmeasured. */
#define TURN_CHAINS 128

struct packet {
    struct virtio_vsock_hdr header; /* copied once */
    const struct virtq_chain *chain;
};

/* Answers a packet that belongs nowhere. There is room: vsock_hear has looked. Never a reset for a reset. */
static void refuse(struct vsock *vsock, const struct virtio_vsock_hdr *header)
{
    if (header->op == VIRTIO_VSOCK_OP_RST)
        return;
    unsigned at = (vsock->first_reset + vsock->nr_resets++) % VSOCK_MAX_RESETS;
    vsock->reset[at] = (struct vsock_reset){
        .cid = header->dst_cid, .guest_port = header->src_port, .host_port = header->dst_port, .type = header->type};
}

/* The connection of the host's program that listens at PATH_<port>, or -errno. */
static int dial(const struct vsock *vsock, uint32_t port)
{
    char path[UNIX_PATH_BYTES + 16];

    snprintf(path, sizeof(path), "%s_%u", vsock->path, port);
    return unix_connect(path); /* too long: it says so */
}

static void hear_credit(struct vsock_conn *conn, const struct virtio_vsock_hdr *header)
{
    if (conn->guest_room_bytes != header->buf_alloc || conn->guest_passed_bytes != header->fwd_cnt)
        vsock_linger(conn);
    conn->guest_room_bytes = header->buf_alloc;
    conn->guest_passed_bytes = header->fwd_cnt;
}

/* The guest asks for a connection that is not there. */
static void hear_request(struct vsock *vsock, const struct virtio_vsock_hdr *header)
{
    int fd = dial(vsock, header->dst_port);
    struct vsock_conn *conn = fd >= 0 ? vsock_new(vsock, CONN_OPEN, fd) : NULL;

    if (!conn) {
        struct watch unused = {.fd = fd};

        watch_close(&unused);
        vsock->stat.nr_refused++;
        refuse(vsock, header);
        return;
    }
    conn->guest_port = header->src_port;
    conn->host_port = header->dst_port;
    conn->say = SAY_RESPONSE;
    hear_credit(conn, header);
    vsock->stat.nr_from_guest++;
}

/* False: more than there is credit for, or than the packet has. */
static bool hear_data(struct vsock_conn *conn, const struct packet *packet)
{
    struct vsock *vsock = conn->vsock;
    uint32_t left = packet->header.len;
    uint64_t offset = VSOCK_HEADER_BYTES;
    uint8_t *to;

    if (left > packet->chain->out_bytes - VSOCK_HEADER_BYTES || conn->guest_shut & VIRTIO_VSOCK_SHUTDOWN_SEND) {
        vsock->stat.nr_malformed++;
        return false;
    }
    if (left > vsock_granted(conn)) {
        vsock->stat.nr_credit_breaches++;
        return false;
    }
    while (left > 0) {
        uint32_t part = MIN_OF(left, byte_ring_space(&conn->from_guest, &to));

        (void)virtq_read(&vsock->device.queue[VSOCK_TX], packet->chain, offset, to, part);
        byte_ring_added(&conn->from_guest, part);
        offset += part;
        left -= part;
    }
    vsock_flush(conn);
    return true;
}

/* The guest wants no more of it. What it sent before it said so is still the host's. */
static void hear_reset(struct vsock_conn *conn)
{
    if (conn->state == CONN_ASKED)
        conn->vsock->stat.nr_refused++;
    if (conn->guest_shut & VIRTIO_VSOCK_SHUTDOWN_SEND && conn->from_guest.nr > 0) {
        conn->state = CONN_FLUSHING;
        conn->say = 0;
        conn->readable = false;
    } else {
        vsock_free(conn);
    }
}

static void hear_shutdown(struct vsock_conn *conn, uint32_t flags)
{
    conn->guest_shut |= flags & VSOCK_SHUT_BOTH;
    if (conn->guest_shut & VIRTIO_VSOCK_SHUTDOWN_RCV) {
        (void)shutdown(conn->peer.fd, SHUT_RD); /* the program's writes fail from now on */
        if (conn->hung_up)
            vsock_hang_up(conn);
    }
    vsock_flush(conn);
}

/* A packet of an open connection. False: it makes no sense there. */
static bool hear_open(struct vsock_conn *conn, const struct packet *packet)
{
    hear_credit(conn, &packet->header);
    switch (packet->header.op) {
    case VIRTIO_VSOCK_OP_RW:
        return hear_data(conn, packet);
    case VIRTIO_VSOCK_OP_CREDIT_UPDATE:
        return true;
    case VIRTIO_VSOCK_OP_CREDIT_REQUEST:
        conn->say |= SAY_CREDIT;
        return true;
    case VIRTIO_VSOCK_OP_SHUTDOWN:
        hear_shutdown(conn, packet->header.flags);
        return true;
    default:
        conn->vsock->stat.nr_malformed++;
        return false;
    }
}

static void hear_known(struct vsock_conn *conn, const struct packet *packet)
{
    const struct virtio_vsock_hdr *header = &packet->header;

    if (header->op == VIRTIO_VSOCK_OP_RST) {
        hear_reset(conn);
    } else if (conn->state == CONN_OPEN) {
        if (!hear_open(conn, packet))
            vsock_kill(conn);
    } else if (header->op == VIRTIO_VSOCK_OP_RESPONSE && !(conn->say & SAY_REQUEST)) {
        conn->state = CONN_OPEN;
        conn->vsock->stat.nr_from_host++;
        hear_credit(conn, header);
        vsock_say_ok(conn);
    } else {
        conn->vsock->stat.nr_malformed++;
        vsock_kill(conn);
    }
}

static void hear_packet(struct vsock *vsock, const struct virtq_chain *chain)
{
    struct packet packet = {.chain = chain};
    const struct virtio_vsock_hdr *header = &packet.header;

    /* Whose packet is it? Not even worth a reset where that cannot be said. */
    if (virtq_read(&vsock->device.queue[VSOCK_TX], chain, 0, &packet.header, VSOCK_HEADER_BYTES) < VSOCK_HEADER_BYTES ||
        header->src_cid != vsock->guest_cid) {
        vsock->stat.nr_malformed++;
        return;
    }
    if (header->dst_cid != VSOCK_HOST_CID || header->type != VIRTIO_VSOCK_TYPE_STREAM) {
        refuse(vsock, header);
        return;
    }
    struct vsock_conn *conn = vsock_find(vsock, header->src_port, header->dst_port);
    /* One that is dead takes no other's place before the guest has heard of its end, or the new one would end. */
    if (conn && conn->state != CONN_DEAD)
        hear_known(conn, &packet);
    else if (!conn && header->op == VIRTIO_VSOCK_OP_REQUEST)
        hear_request(vsock, header);
    else
        refuse(vsock, header);
}

void vsock_hear(struct vsock *vsock)
{
    struct virtq *q = &vsock->device.queue[VSOCK_TX];
    struct virtq_chain chain;
    unsigned nr = 0;

    while (nr < TURN_CHAINS && vsock->nr_resets < VSOCK_MAX_RESETS && vsock_next_chain(vsock, VSOCK_TX, &chain)) {
        hear_packet(vsock, &chain);
        virtq_push(q, &chain, 0);
        nr++;
    }
    if (nr > 0)
        virtio_announce(&vsock->device, VSOCK_TX);
    if (nr == TURN_CHAINS)
        wake_up(&vsock->wake);
}
