/* SPDX-License-Identifier: Apache-2.0 */
/* What access says of a guest whose every access is known: idle ages, working sets, cost. */
#include "tests/unit/access_rig.h"

#include <math.h>

/* Room for VMs of up to 64 MiB, and of 128 MiB: a fake host takes as long to make as it is large. */
static const struct mm_config huge = {.budget_bytes = 80 * MIB, .thp = true};
static const struct mm_config small = {.budget_bytes = 80 * MIB, .thp = false};
static const struct mm_config small_128 = {.budget_bytes = 160 * MIB, .thp = false};

static struct access_idle sum_of(const struct access_rig *a)
{
    struct access_idle sum = {0}, idle = access_look(a);
    access_idle_add(&sum, &idle);
    ck_assert_uint_eq(sum.memory_bytes, a->rig->nr_pages * PAGE_BYTES);
    for (unsigned i = 1; i < ACCESS_IDLE_STEPS; i++)
        ck_assert_uint_le(sum.idle_bytes[i], sum.idle_bytes[i - 1]);
    ck_assert_uint_le(sum.idle_bytes[0] + sum.never_bytes + sum.unwatched_bytes, sum.memory_bytes);
    return sum;
}

/* Block i of 16 is touched every 2^(i / 2) * 0.1 s; what is said of each age differs by a look or two at most. */
START_TEST(test_access_idle_histogram_agrees_with_a_model_of_all_accesses)
{
    struct access_rig *a = access_rig_create(&huge, 64 * MIB);
    const gfn_t blocks = 24;
    const uint64_t step = 100 * MS;
    access_touch_pages(a, 0, blocks * BLOCK_PAGES);
    for (unsigned t = 1; t <= 800; t++) {
        access_pass(a, step);
        for (gfn_t i = 0; i < blocks; i++)
            if (t % (1u << i / 2) == 0)
                access_touch_page(a, i * BLOCK_PAGES + t % BLOCK_PAGES);
    }
    struct access_idle idle = sum_of(a);
    ck_assert_uint_eq(idle.never_bytes, 64 * MIB - blocks * BLOCK_BYTES);
    for (unsigned i = 0; i < 8; i++) {
        uint64_t age = (UINT64_C(1) << i) * SECOND, early = age - MIN_OF(age, 1300 * MS), late = age + 1300 * MS;
        ck_assert_uint_le(idle.idle_bytes[i], access_truth(a, BLOCK_PAGES, early, true));
        ck_assert_uint_ge(idle.idle_bytes[i], access_truth(a, BLOCK_PAGES, late, true));
    }
    ck_assert_uint_gt(idle.idle_bytes[3], 0);
    ck_assert_uint_lt(idle.idle_bytes[3], blocks * BLOCK_BYTES);
    ck_assert_uint_eq(idle.unwatched_bytes, 0);
    access_rig_destroy(a);
}
END_TEST

START_TEST(test_access_memory_that_is_left_ages_from_its_last_access)
{
    struct access_rig *a = access_rig_create(&huge, 16 * MIB);
    access_touch_pages(a, 0, 4 * BLOCK_PAGES);
    for (unsigned t = 0; t < 50; t++) {
        access_pass(a, 100 * MS);
        for (gfn_t i = 0; i < 4; i++)
            access_touch_page(a, i * BLOCK_PAGES);
    }
    for (unsigned t = 0; t < 400; t++)
        access_pass(a, 100 * MS);
    struct access_idle idle = sum_of(a);
    ck_assert_uint_eq(idle.idle_bytes[5], 4 * BLOCK_BYTES);
    ck_assert_uint_eq(idle.idle_bytes[6], 0);
    ck_assert_uint_eq(idle.working_set[1].bytes, 0);
    ck_assert_uint_eq(idle.working_set[2].bytes, 4 * BLOCK_BYTES);
    access_rig_destroy(a);
}
END_TEST

/* Runs @touch every 100 ms for @seconds and compares what is said of 10 seconds with the truth, several times over. */
static void check_working_set(struct access_rig *a, void (*touch)(struct access_rig *a, unsigned t), unsigned seconds,
                              uint32_t unit_pages)
{
    double said = 0, truth = 0;
    a->unchecked = true;
    for (unsigned t = 0; t < seconds * 10; t++) {
        touch(a, t);
        access_pass(a, 100 * MS);
        if (t % 50 || t < 20 * 10)
            continue;
        struct access_idle idle = sum_of(a);
        uint64_t real = access_truth(a, unit_pages, 10 * SECOND, false);
        double off = fabs((double)idle.working_set[1].bytes - (double)real);
        /* the error that it admits holds most of the time; three times as much always */
        ck_assert_double_le(off, 3.0 * (double)access_error_bytes(idle.working_set[1].variance) + 0.05 * (double)real);
        said += (double)idle.working_set[1].bytes;
        truth += (double)real;
        mm_rig_check(a->rig);
    }
    ck_assert_within(said, truth, 10);
    access_rig_destroy(a);
}

static void touch_hot_set(struct access_rig *a, unsigned t)
{
    if (t == 0)
        access_touch_pages(a, 0, a->rig->nr_pages);
    /* every fourth page of the first half, all of the last eighth */
    for (gfn_t gfn = 0; gfn < a->rig->nr_pages / 2; gfn += 4)
        access_touch_page(a, gfn);
    access_touch_pages(a, a->rig->nr_pages / 8 * 7, a->rig->nr_pages);
}

START_TEST(test_access_working_set_of_a_hot_set_is_within_a_tenth)
{
    check_working_set(access_rig_create(&small_128, 128 * MIB), touch_hot_set, 60, 1);
}
END_TEST

START_TEST(test_access_working_set_in_huge_frames_is_within_a_tenth)
{
    check_working_set(access_rig_create(&huge, 64 * MIB), touch_hot_set, 60, BLOCK_PAGES);
}
END_TEST

/* Pages by rank are spread over memory; the share of ranks below r is about r^(1 - 0.99). */
static void touch_zipf(struct access_rig *a, unsigned t)
{
    const uint32_t nr = a->rig->nr_pages;
    if (t == 0)
        access_touch_pages(a, 0, nr);
    for (unsigned i = 0; i < 3000; i++) {
        double u = (double)rng_below(&a->rng, 1u << 30) / (double)(1u << 30);
        uint32_t rank = (uint32_t)pow(nr, u) - 1;
        access_touch_page(a, (gfn_t)((rank * UINT64_C(7919)) % nr));
    }
}

/* The same with 1.6: most pages are touched a few times a minute. */
static void touch_steep(struct access_rig *a, unsigned t)
{
    const uint32_t nr = a->rig->nr_pages;
    if (t == 0)
        access_touch_pages(a, 0, nr);
    for (unsigned i = 0; i < 25000; i++) {
        double u = (double)rng_below(&a->rng, 1u << 30) / (double)(1u << 30);
        double rank = pow(1 - u * (1 - pow(nr, -0.6)), -1 / 0.6);
        access_touch_page(a, (gfn_t)(((uint32_t)(rank - 1) * UINT64_C(7919)) % nr));
    }
}

START_TEST(test_access_working_set_of_steep_zipf_is_within_a_tenth)
{
    check_working_set(access_rig_create(&small_128, 128 * MIB), touch_steep, 60, 1);
}
END_TEST

START_TEST(test_access_working_set_of_zipf_is_within_a_tenth)
{
    check_working_set(access_rig_create(&small_128, 128 * MIB), touch_zipf, 60, 1);
}
END_TEST

/* Once around in 40 seconds. */
static void touch_stream(struct access_rig *a, unsigned t)
{
    const uint32_t nr = a->rig->nr_pages, step = nr / 400;
    for (uint32_t i = 0; i < step; i++)
        access_touch_page(a, (t * step + i) % nr);
}

START_TEST(test_access_working_set_of_a_stream_is_within_a_tenth)
{
    check_working_set(access_rig_create(&small_128, 128 * MIB), touch_stream, 120, 1);
}
END_TEST

/* A stream through four times the budget: pages leave for zram and come back. */
START_TEST(test_access_working_set_under_reclaim_stays_below_what_is_resident)
{
    const struct mm_config tight = {.budget_bytes = 16 * MIB, .zram = {.limit_bytes = 8 * MIB}};
    struct access_rig *a = access_rig_create(&tight, 32 * MIB);
    for (unsigned t = 0; t < 60; t++) {
        for (gfn_t gfn = t * 128; gfn < (t + 1) * 128; gfn++)
            mm_rig_write(a->rig, 0, gfn % a->rig->nr_pages, TEXT);
        access_pass(a, 500 * MS);
        mm_kswapd(a->rig->thread[1], 0);
        struct access_idle idle = sum_of(a);
        ck_assert_uint_le(idle.working_set[1].bytes, 16 * MIB);
    }
    struct access_idle idle = sum_of(a);
    /* what left is idle since its epoch: the oldest for nearly all of the 30 s */
    ck_assert_uint_gt(idle.idle_bytes[3], 4 * MIB);
    for (gfn_t gfn = 0; gfn < a->rig->nr_pages; gfn++)
        if (a->rig->content[gfn])
            mm_rig_verify(a->rig, 0, gfn);
    access_rig_destroy(a);
}
END_TEST

/* ---- the quota; the fake CPU time stands in for what moves take ---- */

static struct host_ops real;
static uint64_t take_ns, place_ns;

static int slow_take(void *ctx, vmid_t vm, gfn_t gfn, fn_t fn, uint32_t nr, uint32_t *done)
{
    fake_host_work_ns(ctx, take_ns);
    return real.take(ctx, vm, gfn, fn, nr, done);
}

static int slow_place(void *ctx, vmid_t vm, gfn_t gfn, fn_t fn, uint32_t nr, uint32_t *done)
{
    fake_host_work_ns(ctx, place_ns);
    return real.place(ctx, vm, gfn, fn, nr, done);
}

static int slow_place_copy(void *ctx, vmid_t vm, gfn_t gfn, const void *src, uint32_t nr, unsigned node, uint32_t *done)
{
    fake_host_work_ns(ctx, place_ns);
    return real.place_copy(ctx, vm, gfn, src, nr, node, done);
}

static void make_slow(struct access_rig *a, uint64_t take, uint64_t place)
{
    struct host_ops *ops = fake_host_ops(a->rig->fh);
    real = *ops;
    take_ns = take;
    place_ns = place;
    ops->take = slow_take;
    ops->place = slow_place;
    ops->place_copy = slow_place_copy;
}

static const struct {
    const struct mm_config *config;
    uint64_t take_ns, place_ns;
    uint32_t quota_mpct;
    bool all; /* the quota is enough for one look a second at everything */
} costs[] = {
    {&huge, 1000, 10000, 1000, true}, {&huge, 20000, 400000, 1000, false},    {&small, 2000, 8000, 1000, true},
    {&small, 500, 500, 1000, true},   {&small, 100000, 1000000, 1000, false}, {&huge, 20000, 400000, 5000, true},
    {&small, 2000, 8000, 100, false},
};

static int held_up_take(void *ctx, vmid_t vm, gfn_t gfn, fn_t fn, uint32_t nr, uint32_t *done)
{
    fake_host_advance_ns(ctx, 50 * MS);
    return real.take(ctx, vm, gfn, fn, nr, done);
}

static int held_up_place(void *ctx, vmid_t vm, gfn_t gfn, fn_t fn, uint32_t nr, uint32_t *done)
{
    fake_host_advance_ns(ctx, 50 * MS);
    return real.place(ctx, vm, gfn, fn, nr, done);
}

/* Time in which others had the CPU was taken for the samples': the quota of 1% was enough for a few of them. */
START_TEST(test_access_samples_do_not_pay_for_other_work_on_their_cpus)
{
    uint64_t nr_samples[2];
    for (unsigned busy = 0; busy < 2; busy++) {
        struct access_rig *a = access_rig_create(&huge, 8 * MIB);
        struct access_stat stat;
        a->unchecked = true;
        access_touch_pages(a, 0, a->rig->nr_pages);
        make_slow(a, 2000, 8000);
        if (busy) {
            fake_host_ops(a->rig->fh)->take = held_up_take;
            fake_host_ops(a->rig->fh)->place = held_up_place;
        }
        for (unsigned t = 0; t < 300; t++) {
            access_pass(a, 100 * MS);
            access_touch_pages(a, 0, a->rig->nr_pages);
        }
        access_stat(a->rig->host, &stat);
        nr_samples[busy] = stat.nr_samples;
        ck_assert_uint_gt(stat.nr_hits, 0);
        access_rig_destroy(a);
    }
    ck_assert_uint_ge(nr_samples[0], 100);
    ck_assert_uint_ge(nr_samples[1], nr_samples[0]);
}
END_TEST

START_TEST(test_access_samples_stay_within_their_quota)
{
    struct access_rig *a = access_rig_create(costs[_i].config, 64 * MIB);
    const double share = costs[_i].quota_mpct / 100000.0;
    struct access_stat stat;
    a->unchecked = true;
    access_touch_pages(a, 0, a->rig->nr_pages);
    make_slow(a, costs[_i].take_ns, costs[_i].place_ns);
    access_configure(a->rig->host, costs[_i].quota_mpct, NULL);
    uint64_t start_ns = access_now(a);
    for (unsigned t = 0; t < 300; t++) {
        access_pass(a, 100 * MS);
        access_touch_pages(a, 0, a->rig->nr_pages);
        access_stat(a->rig->host, &stat);
        double most = share * ((double)(access_now(a) - start_ns) + 2e8);
        /* a cost is learnt by paying it: the first batch may cost more than was thought */
        ck_assert_double_le((double)stat.sample_ns,
                            most * 1.02 + 40.0 * (double)(costs[_i].take_ns + costs[_i].place_ns));
    }
    mm_rig_check(a->rig);
    ck_assert_double_eq(stat.quota_pct, costs[_i].quota_mpct / 1000.0);
    ck_assert_double_le(stat.sample_cpu_pct, 100 * share * 1.05);
    ck_assert_uint_gt(stat.nr_samples, 10);
    ck_assert_uint_le(stat.nr_hits, stat.nr_samples);
    double looks = (double)stat.nr_samples / (costs[_i].config == &huge ? 32.0 : 256.0);
    if (costs[_i].all)
        ck_assert_double_ge(looks, 22); /* of 30 */
    else
        ck_assert_double_ge(stat.sample_cpu_pct, 100 * share * 0.7); /* and it is made use of */
    access_rig_destroy(a);
}
END_TEST

static uint64_t slow_clock(void *ctx)
{
    fake_host_work_ns(ctx, 700);
    return real.clock_ns(ctx);
}

/* A round takes some us: of a CPU at 1% nothing, of the quota all. */
START_TEST(test_access_quota_of_a_few_us_a_second_is_not_used_up_by_rounds_without_samples)
{
    static const uint32_t quotas_mpct[] = {1, 4};
    struct access_rig *a = access_rig_create(_i & 1 ? &huge : &small, 16 * MIB);
    const double share = quotas_mpct[_i / 2] / 100000.0;
    struct access_stat stat;
    a->unchecked = true;
    access_touch_pages(a, 0, a->rig->nr_pages);
    make_slow(a, 2000, 8000);
    fake_host_ops(a->rig->fh)->clock_ns = slow_clock;
    access_configure(a->rig->host, quotas_mpct[_i / 2], NULL);
    uint64_t start_ns = access_now(a);
    for (unsigned t = 0; t < 10000; t++) {
        access_pass(a, 100 * MS);
        if (t % 10 == 9)
            access_touch_pages(a, 0, 2 * BLOCK_PAGES);
    }
    access_stat(a->rig->host, &stat);
    double most_ns = share * (double)(access_now(a) - start_ns);
    ck_assert_double_le((double)stat.sample_ns, most_ns * 1.02 + 400000);
    ck_assert_double_ge((double)(stat.nr_samples * (take_ns + place_ns)), most_ns * 0.3);
    access_rig_destroy(a);
}
END_TEST

/* All of it was idle and is touched at once: more than the quota, which is paid back afterwards. */
START_TEST(test_access_samples_pay_back_what_waking_memory_cost)
{
    struct access_rig *a = access_rig_create(&huge, 64 * MIB);
    struct access_stat stat;
    a->unchecked = true;
    access_touch_pages(a, 0, a->rig->nr_pages);
    make_slow(a, 20000, 400000);
    uint64_t start_ns = access_now(a);
    for (unsigned t = 0; t < 600; t++)
        access_pass(a, 100 * MS);
    for (gfn_t gfn = 0; gfn < a->rig->nr_pages; gfn += BLOCK_PAGES)
        ck_assert(!mm_rig_is_present(a->rig, gfn));
    for (unsigned t = 0; t < 300; t++) {
        access_touch_pages(a, 0, a->rig->nr_pages);
        access_pass(a, 100 * MS);
    }
    access_stat(a->rig->host, &stat);
    ck_assert_uint_ge(stat.nr_late_hits, 30);
    ck_assert_double_le((double)stat.sample_ns, 0.01 * ((double)(access_now(a) - start_ns) + 2e8) * 1.02);
    access_rig_destroy(a);
}
END_TEST

START_TEST(test_access_quota_of_nothing_takes_nothing)
{
    struct access_rig *a = access_rig_create(&huge, 32 * MIB);
    struct access_stat stat;
    access_configure(a->rig->host, 0, NULL);
    access_touch_pages(a, 0, a->rig->nr_pages);
    for (unsigned t = 0; t < 100; t++)
        access_pass(a, 100 * MS);
    access_stat(a->rig->host, &stat);
    ck_assert_uint_eq(stat.nr_samples, 0);
    for (gfn_t gfn = 0; gfn < a->rig->nr_pages; gfn++)
        ck_assert(mm_rig_is_present(a->rig, gfn));
    access_rig_destroy(a);
}
END_TEST

/* The guest may use it all the time: nobody would see. */
START_TEST(test_access_memory_that_was_never_looked_at_is_not_called_idle)
{
    struct access_rig *a = access_rig_create(_i ? &huge : &small, 32 * MIB);
    access_configure(a->rig->host, 0, NULL);
    access_touch_pages(a, 0, a->rig->nr_pages);
    struct access_idle idle = sum_of(a);
    ck_assert_uint_eq(idle.unwatched_bytes, 32 * MIB);
    ck_assert_uint_eq(idle.working_set[1].bytes, 32 * MIB); /* that it came in was seen */
    for (unsigned t = 0; t < 600; t++)
        access_pass(a, 100 * MS);
    idle = sum_of(a);
    ck_assert_uint_eq(idle.unwatched_bytes, 32 * MIB);
    ck_assert_uint_eq(idle.idle_bytes[0], 0);
    ck_assert_uint_eq(idle.working_set[1].bytes, 0);
    /* what left would be seen */
    uint64_t taken = mm_reclaim(a->rig->thread[0], a->rig->vm, 2 * BLOCK_PAGES, false);
    ck_assert_uint_ge(taken, 2 * BLOCK_PAGES);
    for (unsigned t = 0; t < 50; t++)
        access_pass(a, 100 * MS);
    idle = sum_of(a);
    ck_assert_uint_eq(idle.unwatched_bytes, 32 * MIB - taken * PAGE_BYTES);
    ck_assert_uint_eq(idle.idle_bytes[2], taken * PAGE_BYTES);
    access_rig_destroy(a);
}
END_TEST

/* A look at each block tells of all of it. */
START_TEST(test_access_memory_is_looked_at_within_a_pass)
{
    struct access_rig *a = access_rig_create(_i ? &huge : &small, 32 * MIB);
    access_touch_pages(a, 0, a->rig->nr_pages);
    ck_assert_uint_eq(sum_of(a).unwatched_bytes, 32 * MIB);
    for (unsigned t = 0; t < 60; t++)
        access_pass(a, 100 * MS);
    struct access_idle idle = sum_of(a);
    ck_assert_uint_eq(idle.unwatched_bytes, 0);
    ck_assert_uint_eq(idle.idle_bytes[2], 32 * MIB);
    access_rig_destroy(a);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("access_model");
    TCase *tc = tcase_create("access_model");
    tcase_set_timeout(tc, 240);
    tcase_add_test(tc, test_access_idle_histogram_agrees_with_a_model_of_all_accesses);
    tcase_add_test(tc, test_access_memory_that_is_left_ages_from_its_last_access);
    tcase_add_test(tc, test_access_working_set_of_a_hot_set_is_within_a_tenth);
    tcase_add_test(tc, test_access_working_set_in_huge_frames_is_within_a_tenth);
    tcase_add_test(tc, test_access_working_set_of_zipf_is_within_a_tenth);
    tcase_add_test(tc, test_access_working_set_of_steep_zipf_is_within_a_tenth);
    tcase_add_test(tc, test_access_working_set_of_a_stream_is_within_a_tenth);
    tcase_add_test(tc, test_access_working_set_under_reclaim_stays_below_what_is_resident);
    tcase_add_loop_test(tc, test_access_samples_stay_within_their_quota, 0, (int)ARRAY_LEN(costs));
    tcase_add_test(tc, test_access_samples_do_not_pay_for_other_work_on_their_cpus);
    tcase_add_test(tc, test_access_samples_pay_back_what_waking_memory_cost);
    tcase_add_loop_test(tc, test_access_quota_of_a_few_us_a_second_is_not_used_up_by_rounds_without_samples, 0, 4);
    tcase_add_test(tc, test_access_quota_of_nothing_takes_nothing);
    tcase_add_loop_test(tc, test_access_memory_that_was_never_looked_at_is_not_called_idle, 0, 2);
    tcase_add_loop_test(tc, test_access_memory_is_looked_at_within_a_pass, 0, 2);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
