/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One table names every option with the function that reads its value. Rules that join two options are checked at the
 * end, in check_*(), when every value is known.
 */
#include "vmm/options.h"

#include "vmm/options_guest_numa.h"
#include "vmm/options_linux.h"
#include "vmm/size.h"
#include "vmm/suggest.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A process has 128 TiB of addresses; guests may have half, the arena and all else lives in the rest. */
#define MAX_TOTAL_BYTES (UINT64_C(64) << 40)
/* 32-bit frame numbers, and an arena with more slots than the budget has pages. */
#define MAX_BUDGET_BYTES (UINT64_C(8) << 40)

#define DEMO_BUDGET_BYTES (UINT64_C(64) << 20)
#define DEMO_ZRAM_BYTES (UINT64_C(32) << 20)
#define DEMO_SWAP_BYTES (UINT64_C(512) << 20)

struct parse {
    struct run_options *out;
    struct diag *diag;
    const char *name; /* the option being read */
    bool has_memory, has_budget, has_zram, has_workload;
    const char *workload_text;
    const char *linux_only; /* an option that needs --kernel, if there was one */
    const char *ours;       /* an option about memory that Ebb manages, if there was one */
    const char *device;     /* an option for a device, if there was one: needs --kernel or --workload */
    bool has_balloon;
};

static int bad(struct parse *p, const char *value, const char *right)
{
    return diag_set(p->diag, EXIT_USAGE, "--%s %.80s: %s", p->name, value, right);
}

static int parse_size(struct parse *p, const char *value, uint64_t *out)
{
    switch (size_parse(value, out)) {
    case 0:
        return 0;
    case -ERANGE:
        return bad(p, value, "is more than 64 bits hold; give a smaller size");
    default:
        return bad(p, value, "is not a size; write a number and K, M, G or T, as in 256M");
    }
}

/* A whole decimal number, or -EINVAL. */
static int parse_long(const char *text, long *out)
{
    char *end;

    errno = 0;
    *out = strtol(text, &end, 10);
    return errno || end == text || *end ? -EINVAL : 0;
}

static int parse_count(struct parse *p, const char *value, unsigned max, unsigned *out)
{
    long count;

    if (parse_long(value, &count) || count < 1 || count > (long)max)
        return diag_set(p->diag, EXIT_USAGE, "--%s %.80s: must be a whole number from 1 to %u", p->name, value, max);
    *out = (unsigned)count;
    return 0;
}

static int parse_pages(struct parse *p, const char *value, uint32_t *out)
{
    unsigned pages;

    if (parse_count(p, value, 64, &pages))
        return -1;
    if (pages & (pages - 1))
        return bad(p, value, "must be a power of two from 1 to 64 (pages)");
    *out = pages;
    return 0;
}

/* Index of @value in @words, or -1 with diag. */
static int parse_word(struct parse *p, const char *value, const char *const words[])
{
    char list[80] = "", near[SUGGEST_TEXT];

    for (int i = 0; words[i]; i++) {
        if (strcmp(value, words[i]) == 0)
            return i;
        size_t used = strlen(list);
        snprintf(list + used, sizeof(list) - used, "%s%s", i ? ", " : "", words[i]);
    }
    return diag_set(p->diag, EXIT_USAGE, "--%s %.80s: must be one of %s%s", p->name, value, list,
                    suggest_text(near, value, words));
}

static int opt_memory(struct parse *p, const char *value)
{
    char below[SIZE_TEXT];
    uint64_t bytes = 0;

    if (parse_size(p, value, &bytes))
        return -1;
    if (bytes == 0)
        return bad(p, value, "a VM needs memory; the default is 256M");
    if (bytes < EBB_MIN_MEMORY_BYTES)
        return diag_set(p->diag, EXIT_USAGE, "--memory %.80s: is too small for the guest; the least is %s", value,
                        size_text(below, EBB_MIN_MEMORY_BYTES));
    if (bytes > EBB_MAX_MEMORY_BYTES)
        return diag_set(p->diag, EXIT_USAGE, "--memory %.80s: is above what the guest's address space holds, %s", value,
                        size_text(below, EBB_MAX_MEMORY_BYTES));
    if (bytes % BLOCK_BYTES)
        return diag_set(p->diag, EXIT_USAGE, "--memory %.80s: must be a multiple of 2M; the next one is %s", value,
                        size_option(below, (bytes / BLOCK_BYTES + 1) * BLOCK_BYTES));
    p->out->memory_bytes = bytes;
    p->has_memory = true;
    return 0;
}

static int opt_budget(struct parse *p, const char *value)
{
    uint64_t bytes = 0;

    if (parse_size(p, value, &bytes))
        return -1;
    if (bytes < MM_MIN_BUDGET)
        return bad(p, value, "is too small a budget; the least is 8M");
    if (bytes > MAX_BUDGET_BYTES)
        return bad(p, value, "is above what the address space holds; the most is 8T");
    if (bytes % PAGE_BYTES)
        return bad(p, value, "must be a multiple of 4K, the page size");
    p->out->mm.budget_bytes = bytes;
    p->has_budget = true;
    return 0;
}

static int opt_cpus(struct parse *p, const char *value)
{
    return parse_count(p, value, OPTIONS_MAX_CPUS, &p->out->nr_cpus);
}

static int opt_guest_numa(struct parse *p, const char *value)
{
    return options_parse_guest_numa(value, &p->out->guest_numa, p->diag);
}

static int opt_guest_distance(struct parse *p, const char *value)
{
    return options_parse_guest_distance(value, &p->out->guest_numa, p->diag);
}

static int opt_vms(struct parse *p, const char *value)
{
    return parse_count(p, value, OPTIONS_MAX_VMS, &p->out->nr_vms);
}

static int opt_zram(struct parse *p, const char *value)
{
    p->has_zram = true;
    return options_parse_zram(value, &p->out->mm.zram, p->diag);
}

static int opt_swap(struct parse *p, const char *value)
{
    if (p->out->nr_swaps == MAX_SWAP_AREAS)
        return diag_set(p->diag, EXIT_USAGE, "--swap: at most %d swap areas; join some into larger files",
                        MAX_SWAP_AREAS);
    struct swap_option *swap = &p->out->swaps[p->out->nr_swaps];
    if (options_parse_swap(value, swap, p->diag))
        return -1;
    for (unsigned i = 0; i < p->out->nr_swaps; i++)
        if (strcmp(p->out->swaps[i].path, swap->path) == 0)
            return bad(p, value, "stands there twice; each area needs a file of its own");
    p->out->nr_swaps++;
    return 0;
}

static int opt_workload(struct parse *p, const char *value)
{
    p->workload_text = value;
    p->has_workload = true;
    if (strcmp(value, "help") == 0)
        p->out->want_workload_help = true;
    return 0;
}

static int opt_transport(struct parse *p, const char *value)
{
    static const char *const words[] = {"auto", "move", "copy", NULL};
    int word = parse_word(p, value, words);

    if (word < 0)
        return -1;
    p->out->transport = (enum transport)word;
    return 0;
}

static int opt_backend(struct parse *p, const char *value)
{
    static const char *const words[] = {"ebb", "kernel", NULL};
    int word = parse_word(p, value, words);

    if (word < 0)
        return -1;
    p->out->backend = (enum backend)word;
    return 0;
}

static int opt_pin(struct parse *p, const char *value)
{
    static const char *const words[] = {"auto", "none", NULL};
    int word = parse_word(p, value, words);

    if (word < 0)
        return -1;
    p->out->pin = (enum pin)word;
    return 0;
}

static int opt_access(struct parse *p, const char *value)
{
    static const char *const words[] = {"refault", "damon", "page_idle", "auto", NULL};
    int word = parse_word(p, value, words);

    if (word < 0)
        return -1;
    p->ours = p->name;
    p->out->access = (enum access_mode)word;
    return 0;
}

static int opt_sample(struct parse *p, const char *value)
{
    char *end;
    double pct = strtod(value, &end);

    if (end == value || *end || !(pct >= 0 && pct <= 100) || strspn(value, "0123456789.") != strlen(value))
        return bad(p, value, "must be a percentage of one CPU, 0 to 100, as in 0.5; 0: no samples");
    p->ours = p->name;
    p->out->sample_mpct = (uint32_t)(pct * 1000 + 0.5);
    return 0;
}

static int opt_api(struct parse *p, const char *value)
{
    if (!*value)
        return bad(p, value, "needs the path of a socket, or none");
    p->out->api_path = value;
    return 0;
}

static int opt_json(struct parse *p, const char *value)
{
    if (!*value)
        return bad(p, value, "needs a file name, or - for standard output");
    p->out->json_path = value;
    return 0;
}

static int opt_readahead(struct parse *p, const char *value)
{
    return parse_pages(p, value, &p->out->mm.readahead_pages);
}

static int opt_fault_around(struct parse *p, const char *value)
{
    return parse_pages(p, value, &p->out->mm.fault_around_pages);
}

static int opt_thp_collapse(struct parse *p, const char *value)
{
    long pct;

    if (parse_long(value, &pct) || pct < 0 || pct > 100)
        return bad(p, value, "must be a whole number from 0 (never) to 100 (percent of one CPU)");
    p->ours = p->name;
    p->out->mm.collapse_pct = (uint32_t)pct;
    return 0;
}

static int opt_no_thp(struct parse *p, const char *value)
{
    (void)value;
    p->out->mm.thp = false;
    return 0;
}

static int opt_kernel(struct parse *p, const char *value)
{
    p->out->has_kernel = true;
    return options_parse_kernel(value, &p->out->linux, p->diag);
}

static int opt_initrd(struct parse *p, const char *value)
{
    p->linux_only = p->name;
    return options_parse_initrd(value, &p->out->linux, p->diag);
}

static int opt_cmdline(struct parse *p, const char *value)
{
    p->linux_only = p->name;
    return options_parse_cmdline(value, &p->out->linux, p->diag);
}

static int opt_disk(struct parse *p, const char *value)
{
    p->device = p->name;
    p->out->devices = true;
    return options_parse_disk(value, &p->out->linux, p->diag);
}

static int opt_net(struct parse *p, const char *value)
{
    p->device = p->name;
    p->out->devices = true;
    return options_parse_net(value, &p->out->linux, p->diag);
}

static int opt_console_port(struct parse *p, const char *value)
{
    p->device = p->name;
    p->out->devices = true;
    return options_parse_port(value, &p->out->linux, p->diag);
}

static int opt_vsock(struct parse *p, const char *value)
{
    p->device = p->name;
    p->out->devices = true;
    return options_parse_vsock(value, &p->out->linux, p->diag);
}

static int opt_hotplug(struct parse *p, const char *value)
{
    p->device = p->name;
    p->out->devices = true;
    return options_parse_hotplug(value, &p->out->linux, p->diag);
}

static int opt_console(struct parse *p, const char *value)
{
    (void)value;
    p->linux_only = p->name;
    p->out->console = true;
    return 0;
}

static int opt_balloon(struct parse *p, const char *value)
{
    p->has_balloon = true;
    p->out->devices = true;
    return options_parse_balloon(value, &p->out->linux, p->diag);
}

static int opt_no_balloon(struct parse *p, const char *value)
{
    (void)value;
    p->linux_only = p->name;
    p->out->linux.balloon.off = true;
    return 0;
}

static int opt_numa(struct parse *p, const char *value)
{
    return options_numa_read(p->name, value, &p->out->numa, p->diag);
}

static int opt_quiet(struct parse *p, const char *value)
{
    (void)value;
    p->out->quiet = true;
    return 0;
}

static int opt_help(struct parse *p, const char *value)
{
    (void)value;
    p->out->want_help = true;
    return 0;
}

enum value { NO_VALUE, HAS_VALUE, MAY_HAVE_VALUE };

struct option_row {
    const char *name;
    enum value value;
    int (*read)(struct parse *p, const char *value);
};

static const struct option_row rows[] = {
    {"memory", HAS_VALUE, opt_memory},
    {"cpus", HAS_VALUE, opt_cpus},
    {"guest-numa", HAS_VALUE, opt_guest_numa},
    {"guest-distance", HAS_VALUE, opt_guest_distance},
    {"vms", HAS_VALUE, opt_vms},
    {"budget", HAS_VALUE, opt_budget},
    {"zram", HAS_VALUE, opt_zram},
    {"swap", HAS_VALUE, opt_swap},
    {"workload", HAS_VALUE, opt_workload},
    {"transport", HAS_VALUE, opt_transport},
    {"backend", HAS_VALUE, opt_backend},
    {"api", HAS_VALUE, opt_api},
    {"json", HAS_VALUE, opt_json},
    {"no-thp", NO_VALUE, opt_no_thp},
    {"thp-collapse", HAS_VALUE, opt_thp_collapse},
    {"readahead", HAS_VALUE, opt_readahead},
    {"fault-around", HAS_VALUE, opt_fault_around},
    {"pin", HAS_VALUE, opt_pin},
    {"access", HAS_VALUE, opt_access},
    {"sample", HAS_VALUE, opt_sample},
    {"kernel", HAS_VALUE, opt_kernel},
    {"initrd", HAS_VALUE, opt_initrd},
    {"cmdline", HAS_VALUE, opt_cmdline},
    {"disk", HAS_VALUE, opt_disk},
    {"net", HAS_VALUE, opt_net},
    {"console", NO_VALUE, opt_console},
    {"console-port", HAS_VALUE, opt_console_port},
    {"vsock", HAS_VALUE, opt_vsock},
    {"balloon", MAY_HAVE_VALUE, opt_balloon},
    {"no-balloon", NO_VALUE, opt_no_balloon},
    {"hotplug-memory", HAS_VALUE, opt_hotplug},
    {"numa", HAS_VALUE, opt_numa},
    {"node-budget", HAS_VALUE, opt_numa},
    {"tiers", HAS_VALUE, opt_numa},
    {"demote-rate", HAS_VALUE, opt_numa},
    {"promote-rate", HAS_VALUE, opt_numa},
    {"numa-balancing", HAS_VALUE, opt_numa},
    {"quiet", NO_VALUE, opt_quiet},
    {"help", NO_VALUE, opt_help},
};

static int unknown(struct parse *p, const char *word)
{
    const char *names[ARRAY_LEN(rows) + 1] = {NULL};
    char near[SUGGEST_TEXT];

    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        names[i] = rows[i].name;
    const char *name = suggest_word(word, names);
    snprintf(near, sizeof(near), "%s%s%s", name ? "did you mean --" : "", name ? name : "", name ? "? " : "");
    return diag_set(p->diag, EXIT_USAGE, "run has no option --%.40s; %s`ebb run --help` lists them", word, near);
}

/* Reads argv[*i], and argv[*i + 1] when that is its value. */
static int read_option(struct parse *p, int argc, char *const argv[], int *i)
{
    const char *word = argv[*i], *value = NULL;
    char name[64];

    if (strcmp(word, "-h") == 0)
        return opt_help(p, NULL);
    if (strncmp(word, "--", 2) != 0)
        return diag_set(p->diag, EXIT_USAGE, "run: %.80s is not an option; options start with --, see `ebb run --help`",
                        word);
    snprintf(name, sizeof(name), "%.*s", (int)strcspn(word + 2, "="), word + 2);
    const char *equals = strchr(word, '=');
    for (size_t r = 0; r < ARRAY_LEN(rows); r++) {
        if (strcmp(rows[r].name, name) != 0)
            continue;
        p->name = rows[r].name;
        bool follows = *i + 1 < argc && (rows[r].value == HAS_VALUE || strncmp(argv[*i + 1], "-", 1) != 0);
        if (rows[r].value != NO_VALUE)
            value = equals ? equals + 1 : follows ? argv[++*i] : NULL;
        else if (equals)
            return diag_set(p->diag, EXIT_USAGE, "--%s takes no value; leave %.40s out", p->name, equals);
        if (rows[r].value == HAS_VALUE && !value)
            return diag_set(p->diag, EXIT_USAGE, "--%s needs a value; `ebb run --help` shows examples", p->name);
        return rows[r].read(p, value);
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
    if (o->mm.budget_bytes > MAX_BUDGET_BYTES)
        return diag_set(p->diag, EXIT_USAGE,
                        "the VMs' memory is more than the largest budget; give --budget, at most %s",
                        size_text(a, MAX_BUDGET_BYTES));
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
    if (!o->has_kernel && p->device && !p->has_workload)
        return diag_set(p->diag, EXIT_USAGE,
                        "--%s is a device: give --kernel FILE, or a --workload that does something to it (hostile)",
                        p->device);
    if (!o->has_kernel)
        return options_check_linux(&o->linux, o->nr_vms, p->diag);
    if (p->has_workload)
        return diag_set(p->diag, EXIT_USAGE,
                        "--workload is for the embedded guest, --kernel for a Linux guest; take one of them");
    if (p->has_balloon && o->linux.balloon.off)
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

    if (check_linux(p) || options_check_guest_numa(o, p->diag))
        return -1;
    if (!o->has_kernel && !p->has_budget && !p->has_memory && !p->has_zram && !o->nr_swaps && !p->has_workload &&
        o->nr_vms == 1)
        fill_demonstration(o);
    else if (!p->has_budget)
        o->mm.budget_bytes = options_whole_budget(o->memory_bytes + o->linux.hotplug_bytes, o->nr_vms);
    if (check_backend(p) || check_sizes(p) || options_numa_check(&o->numa, p->diag))
        return -1;
    if (o->has_kernel && !o->linux.cmdline[0])
        return options_parse_cmdline(OPTIONS_CMDLINE, &o->linux, p->diag);
    if (o->has_kernel)
        return 0;
    if (!p->has_workload) {
        default_workload(o->memory_bytes, text, sizeof(text));
        p->workload_text = text;
        o->default_workload = true;
    }
    return workload_parse(p->workload_text, o->memory_bytes, &o->workload, p->diag);
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
