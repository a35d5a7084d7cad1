/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hostile driver out of bytes, for libFuzzer. A target for the device `thing` is this file, tests/fuzz/fuzz_thing.c:
 *
 *     static struct fuzz_rig rig;
 *
 *     int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
 *     {
 *         struct thing thing;
 *
 *         fuzz_prepare(&rig);                                   clean guest memory
 *         thing_init(&thing, &rig.env);
 *         fuzz_run(&rig, &thing.virtio, data, bytes, NULL, NULL);
 *         thing_fini(&thing);
 *         return 0;
 *     }
 *
 * The input is a program of steps (fuzz.c): register accesses of any kind, set-up in one step, guest memory written
 * anywhere, well-formed requests with arbitrary content, ring entries that are not well-formed, kicks, resets, and
 * @poke: what the host does to the device meanwhile (a new target, a size). After each step the loop turns until it is
 * idle and virtq_check must hold. Guest memory stands between pages that nobody may touch.
 */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include "devices/virtio/mmio.h"

#include <stddef.h>

#define FUZZ_LOW_START UINT64_C(0) /* two regions with a hole between */
#define FUZZ_LOW_BYTES UINT64_C(0x10000)
#define FUZZ_HIGH_START UINT64_C(0x100000000)
#define FUZZ_HIGH_BYTES UINT64_C(0x4000)

/* What is left of the input; reads zeros when nothing is. */
struct fuzz_input {
    const uint8_t *at;
    size_t left;
};
uint8_t fuzz_u8(struct fuzz_input *in);
uint16_t fuzz_u16(struct fuzz_input *in);
uint32_t fuzz_u32(struct fuzz_input *in);
uint64_t fuzz_u64(struct fuzz_input *in);
/* Two bytes of input: mostly an address in the low region, else one at an edge of memory or outside. */
uint64_t fuzz_gpa(struct fuzz_input *in);

struct fuzz_rig {
    struct guest_mem mem;
    struct loop *loop;
    struct device_env env; /* the target may set more; no_page counts nr_fatal */
    struct virtio_mmio mmio;
    uint64_t nr_fatal;
    /* The ring positions of the well-formed part. */
    uint16_t next_avail[VIRTIO_MAX_QUEUES];
    bool wrap[VIRTIO_MAX_QUEUES];
};

/* Makes memory and loop the first time; zeroes memory each time. */
void fuzz_prepare(struct fuzz_rig *rig);
/*
 * fuzz_run - attaches @device, lets the input drive it, detaches it: reset, so nothing is under way afterwards.
 * @poke: may be NULL; takes its arguments from the input.
 */
void fuzz_run(struct fuzz_rig *rig, struct virtio_device *device, const uint8_t *data, size_t bytes,
              void (*poke)(void *ctx, struct fuzz_input *in), void *ctx);

/* Prints and aborts: what libFuzzer takes as a finding. */
_Noreturn void fuzz_fail(const char *why);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

#endif
