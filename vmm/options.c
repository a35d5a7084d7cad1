/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The words are read by the rows of option_table.h. Rules that join two options are checked at the end, in check_*(),
 * when every value is known.
 */
#include "vmm/options.h"

#include "vmm/option_table.h"
#include "vmm/options_guest_numa.h"
#include "vmm/options_linux.h"
#include "vmm/size.h"
#include "vmm/suggest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A process has 128 TiB of addresses; guests may have half, the arena and all else lives in the rest. */
#define MAX_TOTAL_BYTES (UINT64_C(64) << 40)

#define DEMO_BUDGET_BYTES (UINT64_C(64) << 20)
#define DEMO_ZRAM_BYTES (UINT64_C(32) << 20)
#define DEMO_SWAP_BYTES (UINT64_C(512) << 20)

struct parse {
    struct run_options *out;
    struct diag *diag;
    const char *values[OPTIONS_MAX]; /* by option_at: the last one that was given, "" for none; NULL: not given */
    /* Of the last option that was given of each use, its name, or NULL. */
    const char *linux_only, *driven, *ours;
};

/* Option @index of all, in the order of --help; NULL behind the last. */
static const struct option *option_at(unsigned index)
{
    for (const struct option_group *const *group = option_groups; *group; group++) {
        if (index < (*group)->nr)
            return &(*group)->options[index];
        index -= (*group)->nr;
    }
    return NULL;
}

/* The last value that was given to option @name, "" when it has none; NULL: it was not given. */
static const char *given(const struct parse *p, const char *name)
{
    const struct option *option;

    for (unsigned i = 0; i < OPTIONS_MAX && (option = option_at(i)); i++)
        if (strcmp(option->name, name) == 0)
            return p->values[i];
    return NULL;
}

static int unknown(struct parse *p, const char *word)
{
    const char *names[OPTIONS_MAX + 1] = {NULL};
    const struct option *option;
    char near[SUGGEST_TEXT];

    for (unsigned i = 0; i < OPTIONS_MAX && (option = option_at(i)); i++)
        names[i] = option->name;
    const char *name = suggest_word(word, names);
    snprintf(near, sizeof(near), "%s%s%s", name ? "did you mean --" : "", name ? name : "", name ? "? " : "");
    return diag_set(p->diag, EXIT_USAGE, "run has no option --%.40s; %s`ebb run --help` lists them", word, near);
}

static int read_value(struct parse *p, const struct option *option, const char *value)
{
    if (option->use & USE_LINUX)
        p->linux_only = option->name;
    if (option->use & USE_DRIVER)
        p->driven = option->name;
    if (option->use & USE_DEVICE)
        p->out->devices = true;
    if (option->use & USE_OURS)
        p->ours = option->name;
    return option->read(&(struct option_parse){option, p->out, p->diag}, value);
}

/* Reads argv[*i], and argv[*i + 1] when that is its value. */
static int read_option(struct parse *p, int argc, char *const argv[], int *i)
{
    const char *word = strcmp(argv[*i], "-h") == 0 ? "--help" : argv[*i], *value = NULL;
    const struct option *option;
    char name[64];

    if (strncmp(word, "--", 2) != 0)
        return diag_set(p->diag, EXIT_USAGE, "run: %.80s is not an option; options start with --, see `ebb run --help`",
                        word);
    snprintf(name, sizeof(name), "%.*s", (int)strcspn(word + 2, "="), word + 2);
    const char *equals = strchr(word, '=');
    for (unsigned index = 0; index < OPTIONS_MAX && (option = option_at(index)); index++) {
        if (strcmp(option->name, name) != 0)
            continue;
        bool follows = *i + 1 < argc && (option->value == HAS_VALUE || strncmp(argv[*i + 1], "-", 1) != 0);
        if (option->value != NO_VALUE)
            value = equals ? equals + 1 : follows ? argv[++*i] : NULL;
        else if (equals)
            return diag_set(p->diag, EXIT_USAGE, "--%s takes no value; leave %.40s out", option->name, equals);
        if (option->value == HAS_VALUE && !value)
            return diag_set(p->diag, EXIT_USAGE, "--%s needs a value; `ebb run --help` shows examples", option->name);
        p->values[index] = value ? value : "";
        return read_value(p, option, value);
    }
    return unknown(p, name);
}

uint64_t options_whole_budget(uint64_t memory_bytes, unsigned nr_vms)
{
    uint64_t total = memory_bytes * nr_vms;

    return (total + total / 32 + MM_MIN_BUDGET + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;
}

static int check_backend(const struct parse *p)
{
    const struct run_options *o = p->out;

    if (o->backend != BACKEND_KERNEL)
        return 0;
    if (o->nr_swaps)
        return diag_set(p->diag, EXIT_USAGE,
                        "--swap is Ebb's own; with --backend kernel leave it out and use swapon(8), or --zram");
    if (p->ours)
        return diag_set(p->diag, EXIT_USAGE,
                        "--%s is about memory that Ebb manages; with --backend kernel leave it out", p->ours);
    if (o->transport != TRANSPORT_AUTO)
        return diag_set(p->diag, EXIT_USAGE, "--transport is how Ebb moves pages; with --backend kernel leave it out");
    if (o->numa.has_policy || o->numa.nr_budgets || o->numa.nr_tiers || o->numa.balancing ||
        options_numa_guest(&o->numa))
        return diag_set(p->diag, EXIT_USAGE,
                        "--numa, --node-budget, --tiers, --numa-balancing and host= of --guest-numa are for Ebb's own "
                        "frames; with --backend kernel leave them out and use numactl(8)");
    return 0;
}

static int check_sizes(const struct parse *p)
{
    const struct run_options *o = p->out;
    char a[SIZE_TEXT], b[SIZE_TEXT];

    if (o->memory_bytes + o->linux.hotplug_bytes > MAX_TOTAL_BYTES / o->nr_vms)
        return diag_set(p->diag, EXIT_USAGE, "%u VMs of %s are above what the address space holds, %s; take fewer",
                        o->nr_vms, size_text(a, o->memory_bytes), size_text(b, MAX_TOTAL_BYTES));
    if (o->mm.budget_bytes > OPTIONS_MAX_BUDGET_BYTES)
        return diag_set(p->diag, EXIT_USAGE,
                        "the VMs' memory is more than the largest budget; give --budget, at most %s",
                        size_text(a, OPTIONS_MAX_BUDGET_BYTES));
    if (o->backend == BACKEND_EBB && o->mm.zram.limit_bytes > o->mm.budget_bytes)
        return diag_set(p->diag, EXIT_USAGE, "--zram %s is more than the budget of %s, in which it counts; take less",
                        size_text(a, o->mm.zram.limit_bytes), size_text(b, o->mm.budget_bytes));
    return 0;
}

/* README's demonstration: a quarter of the memory, zram, a swap file that is gone afterwards. */
static void fill_demonstration(struct run_options *o)
{
    const char *dir = getenv("TMPDIR");

    o->demonstration = true;
    o->mm.budget_bytes = DEMO_BUDGET_BYTES;
    if (o->backend == BACKEND_KERNEL) { /* no swap file: zram, which the kernel counts apart, has to hold the rest */
        o->mm.budget_bytes = 2 * DEMO_BUDGET_BYTES;
        o->mm.zram.limit_bytes = 4 * DEMO_ZRAM_BYTES;
        return;
    }
    o->mm.zram.limit_bytes = DEMO_ZRAM_BYTES;
    o->swaps[0] = (struct swap_option){.size_bytes = DEMO_SWAP_BYTES, .priority = -1};
    snprintf(o->swaps[0].path, sizeof(o->swaps[0].path), "%.400s/ebb-demonstration-%ld.swap",
             dir && *dir && !strchr(dir, ',') ? dir : "/var/tmp", (long)getpid());
    o->nr_swaps = 1;
}

/* A workload for any memory: fill 25/32 of it (200M of 256M), use it unevenly, look at every page. */
static void default_workload(uint64_t memory_bytes, char *out, size_t out_bytes)
{
    char size[SIZE_TEXT];
    uint64_t bytes = memory_bytes / 32 * 25 / BLOCK_BYTES * BLOCK_BYTES;

    size_option(size, MAX_OF(bytes, memory_bytes / 4));
    snprintf(out, out_bytes, "fill:%s,pattern=mixed;zipf:%s,ops=200000,write=30;verify", size, size);
}

static int check_linux(const struct parse *p)
{
    const struct run_options *o = p->out;
    char least[SIZE_TEXT];

    if (!o->has_kernel && p->linux_only)
        return diag_set(p->diag, EXIT_USAGE, "--%s is for Linux guests: give --kernel FILE, or leave it out",
                        p->linux_only);
    if (!o->has_kernel && p->driven && !given(p, "workload"))
        return diag_set(p->diag, EXIT_USAGE,
                        "--%s is a device: give --kernel FILE, or a --workload that does something to it (hostile)",
                        p->driven);
    if (!o->has_kernel)
        return options_check_linux(&o->linux, o->nr_vms, p->diag);
    if (given(p, "workload"))
        return diag_set(p->diag, EXIT_USAGE,
                        "--workload is for the embedded guest, --kernel for a Linux guest; take one of them");
    if (given(p, "balloon") && o->linux.balloon.off)
        return diag_set(p->diag, EXIT_USAGE, "--balloon and --no-balloon exclude each other; take one of them");
    if (o->memory_bytes < LINUX_MIN_MEMORY_BYTES)
        return diag_set(p->diag, EXIT_USAGE, "--memory %s: is too small for a Linux guest; the least is 64M",
                        size_option(least, o->memory_bytes));
    if (o->console && o->nr_vms > 1)
        return diag_set(p->diag, EXIT_USAGE, "--console is the console of one VM; with --vms %u leave it out",
                        o->nr_vms);
    return options_check_linux(&o->linux, o->nr_vms, p->diag);
}

static int finish(struct parse *p)
{
    struct run_options *o = p->out;
    char text[128];

    o->has_kernel = given(p, "kernel");
    if (check_linux(p) || options_check_guest_numa(o, p->diag))
        return -1;
    if (!o->has_kernel && !given(p, "budget") && !given(p, "memory") && !given(p, "zram") && !o->nr_swaps &&
        !given(p, "workload") && o->nr_vms == 1)
        fill_demonstration(o);
    else if (!given(p, "budget"))
        o->mm.budget_bytes = options_whole_budget(o->memory_bytes + o->linux.hotplug_bytes, o->nr_vms);
    if (check_backend(p) || check_sizes(p) || options_numa_check(&o->numa, p->diag))
        return -1;
    if (o->has_kernel && !o->linux.cmdline[0])
        return options_set_cmdline(OPTIONS_CMDLINE, &o->linux, p->diag);
    if (o->has_kernel)
        return 0;
    const char *workload = given(p, "workload");
    if (!workload) {
        default_workload(o->memory_bytes, text, sizeof(text));
        workload = text;
        o->default_workload = true;
    }
    return workload_parse(workload, o->memory_bytes, &o->workload, p->diag);
}

int options_parse_run(int argc, char *const argv[], struct run_options *out, struct diag *diag)
{
    struct parse p = {.out = out, .diag = diag};

    memset(out, 0, sizeof(*out));
    out->memory_bytes = UINT64_C(256) << 20;
    out->nr_cpus = 1;
    out->nr_vms = 1;
    out->mm.thp = true;
    out->sample_mpct = ACCESS_QUOTA_DEFAULT_MPCT;
    out->mm.collapse_pct = 1;
    for (int i = 0; i < argc; i++)
        if (read_option(&p, argc, argv, &i))
            return out->want_help ? 0 : -1;
    if (out->want_help || out->want_workload_help)
        return 0;
    return finish(&p);
}
