/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>

#include "tests/unit/virtq_model.h"

#define SIZE 8
#define NEXT VRING_DESC_F_NEXT
#define WRITE VRING_DESC_F_WRITE
#define TABLE VRING_DESC_F_INDIRECT

static struct rig rig;
static struct virtq *q;
static struct vring_desc *desc;  /* the descriptor table, as a hostile driver sees it */
static uint16_t *avail;          /* flags, idx, ring, used_event */
static uint16_t *used_ring;      /* flags, idx, ... */
static struct vring_desc *table; /* of 200, for indirect descriptors */
static gpa_t data, table_gpa;

static void start(uint64_t features, uint16_t size)
{
    ck_assert_int_eq(fake_driver_start(&rig.driver, features, size), 0);
    q = &rig.device.queue[0];
    desc = (struct vring_desc *)(void *)rig.driver.queue[0].desc_hva;
    avail = (uint16_t *)(void *)rig.driver.queue[0].driver_hva;
    used_ring = (uint16_t *)(void *)rig.driver.queue[0].device_hva;
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

static void put(unsigned i, uint64_t gpa, uint32_t len, uint16_t flags, uint16_t next)
{
    desc[i] = (struct vring_desc){.addr = gpa, .len = len, .flags = flags, .next = next};
}

static void put_table(unsigned i, uint64_t gpa, uint32_t len, uint16_t flags, uint16_t next)
{
    table[i] = (struct vring_desc){.addr = gpa, .len = len, .flags = flags, .next = next};
}

static void publish(uint16_t head)
{
    avail[2 + avail[1] % SIZE] = head;
    avail[1]++;
}

/* The chain at descriptor 0 breaks the queue, for good, with no byte of guest memory changed. */
static void expect_broken(void)
{
    struct virtq_chain chain = {0};
    uint8_t before[512], *used = (uint8_t *)used_ring;

    publish(0);
    memcpy(before, used, 6 + 8 * SIZE);
    ck_assert_int_eq(virtq_pop(q, &chain), -EINVAL);
    ck_assert(q->broken);
    put(0, data.v, 16, 0, 0);
    ck_assert_int_eq(virtq_pop(q, &chain), -EINVAL);
    chain.id = 1;
    virtq_push(q, &chain, 0);
    ck_assert(!virtq_must_interrupt(q));
    virtq_disable_kicks(q);
    ck_assert(!virtq_enable_kicks(q));
    ck_assert_int_eq(memcmp(before, used, 6 + 8 * SIZE), 0);
}

START_TEST(test_virtq_split_chain_is_taken_whole)
{
    struct virtq_chain chain;

    put(0, data.v, 16, NEXT, 5);
    put(5, data.v + 16, 0, NEXT, 2);
    put(2, data.v + 100, 7, WRITE, 99);
    publish(0);
    ck_assert_int_eq(virtq_pop(q, &chain), 1);
    ck_assert_uint_eq(chain.nr_out, 2);
    ck_assert_uint_eq(chain.nr_in, 1);
    ck_assert_uint_eq(chain.out_bytes, 16);
    ck_assert_uint_eq(chain.in_bytes, 7);
    ck_assert_uint_eq(chain.segment[2].gpa.v, data.v + 100);
    virtq_push(q, &chain, 7);
    ck_assert_uint_eq(used_ring[1], 1);
    ck_assert_uint_eq(used_ring[2], 0);
    ck_assert_uint_eq(used_ring[4], 7);
}
END_TEST

START_TEST(test_virtq_split_index_that_jumps_breaks)
{
    struct virtq_chain chain;

    put(0, data.v, 16, 0, 0);
    avail[1] = SIZE + 1;
    ck_assert_int_eq(virtq_pop(q, &chain), -EINVAL);
    start(0, SIZE);
    put(0, data.v, 16, 0, 0);
    avail[1] = UINT16_MAX; /* backwards */
    ck_assert_int_eq(virtq_pop(q, &chain), -EINVAL);
    start(0, SIZE);
    put(0, data.v, 16, 0, 0);
    avail[1] = SIZE;
    for (unsigned i = 0; i < SIZE; i++)
        ck_assert_int_eq(virtq_pop(q, &chain), 1);
    /* All are in flight: no driver has another. */
    avail[1]++;
    ck_assert_int_eq(virtq_pop(q, &chain), -EINVAL);
}
END_TEST

START_TEST(test_virtq_split_head_outside_breaks)
{
    struct virtq_chain chain;

    publish(SIZE);
    ck_assert_int_eq(virtq_pop(q, &chain), -EINVAL);
    start(0, SIZE);
    publish(UINT16_MAX);
    ck_assert_int_eq(virtq_pop(q, &chain), -EINVAL);
}
END_TEST

START_TEST(test_virtq_split_next_outside_breaks)
{
    put(0, data.v, 16, NEXT, SIZE);
    expect_broken();
}
END_TEST

START_TEST(test_virtq_split_loop_breaks)
{
    for (uint16_t i = 0; i < SIZE; i++)
        put(i, data.v, 16, NEXT, (uint16_t)((i + 1) % SIZE));
    expect_broken();
    start(0, SIZE);
    put(0, data.v, 16, NEXT, 0);
    expect_broken();
}
END_TEST

START_TEST(test_virtq_split_chain_as_long_as_the_ring_is_good)
{
    struct virtq_chain chain;

    for (uint16_t i = 0; i < SIZE; i++)
        put(i, data.v, 16, i + 1 < SIZE ? NEXT : 0, (uint16_t)(i + 1));
    publish(0);
    ck_assert_int_eq(virtq_pop(q, &chain), 1);
    ck_assert_uint_eq(chain.nr_out, SIZE);
}
END_TEST

START_TEST(test_virtq_split_readable_after_writable_breaks)
{
    put(0, data.v, 16, NEXT | WRITE, 1);
    put(1, data.v, 16, 0, 0);
    expect_broken();
}
END_TEST

START_TEST(test_virtq_split_chain_of_nothing_breaks)
{
    put(0, data.v, 0, NEXT, 1);
    put(1, data.v, 0, WRITE, 0);
    expect_broken();
}
END_TEST

/* _i: how the segment leaves memory. */
static const struct {
    uint64_t gpa;
    uint32_t bytes;
} outside[] = {
    {0, 16},
    {RIG_MEMORY_START - 1, 2},
    {RIG_MEMORY_START + RIG_MEMORY_BYTES - 1, 2},
    {RIG_MEMORY_START + RIG_MEMORY_BYTES, 1},
    {RIG_MEMORY_START, UINT32_MAX},
    {UINT64_MAX, 1},
    {UINT64_MAX - 7, 16},
    {UINT64_MAX - RIG_MEMORY_START, UINT32_MAX},
};

START_TEST(test_virtq_split_segment_outside_memory_breaks)
{
    put(0, data.v, 16, NEXT, 1);
    put(1, outside[_i].gpa, outside[_i].bytes, _i % 2 ? WRITE : 0, 0);
    expect_broken();
    start(INDIRECT, SIZE);
    put(0, table_gpa.v, 32, TABLE, 0);
    put_table(0, data.v, 16, NEXT, 1);
    put_table(1, outside[_i].gpa, outside[_i].bytes, _i % 2 ? WRITE : 0, 0);
    expect_broken();
    start(INDIRECT, SIZE); /* the table itself */
    put(0, outside[_i].gpa & ~UINT64_C(15), (outside[_i].bytes | 15) + 1, TABLE, 0);
    expect_broken();
}
END_TEST

START_TEST(test_virtq_split_indirect_table_follows_its_links)
{
    struct virtq_chain chain;

    /* After a normal descriptor; WRITE beside INDIRECT is ignored; the table stands at an odd address. */
    char *odd = fake_memory_at(&rig.memory, (gpa_t){data.v + 1001}, 48);
    put_table(0, data.v, 1, NEXT, 2);
    put_table(2, data.v + 8, 2, NEXT, 1);
    put_table(1, data.v + 16, 4, WRITE, 77);
    memcpy(odd, table, 48);
    put(0, data.v + 32, 8, NEXT, 3);
    put(3, data.v + 1001, 48, TABLE | WRITE, 0);
    publish(0);
    ck_assert_int_eq(virtq_pop(q, &chain), 1);
    ck_assert_uint_eq(chain.nr_out, 3);
    ck_assert_uint_eq(chain.nr_in, 1);
    ck_assert_uint_eq(chain.segment[0].bytes, 8);
    ck_assert_uint_eq(chain.segment[1].bytes, 1);
    ck_assert_uint_eq(chain.segment[2].bytes, 2);
    ck_assert_uint_eq(chain.segment[3].bytes, 4);
}
END_TEST

START_TEST(test_virtq_split_indirect_not_negotiated_breaks)
{
    start(0, SIZE);
    put(0, table_gpa.v, 16, TABLE, 0);
    put_table(0, data.v, 1, 0, 0);
    expect_broken();
}
END_TEST

START_TEST(test_virtq_split_bad_indirect_table_breaks)
{
    static const uint32_t bytes[] = {0, 1, 15, 17, 40, UINT32_MAX};

    put_table(0, data.v, 1, 0, 0);
    for (unsigned i = 0; i < ARRAY_LEN(bytes); i++) {
        start(INDIRECT, SIZE);
        put(0, table_gpa.v, bytes[i], TABLE, 0);
        expect_broken();
    }
    start(INDIRECT, SIZE);
    put(0, table_gpa.v, 16, TABLE | NEXT, 1);
    put(1, data.v, 1, 0, 0);
    expect_broken();
}
END_TEST

START_TEST(test_virtq_split_bad_links_in_indirect_table_break)
{
    put_table(0, table_gpa.v + 32, 16, TABLE, 0); /* nested */
    put_table(2, data.v, 1, 0, 0);
    put(0, table_gpa.v, 32, TABLE, 0);
    expect_broken();
    start(INDIRECT, SIZE);
    put_table(0, data.v, 1, NEXT, 2); /* outside the table of two */
    put(0, table_gpa.v, 32, TABLE, 0);
    expect_broken();
    start(INDIRECT, SIZE);
    put_table(0, data.v, 1, NEXT, 1); /* a loop */
    put_table(1, data.v, 1, NEXT, 0);
    put(0, table_gpa.v, 32, TABLE, 0);
    expect_broken();
    start(INDIRECT, SIZE);
    put_table(0, data.v, 1, NEXT, 1); /* the last one has a successor */
    put_table(1, data.v, 1, NEXT, 2);
    put(0, table_gpa.v, 32, TABLE, 0);
    expect_broken();
}
END_TEST

START_TEST(test_virtq_split_segments_at_the_limit_are_good_one_more_breaks)
{
    struct virtq_chain chain;

    for (uint16_t i = 0; i < 200; i++)
        put_table(i, data.v + i, 1, i == VIRTQ_MAX_SEGMENTS - 1 ? 0 : NEXT, (uint16_t)(i + 1));
    put(0, table_gpa.v, 200 * 16, TABLE, 0);
    publish(0);
    ck_assert_int_eq(virtq_pop(q, &chain), 1);
    ck_assert_uint_eq(chain.nr_out, VIRTQ_MAX_SEGMENTS);
    start(INDIRECT, SIZE);
    put_table(VIRTQ_MAX_SEGMENTS - 1, data.v, 1, NEXT, VIRTQ_MAX_SEGMENTS);
    put_table(VIRTQ_MAX_SEGMENTS, data.v, 1, 0, 0);
    put(0, table_gpa.v, 200 * 16, TABLE, 0);
    expect_broken();
}
END_TEST

/* Guest memory of 4 MiB named again and again: 4 GiB - 1 fit into used.len, more does not. */
START_TEST(test_virtq_split_more_bytes_than_a_length_can_say_break)
{
    struct guest_mem huge = {.nr = 1, .region[0] = rig.memory.mem.region[0]};
    struct virtq_chain chain;

    huge.region[0].bytes = UINT64_C(1) << 40; /* nobody touches what is not there: pop only checks */
    q->mem = &huge;
    put(0, RIG_MEMORY_START, UINT32_MAX, WRITE, 0);
    publish(0);
    ck_assert_int_eq(virtq_pop(q, &chain), 1);
    put(0, RIG_MEMORY_START, UINT32_MAX, NEXT, 1);
    put(1, RIG_MEMORY_START, 1, WRITE, 0);
    expect_broken();
    q->mem = &rig.memory.mem;
}
END_TEST

START_TEST(test_virtq_split_guest_that_changes_a_chain_changes_no_copy)
{
    struct virtq_chain chain;
    char byte = 'x';

    put(0, data.v, 1, WRITE, 0);
    publish(0);
    ck_assert_int_eq(virtq_pop(q, &chain), 1);
    put(0, UINT64_MAX, UINT32_MAX, 0, 0);
    avail[2] = UINT16_MAX;
    ck_assert_uint_eq(virtq_write(q, &chain, 0, &byte, 1), 1);
    ck_assert_int_eq(*(char *)fake_memory_at(&rig.memory, data, 1), 'x');
    virtq_push(q, &chain, 1);
    ck_assert_uint_eq(used_ring[2], 0);
}
END_TEST

START_TEST(test_virtq_split_interrupt_flag_is_obeyed)
{
    struct virtq_chain chain;

    start(0, SIZE);
    put(0, data.v, 16, 0, 0);
    for (unsigned i = 0; i < 2; i++) {
        avail[0] = i == 0 ? VRING_AVAIL_F_NO_INTERRUPT : 0;
        ck_assert(!virtq_must_interrupt(q)); /* nothing was pushed */
        publish(0);
        ck_assert_int_eq(virtq_pop(q, &chain), 1);
        virtq_push(q, &chain, 0);
        ck_assert_int_eq(virtq_must_interrupt(q), i == 1);
    }
    ck_assert_uint_eq(q->nr_interrupts, 1);
}
END_TEST

START_TEST(test_virtq_split_kick_flag_or_event_is_set)
{
    start(0, SIZE);
    virtq_disable_kicks(q);
    ck_assert_uint_eq(used_ring[0], VRING_USED_F_NO_NOTIFY);
    ck_assert(!virtq_enable_kicks(q));
    ck_assert_uint_eq(used_ring[0], 0);
    avail[1]++;
    ck_assert(virtq_enable_kicks(q));
    start(EVENT_IDX, SIZE);
    struct virtq_chain chain;
    put(0, data.v, 16, 0, 0);
    publish(0);
    ck_assert_int_eq(virtq_pop(q, &chain), 1);
    virtq_disable_kicks(q);
    ck_assert_uint_eq(used_ring[0], 0);
    ck_assert(!virtq_enable_kicks(q));
    ck_assert_uint_eq(used_ring[2 + 4 * SIZE], 1);
}
END_TEST

START_TEST(test_virtq_split_queue_that_is_not_ready_does_nothing)
{
    struct virtq_chain chain = {.nr_slots = 1};
    struct virtq idle;
    const char *why;

    virtq_reset(&idle, &rig.memory.mem, SIZE);
    ck_assert_int_eq(virtq_pop(&idle, &chain), 0);
    virtq_push(&idle, &chain, 0);
    virtq_disable_kicks(&idle);
    ck_assert(!virtq_enable_kicks(&idle));
    ck_assert(!virtq_must_interrupt(&idle));
    ck_assert(virtq_check(&idle, &why));
    ck_assert_int_eq(virtq_start(q, false, false, false), -EINVAL); /* ready already */
}
END_TEST

START_TEST(test_virtq_split_check_sees_damage)
{
    struct virtq good = *q;
    const char *why = NULL;

    q->device_hva += 4;
    ck_assert(!virtq_check(q, &why));
    *q = good;
    q->size = 7;
    ck_assert(!virtq_check(q, &why));
    *q = good;
    q->next_used = 1;
    ck_assert(!virtq_check(q, &why));
    *q = good;
    q->ready = false;
    ck_assert(!virtq_check(q, &why));
    *q = good;
    ck_assert(virtq_check(q, &why));
}
END_TEST

START_TEST(test_virtq_split_indices_wrap_many_times)
{
    struct fake_buffer buffer = {data, 16};
    struct virtq_chain chain;
    struct fake_used used;

    start(_i ? EVENT_IDX : 0, 4);
    for (unsigned i = 0; i < 140000; i++) {
        rig_assert(fake_driver_add(&rig.driver, 0, &buffer, 0, 1, false, &used) == 0);
        rig_assert(fake_driver_kick(&rig.driver, 0));
        rig_assert(virtq_pop(q, &chain) == 1);
        virtq_push(q, &chain, i & 15);
        rig_assert(virtq_must_interrupt(q));
        rig_assert(!virtq_enable_kicks(q));
        rig_assert(fake_driver_collect(&rig.driver, 0, &used) == 1);
        rig_assert(used.written_bytes == (i & 15));
    }
    rig_assert(q->nr_chains == 140000);
}
END_TEST

START_TEST(test_virtq_split_random_operations_agree_with_the_model)
{
    static const uint16_t sizes[] = {1, 2, 4, 8, 32, 256, 4, 8};

    model_run((_i & 1 ? EVENT_IDX : 0) | (_i & 2 ? INDIRECT : 0), (uint64_t)_i + 1, sizes, ARRAY_LEN(sizes), 10000);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("virtq_split");
    TCase *tcase = tcase_create("virtq_split");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_virtq_split_chain_is_taken_whole);
    tcase_add_test(tcase, test_virtq_split_index_that_jumps_breaks);
    tcase_add_test(tcase, test_virtq_split_head_outside_breaks);
    tcase_add_test(tcase, test_virtq_split_next_outside_breaks);
    tcase_add_test(tcase, test_virtq_split_loop_breaks);
    tcase_add_test(tcase, test_virtq_split_chain_as_long_as_the_ring_is_good);
    tcase_add_test(tcase, test_virtq_split_readable_after_writable_breaks);
    tcase_add_test(tcase, test_virtq_split_chain_of_nothing_breaks);
    tcase_add_loop_test(tcase, test_virtq_split_segment_outside_memory_breaks, 0, ARRAY_LEN(outside));
    tcase_add_test(tcase, test_virtq_split_indirect_table_follows_its_links);
    tcase_add_test(tcase, test_virtq_split_indirect_not_negotiated_breaks);
    tcase_add_test(tcase, test_virtq_split_bad_indirect_table_breaks);
    tcase_add_test(tcase, test_virtq_split_bad_links_in_indirect_table_break);
    tcase_add_test(tcase, test_virtq_split_segments_at_the_limit_are_good_one_more_breaks);
    tcase_add_test(tcase, test_virtq_split_more_bytes_than_a_length_can_say_break);
    tcase_add_test(tcase, test_virtq_split_guest_that_changes_a_chain_changes_no_copy);
    tcase_add_test(tcase, test_virtq_split_interrupt_flag_is_obeyed);
    tcase_add_test(tcase, test_virtq_split_kick_flag_or_event_is_set);
    tcase_add_test(tcase, test_virtq_split_queue_that_is_not_ready_does_nothing);
    tcase_add_test(tcase, test_virtq_split_check_sees_damage);
    tcase_add_loop_test(tcase, test_virtq_split_indices_wrap_many_times, 0, 2);
    suite_add_tcase(suite, tcase);
    TCase *model = tcase_create("model");
    tcase_set_timeout(model, 120);
    tcase_add_loop_test(model, test_virtq_split_random_operations_agree_with_the_model, 0, 4);
    suite_add_tcase(suite, model);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
