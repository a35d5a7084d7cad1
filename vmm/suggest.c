/* SPDX-License-Identifier: Apache-2.0 */
/* Edit distance with swaps of neighbours (optimal string alignment), three rows of the table at a time. */
#include "vmm/suggest.h"

#include <stdio.h>
#include <string.h>

#define MAX_WORD 40

static unsigned least(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

static unsigned distance(const char *a, const char *b)
{
    size_t len_a = strlen(a), len_b = strlen(b);
    unsigned rows[3][MAX_WORD + 1];

    if (len_a > MAX_WORD || len_b > MAX_WORD)
        return MAX_WORD;
    for (size_t j = 0; j <= len_b; j++)
        rows[0][j] = (unsigned)j;
    for (size_t i = 1; i <= len_a; i++) {
        unsigned *row = rows[i % 3], *above = rows[(i - 1) % 3], *above2 = rows[(i + 1) % 3];
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= len_b; j++) {
            row[j] = least(above[j - 1] + (a[i - 1] != b[j - 1]), least(above[j], row[j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                row[j] = least(row[j], above2[j - 2] + 1);
        }
    }
    return rows[len_a % 3][len_b];
}

const char *suggest_word(const char *word, const char *const words[])
{
    const char *best = NULL;
    unsigned best_distance = MAX_WORD;

    for (unsigned i = 0; words[i]; i++) {
        unsigned d = distance(word, words[i]);
        if (d < best_distance && d * 3 <= strlen(words[i]) + 1) {
            best_distance = d;
            best = words[i];
        }
    }
    return best;
}

char *suggest_text(char *out, const char *word, const char *const words[])
{
    const char *near = suggest_word(word, words);

    out[0] = '\0';
    if (near)
        snprintf(out, SUGGEST_TEXT, "; did you mean %s?", near);
    return out;
}
