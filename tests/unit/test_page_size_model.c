/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rebuilding beside everything else that happens to a block, against a model that knows what each page holds: mm_check
 * after every step, every page read at the end. The host's calls fail now and then while the scanner runs.
 */
#include "mm/policy/access.h"
#include "tests/unit/page_size_rig.h"

#include <errno.h>

#define NR_BLOCKS 8u
#define NR_PAGES (NR_BLOCKS * BLOCK_PAGES)
#define NR_STEPS 1500u
#define MAX_PINS 4u

struct model {
    struct mm_rig *rig;
    struct rng rng;
    uint64_t word[NR_PAGES]; /* the first 8 bytes of each page */
    gfn_t pin[MAX_PINS];
    unsigned nr_pins;
    bool has_swap;
};

static unsigned below(struct model *m, unsigned n)
{
    return rng_below(&m->rng, n);
}

static void write_page(struct model *m, gfn_t gfn)
{
    uint64_t word = rng_next(&m->rng);
    do
        ck_assert_int_eq(mm_rig_touch(m->rig, 0, gfn), 0);
    while (fake_host_guest_write(m->rig->fh, mm_vm_id(m->rig->vm), gfn, 0, &word, sizeof(word)));
    m->word[gfn] = word;
}

static void read_page(struct model *m, gfn_t gfn)
{
    uint64_t word;
    do
        ck_assert_int_eq(mm_rig_touch(m->rig, 0, gfn), 0);
    while (fake_host_guest_read(m->rig->fh, mm_vm_id(m->rig->vm), gfn, 0, &word, sizeof(word)));
    ck_assert_msg(word == m->word[gfn], "page %u", gfn);
}

/* A part of a block, or all of it. */
static gfn_t some_pages(struct model *m, unsigned most, unsigned *nr)
{
    gfn_t block = below(m, NR_BLOCKS) * BLOCK_PAGES;
    unsigned first = below(m, BLOCK_PAGES), want = 1 + below(m, most);
    *nr = MIN_OF(want, BLOCK_PAGES - first);
    if (below(m, 4))
        return block + first;
    *nr = BLOCK_PAGES;
    return block;
}

static bool is_pinned(const struct model *m, gfn_t gfn)
{
    return vm_block(m->rig->vm, gfn)->nr_pins > 0;
}

static void access_step(struct model *m)
{
    unsigned nr;
    gfn_t gfn = some_pages(m, 64, &nr);
    bool write = below(m, 2);
    for (gfn_t g = gfn; g < gfn + nr; g++)
        write ? write_page(m, g) : read_page(m, g);
}

static void drop_step(struct model *m)
{
    static const uint32_t fills[] = {0, 0, 0x77777777u};
    uint32_t fill = fills[below(m, ARRAY_LEN(fills))];
    uint64_t dropped;
    unsigned nr;
    gfn_t gfn = some_pages(m, 80, &nr);
    bool balloon = below(m, 2);
    if (nr == BLOCK_PAGES && below(m, 2))
        return; /* rarely a whole one */
    if (!is_pinned(m, gfn)) {
        ck_assert(!mm_drop(m->rig->thread[0], m->rig->vm, gpa_of(gfn), nr * PAGE_BYTES,
                           balloon ? MM_DROP_BALLOON : MM_DROP_FREE, fill, &dropped));
        for (gfn_t g = gfn; g < gfn + nr; g++)
            m->word[g] = (uint64_t)fill << 32 | fill;
    }
    if (below(m, 2))
        ck_assert(!mm_balloon_return(m->rig->vm, gpa_of(gfn), nr * PAGE_BYTES));
}

static void pin_step(struct model *m)
{
    unsigned nr;
    if (m->nr_pins == MAX_PINS || (m->nr_pins && below(m, 2))) {
        mm_unpin(m->rig->vm, gpa_of(m->pin[--m->nr_pins]), PAGE_BYTES);
        return;
    }
    gfn_t gfn = some_pages(m, 1, &nr);
    ck_assert(!mm_pin(m->rig->thread[0], m->rig->vm, gpa_of(gfn), PAGE_BYTES));
    m->pin[m->nr_pins++] = gfn;
}

static void reclaim_step(struct model *m)
{
    struct mm_thread *thread = m->rig->thread[below(m, 2)];
    if (below(m, 3))
        mm_reclaim(thread, below(m, 2) ? m->rig->vm : NULL, 1 + below(m, 600), below(m, 2));
    else if (below(m, 2))
        mm_kswapd(thread, below(m, mm_nr_nodes(m->rig->host)));
    else
        mm_housekeep(thread);
}

/* One call of the host somewhere in the next round fails. */
static void fail_somewhere(struct model *m)
{
    static const int errors[] = {ENOMEM, EBUSY, EEXIST};
    fake_host_fail(m->rig->fh, &(struct fake_failure){.op = below(m, 2) ? FAKE_TAKE : FAKE_PLACE,
                                                      .nth = 1 + below(m, 2),
                                                      .err = errors[below(m, ARRAY_LEN(errors))],
                                                      .after_pages = below(m, BLOCK_PAGES)});
}

/* A few rounds of the scanner; pages are watched by the other scanner meanwhile. */
static void scan_step(struct model *m)
{
    fake_host_advance_ns(m->rig->fh, below(m, 2) * SECOND_NS);
    access_scan(m->rig->thread[0]);
    mm_rig_check(m->rig);
    for (unsigned i = 0; i < 3; i++) {
        m->rig->host->collapse.due_ns = 0;
        if (below(m, 4) == 0)
            fail_somewhere(m);
        ck_assert_uint_gt(collapse_scan(m->rig->thread[below(m, 2)]), 0);
        fake_host_fail(m->rig->fh, &(struct fake_failure){.op = FAKE_TAKE, .nth = -1});
        mm_rig_check(m->rig);
    }
}

static void swap_step(struct model *m)
{
    if (below(m, 4))
        return;
    if (!m->has_swap)
        mm_rig_swapon(m->rig, "disk", NR_PAGES);
    m->has_swap = !m->has_swap || mm_swapoff(m->rig->thread[0], "disk");
}

static void step(struct model *m)
{
    static void (*const steps[])(struct model *) = {access_step, access_step,  access_step, access_step, drop_step,
                                                    pin_step,    reclaim_step, scan_step,   scan_step,   swap_step};
    steps[below(m, ARRAY_LEN(steps))](m);
    mm_rig_check(m->rig);
}

START_TEST(test_page_size_model)
{
    struct mm_config config = {.budget_bytes = 12 * MIB,
                               .zram = {.limit_bytes = 6 * MIB},
                               .thp = true,
                               .collapse_pct = 100,
                               .nr_nodes = _i % 2 ? 2 : 0};
    for (unsigned n = 0; n < config.nr_nodes; n++)
        config.nodes[n] =
            (struct mm_node_config){.id = (int)n, .budget_bytes = (n ? 4 : 8) * MIB, .distance = {10, 20}};
    struct model *m = calloc(1, sizeof(*m));
    m->rig = mm_rig_create(&config, NR_BLOCKS * BLOCK_BYTES, 2);
    access_configure(m->rig->host, ACCESS_QUOTA_MAX_MPCT, NULL);
    m->rng.state = (uint64_t)_i * 7919 + 1;
    for (unsigned i = 0; i < NR_STEPS; i++)
        step(m);
    while (m->nr_pins > 0)
        mm_unpin(m->rig->vm, gpa_of(m->pin[--m->nr_pins]), PAGE_BYTES);
    for (gfn_t gfn = 0; gfn < NR_PAGES; gfn++)
        read_page(m, gfn);
    ck_assert_uint_ge(event_of(m->rig, EV_khugepaged_pages_collapsed), 3);
    /* of two small nodes it is rare that there is room to begin and then not to end */
    if (!config.nr_nodes)
        ck_assert_uint_gt(event_of(m->rig, EV_thp_collapse_failed), 0);
    mm_rig_destroy(m->rig);
    free(m);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("page_size_model");
    TCase *tests = tcase_create("page_size_model");
    tcase_set_timeout(tests, 300);
    tcase_add_loop_test(tests, test_page_size_model, 0, 8);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
