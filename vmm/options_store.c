/* SPDX-License-Identifier: Apache-2.0 */
/* Where pages go that leave the budget: --zram and --swap. */
#include "vmm/options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/size.h"
#include "vmm/suggest.h"

#define ZRAM_FORM "write --zram SIZE[,algo=lz4|zstd][,level=N]"

/* A whole decimal number, or -EINVAL. */
static int parse_long(const char *text, long *out)
{
    char *end;

    errno = 0;
    *out = strtol(text, &end, 10);
    return errno || end == text || *end ? -EINVAL : 0;
}

static int bad_zram(struct diag *diag, const char *value, const char *right)
{
    return diag_set(diag, EXIT_USAGE, "--zram %.80s: %s", value, right);
}

static int zram_part(const char *part, struct zram_config *zram, struct diag *diag)
{
    static const char *const algos[] = {"lz4", "zstd", NULL};
    char near[SUGGEST_TEXT];
    long level;

    if (strncmp(part, "algo=", 5) == 0) {
        if (strcmp(part + 5, algos[0]) != 0 && strcmp(part + 5, algos[1]) != 0)
            return diag_set(diag, EXIT_USAGE, "--zram %.80s: must be one of lz4, zstd%s", part + 5,
                            suggest_text(near, part + 5, algos));
        zram->algo = strcmp(part + 5, algos[1]) == 0 ? ZRAM_ZSTD : ZRAM_LZ4;
        return 0;
    }
    if (strncmp(part, "level=", 6) == 0) {
        if (parse_long(part + 6, &level) || level < 1 || level > 65537)
            return bad_zram(diag, part, "the level must be 1 to 19 for zstd, 1 to 65537 (acceleration) for lz4");
        zram->level = (int)level;
        return 0;
    }
    return bad_zram(diag, part, "is not known; " ZRAM_FORM);
}

int options_parse_zram(const char *text, struct zram_config *out, struct diag *diag)
{
    char copy[128], *rest = copy, *part;

    if (snprintf(copy, sizeof(copy), "%s", text) >= (int)sizeof(copy))
        return bad_zram(diag, text, "is too long; " ZRAM_FORM);
    *out = (struct zram_config){.algo = ZRAM_LZ4};
    part = strsep(&rest, ",");
    switch (size_parse(part, &out->limit_bytes)) {
    case 0:
        break;
    case -ERANGE:
        return bad_zram(diag, part, "is more than 64 bits hold; give a smaller size");
    default:
        return bad_zram(diag, part, "is not a size; write a number and K, M, G or T, as in 256M");
    }
    while ((part = strsep(&rest, ",")))
        if (zram_part(part, out, diag))
            return -1;
    if (out->algo == ZRAM_ZSTD && out->level > 19)
        return bad_zram(diag, text, "zstd's level must be 1 to 19");
    return 0;
}

static int swap_part(const char *part, struct swap_option *out, struct diag *diag)
{
    long number;

    if (strncmp(part, "size=", 5) == 0) {
        if (size_parse(part + 5, &out->size_bytes) || out->size_bytes == 0)
            return diag_set(diag, EXIT_USAGE, "swap %.200s: %.40s is not a size; write it as size=512M", out->path,
                            part + 5);
        return 0;
    }
    if (strncmp(part, "prio=", 5) == 0) {
        if (parse_long(part + 5, &number) || number < 0 || number > 32767)
            return diag_set(diag, EXIT_USAGE, "swap %.200s: the priority must be 0 to 32767, higher is used first",
                            out->path);
        out->priority = (int)number;
        return 0;
    }
    if (strcmp(part, "discard") == 0) {
        out->discard = true;
        return 0;
    }
    return diag_set(diag, EXIT_USAGE, "swap %.200s: %.40s is not known; write FILE[,size=SIZE][,prio=N][,discard]",
                    out->path, part);
}

int options_parse_swap(const char *text, struct swap_option *out, struct diag *diag)
{
    char copy[sizeof(out->path) + 64], *rest = copy, *part;

    *out = (struct swap_option){.priority = -1};
    if (snprintf(copy, sizeof(copy), "%s", text) >= (int)sizeof(copy))
        return diag_set(diag, EXIT_USAGE, "swap %.80s...: the path is too long", text);
    part = strsep(&rest, ",");
    if (!*part)
        return diag_set(diag, EXIT_USAGE, "a swap area needs a file; write FILE[,size=SIZE][,prio=N][,discard]");
    if (snprintf(out->path, sizeof(out->path), "%s", part) >= (int)sizeof(out->path))
        return diag_set(diag, EXIT_USAGE, "swap %.80s...: the path is too long", text);
    while ((part = strsep(&rest, ",")))
        if (swap_part(part, out, diag))
            return -1;
    return 0;
}
