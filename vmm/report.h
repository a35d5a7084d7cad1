/* SPDX-License-Identifier: Apache-2.0 */
/*
 * report: what happened to the memory of a run. Figures are taken while the VMs still have their memory: a VM's when it
 * is added, the host's when the report is closed.
 */
#ifndef VMM_REPORT_H
#define VMM_REPORT_H

#include "vmm/kernel_backend.h"
#include "vmm/machine.h"
#include "vmm/options.h"

#include <jansson.h>
#include <stdio.h>

struct report_vm {
    char name[16];
    uint64_t memory_bytes;
    struct machine_result result;
    char failure[sizeof(((struct diag *)NULL)->text)]; /* "" or what failed, in one line */
    bool has_mm;                                       /* BACKEND_EBB: stat, minor and major say something */
    struct mm_vm_stat stat;
    struct hist minor, major;
    uint64_t node_pages[MM_MAX_NODES]; /* in the guest, by node of report.nodes */
    json_t *devices;                   /* what its devices counted; NULL before report_add_vm */
    uint64_t resident_bytes;           /* as the kernel counts */
    bool gone; /* gave its memory back before the end: its places are not the host's of the end */
};

struct report {
    const struct run_options *options;
    bool stopped; /* by a signal, before the workloads were through */
    bool has_mm;
    const char *transport;
    uint64_t peak_resident_bytes; /* VmHWM */
    uint64_t swapped_bytes;       /* VmSwap */
    struct mm_host_stat host;     /* has_mm */
    unsigned nr_nodes;            /* has_mm */
    struct mm_node_stat nodes[MM_MAX_NODES];
    const char *zram_algo; /* NULL: no store */
    struct zram_stat zram;
    unsigned nr_swaps;
    struct swap_area_stat swaps[MAX_SWAP_AREAS];
    struct kernel_backend_stat kernel; /* !has_mm */
    unsigned nr_vms;                   /* that have begun */
    struct report_vm vms[];            /* options->nr_vms */
};

/* @options outlives the report. NULL when there is no memory. */
struct report *report_create(const struct run_options *options);
/* NULL is fine. */
void report_destroy(struct report *report);
/* VM @index of options->nr_vms has ended. Joins the machine's threads; it keeps its memory. */
void report_add_vm(struct report *report, unsigned index, const char *name, struct machine *machine,
                   struct memhost *mh);
void report_close(struct report *report, struct memhost *mh);

/*
 * report_full_budget - "budget 64 MiB", or, where other nodes have room which is not for the one that found none,
 * "budget 16 MiB on node 1". @nodes: all @nr of them. Returns whether it is the latter: --budget alone does not mend that.
 */
bool report_full_budget(char *out, size_t out_bytes, const struct mm_node_stat *nodes, unsigned nr);

/* "ok", "rebooted" (a Linux guest, by itself), "stopped" or the first failure. */
const char *report_result(const struct report *report);

/* The object that --json writes; a new reference, or NULL. */
json_t *report_json(const struct report *report);
/* The closing table. 0 or -ENOMEM. */
int report_table(const struct report *report, FILE *out);

#endif
