/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A fault costs its thread two system calls: the read that finds the event and the one that places the page. So the
 * reads block, and nothing but an event can end them. To end a thread, faultd_stop makes one: it touches the stop page,
 * and the thread that gets the event answers it and leaves.
 */
#include "vmm/faultd.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "vmm/thread.h"
#include "vmm/uffd.h"

/* Of so many faults one is measured: a look at the thread's own clock is a system call. Chosen, unmeasured. */
#define MEASURED_FAULTS 16u

struct fault_thread {
    struct faultd *fd;
    unsigned index;
    unsigned nr_faults;
    uint64_t done_ns; /* of CPU time, when the fault that is measured was handled; 0: none is */
    pthread_t thread;
};

struct vcpu_thread {
    atomic_int tid; /* 0: not known */
    atomic_int cpu;
};

struct faultd {
    struct faultd_config config;
    atomic_bool failed;
    atomic_uint nr_vcpus; /* all known ones are below */
    struct vcpu_thread vcpus[FAULTD_MAX_VCPUS];
    unsigned nr_started;
    struct fault_thread threads[]; /* config.nr_threads */
};

static void fail(struct faultd *fd, int err, gpa_t gpa)
{
    if (!atomic_exchange(&fd->failed, true))
        fd->config.on_fatal(fd->config.ctx, err, gpa);
}

static unsigned node_of(const struct faultd *fd, int cpu)
{
    if (cpu == THREAD_ANY_CPU)
        cpu = sched_getcpu();
    return fd->config.node_of_cpu && cpu >= 0 && cpu < CPU_SETSIZE ? fd->config.node_of_cpu[cpu] : 0;
}

/* MM_FAULT_FROM of the thread @tid; 0 when it is no vCPU's. Racy with faultd_add_vcpu, and then not known yet. */
static unsigned fault_from(struct faultd *fd, int tid)
{
    unsigned nr = atomic_load_explicit(&fd->nr_vcpus, memory_order_acquire); /* with faultd_add_vcpu */
    for (unsigned i = 0; tid > 0 && i < nr; i++)
        if (atomic_load_explicit(&fd->vcpus[i].tid, memory_order_acquire) == tid)
            return MM_FAULT_FROM(node_of(fd, atomic_load_explicit(&fd->vcpus[i].cpu, memory_order_relaxed)), i);
    return 0;
}

static void handle_fault(struct fault_thread *self, gpa_t gpa, const struct uffd_msg *msg)
{
    uint64_t event_flags = msg->arg.pagefault.flags;
    struct faultd *fd = self->fd;
    if (hostmem_vm_is_released(fd->config.mem)) {
        hostmem_vm_answer(fd->config.mem, gpa);
        return;
    }
    unsigned flags = 0;
    if (event_flags & UFFD_PAGEFAULT_FLAG_WRITE)
        flags |= MM_FAULT_WRITE;
    if (event_flags & UFFD_PAGEFAULT_FLAG_WP)
        flags |= MM_FAULT_WP;
    if (fd->config.mem->says_who)
        flags |= fault_from(fd, (int)msg->arg.pagefault.feat.ptid);
    int err = fd->config.handle(fd->config.ctx, self->index, gpa, flags);
    if (!err)
        return;
    fail(fd, err, gpa);
    /* Released while the page was being looked for: the wake of all waiters may have come too early for this one. */
    if (hostmem_vm_is_released(fd->config.mem))
        hostmem_vm_answer(fd->config.mem, gpa);
}

static uint64_t thread_cpu_ns(const struct fault_thread *self)
{
    struct hostmem *hm = self->fd->config.mem->hm;
    return hm->ops.cpu_ns(hm);
}

/* From here to the next event is what a fault costs beside being handled: to come back, to wait, to be woken, to read. */
static void measure_from_here(struct fault_thread *self)
{
    if (self->nr_faults++ % MEASURED_FAULTS == 0)
        self->done_ns = thread_cpu_ns(self);
}

static void measured_until_here(struct fault_thread *self)
{
    if (self->done_ns)
        hostmem_note_fault(self->fd->config.mem->hm, thread_cpu_ns(self) - self->done_ns);
    self->done_ns = 0;
}

/* One event. False: the thread is to end. */
static bool serve(struct fault_thread *self)
{
    struct faultd *fd = self->fd;
    struct hostmem_vm *mem = fd->config.mem;
    struct uffd_msg msg;
    ssize_t got = read(mem->uffd, &msg, sizeof(msg));
    if (got != (ssize_t)sizeof(msg)) {
        if (got < 0 && (errno == EINTR || errno == EAGAIN))
            return true;
        fail(fd, -EIO, (gpa_t){0});
        return false;
    }
    if (msg.event != UFFD_EVENT_PAGEFAULT)
        return true; /* no other event was asked for */
    char *address = (char *)(uintptr_t)msg.arg.pagefault.address;
    gpa_t gpa;
    if (guest_range_gpa(&mem->range, address, &gpa)) {
        measured_until_here(self);
        handle_fault(self, gpa, &msg);
        measure_from_here(self);
        return true;
    }
    if (uffd_zeropage(mem->uffd, mem->stop_page, PAGE_BYTES))
        uffd_wake(mem->uffd, mem->stop_page, PAGE_BYTES);
    return false;
}

static void *fault_thread(void *arg)
{
    while (serve(arg))
        ;
    return NULL;
}

int faultd_start(const struct faultd_config *config, struct faultd **out, struct diag *diag)
{
    struct faultd *fd = calloc(1, sizeof(*fd) + config->nr_threads * sizeof(fd->threads[0]));
    if (!fd)
        return diag_set(diag, EXIT_HOST, "out of memory");
    fd->config = *config;
    for (unsigned i = 0; i < config->nr_threads; i++) {
        struct fault_thread *self = &fd->threads[i];
        int cpu = config->cpus ? config->cpus[i] : THREAD_ANY_CPU;
        *self = (struct fault_thread){.fd = fd, .index = i};
        int err = thread_start(&self->thread, "ebb-fault", cpu, fault_thread, self);
        if (err) {
            faultd_stop(fd);
            return diag_host(diag, -err, "fault thread on CPU %d", cpu);
        }
        fd->nr_started++;
    }
    *out = fd;
    return 0;
}

void faultd_add_vcpu(struct faultd *fd, unsigned vcpu, pid_t tid, int cpu)
{
    struct vcpu_thread *thread = &fd->vcpus[vcpu];
    unsigned nr = atomic_load_explicit(&fd->nr_vcpus, memory_order_relaxed);
    atomic_store_explicit(&thread->cpu, cpu, memory_order_relaxed);
    atomic_store_explicit(&thread->tid, tid, memory_order_release); /* with fault_from */
    while (nr <= vcpu && !atomic_compare_exchange_weak_explicit(&fd->nr_vcpus, &nr, vcpu + 1, memory_order_release,
                                                                memory_order_relaxed)) /* with fault_from */
        ;
}

void faultd_stop(struct faultd *fd)
{
    char *stop = fd->config.mem->stop_page;
    for (unsigned i = 0; i < fd->nr_started; i++) {
        (void)*(volatile char *)stop; /* returns once a thread has answered */
        madvise(stop, PAGE_BYTES, MADV_DONTNEED);
    }
    for (unsigned i = 0; i < fd->nr_started; i++)
        pthread_join(fd->threads[i].thread, NULL);
    free(fd);
}
