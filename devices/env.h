/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a machine lends its devices. Constant, outlives them.
 *
 * Threads: device code runs in the device thread, out of loop callbacks, or in a vCPU thread, out of a register access.
 * Either way the device's lock is held, and it may wait for guest memory: fault threads take no device lock.
 */
#ifndef DEVICES_ENV_H
#define DEVICES_ENV_H

#include "devices/loop.h"
#include "mm/map/guest_mem.h"
#include "mm/mm.h"

struct device_env {
    const struct guest_mem *mem;
    struct mm_vm *vm; /* NULL: mm does not manage this memory (--backend kernel, tests): nothing to pin or drop */
    struct mm_thread *thread; /* the device thread's, for it alone; NULL with vm */
    struct loop *loop;
    /*
     * A page that a device needs cannot be had (@err of mm_pin). True: it may be there now, try again. False: the VM stops.
     * Waits while memory of another VM is coming free. *seen: 0 before the first try, then for this function alone.
     */
    bool (*no_page)(void *ctx, int err, gpa_t gpa, uint64_t *seen);
    void *ctx;
};

#endif
