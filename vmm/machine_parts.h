/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the machine share:
 *
 *   machine.c           made, started, ended, taken down
 *   machine_control.c   paused, watched, asked while it runs
 *   machine_ebbguest.c  the embedded guest's pages and ports
 *   machine_linux.c     a Linux guest's platform, kernel, console and ends
 *   machine_devices.c   virtio devices of either
 */
#ifndef VMM_MACHINE_PARTS_H
#define VMM_MACHINE_PARTS_H

#include "devices/serial.h"
#include "vmm/guest_ports.h"
#include "vmm/machine.h"
#include "vmm/machine_devices.h"
#include "vmm/platform_ports.h"
#include "vmm/vcpu.h"

#define MACHINE_NAME_BYTES 12

struct machine {
    char name[MACHINE_NAME_BYTES];
    uint64_t low_bytes, high_bytes;
    struct guest_numa numa; /* no nodes: the guest is told of none */
    gpa_t hotplug_gpa;      /* of virtio-mem's region */
    uint64_t hotplug_bytes;
    struct memhost_vm *memory;
    struct guest_mem mem; /* all regions, for devices */
    struct bus bus;
    struct serial serial;
    bool has_serial, has_kvm;
    struct kvm kvm;
    struct machine_devices *devices; /* NULL: none */
    struct vcpu_env env;
    struct vcpu *vcpus;
    int *cpus; /* CPU of each vCPU */
    unsigned nr_vcpus;
    int done_fd;
    uint64_t start_ns;
    bool joined;
    void (*on_line)(void *ctx, const char *line); /* NULL: lines are not wanted */
    void *ctx;                                    /* of on_line */
    /* the embedded guest's */
    struct guest_ports ports;
    bool has_ports;
    struct linux_config *want; /* heap: the devices, and a Linux guest's kernel; NULL: no devices */
    /* a Linux guest's */
    const struct linux_config *linux; /* want; NULL: the embedded guest */
    struct platform_ports platform;
    bool has_platform;
    struct boot_entry entry;

    atomic_bool stop;       /* release in end(): partner of the acquire in the vCPU loop */
    atomic_uint nr_running; /* vCPU threads in their loop */
    pthread_mutex_t lock;
    pthread_cond_t changed; /* nr_parked, nr_pauses, nr_running, ended */
    /* guarded by lock until the vCPUs are joined */
    bool ended;
    unsigned nr_parked; /* vCPU threads in their loop that wait here, or in a port */
    unsigned nr_pauses;
    bool quiescing; /* the logs of writes have one user */
    uint64_t end_ns, init_ns;
    char panic[SERIAL_LINE_BYTES]; /* the line by which the guest's kernel says so, "" before */
    struct machine_result result;
};

uint64_t machine_now_ns(void);
/* The first call decides how the machine has ended. Any thread; does not wait for the vCPUs. */
void machine_end(struct machine *m, enum machine_state state, enum machine_ending ending, int error,
                 const char *reason);
/* vcpu_env.on_pause, in machine_control.c like the next. */
void machine_vcpu_pause(void *ctx, struct vcpu *vcpu);
/* A vCPU thread begins to wait in a port, out of the guest; or wants back, and waits while the machine is paused. */
void machine_port_waits(void *ctx, bool waits);

/* machine_ebbguest.c. Each: 0, or -1 with diag. */
must_check int ebbguest_add_ports(struct machine *m, const struct machine_config *config, struct diag *diag);
must_check int ebbguest_map(struct machine *m, struct diag *diag);

/* machine_linux.c. As above; in this order. */
must_check int linux_check_config(const struct machine_config *config, struct diag *diag);
must_check int linux_add_ports(struct machine *m, const struct machine_config *config, struct diag *diag);
must_check int linux_load(struct machine *m, const struct machine_config *config, struct diag *diag);
/* A line of a console of the guest: @ctx is the machine. */
void linux_console_line(void *ctx, const char *line);
/* The machine cannot go on, for a reason found outside the guest: or the guest had panicked before. */
void linux_failed(struct machine *m, const char *reason);
void linux_system_event(void *ctx, uint32_t type);

/* machine_numa.c: the memory of guest nodes is on the nodes of the host that they stand for. 0, or -1 with diag. */
must_check int machine_bind_nodes(struct machine *m, struct diag *diag);

/* The serial port on the bus, with the machine's line handler. */
must_check int machine_add_serial(struct machine *m, void (*on_line)(void *ctx, const char *line), void *ctx,
                                  struct diag *diag);

#endif
