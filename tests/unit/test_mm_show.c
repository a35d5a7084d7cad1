/* SPDX-License-Identifier: Apache-2.0 */
/* What mm/ tells of itself agrees with itself, and mm_check sees it when it does not. */
#include "tests/unit/mm_rig.h"

#include <errno.h>
#include <pthread.h>

static const struct mm_config config = {.budget_bytes = 8 * MIB, .zram = {.limit_bytes = 4 * MIB}, .thp = true};

/* 2 MiB resident as one, single pages resident, standby, in zram and in swap, and a poisoned one. */
static struct mm_rig *busy_rig(void)
{
    struct mm_rig *rig = mm_rig_create(&config, 16 * MIB, 1);
    struct fake_swap *disk = mm_rig_swapon(rig, "disk", 4096);
    mm_rig_fill(rig, 512, 1024, RANDOM);
    mm_rig_fill(rig, 1024, 1536, TEXT);
    mm_reclaim(rig->thread[0], rig->vm, 1024, true);
    ck_assert_str_eq(mm_rig_state(rig, 600), "swap");
    ck_assert_str_eq(mm_rig_state(rig, 1100), "zram");
    disk->fail_at = 1;
    disk->fail_error = -EIO;
    ck_assert_int_eq(mm_fault(rig->thread[0], rig->vm, gpa_of(600), 0), -EIO);
    mm_rig_fill(rig, 1536, 1540, TEXT);
    mm_reclaim(rig->thread[0], rig->vm, 4, false);
    /* what is free goes back to the kernel: there is room for 2 MiB at once */
    for (unsigned i = 0; i < 20; i++)
        mm_housekeep(rig->thread[0]);
    mm_rig_fill(rig, 0, 1, TEXT);
    mm_rig_verify(rig, 0, 1100);
    mm_rig_check(rig);
    return rig;
}

START_TEST(test_mm_show_vm_adds_up)
{
    struct mm_rig *rig = busy_rig();
    struct mm_vm_stat stat;
    struct hist minor = {0}, major = {0};
    mm_vm_stat(rig->vm, &stat);
    ck_assert_uint_eq(stat.id, mm_vm_id(rig->vm));
    ck_assert_uint_eq(stat.memory_bytes, 16 * MIB);
    ck_assert_uint_eq(stat.resident_bytes + stat.standby_bytes + stat.zram_bytes + stat.swap_bytes +
                          stat.untouched_bytes + stat.balloon_bytes + stat.poisoned_bytes,
                      stat.memory_bytes);
    ck_assert_uint_eq(stat.poisoned_bytes, PAGE_BYTES);
    ck_assert_uint_gt(stat.standby_bytes, 0);
    ck_assert_uint_gt(stat.zram_compressed_bytes, 0);
    ck_assert_uint_lt(stat.zram_compressed_bytes, stat.zram_bytes);
    ck_assert_uint_ge(stat.nr_huge_blocks, 1);
    ck_assert_uint_ge(stat.nr_blocks, 2);
    ck_assert_uint_ge(stat.stage2_tables_bytes, 4 * PAGE_BYTES);
    mm_fault_hist(rig->vm, &minor, &major);
    ck_assert_uint_eq(minor.count, stat.nr_minor);
    ck_assert_uint_eq(major.count, stat.nr_major);
    ck_assert_uint_gt(major.count, 0);
    mm_rig_destroy(rig);
}
END_TEST

/* A lock that a fault may hold while it reads from a disk: who asks for figures would wait for that. */
START_TEST(test_mm_show_figures_of_a_vm_do_not_wait_for_a_busy_block)
{
    struct mm_rig *rig = busy_rig();
    struct block *block = vm_block(rig->vm, 0);
    uint64_t resident[MM_MAX_NODES], standby[MM_MAX_NODES];
    struct mm_vm_stat stat;
    lock_acquire(&block->lock);
    mm_vm_stat(rig->vm, &stat);
    mm_vm_nodes(rig->vm, resident);
    mm_vm_standby_nodes(rig->vm, standby);
    lock_release(&block->lock);
    ck_assert_uint_ge(stat.nr_huge_blocks, 1);
    ck_assert_uint_eq(resident[0] * PAGE_BYTES, stat.resident_bytes);
    ck_assert_uint_eq(standby[0] * PAGE_BYTES, stat.standby_bytes);
    mm_rig_destroy(rig);
}
END_TEST

static struct mm_rig *given_back;
static struct host_ops real_ops;
static unsigned nr_looks;

static void *look_main(void *arg)
{
    struct mm_host_stat stat;
    struct mm_vm_stat *vm = arg;
    mm_host_stat(given_back->host, &stat);
    mm_vm_stat(given_back->vm, vm);
    return NULL;
}

/* host_ops.drop, beside which somebody asks for figures. */
static void drop_looked_at(void *ctx, vmid_t vm, gfn_t gfn, uint32_t nr)
{
    struct mm_vm_stat stat;
    pthread_t thread;
    ck_assert_int_eq(pthread_create(&thread, NULL, look_main, &stat), 0);
    pthread_join(thread, NULL);
    nr_looks++;
    real_ops.drop(ctx, vm, gfn, nr);
}

START_TEST(test_mm_show_does_not_wait_until_a_vm_has_given_its_memory_back)
{
    const struct mm_config plain = {.budget_bytes = 8 * MIB};
    given_back = mm_rig_create(&plain, 4 * MIB, 1);
    struct host_ops *ops = fake_host_ops(given_back->fh);
    real_ops = *ops;
    mm_rig_fill(given_back, 0, 8, TEXT);
    ops->drop = drop_looked_at;
    mm_rig_destroy(given_back);
    ck_assert_uint_gt(nr_looks, 0);
}
END_TEST

START_TEST(test_mm_show_vm_without_store_has_no_compressed_bytes)
{
    const struct mm_config plain = {.budget_bytes = 8 * MIB};
    struct mm_rig *rig = mm_rig_create(&plain, 4 * MIB, 1);
    struct mm_vm_stat stat;
    mm_vm_stat(rig->vm, &stat);
    ck_assert_uint_eq(stat.zram_compressed_bytes, 0);
    ck_assert_uint_eq(stat.untouched_bytes, 4 * MIB);
    ck_assert_ptr_null(mm_zram(rig->host));
    mm_rig_destroy(rig);
    rig = mm_rig_create(&config, 4 * MIB, 1);
    mm_vm_stat(rig->vm, &stat);
    ck_assert_uint_eq(stat.zram_compressed_bytes, 0);
    ck_assert_ptr_nonnull(mm_zram(rig->host));
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_show_host_agrees_with_zones_and_classes)
{
    struct mm_rig *rig = busy_rig();
    struct mm_host_stat stat;
    struct mm_zone_stat zone[4];
    uint64_t classes[MM_NR_PAGE_CLASSES], sum = 0, filled = 0;
    mm_host_stat(rig->host, &stat);
    ck_assert_uint_eq(mm_zone_stat(rig->host, zone, 1), 1);
    unsigned nr = mm_zone_stat(rig->host, zone, 4);
    ck_assert_uint_eq(nr, 2);
    for (unsigned z = 0; z < nr; z++)
        for (unsigned plane = 0; plane < NR_PLANES; plane++) {
            uint64_t pages = 0;
            for (unsigned order = 0; order <= MAX_ORDER; order++)
                pages += (uint64_t)zone[z].nr_blocks[plane][order] << order;
            ck_assert_uint_eq(pages, zone[z].nr_free[plane]);
            filled += plane == PLANE_FILLED ? pages : 0;
        }
    ck_assert_uint_eq(filled * PAGE_BYTES, stat.filled_free_bytes);
    ck_assert_uint_eq(stat.units_free_bytes + stat.filled_free_bytes + stat.zeroed_stock_bytes, stat.free_bytes);
    ck_assert_uint_eq(stat.charged_bytes + stat.units_free_bytes, stat.budget_bytes);
    ck_assert_uint_eq(stat.metadata_bytes, stat.metadata_frames_bytes + stat.metadata_stage2_bytes +
                                               stat.metadata_blocks_bytes + stat.metadata_swap_bytes);
    ck_assert_uint_gt(stat.zram_used_bytes, 0);
    mm_page_classes(rig->host, classes);
    for (unsigned i = 0; i < MM_NR_PAGE_CLASSES; i++)
        sum += classes[i];
    ck_assert_uint_eq(sum * PAGE_BYTES, stat.budget_bytes);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_show_slabs_are_the_tables)
{
    struct mm_rig *rig = busy_rig();
    struct slab_stat slab;
    struct mm_vm_stat stat;
    ck_assert_uint_eq(mm_slab_stat(rig->host, &slab, 0), 0);
    ck_assert_uint_eq(mm_slab_stat(rig->host, &slab, 1), 1);
    mm_vm_stat(rig->vm, &stat);
    ck_assert_uint_eq(slab.nr_used * PAGE_BYTES, stat.stage2_tables_bytes);
    mm_rig_destroy(rig);
}
END_TEST

static void count_vm(void *ctx, struct mm_vm *vm)
{
    *(unsigned *)ctx += mm_vm_id(vm);
}

START_TEST(test_mm_show_every_vm_once)
{
    struct mm_rig *rig = mm_rig_create(&config, 4 * MIB, 1);
    const struct mm_region regions[2] = {{.start = {8 * MIB}, .bytes = 2 * MIB}, {.start = {0}, .bytes = 4 * MIB}};
    struct mm_region seen[2];
    struct mm_page_info info;
    struct mm_vm *vm;
    unsigned ids = 0;
    ck_assert_int_eq(mm_vm_create(rig->host, regions, 2, &vm), 0);
    mm_for_each_vm(rig->host, count_vm, &ids);
    ck_assert_uint_eq(ids, (unsigned)mm_vm_id(vm) + mm_vm_id(rig->vm));
    ck_assert_uint_eq(mm_regions(vm, seen, 1), 1);
    ck_assert_uint_eq(mm_regions(vm, seen, 2), 2);
    ck_assert_uint_eq(seen[0].start.v, 8 * MIB);
    ck_assert_uint_eq(seen[1].bytes, 4 * MIB);
    ck_assert_int_eq(mm_page_info(vm, (gpa_t){4 * MIB}, &info), -EFAULT);
    ck_assert_int_eq(mm_page_info(vm, (gpa_t){10 * MIB - 1}, &info), 0);
    ck_assert_str_eq(info.state, "absent");
    ck_assert(info.huge); /* one entry for the block */
    mm_vm_destroy(rig->thread[0], vm);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_show_page_names_its_frame)
{
    struct mm_rig *rig = mm_rig_create(&config, 4 * MIB, 1);
    struct mm_page_info info, next;
    mm_rig_fill(rig, 0, 512, TEXT);
    mm_reclaim(rig->thread[0], rig->vm, 512, false);
    ck_assert_int_eq(mm_page_info(rig->vm, gpa_of(7), &info), 0);
    ck_assert_int_eq(mm_page_info(rig->vm, gpa_of(8), &next), 0);
    ck_assert(info.huge);
    ck_assert_uint_eq(next.fn, info.fn + 1);
    ck_assert(fake_host_is_filled(rig->fh, info.fn));
    /* split, each page keeps its frame */
    mm_reclaim(rig->thread[0], rig->vm, 1, true);
    ck_assert_int_eq(mm_page_info(rig->vm, gpa_of(500), &next), 0);
    ck_assert_str_eq(next.state, "standby");
    ck_assert(!next.huge);
    ck_assert_uint_eq(next.fn, info.fn + 500 - 7);
    mm_rig_destroy(rig);
}
END_TEST

/* ---- mm_check ---- */

#define ASSERT_SEEN(change, undo)                                                                                      \
    do {                                                                                                               \
        const char *why = NULL;                                                                                        \
        change;                                                                                                        \
        ck_assert_msg(!mm_check(rig->host, &why), "not seen: " #change);                                               \
        ck_assert_ptr_nonnull(why);                                                                                    \
        undo;                                                                                                          \
        mm_rig_check(rig);                                                                                             \
    } while (0)

START_TEST(test_mm_check_sees_damage)
{
    struct mm_rig *rig = busy_rig();
    struct mm_host *host = rig->host;
    struct block *whole = vm_block(rig->vm, 0), *parts = vm_block(rig->vm, 1100);
    struct frame *home = &host->frames[pmd_read(whole).payload];
    ck_assert(pmd_read(whole).state == S2_RESIDENT);
    ASSERT_SEEN(home->gfn++, home->gfn--);
    ASSERT_SEEN(home->use = FRAME_USED, home->use = FRAME_HOME);
    ASSERT_SEEN(parts->nr_resident++, parts->nr_resident--);
    ASSERT_SEEN(parts->on_lru = false, parts->on_lru = true);
    ASSERT_SEEN(rig->vm->nr_pages[S2_ZRAM]++, rig->vm->nr_pages[S2_ZRAM]--);
    ASSERT_SEEN(rig->vm->nr_resident[1]++, rig->vm->nr_resident[1]--);
    ASSERT_SEEN((rig->vm->nr_standby[0]--, rig->vm->nr_standby[1]++),
                (rig->vm->nr_standby[0]++, rig->vm->nr_standby[1]--));
    ASSERT_SEEN(rig->vm->nr_blocks++, rig->vm->nr_blocks--);
    ASSERT_SEEN(rig->vm->nr_huge_blocks++, rig->vm->nr_huge_blocks--);
    ASSERT_SEEN(rig->vm->nr_users++, rig->vm->nr_users--);
    ASSERT_SEEN(host->node[0].nr_standby++, host->node[0].nr_standby--);
    ASSERT_SEEN(host->node[0].nr_resident++, host->node[0].nr_resident--);
    ASSERT_SEEN(host->node[0].pool.uncharged += 1000, host->node[0].pool.uncharged -= 1000);
    ASSERT_SEEN(host->node[0].pool.uncharged -= 500, host->node[0].pool.uncharged += 500);
    mm_rig_destroy(rig);
}
END_TEST

START_TEST(test_mm_check_sees_damage_to_standby)
{
    struct mm_config small = config;
    struct mm_rig *rig = mm_rig_create(&config, 4 * MIB, 1);
    mm_rig_fill(rig, 0, 1, TEXT);
    mm_reclaim(rig->thread[0], rig->vm, 1, false);
    struct s2_entry entry = pmd_read(vm_block(rig->vm, 0));
    ck_assert_uint_eq(entry.state, S2_STANDBY);
    struct frame *frame = &rig->host->frames[entry.payload];
    ASSERT_SEEN(frame->flags = 0, frame->flags = FRAME_F_HUGE);
    mm_rig_destroy(rig);

    small.thp = false;
    rig = mm_rig_create(&small, 4 * MIB, 1);
    mm_rig_fill(rig, 0, 1, TEXT);
    mm_reclaim(rig->thread[0], rig->vm, 1, false);
    entry = pte_read(vm_block(rig->vm, 0), 0);
    ck_assert_uint_eq(entry.state, S2_STANDBY);
    frame = &rig->host->frames[entry.payload];
    ASSERT_SEEN(frame->gfn++, frame->gfn--);
    ASSERT_SEEN(frame->vm++, frame->vm--);
    ASSERT_SEEN(frame->use = FRAME_USED, frame->use = FRAME_STANDBY);
    mm_rig_destroy(rig);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("mm_show");
    TCase *cases = tcase_create("cases");
    tcase_add_test(cases, test_mm_show_vm_adds_up);
    tcase_add_test(cases, test_mm_show_figures_of_a_vm_do_not_wait_for_a_busy_block);
    tcase_add_test(cases, test_mm_show_does_not_wait_until_a_vm_has_given_its_memory_back);
    tcase_add_test(cases, test_mm_show_vm_without_store_has_no_compressed_bytes);
    tcase_add_test(cases, test_mm_show_host_agrees_with_zones_and_classes);
    tcase_add_test(cases, test_mm_show_slabs_are_the_tables);
    tcase_add_test(cases, test_mm_show_every_vm_once);
    tcase_add_test(cases, test_mm_show_page_names_its_frame);
    tcase_add_test(cases, test_mm_check_sees_damage);
    tcase_add_test(cases, test_mm_check_sees_damage_to_standby);
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
