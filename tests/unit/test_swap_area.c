/* SPDX-License-Identifier: Apache-2.0 */
/* Swap areas over a backend in memory, case by case; random operations and threads are in test_swap_model.c. */
#include "tests/fake/fail_alloc.h"
#include "tests/unit/swap_rig.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int write_one(struct swap_set *set, struct swap_ref ref, const page_t *page)
{
    int error;
    void *pages[1] = {(void *)page};
    return swap_write(set, ref, pages, 1, &error);
}

static int read_one(struct swap_set *set, struct swap_ref ref, page_t *page)
{
    int error;
    void *pages[1] = {page};
    return swap_read(set, ref, pages, 1, &error);
}

/* --- allocation ------------------------------------------------------------------------------- */

START_TEST(test_swap_area_requests_in_a_row_get_neighbours)
{
    struct swap_set *set = set_create();
    int area;
    add_area(set, "a", 4096, -1, &area);
    struct swap_ref ref, before = {0};
    for (unsigned i = 0; i < 12; i++) {
        ck_assert_uint_eq(swap_alloc(set, 32, &ref), 32);
        /* The first cluster has 255 slots: its last run would be 31 long and is left for smaller requests. */
        ck_assert(i == 0 || ref.slot == before.slot + 32 || ref.slot == 256);
        before = ref;
    }
    assert_check(set);
    swap_set_destroy(set);
}
END_TEST

START_TEST(test_swap_area_full_area_gives_every_slot_once)
{
    struct swap_set *set = set_create();
    int area;
    add_area(set, "a", 1000, -1, &area);
    bool seen[1000] = {false};
    unsigned total = 0, nr;
    struct swap_ref ref;
    while ((nr = swap_alloc(set, 48, &ref)) > 0)
        for (unsigned i = 0; i < nr; i++, total++) {
            ck_assert(!seen[ref.slot + i]);
            seen[ref.slot + i] = true;
        }
    ck_assert_uint_eq(total, 999);
    ck_assert(!seen[0]);
    ck_assert_uint_eq(swap_nr_free(set), 0);
    assert_check(set);
    swap_set_destroy(set);
}
END_TEST

START_TEST(test_swap_area_scattered_room_is_all_found)
{
    struct swap_set *set = set_create();
    int area;
    add_area(set, "a", 2048, -1, &area);
    struct swap_ref ref;
    while (swap_alloc(set, 64, &ref) > 0)
        ;
    unsigned nr_freed = 0, nr_found = 0, nr;
    for (uint64_t slot = 5; slot < 2048; slot += 7, nr_freed++)
        swap_free(set, (struct swap_ref){(uint8_t)area, slot});
    while ((nr = swap_alloc(set, 64, &ref)) > 0) {
        ck_assert_uint_eq(nr, 1);
        ck_assert_uint_eq(ref.slot % 7, 5);
        nr_found++;
        assert_check(set);
    }
    ck_assert_uint_eq(nr_found, nr_freed);
    swap_set_destroy(set);
}
END_TEST

START_TEST(test_swap_area_emptied_cluster_serves_long_runs_again)
{
    struct swap_set *set = set_create();
    int area;
    add_area(set, "a", 1024, -1, &area);
    struct swap_ref ref;
    while (swap_alloc(set, 64, &ref) > 0)
        ;
    for (uint64_t slot = 1; slot < 1024; slot += 2) /* every other slot ... */
        swap_free(set, (struct swap_ref){(uint8_t)area, slot});
    for (uint64_t slot = 512; slot < 768; slot += 2) /* ... and the whole of one cluster */
        swap_free(set, (struct swap_ref){(uint8_t)area, slot});
    for (unsigned i = 0; i < 4; i++) {
        ck_assert_uint_eq(swap_alloc(set, 64, &ref), 64);
        ck_assert_uint_eq(ref.slot, 512 + i * 64);
    }
    assert_check(set);
    swap_set_destroy(set);
}
END_TEST

START_TEST(test_swap_area_higher_priority_serves_first)
{
    struct swap_set *set = set_create();
    int low, high;
    add_area(set, "low", 100, 1, &low);
    add_area(set, "high", 100, 2, &high);
    struct swap_ref ref;
    for (unsigned i = 0; i < 99; i++) {
        ck_assert_uint_eq(swap_alloc(set, 1, &ref), 1);
        ck_assert_int_eq(ref.area, high);
    }
    ck_assert_uint_eq(swap_alloc(set, 1, &ref), 1);
    ck_assert_int_eq(ref.area, low);
    swap_set_destroy(set);
}
END_TEST

START_TEST(test_swap_area_that_refuses_writes_is_asked_last)
{
    static page_t page;
    struct swap_set *set = set_create();
    int low, high;
    add_area(set, "low", 100, 1, &low);
    struct fake_swap *disk = add_area(set, "high", 100, 2, &high);
    struct swap_ref ref;
    ck_assert_uint_eq(swap_alloc(set, 1, &ref), 1);
    ck_assert_int_eq(ref.area, high);
    disk->write_error[ref.slot] = -ENOSPC;
    ck_assert_int_eq(write_one(set, ref, &page), -ENOSPC);
    for (unsigned i = 0; i < 99; i++) {
        ck_assert(swap_is_writable(set));
        ck_assert_uint_eq(swap_alloc(set, 1, &ref), 1);
        ck_assert_int_eq(ref.area, low);
    }
    ck_assert(!swap_is_writable(set));
    ck_assert_uint_eq(swap_nr_free(set), 98);
    ck_assert_uint_eq(swap_alloc(set, 1, &ref), 1);
    ck_assert_int_eq(ref.area, high);
    ck_assert_int_eq(write_one(set, ref, &page), 0); /* another slot: it takes it */
    ck_assert(swap_is_writable(set));
    assert_check(set);
    swap_set_destroy(set);
}
END_TEST

START_TEST(test_swap_area_equal_priorities_serve_in_turn)
{
    struct swap_set *set = set_create();
    int area[3];
    add_area(set, "a", 1000, 5, &area[0]);
    add_area(set, "b", 1000, 5, &area[1]);
    add_area(set, "c", 1000, 5, &area[2]);
    struct swap_ref ref;
    for (unsigned i = 0; i < 9; i++) {
        ck_assert_uint_eq(swap_alloc(set, 8, &ref), 8);
        ck_assert_int_eq(ref.area, area[i % 3]);
    }
    swap_set_destroy(set);
}
END_TEST

START_TEST(test_swap_area_automatic_priorities_fall_from_minus_two)
{
    struct swap_set *set = set_create();
    int area;
    struct swap_area_stat stat[3];
    add_area(set, "a", 10, -1, &area);
    add_area(set, "b", 10, -1, &area);
    add_area(set, "c", 10, 7, &area);
    ck_assert_uint_eq(swap_stat(set, stat, 3), 3);
    ck_assert_str_eq(stat[0].name, "c");
    ck_assert_int_eq(stat[0].priority, 7);
    ck_assert_int_eq(stat[1].priority, -2);
    ck_assert_int_eq(stat[2].priority, -3);
    ck_assert_str_eq(stat[0].kind, "file");
    ck_assert_str_eq(stat[0].transport, "memory");
    swap_set_destroy(set);
}
END_TEST

/* --- use counts and discard ------------------------------------------------------------------- */

START_TEST(test_swap_dup_at_the_limit_overflows_unchanged)
{
    struct swap_set *set = set_create();
    int area;
    add_area(set, "a", 10, -1, &area);
    struct swap_ref ref;
    ck_assert_uint_eq(swap_alloc(set, 1, &ref), 1);
    for (unsigned i = 1; i < 65535; i++)
        ck_assert_int_eq(swap_dup(set, ref), 0);
    ck_assert_int_eq(swap_dup(set, ref), -EOVERFLOW);
    assert_check(set);
    for (unsigned i = 0; i < 65534; i++)
        swap_free(set, ref);
    ck_assert_uint_eq(swap_nr_free(set), 8);
    swap_free(set, ref);
    ck_assert_uint_eq(swap_nr_free(set), 9);
    assert_check(set);
    swap_set_destroy(set);
}
END_TEST

START_TEST(test_swap_free_of_a_whole_cluster_discards_it_once)
{
    struct swap_set *set = set_create();
    int area;
    struct fake_swap *disk = add_area(set, "a", 1000, -1, &area);
    struct swap_ref ref;
    while (swap_alloc(set, 64, &ref) > 0)
        ;
    for (uint64_t slot = 256; slot < 511; slot++)
        swap_free(set, (struct swap_ref){(uint8_t)area, slot});
    ck_assert_uint_eq(disk->nr_discarded, 0);
    swap_free(set, (struct swap_ref){(uint8_t)area, 511});
    ck_assert_uint_eq(disk->nr_discarded, 256);
    for (uint64_t slot = 1; slot < 256; slot++) /* the header's slot is never discarded */
        swap_free(set, (struct swap_ref){(uint8_t)area, slot});
    ck_assert_uint_eq(disk->nr_discarded, 256 + 255);
    for (uint64_t slot = 768; slot < 1000; slot++)
        swap_free(set, (struct swap_ref){(uint8_t)area, slot});
    ck_assert_uint_eq(disk->nr_discarded, 256 + 255 + 232);
    assert_check(set);
    ck_assert_uint_eq(swap_alloc(set, 64, &ref), 64);
    swap_set_destroy(set);
}
END_TEST

START_TEST(test_swap_free_without_discard_keeps_the_content)
{
    struct swap_set *set = set_create();
    struct fake_swap *disk = fake_swap_create(16);
    int area = swap_area_add(set, "a", "file", 16, -1, &fake_swap_backend_keeps, disk);
    ck_assert_int_ge(area, 0);
    static page_t page;
    page_fill(&page, 3);
    struct swap_ref ref;
    ck_assert_uint_eq(swap_alloc(set, 1, &ref), 1);
    ck_assert_int_eq(write_one(set, ref, &page), 0);
    swap_free(set, ref);
    ck_assert_uint_eq(disk->nr_discarded, 0);
    ck_assert_mem_eq(disk->data + ref.slot * PAGE_BYTES, &page, PAGE_BYTES);
    struct swap_area_stat stat;
    ck_assert_uint_eq(swap_stat(set, &stat, 1), 1);
    ck_assert_str_eq(stat.transport, "");
    swap_set_destroy(set);
}
END_TEST

/* --- pages ------------------------------------------------------------------------------------ */

START_TEST(test_swap_read_of_a_changed_page_is_refused_and_counted)
{
    struct swap_set *set = set_create();
    int area;
    struct fake_swap *disk = add_area(set, "a", 64, -1, &area);
    static page_t page[4];
    void *pages[4] = {&page[0], &page[1], &page[2], &page[3]};
    int error[4];
    struct swap_ref ref;
    ck_assert_uint_eq(swap_alloc(set, 4, &ref), 4);
    for (unsigned i = 0; i < 4; i++)
        page_fill(&page[i], i + 1);
    ck_assert_int_eq(swap_write(set, ref, pages, 4, error), 0);
    fake_swap_corrupt(disk, ref.slot + 2);
    ck_assert_int_eq(swap_read(set, ref, pages, 4, error), -EILSEQ);
    for (int i = 0; i < 4; i++)
        ck_assert_int_eq(error[i], i == 2 ? -EILSEQ : 0);
    struct swap_area_stat stat;
    ck_assert_uint_eq(swap_stat(set, &stat, 1), 1);
    ck_assert_uint_eq(stat.nr_writes, 4);
    ck_assert_uint_eq(stat.nr_reads, 3);
    ck_assert_uint_eq(stat.nr_read_errors, 1);
    ck_assert_uint_eq(stat.nr_write_errors, 0);
    swap_set_destroy(set);
}
END_TEST

START_TEST(test_swap_read_of_a_slot_never_written_is_refused)
{
    struct swap_set *set = set_create();
    int area;
    add_area(set, "a", 64, -1, &area);
    static page_t page;
    struct swap_ref ref;
    ck_assert_uint_eq(swap_alloc(set, 1, &ref), 1);
    ck_assert_int_eq(read_one(set, ref, &page), -EILSEQ);
    swap_set_destroy(set);
}
END_TEST

START_TEST(test_swap_write_that_fails_leaves_counts_and_the_other_pages)
{
    struct swap_set *set = set_create();
    int area;
    struct fake_swap *disk = add_area(set, "a", 64, -1, &area);
    static page_t page[8];
    void *pages[8];
    int error[8];
    struct swap_ref ref;
    ck_assert_uint_eq(swap_alloc(set, 8, &ref), 8);
    for (unsigned i = 0; i < 8; i++) {
        page_fill(&page[i], i + 1);
        pages[i] = &page[i];
    }
    disk->fail_at = 6;
    disk->fail_error = -EIO;
    ck_assert_int_eq(swap_write(set, ref, pages, 8, error), -EIO);
    for (int i = 0; i < 8; i++)
        ck_assert_int_eq(error[i], i == 5 ? -EIO : 0);
    ck_assert_uint_eq(swap_nr_free(set), 63 - 8);
    assert_check(set);
    ck_assert_int_eq(write_one(set, (struct swap_ref){ref.area, ref.slot + 5}, &page[5]), 0);
    ck_assert_int_eq(swap_read(set, ref, pages, 8, error), 0);
    for (unsigned i = 0; i < 8; i++)
        ck_assert(page_is(&page[i], i + 1));
    swap_set_destroy(set);
}
END_TEST

START_TEST(test_swap_ref_survives_packing)
{
    struct swap_ref ref = {.area = 31, .slot = (UINT64_C(1) << 40) - 1};
    struct swap_ref again = swap_ref_unpack(swap_ref_pack(ref));
    ck_assert_uint_eq(again.area, 31);
    ck_assert_uint_eq(again.slot, ref.slot);
    ck_assert_uint_lt(swap_ref_pack(ref), UINT64_C(1) << 53);
}
END_TEST

/* --- areas come and go ------------------------------------------------------------------------ */

START_TEST(test_swap_area_add_refuses_and_changes_nothing)
{
    struct swap_set *set = set_create();
    int area;
    add_area(set, "a", 16, -1, &area);
    struct fake_swap *disk = fake_swap_create(16);
    char name[SWAP_NAME_BYTES + 1];
    memset(name, 'n', sizeof(name) - 1);
    name[sizeof(name) - 1] = 0;
    ck_assert_int_eq(swap_area_add(set, "a", "file", 16, -1, &fake_swap_backend, disk), -EEXIST);
    ck_assert_int_eq(swap_area_add(set, name, "file", 16, -1, &fake_swap_backend, disk), -ENAMETOOLONG);
    ck_assert_int_eq(swap_area_add(set, "b", "file", 1, -1, &fake_swap_backend, disk), -EINVAL);
    ck_assert_int_eq(swap_area_add(set, "b", "file", (UINT64_C(1) << 32) + 1, -1, &fake_swap_backend, disk), -EINVAL);
    ck_assert_int_eq(swap_area_find(set, "b"), -ENOENT);
    ck_assert_uint_eq(swap_stat(set, (struct swap_area_stat[2]){{.kind = NULL}}, 2), 1);
    assert_check(set);
    name[SWAP_NAME_BYTES - 1] = 0; /* the longest that fits */
    ck_assert_int_ge(swap_area_add(set, name, "file", 16, -1, &fake_swap_backend, disk), 0);
    ck_assert_int_ge(swap_area_find(set, name), 0);
    swap_set_destroy(set);
}
END_TEST

START_TEST(test_swap_area_add_of_one_too_many_is_refused)
{
    struct swap_set *set = set_create();
    char name[16];
    int area;
    for (unsigned i = 0; i < MAX_SWAP_AREAS; i++) {
        snprintf(name, sizeof(name), "a%u", i);
        add_area(set, name, 4, -1, &area);
    }
    struct fake_swap *disk = fake_swap_create(4);
    ck_assert_int_eq(swap_area_add(set, "more", "file", 4, -1, &fake_swap_backend, disk), -ENOSPC);
    fake_swap_destroy(disk);
    struct swap_ref ref;
    unsigned total = 0;
    while (swap_alloc(set, 3, &ref) > 0)
        total += 3;
    ck_assert_uint_eq(total, 3 * MAX_SWAP_AREAS);
    assert_check(set);
    swap_set_destroy(set);
}
END_TEST

START_TEST(test_swap_area_remove_needs_a_disabled_and_empty_area)
{
    struct swap_set *set = set_create();
    int area;
    bool closed = false;
    add_area(set, "a", 16, -1, &area)->closed = &closed;
    struct swap_ref ref, other;
    ck_assert_uint_eq(swap_alloc(set, 1, &ref), 1);
    swap_area_enable(set, area, false);
    ck_assert_uint_eq(swap_alloc(set, 1, &other), 0);
    ck_assert_uint_eq(swap_nr_free(set), 0);
    ck_assert_int_eq(swap_area_remove(set, area), -EBUSY);
    swap_area_enable(set, area, true);
    ck_assert_uint_eq(swap_nr_free(set), 14);
    swap_free(set, ref);
    ck_assert_int_eq(swap_area_remove(set, area), -EBUSY);
    swap_area_enable(set, area, false);
    ck_assert(!closed);
    ck_assert_int_eq(swap_area_remove(set, area), 0);
    ck_assert(closed);
    ck_assert_int_eq(swap_area_remove(set, area), -ENOENT);
    ck_assert_int_eq(swap_area_remove(set, -1), -ENOENT);
    ck_assert_int_eq(swap_area_remove(set, MAX_SWAP_AREAS), -ENOENT);
    swap_area_enable(set, area, true); /* nothing there: nothing happens */
    assert_check(set);
    add_area(set, "a", 16, -1, &area);
    swap_set_destroy(set);
}
END_TEST

START_TEST(test_swap_area_large_area_costs_memory_only_where_used)
{
    struct swap_set *set = set_create();
    struct fake_swap *disk = fake_swap_create(1); /* no page of it is transferred */
    uint64_t before = swap_metadata_bytes(set);
    ck_assert_int_ge(swap_area_add(set, "a", "file", 1u << 24, -1, &fake_swap_backend_keeps, disk), 0);
    ck_assert_uint_lt(swap_metadata_bytes(set) - before, 1024);
    struct swap_ref ref;
    for (unsigned i = 0; i < 1024; i++)
        ck_assert_uint_eq(swap_alloc(set, 64, &ref), 64);
    ck_assert_uint_lt(swap_metadata_bytes(set) - before, 65536 * 7);
    assert_check(set);
    swap_set_destroy(set);
}
END_TEST

START_TEST(test_swap_area_failed_allocations_leave_no_trace)
{
    long n = 1;
    struct swap_set *set = NULL;
    fail_alloc_at(1);
    int err = swap_set_create(&set);
    fail_alloc_at(-1);
    ck_assert_int_eq(err, -ENOMEM);
    set = set_create();
    struct fake_swap *disk = fake_swap_create(600);
    for (;; n++) {
        fail_alloc_at(n);
        int area = swap_area_add(set, "a", "file", 600, -1, &fake_swap_backend, disk);
        bool failed = fail_alloc_fired();
        fail_alloc_at(-1);
        if (!failed) {
            ck_assert_int_ge(area, 0);
            break;
        }
        ck_assert_int_eq(area, -ENOMEM);
        ck_assert_int_eq(swap_area_find(set, "a"), -ENOENT);
        assert_check(set);
    }
    ck_assert_int_eq(n, 5); /* the area and its three tables, each failed once */
    swap_set_destroy(set);
    swap_set_destroy(NULL);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("swap_area");
    TCase *cases = tcase_create("cases");
    tcase_add_test(cases, test_swap_area_requests_in_a_row_get_neighbours);
    tcase_add_test(cases, test_swap_area_full_area_gives_every_slot_once);
    tcase_add_test(cases, test_swap_area_scattered_room_is_all_found);
    tcase_add_test(cases, test_swap_area_emptied_cluster_serves_long_runs_again);
    tcase_add_test(cases, test_swap_area_higher_priority_serves_first);
    tcase_add_test(cases, test_swap_area_that_refuses_writes_is_asked_last);
    tcase_add_test(cases, test_swap_area_equal_priorities_serve_in_turn);
    tcase_add_test(cases, test_swap_area_automatic_priorities_fall_from_minus_two);
    tcase_add_test(cases, test_swap_dup_at_the_limit_overflows_unchanged);
    tcase_add_test(cases, test_swap_free_of_a_whole_cluster_discards_it_once);
    tcase_add_test(cases, test_swap_free_without_discard_keeps_the_content);
    tcase_add_test(cases, test_swap_read_of_a_changed_page_is_refused_and_counted);
    tcase_add_test(cases, test_swap_read_of_a_slot_never_written_is_refused);
    tcase_add_test(cases, test_swap_write_that_fails_leaves_counts_and_the_other_pages);
    tcase_add_test(cases, test_swap_ref_survives_packing);
    tcase_add_test(cases, test_swap_area_add_refuses_and_changes_nothing);
    tcase_add_test(cases, test_swap_area_add_of_one_too_many_is_refused);
    tcase_add_test(cases, test_swap_area_remove_needs_a_disabled_and_empty_area);
    tcase_add_test(cases, test_swap_area_large_area_costs_memory_only_where_used);
    tcase_add_test(cases, test_swap_area_failed_allocations_leave_no_trace);
    suite_add_tcase(suite, cases);

    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
