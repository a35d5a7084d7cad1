/* SPDX-License-Identifier: Apache-2.0 */
/* The figures, for reports and views. Nothing here changes anything. */
#include "mm/policy/page_size.h"
#include "mm/reclaim/evict.h"

#include <errno.h>
#include <string.h>

/* Share of a store's compressed bytes that belongs to @pages of the pages in it. */
static uint64_t compressed_share(struct mm_host *host, uint64_t pages)
{
    struct zram_stat stat;
    if (!host->zram)
        return 0;
    zram_stat(host->zram, &stat);
    if (!stat.orig_data_bytes)
        return 0;
    return (uint64_t)((double)stat.mem_used_bytes * (double)(pages * PAGE_BYTES) / (double)stat.orig_data_bytes);
}

void mm_vm_stat(const struct mm_vm *vm, struct mm_vm_stat *out)
{
    uint64_t pages[S2_TABLE];
    for (unsigned i = 0; i < S2_TABLE; i++)
        pages[i] = vm_nr_pages(vm, (uint8_t)i);
    *out = (struct mm_vm_stat){
        .id = vm->id,
        .resident_bytes = pages[S2_RESIDENT] * PAGE_BYTES,
        .standby_bytes = pages[S2_STANDBY] * PAGE_BYTES,
        .zram_bytes = pages[S2_ZRAM] * PAGE_BYTES,
        .swap_bytes = pages[S2_SWAP] * PAGE_BYTES,
        .untouched_bytes = (pages[S2_ABSENT] + pages[S2_FILL]) * PAGE_BYTES,
        .unplugged_bytes = pages[S2_UNPLUGGED] * PAGE_BYTES,
        .balloon_bytes = pages[S2_BALLOON] * PAGE_BYTES,
        .poisoned_bytes = pages[S2_POISON] * PAGE_BYTES,
        .zram_compressed_bytes = compressed_share(vm->host, pages[S2_ZRAM]),
        .stage2_tables_bytes = stage2_metadata_bytes(&vm->stage2),
        .nr_blocks = counter_read(&vm->nr_blocks),
        .nr_huge_blocks = counter_read(&vm->nr_huge_blocks),
        .nr_minor = counter_read(&vm->minor.count),
        .nr_major = counter_read(&vm->major.count),
    };
    for (unsigned r = 0; r < vm->nr_regions; r++)
        out->memory_bytes += vm->regions[r].bytes;
    out->memory_bytes -= MIN_OF(out->memory_bytes, out->unplugged_bytes);
}

void mm_fault_hist(struct mm_vm *vm, struct hist *minor, struct hist *major)
{
    hist_merge(minor, &vm->minor);
    hist_merge(major, &vm->major);
}

static uint64_t blocks_bytes(struct mm_host *host)
{
    uint64_t bytes = 0;
    lock_acquire(&host->vms_lock);
    for (unsigned id = 1; id < MM_MAX_VMS; id++)
        for (unsigned r = 0; host->vms[id] && r < host->vms[id]->nr_regions; r++)
            bytes += (host->vms[id]->regions[r].bytes >> BLOCK_SHIFT) * sizeof(struct block);
    lock_release(&host->vms_lock);
    return bytes;
}

static void add_pool(const struct pool *pool, struct mm_host_stat *out)
{
    uint64_t uncharged = __atomic_load_n(&pool->uncharged, __ATOMIC_RELAXED);
    uint64_t filled = (uint64_t)zone_nr_free(&pool->zones[POOL_HUGE], PLANE_FILLED) +
                      zone_nr_free(&pool->zones[POOL_NORMAL], PLANE_FILLED);
    out->charged_bytes += (pool->budget_pages - uncharged) * PAGE_BYTES;
    out->filled_free_bytes += filled * PAGE_BYTES;
    out->units_free_bytes += uncharged * PAGE_BYTES;
    out->zeroed_stock_bytes += __atomic_load_n(&pool->nr_stock, __ATOMIC_RELAXED) * BLOCK_BYTES;
    for (unsigned mark = 0; mark < NR_WMARK; mark++)
        out->wmark_pages[mark] += pool->wmark[mark];
}

void mm_host_stat(struct mm_host *host, struct mm_host_stat *out)
{
    *out = (struct mm_host_stat){
        .budget_bytes = host->config.budget_bytes,
        .free_bytes = host_nr_free(host) * PAGE_BYTES,
        .resident_bytes = host_nr_resident(host) * PAGE_BYTES,
        .standby_bytes = host_nr_standby(host) * PAGE_BYTES,
        .metadata_frames_bytes = mm_arena_slots(&host->config) * sizeof(struct frame),
        .metadata_stage2_bytes = counter_read(&host->metadata_bytes),
        .metadata_blocks_bytes = blocks_bytes(host) + counter_read(&host->access_bytes),
        .metadata_swap_bytes = swap_metadata_bytes(host->swap),
        .nr_active_blocks = counter_read(&host->lru.nr_active),
        .collapse_off = collapse_why_not(host),
        .collapse_longest_held_ns = counter_read(&host->collapse.longest_held_ns),
    };
    for (unsigned n = 0; n < host->nr_nodes; n++)
        add_pool(&host->node[n].pool, out);
    out->metadata_bytes =
        out->metadata_frames_bytes + out->metadata_stage2_bytes + out->metadata_blocks_bytes + out->metadata_swap_bytes;
    if (host->zram) {
        struct zram_stat zram;
        zram_stat(host->zram, &zram);
        out->zram_used_bytes = zram.mem_used_bytes;
    }
    for (unsigned i = 0; i < NR_VM_EVENTS; i++)
        out->event[i] = counter_read(&host->event[i]);
}

const char *const mm_page_class_names[MM_NR_PAGE_CLASSES] = {
    [MM_FREE] = "free",           [MM_DISCARDABLE] = "discardable",     [MM_SYNCABLE] = "syncable",
    [MM_SWAPPABLE] = "swappable", [MM_UNRECLAIMABLE] = "unreclaimable",
};

void mm_page_classes(struct mm_host *host, uint64_t pages[MM_NR_PAGE_CLASSES])
{
    uint64_t known = 0, stock = 0, budget = 0, nr_free = host_nr_free(host);
    for (unsigned n = 0; n < host->nr_nodes; n++) {
        stock += __atomic_load_n(&host->node[n].pool.nr_stock, __ATOMIC_RELAXED) * (uint64_t)BLOCK_PAGES;
        budget += host->node[n].pool.budget_pages;
    }
    pages[MM_DISCARDABLE] = stock;
    pages[MM_FREE] = MAX_OF(nr_free, stock) - stock;
    pages[MM_SYNCABLE] = 0; /* pages of virtual disks, of which there are none */
    pages[MM_SWAPPABLE] = host_nr_resident(host) + host_nr_standby(host);
    for (unsigned i = 0; i < MM_UNRECLAIMABLE; i++)
        known += pages[i];
    pages[MM_UNRECLAIMABLE] = MAX_OF(budget, known) - known;
}

unsigned mm_zone_stat(struct mm_host *host, struct mm_zone_stat *out, unsigned max)
{
    unsigned nr = MIN_OF(max, host->nr_nodes * POOL_NR_ZONES);
    for (unsigned z = 0; z < nr; z++) {
        struct zone *zone = &host->node[z / POOL_NR_ZONES].pool.zones[z % POOL_NR_ZONES];
        out[z] = (struct mm_zone_stat){.name = zone->name,
                                       .node = (unsigned)MAX_OF(host->node[z / POOL_NR_ZONES].config.id, 0),
                                       .start_fn = zone->start_fn,
                                       .nr_frames = zone->nr_frames};
        zone_types(zone, &out[z].types);
        for (unsigned plane = 0; plane < NR_PLANES; plane++)
            for (unsigned order = 0; order <= MAX_ORDER; order++)
                for (unsigned type = 0; type < MIGRATE_TYPES; type++) {
                    uint32_t blocks = out[z].types.nr_blocks[plane][type][order];
                    out[z].nr_blocks[plane][order] += blocks;
                    out[z].nr_free[plane] += blocks << order;
                }
        memcpy(out[z].wmark, zone->wmark, sizeof(out[z].wmark));
    }
    return nr;
}

unsigned mm_nr_nodes(const struct mm_host *host)
{
    return host->nr_nodes;
}

void mm_node_stat(struct mm_host *host, unsigned which, struct mm_node_stat *out)
{
    const struct mm_node *node = &host->node[which];
    *out = (struct mm_node_stat){
        .id = node->config.id,
        .rank = node->config.rank,
        .budget_bytes = node->config.budget_bytes,
        .free_bytes = pool_nr_free(&node->pool) * PAGE_BYTES,
        .resident_bytes = counter_read(&node->nr_resident) * PAGE_BYTES,
        .standby_bytes = counter_read(&node->nr_standby) * PAGE_BYTES,
        .zeroed_stock_bytes = __atomic_load_n(&node->pool.nr_stock, __ATOMIC_RELAXED) * BLOCK_BYTES,
        .numa_hit = counter_read(&node->numa.hit),
        .numa_miss = counter_read(&node->numa.miss),
        .numa_foreign = counter_read(&node->numa.foreign),
        .interleave_hit = counter_read(&node->numa.interleave_hit),
        .local_node = counter_read(&node->numa.local),
        .other_node = counter_read(&node->numa.other),
    };
    memcpy(out->distance, node->config.distance, sizeof(out->distance));
    memcpy(out->wmark_pages, node->pool.wmark, sizeof(out->wmark_pages));
}

bool mm_vcpu_stat(const struct mm_vm *vm, unsigned vcpu, struct mm_vcpu_stat *out)
{
    if (vcpu >= NOTE_MAX_VCPUS || !counter_read(&vm->touches[vcpu].hint_faults))
        return false;
    const struct vcpu_touches *touches = &vm->touches[vcpu];
    unsigned node = __atomic_load_n(&touches->node, __ATOMIC_RELAXED);
    *out = (struct mm_vcpu_stat){
        .node = (unsigned)MAX_OF(vm->host->node[node].config.id, 0),
        .numa_hint_faults = counter_read(&touches->hint_faults),
        .numa_hint_faults_local = counter_read(&touches->hint_faults_local),
    };
    return true;
}

void mm_vm_nodes(const struct mm_vm *vm, uint64_t pages[MM_MAX_NODES])
{
    for (unsigned n = 0; n < MM_MAX_NODES; n++)
        pages[n] = counter_read(&vm->nr_resident[n]);
}

void mm_vm_standby_nodes(const struct mm_vm *vm, uint64_t pages[MM_MAX_NODES])
{
    for (unsigned n = 0; n < MM_MAX_NODES; n++)
        pages[n] = counter_read(&vm->nr_standby[n]);
}

unsigned mm_slab_stat(struct mm_host *host, struct slab_stat *out, unsigned max)
{
    if (max < 1)
        return 0;
    slab_stat(&host->tables, &out[0]);
    return 1;
}

void mm_for_each_vm(struct mm_host *host, void (*each)(void *ctx, struct mm_vm *vm), void *ctx)
{
    lock_acquire(&host->vms_lock);
    for (unsigned id = 1; id < MM_MAX_VMS; id++)
        if (host->vms[id])
            each(ctx, host->vms[id]);
    lock_release(&host->vms_lock);
}

static const char *const state_names[] = {
    [S2_ABSENT] = "absent", [S2_RESIDENT] = "resident",   [S2_STANDBY] = "standby", [S2_ZRAM] = "zram",
    [S2_SWAP] = "swap",     [S2_DISK] = "disk",           [S2_BALLOON] = "balloon", [S2_POISON] = "poison",
    [S2_FILL] = "fill",     [S2_UNPLUGGED] = "unplugged",
};

/* Of a page that @entry speaks of: home in frame @fn, or, FN_NONE, single in a guest. */
static int entry_node(const struct mm_host *host, const struct s2_entry *entry, fn_t fn)
{
    if (fn != FN_NONE)
        return host->node[node_of(host, fn)].config.id;
    return entry->state == S2_RESIDENT ? host->node[resident_payload_node(entry->payload)].config.id : MM_NODE_ANY;
}

int mm_page_info(struct mm_vm *vm, gpa_t gpa, struct mm_page_info *out)
{
    struct block *block = vm_block(vm, gfn_of(gpa));
    if (!block)
        return -EFAULT;
    lock_acquire(&block->lock);
    unsigned index = gfn_of(gpa) & (BLOCK_PAGES - 1);
    struct s2_entry entry = pmd_read(block);
    *out = (struct mm_page_info){.raw_pmd = *block->pmd, .fn = FN_NONE, .huge = entry.state != S2_TABLE};
    if (entry.state == S2_TABLE) {
        out->raw_pte = block->table[index];
        entry = pte_read(block, index);
    } else if (entry.state == S2_RESIDENT || entry.state == S2_STANDBY) {
        out->fn = (fn_t)entry.payload + index;
    }
    if (!out->huge && entry.state == S2_STANDBY)
        out->fn = (fn_t)entry.payload;
    out->node = entry_node(vm->host, &entry, out->fn);
    out->state = state_names[entry.state];
    out->age = entry.age;
    lock_release(&block->lock);
    return 0;
}

void mm_note_oom_kill(struct mm_host *host)
{
    event_add(host, EV_oom_kill, 1);
}

unsigned mm_regions(struct mm_vm *vm, struct mm_region *out, unsigned max)
{
    unsigned nr = MIN_OF(max, vm->nr_regions);
    memcpy(out, vm->regions, nr * sizeof(*out));
    return nr;
}
