/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mmio transport, virtio 1.2 section 4.2, version 2 registers: one device in one page of guest physical addresses,
 * with one interrupt line.
 *
 *   guest writes QueueNotify -> KVM ioeventfd -> kick_fd of that queue -> loop -> virtio_kick -> ops.notify
 *   device -> virtio_announce -> irq_fd -> KVM irqfd -> guest
 *
 * Without ioeventfd a write to QueueNotify makes kick_fd readable itself: the path is the same from there on.
 */
#ifndef DEVICES_VIRTIO_MMIO_H
#define DEVICES_VIRTIO_MMIO_H

#include "devices/virtio/device.h"

#define VIRTIO_MMIO_BYTES 0x1000
#define VIRTIO_MMIO_NOTIFY 0x050 /* QueueNotify: what an ioeventfd watches, with the queue number as value, 32 bits */

struct virtio_mmio;
struct virtio_mmio_kick {
    struct virtio_mmio *mmio;
    unsigned index;
};

struct virtio_mmio {
    struct virtio_device *device;
    int kick_fd[VIRTIO_MAX_QUEUES];                  /* eventfds, one a queue */
    struct virtio_mmio_kick kick[VIRTIO_MAX_QUEUES]; /* what the loop calls back with */
    int irq_fd;                                      /* eventfd; readable: raise the interrupt line (edge) */
    uint32_t interrupt_status;                       /* atomic: bits of VIRTIO_INT_* */
    /* guarded by device.lock */
    uint32_t device_features_sel, driver_features_sel, queue_sel;
    uint64_t nr_interrupts;
};

/* Attaches @device, made by virtio_init, to its loop and its interrupt. 0 or -errno with nothing left. */
must_check int virtio_mmio_init(struct virtio_mmio *mmio, struct virtio_device *device);
/* The loop does not run any more. Resets the device. */
void virtio_mmio_fini(struct virtio_mmio *mmio);
/* Registers, any vCPU thread. @offset < VIRTIO_MMIO_BYTES; @bytes 1, 2, 4 or 8; little endian. Whatever is not in the
 * specification reads as 0 and is not written. So do registers that are not accessed as 4 aligned bytes; configuration
 * space takes any access inside config_bytes, writes after FEATURES_OK (virtio_ops.writes_early: at any time). A write of Status 0 waits for the device's I/O. */
uint64_t virtio_mmio_read(struct virtio_mmio *mmio, uint64_t offset, unsigned bytes);
void virtio_mmio_write(struct virtio_mmio *mmio, uint64_t offset, unsigned bytes, uint64_t value);

#endif
