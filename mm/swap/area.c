/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The set of swap areas. The slot map is in slots.c, the header in header.c.
 *
 *   order[]  the areas in falling priority; one that has served goes behind its equals
 *
 * An area is freed by its last reference: the set has one until swap_area_remove, a discard under way has one. Reading
 * and writing need none, since their caller has a use of the slots and an area with a slot in use is not removed.
 */
#include "mm/swap/area.h"
#include "mm/base/lock.h"
#include "mm/swap/slots.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Checksums are inlined, as the header offers. */
#define XXH_INLINE_ALL
#include <xxhash.h>

/* How long a thread sleeps for a discard to end. Chosen, unmeasured. */
#define WAIT_NS 50000

struct swap_area {
    char name[SWAP_NAME_BYTES];
    const char *kind;
    int priority;
    const struct swap_backend *backend;
    void *ctx;
    uint64_t nr_reads, nr_writes, nr_read_errors, nr_write_errors; /* relaxed atomics */
    bool refuses; /* relaxed atomic: no page of the last write went through. Others are asked first */
    /* guarded by swap_set.lock, but slots.sum */
    bool enabled;
    unsigned nr_refs;
    struct slot_map slots;
};

struct swap_set {
    struct mm_lock lock; /* LOCK_SWAP */
    /* guarded by lock; an entry that the caller has a slot of is stable */
    struct swap_area *area[MAX_SWAP_AREAS];
    unsigned nr_order;
    uint8_t order[MAX_SWAP_AREAS];
};

/* --- areas ------------------------------------------------------------------------------------ */

int swap_set_create(struct swap_set **out)
{
    struct swap_set *set = calloc(1, sizeof(*set));
    if (!set)
        return -ENOMEM;
    lock_init(&set->lock, LOCK_SWAP);
    *out = set;
    return 0;
}

static void area_close(struct swap_area *area)
{
    area->backend->close(area->ctx);
    slots_fini(&area->slots);
    free(area);
}

void swap_set_destroy(struct swap_set *set)
{
    if (!set)
        return;
    for (unsigned i = 0; i < set->nr_order; i++)
        area_close(set->area[set->order[i]]);
    lock_fini(&set->lock);
    free(set);
}

static int find_locked(const struct swap_set *set, const char *name)
{
    for (int i = 0; i < MAX_SWAP_AREAS; i++)
        if (set->area[i] && strcmp(set->area[i]->name, name) == 0)
            return i;
    return -ENOENT;
}

static int free_number_locked(const struct swap_set *set)
{
    for (int i = 0; i < MAX_SWAP_AREAS; i++)
        if (!set->area[i])
            return i;
    return -ENOSPC;
}

static int lowest_priority_locked(const struct swap_set *set)
{
    int lowest = -1;
    for (unsigned i = 0; i < set->nr_order; i++)
        lowest = MIN_OF(lowest, set->area[set->order[i]]->priority);
    return lowest;
}

/* Behind every area of the same or a higher priority. */
static void order_insert_locked(struct swap_set *set, uint8_t number)
{
    unsigned at = set->nr_order++;
    for (; at > 0 && set->area[set->order[at - 1]]->priority < set->area[number]->priority; at--)
        set->order[at] = set->order[at - 1];
    set->order[at] = number;
}

static void order_remove_locked(struct swap_set *set, unsigned at)
{
    set->nr_order--;
    for (; at < set->nr_order; at++)
        set->order[at] = set->order[at + 1];
}

static int area_create(const char *name, uint64_t nr_slots, struct swap_area **out)
{
    size_t name_bytes = strlen(name) + 1;
    if (name_bytes > SWAP_NAME_BYTES)
        return -ENAMETOOLONG;
    struct swap_area *area = calloc(1, sizeof(*area));
    if (!area)
        return -ENOMEM;
    int err = slots_init(&area->slots, nr_slots);
    if (err) {
        free(area);
        return err;
    }
    memcpy(area->name, name, name_bytes);
    area->enabled = true;
    area->nr_refs = 1;
    *out = area;
    return 0;
}

int swap_area_add(struct swap_set *set, const char *name, const char *kind, uint64_t nr_slots, int priority,
                  const struct swap_backend *backend, void *ctx)
{
    struct swap_area *area;
    int err = area_create(name, nr_slots, &area);
    if (err)
        return err;
    area->kind = kind;
    area->backend = backend;
    area->ctx = ctx;

    lock_acquire(&set->lock);
    int number = find_locked(set, name) >= 0 ? -EEXIST : free_number_locked(set);
    if (number >= 0) {
        area->priority = priority == -1 ? lowest_priority_locked(set) - 1 : priority;
        set->area[number] = area;
        order_insert_locked(set, (uint8_t)number);
    }
    lock_release(&set->lock);
    if (number < 0) {
        slots_fini(&area->slots);
        free(area);
    }
    return number;
}

int swap_area_find(struct swap_set *set, const char *name)
{
    lock_acquire(&set->lock);
    int number = find_locked(set, name);
    lock_release(&set->lock);
    return number;
}

static bool exists_locked(const struct swap_set *set, int number)
{
    return number >= 0 && number < MAX_SWAP_AREAS && set->area[number];
}

void swap_area_enable(struct swap_set *set, int area, bool on)
{
    lock_acquire(&set->lock);
    if (exists_locked(set, area))
        set->area[area]->enabled = on;
    lock_release(&set->lock);
}

/* Drops one reference. True: it was the last, and the caller closes the area when it has left the lock. */
static bool area_put_locked(struct swap_area *area)
{
    return --area->nr_refs == 0;
}

int swap_area_remove(struct swap_set *set, int area)
{
    struct swap_area *last = NULL;
    int err = 0;
    lock_acquire(&set->lock);
    if (!exists_locked(set, area)) {
        err = -ENOENT;
    } else if (set->area[area]->enabled || set->area[area]->slots.nr_used > 0) {
        err = -EBUSY;
    } else {
        unsigned at = 0;
        while (set->order[at] != area)
            at++;
        order_remove_locked(set, at);
        if (area_put_locked(set->area[area]))
            last = set->area[area];
        set->area[area] = NULL;
    }
    lock_release(&set->lock);
    if (last)
        area_close(last);
    return err;
}

/* --- slots ------------------------------------------------------------------------------------ */

static bool refuses(const struct swap_area *area)
{
    return __atomic_load_n(&area->refuses, __ATOMIC_RELAXED);
}

/* From the areas that refuse writes, or from the others. */
static unsigned alloc_locked(struct swap_set *set, bool refusing, unsigned want, struct swap_ref *first)
{
    for (unsigned at = 0; at < set->nr_order; at++) {
        uint8_t number = set->order[at];
        struct swap_area *area = set->area[number];
        if (!area->enabled || refuses(area) != refusing)
            continue;
        unsigned nr = slots_alloc(&area->slots, want, &first->slot);
        if (nr > 0) {
            first->area = number;
            order_remove_locked(set, at);
            order_insert_locked(set, number);
            return nr;
        }
    }
    return 0;
}

/* Whether such an area has room that is being discarded. */
static bool is_discarding_locked(const struct swap_set *set, bool refusing)
{
    for (unsigned at = 0; at < set->nr_order; at++) {
        const struct swap_area *area = set->area[set->order[at]];
        if (area->enabled && refuses(area) == refusing && area->slots.nr_held > 0)
            return true;
    }
    return false;
}

/* The same as alloc_locked, but waits for room that is being discarded. Leaves the lock meanwhile. */
static unsigned alloc_or_wait_locked(struct swap_set *set, bool refusing, unsigned want, struct swap_ref *first)
{
    unsigned nr;
    while (!(nr = alloc_locked(set, refusing, want, first)) && is_discarding_locked(set, refusing)) {
        lock_release(&set->lock);
        nanosleep(&(struct timespec){.tv_nsec = WAIT_NS}, NULL);
        lock_acquire(&set->lock);
    }
    return nr;
}

unsigned swap_alloc(struct swap_set *set, unsigned want, struct swap_ref *first)
{
    lock_acquire(&set->lock);
    unsigned nr = alloc_or_wait_locked(set, false, want, first);
    if (nr == 0)
        nr = alloc_or_wait_locked(set, true, want, first);
    lock_release(&set->lock);
    return nr;
}

/* The caller has a use of the slot, so the area is there. */
static struct swap_area *area_of(struct swap_set *set, struct swap_ref ref)
{
    assert(ref.area < MAX_SWAP_AREAS && set->area[ref.area]);
    return set->area[ref.area];
}

int swap_dup(struct swap_set *set, struct swap_ref ref)
{
    lock_acquire(&set->lock);
    int err = slots_dup(&area_of(set, ref)->slots, ref.slot);
    lock_release(&set->lock);
    return err;
}

/* Discards the empty cluster of @slot, which nobody can allocate meanwhile. Leaves the lock for the call. */
static bool discard_locked(struct swap_set *set, struct swap_area *area, uint64_t slot)
{
    uint64_t first, nr;
    slots_hold(&area->slots, slot, &first, &nr);
    area->nr_refs++;
    lock_release(&set->lock);
    area->backend->discard(area->ctx, first, nr);
    lock_acquire(&set->lock);
    slots_unhold(&area->slots, slot);
    return area_put_locked(area);
}

void swap_free(struct swap_set *set, struct swap_ref ref)
{
    bool last = false;
    lock_acquire(&set->lock);
    struct swap_area *area = area_of(set, ref);
    bool empty = slots_put(&area->slots, ref.slot);
    if (empty && area->backend->discard)
        last = discard_locked(set, area, ref.slot);
    lock_release(&set->lock);
    if (last)
        area_close(area);
}

/* --- pages ------------------------------------------------------------------------------------ */

static uint32_t checksum(const void *page)
{
    return (uint32_t)XXH3_64bits(page, PAGE_BYTES);
}

static void count(uint64_t *counter, uint64_t nr)
{
    __atomic_fetch_add(counter, nr, __ATOMIC_RELAXED);
}

/* Hands the pages to the backend; io[i].error says how each went. */
static void transfer(struct swap_area *area, bool write, uint64_t slot, void *const pages[], unsigned nr,
                     struct swap_io io[])
{
    assert(nr >= 1 && nr <= SWAP_MAX_IO && slot > 0 && slot + nr <= area->slots.nr_slots);
    for (unsigned i = 0; i < nr; i++)
        io[i] = (struct swap_io){.slot = slot + i, .page = pages[i]};
    (void)area->backend->transfer(area->ctx, write, io, nr);
}

/* Copies out the errors; returns the first, *nr_errors of them. */
static int collect(const struct swap_io io[], unsigned nr, int error[], unsigned *nr_errors)
{
    int err = 0;
    *nr_errors = 0;
    for (unsigned i = 0; i < nr; i++) {
        error[i] = io[i].error;
        *nr_errors += error[i] != 0;
        if (!err)
            err = error[i];
    }
    return err;
}

int swap_write(struct swap_set *set, struct swap_ref first, void *const pages[], unsigned nr, int error[])
{
    struct swap_area *area = area_of(set, first);
    struct swap_io io[SWAP_MAX_IO];
    unsigned nr_errors;
    transfer(area, true, first.slot, pages, nr, io);
    int err = collect(io, nr, error, &nr_errors);
    for (unsigned i = 0; i < nr; i++)
        if (!error[i])
            area->slots.sum[first.slot + i] = checksum(pages[i]);
    count(&area->nr_writes, nr - nr_errors);
    count(&area->nr_write_errors, nr_errors);
    if (refuses(area) != (nr_errors == nr))
        __atomic_store_n(&area->refuses, nr_errors == nr, __ATOMIC_RELAXED);
    return err;
}

int swap_read(struct swap_set *set, struct swap_ref first, void *const pages[], unsigned nr, int error[])
{
    struct swap_area *area = area_of(set, first);
    struct swap_io io[SWAP_MAX_IO];
    unsigned nr_errors;
    transfer(area, false, first.slot, pages, nr, io);
    for (unsigned i = 0; i < nr; i++)
        if (!io[i].error && checksum(pages[i]) != area->slots.sum[first.slot + i])
            io[i].error = -EILSEQ;
    int err = collect(io, nr, error, &nr_errors);
    count(&area->nr_reads, nr - nr_errors);
    count(&area->nr_read_errors, nr_errors);
    return err;
}

/* --- figures and check ------------------------------------------------------------------------ */

static uint64_t nr_free_locked(const struct swap_area *area)
{
    return area->enabled ? area->slots.nr_slots - 1 - area->slots.nr_used : 0;
}

uint64_t swap_nr_free(struct swap_set *set)
{
    uint64_t nr = 0;
    lock_acquire(&set->lock);
    for (unsigned i = 0; i < set->nr_order; i++)
        nr += nr_free_locked(set->area[set->order[i]]);
    lock_release(&set->lock);
    return nr;
}

bool swap_is_writable(struct swap_set *set)
{
    bool writable = false;
    lock_acquire(&set->lock);
    for (unsigned i = 0; i < set->nr_order && !writable; i++) {
        const struct swap_area *area = set->area[set->order[i]];
        writable = !refuses(area) && nr_free_locked(area) > 0;
    }
    lock_release(&set->lock);
    return writable;
}

void swap_try_again(struct swap_set *set)
{
    lock_acquire(&set->lock);
    for (unsigned i = 0; i < set->nr_order; i++)
        __atomic_store_n(&set->area[set->order[i]]->refuses, false, __ATOMIC_RELAXED);
    lock_release(&set->lock);
}

static void area_stat(struct swap_area *area, struct swap_area_stat *out)
{
    *out = (struct swap_area_stat){
        .kind = area->kind,
        .priority = area->priority,
        .enabled = area->enabled,
        .size_bytes = (area->slots.nr_slots - 1) * PAGE_BYTES,
        .used_bytes = area->slots.nr_used * PAGE_BYTES,
        .nr_reads = __atomic_load_n(&area->nr_reads, __ATOMIC_RELAXED),
        .nr_writes = __atomic_load_n(&area->nr_writes, __ATOMIC_RELAXED),
        .nr_read_errors = __atomic_load_n(&area->nr_read_errors, __ATOMIC_RELAXED),
        .nr_write_errors = __atomic_load_n(&area->nr_write_errors, __ATOMIC_RELAXED),
    };
    memcpy(out->name, area->name, sizeof(out->name));
    const char *transport = area->backend->transport ? area->backend->transport(area->ctx) : "";
    memcpy(out->transport, transport, strnlen(transport, sizeof(out->transport) - 1));
}

unsigned swap_stat(struct swap_set *set, struct swap_area_stat *out, unsigned max)
{
    lock_acquire(&set->lock);
    unsigned nr = MIN_OF(set->nr_order, max);
    for (unsigned i = 0; i < nr; i++)
        area_stat(set->area[set->order[i]], &out[i]);
    lock_release(&set->lock);
    return nr;
}

uint64_t swap_metadata_bytes(struct swap_set *set)
{
    uint64_t bytes = sizeof(*set);
    lock_acquire(&set->lock);
    for (unsigned i = 0; i < set->nr_order; i++)
        bytes += sizeof(struct swap_area) + slots_metadata_bytes(&set->area[set->order[i]]->slots);
    lock_release(&set->lock);
    return bytes;
}

static bool check_locked(const struct swap_set *set, const char **why)
{
    unsigned nr_areas = 0;
    int priority = INT32_MAX;
    for (unsigned i = 0; i < MAX_SWAP_AREAS; i++)
        nr_areas += set->area[i] != NULL;
    *why = "swap: the order does not name every area";
    if (nr_areas != set->nr_order)
        return false;
    for (unsigned i = 0; i < set->nr_order; i++) {
        const struct swap_area *area = set->order[i] < MAX_SWAP_AREAS ? set->area[set->order[i]] : NULL;
        *why = "swap: the order is not by falling priority";
        if (!area || area->priority > priority || memchr(set->order, set->order[i], i))
            return false;
        priority = area->priority;
        *why = "swap: an area has no reference";
        if (area->nr_refs == 0 || !slots_check(&area->slots, why))
            return false;
    }
    return true;
}

bool swap_check(struct swap_set *set, const char **why)
{
    lock_acquire(&set->lock);
    bool ok = check_locked(set, why);
    lock_release(&set->lock);
    return ok;
}
