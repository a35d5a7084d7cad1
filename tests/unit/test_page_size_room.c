/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks that are rebuilt although the budget is full: what is known to be cold makes room for them, and nothing else. */
#include "tests/unit/page_size_rig.h"

#define HOT_BLOCKS 18u
#define HOT_PAGES (HOT_BLOCKS * BLOCK_PAGES)

static const struct mm_config small = {
    .budget_bytes = 48 * MIB, .zram = {.limit_bytes = 16 * MIB}, .thp = true, .collapse_pct = 1};

/* Hot blocks in single pages first, others after them, which may be more than the budget holds. */
struct load {
    struct mm_rig *rig;
    uint64_t kicks;
    gfn_t cold; /* page of the others that is touched next */
};

static void run_kswapd(struct load *l)
{
    struct fake_host_stat fake;
    fake_host_stat(l->rig->fh, &fake);
    if (fake.nr_kicks[MM_KSWAPD(0)] != l->kicks)
        mm_kswapd(l->rig->thread[1], 0);
    l->kicks = fake.nr_kicks[MM_KSWAPD(0)];
}

/* What the pages hold is verified at the end of each test. */
static void touch(struct load *l, gfn_t gfn)
{
    if (mm_rig_is_present(l->rig, gfn))
        return;
    ck_assert(!mm_rig_touch(l->rig, 0, gfn));
    run_kswapd(l);
}

static void touch_all(struct load *l, gfn_t start, gfn_t end)
{
    for (gfn_t gfn = start; gfn < end; gfn++)
        touch(l, gfn);
}

static struct load load_create(const struct mm_config *config, unsigned others, enum content content)
{
    struct load l = {.rig = mm_rig_create(config, (HOT_BLOCKS + others) * BLOCK_BYTES, 2)};
    for (unsigned block = 0; block < HOT_BLOCKS; block++)
        make_single(l.rig, block, TEXT);
    for (gfn_t gfn = HOT_PAGES; gfn < l.rig->nr_pages; gfn++) {
        ck_assert(!mm_rig_write(l.rig, 0, gfn, content));
        run_kswapd(&l);
    }
    touch_all(&l, 0, HOT_PAGES);
    ck_assert(!collapse_has_room(&l.rig->host->node[0]));
    return l;
}

static void pass(struct load *l)
{
    scan_pass(l->rig);
    mm_rig_check(l->rig);
}

static unsigned nr_huge_of(const struct mm_rig *rig, unsigned nr_blocks)
{
    unsigned nr = 0;
    for (unsigned block = 0; block < nr_blocks; block++)
        nr += is_huge(rig, block);
    return nr;
}

static unsigned nr_huge(const struct mm_rig *rig)
{
    return nr_huge_of(rig, HOT_BLOCKS);
}

/* ---- with something cold ---- */

START_TEST(test_collapse_in_a_full_budget_cold_pages_make_room_for_hot_blocks)
{
    struct load l = load_create(&small, 14, TEXT);
    uint64_t major = event_of(l.rig, EV_pgmajfault);
    for (unsigned i = 0; i < 24; i++) {
        touch_all(&l, 0, HOT_PAGES);
        pass(&l);
    }
    ck_assert_uint_ge(nr_huge(l.rig) * 10, HOT_BLOCKS * 9);
    ck_assert_uint_eq(event_of(l.rig, EV_pgmajfault), major);
    ck_assert_uint_eq(event_of(l.rig, EV_thp_collapse_failed), 0);
    /* one frame's worth for all of them, and what the watermark and the store took */
    ck_assert_uint_ge(event_of(l.rig, EV_pgsteal_khugepaged), BLOCK_PAGES);
    ck_assert_uint_le(event_of(l.rig, EV_pgsteal_khugepaged), BLOCK_PAGES * 3 / 2);
    uint64_t faults = event_of(l.rig, EV_pgfault);
    verify_pages(l.rig, 0, HOT_PAGES);
    ck_assert_uint_eq(event_of(l.rig, EV_pgfault), faults);
    verify_pages(l.rig, 0, l.rig->nr_pages);
    mm_rig_destroy(l.rig);
}
END_TEST

/*
 * All memory was in 2 MiB frames, which reclaim broke. What the store does not take of them stays in zone Huge and can be
 * moved; the store's own pages cannot.
 */
START_TEST(test_collapse_after_all_frames_broke_finds_runs_beside_the_store)
{
    enum { FEW_BLOCKS = 12, ALL_BLOCKS = 38 };
    struct load l = {.rig = mm_rig_create(&small, ALL_BLOCKS * BLOCK_BYTES, 2)};
    for (gfn_t gfn = 0; gfn < l.rig->nr_pages; gfn++) {
        ck_assert(!mm_rig_write(l.rig, 0, gfn, gfn % 4 ? TEXT : RANDOM));
        run_kswapd(&l);
    }
    touch_all(&l, 0, FEW_BLOCKS * BLOCK_PAGES);
    ck_assert_uint_ge(event_of(l.rig, EV_thp_split_page), FEW_BLOCKS);
    ck_assert_uint_eq(nr_huge_of(l.rig, FEW_BLOCKS), 0);
    uint64_t major = event_of(l.rig, EV_pgmajfault);
    for (unsigned i = 0; i < 40; i++) {
        touch_all(&l, 0, FEW_BLOCKS * BLOCK_PAGES);
        pass(&l);
        mm_housekeep(l.rig->thread[0]);
        mm_rig_check(l.rig);
    }
    ck_assert_uint_eq(nr_huge_of(l.rig, FEW_BLOCKS), FEW_BLOCKS);
    ck_assert_uint_eq(event_of(l.rig, EV_pgmajfault), major);
    verify_pages(l.rig, 0, l.rig->nr_pages);
    mm_rig_destroy(l.rig);
}
END_TEST

/*
 * 60 rounds of the hot pages with others read through beside them, one page to @share hot ones. Returns major faults of the last 20
 * rounds; @all: of all.
 */
static uint64_t run_beside(const struct mm_config *config, unsigned others, unsigned share, uint64_t *all,
                           unsigned *huge)
{
    struct load l = load_create(config, others, TEXT);
    uint64_t begin = event_of(l.rig, EV_pgmajfault), late = 0;
    for (unsigned i = 0; i < 60; i++) {
        if (i == 40)
            late = event_of(l.rig, EV_pgmajfault);
        for (gfn_t gfn = 0; gfn < HOT_PAGES; gfn++) {
            touch(&l, gfn);
            if (gfn % share == 0)
                touch(&l, HOT_PAGES + l.cold++ % (l.rig->nr_pages - HOT_PAGES));
        }
        if (config->collapse_pct)
            pass(&l);
    }
    *huge = nr_huge(l.rig);
    late = event_of(l.rig, EV_pgmajfault) - late;
    *all = event_of(l.rig, EV_pgmajfault) - begin;
    verify_pages(l.rig, 0, l.rig->nr_pages);
    mm_rig_destroy(l.rig);
    return late;
}

START_TEST(test_collapse_beside_a_stream_of_cold_pages_costs_no_major_faults)
{
    struct mm_config config = small;
    unsigned huge;
    uint64_t all;
    config.budget_bytes = 72 * MIB;
    config.zram.limit_bytes = 40 * MIB;
    uint64_t with = run_beside(&config, 80, 16, &all, &huge);
    ck_assert_uint_ge(huge * 10, HOT_BLOCKS * 9);
    config.collapse_pct = 0;
    uint64_t without = run_beside(&config, 80, 16, &all, &huge);
    ck_assert_uint_eq(huge, 0);
    ck_assert_uint_gt(without, 200);
    ck_assert_msg(with * 100 <= without * 102, "%llu, without %llu", (unsigned long long)with,
                  (unsigned long long)without);
}
END_TEST

START_TEST(test_collapse_on_a_tier_sends_cold_pages_to_the_slower_one)
{
    struct mm_config config = small;
    config.budget_bytes = 112 * MIB;
    config.nr_nodes = 2;
    config.nodes[0] = (struct mm_node_config){.id = 0, .budget_bytes = 48 * MIB, .distance = {10, 20}};
    config.nodes[1] = (struct mm_node_config){.id = 1, .budget_bytes = 64 * MIB, .distance = {20, 10}, .rank = 1};
    struct load l = {.rig = mm_rig_create(&config, (HOT_BLOCKS + 6) * BLOCK_BYTES, 2)};
    for (unsigned block = 0; block < HOT_BLOCKS; block++)
        make_single(l.rig, block, TEXT);
    mm_rig_fill(l.rig, HOT_PAGES, l.rig->nr_pages, TEXT);
    ck_assert(!collapse_has_room(&l.rig->host->node[0]));
    for (unsigned i = 0; i < 40; i++) {
        touch_all(&l, 0, HOT_PAGES);
        pass(&l);
    }
    ck_assert_uint_ge(nr_huge(l.rig) * 10, HOT_BLOCKS * 9);
    ck_assert_uint_ge(event_of(l.rig, EV_pgdemote_khugepaged), BLOCK_PAGES / 2);
    ck_assert_uint_eq(event_of(l.rig, EV_pgmajfault), 0);
    ck_assert_uint_eq(event_of(l.rig, EV_zswpout), 0);
    verify_pages(l.rig, 0, l.rig->nr_pages);
    mm_rig_destroy(l.rig);
}
END_TEST

/* ---- with nothing cold ---- */

START_TEST(test_collapse_with_nothing_cold_evicts_nothing_and_looks_ever_more_rarely)
{
    struct load l = load_create(&small, 5, TEXT);
    uint64_t major = event_of(l.rig, EV_pgmajfault);
    uint64_t faults[2];
    for (unsigned i = 0; i < 100; i++) {
        if (i == 50)
            faults[0] = event_of(l.rig, EV_pgfault);
        touch_all(&l, 0, l.rig->nr_pages);
        pass(&l);
    }
    faults[1] = event_of(l.rig, EV_pgfault);
    ck_assert_uint_eq(event_of(l.rig, EV_khugepaged_pages_collapsed), 0);
    ck_assert_uint_eq(event_of(l.rig, EV_pgmajfault), major);
    ck_assert_uint_eq(event_of(l.rig, EV_pgsteal_khugepaged), 0);
    ck_assert_uint_ge(event_of(l.rig, EV_pgscan_khugepaged), 2 * l.rig->nr_pages);
    ck_assert_uint_le(faults[1] - faults[0], l.rig->nr_pages / 20);
    verify_pages(l.rig, 0, l.rig->nr_pages);
    mm_rig_destroy(l.rig);
}
END_TEST

START_TEST(test_collapse_in_a_thrashing_budget_adds_no_major_faults)
{
    struct mm_config config = small;
    unsigned huge;
    config.budget_bytes = 56 * MIB;
    uint64_t with, without;
    run_beside(&config, 14, 4, &with, &huge);
    config.collapse_pct = 0;
    run_beside(&config, 14, 4, &without, &huge);
    ck_assert_uint_gt(without, 10000);
    ck_assert_msg(with * 100 <= without * 102, "%llu, without %llu", (unsigned long long)with,
                  (unsigned long long)without);
}
END_TEST

START_TEST(test_collapse_of_blocks_that_are_not_touched_takes_them_home_and_no_more)
{
    struct load l = load_create(&small, 14, TEXT);
    for (unsigned i = 0; i < 12; i++)
        pass(&l);
    ck_assert_uint_eq(event_of(l.rig, EV_khugepaged_pages_collapsed), 0);
    ck_assert_uint_eq(event_of(l.rig, EV_pgsteal_khugepaged), 0);
    verify_pages(l.rig, 0, l.rig->nr_pages);
    mm_rig_destroy(l.rig);
}
END_TEST

START_TEST(test_collapse_room_made_of_pages_that_are_wanted_again_is_made_ever_more_rarely)
{
    struct load l = load_create(&small, 5, TEXT);
    uint64_t half = 0, stolen;
    for (unsigned i = 0; i < 200; i++) {
        touch_all(&l, 0, HOT_PAGES);
        /* the others seem cold for nine passes; and what is hot is taken apart again */
        if (i % 10 == 9) {
            touch_all(&l, HOT_PAGES, l.rig->nr_pages);
            for (unsigned block = 0; block < HOT_BLOCKS; block++)
                if (is_huge(l.rig, block))
                    make_single(l.rig, block, TEXT);
        }
        pass(&l);
        if (i == 99)
            half = event_of(l.rig, EV_pgsteal_khugepaged);
    }
    stolen = event_of(l.rig, EV_pgsteal_khugepaged);
    ck_assert_uint_ge(half, BLOCK_PAGES);
    ck_assert_uint_le(stolen - half, half / 2);
    verify_pages(l.rig, 0, l.rig->nr_pages);
    mm_rig_destroy(l.rig);
}
END_TEST

/* ---- when it fails ---- */

START_TEST(test_collapse_with_nowhere_for_cold_pages_to_go_rebuilds_nothing)
{
    for (unsigned full = 0; full < 2; full++) {
        struct mm_config config = small;
        config.zram.limit_bytes = full ? MIB / 4 : 16 * MIB;
        struct load l = load_create(&config, 5, full ? HALF : RANDOM);
        for (unsigned i = 0; i < 40; i++) {
            touch_all(&l, 0, HOT_PAGES);
            pass(&l);
        }
        ck_assert_uint_eq(event_of(l.rig, EV_khugepaged_pages_collapsed), 0);
        ck_assert_uint_ge(l.rig->host->node[0].room.nr_failures, 1);
        verify_pages(l.rig, 0, l.rig->nr_pages);
        mm_rig_destroy(l.rig);
    }
}
END_TEST

START_TEST(test_collapse_without_a_run_of_slots_wakes_compaction)
{
    const struct mm_config config = {
        .budget_bytes = 32 * MIB, .zram = {.limit_bytes = 8 * MIB}, .thp = true, .collapse_pct = 1};
    struct mm_rig *rig = mm_rig_create(&config, 16 * MIB, 1);
    struct zone *huge = &rig->host->node[0].pool.zones[POOL_HUGE];
    struct fake_host_stat before, after;
    fn_t slot[32 * MIB / BLOCK_BYTES];
    unsigned nr = 0;
    make_single(rig, 0, TEXT);
    pool_drain_stock(&rig->host->node[0].pool, 0);
    pool_trim(&rig->host->node[0].pool, UINT32_MAX);
    for (; nr < ARRAY_LEN(slot) && !zone_alloc(huge, BLOCK_ORDER, PLANE_EMPTY, &slot[nr]); nr++)
        zone_free_range(huge, slot[nr] + 1, BLOCK_PAGES - 1, PLANE_EMPTY);
    fake_host_stat(rig->fh, &before);
    scan_twice(rig);
    fake_host_stat(rig->fh, &after);
    ck_assert(!is_huge(rig, 0));
    ck_assert_uint_eq(event_of(rig, EV_thp_collapse_alloc_failed), 1);
    ck_assert(rig->host->node[0].compact.wanted);
    ck_assert_uint_eq(after.nr_kicks[MM_HOUSEKEEPER], before.nr_kicks[MM_HOUSEKEEPER] + 1);
    while (nr > 0)
        zone_free_range(huge, slot[--nr], 1, PLANE_EMPTY);
    mm_housekeep(rig->thread[0]);
    ck_assert(!rig->host->node[0].compact.wanted);
    scan_pass(rig);
    ck_assert(is_huge(rig, 0));
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_collapse_looking_for_cold_pages_is_paid_for)
{
    struct load l = load_create(&small, 14, TEXT);
    uint64_t looked;
    unsigned ms;
    pass(&l);
    do {
        fake_host_advance_ns(l.rig->fh, 100 * SECOND_NS);
        ms = collapse_scan(l.rig->thread[0]);
    } while (!(looked = event_of(l.rig, EV_pgscan_khugepaged)));
    ck_assert_uint_ge(looked, BLOCK_PAGES);
    /* three trials, 8.8 us for each of their pages, at one percent */
    ck_assert_uint_ge(ms, 3 * BLOCK_PAGES * 88 / 10 / 10 * 99 / 100);
    mm_rig_destroy(l.rig);
}
END_TEST

/* A device has a page of each block, and one block would like to be a frame. */
START_TEST(test_collapse_looking_at_what_cannot_be_taken_ends_soon)
{
    const unsigned pinned = 80, at_once = 64;
    const struct mm_config config = {.budget_bytes = (pinned + 12) * BLOCK_BYTES, .thp = true, .collapse_pct = 1};
    struct mm_rig *rig = mm_rig_create(&config, (pinned + 1) * BLOCK_BYTES, 1);
    struct pool *pool = &rig->host->node[0].pool;
    uint64_t looks = 0, longest = 0;
    unsigned idle = 0;
    for (unsigned block = 1; block <= pinned; block++)
        ck_assert(!mm_pin(rig->thread[0], rig->vm, gpa_of(block * BLOCK_PAGES), 1));
    make_single(rig, 0, TEXT);
    uint32_t spare = pool_nr_free(pool) - pool->wmark[WMARK_HIGH];
    ck_assert(!pool_charge(pool, spare));
    for (unsigned i = 0; i < 20; i++) {
        uint64_t before = event_of(rig, EV_take_pinned);
        verify_pages(rig, 0, BLOCK_PAGES);
        scan_pass(rig);
        looks = event_of(rig, EV_take_pinned);
        longest = MAX_OF(longest, looks - before);
        idle += looks == before;
    }
    ck_assert_uint_gt(longest, 0);
    ck_assert_uint_le(longest, at_once);
    /* the others were not forgotten; and after all of them there is a pause */
    ck_assert_uint_ge(looks, pinned);
    ck_assert_uint_ge(idle, NR_STANDBY_MARKS);
    pool_uncharge(pool, spare);
    for (unsigned block = 1; block <= pinned; block++)
        mm_unpin(rig->vm, gpa_of(block * BLOCK_PAGES), 1);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_lru_look_at_a_huge_page_brings_it_back_whole_though_pages_are_short)
{
    struct mm_rig *rig = mm_rig_create(&small, 16 * MIB, 1);
    struct pool *pool = &rig->host->node[0].pool;
    uint64_t scanned = 0;
    mm_rig_fill(rig, 0, BLOCK_PAGES, TEXT);
    uint32_t nr = pool_nr_free(pool) - pool->wmark[WMARK_HIGH] + 1;
    ck_assert(!pool_charge(pool, nr));
    ck_assert_uint_eq(lru_look_next(rig->thread[0], 0, &(uint64_t){1}, &scanned), BLOCK_PAGES);
    ck_assert_uint_eq(scanned, BLOCK_PAGES);
    mm_rig_verify(rig, 0, 77);
    ck_assert(is_huge(rig, 0));
    ck_assert_uint_eq(block_at(rig, 0)->nr_takes, 0);
    verify_pages(rig, 0, BLOCK_PAGES);
    pool_uncharge(pool, nr);
    mm_rig_destroy(rig);
}
END_TEST

/* ---- the mark ---- */

START_TEST(test_lru_mark_tells_old_standby_pages_from_young_ones)
{
    struct mm_rig *rig = mm_rig_create(&small, 16 * MIB, 1);
    mm_rig_fill(rig, 0, 2 * BLOCK_PAGES, TEXT);
    make_single(rig, 0, TEXT);
    make_single(rig, 1, TEXT);
    ck_assert_uint_eq(mm_reclaim(rig->thread[0], rig->vm, BLOCK_PAGES, false), BLOCK_PAGES);
    for (unsigned i = 0; i < NR_STANDBY_MARKS; i++) {
        ck_assert_uint_eq(lru_nr_marked(rig->host, 0, 5000), 0);
        lru_mark(rig->host, 0);
        mm_rig_check(rig);
        if (i == 0)
            ck_assert_uint_eq(mm_reclaim(rig->thread[0], rig->vm, BLOCK_PAGES, false), BLOCK_PAGES);
    }
    ck_assert_uint_eq(rig->host->node[0].nr_standby, 2 * BLOCK_PAGES);
    ck_assert_uint_eq(lru_nr_marked(rig->host, 0, 5000), BLOCK_PAGES);
    ck_assert_uint_eq(lru_nr_marked(rig->host, 0, 100), 100);
    /* the marked one and its neighbours are touched, then the oldest are stored */
    for (unsigned i = 1; i <= 12; i++) {
        mm_rig_verify(rig, 0, BLOCK_PAGES - i);
        ck_assert_uint_eq(lru_nr_marked(rig->host, 0, 5000), BLOCK_PAGES - i);
        mm_rig_check(rig);
    }
    ck_assert_uint_eq(evict_standby(rig->thread[0], 0, 32, RECLAIM_KHUGEPAGED), 32);
    ck_assert_uint_eq(lru_nr_marked(rig->host, 0, 5000), BLOCK_PAGES - 12 - 32);
    ck_assert_uint_eq(evict_standby(rig->thread[0], 0, BLOCK_PAGES, RECLAIM_KHUGEPAGED), BLOCK_PAGES);
    ck_assert_uint_eq(lru_nr_marked(rig->host, 0, 5000), 0);
    lru_mark(rig->host, 0);
    ck_assert_uint_eq(lru_nr_marked(rig->host, 0, 5000), BLOCK_PAGES - 32 - 12);
    mm_rig_destroy(rig);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("page_size_room");
    TCase *tests = tcase_create("page_size_room");
    tcase_set_timeout(tests, 300);
    tcase_add_test(tests, test_collapse_in_a_full_budget_cold_pages_make_room_for_hot_blocks);
    tcase_add_test(tests, test_collapse_after_all_frames_broke_finds_runs_beside_the_store);
    tcase_add_test(tests, test_collapse_beside_a_stream_of_cold_pages_costs_no_major_faults);
    tcase_add_test(tests, test_collapse_on_a_tier_sends_cold_pages_to_the_slower_one);
    tcase_add_test(tests, test_collapse_with_nothing_cold_evicts_nothing_and_looks_ever_more_rarely);
    tcase_add_test(tests, test_collapse_in_a_thrashing_budget_adds_no_major_faults);
    tcase_add_test(tests, test_collapse_of_blocks_that_are_not_touched_takes_them_home_and_no_more);
    tcase_add_test(tests, test_collapse_room_made_of_pages_that_are_wanted_again_is_made_ever_more_rarely);
    tcase_add_test(tests, test_collapse_with_nowhere_for_cold_pages_to_go_rebuilds_nothing);
    tcase_add_test(tests, test_collapse_without_a_run_of_slots_wakes_compaction);
    tcase_add_test(tests, test_collapse_looking_for_cold_pages_is_paid_for);
    tcase_add_test(tests, test_collapse_looking_at_what_cannot_be_taken_ends_soon);
    tcase_add_test(tests, test_lru_look_at_a_huge_page_brings_it_back_whole_though_pages_are_short);
    tcase_add_test(tests, test_lru_mark_tells_old_standby_pages_from_young_ones);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
