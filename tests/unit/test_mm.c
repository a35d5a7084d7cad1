/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The whole of mm/ over the fake host: what a guest wrote is what it reads, whatever reclaim, stores, swapoff and
 * failures did in between, and never more pages than the budget.
 */
#include "mm/mm.h"
#include "tests/fake/fail_alloc.h"
#include "tests/fake/fake_host.h"
#include "tests/fake/fake_swap.h"
#include "tests/unit/model_rng.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MIB (UINT64_C(1) << 20)
#define MAX_VMS_HERE 3
#define VM_BYTES (16 * MIB)
#define VM_PAGES (uint32_t)(VM_BYTES / PAGE_BYTES)

enum kind { KIND_ZERO, KIND_SAME, KIND_TEXT, KIND_RANDOM, NR_KINDS };

struct guest {
    struct mm_vm *vm;
    uint32_t generation[VM_PAGES]; /* 0: never written */
};

struct rig {
    struct fake_host *fh;
    struct mm_host *host;
    struct mm_thread *thread;
    struct guest guest[MAX_VMS_HERE];
    struct fake_swap *swap[2];
    uint32_t next_generation;
};

static void make_page(uint64_t *page, vmid_t vm, gfn_t gfn, uint32_t generation)
{
    uint64_t seed = ((uint64_t)vm << 56) ^ ((uint64_t)gfn << 24) ^ generation;
    enum kind kind = generation ? (enum kind)((seed * UINT64_C(0x9e3779b97f4a7c15)) >> 62) : KIND_ZERO;
    for (unsigned i = 0; i < PAGE_BYTES / 8; i++) {
        uint64_t mixed = (seed + i) * UINT64_C(0xbf58476d1ce4e5b9);
        mixed ^= mixed >> 29;
        switch (kind) {
        case KIND_ZERO:
            page[i] = 0;
            break;
        case KIND_SAME:
            page[i] = seed;
            break;
        case KIND_TEXT:
            page[i] = i % 4 ? seed : mixed;
            break;
        default:
            page[i] = mixed * UINT64_C(0x94d049bb133111eb);
            break;
        }
    }
}

static const struct mm_config small = {
    .budget_bytes = 8 * MIB,
    .zram = {.algo = ZRAM_LZ4, .limit_bytes = 3 * MIB},
    .thp = true,
};

static void add_vm(struct rig *rig, unsigned i)
{
    const struct mm_region region = {.start = {0}, .bytes = VM_BYTES};
    ck_assert_int_eq(mm_vm_create(rig->host, &region, 1, &rig->guest[i].vm), 0);
    fake_host_add_vm(rig->fh, mm_vm_id(rig->guest[i].vm), VM_PAGES);
    memset(rig->guest[i].generation, 0, sizeof(rig->guest[i].generation));
}

static void remove_vm(struct rig *rig, unsigned i)
{
    vmid_t id = mm_vm_id(rig->guest[i].vm);
    mm_vm_destroy(rig->thread, rig->guest[i].vm);
    fake_host_remove_vm(rig->fh, id);
    rig->guest[i].vm = NULL;
}

static const char *swap_name(unsigned i)
{
    return i ? "one" : "zero";
}

static int add_swap(struct rig *rig, unsigned i, uint64_t slots)
{
    rig->swap[i] = fake_swap_create(slots);
    int area = swap_area_add(mm_swap_set(rig->host), swap_name(i), "file", slots, -1, &fake_swap_backend, rig->swap[i]);
    return area < 0 ? area : 0;
}

static struct rig *rig_create(const struct mm_config *config, unsigned nr_vms, uint64_t swap_slots)
{
    struct rig *rig = calloc(1, sizeof(*rig));
    rig->fh = fake_host_create(mm_arena_slots(config));
    fake_host_set_budget(rig->fh, (uint32_t)(config->budget_bytes / PAGE_BYTES));
    ck_assert_int_eq(mm_host_create(config, fake_host_ops(rig->fh), rig->fh, fake_host_arena(rig->fh), &rig->host), 0);
    ck_assert_int_eq(mm_thread_create(rig->host, &rig->thread), 0);
    for (unsigned i = 0; i < nr_vms; i++)
        add_vm(rig, i);
    if (swap_slots)
        ck_assert_int_eq(add_swap(rig, 0, swap_slots), 0);
    return rig;
}

static void check(struct rig *rig)
{
    const char *why = NULL;
    ck_assert_msg(mm_check(rig->host, &why), "%s", why);
    ck_assert_msg(!fake_host_breach(rig->fh), "%s", fake_host_breach(rig->fh));
}

static void rig_destroy(struct rig *rig)
{
    check(rig);
    for (unsigned i = 0; i < MAX_VMS_HERE; i++)
        if (rig->guest[i].vm)
            remove_vm(rig, i);
    check(rig);
    mm_thread_destroy(rig->thread);
    struct mm_host_stat stat;
    mm_host_stat(rig->host, &stat);
    ck_assert_uint_eq(stat.free_bytes, stat.budget_bytes);
    mm_host_destroy(rig->host);
    struct fake_host_stat fake;
    fake_host_stat(rig->fh, &fake);
    ck_assert_uint_eq(fake.physical_pages, 0);
    ck_assert_msg(!fake_host_breach(rig->fh), "%s", fake_host_breach(rig->fh));
    fake_host_destroy(rig->fh);
    free(rig);
}

static int touch(struct rig *rig, unsigned i, gfn_t gfn)
{
    for (unsigned tries = 0; tries < 4; tries++) {
        if (fake_host_is_present(rig->fh, mm_vm_id(rig->guest[i].vm), gfn))
            return 0;
        int err = mm_fault(rig->thread, rig->guest[i].vm, gpa_of(gfn), MM_FAULT_WRITE);
        if (err)
            return err;
    }
    ck_abort_msg("a fault was answered and the page is absent");
    return -1;
}

static int guest_write(struct rig *rig, unsigned i, gfn_t gfn)
{
    uint64_t page[PAGE_BYTES / 8];
    int err = touch(rig, i, gfn);
    if (err)
        return err;
    vmid_t id = mm_vm_id(rig->guest[i].vm);
    make_page(page, id, gfn, ++rig->next_generation);
    ck_assert_int_eq(fake_host_guest_write(rig->fh, id, gfn, 0, page, (uint32_t)PAGE_BYTES), 0);
    rig->guest[i].generation[gfn] = rig->next_generation;
    return 0;
}

static int guest_verify(struct rig *rig, unsigned i, gfn_t gfn)
{
    uint64_t want[PAGE_BYTES / 8], got[PAGE_BYTES / 8];
    int err = touch(rig, i, gfn);
    if (err)
        return err;
    vmid_t id = mm_vm_id(rig->guest[i].vm);
    make_page(want, id, gfn, rig->guest[i].generation[gfn]);
    ck_assert_int_eq(fake_host_guest_read(rig->fh, id, gfn, 0, got, (uint32_t)PAGE_BYTES), 0);
    ck_assert_msg(!memcmp(want, got, PAGE_BYTES), "vm %u gfn %u generation %u", id, gfn, rig->guest[i].generation[gfn]);
    return 0;
}

static void verify_all(struct rig *rig, unsigned i)
{
    for (gfn_t gfn = 0; gfn < VM_PAGES; gfn++)
        ck_assert_int_eq(guest_verify(rig, i, gfn), 0);
}

static void fill(struct rig *rig, unsigned i, gfn_t start, gfn_t end)
{
    for (gfn_t gfn = start; gfn < end; gfn++)
        ck_assert_int_eq(guest_write(rig, i, gfn), 0);
}

/* The @nth page that the first area transfers from now on fails. */
static void fail_next(struct rig *rig, int64_t nth)
{
    rig->swap[0]->fail_at = nth;
    rig->swap[0]->fail_error = -EIO;
}

static struct mm_host_stat host_stat(struct rig *rig)
{
    struct mm_host_stat stat;
    mm_host_stat(rig->host, &stat);
    return stat;
}

/* ---- */

START_TEST(test_mm_config_wrong_refused)
{
    struct fake_host *fh = fake_host_create(64);
    struct mm_config config = small;
    struct mm_host *host;
    config.budget_bytes = MM_MIN_BUDGET - PAGE_BYTES;
    ck_assert_int_eq(mm_host_create(&config, fake_host_ops(fh), fh, fake_host_arena(fh), &host), -EINVAL);
    config.budget_bytes = MM_MIN_BUDGET + 1;
    ck_assert_int_eq(mm_host_create(&config, fake_host_ops(fh), fh, fake_host_arena(fh), &host), -EINVAL);
    config = small;
    config.readahead_pages = 3;
    ck_assert_int_eq(mm_host_create(&config, fake_host_ops(fh), fh, fake_host_arena(fh), &host), -EINVAL);
    config = small;
    config.fault_around_pages = 128;
    ck_assert_int_eq(mm_host_create(&config, fake_host_ops(fh), fh, fake_host_arena(fh), &host), -EINVAL);
    fake_host_destroy(fh);
}
END_TEST

START_TEST(test_mm_create_every_allocation_fails_once)
{
    struct fake_host *fh = fake_host_create(mm_arena_slots(&small));
    const struct mm_region region = {.start = {0}, .bytes = VM_BYTES};
    for (long n = 1;; n++) {
        struct mm_host *host = NULL;
        struct mm_thread *thread = NULL;
        struct mm_vm *vm = NULL;
        fail_alloc_at(n);
        int err = mm_host_create(&small, fake_host_ops(fh), fh, fake_host_arena(fh), &host);
        int err_thread = err ? 0 : mm_thread_create(host, &thread);
        int err_vm = err || err_thread ? 0 : mm_vm_create(host, &region, 1, &vm);
        bool fired = fail_alloc_fired();
        fail_alloc_at(-1);
        if (fired)
            ck_assert_int_eq(err ? err : err_thread ? err_thread : err_vm, -ENOMEM);
        if (!err && !err_thread && !err_vm)
            mm_vm_destroy(thread, vm);
        if (!err && !err_thread)
            mm_thread_destroy(thread);
        if (!err)
            mm_host_destroy(host);
        if (!fired) {
            ck_assert_int_gt(n, 5);
            break;
        }
    }
    fake_host_destroy(fh);
}
END_TEST

START_TEST(test_mm_regions_wrong_refused)
{
    struct rig *rig = rig_create(&small, 1, 0);
    struct mm_vm *vm;
    struct mm_region odd = {.start = {PAGE_BYTES}, .bytes = BLOCK_BYTES};
    struct mm_region two[2] = {{.start = {0}, .bytes = 2 * BLOCK_BYTES},
                               {.start = {BLOCK_BYTES}, .bytes = BLOCK_BYTES}};
    ck_assert_int_eq(mm_vm_create(rig->host, &odd, 1, &vm), -EINVAL);
    ck_assert_int_eq(mm_vm_create(rig->host, two, 2, &vm), -EINVAL);
    ck_assert_int_eq(mm_vm_create(rig->host, two, 0, &vm), -EINVAL);
    ck_assert_int_eq(mm_fault(rig->thread, rig->guest[0].vm, gpa_of(VM_PAGES), 0), -EFAULT);
    ck_assert_int_eq(mm_fault(rig->thread, rig->guest[0].vm, gpa_of(VM_PAGES - 1), 0), 0);
    rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_first_touch_with_room_is_huge)
{
    struct rig *rig = rig_create(&small, 1, 0);
    struct fake_host_stat fake;
    struct mm_page_info info;
    ck_assert_int_eq(guest_write(rig, 0, 700), 0);
    fake_host_stat(rig->fh, &fake);
    ck_assert_uint_eq(fake.present_pages, BLOCK_PAGES);
    ck_assert_uint_eq(fake.nr_huge_place, 1);
    ck_assert_int_eq(mm_page_info(rig->guest[0].vm, gpa_of(1023), &info), 0);
    ck_assert(info.huge);
    ck_assert_str_eq(info.state, "resident");
    ck_assert_uint_eq(host_stat(rig).event[EV_thp_fault_alloc], 1);
    rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_huge_block_taken_and_touched_with_room_comes_back_whole)
{
    struct rig *rig = rig_create(&small, 1, 0);
    struct mm_page_info info;
    fill(rig, 0, 0, BLOCK_PAGES);
    ck_assert_uint_eq(mm_reclaim(rig->thread, rig->guest[0].vm, 1, false), BLOCK_PAGES);
    check(rig);
    ck_assert_int_eq(mm_page_info(rig->guest[0].vm, gpa_of(3), &info), 0);
    ck_assert_str_eq(info.state, "standby");
    ck_assert_int_eq(guest_verify(rig, 0, 5), 0);
    ck_assert_int_eq(mm_page_info(rig->guest[0].vm, gpa_of(3), &info), 0);
    ck_assert_str_eq(info.state, "resident");
    ck_assert(info.huge);
    verify_all(rig, 0);
    rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_four_times_overcommit_every_page_right)
{
    struct rig *rig = rig_create(&small, 2, 16384);
    fill(rig, 0, 0, VM_PAGES);
    fill(rig, 1, 0, VM_PAGES);
    check(rig);
    struct mm_vm_stat vm;
    mm_vm_stat(rig->guest[0].vm, &vm);
    ck_assert_uint_eq(vm.resident_bytes + vm.standby_bytes + vm.zram_bytes + vm.swap_bytes + vm.untouched_bytes,
                      vm.memory_bytes);
    verify_all(rig, 0);
    verify_all(rig, 1);
    struct mm_host_stat stat = host_stat(rig);
    ck_assert_uint_gt(stat.event[EV_pswpout], 0);
    ck_assert_uint_gt(stat.event[EV_pswpin], 0);
    ck_assert_uint_gt(stat.event[EV_zswpin], 0);
    ck_assert_uint_gt(stat.event[EV_allocstall], 0);
    rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_stores_full_fault_refused_and_pages_kept)
{
    struct mm_config config = small;
    config.zram.limit_bytes = 0;
    struct rig *rig = rig_create(&config, 1, 512);
    gfn_t gfn = 0;
    int err = 0;
    for (; gfn < VM_PAGES && !err; gfn++)
        err = guest_write(rig, 0, gfn);
    ck_assert_int_eq(err, -ENOMEM);
    check(rig);
    /* what was written before is still there, as long as reading it needs no page that is not to be had */
    for (gfn_t k = 0; k < gfn - 1; k++) {
        struct mm_page_info info;
        ck_assert_int_eq(mm_page_info(rig->guest[0].vm, gpa_of(k), &info), 0);
        ck_assert_str_ne(info.state, "poison");
        if (fake_host_is_present(rig->fh, mm_vm_id(rig->guest[0].vm), k))
            ck_assert_int_eq(guest_verify(rig, 0, k), 0);
    }
    /* room appears: all of it is read */
    ck_assert_int_eq(add_swap(rig, 1, 8192), 0);
    for (gfn_t k = 0; k < gfn - 1; k++)
        ck_assert_int_eq(guest_verify(rig, 0, k), 0);
    rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_other_vm_goes_on_when_one_is_destroyed_for_memory)
{
    struct mm_config config = small;
    config.zram.limit_bytes = 0;
    struct rig *rig = rig_create(&config, 2, 512);
    fill(rig, 0, 0, 300);
    int err = 0;
    for (gfn_t gfn = 0; gfn < VM_PAGES && !err; gfn++)
        err = guest_write(rig, 1, gfn);
    ck_assert_int_eq(err, -ENOMEM);
    remove_vm(rig, 1);
    check(rig);
    for (gfn_t gfn = 0; gfn < 300; gfn++)
        ck_assert_int_eq(guest_verify(rig, 0, gfn), 0);
    rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_sequence_is_read_ahead)
{
    struct rig *rig = rig_create(&small, 1, 0);
    fill(rig, 0, 0, 1024);
    mm_reclaim(rig->thread, rig->guest[0].vm, 1024, true);
    uint64_t before = host_stat(rig).event[EV_pgmajfault];
    for (gfn_t gfn = 0; gfn < 1024; gfn++)
        ck_assert_int_eq(guest_verify(rig, 0, gfn), 0);
    struct mm_host_stat stat = host_stat(rig);
    ck_assert_uint_gt(stat.event[EV_swap_ra], 100);
    ck_assert_uint_lt(stat.event[EV_pgmajfault] - before, 600);
    rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_pinned_page_stays_and_neighbours_leave)
{
    struct mm_config config = small;
    config.thp = false;
    struct rig *rig = rig_create(&config, 1, 4096);
    fill(rig, 0, 0, 64);
    fake_host_pin(rig->fh, mm_vm_id(rig->guest[0].vm), 20, true);
    mm_reclaim(rig->thread, rig->guest[0].vm, 64, false);
    check(rig);
    for (gfn_t gfn = 0; gfn < 64; gfn++)
        ck_assert_int_eq(fake_host_is_present(rig->fh, mm_vm_id(rig->guest[0].vm), gfn), gfn == 20);
    ck_assert_uint_ge(host_stat(rig).event[EV_take_busy], 1);
    fake_host_pin(rig->fh, mm_vm_id(rig->guest[0].vm), 20, false);
    verify_all(rig, 0);
    rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_pinned_page_in_huge_block_splits_it)
{
    struct rig *rig = rig_create(&small, 1, 4096);
    fill(rig, 0, 0, BLOCK_PAGES);
    fake_host_pin(rig->fh, mm_vm_id(rig->guest[0].vm), 20, true);
    mm_reclaim(rig->thread, rig->guest[0].vm, BLOCK_PAGES, false);
    check(rig);
    fake_host_pin(rig->fh, mm_vm_id(rig->guest[0].vm), 20, false);
    verify_all(rig, 0);
    rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_swap_write_error_keeps_the_page)
{
    struct mm_config config = small;
    config.zram.limit_bytes = 0;
    struct rig *rig = rig_create(&config, 1, 4096);
    fill(rig, 0, 0, 1024);
    for (unsigned slot = 0; slot < 4096; slot++)
        rig->swap[0]->write_error[slot] = -EIO;
    mm_reclaim(rig->thread, rig->guest[0].vm, 1024, true);
    check(rig);
    ck_assert_uint_gt(host_stat(rig).event[EV_swap_write_error], 0);
    memset(rig->swap[0]->write_error, 0, 4096 * sizeof(int));
    verify_all(rig, 0);
    rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_swap_read_error_poisons_that_page_only)
{
    struct mm_config config = small;
    config.zram.limit_bytes = 0;
    config.readahead_pages = 1;
    struct rig *rig = rig_create(&config, 1, 4096);
    struct mm_page_info info;
    fill(rig, 0, 0, 1024);
    mm_reclaim(rig->thread, rig->guest[0].vm, 1024, true);
    ck_assert_int_eq(mm_page_info(rig->guest[0].vm, gpa_of(7), &info), 0);
    ck_assert_str_eq(info.state, "swap");
    fail_next(rig, 1);
    ck_assert_int_eq(mm_fault(rig->thread, rig->guest[0].vm, gpa_of(7), 0), -EIO);
    check(rig);
    ck_assert_int_eq(mm_fault(rig->thread, rig->guest[0].vm, gpa_of(7), 0), -EIO);
    for (gfn_t gfn = 0; gfn < 1024; gfn++)
        if (gfn != 7)
            ck_assert_int_eq(guest_verify(rig, 0, gfn), 0);
    rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_swapoff_brings_every_page_back)
{
    struct rig *rig = rig_create(&small, 1, 4096);
    fill(rig, 0, 0, 3000);
    ck_assert_int_eq(add_swap(rig, 1, 8192), 0);
    ck_assert_int_eq(mm_swapoff(rig->thread, "zero"), 0);
    check(rig);
    ck_assert_int_eq(mm_swapoff(rig->thread, "zero"), -ENOENT);
    verify_all(rig, 0);
    rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_swapoff_without_room_refused_and_area_in_use)
{
    struct mm_config config = small;
    config.zram.limit_bytes = 0;
    struct rig *rig = rig_create(&config, 1, 4096);
    fill(rig, 0, 0, VM_PAGES);
    ck_assert_int_eq(mm_swapoff(rig->thread, "zero"), -ENOMEM);
    check(rig);
    verify_all(rig, 0);
    fill(rig, 0, 0, VM_PAGES);
    verify_all(rig, 0);
    rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_swapoff_read_error_refused_and_area_in_use)
{
    struct mm_config config = small;
    config.zram.limit_bytes = 0;
    struct rig *rig = rig_create(&config, 1, 4096);
    fill(rig, 0, 0, 1024);
    mm_reclaim(rig->thread, rig->guest[0].vm, 1024, true);
    fail_next(rig, 3);
    ck_assert_int_eq(mm_swapoff(rig->thread, "zero"), -EIO);
    check(rig);
    verify_all(rig, 0);
    rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_kswapd_reclaims_to_the_high_watermark)
{
    struct rig *rig = rig_create(&small, 1, 8192);
    struct mm_host_stat stat = host_stat(rig);
    struct fake_host_stat fake;
    for (gfn_t gfn = 0; gfn < VM_PAGES; gfn++) {
        ck_assert_int_eq(guest_write(rig, 0, gfn), 0);
        fake_host_stat(rig->fh, &fake);
        if (fake.nr_kicks[MM_KSWAPD(0)])
            break;
    }
    stat = host_stat(rig);
    ck_assert_uint_lt(stat.free_bytes, stat.wmark_pages[WMARK_LOW] * PAGE_BYTES + 2 * BLOCK_BYTES);
    mm_kswapd(rig->thread, 0);
    stat = host_stat(rig);
    ck_assert_uint_ge(stat.free_bytes, stat.wmark_pages[WMARK_HIGH] * PAGE_BYTES);
    ck_assert_uint_gt(stat.event[EV_pgsteal_kswapd], 0);
    check(rig);
    verify_all(rig, 0);
    rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_housekeeper_stocks_and_gives_back)
{
    struct rig *rig = rig_create(&small, 1, 8192);
    struct fake_host_stat fake;
    while (mm_housekeep(rig->thread))
        check(rig);
    ck_assert_uint_ge(host_stat(rig).zeroed_stock_bytes, BLOCK_BYTES);
    fill(rig, 0, 0, VM_PAGES);
    remove_vm(rig, 0);
    for (unsigned i = 0; i < 40; i++)
        mm_housekeep(rig->thread);
    check(rig);
    fake_host_stat(rig->fh, &fake);
    ck_assert_uint_lt(fake.physical_pages, 2 * BLOCK_PAGES);
    rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_stock_that_nobody_uses_goes_back)
{
    struct mm_config roomy = small;
    roomy.budget_bytes = 128 * MIB;
    struct rig *rig = rig_create(&roomy, 1, 8192);
    struct fake_host_stat fake;
    while (mm_housekeep(rig->thread))
        check(rig);
    ck_assert_uint_eq(host_stat(rig).zeroed_stock_bytes, 4 * BLOCK_BYTES);
    for (unsigned i = 0; i < 60; i++)
        mm_housekeep(rig->thread);
    check(rig);
    ck_assert_uint_eq(host_stat(rig).zeroed_stock_bytes, 0);
    fake_host_stat(rig->fh, &fake);
    ck_assert_uint_lt(fake.physical_pages, BLOCK_PAGES);
    /* The first touch after that asks for more at once. */
    uint64_t nr_kicks = fake.nr_kicks[MM_HOUSEKEEPER];
    fill(rig, 0, 0, BLOCK_PAGES);
    fake_host_stat(rig->fh, &fake);
    ck_assert_uint_eq(fake.nr_kicks[MM_HOUSEKEEPER], nr_kicks + 1);
    while (mm_housekeep(rig->thread))
        check(rig);
    ck_assert_uint_eq(host_stat(rig).zeroed_stock_bytes, 4 * BLOCK_BYTES);
    rig_destroy(rig);
}
END_TEST

/* ---- random operations ---- */

static void random_step(struct rig *rig, struct rng *rng)
{
    unsigned i = (unsigned)(rng_next(rng) % MAX_VMS_HERE);
    gfn_t gfn = (gfn_t)(rng_next(rng) % VM_PAGES);
    if (!rig->guest[i].vm) {
        add_vm(rig, i);
        return;
    }
    switch (rng_next(rng) % 40) {
    case 0:
        mm_kswapd(rig->thread, 0);
        break;
    case 1:
        mm_housekeep(rig->thread);
        break;
    case 2:
        mm_reclaim(rig->thread, rig->guest[i].vm, rng_next(rng) % 600, rng_next(rng) % 2);
        break;
    case 3:
        mm_reclaim(rig->thread, NULL, rng_next(rng) % 600, rng_next(rng) % 2);
        break;
    case 4:
        if (rng_next(rng) % 20 == 0)
            remove_vm(rig, i);
        break;
    case 5: {
        unsigned area = (unsigned)(rng_next(rng) % 2);
        if (mm_swapoff(rig->thread, swap_name(area)) == -ENOENT)
            ck_assert_int_eq(add_swap(rig, area, 16384), 0);
        break;
    }
    default:
        /* runs, so that sequences and neighbours occur */
        for (unsigned n = (unsigned)(rng_next(rng) % 24); n > 0 && gfn < VM_PAGES; n--, gfn++) {
            int err = rng_next(rng) % 2 ? guest_write(rig, i, gfn) : guest_verify(rig, i, gfn);
            ck_assert_msg(!err || err == -ENOMEM || fake_host_failed(rig->fh), "error %d", err);
        }
    }
}

static void random_run(const struct mm_config *config, uint64_t seed, unsigned steps, bool failures)
{
    struct rng rng = {seed};
    struct rig *rig = rig_create(config, 2, 16384);
    for (unsigned step = 0; step < steps; step++) {
        if (failures && step % 3 == 0) {
            struct fake_failure failure = {.op = (enum fake_op)(rng_next(&rng) % (FAKE_NR_OPS + 1)),
                                           .nth = 1 + (long)(rng_next(&rng) % 8),
                                           .err = ENOMEM,
                                           .after_pages = (uint32_t)(rng_next(&rng) % 600)};
            fake_host_fail(rig->fh, &failure);
        }
        random_step(rig, &rng);
        if (step % 8 == 0)
            check(rig);
    }
    fake_host_fail(rig->fh, &(struct fake_failure){.op = FAKE_ANY, .nth = -1, .err = EIO});
    for (unsigned area = 0; area < 2; area++)
        if (swap_area_find(mm_swap_set(rig->host), swap_name(area)) < 0)
            ck_assert_int_eq(add_swap(rig, area, 16384), 0);
    for (unsigned i = 0; i < MAX_VMS_HERE; i++)
        if (rig->guest[i].vm)
            verify_all(rig, i);
    rig_destroy(rig);
}

START_TEST(test_mm_model_random_operations_every_page_right)
{
    random_run(&small, (uint64_t)_i + 1, 3000, false);
}
END_TEST

START_TEST(test_mm_model_failing_host_operations_lose_nothing)
{
    random_run(&small, (uint64_t)_i + 100, 3000, true);
}
END_TEST

START_TEST(test_mm_model_zstd_without_thp_copying_transport)
{
    struct mm_config config = small;
    config.zram.algo = ZRAM_ZSTD;
    config.thp = false;
    random_run(&config, (uint64_t)_i + 200, 1500, true);
}
END_TEST

static Suite *mm_suite(void)
{
    Suite *suite = suite_create("mm");
    TCase *one = tcase_create("cases");
    tcase_set_timeout(one, 120);
    tcase_add_test(one, test_mm_config_wrong_refused);
    tcase_add_test(one, test_mm_create_every_allocation_fails_once);
    tcase_add_test(one, test_mm_regions_wrong_refused);
    tcase_add_test(one, test_mm_first_touch_with_room_is_huge);
    tcase_add_test(one, test_mm_huge_block_taken_and_touched_with_room_comes_back_whole);
    tcase_add_test(one, test_mm_four_times_overcommit_every_page_right);
    tcase_add_test(one, test_mm_stores_full_fault_refused_and_pages_kept);
    tcase_add_test(one, test_mm_other_vm_goes_on_when_one_is_destroyed_for_memory);
    tcase_add_test(one, test_mm_sequence_is_read_ahead);
    tcase_add_test(one, test_mm_pinned_page_stays_and_neighbours_leave);
    tcase_add_test(one, test_mm_pinned_page_in_huge_block_splits_it);
    tcase_add_test(one, test_mm_swap_write_error_keeps_the_page);
    tcase_add_test(one, test_mm_swap_read_error_poisons_that_page_only);
    tcase_add_test(one, test_mm_swapoff_brings_every_page_back);
    tcase_add_test(one, test_mm_swapoff_without_room_refused_and_area_in_use);
    tcase_add_test(one, test_mm_swapoff_read_error_refused_and_area_in_use);
    tcase_add_test(one, test_mm_kswapd_reclaims_to_the_high_watermark);
    tcase_add_test(one, test_mm_housekeeper_stocks_and_gives_back);
    tcase_add_test(one, test_mm_stock_that_nobody_uses_goes_back);
    suite_add_tcase(suite, one);
    TCase *model = tcase_create("model");
    tcase_set_timeout(model, 300);
    tcase_add_loop_test(model, test_mm_model_random_operations_every_page_right, 0, 4);
    tcase_add_loop_test(model, test_mm_model_failing_host_operations_lose_nothing, 0, 4);
    tcase_add_loop_test(model, test_mm_model_zstd_without_thp_copying_transport, 0, 2);
    suite_add_tcase(suite, model);
    return suite;
}

int main(void)
{
    SRunner *runner = srunner_create(mm_suite());
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
