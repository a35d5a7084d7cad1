/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtq: one virtqueue, split or packed, as virtio 1.2 sections 2.7 and 2.8 have it, with indirect descriptors and the
 * event index. Device side.
 *
 * The driver is hostile. A chain is copied out of guest memory once and checked whole: addresses inside guest memory,
 * no loop, no more segments than VIRTQ_MAX_SEGMENTS, readable before writable, no indirect table in another, 1 to
 * 2^32 - 1 bytes in all. No more chains are in flight than the queue has entries. What is wrong breaks the queue: virtq_pop says -EINVAL from then on, the device asks for a reset (virtio_broken), and nothing
 * has been touched. No lock: the owner's (struct virtio_device) is held.
 */
#ifndef DEVICES_VIRTIO_QUEUE_H
#define DEVICES_VIRTIO_QUEUE_H

#include "mm/map/guest_mem.h"

#define VIRTQ_MAX_SIZE 256     /* entries that we offer */
#define VIRTQ_MAX_SEGMENTS 130 /* of one chain: 128 of data, a header and a status */

struct virtq_segment {
    gpa_t gpa;
    uint32_t bytes; /* may be 0 */
};

/* One request: first what the device may read, then what it may write. A copy: the guest cannot change it. */
struct virtq_chain {
    uint16_t id;       /* the driver's number for it: any, and two in flight may have the same */
    uint16_t nr_slots; /* packed ring: descriptors that it takes there */
    uint16_t nr_out, nr_in;
    uint64_t out_bytes, in_bytes;
    struct virtq_segment segment[VIRTQ_MAX_SEGMENTS]; /* nr_out readable, then nr_in writable */
};

struct virtq {
    const struct guest_mem *mem;
    uint16_t max_size; /* what is offered */
    /* as the driver set them, while it is not ready */
    uint16_t size;
    gpa_t desc, driver,
        device; /* descriptor table or ring; available ring or driver events; used ring or device events */
    bool ready;
    /* as negotiated, set by virtq_start */
    bool packed, event_idx, indirect;
    bool broken;
    /* addresses of the three areas, whole and aligned; set by virtq_start */
    char *desc_hva, *driver_hva, *device_hva;
    uint16_t next_avail, next_used;
    bool avail_wrap, used_wrap;        /* packed: wrap counters */
    uint32_t nr_unsignalled;           /* slots pushed since virtq_must_interrupt was last asked */
    uint64_t nr_chains, nr_interrupts; /* taken; asked for by virtq_must_interrupt */
};

/* As after power on: not ready, size max_size. */
void virtq_reset(struct virtq *q, const struct guest_mem *mem, uint16_t max_size);
/* The driver says that the queue is ready. -EINVAL: size 0 or too large, (split) no power of two, areas misaligned or
 * outside guest memory: not ready then. */
must_check int virtq_start(struct virtq *q, bool packed, bool event_idx, bool indirect);

/* The next chain: 1 with *out; 0: none; -EINVAL: the queue is broken. Unless 1, *out is of no use. */
must_check int virtq_pop(struct virtq *q, struct virtq_chain *out);
/* The chain is done, in any order; the device wrote @written_bytes, from its first writable byte on. A queue that is not
 * ready any more, or broken, is left alone. */
void virtq_push(struct virtq *q, const struct virtq_chain *chain, uint32_t written_bytes);
/* After one or several pushes: does the driver want an interrupt? */
must_check bool virtq_must_interrupt(struct virtq *q);
/*
 * Notifications off: the driver need not kick while the device takes chains. On again, and after every time the device
 * found the queue empty, off or not: with the event index this is what asks for the next kick. True when chains came
 * meanwhile, which the caller takes, or nobody tells it of them.
 */
void virtq_disable_kicks(struct virtq *q);
must_check bool virtq_enable_kicks(struct virtq *q);

/*
 * Bytes [offset, offset + bytes) of the readable part to @to; of @from to the writable part. Return bytes copied: fewer
 * where the chain is shorter. Segments were checked, so nothing can fail.
 */
uint64_t virtq_read(const struct virtq *q, const struct virtq_chain *chain, uint64_t offset, void *to, uint64_t bytes);
uint64_t virtq_write(const struct virtq *q, const struct virtq_chain *chain, uint64_t offset, const void *from,
                     uint64_t bytes);

/* Ring positions and areas agree. False and *why on a breach. */
bool virtq_check(const struct virtq *q, const char **why);

#endif
