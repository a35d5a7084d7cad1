/* SPDX-License-Identifier: Apache-2.0 */
/*
 * phase: how far a run is on its way to VMs that run, and back. Set by the main thread; told by the API to whoever asks
 * for what is not there yet, and shown as progress.
 */
#ifndef VMM_PHASE_H
#define VMM_PHASE_H

#include "mm/base/types.h"

#include <pthread.h>

#define PHASE_TEXT 80

enum phase_step {
    PHASE_HOST,  /* memory host and swap areas are being made: nothing is there to be seen */
    PHASE_MAKE,  /* VMs are being made, one after the other; their memory can be seen from now on */
    PHASE_START, /* they are told to run */
    PHASE_RUN,   /* all is there */
    PHASE_END,   /* they are taken down, and give their memory back */
};

struct phase {
    pthread_mutex_t lock;
    /* guarded by lock */
    enum phase_step step;
    unsigned at, of;   /* VM that the step is at, from 1; VMs in all */
    uint64_t begin_ns; /* of the step, monotonic */
};

/* At PHASE_HOST. */
void phase_init(struct phase *phase);
void phase_fini(struct phase *phase);
/*
 * phase_set - what was made before is seen by who reads the phase. @at, @of: 0 for PHASE_RUN. Returns for how many ns the
 * step has lasted.
 */
uint64_t phase_set(struct phase *phase, enum phase_step step, unsigned at, unsigned of);
/* Fills @text (PHASE_TEXT) with what ebb is at, as in "making VM 3 of 40"; "" while the VMs run. Any thread. */
enum phase_step phase_read(struct phase *phase, char *text);

#endif
