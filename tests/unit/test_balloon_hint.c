/* SPDX-License-Identifier: Apache-2.0 */
/* Rounds of hints: ids, stale hints, stop, done, reset. Statistics: tags, polling, period. */
#include "tests/unit/balloon_rig.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <time.h>

#define AT (8 * BLOCK_PAGES)
#define ID_OFFSET 4096 /* where the driver keeps the id that it sends, in the scratch area */

static uint32_t command_id(struct balloon_rig *rig)
{
    uint32_t id;
    fake_driver_config_read(&rig->driver, 8, &id, 4);
    return le32toh(id);
}

static void add(struct balloon_rig *rig, unsigned queue, struct fake_buffer buffer, bool out)
{
    ck_assert_int_eq(fake_driver_add(&rig->driver, queue, &buffer, out, !out, false, NULL), 0);
}

static struct fake_buffer id_buffer(struct balloon_rig *rig, uint32_t id)
{
    return pfn_buffer(rig, ID_OFFSET, &id, 1);
}

static void kick(struct balloon_rig *rig, unsigned queue)
{
    struct fake_used used;
    fake_driver_kick(&rig->driver, queue);
    fake_driver_run(&rig->driver);
    while (fake_driver_collect(&rig->driver, queue, &used))
        ;
}

static void send_id(struct balloon_rig *rig, uint32_t id)
{
    add(rig, HINT, id_buffer(rig, id), true);
    kick(rig, HINT);
}

static void send_hint(struct balloon_rig *rig, gfn_t gfn, uint32_t pages)
{
    add(rig, HINT, (struct fake_buffer){gpa_of(gfn), pages * (uint32_t)PAGE_BYTES}, false);
    kick(rig, HINT);
}

static bool is_signalled(struct balloon_rig *rig)
{
    eventfd_t count;
    struct pollfd pfd = {.fd = balloon_hint_fd(rig->balloon), .events = POLLIN};
    if (poll(&pfd, 1, 0) != 1)
        return false;
    ck_assert_int_eq(eventfd_read(pfd.fd, &count), 0);
    return true;
}

struct hints {
    unsigned nr;
    gfn_t start[8];
    uint64_t pages[8];
};

static void keep_run(void *ctx, gpa_t gpa, uint64_t bytes)
{
    struct hints *hints = ctx;
    ck_assert_uint_lt(hints->nr, ARRAY_LEN(hints->start));
    hints->start[hints->nr] = gfn_of(gpa);
    hints->pages[hints->nr++] = bytes / PAGE_BYTES;
}

static struct hints hints_of(struct balloon_rig *rig)
{
    struct hints hints = {0};
    ck_assert_int_eq(balloon_hint_for_each(rig->balloon, keep_run, &hints), 0);
    return hints;
}

START_TEST(test_balloon_hint_round_collects_what_the_guest_names)
{
    struct balloon_rig rig;
    balloon_rig_start(&rig, AT_ONCE | RING_FEATURES);
    ck_assert_uint_eq(command_id(&rig), VIRTIO_BALLOON_CMD_ID_STOP);
    ck_assert_int_eq(balloon_hint_state(rig.balloon), BALLOON_HINT_IDLE);
    fake_driver_interrupts(&rig.driver);
    ck_assert_int_eq(balloon_hint_start(rig.balloon), 0);
    ck_assert_uint_eq(fake_driver_interrupts(&rig.driver), VIRTIO_INT_CONFIG);
    uint32_t id = command_id(&rig);
    ck_assert_uint_ge(id, 2);
    ck_assert_int_eq(balloon_hint_start(rig.balloon), -EBUSY);
    ck_assert_int_eq(balloon_hint_for_each(rig.balloon, keep_run, NULL), -EBUSY);
    send_id(&rig, id);
    send_hint(&rig, AT, 1024);
    send_hint(&rig, AT + 1024, 1024);
    send_hint(&rig, AT + 3000, 4);
    send_hint(&rig, AT + 3001, 4);
    ck_assert(!is_signalled(&rig));
    send_id(&rig, VIRTIO_BALLOON_CMD_ID_STOP);
    ck_assert(is_signalled(&rig));
    ck_assert_int_eq(balloon_hint_state(rig.balloon), BALLOON_HINT_ENDED);
    balloon_hint_stop(rig.balloon);
    ck_assert_uint_eq(command_id(&rig), VIRTIO_BALLOON_CMD_ID_STOP);
    struct hints hints = hints_of(&rig);
    ck_assert_uint_eq(hints.nr, 2);
    ck_assert_uint_eq(hints.start[0], AT);
    ck_assert_uint_eq(hints.pages[0], 2048);
    ck_assert_uint_eq(hints.start[1], AT + 3000);
    ck_assert_uint_eq(hints.pages[1], 5);
    ck_assert_uint_eq(info_of(&rig).nr_hint_pages, 2053);
    fake_driver_interrupts(&rig.driver);
    balloon_hint_done(rig.balloon);
    ck_assert_uint_eq(fake_driver_interrupts(&rig.driver), VIRTIO_INT_CONFIG);
    ck_assert_uint_eq(command_id(&rig), VIRTIO_BALLOON_CMD_ID_DONE);
    ck_assert_int_eq(balloon_hint_for_each(rig.balloon, keep_run, NULL), -ENOENT);
    /* a hint drops nothing */
    ck_assert_uint_eq(host_drops.nr_calls, 0);
    ck_assert_int_eq(balloon_hint_start(rig.balloon), 0);
    ck_assert_uint_ne(command_id(&rig), id);
    ck_assert_uint_ge(command_id(&rig), 2);
    balloon_hint_stop(rig.balloon);
    ck_assert_uint_eq(hints_of(&rig).nr, 0);
    balloon_rig_fini(&rig);
}
END_TEST

START_TEST(test_balloon_hint_with_a_stale_id_is_ignored)
{
    struct balloon_rig rig;
    balloon_rig_start(&rig, AT_ONCE);
    ck_assert_int_eq(balloon_hint_start(rig.balloon), 0);
    uint32_t old = command_id(&rig);
    send_hint(&rig, AT, 1); /* no id yet */
    send_id(&rig, old);
    send_hint(&rig, AT + 1, 1);
    balloon_hint_stop(rig.balloon);
    send_hint(&rig, AT + 2, 1); /* after the stop */
    ck_assert_uint_eq(hints_of(&rig).nr, 1);
    balloon_hint_done(rig.balloon);
    send_hint(&rig, AT + 3, 1);
    ck_assert_int_eq(balloon_hint_start(rig.balloon), 0);
    send_hint(&rig, AT + 4, 1); /* of the old round still */
    send_id(&rig, old);
    send_hint(&rig, AT + 5, 1);
    send_id(&rig, VIRTIO_BALLOON_CMD_ID_STOP); /* ends what did not begin */
    ck_assert(!is_signalled(&rig));
    ck_assert_int_eq(balloon_hint_state(rig.balloon), BALLOON_HINT_RUNNING);
    send_id(&rig, command_id(&rig) + 1);
    send_hint(&rig, AT + 6, 1);
    send_id(&rig, command_id(&rig));
    send_hint(&rig, AT + 7, 1);
    ck_assert_uint_eq(info_of(&rig).nr_stale_hints, 6);
    balloon_hint_stop(rig.balloon);
    struct hints hints = hints_of(&rig);
    ck_assert_uint_eq(hints.nr, 1);
    ck_assert_uint_eq(hints.start[0], AT + 7);
    ck_assert_uint_eq(hints.pages[0], 1);
    balloon_rig_fini(&rig);
}
END_TEST

/*
 * The driver has one place for its id. Hints of the old round are in the queue when the new one begins, and the id before
 * them reads as the new one: the guest may have written those pages since.
 */
START_TEST(test_balloon_hint_of_the_old_round_under_the_new_id_is_thrown_away)
{
    struct balloon_rig rig;
    balloon_rig_start(&rig, AT_ONCE);
    ck_assert_int_eq(balloon_hint_start(rig.balloon), 0);
    uint32_t old = command_id(&rig);
    add(&rig, HINT, id_buffer(&rig, old), true);
    add(&rig, HINT, (struct fake_buffer){gpa_of(AT), (uint32_t)PAGE_BYTES}, false);
    balloon_hint_done(rig.balloon);
    ck_assert_int_eq(balloon_hint_start(rig.balloon), 0);
    uint32_t id = command_id(&rig);
    (void)id_buffer(&rig, id);
    kick(&rig, HINT);
    add(&rig, HINT, id_buffer(&rig, id), true);
    add(&rig, HINT, (struct fake_buffer){gpa_of(AT + 1), (uint32_t)PAGE_BYTES}, false);
    kick(&rig, HINT);
    balloon_hint_stop(rig.balloon);
    struct hints hints = hints_of(&rig);
    ck_assert_uint_eq(hints.nr, 1);
    ck_assert_uint_eq(hints.start[0], AT + 1);
    ck_assert_uint_eq(hints.pages[0], 1);
    ck_assert_uint_eq(info_of(&rig).nr_stale_hints, 1);
    balloon_rig_fini(&rig);
}
END_TEST

START_TEST(test_balloon_hint_odd_buffers_end_no_round)
{
    struct balloon_rig rig;
    balloon_rig_start(&rig, AT_ONCE);
    ck_assert_int_eq(balloon_hint_start(rig.balloon), 0);
    uint32_t id = command_id(&rig);
    send_id(&rig, id);
    struct fake_buffer odd = id_buffer(&rig, VIRTIO_BALLOON_CMD_ID_STOP);
    odd.bytes = 3;
    add(&rig, HINT, odd, true);
    kick(&rig, HINT);
    odd.bytes = 8;
    add(&rig, HINT, odd, true);
    kick(&rig, HINT);
    ck_assert_uint_eq(info_of(&rig).nr_bad_buffers, 2);
    ck_assert_int_eq(balloon_hint_state(rig.balloon), BALLOON_HINT_RUNNING);
    /* after an id that cannot be read nothing is known */
    send_hint(&rig, AT, 1);
    send_id(&rig, id);
    add(&rig, HINT, (struct fake_buffer){{gpa_of(AT + 1).v + 1}, (uint32_t)PAGE_BYTES}, false);
    add(&rig, HINT, (struct fake_buffer){{gpa_of(AT + 4).v + 1}, 2 * (uint32_t)PAGE_BYTES}, false);
    kick(&rig, HINT);
    balloon_hint_stop(rig.balloon);
    struct hints hints = hints_of(&rig);
    ck_assert_uint_eq(hints.nr, 1);
    ck_assert_uint_eq(hints.start[0], AT + 5);
    ck_assert_uint_eq(hints.pages[0], 1);
    balloon_rig_fini(&rig);
}
END_TEST

START_TEST(test_balloon_hint_round_is_canceled_by_a_reset)
{
    struct balloon_rig rig;
    balloon_rig_start(&rig, AT_ONCE);
    ck_assert_int_eq(balloon_hint_start(rig.balloon), 0);
    send_id(&rig, command_id(&rig));
    send_hint(&rig, AT, 1);
    fake_driver_reset(&rig.driver);
    ck_assert(is_signalled(&rig));
    ck_assert_int_eq(balloon_hint_state(rig.balloon), BALLOON_HINT_CANCELED);
    ck_assert_int_eq(balloon_hint_for_each(rig.balloon, keep_run, NULL), -ECANCELED);
    balloon_hint_stop(rig.balloon);
    ck_assert_int_eq(balloon_hint_for_each(rig.balloon, keep_run, NULL), -ECANCELED);
    ck_assert_int_eq(balloon_hint_start(rig.balloon), -ENOTSUP);
    ck_assert_int_eq(fake_driver_start(&rig.driver, AT_ONCE, 0), 0);
    ck_assert_int_eq(balloon_hint_start(rig.balloon), -EBUSY);
    ck_assert_uint_eq(command_id(&rig), VIRTIO_BALLOON_CMD_ID_STOP);
    balloon_hint_done(rig.balloon);
    ck_assert_uint_eq(command_id(&rig), VIRTIO_BALLOON_CMD_ID_STOP);
    ck_assert_int_eq(balloon_hint_start(rig.balloon), 0);
    balloon_rig_fini(&rig);
}
END_TEST

START_TEST(test_balloon_hint_start_without_memory_changes_nothing)
{
    struct balloon_rig rig;
    balloon_rig_start(&rig, AT_ONCE);
    for (long n = 1; n <= 2; n++) {
        fail_alloc_at(n);
        int err = balloon_hint_start(rig.balloon);
        fail_alloc_at(-1);
        ck_assert_int_eq(err, -ENOMEM);
        ck_assert_uint_eq(command_id(&rig), VIRTIO_BALLOON_CMD_ID_STOP);
        ck_assert_int_eq(balloon_hint_state(rig.balloon), BALLOON_HINT_IDLE);
    }
    ck_assert_int_eq(balloon_hint_start(rig.balloon), 0);
    balloon_rig_fini(&rig);
}
END_TEST

/* ---- statistics ---- */

struct stat_entry {
    uint16_t tag;
    uint64_t value;
};

static struct fake_buffer stats_buffer(struct balloon_rig *rig, const struct stat_entry *entries, unsigned nr)
{
    const struct fake_buffer buffer = {rig->scratch, nr * (uint32_t)sizeof(struct virtio_balloon_stat)};
    struct virtio_balloon_stat *to = fake_memory_at(&rig->memory, buffer.gpa, buffer.bytes);
    for (unsigned i = 0; i < nr; i++)
        to[i] = (struct virtio_balloon_stat){htole16(entries[i].tag), htole64(entries[i].value)};
    return buffer;
}

static struct balloon_stats stats_of(struct balloon_rig *rig)
{
    struct balloon_stats stats;
    balloon_stats(rig->balloon, &stats);
    return stats;
}

START_TEST(test_balloon_stats_of_every_tag_are_kept_and_others_ignored)
{
    struct balloon_rig rig;
    struct stat_entry entries[BALLOON_NR_STATS + 3];
    balloon_rig_start(&rig, AT_ONCE);
    ck_assert_uint_eq(stats_of(&rig).time_ns, 0);
    ck_assert_int_eq(balloon_poll_stats(rig.balloon), -EAGAIN);
    for (uint16_t i = 0; i < BALLOON_NR_STATS; i++) {
        entries[i] = (struct stat_entry){(uint16_t)(BALLOON_NR_STATS - 1 - i), UINT64_C(0x1122334455667788) + i};
        ck_assert_ptr_nonnull(balloon_stat_names[i]);
    }
    entries[BALLOON_NR_STATS] = (struct stat_entry){BALLOON_NR_STATS, 1};
    entries[BALLOON_NR_STATS + 1] = (struct stat_entry){UINT16_MAX, 2};
    entries[BALLOON_NR_STATS + 2] = (struct stat_entry){VIRTIO_BALLOON_S_MEMFREE, 77}; /* twice: the last counts */
    add(&rig, STATS, stats_buffer(&rig, entries, ARRAY_LEN(entries)), true);
    fake_driver_kick(&rig.driver, STATS);
    fake_driver_run(&rig.driver);
    /* it is kept */
    ck_assert(!fake_driver_has_used(&rig.driver, STATS));
    struct balloon_stats stats = stats_of(&rig);
    ck_assert_uint_eq(stats.valid, (1u << BALLOON_NR_STATS) - 1);
    ck_assert_uint_eq(stats.nr_updates, 1);
    ck_assert_uint_gt(stats.time_ns, 0);
    ck_assert_uint_eq(stats.value[VIRTIO_BALLOON_S_MEMFREE], 77);
    ck_assert_uint_eq(stats.value[VIRTIO_BALLOON_S_DIRECT_RECLAIM], UINT64_C(0x1122334455667788));
    /* until the next poll */
    ck_assert_int_eq(balloon_poll_stats(rig.balloon), 0);
    ck_assert_uint_eq(fake_driver_interrupts(&rig.driver) & VIRTIO_INT_USED, VIRTIO_INT_USED);
    ck_assert_int_eq(balloon_poll_stats(rig.balloon), -EAGAIN);
    kick(&rig, STATS);
    /* a guest that knows less */
    add(&rig, STATS, stats_buffer(&rig, entries + BALLOON_NR_STATS - 1, 1), true);
    kick(&rig, STATS);
    stats = stats_of(&rig);
    ck_assert_uint_eq(stats.valid, 1u << VIRTIO_BALLOON_S_SWAP_IN);
    ck_assert_uint_eq(stats.nr_updates, 2);
    ck_assert_uint_eq(info_of(&rig).nr_bad_buffers, 0);
    fake_driver_reset(&rig.driver);
    ck_assert_uint_eq(stats_of(&rig).valid, 0);
    ck_assert_int_eq(balloon_poll_stats(rig.balloon), -ENOTSUP);
    balloon_rig_fini(&rig);
}
END_TEST

/* Linux leaves its first buffer and kicks before DRIVER_OK, and never again: there were no statistics of it at all. */
START_TEST(test_balloon_stats_left_before_driver_ok_are_taken)
{
    static const struct balloon_config config = {
        .stats = true, .deflate_on_oom = true, .hints = true, .poison = true, .reporting = true};
    const struct stat_entry entry = {VIRTIO_BALLOON_S_AVAIL, 5};
    struct balloon_rig rig;

    balloon_rig_init(&rig, &config, true);
    ck_assert_int_eq(fake_driver_negotiate(&rig.driver, AT_ONCE), 0);
    for (unsigned i = 0; i < rig.driver.mmio->device->nr_queues; i++)
        ck_assert_int_eq(fake_driver_make_queue(&rig.driver, i, 0), 0);
    add(&rig, STATS, stats_buffer(&rig, &entry, 1), true);
    kick(&rig, STATS);
    ck_assert_uint_eq(stats_of(&rig).nr_updates, 0);
    fake_driver_ok(&rig.driver);
    fake_driver_run(&rig.driver);
    ck_assert_uint_eq(stats_of(&rig).value[VIRTIO_BALLOON_S_AVAIL], 5);
    ck_assert_int_eq(balloon_poll_stats(rig.balloon), 0);
    balloon_rig_fini(&rig);
}
END_TEST

START_TEST(test_balloon_stats_odd_buffers_are_counted)
{
    struct balloon_rig rig;
    struct fake_used used;
    const struct stat_entry entry = {VIRTIO_BALLOON_S_AVAIL, 5};
    balloon_rig_start(&rig, AT_ONCE);
    struct fake_buffer buffer = stats_buffer(&rig, &entry, 1);
    buffer.bytes = 13; /* one, and a part */
    add(&rig, STATS, buffer, true);
    kick(&rig, STATS);
    ck_assert_uint_eq(info_of(&rig).nr_bad_buffers, 1);
    ck_assert_uint_eq(stats_of(&rig).value[VIRTIO_BALLOON_S_AVAIL], 5);
    /* a second one at a time: the first comes back */
    buffer.bytes = 9;
    add(&rig, STATS, buffer, true);
    fake_driver_kick(&rig.driver, STATS);
    fake_driver_run(&rig.driver);
    ck_assert_int_eq(fake_driver_collect(&rig.driver, STATS, &used), 1);
    ck_assert_int_eq(fake_driver_collect(&rig.driver, STATS, &used), 0);
    ck_assert_uint_eq(info_of(&rig).nr_bad_buffers, 3);
    ck_assert_uint_eq(stats_of(&rig).nr_updates, 1);
    /* large: the first 64 entries are read */
    buffer.bytes = SCRATCH_BYTES;
    memset(fake_memory_at(&rig.memory, rig.scratch, SCRATCH_BYTES), 0xff, SCRATCH_BYTES);
    add(&rig, STATS, buffer, true);
    kick(&rig, STATS);
    ck_assert_uint_eq(stats_of(&rig).nr_updates, 2);
    ck_assert_uint_eq(stats_of(&rig).valid, 0);
    /* an empty answer is writable */
    buffer.bytes = 10;
    add(&rig, STATS, buffer, false);
    kick(&rig, STATS);
    ck_assert_uint_eq(stats_of(&rig).nr_updates, 2);
    ck_assert_uint_eq(fake_driver_status(&rig.driver) & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
    balloon_rig_fini(&rig);
}
END_TEST

START_TEST(test_balloon_stats_are_polled_by_period)
{
    struct balloon_rig rig;
    struct fake_used used;
    const struct stat_entry entry = {VIRTIO_BALLOON_S_AVAIL, 5};
    static const struct balloon_config config = {.stats = true, .stats_period_ms = 1};
    balloon_rig_init(&rig, &config, false);
    /* without a driver the timer asks nobody */
    ck_assert_int_eq(loop_turn(rig.env.loop, 5000), 1);
    ck_assert_int_eq(fake_driver_start(&rig.driver, F(STATS_VQ), 0), 0);
    for (unsigned i = 0; i < 3; i++) {
        add(&rig, STATS, stats_buffer(&rig, &entry, 1), true);
        fake_driver_kick(&rig.driver, STATS);
        while (!fake_driver_collect(&rig.driver, STATS, &used))
            ck_assert_int_ge(loop_turn(rig.env.loop, 5000), 1);
        ck_assert_uint_eq(stats_of(&rig).nr_updates, i + 1);
    }
    balloon_set_stats_period(rig.balloon, 0);
    add(&rig, STATS, stats_buffer(&rig, &entry, 1), true);
    fake_driver_kick(&rig.driver, STATS);
    fake_driver_run(&rig.driver);
    ck_assert_int_eq(loop_turn(rig.env.loop, 20), 0);
    ck_assert(!fake_driver_has_used(&rig.driver, STATS));
    balloon_set_stats_period(rig.balloon, 2);
    ck_assert_int_eq(loop_turn(rig.env.loop, 5000), 1);
    ck_assert(fake_driver_has_used(&rig.driver, STATS));
    balloon_rig_fini(&rig);
}
END_TEST

/* ---- other threads ---- */

struct asker {
    struct balloon_rig *rig;
    int stop; /* atomic */
};

static void *loop_main(void *loop)
{
    loop_run(loop);
    return NULL;
}

static void *asker_main(void *arg)
{
    struct asker *asker = arg;
    struct balloon *balloon = asker->rig->balloon;
    struct balloon_info info;
    struct balloon_stats stats;
    for (uint64_t i = 0; !__atomic_load_n(&asker->stop, __ATOMIC_RELAXED); i++) {
        if (balloon_set_target(balloon, i % 16 * MIB))
            abort();
        balloon_info(balloon, &info);
        balloon_stats(balloon, &stats);
        (void)!balloon_poll_stats(balloon);
        (void)!balloon_hint_start(balloon);
        balloon_set_stats_period(balloon, (uint32_t)(i % 2));
        balloon_hint_stop(balloon);
        balloon_hint_done(balloon);
        nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
    }
    return NULL;
}

/* The loop, the driver and somebody who asks, in a thread each. Nobody waits in a circle, no page is lost. */
START_TEST(test_balloon_requests_and_questions_in_many_threads)
{
    struct balloon_rig rig;
    pthread_t loop, asker_thread;
    struct fake_used used;
    balloon_rig_start(&rig, ALL_FEATURES);
    struct asker asker = {.rig = &rig};
    ck_assert_int_eq(pthread_create(&loop, NULL, loop_main, rig.env.loop), 0);
    ck_assert_int_eq(pthread_create(&asker_thread, NULL, asker_main, &asker), 0);
    for (unsigned i = 0; i < 200; i++) {
        unsigned queue = i / 4 % 2 ? DEFLATE : INFLATE;
        struct fake_buffer buffer = run_buffer(&rig, 0, AT + i % 4 * 256, 256);
        if (i % 37 == 36) {
            fake_driver_reset(&rig.driver);
            ck_assert_int_eq(fake_driver_start(&rig.driver, ALL_FEATURES, 64), 0);
        }
        add(&rig, queue, buffer, true);
        fake_driver_kick(&rig.driver, queue);
        while (!fake_driver_collect(&rig.driver, queue, &used))
            nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
    }
    __atomic_store_n(&asker.stop, 1, __ATOMIC_RELAXED);
    pthread_join(asker_thread, NULL);
    fake_driver_reset(&rig.driver);
    loop_stop(rig.env.loop);
    pthread_join(loop, NULL);
    ck_assert_uint_eq(in_balloon(&rig), 0);
    balloon_rig_fini(&rig);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("balloon_hint");
    TCase *tc = tcase_create("balloon_hint");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, test_balloon_hint_round_collects_what_the_guest_names);
    tcase_add_test(tc, test_balloon_hint_with_a_stale_id_is_ignored);
    tcase_add_test(tc, test_balloon_hint_of_the_old_round_under_the_new_id_is_thrown_away);
    tcase_add_test(tc, test_balloon_hint_odd_buffers_end_no_round);
    tcase_add_test(tc, test_balloon_hint_round_is_canceled_by_a_reset);
    tcase_add_test(tc, test_balloon_hint_start_without_memory_changes_nothing);
    tcase_add_test(tc, test_balloon_stats_of_every_tag_are_kept_and_others_ignored);
    tcase_add_test(tc, test_balloon_stats_left_before_driver_ok_are_taken);
    tcase_add_test(tc, test_balloon_stats_odd_buffers_are_counted);
    tcase_add_test(tc, test_balloon_stats_are_polled_by_period);
    tcase_add_test(tc, test_balloon_requests_and_questions_in_many_threads);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
