/* SPDX-License-Identifier: Apache-2.0 */
#include "devices/rng/rng.h"

static void notify(struct virtio_device *device, unsigned index)
{
    struct rng *rng = container_of(device, struct rng, virtio);
    struct virtq_chain chain;
    unsigned nr = 0;

    while (nr < RNG_MAX_CHAINS && virtio_pop(device, index, &chain)) {
        int bytes = rng_fill(rng, &chain);

        if (bytes < 0) {
            virtio_broken(device);
            return;
        }
        virtq_push(&device->queue[index], &chain, (uint32_t)bytes);
        nr++;
    }
    virtio_announce(device, index);
    if (nr == RNG_MAX_CHAINS || virtq_enable_kicks(&device->queue[index]))
        virtio_notify_again(device, index);
}

static const struct virtio_ops rng_ops = {.notify = notify};

void rng_init(struct rng *rng, const struct device_env *env)
{
    *rng = (struct rng){.virtio = {.ops = &rng_ops,
                                   .name = "rng",
                                   .env = env,
                                   .id = VIRTIO_ID_RNG,
                                   .nr_queues = 1,
                                   .queue_size = RNG_QUEUE_SIZE}};
    virtio_init(&rng->virtio);
}

void rng_fini(struct rng *rng)
{
    virtio_fini(&rng->virtio);
}
