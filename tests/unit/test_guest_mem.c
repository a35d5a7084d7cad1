/* SPDX-License-Identifier: Apache-2.0 */
/* Two regions with a hole, each between guard bytes: first, last and one past, lengths that wrap, nothing half done. */
#include "mm/map/guest_mem.h"

#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "tests/fake/fail_alloc.h"

#define LOW_BYTES (2 * PAGE_BYTES)
#define HIGH_BYTES PAGE_BYTES
#define HIGH_GPA (UINT64_MAX - HIGH_BYTES) /* ends one byte before the end of all addresses */

static struct guest_mem mem;
static char *low, *high;

static void setup(void)
{
    low = calloc(1, LOW_BYTES);
    high = calloc(1, HIGH_BYTES);
    ck_assert(low && high);
    mem = (struct guest_mem){.nr = 2, .region = {{{0}, LOW_BYTES, low}, {{HIGH_GPA}, HIGH_BYTES, high}}};
}

static void teardown(void)
{
    free(low);
    free(high);
}

static char *hva(uint64_t gpa, uint64_t bytes)
{
    return guest_mem_hva(&mem, (gpa_t){gpa}, bytes);
}

START_TEST(test_guest_mem_range_inside_has_its_address)
{
    ck_assert_ptr_eq(hva(0, 1), low);
    ck_assert_ptr_eq(hva(0, LOW_BYTES), low);
    ck_assert_ptr_eq(hva(LOW_BYTES - 1, 1), low + LOW_BYTES - 1);
    ck_assert_ptr_eq(hva(PAGE_BYTES - 1, 2), low + PAGE_BYTES - 1);
    ck_assert_ptr_eq(hva(HIGH_GPA, HIGH_BYTES), high);
    ck_assert_ptr_eq(hva(HIGH_GPA + HIGH_BYTES - 1, 1), high + HIGH_BYTES - 1);
}
END_TEST

START_TEST(test_guest_mem_empty_range_counts_its_address)
{
    ck_assert_ptr_eq(hva(0, 0), low);
    ck_assert_ptr_eq(hva(LOW_BYTES - 1, 0), low + LOW_BYTES - 1);
    ck_assert_ptr_null(hva(LOW_BYTES, 0));
    ck_assert_ptr_null(hva(UINT64_MAX, 0));
}
END_TEST

START_TEST(test_guest_mem_range_not_inside_one_region_is_refused)
{
    ck_assert_ptr_null(hva(0, LOW_BYTES + 1));
    ck_assert_ptr_null(hva(LOW_BYTES - 1, 2));
    ck_assert_ptr_null(hva(LOW_BYTES, 1));
    ck_assert_ptr_null(hva(HIGH_GPA - 1, 1));
    ck_assert_ptr_null(hva(HIGH_GPA - 1, 2));
    ck_assert_ptr_null(hva(HIGH_GPA, HIGH_BYTES + 1));
    ck_assert_ptr_null(hva(UINT64_MAX, 1));
}
END_TEST

START_TEST(test_guest_mem_length_that_wraps_is_refused)
{
    ck_assert_ptr_null(hva(1, UINT64_MAX));
    ck_assert_ptr_null(hva(0, UINT64_MAX));
    ck_assert_ptr_null(hva(HIGH_GPA, UINT64_MAX - HIGH_GPA + 2));
    ck_assert_ptr_null(hva(HIGH_GPA + 1, 0 - HIGH_GPA));
}
END_TEST

START_TEST(test_guest_mem_neighbouring_regions_are_not_one)
{
    mem.region[1].start.v = LOW_BYTES;
    ck_assert_ptr_eq(hva(LOW_BYTES, HIGH_BYTES), high);
    ck_assert_ptr_eq(hva(LOW_BYTES - 1, 1), low + LOW_BYTES - 1);
    ck_assert_ptr_null(hva(LOW_BYTES - 1, 2));
}
END_TEST

START_TEST(test_guest_mem_no_regions_refuse_everything)
{
    mem.nr = 0;
    ck_assert_ptr_null(hva(0, 0));
    ck_assert_ptr_null(hva(0, 1));
}
END_TEST

START_TEST(test_guest_mem_copies_reach_first_and_last_byte)
{
    char out[4] = "";
    ck_assert_int_eq(guest_mem_write(&mem, (gpa_t){LOW_BYTES - 4}, "abcd", 4), 0);
    ck_assert_int_eq(memcmp(low + LOW_BYTES - 4, "abcd", 4), 0);
    ck_assert_int_eq(guest_mem_read(&mem, (gpa_t){LOW_BYTES - 4}, out, 4), 0);
    ck_assert_int_eq(memcmp(out, "abcd", 4), 0);
    ck_assert_int_eq(guest_mem_write(&mem, (gpa_t){HIGH_GPA}, "efgh", 4), 0);
    ck_assert_int_eq(guest_mem_read(&mem, (gpa_t){HIGH_GPA + 1}, out, 2), 0);
    ck_assert_int_eq(memcmp(out, "fgcd", 4), 0);
}
END_TEST

START_TEST(test_guest_mem_refused_copy_changes_nothing)
{
    char out[4] = "wxyz", zeros[LOW_BYTES] = "";
    ck_assert_int_eq(guest_mem_write(&mem, (gpa_t){LOW_BYTES - 3}, "abcd", 4), -EFAULT);
    ck_assert_int_eq(guest_mem_write(&mem, (gpa_t){LOW_BYTES}, "abcd", 4), -EFAULT);
    ck_assert_int_eq(memcmp(low, zeros, LOW_BYTES), 0);
    ck_assert_int_eq(guest_mem_read(&mem, (gpa_t){LOW_BYTES - 3}, out, 4), -EFAULT);
    ck_assert_int_eq(memcmp(out, "wxyz", 4), 0);
}
END_TEST

START_TEST(test_guest_mem_log_has_what_devices_may_write)
{
    static char first[2 * PAGE_BYTES], second[2 * PAGE_BYTES];
    struct guest_mem logged = {.nr = 2,
                               .region = {{.start = {0}, .bytes = sizeof(first), .hva = first},
                                          {.start = {64 * PAGE_BYTES}, .bytes = sizeof(second), .hva = second}}};
    uint32_t word = 1;

    guest_mem_note_write(&logged, (gpa_t){0}, 1);
    ck_assert(!guest_mem_was_written(&logged, 0));
    ck_assert_int_eq(guest_mem_log_start(&logged), 0);
    ck_assert(!guest_mem_was_written(&logged, 0));
    ck_assert_int_eq(guest_mem_write(&logged, (gpa_t){PAGE_BYTES - 2}, &word, sizeof(word)), 0);
    guest_mem_note_write(&logged, (gpa_t){65 * PAGE_BYTES}, PAGE_BYTES);
    guest_mem_note_write(&logged, (gpa_t){64 * PAGE_BYTES}, 0);
    for (gfn_t gfn = 0; gfn < 200; gfn++)
        ck_assert_int_eq(guest_mem_was_written(&logged, gfn), gfn == 0 || gfn == 1 || gfn == 65);
    guest_mem_log_stop(&logged);
    ck_assert(!guest_mem_was_written(&logged, 65));
    ck_assert_int_eq(guest_mem_log_start(&logged), 0);
    ck_assert(!guest_mem_was_written(&logged, 65));
    guest_mem_log_free(&logged);
}
END_TEST

#define NOTED_BYTES                                                                                                    \
    (512 * BLOCK_BYTES) /* never touched; so many that the log is stopped in the middle of noting them */

struct noting {
    struct guest_mem mem;
    atomic_bool enough;
};

static void *note_writes(void *ctx)
{
    struct noting *noting = ctx;

    while (!atomic_load(&noting->enough))
        guest_mem_note_write(&noting->mem, (gpa_t){0}, NOTED_BYTES);
    return NULL;
}

START_TEST(test_guest_mem_log_stopped_while_a_device_writes_stays_valid)
{
    struct noting noting = {.mem = {.nr = 1, .region = {{{0}, NOTED_BYTES, NULL}}}};
    pthread_t device;

    ck_assert_int_eq(pthread_create(&device, NULL, note_writes, &noting), 0);
    for (unsigned i = 0; i < 20; i++) {
        ck_assert_int_eq(guest_mem_log_start(&noting.mem), 0);
        while (!guest_mem_was_written(&noting.mem, 0))
            sched_yield();
        guest_mem_log_stop(&noting.mem); /* the other pages are being noted */
    }
    atomic_store(&noting.enough, true);
    pthread_join(device, NULL);
    ck_assert_int_eq(guest_mem_log_start(&noting.mem), 0);
    guest_mem_note_write(&noting.mem, (gpa_t){70 * PAGE_BYTES}, 1);
    ck_assert(guest_mem_was_written(&noting.mem, 70));
    ck_assert(!guest_mem_was_written(&noting.mem, 71));
    guest_mem_log_free(&noting.mem);
    ck_assert(!guest_mem_was_written(&noting.mem, 70));
}
END_TEST

START_TEST(test_guest_mem_unplugged_block_is_no_memory)
{
    const uint64_t plugged = 1u << 1 | 1u << 2; /* of 4 */
    struct guest_mem some = {
        .nr = 2, .region = {{{0}, LOW_BYTES, low}, {{BLOCK_BYTES}, 4 * BLOCK_BYTES, high}}, .plugged = &plugged};
    const uint64_t first = 2 * BLOCK_BYTES, end = 4 * BLOCK_BYTES;

    ck_assert_ptr_eq(guest_mem_hva(&some, (gpa_t){0}, LOW_BYTES), low);
    ck_assert_ptr_null(guest_mem_hva(&some, (gpa_t){BLOCK_BYTES}, 1));
    ck_assert_ptr_null(guest_mem_hva(&some, (gpa_t){first - 1}, 2));
    ck_assert_ptr_null(guest_mem_hva(&some, (gpa_t){first - 1}, 0));
    ck_assert_ptr_eq(guest_mem_hva(&some, (gpa_t){first}, end - first), high + BLOCK_BYTES);
    ck_assert_ptr_eq(guest_mem_hva(&some, (gpa_t){end - 1}, 1), high + 3 * BLOCK_BYTES - 1);
    ck_assert_ptr_null(guest_mem_hva(&some, (gpa_t){first}, end - first + 1));
    ck_assert_ptr_null(guest_mem_hva(&some, (gpa_t){end}, 0));
}
END_TEST

START_TEST(test_guest_mem_log_without_memory_is_refused)
{
    static char first[PAGE_BYTES];
    struct guest_mem logged = {.nr = 1, .region = {{.bytes = sizeof(first), .hva = first}}};

    fail_alloc_at(1);
    ck_assert_int_eq(guest_mem_log_start(&logged), -ENOMEM);
    ck_assert_ptr_null(logged.written);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("guest_mem");
    TCase *tcase = tcase_create("guest_mem");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_guest_mem_range_inside_has_its_address);
    tcase_add_test(tcase, test_guest_mem_empty_range_counts_its_address);
    tcase_add_test(tcase, test_guest_mem_range_not_inside_one_region_is_refused);
    tcase_add_test(tcase, test_guest_mem_length_that_wraps_is_refused);
    tcase_add_test(tcase, test_guest_mem_neighbouring_regions_are_not_one);
    tcase_add_test(tcase, test_guest_mem_no_regions_refuse_everything);
    tcase_add_test(tcase, test_guest_mem_copies_reach_first_and_last_byte);
    tcase_add_test(tcase, test_guest_mem_refused_copy_changes_nothing);
    tcase_add_test(tcase, test_guest_mem_log_has_what_devices_may_write);
    tcase_add_test(tcase, test_guest_mem_log_stopped_while_a_device_writes_stays_valid);
    tcase_add_test(tcase, test_guest_mem_unplugged_block_is_no_memory);
    tcase_add_test(tcase, test_guest_mem_log_without_memory_is_refused);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
