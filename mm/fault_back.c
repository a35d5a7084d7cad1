/* SPDX-License-Identifier: Apache-2.0 */
/* Pages that come back: from standby, whole or singly, from zram and swap; to another node where they belong there. */
#include "mm/fault_parts.h"
#include "mm/policy/access_note.h"
#include "mm/policy/numa.h"
#include "mm/reclaim/age.h"

#include <errno.h>
#include <string.h>

/* From here on a window is placed by one UFFDIO_MOVE instead of a UFFDIO_COPY: FACTS has 3.2 to 3.8 us a page against 4.4. */
#define MOVE_MIN_PAGES 8u
/* Tries to put a page on another node before it stays where it is. */
#define MIGRATE_TRIES 3u

/* ---- standby ---- */

static bool has_block_room(const struct pool *pool)
{
    return pool_nr_free(pool) >= pool->wmark[WMARK_LOW] + BLOCK_PAGES;
}

/*
 * A fast node that is in use never has 2 MiB to spare: what is hot of the frame is to go there in single pages, each
 * when it is touched.
 */
bool fault_goes_in_pages(const struct fault *f, const struct s2_entry *entry)
{
    unsigned home = node_of(f->host, (fn_t)entry->payload);
    return f->moves && f->target != home && numa_is_slow(f->host, home) &&
           !has_block_room(&f->host->node[f->target].pool);
}

/* @pages that numa_allow let pass did not go: they owe nothing. */
static void give_rate_back(struct mm_host *host, unsigned from, unsigned to, uint32_t pages)
{
    if (host->node[to].config.rank < host->node[from].config.rank)
        rate_give_back(&host->promote, pages * PAGE_BYTES);
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
    bool room = has_block_room(pool) && !pool_alloc_block_any(pool, &fn);
    if (room) {
        lru_rehome_huge(host, f->block, fn);
        *entry = pmd_read(f->block);
    } else {
        give_rate_back(host, home, f->target, BLOCK_PAGES);
    }
    numa_moved(host, f->block, home, f->target, room ? BLOCK_PAGES : 0);
}

int fault_refault_huge(struct fault *f, struct s2_entry entry)
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
        block->note = fault_touch_note(f);
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
    fault_enter_resident(f, 0, done, node);
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
    fault_enter_resident(f, f->index, nr, f->node);
    fault_sequence_note(f, f->index + nr, window);
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
    uint32_t window = fault_sequence_window(f);
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
        err = fault_place_copy(f, f->index, f->thread->buffer, nr, &done);
    (void)err; /* what is done counts; the rest stays where it is */
    give_rate_back(f->host, home, f->target, nr - done);
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
    fault_enter_resident(f, f->index, 1, f->node);
    fault_sequence_note(f, f->index + 1, 1);
    return 0;
}

int fault_come_back(struct fault *f, struct s2_entry entry)
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
    int err = fault_place_copy(f, f->index, src, nr, &done);
    if (done)
        came_back(f, done, window);
    return done ? 0 : err;
}
