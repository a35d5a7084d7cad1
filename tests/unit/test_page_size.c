/* SPDX-License-Identifier: Apache-2.0 */
/* Which blocks are rebuilt as one 2 MiB frame, and what that may cost. What is split: test_page_size_split.c. */
#include "tests/unit/page_size_rig.h"

#include <errno.h>

static const struct mm_config plain = {
    .budget_bytes = 32 * MIB, .zram = {.limit_bytes = 8 * MIB}, .thp = true, .collapse_pct = 1};

/* ---- collapse: what becomes one ---- */

START_TEST(test_collapse_block_of_single_pages_becomes_one_huge_page)
{
    struct mm_rig *rig = mm_rig_create(&plain, 16 * MIB, 1);
    struct fake_host_stat before, after;
    make_single(rig, 1, TEXT);
    fake_host_stat(rig->fh, &before);
    scan_twice(rig);
    fake_host_stat(rig->fh, &after);
    ck_assert(is_huge(rig, 1));
    ck_assert_ptr_nonnull(block_at(rig, 1)->table);
    ck_assert_uint_eq(after.nr_huge_place, before.nr_huge_place + 1);
    ck_assert_uint_eq(event_of(rig, EV_thp_collapse_alloc), 1);
    ck_assert_uint_eq(event_of(rig, EV_khugepaged_pages_collapsed), 1);
    ck_assert_uint_eq(event_of(rig, EV_thp_collapse_failed), 0);
    mm_rig_check(rig);
    uint64_t faults = event_of(rig, EV_pgfault);
    verify_pages(rig, BLOCK_PAGES, 2 * BLOCK_PAGES);
    ck_assert_uint_eq(event_of(rig, EV_pgfault), faults);
    mm_rig_destroy(rig);
}
END_TEST

static const struct mm_config with_swap = {
    .budget_bytes = 32 * MIB, .zram = {.limit_bytes = 8 * MIB}, .thp = true, .readahead_pages = 1, .collapse_pct = 1};

START_TEST(test_collapse_pages_outside_the_guest_come_along)
{
    struct mm_rig *rig = mm_rig_create(&with_swap, 16 * MIB, 1);
    unsigned pages[S2_TABLE + 1];
    mm_rig_swapon(rig, "disk", 1024);
    scatter(rig, 1);
    count_states(rig, 1, pages);
    static const uint8_t states[] = {S2_ZRAM, S2_SWAP, S2_STANDBY, S2_ABSENT, S2_FILL};
    for (unsigned i = 0; i < ARRAY_LEN(states); i++)
        ck_assert_msg(pages[states[i]] == SCATTER_NR, "%u pages of state %u", pages[states[i]], states[i]);
    scan_twice(rig);
    ck_assert(is_huge(rig, 1));
    mm_rig_check(rig);
    uint64_t faults = event_of(rig, EV_pgfault);
    verify_scattered(rig, 1);
    ck_assert_uint_eq(event_of(rig, EV_pgfault), faults);
    ck_assert_uint_eq(rig->host->node[0].nr_standby, 0);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_collapse_frame_goes_home_and_comes_back_whole)
{
    struct mm_rig *rig = mm_rig_create(&plain, 16 * MIB, 1);
    struct fake_host_stat before, after;
    make_single(rig, 0, TEXT);
    scan_twice(rig);
    fake_host_stat(rig->fh, &before);
    ck_assert_uint_eq(mm_reclaim(rig->thread[0], rig->vm, BLOCK_PAGES, false), BLOCK_PAGES);
    mm_rig_check(rig);
    verify_pages(rig, 0, BLOCK_PAGES);
    fake_host_stat(rig->fh, &after);
    ck_assert_uint_eq(after.nr_huge_take, before.nr_huge_take + 1);
    ck_assert_uint_eq(after.nr_huge_place, before.nr_huge_place + 1);
    ck_assert_uint_eq(after.nr_splits, before.nr_splits);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_collapse_free_single_pages_are_given_up_for_a_frame)
{
    const struct mm_config config = {
        .budget_bytes = 8 * MIB, .zram = {.limit_bytes = MIB}, .thp = true, .collapse_pct = 1};
    struct mm_rig *rig = mm_rig_create(&config, 8 * MIB, 1);
    struct pool *pool = &rig->host->node[0].pool;
    fn_t fn[1100];
    uint32_t nr = 0;
    make_single(rig, 0, TEXT);
    while (nr < ARRAY_LEN(fn) && !pool_alloc_filled(pool, 0, MIGRATE_MOVABLE, true, &fn[nr]))
        nr++;
    while (nr > 0)
        pool_free_filled(pool, fn[--nr], 1);
    ck_assert_uint_lt(pool->uncharged, BLOCK_PAGES);
    scan_twice(rig);
    ck_assert(is_huge(rig, 0));
    mm_rig_check(rig);
    verify_pages(rig, 0, BLOCK_PAGES);
    mm_rig_destroy(rig);
}
END_TEST

/* ---- collapse: what does not ---- */

START_TEST(test_collapse_waits_for_a_second_look)
{
    struct mm_rig *rig = mm_rig_create(&plain, 16 * MIB, 1);
    uint64_t dropped;
    make_single(rig, 0, TEXT);
    scan_pass(rig);
    ck_assert(!is_huge(rig, 0));
    /* between the looks more of it is gone than may be: it begins anew */
    ck_assert(!mm_drop(rig->thread[0], rig->vm, gpa_of(0), 100 * PAGE_BYTES, MM_DROP_FREE, 0, &dropped));
    scan_pass(rig);
    mm_rig_fill(rig, 0, 100, TEXT);
    scan_pass(rig);
    ck_assert(!is_huge(rig, 0));
    scan_pass(rig);
    ck_assert(is_huge(rig, 0));
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_collapse_takes_a_block_with_an_eighth_missing_and_no_more)
{
    for (unsigned more = 0; more < 2; more++) {
        struct mm_rig *rig = mm_rig_create(&plain, 16 * MIB, 1);
        uint64_t dropped;
        make_single(rig, 0, TEXT);
        ck_assert(!mm_drop(rig->thread[0], rig->vm, gpa_of(7), (BLOCK_PAGES / 8 + more) * PAGE_BYTES, MM_DROP_FREE, 0,
                           &dropped));
        scan_twice(rig);
        ck_assert_int_eq(is_huge(rig, 0), !more);
        mm_rig_destroy(rig);
    }
}
END_TEST

/* One way in which a block, nearly all in the guest, is not to be touched. */
enum spoil { BALLOON_PAGE, LOST_PAGE, PINNED_PAGE, NR_SPOILS };

static void spoil(struct mm_rig *rig, enum spoil how)
{
    uint64_t dropped;
    struct block *block = block_at(rig, 0);
    struct s2_entry old = pte_read(block, 9);
    if (how == BALLOON_PAGE)
        ck_assert(!mm_drop(rig->thread[0], rig->vm, gpa_of(9), PAGE_BYTES, MM_DROP_BALLOON, 0, &dropped));
    if (how == PINNED_PAGE)
        ck_assert(!mm_pin(rig->thread[0], rig->vm, gpa_of(9), 1));
    if (how != LOST_PAGE)
        return;
    ck_assert(!mm_drop(rig->thread[0], rig->vm, gpa_of(9), PAGE_BYTES, MM_DROP_FREE, 0, &dropped));
    old = pte_read(block, 9);
    pte_write(block, 9, &old, &(struct s2_entry){.state = S2_POISON});
}

START_TEST(test_collapse_leaves_pins_balloon_and_lost_pages_alone)
{
    for (enum spoil how = 0; how < NR_SPOILS; how++) {
        struct mm_rig *rig = mm_rig_create(&plain, 16 * MIB, 1);
        make_single(rig, 0, TEXT);
        scan_pass(rig);
        spoil(rig, how);
        scan_twice(rig);
        ck_assert_uint_eq(pmd_read(block_at(rig, 0)).state, S2_TABLE);
        ck_assert_uint_eq(event_of(rig, EV_thp_collapse_alloc), 0);
        mm_rig_check(rig);
        if (how == PINNED_PAGE) {
            mm_unpin(rig->vm, gpa_of(9), 1);
            scan_twice(rig);
            ck_assert(is_huge(rig, 0));
        }
        mm_rig_destroy(rig);
    }
}
END_TEST

START_TEST(test_collapse_without_room_is_counted_and_tried_again)
{
    struct mm_rig *rig = mm_rig_create(&plain, 16 * MIB, 1);
    struct pool *pool = &rig->host->node[0].pool;
    make_single(rig, 0, TEXT);
    /* one page less than a block above the high watermark */
    uint32_t nr = pool_nr_free(pool) - pool->wmark[WMARK_HIGH] - BLOCK_PAGES + 1;
    ck_assert(!pool_charge(pool, nr));
    scan_twice(rig);
    ck_assert(!is_huge(rig, 0));
    ck_assert_uint_eq(event_of(rig, EV_thp_collapse_alloc_failed), 1);
    ck_assert_uint_eq(event_of(rig, EV_thp_collapse_alloc), 0);
    pool_uncharge(pool, nr);
    /* it was taken home to see what of it is in use */
    verify_pages(rig, 0, BLOCK_PAGES);
    scan_twice(rig);
    ck_assert(is_huge(rig, 0));
    verify_pages(rig, 0, BLOCK_PAGES);
    mm_rig_destroy(rig);
}
END_TEST

/* Why blocks are not rebuilt. */
enum why { NO_THP, NO_TIME, NO_HUGE, KEEPS_TABLES, NR_WHY };
static const char *const why_words[NR_WHY] = {"switched off", "no time", "copied", "CONFIG_PT_RECLAIM"};

START_TEST(test_collapse_is_never_due_where_it_cannot_be)
{
    for (enum why why = 0; why < NR_WHY; why++) {
        struct mm_config config = plain;
        config.thp = why != NO_THP;
        config.collapse_pct = why != NO_TIME;
        struct mm_rig *rig = mm_rig_create(&config, 16 * MIB, 1);
        fake_host_ops(rig->fh)->no_huge = why == NO_HUGE;
        fake_host_ops(rig->fh)->keeps_tables = why == KEEPS_TABLES;
        make_single(rig, 0, TEXT);
        for (unsigned k = 0; k < 3; k++) {
            fake_host_advance_ns(rig->fh, 10 * SECOND_NS);
            ck_assert_uint_eq(collapse_scan(rig->thread[0]), 0);
        }
        ck_assert(!is_huge(rig, 0));
        ck_assert_uint_eq(event_of(rig, EV_thp_collapse_keeps_tables), why == KEEPS_TABLES ? 3 : 0);
        ck_assert_ptr_nonnull(strstr(collapse_why_not(rig->host), why_words[why]));
        mm_rig_destroy(rig);
    }
}
END_TEST

START_TEST(test_collapse_of_more_than_a_cpu_is_refused)
{
    struct mm_config config = plain;
    config.collapse_pct = 101;
    struct fake_host *fh = fake_host_create(mm_arena_slots(&config));
    struct mm_host *host;
    ck_assert_int_eq(mm_host_create(&config, fake_host_ops(fh), fh, fake_host_arena(fh), &host), -EINVAL);
    fake_host_destroy(fh);
}
END_TEST

/* ---- nodes ---- */

static struct mm_config two_nodes(void)
{
    struct mm_config config = plain;
    config.nr_nodes = 2;
    for (unsigned n = 0; n < 2; n++)
        config.nodes[n] = (struct mm_node_config){
            .id = (int)n, .budget_bytes = 16 * MIB, .distance = {10 + 10 * (n == 1), 10 + 10 * (n == 0)}};
    return config;
}

static void fill_from(struct mm_rig *rig, gfn_t start, gfn_t end, unsigned node)
{
    for (gfn_t gfn = start; gfn < end; gfn++) {
        if (!mm_rig_is_present(rig, gfn))
            ck_assert(!mm_fault(rig->thread[0], rig->vm, gpa_of(gfn), MM_FAULT_FROM(node, 0u)));
        ck_assert(!mm_rig_write(rig, 0, gfn, TEXT));
    }
}

START_TEST(test_collapse_frame_is_on_the_node_of_most_pages)
{
    const struct mm_config config = two_nodes();
    struct mm_rig *rig = mm_rig_create(&config, 16 * MIB, 1);
    uint64_t dropped, pages[MM_MAX_NODES];
    make_single(rig, 0, TEXT);
    ck_assert(!mm_drop(rig->thread[0], rig->vm, gpa_of(100), 300 * PAGE_BYTES, MM_DROP_FREE, 0, &dropped));
    fill_from(rig, 100, 400, 1);
    fake_host_count_nodes(rig->fh, mm_vm_id(rig->vm), pages);
    ck_assert_uint_eq(pages[1], 300);
    scan_twice(rig);
    ck_assert(is_huge(rig, 0));
    fake_host_count_nodes(rig->fh, mm_vm_id(rig->vm), pages);
    ck_assert_uint_eq(pages[1], BLOCK_PAGES);
    mm_rig_check(rig);
    verify_pages(rig, 0, BLOCK_PAGES);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_collapse_frame_knows_who_touched_its_pages)
{
    const struct mm_config config = two_nodes();
    struct mm_rig *rig = mm_rig_create(&config, 16 * MIB, 1);
    uint64_t dropped;
    make_single(rig, 0, TEXT);
    ck_assert(!mm_drop(rig->thread[0], rig->vm, gpa_of(9), PAGE_BYTES, MM_DROP_FREE, 0, &dropped));
    ck_assert(!mm_fault(rig->thread[0], rig->vm, gpa_of(9), MM_FAULT_FROM(0, 5u)));
    scan_twice(rig);
    ck_assert(is_huge(rig, 0));
    ck_assert_uint_eq(block_at(rig, 0)->note.vcpu, 5 + 1);
    mm_rig_destroy(rig);
}
END_TEST

/* The scanner's thread calls this one. */
START_TEST(test_mm_scan_rebuilds_and_says_when_it_is_due)
{
    struct mm_rig *rig = mm_rig_create(&plain, 16 * MIB, 1);
    make_single(rig, 0, TEXT);
    for (unsigned i = 0; i < 200 && !is_huge(rig, 0); i++) { /* others of the scanner are due more often */
        unsigned ms = mm_scan(rig->thread[0]);
        ck_assert_uint_gt(ms, 0);
        fake_host_advance_ns(rig->fh, ms * UINT64_C(1000000));
    }
    ck_assert(is_huge(rig, 0));
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_collapse_of_two_halves_on_two_nodes_is_left_to_balancing)
{
    const struct mm_config config = two_nodes();
    struct mm_rig *rig = mm_rig_create(&config, 16 * MIB, 1);
    uint64_t dropped;
    make_single(rig, 0, TEXT);
    ck_assert(!mm_drop(rig->thread[0], rig->vm, gpa_of(0), 256 * PAGE_BYTES, MM_DROP_FREE, 0, &dropped));
    fill_from(rig, 0, 256, 1);
    scan_twice(rig);
    ck_assert(!is_huge(rig, 0));
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_collapse_keeps_to_the_policy)
{
    static const struct mm_policy policies[] = {
        {MM_POLICY_INTERLEAVE_PAGES, 3}, {MM_POLICY_BIND, 2}, {MM_POLICY_BIND, 1}};
    for (unsigned i = 0; i < ARRAY_LEN(policies); i++) {
        const struct mm_config config = two_nodes();
        struct mm_rig *rig = mm_rig_create(&config, 16 * MIB, 1);
        make_single(rig, 0, TEXT);
        /* the pages are on node 0 from before; only the last policy has them there in blocks */
        ck_assert(!mm_vm_place(rig->vm, (gpa_t){0}, BLOCK_BYTES, &policies[i]));
        scan_twice(rig);
        ck_assert_int_eq(is_huge(rig, 0), i == 2);
        ck_assert_uint_eq(event_of(rig, EV_thp_collapse_alloc_failed), 0);
        mm_rig_destroy(rig);
    }
}
END_TEST

/* ---- the scanner ---- */

/* A host on which a move home takes a while, of CPU time or of waiting for a CPU. */
static struct {
    void (*pass_ns)(struct fake_host *fh, uint64_t ns);
    int (*take)(void *ctx, vmid_t vm, gfn_t gfn, fn_t fn, uint32_t nr, uint32_t *done);
    uint64_t ns;
} slow;

static int slow_take(void *ctx, vmid_t vm, gfn_t gfn, fn_t fn, uint32_t nr, uint32_t *done)
{
    slow.pass_ns(ctx, slow.ns);
    return slow.take(ctx, vm, gfn, fn, nr, done);
}

START_TEST(test_collapse_keeps_its_share_of_a_cpu)
{
    static const unsigned pct[] = {1, 10, 100};
    for (unsigned i = 0; i < ARRAY_LEN(pct); i++) {
        struct mm_config config = plain;
        config.collapse_pct = pct[i];
        struct mm_rig *rig = mm_rig_create(&config, 16 * MIB, 1);
        struct host_ops *ops = fake_host_ops(rig->fh);
        uint64_t longest_ns, busy_ns = 0, held_ns;
        slow.take = ops->take;
        slow.ns = 3000000;
        slow.pass_ns = fake_host_work_ns;
        for (unsigned block = 0; block < 8; block++)
            make_single(rig, block, TEXT);
        ops->take = slow_take;
        uint64_t start_ns = ops->clock_ns(rig->fh), end_ns = start_ns;
        while (event_of(rig, EV_khugepaged_pages_collapsed) < 8) {
            unsigned ms = collapse_scan(rig->thread[0]);
            ck_assert_uint_gt(ms, 0);
            fake_host_advance_ns(rig->fh, ms * UINT64_C(1000000));
            end_ns = ops->clock_ns(rig->fh);
            busy_ns = event_of(rig, EV_thp_collapse_busy_ns);
            ck_assert_uint_le(busy_ns * 100, (end_ns - start_ns) * pct[i]);
        }
        held_ns = event_of(rig, EV_thp_collapse_held_ns);
        longest_ns = rig->host->collapse.longest_held_ns;
        ck_assert_uint_ge(busy_ns, 8 * slow.ns);
        ck_assert_uint_ge(held_ns, 8 * slow.ns);
        ck_assert_uint_le(held_ns, busy_ns + 1000); /* of two clocks, which are not read as often */
        ck_assert_uint_ge(longest_ns, slow.ns);
        ck_assert_uint_lt(longest_ns, 2 * slow.ns);
        mm_rig_destroy(rig);
    }
}
END_TEST

/* Time in which others had the CPU was taken for the scanner's: it waited for a hundred times as long. */
START_TEST(test_collapse_does_not_pay_for_other_work_on_its_cpu)
{
    struct mm_config config = plain;
    config.collapse_pct = 1;
    struct mm_rig *rig = mm_rig_create(&config, 16 * MIB, 1);
    struct host_ops *ops = fake_host_ops(rig->fh);
    unsigned longest_ms = 0;
    slow.take = ops->take;
    slow.ns = 50000000;
    slow.pass_ns = fake_host_advance_ns;
    for (unsigned block = 0; block < 8; block++)
        make_single(rig, block, TEXT);
    ops->take = slow_take;
    while (event_of(rig, EV_khugepaged_pages_collapsed) < 8) {
        unsigned ms = collapse_scan(rig->thread[0]);
        longest_ms = MAX_OF(longest_ms, ms);
        fake_host_advance_ns(rig->fh, ms * UINT64_C(1000000));
    }
    ck_assert_uint_le(longest_ms, 1000); /* the pause between two passes */
    ck_assert_uint_lt(event_of(rig, EV_thp_collapse_busy_ns), slow.ns);
    ck_assert_uint_ge(event_of(rig, EV_thp_collapse_held_ns), 8 * slow.ns);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_collapse_called_too_soon_says_what_is_left)
{
    struct mm_rig *rig = mm_rig_create(&plain, 16 * MIB, 1);
    unsigned ms = collapse_scan(rig->thread[0]);
    while (event_of(rig, EV_khugepaged_full_scans) == 0) {
        fake_host_advance_ns(rig->fh, SECOND_NS);
        ms = collapse_scan(rig->thread[0]);
    }
    ck_assert_uint_eq(ms, 1000);
    fake_host_advance_ns(rig->fh, SECOND_NS / 4);
    ck_assert_uint_eq(collapse_scan(rig->thread[0]), 750);
    ck_assert_uint_eq(event_of(rig, EV_khugepaged_full_scans), 1);
    mm_rig_destroy(rig);
}
END_TEST

/* VMs come and go where the scanner is. */
START_TEST(test_collapse_scanner_outlives_the_vm_it_was_at)
{
    struct mm_rig *rig = mm_rig_create(&plain, 16 * MIB, 1);
    const struct mm_region regions[] = {{.start = {0}, .bytes = 4 * MIB}, {.start = {8 * MIB}, .bytes = 2 * MIB}};
    struct mm_vm *other;
    for (unsigned round = 0; round < 40; round++) {
        ck_assert(!mm_vm_create(rig->host, regions, 1 + round % 2, &other));
        fake_host_add_vm(rig->fh, mm_vm_id(other), 10 * BLOCK_PAGES);
        ck_assert(!mm_fault(rig->thread[0], other, (gpa_t){0}, 0));
        slow.take = fake_host_ops(rig->fh)->take;
        for (unsigned k = 0; k < round; k++) {
            fake_host_advance_ns(rig->fh, 100 * SECOND_NS);
            rig->host->collapse.due_ns = 0;
            if (k % 3 == 2) /* somewhere in the other VM */
                rig->host->collapse.vm = mm_vm_id(other), rig->host->collapse.region = k % 2,
                rig->host->collapse.block = k % 5;
            ck_assert_uint_gt(collapse_scan(rig->thread[0]), 0);
        }
        mm_vm_destroy(rig->thread[0], other);
        fake_host_remove_vm(rig->fh, mm_vm_id(rig->vm) + 1u);
        rig->host->collapse.vm = mm_vm_id(rig->vm) + 1u;
        rig->host->collapse.region = 1;
    }
    make_single(rig, 3, TEXT);
    scan_pass(rig);
    scan_twice(rig);
    ck_assert(is_huge(rig, 3));
    mm_rig_destroy(rig);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("page_size");
    TCase *tests = tcase_create("page_size");
    tcase_set_timeout(tests, 300);
    tcase_add_test(tests, test_collapse_block_of_single_pages_becomes_one_huge_page);
    tcase_add_test(tests, test_collapse_pages_outside_the_guest_come_along);
    tcase_add_test(tests, test_collapse_frame_goes_home_and_comes_back_whole);
    tcase_add_test(tests, test_collapse_free_single_pages_are_given_up_for_a_frame);
    tcase_add_test(tests, test_collapse_waits_for_a_second_look);
    tcase_add_test(tests, test_collapse_takes_a_block_with_an_eighth_missing_and_no_more);
    tcase_add_test(tests, test_collapse_leaves_pins_balloon_and_lost_pages_alone);
    tcase_add_test(tests, test_collapse_without_room_is_counted_and_tried_again);
    tcase_add_test(tests, test_collapse_is_never_due_where_it_cannot_be);
    tcase_add_test(tests, test_collapse_of_more_than_a_cpu_is_refused);
    tcase_add_test(tests, test_collapse_frame_is_on_the_node_of_most_pages);
    tcase_add_test(tests, test_collapse_frame_knows_who_touched_its_pages);
    tcase_add_test(tests, test_mm_scan_rebuilds_and_says_when_it_is_due);
    tcase_add_test(tests, test_collapse_of_two_halves_on_two_nodes_is_left_to_balancing);
    tcase_add_test(tests, test_collapse_keeps_to_the_policy);
    tcase_add_test(tests, test_collapse_keeps_its_share_of_a_cpu);
    tcase_add_test(tests, test_collapse_does_not_pay_for_other_work_on_its_cpu);
    tcase_add_test(tests, test_collapse_called_too_soon_says_what_is_left);
    tcase_add_test(tests, test_collapse_scanner_outlives_the_vm_it_was_at);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
