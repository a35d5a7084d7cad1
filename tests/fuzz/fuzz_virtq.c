/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One queue alone: its size, its areas and the whole guest memory are the input's; then a device takes chains, reads,
 * writes and gives them back in any order while the input goes on writing memory.
 */
#include "tests/fuzz/fuzz.h"

#include <string.h>

#define MAX_STEPS 512
#define MAX_HELD 64

static struct fuzz_rig rig;

static bool is_inside(const struct virtq_segment *segment)
{
    uint64_t start = segment->gpa.v, bytes = segment->bytes;

    return (start >= FUZZ_LOW_START && start - FUZZ_LOW_START < FUZZ_LOW_BYTES &&
            bytes <= FUZZ_LOW_BYTES - (start - FUZZ_LOW_START)) ||
           (start >= FUZZ_HIGH_START && start - FUZZ_HIGH_START < FUZZ_HIGH_BYTES &&
            bytes <= FUZZ_HIGH_BYTES - (start - FUZZ_HIGH_START));
}

static void check_chain(const struct virtq *q, const struct virtq_chain *chain)
{
    uint64_t bytes[2] = {0, 0};

    if (chain->nr_out + chain->nr_in == 0 || chain->nr_out + chain->nr_in > VIRTQ_MAX_SEGMENTS)
        fuzz_fail("a chain with no segments, or too many");
    for (unsigned i = 0; i < (unsigned)chain->nr_out + chain->nr_in; i++) {
        if (!is_inside(&chain->segment[i]))
            fuzz_fail("a segment is outside memory");
        bytes[i >= chain->nr_out] += chain->segment[i].bytes;
    }
    if (bytes[0] != chain->out_bytes || bytes[1] != chain->in_bytes || bytes[0] + bytes[1] > UINT32_MAX)
        fuzz_fail("the lengths do not add up");
    if (chain->nr_slots == 0 || chain->nr_slots > q->size)
        fuzz_fail("a chain takes more slots than there are");
}

static void use_chain(struct virtq *q, const struct virtq_chain *chain, struct fuzz_input *in)
{
    uint8_t bytes[300];
    uint64_t offset = fuzz_u16(in), nr = fuzz_u16(in) % sizeof(bytes);
    uint64_t room = offset < chain->in_bytes ? chain->in_bytes - offset : 0;
    uint64_t there = offset < chain->out_bytes ? chain->out_bytes - offset : 0;

    memset(bytes, 0xa5, sizeof(bytes));
    if (virtq_read(q, chain, offset, bytes, nr) != MIN_OF(nr, there))
        fuzz_fail("virtq_read returns another length");
    if (virtq_write(q, chain, offset, bytes, nr) != MIN_OF(nr, room))
        fuzz_fail("virtq_write returns another length");
}

static void write_memory(struct fuzz_input *in)
{
    uint64_t gpa = fuzz_gpa(in);
    uint8_t nr = fuzz_u8(in);

    for (unsigned i = 0; i < nr; i++) {
        uint8_t byte = fuzz_u8(in);

        if (guest_mem_write(&rig.mem, (gpa_t){gpa + i}, &byte, 1) != 0)
            return;
    }
}

/* Up to four descriptors that the queue will look at next, available to it: blind writes seldom hit on that. */
static void publish(const struct virtq *q, struct fuzz_input *in)
{
    uint8_t shape = fuzz_u8(in);
    unsigned nr = 1 + (shape & 3);
    uint16_t idx, head = (uint16_t)((q->next_avail + (shape >> 4)) % q->size);
    bool wrap = q->avail_wrap;

    for (unsigned i = 0; i < nr; i++) {
        unsigned at = ((q->packed ? q->next_avail : head) + i) % q->size;
        unsigned bits = wrap ? 1u << VRING_PACKED_DESC_F_AVAIL : 1u << VRING_PACKED_DESC_F_USED;
        uint64_t gpa = fuzz_gpa(in);
        uint32_t bytes = fuzz_u16(in);
        uint16_t flags = fuzz_u8(in) & 7;

        if (shape & 4)
            flags = (uint16_t)((flags & VRING_DESC_F_WRITE) | (i + 1 < nr ? VRING_DESC_F_NEXT : 0));
        if (q->packed) {
            struct vring_packed_desc desc = {.addr = gpa, .len = bytes, .flags = (uint16_t)(flags | bits), .id = head};
            memcpy(q->desc_hva + 16 * at, &desc, sizeof(desc));
        } else {
            struct vring_desc desc = {
                .addr = gpa, .len = bytes, .flags = flags, .next = (uint16_t)((at + 1) % q->size)};
            memcpy(q->desc_hva + 16 * at, &desc, sizeof(desc));
        }
        wrap = at + 1u == q->size ? !wrap : wrap;
    }
    if (q->packed)
        return;
    memcpy(&idx, q->driver_hva + 2, sizeof(idx));
    memcpy(q->driver_hva + 4 + 2u * (idx % q->size), &head, sizeof(head));
    idx++;
    memcpy(q->driver_hva + 2, &idx, sizeof(idx));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static struct virtq_chain held[MAX_HELD];
    struct fuzz_input in = {.at = data, .left = bytes};
    unsigned nr_held = 0;
    struct virtq q;
    const char *why;

    fuzz_prepare(&rig);
    virtq_reset(&q, &rig.mem, VIRTQ_MAX_SIZE);
    uint8_t how = fuzz_u8(&in);
    q.size = fuzz_u8(&in) + (how & 8 ? 193 : 0);
    q.desc.v = fuzz_gpa(&in);
    q.driver.v = fuzz_gpa(&in);
    q.device.v = fuzz_gpa(&in);
    if (how & 16) { /* most misaligned areas are dull */
        q.desc.v &= ~UINT64_C(15);
        q.driver.v &= ~UINT64_C(3);
        q.device.v &= ~UINT64_C(3);
    }
    if (virtq_start(&q, how & 1, how & 2, how & 4) != 0) {
        if (q.ready || !virtq_check(&q, &why))
            fuzz_fail("a queue that was refused is not as before");
        return 0;
    }
    for (unsigned step = 0; step < MAX_STEPS && in.left > 0; step++) {
        uint8_t what = fuzz_u8(&in);

        switch (what & 7) {
        case 0:
        case 1:
            if (nr_held < MAX_HELD && virtq_pop(&q, &held[nr_held]) == 1)
                check_chain(&q, &held[nr_held++]);
            break;
        case 2:
            if (nr_held > 0) {
                unsigned at = (what >> 3) % nr_held;

                virtq_push(&q, &held[at], fuzz_u32(&in));
                held[at] = held[--nr_held];
            }
            break;
        case 3:
            if (nr_held > 0)
                use_chain(&q, &held[(what >> 3) % nr_held], &in);
            break;
        case 4:
            (void)!virtq_must_interrupt(&q);
            break;
        case 5:
            if (what & 8)
                virtq_disable_kicks(&q);
            else
                (void)!virtq_enable_kicks(&q);
            break;
        case 6:
            publish(&q, &in);
            break;
        default:
            write_memory(&in);
            break;
        }
        if (!virtq_check(&q, &why))
            fuzz_fail(why);
    }
    return 0;
}
