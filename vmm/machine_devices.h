/* SPDX-License-Identifier: Apache-2.0 */
/*
 * machine_devices: the virtio devices of one machine, each in its page of the bus, and the thread that serves them.
 *
 * Made in the order of one table, in which the guest finds them too. Taken down in reverse: thread, transports, devices,
 * loop. The thread may wait for a page of the guest: fault threads have to live longer than it.
 */
#ifndef VMM_MACHINE_DEVICES_H
#define VMM_MACHINE_DEVICES_H

#include "mm/mm.h"
#include "vmm/bus.h"
#include "vmm/kvm.h"
#include "vmm/linux_config.h"

#include <jansson.h>

struct machine_devices;
struct balloon;
struct mem;

struct machine_devices_config {
    const char *name;                /* of the VM */
    const struct linux_config *want; /* which devices */
    bool interrupts;                 /* the guest has the platform's interrupt controllers; else it polls */
    const struct guest_mem *mem;     /* outlives the devices */
    uint64_t memory_bytes;           /* without virtio-mem's */
    gpa_t hotplug_gpa;               /* of virtio-mem's region */
    struct mm_host *mm;              /* NULL with vm: --backend kernel */
    struct mm_vm *vm;
    struct bus *bus;
    const struct kvm *kvm;                                          /* for doorbells and interrupts */
    bool (*no_page)(void *ctx, int err, gpa_t gpa, uint64_t *seen); /* as in devices/env.h */
    void *ctx;
    /* A line of the virtio console, under its lock; NULL: nobody listens. */
    void (*console_line)(void *console_ctx, const char *line);
    void *console_ctx;
    /* One line for the user; from the device thread. May be NULL. */
    void (*tell)(void *tell_ctx, const char *line);
    void *tell_ctx;
};

/* All devices on the bus, at rest. 0, or -1 with diag and nothing left but ranges of the bus. @config may go. */
must_check int machine_devices_create(const struct machine_devices_config *config, struct machine_devices **out,
                                      struct diag *diag);
void machine_devices_destroy(struct machine_devices *devices);
/* virtio-mmio devices 0 .. n - 1 of vmm/platform.h. */
unsigned machine_devices_nr(const struct machine_devices *devices);

/* 0, or -1 with diag. */
must_check int machine_devices_start(struct machine_devices *devices, struct diag *diag);
/* Any thread, returns at once: the thread leaves its loop soon. */
void machine_devices_stop(struct machine_devices *devices);
/* Waits for the thread, if there is one. What was under way in a device goes on until machine_devices_destroy. */
void machine_devices_join(struct machine_devices *devices);

/*
 * machine_devices_call - @run in the device thread, between two callbacks of devices, with the thread's mm_thread (NULL:
 * --backend kernel). Returns when it is done: 0; -ECANCELED: the thread is not there or has ended, @run was not called;
 * or -errno of eventfd and loop_add. Not from the device thread.
 */
must_check int machine_devices_call(struct machine_devices *devices, void (*run)(void *ctx, struct mm_thread *thread),
                                    void *ctx);

struct balloon *machine_devices_balloon(const struct machine_devices *devices);
struct mem *machine_devices_mem(const struct machine_devices *devices);
/* As machine_devices_json. */
json_t *machine_devices_stats(const struct machine_devices *devices);

#endif
