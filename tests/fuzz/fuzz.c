/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fuzz/fuzz.h"

#include <linux/virtio_mmio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAX_STEPS 256
#define MAX_TURNS 16
#define QUEUE_SIZE 16
#define QUEUE_STRIDE 0x400 /* queue i stands at FUZZ_LOW_START + i * this */
#define DRIVER_OFFSET 0x100
#define DEVICE_OFFSET 0x180
#define TABLE_OFFSET 0x280 /* for indirect descriptors */
#define MAX_CHAIN 12

void fuzz_fail(const char *why)
{
    fprintf(stderr, "fuzz: %s\n", why);
    abort();
}

/* --- input --- */

static void take(struct fuzz_input *in, void *to, size_t bytes)
{
    size_t nr = MIN_OF(bytes, in->left);

    memset(to, 0, bytes);
    if (nr > 0)
        memcpy(to, in->at, nr);
    in->at += nr;
    in->left -= nr;
}

uint8_t fuzz_u8(struct fuzz_input *in)
{
    uint8_t value;

    take(in, &value, sizeof(value));
    return value;
}

uint16_t fuzz_u16(struct fuzz_input *in)
{
    uint16_t value;

    take(in, &value, sizeof(value));
    return value;
}

uint32_t fuzz_u32(struct fuzz_input *in)
{
    uint32_t value;

    take(in, &value, sizeof(value));
    return value;
}

uint64_t fuzz_u64(struct fuzz_input *in)
{
    uint64_t value;

    take(in, &value, sizeof(value));
    return value;
}

uint64_t fuzz_gpa(struct fuzz_input *in)
{
    static const uint64_t edges[] = {
        FUZZ_LOW_START + FUZZ_LOW_BYTES,       FUZZ_HIGH_START,   FUZZ_HIGH_START + FUZZ_HIGH_BYTES,
        FUZZ_HIGH_START + FUZZ_HIGH_BYTES / 2, UINT64_C(1) << 63, 0};
    uint16_t value = fuzz_u16(in);

    if (value < 0xf000)
        return FUZZ_LOW_START + value;
    return edges[value % ARRAY_LEN(edges)] + (value >> 3 & 0x3f) - 0x20; /* around the edge */
}

/* --- the rig --- */

static char *guarded(uint64_t bytes)
{
    char *base = mmap(NULL, bytes + 2 * PAGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (base == MAP_FAILED || mprotect(base + PAGE_BYTES, bytes, PROT_READ | PROT_WRITE) != 0)
        fuzz_fail("no memory");
    return base + PAGE_BYTES;
}

static bool count_fatal(void *ctx, int err, gpa_t gpa, uint64_t *seen)
{
    struct fuzz_rig *rig = ctx;

    (void)err;
    (void)gpa;
    (void)seen;
    rig->nr_fatal++;
    return false;
}

void fuzz_prepare(struct fuzz_rig *rig)
{
    if (rig->loop == NULL) {
        rig->mem = (struct guest_mem){
            .nr = 2,
            .region = {{{FUZZ_LOW_START}, FUZZ_LOW_BYTES, guarded(FUZZ_LOW_BYTES)},
                       {{FUZZ_HIGH_START}, FUZZ_HIGH_BYTES, guarded(FUZZ_HIGH_BYTES)}},
        };
        if (loop_create(&rig->loop) != 0)
            fuzz_fail("no loop");
        rig->env = (struct device_env){.mem = &rig->mem, .loop = rig->loop, .no_page = count_fatal, .ctx = rig};
    }
    for (unsigned i = 0; i < rig->mem.nr; i++)
        memset(rig->mem.region[i].hva, 0, rig->mem.region[i].bytes);
}

static void set(struct fuzz_rig *rig, uint64_t offset, uint32_t value)
{
    virtio_mmio_write(&rig->mmio, offset, 4, value);
}

/* Guest memory, where it is inside. */
static void poke_memory(struct fuzz_rig *rig, uint64_t gpa, const void *from, uint64_t bytes)
{
    if (guest_mem_write(&rig->mem, (gpa_t){gpa}, from, bytes) != 0)
        return; /* a guest cannot write there either */
}

static uint64_t queue_gpa(unsigned index)
{
    return FUZZ_LOW_START + (uint64_t)index * QUEUE_STRIDE;
}

/* From reset to DRIVER_OK as a good driver does it. */
static void set_up(struct fuzz_rig *rig, uint64_t features, uint16_t queue_size)
{
    static const uint8_t zeros[QUEUE_STRIDE];
    struct virtio_device *device = rig->mmio.device;

    set(rig, VIRTIO_MMIO_STATUS, 0);
    set(rig, VIRTIO_MMIO_STATUS, 1);
    set(rig, VIRTIO_MMIO_STATUS, 3);
    features = (features & virtio_offered(device)) | UINT64_C(1) << VIRTIO_F_VERSION_1;
    for (uint32_t i = 0; i < 2; i++) {
        set(rig, VIRTIO_MMIO_DRIVER_FEATURES_SEL, i);
        set(rig, VIRTIO_MMIO_DRIVER_FEATURES, (uint32_t)(features >> 32 * i));
    }
    set(rig, VIRTIO_MMIO_STATUS, 11);
    for (unsigned i = 0; i < device->nr_queues; i++) {
        uint64_t gpa = queue_gpa(i);

        poke_memory(rig, gpa, zeros, sizeof(zeros));
        rig->next_avail[i] = 0;
        rig->wrap[i] = true;
        set(rig, VIRTIO_MMIO_QUEUE_SEL, i);
        set(rig, VIRTIO_MMIO_QUEUE_NUM, queue_size);
        set(rig, VIRTIO_MMIO_QUEUE_DESC_LOW, (uint32_t)gpa);
        set(rig, VIRTIO_MMIO_QUEUE_AVAIL_LOW, (uint32_t)gpa + DRIVER_OFFSET);
        set(rig, VIRTIO_MMIO_QUEUE_USED_LOW, (uint32_t)gpa + DEVICE_OFFSET);
        set(rig, VIRTIO_MMIO_QUEUE_READY, 1);
    }
    set(rig, VIRTIO_MMIO_STATUS, 15);
}

struct buffer {
    uint64_t gpa;
    uint32_t bytes;
    uint16_t flags; /* without AVAIL and USED */
};

static void write_desc(struct fuzz_rig *rig, uint64_t gpa, const struct buffer *buffer, bool packed, uint16_t more)
{
    uint16_t flags = buffer->flags;

    if (packed) {
        struct vring_packed_desc desc = {
            .addr = buffer->gpa, .len = buffer->bytes, .id = more, .flags = (uint16_t)(flags | (more & 0xff80))};
        poke_memory(rig, gpa, &desc, sizeof(desc));
    } else {
        struct vring_desc desc = {.addr = buffer->gpa, .len = buffer->bytes, .flags = flags, .next = more};
        poke_memory(rig, gpa, &desc, sizeof(desc));
    }
}

/* Publishes @nr descriptors of the ring from the queue's position on, linked. */
static void publish(struct fuzz_rig *rig, unsigned index, struct buffer *buffers, unsigned nr)
{
    const struct virtq *q = &rig->mmio.device->queue[index];
    uint64_t gpa = queue_gpa(index);
    uint16_t size = q->size > 0 ? MIN_OF(q->size, QUEUE_SIZE) : 1;
    uint16_t head = rig->next_avail[index] % size, position = head;

    for (unsigned i = 0; i < nr; i++) {
        uint16_t next = (uint16_t)((position + 1) % size);
        uint16_t bits = rig->wrap[index] ? 1u << VRING_PACKED_DESC_F_AVAIL : 1u << VRING_PACKED_DESC_F_USED;

        write_desc(rig, gpa + 16u * position, &buffers[i], q->packed, q->packed ? bits : next);
        position = next;
        if (q->packed && next == 0)
            rig->wrap[index] = !rig->wrap[index];
    }
    if (q->packed) {
        rig->next_avail[index] = position;
        return;
    }
    uint16_t idx = 0;
    if (guest_mem_read(&rig->mem, (gpa_t){gpa + DRIVER_OFFSET + 2}, &idx, sizeof(idx)) != 0)
        return;
    poke_memory(rig, gpa + DRIVER_OFFSET + 4 + 2u * (idx % size), &head, sizeof(head));
    idx++;
    poke_memory(rig, gpa + DRIVER_OFFSET + 2, &idx, sizeof(idx));
    rig->next_avail[index] = position;
}

/*
 * A request: how many buffers, how many of them readable, whether through a table; then each one's address, length and
 * first bytes of content.
 */
static void submit(struct fuzz_rig *rig, unsigned index, struct fuzz_input *in)
{
    struct buffer buffers[MAX_CHAIN];
    bool packed = rig->mmio.device->queue[index].packed;
    uint8_t shape = fuzz_u8(in);
    unsigned nr = 1 + (shape & 7), nr_out = shape >> 3 & 7;
    uint64_t table = queue_gpa(index) + TABLE_OFFSET;

    for (unsigned i = 0; i < nr; i++) {
        uint8_t content[256];
        uint8_t nr_content;

        buffers[i].gpa = fuzz_gpa(in);
        buffers[i].bytes = fuzz_u16(in);
        buffers[i].flags = (uint16_t)((i >= nr_out ? VRING_DESC_F_WRITE : 0) | (i + 1 < nr ? VRING_DESC_F_NEXT : 0));
        nr_content = fuzz_u8(in) & 63;
        take(in, content, nr_content);
        poke_memory(rig, buffers[i].gpa, content, nr_content);
    }
    if (shape & 0x40) {
        for (unsigned i = 0; i < nr; i++)
            write_desc(rig, table + 16u * i, &buffers[i], packed, (uint16_t)(i + 1));
        buffers[0] = (struct buffer){.gpa = table, .bytes = 16 * nr, .flags = VRING_DESC_F_INDIRECT};
        nr = 1;
    }
    publish(rig, index, buffers, nr);
    if (!(shape & 0x80))
        set(rig, VIRTIO_MMIO_QUEUE_NOTIFY, index);
}

/* A descriptor with nothing right about it, published. */
static void submit_raw(struct fuzz_rig *rig, unsigned index, struct fuzz_input *in)
{
    struct buffer buffer;

    buffer.gpa = fuzz_u8(in) & 1 ? fuzz_u64(in) : fuzz_gpa(in);
    buffer.bytes = fuzz_u32(in);
    buffer.flags = fuzz_u16(in);
    publish(rig, index, &buffer, 1);
    set(rig, VIRTIO_MMIO_QUEUE_NOTIFY, index);
}

static void write_memory(struct fuzz_rig *rig, struct fuzz_input *in)
{
    uint8_t content[256];
    uint64_t gpa = fuzz_gpa(in);
    uint8_t nr = fuzz_u8(in);

    take(in, content, nr);
    poke_memory(rig, gpa, content, nr);
}

/* --- the program --- */

enum step {
    STEP_SET_UP,
    STEP_SUBMIT,
    STEP_SUBMIT_RAW,
    STEP_WRITE_MEMORY,
    STEP_KICK,
    STEP_CONFIG,
    STEP_WRITE_REGISTER,
    STEP_WRITE_ANY,
    STEP_READ_ANY,
    STEP_RESET,
    STEP_POKE,
    NR_STEPS
};

static void do_step(struct fuzz_rig *rig, struct fuzz_input *in, void (*poke)(void *ctx, struct fuzz_input *in),
                    void *ctx)
{
    uint8_t what = fuzz_u8(in);
    unsigned index = (what >> 4) % rig->mmio.device->nr_queues;
    uint64_t offset;

    switch ((enum step)((what & 15) % NR_STEPS)) {
    case STEP_SET_UP:
        set_up(rig, fuzz_u8(in) & 1 ? fuzz_u64(in) : UINT64_MAX ^ (uint64_t)fuzz_u8(in) << 28,
               what & 0x10 ? fuzz_u8(in) : QUEUE_SIZE);
        break;
    case STEP_SUBMIT:
        submit(rig, index, in);
        break;
    case STEP_SUBMIT_RAW:
        submit_raw(rig, index, in);
        break;
    case STEP_WRITE_MEMORY:
        write_memory(rig, in);
        break;
    case STEP_KICK:
        set(rig, VIRTIO_MMIO_QUEUE_NOTIFY, index);
        break;
    case STEP_CONFIG:
        offset = VIRTIO_MMIO_CONFIG + fuzz_u8(in);
        virtio_mmio_write(&rig->mmio, offset, 1u << (index & 3), fuzz_u64(in));
        break;
    case STEP_WRITE_REGISTER:
        offset = 4u * fuzz_u8(in);
        set(rig, offset, what & 0x80 ? fuzz_u32(in) : fuzz_u8(in));
        break;
    case STEP_WRITE_ANY:
        offset = fuzz_u16(in) % VIRTIO_MMIO_BYTES;
        virtio_mmio_write(&rig->mmio, offset, 1u << (what >> 4 & 3), fuzz_u64(in));
        break;
    case STEP_READ_ANY:
        offset = fuzz_u16(in) % VIRTIO_MMIO_BYTES;
        (void)virtio_mmio_read(&rig->mmio, offset, 1u << (what >> 4 & 3));
        break;
    case STEP_RESET:
        set(rig, VIRTIO_MMIO_STATUS, 0);
        break;
    case STEP_POKE:
        if (poke != NULL)
            poke(ctx, in);
        break;
    case NR_STEPS:
        break;
    }
}

static void check(struct fuzz_rig *rig)
{
    const struct virtio_device *device = rig->mmio.device;
    const char *why;

    for (unsigned i = 0; i < device->nr_queues; i++) {
        if (!virtq_check(&device->queue[i], &why))
            fuzz_fail(why);
        if (device->queue[i].broken && !(device->status & VIRTIO_CONFIG_S_NEEDS_RESET))
            fuzz_fail("a queue is broken and the driver is not told");
    }
    if (device->status & VIRTIO_CONFIG_S_FEATURES_OK && !virtio_features_good(device, device->driver_features))
        fuzz_fail("features were accepted that were not offered");
}

void fuzz_run(struct fuzz_rig *rig, struct virtio_device *device, const uint8_t *data, size_t bytes,
              void (*poke)(void *ctx, struct fuzz_input *in), void *ctx)
{
    struct fuzz_input in = {.at = data, .left = bytes};
    uint64_t count;

    if (virtio_mmio_init(&rig->mmio, device) != 0)
        fuzz_fail("no descriptors");
    for (unsigned step = 0; step < MAX_STEPS && in.left > 0; step++) {
        do_step(rig, &in, poke, ctx);
        for (unsigned turn = 0; turn < MAX_TURNS && loop_turn(rig->loop, 0) > 0; turn++)
            ;
        check(rig);
        (void)!read(rig->mmio.irq_fd, &count, sizeof(count));
    }
    virtio_mmio_fini(&rig->mmio);
    if (device->status != 0)
        fuzz_fail("reset leaves a status");
}
