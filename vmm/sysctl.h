/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sysctl: settings of a running ebb's memory manager, with Linux's names where it has them.
 *
 *   vm.compact_memory           written only: 1 compacts all nodes
 *   vm.compaction_proactiveness 0..100
 *   vm.extfrag_threshold        0..1000
 *   vm.min_free_kbytes          read only
 */
#ifndef VMM_SYSCTL_H
#define VMM_SYSCTL_H

#include "mm/mm.h"
#include "vmm/diag.h"

#include <jansson.h>

/*
 * sysctl_check - may @name be read, or be written with @value (NULL: it is read)? 0, or -1 with @diag (EXIT_USAGE), which
 * suggests the nearest name for one that does not exist.
 */
int sysctl_check(const char *name, const int64_t *value, struct diag *diag);
/* Name and value of what can be read, or of @name only (NULL: all). NULL with @diag as sysctl_check. */
json_t *sysctl_read(struct mm_host *host, const char *name, struct diag *diag);
/*
 * sysctl_write - @name becomes @value. 0 and *out: what sysctl_read would say, and what came of it; -1 with @diag as
 * sysctl_check, or EXIT_GUEST: the run is over. vm.compact_memory takes its time.
 */
int sysctl_write(struct mm_thread *thread, struct mm_host *host, const char *name, int64_t value, json_t **out,
                 struct diag *diag);

#endif
