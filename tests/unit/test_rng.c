/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <errno.h>
#include <linux/virtio_mmio.h>
#include <stdlib.h>
#include <string.h>

#include "devices/rng/rng.h"
#include "tests/fake/fake_driver.h"

#define EVENT_IDX (UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX)
#define INDIRECT (UINT64_C(1) << VIRTIO_RING_F_INDIRECT_DESC)
#define PACKED (UINT64_C(1) << VIRTIO_F_RING_PACKED)

static struct fake_memory memory;
static struct loop *loop;
static struct device_env env;
static struct rng rng;
static struct virtio_mmio mmio;
static struct fake_driver driver;

static void setup(void)
{
    fake_memory_init(&memory, 0x100000, 1 << 20);
    ck_assert_int_eq(loop_create(&loop), 0);
    env = (struct device_env){.mem = &memory.mem, .loop = loop};
    rng_init(&rng, &env);
    ck_assert_int_eq(virtio_mmio_init(&mmio, &rng.virtio), 0);
    fake_driver_init(&driver, &mmio, &memory);
}

static void teardown(void)
{
    virtio_mmio_fini(&mmio);
    rng_fini(&rng);
    loop_destroy(loop);
    fake_memory_fini(&memory);
}

static bool is_zero(const uint8_t *at, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++) {
        if (at[i] != 0)
            return false;
    }
    return true;
}

/* _i: which of the transport's features. */
START_TEST(test_rng_buffers_are_filled)
{
    uint64_t features = (_i & 1 ? PACKED : 0) | (_i & 2 ? EVENT_IDX : 0) | (_i & 4 ? INDIRECT : 0);
    gpa_t gpa = fake_memory_alloc(&memory, 256, 1);
    const uint8_t *at = fake_memory_at(&memory, gpa, 256);
    struct fake_buffer buffers[3] = {{gpa, 64}, {{gpa.v + 64}, 1}, {{gpa.v + 96}, 100}};

    ck_assert_int_eq(fake_driver_start(&driver, features, 0), 0);
    for (unsigned i = 0; i < 3 * RNG_QUEUE_SIZE; i++) {
        memset(fake_memory_at(&memory, gpa, 256), 0, 256);
        ck_assert_int_eq(fake_driver_request(&driver, 0, buffers, 0, 3), 165);
        ck_assert_uint_eq(fake_driver_interrupts(&driver), VIRTIO_INT_USED);
        ck_assert(!is_zero(at, 64) && !is_zero(at + 96, 100));
        ck_assert(is_zero(at + 65, 31) && is_zero(at + 196, 60));
    }
    ck_assert_uint_eq(rng.nr_bytes, 165 * 3 * RNG_QUEUE_SIZE);
    ck_assert_uint_eq(driver.nr_interrupts, 3 * RNG_QUEUE_SIZE);
}
END_TEST

START_TEST(test_rng_large_buffer_gets_a_bounded_part)
{
    gpa_t gpa = fake_memory_alloc(&memory, 0x10000, 1);
    struct fake_buffer buffer = {gpa, 0x10000};

    ck_assert_int_eq(fake_driver_start(&driver, 0, 0), 0);
    ck_assert_int_eq(fake_driver_request(&driver, 0, &buffer, 0, 1), RNG_MAX_BYTES);
    const uint8_t *at = fake_memory_at(&memory, gpa, 0x10000);
    ck_assert(is_zero(at + RNG_MAX_BYTES, 0x10000 - RNG_MAX_BYTES));
}
END_TEST

START_TEST(test_rng_many_chains_take_several_turns)
{
    struct fake_buffer buffer = {fake_memory_alloc(&memory, 64, 1), 64};
    struct fake_used used;
    unsigned nr = 0;

    ck_assert_int_eq(fake_driver_start(&driver, EVENT_IDX, 0), 0);
    for (unsigned i = 0; i < RNG_QUEUE_SIZE; i++)
        ck_assert_int_eq(fake_driver_add(&driver, 0, &buffer, 0, 1, false, NULL), 0);
    ck_assert(fake_driver_kick(&driver, 0));
    ck_assert_int_eq(loop_turn(loop, 0), 1);
    while (fake_driver_collect(&driver, 0, &used) == 1)
        nr++;
    ck_assert_uint_eq(nr, RNG_MAX_CHAINS);
    fake_driver_run(&driver);
    while (fake_driver_collect(&driver, 0, &used) == 1)
        nr++;
    ck_assert_uint_eq(nr, RNG_QUEUE_SIZE);
}
END_TEST

START_TEST(test_rng_chain_without_room_needs_reset)
{
    struct fake_buffer buffer = {fake_memory_alloc(&memory, 64, 1), 64};

    ck_assert_int_eq(fake_driver_start(&driver, 0, 0), 0);
    ck_assert_int_eq(fake_driver_request(&driver, 0, &buffer, 1, 0), -EIO);
    ck_assert(fake_driver_status(&driver) & VIRTIO_CONFIG_S_NEEDS_RESET);
    ck_assert_uint_eq(fake_driver_interrupts(&driver), VIRTIO_INT_CONFIG);
    ck_assert_uint_eq(rng.virtio.nr_broken, 1);
    ck_assert_int_eq(fake_driver_start(&driver, PACKED, 0), 0);
    ck_assert_int_eq(fake_driver_request(&driver, 0, &buffer, 0, 1), 64);
}
END_TEST

START_TEST(test_rng_identity)
{
    ck_assert_uint_eq(fake_driver_get(&driver, VIRTIO_MMIO_DEVICE_ID), VIRTIO_ID_RNG);
    ck_assert_uint_eq(fake_driver_offered(&driver), VIRTIO_TRANSPORT_FEATURES);
    fake_driver_set(&driver, VIRTIO_MMIO_QUEUE_SEL, 1);
    ck_assert_uint_eq(fake_driver_get(&driver, VIRTIO_MMIO_QUEUE_NUM_MAX), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("rng");
    TCase *tcase = tcase_create("rng");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_loop_test(tcase, test_rng_buffers_are_filled, 0, 8);
    tcase_add_test(tcase, test_rng_large_buffer_gets_a_bounded_part);
    tcase_add_test(tcase, test_rng_many_chains_take_several_turns);
    tcase_add_test(tcase, test_rng_chain_without_room_needs_reset);
    tcase_add_test(tcase, test_rng_identity);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
