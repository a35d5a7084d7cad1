/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-rng, virtio 1.2 section 5.4: one queue; each chain is filled with bytes of getrandom.
 *
 * A hostile driver can make us call getrandom as often as it kicks: at most RNG_MAX_BYTES a chain and RNG_MAX_CHAINS a
 * turn of the device thread, then other devices have theirs. It learns nothing but random bytes.
 */
#ifndef DEVICES_RNG_RNG_H
#define DEVICES_RNG_RNG_H

#include "devices/virtio/device.h"

#define RNG_QUEUE_SIZE 64
#define RNG_MAX_BYTES 4096 /* of one chain, whatever it has room for (5.4.6.1 allows less) */
#define RNG_MAX_CHAINS 16  /* of one notification */

struct rng {
    struct virtio_device virtio; /* first; its lock guards the rest */
    uint64_t nr_bytes;           /* given to the guest */
};

/* @env outlives it. */
void rng_init(struct rng *rng, const struct device_env *env);
/* The transport is gone. */
void rng_fini(struct rng *rng);

/* request.c: one chain. Lock held. Bytes written, or -EINVAL: there is no room for any. */
must_check int rng_fill(struct rng *rng, const struct virtq_chain *chain);

#endif
