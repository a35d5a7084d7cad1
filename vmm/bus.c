/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/bus.h"

#include <errno.h>
#include <string.h>

void bus_init(struct bus *bus)
{
    memset(bus, 0, sizeof(*bus));
}

/* Number of ranges that start at or below @address: a range that holds it is the one before. */
static unsigned ranges_up_to(const struct bus *bus, enum bus_space space, uint64_t address)
{
    unsigned low = 0, high = bus->nr[space];

    while (low < high) {
        unsigned middle = (low + high) / 2;
        if (bus->range[space][middle].start <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

int bus_add(struct bus *bus, enum bus_space space, uint64_t start, uint64_t bytes, const struct bus_device *device)
{
    struct bus_range *range = bus->range[space];

    if (bytes == 0 || start + (bytes - 1) < start)
        return -EINVAL;
    unsigned at = ranges_up_to(bus, space, start);
    if (at > 0 && start - range[at - 1].start < range[at - 1].bytes)
        return -EEXIST;
    if (at < bus->nr[space] && range[at].start - start < bytes)
        return -EEXIST;
    if (bus->nr[space] == BUS_MAX_RANGES)
        return -ENOSPC;
    memmove(&range[at + 1], &range[at], (bus->nr[space] - at) * sizeof(*range));
    range[at] = (struct bus_range){start, bytes, *device};
    bus->nr[space]++;
    return 0;
}

static const struct bus_range *find(const struct bus *bus, enum bus_space space, uint64_t address, unsigned bytes)
{
    unsigned at = ranges_up_to(bus, space, address);

    if (at == 0)
        return NULL;
    const struct bus_range *range = &bus->range[space][at - 1];
    uint64_t offset = address - range->start;
    return offset < range->bytes && range->bytes - offset >= bytes ? range : NULL;
}

static void count_unanswered(struct bus *bus, enum bus_space space)
{
    __atomic_fetch_add(&bus->nr_unanswered[space], 1, __ATOMIC_RELAXED);
}

static uint64_t low_bytes(uint64_t value, unsigned bytes)
{
    return bytes >= sizeof(value) ? value : value & ((UINT64_C(1) << (8 * bytes)) - 1);
}

uint64_t bus_read(struct bus *bus, enum bus_space space, uint64_t address, unsigned bytes, unsigned cpu)
{
    const struct bus_range *range = find(bus, space, address, bytes);

    if (!range || !range->device.read) {
        count_unanswered(bus, space);
        return low_bytes(UINT64_MAX, bytes);
    }
    const struct bus_access access = {address - range->start, bytes, cpu};
    return low_bytes(range->device.read(range->device.ctx, &access), bytes);
}

void bus_write(struct bus *bus, enum bus_space space, uint64_t address, unsigned bytes, unsigned cpu, uint64_t value)
{
    const struct bus_range *range = find(bus, space, address, bytes);

    if (!range || !range->device.write) {
        count_unanswered(bus, space);
        return;
    }
    const struct bus_access access = {address - range->start, bytes, cpu};
    range->device.write(range->device.ctx, &access, low_bytes(value, bytes));
}

uint64_t bus_nr_unanswered(const struct bus *bus, enum bus_space space)
{
    return __atomic_load_n(&bus->nr_unanswered[space], __ATOMIC_RELAXED);
}

bool bus_check(const struct bus *bus, const char **why)
{
    for (unsigned space = 0; space < BUS_NR_SPACES; space++) {
        for (unsigned i = 0; i < bus->nr[space]; i++) {
            const struct bus_range *range = &bus->range[space][i];

            *why = "a range is empty or wraps";
            if (range->bytes == 0 || range->start + (range->bytes - 1) < range->start)
                return false;
            *why = "two ranges overlap or stand in the wrong order";
            if (i > 0 && (range->start <= range[-1].start || range->start - range[-1].start < range[-1].bytes))
                return false;
        }
    }
    return true;
}
