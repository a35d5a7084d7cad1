/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mm_fault: the one way in. By the state of the page:
 *
 *   absent    first touch: a zeroed 2 MiB frame where the pool can afford it, else a few zeroed pages around
 *   fill      the same, filled with the word that the guest wanted
 *   balloon   this page alone leaves the balloon, zeroed or filled
 *   standby   the page goes back (2 MiB: whole when the pool has room and it is not on trial, else in single pages)
 *   zram      decompressed,
 *   swap      read; either with the pages after it, wherever they are, when the faults are a sequence
 *   resident  somebody was faster
 *   unplugged refused
 *
 * What a fault may need is charged before the block is locked; under the lock nothing waits for memory.
 */
#include "mm/fault_parts.h"
#include "mm/policy/access.h"
#include "mm/policy/access_note.h"
#include "mm/policy/numa.h"
#include "mm/policy/page_size.h"

#include <errno.h>

/* The page was taken home to be seen to come back: who did so pays for the CPU time from here on. */
static void measure_from_here(struct fault *f)
{
    if (!f->cpu_ns)
        f->cpu_ns = f->host->ops->cpu_ns(f->host->ops_ctx);
}

/* A sampled page that came along with one that was not is measured by the clock: it is a small part of that fault. */
static uint64_t paid_ns(const struct fault *f, uint64_t end_ns)
{
    uint64_t ns = f->cpu_ns ? f->host->ops->cpu_ns(f->host->ops_ctx) - f->cpu_ns : end_ns - f->locked_ns;
    return fault_cost_ns(f->host, f->huge, ns);
}

static int fault_locked(struct fault *f, unsigned flags)
{
    struct s2_entry entry = pmd_read(f->block);
    if (entry.state == S2_STANDBY) {
        if (f->block->armed)
            measure_from_here(f);
        const struct pool *pool = pool_of(f->host, (fn_t)entry.payload);
        bool in_pages = fault_goes_in_pages(f, &entry);
        /* on trial all of it was hot: short of pages or not, none of it would stay out */
        bool room = pool_nr_free(pool) >= pool->wmark[WMARK_HIGH] || f->block->nr_acquittals;
        if (!in_pages && (f->block->armed || (room && !split_is_due(f->host, f->block))))
            return fault_refault_huge(f, entry);
        lru_split_standby(f->host, f->block, (fn_t)entry.payload, in_pages ? STANDBY_ARMED : STANDBY_YOUNG);
        entry.state = S2_TABLE;
    }
    if (entry.state == S2_TABLE)
        entry = pte_read(f->block, f->index);
    if (entry.state == S2_STANDBY && standby_is_armed(entry.payload))
        measure_from_here(f);
    f->again = f->in_place && entry.state != S2_STANDBY && entry.state != S2_RESIDENT;
    if (f->again)
        return 0;
    switch (entry.state) {
    case S2_ABSENT:
    case S2_FILL:
    case S2_BALLOON:
        return fault_zero(f, entry);
    case S2_UNPLUGGED:
        return -EFAULT;
    case S2_STANDBY:
        return fault_come_back(f, entry);
    case S2_ZRAM:
    case S2_SWAP:
        f->major = true;
        return fault_come_back(f, entry);
    case S2_RESIDENT:
        if (!(flags & MM_FAULT_WP))
            event_add(f->host, EV_pgfault_spurious, 1);
        f->host->ops->wake(f->host->ops_ctx, f->block->vm->id, f->gfn, 1);
        return 0;
    default:
        return -EIO;
    }
}

static bool is_resident(const struct fault *f)
{
    uint8_t state = pmd_read(f->block).state;
    return state == S2_RESIDENT || (state == S2_TABLE && pte_read(f->block, f->index).state == S2_RESIDENT);
}

/* For those of whom it is not known where they run. Mostly it is the same one, and the cache line stays clean. */
static void note_toucher(struct mm_vm *vm, const struct wish *wish)
{
    if (wish->knows_toucher && __atomic_load_n(&vm->toucher, __ATOMIC_RELAXED) != wish->toucher)
        __atomic_store_n(&vm->toucher, (uint8_t)wish->toucher, __ATOMIC_RELAXED);
}

/*
 * A page that is at home on some node stays on it, unless there is no room there or it belongs elsewhere; policies are
 * for pages that come anew.
 */
static void find_home(struct fault *f)
{
    struct block *block = f->block;
    if (f->host->nr_nodes == 1)
        return;
    note_toucher(block->vm, &f->wish);
    lock_acquire(&block->lock);
    struct s2_entry entry = pmd_read(block);
    bool huge = entry.state != S2_TABLE;
    if (!huge)
        entry = pte_read(block, f->index);
    f->home = entry.state == S2_STANDBY;
    if (f->home)
        f->wish.node = node_of(f->host, (fn_t)entry.payload);
    f->target = f->wish.node;
    f->hinted = f->home && f->host->numa && (huge ? block->armed : standby_is_armed(entry.payload));
    if (f->hinted)
        measure_from_here(f);
    if (f->home && f->host->numa)
        f->target = numa_choose(f->host,
                                &(struct numa_touch){
                                    .block = block,
                                    .home = f->wish.node,
                                    .fn = (fn_t)entry.payload,
                                    .note = huge ? block->note : note_of(&entry),
                                    .sampled_ns = huge ? 0 : access_sampled_ns(block, f->index, &entry),
                                    .armed = f->hinted,
                                    .huge = huge,
                                    .wish = &f->wish,
                                    .vcpu = f->vcpu,
                                    .now_ns = f->start_ns,
                                },
                                &f->heat);
    lock_release(&block->lock);
    if (f->vcpu)
        __atomic_store_n(&block->vm->touches[f->vcpu - 1].node, (uint8_t)f->wish.toucher, __ATOMIC_RELAXED);
}

/* What the fault may need is charged. A page at home needs no memory to go back, and so does not leave a node that is short. */
static int charge(struct fault *f)
{
    struct wish *wish = &f->wish;
    bool home = f->home && wish->allowed >> wish->node & 1 && !f->again;
    int err = 0;
    f->again = false;
    f->node = wish->node;
    f->in_place = home && !thread_charge_above(f->thread, f->node, WMARK_MIN) && !f->thread->charged[f->node];
    if (!home)
        err = thread_charge(f->thread, wish->node, wish->allowed, &f->node);
    if (f->target != wish->node && !err) {
        f->moves = thread_charge_above(f->thread, f->target, WMARK_LOW);
        if (!f->moves)
            numa_moved(f->host, f->block, wish->node, f->target, 0);
    }
    return err;
}

int fault_page(struct mm_thread *thread, struct block *block, gfn_t gfn, unsigned flags)
{
    struct mm_host *host = thread->host;
    struct mm_vm *vm = block->vm;
    struct fault f = {.thread = thread, .host = host, .block = block, .gfn = gfn, .index = gfn & (BLOCK_PAGES - 1)};
    f.start_ns = host->ops->clock_ns(host->ops_ctx);
    f.vcpu = MIN_OF(flags >> 20, NOTE_MAX_VCPUS + 1) % (NOTE_MAX_VCPUS + 1);
    place_wish(block->vm, gfn, flags, &f.wish);
    find_home(&f);
    bool there = false;
    int err;
    do {
        err = charge(&f);
        if (err)
            return err;
        lock_acquire(&block->lock);
        f.locked_ns = host->ops->clock_ns(host->ops_ctx);
        there = flags & FAULT_UNLESS_RESIDENT && is_resident(&f);
        if (!there)
            err = fault_locked(&f, flags);
        lock_release(&block->lock);
    } while (f.again);
    thread_keep_share(thread);
    if (there)
        return 0;
    event_add(host, EV_pgfault, 1);
    if (f.major)
        event_add(host, EV_pgmajfault, 1);
    uint64_t end_ns = host->ops->clock_ns(host->ops_ctx);
    hist_add(f.major ? &vm->major : &vm->minor, end_ns - f.start_ns);
    if (f.hinted && !f.sampled)
        numa_pay(host, paid_ns(&f, end_ns));
    if (f.sampled)
        access_pay_fault(host, f.huge ? ACCESS_HUGE : ACCESS_PAGE, paid_ns(&f, end_ns));
    return err;
}

int mm_fault(struct mm_thread *thread, struct mm_vm *vm, gpa_t gpa, unsigned flags)
{
    struct block *block = vm_block(vm, gfn_of(gpa));
    return block ? fault_page(thread, block, gfn_of(gpa), flags & ~FAULT_UNLESS_RESIDENT) : -EFAULT;
}
