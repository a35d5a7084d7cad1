/* SPDX-License-Identifier: Apache-2.0 */
#include "devices/rng/rng.h"

#include <errno.h>
#include <sys/random.h>

/* getrandom gives so many at once, never fewer, and is not interrupted (getrandom(2)). */
#define PART_BYTES 256

int rng_fill(struct rng *rng, const struct virtq_chain *chain)
{
    const struct virtq *q = &rng->virtio.queue[0];
    uint64_t room = MIN_OF(chain->in_bytes, RNG_MAX_BYTES);
    uint64_t done = 0;

    if (room == 0)
        return -EINVAL;
    while (done < room) {
        uint8_t part[PART_BYTES];
        ssize_t got = getrandom(part, MIN_OF(room - done, PART_BYTES), 0);

        if (got <= 0)
            break; /* the kernel has none: the chain comes back shorter, or empty */
        done += virtq_write(q, chain, done, part, (uint64_t)got);
    }
    rng->nr_bytes += done;
    return (int)done;
}
