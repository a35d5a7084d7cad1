/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/report.h"

#include "vmm/numa.h"
#include "vmm/size.h"
#include "vmm/views.h"
#include "vmm/views_numa.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct report *report_create(const struct run_options *options)
{
    struct report *report = calloc(1, sizeof(*report) + options->nr_vms * sizeof(report->vms[0]));

    if (report) {
        report->options = options;
        report->nr_vms = options->nr_vms;
    }
    return report;
}

void report_destroy(struct report *report)
{
    if (!report)
        return;
    for (unsigned i = 0; i < report->nr_vms; i++)
        json_decref(report->vms[i].devices);
    free(report);
}

bool report_full_budget(char *out, size_t out_bytes, const struct mm_node_stat *nodes, unsigned nr)
{
    char size[SIZE_TEXT], text[NUMA_SET_TEXT];
    uint64_t all_bytes = 0, full_bytes = 0, full = 0;
    unsigned nr_full = 0;

    for (unsigned i = 0; i < nr; i++) {
        bool is_full = nodes[i].free_bytes < nodes[i].wmark_pages[WMARK_LOW] * PAGE_BYTES;
        all_bytes += nodes[i].budget_bytes;
        if (!is_full || nodes[i].id == MM_NODE_ANY)
            continue;
        full_bytes += nodes[i].budget_bytes;
        full |= UINT64_C(1) << nodes[i].id;
        nr_full++;
    }
    bool some = nr_full > 0 && nr_full < nr;
    snprintf(out, out_bytes, "budget %s", size_text(size, some ? full_bytes : all_bytes));
    if (some)
        snprintf(out + strlen(out), out_bytes - strlen(out), " on %s %s", nr_full > 1 ? "nodes" : "node",
                 numa_set_text(text, full));
    return some;
}

/* What is full, "budget 64 MiB, zram 32 MiB and swap 512 MiB are full". Whether it is a part of the budget, as above. */
static bool explain_no_memory(char *out, size_t out_bytes, struct memhost *mh)
{
    struct mm_node_stat nodes[MM_MAX_NODES];
    struct swap_area_stat areas[MAX_SWAP_AREAS];
    char budget[80], zram[SIZE_TEXT], swap[SIZE_TEXT];
    struct zram_stat stat = {0};
    uint64_t swap_bytes = 0, nr_write_errors = 0;
    unsigned nr_nodes = mm_nr_nodes(memhost_mm(mh));

    for (unsigned i = 0; i < nr_nodes; i++)
        mm_node_stat(memhost_mm(mh), i, &nodes[i]);
    if (mm_zram(memhost_mm(mh)))
        zram_stat(mm_zram(memhost_mm(mh)), &stat);
    unsigned nr = swap_stat(mm_swap_set(memhost_mm(mh)), areas, MAX_SWAP_AREAS);
    for (unsigned i = 0; i < nr; i++) {
        swap_bytes += areas[i].size_bytes;
        nr_write_errors += areas[i].nr_write_errors;
    }
    const char *full = nr_write_errors ? "are full or refuse writes" : "are full";
    bool part = report_full_budget(budget, sizeof(budget), nodes, nr_nodes);
    size_text(zram, stat.mem_limit_bytes);
    size_text(swap, swap_bytes);
    if (stat.mem_limit_bytes && nr)
        snprintf(out, out_bytes, "%s, zram %s and swap %s %s", budget, zram, swap, full);
    else if (stat.mem_limit_bytes)
        snprintf(out, out_bytes, "%s and zram %s are full, and there is no swap", budget, zram);
    else if (nr)
        snprintf(out, out_bytes, "%s and swap %s %s", budget, swap, full);
    else
        snprintf(out, out_bytes, "%s is full, and there is neither zram nor swap", budget);
    return part;
}

static void describe_failure(struct report_vm *vm, const char *name, struct memhost *mh)
{
    const struct machine_result *result = &vm->result;
    char full[240];

    if (result->state == MACHINE_FAILED && vm->has_mm && result->error == -ENOMEM) {
        bool part = explain_no_memory(full, sizeof(full), mh);
        snprintf(vm->failure, sizeof(vm->failure),
                 "%s: out of memory: %s; give more with --%s, --zram or --swap FILE,size=SIZE", name, full,
                 part ? "node-budget" : "budget");
    } else if (result->state == MACHINE_FAILED) {
        snprintf(vm->failure, sizeof(vm->failure), "%s: %s", name, result->reason);
    } else if (result->pages_bad) {
        snprintf(vm->failure, sizeof(vm->failure), "%s: %" PRIu64 " pages are not what the guest wrote", name,
                 result->pages_bad);
    }
}

void report_add_vm(struct report *report, unsigned index, const char *name, struct machine *machine, struct memhost *mh)
{
    struct report_vm *vm = &report->vms[index];
    struct mm_vm *mm = memhost_vm_mm(machine_memory(machine));

    snprintf(vm->name, sizeof(vm->name), "%s", name);
    vm->memory_bytes = report->options->memory_bytes + report->options->linux.hotplug_bytes;
    vm->result = *machine_join(machine);
    vm->has_mm = mm != NULL;
    vm->resident_bytes = memhost_vm_resident_bytes(machine_memory(machine));
    if (mm) {
        mm_vm_stat(mm, &vm->stat);
        vm->memory_bytes = vm->stat.memory_bytes; /* of what can be plugged, what is */
        mm_fault_hist(mm, &vm->minor, &vm->major);
        mm_vm_nodes(mm, vm->node_pages);
    }
    json_decref(vm->devices);
    vm->devices = machine_devices_json(machine);
    describe_failure(vm, name, mh);
}

/* A line "NAME:  N kB" of /proc/self/status, in bytes; 0 when it is not there. */
static uint64_t status_bytes(const char *name)
{
    FILE *file = fopen("/proc/self/status", "re");
    char line[160];
    uint64_t kib = 0;

    if (!file)
        return 0;
    while (fgets(line, sizeof(line), file))
        if (strncmp(line, name, strlen(name)) == 0 && sscanf(line + strlen(name), ": %" SCNu64, &kib) == 1)
            break;
    fclose(file);
    return kib * 1024;
}

void report_close(struct report *report, struct memhost *mh)
{
    struct mm_host *mm = memhost_mm(mh);

    report->transport = memhost_transport(mh);
    report->peak_resident_bytes = status_bytes("VmHWM");
    report->swapped_bytes = status_bytes("VmSwap");
    report->has_mm = mm != NULL;
    if (!mm) {
        kernel_backend_stat(memhost_kernel(mh), &report->kernel);
        report->zram = report->kernel.zram;
        report->zram_algo = report->kernel.has_zram ? zram_algo_name(report->options->mm.zram.algo) : NULL;
        return;
    }
    mm_host_stat(mm, &report->host);
    report->nr_nodes = mm_nr_nodes(mm);
    for (unsigned i = 0; i < report->nr_nodes; i++)
        mm_node_stat(mm, i, &report->nodes[i]);
    report->nr_swaps = swap_stat(mm_swap_set(mm), report->swaps, MAX_SWAP_AREAS);
    if (mm_zram(mm)) {
        zram_stat(mm_zram(mm), &report->zram);
        report->zram_algo = zram_algo_name(report->options->mm.zram.algo);
    }
}

const char *report_result(const struct report *report)
{
    for (unsigned i = 0; i < report->nr_vms; i++)
        if (report->vms[i].failure[0])
            return report->vms[i].failure;
    if (report->stopped)
        return "stopped";
    for (unsigned i = 0; i < report->nr_vms; i++)
        if (report->vms[i].result.ending == ENDING_REBOOT)
            return "rebooted";
    return "ok";
}

static const char *vm_result(const struct report_vm *vm)
{
    if (vm->failure[0])
        return vm->failure;
    if (vm->result.state == MACHINE_STOPPED)
        return "stopped";
    return vm->result.ending == ENDING_REBOOT ? "rebooted" : "ok";
}

/* --- JSON ------------------------------------------------------------------------------------------------ */

static json_t *hist_json(const struct hist *hist)
{
    json_t *o = json_object();

    view_put(o, "p50", hist_percentile(hist, 50));
    view_put(o, "p99", hist_percentile(hist, 99));
    view_put(o, "max", hist->max_ns);
    view_put(o, "count", hist->count);
    return o;
}

static json_t *steps_json(const struct workload *workload, const struct machine_result *result)
{
    json_t *list = json_array();

    for (unsigned i = 0; i < result->nr_steps; i++) {
        json_t *row = json_object();
        json_object_set_new(row, "name", view_text(result->steps[i].name));
        view_put(row, "pages", result->steps[i].pages);
        view_put(row, "ops", result->steps[i].ops);
        view_put(row, "pages_bad", result->steps[i].pages_bad);
        view_put(row, "ns", result->steps[i].ns);
        view_put(row, "working_set_10s_bytes",
                 workload_working_set(&workload->steps[i], &result->steps[i], WORKLOAD_WINDOW_NS));
        json_array_append_new(list, row);
    }
    return list;
}

/* Where a VM's memory is, by the kernel's count: it tells what is resident, and no more. */
static void put_kernel_places(json_t *o, const struct report *report, const struct report_vm *vm)
{
    static const char *const unknown[] = {"standby_bytes", "zram_bytes", "untouched_bytes", "fault_ns"};

    view_put(o, "resident_bytes", vm->resident_bytes);
    for (size_t i = 0; i < ARRAY_LEN(unknown); i++)
        json_object_set_new(o, unknown[i], json_null());
    json_object_set_new(o, "swap_bytes",
                        report->nr_vms == 1 ? json_integer((json_int_t)report->swapped_bytes) : json_null());
}

static json_t *vm_json(const struct report *report, const struct report_vm *vm)
{
    json_t *o = json_object(), *faults;

    json_object_set_new(o, "name", view_text(vm->name));
    json_object_set_new(o, "result", view_text(vm_result(vm)));
    view_put(o, "memory_bytes", vm->memory_bytes);
    if (report->options->has_kernel) { /* it does not tell what it verifies */
        json_object_set_new(o, "pages_verified", json_null());
        json_object_set_new(o, "pages_bad", json_null());
    } else {
        view_put(o, "pages_verified", vm->result.pages_verified);
        view_put(o, "pages_bad", vm->result.pages_bad);
    }
    view_put(o, "boot_ns", vm->result.boot_ns);
    view_put(o, "run_ns", vm->result.run_ns);
    if (vm->has_mm) {
        view_put(o, "resident_bytes", vm->stat.resident_bytes);
        view_put(o, "standby_bytes", vm->stat.standby_bytes);
        view_put(o, "zram_bytes", vm->stat.zram_bytes);
        view_put(o, "zram_compressed_bytes", vm->stat.zram_compressed_bytes);
        view_put(o, "swap_bytes", vm->stat.swap_bytes);
        view_put(o, "untouched_bytes", vm->stat.untouched_bytes);
        view_put(o, "balloon_bytes", vm->stat.balloon_bytes);
        view_put(o, "poisoned_bytes", vm->stat.poisoned_bytes);
        if (report->nr_nodes > 1)
            json_object_set_new(o, "pages_by_node",
                                view_pages_by_node(report->nodes, report->nr_nodes, vm->node_pages));
        faults = json_object();
        json_object_set_new(faults, "minor", hist_json(&vm->minor));
        json_object_set_new(faults, "major", hist_json(&vm->major));
        json_object_set_new(o, "fault_ns", faults);
    } else {
        put_kernel_places(o, report, vm);
    }
    view_put(o, "io_exits", vm->result.nr_exits_io);
    view_put(o, "mmio_exits", vm->result.nr_exits_mmio);
    view_put(o, "other_exits", vm->result.nr_exits_other);
    view_put(o, "unanswered_exits", vm->result.nr_unanswered);
    json_object_set_new(o, "steps", steps_json(&report->options->workload, &vm->result));
    json_object_set(o, "devices", vm->devices);
    return o;
}

static void put_kernel(json_t *o, const struct report *report)
{
    json_t *kernel = json_object();

    json_object_set_new(o, "vmstat", json_null());
    json_object_set_new(o, "swaps", json_array());
    json_object_set_new(o, "metadata_bytes", json_null());
    json_object_set_new(o, "kernel", kernel);
    view_put(kernel, "limit_bytes", report->kernel.limit_bytes);
    view_put(kernel, "usage_bytes", report->kernel.usage_bytes);
    view_put(kernel, "peak_bytes", report->kernel.peak_bytes);
    view_put(kernel, "limit_hits", report->kernel.nr_limit_hits);
    view_put(kernel, "swap_bytes", report->kernel.swap_bytes);
    view_put(kernel, "swap_used_bytes", report->kernel.swap_used_bytes);
}

json_t *report_json(const struct report *report)
{
    json_t *o = json_object(), *vms = json_array();

    json_object_set_new(o, "result", view_text(report_result(report)));
    json_object_set_new(o, "transport", view_text(report->transport));
    view_put(o, "budget_bytes", report->options->mm.budget_bytes);
    view_put(o, "peak_resident_bytes", report->peak_resident_bytes);
    if (report->has_mm) {
        json_t *swaps = view_swaps(report->swaps, report->nr_swaps);
        view_put(o, "metadata_bytes", report->host.metadata_bytes);
        json_object_set_new(o, "vmstat", view_vmstat(&report->host, &report->zram));
        json_object_set_new(o, "thp_collapse_off",
                            report->host.collapse_off ? view_text(report->host.collapse_off) : json_null());
        view_put(o, "thp_collapse_longest_held_ns", report->host.collapse_longest_held_ns);
        if (report->nr_nodes > 1)
            json_object_set_new(o, "nodes", view_nodes(report->nodes, report->nr_nodes));
        json_object_set(o, "swaps", json_object_get(swaps, "swaps"));
        json_decref(swaps);
    } else {
        put_kernel(o, report);
    }
    json_t *zram = view_zram(report->zram_algo, &report->zram, NULL, 0);
    json_object_del(zram, "classes");
    json_object_set_new(o, "zram", zram);
    json_object_set_new(o, "vms", vms);
    for (unsigned i = 0; i < report->nr_vms; i++)
        json_array_append_new(vms, vm_json(report, &report->vms[i]));
    return o;
}
