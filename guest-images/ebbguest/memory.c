/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's physical memory: four zones in the order of addresses, as Linux has them on x86-64.
 *
 *   DMA 1..16 MiB | kept for metadata | DMA32 to 4 GiB | Normal from 4 GiB | Movable: 3/4 of the highest of these
 *
 * A node has its own zones: what of each lies in its ranges, and of its highest one 3/4 are Movable.
 *
 * The workload's pages come from the highest zone that has some, as movable user pages do, of the vCPU's node before
 * that of others. The zones have watermarks like any; as nothing here reclaims, allocation goes below them, to the last
 * page.
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

struct span {
    const char *name;
    uint64_t start, end;
};

static void add_zone(struct kernel *k, struct node *node, const char *name, uint64_t start, uint64_t end)
{
    uint32_t pages = (uint32_t)((end - start) >> PAGE_SHIFT);

    if (pages == 0)
        return;
    struct zone *zone = &node->zones[node->nr_zones++];
    zone_init(zone, name, k->frames, k->types, (fn_t)(start >> PAGE_SHIFT), pages, PLANE_FILLED);
    watermark_set(zone, pages);
}

static void add_with_movable(struct kernel *k, struct node *node, const struct span *span)
{
    uint64_t align = MOVABLE_ALIGN_PAGES * PAGE_BYTES;
    uint64_t split = (span->start + (span->end - span->start) / 4 + align - 1) & ~(align - 1);

    split = MIN_OF(split, span->end);
    add_zone(k, node, span->name, span->start, split);
    add_zone(k, node, "Movable", split, span->end);
}

/* What of @span is the node's: no span is in more than one of its ranges. */
static struct span span_of(const struct span *span, const struct ebb_node *node)
{
    for (unsigned i = 0; i < 2; i++) {
        uint64_t start = MAX_OF(span->start, node->range[i].start);
        uint64_t end = MIN_OF(span->end, node->range[i].start + node->range[i].bytes);

        if (start < end)
            return (struct span){span->name, start, end};
    }
    return (struct span){span->name, 0, 0};
}

/* The last span that it has some of, and is not DMA, is split. */
static void add_node(struct kernel *k, struct node *node, const struct ebb_node *host, const struct span spans[3])
{
    unsigned nr = 3;

    while (nr > 1 && span_of(&spans[nr - 1], host).end == 0)
        nr--;
    for (unsigned i = 0; i < nr; i++) {
        struct span mine = span_of(&spans[i], host);

        if (i > 0 && i + 1 == nr)
            add_with_movable(k, node, &mine);
        else
            add_zone(k, node, mine.name, mine.start, mine.end);
    }
}

uint64_t memory_map(struct kernel *k)
{
    const struct ebb_shared *host = host_page();

    return make_page_tables(k, EBB_META_GPA + EBB_META_FIXED_BYTES, host->low_bytes, host->high_bytes);
}

void memory_init(struct kernel *k, uint64_t at)
{
    const struct ebb_shared *host = host_page();
    uint64_t low = host->low_bytes, high = host->high_bytes;
    uint64_t dma32 = EBB_META_GPA + ebb_meta_bytes(low, high);

    k->nr_cpus = host->nr_cpus;
    k->seed = host->seed;
    k->nr_slots = (uint32_t)ebb_usable_pages(low, high);
    k->types = (uint8_t *)(uintptr_t)at;
    at += ((ebb_memory_end(low, high) >> BLOCK_SHIFT) + 7) & ~UINT64_C(7);
    k->frames = (struct frame *)(uintptr_t)at;
    at += (ebb_memory_end(low, high) >> PAGE_SHIFT) * sizeof(struct frame);
    k->slots = (struct page_slot *)(uintptr_t)at;

    const struct span spans[3] = {
        {"DMA", EBB_DMA_GPA, EBB_META_GPA}, {"DMA32", dma32, low}, {"Normal", EBB_HIGH_GPA, EBB_HIGH_GPA + high}};
    k->nr_nodes = (uint32_t)host->nr_nodes;
    for (unsigned i = 0; i < k->nr_nodes; i++)
        add_node(k, &k->nodes[i], &host->nodes[i], spans);
}

uint32_t memory_node_of(const struct kernel *k, uint32_t number)
{
    uint32_t node = 0;

    while (node + 1 < k->nr_nodes && !(host_page()->nodes[node].cpus >> number & 1))
        node++;
    return node;
}

/* The node that is the @i-th nearest to @node. */
static struct node *near_node(struct kernel *k, uint32_t node, uint32_t i)
{
    return &k->nodes[host_page()->nodes[node].order[i]];
}

/* --- pages for the workload ------------------------------------------------------------------------ */

/* Of a page that came from one of them. */
static struct zone *zone_of(struct kernel *k, uint32_t gfn)
{
    struct zone *found = NULL;

    for (unsigned i = 0; i < k->nr_nodes; i++)
        for (unsigned j = 0; j < k->nodes[i].nr_zones; j++) {
            struct zone *zone = &k->nodes[i].zones[j];

            if (gfn >= zone->start_fn && gfn - zone->start_fn < zone->nr_frames)
                found = zone;
        }
    return found;
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

static uint32_t take_of_node(struct kernel *k, struct node *node, uint32_t from, uint32_t to)
{
    for (unsigned i = node->nr_zones; i-- > 0;)
        for (unsigned order = MAX_ORDER + 1; order-- > 0;)
            from = take_blocks(k, &node->zones[i], order, from, to);
    return from;
}

int memory_take(struct kernel *k, uint32_t node, uint32_t from, uint32_t to)
{
    uint32_t at = from;

    for (uint32_t i = 0; i < k->nr_nodes; i++)
        at = take_of_node(k, near_node(k, node, i), at, to);
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

static uint32_t refill_of_node(struct kernel *k, struct node *node, uint32_t from, uint32_t to)
{
    fn_t got[REFILL_BATCH];

    for (unsigned i = node->nr_zones; i-- > 0 && from < to;) {
        uint32_t nr = zone_alloc_bulk(&node->zones[i], PLANE_FILLED, got, MIN_OF(to - from, (uint32_t)REFILL_BATCH));

        for (uint32_t j = 0; j < nr; j++)
            k->slots[from++].gfn = got[j];
    }
    return from;
}

/* Another vCPU may have taken what was free in a node that this one has looked at, and given in another: round again. */
void memory_refill(struct kernel *k, uint32_t node, uint32_t from, uint32_t to)
{
    for (uint32_t i = 0; from < to; i = (i + 1) % k->nr_nodes)
        from = refill_of_node(k, near_node(k, node, i), from, to);
}
