/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/commands.h"
#include "vmm/suggest.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MAX_COMMANDS 32

static int unknown(const char *word, struct diag *diag)
{
    const char *names[MAX_COMMANDS] = {NULL};
    char near[SUGGEST_TEXT];

    for (int i = 0; commands[i].name && i < MAX_COMMANDS - 1; i++)
        names[i] = commands[i].name;
    return diag_set(diag, EXIT_USAGE, "there is no command %.40s%s `ebb help` lists them", word,
                    *suggest_text(near, word, names) ? near : ";");
}

static int dispatch(int argc, char *argv[], struct diag *diag)
{
    const char *word = argc > 1 ? argv[1] : NULL;

    if (!word)
        return diag_set(diag, EXIT_USAGE, "say what to do: `ebb run` shows a demonstration, `ebb help` the commands");
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)
        word = "help";
    if (strcmp(word, "--version") == 0)
        word = "version";
    for (const struct command *command = commands; command->name; command++)
        if (strcmp(command->name, word) == 0)
            return command->run(argc - 2, argv + 2, diag);
    return unknown(word, diag);
}

/* A stream that is closed would be the next file that is opened: lines for the user would go into swap or results. */
static void open_standard_streams(void)
{
    int fd;

    while ((fd = open("/dev/null", O_RDWR)) >= 0 && fd <= STDERR_FILENO)
        ;
    if (fd >= 0)
        close(fd);
}

/* No error is a reader that has seen enough, as in `ebb show vmstat | head -1`. */
static bool output_is_lost(void)
{
    struct pollfd out = {.fd = STDOUT_FILENO};

    if (fflush(stdout) == 0 && !ferror(stdout))
        return false;
    return poll(&out, 1, 0) == 0 || !(out.revents & (POLLERR | POLLHUP));
}

int main(int argc, char *argv[])
{
    struct diag diag = {0};

    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a file that `ulimit -f` forbids is an error like any other */
    open_standard_streams();
    int error = dispatch(argc, argv, &diag);
    if (!error && output_is_lost())
        error = diag_set(&diag, EXIT_GUEST, "standard output could not be written to its end; is its disk full?");
    if (!error)
        return EXIT_DONE;
    if (diag.text[0])
        fprintf(stderr, "ebb: %s\n", diag.text);
    return (int)diag.code;
}
