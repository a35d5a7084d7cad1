/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Makes write() fail: the test programs are linked with --wrap=write; calls from libc (stdio) are not seen. Check itself
 * may write: arm this right before the call under test, with no assertion between. One setting for the whole process.
 */
#ifndef TESTS_FAKE_FAIL_WRITE_H
#define TESTS_FAKE_FAIL_WRITE_H

/* fail_write_next - the next @nr calls write nothing and fail with errno @error. 0: all work. */
void fail_write_next(int nr, int error);

/* Calls that are still to fail. */
int fail_write_left(void);

#endif
