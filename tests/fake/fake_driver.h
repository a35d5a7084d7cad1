/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A well-behaved virtio driver over plain memory, for tests of devices: no VM, no KVM.
 *
 *     struct fake_memory memory;
 *     struct device_env env = {.mem = &memory.mem, .loop = loop};
 *     struct fake_driver driver;
 *
 *     fake_memory_init(&memory, 0, 4 << 20);
 *     thing_init(&thing, &env);
 *     virtio_mmio_init(&mmio, &thing.virtio);
 *     fake_driver_init(&driver, &mmio, &memory);
 *     fake_driver_start(&driver, 1ull << VIRTIO_RING_F_EVENT_IDX | ..., 0);       reset to DRIVER_OK
 *     fake_driver_add(&driver, 0, buffers, nr_out, nr_in, false, token);
 *     fake_driver_kick(&driver, 0);
 *     fake_driver_run(&driver);                                                   the device's loop, until it is idle
 *     while (fake_driver_collect(&driver, 0, &used)) ...
 *
 * Split or packed, event index, indirect: as the features that it starts with say. One thread uses a driver; the
 * device's loop may run in another. A mistake of the test (address outside memory) or a breach by the device (an id
 * that is not in flight) prints a line and aborts.
 */
#ifndef TESTS_FAKE_FAKE_DRIVER_H
#define TESTS_FAKE_FAKE_DRIVER_H

#include "devices/virtio/mmio.h"

#include <sys/types.h>

#define FAKE_MAX_SEGMENTS 160 /* of one chain: more than a device takes, to try that */

/* Guest memory in one region, between two pages that nobody may touch. Zeroed. */
struct fake_memory {
    struct guest_mem mem;
    uint64_t next; /* gpa: what fake_memory_alloc gives next */
};
void fake_memory_init(struct fake_memory *memory, uint64_t start_gpa, uint64_t bytes);
void fake_memory_fini(struct fake_memory *memory);
/* @align: a power of two. Never freed; zeroed unless the guest or the device wrote there. */
gpa_t fake_memory_alloc(struct fake_memory *memory, uint64_t bytes, uint64_t align);
/* Address of [gpa, gpa + bytes) in this process. */
void *fake_memory_at(const struct fake_memory *memory, gpa_t gpa, uint64_t bytes);

struct fake_buffer {
    gpa_t gpa;
    uint32_t bytes;
};

/* What came back. */
struct fake_used {
    void *token; /* of fake_driver_add */
    uint32_t written_bytes;
    uint16_t id;
};

/* When the driver wants an interrupt. */
enum fake_want {
    FAKE_WANT_EACH, /* for every used buffer: as after start */
    FAKE_WANT_NONE,
    FAKE_WANT_LATER, /* fake_driver_want_after */
};

struct fake_slot {
    void *token;
    bool in_flight;
    uint16_t nr_slots; /* descriptors of the ring */
    uint16_t next;     /* list of free ids */
    gpa_t table;       /* indirect; 0: none yet */
};

struct fake_queue {
    uint16_t size;
    gpa_t desc, driver, device;
    char *desc_hva, *driver_hva, *device_hva;
    struct fake_slot slot[VIRTQ_MAX_SIZE]; /* by id; split: by head */
    uint16_t free_id;                      /* first of list; size: none */
    uint16_t nr_free;                      /* descriptors */
    uint16_t next_desc[VIRTQ_MAX_SIZE];    /* split: list of free descriptors */
    uint16_t next_avail, next_used;        /* split: modulo 2^16; packed: positions */
    bool avail_wrap, used_wrap;
    uint32_t nr_added; /* slots since the last kick was thought of */
    enum fake_want want;
    uint64_t nr_kicks; /* written to QueueNotify */
};

struct fake_driver {
    struct virtio_mmio *mmio;
    struct fake_memory *memory;
    uint64_t features;
    bool packed, event_idx, indirect;
    struct fake_queue queue[VIRTIO_MAX_QUEUES];
    uint64_t nr_interrupts; /* edges seen on irq_fd */
};

/* Nothing is written to the device yet. */
void fake_driver_init(struct fake_driver *driver, struct virtio_mmio *mmio, struct fake_memory *memory);
/*
 * fake_driver_start - reset, acknowledge, negotiate @features | VERSION_1, make all queues with @queue_size entries (0:
 * the largest offered), DRIVER_OK. 0; -ENOTSUP: the device does not take the features; -EIO: a queue did not become ready.
 * The three steps apart: negotiate; make_queue for each wanted queue; ok.
 */
must_check int fake_driver_start(struct fake_driver *driver, uint64_t features, uint16_t queue_size);
must_check int fake_driver_negotiate(struct fake_driver *driver, uint64_t features);
must_check int fake_driver_make_queue(struct fake_driver *driver, unsigned index, uint16_t queue_size);
void fake_driver_ok(struct fake_driver *driver);
/* Status 0. What was in flight is forgotten; fake_driver_start may follow. */
void fake_driver_reset(struct fake_driver *driver);

/* Registers (VIRTIO_MMIO_*), and configuration space in accesses of 4, then 1 bytes. */
uint32_t fake_driver_get(struct fake_driver *driver, uint64_t offset);
void fake_driver_set(struct fake_driver *driver, uint64_t offset, uint32_t value);
void fake_driver_config_read(struct fake_driver *driver, unsigned offset, void *to, unsigned bytes);
void fake_driver_config_write(struct fake_driver *driver, unsigned offset, const void *from, unsigned bytes);
uint64_t fake_driver_offered(struct fake_driver *driver);
uint8_t fake_driver_status(struct fake_driver *driver);

/*
 * fake_driver_add - one chain, available to the device at once: @nr_out readable buffers, then @nr_in writable ones.
 * @indirect: through a table, one descriptor of the ring. 0, or -ENOSPC: the ring is full.
 */
must_check int fake_driver_add(struct fake_driver *driver, unsigned index, const struct fake_buffer *buffers,
                               unsigned nr_out, unsigned nr_in, bool indirect, void *token);
/* Writes QueueNotify if the device wants to know of what was added since. True when it did. */
bool fake_driver_kick(struct fake_driver *driver, unsigned index);
/* 1 with the next used buffer; 0: none. */
must_check int fake_driver_collect(struct fake_driver *driver, unsigned index, struct fake_used *out);
bool fake_driver_has_used(const struct fake_driver *driver, unsigned index);

void fake_driver_want(struct fake_driver *driver, unsigned index, enum fake_want want);
/* With the event index: when @nr_slots more descriptors of the ring came back (split: chains), 1 = the next one. */
void fake_driver_want_after(struct fake_driver *driver, unsigned index, unsigned nr_slots);
/* Interrupts since the last call, without waiting: reads irq_fd, acknowledges. Bits of VIRTIO_INT_*. */
uint32_t fake_driver_interrupts(struct fake_driver *driver);

/* Turns the device's loop until nothing is ready; for tests in one thread. */
void fake_driver_run(struct fake_driver *driver);
/* One request in one go: adds, kicks, runs, collects. Bytes written by the device, or -EIO: it did not come back. */
must_check int64_t fake_driver_request(struct fake_driver *driver, unsigned index, const struct fake_buffer *buffers,
                                       unsigned nr_out, unsigned nr_in);

#endif
