/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/machine_kinds.h"

#include "vmm/thread.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* --- on the bus ------------------------------------------------------------------------------------ */

static uint64_t slot_read(void *ctx, const struct bus_access *access)
{
    return virtio_mmio_read(ctx, access->offset, access->bytes);
}

static void slot_write(void *ctx, const struct bus_access *access, uint64_t value)
{
    virtio_mmio_write(ctx, access->offset, access->bytes, value);
}

/* Kicks without an exit, and interrupts without a thread of ours. */
static int wire(const struct machine_devices_config *config, struct slot *slot, unsigned number)
{
    gpa_t notify = {PLATFORM_VIRTIO_GPA + number * PAGE_BYTES + VIRTIO_MMIO_NOTIFY};
    int err = 0;

    for (unsigned i = 0; i < slot->device->nr_queues && !err; i++)
        err = kvm_doorbell(config->kvm, slot->mmio.kick_fd[i], notify, i);
    if (!err && config->interrupts)
        err = kvm_irq_fd(config->kvm, slot->mmio.irq_fd, PLATFORM_VIRTIO_GSI + number);
    return err;
}

static int attach(const struct machine_devices_config *config, struct slot *slot, unsigned number, struct diag *diag)
{
    const struct bus_device page = {.read = slot_read, .write = slot_write, .ctx = &slot->mmio};
    int err = virtio_mmio_init(&slot->mmio, slot->device);

    if (err)
        return diag_host(diag, -err, "device %s", slot->device->name);
    slot->attached = true;
    err = bus_add(config->bus, BUS_MMIO, PLATFORM_VIRTIO_GPA + number * PAGE_BYTES, VIRTIO_MMIO_BYTES, &page);
    if (!err)
        err = wire(config, slot, number);
    return err ? diag_host(diag, -err, "device %s", slot->device->name) : 0;
}

/* --- all of them ----------------------------------------------------------------------------------- */

static int add_kind(struct machine_devices *devices, const struct machine_devices_config *config,
                    const struct kind *kind, struct diag *diag)
{
    unsigned count = kind->count(config);

    for (unsigned i = 0; i < count; i++) {
        struct slot *slot = &devices->slot[devices->nr];

        if (devices->nr == PLATFORM_MAX_VIRTIO)
            return diag_set(diag, EXIT_USAGE, "a VM has room for %u devices, and no more", PLATFORM_MAX_VIRTIO);
        if (kind->create(devices, config, i, slot, diag))
            return -1;
        slot->kind = kind;
        devices->nr++;
        if (attach(config, slot, devices->nr - 1, diag))
            return -1;
    }
    return 0;
}

static int create(struct machine_devices *devices, const struct machine_devices_config *config, struct diag *diag)
{
    int err = loop_create(&devices->loop);

    if (!err && config->vm)
        err = mm_thread_create(config->mm, &devices->mm_thread);
    if (err)
        return diag_host(diag, -err, "devices");
    devices->env = (struct device_env){
        .mem = config->mem,
        .vm = config->vm,
        .thread = devices->mm_thread,
        .loop = devices->loop,
        .no_page = config->no_page,
        .ctx = config->ctx,
    };
    for (size_t i = 0; i < machine_nr_kinds; i++)
        if (add_kind(devices, config, &machine_kinds[i], diag))
            return -1;
    return 0;
}

int machine_devices_create(const struct machine_devices_config *config, struct machine_devices **out, struct diag *diag)
{
    struct machine_devices *devices = calloc(1, sizeof(*devices));

    if (!devices)
        return diag_set(diag, EXIT_HOST, "out of memory");
    pthread_mutex_init(&devices->lock, NULL);
    pthread_cond_init(&devices->changed, NULL);
    snprintf(devices->name, sizeof(devices->name), "%.9s/dev", config->name);
    if (create(devices, config, diag)) {
        machine_devices_destroy(devices);
        return -1;
    }
    *out = devices;
    return 0;
}

void machine_devices_destroy(struct machine_devices *devices)
{
    machine_devices_stop(devices);
    machine_devices_join(devices);
    while (devices->nr > 0) {
        struct slot *slot = &devices->slot[--devices->nr];

        if (slot->attached)
            virtio_mmio_fini(&slot->mmio);
        slot->kind->destroy(slot->owner);
    }
    if (devices->mm_thread)
        mm_thread_destroy(devices->mm_thread);
    if (devices->loop)
        loop_destroy(devices->loop);
    pthread_cond_destroy(&devices->changed);
    pthread_mutex_destroy(&devices->lock);
    free(devices);
}

unsigned machine_devices_nr(const struct machine_devices *devices)
{
    return devices->nr;
}

static void *device_thread(void *arg)
{
    struct machine_devices *devices = arg;

    loop_run(devices->loop);
    pthread_mutex_lock(&devices->lock);
    devices->running = false;
    pthread_cond_broadcast(&devices->changed);
    pthread_mutex_unlock(&devices->lock);
    return NULL;
}

int machine_devices_start(struct machine_devices *devices, struct diag *diag)
{
    /* A call may come from another thread already: it waits only for a thread that is there. */
    pthread_mutex_lock(&devices->lock);
    int err = thread_start(&devices->thread, devices->name, THREAD_ANY_CPU, device_thread, devices);
    devices->running = !err;
    pthread_mutex_unlock(&devices->lock);
    if (err)
        return diag_host(diag, -err, "cannot start the thread of the devices");
    devices->has_thread = true;
    return 0;
}

void machine_devices_stop(struct machine_devices *devices)
{
    if (devices->loop)
        loop_stop(devices->loop);
}

void machine_devices_join(struct machine_devices *devices)
{
    if (!devices->has_thread)
        return;
    pthread_join(devices->thread, NULL);
    devices->has_thread = false;
}

/* --- a call in the device thread ------------------------------------------------------------------- */

struct call {
    struct machine_devices *devices;
    void (*run)(void *ctx, struct mm_thread *thread);
    void *ctx;
    int fd;    /* readable from the start */
    bool done; /* guarded by devices.lock */
};

static void on_call(void *ctx, uint32_t events)
{
    struct call *call = ctx;
    struct machine_devices *devices = call->devices;
    uint64_t count;

    (void)events;
    (void)!read(call->fd, &count, sizeof(count));
    call->run(call->ctx, devices->mm_thread);
    pthread_mutex_lock(&devices->lock);
    call->done = true;
    pthread_cond_broadcast(&devices->changed);
    pthread_mutex_unlock(&devices->lock);
}

int machine_devices_call(struct machine_devices *devices, void (*run)(void *ctx, struct mm_thread *thread), void *ctx)
{
    struct call call = {.devices = devices, .run = run, .ctx = ctx, .fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK)};

    if (call.fd < 0)
        return -errno;
    int err = loop_add(devices->loop, call.fd, EPOLLIN, on_call, &call);
    if (err) {
        close(call.fd);
        return err;
    }
    pthread_mutex_lock(&devices->lock);
    while (!call.done && devices->running)
        pthread_cond_wait(&devices->changed, &devices->lock);
    bool done = call.done;
    pthread_mutex_unlock(&devices->lock);
    loop_remove(devices->loop, call.fd);
    close(call.fd);
    return done ? 0 : -ECANCELED;
}

struct balloon *machine_devices_balloon(const struct machine_devices *devices)
{
    return devices->balloon;
}

struct mem *machine_devices_mem(const struct machine_devices *devices)
{
    return devices->mem;
}

static json_t *slot_stats(struct slot *slot)
{
    json_t *o = json_object();
    struct virtio_device *device = slot->device;

    pthread_mutex_lock(&device->lock);
    json_object_set_new(o, "name", json_string(device->name));
    json_object_set_new(o, "live", json_boolean(virtio_is_live(device)));
    json_object_set_new(o, "kicks", json_integer((json_int_t)device->nr_kicks));
    json_object_set_new(o, "interrupts", json_integer((json_int_t)slot->mmio.nr_interrupts));
    json_object_set_new(o, "resets", json_integer((json_int_t)device->nr_resets));
    json_object_set_new(o, "broken", json_integer((json_int_t)device->nr_broken));
    pthread_mutex_unlock(&device->lock);
    if (slot->kind->stats)
        slot->kind->stats(slot->owner, o);
    return o;
}

json_t *machine_devices_stats(const struct machine_devices *devices)
{
    json_t *list = json_array();

    for (unsigned i = 0; i < devices->nr; i++)
        json_array_append_new(list, slot_stats((struct slot *)&devices->slot[i]));
    return list;
}
