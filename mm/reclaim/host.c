/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks and their entries. See host.h. */
#include "mm/reclaim/host.h"

#include <errno.h>

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

static void count_state(struct mm_vm *vm, uint8_t state, int64_t pages)
{
    __atomic_add_fetch(&vm->nr_pages[state], (uint64_t)pages, __ATOMIC_RELAXED);
    if (state == S2_RESIDENT)
        __atomic_add_fetch(&vm->host->nr_resident, (uint64_t)pages, __ATOMIC_RELAXED);
}

static void count_change(struct block *block, uint8_t from, uint8_t to, uint16_t pages)
{
    if (from == to)
        return;
    count_state(block->vm, from, -(int64_t)pages);
    count_state(block->vm, to, pages);
    if (from == S2_BALLOON)
        event_add(block->vm->host, EV_balloon_deflate, pages);
    if (to == S2_BALLOON)
        event_add(block->vm->host, EV_balloon_inflate, pages);
    if (from == S2_RESIDENT)
        block->nr_resident = (uint16_t)(block->nr_resident - pages);
    if (to == S2_RESIDENT)
        block->nr_resident = (uint16_t)(block->nr_resident + pages);
}

void pte_write(struct block *block, unsigned index, const struct s2_entry *old, const struct s2_entry *new)
{
    block->table[index] = block->vm->stage2.format->make_leaf(new, 1);
    count_change(block, old->state, new->state, 1);
}

void pmd_write(struct block *block, const struct s2_entry *old, const struct s2_entry *new)
{
    *block->pmd = block->vm->stage2.format->make_leaf(new, 2);
    count_change(block, old->state, new->state, BLOCK_PAGES);
}

int block_prepare_table(struct block *block)
{
    if (!block->table)
        block->table = stage2_table_alloc(&block->vm->stage2);
    return block->table ? 0 : -ENOMEM;
}

void block_split(struct block *block)
{
    stage2_split(&block->vm->stage2, block->pmd, block->table);
    block->small = true;
}

void block_merge(struct block *block, const struct s2_entry *leaf)
{
    struct stage2 *s2 = &block->vm->stage2;
    uint16_t pages[S2_TABLE] = {0};
    for (unsigned i = 0; i < BLOCK_PAGES; i++)
        pages[pte_read(block, i).state]++;
    stage2_table_free(s2, stage2_merge(s2, block->pmd, leaf));
    block->table = NULL;
    for (uint8_t state = 0; state < S2_TABLE; state++)
        if (pages[state])
            count_change(block, state, leaf->state, pages[state]);
}

void thread_free_page(struct mm_thread *thread, fn_t fn)
{
    if (fn >= thread->pcp.zone->start_fn) {
        event_add(thread->host, EV_pgfree, 1);
        pcp_free(&thread->pcp, fn, true);
    } else {
        pool_free_filled(&thread->host->pool, fn, 1);
    }
}
