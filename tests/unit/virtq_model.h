/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random operations on both ends of one queue, the driver of tests/fake and the functions of devices/virtio/queue.h,
 * against a naive model: three lists of chains (available, in flight, used) and counters that never wrap.
 */
#ifndef TESTS_UNIT_VIRTQ_MODEL_H
#define TESTS_UNIT_VIRTQ_MODEL_H

#include "tests/unit/model_rng.h"
#include "tests/unit/virtq_rig.h"

#define MODEL_MAX_SEGMENTS 5
#define MODEL_SEGMENT_BYTES 40
#define MODEL_TOKENS VIRTQ_MAX_SIZE

struct model_chain {
    bool busy;
    unsigned nr_out, nr_in, nr_slots;
    struct fake_buffer buffers[MODEL_MAX_SEGMENTS];
    uint64_t out_bytes, in_bytes;
    uint8_t seed; /* byte i of the readable part is seed + i; of the writable part ~seed - i */
    uint32_t written_bytes;
    struct virtq_chain taken; /* in flight: what virtq_pop gave */
};

/* First in, first out, but take_any. */
struct model_list {
    unsigned nr;
    struct model_chain *at[MODEL_TOKENS];
};

struct model {
    struct rig rig;
    struct rng rng;
    uint64_t features;
    uint64_t memory_mark; /* where the driver's allocations begin */
    gpa_t data;
    struct model_chain chain[MODEL_TOKENS];
    struct model_list available, in_flight, used;
    unsigned nr_free; /* descriptors of the ring */
    /* slots (split: chains), without end */
    uint64_t nr_added, nr_taken, nr_pushed, nr_collected;
    uint64_t nr_added_at_kick, nr_pushed_at_announce;
    bool kicks_on;
    bool kicks_all;   /* packed: every kick is wanted, event index or not, until the device names one */
    uint64_t kick_at; /* event index: the device asks for a kick when this slot was added */
    enum fake_want want;
    uint64_t interrupt_at; /* event index: the driver asks for an interrupt when this slot was pushed */
    uint64_t nr_chains, nr_kicks, nr_interrupts, nr_full;
};

static inline struct model_chain *list_take(struct model_list *list, unsigned index)
{
    struct model_chain *chain = list->at[index];

    list->nr--;
    for (unsigned i = index; i < list->nr; i++)
        list->at[i] = list->at[i + 1];
    return chain;
}

static inline void list_add(struct model_list *list, struct model_chain *chain)
{
    list->at[list->nr++] = chain;
}

static inline struct fake_queue *model_queue(struct model *m)
{
    return &m->rig.driver.queue[0];
}

static inline struct virtq *model_virtq(struct model *m)
{
    return &m->rig.device.queue[0];
}

static inline uint64_t slots_of(const struct model *m, const struct model_chain *chain)
{
    return m->features & PACKED ? chain->nr_slots : 1;
}

/* From reset: all lists empty. @queue_size 0: the largest. */
static inline void model_restart(struct model *m, uint16_t queue_size)
{
    struct rig *rig = &m->rig;

    rig->memory.next = m->memory_mark;
    memset(fake_memory_at(&rig->memory, (gpa_t){m->memory_mark}, 1 << 20), 0, 1 << 20);
    ck_assert_int_eq(fake_driver_start(&rig->driver, m->features, queue_size), 0);
    memset(m->chain, 0, sizeof(m->chain));
    m->available.nr = m->in_flight.nr = m->used.nr = 0;
    m->nr_free = model_queue(m)->size;
    m->nr_added = m->nr_taken = m->nr_pushed = m->nr_collected = 0;
    m->nr_added_at_kick = m->nr_pushed_at_announce = 0;
    m->kicks_on = true;
    m->kicks_all = m->features & PACKED || !(m->features & EVENT_IDX);
    m->kick_at = 0;
    m->want = FAKE_WANT_EACH;
    m->interrupt_at = 0;
}

static inline void model_init(struct model *m, uint64_t features, uint64_t seed)
{
    memset(m, 0, sizeof(*m));
    rig_init(&m->rig);
    m->rng.state = seed * 2654435761u + 88172645463325252u;
    m->features = features;
    m->data = fake_memory_alloc(&m->rig.memory, MODEL_TOKENS * MODEL_MAX_SEGMENTS * MODEL_SEGMENT_BYTES, 16);
    m->memory_mark = m->rig.memory.next;
}

static inline void model_fini(struct model *m)
{
    rig_fini(&m->rig);
}

static inline struct model_chain *idle_chain(struct model *m)
{
    for (unsigned i = 0; i < MODEL_TOKENS; i++) {
        if (!m->chain[i].busy)
            return &m->chain[i];
    }
    return NULL;
}

/* Random segments in the chain's own part of memory; some are empty, not all. */
static inline void fill_chain(struct model *m, struct model_chain *chain)
{
    unsigned nr = 1 + rng_below(&m->rng, MODEL_MAX_SEGMENTS);
    uint64_t gpa = m->data.v + (uint64_t)(chain - m->chain) * MODEL_MAX_SEGMENTS * MODEL_SEGMENT_BYTES;

    memset(chain, 0, sizeof(*chain));
    chain->nr_out = rng_below(&m->rng, nr + 1);
    chain->nr_in = nr - chain->nr_out;
    chain->seed = (uint8_t)rng_next(&m->rng);
    for (unsigned i = 0; i < nr; i++) {
        uint32_t bytes = rng_below(&m->rng, MODEL_SEGMENT_BYTES);

        if (i == 0 && bytes == 0)
            bytes = 1;
        chain->buffers[i] = (struct fake_buffer){.gpa = {gpa + MODEL_SEGMENT_BYTES * i}, .bytes = bytes};
        uint8_t *at = fake_memory_at(&m->rig.memory, chain->buffers[i].gpa, bytes);
        for (uint32_t b = 0; b < bytes; b++)
            at[b] = i < chain->nr_out ? (uint8_t)(chain->seed + chain->out_bytes + b) : 0;
        *(i < chain->nr_out ? &chain->out_bytes : &chain->in_bytes) += bytes;
    }
}

static inline void model_add(struct model *m)
{
    struct model_chain *chain = idle_chain(m);
    bool indirect = m->features & INDIRECT && rng_below(&m->rng, 2) == 0;

    if (chain == NULL)
        return;
    fill_chain(m, chain);
    chain->nr_slots = indirect ? 1 : chain->nr_out + chain->nr_in;
    int err = fake_driver_add(&m->rig.driver, 0, chain->buffers, chain->nr_out, chain->nr_in, indirect, chain);
    rig_assert(err == (chain->nr_slots > m->nr_free ? -ENOSPC : 0));
    if (err != 0) {
        m->nr_full++;
        return;
    }
    chain->busy = true;
    m->nr_free -= chain->nr_slots;
    m->nr_added += slots_of(m, chain);
    list_add(&m->available, chain);
}

/*
 * Event index: did slots [from, to) pass the slot @at? A packed ring names a slot by position and wrap counter, which
 * come again after two rounds; and when a whole round went by, both sides rather tell.
 */
static inline bool passes(struct model *m, uint64_t from, uint64_t to, uint64_t at)
{
    uint64_t size = model_queue(m)->size;

    if (!(m->features & PACKED))
        return from <= at && at < to;
    if (to - from >= size)
        return true;
    for (uint64_t slot = from; slot < to; slot++) {
        if (slot % (2 * size) == at % (2 * size))
            return true;
    }
    return false;
}

static inline void model_kick(struct model *m)
{
    bool expected = m->nr_added > m->nr_added_at_kick;

    /* The event index of a split ring cannot be switched off: it is left behind. */
    if (!m->kicks_on && (m->features & PACKED || !(m->features & EVENT_IDX)))
        expected = false;
    else if (!m->kicks_all)
        expected = expected && passes(m, m->nr_added_at_kick, m->nr_added, m->kick_at);
    m->nr_added_at_kick = m->nr_added;
    rig_assert(fake_driver_kick(&m->rig.driver, 0) == expected);
    m->nr_kicks += expected;
}

static inline void model_pop(struct model *m)
{
    struct virtq_chain taken;
    int got = virtq_pop(model_virtq(m), &taken);

    rig_assert(got == (m->available.nr > 0));
    if (got == 0)
        return;
    struct model_chain *chain = list_take(&m->available, 0);
    rig_assert(taken.nr_out == chain->nr_out);
    rig_assert(taken.nr_in == chain->nr_in);
    rig_assert(taken.out_bytes == chain->out_bytes);
    rig_assert(taken.in_bytes == chain->in_bytes);
    for (unsigned i = 0; i < chain->nr_out + chain->nr_in; i++) {
        rig_assert(taken.segment[i].gpa.v == chain->buffers[i].gpa.v);
        rig_assert(taken.segment[i].bytes == chain->buffers[i].bytes);
    }
    chain->taken = taken;
    m->nr_taken += slots_of(m, chain);
    m->nr_chains++;
    list_add(&m->in_flight, chain);
}

static inline void check_readable(struct model *m, const struct model_chain *chain)
{
    uint8_t bytes[MODEL_MAX_SEGMENTS * MODEL_SEGMENT_BYTES + 8];
    uint64_t offset = rng_below(&m->rng, (uint32_t)chain->out_bytes + 3);
    uint64_t nr = rng_below(&m->rng, sizeof(bytes));
    uint64_t there = offset < chain->out_bytes ? chain->out_bytes - offset : 0;

    rig_assert(virtq_read(model_virtq(m), &chain->taken, offset, bytes, nr) == MIN_OF(nr, there));
    for (uint64_t i = 0; i < MIN_OF(nr, there); i++)
        rig_assert(bytes[i] == (uint8_t)(chain->seed + offset + i));
}

/* Chains are done in any order. */
static inline void model_push(struct model *m)
{
    if (m->in_flight.nr == 0)
        return;
    struct model_chain *chain = list_take(&m->in_flight, rng_below(&m->rng, m->in_flight.nr));
    check_readable(m, chain);
    chain->written_bytes = rng_below(&m->rng, (uint32_t)chain->in_bytes + 1);
    uint32_t split = rng_below(&m->rng, chain->written_bytes + 1);
    uint8_t bytes[MODEL_MAX_SEGMENTS * MODEL_SEGMENT_BYTES];
    for (uint32_t i = 0; i < chain->written_bytes; i++)
        bytes[i] = (uint8_t)(~chain->seed - (int)i);
    uint64_t done = virtq_write(model_virtq(m), &chain->taken, 0, bytes, split);
    done += virtq_write(model_virtq(m), &chain->taken, split, bytes + split, chain->written_bytes - split);
    rig_assert(done == chain->written_bytes);
    rig_assert(virtq_write(model_virtq(m), &chain->taken, chain->in_bytes, bytes, 1) == 0);
    virtq_push(model_virtq(m), &chain->taken, chain->written_bytes);
    m->nr_pushed += slots_of(m, chain);
    list_add(&m->used, chain);
}

static inline void model_announce(struct model *m)
{
    bool expected = m->nr_pushed > m->nr_pushed_at_announce && m->want != FAKE_WANT_NONE;

    if (expected && m->features & EVENT_IDX)
        expected = passes(m, m->nr_pushed_at_announce, m->nr_pushed, m->interrupt_at);
    m->nr_pushed_at_announce = m->nr_pushed;
    pthread_mutex_lock(&m->rig.device.lock);
    virtio_announce(&m->rig.device, 0);
    pthread_mutex_unlock(&m->rig.device.lock);
    rig_assert(fake_driver_interrupts(&m->rig.driver) == (expected ? VIRTIO_INT_USED : 0));
    m->nr_interrupts += expected;
}

static inline void model_collect(struct model *m)
{
    struct fake_used used;
    int got = fake_driver_collect(&m->rig.driver, 0, &used);

    rig_assert(got == (m->used.nr > 0));
    if (got == 0)
        return;
    struct model_chain *chain = list_take(&m->used, 0);
    rig_assert(used.token == chain);
    rig_assert(used.written_bytes == chain->written_bytes);
    uint64_t done = 0;
    for (unsigned i = chain->nr_out; i < chain->nr_out + chain->nr_in; i++) {
        const uint8_t *at = fake_memory_at(&m->rig.memory, chain->buffers[i].gpa, chain->buffers[i].bytes);

        for (uint32_t b = 0; b < chain->buffers[i].bytes; b++, done++)
            rig_assert(at[b] == (done < chain->written_bytes ? (uint8_t)(~chain->seed - (int)done) : 0));
    }
    chain->busy = false;
    m->nr_free += chain->nr_slots;
    m->nr_collected += slots_of(m, chain);
    if (m->want == FAKE_WANT_EACH)
        m->interrupt_at = m->nr_collected;
}

static inline void model_want(struct model *m)
{
    m->want = rng_below(&m->rng, 3);
    if (m->want == FAKE_WANT_LATER) {
        unsigned after = 1 + rng_below(&m->rng, model_queue(m)->size);

        fake_driver_want_after(&m->rig.driver, 0, after);
        m->interrupt_at = m->nr_collected + after - 1;
    } else {
        fake_driver_want(&m->rig.driver, 0, m->want);
        m->interrupt_at = m->nr_collected;
    }
    rig_assert(fake_driver_has_used(&m->rig.driver, 0) == (m->used.nr > 0));
}

static inline void model_kicks(struct model *m)
{
    if (rng_below(&m->rng, 2) == 0) {
        virtq_disable_kicks(model_virtq(m));
        m->kicks_on = false;
        return;
    }
    rig_assert(virtq_enable_kicks(model_virtq(m)) == (m->available.nr > 0));
    m->kicks_on = true;
    m->kicks_all = !(m->features & EVENT_IDX);
    m->kick_at = m->nr_taken;
}

static inline void model_step(struct model *m)
{
    /* Long runs of one side fill and drain the ring. */
    bool filling = (m->nr_chains >> 6 & 1) == 0;
    uint32_t what = rng_below(&m->rng, 100);

    if (what < (filling ? 40u : 15u))
        model_add(m);
    else if (what < 55)
        model_pop(m);
    else if (what < 70)
        model_push(m);
    else if (what < 85)
        model_collect(m);
    else if (what < 90)
        model_announce(m);
    else if (what < 95)
        model_kick(m);
    else if (what < 98)
        model_kicks(m);
    else
        model_want(m);
    rig_check(&m->rig);
}

/* Many short lives with queues of @sizes, each from reset, @steps each. Every way of @features happened. */
static inline void model_run(uint64_t features, uint64_t seed, const uint16_t *sizes, unsigned nr_sizes, unsigned steps)
{
    struct model *m = malloc(sizeof(*m));

    ck_assert_ptr_nonnull(m);
    model_init(m, features, seed);
    for (unsigned life = 0; life < nr_sizes; life++) {
        model_restart(m, sizes[life]);
        for (unsigned i = 0; i < steps; i++)
            model_step(m);
        ck_assert_uint_eq(model_virtq(m)->broken, false);
    }
    ck_assert_uint_gt(m->nr_chains, steps * nr_sizes / 20);
    ck_assert_uint_gt(m->nr_kicks, 10);
    ck_assert_uint_gt(m->nr_interrupts, 10);
    ck_assert_uint_gt(m->nr_full, 10);
    model_fini(m);
    free(m);
}

#endif
