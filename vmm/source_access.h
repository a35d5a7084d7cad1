/* SPDX-License-Identifier: Apache-2.0 */
/* What source.c collects for the views idle and heatmap. */
#ifndef VMM_SOURCE_ACCESS_H
#define VMM_SOURCE_ACCESS_H

#include "vmm/source.h"

/* Each: a new object, NULL when memory ran out. source.lock is held. */
json_t *source_idle(const struct source *source);
json_t *source_heatmap(const struct source_vm *vm);

#endif
