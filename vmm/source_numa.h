/* SPDX-License-Identifier: Apache-2.0 */
/* What source.c collects for the views numa and tiers. */
#ifndef VMM_SOURCE_NUMA_H
#define VMM_SOURCE_NUMA_H

#include "vmm/source.h"

/* Each: a new object, NULL when memory ran out. source.lock is held. */
json_t *source_numa(const struct source *source);
json_t *source_tiers(const struct source *source);

#endif
