/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The embedded guest's zipf in a VM: `ebb run` with its own memory manager and with --backend kernel, in turn, everything
 * on one CPU. Physical memory is the same on both sides: the budget is what holds guest pages and store for Ebb, so the
 * kernel's cgroup gets the budget, less what its zram takes, and what the process itself needs on top. Both are known
 * from the run before; the first runs of either side are not counted.
 */
#include "tests/bench/harness.h"

#include <fcntl.h>
#include <jansson.h>

#define WARM_UP_RUNS 2u
/* The kernel may find nothing to reclaim in a cgroup whose pages the guest all uses, and kill the process. */
#define KERNEL_TRIES 20u

struct run {
    double step_ns;        /* an operation of the last step */
    double major, refault; /* per 1000 operations of all zipf steps */
    double physical_mib;
    uint64_t kernel_zram_bytes, kernel_extra_bytes; /* mem_used; usage that is not guest memory */
};

struct scene {
    const char *name, *pattern;
    uint64_t fill_mib, budget_mib, ops;
};

static double number_at(const json_t *o, const char *name)
{
    const json_t *value = json_object_get(o, name);

    return value ? json_number_value(value) : 0;
}

static bool read_report(const struct scene *scene, const char *path, struct run *run)
{
    json_t *root = json_load_file(path, 0, NULL); /* none when the kernel killed the process: out of memory */
    const char *result = json_string_value(json_object_get(root, "result"));
    json_t *vm = json_array_get(json_object_get(root, "vms"), 0);
    json_t *steps = json_object_get(vm, "steps"), *kernel = json_object_get(root, "kernel");
    double zram = number_at(json_object_get(root, "zram"), "mem_used_bytes");
    double resident = number_at(vm, "resident_bytes");
    bool ok = result && strcmp(result, "ok") == 0 && json_array_size(steps) == 3;

    if (ok) {
        json_t *vmstat = json_object_get(root, "vmstat");
        run->step_ns = number_at(json_array_get(steps, 2), "ns") / (double)scene->ops;
        run->major = number_at(vmstat, "pgmajfault") * 1000 / (double)(2 * scene->ops);
        run->refault = number_at(vmstat, "pgrefault") * 1000 / (double)(2 * scene->ops);
        run->physical_mib = (kernel ? resident + zram : number_at(root, "budget_bytes")) / (double)MIB;
        /* another swap area of the host took some: not the same memory */
        ok = !kernel || number_at(kernel, "swap_used_bytes") > number_at(vm, "swap_bytes") * 0.9;
        run->kernel_zram_bytes = (uint64_t)zram;
        run->kernel_extra_bytes = (uint64_t)MAX_OF(number_at(kernel, "usage_bytes") - resident, 0.0);
    } else if (result) {
        fprintf(stderr, "bench: ebb run: %s\n", result);
    }
    json_decref(root);
    return ok;
}

static _Noreturn void exec_ebb(const struct harness *h, const struct scene *scene, bool kernel, uint64_t budget,
                               const char *json)
{
    char budget_text[24], zram_text[24], memory_text[24], workload[256];
    int null = open("/dev/null", O_RDWR);

    snprintf(memory_text, sizeof(memory_text), "%llu",
             (unsigned long long)((scene->fill_mib * 5 / 4 + 15) / 16 * 16 * MIB));
    snprintf(budget_text, sizeof(budget_text), "%llu", (unsigned long long)(budget / PAGE_BYTES * PAGE_BYTES));
    snprintf(zram_text, sizeof(zram_text), "%lluM", (unsigned long long)(scene->budget_mib / 4 * 3));
    snprintf(workload, sizeof(workload),
             "fill:%lluM,pattern=%s;zipf:%lluM,ops=%llu,write=20;zipf:%lluM,ops=%llu,write=20",
             (unsigned long long)scene->fill_mib, scene->pattern, (unsigned long long)scene->fill_mib,
             (unsigned long long)scene->ops, (unsigned long long)scene->fill_mib, (unsigned long long)scene->ops);
    harness_pin(h->cpu);
    dup2(null, 0);
    dup2(null, 1);
    execl(h->ebb, h->ebb, "run", "--pin", "none", "--api", "none", "--memory", memory_text, "--budget", budget_text,
          "--zram", zram_text, "--workload", workload, "--json", json, kernel ? "--backend" : NULL, "kernel", NULL);
    _exit(127);
}

static bool run_ebb(const struct harness *h, const struct scene *scene, bool kernel, uint64_t budget, struct run *run)
{
    char path[64];
    struct rusage usage;
    int status;

    snprintf(path, sizeof(path), "/tmp/ebb-bench-%d.json", (int)getpid());
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0)
        harness_die("cannot fork");
    if (pid == 0)
        exec_ebb(h, scene, kernel, budget, path);
    if (wait4(pid, &status, 0, &usage) != pid)
        harness_die("lost the VM's process");
    bool ok = read_report(scene, path, run);
    unlink(path);
    if (kernel)
        run->major = (double)usage.ru_majflt * 1000 / (double)(2 * scene->ops);
    return ok;
}

/* *killed counts the kernel's runs that did not come to their end, or not within our memory. */
static bool run_pair(const struct harness *h, const struct scene *scene, uint64_t *kernel_budget, unsigned *killed,
                     struct run runs[2])
{
    uint64_t budget = scene->budget_mib * MIB;
    unsigned tries = 0;

    if (!run_ebb(h, scene, false, budget, &runs[0]))
        return false;
    while (!run_ebb(h, scene, true, *kernel_budget, &runs[1])) {
        (*killed)++;
        if (++tries == KERNEL_TRIES)
            return false;
    }
    if (runs[1].kernel_zram_bytes < budget)
        *kernel_budget = budget - runs[1].kernel_zram_bytes + runs[1].kernel_extra_bytes;
    return true;
}

static bool compare(const struct harness *h, const struct scene *scene)
{
    char work[64];
    struct harness_row time = {.work = work, .unit = "ns/op", .aim = 1};
    struct harness_row major = {.work = "  major faults", .unit = "/1000", .kind = ROW_COUNT};
    struct harness_row refault = {.work = "  refaults from standby", .unit = "/1000", .kind = ROW_COUNT};
    struct harness_row memory = {.work = "  physical memory", .unit = "MiB", .kind = ROW_COUNT};
    uint64_t kernel_budget = scene->budget_mib * MIB;
    unsigned warm_up = h->quick ? 0 : WARM_UP_RUNS, killed = 0;

    snprintf(work, sizeof(work), "VM: %s", scene->name);
    for (unsigned i = 0; i < h->nr_pairs + warm_up; i++) {
        struct run runs[2] = {0};
        if (!run_pair(h, scene, &kernel_budget, &killed, runs)) {
            printf("%-52s not measured: a run failed\n", work);
            return false;
        }
        if (i < warm_up)
            continue;
        row_add(&time, runs[0].step_ns, runs[1].step_ns);
        row_add(&major, runs[0].major, runs[1].major);
        row_add(&refault, runs[0].refault, runs[1].refault);
        row_add(&memory, runs[0].physical_mib, runs[1].physical_mib);
    }
    row_print(h, &time);
    row_print(h, &major);
    row_print(h, &refault);
    row_print(h, &memory);
    if (killed > 0)
        printf("  the kernel killed the VM's process, or put pages into another swap area, in %u of %u runs\n", killed,
               killed + h->nr_pairs + warm_up);
    return true;
}

static void shrink(struct scene *scene)
{
    scene->fill_mib /= 2;
    scene->budget_mib /= 2;
    scene->ops /= 100;
}

int main(int argc, char **argv)
{
    struct harness h = harness_init(argc, argv);
    /* At 4:1 no store can hold text, which compresses 3:1, in the same memory: same-filled pages instead. */
    struct scene scenes[] = {
        {"zipf 0.99, 2:1, 20% writes, text", "text", 200, 100, 100000},
        {"zipf 0.99, 4:1, 20% writes, same-filled", "same", 200, 50, 100000},
    };

    bool all = true;

    if (access("/dev/kvm", R_OK | W_OK) != 0) {
        printf("\nno /dev/kvm: VMs left out\n");
        return 0;
    }
    harness_heading("embedded guest, ring 3, 1 vCPU, same physical memory, one CPU");
    for (unsigned i = 0; i < ARRAY_LEN(scenes); i++) {
        if (h.quick)
            shrink(&scenes[i]);
        all &= compare(&h, &scenes[i]);
    }
    return all ? 0 : 1;
}
