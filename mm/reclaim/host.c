/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks and their entries. See host.h. */
#include "mm/reclaim/host.h"

#include <errno.h>
#include <stdlib.h>

void node_want_block(struct mm_host *host, struct mm_node *node)
{
    if (__atomic_exchange_n(&node->compact.wanted, true, __ATOMIC_RELAXED))
        return;
    event_add(host, EV_compact_daemon_wake, 1);
    host->ops->kick(host->ops_ctx, MM_HOUSEKEEPER);
}

struct block *vm_block(const struct mm_vm *vm, gfn_t gfn)
{
    for (unsigned i = 0; i < vm->nr_regions; i++) {
        gfn_t start = gfn_of(vm->regions[i].start);
        if (gfn >= start && gfn - start < vm->regions[i].bytes >> PAGE_SHIFT)
            return &vm->blocks[i][(gfn - start) >> BLOCK_ORDER];
    }
    return NULL;
}

bool vm_has_range(const struct mm_vm *vm, gpa_t gpa, uint64_t bytes)
{
    for (unsigned i = 0; i < vm->nr_regions; i++) {
        const struct mm_region *region = &vm->regions[i];
        uint64_t offset = gpa.v - region->start.v;
        if (gpa.v >= region->start.v && offset <= region->bytes && bytes <= region->bytes - offset)
            return true;
    }
    return false;
}

static void count_resident(struct block *block, unsigned node, int pages)
{
    block->nr_resident = (uint16_t)(block->nr_resident + pages);
    block->nr_on_node[node] = (uint16_t)(block->nr_on_node[node] + pages);
    unsigned bit = 1u << node, nodes = block->nr_on_node[node] ? block->on_nodes | bit : block->on_nodes & ~bit;
    __atomic_store_n(&block->on_nodes, (uint8_t)nodes, __ATOMIC_RELAXED);
    counter_add(&block->vm->host->node[node].nr_resident, pages);
}

static void count_states(struct mm_vm *vm, uint8_t from, uint8_t to, unsigned pages)
{
    if (from == to)
        return;
    counter_add(&vm->nr_pages[from], -(int64_t)pages);
    counter_add(&vm->nr_pages[to], pages);
    if (from == S2_BALLOON)
        event_add(vm->host, EV_balloon_deflate, pages);
    if (to == S2_BALLOON)
        event_add(vm->host, EV_balloon_inflate, pages);
}

/* Node that @entry of a table (level 1) or block (2) names; it is RESIDENT. */
static unsigned resident_node(const struct mm_host *host, const struct s2_entry *entry, unsigned level)
{
    return level == 1 ? resident_payload_node(entry->payload) : node_of(host, (fn_t)entry->payload);
}

static void count_change(struct block *block, const struct s2_entry *from, const struct s2_entry *to, unsigned level)
{
    const struct mm_host *host = block->vm->host;
    int pages = level == 1 ? 1 : (int)BLOCK_PAGES;
    if (from->state == S2_RESIDENT)
        count_resident(block, resident_node(host, from, level), -pages);
    if (to->state == S2_RESIDENT)
        count_resident(block, resident_node(host, to, level), pages);
    count_states(block->vm, from->state, to->state, (unsigned)pages);
}

void pte_write(struct block *block, unsigned index, const struct s2_entry *old, const struct s2_entry *new)
{
    block->table[index] = block->vm->stage2.format->make_leaf(new, 1);
    count_change(block, old, new, 1);
}

void pmd_write(struct block *block, const struct s2_entry *old, const struct s2_entry *new)
{
    *block->pmd = block->vm->stage2.format->make_leaf(new, 2);
    count_change(block, old, new, 2);
}

void entry_fill_pages(void *pages, uint32_t nr, const struct s2_entry *entry)
{
    uint32_t *words = pages;
    for (uint64_t i = 0; i < nr * PAGE_BYTES / sizeof(*words); i++)
        words[i] = (uint32_t)entry->payload;
}

int block_prepare_table(struct block *block)
{
    if (!block->table)
        block->table = stage2_table_alloc(&block->vm->stage2);
    return block->table ? 0 : -ENOMEM;
}

void block_forget_accesses(struct block *block)
{
    if (block->access.panel)
        counter_add(&block->vm->host->panel_bytes, -(int64_t)(ACCESS_PANEL * sizeof(*block->access.panel)));
    free(block->access.panel);
    block->access = (struct access_block){0};
}

void block_split(struct block *block)
{
    struct s2_entry entry = pmd_read(block);
    unsigned node = entry.state == S2_RESIDENT ? node_of(block->vm->host, (fn_t)entry.payload) : 0;
    if (entry.state == S2_STANDBY) {
        entry.payload = standby_payload((fn_t)entry.payload, false, block->note);
        *block->pmd = block->vm->stage2.format->make_leaf(&entry, 2);
    }
    stage2_split(&block->vm->stage2, block->pmd, block->table, (uint32_t)resident_payload(node, block->note));
    block->small = true;
    block->armed = false;
}

void block_merge(struct block *block, const struct s2_entry *leaf)
{
    struct stage2 *s2 = &block->vm->stage2;
    uint16_t pages[S2_TABLE] = {0};
    for (unsigned i = 0; i < BLOCK_PAGES; i++)
        pages[pte_read(block, i).state]++;
    block->table = stage2_merge(s2, block->pmd, leaf);
    if (leaf->state != S2_RESIDENT) {
        stage2_table_free(s2, block->table);
        block->table = NULL;
    }
    for (uint8_t state = 0; state < S2_TABLE; state++)
        if (pages[state])
            count_states(block->vm, state, leaf->state, pages[state]);
    for (unsigned n = 0; n < MM_MAX_NODES; n++)
        if (block->nr_on_node[n])
            count_resident(block, n, -(int)block->nr_on_node[n]);
    if (leaf->state == S2_RESIDENT)
        count_resident(block, resident_node(block->vm->host, leaf, 2), (int)BLOCK_PAGES);
}

void thread_free_page(struct mm_thread *thread, fn_t fn)
{
    unsigned node = node_of(thread->host, fn);
    struct pcp *pcp = &thread->pcp[node];
    if (fn >= pcp->zone->start_fn) {
        event_add(thread->host, EV_pgfree, 1);
        pcp_free(pcp, fn, true);
    } else {
        pool_free_filled(&thread->host->node[node].pool, fn, 1);
    }
}

/* ---- sums over the nodes ---- */

uint64_t host_nr_free(const struct mm_host *host)
{
    uint64_t pages = 0;
    for (unsigned n = 0; n < host->nr_nodes; n++)
        pages += pool_nr_free(&host->node[n].pool);
    return pages;
}

uint64_t host_nr_resident(const struct mm_host *host)
{
    uint64_t pages = 0;
    for (unsigned n = 0; n < host->nr_nodes; n++)
        pages += counter_read(&host->node[n].nr_resident);
    return pages;
}

uint64_t host_nr_standby(const struct mm_host *host)
{
    uint64_t pages = 0;
    for (unsigned n = 0; n < host->nr_nodes; n++)
        pages += counter_read(&host->node[n].nr_standby);
    return pages;
}

unsigned host_roomiest_node(const struct mm_host *host)
{
    unsigned best = 0;
    for (unsigned n = 1; n < host->nr_nodes; n++)
        if (pool_nr_free(&host->node[n].pool) > pool_nr_free(&host->node[best].pool))
            best = n;
    return best;
}
