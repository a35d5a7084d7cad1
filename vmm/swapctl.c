/* SPDX-License-Identifier: Apache-2.0 */
/* `ebb swapon`, `ebb swapoff`, `ebb reclaim`: what a running ebb can be told to do about its memory. */
#include "vmm/ctl.h"
#include "vmm/options.h"
#include "vmm/size.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int cmd_swapon(int argc, char *const argv[], struct diag *diag)
{
    struct client_options options;
    struct swap_option swap;
    char path[PATH_MAX];
    json_t *out = NULL;

    if (ctl_one_word("swapon", "swap file", argc, argv, &options, diag))
        return diag->text[0] ? -1 : 0;
    if (options_parse_swap(options.words[0], &swap, diag) || ctl_absolute_path(swap.path, path, diag))
        return diag->text[0] ? -1 : 0;
    json_t *body = json_pack("{s:s, s:I, s:i, s:b}", "path", path, "size_bytes", (json_int_t)swap.size_bytes,
                             "priority", swap.priority, "discard", swap.discard);
    ctl_put(&options, "/memory/swapon", body, &out, diag);
    json_decref(out);
    return diag->text[0] ? -1 : 0;
}

int cmd_swapoff(int argc, char *const argv[], struct diag *diag)
{
    struct client_options options;
    char path[PATH_MAX];
    json_t *out = NULL;

    if (ctl_one_word("swapoff", "swap file", argc, argv, &options, diag) ||
        ctl_absolute_path(options.words[0], path, diag))
        return diag->text[0] ? -1 : 0;
    ctl_put(&options, "/memory/swapoff", json_pack("{s:s}", "path", path), &out, diag);
    json_decref(out);
    return diag->text[0] ? -1 : 0;
}

int cmd_reclaim(int argc, char *const argv[], struct diag *diag)
{
    struct client_options options;
    uint64_t bytes = 0;
    char text[SIZE_TEXT];
    json_t *out = NULL;

    if (ctl_one_word("reclaim", "size", argc, argv, &options, diag))
        return diag->text[0] ? -1 : 0;
    if (size_parse(options.words[0], &bytes) || bytes == 0 || bytes > INT64_MAX)
        return diag_set(diag, EXIT_USAGE, "reclaim %.60s: is not a size; write it as 64M", options.words[0]);
    if (ctl_put(&options, "/memory/reclaim", json_pack("{s:I}", "bytes", (json_int_t)bytes), &out, diag) == 0)
        printf("%s reclaimed\n",
               size_text(text, (uint64_t)json_integer_value(json_object_get(out, "reclaimed_bytes"))));
    json_decref(out);
    return diag->text[0] ? -1 : 0;
}
