/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loop: epoll. The kernel keeps a source's number, never its address: what was removed between epoll_wait and its turn
 * is looked up and not found, so that nothing is called too late, even when the descriptor's number was used again.
 *
 *   calling = number of the source that is called back now, 0 = none
 */
#include "devices/loop.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define STOP_NUMBER 0 /* of stop_fd; sources begin at 1 */
#define MAX_EVENTS 16 /* of one round: chosen, unmeasured */

struct source {
    struct source *next;
    uint64_t number;
    int fd;
    void (*ready)(void *ctx, uint32_t events);
    void *ctx;
};

struct loop {
    int epoll_fd, stop_fd;
    pthread_mutex_t lock;
    pthread_cond_t called;
    /* guarded by lock */
    struct source *sources;
    uint64_t last_number;
    uint64_t calling;
    pthread_t caller; /* valid while calling */
};

int loop_create(struct loop **out)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = STOP_NUMBER};
    struct loop *loop = calloc(1, sizeof(*loop));
    int err;

    if (loop == NULL)
        return -ENOMEM;
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (loop->epoll_fd < 0) {
        err = -errno;
        goto no_epoll;
    }
    loop->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (loop->stop_fd < 0) {
        err = -errno;
        goto no_stop;
    }
    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, loop->stop_fd, &event) != 0) {
        err = -errno;
        goto not_added;
    }
    pthread_mutex_init(&loop->lock, NULL);
    pthread_cond_init(&loop->called, NULL);
    *out = loop;
    return 0;
not_added:
    close(loop->stop_fd);
no_stop:
    close(loop->epoll_fd);
no_epoll:
    free(loop);
    return err;
}

void loop_destroy(struct loop *loop)
{
    while (loop->sources != NULL) {
        struct source *source = loop->sources;

        loop->sources = source->next;
        free(source);
    }
    pthread_cond_destroy(&loop->called);
    pthread_mutex_destroy(&loop->lock);
    close(loop->stop_fd);
    close(loop->epoll_fd);
    free(loop);
}

static struct source **find_fd_locked(struct loop *loop, int fd)
{
    struct source **at = &loop->sources;

    while (*at != NULL && (*at)->fd != fd)
        at = &(*at)->next;
    return at;
}

static struct source *find_number_locked(struct loop *loop, uint64_t number)
{
    struct source *source = loop->sources;

    while (source != NULL && source->number != number)
        source = source->next;
    return source;
}

/* True when somebody was called. */
static bool call_back(struct loop *loop, uint64_t number, uint32_t events)
{
    pthread_mutex_lock(&loop->lock);
    struct source *source = find_number_locked(loop, number);
    if (source == NULL) {
        pthread_mutex_unlock(&loop->lock);
        return false;
    }
    void (*ready)(void *ctx, uint32_t events) = source->ready;
    void *ctx = source->ctx;
    loop->calling = number;
    loop->caller = pthread_self();
    pthread_mutex_unlock(&loop->lock);

    ready(ctx, events); /* may remove its own source, or any other */

    pthread_mutex_lock(&loop->lock);
    loop->calling = 0;
    pthread_cond_broadcast(&loop->called);
    pthread_mutex_unlock(&loop->lock);
    return true;
}

int loop_turn(struct loop *loop, int timeout_ms)
{
    struct epoll_event event[MAX_EVENTS];
    int nr = epoll_wait(loop->epoll_fd, event, MAX_EVENTS, timeout_ms);
    int nr_called = 0;
    bool stop = false;

    for (int i = 0; i < nr; i++) {
        if (event[i].data.u64 == STOP_NUMBER)
            stop = true;
    }
    for (int i = 0; i < nr && !stop; i++)
        nr_called += call_back(loop, event[i].data.u64, event[i].events);
    if (stop) {
        uint64_t count;

        /* Cannot fail: it is readable, and this thread is the only reader. */
        (void)!read(loop->stop_fd, &count, sizeof(count));
        return -ECANCELED;
    }
    return nr_called;
}

void loop_run(struct loop *loop)
{
    while (loop_turn(loop, -1) >= 0)
        ;
}

void loop_stop(struct loop *loop)
{
    uint64_t one = 1;

    (void)!write(loop->stop_fd, &one, sizeof(one)); /* fails only when it is readable already, 2^64 - 2 times */
}

int loop_add(struct loop *loop, int fd, uint32_t events, void (*ready)(void *ctx, uint32_t events), void *ctx)
{
    struct source *source = malloc(sizeof(*source));
    int err = 0;

    if (source == NULL)
        return -ENOMEM;
    pthread_mutex_lock(&loop->lock);
    *source =
        (struct source){.next = loop->sources, .number = ++loop->last_number, .fd = fd, .ready = ready, .ctx = ctx};
    struct epoll_event event = {.events = events, .data.u64 = source->number};
    if (*find_fd_locked(loop, fd) != NULL)
        err = -EEXIST;
    else if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0)
        err = -errno;
    else
        loop->sources = source;
    pthread_mutex_unlock(&loop->lock);
    if (err != 0)
        free(source);
    return err;
}

int loop_change(struct loop *loop, int fd, uint32_t events)
{
    int err = 0;

    pthread_mutex_lock(&loop->lock);
    struct source *source = *find_fd_locked(loop, fd);
    if (source == NULL) {
        err = -ENOENT;
    } else {
        struct epoll_event event = {.events = events, .data.u64 = source->number};

        if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_MOD, fd, &event) != 0)
            err = -errno;
    }
    pthread_mutex_unlock(&loop->lock);
    return err;
}

void loop_remove(struct loop *loop, int fd)
{
    pthread_mutex_lock(&loop->lock);
    struct source **at = find_fd_locked(loop, fd);
    struct source *source = *at;
    if (source != NULL) {
        *at = source->next;
        epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
        while (loop->calling == source->number && !pthread_equal(loop->caller, pthread_self()))
            pthread_cond_wait(&loop->called, &loop->lock);
    }
    pthread_mutex_unlock(&loop->lock);
    free(source);
}
