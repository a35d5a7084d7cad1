/* SPDX-License-Identifier: Apache-2.0 */
/*
 * faultd: the fault threads of one VM. Each reads events from the VM's userfaultfd and hands them to @handle, which
 * makes the page present.
 *
 * A fault thread is best bound to the CPU of a vCPU: the vCPU sleeps just when its fault thread is to run, so nothing
 * waits for another CPU to wake. The threads of one VM share one queue; an event wakes them all and one gets it.
 *
 * An event has the number of the thread that faults. Where that is a vCPU's, @handle is told which vCPU, and the node of
 * its CPU: the one it is bound to, or else that of the fault thread, which the kernel wakes near who faults.
 */
#ifndef VMM_FAULTD_H
#define VMM_FAULTD_H

#include <sys/types.h>

#include "vmm/hostmem.h"

#define FAULTD_MAX_VCPUS 64

struct faultd_config {
    struct hostmem_vm *mem;
    unsigned nr_threads;
    const int *cpus; /* CPU of each thread, or NULL: anywhere */
    /* By CPU, CPU_SETSIZE of them: its node, as an index in the configuration of mm/. NULL: all are 0. Outlives it. */
    const uint8_t *node_of_cpu;
    /* Makes the page at @gpa present and wakes who waits for it. @thread: 0..nr_threads - 1; @flags: MM_FAULT_*.
     * Returns 0, or -errno: the page cannot be had. */
    int (*handle)(void *ctx, unsigned thread, gpa_t gpa, unsigned flags);
    /* The first error of handle; the VM is lost. From a fault thread; must not block. */
    void (*on_fatal)(void *ctx, int err, gpa_t gpa);
    void *ctx;
};

struct faultd;
/* 0, or -1 with diag and no thread left. */
must_check int faultd_start(const struct faultd_config *config, struct faultd **out, struct diag *diag);
/*
 * faultd_add_vcpu - the thread @tid is vCPU @vcpu, below FAULTD_MAX_VCPUS; @cpu: the only one it runs on, or
 * THREAD_ANY_CPU. Any thread, once a vCPU or more often: the last one counts.
 */
void faultd_add_vcpu(struct faultd *fd, unsigned vcpu, pid_t tid, int cpu);
/* Ends and joins the threads. Nobody waits for a page any more, or the VM is released. */
void faultd_stop(struct faultd *fd);

#endif
