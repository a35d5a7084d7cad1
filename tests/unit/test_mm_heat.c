/* SPDX-License-Identifier: Apache-2.0 */
/* How hot a page is said to be, and what that does to it: it is promoted, or spared when a fast node gives pages away. */
#include "mm/policy/access_note.h"
#include "tests/unit/numa_rig.h"

static unsigned heat_of(struct mm_rig *rig, gfn_t gfn)
{
    struct s2_entry entry = pte_read(vm_block(rig->vm, gfn), gfn % BLOCK_PAGES);
    ck_assert_uint_eq(entry.state, S2_RESIDENT);
    return note_of(&entry).heat;
}

/* The first page that has come to the slow node by demotion, and was not touched since. */
static gfn_t demoted_page(struct mm_rig *rig)
{
    for (gfn_t gfn = 0; gfn < NODE_PAGES; gfn++) {
        struct mm_page_info info;
        ck_assert_int_eq(mm_page_info(rig->vm, gpa_of(gfn), &info), 0);
        if (strcmp(info.state, "standby") == 0 && node_of(rig->host, info.fn) == 1)
            return gfn;
    }
    ck_abort_msg("no page was demoted");
}

/* The sampler's looks, once a second, made each page of the block seem to have been touched within a second. */
START_TEST(test_mm_heat_a_sample_of_a_block_does_not_make_its_other_pages_hot)
{
    const struct mm_config config = tiers(false);
    struct mm_rig *rig = rig_with_slow_set(&config);
    struct block *block = vm_block(rig->vm, 0);
    struct page_map sample = {0};
    scan_pass(rig);
    touch(rig, 0, 1, 0);
    fake_host_advance_ns(rig->fh, 30000 * MS);
    map_set(&sample, 0);
    lock_acquire(&block->lock);
    ck_assert_uint_eq(lru_arm_pages(rig->thread[0], block, &sample), 1);
    lock_release(&block->lock);
    touch(rig, 1, 2, 0);
    touch(rig, BLOCK_PAGES, BLOCK_PAGES + 1, 0);
    ck_assert_uint_eq(heat_of(rig, 1), heat_of(rig, BLOCK_PAGES));
    mm_rig_destroy(rig);
}
END_TEST

/* A pass that found the block's pages on the fast node, which it leaves alone, made those on the slow one look hot. */
START_TEST(test_mm_heat_a_pass_that_takes_nothing_of_a_block_does_not_make_its_pages_hot)
{
    const struct mm_config config = tiers(false);
    struct mm_rig *rig = rig_with_slow_set(&config);
    struct block *block = vm_block(rig->vm, 0);
    const struct mm_policy fast = {.mode = MM_POLICY_PREFERRED, .nodes = 1};
    ck_assert_int_eq(mm_vm_place(rig->vm, (gpa_t){0}, VM_BYTES, &fast), 0);
    ck_assert_uint_eq(mm_reclaim(rig->thread[0], rig->vm, 1, false), BLOCK_PAGES);
    uint64_t dropped;
    ck_assert_int_eq(mm_drop(rig->thread[0], rig->vm, (gpa_t){0}, PAGE_BYTES, MM_DROP_FREE, 0, &dropped), 0);
    touch(rig, 0, 1, 0);
    ck_assert_uint_eq(fake_host_page_node(rig->fh, mm_vm_id(rig->vm), 0), 0);
    block->armed_ms = (uint32_t)(now_ns(rig) / MS);
    uint32_t armed_ms = block->armed_ms;
    fake_host_advance_ns(rig->fh, 30000 * MS);
    lock_acquire(&block->lock);
    ck_assert_uint_eq(lru_arm_block(rig->thread[0], block, 2), 0);
    lock_release(&block->lock);
    ck_assert_uint_eq(block->armed_ms, armed_ms);
    mm_rig_destroy(rig);
}
END_TEST

/*
 * Reclaim took a frame that goes to the fast node page by page: the second page that was touched seemed to have waited since
 * a scan armed the block, long before.
 */
START_TEST(test_mm_heat_pages_of_a_frame_that_reclaim_took_are_as_hot_as_the_first_one)
{
    const struct mm_config config = tiers(true);
    struct mm_rig *rig = rig_with_slow_set(&config);
    const struct mm_policy fast = {.mode = MM_POLICY_BIND, .nodes = 1};
    const struct pool *pool = &rig->host->node[0].pool;
    ck_assert_int_eq(mm_vm_place(rig->vm, gpa_of(2 * NODE_PAGES), 2 * NODE_BYTES, &fast), 0);
    for (gfn_t gfn = 2 * NODE_PAGES; pool_nr_free(pool) >= pool->wmark[WMARK_LOW] + BLOCK_PAGES; gfn++)
        touch(rig, gfn, gfn + 1, 0);
    scan_pass(rig);
    touch(rig, 0, 1, 0);
    ck_assert_uint_eq(pmd_read(vm_block(rig->vm, 0)).state, S2_RESIDENT);
    fake_host_advance_ns(rig->fh, 8000 * MS);
    uint64_t scanned = 0;
    struct block *block = vm_block(rig->vm, 0);
    lock_acquire(&block->lock);
    ck_assert_uint_eq(lru_deactivate_block(rig->thread[0], block, 1, true, &scanned), BLOCK_PAGES);
    lock_release(&block->lock);
    touch(rig, 0, 32, 0);
    ck_assert_uint_eq(fake_host_page_node(rig->fh, mm_vm_id(rig->vm), 0), 0);
    ck_assert_uint_eq(heat_of(rig, 31), heat_of(rig, 0));
    ck_assert_uint_eq(event(rig, EV_pgpromote_success), 32);
    mm_rig_check(rig);
    mm_rig_destroy(rig);
}
END_TEST

/* Reclaim does not know what is hot: it took some of that, which was out until a scan had seen it twice. */
START_TEST(test_mm_heat_a_page_wanted_right_after_its_demotion_goes_back)
{
    static const struct {
        unsigned ms;
        bool back;
    } waits[] = {{0, true}, {4000, false}, {60000, false}};
    const struct mm_config config = tiers(false);
    struct mm_rig *rig = rig_create(&config);
    fill_fast(rig, 0, NODE_PAGES + NODE_PAGES / 2);
    mm_kswapd(rig->thread[0], 0);
    gfn_t gfn = demoted_page(rig);
    fake_host_advance_ns(rig->fh, waits[_i].ms * MS);
    touch(rig, gfn, gfn + 1, 0);
    scan_pass(rig);
    touch(rig, gfn, gfn + 1, 0);
    ck_assert_uint_eq(event(rig, EV_pgpromote_success), waits[_i].back);
    ck_assert_uint_eq(fake_host_page_node(rig->fh, mm_vm_id(rig->vm), gfn), waits[_i].back ? 0 : 1);
    mm_rig_check(rig);
    mm_rig_destroy(rig);
}
END_TEST

/* A scan that cannot pay for arming learns nothing: what is hot after it is what was hot before. */
START_TEST(test_mm_heat_without_armed_pages_nothing_more_is_called_hot)
{
    const struct mm_config config = tiers(false);
    struct mm_rig *rig = rig_with_slow_set(&config);
    numa_pay(rig->host, 3000 * MS); /* what 100 s earn */
    for (unsigned round = 0; round < 900; round++) {
        fake_host_advance_ns(rig->fh, 100 * MS);
        mm_scan(rig->thread[0]);
    }
    ck_assert_uint_eq(event(rig, EV_numa_pte_updates), 0);
    for (unsigned pass = 0; pass < 2; pass++) {
        scan_pass(rig);
        fake_host_advance_ns(rig->fh, 1000 * MS);
        touch(rig, 0, SET_PAGES, 0);
    }
    ck_assert_uint_eq(event(rig, EV_numa_pte_updates), 2 * SET_PAGES);
    ck_assert_uint_eq(event(rig, EV_pgpromote_success), 0);
    mm_rig_destroy(rig);
}
END_TEST

/* The fault began before the scan had armed all of the block: the hottest page there is. */
START_TEST(test_mm_heat_pages_touched_while_their_block_is_armed_are_hot)
{
    const struct mm_config config = tiers(_i);
    struct mm_rig *rig = rig_with_slow_set(&config);
    for (unsigned pass = 0; pass < 3; pass++) {
        scan_pass(rig);
        for (unsigned i = 0; i < SET_PAGES / BLOCK_PAGES; i++)
            vm_block(rig->vm, i * BLOCK_PAGES)->armed_ms = (uint32_t)(now_ns(rig) / MS) + 3;
        touch(rig, 0, SET_PAGES, 0);
    }
    ck_assert_uint_eq(event(rig, EV_pgpromote_success), SET_PAGES);
    mm_rig_destroy(rig);
}
END_TEST

/* Nodes 0 and 1 of a rig with tiers: half of what is on the fast one is asked for at once, the other half after a while. */
static struct mm_rig *rig_with_hot_half(void)
{
    const struct mm_config config = tiers(false);
    struct mm_rig *rig = rig_create(&config);
    fill_from(rig, 0, SET_PAGES, 0);
    ck_assert_uint_eq(mm_reclaim(rig->thread[0], rig->vm, SET_PAGES, false), SET_PAGES);
    touch(rig, 0, BLOCK_PAGES, 0);
    fake_host_advance_ns(rig->fh, 3000 * MS);
    touch(rig, BLOCK_PAGES, SET_PAGES, 0);
    ck_assert_uint_eq(mm_reclaim(rig->thread[0], rig->vm, SET_PAGES, false), SET_PAGES);
    return rig;
}

static unsigned standby_node(struct mm_rig *rig, gfn_t gfn)
{
    struct mm_page_info info;
    ck_assert_int_eq(mm_page_info(rig->vm, gpa_of(gfn), &info), 0);
    ck_assert_str_eq(info.state, "standby");
    return node_of(rig->host, info.fn);
}

/* Reclaim demoted what came to standby first, however hot. */
START_TEST(test_mm_heat_hot_pages_of_the_fast_node_are_not_demoted)
{
    struct mm_rig *rig = rig_with_hot_half();
    ck_assert_uint_eq(evict_standby(rig->thread[0], 0, BLOCK_PAGES, RECLAIM_KSWAPD), BLOCK_PAGES);
    for (gfn_t gfn = 0; gfn < SET_PAGES; gfn++)
        ck_assert_uint_eq(standby_node(rig, gfn), gfn < BLOCK_PAGES ? 0 : 1);
    mm_rig_check(rig);
    verify(rig, 0, SET_PAGES);
    mm_rig_destroy(rig);
}
END_TEST

/* Nor for ever: who is not touched any more was hot. A fault that waits for room takes any. */
START_TEST(test_mm_heat_hot_pages_that_nobody_touches_any_more_are_demoted)
{
    struct mm_rig *rig = rig_with_hot_half();
    uint32_t demoted = 0;
    for (unsigned round = 0; round <= NOTE_HEAT_MAX && demoted < SET_PAGES; round++)
        demoted += evict_standby(rig->thread[0], 0, SET_PAGES, _i ? RECLAIM_DIRECT : RECLAIM_KSWAPD);
    ck_assert_uint_eq(demoted, SET_PAGES);
    ck_assert_uint_eq(event(rig, _i ? EV_pgdemote_direct : EV_pgdemote_kswapd), SET_PAGES);
    mm_rig_check(rig);
    verify(rig, 0, SET_PAGES);
    mm_rig_destroy(rig);
}
END_TEST

/* All of node @node is standby, as hot as can be: pages from @start on. Returns the end of them. */
static gfn_t fill_with_hot_standby(struct mm_rig *rig, gfn_t start, unsigned node)
{
    const struct mm_policy there = {.mode = MM_POLICY_BIND, .nodes = (nodemask_t)(1u << node)};
    const struct pool *pool = &rig->host->node[node].pool;
    gfn_t end = start;
    ck_assert_int_eq(mm_vm_place(rig->vm, gpa_of(start), NODE_BYTES, &there), 0);
    while (pool_nr_free(pool) >= pool->wmark[WMARK_LOW])
        fill_from(rig, end, end + 1, 0), end++;
    const struct mm_policy any = {.mode = MM_POLICY_PREFERRED, .nodes = there.nodes};
    ck_assert_int_eq(mm_vm_place(rig->vm, gpa_of(start), NODE_BYTES, &any), 0);
    ck_assert_uint_ge(mm_reclaim(rig->thread[0], rig->vm, end - start, false), end - start);
    for (gfn_t gfn = start; gfn < end; gfn++) {
        struct block *block = vm_block(rig->vm, gfn);
        struct s2_entry old = pte_read(block, gfn % BLOCK_PAGES), new = old;
        ck_assert_int_eq(old.state, S2_STANDBY);
        new.payload = standby_payload((fn_t)old.payload, false, (struct page_note){.heat = NOTE_HEAT_MAX});
        pte_write(block, gfn % BLOCK_PAGES, &old, &new);
    }
    return end;
}

/* Cold pages of the fast tier go past the middle one then, which keeps what is hot. */
START_TEST(test_mm_heat_where_all_of_the_middle_tier_is_hot_nothing_of_the_fast_one_is_stored)
{
    struct mm_config config = config_of(3, false);
    for (unsigned n = 0; n < 3; n++)
        config.nodes[n].rank = (uint8_t)n;
    config.zram.limit_bytes = 8 * MIB;
    struct mm_rig *rig = rig_create(&config);
    gfn_t end = fill_with_hot_standby(rig, 0, 1);
    fill_fast(rig, 2 * NODE_PAGES, 3 * NODE_PAGES + 50);
    ck_assert_uint_gt(event(rig, EV_pgdemote_kswapd), 256);
    ck_assert_uint_eq(event(rig, EV_zswpout), 0);
    for (gfn_t gfn = 0; gfn < end; gfn++)
        ck_assert_uint_eq(standby_node(rig, gfn), 1);
    mm_rig_check(rig);
    mm_rig_destroy(rig);
}
END_TEST

/* The touch waited while reclaim took the block's pages, and seemed to have come eight seconds later. */
START_TEST(test_mm_heat_a_page_touched_while_reclaim_takes_it_is_hot)
{
    const struct mm_config config = tiers(false);
    struct mm_rig *rig = rig_create(&config);
    fill_from(rig, 0, BLOCK_PAGES, 0);
    ck_assert_uint_eq(mm_reclaim(rig->thread[0], rig->vm, BLOCK_PAGES, false), BLOCK_PAGES);
    struct block *block = vm_block(rig->vm, 0);
    block->access.home_ns = now_ns(rig) + 40 * MS;
    rig->host->frames[(fn_t)pte_read(block, 0).payload].taken = (uint8_t)(taken_clock(now_ns(rig)) + 1);
    touch(rig, 0, 1, 0);
    ck_assert_uint_eq(heat_of(rig, 0), NOTE_HEAT_MAX);
    mm_rig_destroy(rig);
}
END_TEST

/* A page of the sampler's panel seemed as cold as the time since the scan had armed its block. */
START_TEST(test_mm_heat_sampled_page_that_is_touched_at_once_is_hot)
{
    const struct mm_config config = tiers(false);
    struct mm_rig *rig = rig_with_slow_set(&config);
    struct block *block = vm_block(rig->vm, 0);
    scan_pass(rig);
    touch(rig, 0, SET_PAGES, 0);
    access_configure(rig->host, 10000, NULL);
    bool any = false;
    for (unsigned round = 0; round < 100 && !any; round++) {
        fake_host_advance_ns(rig->fh, 100 * MS);
        mm_scan(rig->thread[0]);
        for (unsigned i = 0; i < BLOCK_PAGES; i++) {
            struct s2_entry entry = pte_read(block, i);
            if (entry.state != S2_STANDBY || !access_sampled_ns(block, i, &entry))
                continue;
            any = true;
            touch(rig, i, i + 1, 0);
            ck_assert_uint_ge(heat_of(rig, i), note_of(&entry).heat);
            ck_assert_uint_ge(heat_of(rig, i), 8);
        }
    }
    ck_assert(any);
    mm_rig_destroy(rig);
}
END_TEST

/* The page table of a block whose guest gave it up, while kswapd had pages of it in hand, was read when it was gone. */
START_TEST(test_mm_heat_pages_given_up_with_their_block_on_the_way_to_demotion_are_freed)
{
    struct mm_rig *rig = rig_with_hot_half();
    fn_t fn[4];
    uint8_t flags[4];
    uint64_t dropped;
    nodemask_t open = 2;
    unsigned nr = lru_isolate(rig->thread[0], 0, false, fn, flags, ARRAY_LEN(fn));
    ck_assert_uint_eq(nr, ARRAY_LEN(fn));
    ck_assert_int_eq(mm_drop(rig->thread[0], rig->vm, gpa_of(0), SET_PAGES * PAGE_BYTES, MM_DROP_FREE, 0, &dropped), 0);
    ck_assert_uint_eq(demote(rig->thread[0], 0, fn, flags, &nr, RECLAIM_KSWAPD, &open), ARRAY_LEN(fn));
    ck_assert_uint_eq(nr, 0);
    lru_isolate_done(rig->host, ARRAY_LEN(fn));
    ck_assert_uint_eq(rig->host->node[0].nr_standby + rig->host->node[1].nr_standby, 0);
    mm_rig_check(rig);
    mm_rig_destroy(rig);
}
END_TEST

/* Who came back after seconds seemed to have been wanted at once, because others of its block had just been taken. */
START_TEST(test_mm_heat_other_pages_of_a_block_that_are_taken_do_not_make_a_page_hot)
{
    const struct mm_config config = tiers(false);
    struct mm_rig *rig = rig_create(&config);
    fill_from(rig, 0, BLOCK_PAGES, 0);
    ck_assert_uint_eq(mm_reclaim(rig->thread[0], rig->vm, BLOCK_PAGES, false), BLOCK_PAGES);
    touch(rig, 1, 2, 0);
    fake_host_advance_ns(rig->fh, 3000 * MS);
    ck_assert_uint_eq(mm_reclaim(rig->thread[0], rig->vm, 1, false), 1);
    if (_i) /* it was taken then, too, wherever its frame is */
        ck_assert_uint_eq(evict_standby(rig->thread[0], 0, BLOCK_PAGES, RECLAIM_DIRECT), BLOCK_PAGES);
    touch(rig, 0, 2, 0);
    ck_assert_uint_le(heat_of(rig, 0), NOTE_HEAT_MAX - 11);
    ck_assert_uint_gt(heat_of(rig, 1), NOTE_HEAT_MAX - 11);
    mm_rig_destroy(rig);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("mm_heat");
    TCase *cases = tcase_create("heat");
    tcase_add_test(cases, test_mm_heat_a_sample_of_a_block_does_not_make_its_other_pages_hot);
    tcase_add_test(cases, test_mm_heat_a_pass_that_takes_nothing_of_a_block_does_not_make_its_pages_hot);
    tcase_add_test(cases, test_mm_heat_pages_of_a_frame_that_reclaim_took_are_as_hot_as_the_first_one);
    tcase_add_loop_test(cases, test_mm_heat_a_page_wanted_right_after_its_demotion_goes_back, 0, 3);
    tcase_add_test(cases, test_mm_heat_without_armed_pages_nothing_more_is_called_hot);
    tcase_add_loop_test(cases, test_mm_heat_pages_touched_while_their_block_is_armed_are_hot, 0, 2);
    tcase_add_test(cases, test_mm_heat_sampled_page_that_is_touched_at_once_is_hot);
    tcase_add_test(cases, test_mm_heat_hot_pages_of_the_fast_node_are_not_demoted);
    tcase_add_loop_test(cases, test_mm_heat_hot_pages_that_nobody_touches_any_more_are_demoted, 0, 2);
    tcase_add_test(cases, test_mm_heat_where_all_of_the_middle_tier_is_hot_nothing_of_the_fast_one_is_stored);
    tcase_add_test(cases, test_mm_heat_a_page_touched_while_reclaim_takes_it_is_hot);
    tcase_add_test(cases, test_mm_heat_pages_given_up_with_their_block_on_the_way_to_demotion_are_freed);
    tcase_add_loop_test(cases, test_mm_heat_other_pages_of_a_block_that_are_taken_do_not_make_a_page_hot, 0, 2);
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
