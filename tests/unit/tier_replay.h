/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a trace of accesses would have found on a fast node of some pages: of an oracle that knows the trace and keeps the
 * pages with most accesses there, and of FIFO. For the simulation and for the benchmark of tiers.
 */
#ifndef TESTS_UNIT_TIER_REPLAY_H
#define TESTS_UNIT_TIER_REPLAY_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

struct tier_replay {
    uint32_t nr_pages, fast_pages;
    uint64_t nr, nr_fifo; /* accesses that count; of them, on FIFO's fast node */
    uint32_t *count;      /* by page, accesses that count */
    uint32_t *queue;      /* FIFO's fast node, fast_pages long; the page that came first is at next */
    uint32_t next;
    bool *in; /* by page: it is in the queue */
};

static inline void tier_replay_fini(struct tier_replay *replay)
{
    free(replay->count);
    free(replay->queue);
    free(replay->in);
}

/* 0, or -ENOMEM with nothing left. FIFO's fast node has the first pages. */
static inline int tier_replay_init(struct tier_replay *replay, uint32_t nr_pages, uint32_t fast_pages)
{
    *replay = (struct tier_replay){.nr_pages = nr_pages, .fast_pages = fast_pages};
    replay->count = calloc(nr_pages, sizeof(replay->count[0]));
    replay->queue = calloc(fast_pages, sizeof(replay->queue[0]));
    replay->in = calloc(nr_pages, sizeof(replay->in[0]));
    if (!replay->count || !replay->queue || !replay->in) {
        tier_replay_fini(replay);
        return -ENOMEM;
    }
    for (uint32_t page = 0; page < fast_pages; page++) {
        replay->queue[page] = page;
        replay->in[page] = true;
    }
    return 0;
}

static inline bool tier_replay_fifo(struct tier_replay *replay, uint32_t page)
{
    if (replay->in[page])
        return true;
    uint32_t *slot = &replay->queue[replay->next];
    replay->in[*slot] = false;
    replay->in[page] = true;
    *slot = page;
    replay->next = (replay->next + 1) % replay->fast_pages;
    return false;
}

/* One access; those while things warm up do not count. */
static inline void tier_replay_access(struct tier_replay *replay, uint32_t page, bool counts)
{
    bool fifo = tier_replay_fifo(replay, page);

    if (!counts)
        return;
    replay->nr++;
    replay->nr_fifo += fifo;
    replay->count[page]++;
}

static inline int tier_replay_more_first(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? 1 : x > y ? -1 : 0;
}

/* Accesses to the pages that have most of them, as many as fit. The last thing to be asked: it sorts the counts. */
static inline uint64_t tier_replay_oracle(struct tier_replay *replay)
{
    uint64_t sum = 0;

    qsort(replay->count, replay->nr_pages, sizeof(replay->count[0]), tier_replay_more_first);
    for (uint32_t i = 0; i < replay->fast_pages; i++)
        sum += replay->count[i];
    return sum;
}

#endif
