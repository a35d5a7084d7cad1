/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/screen.h"

#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define CLEAR_LINE "\r\033[K" /* ECMA-48: carriage return, erase in line */

void screen_init(struct screen *screen, FILE *out, bool quiet)
{
    pthread_mutex_init(&screen->lock, NULL);
    screen->out = quiet ? NULL : out;
    screen->progress = !quiet && isatty(STDERR_FILENO);
    screen->shown = false;
}

void screen_fini(struct screen *screen)
{
    pthread_mutex_destroy(&screen->lock);
}

static void clear_locked(struct screen *screen)
{
    if (screen->shown)
        fputs(CLEAR_LINE, stderr);
    screen->shown = false;
}

void screen_line(struct screen *screen, const char *name, const char *line)
{
    if (!screen->out)
        return;
    pthread_mutex_lock(&screen->lock);
    clear_locked(screen);
    if (*name)
        fprintf(screen->out, "%s: ", name);
    for (const char *at = line; *at; at++) {
        unsigned char c = (unsigned char)*at;
        fputc((c < ' ' && c != '\t') || c >= 0x7f ? '.' : c, screen->out);
    }
    fputc('\n', screen->out);
    fflush(screen->out);
    pthread_mutex_unlock(&screen->lock);
}

void screen_error(struct screen *screen, const char *text)
{
    pthread_mutex_lock(&screen->lock);
    clear_locked(screen);
    fprintf(stderr, "ebb: %s\n", text);
    pthread_mutex_unlock(&screen->lock);
}

void screen_progress(struct screen *screen, const char *text)
{
    struct winsize size = {.ws_col = 80};

    if (!screen->progress)
        return;
    ioctl(STDERR_FILENO, TIOCGWINSZ, &size);
    pthread_mutex_lock(&screen->lock);
    clear_locked(screen);
    if (text && *text) {
        fprintf(stderr, "%.*s", size.ws_col > 1 ? size.ws_col - 1 : 79, text);
        screen->shown = true;
    }
    fflush(stderr);
    pthread_mutex_unlock(&screen->lock);
}
