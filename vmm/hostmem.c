/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/hostmem.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "vmm/uffd.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

/* Of the mean cost of a fault the last one is so small a part, and at most so long. Chosen, unmeasured. */
#define FAULT_WEIGHT 16
#define FAULT_MOST_NS UINT64_C(1000000)
#define NR_VMIDS ((size_t)UINT16_MAX + 1)

bool hostmem_can_move(uint64_t features)
{
    return features & UFFD_FEATURE_MOVE;
}

bool hostmem_can_copy(uint64_t features)
{
    return features & UFFD_FEATURE_PAGEFAULT_FLAG_WP;
}

char *hostmem_guest(const struct hostmem_vm *vm, gfn_t gfn, uint32_t nr)
{
    char *hva = guest_range_hva(&vm->range, gpa_of(gfn), nr * PAGE_BYTES);
    assert(hva);
    return hva;
}

void hostmem_block_clear(char *base, atomic_uchar *tables, uint64_t page)
{
    atomic_uchar *table = &tables[page / BLOCK_PAGES];
    if (!atomic_load_explicit(table, memory_order_relaxed))
        return;
    atomic_store_explicit(table, 0, memory_order_relaxed);
    madvise(base + page * PAGE_BYTES, BLOCK_BYTES, MADV_DONTNEED);
}

void hostmem_block_note(atomic_uchar *tables, uint64_t page, uint32_t nr)
{
    for (uint64_t block = page / BLOCK_PAGES; block <= (page + nr - 1) / BLOCK_PAGES; block++)
        atomic_store_explicit(&tables[block], 1, memory_order_relaxed);
}

/* Present, or swapped out by the host's kernel, whose problem that is. Documentation/admin-guide/mm/pagemap.rst */
#define PAGEMAP_HAS_PAGE (UINT64_C(3) << 62)

int hostmem_present(const struct hostmem *hm, const char *start, uint32_t nr, uint64_t *mask)
{
    uint64_t entries[HOSTMEM_COPY_PAGES];
    size_t bytes = nr * sizeof(entries[0]);
    if (pread(hm->pagemap, entries, bytes, (off_t)((uintptr_t)start / PAGE_BYTES * sizeof(entries[0]))) !=
        (ssize_t)bytes)
        return -EIO;
    *mask = 0;
    for (uint32_t i = 0; i < nr; i++)
        if (entries[i] & PAGEMAP_HAS_PAGE)
            *mask |= UINT64_C(1) << i;
    return 0;
}

/* Pages of a range become absent. The kernel frees the page tables of whole blocks on the way. */
static void discard(char *base, atomic_uchar *tables, uint64_t page, uint32_t nr)
{
    madvise(base + page * PAGE_BYTES, nr * PAGE_BYTES, MADV_DONTNEED);
    if (nr < BLOCK_PAGES) { /* what is left of a huge page has a table now */
        hostmem_block_note(tables, page, nr);
        return;
    }
    for (uint64_t at = (page + BLOCK_PAGES - 1) / BLOCK_PAGES; at < (page + nr) / BLOCK_PAGES; at++)
        atomic_store_explicit(&tables[at], 0, memory_order_relaxed);
}

/* --- host_ops --- */

static int populate_block(struct hostmem *hm, fn_t fn)
{
    hostmem_block_clear(hm->arena, hm->tables, fn);
    while (madvise(hostmem_slot(hm, fn), BLOCK_BYTES, MADV_POPULATE_WRITE) < 0)
        if (errno != EAGAIN && errno != EINTR)
            return -ENOMEM;
    return 0;
}

/*
 * Single slots are copied from zeros and never touched: a touch of an empty slot may bring in a huge page, of 2 MiB or
 * of a smaller size that the host allows, and the budget with it.
 */
static int populate_pages(struct hostmem *hm, fn_t fn, uint32_t nr)
{
    hostmem_block_note(hm->tables, fn, nr);
    uint64_t bytes;
    return uffd_copy(hm->uffd, hostmem_slot(hm, fn), hm->zeros, nr * PAGE_BYTES, &bytes);
}

static int hostmem_populate(void *ctx, fn_t fn, uint32_t nr)
{
    struct hostmem *hm = ctx;
    for (uint32_t at = 0; at < nr;) {
        uint32_t left = nr - at, step = MIN_OF(left, HOSTMEM_COPY_PAGES);
        bool block = left >= BLOCK_PAGES && (fn + at) % BLOCK_PAGES == 0;
        if (block)
            step = BLOCK_PAGES;
        int err = block ? populate_block(hm, fn + at) : populate_pages(hm, fn + at, step);
        if (err) {
            discard(hm->arena, hm->tables, fn, at + step);
            return -ENOMEM;
        }
        at += step;
    }
    return 0;
}

static void hostmem_release(void *ctx, fn_t fn, uint32_t nr)
{
    struct hostmem *hm = ctx;
    discard(hm->arena, hm->tables, fn, nr);
}

static void hostmem_drop(void *ctx, vmid_t id, gfn_t gfn, uint32_t nr)
{
    struct hostmem_vm *vm = hostmem_vm_get(ctx, id);
    char *guest = hostmem_guest(vm, gfn, nr);
    discard(vm->range.base, vm->tables, (uint64_t)(guest - vm->range.base) / PAGE_BYTES, nr);
}

static void hostmem_wake(void *ctx, vmid_t id, gfn_t gfn, uint32_t nr)
{
    struct hostmem *hm = ctx;
    struct hostmem_vm *vm = hostmem_vm_get(hm, id);
    char *guest = hostmem_guest(vm, gfn, nr);
    /* Copying: a failed or finished take() may have left a writer behind. Lifting the protection wakes as well. */
    if (hm->config.move || uffd_protect(vm->uffd, guest, nr * PAGE_BYTES, false))
        uffd_wake(vm->uffd, guest, nr * PAGE_BYTES);
}

static int hostmem_take(void *ctx, vmid_t id, gfn_t gfn, fn_t fn, uint32_t nr, uint32_t *done)
{
    struct hostmem *hm = ctx;
    struct hostmem_vm *vm = hostmem_vm_get(hm, id);
    *done = 0;
    /* Counts first, then looks: hostmem_vm_release goes the other way round. */
    atomic_fetch_add(&vm->nr_takes, 1);
    int err = -EBUSY;
    if (atomic_load(&vm->state) == HOSTMEM_VM_LIVE)
        err = hm->config.move ? hostmem_move_take(vm, gfn, fn, nr, done) : hostmem_copy_take(vm, gfn, fn, nr, done);
    atomic_fetch_sub(&vm->nr_takes, 1);
    return err;
}

/* A fault thread has put pages of zeros where mm/ wants to place: only once the VM is released. */
static bool overtaken(const struct hostmem_vm *vm, int err)
{
    return err == -EEXIST && hostmem_vm_is_released(vm);
}

static int hostmem_place(void *ctx, vmid_t id, gfn_t gfn, fn_t fn, uint32_t nr, uint32_t *done)
{
    struct hostmem *hm = ctx;
    struct hostmem_vm *vm = hostmem_vm_get(hm, id);
    int err = hm->config.move ? hostmem_move_place(vm, gfn, fn, nr, done) : hostmem_copy_place(vm, gfn, fn, nr, done);
    if (overtaken(vm, err)) {
        discard(hm->arena, hm->tables, fn + *done, nr - *done);
        hostmem_wake(hm, id, gfn, nr);
        *done = nr;
        err = 0;
    }
    return err;
}

static int hostmem_place_copy(void *ctx, vmid_t id, gfn_t gfn, const void *src, uint32_t nr, unsigned node,
                              uint32_t *done)
{
    struct hostmem_vm *vm = hostmem_vm_get(ctx, id);
    char *guest = hostmem_guest(vm, gfn, nr);
    hostmem_block_note(vm->tables, (uint64_t)(guest - vm->range.base) / PAGE_BYTES, nr);
    uint64_t bytes = 0;
    int err = hostmem_node_use(vm->hm, node);
    if (!err)
        err = uffd_copy(vm->uffd, guest, src, nr * PAGE_BYTES, &bytes);
    *done = (uint32_t)(bytes / PAGE_BYTES);
    if (overtaken(vm, err)) {
        hostmem_wake(ctx, id, gfn, nr);
        *done = nr;
        err = 0;
    }
    return err;
}

static uint64_t hostmem_clock_ns(void *ctx)
{
    (void)ctx;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static uint64_t hostmem_cpu_ns(void *ctx)
{
    (void)ctx;
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static void hostmem_kick(void *ctx, enum mm_worker worker)
{
    struct hostmem *hm = ctx;
    if (hm->config.kick)
        hm->config.kick(hm->config.kick_ctx, worker);
}

static const struct host_ops hostmem_ops = {
    .populate = hostmem_populate,
    .release = hostmem_release,
    .place = hostmem_place,
    .place_copy = hostmem_place_copy,
    .take = hostmem_take,
    .drop = hostmem_drop,
    .wake = hostmem_wake,
    .clock_ns = hostmem_clock_ns,
    .cpu_ns = hostmem_cpu_ns,
    .kick = hostmem_kick,
};

/* --- arena --- */

/* Copying moves single pages only; a huge page at home would keep all its 2 MiB until its last slot is empty. */
static void advise_arena(struct hostmem *hm)
{
    madvise(hm->arena, hm->arena_bytes, hm->config.move ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
}

/* Page tables of this process, kB; 0 when unknown. */
static unsigned long page_tables_kb(void)
{
    char text[4096] = {0};
    int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t got = read(fd, text, sizeof(text) - 1);
    close(fd);
    const char *line = got > 0 ? strstr(text, "VmPTE:") : NULL;
    return line ? strtoul(line + strlen("VmPTE:"), NULL, 10) : 0;
}

/*
 * What advise_guest's huge pages cost at each fault of an empty block, ns. Twice: KVM looks without waiting first, and
 * then once more to wait. The best of three: the first may find no 2 MiB free at once.
 */
static uint32_t block_fault_ns(void)
{
    uint64_t best = UINT32_MAX / 2;
    for (unsigned i = 0; i < 3; i++) {
        char *block = block_map(BLOCK_BYTES);
        if (!block)
            return 0;
        madvise(block, BLOCK_BYTES, MADV_HUGEPAGE);
        uint64_t start_ns = hostmem_clock_ns(NULL);
        *(volatile char *)block = 1;
        best = MIN_OF(best, hostmem_clock_ns(NULL) - start_ns);
        block_unmap(block, BLOCK_BYTES);
    }
    return (uint32_t)(2 * best);
}

/* Tries on one page what the rest relies on. */
static int probe_arena(struct hostmem *hm, struct diag *diag)
{
    madvise(hm->arena, BLOCK_BYTES, MADV_NOHUGEPAGE);
    if (madvise(hm->arena, PAGE_BYTES, MADV_POPULATE_WRITE) < 0)
        return diag_set(diag, EXIT_HOST,
                        errno == EINVAL ? "this kernel is too old: Linux 5.14 or later is needed"
                                        : "no memory for the arena's first page");
    unsigned long before = page_tables_kb();
    madvise(hm->arena, BLOCK_BYTES, MADV_DONTNEED);
    hm->frees_tables = page_tables_kb() < before;
    return 0;
}

static int arena_open(struct hostmem *hm, struct diag *diag)
{
    hm->arena = block_map(hm->arena_bytes);
    hm->zeros = mmap(NULL, HOSTMEM_COPY_PAGES * PAGE_BYTES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!hm->arena || hm->zeros == MAP_FAILED)
        return diag_set(diag, EXIT_HOST, "no address space for an arena of %llu MiB: use a smaller --budget",
                        (unsigned long long)(hm->arena_bytes >> 20));
    madvise(hm->zeros, HOSTMEM_COPY_PAGES * PAGE_BYTES, MADV_NOHUGEPAGE);
    if (hostmem_nodes_open(hm, diag))
        return -1;
    if (probe_arena(hm, diag))
        return -1;
    hm->ops.keeps_tables = hm->config.move && !hm->frees_tables;
    hm->ops.block_fault_ns = hm->ops.keeps_tables ? block_fault_ns() : 0;
    advise_arena(hm);
    hm->uffd = uffd_open(hm->config.move ? UFFD_FEATURE_MOVE : UFFD_FEATURE_PAGEFAULT_FLAG_WP);
    if (hm->uffd < 0)
        return diag_host(diag, -hm->uffd, "userfaultfd for the arena");
    int err = uffd_register(hm->uffd, hm->arena, hm->arena_bytes, UFFDIO_REGISTER_MODE_WP);
    if (err)
        return diag_host(diag, -err, "userfaultfd for the arena: register");
    hm->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (hm->pagemap < 0)
        return diag_set(diag, EXIT_HOST, "/proc/self/pagemap: %s: it says where pages are", strerror(errno));
    return 0;
}

void hostmem_note_fault(struct hostmem *hm, uint64_t ns)
{
    int64_t one = (int64_t)MIN_OF(ns, (uint64_t)FAULT_MOST_NS),
            mean = __atomic_load_n(&hm->ops.fault_ns, __ATOMIC_RELAXED);
    mean = mean ? mean + (one - mean) / FAULT_WEIGHT : one;
    __atomic_store_n(&hm->ops.fault_ns, (uint32_t)mean, __ATOMIC_RELAXED); /* one may be lost */
}

int hostmem_create(const struct hostmem_config *config, struct hostmem **out, struct diag *diag)
{
    struct hostmem *hm = calloc(1, sizeof(*hm));
    if (!hm)
        return diag_set(diag, EXIT_HOST, "out of memory");
    uint64_t nr_blocks = ((uint64_t)config->nr_slots + BLOCK_PAGES - 1) / BLOCK_PAGES;
    hm->config = *config;
    hm->ops = hostmem_ops;
    hm->ops.transient_pages = config->move ? 1 : HOSTMEM_COPY_PAGES;
    hm->ops.no_huge = !config->move;
    hm->arena_bytes = nr_blocks * BLOCK_BYTES;
    hm->zeros = MAP_FAILED;
    hm->uffd = hm->pagemap = -1;
    hm->tables = calloc(nr_blocks, sizeof(*hm->tables));
    hm->vms = calloc(NR_VMIDS, sizeof(*hm->vms));
    if (!hm->tables || !hm->vms) {
        hostmem_destroy(hm);
        return diag_set(diag, EXIT_HOST, "out of memory");
    }
    if (arena_open(hm, diag)) {
        hostmem_destroy(hm);
        return -1;
    }
    *out = hm;
    return 0;
}

void hostmem_destroy(struct hostmem *hm)
{
    if (hm->uffd >= 0)
        close(hm->uffd);
    if (hm->pagemap >= 0)
        close(hm->pagemap);
    if (hm->zeros != MAP_FAILED)
        munmap(hm->zeros, HOSTMEM_COPY_PAGES * PAGE_BYTES);
    block_unmap(hm->arena, hm->arena_bytes);
    hostmem_nodes_close(hm);
    free(hm->vms);
    free((void *)hm->tables);
    free(hm);
}

/* --- VMs --- */

/*
 * Whether the kernel may try huge pages in guest memory. Yes: the first fault of an empty block zeroes 2 MiB, then asks
 * userfaultfd, and throws them away (mm/huge_memory.c, __do_huge_pmd_anonymous_page): 40 us and more in the vCPU. No:
 * the fault makes a page table first, over which a huge page cannot be moved: hostmem_block_clear mends that where it
 * can. Copying places no huge pages, and where pages are scattered mm/ places none.
 */
static void advise_guest(const struct hostmem_vm *vm)
{
    const struct hostmem *hm = vm->hm;
    bool huge = hm->config.move && !hm->frees_tables && !hm->config.scattered;
    madvise(vm->range.base, vm->range.bytes + vm->range.tail_bytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
}

/* With the faulting thread's number in each event, where the kernel has that. */
static int open_guest_uffd(struct hostmem_vm *vm)
{
    uint64_t features = vm->hm->config.move ? UFFD_FEATURE_MOVE : UFFD_FEATURE_PAGEFAULT_FLAG_WP;
    vm->uffd = uffd_open(features | UFFD_FEATURE_THREAD_ID);
    vm->says_who = vm->uffd >= 0;
    if (vm->uffd == -EINVAL)
        vm->uffd = uffd_open(features);
    return vm->uffd;
}

static int vm_open(struct hostmem_vm *vm, struct diag *diag)
{
    bool move = vm->hm->config.move;
    struct guest_range *range = &vm->range;
    vm->stop_page = range->base + range->bytes;
    advise_guest(vm);
    if (open_guest_uffd(vm) < 0)
        return diag_host(diag, -vm->uffd, "userfaultfd for a VM");
    int err = uffd_register(vm->uffd, range->base, range->bytes + range->tail_bytes,
                            UFFDIO_REGISTER_MODE_MISSING | (move ? 0 : UFFDIO_REGISTER_MODE_WP));
    if (err)
        return diag_host(diag, -err, "userfaultfd for a VM: register");
    return 0;
}

int hostmem_vm_create(struct hostmem *hm, const struct mm_region *regions, unsigned nr, struct hostmem_vm **out,
                      struct diag *diag)
{
    struct hostmem_vm *vm = calloc(1, sizeof(*vm));
    if (!vm)
        return diag_set(diag, EXIT_HOST, "out of memory");
    vm->hm = hm;
    vm->uffd = -1;
    int err = guest_range_map(&vm->range, regions, nr, PAGE_BYTES);
    if (err) {
        free(vm);
        return diag_set(diag, err == -EINVAL ? EXIT_USAGE : EXIT_HOST,
                        err == -EINVAL ? "guest memory must come in whole, separate blocks of 2 MiB"
                                       : "no address space for the guest's memory: use a smaller --memory");
    }
    vm->tables = calloc(vm->range.bytes / BLOCK_BYTES, sizeof(*vm->tables));
    if (!vm->tables || vm_open(vm, diag)) {
        hostmem_vm_destroy(vm);
        return diag_set(diag, EXIT_HOST, "out of memory"); /* unless vm_open has said more */
    }
    *out = vm;
    return 0;
}

void hostmem_vm_attach(struct hostmem_vm *vm, vmid_t id)
{
    vm->id = id;
    atomic_store_explicit(&vm->hm->vms[id], vm, memory_order_release); /* with hostmem_vm_get */
}

void hostmem_vm_destroy(struct hostmem_vm *vm)
{
    if (vm->id)
        atomic_store_explicit(&vm->hm->vms[vm->id], NULL, memory_order_release);
    if (vm->uffd >= 0)
        close(vm->uffd);
    guest_range_unmap(&vm->range);
    free((void *)vm->tables);
    free(vm);
}

/* Were a page of zeros put in while take() runs over it, it would come home into a slot that mm/ holds to be empty. */
void hostmem_vm_release(struct hostmem_vm *vm)
{
    atomic_store(&vm->state, HOSTMEM_VM_CLOSING);
    while (atomic_load(&vm->nr_takes) > 0)
        sched_yield();
    atomic_store(&vm->state, HOSTMEM_VM_RELEASED);
    uffd_wake(vm->uffd, vm->range.base, vm->range.bytes);
}

bool hostmem_vm_is_released(const struct hostmem_vm *vm)
{
    return atomic_load_explicit(&vm->state, memory_order_acquire) == HOSTMEM_VM_RELEASED;
}

void hostmem_vm_answer(struct hostmem_vm *vm, gpa_t gpa)
{
    char *page = hostmem_guest(vm, gfn_of(gpa), 1);
    if (!vm->hm->config.move)
        (void)!uffd_protect(vm->uffd, page, PAGE_BYTES, false); /* wakes below in any case */
    if (uffd_zeropage(vm->uffd, page, PAGE_BYTES))
        uffd_wake(vm->uffd, page, PAGE_BYTES);
}
