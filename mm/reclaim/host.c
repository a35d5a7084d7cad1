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

/* Of the block and the node; the VM's pages are count_pages' to count. */
static void count_resident(struct block *block, unsigned node, int pages)
{
    bool was_in = block->nr_resident > 0;
    block->nr_resident = (uint16_t)(block->nr_resident + pages);
    if (was_in != (block->nr_resident > 0))
        counter_add(&block->vm->nr_blocks, was_in ? -1 : 1);
    block->nr_on_node[node] = (uint16_t)(block->nr_on_node[node] + pages);
    unsigned bit = 1u << node, nodes = block->nr_on_node[node] ? block->on_nodes | bit : block->on_nodes & ~bit;
    __atomic_store_n(&block->on_nodes, (uint8_t)nodes, __ATOMIC_RELAXED);
    counter_add(&block->vm->host->node[node].nr_resident, pages);
}

/* Node that @entry of a table (level 1) or block (2) names; 0 unless it is RESIDENT or STANDBY. */
static unsigned entry_node(const struct mm_host *host, const struct s2_entry *entry, unsigned level)
{
    if (entry->state == S2_RESIDENT && level == 1)
        return resident_payload_node(entry->payload);
    return entry->state == S2_RESIDENT || entry->state == S2_STANDBY ? node_of(host, (fn_t)entry->payload) : 0;
}

/* Where the VM counts pages in @state on @node. */
static uint64_t *pages_counter(struct mm_vm *vm, uint8_t state, unsigned node)
{
    return state == S2_RESIDENT  ? &vm->nr_resident[node]
           : state == S2_STANDBY ? &vm->nr_standby[node]
                                 : &vm->nr_pages[state];
}

static void count_pages(struct mm_vm *vm, uint64_t *from, uint64_t *to, unsigned pages)
{
    if (from == to)
        return;
    counter_add(from, -(int64_t)pages);
    counter_add(to, pages);
    if (from == &vm->nr_pages[S2_BALLOON])
        event_add(vm->host, EV_balloon_deflate, pages);
    if (to == &vm->nr_pages[S2_BALLOON])
        event_add(vm->host, EV_balloon_inflate, pages);
}

static void count_change(struct block *block, const struct s2_entry *from, const struct s2_entry *to, unsigned level)
{
    struct mm_vm *vm = block->vm;
    unsigned from_node = entry_node(vm->host, from, level), to_node = entry_node(vm->host, to, level);
    int pages = level == 1 ? 1 : (int)BLOCK_PAGES;
    if (from->state == S2_RESIDENT)
        count_resident(block, from_node, -pages);
    if (to->state == S2_RESIDENT)
        count_resident(block, to_node, pages);
    count_pages(vm, pages_counter(vm, from->state, from_node), pages_counter(vm, to->state, to_node), (unsigned)pages);
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
    if (old->state != new->state)
        counter_add(&block->vm->nr_huge_blocks, (new->state == S2_RESIDENT) - (old->state == S2_RESIDENT));
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
        counter_add(&block->vm->host->access_bytes, -(int64_t)(ACCESS_PANEL * sizeof(*block->access.panel)));
    free(block->access.panel);
    block->access = (struct access_block){0};
}

void block_split(struct block *block)
{
    struct s2_entry entry = pmd_read(block);
    unsigned node = entry.state == S2_RESIDENT ? node_of(block->vm->host, (fn_t)entry.payload) : 0;
    if (entry.state == S2_RESIDENT)
        counter_add(&block->vm->nr_huge_blocks, -1);
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
    struct mm_vm *vm = block->vm;
    struct stage2 *s2 = &vm->stage2;
    uint16_t pages[S2_TABLE][MM_MAX_NODES] = {0};
    unsigned node = entry_node(vm->host, leaf, 2);
    uint64_t *to = pages_counter(vm, leaf->state, node);
    for (unsigned i = 0; i < BLOCK_PAGES; i++) {
        struct s2_entry entry = pte_read(block, i);
        pages[entry.state][entry_node(vm->host, &entry, 1)]++;
    }
    block->table = stage2_merge(s2, block->pmd, leaf);
    if (leaf->state != S2_RESIDENT) {
        stage2_table_free(s2, block->table);
        block->table = NULL;
    }
    for (uint8_t state = 0; state < S2_TABLE; state++)
        for (unsigned n = 0; n < MM_MAX_NODES; n++)
            if (pages[state][n])
                count_pages(vm, pages_counter(vm, state, n), to, pages[state][n]);
    for (unsigned n = 0; n < MM_MAX_NODES; n++)
        if (block->nr_on_node[n])
            count_resident(block, n, -(int)block->nr_on_node[n]);
    if (leaf->state != S2_RESIDENT)
        return;
    count_resident(block, node, (int)BLOCK_PAGES);
    counter_add(&vm->nr_huge_blocks, 1);
}

void host_share_kept(struct mm_host *host)
{
    uint32_t nr_threads = MAX_OF(__atomic_load_n(&host->nr_threads, __ATOMIC_RELAXED), 1u);
    for (unsigned n = 0; n < host->nr_nodes; n++) {
        uint32_t share = host->node[n].pool.budget_pages / MM_KEPT_SHARE / nr_threads;
        __atomic_store_n(&host->node[n].kept, MIN_OF(share, 2 * host->thread_batch), __ATOMIC_RELAXED);
    }
}

void thread_keep_share(struct mm_thread *thread)
{
    for (unsigned n = 0; n < thread->host->nr_nodes; n++) {
        struct mm_node *node = &thread->host->node[n];
        uint32_t kept = __atomic_load_n(&node->kept, __ATOMIC_RELAXED);
        if (thread->charged[n] <= kept)
            continue;
        pool_uncharge(&node->pool, thread->charged[n] - kept);
        thread->charged[n] = kept;
    }
}

void thread_free_page(struct mm_thread *thread, fn_t fn)
{
    unsigned node = node_of(thread->host, fn);
    struct pcp *pcp = &thread->pcp[node];
    if (fn >= pcp->zone->start_fn) {
        event_add(thread->host, EV_pgfree, 1);
        pcp_free(pcp, fn, true);
        if (pcp->list.nr > __atomic_load_n(&thread->host->node[node].kept, __ATOMIC_RELAXED))
            pcp_drain(pcp);
    } else {
        pool_free_filled(&thread->host->node[node].pool, fn, 1);
    }
}

/* ---- sums over the nodes ---- */

static uint64_t sum_nodes(const uint64_t pages[MM_MAX_NODES])
{
    uint64_t sum = 0;
    for (unsigned n = 0; n < MM_MAX_NODES; n++)
        sum += counter_read(&pages[n]);
    return sum;
}

uint64_t vm_nr_pages(const struct mm_vm *vm, uint8_t state)
{
    return state == S2_RESIDENT  ? sum_nodes(vm->nr_resident)
           : state == S2_STANDBY ? sum_nodes(vm->nr_standby)
                                 : counter_read(&vm->nr_pages[state]);
}

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
