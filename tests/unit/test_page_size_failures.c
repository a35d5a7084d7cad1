/* SPDX-License-Identifier: Apache-2.0 */
/* What is left when rebuilding a block fails at any step: every page where its entry says, with what it held. */
#include "tests/fake/fail_alloc.h"
#include "tests/unit/page_size_rig.h"

#include <errno.h>

static const struct mm_config config = {
    .budget_bytes = 32 * MIB, .zram = {.limit_bytes = 8 * MIB}, .thp = true, .readahead_pages = 1, .collapse_pct = 1};

/* A scattered block 1 that the next pass will rebuild. */
static struct mm_rig *ready(struct fake_swap **disk)
{
    struct mm_rig *rig = mm_rig_create(&config, 16 * MIB, 1);
    *disk = mm_rig_swapon(rig, "disk", 1024);
    scatter(rig, 1);
    scan_pass(rig);
    return rig;
}

static void fini(struct mm_rig *rig)
{
    mm_rig_check(rig);
    verify_scattered(rig, 1);
    mm_rig_destroy(rig);
}

/* A block's entries, to see that none has changed. */
static void keep_entries(const struct mm_rig *rig, uint64_t entries[BLOCK_PAGES])
{
    memcpy(entries, block_at(rig, 1)->table, BLOCK_PAGES * sizeof(entries[0]));
}

static void expect_unchanged(const struct mm_rig *rig, const uint64_t entries[BLOCK_PAGES])
{
    ck_assert_uint_eq(pmd_read(block_at(rig, 1)).state, S2_TABLE);
    ck_assert_mem_eq(entries, block_at(rig, 1)->table, BLOCK_PAGES * sizeof(entries[0]));
}

START_TEST(test_collapse_failing_at_any_call_of_the_host_loses_no_page)
{
    static const uint32_t after[] = {0, 1, 50, 300, 511};
    unsigned nr_failed = 0;
    for (enum fake_op op = 0; op < FAKE_NR_OPS; op++)
        for (unsigned k = 0; k < ARRAY_LEN(after); k++)
            for (long nth = 1;; nth++) {
                struct fake_swap *disk;
                struct mm_rig *rig = ready(&disk);
                fake_host_fail(rig->fh,
                               &(struct fake_failure){.op = op, .nth = nth, .err = ENOMEM, .after_pages = after[k]});
                scan_pass(rig);
                bool failed = fake_host_failed(rig->fh);
                if (failed && op != FAKE_POPULATE)
                    ck_assert_uint_eq(event_of(rig, EV_thp_collapse_failed), 1);
                ck_assert(failed || is_huge(rig, 1));
                nr_failed += failed;
                fini(rig);
                if (!failed)
                    break;
            }
    /* at least one take and one place, whole and in part */
    ck_assert_uint_gt(nr_failed, 2 * ARRAY_LEN(after));
}
END_TEST

static int no_memory(void *ctx, fn_t fn, uint32_t nr)
{
    (void)ctx;
    (void)fn;
    (void)nr;
    return -ENOMEM;
}

START_TEST(test_collapse_without_a_frame_changes_nothing)
{
    struct fake_swap *disk;
    struct mm_rig *rig = ready(&disk);
    struct host_ops *ops = fake_host_ops(rig->fh);
    int (*populate)(void *, fn_t, uint32_t) = ops->populate;
    uint64_t entries[BLOCK_PAGES];
    uint32_t free_pages = mm_rig_free_pages(rig);
    keep_entries(rig, entries);
    ops->populate = no_memory;
    scan_pass(rig);
    ops->populate = populate;
    expect_unchanged(rig, entries);
    ck_assert_uint_eq(event_of(rig, EV_thp_collapse_alloc_failed), 1);
    ck_assert_uint_eq(event_of(rig, EV_thp_collapse_alloc), 0);
    ck_assert_uint_eq(mm_rig_free_pages(rig), free_pages);
    fini(rig);
}
END_TEST

START_TEST(test_collapse_without_heap_loses_no_page)
{
    for (long n = 1, failed = 1; failed; n++) {
        struct fake_swap *disk;
        struct mm_rig *rig = ready(&disk);
        rig->host->collapse.due_ns = 0;
        fail_alloc_at(n);
        unsigned ms = collapse_scan(rig->thread[0]);
        failed = fail_alloc_fired();
        fail_alloc_at(-1);
        ck_assert_uint_gt(ms, 0);
        fini(rig);
    }
}
END_TEST

START_TEST(test_collapse_with_a_page_that_cannot_be_read_from_swap_changes_nothing)
{
    struct fake_swap *disk;
    struct mm_rig *rig = ready(&disk);
    uint64_t entries[BLOCK_PAGES];
    uint32_t free_pages = mm_rig_free_pages(rig);
    keep_entries(rig, entries);
    for (unsigned i = 0; i < SCATTER_NR; i++)
        disk->read_error[swap_ref_unpack(pte_read(block_at(rig, 1), IN_SWAP + i).payload).slot] = i == 5 ? -EIO : 0;
    scan_pass(rig);
    expect_unchanged(rig, entries);
    ck_assert_uint_eq(event_of(rig, EV_thp_collapse_failed), 1);
    ck_assert_uint_eq(event_of(rig, EV_swap_read_error), 1);
    ck_assert_uint_eq(mm_rig_free_pages(rig), free_pages);
    /* the page is not given up for lost: the next one who reads may have better luck */
    memset(disk->read_error, 0, disk->nr_slots * sizeof(int));
    fini(rig);
}
END_TEST

START_TEST(test_collapse_of_a_block_with_a_page_that_stays_is_tried_ever_more_rarely)
{
    struct fake_swap *disk;
    struct mm_rig *rig = ready(&disk);
    uint64_t last = 0, passes = 0, gaps[4], nr_gaps = 0;
    fake_host_pin(rig->fh, mm_vm_id(rig->vm), BLOCK_PAGES + 77, true);
    while (nr_gaps < ARRAY_LEN(gaps)) {
        scan_pass(rig);
        passes++;
        mm_rig_check(rig);
        /* the guest is at it, all the time */
        verify_scattered(rig, 1);
        uint64_t failed = event_of(rig, EV_thp_collapse_failed);
        if (failed == last)
            continue;
        gaps[nr_gaps++] = passes;
        last = failed;
        passes = 0;
        ck_assert_uint_lt(failed, 10);
    }
    for (unsigned i = 1; i < ARRAY_LEN(gaps); i++)
        ck_assert_uint_eq(gaps[i], (UINT64_C(1) << i) + 1);
    fake_host_pin(rig->fh, mm_vm_id(rig->vm), BLOCK_PAGES + 77, false);
    for (unsigned i = 0; i < 17; i++)
        scan_pass(rig);
    ck_assert(is_huge(rig, 1));
    fini(rig);
}
END_TEST

/* A store is at a standby page of the block while it is rebuilt: the writer finds that the page is gone, and frees it. */
static void rebuild_meanwhile(struct mm_rig *rig)
{
    fn_t fn[8];
    uint8_t flags[8];
    unsigned nr = lru_isolate(rig->thread[0], 0, false, fn, flags, ARRAY_LEN(fn));
    ck_assert_uint_eq(nr, ARRAY_LEN(fn));
    scan_pass(rig);
    ck_assert(is_huge(rig, 1));
    for (unsigned i = 0; i < nr; i++)
        lru_putback(rig->thread[0], fn[i], flags[i]);
    lru_isolate_done(rig->host, nr);
}

START_TEST(test_collapse_of_pages_that_are_being_written_leaves_the_frames_to_the_writer)
{
    struct fake_swap *disk;
    struct mm_rig *rig = ready(&disk);
    rebuild_meanwhile(rig);
    fini(rig);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("page_size_failures");
    TCase *tests = tcase_create("page_size_failures");
    tcase_set_timeout(tests, 300);
    tcase_add_test(tests, test_collapse_failing_at_any_call_of_the_host_loses_no_page);
    tcase_add_test(tests, test_collapse_without_a_frame_changes_nothing);
    tcase_add_test(tests, test_collapse_without_heap_loses_no_page);
    tcase_add_test(tests, test_collapse_with_a_page_that_cannot_be_read_from_swap_changes_nothing);
    tcase_add_test(tests, test_collapse_of_a_block_with_a_page_that_stays_is_tried_ever_more_rarely);
    tcase_add_test(tests, test_collapse_of_pages_that_are_being_written_leaves_the_frames_to_the_writer);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
