/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fake/run_source.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define JUNK 0xd7

void run_source_init(struct run_source *source, uint32_t nr_frames)
{
    memset(source, 0, sizeof(*source));
    source->nr_frames = nr_frames;
    source->max_order = MAX_ORDER;
    source->arena = aligned_alloc(PAGE_BYTES, nr_frames * PAGE_BYTES);
    source->frames = calloc(nr_frames, sizeof(*source->frames));
    source->taken = calloc(nr_frames, sizeof(*source->taken));
    if (!source->arena || !source->frames || !source->taken)
        abort();
    memset(source->arena, JUNK, nr_frames * PAGE_BYTES);
    pthread_mutex_init(&source->mutex, NULL);
}

void run_source_fini(struct run_source *source)
{
    pthread_mutex_destroy(&source->mutex);
    free(source->arena);
    free(source->frames);
    free(source->taken);
}

static bool run_is_free(const struct run_source *source, uint32_t start, uint32_t nr)
{
    for (uint32_t i = 0; i < nr; i++) {
        if (source->taken[start + i])
            return false;
    }
    return true;
}

static void run_take(struct run_source *source, fn_t head, unsigned order)
{
    for (uint32_t i = 0; i < 1u << order; i++) {
        source->taken[head + i] = true;
        source->frames[head + i].use = i ? FRAME_TAIL : FRAME_USED;
    }
    source->frames[head].order = order & 15u;
    source->nr_taken += 1u << order;
}

static int get_locked(struct run_source *source, unsigned order, fn_t *out)
{
    uint32_t nr = 1u << order;

    if (source->fail_at && !--source->fail_at)
        return -ENOMEM;
    if (order > source->max_order)
        return -ENOMEM;
    for (uint32_t fn = 0; fn + nr <= source->nr_frames; fn += nr) {
        if (run_is_free(source, fn, nr)) {
            run_take(source, fn, order);
            *out = fn;
            return 0;
        }
    }
    return -ENOMEM;
}

static int source_get(void *ctx, unsigned order, fn_t *out)
{
    struct run_source *source = ctx;

    pthread_mutex_lock(&source->mutex);
    int rc = get_locked(source, order, out);
    pthread_mutex_unlock(&source->mutex);
    return rc;
}

static void source_put(void *ctx, fn_t fn, unsigned order)
{
    struct run_source *source = ctx;
    struct frame *head = &source->frames[fn];

    pthread_mutex_lock(&source->mutex);
    if (head->use != FRAME_USED || head->order != order || !source->taken[fn])
        source->nr_bad_puts++;
    for (uint32_t i = 0; i < 1u << order; i++)
        source->taken[fn + i] = false;
    source->nr_taken -= 1u << order;
    memset(source->arena + fn * PAGE_BYTES, JUNK, PAGE_BYTES << order);
    pthread_mutex_unlock(&source->mutex);
}

struct zram_pages run_source_pages(struct run_source *source)
{
    return (struct zram_pages){
        .get = source_get,
        .put = source_put,
        .ctx = source,
        .arena = source->arena,
        .frames = source->frames,
    };
}
