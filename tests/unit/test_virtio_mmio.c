/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "tests/unit/model_rng.h"
#include "tests/unit/virtq_rig.h"

static struct rig rig;

static void setup(void)
{
    rig_init(&rig);
}

static void teardown(void)
{
    rig_check(&rig);
    rig_fini(&rig);
}

static uint32_t get(uint64_t offset)
{
    return fake_driver_get(&rig.driver, offset);
}

static void set(uint64_t offset, uint32_t value)
{
    fake_driver_set(&rig.driver, offset, value);
}

static void add_status(uint32_t bits)
{
    set(VIRTIO_MMIO_STATUS, get(VIRTIO_MMIO_STATUS) | bits);
}

START_TEST(test_virtio_mmio_identity)
{
    ck_assert_uint_eq(get(VIRTIO_MMIO_MAGIC_VALUE), 0x74726976);
    ck_assert_uint_eq(get(VIRTIO_MMIO_VERSION), 2);
    ck_assert_uint_eq(get(VIRTIO_MMIO_DEVICE_ID), 42);
    ck_assert_uint_ne(get(VIRTIO_MMIO_VENDOR_ID), 0);
    ck_assert_uint_eq(fake_driver_offered(&rig.driver), VIRTIO_TRANSPORT_FEATURES | 1u << RIG_FEATURE);
    set(VIRTIO_MMIO_DEVICE_FEATURES_SEL, 2);
    ck_assert_uint_eq(get(VIRTIO_MMIO_DEVICE_FEATURES), 0);
    set(VIRTIO_MMIO_DEVICE_FEATURES_SEL, UINT32_MAX);
    ck_assert_uint_eq(get(VIRTIO_MMIO_DEVICE_FEATURES), 0);
}
END_TEST

START_TEST(test_virtio_mmio_no_shared_memory_no_queue_reset)
{
    set(VIRTIO_MMIO_SHM_SEL, 0);
    for (uint64_t offset = VIRTIO_MMIO_SHM_LEN_LOW; offset <= VIRTIO_MMIO_SHM_BASE_HIGH; offset += 4)
        ck_assert_uint_eq(get(offset), UINT32_MAX);
    ck_assert_uint_eq(get(0x0c0), 0);
    set(0x0c0, 1);
    ck_assert_uint_eq(get(0x0c0), 0);
}
END_TEST

START_TEST(test_virtio_mmio_status_walks_up_in_order)
{
    struct fake_driver *driver = &rig.driver;

    set(VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_DRIVER_OK);
    ck_assert_uint_eq(fake_driver_status(driver), 0);
    set(VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_FEATURES_OK);
    ck_assert_uint_eq(fake_driver_status(driver), 0);
    ck_assert_int_eq(fake_driver_negotiate(driver, 0), 0);
    ck_assert_uint_eq(rig.nr_activated, 0);
    fake_driver_ok(driver);
    fake_driver_ok(driver);
    ck_assert_uint_eq(rig.nr_activated, 1);
    ck_assert_uint_eq(fake_driver_status(driver), 15);
    /* Bits do not go away one by one, NEEDS_RESET is not the driver's, unknown bits are not kept. */
    set(VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_NEEDS_RESET | 0x30);
    ck_assert_uint_eq(fake_driver_status(driver), 15);
    set(VIRTIO_MMIO_STATUS, 0x100);
    ck_assert_uint_eq(fake_driver_status(driver), 15);
    add_status(VIRTIO_CONFIG_S_FAILED);
    ck_assert_uint_eq(fake_driver_status(driver), 15 | VIRTIO_CONFIG_S_FAILED);
    unsigned nr_reset = rig.nr_reset;
    set(VIRTIO_MMIO_STATUS, 0);
    ck_assert_uint_eq(fake_driver_status(driver), 0);
    ck_assert_uint_eq(rig.nr_reset, nr_reset + 1);
    ck_assert_uint_eq(rig.device.driver_features, 0);
}
END_TEST

START_TEST(test_virtio_mmio_features_not_offered_are_refused)
{
    struct fake_driver *driver = &rig.driver;

    ck_assert_int_eq(fake_driver_negotiate(driver, UINT64_C(1) << 6), -ENOTSUP);
    ck_assert_int_eq(fake_driver_negotiate(driver, UINT64_C(1) << 63), -ENOTSUP);
    ck_assert_uint_eq(rig.device.driver_features, 0);
    add_status(VIRTIO_CONFIG_S_DRIVER_OK);
    ck_assert_uint_eq(rig.nr_activated, 0);
    /* Without VERSION_1. */
    set(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
    set(VIRTIO_MMIO_DRIVER_FEATURES, 0);
    add_status(VIRTIO_CONFIG_S_FEATURES_OK);
    ck_assert_uint_eq(fake_driver_status(driver), 3);
    /* The same driver thinks again. */
    set(VIRTIO_MMIO_DRIVER_FEATURES, 1);
    add_status(VIRTIO_CONFIG_S_FEATURES_OK);
    ck_assert_uint_eq(fake_driver_status(driver), 11);
    ck_assert_uint_eq(rig.device.driver_features, UINT64_C(1) << VIRTIO_F_VERSION_1);
}
END_TEST

START_TEST(test_virtio_mmio_features_are_final_after_features_ok)
{
    uint64_t features = EVENT_IDX | 1u << RIG_FEATURE | UINT64_C(1) << VIRTIO_F_VERSION_1;

    ck_assert_int_eq(fake_driver_negotiate(&rig.driver, features), 0);
    set(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
    set(VIRTIO_MMIO_DRIVER_FEATURES, 0);
    add_status(VIRTIO_CONFIG_S_FEATURES_OK);
    ck_assert_uint_eq(rig.device.driver_features, features);
    ck_assert(virtio_has(&rig.device, RIG_FEATURE));
    ck_assert(!virtio_has(&rig.device, VIRTIO_F_RING_PACKED));
}
END_TEST

START_TEST(test_virtio_mmio_odd_widths_on_registers_are_harmless)
{
    static const unsigned widths[] = {1, 2, 8};

    for (uint64_t offset = 0; offset < VIRTIO_MMIO_CONFIG; offset++) {
        for (unsigned i = 0; i < ARRAY_LEN(widths); i++) {
            ck_assert_uint_eq(virtio_mmio_read(&rig.mmio, offset, widths[i]), 0);
            virtio_mmio_write(&rig.mmio, offset, widths[i], UINT64_MAX);
        }
        if (offset % 4 != 0) {
            ck_assert_uint_eq(virtio_mmio_read(&rig.mmio, offset, 4), 0);
            virtio_mmio_write(&rig.mmio, offset, 4, UINT64_MAX);
        }
    }
    ck_assert_uint_eq(rig.device.status, 0);
    ck_assert_uint_eq(rig.device.wanted_features, 0);
    ck_assert_int_eq(fake_driver_start(&rig.driver, 0, 0), 0);
}
END_TEST

START_TEST(test_virtio_mmio_config_is_bounded)
{
    static const unsigned widths[] = {1, 2, 4, 8};

    ck_assert_int_eq(fake_driver_negotiate(&rig.driver, 0), 0);
    for (unsigned offset = 0; offset < RIG_CONFIG_BYTES; offset++)
        rig.config[offset] = (uint8_t)(offset + 1);
    for (unsigned i = 0; i < ARRAY_LEN(widths); i++) {
        for (unsigned offset = 0; offset < RIG_CONFIG_BYTES + 16; offset++) {
            uint64_t value = virtio_mmio_read(&rig.mmio, VIRTIO_MMIO_CONFIG + offset, widths[i]);

            if (offset + widths[i] <= RIG_CONFIG_BYTES)
                ck_assert_int_eq(memcmp(&value, rig.config + offset, widths[i]), 0);
            else
                ck_assert_uint_eq(value, 0);
            virtio_mmio_write(&rig.mmio, VIRTIO_MMIO_CONFIG + offset, widths[i], value);
        }
        virtio_mmio_write(&rig.mmio, VIRTIO_MMIO_BYTES - widths[i], widths[i], UINT64_MAX);
        ck_assert_uint_eq(virtio_mmio_read(&rig.mmio, VIRTIO_MMIO_BYTES - widths[i], widths[i]), 0);
    }
    for (unsigned offset = 0; offset < RIG_CONFIG_BYTES; offset++)
        ck_assert_uint_eq(rig.config[offset], offset + 1);
}
END_TEST

START_TEST(test_virtio_mmio_config_write_before_features_ok_is_ignored)
{
    const uint32_t value = 0x01020304;
    uint32_t back;

    fake_driver_config_write(&rig.driver, 1, &value, 4);
    fake_driver_config_read(&rig.driver, 1, &back, 4);
    ck_assert_uint_eq(back, 0);
    ck_assert_int_eq(fake_driver_negotiate(&rig.driver, 0), 0);
    fake_driver_config_write(&rig.driver, 1, &value, 4);
    fake_driver_config_read(&rig.driver, 1, &back, 4);
    ck_assert_uint_eq(back, value);
    ck_assert_uint_eq(rig.config[1], 4);
}
END_TEST

static void change_config(void)
{
    pthread_mutex_lock(&rig.device.lock);
    virtio_config_changed(&rig.device);
    pthread_mutex_unlock(&rig.device.lock);
}

START_TEST(test_virtio_mmio_config_change_is_announced)
{
    uint32_t generation = get(VIRTIO_MMIO_CONFIG_GENERATION);

    ck_assert_int_eq(fake_driver_negotiate(&rig.driver, 0), 0);
    change_config();
    ck_assert_uint_ne(get(VIRTIO_MMIO_CONFIG_GENERATION), generation);
    ck_assert_uint_eq(fake_driver_interrupts(&rig.driver), 0);
    fake_driver_ok(&rig.driver); /* what changed while the driver was probing is not lost */
    ck_assert_uint_eq(fake_driver_interrupts(&rig.driver), VIRTIO_INT_CONFIG);
    ck_assert_uint_eq(fake_driver_interrupts(&rig.driver), 0);
    change_config();
    ck_assert_uint_eq(fake_driver_interrupts(&rig.driver), VIRTIO_INT_CONFIG);
    change_config();
    fake_driver_reset(&rig.driver);
    ck_assert_uint_eq(get(VIRTIO_MMIO_INTERRUPT_STATUS), 0);
}
END_TEST

START_TEST(test_virtio_mmio_interrupt_acknowledges_what_it_names)
{
    ck_assert_int_eq(fake_driver_start(&rig.driver, 0, 0), 0);
    change_config();
    ck_assert_uint_eq(get(VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_INT_CONFIG);
    set(VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_INT_USED);
    ck_assert_uint_eq(get(VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_INT_CONFIG);
    set(VIRTIO_MMIO_INTERRUPT_ACK, UINT32_MAX);
    ck_assert_uint_eq(get(VIRTIO_MMIO_INTERRUPT_STATUS), 0);
    ck_assert_uint_eq(rig.mmio.nr_interrupts, 1);
}
END_TEST

START_TEST(test_virtio_mmio_kick_arrives_when_live)
{
    set(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
    fake_driver_run(&rig.driver);
    ck_assert_uint_eq(rig.nr_notified[0], 0);
    ck_assert_int_eq(fake_driver_negotiate(&rig.driver, 0), 0);
    ck_assert_int_eq(fake_driver_make_queue(&rig.driver, 1, 0), 0);
    fake_driver_ok(&rig.driver);
    set(VIRTIO_MMIO_QUEUE_NOTIFY, 0); /* not ready */
    set(VIRTIO_MMIO_QUEUE_NOTIFY, 1);
    set(VIRTIO_MMIO_QUEUE_NOTIFY, 1);
    set(VIRTIO_MMIO_QUEUE_NOTIFY, 2); /* no such queue */
    set(VIRTIO_MMIO_QUEUE_NOTIFY, UINT32_MAX);
    fake_driver_run(&rig.driver);
    ck_assert_uint_eq(rig.nr_notified[0], 0);
    ck_assert_uint_eq(rig.nr_notified[1], 1);
    pthread_mutex_lock(&rig.device.lock);
    virtio_notify_again(&rig.device, 1);
    pthread_mutex_unlock(&rig.device.lock);
    fake_driver_run(&rig.driver);
    ck_assert_uint_eq(rig.nr_notified[1], 2);
    set(VIRTIO_MMIO_QUEUE_NOTIFY, 1);
    fake_driver_reset(&rig.driver); /* the kick is on its way */
    fake_driver_run(&rig.driver);
    ck_assert_uint_eq(rig.nr_notified[1], 2);
    ck_assert_uint_eq(rig.device.nr_kicks, 5);
}
END_TEST

/* Fields of a queue that would be good, one of them changed. */
struct queue_setup {
    bool packed;
    uint32_t size;
    uint64_t desc, driver, device;
    bool good;
};
#define AT(offset) (RIG_MEMORY_START + (offset))
#define END (RIG_MEMORY_START + RIG_MEMORY_BYTES)

/* A split queue of 8: 128 bytes, 20 (22 with the event), 68 (70). */
static const struct queue_setup setups[] = {
    {false, 8, AT(0), AT(0x1000), AT(0x2000), true},
    {false, 8, END - 128, AT(0x1000), AT(0x2000), true},
    {false, 8, END - 112, AT(0x1000), AT(0x2000), false},
    {false, 8, AT(0), END - 22, AT(0x2000), true},
    {false, 8, AT(0), END - 20, AT(0x2000), false},
    {false, 8, AT(0), AT(0x1000), END - 72, true},
    {false, 8, AT(0), AT(0x1000), END - 68, false},
    {false, 8, AT(8), AT(0x1000), AT(0x2000), false},
    {false, 8, AT(0), AT(0x1001), AT(0x2000), false},
    {false, 8, AT(0), AT(0x1000), AT(0x2002), false},
    {false, 8, 0, AT(0x1000), AT(0x2000), false},
    {false, 8, UINT64_MAX - 15, AT(0x1000), AT(0x2000), false},
    {false, 8, AT(0), UINT64_MAX - 1, AT(0x2000), false},
    {false, 8, AT(0), AT(0x1000), UINT64_MAX - 3, false},
    {false, 0, AT(0), AT(0x1000), AT(0x2000), false},
    {false, 7, AT(0), AT(0x1000), AT(0x2000), false},
    {false, 512, AT(0), AT(0x4000), AT(0x8000), false},
    {false, 0x10008, AT(0), AT(0x4000), AT(0x8000), false},
    {false, 256, AT(0), AT(0x4000), AT(0x8000), true},
    {true, 7, AT(0), AT(0x1000), AT(0x2000), true},
    {true, 1, AT(0), AT(0x1000), AT(0x2000), true},
    {true, 0, AT(0), AT(0x1000), AT(0x2000), false},
    {true, 257, AT(0), AT(0x4000), AT(0x8000), false},
    {true, 8, END - 128, END - 4, END - 4, true},
    {true, 8, END - 112, AT(0x1000), AT(0x2000), false},
    {true, 8, AT(8), AT(0x1000), AT(0x2000), false},
    {true, 8, AT(0), AT(0x1002), AT(0x2000), false},
    {true, 8, AT(0), AT(0x1000), AT(0x2002), false},
    {true, 8, AT(0), END, AT(0x2000), false},
    {true, 8, AT(0), AT(0x1000), END, false},
};

static void set_queue(const struct queue_setup *with)
{
    const uint64_t gpa[3] = {with->desc, with->driver, with->device};

    set(VIRTIO_MMIO_QUEUE_SEL, 0);
    set(VIRTIO_MMIO_QUEUE_NUM, with->size);
    for (unsigned i = 0; i < 3; i++) {
        set(VIRTIO_MMIO_QUEUE_DESC_LOW + 16 * i, (uint32_t)gpa[i]);
        set(VIRTIO_MMIO_QUEUE_DESC_LOW + 16 * i + 4, (uint32_t)(gpa[i] >> 32));
    }
}

START_TEST(test_virtio_mmio_bad_queue_is_refused)
{
    const struct queue_setup *with = &setups[_i];

    ck_assert_int_eq(fake_driver_negotiate(&rig.driver, EVENT_IDX | (with->packed ? PACKED : 0)), 0);
    set_queue(with);
    set(VIRTIO_MMIO_QUEUE_READY, 1);
    ck_assert_uint_eq(get(VIRTIO_MMIO_QUEUE_READY), with->good);
    ck_assert_uint_eq(!(fake_driver_status(&rig.driver) & VIRTIO_CONFIG_S_NEEDS_RESET), with->good);
    ck_assert_uint_eq(rig.device.nr_broken, !with->good);
    ck_assert_uint_eq(rig.device.queue[0].ready, with->good);
    fake_driver_ok(&rig.driver); /* a driver that does not look is told */
    ck_assert_uint_eq(fake_driver_interrupts(&rig.driver), with->good ? 0 : VIRTIO_INT_CONFIG);
    ck_assert_uint_eq(rig.nr_activated, with->good);
    ck_assert_int_eq(fake_driver_start(&rig.driver, PACKED, 0), 0);
}
END_TEST

START_TEST(test_virtio_mmio_queue_is_made_between_features_ok_and_driver_ok)
{
    set_queue(&setups[0]);
    set(VIRTIO_MMIO_QUEUE_READY, 1);
    ck_assert_uint_eq(get(VIRTIO_MMIO_QUEUE_READY), 0);
    ck_assert_int_eq(fake_driver_negotiate(&rig.driver, 0), 0);
    set_queue(&setups[0]);
    set(VIRTIO_MMIO_QUEUE_READY, 2);
    ck_assert_uint_eq(get(VIRTIO_MMIO_QUEUE_READY), 0);
    set(VIRTIO_MMIO_QUEUE_READY, 1);
    ck_assert_uint_eq(get(VIRTIO_MMIO_QUEUE_READY), 1);
    /* Now it is the device's: addresses stay. */
    set(VIRTIO_MMIO_QUEUE_DESC_LOW, 0);
    set(VIRTIO_MMIO_QUEUE_NUM, 1);
    ck_assert_uint_eq(rig.device.queue[0].desc.v, AT(0));
    ck_assert_uint_eq(rig.device.queue[0].size, 8);
    set(VIRTIO_MMIO_QUEUE_READY, 0); /* before DRIVER_OK the driver may change its mind */
    ck_assert_uint_eq(get(VIRTIO_MMIO_QUEUE_READY), 0);
    ck_assert_uint_eq(rig.device.nr_broken, 0);
    set_queue(&setups[0]);
    set(VIRTIO_MMIO_QUEUE_READY, 1);
    fake_driver_ok(&rig.driver);
    set(VIRTIO_MMIO_QUEUE_SEL, 1);
    set(VIRTIO_MMIO_QUEUE_READY, 1);
    ck_assert_uint_eq(get(VIRTIO_MMIO_QUEUE_READY), 0);
    ck_assert_uint_eq(rig.device.nr_broken, 0);
}
END_TEST

START_TEST(test_virtio_mmio_queue_taken_from_live_device_needs_reset)
{
    ck_assert_int_eq(fake_driver_start(&rig.driver, 0, 0), 0);
    set(VIRTIO_MMIO_QUEUE_SEL, 1);
    set(VIRTIO_MMIO_QUEUE_READY, 0);
    ck_assert_uint_eq(get(VIRTIO_MMIO_QUEUE_READY), 0);
    ck_assert(fake_driver_status(&rig.driver) & VIRTIO_CONFIG_S_NEEDS_RESET);
    ck_assert_uint_eq(fake_driver_interrupts(&rig.driver), VIRTIO_INT_CONFIG);
    set(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
    fake_driver_run(&rig.driver);
    ck_assert_uint_eq(rig.nr_notified[0], 0);
}
END_TEST

START_TEST(test_virtio_mmio_queue_of_a_broken_device_cannot_be_made_again)
{
    ck_assert_int_eq(fake_driver_start(&rig.driver, 0, 8), 0);
    set(VIRTIO_MMIO_QUEUE_SEL, 1);
    set(VIRTIO_MMIO_QUEUE_READY, 0);
    ck_assert(fake_driver_status(&rig.driver) & VIRTIO_CONFIG_S_NEEDS_RESET);
    ck_assert_int_eq(fake_driver_make_queue(&rig.driver, 1, 8), -EIO);
    ck_assert(!rig.device.queue[1].ready);
    ck_assert_int_eq(fake_driver_start(&rig.driver, 0, 8), 0);
}
END_TEST

/* Rings and event words are memory that the device writes. _i: split, packed. */
START_TEST(test_virtio_mmio_what_the_device_writes_into_rings_is_in_the_log)
{
    struct guest_mem *mem = &rig.memory.mem;
    struct fake_buffer buffer = {fake_memory_alloc(&rig.memory, 64, 16), 64};
    struct virtq *q = &rig.device.queue[0];
    struct virtq_chain chain;

    ck_assert_int_eq(fake_driver_start(&rig.driver, _i ? PACKED : 0, 8), 0);
    ck_assert_int_eq(guest_mem_log_start(mem), 0);
    virtq_disable_kicks(q);
    ck_assert(guest_mem_was_written(mem, gfn_of(q->device)));
    ck_assert_int_eq(guest_mem_log_start(mem), 0);
    ck_assert(!virtq_enable_kicks(q));
    ck_assert(guest_mem_was_written(mem, gfn_of(q->device)));
    ck_assert_int_eq(fake_driver_add(&rig.driver, 0, &buffer, 0, 1, false, NULL), 0);
    ck_assert_int_eq(virtq_pop(q, &chain), 1);
    ck_assert_int_eq(guest_mem_log_start(mem), 0);
    virtq_push(q, &chain, 0);
    ck_assert(guest_mem_was_written(mem, gfn_of(_i ? q->desc : q->device)));
    guest_mem_log_free(mem);
}
END_TEST

START_TEST(test_virtio_mmio_queue_select_out_of_range_is_harmless)
{
    ck_assert_int_eq(fake_driver_negotiate(&rig.driver, 0), 0);
    for (uint32_t sel = RIG_QUEUES; sel != 1; sel = sel > UINT32_MAX / 3 ? 1 : sel * 3) {
        set(VIRTIO_MMIO_QUEUE_SEL, sel);
        ck_assert_uint_eq(get(VIRTIO_MMIO_QUEUE_NUM_MAX), 0);
        set(VIRTIO_MMIO_QUEUE_NUM, 8);
        set(VIRTIO_MMIO_QUEUE_DESC_LOW, 16);
        set(VIRTIO_MMIO_QUEUE_READY, 1);
        ck_assert_uint_eq(get(VIRTIO_MMIO_QUEUE_READY), 0);
        set(VIRTIO_MMIO_QUEUE_READY, 0);
    }
    ck_assert_uint_eq(rig.device.nr_broken, 0);
}
END_TEST

START_TEST(test_virtio_mmio_broken_queue_breaks_the_device_once)
{
    struct virtq_chain chain;

    ck_assert_int_eq(fake_driver_start(&rig.driver, 0, 8), 0);
    /* 9 chains in a ring of 8. */
    ((uint16_t *)(void *)rig.driver.queue[0].driver_hva)[1] = 9;
    pthread_mutex_lock(&rig.device.lock);
    ck_assert_int_eq(virtio_pop(&rig.device, 0, &chain), 0);
    ck_assert_int_eq(virtio_pop(&rig.device, 0, &chain), 0);
    virtio_announce(&rig.device, 0);
    pthread_mutex_unlock(&rig.device.lock);
    ck_assert_uint_eq(rig.device.nr_broken, 1);
    ck_assert_uint_eq(rig.mmio.nr_interrupts, 1);
    ck_assert(fake_driver_status(&rig.driver) & VIRTIO_CONFIG_S_NEEDS_RESET);
    fake_driver_reset(&rig.driver);
    ck_assert_uint_eq(get(VIRTIO_MMIO_INTERRUPT_STATUS), 0);
    ck_assert_int_eq(fake_driver_start(&rig.driver, 0, 8), 0);
    pthread_mutex_lock(&rig.device.lock);
    ck_assert_int_eq(virtio_pop(&rig.device, 0, &chain), 0);
    pthread_mutex_unlock(&rig.device.lock);
    ck_assert_uint_eq(fake_driver_status(&rig.driver), 15);
}
END_TEST

START_TEST(test_virtio_mmio_random_accesses_keep_the_invariants)
{
    static const uint64_t addresses[] = {0, AT(0), AT(0x1000), AT(0x2000), END - 64, UINT64_MAX};
    struct rng rng = {88172645463325252u + (unsigned)_i};
    unsigned nr_live = 0;

    for (unsigned i = 0; i < 50000; i++) {
        uint64_t offset = 4 * (uint64_t)rng_below(&rng, 72), value = rng_next(&rng);
        unsigned bytes = rng_below(&rng, 16) == 0 ? 1u << rng_below(&rng, 4) : 4;

        if (rng_below(&rng, 2) == 0)
            value = addresses[rng_below(&rng, ARRAY_LEN(addresses))] >> (offset & 4 ? 32 : 0);
        if (rng_below(&rng, 200) == 0)
            rig_assert(fake_driver_negotiate(&rig.driver, value & 1 ? PACKED : EVENT_IDX) == 0);
        if (rng_below(&rng, 100) == 0)
            set_queue(&setups[rng_below(&rng, ARRAY_LEN(setups))]);
        if (offset == VIRTIO_MMIO_STATUS)
            value = rng_below(&rng, 256);
        if (offset == VIRTIO_MMIO_QUEUE_SEL || offset == VIRTIO_MMIO_QUEUE_READY)
            value = rng_below(&rng, 3);
        if (rng_below(&rng, 2) == 0)
            virtio_mmio_write(&rig.mmio, offset, bytes, value);
        else
            (void)virtio_mmio_read(&rig.mmio, offset, bytes);
        rig_check(&rig);
        nr_live += virtio_is_live(&rig.device);
        if (rig.device.status & VIRTIO_CONFIG_S_DRIVER_OK)
            rig_assert(virtio_features_good(&rig.device, rig.device.driver_features));
        if (rig.device.queue[0].ready || rig.device.queue[1].ready)
            rig_assert(rig.device.status & VIRTIO_CONFIG_S_FEATURES_OK);
        fake_driver_run(&rig.driver);
    }
    rig_assert(nr_live > 100);
    rig_assert(rig.device.nr_broken > 10);
}
END_TEST

START_TEST(test_virtio_mmio_init_without_descriptors_leaves_nothing)
{
    struct virtio_device device = rig.device;
    struct virtio_mmio mmio;
    struct rlimit old, low;
    int next = dup(0), again;

    ck_assert_int_ge(next, 0);
    close(next);
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &old), 0);
    for (rlim_t room = 0; room < 1 + RIG_QUEUES; room++) {
        low = (struct rlimit){.rlim_cur = (rlim_t)next + room, .rlim_max = old.rlim_max};
        ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &low), 0);
        int err = virtio_mmio_init(&mmio, &device);
        ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &old), 0);
        ck_assert_int_eq(err, -EMFILE);
        again = dup(0);
        ck_assert_int_eq(again, next);
        close(again);
    }
    ck_assert_int_eq(loop_turn(rig.loop, 0), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("virtio_mmio");
    TCase *tcase = tcase_create("virtio_mmio");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_virtio_mmio_identity);
    tcase_add_test(tcase, test_virtio_mmio_no_shared_memory_no_queue_reset);
    tcase_add_test(tcase, test_virtio_mmio_status_walks_up_in_order);
    tcase_add_test(tcase, test_virtio_mmio_features_not_offered_are_refused);
    tcase_add_test(tcase, test_virtio_mmio_features_are_final_after_features_ok);
    tcase_add_test(tcase, test_virtio_mmio_odd_widths_on_registers_are_harmless);
    tcase_add_test(tcase, test_virtio_mmio_config_is_bounded);
    tcase_add_test(tcase, test_virtio_mmio_config_write_before_features_ok_is_ignored);
    tcase_add_test(tcase, test_virtio_mmio_config_change_is_announced);
    tcase_add_test(tcase, test_virtio_mmio_interrupt_acknowledges_what_it_names);
    tcase_add_test(tcase, test_virtio_mmio_kick_arrives_when_live);
    tcase_add_loop_test(tcase, test_virtio_mmio_bad_queue_is_refused, 0, ARRAY_LEN(setups));
    tcase_add_test(tcase, test_virtio_mmio_queue_is_made_between_features_ok_and_driver_ok);
    tcase_add_test(tcase, test_virtio_mmio_queue_taken_from_live_device_needs_reset);
    tcase_add_test(tcase, test_virtio_mmio_queue_of_a_broken_device_cannot_be_made_again);
    tcase_add_loop_test(tcase, test_virtio_mmio_what_the_device_writes_into_rings_is_in_the_log, 0, 2);
    tcase_add_test(tcase, test_virtio_mmio_queue_select_out_of_range_is_harmless);
    tcase_add_test(tcase, test_virtio_mmio_broken_queue_breaks_the_device_once);
    tcase_add_loop_test(tcase, test_virtio_mmio_random_accesses_keep_the_invariants, 0, 4);
    tcase_add_test(tcase, test_virtio_mmio_init_without_descriptors_leaves_nothing);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
