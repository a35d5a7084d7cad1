/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A page source for the compressed store: a small arena, runs of 2^order frames by first fit, every refusal on demand.
 * Safe from several threads. Pages that come back are overwritten, so that a stale object does not go unseen.
 */
#ifndef TESTS_FAKE_RUN_SOURCE_H
#define TESTS_FAKE_RUN_SOURCE_H

#include <pthread.h>
#include "mm/swap/zram.h"

struct run_source {
    char *arena;
    struct frame *frames;
    uint32_t nr_frames;
    pthread_mutex_t mutex;
    /* guarded by mutex */
    bool *taken;
    uint32_t nr_taken;
    uint32_t nr_bad_puts; /* runs that came back unlike they went out */
    /* set by the test */
    long fail_at;       /* this call of get() from now on fails, once; 0: none */
    unsigned max_order; /* get() refuses more */
};

void run_source_init(struct run_source *source, uint32_t nr_frames);
void run_source_fini(struct run_source *source);
struct zram_pages run_source_pages(struct run_source *source);

#endif
