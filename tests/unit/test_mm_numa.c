/* SPDX-License-Identifier: Apache-2.0 */
/* Pages that follow their user. */
#include "tests/unit/model_rng.h"
#include "tests/unit/numa_rig.h"

START_TEST(test_mm_numa_working_set_on_the_wrong_node_follows_its_user)
{
    const struct mm_config config = balancing(_i);
    struct mm_rig *rig = rig_create(&config);
    fill_from(rig, 0, SET_PAGES, 0);
    ck_assert_uint_eq(pages_on(rig, 0), SET_PAGES);
    for (unsigned pass = 0; pass < 10; pass++) {
        scan_pass(rig);
        touch(rig, 0, SET_PAGES, 2);
    }
    ck_assert_uint_ge(pages_on(rig, 2), SET_PAGES * 95 / 100);
    ck_assert_uint_ge(event(rig, EV_numa_pages_migrated), SET_PAGES * 95 / 100);
    ck_assert_uint_eq(event(rig, EV_numa_pages_migrated), event(rig, EV_pgmigrate_success));
    uint64_t moved = event(rig, EV_numa_pages_migrated), local = event(rig, EV_numa_hint_faults_local);
    for (unsigned pass = 0; pass < 10; pass++) {
        scan_pass(rig);
        touch(rig, 0, SET_PAGES, 2);
    }
    ck_assert_uint_eq(event(rig, EV_numa_pages_migrated), moved);
    ck_assert_uint_gt(event(rig, EV_numa_hint_faults_local), local);
    verify(rig, 0, SET_PAGES);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_numa_two_megabytes_move_as_one)
{
    const struct mm_config config = balancing(true);
    struct mm_rig *rig = rig_create(&config);
    struct fake_host_stat stat;
    fill_from(rig, 0, SET_PAGES, 0);
    for (unsigned pass = 0; pass < 4; pass++) {
        scan_pass(rig);
        touch(rig, 0, SET_PAGES, 1);
    }
    struct mm_vm_stat vm;
    mm_vm_stat(rig->vm, &vm);
    ck_assert_uint_eq(vm.nr_huge_blocks, 2);
    fake_host_stat(rig->fh, &stat);
    ck_assert_uint_eq(stat.nr_splits, 0);
    ck_assert_uint_eq(pages_on(rig, 1), SET_PAGES);
    verify(rig, 0, SET_PAGES);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_numa_one_touch_from_afar_moves_nothing)
{
    const struct mm_config config = balancing(_i);
    struct mm_rig *rig = rig_create(&config);
    fill_from(rig, 0, SET_PAGES, 0);
    for (unsigned pass = 0; pass < 8; pass++) {
        scan_pass(rig);
        touch(rig, 0, SET_PAGES, pass % 2 ? 0 : 1); /* never twice in a row from node 1 */
    }
    ck_assert_uint_eq(event(rig, EV_numa_pages_migrated), 0);
    ck_assert_uint_gt(event(rig, EV_numa_hint_faults), event(rig, EV_numa_hint_faults_local));
    mm_rig_destroy(rig);
}
END_TEST

/* Two users, each twice in a row: the worst there is. */
START_TEST(test_mm_numa_pages_that_bounce_are_left_alone_longer_and_longer)
{
    const struct mm_config config = balancing(_i);
    struct mm_rig *rig = rig_create(&config);
    uint64_t first = 0, second = 0;
    fill_from(rig, 0, SET_PAGES, 0);
    for (unsigned pass = 0; pass < 80; pass++) {
        scan_pass(rig);
        touch(rig, 0, SET_PAGES, pass / 2 % 2);
        if (pass == 19)
            first = event(rig, EV_numa_pages_migrated);
        if (pass == 59)
            second = event(rig, EV_numa_pages_migrated);
    }
    ck_assert_uint_gt(first, 0);
    ck_assert_uint_lt(event(rig, EV_numa_pages_migrated) - second, first);
    verify(rig, 0, SET_PAGES);
    mm_rig_destroy(rig);
}
END_TEST

/* Two vCPUs on two nodes use all pages until @end_s; who of them is the first at a page that is armed is chance. */
static uint64_t moved_by(struct mm_rig *rig, struct rng *rng, uint64_t end_s)
{
    while (now_ns(rig) < end_s * 1000 * MS) {
        scan_pass(rig);
        for (gfn_t gfn = 0; gfn < SET_PAGES; gfn += 16)
            touch(rig, gfn, gfn + 16, (unsigned)rng_below(rng, 2));
    }
    return event(rig, EV_numa_pages_migrated);
}

START_TEST(test_mm_numa_pages_that_two_always_use_move_less_and_less)
{
    const struct mm_config config = balancing(_i);
    struct mm_rig *rig = rig_create(&config);
    struct rng rng = {1};
    fill_from(rig, 0, SET_PAGES, 0);
    uint64_t first = moved_by(rig, &rng, 500), second = moved_by(rig, &rng, 3000);
    uint64_t last = moved_by(rig, &rng, 3500) - second;
    ck_assert_uint_ge(first, 8 * SET_PAGES / 2);
    ck_assert_uint_lt(8 * last, first);
    verify(rig, 0, SET_PAGES);
    mm_rig_destroy(rig);
}
END_TEST

/* A node all of whose free budget is in 2 MiB frames, for they came and went: it refused each one that was to move there. */
START_TEST(test_mm_numa_two_megabytes_move_into_frames_that_were_used_before)
{
    const struct mm_config config = balancing(true);
    struct mm_rig *rig = rig_create(&config);
    fill_from(rig, 0, SET_PAGES, 0);
    for (unsigned pass = 0; pass < 100; pass++) {
        scan_pass(rig);
        touch(rig, 0, SET_PAGES, pass / 2 % 2);
    }
    ck_assert_uint_ge(event(rig, EV_numa_pages_migrated), 2 * NODE_PAGES);
    ck_assert_uint_eq(event(rig, EV_pgmigrate_fail), 0);
    verify(rig, 0, SET_PAGES);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_numa_strict_and_interleaved_pages_stay_where_they_belong)
{
    static const struct mm_policy policy[] = {
        {MM_POLICY_BIND, 1}, {MM_POLICY_INTERLEAVE, 3}, {MM_POLICY_INTERLEAVE_PAGES, 3}};
    const struct mm_config config = balancing(false);
    struct mm_rig *rig = rig_create(&config);
    ck_assert_int_eq(mm_vm_place(rig->vm, (gpa_t){0}, VM_BYTES, &policy[_i]), 0);
    fill_from(rig, 0, SET_PAGES, 0);
    uint64_t before = pages_on(rig, 0);
    for (unsigned pass = 0; pass < 5; pass++) {
        scan_pass(rig);
        touch(rig, 0, SET_PAGES, 2);
    }
    ck_assert_uint_eq(pages_on(rig, 0), before);
    ck_assert_uint_eq(event(rig, EV_numa_pages_migrated), 0);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_numa_a_full_node_takes_nothing_and_nothing_is_lost)
{
    const struct mm_config config = balancing(_i);
    struct mm_rig *rig = rig_create(&config);
    fill_from(rig, 0, SET_PAGES, 0);
    touch(rig, 2 * NODE_PAGES, 3 * NODE_PAGES - 64, 1);
    for (unsigned pass = 0; pass < 4; pass++) {
        scan_pass(rig);
        touch(rig, 0, SET_PAGES, 1);
    }
    ck_assert_uint_gt(event(rig, EV_pgmigrate_fail), 0);
    ck_assert_uint_ge(pages_on(rig, 0), SET_PAGES - BLOCK_PAGES);
    verify(rig, 0, SET_PAGES);
    mm_rig_destroy(rig);
}
END_TEST

/* The kernel refuses: each call of one migration fails once, then all of them fail. */
START_TEST(test_mm_numa_a_refused_migration_leaves_the_page_where_it_was)
{
    const struct mm_config config = balancing(false);
    struct mm_rig *rig = rig_create(&config);
    fill_from(rig, 0, BLOCK_PAGES, 0);
    for (unsigned pass = 0; pass < 2; pass++) {
        scan_pass(rig);
        if (pass == 0)
            touch(rig, 0, BLOCK_PAGES, 1);
    }
    fake_host_fail(rig->fh, &(struct fake_failure){.op = FAKE_PLACE_COPY, .nth = 1, .err = ENOMEM});
    ck_assert(!mm_rig_is_present(rig, 7));
    touch(rig, 7, 8, 1);
    ck_assert(fake_host_failed(rig->fh));
    ck_assert_uint_eq(fake_host_page_node(rig->fh, mm_vm_id(rig->vm), 7), 1); /* tried again */
    fake_host_fail(rig->fh, &(struct fake_failure){.op = FAKE_PLACE_COPY, .nth = 1, .err = ENOMEM, .again = 2});
    touch(rig, 9, 10, 1);
    ck_assert_uint_eq(fake_host_page_node(rig->fh, mm_vm_id(rig->vm), 9), 0);
    ck_assert_uint_eq(event(rig, EV_pgmigrate_fail), 1);
    mm_rig_check(rig);
    touch(rig, 0, BLOCK_PAGES, 1);
    verify(rig, 0, BLOCK_PAGES);
    mm_rig_destroy(rig);
}
END_TEST

/* Faults that take long leave less for the next rounds. */
START_TEST(test_mm_numa_scan_keeps_to_its_share_of_a_cpu)
{
    const struct mm_config config = balancing(false);
    struct mm_rig *rig = rig_create(&config);
    fill_from(rig, 0, SET_PAGES, 0);
    scan_pass(rig);
    uint64_t cheap = event(rig, EV_numa_pte_updates);
    ck_assert_uint_eq(cheap, SET_PAGES);
    touch(rig, 0, SET_PAGES, 0);
    numa_pay(rig->host, 3000 * MS); /* what 100 s earn */
    for (unsigned round = 0; round < 900; round++) {
        fake_host_advance_ns(rig->fh, 100 * MS);
        mm_scan(rig->thread[0]);
    }
    ck_assert_uint_eq(event(rig, EV_numa_pte_updates), cheap);
    for (unsigned round = 0; round < 300; round++) {
        fake_host_advance_ns(rig->fh, 100 * MS);
        mm_scan(rig->thread[0]);
    }
    ck_assert_uint_gt(event(rig, EV_numa_pte_updates), cheap);
    mm_rig_destroy(rig);
}
END_TEST

/* A fault costs its thread as much outside of mm_fault as in it, and the vCPU where the kernel zeroes for nothing. */
START_TEST(test_mm_numa_scan_pays_for_what_faults_cost_their_threads)
{
    const bool thp = _i;
    const struct mm_config config = balancing(thp);
    const uint32_t cost_ms = thp ? 1000 : 50, paid = 100000 * 3 / 100 / cost_ms;
    uint64_t faults[2];
    for (unsigned dear = 0; dear < 2; dear++) {
        struct mm_rig *rig = rig_create(&config);
        struct host_ops *ops = fake_host_ops(rig->fh);
        *(thp ? &ops->block_fault_ns : &ops->fault_ns) = dear ? (uint32_t)(cost_ms * MS) : 0;
        fill_from(rig, 0, SET_PAGES, 0);
        for (unsigned round = 0; round < 1000; round++) {
            fake_host_advance_ns(rig->fh, 100 * MS);
            mm_scan(rig->thread[0]);
            touch(rig, 0, SET_PAGES, 0);
        }
        faults[dear] = event(rig, EV_numa_hint_faults);
        mm_rig_destroy(rig);
    }
    ck_assert_uint_gt(faults[0], 2 * paid);
    ck_assert_uint_ge(faults[1], paid / 2);
    ck_assert_uint_le(faults[1], 2 * paid); /* the first pass does not know the cost yet */
}
END_TEST

static struct host_ops real;

static int held_up_take(void *ctx, vmid_t vm, gfn_t gfn, fn_t fn, uint32_t nr, uint32_t *done)
{
    fake_host_advance_ns(ctx, 50 * MS);
    return real.take(ctx, vm, gfn, fn, nr, done);
}

static int held_up_place_copy(void *ctx, vmid_t vm, gfn_t gfn, const void *src, uint32_t nr, unsigned node,
                              uint32_t *done)
{
    fake_host_advance_ns(ctx, 50 * MS);
    return real.place_copy(ctx, vm, gfn, src, nr, node, done);
}

/* Time in which others had the CPU was taken for the scan's and the faults': the quota of 3% was gone, for nothing. */
START_TEST(test_mm_numa_scan_does_not_pay_for_other_work_on_the_cpus)
{
    const struct mm_config config = balancing(false);
    uint64_t armed[2];
    for (unsigned busy = 0; busy < 2; busy++) {
        struct mm_rig *rig = rig_create(&config);
        struct host_ops *ops = fake_host_ops(rig->fh);
        fill_from(rig, 0, SET_PAGES, 0);
        real = *ops;
        if (busy) {
            ops->take = held_up_take;
            ops->place_copy = held_up_place_copy;
        }
        for (unsigned round = 0; round < 300; round++) {
            fake_host_advance_ns(rig->fh, 100 * MS);
            mm_scan(rig->thread[0]);
            touch(rig, 0, SET_PAGES, 0);
        }
        armed[busy] = event(rig, EV_numa_pte_updates);
        mm_rig_destroy(rig);
    }
    ck_assert_uint_ge(armed[0], 4 * SET_PAGES);
    ck_assert_uint_ge(armed[1], armed[0]);
}
END_TEST

/* The scan paid for all of the time that a fault had waited for others, and stood still for fifty times as long. */
START_TEST(test_mm_numa_fault_that_was_held_up_does_not_stop_the_scan)
{
    const struct mm_config config = balancing(false);
    struct mm_rig *rig = rig_create(&config);
    fill_from(rig, 0, SET_PAGES, 0);
    for (unsigned i = 0; i < 100; i++)
        numa_pay(rig->host, 10000);
    scan_pass(rig);
    uint64_t before = event(rig, EV_numa_pte_updates);
    touch(rig, 0, SET_PAGES, 0);
    numa_pay(rig->host, 2000 * MS);
    scan_pass(rig);
    ck_assert_uint_gt(event(rig, EV_numa_pte_updates), before);
    mm_rig_destroy(rig);
}
END_TEST

/* Fills node @node with pages from @gfn on until it is a little below its low watermark. */
static void make_short(struct mm_rig *rig, gfn_t gfn, unsigned node)
{
    const struct pool *pool = &rig->host->node[node].pool;
    const struct mm_policy bind = {.mode = MM_POLICY_BIND, .nodes = (uint8_t)(1u << node)};
    ck_assert_int_eq(mm_vm_place(rig->vm, gpa_of(gfn), VM_BYTES - gfn * PAGE_BYTES, &bind), 0);
    while (pool_nr_free(pool) >= pool->wmark[WMARK_LOW])
        touch(rig, gfn, gfn + 1, node), gfn++;
    ck_assert_uint_ge(pool_nr_free(pool), pool->wmark[WMARK_MIN]);
}

START_TEST(test_mm_numa_pages_of_a_node_that_is_short_do_not_leave_when_their_user_touches_them)
{
    struct mm_config config = _i / 2 ? tiers(_i % 2) : balancing(_i % 2);
    config.numa_balancing = true;
    struct mm_rig *rig = rig_create(&config);
    fill_from(rig, 0, SET_PAGES, 0);
    make_short(rig, NODE_PAGES, 0);
    for (unsigned pass = 0; pass < 3; pass++) {
        scan_pass(rig);
        touch(rig, 0, SET_PAGES, 0);
    }
    ck_assert_uint_gt(event(rig, EV_numa_hint_faults), 0);
    for (gfn_t gfn = 0; gfn < SET_PAGES; gfn++)
        ck_assert_uint_eq(fake_host_page_node(rig->fh, mm_vm_id(rig->vm), gfn), 0);
    ck_assert_uint_eq(event(rig, EV_numa_pages_migrated), 0);
    verify(rig, 0, SET_PAGES);
    mm_rig_destroy(rig);
}
END_TEST

/* Budget and guests are of one size and there is no store: what is armed must come back with no page to spare. */
START_TEST(test_mm_numa_arming_of_a_full_host_without_a_store_stops_no_vm)
{
    const struct mm_config config = balancing(false);
    struct mm_rig *rig = rig_create(&config);
    gfn_t end = 0;
    while (!mm_rig_write(rig, 0, end, TEXT))
        end++;
    ck_assert_uint_gt(end, 2 * NODE_PAGES);
    for (unsigned pass = 0; pass < 3; pass++) {
        scan_pass(rig);
        touch(rig, 0, end, 1);
    }
    verify(rig, 0, end);
    mm_rig_check(rig);
    /* the kernel refuses once: the page stays at home, and the next try has it */
    scan_pass(rig);
    fake_host_fail(rig->fh, &(struct fake_failure){.op = FAKE_PLACE, .nth = 1, .err = ENOMEM});
    ck_assert_int_eq(mm_fault(rig->thread[0], rig->vm, gpa_of(5), MM_FAULT_FROM(0u, 0u)), -ENOMEM);
    ck_assert_str_eq(mm_rig_state(rig, 5), "standby");
    mm_rig_check(rig);
    verify(rig, 0, end);
    mm_rig_destroy(rig);
}
END_TEST

/* Of a 2 MiB frame that is armed, and moves or not, the kernel places none, or a part. */
START_TEST(test_mm_numa_a_broken_return_of_two_megabytes_loses_nothing)
{
    const struct mm_config config = balancing(true);
    struct mm_rig *rig = rig_create(&config);
    const unsigned node = _i % 2 ? 1 : 0;
    fill_from(rig, 0, BLOCK_PAGES, 0);
    scan_pass(rig);
    touch(rig, 0, 1, node);
    scan_pass(rig);
    ck_assert(!mm_rig_is_present(rig, 9));
    fake_host_fail(
        rig->fh,
        &(struct fake_failure){.op = FAKE_PLACE, .nth = 1, .err = ENOMEM, .after_pages = _i / 2 ? BLOCK_PAGES / 2 : 0});
    int err = mm_fault(rig->thread[0], rig->vm, gpa_of(9), MM_FAULT_FROM(node, node));
    ck_assert_int_eq(err, _i / 2 ? 0 : -ENOMEM);
    mm_rig_check(rig);
    for (unsigned pass = 0; pass < 2; pass++) {
        touch(rig, 0, BLOCK_PAGES, node);
        mm_rig_check(rig);
        verify(rig, 0, BLOCK_PAGES);
        scan_pass(rig);
    }
    verify(rig, 0, BLOCK_PAGES);
    for (gfn_t gfn = 0; gfn < BLOCK_PAGES; gfn++)
        ck_assert_uint_eq(fake_host_page_node(rig->fh, mm_vm_id(rig->vm), gfn), node);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_numa_pages_bound_to_one_node_are_not_armed)
{
    const struct mm_config config = balancing(_i);
    struct mm_rig *rig = rig_create(&config);
    const struct mm_policy one = {MM_POLICY_BIND, 4}, two = {MM_POLICY_BIND, 6};
    ck_assert_int_eq(mm_vm_place(rig->vm, (gpa_t){0}, BLOCK_BYTES, &one), 0);
    ck_assert_int_eq(mm_vm_place(rig->vm, gpa_of(BLOCK_PAGES), BLOCK_BYTES, &two), 0);
    fill_from(rig, 0, 2 * BLOCK_PAGES, 0);
    scan_pass(rig);
    ck_assert_uint_eq(event(rig, EV_numa_pte_updates), BLOCK_PAGES);
    for (gfn_t gfn = 0; gfn < 2 * BLOCK_PAGES; gfn++)
        ck_assert_int_eq(mm_rig_is_present(rig, gfn), gfn < BLOCK_PAGES);
    mm_rig_destroy(rig);
}
END_TEST

/* The scan costs its VMs no more than so many pages a round, however many there are. */
START_TEST(test_mm_numa_a_round_of_the_scan_is_bounded)
{
    const struct mm_config config = balancing(_i);
    struct mm_rig *rig = rig_create(&config);
    fill_from(rig, 0, 5 * NODE_PAGES / 2, 0);
    uint64_t before = 0;
    for (unsigned round = 0; round < 30; round++) {
        fake_host_advance_ns(rig->fh, 100 * MS);
        ck_assert_uint_gt(mm_scan(rig->thread[0]), 0);
        ck_assert_uint_le(event(rig, EV_numa_pte_updates) - before, 6400 + BLOCK_PAGES);
        before = event(rig, EV_numa_pte_updates);
    }
    ck_assert_uint_eq(before, 5 * NODE_PAGES / 2);
    mm_rig_destroy(rig);
}
END_TEST

/* Other work of the scanner wants it sooner: each call was a whole round, ten times the pages in the same time. */
START_TEST(test_mm_numa_a_scan_that_is_called_more_often_arms_no_more)
{
    const struct mm_config config = balancing(true);
    struct mm_rig *rig = rig_create(&config);
    uint64_t armed[1000] = {0};
    fill_from(rig, 0, 5 * NODE_PAGES / 2, 0);
    for (unsigned call = 10; call < ARRAY_LEN(armed); call++) {
        fake_host_advance_ns(rig->fh, 10 * MS);
        numa_scan(rig->thread[0]);
        armed[call] = event(rig, EV_numa_pte_updates);
        ck_assert_uint_le(armed[call] - armed[call - 9], 6400 + BLOCK_PAGES);
    }
    ck_assert_uint_eq(armed[ARRAY_LEN(armed) - 1], 5 * NODE_PAGES / 2);
    mm_rig_destroy(rig);
}
END_TEST

/* The guest would wait for them all at once, and the quota be overdrawn for long. */
START_TEST(test_mm_numa_where_faults_are_dear_a_round_arms_few_pages)
{
    const struct mm_config config = balancing(false);
    struct mm_rig *rig = rig_create(&config);
    fill_from(rig, 0, NODE_PAGES / 2, 0);
    uint64_t before = 0;
    for (unsigned fault = 0; fault < 100; fault++)
        numa_pay(rig->host, MS / 50);
    for (unsigned round = 0; round < 100; round++) {
        fake_host_advance_ns(rig->fh, 100 * MS);
        mm_scan(rig->thread[0]);
        ck_assert_uint_le(event(rig, EV_numa_pte_updates) - before, BLOCK_PAGES);
        before = event(rig, EV_numa_pte_updates);
    }
    ck_assert_uint_eq(before, NODE_PAGES / 2);
    mm_rig_destroy(rig);
}
END_TEST

/* A frame of 2 MiB was taken for as many faults as it has pages: one was armed a round. */
START_TEST(test_mm_numa_frames_of_2m_are_armed_together_for_each_is_one_fault)
{
    const struct mm_config config = balancing(true);
    struct mm_rig *rig = rig_create(&config);
    fill_from(rig, 0, NODE_PAGES / 2, 0);
    for (unsigned fault = 0; fault < 100; fault++)
        numa_pay(rig->host, MS / 50);
    for (unsigned round = 0; round < 100 && event(rig, EV_numa_pte_updates) == 0; round++) {
        fake_host_advance_ns(rig->fh, 100 * MS);
        mm_scan(rig->thread[0]);
    }
    ck_assert_uint_eq(event(rig, EV_numa_pte_updates), NODE_PAGES / 2);
    mm_rig_destroy(rig);
}
END_TEST

/* The time since the host's own start was taken for that of a pass, which made pages hot that were not. */
START_TEST(test_mm_numa_on_a_host_that_is_up_for_long_the_first_pass_is_like_any)
{
    const struct mm_config config = balancing(false);
    struct fake_host *fh = fake_host_create(mm_arena_slots(&config));
    fake_host_advance_ns(fh, 10000 * 1000 * MS);
    struct mm_rig *rig = mm_rig_create_on(fh, &config, VM_BYTES, 1);
    access_configure(rig->host, 0, NULL);
    fill_from(rig, 0, SET_PAGES, 0);
    for (unsigned round = 0; round < 9; round++) {
        fake_host_advance_ns(rig->fh, 100 * MS);
        mm_scan(rig->thread[0]);
        ck_assert_uint_eq(event(rig, EV_numa_pte_updates), 0);
    }
    scan_pass(rig);
    ck_assert_uint_eq(event(rig, EV_numa_pte_updates), SET_PAGES);
    mm_rig_destroy(rig);
}
END_TEST

/* Node 2 is slow, and so stays out of it: where its CPUs touch pages of fast nodes, those are not pulled down. */
START_TEST(test_mm_numa_balancing_does_not_move_pages_to_a_slower_node)
{
    struct mm_config config = balancing(_i);
    config.nodes[2].rank = 1;
    struct mm_rig *rig = rig_create(&config);
    fill_from(rig, 0, SET_PAGES, 0);
    for (unsigned pass = 0; pass < 4; pass++) {
        scan_pass(rig);
        touch(rig, 0, SET_PAGES, 2);
    }
    ck_assert_uint_eq(pages_on(rig, 0), SET_PAGES);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_numa_pages_of_all_vms_and_regions_follow_their_users)
{
    const struct mm_config config = balancing(false);
    struct mm_rig *rig = mm_rig_create(&config, 4 * MIB, 1);
    const struct mm_region regions[] = {{.start = {0}, .bytes = BLOCK_BYTES},
                                        {.start = {8 * BLOCK_BYTES}, .bytes = 2 * BLOCK_BYTES}};
    const gfn_t last = 10 * BLOCK_PAGES - 1;
    struct mm_vm *vm;
    ck_assert_int_eq(mm_vm_create(rig->host, regions, 2, &vm), 0);
    fake_host_add_vm(rig->fh, mm_vm_id(vm), 10 * BLOCK_PAGES);
    for (unsigned pass = 0; pass < 4; pass++) {
        const unsigned node = pass ? 2 : 0;
        ck_assert_int_eq(mm_fault(rig->thread[0], vm, gpa_of(last), MM_FAULT_FROM(node, node)), 0);
        touch(rig, 0, BLOCK_PAGES, node);
        scan_pass(rig);
        ck_assert(!fake_host_is_present(rig->fh, mm_vm_id(vm), last));
    }
    ck_assert_int_eq(mm_fault(rig->thread[0], vm, gpa_of(last), MM_FAULT_FROM(2u, 2u)), 0);
    ck_assert_uint_eq(fake_host_page_node(rig->fh, mm_vm_id(vm), last), 2);
    mm_vm_destroy(rig->thread[0], vm);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_numa_pinned_blocks_are_not_armed)
{
    const struct mm_config config = balancing(_i);
    struct mm_rig *rig = rig_create(&config);
    fill_from(rig, 0, SET_PAGES, 0);
    ck_assert_int_eq(mm_pin(rig->thread[0], rig->vm, gpa_of(5), PAGE_BYTES), 0);
    scan_pass(rig);
    ck_assert_uint_eq(event(rig, EV_numa_pte_updates), SET_PAGES - BLOCK_PAGES);
    for (gfn_t gfn = 0; gfn < SET_PAGES; gfn++)
        ck_assert_int_eq(mm_rig_is_present(rig, gfn), gfn < BLOCK_PAGES);
    mm_unpin(rig->vm, gpa_of(5), PAGE_BYTES);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_numa_touches_are_counted_by_vcpu)
{
    const struct mm_config config = balancing(false);
    struct mm_rig *rig = rig_create(&config);
    struct mm_vcpu_stat stat;
    fill_from(rig, 0, SET_PAGES, 0);
    scan_pass(rig);
    touch(rig, 0, BLOCK_PAGES, 0);
    touch(rig, BLOCK_PAGES, SET_PAGES, 2);
    ck_assert(mm_vcpu_stat(rig->vm, 0, &stat));
    uint64_t local = stat.numa_hint_faults;
    ck_assert_uint_gt(local, 0);
    ck_assert_uint_eq(stat.numa_hint_faults_local, local);
    ck_assert(mm_vcpu_stat(rig->vm, 2, &stat));
    ck_assert_uint_eq(stat.node, 2);
    ck_assert_uint_gt(stat.numa_hint_faults, 0);
    ck_assert_uint_eq(stat.numa_hint_faults_local, 0);
    ck_assert_uint_eq(event(rig, EV_numa_hint_faults), local + stat.numa_hint_faults);
    ck_assert_uint_eq(event(rig, EV_numa_hint_faults_local), local);
    ck_assert(!mm_vcpu_stat(rig->vm, 1, &stat));
    ck_assert(!mm_vcpu_stat(rig->vm, 4000, &stat));
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_numa_scan_has_nothing_to_do_without_nodes_or_wishes)
{
    struct mm_config config =
        _i ? config_of(3, true) : (struct mm_config){.budget_bytes = 16 * MIB, .numa_balancing = true};
    struct mm_rig *rig = rig_create(&config);
    ck_assert_uint_eq(numa_scan(rig->thread[0]), 0);
    mm_rig_destroy(rig);
}
END_TEST

/* A page that was armed and comes back is not hotter than before: it was not taken because it was cold. */
START_TEST(test_mm_numa_arming_does_not_age)
{
    const struct mm_config config = balancing(_i);
    struct mm_rig *rig = rig_create(&config);
    struct mm_page_info info;
    fill_from(rig, 0, SET_PAGES, 0);
    for (unsigned pass = 0; pass < 3; pass++) {
        scan_pass(rig);
        touch(rig, 0, SET_PAGES, 0);
    }
    ck_assert_int_eq(mm_page_info(rig->vm, (gpa_t){0}, &info), 0);
    ck_assert_uint_eq(info.age, 0);
    ck_assert_uint_gt(event(rig, EV_numa_hint_faults), 0);
    mm_rig_destroy(rig);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("mm_numa");
    TCase *cases = tcase_create("balancing");
    tcase_add_loop_test(cases, test_mm_numa_working_set_on_the_wrong_node_follows_its_user, 0, 2);
    tcase_add_test(cases, test_mm_numa_two_megabytes_move_as_one);
    tcase_add_loop_test(cases, test_mm_numa_one_touch_from_afar_moves_nothing, 0, 2);
    tcase_add_loop_test(cases, test_mm_numa_pages_that_bounce_are_left_alone_longer_and_longer, 0, 2);
    tcase_add_loop_test(cases, test_mm_numa_pages_that_two_always_use_move_less_and_less, 0, 2);
    tcase_add_test(cases, test_mm_numa_two_megabytes_move_into_frames_that_were_used_before);
    tcase_add_loop_test(cases, test_mm_numa_strict_and_interleaved_pages_stay_where_they_belong, 0, 3);
    tcase_add_loop_test(cases, test_mm_numa_a_full_node_takes_nothing_and_nothing_is_lost, 0, 2);
    tcase_add_test(cases, test_mm_numa_a_refused_migration_leaves_the_page_where_it_was);
    tcase_add_test(cases, test_mm_numa_scan_keeps_to_its_share_of_a_cpu);
    tcase_add_loop_test(cases, test_mm_numa_scan_pays_for_what_faults_cost_their_threads, 0, 2);
    tcase_add_test(cases, test_mm_numa_scan_does_not_pay_for_other_work_on_the_cpus);
    tcase_add_test(cases, test_mm_numa_fault_that_was_held_up_does_not_stop_the_scan);
    tcase_add_loop_test(cases, test_mm_numa_pages_of_a_node_that_is_short_do_not_leave_when_their_user_touches_them, 0,
                        4);
    tcase_add_test(cases, test_mm_numa_arming_of_a_full_host_without_a_store_stops_no_vm);
    tcase_add_loop_test(cases, test_mm_numa_a_broken_return_of_two_megabytes_loses_nothing, 0, 4);
    tcase_add_loop_test(cases, test_mm_numa_pages_bound_to_one_node_are_not_armed, 0, 2);
    tcase_add_loop_test(cases, test_mm_numa_a_round_of_the_scan_is_bounded, 0, 2);
    tcase_add_test(cases, test_mm_numa_a_scan_that_is_called_more_often_arms_no_more);
    tcase_add_test(cases, test_mm_numa_where_faults_are_dear_a_round_arms_few_pages);
    tcase_add_test(cases, test_mm_numa_frames_of_2m_are_armed_together_for_each_is_one_fault);
    tcase_add_test(cases, test_mm_numa_on_a_host_that_is_up_for_long_the_first_pass_is_like_any);
    tcase_add_loop_test(cases, test_mm_numa_balancing_does_not_move_pages_to_a_slower_node, 0, 2);
    tcase_add_test(cases, test_mm_numa_pages_of_all_vms_and_regions_follow_their_users);
    tcase_add_loop_test(cases, test_mm_numa_pinned_blocks_are_not_armed, 0, 2);
    tcase_add_test(cases, test_mm_numa_touches_are_counted_by_vcpu);
    tcase_add_loop_test(cases, test_mm_numa_scan_has_nothing_to_do_without_nodes_or_wishes, 0, 2);
    tcase_add_loop_test(cases, test_mm_numa_arming_does_not_age, 0, 2);
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
