/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Everything at once: up to 8 nodes in tiers by lot, two VMs with policies of their own, balancing, samples, rebuilt
 * blocks, pins, plugging, swap areas that come and go, a kernel that refuses. After any of it each structure is right,
 * each page holds what its guest wrote, and none is where its policy does not allow it.
 */
#include "mm/policy/access.h"
#include "tests/unit/mm_rig.h"
#include "tests/unit/model_rng.h"

#include <errno.h>

#define VM_BYTES (32 * MIB)
#define NR_VMS 2u
#define NR_STEPS 2500u

struct mix {
    struct mm_rig *rig;       /* of the first VM */
    struct mm_rig of[NR_VMS]; /* the same host, each with its VM */
    unsigned nr_nodes;
    struct rng rng;
    gfn_t pinned[NR_VMS];
    uint32_t nr_pinned[NR_VMS]; /* 0: none */
    unsigned turn;              /* who uses what */
    bool swap;
};

static struct mm_config config_by_lot(struct rng *rng)
{
    struct mm_config config = {.thp = rng_below(rng, 4) > 0, .numa_balancing = rng_below(rng, 2)};
    config.nr_nodes = 1 + rng_below(rng, MM_MAX_NODES);
    config.zram.limit_bytes = rng_below(rng, 3) ? 4 * MIB : 0;
    config.collapse_pct = rng_below(rng, 4) ? 100 : 0;
    config.demote_bytes_per_s = rng_below(rng, 2) ? PAGE_BYTES << rng_below(rng, 16) : 0;
    config.promote_bytes_per_s = rng_below(rng, 2) ? PAGE_BYTES << rng_below(rng, 16) : 0;
    unsigned nr_tiers = 1 + rng_below(rng, 4);
    uint64_t roomy = rng_below(rng, 2) * (NR_VMS * VM_BYTES / config.nr_nodes / BLOCK_BYTES) * BLOCK_BYTES;
    for (unsigned n = 0; n < config.nr_nodes; n++) {
        struct mm_node_config *node = &config.nodes[n];
        *node = (struct mm_node_config){.id = (int)n, .rank = (uint8_t)rng_below(rng, nr_tiers)};
        node->budget_bytes = (2 + rng_below(rng, 7)) * MIB + (config.nr_nodes < 4 ? MAX_OF(roomy, 6 * MIB) : roomy);
        for (unsigned k = 0; k < config.nr_nodes; k++)
            node->distance[k] = (uint8_t)(n == k ? 10 : 11 + rng_below(rng, 60));
        config.budget_bytes += node->budget_bytes;
    }
    return config;
}

static void place_by_lot(struct mix *m, struct mm_vm *vm)
{
    for (unsigned i = 0; i < 4; i++) {
        struct mm_policy policy = {.mode = (enum mm_policy_mode)rng_below(&m->rng, 5)};
        policy.nodes = (uint8_t)(1 + rng_below(&m->rng, (1u << m->nr_nodes) - 1));
        ck_assert_int_eq(mm_vm_place(vm, gpa_of(i * 4 * BLOCK_PAGES), 4 * BLOCK_BYTES, &policy), 0);
    }
}

static void mix_init(struct mix *m, uint64_t seed)
{
    const struct mm_region region = {.bytes = VM_BYTES};
    *m = (struct mix){.rng = {seed * UINT64_C(0x9e3779b97f4a7c15)}}; /* small seeds begin alike */
    struct mm_config config = config_by_lot(&m->rng);
    m->nr_nodes = config.nr_nodes;
    m->rig = mm_rig_create(&config, VM_BYTES, 2);
    m->of[0] = m->of[1] = *m->rig;
    m->of[1].content = calloc(m->rig->nr_pages, 1);
    ck_assert_int_eq(mm_vm_create(m->rig->host, &region, 1, &m->of[1].vm), 0);
    fake_host_add_vm(m->rig->fh, mm_vm_id(m->of[1].vm), m->rig->nr_pages);
    for (unsigned i = 0; i < NR_VMS; i++)
        place_by_lot(m, m->of[i].vm);
    access_configure(m->rig->host, rng_below(&m->rng, 2) * 10000u, NULL);
}

/* Whether the page is in the guest. Out of memory is an answer, too. */
static bool touch(struct mix *m, unsigned vm, gfn_t gfn)
{
    struct mm_rig *rig = &m->of[vm];
    /* most blocks have one user for a while, whom nobody knows where the number is beyond the nodes */
    unsigned from = (gfn / BLOCK_PAGES + m->turn) % (m->nr_nodes + 1);
    for (unsigned tries = 0; !mm_rig_is_present(rig, gfn); tries++) {
        int err = mm_fault(rig->thread[0], rig->vm, gpa_of(gfn),
                           MM_FAULT_WRITE | (from < m->nr_nodes ? MM_FAULT_FROM(from, from) : 0));
        if (err == -ENOMEM)
            return false;
        rig_assert((!err || err == -EAGAIN) && tries < 1000, "page %u: %d", gfn, err);
    }
    return true;
}

static void write_some(struct mix *m, unsigned vm, gfn_t gfn)
{
    struct mm_rig *rig = &m->of[vm];
    enum content content = (enum content)(TEXT + rng_below(&m->rng, 3));
    for (gfn_t end = MIN_OF(gfn + 60, rig->nr_pages); gfn < end; gfn++)
        if (touch(m, vm, gfn))
            rig_assert(!mm_rig_write(rig, 0, gfn, content), "page %u", gfn);
}

static void check_page(struct mix *m, unsigned vm, gfn_t gfn)
{
    if (touch(m, vm, gfn))
        mm_rig_verify(&m->of[vm], 0, gfn);
}

static void drop_some(struct mix *m, unsigned vm, gfn_t gfn)
{
    struct mm_rig *rig = &m->of[vm];
    uint32_t nr = 1 + rng_below(&m->rng, MIN_OF(2 * BLOCK_PAGES, rig->nr_pages - gfn));
    uint64_t dropped;
    if (m->nr_pinned[vm])
        return;
    ck_assert_int_eq(mm_drop(rig->thread[0], rig->vm, gpa_of(gfn), nr * PAGE_BYTES,
                             rng_below(&m->rng, 2) ? MM_DROP_FREE : MM_DROP_BALLOON, 0, &dropped),
                     0);
    memset(rig->content + gfn, NOTHING, nr);
}

/* A block goes, and comes back empty. */
static void replug(struct mix *m, unsigned vm, gfn_t gfn)
{
    struct mm_rig *rig = &m->of[vm];
    gfn_t start = gfn & ~(BLOCK_PAGES - 1);
    int err = mm_plug(rig->thread[0], rig->vm, gpa_of(start), BLOCK_BYTES, false);
    if (err == -EBUSY)
        return;
    ck_assert_int_eq(err, 0);
    memset(rig->content + start, NOTHING, BLOCK_PAGES);
    ck_assert_int_eq(mm_plug(rig->thread[0], rig->vm, gpa_of(start), BLOCK_BYTES, true), 0);
}

static void pin_or_unpin(struct mix *m, unsigned vm, gfn_t gfn)
{
    struct mm_rig *rig = &m->of[vm];
    if (m->nr_pinned[vm]) {
        for (gfn_t g = m->pinned[vm]; g < m->pinned[vm] + m->nr_pinned[vm]; g++)
            rig_assert(mm_rig_is_present(rig, g), "pinned page %u has gone", g);
        mm_unpin(rig->vm, gpa_of(m->pinned[vm]), m->nr_pinned[vm] * PAGE_BYTES);
        m->nr_pinned[vm] = 0;
        return;
    }
    uint32_t nr = 1 + rng_below(&m->rng, MIN_OF(200u, rig->nr_pages - gfn));
    int err = mm_pin(rig->thread[0], rig->vm, gpa_of(gfn), nr * PAGE_BYTES);
    ck_assert(err == 0 || err == -ENOMEM || err == -EAGAIN);
    if (err)
        return;
    m->pinned[vm] = gfn;
    m->nr_pinned[vm] = nr;
}

static void swap_on_or_off(struct mix *m)
{
    if (!m->swap)
        mm_rig_swapon(m->rig, "disk", 4096u << rng_below(&m->rng, 4));
    int err = m->swap ? mm_swapoff(m->rig->thread[1], "disk") : 0;
    ck_assert(err == 0 || err == -ENOMEM);
    m->swap = !m->swap || err;
}

static void compact(struct mix *m)
{
    uint64_t runs;
    ck_assert_int_eq(mm_compact(m->rig->thread[1], rng_below(&m->rng, m->nr_nodes), &runs), 0);
}

static void pass_time(struct mix *m)
{
    fake_host_advance_ns(m->rig->fh, UINT64_C(1000000) << rng_below(&m->rng, 11));
    mm_scan(m->rig->thread[1]);
    m->turn += rng_below(&m->rng, 64) == 0;
    if (rng_below(&m->rng, 4) == 0)
        fake_host_fail(m->rig->fh, &(struct fake_failure){
                                       .op = rng_below(&m->rng, 2) ? FAKE_PLACE_COPY : FAKE_TAKE,
                                       .nth = 1 + (long)rng_below(&m->rng, 20),
                                       .err = EAGAIN,
                                       .again = 2,
                                   });
}

/* A block in use for a while, all of it. */
static void use_block(struct mix *m, unsigned vm, gfn_t gfn)
{
    gfn_t start = gfn & ~(BLOCK_PAGES - 1);
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < BLOCK_PAGES; i++)
            check_page(m, vm, start + i);
        pass_time(m);
    }
}

static void check_all(struct mix *m)
{
    mm_rig_check(m->rig);
    for (unsigned vm = 0; vm < NR_VMS; vm++)
        for (gfn_t gfn = 0; gfn < m->rig->nr_pages; gfn++) {
            struct mm_page_info info;
            rig_assert(!mm_page_info(m->of[vm].vm, gpa_of(gfn), &info), "page %u", gfn);
            rig_assert(info.node < 0 || mm_vm_allowed_nodes(m->of[vm].vm, gpa_of(gfn)) >> info.node & 1,
                       "page %u, %s, is on node %d, which its policy does not allow", gfn, info.state, info.node);
        }
}

static void step(struct mix *m)
{
    unsigned vm = rng_below(&m->rng, NR_VMS);
    gfn_t gfn = rng_below(&m->rng, m->rig->nr_pages);
    switch (rng_below(&m->rng, 24)) {
    case 0:
        mm_reclaim(m->rig->thread[1], rng_below(&m->rng, 2) ? m->of[vm].vm : NULL, rng_below(&m->rng, 900),
                   rng_below(&m->rng, 2));
        break;
    case 1:
    case 2:
        mm_kswapd(m->rig->thread[1], rng_below(&m->rng, m->nr_nodes));
        break;
    case 3:
        mm_housekeep(m->rig->thread[1]);
        break;
    case 4:
        drop_some(m, vm, gfn);
        break;
    case 5:
        replug(m, vm, gfn);
        break;
    case 6:
    case 7:
        pin_or_unpin(m, vm, gfn);
        break;
    case 8:
        if (rng_below(&m->rng, 4) == 0)
            swap_on_or_off(m);
        break;
    case 9:
        compact(m);
        break;
    case 10:
    case 11:
    case 12:
        pass_time(m);
        break;
    case 13:
        for (gfn_t end = MIN_OF(gfn + 600, m->rig->nr_pages); gfn < end; gfn++)
            check_page(m, vm, gfn);
        break;
    case 14:
        use_block(m, vm, gfn);
        break;
    default:
        write_some(m, vm, gfn);
    }
}

static void mix_fini(struct mix *m)
{
    for (unsigned vm = 0; vm < NR_VMS; vm++) {
        if (m->nr_pinned[vm])
            pin_or_unpin(m, vm, 0);
        for (gfn_t gfn = 0; gfn < m->rig->nr_pages; gfn++)
            check_page(m, vm, gfn);
    }
    check_all(m);
    mm_vm_destroy(m->rig->thread[0], m->of[1].vm);
    free(m->of[1].content);
    mm_rig_destroy(m->rig);
}

START_TEST(test_mm_nodes_mix_every_page_is_right_and_where_it_may_be)
{
    struct mix m;
    mix_init(&m, (uint64_t)_i + 1);
    for (unsigned number = 0; number < NR_STEPS; number++) {
        step(&m);
        if (number % 16 == 0)
            check_all(&m);
    }
    mix_fini(&m);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("mm_nodes_mix");
    TCase *cases = tcase_create("model");
    tcase_set_timeout(cases, 240);
    tcase_add_loop_test(cases, test_mm_nodes_mix_every_page_is_right_and_where_it_may_be, 0, 8);
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
