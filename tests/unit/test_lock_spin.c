/* SPDX-License-Identifier: Apache-2.0 */
/* The guest kernel's spin lock, compiled here under other names and run in threads. */
#define lock_init spin_lock_init
#define lock_fini spin_lock_fini
#define lock_acquire spin_lock_acquire
#define lock_try spin_lock_try
#define lock_release spin_lock_release
#define EBB_FREESTANDING
#include "mm/base/lock.c"

#include <check.h>
#include <pthread.h>
#include <stdlib.h>

#define NR_THREADS 2
#define NR_ROUNDS 20000

static struct mm_lock lock;
static unsigned long counter; /* guarded by lock */

START_TEST(test_lock_spin_try_follows_the_holder)
{
    lock_init(&lock, LOCK_SLAB);
    ck_assert_uint_eq(lock.rank, LOCK_SLAB);
    lock_acquire(&lock);
    ck_assert(!lock_try(&lock));
    lock_release(&lock);
    ck_assert(lock_try(&lock));
    lock_release(&lock);
    ck_assert_int_eq(lock.held, 0);
    lock_fini(&lock);
}
END_TEST

static void *count(void *unused)
{
    for (unsigned i = 0; i < NR_ROUNDS; i++) {
        lock_acquire(&lock);
        counter++;
        lock_release(&lock);
    }
    return unused;
}

START_TEST(test_lock_spin_threads_exclude_each_other)
{
    pthread_t threads[NR_THREADS];
    lock_init(&lock, LOCK_ZONE);
    lock_acquire(&lock); /* the threads have to spin at first */
    for (unsigned i = 0; i < NR_THREADS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, count, NULL), 0);
    ck_assert_uint_eq(counter, 0);
    lock_release(&lock);
    for (unsigned i = 0; i < NR_THREADS; i++)
        pthread_join(threads[i], NULL);
    ck_assert_uint_eq(counter, NR_THREADS * NR_ROUNDS);
    lock_fini(&lock);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("lock_spin");
    TCase *tc = tcase_create("lock_spin");
    tcase_add_test(tc, test_lock_spin_try_follows_the_holder);
    tcase_add_test(tc, test_lock_spin_threads_exclude_each_other);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
