/* SPDX-License-Identifier: Apache-2.0 */
/*
 * quiesce: a machine at rest for a moment, and the pages that its guest does not use: for a dump, and to take those pages.
 *
 *   logs of writes on -> the guest is asked for its free pages, and goes on running while it answers
 *   -> vCPUs paused -> in the device thread: free = hinted, and written by nobody since or all zeros -> run() -> all goes on
 *
 * A hint says that a page was free at some time since the round began. Whoever took it back since then wrote to it: a
 * vCPU, which KVM's dirty log has, or a device, which guest_mem's log has. Both logs begin before the round does.
 */
#ifndef VMM_QUIESCE_H
#define VMM_QUIESCE_H

#include "vmm/machine.h"

#include <stdatomic.h>

struct quiesced {
    struct mm_thread *thread; /* the device thread's; NULL with vm: --backend kernel */
    struct mm_vm *vm;
    const struct guest_mem *mem;
    bool has_balloon;           /* without one no guest can say which pages are free */
    const uint64_t *free_pages; /* bit gfn; NULL: the guest was not asked, or has no driver for it */
    uint64_t nr_free_bits;
    uint64_t hinted_pages;   /* of them free_pages has all but the next ones */
    uint64_t kept_pages;     /* hinted, but written since, and not with zeros */
    bool complete;           /* the guest said that these were all */
    uint32_t poison;         /* the word that the guest finds in pages that it does not use: they keep it; 0: none */
    const atomic_bool *stop; /* the machine is to end: give up soon */
};

struct quiesce {
    /* Ask the guest for free pages; false: do not. */
    bool hints;
    unsigned hint_ms; /* how long to wait; what came until then counts */
    /* In the device thread, no vCPU in the guest, no device at work but for transfers to pinned pages. 0, or -1 with diag. */
    int (*run)(void *ctx, const struct quiesced *q, struct diag *diag);
    void *ctx;
};

/*
 * machine_quiesce - any thread but the machine's own. 0, or -1 with diag (EXIT_GUEST): what run said, the machine has
 * ended, no memory, or another is under way.
 */
must_check int machine_quiesce(struct machine *m, const struct quiesce *how, struct diag *diag);

#endif
