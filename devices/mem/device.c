/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-mem as a device: features, configuration, its one queue, what its user asks. */
#include "devices/mem/internal.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define QUEUE_SIZE 64 /* Linux has one request under way */
/* Requests before other devices have their turn. Chosen, unmeasured. */
#define MAX_REQUESTS 16u

/* ---- the map ---- */

void mem_map_set(struct mem *mem, uint64_t first, uint64_t nr, bool plugged)
{
    for (uint64_t block = first; block < first + nr; block++) {
        if (mem_map_has(mem, block) == plugged)
            continue;
        __atomic_fetch_xor(&mem->map[block / 64], UINT64_C(1) << block % 64, __ATOMIC_RELAXED);
        mem->plugged_blocks = plugged ? mem->plugged_blocks + 1 : mem->plugged_blocks - 1;
    }
    uint64_t plugged_size = htole64(mem->plugged_blocks * MEM_BLOCK_BYTES);
    if (mem->config.plugged_size == plugged_size)
        return;
    mem->config.plugged_size = plugged_size;
    /* Its two halves are read one after the other (4.2.2.1). No interrupt: the driver did it (5.15.4.2). */
    mem->device.config_generation++;
}

uint64_t mem_map_count(const struct mem *mem, uint64_t first, uint64_t nr)
{
    uint64_t plugged = 0;
    for (uint64_t block = first; block < first + nr; block++)
        plugged += mem_map_has(mem, block);
    return plugged;
}

int mem_plug(struct mem *mem, struct mm_thread *thread, uint64_t first, uint64_t nr, bool plugged)
{
    const struct device_env *env = mem->device.env;
    if (env->vm) {
        const gpa_t gpa = {mem->start.v + first * MEM_BLOCK_BYTES};
        int err = mm_plug(thread, env->vm, gpa, nr * MEM_BLOCK_BYTES, plugged);
        if (err)
            return err;
    }
    mem_map_set(mem, first, nr, plugged);
    return 0;
}

/* ---- the device ---- */

static struct mem *mem_of(struct virtio_device *device)
{
    return container_of(device, struct mem, device);
}

static void device_activate(struct virtio_device *device)
{
    if (!virtio_has(device, VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE))
        virtio_broken(device); /* it would read what stops the VM */
}

static void device_notify(struct virtio_device *device, unsigned index)
{
    struct mem *mem = mem_of(device);
    struct virtq *q = &device->queue[index];
    struct virtq_chain chain;
    unsigned nr = 0;

    virtq_disable_kicks(q);
    while (nr < MAX_REQUESTS && virtio_pop(device, index, &chain)) {
        virtq_push(q, &chain, mem_request(mem, &chain));
        nr++;
    }
    if (nr)
        virtio_announce(device, index);
    if (nr == MAX_REQUESTS || virtq_enable_kicks(q))
        virtio_notify_again(device, index);
}

static void device_config_read(struct virtio_device *device, unsigned offset, void *to, unsigned bytes)
{
    memcpy(to, (const char *)&mem_of(device)->config + offset, bytes);
}

/* No reset: blocks stay as they are, and there is nothing else. */
static const struct virtio_ops mem_ops = {
    .activate = device_activate, .notify = device_notify, .config_read = device_config_read};

/* ---- making and unmaking ---- */

static bool config_good(const struct mem_config *config)
{
    return !((config->start.v | config->region_bytes | config->requested_bytes) & (MEM_BLOCK_BYTES - 1)) &&
           config->region_bytes > 0 && config->start.v + config->region_bytes > config->start.v &&
           config->requested_bytes <= config->region_bytes && config->node >= MEM_NO_NODE && config->node <= UINT16_MAX;
}

int mem_create(const struct mem_config *config, const struct device_env *env, struct mem **out)
{
    if (!config_good(config))
        return -EINVAL;
    struct mem *mem = calloc(1, sizeof(*mem));
    if (!mem)
        return -ENOMEM;
    mem->start = config->start;
    mem->nr_blocks = config->region_bytes / MEM_BLOCK_BYTES;
    mem->requested_blocks = config->requested_bytes / MEM_BLOCK_BYTES;
    mem->node = config->node;
    mem->map = calloc((mem->nr_blocks + 63) / 64, sizeof(*mem->map));
    if (!mem->map) {
        free(mem);
        return -ENOMEM;
    }
    mem->config = (struct virtio_mem_config){.block_size = htole64(MEM_BLOCK_BYTES),
                                             .node_id = htole16((uint16_t)MAX_OF(config->node, 0)),
                                             .addr = htole64(config->start.v),
                                             .region_size = htole64(config->region_bytes),
                                             .usable_region_size = htole64(config->region_bytes),
                                             .requested_size = htole64(config->requested_bytes)};
    mem->device = (struct virtio_device){.ops = &mem_ops,
                                         .name = config->name,
                                         .env = env,
                                         .id = VIRTIO_ID_MEM,
                                         .features = UINT64_C(1) << VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE |
                                                     (uint64_t)(config->node != MEM_NO_NODE) << VIRTIO_MEM_F_ACPI_PXM,
                                         .nr_queues = 1,
                                         .queue_size = QUEUE_SIZE,
                                         .config_bytes = sizeof(mem->config)};
    virtio_init(&mem->device);
    *out = mem;
    return 0;
}

void mem_destroy(struct mem *mem)
{
    virtio_fini(&mem->device);
    free(mem->map);
    free(mem);
}

struct virtio_device *mem_device(struct mem *mem)
{
    return &mem->device;
}

const uint64_t *mem_map(const struct mem *mem)
{
    return mem->map;
}

/* ---- what its user asks ---- */

int mem_set_requested(struct mem *mem, uint64_t requested_bytes, uint64_t *next_bytes)
{
    const uint64_t region_bytes = mem->nr_blocks * MEM_BLOCK_BYTES;
    if (next_bytes)
        *next_bytes = requested_bytes > region_bytes ? region_bytes
                                                     : (requested_bytes + MEM_BLOCK_BYTES - 1) & ~(MEM_BLOCK_BYTES - 1);
    if (requested_bytes > region_bytes || requested_bytes % MEM_BLOCK_BYTES)
        return -EINVAL;
    pthread_mutex_lock(&mem->device.lock);
    if (mem->requested_blocks != requested_bytes / MEM_BLOCK_BYTES) {
        mem->requested_blocks = requested_bytes / MEM_BLOCK_BYTES;
        mem->config.requested_size = htole64(requested_bytes);
        virtio_config_changed(&mem->device);
    }
    pthread_mutex_unlock(&mem->device.lock);
    return 0;
}

int mem_system_reset(struct mem *mem, struct mm_thread *thread)
{
    pthread_mutex_lock(&mem->device.lock);
    int err = mem_plug(mem, thread, 0, mem->nr_blocks, false);
    pthread_mutex_unlock(&mem->device.lock);
    return err;
}

void mem_info(struct mem *mem, struct mem_info *out)
{
    pthread_mutex_lock(&mem->device.lock);
    *out = mem->count;
    out->requested_bytes = mem->requested_blocks * MEM_BLOCK_BYTES;
    out->plugged_bytes = mem->plugged_blocks * MEM_BLOCK_BYTES;
    out->live = virtio_is_live(&mem->device);
    pthread_mutex_unlock(&mem->device.lock);
    out->start = mem->start;
    out->region_bytes = mem->nr_blocks * MEM_BLOCK_BYTES;
    out->node = mem->node;
}

bool mem_is_plugged(struct mem *mem, gpa_t gpa)
{
    if (gpa.v < mem->start.v || (gpa.v - mem->start.v) / MEM_BLOCK_BYTES >= mem->nr_blocks)
        return false;
    pthread_mutex_lock(&mem->device.lock);
    bool plugged = mem_map_has(mem, (gpa.v - mem->start.v) / MEM_BLOCK_BYTES);
    pthread_mutex_unlock(&mem->device.lock);
    return plugged;
}
