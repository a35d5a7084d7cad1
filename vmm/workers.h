/* SPDX-License-Identifier: Apache-2.0 */
/*
 * workers: the threads for mm/'s background work: a kswapd for each node, housekeeper, scanner. Each sleeps until it is
 * kicked; the housekeeper also looks around by itself, every 200 ms while it finds something to do, less and less often
 * when not, and the scanner when it said it would.
 *
 *      SLEEPING --kick, wakes--> KICKED --> RUNNING --nothing more--> SLEEPING
 *                                             |  ^
 *                                     kick, no system call, no wake
 */
#ifndef VMM_WORKERS_H
#define VMM_WORKERS_H

#include <sched.h>
#include <stdatomic.h>

#include "mm/host_ops.h"
#include "vmm/diag.h"

struct workers_config {
    /* One round of the work. True: made progress (kswapd), more to do at once (housekeeper). */
    bool (*run)(void *ctx, enum mm_worker worker);
    /* One round of MM_SCANNER. Returns ms until the next; 0: not before a kick. NULL: there is no scanner. */
    unsigned (*scan)(void *ctx);
    unsigned nr_nodes;          /* 1..MM_MAX_NODES */
    const cpu_set_t *node_cpus; /* by node: where its kswapd runs, the empty set: anywhere; NULL: so do all */
    void *ctx;
};

struct workers;
/* No threads yet, but kicks are heard. -ENOMEM. */
must_check int workers_create(const struct workers_config *config, struct workers **out);
/* Each worker does one round at once. 0, or -1 with diag and no thread left. */
must_check int workers_start(struct workers *workers, struct diag *diag);
/* Ends the threads after the round they are in; kicks do nothing from now on. */
void workers_stop(struct workers *workers);
/* Stops first. */
void workers_destroy(struct workers *workers);
/* Any thread, any lock. */
void workers_kick(struct workers *workers, enum mm_worker worker);

#endif
