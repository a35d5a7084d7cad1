/* SPDX-License-Identifier: Apache-2.0 */
/*
 * machine: one KVM virtual machine running the embedded guest. KVM VM and vCPU descriptors, memslots, bus, console,
 * vCPU threads. Guest memory belongs to memhost; the machine only maps it into memslots.
 */
#ifndef VMM_MACHINE_H
#define VMM_MACHINE_H

#include "vmm/memhost.h"
#include "vmm/workload.h"

struct machine_config {
    const char *name;      /* "vm0" */
    uint64_t memory_bytes; /* multiple of BLOCK_BYTES, EBB_MIN_MEMORY_BYTES to EBB_MAX_MEMORY_BYTES */
    unsigned nr_cpus;      /* 1..EBB_MAX_CPUS */
    const int *cpus;       /* CPU of each vCPU thread and of the fault thread that serves it, or NULL: not bound */
    const struct workload *workload; /* copied */
    /* A full console line, without its end; from a vCPU thread. */
    void (*on_line)(void *ctx, const char *line);
    void *ctx;
};

struct machine;

enum machine_state { MACHINE_RUNNING, MACHINE_DONE, MACHINE_FAILED, MACHINE_STOPPED };

struct machine_result {
    enum machine_state state;
    char reason[240]; /* FAILED: one line. Bad pages are a failure, too: the first one is named */
    int error;        /* FAILED for want of a page: -ENOMEM, -EIO or -EFAULT; else 0 */
    uint64_t pages_verified, pages_bad;
    uint64_t nr_exits_io, nr_exits_mmio, nr_exits_other;
    uint64_t nr_unanswered; /* accesses to ports and addresses where nothing is */
    uint64_t boot_ns;       /* from start to the first step; 0 when it did not come that far */
    uint64_t run_ns;        /* from start to end */
    unsigned nr_steps;      /* that ended */
    struct workload_step_result steps[WORKLOAD_MAX_STEPS];
};

/* Makes memhost VM, KVM VM, memslots, vCPUs. @config is copied, but for what ctx points to. 0, or -1 with diag and
 * nothing left. */
must_check int machine_create(struct memhost *mh, const struct machine_config *config, struct machine **out,
                              struct diag *diag);
/* 0, or -1 with diag: then the machine is not running, and can only be destroyed. */
must_check int machine_start(struct machine *m, struct diag *diag);
/* Asks the vCPUs to leave; any thread, returns at once. They stop within a second, blocked in a fault or not. */
void machine_stop(struct machine *m);
/* File descriptor that becomes readable (eventfd) when the machine has ended. */
int machine_done_fd(const struct machine *m);
/* Progress of the running step, any thread: step index, done and total in pages or operations. */
void machine_progress(struct machine *m, unsigned *step, uint64_t *done, uint64_t *total);
/* Joins the vCPU threads: waits until the machine has ended. The result is the machine's. */
const struct machine_result *machine_join(struct machine *m);
struct memhost_vm *machine_memory(struct machine *m);
/* Stops and joins the machine if that was not done. */
void machine_destroy(struct machine *m);

#endif
