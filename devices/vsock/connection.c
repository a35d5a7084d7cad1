/* SPDX-License-Identifier: Apache-2.0 */
#include "devices/vsock/state.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>

/* Ports of the host's ends of connections that the host opens: where the guest's programs connect to is elsewhere. */
#define FIRST_HOST_PORT (1u << 30)
#define END_HOST_PORT (1u << 31)

struct vsock_conn *vsock_new(struct vsock *vsock, enum conn_state state, int fd)
{
    for (unsigned i = 0; i < VSOCK_MAX_CONNECTIONS; i++) {
        struct vsock_conn *conn = &vsock->conn[i];

        if (conn->state != CONN_FREE)
            continue;
        *conn = (struct vsock_conn){
            .vsock = vsock,
            .state = state,
            .peer = {.loop = vsock->device.env->loop, .fd = fd, .ready = vsock_peer_ready, .ctx = conn},
            .from_guest = {.bytes = vsock->buffers + (size_t)i * VSOCK_BUFFER_BYTES, .size = VSOCK_BUFFER_BYTES},
        };
        vsock->stat.nr_open++;
        return conn;
    }
    return NULL;
}

static bool is_known(const struct vsock_conn *conn)
{
    return conn->state == CONN_ASKED || conn->state == CONN_OPEN;
}

struct vsock_conn *vsock_find(struct vsock *vsock, uint32_t guest_port, uint32_t host_port)
{
    for (unsigned i = 0; i < VSOCK_MAX_CONNECTIONS; i++) {
        struct vsock_conn *conn = &vsock->conn[i];

        if ((is_known(conn) || conn->state == CONN_DEAD) && conn->guest_port == guest_port &&
            conn->host_port == host_port)
            return conn;
    }
    return NULL;
}

void vsock_free(struct vsock_conn *conn)
{
    watch_close(&conn->peer);
    conn->state = CONN_FREE;
    conn->say = 0;
    conn->readable = false;
    conn->vsock->stat.nr_open--;
    conn->vsock->accept_failed = false;
}

void vsock_kill(struct vsock_conn *conn)
{
    /* Before it was asked the guest knows nothing. */
    if (!is_known(conn) || conn->say & SAY_REQUEST) {
        vsock_free(conn);
        return;
    }
    watch_close(&conn->peer);
    byte_ring_clear(&conn->from_guest);
    conn->readable = false;
    conn->state = CONN_DEAD;
    conn->say = SAY_RESET;
}

uint32_t vsock_granted(const struct vsock_conn *conn)
{
    return VSOCK_BUFFER_BYTES - (conn->passed_bytes - conn->told_passed_bytes + conn->from_guest.nr);
}

uint32_t vsock_credit(const struct vsock_conn *conn)
{
    uint32_t buffered = conn->sent_bytes - conn->guest_passed_bytes;

    return buffered < conn->guest_room_bytes ? conn->guest_room_bytes - buffered : 0;
}

bool vsock_may_read(const struct vsock_conn *conn)
{
    return conn->state == CONN_OPEN && conn->peer.fd >= 0 && !(conn->say & SAY_RESPONSE) &&
           !(conn->host_shut & VIRTIO_VSOCK_SHUTDOWN_SEND) && !(conn->guest_shut & VIRTIO_VSOCK_SHUTDOWN_RCV) &&
           vsock_credit(conn) > 0;
}

/* --- to the program -------------------------------------------------------------------------------- */

void vsock_hang_up(struct vsock_conn *conn)
{
    conn->hung_up = true;
    if (conn->state != CONN_OPEN || conn->host_shut == VSOCK_SHUT_BOTH)
        return;
    if (conn->moved_ns == 0)
        vsock_linger(conn);
    if (conn->host_shut & VIRTIO_VSOCK_SHUTDOWN_SEND || conn->guest_shut & VIRTIO_VSOCK_SHUTDOWN_RCV) {
        conn->host_shut = VSOCK_SHUT_BOTH;
        conn->say |= SAY_SHUTDOWN;
        conn->readable = false;
    } else {
        conn->readable = true; /* what it sent before, and the end of it */
    }
}

static void passed(struct vsock_conn *conn, uint32_t nr)
{
    byte_ring_taken(&conn->from_guest, nr);
    conn->passed_bytes += nr;
    conn->vsock->stat.out_bytes += nr;
}

/* Sends until all is sent or the program takes no more. */
static void send_all(struct vsock_conn *conn)
{
    uint8_t *from;
    uint32_t nr;

    conn->refuses = false;
    while ((nr = byte_ring_data(&conn->from_guest, &from)) > 0) {
        ptrdiff_t sent = conn->hung_up ? -EPIPE : unix_send(conn->peer.fd, from, nr);

        if (sent == -EAGAIN) {
            conn->refuses = true;
            return;
        }
        if (sent < 0) {
            /* Nobody reads any more. It counts as passed on, so that what the program has sent still reaches the
             * guest, and then the end. */
            vsock_hang_up(conn);
            sent = (ptrdiff_t)nr;
        }
        passed(conn, (uint32_t)sent);
    }
}

void vsock_flush(struct vsock_conn *conn)
{
    if (conn->state != CONN_OPEN && conn->state != CONN_FLUSHING)
        return;
    send_all(conn);
    bool empty = conn->from_guest.nr == 0;
    if (empty && conn->state == CONN_FLUSHING) {
        vsock_free(conn);
        return;
    }
    if (empty && conn->guest_shut == VSOCK_SHUT_BOTH) {
        vsock_kill(conn); /* a shutdown of both ways is answered with a reset */
        return;
    }
    if (empty && conn->guest_shut & VIRTIO_VSOCK_SHUTDOWN_SEND)
        (void)shutdown(conn->peer.fd, SHUT_WR); /* gone already: fine */
    /* In time: half of the buffer is what the guest may still send. */
    if (conn->state == CONN_OPEN && conn->passed_bytes - conn->told_passed_bytes >= VSOCK_BUFFER_BYTES / 2)
        conn->say |= SAY_CREDIT;
}

/* --- the end that does not come --------------------------------------------------------------------- */

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static void arm_late(struct vsock *vsock, uint64_t after_ns)
{
    const struct itimerspec timer = {.it_value = {.tv_sec = (time_t)(after_ns / UINT64_C(1000000000)),
                                                  .tv_nsec = (long)(after_ns % UINT64_C(1000000000))}};

    /* Cannot fail: a timerfd, and nanoseconds below a second. */
    vsock->late_armed = timerfd_settime(vsock->late.fd, 0, &timer, NULL) == 0;
}

void vsock_linger(struct vsock_conn *conn)
{
    struct vsock *vsock = conn->vsock;

    if (!conn->hung_up)
        return;
    conn->moved_ns = now_ns();
    conn->asked = false;
    if (!vsock->late_armed) /* if it is, it fires early and is set again */
        arm_late(vsock, vsock->linger_ms * UINT64_C(1000000));
}

/* A guest need not say that it has read a little: Linux with 256 KiB of room says so after 192 KiB, or when asked. */
static void end_or_ask(struct vsock_conn *conn, uint64_t now)
{
    if (conn->asked || conn->host_shut == VSOCK_SHUT_BOTH) {
        vsock_kill(conn);
        return;
    }
    conn->asked = true;
    conn->say |= SAY_ASK;
    conn->moved_ns = now;
}

void vsock_end_late(struct vsock *vsock)
{
    uint64_t now = now_ns(), linger_ns = vsock->linger_ms * UINT64_C(1000000), next_ns = UINT64_MAX;

    for (unsigned i = 0; i < VSOCK_MAX_CONNECTIONS; i++) {
        struct vsock_conn *conn = &vsock->conn[i];

        if (conn->state != CONN_OPEN || !conn->hung_up)
            continue;
        if (now - conn->moved_ns >= linger_ns)
            end_or_ask(conn, now);
        if (conn->state == CONN_OPEN)
            next_ns = MIN_OF(next_ns, linger_ns - (now - conn->moved_ns));
    }
    vsock->late_armed = false;
    if (next_ns != UINT64_MAX)
        arm_late(vsock, next_ns);
}

/* --- the line "CONNECT <port>\n" --------------------------------------------------------------------- */

/* A port number out of a whole line without its end. */
static bool parse_hello(const char *line, uint32_t *port)
{
    static const char word[] = "CONNECT ";
    uint64_t value = 0;

    if (strncmp(line, word, strlen(word)) != 0)
        return false;
    line += strlen(word);
    if (*line == 0)
        return false;
    for (; *line; line++) {
        if (*line < '0' || *line > '9')
            return false;
        value = value * 10 + (uint64_t)(*line - '0');
        if (value > UINT32_MAX)
            return false;
    }
    *port = (uint32_t)value;
    return true;
}

/* One that no connection of the table has, whoever opened it. */
static uint32_t choose_host_port(struct vsock *vsock)
{
    for (;;) {
        uint32_t port = vsock->next_host_port++;
        bool used = false;

        if (port < FIRST_HOST_PORT || port >= END_HOST_PORT) {
            vsock->next_host_port = FIRST_HOST_PORT;
            continue;
        }
        for (unsigned i = 0; i < VSOCK_MAX_CONNECTIONS; i++)
            used |= vsock->conn[i].state != CONN_FREE && vsock->conn[i].host_port == port;
        if (!used)
            return port;
    }
}

/* Byte by byte: what stands behind the line belongs to the guest. */
void vsock_hear_hello(struct vsock_conn *conn)
{
    for (;;) {
        char byte;
        ptrdiff_t got = unix_recv(conn->peer.fd, &byte, 1);

        if (got == -EAGAIN)
            return;
        if (got != 1 || conn->nr_hello == VSOCK_HELLO_BYTES - 1)
            break;
        if (byte == '\n') {
            conn->hello[conn->nr_hello] = 0;
            if (!parse_hello(conn->hello, &conn->guest_port))
                break;
            conn->host_port = choose_host_port(conn->vsock);
            conn->state = CONN_ASKED;
            conn->say = SAY_REQUEST;
            return;
        }
        conn->hello[conn->nr_hello++] = byte ? byte : '?';
    }
    vsock_free(conn);
}

void vsock_say_ok(struct vsock_conn *conn)
{
    char line[24];
    int nr = snprintf(line, sizeof(line), "OK %" PRIu32 "\n", conn->host_port);

    /* The first bytes that this socket carries: there is room, or nobody is there. */
    if (unix_send(conn->peer.fd, line, (size_t)nr) != nr)
        vsock_kill(conn);
}
