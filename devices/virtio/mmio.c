/* SPDX-License-Identifier: Apache-2.0 */
#include "devices/virtio/mmio.h"

#include <errno.h>
#include <linux/virtio_mmio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define MAGIC 0x74726976 /* "virt" */
#define VERSION 2
#define VENDOR 0x20626245 /* "Ebb " */

_Static_assert(VIRTIO_MMIO_NOTIFY == VIRTIO_MMIO_QUEUE_NOTIFY, "the same register");

static void make_readable(int fd)
{
    uint64_t one = 1;

    (void)!write(fd, &one, sizeof(one)); /* fails only when it is readable already, 2^64 - 2 times */
}

static void interrupt(void *transport, uint32_t bits)
{
    struct virtio_mmio *mmio = transport;

    mmio->nr_interrupts++;
    __atomic_fetch_or(&mmio->interrupt_status, bits, __ATOMIC_SEQ_CST);
    make_readable(mmio->irq_fd);
}

static void kick(void *transport, unsigned index)
{
    struct virtio_mmio *mmio = transport;

    make_readable(mmio->kick_fd[index]);
}

static void on_kick(void *ctx, uint32_t events)
{
    struct virtio_mmio_kick *from = ctx;
    struct virtio_mmio *mmio = from->mmio;
    uint64_t count;

    (void)events;
    /* Empty already when nothing was written since: then there is no kick to tell. */
    if (read(mmio->kick_fd[from->index], &count, sizeof(count)) == sizeof(count))
        virtio_kick(mmio->device, from->index);
}

/* The first @nr queues' descriptors, and the interrupt's. */
static void close_all(struct virtio_mmio *mmio, unsigned nr)
{
    for (unsigned i = 0; i < nr; i++) {
        loop_remove(mmio->device->env->loop, mmio->kick_fd[i]);
        close(mmio->kick_fd[i]);
    }
    close(mmio->irq_fd);
}

int virtio_mmio_init(struct virtio_mmio *mmio, struct virtio_device *device)
{
    *mmio = (struct virtio_mmio){.device = device};
    mmio->irq_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (mmio->irq_fd < 0)
        return -errno;
    for (unsigned i = 0; i < device->nr_queues; i++) {
        int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        int err = -errno;

        mmio->kick_fd[i] = fd;
        mmio->kick[i] = (struct virtio_mmio_kick){.mmio = mmio, .index = i};
        if (fd >= 0)
            err = loop_add(device->env->loop, fd, EPOLLIN, on_kick, &mmio->kick[i]);
        if (err != 0) {
            if (fd >= 0)
                close(fd);
            close_all(mmio, i);
            return err;
        }
    }
    device->interrupt = interrupt;
    device->kick = kick;
    device->transport = mmio;
    return 0;
}

void virtio_mmio_fini(struct virtio_mmio *mmio)
{
    virtio_set_status(mmio->device, 0);
    close_all(mmio, mmio->device->nr_queues);
}

/* The queue that QueueSel names, or NULL: there is none. */
static struct virtq *selected_queue(struct virtio_mmio *mmio)
{
    return mmio->queue_sel < mmio->device->nr_queues ? &mmio->device->queue[mmio->queue_sel] : NULL;
}

static uint32_t read_register_locked(struct virtio_mmio *mmio, uint64_t offset)
{
    const struct virtio_device *device = mmio->device;
    const struct virtq *q = selected_queue(mmio);

    switch (offset) {
    case VIRTIO_MMIO_MAGIC_VALUE:
        return MAGIC;
    case VIRTIO_MMIO_VERSION:
        return VERSION;
    case VIRTIO_MMIO_DEVICE_ID:
        return device->id;
    case VIRTIO_MMIO_VENDOR_ID:
        return VENDOR;
    case VIRTIO_MMIO_DEVICE_FEATURES:
        return mmio->device_features_sel < 2 ? (uint32_t)(virtio_offered(device) >> 32 * mmio->device_features_sel) : 0;
    case VIRTIO_MMIO_QUEUE_NUM_MAX:
        return q != NULL ? q->max_size : 0;
    case VIRTIO_MMIO_QUEUE_READY:
        return q != NULL && q->ready;
    case VIRTIO_MMIO_INTERRUPT_STATUS:
        return __atomic_load_n(&mmio->interrupt_status, __ATOMIC_SEQ_CST);
    case VIRTIO_MMIO_STATUS:
        return device->status;
    case VIRTIO_MMIO_SHM_LEN_LOW: /* no shared memory: length -1 (4.2.2) */
    case VIRTIO_MMIO_SHM_LEN_HIGH:
    case VIRTIO_MMIO_SHM_BASE_LOW:
    case VIRTIO_MMIO_SHM_BASE_HIGH:
        return UINT32_MAX;
    case VIRTIO_MMIO_CONFIG_GENERATION:
        return device->config_generation;
    default:
        return 0;
    }
}

static bool is_config(const struct virtio_mmio *mmio, uint64_t offset, unsigned bytes)
{
    return offset >= VIRTIO_MMIO_CONFIG && offset - VIRTIO_MMIO_CONFIG + bytes <= mmio->device->config_bytes;
}

static bool is_register(uint64_t offset, unsigned bytes)
{
    return offset < VIRTIO_MMIO_CONFIG && offset % 4 == 0 && bytes == 4;
}

uint64_t virtio_mmio_read(struct virtio_mmio *mmio, uint64_t offset, unsigned bytes)
{
    struct virtio_device *device = mmio->device;
    uint64_t value = 0;

    pthread_mutex_lock(&device->lock);
    if (is_register(offset, bytes))
        value = read_register_locked(mmio, offset);
    else if (is_config(mmio, offset, bytes))
        device->ops->config_read(device, (unsigned)(offset - VIRTIO_MMIO_CONFIG), &value, bytes);
    pthread_mutex_unlock(&device->lock);
    return value;
}

static void set_low(uint64_t *to, uint32_t value)
{
    *to = (*to & ~(uint64_t)UINT32_MAX) | value;
}

static void set_high(uint64_t *to, uint32_t value)
{
    *to = (*to & UINT32_MAX) | (uint64_t)value << 32;
}

/* Size and addresses of a queue are the driver's to set until it is ready. */
static void write_queue_locked(struct virtq *q, uint64_t offset, uint32_t value)
{
    switch (offset) {
    case VIRTIO_MMIO_QUEUE_NUM:
        q->size = (uint16_t)MIN_OF(value, UINT16_MAX); /* virtq_start judges */
        break;
    case VIRTIO_MMIO_QUEUE_DESC_LOW:
        set_low(&q->desc.v, value);
        break;
    case VIRTIO_MMIO_QUEUE_DESC_HIGH:
        set_high(&q->desc.v, value);
        break;
    case VIRTIO_MMIO_QUEUE_AVAIL_LOW:
        set_low(&q->driver.v, value);
        break;
    case VIRTIO_MMIO_QUEUE_AVAIL_HIGH:
        set_high(&q->driver.v, value);
        break;
    case VIRTIO_MMIO_QUEUE_USED_LOW:
        set_low(&q->device.v, value);
        break;
    case VIRTIO_MMIO_QUEUE_USED_HIGH:
        set_high(&q->device.v, value);
        break;
    default:
        break;
    }
}

static void write_features_locked(struct virtio_mmio *mmio, uint32_t value)
{
    struct virtio_device *device = mmio->device;

    if (device->status & VIRTIO_CONFIG_S_FEATURES_OK)
        return;
    if (mmio->driver_features_sel == 0)
        set_low(&device->wanted_features, value);
    else if (mmio->driver_features_sel == 1)
        set_high(&device->wanted_features, value);
}

static void write_register_locked(struct virtio_mmio *mmio, uint64_t offset, uint32_t value)
{
    struct virtq *q = selected_queue(mmio);

    switch (offset) {
    case VIRTIO_MMIO_DEVICE_FEATURES_SEL:
        mmio->device_features_sel = value;
        break;
    case VIRTIO_MMIO_DRIVER_FEATURES_SEL:
        mmio->driver_features_sel = value;
        break;
    case VIRTIO_MMIO_DRIVER_FEATURES:
        write_features_locked(mmio, value);
        break;
    case VIRTIO_MMIO_QUEUE_SEL:
        mmio->queue_sel = value;
        break;
    case VIRTIO_MMIO_QUEUE_READY:
        if (q != NULL && value == 0)
            virtio_stop_queue(mmio->device, mmio->queue_sel);
        else if (q != NULL && value == 1)
            virtio_start_queue(mmio->device, mmio->queue_sel);
        break;
    case VIRTIO_MMIO_INTERRUPT_ACK:
        __atomic_fetch_and(&mmio->interrupt_status, ~value, __ATOMIC_SEQ_CST);
        break;
    default:
        if (q != NULL && !q->ready)
            write_queue_locked(q, offset, value);
        break;
    }
}

static void write_status(struct virtio_mmio *mmio, uint32_t value)
{
    /* Bits 8 and up do not exist; a value of such alone is no reset. */
    if (value != 0) {
        if ((value & UINT8_MAX) != 0)
            virtio_set_status(mmio->device, (uint8_t)value);
        return;
    }
    virtio_set_status(mmio->device, 0);
    pthread_mutex_lock(&mmio->device->lock);
    mmio->device_features_sel = mmio->driver_features_sel = mmio->queue_sel = 0;
    /* Unless another vCPU has set the device up again meanwhile. */
    if (mmio->device->status == 0)
        __atomic_store_n(&mmio->interrupt_status, 0, __ATOMIC_SEQ_CST);
    pthread_mutex_unlock(&mmio->device->lock);
}

void virtio_mmio_write(struct virtio_mmio *mmio, uint64_t offset, unsigned bytes, uint64_t value)
{
    struct virtio_device *device = mmio->device;
    bool whole = is_register(offset, bytes);
    uint32_t word = (uint32_t)value;

    if (whole && offset == VIRTIO_MMIO_QUEUE_NOTIFY) {
        if (word < device->nr_queues)
            make_readable(mmio->kick_fd[word]);
        return;
    }
    if (whole && offset == VIRTIO_MMIO_STATUS) {
        write_status(mmio, word);
        return;
    }
    pthread_mutex_lock(&device->lock);
    if (whole)
        write_register_locked(mmio, offset, word);
    else if (is_config(mmio, offset, bytes) && device->ops->config_write != NULL &&
             (device->status & VIRTIO_CONFIG_S_FEATURES_OK || device->ops->writes_early))
        device->ops->config_write(device, (unsigned)(offset - VIRTIO_MMIO_CONFIG), &value, bytes);
    pthread_mutex_unlock(&device->lock);
}
