/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Everything that happens ends in serve(), which moves what can be moved and says what the device waits for next. It
 * runs in the device thread; other threads wake it.
 */
#include "devices/console/state.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define QUEUE_SIZE 64

static struct console *console_of(struct virtio_device *device)
{
    return container_of(device, struct console, device);
}

/* --- the host's side ------------------------------------------------------------------------------- */

void console_hang_up(struct console_port *port)
{
    if (port->id == 0)
        watch_stop(&port->peer); /* the owner's descriptor */
    else
        watch_close(&port->peer);
    port->peer.fd = -1;
    port->always_readable = false;
    if (port->id == 0)
        return;
    port->host_open = false;
    port->console->accept_failed = false;
    if (port->ready)
        port->say |= SAY_OPEN;
}

static void connect_peer(struct console_port *port)
{
    int fd = unix_accept(port->listener.fd);

    if (fd < 0) {
        port->console->accept_failed = fd != -EAGAIN && fd != -ECONNABORTED;
        return;
    }
    port->peer.fd = fd;
    port->host_open = true;
    port->console->stat.nr_connections++;
    if (port->ready)
        port->say |= SAY_OPEN;
}

/* Takes what fits into the ring. */
static void read_peer(struct console_port *port)
{
    uint8_t *at;
    uint32_t room = byte_ring_space(&port->in, &at);

    if (room == 0 || port->peer.fd < 0)
        return;
    ptrdiff_t nr = port->id == 0 ? read(port->peer.fd, at, room) : unix_recv(port->peer.fd, at, room);
    int err = port->id == 0 ? errno : (int)-nr;
    if (nr > 0)
        byte_ring_added(&port->in, (uint32_t)nr);
    else if (nr == 0 || (err != EAGAIN && err != EINTR))
        console_hang_up(port);
}

/* Nobody new before the guest has heard that the last one is gone, and has its bytes. */
static bool may_accept(const struct console_port *port)
{
    return port->listener.fd >= 0 && port->peer.fd < 0 && !port->console->accept_failed && !(port->say & SAY_OPEN) &&
           (port->in.nr == 0 || !port->guest_open);
}

static bool may_read(const struct console_port *port)
{
    return port->peer.fd >= 0 && byte_ring_room(&port->in) > 0 && (port->id == 0 || port->guest_open);
}

static void watch_port(struct console_port *port)
{
    uint32_t wanted = 0;

    if (may_read(port) && !port->always_readable)
        wanted |= EPOLLIN;
    if (port->peer.fd >= 0 && port->id > 0 && port->has_tx)
        wanted |= EPOLLOUT;
    int err = port->peer.fd >= 0 ? watch_set(&port->peer, wanted) : 0;
    if (err == -EPERM)
        port->always_readable = true; /* a file */
    else if (err)
        console_hang_up(port); /* out of memory for it */
    if (port->listener.fd >= 0 && watch_set(&port->listener, may_accept(port) ? EPOLLIN : 0))
        wake_up(&port->console->wake); /* again */
}

/* --- serving --------------------------------------------------------------------------------------- */

static void settle(struct console_port *port)
{
    if (!port->drop_peer)
        return;
    port->drop_peer = false;
    if (port->id > 0 && port->peer.fd >= 0)
        console_hang_up(port);
}

static void tell_room(struct console *console)
{
    if (!console->host_waits || console->port[0].in.nr > 0)
        return;
    console->host_waits = false;
    if (console->on_room)
        console->on_room(console->ctx);
}

static void serve(struct console *console)
{
    for (unsigned i = 0; i < console->nr_ports; i++)
        settle(&console->port[i]);
    if (console_is_multiport(console))
        console_hear_control(console);
    for (unsigned i = 0; i < console->nr_ports; i++) {
        struct console_port *port = &console->port[i];

        if (port->always_readable)
            read_peer(port);
        console_take_output(port);
        console_give_input(port);
        if (port->always_readable && port->in.nr == 0)
            wake_up(&console->wake); /* the guest took all: there may be more */
    }
    if (console_is_multiport(console))
        console_say_control(console);
    for (unsigned i = 0; i < console->nr_ports; i++)
        watch_port(&console->port[i]);
    tell_room(console);
}

static void on_wake(void *ctx, uint32_t events)
{
    struct console *console = ctx;

    (void)events;
    pthread_mutex_lock(&console->device.lock);
    wake_clear(&console->wake);
    serve(console);
    pthread_mutex_unlock(&console->device.lock);
}

static void on_listener(void *ctx, uint32_t events)
{
    struct console_port *port = ctx;

    (void)events;
    pthread_mutex_lock(&port->console->device.lock);
    if (may_accept(port))
        connect_peer(port);
    serve(port->console);
    pthread_mutex_unlock(&port->console->device.lock);
}

static void on_peer(void *ctx, uint32_t events)
{
    struct console_port *port = ctx;

    pthread_mutex_lock(&port->console->device.lock);
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR) && may_read(port))
        read_peer(port);
    serve(port->console);
    pthread_mutex_unlock(&port->console->device.lock);
}

/* --- the device's ops ------------------------------------------------------------------------------ */

static void activate(struct virtio_device *device)
{
    wake_up(&console_of(device)->wake);
}

static void reset(struct virtio_device *device)
{
    struct console *console = console_of(device);

    for (unsigned i = 0; i < console->nr_ports; i++) {
        struct console_port *port = &console->port[i];

        /* A program that the guest never spoke with may be waiting for this very driver. */
        if (port->ready)
            port->drop_peer = true;
        port->added = port->ready = port->guest_open = port->has_tx = false;
        port->say = 0;
        if (port->id > 0)
            byte_ring_clear(&port->in);
    }
    wake_up(&console->wake);
}

static void notify(struct virtio_device *device, unsigned index)
{
    (void)index;
    console_of(device)->accept_failed = false;
    serve(console_of(device));
}

static void config_read(struct virtio_device *device, unsigned offset, void *to, unsigned bytes)
{
    struct virtio_console_config config = {.max_nr_ports = console_of(device)->nr_ports};

    memcpy(to, (const char *)&config + offset, bytes);
}

/* The emergency write: a byte for the console without a queue, at any time (5.3.5): also before a driver is there. */
static void config_write(struct virtio_device *device, unsigned offset, const void *from, unsigned bytes)
{
    const uint8_t *byte = from;

    if (offset == offsetof(struct virtio_console_config, emerg_wr) && bytes > 0)
        console_print(console_of(device), byte, 1);
}

static const struct virtio_ops ops = {.activate = activate,
                                      .reset = reset,
                                      .notify = notify,
                                      .config_read = config_read,
                                      .config_write = config_write,
                                      .writes_early = true};

/* --- making ---------------------------------------------------------------------------------------- */

static bool is_name_good(const char *name)
{
    size_t bytes = name ? strlen(name) : 0;

    return bytes > 0 && bytes < CONSOLE_NAME_BYTES &&
           strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == bytes;
}

static int check_config(const struct console_config *config, char *why, size_t why_bytes)
{
    if (config->nr_ports > CONSOLE_MAX_PORTS - 1) {
        snprintf(why, why_bytes, "a console has at most %d named ports, not %u", CONSOLE_MAX_PORTS - 1,
                 config->nr_ports);
        return -EINVAL;
    }
    for (unsigned i = 0; i < config->nr_ports; i++) {
        const char *name = config->ports[i].name;

        if (!is_name_good(name)) {
            snprintf(why, why_bytes, "console port \"%.80s\": a name has 1 to %d of a-z A-Z 0-9 . _ -",
                     name ? name : "", CONSOLE_NAME_BYTES - 1);
            return -EINVAL;
        }
        for (unsigned k = 0; k < i; k++)
            if (strcmp(config->ports[k].name, name) == 0) {
                snprintf(why, why_bytes, "two console ports are named %s", name);
                return -EINVAL;
            }
    }
    return 0;
}

static void init_port(struct console *console, unsigned id)
{
    struct loop *loop = console->device.env->loop;
    struct console_port *port = &console->port[id];

    port->console = console;
    port->id = id;
    port->listener = (struct watch){.loop = loop, .fd = -1, .ready = on_listener, .ctx = port};
    port->peer = (struct watch){.loop = loop, .fd = -1, .ready = on_peer, .ctx = port};
    port->in = (struct byte_ring){.bytes = port->in_bytes, .size = CONSOLE_INPUT_BYTES};
    port->host_open = id == 0;
}

static int listen_port(struct console_port *port, const struct console_port_config *config, char *why, size_t why_bytes)
{
    snprintf(port->name, sizeof(port->name), "%s", config->name);
    int fd = unix_listen(config->path, 1, why, why_bytes);
    if (fd < 0)
        return fd;
    snprintf(port->path, sizeof(port->path), "%s", config->path);
    port->listener.fd = fd;
    return 0;
}

static void describe(struct console *console, const struct device_env *env, unsigned nr_named)
{
    struct virtio_device *device = &console->device;

    device->ops = &ops;
    device->name = "console";
    device->env = env;
    device->id = VIRTIO_ID_CONSOLE;
    device->features = UINT64_C(1) << VIRTIO_CONSOLE_F_EMERG_WRITE;
    if (nr_named > 0)
        device->features |= UINT64_C(1) << VIRTIO_CONSOLE_F_MULTIPORT;
    device->nr_queues = nr_named > 0 ? 4 + 2 * nr_named : 2;
    device->queue_size = QUEUE_SIZE;
    device->config_bytes = sizeof(struct virtio_console_config);
    virtio_init(device);
}

int console_create(const struct console_config *config, const struct device_env *env, struct console **out, char *why,
                   size_t why_bytes)
{
    int err = check_config(config, why, why_bytes);

    if (err)
        return err;
    struct console *console = calloc(1, sizeof(*console));
    if (!console) {
        snprintf(why, why_bytes, "console: out of memory");
        return -ENOMEM;
    }
    describe(console, env, config->nr_ports);
    console->on_bytes = config->on_bytes;
    console->on_room = config->on_room;
    console->ctx = config->ctx;
    console->line.on_line = config->on_line;
    console->line.ctx = config->ctx;
    console->nr_ports = 1 + config->nr_ports;
    console->wake = (struct watch){.loop = env->loop, .fd = -1, .ready = on_wake, .ctx = console};
    for (unsigned i = 0; i < console->nr_ports; i++)
        init_port(console, i);
    console->port[0].peer.fd = config->input_fd;
    err = wake_init(&console->wake);
    if (err)
        snprintf(why, why_bytes, "console: %s", strerror(-err));
    for (unsigned i = 0; !err && i < config->nr_ports; i++)
        err = listen_port(&console->port[1 + i], &config->ports[i], why, why_bytes);
    if (err) {
        console_destroy(console);
        return err;
    }
    wake_up(&console->wake); /* begins to wait for connections and input */
    *out = console;
    return 0;
}

void console_destroy(struct console *console)
{
    line_end(&console->line);
    for (unsigned i = 0; i < console->nr_ports; i++) {
        struct console_port *port = &console->port[i];

        watch_stop(&port->listener);
        unix_unlisten(port->listener.fd, port->path);
        if (i == 0)
            watch_stop(&port->peer);
        else
            watch_close(&port->peer);
    }
    watch_close(&console->wake);
    virtio_fini(&console->device);
    free(console);
}

struct virtio_device *console_device(struct console *console)
{
    return &console->device;
}

size_t console_input(struct console *console, const void *bytes, size_t nr)
{
    struct byte_ring *in = &console->port[0].in;
    const uint8_t *from = bytes;
    size_t taken = 0;
    uint8_t *at;

    pthread_mutex_lock(&console->device.lock);
    while (taken < nr && byte_ring_room(in) > 0) {
        uint32_t part = (uint32_t)MIN_OF(byte_ring_space(in, &at), nr - taken);

        memcpy(at, from + taken, part);
        byte_ring_added(in, part);
        taken += part;
    }
    if (taken < nr)
        console->host_waits = true;
    pthread_mutex_unlock(&console->device.lock);
    if (taken > 0)
        wake_up(&console->wake);
    return taken;
}

void console_stats(struct console *console, struct console_stat *out)
{
    pthread_mutex_lock(&console->device.lock);
    *out = console->stat;
    pthread_mutex_unlock(&console->device.lock);
}
