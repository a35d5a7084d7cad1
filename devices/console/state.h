/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What device.c and request.c share.
 *
 *   queue 0, 1: port 0    2, 3: control    4, 5: port 1    6, 7: port 2 ...    even: to the guest, odd: from it
 */
#ifndef DEVICES_CONSOLE_STATE_H
#define DEVICES_CONSOLE_STATE_H

#include "devices/byte_ring.h"
#include "devices/console/console.h"
#include "devices/line.h"
#include "devices/unix_socket.h"
#include "devices/watch.h"

#include <linux/virtio_console.h>

#define CONSOLE_CONTROL_RX 2
#define CONSOLE_CONTROL_TX 3

/* Control messages that the guest must still get, in the order in which they are sent. */
enum { SAY_ADD = 1, SAY_CONSOLE = 2, SAY_NAME = 4, SAY_OPEN = 8 };

struct console_port {
    struct console *console;
    unsigned id;
    char name[CONSOLE_NAME_BYTES];
    char path[UNIX_PATH_BYTES];
    /* The host's side: who listens, and who is connected or, port 0, where input comes from. */
    struct watch listener, peer;
    bool always_readable; /* peer is a file: epoll takes none */
    bool drop_peer;       /* reset: the device thread closes it */
    /* The guest's side. */
    uint8_t say;     /* SAY_* */
    bool added;      /* SAY_ADD was said since the last reset */
    bool ready;      /* the driver knows the port */
    bool guest_open; /* a program of the guest has it open */
    bool host_open;  /* what SAY_OPEN says */
    struct byte_ring in;
    uint8_t in_bytes[CONSOLE_INPUT_BYTES];
    bool has_tx; /* tx was taken, and sent up to tx_offset */
    uint64_t tx_offset;
    struct virtq_chain tx;
};

/* All guarded by device.lock, but for what console_create sets. */
struct console {
    struct virtio_device device;
    struct watch wake;
    void (*on_bytes)(void *ctx, const void *bytes, size_t nr);
    void (*on_room)(void *ctx);
    void *ctx;
    bool host_waits;    /* for on_room */
    bool accept_failed; /* out of descriptors: not tried again before a kick, or before one is free */
    struct line line;
    struct console_stat stat;
    unsigned nr_ports; /* with port 0 */
    struct console_port port[CONSOLE_MAX_PORTS];
};

static inline unsigned console_rx_queue(const struct console_port *port)
{
    return port->id == 0 ? 0 : 2 + 2 * port->id;
}
static inline bool console_is_multiport(const struct console *console)
{
    return virtio_has(&console->device, VIRTIO_CONSOLE_F_MULTIPORT);
}

/* request.c. Lock held, device thread. Each does a bounded piece and wakes the device when something is left. */
void console_hear_control(struct console *console);
void console_say_control(struct console *console);
void console_take_output(struct console_port *port);
void console_give_input(struct console_port *port);
/* Bytes to the outside of port 0. */
void console_print(struct console *console, const uint8_t *bytes, size_t nr);

/* device.c: the host's program is gone. Device thread. */
void console_hang_up(struct console_port *port);

#endif
