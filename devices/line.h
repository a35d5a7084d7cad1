/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes of a guest's console become lines: handed over at their end, or when they are full. Unprintable bytes become
 * '?', carriage returns vanish. No lock: the owner's.
 */
#ifndef DEVICES_LINE_H
#define DEVICES_LINE_H

#include "mm/base/types.h"

#define LINE_BYTES 240 /* with its end */

struct line {
    /* One line without its end, ends with 0. NULL: nobody wants lines. */
    void (*on_line)(void *ctx, const char *line);
    void *ctx;
    unsigned nr; /* < LINE_BYTES - 1 */
    char text[LINE_BYTES];
};

void line_add(struct line *line, uint8_t byte);
/* Hands over what stands in the last, unended line. */
void line_end(struct line *line);

#endif
