/* SPDX-License-Identifier: Apache-2.0 */
/* What is watched, what the fault path says of it, and what it costs. The scanner is access_scan.c. */
#include "mm/policy/access_note.h"

#include <errno.h>
#include <stdlib.h>

/* What an arming and a fault are thought to cost before one was measured; chosen, in the range of FACTS. */
#define FIRST_ARM_NS 3000u
#define FIRST_FAULT_NS 20000u
/* A measured cost moves the mean by an eighth of the difference. */
#define COST_SHARE 8

int access_create(struct mm_host *host)
{
    struct access *access = calloc(1, sizeof(*access));
    if (!access)
        return -ENOMEM;
    access->quota_mpct = ACCESS_QUOTA_DEFAULT_MPCT;
    access->random = UINT64_C(0x9e3779b97f4a7c15);
    for (unsigned kind = 0; kind < ACCESS_NR_KINDS; kind++)
        access->cost[kind] = (struct access_cost){.arm_ns = FIRST_ARM_NS, .fault_ns = FIRST_FAULT_NS};
    lock_init(&access->lock, LOCK_ACCESS);
    host->lru.epoch_ns[0] = host->ops->clock_ns(host->ops_ctx);
    host->access = access;
    return 0;
}

void access_destroy(struct mm_host *host)
{
    if (!host->access)
        return;
    lock_fini(&host->access->lock);
    free(host->access);
}

void access_configure(struct mm_host *host, uint32_t quota_mpct, const struct access_source *source)
{
    __atomic_store_n(&host->access->quota_mpct, MIN_OF(quota_mpct, ACCESS_QUOTA_MAX_MPCT), __ATOMIC_RELAXED);
    /* pairs with the acquire in access_scan: what the source is made of is there */
    __atomic_store_n(&host->access->source, source, __ATOMIC_RELEASE);
}

/* ---- blocks by number ---- */

uint64_t access_nr_blocks(const struct mm_vm *vm)
{
    uint64_t nr = 0;
    for (unsigned r = 0; r < vm->nr_regions; r++)
        nr += vm->regions[r].bytes >> BLOCK_SHIFT;
    return nr;
}

struct block *access_block_at(const struct mm_vm *vm, uint64_t number)
{
    for (unsigned r = 0; r < vm->nr_regions; r++) {
        uint64_t nr = vm->regions[r].bytes >> BLOCK_SHIFT;
        if (number < nr)
            return &vm->blocks[r][number];
        number -= nr;
    }
    return NULL;
}

/* ---- one watched thing ---- */

void access_touch(struct access_watch *watch, uint64_t now_ns)
{
    if (watch->armed_ns)
        watch->wait_ns = MAX_OF(now_ns - MIN_OF(now_ns, watch->armed_ns), UINT64_C(1));
    watch->armed_ns = 0;
    watch->sampled = false;
    watch->last_ns = now_ns;
}

/* It comes into the guest without having been touched: unwatched, and touched no more often than that. */
static void disarm(struct access_watch *watch, uint64_t now_ns)
{
    if (watch->armed_ns)
        watch->wait_ns = MAX_OF(watch->wait_ns, now_ns - MIN_OF(now_ns, watch->armed_ns));
    watch->armed_ns = 0;
    watch->sampled = false;
}

/* The fault that was paid for beforehand is there, or is not to be expected any more. */
static void refund(struct access *access, struct access_watch *watch)
{
    if (!watch->prepaid_ns)
        return;
    __atomic_add_fetch(&access->purse_ns, (int64_t)watch->prepaid_ns, __ATOMIC_RELAXED);
    watch->prepaid_ns = 0;
}

void access_strike(struct block *block, struct access_watch *watch)
{
    if (watch->used && watch->armed_ns && watch->sampled)
        block->access.home_ns = MAX_OF(block->access.home_ns, watch->last_ns);
    refund(block->vm->host->access, watch);
    *watch = (struct access_watch){0};
}

unsigned access_check_panel(struct block *block, unsigned *nr_out)
{
    unsigned nr = 0;
    *nr_out = 0;
    for (unsigned i = 0; i < access_panel_size(&block->access); i++) {
        struct access_watch *watch = &block->access.panel[i];
        if (!watch->used)
            continue;
        struct s2_entry entry = pte_read(block, watch->index);
        bool out = access_is_out(&entry);
        if (entry.state != S2_RESIDENT && !out) {
            access_strike(block, watch);
            continue;
        }
        nr++;
        *nr_out += out;
    }
    return nr;
}

/* ---- what came in ---- */

static void count_hit(struct access *access, const struct access_watch *watch)
{
    counter_add(watch->seen_idle ? &access->nr_late_hits : &access->nr_hits, 1);
}

/* It was taken home to be watched, and has not come back since. */
static bool was_sampled(const struct s2_entry *old, const struct access_watch *watch)
{
    return old->state == S2_STANDBY && watch->armed_ns && watch->sampled;
}

void access_came_pages(struct block *block, uint32_t nr, bool touched, uint64_t now_ns)
{
    struct access_block *blocks = &block->access;
    blocks->nr_came = (uint16_t)MIN_OF(blocks->nr_came + nr, BLOCK_PAGES);
    refund(block->vm->host->access, &blocks->whole);
    /* of the time when it was one frame nothing is left but the last access */
    blocks->whole = (struct access_watch){.last_ns = touched ? now_ns : blocks->whole.last_ns};
}

bool access_came(struct block *block, unsigned index, const struct s2_entry *old, bool touched, uint64_t now_ns)
{
    struct access *access = block->vm->host->access;
    struct access_block *blocks = &block->access;
    bool sampled = false;
    for (unsigned i = 0; i < access_panel_size(blocks); i++) {
        struct access_watch *watch = &blocks->panel[i];
        if (!watch->used || watch->index != index)
            continue;
        sampled = was_sampled(old, watch);
        if (touched && sampled)
            count_hit(access, watch);
        refund(access, watch);
        if (touched)
            access_touch(watch, now_ns);
        else
            disarm(watch, now_ns);
    }
    return sampled;
}

uint64_t access_sampled_ns(const struct block *block, unsigned index, const struct s2_entry *entry)
{
    for (unsigned i = 0; i < access_panel_size(&block->access); i++) {
        const struct access_watch *watch = &block->access.panel[i];
        if (watch->used && watch->index == index && was_sampled(entry, watch))
            return watch->armed_ns;
    }
    return 0;
}

bool access_came_huge(struct block *block, const struct s2_entry *old, uint64_t now_ns)
{
    struct access *access = block->vm->host->access;
    struct access_watch *whole = &block->access.whole;
    bool sampled = was_sampled(old, whole);
    if (sampled)
        count_hit(access, whole);
    refund(access, whole);
    access_touch(whole, now_ns);
    return sampled;
}

void access_rebuilt(struct block *block)
{
    struct access_watch *whole = &block->access.whole;
    struct access_watch all = {.last_ns = whole->last_ns};
    for (unsigned i = 0; i < access_panel_size(&block->access); i++) {
        struct access_watch *watch = &block->access.panel[i];
        if (!watch->used)
            continue;
        all.last_ns = MAX_OF(all.last_ns, watch->last_ns);
        /* of those that are in the guest, the one that is touched most often */
        if (!watch->armed_ns && watch->wait_ns && (!all.wait_ns || watch->wait_ns < all.wait_ns))
            all.wait_ns = watch->wait_ns;
        access_strike(block, watch);
    }
    refund(block->vm->host->access, whole);
    *whole = all;
}

static bool check_watch(const struct access_watch *watch, const char **why)
{
    *why = "access: paid for a fault that is not to come";
    if (watch->prepaid_ns && (!watch->armed_ns || watch->seen_idle))
        return false;
    *why = "access: touched after it was armed, and armed still";
    return !watch->armed_ns || watch->last_ns <= watch->armed_ns;
}

bool access_check(const struct block *block, const char **why)
{
    const struct access_block *blocks = &block->access;
    struct s2_entry entry = pmd_read(block);
    if (!check_watch(&blocks->whole, why))
        return false;
    *why = "access: a 2 MiB frame is in the guest, and out for a sample";
    if (entry.state == S2_RESIDENT && blocks->whole.armed_ns && blocks->whole.sampled)
        return false;
    for (unsigned i = 0; i < access_panel_size(blocks); i++) {
        const struct access_watch *watch = &blocks->panel[i];
        if (!check_watch(watch, why))
            return false;
        *why = "access: a page is in the panel twice, or is none of the block";
        for (unsigned k = 0; k < i; k++)
            if (watch->used && blocks->panel[k].used && blocks->panel[k].index == watch->index)
                return false;
        if (watch->index >= BLOCK_PAGES)
            return false;
        *why = "access: a page is in the guest, and out for a sample";
        if (watch->used && watch->armed_ns && watch->sampled && entry.state == S2_TABLE &&
            pte_read(block, watch->index).state == S2_RESIDENT)
            return false;
    }
    return true;
}

/* ---- cost ---- */

static void note_cost(uint32_t *mean_ns, uint64_t ns)
{
    int64_t mean = __atomic_load_n(mean_ns, __ATOMIC_RELAXED);
    mean += ((int64_t)MIN_OF(ns, (uint64_t)UINT32_MAX) - mean) / COST_SHARE;
    __atomic_store_n(mean_ns, (uint32_t)mean, __ATOMIC_RELAXED);
}

void access_pay_fault(struct mm_host *host, enum access_kind kind, uint64_t ns)
{
    struct access *access = host->access;
    note_cost(&access->cost[kind].fault_ns, ns);
    __atomic_sub_fetch(&access->purse_ns, (int64_t)ns, __ATOMIC_RELAXED);
    counter_add(&access->sample_ns, (int64_t)ns);
}

void access_stat(struct mm_host *host, struct access_stat *out)
{
    struct access *access = host->access;
    const struct access_source *source = __atomic_load_n(&access->source, __ATOMIC_ACQUIRE);
    uint64_t now_ns = host->ops->clock_ns(host->ops_ctx);
    *out = (struct access_stat){
        .source = source ? source->name : "refault",
        .source_err = __atomic_load_n(&access->source_err, __ATOMIC_RELAXED),
        .quota_pct = __atomic_load_n(&access->quota_mpct, __ATOMIC_RELAXED) / 1000.0,
        .sample_ns = counter_read(&access->sample_ns),
        .nr_samples = counter_read(&access->nr_samples),
        .nr_hits = counter_read(&access->nr_hits),
        .nr_late_hits = counter_read(&access->nr_late_hits),
    };
    /* the last whole stretch and the one that has begun */
    uint64_t from_ns = counter_read(&access->last_stretch.start_ns),
             base_ns = counter_read(&access->last_stretch.sample_ns);
    if (from_ns && now_ns > from_ns)
        out->sample_cpu_pct =
            100.0 * (double)(out->sample_ns - MIN_OF(base_ns, out->sample_ns)) / (double)(now_ns - from_ns);
}
