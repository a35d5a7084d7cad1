/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/workers.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "vmm/thread.h"

/* Chosen, unmeasured. */
#define HOUSEKEEP_MIN_MS 200u
#define HOUSEKEEP_MAX_MS 5000u
#define FUTILE_MIN_MS 1u /* kswapd found nothing to take: kicks go unheard for so long, then twice as long ... */
#define FUTILE_MAX_MS 128u
#define FOREVER 0u

enum worker_state { SLEEPING, RUNNING, KICKED };

struct worker {
    struct workers *owner;
    enum mm_worker which;
    atomic_uint state; /* enum worker_state; a futex */
    pthread_t thread;
    bool started;
    unsigned wait_ms; /* worker's own: the wait that grows */
};

struct workers {
    struct workers_config config;
    atomic_uint stop; /* a futex: 1 once workers_stop was called */
    struct worker worker[MM_MAX_WORKERS];
};

/* Until *word is no longer @value, or @ms (FOREVER: no end), or for no reason at all. */
static void futex_wait(atomic_uint *word, unsigned value, unsigned ms)
{
    struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, ms == FOREVER ? NULL : &time, NULL, 0);
}

static void futex_wake(atomic_uint *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

/* Twice the last wait, from @min to @max. */
static unsigned longer(unsigned ms, unsigned min, unsigned max)
{
    return ms == 0 ? min : MIN_OF(2 * ms, max);
}

/* One kick's worth of a kswapd. After a round that found nothing, hears no kick for a while. */
static unsigned kswapd_round(struct worker *self)
{
    struct workers *owner = self->owner;
    if (owner->config.run(owner->config.ctx, self->which)) {
        self->wait_ms = 0;
    } else {
        self->wait_ms = longer(self->wait_ms, FUTILE_MIN_MS, FUTILE_MAX_MS);
        futex_wait(&owner->stop, 0, self->wait_ms);
    }
    return FOREVER;
}

/* Rounds until nothing is left. Returns how long to sleep. */
static unsigned housekeeper_round(struct worker *self)
{
    struct workers *owner = self->owner;
    bool busy = false;
    while (!atomic_load(&owner->stop) && owner->config.run(owner->config.ctx, MM_HOUSEKEEPER))
        busy = true;
    self->wait_ms = longer(busy ? 0 : self->wait_ms, HOUSEKEEP_MIN_MS, HOUSEKEEP_MAX_MS);
    return self->wait_ms;
}

static unsigned one_round(struct worker *self)
{
    if (self->which == MM_SCANNER)
        return self->owner->config.scan(self->owner->config.ctx);
    return self->which == MM_HOUSEKEEPER ? housekeeper_round(self) : kswapd_round(self);
}

static void *worker_thread(void *arg)
{
    struct worker *self = arg;
    for (;;) {
        atomic_store(&self->state, RUNNING);
        if (atomic_load(&self->owner->stop)) /* after the store: workers_stop sets stop, then the state */
            return NULL;
        unsigned ms = one_round(self);
        unsigned expected = RUNNING;
        if (atomic_compare_exchange_strong(&self->state, &expected, SLEEPING))
            futex_wait(&self->state, SLEEPING, ms);
    }
}

void workers_kick(struct workers *workers, enum mm_worker which)
{
    struct worker *worker = &workers->worker[which];
    if (atomic_exchange(&worker->state, KICKED) == SLEEPING)
        futex_wake(&worker->state);
}

int workers_create(const struct workers_config *config, struct workers **out)
{
    struct workers *workers = calloc(1, sizeof(*workers));
    if (!workers)
        return -ENOMEM;
    workers->config = *config;
    for (enum mm_worker i = 0; i < MM_MAX_WORKERS; i++) {
        workers->worker[i].owner = workers;
        workers->worker[i].which = i;
    }
    *out = workers;
    return 0;
}

static void name_worker(enum mm_worker worker, char name[16])
{
    if (worker >= MM_KSWAPD0)
        snprintf(name, 16, "ebb-kswapd%u", ((unsigned)worker - MM_KSWAPD0) % MM_MAX_NODES);
    else
        snprintf(name, 16, "%s", worker == MM_SCANNER ? "ebb-scan" : "ebb-housekeep");
}

int workers_start(struct workers *workers, struct diag *diag)
{
    for (enum mm_worker i = 0; i < MM_KSWAPD(workers->config.nr_nodes); i++) {
        struct worker *worker = &workers->worker[i];
        char name[16];
        name_worker(i, name);
        if (i == MM_SCANNER && !workers->config.scan)
            continue;
        const cpu_set_t *cpus = workers->config.node_cpus;
        cpus = cpus && i >= MM_KSWAPD0 ? &cpus[i - MM_KSWAPD0] : NULL;
        int err = thread_start_on(&worker->thread, name, cpus, worker_thread, worker);
        if (err) {
            workers_stop(workers);
            return diag_host(diag, -err, "thread %s", name);
        }
        worker->started = true;
    }
    return 0;
}

void workers_stop(struct workers *workers)
{
    atomic_store(&workers->stop, 1);
    futex_wake(&workers->stop);
    for (enum mm_worker i = 0; i < MM_MAX_WORKERS; i++) {
        if (!workers->worker[i].started)
            continue;
        workers_kick(workers, i);
        pthread_join(workers->worker[i].thread, NULL);
        workers->worker[i].started = false;
    }
}

void workers_destroy(struct workers *workers)
{
    workers_stop(workers);
    free(workers);
}
