/* SPDX-License-Identifier: Apache-2.0 */
/* What machine_devices.c, which wires devices, and machine_kinds.c, which knows what kinds there are, share. */
#ifndef VMM_MACHINE_KINDS_H
#define VMM_MACHINE_KINDS_H

#include "devices/virtio/mmio.h"
#include "vmm/machine_devices.h"
#include "vmm/platform.h"

#include <pthread.h>

struct kind;

/* One device of the machine: its transport, and what takes it down. */
struct slot {
    struct virtio_mmio mmio;
    bool attached;
    struct virtio_device *device;
    void *owner; /* struct balloon, struct blk, ... */
    const struct kind *kind;
    char name[16]; /* of the device, where it has a number */
};

struct machine_devices {
    struct device_env env;
    struct loop *loop;
    struct mm_thread *mm_thread;
    pthread_t thread;
    bool has_thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    /* guarded by lock */
    bool running; /* the thread is in its loop, or about to be */
    char name[16];
    struct balloon *balloon;
    struct mem *mem;
    unsigned nr;
    struct slot slot[PLATFORM_MAX_VIRTIO];
};

/* A kind of device: how many the configuration asks for, and how number @index of them is made. */
struct kind {
    const char *name;
    unsigned (*count)(const struct machine_devices_config *config);
    /* 0 with slot->owner and slot->device; -1 with diag. */
    int (*create)(struct machine_devices *devices, const struct machine_devices_config *config, unsigned index,
                  struct slot *slot, struct diag *diag);
    void (*destroy)(void *owner);
    /* Adds what it counted. May be NULL. */
    void (*stats)(void *owner, json_t *out);
};

/* In the order in which the guest finds them. */
extern const struct kind machine_kinds[];
extern const unsigned machine_nr_kinds;

#endif
