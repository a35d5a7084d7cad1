/* SPDX-License-Identifier: Apache-2.0 */
/* What the commands that tell a running ebb something have in common. */
#ifndef VMM_CTL_H
#define VMM_CTL_H

#include "vmm/client.h"
#include "vmm/commands.h"

/*
 * The running ebb has another working directory: it gets the directory in full, and the last part as it was typed.
 * Fills @out (PATH_MAX). 0, or -1 with diag.
 */
int ctl_absolute_path(const char *path, char *out, struct diag *diag);

/*
 * Options and exactly one other word; @what says what it is. 0; 1: help was asked for and printed; -1 with diag.
 */
int ctl_one_word(const char *command, const char *what, int argc, char *const argv[], struct client_options *options,
                 struct diag *diag);

/* PUT @body, which is taken over, to @path. 0 and *out, or -1 with diag. */
int ctl_put(const struct client_options *options, const char *path, json_t *body, json_t **out, struct diag *diag);

#endif
