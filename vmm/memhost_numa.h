/* SPDX-License-Identifier: Apache-2.0 */
/* What memhost knows of the host's nodes: their parts of the arena, and the CPUs of their threads. */
#ifndef VMM_MEMHOST_NUMA_H
#define VMM_MEMHOST_NUMA_H

#include <sched.h>

#include "vmm/hostmem.h"
#include "vmm/numa.h"

struct memhost_numa {
    uint8_t node_of_cpu[CPU_SETSIZE];  /* nearest node of the configuration, as an index */
    cpu_set_t node_cpus[MM_MAX_NODES]; /* by index; empty: none, or not known */
};

/* @host: NULL: this one, read now. */
void memhost_numa_init(struct memhost_numa *numa, const struct mm_config *config, const struct numa_host *host);
/* Slots and nodes of @out. */
void memhost_numa_arena(const struct mm_config *config, struct hostmem_config *out);
/* @policy for all of the VM's memory; one without nodes changes nothing. 0, or -1 with diag. */
must_check int memhost_numa_place(struct mm_vm *vm, const struct mm_region *regions, unsigned nr,
                                  const struct mm_policy *policy, struct diag *diag);
/* As memhost_vm_bind. */
must_check int memhost_numa_bind(struct mm_host *host, struct mm_vm *vm, gpa_t gpa, uint64_t bytes, int node,
                                 struct diag *diag);

#endif
