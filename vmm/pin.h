/* SPDX-License-Identifier: Apache-2.0 */
/* Which CPU of the host each vCPU stays on. */
#ifndef VMM_PIN_H
#define VMM_PIN_H

#include "vmm/guest_numa.h"
#include "vmm/numa.h"

/*
 * pin_choose - CPUs for the @nr_cpus vCPUs of VM @vm, of @allowed, which is not empty: vCPU i of VM j gets number
 * j * N + i of them, round and round. A vCPU of a guest node that stands for a node of the host gets one of that node's
 * in the same way; of all, where the host's node has none.
 */
void pin_choose(const struct numa_host *host, const struct guest_numa *guest, const cpu_set_t *allowed, unsigned vm,
                unsigned nr_cpus, int *cpus);

#endif
