/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The commands of `ebb`. Each takes what stands behind its name, prints its own output, and returns
 * 0; or -1 with @diag, whose line main prints, if there is one, and whose code is the exit code.
 */
#ifndef VMM_COMMANDS_H
#define VMM_COMMANDS_H

#include "vmm/diag.h"

#include <stdbool.h>

int cmd_run(int argc, char *const argv[], struct diag *diag);
int cmd_show(int argc, char *const argv[], struct diag *diag);
int cmd_swapon(int argc, char *const argv[], struct diag *diag);
int cmd_swapoff(int argc, char *const argv[], struct diag *diag);
int cmd_reclaim(int argc, char *const argv[], struct diag *diag);
int cmd_sysctl(int argc, char *const argv[], struct diag *diag);
int cmd_balloon(int argc, char *const argv[], struct diag *diag);
int cmd_mem(int argc, char *const argv[], struct diag *diag);
int cmd_hint(int argc, char *const argv[], struct diag *diag);
int cmd_dump(int argc, char *const argv[], struct diag *diag);
int cmd_heatmap(int argc, char *const argv[], struct diag *diag);
int cmd_version(int argc, char *const argv[], struct diag *diag);
int cmd_help(int argc, char *const argv[], struct diag *diag);

struct command {
    const char *name;
    int (*run)(int argc, char *const argv[], struct diag *diag);
    const char *what; /* one line */
    const char *help; /* the whole page */
};
/* NULL name at the end. */
extern const struct command commands[];

/* The command's page on standard output. Returns 0. */
int help_print(const char *command);

/* What `show`, `swapon` and their like have in common. */
struct client_options {
    const char *api_path; /* NULL: find the youngest */
    const char *vm;
    bool json, help;
    int nr_words;
    const char *words[4];
};
/*
 * client_options_parse - --api SOCKET, --json, --vm NAME and --help may stand anywhere between the words.
 * Returns 0, or -1 with @diag (EXIT_USAGE): an option that does not exist, more words than there is room for.
 */
int client_options_parse(const char *command, int argc, char *const argv[], struct client_options *out,
                         struct diag *diag);

#endif
