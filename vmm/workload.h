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

/* 0, or -1 with diag (EXIT_USAGE): which step, which word, what would be right. @memory_bytes: sizes are checked
 * against it. */
int workload_parse(const char *text, uint64_t memory_bytes, struct workload *out, struct diag *diag);
const char *workload_help(void);

#endif
