/* SPDX-License-Identifier: Apache-2.0 */
/*
 * watch: one descriptor of a device in its loop, and what the device waits for there. A device that can take no more
 * (back-pressure) waits for nothing, and then the descriptor is not in the loop at all: a peer that hung up would
 * otherwise be reported again and again.
 *
 * Called in the loop's thread, or while the loop does not run: loop_remove may wait for the callback under way, which
 * may wait for the device's lock. The exception is wake_up, made for other threads.
 */
#ifndef DEVICES_WATCH_H
#define DEVICES_WATCH_H

#include "devices/loop.h"

struct watch {
    struct loop *loop;
    int fd; /* -1: none */
    void (*ready)(void *ctx, uint32_t events);
    void *ctx;
    uint32_t events; /* waited for; 0: not in the loop */
};

/* Waits for @events (EPOLLIN ...), 0: for nothing. 0 or -errno of the loop: it waits for nothing then. */
must_check int watch_set(struct watch *watch, uint32_t events);
/* Waits for nothing. The descriptor stays open. */
void watch_stop(struct watch *watch);
/* Out of the loop, closed, fd -1. May have no descriptor. */
void watch_close(struct watch *watch);

/*
 * wake: how any thread makes the device thread look at a device, with or without its lock. The loop calls ready until
 * wake_clear. wake_init: loop, ready and ctx are set; 0 or -errno with nothing left. watch_close ends it.
 */
must_check int wake_init(struct watch *wake);
void wake_up(const struct watch *wake);
void wake_clear(const struct watch *wake);

#endif
