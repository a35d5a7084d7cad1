/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The packed ring, virtio 1.2 section 2.8:
 *
 *   desc_hva     struct vring_packed_desc [size]: made available by the driver, overwritten as used by us, in ring order
 *   driver_hva   off_wrap, flags: when the driver wants interrupts
 *   device_hva   off_wrap, flags: when we want kicks
 *
 * A descriptor is available when its AVAIL bit equals our wrap counter and its USED bit does not; used when both equal
 * it. next_avail and next_used are positions, [0, size); each has its wrap counter, which begins as 1 and flips at the
 * end of the ring.
 *
 * Order. The flags of a chain's first descriptor are stored last, on both sides (release), and loaded first (acquire).
 * Both sides store descriptor flags and then load the other's event structure, or store that and load flags; all four
 * are sequentially consistent, so that no wake-up is lost.
 */
#include "devices/virtio/queue_ring.h"

#include <errno.h>

#define AVAIL_FLAG (1u << VRING_PACKED_DESC_F_AVAIL)
#define USED_FLAG (1u << VRING_PACKED_DESC_F_USED)
#define DESC_LEN 8 /* offsets in a descriptor, bytes */
#define DESC_ID 12
#define DESC_FLAGS 14
#define EVENT_BYTES 4
#define WRAP_FLAG (1u << VRING_PACKED_EVENT_F_WRAP_CTR)

void packed_areas(const struct virtq *q, uint64_t bytes[3], unsigned align[3])
{
    bytes[0] = (uint64_t)DESC_BYTES * q->size;
    bytes[1] = bytes[2] = EVENT_BYTES;
    align[0] = DESC_BYTES;
    align[1] = align[2] = EVENT_BYTES;
}

static uint16_t *flags_of(const struct virtq *q, unsigned position)
{
    return (uint16_t *)(void *)(q->desc_hva + DESC_BYTES * position + DESC_FLAGS);
}

static bool is_available(uint16_t flags, bool wrap)
{
    return !!(flags & AVAIL_FLAG) == wrap && !!(flags & USED_FLAG) != wrap;
}

static void advance(const struct virtq *q, uint16_t *position, bool *wrap, unsigned nr_slots)
{
    unsigned next = *position + nr_slots;

    if (next >= q->size) {
        next -= q->size;
        *wrap = !*wrap;
    }
    *position = (uint16_t)next;
}

unsigned packed_in_flight(const struct virtq *q)
{
    unsigned ahead = q->avail_wrap == q->used_wrap ? 0 : q->size;

    return ahead + q->next_avail - q->next_used;
}

/* An indirect table: all its descriptors, in order; of their flags only WRITE means something (2.8.7). */
static int add_table(struct virtq *q, struct virtq_chain *out, const struct ring_desc *head)
{
    const char *table;
    uint32_t nr;
    int err = queue_find_table(q, head, &table, &nr);

    for (uint32_t i = 0; err == 0 && i < nr; i++) {
        struct ring_desc desc = ring_desc_packed(table + (uint64_t)i * DESC_BYTES);

        err = desc.flags & VRING_DESC_F_INDIRECT ? -EINVAL : queue_add_segment(q, out, &desc);
    }
    return err;
}

int packed_pop(struct virtq *q, struct virtq_chain *out)
{
    uint16_t position = q->next_avail;
    bool wrap = q->avail_wrap;
    unsigned nr_free = q->size - packed_in_flight(q);

    if (!is_available(__atomic_load_n(flags_of(q, position), __ATOMIC_SEQ_CST), wrap))
        return 0;
    for (unsigned taken = 1; taken <= nr_free; taken++) {
        struct ring_desc desc = ring_desc_packed(q->desc_hva + DESC_BYTES * position);
        int err;

        /* The whole list is available before its head is; the head's flags may have changed since we looked. */
        if (!is_available(desc.flags, wrap))
            return -EINVAL;
        if (desc.flags & VRING_DESC_F_INDIRECT)
            err = add_table(q, out, &desc);
        else
            err = queue_add_segment(q, out, &desc);
        if (err != 0)
            return err;
        advance(q, &position, &wrap, 1);
        if (!(desc.flags & VRING_DESC_F_NEXT)) {
            out->id = desc.id; /* of the last one (2.8.6) */
            out->nr_slots = (uint16_t)taken;
            q->next_avail = position;
            q->avail_wrap = wrap;
            return 1;
        }
    }
    return -EINVAL; /* more than the ring holds beside what is in flight: a loop */
}

void packed_push(struct virtq *q, const struct virtq_chain *chain, uint32_t written_bytes)
{
    char *desc = q->desc_hva + DESC_BYTES * q->next_used;
    unsigned flags = q->used_wrap ? AVAIL_FLAG | USED_FLAG : 0;

    if (written_bytes > 0)
        flags |= VRING_DESC_F_WRITE; /* says that len counts (2.8.5) */
    *(uint32_t *)(void *)(desc + DESC_LEN) = written_bytes;
    *(uint16_t *)(void *)(desc + DESC_ID) = chain->id;
    __atomic_store_n(flags_of(q, q->next_used), (uint16_t)flags, __ATOMIC_SEQ_CST);
    advance(q, &q->next_used, &q->used_wrap, chain->nr_slots);
}

bool packed_must_interrupt(const struct virtq *q, uint32_t nr_pushed)
{
    /* One load: offset and flags belong together. */
    uint32_t event = __atomic_load_n((uint32_t *)(void *)q->driver_hva, __ATOMIC_SEQ_CST);
    unsigned flags = event >> 16 & 3;
    unsigned offset = event & (WRAP_FLAG - 1);

    if (flags == VRING_PACKED_EVENT_FLAG_DISABLE)
        return false;
    if (flags != VRING_PACKED_EVENT_FLAG_DESC || !q->event_idx)
        return true; /* ENABLE; what is reserved or was not agreed on is taken as that */
    /* After a whole round nobody can say of which round the offset is: rather an interrupt too many. */
    if (nr_pushed >= q->size)
        return true;
    /* An offset of the round before stands behind position 0. */
    if (!!(event & WRAP_FLAG) != q->used_wrap)
        offset -= q->size;
    return vring_need_event((uint16_t)offset, q->next_used, (uint16_t)(q->next_used - nr_pushed));
}

static void store_event(struct virtq *q, unsigned offset, unsigned flags)
{
    __atomic_store_n((uint32_t *)(void *)q->device_hva, (uint32_t)flags << 16 | offset, __ATOMIC_SEQ_CST);
}

void packed_disable_kicks(struct virtq *q)
{
    store_event(q, 0, VRING_PACKED_EVENT_FLAG_DISABLE);
}

bool packed_enable_kicks(struct virtq *q)
{
    if (q->event_idx)
        store_event(q, q->next_avail | (q->avail_wrap ? WRAP_FLAG : 0), VRING_PACKED_EVENT_FLAG_DESC);
    else
        store_event(q, 0, VRING_PACKED_EVENT_FLAG_ENABLE);
    return is_available(__atomic_load_n(flags_of(q, q->next_avail), __ATOMIC_SEQ_CST), q->avail_wrap);
}
