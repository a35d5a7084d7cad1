/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loop: the device thread of one VM waits here for descriptors: queue notifications, disk completions, timers, taps.
 * One thread runs the loop; anybody may add and remove.
 */
#ifndef DEVICES_LOOP_H
#define DEVICES_LOOP_H

#include "mm/base/types.h"

struct loop;

/* 0 or -errno (-ENOMEM, -EMFILE). */
must_check int loop_create(struct loop **out);
/* Not running any more; what was added and not removed is forgotten. */
void loop_destroy(struct loop *loop);
/* Calls back until loop_stop; in the device thread. */
void loop_run(struct loop *loop);
/* loop_run returns soon, or at once when it has not begun. Any thread. */
void loop_stop(struct loop *loop);

/*
 * loop_add - @ready(@ctx) in the loop's thread whenever @fd is readable (@events: EPOLLIN, EPOLLOUT ...). Level
 * triggered: @ready consumes. 0 or -errno; -EEXIST: @fd is there already.
 */
must_check int loop_add(struct loop *loop, int fd, uint32_t events, void (*ready)(void *ctx, uint32_t events),
                        void *ctx);
/* 0 or -errno: other events from now on. */
must_check int loop_change(struct loop *loop, int fd, uint32_t events);
/* From the loop's thread, or while it does not run: @ready is not called any more. From another thread it returns when
 * no call is under way. */
void loop_remove(struct loop *loop, int fd);

#endif
