/* SPDX-License-Identifier: Apache-2.0 */
/* Tiers: demotion before the stores, promotion of what is touched again and again. */
#include "tests/unit/numa_rig.h"

START_TEST(test_mm_tiers_cold_pages_go_to_the_slower_node_before_any_store)
{
    struct mm_config config = tiers(_i);
    config.zram.limit_bytes = 8 * MIB;
    struct mm_rig *rig = rig_create(&config);
    fill_fast(rig, 0, NODE_PAGES + NODE_PAGES / 2);
    mm_kswapd(rig->thread[0], 0);
    ck_assert_uint_gt(event(rig, EV_pgdemote_kswapd) + event(rig, EV_pgdemote_direct), NODE_PAGES / 3);
    ck_assert_uint_eq(event(rig, EV_zswpout), 0);
    ck_assert_uint_gt(rig->host->node[1].nr_standby, NODE_PAGES / 3);
    mm_rig_check(rig);
    verify(rig, 0, NODE_PAGES + NODE_PAGES / 2);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_tiers_the_slower_node_demotes_to_the_stores)
{
    struct mm_config config = tiers(_i);
    config.zram.limit_bytes = 16 * MIB;
    struct mm_rig *rig = rig_create(&config);
    fill_from(rig, 0, 3 * NODE_PAGES, 0);
    ck_assert_uint_gt(event(rig, EV_zswpout), 0);
    ck_assert_uint_gt(event(rig, EV_pgdemote_kswapd) + event(rig, EV_pgdemote_direct), 0);
    mm_rig_check(rig);
    verify(rig, 0, 3 * NODE_PAGES);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_tiers_a_page_touched_twice_soon_is_promoted)
{
    const struct mm_config config = tiers(_i);
    struct mm_rig *rig = rig_with_slow_set(&config);
    for (unsigned pass = 0; pass < 3; pass++) {
        scan_pass(rig);
        touch(rig, 0, BLOCK_PAGES, 0);
    }
    ck_assert_uint_eq(pages_on(rig, 0), BLOCK_PAGES);
    ck_assert_uint_eq(event(rig, EV_pgpromote_success), BLOCK_PAGES);
    verify(rig, 0, SET_PAGES);
    mm_rig_destroy(rig);
}
END_TEST

/* A fast node in use has no 2 MiB to spare, and yet what is hot of a 2 MiB frame comes to it. */
START_TEST(test_mm_tiers_hot_pages_of_a_huge_frame_are_promoted_where_it_does_not_fit)
{
    const struct mm_config config = tiers(true);
    struct mm_rig *rig = rig_with_slow_set(&config);
    const struct mm_policy fast = {.mode = MM_POLICY_BIND, .nodes = 1};
    const struct pool *pool = &rig->host->node[0].pool;
    ck_assert_int_eq(mm_vm_place(rig->vm, gpa_of(2 * NODE_PAGES), 2 * NODE_BYTES, &fast), 0);
    gfn_t gfn = 2 * NODE_PAGES;
    while (pool_nr_free(pool) >= pool->wmark[WMARK_LOW] + BLOCK_PAGES)
        touch(rig, gfn, gfn + 1, 0), gfn++;
    for (unsigned pass = 0; pass < 6; pass++) {
        scan_pass(rig);
        touch(rig, 0, 32, 0);
        touch(rig, BLOCK_PAGES, BLOCK_PAGES + 32, 0);
    }
    ck_assert_uint_ge(event(rig, EV_pgpromote_success), 64);
    ck_assert_uint_le(event(rig, EV_pgpromote_success), 128);
    ck_assert_uint_eq(fake_host_page_node(rig->fh, mm_vm_id(rig->vm), 5), 0);
    verify(rig, 0, SET_PAGES);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_tiers_pages_touched_now_and_then_stay)
{
    const struct mm_config config = tiers(_i);
    struct mm_rig *rig = rig_with_slow_set(&config);
    for (unsigned pass = 0; pass < 4; pass++) {
        for (unsigned round = 0; round < 300; round++) {
            fake_host_advance_ns(rig->fh, 100 * MS);
            mm_scan(rig->thread[0]);
        }
        touch(rig, 0, SET_PAGES, 0);
    }
    ck_assert_uint_eq(event(rig, EV_pgpromote_success), 0);
    ck_assert_uint_eq(pages_on(rig, 1), SET_PAGES);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_tiers_promotion_keeps_to_its_rate)
{
    struct mm_config config = tiers(false);
    config.promote_bytes_per_s = 256 * PAGE_BYTES;
    struct mm_rig *rig = rig_with_slow_set(&config);
    uint64_t start_ns = now_ns(rig);
    for (unsigned pass = 0; pass < 3; pass++) {
        scan_pass(rig);
        touch(rig, 0, SET_PAGES, 0);
    }
    uint64_t allowed = (now_ns(rig) - start_ns) * 256 / (1000 * MS);
    ck_assert_uint_gt(event(rig, EV_pgpromote_success), 0);
    ck_assert_uint_le(event(rig, EV_pgpromote_success), allowed + 2 * MM_BUFFER_PAGES);
    ck_assert_uint_lt(event(rig, EV_pgpromote_success), SET_PAGES);
    ck_assert_uint_ge(event(rig, EV_pgpromote_candidate), SET_PAGES);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_tiers_demotion_keeps_to_its_rate_and_the_rest_is_stored)
{
    struct mm_config config = tiers(_i);
    config.demote_bytes_per_s = 64 * PAGE_BYTES;
    config.zram.limit_bytes = 8 * MIB;
    struct mm_rig *rig = rig_create(&config);
    fill_fast(rig, 0, NODE_PAGES + NODE_PAGES / 2);
    ck_assert_uint_gt(event(rig, EV_pgdemote_kswapd), 0);
    ck_assert_uint_le(event(rig, EV_pgdemote_kswapd) + event(rig, EV_pgdemote_direct), 2 * BLOCK_PAGES);
    ck_assert_uint_gt(event(rig, EV_zswpout), NODE_PAGES / 4);
    verify(rig, 0, NODE_PAGES + NODE_PAGES / 2);
    mm_rig_destroy(rig);
}
END_TEST

/* A 2 MiB frame finds no place, its pages do: what it would have been is not owed then, which took 8 s at this rate. */
START_TEST(test_mm_tiers_a_frame_that_found_no_place_does_not_use_up_the_rate)
{
    struct mm_config config = tiers(true);
    config.demote_bytes_per_s = 64 * PAGE_BYTES;
    config.zram.limit_bytes = 8 * MIB;
    struct mm_rig *rig = rig_create(&config);
    fill_from(rig, 0, 2 * BLOCK_PAGES, 0);
    const struct fake_failure no_page = {.op = FAKE_POPULATE, .nth = 1, .err = ENOMEM, .again = 1};
    pool_drain_stock(&rig->host->node[1].pool, 0);
    fake_host_fail(rig->fh, &no_page);
    ck_assert_uint_ge(mm_reclaim(rig->thread[0], rig->vm, BLOCK_PAGES, true), BLOCK_PAGES);
    ck_assert(fake_host_failed(rig->fh));
    ck_assert_uint_gt(event(rig, EV_pgdemote_direct), 0);
    ck_assert_uint_lt(event(rig, EV_pgdemote_direct), 64);
    verify(rig, 0, 2 * BLOCK_PAGES);
    mm_rig_destroy(rig);
}
END_TEST

/* All of @node is charged, and its free memory is single pages with something in them. */
static void fill_free_memory(struct mm_rig *rig, unsigned node)
{
    struct pool *pool = &rig->host->node[node].pool;
    fn_t fn, all[NODE_PAGES];
    uint32_t nr = 0;
    pool_drain_stock(pool, 0);
    while (pool->uncharged && !pool_alloc_filled(pool, 0, MIGRATE_MOVABLE, true, &fn))
        all[nr++] = fn;
    while (nr > 0)
        pool_free_filled(pool, all[--nr], 1);
    ck_assert_uint_eq(pool->uncharged, 0);
}

/* Frames were split on their way to a node that had room for them, but no budget that no page was taken for. */
START_TEST(test_mm_tiers_a_frame_stays_one_where_the_other_nodes_free_memory_is_filled)
{
    const struct mm_config config = tiers(true);
    struct mm_rig *rig = rig_create(&config);
    fill_from(rig, 0, 2 * BLOCK_PAGES, 0);
    fill_free_memory(rig, 1);
    ck_assert_uint_ge(mm_reclaim(rig->thread[0], rig->vm, BLOCK_PAGES, false), BLOCK_PAGES);
    ck_assert_uint_ge(evict_standby(rig->thread[0], 0, BLOCK_PAGES, RECLAIM_DIRECT), BLOCK_PAGES);
    ck_assert_uint_ge(event(rig, EV_pgdemote_direct), BLOCK_PAGES);
    ck_assert_uint_eq(event(rig, EV_thp_split_page), 0);
    mm_rig_check(rig);
    verify(rig, 0, 2 * BLOCK_PAGES);
    mm_rig_destroy(rig);
}
END_TEST

/* The same upwards. */
START_TEST(test_mm_tiers_a_frame_is_promoted_where_the_fast_nodes_free_memory_is_filled)
{
    const struct mm_config config = tiers(true);
    struct mm_rig *rig = rig_with_slow_set(&config);
    fill_free_memory(rig, 0);
    for (unsigned pass = 0; pass < 3; pass++) {
        scan_pass(rig);
        touch(rig, 0, BLOCK_PAGES, 0);
    }
    ck_assert_uint_eq(event(rig, EV_pgpromote_success), BLOCK_PAGES);
    ck_assert_uint_eq(event(rig, EV_pgmigrate_fail), 0);
    ck_assert_uint_eq(event(rig, EV_thp_split_page), 0);
    verify(rig, 0, SET_PAGES);
    mm_rig_destroy(rig);
}
END_TEST

/* What could not be promoted owes nothing either, frames and pages. */
START_TEST(test_mm_tiers_what_could_not_be_promoted_does_not_use_up_the_rate)
{
    struct mm_config config = tiers(_i);
    config.promote_bytes_per_s = 64 * PAGE_BYTES;
    struct mm_rig *rig = rig_with_slow_set(&config);
    const struct fake_failure no_frame = {.op = FAKE_POPULATE, .nth = 1, .err = ENOMEM, .again = 1000};
    const struct fake_failure no_page = {.op = FAKE_PLACE_COPY, .nth = 1, .err = EAGAIN, .again = 2};
    pool_drain_stock(&rig->host->node[0].pool, 0);
    scan_pass(rig);
    rig->host->hot = NOTE_HEAT_MAX + 1;
    touch(rig, 0, SET_PAGES, 0);
    scan_pass(rig);
    rig->host->hot = 1;
    fake_host_fail(rig->fh, _i ? &no_frame : &no_page);
    touch(rig, 0, 1, 0);
    ck_assert(fake_host_failed(rig->fh));
    ck_assert_uint_eq(event(rig, EV_pgmigrate_fail), 1);
    ck_assert_uint_eq(event(rig, EV_pgpromote_success), 0);
    ck_assert_uint_le(rig->host->promote.paid_ns, now_ns(rig));
    mm_rig_destroy(rig);
}
END_TEST

/* kswapd stands still when the rate is used up; the next fault that finds the node low must wake it all the same. */
START_TEST(test_mm_tiers_demotion_goes_on_after_the_rate_was_used_up)
{
    struct mm_config config = tiers(false);
    config.demote_bytes_per_s = 64 * PAGE_BYTES;
    struct mm_rig *rig = rig_create(&config);
    struct fake_host_stat stat;
    const struct pool *pool = &rig->host->node[0].pool;
    gfn_t gfn = 0;
    while (pool_nr_free(pool) >= pool->wmark[WMARK_LOW])
        fill_from(rig, gfn, gfn + 1, 0), gfn++;
    while (mm_kswapd(rig->thread[0], 0))
        continue;
    uint64_t demoted = event(rig, EV_pgdemote_kswapd);
    fake_host_stat(rig->fh, &stat);
    uint64_t kicks = stat.nr_kicks[MM_KSWAPD(0)];
    fake_host_advance_ns(rig->fh, 1000 * MS);
    fill_from(rig, gfn, gfn + BLOCK_PAGES, 0);
    fake_host_stat(rig->fh, &stat);
    ck_assert_uint_gt(stat.nr_kicks[MM_KSWAPD(0)], kicks);
    ck_assert(mm_kswapd(rig->thread[0], 0));
    ck_assert_uint_gt(event(rig, EV_pgdemote_kswapd), demoted);
    mm_rig_destroy(rig);
}
END_TEST

/* What zram refused while the rate held demotion back goes to the slower node once it may. */
START_TEST(test_mm_tiers_pages_that_zram_refused_are_demoted_later)
{
    struct mm_config config = tiers(false);
    config.demote_bytes_per_s = 64 * PAGE_BYTES;
    config.zram.limit_bytes = 8 * MIB;
    struct mm_rig *rig = rig_create(&config);
    for (gfn_t gfn = 0; gfn < SET_PAGES; gfn++) {
        touch(rig, gfn, gfn + 1, 0);
        ck_assert_int_eq(mm_rig_write(rig, 0, gfn, RANDOM), 0);
    }
    mm_reclaim(rig->thread[0], rig->vm, SET_PAGES, false);
    mm_reclaim(rig->thread[0], rig->vm, SET_PAGES, true);
    ck_assert_uint_eq(rig->host->node[0].nr_refused, rig->host->node[0].nr_standby);
    uint64_t before = event(rig, EV_pgdemote_direct);
    for (unsigned i = 0; i < 100; i++) {
        fake_host_advance_ns(rig->fh, 1000 * MS);
        mm_reclaim(rig->thread[0], rig->vm, 6, true);
    }
    ck_assert_uint_gt(event(rig, EV_pgdemote_direct), before + 100);
    mm_rig_check(rig);
    verify(rig, 0, SET_PAGES);
    mm_rig_destroy(rig);
}
END_TEST

/* Three ranks: up and down by one at a time. */
START_TEST(test_mm_tiers_of_three_pages_go_one_up_and_one_down)
{
    struct mm_config config = config_of(3, _i);
    for (unsigned n = 0; n < 3; n++)
        config.nodes[n].rank = (uint8_t)n;
    struct mm_rig *rig = rig_create(&config);
    const struct mm_policy slowest = {.mode = MM_POLICY_PREFERRED, .nodes = 4};
    ck_assert_int_eq(mm_vm_place(rig->vm, (gpa_t){0}, BLOCK_BYTES, &slowest), 0);
    fill_from(rig, 0, SET_PAGES, 0);
    for (unsigned pass = 0; pass < 6 && pages_on(rig, 2); pass++) {
        scan_pass(rig);
        touch(rig, 0, BLOCK_PAGES, 0);
    }
    ck_assert_uint_eq(pages_on(rig, 1), BLOCK_PAGES);
    mm_reclaim(rig->thread[0], rig->vm, SET_PAGES, false);
    evict_standby(rig->thread[0], 0, BLOCK_PAGES, RECLAIM_KSWAPD);
    ck_assert_uint_gt(rig->host->node[1].nr_standby, BLOCK_PAGES);
    ck_assert_uint_eq(rig->host->node[2].nr_standby, 0);
    verify(rig, 0, SET_PAGES);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_tiers_a_bound_page_of_a_slow_node_is_not_promoted)
{
    struct mm_config config = config_of(3, _i);
    config.nodes[1].rank = config.nodes[2].rank = 1;
    struct mm_rig *rig = rig_create(&config);
    const struct mm_policy slow = {.mode = MM_POLICY_BIND, .nodes = 6};
    ck_assert_int_eq(mm_vm_place(rig->vm, (gpa_t){0}, VM_BYTES, &slow), 0);
    fill_from(rig, 0, SET_PAGES, 1);
    for (unsigned pass = 0; pass < 4; pass++) {
        scan_pass(rig);
        touch(rig, 0, SET_PAGES, 0);
    }
    ck_assert_uint_gt(event(rig, EV_numa_hint_faults), 0);
    ck_assert_uint_eq(pages_on(rig, 0), 0);
    mm_rig_destroy(rig);
}
END_TEST

/* Without balancing there is nothing to learn from pages of fast nodes. */
START_TEST(test_mm_tiers_pages_of_fast_nodes_are_not_armed)
{
    const struct mm_config config = tiers(_i);
    struct mm_rig *rig = rig_with_slow_set(&config);
    const struct mm_policy fast = {.mode = MM_POLICY_PREFERRED, .nodes = 1};
    ck_assert_int_eq(mm_vm_place(rig->vm, gpa_of(SET_PAGES), SET_PAGES * PAGE_BYTES, &fast), 0);
    fill_from(rig, SET_PAGES, 2 * SET_PAGES, 0);
    scan_pass(rig);
    for (gfn_t gfn = 0; gfn < 2 * SET_PAGES; gfn++)
        ck_assert_int_eq(mm_rig_is_present(rig, gfn), gfn >= SET_PAGES);
    mm_rig_destroy(rig);
}
END_TEST

/* Reclaim of the node goes by the policy: what may be there only is stored, not moved to a slower node. */
START_TEST(test_mm_tiers_strictly_bound_pages_are_never_demoted)
{
    struct mm_config config = tiers(_i);
    config.zram.limit_bytes = 16 * MIB;
    struct mm_rig *rig = rig_create(&config);
    const struct mm_policy fast = {.mode = MM_POLICY_BIND, .nodes = 1};
    ck_assert_int_eq(mm_vm_place(rig->vm, (gpa_t){0}, VM_BYTES, &fast), 0);
    fill_from(rig, 0, NODE_PAGES + NODE_PAGES / 2, 0);
    mm_kswapd(rig->thread[0], 0);
    ck_assert_uint_gt(event(rig, EV_zswpout), NODE_PAGES / 4);
    ck_assert_uint_eq(event(rig, EV_pgdemote_kswapd) + event(rig, EV_pgdemote_direct), 0);
    ck_assert_uint_eq(rig->host->node[1].nr_standby, 0);
    verify(rig, 0, NODE_PAGES + NODE_PAGES / 2);
    ck_assert_uint_eq(pages_on(rig, 1), 0);
    mm_rig_destroy(rig);
}
END_TEST

/* One VM may be anywhere, the other on the fast node only: the pages of the first are demoted past those of the second. */
START_TEST(test_mm_tiers_bound_pages_do_not_keep_the_others_from_demotion)
{
    const struct mm_config config = tiers(false);
    struct mm_rig *rig = rig_create(&config);
    const struct mm_policy fast = {.mode = MM_POLICY_BIND, .nodes = 1};
    ck_assert_int_eq(mm_vm_place(rig->vm, (gpa_t){0}, 2 * BLOCK_BYTES, &fast), 0);
    fill_from(rig, 0, 4 * BLOCK_PAGES, 0);
    ck_assert_uint_gt(mm_reclaim(rig->thread[0], rig->vm, 4 * BLOCK_PAGES, false), 3 * BLOCK_PAGES);
    ck_assert_uint_ge(evict_standby(rig->thread[0], 0, BLOCK_PAGES, RECLAIM_DIRECT), BLOCK_PAGES);
    ck_assert_uint_ge(event(rig, EV_pgdemote_direct), BLOCK_PAGES);
    verify(rig, 0, 4 * BLOCK_PAGES);
    for (gfn_t gfn = 0; gfn < 2 * BLOCK_PAGES; gfn++)
        ck_assert_uint_eq(fake_host_page_node(rig->fh, mm_vm_id(rig->vm), gfn), 0);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_tiers_without_room_there_is_no_promotion_and_nothing_is_lost)
{
    const struct mm_config config = tiers(_i);
    struct mm_rig *rig = rig_with_slow_set(&config);
    const struct mm_policy fast = {.mode = MM_POLICY_BIND, .nodes = 1};
    ck_assert_int_eq(mm_vm_place(rig->vm, gpa_of(2 * NODE_PAGES), 2 * NODE_BYTES, &fast), 0);
    gfn_t gfn = 2 * NODE_PAGES;
    while (pool_nr_free(&rig->host->node[0].pool) >= rig->host->node[0].pool.wmark[WMARK_LOW])
        touch(rig, gfn, gfn + 1, 0), gfn++;
    for (unsigned pass = 0; pass < 3; pass++) {
        scan_pass(rig);
        touch(rig, 0, SET_PAGES, 0);
    }
    ck_assert_uint_eq(event(rig, EV_pgpromote_success), 0);
    ck_assert_uint_gt(event(rig, EV_pgmigrate_fail), 0);
    verify(rig, 0, SET_PAGES);
    mm_rig_destroy(rig);
}
END_TEST

/* Pages of the fast node go to the slow one before they are stored: on the way they count for nothing. */
START_TEST(test_mm_tiers_reclaim_by_hand_counts_what_left_the_host_not_what_was_demoted)
{
    struct mm_config config = tiers(_i % 2);
    config.zram.limit_bytes = 16 * MIB;
    struct mm_rig *rig = rig_create(&config);
    struct mm_vm_stat stat;
    fill_from(rig, 0, SET_PAGES, 0);
    uint64_t freed = mm_reclaim(rig->thread[0], _i < 2 ? rig->vm : NULL, SET_PAGES / 2, true);
    mm_vm_stat(rig->vm, &stat);
    ck_assert_uint_gt(event(rig, EV_pgdemote_direct), 0);
    ck_assert_uint_ge(freed, SET_PAGES / 2);
    ck_assert_uint_eq(freed, stat.zram_bytes / PAGE_BYTES);
    ck_assert_uint_lt(freed, SET_PAGES); /* not twice what was asked for, to be sure */
    verify(rig, 0, SET_PAGES);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_tiers_reclaim_by_hand_without_a_store_frees_nothing_of_the_host)
{
    const struct mm_config config = tiers(_i);
    struct mm_rig *rig = rig_create(&config);
    fill_from(rig, 0, SET_PAGES, 0);
    uint32_t before = mm_rig_free_pages(rig);
    ck_assert_uint_eq(mm_reclaim(rig->thread[0], rig->vm, SET_PAGES, true), 0);
    ck_assert_uint_le(mm_rig_free_pages(rig), before);
    verify(rig, 0, SET_PAGES);
    mm_rig_destroy(rig);
}
END_TEST

/* What is on the slow node is the first to go, wherever it is asked for. */
START_TEST(test_mm_tiers_reclaim_by_hand_begins_on_the_slow_node)
{
    struct mm_config config = tiers(false);
    config.zram.limit_bytes = 16 * MIB;
    struct mm_rig *rig = rig_with_slow_set(&config);
    const struct mm_policy fast = {.mode = MM_POLICY_PREFERRED, .nodes = 1};
    ck_assert_int_eq(mm_vm_place(rig->vm, gpa_of(SET_PAGES), SET_PAGES * PAGE_BYTES, &fast), 0);
    fill_from(rig, SET_PAGES, 2 * SET_PAGES, 0);
    ck_assert_uint_ge(mm_reclaim(rig->thread[0], NULL, SET_PAGES / 2, true), SET_PAGES / 2);
    ck_assert_uint_eq(pages_on(rig, 0), SET_PAGES);
    ck_assert_uint_le(pages_on(rig, 1), SET_PAGES / 2);
    ck_assert_uint_eq(event(rig, EV_pgdemote_direct), 0);
    mm_rig_destroy(rig);
}
END_TEST

/* Standby on the fast node, as single pages or 2 MiB frames; the slow one full of what its guest uses. 64 pages/s may go. */
static struct mm_rig *rig_with_slow_full(bool thp, uint64_t zram_bytes)
{
    struct mm_config config = tiers(thp);
    config.demote_bytes_per_s = 64 * PAGE_BYTES;
    config.zram.limit_bytes = zram_bytes;
    struct mm_rig *rig = rig_create(&config);
    const struct mm_policy slow = {.mode = MM_POLICY_BIND, .nodes = 2};
    const struct pool *pool = &rig->host->node[1].pool;
    uint64_t scanned = 0;
    ck_assert_int_eq(mm_vm_place(rig->vm, gpa_of(NODE_PAGES), 2 * NODE_BYTES, &slow), 0);
    fill_from(rig, 0, SET_PAGES, 0);
    for (gfn_t gfn = NODE_PAGES; pool_nr_free(pool) >= pool->wmark[WMARK_LOW]; gfn++)
        fill_from(rig, gfn, gfn + 1, 0);
    ck_assert_uint_eq(lru_deactivate(rig->thread[0], 0, SET_PAGES, true, &scanned), SET_PAGES);
    return rig;
}

START_TEST(test_mm_tiers_no_room_is_made_on_the_slow_node_for_what_the_rate_forbids)
{
    struct mm_rig *rig = rig_with_slow_full(_i, 16 * MIB);
    const uint64_t on_slow = pages_on(rig, 1);
    ck_assert(rate_take(&rig->host->demote, BLOCK_BYTES, now_ns(rig)));
    ck_assert_uint_ge(evict_standby(rig->thread[0], 0, 64, RECLAIM_DIRECT), 64);
    ck_assert_uint_ge(event(rig, EV_zswpout), 64);
    ck_assert_uint_eq(event(rig, EV_pgdemote_direct), 0);
    ck_assert_uint_eq(pages_on(rig, 1), on_slow);
    ck_assert_uint_eq(rig->host->node[1].nr_standby, 0);
    mm_rig_destroy(rig);
}
END_TEST

/* Nothing was copied, so nothing was used of the rate: as soon as there is room it is all there. */
START_TEST(test_mm_tiers_demotion_that_finds_no_room_costs_nothing_of_the_rate)
{
    struct mm_rig *rig = rig_with_slow_full(_i, 0);
    uint64_t dropped;
    ck_assert_uint_eq(evict_standby(rig->thread[0], 0, 64, RECLAIM_DIRECT), 0);
    ck_assert_uint_eq(event(rig, EV_pgdemote_direct), 0);
    ck_assert_int_eq(mm_drop(rig->thread[0], rig->vm, gpa_of(NODE_PAGES), NODE_BYTES, MM_DROP_FREE, 0, &dropped), 0);
    ck_assert_uint_gt(evict_standby(rig->thread[0], 0, 1, RECLAIM_DIRECT), 0);
    ck_assert_uint_gt(event(rig, EV_pgdemote_direct), 0);
    verify(rig, 0, SET_PAGES);
    mm_rig_destroy(rig);
}
END_TEST

/* Node 0 is fast, nodes 1 and 2 are slow, node 1 is the nearer one and full of what is bound to it. */
static struct mm_rig *rig_with_two_slow(bool thp, nodemask_t allowed)
{
    struct mm_config config = config_of(3, thp);
    config.nodes[1].rank = config.nodes[2].rank = 1;
    config.nodes[0].distance[2] = config.nodes[2].distance[0] = 40;
    config.zram.limit_bytes = 16 * MIB;
    struct mm_rig *rig = rig_create(&config);
    const struct mm_policy near = {.mode = MM_POLICY_BIND, .nodes = 2};
    const struct mm_policy mine = {.mode = MM_POLICY_BIND, .nodes = allowed};
    const struct pool *pool = &rig->host->node[1].pool;
    uint64_t scanned = 0;
    ck_assert_int_eq(mm_vm_place(rig->vm, (gpa_t){0}, NODE_BYTES, &mine), 0);
    ck_assert_int_eq(mm_vm_place(rig->vm, gpa_of(NODE_PAGES), 2 * NODE_BYTES, &near), 0);
    fill_from(rig, 0, SET_PAGES, 0);
    for (gfn_t gfn = NODE_PAGES; pool_nr_free(pool) >= pool->wmark[WMARK_LOW]; gfn++)
        fill_from(rig, gfn, gfn + 1, 0);
    ck_assert_uint_eq(lru_deactivate(rig->thread[0], 0, SET_PAGES, true, &scanned), SET_PAGES);
    return rig;
}

START_TEST(test_mm_tiers_a_page_goes_to_the_other_slow_node_before_any_store)
{
    struct mm_rig *rig = rig_with_two_slow(_i, 7);
    ck_assert_uint_ge(evict_standby(rig->thread[0], 0, SET_PAGES, RECLAIM_DIRECT), SET_PAGES);
    ck_assert_uint_eq(event(rig, EV_zswpout), 0);
    ck_assert_uint_eq(rig->host->node[2].nr_standby, SET_PAGES);
    mm_rig_check(rig);
    verify(rig, 0, SET_PAGES);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_tiers_a_page_that_may_not_be_on_the_nearest_slow_node_goes_to_the_other)
{
    struct mm_rig *rig = rig_with_two_slow(_i, 5);
    ck_assert_uint_ge(evict_standby(rig->thread[0], 0, SET_PAGES, RECLAIM_DIRECT), SET_PAGES);
    ck_assert_uint_eq(event(rig, EV_zswpout), 0);
    ck_assert_uint_eq(rig->host->node[2].nr_standby, SET_PAGES);
    mm_rig_check(rig);
    mm_rig_destroy(rig);
}
END_TEST

/* A page that only a full node may take kept the ones behind it from the other. */
START_TEST(test_mm_tiers_a_page_that_no_slow_node_has_room_for_does_not_keep_others_from_demotion)
{
    struct mm_rig *rig = rig_with_two_slow(_i, 7);
    const struct mm_policy near = {.mode = MM_POLICY_BIND, .nodes = 3};
    struct zram *zram = rig->host->zram;
    rig->host->zram = NULL; /* nobody makes room */
    ck_assert_int_eq(mm_vm_place(rig->vm, (gpa_t){0}, BLOCK_BYTES, &near), 0);
    ck_assert_uint_eq(evict_standby(rig->thread[0], 0, SET_PAGES, RECLAIM_DIRECT), SET_PAGES - BLOCK_PAGES);
    ck_assert_uint_eq(rig->host->node[2].nr_standby, SET_PAGES - BLOCK_PAGES);
    verify(rig, 0, SET_PAGES);
    rig->host->zram = zram;
    mm_rig_destroy(rig);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("mm_tiers");
    TCase *cases = tcase_create("tiers");
    tcase_add_loop_test(cases, test_mm_tiers_a_page_that_no_slow_node_has_room_for_does_not_keep_others_from_demotion,
                        0, 2);
    tcase_add_loop_test(cases, test_mm_tiers_cold_pages_go_to_the_slower_node_before_any_store, 0, 2);
    tcase_add_loop_test(cases, test_mm_tiers_the_slower_node_demotes_to_the_stores, 0, 2);
    tcase_add_loop_test(cases, test_mm_tiers_a_page_touched_twice_soon_is_promoted, 0, 2);
    tcase_add_test(cases, test_mm_tiers_hot_pages_of_a_huge_frame_are_promoted_where_it_does_not_fit);
    tcase_add_loop_test(cases, test_mm_tiers_pages_touched_now_and_then_stay, 0, 2);
    tcase_add_test(cases, test_mm_tiers_promotion_keeps_to_its_rate);
    tcase_add_loop_test(cases, test_mm_tiers_demotion_keeps_to_its_rate_and_the_rest_is_stored, 0, 2);
    tcase_add_test(cases, test_mm_tiers_a_frame_that_found_no_place_does_not_use_up_the_rate);
    tcase_add_test(cases, test_mm_tiers_a_frame_stays_one_where_the_other_nodes_free_memory_is_filled);
    tcase_add_test(cases, test_mm_tiers_a_frame_is_promoted_where_the_fast_nodes_free_memory_is_filled);
    tcase_add_loop_test(cases, test_mm_tiers_what_could_not_be_promoted_does_not_use_up_the_rate, 0, 2);
    tcase_add_test(cases, test_mm_tiers_demotion_goes_on_after_the_rate_was_used_up);
    tcase_add_test(cases, test_mm_tiers_pages_that_zram_refused_are_demoted_later);
    tcase_add_loop_test(cases, test_mm_tiers_of_three_pages_go_one_up_and_one_down, 0, 2);
    tcase_add_loop_test(cases, test_mm_tiers_a_bound_page_of_a_slow_node_is_not_promoted, 0, 2);
    tcase_add_loop_test(cases, test_mm_tiers_pages_of_fast_nodes_are_not_armed, 0, 2);
    tcase_add_loop_test(cases, test_mm_tiers_strictly_bound_pages_are_never_demoted, 0, 2);
    tcase_add_test(cases, test_mm_tiers_bound_pages_do_not_keep_the_others_from_demotion);
    tcase_add_loop_test(cases, test_mm_tiers_without_room_there_is_no_promotion_and_nothing_is_lost, 0, 2);
    tcase_add_loop_test(cases, test_mm_tiers_reclaim_by_hand_counts_what_left_the_host_not_what_was_demoted, 0, 4);
    tcase_add_loop_test(cases, test_mm_tiers_reclaim_by_hand_without_a_store_frees_nothing_of_the_host, 0, 2);
    tcase_add_test(cases, test_mm_tiers_reclaim_by_hand_begins_on_the_slow_node);
    tcase_add_loop_test(cases, test_mm_tiers_no_room_is_made_on_the_slow_node_for_what_the_rate_forbids, 0, 2);
    tcase_add_loop_test(cases, test_mm_tiers_demotion_that_finds_no_room_costs_nothing_of_the_rate, 0, 2);
    tcase_add_loop_test(cases, test_mm_tiers_a_page_goes_to_the_other_slow_node_before_any_store, 0, 2);
    tcase_add_loop_test(cases, test_mm_tiers_a_page_that_may_not_be_on_the_nearest_slow_node_goes_to_the_other, 0, 2);
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
