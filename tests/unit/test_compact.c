/* SPDX-License-Identifier: Apache-2.0 */
/* Compaction over the fake host: what it reaches, what it leaves alone, who starts it. */
#include "mm/compact.h"
#include "mm/reclaim/migrate.h"
#include "mm/reclaim/note.h"
#include "tests/unit/compact_runs.h"
#include "tests/unit/mm_rig.h"
#include "tests/unit/model_rng.h"

#include <errno.h>

#define BUDGET (24 * MIB)
#define VM_BYTES (64 * MIB)

static uint64_t event(const struct mm_rig *rig, enum vm_event which)
{
    return rig->host->event[which];
}

static struct pool *pool_of_rig(struct mm_rig *rig)
{
    return &rig->host->node[0].pool;
}

static struct zone *zone_of_rig(struct mm_rig *rig, unsigned z)
{
    return &rig->host->node[0].pool.zones[z];
}

static struct mm_rig *make(bool thp)
{
    return mm_rig_create(&(struct mm_config){.budget_bytes = BUDGET, .thp = thp, .readahead_pages = 1}, VM_BYTES, 1);
}

/* Pages [0, nr) are home; then those that @back says come back into the guest, which leaves free filled slots. */
static void make_holes(struct mm_rig *rig, uint32_t nr, bool (*back)(struct rng *rng, gfn_t gfn))
{
    struct rng rng = {4711 + nr};
    mm_rig_fill(rig, 0, nr, TEXT);
    mm_reclaim(rig->thread[0], rig->vm, nr, false);
    for (gfn_t gfn = 0; gfn < nr; gfn++)
        if (back(&rng, gfn))
            mm_rig_verify(rig, 0, gfn);
    pcp_drain(&rig->thread[0]->pcp[0]);
}

static bool every_other(struct rng *rng, gfn_t gfn)
{
    (void)rng;
    return gfn % 2;
}

static bool one_of_five(struct rng *rng, gfn_t gfn)
{
    (void)gfn;
    return rng_below(rng, 5) == 0;
}

static bool four_of_five(struct rng *rng, gfn_t gfn)
{
    (void)gfn;
    return rng_below(rng, 5) != 0;
}

static bool by_block(struct rng *rng, gfn_t gfn)
{
    return rng_below(rng, 512) < (gfn / BLOCK_PAGES * 97 + 30) % 512;
}

/* What is free and filled is given back to the kernel: the holes are empty slots. */
static void empty_holes(struct mm_rig *rig)
{
    struct pool *pool = pool_of_rig(rig);
    uint32_t nr = pool_nr_free(pool);
    ck_assert_int_eq(pool_charge(pool, nr), 0);
    pool_uncharge(pool, nr);
    ck_assert_uint_eq(zone_nr_free(zone_of_rig(rig, POOL_NORMAL), PLANE_FILLED), 0);
}

static void verify_all(struct mm_rig *rig, uint32_t nr)
{
    mm_rig_check(rig);
    for (gfn_t gfn = 0; gfn < nr; gfn++)
        if (rig->content[gfn] != NOTHING)
            mm_rig_verify(rig, 0, gfn);
}

/* ---- what it reaches ---- */

static bool (*const patterns[])(struct rng *, gfn_t) = {every_other, one_of_five, four_of_five, by_block};

START_TEST(test_compact_checkerboard_reaches_the_theoretical_number_of_runs)
{
    struct mm_rig *rig = make(false);
    struct zone *zone = zone_of_rig(rig, POOL_NORMAL);
    const uint32_t nr = 3072;
    uint64_t runs;
    make_holes(rig, nr, patterns[_i % (int)ARRAY_LEN(patterns)]);
    if (_i >= (int)ARRAY_LEN(patterns))
        empty_holes(rig);
    uint32_t before = count_runs(zone), most = most_runs(zone), free_pages = pool_nr_free(pool_of_rig(rig));
    ck_assert_uint_gt(most, before);
    ck_assert_int_eq(mm_compact(rig->thread[0], 0, &runs), 0);
    mm_rig_check(rig);
    ck_assert_uint_eq(count_runs(zone), most);
    ck_assert_uint_eq(runs, most - before);
    ck_assert_uint_eq(pool_nr_free(pool_of_rig(rig)), free_pages);
    ck_assert_uint_eq(event(rig, EV_pgmigrate_fail), 0);
    ck_assert_int_eq(mm_compact(rig->thread[0], 0, &runs), 0);
    ck_assert_uint_eq(runs, 0);
    verify_all(rig, nr);
    mm_rig_destroy(rig);
}
END_TEST

/* The first @nr pages of the pageblock at @start come back into the guest. */
static void take_out(struct mm_rig *rig, fn_t start, uint32_t nr)
{
    for (fn_t fn = start; fn < start + nr; fn++)
        mm_rig_verify(rig, 0, rig->host->frames[fn].gfn);
    pcp_drain(&rig->thread[0]->pcp[0]);
}

/* Room for the last pages of a pageblock, further apart than a round looks: what it found first was out of reach from then on. */
START_TEST(test_compact_places_far_apart_are_not_lost_at_the_end_of_a_round)
{
    const struct mm_config config = {.budget_bytes = 192 * MIB, .readahead_pages = 1};
    const uint32_t nr = 80 * BLOCK_PAGES;
    struct mm_rig *rig = mm_rig_create(&config, 192 * MIB, 1);
    struct zone *zone = zone_of_rig(rig, POOL_NORMAL);
    fn_t full[80];
    unsigned nr_full = 0;
    uint64_t runs;
    mm_rig_fill(rig, 0, nr, TEXT);
    mm_reclaim(rig->thread[0], rig->vm, nr, false);
    for (fn_t fn = zone->start_fn; fn < zone->start_fn + zone->nr_frames; fn += BLOCK_PAGES) {
        struct pageblock_use use;
        zone_pageblock_use(zone, fn, &use);
        if (use.nr_movable == BLOCK_PAGES)
            full[nr_full++] = fn;
    }
    ck_assert_uint_ge(nr_full, 75);
    take_out(rig, full[0], 212);
    take_out(rig, full[nr_full - 1], 150);
    take_out(rig, full[nr_full - 71], 150);
    uint32_t before = count_runs(zone), most = most_runs(zone);
    ck_assert_uint_eq(most, before + 1);
    ck_assert_int_eq(mm_compact(rig->thread[0], 0, &runs), 0);
    ck_assert_uint_eq(count_runs(zone), most);
    verify_all(rig, nr);
    mm_rig_destroy(rig);
}
END_TEST

/* Slots of three pageblocks have an owner who does not let go; two of them in the middle of the pages that move. */
START_TEST(test_compact_with_pages_that_stay_reaches_the_theoretical_number)
{
    struct mm_rig *rig = make(false);
    struct zone *zone = zone_of_rig(rig, POOL_NORMAL);
    fn_t held[3];
    uint64_t runs;
    make_holes(rig, 2560, every_other);
    for (unsigned i = 0; i < 3; i++)
        ck_assert_uint_eq(
            zone_take_free(zone, zone->start_fn + i * 2 * BLOCK_PAGES, i < 2 ? PLANE_FILLED : PLANE_EMPTY, &held[i], 1),
            i < 2);
    uint32_t most = most_runs(zone);
    ck_assert_uint_gt(most, count_runs(zone));
    ck_assert_int_eq(mm_compact(rig->thread[0], 0, &runs), 0);
    ck_assert_uint_eq(count_runs(zone), most);
    for (unsigned i = 0; i < 2; i++)
        zone_free(zone, held[i], 0, PLANE_FILLED);
    verify_all(rig, 2560);
    mm_rig_destroy(rig);
}
END_TEST

/* A pageblock of the store's takes no page that can be moved, though it has room. */
START_TEST(test_compact_moves_nothing_into_reclaimable_pageblocks)
{
    struct mm_rig *rig = make(false);
    struct zone *zone = zone_of_rig(rig, POOL_NORMAL);
    struct pageblock_use before, after;
    fn_t fn = zone->start_fn + 2 * BLOCK_PAGES, held;
    uint64_t runs;
    make_holes(rig, 2048, every_other);
    ck_assert_uint_eq(zone_take_free(zone, fn, PLANE_FILLED, &held, 1), 1);
    set_pageblock_migratetype(zone, fn, MIGRATE_RECLAIMABLE);
    zone_pageblock_use(zone, fn, &before);
    ck_assert_int_eq(mm_compact(rig->thread[0], 0, &runs), 0);
    ck_assert_uint_gt(runs, 0);
    zone_pageblock_use(zone, fn, &after);
    ck_assert_mem_eq(&before, &after, sizeof(before));
    zone_free(zone, held, 0, PLANE_FILLED);
    verify_all(rig, 2048);
    mm_rig_destroy(rig);
}
END_TEST

/* Two nodes, both with holes: what is asked for, and that no page changes its node. */
START_TEST(test_compact_of_one_node_leaves_the_other)
{
    const struct mm_config config = {.budget_bytes = 2 * BUDGET,
                                     .readahead_pages = 1,
                                     .nr_nodes = 2,
                                     .nodes = {{.id = 0, .budget_bytes = BUDGET, .distance = {10, 20}},
                                               {.id = 1, .budget_bytes = BUDGET, .distance = {20, 10}}}};
    const struct mm_policy policy = {.mode = MM_POLICY_INTERLEAVE, .nodes = 3};
    struct mm_rig *rig = mm_rig_create(&config, VM_BYTES, 1);
    struct zone *zone[2] = {&rig->host->node[0].pool.zones[POOL_NORMAL], &rig->host->node[1].pool.zones[POOL_NORMAL]};
    uint64_t runs, standby[2];
    ck_assert_int_eq(mm_vm_place(rig->vm, (gpa_t){0}, VM_BYTES, &policy), 0);
    make_holes(rig, 4096, every_other);
    pcp_drain(&rig->thread[0]->pcp[1]);
    uint32_t most = most_runs(zone[1]), other = count_runs(zone[0]);
    ck_assert_uint_gt(most, count_runs(zone[1]));
    for (unsigned n = 0; n < 2; n++)
        standby[n] = rig->host->node[n].nr_standby;
    ck_assert_int_eq(mm_compact(rig->thread[0], 1, &runs), 0);
    ck_assert_uint_eq(count_runs(zone[1]), most);
    ck_assert_uint_eq(count_runs(zone[0]), other);
    for (unsigned n = 0; n < 2; n++)
        ck_assert_uint_eq(rig->host->node[n].nr_standby, standby[n]);
    verify_all(rig, 4096);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_compact_keeps_the_order_of_eviction)
{
    struct mm_rig *rig = make(false);
    uint64_t runs;
    static gfn_t before[4096];
    uint32_t nr = 0, wrong = 0;
    make_holes(rig, 2048, every_other);
    const struct frame_list *standby = &rig->host->node[0].standby;
    for (fn_t fn = standby->head; fn != FN_NONE; fn = rig->host->frames[fn].next)
        before[nr++] = rig->host->frames[fn].gfn;
    ck_assert_int_eq(mm_compact(rig->thread[0], 0, &runs), 0);
    ck_assert_uint_gt(event(rig, EV_pgmigrate_success), 0);
    fn_t fn = standby->head;
    for (uint32_t i = 0; i < nr; i++, fn = rig->host->frames[fn].next)
        wrong += rig->host->frames[fn].gfn != before[i];
    ck_assert_uint_eq(wrong, 0);
    ck_assert_uint_eq(fn, FN_NONE);
    ck_assert_uint_eq(rig->host->frames[standby->tail].gfn, before[nr - 1]);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_compact_mixed_pageblock_is_given_back_and_becomes_an_empty_run)
{
    struct mm_rig *rig = make(false);
    struct zone *zone = zone_of_rig(rig, POOL_NORMAL);
    uint64_t runs;
    fn_t fn;
    ck_assert_int_eq(pool_alloc_filled(pool_of_rig(rig), 5, MIGRATE_MOVABLE, true, &fn), 0);
    pool_free_filled(pool_of_rig(rig), fn, 32);
    ck_assert_uint_eq(count_runs(zone), zone->nr_frames / BLOCK_PAGES - 1);
    ck_assert_int_eq(mm_compact(rig->thread[0], 0, &runs), 0);
    ck_assert_uint_eq(runs, 1);
    ck_assert_uint_eq(zone_nr_free(zone, PLANE_FILLED), 0);
    ck_assert(!fake_host_is_filled(rig->fh, fn));
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_compact_bad_node_is_refused_and_stopped_host_gives_up)
{
    struct mm_rig *rig = make(false);
    uint64_t runs = 7;
    ck_assert_int_eq(mm_compact(rig->thread[0], 1, &runs), -EINVAL);
    ck_assert_uint_eq(runs, 0);
    make_holes(rig, 1024, every_other);
    mm_stop_work(rig->host);
    ck_assert_int_eq(mm_compact(rig->thread[0], 0, &runs), -ECANCELED);
    ck_assert_uint_eq(event(rig, EV_pgmigrate_success), 0);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_compact_without_spare_memory_moves_nothing)
{
    struct mm_rig *rig = make(false);
    struct pool *pool = pool_of_rig(rig);
    uint64_t runs;
    make_holes(rig, 1024, every_other);
    uint32_t nr = pool_nr_free(pool) - pool->wmark[WMARK_MIN];
    ck_assert_int_eq(pool_charge(pool, nr), 0);
    ck_assert_int_eq(mm_compact(rig->thread[0], 0, &runs), 0);
    ck_assert_uint_eq(event(rig, EV_pgmigrate_success), 0);
    pool_uncharge(pool, nr);
    mm_rig_destroy(rig);
}
END_TEST

/* ---- a move that fails changes nothing ---- */

struct snapshot {
    struct frame from, to;
    uint64_t entry;
    uint32_t nr;
};

static struct snapshot look(struct mm_rig *rig, fn_t from, fn_t to, gfn_t gfn)
{
    const struct block *block = vm_block(rig->vm, gfn);
    struct snapshot s;
    memset(&s, 0, sizeof(s));
    s.from = rig->host->frames[from];
    s.to = rig->host->frames[to];
    s.entry = block->table ? block->table[gfn % BLOCK_PAGES] : *block->pmd;
    s.nr = rig->host->node[0].standby.nr;
    return s;
}

/* The slot of standby page @gfn, and a free filled one in *to. */
static fn_t home_of(struct mm_rig *rig, gfn_t gfn, fn_t *to)
{
    struct mm_page_info info;
    ck_assert_int_eq(mm_page_info(rig->vm, gpa_of(gfn), &info), 0);
    ck_assert_str_eq(info.state, "standby");
    ck_assert_int_eq(pool_alloc_filled(pool_of_rig(rig), 0, MIGRATE_MOVABLE, true, to), 0);
    return info.fn;
}

START_TEST(test_migrate_page_moves_with_its_content_and_place)
{
    struct mm_rig *rig = make(false);
    fn_t to;
    make_holes(rig, 64, every_other);
    fn_t from = home_of(rig, 10, &to);
    ck_assert_int_eq(migrate_standby(rig->host, from, to), 0);
    pool_free_filled(pool_of_rig(rig), from, 1);
    mm_rig_check(rig);
    struct mm_page_info info;
    ck_assert_int_eq(mm_page_info(rig->vm, gpa_of(10), &info), 0);
    ck_assert_uint_eq(info.fn, to);
    verify_all(rig, 64);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_migrate_keeps_what_is_known_of_the_page)
{
    struct mm_rig *rig = make(false);
    fn_t to;
    make_holes(rig, 64, every_other);
    fn_t from = home_of(rig, 10, &to);
    struct block *block = vm_block(rig->vm, 10);
    struct s2_entry old = pte_read(block, 10), noted = old;
    noted.payload = standby_payload(from, true, (struct page_note){.vcpu = 77, .when = 200});
    noted.age = 5;
    pte_write(block, 10, &old, &noted);
    ck_assert_int_eq(migrate_standby(rig->host, from, to), 0);
    pool_free_filled(pool_of_rig(rig), from, 1);
    struct s2_entry now = pte_read(block, 10);
    ck_assert_uint_eq(now.payload, standby_payload(to, true, (struct page_note){.vcpu = 77, .when = 200}));
    ck_assert_uint_eq(now.age, 5);
    pte_write(block, 10, &now, &(struct s2_entry){.state = S2_STANDBY, .payload = to});
    verify_all(rig, 64);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_migrate_page_of_busy_block_leaves_everything)
{
    struct mm_rig *rig = make(false);
    fn_t to;
    make_holes(rig, 64, every_other);
    fn_t from = home_of(rig, 10, &to);
    struct snapshot before = look(rig, from, to, 10);
    struct block *block = vm_block(rig->vm, 10);
    lock_acquire(&block->lock);
    ck_assert_int_eq(migrate_standby(rig->host, from, to), -EAGAIN);
    lock_release(&block->lock);
    struct snapshot after = look(rig, from, to, 10);
    ck_assert_mem_eq(&before, &after, sizeof(before));
    pool_free_filled(pool_of_rig(rig), to, 1);
    verify_all(rig, 64);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_migrate_page_that_a_store_is_at_stays)
{
    struct mm_rig *rig = make(false);
    fn_t to, isolated[64];
    uint8_t flags[64];
    make_holes(rig, 64, every_other);
    fn_t from = home_of(rig, 10, &to);
    unsigned nr = lru_isolate(rig->thread[0], 0, false, isolated, flags, 64);
    ck_assert_uint_ge(nr, 32);
    struct snapshot before = look(rig, from, to, 10);
    ck_assert_int_eq(migrate_standby(rig->host, from, to), -EAGAIN);
    struct snapshot after = look(rig, from, to, 10);
    ck_assert_mem_eq(&before, &after, sizeof(before));
    for (unsigned i = 0; i < nr; i++)
        lru_putback(rig->thread[0], isolated[i], flags[i]);
    lru_isolate_done(rig->host, nr);
    pool_free_filled(pool_of_rig(rig), to, 1);
    verify_all(rig, 64);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_migrate_of_a_refused_page_stays_among_the_refused)
{
    struct mm_rig *rig = make(false);
    fn_t to, isolated[1];
    uint8_t flags[1];
    make_holes(rig, 64, every_other);
    ck_assert_uint_eq(lru_isolate(rig->thread[0], 0, false, isolated, flags, 1), 1);
    lru_putback(rig->thread[0], isolated[0], FRAME_F_INCOMPRESSIBLE);
    lru_isolate_done(rig->host, 1);
    ck_assert_int_eq(pool_alloc_filled(pool_of_rig(rig), 0, MIGRATE_MOVABLE, true, &to), 0);
    ck_assert_int_eq(migrate_standby(rig->host, isolated[0], to), 0);
    pool_free_filled(pool_of_rig(rig), isolated[0], 1);
    ck_assert_uint_eq(rig->host->node[0].refused.head, to);
    ck_assert_uint_eq(rig->host->node[0].refused.tail, to);
    verify_all(rig, 64);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_migrate_of_what_is_no_single_standby_page_is_refused)
{
    struct mm_rig *rig = make(true);
    fn_t to;
    mm_rig_fill(rig, 0, BLOCK_PAGES, TEXT);
    mm_reclaim(rig->thread[0], rig->vm, BLOCK_PAGES, false);
    ck_assert_int_eq(pool_alloc_filled(pool_of_rig(rig), 0, MIGRATE_MOVABLE, true, &to), 0);
    fn_t huge = rig->host->node[0].standby.head;
    ck_assert(rig->host->frames[huge].flags & FRAME_F_HUGE);
    ck_assert_int_eq(migrate_standby(rig->host, huge, to), -EAGAIN);
    ck_assert_int_eq(migrate_standby(rig->host, huge + 1, to), -EAGAIN);
    ck_assert_int_eq(migrate_standby(rig->host, to, to), -EAGAIN);
    pool_free_filled(pool_of_rig(rig), to, 1);
    verify_all(rig, BLOCK_PAGES);
    mm_rig_destroy(rig);
}
END_TEST

/* The n-th populate fails, in turn: fewer runs perhaps, nothing lost. */
START_TEST(test_compact_host_that_populates_no_more_loses_nothing)
{
    uint64_t runs;
    bool failed = true;
    for (long nth = 1; failed; nth += 1 + nth / 4) {
        struct mm_rig *rig = make(false);
        make_holes(rig, 1536, every_other);
        empty_holes(rig);
        fake_host_fail(rig->fh, &(struct fake_failure){.op = FAKE_POPULATE, .nth = nth, .err = ENOMEM});
        ck_assert_int_eq(mm_compact(rig->thread[0], 0, &runs), 0);
        failed = fake_host_failed(rig->fh);
        fake_host_fail(rig->fh, &(struct fake_failure){.op = FAKE_POPULATE, .nth = -1});
        verify_all(rig, 1536);
        mm_rig_destroy(rig);
    }
}
END_TEST

/* ---- a fault that wants 2 MiB ---- */

/* Zone Huge is a checkerboard: @nr blocks of the guest came home as 2 MiB frames, then it gave every other page up. */
static void make_huge_holes(struct mm_rig *rig, unsigned nr)
{
    mm_rig_fill(rig, 0, nr * BLOCK_PAGES, TEXT);
    mm_reclaim(rig->thread[0], rig->vm, nr * BLOCK_PAGES, false);
    for (gfn_t gfn = 1; gfn < nr * BLOCK_PAGES; gfn += 2) {
        uint64_t dropped;
        ck_assert_int_eq(mm_drop(rig->thread[0], rig->vm, gpa_of(gfn), PAGE_BYTES, MM_DROP_FREE, 0, &dropped), 0);
        rig->content[gfn] = NOTHING;
    }
    pcp_drain(&rig->thread[0]->pcp[0]);
    mm_rig_check(rig);
}

/* First touch of guest block @number. */
static void touch_block(struct mm_rig *rig, unsigned number)
{
    ck_assert_int_eq(mm_rig_write(rig, 0, number * BLOCK_PAGES, TEXT), 0);
}

/* New blocks until the budget has no 512 pages left that are not behind something. Returns the next block's number. */
static unsigned use_up(struct mm_rig *rig, unsigned number)
{
    while (pool_of_rig(rig)->uncharged >= BLOCK_PAGES + MM_BATCH_MAX)
        touch_block(rig, number++);
    if (pool_of_rig(rig)->uncharged >= BLOCK_PAGES)
        rig->thread[0]->charged[0] += pool_of_rig(rig)->uncharged % BLOCK_PAGES;
    return number;
}

START_TEST(test_compact_direct_fault_gets_its_2_mib_out_of_pieces)
{
    struct mm_rig *rig = make(true);
    make_huge_holes(rig, 10);
    unsigned number = use_up(rig, 10);
    uint64_t huge = event(rig, EV_thp_fault_alloc);
    ck_assert_uint_eq(event(rig, EV_compact_stall), 0);
    touch_block(rig, number);
    ck_assert_uint_eq(event(rig, EV_thp_fault_alloc), huge + 1);
    ck_assert_uint_eq(event(rig, EV_compact_stall), 1);
    ck_assert_uint_eq(event(rig, EV_compact_success), 1);
    ck_assert_uint_eq(event(rig, EV_pgmigrate_success), 256);
    ck_assert_uint_gt(event(rig, EV_compact_migrate_scanned), 0);
    ck_assert_uint_gt(event(rig, EV_compact_free_scanned), 0);
    ck_assert_uint_eq(event(rig, EV_compact_isolated), 512);
    verify_all(rig, rig->nr_pages);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_compact_direct_threshold_of_1000_keeps_faults_out_of_it)
{
    struct mm_rig *rig = make(true);
    const struct mm_compaction never = {.extfrag_threshold = 1000};
    ck_assert_int_eq(mm_compaction_set(rig->host, &never), 0);
    make_huge_holes(rig, 10);
    unsigned number = use_up(rig, 10);
    uint64_t fallback = event(rig, EV_thp_fault_fallback);
    touch_block(rig, number);
    ck_assert_uint_eq(event(rig, EV_thp_fault_fallback), fallback + 1);
    ck_assert_uint_eq(event(rig, EV_compact_stall), 0);
    mm_rig_destroy(rig);
}
END_TEST

static void lock_blocks(struct mm_rig *rig, unsigned nr, bool lock)
{
    for (unsigned i = 0; i < nr; i++) {
        struct block *block = vm_block(rig->vm, i * BLOCK_PAGES);
        if (lock)
            ck_assert(lock_try(&block->lock));
        else
            lock_release(&block->lock);
    }
}

START_TEST(test_compact_direct_that_fails_backs_off_and_wakes_the_background)
{
    static const unsigned stalls[] = {1, 1, 2, 2, 2, 2, 3};
    struct mm_rig *rig = make(true);
    struct fake_host_stat before, after;
    make_huge_holes(rig, 10);
    unsigned number = use_up(rig, 10);
    fake_host_stat(rig->fh, &before);
    /* the pages cannot be moved: somebody is at their blocks */
    for (unsigned i = 0; i < ARRAY_LEN(stalls); i++) {
        struct mm_thread *thread = rig->thread[0];
        ck_assert_uint_ge(thread->charged[0] + pool_of_rig(rig)->uncharged, 1);
        lock_blocks(rig, 10, true);
        bool got = compact_direct(thread, 0);
        lock_blocks(rig, 10, false);
        ck_assert(!got);
        ck_assert_uint_eq(event(rig, EV_compact_stall), stalls[i]);
        ck_assert_uint_eq(event(rig, EV_compact_fail), stalls[i]);
    }
    fake_host_stat(rig->fh, &after);
    ck_assert_uint_eq(event(rig, EV_compact_daemon_wake), 1);
    ck_assert_uint_eq(after.nr_kicks[MM_HOUSEKEEPER] - before.nr_kicks[MM_HOUSEKEEPER], 1);
    ck_assert_uint_eq(event(rig, EV_pgmigrate_success), 0);
    mm_rig_check(rig);
    /* now they can, and the background does it */
    for (unsigned i = 0; i < 10 && rig->host->node[0].compact.wanted; i++)
        compact_background(rig->thread[0]);
    ck_assert(!rig->host->node[0].compact.wanted);
    uint64_t huge = event(rig, EV_thp_fault_alloc);
    touch_block(rig, number);
    ck_assert_uint_eq(event(rig, EV_thp_fault_alloc), huge + 1);
    verify_all(rig, rig->nr_pages);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_compact_direct_lack_of_memory_is_not_fragmentation)
{
    struct mm_rig *rig = make(true);
    mm_rig_fill(rig, 0, (uint32_t)(BUDGET / PAGE_BYTES) - 3 * BLOCK_PAGES, TEXT);
    struct pool *pool = pool_of_rig(rig);
    uint32_t nr = pool_nr_free(pool) - 40;
    ck_assert_int_eq(pool_charge(pool, nr), 0);
    ck_assert(!compact_direct(rig->thread[0], 0));
    ck_assert_uint_eq(event(rig, EV_compact_stall), 0);
    pool_uncharge(pool, nr);
    mm_rig_destroy(rig);
}
END_TEST

/* ---- the background ---- */

START_TEST(test_compact_background_works_from_the_upper_score_to_the_lower)
{
    struct mm_rig *rig = make(true);
    struct mm_node *node = &rig->host->node[0];
    make_huge_holes(rig, 10);
    use_up(rig, 10);
    unsigned score = compact_score(node);
    ck_assert_uint_gt(score, 15);
    ck_assert(!compact_background(rig->thread[0])); /* by default it begins at 90 */
    ck_assert_uint_eq(event(rig, EV_pgmigrate_success), 0);
    ck_assert_int_eq(mm_compaction_set(rig->host, &(struct mm_compaction){500, 100}), 0);
    for (unsigned i = 0; i < 20; i++)
        compact_background(rig->thread[0]);
    ck_assert_uint_lt(compact_score(node), score / 2);
    ck_assert_uint_eq(event(rig, EV_compact_daemon_wake), 1);
    ck_assert_uint_eq(count_runs(&node->pool.zones[POOL_HUGE]), most_runs(&node->pool.zones[POOL_HUGE]));
    verify_all(rig, rig->nr_pages);
    mm_rig_destroy(rig);
}
END_TEST

/* It rested for 64 calls, and the housekeeper calls again at once while another node's cycle is under way: none rested. */
START_TEST(test_compact_background_that_achieves_nothing_rests_for_a_time)
{
    struct mm_rig *rig = make(true);
    make_huge_holes(rig, 10);
    use_up(rig, 10);
    ck_assert_int_eq(mm_compaction_set(rig->host, &(struct mm_compaction){500, 100}), 0);
    lock_blocks(rig, 10, true);
    for (unsigned i = 0; i < 20 && !rig->host->node[0].compact.rest_until_ns; i++)
        compact_background(rig->thread[0]);
    uint64_t scanned = event(rig, EV_compact_migrate_scanned);
    ck_assert_uint_gt(event(rig, EV_pgmigrate_fail), 0);
    for (unsigned i = 0; i < 200; i++)
        ck_assert(!compact_background(rig->thread[0]));
    ck_assert_uint_eq(event(rig, EV_compact_migrate_scanned), scanned);
    fake_host_advance_ns(rig->fh, UINT64_C(32000000000));
    compact_background(rig->thread[0]);
    ck_assert_uint_gt(event(rig, EV_compact_migrate_scanned), scanned);
    lock_blocks(rig, 10, false);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_compact_settings_out_of_range_are_refused)
{
    struct mm_rig *rig = make(false);
    struct mm_compaction now;
    mm_compaction_get(rig->host, &now);
    ck_assert_uint_eq(now.extfrag_threshold, 500);
    ck_assert_uint_eq(now.proactiveness, 20);
    ck_assert_int_eq(mm_compaction_set(rig->host, &(struct mm_compaction){1001, 20}), -EINVAL);
    ck_assert_int_eq(mm_compaction_set(rig->host, &(struct mm_compaction){0, 101}), -EINVAL);
    mm_compaction_get(rig->host, &now);
    ck_assert_uint_eq(now.extfrag_threshold, 500);
    ck_assert_int_eq(mm_compaction_set(rig->host, &(struct mm_compaction){1000, 100}), 0);
    mm_compaction_get(rig->host, &now);
    ck_assert_uint_eq(now.extfrag_threshold + now.proactiveness, 1100);
    mm_rig_destroy(rig);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("compact");
    TCase *tc = tcase_create("compact");
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, test_compact_checkerboard_reaches_the_theoretical_number_of_runs, 0,
                        2 * (int)ARRAY_LEN(patterns));
    tcase_add_test(tc, test_compact_places_far_apart_are_not_lost_at_the_end_of_a_round);
    tcase_add_test(tc, test_compact_with_pages_that_stay_reaches_the_theoretical_number);
    tcase_add_test(tc, test_compact_moves_nothing_into_reclaimable_pageblocks);
    tcase_add_test(tc, test_compact_of_one_node_leaves_the_other);
    tcase_add_test(tc, test_compact_keeps_the_order_of_eviction);
    tcase_add_test(tc, test_compact_mixed_pageblock_is_given_back_and_becomes_an_empty_run);
    tcase_add_test(tc, test_compact_bad_node_is_refused_and_stopped_host_gives_up);
    tcase_add_test(tc, test_compact_without_spare_memory_moves_nothing);
    tcase_add_test(tc, test_migrate_page_moves_with_its_content_and_place);
    tcase_add_test(tc, test_migrate_keeps_what_is_known_of_the_page);
    tcase_add_test(tc, test_migrate_page_of_busy_block_leaves_everything);
    tcase_add_test(tc, test_migrate_page_that_a_store_is_at_stays);
    tcase_add_test(tc, test_migrate_of_a_refused_page_stays_among_the_refused);
    tcase_add_test(tc, test_migrate_of_what_is_no_single_standby_page_is_refused);
    tcase_add_test(tc, test_compact_host_that_populates_no_more_loses_nothing);
    tcase_add_test(tc, test_compact_direct_fault_gets_its_2_mib_out_of_pieces);
    tcase_add_test(tc, test_compact_direct_threshold_of_1000_keeps_faults_out_of_it);
    tcase_add_test(tc, test_compact_direct_that_fails_backs_off_and_wakes_the_background);
    tcase_add_test(tc, test_compact_direct_lack_of_memory_is_not_fragmentation);
    tcase_add_test(tc, test_compact_background_works_from_the_upper_score_to_the_lower);
    tcase_add_test(tc, test_compact_background_that_achieves_nothing_rests_for_a_time);
    tcase_add_test(tc, test_compact_settings_out_of_range_are_refused);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
