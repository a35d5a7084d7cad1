/* SPDX-License-Identifier: Apache-2.0 */
/*
 * platform_ports: the few ports of a PC that a Linux kernel asks even where ACPI says that there is little hardware: the clock
 * with its battery-backed memory, the reset lines, ACPI's sleep registers, the port by which a panic is told.
 * Addresses: vmm/platform.h.
 *
 *   CMOS      time of day in UTC, binary and 24 hours; never in the middle of an update, so that nobody waits for one
 *   ends      i8042 command 0xfe, port 0xcf9, SLP_TYP 5 in the sleep register, bit 0 of the panic port
 *
 * Any vCPU thread. The guest may write whatever it likes: what has no meaning is stored or vanishes.
 */
#ifndef VMM_PLATFORM_PORTS_H
#define VMM_PLATFORM_PORTS_H

#include "vmm/bus.h"

#include <pthread.h>
#include <time.h>

enum platform_end { PLATFORM_POWEROFF, PLATFORM_RESET, PLATFORM_PANIC };

#define PLATFORM_CMOS_BYTES 128

struct platform_ports {
    /* The guest has asked for its end; from a vCPU thread, without locks, perhaps several times. */
    void (*on_end)(void *ctx, enum platform_end end);
    void *ctx;
    time_t (*now)(void *now_ctx); /* seconds since 1970, UTC; NULL: the host's clock */
    void *now_ctx;
    pthread_mutex_t lock;
    /* guarded by lock */
    uint8_t index;
    uint8_t cmos[PLATFORM_CMOS_BYTES]; /* what the guest wrote, but for the registers that are the clock's */
};

/* @ports: on_end, ctx, now and now_ctx are set, all else is zero. */
void platform_ports_init(struct platform_ports *ports);
void platform_ports_fini(struct platform_ports *ports);
/* Takes its ports on @bus. 0 or -errno of bus_add. */
must_check int platform_ports_attach(struct platform_ports *ports, struct bus *bus);

#endif
