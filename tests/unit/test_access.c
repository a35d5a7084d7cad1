/* SPDX-License-Identifier: Apache-2.0 */
/* Samples beside everything else that happens to a page: pins, drops, pressure, errors, the end of the VM. */
#include "mm/reclaim/evict.h"
#include "tests/fake/fail_alloc.h"
#include "tests/unit/access_rig.h"
#include "tests/unit/page_size_rig.h"

#include <errno.h>

static const struct mm_config huge = {.budget_bytes = 64 * MIB, .thp = true};
static const struct mm_config small = {.budget_bytes = 64 * MIB, .thp = false, .fault_around_pages = 1};

static struct access_stat stat_of(const struct access_rig *a)
{
    struct access_stat stat;
    access_stat(a->rig->host, &stat);
    return stat;
}

static uint8_t age_of(const struct access_rig *a, gfn_t gfn)
{
    struct mm_page_info info;
    ck_assert_int_eq(mm_page_info(a->rig->vm, gpa_of(gfn), &info), 0);
    return info.age;
}

/* Rounds until everything has been looked at. */
static void pass_seconds(struct access_rig *a, unsigned seconds)
{
    for (unsigned t = 0; t < seconds * 10; t++)
        access_pass(a, 100 * MS);
}

static unsigned nr_absent(const struct access_rig *a, gfn_t start, gfn_t end)
{
    unsigned nr = 0;
    for (gfn_t gfn = start; gfn < end; gfn++)
        nr += !mm_rig_is_present(a->rig, gfn);
    return nr;
}

/* Whether a frame could be given back as one, as reclaim sees it. */
static bool has_room(const struct access_rig *a)
{
    const struct pool *pool = &a->rig->host->node[0].pool;
    return pool_nr_free(pool) >= pool->wmark[WMARK_HIGH];
}

START_TEST(test_access_sampled_frame_comes_back_whole_with_its_age)
{
    struct access_rig *a = access_rig_create(&huge, 16 * MIB);
    mm_rig_fill(a->rig, 0, 2 * BLOCK_PAGES, TEXT);
    /* once by reclaim: that raises the age */
    ck_assert_uint_eq(mm_reclaim(a->rig->thread[0], a->rig->vm, BLOCK_PAGES, false), BLOCK_PAGES);
    mm_rig_touch(a->rig, 0, 0);
    ck_assert_uint_eq(age_of(a, 0), 2);
    for (unsigned i = 0; i < 5; i++) {
        pass_seconds(a, 2);
        ck_assert_str_eq(mm_rig_state(a->rig, 0), "standby");
        for (gfn_t gfn = 0; gfn < 2 * BLOCK_PAGES; gfn++)
            mm_rig_verify(a->rig, 0, gfn);
        ck_assert_uint_eq(age_of(a, 0), 2);
        ck_assert_uint_eq(age_of(a, BLOCK_PAGES), 0);
    }
    struct fake_host_stat fake;
    fake_host_stat(a->rig->fh, &fake);
    ck_assert_uint_eq(fake.nr_splits, 0);
    ck_assert_uint_eq(stat_of(a).nr_samples, 10);
    access_rig_destroy(a);
}
END_TEST

/* 1% of 200 s is 2 s: 40 faults of 50 ms, which the fake host's clock does not see. */
START_TEST(test_access_a_guest_got_nothing_done_where_the_kernel_zeroes_2m_in_each_fault)
{
    struct access_rig *a = access_rig_create(&huge, 32 * MIB);
    fake_host_ops(a->rig->fh)->block_fault_ns = 50 * MS;
    mm_rig_fill(a->rig, 0, a->rig->nr_pages, TEXT);
    for (unsigned second = 0; second < 200; second++) {
        pass_seconds(a, 1);
        for (gfn_t gfn = 0; gfn < a->rig->nr_pages; gfn += BLOCK_PAGES)
            mm_rig_verify(a->rig, 0, gfn);
    }
    ck_assert_uint_ge(stat_of(a).nr_samples, 30);
    ck_assert_uint_le(stat_of(a).nr_samples, 60); /* what the first ones cost is not known yet */
    ck_assert_uint_ge(stat_of(a).sample_ns, stat_of(a).nr_hits * 50 * MS);
    access_rig_destroy(a);
}
END_TEST

/* A fault cost its thread more before and after mm_fault than in it, and the quota of 1% was 2.7% of a CPU. */
START_TEST(test_access_samples_pay_for_what_faults_cost_their_threads)
{
    uint64_t nr_samples[2];
    for (unsigned dear = 0; dear < 2; dear++) {
        struct access_rig *a = access_rig_create(&small, 16 * MIB);
        fake_host_ops(a->rig->fh)->fault_ns = dear ? 5 * MS : 0;
        mm_rig_fill(a->rig, 0, a->rig->nr_pages, TEXT);
        for (unsigned second = 0; second < 100; second++) {
            pass_seconds(a, 1);
            for (gfn_t gfn = 0; gfn < a->rig->nr_pages; gfn++)
                mm_rig_verify(a->rig, 0, gfn);
        }
        nr_samples[dear] = stat_of(a).nr_samples;
        ck_assert_uint_ge(stat_of(a).sample_ns, stat_of(a).nr_hits * (dear ? 5 * MS : 0));
        access_rig_destroy(a);
    }
    ck_assert_uint_gt(nr_samples[0], 2000);
    ck_assert_uint_ge(nr_samples[1], 150);
    ck_assert_uint_le(nr_samples[1], 300); /* 1% of 100 s, and what the first ones cost is not known yet */
}
END_TEST

/* Reclaim split a frame that the scanner had taken home: pages were said to be idle since the machine was started. */
START_TEST(test_access_no_page_is_idle_longer_than_since_its_last_access)
{
    const struct mm_config config = {.budget_bytes = 64 * MIB, .thp = true, .zram = {.limit_bytes = 16 * MIB}};
    struct access_rig *a = access_rig_create(&config, 16 * MIB);
    mm_rig_fill(a->rig, 0, BLOCK_PAGES, TEXT);
    pass_seconds(a, 2);
    ck_assert_str_eq(mm_rig_state(a->rig, 0), "standby");
    ck_assert_uint_gt(evict_standby(a->rig->thread[0], 0, 32, RECLAIM_DIRECT), 0);
    struct access_idle idle = access_look(a);
    ck_assert_uint_eq(idle.idle_bytes[0], BLOCK_BYTES);
    ck_assert_uint_eq(idle.idle_bytes[2], 0);
    access_rig_destroy(a);
}
END_TEST

/* Loaded before the guest ran, for one: nothing is known of it but the age of the VM. */
START_TEST(test_access_no_page_is_idle_longer_than_its_vm_lives)
{
    struct access_rig *a = access_rig_create(&small, 16 * MIB);
    const struct mm_region region = {.bytes = 4 * MIB};
    struct access_idle idle;
    struct mm_vm *vm;
    ck_assert_int_eq(mm_vm_create(a->rig->host, &region, 1, &vm), 0);
    fake_host_add_vm(a->rig->fh, mm_vm_id(vm), 4 * MIB / PAGE_BYTES);
    ck_assert_int_eq(mm_fault(a->rig->thread[0], vm, (gpa_t){0}, MM_FAULT_WRITE), 0);
    vm_block(vm, 0)->access.whole = (struct access_watch){.armed_ns = 1};
    fake_host_advance_ns(a->rig->fh, 5 * SECOND);
    access_idle(vm, &idle);
    ck_assert_uint_eq(idle.idle_bytes[2], PAGE_BYTES);
    ck_assert_uint_eq(idle.idle_bytes[3], 0);
    mm_vm_destroy(a->rig->thread[0], vm);
    access_rig_destroy(a);
}
END_TEST

/* A minute's working set larger than memory: the half of it that had left for zram was not mentioned. */
START_TEST(test_access_working_set_mentions_what_left_in_its_time)
{
    const struct mm_config config = {.budget_bytes = 16 * MIB, .thp = false, .zram = {.limit_bytes = 8 * MIB}};
    struct access_rig *a = access_rig_create(&config, 16 * MIB);
    for (gfn_t gfn = 0; gfn < a->rig->nr_pages; gfn++)
        mm_rig_write(a->rig, 0, gfn, TEXT);
    struct access_idle idle = access_look(a);
    for (unsigned i = 0; i < ACCESS_NR_WINDOWS; i++)
        ck_assert_uint_eq(idle.working_set[i].bytes + idle.working_set[i].left_bytes, 16 * MIB);
    pass_seconds(a, 20);
    idle = access_look(a);
    ck_assert_uint_eq(idle.working_set[0].left_bytes + idle.working_set[1].left_bytes, 0);
    ck_assert_uint_gt(idle.working_set[2].left_bytes, 0);
    access_rig_destroy(a);
}
END_TEST

START_TEST(test_access_sampled_page_comes_back_with_its_age)
{
    struct access_rig *a = access_rig_create(&small, 16 * MIB);
    mm_rig_fill(a->rig, 0, BLOCK_PAGES, TEXT);
    for (unsigned i = 0; i < 20; i++) {
        pass_seconds(a, 2);
        /* now and then one gives way to another, and stays out until it is touched */
        ck_assert_uint_ge(nr_absent(a, 0, BLOCK_PAGES), ACCESS_PANEL);
        ck_assert_uint_le(nr_absent(a, 0, BLOCK_PAGES), ACCESS_PANEL + 1);
        for (gfn_t gfn = 0; gfn < BLOCK_PAGES; gfn++) {
            mm_rig_verify(a->rig, 0, gfn);
            ck_assert_uint_eq(age_of(a, gfn), 0);
        }
    }
    ck_assert_uint_ge(stat_of(a).nr_samples, 20 * ACCESS_PANEL);
    access_rig_destroy(a);
}
END_TEST

/* What is never touched again is out once, however often the scanner looks. */
START_TEST(test_access_idle_block_of_pages_has_no_more_than_a_panel_out)
{
    struct access_rig *a = access_rig_create(&small, 16 * MIB);
    mm_rig_fill(a->rig, 0, BLOCK_PAGES, TEXT);
    pass_seconds(a, 30);
    ck_assert_uint_eq(nr_absent(a, 0, BLOCK_PAGES), ACCESS_PANEL);
    ck_assert_uint_eq(stat_of(a).nr_samples, ACCESS_PANEL);
    ck_assert_uint_eq(access_look(a).idle_bytes[4], BLOCK_BYTES);
    access_rig_destroy(a);
}
END_TEST

START_TEST(test_access_pinned_block_is_passed_over)
{
    struct access_rig *a = access_rig_create(&huge, 16 * MIB);
    mm_rig_fill(a->rig, 0, 2 * BLOCK_PAGES, TEXT);
    ck_assert_int_eq(mm_pin(a->rig->thread[0], a->rig->vm, gpa_of(5), 100), 0);
    pass_seconds(a, 3);
    ck_assert(mm_rig_is_present(a->rig, 0));
    ck_assert(!mm_rig_is_present(a->rig, BLOCK_PAGES));
    mm_unpin(a->rig->vm, gpa_of(5), 100);
    pass_seconds(a, 3);
    ck_assert(!mm_rig_is_present(a->rig, 0));
    access_rig_destroy(a);
}
END_TEST

START_TEST(test_access_nothing_is_sampled_while_the_host_thrashes)
{
    struct access_rig *a = access_rig_create(&huge, 16 * MIB);
    mm_rig_fill(a->rig, 0, 2 * BLOCK_PAGES, TEXT);
    mm_rig_has_thrashed(a->rig, 1, SECOND);
    for (unsigned i = 0; i < 3; i++) {
        a->rig->host->lru.mistakes += 100;
        pass_seconds(a, 1);
    }
    ck_assert_uint_eq(stat_of(a).nr_samples, 0);
    a->rig->host->lru.nr_thrashing = 0;
    pass_seconds(a, 3);
    ck_assert_uint_eq(stat_of(a).nr_samples, 2);
    access_rig_destroy(a);
}
END_TEST

/* A guest filled more than fits, then works on what fits: nothing is stored, so no epoch ends that would be a good one. */
START_TEST(test_access_sampling_goes_on_when_thrashing_is_over_though_no_epoch_ends)
{
    struct access_rig *a = access_rig_create(&huge, 16 * MIB);
    mm_rig_fill(a->rig, 0, 2 * BLOCK_PAGES, TEXT);
    mm_rig_has_thrashed(a->rig, 1, SECOND);
    a->rig->host->lru.mistakes = 100;
    pass_seconds(a, 4);
    ck_assert_uint_eq(stat_of(a).nr_samples, 2);
    access_rig_destroy(a);
}
END_TEST

/* Below the high watermark a frame that reclaim took would come back in single pages. */
START_TEST(test_access_frame_without_room_for_its_return_stays)
{
    const struct mm_config config = {.budget_bytes = 16 * MIB, .thp = true, .fault_around_pages = 1};
    struct access_rig *a = access_rig_create(&config, 32 * MIB);
    mm_rig_fill(a->rig, 0, 6 * BLOCK_PAGES, TEXT);
    gfn_t gfn = 6 * BLOCK_PAGES;
    while (has_room(a))
        ck_assert_int_eq(mm_rig_write(a->rig, 0, gfn++, TEXT), 0);
    pass_seconds(a, 3);
    for (gfn_t i = 0; i < 6 * BLOCK_PAGES; i += BLOCK_PAGES)
        ck_assert(mm_rig_is_present(a->rig, i));
    access_rig_destroy(a);
}
END_TEST

START_TEST(test_access_frame_that_is_out_comes_back_whole_though_memory_became_short)
{
    const struct mm_config config = {.budget_bytes = 16 * MIB, .thp = true, .fault_around_pages = 1};
    struct access_rig *a = access_rig_create(&config, 32 * MIB);
    struct fake_host_stat fake;
    mm_rig_fill(a->rig, 0, BLOCK_PAGES, TEXT);
    pass_seconds(a, 1);
    ck_assert(!mm_rig_is_present(a->rig, 0));
    gfn_t gfn = 2 * BLOCK_PAGES;
    while (has_room(a))
        ck_assert_int_eq(mm_rig_write(a->rig, 0, gfn++, TEXT), 0);
    mm_rig_verify(a->rig, 0, 7);
    ck_assert_uint_eq(nr_absent(a, 0, BLOCK_PAGES), 0);
    fake_host_stat(a->rig->fh, &fake);
    ck_assert_uint_eq(fake.nr_splits, 0);
    access_rig_destroy(a);
}
END_TEST

/* The youngest of standby: what reclaim took before is evicted before it. */
START_TEST(test_access_sampled_pages_leave_after_those_that_reclaim_took)
{
    const struct mm_config config = {
        .budget_bytes = 64 * MIB, .thp = false, .fault_around_pages = 1, .zram = {.limit_bytes = 8 * MIB}};
    struct access_rig *a = access_rig_create(&config, 16 * MIB);
    mm_rig_fill(a->rig, 0, BLOCK_PAGES, TEXT);
    ck_assert_uint_eq(mm_reclaim(a->rig->thread[0], a->rig->vm, BLOCK_PAGES, false), BLOCK_PAGES);
    mm_rig_fill(a->rig, BLOCK_PAGES, 2 * BLOCK_PAGES, TEXT);
    pass_seconds(a, 2);
    ck_assert_uint_eq(nr_absent(a, BLOCK_PAGES, 2 * BLOCK_PAGES), ACCESS_PANEL);
    ck_assert_uint_eq(evict_standby(a->rig->thread[0], 0, BLOCK_PAGES, RECLAIM_KSWAPD), BLOCK_PAGES);
    for (gfn_t gfn = 0; gfn < BLOCK_PAGES; gfn++)
        ck_assert_str_eq(mm_rig_state(a->rig, gfn), "zram");
    ck_assert_uint_eq(host_nr_standby(a->rig->host), ACCESS_PANEL);
    access_rig_destroy(a);
}
END_TEST

START_TEST(test_access_drop_of_memory_that_is_out_makes_it_never_touched)
{
    struct access_rig *a = access_rig_create(&huge, 16 * MIB);
    uint64_t dropped;
    mm_rig_fill(a->rig, 0, 3 * BLOCK_PAGES, TEXT);
    pass_seconds(a, 2);
    ck_assert_uint_eq(access_look(a).never_bytes, 16 * MIB - 3 * BLOCK_BYTES);
    ck_assert_int_eq(mm_drop(a->rig->thread[0], a->rig->vm, gpa_of(0), BLOCK_BYTES, MM_DROP_FREE, 0, &dropped), 0);
    ck_assert_int_eq(
        mm_drop(a->rig->thread[0], a->rig->vm, gpa_of(BLOCK_PAGES), BLOCK_BYTES, MM_DROP_BALLOON, 0, &dropped), 0);
    /* a part of the third one: it is in single pages from now on */
    ck_assert_int_eq(
        mm_drop(a->rig->thread[0], a->rig->vm, gpa_of(2 * BLOCK_PAGES), 16 * PAGE_BYTES, MM_DROP_FREE, 0, &dropped), 0);
    mm_rig_check(a->rig);
    ck_assert_uint_eq(access_look(a).never_bytes, 16 * MIB - BLOCK_BYTES + 16 * PAGE_BYTES);
    ck_assert_int_eq(mm_plug(a->rig->thread[0], a->rig->vm, gpa_of(4 * BLOCK_PAGES), BLOCK_BYTES, false), 0);
    ck_assert_uint_eq(access_look(a).memory_bytes, 16 * MIB - BLOCK_BYTES);
    pass_seconds(a, 3);
    for (gfn_t gfn = 2 * BLOCK_PAGES + 16; gfn < 3 * BLOCK_PAGES; gfn++)
        mm_rig_verify(a->rig, 0, gfn);
    access_rig_destroy(a);
}
END_TEST

/* Each call of the host fails once, before and after it did half of its work. */
START_TEST(test_access_failing_host_loses_no_page)
{
    static const enum fake_op ops[] = {FAKE_TAKE, FAKE_PLACE, FAKE_PLACE_COPY};
    static const int errors[] = {ENOMEM, EBUSY};
    struct mm_config config = _i ? huge : small;
    config.budget_bytes = 16 * MIB; /* a fake host takes as long to make as it is large */
    for (unsigned op = 0; op < ARRAY_LEN(ops); op++)
        for (unsigned e = 0; e < ARRAY_LEN(errors); e++)
            for (long nth = 1; nth <= 6; nth++)
                for (uint32_t after = 0; after <= 200; after += 200) {
                    struct access_rig *a = access_rig_create(&config, 8 * MIB);
                    mm_rig_fill(a->rig, 0, 2 * BLOCK_PAGES, TEXT);
                    const struct fake_failure failure = {
                        .op = ops[op], .nth = nth, .err = errors[e], .after_pages = after};
                    fake_host_fail(a->rig->fh, &failure);
                    for (unsigned t = 0; t < 6; t++) {
                        pass_seconds(a, 1);
                        for (gfn_t gfn = t % 2; gfn < 2 * BLOCK_PAGES; gfn += 2) {
                            int err = mm_rig_touch(a->rig, 0, gfn);
                            ck_assert(!err || fake_host_failed(a->rig->fh));
                        }
                        mm_rig_check(a->rig);
                    }
                    for (gfn_t gfn = 0; gfn < 2 * BLOCK_PAGES; gfn++)
                        mm_rig_verify(a->rig, 0, gfn);
                    access_rig_destroy(a);
                }
}
END_TEST

START_TEST(test_access_vm_goes_while_its_memory_is_out)
{
    struct access_rig *a = access_rig_create(_i ? &huge : &small, 16 * MIB);
    mm_rig_fill(a->rig, 0, 4 * BLOCK_PAGES, TEXT);
    pass_seconds(a, 3);
    ck_assert_uint_gt(nr_absent(a, 0, 4 * BLOCK_PAGES), 0);
    access_rig_destroy(a);
}
END_TEST

START_TEST(test_access_without_memory_for_a_map_goes_on_without)
{
    static struct access_map map;
    struct access_rig *a = access_rig_create(&huge, 16 * MIB);
    for (long nth = 1; nth <= 2; nth++) {
        fail_alloc_at(nth);
        access_pass(a, 100 * MS);
        ck_assert(fail_alloc_fired());
        access_map(a->rig->vm, &map);
        ck_assert_uint_eq(map.nr_columns, 0);
    }
    fail_alloc_at(-1);
    pass_seconds(a, 2);
    access_map(a->rig->vm, &map);
    ck_assert_uint_gt(map.nr_columns, 3);
    access_rig_destroy(a);
}
END_TEST

/* ---- heat map ---- */

START_TEST(test_access_map_tells_hot_from_cold_from_never)
{
    static struct access_map map;
    struct access_rig *a = access_rig_create(_i ? &huge : &small, 16 * MIB);
    mm_rig_fill(a->rig, 0, 2 * BLOCK_PAGES, TEXT);
    for (unsigned t = 0; t < 200; t++) {
        access_pass(a, 100 * MS);
        access_touch_pages(a, 0, BLOCK_PAGES);
    }
    access_map(a->rig->vm, &map);
    ck_assert_uint_eq(map.nr_rows, 8);
    ck_assert_uint_ge(map.nr_columns, 75);
    ck_assert_uint_le(map.nr_columns, 81);
    ck_assert_uint_eq(map.column_ns, 250 * MS);
    ck_assert_uint_ge(map.age_ns, 19 * SECOND);
    for (unsigned row = 0; row < 8; row++) {
        ck_assert_uint_eq(map.row_start[row].v, row * BLOCK_BYTES);
        ck_assert_uint_eq(map.row_bytes[row], BLOCK_BYTES);
    }
    for (unsigned column = 20; column < map.nr_columns; column++) {
        ck_assert_uint_ge(map.cell[0][column], ACCESS_CELL_FULL / 2);
        ck_assert_uint_eq(map.cell[1][column], 0);
        ck_assert_uint_eq(map.cell[2][column], ACCESS_CELL_NEVER);
    }
    access_rig_destroy(a);
}
END_TEST

/* 256 KiB of a VM's heat map were in no figure. */
START_TEST(test_access_heat_map_is_counted_as_metadata)
{
    struct access_rig *a = access_rig_create(&huge, 16 * MIB);
    struct mm_host_stat stat[2];
    mm_host_stat(a->rig->host, &stat[0]);
    for (unsigned t = 0; t < 3; t++)
        access_pass(a, 100 * MS);
    mm_host_stat(a->rig->host, &stat[1]);
    ck_assert_uint_eq(stat[1].metadata_blocks_bytes - stat[0].metadata_blocks_bytes, 8 * ACCESS_MAP_COLUMNS);
    access_rig_destroy(a);
}
END_TEST

/* In use all the time, in single pages and then as one frame: it was drawn as cold from then on until the next look. */
START_TEST(test_access_block_in_use_that_becomes_one_frame_is_not_cold_in_the_map)
{
    static const struct mm_config config = {.budget_bytes = 64 * MIB, .thp = true, .collapse_pct = 1};
    static struct access_map map;
    struct access_rig *a = access_rig_create(&config, 16 * MIB);
    bool huge_now = false, idle_then = false;
    make_single(a->rig, 0, TEXT);
    for (unsigned t = 0; t < 150; t++) {
        access_pass(a, 100 * MS);
        access_touch_pages(a, 0, BLOCK_PAGES);
        if (t >= 40 && !huge_now) {
            ck_assert_uint_gt(collapse_scan(a->rig->thread[1]), 0);
            huge_now = is_huge(a->rig, 0);
            idle_then = huge_now && access_look(a).unwatched_bytes > 0;
        }
    }
    ck_assert(huge_now);
    ck_assert_msg(!idle_then, "a frame whose pages were watched counts as never looked at");
    access_map(a->rig->vm, &map);
    ck_assert_uint_ge(map.nr_columns, 50);
    for (unsigned column = 8; column < map.nr_columns; column++)
        ck_assert_msg(map.cell[0][column] > 0, "cold in column %u", column);
    access_rig_destroy(a);
}
END_TEST

/* A guest that fills 100 MiB before the scanner comes to look: it was drawn as memory that nobody touched. */
START_TEST(test_access_map_has_what_was_touched_before_the_first_look)
{
    static struct access_map map;
    struct access_rig *a = access_rig_create(_i ? &huge : &small, 16 * MIB);
    access_touch_pages(a, 0, BLOCK_PAGES);
    fake_host_advance_ns(a->rig->fh, 100 * MS);
    pass_seconds(a, 2);
    access_map(a->rig->vm, &map);
    ck_assert_uint_gt(map.nr_columns, 4);
    ck_assert_uint_eq(map.cell[0][0], ACCESS_CELL_FULL);
    ck_assert_uint_eq(map.cell[0][map.nr_columns - 1], 0);
    access_rig_destroy(a);
}
END_TEST

static void check_columns(const struct access_map *map, unsigned row, unsigned from, unsigned end, unsigned cell)
{
    for (unsigned column = from; column < end; column++)
        ck_assert_msg(map->cell[row][column] == cell, "row %u column %u is %u", row, column, map->cell[row][column]);
}

/* Filled, and one block in use ever since, while nothing is sampled: all was drawn as cold. */
START_TEST(test_access_map_of_memory_that_nobody_has_looked_at_is_not_cold)
{
    static struct access_map map;
    struct access_rig *a = access_rig_create(_i ? &huge : &small, 16 * MIB);
    access_configure(a->rig->host, 0, NULL);
    mm_rig_fill(a->rig, 0, 2 * BLOCK_PAGES, TEXT);
    for (unsigned t = 0; t < 120; t++) {
        if (t == 60)
            access_configure(a->rig->host, ACCESS_QUOTA_MAX_MPCT, NULL);
        access_pass(a, 100 * MS);
        access_touch_pages(a, 0, BLOCK_PAGES);
    }
    access_map(a->rig->vm, &map);
    ck_assert_uint_ge(map.nr_columns, 44);
    for (unsigned row = 0; row < 2; row++) {
        ck_assert_uint_eq(map.cell[row][0], ACCESS_CELL_FULL);
        check_columns(&map, row, 2, 20, ACCESS_CELL_UNSEEN);
    }
    for (unsigned column = 32; column < map.nr_columns; column++)
        ck_assert(map.cell[0][column] > 0 && map.cell[0][column] <= ACCESS_CELL_FULL);
    check_columns(&map, 1, 32, map.nr_columns, 0);
    check_columns(&map, 2, 0, map.nr_columns, ACCESS_CELL_NEVER);
    access_rig_destroy(a);
}
END_TEST

/* Nothing is sampled for 1,250 s, then for as long again: neither what was not known nor what was is lost in wide columns. */
START_TEST(test_access_map_of_a_long_run_keeps_what_nobody_has_looked_at)
{
    static struct access_map map;
    struct access_rig *a = access_rig_create(_i ? &huge : &small, 8 * MIB);
    access_configure(a->rig->host, 0, NULL);
    mm_rig_fill(a->rig, 0, BLOCK_PAGES, TEXT);
    access_pass(a, 100 * MS);
    for (unsigned t = 0; t < 2500; t++) {
        if (t == 1250)
            access_configure(a->rig->host, ACCESS_QUOTA_MAX_MPCT, NULL);
        access_pass(a, SECOND);
    }
    access_map(a->rig->vm, &map);
    ck_assert_uint_eq(map.column_ns, 32 * 250 * MS);
    ck_assert_uint_gt(map.nr_columns, 2450 / 8);
    ck_assert_uint_eq(map.cell[0][0], ACCESS_CELL_FULL);
    check_columns(&map, 0, 1, 1240 / 8, ACCESS_CELL_UNSEEN);
    check_columns(&map, 0, 1280 / 8, map.nr_columns, 0);
    access_rig_destroy(a);
}
END_TEST

/* 5,000 columns' worth of time: it stays within its bounds, and the first second is still the first column. */
START_TEST(test_access_map_of_a_long_run_halves_its_resolution)
{
    static struct access_map map;
    struct access_rig *a = access_rig_create(&huge, 8 * MIB);
    mm_rig_fill(a->rig, 0, 2 * BLOCK_PAGES, TEXT);
    for (unsigned t = 0; t < 1250; t++) {
        access_pass(a, SECOND);
        if (t < 625)
            access_touch_page(a, 0);
    }
    access_map(a->rig->vm, &map);
    ck_assert_uint_eq(map.column_ns, 16 * 250 * MS);
    ck_assert_uint_gt(map.nr_columns, 1200 / 4);
    ck_assert_uint_le(map.nr_columns, 1260 / 4);
    ck_assert_uint_ge(map.age_ns, map.nr_columns * map.column_ns);
    for (unsigned column = 2; column + 2 < map.nr_columns; column++) {
        if (column < 620 / 4)
            ck_assert_uint_gt(map.cell[0][column], 0);
        if (column > 640 / 4)
            ck_assert_uint_eq(map.cell[0][column], 0);
        ck_assert_uint_eq(map.cell[1][column], 0);
    }
    access_rig_destroy(a);
}
END_TEST

/* 1,100 blocks in two regions: three a row, and no row holds parts of both. */
START_TEST(test_access_map_of_much_memory_has_rows_of_several_blocks)
{
    static struct access_map map;
    const struct mm_region regions[] = {{.start = {0}, .bytes = 100 * BLOCK_BYTES},
                                        {.start = {UINT64_C(1) << 32}, .bytes = 1000 * BLOCK_BYTES}};
    struct access_rig *a = access_rig_create(&huge, 8 * MIB);
    struct mm_vm *vm;
    ck_assert_int_eq(mm_vm_create(a->rig->host, regions, 2, &vm), 0);
    pass_seconds(a, 2);
    access_map(vm, &map);
    ck_assert_uint_eq(map.nr_rows, 34 + 334);
    ck_assert_uint_eq(map.row_start[33].v, 99 * BLOCK_BYTES);
    ck_assert_uint_eq(map.row_bytes[33], BLOCK_BYTES);
    ck_assert_uint_eq(map.row_start[34].v, UINT64_C(1) << 32);
    ck_assert_uint_eq(map.row_bytes[34], 3 * BLOCK_BYTES);
    ck_assert_uint_gt(map.nr_columns, 3);
    ck_assert_uint_eq(map.cell[367][0], ACCESS_CELL_NEVER);
    mm_vm_destroy(a->rig->thread[0], vm);
    access_rig_destroy(a);
}
END_TEST

/* ---- a source ---- */

struct fake_source {
    struct access_rig *a;
    gfn_t hot_end; /* pages below it were touched since the last poll */
    unsigned nr_polls, fails_at;
};

static int fake_poll(void *ctx, access_report_fn *report, void *report_ctx)
{
    struct fake_source *fake = ctx;
    vmid_t id = mm_vm_id(fake->a->rig->vm);
    if (++fake->nr_polls == fake->fails_at)
        return -EIO;
    report(report_ctx, id, 0, fake->hot_end, true);
    report(report_ctx, id, fake->hot_end, fake->a->rig->nr_pages - fake->hot_end, false);
    report(report_ctx, 77, 0, 512, true); /* a VM that is gone */
    return 0;
}

START_TEST(test_access_source_is_believed_and_nothing_is_taken)
{
    struct access_rig *a = access_rig_create(_i ? &huge : &small, 16 * MIB);
    struct fake_source fake = {.a = a, .hot_end = 3 * BLOCK_PAGES};
    const struct access_source source = {.name = "fake", .period_ms = 1000, .poll = fake_poll, .ctx = &fake};
    access_configure(a->rig->host, 1000, &source);
    mm_rig_fill(a->rig, 0, 8 * BLOCK_PAGES, TEXT);
    pass_seconds(a, 30);
    ck_assert_str_eq(stat_of(a).source, "fake");
    ck_assert_uint_eq(stat_of(a).nr_samples, 0);
    ck_assert_uint_eq(nr_absent(a, 0, 8 * BLOCK_PAGES), 0);
    ck_assert_uint_ge(fake.nr_polls, 28);
    ck_assert_uint_le(fake.nr_polls, 31);
    struct access_idle idle = access_look(a);
    ck_assert_uint_eq(idle.working_set[1].bytes, 3 * BLOCK_BYTES);
    ck_assert_uint_eq(idle.idle_bytes[4], 5 * BLOCK_BYTES);
    /* reclaim takes what it likes of it */
    mm_reclaim(a->rig->thread[0], a->rig->vm, 4 * BLOCK_PAGES, false);
    pass_seconds(a, 2);
    for (gfn_t gfn = 0; gfn < 8 * BLOCK_PAGES; gfn++)
        mm_rig_verify(a->rig, 0, gfn);
    ck_assert_uint_eq(stat_of(a).nr_hits, 0);
    access_rig_destroy(a);
}
END_TEST

START_TEST(test_access_source_that_breaks_gives_way_to_samples)
{
    struct access_rig *a = access_rig_create(_i ? &huge : &small, 16 * MIB);
    struct fake_source fake = {.a = a, .hot_end = 3 * BLOCK_PAGES, .fails_at = 3};
    const struct access_source source = {.name = "fake", .period_ms = 1000, .poll = fake_poll, .ctx = &fake};
    access_configure(a->rig->host, 1000, &source);
    mm_rig_fill(a->rig, 0, 8 * BLOCK_PAGES, TEXT);
    pass_seconds(a, 20);
    ck_assert_uint_eq(fake.nr_polls, 3);
    ck_assert_str_eq(stat_of(a).source, "refault");
    ck_assert_int_eq(stat_of(a).source_err, -EIO);
    ck_assert_uint_ge(stat_of(a).nr_samples, 8);
    for (gfn_t gfn = 0; gfn < 8 * BLOCK_PAGES; gfn++)
        mm_rig_verify(a->rig, 0, gfn);
    access_rig_destroy(a);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("access");
    TCase *tc = tcase_create("access");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, test_access_sampled_frame_comes_back_whole_with_its_age);
    tcase_add_test(tc, test_access_a_guest_got_nothing_done_where_the_kernel_zeroes_2m_in_each_fault);
    tcase_add_test(tc, test_access_sampled_page_comes_back_with_its_age);
    tcase_add_test(tc, test_access_samples_pay_for_what_faults_cost_their_threads);
    tcase_add_test(tc, test_access_no_page_is_idle_longer_than_since_its_last_access);
    tcase_add_test(tc, test_access_no_page_is_idle_longer_than_its_vm_lives);
    tcase_add_test(tc, test_access_working_set_mentions_what_left_in_its_time);
    tcase_add_test(tc, test_access_idle_block_of_pages_has_no_more_than_a_panel_out);
    tcase_add_test(tc, test_access_pinned_block_is_passed_over);
    tcase_add_test(tc, test_access_nothing_is_sampled_while_the_host_thrashes);
    tcase_add_test(tc, test_access_sampling_goes_on_when_thrashing_is_over_though_no_epoch_ends);
    tcase_add_test(tc, test_access_frame_without_room_for_its_return_stays);
    tcase_add_test(tc, test_access_frame_that_is_out_comes_back_whole_though_memory_became_short);
    tcase_add_test(tc, test_access_sampled_pages_leave_after_those_that_reclaim_took);
    tcase_add_test(tc, test_access_drop_of_memory_that_is_out_makes_it_never_touched);
    tcase_add_loop_test(tc, test_access_failing_host_loses_no_page, 0, 2);
    tcase_add_loop_test(tc, test_access_vm_goes_while_its_memory_is_out, 0, 2);
    tcase_add_test(tc, test_access_without_memory_for_a_map_goes_on_without);
    tcase_add_loop_test(tc, test_access_map_tells_hot_from_cold_from_never, 0, 2);
    tcase_add_test(tc, test_access_heat_map_is_counted_as_metadata);
    tcase_add_test(tc, test_access_block_in_use_that_becomes_one_frame_is_not_cold_in_the_map);
    tcase_add_loop_test(tc, test_access_map_has_what_was_touched_before_the_first_look, 0, 2);
    tcase_add_loop_test(tc, test_access_map_of_memory_that_nobody_has_looked_at_is_not_cold, 0, 2);
    tcase_add_loop_test(tc, test_access_map_of_a_long_run_keeps_what_nobody_has_looked_at, 0, 2);
    tcase_add_test(tc, test_access_map_of_a_long_run_halves_its_resolution);
    tcase_add_test(tc, test_access_map_of_much_memory_has_rows_of_several_blocks);
    tcase_add_loop_test(tc, test_access_source_is_believed_and_nothing_is_taken, 0, 2);
    tcase_add_loop_test(tc, test_access_source_that_breaks_gives_way_to_samples, 0, 2);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
