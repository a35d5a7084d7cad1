/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/ctl.h"

#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int ctl_absolute_path(const char *path, char *out, struct diag *diag)
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

int ctl_one_word(const char *command, const char *what, int argc, char *const argv[], struct client_options *options,
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

int ctl_put(const struct client_options *options, const char *path, json_t *body, json_t **out, struct diag *diag)
{
    int error = client_request(options->api_path, "PUT", path, body, out, diag);

    json_decref(body);
    return error;
}
