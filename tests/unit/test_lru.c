/* SPDX-License-Identifier: Apache-2.0 */
/* The ring of active blocks and the nodes' hands on it: in which order blocks are met. */
#include "mm/reclaim/lru.h"
#include "tests/unit/numa_rig.h"

#define MAX_BLOCKS 8u

/* Block i is in the guest, on the node that @nodes[i], a digit, says, and came in that order. */
static struct mm_rig *rig_with_blocks(unsigned nr_nodes, const char *nodes)
{
    const struct mm_config config = config_of(nr_nodes, true);
    struct mm_rig *rig = rig_create(&config);
    for (gfn_t gfn = 0; *nodes; nodes++, gfn += BLOCK_PAGES) {
        const struct mm_policy bind = {.mode = MM_POLICY_BIND, .nodes = (uint8_t)(1u << (*nodes - '0'))};
        ck_assert_int_eq(mm_vm_place(rig->vm, gpa_of(gfn), BLOCK_BYTES, &bind), 0);
    }
    return rig;
}

static void bring(struct mm_rig *rig, unsigned from, unsigned end)
{
    for (unsigned i = from; i < end; i++)
        touch(rig, i * BLOCK_PAGES, (i + 1) * BLOCK_PAGES, 0);
}

/* The next block of @node goes home: its number. */
static unsigned take_next(struct mm_rig *rig, unsigned node)
{
    bool was[MAX_BLOCKS];
    uint64_t scanned = 0;
    for (unsigned i = 0; i < MAX_BLOCKS; i++)
        was[i] = mm_rig_is_present(rig, i * BLOCK_PAGES);
    ck_assert_uint_eq(lru_deactivate(rig->thread[0], node, 1, true, &scanned), BLOCK_PAGES);
    ck_assert_uint_eq(scanned, BLOCK_PAGES);
    for (unsigned i = 0; i < MAX_BLOCKS; i++)
        if (was[i] && !mm_rig_is_present(rig, i * BLOCK_PAGES))
            return i;
    ck_abort_msg("nothing was taken");
    return MAX_BLOCKS;
}

static void expect_order(struct mm_rig *rig, unsigned node, const char *order)
{
    for (; *order; order++)
        ck_assert_uint_eq(take_next(rig, node), (unsigned)(*order - '0'));
}

START_TEST(test_lru_blocks_are_met_in_the_order_they_came)
{
    struct mm_rig *rig = rig_with_blocks(1, "0000");
    bring(rig, 0, 4);
    expect_order(rig, 0, "0123");
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_lru_a_block_that_comes_back_is_met_last)
{
    struct mm_rig *rig = rig_with_blocks(1, "0000");
    bring(rig, 0, 4);
    expect_order(rig, 0, "01");
    bring(rig, 0, 2); /* the hand is at block 2 */
    expect_order(rig, 0, "2301");
    mm_rig_destroy(rig);
}
END_TEST

/* Each node has its own idea of what is last: the hand of node 0 is at block 4 when block 5 comes, that of node 1 at 1. */
START_TEST(test_lru_a_new_block_is_met_last_by_the_hand_of_its_own_node)
{
    struct mm_rig *rig = rig_with_blocks(2, "01101100");
    bring(rig, 0, 5);
    expect_order(rig, 0, "03");
    bring(rig, 5, 6);
    expect_order(rig, 1, "1245");
    mm_rig_destroy(rig);
}
END_TEST

/* The other way round: the hand of node 1 is at block 3 when block 6 comes to node 0, whose hand is at 0. */
START_TEST(test_lru_a_new_block_of_the_first_node_is_met_last_by_its_hand)
{
    struct mm_rig *rig = rig_with_blocks(2, "01100101");
    bring(rig, 0, 6);
    expect_order(rig, 1, "12");
    bring(rig, 6, 7);
    expect_order(rig, 0, "0346");
    expect_order(rig, 1, "5");
    mm_rig_destroy(rig);
}
END_TEST

/* Of whatever node: taken home to see who touches it, or dropped. */
START_TEST(test_lru_a_block_with_nothing_in_the_guest_leaves_the_ring)
{
    struct mm_rig *rig = rig_with_blocks(2, "0110");
    uint64_t scanned = 0;
    bring(rig, 0, 4);
    for (unsigned i = 1; i < 3; i++) {
        struct block *block = vm_block(rig->vm, i * BLOCK_PAGES);
        lock_acquire(&block->lock);
        ck_assert_uint_eq(lru_arm_block(rig->thread[0], block, (nodemask_t)-1), BLOCK_PAGES);
        lock_release(&block->lock);
    }
    ck_assert_uint_eq(rig->host->lru.nr_active, 4);
    ck_assert_uint_eq(lru_deactivate(rig->thread[0], 0, VM_BYTES / PAGE_BYTES, true, &scanned), 2 * BLOCK_PAGES);
    ck_assert_uint_eq(rig->host->lru.nr_active, 0);
    mm_rig_destroy(rig);
}
END_TEST

/* More than a hand passes at once. */
START_TEST(test_lru_a_hand_passes_the_blocks_of_other_nodes_however_many)
{
    const unsigned nr = 150;
    const struct mm_config config = config_of(3, false);
    const struct mm_policy far = {.mode = MM_POLICY_BIND, .nodes = 2}, near = {.mode = MM_POLICY_BIND, .nodes = 1};
    struct mm_rig *rig = mm_rig_create(&config, nr * BLOCK_BYTES, 1);
    uint64_t scanned = 0;
    ck_assert_int_eq(mm_vm_place(rig->vm, (gpa_t){0}, nr * BLOCK_BYTES, &far), 0);
    ck_assert_int_eq(mm_vm_place(rig->vm, gpa_of((nr - 1) * BLOCK_PAGES), BLOCK_BYTES, &near), 0);
    for (unsigned i = 0; i < nr; i++)
        touch(rig, i * BLOCK_PAGES, i * BLOCK_PAGES + 1, 0);
    const uint64_t on_far = pages_on(rig, 1), on_near = pages_on(rig, 0);
    ck_assert_uint_gt(on_near, 0);
    /* nothing is on node 2: exactly one round */
    const struct block *hand = rig->host->node[2].hand;
    ck_assert_uint_eq(lru_deactivate(rig->thread[0], 2, 1, true, &scanned), 0);
    ck_assert_ptr_eq(rig->host->node[2].hand, hand);
    ck_assert_uint_eq(scanned, 0);
    ck_assert_uint_eq(lru_deactivate(rig->thread[0], 0, 1, true, &scanned), on_near);
    ck_assert_uint_eq(scanned, on_near);
    ck_assert_uint_eq(pages_on(rig, 1), on_far);
    ck_assert_uint_eq(lru_deactivate(rig->thread[0], 1, UINT32_MAX, true, &scanned), on_far);
    ck_assert_uint_eq(rig->host->lru.nr_active, 0);
    mm_rig_destroy(rig);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("lru");
    TCase *cases = tcase_create("ring");
    tcase_add_test(cases, test_lru_blocks_are_met_in_the_order_they_came);
    tcase_add_test(cases, test_lru_a_block_that_comes_back_is_met_last);
    tcase_add_test(cases, test_lru_a_new_block_is_met_last_by_the_hand_of_its_own_node);
    tcase_add_test(cases, test_lru_a_new_block_of_the_first_node_is_met_last_by_its_hand);
    tcase_add_test(cases, test_lru_a_block_with_nothing_in_the_guest_leaves_the_ring);
    tcase_add_test(cases, test_lru_a_hand_passes_the_blocks_of_other_nodes_however_many);
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
