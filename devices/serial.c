/* SPDX-License-Identifier: Apache-2.0 */
#include "devices/serial.h"

#include <string.h>

enum { REG_DATA, REG_IER, REG_IIR_FCR, REG_LCR, REG_MCR, REG_LSR, REG_MSR, REG_SCR };

#define IER_RECEIVED 0x01
#define IER_SENT 0x02
#define IER_LINE 0x04
#define IER_MODEM 0x08
/* Causes, by falling priority. */
#define IIR_LINE 0x06
#define IIR_RECEIVED 0x04
#define IIR_TIMEOUT 0x0c
#define IIR_SENT 0x02
#define IIR_MODEM 0x00
#define IIR_NONE 0x01
#define IIR_FIFO 0xc0
#define FCR_ENABLE 0x01
#define FCR_CLEAR_RX 0x02
#define LCR_DLAB 0x80
#define MCR_LOOP 0x10
#define LSR_READY 0x01     /* a byte was received */
#define LSR_OVERRUN 0x02   /* and another was lost */
#define LSR_THR_EMPTY 0x20 /* ready for a byte */
#define LSR_IDLE 0x40      /* and all are sent */
#define MSR_CONNECTED 0xb0 /* carrier, data set ready, clear to send */
#define MSR_RING 0x40
#define MSR_DELTAS 0x0f

void serial_init(struct serial *serial, void (*on_line)(void *ctx, const char *line), void *ctx)
{
    memset(serial, 0, sizeof(*serial));
    serial->line.on_line = on_line;
    serial->line.ctx = ctx;
    serial->divisor = 1;
    serial->rx_trigger = 1;
    serial->modem_status = MSR_CONNECTED;
    pthread_mutex_init(&serial->lock, NULL);
}

void serial_connect(struct serial *serial, const struct serial_wires *wires)
{
    pthread_mutex_lock(&serial->lock);
    serial->wires = *wires;
    pthread_mutex_unlock(&serial->lock);
}

void serial_fini(struct serial *serial)
{
    line_end(&serial->line);
    pthread_mutex_destroy(&serial->lock);
}

/* --- interrupt ------------------------------------------------------------------------------------- */

static uint8_t cause_locked(const struct serial *serial)
{
    uint8_t enabled = serial->interrupt_enable;

    if (enabled & IER_LINE && serial->overrun)
        return IIR_LINE;
    if (enabled & IER_RECEIVED && serial->nr_rx >= serial->rx_trigger)
        return IIR_RECEIVED;
    /* Below the trigger: the receiver waits for no other byte, none is under way. The timeout is over at once. */
    if (enabled & IER_RECEIVED && serial->nr_rx > 0)
        return IIR_TIMEOUT;
    if (enabled & IER_SENT && serial->sent_pending)
        return IIR_SENT;
    if (enabled & IER_MODEM && serial->modem_status & MSR_DELTAS)
        return IIR_MODEM;
    return IIR_NONE;
}

/* After every change: the line follows the cause. OUT2, which gates the line on a PC's board, is not looked at. */
static void update_irq_locked(struct serial *serial)
{
    bool level = cause_locked(serial) != IIR_NONE;

    if (level == serial->irq_level)
        return;
    serial->irq_level = level;
    if (level)
        serial->stat.nr_interrupts++;
    if (serial->wires.irq)
        serial->wires.irq(serial->wires.irq_ctx, level);
}

/* --- receiver -------------------------------------------------------------------------------------- */

static unsigned rx_capacity_locked(const struct serial *serial)
{
    return serial->fifo_enabled ? SERIAL_FIFO_BYTES : 1;
}

static void receive_locked(struct serial *serial, uint8_t byte)
{
    if (serial->nr_rx == rx_capacity_locked(serial)) {
        serial->overrun = true;
        serial->stat.nr_overruns++;
        return;
    }
    serial->rx[(serial->rx_first + serial->nr_rx++) % SERIAL_FIFO_BYTES] = byte;
}

static uint8_t take_received_locked(struct serial *serial)
{
    if (serial->nr_rx == 0)
        return 0;
    uint8_t byte = serial->rx[serial->rx_first];
    serial->rx_first = (serial->rx_first + 1) % SERIAL_FIFO_BYTES;
    serial->nr_rx--;
    return byte;
}

/* Once the receiver is empty, not at every byte: the host's side is a system call or two. */
static void tell_room_locked(struct serial *serial)
{
    if (!serial->host_waits || serial->nr_rx > 0 || serial->modem_control & MCR_LOOP)
        return;
    serial->host_waits = false;
    if (serial->wires.on_room)
        serial->wires.on_room(serial->wires.host_ctx);
}

size_t serial_input(struct serial *serial, const void *bytes, size_t nr)
{
    const uint8_t *from = bytes;
    size_t taken = 0;

    pthread_mutex_lock(&serial->lock);
    if (!(serial->modem_control & MCR_LOOP))
        while (taken < nr && serial->nr_rx < rx_capacity_locked(serial))
            receive_locked(serial, from[taken++]);
    serial->stat.in_bytes += taken;
    if (taken < nr)
        serial->host_waits = true;
    update_irq_locked(serial);
    pthread_mutex_unlock(&serial->lock);
    return taken;
}

/* --- transmitter ----------------------------------------------------------------------------------- */

static void transmit_locked(struct serial *serial, uint8_t byte)
{
    serial->sent_pending = true; /* empty again already */
    if (serial->modem_control & MCR_LOOP) {
        receive_locked(serial, byte);
        return;
    }
    serial->stat.out_bytes++;
    if (serial->wires.on_byte)
        serial->wires.on_byte(serial->wires.host_ctx, byte);
    line_add(&serial->line, byte);
}

/* --- registers ------------------------------------------------------------------------------------- */

static void write_fifo_control_locked(struct serial *serial, uint8_t value)
{
    static const uint8_t triggers[] = {1, 4, 8, 14};
    bool enable = value & FCR_ENABLE;

    if (enable != serial->fifo_enabled || (enable && value & FCR_CLEAR_RX))
        serial->nr_rx = 0;
    serial->fifo_enabled = enable;
    serial->rx_trigger = enable ? triggers[value >> 6] : 1;
}

/* In loopback the modem's inputs are the port's own outputs: RTS, DTR, OUT1, OUT2 as CTS, DSR, RI, DCD. */
static void write_modem_control_locked(struct serial *serial, uint8_t value)
{
    uint8_t old = serial->modem_status, now = MSR_CONNECTED;

    serial->modem_control = value & 0x1f;
    if (value & MCR_LOOP)
        now = (uint8_t)((value & 0x0c) << 4 | (value & 0x02) << 3 | (value & 0x01) << 5);
    /* A delta for each line that changed; for ring only its end counts. */
    uint8_t changed = (uint8_t)((old ^ now) & 0xf0);
    if (now & MSR_RING)
        changed &= (uint8_t)~MSR_RING;
    serial->modem_status = (uint8_t)(now | (old & MSR_DELTAS) | changed >> 4);
}

static void write_interrupt_enable_locked(struct serial *serial, uint8_t value)
{
    /* Enabling says so at once when the transmitter is empty, which it always is. */
    if (value & ~serial->interrupt_enable & IER_SENT)
        serial->sent_pending = true;
    serial->interrupt_enable = value & 0x0f;
}

static uint8_t read_cause_locked(struct serial *serial)
{
    uint8_t cause = cause_locked(serial);

    if (cause == IIR_SENT)
        serial->sent_pending = false;
    return (uint8_t)(cause | (serial->fifo_enabled ? IIR_FIFO : 0));
}

static uint8_t read_line_status_locked(struct serial *serial)
{
    uint8_t value = LSR_THR_EMPTY | LSR_IDLE;

    if (serial->nr_rx > 0)
        value |= LSR_READY;
    if (serial->overrun)
        value |= LSR_OVERRUN;
    serial->overrun = false;
    return value;
}

static uint8_t read_modem_status_locked(struct serial *serial)
{
    uint8_t value = serial->modem_status;

    serial->modem_status &= (uint8_t)~MSR_DELTAS;
    return value;
}

static uint8_t read_locked(struct serial *serial, unsigned reg)
{
    bool latch = serial->line_control & LCR_DLAB;

    switch (reg) {
    case REG_DATA:
        return latch ? (uint8_t)serial->divisor : take_received_locked(serial);
    case REG_IER:
        return latch ? (uint8_t)(serial->divisor >> 8) : serial->interrupt_enable;
    case REG_IIR_FCR:
        return read_cause_locked(serial);
    case REG_LCR:
        return serial->line_control;
    case REG_MCR:
        return serial->modem_control;
    case REG_LSR:
        return read_line_status_locked(serial);
    case REG_MSR:
        return read_modem_status_locked(serial);
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
            write_interrupt_enable_locked(serial, value);
        break;
    case REG_IIR_FCR:
        write_fifo_control_locked(serial, value);
        break;
    case REG_LCR:
        serial->line_control = value;
        break;
    case REG_MCR:
        write_modem_control_locked(serial, value);
        break;
    case REG_SCR:
        serial->scratch = value;
        break;
    default: /* LSR and MSR are read-only */
        break;
    }
}

uint8_t serial_read(struct serial *serial, unsigned reg)
{
    pthread_mutex_lock(&serial->lock);
    uint8_t value = read_locked(serial, reg);
    update_irq_locked(serial);
    tell_room_locked(serial);
    pthread_mutex_unlock(&serial->lock);
    return value;
}

void serial_write(struct serial *serial, unsigned reg, uint8_t value)
{
    pthread_mutex_lock(&serial->lock);
    write_locked(serial, reg, value);
    update_irq_locked(serial);
    tell_room_locked(serial);
    pthread_mutex_unlock(&serial->lock);
}

void serial_stats(struct serial *serial, struct serial_stat *out)
{
    pthread_mutex_lock(&serial->lock);
    *out = serial->stat;
    pthread_mutex_unlock(&serial->lock);
}
