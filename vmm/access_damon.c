/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DAMON by its sysfs interface (Linux Documentation/admin-guide/mm/damon/usage.rst): one kdamond with one context, whose
 * target is this process and whose regions are the guests' memory. A scheme with the action stat and a pattern that
 * fits everything makes it tell its regions when it is asked.
 */
#include "vmm/access_source.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "vmm/sysfile.h"

/*
 * A region's accesses are counted over half a second, twenty looks at a page of it. The kernel's limits of regions bound
 * what it costs. Chosen, unmeasured.
 */
#define SAMPLE_US 25000u
#define AGGREGATE_US 500000u
#define UPDATE_US 10000000u
#define MIN_REGIONS 64u
#define MAX_REGIONS 2000u
/* A tenth of a second. Chosen, unmeasured. */
#define BUSY_TRIES 50u
#define BUSY_SLEEP_NS 2000000

struct access_damon {
    char root[200];
    bool mine; /* nr_kdamonds was 0 and is 1 now */
    struct access_source source;
    unsigned nr;
    struct access_range ranges[];
};

/* EBUSY is also what the kernel says while another program is at any of these files: it does not wait for its lock. */
static int write_file(const struct access_damon *damon, const char *name, const char *value)
{
    int err = sysfile_write(value, "%s/kdamonds/%s", damon->root, name);

    for (unsigned tries = 0; err == -EBUSY && tries < BUSY_TRIES; tries++) {
        nanosleep(&(struct timespec){.tv_nsec = BUSY_SLEEP_NS}, NULL);
        err = sysfile_write(value, "%s/kdamonds/%s", damon->root, name);
    }
    return err;
}

static int write_number(const struct access_damon *damon, const char *name, uint64_t value)
{
    char text[24];

    snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
    return write_file(damon, name, text);
}

/* ---- what the guests' memory is to it ---- */

static int write_ranges(const struct access_damon *damon)
{
    char name[80];
    int err = write_number(damon, "0/contexts/0/targets/0/regions/nr_regions", damon->nr);

    for (unsigned i = 0; i < damon->nr && !err; i++) {
        snprintf(name, sizeof(name), "0/contexts/0/targets/0/regions/%u/start", i);
        err = write_number(damon, name, damon->ranges[i].start);
        snprintf(name, sizeof(name), "0/contexts/0/targets/0/regions/%u/end", i);
        if (!err)
            err = write_number(damon, name, damon->ranges[i].start + damon->ranges[i].bytes);
    }
    return err;
}

static int set_up(const struct access_damon *damon, const char *operations)
{
    static const struct {
        const char *name;
        uint64_t value;
    } numbers[] = {
        {"0/contexts/0/monitoring_attrs/intervals/sample_us", SAMPLE_US},
        {"0/contexts/0/monitoring_attrs/intervals/aggr_us", AGGREGATE_US},
        {"0/contexts/0/monitoring_attrs/intervals/update_us", UPDATE_US},
        {"0/contexts/0/monitoring_attrs/nr_regions/min", MIN_REGIONS},
        {"0/contexts/0/monitoring_attrs/nr_regions/max", MAX_REGIONS},
        {"0/contexts/0/schemes/nr_schemes", 1},
        {"0/contexts/0/schemes/0/access_pattern/sz/min", 0},
        {"0/contexts/0/schemes/0/access_pattern/sz/max", UINT64_MAX},
        {"0/contexts/0/schemes/0/access_pattern/nr_accesses/min", 0},
        {"0/contexts/0/schemes/0/access_pattern/nr_accesses/max", UINT32_MAX},
        {"0/contexts/0/schemes/0/access_pattern/age/min", 0},
        {"0/contexts/0/schemes/0/access_pattern/age/max", UINT32_MAX},
        {"0/contexts/0/targets/nr_targets", 1},
    };
    int err = write_file(damon, "0/contexts/0/operations", operations);

    for (size_t i = 0; i < ARRAY_LEN(numbers) && !err; i++)
        err = write_number(damon, numbers[i].name, numbers[i].value);
    if (!err)
        err = write_file(damon, "0/contexts/0/schemes/0/action", "stat");
    if (!err)
        err = write_number(damon, "0/contexts/0/targets/0/pid_target", (uint64_t)getpid());
    if (!err)
        err = write_ranges(damon);
    return err ? err : write_file(damon, "0/state", "on");
}

/* ---- what it says ---- */

/* The part of [start, end) that is a guest's, told as pages of it. */
static void tell(const struct access_damon *damon, uint64_t start, uint64_t end, bool touched, access_report_fn *report,
                 void *report_ctx)
{
    for (unsigned i = 0; i < damon->nr; i++) {
        const struct access_range *range = &damon->ranges[i];
        uint64_t from = MAX_OF(start, range->start), to = MIN_OF(end, range->start + range->bytes);
        if (from < to)
            report(report_ctx, range->vm, gfn_of((gpa_t){range->gpa.v + (from - range->start)}),
                   (uint32_t)((to - from) >> PAGE_SHIFT), touched);
    }
}

struct region {
    uint64_t start, end;
    bool touched;
};

struct regions {
    struct region *region; /* heap */
    size_t nr, room;
};

static int add_region(struct regions *regions, struct region region)
{
    if (regions->nr == regions->room) {
        size_t room = MAX_OF(2 * regions->room, (size_t)256);
        struct region *more = realloc(regions->region, room * sizeof(*more));
        if (!more)
            return -ENOMEM;
        regions->region = more;
        regions->room = room;
    }
    regions->region[regions->nr++] = region;
    return 0;
}

static int by_start(const void *a, const void *b)
{
    const struct region *left = a, *right = b;

    return left->start < right->start ? -1 : left->start > right->start;
}

/* In the order of the directory, which is none. */
static int read_regions(const struct access_damon *damon, struct regions *regions)
{
    char path[300];

    snprintf(path, sizeof(path), "%s/kdamonds/0/contexts/0/schemes/0/tried_regions", damon->root);
    DIR *directory = opendir(path);
    if (!directory)
        return -errno;
    int err = 0;
    for (struct dirent *entry; !err && (entry = readdir(directory));) {
        if (entry->d_name[0] < '0' || entry->d_name[0] > '9')
            continue;
        struct region region = {
            .start = sysfile_number("%s/%.20s/start", path, entry->d_name),
            .end = sysfile_number("%s/%.20s/end", path, entry->d_name),
            .touched = sysfile_number("%s/%.20s/nr_accesses", path, entry->d_name) > 0,
        };
        err = add_region(regions, region);
    }
    closedir(directory);
    return err;
}

/*
 * The kernel divides its regions anywhere. What it says the same of is told as one, so that a 2 MiB frame with a
 * boundary in it is of one region as a whole.
 */
static void tell_regions(const struct access_damon *damon, struct regions *regions, access_report_fn *report,
                         void *report_ctx)
{
    struct region *region = regions->region;

    if (regions->nr)
        qsort(region, regions->nr, sizeof(*region), by_start);
    for (size_t i = 0, next; i < regions->nr; i = next) {
        uint64_t end = region[i].end;
        for (next = i + 1; next < regions->nr && region[next].start == end && region[next].touched == region[i].touched;
             next++)
            end = region[next].end;
        tell(damon, region[i].start, end, region[i].touched, report, report_ctx);
    }
}

/* The kernel answers when the half second is over that it counts over. */
static int poll_regions(void *ctx, access_report_fn *report, void *report_ctx)
{
    const struct access_damon *damon = ctx;
    struct regions regions = {0};
    int err = write_file(damon, "0/state", "update_schemes_tried_regions");

    if (!err)
        err = read_regions(damon, &regions);
    if (!err)
        tell_regions(damon, &regions, report, report_ctx);
    free(regions.region);
    return err ? err : write_file(damon, "0/state", "clear_schemes_tried_regions");
}

/* ---- whether it is there ---- */

/* One kdamond, as Ebb makes it, and it does not run. */
static bool left_behind(const struct access_damon *damon)
{
    char nr[16], state[16];

    return !damon->mine && sysfile_read(nr, sizeof(nr), "%s/kdamonds/nr_kdamonds", damon->root) == 0 &&
           strcmp(nr, "1") == 0 && sysfile_read(state, sizeof(state), "%s/kdamonds/0/state", damon->root) == 0 &&
           strcmp(state, "off") == 0;
}

static int in_use(const struct access_damon *damon, struct diag *diag)
{
    if (left_behind(damon))
        return diag_set(diag, EXIT_HOST,
                        "DAMON is taken but does not run, as after a run that was killed; free it (echo 0 "
                        ">%s/kdamonds/nr_kdamonds), or run with --access refault",
                        damon->root);
    return diag_set(
        diag, EXIT_HOST,
        "DAMON is in use by another program (nr_kdamonds is not 0); end that one, or run with --access refault");
}

/* Of the operations that the kernel has, the one to use; NULL: neither. */
static const char *choose_operations(const char *available)
{
    /* "fvaddr" holds "vaddr": look for whole words */
    static const char *const wanted[] = {"fvaddr", "vaddr"};

    for (size_t i = 0; i < ARRAY_LEN(wanted); i++)
        for (const char *at = available; *at; at += strspn(at, " \n")) {
            size_t len = strcspn(at, " \n");
            if (len == strlen(wanted[i]) && strncmp(at, wanted[i], len) == 0)
                return wanted[i];
            at += len;
        }
    return NULL;
}

static int open_damon(struct access_damon *damon, struct diag *diag)
{
    char available[128], number[16];

    if (sysfile_read(number, sizeof(number), "%s/kdamonds/nr_kdamonds", damon->root))
        return diag_set(diag, EXIT_HOST,
                        "this kernel has no DAMON (CONFIG_DAMON_SYSFS), or does not let this user at it; run with "
                        "--access refault");
    bool busy = strcmp(number, "0") != 0;
    int err = 0;
    if (!busy) {
        err = write_number(damon, "nr_kdamonds", 1);
        damon->mine = !err;
        if (!err)
            err = write_number(damon, "0/contexts/nr_contexts", 1);
        if (err)
            return diag_host(diag, -err, "DAMON cannot be set up");
    }
    err = sysfile_read(available, sizeof(available), "%s/kdamonds/0/contexts/0/avail_operations", damon->root);
    const char *operations = err ? NULL : choose_operations(available);
    if (!err && !operations)
        return diag_set(diag, EXIT_HOST,
                        "this kernel's DAMON cannot watch a process (it has: %.40s; CONFIG_DAMON_VADDR); run with "
                        "--access refault",
                        available);
    if (busy)
        return in_use(damon, diag);
    if (!err)
        err = set_up(damon, operations);
    if (err == -EBUSY)
        return in_use(damon, diag);
    return err ? diag_host(diag, -err, "DAMON cannot be set up") : 0;
}

static int range_by_start(const void *a, const void *b)
{
    const struct access_range *left = a, *right = b;

    return left->start < right->start ? -1 : left->start > right->start;
}

int access_damon_open(const char *root, const struct access_range *ranges, unsigned nr, struct access_damon **out,
                      struct diag *diag)
{
    struct access_damon *damon = calloc(1, sizeof(*damon) + nr * sizeof(*ranges));

    if (!damon)
        return diag_set(diag, EXIT_HOST, "out of memory");
    snprintf(damon->root, sizeof(damon->root), "%s", root);
    damon->nr = nr;
    memcpy(damon->ranges, ranges, nr * sizeof(*ranges));
    /* the kernel takes a target's regions in this order only (damon_sysfs_set_regions) */
    qsort(damon->ranges, nr, sizeof(*ranges), range_by_start);
    damon->source =
        (struct access_source){.name = "damon", .period_ms = AGGREGATE_US / 1000, .poll = poll_regions, .ctx = damon};
    if (open_damon(damon, diag)) {
        access_damon_close(damon);
        return -1;
    }
    *out = damon;
    return 0;
}

void access_damon_close(struct access_damon *damon)
{
    if (damon->mine) {
        /* "off" is refused when it never ran or has ended, the other one while it runs: then it ends with this process */
        (void)write_file(damon, "0/state", "off");
        (void)write_number(damon, "nr_kdamonds", 0);
    }
    free(damon);
}

const struct access_source *access_damon_source(const struct access_damon *damon)
{
    return &damon->source;
}
