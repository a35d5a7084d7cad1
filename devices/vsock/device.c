/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Everything that happens ends in serve(), which moves what can be moved and says what the device waits for next. It
 * runs in the device thread; other threads wake it.
 */
#include "devices/vsock/state.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define QUEUE_SIZE 128
#define BACKLOG 16

static struct vsock *vsock_of(struct virtio_device *device)
{
    return container_of(device, struct vsock, device);
}

bool vsock_next_chain(struct vsock *vsock, unsigned index, struct virtq_chain *chain)
{
    do {
        if (!virtio_is_live(&vsock->device))
            return false;
        if (virtio_pop(&vsock->device, index, chain) == 1)
            return true;
    } while (virtq_enable_kicks(&vsock->device.queue[index]));
    return false;
}

/* --- waiting --------------------------------------------------------------------------------------- */

static uint32_t wanted_of(const struct vsock_conn *conn)
{
    /* That it hangs up is always worth to know, and told once. */
    uint32_t wanted = conn->hung_up ? 0 : EPOLLHUP;

    if (conn->state == CONN_HELLO || (vsock_may_read(conn) && !conn->readable))
        wanted |= EPOLLIN;
    if (conn->refuses && !conn->hung_up)
        wanted |= EPOLLOUT;
    return wanted;
}

static void wait_more(struct vsock *vsock)
{
    bool has_room = vsock->stat.nr_open < VSOCK_MAX_CONNECTIONS && !vsock->accept_failed;

    for (unsigned i = 0; i < VSOCK_MAX_CONNECTIONS; i++) {
        struct vsock_conn *conn = &vsock->conn[i];

        if (conn->state != CONN_FREE && conn->peer.fd >= 0 && watch_set(&conn->peer, wanted_of(conn))) {
            vsock_kill(conn); /* no memory for it */
            wake_up(&vsock->wake);
        }
    }
    if (watch_set(&vsock->listener, virtio_is_live(&vsock->device) && has_room ? EPOLLIN : 0))
        wake_up(&vsock->wake); /* again */
}

/* What a reset left to this thread. */
static void settle(struct vsock *vsock)
{
    for (unsigned i = 0; i < VSOCK_MAX_CONNECTIONS; i++)
        if (vsock->conn[i].state == CONN_GONE)
            vsock_free(&vsock->conn[i]);
}

static void serve(struct vsock *vsock)
{
    settle(vsock);
    vsock_hear(vsock);
    bool was_full = vsock->nr_resets == VSOCK_MAX_RESETS;
    vsock_speak(vsock);
    if (was_full && vsock->nr_resets < VSOCK_MAX_RESETS)
        wake_up(&vsock->wake); /* to hear what waited */
    wait_more(vsock);
}

static void on_wake(void *ctx, uint32_t events)
{
    struct vsock *vsock = ctx;

    (void)events;
    pthread_mutex_lock(&vsock->device.lock);
    wake_clear(&vsock->wake);
    serve(vsock);
    pthread_mutex_unlock(&vsock->device.lock);
}

static void on_late(void *ctx, uint32_t events)
{
    struct vsock *vsock = ctx;
    uint64_t expired;

    (void)events;
    pthread_mutex_lock(&vsock->device.lock);
    if (read(vsock->late.fd, &expired, sizeof(expired)) == sizeof(expired)) {
        vsock_end_late(vsock);
        serve(vsock);
    }
    pthread_mutex_unlock(&vsock->device.lock);
}

static void on_listener(void *ctx, uint32_t events)
{
    struct vsock *vsock = ctx;

    (void)events;
    pthread_mutex_lock(&vsock->device.lock);
    settle(vsock);
    if (virtio_is_live(&vsock->device) && vsock->stat.nr_open < VSOCK_MAX_CONNECTIONS) {
        int fd = unix_accept(vsock->listener.fd);

        if (fd >= 0)
            (void)vsock_new(vsock, CONN_HELLO, fd); /* there is room */
        else
            vsock->accept_failed = fd != -EAGAIN && fd != -ECONNABORTED;
    }
    serve(vsock);
    pthread_mutex_unlock(&vsock->device.lock);
}

void vsock_peer_ready(void *ctx, uint32_t events)
{
    struct vsock_conn *conn = ctx;
    struct vsock *vsock = conn->vsock;

    pthread_mutex_lock(&vsock->device.lock);
    if (conn->state == CONN_HELLO)
        vsock_hear_hello(conn);
    if (conn->state == CONN_OPEN && events & EPOLLIN)
        conn->readable = true;
    if (events & (EPOLLHUP | EPOLLERR))
        vsock_hang_up(conn);
    if (conn->state == CONN_ASKED && conn->hung_up)
        vsock_kill(conn); /* it did not wait for the answer */
    if (conn->refuses)
        vsock_flush(conn);
    serve(vsock);
    pthread_mutex_unlock(&vsock->device.lock);
}

/* --- the device's ops ------------------------------------------------------------------------------ */

static void activate(struct virtio_device *device)
{
    wake_up(&vsock_of(device)->wake);
}

static void reset(struct virtio_device *device)
{
    struct vsock *vsock = vsock_of(device);

    for (unsigned i = 0; i < VSOCK_MAX_CONNECTIONS; i++) {
        struct vsock_conn *conn = &vsock->conn[i];

        if (conn->state == CONN_FREE)
            continue;
        conn->state = CONN_GONE;
        conn->say = 0;
        conn->readable = conn->refuses = false;
        byte_ring_clear(&conn->from_guest);
    }
    vsock->has_rx = false;
    vsock->nr_resets = 0;
    wake_up(&vsock->wake);
}

static void notify(struct virtio_device *device, unsigned index)
{
    struct vsock *vsock = vsock_of(device);

    /* Buffers for events stay with us: there is none to tell. */
    if (index == VSOCK_EVENT)
        return;
    vsock->accept_failed = false;
    serve(vsock);
}

static void config_read(struct virtio_device *device, unsigned offset, void *to, unsigned bytes)
{
    const struct virtio_vsock_config config = {.guest_cid = vsock_of(device)->guest_cid};

    memcpy(to, (const char *)&config + offset, bytes);
}

static const struct virtio_ops ops = {
    .activate = activate, .reset = reset, .notify = notify, .config_read = config_read};

/* --- making ---------------------------------------------------------------------------------------- */

static int check_config(const struct vsock_config *config, char *why, size_t why_bytes)
{
    if (config->guest_cid < VSOCK_MIN_CID || config->guest_cid >= UINT32_MAX) {
        snprintf(why, why_bytes, "vsock: a CID is %d to 4294967294, not %llu", VSOCK_MIN_CID,
                 (unsigned long long)config->guest_cid);
        return -EINVAL;
    }
    /* PATH_4294967295 must be a name for a socket, too. */
    if (strlen(config->path) + strlen("_4294967295") >= UNIX_PATH_BYTES) {
        snprintf(why, why_bytes, "vsock: path %.40s...: at most %zu characters", config->path,
                 UNIX_PATH_BYTES - 1 - strlen("_4294967295"));
        return -ENAMETOOLONG;
    }
    return 0;
}

static void describe(struct vsock *vsock, const struct device_env *env)
{
    struct virtio_device *device = &vsock->device;

    device->ops = &ops;
    device->name = "vsock";
    device->env = env;
    device->id = VIRTIO_ID_VSOCK;
    device->nr_queues = 3;
    device->queue_size = QUEUE_SIZE;
    device->config_bytes = sizeof(struct virtio_vsock_config);
    virtio_init(device);
}

static int open_late(struct vsock *vsock)
{
    vsock->late.fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    return vsock->late.fd < 0 ? -errno : watch_set(&vsock->late, EPOLLIN);
}

static int open_all(struct vsock *vsock, const struct vsock_config *config, char *why, size_t why_bytes)
{
    vsock->buffers = calloc(VSOCK_MAX_CONNECTIONS, VSOCK_BUFFER_BYTES);
    int err = vsock->buffers ? wake_init(&vsock->wake) : -ENOMEM;
    if (!err)
        err = open_late(vsock);
    if (err) {
        snprintf(why, why_bytes, "vsock: %s", strerror(-err));
        return err;
    }
    int fd = unix_listen(config->path, BACKLOG, why, why_bytes);
    if (fd < 0)
        return fd;
    vsock->listener.fd = fd;
    snprintf(vsock->path, sizeof(vsock->path), "%s", config->path);
    return 0;
}

int vsock_create(const struct vsock_config *config, const struct device_env *env, struct vsock **out, char *why,
                 size_t why_bytes)
{
    int err = check_config(config, why, why_bytes);

    if (err)
        return err;
    struct vsock *vsock = calloc(1, sizeof(*vsock));
    if (!vsock) {
        snprintf(why, why_bytes, "vsock: out of memory");
        return -ENOMEM;
    }
    describe(vsock, env);
    vsock->guest_cid = config->guest_cid;
    vsock->wake = (struct watch){.loop = env->loop, .fd = -1, .ready = on_wake, .ctx = vsock};
    vsock->listener = (struct watch){.loop = env->loop, .fd = -1, .ready = on_listener, .ctx = vsock};
    vsock->late = (struct watch){.loop = env->loop, .fd = -1, .ready = on_late, .ctx = vsock};
    vsock->linger_ms = VSOCK_LINGER_MS;
    err = open_all(vsock, config, why, why_bytes);
    if (err) {
        vsock_destroy(vsock);
        return err;
    }
    *out = vsock;
    return 0;
}

void vsock_destroy(struct vsock *vsock)
{
    for (unsigned i = 0; i < VSOCK_MAX_CONNECTIONS; i++)
        if (vsock->conn[i].state != CONN_FREE)
            vsock_free(&vsock->conn[i]);
    watch_stop(&vsock->listener);
    unix_unlisten(vsock->listener.fd, vsock->path);
    watch_close(&vsock->late);
    watch_close(&vsock->wake);
    virtio_fini(&vsock->device);
    free(vsock->buffers);
    free(vsock);
}

struct virtio_device *vsock_device(struct vsock *vsock)
{
    return &vsock->device;
}

void vsock_stats(struct vsock *vsock, struct vsock_stat *out)
{
    pthread_mutex_lock(&vsock->device.lock);
    *out = vsock->stat;
    pthread_mutex_unlock(&vsock->device.lock);
}

/* --- invariants ------------------------------------------------------------------------------------ */

static const char *breach_of(const struct vsock_conn *conn)
{
    if (conn->from_guest.nr > VSOCK_BUFFER_BYTES || conn->from_guest.first >= VSOCK_BUFFER_BYTES)
        return "a buffer is beyond its bounds";
    if (conn->state == CONN_OPEN && vsock_granted(conn) > byte_ring_room(&conn->from_guest))
        return "the guest has credit that is not there";
    if (conn->state == CONN_DEAD && (conn->peer.fd >= 0 || conn->say != SAY_RESET))
        return "a dead connection has more to say than its end";
    if (conn->state != CONN_DEAD && conn->state != CONN_GONE && conn->peer.fd < 0)
        return "a connection has no program";
    if (conn->state == CONN_OPEN && conn->hung_up != (conn->moved_ns > 0))
        return "the end of a connection is waited for that goes on, or not waited for";
    if (conn->state == CONN_FLUSHING && conn->from_guest.nr == 0)
        return "a connection flushes nothing";
    return NULL;
}

bool vsock_check(struct vsock *vsock, const char **why)
{
    const char *what = NULL;
    unsigned nr_open = 0;

    pthread_mutex_lock(&vsock->device.lock);
    for (unsigned i = 0; i < VSOCK_MAX_CONNECTIONS && !what; i++) {
        const struct vsock_conn *conn = &vsock->conn[i];

        if (conn->state == CONN_FREE)
            continue;
        nr_open++;
        what = breach_of(conn);
    }
    if (!what && nr_open != vsock->stat.nr_open)
        what = "connections are not counted right";
    if (!what && vsock->nr_resets > VSOCK_MAX_RESETS)
        what = "more resets than the list holds";
    pthread_mutex_unlock(&vsock->device.lock);
    if (what)
        *why = what;
    return !what;
}
