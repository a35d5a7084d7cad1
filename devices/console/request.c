/* SPDX-License-Identifier: Apache-2.0 */
#include "devices/console/state.h"

#include <errno.h>
#include <string.h>

/* What one turn does for one queue, so that a busy guest does not keep the loop: chosen, unmeasured. */
#define TURN_BYTES (256u << 10)
#define TURN_CHAINS 256
#define PIECE_BYTES 4096

/* --- control --------------------------------------------------------------------------------------- */

/* Each port once between two resets, however often the driver says that it is ready (5.3.6.2.1). */
static void announce_ports(struct console *console)
{
    for (unsigned i = 0; i < console->nr_ports; i++)
        if (!console->port[i].added)
            console->port[i].say |= SAY_ADD;
}

static void silence_ports(struct console *console)
{
    for (unsigned i = 0; i < console->nr_ports; i++) {
        console->port[i].ready = console->port[i].guest_open = false;
        console->port[i].say = 0;
    }
}

static void port_ready(struct console_port *port, bool ready)
{
    port->ready = ready;
    port->say &= SAY_ADD;
    if (!ready)
        return;
    port->say |= port->id == 0 ? SAY_CONSOLE : SAY_NAME;
    if (port->host_open)
        port->say |= SAY_OPEN;
}

/* A message of the driver, checked. False: it makes no sense. */
static bool hear(struct console *console, const struct virtio_console_control *message)
{
    bool value = message->value != 0;

    if (message->event == VIRTIO_CONSOLE_DEVICE_READY) {
        (value ? announce_ports : silence_ports)(console);
        return true;
    }
    if (message->id >= console->nr_ports)
        return false;
    struct console_port *port = &console->port[message->id];
    switch (message->event) {
    case VIRTIO_CONSOLE_PORT_READY:
        port_ready(port, value);
        return true;
    case VIRTIO_CONSOLE_PORT_OPEN:
        port->guest_open = value;
        if (!value && port->id > 0)
            byte_ring_clear(&port->in); /* it was for a program that is gone */
        return true;
    default:
        return false;
    }
}

/*
 * The next chain of queue @index: when there is none, the driver is asked to kick, and what came meanwhile is taken.
 */
static bool next_chain(struct console *console, unsigned index, struct virtq_chain *chain)
{
    do {
        if (!virtio_is_live(&console->device))
            return false;
        if (virtio_pop(&console->device, index, chain) == 1)
            return true;
    } while (virtq_enable_kicks(&console->device.queue[index]));
    return false;
}

void console_hear_control(struct console *console)
{
    const struct virtq *q = &console->device.queue[CONSOLE_CONTROL_TX];
    struct virtio_console_control message;
    struct virtq_chain chain;
    unsigned nr = 0;

    while (nr < TURN_CHAINS && next_chain(console, CONSOLE_CONTROL_TX, &chain)) {
        if (virtq_read(q, &chain, 0, &message, sizeof(message)) < sizeof(message) || !hear(console, &message))
            console->stat.nr_malformed++;
        virtq_push(&console->device.queue[CONSOLE_CONTROL_TX], &chain, 0);
        nr++;
    }
    if (nr > 0)
        virtio_announce(&console->device, CONSOLE_CONTROL_TX);
    if (nr == TURN_CHAINS)
        wake_up(&console->wake);
}

/* The first message that @port can say now, one of SAY_*, or 0. */
static unsigned can_say(const struct console_port *port)
{
    for (unsigned bit = SAY_ADD; bit <= SAY_OPEN; bit <<= 1) {
        if (!(port->say & bit))
            continue;
        /* That the host has gone is said after what it said. */
        return bit == SAY_OPEN && !port->host_open && port->in.nr > 0 && port->guest_open ? 0 : bit;
    }
    return 0;
}

static size_t make_message(const struct console_port *port, unsigned bit, uint8_t *to)
{
    struct virtio_console_control message = {.id = port->id, .value = 1};
    size_t name_bytes = 0;

    switch (bit) {
    case SAY_ADD:
        message.event = VIRTIO_CONSOLE_PORT_ADD;
        break;
    case SAY_CONSOLE:
        message.event = VIRTIO_CONSOLE_CONSOLE_PORT;
        break;
    case SAY_NAME:
        message.event = VIRTIO_CONSOLE_PORT_NAME;
        name_bytes = strlen(port->name);
        memcpy(to + sizeof(message), port->name, name_bytes);
        break;
    default:
        message.event = VIRTIO_CONSOLE_PORT_OPEN;
        message.value = port->host_open;
        break;
    }
    memcpy(to, &message, sizeof(message));
    return sizeof(message) + name_bytes;
}

static bool say(struct console_port *port, unsigned bit)
{
    struct console *console = port->console;
    struct virtq *q = &console->device.queue[CONSOLE_CONTROL_RX];
    uint8_t message[sizeof(struct virtio_console_control) + CONSOLE_NAME_BYTES];
    struct virtq_chain chain;

    if (!next_chain(console, CONSOLE_CONTROL_RX, &chain))
        return false;
    size_t bytes = make_message(port, bit, message);
    uint64_t written = virtq_write(q, &chain, 0, message, bytes);
    if (written < bytes)
        console->stat.nr_malformed++;
    virtq_push(q, &chain, (uint32_t)written);
    port->say &= (uint8_t)~bit;
    port->added |= bit == SAY_ADD;
    return true;
}

/* At most four messages a port: no need for a limit. */
void console_say_control(struct console *console)
{
    bool said = false;

    for (unsigned i = 0; i < console->nr_ports; i++) {
        unsigned bit;

        while ((bit = can_say(&console->port[i])) != 0 && say(&console->port[i], bit))
            said = true;
    }
    if (said)
        virtio_announce(&console->device, CONSOLE_CONTROL_RX);
}

/* --- output ---------------------------------------------------------------------------------------- */

void console_print(struct console *console, const uint8_t *bytes, size_t nr)
{
    console->stat.out_bytes += nr;
    if (console->on_bytes)
        console->on_bytes(console->ctx, bytes, nr);
    for (size_t i = 0; i < nr; i++)
        line_add(&console->line, bytes[i]);
}

/* How many of @nr bytes are done with; 0: the other end takes none now. */
static size_t put_out(struct console_port *port, const uint8_t *bytes, size_t nr)
{
    struct console *console = port->console;

    if (port->id == 0) {
        console_print(console, bytes, nr);
        return nr;
    }
    if (port->peer.fd >= 0) {
        ptrdiff_t sent = unix_send(port->peer.fd, bytes, nr);

        if (sent == -EAGAIN)
            return 0;
        if (sent >= 0) {
            console->stat.out_bytes += (uint64_t)sent;
            return (size_t)sent;
        }
        console_hang_up(port);
    }
    console->stat.discarded_bytes += nr;
    return nr;
}

/* True when the chain in hand is done; false: the other end is slow, or the turn is over. */
static bool send_chain(struct console_port *port, const struct virtq *q, uint64_t *left_bytes)
{
    uint8_t piece[PIECE_BYTES];

    while (port->tx_offset < port->tx.out_bytes) {
        uint64_t wanted = MIN_OF(*left_bytes, sizeof(piece));
        size_t nr = (size_t)virtq_read(q, &port->tx, port->tx_offset, piece, wanted);

        if (nr == 0 && wanted > 0)
            break; /* its memory was unplugged meanwhile */
        size_t done = nr > 0 ? put_out(port, piece, nr) : 0;
        if (done == 0)
            return false;
        port->tx_offset += done;
        *left_bytes -= done;
    }
    return true;
}

void console_take_output(struct console_port *port)
{
    struct console *console = port->console;
    unsigned index = console_rx_queue(port) + 1;
    struct virtq *q = &console->device.queue[index];
    uint64_t left_bytes = TURN_BYTES;
    unsigned nr = 0;

    while (nr < TURN_CHAINS && left_bytes > 0) {
        if (!port->has_tx) {
            if (!next_chain(console, index, &port->tx))
                break;
            port->has_tx = true;
            port->tx_offset = 0;
        }
        if (!send_chain(port, q, &left_bytes))
            break;
        port->has_tx = false;
        virtq_push(q, &port->tx, 0);
        nr++;
    }
    if (nr > 0)
        virtio_announce(&console->device, index);
    if (nr == TURN_CHAINS || left_bytes == 0)
        wake_up(&console->wake);
}

/* --- input ----------------------------------------------------------------------------------------- */

static bool may_give(const struct console_port *port)
{
    if (port->in.nr == 0)
        return false;
    /* First the guest hears that somebody is there. Port 0 is a console, whose driver need not open it. */
    return port->id == 0 || (port->guest_open && !(port->say & SAY_OPEN && port->host_open));
}

/* Ring to chain: bytes written. */
static uint32_t fill_chain(struct console_port *port, const struct virtq *q, const struct virtq_chain *chain)
{
    uint32_t written = 0;
    uint8_t *from;
    uint32_t nr;

    while ((nr = byte_ring_data(&port->in, &from)) > 0) {
        uint32_t copied = (uint32_t)virtq_write(q, chain, written, from, nr);

        if (copied == 0)
            break;
        byte_ring_taken(&port->in, copied);
        written += copied;
    }
    return written;
}

/* Ends, for every chain but an empty one takes a byte of the ring; and of empty ones there are TURN_CHAINS. */
void console_give_input(struct console_port *port)
{
    struct console *console = port->console;
    unsigned index = console_rx_queue(port);
    struct virtq *q = &console->device.queue[index];
    struct virtq_chain chain;
    unsigned nr = 0;

    while (nr < TURN_CHAINS && may_give(port) && next_chain(console, index, &chain)) {
        uint32_t written = fill_chain(port, q, &chain);

        if (written == 0)
            console->stat.nr_malformed++;
        console->stat.in_bytes += written;
        virtq_push(q, &chain, written);
        nr++;
    }
    if (nr > 0)
        virtio_announce(&console->device, index);
    if (nr == TURN_CHAINS)
        wake_up(&console->wake);
}
