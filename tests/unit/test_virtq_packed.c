/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>

#include "tests/unit/virtq_model.h"

#define SIZE 6 /* no power of two */
#define NEXT VRING_DESC_F_NEXT
#define WRITE VRING_DESC_F_WRITE
#define TABLE VRING_DESC_F_INDIRECT
#define AVAIL (1u << VRING_PACKED_DESC_F_AVAIL)
#define USED (1u << VRING_PACKED_DESC_F_USED)

static struct rig rig;
static struct virtq *q;
static struct vring_packed_desc *ring;  /* as a hostile driver sees it */
static uint16_t *driver_event;          /* off_wrap, flags */
static uint16_t *device_event;          /* off_wrap, flags */
static struct vring_packed_desc *table; /* of 200, for indirect descriptors */
static gpa_t data, table_gpa;

static void start(uint64_t features, uint16_t size)
{
    ck_assert_int_eq(fake_driver_start(&rig.driver, PACKED | features, size), 0);
    q = &rig.device.queue[0];
    ring = (struct vring_packed_desc *)(void *)rig.driver.queue[0].desc_hva;
    driver_event = (uint16_t *)(void *)rig.driver.queue[0].driver_hva;
    device_event = (uint16_t *)(void *)rig.driver.queue[0].device_hva;
}

static void setup(void)
{
    rig_init(&rig);
    data = fake_memory_alloc(&rig.memory, 4096, 16);
    table_gpa = fake_memory_alloc(&rig.memory, 200 * 16, 16);
    table = fake_memory_at(&rig.memory, table_gpa, 200 * 16);
    start(INDIRECT | EVENT_IDX, SIZE);
}

static void teardown(void)
{
    rig_check(&rig);
    rig_fini(&rig);
}

/* Available in the first round. */
static void put(unsigned i, uint64_t gpa, uint32_t len, unsigned flags, uint16_t id)
{
    ring[i] = (struct vring_packed_desc){.addr = gpa, .len = len, .id = id, .flags = (uint16_t)(flags | AVAIL)};
}

static void put_table(unsigned i, uint64_t gpa, uint32_t len, uint16_t flags)
{
    table[i] = (struct vring_packed_desc){.addr = gpa, .len = len, .flags = flags, .id = 1000};
}

/* The chain at descriptor 0 breaks the queue, for good, with no byte of the ring changed. */
static void expect_broken(void)
{
    struct vring_packed_desc before[SIZE];
    struct virtq_chain chain = {0};

    memcpy(before, ring, sizeof(before));
    ck_assert_int_eq(virtq_pop(q, &chain), -EINVAL);
    ck_assert(q->broken);
    ck_assert_int_eq(virtq_pop(q, &chain), -EINVAL);
    chain.nr_slots = 1;
    virtq_push(q, &chain, 0);
    ck_assert(!virtq_must_interrupt(q));
    virtq_disable_kicks(q);
    ck_assert(!virtq_enable_kicks(q));
    ck_assert_int_eq(memcmp(before, ring, sizeof(before)), 0);
    ck_assert_uint_eq(device_event[1], VRING_PACKED_EVENT_FLAG_ENABLE);
}

START_TEST(test_virtq_packed_chain_is_taken_whole)
{
    struct virtq_chain chain;

    put(0, data.v, 16, NEXT, 1);
    put(1, data.v + 16, 0, NEXT, 2);
    put(2, data.v + 100, 7, WRITE, 60000);
    ck_assert_int_eq(virtq_pop(q, &chain), 1);
    ck_assert_uint_eq(chain.nr_out, 2);
    ck_assert_uint_eq(chain.nr_in, 1);
    ck_assert_uint_eq(chain.nr_slots, 3);
    ck_assert_uint_eq(chain.id, 60000); /* of the last descriptor */
    ck_assert_uint_eq(chain.out_bytes, 16);
    ck_assert_uint_eq(chain.in_bytes, 7);
    virtq_push(q, &chain, 5);
    ck_assert_uint_eq(ring[0].id, 60000);
    ck_assert_uint_eq(ring[0].len, 5);
    ck_assert_uint_eq(ring[0].flags, AVAIL | USED | WRITE);
    ck_assert_uint_eq(q->next_used, 3);
}
END_TEST

START_TEST(test_virtq_packed_used_without_bytes_has_no_write_flag)
{
    struct virtq_chain chain;

    put(0, data.v, 16, WRITE, 1);
    ck_assert_int_eq(virtq_pop(q, &chain), 1);
    virtq_push(q, &chain, 0);
    ck_assert_uint_eq(ring[0].flags, AVAIL | USED);
}
END_TEST

START_TEST(test_virtq_packed_flags_of_another_round_are_not_available)
{
    static const unsigned flags[] = {0, USED, AVAIL | USED};
    struct virtq_chain chain;

    put(0, data.v, 16, 0, 0);
    for (unsigned i = 0; i < ARRAY_LEN(flags); i++) {
        ring[0].flags = (uint16_t)flags[i];
        ck_assert_int_eq(virtq_pop(q, &chain), 0);
    }
    ck_assert(!q->broken);
}
END_TEST

START_TEST(test_virtq_packed_second_round_has_the_other_bits)
{
    struct virtq_chain chain;

    for (unsigned i = 0; i < SIZE; i++) {
        put(i, data.v, 16, 0, (uint16_t)i);
        ck_assert_int_eq(virtq_pop(q, &chain), 1);
        virtq_push(q, &chain, 0);
    }
    ck_assert_int_eq(virtq_pop(q, &chain), 0);
    put(0, data.v, 16, 0, 0);
    ck_assert_int_eq(virtq_pop(q, &chain), 0);
    ring[0].flags = USED;
    ck_assert_int_eq(virtq_pop(q, &chain), 1);
    virtq_push(q, &chain, 0);
    ck_assert_uint_eq(ring[0].flags, 0);
}
END_TEST

/* Four of six, then four across the end. */
START_TEST(test_virtq_packed_chain_across_the_end_is_taken_whole)
{
    struct virtq_chain chain;

    for (unsigned i = 0; i < 4; i++)
        put(i, data.v, 16, i < 3 ? NEXT : 0, 7);
    ck_assert_int_eq(virtq_pop(q, &chain), 1);
    virtq_push(q, &chain, 0);
    put(4, data.v, 16, NEXT, 0);
    put(5, data.v, 16, NEXT, 0);
    put(0, data.v, 16, NEXT, 0);
    put(1, data.v, 16, 0, 8);
    ring[0].flags = NEXT | USED;
    ring[1].flags = USED;
    ck_assert_int_eq(virtq_pop(q, &chain), 1);
    ck_assert_uint_eq(chain.nr_slots, 4);
    ck_assert_uint_eq(chain.id, 8);
    virtq_push(q, &chain, 0);
    ck_assert_uint_eq(q->next_used, 2);
    ck_assert(!q->used_wrap);
    ck_assert_uint_eq(ring[4].flags, AVAIL | USED);
}
END_TEST

START_TEST(test_virtq_packed_list_that_is_not_all_available_breaks)
{
    put(0, data.v, 16, NEXT, 0);
    put(1, data.v, 16, 0, 0);
    ring[1].flags = AVAIL | USED;
    expect_broken();
}
END_TEST

START_TEST(test_virtq_packed_list_without_end_breaks)
{
    for (unsigned i = 0; i < SIZE; i++)
        put(i, data.v, 16, NEXT, 0);
    expect_broken();
    start(0, 1);
    put(0, data.v, 16, NEXT, 0);
    struct virtq_chain chain;
    ck_assert_int_eq(virtq_pop(q, &chain), -EINVAL);
}
END_TEST

/* All slots are in flight, and yet there is a descriptor that says it is available. */
START_TEST(test_virtq_packed_more_than_the_ring_holds_breaks)
{
    struct virtq_chain chain;

    for (unsigned i = 0; i < SIZE; i++) {
        put(i, data.v, 16, 0, 0);
        ck_assert_int_eq(virtq_pop(q, &chain), 1);
    }
    rig_check(&rig);
    ck_assert_int_eq(virtq_pop(q, &chain), 0);
    ring[0].flags = USED;
    expect_broken();
    start(0, SIZE); /* or a list that runs into what is in flight */
    put(0, data.v, 16, 0, 0);
    ck_assert_int_eq(virtq_pop(q, &chain), 1);
    for (unsigned i = 1; i < SIZE; i++)
        put(i, data.v, 16, NEXT, 0);
    put(0, data.v, 16, 0, 0);
    ring[0].flags = USED;
    expect_broken();
}
END_TEST

START_TEST(test_virtq_packed_readable_after_writable_breaks)
{
    put(0, data.v, 16, NEXT | WRITE, 1);
    put(1, data.v, 16, 0, 0);
    expect_broken();
}
END_TEST

START_TEST(test_virtq_packed_chain_of_nothing_breaks)
{
    put(0, data.v, 0, NEXT, 1);
    put(1, data.v, 0, WRITE, 0);
    expect_broken();
}
END_TEST

START_TEST(test_virtq_packed_segment_outside_memory_breaks)
{
    put(0, data.v, 16, NEXT, 1);
    put(1, RIG_MEMORY_START + RIG_MEMORY_BYTES - 1, 2, WRITE, 0);
    expect_broken();
    start(0, SIZE);
    put(0, UINT64_MAX - 3, 8, 0, 0);
    expect_broken();
    start(INDIRECT, SIZE);
    put(0, RIG_MEMORY_START + RIG_MEMORY_BYTES - 16, 32, TABLE, 0);
    expect_broken();
}
END_TEST

START_TEST(test_virtq_packed_indirect_table_is_taken_in_order)
{
    struct virtq_chain chain;

    put_table(0, data.v, 1, NEXT); /* NEXT means nothing in a table, nor does the id */
    put_table(1, data.v + 8, 2, AVAIL | USED);
    put_table(2, data.v + 16, 4, WRITE);
    put(0, table_gpa.v, 48, TABLE | WRITE, 9);
    ck_assert_int_eq(virtq_pop(q, &chain), 1);
    ck_assert_uint_eq(chain.id, 9);
    ck_assert_uint_eq(chain.nr_slots, 1);
    ck_assert_uint_eq(chain.nr_out, 2);
    ck_assert_uint_eq(chain.out_bytes, 3);
    ck_assert_uint_eq(chain.in_bytes, 4);
}
END_TEST

START_TEST(test_virtq_packed_bad_indirect_table_breaks)
{
    static const uint32_t bytes[] = {0, 1, 15, 17, 40, UINT32_MAX};

    for (unsigned i = 0; i < ARRAY_LEN(bytes); i++) {
        start(INDIRECT, SIZE);
        put_table(0, data.v, 1, 0);
        put(0, table_gpa.v, bytes[i], TABLE, 0);
        expect_broken();
    }
    start(INDIRECT, SIZE); /* chained */
    put(0, table_gpa.v, 16, TABLE | NEXT, 1);
    put(1, data.v, 1, 0, 0);
    expect_broken();
    start(INDIRECT, SIZE); /* nested */
    put_table(0, table_gpa.v + 16, 16, TABLE);
    put_table(1, data.v, 1, 0);
    put(0, table_gpa.v, 16, TABLE, 0);
    expect_broken();
    start(0, SIZE); /* not negotiated */
    put_table(0, data.v, 1, 0);
    put(0, table_gpa.v, 16, TABLE, 0);
    expect_broken();
}
END_TEST

START_TEST(test_virtq_packed_segments_at_the_limit_are_good_one_more_breaks)
{
    struct virtq_chain chain;

    for (unsigned i = 0; i < 200; i++)
        put_table(i, data.v + i, 1, 0);
    put(0, table_gpa.v, VIRTQ_MAX_SEGMENTS * 16, TABLE, 0);
    ck_assert_int_eq(virtq_pop(q, &chain), 1);
    ck_assert_uint_eq(chain.nr_out, VIRTQ_MAX_SEGMENTS);
    start(INDIRECT, SIZE);
    put(0, table_gpa.v, (VIRTQ_MAX_SEGMENTS + 1) * 16, TABLE, 0);
    expect_broken();
}
END_TEST

START_TEST(test_virtq_packed_driver_event_is_obeyed)
{
    /* flags, offset | wrap, is an interrupt due after descriptor 0 of the first round was used */
    static const struct {
        uint16_t flags, off_wrap;
        bool due;
    } events[] = {
        {VRING_PACKED_EVENT_FLAG_ENABLE, 3, true},
        {VRING_PACKED_EVENT_FLAG_DISABLE, 0x8000, false},
        {VRING_PACKED_EVENT_FLAG_DESC, 0x8000, true},
        {VRING_PACKED_EVENT_FLAG_DESC, 0x8001, false},
        {VRING_PACKED_EVENT_FLAG_DESC, 0, false},          /* of the round before: long ago */
        {VRING_PACKED_EVENT_FLAG_DESC, 0xffff, false},     /* nowhere */
        {3, 0x8001, true},                                 /* reserved: rather one too many */
        {VRING_PACKED_EVENT_FLAG_DESC | 4, 0x8001, false}, /* reserved bits mean nothing */
    };
    struct virtq_chain chain;

    for (unsigned i = 0; i < ARRAY_LEN(events); i++) {
        start(EVENT_IDX, SIZE);
        put(0, data.v, 16, 0, 0);
        ck_assert_int_eq(virtq_pop(q, &chain), 1);
        driver_event[0] = events[i].off_wrap;
        driver_event[1] = events[i].flags;
        ck_assert(!virtq_must_interrupt(q));
        virtq_push(q, &chain, 0);
        ck_assert_int_eq(virtq_must_interrupt(q), events[i].due);
        ck_assert(!virtq_must_interrupt(q));
    }
    start(0, SIZE); /* DESC without the feature is no way to be quiet */
    put(0, data.v, 16, 0, 0);
    ck_assert_int_eq(virtq_pop(q, &chain), 1);
    driver_event[0] = 0x8001;
    driver_event[1] = VRING_PACKED_EVENT_FLAG_DESC;
    virtq_push(q, &chain, 0);
    ck_assert(virtq_must_interrupt(q));
}
END_TEST

START_TEST(test_virtq_packed_device_event_is_set)
{
    struct virtq_chain chain;

    virtq_disable_kicks(q);
    ck_assert_uint_eq(device_event[1], VRING_PACKED_EVENT_FLAG_DISABLE);
    put(0, data.v, 16, 0, 0);
    ck_assert(virtq_enable_kicks(q));
    ck_assert_int_eq(virtq_pop(q, &chain), 1);
    ck_assert(!virtq_enable_kicks(q));
    ck_assert_uint_eq(device_event[1], VRING_PACKED_EVENT_FLAG_DESC);
    ck_assert_uint_eq(device_event[0], 0x8001);
    start(0, SIZE);
    virtq_disable_kicks(q);
    ck_assert_uint_eq(device_event[1], VRING_PACKED_EVENT_FLAG_DISABLE);
    ck_assert(!virtq_enable_kicks(q));
    ck_assert_uint_eq(device_event[1], VRING_PACKED_EVENT_FLAG_ENABLE);
}
END_TEST

START_TEST(test_virtq_packed_check_sees_damage)
{
    struct virtq good = *q;
    const char *why = NULL;

    q->next_avail = SIZE;
    ck_assert(!virtq_check(q, &why));
    *q = good;
    q->next_used = 1; /* used before it was taken */
    ck_assert(!virtq_check(q, &why));
    *q = good;
    q->avail_wrap = false;
    q->next_avail = 1; /* a whole round and one in flight */
    ck_assert(!virtq_check(q, &why));
    *q = good;
    q->desc_hva += 16;
    ck_assert(!virtq_check(q, &why));
    *q = good;
    ck_assert(virtq_check(q, &why));
}
END_TEST

START_TEST(test_virtq_packed_positions_wrap_many_times)
{
    struct fake_buffer buffer[2] = {{data, 16}, {data, 16}};
    struct virtq_chain chain;
    struct fake_used used;

    start(_i & 1 ? EVENT_IDX : 0, _i & 2 ? 2 : 7);
    for (unsigned i = 0; i < 70000; i++) {
        rig_assert(fake_driver_add(&rig.driver, 0, buffer, 1, 1, false, &used) == 0);
        rig_assert(fake_driver_kick(&rig.driver, 0));
        rig_assert(virtq_pop(q, &chain) == 1);
        virtq_push(q, &chain, i & 15);
        rig_assert(virtq_must_interrupt(q));
        rig_assert(!virtq_enable_kicks(q));
        rig_assert(fake_driver_collect(&rig.driver, 0, &used) == 1);
        rig_assert(used.written_bytes == (i & 15));
    }
    rig_assert(q->nr_chains == 70000);
}
END_TEST

START_TEST(test_virtq_packed_random_operations_agree_with_the_model)
{
    static const uint16_t sizes[] = {1, 2, 3, 5, 7, 8, 100, 256};

    model_run(PACKED | (_i & 1 ? EVENT_IDX : 0) | (_i & 2 ? INDIRECT : 0), (uint64_t)_i + 1, sizes, ARRAY_LEN(sizes),
              10000);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("virtq_packed");
    TCase *tcase = tcase_create("virtq_packed");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_virtq_packed_chain_is_taken_whole);
    tcase_add_test(tcase, test_virtq_packed_used_without_bytes_has_no_write_flag);
    tcase_add_test(tcase, test_virtq_packed_flags_of_another_round_are_not_available);
    tcase_add_test(tcase, test_virtq_packed_second_round_has_the_other_bits);
    tcase_add_test(tcase, test_virtq_packed_chain_across_the_end_is_taken_whole);
    tcase_add_test(tcase, test_virtq_packed_list_that_is_not_all_available_breaks);
    tcase_add_test(tcase, test_virtq_packed_list_without_end_breaks);
    tcase_add_test(tcase, test_virtq_packed_more_than_the_ring_holds_breaks);
    tcase_add_test(tcase, test_virtq_packed_readable_after_writable_breaks);
    tcase_add_test(tcase, test_virtq_packed_chain_of_nothing_breaks);
    tcase_add_test(tcase, test_virtq_packed_segment_outside_memory_breaks);
    tcase_add_test(tcase, test_virtq_packed_indirect_table_is_taken_in_order);
    tcase_add_test(tcase, test_virtq_packed_bad_indirect_table_breaks);
    tcase_add_test(tcase, test_virtq_packed_segments_at_the_limit_are_good_one_more_breaks);
    tcase_add_test(tcase, test_virtq_packed_driver_event_is_obeyed);
    tcase_add_test(tcase, test_virtq_packed_device_event_is_set);
    tcase_add_test(tcase, test_virtq_packed_check_sees_damage);
    tcase_add_loop_test(tcase, test_virtq_packed_positions_wrap_many_times, 0, 4);
    suite_add_tcase(suite, tcase);
    TCase *model = tcase_create("model");
    tcase_set_timeout(model, 120);
    tcase_add_loop_test(model, test_virtq_packed_random_operations_agree_with_the_model, 0, 4);
    suite_add_tcase(suite, model);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
