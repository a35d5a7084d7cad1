/* SPDX-License-Identifier: Apache-2.0 */
/* The thread asks, and what it hears waits for the scanner: whole answers, in their order. */
#include "vmm/access_source.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "vmm/thread.h"

struct said {
    vmid_t vm;
    bool touched;
    gfn_t gfn;
    uint32_t nr;
};

struct answer {
    struct said *said; /* heap */
    size_t nr, room;
};

struct access_thread {
    struct access_source source;
    const struct access_source *inner;
    pthread_t thread;
    atomic_bool ends;
    pthread_mutex_t lock; /* guards the three below */
    struct answer ready;
    bool is_new;
    int err;
    struct answer heard, told; /* the thread's own; the scanner's own */
};

/* ---- the thread ---- */

struct hearing {
    struct answer *answer;
    int err;
};

static void hear(void *ctx, vmid_t vm, gfn_t gfn, uint32_t nr, bool touched)
{
    struct hearing *hearing = ctx;
    struct answer *answer = hearing->answer;

    if (answer->nr == answer->room) {
        size_t room = MAX_OF(2 * answer->room, (size_t)256);
        struct said *said = realloc(answer->said, room * sizeof(*said));
        if (!said) {
            hearing->err = -ENOMEM;
            return;
        }
        answer->said = said;
        answer->room = room;
    }
    answer->said[answer->nr++] = (struct said){.vm = vm, .touched = touched, .gfn = gfn, .nr = nr};
}

static void swap(struct answer *a, struct answer *b)
{
    struct answer c = *a;

    *a = *b;
    *b = c;
}

/* False: the source is broken. */
static bool ask(struct access_thread *self)
{
    struct hearing hearing = {.answer = &self->heard};

    self->heard.nr = 0;
    int err = self->inner->poll(self->inner->ctx, hear, &hearing);
    if (!err)
        err = hearing.err;
    pthread_mutex_lock(&self->lock);
    hearing = (struct hearing){.answer = &self->ready};
    if (!self->is_new)
        self->ready.nr = 0;
    for (size_t i = 0; !err && !hearing.err && i < self->heard.nr; i++)
        hear(&hearing, self->heard.said[i].vm, self->heard.said[i].gfn, self->heard.said[i].nr,
             self->heard.said[i].touched);
    self->is_new = true;
    self->err = err ? err : hearing.err;
    pthread_mutex_unlock(&self->lock);
    return !err && !hearing.err;
}

static void *run(void *arg)
{
    struct access_thread *self = arg;
    const struct timespec pause = {.tv_nsec = 10000000}; /* an answer that needed no waiting is not asked for at once */

    while (!atomic_load(&self->ends) && ask(self))
        nanosleep(&pause, NULL);
    return NULL;
}

/* ---- the scanner ---- */

static int tell(void *ctx, access_report_fn *report, void *report_ctx)
{
    struct access_thread *self = ctx;

    pthread_mutex_lock(&self->lock);
    bool is_new = self->is_new;
    int err = self->err;
    self->is_new = false;
    if (is_new && !err)
        swap(&self->ready, &self->told);
    pthread_mutex_unlock(&self->lock);
    for (size_t i = 0; is_new && !err && i < self->told.nr; i++) {
        const struct said *said = &self->told.said[i];
        report(report_ctx, said->vm, said->gfn, said->nr, said->touched);
    }
    return err;
}

int access_thread_start(const struct access_source *inner, struct access_thread **out, struct diag *diag)
{
    struct access_thread *self = calloc(1, sizeof(*self));

    if (!self)
        return diag_set(diag, EXIT_HOST, "out of memory");
    self->inner = inner;
    self->source =
        (struct access_source){.name = inner->name, .period_ms = inner->period_ms, .poll = tell, .ctx = self};
    pthread_mutex_init(&self->lock, NULL);
    int err = thread_start(&self->thread, "ebb-access", THREAD_ANY_CPU, run, self);
    if (err) {
        pthread_mutex_destroy(&self->lock);
        free(self);
        return diag_host(diag, -err, "thread for the source of accesses");
    }
    *out = self;
    return 0;
}

void access_thread_stop(struct access_thread *self)
{
    atomic_store(&self->ends, true);
    pthread_join(self->thread, NULL);
    pthread_mutex_destroy(&self->lock);
    free(self->ready.said);
    free(self->heard.said);
    free(self->told.said);
    free(self);
}

const struct access_source *access_thread_source(const struct access_thread *self)
{
    return &self->source;
}
