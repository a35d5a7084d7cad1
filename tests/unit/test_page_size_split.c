/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks that are split to see what of them is hot, and what comes of it: half of each block goes cold, then hot again. */
#include "tests/unit/page_size_rig.h"

static const struct mm_config plain = {
    .budget_bytes = 32 * MIB, .zram = {.limit_bytes = 8 * MIB}, .thp = true, .collapse_pct = 1};

/* ---- split ---- */

/* Reclaim takes the block whole, the guest touches one page of it. */
static void take_and_touch(struct mm_rig *rig, unsigned block)
{
    uint64_t scanned = 0;
    struct block *b = block_at(rig, block);
    lock_acquire(&b->lock);
    ck_assert_uint_eq(lru_deactivate_block(rig->thread[0], b, 0, true, &scanned), BLOCK_PAGES);
    lock_release(&b->lock);
    mm_rig_verify(rig, 0, b->start + 77);
}

START_TEST(test_split_trial_shows_a_block_that_is_hot_all_over_and_it_is_rebuilt)
{
    struct mm_rig *rig = mm_rig_create(&plain, 16 * MIB, 1);
    mm_rig_fill(rig, 0, BLOCK_PAGES, TEXT);
    scan_pass(rig);
    /* the third time, then the sixth, then the twelfth, and so on */
    for (unsigned trial = 0, takes = 3; trial < 4; trial++, takes = MIN_OF(2 * takes, 12u)) {
        for (unsigned i = 1; i < takes; i++) {
            take_and_touch(rig, 0);
            ck_assert(is_huge(rig, 0));
        }
        ck_assert_uint_eq(event_of(rig, EV_thp_split_trial), trial);
        take_and_touch(rig, 0);
        ck_assert_uint_eq(event_of(rig, EV_thp_split_trial), trial + 1);
        ck_assert_uint_eq(block_at(rig, 0)->nr_resident, 1);
        mm_rig_check(rig);
        verify_pages(rig, 0, BLOCK_PAGES);
        scan_twice(rig);
        ck_assert(is_huge(rig, 0));
        mm_rig_check(rig);
    }
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_split_trials_of_a_round_are_few)
{
    struct mm_rig *rig = mm_rig_create(&plain, 16 * MIB, 1);
    mm_rig_fill(rig, 0, 5 * BLOCK_PAGES, TEXT);
    scan_pass(rig);
    for (unsigned i = 0; i < 3; i++)
        for (unsigned block = 0; block < 5; block++)
            take_and_touch(rig, block);
    ck_assert_uint_eq(event_of(rig, EV_thp_split_trial), 3);
    /* they are paid for: 3 x 512 faults of 8.8 us at one percent */
    fake_host_advance_ns(rig->fh, SECOND_NS);
    unsigned ms = collapse_scan(rig->thread[0]);
    ck_assert_uint_ge(ms, 3 * 512 * 88 / 10 / 10 * 99 / 100);
    for (unsigned block = 0; block < 5; block++)
        if (is_huge(rig, block))
            take_and_touch(rig, block);
    ck_assert_uint_eq(event_of(rig, EV_thp_split_trial), 5);
    mm_rig_destroy(rig);
}
END_TEST

/* Its node is short of pages: only what is known to be hot all over goes back whole. */
START_TEST(test_split_short_of_pages_leaves_a_block_alone_that_was_rebuilt_hot)
{
    for (unsigned hot = 0; hot < 2; hot++) {
        struct mm_rig *rig = mm_rig_create(&plain, 16 * MIB, 1);
        struct pool *pool = &rig->host->node[0].pool;
        make_single(rig, 0, TEXT);
        for (unsigned i = 0; i < 3 * hot; i++) {
            /* each time reclaim takes its pages they come back */
            ck_assert_uint_eq(mm_reclaim(rig->thread[0], rig->vm, BLOCK_PAGES, false), BLOCK_PAGES);
            verify_pages(rig, 0, BLOCK_PAGES);
        }
        scan_twice(rig);
        ck_assert(is_huge(rig, 0));
        ck_assert_uint_eq(block_at(rig, 0)->nr_acquittals, hot);
        uint32_t nr = pool_nr_free(pool) - pool->wmark[WMARK_HIGH] + 1;
        ck_assert(!pool_charge(pool, nr));
        take_and_touch(rig, 0);
        ck_assert_int_eq(is_huge(rig, 0), hot);
        verify_pages(rig, 0, BLOCK_PAGES);
        pool_uncharge(pool, nr);
        mm_rig_destroy(rig);
    }
}
END_TEST

START_TEST(test_split_trial_is_not_where_nothing_is_rebuilt)
{
    for (unsigned i = 0; i < 2; i++) {
        struct mm_config config = plain;
        config.collapse_pct = i;
        struct mm_rig *rig = mm_rig_create(&config, 16 * MIB, 1);
        mm_rig_fill(rig, 0, BLOCK_PAGES, TEXT);
        if (i)
            scan_pass(rig);
        fake_host_ops(rig->fh)->keeps_tables = i > 0;
        for (unsigned k = 0; k < 10; k++)
            take_and_touch(rig, 0);
        ck_assert(is_huge(rig, 0));
        ck_assert_uint_eq(event_of(rig, EV_thp_split_trial), 0);
        mm_rig_destroy(rig);
    }
}
END_TEST

/* ---- half of each block goes cold, then all is hot again ---- */

#define HALVED_BLOCKS 20u
#define OTHER_BLOCKS 12u
#define HALF (BLOCK_PAGES / 2)

struct halves {
    struct mm_rig *rig;
    struct rng rng;
    uint64_t kicks;
    gfn_t other; /* of what keeps memory tight: the next page */
};

static void run_workers(struct halves *h)
{
    struct fake_host_stat fake;
    fake_host_stat(h->rig->fh, &fake);
    if (fake.nr_kicks[MM_KSWAPD(0)] != h->kicks)
        mm_kswapd(h->rig->thread[1], 0);
    h->kicks = fake.nr_kicks[MM_KSWAPD(0)];
}

/* As many touches as there are hot pages, half as many beside. Returns faults of the hot pages. */
static uint64_t touch_hot_halves(struct halves *h)
{
    struct mm_rig *rig = h->rig;
    uint64_t faults = 0;
    for (unsigned i = 0; i < HALVED_BLOCKS * HALF; i++) {
        gfn_t page = rng_below(&h->rng, HALVED_BLOCKS * HALF);
        uint64_t before = event_of(rig, EV_pgfault);
        mm_rig_verify(rig, 0, page / HALF * BLOCK_PAGES + page % HALF);
        faults += event_of(rig, EV_pgfault) - before;
        if (i % 2)
            mm_rig_verify(rig, 0, HALVED_BLOCKS * BLOCK_PAGES + h->other++ % (OTHER_BLOCKS * BLOCK_PAGES));
        run_workers(h);
    }
    fake_host_advance_ns(rig->fh, 2 * SECOND_NS);
    ck_assert_uint_gt(collapse_scan(rig->thread[1]), 0);
    return faults;
}

static unsigned nr_present(struct mm_rig *rig, unsigned first_of_block)
{
    unsigned nr = 0;
    for (gfn_t gfn = 0; gfn < HALVED_BLOCKS * BLOCK_PAGES; gfn++)
        nr += gfn % BLOCK_PAGES / HALF == first_of_block / HALF && mm_rig_is_present(rig, gfn);
    return nr;
}

START_TEST(test_page_size_cold_halves_are_out_and_hot_ones_fault_no_more_then_all_is_huge_again)
{
    /* all of the hot halves and of the rest, but not the cold halves too */
    const struct mm_config config = {
        .budget_bytes = 48 * MIB, .zram = {.limit_bytes = 24 * MIB}, .thp = true, .collapse_pct = 1};
    struct mm_rig *rig = mm_rig_create(&config, (HALVED_BLOCKS + OTHER_BLOCKS) * BLOCK_BYTES, 2);
    struct halves h = {.rig = rig, .rng = {.state = 1}};
    uint64_t dropped;
    for (gfn_t gfn = 0; gfn < rig->nr_pages; gfn++) {
        ck_assert(!mm_rig_write(rig, 0, gfn, TEXT));
        run_workers(&h);
    }
    unsigned rounds = 0;
    for (unsigned quiet = 0; quiet < 3; rounds++) {
        quiet = touch_hot_halves(&h) ? 0 : quiet + 1;
        ck_assert_uint_lt(rounds, 40); /* 53 without trials */
    }
    mm_rig_check(rig);
    /* blocks of the others wait for a frame, and the scanner has just looked for what is cold */
    ck_assert_uint_ge(nr_present(rig, 0), HALVED_BLOCKS * HALF / 50 * 49);
    ck_assert_uint_le(nr_present(rig, HALF), HALVED_BLOCKS * HALF / 20);
    ck_assert(!mm_drop(rig->thread[0], rig->vm, gpa_of(HALVED_BLOCKS * BLOCK_PAGES), OTHER_BLOCKS * BLOCK_BYTES,
                       MM_DROP_FREE, 0, &dropped));
    for (unsigned pass = 0; pass < 3; pass++) {
        verify_pages(rig, 0, HALVED_BLOCKS * BLOCK_PAGES);
        scan_pass(rig);
        mm_rig_check(rig);
    }
    unsigned huge = 0;
    for (unsigned block = 0; block < HALVED_BLOCKS; block++)
        huge += is_huge(rig, block);
    ck_assert_uint_ge(huge * 10, HALVED_BLOCKS * 9);
    uint64_t faults = event_of(rig, EV_pgfault);
    verify_pages(rig, 0, HALVED_BLOCKS * BLOCK_PAGES);
    ck_assert_uint_eq(event_of(rig, EV_pgfault), faults);
    mm_rig_destroy(rig);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("page_size_split");
    TCase *tests = tcase_create("page_size_split");
    tcase_set_timeout(tests, 300);
    tcase_add_test(tests, test_split_trial_shows_a_block_that_is_hot_all_over_and_it_is_rebuilt);
    tcase_add_test(tests, test_split_trials_of_a_round_are_few);
    tcase_add_test(tests, test_split_short_of_pages_leaves_a_block_alone_that_was_rebuilt_hot);
    tcase_add_test(tests, test_split_trial_is_not_where_nothing_is_rebuilt);
    tcase_add_test(tests, test_page_size_cold_halves_are_out_and_hot_ones_fault_no_more_then_all_is_huge_again);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
