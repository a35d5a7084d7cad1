/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Three builds of the same five functions:
 *   hosted                    a pthread mutex
 *   hosted, EBB_DEBUG_LOCKS   the same, and each thread remembers what it holds:
 *                             lock_acquire(l):  rank(l) > rank(h) for every h held, or abort
 *   EBB_FREESTANDING          a spin lock; the guest kernel runs a few vCPUs and holds locks shortly
 */
#include "mm/base/lock.h"

#ifdef EBB_FREESTANDING

void lock_init(struct mm_lock *lock, enum lock_rank rank)
{
    lock->held = 0;
    lock->rank = (uint8_t)rank;
}

void lock_fini(struct mm_lock *lock)
{
    (void)lock;
}

void lock_acquire(struct mm_lock *lock)
{
    while (!lock_try(lock)) {
        while (__atomic_load_n(&lock->held, __ATOMIC_RELAXED))
            __builtin_ia32_pause();
    }
}

bool lock_try(struct mm_lock *lock)
{
    /* Acquire: partner is the release in lock_release. */
    return !__atomic_exchange_n(&lock->held, 1, __ATOMIC_ACQUIRE);
}

void lock_release(struct mm_lock *lock)
{
    __atomic_store_n(&lock->held, 0, __ATOMIC_RELEASE);
}

#else

#ifdef EBB_DEBUG_LOCKS

#include <stdio.h>
#include <stdlib.h>

#define MAX_HELD 32 /* chosen, unmeasured: a thread holds two or three */

static const char *const rank_names[LOCK_NR_RANKS] = {
    [LOCK_VMS] = "vms",   [LOCK_BLOCK] = "block", [LOCK_LRU] = "lru",   [LOCK_ZRAM] = "zram",     [LOCK_SWAP] = "swap",
    [LOCK_POOL] = "pool", [LOCK_SLAB] = "slab",   [LOCK_ZONE] = "zone", [LOCK_ACCESS] = "access",
};

static _Thread_local struct {
    const struct mm_lock *lock[MAX_HELD];
    unsigned nr;
} held;

static void check_order(const struct mm_lock *lock)
{
    for (unsigned i = 0; i < held.nr; i++) {
        if (held.lock[i]->rank < lock->rank)
            continue;
        fprintf(stderr, "lock order broken: %s (rank %u) taken while %s (rank %u) is held\n", rank_names[lock->rank],
                lock->rank, rank_names[held.lock[i]->rank], held.lock[i]->rank);
        abort();
    }
}

static void note_held(const struct mm_lock *lock)
{
    if (held.nr == MAX_HELD) {
        fprintf(stderr, "lock order: a thread holds more than %d locks\n", MAX_HELD);
        abort();
    }
    held.lock[held.nr++] = lock;
}

static void note_released(const struct mm_lock *lock)
{
    for (unsigned i = held.nr; i-- > 0;) {
        if (held.lock[i] != lock)
            continue;
        held.lock[i] = held.lock[--held.nr];
        return;
    }
    fprintf(stderr, "lock order: %s released by a thread that does not hold it\n", rank_names[lock->rank]);
    abort();
}

#else

static void check_order(const struct mm_lock *lock)
{
    (void)lock;
}

static void note_held(const struct mm_lock *lock)
{
    (void)lock;
}

static void note_released(const struct mm_lock *lock)
{
    (void)lock;
}

#endif

void lock_init(struct mm_lock *lock, enum lock_rank rank)
{
    pthread_mutex_init(&lock->mutex, NULL);
    lock->rank = (uint8_t)rank;
}

void lock_fini(struct mm_lock *lock)
{
    pthread_mutex_destroy(&lock->mutex);
}

void lock_acquire(struct mm_lock *lock)
{
    check_order(lock);
    pthread_mutex_lock(&lock->mutex);
    note_held(lock);
}

bool lock_try(struct mm_lock *lock)
{
    if (pthread_mutex_trylock(&lock->mutex))
        return false;
    note_held(lock);
    return true;
}

void lock_release(struct mm_lock *lock)
{
    note_released(lock);
    pthread_mutex_unlock(&lock->mutex);
}

#endif
