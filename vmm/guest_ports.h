/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guest_ports: the host's side of guest-images/ebbguest/abi.h. The shared pages, the ports behind which a vCPU waits
 * for the others or sleeps, and what the steps have done so far.
 *
 * The guest is not trusted: its counters are read once and only added up, its lines are copied, ended and cleaned.
 */
#ifndef VMM_GUEST_PORTS_H
#define VMM_GUEST_PORTS_H

#include "vmm/bus.h"
#include "vmm/guest_numa.h"
#include "vmm/workload.h"

#include <pthread.h>

struct guest_ports_config {
    unsigned nr_cpus;
    const struct workload *workload; /* copied */
    uint64_t seed;                   /* of all content */
    uint64_t low_bytes, high_bytes;  /* memory from 0, and from EBB_HIGH_GPA */
    const struct guest_numa *numa;   /* copied; NULL or empty: one node */
    void (*on_line)(void *line_ctx, const char *line);
    void *line_ctx;
    /* The guest has ended; @error: NULL or one line why that is not good. From a vCPU thread, without locks. */
    void (*on_exit)(void *exit_ctx, const char *error);
    /* A vCPU thread begins to wait in a port, and stops to. Without locks. NULL: nobody wants to know. */
    void (*on_wait)(void *exit_ctx, bool waits);
    void *exit_ctx;
};

struct guest_counts {
    uint64_t pages, ops, verified, bad;
};

struct guest_ports {
    struct guest_ports_config config; /* without workload and nodes */
    unsigned nr_steps;
    struct ebb_step steps[WORKLOAD_MAX_STEPS]; /* the guest can change those in its pages */
    struct ebb_shared *shared;                 /* map of its own; what the guest sees at EBB_SHARED_GPA */
    size_t shared_bytes;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    /* guarded by lock */
    bool stopped;
    unsigned nr_waiting; /* vCPUs at the barrier */
    uint64_t round;      /* barriers passed */
    uint64_t boot_ns;    /* clock at the first step, 0 before */
    uint64_t step_start_ns;
    struct guest_counts step_start;
    unsigned step, nr_done; /* running (or last) step; steps that ended */
    struct workload_step_result results[WORKLOAD_MAX_STEPS];
};

/* 0, or -ENOMEM with nothing left. */
must_check int guest_ports_init(struct guest_ports *ports, const struct guest_ports_config *config);
void guest_ports_fini(struct guest_ports *ports);
/* Takes the guest's ports on @bus. 0 or -errno of bus_add. */
must_check int guest_ports_attach(struct guest_ports *ports, struct bus *bus);
/* Whoever waits in a port leaves at once; from now on no port waits. */
void guest_ports_stop(struct guest_ports *ports);
/* Sums over the vCPUs, now. */
void guest_ports_counts(const struct guest_ports *ports, struct guest_counts *out);
/* As machine_progress. */
void guest_ports_progress(struct guest_ports *ports, unsigned *step, uint64_t *done, uint64_t *total);

#endif
