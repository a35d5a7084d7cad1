/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/vcpu.h"

#include "vmm/thread.h"

#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#define REGISTERS_BYTES 530 /* two dozen of them */
#define CODE_BYTES 160
#define REASON_BYTES 800

static int kick_signal(void)
{
    return SIGRTMIN;
}

static void ignore_kick(int number)
{
    (void)number; /* its arrival is all that matters */
}

void vcpu_prepare_signals(void)
{
    struct sigaction action = {.sa_handler = ignore_kick};

    sigemptyset(&action.sa_mask);
    sigaction(kick_signal(), &action, NULL);
}

void vcpu_init(struct vcpu *vcpu, const struct kvm_vcpu *kvm, unsigned index, const struct vcpu_env *env)
{
    *vcpu = (struct vcpu){.kvm = *kvm, .index = index, .env = env};
}

void vcpu_fini(struct vcpu *vcpu)
{
    kvm_vcpu_close(&vcpu->kvm);
}

/* --- exits ----------------------------------------------------------------------------------------- */

/* KVM_EXIT_IO: count values of size bytes each, one after the other in the shared page. */
static void handle_io(struct vcpu *vcpu)
{
    struct kvm_run *run = vcpu->kvm.run;
    uint8_t *data = (uint8_t *)run + run->io.data_offset;
    unsigned bytes = run->io.size;

    for (uint32_t i = 0; i < run->io.count; i++, data += bytes) {
        uint64_t value = 0;

        if (run->io.direction == KVM_EXIT_IO_OUT) {
            memcpy(&value, data, bytes);
            bus_write(vcpu->env->bus, BUS_PORT, run->io.port, bytes, vcpu->index, value);
        } else {
            value = bus_read(vcpu->env->bus, BUS_PORT, run->io.port, bytes, vcpu->index);
            memcpy(data, &value, bytes);
        }
    }
}

static void handle_mmio(struct vcpu *vcpu)
{
    struct kvm_run *run = vcpu->kvm.run;
    uint64_t value = 0;

    if (run->mmio.is_write) {
        memcpy(&value, run->mmio.data, run->mmio.len);
        bus_write(vcpu->env->bus, BUS_MMIO, run->mmio.phys_addr, run->mmio.len, vcpu->index, value);
    } else {
        value = bus_read(vcpu->env->bus, BUS_MMIO, run->mmio.phys_addr, run->mmio.len, vcpu->index);
        memcpy(run->mmio.data, &value, run->mmio.len);
    }
}

/* "vCPU 0: WHAT; rip 0x.. ..." */
static void fail(struct vcpu *vcpu, const char *what)
{
    char registers[REGISTERS_BYTES], reason[REASON_BYTES];

    kvm_vcpu_describe(&vcpu->kvm, registers, sizeof(registers));
    snprintf(reason, sizeof(reason), "vCPU %u: %s; %s", vcpu->index, what, registers);
    vcpu->env->on_failure(vcpu->env->ctx, reason);
}

/* Where it stood, in instructions, as far as its page tables still tell. */
static void fail_triple(struct vcpu *vcpu)
{
    char what[CODE_BYTES + 40] = "triple fault", code[CODE_BYTES] = "";
    uint64_t rip;
    gpa_t gpa;
    unsigned bits;

    if (kvm_vcpu_is_reset(&vcpu->kvm))
        snprintf(what, sizeof(what), "triple fault; where is not known: KVM has reset the vCPU, as it does on AMD");
    else if (vcpu->env->describe_code && kvm_vcpu_code(&vcpu->kvm, &rip, &gpa, &bits))
        vcpu->env->describe_code(vcpu->env->ctx, gpa, rip, bits, code, sizeof(code));
    if (code[0])
        snprintf(what, sizeof(what), "triple fault at %s", code);
    fail(vcpu, what);
}

static void fail_number(struct vcpu *vcpu, const char *what, uint64_t number)
{
    char text[80];

    snprintf(text, sizeof(text), "%s 0x%" PRIx64, what, number);
    fail(vcpu, text);
}

static void handle_exit(struct vcpu *vcpu)
{
    struct kvm_run *run = vcpu->kvm.run;

    switch (run->exit_reason) {
    case KVM_EXIT_IO:
        vcpu->nr_io++;
        handle_io(vcpu);
        return;
    case KVM_EXIT_MMIO:
        vcpu->nr_mmio++;
        handle_mmio(vcpu);
        return;
    default:
        vcpu->nr_other++;
        break;
    }
    switch (run->exit_reason) {
    case KVM_EXIT_INTR:
        break;
    case KVM_EXIT_SHUTDOWN:
        fail_triple(vcpu);
        break;
    case KVM_EXIT_SYSTEM_EVENT:
        if (vcpu->env->on_system_event)
            vcpu->env->on_system_event(vcpu->env->ctx, run->system_event.type);
        else
            fail_number(vcpu, "system event", run->system_event.type);
        break;
    case KVM_EXIT_HLT:
        fail(vcpu, "halted for ever");
        break;
    case KVM_EXIT_FAIL_ENTRY:
        fail_number(vcpu, "entry refused, hardware reason", run->fail_entry.hardware_entry_failure_reason);
        break;
    case KVM_EXIT_INTERNAL_ERROR:
        fail_number(vcpu, "KVM internal error", run->internal.suberror);
        break;
    default:
        fail_number(vcpu, "unknown exit", run->exit_reason);
        break;
    }
}

static void run_once(struct vcpu *vcpu)
{
    if (ioctl(vcpu->kvm.fd, KVM_RUN, 0) == 0) {
        handle_exit(vcpu);
        return;
    }
    int error = errno;
    if (error == EINTR || error == EAGAIN) {
        vcpu->nr_other++;
        /* Kicked, perhaps a while ago, in a port: immediate_exit stays until on_pause takes it back. */
        if (error == EINTR && vcpu->env->on_pause)
            vcpu->env->on_pause(vcpu->env->ctx, vcpu);
        return;
    }
    /* EFAULT: the host could not give a page, though its memory is mapped. */
    fail_number(vcpu, "KVM_RUN failed, errno", (uint64_t)error);
}

static void *vcpu_thread(void *arg)
{
    struct vcpu *vcpu = arg;
    sigset_t kick;

    sigemptyset(&kick);
    sigaddset(&kick, kick_signal());
    pthread_sigmask(SIG_UNBLOCK, &kick, NULL);
    /*
     * A batch thread that is woken does not preempt who wakes it: the fault thread gives its locks back and sleeps before
     * this one runs on. Without it a fault's locks were held for as long as the guest then ran, 40 us instead of 8.
     * Not allowed to: no harm.
     */
    sched_setscheduler(0, SCHED_BATCH, &(struct sched_param){0});
    if (vcpu->env->on_enter)
        vcpu->env->on_enter(vcpu->env->ctx, vcpu);
    /* Acquire: partner is the release of whoever set it. */
    while (!atomic_load_explicit(vcpu->env->stop, memory_order_acquire))
        run_once(vcpu);
    vcpu->env->on_leave(vcpu->env->ctx);
    return NULL;
}

/* --- thread ---------------------------------------------------------------------------------------- */

int vcpu_start(struct vcpu *vcpu, const char *name, int cpu, struct diag *diag)
{
    int err = thread_start(&vcpu->thread, name, cpu, vcpu_thread, vcpu);

    if (err == -EINVAL)
        return diag_set(diag, EXIT_USAGE, "vCPU %u cannot run on CPU %d: this host has no such CPU for us", vcpu->index,
                        cpu);
    if (err)
        return diag_host(diag, -err, "cannot start the thread of vCPU %u", vcpu->index);
    vcpu->has_thread = true;
    return 0;
}

void vcpu_kick(struct vcpu *vcpu)
{
    __atomic_store_n(&vcpu->kvm.run->immediate_exit, 1, __ATOMIC_RELAXED);
    if (vcpu->has_thread)
        pthread_kill(vcpu->thread, kick_signal());
}

void vcpu_unkick(struct vcpu *vcpu)
{
    __atomic_store_n(&vcpu->kvm.run->immediate_exit, 0, __ATOMIC_RELAXED);
}

void vcpu_join(struct vcpu *vcpu)
{
    if (!vcpu->has_thread)
        return;
    pthread_join(vcpu->thread, NULL);
    vcpu->has_thread = false;
}
