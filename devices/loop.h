/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loop: the device thread of one VM waits here for descriptors: queue notifications, disk completions, timers, taps.
 * One thread runs the loop; anybody may add and remove.
 */
#ifndef DEVICES_LOOP_H
#define DEVICES_LOOP_H

#include "mm/base/types.h"

struct loop;

/* 0 or -errno (-ENOMEM, -EMFILE), with nothing left. */
must_check int loop_create(struct loop **out);
/* Not running any more; what was added and not removed is forgotten. */
void loop_destroy(struct loop *loop);
/* Calls back until loop_stop; in the device thread. */
void loop_run(struct loop *loop);
/* One round of it: waits up to @timeout_ms (-1: for ever), calls back. Calls made, or -ECANCELED after loop_stop. */
int loop_turn(struct loop *loop, int timeout_ms);
/* loop_run returns soon, or at once when it has not begun. Any thread, any number of times: ends one run. */
void loop_stop(struct loop *loop);

/*
 * loop_add - @ready(@ctx) in the loop's thread whenever @fd is readable (@events: EPOLLIN, EPOLLOUT ...). Level
 * triggered: @ready consumes. 0 or -errno; -EEXIST: @fd is there already.
 */
must_check int loop_add(struct loop *loop, int fd, uint32_t events, void (*ready)(void *ctx, uint32_t events),
                        void *ctx);
/* 0 or -errno (-ENOENT): other events from now on; with 0 only EPOLLERR and EPOLLHUP. */
must_check int loop_change(struct loop *loop, int fd, uint32_t events);
/*
 * From the loop's thread, or while it does not run: @ready is not called any more. From another thread it returns when
 * no call of @ready is under way: so do not hold a lock that @ready takes (device.lock!); loop_change(.., 0) does not
 * wait. Before @fd is closed.
 */
void loop_remove(struct loop *loop, int fd);

#endif
