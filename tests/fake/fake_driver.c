/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fake/fake_driver.h"

#include <errno.h>
#include <linux/virtio_mmio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define GUARD_BYTES PAGE_BYTES

static _Noreturn void die(const char *why)
{
    fprintf(stderr, "fake_driver: %s\n", why);
    abort();
}

void fake_memory_init(struct fake_memory *memory, uint64_t start_gpa, uint64_t bytes)
{
    char *base = mmap(NULL, bytes + 2 * GUARD_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (base == MAP_FAILED || mprotect(base + GUARD_BYTES, bytes, PROT_READ | PROT_WRITE) != 0)
        die("no memory");
    *memory = (struct fake_memory){
        .mem = {.nr = 1, .region[0] = {.start = {start_gpa}, .bytes = bytes, .hva = base + GUARD_BYTES}},
        .next = start_gpa + PAGE_BYTES, /* no address 0: it is what a forgotten one would be */
    };
}

void fake_memory_fini(struct fake_memory *memory)
{
    munmap(memory->mem.region[0].hva - GUARD_BYTES, memory->mem.region[0].bytes + 2 * GUARD_BYTES);
}

gpa_t fake_memory_alloc(struct fake_memory *memory, uint64_t bytes, uint64_t align)
{
    const struct guest_mem_region *region = &memory->mem.region[0];
    uint64_t gpa = (memory->next + align - 1) & ~(align - 1);

    if (gpa + bytes > region->start.v + region->bytes)
        die("the test's memory is full");
    memory->next = gpa + bytes;
    return (gpa_t){gpa};
}

void *fake_memory_at(const struct fake_memory *memory, gpa_t gpa, uint64_t bytes)
{
    void *hva = guest_mem_hva(&memory->mem, gpa, bytes);

    if (hva == NULL)
        die("the test names an address outside memory");
    return hva;
}

void fake_driver_init(struct fake_driver *driver, struct virtio_mmio *mmio, struct fake_memory *memory)
{
    memset(driver, 0, sizeof(*driver));
    driver->mmio = mmio;
    driver->memory = memory;
}

/* --- registers --- */

uint32_t fake_driver_get(struct fake_driver *driver, uint64_t offset)
{
    return (uint32_t)virtio_mmio_read(driver->mmio, offset, 4);
}

void fake_driver_set(struct fake_driver *driver, uint64_t offset, uint32_t value)
{
    virtio_mmio_write(driver->mmio, offset, 4, value);
}

void fake_driver_config_read(struct fake_driver *driver, unsigned offset, void *to, unsigned bytes)
{
    unsigned width;

    for (unsigned done = 0; done < bytes; done += width) {
        width = bytes - done >= 4 ? 4 : 1;
        uint64_t value = virtio_mmio_read(driver->mmio, VIRTIO_MMIO_CONFIG + offset + done, width);
        memcpy((char *)to + done, &value, width);
    }
}

void fake_driver_config_write(struct fake_driver *driver, unsigned offset, const void *from, unsigned bytes)
{
    unsigned width;

    for (unsigned done = 0; done < bytes; done += width) {
        uint64_t value = 0;

        width = bytes - done >= 4 ? 4 : 1;
        memcpy(&value, (const char *)from + done, width);
        virtio_mmio_write(driver->mmio, VIRTIO_MMIO_CONFIG + offset + done, width, value);
    }
}

uint64_t fake_driver_offered(struct fake_driver *driver)
{
    uint64_t features;

    fake_driver_set(driver, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 1);
    features = (uint64_t)fake_driver_get(driver, VIRTIO_MMIO_DEVICE_FEATURES) << 32;
    fake_driver_set(driver, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 0);
    return features | fake_driver_get(driver, VIRTIO_MMIO_DEVICE_FEATURES);
}

uint8_t fake_driver_status(struct fake_driver *driver)
{
    return (uint8_t)fake_driver_get(driver, VIRTIO_MMIO_STATUS);
}

static void add_status(struct fake_driver *driver, unsigned bits)
{
    fake_driver_set(driver, VIRTIO_MMIO_STATUS, fake_driver_status(driver) | bits);
}

static void set_address(struct fake_driver *driver, uint64_t low_register, gpa_t gpa)
{
    fake_driver_set(driver, low_register, (uint32_t)gpa.v);
    fake_driver_set(driver, low_register + 4, (uint32_t)(gpa.v >> 32));
}

void fake_driver_reset(struct fake_driver *driver)
{
    fake_driver_set(driver, VIRTIO_MMIO_STATUS, 0);
    if (fake_driver_status(driver) != 0)
        die("the device is not reset");
    memset(driver->queue, 0, sizeof(driver->queue));
}

int fake_driver_negotiate(struct fake_driver *driver, uint64_t features)
{
    features |= UINT64_C(1) << VIRTIO_F_VERSION_1;
    fake_driver_reset(driver);
    add_status(driver, VIRTIO_CONFIG_S_ACKNOWLEDGE);
    add_status(driver, VIRTIO_CONFIG_S_DRIVER);
    for (uint32_t i = 0; i < 2; i++) {
        fake_driver_set(driver, VIRTIO_MMIO_DRIVER_FEATURES_SEL, i);
        fake_driver_set(driver, VIRTIO_MMIO_DRIVER_FEATURES, (uint32_t)(features >> 32 * i));
    }
    add_status(driver, VIRTIO_CONFIG_S_FEATURES_OK);
    if (!(fake_driver_status(driver) & VIRTIO_CONFIG_S_FEATURES_OK))
        return -ENOTSUP;
    driver->features = features;
    driver->packed = features >> VIRTIO_F_RING_PACKED & 1;
    driver->event_idx = features >> VIRTIO_RING_F_EVENT_IDX & 1;
    driver->indirect = features >> VIRTIO_RING_F_INDIRECT_DESC & 1;
    return 0;
}

int fake_driver_make_queue(struct fake_driver *driver, unsigned index, uint16_t queue_size)
{
    struct fake_queue *q = &driver->queue[index];
    struct fake_memory *memory = driver->memory;

    fake_driver_set(driver, VIRTIO_MMIO_QUEUE_SEL, index);
    uint32_t max = fake_driver_get(driver, VIRTIO_MMIO_QUEUE_NUM_MAX);
    if (fake_driver_get(driver, VIRTIO_MMIO_QUEUE_READY) != 0 || max == 0)
        return -EIO;
    memset(q, 0, sizeof(*q));
    q->size = queue_size != 0 ? queue_size : (uint16_t)max;
    uint64_t driver_bytes = driver->packed ? 4 : 6 + 2 * (uint64_t)q->size;
    uint64_t device_bytes = driver->packed ? 4 : 6 + 8 * (uint64_t)q->size;
    q->desc = fake_memory_alloc(memory, 16 * (uint64_t)q->size, 16);
    q->driver = fake_memory_alloc(memory, driver_bytes, 4);
    q->device = fake_memory_alloc(memory, device_bytes, 4);
    q->desc_hva = fake_memory_at(memory, q->desc, 16 * (uint64_t)q->size);
    q->driver_hva = fake_memory_at(memory, q->driver, driver_bytes);
    q->device_hva = fake_memory_at(memory, q->device, device_bytes);
    q->nr_free = q->size;
    for (unsigned i = 0; i < q->size && i < VIRTQ_MAX_SIZE; i++) {
        q->slot[i].next = (uint16_t)(i + 1);
        q->next_desc[i] = (uint16_t)(i + 1);
    }
    q->avail_wrap = q->used_wrap = driver->packed;
    fake_driver_set(driver, VIRTIO_MMIO_QUEUE_NUM, q->size);
    set_address(driver, VIRTIO_MMIO_QUEUE_DESC_LOW, q->desc);
    set_address(driver, VIRTIO_MMIO_QUEUE_AVAIL_LOW, q->driver);
    set_address(driver, VIRTIO_MMIO_QUEUE_USED_LOW, q->device);
    fake_driver_set(driver, VIRTIO_MMIO_QUEUE_READY, 1);
    if (fake_driver_get(driver, VIRTIO_MMIO_QUEUE_READY) != 1)
        return -EIO;
    fake_driver_want(driver, index, FAKE_WANT_EACH);
    return 0;
}

void fake_driver_ok(struct fake_driver *driver)
{
    add_status(driver, VIRTIO_CONFIG_S_DRIVER_OK);
}

int fake_driver_start(struct fake_driver *driver, uint64_t features, uint16_t queue_size)
{
    int err = fake_driver_negotiate(driver, features);

    for (unsigned i = 0; err == 0 && i < driver->mmio->device->nr_queues; i++)
        err = fake_driver_make_queue(driver, i, queue_size);
    if (err == 0)
        fake_driver_ok(driver);
    return err;
}

/* --- chains --- */

static uint16_t *word16(char *area, unsigned offset)
{
    return (uint16_t *)(void *)(area + offset);
}

static uint16_t flags_of_buffer(unsigned i, unsigned nr_out, unsigned nr)
{
    return (uint16_t)((i >= nr_out ? VRING_DESC_F_WRITE : 0) | (i + 1 < nr ? VRING_DESC_F_NEXT : 0));
}

static gpa_t fill_table(struct fake_driver *driver, struct fake_slot *slot, const struct fake_buffer *buffers,
                        unsigned nr_out, unsigned nr)
{
    if (slot->table.v == 0)
        slot->table = fake_memory_alloc(driver->memory, 16 * FAKE_MAX_SEGMENTS, 16);
    void *table = fake_memory_at(driver->memory, slot->table, 16 * (uint64_t)nr);

    for (unsigned i = 0; i < nr; i++) {
        uint16_t flags = flags_of_buffer(i, nr_out, nr);

        if (driver->packed)
            ((struct vring_packed_desc *)table)[i] = (struct vring_packed_desc){
                .addr = buffers[i].gpa.v, .len = buffers[i].bytes, .flags = flags & VRING_DESC_F_WRITE};
        else
            ((struct vring_desc *)table)[i] = (struct vring_desc){
                .addr = buffers[i].gpa.v, .len = buffers[i].bytes, .flags = flags, .next = (uint16_t)(i + 1)};
    }
    return slot->table;
}

/* The head is the first free descriptor; its slot has the same number. */
static void add_split(struct fake_queue *q, const struct fake_buffer *buffers, unsigned nr_out, unsigned nr,
                      uint16_t more_flags)
{
    struct vring_desc *table = (struct vring_desc *)(void *)q->desc_hva;
    uint16_t head = q->free_id, at = head, last = head;

    for (unsigned i = 0; i < nr; i++) {
        last = at;
        at = q->next_desc[at];
        table[last] = (struct vring_desc){.addr = buffers[i].gpa.v,
                                          .len = buffers[i].bytes,
                                          .flags = flags_of_buffer(i, nr_out, nr) | more_flags,
                                          .next = at};
    }
    q->free_id = at;
    *word16(q->driver_hva, 4 + 2u * (q->next_avail % q->size)) = head;
    q->next_avail++;
    __atomic_store_n(word16(q->driver_hva, 2), q->next_avail, __ATOMIC_SEQ_CST);
}

static void step(const struct fake_queue *q, uint16_t *position, bool *wrap, unsigned nr)
{
    unsigned next = *position + nr;

    if (next >= q->size) {
        next -= q->size;
        *wrap = !*wrap;
    }
    *position = (uint16_t)next;
}

static void add_packed(struct fake_queue *q, const struct fake_buffer *buffers, unsigned nr_out, unsigned nr,
                       uint16_t more_flags)
{
    struct vring_packed_desc *ring = (struct vring_packed_desc *)(void *)q->desc_hva;
    uint16_t id = q->free_id, head = q->next_avail, head_flags = 0;

    for (unsigned i = 0; i < nr; i++) {
        uint16_t position = q->next_avail;
        unsigned bit = q->avail_wrap ? 1u << VRING_PACKED_DESC_F_AVAIL : 1u << VRING_PACKED_DESC_F_USED;
        uint16_t flags = (uint16_t)(flags_of_buffer(i, nr_out, nr) | more_flags | bit);

        ring[position].addr = buffers[i].gpa.v;
        ring[position].len = buffers[i].bytes;
        ring[position].id = id;
        if (i == 0)
            head_flags = flags;
        else
            ring[position].flags = flags;
        step(q, &q->next_avail, &q->avail_wrap, 1);
    }
    q->free_id = q->slot[id].next;
    __atomic_store_n(&ring[head].flags, head_flags, __ATOMIC_SEQ_CST);
}

int fake_driver_add(struct fake_driver *driver, unsigned index, const struct fake_buffer *buffers, unsigned nr_out,
                    unsigned nr_in, bool indirect, void *token)
{
    struct fake_queue *q = &driver->queue[index];
    unsigned nr = nr_out + nr_in;
    unsigned nr_slots = indirect ? 1 : nr;
    struct fake_buffer table;
    uint16_t more_flags = 0;

    if (nr == 0 || nr > FAKE_MAX_SEGMENTS)
        die("a chain has 1 to FAKE_MAX_SEGMENTS buffers");
    if (nr_slots > q->nr_free || q->free_id == q->size)
        return -ENOSPC;
    struct fake_slot *slot = &q->slot[q->free_id];
    /* Before the chain is published: it may come back at once, in another thread. */
    slot->token = token;
    slot->in_flight = true;
    slot->nr_slots = (uint16_t)nr_slots;
    q->nr_free = (uint16_t)(q->nr_free - nr_slots);
    q->nr_added += driver->packed ? nr_slots : 1;
    if (indirect) {
        table = (struct fake_buffer){.gpa = fill_table(driver, slot, buffers, nr_out, nr), .bytes = 16 * nr};
        more_flags = VRING_DESC_F_INDIRECT;
        buffers = &table;
        nr = nr_out = 1;
    }
    if (driver->packed)
        add_packed(q, buffers, nr_out, nr, more_flags);
    else
        add_split(q, buffers, nr_out, nr, more_flags);
    return 0;
}

static bool wants_kick(const struct fake_driver *driver, const struct fake_queue *q, uint16_t nr_added)
{
    if (!driver->packed) {
        if (!driver->event_idx)
            return !(__atomic_load_n(word16(q->device_hva, 0), __ATOMIC_SEQ_CST) & VRING_USED_F_NO_NOTIFY);
        uint16_t event = __atomic_load_n(word16(q->device_hva, 4 + 8u * q->size), __ATOMIC_SEQ_CST);
        return vring_need_event(event, q->next_avail, (uint16_t)(q->next_avail - nr_added));
    }
    uint32_t event = __atomic_load_n((uint32_t *)(void *)q->device_hva, __ATOMIC_SEQ_CST);
    unsigned flags = event >> 16, offset = event & 0x7fff;
    if (flags != VRING_PACKED_EVENT_FLAG_DESC)
        return flags == VRING_PACKED_EVENT_FLAG_ENABLE;
    if (nr_added >= q->size) /* of which round is the offset? */
        return true;
    if (!!(event & 0x8000) != q->avail_wrap)
        offset -= q->size;
    return vring_need_event((uint16_t)offset, q->next_avail, (uint16_t)(q->next_avail - nr_added));
}

bool fake_driver_kick(struct fake_driver *driver, unsigned index)
{
    struct fake_queue *q = &driver->queue[index];
    uint32_t nr_added = q->nr_added;

    q->nr_added = 0;
    if (nr_added == 0 || !wants_kick(driver, q, (uint16_t)nr_added))
        return false;
    q->nr_kicks++;
    fake_driver_set(driver, VIRTIO_MMIO_QUEUE_NOTIFY, index);
    return true;
}

bool fake_driver_has_used(const struct fake_driver *driver, unsigned index)
{
    const struct fake_queue *q = &driver->queue[index];

    if (!driver->packed)
        return __atomic_load_n(word16(q->device_hva, 2), __ATOMIC_SEQ_CST) != q->next_used;
    const struct vring_packed_desc *ring = (const struct vring_packed_desc *)(const void *)q->desc_hva;
    uint16_t flags = __atomic_load_n(&ring[q->next_used].flags, __ATOMIC_SEQ_CST);
    return !!(flags & 1u << VRING_PACKED_DESC_F_AVAIL) == q->used_wrap &&
           !!(flags & 1u << VRING_PACKED_DESC_F_USED) == q->used_wrap;
}

/* Gives the descriptors of a split chain back to the list. */
static void free_split(struct fake_queue *q, uint16_t head)
{
    uint16_t last = head;

    for (unsigned i = 1; i < q->slot[head].nr_slots; i++)
        last = q->next_desc[last];
    q->next_desc[last] = q->free_id;
    q->free_id = head;
}

static void rearm(struct fake_driver *driver, struct fake_queue *q, unsigned nr_slots)
{
    if (!driver->packed) {
        if (driver->event_idx) {
            /* None: far ahead of all that can be in flight. */
            unsigned ahead = q->want == FAKE_WANT_NONE ? 0x8000 : nr_slots - 1;
            __atomic_store_n(word16(q->driver_hva, 4 + 2u * q->size), (uint16_t)(q->next_used + ahead),
                             __ATOMIC_SEQ_CST);
        } else {
            __atomic_store_n(word16(q->driver_hva, 0), q->want == FAKE_WANT_NONE ? VRING_AVAIL_F_NO_INTERRUPT : 0,
                             __ATOMIC_SEQ_CST);
        }
        return;
    }
    uint32_t event = VRING_PACKED_EVENT_FLAG_ENABLE << 16;
    if (q->want == FAKE_WANT_NONE) {
        event = VRING_PACKED_EVENT_FLAG_DISABLE << 16;
    } else if (driver->event_idx) {
        uint16_t position = q->next_used;
        bool wrap = q->used_wrap;

        step(q, &position, &wrap, nr_slots - 1);
        event = (uint32_t)VRING_PACKED_EVENT_FLAG_DESC << 16 | (wrap ? 0x8000u : 0) | position;
    }
    __atomic_store_n((uint32_t *)(void *)q->driver_hva, event, __ATOMIC_SEQ_CST);
}

int fake_driver_collect(struct fake_driver *driver, unsigned index, struct fake_used *out)
{
    struct fake_queue *q = &driver->queue[index];
    uint32_t id, bytes;

    if (!fake_driver_has_used(driver, index))
        return 0;
    if (driver->packed) {
        const struct vring_packed_desc *used = (const struct vring_packed_desc *)(void *)q->desc_hva + q->next_used;

        id = used->id;
        bytes = used->flags & VRING_DESC_F_WRITE ? used->len : 0;
    } else {
        const uint32_t *used = (const uint32_t *)(void *)(q->device_hva + 4 + 8u * (q->next_used % q->size));

        id = used[0];
        bytes = used[1];
    }
    if (id >= q->size || !q->slot[id].in_flight)
        die("the device gave a chain back that is not in flight");
    struct fake_slot *slot = &q->slot[id];
    *out = (struct fake_used){.token = slot->token, .written_bytes = bytes, .id = (uint16_t)id};
    slot->in_flight = false;
    q->nr_free = (uint16_t)(q->nr_free + slot->nr_slots);
    if (driver->packed) {
        slot->next = q->free_id;
        q->free_id = (uint16_t)id;
        step(q, &q->next_used, &q->used_wrap, slot->nr_slots);
    } else {
        free_split(q, (uint16_t)id);
        q->next_used++;
    }
    if (q->want != FAKE_WANT_LATER)
        rearm(driver, q, 1);
    return 1;
}

void fake_driver_want(struct fake_driver *driver, unsigned index, enum fake_want want)
{
    struct fake_queue *q = &driver->queue[index];

    q->want = want;
    rearm(driver, q, 1);
}

void fake_driver_want_after(struct fake_driver *driver, unsigned index, unsigned nr_slots)
{
    struct fake_queue *q = &driver->queue[index];

    q->want = FAKE_WANT_LATER;
    rearm(driver, q, nr_slots);
}

uint32_t fake_driver_interrupts(struct fake_driver *driver)
{
    uint64_t count = 0;

    if (read(driver->mmio->irq_fd, &count, sizeof(count)) == sizeof(count))
        driver->nr_interrupts += count;
    uint32_t bits = fake_driver_get(driver, VIRTIO_MMIO_INTERRUPT_STATUS);
    fake_driver_set(driver, VIRTIO_MMIO_INTERRUPT_ACK, bits);
    return bits;
}

void fake_driver_run(struct fake_driver *driver)
{
    while (loop_turn(driver->mmio->device->env->loop, 0) > 0)
        ;
}

int64_t fake_driver_request(struct fake_driver *driver, unsigned index, const struct fake_buffer *buffers,
                            unsigned nr_out, unsigned nr_in)
{
    struct fake_used used;

    if (fake_driver_add(driver, index, buffers, nr_out, nr_in, driver->indirect, NULL) != 0)
        return -EIO;
    fake_driver_kick(driver, index);
    fake_driver_run(driver);
    return fake_driver_collect(driver, index, &used) == 1 ? (int64_t)used.written_bytes : -EIO;
}
