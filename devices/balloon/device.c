/* SPDX-License-Identifier: Apache-2.0 */
/* The balloon as a device: features, configuration, which queue is which, turns of work, reset, target. */
#include "devices/balloon/internal.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define FEATURE(bit) (UINT64_C(1) << VIRTIO_BALLOON_F_##bit)
/* Batches of one queue before others have their turn. Chosen, unmeasured. */
#define MAX_BATCHES 4u

/* ---- queues ---- */

struct virtq *balloon_queue(struct balloon *balloon, enum balloon_role role)
{
    unsigned index = balloon->queue_of[role];
    return index < VIRTIO_MAX_QUEUES && balloon->device.queue[index].ready ? &balloon->device.queue[index] : NULL;
}

void balloon_answer(struct balloon *balloon, enum balloon_role role, struct balloon_held held)
{
    struct virtq_chain chain;
    chain.id = held.id;
    chain.nr_slots = held.nr_slots;
    chain.nr_out = chain.nr_in = 0;
    chain.out_bytes = chain.in_bytes = 0;
    virtq_push(&balloon->device.queue[balloon->queue_of[role]], &chain, 0);
}

static bool role_exists(const struct balloon *balloon, enum balloon_role role)
{
    static const uint8_t feature[NR_ROLES] = {[ROLE_STATS] = VIRTIO_BALLOON_F_STATS_VQ,
                                              [ROLE_HINT] = VIRTIO_BALLOON_F_FREE_PAGE_HINT,
                                              [ROLE_REPORT] = VIRTIO_BALLOON_F_REPORTING};
    return role == ROLE_INFLATE || role == ROLE_DEFLATE || virtio_has(&balloon->device, feature[role]);
}

static bool roles_fit(struct balloon *balloon)
{
    for (enum balloon_role role = 0; role < NR_ROLES; role++)
        if (role_exists(balloon, role) && !balloon_queue(balloon, role))
            return false;
    return true;
}

/* @packed: queues that do not exist take no number. */
static void roles_number(struct balloon *balloon, bool packed)
{
    uint8_t index = 0;
    for (enum balloon_role role = 0; role < NR_ROLES; role++) {
        bool exists = role_exists(balloon, role);
        balloon->queue_of[role] = exists ? index : VIRTIO_MAX_QUEUES;
        index = (uint8_t)(index + (exists || !packed));
    }
}

/*
 * The specification numbers the queues 0 to 4. Linux, over mmio as over PCI, gives a number only to those whose feature
 * was accepted (init_vqs leaves out names, vm_find_vqs counts names), so that reporting alone is queue 2. A patch to
 * follow the specification exists, other drivers do follow it: what the driver has made ready tells which it is.
 */
static void roles_assign(struct balloon *balloon)
{
    roles_number(balloon, true);
    if (!roles_fit(balloon)) {
        roles_number(balloon, false);
        if (!roles_fit(balloon))
            roles_number(balloon, true);
    }
    memset(balloon->role_of, NR_ROLES, sizeof(balloon->role_of));
    for (enum balloon_role role = 0; role < NR_ROLES; role++)
        if (balloon->queue_of[role] < VIRTIO_MAX_QUEUES)
            balloon->role_of[balloon->queue_of[role]] = (uint8_t)role;
}

static void roles_forget(struct balloon *balloon)
{
    memset(balloon->role_of, NR_ROLES, sizeof(balloon->role_of));
    memset(balloon->queue_of, VIRTIO_MAX_QUEUES, sizeof(balloon->queue_of));
}

/* ---- work ---- */

/* True when there may be more. */
static bool one_batch(struct balloon *balloon, enum balloon_role role)
{
    if (role == ROLE_HINT)
        return balloon_hint_take(balloon);
    if (role != ROLE_STATS)
        return balloon_batch(balloon, role);
    balloon_stats_take(balloon);
    return false;
}

/* What is in the queue, as far as it is one turn's work; the rest is left to the next turn. Lock held. */
static void take_turn(struct balloon *balloon, enum balloon_role role)
{
    struct virtq *q = balloon_queue(balloon, role);
    if (!q || !virtio_is_live(&balloon->device))
        return;
    for (unsigned i = 0; i < MAX_BATCHES; i++) {
        virtq_disable_kicks(q);
        bool more = one_batch(balloon, role);
        if (!virtio_is_live(&balloon->device))
            return;
        if (!more && !virtq_enable_kicks(q))
            return;
    }
    virtio_notify_again(&balloon->device, balloon->queue_of[role]);
}

static void balloon_notify(struct virtio_device *device, unsigned index)
{
    struct balloon *balloon = balloon_of(device);
    if (balloon->role_of[index] == NR_ROLES) {
        balloon->count.nr_stray_kicks++;
        return;
    }
    take_turn(balloon, (enum balloon_role)balloon->role_of[index]);
}

/* ---- life of a driver ---- */

static void balloon_activate(struct virtio_device *device)
{
    struct balloon *balloon = balloon_of(device);
    roles_assign(balloon);
    balloon->poison = virtio_has(device, VIRTIO_BALLOON_F_PAGE_POISON) ? le32toh(balloon->config.poison_val) : 0;
}

static void return_all(struct balloon *balloon)
{
    const struct device_env *env = balloon->device.env;
    if (!env->vm || !balloon->may_hold_pages)
        return;
    for (unsigned i = 0; i < env->mem->nr; i++)
        balloon->count.nr_failed_runs +=
            mm_balloon_return(env->vm, env->mem->region[i].start, env->mem->region[i].bytes) != 0;
    balloon->may_hold_pages = false;
}

/* The target stays: it is what the host wants of whoever drives the device next. */
static void balloon_reset(struct virtio_device *device)
{
    struct balloon *balloon = balloon_of(device);
    page_set_clear(&balloon->late); /* the guest has them still */
    return_all(balloon);
    balloon_stats_reset(balloon);
    balloon_hint_reset(balloon);
    balloon->config.actual = balloon->config.poison_val = 0;
    balloon->poison = 0;
    roles_forget(balloon);
}

static void balloon_config_read(struct virtio_device *device, unsigned offset, void *to, unsigned bytes)
{
    memcpy(to, (const char *)&balloon_of(device)->config + offset, bytes);
}

static void balloon_config_write(struct virtio_device *device, unsigned offset, const void *from, unsigned bytes)
{
    struct balloon *balloon = balloon_of(device);
    const unsigned actual = offsetof(struct virtio_balloon_config, actual);
    const unsigned poison = offsetof(struct virtio_balloon_config, poison_val);
    /* Poison is told before the driver is live, and stays. */
    bool poison_open = virtio_has(device, VIRTIO_BALLOON_F_PAGE_POISON) && !virtio_is_live(device);

    for (unsigned i = 0; i < bytes; i++) {
        unsigned at = offset + i;
        bool good = (at >= actual && at < actual + sizeof(__le32)) ||
                    (poison_open && at >= poison && at < poison + sizeof(__le32));
        if (good)
            ((char *)&balloon->config)[at] = ((const char *)from)[i];
        balloon->count.nr_bad_config_writes += !good;
    }
}

static const struct virtio_ops balloon_ops = {.activate = balloon_activate,
                                              .reset = balloon_reset,
                                              .notify = balloon_notify,
                                              .config_read = balloon_config_read,
                                              .config_write = balloon_config_write};

/* ---- making and unmaking ---- */

static uint64_t memory_of(const struct guest_mem *mem)
{
    uint64_t bytes = 0;
    for (unsigned i = 0; i < mem->nr; i++)
        bytes += mem->region[i].bytes;
    return bytes;
}

static uint64_t features_of(const struct balloon_config *config)
{
    return (config->must_tell_host ? FEATURE(MUST_TELL_HOST) : 0) | (config->stats ? FEATURE(STATS_VQ) : 0) |
           (config->deflate_on_oom ? FEATURE(DEFLATE_ON_OOM) : 0) | (config->hints ? FEATURE(FREE_PAGE_HINT) : 0) |
           (config->poison ? FEATURE(PAGE_POISON) : 0) | (config->reporting ? FEATURE(REPORTING) : 0);
}

static int timer_open(struct balloon *balloon, void (*ready)(void *ctx, uint32_t events), int *out)
{
    *out = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (*out < 0)
        return -errno;
    int err = loop_add(balloon->device.env->loop, *out, EPOLLIN, ready, balloon);
    if (err) {
        close(*out);
        *out = -1;
    }
    return err;
}

static void timer_close(struct balloon *balloon, int fd)
{
    if (fd < 0)
        return;
    loop_remove(balloon->device.env->loop, fd);
    close(fd);
}

static int parts_open(struct balloon *balloon)
{
    const struct guest_mem *mem = balloon->device.env->mem;
    balloon->hint_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int err = balloon->hint_fd < 0 ? -errno : 0;
    if (!err)
        err = page_set_init(&balloon->batch, mem);
    if (!err)
        err = page_set_init(&balloon->late, mem);
    if (!err)
        err = timer_open(balloon, balloon_stats_timer, &balloon->stats_fd);
    if (!err)
        err = timer_open(balloon, balloon_late_timer, &balloon->late_fd);
    return err;
}

static void parts_close(struct balloon *balloon)
{
    timer_close(balloon, balloon->late_fd);
    timer_close(balloon, balloon->stats_fd);
    if (balloon->hint_fd >= 0)
        close(balloon->hint_fd);
    page_set_fini(&balloon->hints);
    page_set_fini(&balloon->late);
    page_set_fini(&balloon->batch);
}

int balloon_create(const struct balloon_config *config, const struct device_env *env, struct balloon **out)
{
    uint64_t memory_bytes = config->memory_bytes ? config->memory_bytes : memory_of(env->mem);
    if (config->target_bytes > memory_bytes || memory_bytes >> PAGE_SHIFT > UINT32_MAX)
        return -EINVAL;
    struct balloon *balloon = calloc(1, sizeof(*balloon));
    if (!balloon)
        return -ENOMEM;
    balloon->memory_bytes = memory_bytes;
    balloon->hint_fd = balloon->stats_fd = balloon->late_fd = -1;
    balloon->device = (struct virtio_device){.ops = &balloon_ops,
                                             .name = "balloon",
                                             .env = env,
                                             .id = VIRTIO_ID_BALLOON,
                                             .features = features_of(config),
                                             .nr_queues = NR_ROLES,
                                             .queue_size = VIRTQ_MAX_SIZE,
                                             .config_bytes = sizeof(balloon->config)};
    balloon->config.num_pages = htole32((uint32_t)(config->target_bytes >> PAGE_SHIFT));
    roles_forget(balloon);
    int err = parts_open(balloon);
    if (err) {
        parts_close(balloon);
        free(balloon);
        return err;
    }
    virtio_init(&balloon->device);
    if (config->stats && config->stats_period_ms)
        balloon_set_stats_period(balloon, config->stats_period_ms);
    *out = balloon;
    return 0;
}

void balloon_destroy(struct balloon *balloon)
{
    return_all(balloon);
    parts_close(balloon);
    virtio_fini(&balloon->device);
    free(balloon);
}

struct virtio_device *balloon_device(struct balloon *balloon)
{
    return &balloon->device;
}

/* ---- what its user asks ---- */

int balloon_set_target(struct balloon *balloon, uint64_t target_bytes)
{
    if (target_bytes > balloon->memory_bytes)
        return -EINVAL;
    __le32 num_pages = htole32((uint32_t)(target_bytes >> PAGE_SHIFT));
    pthread_mutex_lock(&balloon->device.lock);
    if (balloon->config.num_pages != num_pages) {
        balloon->config.num_pages = num_pages;
        virtio_config_changed(&balloon->device);
    }
    pthread_mutex_unlock(&balloon->device.lock);
    return 0;
}

void balloon_info(struct balloon *balloon, struct balloon_info *out)
{
    struct virtio_device *device = &balloon->device;
    struct mm_vm_stat stat = {0};
    pthread_mutex_lock(&device->lock);
    *out = balloon->count;
    out->target_bytes = (uint64_t)le32toh(balloon->config.num_pages) << PAGE_SHIFT;
    out->memory_bytes = balloon->memory_bytes;
    uint64_t actual = le32toh(balloon->config.actual);
    out->actual_bytes = (actual - MIN_OF(actual, balloon->late.nr_pages)) << PAGE_SHIFT;
    out->live = virtio_is_live(device);
    out->oom_deflates = virtio_has(device, VIRTIO_BALLOON_F_DEFLATE_ON_OOM);
    out->poison = balloon->poison;
    pthread_mutex_unlock(&device->lock);
    if (device->env->vm)
        mm_vm_stat(device->env->vm, &stat);
    out->dropped_bytes = stat.balloon_bytes;
}
