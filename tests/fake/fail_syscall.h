/* SPDX-License-Identifier: Apache-2.0 */
/* System calls: made to fail, and those counted that close what is not open. */
#ifndef TESTS_FAKE_FAIL_SYSCALL_H
#define TESTS_FAKE_FAIL_SYSCALL_H

#include <stdint.h>

/*
 * fail_syscall - from here on @nr (SYS_...) fails with @err, in all threads and until the process ends: for a test that
 * runs in its own. Only where its first argument has a bit of @flags; 0: always. 0, or -1.
 */
int fail_syscall(int nr, uint32_t flags, int err);
/* Calls of close() by the code under test (linked with --wrap) that failed with EBADF: another's, had it been there. */
unsigned fail_syscall_bad_closes(void);

#endif
