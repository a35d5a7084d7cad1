/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The workload language: STEP[;STEP...], STEP = name[:size][,key=value...]. `ebb run --workload help` prints what
 * workload_help says.
 *
 *   fill:200M,pattern=mixed    verify    zipf:200M,ops=200000,write=30,theta=0.99    stream:100M,passes=3
 *   idle:2s    free:50M    churn:100M,ops=10000
 *
 * Parsed by the host into the steps that the guest reads (guest-images/ebbguest/abi.h holds the wire form).
 */
#ifndef VMM_WORKLOAD_H
#define VMM_WORKLOAD_H

#include "guest-images/ebbguest/abi.h"
#include "mm/base/types.h"
#include "vmm/diag.h"

#define WORKLOAD_MAX_STEPS EBB_MAX_STEPS

struct workload {
    unsigned nr_steps;
    struct ebb_step steps[WORKLOAD_MAX_STEPS];
    char text[1024]; /* as given */
};

struct workload_step_result {
    char name[12];
    uint64_t pages, ops, pages_bad;
    uint64_t ns; /* host time */
};

/*
 * workload_parse - 0, or -1 with diag (EXIT_USAGE): which step, which word, what would be right; *out is unchanged.
 * @memory_bytes: of the VM, EBB_MIN_MEMORY_BYTES or more; sizes are checked against what its kernel leaves.
 */
must_check int workload_parse(const char *text, uint64_t memory_bytes, struct workload *out, struct diag *diag);
/* Text of `--workload help`, several lines. */
const char *workload_help(void);
/* "fill"; @kind below EBB_NR_STEP_KINDS. */
const char *workload_step_name(uint32_t kind);
/*
 * workload_working_set - bytes of the pages that the step used within the last @window_ns of its time, or all of it when it
 * was shorter: for a zipf on average, 0 for steps that use none or of which it is not known.
 */
uint64_t workload_working_set(const struct ebb_step *step, const struct workload_step_result *result,
                              uint64_t window_ns);
/* The window of the reports; `ebb show idle` has the same. */
#define WORKLOAD_WINDOW_NS UINT64_C(10000000000)
/* Memory below the hole and from EBB_HIGH_GPA on, for a VM of @memory_bytes. */
void workload_split_memory(uint64_t memory_bytes, uint64_t *low_bytes, uint64_t *high_bytes);

#endif
