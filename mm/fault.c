/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mm_fault: the one way in. By the state of the page:
 *
 *   absent    first touch: a zeroed 2 MiB frame where the pool can afford it, else a few zeroed pages around
 *   fill      the same, filled with the word that the guest wanted
 *   balloon   this page alone leaves the balloon, zeroed or filled
 *   standby   the page goes back (2 MiB: whole when the pool has room and it is not on trial, else in single pages)
 *   zram      decompressed,
 *   swap      read; either with the pages after it, wherever they are, when the faults are a sequence
 *   resident  somebody was faster
 *   unplugged refused
 *
 * What a fault may need is charged before the block is locked; under the lock nothing waits for memory.
 */
#include "mm/fault.h"
#include "mm/compact.h"
#include "mm/policy/access_note.h"
#include "mm/policy/numa.h"
#include "mm/policy/page_size.h"
#include "mm/reclaim/age.h"
#include "mm/reclaim/evict.h"
#include "mm/reclaim/place.h"

#include <errno.h>
#include <string.h>

/* From here on a window is placed by one UFFDIO_MOVE instead of a UFFDIO_COPY: FACTS has 3.2 to 3.8 us a page against 4.4. */
#define MOVE_MIN_PAGES 8u

struct fault {
    struct mm_thread *thread;
    struct mm_host *host;
    struct block *block;
    gfn_t gfn;
    unsigned index;  /* of the page in its block */
    unsigned node;   /* where its thread has charged pages */
    unsigned target; /* where a page at home should be from now on */
    bool moves;      /* it is to go there: its thread has charged pages on @target, too */
    bool home;       /* it is at home on the node wished for */
    bool in_place;   /* nothing is charged there: a page at home goes back as it is */
    bool again;      /* it was not at home, or on its way to a store: once more, with a charge */
    uint8_t heat;    /* of the page, with this touch */
    unsigned vcpu;   /* who touched the page, + 1; 0: nobody known */
    uint64_t start_ns, locked_ns;
    struct wish wish;
    bool major;
    bool huge;    /* a 2 MiB frame came back */
    bool sampled; /* it was out to be seen to come back */
    bool hinted;  /* armed, on a host where who touches what matters */
};

/* Tries to put a page on another node before it stays where it is. */
#define MIGRATE_TRIES 3u

/* This touch, for the next one to know. */
static struct page_note touch_note(const struct fault *f)
{
    return (struct page_note){.vcpu = (uint8_t)f->vcpu, .when = note_clock(f->start_ns), .heat = f->heat};
}

/* Pages [index, index + nr) are in the guest now, on @node. */
static void enter_resident(struct fault *f, unsigned index, uint32_t nr, unsigned node)
{
    access_came_pages(f->block, nr, f->index - index < nr, f->locked_ns);
    for (unsigned i = index; i < index + nr; i++) {
        struct s2_entry old = pte_read(f->block, i);
        struct s2_entry new = {.state = S2_RESIDENT, .perm = S2_RWX};
        if (f->block->access.panel)
            f->sampled |= access_came(f->block, i, &old, i == f->index, f->locked_ns);
        /* those that come along are about to be touched by the same one */
        new.payload = resident_payload(node, touch_note(f));
        if (old.state == S2_STANDBY)
            new.age = standby_is_armed(old.payload) ? old.age : age_from_standby(old.age);
        else if (old.state == S2_ZRAM || old.state == S2_SWAP)
            new.age = evict_age_back(f->host, &old);
        pte_write(f->block, i, &old, &new);
    }
    lru_add_block(f->host, f->block, node);
}

/* Pages from @src, which this thread has charged, become resident. *done as host_ops.place_copy. */
static int place_copy(struct fault *f, unsigned index, const void *src, uint32_t nr, uint32_t *done)
{
    *done = 0;
    int err =
        f->host->ops->place_copy(f->host->ops_ctx, f->block->vm->id, f->block->start + index, src, nr, f->node, done);
    f->thread->charged[f->node] -= *done;
    wish_count(f->host, &f->wish, f->node, *done);
    return err;
}

/* ---- sequences ---- */

/* Pages that a sequence may have run over, because they were there, between two faults. Chosen, unmeasured. */
#define SEQUENCE_MAX_GAP 64u

static bool all_resident(const struct block *block, unsigned start, unsigned end)
{
    if (pmd_read(block).state != S2_TABLE)
        return start == end;
    while (start < end && pte_read(block, start).state == S2_RESIDENT)
        start++;
    return start == end;
}

/*
 * The window of a fault that comes where the last one's ended, or after pages that were there: twice as long as that.
 * 0: it is not one of a sequence. The last block's sequence goes on in this one.
 */
static uint32_t sequence_window(const struct fault *f)
{
    const struct block *block = f->block, *before = NULL;
    unsigned next = block->ra_next;
    if (next > 0 && next <= f->index && f->index - next < SEQUENCE_MAX_GAP && all_resident(block, next, f->index))
        return block->ra_window * 2u;
    if (f->index < SEQUENCE_MAX_GAP && block->start >= BLOCK_PAGES)
        before = vm_block(block->vm, block->start - BLOCK_PAGES);
    if (!before || __atomic_load_n(&before->ra_next, __ATOMIC_RELAXED) < BLOCK_PAGES - SEQUENCE_MAX_GAP ||
        !all_resident(block, 0, f->index))
        return 0;
    return __atomic_load_n(&before->ra_window, __ATOMIC_RELAXED) * 2u;
}

/* This fault brought pages in up to @end of its block, of the @window it had. */
static void sequence_note(struct fault *f, unsigned end, uint32_t window)
{
    __atomic_store_n(&f->block->ra_next, (uint16_t)end, __ATOMIC_RELAXED);
    __atomic_store_n(&f->block->ra_window, (uint8_t)MIN_OF(window, MM_BUFFER_PAGES), __ATOMIC_RELAXED);
}

/* ---- first touch ---- */

static bool may_fault_huge(const struct fault *f)
{
    const struct pool *pool = &f->host->node[f->node].pool;
    return f->host->config.thp && !f->block->small && !f->wish.single &&
           pool_nr_free(pool) >= pool->wmark[WMARK_HIGH] + BLOCK_PAGES;
}

static int fault_zero_huge(struct fault *f, struct s2_entry entry)
{
    struct mm_host *host = f->host;
    struct block *block = f->block;
    struct pool *pool = &host->node[f->node].pool;
    fn_t fn;
    uint32_t done = 0;
    int err = pool_alloc_block(pool, true, &fn);
    if (err && compact_direct(f->thread, f->node))
        err = pool_alloc_block(pool, true, &fn);
    if (err)
        return err;
    if (entry.state == S2_FILL)
        entry_fill_pages(host_page(host, fn), BLOCK_PAGES, &entry);
    err = host->ops->place(host->ops_ctx, block->vm->id, block->start, fn, BLOCK_PAGES, &done);
    if (err && done == 0) {
        pool_free_filled(pool, fn, BLOCK_PAGES);
        return err;
    }
    wish_count(host, &f->wish, f->node, done);
    struct s2_entry leaf = {.state = S2_RESIDENT, .payload = fn, .perm = S2_RWX};
    if (err) {
        /* a part of it is in the guest: the block goes on in single pages */
        block_split(block);
        enter_resident(f, 0, done, f->node);
        pool_free_empty(pool, fn, done);
        pool_free_filled(pool, fn + done, BLOCK_PAGES - done);
        return f->index < done ? 0 : err;
    }
    pmd_write(block, &entry, &leaf);
    access_came_huge(block, &entry, f->locked_ns);
    block->note = touch_note(f);
    host->frames[fn].use = FRAME_HOME;
    host->frames[fn].order = BLOCK_ORDER;
    host->frames[fn].vm = block->vm->id;
    host->frames[fn].gfn = block->start;
    lru_add_block(host, block, f->node);
    event_add(host, EV_thp_fault_alloc, 1);
    return 0;
}

static bool page_is(const struct block *block, unsigned index, const struct s2_entry *entry)
{
    struct s2_entry page = pte_read(block, index);
    return entry_is_same(&page, entry);
}

/*
 * The pages around the fault, all as @entry says, that come in with it: inside an aligned window, or a sequence's next
 * ones. What is in the balloon comes out singly: nobody asked for its neighbours.
 */
static void absent_window(const struct fault *f, const struct s2_entry *entry, unsigned *first, unsigned *end)
{
    const struct pool *pool = &f->host->node[f->node].pool;
    unsigned around = f->host->config.fault_around_pages, window = sequence_window(f);
    if (window == 0)
        window = pool_nr_free(pool) < pool->wmark[WMARK_LOW] ? 1 : around;
    unsigned start = window > around ? f->index : f->index & ~(window - 1);
    unsigned stop = MIN_OF(start + window, BLOCK_PAGES), most = MIN_OF(f->thread->charged[f->node], MM_BUFFER_PAGES);
    *first = f->index;
    *end = f->index + 1;
    if (entry->state == S2_BALLOON || f->wish.single)
        return;
    while (*end < stop && *end - *first < most && page_is(f->block, *end, entry))
        (*end)++;
    while (*first > start && *end - *first < most && page_is(f->block, *first - 1, entry))
        (*first)--;
}

/* @entry: of the page, or of its whole block. ABSENT, FILL or BALLOON. */
static int fault_zero(struct fault *f, struct s2_entry entry)
{
    struct mm_host *host = f->host;
    if (block_prepare_table(f->block))
        return -ENOMEM;
    event_add(host, EV_pgfault_zero, 1);
    if (pmd_read(f->block).state != S2_TABLE) {
        if (entry.state != S2_BALLOON && may_fault_huge(f)) {
            if (!fault_zero_huge(f, entry))
                return 0;
            event_add(host, EV_thp_fault_fallback, 1);
        }
        if (pmd_read(f->block).state != S2_TABLE)
            block_split(f->block);
    }
    unsigned first, end;
    absent_window(f, &entry, &first, &end);
    if (entry.payload)
        entry_fill_pages(f->thread->buffer, end - first, &entry);
    uint32_t done;
    int err = place_copy(f, first, entry.payload ? f->thread->buffer : host->zeros, end - first, &done);
    enter_resident(f, first, done, f->node);
    event_add(host, EV_balloon_fault, entry.state == S2_BALLOON ? done : 0);
    sequence_note(f, first + done, end - first);
    return f->index < first + done ? 0 : err;
}

/* ---- standby ---- */

static bool has_block_room(const struct pool *pool)
{
    return pool_nr_free(pool) >= pool->wmark[WMARK_LOW] + BLOCK_PAGES;
}

/*
 * A fast node that is in use never has 2 MiB to spare: what is hot of the frame is to go there in single pages, each
 * when it is touched.
 */
static bool goes_in_pages(const struct fault *f, const struct s2_entry *entry)
{
    unsigned home = node_of(f->host, (fn_t)entry->payload);
    return f->moves && f->target != home && numa_is_slow(f->host, home) &&
           !has_block_room(&f->host->node[f->target].pool);
}

/* The 2 MiB frame at home is copied to where it should be, if there is room. */
static void migrate_huge(struct fault *f, struct s2_entry *entry)
{
    struct mm_host *host = f->host;
    unsigned home = node_of(host, (fn_t)entry->payload);
    struct pool *pool = &host->node[f->target].pool;
    fn_t fn;
    if (!f->moves || f->target == home)
        return;
    if (!numa_allow(host, home, f->target, BLOCK_PAGES))
        return;
    bool room = has_block_room(pool) && !pool_alloc_block(pool, true, &fn);
    if (room) {
        lru_rehome_huge(host, f->block, fn);
        *entry = pmd_read(f->block);
    }
    numa_moved(host, f->block, home, f->target, room ? BLOCK_PAGES : 0);
}

/* The pool has room, or the frame is out for a moment only: the 2 MiB frame goes back as one. */
static int refault_huge(struct fault *f, struct s2_entry entry)
{
    struct mm_host *host = f->host;
    struct block *block = f->block;
    migrate_huge(f, &entry);
    fn_t fn = (fn_t)entry.payload;
    unsigned node = node_of(host, fn);
    uint32_t done = 0;
    if (!lru_forget_standby(host, fn))
        return -EIO; /* cannot be: a 2 MiB frame is never written back as such */
    int err = host->ops->place(host->ops_ctx, block->vm->id, block->start, fn, BLOCK_PAGES, &done);
    if (!err) {
        struct s2_entry leaf = {.state = S2_RESIDENT, .payload = fn, .perm = S2_RWX};
        leaf.age = block->armed ? entry.age : age_from_standby(entry.age);
        pmd_write(block, &entry, &leaf);
        f->huge = true;
        f->sampled = access_came_huge(block, &entry, f->locked_ns);
        block->armed = false;
        block->note = touch_note(f);
        host->frames[fn].use = FRAME_HOME;
        lru_add_block(host, block, node);
        event_add(host, EV_pgactivate, BLOCK_PAGES);
        return 0;
    }
    if (done == 0) {
        lru_enter_standby_huge(host, fn);
        return err;
    }
    struct page_map rest = {0};
    map_set_range(&rest, done, BLOCK_PAGES);
    zone_split(&host->node[node].pool.zones[POOL_HUGE], fn, BLOCK_ORDER);
    block_split(block);
    enter_resident(f, 0, done, node);
    lru_enter_standby(host, block, &rest, 0, fn, BLOCK_PAGES, STANDBY_YOUNG);
    pool_free_empty(&host->node[node].pool, fn, done);
    return f->index < done ? 0 : err;
}

/* ---- pages with content: standby, zram, swap ---- */

/* Pages of the window whose slots follow that of its @first page, read to @to. Returns how many are good. */
static uint32_t load_swap(struct fault *f, uint32_t first, uint32_t window, char *to)
{
    struct swap_ref ref = swap_ref_unpack(pte_read(f->block, f->index + first).payload);
    void *pages[MM_BUFFER_PAGES];
    int error[MM_BUFFER_PAGES];
    uint32_t nr = 0, good = 0;
    for (; first + nr < window; nr++) {
        struct s2_entry entry = pte_read(f->block, f->index + first + nr);
        struct swap_ref next = swap_ref_unpack(entry.payload);
        if (entry.state != S2_SWAP || next.area != ref.area || next.slot != ref.slot + nr)
            break;
        pages[nr] = to + nr * PAGE_BYTES;
    }
    if (!swap_read(f->host->swap, ref, pages, nr, error))
        return nr;
    while (good < nr && !error[good])
        good++;
    return good;
}

/* Contents of pages [index, index + window) to @to, as far as they can be had. Returns how many. */
static uint32_t load_window(struct fault *f, uint32_t window, char *to)
{
    uint32_t nr = 0;
    while (nr < window) {
        struct s2_entry entry = pte_read(f->block, f->index + nr);
        char *page = to + nr * PAGE_BYTES;
        uint32_t got = 0;
        if (entry.state == S2_STANDBY) {
            if (nr > 0 && node_of(f->host, (fn_t)entry.payload) != f->node)
                break; /* it stays on its node */
            memcpy(page, host_page(f->host, (fn_t)entry.payload), PAGE_BYTES);
            got = 1;
        } else if (entry.state == S2_ZRAM) {
            got = zram_load(f->host->zram, f->thread->zram, entry.payload, page) == 0;
        } else if (entry.state == S2_SWAP) {
            got = load_swap(f, nr, window, page);
        }
        if (!got)
            break;
        nr += got;
    }
    return nr;
}

/* Pages [index, index + nr) have come in from where their entries say: that is given up, and they are resident. */
static void came_back(struct fault *f, uint32_t nr, uint32_t window)
{
    static const enum vm_event event[S2_TABLE] = {
        [S2_STANDBY] = EV_pgrefault, [S2_ZRAM] = EV_zswpin, [S2_SWAP] = EV_pswpin};
    for (unsigned i = f->index; i < f->index + nr; i++) {
        struct s2_entry entry = pte_read(f->block, i);
        event_add(f->host, event[entry.state], 1);
        if (entry.state == S2_STANDBY)
            event_add(f->host, EV_pgactivate, 1);
        thread_forget_entry(f->thread, &entry);
    }
    enter_resident(f, f->index, nr, f->node);
    sequence_note(f, f->index + nr, window);
    event_add(f->host, EV_swap_ra, nr - 1);
}

/* The content of the page that faulted cannot be had. */
static int lost(struct fault *f)
{
    struct s2_entry old = pte_read(f->block, f->index), new = {.state = S2_POISON};
    thread_forget_entry(f->thread, &old);
    pte_write(f->block, f->index, &old, &new);
    event_add(f->host, EV_swap_read_error, 1);
    return -EIO;
}

/* A long window goes by way of a run of free filled pages, which then move: no page is allocated or copied. */
static int come_back_moved(struct fault *f, uint32_t window, fn_t run, uint32_t run_pages)
{
    struct mm_host *host = f->host;
    struct pool *pool = &host->node[f->node].pool;
    uint32_t done = 0, nr = load_window(f, window, host_page(host, run));
    int err = nr ? host->ops->place(host->ops_ctx, f->block->vm->id, f->gfn, run, nr, &done) : lost(f);
    if (done) {
        pool_free_empty(pool, run, done);
        /* these pages instead of those that were charged for the window: the watermarks see either alike */
        f->thread->charged[f->node] -= done;
        pool_uncharge(pool, done);
        wish_count(host, &f->wish, f->node, done);
        came_back(f, done, window);
    }
    pool_free_filled(pool, run + done, run_pages - done);
    return done ? 0 : err;
}

/* Pages to bring in from the fault on. */
static uint32_t readahead_window(struct fault *f, const struct s2_entry *entry)
{
    if (entry->state == S2_STANDBY && standby_is_armed(entry->payload) &&
        numa_is_slow(f->host, node_of(f->host, (fn_t)entry->payload)))
        return 1;
    uint32_t window = sequence_window(f);
    if (window == 0 || f->wish.single)
        return 1;
    event_add(f->host, EV_swap_ra_hit, window / 2 - 1);
    window = MIN_OF(window, f->host->config.readahead_pages);
    window = MIN_OF(window, MAX_OF(1u, f->thread->charged[f->node]));
    return MIN_OF(window, BLOCK_PAGES - f->index);
}

/*
 * Pages from the fault on, at most @window, that go where it goes: at home on its node, out to be seen, and touched by
 * the same one before. Their contents are in the thread's buffer then.
 */
static uint32_t load_companions(struct fault *f, uint32_t window)
{
    struct s2_entry first = pte_read(f->block, f->index);
    unsigned home = node_of(f->host, (fn_t)first.payload);
    uint32_t nr = 0;
    for (; nr < MAX_OF(window, 1u); nr++) {
        struct s2_entry entry = pte_read(f->block, f->index + nr);
        bool same = entry.state == S2_STANDBY && node_of(f->host, (fn_t)entry.payload) == home &&
                    standby_is_armed(entry.payload) && note_of(&entry).vcpu == note_of(&first).vcpu;
        if (nr > 0 && !same)
            break;
        memcpy(f->thread->buffer + nr * PAGE_BYTES, host_page(f->host, (fn_t)entry.payload), PAGE_BYTES);
    }
    return nr;
}

/* The page at home is given back from a copy on the node where it should be. False: it stays where it is. */
static bool migrate_back(struct fault *f, struct s2_entry entry, uint32_t window)
{
    unsigned home = f->node;
    uint32_t done = 0;
    if (!f->moves || f->target == home || node_of(f->host, (fn_t)entry.payload) != home)
        return false;
    uint32_t nr = load_companions(f, MIN_OF(window, f->thread->charged[f->target]));
    if (!numa_allow(f->host, home, f->target, nr))
        return false;
    f->node = f->target;
    int err = 0;
    for (unsigned tries = 0; !done && tries < MIGRATE_TRIES; tries++)
        err = place_copy(f, f->index, f->thread->buffer, nr, &done);
    (void)err; /* what is done counts; the rest stays where it is */
    if (done)
        came_back(f, done, window);
    numa_moved(f->host, f->block, home, f->target, done);
    f->node = home;
    return done;
}

/* The page itself goes back: nothing is charged, nothing comes free. */
static int come_back_in_place(struct fault *f, struct s2_entry entry)
{
    struct mm_host *host = f->host;
    fn_t fn = (fn_t)entry.payload;
    uint32_t done;
    f->again = node_of(host, fn) != f->node || !lru_claim_standby(host, fn);
    if (f->again)
        return 0;
    int err = host->ops->place(host->ops_ctx, f->block->vm->id, f->gfn, fn, 1, &done);
    if (err) {
        struct page_map map = {0};
        map_set(&map, f->index);
        lru_enter_standby(host, f->block, &map, f->index, fn, 1, STANDBY_YOUNG);
        return err;
    }
    pool_free_empty(&host->node[f->node].pool, fn, 1);
    wish_count(host, &f->wish, f->node, 1);
    event_add(host, EV_pgrefault, 1);
    event_add(host, EV_pgactivate, 1);
    enter_resident(f, f->index, 1, f->node);
    sequence_note(f, f->index + 1, 1);
    return 0;
}

static int come_back(struct fault *f, struct s2_entry entry)
{
    struct mm_host *host = f->host;
    uint32_t window = readahead_window(f, &entry), nr = 1, done;
    const void *src = f->thread->buffer;
    unsigned order = (unsigned)(31 - __builtin_clz(window));
    fn_t run;
    if (entry.state == S2_STANDBY && migrate_back(f, entry, window))
        return 0;
    if (f->in_place)
        return come_back_in_place(f, entry);
    if (window >= MOVE_MIN_PAGES && !pool_alloc_run(&host->node[f->node].pool, order, &run))
        return come_back_moved(f, 1u << order, run, 1u << order);
    if (window == 1 && entry.state == S2_STANDBY)
        src = host_page(host, (fn_t)entry.payload);
    else
        nr = load_window(f, window, f->thread->buffer);
    if (!nr)
        return lost(f);
    int err = place_copy(f, f->index, src, nr, &done);
    if (done)
        came_back(f, done, window);
    return done ? 0 : err;
}

/* ---- */

static int fault_locked(struct fault *f, unsigned flags)
{
    struct s2_entry entry = pmd_read(f->block);
    if (entry.state == S2_STANDBY) {
        const struct pool *pool = pool_of(f->host, (fn_t)entry.payload);
        bool in_pages = goes_in_pages(f, &entry);
        bool room = pool_nr_free(pool) >= pool->wmark[WMARK_HIGH];
        if (!in_pages && (f->block->armed || (room && !split_is_due(f->host, f->block))))
            return refault_huge(f, entry);
        lru_split_standby(f->host, f->block, (fn_t)entry.payload, in_pages ? STANDBY_ARMED : STANDBY_YOUNG);
        entry.state = S2_TABLE;
    }
    if (entry.state == S2_TABLE)
        entry = pte_read(f->block, f->index);
    f->again = f->in_place && entry.state != S2_STANDBY && entry.state != S2_RESIDENT;
    if (f->again)
        return 0;
    switch (entry.state) {
    case S2_ABSENT:
    case S2_FILL:
    case S2_BALLOON:
        return fault_zero(f, entry);
    case S2_UNPLUGGED:
        return -EFAULT;
    case S2_STANDBY:
        return come_back(f, entry);
    case S2_ZRAM:
    case S2_SWAP:
        f->major = true;
        return come_back(f, entry);
    case S2_RESIDENT:
        if (!(flags & MM_FAULT_WP))
            event_add(f->host, EV_pgfault_spurious, 1);
        f->host->ops->wake(f->host->ops_ctx, f->block->vm->id, f->gfn, 1);
        return 0;
    default:
        return -EIO;
    }
}

static bool is_resident(const struct fault *f)
{
    uint8_t state = pmd_read(f->block).state;
    return state == S2_RESIDENT || (state == S2_TABLE && pte_read(f->block, f->index).state == S2_RESIDENT);
}

/*
 * A page that is at home on some node stays on it, unless there is no room there or it belongs elsewhere; policies are
 * for pages that come anew.
 */
static void find_home(struct fault *f)
{
    struct block *block = f->block;
    if (f->host->nr_nodes == 1)
        return;
    lock_acquire(&block->lock);
    struct s2_entry entry = pmd_read(block);
    bool huge = entry.state != S2_TABLE;
    if (!huge)
        entry = pte_read(block, f->index);
    f->home = entry.state == S2_STANDBY;
    if (f->home)
        f->wish.node = node_of(f->host, (fn_t)entry.payload);
    f->target = f->wish.node;
    f->hinted = f->home && f->host->numa && (huge ? block->armed : standby_is_armed(entry.payload));
    if (f->home && f->host->numa)
        f->target = numa_choose(f->host,
                                &(struct numa_touch){
                                    .block = block,
                                    .home = f->wish.node,
                                    .note = huge ? block->note : note_of(&entry),
                                    .armed = f->hinted,
                                    .huge = huge,
                                    .wish = &f->wish,
                                    .vcpu = f->vcpu,
                                    .now_ns = f->start_ns,
                                },
                                &f->heat);
    lock_release(&block->lock);
    if (f->vcpu)
        __atomic_store_n(&block->vm->touches[f->vcpu - 1].node, (uint8_t)f->wish.toucher, __ATOMIC_RELAXED);
}

/* What the fault may need is charged. A page at home needs no memory to go back, and so does not leave a node that is short. */
static int charge(struct fault *f)
{
    struct wish *wish = &f->wish;
    bool home = f->home && wish->allowed >> wish->node & 1 && !f->again;
    int err = 0;
    f->again = false;
    f->node = wish->node;
    f->in_place = home && !thread_charge_above(f->thread, f->node, WMARK_MIN) && !f->thread->charged[f->node];
    if (!home)
        err = thread_charge(f->thread, wish->node, wish->allowed, &f->node);
    if (f->target != wish->node && !err) {
        f->moves = thread_charge_above(f->thread, f->target, WMARK_LOW);
        if (!f->moves)
            numa_moved(f->host, f->block, wish->node, f->target, 0);
    }
    return err;
}

int fault_page(struct mm_thread *thread, struct block *block, gfn_t gfn, unsigned flags)
{
    struct mm_host *host = thread->host;
    struct mm_vm *vm = block->vm;
    struct fault f = {.thread = thread, .host = host, .block = block, .gfn = gfn, .index = gfn & (BLOCK_PAGES - 1)};
    f.start_ns = host->ops->clock_ns(host->ops_ctx);
    f.vcpu = MIN_OF(flags >> 20, NOTE_MAX_VCPUS + 1) % (NOTE_MAX_VCPUS + 1);
    place_wish(block->vm, gfn, flags, &f.wish);
    find_home(&f);
    bool there = false;
    int err;
    do {
        err = charge(&f);
        if (err)
            return err;
        lock_acquire(&block->lock);
        f.locked_ns = host->ops->clock_ns(host->ops_ctx);
        there = flags & FAULT_UNLESS_RESIDENT && is_resident(&f);
        if (!there)
            err = fault_locked(&f, flags);
        lock_release(&block->lock);
    } while (f.again);
    if (there)
        return 0;
    event_add(host, EV_pgfault, 1);
    if (f.major)
        event_add(host, EV_pgmajfault, 1);
    uint64_t end_ns = host->ops->clock_ns(host->ops_ctx);
    hist_add(f.major ? &vm->major : &vm->minor, end_ns - f.start_ns);
    if (f.hinted)
        numa_pay(host, end_ns - f.start_ns);
    if (f.sampled)
        access_pay_fault(host, f.huge ? ACCESS_HUGE : ACCESS_PAGE, end_ns - f.locked_ns);
    return err;
}

int mm_fault(struct mm_thread *thread, struct mm_vm *vm, gpa_t gpa, unsigned flags)
{
    struct block *block = vm_block(vm, gfn_of(gpa));
    return block ? fault_page(thread, block, gfn_of(gpa), flags & ~FAULT_UNLESS_RESIDENT) : -EFAULT;
}
