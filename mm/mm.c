/* SPDX-License-Identifier: Apache-2.0 */
/* Making and unmaking: host, threads, VMs. */
#include "mm/compact.h"
#include "mm/reclaim/drop.h"
#include "mm/policy/access_note.h"
#include "mm/policy/numa.h"
#include "mm/reclaim/evict.h"
#include "mm/reclaim/place.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define FAULT_AROUND_DEFAULT 16u
#define READAHEAD_DEFAULT 32u
/* Of a fast node's budget, kept free for pages from a slower one. Chosen, unmeasured. */
#define HEADROOM_SHARE 64u
/* Linux vm.extfrag_threshold and vm.compaction_proactiveness. */
#define EXTFRAG_THRESHOLD_DEFAULT 500u
#define PROACTIVENESS_DEFAULT 20u
#define LOCAL_DISTANCE 10 /* ACPI 6.5, 5.2.17: SLIT */

const char *const vm_event_names[NR_VM_EVENTS] = {
#define X(name) #name,
    VM_EVENTS(X)
#undef X
};

/* ---- pages for metadata: the heap, counted ---- */

static void *metadata_get(void *ctx, unsigned order)
{
    struct mm_host *host = ctx;
    void *pages = aligned_alloc(PAGE_BYTES << order, PAGE_BYTES << order);
    if (pages)
        __atomic_add_fetch(&host->metadata_bytes, PAGE_BYTES << order, __ATOMIC_RELAXED);
    return pages;
}

static void metadata_put(void *ctx, void *pages, unsigned order)
{
    struct mm_host *host = ctx;
    __atomic_sub_fetch(&host->metadata_bytes, PAGE_BYTES << order, __ATOMIC_RELAXED);
    free(pages);
}

/* ---- what zram takes from the pool ---- */

static int zram_page_get(void *ctx, unsigned order, fn_t *out)
{
    struct mm_host *host = ctx;
    const uint8_t *nearest = host->node[host_roomiest_node(host)].nearest;
    int err = -ENOMEM;
    for (unsigned i = 0; i < host->nr_nodes && err; i++)
        err = pool_alloc_filled(&host->node[nearest[i]].pool, order, MIGRATE_RECLAIMABLE, true, out);
    return err;
}

static void zram_page_put(void *ctx, fn_t fn, unsigned order)
{
    pool_free_filled(pool_of(ctx, fn), fn, 1u << order);
}

/* ---- host ---- */

static bool power_of_two_upto(uint32_t value, uint32_t max)
{
    return value >= 1 && value <= max && !(value & (value - 1));
}

/* One node of no name when none is given; otherwise the nodes' parts make up the budget. */
static int nodes_check(struct mm_config *config)
{
    uint64_t sum = 0;
    if (!config->nr_nodes) {
        config->nr_nodes = 1;
        config->nodes[0] = (struct mm_node_config){
            .id = MM_NODE_ANY, .budget_bytes = config->budget_bytes, .distance[0] = LOCAL_DISTANCE};
        return 0;
    }
    if (config->nr_nodes > MM_MAX_NODES)
        return -EINVAL;
    for (unsigned n = 0; n < config->nr_nodes; n++) {
        uint64_t bytes = config->nodes[n].budget_bytes;
        if (bytes < MM_MIN_NODE_BUDGET || bytes % PAGE_BYTES)
            return -EINVAL;
        sum += bytes;
    }
    return sum == config->budget_bytes ? 0 : -EINVAL;
}

static int config_check(struct mm_config *config)
{
    if (!config->fault_around_pages)
        config->fault_around_pages = FAULT_AROUND_DEFAULT;
    if (!config->readahead_pages)
        config->readahead_pages = READAHEAD_DEFAULT;
    bool good = config->budget_bytes >= MM_MIN_BUDGET && config->budget_bytes % PAGE_BYTES == 0 &&
                config->budget_bytes >> PAGE_SHIFT <= UINT32_MAX / 4 &&
                power_of_two_upto(config->fault_around_pages, MM_BUFFER_PAGES) &&
                power_of_two_upto(config->readahead_pages, MM_BUFFER_PAGES) && config->standby_pct <= 90 &&
                config->collapse_pct <= 100;
    return good ? nodes_check(config) : -EINVAL;
}

unsigned mm_arena_layout(const struct mm_config *config, fn_t start[MM_MAX_NODES + 1])
{
    unsigned nr = MAX_OF(config->nr_nodes, 1u);
    start[0] = 0;
    for (unsigned n = 0; n < nr; n++) {
        uint64_t bytes = config->nr_nodes ? config->nodes[n].budget_bytes : config->budget_bytes;
        start[n + 1] = start[n] + pool_nr_slots((uint32_t)(bytes >> PAGE_SHIFT));
    }
    return nr;
}

uint32_t mm_arena_slots(const struct mm_config *config)
{
    fn_t start[MM_MAX_NODES + 1];
    return start[mm_arena_layout(config, start)];
}

static int caches_init(struct mm_host *host)
{
    const struct slab_pages pages = {.get = metadata_get, .put = metadata_put, .ctx = host};
    return slab_cache_init(&host->tables, "stage2_table", (uint32_t)PAGE_BYTES, (uint32_t)PAGE_BYTES, NULL, &pages);
}

static int stores_create(struct mm_host *host)
{
    const struct zram_pages pages = {
        .get = zram_page_get, .put = zram_page_put, .ctx = host, .arena = host->arena, .frames = host->frames};
    int err = swap_set_create(&host->swap);
    if (!err && host->config.zram.limit_bytes)
        err = zram_create(&host->config.zram, &pages, &host->zram);
    return err;
}

/* Nodes by distance from @node; of equals the one that comes sooner after it, so that not all fall back on the first. */
static void sort_nearest(struct mm_host *host, unsigned node)
{
    uint8_t *nearest = host->node[node].nearest;
    const uint8_t *distance = host->config.nodes[node].distance;
    nearest[0] = (uint8_t)node;
    for (unsigned i = 1; i < host->nr_nodes; i++) {
        uint8_t next = (uint8_t)((node + i) % host->nr_nodes);
        unsigned at = i;
        for (; at > 1 && distance[nearest[at - 1]] > distance[next]; at--)
            nearest[at] = nearest[at - 1];
        nearest[at] = next;
    }
}

/* @transient: pages that the host's calls need for a moment, kept out of each node's budget. */
static int nodes_create(struct mm_host *host, uint32_t transient)
{
    fn_t start[MM_MAX_NODES + 1];
    host->nr_nodes = mm_arena_layout(&host->config, start);
    host->frames = calloc(start[host->nr_nodes], sizeof(struct frame));
    host->types = calloc(start[host->nr_nodes] / BLOCK_PAGES, sizeof(*host->types));
    if (!host->frames || !host->types)
        return -ENOMEM;
    for (unsigned n = 0; n < host->nr_nodes; n++) {
        struct mm_node *node = &host->node[n];
        uint32_t pages = (uint32_t)(host->config.nodes[n].budget_bytes >> PAGE_SHIFT);
        uint32_t kept = MIN_OF(transient, pages - 1);
        node->config = host->config.nodes[n];
        node->retry_below = UINT32_MAX;
        frame_list_init(&node->standby);
        frame_list_init(&node->refused);
        for (unsigned i = 0; i < NR_STANDBY_MARKS; i++)
            node->standby_mark[i] = FN_NONE;
        sort_nearest(host, n);
        pool_init(&node->pool, host->ops, host->ops_ctx, host->arena, host->frames, host->types, start[n], pages - kept,
                  host->event);
        for (unsigned z = 0; z < POOL_NR_ZONES; z++)
            compact_rewind(&node->compact.cursor[z], &node->pool.zones[z]);
    }
    for (unsigned n = 0; n < host->nr_nodes; n++)
        if (demote_nodes(host, n))
            host->node[n].headroom = host->node[n].pool.budget_pages / HEADROOM_SHARE;
    host->demote.bytes_per_s = host->config.demote_bytes_per_s;
    host->promote.bytes_per_s = host->config.promote_bytes_per_s;
    return 0;
}

int mm_host_create(const struct mm_config *config, const struct host_ops *ops, void *ops_ctx, void *arena,
                   struct mm_host **out)
{
    struct mm_config checked = *config;
    int err = config_check(&checked);
    uint32_t budget_pages = (uint32_t)(config->budget_bytes >> PAGE_SHIFT);
    if (err || budget_pages <= ops->transient_pages)
        return -EINVAL;
    struct mm_host *host = calloc(1, sizeof(*host));
    if (!host)
        return -ENOMEM;
    host->config = checked;
    host->compaction =
        (struct mm_compaction){.extfrag_threshold = EXTFRAG_THRESHOLD_DEFAULT, .proactiveness = PROACTIVENESS_DEFAULT};
    host->thread_batch = MIN_OF(MAX_OF(budget_pages / 256, MM_BATCH_MIN), MM_BATCH_MAX);
    host->ops = ops;
    host->ops_ctx = ops_ctx;
    host->arena = arena;
    lru_init(&host->lru);
    lock_init(&host->vms_lock, LOCK_VMS);
    err = caches_init(host);
    if (!err)
        err = nodes_create(host, ops->transient_pages);
    if (!err)
        err = stores_create(host);
    if (!err)
        err = numa_create(host);
    if (!err)
        err = access_create(host);
    if (!err) {
        host->zeros = calloc(MM_BUFFER_PAGES, PAGE_BYTES);
        err = host->zeros ? 0 : -ENOMEM;
    }
    if (err) {
        mm_host_destroy(host);
        return err;
    }
    *out = host;
    return 0;
}

void mm_host_destroy(struct mm_host *host)
{
    if (host->zram)
        zram_destroy(host->zram);
    if (host->swap)
        swap_set_destroy(host->swap);
    for (unsigned n = 0; host->types && host->frames && n < host->nr_nodes; n++)
        pool_fini(&host->node[n].pool);
    free(host->frames);
    free(host->types);
    numa_destroy(host);
    access_destroy(host);
    slab_cache_fini(&host->tables);
    lock_fini(&host->vms_lock);
    lru_fini(&host->lru);
    free(host->zeros);
    free(host);
}

struct swap_set *mm_swap_set(struct mm_host *host)
{
    return host->swap;
}

struct zram *mm_zram(struct mm_host *host)
{
    return host->zram;
}

/* ---- threads ---- */

int mm_thread_create(struct mm_host *host, struct mm_thread **out)
{
    struct mm_thread *thread = calloc(1, sizeof(*thread));
    if (!thread)
        return -ENOMEM;
    thread->host = host;
    for (unsigned n = 0; n < host->nr_nodes; n++)
        pcp_init(&thread->pcp[n], &host->node[n].pool.zones[POOL_NORMAL], host->thread_batch, host->thread_batch / 2);
    thread->buffer = aligned_alloc(PAGE_BYTES, MM_BUFFER_PAGES * PAGE_BYTES);
    int err = thread->buffer ? 0 : -ENOMEM;
    if (!err && host->zram)
        err = zram_thread_create(host->zram, &thread->zram);
    if (err) {
        free(thread->buffer);
        free(thread);
        return err;
    }
    __atomic_add_fetch(&host->nr_threads, 1, __ATOMIC_RELAXED);
    host_share_kept(host);
    *out = thread;
    return 0;
}

void mm_thread_destroy(struct mm_thread *thread)
{
    struct mm_host *host = thread->host;
    __atomic_sub_fetch(&host->nr_threads, 1, __ATOMIC_RELAXED);
    host_share_kept(host);
    for (unsigned n = 0; n < host->nr_nodes; n++) {
        pcp_drain(&thread->pcp[n]);
        pool_uncharge(&host->node[n].pool, thread->charged[n]);
    }
    if (thread->zram)
        zram_thread_destroy(thread->zram);
    free(thread->buffer);
    free(thread);
}

/* ---- VMs ---- */

static int regions_check(const struct mm_region *regions, unsigned nr)
{
    if (nr == 0 || nr > MM_MAX_REGIONS)
        return -EINVAL;
    for (unsigned i = 0; i < nr; i++) {
        uint64_t start = regions[i].start.v, bytes = regions[i].bytes;
        if (!bytes || (start | bytes) & (BLOCK_BYTES - 1) || start + bytes < start ||
            (start + bytes) >> PAGE_SHIFT > UINT32_MAX)
            return -EINVAL;
        for (unsigned k = 0; k < i; k++)
            if (start < regions[k].start.v + regions[k].bytes && regions[k].start.v < start + bytes)
                return -EINVAL;
    }
    return 0;
}

static int blocks_create(struct mm_vm *vm, unsigned region)
{
    const struct mm_region *r = &vm->regions[region];
    uint64_t nr = r->bytes >> BLOCK_SHIFT;
    int err = stage2_cover(&vm->stage2, gfn_of(r->start), (uint32_t)(r->bytes >> PAGE_SHIFT));
    if (err)
        return err;
    struct block *blocks = calloc(nr, sizeof(struct block));
    if (!blocks)
        return -ENOMEM;
    for (uint64_t i = 0; i < nr; i++) {
        blocks[i].vm = vm;
        blocks[i].start = gfn_of(r->start) + (gfn_t)(i << BLOCK_ORDER);
        blocks[i].pmd = stage2_pmd(&vm->stage2, blocks[i].start);
        lock_init(&blocks[i].lock, LOCK_BLOCK);
    }
    vm->blocks[region] = blocks;
    vm->nr_pages[S2_ABSENT] += r->bytes >> PAGE_SHIFT;
    for (uint64_t i = 0; r->unplugged && i < nr; i++)
        pmd_write(&blocks[i], &(struct s2_entry){.state = S2_ABSENT}, &(struct s2_entry){.state = S2_UNPLUGGED});
    return 0;
}

static void vm_free(struct mm_vm *vm)
{
    for (unsigned r = 0; r < vm->nr_regions; r++) {
        for (uint64_t i = 0; vm->blocks[r] && i < vm->regions[r].bytes >> BLOCK_SHIFT; i++) {
            struct block *block = &vm->blocks[r][i];
            if (block->table && pmd_read(block).state != S2_TABLE)
                stage2_table_free(&vm->stage2, block->table);
            block_forget_accesses(block);
            lock_fini(&block->lock);
        }
        free(vm->blocks[r]);
    }
    access_history_free(vm);
    stage2_fini(&vm->stage2);
    free(vm);
}

static int vm_number(struct mm_host *host, struct mm_vm *vm)
{
    int err = -ENOSPC;
    lock_acquire(&host->vms_lock);
    lock_acquire(&host->lru.lock);
    for (vmid_t id = 1; id < MM_MAX_VMS && err; id++)
        if (!host->vms[id]) {
            vm->id = id;
            host->vms[id] = vm;
            err = 0;
        }
    lock_release(&host->lru.lock);
    lock_release(&host->vms_lock);
    return err;
}

int mm_vm_create(struct mm_host *host, const struct mm_region *regions, unsigned nr, struct mm_vm **out)
{
    int err = regions_check(regions, nr);
    if (err)
        return err;
    struct mm_vm *vm = calloc(1, sizeof(*vm));
    if (!vm)
        return -ENOMEM;
    vm->host = host;
    vm->nr_regions = nr;
    vm->born_ns = host->ops->clock_ns(host->ops_ctx);
    memcpy(vm->regions, regions, nr * sizeof(*regions));
    err = stage2_init(&vm->stage2, &s2_format_ept, &host->tables);
    for (unsigned r = 0; r < nr && !err; r++)
        err = blocks_create(vm, r);
    if (!err)
        err = vm_number(host, vm);
    if (err) {
        vm_free(vm);
        return err;
    }
    *out = vm;
    return 0;
}

vmid_t mm_vm_id(const struct mm_vm *vm)
{
    return vm->id;
}

int mm_vm_place(struct mm_vm *vm, gpa_t gpa, uint64_t bytes, const struct mm_policy *policy)
{
    unsigned all = (1u << vm->host->nr_nodes) - 1;
    if (!bytes || (gpa.v | bytes) & (BLOCK_BYTES - 1) || !vm_has_range(vm, gpa, bytes) || !policy->nodes ||
        policy->nodes & ~all || (unsigned)policy->mode > MM_POLICY_INTERLEAVE_PAGES)
        return -EINVAL;
    if (vm->nr_places == MM_MAX_PLACES)
        return -ENOSPC;
    gfn_t start = gfn_of(gpa);
    vm->places[vm->nr_places++] =
        (struct place){.start = start, .end = start + (gfn_t)(bytes >> PAGE_SHIFT), .policy = *policy};
    return 0;
}

uint8_t mm_vm_allowed_nodes(const struct mm_vm *vm, gpa_t gpa)
{
    return place_allowed(vm, gfn_of(gpa));
}

/*
 * Takes the VM out of the host's table, unless somebody holds it still: evictions that isolated a page before it was
 * forgotten, the store's compaction. They find it under lru.lock.
 */
static bool vm_remove(struct mm_vm *vm)
{
    struct mm_host *host = vm->host;
    lock_acquire(&host->vms_lock);
    lock_acquire(&host->lru.lock);
    /* pairs with vm_put */
    bool idle = __atomic_load_n(&vm->nr_users, __ATOMIC_ACQUIRE) == 0;
    if (idle)
        host->vms[vm->id] = NULL;
    lock_release(&host->lru.lock);
    lock_release(&host->vms_lock);
    return idle;
}

/* Without vms_lock: a large VM takes its time, and who looks at figures would wait for all of it. */
void mm_vm_destroy(struct mm_thread *thread, struct mm_vm *vm)
{
    for (unsigned r = 0; r < vm->nr_regions; r++)
        for (uint64_t i = 0; i < vm->regions[r].bytes >> BLOCK_SHIFT; i++) {
            struct block *block = &vm->blocks[r][i];
            lock_acquire(&block->lock);
            assert(!block->nr_pins);
            drop_blocks(thread, block, 1, &(struct s2_entry){.state = S2_ABSENT});
            lock_release(&block->lock);
        }
    while (!vm_remove(vm))
        nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
    vm_free(vm);
}
