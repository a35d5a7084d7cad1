/* SPDX-License-Identifier: Apache-2.0 */
/* `ebb swapon`, `ebb swapoff`, `ebb reclaim`: what a running ebb can be told to do about its memory. */
#include "vmm/client.h"
#include "vmm/commands.h"
#include "vmm/options.h"
#include "vmm/size.h"

#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * The running ebb has another working directory: it gets the directory in full, and the last part as it was typed.
 * Fills @out (PATH_MAX). 0, or -1 with diag.
 */
static int absolute_path(const char *path, char *out, struct diag *diag)
{
    char *for_directory = strdup(path), *for_name = strdup(path);
    char *directory = for_directory && for_name ? realpath(dirname(for_directory), NULL) : NULL;
    int error = directory ? 0 : -1;

    if (error)
        diag_set(diag, EXIT_USAGE, "%.200s: %s; name a file in a directory that exists", path, strerror(errno));
    else
        snprintf(out, PATH_MAX, "%s/%s", strcmp(directory, "/") == 0 ? "" : directory, basename(for_name));
    free(directory);
    free(for_directory);
    free(for_name);
    return error;
}

/* Options and exactly one other word; @what says what it is. 1: help was asked for and printed. */
static int one_word(const char *command, const char *what, int argc, char *const argv[], struct client_options *options,
                    struct diag *diag)
{
    if (client_options_parse(command, argc, argv, options, diag))
        return -1;
    if (options->help) {
        help_print(command);
        return 1;
    }
    if (options->nr_words != 1)
        return diag_set(diag, EXIT_USAGE, "%s: name one %s; see `ebb help %s`", command, what, command);
    return 0;
}

/* Takes @body over. */
static int put(const struct client_options *options, const char *path, json_t *body, json_t **out, struct diag *diag)
{
    int error = client_request(options->api_path, "PUT", path, body, out, diag);

    json_decref(body);
    return error;
}

int cmd_swapon(int argc, char *const argv[], struct diag *diag)
{
    struct client_options options;
    struct swap_option swap;
    char path[PATH_MAX];
    json_t *out = NULL;

    if (one_word("swapon", "swap file", argc, argv, &options, diag))
        return diag->text[0] ? -1 : 0;
    if (options_parse_swap(options.words[0], &swap, diag) || absolute_path(swap.path, path, diag))
        return diag->text[0] ? -1 : 0;
    json_t *body = json_pack("{s:s, s:I, s:i, s:b}", "path", path, "size_bytes", (json_int_t)swap.size_bytes,
                             "priority", swap.priority, "discard", swap.discard);
    put(&options, "/memory/swapon", body, &out, diag);
    json_decref(out);
    return diag->text[0] ? -1 : 0;
}

int cmd_swapoff(int argc, char *const argv[], struct diag *diag)
{
    struct client_options options;
    char path[PATH_MAX];
    json_t *out = NULL;

    if (one_word("swapoff", "swap file", argc, argv, &options, diag) || absolute_path(options.words[0], path, diag))
        return diag->text[0] ? -1 : 0;
    put(&options, "/memory/swapoff", json_pack("{s:s}", "path", path), &out, diag);
    json_decref(out);
    return diag->text[0] ? -1 : 0;
}

int cmd_reclaim(int argc, char *const argv[], struct diag *diag)
{
    struct client_options options;
    uint64_t bytes = 0;
    char text[SIZE_TEXT];
    json_t *out = NULL;

    if (one_word("reclaim", "size", argc, argv, &options, diag))
        return diag->text[0] ? -1 : 0;
    if (size_parse(options.words[0], &bytes) || bytes == 0 || bytes > INT64_MAX)
        return diag_set(diag, EXIT_USAGE, "reclaim %.60s: is not a size; write it as 64M", options.words[0]);
    if (put(&options, "/memory/reclaim", json_pack("{s:I}", "bytes", (json_int_t)bytes), &out, diag) == 0)
        printf("%s reclaimed\n",
               size_text(text, (uint64_t)json_integer_value(json_object_get(out, "reclaimed_bytes"))));
    json_decref(out);
    return diag->text[0] ? -1 : 0;
}
