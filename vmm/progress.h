/* SPDX-License-Identifier: Apache-2.0 */
/* progress: one line about where the workloads are and where the memory is. */
#ifndef VMM_PROGRESS_H
#define VMM_PROGRESS_H

#include "vmm/machine.h"

#define PROGRESS_BYTES 240

/* Between two lines, for the rate. Start with zeros. */
struct progress {
    const void *machine; /* the one that was told about */
    unsigned step;
    uint64_t done, at_ns;
    uint64_t start_ns; /* the first line, 0 before */
};

/*
 * progress_text - about the machine that has come least far. @machines: nr of them, NULL for those that are through.
 * @workload: NULL for Linux guests, of which nobody knows how far they are: how long they have been running. @mm: NULL with --backend kernel. Fills @out (PROGRESS_BYTES), "" when nothing runs.
 */
void progress_text(struct progress *progress, struct machine *const *machines, unsigned nr,
                   const struct workload *workload, struct mm_host *mm, char *out);

#endif
