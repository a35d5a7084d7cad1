/* SPDX-License-Identifier: Apache-2.0 */
/* The scanner: looks at blocks in turn, arms what is in the guest, as far as the quota goes. */
#include "mm/policy/access_note.h"
#include "mm/reclaim/evict.h"

#include <stdlib.h>

/* Chosen, unmeasured: a round is short, and hot memory is looked at once a second. */
#define ROUND_MS 100u
#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S UINT64_C(1000000000)
#define PASS_NS NS_PER_S
#define LOOKS_PER_ROUND 4096u
/* The purse holds what comes in so much time, and in that between two rounds. */
#define PURSE_NS UINT64_C(200000000)
/*
 * What a round takes beside its samples is at most such a part of the quota: else the next one comes later. But not for
 * ever, for one measurement may be bad.
 */
#define ROUND_SHARE 8u
#define LONGEST_WAIT_NS (60 * NS_PER_S)
/* What sample_cpu_pct looks at: one to two of these. */
#define STRETCH_NS UINT64_C(5000000000)
/* Looks after which one page of a panel gives way to another, so that the panel is a fair one in the long run. */
#define LOOKS_PER_DRAW 32u

struct scan {
    struct mm_thread *thread;
    struct mm_host *host;
    struct access *access;
    uint64_t begin_ns;
    uint64_t begin_cpu_ns; /* of the round, as the next two: CPU time of this thread */
    uint64_t look_cpu_ns;  /* when it was asked last whether a look can be paid */
    uint64_t arm_ns;       /* for samples, in this round */
    unsigned nr_looks;
};

static uint64_t clock_ns(const struct scan *scan)
{
    return scan->host->ops->clock_ns(scan->host->ops_ctx);
}

static uint64_t cpu_ns(const struct scan *scan)
{
    return scan->host->ops->cpu_ns(scan->host->ops_ctx);
}

static uint32_t random_below(struct access *access, uint32_t below)
{
    uint64_t x = access->random;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    access->random = x;
    return (uint32_t)((x >> 32) % below);
}

/* ---- the quota ---- */

static uint64_t purse_time_ns(const struct access *access)
{
    return MAX_OF(PURSE_NS, access->wait_ns);
}

static int64_t purse_most(const struct access *access)
{
    uint32_t quota_mpct = __atomic_load_n(&access->quota_mpct, __ATOMIC_RELAXED);
    return (int64_t)(purse_time_ns(access) * quota_mpct / ACCESS_QUOTA_MAX_MPCT);
}

static void fill_purse(struct access *access, uint64_t now_ns)
{
    uint32_t quota_mpct = __atomic_load_n(&access->quota_mpct, __ATOMIC_RELAXED);
    uint64_t passed_ns = MIN_OF(now_ns - access->filled_ns, purse_time_ns(access));
    int64_t in = (int64_t)(passed_ns * quota_mpct / ACCESS_QUOTA_MAX_MPCT);
    int64_t most = purse_most(access);
    int64_t purse = __atomic_add_fetch(&access->purse_ns, in, __ATOMIC_RELAXED);
    access->filled_ns = now_ns;
    if (purse > most)
        __atomic_sub_fetch(&access->purse_ns, purse - most, __ATOMIC_RELAXED);
}

/*
 * Whether @nr more of @kind may be armed, if each of them is touched. The round so far is not paid for yet. A full purse
 * is enough for whatever they were thought to cost: or one bad measurement would be the last one.
 */
static bool can_pay(struct scan *scan, enum access_kind kind, unsigned nr)
{
    const struct access_cost *cost = &scan->access->cost[kind];
    int64_t one = (int64_t)__atomic_load_n(&cost->arm_ns, __ATOMIC_RELAXED) +
                  (int64_t)__atomic_load_n(&cost->fault_ns, __ATOMIC_RELAXED);
    int64_t purse = __atomic_load_n(&scan->access->purse_ns, __ATOMIC_RELAXED);
    scan->look_cpu_ns = cpu_ns(scan);
    purse -= (int64_t)(scan->look_cpu_ns - scan->begin_cpu_ns);
    return purse >= MIN_OF(one * (int64_t)nr, purse_most(scan->access) / 8 * 7);
}

/* @nr were armed since can_pay. */
static void note_arming(struct scan *scan, enum access_kind kind, unsigned nr)
{
    uint32_t *mean_ns = &scan->access->cost[kind].arm_ns;
    uint64_t ns = cpu_ns(scan) - scan->look_cpu_ns;
    scan->arm_ns += ns;
    int64_t mean = *mean_ns, one = (int64_t)(ns / nr);
    __atomic_store_n(mean_ns, (uint32_t)(mean + (one - mean) / 8), __ATOMIC_RELAXED);
    counter_add(&scan->access->nr_samples, nr);
}

static void prepay(const struct scan *scan, enum access_kind kind, struct access_watch *watch)
{
    watch->prepaid_ns = __atomic_load_n(&scan->access->cost[kind].fault_ns, __ATOMIC_RELAXED);
    __atomic_sub_fetch(&scan->access->purse_ns, (int64_t)watch->prepaid_ns, __ATOMIC_RELAXED);
}

/* It is out. Armed by the last look, and not touched: its fault is not to be expected. Or somebody else took it home. */
static void see_out(const struct scan *scan, struct access_watch *watch)
{
    if (!watch->armed_ns)
        access_arm(watch, scan->begin_ns, false);
    if (watch->seen_idle)
        return;
    watch->seen_idle = true;
    __atomic_add_fetch(&scan->access->purse_ns, (int64_t)watch->prepaid_ns, __ATOMIC_RELAXED);
    watch->prepaid_ns = 0;
}

/* ---- looks; block.lock is held; false: the purse is empty, the block comes next time ---- */

static bool look_huge(struct scan *scan, struct block *block)
{
    /* no room for the fault that gives it back, and for others beside it */
    if (!lru_has_room(block, WMARK_HIGH, 0))
        return true;
    if (!can_pay(scan, ACCESS_HUGE, 1))
        return false;
    uint64_t now_ns = clock_ns(scan);
    if (lru_arm_block(scan->thread, block, (nodemask_t)-1) != BLOCK_PAGES)
        return true;
    access_arm(&block->access.whole, now_ns, true);
    prepay(scan, ACCESS_HUGE, &block->access.whole);
    note_arming(scan, ACCESS_HUGE, 1);
    return true;
}

static bool in_panel(const struct block *block, unsigned index)
{
    for (unsigned i = 0; i < access_panel_size(&block->access); i++)
        if (block->access.panel[i].used && block->access.panel[i].index == index)
            return true;
    return false;
}

/*
 * The last access to think of for a page that is drawn now: that of a page of the panel that is idle, if there is one. If
 * it is a hot page, that shows soon.
 */
static uint64_t drawn_last(struct access *access, const struct block *block)
{
    unsigned from = random_below(access, ACCESS_PANEL);
    for (unsigned i = 0; i < access_panel_size(&block->access); i++) {
        const struct access_watch *watch = &block->access.panel[(from + i) % ACCESS_PANEL];
        if (watch->used && watch->armed_ns && watch->seen_idle)
            return watch->last_ns;
    }
    return block->access.whole.last_ns;
}

/* Pages by lot for the empty places of the panel, from those in the guest that are not in it: each is as likely. */
static void draw_panel(struct access *access, struct block *block, unsigned nr)
{
    unsigned want = ACCESS_PANEL - nr, seen = 0;
    uint16_t drawn[ACCESS_PANEL];
    for (unsigned i = 0; i < BLOCK_PAGES; i++) {
        if (pte_read(block, i).state != S2_RESIDENT || in_panel(block, i))
            continue;
        unsigned place = seen < want ? seen : random_below(access, seen + 1);
        if (place < want)
            drawn[place] = (uint16_t)i;
        seen++;
    }
    want = MIN_OF(want, seen);
    uint64_t last_ns = drawn_last(access, block);
    for (unsigned i = 0; want > 0; i++) {
        struct access_watch *watch = &block->access.panel[i];
        if (!watch->used)
            *watch = (struct access_watch){.used = true, .index = drawn[--want], .last_ns = last_ns};
    }
}

/* Most blocks of most VMs are 2 MiB frames, or were never touched: they have none. False: there is no memory for one. */
static bool make_panel(struct block *block)
{
    if (block->access.panel)
        return true;
    block->access.panel = calloc(ACCESS_PANEL, sizeof(*block->access.panel));
    if (block->access.panel)
        counter_add(&block->vm->host->access_bytes, ACCESS_PANEL * sizeof(*block->access.panel));
    return block->access.panel;
}

void access_renew_panel(struct access *access, struct block *block)
{
    struct access_block *blocks = &block->access;
    if (!make_panel(block))
        return;
    unsigned out, nr = access_check_panel(block, &out), all = block->nr_resident + out;
    unsigned turn = blocks->nr_looks / LOOKS_PER_DRAW % ACCESS_PANEL;
    if (all > 2u * blocks->drawn_of) {
        for (unsigned i = 0; i < access_panel_size(blocks); i++)
            access_strike(block, &blocks->panel[i]);
        nr = 0;
        blocks->drawn_of = (uint16_t)all;
    } else if (++blocks->nr_looks % LOOKS_PER_DRAW == 0 && nr == ACCESS_PANEL) {
        access_strike(block, &blocks->panel[turn]);
        nr--;
    }
    if (nr < ACCESS_PANEL && all > nr)
        draw_panel(access, block, nr);
}

static bool look_panel(struct scan *scan, struct block *block)
{
    struct page_map map = {0};
    unsigned nr = 0;
    access_renew_panel(scan->access, block);
    for (unsigned i = 0; i < access_panel_size(&block->access); i++) {
        struct access_watch *watch = &block->access.panel[i];
        if (!watch->used)
            continue;
        struct s2_entry entry = pte_read(block, watch->index);
        if (access_is_out(&entry)) {
            see_out(scan, watch);
        } else {
            map_set(&map, watch->index);
            nr++;
        }
    }
    if (nr == 0 || !lru_has_room(block, WMARK_LOW, nr))
        return true;
    if (!can_pay(scan, ACCESS_PAGE, nr))
        return false;
    uint64_t now_ns = clock_ns(scan);
    uint32_t taken = lru_arm_pages(scan->thread, block, &map);
    if (taken == 0)
        return true;
    for (unsigned i = 0; i < access_panel_size(&block->access); i++) {
        struct access_watch *watch = &block->access.panel[i];
        if (!watch->used || !map_test(&map, watch->index))
            continue;
        access_arm(watch, now_ns, true);
        prepay(scan, ACCESS_PAGE, watch);
    }
    note_arming(scan, ACCESS_PAGE, taken);
    return true;
}

static bool look(struct scan *scan, struct block *block)
{
    struct access_watch *whole = &block->access.whole;
    bool done = true;
    /* somebody is at it: a fault may take its time, which would count as a look's */
    if (!lock_try(&block->lock))
        return true;
    uint8_t state = pmd_read(block).state;
    if (block->nr_pins || block->closing)
        done = true;
    else if (state == S2_RESIDENT)
        done = look_huge(scan, block);
    else if (state == S2_TABLE)
        done = look_panel(scan, block);
    else if (state == S2_STANDBY && block->armed)
        see_out(scan, whole);
    lock_release(&block->lock);
    return done;
}

/* ---- passes ---- */

/* The first VM from number @from on, held; NULL: there is none. */
static struct mm_vm *hold_vm(struct mm_host *host, unsigned from)
{
    struct mm_vm *vm = NULL;
    lock_acquire(&host->lru.lock);
    for (unsigned id = MAX_OF(from, 1u); id < MM_MAX_VMS && !vm; id++)
        vm = host->vms[id];
    if (vm)
        vm_get(vm);
    lock_release(&host->lru.lock);
    return vm;
}

/* On from where the pass is. True: to the end of the VM. */
static bool scan_vm(struct scan *scan, const struct mm_vm *vm)
{
    struct access *access = scan->access;
    uint64_t nr = access_nr_blocks(vm);
    for (; access->block < nr; access->block++)
        if (++scan->nr_looks > LOOKS_PER_ROUND || !look(scan, access_block_at(vm, access->block)))
            return false;
    return true;
}

static void scan_blocks(struct scan *scan)
{
    struct access *access = scan->access;
    if (access->vm == 0 && access->pass_ns && scan->begin_ns - access->pass_ns < PASS_NS)
        return;
    if (access->vm == 0) {
        access->pass_ns = scan->begin_ns;
        access->vm = 1;
        access->block = 0;
    }
    for (struct mm_vm *vm; (vm = hold_vm(scan->host, access->vm));) {
        if (vm->id != access->vm)
            access->block = 0;
        access->vm = vm->id;
        bool all = scan_vm(scan, vm);
        vm_put(vm);
        if (!all)
            return;
        access->vm++;
        access->block = 0;
    }
    access->vm = 0;
}

static void note_histories(const struct scan *scan)
{
    unsigned from = 1;
    for (struct mm_vm *vm; (vm = hold_vm(scan->host, from));) {
        access_history_note(vm, scan->begin_ns);
        from = vm->id + 1u;
        vm_put(vm);
    }
}

/* ---- a source ---- */

/* The part [first, end) of a block, and all of it while it is one frame. block.lock is held. */
static void hear_block(const struct scan *scan, struct block *block, unsigned first, unsigned end, bool touched)
{
    struct access_watch *whole = &block->access.whole;
    uint8_t state = pmd_read(block).state;
    if (state == S2_RESIDENT && (touched || (end - first == BLOCK_PAGES && !whole->armed_ns))) {
        if (touched)
            access_touch(whole, scan->begin_ns);
        access_arm(whole, scan->begin_ns, false);
    }
    if (state != S2_TABLE)
        return;
    if (touched)
        whole->last_ns = scan->begin_ns;
    for (unsigned i = 0; i < access_panel_size(&block->access); i++) {
        struct access_watch *watch = &block->access.panel[i];
        if (!watch->used || watch->index < first || watch->index >= end ||
            pte_read(block, watch->index).state != S2_RESIDENT)
            continue;
        if (touched)
            access_touch(watch, scan->begin_ns);
        if (!watch->armed_ns)
            access_arm(watch, scan->begin_ns, false);
    }
}

static void hear(void *ctx, vmid_t id, gfn_t gfn, uint32_t nr, bool touched)
{
    struct scan *scan = ctx;
    struct mm_vm *vm = hold_vm(scan->host, id);
    gfn_t end = gfn + nr;
    while (vm && vm->id == id && gfn < end) {
        struct block *block = vm_block(vm, gfn);
        if (!block)
            break;
        gfn_t stop = MIN_OF(end, block->start + BLOCK_PAGES);
        lock_acquire(&block->lock);
        hear_block(scan, block, gfn - block->start, stop - block->start, touched);
        lock_release(&block->lock);
        gfn = stop;
    }
    if (vm)
        vm_put(vm);
}

/* Panels for what the source is going to say. */
static void renew_panels(struct scan *scan)
{
    unsigned from = 1;
    for (struct mm_vm *vm; (vm = hold_vm(scan->host, from));) {
        for (uint64_t i = 0, nr = access_nr_blocks(vm); i < nr; i++) {
            struct block *block = access_block_at(vm, i);
            lock_acquire(&block->lock);
            if (pmd_read(block).state == S2_TABLE)
                access_renew_panel(scan->access, block);
            lock_release(&block->lock);
        }
        from = vm->id + 1u;
        vm_put(vm);
    }
}

static void ask_source(struct scan *scan, const struct access_source *source)
{
    struct access *access = scan->access;
    if (access->polled_ns && scan->begin_ns - access->polled_ns < source->period_ms * UINT64_C(1000000))
        return;
    access->polled_ns = scan->begin_ns;
    renew_panels(scan);
    int err = source->poll(source->ctx, hear, scan);
    if (!err)
        return;
    __atomic_store_n(&access->source_err, err, __ATOMIC_RELAXED);
    __atomic_store_n(&access->source, NULL, __ATOMIC_RELAXED);
}

/* ---- a round ---- */

static void note_stretch(struct access *access, uint64_t now_ns)
{
    if (now_ns - access->stretch.start_ns < STRETCH_NS)
        return;
    uint64_t sample_ns = counter_read(&access->sample_ns);
    __atomic_store_n(&access->last_stretch.sample_ns, access->stretch.sample_ns, __ATOMIC_RELAXED);
    __atomic_store_n(&access->last_stretch.start_ns, access->stretch.start_ns, __ATOMIC_RELAXED);
    access->stretch = (struct access_stretch){.start_ns = now_ns, .sample_ns = sample_ns};
}

/* From the begin of a round that took @ns beside its samples to the next one. */
static uint64_t wait_ns(const struct access *access, uint64_t ns)
{
    uint32_t quota_mpct = __atomic_load_n(&access->quota_mpct, __ATOMIC_RELAXED);
    uint64_t paid_ns = quota_mpct ? ns * ROUND_SHARE * ACCESS_QUOTA_MAX_MPCT / quota_mpct : 0;
    return MIN_OF(MAX_OF(paid_ns, ROUND_MS * NS_PER_MS), LONGEST_WAIT_NS);
}

static void do_round(struct scan *scan, const struct access_source *source)
{
    struct access *access = scan->access;
    scan->begin_cpu_ns = cpu_ns(scan);
    fill_purse(access, scan->begin_ns);
    if (source)
        ask_source(scan, source);
    else if (!evict_nr_thrashing(scan->host) && __atomic_load_n(&access->quota_mpct, __ATOMIC_RELAXED))
        scan_blocks(scan);
    uint64_t spent_ns = cpu_ns(scan) - scan->begin_cpu_ns;
    __atomic_sub_fetch(&access->purse_ns, (int64_t)spent_ns, __ATOMIC_RELAXED);
    counter_add(&access->sample_ns, (int64_t)spent_ns);
    note_stretch(access, clock_ns(scan));
    access->wait_ns = wait_ns(access, spent_ns - scan->arm_ns);
}

unsigned access_scan(struct mm_thread *thread)
{
    struct mm_host *host = thread->host;
    struct access *access = host->access;
    struct scan scan = {.thread = thread, .host = host, .access = access};
    scan.begin_ns = clock_ns(&scan);
    if (!access->start_ns) {
        access->start_ns = access->filled_ns = scan.begin_ns;
        access->stretch.start_ns = scan.begin_ns;
        __atomic_store_n(&access->last_stretch.start_ns, scan.begin_ns, __ATOMIC_RELAXED);
    }
    const struct access_source *source = __atomic_load_n(&access->source, __ATOMIC_ACQUIRE);
    if (source || scan.begin_ns - access->filled_ns >= access->wait_ns)
        do_round(&scan, source);
    note_histories(&scan);
    uint64_t left_ns = access->filled_ns + access->wait_ns - scan.begin_ns;
    /* not later: a column of a heat map may be due */
    return (unsigned)MIN_OF(left_ns / NS_PER_MS + 1, (uint64_t)ROUND_MS);
}
