/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_ops: the only way from mm/ to the kernel. vmm/hostmem_*.c implements it with userfaultfd,
 * tests/fake/fake_host.c in arrays, with a switch that makes the n-th call fail.
 *
 * The arena is one range of slots in this process, PAGE_BYTES each, 2 MiB aligned. A slot is
 *   filled: it has a physical page;  empty: it has none, and nobody may touch it.
 * Guest memory is one range a VM, addressed by gfn. mm/ never touches guest memory by address.
 * Each node of memory has a part of the slots. A page that is made in a slot (populate) is of the slot's node, one that
 * moves stays on its node: mm/ moves it to and from slots of that node only.
 *
 * mm/ calls these with at most a block lock held (drop: locks of several), never under a zone, LRU, store or swap lock.
 * All of them may be called from several threads at once, never for the same pages.
 */
#ifndef MM_HOST_OPS_H
#define MM_HOST_OPS_H

#include "mm/base/types.h"

/* Background work that mm/ asks its owner to run soon, in a thread of its own. */
enum mm_worker {
    MM_HOUSEKEEPER, /* call mm_housekeep() */
    MM_SCANNER,     /* call mm_scan() */
    MM_KSWAPD0,     /* and up to MM_MAX_NODES - 1 more: call mm_kswapd() for node worker - MM_KSWAPD0 */
    MM_MAX_WORKERS = MM_KSWAPD0 + MM_MAX_NODES,
};
#define MM_KSWAPD(node) ((enum mm_worker)(MM_KSWAPD0 + (node)))

struct host_ops {
    /*
     * populate - empty slots [fn, fn + nr) become filled, every byte zero.
     * nr == BLOCK_PAGES with fn a multiple of it asks for one huge page; the call succeeds without one too.
     * Returns 0, or -errno (-ENOMEM) with all the slots still empty.
     */
    int (*populate)(void *ctx, fn_t fn, uint32_t nr);

    /*
     * release - filled slots [fn, fn + nr) become empty; the kernel has the pages back. Cannot fail.
     */
    void (*release)(void *ctx, fn_t fn, uint32_t nr);

    /*
     * place - the pages of the filled slots [fn, fn + nr) become the guest pages [gfn, gfn + nr), which were absent.
     * nr == BLOCK_PAGES, both aligned, moves a huge page as one.
     * @done: pages placed, from the start; their slots are empty afterwards. Returns 0 with *done == nr, or -errno
     * with *done < nr and the rest as it was. Waits out passing conditions (EAGAIN) itself. Wakes whoever waits for the
     * pages.
     */
    int (*place)(void *ctx, vmid_t vm, gfn_t gfn, fn_t fn, uint32_t nr, uint32_t *done);

    /*
     * place_copy - as place, but the content is copied from @src (nr pages, any memory of this process) and new
     * physical pages of node @node are used: the caller has charged them there.
     */
    int (*place_copy)(void *ctx, vmid_t vm, gfn_t gfn, const void *src, uint32_t nr, unsigned node, uint32_t *done);

    /*
     * take - the guest pages [gfn, gfn + nr) that are present come home to slots [fn, fn + nr), which are empty.
     * Absent guest pages are skipped: their slots stay empty. Atomic for each page: a guest write is in the page
     * that came home, or faults. @done as for place. -EBUSY: guest page gfn + *done is pinned and stays where it is.
     */
    int (*take)(void *ctx, vmid_t vm, gfn_t gfn, fn_t fn, uint32_t nr, uint32_t *done);

    /*
     * drop - guest pages [gfn, gfn + nr), present or not, become absent; their content is lost. Cannot fail. @nr is at most
     * that of a block, or of whole blocks, all of which are locked.
     */
    void (*drop)(void *ctx, vmid_t vm, gfn_t gfn, uint32_t nr);

    /* wake - whoever waits for a fault in [gfn, gfn + nr) tries again. */
    void (*wake)(void *ctx, vmid_t vm, gfn_t gfn, uint32_t nr);

    /* Monotonic time in ns. */
    uint64_t (*clock_ns)(void *ctx);

    /*
     * CPU time in ns that the calling thread has taken: what a quota of a CPU is paid in, for others that run meanwhile are
     * none of its cost. A system call: not for every fault.
     */
    uint64_t (*cpu_ns)(void *ctx);

    /* kick - let @worker run soon. Cheap when it runs already; callable under any lock but zone locks. */
    void (*kick)(void *ctx, enum mm_worker worker);

    /*
     * Pages that take and place need for a moment beyond those they move (a copying transport holds a page twice).
     * mm/ keeps them out of the budget.
     */
    uint32_t transient_pages;

    /*
     * A guest block that was dropped whole keeps its page table, which makes placing 2 MiB over it slow: mm/ places
     * single pages there.
     */
    bool keeps_tables;

    /*
     * CPU time that faults in an empty block take in vCPUs before anybody is asked, beside that of mm_fault: where
     * keeps_tables, the kernel zeroes 2 MiB first, for nothing.
     */
    uint32_t block_fault_ns;

    /*
     * CPU time that a fault takes in the thread that serves it before mm_fault is called and after it has returned, about; 0
     * until it is known. Atomic: it is measured while faults come.
     */
    uint32_t fault_ns;

    /* place makes no huge page of the kernel's (a copying transport): nothing is won by placing 2 MiB once more as one. */
    bool no_huge;
};

#endif
