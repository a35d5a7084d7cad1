/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bus of one machine: ranges of ports and of guest physical addresses, each with a device behind it. Filled before
 * the vCPUs start and constant from then on, so that they use it without a lock.
 *
 * What nobody answers reads as all ones, as on a PC; it is counted.
 */
#ifndef VMM_BUS_H
#define VMM_BUS_H

#include "mm/base/types.h"

enum bus_space { BUS_PORT, BUS_MMIO, BUS_NR_SPACES };
#define BUS_MAX_RANGES 32 /* a space; a machine has about ten */

/* One access, inside one range. Little endian. */
struct bus_access {
    uint64_t offset; /* from the start of the range */
    unsigned bytes;  /* 1, 2, 4 or 8 */
    unsigned cpu;    /* vCPU whose thread this is */
};

struct bus_device {
    /* Either may be NULL: reads give all ones, writes vanish; both are counted as unanswered. */
    uint64_t (*read)(void *ctx, const struct bus_access *access);
    void (*write)(void *ctx, const struct bus_access *access, uint64_t value);
    void *ctx;
};

struct bus_range {
    uint64_t start, bytes;
    struct bus_device device;
};

struct bus {
    unsigned nr[BUS_NR_SPACES];
    struct bus_range range[BUS_NR_SPACES][BUS_MAX_RANGES]; /* by rising address, without overlap */
    uint64_t nr_unanswered[BUS_NR_SPACES];                 /* atomic */
};

void bus_init(struct bus *bus);
/*
 * bus_add - [start, start + bytes) belongs to @device (copied). -EINVAL: empty, or wraps; -EEXIST: overlaps another
 * range; -ENOSPC: BUS_MAX_RANGES. After an error the bus is unchanged.
 */
must_check int bus_add(struct bus *bus, enum bus_space space, uint64_t start, uint64_t bytes,
                       const struct bus_device *device);
/* @bytes: 1, 2, 4 or 8. An access that begins in a range and ends outside is nobody's. */
uint64_t bus_read(struct bus *bus, enum bus_space space, uint64_t address, unsigned bytes, unsigned cpu);
void bus_write(struct bus *bus, enum bus_space space, uint64_t address, unsigned bytes, unsigned cpu, uint64_t value);
uint64_t bus_nr_unanswered(const struct bus *bus, enum bus_space space);
/* Order and overlap. False and *why (a static string) on a breach. */
bool bus_check(const struct bus *bus, const char **why);

#endif
