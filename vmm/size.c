/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/size.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

static const char unit_letters[] = "KMGT";

/* Bits to shift for the unit at @text; -EINVAL for a unit that does not exist. */
static int unit_shift(const char *text)
{
    if (!*text)
        return 0;
    const char *letter = strchr(unit_letters, *text & ~0x20);
    if (!letter)
        return -EINVAL;
    text++;
    if (*text && strcasecmp(text, "b") != 0 && strcasecmp(text, "ib") != 0)
        return -EINVAL;
    return 10 * (int)(letter - unit_letters + 1);
}

int size_parse(const char *text, uint64_t *out_bytes)
{
    uint64_t value = 0;
    const char *at = text;

    for (; *at >= '0' && *at <= '9'; at++)
        if (__builtin_mul_overflow(value, UINT64_C(10), &value) ||
            __builtin_add_overflow(value, (uint64_t)(*at - '0'), &value))
            return -ERANGE;
    if (at == text)
        return -EINVAL;
    int shift = unit_shift(at);
    if (shift < 0)
        return shift;
    if (value > UINT64_MAX >> shift)
        return -ERANGE;
    *out_bytes = value << shift;
    return 0;
}

char *size_text(char *out, uint64_t bytes)
{
    unsigned unit = 0;

    while (unit < 4 && bytes >> (10 * (unit + 1)))
        unit++;
    if (unit == 0) {
        snprintf(out, SIZE_TEXT, "%" PRIu64 " bytes", bytes);
        return out;
    }
    uint64_t scale = UINT64_C(1) << (10 * unit);
    if (bytes % scale == 0)
        snprintf(out, SIZE_TEXT, "%" PRIu64 " %ciB", bytes / scale, unit_letters[unit - 1]);
    else
        snprintf(out, SIZE_TEXT, "%.1f %ciB", (double)bytes / (double)scale, unit_letters[unit - 1]);
    return out;
}

char *size_option(char *out, uint64_t bytes)
{
    unsigned unit = 0;

    while (unit < 4 && bytes && (bytes & 1023) == 0) {
        bytes >>= 10;
        unit++;
    }
    if (unit)
        snprintf(out, SIZE_TEXT, "%" PRIu64 "%c", bytes, unit_letters[unit - 1]);
    else
        snprintf(out, SIZE_TEXT, "%" PRIu64, bytes);
    return out;
}

char *count_text(char *out, uint64_t count)
{
    char digits[SIZE_TEXT];
    int nr = snprintf(digits, sizeof(digits), "%" PRIu64, count);
    char *to = out;

    for (int i = 0; i < nr; i++) {
        if (i && (nr - i) % 3 == 0)
            *to++ = ',';
        *to++ = digits[i];
    }
    *to = '\0';
    return out;
}

char *time_text(char *out, uint64_t ns)
{
    if (ns < 1000)
        snprintf(out, SIZE_TEXT, "%" PRIu64 " ns", ns);
    else if (ns < 1000 * 1000)
        snprintf(out, SIZE_TEXT, "%.1f us", (double)ns / 1e3);
    else if (ns < 1000 * 1000 * 1000)
        snprintf(out, SIZE_TEXT, "%.2f ms", (double)ns / 1e6);
    else
        snprintf(out, SIZE_TEXT, "%.2f s", (double)ns / 1e9);
    return out;
}
