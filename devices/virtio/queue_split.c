/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The split ring, virtio 1.2 section 2.7:
 *
 *   desc_hva     struct vring_desc [size]
 *   driver_hva   flags, idx, ring [size], used_event         the driver writes
 *   device_hva   flags, idx, ring [size], avail_event        we write
 *
 * next_avail and next_used count without end, modulo 2^16; in flight = next_avail - next_used <= size.
 *
 * Order. The driver stores avail.idx (release), we load it (acquire): the descriptors are there. We store used.idx,
 * the driver loads it: the used element is there. Both sides store their index and then load the other's event or
 * flags; all four are sequentially consistent, so that one of the two sees the other and no wake-up is lost.
 */
#include "devices/virtio/queue_ring.h"

#include <errno.h>

#define RING_FLAGS 0 /* offsets in both rings, bytes */
#define RING_IDX 2
#define RING_ENTRIES 4
#define AVAIL_BYTES 2 /* of an entry */
#define USED_BYTES 8

void split_areas(const struct virtq *q, uint64_t bytes[3], unsigned align[3])
{
    unsigned event_bytes = q->event_idx ? 2 : 0;

    bytes[0] = (uint64_t)DESC_BYTES * q->size;
    bytes[1] = RING_ENTRIES + (uint64_t)AVAIL_BYTES * q->size + event_bytes;
    bytes[2] = RING_ENTRIES + (uint64_t)USED_BYTES * q->size + event_bytes;
    align[0] = VRING_DESC_ALIGN_SIZE;
    align[1] = VRING_AVAIL_ALIGN_SIZE;
    align[2] = VRING_USED_ALIGN_SIZE;
}

static uint16_t *word16(char *area, unsigned offset)
{
    return (uint16_t *)(void *)(area + offset);
}

static uint16_t load_avail_idx(const struct virtq *q)
{
    return __atomic_load_n(word16(q->driver_hva, RING_IDX), __ATOMIC_SEQ_CST);
}

unsigned split_in_flight(const struct virtq *q)
{
    return (uint16_t)(q->next_avail - q->next_used);
}

/* An indirect table: its descriptors are chained by next, as those of the ring are. */
static int add_table(struct virtq *q, struct virtq_chain *out, const struct ring_desc *head)
{
    const char *table;
    uint32_t nr, index = 0;
    int err = queue_find_table(q, head, &table, &nr);

    if (err != 0)
        return err;
    for (uint32_t taken = 0; taken < nr; taken++) {
        struct ring_desc desc = ring_desc_split(table + (uint64_t)index * DESC_BYTES);

        if (desc.flags & VRING_DESC_F_INDIRECT)
            return -EINVAL;
        err = queue_add_segment(q, out, &desc);
        if (err != 0)
            return err;
        if (!(desc.flags & VRING_DESC_F_NEXT))
            return 0;
        index = desc.next;
        if (index >= nr)
            return -EINVAL;
    }
    return -EINVAL; /* more links than descriptors: a loop */
}

int split_pop(struct virtq *q, struct virtq_chain *out)
{
    uint16_t nr_new = (uint16_t)(load_avail_idx(q) - q->next_avail);

    if (nr_new == 0)
        return 0;
    /* Every chain takes a descriptor at least, so that ring and flight hold no more than size together. */
    if (nr_new + split_in_flight(q) > q->size)
        return -EINVAL;
    unsigned entry = q->next_avail % q->size;
    uint16_t index = __atomic_load_n(word16(q->driver_hva, RING_ENTRIES + AVAIL_BYTES * entry), __ATOMIC_RELAXED);

    out->id = index;
    out->nr_slots = 1;
    for (unsigned taken = 0; taken < q->size; taken++) {
        int err;

        if (index >= q->size)
            return -EINVAL;
        struct ring_desc desc = ring_desc_split(q->desc_hva + DESC_BYTES * index);
        if (desc.flags & VRING_DESC_F_INDIRECT)
            err = add_table(q, out, &desc);
        else
            err = queue_add_segment(q, out, &desc);
        if (err != 0)
            return err;
        if (!(desc.flags & VRING_DESC_F_NEXT)) {
            q->next_avail++;
            return 1;
        }
        index = desc.next;
    }
    return -EINVAL; /* a loop */
}

void split_push(struct virtq *q, const struct virtq_chain *chain, const uint32_t *written_bytes, unsigned nr)
{
    for (unsigned i = 0; i < nr; i++) {
        unsigned entry = q->next_used % q->size;
        uint32_t *used = (uint32_t *)(void *)(q->device_hva + RING_ENTRIES + USED_BYTES * entry);

        used[0] = chain[i].id;
        used[1] = written_bytes[i];
        q->next_used++;
    }
    __atomic_store_n(word16(q->device_hva, RING_IDX), q->next_used, __ATOMIC_SEQ_CST);
}

bool split_must_interrupt(const struct virtq *q, uint32_t nr_pushed)
{
    if (!q->event_idx)
        return !(__atomic_load_n(word16(q->driver_hva, RING_FLAGS), __ATOMIC_SEQ_CST) & VRING_AVAIL_F_NO_INTERRUPT);
    uint16_t event =
        __atomic_load_n(word16(q->driver_hva, RING_ENTRIES + (unsigned)AVAIL_BYTES * q->size), __ATOMIC_SEQ_CST);

    return vring_need_event(event, q->next_used, (uint16_t)(q->next_used - nr_pushed));
}

void split_disable_kicks(struct virtq *q)
{
    /* With the event index the flag is not used; avail_event is left behind, and asks for no kick until it is passed. */
    if (!q->event_idx)
        __atomic_store_n(word16(q->device_hva, RING_FLAGS), VRING_USED_F_NO_NOTIFY, __ATOMIC_RELAXED);
}

bool split_enable_kicks(struct virtq *q)
{
    if (q->event_idx)
        __atomic_store_n(word16(q->device_hva, RING_ENTRIES + (unsigned)USED_BYTES * q->size), q->next_avail,
                         __ATOMIC_SEQ_CST);
    else
        __atomic_store_n(word16(q->device_hva, RING_FLAGS), 0, __ATOMIC_SEQ_CST);
    return load_avail_idx(q) != q->next_avail;
}
