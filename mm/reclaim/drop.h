/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The other way out: pages that nobody wants any more. Nothing is stored and no I/O is done; frames, objects and slots
 * are free at once, but for a frame that a store is at, which frees it (see lru_forget_standby).
 *
 * @what the pages are from now on: ABSENT, FILL, BALLOON, or UNPLUGGED for a whole block.
 * Callers hold block.lock, of each block, and the blocks are not pinned.
 */
#ifndef MM_RECLAIM_DROP_H
#define MM_RECLAIM_DROP_H

#include "mm/reclaim/lru.h"

/*
 * drop_blocks - all of @nr blocks that follow each other, by one host operation. They have no table afterwards, and may have
 * a 2 MiB frame again where the host drops page tables too. Returns pages that were something else.
 */
uint32_t drop_blocks(struct mm_thread *thread, struct block *block, unsigned nr, const struct s2_entry *what);
/*
 * drop_pages - pages [first, end) of it; a block that is all @what then has no table any more. *dropped grows by pages
 * that were something else. -ENOMEM: no table for what remains, nothing has changed.
 */
must_check int drop_pages(struct mm_thread *thread, struct block *block, unsigned first, unsigned end,
                          const struct s2_entry *what, uint64_t *dropped);
/* A table whose entries are all the same ABSENT, FILL or BALLOON becomes one entry. */
void drop_table_if_same(struct block *block);

#endif
