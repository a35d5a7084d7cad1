/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What reclaim and everything above it share: the memory host, its VMs, their 2 MiB blocks, the calling thread.
 * Internal to mm/; users see mm/mm.h.
 *
 * Who may find a block, and how long it lives:
 *   from a fault    vm and gfn are given; the VM lives as long as faults may come
 *   from the LRU    under lru.lock; its block.lock is tried there, and only then lru.lock is let go
 *   from a frame    a standby frame names (vm, gfn); under lru.lock vm.nr_users is raised, which mm_vm_destroy waits
 * for
 *   from swapoff    by VM and number; vm.nr_users as from a frame
 *
 * Lock order: vms_lock < block.lock < lru.lock < stores < pool < zone (mm/base/lock.h).
 */
#ifndef MM_RECLAIM_HOST_H
#define MM_RECLAIM_HOST_H

#include "mm/frame/pcp.h"
#include "mm/frame/pool.h"
#include "mm/map/stage2.h"
#include "mm/mm.h"
#include "mm/base/rate.h"
#include "mm/reclaim/access_block.h"
#include "mm/reclaim/note.h"

#define MM_MAX_VMS 4096
/* Pages a thread's buffer holds; the largest readahead and fault-around. */
#define MM_BUFFER_PAGES 64u
/* Charges a thread takes from the pool at once, and pages it keeps to itself: at most so many, and 1/256 of the budget. */
#define MM_BATCH_MIN 8u
#define MM_BATCH_MAX 32u
/*
 * Between faults all threads together keep at most so small a part of a node's budget as charges, and as much as pages: of
 * hundreds of VMs most are idle, and what their threads keep nobody else can have. Chosen, unmeasured.
 */
#define MM_KEPT_SHARE 32u

/* lru_mark: a page that was not touched since the oldest mark was out of the guest for so many passes over all blocks. */
#define NR_STANDBY_MARKS 4u

struct block {
    struct mm_lock lock;
    uint64_t *pmd; /* its level-2 entry; constant */
    struct mm_vm *vm;
    gfn_t start; /* first page */
    /* guarded by lock */
    uint32_t nr_pins;                  /* mm_pin: what is in the guest stays there */
    uint64_t *table;                   /* level-1 table: under *pmd, or set aside for a split while *pmd is a leaf */
    uint16_t nr_resident;              /* pages in the guest */
    uint16_t nr_on_node[MM_MAX_NODES]; /* of these, by node */
    uint8_t nr_scans[MM_MAX_NODES];    /* times reclaim of a node looked at it, modulo 256; see age.h */
    uint16_t ra_next;                  /* readahead: index in the block at which a sequence would go on */
    uint8_t ra_window;                 /* pages brought in last */
    bool small;            /* the guest side may have a page table: no 2 MiB frame until it is dropped as a whole */
    bool closing;          /* about to be unplugged or not: pins wait */
    bool armed;            /* STANDBY 2 MiB: taken home to see who touches it next */
    struct page_note note; /* of a 2 MiB frame */
    uint8_t numa_skip;     /* passes of the scan for who touches what that leave it alone */
    uint16_t numa_moves;   /* pages that were migrated lately */
    uint32_t armed_ms;     /* of the clock, modulo 2^32: when it was armed last, samples of single pages left out */
    struct access_block access;
    /* mm/policy/page_size.h */
    bool was_whole;         /* nearly all in the guest when it was looked at last */
    bool on_trial;          /* split, or taken home, to see what of it is hot; not rebuilt since */
    uint8_t nr_failures;    /* rebuilding failed so often in a row */
    uint8_t passes_to_wait; /* before it is tried again */
    uint8_t nr_takes;       /* whole by reclaim, since it was on trial */
    uint8_t nr_acquittals;  /* times it was rebuilt and known to be hot, all of it */
    /* guarded by lru.lock */
    bool on_lru;
    uint8_t on_nodes; /* bit n: nr_on_node[n] > 0; written under lock; atomic */
    struct block *lru_prev, *lru_next;
};

/* mm_vm_place: pages [start, end). */
struct place {
    gfn_t start, end;
    struct mm_policy policy;
};

/* What is known of a vCPU from its faults. Atomic. */
struct vcpu_touches {
    uint8_t node; /* where it ran at its last fault */
    uint64_t hint_faults, hint_faults_local;
};

struct mm_vm {
    struct mm_host *host;
    vmid_t id;
    unsigned nr_regions;
    struct mm_region regions[MM_MAX_REGIONS];
    struct block *blocks[MM_MAX_REGIONS]; /* one array a region */
    struct place places[MM_MAX_PLACES];   /* later ones count before earlier ones; constant while faults may come */
    unsigned nr_places;
    struct stage2 stage2;
    /* Changed under the locks of the blocks they count; atomic: who sums them up waits for none. */
    uint64_t nr_pages[S2_TABLE];        /* by state; those in the host's memory are counted by node instead: */
    uint64_t nr_resident[MM_MAX_NODES]; /* S2_RESIDENT */
    uint64_t nr_standby[MM_MAX_NODES];  /* S2_STANDBY */
    uint64_t nr_blocks, nr_huge_blocks; /* with pages in the guest; of these, one frame each */
    uint32_t nr_users; /* evictions, moves, swapoffs that name this VM; raised under lru.lock; atomic */
    struct hist minor, major;
    struct vcpu_touches touches[NOTE_MAX_VCPUS];
    uint8_t toucher;                /* node of the vCPU that made a fault last; atomic */
    struct access_history *history; /* mm/policy/access_history.c */
    uint64_t born_ns;               /* nothing of it was touched before; constant */
};

struct mm_lru {
    struct mm_lock lock;
    /* guarded by lock */
    uint64_t nr_active;                  /* blocks of the active ring */
    uint64_t nr_refusals;                /* pages that zram has refused, ever; atomic */
    uint32_t nr_isolated;                /* pages between standby and a store; atomic */
    uint32_t nr_evictions;               /* batches that are done, whatever came of them; atomic */
    uint32_t epoch, epoch_pages;         /* age.h; pages stored in this epoch; atomic */
    uint64_t epoch_ns[S2_STAMP_MAX + 1]; /* when each of the last epochs began; atomic */
    uint32_t mistakes;                   /* stored pages that were wanted again soon, in this epoch; atomic */
    uint64_t nr_mistakes;                /* the same, ever; atomic */
    uint32_t nr_thrashing;               /* epochs in a row in which nearly all was a mistake; atomic */
};

/* What came of asking for pages on a node; see struct mm_node_stat. Atomic. */
struct numa_counts {
    uint64_t hit, miss, foreign, interleave_hit, local, other;
};

/* Where compaction of a zone goes on. */
struct compact_cursor {
    fn_t migrate; /* pageblock that is looked at next for pages to move, rising */
    fn_t free;    /* pageblock where they find a place, falling */
    bool strays;  /* places are looked for in pageblocks that can never be free as a whole */
    bool deep;    /* second pass: pageblocks that are mostly used, too */
};

struct compact_state {
    /* whose is busy */
    struct compact_cursor cursor[POOL_NR_ZONES];
    unsigned zone;          /* that background compaction is at */
    uint32_t made;          /* runs in this cycle over the zones */
    bool proactive;         /* it began for the score, and goes on until that is low */
    uint64_t rest_until_ns; /* after a cycle that achieved nothing */
    /* atomic */
    bool busy;                        /* somebody compacts this node */
    bool wanted;                      /* a fault did not get its 2 MiB */
    uint32_t defer_shift, considered; /* of 2^defer_shift faults one compacts; those since */
};

/* Where room is made for blocks to be rebuilt (mm/policy/collapse_room.c). The scanner's own. */
struct collapse_room {
    /* when the last pass ended */
    uint64_t stolen, mistakes; /* of the node, of the LRU */
    uint64_t stolen_lately;    /* by reclaim, in the last passes: of an older one half as much */
    uint32_t spent;            /* pages evicted in this pass */
    uint32_t made;             /* the same, lately: of an older pass an eighth less */
    bool dry;                  /* too little is known to be cold, in this pass */
    uint64_t passed;           /* blocks that looks have passed on this way round the active ring */
    uint8_t nr_rounds;         /* ways round that did not find enough, in a row */
    uint8_t nr_failures;       /* evictions that were wrong, in a row */
    uint8_t passes_to_wait;    /* before room is made again */
    uint8_t passes_to_look;    /* before the next look */
};

/* A node of memory: its part of the budget, what waits there to be evicted, and who reclaims when. */
struct mm_node {
    struct mm_node_config config;
    struct pool pool;
    uint8_t nearest[MM_MAX_NODES]; /* all nodes by distance, itself first */
    uint64_t nr_resident;          /* pages in guests; atomic */
    uint32_t kept;                 /* charges that a thread keeps between faults at most, and pages; atomic */
    struct numa_counts numa;
    /* guarded by lru.lock */
    struct block *hand;              /* block of the active ring that is scanned next for pages of this node */
    struct frame_list standby;       /* head youngest; entries are pages or 2 MiB frames */
    struct frame_list refused;       /* standby pages that zram refused: FRAME_F_INCOMPRESSIBLE; same order */
    uint64_t nr_standby, nr_refused; /* pages, those refused included in both; read racily */
    fn_t
        standby_mark[NR_STANDBY_MARKS]; /* of standby, the youngest entry that stood there at the last lru_mark, the one
                                            before ...; FN_NONE: none that did is left */
    uint32_t headroom; /* pages that kswapd keeps free for what is to come from a slower node; constant */
    /* kswapd's own */
    uint64_t kswapd_stalls; /* direct reclaims when it began last */
    /* atomic */
    uint64_t nr_stalls;   /* direct reclaims */
    uint64_t nr_stolen;   /* pages whose frame came free */
    uint32_t boost_pages; /* kswapd keeps so many more free, for faults came faster than it */
    bool kswapd_failed;   /* it found nothing to reclaim and is not woken */
    uint32_t retry_below; /* free pages: there was nothing to reclaim at twice as many */
    /* housekeeper's own */
    uint32_t idle_rounds;
    uint32_t stock_rounds; /* since a block of the stock was used */
    bool stock_used;       /* atomic: since its last round a first touch took a block */
    struct compact_state compact;
    struct collapse_room room;
};

/* Where the scanner of mm/policy/page_size.c goes on. The scanner's own but for the atomics. */
struct collapse_state {
    unsigned vm, region;
    uint64_t block;
    uint64_t due_ns;                    /* the next round */
    uint64_t mark_ns[NR_STANDBY_MARKS]; /* when the last passes over all blocks ended, youngest first */
    /* atomic */
    uint64_t longest_held_ns; /* a block was locked to be rebuilt */
    uint32_t trials_left;     /* until the next round */
};

struct mm_host {
    struct mm_config config;
    const struct host_ops *ops;
    void *ops_ctx;
    char *arena;
    struct frame *frames; /* by slot */
    uint8_t *types;       /* of pageblocks, for the zones */
    unsigned nr_nodes;
    struct mm_node node[MM_MAX_NODES]; /* their slots in rising order */
    struct zram *zram;                 /* NULL: no store */
    struct swap_set *swap;
    struct mm_lru lru;
    struct slab_cache tables; /* level-1..4 tables */
    uint32_t thread_batch;    /* MM_BATCH_MIN..MAX */
    uint32_t nr_threads;      /* mm_threads there are; atomic */
    void *zeros;              /* MM_BUFFER_PAGES pages of zeros, never written: no memory behind them */
    uint64_t metadata_bytes;  /* slab pages; atomic */
    uint64_t event[NR_VM_EVENTS];
    struct rate demote, promote;
    unsigned hot;                    /* heat from which on a page of a slow node is promoted; numa.c; atomic */
    struct numa_scan *numa;          /* mm/policy/numa.c; NULL: off */
    struct access *access;           /* mm/policy/access.c */
    uint64_t access_bytes;           /* of the blocks' panels and the VMs' heat maps; atomic */
    struct mm_compaction compaction; /* atomic, each of it */
    struct collapse_state collapse;
    uint32_t nr_swapoffs; /* under way; atomic */
    bool swapoff_yield;   /* a fault needs the room of the area that one empties: it gives up; atomic */
    bool work_stopped;    /* mm_stop_work; atomic */
    struct mm_lock vms_lock;
    /* guarded by vms_lock for writing, and by lru.lock too */
    struct mm_vm *vms[MM_MAX_VMS];
};

struct mm_thread {
    struct mm_host *host;
    struct pcp pcp[MM_MAX_NODES]; /* single filled frames of zone Normal */
    struct zram_thread *zram;
    uint32_t charged[MM_MAX_NODES]; /* pages charged, not yet used */
    uint64_t nr_stored;             /* pages it has moved from the host's memory to zram or swap, ever */
    char *buffer;                   /* MM_BUFFER_PAGES pages, page aligned */
};

static inline void event_add(struct mm_host *host, enum vm_event event, uint64_t nr)
{
    __atomic_add_fetch(&host->event[event], nr, __ATOMIC_RELAXED);
}

/* Figures that others read without the lock they are written under. */
static inline void counter_add(uint64_t *counter, int64_t by)
{
    __atomic_add_fetch(counter, (uint64_t)by, __ATOMIC_RELAXED);
}

static inline uint64_t counter_read(const uint64_t *counter)
{
    return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

/* What a fault costs CPUs in all, of which mm_fault took @ns. @huge: of a 2 MiB frame. */
static inline uint64_t fault_cost_ns(const struct mm_host *host, bool huge, uint64_t ns)
{
    return ns + __atomic_load_n(&host->ops->fault_ns, __ATOMIC_RELAXED) + (huge ? host->ops->block_fault_ns : 0);
}

/* Node of slot @fn. */
static inline unsigned node_of(const struct mm_host *host, fn_t fn)
{
    unsigned node = host->nr_nodes - 1;
    while (node > 0 && fn < host->node[node].pool.start_fn)
        node--;
    return node;
}

static inline struct pool *pool_of(struct mm_host *host, fn_t fn)
{
    return &host->node[node_of(host, fn)].pool;
}

static inline void *host_page(const struct mm_host *host, fn_t fn)
{
    return host->arena + (uint64_t)fn * PAGE_BYTES;
}

/* Sums over the nodes; racy. */
uint64_t host_nr_free(const struct mm_host *host);
uint64_t host_nr_resident(const struct mm_host *host);
uint64_t host_nr_standby(const struct mm_host *host);
/* The node with most free pages: where a store grows, and who asked for no node. */
unsigned host_roomiest_node(const struct mm_host *host);

/* Somebody did not get a block of 2 MiB of @node: background compaction makes one, if memory is free in pieces. */
void node_want_block(struct mm_host *host, struct mm_node *node);

/* Pages of the VM in @state, not S2_TABLE; racy. */
uint64_t vm_nr_pages(const struct mm_vm *vm, uint8_t state);

/* The block of @gfn, NULL outside the VM's regions. */
struct block *vm_block(const struct mm_vm *vm, gfn_t gfn);
/* Whether [gpa, gpa + bytes) is inside one region; @bytes may be 0. */
bool vm_has_range(const struct mm_vm *vm, gpa_t gpa, uint64_t bytes);

/* Entry of the page at @index of a block whose *pmd is a table. */
static inline struct s2_entry pte_read(const struct block *block, unsigned index)
{
    struct s2_entry entry;
    block->vm->stage2.format->decode(block->table[index], 1, &entry);
    return entry;
}

static inline struct s2_entry pmd_read(const struct block *block)
{
    struct s2_entry entry;
    block->vm->stage2.format->decode(*block->pmd, 2, &entry);
    return entry;
}

static inline bool entry_is_same(const struct s2_entry *a, const struct s2_entry *b)
{
    return a->state == b->state && a->payload == b->payload;
}

/* @nr pages of the word that @entry, ABSENT, FILL or BALLOON, says its pages hold. */
void entry_fill_pages(void *pages, uint32_t nr, const struct s2_entry *entry);

/*
 * The one place where an entry changes: page @index, or the whole block with pmd_write. @old is what was read under
 * the lock, for the counts. Caller holds block.lock.
 */
void pte_write(struct block *block, unsigned index, const struct s2_entry *old, const struct s2_entry *new);
void pmd_write(struct block *block, const struct s2_entry *old, const struct s2_entry *new);
/* A leaf or absent *pmd becomes a table of the same; uses block.table, which is there. Caller holds block.lock. */
void block_split(struct block *block);
/*
 * The other way: a table becomes @leaf, the counts follow. The table is freed, or set aside when the leaf is RESIDENT.
 * What the entries named has been given up; pages are in the guest only if the leaf is RESIDENT, as its. Caller holds
 * block.lock.
 */
void block_merge(struct block *block, const struct s2_entry *leaf);
/* Nothing is known of the block's accesses. Caller holds block.lock, or is the last to know the block. */
void block_forget_accesses(struct block *block);
/* block.table exists afterwards. -ENOMEM. Caller holds block.lock. */
must_check int block_prepare_table(struct block *block);

/* A single filled page is no longer used by this thread. */
void thread_free_page(struct mm_thread *thread, fn_t fn);
/* Threads came or went: what each keeps is shared out anew. */
void host_share_kept(struct mm_host *host);
/* The fault is over: of what was charged for it the thread keeps no more than its share. */
void thread_keep_share(struct mm_thread *thread);
/* What an entry names, other than a page in the guest, is given up. Caller holds block.lock and writes the entry. */
void thread_forget_entry(struct mm_thread *thread, const struct s2_entry *entry);
/* A set of nodes, bit i for node i. */
typedef uint8_t nodemask_t;
/* thread_charge_above - the same of this node only, if it has more than @mark free; reclaims nothing. */
must_check bool thread_charge_above(struct mm_thread *thread, unsigned node, enum watermark mark);
/*
 * thread_charge - a batch of pages of one node is charged to the thread, or at least one where no more can be had: of
 * @node, or else of the nearest of @allowed that has room; reclaims when none has. *out: the node.
 * -ENOMEM: not even one. No lock held.
 */
must_check int thread_charge(struct mm_thread *thread, unsigned node, nodemask_t allowed, unsigned *out);

#endif
