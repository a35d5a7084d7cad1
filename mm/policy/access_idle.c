/* SPDX-License-Identifier: Apache-2.0 */
/* How long memory has been idle, and how large the working set is: one walk over a VM's blocks. */
#include "mm/policy/access_note.h"

#include <math.h>

#define NS_PER_S UINT64_C(1000000000)

const uint32_t access_windows_s[ACCESS_NR_WINDOWS] = {1, 10, 60, 300};

struct tally {
    struct mm_host *host;
    uint64_t now_ns, born_ns;
    double never, unwatched, idle[ACCESS_IDLE_STEPS + 1]; /* bytes; idle[0]: below a second, then from 2^(i-1) on */
    double set[ACCESS_NR_WINDOWS], variance[ACCESS_NR_WINDOWS], left[ACCESS_NR_WINDOWS];
};

/* What is known of no access, as of what was loaded before the guest ran, is as old as the VM. */
static uint64_t age_ns(const struct tally *tally, uint64_t last_ns)
{
    return tally->now_ns - MIN_OF(tally->now_ns, MAX_OF(last_ns, tally->born_ns));
}

static bool in_window(const struct tally *tally, uint64_t last_ns, unsigned window)
{
    return age_ns(tally, last_ns) < access_windows_s[window] * NS_PER_S;
}

/* Bytes that would be seen if they were touched, since @last_ns. */
static void add_idle(struct tally *tally, double bytes, uint64_t last_ns)
{
    uint64_t seconds = age_ns(tally, last_ns) / NS_PER_S;
    unsigned step = seconds ? 64u - (unsigned)__builtin_clzll(seconds) : 0;
    tally->idle[MIN_OF(step, ACCESS_IDLE_STEPS)] += bytes;
}

/* Bytes in the guest that stand for @watch. */
static void add_watched(struct tally *tally, double bytes, const struct access_watch *watch)
{
    if (access_is_unseen(watch))
        tally->unwatched += bytes;
    else
        add_idle(tally, bytes, access_last(watch, tally->now_ns));
}

/* Bytes in the guest of which all that is known is one time. */
static void add_whole(struct tally *tally, double bytes, const struct access_watch *watch)
{
    uint64_t last_ns = access_last(watch, tally->now_ns);
    add_watched(tally, bytes, watch);
    for (unsigned i = 0; i < ACCESS_NR_WINDOWS; i++)
        tally->set[i] += in_window(tally, last_ns, i) ? bytes : 0;
}

/*
 * @pages in the guest, for which the @nr of the panel stand. The variance is that of a draw without putting back; a panel
 * that agrees with itself is not believed wholly: half a page is added to either side.
 */
static void add_panel(struct tally *tally, const struct block *block, unsigned pages, unsigned nr)
{
    double bytes = (double)pages * (double)PAGE_BYTES, share = bytes / nr;
    unsigned hits[ACCESS_NR_WINDOWS] = {0};
    for (unsigned i = 0; i < access_panel_size(&block->access); i++) {
        const struct access_watch *watch = &block->access.panel[i];
        if (!watch->used)
            continue;
        uint64_t last_ns = access_last(watch, tally->now_ns);
        add_watched(tally, share, watch);
        for (unsigned w = 0; w < ACCESS_NR_WINDOWS; w++)
            hits[w] += in_window(tally, last_ns, w);
    }
    for (unsigned w = 0; w < ACCESS_NR_WINDOWS; w++) {
        double p = (hits[w] + 0.5) / (nr + 1.0);
        tally->set[w] += share * hits[w];
        tally->variance[w] += bytes * bytes * p * (1.0 - p) / nr * (1.0 - (double)nr / pages);
    }
}

/* When the epoch ended in which a page was stored: it was not touched after that. */
static uint64_t epoch_end_ns(const struct tally *tally, uint8_t stamp)
{
    const struct mm_lru *lru = &tally->host->lru;
    if (stamp == (__atomic_load_n(&lru->epoch, __ATOMIC_RELAXED) & S2_STAMP_MAX))
        return tally->now_ns;
    return counter_read(&lru->epoch_ns[(stamp + 1) & S2_STAMP_MAX]);
}

/*
 * A page that left was not touched since its block was taken from last, nor since the end of the epoch in which it was
 * stored. Whether it was touched shortly before, nobody knows.
 */
static void add_gone(struct tally *tally, const struct block *block, const struct s2_entry *entry)
{
    uint64_t since_ns = block->access.home_ns;
    if (entry->state == S2_ZRAM || entry->state == S2_SWAP)
        since_ns = MIN_OF(since_ns, epoch_end_ns(tally, entry->stamp));
    add_idle(tally, (double)PAGE_BYTES, since_ns);
    for (unsigned i = 0; i < ACCESS_NR_WINDOWS; i++)
        tally->left[i] += in_window(tally, since_ns, i) ? (double)PAGE_BYTES : 0;
}

static void add_table(struct tally *tally, struct block *block)
{
    unsigned in_panel, nr = access_check_panel(block, &in_panel), pages = block->nr_resident;
    for (unsigned i = 0; i < BLOCK_PAGES; i++) {
        struct s2_entry entry = pte_read(block, i);
        switch (entry.state) {
        case S2_RESIDENT:
            break;
        case S2_STANDBY:
            if (access_is_out(&entry))
                pages++;
            else
                add_gone(tally, block, &entry);
            break;
        case S2_ZRAM:
        case S2_SWAP:
        case S2_DISK:
        case S2_POISON:
            add_gone(tally, block, &entry);
            break;
        default:
            tally->never += (double)PAGE_BYTES;
        }
    }
    if (nr > 0)
        add_panel(tally, block, pages, nr);
    else
        add_whole(tally, (double)pages * (double)PAGE_BYTES, &block->access.whole);
}

static void add_block(struct tally *tally, struct block *block)
{
    switch (pmd_read(block).state) {
    case S2_TABLE:
        add_table(tally, block);
        break;
    case S2_RESIDENT:
    case S2_STANDBY:
        add_whole(tally, (double)BLOCK_BYTES, &block->access.whole);
        break;
    case S2_UNPLUGGED:
        break;
    default:
        tally->never += (double)BLOCK_BYTES;
    }
}

static uint64_t bytes_of(double bytes)
{
    return (uint64_t)(bytes + 0.5);
}

void access_idle(struct mm_vm *vm, struct access_idle *out)
{
    struct mm_host *host = vm->host;
    struct tally tally = {.host = host, .born_ns = vm->born_ns, .now_ns = host->ops->clock_ns(host->ops_ctx)};
    double all = 0;
    for (uint64_t i = 0, nr = access_nr_blocks(vm); i < nr; i++) {
        struct block *block = access_block_at(vm, i);
        lock_acquire(&block->lock);
        add_block(&tally, block);
        lock_release(&block->lock);
    }
    *out = (struct access_idle){.never_bytes = bytes_of(tally.never), .unwatched_bytes = bytes_of(tally.unwatched)};
    for (unsigned step = ACCESS_IDLE_STEPS; step > 0; step--) {
        all += tally.idle[step];
        out->idle_bytes[step - 1] = bytes_of(all);
    }
    out->memory_bytes = bytes_of(all + tally.idle[0] + tally.never + tally.unwatched);
    for (unsigned i = 0; i < ACCESS_NR_WINDOWS; i++) {
        out->working_set[i].bytes = bytes_of(tally.set[i]);
        out->working_set[i].variance = tally.variance[i];
        out->working_set[i].left_bytes = bytes_of(tally.left[i]);
    }
}

void access_idle_add(struct access_idle *into, const struct access_idle *from)
{
    into->memory_bytes += from->memory_bytes;
    into->never_bytes += from->never_bytes;
    into->unwatched_bytes += from->unwatched_bytes;
    for (unsigned i = 0; i < ACCESS_IDLE_STEPS; i++)
        into->idle_bytes[i] += from->idle_bytes[i];
    for (unsigned i = 0; i < ACCESS_NR_WINDOWS; i++) {
        into->working_set[i].bytes += from->working_set[i].bytes;
        into->working_set[i].variance += from->working_set[i].variance;
        into->working_set[i].left_bytes += from->working_set[i].left_bytes;
    }
}

uint64_t access_error_bytes(double variance)
{
    return bytes_of(2.0 * sqrt(variance > 0 ? variance : 0));
}
