/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Makes io_uring break in the middle of a batch: the test programs are linked with --wrap=io_uring_submit_and_wait.
 * One setting for the whole process.
 */
#ifndef TESTS_FAKE_FAIL_URING_H
#define TESTS_FAKE_FAIL_URING_H

/*
 * fail_uring_after - the next call sends the first @nr requests of those that are queued, and every one after it fails
 * with -EIO, also for other rings. -1: all work.
 */
void fail_uring_after(int nr);

/* Calls that failed since fail_uring_after. */
int fail_uring_count(void);

#endif
