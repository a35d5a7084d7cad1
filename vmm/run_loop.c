/* SPDX-License-Identifier: Apache-2.0 */
/* The main thread while the machines run: signals, machines that end, the progress line, swap areas that cannot write.
 */
#include "vmm/run.h"

#include "vmm/progress.h"

#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define PROGRESS_MS 250
#define WATCH_MS 1000

/* A second signal: what carries a name is removed, then the signal does what it does to any process. */
static void die_of(struct run *run, int signal_number)
{
    sigset_t set;

    screen_progress(&run->screen, NULL);
    terminal_end(&run->terminal);
    if (run->api_path[0])
        unlink(run->api_path);
    outfile_cancel(&run->json);
    signal(signal_number, SIG_DFL);
    sigemptyset(&set);
    pthread_sigmask(SIG_SETMASK, &set, NULL);
    raise(signal_number);
}

static void on_signal(struct run *run)
{
    struct signalfd_siginfo info;

    while (read(run->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        if (run->nr_signals++)
            die_of(run, (int)info.ssi_signo);
        screen_line(&run->screen, "", "stopping; once more ends at once");
        stop_machines(run);
    }
}

void stop_machines(struct run *run)
{
    for (unsigned i = 0; i < run->nr_vms; i++)
        if (run->vms[i].machine) {
            machine_stop(run->vms[i].machine);
            memhost_vm_end(machine_memory(run->vms[i].machine));
        }
}

static void give_back(struct run *run, unsigned index)
{
    struct run_vm *vm = &run->vms[index];

    report_add_vm(run->report, index, vm->name, vm->machine, run->mh);
    run->report->vms[index].gone = true;
    if (run->report->vms[index].failure[0])
        screen_error(&run->screen, run->report->vms[index].failure);
    source_vm_gone(&run->source, vm->name);
    machine_destroy(vm->machine);
    vm->machine = NULL;
}

/*
 * A machine that is through keeps its memory for the closing table, unless others need it. One that failed gives it back
 * now, to those that go on.
 */
static void on_end(struct run *run, unsigned index)
{
    struct run_vm *vm = &run->vms[index];

    vm->ended = true;
    bool wanted = memhost_vm_end(machine_memory(vm->machine));
    if (machine_join(vm->machine)->state == MACHINE_FAILED)
        wanted = true;
    if (wanted && run->nr_vms > 1)
        give_back(run, index);
}

/* Machines that ended a while ago, and whose memory is wanted now. */
static void give_back_wanted(struct run *run)
{
    for (unsigned i = 0; i < run->nr_vms && run->nr_vms > 1; i++)
        if (run->vms[i].ended && run->vms[i].machine && memhost_vm_is_wanted(machine_memory(run->vms[i].machine)))
            give_back(run, i);
}

static void show_progress(struct run *run, struct progress *progress)
{
    struct machine *running[OPTIONS_MAX_VMS];
    char text[PROGRESS_BYTES];

    for (unsigned i = 0; i < run->nr_vms; i++)
        running[i] = run->vms[i].ended ? NULL : run->vms[i].machine;
    progress_text(progress, running, run->nr_vms, run->options.has_kernel ? NULL : &run->options.workload,
                  memhost_mm(run->mh), text);
    screen_progress(&run->screen, text);
}

/* Pages that could not be written stay in memory: nothing is lost, but the user has to know. */
static void watch_swap(struct run *run)
{
    struct swap_area_stat areas[MAX_SWAP_AREAS];
    uint64_t nr_errors = 0;
    char text[256];

    if (!memhost_mm(run->mh))
        return;
    unsigned nr = swap_stat(mm_swap_set(memhost_mm(run->mh)), areas, MAX_SWAP_AREAS);
    for (unsigned i = 0; i < nr; i++) {
        nr_errors += areas[i].nr_write_errors;
        if (run->nr_write_errors || !areas[i].nr_write_errors)
            continue;
        snprintf(text, sizeof(text),
                 "warning: swap %.107s: %" PRIu64 " writes failed, and the pages stay in memory; is its disk full?",
                 areas[i].name, areas[i].nr_write_errors);
        screen_error(&run->screen, text);
    }
    run->nr_write_errors = nr_errors;
}

/* What the user types, for the console of the one VM. */
static void on_input(struct run *run)
{
    struct machine *machine = run->vms[0].ended ? NULL : run->vms[0].machine;

    if (!machine || !terminal_read(&run->terminal, machine))
        return;
    screen_line(&run->screen, "", "stopping");
    run->nr_signals++; /* as if by Ctrl-C */
    stop_machines(run);
}

#define POLL_SIGNAL 0
#define POLL_INPUT 1 /* and the next one */
#define POLL_VMS 3

void run_loop(struct run *run)
{
    struct pollfd polls[OPTIONS_MAX_VMS + POLL_VMS];
    struct progress progress = {0};
    unsigned nr_running = run->nr_vms;

    polls[POLL_SIGNAL] = (struct pollfd){.fd = run->signal_fd, .events = POLLIN};
    for (unsigned i = 0; i < run->nr_vms; i++)
        polls[POLL_VMS + i] = (struct pollfd){.fd = machine_done_fd(run->vms[i].machine), .events = POLLIN};
    while (nr_running) {
        terminal_polls(&run->terminal, &polls[POLL_INPUT]);
        int nr = poll(polls, POLL_VMS + run->nr_vms, run->screen.progress ? PROGRESS_MS : WATCH_MS);
        if (nr > 0 && polls[POLL_SIGNAL].revents)
            on_signal(run);
        if (nr > 0 && (polls[POLL_INPUT].revents || polls[POLL_INPUT + 1].revents))
            on_input(run);
        for (unsigned i = 0; nr > 0 && i < run->nr_vms; i++)
            if (polls[POLL_VMS + i].revents) {
                polls[POLL_VMS + i].fd = -1;
                on_end(run, i);
                nr_running--;
            }
        give_back_wanted(run);
        if (run->screen.progress)
            show_progress(run, &progress);
        watch_swap(run);
    }
    screen_progress(&run->screen, NULL);
}
