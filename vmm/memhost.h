/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memhost: a memory host with its threads. Guest memory for VMs (or for tests' and benchmarks' own threads: nothing
 * here knows KVM), the arena, userfaultfd, one kswapd, one housekeeper, fault threads.
 *
 *   backend EBB:    mm/ over hostmem_move or hostmem_copy
 *   backend KERNEL: plain anonymous memory in a memory cgroup limited to the budget, with a kernel zram as swap
 */
#ifndef VMM_MEMHOST_H
#define VMM_MEMHOST_H

#include "mm/mm.h"
#include "vmm/diag.h"

struct numa_host;

enum backend { BACKEND_EBB, BACKEND_KERNEL };
enum transport { TRANSPORT_AUTO, TRANSPORT_MOVE, TRANSPORT_COPY };

struct memhost_config {
    enum backend backend;
    enum transport transport;
    struct mm_config mm;          /* BACKEND_KERNEL uses budget_bytes and zram */
    bool no_workers;              /* tests: no kswapd and housekeeper threads */
    struct mm_policy policy;      /* of all VMs' memory, until mm_vm_place says more; without nodes: mm/'s default */
    const struct numa_host *numa; /* the nodes that mm.nodes are of; NULL: as the kernel tells */
};

struct memhost;
struct memhost_vm;
struct kernel_backend;

/* 0, or -1 with diag. Probes what the kernel can; after an error nothing remains. */
must_check int memhost_create(const struct memhost_config *config, struct memhost **out, struct diag *diag);
/* What memhost_create does with a kernel of these userfaultfd @features: *move where it can be had and is not refused.
 * 0, or -1 with diag.
 */
must_check int memhost_choose_transport(enum transport want, uint64_t features, bool *move, struct diag *diag);
/* Every VM must have been removed. Joins threads, closes descriptors, removes cgroup and zram of the kernel backend. */
void memhost_destroy(struct memhost *mh);
/* "move", "copy" or "kernel". */
const char *memhost_transport(const struct memhost *mh);
/* NULL for BACKEND_KERNEL. */
struct mm_host *memhost_mm(struct memhost *mh);
/* NULL for BACKEND_EBB. */
struct kernel_backend *memhost_kernel(struct memhost *mh);
/* An mm_thread for callers outside the workers (API, tests): guarded by memhost_lock_thread/unlock. BACKEND_EBB only.
 */
struct mm_thread *memhost_lock_thread(struct memhost *mh);
void memhost_unlock_thread(struct memhost *mh);

struct memhost_vm_config {
    const struct mm_region *regions;
    unsigned nr_regions;
    unsigned nr_fault_threads; /* min(nr_vcpus, cpus of the host) */
    const int *fault_cpus;     /* CPU for each fault thread, or NULL: not bound */
    /* Called once, from a fault thread or memhost_vm_no_page, when a page cannot be had (err: -ENOMEM, -EIO, -EFAULT). The vCPU that needs
     * the page stays blocked until memhost_vm_release_waiters, which may be called from here; must not block.
     * -ENOMEM with @gpa 0, from a thread of another VM: nothing is left for that one, and this one holds most of
     * what it may use.
     * Other VMs wait for this one's memory: remove it soon. */
    void (*on_fatal)(void *ctx, int err, gpa_t gpa);
    void *ctx;
};
must_check int memhost_vm_add(struct memhost *mh, const struct memhost_vm_config *config, struct memhost_vm **out,
                              struct diag *diag);
/*
 * memhost_vm_add_vcpu - the calling thread is vCPU @index of the VM; @cpu: the only one it runs on, or THREAD_ANY_CPU
 * (-1). Its faults are told from those of others then. Does nothing for BACKEND_KERNEL.
 */
void memhost_vm_add_vcpu(struct memhost_vm *vm, unsigned index, int cpu);
/*
 * memhost_vm_bind - [gpa, gpa + bytes), whole blocks of one region, is on this node of the host and nowhere else. Before
 * the VM runs. 0, or -1 with diag: no such node is in the configuration.
 */
must_check int memhost_vm_bind(struct memhost_vm *vm, gpa_t gpa, uint64_t bytes, int node, struct diag *diag);
/* Address of [gpa, gpa + bytes) in this process; NULL when not inside one region. */
void *memhost_vm_hva(struct memhost_vm *vm, gpa_t gpa, uint64_t bytes);
/* NULL for BACKEND_KERNEL. */
struct mm_vm *memhost_vm_mm(struct memhost_vm *vm);
/* Bytes of guest memory that are resident as the kernel counts them (mincore / pagemap), for BACKEND_KERNEL's report.
 */
uint64_t memhost_vm_resident_bytes(struct memhost_vm *vm);
/*
 * memhost_vm_no_page - a thread that is none of the VM's fault threads got @err for the page at @gpa from mm/. Where
 * memory has run out it gets the choice that a fault gets: true when it is to try again, after a wait for another VM's
 * memory. False: on_fatal was called. *seen: 0 before the first try, then for this function alone. BACKEND_EBB only.
 */
bool memhost_vm_no_page(struct memhost_vm *vm, int err, gpa_t gpa, uint64_t *seen);
/*
 * memhost_vm_load - while @loading the caller touches the VM's pages itself, and is the one who would take other VMs down
 * for their memory: a page that cannot be had stops this VM (on_fatal), and waits for none of them.
 */
void memhost_vm_load(struct memhost_vm *vm, bool loading);
/*
 * memhost_vm_forget - [gpa, gpa + bytes), whole pages inside one region that nobody uses meanwhile and none of which is
 * pinned, is zeros from now on, and takes no memory (for want of a table of it, it does). Takes the lock of
 * memhost_lock_thread. Both backends.
 */
void memhost_vm_forget(struct memhost_vm *vm, gpa_t gpa, uint64_t bytes);
/*
 * memhost_vm_release_waiters - the VM is given up: from now on every fault of it is answered with a page of zeros from
 * outside the budget, so that its vCPUs can leave KVM_RUN and stop. At most one page per waiting thread. Its pages are
 * not reclaimed any more. Does nothing for BACKEND_KERNEL.
 */
void memhost_vm_release_waiters(struct memhost_vm *vm);
/*
 * memhost_vm_end - the VM runs no more, and keeps its memory. Its threads that wait for other VMs' memory give up, and
 * where memory runs out it is the first whose memory is wanted. True: that is so now; remove it, others wait.
 */
bool memhost_vm_end(struct memhost_vm *vm);
/* The same, asked later. */
bool memhost_vm_is_wanted(struct memhost_vm *vm);
/* No thread may touch the memory any more. Ends the fault threads; every page and frame is free afterwards. */
void memhost_vm_remove(struct memhost_vm *vm);

#endif
