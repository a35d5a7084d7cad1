/* SPDX-License-Identifier: Apache-2.0 */
#include "devices/vsock/state.h"

#include <errno.h>
#include <string.h>

/* What one turn does, so that a busy host does not keep the loop: chosen, unmeasured. */
#define TURN_PACKETS 128

/* @header and @nr bytes of vsock->piece into the chain in hand, which goes back. */
static void emit(struct vsock *vsock, const struct virtio_vsock_hdr *header, uint32_t nr)
{
    struct virtq *q = &vsock->device.queue[VSOCK_RX];

    (void)virtq_write(q, &vsock->rx, 0, header, VSOCK_HEADER_BYTES);
    (void)virtq_write(q, &vsock->rx, VSOCK_HEADER_BYTES, vsock->piece, nr);
    virtq_push(q, &vsock->rx, VSOCK_HEADER_BYTES + nr);
    vsock->has_rx = false;
}

static void emit_reset(struct vsock *vsock)
{
    const struct vsock_reset *reset = &vsock->reset[vsock->first_reset];
    const struct virtio_vsock_hdr header = {.src_cid = reset->cid,
                                            .dst_cid = vsock->guest_cid,
                                            .src_port = reset->host_port,
                                            .dst_port = reset->guest_port,
                                            .type = reset->type,
                                            .op = VIRTIO_VSOCK_OP_RST};

    emit(vsock, &header, 0);
    vsock->stat.nr_resets++;
    vsock->first_reset = (vsock->first_reset + 1) % VSOCK_MAX_RESETS;
    vsock->nr_resets--;
}

/* Every packet says what the guest may send: there is no other need to tell it then. */
static void emit_of(struct vsock_conn *conn, uint16_t op, uint32_t flags, uint32_t nr)
{
    struct vsock *vsock = conn->vsock;
    const struct virtio_vsock_hdr header = {.src_cid = VSOCK_HOST_CID,
                                            .dst_cid = vsock->guest_cid,
                                            .src_port = conn->host_port,
                                            .dst_port = conn->guest_port,
                                            .len = nr,
                                            .type = VIRTIO_VSOCK_TYPE_STREAM,
                                            .op = op,
                                            .flags = flags,
                                            .buf_alloc = VSOCK_BUFFER_BYTES,
                                            .fwd_cnt = conn->passed_bytes};

    conn->told_passed_bytes = conn->passed_bytes;
    conn->say &= (uint8_t)~SAY_CREDIT;
    emit(vsock, &header, nr);
}

static bool has_data(const struct vsock_conn *conn)
{
    return conn->readable && vsock_may_read(conn);
}

/* The program has sent all that it will: the guest hears it, behind the data. */
static void end_of_input(struct vsock_conn *conn)
{
    conn->readable = false;
    conn->host_shut |= VIRTIO_VSOCK_SHUTDOWN_SEND;
    if (conn->hung_up)
        conn->host_shut |= VIRTIO_VSOCK_SHUTDOWN_RCV;
    conn->say |= SAY_SHUTDOWN;
}

/* Data, when there is some. The chain in hand stays when there is none. */
static void emit_data(struct vsock_conn *conn)
{
    struct vsock *vsock = conn->vsock;
    uint64_t room = MIN_OF(vsock->rx.in_bytes - VSOCK_HEADER_BYTES, sizeof(vsock->piece));
    ptrdiff_t got = unix_recv(conn->peer.fd, vsock->piece, (size_t)MIN_OF(room, vsock_credit(conn)));

    if (got > 0) {
        conn->sent_bytes += (uint32_t)got;
        vsock->stat.in_bytes += (uint64_t)got;
        vsock_linger(conn);
        emit_of(conn, VIRTIO_VSOCK_OP_RW, 0, (uint32_t)got);
    } else if (got == -EAGAIN) {
        conn->readable = false;
    } else if (got == 0) {
        end_of_input(conn);
    } else {
        vsock_kill(conn); /* reset by the other end */
    }
}

static void emit_message(struct vsock_conn *conn)
{
    if (conn->say & SAY_REQUEST) {
        conn->say &= (uint8_t)~SAY_REQUEST;
        emit_of(conn, VIRTIO_VSOCK_OP_REQUEST, 0, 0);
    } else if (conn->say & SAY_RESPONSE) {
        conn->say &= (uint8_t)~SAY_RESPONSE;
        emit_of(conn, VIRTIO_VSOCK_OP_RESPONSE, 0, 0);
    } else if (conn->say & SAY_RESET) {
        emit_of(conn, VIRTIO_VSOCK_OP_RST, 0, 0);
        conn->vsock->stat.nr_resets++;
        vsock_free(conn);
    } else if (conn->say & SAY_CREDIT) {
        emit_of(conn, VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0, 0);
    } else if (conn->say & SAY_ASK) {
        conn->say &= (uint8_t)~SAY_ASK;
        emit_of(conn, VIRTIO_VSOCK_OP_CREDIT_REQUEST, 0, 0);
    } else {
        conn->say &= (uint8_t)~SAY_SHUTDOWN;
        emit_of(conn, VIRTIO_VSOCK_OP_SHUTDOWN, conn->host_shut, 0);
        vsock_linger(conn);
    }
}

/* Connections take turns, a packet each. NULL: nothing to say. */
static struct vsock_conn *next_speaker(struct vsock *vsock)
{
    for (unsigned i = 0; i < VSOCK_MAX_CONNECTIONS; i++) {
        unsigned at = (vsock->next_conn + i) % VSOCK_MAX_CONNECTIONS;
        struct vsock_conn *conn = &vsock->conn[at];

        if (conn->state == CONN_GONE || (conn->say == 0 && !has_data(conn)))
            continue;
        vsock->next_conn = (at + 1) % VSOCK_MAX_CONNECTIONS;
        return conn;
    }
    return NULL;
}

/* A chain for a packet: a header at least, and a byte of data. False: the guest has none. */
static bool take_room(struct vsock *vsock, unsigned *nr)
{
    while (!vsock->has_rx) {
        if (*nr == TURN_PACKETS || !vsock_next_chain(vsock, VSOCK_RX, &vsock->rx))
            return false;
        vsock->has_rx = vsock->rx.in_bytes > VSOCK_HEADER_BYTES;
        if (!vsock->has_rx) {
            vsock->stat.nr_malformed++;
            virtq_push(&vsock->device.queue[VSOCK_RX], &vsock->rx, 0);
            ++*nr;
        }
    }
    return true;
}

void vsock_speak(struct vsock *vsock)
{
    unsigned nr = 0;

    for (; nr < TURN_PACKETS; nr++) {
        struct vsock_conn *conn = vsock->nr_resets == 0 ? next_speaker(vsock) : NULL;

        if (vsock->nr_resets == 0 && !conn)
            break;
        if (!virtio_is_live(&vsock->device) || !take_room(vsock, &nr))
            break;
        if (!conn)
            emit_reset(vsock);
        else if (conn->say & ~(unsigned)SAY_SHUTDOWN || !has_data(conn))
            emit_message(conn);
        else
            emit_data(conn);
    }
    virtio_announce(&vsock->device, VSOCK_RX);
    if (nr >= TURN_PACKETS)
        wake_up(&vsock->wake);
}
