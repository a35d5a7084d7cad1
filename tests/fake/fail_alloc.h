/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Makes one heap allocation fail. The test programs are linked with --wrap for malloc, calloc, realloc, aligned_alloc
 * and posix_memalign; calls from libc and from shared libraries are not seen. Check itself allocates: arm this right
 * before the call under test and disarm it right after, with no assertion between.
 *
 *     for (long n = 1;; n++) {
 *         fail_alloc_at(n);
 *         int err = thing_create(&thing);
 *         bool failed = fail_alloc_fired();
 *         fail_alloc_at(-1);
 *         if (!failed)
 *             break; (every allocation has failed once)
 *         ck_assert_int_eq(err, -ENOMEM);
 *     }
 *
 * One counter for the whole process, so that an allocation in another thread counts too.
 */
#ifndef TESTS_FAKE_FAIL_ALLOC_H
#define TESTS_FAKE_FAIL_ALLOC_H

#include <stdbool.h>

/*
 * fail_alloc_at - the @n-th allocation from now on fails, once: 1 is the next one, -1 is none. Counting starts anew.
 */
void fail_alloc_at(long n);

/* Allocations asked for since fail_alloc_at, the failed one included. */
long fail_alloc_count(void);

/* True when the allocation that fail_alloc_at named has been asked for and has failed. */
bool fail_alloc_fired(void);

#endif
