/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mm: the memory manager of one process. A memory host (pool, zram, swap, LRU) is shared by its VMs.
 *
 * Everything here may be called from any thread unless it says otherwise. Read mm/README.md first.
 */
#ifndef MM_MM_H
#define MM_MM_H

#include "mm/host_ops.h"
#include "mm/frame/slab.h"
#include "mm/frame/zone.h"
#include "mm/stats.h"
#include "mm/swap/area.h"
#include "mm/swap/zram.h"

struct mm_host;
struct mm_vm;
/* What one thread that calls mm_fault or the workers owns: page lists, compressor state, buffers. */
struct mm_thread;

/* A node of the host's memory that guests' pages may be on. */
struct mm_node_config {
    int id;                         /* the host's number of it; MM_NODE_ANY: the kernel places pages as it likes */
    uint64_t budget_bytes;          /* its part of the budget; a multiple of PAGE_BYTES, >= MM_MIN_NODE_BUDGET */
    uint8_t distance[MM_MAX_NODES]; /* to each of the nodes, as in ACPI SLIT: 10 is itself */
    uint8_t rank;                   /* tier: 0 is the fastest */
};
#define MM_NODE_ANY (-1)
#define MM_MIN_NODE_BUDGET (UINT64_C(2) << 20)

struct mm_config {
    uint64_t
        budget_bytes; /* physical memory for guests, stores and stock; a multiple of PAGE_BYTES, >= MM_MIN_BUDGET */
    struct zram_config zram; /* limit_bytes 0: none */
    bool thp;                /* 2 MiB frames on first touch where the pool allows */
    uint32_t
        fault_around_pages; /* first touch without a 2 MiB frame: pages brought in, power of two 1..64; 0 for default */
    uint32_t readahead_pages; /* largest swap-in readahead, power of two 1..64; 0 for default; 1 for none */
    uint32_t standby_pct;     /* share of resident pages held as standby under pressure; 0 for default */
    bool numa_balancing;      /* pages follow who touches them */
    uint64_t demote_bytes_per_s, promote_bytes_per_s; /* between nodes of different rank; 0: no limit */
    uint32_t collapse_pct; /* most of one CPU for rebuilding blocks as 2 MiB frames, 0..100; 0: none */
    unsigned nr_nodes;     /* 0: one, MM_NODE_ANY, with all of the budget */
    struct mm_node_config nodes[MM_MAX_NODES];
};
#define MM_MIN_BUDGET (UINT64_C(8) << 20)

/* Slots the arena must have for a budget: more than the budget has pages, so that there is always a run to come home
 * to. */
uint32_t mm_arena_slots(const struct mm_config *config);
/* Slots of node i are [start[i], start[i + 1]), whole blocks. Returns how many nodes there are. */
unsigned mm_arena_layout(const struct mm_config *config, fn_t start[MM_MAX_NODES + 1]);

/*
 * mm_host_create - @ops, @ops_ctx outlive the host; @arena: address of slot 0, mm_arena_slots() empty slots.
 * Returns 0, -EINVAL (config), -ENOMEM; nothing remains after an error.
 */
must_check int mm_host_create(const struct mm_config *config, const struct host_ops *ops, void *ops_ctx, void *arena,
                              struct mm_host **out);
/* All VMs and threads must be gone. Closes swap areas. */
void mm_host_destroy(struct mm_host *host);

must_check int mm_thread_create(struct mm_host *host, struct mm_thread **out);
void mm_thread_destroy(struct mm_thread *thread);

struct mm_region {
    gpa_t start;
    uint64_t bytes; /* multiples of BLOCK_BYTES, both; regions do not overlap */
    bool unplugged; /* not memory until mm_plug says so */
};
#define MM_MAX_REGIONS 8
/* -EINVAL, -ENOMEM, -ENOSPC (4095 VMs). The host has room for the VM's range before this is called: ops get vm id
 * mm_vm_id(). */
must_check int mm_vm_create(struct mm_host *host, const struct mm_region *regions, unsigned nr, struct mm_vm **out);
vmid_t mm_vm_id(const struct mm_vm *vm);
/* No fault may be under way. Every page is dropped, every frame, object and slot freed. */
void mm_vm_destroy(struct mm_thread *thread, struct mm_vm *vm);

/*
 * mm_vm_place - which nodes the pages of [gpa, gpa + bytes), whole blocks, come from. Before the VM runs; the last word
 * counts. Without one: local, all nodes. Returns 0; -EINVAL: no such node, none, or not whole blocks of one region;
 * -ENOSPC: more than MM_MAX_PLACES ranges.
 */
enum mm_policy_mode {
    MM_POLICY_LOCAL,            /* the node of who faults, or the nearest one that has room */
    MM_POLICY_BIND,             /* these nodes, strictly: where they are full they are reclaimed */
    MM_POLICY_PREFERRED,        /* the first of these, or the nearest one that has room */
    MM_POLICY_INTERLEAVE,       /* these in turn by block of 2 MiB, or the nearest one that has room */
    MM_POLICY_INTERLEAVE_PAGES, /* these in turn by page */
};
struct mm_policy {
    enum mm_policy_mode mode;
    uint8_t nodes; /* bit i: node i of the configuration; LOCAL: where a page may be at all */
};
#define MM_MAX_PLACES 16
must_check int mm_vm_place(struct mm_vm *vm, gpa_t gpa, uint64_t bytes, const struct mm_policy *policy);
/* The nodes that the page at @gpa may be on: bit i for node i of the configuration. */
uint8_t mm_vm_allowed_nodes(const struct mm_vm *vm, gpa_t gpa);

#define MM_FAULT_WRITE 1u
#define MM_FAULT_WP 2u /* write-protect event of the copying transport */
/* Who touched the page: a node of the configuration and a vCPU, 0..4094. Without it nobody knows. */
#define MM_FAULT_FROM(node, vcpu) (((node) + 1u) << 16 | ((vcpu) + 1u) << 20)
/*
 * mm_fault - make the page at @gpa present and wake who waits for it. The only way in.
 * Returns 0; -EFAULT: outside every region; -ENOMEM: budget, zram and swap are full, nothing can be reclaimed;
 * -EIO: the page's content is lost (swap read error, bad checksum): the entry is S2_POISON from now on.
 * After an error the waiter still waits: the caller stops the VM. Takes block locks; may do I/O.
 */
must_check int mm_fault(struct mm_thread *thread, struct mm_vm *vm, gpa_t gpa, unsigned flags);

/*
 * What the guest says of its own memory. Ranges are whole pages inside one region, else -EFAULT with nothing changed.
 *
 * mm_drop - the guest gives [gpa, gpa + bytes) up: the content is lost; frames, objects and slots are free. Whole
 * blocks leave by one host operation, up to 16 that follow each other. @how says what the pages are from now on:
 *   MM_DROP_FREE     absent: the next touch gets pages of zeros, or of the 32-bit word @fill, repeated, when it is not 0
 *   MM_DROP_BALLOON  in the balloon, counted as such; a touch takes the page out of it (@fill as above)
 * Blocks of which a page is pinned, and unplugged ones, are left as they are. *dropped_pages: pages that were something else before. Returns 0; -ENOMEM: no table
 * for a block that loses a part of its pages: what came before it is dropped, the rest is as it was. Does no I/O.
 */
enum mm_drop_how { MM_DROP_FREE, MM_DROP_BALLOON };
must_check int mm_drop(struct mm_thread *thread, struct mm_vm *vm, gpa_t gpa, uint64_t bytes, enum mm_drop_how how,
                       uint32_t fill, uint64_t *dropped_pages);
/*
 * Pages of the range that are in the balloon are not any more: absent (or as @fill said). Cannot run out of memory: of a
 * block that is in the balloon as a whole, and for which there is no table, a part stays there until it is touched.
 */
must_check int mm_balloon_return(struct mm_vm *vm, gpa_t gpa, uint64_t bytes);

/*
 * mm_pin - the pages of [gpa, gpa + bytes), any bytes inside one region, are resident and stay so, at one address, until
 * mm_unpin with the same range: nobody takes or drops them. For I/O that goes straight to guest memory. Pins nest.
 * Returns 0, or what mm_fault returns, with nothing pinned; of no bytes, 0 and nothing pinned. May do I/O and
 * reclaim. While a page of a 2 MiB block is pinned, all of the block is kept from reclaim. A VM is destroyed unpinned.
 */
must_check int mm_pin(struct mm_thread *thread, struct mm_vm *vm, gpa_t gpa, uint64_t bytes);
void mm_unpin(struct mm_vm *vm, gpa_t gpa, uint64_t bytes);

/*
 * mm_plug - whole blocks inside one region are memory (@plugged), absent at first, or are not: their pages are dropped,
 * and a touch is -EFAULT, which stops the VM. Blocks that are so already stay as they are. Returns 0; -EFAULT: outside;
 * -EINVAL: not whole blocks; -EBUSY: a block to be unplugged is pinned (or being unplugged by another thread), nothing
 * has changed.
 */
must_check int mm_plug(struct mm_thread *thread, struct mm_vm *vm, gpa_t gpa, uint64_t bytes, bool plugged);

/* Reclaim until the node's free pages reach the high watermark or nothing more can be had. One caller a node at a time.
 * True: made progress. */
bool mm_kswapd(struct mm_thread *thread, unsigned node);
/*
 * mm_scan - one round of what looks for where pages belong, and which are in use: takes some home to see who touches
 * them next. One caller at a time. Returns ms until the next round; 0: there is nothing to look for.
 */
unsigned mm_scan(struct mm_thread *thread);
/* Zeroed stock, pool shrink, slab reap, zram compaction: one bounded round. True: more to do at once. */
bool mm_housekeep(struct mm_thread *thread);

/*
 * Compaction: standby pages are moved together, so that free frames are whole blocks of 2 MiB. A fault that wants 2 MiB
 * does it for itself when memory is free but in pieces; mm_housekeep does it in the background.
 *
 * mm_compact - by hand: all of node @node (index). *runs: blocks of 2 MiB that became free in one piece. Returns 0;
 * -EINVAL: no such node; -ECANCELED: after mm_stop_work.
 */
must_check int mm_compact(struct mm_thread *thread, unsigned node, uint64_t *runs);
struct mm_compaction {
    uint32_t extfrag_threshold; /* a fault compacts at an extfrag_index (fragindex.h) above this: 0..1000 */
    uint32_t proactiveness;     /* how early the background does, unasked: 0 never .. 100 */
};
/* -EINVAL: a value out of its range, nothing changed. */
must_check int mm_compaction_set(struct mm_host *host, const struct mm_compaction *compaction);
void mm_compaction_get(const struct mm_host *host, struct mm_compaction *out);

/*
 * mm_reclaim - by hand: take and evict until @pages more are free. @to_store: push through standby into zram and swap
 * at once. Returns pages taken or, @to_store, pages that have left the host's memory: one that only went to a slower node
 * has not. For `ebb reclaim`, tests and benchmarks.
 */
uint64_t mm_reclaim(struct mm_thread *thread, struct mm_vm *vm, uint64_t pages, bool to_store);

/* The set for swap_area_add. */
struct swap_set *mm_swap_set(struct mm_host *host);
/*
 * mm_swapoff - brings every page of the area back (to frames or zram or other areas), then removes it. Other threads go
 * on. -ENOENT; -ENOMEM: they do not fit, and the area stays as it was, still in use; -EIO: a page could not be read,
 * the same; -ECANCELED: after mm_stop_work, the same.
 */
must_check int mm_swapoff(struct mm_thread *thread, const char *name);
/* The host is about to go: mm_reclaim and mm_swapoff, under way or yet to come, give up soon. */
void mm_stop_work(struct mm_host *host);

/* The caller stops a VM because -ENOMEM was the answer: counted as oom_kill. */
void mm_note_oom_kill(struct mm_host *host);

/*
 * mm_peek - what the page at @gpa holds, without bringing it in. *where says how to come by it:
 *   MM_PEEK_ZERO      zeros: never touched, given up, or in the balloon
 *   MM_PEEK_COPIED    it is in @page now (PAGE_BYTES)
 *   MM_PEEK_RESIDENT  it is in the guest, to be read there; who is slower than reclaim waits for it to come back
 *   MM_PEEK_NOTHING   unplugged: not memory
 * Returns 0; -EFAULT: outside every region; -EIO: the content is lost, or could not be read now. Nothing changes. May do
 * I/O; takes the block's lock.
 */
enum mm_peek { MM_PEEK_ZERO, MM_PEEK_COPIED, MM_PEEK_RESIDENT, MM_PEEK_NOTHING };
must_check int mm_peek(struct mm_thread *thread, struct mm_vm *vm, gpa_t gpa, enum mm_peek *where, void *page);

struct mm_vm_stat {
    vmid_t id;
    uint64_t memory_bytes, resident_bytes, standby_bytes, zram_bytes, swap_bytes, untouched_bytes, balloon_bytes,
        poisoned_bytes;             /* these sum to memory_bytes, up to pages in flight while the VM runs */
    uint64_t unplugged_bytes;       /* not in memory_bytes */
    uint64_t zram_compressed_bytes; /* host: estimate by the store's ratio */
    uint64_t stage2_tables_bytes, nr_blocks, nr_huge_blocks;
    uint64_t nr_minor, nr_major;
};
/* Counters only, as mm_vm_nodes and mm_vm_standby_nodes: takes no lock of a block, whatever the VM's size. */
void mm_vm_stat(const struct mm_vm *vm, struct mm_vm_stat *out);
/* Latency from the moment mm_fault was called until the page was placed. Merged over threads. ns. */
void mm_fault_hist(struct mm_vm *vm, struct hist *minor, struct hist *major);

struct mm_host_stat {
    uint64_t budget_bytes, charged_bytes, free_bytes; /* charged + unused units = budget */
    uint64_t filled_free_bytes, units_free_bytes, zeroed_stock_bytes;
    uint64_t resident_bytes, standby_bytes, zram_used_bytes;
    uint64_t metadata_bytes, metadata_frames_bytes, metadata_stage2_bytes, metadata_blocks_bytes, metadata_swap_bytes;
    uint32_t wmark_pages[NR_WMARK];
    uint64_t nr_active_blocks;
    const char *collapse_off;          /* why no blocks are rebuilt as 2 MiB frames, for people; NULL: they are */
    uint64_t collapse_longest_held_ns; /* a block was locked to be rebuilt, and faults on it waited */
    uint64_t event[NR_VM_EVENTS];
};
void mm_host_stat(struct mm_host *host, struct mm_host_stat *out);
/*
 * What can be done with the pages of the budget when room is needed, in the order in which it is done:
 *   free          nothing is in the way
 *   discardable   content that can be made again: the stock of zeroed frames
 *   syncable      has a home on a disk; written back if dirty, then dropped (virtual disks' pages)
 *   swappable     pages of guests, in the guest or standby: compressed or written to swap
 *   unreclaimable the store's own pages, pages on their way to a store, metadata of the pool
 */
enum mm_page_class { MM_FREE, MM_DISCARDABLE, MM_SYNCABLE, MM_SWAPPABLE, MM_UNRECLAIMABLE, MM_NR_PAGE_CLASSES };
extern const char *const mm_page_class_names[MM_NR_PAGE_CLASSES];
/* Pages of the budget by class; racy, they sum to the budget up to pages in flight. */
void mm_page_classes(struct mm_host *host, uint64_t pages[MM_NR_PAGE_CLASSES]);

/* NULL when there is no store. */
struct zram *mm_zram(struct mm_host *host);

/* What each node has. Counters as Linux's /sys/devices/system/node/nodeN/numastat, pages. */
struct mm_node_stat {
    int id;
    uint8_t rank;
    uint8_t distance[MM_MAX_NODES];
    uint64_t budget_bytes, free_bytes, resident_bytes, standby_bytes, zeroed_stock_bytes;
    uint32_t wmark_pages[NR_WMARK];
    uint64_t numa_hit;       /* came from here, as was wanted */
    uint64_t numa_miss;      /* came from here although another node was wanted */
    uint64_t numa_foreign;   /* wanted from here, came from another node */
    uint64_t interleave_hit; /* of numa_hit, by an interleaving policy */
    uint64_t local_node;     /* came from here, for who runs here; known where faults say who touched */
    uint64_t other_node;     /* came from here, for who runs on another node */
};
unsigned mm_nr_nodes(const struct mm_host *host);
void mm_node_stat(struct mm_host *host, unsigned node, struct mm_node_stat *out);
/* Touches of pages that were out to see who touches them, by vCPU. False: none from @vcpu. */
struct mm_vcpu_stat {
    unsigned node; /* host's number of it, where it was last */
    uint64_t numa_hint_faults, numa_hint_faults_local;
};
bool mm_vcpu_stat(const struct mm_vm *vm, unsigned vcpu, struct mm_vcpu_stat *out);
/* Pages of the VM that are in the guest, by node. */
void mm_vm_nodes(const struct mm_vm *vm, uint64_t pages[MM_MAX_NODES]);
/* Pages of the VM that are standby, taken home with their content, by node. */
void mm_vm_standby_nodes(const struct mm_vm *vm, uint64_t pages[MM_MAX_NODES]);

struct mm_zone_stat {
    const char *name;
    unsigned node; /* the host's number of it; 0 where the kernel chooses */
    uint32_t start_fn, nr_frames, nr_free[NR_PLANES], nr_blocks[NR_PLANES][MAX_ORDER + 1]; /* of all types */
    struct zone_types types;
    uint32_t wmark[NR_WMARK];
};
unsigned mm_zone_stat(struct mm_host *host, struct mm_zone_stat *out, unsigned max);
unsigned mm_slab_stat(struct mm_host *host, struct slab_stat *out, unsigned max);
/* Calls @each for every VM, under the list lock: no mm call inside but the stat ones. */
void mm_for_each_vm(struct mm_host *host, void (*each)(void *ctx, struct mm_vm *vm), void *ctx);

/* State of one guest page, for show and tests. -EFAULT outside. */
struct mm_page_info {
    const char *state; /* "resident", "standby", ... */
    uint8_t age;
    bool huge;
    int node; /* host's number of the one it is on; MM_NODE_ANY: it is in no node's memory, or nothing is bound */
    fn_t fn;
    uint64_t raw_pmd, raw_pte;
};
must_check int mm_page_info(struct mm_vm *vm, gpa_t gpa, struct mm_page_info *out);
unsigned mm_regions(struct mm_vm *vm, struct mm_region *out, unsigned max);

/* Every invariant of every structure; no other thread may be in mm. False and *why on a breach. */
bool mm_check(struct mm_host *host, const char **why);

#endif
