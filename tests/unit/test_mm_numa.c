/* SPDX-License-Identifier: Apache-2.0 */
/* Pages that follow their user, and tiers: demotion before the stores, promotion of what is touched twice. */
#include "mm/policy/access.h"
#include "mm/policy/numa.h"
#include "mm/reclaim/evict.h"
#include "tests/unit/mm_rig.h"

#include <errno.h>

#define NODE_BYTES (16 * MIB)
#define NODE_PAGES ((uint32_t)(NODE_BYTES / PAGE_BYTES))
#define VM_BYTES (64 * MIB)
#define MS UINT64_C(1000000)
#define SET_PAGES (2 * BLOCK_PAGES)

static struct mm_config config_of(unsigned nr_nodes, bool thp)
{
    struct mm_config config = {.budget_bytes = nr_nodes * NODE_BYTES, .thp = thp, .nr_nodes = nr_nodes};
    for (unsigned n = 0; n < nr_nodes; n++) {
        config.nodes[n] = (struct mm_node_config){.id = (int)n, .budget_bytes = NODE_BYTES};
        for (unsigned k = 0; k < nr_nodes; k++)
            config.nodes[n].distance[k] = n == k ? 10 : 20;
    }
    return config;
}

static struct mm_config balancing(bool thp)
{
    struct mm_config config = config_of(3, thp);
    config.numa_balancing = true;
    return config;
}

/* Node 0 is fast, node 1 slow. */
static struct mm_config tiers(bool thp)
{
    struct mm_config config = config_of(2, thp);
    config.nodes[1].rank = 1;
    return config;
}

/* Without samples of mm/policy/access.c, which arm pages for a purpose of their own. */
static struct mm_rig *rig_create(const struct mm_config *config)
{
    struct mm_rig *rig = mm_rig_create(config, VM_BYTES, 1);
    access_configure(rig->host, 0, NULL);
    return rig;
}

static uint64_t event(struct mm_rig *rig, enum vm_event which)
{
    return __atomic_load_n(&rig->host->event[which], __ATOMIC_RELAXED);
}

static uint64_t now_ns(struct mm_rig *rig)
{
    return rig->host->ops->clock_ns(rig->fh);
}

/* What a vCPU that runs on @node does: pages that are mapped are not seen. */
static void touch(struct mm_rig *rig, gfn_t start, gfn_t end, unsigned node)
{
    for (gfn_t gfn = start; gfn < end; gfn++)
        while (!mm_rig_is_present(rig, gfn))
            ck_assert_int_eq(mm_fault(rig->thread[0], rig->vm, gpa_of(gfn), MM_FAULT_WRITE | MM_FAULT_FROM(node, node)),
                             0);
}

static void fill_from(struct mm_rig *rig, gfn_t start, gfn_t end, unsigned node)
{
    for (gfn_t gfn = start; gfn < end; gfn++) {
        touch(rig, gfn, gfn + 1, node);
        ck_assert_int_eq(mm_rig_write(rig, 0, gfn, TEXT), 0);
    }
}

/* The scan goes over everything once, and arms what it may. At most two pauses of it, 100 ms a round. */
static void scan_pass(struct mm_rig *rig)
{
    uint64_t start = event(rig, EV_numa_pte_updates), before;
    unsigned rounds = 0;
    do {
        before = event(rig, EV_numa_pte_updates);
        fake_host_advance_ns(rig->fh, 100 * MS);
        ck_assert_uint_gt(mm_scan(rig->thread[0]), 0);
    } while ((event(rig, EV_numa_pte_updates) == start || event(rig, EV_numa_pte_updates) != before) && ++rounds < 400);
    mm_rig_check(rig);
}

static uint64_t pages_on(struct mm_rig *rig, unsigned node)
{
    uint64_t pages[MM_MAX_NODES];
    fake_host_count_nodes(rig->fh, mm_vm_id(rig->vm), pages);
    return pages[node];
}

static void verify(struct mm_rig *rig, gfn_t start, gfn_t end)
{
    for (gfn_t gfn = start; gfn < end; gfn++)
        mm_rig_verify(rig, 0, gfn);
}

/* ---- balancing ---- */

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
    numa_pay(rig->host, 2000 * MS); /* what 100 s earn */
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

/* ---- tiers ---- */

/* Its kswapd keeps room on the fast node, as it does where it has a thread of its own. */
static void fill_fast(struct mm_rig *rig, gfn_t start, gfn_t end)
{
    const struct pool *pool = &rig->host->node[0].pool;
    for (gfn_t gfn = start; gfn < end; gfn++) {
        if (pool_nr_free(pool) < pool->wmark[WMARK_LOW] + MM_BUFFER_PAGES)
            mm_kswapd(rig->thread[0], 0);
        fill_from(rig, gfn, gfn + 1, 0);
    }
}

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

/* Pages [0, SET_PAGES) on the slow node, resident, with room on the fast one. */
static struct mm_rig *rig_with_slow_set(const struct mm_config *config)
{
    struct mm_rig *rig = rig_create(config);
    const struct mm_policy slow = {.mode = MM_POLICY_PREFERRED, .nodes = 2};
    ck_assert_int_eq(mm_vm_place(rig->vm, (gpa_t){0}, VM_BYTES, &slow), 0);
    fill_from(rig, 0, SET_PAGES, 0);
    ck_assert_uint_eq(pages_on(rig, 1), SET_PAGES);
    return rig;
}

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

/* Reclaim of the node goes by the policy: what may be there only is stored, not moved to a slower node. */
/* The fault began before the scan had armed all of the block: the hottest page there is. */
START_TEST(test_mm_tiers_pages_touched_while_their_block_is_armed_are_hot)
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
    ck_assert_uint_ge(mm_reclaim(rig->thread[0], rig->vm, BLOCK_PAGES, true), BLOCK_PAGES);
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

int main(void)
{
    Suite *suite = suite_create("mm_numa");
    TCase *cases = tcase_create("balancing");
    tcase_add_loop_test(cases, test_mm_numa_working_set_on_the_wrong_node_follows_its_user, 0, 2);
    tcase_add_test(cases, test_mm_numa_two_megabytes_move_as_one);
    tcase_add_loop_test(cases, test_mm_numa_one_touch_from_afar_moves_nothing, 0, 2);
    tcase_add_loop_test(cases, test_mm_numa_pages_that_bounce_are_left_alone_longer_and_longer, 0, 2);
    tcase_add_loop_test(cases, test_mm_numa_strict_and_interleaved_pages_stay_where_they_belong, 0, 3);
    tcase_add_loop_test(cases, test_mm_numa_a_full_node_takes_nothing_and_nothing_is_lost, 0, 2);
    tcase_add_test(cases, test_mm_numa_a_refused_migration_leaves_the_page_where_it_was);
    tcase_add_test(cases, test_mm_numa_scan_keeps_to_its_share_of_a_cpu);
    tcase_add_loop_test(cases, test_mm_numa_pages_of_a_node_that_is_short_do_not_leave_when_their_user_touches_them, 0,
                        4);
    tcase_add_test(cases, test_mm_numa_arming_of_a_full_host_without_a_store_stops_no_vm);
    tcase_add_loop_test(cases, test_mm_numa_a_broken_return_of_two_megabytes_loses_nothing, 0, 4);
    tcase_add_loop_test(cases, test_mm_numa_pages_bound_to_one_node_are_not_armed, 0, 2);
    tcase_add_loop_test(cases, test_mm_numa_a_round_of_the_scan_is_bounded, 0, 2);
    tcase_add_loop_test(cases, test_mm_numa_balancing_does_not_move_pages_to_a_slower_node, 0, 2);
    tcase_add_test(cases, test_mm_numa_pages_of_all_vms_and_regions_follow_their_users);
    tcase_add_loop_test(cases, test_mm_numa_pinned_blocks_are_not_armed, 0, 2);
    tcase_add_test(cases, test_mm_numa_touches_are_counted_by_vcpu);
    tcase_add_loop_test(cases, test_mm_numa_scan_has_nothing_to_do_without_nodes_or_wishes, 0, 2);
    tcase_add_loop_test(cases, test_mm_numa_arming_does_not_age, 0, 2);
    suite_add_tcase(suite, cases);
    TCase *tier = tcase_create("tiers");
    tcase_add_loop_test(tier, test_mm_tiers_cold_pages_go_to_the_slower_node_before_any_store, 0, 2);
    tcase_add_loop_test(tier, test_mm_tiers_the_slower_node_demotes_to_the_stores, 0, 2);
    tcase_add_loop_test(tier, test_mm_tiers_a_page_touched_twice_soon_is_promoted, 0, 2);
    tcase_add_test(tier, test_mm_tiers_hot_pages_of_a_huge_frame_are_promoted_where_it_does_not_fit);
    tcase_add_loop_test(tier, test_mm_tiers_pages_touched_now_and_then_stay, 0, 2);
    tcase_add_test(tier, test_mm_tiers_promotion_keeps_to_its_rate);
    tcase_add_loop_test(tier, test_mm_tiers_demotion_keeps_to_its_rate_and_the_rest_is_stored, 0, 2);
    tcase_add_loop_test(tier, test_mm_tiers_pages_touched_while_their_block_is_armed_are_hot, 0, 2);
    tcase_add_test(tier, test_mm_tiers_demotion_goes_on_after_the_rate_was_used_up);
    tcase_add_test(tier, test_mm_tiers_pages_that_zram_refused_are_demoted_later);
    tcase_add_loop_test(tier, test_mm_tiers_of_three_pages_go_one_up_and_one_down, 0, 2);
    tcase_add_loop_test(tier, test_mm_tiers_a_bound_page_of_a_slow_node_is_not_promoted, 0, 2);
    tcase_add_loop_test(tier, test_mm_tiers_pages_of_fast_nodes_are_not_armed, 0, 2);
    tcase_add_loop_test(tier, test_mm_tiers_strictly_bound_pages_are_never_demoted, 0, 2);
    tcase_add_test(tier, test_mm_tiers_bound_pages_do_not_keep_the_others_from_demotion);
    tcase_add_loop_test(tier, test_mm_tiers_without_room_there_is_no_promotion_and_nothing_is_lost, 0, 2);
    suite_add_tcase(suite, tier);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
