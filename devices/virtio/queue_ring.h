/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the two ring formats share, and what queue.c calls of them. Nobody else includes this.
 *
 * The guest writes while we read. Words of rings are read with atomic loads, one load a word. Descriptors are copied
 * with volatile loads, so that the compiler cannot read a field a second time after it was checked.
 */
#ifndef DEVICES_VIRTIO_QUEUE_RING_H
#define DEVICES_VIRTIO_QUEUE_RING_H

#include "devices/virtio/queue.h"

#include <linux/virtio_ring.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "rings are little endian and read as they are");
_Static_assert(sizeof(struct vring_desc) == 16 && sizeof(struct vring_packed_desc) == 16,
               "virtio 1.2, 2.7.5 and 2.8.13");

#define DESC_BYTES 16

/* The fields of a descriptor of either kind. */
struct ring_desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags;
    uint16_t id;   /* packed */
    uint16_t next; /* split */
};

/* A descriptor of memory at any alignment: indirect tables need none. */
static inline void ring_copy_desc(uint64_t to[2], const void *from)
{
    typedef volatile uint64_t __attribute__((aligned(1), may_alias)) word;
    const word *at = from;

    to[0] = at[0];
    to[1] = at[1];
}

static inline struct ring_desc ring_desc_split(const void *from)
{
    uint64_t word[2];

    ring_copy_desc(word, from);
    return (struct ring_desc){.addr = word[0],
                              .len = (uint32_t)word[1],
                              .flags = (uint16_t)(word[1] >> 32),
                              .next = (uint16_t)(word[1] >> 48)};
}

static inline struct ring_desc ring_desc_packed(const void *from)
{
    uint64_t word[2];

    ring_copy_desc(word, from);
    return (struct ring_desc){
        .addr = word[0], .len = (uint32_t)word[1], .id = (uint16_t)(word[1] >> 32), .flags = (uint16_t)(word[1] >> 48)};
}

/*
 * queue_add_segment - one buffer of the chain, checked. -EINVAL: outside memory, readable after writable, or more than
 * @out can hold.
 */
must_check int queue_add_segment(const struct virtq *q, struct virtq_chain *out, const struct ring_desc *desc);
/* -EINVAL: not negotiated, chained, no whole descriptors, none, or outside memory. Else *table and *nr. */
must_check int queue_find_table(const struct virtq *q, const struct ring_desc *desc, const char **table, uint32_t *nr);

/* What a ring format does. @q is ready and not broken. As virtq_* of the same name; -EINVAL does not yet break it. */
void split_areas(const struct virtq *q, uint64_t bytes[3], unsigned align[3]);
int split_pop(struct virtq *q, struct virtq_chain *out);
void split_push(struct virtq *q, const struct virtq_chain *chain, const uint32_t *written_bytes, unsigned nr);
bool split_must_interrupt(const struct virtq *q, uint32_t nr_pushed);
void split_disable_kicks(struct virtq *q);
bool split_enable_kicks(struct virtq *q);

void packed_areas(const struct virtq *q, uint64_t bytes[3], unsigned align[3]);
int packed_pop(struct virtq *q, struct virtq_chain *out);
void packed_push(struct virtq *q, const struct virtq_chain *chain, const uint32_t *written_bytes, unsigned nr);
bool packed_must_interrupt(const struct virtq *q, uint32_t nr_pushed);
void packed_disable_kicks(struct virtq *q);
bool packed_enable_kicks(struct virtq *q);

/* Slots of the ring that were popped and not pushed yet. */
unsigned split_in_flight(const struct virtq *q);
unsigned packed_in_flight(const struct virtq *q);

#endif
