/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The statistics queue works the other way round: the guest leaves a buffer with statistics, the device keeps it, and
 * answering it asks for the next one.
 */
#include "devices/balloon/internal.h"

#include <endian.h>
#include <errno.h>
#include <string.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

/* Entries read of one buffer: four times what Linux has. */
#define MAX_ENTRIES (4u * BALLOON_NR_STATS)

const char *const balloon_stat_names[BALLOON_NR_STATS] = {
    [VIRTIO_BALLOON_S_SWAP_IN] = "swap_in_bytes",
    [VIRTIO_BALLOON_S_SWAP_OUT] = "swap_out_bytes",
    [VIRTIO_BALLOON_S_MAJFLT] = "major_faults",
    [VIRTIO_BALLOON_S_MINFLT] = "minor_faults",
    [VIRTIO_BALLOON_S_MEMFREE] = "free_bytes",
    [VIRTIO_BALLOON_S_MEMTOT] = "total_bytes",
    [VIRTIO_BALLOON_S_AVAIL] = "available_bytes",
    [VIRTIO_BALLOON_S_CACHES] = "disk_caches_bytes",
    [VIRTIO_BALLOON_S_HTLB_PGALLOC] = "hugetlb_allocations",
    [VIRTIO_BALLOON_S_HTLB_PGFAIL] = "hugetlb_failures",
    [VIRTIO_BALLOON_S_OOM_KILL] = "oom_kills",
    [VIRTIO_BALLOON_S_ALLOC_STALL] = "alloc_stalls",
    [VIRTIO_BALLOON_S_ASYNC_SCAN] = "async_scan_bytes",
    [VIRTIO_BALLOON_S_DIRECT_SCAN] = "direct_scan_bytes",
    [VIRTIO_BALLOON_S_ASYNC_RECLAIM] = "async_reclaim_bytes",
    [VIRTIO_BALLOON_S_DIRECT_RECLAIM] = "direct_reclaim_bytes",
};

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static void read_entries(struct balloon *balloon, const struct virtq *q, const struct virtq_chain *chain)
{
    struct virtio_balloon_stat entry[MAX_ENTRIES];
    struct balloon_stats *stats = &balloon->stats;
    uint64_t nr = MIN_OF(chain->out_bytes / sizeof(entry[0]), MAX_ENTRIES);

    if (chain->nr_in || chain->out_bytes % sizeof(entry[0]) || chain->out_bytes > sizeof(entry))
        balloon->count.nr_bad_buffers++;
    nr = virtq_read(q, chain, 0, entry, nr * sizeof(entry[0])) / sizeof(entry[0]);
    if (!nr)
        return; /* the first buffer may be empty */
    stats->valid = 0;
    for (uint64_t i = 0; i < nr; i++) {
        uint16_t tag = le16toh(entry[i].tag);
        if (tag >= BALLOON_NR_STATS)
            continue; /* from a newer guest */
        stats->value[tag] = le64toh(entry[i].val);
        stats->valid |= UINT32_C(1) << tag;
    }
    stats->time_ns = now_ns();
    stats->nr_updates++;
}

/* True when a buffer was answered, and the guest has to be told. */
static bool answer_buffer(struct balloon *balloon)
{
    if (!balloon->has_stats_buffer)
        return false;
    balloon->has_stats_buffer = false;
    balloon_answer(balloon, ROLE_STATS, balloon->stats_buffer);
    return true;
}

/* The driver has one buffer at a time; of several the last is kept. */
void balloon_stats_take(struct balloon *balloon)
{
    struct virtio_device *device = &balloon->device;
    unsigned index = balloon->queue_of[ROLE_STATS];
    struct virtq_chain chain;
    bool answered = false;

    for (unsigned i = 0; i < VIRTQ_MAX_SIZE && virtio_pop(device, index, &chain); i++) {
        if (answer_buffer(balloon)) {
            answered = true;
            balloon->count.nr_bad_buffers++;
        }
        read_entries(balloon, &device->queue[index], &chain);
        balloon->has_stats_buffer = true;
        balloon->stats_buffer = (struct balloon_held){chain.id, chain.nr_slots};
    }
    if (answered && virtio_is_live(device))
        virtio_announce(device, index);
}

void balloon_stats_reset(struct balloon *balloon)
{
    balloon->has_stats_buffer = false;
    balloon->stats = (struct balloon_stats){0};
}

static int poll_locked(struct balloon *balloon)
{
    if (!virtio_is_live(&balloon->device) || !balloon_queue(balloon, ROLE_STATS))
        return -ENOTSUP;
    if (!answer_buffer(balloon))
        return -EAGAIN;
    virtio_announce(&balloon->device, balloon->queue_of[ROLE_STATS]);
    return 0;
}

int balloon_poll_stats(struct balloon *balloon)
{
    pthread_mutex_lock(&balloon->device.lock);
    int err = poll_locked(balloon);
    pthread_mutex_unlock(&balloon->device.lock);
    return err;
}

void balloon_stats_timer(void *ctx, uint32_t events)
{
    struct balloon *balloon = ctx;
    uint64_t expired;
    (void)events;
    if (read(balloon->stats_fd, &expired, sizeof(expired)) != sizeof(expired))
        return;
    /* Without a driver, or when it is slow, there is nothing to ask. */
    if (balloon_poll_stats(balloon))
        return;
}

void balloon_set_stats_period(struct balloon *balloon, uint32_t period_ms)
{
    const struct timespec period = {.tv_sec = period_ms / 1000, .tv_nsec = (long)(period_ms % 1000) * 1000000};
    const struct itimerspec timer = {.it_interval = period, .it_value = period};
    /* Cannot fail: a timerfd, and nanoseconds below a second. */
    (void)timerfd_settime(balloon->stats_fd, 0, &timer, NULL);
}

void balloon_stats(struct balloon *balloon, struct balloon_stats *out)
{
    pthread_mutex_lock(&balloon->device.lock);
    *out = balloon->stats;
    pthread_mutex_unlock(&balloon->device.lock);
}
