/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One block becomes one 2 MiB frame. What can be read while the guest runs on is read first; then its own pages come home,
 * which is where faults begin to wait, are copied, and the frame is placed:
 *
 *      stored, standby, absent --copy--> frame      guest --take--> standby --copy--> frame --place--> guest
 *
 * An entry changes only with the page it speaks of, so wherever this stops, every page is where its entry says.
 */
#include "mm/policy/access_note.h"
#include "mm/policy/page_size.h"
#include "mm/reclaim/age.h"
#include "mm/reclaim/lru.h"

#include <errno.h>
#include <string.h>

bool collapse_fits(const struct block *block, unsigned *node)
{
    if (block->nr_pins || block->closing || block->nr_resident < BLOCK_PAGES - COLLAPSE_MAX_OUT ||
        pmd_read(block).state != S2_TABLE)
        return false;
    for (unsigned i = 0; i < BLOCK_PAGES; i++) {
        uint8_t state = pte_read(block, i).state;
        if (state == S2_BALLOON || state == S2_POISON || state == S2_DISK)
            return false;
    }
    *node = 0;
    for (unsigned n = 1; n < block->vm->host->nr_nodes; n++)
        if (block->nr_on_node[n] > block->nr_on_node[*node])
            *node = n;
    return block->nr_on_node[*node] > BLOCK_PAGES / 2;
}

/* Pages from @index on in neighbouring slots of one area, to @to. Returns how many, or -EIO. */
static int load_swapped(struct mm_host *host, const struct block *block, unsigned index, char *to)
{
    struct swap_ref first = swap_ref_unpack(pte_read(block, index).payload);
    void *pages[SWAP_MAX_IO];
    int error[SWAP_MAX_IO];
    unsigned nr = 0;
    for (; nr < SWAP_MAX_IO && index + nr < BLOCK_PAGES; nr++) {
        struct s2_entry entry = pte_read(block, index + nr);
        struct swap_ref ref = swap_ref_unpack(entry.payload);
        if (entry.state != S2_SWAP || ref.area != first.area || ref.slot != first.slot + nr)
            break;
        pages[nr] = to + nr * PAGE_BYTES;
    }
    if (!swap_read(host->swap, first, pages, nr, error))
        return (int)nr;
    event_add(host, EV_swap_read_error, 1);
    return -EIO;
}

/* Contents of the pages that are not in the guest, to their places in @frame; *inside: those that are. */
static int load_outside(struct mm_thread *thread, const struct block *block, char *frame, struct page_map *inside)
{
    struct mm_host *host = thread->host;
    for (unsigned i = 0; i < BLOCK_PAGES;) {
        struct s2_entry entry = pte_read(block, i);
        char *page = frame + i * PAGE_BYTES;
        int got = 1;
        if (entry.state == S2_RESIDENT)
            map_set(inside, i);
        else if (entry.state == S2_STANDBY)
            memcpy(page, host_page(host, (fn_t)entry.payload), PAGE_BYTES);
        else if (entry.state == S2_SWAP)
            got = load_swapped(host, block, i, page);
        else if (entry.state != S2_ZRAM)
            entry_fill_pages(page, 1, &entry);
        else if (zram_load(host->zram, thread->zram, entry.payload, page))
            got = -EIO;
        if (got < 0)
            return got;
        i += (unsigned)got;
    }
    return 0;
}

static int take_all(struct mm_thread *thread, struct block *block)
{
    access_rebuilt(block);
    return lru_take_block(thread, block);
}

/* The pages of @map, which have come home, to their places in @frame. */
static void copy_taken(const struct mm_host *host, const struct block *block, const struct page_map *map, char *frame)
{
    for (unsigned i = 0; i < BLOCK_PAGES; i++)
        if (map_test(map, i))
            memcpy(frame + i * PAGE_BYTES, host_page(host, (fn_t)pte_read(block, i).payload), PAGE_BYTES);
}

/*
 * As hot as its pages in the guest are on average: less, and what ages have protected from reclaim would leave with the
 * frame. *note: of the page that is touched most often.
 */
static struct s2_entry leaf_of(const struct block *block, fn_t fn, struct page_note *note)
{
    unsigned ages = 0;
    *note = (struct page_note){0};
    for (unsigned i = 0; i < BLOCK_PAGES; i++) {
        struct s2_entry entry = pte_read(block, i);
        struct page_note own = note_of(&entry);
        if (entry.state == S2_RESIDENT)
            ages += entry.age;
        if (own.vcpu && (!note->vcpu || own.heat > note->heat))
            *note = own;
    }
    uint8_t age = (uint8_t)(ages / block->nr_resident);
    return (struct s2_entry){.state = S2_RESIDENT, .payload = fn, .perm = S2_RWX, .age = age};
}

/* Pages [0, nr) are in the guest, from the frame: what their entries name is given up. */
static void forget_pages(struct mm_thread *thread, const struct block *block, unsigned nr)
{
    static const enum vm_event event[S2_TABLE] = {[S2_ZRAM] = EV_zswpin, [S2_SWAP] = EV_pswpin};
    for (unsigned i = 0; i < nr; i++) {
        struct s2_entry entry = pte_read(block, i);
        if (entry.state == S2_ZRAM || entry.state == S2_SWAP)
            event_add(thread->host, event[entry.state], 1);
        thread_forget_entry(thread, &entry);
    }
}

/* All of the frame is in the guest. */
static void become_leaf(struct mm_thread *thread, struct block *block, const struct s2_entry *leaf)
{
    struct mm_host *host = thread->host;
    fn_t fn = (fn_t)leaf->payload;
    forget_pages(thread, block, BLOCK_PAGES);
    block_merge(block, leaf);
    block->small = false;
    host->frames[fn].use = FRAME_HOME;
    host->frames[fn].order = BLOCK_ORDER;
    host->frames[fn].vm = block->vm->id;
    host->frames[fn].gfn = block->start;
    lru_add_block(host, block, node_of(host, fn));
    event_add(host, EV_khugepaged_pages_collapsed, 1);
}

/* Of the frame, pages [0, done) are in the guest; the rest of it is free. */
static void give_up(struct mm_thread *thread, struct block *block, fn_t fn, uint32_t done)
{
    struct mm_host *host = thread->host;
    struct pool *pool = pool_of(host, fn);
    forget_pages(thread, block, done);
    for (unsigned i = 0; i < done; i++) {
        struct s2_entry old = pte_read(block, i);
        struct s2_entry new = {.state = S2_RESIDENT, .perm = S2_RWX, .age = old.age};
        new.payload = resident_payload(node_of(host, fn), note_of(&old));
        pte_write(block, i, &old, &new);
    }
    if (done)
        pool_free_empty(pool, fn, done);
    pool_free_filled(pool, fn + done, BLOCK_PAGES - done);
    if (block->nr_resident)
        lru_add_block(host, block, node_of(host, fn));
    else
        lru_del_block(host, block);
    event_add(host, EV_thp_collapse_failed, 1);
}

int collapse_block(struct mm_thread *thread, struct block *block, fn_t fn)
{
    struct mm_host *host = thread->host;
    char *frame = host_page(host, fn);
    struct page_map inside = {0};
    uint32_t done = 0;
    struct page_note note;
    const struct s2_entry leaf = leaf_of(block, fn, &note);
    int err = load_outside(thread, block, frame, &inside);
    if (!err)
        err = take_all(thread, block);
    if (!err) {
        copy_taken(host, block, &inside, frame);
        err = host->ops->place(host->ops_ctx, block->vm->id, block->start, fn, BLOCK_PAGES, &done);
    }
    if (err) {
        give_up(thread, block, fn, done);
        return err;
    }
    become_leaf(thread, block, &leaf);
    block->note = note;
    return 0;
}
