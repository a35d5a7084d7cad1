/* SPDX-License-Identifier: Apache-2.0 */
/* What a guest says of its own memory: given up, put in the balloon and taken out, plugged and unplugged. */
#include "tests/fake/fail_alloc.h"
#include "tests/unit/mm_rig.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>

#define WORD 0xaa55aa01u

static const struct mm_config huge = {.budget_bytes = 16 * MIB, .zram = {.limit_bytes = 4 * MIB}, .thp = true};
static const struct mm_config plain = {.budget_bytes = 16 * MIB, .zram = {.limit_bytes = 4 * MIB}};
static const struct mm_config roomy = {.budget_bytes = 64 * MIB, .thp = true};
static const struct mm_config no_zram = {.budget_bytes = 16 * MIB, .readahead_pages = 1};

static uint64_t drop(struct mm_rig *rig, gfn_t start, uint32_t nr, enum mm_drop_how how, uint32_t fill)
{
    uint64_t dropped = 0;
    ck_assert_int_eq(mm_drop(rig->thread[0], rig->vm, gpa_of(start), nr * PAGE_BYTES, how, fill, &dropped), 0);
    memset(rig->content + start, NOTHING, nr);
    mm_rig_check(rig);
    return dropped;
}

static void give_back(struct mm_rig *rig, gfn_t start, uint32_t nr)
{
    ck_assert_int_eq(mm_balloon_return(rig->vm, gpa_of(start), nr * PAGE_BYTES), 0);
    mm_rig_check(rig);
}

static struct mm_vm_stat vm_stat(struct mm_rig *rig)
{
    struct mm_vm_stat stat;
    mm_vm_stat(rig->vm, &stat);
    ck_assert_uint_eq(stat.resident_bytes + stat.standby_bytes + stat.zram_bytes + stat.swap_bytes +
                          stat.untouched_bytes + stat.balloon_bytes + stat.poisoned_bytes,
                      stat.memory_bytes);
    return stat;
}

static uint64_t balloon_pages(struct mm_rig *rig)
{
    return vm_stat(rig).balloon_bytes / PAGE_BYTES;
}

static struct fake_host_stat fake_stat(struct mm_rig *rig)
{
    struct fake_host_stat stat;
    fake_host_stat(rig->fh, &stat);
    return stat;
}

static uint64_t event(struct mm_rig *rig, enum vm_event nr)
{
    return rig->host->event[nr];
}

static bool is_huge(struct mm_rig *rig, gfn_t gfn)
{
    struct mm_page_info info;
    ck_assert_int_eq(mm_page_info(rig->vm, gpa_of(gfn), &info), 0);
    return info.huge;
}

/* The page reads as @word, repeated. Touches it. */
static void assert_words(struct mm_rig *rig, gfn_t gfn, uint32_t word)
{
    uint32_t got[PAGE_BYTES / 4];
    ck_assert_int_eq(mm_rig_touch(rig, 0, gfn), 0);
    ck_assert_int_eq(fake_host_guest_read(rig->fh, mm_vm_id(rig->vm), gfn, 0, got, (uint32_t)PAGE_BYTES), 0);
    for (unsigned i = 0; i < ARRAY_LEN(got); i++)
        ck_assert_msg(got[i] == word, "page %u word %u is %#x", gfn, i, got[i]);
}

static void assert_state(struct mm_rig *rig, gfn_t start, gfn_t end, const char *state)
{
    for (gfn_t gfn = start; gfn < end; gfn++)
        ck_assert_msg(!strcmp(mm_rig_state(rig, gfn), state), "page %u is %s", gfn, mm_rig_state(rig, gfn));
}

/* What the guest's tables cost, and no more: one of each upper level. */
static void assert_no_level_1_table(struct mm_rig *rig)
{
    ck_assert_uint_eq(vm_stat(rig).stage2_tables_bytes, 3 * PAGE_BYTES);
}

/* ---- dropped ---- */

START_TEST(test_mm_drop_of_a_huge_block_gives_all_back_and_is_huge_again)
{
    struct mm_rig *rig = mm_rig_create(&huge, 16 * MIB, 1);
    mm_rig_fill(rig, 0, BLOCK_PAGES, TEXT);
    uint64_t before = fake_stat(rig).physical_pages;
    ck_assert_uint_eq(drop(rig, 0, BLOCK_PAGES, MM_DROP_FREE, 0), BLOCK_PAGES);
    ck_assert_uint_eq(fake_stat(rig).physical_pages, before - BLOCK_PAGES);
    ck_assert_uint_eq(fake_stat(rig).nr_splits, 0);
    ck_assert_uint_eq(event(rig, EV_pgdrop), BLOCK_PAGES);
    assert_state(rig, 0, BLOCK_PAGES, "absent");
    assert_no_level_1_table(rig);
    mm_rig_verify(rig, 0, 77);
    ck_assert(is_huge(rig, 77));
    ck_assert_uint_eq(event(rig, EV_thp_fault_alloc), 2);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_drop_of_single_pages_lets_the_block_be_huge_again_unless_tables_stay)
{
    for (unsigned stays = 0; stays < 2; stays++)
        for (unsigned singly = 0; singly < 2; singly++) {
            struct mm_rig *rig = mm_rig_create(&huge, 16 * MIB, 1);
            fake_host_ops(rig->fh)->keeps_tables = stays;
            mm_rig_fill(rig, 0, BLOCK_PAGES, TEXT);
            ck_assert_uint_eq(drop(rig, 5, 1, MM_DROP_FREE, 0), 1);
            ck_assert(!is_huge(rig, 6));
            for (gfn_t gfn = 0; singly && gfn < BLOCK_PAGES; gfn++)
                ck_assert_uint_eq(drop(rig, gfn, 1, MM_DROP_FREE, 0), gfn != 5);
            if (!singly)
                ck_assert_uint_eq(drop(rig, 0, BLOCK_PAGES, MM_DROP_FREE, 0), BLOCK_PAGES - 1);
            assert_no_level_1_table(rig);
            mm_rig_verify(rig, 0, 77);
            ck_assert_int_eq(is_huge(rig, 77), !stays);
            mm_rig_destroy(rig);
        }
}
END_TEST

START_TEST(test_mm_drop_of_a_part_of_a_huge_block_keeps_the_rest)
{
    static const struct {
        gfn_t start;
        uint32_t nr;
    } part[] = {{0, 1}, {511, 1}, {100, 300}, {1, 511}, {0, 511}};
    for (unsigned i = 0; i < ARRAY_LEN(part); i++) {
        struct mm_rig *rig = mm_rig_create(&huge, 16 * MIB, 1);
        mm_rig_fill(rig, 0, BLOCK_PAGES, TEXT);
        ck_assert_uint_eq(drop(rig, part[i].start, part[i].nr, MM_DROP_FREE, 0), part[i].nr);
        ck_assert_uint_eq(event(rig, EV_thp_split_page), 1);
        assert_state(rig, part[i].start, part[i].start + part[i].nr, "absent");
        for (gfn_t gfn = 0; gfn < BLOCK_PAGES; gfn++)
            mm_rig_verify(rig, 0, gfn);
        mm_rig_destroy(rig);
    }
}
END_TEST

START_TEST(test_mm_drop_of_pages_at_home_frees_them_without_reading)
{
    struct mm_rig *rig = mm_rig_create(&plain, 16 * MIB, 1);
    struct fake_swap *disk = mm_rig_swapon(rig, "disk", 4096);
    struct zram_stat zram;
    struct swap_area_stat swap;
    mm_rig_fill(rig, 0, 64, TEXT);
    mm_rig_fill(rig, 64, 128, RANDOM);
    mm_reclaim(rig->thread[0], rig->vm, 128, true);
    mm_rig_fill(rig, 128, 192, TEXT);
    mm_reclaim(rig->thread[0], rig->vm, 64, false);
    ck_assert_str_eq(mm_rig_state(rig, 3), "zram");
    ck_assert_str_eq(mm_rig_state(rig, 70), "swap");
    ck_assert_str_eq(mm_rig_state(rig, 130), "standby");
    ck_assert_uint_eq(drop(rig, 1, 190, MM_DROP_FREE, 0), 190);
    assert_state(rig, 1, 191, "absent");
    zram_stat(mm_zram(rig->host), &zram);
    ck_assert_uint_eq(zram.orig_data_bytes, PAGE_BYTES);
    ck_assert_uint_eq(swap_stat(mm_swap_set(rig->host), &swap, 1), 1);
    ck_assert_uint_eq(swap.used_bytes, 0);
    ck_assert_uint_eq(disk->nr_read, 0);
    for (gfn_t gfn = 0; gfn < 192; gfn++)
        mm_rig_verify(rig, 0, gfn);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_drop_of_a_huge_block_on_standby_whole_and_in_part)
{
    for (unsigned whole = 0; whole < 2; whole++) {
        struct mm_rig *rig = mm_rig_create(&huge, 16 * MIB, 1);
        mm_rig_fill(rig, 0, BLOCK_PAGES, TEXT);
        mm_reclaim(rig->thread[0], rig->vm, BLOCK_PAGES, false);
        ck_assert_str_eq(mm_rig_state(rig, 0), "standby");
        ck_assert(is_huge(rig, 0));
        uint32_t nr = whole ? BLOCK_PAGES : 200;
        ck_assert_uint_eq(drop(rig, 0, nr, MM_DROP_FREE, 0), nr);
        ck_assert_uint_eq(vm_stat(rig).standby_bytes, (BLOCK_PAGES - nr) * PAGE_BYTES);
        for (gfn_t gfn = 0; gfn < BLOCK_PAGES; gfn++)
            mm_rig_verify(rig, 0, gfn);
        mm_rig_destroy(rig);
    }
}
END_TEST

START_TEST(test_mm_drop_over_several_blocks_keeps_what_is_beside)
{
    struct mm_rig *rig = mm_rig_create(&huge, 16 * MIB, 1);
    mm_rig_fill(rig, 0, 4 * BLOCK_PAGES, TEXT);
    ck_assert_uint_eq(drop(rig, 300, 3 * BLOCK_PAGES, MM_DROP_FREE, 0), 3 * BLOCK_PAGES);
    ck_assert_uint_eq(drop(rig, 300, 3 * BLOCK_PAGES, MM_DROP_FREE, 0), 0);
    ck_assert_uint_eq(drop(rig, 16 * MIB / PAGE_BYTES - 1, 1, MM_DROP_FREE, 0), 0);
    ck_assert_uint_eq(drop(rig, 300, 0, MM_DROP_FREE, 0), 0);
    for (gfn_t gfn = 0; gfn < 4 * BLOCK_PAGES; gfn++)
        mm_rig_verify(rig, 0, gfn);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_whole_blocks_leave_by_one_host_operation_and_pinned_and_unplugged_ones_stay)
{
    const gfn_t pinned = 3, unplugged = 5, nr = 7;
    struct mm_rig *rig = mm_rig_create(&roomy, 16 * MIB, 1);
    mm_rig_fill(rig, 0, 8 * BLOCK_PAGES, TEXT);
    ck_assert_int_eq(mm_pin(rig->thread[0], rig->vm, gpa_of(pinned * BLOCK_PAGES + 9), 1), 0);
    ck_assert_int_eq(mm_plug(rig->thread[0], rig->vm, gpa_of(unplugged * BLOCK_PAGES), BLOCK_BYTES, false), 0);
    uint64_t before = fake_stat(rig).nr_drops, dropped;
    ck_assert_int_eq(mm_drop(rig->thread[0], rig->vm, gpa_of(0), nr * BLOCK_BYTES, MM_DROP_BALLOON, 0, &dropped), 0);
    ck_assert_uint_eq(dropped, 5 * BLOCK_PAGES);
    ck_assert_uint_eq(fake_stat(rig).nr_drops - before, 3);
    ck_assert_uint_eq(fake_stat(rig).nr_splits, 0);
    for (gfn_t block = 0; block < 8; block++)
        assert_state(rig, block * BLOCK_PAGES, (block + 1) * BLOCK_PAGES,
                     block == pinned || block == nr ? "resident"
                     : block == unplugged           ? "unplugged"
                                                    : "balloon");
    mm_unpin(rig->vm, gpa_of(pinned * BLOCK_PAGES + 9), 1);
    for (gfn_t gfn = 0; gfn < nr * BLOCK_PAGES; gfn++)
        if (gfn / BLOCK_PAGES != pinned)
            rig->content[gfn] = NOTHING;
    for (gfn_t gfn = 0; gfn < 8 * BLOCK_PAGES; gfn++)
        if (gfn / BLOCK_PAGES != unplugged)
            mm_rig_verify(rig, 0, gfn);
    mm_rig_destroy(rig);
}
END_TEST

struct dropper {
    struct mm_rig *rig;
    uint64_t dropped;
};

static void *drop_eight(void *ctx)
{
    struct dropper *dropper = ctx;
    if (mm_drop(dropper->rig->thread[0], dropper->rig->vm, gpa_of(0), 8 * BLOCK_BYTES, MM_DROP_FREE, 0,
                &dropper->dropped))
        dropper->dropped = UINT64_MAX;
    return NULL;
}

START_TEST(test_mm_blocks_before_one_that_somebody_is_at_leave_while_it_is_waited_for)
{
    struct mm_rig *rig = mm_rig_create(&roomy, 16 * MIB, 1);
    struct dropper dropper = {.rig = rig};
    struct block *busy = vm_block(rig->vm, 5 * BLOCK_PAGES);
    pthread_t thread;
    mm_rig_fill(rig, 0, 8 * BLOCK_PAGES, TEXT);
    lock_acquire(&busy->lock);
    ck_assert_int_eq(pthread_create(&thread, NULL, drop_eight, &dropper), 0);
    while (fake_stat(rig).nr_drop_pages < 5 * BLOCK_PAGES)
        sched_yield();
    ck_assert_int_eq(pmd_read(busy).state, S2_RESIDENT);
    lock_release(&busy->lock);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    ck_assert_uint_eq(dropper.dropped, 8 * BLOCK_PAGES);
    ck_assert_uint_eq(fake_stat(rig).nr_drops, 2);
    memset(rig->content, NOTHING, 8 * BLOCK_PAGES);
    mm_rig_check(rig);
    assert_state(rig, 0, 8 * BLOCK_PAGES, "absent");
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_wrong_ranges_are_refused_and_nothing_changed)
{
    static const struct {
        uint64_t gpa, bytes;
    } wrong[] = {
        {1, PAGE_BYTES},
        {0, PAGE_BYTES + 1},
        {16 * MIB, PAGE_BYTES},
        {16 * MIB - PAGE_BYTES, 2 * PAGE_BYTES},
        {0, 16 * MIB + PAGE_BYTES},
        {UINT64_MAX - PAGE_BYTES + 1, PAGE_BYTES},
        {2 * PAGE_BYTES, UINT64_MAX - PAGE_BYTES + 1},
        {UINT64_C(1) << 44, PAGE_BYTES},
    };
    struct mm_rig *rig = mm_rig_create(&huge, 16 * MIB, 1);
    mm_rig_fill(rig, 0, 16, TEXT);
    for (unsigned i = 0; i < ARRAY_LEN(wrong); i++) {
        uint64_t dropped = 99;
        gpa_t gpa = {wrong[i].gpa};
        ck_assert_int_eq(mm_drop(rig->thread[0], rig->vm, gpa, wrong[i].bytes, MM_DROP_BALLOON, 0, &dropped), -EFAULT);
        ck_assert_uint_eq(dropped, 0);
        ck_assert_int_eq(mm_balloon_return(rig->vm, gpa, wrong[i].bytes), -EFAULT);
        ck_assert_int_ne(mm_plug(rig->thread[0], rig->vm, gpa, wrong[i].bytes, false), 0);
    }
    ck_assert_int_eq(mm_plug(rig->thread[0], rig->vm, (gpa_t){PAGE_BYTES}, BLOCK_BYTES, false), -EINVAL);
    ck_assert_int_eq(mm_plug(rig->thread[0], rig->vm, (gpa_t){0}, PAGE_BYTES, false), -EINVAL);
    ck_assert_int_eq(mm_plug(rig->thread[0], rig->vm, (gpa_t){14 * MIB}, 2 * BLOCK_BYTES, false), -EFAULT);
    ck_assert_uint_eq(balloon_pages(rig), 0);
    for (gfn_t gfn = 0; gfn < 16; gfn++)
        mm_rig_verify(rig, 0, gfn);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_drop_heals_a_page_that_was_lost)
{
    struct mm_rig *rig = mm_rig_create(&no_zram, 16 * MIB, 1);
    struct fake_swap *disk = mm_rig_swapon(rig, "disk", 4096);
    mm_rig_fill(rig, 0, 64, RANDOM);
    mm_reclaim(rig->thread[0], rig->vm, 64, true);
    disk->fail_at = 1;
    disk->fail_error = -EIO;
    ck_assert_int_eq(mm_fault(rig->thread[0], rig->vm, gpa_of(7), 0), -EIO);
    ck_assert_str_eq(mm_rig_state(rig, 7), "poison");
    ck_assert_uint_eq(drop(rig, 7, 1, MM_DROP_FREE, 0), 1);
    ck_assert_uint_eq(vm_stat(rig).poisoned_bytes, 0);
    for (gfn_t gfn = 0; gfn < 64; gfn++)
        mm_rig_verify(rig, 0, gfn);
    mm_rig_destroy(rig);
}
END_TEST

/* ---- a disk that drops the page which is being written ---- */

struct disk {
    struct fake_swap *under;
    struct mm_rig *rig;
    bool armed;
    uint32_t nr; /* pages to drop from 0 on */
};

static int disk_transfer(void *ctx, bool write, struct swap_io *io, unsigned nr)
{
    struct disk *disk = ctx;
    uint64_t dropped;
    if (write && disk->armed) {
        disk->armed = false;
        ck_assert_int_eq(mm_drop(disk->rig->thread[1], disk->rig->vm, gpa_of(0), disk->nr * PAGE_BYTES, MM_DROP_BALLOON,
                                 0, &dropped),
                         0);
        ck_assert_uint_eq(dropped, disk->nr);
    }
    return fake_swap_backend.transfer(disk->under, write, io, nr);
}

static void disk_close(void *ctx)
{
    fake_swap_backend.close(((struct disk *)ctx)->under);
}

static const struct swap_backend disk_backend = {.transfer = disk_transfer, .close = disk_close};

START_TEST(test_mm_drop_of_pages_that_are_being_written_frees_frames_and_slots)
{
    static const uint32_t nr[] = {1, 20, 512};
    static const int error[] = {0, -EIO};
    for (unsigned i = 0; i < ARRAY_LEN(nr) * 2; i++) {
        struct mm_rig *rig = mm_rig_create(&no_zram, 16 * MIB, 2);
        struct disk disk = {.under = fake_swap_create(4096), .rig = rig, .armed = true, .nr = nr[i / 2]};
        struct swap_area_stat stat;
        ck_assert_int_ge(swap_area_add(mm_swap_set(rig->host), "disk", "file", 4096, -1, &disk_backend, &disk), 0);
        mm_rig_fill(rig, 0, BLOCK_PAGES, RANDOM);
        disk.under->fail_at = error[i % 2] ? 1 : 0;
        disk.under->fail_error = error[i % 2];
        mm_reclaim(rig->thread[0], rig->vm, 32, true);
        ck_assert(!disk.armed);
        memset(rig->content, NOTHING, disk.nr);
        mm_rig_check(rig);
        ck_assert_uint_eq(balloon_pages(rig), disk.nr);
        ck_assert_uint_eq(swap_stat(mm_swap_set(rig->host), &stat, 1), 1);
        ck_assert_uint_eq(stat.used_bytes, vm_stat(rig).swap_bytes);
        for (gfn_t gfn = 0; gfn < BLOCK_PAGES; gfn++)
            mm_rig_verify(rig, 0, gfn);
        mm_rig_destroy(rig);
    }
}
END_TEST

/* ---- filled ---- */

START_TEST(test_mm_dropped_pages_come_back_with_the_word_that_was_asked_for)
{
    const struct mm_config *configs[] = {&huge, &plain};
    for (unsigned i = 0; i < ARRAY_LEN(configs); i++) {
        struct mm_rig *rig = mm_rig_create(configs[i], 16 * MIB, 1);
        mm_rig_fill(rig, 0, 3 * BLOCK_PAGES, TEXT);
        ck_assert_uint_eq(drop(rig, 0, BLOCK_PAGES, MM_DROP_FREE, WORD), BLOCK_PAGES);
        ck_assert_uint_eq(drop(rig, 600, 100, MM_DROP_FREE, WORD), 100);
        ck_assert_uint_eq(drop(rig, 650, 10, MM_DROP_FREE, 0), 10);
        ck_assert_uint_eq(drop(rig, 660, 10, MM_DROP_FREE, 7), 10);
        assert_state(rig, 0, BLOCK_PAGES, "fill");
        ck_assert_uint_eq(vm_stat(rig).untouched_bytes + vm_stat(rig).resident_bytes, 16 * MIB);
        for (gfn_t gfn = 0; gfn < 3 * BLOCK_PAGES; gfn++)
            if (gfn >= 660 && gfn < 670)
                assert_words(rig, gfn, 7);
            else if (gfn < BLOCK_PAGES || (gfn >= 600 && gfn < 700 && (gfn < 650 || gfn >= 670)))
                assert_words(rig, gfn, WORD);
            else
                mm_rig_verify(rig, 0, gfn);
        ck_assert_int_eq(is_huge(rig, 0), configs[i]->thp);
        mm_rig_check(rig);
        mm_rig_destroy(rig);
    }
}
END_TEST

START_TEST(test_mm_filled_block_whose_huge_move_fails_is_served_in_pages)
{
    static const uint32_t after[] = {0, 100, 511};
    for (unsigned i = 0; i < ARRAY_LEN(after); i++) {
        struct mm_rig *rig = mm_rig_create(&huge, 16 * MIB, 1);
        ck_assert_uint_eq(drop(rig, 0, BLOCK_PAGES, MM_DROP_FREE, WORD), BLOCK_PAGES);
        fake_host_fail(rig->fh,
                       &(struct fake_failure){.op = FAKE_PLACE, .nth = 1, .err = ENOMEM, .after_pages = after[i]});
        assert_words(rig, 300, WORD);
        ck_assert(fake_host_failed(rig->fh));
        mm_rig_check(rig);
        for (gfn_t gfn = 0; gfn < BLOCK_PAGES; gfn++)
            assert_words(rig, gfn, WORD);
        mm_rig_destroy(rig);
    }
}
END_TEST

/* ---- the balloon ---- */

START_TEST(test_mm_balloon_inflate_and_return_are_counted)
{
    struct mm_rig *rig = mm_rig_create(&huge, 16 * MIB, 1);
    mm_rig_fill(rig, 0, 2 * BLOCK_PAGES, TEXT);
    uint64_t before = fake_stat(rig).physical_pages;
    ck_assert_uint_eq(drop(rig, 0, 4 * BLOCK_PAGES, MM_DROP_BALLOON, 0), 4 * BLOCK_PAGES);
    ck_assert_uint_eq(drop(rig, 0, 4 * BLOCK_PAGES, MM_DROP_BALLOON, 0), 0);
    ck_assert_uint_eq(balloon_pages(rig), 4 * BLOCK_PAGES);
    ck_assert_uint_eq(before - fake_stat(rig).physical_pages, 2 * BLOCK_PAGES);
    assert_no_level_1_table(rig);
    give_back(rig, 0, BLOCK_PAGES);
    give_back(rig, 700, 100);
    ck_assert_uint_eq(balloon_pages(rig), 3 * BLOCK_PAGES - 100);
    assert_state(rig, 700, 800, "absent");
    give_back(rig, 512, 3 * BLOCK_PAGES);
    ck_assert_uint_eq(balloon_pages(rig), 0);
    ck_assert_uint_eq(event(rig, EV_balloon_inflate), 4 * BLOCK_PAGES);
    ck_assert_uint_eq(event(rig, EV_balloon_deflate), 4 * BLOCK_PAGES);
    ck_assert_uint_eq(event(rig, EV_balloon_fault), 0);
    assert_no_level_1_table(rig);
    mm_rig_verify(rig, 0, 750);
    ck_assert(is_huge(rig, 750));
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_touch_takes_one_page_out_of_the_balloon)
{
    struct mm_rig *rig = mm_rig_create(&huge, 16 * MIB, 1);
    drop(rig, 0, BLOCK_PAGES, MM_DROP_BALLOON, 0);
    drop(rig, BLOCK_PAGES, BLOCK_PAGES, MM_DROP_BALLOON, WORD);
    assert_words(rig, 9, 0);
    assert_words(rig, 700, WORD);
    assert_state(rig, 0, 9, "balloon");
    assert_state(rig, 10, 700, "balloon");
    ck_assert_uint_eq(balloon_pages(rig), 2 * BLOCK_PAGES - 2);
    ck_assert_uint_eq(event(rig, EV_balloon_fault), 2);
    /* a neighbour's first touch does not bring them along */
    give_back(rig, 100, 4);
    ck_assert_int_eq(mm_rig_touch(rig, 0, 102), 0);
    assert_state(rig, 100, 104, "resident");
    ck_assert_str_eq(mm_rig_state(rig, 99), "balloon");
    ck_assert_str_eq(mm_rig_state(rig, 104), "balloon");
    give_back(rig, 0, 2 * BLOCK_PAGES);
    ck_assert_uint_eq(balloon_pages(rig), 0);
    ck_assert_str_eq(mm_rig_state(rig, 701), "fill");
    assert_words(rig, 701, WORD);
    ck_assert_str_eq(mm_rig_state(rig, 9), "resident");
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_balloon_of_single_pages_becomes_one_entry)
{
    struct mm_rig *rig = mm_rig_create(&plain, 16 * MIB, 1);
    mm_rig_fill(rig, 0, BLOCK_PAGES, TEXT);
    for (unsigned i = 0; i < BLOCK_PAGES; i++)
        ck_assert_uint_eq(drop(rig, (i * 37) % BLOCK_PAGES, 1, MM_DROP_BALLOON, 0), 1);
    ck_assert(is_huge(rig, 0));
    ck_assert_uint_eq(balloon_pages(rig), BLOCK_PAGES);
    ck_assert_uint_eq(rig->host->lru.nr_active, 0);
    assert_no_level_1_table(rig);
    for (unsigned i = 0; i < BLOCK_PAGES; i++)
        give_back(rig, (i * 41) % BLOCK_PAGES, 1);
    ck_assert(is_huge(rig, 0));
    ck_assert_str_eq(mm_rig_state(rig, 0), "absent");
    assert_no_level_1_table(rig);
    mm_rig_destroy(rig);
}
END_TEST

/* ---- no memory for a table ---- */

/* Uses up what the slab of tables holds, by faulting blocks in; then the next table asks the heap. */
static gfn_t use_up_tables(struct mm_rig *rig)
{
    gfn_t gfn = 8 * BLOCK_PAGES;
    int err = 0;
    for (; !err; gfn += BLOCK_PAGES) {
        fail_alloc_at(1);
        err = mm_fault(rig->thread[0], rig->vm, gpa_of(gfn), 0);
        fail_alloc_at(-1);
    }
    ck_assert_int_eq(err, -ENOMEM);
    return gfn;
}

START_TEST(test_mm_drop_without_a_table_stops_there_and_the_rest_is_as_it_was)
{
    struct mm_rig *rig = mm_rig_create(&plain, 128 * MIB, 1);
    uint64_t dropped;
    mm_rig_fill(rig, 0, 1, TEXT);
    mm_rig_fill(rig, 2 * BLOCK_PAGES, 2 * BLOCK_PAGES + 5, TEXT);
    use_up_tables(rig);
    /* a block that has a table, one that goes to the balloon whole, and a part of one that has none */
    fail_alloc_at(1);
    int err = mm_drop(rig->thread[0], rig->vm, gpa_of(0), (BLOCK_PAGES + 3) * PAGE_BYTES, MM_DROP_BALLOON, 0, &dropped);
    fail_alloc_at(-1);
    /* the first block's table came free */
    ck_assert_int_eq(err, 0);
    ck_assert_uint_eq(dropped, BLOCK_PAGES + 3);
    fail_alloc_at(1);
    err = mm_drop(rig->thread[0], rig->vm, gpa_of(3 * BLOCK_PAGES), (BLOCK_PAGES + 7) * PAGE_BYTES, MM_DROP_BALLOON, 0,
                  &dropped);
    fail_alloc_at(-1);
    ck_assert_int_eq(err, -ENOMEM);
    ck_assert_uint_eq(dropped, BLOCK_PAGES);
    assert_state(rig, 3 * BLOCK_PAGES, 4 * BLOCK_PAGES, "balloon");
    assert_state(rig, 4 * BLOCK_PAGES, 5 * BLOCK_PAGES, "absent");
    ck_assert_uint_eq(balloon_pages(rig), 2 * BLOCK_PAGES + 3);
    rig->content[0] = NOTHING;
    mm_rig_check(rig);
    for (gfn_t gfn = 0; gfn < 5 * BLOCK_PAGES; gfn++)
        mm_rig_verify(rig, 0, gfn);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_balloon_return_without_a_table_leaves_pages_for_their_touch)
{
    struct mm_rig *rig = mm_rig_create(&plain, 128 * MIB, 1);
    drop(rig, 0, BLOCK_PAGES, MM_DROP_BALLOON, 0);
    use_up_tables(rig);
    fail_alloc_at(1);
    int err = mm_balloon_return(rig->vm, gpa_of(5), 10 * PAGE_BYTES);
    bool fired = fail_alloc_fired();
    fail_alloc_at(-1);
    ck_assert(fired);
    ck_assert_int_eq(err, 0);
    ck_assert_uint_eq(balloon_pages(rig), BLOCK_PAGES);
    mm_rig_check(rig);
    for (gfn_t gfn = 5; gfn < 15; gfn++)
        assert_words(rig, gfn, 0);
    ck_assert_uint_eq(balloon_pages(rig), BLOCK_PAGES - 10);
    mm_rig_destroy(rig);
}
END_TEST

/* ---- plugged ---- */

static const struct mm_region two[2] = {{.start = {0}, .bytes = 4 * MIB},
                                        {.start = {8 * MIB}, .bytes = 8 * MIB, .unplugged = true}};

/* A rig whose VM has a region that is not plugged. */
static struct mm_rig *plug_rig(void)
{
    struct mm_rig *rig = mm_rig_create(&huge, 16 * MIB, 1);
    vmid_t id = mm_vm_id(rig->vm);
    mm_vm_destroy(rig->thread[0], rig->vm);
    ck_assert_int_eq(mm_vm_create(rig->host, two, 2, &rig->vm), 0);
    ck_assert_uint_eq(mm_vm_id(rig->vm), id);
    return rig;
}

static int plug(struct mm_rig *rig, uint64_t gpa, uint64_t bytes, bool plugged)
{
    int err = mm_plug(rig->thread[0], rig->vm, (gpa_t){gpa}, bytes, plugged);
    mm_rig_check(rig);
    return err;
}

START_TEST(test_mm_unplugged_region_is_no_memory_until_it_is_plugged)
{
    struct mm_rig *rig = plug_rig();
    uint64_t dropped;
    assert_no_level_1_table(rig);
    ck_assert_uint_eq(vm_stat(rig).memory_bytes, 4 * MIB);
    ck_assert_uint_eq(vm_stat(rig).unplugged_bytes, 8 * MIB);
    ck_assert_int_eq(mm_fault(rig->thread[0], rig->vm, (gpa_t){8 * MIB}, 0), -EFAULT);
    ck_assert_str_eq(mm_rig_state(rig, 2048), "unplugged");
    /* what a guest says of it changes nothing */
    ck_assert_int_eq(mm_drop(rig->thread[0], rig->vm, (gpa_t){8 * MIB}, 8 * MIB, MM_DROP_BALLOON, 0, &dropped), 0);
    ck_assert_uint_eq(dropped, 0);
    ck_assert_int_eq(mm_balloon_return(rig->vm, (gpa_t){8 * MIB}, 4 * PAGE_BYTES), 0);
    ck_assert_int_eq(plug(rig, 8 * MIB, 2 * BLOCK_BYTES, true), 0);
    ck_assert_uint_eq(vm_stat(rig).memory_bytes, 4 * MIB + 2 * BLOCK_BYTES);
    mm_rig_fill(rig, 2048, 2048 + 600, TEXT);
    ck_assert_int_eq(plug(rig, 8 * MIB, 8 * MIB, true), 0);
    ck_assert_uint_eq(vm_stat(rig).memory_bytes, 12 * MIB);
    for (gfn_t gfn = 2048; gfn < 4096; gfn++)
        mm_rig_verify(rig, 0, gfn);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_unplug_drops_the_pages_and_plugged_again_they_are_zeros)
{
    struct mm_rig *rig = plug_rig();
    ck_assert_int_eq(plug(rig, 8 * MIB, 8 * MIB, true), 0);
    mm_rig_fill(rig, 2048, 4096, TEXT);
    mm_reclaim(rig->thread[0], rig->vm, 1024, true);
    drop(rig, 2048 + 100, 50, MM_DROP_BALLOON, 0);
    ck_assert_int_eq(plug(rig, 8 * MIB, 3 * BLOCK_BYTES, false), 0);
    ck_assert_int_eq(plug(rig, 8 * MIB, 3 * BLOCK_BYTES, false), 0);
    ck_assert_uint_eq(balloon_pages(rig), 0);
    ck_assert_uint_eq(vm_stat(rig).unplugged_bytes, 3 * BLOCK_BYTES);
    for (gfn_t gfn = 2048; gfn < 2048 + 3 * BLOCK_PAGES; gfn++) {
        ck_assert(!mm_rig_is_present(rig, gfn));
        ck_assert_int_eq(mm_fault(rig->thread[0], rig->vm, gpa_of(gfn), 0), -EFAULT);
    }
    for (gfn_t gfn = 2048 + 3 * BLOCK_PAGES; gfn < 4096; gfn++)
        mm_rig_verify(rig, 0, gfn);
    ck_assert_int_eq(plug(rig, 8 * MIB, BLOCK_BYTES, true), 0);
    memset(rig->content + 2048, NOTHING, BLOCK_PAGES);
    mm_rig_verify(rig, 0, 2048);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_unplug_of_a_pinned_block_is_refused_and_nothing_changed)
{
    struct mm_rig *rig = plug_rig();
    ck_assert_int_eq(plug(rig, 8 * MIB, 8 * MIB, true), 0);
    mm_rig_fill(rig, 2048, 4096, TEXT);
    ck_assert_int_eq(mm_pin(rig->thread[0], rig->vm, gpa_of(3000), 1), 0);
    ck_assert_int_eq(plug(rig, 8 * MIB, 8 * MIB, false), -EBUSY);
    ck_assert_uint_eq(vm_stat(rig).unplugged_bytes, 0);
    for (gfn_t gfn = 2048; gfn < 4096; gfn++)
        mm_rig_verify(rig, 0, gfn);
    mm_unpin(rig->vm, gpa_of(3000), 1);
    ck_assert_int_eq(plug(rig, 8 * MIB, 8 * MIB, false), 0);
    ck_assert_uint_eq(vm_stat(rig).unplugged_bytes, 8 * MIB);
    mm_rig_destroy(rig);
}
END_TEST

/* ---- what mm_check sees ---- */

#define ASSERT_SEEN(change, undo)                                                                                      \
    do {                                                                                                               \
        const char *why = NULL;                                                                                        \
        change;                                                                                                        \
        ck_assert_msg(!mm_check(rig->host, &why), "not seen: " #change);                                               \
        ck_assert_ptr_nonnull(why);                                                                                    \
        undo;                                                                                                          \
        mm_rig_check(rig);                                                                                             \
    } while (0)

/* An entry that is wrong in this alone: its age or payload. */
static void write_entry(uint64_t *raw, unsigned level, uint8_t state, uint64_t payload, uint8_t age)
{
    struct s2_entry entry = {.state = state, .payload = payload, .age = age};
    *raw = s2_format_ept.make_leaf(&entry, level);
}

START_TEST(test_mm_check_sees_damage_to_what_was_given_up)
{
    struct mm_rig *rig = mm_rig_create(&huge, 16 * MIB, 1);
    drop(rig, 0, BLOCK_PAGES, MM_DROP_BALLOON, 0);
    drop(rig, BLOCK_PAGES, 7, MM_DROP_FREE, WORD);
    mm_rig_fill(rig, 1024, 1025, TEXT);
    uint64_t *pmd = vm_block(rig->vm, 0)->pmd, *pte = vm_block(rig->vm, BLOCK_PAGES)->table, old = *pmd;
    struct block *block = vm_block(rig->vm, 1024), *empty = vm_block(rig->vm, 2048);
    ASSERT_SEEN(write_entry(pmd, 2, S2_BALLOON, 0, 1), *pmd = old);
    ASSERT_SEEN(write_entry(pmd, 2, S2_BALLOON, UINT64_C(1) << 32, 0), *pmd = old);
    ASSERT_SEEN(write_entry(pmd, 2, S2_ZRAM, 1, 0), *pmd = old);
    ASSERT_SEEN(write_entry(pmd, 2, S2_UNPLUGGED, 0, 0), *pmd = old);
    old = *pte;
    ASSERT_SEEN(write_entry(pte, 1, S2_FILL, 0, 0), *pte = old);
    ASSERT_SEEN(write_entry(pte, 1, S2_UNPLUGGED, 0, 0), *pte = old);
    ASSERT_SEEN(rig->host->event[EV_balloon_inflate]++, rig->host->event[EV_balloon_inflate]--);
    ASSERT_SEEN(block->closing = true, block->closing = false);
    ASSERT_SEEN(empty->nr_pins++, empty->nr_pins--);
    mm_rig_destroy(rig);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("mm_give");
    TCase *cases = tcase_create("cases");
    tcase_set_timeout(cases, 120);
    tcase_add_test(cases, test_mm_drop_of_a_huge_block_gives_all_back_and_is_huge_again);
    tcase_add_test(cases, test_mm_drop_of_single_pages_lets_the_block_be_huge_again_unless_tables_stay);
    tcase_add_test(cases, test_mm_drop_of_a_part_of_a_huge_block_keeps_the_rest);
    tcase_add_test(cases, test_mm_drop_of_pages_at_home_frees_them_without_reading);
    tcase_add_test(cases, test_mm_drop_of_a_huge_block_on_standby_whole_and_in_part);
    tcase_add_test(cases, test_mm_drop_over_several_blocks_keeps_what_is_beside);
    tcase_add_test(cases, test_mm_wrong_ranges_are_refused_and_nothing_changed);
    tcase_add_test(cases, test_mm_whole_blocks_leave_by_one_host_operation_and_pinned_and_unplugged_ones_stay);
    tcase_add_test(cases, test_mm_blocks_before_one_that_somebody_is_at_leave_while_it_is_waited_for);
    tcase_add_test(cases, test_mm_drop_heals_a_page_that_was_lost);
    tcase_add_test(cases, test_mm_drop_of_pages_that_are_being_written_frees_frames_and_slots);
    tcase_add_test(cases, test_mm_dropped_pages_come_back_with_the_word_that_was_asked_for);
    tcase_add_test(cases, test_mm_filled_block_whose_huge_move_fails_is_served_in_pages);
    tcase_add_test(cases, test_mm_balloon_inflate_and_return_are_counted);
    tcase_add_test(cases, test_mm_touch_takes_one_page_out_of_the_balloon);
    tcase_add_test(cases, test_mm_balloon_of_single_pages_becomes_one_entry);
    tcase_add_test(cases, test_mm_drop_without_a_table_stops_there_and_the_rest_is_as_it_was);
    tcase_add_test(cases, test_mm_balloon_return_without_a_table_leaves_pages_for_their_touch);
    tcase_add_test(cases, test_mm_unplugged_region_is_no_memory_until_it_is_plugged);
    tcase_add_test(cases, test_mm_unplug_drops_the_pages_and_plugged_again_they_are_zeros);
    tcase_add_test(cases, test_mm_unplug_of_a_pinned_block_is_refused_and_nothing_changed);
    tcase_add_test(cases, test_mm_check_sees_damage_to_what_was_given_up);
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
