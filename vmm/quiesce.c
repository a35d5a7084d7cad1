/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/quiesce.h"

#include "devices/balloon/balloon.h"
#include "vmm/dump.h"
#include "vmm/machine_parts.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct work {
    struct machine *m;
    const struct quiesce *how;
    struct diag *diag;
    bool round; /* of hints, and both logs are on */
    struct quiesced q;
    uint64_t *free_pages;
    int result;
};

/* --- the round ---------------------------------------------------------------------------------------- */

/* Both logs, then the question. 0; -ENOTSUP: the guest cannot be asked; other -errno. Nothing is on after an error. */
static int begin_round(struct work *w)
{
    struct balloon *balloon = machine_balloon(w->m);

    if (!balloon)
        return -ENOTSUP;
    int err = machine_dirty_log_start(w->m);
    if (err)
        return err;
    err = guest_mem_log_start(&w->m->mem);
    if (!err)
        err = balloon_hint_start(balloon);
    if (err) {
        guest_mem_log_stop(&w->m->mem);
        machine_dirty_log_stop(w->m);
    }
    w->round = !err;
    return err;
}

/* Until the guest says that these were all, the machine ends, or the time is over. */
static void await_hints(struct work *w)
{
    struct balloon *balloon = machine_balloon(w->m);
    uint64_t deadline = machine_now_ns() + w->how->hint_ms * UINT64_C(1000000), count;

    while (balloon_hint_state(balloon) == BALLOON_HINT_RUNNING && !atomic_load(&w->m->stop)) {
        struct pollfd ready = {.fd = balloon_hint_fd(balloon), .events = POLLIN};
        uint64_t now = machine_now_ns();

        if (now >= deadline)
            break;
        /* in slices: the end of the machine is told elsewhere */
        if (poll(&ready, 1, (int)MIN_OF((deadline - now) / 1000000 + 1, UINT64_C(100))) == 1)
            (void)!read(ready.fd, &count, sizeof(count));
    }
    w->q.complete = balloon_hint_state(balloon) == BALLOON_HINT_ENDED;
    balloon_hint_stop(balloon);
}

static void note_hint(void *ctx, gpa_t gpa, uint64_t bytes)
{
    struct work *w = ctx;

    for (gfn_t gfn = gfn_of(gpa); gfn < gfn_of(gpa) + bytes / PAGE_BYTES && gfn < w->q.nr_free_bits; gfn++) {
        w->free_pages[gfn / 64] |= UINT64_C(1) << (gfn % 64);
        w->q.hinted_pages++;
    }
}

/*
 * Whether the page reads as zeros now: then it may go whoever wrote it, for it is zeros afterwards as well. Not where
 * free pages read as something else afterwards.
 */
static bool reads_as_zeros(struct work *w, gfn_t gfn)
{
    char page[PAGE_BYTES];
    bool zeros;

    return w->q.vm && !w->q.poison && !dump_read_page(w->q.thread, w->q.vm, w->q.mem, gfn, page, &zeros) && zeros;
}

/*
 * Pages of one region that vCPUs or devices wrote are not free, whatever was hinted, unless they wrote zeros: a guest that
 * clears what it allocates (init_on_alloc, as Debian's kernel does) clears each page before it hints at it.
 */
static int keep_written(struct work *w, const struct guest_mem_region *region, uint64_t *dirty)
{
    gfn_t start = gfn_of(region->start);
    int err = machine_dirty_log_get(w->m, region->start, dirty);

    for (uint64_t i = 0; i < region->bytes / PAGE_BYTES && !err; i++) {
        gfn_t gfn = start + (gfn_t)i;
        uint64_t bit = UINT64_C(1) << (gfn % 64);

        if (!(w->free_pages[gfn / 64] & bit) ||
            (!(dirty[i / 64] >> (i % 64) & 1) && !guest_mem_was_written(&w->m->mem, gfn)) || reads_as_zeros(w, gfn))
            continue;
        w->free_pages[gfn / 64] &= ~bit;
        w->q.kept_pages++;
    }
    return err;
}

static int collect(struct work *w)
{
    const struct guest_mem *mem = &w->m->mem;
    uint64_t end = 0, largest = 0;
    struct balloon_info info;

    balloon_info(machine_balloon(w->m), &info);
    w->q.poison = info.poison;
    for (unsigned i = 0; i < mem->nr; i++) {
        end = MAX_OF(end, mem->region[i].start.v + mem->region[i].bytes);
        largest = MAX_OF(largest, mem->region[i].bytes);
    }
    w->q.nr_free_bits = end / PAGE_BYTES;
    w->free_pages = calloc((w->q.nr_free_bits + 63) / 64, sizeof(uint64_t));
    uint64_t *dirty = calloc((largest / PAGE_BYTES + 63) / 64, sizeof(uint64_t));
    int err = w->free_pages && dirty ? 0 : -ENOMEM;
    if (!err)
        err = balloon_hint_for_each(machine_balloon(w->m), note_hint, w);
    for (unsigned i = 0; i < mem->nr && !err; i++)
        err = keep_written(w, &mem->region[i], dirty);
    free(dirty);
    if (err == -ECANCELED) {
        /* the guest has taken its driver away: it has said nothing */
        free(w->free_pages);
        w->free_pages = NULL;
        w->q.hinted_pages = w->q.kept_pages = w->q.nr_free_bits = 0;
        err = 0;
    }
    w->q.free_pages = w->free_pages;
    return err;
}

/* --- at rest ------------------------------------------------------------------------------------------ */

/* In the device thread, the vCPUs paused. */
static void at_rest(void *ctx, struct mm_thread *thread)
{
    struct work *w = ctx;

    w->q.thread = thread;
    w->q.vm = memhost_vm_mm(w->m->memory);
    w->q.mem = &w->m->mem;
    w->q.stop = &w->m->stop;
    int err = w->round ? collect(w) : 0;
    w->result = err ? diag_set(w->diag, EXIT_GUEST, "the guest's free pages: %s", strerror(-err))
                    : w->how->run(w->how->ctx, &w->q, w->diag);
    if (w->round) {
        balloon_hint_done(machine_balloon(w->m));
        guest_mem_log_stop(&w->m->mem);
    }
    free(w->free_pages);
}

/* The device thread has ended: nobody answers hints, no log is looked at. */
static void undo_round(struct work *w)
{
    if (!w->round)
        return;
    balloon_hint_done(machine_balloon(w->m));
    guest_mem_log_stop(&w->m->mem);
}

static int quiesce(struct work *w)
{
    struct machine *m = w->m;
    int err = w->how->hints ? begin_round(w) : 0;

    if (err && err != -ENOTSUP)
        return diag_set(w->diag, EXIT_GUEST, "%s cannot be asked for its free pages: %s", m->name, strerror(-err));
    if (w->round)
        await_hints(w);
    machine_pause(m);
    err = machine_devices_call(m->devices, at_rest, w);
    if (err) {
        undo_round(w);
        w->result = diag_set(w->diag, EXIT_GUEST, "%s cannot be brought to rest: %s", m->name,
                             err == -ECANCELED ? "it has ended" : strerror(-err));
    }
    if (w->round)
        machine_dirty_log_stop(m);
    machine_resume(m);
    return w->result;
}

/* True: nobody else is at it. */
static bool claim(struct machine *m, bool claimed)
{
    pthread_mutex_lock(&m->lock);
    bool was = m->quiescing;
    m->quiescing = claimed;
    pthread_mutex_unlock(&m->lock);
    return !was;
}

int machine_quiesce(struct machine *m, const struct quiesce *how, struct diag *diag)
{
    struct work w = {.m = m, .how = how, .diag = diag, .q.has_balloon = machine_balloon(m) != NULL};

    if (!m->devices)
        return diag_set(diag, EXIT_USAGE, "%s has no devices, and cannot be brought to rest: start it with --balloon",
                        m->name);
    if (!claim(m, true))
        return diag_set(diag, EXIT_GUEST, "%s is being dumped, or asked for its free pages, already", m->name);
    int result = quiesce(&w);
    (void)claim(m, false);
    return result;
}
