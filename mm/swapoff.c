/* SPDX-License-Identifier: Apache-2.0 */
/*
 * swapoff: every page that an area holds comes back, block by block, into zram, another area or a standby frame.
 * An area that cannot be emptied stays in use; what came back until then is at home and can go out again.
 */
#include "mm/reclaim/evict.h"
#include "mm/reclaim/place.h"

#include <errno.h>
#include <string.h>
#include <time.h>

/* Pages read before the block's lock is let go. */
#define SWAPOFF_BATCH 32u
/* Evictions that had a slot when the area was disabled commit when their write is done: passes of a millisecond each. */
#define SWAPOFF_PASSES 5000u

struct swapoff {
    struct mm_thread *thread;
    struct mm_host *host;
    const char *name;
    int area;
};

static int fits(struct swapoff *s)
{
    struct swap_area_stat stat[MAX_SWAP_AREAS];
    struct zram_stat zram = {0};
    unsigned nr = swap_stat(s->host->swap, stat, MAX_SWAP_AREAS);
    uint64_t need = 0, room = host_nr_free(s->host) * PAGE_BYTES;
    if (s->host->zram)
        zram_stat(s->host->zram, &zram);
    for (unsigned i = 0; i < nr; i++)
        if (!strcmp(stat[i].name, s->name))
            need = stat[i].used_bytes;
        else if (stat[i].enabled)
            room += stat[i].size_bytes - stat[i].used_bytes;
    /* what is in zram compresses; taking the store's room as raw bytes refuses only what is doubtful */
    if (zram.mem_limit_bytes > zram.mem_used_bytes)
        room += 2 * (zram.mem_limit_bytes - zram.mem_used_bytes);
    return need <= room ? 0 : -ENOMEM;
}

/* Frames for @nr pages, or as many as faults and reclaim do not need. */
static unsigned alloc_frames(struct pool *pool, fn_t fn[], void *pages[], unsigned nr)
{
    unsigned got = 0;
    while (got < nr && pool_nr_free(pool) > pool->wmark[WMARK_LOW] &&
           !pool_alloc_filled(pool, 0, MIGRATE_MOVABLE, true, &fn[got])) {
        pages[got] = pool_page(pool, fn[got]);
        got++;
    }
    return got;
}

/* Pages [index, index + nr), in neighbouring slots from @first, become standby. Caller holds block.lock. */
static int bring_back(struct swapoff *s, struct block *block, unsigned index, struct swap_ref first, unsigned nr)
{
    struct mm_host *host = s->host;
    fn_t fn[SWAPOFF_BATCH];
    void *pages[SWAPOFF_BATCH];
    int error[SWAPOFF_BATCH], bad = 0;
    struct pool *pool = &host->node[place_roomiest(block->vm, block->start + index)].pool;
    unsigned got = alloc_frames(pool, fn, pages, nr);
    if (!got)
        return -ENOMEM;
    if (swap_read(host->swap, first, pages, got, error))
        event_add(host, EV_swap_read_error, 1);
    for (unsigned i = 0; i < got; i++) {
        struct page_map map = {0};
        if (error[i]) {
            pool_free_filled(pool, fn[i], 1);
            bad = -EIO;
            continue;
        }
        map_set(&map, index + i);
        lru_enter_standby(host, block, &map, index + i, fn[i], 1, STANDBY_YOUNG);
        swap_free(host->swap, (struct swap_ref){.area = first.area, .slot = first.slot + i});
        event_add(host, EV_pswpin, 1);
    }
    return bad ? bad : got < nr ? -ENOMEM : 0;
}

/* Pages from @index on that the area holds in neighbouring slots. */
static unsigned run_length(const struct swapoff *s, const struct block *block, unsigned index, struct swap_ref *first)
{
    unsigned nr = 0;
    for (; nr < SWAPOFF_BATCH && index + nr < BLOCK_PAGES; nr++) {
        struct s2_entry entry = pte_read(block, index + nr);
        struct swap_ref ref = swap_ref_unpack(entry.payload);
        if (entry.state != S2_SWAP || ref.area != s->area || (nr > 0 && ref.slot != first->slot + nr))
            break;
        if (nr == 0)
            *first = ref;
    }
    return nr;
}

/* One run of the block from *index on. 1: there may be more. */
static int empty_some_locked(struct swapoff *s, struct block *block, unsigned *index)
{
    if (pmd_read(block).state != S2_TABLE)
        return 0;
    for (; *index < BLOCK_PAGES; (*index)++) {
        struct swap_ref first;
        unsigned nr = run_length(s, block, *index, &first);
        if (!nr)
            continue;
        int err = bring_back(s, block, *index, first, nr);
        return err ? err : 1;
    }
    return 0;
}

/* Pages of the node that has most for this block go on into zram or another area. Returns how many. */
static uint32_t make_room(struct swapoff *s, const struct block *block, bool force)
{
    unsigned node = place_roomiest(block->vm, block->start);
    return reclaim_round(s->thread, node, 2 * SWAPOFF_BATCH, force, RECLAIM_DIRECT);
}

static int empty_block(struct swapoff *s, struct block *block)
{
    int more = 1, dry = 0;
    unsigned index = 0;
    while (more > 0) {
        lock_acquire(&block->lock);
        more = empty_some_locked(s, block, &index);
        lock_release(&block->lock);
        if (__atomic_load_n(&s->host->swapoff_yield, __ATOMIC_RELAXED))
            return -ENOMEM;
        if (__atomic_load_n(&s->host->work_stopped, __ATOMIC_RELAXED))
            return -ECANCELED;
        if (more == -ENOMEM && dry < 8) {
            /* without the lock */
            dry = make_room(s, block, dry > 4) ? 0 : dry + 1;
            more = 1;
        }
    }
    return more;
}

static int empty_area(struct swapoff *s)
{
    int err = 0;
    struct mm_vm *vm;
    for (unsigned id = 1; !err && (vm = vm_hold_from(s->host, &id)); id++) {
        for (unsigned r = 0; r < vm->nr_regions; r++)
            for (uint64_t i = 0; i < vm->regions[r].bytes >> BLOCK_SHIFT && !err; i++)
                err = empty_block(s, &vm->blocks[r][i]);
        vm_put(vm);
    }
    return err;
}

/* Passes until the area is empty and gone: evictions that had slots when it was disabled may fill them yet. */
static int empty_and_remove(struct swapoff *s)
{
    for (unsigned pass = 0; pass < SWAPOFF_PASSES; pass++) {
        int err = empty_area(s);
        if (!err)
            err = swap_area_remove(s->host->swap, s->area);
        if (err != -EBUSY)
            return err;
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    return -EBUSY;
}

int mm_swapoff(struct mm_thread *thread, const char *name)
{
    struct mm_host *host = thread->host;
    struct swapoff s = {.thread = thread, .host = host, .name = name, .area = swap_area_find(host->swap, name)};
    if (s.area < 0)
        return s.area;
    int err = fits(&s);
    if (err)
        return err;
    if (__atomic_add_fetch(&host->nr_swapoffs, 1, __ATOMIC_RELAXED) == 1)
        __atomic_store_n(&host->swapoff_yield, false, __ATOMIC_RELAXED);
    swap_area_enable(host->swap, s.area, false);
    err = empty_and_remove(&s);
    if (err)
        swap_area_enable(host->swap, s.area, true);
    __atomic_sub_fetch(&host->nr_swapoffs, 1, __ATOMIC_RELAXED);
    return err;
}

void mm_stop_work(struct mm_host *host)
{
    __atomic_store_n(&host->work_stopped, true, __ATOMIC_RELAXED);
}
