/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fake/fake_host.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "mm/base/lock.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define POISON(p) ASAN_POISON_MEMORY_REGION((p), PAGE_BYTES)
#define UNPOISON(p) ASAN_UNPOISON_MEMORY_REGION((p), PAGE_BYTES)
#else
#define POISON(p) ((void)(p))
#define UNPOISON(p) ((void)(p))
#endif

#define MAX_VMS 64
#define JUNK 0xa5

/* A range of pages: the arena, where a page that is here is a filled slot, or a guest, where it is present. */
struct pages {
    uint8_t *mem;
    uint32_t nr;
    uint8_t *here;   /* one byte a page */
    uint8_t *pinned; /* one byte a page */
    uint8_t *node;   /* one byte a page, of a guest */
    uint8_t *huge;   /* one byte a block: its pages are one huge page */
};

struct fake_host {
    struct host_ops ops;
    atomic_uint_fast64_t now_ns, cpu_ns;
    atomic_uint_fast64_t kicks[MM_MAX_WORKERS];
    struct mm_lock lock;
    unsigned nr_nodes; /* constant, as the next */
    fn_t node_start[MM_MAX_NODES];
    /* guarded by lock */
    struct pages arena;
    struct {
        bool used;
        vmid_t id;
        struct pages pages;
    } vms[MAX_VMS];
    uint32_t budget_pages;
    struct fake_failure failure;
    bool failed;
    struct fake_host_stat stat;
    char breach[200];
};

static void *map_bytes(uint64_t bytes)
{
    void *mem = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mem == MAP_FAILED) {
        perror("fake_host: mmap");
        exit(1);
    }
    return mem;
}

static void pages_init(struct pages *p, uint32_t nr)
{
    uint64_t bytes = nr * PAGE_BYTES;
    uint8_t *mem = map_bytes(bytes + BLOCK_BYTES);
    uint64_t head = (BLOCK_BYTES - ((uintptr_t)mem & (BLOCK_BYTES - 1))) & (BLOCK_BYTES - 1);
    if (head)
        munmap(mem, head);
    munmap(mem + head + bytes, BLOCK_BYTES - head);
    *p = (struct pages){.mem = mem + head, .nr = nr};
    p->here = map_bytes(nr);
    p->pinned = map_bytes(nr);
    p->node = map_bytes(nr);
    p->huge = map_bytes(nr / BLOCK_PAGES + 1);
}

static void pages_fini(struct pages *p)
{
    for (uint32_t i = 0; i < p->nr; i++)
        UNPOISON(p->mem + i * PAGE_BYTES);
    munmap(p->mem, p->nr * PAGE_BYTES);
    munmap(p->here, p->nr);
    munmap(p->pinned, p->nr);
    munmap(p->node, p->nr);
    munmap(p->huge, p->nr / BLOCK_PAGES + 1);
}

static bool is_block(uint32_t first, uint32_t nr)
{
    return nr == BLOCK_PAGES && first % BLOCK_PAGES == 0;
}

/* A call for a part of a huge page breaks it. */
static void split_huge(struct fake_host *fh, struct pages *p, uint32_t first, uint32_t nr)
{
    if (!nr || !((first | nr) % BLOCK_PAGES))
        return;
    for (uint32_t block = first / BLOCK_PAGES; block <= (first + nr - 1) / BLOCK_PAGES; block++)
        if (p->huge[block]) {
            p->huge[block] = 0;
            fh->stat.nr_splits++;
        }
}

__attribute__((format(printf, 2, 3))) static void breach(struct fake_host *fh, const char *format, ...)
{
    if (fh->breach[0])
        return;
    va_list args;
    va_start(args, format);
    vsnprintf(fh->breach, sizeof(fh->breach), format, args);
    va_end(args);
}

static struct pages *vm_pages(struct fake_host *fh, vmid_t vm)
{
    for (unsigned i = 0; i < MAX_VMS; i++)
        if (fh->vms[i].used && fh->vms[i].id == vm)
            return &fh->vms[i].pages;
    return NULL;
}

/* The slots of [fn, fn + nr) exist; otherwise a breach. */
static bool slots_exist(struct fake_host *fh, const char *call, fn_t fn, uint32_t nr)
{
    if (nr && nr <= fh->arena.nr && fn <= fh->arena.nr - nr)
        return true;
    breach(fh, "%s: slots [%u, +%u) outside the arena of %u", call, fn, nr, fh->arena.nr);
    return false;
}

/* The guest's pages, when [gfn, gfn + nr) exist; otherwise NULL and a breach. */
static struct pages *guest_range(struct fake_host *fh, const char *call, vmid_t vm, gfn_t gfn, uint32_t nr)
{
    struct pages *guest = vm_pages(fh, vm);
    if (guest && nr && nr <= guest->nr && gfn <= guest->nr - nr)
        return guest;
    breach(fh, "%s: no guest pages [%#x, +%u) in vm %u", call, gfn, nr, vm);
    return NULL;
}

static unsigned slot_node(const struct fake_host *fh, fn_t fn)
{
    unsigned node = fh->nr_nodes - 1;
    while (node > 0 && fn < fh->node_start[node])
        node--;
    return node;
}

static void set_filled(struct fake_host *fh, fn_t fn, bool filled)
{
    uint8_t *mem = fh->arena.mem + fn * PAGE_BYTES;
    fh->arena.here[fn] = filled;
    if (filled) {
        UNPOISON(mem);
        fh->stat.filled_pages++;
    } else {
        memset(mem, JUNK, PAGE_BYTES);
        POISON(mem);
        fh->stat.filled_pages--;
    }
}

static void set_present(struct fake_host *fh, struct pages *guest, gfn_t gfn, bool present)
{
    guest->here[gfn] = present;
    fh->stat.present_pages += present ? 1 : UINT64_MAX;
}

/* After each change. @transient: pages that the transfer under way holds twice. */
static void account(struct fake_host *fh, uint64_t transient)
{
    uint64_t pages = fh->stat.filled_pages + fh->stat.present_pages + transient;
    fh->stat.peak_pages = MAX_OF(fh->stat.peak_pages, pages);
    if (fh->budget_pages && pages > fh->budget_pages)
        breach(fh, "%llu physical pages, budget %u", (unsigned long long)pages, fh->budget_pages);
}

/* Counts the call. Returns how many of @nr pages are to be done, and the error that ends it then. */
static uint32_t plan(struct fake_host *fh, enum fake_op op, uint32_t nr, int *err)
{
    struct fake_failure *failure = &fh->failure;
    *err = 0;
    fh->stat.nr_calls[op]++;
    if (failure->nth < 1 || (failure->op != FAKE_ANY && failure->op != op) || --failure->nth > 0)
        return nr;
    failure->nth = failure->again ? 1 : -1;
    failure->again -= failure->again > 0;
    fh->failed = true;
    *err = -failure->err;
    return MIN_OF(failure->after_pages, nr - 1);
}

static int fake_populate(void *ctx, fn_t fn, uint32_t nr)
{
    struct fake_host *fh = ctx;
    lock_acquire(&fh->lock);
    int err = -EINVAL;
    if (slots_exist(fh, "populate", fn, nr))
        plan(fh, FAKE_POPULATE, nr, &err);
    for (uint32_t i = 0; !err && i < nr; i++) {
        if (fh->arena.here[fn + i]) {
            breach(fh, "populate: slot %u is filled", fn + i);
            continue;
        }
        set_filled(fh, fn + i, true);
        memset(fh->arena.mem + (fn + i) * PAGE_BYTES, 0, PAGE_BYTES);
        fh->stat.nr_pages[FAKE_POPULATE]++;
    }
    if (!err && is_block(fn, nr))
        fh->arena.huge[fn / BLOCK_PAGES] = 1;
    account(fh, 0);
    lock_release(&fh->lock);
    return err;
}

static void fake_release(void *ctx, fn_t fn, uint32_t nr)
{
    struct fake_host *fh = ctx;
    lock_acquire(&fh->lock);
    if (slots_exist(fh, "release", fn, nr)) {
        split_huge(fh, &fh->arena, fn, nr);
        for (uint32_t i = 0; i < nr; i++) {
            if (!fh->arena.here[fn + i]) {
                breach(fh, "release: slot %u is empty", fn + i);
                continue;
            }
            set_filled(fh, fn + i, false);
            fh->stat.nr_release_pages++;
        }
        if (is_block(fn, nr))
            fh->arena.huge[fn / BLOCK_PAGES] = 0;
    }
    lock_release(&fh->lock);
}

/* A whole huge page changes sides as one. */
static void move_huge(struct pages *from, uint32_t first, struct pages *to, uint32_t to_first, uint64_t *counter)
{
    if (!from->huge[first / BLOCK_PAGES])
        return;
    from->huge[first / BLOCK_PAGES] = 0;
    if (to_first % BLOCK_PAGES == 0) {
        to->huge[to_first / BLOCK_PAGES] = 1;
        ++*counter;
    }
}

static int place_one(struct fake_host *fh, struct pages *guest, gfn_t gfn, fn_t fn)
{
    if (guest->here[gfn]) {
        breach(fh, "place: guest page %#x is present", gfn);
        return -EEXIST;
    }
    if (!fh->arena.here[fn]) {
        breach(fh, "place: slot %u is empty", fn);
        return -ENOENT;
    }
    memcpy(guest->mem + gfn * PAGE_BYTES, fh->arena.mem + fn * PAGE_BYTES, PAGE_BYTES);
    guest->node[gfn] = (uint8_t)slot_node(fh, fn);
    set_filled(fh, fn, false);
    set_present(fh, guest, gfn, true);
    return 0;
}

static int fake_place(void *ctx, vmid_t vm, gfn_t gfn, fn_t fn, uint32_t nr, uint32_t *done)
{
    struct fake_host *fh = ctx;
    int err = -EINVAL;
    *done = 0;
    lock_acquire(&fh->lock);
    struct pages *guest = guest_range(fh, "place", vm, gfn, nr);
    if (guest && slots_exist(fh, "place", fn, nr)) {
        uint32_t todo = plan(fh, FAKE_PLACE, nr, &err);
        int bad = 0;
        split_huge(fh, &fh->arena, fn, todo);
        account(fh, MIN_OF(nr, fh->ops.transient_pages));
        while (!bad && *done < todo) {
            bad = place_one(fh, guest, gfn + *done, fn + *done);
            *done += !bad;
        }
        fh->stat.nr_pages[FAKE_PLACE] += *done;
        if (is_block(fn, *done))
            move_huge(&fh->arena, fn, guest, gfn, &fh->stat.nr_huge_place);
        err = bad ? bad : err;
    }
    lock_release(&fh->lock);
    return err;
}

static int fake_place_copy(void *ctx, vmid_t vm, gfn_t gfn, const void *src, uint32_t nr, unsigned node, uint32_t *done)
{
    struct fake_host *fh = ctx;
    int err = -EINVAL;
    *done = 0;
    lock_acquire(&fh->lock);
    struct pages *guest = guest_range(fh, "place_copy", vm, gfn, nr);
    if (guest) {
        uint32_t todo = plan(fh, FAKE_PLACE_COPY, nr, &err);
        if (node >= fh->nr_nodes)
            breach(fh, "place_copy: there is no node %u", node);
        for (; *done < todo; ++*done) {
            if (guest->here[gfn + *done]) {
                breach(fh, "place_copy: guest page %#x is present", gfn + *done);
                err = -EEXIST;
                break;
            }
            memcpy(guest->mem + (gfn + *done) * PAGE_BYTES, (const uint8_t *)src + *done * PAGE_BYTES, PAGE_BYTES);
            guest->node[gfn + *done] = (uint8_t)node;
            set_present(fh, guest, gfn + *done, true);
        }
        fh->stat.nr_pages[FAKE_PLACE_COPY] += *done;
        account(fh, 0);
    }
    lock_release(&fh->lock);
    return err;
}

static int take_one(struct fake_host *fh, struct pages *guest, gfn_t gfn, fn_t fn)
{
    if (fh->arena.here[fn]) {
        breach(fh, "take: slot %u is filled", fn);
        return -EEXIST;
    }
    if (!guest->here[gfn])
        return 0;
    if (guest->pinned[gfn])
        return -EBUSY;
    if (guest->node[gfn] != slot_node(fh, fn))
        breach(fh, "take: guest page %#x of node %u comes home to slot %u of another", gfn, guest->node[gfn], fn);
    set_filled(fh, fn, true);
    memcpy(fh->arena.mem + fn * PAGE_BYTES, guest->mem + gfn * PAGE_BYTES, PAGE_BYTES);
    set_present(fh, guest, gfn, false);
    fh->stat.nr_pages[FAKE_TAKE]++;
    return 0;
}

static int fake_take(void *ctx, vmid_t vm, gfn_t gfn, fn_t fn, uint32_t nr, uint32_t *done)
{
    struct fake_host *fh = ctx;
    int err = -EINVAL;
    *done = 0;
    lock_acquire(&fh->lock);
    struct pages *guest = guest_range(fh, "take", vm, gfn, nr);
    if (guest && slots_exist(fh, "take", fn, nr)) {
        uint32_t todo = plan(fh, FAKE_TAKE, nr, &err);
        int bad = 0;
        split_huge(fh, guest, gfn, todo);
        account(fh, MIN_OF(nr, fh->ops.transient_pages));
        while (!bad && *done < todo) {
            bad = take_one(fh, guest, gfn + *done, fn + *done);
            *done += !bad;
        }
        if (is_block(gfn, *done))
            move_huge(guest, gfn, &fh->arena, fn, &fh->stat.nr_huge_take);
        err = bad ? bad : err;
    }
    lock_release(&fh->lock);
    return err;
}

static void fake_drop(void *ctx, vmid_t vm, gfn_t gfn, uint32_t nr)
{
    struct fake_host *fh = ctx;
    lock_acquire(&fh->lock);
    struct pages *guest = guest_range(fh, "drop", vm, gfn, nr);
    if (guest) {
        split_huge(fh, guest, gfn, nr);
        for (gfn_t g = gfn; g < gfn + nr; g++) {
            if (!guest->here[g])
                continue;
            set_present(fh, guest, g, false);
            fh->stat.nr_drop_pages++;
        }
        for (gfn_t g = gfn; g < gfn + nr && !((gfn | nr) % BLOCK_PAGES); g += BLOCK_PAGES)
            guest->huge[g / BLOCK_PAGES] = 0;
        fh->stat.nr_drops++;
    }
    lock_release(&fh->lock);
}

static void fake_wake(void *ctx, vmid_t vm, gfn_t gfn, uint32_t nr)
{
    struct fake_host *fh = ctx;
    lock_acquire(&fh->lock);
    if (guest_range(fh, "wake", vm, gfn, nr))
        fh->stat.nr_wakes++;
    lock_release(&fh->lock);
}

static uint64_t fake_clock_ns(void *ctx)
{
    struct fake_host *fh = ctx;
    return atomic_fetch_add_explicit(&fh->now_ns, 1, memory_order_relaxed);
}

/* One for all threads: each that asks has done what any of them did. */
static uint64_t fake_cpu_ns(void *ctx)
{
    struct fake_host *fh = ctx;
    return atomic_fetch_add_explicit(&fh->cpu_ns, 1, memory_order_relaxed);
}

/* Takes no lock: callable under any but a zone lock. */
static void fake_kick(void *ctx, enum mm_worker worker)
{
    struct fake_host *fh = ctx;
    atomic_fetch_add_explicit(&fh->kicks[worker], 1, memory_order_relaxed);
}

struct fake_host *fake_host_create(uint32_t nr_slots)
{
    struct fake_host *fh = map_bytes(sizeof(*fh));
    fh->ops = (struct host_ops){
        .populate = fake_populate,
        .release = fake_release,
        .place = fake_place,
        .place_copy = fake_place_copy,
        .take = fake_take,
        .drop = fake_drop,
        .wake = fake_wake,
        .clock_ns = fake_clock_ns,
        .cpu_ns = fake_cpu_ns,
        .kick = fake_kick,
    };
    atomic_init(&fh->now_ns, 1);
    atomic_init(&fh->cpu_ns, 1);
    lock_init(&fh->lock, LOCK_LRU);
    fh->failure.nth = -1;
    fh->nr_nodes = 1;
    pages_init(&fh->arena, nr_slots);
    for (fn_t fn = 0; fn < nr_slots; fn++) {
        memset(fh->arena.mem + fn * PAGE_BYTES, JUNK, PAGE_BYTES);
        POISON(fh->arena.mem + fn * PAGE_BYTES);
    }
    return fh;
}

void fake_host_destroy(struct fake_host *fh)
{
    for (unsigned i = 0; i < MAX_VMS; i++)
        if (fh->vms[i].used)
            pages_fini(&fh->vms[i].pages);
    pages_fini(&fh->arena);
    lock_fini(&fh->lock);
    munmap(fh, sizeof(*fh));
}

struct host_ops *fake_host_ops(struct fake_host *fh)
{
    return &fh->ops;
}

void *fake_host_arena(struct fake_host *fh)
{
    return fh->arena.mem;
}

void fake_host_add_vm(struct fake_host *fh, vmid_t vm, uint32_t nr_pages)
{
    lock_acquire(&fh->lock);
    unsigned i = 0;
    while (i < MAX_VMS && fh->vms[i].used)
        i++;
    if (i == MAX_VMS || vm_pages(fh, vm)) {
        breach(fh, "add_vm: vm %u is there already, or there are %d", vm, MAX_VMS);
    } else {
        pages_init(&fh->vms[i].pages, nr_pages);
        fh->vms[i].id = vm;
        fh->vms[i].used = true;
    }
    lock_release(&fh->lock);
}

void fake_host_remove_vm(struct fake_host *fh, vmid_t vm)
{
    lock_acquire(&fh->lock);
    for (unsigned i = 0; i < MAX_VMS; i++) {
        struct pages *guest = &fh->vms[i].pages;
        if (!fh->vms[i].used || fh->vms[i].id != vm)
            continue;
        for (gfn_t gfn = 0; gfn < guest->nr; gfn++)
            if (guest->here[gfn])
                breach(fh, "remove_vm: page %#x of vm %u is still present", gfn, vm);
        pages_fini(guest);
        fh->vms[i].used = false;
    }
    lock_release(&fh->lock);
}

void fake_host_set_nodes(struct fake_host *fh, unsigned nr, const fn_t start[])
{
    fh->nr_nodes = nr;
    memcpy(fh->node_start, start, nr * sizeof(start[0]));
}

unsigned fake_host_page_node(struct fake_host *fh, vmid_t vm, gfn_t gfn)
{
    lock_acquire(&fh->lock);
    const struct pages *guest = guest_range(fh, "page_node", vm, gfn, 1);
    unsigned node = guest ? guest->node[gfn] : 0;
    lock_release(&fh->lock);
    return node;
}

void fake_host_count_nodes(struct fake_host *fh, vmid_t vm, uint64_t pages[MM_MAX_NODES])
{
    memset(pages, 0, MM_MAX_NODES * sizeof(pages[0]));
    lock_acquire(&fh->lock);
    const struct pages *guest = vm_pages(fh, vm);
    for (gfn_t gfn = 0; guest && gfn < guest->nr; gfn++)
        if (guest->here[gfn])
            pages[guest->node[gfn]]++;
    lock_release(&fh->lock);
}

const char *fake_host_breach(struct fake_host *fh)
{
    lock_acquire(&fh->lock);
    bool any = fh->breach[0] != '\0';
    lock_release(&fh->lock);
    return any ? fh->breach : NULL;
}

void fake_host_set_budget(struct fake_host *fh, uint32_t pages)
{
    lock_acquire(&fh->lock);
    fh->budget_pages = pages;
    lock_release(&fh->lock);
}

void fake_host_fail(struct fake_host *fh, const struct fake_failure *failure)
{
    lock_acquire(&fh->lock);
    fh->failure = *failure;
    fh->failed = false;
    lock_release(&fh->lock);
}

void fake_host_fail_at(struct fake_host *fh, long nth, int err)
{
    fake_host_fail(fh, &(struct fake_failure){.op = FAKE_ANY, .nth = nth, .err = err});
}

bool fake_host_failed(struct fake_host *fh)
{
    lock_acquire(&fh->lock);
    bool failed = fh->failed;
    lock_release(&fh->lock);
    return failed;
}

void fake_host_pin(struct fake_host *fh, vmid_t vm, gfn_t gfn, bool pinned)
{
    lock_acquire(&fh->lock);
    struct pages *guest = guest_range(fh, "pin", vm, gfn, 1);
    if (guest)
        guest->pinned[gfn] = pinned;
    lock_release(&fh->lock);
}

/* The bytes of a present guest page, or NULL. */
static uint8_t *guest_bytes(struct fake_host *fh, vmid_t vm, gfn_t gfn, uint32_t off, uint32_t bytes)
{
    struct pages *guest = guest_range(fh, "guest access", vm, gfn, 1);
    if (off > PAGE_BYTES || bytes > PAGE_BYTES - off)
        breach(fh, "guest access: [%u, +%u) is not inside a page", off, bytes);
    else if (guest && guest->here[gfn])
        return guest->mem + gfn * PAGE_BYTES + off;
    return NULL;
}

int fake_host_guest_write(struct fake_host *fh, vmid_t vm, gfn_t gfn, uint32_t off, const void *src, uint32_t bytes)
{
    lock_acquire(&fh->lock);
    uint8_t *to = guest_bytes(fh, vm, gfn, off, bytes);
    if (to)
        memcpy(to, src, bytes);
    lock_release(&fh->lock);
    return to ? 0 : -EFAULT;
}

int fake_host_guest_read(struct fake_host *fh, vmid_t vm, gfn_t gfn, uint32_t off, void *dst, uint32_t bytes)
{
    lock_acquire(&fh->lock);
    const uint8_t *from = guest_bytes(fh, vm, gfn, off, bytes);
    if (from)
        memcpy(dst, from, bytes);
    lock_release(&fh->lock);
    return from ? 0 : -EFAULT;
}

void *fake_host_guest(struct fake_host *fh, vmid_t vm)
{
    lock_acquire(&fh->lock);
    struct pages *guest = vm_pages(fh, vm);
    lock_release(&fh->lock);
    return guest ? guest->mem : NULL;
}

bool fake_host_is_present(struct fake_host *fh, vmid_t vm, gfn_t gfn)
{
    lock_acquire(&fh->lock);
    const struct pages *guest = vm_pages(fh, vm);
    bool present = guest && gfn < guest->nr && guest->here[gfn];
    lock_release(&fh->lock);
    return present;
}

bool fake_host_is_filled(struct fake_host *fh, fn_t fn)
{
    lock_acquire(&fh->lock);
    bool filled = fn < fh->arena.nr && fh->arena.here[fn];
    lock_release(&fh->lock);
    return filled;
}

void fake_host_advance_ns(struct fake_host *fh, uint64_t ns)
{
    atomic_fetch_add_explicit(&fh->now_ns, ns, memory_order_relaxed);
}

void fake_host_work_ns(struct fake_host *fh, uint64_t ns)
{
    fake_host_advance_ns(fh, ns);
    atomic_fetch_add_explicit(&fh->cpu_ns, ns, memory_order_relaxed);
}

void fake_host_stat(struct fake_host *fh, struct fake_host_stat *out)
{
    lock_acquire(&fh->lock);
    *out = fh->stat;
    out->physical_pages = out->filled_pages + out->present_pages;
    for (unsigned i = 0; i < MM_MAX_WORKERS; i++)
        out->nr_kicks[i] = atomic_load_explicit(&fh->kicks[i], memory_order_relaxed);
    lock_release(&fh->lock);
}
