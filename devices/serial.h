/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The transmitting half of a 16550 UART: what a console needs. Bytes become lines; a line is handed over at its end, or
 * when it is full. There is no receiver and no interrupt: the transmitter is always empty, which every driver polls.
 * Source of the registers: National Semiconductor PC16550D data sheet.
 */
#ifndef DEVICES_SERIAL_H
#define DEVICES_SERIAL_H

#include "mm/base/types.h"

#include <pthread.h>

#define SERIAL_PORT 0x3f8
#define SERIAL_PORTS 8
#define SERIAL_LINE_BYTES 240

struct serial {
    /* One line without its end, ends with 0; unprintable bytes became '?'. Called with the lock held. */
    void (*on_line)(void *ctx, const char *line);
    void *ctx;
    pthread_mutex_t lock;
    /* guarded by lock */
    uint8_t interrupt_enable, line_control, modem_control, scratch;
    uint16_t divisor;
    unsigned nr_line_bytes;
    char line[SERIAL_LINE_BYTES];
};

void serial_init(struct serial *serial, void (*on_line)(void *ctx, const char *line), void *ctx);
/* Hands over what stands in the last, unended line. */
void serial_fini(struct serial *serial);
/* @reg: 0..7. Any thread. */
uint8_t serial_read(struct serial *serial, unsigned reg);
void serial_write(struct serial *serial, unsigned reg, uint8_t value);

#endif
