/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/platform_ports.h"

#include "vmm/platform.h"

/* Motorola MC146818A data sheet; the century is where ACPI's FADT and every PC have it. */
enum {
    RTC_SECONDS = 0x00,
    RTC_MINUTES = 0x02,
    RTC_HOURS = 0x04,
    RTC_WEEKDAY = 0x06,
    RTC_DAY = 0x07,
    RTC_MONTH = 0x08,
    RTC_YEAR = 0x09,
    RTC_A = 0x0a,
    RTC_B = 0x0b,
    RTC_C = 0x0c,
    RTC_D = 0x0d,
    RTC_CENTURY = 0x32,
};
#define RTC_A_32KHZ 0x26u  /* no update in progress, 32.768 kHz, 1024 Hz */
#define RTC_B_BINARY 0x04u /* numbers are not BCD */
#define RTC_B_24_HOURS 0x02u
#define RTC_D_VALID 0x80u /* the battery is good */

#define I8042_STATUS 0     /* neither buffer is full */
#define I8042_RESET 0xfeu  /* pulse output line 0 */
#define RESET_CPU 0x04u    /* of port 0xcf9 */
#define SLEEP_ENABLE 0x20u /* ACPI 6.5, 4.8.3.7: SLP_EN; SLP_TYPx in bits 2-4 */
#define SLEEP_TYPE_OFF 5u
#define PANIC_PANICKED 0x01u

void platform_ports_init(struct platform_ports *ports)
{
    pthread_mutex_init(&ports->lock, NULL);
}

void platform_ports_fini(struct platform_ports *ports)
{
    pthread_mutex_destroy(&ports->lock);
}

/* --- the clock ------------------------------------------------------------------------------------- */

static uint8_t clock_field(const struct platform_ports *ports, unsigned reg)
{
    time_t now = ports->now ? ports->now(ports->now_ctx) : time(NULL);
    struct tm utc;

    gmtime_r(&now, &utc);
    unsigned year = (unsigned)utc.tm_year + 1900;
    switch (reg) {
    case RTC_SECONDS:
        return (uint8_t)(utc.tm_sec > 59 ? 59 : utc.tm_sec);
    case RTC_MINUTES:
        return (uint8_t)utc.tm_min;
    case RTC_HOURS:
        return (uint8_t)utc.tm_hour;
    case RTC_WEEKDAY:
        return (uint8_t)(utc.tm_wday + 1);
    case RTC_DAY:
        return (uint8_t)utc.tm_mday;
    case RTC_MONTH:
        return (uint8_t)(utc.tm_mon + 1);
    case RTC_YEAR:
        return (uint8_t)(year % 100);
    default:
        return (uint8_t)(year / 100);
    }
}

static uint8_t cmos_read_locked(const struct platform_ports *ports)
{
    unsigned reg = ports->index;

    switch (reg) {
    case RTC_SECONDS:
    case RTC_MINUTES:
    case RTC_HOURS:
    case RTC_WEEKDAY:
    case RTC_DAY:
    case RTC_MONTH:
    case RTC_YEAR:
    case RTC_CENTURY:
        return clock_field(ports, reg);
    case RTC_A:
        return RTC_A_32KHZ;
    case RTC_B:
        return RTC_B_BINARY | RTC_B_24_HOURS;
    case RTC_C: /* no interrupt of the clock is pending: it has none */
        return 0;
    case RTC_D:
        return RTC_D_VALID;
    default:
        return ports->cmos[reg];
    }
}

static uint64_t cmos_read(void *ctx, const struct bus_access *access)
{
    struct platform_ports *ports = ctx;

    pthread_mutex_lock(&ports->lock);
    uint64_t value = access->offset == 0 ? ports->index : cmos_read_locked(ports);
    pthread_mutex_unlock(&ports->lock);
    return value;
}

/* The guest cannot set the host's clock: what it writes to the clock's registers is never read. */
static void cmos_write(void *ctx, const struct bus_access *access, uint64_t value)
{
    struct platform_ports *ports = ctx;

    pthread_mutex_lock(&ports->lock);
    if (access->offset == 0)
        ports->index = value % PLATFORM_CMOS_BYTES; /* bit 7 masks NMIs, of which there are none */
    else
        ports->cmos[ports->index] = (uint8_t)value;
    pthread_mutex_unlock(&ports->lock);
}

/* --- the ends -------------------------------------------------------------------------------------- */

static uint64_t i8042_read(void *ctx, const struct bus_access *access)
{
    (void)ctx;
    (void)access;
    return I8042_STATUS;
}

static void i8042_write(void *ctx, const struct bus_access *access, uint64_t value)
{
    struct platform_ports *ports = ctx;

    (void)access;
    if ((value & 0xff) == I8042_RESET)
        ports->on_end(ports->ctx, PLATFORM_RESET);
}

static uint64_t zero_read(void *ctx, const struct bus_access *access)
{
    (void)ctx;
    (void)access;
    return 0;
}

static void reset_write(void *ctx, const struct bus_access *access, uint64_t value)
{
    struct platform_ports *ports = ctx;

    (void)access;
    if (value & RESET_CPU)
        ports->on_end(ports->ctx, PLATFORM_RESET);
}

/* Control is the first of two ports; the second, status, has nothing to say: nobody wakes up here. */
static void sleep_write(void *ctx, const struct bus_access *access, uint64_t value)
{
    struct platform_ports *ports = ctx;

    if (access->offset == 0 && value & SLEEP_ENABLE && (value >> 2 & 7) == SLEEP_TYPE_OFF)
        ports->on_end(ports->ctx, PLATFORM_POWEROFF);
}

static uint64_t panic_read(void *ctx, const struct bus_access *access)
{
    (void)ctx;
    (void)access;
    return PANIC_PANICKED; /* the events that we understand */
}

static void panic_write(void *ctx, const struct bus_access *access, uint64_t value)
{
    struct platform_ports *ports = ctx;

    (void)access;
    if (value & PANIC_PANICKED)
        ports->on_end(ports->ctx, PLATFORM_PANIC);
}

int platform_ports_attach(struct platform_ports *ports, struct bus *bus)
{
    const struct {
        uint64_t port, nr_ports;
        uint64_t (*read)(void *ctx, const struct bus_access *access);
        void (*write)(void *ctx, const struct bus_access *access, uint64_t value);
    } list[] = {
        {PLATFORM_CMOS_PORT, 2, cmos_read, cmos_write},    {PLATFORM_I8042_PORT, 1, i8042_read, i8042_write},
        {PLATFORM_RESET_PORT, 1, zero_read, reset_write},  {PLATFORM_SLEEP_PORT, 2, zero_read, sleep_write},
        {PLATFORM_PANIC_PORT, 1, panic_read, panic_write},
    };

    for (size_t i = 0; i < ARRAY_LEN(list); i++) {
        const struct bus_device device = {.read = list[i].read, .write = list[i].write, .ctx = ports};
        int err = bus_add(bus, BUS_PORT, list[i].port, list[i].nr_ports, &device);

        if (err)
            return err;
    }
    return 0;
}
