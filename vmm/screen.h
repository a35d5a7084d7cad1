/* SPDX-License-Identifier: Apache-2.0 */
/*
 * screen: the guests' lines and the progress line share one terminal. The progress line is the last one, is rewritten
 * in place on standard error, and makes way for every other line. In a pipe there is none.
 */
#ifndef VMM_SCREEN_H
#define VMM_SCREEN_H

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>

struct screen {
    pthread_mutex_t lock;
    FILE *out;     /* guests' lines, messages, the closing table; NULL: quiet */
    bool progress; /* standard error is a terminal */
    bool shown;    /* guarded by lock: the progress line stands there */
};

void screen_init(struct screen *screen, FILE *out, bool quiet);
void screen_fini(struct screen *screen);
/* One line; @name before it unless "". Bytes that would steer the terminal become dots: the guest is not trusted. */
void screen_line(struct screen *screen, const char *name, const char *line);
/* "ebb: TEXT" on standard error. */
void screen_error(struct screen *screen, const char *text);
/* The progress line is @text from now on; NULL or "" takes it away. */
void screen_progress(struct screen *screen, const char *text);

#endif
