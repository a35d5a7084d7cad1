/* SPDX-License-Identifier: Apache-2.0 */
/* Placement on up to 8 nodes: each policy, what happens when a node is full, and a model under everything at once. */
#include "mm/reclaim/lru.h"
#include "tests/unit/mm_rig.h"
#include "tests/unit/model_rng.h"

#include <errno.h>

#define NODE_BYTES (16 * MIB)
#define NODE_PAGES ((uint32_t)(NODE_BYTES / PAGE_BYTES))
#define VM_BYTES (64 * MIB)

/* Nodes on a line, 10 apart: 0 - 1 - 2 - ... */
static struct mm_config line_config(unsigned nr_nodes, bool thp)
{
    struct mm_config config = {.budget_bytes = nr_nodes * NODE_BYTES, .thp = thp, .nr_nodes = nr_nodes};
    for (unsigned n = 0; n < nr_nodes; n++) {
        config.nodes[n] = (struct mm_node_config){.id = (int)n, .budget_bytes = NODE_BYTES};
        for (unsigned k = 0; k < nr_nodes; k++)
            config.nodes[n].distance[k] = (uint8_t)(10 + 10 * (n > k ? n - k : k - n));
    }
    return config;
}

static struct mm_rig *rig_with(const struct mm_config *config, enum mm_policy_mode mode, uint8_t nodes)
{
    struct mm_rig *rig = mm_rig_create(config, VM_BYTES, 1);
    const struct mm_policy policy = {.mode = mode, .nodes = nodes};
    ck_assert_int_eq(mm_vm_place(rig->vm, (gpa_t){0}, VM_BYTES, &policy), 0);
    return rig;
}

static int touch_from(struct mm_rig *rig, gfn_t gfn, unsigned node)
{
    return mm_fault(rig->thread[0], rig->vm, gpa_of(gfn), MM_FAULT_WRITE | MM_FAULT_FROM(node, 0u));
}

static void touch_all_from(struct mm_rig *rig, gfn_t start, gfn_t end, unsigned node)
{
    for (gfn_t gfn = start; gfn < end; gfn++)
        if (!mm_rig_is_present(rig, gfn))
            ck_assert_int_eq(touch_from(rig, gfn, node), 0);
}

/* What the fake host says, and what mm/ believes. */
static void count(struct mm_rig *rig, uint64_t pages[MM_MAX_NODES])
{
    uint64_t believed[MM_MAX_NODES];
    fake_host_count_nodes(rig->fh, mm_vm_id(rig->vm), pages);
    mm_vm_nodes(rig->vm, believed);
    ck_assert_mem_eq(pages, believed, sizeof(believed));
}

/* Pages that a node gives before it is at its low watermark. */
static uint64_t room(struct mm_rig *rig, unsigned node)
{
    const struct pool *pool = &rig->host->node[node].pool;
    return pool->budget_pages - pool->wmark[WMARK_LOW];
}

START_TEST(test_mm_nodes_bind_puts_all_pages_on_its_nodes)
{
    const struct mm_config config = line_config(8, _i);
    struct mm_rig *rig = rig_with(&config, MM_POLICY_BIND, 1u << 5);
    uint64_t pages[MM_MAX_NODES];
    touch_all_from(rig, 0, NODE_PAGES / 2, 2);
    count(rig, pages);
    for (unsigned n = 0; n < 8; n++)
        ck_assert_uint_eq(pages[n], n == 5 ? NODE_PAGES / 2 : 0);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_nodes_bind_reclaims_from_itself_and_never_spills)
{
    struct mm_config config = line_config(3, _i);
    config.zram.limit_bytes = 32 * MIB;
    struct mm_rig *rig = rig_with(&config, MM_POLICY_BIND, 1u << 1);
    mm_rig_swapon(rig, "disk", 32768);
    uint64_t pages[MM_MAX_NODES];
    mm_rig_fill(rig, 0, 2 * NODE_PAGES, TEXT);
    count(rig, pages);
    ck_assert_uint_eq(pages[0] + pages[2], 0);
    ck_assert_uint_gt(pages[1], NODE_PAGES / 2);
    for (gfn_t gfn = 0; gfn < 2 * NODE_PAGES; gfn++)
        mm_rig_verify(rig, 0, gfn);
    count(rig, pages);
    ck_assert_uint_eq(pages[0] + pages[2], 0);
    mm_rig_destroy(rig);
}
END_TEST

/* Of an idle guest all may be standby, which is on its node as before. */
/* A preference is not a limit. */
START_TEST(test_mm_nodes_allowed_are_those_that_the_last_policy_binds_to)
{
    const struct mm_config config = line_config(4, false);
    struct mm_rig *rig = rig_with(&config, MM_POLICY_PREFERRED, 1u << 1);
    const struct mm_policy bind = {.mode = MM_POLICY_BIND, .nodes = 0x6};
    ck_assert_uint_eq(mm_vm_allowed_nodes(rig->vm, (gpa_t){0}), 0xf);
    ck_assert_int_eq(mm_vm_place(rig->vm, (gpa_t){BLOCK_BYTES}, BLOCK_BYTES, &bind), 0);
    ck_assert_uint_eq(mm_vm_allowed_nodes(rig->vm, (gpa_t){BLOCK_BYTES}), 0x6);
    ck_assert_uint_eq(mm_vm_allowed_nodes(rig->vm, (gpa_t){2 * BLOCK_BYTES}), 0xf);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_nodes_standby_pages_of_a_vm_are_counted_where_they_are)
{
    const struct mm_config config = line_config(4, _i);
    struct mm_rig *rig = rig_with(&config, _i ? MM_POLICY_INTERLEAVE : MM_POLICY_INTERLEAVE_PAGES, 0x6);
    uint64_t inside[MM_MAX_NODES], standby[MM_MAX_NODES];
    touch_all_from(rig, 0, 4 * BLOCK_PAGES, 0);
    mm_vm_standby_nodes(rig->vm, standby);
    ck_assert_uint_eq(standby[1] + standby[2], 0);
    for (unsigned b = 0; b < 4; b++) {
        struct block *block = vm_block(rig->vm, b * BLOCK_PAGES);
        lock_acquire(&block->lock);
        if (_i)
            ck_assert_uint_eq(lru_arm_block(rig->thread[0], block, (nodemask_t)-1), BLOCK_PAGES);
        else
            ck_assert_int_eq(lru_take_block(rig->thread[0], block), 0);
        lock_release(&block->lock);
    }
    ck_assert_int_eq(touch_from(rig, 0, 0), 0);
    mm_vm_nodes(rig->vm, inside);
    mm_vm_standby_nodes(rig->vm, standby);
    ck_assert_uint_gt(inside[1] + inside[2], 0);
    for (unsigned n = 0; n < MM_MAX_NODES; n++)
        ck_assert_uint_eq(inside[n] + standby[n], n == 1 || n == 2 ? 2 * BLOCK_PAGES : 0);
    mm_rig_destroy(rig);
}
END_TEST

static int said_node(struct mm_rig *rig, gfn_t gfn, const char *state)
{
    struct mm_page_info info;
    ck_assert_int_eq(mm_page_info(rig->vm, gpa_of(gfn), &info), 0);
    ck_assert_str_eq(info.state, state);
    return info.node;
}

/* `ebb show page` said where a page is, but not on which node. */
START_TEST(test_mm_nodes_page_info_says_the_node)
{
    struct mm_config config = line_config(4, _i);
    config.zram.limit_bytes = 8 * MIB;
    struct mm_rig *rig = rig_with(&config, _i ? MM_POLICY_INTERLEAVE : MM_POLICY_INTERLEAVE_PAGES, 0x6);
    touch_all_from(rig, 0, 4 * BLOCK_PAGES, 0);
    for (gfn_t gfn = 0; gfn < 4 * BLOCK_PAGES; gfn += 101)
        ck_assert_int_eq(said_node(rig, gfn, "resident"), (int)fake_host_page_node(rig->fh, mm_vm_id(rig->vm), gfn));
    ck_assert_int_eq(said_node(rig, 4 * BLOCK_PAGES, "absent"), MM_NODE_ANY);
    int on = said_node(rig, 7, "resident");
    ck_assert_uint_eq(mm_reclaim(rig->thread[0], rig->vm, 4 * BLOCK_PAGES, false), 4 * BLOCK_PAGES);
    ck_assert_int_eq(said_node(rig, 7, "standby"), on);
    ck_assert_uint_gt(mm_reclaim(rig->thread[0], NULL, 4 * BLOCK_PAGES, true), 0);
    ck_assert_int_eq(said_node(rig, 7, "zram"), MM_NODE_ANY);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_nodes_bind_without_a_store_is_out_of_memory_while_others_are_free)
{
    const struct mm_config config = line_config(3, false);
    struct mm_rig *rig = rig_with(&config, MM_POLICY_BIND, 1u << 1);
    gfn_t gfn = 0;
    while (!touch_from(rig, gfn, 1))
        gfn++;
    ck_assert_int_eq(touch_from(rig, gfn, 1), -ENOMEM);
    ck_assert_uint_gt(gfn, NODE_PAGES * 8 / 10);
    ck_assert_uint_eq(pool_nr_free(&rig->host->node[0].pool), NODE_PAGES);
    ck_assert_uint_eq(pool_nr_free(&rig->host->node[2].pool), NODE_PAGES);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_nodes_preferred_goes_on_at_the_nearest)
{
    const struct mm_config config = line_config(4, false);
    struct mm_rig *rig = rig_with(&config, MM_POLICY_PREFERRED, 1u << 3);
    uint64_t pages[MM_MAX_NODES];
    touch_all_from(rig, 0, NODE_PAGES / 2, 0);
    count(rig, pages);
    ck_assert_uint_eq(pages[3], NODE_PAGES / 2);
    touch_all_from(rig, 0, 3 * NODE_PAGES / 2, 0);
    count(rig, pages);
    ck_assert_uint_eq(pages[0] + pages[1], 0);
    ck_assert_uint_ge(pages[3] + 64, room(rig, 3));
    ck_assert_uint_gt(pages[2], 0);
    touch_all_from(rig, 0, 5 * NODE_PAGES / 2, 0);
    count(rig, pages);
    ck_assert_uint_eq(pages[0], 0);
    ck_assert_uint_gt(pages[1], 0);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_nodes_interleave_by_block_is_even)
{
    const struct mm_config config = line_config(8, _i);
    struct mm_rig *rig = rig_with(&config, MM_POLICY_INTERLEAVE, 0x55);
    uint64_t pages[MM_MAX_NODES];
    touch_all_from(rig, 0, 8 * BLOCK_PAGES, 1);
    count(rig, pages);
    for (unsigned n = 0; n < 8; n++)
        ck_assert_uint_eq(pages[n], n % 2 ? 0 : 2 * BLOCK_PAGES);
    for (gfn_t gfn = 0; gfn < 8 * BLOCK_PAGES; gfn += 37)
        ck_assert_uint_eq(fake_host_page_node(rig->fh, mm_vm_id(rig->vm), gfn), gfn / BLOCK_PAGES % 4 * 2);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_nodes_interleave_by_page_is_even)
{
    const struct mm_config config = line_config(3, true);
    struct mm_rig *rig = rig_with(&config, MM_POLICY_INTERLEAVE_PAGES, 7);
    uint64_t pages[MM_MAX_NODES];
    touch_all_from(rig, 0, 3 * BLOCK_PAGES, 1);
    count(rig, pages);
    for (unsigned n = 0; n < 3; n++)
        ck_assert_uint_eq(pages[n], BLOCK_PAGES);
    /* and they keep to their nodes when they go home and come back */
    ck_assert_uint_gt(mm_reclaim(rig->thread[0], rig->vm, 3 * BLOCK_PAGES, false), 0);
    mm_rig_check(rig);
    touch_all_from(rig, 0, 3 * BLOCK_PAGES, 0);
    for (gfn_t gfn = 0; gfn < 3 * BLOCK_PAGES; gfn++)
        ck_assert_uint_eq(fake_host_page_node(rig->fh, mm_vm_id(rig->vm), gfn), gfn % 3);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_nodes_local_is_the_node_of_who_touches)
{
    const struct mm_config config = line_config(8, _i);
    struct mm_rig *rig = mm_rig_create(&config, VM_BYTES, 1); /* local is the default */
    uint64_t pages[MM_MAX_NODES];
    struct mm_node_stat stat;
    for (unsigned n = 0; n < 8; n++)
        touch_all_from(rig, n * BLOCK_PAGES, (n + 1) * BLOCK_PAGES, n);
    count(rig, pages);
    for (unsigned n = 0; n < 8; n++) {
        ck_assert_uint_eq(pages[n], BLOCK_PAGES);
        mm_node_stat(rig->host, n, &stat);
        ck_assert_uint_eq(stat.numa_hit, BLOCK_PAGES);
        ck_assert_uint_eq(stat.local_node, BLOCK_PAGES);
        ck_assert_uint_eq(stat.numa_miss + stat.numa_foreign + stat.other_node + stat.interleave_hit, 0);
    }
    mm_rig_destroy(rig);
}
END_TEST

/* A disk reads into a fresh page, or a ring of a queue is written: for the vCPUs, so on their node and not on the first. */
START_TEST(test_mm_nodes_local_is_the_vcpus_node_for_what_devices_touch_first)
{
    const struct mm_config config = line_config(3, _i);
    struct mm_rig *rig = rig_with(&config, MM_POLICY_LOCAL, 7);
    uint64_t pages[MM_MAX_NODES];
    touch_all_from(rig, 0, 1, 2);
    ck_assert_int_eq(mm_pin(rig->thread[0], rig->vm, gpa_of(4 * BLOCK_PAGES), PAGE_BYTES), 0);
    mm_unpin(rig->vm, gpa_of(4 * BLOCK_PAGES), PAGE_BYTES);
    count(rig, pages);
    ck_assert_uint_eq(pages[0] + pages[1], 0);
    touch_all_from(rig, BLOCK_PAGES, BLOCK_PAGES + 1, 1);
    ck_assert_int_eq(mm_fault(rig->thread[0], rig->vm, gpa_of(5 * BLOCK_PAGES), MM_FAULT_WRITE), 0);
    ck_assert_uint_eq(fake_host_page_node(rig->fh, mm_vm_id(rig->vm), 5 * BLOCK_PAGES), 1);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_nodes_misses_are_counted_on_both_sides)
{
    const struct mm_config config = line_config(2, false);
    struct mm_rig *rig = rig_with(&config, MM_POLICY_PREFERRED, 1);
    struct mm_node_stat stat[2];
    touch_all_from(rig, 0, NODE_PAGES + NODE_PAGES / 2, 0);
    for (unsigned n = 0; n < 2; n++)
        mm_node_stat(rig->host, n, &stat[n]);
    ck_assert_uint_eq(stat[0].numa_hit + stat[1].numa_miss, NODE_PAGES + NODE_PAGES / 2);
    ck_assert_uint_eq(stat[0].numa_foreign, stat[1].numa_miss);
    ck_assert_uint_eq(stat[1].other_node, stat[1].numa_miss);
    ck_assert_uint_gt(stat[1].numa_miss, 0);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_nodes_each_kswapd_is_woken_for_its_own_node)
{
    const struct mm_config config = line_config(3, false);
    struct mm_rig *rig = rig_with(&config, MM_POLICY_BIND, 1u << 2);
    struct fake_host_stat stat;
    for (gfn_t gfn = 0; pool_nr_free(&rig->host->node[2].pool) >= rig->host->node[2].pool.wmark[WMARK_MIN]; gfn++)
        ck_assert_int_eq(touch_from(rig, gfn, 0), 0);
    fake_host_stat(rig->fh, &stat);
    ck_assert_uint_gt(stat.nr_kicks[MM_KSWAPD(2)], 0);
    ck_assert_uint_eq(stat.nr_kicks[MM_KSWAPD(0)] + stat.nr_kicks[MM_KSWAPD(1)], 0);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_nodes_kswapd_takes_pages_of_its_node_only)
{
    struct mm_config config = line_config(2, _i);
    config.zram.limit_bytes = 16 * MIB;
    struct mm_rig *rig = rig_with(&config, MM_POLICY_PREFERRED, 1u << 1);
    uint64_t before[MM_MAX_NODES], after[MM_MAX_NODES];
    for (gfn_t gfn = 0; gfn < NODE_PAGES / 2; gfn++) {
        ck_assert_int_eq(touch_from(rig, gfn, 0), 0);
        ck_assert_int_eq(mm_rig_write(rig, 0, gfn, TEXT), 0);
    }
    const struct mm_policy bind = {.mode = MM_POLICY_BIND, .nodes = 1};
    ck_assert_int_eq(mm_vm_place(rig->vm, gpa_of(NODE_PAGES), VM_BYTES - NODE_BYTES, &bind), 0);
    for (gfn_t gfn = NODE_PAGES; pool_nr_free(&rig->host->node[0].pool) > rig->host->node[0].pool.wmark[WMARK_LOW] - 32;
         gfn++)
        ck_assert_int_eq(mm_rig_write(rig, 0, gfn, TEXT), 0);
    count(rig, before);
    ck_assert(mm_kswapd(rig->thread[0], 0));
    count(rig, after);
    ck_assert_uint_lt(after[0], before[0]);
    ck_assert_uint_eq(after[1], before[1]);
    ck_assert_uint_ge(pool_nr_free(&rig->host->node[0].pool), rig->host->node[0].pool.wmark[WMARK_HIGH]);
    mm_rig_destroy(rig);
}
END_TEST

/* No store yet, so kswapd fails; nobody reclaims directly, for the other node has room. */
START_TEST(test_mm_nodes_kswapd_that_failed_once_is_woken_when_its_node_is_low_again)
{
    const struct mm_config config = line_config(2, false);
    struct mm_rig *rig = mm_rig_create(&config, VM_BYTES, 1);
    const struct pool *pool = &rig->host->node[0].pool;
    struct fake_host_stat stat;
    gfn_t gfn = 0;
    uint64_t dropped;
    for (; pool_nr_free(pool) >= pool->wmark[WMARK_LOW]; gfn++)
        ck_assert_int_eq(touch_from(rig, gfn, 0), 0);
    ck_assert(!mm_kswapd(rig->thread[0], 0));
    fake_host_stat(rig->fh, &stat);
    uint64_t kicks = stat.nr_kicks[MM_KSWAPD(0)];
    touch_all_from(rig, gfn, gfn + BLOCK_PAGES, 0);
    fake_host_stat(rig->fh, &stat);
    ck_assert_uint_eq(stat.nr_kicks[MM_KSWAPD(0)], kicks);
    /* the guest gives memory up, then wants it back, and more */
    ck_assert_int_eq(mm_drop(rig->thread[0], rig->vm, gpa_of(0), 2 * BLOCK_BYTES, MM_DROP_FREE, 0, &dropped), 0);
    touch_all_from(rig, 0, 2 * BLOCK_PAGES, 0);
    touch_all_from(rig, gfn, gfn + 2 * BLOCK_PAGES, 0);
    fake_host_stat(rig->fh, &stat);
    ck_assert_uint_gt(stat.nr_kicks[MM_KSWAPD(0)], kicks);
    mm_rig_destroy(rig);
}
END_TEST

/* What comes back from a disk is on a node that its policy allows, however much room the others have. */
START_TEST(test_mm_nodes_swapoff_keeps_to_strict_policies)
{
    const struct mm_config config = line_config(3, false);
    struct mm_rig *rig = rig_with(&config, MM_POLICY_BIND, 1u << 1);
    mm_rig_swapon(rig, "disk", 8192);
    mm_rig_fill(rig, 0, BLOCK_PAGES, RANDOM);
    mm_reclaim(rig->thread[0], rig->vm, BLOCK_PAGES, true);
    ck_assert_str_eq(mm_rig_state(rig, 0), "swap");
    ck_assert_int_eq(mm_swapoff(rig->thread[0], "disk"), 0);
    ck_assert_str_eq(mm_rig_state(rig, 0), "standby");
    ck_assert_uint_eq(rig->host->node[0].nr_standby + rig->host->node[2].nr_standby, 0);
    for (gfn_t gfn = 0; gfn < BLOCK_PAGES; gfn++)
        mm_rig_verify(rig, 0, gfn);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_nodes_preferred_is_the_first_named_not_the_nearest)
{
    const struct mm_config config = line_config(4, false);
    struct mm_rig *rig = rig_with(&config, MM_POLICY_PREFERRED, 1u << 1 | 1u << 3);
    uint64_t pages[MM_MAX_NODES];
    touch_all_from(rig, 0, BLOCK_PAGES, 3);
    count(rig, pages);
    ck_assert_uint_eq(pages[1], BLOCK_PAGES);
    mm_rig_destroy(rig);
}
END_TEST

/* Leaves @node with @pages free. Returns what was charged for it. */
static uint32_t leave_free(struct mm_rig *rig, unsigned node, uint32_t pages)
{
    struct pool *pool = &rig->host->node[node].pool;
    uint32_t nr = pool_nr_free(pool) - pages;
    ck_assert_int_eq(pool_charge(pool, nr), 0);
    return nr;
}

/* Above low on any node, then above min on any node, and only then reclaim: each time the nearest. */
START_TEST(test_mm_nodes_a_node_further_off_is_asked_before_the_nearest_is_used_up)
{
    const struct mm_config config = line_config(3, false);
    struct mm_rig *rig = mm_rig_create(&config, VM_BYTES, 1);
    struct mm_thread *thread = rig->thread[0];
    const uint32_t *wmark = rig->host->node[0].pool.wmark;
    const uint32_t between = (wmark[WMARK_MIN] + wmark[WMARK_LOW]) / 2, below = wmark[WMARK_MIN] - 1;
    uint32_t charged[3] = {0};
    unsigned out = 9;
    ck_assert_int_eq(thread_charge(thread, 0, 7, &out), 0);
    ck_assert_uint_eq(out, 0);
    static const struct {
        char room[4]; /* of nodes 0..2: above (l)ow, between (m)in and low, (b)elow min */
        unsigned out;
    } steps[] = {{"mll", 1}, {"mml", 2}, {"bml", 2}, {"mmm", 0}, {"bmm", 1}, {"bbm", 2}, {"blb", 1}};
    for (unsigned i = 0; i < ARRAY_LEN(steps); i++) {
        for (unsigned n = 0; n < 3; n++) {
            pool_uncharge(&rig->host->node[n].pool, thread->charged[n]);
            thread->charged[n] = 0;
            charged[n] = steps[i].room[n] == 'l' ? 0 : leave_free(rig, n, steps[i].room[n] == 'm' ? between : below);
        }
        ck_assert_int_eq(thread_charge(thread, 0, 7, &out), 0);
        ck_assert_msg(out == steps[i].out, "%s: node %u", steps[i].room, out);
        for (unsigned n = 0; n < 3; n++)
            pool_uncharge(&rig->host->node[n].pool, charged[n]);
    }
    ck_assert_uint_eq(rig->host->event[EV_allocstall], 0);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_nodes_bad_configurations_are_refused)
{
    struct mm_config bad[5];
    for (unsigned i = 0; i < ARRAY_LEN(bad); i++)
        bad[i] = line_config(2, false);
    bad[0].budget_bytes += PAGE_BYTES;
    bad[1].nodes[0].budget_bytes -= PAGE_BYTES;
    bad[2].nodes[0].budget_bytes -= 1, bad[2].nodes[1].budget_bytes += 1;
    bad[3].nodes[0].budget_bytes = MM_MIN_NODE_BUDGET - PAGE_BYTES;
    bad[3].nodes[1].budget_bytes = bad[3].budget_bytes - bad[3].nodes[0].budget_bytes;
    bad[4].nr_nodes = MM_MAX_NODES + 1;
    struct fake_host *fh = fake_host_create(BLOCK_PAGES);
    struct mm_host *host;
    for (unsigned i = 0; i < ARRAY_LEN(bad); i++)
        ck_assert_int_eq(mm_host_create(&bad[i], fake_host_ops(fh), fh, fake_host_arena(fh), &host), -EINVAL);
    fake_host_destroy(fh);
}
END_TEST

START_TEST(test_mm_nodes_bad_places_are_refused)
{
    const struct mm_config config = line_config(2, false);
    struct mm_rig *rig = mm_rig_create(&config, VM_BYTES, 1);
    const struct mm_policy bind = {.mode = MM_POLICY_BIND, .nodes = 1}, none = {.mode = MM_POLICY_BIND},
                           beyond = {.mode = MM_POLICY_BIND, .nodes = 4};
    const gpa_t start = {0};
    ck_assert_int_eq(mm_vm_place(rig->vm, start, VM_BYTES, &none), -EINVAL);
    ck_assert_int_eq(mm_vm_place(rig->vm, start, VM_BYTES, &beyond), -EINVAL);
    ck_assert_int_eq(mm_vm_place(rig->vm, start, 0, &bind), -EINVAL);
    ck_assert_int_eq(mm_vm_place(rig->vm, start, BLOCK_BYTES / 2, &bind), -EINVAL);
    ck_assert_int_eq(mm_vm_place(rig->vm, start, VM_BYTES + BLOCK_BYTES, &bind), -EINVAL);
    for (unsigned i = 0; i < MM_MAX_PLACES; i++)
        ck_assert_int_eq(mm_vm_place(rig->vm, start, BLOCK_BYTES, &bind), 0);
    ck_assert_int_eq(mm_vm_place(rig->vm, start, BLOCK_BYTES, &bind), -ENOSPC);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_nodes_the_last_word_on_a_range_counts)
{
    const struct mm_config config = line_config(3, false);
    struct mm_rig *rig = rig_with(&config, MM_POLICY_BIND, 1);
    const struct mm_policy other = {.mode = MM_POLICY_BIND, .nodes = 4};
    ck_assert_int_eq(mm_vm_place(rig->vm, gpa_of(BLOCK_PAGES), BLOCK_BYTES, &other), 0);
    touch_all_from(rig, 0, 3 * BLOCK_PAGES, 1);
    for (gfn_t gfn = 0; gfn < 3 * BLOCK_PAGES; gfn += 11)
        ck_assert_uint_eq(fake_host_page_node(rig->fh, mm_vm_id(rig->vm), gfn), gfn / BLOCK_PAGES == 1 ? 2 : 0);
    mm_rig_destroy(rig);
}
END_TEST

/* Everything a VM and its host do, on 8 nodes, with every policy; each structure is checked all the time. */
START_TEST(test_mm_nodes_model)
{
    struct mm_config config = line_config(8, _i % 2);
    config.zram.limit_bytes = 16 * MIB;
    for (unsigned n = 0; n < 8; n++)
        config.nodes[n].budget_bytes = (n + 1) * MIB + MIB;
    config.budget_bytes = 44 * MIB;
    struct mm_rig *rig = mm_rig_create(&config, VM_BYTES, 2);
    mm_rig_swapon(rig, "disk", 65536);
    struct rng rng = {(uint64_t)_i + 1};
    for (unsigned i = 0; i < 8; i++) {
        const struct mm_policy policy = {.mode = (enum mm_policy_mode)(i % 5), .nodes = (uint8_t)(0xff - i)};
        ck_assert_int_eq(mm_vm_place(rig->vm, gpa_of(i * 4 * BLOCK_PAGES), 4 * BLOCK_BYTES, &policy), 0);
    }
    for (unsigned step = 0; step < 3000; step++) {
        gfn_t gfn = rng_below(&rng, rig->nr_pages);
        switch (rng_below(&rng, 10)) {
        case 0:
            mm_reclaim(rig->thread[1], step % 3 ? rig->vm : NULL, rng_below(&rng, 600), step % 2);
            break;
        case 1:
            mm_kswapd(rig->thread[1], rng_below(&rng, 8));
            break;
        case 2:
            mm_housekeep(rig->thread[1]);
            break;
        case 3: {
            uint64_t nr = 1 + rng_below(&rng, MIN_OF(BLOCK_PAGES, rig->nr_pages - gfn)), dropped;
            ck_assert_int_eq(mm_drop(rig->thread[0], rig->vm, gpa_of(gfn), nr * PAGE_BYTES, MM_DROP_FREE, 0, &dropped),
                             0);
            memset(rig->content + gfn, NOTHING, nr);
            break;
        }
        case 4:
            mm_rig_verify(rig, 0, gfn);
            break;
        default:
            for (gfn_t end = MIN_OF(gfn + 40, rig->nr_pages); gfn < end; gfn++) {
                if (!mm_rig_is_present(rig, gfn))
                    ck_assert_int_eq(touch_from(rig, gfn, rng_below(&rng, 8)), 0);
                ck_assert_int_eq(mm_rig_write(rig, 0, gfn, step % 4 ? TEXT : RANDOM), 0);
            }
        }
        if (step % 16 == 0)
            mm_rig_check(rig);
    }
    for (gfn_t gfn = 0; gfn < rig->nr_pages; gfn++)
        mm_rig_verify(rig, 0, gfn);
    mm_rig_destroy(rig);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("mm_nodes");
    TCase *cases = tcase_create("placement");
    tcase_add_loop_test(cases, test_mm_nodes_bind_puts_all_pages_on_its_nodes, 0, 2);
    tcase_add_loop_test(cases, test_mm_nodes_bind_reclaims_from_itself_and_never_spills, 0, 2);
    tcase_add_test(cases, test_mm_nodes_allowed_are_those_that_the_last_policy_binds_to);
    tcase_add_loop_test(cases, test_mm_nodes_standby_pages_of_a_vm_are_counted_where_they_are, 0, 2);
    tcase_add_loop_test(cases, test_mm_nodes_page_info_says_the_node, 0, 2);
    tcase_add_test(cases, test_mm_nodes_bind_without_a_store_is_out_of_memory_while_others_are_free);
    tcase_add_test(cases, test_mm_nodes_preferred_goes_on_at_the_nearest);
    tcase_add_loop_test(cases, test_mm_nodes_interleave_by_block_is_even, 0, 2);
    tcase_add_test(cases, test_mm_nodes_interleave_by_page_is_even);
    tcase_add_loop_test(cases, test_mm_nodes_local_is_the_node_of_who_touches, 0, 2);
    tcase_add_loop_test(cases, test_mm_nodes_local_is_the_vcpus_node_for_what_devices_touch_first, 0, 2);
    tcase_add_test(cases, test_mm_nodes_misses_are_counted_on_both_sides);
    tcase_add_test(cases, test_mm_nodes_each_kswapd_is_woken_for_its_own_node);
    tcase_add_loop_test(cases, test_mm_nodes_kswapd_takes_pages_of_its_node_only, 0, 2);
    tcase_add_test(cases, test_mm_nodes_kswapd_that_failed_once_is_woken_when_its_node_is_low_again);
    tcase_add_test(cases, test_mm_nodes_swapoff_keeps_to_strict_policies);
    tcase_add_test(cases, test_mm_nodes_preferred_is_the_first_named_not_the_nearest);
    tcase_add_test(cases, test_mm_nodes_a_node_further_off_is_asked_before_the_nearest_is_used_up);
    tcase_add_test(cases, test_mm_nodes_bad_configurations_are_refused);
    tcase_add_test(cases, test_mm_nodes_bad_places_are_refused);
    tcase_add_test(cases, test_mm_nodes_the_last_word_on_a_range_counts);
    tcase_add_loop_test(cases, test_mm_nodes_model, 0, 4);
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
