/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Chains that are pushed as one: the driver sees none of them before all are written. The place of the second used
 * element lies in a page that may not be written; so the device stops there, and the handler looks at what a driver
 * would see at that moment.
 */
#include <check.h>
#include <linux/virtio_ring.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "devices/virtio/queue.h"
#include "tests/fake/fake_driver.h"

#define SIZE 4

static struct fake_memory memory;
static struct virtq q;
static struct virtq_chain chains[3];
static char *second_page;
static volatile sig_atomic_t nr_stops, seen;
static volatile const uint16_t *watched;

static void on_stop(int number)
{
    (void)number;
    nr_stops++;
    seen = *watched;
    if (mprotect(second_page, PAGE_BYTES, PROT_READ | PROT_WRITE) != 0)
        abort();
}

static void setup(void)
{
    struct sigaction action = {.sa_handler = on_stop};

    fake_memory_init(&memory, 0, 1 << 20);
    virtq_reset(&q, &memory.mem, SIZE);
    nr_stops = seen = 0;
    ck_assert_int_eq(sigaction(SIGSEGV, &action, NULL), 0);
}

static void teardown(void)
{
    fake_memory_fini(&memory);
}

/* Two pages; the address @bytes before the second one begins. */
static gpa_t across(uint64_t bytes)
{
    gpa_t gpa = fake_memory_alloc(&memory, 2 * PAGE_BYTES, PAGE_BYTES);

    second_page = fake_memory_at(&memory, (gpa_t){gpa.v + PAGE_BYTES}, PAGE_BYTES);
    return (gpa_t){gpa.v + PAGE_BYTES - bytes};
}

static void push_and_stop(void)
{
    static const uint32_t written[3] = {10, 20, 30};

    for (unsigned i = 0; i < 3; i++)
        ck_assert_int_eq(virtq_pop(&q, &chains[i]), 1);
    ck_assert_int_eq(mprotect(second_page, PAGE_BYTES, PROT_READ), 0);
    virtq_push_many(&q, chains, written, 3);
    ck_assert_int_eq(nr_stops, 1);
}

START_TEST(test_virtq_push_many_split_index_moves_once)
{
    gpa_t data = fake_memory_alloc(&memory, 300, 1);

    q.desc = fake_memory_alloc(&memory, 16 * SIZE, 16);
    q.driver = fake_memory_alloc(&memory, 64, 2);
    q.device = across(4 + 8); /* flags, idx, the first element */
    struct vring_desc *desc = fake_memory_at(&memory, q.desc, 16 * SIZE);
    uint16_t *avail = fake_memory_at(&memory, q.driver, 64);
    const uint16_t *used = fake_memory_at(&memory, q.device, 64);
    for (uint16_t i = 0; i < 3; i++) {
        desc[i] = (struct vring_desc){.addr = data.v + 100u * i, .len = 100, .flags = VRING_DESC_F_WRITE};
        avail[2 + i] = i;
    }
    avail[1] = 3;
    ck_assert_int_eq(virtq_start(&q, false, false, false), 0);
    watched = used + 1;
    push_and_stop();
    ck_assert_int_eq(seen, 0);
    ck_assert_uint_eq(used[1], 3);
    for (uint32_t i = 0; i < 3; i++) {
        uint32_t element[2];

        memcpy(element, (const char *)used + 4 + 8 * i, sizeof(element));
        ck_assert_uint_eq(element[0], i);
        ck_assert_uint_eq(element[1], 10 * (i + 1));
    }
}
END_TEST

START_TEST(test_virtq_push_many_packed_first_element_is_last)
{
    const uint16_t avail_bit = 1u << VRING_PACKED_DESC_F_AVAIL, used_bit = 1u << VRING_PACKED_DESC_F_USED;
    gpa_t data = fake_memory_alloc(&memory, 300, 1);

    q.desc = across(16);
    q.driver = fake_memory_alloc(&memory, 4, 4);
    q.device = fake_memory_alloc(&memory, 4, 4);
    struct vring_packed_desc *desc = fake_memory_at(&memory, q.desc, 16 * SIZE);
    for (uint16_t i = 0; i < 3; i++)
        desc[i] = (struct vring_packed_desc){.addr = data.v + 100u * i,
                                             .len = 100,
                                             .id = (uint16_t)(7 + i),
                                             .flags = (uint16_t)(VRING_DESC_F_WRITE | avail_bit)};
    ck_assert_int_eq(virtq_start(&q, true, false, false), 0);
    watched = &desc[0].flags;
    push_and_stop();
    ck_assert_int_eq(seen & used_bit, 0);
    for (uint16_t i = 0; i < 3; i++) {
        ck_assert_uint_eq(desc[i].flags & (avail_bit | used_bit), avail_bit | used_bit);
        ck_assert_uint_eq(desc[i].id, 7 + i);
        ck_assert_uint_eq(desc[i].len, 10u * (i + 1u));
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("virtq_push_many");
    TCase *tcase = tcase_create("virtq_push_many");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_virtq_push_many_split_index_moves_once);
    tcase_add_test(tcase, test_virtq_push_many_packed_first_element_is_last);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
