/* SPDX-License-Identifier: Apache-2.0 */
/* A driver in one thread, the device's loop in another, resets from a third: no wake-up is lost, no byte is wrong. */
#include <check.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/unit/model_rng.h"
#include "tests/unit/virtq_rig.h"

#define REQUESTS 3000
#define REQUEST_BYTES 24
#define DEPTH 16 /* requests in flight at most */
#define WAIT_MS 20000

static struct rig rig;
static pthread_t device_thread;

/* The writable part becomes the readable one, with every byte inverted. */
static void echo(struct virtio_device *device, unsigned index)
{
    struct virtq *q = &device->queue[index];
    struct virtq_chain chain;
    uint8_t bytes[REQUEST_BYTES];

    rig_notify(device, index);
    do {
        virtq_disable_kicks(q);
        while (virtio_pop(device, index, &chain)) {
            uint64_t nr = virtq_read(q, &chain, 0, bytes, sizeof(bytes));

            for (uint64_t i = 0; i < nr; i++)
                bytes[i] = (uint8_t)~bytes[i];
            virtq_push(q, &chain, (uint32_t)virtq_write(q, &chain, 0, bytes, nr));
            virtio_announce(device, index);
        }
    } while (virtq_enable_kicks(q));
}

static const struct virtio_ops echo_ops = {
    .reset = rig_reset, .notify = echo, .config_read = rig_config_read, .config_write = rig_config_write};

static void *run_loop(void *ctx)
{
    loop_run(ctx);
    return NULL;
}

static void setup(void)
{
    rig_init(&rig);
    rig.device.ops = &echo_ops;
    ck_assert_int_eq(pthread_create(&device_thread, NULL, run_loop, rig.loop), 0);
}

static void teardown(void)
{
    loop_stop(rig.loop);
    pthread_join(device_thread, NULL);
    rig_check(&rig);
    rig_fini(&rig);
}

static void wait_for_interrupt(void)
{
    struct pollfd poll_fd = {.fd = rig.mmio.irq_fd, .events = POLLIN};

    ck_assert_msg(poll(&poll_fd, 1, WAIT_MS) == 1, "no interrupt came: a wake-up was lost");
    ck_assert_uint_eq(fake_driver_interrupts(&rig.driver) & VIRTIO_INT_CONFIG, 0);
}

/* One slot of memory for each request in flight: what is sent, then room for what comes back. */
static void drive(unsigned queue, gpa_t memory, unsigned nr_requests, uint64_t seed)
{
    struct rng rng = {88172645463325252u + seed};
    unsigned nr_sent = 0, nr_back = 0, busy = 0;
    bool slot_busy[DEPTH] = {false};

    while (nr_back < nr_requests) {
        unsigned burst = 1 + rng_below(&rng, DEPTH);
        struct fake_used used;

        for (unsigned i = 0; i < DEPTH && burst > 0 && nr_sent < nr_requests; i++) {
            gpa_t at = {memory.v + (uint64_t)i * 2 * REQUEST_BYTES};
            struct fake_buffer buffers[2] = {{at, REQUEST_BYTES}, {{at.v + REQUEST_BYTES}, REQUEST_BYTES}};

            if (slot_busy[i])
                continue;
            memset(fake_memory_at(&rig.memory, at, REQUEST_BYTES), (int)(nr_sent & 0xff), REQUEST_BYTES);
            if (fake_driver_add(&rig.driver, queue, buffers, 1, 1, rig.driver.indirect, &slot_busy[i]) != 0)
                break;
            slot_busy[i] = true;
            nr_sent++;
            busy++;
            burst--;
        }
        fake_driver_kick(&rig.driver, queue);
        fake_driver_want(&rig.driver, queue, FAKE_WANT_EACH);
        if (!fake_driver_has_used(&rig.driver, queue))
            wait_for_interrupt();
        fake_driver_want(&rig.driver, queue, FAKE_WANT_NONE);
        while (fake_driver_collect(&rig.driver, queue, &used) == 1) {
            unsigned i = (unsigned)((bool *)used.token - slot_busy);
            const uint8_t *at =
                fake_memory_at(&rig.memory, (gpa_t){memory.v + (uint64_t)i * 2 * REQUEST_BYTES}, 2 * REQUEST_BYTES);

            rig_assert(used.written_bytes == REQUEST_BYTES);
            for (unsigned b = 0; b < REQUEST_BYTES; b++)
                rig_assert((at[REQUEST_BYTES + b] ^ at[b]) == 0xff);
            slot_busy[i] = false;
            nr_back++;
            busy--;
        }
    }
    rig_assert(busy == 0);
}

/* _i: features; a small ring fills, a large one does not. */
START_TEST(test_virtio_threads_every_request_comes_back)
{
    uint64_t features = (_i & 1 ? PACKED : 0) | (_i & 2 ? EVENT_IDX : 0) | (_i & 4 ? INDIRECT : 0);
    gpa_t memory = fake_memory_alloc(&rig.memory, DEPTH * 2 * REQUEST_BYTES, 16);

    ck_assert_int_eq(fake_driver_start(&rig.driver, features, _i & 8 ? 64 : 8), 0);
    drive(1, memory, REQUESTS, (uint64_t)_i);
    ck_assert_uint_eq(rig.device.queue[1].nr_chains, REQUESTS);
    ck_assert_uint_eq(rig.device.nr_broken, 0);
}
END_TEST

static void *kick_for_ever(void *ctx)
{
    int *stop = ctx;

    while (!__atomic_load_n(stop, __ATOMIC_SEQ_CST)) {
        virtio_mmio_write(&rig.mmio, VIRTIO_MMIO_QUEUE_NOTIFY, 4, 0);
        virtio_mmio_write(&rig.mmio, VIRTIO_MMIO_QUEUE_NOTIFY, 4, 1);
        (void)virtio_mmio_read(&rig.mmio, VIRTIO_MMIO_INTERRUPT_STATUS, 4);
        sched_yield();
    }
    return NULL;
}

/* A second vCPU kicks all the time, before, while and after the device is set up, used and reset. */
START_TEST(test_virtio_threads_reset_at_any_moment)
{
    gpa_t memory = fake_memory_alloc(&rig.memory, DEPTH * 2 * REQUEST_BYTES, 16);
    uint64_t mark = rig.memory.next;
    struct fake_buffer buffer = {memory, 2};
    pthread_t kicker;
    int stop = 0;

    ck_assert_int_eq(pthread_create(&kicker, NULL, kick_for_ever, &stop), 0);
    for (unsigned life = 0; life < 150; life++) {
        rig.memory.next = mark;
        memset(fake_memory_at(&rig.memory, (gpa_t){mark}, 1 << 17), 0, 1 << 17);
        ck_assert_int_eq(fake_driver_start(&rig.driver, life & 1 ? PACKED : EVENT_IDX, 32), 0);
        if (life % 10 == 0)
            drive(0, memory, 20, life);
        for (unsigned i = 0; i < life % 32; i++)
            ck_assert_int_eq(fake_driver_add(&rig.driver, 0, &buffer, 0, 1, false, NULL), 0);
        fake_driver_kick(&rig.driver, 0);
        fake_driver_reset(&rig.driver);
        ck_assert(!rig.device.queue[0].ready);
    }
    __atomic_store_n(&stop, 1, __ATOMIC_SEQ_CST);
    pthread_join(kicker, NULL);
    ck_assert_uint_eq(rig.device.nr_broken, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("virtio_threads");
    TCase *tcase = tcase_create("virtio_threads");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 120);
    tcase_add_loop_test(tcase, test_virtio_threads_every_request_comes_back, 0, 16);
    tcase_add_test(tcase, test_virtio_threads_reset_at_any_moment);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
