/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tiers under a zipf 0.99 load, the fast one a quarter of the working set: the share of accesses that find their page on
 * the fast node, beside what an oracle reaches that knows the trace and puts the pages with most accesses there, and
 * beside random placement and FIFO. A simulation: the clock is the fake host's, so the figures are the same everywhere.
 */
#include "guest-images/ebbguest/zipf.c"
#include "tests/unit/mm_rig.h"
#include "tests/unit/tier_replay.h"

#include <stdio.h>

#define FAST_BYTES (16 * MIB)
#define FAST_PAGES ((uint32_t)(FAST_BYTES / PAGE_BYTES))
#define SET_PAGES (4 * FAST_PAGES)
#define SLOW_BYTES (80 * MIB)
#define ACCESSES 6000000u
#define WARM_UP (ACCESSES / 5)
#define NS_PER_ACCESS 10000u
#define SCAN_NS UINT64_C(100000000)
#define KSWAPD_NS UINT64_C(1000000)

struct simulation {
    struct mm_rig *rig;
    struct zipf zipf;
    uint64_t rng, last_scan_ns, last_kswapd_ns;
    uint64_t nr_fast;
    struct tier_replay replay;
};

/* Where the page is when it is asked for, before anything is moved for it. */
static bool is_fast(struct mm_rig *rig, gfn_t gfn)
{
    struct mm_page_info info;
    if (mm_rig_is_present(rig, gfn))
        return fake_host_page_node(rig->fh, mm_vm_id(rig->vm), gfn) == 0;
    ck_assert_int_eq(mm_page_info(rig->vm, gpa_of(gfn), &info), 0);
    return info.fn != FN_NONE && node_of(rig->host, info.fn) == 0;
}

static void pass_time(struct simulation *s)
{
    struct mm_rig *rig = s->rig;
    fake_host_advance_ns(rig->fh, NS_PER_ACCESS);
    uint64_t now_ns = rig->host->ops->clock_ns(rig->fh);
    if (now_ns - s->last_scan_ns >= SCAN_NS) {
        s->last_scan_ns = now_ns;
        mm_scan(rig->thread[1]);
    }
    const struct mm_node *fast = &rig->host->node[0];
    if (now_ns - s->last_kswapd_ns >= KSWAPD_NS &&
        pool_nr_free(&fast->pool) < fast->pool.wmark[WMARK_LOW] + fast->boost_pages) {
        s->last_kswapd_ns = now_ns;
        mm_kswapd(rig->thread[1], 0);
    }
}

static void access_page(struct simulation *s, gfn_t gfn, bool counts)
{
    struct mm_rig *rig = s->rig;
    pass_time(s);
    tier_replay_access(&s->replay, (uint32_t)gfn, counts);
    s->nr_fast += counts && is_fast(rig, gfn);
    while (!mm_rig_is_present(rig, gfn))
        ck_assert_int_eq(mm_fault(rig->thread[0], rig->vm, gpa_of(gfn), MM_FAULT_WRITE | MM_FAULT_FROM(0, 0)), 0);
}

START_TEST(test_mm_tier_zipf_fast_node_serves_nine_tenths_of_what_an_oracle_would)
{
    struct mm_config config = {.budget_bytes = FAST_BYTES + SLOW_BYTES, .nr_nodes = 2};
    config.nodes[0] = (struct mm_node_config){.id = 0, .budget_bytes = FAST_BYTES, .distance = {10, 20}};
    config.nodes[1] = (struct mm_node_config){.id = 1, .budget_bytes = SLOW_BYTES, .distance = {20, 10}, .rank = 1};
    struct simulation *s = calloc(1, sizeof(*s));
    s->rig = mm_rig_create(&config, SET_PAGES * PAGE_BYTES, 2);
    s->rng = 42;
    ck_assert_int_eq(tier_replay_init(&s->replay, SET_PAGES, FAST_PAGES), 0);
    zipf_init(&s->zipf, SET_PAGES, 990);
    for (gfn_t gfn = 0; gfn < SET_PAGES; gfn++)
        access_page(s, gfn, false);
    for (uint32_t i = 0; i < ACCESSES; i++)
        access_page(s, scatter(zipf_sample(&s->zipf, &s->rng), SET_PAGES, 7), i >= WARM_UP);
    double nr = (double)s->replay.nr, best = (double)tier_replay_oracle(&s->replay) / nr,
           fast = (double)s->nr_fast / nr;
    printf(
        "zipf 0.99, fast tier a quarter: %.3f of accesses on it; oracle %.3f (%.3f of it), FIFO %.3f, random 0.250\n",
        fast, best, fast / best, (double)s->replay.nr_fifo / nr);
    ck_assert_double_ge(fast, 0.9 * best);
    mm_rig_destroy(s->rig);
    tier_replay_fini(&s->replay);
    free(s);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("mm_tier_zipf");
    TCase *cases = tcase_create("simulation");
    tcase_set_timeout(cases, 300);
    tcase_add_test(cases, test_mm_tier_zipf_fast_node_serves_nine_tenths_of_what_an_oracle_would);
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
