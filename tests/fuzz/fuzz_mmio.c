/* SPDX-License-Identifier: Apache-2.0 */
/* Transport and rings under a hostile driver, with the simplest device: virtio-rng. */
#include "tests/fuzz/fuzz.h"

#include "devices/rng/rng.h"

static struct fuzz_rig rig;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct rng rng;

    fuzz_prepare(&rig);
    rng_init(&rng, &rig.env);
    fuzz_run(&rig, &rng.virtio, data, bytes, NULL, NULL);
    rng_fini(&rng);
    return 0;
}
