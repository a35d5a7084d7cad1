/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What mm/ does when a step fails half way, and when a page is wanted while it is on its way: the host's operations
 * stop after some pages, a disk is slow, bad, or calls back in the middle of a transfer.
 */
#include "tests/fake/fail_alloc.h"
#include "tests/unit/mm_rig.h"

#include <errno.h>
#include <pthread.h>
#include <time.h>

static const struct mm_config huge = {.budget_bytes = 8 * MIB, .thp = true};
static const struct mm_config plain = {.budget_bytes = 8 * MIB, .readahead_pages = 1};

static void fail_op(struct mm_rig *rig, enum fake_op op, uint32_t after_pages)
{
    fake_host_fail(rig->fh, &(struct fake_failure){.op = op, .nth = 1, .err = ENOMEM, .after_pages = after_pages});
}

/* ---- 2 MiB that go in by halves ---- */

START_TEST(test_mm_first_touch_whose_huge_move_fails_is_served_in_pages)
{
    static const uint32_t after[] = {0, 100, 100, 511};
    static const gfn_t touched[] = {7, 50, 300, 511};
    for (unsigned i = 0; i < ARRAY_LEN(after); i++) {
        struct mm_rig *rig = mm_rig_create(&huge, 4 * MIB, 1);
        fail_op(rig, FAKE_PLACE, after[i]);
        ck_assert_int_eq(mm_fault(rig->thread[0], rig->vm, gpa_of(touched[i]), 0), 0);
        ck_assert(fake_host_failed(rig->fh));
        ck_assert(mm_rig_is_present(rig, touched[i]));
        mm_rig_check(rig);
        for (gfn_t gfn = 0; gfn < BLOCK_PAGES; gfn++)
            mm_rig_verify(rig, 0, gfn);
        mm_rig_destroy(rig);
    }
}
END_TEST

START_TEST(test_mm_huge_page_that_fails_to_return_stays_on_standby)
{
    static const uint32_t after[] = {0, 100, 100, 511};
    static const gfn_t touched[] = {7, 50, 300, 511};
    for (unsigned i = 0; i < ARRAY_LEN(after); i++) {
        struct mm_rig *rig = mm_rig_create(&huge, 4 * MIB, 1);
        mm_rig_fill(rig, 0, BLOCK_PAGES, TEXT);
        ck_assert_uint_eq(mm_reclaim(rig->thread[0], rig->vm, 1, false), BLOCK_PAGES);
        fail_op(rig, FAKE_PLACE, after[i]);
        int err = mm_fault(rig->thread[0], rig->vm, gpa_of(touched[i]), 0);
        ck_assert_int_eq(err, touched[i] < after[i] ? 0 : -ENOMEM);
        ck_assert_str_eq(mm_rig_state(rig, 511), "standby");
        mm_rig_check(rig);
        for (gfn_t gfn = 0; gfn < BLOCK_PAGES; gfn++)
            mm_rig_verify(rig, 0, gfn);
        mm_rig_destroy(rig);
    }
}
END_TEST

START_TEST(test_mm_huge_page_taken_by_halves_loses_nothing)
{
    static const uint32_t after[] = {0, 100, 511};
    for (unsigned i = 0; i < ARRAY_LEN(after); i++) {
        struct mm_rig *rig = mm_rig_create(&huge, 4 * MIB, 1);
        mm_rig_fill(rig, 0, BLOCK_PAGES, TEXT);
        fail_op(rig, FAKE_TAKE, after[i]);
        ck_assert_uint_eq(mm_reclaim(rig->thread[0], rig->vm, 1, false), after[i]);
        mm_rig_check(rig);
        for (gfn_t gfn = 0; gfn < BLOCK_PAGES; gfn++)
            ck_assert_int_eq(mm_rig_is_present(rig, gfn), gfn >= after[i]);
        for (gfn_t gfn = 0; gfn < BLOCK_PAGES; gfn++)
            mm_rig_verify(rig, 0, gfn);
        mm_rig_destroy(rig);
    }
}
END_TEST

START_TEST(test_mm_first_touch_without_table_refused_and_nothing_changed)
{
    struct mm_rig *rig = mm_rig_create(&huge, 128 * MIB, 1);
    gfn_t gfn = 0;
    int err = 0;
    /* tables come in slabs of several: at the first of a slab the heap is asked */
    for (; !err; gfn += BLOCK_PAGES) {
        fail_alloc_at(1);
        err = mm_fault(rig->thread[0], rig->vm, gpa_of(gfn), 0);
        fail_alloc_at(-1);
    }
    gfn -= BLOCK_PAGES;
    ck_assert_int_eq(err, -ENOMEM);
    ck_assert_str_eq(mm_rig_state(rig, gfn), "absent");
    ck_assert_uint_eq(vm_nr_pages(rig->vm, S2_ABSENT) + vm_nr_pages(rig->vm, S2_RESIDENT), rig->nr_pages);
    mm_rig_check(rig);
    mm_rig_fill(rig, gfn, gfn + 1, TEXT);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_no_slot_to_come_home_to_takes_nothing)
{
    struct mm_rig *rig = mm_rig_create(&plain, 8 * MIB, 1);
    struct pool *pool = &rig->host->node[0].pool;
    struct {
        fn_t fn;
        uint32_t nr;
    } run[64];
    unsigned nr = 0;
    mm_rig_fill(rig, 0, 100, TEXT);
    while (!pool_alloc_empty(pool, BLOCK_PAGES, &run[nr].fn, &run[nr].nr))
        nr++;
    ck_assert_uint_eq(mm_reclaim(rig->thread[0], rig->vm, 100, false), 0);
    while (nr-- > 0)
        pool_free_empty(pool, run[nr].fn, run[nr].nr);
    mm_rig_check(rig);
    ck_assert_uint_ge(mm_reclaim(rig->thread[0], rig->vm, 100, false), 100);
    for (gfn_t gfn = 0; gfn < 100; gfn++)
        mm_rig_verify(rig, 0, gfn);
    mm_rig_destroy(rig);
}
END_TEST

/* ---- bad disks ---- */

START_TEST(test_mm_bad_page_in_a_readahead_window_is_lost_only_when_wanted)
{
    struct mm_config config = plain;
    config.readahead_pages = 32;
    struct mm_rig *rig = mm_rig_create(&config, 8 * MIB, 1);
    struct fake_swap *disk = mm_rig_swapon(rig, "disk", 4096);
    mm_rig_fill(rig, 0, 512, RANDOM);
    mm_reclaim(rig->thread[0], rig->vm, 512, true);
    uint64_t slot = swap_ref_unpack(pte_read(vm_block(rig->vm, 0), 100).payload).slot;
    disk->read_error[slot] = -EIO;
    for (gfn_t gfn = 0; gfn < 100; gfn++)
        mm_rig_verify(rig, 0, gfn);
    ck_assert_str_eq(mm_rig_state(rig, 100), "swap");
    ck_assert_int_eq(mm_fault(rig->thread[0], rig->vm, gpa_of(100), 0), -EIO);
    ck_assert_str_eq(mm_rig_state(rig, 100), "poison");
    for (gfn_t gfn = 101; gfn < 512; gfn++)
        mm_rig_verify(rig, 0, gfn);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_damaged_page_of_zram_is_lost_alone)
{
    const struct mm_config config = {.budget_bytes = 8 * MIB, .zram = {.limit_bytes = 2 * MIB}, .readahead_pages = 32};
    struct mm_rig *rig = mm_rig_create(&config, 8 * MIB, 1);
    mm_rig_fill(rig, 0, 512, TEXT);
    mm_reclaim(rig->thread[0], rig->vm, 512, true);
    ck_assert_str_eq(mm_rig_state(rig, 100), "zram");
    /* its data starts 12 bytes into the object: mm/swap/zpool.h */
    char *object = rig->host->arena + (pte_read(vm_block(rig->vm, 0), 100).payload >> 1) * 16;
    object[50] ^= 1;
    for (gfn_t gfn = 0; gfn < 512; gfn++)
        if (gfn != 100)
            mm_rig_verify(rig, 0, gfn);
    ck_assert_int_eq(mm_fault(rig->thread[0], rig->vm, gpa_of(100), 0), -EIO);
    ck_assert_int_eq(mm_fault(rig->thread[0], rig->vm, gpa_of(100), 0), -EIO);
    mm_rig_destroy(rig);
}
END_TEST

/* ---- a disk that calls back: eviction holds no lock while it writes ---- */

struct disk {
    struct fake_swap *under;
    struct mm_rig *rig;
    void (*on_transfer)(struct disk *disk, bool write, const struct swap_io *io, unsigned nr);
    int write_error; /* 0 or what every write returns; atomic */
    gfn_t wanted;
    int hold, held; /* atomics: transfers wait while hold is set; one of them waits */
};

static int disk_transfer(void *ctx, bool write, struct swap_io *io, unsigned nr)
{
    struct disk *disk = ctx;
    if (disk->on_transfer)
        disk->on_transfer(disk, write, io, nr);
    int err = write ? __atomic_load_n(&disk->write_error, __ATOMIC_RELAXED) : 0;
    if (!err)
        return fake_swap_backend.transfer(disk->under, write, io, nr);
    for (unsigned i = 0; i < nr; i++)
        io[i].error = err;
    return err;
}

static void disk_close(void *ctx)
{
    fake_swap_backend.close(((struct disk *)ctx)->under);
}

static const struct swap_backend disk_backend = {.transfer = disk_transfer, .close = disk_close};

static void disk_on(struct disk *disk, struct mm_rig *rig, uint64_t slots)
{
    disk->rig = rig;
    disk->under = fake_swap_create(slots);
    ck_assert_int_ge(swap_area_add(mm_swap_set(rig->host), "disk", "file", slots, -1, &disk_backend, disk), 0);
}

/* Another vCPU touches the wanted page while it is being written. */
static void touch_wanted(struct disk *disk, bool write, const struct swap_io *io, unsigned nr)
{
    (void)io;
    (void)nr;
    if (write)
        ck_assert_int_eq(mm_rig_touch(disk->rig, 1, disk->wanted), 0);
}

START_TEST(test_mm_page_touched_while_written_comes_back_and_its_copy_goes)
{
    static const int error[] = {0, -EIO};
    for (unsigned i = 0; i < ARRAY_LEN(error); i++) {
        struct mm_rig *rig = mm_rig_create(&plain, 8 * MIB, 2);
        struct disk disk = {.on_transfer = touch_wanted, .wanted = 5, .write_error = error[i]};
        struct swap_area_stat stat;
        disk_on(&disk, rig, 4096);
        mm_rig_fill(rig, 0, 32, RANDOM);
        mm_reclaim(rig->thread[0], rig->vm, 32, true);
        mm_rig_check(rig);
        ck_assert_str_eq(mm_rig_state(rig, 5), "resident");
        ck_assert_str_eq(mm_rig_state(rig, 6), error[i] ? "standby" : "swap");
        ck_assert_uint_eq(swap_stat(mm_swap_set(rig->host), &stat, 1), 1);
        ck_assert_uint_eq(stat.used_bytes, error[i] ? 0 : 31 * PAGE_BYTES);
        disk.on_transfer = NULL;
        for (gfn_t gfn = 0; gfn < 32; gfn++)
            mm_rig_verify(rig, 0, gfn);
        mm_rig_destroy(rig);
    }
}
END_TEST

/* ---- a slow disk ---- */

static void sleep_ms(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

/* The first write waits until it is let go. */
static void hold_one_write(struct disk *disk, bool write, const struct swap_io *io, unsigned nr)
{
    (void)io;
    (void)nr;
    if (!write || __atomic_exchange_n(&disk->held, 1, __ATOMIC_ACQ_REL))
        return;
    while (__atomic_load_n(&disk->hold, __ATOMIC_ACQUIRE))
        sleep_ms();
    __atomic_store_n(&disk->write_error, 0, __ATOMIC_RELAXED);
}

static void *evict_main(void *arg)
{
    struct mm_rig *rig = arg;
    mm_reclaim(rig->thread[1], rig->vm, 32, true);
    return NULL;
}

static pthread_t start_held_write(struct disk *disk)
{
    pthread_t thread;
    ck_assert_int_eq(pthread_create(&thread, NULL, evict_main, disk->rig), 0);
    while (!__atomic_load_n(&disk->held, __ATOMIC_ACQUIRE))
        sleep_ms();
    return thread;
}

static void *let_go_main(void *arg)
{
    struct disk *disk = arg;
    for (unsigned i = 0; i < 60; i++)
        sleep_ms();
    __atomic_store_n(&disk->hold, 0, __ATOMIC_RELEASE);
    return NULL;
}

START_TEST(test_mm_swapoff_waits_for_a_slow_write)
{
    struct mm_rig *rig = mm_rig_create(&plain, 8 * MIB, 2);
    struct disk disk = {.on_transfer = hold_one_write, .hold = 1};
    pthread_t let_go;
    disk_on(&disk, rig, 4096);
    mm_rig_fill(rig, 0, 100, RANDOM);
    pthread_t evict = start_held_write(&disk);
    ck_assert_int_eq(pthread_create(&let_go, NULL, let_go_main, &disk), 0);
    ck_assert_int_eq(mm_swapoff(rig->thread[0], "disk"), 0);
    pthread_join(evict, NULL);
    pthread_join(let_go, NULL);
    for (gfn_t gfn = 0; gfn < 100; gfn++)
        mm_rig_verify(rig, 0, gfn);
    mm_rig_destroy(rig);
}
END_TEST

/* Every other write fails at once; the one under way is all there is to hope for. */
START_TEST(test_mm_fault_waits_for_a_slow_write_before_memory_is_out)
{
    struct mm_rig *rig = mm_rig_create(&plain, 16 * MIB, 2);
    struct disk disk = {.on_transfer = hold_one_write, .hold = 1, .write_error = -EIO};
    pthread_t let_go;
    gfn_t gfn = 0;
    disk_on(&disk, rig, 4096);
    for (; mm_rig_free_pages(rig) >= rig->host->node[0].pool.wmark[WMARK_MIN] + 32; gfn++)
        mm_rig_fill(rig, gfn, gfn + 1, RANDOM);
    pthread_t evict = start_held_write(&disk);
    ck_assert_int_eq(pthread_create(&let_go, NULL, let_go_main, &disk), 0);
    mm_rig_fill(rig, gfn, gfn + 200, RANDOM);
    pthread_join(evict, NULL);
    pthread_join(let_go, NULL);
    for (gfn_t k = 0; k < gfn + 200; k++)
        mm_rig_verify(rig, 0, k);
    mm_rig_destroy(rig);
}
END_TEST

/* ---- swapoff against faults that need its room ---- */

struct rival {
    struct disk disk;
    gfn_t start;
    int err;
    pthread_t thread;
    bool started;
};

static void *rival_main(void *arg)
{
    struct rival *rival = arg;
    for (gfn_t gfn = rival->start; gfn < rival->start + 900 && !rival->err; gfn++)
        rival->err = mm_rig_write(rival->disk.rig, 1, gfn, RANDOM);
    return NULL;
}

/* The first page that swapoff reads takes until a fault asks for the area back. */
static void start_rival(struct disk *disk, bool write, const struct swap_io *io, unsigned nr)
{
    struct rival *rival = container_of(disk, struct rival, disk);
    (void)io;
    (void)nr;
    if (write || rival->started)
        return;
    rival->started = true;
    if (pthread_create(&rival->thread, NULL, rival_main, rival))
        abort();
    while (!__atomic_load_n(&disk->rig->host->swapoff_yield, __ATOMIC_RELAXED))
        sleep_ms();
}

START_TEST(test_mm_swapoff_gives_up_when_a_fault_needs_the_room)
{
    struct mm_rig *rig = mm_rig_create(&plain, 16 * MIB, 2);
    struct rival rival = {.start = 2048, .disk = {.on_transfer = start_rival}};
    disk_on(&rival.disk, rig, 4096);
    mm_rig_fill(rig, 0, 1700, RANDOM);
    mm_reclaim(rig->thread[0], rig->vm, 500, true);
    ck_assert_uint_gt(mm_rig_free_pages(rig), 600);
    ck_assert_int_eq(mm_swapoff(rig->thread[0], "disk"), -ENOMEM);
    ck_assert(rival.started);
    pthread_join(rival.thread, NULL);
    ck_assert_int_eq(rival.err, 0);
    mm_rig_check(rig);
    for (gfn_t gfn = 0; gfn < 1700; gfn++)
        mm_rig_verify(rig, 0, gfn);
    for (gfn_t gfn = 2048; gfn < 2948; gfn++)
        mm_rig_verify(rig, 0, gfn);
    mm_rig_destroy(rig);
}
END_TEST

/* ---- the rest of the host while swapoff is at work ---- */

struct bystander {
    struct disk disk;
    struct mm_vm *other;
    bool started;
};

static void count_vm(void *ctx, struct mm_vm *vm)
{
    (void)vm;
    ++*(unsigned *)ctx;
}

static void *bystander_main(void *arg)
{
    struct bystander *by = arg;
    struct mm_host_stat stat;
    unsigned nr = 0;
    mm_host_stat(by->disk.rig->host, &stat);
    mm_vm_destroy(by->disk.rig->thread[1], by->other);
    mm_for_each_vm(by->disk.rig->host, count_vm, &nr);
    return nr == 1 ? by : NULL;
}

/* The first page that swapoff reads takes until others have looked at the host and taken a VM away. */
static void let_bystander_work(struct disk *disk, bool write, const struct swap_io *io, unsigned nr)
{
    struct bystander *by = container_of(disk, struct bystander, disk);
    pthread_t thread;
    void *well = NULL;
    (void)io;
    (void)nr;
    if (write || by->started)
        return;
    by->started = true;
    if (pthread_create(&thread, NULL, bystander_main, by) || pthread_join(thread, &well) || !well)
        abort();
}

START_TEST(test_mm_swapoff_keeps_nobody_from_figures_and_vms)
{
    struct mm_rig *rig = mm_rig_create(&plain, 8 * MIB, 2);
    const struct mm_region region = {.start = {0}, .bytes = 2 * MIB};
    struct bystander by = {.disk = {.on_transfer = let_bystander_work}};
    disk_on(&by.disk, rig, 4096);
    ck_assert_int_eq(mm_vm_create(rig->host, &region, 1, &by.other), 0);
    fake_host_add_vm(rig->fh, mm_vm_id(by.other), BLOCK_PAGES);
    mm_rig_fill(rig, 0, 1000, RANDOM);
    mm_reclaim(rig->thread[0], rig->vm, 1000, true);
    ck_assert_int_eq(mm_swapoff(rig->thread[0], "disk"), 0);
    ck_assert(by.started);
    mm_rig_check(rig);
    for (gfn_t gfn = 0; gfn < 1000; gfn++)
        mm_rig_verify(rig, 0, gfn);
    mm_rig_destroy(rig);
}
END_TEST

/* ---- work by hand when the host is about to go ---- */

static void stop_work(struct disk *disk, bool write, const struct swap_io *io, unsigned nr)
{
    (void)write;
    (void)io;
    (void)nr;
    mm_stop_work(disk->rig->host);
}

START_TEST(test_mm_swapoff_gives_up_when_the_host_is_about_to_go)
{
    struct mm_rig *rig = mm_rig_create(&plain, 8 * MIB, 1);
    struct disk disk = {.on_transfer = NULL};
    struct swap_area_stat before, after;
    disk_on(&disk, rig, 4096);
    mm_rig_fill(rig, 0, 1000, RANDOM);
    mm_reclaim(rig->thread[0], rig->vm, 1000, true);
    ck_assert_uint_eq(swap_stat(mm_swap_set(rig->host), &before, 1), 1);
    disk.on_transfer = stop_work;
    ck_assert_int_eq(mm_swapoff(rig->thread[0], "disk"), -ECANCELED);
    ck_assert_uint_eq(swap_stat(mm_swap_set(rig->host), &after, 1), 1);
    ck_assert(after.enabled);
    ck_assert_uint_gt(after.used_bytes, before.used_bytes / 2);
    mm_rig_check(rig);
    for (gfn_t gfn = 0; gfn < 1000; gfn++)
        mm_rig_verify(rig, 0, gfn);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_reclaim_by_hand_gives_up_when_the_host_is_about_to_go)
{
    struct mm_rig *rig = mm_rig_create(&plain, 8 * MIB, 1);
    struct disk disk = {.on_transfer = stop_work};
    disk_on(&disk, rig, 4096);
    mm_rig_fill(rig, 0, 1500, RANDOM);
    uint64_t freed = mm_reclaim(rig->thread[0], rig->vm, 1500, true);
    ck_assert_uint_gt(freed, 0);
    ck_assert_uint_le(freed, BLOCK_PAGES);
    ck_assert_uint_eq(mm_reclaim(rig->thread[0], rig->vm, 1500, true), 0);
    for (gfn_t gfn = 0; gfn < 1500; gfn++)
        mm_rig_verify(rig, 0, gfn);
    mm_rig_destroy(rig);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("mm_failures");
    TCase *cases = tcase_create("cases");
    tcase_set_timeout(cases, 60);
    tcase_add_test(cases, test_mm_first_touch_whose_huge_move_fails_is_served_in_pages);
    tcase_add_test(cases, test_mm_huge_page_that_fails_to_return_stays_on_standby);
    tcase_add_test(cases, test_mm_huge_page_taken_by_halves_loses_nothing);
    tcase_add_test(cases, test_mm_first_touch_without_table_refused_and_nothing_changed);
    tcase_add_test(cases, test_mm_no_slot_to_come_home_to_takes_nothing);
    tcase_add_test(cases, test_mm_bad_page_in_a_readahead_window_is_lost_only_when_wanted);
    tcase_add_test(cases, test_mm_damaged_page_of_zram_is_lost_alone);
    tcase_add_test(cases, test_mm_page_touched_while_written_comes_back_and_its_copy_goes);
    tcase_add_test(cases, test_mm_swapoff_waits_for_a_slow_write);
    tcase_add_test(cases, test_mm_fault_waits_for_a_slow_write_before_memory_is_out);
    tcase_add_test(cases, test_mm_swapoff_gives_up_when_a_fault_needs_the_room);
    tcase_add_test(cases, test_mm_swapoff_keeps_nobody_from_figures_and_vms);
    tcase_add_test(cases, test_mm_swapoff_gives_up_when_the_host_is_about_to_go);
    tcase_add_test(cases, test_mm_reclaim_by_hand_gives_up_when_the_host_is_about_to_go);
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
