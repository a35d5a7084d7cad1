/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mm_check: the invariants across structures.
 *
 *   budget  = uncharged + filled slots + resident pages + charges held by threads       (theirs: 3 batches of a node each)
 *   slots   = free ones + standby + store + stock + homes of 2 MiB frames in guests + threads' lists
 *   entries = frames: a STANDBY entry names a frame that names it back, each once
 *   counts  of every block, VM and list are what its entries say
 *   balloon pages put in - pages taken out = pages that are in one
 *   pins    a pinned block has pages in the guest
 */
#include "mm/policy/access_note.h"
#include "mm/reclaim/evict.h"

struct tally {
    uint64_t pages[S2_TABLE];
    uint64_t home_slots; /* of 2 MiB frames that are in a guest */
    uint64_t resident[MM_MAX_NODES], standby[MM_MAX_NODES];
    uint64_t blocks, huge_blocks; /* with pages in the guest; of these, one frame each */
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
    const struct frame *frames = block->vm->host->frames;
    *why = "mm: a 2 MiB frame without a table for when it splits";
    if ((entry->state == S2_RESIDENT || entry->state == S2_STANDBY) && !block->table)
        return false;
    *why = "mm: a 2 MiB leaf whose home does not name it";
    if (entry->state == S2_RESIDENT) {
        const struct frame *head = &frames[(fn_t)entry->payload];
        return head->use == FRAME_HOME && head->gfn == block->start;
    }
    if (entry->state == S2_STANDBY)
        return frames[(fn_t)entry->payload].flags & FRAME_F_HUGE;
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
    const struct frame *frame = &block->vm->host->frames[(fn_t)entry->payload];
    *why = "mm: a standby entry whose frame does not name it";
    return frame->use == FRAME_STANDBY && frame->gfn == block->start + index && frame->vm == block->vm->id;
}

static bool check_block_counts(struct block *block, struct tally *tally, const char **why)
{
    uint32_t pages[S2_TABLE] = {0}, on_node[MM_MAX_NODES] = {0};
    const struct mm_host *host = block->vm->host;
    struct s2_entry entry = pmd_read(block);
    if (entry.state != S2_TABLE) {
        pages[entry.state] = BLOCK_PAGES;
        tally->home_slots += pages[S2_RESIDENT];
        tally->huge_blocks += entry.state == S2_RESIDENT;
        if (entry.state == S2_RESIDENT)
            on_node[node_of(host, (fn_t)entry.payload)] = BLOCK_PAGES;
        else if (entry.state == S2_STANDBY)
            tally->standby[node_of(host, (fn_t)entry.payload)] += BLOCK_PAGES;
        if (!check_leaf(block, &entry, why) || !check_given(&entry, why))
            return false;
    } else {
        for (unsigned i = 0; i < BLOCK_PAGES; i++) {
            entry = pte_read(block, i);
            pages[entry.state]++;
            if (entry.state == S2_RESIDENT)
                on_node[resident_payload_node(entry.payload)]++;
            else if (entry.state == S2_STANDBY)
                tally->standby[node_of(host, (fn_t)entry.payload)]++;
            if (!check_page(block, i, &entry, why) || !check_given(&entry, why))
                return false;
        }
    }
    for (unsigned state = 0; state < S2_TABLE; state++)
        tally->pages[state] += pages[state];
    tally->blocks += pages[S2_RESIDENT] > 0;
    *why = "mm: a block is armed and has no 2 MiB frame at home";
    if (block->armed && pmd_read(block).state != S2_STANDBY)
        return false;
    *why = "mm: resident count of a block";
    if (pages[S2_RESIDENT] != block->nr_resident)
        return false;
    for (unsigned n = 0; n < MM_MAX_NODES; n++) {
        tally->resident[n] += on_node[n];
        if (on_node[n] != block->nr_on_node[n] || (on_node[n] > 0) != (block->on_nodes >> n & 1))
            return false;
    }
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
            if (!check_block_counts(&vm->blocks[r][i], &tally, why) || !access_check(&vm->blocks[r][i], why))
                return false;
    *why = "mm: pages by state of a VM";
    for (unsigned state = 0; state < S2_TABLE; state++) {
        if (tally.pages[state] != vm_nr_pages(vm, (uint8_t)state))
            return false;
        host_tally->pages[state] += tally.pages[state];
    }
    *why = "mm: blocks of a VM that have pages in the guest, or are one frame there";
    if (tally.blocks != vm->nr_blocks || tally.huge_blocks != vm->nr_huge_blocks)
        return false;
    host_tally->home_slots += tally.home_slots;
    *why = "mm: pages of a VM by node";
    for (unsigned n = 0; n < MM_MAX_NODES; n++) {
        if (tally.resident[n] != vm->nr_resident[n] || tally.standby[n] != vm->nr_standby[n])
            return false;
        host_tally->resident[n] += tally.resident[n];
        host_tally->standby[n] += tally.standby[n];
    }
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
    uint64_t known = tally->home_slots + tally->pages[S2_STANDBY] + zram_pages_of(host), slots = 0;
    for (unsigned n = 0; n < host->nr_nodes; n++) {
        const struct pool *pool = &host->node[n].pool;
        slots += pool->nr_slots;
        known += (uint64_t)pool->nr_stock * BLOCK_PAGES;
        for (unsigned z = 0; z < POOL_NR_ZONES; z++)
            for (unsigned plane = 0; plane < NR_PLANES; plane++)
                known += pool->zones[z].nr_free[plane];
    }
    *why = "mm: slots that are nobody's, or two users'";
    return known <= slots && slots - known <= (uint64_t)host->nr_threads * host->thread_batch * host->nr_nodes;
}

static bool check_budget(struct mm_host *host, const struct tally *tally, const char **why)
{
    uint64_t budget = 0, sum = zram_pages_of(host);
    for (unsigned n = 0; n < host->nr_nodes; n++) {
        const struct pool *pool = &host->node[n].pool;
        uint64_t known = pool_nr_free(pool) + tally->resident[n] + tally->standby[n];
        *why = "mm: more pages on a node than its budget has";
        if (known > pool->budget_pages)
            return false;
        sum += known;
        budget += pool->budget_pages;
    }
    *why = "mm: more pages than the budget has";
    if (sum > budget)
        return false;
    /* what is missing is with threads: less than two batches of charges, and one on the list, of each node */
    *why = "mm: pages of the budget are lost";
    return budget - sum <= (uint64_t)host->nr_threads * 3 * host->thread_batch * host->nr_nodes;
}

static bool check_marks(const struct mm_host *host, unsigned n)
{
    for (unsigned i = 0; i < NR_STANDBY_MARKS; i++) {
        fn_t mark = host->node[n].standby_mark[i];
        if (mark != FN_NONE && (frame_use(&host->frames[mark]) != FRAME_STANDBY || node_of(host, mark) != n ||
                                host->frames[mark].flags & FRAME_F_INCOMPRESSIBLE))
            return false;
    }
    return true;
}

static bool check_nodes(struct mm_host *host, const struct tally *tally, const char **why)
{
    for (unsigned n = 0; n < host->nr_nodes; n++) {
        *why = "mm: length of a standby list";
        if (tally->standby[n] != host->node[n].nr_standby)
            return false;
        *why = "mm: a mark of a standby list is off the list";
        if (!check_marks(host, n))
            return false;
        *why = "mm: resident pages of a node";
        if (tally->resident[n] != host->node[n].nr_resident)
            return false;
        *why = "mm: a node's hand is off the ring";
        if ((host->lru.nr_active > 0) != (host->node[n].hand != NULL))
            return false;
        if (!pool_check(&host->node[n].pool, why))
            return false;
    }
    return true;
}

bool mm_check(struct mm_host *host, const char **why)
{
    struct tally tally = {0};
    if (!slab_check(&host->tables, why) || !swap_check(host->swap, why))
        return false;
    if (host->zram && !zram_check(host->zram, why))
        return false;
    for (unsigned id = 1; id < MM_MAX_VMS; id++)
        if (host->vms[id] && !check_vm(host->vms[id], &tally, why))
            return false;
    *why = "mm: a node is being compacted while nobody runs";
    for (unsigned n = 0; n < host->nr_nodes; n++)
        if (host->node[n].compact.busy)
            return false;
    *why = "mm: pages in balloons";
    if (tally.pages[S2_BALLOON] != host->event[EV_balloon_inflate] - host->event[EV_balloon_deflate])
        return false;
    return check_nodes(host, &tally, why) && check_slots(host, &tally, why) && check_budget(host, &tally, why);
}
