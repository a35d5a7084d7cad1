/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inflate, deflate, report. A batch is what is in the queue now: all buffers are read into one set of pages, the set
 * leaves as runs, and only then the buffers are answered. Linux sends 256 page numbers a buffer, in falling order more
 * often than not, so a 2 MiB block is whole only across buffers.
 */
#include "devices/balloon/internal.h"

#include <endian.h>

/* Largest buffer of page numbers: 256 MiB of pages. Drivers send 256 to 1024 numbers. Chosen, unmeasured. */
#define MAX_PFNS 65536u
/*
 * A batch ends when it has been told of this many pages, the same one a hundred times or not, so that the lock is free
 * now and then. Chosen, unmeasured.
 */
#define MAX_BATCH_PAGES 65536u
#define PFNS_A_READ 256u

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

static void add_pfns(struct balloon *balloon, const struct virtq *q, const struct virtq_chain *chain, uint64_t *count)
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
            balloon_add_range(balloon, &balloon->batch, gpa_of(le32toh(pfn[i])), PAGE_BYTES, count);
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

bool balloon_batch(struct balloon *balloon, enum balloon_role role)
{
    struct virtio_device *device = &balloon->device;
    unsigned index = balloon->queue_of[role];
    struct virtq_chain chain;
    uint64_t *count = role == ROLE_INFLATE   ? &balloon->count.nr_inflate_pages
                      : role == ROLE_DEFLATE ? &balloon->count.nr_deflate_pages
                                             : &balloon->count.nr_report_pages;
    struct leave leave = {balloon, role};
    uint64_t told = 0;

    balloon->nr_held = 0;
    while (balloon->nr_held < VIRTQ_MAX_SIZE && told < MAX_BATCH_PAGES && virtio_pop(device, index, &chain)) {
        balloon->held[balloon->nr_held++] = (struct balloon_held){chain.id, chain.nr_slots};
        if (role == ROLE_REPORT) {
            add_segments(balloon, &chain, count);
            told += chain.in_bytes >> PAGE_SHIFT;
        } else {
            add_pfns(balloon, &device->queue[index], &chain, count);
            told += chain.out_bytes / sizeof(__le32);
        }
    }
    bool more = balloon->nr_held == VIRTQ_MAX_SIZE || told >= MAX_BATCH_PAGES;
    bool live = virtio_is_live(device);
    if (live)
        page_set_for_each(&balloon->batch, leave_run, &leave);
    page_set_clear(&balloon->batch);
    if (!live)
        return false; /* the queue broke: nothing more is done until the reset */
    for (unsigned i = 0; i < balloon->nr_held; i++)
        balloon_answer(balloon, role, balloon->held[i]);
    if (balloon->nr_held)
        virtio_announce(device, index);
    return more;
}
