/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Locks with ranks. A thread takes locks in rising rank; a debug build (EBB_DEBUG_LOCKS, set in the sanitizer
 * builds) keeps the ranks a thread holds and aborts with both names when the order is broken.
 * Hosted: a pthread mutex. Freestanding (EBB_FREESTANDING, the guest kernel): a test-and-set spin lock with pause.
 */
#ifndef MM_BASE_LOCK_H
#define MM_BASE_LOCK_H

#include "mm/base/types.h"

#ifndef EBB_FREESTANDING
#include <pthread.h>
#endif

enum lock_rank {
    LOCK_VMS,    /* host: the list of VMs */
    LOCK_BLOCK,  /* block: the 512 entries of 2 MiB of guest; a second one only by trylock */
    LOCK_LRU,    /* host: active and standby lists */
    LOCK_ZRAM,   /* store: size classes */
    LOCK_SWAP,   /* swap areas and their slot maps */
    LOCK_POOL,   /* pool: stock of zeroed blocks, budget batches */
    LOCK_SLAB,   /* one slab cache */
    LOCK_ZONE,   /* one zone: buddy lists */
    LOCK_ACCESS, /* heat maps; nothing is taken under it */
    LOCK_NR_RANKS,
};

struct mm_lock {
#ifdef EBB_FREESTANDING
    int held;
#else
    pthread_mutex_t mutex;
#endif
    uint8_t rank; /* enum lock_rank */
};

void lock_init(struct mm_lock *lock, enum lock_rank rank);
void lock_fini(struct mm_lock *lock);
void lock_acquire(struct mm_lock *lock);
/* True when the lock was free and is now held. Exempt from the rank order. */
must_check bool lock_try(struct mm_lock *lock);
void lock_release(struct mm_lock *lock);

#endif
