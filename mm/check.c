/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mm_check: the invariants across structures.
 *
 *   budget  = uncharged + filled slots + resident pages + charges held by threads       (threads' part: 3 batches each)
 *   entries = frames: a STANDBY entry names a frame that names it back, each once
 *   counts  of every block, VM and list are what its entries say
 */
#include "mm/reclaim/evict.h"

struct tally {
    uint64_t pages[S2_TABLE];
    uint64_t standby_seen;
};

static bool check_block_counts(struct block *block, struct tally *tally, const char **why)
{
    struct mm_host *host = block->vm->host;
    uint32_t resident = 0;
    struct s2_entry entry = pmd_read(block);
    if (entry.state != S2_TABLE) {
        tally->pages[entry.state] += BLOCK_PAGES;
        resident = entry.state == S2_RESIDENT ? BLOCK_PAGES : 0;
        tally->standby_seen += entry.state == S2_STANDBY ? BLOCK_PAGES : 0;
        const struct frame *head = &host->pool.frames[entry.payload];
        *why = "mm: a 2 MiB leaf whose home does not name it";
        if (entry.state == S2_RESIDENT && (head->use != FRAME_HOME || head->gfn != block->start))
            return false;
        if (entry.state == S2_STANDBY && !(head->flags & FRAME_F_HUGE))
            return false;
    } else {
        for (unsigned i = 0; i < BLOCK_PAGES; i++) {
            entry = pte_read(block, i);
            tally->pages[entry.state]++;
            resident += entry.state == S2_RESIDENT;
            if (entry.state != S2_STANDBY)
                continue;
            const struct frame *frame = &host->pool.frames[entry.payload];
            *why = "mm: a standby entry whose frame does not name it";
            if (frame->use != FRAME_STANDBY || frame->gfn != block->start + i || frame->vm != block->vm->id)
                return false;
            tally->standby_seen++;
        }
    }
    *why = "mm: resident count of a block";
    if (resident != block->nr_resident)
        return false;
    *why = "mm: a block with resident pages is not on the active list";
    return resident == 0 || block->on_lru;
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
    host_tally->standby_seen += tally.standby_seen;
    *why = "mm: a VM is held by an eviction while nobody runs";
    return vm->nr_users == 0;
}

static bool check_budget(struct mm_host *host, const struct tally *tally, const char **why)
{
    const struct pool *pool = &host->pool;
    uint64_t zram_pages = 0;
    if (host->zram) {
        struct zram_stat stat;
        zram_stat(host->zram, &stat);
        zram_pages = stat.mem_used_bytes / PAGE_BYTES;
    }
    uint64_t sum = pool_nr_free(pool) + tally->pages[S2_RESIDENT] + tally->standby_seen + zram_pages;
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
    if (tally.standby_seen != host->lru.nr_standby)
        return false;
    *why = "mm: resident pages of the host";
    if (tally.pages[S2_RESIDENT] != host->nr_resident)
        return false;
    return check_budget(host, &tally, why);
}
