/* SPDX-License-Identifier: Apache-2.0 */
/* `ebb sysctl`: settings of a running ebb. */
#include "vmm/ctl.h"
#include "vmm/sysctl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Splits "NAME=VALUE" in place of @word's copy @name. *written: there was a value. */
static int parse(const char *word, char *name, size_t name_bytes, int64_t *value, bool *written, struct diag *diag)
{
    const char *equals = strchr(word, '=');
    size_t len = equals ? (size_t)(equals - word) : strlen(word);
    char *end;

    *written = equals != NULL;
    if (len >= name_bytes)
        return diag_set(diag, EXIT_USAGE, "sysctl: there is no %.60s; `ebb sysctl` lists them", word);
    memcpy(name, word, len);
    name[len] = '\0';
    if (!equals)
        return sysctl_check(name, NULL, diag);
    errno = 0;
    *value = strtoll(equals + 1, &end, 10);
    if (end == equals + 1 || *end || errno)
        return diag_set(diag, EXIT_USAGE, "sysctl %.60s: %.40s is not a whole number", name, equals + 1);
    return sysctl_check(name, value, diag);
}

static void print(const json_t *answer)
{
    const char *name;
    json_t *value;

    json_object_foreach((json_t *)(uintptr_t)answer, name, value) if (strncmp(name, "vm.", 3) == 0)
        printf("%s = %lld\n", name, (long long)json_integer_value(value));
    value = json_object_get(answer, "compacted_blocks");
    if (value)
        printf("%lld block%s of 2 MiB became free in one piece\n", (long long)json_integer_value(value),
               json_integer_value(value) == 1 ? "" : "s");
}

int cmd_sysctl(int argc, char *const argv[], struct diag *diag)
{
    struct client_options options;
    json_t *body, *answer = NULL;
    char name[64];
    int64_t value = 0;
    bool written = false;

    if (client_options_parse("sysctl", argc, argv, &options, diag))
        return -1;
    if (options.help)
        return help_print("sysctl");
    if (options.nr_words > 1)
        return diag_set(diag, EXIT_USAGE, "sysctl: one setting at a time; see `ebb help sysctl`");
    if (options.nr_words && parse(options.words[0], name, sizeof(name), &value, &written, diag))
        return -1;
    body = options.nr_words ? json_pack("{s:s}", "name", name) : json_object();
    if (written)
        json_object_set_new(body, "value", json_integer(value));
    if (ctl_put(&options, "/memory/sysctl", body, &answer, diag) == 0) {
        if (options.json) {
            json_dumpf(answer, stdout, JSON_INDENT(2));
            putchar('\n');
        } else {
            print(answer);
        }
    }
    json_decref(answer);
    return diag->text[0] ? -1 : 0;
}
