/* SPDX-License-Identifier: Apache-2.0 */
/* The slot map alone: holding a cluster, and that slots_check sees each kind of damage. */
#include "mm/swap/slots.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NR_SLOTS 1000u

static struct slot_map map;

/* Cluster 0 full, 1 half full, 2 empty, 3 current. */
static void setup(void)
{
    uint64_t first;
    unsigned nr = 0;
    ck_assert_int_eq(slots_init(&map, NR_SLOTS), 0);
    while (nr < NR_SLOTS - 1)
        nr += slots_alloc(&map, 64, &first);
    for (uint64_t slot = 256; slot < 512; slot += 2)
        slots_put(&map, slot);
    for (uint64_t slot = 512; slot < 1000; slot++)
        slots_put(&map, slot);
    ck_assert_uint_eq(slots_alloc(&map, 3, &first), 3);
}

static void teardown(void)
{
    slots_fini(&map);
}

static bool is_sound(void)
{
    const char *why = NULL;
    bool ok = slots_check(&map, &why);
    ck_assert(ok || strncmp(why, "slots: ", 7) == 0);
    return ok;
}

static uint32_t cluster_in(unsigned place)
{
    for (uint32_t c = 0; c < map.nr_opened; c++)
        if (map.clusters[c].place == place)
            return c;
    ck_abort_msg("no cluster is in place %u", place);
    return 0;
}

START_TEST(test_swap_slots_check_accepts_what_is_sound)
{
    ck_assert(is_sound());
}
END_TEST

START_TEST(test_swap_slots_check_sees_wrong_sums)
{
    map.nr_used++;
    ck_assert(!is_sound());
    map.nr_used--;
    map.nr_uses++;
    ck_assert(!is_sound());
    map.nr_uses--;
    map.clusters[1].nr_free++;
    ck_assert(!is_sound());
    map.clusters[1].nr_free--;
    ck_assert(is_sound());
}
END_TEST

START_TEST(test_swap_slots_check_sees_counts_and_bits_that_differ)
{
    map.count[5] = 0; /* in use by its bit */
    ck_assert(!is_sound());
    map.count[5] = 2; /* one more than was given */
    ck_assert(!is_sound());
    map.count[5] = 1;
    map.count[256] = 1; /* free by its bit */
    ck_assert(!is_sound());
    map.count[256] = 0;
    map.clusters[0].used[0] &= ~UINT64_C(1); /* the header's slot */
    ck_assert(!is_sound());
    map.clusters[0].used[0] |= 1;
    map.clusters[3].used[3] &= ~(UINT64_C(1) << 63); /* past the end */
    ck_assert(!is_sound());
}
END_TEST

START_TEST(test_swap_slots_check_sees_clusters_in_the_wrong_place)
{
    uint32_t empty = cluster_in(SLOTS_NR_BUCKETS - 1), half = cluster_in(3);
    map.clusters[empty].place = 3;
    ck_assert(!is_sound());
    map.clusters[empty].place = SLOTS_NR_BUCKETS - 1;
    map.bucket[3] = UINT32_MAX; /* the half full one is lost */
    ck_assert(!is_sound());
    map.bucket[3] = half;
    map.clusters[half].prev = empty;
    ck_assert(!is_sound());
    map.clusters[half].prev = UINT32_MAX;
    ck_assert(is_sound());
    uint32_t current = map.current;
    map.current = empty;
    ck_assert(!is_sound());
    map.current = UINT32_MAX;
    ck_assert(!is_sound());
    map.current = current;
    map.nr_opened = map.nr_clusters + 1;
    ck_assert(!is_sound());
}
END_TEST

START_TEST(test_swap_slots_held_cluster_is_not_allocated_until_let_go)
{
    uint32_t empty = cluster_in(SLOTS_NR_BUCKETS - 1);
    uint64_t first, nr, slot;
    slots_hold(&map, (uint64_t)empty * 256 + 7, &first, &nr);
    ck_assert_uint_eq(first, (uint64_t)empty * 256);
    ck_assert_uint_eq(nr, empty == 3 ? NR_SLOTS - 768 : 256);
    ck_assert(is_sound());
    unsigned total = 0, got;
    while ((got = slots_alloc(&map, 64, &slot)) > 0) {
        ck_assert_uint_ne(slot / 256, empty);
        total += got;
    }
    ck_assert_uint_eq(total + nr, NR_SLOTS - 1 - (255 + 128 + 3));
    ck_assert(is_sound());
    slots_unhold(&map, first);
    ck_assert_uint_eq(slots_alloc(&map, 64, &slot), 64);
    ck_assert_uint_eq(slot, first);
    ck_assert(is_sound());
}
END_TEST

START_TEST(test_swap_slots_init_refuses_sizes_that_no_header_can_say)
{
    struct slot_map other;
    ck_assert_int_eq(slots_init(&other, 0), -EINVAL);
    ck_assert_int_eq(slots_init(&other, 1), -EINVAL);
    ck_assert_int_eq(slots_init(&other, (UINT64_C(1) << 32) + 1), -EINVAL);
    ck_assert_int_eq(slots_init(&other, 2), 0);
    uint64_t slot;
    ck_assert_uint_eq(slots_alloc(&other, 64, &slot), 1);
    ck_assert_uint_eq(slot, 1);
    ck_assert_uint_eq(slots_alloc(&other, 1, &slot), 0);
    ck_assert(slots_put(&other, 1));
    slots_fini(&other);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("swap_slots");
    TCase *cases = tcase_create("cases");
    tcase_add_checked_fixture(cases, setup, teardown);
    tcase_add_test(cases, test_swap_slots_check_accepts_what_is_sound);
    tcase_add_test(cases, test_swap_slots_check_sees_wrong_sums);
    tcase_add_test(cases, test_swap_slots_check_sees_counts_and_bits_that_differ);
    tcase_add_test(cases, test_swap_slots_check_sees_clusters_in_the_wrong_place);
    tcase_add_test(cases, test_swap_slots_held_cluster_is_not_allocated_until_let_go);
    tcase_add_test(cases, test_swap_slots_init_refuses_sizes_that_no_header_can_say);
    suite_add_tcase(suite, cases);

    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
