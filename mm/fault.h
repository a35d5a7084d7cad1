/* SPDX-License-Identifier: Apache-2.0 */
/* The way in, for others than guests. Internal to mm/. */
#ifndef MM_FAULT_H
#define MM_FAULT_H

#include "mm/reclaim/host.h"

/* For flags: when the page is there, nothing is done and nothing counted. */
#define FAULT_UNLESS_RESIDENT 0x100u

/* mm_fault for the page @gfn of @block; same results. No lock held. */
must_check int fault_page(struct mm_thread *thread, struct block *block, gfn_t gfn, unsigned flags);

#endif
