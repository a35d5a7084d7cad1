/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A 16550 UART with its interrupt. Bytes take no time: what the guest sends is out at once, so the transmitter is always
 * empty; what the host sends is in the receiver at once, as far as there is room.
 *
 *   guest -> THR -> on_line, a line at its end or when it is full   (lines)
 *                -> on_byte, each byte as it comes                  (raw: an interactive console)
 *   host  -> serial_input -> FIFO of 16 bytes -> RBR -> guest; full: the host waits for on_room
 *
 * A driver may poll LSR or have interrupts. The line is high while IIR names a cause. A hostile driver can fill its own
 * FIFO in loopback (counted, an overrun to it) and end lines early; nothing grows.
 * Source of the registers: National Semiconductor PC16550D data sheet.
 */
#ifndef DEVICES_SERIAL_H
#define DEVICES_SERIAL_H

#include "devices/line.h"

#include <pthread.h>

#define SERIAL_PORT 0x3f8
#define SERIAL_PORTS 8
#define SERIAL_IRQ 4
#define SERIAL_LINE_BYTES LINE_BYTES
#define SERIAL_FIFO_BYTES 16

struct serial_stat {
    uint64_t out_bytes, in_bytes; /* sent by the guest; taken from the host */
    uint64_t nr_overruns;         /* bytes that the guest lost in loopback */
    uint64_t nr_interrupts;       /* times the line went up */
};

/*
 * What the owner may set between serial_init and the first access. Each may be NULL. All are called with the lock held,
 * so they must not call back.
 */
struct serial_wires {
    /* The interrupt line changed. After power on it is low. */
    void (*irq)(void *ctx, bool level);
    void *irq_ctx;
    /* Raw output: every byte as the guest sends it, carriage returns too. */
    void (*on_byte)(void *ctx, uint8_t byte);
    /* The receiver has room again, after serial_input took less than it was given. */
    void (*on_room)(void *ctx);
    void *host_ctx; /* of on_byte and on_room */
};

struct serial {
    struct serial_wires wires;
    pthread_mutex_t lock;
    /* guarded by lock */
    uint8_t interrupt_enable, line_control, modem_control, modem_status, scratch;
    bool fifo_enabled, overrun, irq_level;
    bool sent_pending;  /* the cause "transmitter is empty" was not seen yet */
    bool host_waits;    /* for on_room */
    uint8_t rx_trigger; /* bytes, 1..14 */
    uint16_t divisor;
    unsigned rx_first, nr_rx; /* 0 <= nr_rx <= SERIAL_FIFO_BYTES; 1 without FIFO */
    uint8_t rx[SERIAL_FIFO_BYTES];
    struct line line;
    struct serial_stat stat;
};

/* @on_line: see line.h; called with the lock held. NULL: no lines. */
void serial_init(struct serial *serial, void (*on_line)(void *ctx, const char *line), void *ctx);
/* Before the first access; @wires is copied. */
void serial_connect(struct serial *serial, const struct serial_wires *wires);
/* Hands over what stands in the last, unended line. */
void serial_fini(struct serial *serial);
/* @reg: 0..7. Any thread. */
uint8_t serial_read(struct serial *serial, unsigned reg);
void serial_write(struct serial *serial, unsigned reg, uint8_t value);
/*
 * serial_input - @nr bytes for the guest, from any thread. Returns how many were taken, the first ones: 0..@nr. When it
 * is fewer, on_room says when more can be. Nothing is taken in loopback.
 */
must_check size_t serial_input(struct serial *serial, const void *bytes, size_t nr);
void serial_stats(struct serial *serial, struct serial_stat *out);

#endif
