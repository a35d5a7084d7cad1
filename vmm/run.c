/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/run.h"

#include "vmm/commands.h"
#include "vmm/numa_plan.h"
#include "vmm/options_linux.h"
#include "vmm/pin.h"
#include "vmm/size.h"
#include "vmm/swapfile.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

/* A step that takes longer is told about. */
#define PROGRESS_AFTER_NS UINT64_C(1000000000)

/* --- before: what may be refused without having touched anything ------------------------------------------ */

static int check_host(struct run *run)
{
    uint64_t ram = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    char budget[SIZE_TEXT], host[SIZE_TEXT];

    if (run->options.mm.budget_bytes > ram)
        return diag_set(run->diag, EXIT_USAGE,
                        "a budget of %s is more than this host's memory, %s; give a --budget below",
                        size_text(budget, run->options.mm.budget_bytes), size_text(host, ram));
    numa_host_read(&run->numa);
    return numa_plan(&run->options.numa, &run->numa, &run->options.mm, &run->policy, run->diag);
}

static int open_outputs(struct run *run)
{
    const struct run_options *o = &run->options;

    if (o->json_path && outfile_open("--json", o->json_path, &run->json, run->diag))
        return -1;
    if (!o->api_path)
        run->listen_fd = socket_listen_default(run->api_path);
    else if (strcmp(o->api_path, "none") != 0)
        run->listen_fd = socket_listen(o->api_path, run->diag);
    else
        return 0;
    if (o->api_path && run->listen_fd < 0)
        return -1;
    if (o->api_path)
        snprintf(run->api_path, sizeof(run->api_path), "%s", o->api_path);
    if (run->listen_fd < 0)
        run->api_path[0] = '\0';
    return 0;
}

static void on_api_error(void *ctx, const char *text)
{
    struct run *run = ctx;

    screen_error(&run->screen, text);
}

/* From here on whoever asks is answered, whatever this thread is at. Without an API the run goes on. */
static void start_api(struct run *run)
{
    const struct api_config config = {
        .listen_fd = run->listen_fd, .control = &run->control, .on_error = on_api_error, .ctx = run};
    struct diag diag = {0};

    if (run->listen_fd < 0)
        return;
    run->control = (struct control){.source = &run->source, .phase = &run->phase};
    run->listen_fd = -1;
    if (api_start(&config, &run->api, &diag))
        screen_error(&run->screen, diag.text);
}

/* What this thread is at, as the API tells it, and as progress when it takes long. */
static void enter_phase(struct run *run, enum phase_step step, unsigned at, unsigned of)
{
    char text[PHASE_TEXT];

    if (phase_set(&run->phase, step, at, of) < PROGRESS_AFTER_NS)
        return;
    phase_read(&run->phase, text);
    screen_progress(&run->screen, text);
}

/* A VM takes about ten. The soft limit is for programs that call select(), which has room for 1,024. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* Signals come by a descriptor; every thread that is made from here on has them blocked. */
static int open_signals(struct run *run)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    run->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (run->signal_fd < 0)
        return diag_host(run->diag, errno, "signalfd");
    return 0;
}

/* The loop reads it. */
static bool signal_waits(const struct run *run)
{
    struct pollfd signals = {.fd = run->signal_fd, .events = POLLIN};

    return poll(&signals, 1, 0) == 1;
}

/* --- the host, its swap, its VMs --------------------------------------------------------------------------- */

static int start_host(struct run *run)
{
    const struct run_options *o = &run->options;
    struct memhost_config config = {
        .backend = o->backend,
        .transport = o->transport,
        .mm = o->mm,
        .policy = run->policy,
        .numa = &run->numa,
    };

    if (memhost_create(&config, &run->mh, run->diag))
        return -1;
    for (unsigned i = 0; i < o->nr_swaps; i++) {
        const struct swap_option *swap = &o->swaps[i];
        if (swapfile_add(mm_swap_set(memhost_mm(run->mh)), swap->path, swap->size_bytes, swap->priority,
                         swap->discard ? SWAPFILE_DISCARD : 0, run->diag))
            return -1;
    }
    return 0;
}

static void on_line(void *ctx, const char *line)
{
    struct run_vm *vm = ctx;

    screen_line(vm->screen, vm->prefix ? vm->name : "", line);
}

/* False: leave it to the scheduler. */
static bool choose_cpus(const struct run *run, unsigned vm, int *cpus)
{
    cpu_set_t allowed;

    if (run->options.pin == PIN_NONE || sched_getaffinity(0, sizeof(allowed), &allowed))
        return false;
    pin_choose(&run->numa, &run->options.guest_numa, &allowed, vm, run->options.nr_cpus, cpus);
    return true;
}

static void on_byte(void *ctx, uint8_t byte)
{
    struct run_vm *vm = ctx;

    terminal_put(vm->terminal, byte);
}

static void on_room(void *ctx)
{
    struct run_vm *vm = ctx;

    if (vm->terminal)
        terminal_wake(vm->terminal);
}

/* The machine copies it: one at a time is enough. */
static int make_machine(struct run *run, struct run_vm *vm, struct linux_config *linux)
{
    unsigned index = run->nr_vms;
    struct machine_config config = {
        .name = vm->name,
        .memory_bytes = run->options.memory_bytes,
        .nr_cpus = run->options.nr_cpus,
        .cpus = choose_cpus(run, index, vm->cpus) ? vm->cpus : NULL,
        .numa = run->options.guest_numa.nr_nodes > 0 ? &run->options.guest_numa : NULL,
        .workload = run->options.has_kernel ? NULL : &run->options.workload,
        .linux = run->options.has_kernel ? linux : NULL,
        .devices = run->options.has_kernel || !run->options.devices ? NULL : linux,
        .on_line = on_line,
        .on_byte = run->terminal.raw ? on_byte : NULL,
        .on_room = on_room,
        .ctx = vm,
    };

    snprintf(vm->name, sizeof(vm->name), "vm%u", index);
    vm->screen = &run->screen;
    vm->prefix = run->options.nr_vms > 1;
    vm->terminal = run->options.console ? &run->terminal : NULL;
    if ((run->options.has_kernel || run->options.devices) &&
        options_linux_of(&run->options.linux, index, linux, run->diag))
        return -1;
    if (machine_create(run->mh, &config, &vm->machine, run->diag))
        return -1;
    source_vm_add(&run->source, vm->name, memhost_vm_mm(machine_memory(vm->machine)), vm->machine);
    run->nr_vms++;
    return 0;
}

static int make_machines(struct run *run)
{
    const struct run_options *o = &run->options;
    const char *algo = o->mm.zram.limit_bytes ? zram_algo_name(o->mm.zram.algo) : NULL;

    run->vms = calloc(o->nr_vms, sizeof(*run->vms));
    run->report = report_create(o);
    if (!run->vms || !run->report || source_init(&run->source, memhost_mm(run->mh), algo, o->nr_vms))
        return diag_set(run->diag, EXIT_HOST, "out of memory; take fewer --vms");
    run->source.numa = &o->numa;
    run->source.policy = run->policy;
    run->control.mh = run->mh;
    struct linux_config *linux = malloc(sizeof(*linux));
    if (!linux)
        return diag_set(run->diag, EXIT_HOST, "out of memory");
    int error = 0;
    while (!error && run->nr_vms < o->nr_vms && (run->nr_vms == 0 || !signal_waits(run))) {
        enter_phase(run, PHASE_MAKE, run->nr_vms + 1, o->nr_vms);
        error = make_machine(run, &run->vms[run->nr_vms], linux);
    }
    free(linux);
    return error;
}

/* Many take their time: on a signal those that have not begun never do. */
static int start_machines(struct run *run)
{
    unsigned nr = 0;

    while (nr < run->nr_vms && (nr == 0 || !signal_waits(run))) {
        enter_phase(run, PHASE_START, nr + 1, run->nr_vms);
        if (machine_start(run->vms[nr++].machine, run->diag))
            return -1;
    }
    run->nr_vms = run->report->nr_vms = nr;
    enter_phase(run, PHASE_RUN, 0, 0);
    return 0;
}

/* Where the memory is, for whoever said something about it. */
static void print_nodes(struct run *run)
{
    const struct mm_config *mm = &run->options.mm;
    char part[SIZE_TEXT], line[512];
    int used = snprintf(line, sizeof(line), "policy %s; budget on", numa_mode_text(run->policy.mode));

    for (unsigned i = 0; i < mm->nr_nodes; i++)
        used += snprintf(line + used, sizeof(line) - (size_t)used, "%s node %d%s%s: %s", i ? "," : "", mm->nodes[i].id,
                         run->options.numa.nr_tiers ? " " : "",
                         run->options.numa.nr_tiers ? numa_tier_name(&run->options.numa, mm->nodes[i].id) : "",
                         size_text(part, mm->nodes[i].budget_bytes));
    if (mm->nr_nodes)
        screen_line(&run->screen, "", line);
    if (mm->nr_nodes < 2 && run->options.numa.balancing)
        screen_line(&run->screen, "", "one node of memory with CPUs: there is nothing to balance");
}

/* One line that says what runs, for whoever did not type it all. */
static void print_start(struct run *run)
{
    const struct run_options *o = &run->options;
    char memory[SIZE_TEXT], budget[SIZE_TEXT], zram[SIZE_TEXT], line[512];

    if (o->demonstration && o->backend == BACKEND_EBB)
        screen_line(&run->screen, "", "Demonstration: a VM in a quarter of its memory, as with");
    if (o->demonstration && o->backend == BACKEND_EBB)
        screen_line(&run->screen, "", "  ebb run --memory 256M --budget 64M --zram 32M --swap FILE,size=512M");
    size_text(memory, o->memory_bytes);
    size_text(budget, o->mm.budget_bytes);
    int used = snprintf(line, sizeof(line), "%u VM%s of %s with %u vCPU%s within %s", o->nr_vms,
                        o->nr_vms > 1 ? "s" : "", memory, o->nr_cpus, o->nr_cpus > 1 ? "s" : "", budget);
    if (o->mm.zram.limit_bytes)
        used += snprintf(line + used, sizeof(line) - (size_t)used, ", zram %s %s",
                         size_text(zram, o->mm.zram.limit_bytes), zram_algo_name(o->mm.zram.algo));
    snprintf(line + used, sizeof(line) - (size_t)used, ", %u swap area%s, transport %s%s%s", o->nr_swaps,
             o->nr_swaps == 1 ? "" : "s", memhost_transport(run->mh), run->api_path[0] ? ", API " : "", run->api_path);
    screen_line(&run->screen, "", line);
    print_nodes(run);
    if (o->has_kernel)
        snprintf(line, sizeof(line), "kernel %.180s, %.300s", o->linux.kernel_path, o->linux.cmdline);
    else
        snprintf(line, sizeof(line), "workload %.480s", o->workload.text);
    screen_line(&run->screen, "", line);
}

/* --- after ------------------------------------------------------------------------------------------------ */

/* The figures, while the VMs still have their memory. */
static void conclude(struct run *run)
{
    for (unsigned i = 0; i < run->nr_vms; i++)
        if (run->vms[i].machine)
            report_add_vm(run->report, i, run->vms[i].name, run->vms[i].machine, run->mh);
    run->report->stopped = run->nr_signals > 0;
    report_close(run->report, run->mh);
    for (unsigned i = 0; i < run->nr_vms; i++)
        if (run->vms[i].machine && run->report->vms[i].failure[0])
            screen_error(&run->screen, run->report->vms[i].failure);
    if (run->screen.out && report_table(run->report, run->screen.out))
        diag_set(run->diag, EXIT_GUEST, "out of memory while printing the closing table");
    if (run->screen.out)
        fflush(run->screen.out);
    if (run->options.json_path) {
        json_t *json = report_json(run->report);
        if (outfile_commit(&run->json, json, run->diag)) /* diag says so */
            run->diag->code = EXIT_GUEST;
        json_decref(json);
    }
    for (unsigned i = 0; i < run->report->nr_vms; i++)
        if (run->report->vms[i].failure[0])
            run->diag->code = EXIT_GUEST;
}

/* From here on a signal ends the process at once: there is nothing left that it would leave behind. */
static void close_outputs(struct run *run)
{
    sigset_t set;

    outfile_cancel(&run->json);
    if (run->listen_fd >= 0)
        close(run->listen_fd);
    if (run->api_path[0])
        unlink(run->api_path);
    if (run->signal_fd >= 0)
        close(run->signal_fd);
    sigemptyset(&set);
    pthread_sigmask(SIG_SETMASK, &set, NULL);
}

/* Whatever the API was told to do gives up: it would be waited for. */
static void stop_work(struct run *run)
{
    if (run->mh && memhost_mm(run->mh))
        mm_stop_work(memhost_mm(run->mh));
}

static void tear_down(struct run *run)
{
    terminal_close(&run->terminal);
    close_outputs(run);
    stop_work(run);
    if (run->api)
        api_stop(run->api);
    stop_machines(run);
    for (unsigned i = 0; run->vms && i < run->options.nr_vms; i++)
        if (run->vms[i].machine) {
            enter_phase(run, PHASE_END, i + 1, run->options.nr_vms);
            machine_destroy(run->vms[i].machine);
        }
    screen_progress(&run->screen, NULL);
    if (run->source.vms)
        source_fini(&run->source);
    if (run->mh)
        memhost_destroy(run->mh);
    access_choice_close(&run->access);
    report_destroy(run->report);
    free(run->vms);
    phase_fini(&run->phase);
    screen_fini(&run->screen);
}

static int run_all(struct run *run)
{
    raise_descriptor_limit();
    if (check_host(run) || open_signals(run) || (run->options.console && terminal_open(&run->terminal, run->diag)) ||
        open_outputs(run))
        return -1;
    start_api(run);
    if (start_host(run) || make_machines(run) || run_access_start(run))
        return -1;
    print_start(run);
    run->screen.progress = run->screen.progress && !run->terminal.raw;
    if (run->terminal.raw)
        screen_line(&run->screen, "", "the terminal is the guest's console now; Ctrl-A x ends it");
    terminal_begin(&run->terminal); /* before a vCPU looks at it */
    if (start_machines(run))
        return -1;
    run_loop(run);
    terminal_end(&run->terminal);
    stop_work(run);
    conclude(run);
    return run->diag->code == EXIT_DONE ? 0 : -1;
}

int cmd_run(int argc, char *const argv[], struct diag *diag)
{
    struct run *run = calloc(1, sizeof(*run));
    int error = -1;

    if (!run)
        return diag_set(diag, EXIT_HOST, "out of memory");
    run->diag = diag;
    run->listen_fd = run->signal_fd = -1;
    terminal_init(&run->terminal);
    if (options_parse_run(argc, argv, &run->options, diag) == 0) {
        const struct run_options *o = &run->options;
        bool to_stdout = o->json_path && strcmp(o->json_path, "-") == 0;
        if (o->want_help)
            error = help_print("run");
        else if (o->want_workload_help)
            error = fputs(workload_help(), stdout) < 0 ? -1 : 0;
        else {
            screen_init(&run->screen, to_stdout ? stderr : stdout, o->quiet);
            phase_init(&run->phase);
            error = run_all(run);
            tear_down(run);
        }
    }
    free(run);
    return error;
}
