/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What split and packed rings have in common. The formats: queue_split.c, queue_packed.c.
 *
 *   chains in flight <= slots in flight <= size      a driver that makes more available breaks the queue
 */
#include "devices/virtio/queue_ring.h"

#include <errno.h>
#include <string.h>

void virtq_reset(struct virtq *q, const struct guest_mem *mem, uint16_t max_size)
{
    *q = (struct virtq){.mem = mem, .max_size = max_size, .size = max_size};
}

static bool is_size_good(const struct virtq *q, bool packed)
{
    return q->size > 0 && q->size <= q->max_size && (packed || (q->size & (q->size - 1)) == 0);
}

int virtq_start(struct virtq *q, bool packed, bool event_idx, bool indirect)
{
    const gpa_t gpa[3] = {q->desc, q->driver, q->device};
    struct virtq started = *q;
    uint64_t bytes[3];
    unsigned align[3];
    char *hva[3];

    if (q->ready || !is_size_good(q, packed))
        return -EINVAL;
    started.packed = packed;
    started.event_idx = event_idx;
    started.indirect = indirect;
    (packed ? packed_areas : split_areas)(&started, bytes, align);
    for (unsigned i = 0; i < 3; i++) {
        hva[i] = guest_mem_hva(q->mem, gpa[i], bytes[i]);
        if (gpa[i].v % align[i] != 0 || hva[i] == NULL)
            return -EINVAL;
    }
    started.desc_hva = hva[0];
    started.driver_hva = hva[1];
    started.device_hva = hva[2];
    started.avail_wrap = started.used_wrap = packed; /* all else is as virtq_reset left it */
    started.ready = true;
    *q = started;
    return 0;
}

int queue_add_segment(const struct virtq *q, struct virtq_chain *out, const struct ring_desc *desc)
{
    bool writable = desc->flags & VRING_DESC_F_WRITE;
    unsigned nr = (unsigned)out->nr_out + out->nr_in;
    gpa_t gpa = {desc->addr};

    if (nr == VIRTQ_MAX_SEGMENTS || (!writable && out->nr_in > 0) || guest_mem_hva(q->mem, gpa, desc->len) == NULL)
        return -EINVAL;
    out->segment[nr] = (struct virtq_segment){.gpa = gpa, .bytes = desc->len};
    if (writable) {
        out->nr_in++;
        out->in_bytes += desc->len;
    } else {
        out->nr_out++;
        out->out_bytes += desc->len;
    }
    return 0;
}

int queue_find_table(const struct virtq *q, const struct ring_desc *desc, const char **table, uint32_t *nr)
{
    /* WRITE is ignored here, as the specification wants it. */
    if (!q->indirect || desc->flags & VRING_DESC_F_NEXT || desc->len == 0 || desc->len % DESC_BYTES != 0)
        return -EINVAL;
    *table = guest_mem_hva(q->mem, (gpa_t){desc->addr}, desc->len);
    *nr = desc->len / DESC_BYTES;
    return *table == NULL ? -EINVAL : 0;
}

int virtq_pop(struct virtq *q, struct virtq_chain *out)
{
    if (q->broken)
        return -EINVAL;
    if (!q->ready)
        return 0;
    out->id = out->nr_slots = out->nr_out = out->nr_in = 0;
    out->out_bytes = out->in_bytes = 0;
    int got = q->packed ? packed_pop(q, out) : split_pop(q, out);
    /* A chain of nothing, or one whose length no used element can name (2.7.5.2: at most 2^32 bytes). */
    if (got == 1 && (out->out_bytes + out->in_bytes == 0 || out->out_bytes + out->in_bytes > UINT32_MAX))
        got = -EINVAL;
    if (got == 1)
        q->nr_chains++;
    else if (got < 0)
        q->broken = true;
    return got;
}

enum area { AREA_DESC, AREA_DRIVER, AREA_DEVICE };

/* guest_mem's log: this area is about to be written. */
static void note_area(const struct virtq *q, gpa_t gpa, enum area area)
{
    uint64_t bytes[3];
    unsigned align[3];

    (q->packed ? packed_areas : split_areas)(q, bytes, align);
    guest_mem_note_write(q->mem, gpa, bytes[area]);
}

void virtq_push_many(struct virtq *q, const struct virtq_chain *chain, const uint32_t *written_bytes, unsigned nr)
{
    if (!q->ready || q->broken)
        return;
    if (q->packed)
        note_area(q, q->desc, AREA_DESC);
    else
        note_area(q, q->device, AREA_DEVICE);
    (q->packed ? packed_push : split_push)(q, chain, written_bytes, nr);
    for (unsigned i = 0; i < nr; i++)
        q->nr_unsignalled += chain[i].nr_slots;
}

void virtq_push(struct virtq *q, const struct virtq_chain *chain, uint32_t written_bytes)
{
    virtq_push_many(q, chain, &written_bytes, 1);
}

bool virtq_must_interrupt(struct virtq *q)
{
    uint32_t nr = MIN_OF(q->nr_unsignalled, UINT16_MAX); /* indices count modulo 2^16 */

    if (!q->ready || q->broken || nr == 0)
        return false;
    q->nr_unsignalled = 0;
    if (!(q->packed ? packed_must_interrupt : split_must_interrupt)(q, nr))
        return false;
    q->nr_interrupts++;
    return true;
}

void virtq_disable_kicks(struct virtq *q)
{
    if (!q->ready || q->broken)
        return;
    note_area(q, q->device, AREA_DEVICE);
    (q->packed ? packed_disable_kicks : split_disable_kicks)(q);
}

bool virtq_enable_kicks(struct virtq *q)
{
    if (!q->ready || q->broken)
        return false;
    note_area(q, q->device, AREA_DEVICE);
    return (q->packed ? packed_enable_kicks : split_enable_kicks)(q);
}

/*
 * Walks [offset, offset + bytes) of nr segments. Each was checked when the chain was taken, and memory is constant: so
 * guest_mem_hva finds it.
 */
static uint64_t copy(const struct virtq *q, const struct virtq_segment *segment, unsigned nr, uint64_t offset, char *to,
                     const char *from, uint64_t bytes)
{
    uint64_t done = 0;

    for (unsigned i = 0; i < nr && done < bytes; i++) {
        if (offset >= segment[i].bytes) {
            offset -= segment[i].bytes;
            continue;
        }
        uint64_t part = MIN_OF(segment[i].bytes - offset, bytes - done);
        char *hva = guest_mem_hva(q->mem, (gpa_t){segment[i].gpa.v + offset}, part);
        if (hva == NULL)
            break;
        if (to != NULL) {
            memcpy(to + done, hva, part);
        } else {
            guest_mem_note_write(q->mem, (gpa_t){segment[i].gpa.v + offset}, part);
            memcpy(hva, from + done, part);
        }
        done += part;
        offset = 0;
    }
    return done;
}

uint64_t virtq_read(const struct virtq *q, const struct virtq_chain *chain, uint64_t offset, void *to, uint64_t bytes)
{
    return copy(q, chain->segment, chain->nr_out, offset, to, NULL, bytes);
}

uint64_t virtq_write(const struct virtq *q, const struct virtq_chain *chain, uint64_t offset, const void *from,
                     uint64_t bytes)
{
    return copy(q, chain->segment + chain->nr_out, chain->nr_in, offset, NULL, from, bytes);
}

static const char *breach(const struct virtq *q)
{
    const gpa_t gpa[3] = {q->desc, q->driver, q->device};
    char *const hva[3] = {q->desc_hva, q->driver_hva, q->device_hva};
    uint64_t bytes[3];
    unsigned align[3];

    if (!q->ready)
        return q->desc_hva || q->driver_hva || q->device_hva ? "a queue that is not ready has areas" : NULL;
    if (!is_size_good(q, q->packed))
        return "size is not one that we offer";
    (q->packed ? packed_areas : split_areas)(q, bytes, align);
    for (unsigned i = 0; i < 3; i++) {
        if (hva[i] == NULL || guest_mem_hva(q->mem, gpa[i], bytes[i]) != hva[i])
            return "an area is not where the driver put it";
    }
    if (q->packed && (q->next_avail >= q->size || q->next_used >= q->size))
        return "a position is outside the packed ring";
    if ((q->packed ? packed_in_flight(q) : split_in_flight(q)) > q->size)
        return "more in flight than the ring holds";
    if (!q->packed && (q->avail_wrap || q->used_wrap))
        return "a split ring has no wrap counters";
    return NULL;
}

bool virtq_check(const struct virtq *q, const char **why)
{
    const char *what = breach(q);

    if (what == NULL)
        return true;
    *why = what;
    return false;
}
