/* SPDX-License-Identifier: Apache-2.0 */
/*
 * byte_ring: bytes on their way between a host's descriptor and the guest, in a buffer of fixed size. The owner copies
 * straight in and out, a piece at a time. Invariant: 0 <= nr <= size, first < size. No lock: the owner's.
 */
#ifndef DEVICES_BYTE_RING_H
#define DEVICES_BYTE_RING_H

#include "mm/base/types.h"

struct byte_ring {
    uint8_t *bytes;
    uint32_t size; /* bytes, at least 1 */
    uint32_t first, nr;
};

static inline uint32_t byte_ring_room(const struct byte_ring *ring)
{
    return ring->size - ring->nr;
}

/* The next free piece: its address and length in bytes, 0 when full. byte_ring_added: @nr of them were filled. */
static inline uint32_t byte_ring_space(const struct byte_ring *ring, uint8_t **at)
{
    uint32_t end = (uint32_t)(((uint64_t)ring->first + ring->nr) % ring->size);

    *at = ring->bytes + end;
    return MIN_OF(byte_ring_room(ring), ring->size - end);
}
static inline void byte_ring_added(struct byte_ring *ring, uint32_t nr)
{
    ring->nr += nr;
}

/* The oldest piece: its address and length in bytes, 0 when empty. byte_ring_taken: @nr of them are done with. */
static inline uint32_t byte_ring_data(const struct byte_ring *ring, uint8_t **at)
{
    *at = ring->bytes + ring->first;
    return MIN_OF(ring->nr, ring->size - ring->first);
}
static inline void byte_ring_taken(struct byte_ring *ring, uint32_t nr)
{
    ring->first = (uint32_t)(((uint64_t)ring->first + nr) % ring->size);
    ring->nr -= nr;
}

static inline void byte_ring_clear(struct byte_ring *ring)
{
    ring->first = ring->nr = 0;
}

#endif
