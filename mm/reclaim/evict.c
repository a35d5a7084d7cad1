/* SPDX-License-Identifier: Apache-2.0 */
/* See evict.h. */
#include "mm/reclaim/evict.h"
#include "mm/reclaim/age.h"

#include <errno.h>

/* Pages isolated at once: one write request of neighbouring slots, one lock round. */
#define EVICT_BATCH 32u
/* An epoch is thrashing when all but an eighth of what was stored was wanted again soon. Chosen, unmeasured. */
#define THRASHING_SHARE 8u
/* It is over when mistakes are rarer by this, over the time of an epoch or so many ns. Chosen, unmeasured. */
#define CALM_SHARE 8u
#define CALM_NS UINT64_C(1000000000)
/* Standby as a share of resident pages. docs/decisions/002. */
#define STANDBY_PCT_DEFAULT 5u
/* Filled pages that a store may need for one batch: 32 incompressible-but-stored pages and one zspage. */
#define STORE_PAGES 4u

/*
 * The content of isolated frame @fn is stored as @state, @payload: its entry says so from now on and the frame is free.
 * False: its guest took it back meanwhile; the stored copy is the caller's to drop.
 */
static bool commit(struct mm_thread *thread, fn_t fn, enum s2_state state, uint64_t payload)
{
    struct mm_host *host = thread->host;
    struct frame *frame = &host->frames[fn];
    struct mm_vm *vm = lru_frame_vm(host, fn);
    struct block *block = vm_block(vm, frame->gfn);
    lock_acquire(&block->lock);
    bool orphan = frame->flags & FRAME_F_ORPHAN;
    if (!orphan) {
        unsigned index = frame->gfn & (BLOCK_PAGES - 1);
        struct s2_entry old = pte_read(block, index);
        struct s2_entry new = {.state = (uint8_t)state, .payload = payload, .age = age_when_stored(old.age)};
        new.stamp = (uint8_t)(__atomic_load_n(&host->lru.epoch, __ATOMIC_RELAXED) & S2_STAMP_MAX);
        pte_write(block, index, &old, &new);
    }
    lock_release(&block->lock);
    vm_put(vm);
    /* not to this thread's own list: the store may need it for the next page */
    pool_free_filled(pool_of(host, fn), fn, 1);
    return !orphan;
}

/* To zram what it takes until it is @full; what it refuses is kept in fn[0, *nr). Returns frames freed. */
static uint32_t store_zram(struct mm_thread *thread, fn_t fn[], uint8_t flags[], unsigned *nr, bool *full)
{
    struct mm_host *host = thread->host;
    unsigned kept = 0;
    uint32_t freed = 0;
    int err = pool_prefill(&host->node[host_roomiest_node(host)].pool, STORE_PAGES);
    /* without them the store may still have room in its own pages; if not, zram_store says -ENOMEM */
    (void)err;
    for (unsigned i = 0; i < *nr; i++) {
        const struct frame *frame = &host->frames[fn[i]];
        uint64_t payload;
        err = *full ? -ENOSPC : -E2BIG;
        if (!*full && !(flags[i] & FRAME_F_INCOMPRESSIBLE))
            err = zram_store(host->zram, thread->zram, frame->vm, frame->gfn, host_page(host, fn[i]), &payload);
        if (err) {
            *full = err == -ENOSPC;
            if (err == -E2BIG && !(flags[i] & FRAME_F_INCOMPRESSIBLE)) {
                flags[i] |= FRAME_F_INCOMPRESSIBLE;
                counter_add(&host->lru.nr_refusals, 1);
            }
            flags[kept] = flags[i];
            fn[kept++] = fn[i];
            continue;
        }
        event_add(host, EV_zswpout, 1);
        if (!commit(thread, fn[i], S2_ZRAM, payload))
            zram_free(host->zram, payload);
        freed++;
    }
    *nr = kept;
    return freed;
}

/* To a swap area, as many as it has slots for; what stays is kept in fn[0, *nr). Returns frames freed. */
static uint32_t store_swap(struct mm_thread *thread, fn_t fn[], uint8_t flags[], unsigned *nr)
{
    struct mm_host *host = thread->host;
    unsigned kept = 0, i = 0;
    uint32_t freed = 0;
    while (i < *nr) {
        struct swap_ref first;
        void *pages[EVICT_BATCH];
        int error[EVICT_BATCH];
        unsigned got = swap_alloc(host->swap, *nr - i, &first);
        if (!got)
            break;
        for (unsigned k = 0; k < got; k++)
            pages[k] = host_page(host, fn[i + k]);
        if (swap_write(host->swap, first, pages, got, error))
            event_add(host, EV_swap_write_error, 1);
        for (unsigned k = 0; k < got; k++) {
            struct swap_ref ref = {.area = first.area, .slot = first.slot + k};
            if (error[k]) {
                swap_free(host->swap, ref);
                flags[kept] = flags[i + k];
                fn[kept++] = fn[i + k];
                continue;
            }
            event_add(host, EV_pswpout, 1);
            if (!commit(thread, fn[i + k], S2_SWAP, swap_ref_pack(ref)))
                swap_free(host->swap, ref);
            freed++;
        }
        i += got;
    }
    for (; i < *nr; i++, kept++) {
        flags[kept] = flags[i];
        fn[kept] = fn[i];
    }
    *nr = kept;
    return freed;
}

/*
 * Epochs end when pages are stored: when nothing is stored any more, nobody says that the last one is over. So this one is
 * calm when mistakes are far rarer in it than they were in the last one, which was nothing else.
 */
static bool is_calm(const struct mm_host *host)
{
    const struct mm_lru *lru = &host->lru;
    uint32_t epoch = __atomic_load_n(&lru->epoch, __ATOMIC_RELAXED);
    uint64_t began_ns = counter_read(&lru->epoch_ns[epoch & S2_STAMP_MAX]);
    uint64_t last_ns = began_ns - counter_read(&lru->epoch_ns[(epoch - 1) & S2_STAMP_MAX]);
    uint64_t now_ns = host->ops->clock_ns(host->ops_ctx), passed_ns = now_ns - MIN_OF(now_ns, began_ns);
    double mistakes = __atomic_load_n(&lru->mistakes, __ATOMIC_RELAXED), last = (double)(host_nr_resident(host) / 2);
    return passed_ns > MIN_OF(last_ns, CALM_NS) && mistakes * CALM_SHARE * (double)last_ns <= last * (double)passed_ns;
}

uint32_t evict_nr_thrashing(const struct mm_host *host)
{
    uint32_t nr = __atomic_load_n(&host->lru.nr_thrashing, __ATOMIC_RELAXED);
    return nr && is_calm(host) ? 0 : nr;
}

static void advance_epoch(struct mm_host *host, uint32_t stored)
{
    struct mm_lru *lru = &host->lru;
    uint32_t pages = __atomic_add_fetch(&lru->epoch_pages, stored, __ATOMIC_RELAXED);
    if (!stored || pages < host_nr_resident(host) / 2)
        return;
    uint32_t before = evict_nr_thrashing(host);
    __atomic_store_n(&lru->epoch_pages, 0, __ATOMIC_RELAXED);
    uint32_t epoch = __atomic_add_fetch(&lru->epoch, 1, __ATOMIC_RELAXED);
    __atomic_store_n(&lru->epoch_ns[epoch & S2_STAMP_MAX], host->ops->clock_ns(host->ops_ctx), __ATOMIC_RELAXED);
    uint32_t mistakes = __atomic_exchange_n(&lru->mistakes, 0, __ATOMIC_RELAXED);
    bool thrashing = mistakes >= pages - pages / THRASHING_SHARE;
    __atomic_store_n(&lru->nr_thrashing, thrashing ? before + 1 : 0, __ATOMIC_RELAXED);
}

uint8_t evict_age_back(struct mm_host *host, const struct s2_entry *old)
{
    uint32_t epoch = __atomic_load_n(&host->lru.epoch, __ATOMIC_RELAXED);
    if (age_was_mistake(old->stamp, epoch)) {
        __atomic_add_fetch(&host->lru.mistakes, 1, __ATOMIC_RELAXED);
        counter_add(&host->lru.nr_mistakes, 1);
    }
    return age_from_store(old->age, old->stamp, epoch);
}

static void count_stolen(struct mm_host *host, struct mm_node *from, enum reclaimer who, uint32_t pages)
{
    static const enum vm_event event[] = {EV_pgsteal_kswapd, EV_pgsteal_direct, EV_pgsteal_khugepaged};
    event_add(host, event[who], pages);
    counter_add(&from->nr_stolen, pages);
}

uint32_t evict_standby(struct mm_thread *thread, unsigned node, uint32_t pages, enum reclaimer who)
{
    struct mm_host *host = thread->host;
    struct mm_node *from = &host->node[node];
    bool zram_full = !host->zram, swap = swap_nr_free(host->swap) > 0, writable = swap_is_writable(host->swap);
    nodemask_t slower = demote_nodes(host, node);
    uint32_t freed = 0;
    /* one round over the list: what no store takes goes to the head and is not met again */
    uint64_t left = counter_read(&from->nr_standby), refused = counter_read(&from->nr_refused);
    if (!writable && !slower)
        left -= MIN_OF(left, refused);
    while (freed < pages && left > 0 && (!zram_full || swap || slower)) {
        fn_t fn[EVICT_BATCH];
        uint8_t flags[EVICT_BATCH];
        uint32_t huge = slower ? demote_huge_tail(thread, node, slower, who) : 0;
        if (huge) {
            count_stolen(host, from, who, huge);
            left -= MIN_OF(left, (uint64_t)huge);
            freed += huge;
            continue;
        }
        unsigned want = (unsigned)MIN_OF((uint64_t)MIN_OF(EVICT_BATCH, pages - freed), left);
        unsigned isolated = lru_isolate(thread, node, writable || slower, fn, flags, want), nr = isolated;
        if (!nr)
            break;
        uint32_t demoted = 0, stored = 0;
        left -= nr;
        if (slower)
            demoted = demote(thread, node, fn, flags, &nr, who, &slower);
        if (nr > 0 && !zram_full)
            stored += store_zram(thread, fn, flags, &nr, &zram_full);
        if (nr > 0)
            stored += store_swap(thread, fn, flags, &nr);
        for (unsigned i = 0; i < nr; i++)
            lru_putback(thread, fn[i], flags[i]);
        count_stolen(host, from, who, demoted + stored);
        lru_isolate_done(host, isolated);
        advance_epoch(host, stored);
        thread->nr_stored += stored;
        freed += demoted + stored;
        swap = swap_nr_free(host->swap) > 0;
        writable = swap_is_writable(host->swap);
    }
    return freed;
}

/* From the guests to @node's standby, until it has its share and @pages. */
static void fill_standby(struct mm_thread *thread, unsigned node, uint32_t pages, bool force, enum reclaimer who)
{
    struct mm_host *host = thread->host;
    const struct mm_node *from = &host->node[node];
    uint64_t pct = host->config.standby_pct ? host->config.standby_pct : STANDBY_PCT_DEFAULT;
    uint64_t want = counter_read(&from->nr_resident) * pct / 100 + pages;
    uint64_t have = counter_read(&from->nr_standby), refused = counter_read(&from->nr_refused), scanned = 0;
    bool swap = swap_nr_free(host->swap) > 0;
    uint64_t take = want > have ? want - have : 0, usable = have - MIN_OF(have, refused);
    /* standby full of pages that can go nowhere: a few others have their try */
    if (!swap_is_writable(host->swap) && usable < pages)
        take = MAX_OF(take, pages - usable);
    if (take > 0 && (host->zram || swap || demote_nodes(host, node)))
        lru_deactivate(thread, node, (uint32_t)take, force, &scanned);
    static const enum vm_event event[] = {EV_pgscan_kswapd, EV_pgscan_direct, EV_pgscan_khugepaged};
    event_add(host, event[who], scanned);
}

/*
 * Of the pages of a fast node all are touched within a second or so, and who just came to standby may be the hottest: what
 * the next round evicts is taken now, so that it has had time to be touched.
 */
uint32_t reclaim_round(struct mm_thread *thread, unsigned node, uint32_t pages, bool force, enum reclaimer who)
{
    fill_standby(thread, node, pages, force, who);
    uint32_t freed = evict_standby(thread, node, pages, who);
    if (demote_nodes(thread->host, node))
        fill_standby(thread, node, pages, false, who);
    return freed;
}
