/* SPDX-License-Identifier: Apache-2.0 */
/* Figures as people write them: sizes with a unit, counts with commas, times in the unit that fits. */
#ifndef VMM_SIZE_H
#define VMM_SIZE_H

#include "mm/base/types.h"

/* Room for any text made here. */
#define SIZE_TEXT 32

/*
 * size_parse - "4096", "64K", "256M", "1G", "2T" in either case, with or without "B" or "iB" behind the letter; powers
 * of 1024. Returns 0, or -EINVAL (not a size), -ERANGE (64 bits do not hold it) with *out_bytes unchanged.
 */
must_check int size_parse(const char *text, uint64_t *out_bytes);

/* Each fills @out (SIZE_TEXT bytes) and returns it. */
char *size_text(char *out, uint64_t bytes);   /* "256 MiB", "38.1 MiB", "512 bytes" */
char *size_option(char *out, uint64_t bytes); /* exact and good as an option: "256M", "4097" */
char *count_text(char *out, uint64_t count);  /* "1,234,567" */
char *time_text(char *out, uint64_t ns);      /* "850 ns", "12.1 us", "3.20 ms", "1.50 s" */

#endif
