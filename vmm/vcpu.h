/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vcpu: one vCPU and the thread that runs it. Exits go to the bus; anything else ends the machine.
 *
 * To leave KVM_RUN the vCPU is kicked: kvm_run.immediate_exit makes the next KVM_RUN return at once, a signal
 * interrupts the present one, also while it waits in the kernel for a missing page. After a pause vcpu_unkick takes
 * immediate_exit back; the caller's lock keeps it apart from kicks.
 */
#ifndef VMM_VCPU_H
#define VMM_VCPU_H

#include "vmm/bus.h"
#include "vmm/kvm.h"

#include <pthread.h>
#include <stdatomic.h>

struct vcpu;

/* What all vCPUs of a machine share. Outlives their threads. */
struct vcpu_env {
    struct bus *bus;
    atomic_bool *stop; /* leave the loop */
    /* The vCPU cannot go on; one line why. In its thread; sets stop. */
    void (*on_failure)(void *ctx, const char *reason);
    /* The loop begins; in its thread. NULL: nothing to be done. */
    void (*on_enter)(void *ctx, const struct vcpu *vcpu);
    /* The loop has ended, last thing that the thread does. */
    void (*on_leave)(void *ctx);
    void *ctx;
    /* KVM says that the guest wants to end, by a call of its own: KVM_SYSTEM_EVENT_*. NULL: that is a failure. */
    void (*on_system_event)(void *ctx, uint32_t type);
    /* The vCPU was kicked. In its thread, out of the guest; returns when it may run on, or is to leave. NULL: kicks are
     * only for stop. */
    void (*on_pause)(void *ctx, struct vcpu *vcpu);
    /* What stands at @gpa, instructions of 16, 32 or 64 @bits, in words, into @text (ended): for the line about a triple fault. NULL: nothing is said. */
    void (*describe_code)(void *ctx, gpa_t gpa, uint64_t rip, unsigned bits, char *text, size_t bytes);
};

struct vcpu {
    struct kvm_vcpu kvm;
    unsigned index;
    const struct vcpu_env *env;
    pthread_t thread;
    bool has_thread;
    /* written by the thread alone, read after it was joined */
    uint64_t nr_io, nr_mmio, nr_other;
};

/* Installs the handler of the kick signal, which does nothing; once or many times. */
void vcpu_prepare_signals(void);

/* @kvm: open and with its entry set; the vCPU's from now on. */
void vcpu_init(struct vcpu *vcpu, const struct kvm_vcpu *kvm, unsigned index, const struct vcpu_env *env);
/* Joined first. Closes the KVM vCPU. */
void vcpu_fini(struct vcpu *vcpu);

/* @cpu: the only CPU for the thread, or THREAD_ANY_CPU. 0, or -1 with diag. */
must_check int vcpu_start(struct vcpu *vcpu, const char *name, int cpu, struct diag *diag);
/* After *stop was set: makes the thread see it. Any thread, also the vCPU's own. Started, not yet joined. */
void vcpu_kick(struct vcpu *vcpu);
/* In on_pause: the vCPU may run on. */
void vcpu_unkick(struct vcpu *vcpu);
void vcpu_join(struct vcpu *vcpu);

#endif
