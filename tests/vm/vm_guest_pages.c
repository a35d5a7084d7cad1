/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What becomes of the embedded guest's pages on /dev/kvm: of 2 MiB blocks half of which goes cold, and which are hot all
 * over again; of a full budget's, all of which reclaim broke; of free memory in single pages between pages that stay.
 */
#include <check.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "guest-images/ebbguest/kernel.h"
#include "mm/policy/access.h"
#include "mm/policy/page_size.h"
#include "tests/fake/program.h"
#include "tests/unit/compact_runs.h"
#include "vmm/machine_parts.h"

#define MIB (UINT64_C(1) << 20)
#define MIB_PAGES 256u

struct guest {
    struct memhost *mh;
    struct machine *machine;
    struct workload workload;
    uint32_t nr_pages; /* of the workload */
    uint32_t *gfn;     /* by page of the workload */
};

static void ignore_line(void *ctx, const char *line)
{
    (void)ctx;
    (void)line;
}

static void guest_start(struct guest *guest, struct memhost *mh, uint64_t memory_bytes, const char *text)
{
    struct diag diag = {0};
    struct machine_config config = {.name = "test",
                                    .memory_bytes = memory_bytes,
                                    .nr_cpus = 1,
                                    .workload = &guest->workload,
                                    .on_line = ignore_line};

    memset(guest, 0, sizeof(*guest));
    guest->mh = mh;
    ck_assert_msg(workload_parse(text, memory_bytes, &guest->workload, &diag) == 0, "%s", diag.text);
    ck_assert_msg(machine_create(mh, &config, &guest->machine, &diag) == 0, "%s", diag.text);
    ck_assert_msg(machine_start(guest->machine, &diag) == 0, "%s", diag.text);
}

/* It came to its @end, and every page that it looked at was what it should be. */
static void guest_finish(struct guest *guest, enum machine_state end)
{
    const struct machine_result *result = machine_join(guest->machine);

    ck_assert_msg(result->state == end, "%s", result->reason);
    ck_assert_uint_eq(result->pages_bad, 0);
    machine_destroy(guest->machine);
    free(guest->gfn);
}

/* True: it is in step @step at @pct of it, or beyond. It must not have ended. */
static bool guest_is_at(struct guest *guest, unsigned step, unsigned pct)
{
    struct pollfd done = {.fd = machine_done_fd(guest->machine), .events = POLLIN};
    unsigned at;
    uint64_t now, total;

    ck_assert_int_eq(poll(&done, 1, 0), 0);
    machine_progress(guest->machine, &at, &now, &total);
    return at > step || (at == step && now >= total / 100 * pct);
}

static void guest_wait(struct guest *guest, unsigned step, unsigned pct)
{
    while (!guest_is_at(guest, step, pct))
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

/* Where its pages are, once it has filled them. */
static void guest_read_gfns(struct guest *guest)
{
    gpa_t gpa = {guest->machine->ports.shared->vcpu[0].slots_gpa};
    const struct page_slot *slots;

    guest->nr_pages = guest->workload.steps[0].size_pages;
    guest->gfn = calloc(guest->nr_pages, sizeof(guest->gfn[0]));
    ck_assert_ptr_nonnull(guest->gfn);
    slots = memhost_vm_hva(machine_memory(guest->machine), gpa, guest->nr_pages * sizeof(*slots));
    ck_assert_ptr_nonnull(slots);
    for (uint32_t page = 0; page < guest->nr_pages; page++)
        guest->gfn[page] = slots[page].gfn;
}

static struct mm_vm *guest_mm(const struct guest *guest)
{
    return memhost_vm_mm(machine_memory(guest->machine));
}

/* State of a page of the workload; *huge: as a part of a 2 MiB frame. */
static enum s2_state guest_state(const struct guest *guest, uint32_t page, bool *huge)
{
    struct block *block = vm_block(guest_mm(guest), guest->gfn[page]);

    lock_acquire(&block->lock);
    struct s2_entry entry = pmd_read(block);
    *huge = entry.state != S2_TABLE;
    if (!*huge)
        entry = pte_read(block, guest->gfn[page] % BLOCK_PAGES);
    lock_release(&block->lock);
    return entry.state;
}

static uint64_t event_of(struct memhost *mh, enum vm_event event)
{
    struct mm_host_stat stat;

    mm_host_stat(memhost_mm(mh), &stat);
    return stat.event[event];
}

/* --- page size ------------------------------------------------------------------------------------- */

#define HALVED_BLOCKS 20u
#define HALF (BLOCK_PAGES / 2)

struct halves {
    uint32_t hot_in, cold_in; /* pages that are in the guest */
    uint32_t huge;            /* blocks in the guest as 2 MiB frames */
};

static struct halves count_halves(const struct guest *guest)
{
    struct halves nr = {0};

    for (uint32_t page = 0; page < guest->nr_pages; page++) {
        bool huge, in = guest_state(guest, page, &huge) == S2_RESIDENT;
        nr.hot_in += in && page % BLOCK_PAGES < HALF;
        nr.cold_in += in && page % BLOCK_PAGES >= HALF;
        nr.huge += in && huge && page % BLOCK_PAGES == 0;
    }
    return nr;
}

static uint64_t nr_faults(const struct guest *guest)
{
    struct mm_vm_stat stat;

    mm_vm_stat(guest_mm(guest), &stat);
    return stat.nr_minor + stat.nr_major;
}

/* True: nothing is ever rebuilt here; it is said why, and @mh is gone. */
static bool skip_without_collapse(struct memhost *mh)
{
    const char *why_not = collapse_why_not(memhost_mm(mh));

    if (!why_not)
        return false;
    printf("SKIP: 2 MiB frames of a guest: %s\n", why_not);
    fflush(stdout);
    memhost_destroy(mh);
    return true;
}

/* The hot halves, the other guest and both kernels take nearly as much: of the cold halves hardly anything fits. */
#define HALVES_BUDGET (47 * MIB)
/* Things settle within some hundred passes. The last step goes on until the machine is stopped. */
#define HALVES_WORKLOAD "fill:40M,pattern=same;stream:40M,take=1M,skip=1M,passes=4000;stream:40M,passes=1000000"
/* Passes of who rebuilds blocks, which wants to see a block twice. */
#define COLLAPSE_PASSES 6u

static void check_halved(struct memhost *mh, struct guest *guest)
{
    guest_wait(guest, 1, 50);
    uint64_t faults = nr_faults(guest);
    guest_wait(guest, 1, 95);
    faults = nr_faults(guest) - faults;
    struct halves nr = count_halves(guest);
    printf("half cold: %u of %u cold pages are in, of the hot ones %u, which faulted %llu times; thp_split_page %llu\n",
           nr.cold_in, HALVED_BLOCKS * HALF, nr.hot_in, (unsigned long long)faults,
           (unsigned long long)event_of(mh, EV_thp_split_page));
    fflush(stdout);
    ck_assert_uint_le(nr.cold_in, HALVED_BLOCKS * HALF / 10);
    /* all and none, unless blocks of the other guest wait for room: then now and then a page goes home to be seen */
    ck_assert_uint_ge(nr.hot_in * 100, HALVED_BLOCKS * HALF * 99);
    ck_assert_uint_le(faults, nr.hot_in / 10);
    ck_assert_uint_ge(event_of(mh, EV_thp_split_page), HALVED_BLOCKS);
}

static void check_whole(struct memhost *mh, struct guest *guest)
{
    uint64_t until = event_of(mh, EV_khugepaged_full_scans) + COLLAPSE_PASSES;

    guest_wait(guest, 2, 0);
    while (event_of(mh, EV_khugepaged_full_scans) < until)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    struct halves nr = count_halves(guest);
    printf("hot again: %u of %u blocks are 2 MiB frames; thp_collapse_alloc %llu\n", nr.huge, HALVED_BLOCKS,
           (unsigned long long)event_of(mh, EV_thp_collapse_alloc));
    fflush(stdout);
    ck_assert_uint_ge(nr.huge * 10, HALVED_BLOCKS * 9);
}

START_TEST(test_guest_pages_cold_halves_leave_and_hot_ones_stay_then_all_is_huge_again)
{
    struct memhost_config config = {
        .mm = {.budget_bytes = HALVES_BUDGET, .zram = {.limit_bytes = 24 * MIB}, .thp = true, .collapse_pct = 1}};
    struct diag diag = {0};
    struct memhost *mh;
    struct guest guest, other;

    ck_assert_msg(memhost_create(&config, &mh, &diag) == 0, "%s", diag.text);
    if (skip_without_collapse(mh))
        return;
    access_configure(memhost_mm(mh), 0, NULL); /* it takes pages for a moment to see whether they are in use */
    guest_start(&guest, mh, 64 * MIB, HALVES_WORKLOAD);
    guest_wait(&guest, 1, 1);
    guest_read_gfns(&guest);
    guest_start(&other, mh, 48 * MIB, "fill:24M,pattern=same;stream:24M,passes=1000000");
    check_halved(mh, &guest);
    machine_destroy(other.machine);
    check_whole(mh, &guest);
    machine_stop(guest.machine);
    guest_finish(&guest, MACHINE_STOPPED);
    memhost_destroy(mh);
}
END_TEST

/* --- frames that reclaim broke --------------------------------------------------------------------- */

#define HOT_PAGES (60 * MIB_PAGES)
#define HOT_BLOCKS (HOT_PAGES / BLOCK_PAGES)
/* Passes after which it is not going to happen any more; it takes about a dozen. */
#define MOST_PASSES 60u

/* Blocks of the hot part that are in the guest as 2 MiB frames. */
static unsigned count_hot_huge(const struct guest *guest)
{
    unsigned nr = 0;

    for (uint32_t page = 0; page < HOT_PAGES; page += BLOCK_PAGES) {
        bool huge, in = guest_state(guest, page, &huge) == S2_RESIDENT;
        nr += in && huge;
    }
    return nr;
}

/* What is hot has been read through once. */
static bool is_hot(struct guest *guest)
{
    unsigned step;
    uint64_t now, total;

    guest_wait(guest, 1, 0);
    machine_progress(guest->machine, &step, &now, &total);
    return now > HOT_PAGES;
}

/*
 * A guest fills in 2 MiB frames much more than the budget has, and is hot in a part of it then. Of the broken frames the
 * store refuses a quarter, which stays where it was and can be moved. The store's own pages must not stand beside it.
 */
START_TEST(test_guest_pages_hot_blocks_are_huge_again_after_reclaim_broke_all_frames)
{
    struct memhost_config config = {
        .mm = {.budget_bytes = 128 * MIB, .zram = {.limit_bytes = 64 * MIB}, .thp = true, .collapse_pct = 100}};
    struct diag diag = {0};
    struct memhost *mh;
    struct guest guest;

    ck_assert_msg(memhost_create(&config, &mh, &diag) == 0, "%s", diag.text);
    if (skip_without_collapse(mh))
        return;
    guest_start(&guest, mh, 256 * MIB, "fill:200M,pattern=mixed;stream:60M,passes=1000000");
    while (!is_hot(&guest))
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    guest_read_gfns(&guest);
    uint64_t until = event_of(mh, EV_khugepaged_full_scans) + MOST_PASSES, major = event_of(mh, EV_pgmajfault);
    while (count_hot_huge(&guest) < HOT_BLOCKS && event_of(mh, EV_khugepaged_full_scans) < until)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    major = event_of(mh, EV_pgmajfault) - major;
    unsigned nr = count_hot_huge(&guest);
    printf("all frames broken: %u of %u hot blocks are 2 MiB frames again, %llu major faults meanwhile\n", nr,
           HOT_BLOCKS, (unsigned long long)major);
    fflush(stdout);
    ck_assert_uint_ge(event_of(mh, EV_thp_split_page), HOT_BLOCKS);
    ck_assert_uint_ge(nr * 10, HOT_BLOCKS * 9);
    /* none, unless reclaim is still at it when this begins */
    ck_assert_uint_le(major * 10, HOT_PAGES);
    machine_stop(guest.machine);
    guest_finish(&guest, MACHINE_STOPPED);
    memhost_destroy(mh);
}
END_TEST

/* --- compaction ------------------------------------------------------------------------------------ */

/* While the guest idles in step @step it is stopped; going on is up to who stopped it. */
static void guest_hold(struct guest *guest, unsigned step)
{
    guest_wait(guest, step, 0);
    machine_pause(guest->machine);
    ck_assert_msg(!guest_is_at(guest, step + 1, 0), "the test machine is too slow for this test");
}

struct runs {
    uint32_t now, most;
};

static struct runs count_pool(struct memhost *mh)
{
    struct pool *pool = &memhost_mm(mh)->node[0].pool;
    struct runs runs = {0};

    for (unsigned z = 0; z < POOL_NR_ZONES; z++) {
        runs.now += count_runs(&pool->zones[z]);
        runs.most += most_runs(&pool->zones[z]);
    }
    return runs;
}

/* All of the guest is at home, and every other page goes back: what is between them stays, and is theirs. */
START_TEST(test_guest_pages_checkerboard_is_compacted_to_the_theoretical_number_of_blocks)
{
    struct memhost_config config = {.mm = {.budget_bytes = 64 * MIB, .readahead_pages = 1}, .no_workers = true};
    struct diag diag = {0};
    struct memhost *mh;
    struct guest guest;
    uint64_t made;

    ck_assert_msg(memhost_create(&config, &mh, &diag) == 0, "%s", diag.text);
    guest_start(&guest, mh, 48 * MIB, "fill:24M,pattern=text;idle:2s;stream,take=4K,skip=4K;idle:2s;verify");
    guest_hold(&guest, 1);
    guest_read_gfns(&guest);
    mm_reclaim(memhost_lock_thread(mh), guest_mm(&guest), 48 * MIB_PAGES, false);
    memhost_unlock_thread(mh);
    machine_resume(guest.machine);
    guest_hold(&guest, 3);
    struct runs before = count_pool(mh);
    ck_assert_uint_ge(before.most, before.now + guest.nr_pages / 2 / BLOCK_PAGES - 1);
    ck_assert_int_eq(mm_compact(memhost_lock_thread(mh), 0, &made), 0);
    memhost_unlock_thread(mh);
    struct runs after = count_pool(mh);
    printf("checkerboard of %u pages: blocks of 2 MiB free in one piece %u before, %u after, %u can be; %llu pages "
           "moved\n",
           guest.nr_pages, before.now, after.now, before.most, (unsigned long long)event_of(mh, EV_pgmigrate_success));
    ck_assert_uint_eq(after.now, before.most);
    ck_assert_uint_eq(made, after.now - before.now);
    machine_resume(guest.machine);
    guest_finish(&guest, MACHINE_DONE);
    memhost_destroy(mh);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("guest_pages");
    TCase *tests = tcase_create("guest_pages"), *compaction = tcase_create("compaction");

    if (!program_has_kvm("the embedded guest on /dev/kvm"))
        return EXIT_SUCCESS;
    tcase_set_timeout(tests, 300);
    tcase_set_timeout(compaction, 300);
    tcase_add_test(compaction, test_guest_pages_checkerboard_is_compacted_to_the_theoretical_number_of_blocks);
    tcase_add_test(tests, test_guest_pages_cold_halves_leave_and_hot_ones_stay_then_all_is_huge_again);
    tcase_add_test(tests, test_guest_pages_hot_blocks_are_huge_again_after_reclaim_broke_all_frames);
    suite_add_tcase(suite, compaction);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
