/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mm_check: the invariants across structures.
 *
 *   budget  = uncharged + filled slots + resident pages + charges held by threads       (threads' part: 3 batches each)
 *   slots   = free ones + standby + store + stock + homes of 2 MiB frames in guests + threads' lists
 *   entries = frames: a STANDBY entry names a frame that names it back, each once
 *   counts  of every block, VM and list are what its entries say
 *   balloon pages put in - pages taken out = pages that are in one
 *   pins    a pinned block has pages in the guest
 */
#include "mm/reclaim/evict.h"

struct tally {
    uint64_t pages[S2_TABLE];
    uint64_t home_slots; /* of 2 MiB frames that are in a guest */
};

/* What a page that holds nothing says of itself. */
static bool check_given(const struct s2_entry *entry, const char **why)
{
    *why = "mm: a page that was given up has an age, or a word that is none";
    if (entry->state == S2_FILL)
        return !entry->age && entry->payload && entry->payload <= UINT32_MAX;
    if (entry->state == S2_BALLOON)
        return !entry->age && entry->payload <= UINT32_MAX;
    return (entry->state != S2_ABSENT && entry->state != S2_UNPLUGGED) || (!entry->age && !entry->payload);
}

static bool check_leaf(const struct block *block, const struct s2_entry *entry, const char **why)
{
    const struct frame *frames = block->vm->host->pool.frames;
    *why = "mm: a 2 MiB leaf whose home does not name it";
    if (entry->state == S2_RESIDENT) {
        const struct frame *head = &frames[entry->payload];
        return head->use == FRAME_HOME && head->gfn == block->start;
    }
    if (entry->state == S2_STANDBY)
        return frames[entry->payload].flags & FRAME_F_HUGE;
    *why = "mm: a 2 MiB leaf of a state that only pages have";
    return entry->state == S2_ABSENT || entry->state == S2_FILL || entry->state == S2_BALLOON ||
           entry->state == S2_UNPLUGGED;
}

static bool check_page(const struct block *block, unsigned index, const struct s2_entry *entry, const char **why)
{
    *why = "mm: a single page is unplugged";
    if (entry->state == S2_UNPLUGGED)
        return false;
    if (entry->state != S2_STANDBY)
        return true;
    const struct frame *frame = &block->vm->host->pool.frames[entry->payload];
    *why = "mm: a standby entry whose frame does not name it";
    return frame->use == FRAME_STANDBY && frame->gfn == block->start + index && frame->vm == block->vm->id;
}

static bool check_block_counts(struct block *block, struct tally *tally, const char **why)
{
    uint32_t pages[S2_TABLE] = {0};
    struct s2_entry entry = pmd_read(block);
    if (entry.state != S2_TABLE) {
        pages[entry.state] = BLOCK_PAGES;
        tally->home_slots += pages[S2_RESIDENT];
        if (!check_leaf(block, &entry, why) || !check_given(&entry, why))
            return false;
    } else {
        for (unsigned i = 0; i < BLOCK_PAGES; i++) {
            entry = pte_read(block, i);
            pages[entry.state]++;
            if (!check_page(block, i, &entry, why) || !check_given(&entry, why))
                return false;
        }
    }
    for (unsigned state = 0; state < S2_TABLE; state++)
        tally->pages[state] += pages[state];
    *why = "mm: resident count of a block";
    if (pages[S2_RESIDENT] != block->nr_resident)
        return false;
    *why = "mm: a pinned block has no pages in the guest, or is being unplugged";
    if (block->closing || (block->nr_pins && !block->nr_resident))
        return false;
    *why = "mm: a block with resident pages is not on the active list";
    return block->nr_resident == 0 || block->on_lru;
}

static bool check_vm(struct mm_vm *vm, struct tally *host_tally, const char **why)
{
    struct tally tally = {0};
    for (unsigned r = 0; r < vm->nr_regions; r++)
        for (uint64_t i = 0; i < vm->regions[r].bytes >> BLOCK_SHIFT; i++)
            if (!check_block_counts(&vm->blocks[r][i], &tally, why))
                return false;
    *why = "mm: pages by state of a VM";
    for (unsigned state = 0; state < S2_TABLE; state++) {
        if (tally.pages[state] != vm->nr_pages[state])
            return false;
        host_tally->pages[state] += tally.pages[state];
    }
    host_tally->home_slots += tally.home_slots;
    *why = "mm: a VM is held by an eviction while nobody runs";
    return vm->nr_users == 0;
}

static uint64_t zram_pages_of(struct mm_host *host)
{
    struct zram_stat stat = {0};
    if (host->zram)
        zram_stat(host->zram, &stat);
    return stat.mem_used_bytes / PAGE_BYTES;
}

static bool check_slots(struct mm_host *host, const struct tally *tally, const char **why)
{
    const struct pool *pool = &host->pool;
    uint64_t known =
        tally->home_slots + tally->pages[S2_STANDBY] + zram_pages_of(host) + (uint64_t)pool->nr_stock * BLOCK_PAGES;
    for (unsigned z = 0; z < POOL_NR_ZONES; z++)
        for (unsigned plane = 0; plane < NR_PLANES; plane++)
            known += pool->zones[z].nr_free[plane];
    *why = "mm: slots that are nobody's, or two users'";
    return known <= pool->nr_slots && pool->nr_slots - known <= (uint64_t)host->nr_threads * host->thread_batch;
}

static bool check_budget(struct mm_host *host, const struct tally *tally, const char **why)
{
    const struct pool *pool = &host->pool;
    uint64_t zram_pages = zram_pages_of(host);
    uint64_t sum = pool_nr_free(pool) + tally->pages[S2_RESIDENT] + tally->pages[S2_STANDBY] + zram_pages;
    *why = "mm: more pages than the budget has";
    if (sum > pool->budget_pages)
        return false;
    /* what is missing is with threads: less than two batches of charges, and one on the list */
    *why = "mm: pages of the budget are lost";
    return pool->budget_pages - sum <= (uint64_t)host->nr_threads * 3 * host->thread_batch;
}

bool mm_check(struct mm_host *host, const char **why)
{
    struct tally tally = {0};
    if (!pool_check(&host->pool, why) || !slab_check(&host->tables, why) || !swap_check(host->swap, why))
        return false;
    if (host->zram && !zram_check(host->zram, why))
        return false;
    for (unsigned id = 1; id < MM_MAX_VMS; id++)
        if (host->vms[id] && !check_vm(host->vms[id], &tally, why))
            return false;
    *why = "mm: length of the standby list";
    if (tally.pages[S2_STANDBY] != host->lru.nr_standby)
        return false;
    *why = "mm: pages in balloons";
    if (tally.pages[S2_BALLOON] != host->event[EV_balloon_inflate] - host->event[EV_balloon_deflate])
        return false;
    *why = "mm: resident pages of the host";
    if (tally.pages[S2_RESIDENT] != host->nr_resident)
        return false;
    return check_slots(host, &tally, why) && check_budget(host, &tally, why);
}
