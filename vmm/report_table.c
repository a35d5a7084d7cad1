/* SPDX-License-Identifier: Apache-2.0 */
/* The closing table: for somebody who sees Ebb for the first time. Words before figures, a unit at each. */
#include "vmm/report.h"

#include "vmm/size.h"
#include "vmm/table.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define MAX_ROWS 8 /* VMs and steps that get a line of their own; --json has all */

/* All VMs together; places without those that gave their memory back before the end. */
struct totals {
    unsigned nr_gone;
    uint64_t memory_bytes, pages_verified, pages_bad, resident_bytes;
    struct mm_vm_stat stat;
    struct hist minor, major;
};

static void sum_up(const struct report *report, struct totals *t)
{
    for (unsigned i = 0; i < report->nr_vms; i++) {
        const struct report_vm *vm = &report->vms[i];
        t->pages_verified += vm->result.pages_verified;
        t->pages_bad += vm->result.pages_bad;
        hist_merge(&t->minor, &vm->minor);
        hist_merge(&t->major, &vm->major);
        t->nr_gone += vm->gone;
        if (vm->gone)
            continue;
        t->memory_bytes += vm->memory_bytes;
        t->resident_bytes += vm->resident_bytes;
        t->stat.resident_bytes += vm->stat.resident_bytes;
        t->stat.standby_bytes += vm->stat.standby_bytes;
        t->stat.zram_bytes += vm->stat.zram_bytes;
        t->stat.swap_bytes += vm->stat.swap_bytes;
        t->stat.untouched_bytes += vm->stat.untouched_bytes;
        t->stat.balloon_bytes += vm->stat.balloon_bytes;
        t->stat.poisoned_bytes += vm->stat.poisoned_bytes;
    }
}

static int print(struct table *table, FILE *out)
{
    int error = table_print(table, 2, out);

    table_fini(table);
    return error;
}

/* How Linux guests ended; of one alone, when. */
static void print_linux_verdict(const struct report *report, FILE *out)
{
    const struct machine_result *result = &report->vms[0].result;
    char run[SIZE_TEXT], boot[SIZE_TEXT];

    fprintf(out, "\nResult: %s\n", report_result(report));
    if (report->nr_vms > 1)
        return;
    fprintf(out, "  %s after %s",
            result->ending == ENDING_POWEROFF ? "the guest powered off"
            : result->ending == ENDING_REBOOT ? "the guest rebooted"
            : result->ending == ENDING_PANIC  ? "the guest's kernel panicked"
            : report->stopped                 ? "stopped"
                                              : "ended",
            time_text(run, result->run_ns));
    if (result->boot_ns)
        fprintf(out, "; its init began after %s", time_text(boot, result->boot_ns));
    fputc('\n', out);
}

static void print_verdict(const struct report *report, const struct totals *t, FILE *out)
{
    char verified[SIZE_TEXT], bad[SIZE_TEXT];

    if (report->options->has_kernel) {
        print_linux_verdict(report, out);
        return;
    }
    count_text(verified, t->pages_verified);
    count_text(bad, t->pages_bad);
    fprintf(out, "\nResult: %s\n", report_result(report));
    fprintf(out, "  %s pages verified, %s bad%s\n", verified, t->pages_bad ? bad : "none",
            report->stopped ? "; stopped before the end" : "");
}

/* --- where the memory is ------------------------------------------------------------------------------- */

static void place(struct table *table, const char *label, uint64_t bytes, uint64_t all, const char *remark)
{
    table_cell(table, "%s", label);
    table_size(table, bytes);
    table_cell(table, "%.0f%%", all ? 100.0 * (double)bytes / (double)all : 0.0);
    table_cell(table, "%s", remark);
}

static int print_places(const struct report *report, const struct totals *t, FILE *out)
{
    char remark[96], used[SIZE_TEXT];
    struct table table;

    fprintf(out, "Where %s memory is%s\n", report->nr_vms == 1 ? "the guest's" : "the guests'",
            t->nr_gone ? " (without those that gave it back before the end)" : "");
    table_init(&table, "lrrl");
    place(&table, report->nr_vms == 1 ? "the guest believes it has" : "the guests believe they have", t->memory_bytes,
          t->memory_bytes, "");
    if (!report->has_mm) {
        place(&table, "the host gave it (resident)", t->resident_bytes, t->memory_bytes,
              "the rest is swapped or never touched: the kernel does not tell which");
        return print(&table, out);
    }
    place(&table, "the host gave it (resident)", t->stat.resident_bytes, t->memory_bytes, "in use by the guest now");
    place(&table, "standby", t->stat.standby_bytes, t->memory_bytes, "taken back, content still at hand");
    snprintf(remark, sizeof(remark), "no compressed store; --zram SIZE makes one");
    if (report->zram_algo && report->zram.mem_used_bytes)
        snprintf(remark, sizeof(remark), "compressed by %s into %s, %.1f:1", report->zram_algo,
                 size_text(used, report->zram.mem_used_bytes),
                 (double)report->zram.orig_data_bytes / (double)report->zram.mem_used_bytes);
    else if (report->zram_algo)
        snprintf(remark, sizeof(remark), "%s, nothing stored", report->zram_algo);
    place(&table, "zram", t->stat.zram_bytes, t->memory_bytes, remark);
    place(&table, "swap", t->stat.swap_bytes, t->memory_bytes,
          report->nr_swaps == 0   ? "no swap area; --swap FILE,size=SIZE makes one"
          : report->nr_swaps == 1 ? report->swaps[0].name
                                  : "on several areas");
    place(&table, "never touched", t->stat.untouched_bytes, t->memory_bytes, "costs nothing");
    if (t->stat.balloon_bytes)
        place(&table, "balloon", t->stat.balloon_bytes, t->memory_bytes, "given up by the guest");
    if (t->stat.poisoned_bytes)
        place(&table, "lost", t->stat.poisoned_bytes, t->memory_bytes, "could not be read back");
    return print(&table, out);
}

/* Pages in the guests by node of the host, where there is more than one. */
static int print_nodes(const struct report *report, FILE *out)
{
    struct table table;

    if (report->nr_nodes < 2)
        return 0;
    fprintf(out, "By node of this host\n");
    table_init(&table, "lrrrrl");
    for (unsigned n = 0; n < report->nr_nodes; n++) {
        const struct mm_node_stat *node = &report->nodes[n];
        uint64_t pages = 0, all = 0;
        for (unsigned i = 0; i < report->nr_vms; i++)
            for (unsigned k = 0; k < report->nr_nodes && !report->vms[i].gone; k++) {
                all += report->vms[i].node_pages[k];
                pages += k == n ? report->vms[i].node_pages[k] : 0;
            }
        table_cell(&table, "node %d", node->id);
        table_size(&table, pages * PAGE_BYTES);
        table_cell(&table, "%.1f%%", all ? 100.0 * (double)pages / (double)all : 0.0);
        table_cell(&table, "of a budget of");
        table_size(&table, node->budget_bytes);
        table_cell(&table, "%s", node->numa_miss ? "some because another node was full" : "");
    }
    return print(&table, out);
}

static const char *verdict(const struct report_vm *vm)
{
    if (vm->failure[0])
        return "failed";
    if (vm->result.state == MACHINE_STOPPED)
        return "stopped";
    return vm->result.ending == ENDING_REBOOT ? "rebooted" : "done";
}

/* One row a VM, when there are several. */
static int print_vms(const struct report *report, FILE *out)
{
    static const char *const titles[] = {"",     "result", "memory",    "resident", "standby",
                                         "zram", "swap",   "untouched", "verified", "bad"};
    unsigned shown = MIN_OF(report->nr_vms, MAX_ROWS);
    bool verifies = !report->options->has_kernel; /* the last two columns */
    size_t nr_titles = ARRAY_LEN(titles) - (verifies ? 0 : 2);
    struct table table;

    if (report->nr_vms < 2)
        return 0;
    table_init(&table, verifies ? "llrrrrrrrr" : "llrrrrrr");
    for (size_t i = 0; i < nr_titles; i++)
        table_cell(&table, "%s", titles[i]);
    for (unsigned i = 0; i < shown; i++) {
        const struct report_vm *vm = &report->vms[i];
        table_cell(&table, "%s", vm->name);
        table_cell(&table, "%s", verdict(vm));
        table_size(&table, vm->memory_bytes);
        table_size(&table, vm->has_mm ? vm->stat.resident_bytes : vm->resident_bytes);
        table_size(&table, vm->stat.standby_bytes);
        table_size(&table, vm->stat.zram_bytes);
        table_size(&table, vm->stat.swap_bytes);
        table_size(&table, vm->stat.untouched_bytes);
        if (!verifies)
            continue;
        table_count(&table, vm->result.pages_verified);
        table_count(&table, vm->result.pages_bad);
    }
    int error = print(&table, out);
    if (shown < report->nr_vms)
        fprintf(out, "  and %u more VMs; --json FILE has them all\n", report->nr_vms - shown);
    return error;
}

/* --- faults, reclaim, the host --------------------------------------------------------------------------- */

static void fault_row(struct table *table, const char *label, const struct hist *hist, const char *remark)
{
    table_cell(table, "%s", label);
    table_count(table, hist->count);
    table_time(table, hist_percentile(hist, 50));
    table_time(table, hist_percentile(hist, 99));
    table_time(table, hist->max_ns);
    table_cell(table, "%s", remark);
}

static int print_faults(const struct totals *t, FILE *out)
{
    static const char *const titles[] = {"", "count", "median", "99% within", "worst", ""};
    struct table table;

    fprintf(out, "Faults: the guest touched a page that was not there\n");
    table_init(&table, "lrrrrl");
    for (size_t i = 0; i < ARRAY_LEN(titles); i++)
        table_cell(&table, "%s", titles[i]);
    fault_row(&table, "minor", &t->minor, "first touch, or still at hand");
    fault_row(&table, "major", &t->major, "decompressed from zram or read from swap");
    return print(&table, out);
}

static void print_reclaim(const struct report *report, FILE *out)
{
    const uint64_t *event = report->host.event;
    char a[SIZE_TEXT], b[SIZE_TEXT], c[SIZE_TEXT], d[SIZE_TEXT];

    fprintf(out, "Reclaim: how room was made\n");
    fprintf(out, "  %s pages by kswapd, in the background; %s by faults that had to wait (%s times)\n",
            count_text(a, event[EV_pgsteal_kswapd]), count_text(b, event[EV_pgsteal_direct]),
            count_text(c, event[EV_allocstall]));
    fprintf(out, "  zram: %s pages stored, %s loaded;", count_text(a, event[EV_zswpout]),
            count_text(b, event[EV_zswpin]));
    fprintf(out, " swap: %s written, %s read\n", count_text(c, event[EV_pswpout]), count_text(d, event[EV_pswpin]));
}

static void print_host(const struct report *report, const struct totals *t, FILE *out)
{
    static const struct {
        const char *name, *means;
    } transports[] = {
        {"move", "pages change hands without being copied"},
        {"copy", "pages are copied: this kernel has no UFFDIO_MOVE, or it was asked for"},
        {"kernel", "the kernel's own reclaim; Ebb only watches"},
    };
    uint64_t budget = report->options->mm.budget_bytes;
    char a[SIZE_TEXT], b[SIZE_TEXT];

    fprintf(out, "Host\n");
    fprintf(out, "  budget %s, %.0f%% of what the guests believe they have", size_text(a, budget),
            t->memory_bytes ? 100.0 * (double)budget / (double)t->memory_bytes : 0.0);
    if (report->has_mm) {
        size_text(a, report->host.budget_bytes - MIN_OF(report->host.free_bytes, report->host.budget_bytes));
        fprintf(out, "; %s in use at the end", a);
    }
    fprintf(out, "\n  peak of the whole process %s", size_text(a, report->peak_resident_bytes));
    if (report->has_mm)
        fprintf(out, "; of it %s describe pages (%.2f%% of guests and budget)",
                size_text(b, report->host.metadata_bytes),
                100.0 * (double)report->host.metadata_bytes / (double)(t->memory_bytes + budget));
    fputc('\n', out);
    for (size_t i = 0; i < ARRAY_LEN(transports); i++)
        if (strcmp(transports[i].name, report->transport) == 0)
            fprintf(out, "  transport %s: %s\n", report->transport, transports[i].means);
}

static void print_kernel(const struct report *report, FILE *out)
{
    const struct kernel_backend_stat *k = &report->kernel;
    char a[SIZE_TEXT], b[SIZE_TEXT];

    fprintf(out, "Kernel's memory cgroup\n  limit %s, peak %s, limit reached", size_text(a, k->limit_bytes),
            size_text(b, k->peak_bytes));
    fprintf(out, " %s times\n", count_text(a, k->nr_limit_hits));
    if (k->has_zram && k->zram.mem_used_bytes)
        fprintf(out, "  zram: %s stored in %s\n", size_text(a, k->zram.orig_data_bytes),
                size_text(b, k->zram.mem_used_bytes));
}

/* --- the workload ---------------------------------------------------------------------------------------- */

/* Steps of the first VM: all have the same workload. */
static int print_steps(const struct report *report, FILE *out)
{
    const struct machine_result *result = &report->vms[0].result;
    unsigned shown = MIN_OF(result->nr_steps, MAX_ROWS);
    struct table table;

    if (shown == 0)
        return 0;
    fprintf(out, "Workload%s\n", report->nr_vms > 1 ? " (vm0)" : "");
    table_init(&table, "lrrll");
    for (unsigned i = 0; i < shown; i++) {
        const struct workload_step_result *step = &result->steps[i];
        uint64_t work = step->ops ? step->ops : step->pages;
        uint64_t set = workload_working_set(&report->options->workload.steps[i], step, WORKLOAD_WINDOW_NS);
        char rate[SIZE_TEXT];
        table_cell(&table, "%s", step->name);
        table_time(&table, step->ns);
        if (work && step->ns)
            table_cell(&table, "%s", count_text(rate, (uint64_t)((double)work * 1e9 / (double)step->ns)));
        else
            table_cell(&table, "%s", "");
        table_cell(&table, "%s", !work ? "" : step->ops ? "accesses a second" : "pages a second");
        if (set)
            table_cell(&table, "%s used in 10 s", size_text(rate, set));
        else
            table_cell(&table, "%s", "");
    }
    int error = print(&table, out);
    if (shown < result->nr_steps)
        fprintf(out, "  and %u more steps; --json FILE has them all\n", result->nr_steps - shown);
    return error;
}

int report_table(const struct report *report, FILE *out)
{
    struct totals *t = calloc(1, sizeof(*t));

    if (!t)
        return -ENOMEM;
    sum_up(report, t);
    print_verdict(report, t, out);
    int error = print_places(report, t, out);
    if (!error)
        error = print_nodes(report, out);
    if (!error)
        error = print_vms(report, out);
    if (!error && report->has_mm) {
        error = print_faults(t, out);
        print_reclaim(report, out);
    } else if (!error) {
        print_kernel(report, out);
    }
    print_host(report, t, out);
    if (!error && report->nr_vms)
        error = print_steps(report, out);
    free(t);
    return error;
}
