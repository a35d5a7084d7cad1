/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtio device as its transport sees it. Each device has a folder devices/NAME with the same files:
 *
 *   NAME.h      how to make it; what its user can ask of it; what a hostile driver can do to it
 *   device.c    features, configuration space, queues, reset
 *   request.c   one request of the guest: copied, checked, then done
 *
 * and embeds a struct virtio_device as its first member. All ops are called with device.lock held.
 */
#ifndef DEVICES_VIRTIO_DEVICE_H
#define DEVICES_VIRTIO_DEVICE_H

#include "devices/env.h"
#include "devices/virtio/queue.h"

#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_ring.h>
#include <pthread.h>

#define VIRTIO_MAX_QUEUES 10
#define VIRTIO_MAX_CONFIG_BYTES 256

/* Features of the transport, offered by every device: version 1, indirect, event index, packed ring. */
#define VIRTIO_TRANSPORT_FEATURES                                                                                      \
    (UINT64_C(1) << VIRTIO_F_VERSION_1 | UINT64_C(1) << VIRTIO_RING_F_INDIRECT_DESC |                                  \
     UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX | UINT64_C(1) << VIRTIO_F_RING_PACKED)

struct virtio_device;

struct virtio_ops {
    /* The driver is through: features are final, queues are ready. May be NULL. */
    void (*activate)(struct virtio_device *device);
    /*
     * As after power on, whatever the driver did. Nothing of the device is under way when it returns: it waits for
     * I/O to end, and gives pins back. Queues are reset by the caller afterwards. From any thread. May be NULL.
     */
    void (*reset)(struct virtio_device *device);
    /* The driver has something in queue @index, which is ready, and DRIVER_OK is set. Device thread. */
    void (*notify)(struct virtio_device *device, unsigned index);
    /*
     * Configuration space, [offset, offset + bytes) inside config_bytes. Write may be NULL: read-only. A read must not
     * depend on anything but the device. Writes come from FEATURES_OK on (3.1.1), with writes_early also before.
     */
    void (*config_read)(struct virtio_device *device, unsigned offset, void *to, unsigned bytes);
    void (*config_write)(struct virtio_device *device, unsigned offset, const void *from, unsigned bytes);
    bool writes_early;
};

/* The transport's side: interrupt to the driver. */
#define VIRTIO_INT_USED 1u /* bits of InterruptStatus */
#define VIRTIO_INT_CONFIG 2u

struct virtio_device {
    const struct virtio_ops *ops;
    const char *name; /* "balloon", "disk0": for messages and `ebb show` */
    const struct device_env *env;
    uint32_t id;       /* VIRTIO_ID_* */
    uint64_t features; /* offered, without those of the transport */
    unsigned nr_queues;
    uint16_t queue_size; /* offered for each queue; at most VIRTQ_MAX_SIZE */
    unsigned config_bytes;
    /* Set by the transport. Any thread, lock held. The interrupt line; and a kick of ours, as if the driver's. */
    void (*interrupt)(void *transport, uint32_t bits);
    void (*kick)(void *transport, unsigned index);
    void *transport;
    pthread_mutex_t lock;
    /* guarded by lock */
    uint64_t wanted_features; /* as the driver wrote them; final with FEATURES_OK */
    uint64_t driver_features; /* those accepted: 0 before FEATURES_OK */
    uint8_t status;           /* VIRTIO_CONFIG_S_* */
    struct virtq queue[VIRTIO_MAX_QUEUES];
    uint32_t config_generation;
    bool config_pending; /* changed before DRIVER_OK: interrupt then */
    uint64_t nr_kicks, nr_resets, nr_broken;
};

/*
 * virtio_init - @device: ops, name, env, id, features, nr_queues, queue_size, config_bytes are set, all else is zero.
 * Makes the lock, resets queues. virtio_fini: the opposite; ops.reset is the owner's to call.
 */
void virtio_init(struct virtio_device *device);
void virtio_fini(struct virtio_device *device);

static inline bool virtio_has(const struct virtio_device *device, unsigned feature)
{
    return device->driver_features >> feature & 1;
}
static inline bool virtio_is_live(const struct virtio_device *device)
{
    return device->status & VIRTIO_CONFIG_S_DRIVER_OK && !(device->status & VIRTIO_CONFIG_S_NEEDS_RESET);
}

/* Everything pushed to queue @index so far is announced, if the driver wants to know. Lock held. */
void virtio_announce(struct virtio_device *device, unsigned index);
/*
 * virtio_notify_again - ops.notify of queue @index once more, after others had their turn: for a device that stops after
 * a bounded number of requests while there are more. Lock held.
 */
void virtio_notify_again(struct virtio_device *device, unsigned index);
/* The configuration space has changed: new generation, interrupt (at DRIVER_OK when that is yet to come). Lock held. */
void virtio_config_changed(struct virtio_device *device);
/*
 * virtio_broken - the driver broke a rule: NEEDS_RESET, counted; the device does nothing more until it is reset: pops
 * and pushes of all its queues are without effect. Not for a request's failure, which its status tells. Lock held.
 */
void virtio_broken(struct virtio_device *device);
/* virtq_pop, and virtio_broken when the queue is: 1 with *out, else 0. Lock held. */
must_check int virtio_pop(struct virtio_device *device, unsigned index, struct virtq_chain *out);

/* What the transport tells the device, in the order in which a driver does it. */
/* With the lock: wanted_features, queue sizes and addresses are written by the transport itself. */
uint64_t virtio_offered(const struct virtio_device *device);
/* FEATURES_OK holds only when this is true: no feature that was not offered, VERSION_1 is among them. */
bool virtio_features_good(const struct virtio_device *device, uint64_t features);
/* The queue is ready, or (virtq_start refused) the device is broken. No effect before FEATURES_OK, after DRIVER_OK, while
 * it is broken. */
void virtio_start_queue(struct virtio_device *device, unsigned index);
/* Not ready, as after reset. After DRIVER_OK the device is broken. */
void virtio_stop_queue(struct virtio_device *device, unsigned index);
/* Without the lock, which they take. Status bits are only added, in their order; 0: reset. */
void virtio_set_status(struct virtio_device *device, uint8_t status);
/* A kick of queue @index < nr_queues, by the device thread. */
void virtio_kick(struct virtio_device *device, unsigned index);

#endif
