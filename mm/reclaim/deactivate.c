/* SPDX-License-Identifier: Apache-2.0 */
/* From active to standby: pages come home in runs, one host_ops.take each. */
#include "mm/reclaim/age.h"
#include "mm/reclaim/lru.h"

#include <errno.h>

/* What is taken: what is cold by its age, all of it, or what is cold to see whether it really is. */
enum how { COLD, FORCE, LOOK };

/* One look at every entry: who is resident, who of @node is cold. */
static void age_pages(struct block *block, unsigned node, bool force, struct page_map *resident, struct page_map *cold,
                      uint64_t *scanned)
{
    for (unsigned i = 0; i < BLOCK_PAGES; i++) {
        struct s2_entry entry = pte_read(block, i);
        if (entry.state != S2_RESIDENT)
            continue;
        map_set(resident, i);
        if (resident_payload_node(entry.payload) != node)
            continue;
        (*scanned)++;
        if (force || age_is_cold(entry.age, block->nr_scans[node], block->start + i))
            map_set(cold, i);
    }
}

/* End of the longest span from @start that holds cold and absent pages only, cut after its last cold page. */
static unsigned span_end(const struct page_map *resident, const struct page_map *cold, unsigned start)
{
    unsigned end = start;
    for (unsigned i = start; i < BLOCK_PAGES; i++) {
        if (map_test(cold, i))
            end = i + 1;
        else if (map_test(resident, i))
            break;
    }
    return end;
}

uint32_t lru_enter_standby(struct mm_host *host, struct block *block, const struct page_map *map, unsigned start,
                           fn_t fn, uint32_t nr, enum standby_end end)
{
    struct frame *frames = host->frames;
    struct mm_node *node = &host->node[node_of(host, fn)];
    uint32_t entered = 0;
    uint8_t now = taken_clock(host->ops->clock_ns(host->ops_ctx));
    lock_acquire(&host->lru.lock);
    for (uint32_t k = 0; k < nr; k++) {
        uint32_t i = end == STANDBY_OLD ? nr - 1 - k : k; /* either way the lowest page is evicted first */
        if (!map_test(map, start + i))
            continue;
        struct s2_entry old = pte_read(block, start + i);
        struct s2_entry new = {.state = S2_STANDBY, .age = old.age};
        new.payload = standby_payload(fn + i, end == STANDBY_ARMED, note_of(&old));
        pte_write(block, start + i, &old, &new);
        uint8_t taken = old.state == S2_STANDBY ? frames[(fn_t)old.payload].taken : now;
        frames[fn + i] =
            (struct frame){.gfn = block->start + start + i, .vm = block->vm->id, .use = FRAME_STANDBY, .taken = taken};
        if (end == STANDBY_OLD)
            frame_list_push_tail(&node->standby, frames, fn + i);
        else
            frame_list_push_head(&node->standby, frames, fn + i);
        entered++;
    }
    counter_add(&node->nr_standby, entered);
    lock_release(&host->lru.lock);
    return entered;
}

/* Slots of [fn, fn + nr) that no page of @map came home to. */
static void free_holes(struct mm_host *host, const struct page_map *map, unsigned start, fn_t fn, uint32_t nr)
{
    for (uint32_t i = 0, hole = 0; i <= nr; i++) {
        if (i < nr && !map_test(map, start + i))
            continue;
        if (i > hole)
            pool_free_empty(pool_of(host, fn), fn + hole, i - hole);
        hole = i + 1;
    }
}

/* Takes [start, end), pages of @node, home as far as it goes in one run; *next is where to go on. */
static uint32_t take_span(struct mm_thread *thread, struct block *block, unsigned node, const struct page_map *map,
                          unsigned start, unsigned end, enum standby_end where, unsigned *next)
{
    struct mm_host *host = thread->host;
    struct pool *pool = &host->node[node].pool;
    fn_t fn;
    uint32_t nr, done = 0;
    if (pool_alloc_empty(pool, end - start, &fn, &nr)) {
        *next = BLOCK_PAGES;
        return 0;
    }
    int err = host->ops->take(host->ops_ctx, block->vm->id, block->start + start, fn, nr, &done);
    uint32_t taken = lru_enter_standby(host, block, map, start, fn, done, where);
    free_holes(host, map, start, fn, done);
    *next = start + done;
    if (err) {
        pool_free_empty(pool, fn + done, nr - done);
        event_add(host, EV_take_busy, 1);
        *next = err == -EBUSY ? start + done + 1 : BLOCK_PAGES;
    }
    return taken;
}

/* Pages of @node in @map, all of them resident, go home. */
static uint32_t take_pages(struct mm_thread *thread, struct block *block, unsigned node,
                           const struct page_map *resident, const struct page_map *map, enum standby_end where)
{
    uint32_t taken = 0;
    for (unsigned i = 0; i < BLOCK_PAGES;) {
        if (!map_test(map, i))
            i++;
        else
            taken += take_span(thread, block, node, map, i, span_end(resident, map, i), where, &i);
    }
    return taken;
}

static uint32_t deactivate_small(struct mm_thread *thread, struct block *block, unsigned node, bool force,
                                 uint64_t *scanned)
{
    struct page_map resident = {0}, cold = {0};
    age_pages(block, node, force, &resident, &cold, scanned);
    return take_pages(thread, block, node, &resident, &cold, STANDBY_YOUNG);
}

/* Only [0, done) of a 2 MiB frame came home: the block goes on in single pages. */
static uint32_t take_broken_huge(struct mm_host *host, struct block *block, fn_t fn, uint32_t done)
{
    struct page_map came = {0};
    map_set_range(&came, 0, done);
    zone_split(&pool_of(host, fn)->zones[POOL_HUGE], fn, BLOCK_ORDER);
    block_split(block);
    event_add(host, EV_thp_split_page, 1);
    pool_free_empty(pool_of(host, fn), fn + done, BLOCK_PAGES - done);
    block->access.home_ns = host->ops->clock_ns(host->ops_ctx);
    return lru_enter_standby(host, block, &came, 0, fn, done, STANDBY_YOUNG);
}

static uint32_t take_huge(struct mm_host *host, struct block *block, struct s2_entry leaf, bool armed)
{
    fn_t fn = (fn_t)leaf.payload;
    uint32_t done = 0;
    if (host->ops->take(host->ops_ctx, block->vm->id, block->start, fn, BLOCK_PAGES, &done)) {
        event_add(host, EV_take_busy, 1);
        return done ? take_broken_huge(host, block, fn, done) : 0;
    }
    struct s2_entry new = {.state = S2_STANDBY, .payload = fn, .age = leaf.age};
    pmd_write(block, &leaf, &new);
    block->armed = armed;
    lru_enter_standby_huge(host, fn);
    return BLOCK_PAGES;
}

/* For who wants to know how soon the touch came. */
static void note_armed(const struct mm_host *host, struct block *block, uint8_t state)
{
    uint64_t now_ns = host->ops->clock_ns(host->ops_ctx);
    block->armed_ms = (uint32_t)(now_ns / NS_PER_MS);
    if (state == S2_TABLE)
        block->access.home_ns = now_ns;
}

static uint32_t deactivate_huge(struct mm_host *host, struct block *block, struct s2_entry leaf, enum how how)
{
    if (how != FORCE && !age_is_cold(leaf.age, block->nr_scans[node_of(host, (fn_t)leaf.payload)], block->start))
        return 0;
    uint32_t taken = take_huge(host, block, leaf, how == LOOK);
    if (taken == BLOCK_PAGES) {
        if (how == LOOK) {
            note_armed(host, block, S2_RESIDENT);
        } else {
            block->nr_takes = (uint8_t)MIN_OF(block->nr_takes + 1u, UINT8_MAX);
            event_add(host, EV_thp_swpout, 1);
        }
        access_arm(&block->access.whole, host->ops->clock_ns(host->ops_ctx), false);
    }
    return taken;
}

static uint32_t deactivate(struct mm_thread *thread, struct block *block, unsigned node, enum how how,
                           uint64_t *scanned)
{
    struct s2_entry entry = pmd_read(block);
    uint32_t taken = 0;
    if (!block->nr_on_node[node])
        return 0;
    if (block->nr_pins) {
        event_add(thread->host, EV_take_pinned, 1);
        return 0;
    }
    block->nr_scans[node]++;
    if (entry.state == S2_TABLE) {
        taken = deactivate_small(thread, block, node, how == FORCE, scanned);
    } else if (entry.state == S2_RESIDENT) {
        *scanned += BLOCK_PAGES;
        taken = deactivate_huge(thread->host, block, entry, how);
    }
    if (taken)
        block->access.home_ns = thread->host->ops->clock_ns(thread->host->ops_ctx);
    event_add(thread->host, EV_pgdeactivate, taken);
    return taken;
}

uint32_t lru_deactivate_block(struct mm_thread *thread, struct block *block, unsigned node, bool force,
                              uint64_t *scanned)
{
    return deactivate(thread, block, node, force ? FORCE : COLD, scanned);
}

uint32_t lru_look_block(struct mm_thread *thread, struct block *block, unsigned node, uint64_t *scanned)
{
    return deactivate(thread, block, node, LOOK, scanned);
}

uint32_t lru_arm_block(struct mm_thread *thread, struct block *block, nodemask_t nodes)
{
    struct mm_host *host = thread->host;
    struct s2_entry entry = pmd_read(block);
    uint32_t taken = 0;
    if (block->nr_pins)
        return 0;
    if (entry.state == S2_RESIDENT)
        taken = nodes >> node_of(host, (fn_t)entry.payload) & 1 ? take_huge(host, block, entry, true) : 0;
    for (unsigned n = 0; n < host->nr_nodes && entry.state == S2_TABLE; n++) {
        struct page_map resident = {0}, map = {0};
        uint64_t scanned = 0;
        if (!(nodes >> n & 1) || !block->nr_on_node[n])
            continue;
        age_pages(block, n, true, &resident, &map, &scanned);
        taken += take_pages(thread, block, n, &resident, &map, STANDBY_ARMED);
    }
    if (taken)
        note_armed(host, block, entry.state);
    return taken;
}

bool lru_has_room(const struct block *block, enum watermark which, uint32_t pages)
{
    const struct mm_host *host = block->vm->host;
    for (unsigned n = 0; n < host->nr_nodes; n++) {
        const struct pool *pool = &host->node[n].pool;
        if (block->nr_on_node[n] && pool_nr_free(pool) < pool->wmark[which] + pages)
            return false;
    }
    return true;
}

uint32_t lru_arm_pages(struct mm_thread *thread, struct block *block, struct page_map *map)
{
    uint32_t taken = 0;
    if (block->nr_pins)
        return 0;
    for (unsigned i = 0, next; i < BLOCK_PAGES; i++) {
        if (!map_test(map, i))
            continue;
        unsigned node = resident_payload_node(pte_read(block, i).payload);
        uint32_t one = take_span(thread, block, node, map, i, i + 1, STANDBY_ARMED, &next);
        if (!one)
            map->word[i / 64] &= ~(UINT64_C(1) << (i % 64));
        taken += one;
    }
    return taken;
}

int lru_take_block(struct mm_thread *thread, struct block *block)
{
    uint64_t scanned = 0;
    uint32_t taken = 0;
    for (unsigned n = 0; n < thread->host->nr_nodes; n++) {
        if (block->nr_on_node[n])
            taken += deactivate_small(thread, block, n, true, &scanned);
        if (block->nr_on_node[n])
            break;
    }
    if (taken)
        block->access.home_ns = thread->host->ops->clock_ns(thread->host->ops_ctx);
    event_add(thread->host, EV_pgdeactivate, taken);
    return block->nr_resident ? -EBUSY : 0;
}
