/* SPDX-License-Identifier: Apache-2.0 */
#include "devices/blk/request.h"

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

/* Data segments of a request: the queue's limit without header and status. */
#define SEG_MAX (VIRTQ_MAX_SEGMENTS - 2)
/* Before other devices of the loop have their turn. Chosen. */
#define MAX_ROUNDS 16u

static struct blk *blk_of(struct virtio_device *device)
{
    return container_of(device, struct blk, device);
}

/* --- requests come and go -------------------------------------------------------------------------- */

/*
 * Takes chains while there are free requests, at most as many as there are requests at all: a driver may make bad ones,
 * which end at once, as fast as we take them. The queue is starved when there may be more.
 */
static void take_chains(struct blk *b, unsigned index)
{
    struct virtq *q = &b->device.queue[index];
    unsigned nr = 0;
    b->starved &= ~(1u << index);
    do {
        virtq_disable_kicks(q);
        for (; b->free && nr < BLK_MAX_REQUESTS; nr++) {
            struct blk_request *r = b->free;
            if (!virtio_pop(&b->device, index, &r->chain))
                break;
            b->free = r->next;
            r->queue = index;
            blk_request_begin(b, r);
        }
        if (!virtio_is_live(&b->device))
            return;
        if (!b->free || nr == BLK_MAX_REQUESTS) {
            b->starved |= 1u << index;
            return;
        }
    } while (virtq_enable_kicks(q));
}

static void take_starved(struct blk *b)
{
    for (unsigned i = 0; i < b->device.nr_queues && b->free; i++)
        if (b->starved & 1u << i)
            take_chains(b, i);
}

static void announce(struct blk *b)
{
    for (unsigned i = 0; i < b->device.nr_queues; i++)
        if (b->announce & 1u << i)
            virtio_announce(&b->device, i);
    b->announce = 0;
}

/* Sends what was queued, and goes on with what ended meanwhile: pages in the host's cache do at once. */
static void pump(struct blk *b)
{
    unsigned round = 0;
    do {
        struct blk_op *op;
        blk_io_submit(&b->io);
        while ((op = blk_io_reap(&b->io)))
            blk_request_step(b, container_of(op, struct blk_request, op));
        blk_requests_unpark(b);
        announce(b);
        if (virtio_is_live(&b->device))
            take_starved(b);
    } while ((b->io.unsent.head || b->announce) && ++round < MAX_ROUNDS);
    blk_io_submit(&b->io);
    announce(b);
    /* Whatever is left to do without a completion of the ring's. */
    if (b->io.done.head || (b->starved && b->free))
        blk_io_signal(&b->io);
}

static void blk_notify(struct virtio_device *device, unsigned index)
{
    struct blk *b = blk_of(device);
    if (index >= device->nr_queues)
        return;
    take_chains(b, index);
    pump(b);
}

static void completed(void *ctx, uint32_t events)
{
    struct blk *b = ctx;
    (void)events;
    pthread_mutex_lock(&b->device.lock);
    pump(b);
    pthread_mutex_unlock(&b->device.lock);
}

static void signalled(void *ctx, uint32_t events)
{
    struct blk *b = ctx;
    blk_io_consume(&b->io);
    completed(ctx, events);
}

/* --- reset and configuration ------------------------------------------------------------------------ */

/* Touches no guest memory. Nothing is unsent: pump leaves nothing. */
static void blk_reset(struct virtio_device *device)
{
    struct blk *b = blk_of(device);
    struct blk_op *op;
    struct blk_request *r;
    while ((op = blk_io_wait(&b->io)))
        blk_request_drop(b, container_of(op, struct blk_request, op));
    while ((r = b->parked)) {
        b->parked = r->next;
        blk_request_drop(b, r);
    }
    b->starved = b->announce = 0;
    b->space.wce = !b->file.read_only;
}

/* Who can set the cache mode but cannot flush sees no cache (5.2.5.2), and has none: is_writeback. */
static bool shows_no_cache(const struct virtio_device *device)
{
    return virtio_has(device, VIRTIO_BLK_F_CONFIG_WCE) && !virtio_has(device, VIRTIO_BLK_F_FLUSH);
}

static void blk_config_read(struct virtio_device *device, unsigned offset, void *to, unsigned bytes)
{
    struct virtio_blk_config space = blk_of(device)->space;
    if (shows_no_cache(device))
        space.wce = 0;
    memcpy(to, (const char *)&space + offset, bytes);
}

/* One field can be written: the cache mode. It holds for requests that end from now on. */
static void blk_config_write(struct virtio_device *device, unsigned offset, const void *from, unsigned bytes)
{
    unsigned wce = offsetof(struct virtio_blk_config, wce);
    if (virtio_has(device, VIRTIO_BLK_F_CONFIG_WCE) && offset <= wce && wce - offset < bytes)
        blk_of(device)->space.wce = ((const uint8_t *)from)[wce - offset] & 1;
}

static const struct virtio_ops blk_ops = {
    .reset = blk_reset,
    .notify = blk_notify,
    .config_read = blk_config_read,
    .config_write = blk_config_write,
};

static void fill_space(struct blk *b)
{
    const struct blk_file *f = &b->file;
    struct virtio_blk_config *c = &b->space;
    uint32_t page_blocks = (uint32_t)PAGE_BYTES / f->block_bytes;
    c->capacity = htole64(f->capacity_bytes / BLK_SECTOR_BYTES);
    c->seg_max = htole32(SEG_MAX);
    c->blk_size = htole32(f->block_bytes);
    c->physical_block_exp = (uint8_t)__builtin_ctz(page_blocks); /* the host's caches work in pages */
    c->min_io_size = htole16((uint16_t)page_blocks);
    c->wce = !f->read_only;
    c->num_queues = htole16((uint16_t)b->device.nr_queues);
    if (f->read_only)
        return;
    if (f->can_punch) {
        c->max_discard_sectors = htole32(BLK_MAX_RANGE_SECTORS);
        c->max_discard_seg = htole32(BLK_MAX_RANGES);
        c->discard_sector_alignment = htole32((uint32_t)(f->hole_bytes / BLK_SECTOR_BYTES));
    }
    c->max_write_zeroes_sectors = htole32(BLK_MAX_RANGE_SECTORS);
    c->max_write_zeroes_seg = htole32(BLK_MAX_RANGES);
    c->write_zeroes_may_unmap = 1;
}

static uint64_t features_of(const struct blk *b)
{
    uint64_t bits = UINT64_C(1) << VIRTIO_BLK_F_SEG_MAX | UINT64_C(1) << VIRTIO_BLK_F_BLK_SIZE |
                    UINT64_C(1) << VIRTIO_BLK_F_TOPOLOGY;
    if (b->device.nr_queues > 1)
        bits |= UINT64_C(1) << VIRTIO_BLK_F_MQ;
    if (b->file.read_only)
        return bits | UINT64_C(1) << VIRTIO_BLK_F_RO;
    bits |= UINT64_C(1) << VIRTIO_BLK_F_FLUSH | UINT64_C(1) << VIRTIO_BLK_F_CONFIG_WCE |
            UINT64_C(1) << VIRTIO_BLK_F_WRITE_ZEROES;
    if (b->file.can_punch)
        bits |= UINT64_C(1) << VIRTIO_BLK_F_DISCARD;
    return bits;
}

/* --- life -------------------------------------------------------------------------------------------- */

static void set_id(struct blk *b, const struct blk_config *config)
{
    const char *id = config->id, *slash = strrchr(config->path, '/');
    if (!id || !id[0])
        id = slash ? slash + 1 : config->path;
    memcpy(b->id, id, strnlen(id, sizeof(b->id)));
}

static int make_buffers(struct blk *b)
{
    b->requests = calloc(BLK_MAX_REQUESTS, sizeof(*b->requests));
    if (!b->requests)
        return -ENOMEM;
    if (b->file.direct && posix_memalign((void **)&b->bounce, PAGE_BYTES, BLK_BOUNCE_BYTES))
        return -ENOMEM;
    if (!b->file.read_only && posix_memalign((void **)&b->zeros, PAGE_BYTES, BLK_ZEROS_BYTES))
        return -ENOMEM;
    if (b->zeros)
        memset(b->zeros, 0, BLK_ZEROS_BYTES);
    for (unsigned i = BLK_MAX_REQUESTS; i-- > 0;) {
        b->requests[i].next = b->free;
        b->free = &b->requests[i];
    }
    return 0;
}

static void free_buffers(struct blk *b)
{
    free(b->requests);
    free(b->bounce);
    free(b->zeros);
    free(b);
}

static void make_device(struct blk *b, const struct blk_config *config, const struct device_env *env)
{
    b->device = (struct virtio_device){
        .ops = &blk_ops,
        .name = config->name ? config->name : "disk",
        .env = env,
        .id = VIRTIO_ID_BLOCK,
        .nr_queues = config->nr_queues,
        .queue_size = VIRTQ_MAX_SIZE,
        .config_bytes = sizeof(b->space),
    };
    b->device.features = features_of(b);
    b->max_pinned_blocks =
        config->pin_limit_bytes ? MAX_OF(config->pin_limit_bytes / BLOCK_BYTES, UINT64_C(1)) : UINT64_MAX;
    b->tell = config->tell;
    b->tell_ctx = config->tell_ctx;
    set_id(b, config);
    fill_space(b);
}

static int host_lacks(int err, char *why, size_t why_bytes)
{
    snprintf(why, why_bytes, "no room for a disk: %s; end other programs, or raise `ulimit -n`", strerror(-err));
    return err;
}

int blk_open(const struct blk_config *config, const struct device_env *env, struct blk **out, char *why,
             size_t why_bytes)
{
    if (config->nr_queues < 1 || config->nr_queues > BLK_MAX_QUEUES) {
        snprintf(why, why_bytes, "disk %.150s: the number of queues is 1 to %d", config->path, BLK_MAX_QUEUES);
        return -EINVAL;
    }
    struct blk *b = calloc(1, sizeof(*b));
    if (!b)
        return host_lacks(-ENOMEM, why, why_bytes);
    int err = blk_file_open(config, &b->file, why, why_bytes);
    if (err)
        goto no_file;
    err = make_buffers(b);
    if (!err)
        err = blk_io_init(&b->io, b->file.fd, BLK_MAX_REQUESTS, !config->no_uring);
    if (err)
        goto no_io;
    make_device(b, config, env);
    err = loop_add(env->loop, b->io.event_fd, EPOLLIN, signalled, b);
    if (err)
        goto no_loop;
    if (b->io.has_ring)
        err = loop_add(env->loop, blk_io_ring_fd(&b->io), EPOLLIN, completed, b);
    if (err)
        goto no_ring;
    virtio_init(&b->device);
    *out = b;
    return 0;
no_ring:
    loop_remove(env->loop, b->io.event_fd);
no_loop:
    blk_io_fini(&b->io);
no_io:
    blk_file_close(&b->file);
    host_lacks(err, why, why_bytes);
no_file:
    free_buffers(b);
    return err;
}

void blk_close(struct blk *b)
{
    if (!b)
        return;
    pthread_mutex_lock(&b->device.lock);
    blk_reset(&b->device);
    pthread_mutex_unlock(&b->device.lock);
    if (b->io.has_ring)
        loop_remove(b->device.env->loop, blk_io_ring_fd(&b->io));
    loop_remove(b->device.env->loop, b->io.event_fd);
    blk_io_fini(&b->io);
    blk_file_close(&b->file);
    virtio_fini(&b->device);
    free_buffers(b);
}

struct virtio_device *blk_device(struct blk *b)
{
    return &b->device;
}

void blk_stat(struct blk *b, struct blk_stat *out)
{
    pthread_mutex_lock(&b->device.lock);
    *out = b->stat;
    out->capacity_bytes = b->file.capacity_bytes;
    out->block_bytes = b->file.block_bytes;
    out->read_only = b->file.read_only;
    out->direct = b->file.direct;
    out->uring = b->io.has_ring && !b->io.refused;
    out->nr_submits = b->io.nr_submits;
    out->pinned_bytes = b->pinned_blocks * BLOCK_BYTES;
    pthread_mutex_unlock(&b->device.lock);
}
