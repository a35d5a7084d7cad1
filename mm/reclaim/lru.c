/* SPDX-License-Identifier: Apache-2.0 */
/* The lists themselves; taking pages out of the guest is in deactivate.c. */
#include "mm/reclaim/lru.h"

#include <assert.h>
#include <string.h>

void lru_init(struct mm_lru *lru)
{
    *lru = (struct mm_lru){0};
    lock_init(&lru->lock, LOCK_LRU);
}

void lru_fini(struct mm_lru *lru)
{
    lock_fini(&lru->lock);
}

/* Every hand is on the ring as long as there is a block on it. */
static void unlink_block_locked(struct mm_host *host, struct block *block)
{
    struct block *next = block->lru_next == block ? NULL : block->lru_next;
    block->lru_prev->lru_next = block->lru_next;
    block->lru_next->lru_prev = block->lru_prev;
    for (unsigned n = 0; n < host->nr_nodes; n++)
        if (host->node[n].hand == block)
            host->node[n].hand = next;
    __atomic_store_n(&block->on_lru, false, __ATOMIC_RELAXED);
    counter_add(&host->lru.nr_active, -1);
}

/* Where the hand of @node comes last. */
static void link_block_locked(struct mm_host *host, struct block *block, unsigned node)
{
    struct block *next = host->node[node].hand;
    if (!next) {
        block->lru_next = block->lru_prev = next = block;
        for (unsigned n = 0; n < host->nr_nodes; n++)
            host->node[n].hand = block;
    }
    block->lru_next = next;
    block->lru_prev = next->lru_prev;
    next->lru_prev->lru_next = block;
    next->lru_prev = block;
    __atomic_store_n(&block->on_lru, true, __ATOMIC_RELAXED);
    counter_add(&host->lru.nr_active, 1);
}

void lru_add_block(struct mm_host *host, struct block *block, unsigned node)
{
    /* on_lru changes to false only under block.lock too (lru_del_block), which the caller holds */
    if (__atomic_load_n(&block->on_lru, __ATOMIC_RELAXED))
        return;
    lock_acquire(&host->lru.lock);
    if (!block->on_lru)
        link_block_locked(host, block, node);
    lock_release(&host->lru.lock);
}

void lru_del_block(struct mm_host *host, struct block *block)
{
    lock_acquire(&host->lru.lock);
    if (block->on_lru)
        unlink_block_locked(host, block);
    lock_release(&host->lru.lock);
}

/* Blocks a hand passes while it holds lru.lock once: some 3 ns each, or a cache miss. */
#define PASS_MAX 32u

/* A block with nothing at all in the guest is met too: it leaves the ring. */
static bool passes(const struct block *block, unsigned node)
{
    uint8_t on_nodes = __atomic_load_n(&block->on_nodes, __ATOMIC_RELAXED);
    return on_nodes && !(on_nodes >> node & 1);
}

/*
 * The block under the hand of @node, or one soon after it that has pages there, locked; the hand goes on. *left goes down
 * by blocks passed. NULL when there is none or the block is busy.
 */
static struct block *next_block(struct mm_host *host, unsigned node, uint64_t *left)
{
    lock_acquire(&host->lru.lock);
    struct block *block = host->node[node].hand;
    for (unsigned i = 0; block && i < PASS_MAX && passes(block, node) && *left > 1; i++, --*left)
        block = block->lru_next;
    if (block) {
        host->node[node].hand = block->lru_next;
        if (!lock_try(&block->lock))
            block = NULL;
    }
    lock_release(&host->lru.lock);
    return block;
}

uint32_t lru_deactivate(struct mm_thread *thread, unsigned node, uint32_t pages, bool force, uint64_t *scanned)
{
    struct mm_host *host = thread->host;
    uint32_t taken = 0;
    for (uint64_t left = counter_read(&host->lru.nr_active); left > 0 && taken < pages; left--) {
        struct block *block = next_block(host, node, &left);
        if (!block)
            continue;
        taken += lru_deactivate_block(thread, block, node, force, scanned);
        if (block->nr_resident == 0)
            lru_del_block(host, block);
        lock_release(&block->lock);
    }
    return taken;
}

uint32_t lru_look_next(struct mm_thread *thread, unsigned node, uint64_t *left, uint64_t *scanned)
{
    struct block *block = next_block(thread->host, node, left);
    if (!block)
        return 0;
    uint32_t taken = lru_look_block(thread, block, node, scanned);
    if (block->nr_resident == 0)
        lru_del_block(thread->host, block);
    lock_release(&block->lock);
    return taken;
}

void lru_mark(struct mm_host *host, unsigned node)
{
    lock_acquire(&host->lru.lock);
    fn_t *mark = host->node[node].standby_mark;
    for (unsigned i = NR_STANDBY_MARKS - 1; i > 0; i--)
        mark[i] = mark[i - 1];
    mark[0] = host->node[node].standby.head;
    lock_release(&host->lru.lock);
}

uint32_t lru_nr_marked(struct mm_host *host, unsigned node, uint32_t most)
{
    const struct mm_node *from = &host->node[node];
    uint32_t pages = 0;
    lock_acquire(&host->lru.lock);
    fn_t mark = from->standby_mark[NR_STANDBY_MARKS - 1], fn = mark == FN_NONE ? FN_NONE : from->standby.tail;
    while (fn != FN_NONE && pages < most) {
        pages += host->frames[fn].flags & FRAME_F_HUGE ? BLOCK_PAGES : 1;
        fn = fn == mark ? FN_NONE : host->frames[fn].prev;
    }
    lock_release(&host->lru.lock);
    return MIN_OF(pages, most);
}

/* The standby frame @fn comes to the head of the list that its flags name, or leaves that list. */
static void link_frame_locked(struct mm_host *host, fn_t fn)
{
    struct mm_node *node = &host->node[node_of(host, fn)];
    const struct frame *frame = &host->frames[fn];
    bool refused = frame->flags & FRAME_F_INCOMPRESSIBLE;
    frame_list_push_head(refused ? &node->refused : &node->standby, host->frames, fn);
    counter_add(&node->nr_standby, frame->flags & FRAME_F_HUGE ? (int64_t)BLOCK_PAGES : 1);
    counter_add(&node->nr_refused, refused);
}

/* Marks at @from are at @to from now on. */
static void move_marks(struct mm_node *node, fn_t from, fn_t to)
{
    for (unsigned i = 0; i < NR_STANDBY_MARKS; i++)
        if (node->standby_mark[i] == from)
            node->standby_mark[i] = to;
}

static void unlink_frame_locked(struct mm_host *host, fn_t fn)
{
    struct mm_node *node = &host->node[node_of(host, fn)];
    const struct frame *frame = &host->frames[fn];
    bool refused = frame->flags & FRAME_F_INCOMPRESSIBLE;
    move_marks(node, fn, frame->next); /* the next older one */
    frame_list_remove(refused ? &node->refused : &node->standby, host->frames, fn);
    counter_add(&node->nr_standby, frame->flags & FRAME_F_HUGE ? -(int64_t)BLOCK_PAGES : -1);
    counter_add(&node->nr_refused, -(int64_t)refused);
}

/* The frame leaves standby. False: a store is at it; with @orphan it is the store's to free from now on. */
static bool leave_standby(struct mm_host *host, fn_t fn, bool orphan)
{
    struct mm_lru *lru = &host->lru;
    struct frame *frame = &host->frames[fn];
    lock_acquire(&lru->lock);
    bool mine = frame->use == FRAME_STANDBY;
    if (mine) {
        unlink_frame_locked(host, fn);
        frame->use = FRAME_USED;
        frame->flags = 0;
    } else if (orphan) {
        frame->flags |= FRAME_F_ORPHAN;
    }
    lock_release(&lru->lock);
    return mine;
}

bool lru_forget_standby(struct mm_host *host, fn_t fn)
{
    return leave_standby(host, fn, true);
}

bool lru_claim_standby(struct mm_host *host, fn_t fn)
{
    return leave_standby(host, fn, false);
}

bool lru_replace_standby(struct mm_host *host, fn_t fn, fn_t by)
{
    struct mm_node *node = &host->node[node_of(host, fn)];
    struct frame *old = &host->frames[fn], *new = &host->frames[by];
    lock_acquire(&host->lru.lock);
    bool mine = old->use == FRAME_STANDBY;
    if (mine) {
        bool refused = old->flags & FRAME_F_INCOMPRESSIBLE;
        *new = *old;
        move_marks(node, fn, by);
        frame_list_replace(refused ? &node->refused : &node->standby, host->frames, fn, by);
        old->use = FRAME_USED;
        old->flags = 0;
    }
    lock_release(&host->lru.lock);
    return mine;
}

void lru_enter_standby_huge(struct mm_host *host, fn_t fn)
{
    struct frame *head = &host->frames[fn];
    lock_acquire(&host->lru.lock);
    head->use = FRAME_STANDBY;
    head->flags = FRAME_F_HUGE;
    link_frame_locked(host, fn);
    lock_release(&host->lru.lock);
}

/*
 * Who took the frame home has noted no time, but in its watch when it was to be seen who touches it. Pages that are armed
 * though the frame was not have been at home since it was taken.
 */
static void note_home(const struct mm_host *host, struct block *block, enum standby_end end)
{
    const struct access_watch *whole = &block->access.whole;
    uint64_t last_ns = whole->armed_ns ? whole->last_ns : host->ops->clock_ns(host->ops_ctx);
    block->access.home_ns = MAX_OF(block->access.home_ns, last_ns);
    if (end == STANDBY_ARMED && !block->armed)
        block->armed_ms = (uint32_t)(block->access.home_ns / NS_PER_MS);
}

void lru_split_standby(struct mm_host *host, struct block *block, fn_t fn, enum standby_end end)
{
    struct page_map all;
    memset(&all, 0xff, sizeof(all));
    /* a 2 MiB frame is never written back as such, so it is on the list */
    bool mine = lru_forget_standby(host, fn);
    assert(mine);
    (void)mine;
    zone_split(&pool_of(host, fn)->zones[POOL_HUGE], fn, BLOCK_ORDER);
    note_home(host, block, end);
    block_split(block);
    for (uint32_t i = 0; i < BLOCK_PAGES; i++)
        host->frames[fn + i].taken = taken_clock(block->access.home_ns);
    lru_enter_standby(host, block, &all, 0, fn, BLOCK_PAGES, end);
    event_add(host, EV_thp_split_page, 1);
}

struct mm_vm *lru_frame_vm(struct mm_host *host, fn_t fn)
{
    return __atomic_load_n(&host->vms[host->frames[fn].vm], __ATOMIC_RELAXED);
}

void vm_get(struct mm_vm *vm)
{
    __atomic_add_fetch(&vm->nr_users, 1, __ATOMIC_RELAXED);
}

struct mm_vm *vm_hold_from(struct mm_host *host, unsigned *id)
{
    struct mm_vm *vm = NULL;
    lock_acquire(&host->lru.lock);
    while (*id < MM_MAX_VMS && !(vm = host->vms[*id]))
        ++*id;
    if (vm)
        vm_get(vm);
    lock_release(&host->lru.lock);
    return vm;
}

void vm_put(struct mm_vm *vm)
{
    /* pairs with the acquire in mm_vm_destroy */
    __atomic_sub_fetch(&vm->nr_users, 1, __ATOMIC_RELEASE);
}

/* Splits the 2 MiB frame @fn at the tail of standby. lru.lock is held on entry and on return, not in between. */
static void split_tail_locked(struct mm_host *host, fn_t fn)
{
    struct mm_lru *lru = &host->lru;
    struct mm_vm *vm = lru_frame_vm(host, fn);
    struct block *block = vm_block(vm, host->frames[fn].gfn);
    vm_get(vm);
    lock_release(&lru->lock);
    lock_acquire(&block->lock);
    struct s2_entry entry = pmd_read(block);
    if (entry.state == S2_STANDBY && entry.payload == fn)
        lru_split_standby(host, block, fn, STANDBY_OLD);
    lock_release(&block->lock);
    vm_put(vm);
    lock_acquire(&lru->lock);
}

unsigned lru_isolate(struct mm_thread *thread, unsigned node, bool refused, fn_t out[], uint8_t flags[], unsigned max)
{
    struct mm_host *host = thread->host;
    struct mm_lru *lru = &host->lru;
    const struct mm_node *from = &host->node[node];
    unsigned nr = 0;
    lock_acquire(&lru->lock);
    while (nr < max) {
        fn_t fn = refused && from->refused.nr ? from->refused.tail : from->standby.tail;
        if (fn == FN_NONE)
            break;
        struct frame *frame = &host->frames[fn];
        if (frame->flags & FRAME_F_HUGE) {
            if (nr > 0)
                break;
            split_tail_locked(host, fn);
            continue;
        }
        unlink_frame_locked(host, fn);
        frame->use = FRAME_WRITEBACK;
        vm_get(lru_frame_vm(host, fn));
        flags[nr] = frame->flags;
        out[nr++] = fn;
    }
    __atomic_add_fetch(&lru->nr_isolated, nr, __ATOMIC_RELAXED);
    lock_release(&lru->lock);
    return nr;
}

void lru_isolate_done(struct mm_host *host, unsigned nr)
{
    __atomic_add_fetch(&host->lru.nr_evictions, 1, __ATOMIC_RELAXED);
    __atomic_sub_fetch(&host->lru.nr_isolated, nr, __ATOMIC_RELAXED);
}

void lru_putback(struct mm_thread *thread, fn_t fn, uint8_t flags)
{
    struct mm_host *host = thread->host;
    struct mm_lru *lru = &host->lru;
    struct frame *frame = &host->frames[fn];
    struct mm_vm *vm = lru_frame_vm(host, fn);
    lock_acquire(&lru->lock);
    bool orphan = frame->flags & FRAME_F_ORPHAN;
    if (!orphan) {
        frame->use = FRAME_STANDBY;
        frame->flags = (uint8_t)(frame->flags | flags) & 15u;
        link_frame_locked(host, fn);
    }
    lock_release(&lru->lock);
    vm_put(vm);
    if (orphan)
        pool_free_filled(pool_of(host, fn), fn, 1);
}

void thread_forget_entry(struct mm_thread *thread, const struct s2_entry *entry)
{
    struct mm_host *host = thread->host;
    if (entry->state == S2_STANDBY && lru_forget_standby(host, (fn_t)entry->payload))
        thread_free_page(thread, (fn_t)entry->payload);
    else if (entry->state == S2_ZRAM)
        zram_free(host->zram, entry->payload);
    else if (entry->state == S2_SWAP)
        swap_free(host->swap, swap_ref_unpack(entry->payload));
}
