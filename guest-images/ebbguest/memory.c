/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's physical memory: four zones in the order of addresses, as Linux has them on x86-64.
 *
 *   DMA 1..16 MiB | kept for metadata | DMA32 to 4 GiB | Normal from 4 GiB | Movable: 3/4 of the highest of these
 *
 * The workload's pages come from the highest zone that has some, as movable user pages do. The zones have watermarks
 * like any; as nothing here reclaims, allocation goes below them, to the last page.
 */
#include <errno.h>

#include "guest-images/ebbguest/kernel.h"

#define GIB_SHIFT 30
#define TABLE_ENTRIES 512
#define TABLE_FLAGS 0x27 /* present, writable, user, accessed */
#define LEAF_FLAGS 0xe7  /* the same, dirty, 2 MiB */
#define MOVABLE_ALIGN_PAGES (UINT32_C(1) << MAX_ORDER)
#define REFILL_BATCH 64

static const struct ebb_shared *host_page(void)
{
    return (const struct ebb_shared *)EBB_SHARED_GPA;
}

/* --- page tables ----------------------------------------------------------------------------------- */

/* Maps the 2 MiB pages [start, end), tables coming from *next. */
static void map_range(uint64_t *pdpt, uint64_t start, uint64_t end, uint64_t *next)
{
    for (uint64_t at = start; at < end; at += BLOCK_BYTES) {
        uint64_t *entry = &pdpt[at >> GIB_SHIFT];

        if (*entry == 0) {
            *entry = *next | TABLE_FLAGS;
            *next += PAGE_BYTES;
        }
        uint64_t *directory = (uint64_t *)(uintptr_t)(*entry & ~(PAGE_BYTES - 1));
        directory[(at >> BLOCK_SHIFT) % TABLE_ENTRIES] = at | LEAF_FLAGS;
    }
}

static uint64_t make_page_tables(struct kernel *k, uint64_t at, uint64_t low, uint64_t high)
{
    uint64_t *root = (uint64_t *)(uintptr_t)at;
    uint64_t *pdpt = root + TABLE_ENTRIES;
    uint64_t next = at + 2 * PAGE_BYTES;

    root[0] = (uint64_t)(uintptr_t)pdpt | TABLE_FLAGS;
    map_range(pdpt, 0, low, &next);
    map_range(pdpt, EBB_SHARED_GPA, EBB_ROM_GPA + BLOCK_BYTES, &next);
    map_range(pdpt, EBB_DEVICES_GPA, EBB_DEVICES_GPA + BLOCK_BYTES, &next);
    map_range(pdpt, EBB_HIGH_GPA, EBB_HIGH_GPA + high, &next);
    k->page_tables = at;
    return next;
}

/* --- zones ----------------------------------------------------------------------------------------- */

static void add_zone(struct kernel *k, const char *name, uint64_t start, uint64_t end)
{
    uint32_t pages = (uint32_t)((end - start) >> PAGE_SHIFT);

    if (pages == 0)
        return;
    struct zone *zone = &k->node.zones[k->node.nr_zones++];
    zone_init(zone, name, k->frames, (fn_t)(start >> PAGE_SHIFT), pages, PLANE_FILLED);
    watermark_set(zone, pages);
}

static void add_with_movable(struct kernel *k, const char *name, uint64_t start, uint64_t end)
{
    uint64_t align = MOVABLE_ALIGN_PAGES * PAGE_BYTES;
    uint64_t split = (start + (end - start) / 4 + align - 1) & ~(align - 1);

    split = MIN_OF(split, end);
    add_zone(k, name, start, split);
    add_zone(k, "Movable", split, end);
}

void memory_init(struct kernel *k)
{
    const struct ebb_shared *host = host_page();
    uint64_t low = host->low_bytes, high = host->high_bytes;
    uint64_t at = EBB_META_GPA + EBB_META_FIXED_BYTES;
    uint64_t dma32 = EBB_META_GPA + ebb_meta_bytes(low, high);

    k->nr_cpus = host->nr_cpus;
    k->seed = host->seed;
    k->nr_slots = (uint32_t)ebb_usable_pages(low, high);
    at = make_page_tables(k, at, low, high);
    k->frames = (struct frame *)(uintptr_t)at;
    at += (ebb_memory_end(low, high) >> PAGE_SHIFT) * sizeof(struct frame);
    k->slots = (struct page_slot *)(uintptr_t)at;

    add_zone(k, "DMA", EBB_DMA_GPA, EBB_META_GPA);
    if (high > 0) {
        add_zone(k, "DMA32", dma32, low);
        add_with_movable(k, "Normal", EBB_HIGH_GPA, EBB_HIGH_GPA + high);
    } else {
        add_with_movable(k, "DMA32", dma32, low);
    }
}

/* --- pages for the workload ------------------------------------------------------------------------ */

static struct zone *zone_of(struct kernel *k, uint32_t gfn)
{
    struct zone *zone = &k->node.zones[k->node.nr_zones - 1];

    while (gfn < zone->start_fn)
        zone--;
    return zone;
}

/* Fills slots from blocks of @order out of @zone while they fit; returns the first slot that is still without. */
static uint32_t take_blocks(struct kernel *k, struct zone *zone, unsigned order, uint32_t from, uint32_t to)
{
    fn_t head;

    while (to - from >= UINT32_C(1) << order && zone_alloc(zone, order, PLANE_FILLED, &head) == 0) {
        zone_split(zone, head, order); /* they may go back one by one */
        for (uint32_t i = 0; i < UINT32_C(1) << order; i++)
            k->slots[from++].gfn = head + i;
    }
    return from;
}

int memory_take(struct kernel *k, uint32_t from, uint32_t to)
{
    uint32_t at = from;

    for (unsigned i = k->node.nr_zones; i-- > 0;) {
        for (unsigned order = MAX_ORDER + 1; order-- > 0;)
            at = take_blocks(k, &k->node.zones[i], order, at, to);
    }
    if (at == to)
        return 0;
    memory_give(k, from, at);
    return -ENOMEM;
}

void memory_give(struct kernel *k, uint32_t from, uint32_t to)
{
    while (from < to) {
        uint32_t gfn = k->slots[from].gfn;
        struct zone *zone = zone_of(k, gfn);
        uint32_t nr = 0;

        while (from < to && k->slots[from].gfn == gfn + nr && gfn + nr - zone->start_fn < zone->nr_frames) {
            k->slots[from++].gfn = 0;
            nr++;
        }
        zone_free_range(zone, gfn, nr, PLANE_FILLED);
    }
}

void memory_refill(struct kernel *k, uint32_t from, uint32_t to)
{
    fn_t got[REFILL_BATCH];

    for (unsigned i = k->node.nr_zones; from<to; i = i> 1 ? i - 1 : k->node.nr_zones) {
        struct zone *zone = &k->node.zones[i - 1];
        uint32_t nr = zone_alloc_bulk(zone, PLANE_FILLED, got, MIN_OF(to - from, (uint32_t)REFILL_BATCH));

        for (uint32_t j = 0; j < nr; j++)
            k->slots[from++].gfn = got[j];
    }
}
