/* SPDX-License-Identifier: Apache-2.0 */
/* Moving a page that is at home to another slot, with the one record following it. */
#ifndef MM_RECLAIM_MIGRATE_H
#define MM_RECLAIM_MIGRATE_H

#include "mm/reclaim/lru.h"

/*
 * migrate_standby - the single standby page in slot @from is in slot @to afterwards, at the same place on its list. @to is
 * filled, of the same node and the caller's, and @from is the caller's in exchange (filled, FRAME_USED). A page at home
 * cannot change, so it is copied under its block's lock.
 * Returns 0, or -EAGAIN with nothing changed: it is no such page any more, its block is busy, or a store is at it. Takes
 * lru.lock; tries the block's lock, so the caller may hold another block.
 */
must_check int migrate_standby(struct mm_host *host, fn_t from, fn_t to);

#endif
