/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/option_table.h"

#include "vmm/size.h"
#include "vmm/suggest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct option_group *const option_groups[] = {
    &option_group_vm,
    &option_group_linux,
    &option_group_store,
    &option_group_numa,
    &option_group_how,
    &option_group_output,
    NULL,
};

void options_print_help(FILE *out)
{
    for (const struct option_group *const *group = option_groups; *group; group++) {
        fprintf(out, "%s\n", (*group)->head);
        for (unsigned i = 0; i < (*group)->nr; i++)
            if ((*group)->options[i].help)
                fputs((*group)->options[i].help, out);
        if ((*group)->foot)
            fputs((*group)->foot, out);
        fputc('\n', out);
    }
    fputs(
        "Sizes take K M G T, powers of 1024. Ctrl-C stops the VMs and prints the closing table.\n"
        "Exit codes: 0 done, powered off, rebooted or stopped; 1 a guest or a check failed; 2 wrong usage; 3 the host "
        "lacks something.\n",
        out);
}

int option_bad(struct option_parse *p, const char *value, const char *right)
{
    return diag_set(p->diag, EXIT_USAGE, "--%s %.80s: %s", p->option->name, value, right);
}

int option_parse_size(struct option_parse *p, const char *value, uint64_t *out)
{
    switch (size_parse(value, out)) {
    case 0:
        return 0;
    case -ERANGE:
        return option_bad(p, value, "is more than 64 bits hold; give a smaller size");
    default:
        return option_bad(p, value, "is not a size; write a number and K, M, G or T, as in 256M");
    }
}

int option_parse_long(const char *text, long *out)
{
    char *end;

    errno = 0;
    *out = strtol(text, &end, 10);
    return errno || end == text || *end ? -EINVAL : 0;
}

void *option_target(const struct option_parse *p)
{
    return (char *)p->out + p->option->at;
}

int option_set(struct option_parse *p, const char *value)
{
    (void)value;
    *(bool *)option_target(p) = true;
    return 0;
}

int option_clear(struct option_parse *p, const char *value)
{
    (void)value;
    *(bool *)option_target(p) = false;
    return 0;
}

static int parse_count(struct option_parse *p, const char *value, unsigned most, unsigned *out)
{
    long count;

    if (option_parse_long(value, &count) || count < 1 || count > (long)most)
        return diag_set(p->diag, EXIT_USAGE, "--%s %.80s: must be a whole number from 1 to %u", p->option->name, value,
                        most);
    *out = (unsigned)count;
    return 0;
}

int option_read_count(struct option_parse *p, const char *value)
{
    return parse_count(p, value, p->option->most, option_target(p));
}

int option_read_pages(struct option_parse *p, const char *value)
{
    uint32_t *out = option_target(p);
    unsigned pages = 0;

    if (parse_count(p, value, 64, &pages))
        return -1;
    if (pages & (pages - 1))
        return option_bad(p, value, "must be a power of two from 1 to 64 (pages)");
    *out = pages;
    return 0;
}

int option_read_word(struct option_parse *p, const char *value)
{
    const char *const *words = p->option->words;
    char list[80] = "", near[SUGGEST_TEXT];
    unsigned *out = option_target(p);

    for (unsigned i = 0; words[i]; i++) {
        if (strcmp(value, words[i]) == 0) {
            *out = i;
            return 0;
        }
        size_t used = strlen(list);
        snprintf(list + used, sizeof(list) - used, "%s%s", i ? ", " : "", words[i]);
    }
    return diag_set(p->diag, EXIT_USAGE, "--%s %.80s: must be one of %s%s", p->option->name, value, list,
                    suggest_text(near, value, words));
}

int option_read_text(struct option_parse *p, const char *value)
{
    const char **out = option_target(p);

    if (!*value)
        return option_bad(p, value, p->option->need);
    *out = value;
    return 0;
}
