/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inflate, deflate, report. A batch is what is in the queue now: all buffers are read into one set of pages, the set
 * leaves as runs, and only then the buffers are answered.
 *
 * Linux sends 256 page numbers, and waits for the answer. So half a 2 MiB block comes at a time, and to drop half of a
 * huge page the host must split it, which costs more than to drop all of it (docs/balloon.md). With MUST_TELL_HOST the
 * guest does not touch a page of the balloon before it asks for it by a deflate request. Then the pages of blocks that
 * are not whole yet may stay where they are for a moment: they wait in the set `late` for the rest of their block, for
 * a deflate request, which takes them out, for LATE_MS without a request, or until they are LATE_MAX_PAGES.
 */
#include "devices/balloon/internal.h"

#include <endian.h>
#include <sys/timerfd.h>
#include <unistd.h>

/* Largest buffer of page numbers: 256 MiB of pages. Drivers send 256 to 1024 numbers. Chosen, unmeasured. */
#define MAX_PFNS 65536u
/*
 * A batch ends when it has been told of this many pages, the same one a hundred times or not, so that the lock is free
 * now and then. Chosen, unmeasured.
 */
#define MAX_BATCH_PAGES 65536u
#define PFNS_A_READ 256u
/* Linux on a software CPU was seen to take 36 ms for the next 256 numbers. */
#define LATE_MS 50
/* Pages of eight blocks: a guest whose pages lie in pieces does not make them whole. Chosen, unmeasured. */
#define LATE_MAX_PAGES 4096u

void balloon_add_range(struct balloon *balloon, struct page_set *set, gpa_t gpa, uint64_t bytes, uint64_t *count)
{
    uint64_t start = (gpa.v + PAGE_BYTES - 1) & ~(PAGE_BYTES - 1), end = (gpa.v + bytes) & ~(PAGE_BYTES - 1), added;
    if (end <= start)
        return;
    uint64_t pages = (end - start) >> PAGE_SHIFT;
    if (page_set_add(set, (gpa_t){start}, pages, &added)) {
        balloon->count.nr_bad_pages += pages;
        return;
    }
    *count += added;
    balloon->count.nr_duplicate_pages += pages - added;
}

static void add_pfns(struct balloon *balloon, struct page_set *set, const struct virtq *q,
                     const struct virtq_chain *chain, uint64_t *count)
{
    __le32 pfn[PFNS_A_READ];
    uint64_t nr = chain->out_bytes / sizeof(pfn[0]);
    if (chain->nr_in || chain->out_bytes % sizeof(pfn[0]) || nr > MAX_PFNS) {
        balloon->count.nr_bad_buffers++;
        if (nr > MAX_PFNS)
            return;
    }
    for (uint64_t at = 0; at < nr; at += PFNS_A_READ) {
        uint64_t some = MIN_OF(nr - at, PFNS_A_READ);
        if (virtq_read(q, chain, at * sizeof(pfn[0]), pfn, some * sizeof(pfn[0])) != some * sizeof(pfn[0]))
            return;
        for (uint64_t i = 0; i < some; i++)
            balloon_add_range(balloon, set, gpa_of(le32toh(pfn[i])), PAGE_BYTES, count);
    }
}

static void add_segments(struct balloon *balloon, const struct virtq_chain *chain, uint64_t *count)
{
    if (chain->nr_out)
        balloon->count.nr_bad_buffers++;
    for (unsigned i = chain->nr_out; i < (unsigned)chain->nr_out + chain->nr_in; i++)
        balloon_add_range(balloon, &balloon->batch, chain->segment[i].gpa, chain->segment[i].bytes, count);
}

struct leave {
    struct balloon *balloon;
    enum balloon_role role;
};

static void leave_run(void *ctx, gpa_t gpa, uint64_t bytes)
{
    const struct leave *leave = ctx;
    struct balloon *balloon = leave->balloon;
    const struct device_env *env = balloon->device.env;
    uint64_t dropped = 0;
    int err;

    if (leave->role == ROLE_DEFLATE)
        page_set_remove(&balloon->late, gpa, bytes >> PAGE_SHIFT);
    if (!env->vm)
        return;
    if (leave->role == ROLE_DEFLATE) {
        err = mm_balloon_return(env->vm, gpa, bytes);
    } else if (leave->role == ROLE_INFLATE) {
        balloon->may_hold_pages = true;
        err = mm_drop(env->thread, env->vm, gpa, bytes, MM_DROP_BALLOON, 0, &dropped);
    } else {
        err = mm_drop(env->thread, env->vm, gpa, bytes, MM_DROP_FREE, balloon->poison, &dropped);
    }
    balloon->count.nr_runs++;
    balloon->count.nr_dropped_pages += dropped;
    balloon->count.nr_failed_runs += err != 0;
}

/* All that wait. */
static void late_leave(struct balloon *balloon)
{
    struct leave leave = {balloon, ROLE_INFLATE};
    page_set_for_each(&balloon->late, leave_run, &leave);
    page_set_clear(&balloon->late);
}

static void late_arm(struct balloon *balloon)
{
    const struct itimerspec soon = {.it_value = {.tv_nsec = LATE_MS * 1000000}};
    /* Cannot fail: a timerfd, and nanoseconds below a second. */
    (void)timerfd_settime(balloon->late_fd, 0, &soon, NULL);
}

void balloon_late_timer(void *ctx, uint32_t events)
{
    struct balloon *balloon = ctx;
    uint64_t expired;
    (void)events;
    if (read(balloon->late_fd, &expired, sizeof(expired)) != sizeof(expired))
        return;
    pthread_mutex_lock(&balloon->device.lock);
    if (virtio_is_live(&balloon->device))
        late_leave(balloon);
    pthread_mutex_unlock(&balloon->device.lock);
}

/* What the batch, or the late pages that it made whole, come to. */
static void leave_all(struct balloon *balloon, enum balloon_role role)
{
    struct leave leave = {balloon, role};
    if (role != ROLE_INFLATE) {
        page_set_for_each(&balloon->batch, leave_run, &leave);
    } else {
        bool may_wait = virtio_has(&balloon->device, VIRTIO_BALLOON_F_MUST_TELL_HOST);
        if (may_wait)
            page_set_take_blocks(&balloon->late, leave_run, &leave);
        if (!may_wait || balloon->late.nr_pages > LATE_MAX_PAGES)
            late_leave(balloon);
        if (balloon->late.nr_pages)
            late_arm(balloon);
    }
    page_set_clear(&balloon->batch);
}

/* Reads a batch into its set. True when there may be more in the queue. */
static bool read_batch(struct balloon *balloon, enum balloon_role role)
{
    struct virtio_device *device = &balloon->device;
    struct page_set *set = role == ROLE_INFLATE ? &balloon->late : &balloon->batch;
    uint64_t *count = role == ROLE_INFLATE   ? &balloon->count.nr_inflate_pages
                      : role == ROLE_DEFLATE ? &balloon->count.nr_deflate_pages
                                             : &balloon->count.nr_report_pages;
    unsigned index = balloon->queue_of[role];
    struct virtq_chain chain;
    uint64_t told = 0;

    balloon->nr_held = 0;
    while (balloon->nr_held < VIRTQ_MAX_SIZE && told < MAX_BATCH_PAGES && virtio_pop(device, index, &chain)) {
        balloon->held[balloon->nr_held++] = (struct balloon_held){chain.id, chain.nr_slots};
        if (role == ROLE_REPORT) {
            add_segments(balloon, &chain, count);
            told += chain.in_bytes >> PAGE_SHIFT;
        } else {
            add_pfns(balloon, set, &device->queue[index], &chain, count);
            told += chain.out_bytes / sizeof(__le32);
        }
    }
    return balloon->nr_held == VIRTQ_MAX_SIZE || told >= MAX_BATCH_PAGES;
}

bool balloon_batch(struct balloon *balloon, enum balloon_role role)
{
    bool more = read_batch(balloon, role);
    if (!virtio_is_live(&balloon->device)) {
        page_set_clear(&balloon->batch);
        page_set_clear(&balloon->late);
        return false; /* the queue broke: nothing more is done until the reset */
    }
    leave_all(balloon, role);
    for (unsigned i = 0; i < balloon->nr_held; i++)
        balloon_answer(balloon, role, balloon->held[i]);
    if (balloon->nr_held)
        virtio_announce(&balloon->device, balloon->queue_of[role]);
    return more;
}
