/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/machine_devices.h"

#include "devices/balloon/balloon.h"
#include "devices/blk/blk.h"
#include "devices/console/console.h"
#include "devices/mem/mem.h"
#include "devices/net/net.h"
#include "devices/rng/rng.h"
#include "devices/virtio/mmio.h"
#include "vmm/platform.h"
#include "vmm/thread.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define WHY_BYTES 300 /* a line of a device that could not be made */

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

static void put(json_t *o, const char *key, uint64_t value)
{
    json_object_set_new(o, key, json_integer((json_int_t)value));
}

/* --- balloon --------------------------------------------------------------------------------------- */

static unsigned count_balloon(const struct machine_devices_config *config)
{
    return !config->linux || !config->linux->balloon.off;
}

static int create_balloon(struct machine_devices *devices, const struct machine_devices_config *config, unsigned index,
                          struct slot *slot, struct diag *diag)
{
    static const struct linux_balloon all = {0};
    const struct linux_balloon *want = config->linux ? &config->linux->balloon : &all;
    const struct balloon_config balloon = {
        .stats = true,
        .deflate_on_oom = !want->no_deflate_on_oom,
        .hints = !want->no_hinting,
        .poison = true,
        .reporting = !want->no_reporting,
        .stats_period_ms = want->stats_seconds * 1000,
        .memory_bytes = config->memory_bytes,
    };
    int err = balloon_create(&balloon, &devices->env, &devices->balloon);

    (void)index;
    if (err)
        return diag_set(diag, EXIT_HOST, "balloon: %s", strerror(-err));
    slot->owner = devices->balloon;
    slot->device = balloon_device(devices->balloon);
    return 0;
}

static void destroy_balloon(void *owner)
{
    balloon_destroy(owner);
}

static void stats_balloon(void *owner, json_t *out)
{
    struct balloon_info info;

    balloon_info(owner, &info);
    put(out, "target_bytes", info.target_bytes);
    put(out, "actual_bytes", info.actual_bytes);
    put(out, "inflated_pages", info.nr_inflate_pages);
    put(out, "deflated_pages", info.nr_deflate_pages);
    put(out, "reported_pages", info.nr_report_pages);
    put(out, "hinted_pages", info.nr_hint_pages);
    put(out, "dropped_pages", info.nr_dropped_pages);
    put(out, "bad_pages", info.nr_bad_pages);
    put(out, "bad_buffers", info.nr_bad_buffers);
}

/* --- random numbers -------------------------------------------------------------------------------- */

static unsigned count_rng(const struct machine_devices_config *config)
{
    (void)config;
    return 1;
}

static int create_rng(struct machine_devices *devices, const struct machine_devices_config *config, unsigned index,
                      struct slot *slot, struct diag *diag)
{
    struct rng *rng = calloc(1, sizeof(*rng));

    (void)config;
    (void)index;
    if (!rng)
        return diag_set(diag, EXIT_HOST, "out of memory");
    rng_init(rng, &devices->env);
    slot->owner = rng;
    slot->device = &rng->virtio;
    return 0;
}

static void destroy_rng(void *owner)
{
    rng_fini(owner);
    free(owner);
}

/* --- disks ----------------------------------------------------------------------------------------- */

static unsigned count_disks(const struct machine_devices_config *config)
{
    return config->linux ? config->linux->nr_disks : 0;
}

/* Pins may hold an eighth of the budget: enough for two windows of a disk, far from all that reclaim can take. */
static uint64_t pin_limit(const struct machine_devices_config *config)
{
    struct mm_host_stat host = {0};

    if (!config->mm)
        return 0;
    mm_host_stat(config->mm, &host);
    return MAX_OF(host.budget_bytes / 8, 2 * BLOCK_BYTES);
}

static int create_disk(struct machine_devices *devices, const struct machine_devices_config *config, unsigned index,
                       struct slot *slot, struct diag *diag)
{
    const struct linux_disk *want = &config->linux->disk[index];
    struct blk_config blk = {
        .path = want->path,
        .id = want->id,
        .read_only = want->read_only,
        .direct = want->direct,
        .nr_queues = MAX_OF(want->nr_queues, 1u),
        .pin_limit_bytes = pin_limit(config),
        .tell = config->tell,
        .tell_ctx = config->tell_ctx,
        .name = slot->name,
    };
    char why[BLK_WHY_BYTES];
    struct blk *out;

    snprintf(slot->name, sizeof(slot->name), "disk%u", index);
    int err = blk_open(&blk, &devices->env, &out, why, sizeof(why));
    if (err)
        return diag_set(diag, err == -ENOMEM || err == -EMFILE || err == -ENFILE ? EXIT_HOST : EXIT_USAGE, "%s", why);
    slot->owner = out;
    slot->device = blk_device(out);
    return 0;
}

static void destroy_disk(void *owner)
{
    blk_close(owner);
}

static void stats_disk(void *owner, json_t *out)
{
    struct blk_stat stat;

    blk_stat(owner, &stat);
    put(out, "capacity_bytes", stat.capacity_bytes);
    put(out, "reads", stat.nr_reads);
    put(out, "writes", stat.nr_writes);
    put(out, "flushes", stat.nr_flushes);
    put(out, "discards", stat.nr_discards);
    put(out, "write_zeroes", stat.nr_write_zeroes);
    put(out, "read_bytes", stat.read_bytes);
    put(out, "written_bytes", stat.written_bytes);
    put(out, "errors", stat.nr_errors);
    put(out, "bad_requests", stat.nr_bad);
    put(out, "waits", stat.nr_waits);
}

/* --- network --------------------------------------------------------------------------------------- */

/* A host that lacks something, or an option that is wrong? */
static enum exit_code code_of(int err)
{
    return err == -EINVAL || err == -ENOENT || err == -ENODEV ? EXIT_USAGE : EXIT_HOST;
}

static unsigned count_nets(const struct machine_devices_config *config)
{
    return config->linux ? config->linux->nr_nets : 0;
}

static int create_net(struct machine_devices *devices, const struct machine_devices_config *config, unsigned index,
                      struct slot *slot, struct diag *diag)
{
    const struct linux_net *want = &config->linux->net[index];
    struct net_config net = {.tap = want->tap, .fd = -1};
    char why[WHY_BYTES];
    struct net *out;

    if (want->has_mac)
        memcpy(net.mac, want->mac, sizeof(net.mac));
    int err = net_create(&net, &devices->env, &out, why, sizeof(why));
    if (err)
        return diag_set(diag, code_of(err), "%s", why);
    slot->owner = out;
    slot->device = net_device(out);
    return 0;
}

static void destroy_net(void *owner)
{
    net_destroy(owner);
}

static void stats_net(void *owner, json_t *out)
{
    struct net_stat stat;

    net_stats(owner, &stat);
    put(out, "rx_packets", stat.rx_packets);
    put(out, "rx_bytes", stat.rx_bytes);
    put(out, "rx_dropped", stat.rx_dropped);
    put(out, "tx_packets", stat.tx_packets);
    put(out, "tx_bytes", stat.tx_bytes);
    put(out, "tx_dropped", stat.tx_dropped);
    put(out, "malformed", stat.nr_malformed);
}

/* --- console --------------------------------------------------------------------------------------- */

/* The serial port is the console of most; this one is there for its ports, or when the kernel is told to use it. */
static unsigned count_console(const struct machine_devices_config *config)
{
    return config->linux && (config->linux->nr_ports > 0 || strstr(config->linux->cmdline, "hvc0"));
}

static int create_console(struct machine_devices *devices, const struct machine_devices_config *config, unsigned index,
                          struct slot *slot, struct diag *diag)
{
    struct console_port_config port[LINUX_MAX_PORTS];
    const struct console_config console = {
        .on_line = config->console_line,
        .ctx = config->console_ctx,
        .input_fd = -1,
        .nr_ports = config->linux->nr_ports,
        .ports = port,
    };
    char why[WHY_BYTES];
    struct console *out;

    (void)index;
    for (unsigned i = 0; i < config->linux->nr_ports; i++)
        port[i] = (struct console_port_config){config->linux->port[i].name, config->linux->port[i].path};
    int err = console_create(&console, &devices->env, &out, why, sizeof(why));
    if (err)
        return diag_set(diag, code_of(err), "%s", why);
    slot->owner = out;
    slot->device = console_device(out);
    return 0;
}

static void destroy_console(void *owner)
{
    console_destroy(owner);
}

static void stats_console(void *owner, json_t *out)
{
    struct console_stat stat;

    console_stats(owner, &stat);
    put(out, "out_bytes", stat.out_bytes);
    put(out, "in_bytes", stat.in_bytes);
    put(out, "discarded_bytes", stat.discarded_bytes);
    put(out, "connections", stat.nr_connections);
    put(out, "malformed", stat.nr_malformed);
}

/* --- memory ---------------------------------------------------------------------------------------- */

static unsigned count_mem(const struct machine_devices_config *config)
{
    return config->linux && config->linux->hotplug_bytes > 0;
}

static int create_mem(struct machine_devices *devices, const struct machine_devices_config *config, unsigned index,
                      struct slot *slot, struct diag *diag)
{
    const struct mem_config mem = {
        .name = "mem0",
        .start = config->hotplug_gpa,
        .region_bytes = config->linux->hotplug_bytes,
        .node = MEM_NO_NODE,
    };
    int err = mem_create(&mem, &devices->env, &devices->mem);

    (void)index;
    if (err)
        return diag_set(diag, EXIT_HOST, "virtio-mem: %s", strerror(-err));
    slot->owner = devices->mem;
    slot->device = mem_device(devices->mem);
    return 0;
}

static void destroy_mem(void *owner)
{
    mem_destroy(owner);
}

static void stats_mem(void *owner, json_t *out)
{
    struct mem_info info;

    mem_info(owner, &info);
    put(out, "region_bytes", info.region_bytes);
    put(out, "requested_bytes", info.requested_bytes);
    put(out, "plugged_bytes", info.plugged_bytes);
    put(out, "plugged_blocks", info.nr_plugged_blocks);
    put(out, "unplugged_blocks", info.nr_unplugged_blocks);
    put(out, "errors", info.nr_errors);
}

/* In the order in which the guest finds them. */
static const struct kind kinds[] = {
    {"balloon", count_balloon, create_balloon, destroy_balloon, stats_balloon},
    {"rng", count_rng, create_rng, destroy_rng, NULL},
    {"disk", count_disks, create_disk, destroy_disk, stats_disk},
    {"net", count_nets, create_net, destroy_net, stats_net},
    {"console", count_console, create_console, destroy_console, stats_console},
    {"mem", count_mem, create_mem, destroy_mem, stats_mem},
};

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
    if (!err && config->linux)
        err = kvm_irq_fd(config->kvm, slot->mmio.irq_fd, PLATFORM_VIRTIO_GSI + number);
    return err;
}

static int attach(const struct machine_devices_config *config, struct slot *slot, unsigned number, struct diag *diag)
{
    const struct bus_device page = {.read = slot_read, .write = slot_write, .ctx = &slot->mmio};
    int err = virtio_mmio_init(&slot->mmio, slot->device);

    if (err)
        return diag_set(diag, EXIT_HOST, "device %s: %s", slot->device->name, strerror(-err));
    slot->attached = true;
    err = bus_add(config->bus, BUS_MMIO, PLATFORM_VIRTIO_GPA + number * PAGE_BYTES, VIRTIO_MMIO_BYTES, &page);
    if (!err)
        err = wire(config, slot, number);
    return err ? diag_set(diag, EXIT_HOST, "device %s: %s", slot->device->name, strerror(-err)) : 0;
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
        return diag_set(diag, EXIT_HOST, "devices: %s", strerror(-err));
    devices->env = (struct device_env){
        .mem = config->mem,
        .vm = config->vm,
        .thread = devices->mm_thread,
        .loop = devices->loop,
        .fatal = config->fatal,
        .ctx = config->ctx,
    };
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
        if (add_kind(devices, config, &kinds[i], diag))
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
    devices->running = true;
    int err = thread_start(&devices->thread, devices->name, THREAD_ANY_CPU, device_thread, devices);
    if (err)
        devices->running = false;
    if (err)
        return diag_set(diag, EXIT_HOST, "cannot start the thread of the devices: %s", strerror(-err));
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
