/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One line for the user: what is wrong and how to mend it, with the exit code it leads to. Filled by whatever failed
 * first, printed only by main.c and run.c as "ebb: TEXT".
 */
#ifndef VMM_DIAG_H
#define VMM_DIAG_H

enum exit_code {
    EXIT_DONE = 0,
    EXIT_GUEST = 1, /* the guest or a check failed */
    EXIT_USAGE = 2, /* wrong usage */
    EXIT_HOST = 3,  /* this host lacks something */
};

struct diag {
    enum exit_code code;
    char text[840];
};

/* Sets code and text (printf), unless something is set already. Returns -1, so that `return diag_set(...)` reads well.
 */
int diag_set(struct diag *diag, enum exit_code code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* The same for what the host refused with @err, a positive errno: code EXIT_HOST, and behind the text the error and,
 * where it is a limit, how to have more.
 */
int diag_host(struct diag *diag, int err, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
