/* SPDX-License-Identifier: Apache-2.0 */
/*
 * machine: one KVM virtual machine running the embedded guest, or a Linux kernel on the platform of vmm/platform.h. KVM
 * VM and vCPU descriptors, memslots, bus, console, devices with their thread, vCPU threads. Guest memory belongs to
 * memhost; the machine only maps it into memslots.
 */
#ifndef VMM_MACHINE_H
#define VMM_MACHINE_H

#include "vmm/guest_numa.h"
#include "vmm/linux_config.h"
#include "vmm/memhost.h"
#include "vmm/workload.h"

#include <jansson.h>

struct machine_config {
    const char *name;      /* "vm0" */
    uint64_t memory_bytes; /* multiple of BLOCK_BYTES, EBB_MIN_MEMORY_BYTES (Linux: LINUX_MIN_MEMORY_BYTES) to
                              EBB_MAX_MEMORY_BYTES */
    unsigned nr_cpus;      /* 1..EBB_MAX_CPUS */
    const int *cpus;       /* CPU of each vCPU thread and of the fault thread that serves it, or NULL: not bound */
    const struct guest_numa *numa; /* for memory_bytes and nr_cpus; copied. NULL: the guest is told of no nodes */
    /* One of the two; copied. */
    const struct workload *workload;
    const struct linux_config *linux;
    /* Of the embedded guest, which has no drivers but the hostile one; all but kernel, initrd and command line; copied.
     * NULL: none. */
    const struct linux_config *devices;
    /* A full console line, without its end; from a vCPU thread. */
    void (*on_line)(void *ctx, const char *line);
    /* Linux: every byte of the console instead of lines; from a vCPU thread, under a lock. NULL: lines. */
    void (*on_byte)(void *ctx, uint8_t byte);
    /* Linux: machine_console_input took less than it was given, and would take more now. May be NULL. As on_byte. */
    void (*on_room)(void *ctx);
    void *ctx;
};

struct machine;
struct balloon;
struct mem;

enum machine_state { MACHINE_RUNNING, MACHINE_DONE, MACHINE_FAILED, MACHINE_STOPPED };

/* How a Linux guest came to its end by itself. */
enum machine_ending { ENDING_NONE, ENDING_POWEROFF, ENDING_REBOOT, ENDING_PANIC };

struct machine_result {
    enum machine_state state;
    enum machine_ending ending;
    char reason[800]; /* FAILED: one line. Bad pages are a failure, too: the first one is named */
    int error;        /* FAILED for want of a page: -ENOMEM, -EIO or -EFAULT; else 0 */
    uint64_t pages_verified, pages_bad;
    uint64_t nr_exits_io, nr_exits_mmio, nr_exits_other;
    uint64_t nr_unanswered; /* accesses to ports and addresses where nothing is */
    /* From start to the first step, or to the line by which Linux says that it starts init; 0 when it did not come that
     * far, or was told to be quiet. */
    uint64_t boot_ns;
    uint64_t run_ns;   /* from start to end */
    unsigned nr_steps; /* that ended */
    struct workload_step_result steps[WORKLOAD_MAX_STEPS];
};

/*
 * Makes memhost VM, KVM VM, memslots, devices, vCPUs, and loads the kernel. @config is copied, but for what ctx points
 * to. 0, or -1 with diag and nothing left.
 */
must_check int machine_create(struct memhost *mh, const struct machine_config *config, struct machine **out,
                              struct diag *diag);
/* 0, or -1 with diag: then the machine is not running, and can only be destroyed. */
must_check int machine_start(struct machine *m, struct diag *diag);
/* Asks the vCPUs to leave; any thread, returns at once. They stop within a second, blocked in a fault or not. */
void machine_stop(struct machine *m);
/* File descriptor that becomes readable (eventfd) when the machine has ended. */
int machine_done_fd(const struct machine *m);
/* Progress of the running step, any thread: step index, done and total in pages or operations. Zeros for Linux. */
void machine_progress(struct machine *m, unsigned *step, uint64_t *done, uint64_t *total);
/* Joins the vCPU threads and the devices' thread: waits until the machine has ended. The result is the machine's. */
const struct machine_result *machine_join(struct machine *m);
struct memhost_vm *machine_memory(struct machine *m);
/* Stops and joins the machine if that was not done. */
void machine_destroy(struct machine *m);

/* @bytes for the guest's serial line, any thread. Returns how many it took; when fewer, on_room says when to go on. */
must_check size_t machine_console_input(struct machine *m, const void *bytes, size_t nr);

/*
 * machine_pause - every vCPU has left the guest, and waits, when this returns; devices go on. Nests; any thread but a
 * vCPU's. A machine that has ended, or ends meanwhile, is at rest anyway. machine_resume: they go on after the last one.
 */
void machine_pause(struct machine *m);
void machine_resume(struct machine *m);

/*
 * Pages that the vCPUs wrote since start or the last get: see vmm/kvm.h. What devices wrote is not among them. @gpa:
 * start of a region of guest memory. 0 or -errno. Not in several threads at once.
 */
must_check int machine_dirty_log_start(struct machine *m);
must_check int machine_dirty_log_get(struct machine *m, gpa_t gpa, uint64_t *bitmap);
void machine_dirty_log_stop(struct machine *m);

/* Devices that can be asked something while the machine lives; their functions are for any thread. NULL: none. */
struct balloon *machine_balloon(const struct machine *m);
struct mem *machine_mem(const struct machine *m);
/* One object a device: name, and what it counted. A new array, or NULL. Any thread. */
json_t *machine_devices_json(const struct machine *m);

#endif
