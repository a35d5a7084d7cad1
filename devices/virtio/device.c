/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every virtio device has in common: status, features, reset, and the way from a kick to ops.notify.
 *
 *   live  =>  DRIVER_OK, so FEATURES_OK, so driver_features were checked and queues may be ready
 */
#include "devices/virtio/device.h"

#include <errno.h>

/* What a driver may set; NEEDS_RESET is ours. */
#define DRIVER_STATUS                                                                                                  \
    (VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK |  \
     VIRTIO_CONFIG_S_FAILED)
#define BEFORE_FEATURES_OK (VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER)

static void reset_queues_locked(struct virtio_device *device)
{
    for (unsigned i = 0; i < device->nr_queues; i++)
        virtq_reset(&device->queue[i], device->env->mem, device->queue_size);
}

void virtio_init(struct virtio_device *device)
{
    pthread_mutex_init(&device->lock, NULL);
    reset_queues_locked(device);
}

void virtio_fini(struct virtio_device *device)
{
    pthread_mutex_destroy(&device->lock);
}

void virtio_announce(struct virtio_device *device, unsigned index)
{
    if (virtio_is_live(device) && virtq_must_interrupt(&device->queue[index]))
        device->interrupt(device->transport, VIRTIO_INT_USED);
}

void virtio_notify_again(struct virtio_device *device, unsigned index)
{
    if (virtio_is_live(device))
        device->kick(device->transport, index);
}

void virtio_config_changed(struct virtio_device *device)
{
    device->config_generation++;
    /* No interrupt before DRIVER_OK (2.3.2); but the driver may have read the old value by then, so it comes after. */
    if (device->status & VIRTIO_CONFIG_S_DRIVER_OK)
        device->interrupt(device->transport, VIRTIO_INT_CONFIG);
    else
        device->config_pending = true;
}

void virtio_broken(struct virtio_device *device)
{
    if (device->status & VIRTIO_CONFIG_S_NEEDS_RESET)
        return;
    device->nr_broken++;
    device->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
    for (unsigned i = 0; i < device->nr_queues; i++)
        device->queue[i].broken = true;
    if (device->status & VIRTIO_CONFIG_S_DRIVER_OK)
        device->interrupt(device->transport, VIRTIO_INT_CONFIG);
}

int virtio_pop(struct virtio_device *device, unsigned index, struct virtq_chain *out)
{
    if (!virtio_is_live(device))
        return 0;
    int got = virtq_pop(&device->queue[index], out);
    if (got < 0)
        virtio_broken(device);
    return got == 1;
}

/* A driver may fill its queues before DRIVER_OK (3.1.1), and need not kick again: Linux's balloon leaves statistics so. */
static void look_at_queues_locked(struct virtio_device *device)
{
    for (unsigned i = 0; i < device->nr_queues; i++)
        if (device->queue[i].ready)
            virtio_notify_again(device, i);
}

static void reset_locked(struct virtio_device *device)
{
    device->nr_resets++;
    device->status = 0; /* not live: what reset ends announces nothing */
    if (device->ops->reset != NULL)
        device->ops->reset(device);
    reset_queues_locked(device);
    device->driver_features = device->wanted_features = 0;
    device->config_pending = false;
}

static void add_status_locked(struct virtio_device *device, uint8_t status)
{
    /* A driver never takes a bit back but by reset (2.1.1): what is missing in @status stays. */
    uint8_t new = (uint8_t)(status & DRIVER_STATUS & ~device->status);

    device->status |= new &(BEFORE_FEATURES_OK | VIRTIO_CONFIG_S_FAILED);
    if (new &VIRTIO_CONFIG_S_FEATURES_OK && (device->status & BEFORE_FEATURES_OK) == BEFORE_FEATURES_OK &&
        virtio_features_good(device, device->wanted_features)) {
        device->driver_features = device->wanted_features;
        device->status |= VIRTIO_CONFIG_S_FEATURES_OK;
    }
    if (new &VIRTIO_CONFIG_S_DRIVER_OK && device->status &VIRTIO_CONFIG_S_FEATURES_OK) {
        device->status |= VIRTIO_CONFIG_S_DRIVER_OK;
        if (virtio_is_live(device) && device->ops->activate != NULL)
            device->ops->activate(device);
        look_at_queues_locked(device);
        if (device->config_pending || !virtio_is_live(device))
            device->interrupt(device->transport, VIRTIO_INT_CONFIG);
        device->config_pending = false;
    }
}

void virtio_set_status(struct virtio_device *device, uint8_t status)
{
    pthread_mutex_lock(&device->lock);
    if (status == 0)
        reset_locked(device);
    else
        add_status_locked(device, status);
    pthread_mutex_unlock(&device->lock);
}

uint64_t virtio_offered(const struct virtio_device *device)
{
    return device->features | VIRTIO_TRANSPORT_FEATURES;
}

bool virtio_features_good(const struct virtio_device *device, uint64_t features)
{
    return (features & ~virtio_offered(device)) == 0 && features >> VIRTIO_F_VERSION_1 & 1;
}

void virtio_start_queue(struct virtio_device *device, unsigned index)
{
    struct virtq *q = &device->queue[index];

    /* Queues are made between FEATURES_OK and DRIVER_OK (3.1.1). */
    if (!(device->status & VIRTIO_CONFIG_S_FEATURES_OK) ||
        device->status & (VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_NEEDS_RESET) || q->ready)
        return;
    if (virtq_start(q, virtio_has(device, VIRTIO_F_RING_PACKED), virtio_has(device, VIRTIO_RING_F_EVENT_IDX),
                    virtio_has(device, VIRTIO_RING_F_INDIRECT_DESC)) != 0)
        virtio_broken(device);
}

void virtio_stop_queue(struct virtio_device *device, unsigned index)
{
    if (!device->queue[index].ready)
        return;
    /* A single queue cannot be taken away under a device that uses it: that is VIRTIO_F_RING_RESET, not offered. */
    if (device->status & VIRTIO_CONFIG_S_DRIVER_OK)
        virtio_broken(device);
    virtq_reset(&device->queue[index], device->env->mem, device->queue_size);
}

void virtio_kick(struct virtio_device *device, unsigned index)
{
    pthread_mutex_lock(&device->lock);
    device->nr_kicks++;
    if (virtio_is_live(device) && device->queue[index].ready)
        device->ops->notify(device, index);
    pthread_mutex_unlock(&device->lock);
}
