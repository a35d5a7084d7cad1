/* SPDX-License-Identifier: Apache-2.0 */
/* Small text files by which the kernel is told and asked: /sys, /proc, cgroups. Paths are printf formats. */
#ifndef VMM_SYSFILE_H
#define VMM_SYSFILE_H

#include "mm/base/types.h"

/* sysfile_write - writes @text in one call. Returns 0 or -errno. */
must_check int sysfile_write(const char *text, const char *format, ...) __attribute__((format(printf, 2, 3)));

/*
 * sysfile_read - at most @bytes - 1 bytes of the file, ended by a 0, without the last newline.
 * Returns 0 or -errno; @out is "" after an error.
 */
must_check int sysfile_read(char *out, size_t bytes, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* sysfile_number - the first number of the file; 0 when there is none, or no file. */
uint64_t sysfile_number(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
