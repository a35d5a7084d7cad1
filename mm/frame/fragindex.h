/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How fragmented free memory is, from the numbers of free blocks by order; the meaning is Linux's (mm/vmstat.c,
 * extfrag_index and unusable_index in debugfs), but that one block which is too small is 0, not less. Freestanding,
 * integers in thousandths.
 *
 *     what an allocation of order o meets      extfrag_index    unusable_index
 *     a block of order o or more is free       -1000            share of free memory in smaller blocks
 *     little is free                           towards 0        1000
 *     much is free, in small pieces            towards 1000     1000
 */
#ifndef MM_FRAME_FRAGINDEX_H
#define MM_FRAME_FRAGINDEX_H

#include "mm/base/types.h"

/*
 * extfrag_index - why an allocation of @order would fail: -1000 it would not; 0..1000 from lack of memory to
 * fragmentation. 0 where nothing is free at all. @nr_blocks: free blocks that can be given out, of one plane.
 */
int extfrag_index(const uint32_t nr_blocks[MAX_ORDER + 1], unsigned order);
/* unusable_index - thousandths of the free memory that cannot serve @order, 1000 where nothing is free. */
int unusable_index(const uint32_t nr_blocks[MAX_ORDER + 1], unsigned order);

#endif
