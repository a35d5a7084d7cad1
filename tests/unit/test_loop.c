/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "devices/loop.h"
#include "tests/fake/fail_alloc.h"

static struct loop *loop;

struct counter {
    int fd;
    unsigned nr_calls;
    uint64_t sum;
    uint32_t events;
    int remove_fd; /* what the callback removes; -1: nothing */
};

static void setup(void)
{
    ck_assert_int_eq(loop_create(&loop), 0);
}

static void teardown(void)
{
    loop_destroy(loop);
}

static void count(void *ctx, uint32_t events)
{
    struct counter *counter = ctx;
    uint64_t value = 0;

    counter->nr_calls++;
    counter->events = events;
    if (read(counter->fd, &value, sizeof(value)) == sizeof(value))
        counter->sum += value;
    if (counter->remove_fd >= 0)
        loop_remove(loop, counter->remove_fd);
}

static struct counter make_counter(void)
{
    struct counter counter = {.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), .remove_fd = -1};

    ck_assert_int_ge(counter.fd, 0);
    return counter;
}

static void poke(const struct counter *counter, uint64_t value)
{
    ck_assert_int_eq(write(counter->fd, &value, sizeof(value)), sizeof(value));
}

static void pause_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_nsec = ms * 1000000}, NULL);
}

START_TEST(test_loop_readable_descriptor_is_called)
{
    struct counter a = make_counter(), b = make_counter();

    ck_assert_int_eq(loop_add(loop, a.fd, EPOLLIN, count, &a), 0);
    ck_assert_int_eq(loop_add(loop, b.fd, EPOLLIN, count, &b), 0);
    ck_assert_int_eq(loop_turn(loop, 0), 0);
    poke(&b, 3);
    ck_assert_int_eq(loop_turn(loop, -1), 1);
    ck_assert_uint_eq(b.sum, 3);
    ck_assert_uint_eq(b.events, EPOLLIN);
    ck_assert_uint_eq(a.nr_calls, 0);
    poke(&a, 1);
    poke(&b, 1);
    ck_assert_int_eq(loop_turn(loop, -1), 2);
    ck_assert_int_eq(loop_turn(loop, 0), 0);
    close(a.fd);
    close(b.fd);
}
END_TEST

START_TEST(test_loop_add_twice_is_refused)
{
    struct counter a = make_counter();

    ck_assert_int_eq(loop_add(loop, a.fd, EPOLLIN, count, &a), 0);
    ck_assert_int_eq(loop_add(loop, a.fd, EPOLLIN, count, &a), -EEXIST);
    poke(&a, 1);
    ck_assert_int_eq(loop_turn(loop, 0), 1);
    loop_remove(loop, a.fd);
    poke(&a, 1);
    ck_assert_int_eq(loop_turn(loop, 0), 0);
    loop_remove(loop, a.fd); /* not there: nothing */
    ck_assert_int_eq(loop_add(loop, a.fd, EPOLLIN, count, &a), 0);
    ck_assert_int_eq(loop_turn(loop, 0), 1);
    close(a.fd);
}
END_TEST

START_TEST(test_loop_bad_descriptor_is_refused)
{
    ck_assert_int_eq(loop_add(loop, -1, EPOLLIN, count, NULL), -EBADF);
    ck_assert_int_eq(loop_change(loop, 0, EPOLLIN), -ENOENT);
    ck_assert_int_eq(loop_turn(loop, 0), 0);
}
END_TEST

START_TEST(test_loop_change_silences_and_wakes)
{
    struct counter a = make_counter();

    ck_assert_int_eq(loop_add(loop, a.fd, EPOLLIN, count, &a), 0);
    ck_assert_int_eq(loop_change(loop, a.fd, 0), 0);
    poke(&a, 1);
    ck_assert_int_eq(loop_turn(loop, 0), 0);
    ck_assert_int_eq(loop_change(loop, a.fd, EPOLLIN | EPOLLOUT), 0);
    ck_assert_int_eq(loop_turn(loop, 0), 1);
    ck_assert_uint_eq(a.events, EPOLLIN | EPOLLOUT);
    close(a.fd);
}
END_TEST

/* Both are ready in the same round; whoever is called first removes the other. */
START_TEST(test_loop_source_removed_in_its_round_is_not_called)
{
    struct counter a = make_counter(), b = make_counter();

    a.remove_fd = b.fd;
    b.remove_fd = a.fd;
    ck_assert_int_eq(loop_add(loop, a.fd, EPOLLIN, count, &a), 0);
    ck_assert_int_eq(loop_add(loop, b.fd, EPOLLIN, count, &b), 0);
    poke(&a, 1);
    poke(&b, 1);
    ck_assert_int_eq(loop_turn(loop, 0), 1);
    ck_assert_uint_eq(a.nr_calls + b.nr_calls, 1);
    close(a.fd);
    close(b.fd);
}
END_TEST

START_TEST(test_loop_callback_removes_itself)
{
    struct counter a = make_counter();

    a.remove_fd = a.fd;
    ck_assert_int_eq(loop_add(loop, a.fd, EPOLLIN, count, &a), 0);
    poke(&a, 1);
    ck_assert_int_eq(loop_turn(loop, 0), 1);
    poke(&a, 1);
    ck_assert_int_eq(loop_turn(loop, 0), 0);
    close(a.fd);
}
END_TEST

START_TEST(test_loop_more_ready_than_one_round_takes_loses_none)
{
    struct counter many[50];

    for (unsigned i = 0; i < 50; i++) {
        many[i] = make_counter();
        ck_assert_int_eq(loop_add(loop, many[i].fd, EPOLLIN, count, &many[i]), 0);
        poke(&many[i], 1);
    }
    while (loop_turn(loop, 0) > 0)
        ;
    for (unsigned i = 0; i < 50; i++) {
        ck_assert_uint_eq(many[i].nr_calls, 1);
        close(many[i].fd);
    }
}
END_TEST

START_TEST(test_loop_stop_before_run_ends_one_run)
{
    struct counter a = make_counter();

    ck_assert_int_eq(loop_add(loop, a.fd, EPOLLIN, count, &a), 0);
    poke(&a, 1);
    loop_stop(loop);
    loop_stop(loop);
    loop_run(loop);
    ck_assert_uint_eq(a.nr_calls, 0);
    ck_assert_int_eq(loop_turn(loop, 0), 1);
    close(a.fd);
}
END_TEST

static void *run(void *ctx)
{
    loop_run(ctx);
    return NULL;
}

/* A callback that takes its time; @busy is for other threads to see. */
struct slow {
    int fd;
    int busy, nr_calls; /* atomic */
};

static void be_slow(void *ctx, uint32_t events)
{
    struct slow *slow = ctx;

    (void)events;
    __atomic_store_n(&slow->busy, 1, __ATOMIC_SEQ_CST);
    __atomic_fetch_add(&slow->nr_calls, 1, __ATOMIC_SEQ_CST);
    pause_ms(20);
    __atomic_store_n(&slow->busy, 0, __ATOMIC_SEQ_CST);
}

START_TEST(test_loop_remove_from_another_thread_waits_for_the_call)
{
    struct slow slow = {.fd = eventfd(1, EFD_NONBLOCK | EFD_CLOEXEC)}; /* never read: always ready */
    pthread_t thread;

    pthread_create(&thread, NULL, run, loop);
    for (unsigned i = 0; i < 5; i++) {
        int before = __atomic_load_n(&slow.nr_calls, __ATOMIC_SEQ_CST);

        ck_assert_int_eq(loop_add(loop, slow.fd, EPOLLIN, be_slow, &slow), 0);
        while (__atomic_load_n(&slow.nr_calls, __ATOMIC_SEQ_CST) == before)
            pause_ms(1);
        loop_remove(loop, slow.fd);
        ck_assert_int_eq(__atomic_load_n(&slow.busy, __ATOMIC_SEQ_CST), 0);
        before = __atomic_load_n(&slow.nr_calls, __ATOMIC_SEQ_CST);
        pause_ms(2);
        ck_assert_int_eq(__atomic_load_n(&slow.nr_calls, __ATOMIC_SEQ_CST), before);
    }
    loop_stop(loop);
    pthread_join(thread, NULL);
    close(slow.fd);
}
END_TEST

/* Descriptor numbers are used again at once: nobody gets another's events, nobody is called after loop_remove. */
START_TEST(test_loop_sources_come_and_go_beside_the_running_loop)
{
    pthread_t thread;

    pthread_create(&thread, NULL, run, loop);
    for (unsigned i = 0; i < 2000; i++) {
        struct counter counter = make_counter();

        ck_assert_int_eq(loop_add(loop, counter.fd, EPOLLIN, count, &counter), 0);
        poke(&counter, 1);
        if (i % 3 == 0)
            sched_yield();
        loop_remove(loop, counter.fd);
        ck_assert_uint_le(counter.nr_calls, 1);
        ck_assert_uint_eq(counter.sum, counter.nr_calls);
        close(counter.fd);
    }
    loop_stop(loop);
    pthread_join(thread, NULL);
}
END_TEST

START_TEST(test_loop_create_without_descriptors_leaves_nothing)
{
    struct rlimit old, low;
    struct loop *other = NULL;
    int next = dup(0);

    ck_assert_int_ge(next, 0);
    close(next);
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &old), 0);
    for (rlim_t room = 0; room < 2; room++) {
        low = (struct rlimit){.rlim_cur = (rlim_t)next + room, .rlim_max = old.rlim_max};
        ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &low), 0);
        int err = loop_create(&other);
        ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &old), 0);
        ck_assert_int_eq(err, -EMFILE);
        ck_assert_ptr_null(other);
        int again = dup(0);
        ck_assert_int_eq(again, next);
        close(again);
    }
}
END_TEST

START_TEST(test_loop_out_of_memory_leaves_all_as_it_was)
{
    struct counter a = make_counter();
    struct loop *other = NULL;

    fail_alloc_at(1);
    int err = loop_create(&other);
    fail_alloc_at(-1);
    ck_assert_int_eq(err, -ENOMEM);
    ck_assert_ptr_null(other);
    fail_alloc_at(1);
    err = loop_add(loop, a.fd, EPOLLIN, count, &a);
    fail_alloc_at(-1);
    ck_assert_int_eq(err, -ENOMEM);
    poke(&a, 1);
    ck_assert_int_eq(loop_turn(loop, 0), 0);
    ck_assert_int_eq(loop_add(loop, a.fd, EPOLLIN, count, &a), 0);
    ck_assert_int_eq(loop_turn(loop, 0), 1);
    close(a.fd);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("loop");
    TCase *tcase = tcase_create("loop");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_loop_readable_descriptor_is_called);
    tcase_add_test(tcase, test_loop_add_twice_is_refused);
    tcase_add_test(tcase, test_loop_bad_descriptor_is_refused);
    tcase_add_test(tcase, test_loop_change_silences_and_wakes);
    tcase_add_test(tcase, test_loop_source_removed_in_its_round_is_not_called);
    tcase_add_test(tcase, test_loop_callback_removes_itself);
    tcase_add_test(tcase, test_loop_more_ready_than_one_round_takes_loses_none);
    tcase_add_test(tcase, test_loop_stop_before_run_ends_one_run);
    tcase_add_test(tcase, test_loop_remove_from_another_thread_waits_for_the_call);
    tcase_add_test(tcase, test_loop_sources_come_and_go_beside_the_running_loop);
    tcase_add_test(tcase, test_loop_create_without_descriptors_leaves_nothing);
    tcase_add_test(tcase, test_loop_out_of_memory_leaves_all_as_it_was);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
