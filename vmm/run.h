/* SPDX-License-Identifier: Apache-2.0 */
/*
 * run: the `ebb run` command. Everything that can be wrong is found before the first VM starts; what was made is taken
 * down in reverse order, whatever happened.
 */
#ifndef VMM_RUN_H
#define VMM_RUN_H

#include "vmm/access_source.h"
#include "vmm/api.h"
#include "vmm/machine.h"
#include "vmm/numa.h"
#include "vmm/options.h"
#include "vmm/outfile.h"
#include "vmm/report.h"
#include "vmm/screen.h"
#include "vmm/socket.h"
#include "vmm/terminal.h"

struct run;

struct run_vm {
    char name[16];
    struct screen *screen;
    bool prefix;             /* several VMs: lines carry the name */
    struct machine *machine; /* NULL: not made, or taken down for its memory */
    bool ended;
    int cpus[OPTIONS_MAX_CPUS];
    struct terminal *terminal; /* --console: where its bytes go */
};

struct run {
    struct run_options options; /* mm.nodes: by numa_plan, once the host was looked at */
    struct numa_host numa;
    struct mm_policy policy;
    struct diag *diag;
    struct screen screen;
    struct phase phase;
    struct outfile json;
    int listen_fd; /* where the requests to the API will come; -1: no API, or the API has it */
    char api_path[SOCKET_PATH_BYTES];
    int signal_fd;
    struct memhost *mh;
    struct access_choice access; /* closed when the memory host is gone: its scanner asks the source */
    struct source source;
    struct control control;
    struct api *api;
    struct report *report;
    uint64_t nr_write_errors; /* of all swap areas, told so far */
    unsigned nr_signals;
    struct terminal terminal; /* --console */
    unsigned nr_vms;          /* made; in the loop: begun */
    struct run_vm *vms;
};

/* run_access.c: the VMs are there, and do not run yet. 0, or -1 with run->diag. */
int run_access_start(struct run *run);
/* run_loop.c: until every machine has ended. Tells about what fails, stops all on a signal. */
void run_loop(struct run *run);
/* Does not wait for them. */
void stop_machines(struct run *run);

#endif
