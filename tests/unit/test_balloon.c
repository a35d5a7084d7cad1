/* SPDX-License-Identifier: Apache-2.0 */
/* Inflate, deflate, reports, configuration, queues, reset; what a guest gets wrong. */
#include "tests/unit/balloon_rig.h"

/* First page of a block away from the rings. */
#define AT (8 * BLOCK_PAGES)

START_TEST(test_balloon_inflate_drops_pages)
{
    struct balloon_rig rig;
    balloon_rig_start(&rig, AT_ONCE);
    mm_rig_fill(rig.mm, AT, AT + BLOCK_PAGES, TEXT);
    uint64_t before = resident(&rig);
    send_run(&rig, INFLATE, AT + 10, 256);
    ck_assert_uint_eq(in_balloon(&rig), 256);
    ck_assert_uint_eq(resident(&rig), before - 256);
    struct balloon_info info = info_of(&rig);
    ck_assert_uint_eq(info.nr_inflate_pages, 256);
    ck_assert_uint_eq(info.nr_dropped_pages, 256);
    ck_assert_uint_eq(info.dropped_bytes, 256 * PAGE_BYTES);
    ck_assert_uint_eq(info.nr_runs, 1);
    mm_rig_verify(rig.mm, 0, AT + 9);
    mm_rig_verify(rig.mm, 0, AT + 266);
    mm_rig_check(rig.mm);
    balloon_rig_fini(&rig);
}
END_TEST

START_TEST(test_balloon_block_in_two_buffers_leaves_by_one_host_call)
{
    struct balloon_rig rig;
    balloon_rig_start(&rig, AT_ONCE | RING_FEATURES);
    mm_rig_fill(rig.mm, AT, AT + BLOCK_PAGES, TEXT);
    struct fake_buffer upper = run_buffer(&rig, 0, AT + 256, 256), lower = run_buffer(&rig, 1024, AT, 256);
    ck_assert_int_eq(fake_driver_add(&rig.driver, INFLATE, &upper, 1, 0, false, NULL), 0);
    ck_assert_int_eq(fake_driver_add(&rig.driver, INFLATE, &lower, 1, 0, true, NULL), 0);
    fake_driver_kick(&rig.driver, INFLATE);
    fake_driver_run(&rig.driver);
    struct fake_used used;
    for (unsigned i = 0; i < 2; i++)
        ck_assert_int_eq(fake_driver_collect(&rig.driver, INFLATE, &used), 1);
    ck_assert_uint_eq(host_drops.nr_calls, 1);
    ck_assert_uint_eq(host_drops.nr_pages, BLOCK_PAGES);
    ck_assert_uint_eq(in_balloon(&rig), BLOCK_PAGES);
    ck_assert_uint_eq(fake_driver_interrupts(&rig.driver) & VIRTIO_INT_USED, VIRTIO_INT_USED);
    balloon_rig_fini(&rig);
}
END_TEST

START_TEST(test_balloon_scattered_pages_leave_as_runs)
{
    struct balloon_rig rig;
    uint32_t pfn[300];
    balloon_rig_start(&rig, AT_ONCE);
    mm_rig_fill(rig.mm, AT, AT + 2 * BLOCK_PAGES, TEXT);
    /* 100 runs of 3 pages, one page apart, told in an order without neighbours */
    for (uint32_t i = 0; i < 300; i++)
        pfn[i * 7 % 300] = AT + i / 3 * 4 + i % 3;
    struct fake_buffer buffer = pfn_buffer(&rig, 0, pfn, 300);
    ck_assert_int_eq(fake_driver_request(&rig.driver, INFLATE, &buffer, 1, 0), 0);
    ck_assert_uint_eq(info_of(&rig).nr_runs, 100);
    ck_assert_uint_eq(in_balloon(&rig), 300);
    for (uint32_t i = 0; i < 100; i++)
        mm_rig_verify(rig.mm, 0, AT + i * 4 + 3);
    balloon_rig_fini(&rig);
}
END_TEST

START_TEST(test_balloon_told_host_pieces_of_a_block_leave_as_one)
{
    struct balloon_rig rig;
    balloon_rig_start(&rig, ALL_FEATURES);
    mm_rig_fill(rig.mm, AT, AT + 2 * BLOCK_PAGES, TEXT);
    send_run(&rig, INFLATE, AT + BLOCK_PAGES - 100, 256);
    ck_assert_uint_eq(host_drops.nr_calls, 0);
    send_run(&rig, INFLATE, AT + BLOCK_PAGES - 100 - 256, 256);
    ck_assert_uint_eq(host_drops.nr_calls, 0);
    send_run(&rig, INFLATE, AT, BLOCK_PAGES - 356);
    ck_assert_uint_eq(host_drops.nr_calls, 1);
    ck_assert_uint_eq(host_drops.nr_pages, BLOCK_PAGES);
    ck_assert_uint_eq(in_balloon(&rig), BLOCK_PAGES);
    /* the piece of the next block waits, but not for long */
    ck_assert_int_eq(loop_turn(rig.env.loop, 5000), 1);
    ck_assert_uint_eq(in_balloon(&rig), BLOCK_PAGES + 156);
    balloon_rig_fini(&rig);
}
END_TEST

START_TEST(test_balloon_told_host_deflate_of_a_waiting_page_keeps_it)
{
    struct balloon_rig rig;
    balloon_rig_start(&rig, ALL_FEATURES);
    mm_rig_fill(rig.mm, AT, AT + BLOCK_PAGES, TEXT);
    send_run(&rig, INFLATE, AT, 300);
    send_run(&rig, DEFLATE, AT + 50, 100);
    ck_assert_int_eq(loop_turn(rig.env.loop, 5000), 1);
    ck_assert_uint_eq(in_balloon(&rig), 200);
    for (gfn_t gfn = AT + 50; gfn < AT + 150; gfn++)
        mm_rig_verify(rig.mm, 0, gfn);
    ck_page_is(&rig, AT + 49, 0);
    ck_page_is(&rig, AT + 150, 0);
    balloon_rig_fini(&rig);
}
END_TEST

START_TEST(test_balloon_told_host_pieces_do_not_wait_for_ever)
{
    struct balloon_rig rig;
    balloon_rig_start(&rig, ALL_FEATURES);
    for (unsigned i = 0; i < 8; i++)
        send_run(&rig, INFLATE, AT + i * BLOCK_PAGES, 500);
    ck_assert_uint_eq(in_balloon(&rig), 0);
    send_run(&rig, INFLATE, AT + 8 * BLOCK_PAGES, 500);
    ck_assert_uint_eq(in_balloon(&rig), 9 * 500);
    send_run(&rig, INFLATE, AT + 9 * BLOCK_PAGES, 500);
    ck_assert_uint_eq(in_balloon(&rig), 9 * 500);
    loop_turn(rig.env.loop, 5000);
    ck_assert_uint_eq(in_balloon(&rig), 10 * 500);
    balloon_rig_fini(&rig);
}
END_TEST

START_TEST(test_balloon_told_host_is_full_only_when_nothing_waits)
{
    struct balloon_rig rig;
    balloon_rig_start(&rig, ALL_FEATURES);
    uint32_t actual = htole32(300);
    send_run(&rig, INFLATE, AT, 300);
    fake_driver_config_write(&rig.driver, 4, &actual, 4);
    ck_assert_uint_eq(info_of(&rig).actual_bytes, 0);
    loop_turn(rig.env.loop, 5000);
    ck_assert_uint_eq(info_of(&rig).actual_bytes, 300 * PAGE_BYTES);
    ck_assert_uint_eq(in_balloon(&rig), 300);
    balloon_rig_fini(&rig);
}
END_TEST

START_TEST(test_balloon_told_host_reset_keeps_waiting_pages)
{
    struct balloon_rig rig;
    balloon_rig_start(&rig, ALL_FEATURES);
    mm_rig_fill(rig.mm, AT, AT + BLOCK_PAGES, TEXT);
    send_run(&rig, INFLATE, AT, 300);
    fake_driver_reset(&rig.driver);
    loop_turn(rig.env.loop, 5000);
    ck_assert_uint_eq(in_balloon(&rig), 0);
    for (gfn_t gfn = AT; gfn < AT + 300; gfn++)
        mm_rig_verify(rig.mm, 0, gfn);
    balloon_rig_fini(&rig);
}
END_TEST

START_TEST(test_balloon_deflate_returns_pages)
{
    struct balloon_rig rig;
    balloon_rig_start(&rig, AT_ONCE);
    mm_rig_fill(rig.mm, AT, AT + 2 * BLOCK_PAGES, TEXT);
    send_run(&rig, INFLATE, AT, BLOCK_PAGES);
    send_run(&rig, INFLATE, AT + BLOCK_PAGES, 100);
    ck_assert_str_eq(mm_rig_state(rig.mm, AT), "balloon");
    send_run(&rig, DEFLATE, AT + BLOCK_PAGES - 100, 150);
    ck_assert_uint_eq(in_balloon(&rig), BLOCK_PAGES + 100 - 150);
    ck_assert_uint_eq(info_of(&rig).nr_deflate_pages, 150);
    ck_page_is(&rig, AT + BLOCK_PAGES, 0);
    /* a page that the guest touches without a word leaves, too */
    ck_page_is(&rig, AT, 0);
    ck_assert_uint_lt(in_balloon(&rig), BLOCK_PAGES + 100 - 150);
    /* and pages that never were in the balloon stay what they are */
    send_run(&rig, DEFLATE, AT + BLOCK_PAGES + 200, 100);
    mm_rig_verify(rig.mm, 0, AT + BLOCK_PAGES + 200);
    mm_rig_check(rig.mm);
    balloon_rig_fini(&rig);
}
END_TEST

START_TEST(test_balloon_bad_and_double_page_numbers_are_passed_over)
{
    struct balloon_rig rig;
    const uint32_t pfn[] = {AT, AT, BALLOON_VM_PAGES, BALLOON_VM_PAGES - 1, UINT32_MAX, AT + 1, AT};
    balloon_rig_start(&rig, AT_ONCE);
    mm_rig_fill(rig.mm, AT, AT + 4, TEXT);
    for (unsigned queue = INFLATE; queue <= DEFLATE; queue++) {
        struct fake_buffer buffer = pfn_buffer(&rig, 0, pfn, ARRAY_LEN(pfn));
        ck_assert_int_eq(fake_driver_request(&rig.driver, queue, &buffer, 1, 0), 0);
        ck_assert_uint_eq(info_of(&rig).nr_bad_pages, 2 * (queue + 1));
        ck_assert_uint_eq(info_of(&rig).nr_duplicate_pages, 2 * (queue + 1));
        ck_assert_uint_eq(in_balloon(&rig), queue == INFLATE ? 3 : 0);
    }
    ck_assert_uint_eq(info_of(&rig).nr_inflate_pages, 3);
    mm_rig_verify(rig.mm, 0, AT + 2);
    balloon_rig_fini(&rig);
}
END_TEST

START_TEST(test_balloon_odd_buffers_are_counted_and_answered)
{
    struct balloon_rig rig;
    balloon_rig_start(&rig, AT_ONCE | RING_FEATURES);
    mm_rig_fill(rig.mm, AT, AT + 4, TEXT);
    struct fake_buffer buffer = run_buffer(&rig, 0, AT, 2);
    buffer.bytes = 7; /* one number, and a part of one */
    ck_assert_int_eq(fake_driver_request(&rig.driver, INFLATE, &buffer, 1, 0), 0);
    ck_assert_uint_eq(info_of(&rig).nr_bad_buffers, 1);
    ck_assert_uint_eq(in_balloon(&rig), 1);
    buffer.bytes = 3; /* none */
    ck_assert_int_eq(fake_driver_request(&rig.driver, INFLATE, &buffer, 1, 0), 0);
    ck_assert_uint_eq(info_of(&rig).nr_bad_buffers, 2);
    buffer.bytes = 8; /* writable: nothing to read */
    ck_assert_int_eq(fake_driver_request(&rig.driver, DEFLATE, &buffer, 0, 1), 0);
    ck_assert_uint_eq(info_of(&rig).nr_bad_buffers, 3);
    ck_assert_uint_eq(in_balloon(&rig), 1);
    /* readable: reports are writable */
    ck_assert_int_eq(fake_driver_request(&rig.driver, REPORT, &buffer, 1, 0), 0);
    ck_assert_uint_eq(info_of(&rig).nr_bad_buffers, 4);
    ck_assert_uint_eq(info_of(&rig).nr_report_pages, 0);
    ck_assert_uint_eq(fake_driver_status(&rig.driver) & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
    balloon_rig_fini(&rig);
}
END_TEST

START_TEST(test_balloon_largest_buffer_is_done_and_one_more_is_refused)
{
    struct balloon_rig rig;
    struct fake_buffer buffers[65];
    balloon_rig_start(&rig, AT_ONCE | RING_FEATURES);
    /* 64 times the same 1024 numbers: 65536 */
    for (unsigned i = 0; i < 64; i++)
        buffers[i] = run_buffer(&rig, 0, AT, 1024);
    buffers[64] = run_buffer(&rig, 8192, AT + 2048, 1);
    ck_assert_int_eq(fake_driver_request(&rig.driver, INFLATE, buffers, 64, 0), 0);
    ck_assert_uint_eq(in_balloon(&rig), 1024);
    ck_assert_uint_eq(info_of(&rig).nr_duplicate_pages, 63 * 1024);
    ck_assert_uint_eq(info_of(&rig).nr_bad_buffers, 0);
    ck_assert_int_eq(fake_driver_request(&rig.driver, INFLATE, buffers, 65, 0), 0);
    ck_assert_uint_eq(info_of(&rig).nr_bad_buffers, 1);
    ck_assert_uint_eq(in_balloon(&rig), 1024);
    balloon_rig_fini(&rig);
}
END_TEST

START_TEST(test_balloon_more_than_a_turn_is_done_in_several)
{
    struct balloon_rig rig;
    struct fake_used used;
    struct fake_buffer buffers[64];
    unsigned nr = 0;
    balloon_rig_start(&rig, AT_ONCE | RING_FEATURES);
    for (unsigned i = 0; i < 64; i++)
        buffers[i] = run_buffer(&rig, 0, AT, 1024);
    /* each is a batch of its own; a turn takes four */
    while (nr < 12 && !fake_driver_add(&rig.driver, INFLATE, buffers, 64, 0, true, NULL))
        nr++;
    ck_assert_uint_eq(nr, 12);
    fake_driver_kick(&rig.driver, INFLATE);
    ck_assert_int_eq(loop_turn(rig.env.loop, 0), 1);
    for (nr = 0; fake_driver_collect(&rig.driver, INFLATE, &used); nr++)
        ;
    ck_assert_uint_eq(nr, 4);
    fake_driver_run(&rig.driver);
    for (; fake_driver_collect(&rig.driver, INFLATE, &used); nr++)
        ;
    ck_assert_uint_eq(nr, 12);
    /* a queue full of small ones */
    for (nr = 0; nr < 200; nr++) {
        struct fake_buffer small = run_buffer(&rig, 4096 + 4 * nr, 2 * AT + 3 * nr, 1);
        ck_assert_int_eq(fake_driver_add(&rig.driver, INFLATE, &small, 1, 0, false, NULL), 0);
    }
    fake_driver_kick(&rig.driver, INFLATE);
    fake_driver_run(&rig.driver);
    ck_assert_uint_eq(in_balloon(&rig), 1024 + 200);
    balloon_rig_fini(&rig);
}
END_TEST

START_TEST(test_balloon_broken_queue_does_nothing_until_reset)
{
    struct balloon_rig rig;
    struct fake_buffer good, bad[FAKE_MAX_SEGMENTS];
    balloon_rig_start(&rig, AT_ONCE);
    mm_rig_fill(rig.mm, AT, AT + 100, TEXT);
    good = run_buffer(&rig, 0, AT, 10);
    for (unsigned i = 0; i < FAKE_MAX_SEGMENTS; i++)
        bad[i] = good;
    ck_assert_int_eq(fake_driver_add(&rig.driver, INFLATE, &good, 1, 0, false, NULL), 0);
    ck_assert_int_eq(fake_driver_add(&rig.driver, INFLATE, bad, VIRTQ_MAX_SEGMENTS + 1, 0, false, NULL), 0);
    fake_driver_kick(&rig.driver, INFLATE);
    fake_driver_run(&rig.driver);
    ck_broken(&rig);
    ck_assert_uint_eq(in_balloon(&rig), 0);
    ck_assert(!fake_driver_has_used(&rig.driver, INFLATE));
    fake_driver_reset(&rig.driver);
    ck_assert_int_eq(fake_driver_start(&rig.driver, AT_ONCE, 0), 0);
    send_run(&rig, INFLATE, AT + 20, 10);
    ck_assert_uint_eq(in_balloon(&rig), 10);
    mm_rig_verify(rig.mm, 0, AT);
    balloon_rig_fini(&rig);
}
END_TEST

START_TEST(test_balloon_reset_returns_everything)
{
    struct balloon_rig rig;
    balloon_rig_start(&rig, AT_ONCE);
    ck_assert_int_eq(balloon_set_target(rig.balloon, 16 * MIB), 0);
    mm_rig_fill(rig.mm, AT, AT + 2 * BLOCK_PAGES, TEXT);
    send_run(&rig, INFLATE, AT, BLOCK_PAGES);
    send_run(&rig, INFLATE, AT + BLOCK_PAGES + 5, 100);
    /* one more is on its way */
    struct fake_buffer buffer = run_buffer(&rig, 0, AT + BLOCK_PAGES + 300, 1);
    ck_assert_int_eq(fake_driver_add(&rig.driver, INFLATE, &buffer, 1, 0, false, NULL), 0);
    uint32_t actual = htole32(BLOCK_PAGES + 100);
    fake_driver_config_write(&rig.driver, 4, &actual, 4);
    fake_driver_reset(&rig.driver);
    fake_driver_run(&rig.driver);
    ck_assert_uint_eq(in_balloon(&rig), 0);
    struct balloon_info info = info_of(&rig);
    ck_assert_uint_eq(info.actual_bytes, 0);
    ck_assert_uint_eq(info.dropped_bytes, 0);
    ck_assert_uint_eq(info.target_bytes, 16 * MIB);
    ck_assert(!info.live);
    ck_page_is(&rig, AT, 0);
    mm_rig_verify(rig.mm, 0, AT + BLOCK_PAGES + 300);
    ck_assert_int_eq(fake_driver_start(&rig.driver, AT_ONCE, 0), 0);
    ck_assert(info_of(&rig).live);
    balloon_rig_fini(&rig);
}
END_TEST

START_TEST(test_balloon_pinned_block_is_passed_over)
{
    struct balloon_rig rig;
    balloon_rig_start(&rig, AT_ONCE);
    mm_rig_fill(rig.mm, AT, AT + 2 * BLOCK_PAGES, TEXT);
    ck_assert_int_eq(mm_pin(rig.mm->thread[0], rig.mm->vm, gpa_of(AT), 1), 0);
    send_run(&rig, INFLATE, AT, 2 * BLOCK_PAGES);
    ck_assert_uint_eq(in_balloon(&rig), BLOCK_PAGES);
    mm_unpin(rig.mm->vm, gpa_of(AT), 1);
    mm_rig_verify(rig.mm, 0, AT);
    ck_assert_uint_eq(info_of(&rig).nr_inflate_pages, 2 * BLOCK_PAGES);
    ck_assert_uint_eq(info_of(&rig).nr_dropped_pages, BLOCK_PAGES);
    balloon_rig_fini(&rig);
}
END_TEST

START_TEST(test_balloon_without_memory_for_a_table_keeps_the_page)
{
    struct balloon_rig rig;
    struct fake_used used;
    uint32_t block = 0, nr_blocks = BALLOON_VM_PAGES / BLOCK_PAGES;
    balloon_rig_start(&rig, AT_ONCE);
    /* one page of each block: each takes a table, until the cache of tables needs more */
    for (bool failed = false; !failed; block++) {
        ck_assert_uint_lt(block, nr_blocks);
        struct fake_buffer buffer = run_buffer(&rig, 0, block * BLOCK_PAGES + 3, 1);
        ck_assert_int_eq(fake_driver_add(&rig.driver, INFLATE, &buffer, 1, 0, false, NULL), 0);
        fake_driver_kick(&rig.driver, INFLATE);
        fail_alloc_at(1);
        fake_driver_run(&rig.driver);
        failed = fail_alloc_fired();
        fail_alloc_at(-1);
        ck_assert_int_eq(fake_driver_collect(&rig.driver, INFLATE, &used), 1);
        ck_assert_uint_eq(info_of(&rig).nr_failed_runs, failed);
    }
    ck_assert_uint_eq(in_balloon(&rig), block - 1);
    mm_rig_check(rig.mm);
    send_run(&rig, INFLATE, (block - 1) * BLOCK_PAGES + 3, 1);
    ck_assert_uint_eq(in_balloon(&rig), block);
    balloon_rig_fini(&rig);
}
END_TEST

/* ---- reports ---- */

START_TEST(test_balloon_report_drops_whole_pages_only)
{
    struct balloon_rig rig;
    balloon_rig_start(&rig, AT_ONCE & ~F(PAGE_POISON));
    mm_rig_fill(rig.mm, AT, AT + 2 * BLOCK_PAGES, TEXT);
    uint64_t before = resident(&rig);
    const struct fake_buffer buffers[] = {
        {{gpa_of(AT).v + 1}, (uint32_t)PAGE_BYTES * 2},    /* page AT + 1 alone is whole */
        {{gpa_of(AT + 10).v + 100}, (uint32_t)PAGE_BYTES}, /* none is */
        {gpa_of(AT + 20), (uint32_t)PAGE_BYTES - 1},
        {gpa_of(AT + 30), 3 * (uint32_t)PAGE_BYTES + 5},
        {gpa_of(AT + 40), 0},
    };
    ck_assert_int_eq(fake_driver_request(&rig.driver, REPORT, buffers, 0, ARRAY_LEN(buffers)), 0);
    ck_assert_uint_eq(info_of(&rig).nr_report_pages, 4);
    ck_assert_uint_eq(resident(&rig), before - 4);
    ck_assert_uint_eq(in_balloon(&rig), 0);
    const gfn_t kept[] = {AT, AT + 2, AT + 10, AT + 11, AT + 20, AT + 29, AT + 33, AT + 40};
    for (unsigned i = 0; i < ARRAY_LEN(kept); i++)
        mm_rig_verify(rig.mm, 0, kept[i]);
    ck_page_is(&rig, AT + 1, 0);
    ck_page_is(&rig, AT + 32, 0);
    balloon_rig_fini(&rig);
}
END_TEST

START_TEST(test_balloon_report_of_neighbours_is_one_call)
{
    struct balloon_rig rig;
    struct fake_buffer buffers[32];
    balloon_rig_start(&rig, AT_ONCE | RING_FEATURES);
    mm_rig_fill(rig.mm, AT, AT + 4 * BLOCK_PAGES, TEXT);
    /* four blocks in 32 pieces, falling, in two chains */
    for (unsigned i = 0; i < 32; i++)
        buffers[i] = (struct fake_buffer){gpa_of(AT + (31 - i) * 64), 64 * (uint32_t)PAGE_BYTES};
    ck_assert_int_eq(fake_driver_add(&rig.driver, REPORT, buffers, 0, 13, true, NULL), 0);
    ck_assert_int_eq(fake_driver_add(&rig.driver, REPORT, buffers + 13, 0, 19, true, NULL), 0);
    fake_driver_kick(&rig.driver, REPORT);
    fake_driver_run(&rig.driver);
    ck_assert_uint_eq(info_of(&rig).nr_runs, 1);
    ck_assert_uint_eq(host_drops.nr_calls, 1);
    ck_assert_uint_eq(info_of(&rig).nr_dropped_pages, 4 * BLOCK_PAGES);
    ck_assert_uint_eq(resident(&rig), 0);
    balloon_rig_fini(&rig);
}
END_TEST

START_TEST(test_balloon_reported_page_comes_back_with_the_poison)
{
    struct balloon_rig rig;
    static const struct balloon_config config = {.poison = true, .reporting = true};
    const uint32_t poison = htole32(0xaaaaaaaa), other = htole32(0x12345678);
    balloon_rig_init(&rig, &config, true);
    ck_assert_int_eq(fake_driver_negotiate(&rig.driver, F(PAGE_POISON) | F(REPORTING)), 0);
    for (unsigned i = 0; i < 3; i++)
        ck_assert_int_eq(fake_driver_make_queue(&rig.driver, i, 0), 0);
    fake_driver_config_write(&rig.driver, 12, &poison, 4);
    fake_driver_ok(&rig.driver);
    ck_assert_uint_eq(info_of(&rig).poison, 0xaaaaaaaa);
    /* too late */
    fake_driver_config_write(&rig.driver, 12, &other, 4);
    ck_assert_uint_eq(info_of(&rig).nr_bad_config_writes, 4);
    mm_rig_fill(rig.mm, AT, AT + BLOCK_PAGES + 8, TEXT);
    const struct fake_buffer buffer = {gpa_of(AT), (uint32_t)(BLOCK_BYTES + 4 * PAGE_BYTES)};
    ck_assert_int_eq(fake_driver_request(&rig.driver, 2, &buffer, 0, 1), 0);
    ck_assert_uint_eq(info_of(&rig).nr_report_pages, BLOCK_PAGES + 4);
    ck_page_is(&rig, AT, 0xaaaaaaaa);
    ck_page_is(&rig, AT + BLOCK_PAGES + 3, 0xaaaaaaaa);
    mm_rig_verify(rig.mm, 0, AT + BLOCK_PAGES + 4);
    /* the next driver has none */
    fake_driver_reset(&rig.driver);
    ck_assert_int_eq(fake_driver_start(&rig.driver, F(REPORTING), 0), 0);
    ck_assert_uint_eq(info_of(&rig).poison, 0);
    ck_assert_int_eq(fake_driver_request(&rig.driver, 2, &buffer, 0, 1), 0);
    ck_page_is(&rig, AT + 1, 0);
    balloon_rig_fini(&rig);
}
END_TEST

/* ---- configuration ---- */

START_TEST(test_balloon_features_are_those_switched_on)
{
    for (unsigned bits = 0; bits < 64; bits++) {
        const struct balloon_config config = {.must_tell_host = bits & 1,
                                              .stats = bits >> 1 & 1,
                                              .deflate_on_oom = bits >> 2 & 1,
                                              .hints = bits >> 3 & 1,
                                              .poison = bits >> 4 & 1,
                                              .reporting = bits >> 5 & 1};
        struct balloon_rig rig;
        balloon_rig_init(&rig, &config, false);
        ck_assert_uint_eq(fake_driver_offered(&rig.driver) & ALL_FEATURES, bits);
        ck_assert_int_eq(fake_driver_start(&rig.driver, bits, 0), 0);
        ck_assert(info_of(&rig).oom_deflates == (bits >> 2 & 1));
        balloon_rig_fini(&rig);
    }
}
END_TEST

START_TEST(test_balloon_target_is_told_and_checked)
{
    struct balloon_rig rig;
    static const struct balloon_config config = {.memory_bytes = 32 * MIB, .target_bytes = 3 * MIB};
    uint32_t word[4];
    balloon_rig_init(&rig, &config, false);
    ck_assert_int_eq(fake_driver_start(&rig.driver, 0, 0), 0);
    fake_driver_config_read(&rig.driver, 0, word, sizeof(word));
    ck_assert_uint_eq(le32toh(word[0]), 768);
    fake_driver_interrupts(&rig.driver);
    ck_assert_int_eq(balloon_set_target(rig.balloon, 32 * MIB + 1), -EINVAL);
    ck_assert_uint_eq(info_of(&rig).target_bytes, 3 * MIB);
    ck_assert_uint_eq(fake_driver_interrupts(&rig.driver), 0);
    ck_assert_int_eq(balloon_set_target(rig.balloon, 32 * MIB), 0);
    ck_assert_uint_eq(fake_driver_interrupts(&rig.driver), VIRTIO_INT_CONFIG);
    fake_driver_config_read(&rig.driver, 0, word, sizeof(word));
    ck_assert_uint_eq(le32toh(word[0]), 8192);
    /* the same again is no news; less than a page counts as none */
    ck_assert_int_eq(balloon_set_target(rig.balloon, 32 * MIB), 0);
    ck_assert_uint_eq(fake_driver_interrupts(&rig.driver), 0);
    ck_assert_int_eq(balloon_set_target(rig.balloon, PAGE_BYTES - 1), 0);
    ck_assert_uint_eq(info_of(&rig).target_bytes, 0);
    balloon_rig_fini(&rig);
}
END_TEST

START_TEST(test_balloon_driver_writes_actual_alone)
{
    struct balloon_rig rig;
    balloon_rig_start(&rig, AT_ONCE);
    ck_assert_int_eq(balloon_set_target(rig.balloon, MIB), 0);
    const uint32_t words[4] = {htole32(7), htole32(0x01020304), htole32(9), htole32(11)};
    uint32_t got[4];
    fake_driver_config_write(&rig.driver, 0, words, sizeof(words));
    fake_driver_config_read(&rig.driver, 0, got, sizeof(got));
    ck_assert_uint_eq(le32toh(got[0]), 256);
    ck_assert_uint_eq(le32toh(got[1]), 0x01020304);
    ck_assert_uint_eq(got[2], 0);
    ck_assert_uint_eq(got[3], 0);
    ck_assert_uint_eq(info_of(&rig).nr_bad_config_writes, 12);
    ck_assert_uint_eq(info_of(&rig).actual_bytes, UINT64_C(0x01020304) << PAGE_SHIFT);
    /* a byte at a time, and across the edge of the field */
    virtio_mmio_write(&rig.mmio, 0x100 + 4, 1, 0xff);
    ck_assert_uint_eq(info_of(&rig).actual_bytes, UINT64_C(0x010203ff) << PAGE_SHIFT);
    virtio_mmio_write(&rig.mmio, 0x100 + 3, 2, 0xaabb);
    ck_assert_uint_eq(info_of(&rig).target_bytes, MIB);
    ck_assert_uint_eq(info_of(&rig).actual_bytes, UINT64_C(0x010203aa) << PAGE_SHIFT);
    balloon_rig_fini(&rig);
}
END_TEST

/* Every set of optional queues, numbered as Linux does it and as the specification does. */
START_TEST(test_balloon_queues_are_found_by_either_numbering)
{
    static const uint64_t feature[NR_QUEUES] = {0, 0, F(STATS_VQ), F(FREE_PAGE_HINT), F(REPORTING)};
    bool packed = _i & 1;
    uint64_t features = 0;
    unsigned index_of[NR_QUEUES], next = 0;
    struct balloon_rig rig;
    static const struct balloon_config config = {.stats = true, .hints = true, .poison = true, .reporting = true};
    balloon_rig_init(&rig, &config, true);
    for (unsigned role = STATS; role < NR_QUEUES; role++)
        features |= _i >> (role - 1) & 1 ? feature[role] : 0;
    ck_assert_int_eq(fake_driver_negotiate(&rig.driver, features), 0);
    for (unsigned role = 0; role < NR_QUEUES; role++) {
        bool exists = role < STATS || features & feature[role];
        index_of[role] = exists ? next : NR_QUEUES;
        if (exists)
            ck_assert_int_eq(fake_driver_make_queue(&rig.driver, next, 0), 0);
        next += exists || !packed;
    }
    fake_driver_ok(&rig.driver);
    send_run(&rig, index_of[INFLATE], AT, 4);
    ck_assert_uint_eq(in_balloon(&rig), 4);
    send_run(&rig, index_of[DEFLATE], AT, 4);
    ck_assert_uint_eq(in_balloon(&rig), 0);
    if (features & F(STATS_VQ)) {
        const struct fake_buffer buffer = {rig.scratch, 10};
        ck_assert_int_eq(fake_driver_add(&rig.driver, index_of[STATS], &buffer, 1, 0, false, NULL), 0);
        fake_driver_kick(&rig.driver, index_of[STATS]);
        fake_driver_run(&rig.driver);
        ck_assert_int_eq(balloon_poll_stats(rig.balloon), 0);
        ck_assert(fake_driver_has_used(&rig.driver, index_of[STATS]));
    } else {
        ck_assert_int_eq(balloon_poll_stats(rig.balloon), -ENOTSUP);
    }
    ck_assert_int_eq(balloon_hint_start(rig.balloon), features & F(FREE_PAGE_HINT) ? 0 : -ENOTSUP);
    const struct fake_buffer page = {gpa_of(AT), (uint32_t)PAGE_BYTES};
    if (features & F(FREE_PAGE_HINT)) {
        ck_assert_int_eq(fake_driver_request(&rig.driver, index_of[HINT], &page, 0, 1), 0);
        ck_assert_uint_eq(info_of(&rig).nr_stale_hints, 1);
    }
    if (features & F(REPORTING)) {
        ck_assert_int_eq(fake_driver_request(&rig.driver, index_of[REPORT], &page, 0, 1), 0);
        ck_assert_uint_eq(info_of(&rig).nr_report_pages, 1);
    }
    ck_assert_uint_eq(info_of(&rig).nr_stray_kicks, 0);
    balloon_rig_fini(&rig);
}
END_TEST

START_TEST(test_balloon_kick_of_a_queue_without_a_role_is_counted)
{
    struct balloon_rig rig;
    balloon_rig_start(&rig, F(REPORTING)); /* queues 3 and 4 are made, and nothing */
    const struct fake_buffer buffer = {gpa_of(AT), (uint32_t)PAGE_BYTES};
    ck_assert_uint_eq(info_of(&rig).nr_stray_kicks, 2); /* at DRIVER_OK */
    ck_assert_int_eq(fake_driver_request(&rig.driver, 4, &buffer, 0, 1), -EIO);
    ck_assert_uint_eq(info_of(&rig).nr_stray_kicks, 3);
    ck_assert_uint_eq(info_of(&rig).nr_report_pages, 0);
    ck_assert_int_eq(fake_driver_request(&rig.driver, 2, &buffer, 0, 1), 0);
    ck_assert_uint_eq(info_of(&rig).nr_report_pages, 1);
    balloon_rig_fini(&rig);
}
END_TEST

START_TEST(test_balloon_without_mm_keeps_the_protocol)
{
    struct balloon_rig rig;
    static const struct balloon_config config = {.reporting = true, .must_tell_host = true};
    balloon_rig_init(&rig, &config, false);
    ck_assert_int_eq(fake_driver_start(&rig.driver, F(REPORTING) | F(MUST_TELL_HOST), 0), 0);
    send_run(&rig, INFLATE, AT, 600);
    send_run(&rig, DEFLATE, AT, 600);
    const struct fake_buffer buffer = {gpa_of(AT), (uint32_t)PAGE_BYTES};
    ck_assert_int_eq(fake_driver_request(&rig.driver, 2, &buffer, 0, 1), 0);
    struct balloon_info info = info_of(&rig);
    ck_assert_uint_eq(info.nr_inflate_pages, 600);
    ck_assert_uint_eq(info.nr_deflate_pages, 600);
    ck_assert_uint_eq(info.nr_report_pages, 1);
    ck_assert_uint_eq(info.nr_runs, 0);
    ck_assert_uint_eq(info.dropped_bytes, 0);
    fake_driver_reset(&rig.driver);
    balloon_rig_fini(&rig);
}
END_TEST

START_TEST(test_balloon_create_refuses_and_leaves_nothing)
{
    struct fake_memory memory;
    struct device_env env = {.mem = &memory.mem};
    struct balloon *balloon = NULL;
    fake_memory_init(&memory, 0, 4 * MIB);
    ck_assert_int_eq(loop_create(&env.loop), 0);
    struct balloon_config config = {.stats = true, .stats_period_ms = 5, .target_bytes = 4 * MIB + 1};
    ck_assert_int_eq(balloon_create(&config, &env, &balloon), -EINVAL);
    config.target_bytes = 4 * MIB;
    for (long n = 1;; n++) {
        fail_alloc_at(n);
        int err = balloon_create(&config, &env, &balloon);
        bool failed = fail_alloc_fired();
        fail_alloc_at(-1);
        if (!failed) {
            ck_assert_int_eq(err, 0);
            ck_assert_int_gt(n, 4);
            break;
        }
        ck_assert_int_eq(err, -ENOMEM);
        ck_assert_int_eq(loop_turn(env.loop, 0), 0);
    }
    balloon_destroy(balloon);
    loop_destroy(env.loop);
    fake_memory_fini(&memory);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("balloon");
    TCase *tc = tcase_create("balloon");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, test_balloon_inflate_drops_pages);
    tcase_add_test(tc, test_balloon_block_in_two_buffers_leaves_by_one_host_call);
    tcase_add_test(tc, test_balloon_scattered_pages_leave_as_runs);
    tcase_add_test(tc, test_balloon_told_host_is_full_only_when_nothing_waits);
    tcase_add_test(tc, test_balloon_told_host_pieces_of_a_block_leave_as_one);
    tcase_add_test(tc, test_balloon_told_host_deflate_of_a_waiting_page_keeps_it);
    tcase_add_test(tc, test_balloon_told_host_reset_keeps_waiting_pages);
    tcase_add_test(tc, test_balloon_told_host_pieces_do_not_wait_for_ever);
    tcase_add_test(tc, test_balloon_deflate_returns_pages);
    tcase_add_test(tc, test_balloon_bad_and_double_page_numbers_are_passed_over);
    tcase_add_test(tc, test_balloon_odd_buffers_are_counted_and_answered);
    tcase_add_test(tc, test_balloon_largest_buffer_is_done_and_one_more_is_refused);
    tcase_add_test(tc, test_balloon_more_than_a_turn_is_done_in_several);
    tcase_add_test(tc, test_balloon_broken_queue_does_nothing_until_reset);
    tcase_add_test(tc, test_balloon_reset_returns_everything);
    tcase_add_test(tc, test_balloon_pinned_block_is_passed_over);
    tcase_add_test(tc, test_balloon_without_memory_for_a_table_keeps_the_page);
    tcase_add_test(tc, test_balloon_report_drops_whole_pages_only);
    tcase_add_test(tc, test_balloon_report_of_neighbours_is_one_call);
    tcase_add_test(tc, test_balloon_reported_page_comes_back_with_the_poison);
    tcase_add_test(tc, test_balloon_features_are_those_switched_on);
    tcase_add_test(tc, test_balloon_target_is_told_and_checked);
    tcase_add_test(tc, test_balloon_driver_writes_actual_alone);
    tcase_add_loop_test(tc, test_balloon_queues_are_found_by_either_numbering, 0, 16);
    tcase_add_test(tc, test_balloon_kick_of_a_queue_without_a_role_is_counted);
    tcase_add_test(tc, test_balloon_without_mm_keeps_the_protocol);
    tcase_add_test(tc, test_balloon_create_refuses_and_leaves_nothing);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
