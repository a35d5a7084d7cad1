/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-console, virtio 1.2 section 5.3: a console (port 0), and up to three named ports, each a channel between a
 * program of the guest (/dev/virtio-ports/NAME) and one of the host (a Unix socket).
 *
 *   guest -> transmit queue -> on_bytes, on_line | socket     the socket is full: the queue waits
 *   guest <- receive queue  <- ring of 4 KiB <- console_input, descriptor, socket     the ring is full: they wait
 *
 * A port's socket takes one connection at a time; the next one waits until that has ended and the guest was told. What
 * the host sends waits until the guest has opened the port. What the guest sends while nobody is connected is
 * discarded, and counted.
 *
 * What a hostile driver can do: send rubbish to on_bytes and to the socket's other end, as any guest can; break its own
 * queues; open and close ports at will. It cannot make anything here grow: control messages for it are bits, not a list.
 */
#ifndef DEVICES_CONSOLE_CONSOLE_H
#define DEVICES_CONSOLE_CONSOLE_H

#include "devices/virtio/device.h"

#define CONSOLE_MAX_PORTS 4 /* with port 0: two queues each and two for control, of VIRTIO_MAX_QUEUES */
#define CONSOLE_NAME_BYTES 64
#define CONSOLE_INPUT_BYTES 4096

struct console;

struct console_port_config {
    const char *name; /* 1..CONSOLE_NAME_BYTES - 1 of a-z A-Z 0-9 . _ - ; no two alike */
    const char *path; /* of the socket */
};

struct console_config {
    /* Output of port 0; each may be NULL. In the device thread, or for an emergency write in a vCPU thread, with the
     * device's lock held: must not call back. Lines as in line.h. */
    void (*on_line)(void *ctx, const char *line);
    void (*on_bytes)(void *ctx, const void *bytes, size_t nr);
    /* Port 0 has room again, after console_input took less than it was given. As above. */
    void (*on_room)(void *ctx);
    void *ctx;
    int input_fd;      /* of port 0: read when there is something and room, and by nobody else; stays open. -1: none */
    unsigned nr_ports; /* named ones: 0..CONSOLE_MAX_PORTS - 1; they become ports 1, 2, 3 */
    const struct console_port_config *ports;
};

struct console_stat {
    uint64_t out_bytes, in_bytes; /* from the guest, to the guest; all ports */
    uint64_t discarded_bytes;     /* nobody was connected */
    uint64_t nr_connections;      /* of host programs */
    uint64_t nr_malformed;        /* messages and buffers of the driver that made no sense */
};

/*
 * console_create - @config is copied. @env->loop need not run yet. 0, or -errno with one line in @why and nothing left:
 * -EINVAL, -ENOMEM, those of sockets.
 */
must_check int console_create(const struct console_config *config, const struct device_env *env, struct console **out,
                              char *why, size_t why_bytes);
/* The loop does not run any more, no transport is attached. Hands over an unended line. */
void console_destroy(struct console *console);
struct virtio_device *console_device(struct console *console);
/* Bytes for the guest on port 0. Any thread. How many were taken: 0..@nr; fewer: on_room says when more can be. */
must_check size_t console_input(struct console *console, const void *bytes, size_t nr);
/* Any thread. */
void console_stats(struct console *console, struct console_stat *out);

#endif
