/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Demotion: a page that would leave a fast node for a store goes to standby on the next slower one first. It is copied,
 * for it cannot change while it is standby; then its entry names the new frame and the old one is free. So it is in one
 * place at a time, and a copy that finds no room leaves it where it was.
 */
#include "mm/reclaim/evict.h"
#include "mm/reclaim/place.h"

#include <string.h>

nodemask_t demote_nodes(const struct mm_host *host, unsigned node)
{
    nodemask_t slower = 0;
    for (unsigned n = 0; n < host->nr_nodes; n++)
        if (host->node[n].config.rank > host->node[node].config.rank)
            slower |= (nodemask_t)(1u << n);
    return slower;
}

/* Whether @pages fit on @to above its low watermark as it is. */
static bool fits(const struct mm_host *host, unsigned to, uint32_t pages)
{
    const struct pool *pool = &host->node[to].pool;
    return pool_nr_free(pool) >= pool->wmark[WMARK_LOW] + pages;
}

/*
 * Where @pages of the guest page that frame @fn of @node holds go: to the next tier down in which its policy allows one of
 * the nodes @open; there to the nearest that has room, so that nothing is stored while another one has, or else to the
 * nearest, which has to make some. -1: nowhere. Its VM is held.
 */
static int target_of(struct mm_host *host, unsigned node, fn_t fn, uint32_t pages, nodemask_t open)
{
    const uint8_t *nearest = host->node[node].nearest;
    open &= place_allowed(lru_frame_vm(host, fn), host->frames[fn].gfn);
    bool best_fits = false;
    int best = -1;
    for (unsigned i = 0; i < host->nr_nodes; i++) {
        unsigned n = nearest[i];
        if (!(open >> n & 1))
            continue;
        int rank = host->node[n].config.rank - (best < 0 ? UINT8_MAX + 1 : host->node[best].config.rank);
        if (rank < 0 || (rank == 0 && !best_fits && fits(host, n, pages))) {
            best = (int)n;
            best_fits = fits(host, n, pages);
        }
    }
    return best;
}

/* Whether @pages fit on @to above its low watermark; makes room there where they do not. */
static bool has_room(struct mm_thread *thread, unsigned to, uint32_t pages, enum reclaimer who)
{
    const struct pool *pool = &thread->host->node[to].pool;
    uint32_t need = pool->wmark[WMARK_LOW] + pages, have;
    while ((have = pool_nr_free(pool)) < need)
        if (!reclaim_round(thread, to, need - have, false, who))
            return false;
    return true;
}

static void count(struct mm_host *host, enum reclaimer who, uint32_t pages)
{
    static const enum vm_event event[] = {EV_pgdemote_kswapd, EV_pgdemote_direct, EV_pgdemote_khugepaged};
    event_add(host, event[who], pages);
    event_add(host, EV_pgmigrate_success, pages);
}

/* Isolated frame @from has its content in @to now. */
static void commit(struct mm_host *host, fn_t from, fn_t to)
{
    const struct frame *frame = &host->frames[from];
    struct mm_vm *vm = lru_frame_vm(host, from);
    struct block *block = vm_block(vm, frame->gfn);
    lock_acquire(&block->lock);
    bool orphan = frame->flags & FRAME_F_ORPHAN;
    if (!orphan) {
        unsigned index = frame->gfn & (BLOCK_PAGES - 1);
        struct page_map map = {0};
        map_set(&map, index);
        lru_enter_standby(host, block, &map, index, to, 1, STANDBY_YOUNG);
    }
    lock_release(&block->lock);
    vm_put(vm);
    pool_free_filled(pool_of(host, from), from, 1);
    if (orphan)
        pool_free_filled(pool_of(host, to), to, 1);
}

static bool demote_one(struct mm_host *host, unsigned to, fn_t fn)
{
    fn_t new;
    if (pool_alloc_filled(&host->node[to].pool, 0, MIGRATE_MOVABLE, true, &new)) {
        event_add(host, EV_pgmigrate_fail, 1);
        return false;
    }
    memcpy(host_page(host, new), host_page(host, fn), PAGE_BYTES);
    commit(host, fn, new);
    return true;
}

/*
 * A page so hot that it would be promoted again stays where it is, at the head of standby and a little colder: whoever
 * comes to the tail again and again without a touch is not hot any more. True: it was dealt with.
 */
static bool spare_hot(struct mm_thread *thread, fn_t fn, uint8_t flags)
{
    struct mm_host *host = thread->host;
    const struct frame *frame = &host->frames[fn];
    struct block *block = vm_block(lru_frame_vm(host, fn), frame->gfn);
    unsigned index = frame->gfn & (BLOCK_PAGES - 1), hot = __atomic_load_n(&host->hot, __ATOMIC_RELAXED);
    bool spared = false;
    lock_acquire(&block->lock);
    if (!(frame->flags & FRAME_F_ORPHAN)) { /* else its guest may have given up the whole table */
        struct s2_entry old = pte_read(block, index), new = old;
        struct page_note note = note_of(&old);
        spared = note.heat >= hot;
        if (spared) {
            note.heat--;
            new.payload = standby_payload(fn, standby_is_armed(old.payload), note);
            pte_write(block, index, &old, &new);
        }
    }
    lock_release(&block->lock);
    if (spared)
        lru_putback(thread, fn, flags);
    return spared;
}

/* How many of @want pages the rate lets through now. What is not used of it is given back. */
static uint32_t take_rate(struct mm_host *host, uint32_t want)
{
    uint64_t now_ns = host->ops->clock_ns(host->ops_ctx);
    uint32_t nr = 0;
    while (nr < want && rate_take(&host->demote, PAGE_BYTES, now_ns))
        nr++;
    return nr;
}

/* @left pages may go in all; a node that has no room for them is struck from *open. False: this one stays. */
static bool demote_somewhere(struct mm_thread *thread, unsigned node, fn_t fn, uint32_t left, enum reclaimer who,
                             nodemask_t *open)
{
    struct mm_host *host = thread->host;
    for (int to; (to = target_of(host, node, fn, left, *open)) >= 0; *open &= (nodemask_t) ~(1u << to))
        if (has_room(thread, (unsigned)to, left, who) && demote_one(host, (unsigned)to, fn))
            return true;
    return false;
}

uint32_t demote(struct mm_thread *thread, unsigned node, fn_t fn[], uint8_t flags[], unsigned *nr, enum reclaimer who,
                nodemask_t *open)
{
    struct mm_host *host = thread->host;
    uint32_t done = 0, want = 0;
    unsigned kept = 0;
    for (unsigned i = 0; i < *nr; i++)
        want += target_of(host, node, fn[i], 1, *open) >= 0;
    if (!want)
        return 0;
    uint32_t let = take_rate(host, want);
    for (unsigned i = 0; i < *nr; i++) {
        uint32_t left = let - done;
        if (left && target_of(host, node, fn[i], left, *open) >= 0) {
            if (who == RECLAIM_KSWAPD && spare_hot(thread, fn[i], flags[i]))
                continue; /* nobody waits for it */
            if (demote_somewhere(thread, node, fn[i], left, who, open)) {
                done++;
                continue;
            }
        }
        flags[kept] = flags[i];
        fn[kept++] = fn[i];
    }
    for (uint32_t unused = let - done; unused > 0; unused--)
        rate_give_back(&host->demote, PAGE_BYTES);
    if (let < want)
        *open = 0;
    count(host, who, done);
    *nr = kept;
    return done;
}

/* The block, its VM held, of the 2 MiB frame at the tail of @node's standby, and where it goes. NULL: there is none that may. */
static struct block *huge_tail(struct mm_host *host, unsigned node, nodemask_t open, int *to, fn_t *fn)
{
    struct block *block = NULL;
    lock_acquire(&host->lru.lock);
    *fn = host->node[node].standby.tail;
    bool huge = *fn != FN_NONE && host->frames[*fn].flags & FRAME_F_HUGE;
    *to = huge ? target_of(host, node, *fn, BLOCK_PAGES, open) : -1;
    if (*to >= 0) {
        struct mm_vm *vm = lru_frame_vm(host, *fn);
        vm_get(vm);
        block = vm_block(vm, host->frames[*fn].gfn);
    }
    lock_release(&host->lru.lock);
    return block;
}

void lru_rehome_huge(struct mm_host *host, struct block *block, fn_t to)
{
    struct s2_entry entry = pmd_read(block);
    fn_t from = (fn_t)entry.payload;
    memcpy(host_page(host, to), host_page(host, from), BLOCK_BYTES);
    bool mine = lru_forget_standby(host, from);
    (void)mine; /* a 2 MiB frame is never isolated */
    struct s2_entry new = entry;
    new.payload = to;
    pmd_write(block, &entry, &new);
    host->frames[to].gfn = block->start;
    host->frames[to].vm = block->vm->id;
    host->frames[to].order = BLOCK_ORDER;
    lru_enter_standby_huge(host, to);
    pool_free_filled(pool_of(host, from), from, BLOCK_PAGES);
}

/* The 2 MiB frame @fn of @block is copied to @to, if it is standby still. Returns pages that went. */
static uint32_t demote_huge(struct mm_host *host, struct block *block, fn_t fn, unsigned to)
{
    struct pool *pool = &host->node[to].pool;
    uint32_t done = 0;
    fn_t new;
    bool room = !pool_alloc_block_any(pool, &new);
    if (room) {
        lock_acquire(&block->lock);
        struct s2_entry entry = pmd_read(block);
        if (entry.state == S2_STANDBY && (fn_t)entry.payload == fn) {
            lru_rehome_huge(host, block, new);
            done = BLOCK_PAGES;
        }
        lock_release(&block->lock);
        if (!done)
            pool_free_filled(pool, new, BLOCK_PAGES);
    }
    event_add(host, EV_pgmigrate_fail, !room);
    return done;
}

uint32_t demote_huge_tail(struct mm_thread *thread, unsigned node, nodemask_t open, enum reclaimer who)
{
    struct mm_host *host = thread->host;
    int to;
    fn_t fn;
    struct block *block = huge_tail(host, node, open, &to, &fn);
    if (!block)
        return 0;
    uint32_t done = 0;
    bool let = rate_take(&host->demote, BLOCK_BYTES, host->ops->clock_ns(host->ops_ctx));
    if (let && has_room(thread, (unsigned)to, BLOCK_PAGES, who))
        done = demote_huge(host, block, fn, (unsigned)to);
    vm_put(block->vm);
    if (let && !done)
        rate_give_back(&host->demote, BLOCK_BYTES); /* its pages may go singly */
    count(host, who, done);
    return done;
}
