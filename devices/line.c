/* SPDX-License-Identifier: Apache-2.0 */
#include "devices/line.h"

static void hand_over(struct line *line)
{
    line->text[line->nr] = 0;
    line->nr = 0;
    line->on_line(line->ctx, line->text);
}

void line_add(struct line *line, uint8_t byte)
{
    if (!line->on_line || byte == '\r')
        return;
    if (byte == '\n') {
        hand_over(line);
        return;
    }
    line->text[line->nr++] = byte >= ' ' && byte < 0x7f ? (char)byte : '?';
    if (line->nr == LINE_BYTES - 1)
        hand_over(line);
}

void line_end(struct line *line)
{
    if (line->nr > 0)
        hand_over(line);
}
