/* SPDX-License-Identifier: Apache-2.0 */
#include "devices/watch.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

void watch_stop(struct watch *watch)
{
    if (watch->events != 0)
        loop_remove(watch->loop, watch->fd);
    watch->events = 0;
}

int watch_set(struct watch *watch, uint32_t events)
{
    int err;

    if (events == watch->events)
        return 0;
    if (events == 0) {
        watch_stop(watch);
        return 0;
    }
    if (watch->events == 0) {
        err = loop_add(watch->loop, watch->fd, events, watch->ready, watch->ctx);
    } else {
        err = loop_change(watch->loop, watch->fd, events);
        if (err)
            watch_stop(watch);
    }
    if (!err)
        watch->events = events;
    return err;
}

void watch_close(struct watch *watch)
{
    watch_stop(watch);
    if (watch->fd >= 0)
        close(watch->fd);
    watch->fd = -1;
}

int wake_init(struct watch *wake)
{
    wake->events = 0;
    wake->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (wake->fd < 0)
        return -errno;
    int err = watch_set(wake, EPOLLIN);
    if (err)
        watch_close(wake);
    return err;
}

void wake_up(const struct watch *wake)
{
    uint64_t one = 1;

    (void)!write(wake->fd, &one, sizeof(one)); /* cannot fail but for a counter that is full: it is readable then */
}

void wake_clear(const struct watch *wake)
{
    uint64_t nr;

    (void)!read(wake->fd, &nr, sizeof(nr)); /* nothing there: fine */
}
