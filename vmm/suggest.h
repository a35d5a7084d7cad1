/* SPDX-License-Identifier: Apache-2.0 */
/* The nearest right word for a wrong one. */
#ifndef VMM_SUGGEST_H
#define VMM_SUGGEST_H

/*
 * suggest_word - the word of @words (NULL-terminated) nearest to @word by edits (insert, delete, replace, swap of
 * neighbours) of those at most a third of their letters away; the first of several; NULL when there is none.
 */
const char *suggest_word(const char *word, const char *const words[]);

/* Fills @out with "; did you mean WORD?" or, when nothing is near, with "". Returns @out. */
#define SUGGEST_TEXT 64
char *suggest_text(char *out, const char *word, const char *const words[]);

#endif
