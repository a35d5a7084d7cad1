/* SPDX-License-Identifier: Apache-2.0 */
/* The lock that checks the order of ranks, whatever this build's own lock does: compiled here under other names. */
#define lock_init order_lock_init
#define lock_fini order_lock_fini
#define lock_acquire order_lock_acquire
#define lock_try order_lock_try
#define lock_release order_lock_release
#ifndef EBB_DEBUG_LOCKS
#define EBB_DEBUG_LOCKS
#endif
#include "mm/base/lock.c"

#include <check.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static struct mm_lock lru, zone, zone2;

static void setup(void)
{
    lock_init(&lru, LOCK_LRU);
    lock_init(&zone, LOCK_ZONE);
    lock_init(&zone2, LOCK_ZONE);
}

static void teardown(void)
{
    lock_fini(&lru);
    lock_fini(&zone);
    lock_fini(&zone2);
}

START_TEST(test_lock_order_rising_passes)
{
    for (unsigned i = 0; i < 3; i++) {
        lock_acquire(&lru);
        lock_acquire(&zone);
        lock_release(&lru); /* not in reverse order */
        lock_release(&zone);
    }
    ck_assert_uint_eq(held.nr, 0);
}
END_TEST

START_TEST(test_lock_order_falling_aborts)
{
    lock_acquire(&zone);
    lock_acquire(&lru);
}
END_TEST

START_TEST(test_lock_order_equal_rank_aborts)
{
    lock_acquire(&zone);
    lock_acquire(&zone2);
}
END_TEST

START_TEST(test_lock_order_below_any_held_lock_aborts)
{
    lock_acquire(&zone);
    ck_assert(lock_try(&lru));
    lock_release(&lru);
    ck_assert(lock_try(&lru));
    lock_acquire(&zone2);
}
END_TEST

START_TEST(test_lock_order_try_is_exempt)
{
    lock_acquire(&zone);
    ck_assert(lock_try(&lru));
    ck_assert(lock_try(&zone2));
    ck_assert(!lock_try(&zone2));
    ck_assert_uint_eq(held.nr, 3);
    lock_release(&zone);
    lock_release(&lru);
    lock_release(&zone2);
    ck_assert_uint_eq(held.nr, 0);
}
END_TEST

START_TEST(test_lock_order_tried_lock_counts_as_held)
{
    ck_assert(lock_try(&zone));
    lock_acquire(&lru);
}
END_TEST

START_TEST(test_lock_order_release_of_lock_not_held_aborts)
{
    lock_release(&lru);
}
END_TEST

START_TEST(test_lock_order_too_many_held_aborts)
{
    static struct mm_lock many[MAX_HELD + 1];
    for (unsigned i = 0; i <= MAX_HELD; i++) {
        lock_init(&many[i], LOCK_BLOCK);
        if (!lock_try(&many[i]))
            _exit(0);
    }
}
END_TEST

START_TEST(test_lock_order_message_names_both_ranks)
{
    char text[200] = "", want[200];
    int pipe_fds[2];
    ck_assert_int_eq(pipe(pipe_fds), 0);
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (!child) {
        dup2(pipe_fds[1], STDERR_FILENO);
        lock_acquire(&zone);
        lock_acquire(&lru);
        _exit(0);
    }
    close(pipe_fds[1]);
    ck_assert_int_gt(read(pipe_fds[0], text, sizeof(text) - 1), 0);
    close(pipe_fds[0]);
    ck_assert_int_eq(waitpid(child, NULL, 0), child);
    snprintf(want, sizeof(want), "lru (rank %d) taken while zone (rank %d)", LOCK_LRU, LOCK_ZONE);
    ck_assert_msg(strstr(text, want), "%s", text);
}
END_TEST

START_TEST(test_lock_order_every_rank_has_a_name)
{
    for (unsigned rank = 0; rank < LOCK_NR_RANKS; rank++)
        ck_assert_ptr_nonnull(rank_names[rank]);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("lock_order");
    TCase *tc = tcase_create("lock_order");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, test_lock_order_rising_passes);
    tcase_add_test_raise_signal(tc, test_lock_order_falling_aborts, SIGABRT);
    tcase_add_test_raise_signal(tc, test_lock_order_equal_rank_aborts, SIGABRT);
    tcase_add_test_raise_signal(tc, test_lock_order_below_any_held_lock_aborts, SIGABRT);
    tcase_add_test(tc, test_lock_order_try_is_exempt);
    tcase_add_test_raise_signal(tc, test_lock_order_tried_lock_counts_as_held, SIGABRT);
    tcase_add_test_raise_signal(tc, test_lock_order_release_of_lock_not_held_aborts, SIGABRT);
    tcase_add_test_raise_signal(tc, test_lock_order_too_many_held_aborts, SIGABRT);
    tcase_add_test(tc, test_lock_order_message_names_both_ranks);
    tcase_add_test(tc, test_lock_order_every_rank_has_a_name);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
