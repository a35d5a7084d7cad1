/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device of no kind with two queues and a little configuration space, its transport, and a driver: what the tests of
 * rings and transport stand on. The test takes chains itself.
 */
#ifndef TESTS_UNIT_VIRTQ_RIG_H
#define TESTS_UNIT_VIRTQ_RIG_H

#include <check.h>
#include <linux/virtio_mmio.h>
#include <string.h>

#include "tests/fake/fake_driver.h"

#define EVENT_IDX (UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX)
#define INDIRECT (UINT64_C(1) << VIRTIO_RING_F_INDIRECT_DESC)
#define PACKED (UINT64_C(1) << VIRTIO_F_RING_PACKED)

#define RIG_QUEUES 2
#define RIG_CONFIG_BYTES 13
#define RIG_FEATURE 5 /* bit of the device's own */
#define RIG_MEMORY_START UINT64_C(0x40000000)
#define RIG_MEMORY_BYTES (UINT64_C(4) << 20)

struct rig {
    struct virtio_device device; /* first */
    struct fake_memory memory;
    struct loop *loop;
    struct device_env env;
    struct virtio_mmio mmio;
    struct fake_driver driver;
    uint8_t config[RIG_CONFIG_BYTES];
    unsigned nr_activated, nr_reset, nr_notified[RIG_QUEUES];
};

static inline struct rig *rig_of(struct virtio_device *device)
{
    return container_of(device, struct rig, device);
}

static inline void rig_activate(struct virtio_device *device)
{
    rig_of(device)->nr_activated++;
}

static inline void rig_reset(struct virtio_device *device)
{
    rig_of(device)->nr_reset++;
}

static inline void rig_notify(struct virtio_device *device, unsigned index)
{
    rig_of(device)->nr_notified[index]++;
}

static inline void rig_config_read(struct virtio_device *device, unsigned offset, void *to, unsigned bytes)
{
    memcpy(to, rig_of(device)->config + offset, bytes);
}

static inline void rig_config_write(struct virtio_device *device, unsigned offset, const void *from, unsigned bytes)
{
    memcpy(rig_of(device)->config + offset, from, bytes);
}

static const struct virtio_ops rig_ops = {.activate = rig_activate,
                                          .reset = rig_reset,
                                          .notify = rig_notify,
                                          .config_read = rig_config_read,
                                          .config_write = rig_config_write};

static inline void rig_init(struct rig *rig)
{
    memset(rig, 0, sizeof(*rig));
    fake_memory_init(&rig->memory, RIG_MEMORY_START, RIG_MEMORY_BYTES);
    ck_assert_int_eq(loop_create(&rig->loop), 0);
    rig->env = (struct device_env){.mem = &rig->memory.mem, .loop = rig->loop};
    rig->device.ops = &rig_ops;
    rig->device.name = "rig";
    rig->device.env = &rig->env;
    rig->device.id = 42;
    rig->device.features = UINT64_C(1) << RIG_FEATURE;
    rig->device.nr_queues = RIG_QUEUES;
    rig->device.queue_size = VIRTQ_MAX_SIZE;
    rig->device.config_bytes = RIG_CONFIG_BYTES;
    virtio_init(&rig->device);
    ck_assert_int_eq(virtio_mmio_init(&rig->mmio, &rig->device), 0);
    fake_driver_init(&rig->driver, &rig->mmio, &rig->memory);
}

static inline void rig_fini(struct rig *rig)
{
    virtio_mmio_fini(&rig->mmio);
    virtio_fini(&rig->device);
    loop_destroy(rig->loop);
    fake_memory_fini(&rig->memory);
}

/* As ck_assert, for what runs a million times: Check writes a file at each of its own. */
#define rig_assert(condition)                                                                                          \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            ck_abort_msg("%s", #condition);                                                                            \
    } while (0)

static inline void rig_check(const struct rig *rig)
{
    const char *why = "";

    for (unsigned i = 0; i < RIG_QUEUES; i++) {
        if (!virtq_check(&rig->device.queue[i], &why))
            ck_abort_msg("queue %u: %s", i, why);
    }
}

#endif
