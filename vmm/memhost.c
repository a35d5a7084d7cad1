/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who owns what, in the order in which it is made; it goes in the opposite order.
 *
 *   memhost:     hostmem -> mm_host -> mm_thread of each worker and of other callers -> worker threads
 *   memhost_vm:  hostmem_vm -> mm_vm -> mm_thread of each fault thread -> fault threads
 */
#include "vmm/memhost.h"

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vmm/faultd.h"
#include "vmm/hostmem.h"
#include "vmm/kernel_backend.h"
#include "vmm/memhost_numa.h"
#include "vmm/oom.h"
#include "vmm/uffd.h"
#include "vmm/workers.h"

struct memhost {
    enum backend backend;
    bool move;
    /* BACKEND_EBB */
    struct hostmem *hostmem;
    struct mm_host *mm;
    struct workers *workers;
    struct mm_thread *worker_threads[MM_MAX_WORKERS];
    pthread_mutex_t lock;
    struct mm_thread *caller_thread; /* guarded by lock */
    struct memhost_numa numa;
    struct mm_policy policy;
    struct oom oom;
    /* BACKEND_KERNEL */
    struct kernel_backend *kernel;
};

struct memhost_vm {
    struct memhost *mh;
    struct memhost_vm_config config;
    struct guest_range plain; /* BACKEND_KERNEL */
    /* BACKEND_EBB */
    struct hostmem_vm *mem;
    struct mm_vm *mm;
    struct faultd *faultd;
    unsigned nr_threads;
    struct mm_thread **threads;
    struct oom_vm oom;
    atomic_bool failed;  /* on_fatal has been called */
    atomic_bool loading; /* memhost_vm_load */
};

/* --- the host --- */

int memhost_choose_transport(enum transport want, uint64_t features, bool *move, struct diag *diag)
{
    *move = want != TRANSPORT_COPY && hostmem_can_move(features);
    if (want == TRANSPORT_MOVE && !*move)
        return diag_set(diag, EXIT_HOST,
                        "this kernel cannot move pages (UFFDIO_MOVE, Linux 6.8): use --transport copy");
    if (!*move && !hostmem_can_copy(features))
        return diag_set(diag, EXIT_HOST,
                        "this kernel cannot write-protect pages (userfaultfd WP, Linux 5.7): use --backend kernel");
    return 0;
}

static void kick(void *ctx, enum mm_worker worker)
{
    struct memhost *mh = ctx;
    if (mh->workers)
        workers_kick(mh->workers, worker);
}

static bool run_worker(void *ctx, enum mm_worker worker)
{
    struct memhost *mh = ctx;
    struct mm_thread *thread = mh->worker_threads[worker];
    return worker == MM_HOUSEKEEPER ? mm_housekeep(thread) : mm_kswapd(thread, (unsigned)worker - MM_KSWAPD0);
}

static unsigned run_scanner(void *ctx)
{
    struct memhost *mh = ctx;
    return mm_scan(mh->worker_threads[MM_SCANNER]);
}

static int create_threads(struct memhost *mh)
{
    int err = mm_thread_create(mh->mm, &mh->caller_thread);
    for (unsigned i = 0; i < MM_KSWAPD(mm_nr_nodes(mh->mm)) && !err; i++)
        err = mm_thread_create(mh->mm, &mh->worker_threads[i]);
    return err;
}

static int create_ebb(struct memhost *mh, const struct memhost_config *config, struct diag *diag)
{
    uint64_t features;
    if (uffd_probe(&features, diag) || memhost_choose_transport(config->transport, features, &mh->move, diag))
        return -1;
    memhost_numa_init(&mh->numa, &config->mm, config->numa);
    mh->policy = config->policy;
    struct workers_config work = {
        .run = run_worker,
        .scan = run_scanner,
        .nr_nodes = MAX_OF(config->mm.nr_nodes, 1u),
        .node_cpus = mh->numa.node_cpus,
        .ctx = mh,
    };
    if (!config->no_workers && workers_create(&work, &mh->workers))
        return diag_set(diag, EXIT_HOST, "out of memory");
    struct hostmem_config mem = {
        .move = mh->move,
        .scattered = config->policy.nodes && config->policy.mode == MM_POLICY_INTERLEAVE_PAGES,
        .kick = kick,
        .kick_ctx = mh,
    };
    memhost_numa_arena(&config->mm, &mem);
    if (hostmem_create(&mem, &mh->hostmem, diag))
        return -1;
    int err = mm_host_create(&config->mm, &mh->hostmem->ops, mh->hostmem, mh->hostmem->arena, &mh->mm);
    if (!err)
        err = create_threads(mh);
    if (err == -EINVAL)
        return diag_set(diag, EXIT_USAGE, "the memory settings make no sense: --budget must be %llu MiB or more",
                        (unsigned long long)(MM_MIN_BUDGET >> 20));
    if (err)
        return diag_host(diag, -err, "memory manager");
    return mh->workers ? workers_start(mh->workers, diag) : 0;
}

static int create_kernel(struct memhost *mh, const struct memhost_config *config, struct diag *diag)
{
    if (kernel_backend_create(config->mm.budget_bytes, &config->mm.zram, &mh->kernel, diag))
        return -1;
    int err = kernel_backend_enter(mh->kernel);
    if (err)
        return diag_host(diag, -err, "cannot enter the memory cgroup");
    return 0;
}

/*
 * Memory that malloc keeps for threads counts as resident beside the budget: few arenas, and large blocks mapped and
 * given back one by one.
 */
static void tame_malloc(void)
{
    mallopt(M_ARENA_MAX, 2);
    mallopt(M_MMAP_THRESHOLD, 128 << 10);
}

int memhost_create(const struct memhost_config *config, struct memhost **out, struct diag *diag)
{
    tame_malloc();
    struct memhost *mh = calloc(1, sizeof(*mh));
    if (!mh)
        return diag_set(diag, EXIT_HOST, "out of memory");
    mh->backend = config->backend;
    pthread_mutex_init(&mh->lock, NULL);
    oom_init(&mh->oom);
    int err = mh->backend == BACKEND_EBB ? create_ebb(mh, config, diag) : create_kernel(mh, config, diag);
    if (err) {
        memhost_destroy(mh);
        return -1;
    }
    *out = mh;
    return 0;
}

void memhost_destroy(struct memhost *mh)
{
    if (mh->workers)
        workers_stop(mh->workers);
    for (unsigned i = 0; i < MM_MAX_WORKERS; i++)
        if (mh->worker_threads[i])
            mm_thread_destroy(mh->worker_threads[i]);
    if (mh->caller_thread)
        mm_thread_destroy(mh->caller_thread);
    if (mh->mm)
        mm_host_destroy(mh->mm);
    if (mh->hostmem)
        hostmem_destroy(mh->hostmem);
    if (mh->workers)
        workers_destroy(mh->workers);
    kernel_backend_destroy(mh->kernel);
    oom_fini(&mh->oom);
    pthread_mutex_destroy(&mh->lock);
    free(mh);
}

const char *memhost_transport(const struct memhost *mh)
{
    if (mh->backend == BACKEND_KERNEL)
        return "kernel";
    return mh->move ? "move" : "copy";
}

struct mm_host *memhost_mm(struct memhost *mh)
{
    return mh->mm;
}

struct kernel_backend *memhost_kernel(struct memhost *mh)
{
    return mh->kernel;
}

struct mm_thread *memhost_lock_thread(struct memhost *mh)
{
    pthread_mutex_lock(&mh->lock);
    return mh->caller_thread;
}

void memhost_unlock_thread(struct memhost *mh)
{
    pthread_mutex_unlock(&mh->lock);
}

/* --- VMs --- */

/* There is none for the page at @gpa. True: try again. */
static bool wait_for_memory(struct memhost_vm *vm, gpa_t gpa, uint64_t *seen)
{
    uint8_t nodes = mm_vm_allowed_nodes(vm->mm, gpa);
    return !atomic_load(&vm->loading) && oom_wait(&vm->mh->oom, &vm->oom, nodes, seen);
}

static int handle_fault(void *ctx, unsigned thread, gpa_t gpa, unsigned flags)
{
    struct memhost_vm *vm = ctx;
    uint64_t seen = 0;
    int err;
    do
        err = mm_fault(vm->threads[thread], vm->mm, gpa, flags);
    while (err == -ENOMEM && wait_for_memory(vm, gpa, &seen));
    return err;
}

static void report_fatal(void *ctx, int err, gpa_t gpa)
{
    struct memhost_vm *vm = ctx;
    if (atomic_exchange(&vm->failed, true))
        return;
    if (err == -ENOMEM)
        mm_note_oom_kill(vm->mh->mm);
    if (vm->config.on_fatal)
        vm->config.on_fatal(vm->config.ctx, err, gpa);
}

bool memhost_vm_no_page(struct memhost_vm *vm, int err, gpa_t gpa, uint64_t *seen)
{
    if (err == -ENOMEM && wait_for_memory(vm, gpa, seen))
        return true;
    report_fatal(vm, err, gpa);
    return false;
}

/* It holds most of what another VM may use, which finds no memory. */
static void stop_victim(void *ctx)
{
    report_fatal(ctx, -ENOMEM, (gpa_t){0});
}

/* What is in zram and swap counts for every node: pages of any may go there instead. */
static uint64_t held_bytes(void *ctx, uint8_t nodes)
{
    const struct memhost_vm *vm = ctx;
    uint64_t resident[MM_MAX_NODES], standby[MM_MAX_NODES], pages = 0;
    struct mm_vm_stat stat;
    mm_vm_stat(vm->mm, &stat);
    mm_vm_nodes(vm->mm, resident);
    mm_vm_standby_nodes(vm->mm, standby);
    for (unsigned n = 0; n < MM_MAX_NODES; n++)
        if (nodes >> n & 1)
            pages += resident[n] + standby[n];
    return pages * PAGE_BYTES + stat.zram_compressed_bytes + stat.swap_bytes;
}

static int create_vm_mm(struct memhost_vm *vm, struct diag *diag)
{
    unsigned nr_threads = vm->config.nr_fault_threads;
    int err = mm_vm_create(vm->mh->mm, vm->config.regions, vm->config.nr_regions, &vm->mm);
    if (err)
        return diag_set(diag, err == -EINVAL ? EXIT_USAGE : EXIT_HOST, "guest memory: %s", strerror(-err));
    hostmem_vm_attach(vm->mem, mm_vm_id(vm->mm));
    vm->oom = (struct oom_vm){.bytes = held_bytes, .stop = stop_victim, .ctx = vm};
    oom_add(&vm->mh->oom, &vm->oom);
    if (memhost_numa_place(vm->mm, vm->config.regions, vm->config.nr_regions, &vm->mh->policy, diag))
        return -1;
    vm->threads = calloc(nr_threads, sizeof(struct mm_thread *));
    if (!vm->threads)
        return diag_set(diag, EXIT_HOST, "out of memory");
    for (; vm->nr_threads < nr_threads; vm->nr_threads++) {
        err = mm_thread_create(vm->mh->mm, &vm->threads[vm->nr_threads]);
        if (err)
            return diag_host(diag, -err, "fault thread");
    }
    return 0;
}

static int create_vm_ebb(struct memhost_vm *vm, struct diag *diag)
{
    if (hostmem_vm_create(vm->mh->hostmem, vm->config.regions, vm->config.nr_regions, &vm->mem, diag))
        return -1;
    if (create_vm_mm(vm, diag))
        return -1;
    struct faultd_config config = {
        .mem = vm->mem,
        .nr_threads = vm->nr_threads,
        .cpus = vm->config.fault_cpus,
        .node_of_cpu = vm->mh->numa.node_of_cpu,
        .handle = handle_fault,
        .on_fatal = report_fatal,
        .ctx = vm,
    };
    return faultd_start(&config, &vm->faultd, diag);
}

static int create_vm_kernel(struct memhost_vm *vm, struct diag *diag)
{
    int err = guest_range_map(&vm->plain, vm->config.regions, vm->config.nr_regions, 0);
    if (err)
        return diag_set(diag, err == -EINVAL ? EXIT_USAGE : EXIT_HOST, "guest memory: %s", strerror(-err));
    return 0;
}

int memhost_vm_add(struct memhost *mh, const struct memhost_vm_config *config, struct memhost_vm **out,
                   struct diag *diag)
{
    struct memhost_vm *vm = calloc(1, sizeof(*vm));
    if (!vm)
        return diag_set(diag, EXIT_HOST, "out of memory");
    vm->mh = mh;
    vm->config = *config;
    vm->config.nr_fault_threads = MAX_OF(config->nr_fault_threads, 1u);
    int err = mh->backend == BACKEND_EBB ? create_vm_ebb(vm, diag) : create_vm_kernel(vm, diag);
    /* the caller's, and not needed any more */
    vm->config.regions = NULL;
    vm->config.fault_cpus = NULL;
    if (err) {
        memhost_vm_remove(vm);
        return -1;
    }
    *out = vm;
    return 0;
}

int memhost_vm_bind(struct memhost_vm *vm, gpa_t gpa, uint64_t bytes, int node, struct diag *diag)
{
    if (!vm->mm)
        return diag_set(diag, EXIT_USAGE, "node %d: with --backend kernel memory is not bound to nodes", node);
    return memhost_numa_bind(vm->mh->mm, vm->mm, gpa, bytes, node, diag);
}

void memhost_vm_add_vcpu(struct memhost_vm *vm, unsigned index, int cpu)
{
    if (vm->faultd)
        faultd_add_vcpu(vm->faultd, index, gettid(), cpu);
}

static const struct guest_range *vm_range(const struct memhost_vm *vm)
{
    return vm->mem ? &vm->mem->range : &vm->plain;
}

void *memhost_vm_hva(struct memhost_vm *vm, gpa_t gpa, uint64_t bytes)
{
    return guest_range_hva(vm_range(vm), gpa, bytes);
}

struct mm_vm *memhost_vm_mm(struct memhost_vm *vm)
{
    return vm->mm;
}

uint64_t memhost_vm_resident_bytes(struct memhost_vm *vm)
{
    return guest_range_resident_bytes(vm_range(vm));
}

void memhost_vm_load(struct memhost_vm *vm, bool loading)
{
    atomic_store(&vm->loading, loading);
}

void memhost_vm_forget(struct memhost_vm *vm, gpa_t gpa, uint64_t bytes)
{
    void *at = memhost_vm_hva(vm, gpa, bytes);
    uint64_t dropped;
    int err;
    if (vm->mm) {
        err = mm_drop(memhost_lock_thread(vm->mh), vm->mm, gpa, bytes, MM_DROP_FREE, 0, &dropped);
        memhost_unlock_thread(vm->mh);
    } else {
        err = madvise(at, bytes, MADV_DONTNEED);
    }
    if (err)
        memset(at, 0, bytes);
}

void memhost_vm_release_waiters(struct memhost_vm *vm)
{
    if (vm->mem)
        hostmem_vm_release(vm->mem);
}

bool memhost_vm_end(struct memhost_vm *vm)
{
    return oom_end(&vm->mh->oom, &vm->oom);
}

bool memhost_vm_is_wanted(struct memhost_vm *vm)
{
    return oom_is_victim(&vm->mh->oom, &vm->oom);
}

/* Not by the callers' thread, if possible: one may have it for seconds, and others wait for this VM's memory. */
static void destroy_mm(struct memhost_vm *vm)
{
    if (vm->nr_threads > 0) {
        mm_vm_destroy(vm->threads[0], vm->mm);
        return;
    }
    mm_vm_destroy(memhost_lock_thread(vm->mh), vm->mm);
    memhost_unlock_thread(vm->mh);
}

void memhost_vm_remove(struct memhost_vm *vm)
{
    if (vm->mm)
        oom_leave(&vm->mh->oom, &vm->oom);
    if (vm->faultd)
        faultd_stop(vm->faultd);
    if (vm->mm) {
        destroy_mm(vm);
        oom_freed(&vm->mh->oom, &vm->oom);
    }
    for (unsigned i = 0; i < vm->nr_threads; i++)
        mm_thread_destroy(vm->threads[i]);
    free(vm->threads);
    if (vm->mem)
        hostmem_vm_destroy(vm->mem);
    guest_range_unmap(&vm->plain);
    free(vm);
}
