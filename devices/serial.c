/* SPDX-License-Identifier: Apache-2.0 */
#include "devices/serial.h"

#include <string.h>

enum { REG_DATA, REG_IER, REG_IIR_FCR, REG_LCR, REG_MCR, REG_LSR, REG_MSR, REG_SCR };

#define LCR_DLAB 0x80
#define IIR_NONE 0x01      /* no interrupt pending */
#define LSR_THR_EMPTY 0x20 /* ready for a byte */
#define LSR_IDLE 0x40      /* and all are sent */
#define MSR_CONNECTED 0xb0 /* carrier, data set ready, clear to send */
#define MCR_LOOP 0x10

void serial_init(struct serial *serial, void (*on_line)(void *ctx, const char *line), void *ctx)
{
    memset(serial, 0, sizeof(*serial));
    serial->on_line = on_line;
    serial->ctx = ctx;
    serial->divisor = 1;
    pthread_mutex_init(&serial->lock, NULL);
}

static void end_line_locked(struct serial *serial)
{
    serial->line[serial->nr_line_bytes] = 0;
    serial->nr_line_bytes = 0;
    serial->on_line(serial->ctx, serial->line);
}

void serial_fini(struct serial *serial)
{
    if (serial->nr_line_bytes > 0)
        end_line_locked(serial);
    pthread_mutex_destroy(&serial->lock);
}

static void transmit_locked(struct serial *serial, uint8_t byte)
{
    if (serial->modem_control & MCR_LOOP || byte == '\r')
        return;
    if (byte == '\n') {
        end_line_locked(serial);
        return;
    }
    serial->line[serial->nr_line_bytes++] = byte >= ' ' && byte < 0x7f ? (char)byte : '?';
    if (serial->nr_line_bytes == SERIAL_LINE_BYTES - 1)
        end_line_locked(serial);
}

static uint8_t read_locked(const struct serial *serial, unsigned reg)
{
    bool latch = serial->line_control & LCR_DLAB;

    switch (reg) {
    case REG_DATA:
        return latch ? (uint8_t)serial->divisor : 0;
    case REG_IER:
        return latch ? (uint8_t)(serial->divisor >> 8) : serial->interrupt_enable;
    case REG_IIR_FCR:
        return IIR_NONE;
    case REG_LCR:
        return serial->line_control;
    case REG_MCR:
        return serial->modem_control;
    case REG_LSR:
        return LSR_THR_EMPTY | LSR_IDLE;
    case REG_MSR:
        return MSR_CONNECTED;
    default:
        return serial->scratch;
    }
}

static void write_locked(struct serial *serial, unsigned reg, uint8_t value)
{
    bool latch = serial->line_control & LCR_DLAB;

    switch (reg) {
    case REG_DATA:
        if (latch)
            serial->divisor = (uint16_t)((serial->divisor & 0xff00) | value);
        else
            transmit_locked(serial, value);
        break;
    case REG_IER:
        if (latch)
            serial->divisor = (uint16_t)((serial->divisor & 0x00ff) | value << 8);
        else
            serial->interrupt_enable = value & 0x0f;
        break;
    case REG_LCR:
        serial->line_control = value;
        break;
    case REG_MCR:
        serial->modem_control = value & 0x1f;
        break;
    case REG_SCR:
        serial->scratch = value;
        break;
    default: /* FIFO control has nothing to control; LSR and MSR are read-only */
        break;
    }
}

uint8_t serial_read(struct serial *serial, unsigned reg)
{
    pthread_mutex_lock(&serial->lock);
    uint8_t value = read_locked(serial, reg);
    pthread_mutex_unlock(&serial->lock);
    return value;
}

void serial_write(struct serial *serial, unsigned reg, uint8_t value)
{
    pthread_mutex_lock(&serial->lock);
    write_locked(serial, reg, value);
    pthread_mutex_unlock(&serial->lock);
}
