/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The lock as this build has it. With -DEBB_DEBUG_LOCKS (sanitizer builds) it checks the order of ranks; without,
 * test_lock_order.c compiles the checking lock for itself.
 */
#include <check.h>
#include <stdlib.h>

#include "mm/base/lock.h"

#define NR_THREADS 4
#define NR_ROUNDS 5000

static struct mm_lock lock;
static unsigned long counter; /* guarded by lock */

static void *count(void *by_trying)
{
    for (unsigned i = 0; i < NR_ROUNDS;) {
        if (!by_trying)
            lock_acquire(&lock);
        else if (!lock_try(&lock))
            continue;
        counter++;
        i++;
        lock_release(&lock);
    }
    return NULL;
}

START_TEST(test_lock_threads_exclude_each_other)
{
    pthread_t threads[NR_THREADS];
    lock_init(&lock, LOCK_ZONE);
    for (unsigned i = 0; i < NR_THREADS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, count, i % 2 ? &lock : NULL), 0);
    for (unsigned i = 0; i < NR_THREADS; i++)
        pthread_join(threads[i], NULL);
    ck_assert_uint_eq(counter, NR_THREADS * NR_ROUNDS);
    lock_fini(&lock);
}
END_TEST

static void *try_once(void *got)
{
    *(bool *)got = lock_try(&lock);
    if (*(bool *)got)
        lock_release(&lock);
    return NULL;
}

static bool other_thread_gets_it(void)
{
    pthread_t thread;
    bool got = false;
    ck_assert_int_eq(pthread_create(&thread, NULL, try_once, &got), 0);
    pthread_join(thread, NULL);
    return got;
}

START_TEST(test_lock_try_held_elsewhere_fails)
{
    lock_init(&lock, LOCK_LRU);
    ck_assert(other_thread_gets_it());
    lock_acquire(&lock);
    ck_assert(!other_thread_gets_it());
    lock_release(&lock);
    ck_assert(lock_try(&lock));
    ck_assert(!other_thread_gets_it());
    lock_release(&lock);
    ck_assert(other_thread_gets_it());
    lock_fini(&lock);
}
END_TEST

START_TEST(test_lock_rising_ranks_pass)
{
    struct mm_lock locks[LOCK_NR_RANKS];
    for (unsigned rank = 0; rank < LOCK_NR_RANKS; rank++)
        lock_init(&locks[rank], (enum lock_rank)rank);
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned rank = 0; rank < LOCK_NR_RANKS; rank++)
            lock_acquire(&locks[rank]);
        for (unsigned rank = LOCK_NR_RANKS; rank-- > 0;)
            lock_release(&locks[round ? LOCK_NR_RANKS - 1 - rank : rank]);
    }
    for (unsigned rank = 0; rank < LOCK_NR_RANKS; rank++)
        lock_fini(&locks[rank]);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("lock");
    TCase *tc = tcase_create("lock");
    tcase_add_test(tc, test_lock_threads_exclude_each_other);
    tcase_add_test(tc, test_lock_try_held_elsewhere_fails);
    tcase_add_test(tc, test_lock_rising_ranks_pass);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
