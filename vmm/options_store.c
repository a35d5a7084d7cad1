/* SPDX-License-Identifier: Apache-2.0 */
/* Options of `ebb run`: what the VMs get, and where pages go that leave the budget. */
#include "vmm/option_table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/size.h"
#include "vmm/suggest.h"

#define ZRAM_FORM "write --zram SIZE[,algo=lz4|zstd][,level=N]"

static int read_budget(struct option_parse *p, const char *value)
{
    uint64_t bytes = 0;

    if (option_parse_size(p, value, &bytes))
        return -1;
    if (bytes < MM_MIN_BUDGET)
        return option_bad(p, value, "is too small a budget; the least is 8M");
    if (bytes > OPTIONS_MAX_BUDGET_BYTES)
        return option_bad(p, value, "is above what the address space holds; the most is 8T");
    if (bytes % PAGE_BYTES)
        return option_bad(p, value, "must be a multiple of 4K, the page size");
    p->out->mm.budget_bytes = bytes;
    return 0;
}

static int zram_part(struct option_parse *p, const char *part, struct zram_config *zram)
{
    static const char *const algos[] = {"lz4", "zstd", NULL};
    char near[SUGGEST_TEXT];
    long level;

    if (strncmp(part, "algo=", 5) == 0) {
        if (strcmp(part + 5, algos[0]) != 0 && strcmp(part + 5, algos[1]) != 0)
            return diag_set(p->diag, EXIT_USAGE, "--zram %.80s: must be one of lz4, zstd%s", part + 5,
                            suggest_text(near, part + 5, algos));
        zram->algo = strcmp(part + 5, algos[1]) == 0 ? ZRAM_ZSTD : ZRAM_LZ4;
        return 0;
    }
    if (strncmp(part, "level=", 6) == 0) {
        if (option_parse_long(part + 6, &level) || level < 1 || level > 65537)
            return option_bad(p, part, "the level must be 1 to 19 for zstd, 1 to 65537 (acceleration) for lz4");
        zram->level = (int)level;
        return 0;
    }
    return option_bad(p, part, "is not known; " ZRAM_FORM);
}

static int read_zram(struct option_parse *p, const char *text)
{
    struct zram_config *out = &p->out->mm.zram;
    char copy[128], *rest = copy, *part;

    if (snprintf(copy, sizeof(copy), "%s", text) >= (int)sizeof(copy))
        return option_bad(p, text, "is too long; " ZRAM_FORM);
    *out = (struct zram_config){.algo = ZRAM_LZ4};
    if (option_parse_size(p, strsep(&rest, ","), &out->limit_bytes))
        return -1;
    while ((part = strsep(&rest, ",")))
        if (zram_part(p, part, out))
            return -1;
    if (out->algo == ZRAM_ZSTD && out->level > 19)
        return option_bad(p, text, "zstd's level must be 1 to 19");
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
        if (option_parse_long(part + 5, &number) || number < 0 || number > 32767)
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

static int read_swap(struct option_parse *p, const char *value)
{
    struct run_options *out = p->out;
    struct swap_option *swap = &out->swaps[out->nr_swaps];

    if (out->nr_swaps == MAX_SWAP_AREAS)
        return diag_set(p->diag, EXIT_USAGE, "--swap: at most %d swap areas; join some into larger files",
                        MAX_SWAP_AREAS);
    if (options_parse_swap(value, swap, p->diag))
        return -1;
    for (unsigned i = 0; i < out->nr_swaps; i++)
        if (strcmp(out->swaps[i].path, swap->path) == 0)
            return option_bad(p, value, "stands there twice; each area needs a file of its own");
    out->nr_swaps++;
    return 0;
}

static const struct option options[] = {
    {"budget", HAS_VALUE, 0, read_budget,
     .help = "  --budget SIZE       host memory for all guests, zram included, at least 8M. The limit is hard.\n"
             "                      Default: all guest memory and a little more, so that nothing has to leave\n"},
    {"zram", HAS_VALUE, 0, read_zram,
     .help = "  --zram SIZE[,algo=lz4|zstd][,level=N]\n"
             "                      part of the budget that may hold compressed pages; default none\n"},
    {"swap", HAS_VALUE, 0, read_swap,
     .help = "  --swap FILE[,size=SIZE][,prio=N][,discard]\n"
             "                      swap file or block device; may be given several times; default none.\n"
             "                      A FILE that does not exist needs a size, and is gone afterwards\n"},
};

const struct option_group option_group_store = {"What they get", options, ARRAY_LEN(options), NULL};
