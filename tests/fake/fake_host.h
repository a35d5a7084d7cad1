/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_ops in arrays: an arena whose slots are filled or empty, and the pages of several VMs, present or absent, with
 * their contents. Every call is checked against the contract of mm/host_ops.h; the first breach is kept as a text:
 *
 *     ck_assert_msg(!fake_host_breach(fh), "%s", fake_host_breach(fh));
 *
 *   physical pages = filled slots + present guest pages     (and never more than the budget, when one is set)
 *
 * An empty slot holds 0xa5 and is poisoned under the address sanitizer, so that touching it is caught. All calls take
 * one lock of rank LOCK_LRU: in a build with EBB_DEBUG_LOCKS, mm/ calling it with more than a block lock held aborts.
 * Thread-safe. Memory comes from mmap: tests/fake/fail_alloc.h does not see it.
 */
#ifndef TESTS_FAKE_FAKE_HOST_H
#define TESTS_FAKE_FAKE_HOST_H

#include "mm/host_ops.h"

struct fake_host;

/* Exits the program when there is no memory. All slots are empty. */
struct fake_host *fake_host_create(uint32_t nr_slots);
void fake_host_destroy(struct fake_host *fh);
/* The table to pass to mm/, with the fake_host itself as its context. @transient_pages may be set in it beforehand. */
struct host_ops *fake_host_ops(struct fake_host *fh);
/* Address of slot 0, aligned to BLOCK_BYTES. */
void *fake_host_arena(struct fake_host *fh);

/* Guest frames [0, nr_pages) of @vm exist from now on, all absent. */
void fake_host_add_vm(struct fake_host *fh, vmid_t vm, uint32_t nr_pages);
/* It is a breach when pages are still present. */
void fake_host_remove_vm(struct fake_host *fh, vmid_t vm);

/* The first breach of the contract, or NULL. Valid until destroy. */
const char *fake_host_breach(struct fake_host *fh);

/* More physical pages than this, those of a transfer under way included, are a breach. 0: no limit. */
void fake_host_set_budget(struct fake_host *fh, uint32_t pages);

/* Calls that can fail. */
enum fake_op { FAKE_POPULATE, FAKE_PLACE, FAKE_PLACE_COPY, FAKE_TAKE, FAKE_NR_OPS, FAKE_ANY = FAKE_NR_OPS };

struct fake_failure {
    enum fake_op op;      /* which calls are counted */
    long nth;             /* 1 is the next one; -1 for none */
    int err;              /* positive errno: the call returns -err */
    uint32_t after_pages; /* pages done before it fails (populate: always none); at most nr - 1 */
    unsigned again;       /* so many calls after it fail in the same way */
};
/* Arms one failure, replaces the one before, starts counting anew. */
void fake_host_fail(struct fake_host *fh, const struct fake_failure *failure);
/* The @nth call of any kind from now on fails with -@err and nothing done. */
void fake_host_fail_at(struct fake_host *fh, long nth, int err);
/* True when the armed failure has happened. */
bool fake_host_failed(struct fake_host *fh);

/* A pinned guest page cannot be taken: -EBUSY. */
void fake_host_pin(struct fake_host *fh, vmid_t vm, gfn_t gfn, bool pinned);

/*
 * What a guest does. 0, or -EFAULT when the page is absent: the test then calls mm_fault and tries again.
 * [off, off + bytes) lies inside the page.
 */
must_check int fake_host_guest_write(struct fake_host *fh, vmid_t vm, gfn_t gfn, uint32_t off, const void *src,
                                     uint32_t bytes);
must_check int fake_host_guest_read(struct fake_host *fh, vmid_t vm, gfn_t gfn, uint32_t off, void *dst,
                                    uint32_t bytes);
/* Address of guest frame 0, for I/O to present pages that are pinned; the others follow it. */
void *fake_host_guest(struct fake_host *fh, vmid_t vm);
bool fake_host_is_present(struct fake_host *fh, vmid_t vm, gfn_t gfn);
bool fake_host_is_filled(struct fake_host *fh, fn_t fn);

/*
 * Slots of node i are [start[i], start[i + 1]). Before the first call of host_ops; without it there is one node. A page
 * belongs to the node it was made on for good: to take it home to a slot of another node is a breach.
 */
void fake_host_set_nodes(struct fake_host *fh, unsigned nr, const fn_t start[]);
/* Node of a present guest page. */
unsigned fake_host_page_node(struct fake_host *fh, vmid_t vm, gfn_t gfn);
/* Pages of @vm that are present, by node. */
void fake_host_count_nodes(struct fake_host *fh, vmid_t vm, uint64_t pages[MM_MAX_NODES]);

/*
 * Both clocks move 1 ns at every reading of their own. fake_host_advance_ns: time passes, in which nobody asks for a CPU.
 * fake_host_work_ns: the caller works so long, and its CPU time grows as well.
 */
void fake_host_advance_ns(struct fake_host *fh, uint64_t ns);
void fake_host_work_ns(struct fake_host *fh, uint64_t ns);

struct fake_host_stat {
    uint64_t filled_pages, present_pages, physical_pages, peak_pages;
    uint64_t nr_calls[FAKE_NR_OPS], nr_pages[FAKE_NR_OPS]; /* pages done */
    uint64_t nr_release_pages, nr_drop_pages, nr_drops, nr_wakes, nr_kicks[MM_MAX_WORKERS];
    uint64_t nr_huge_place, nr_huge_take; /* one call that moved a huge page as one */
    uint64_t nr_splits;                   /* huge pages broken by a call for a part of them */
};
void fake_host_stat(struct fake_host *fh, struct fake_host_stat *out);

#endif
