/* SPDX-License-Identifier: Apache-2.0 */
/* Counters of one memory host. Names are Linux's (/proc/vmstat) wherever Linux has one. Relaxed atomics. */
#ifndef MM_STATS_H
#define MM_STATS_H

#include "mm/base/hist.h"

#define VM_EVENTS(X)                                                                                                   \
    X(pgfault)          /* stage-2 faults, minor and major */                                                          \
    X(pgmajfault)       /* of these, page came from zram or swap */                                                    \
    X(pgfault_zero)     /* first touch */                                                                              \
    X(pgfault_spurious) /* page was there already: two vCPUs, or a write-protect event */                              \
    X(pgrefault)        /* standby page given back */                                                                  \
    X(pgactivate)       /* pages that came back from standby, single or in blocks */                                   \
    X(pgdeactivate)     /* pages taken home to standby */                                                              \
    X(pgscan_kswapd)                                                                                                   \
    X(pgscan_direct)                                                                                                   \
    X(pgscan_khugepaged) /* pages taken home to see whether they are cold enough to make room */                       \
    X(pgsteal_kswapd)    /* pages whose frame came free */                                                             \
    X(pgsteal_direct)                                                                                                  \
    X(pgsteal_khugepaged) /* the same, to make room for blocks that are rebuilt */                                     \
    X(allocstall)         /* faults that had to reclaim by themselves */                                               \
    X(pageoutrun)         /* kswapd woke */                                                                            \
    X(kswapd_low_wmark_hit_quickly)                                                                                    \
    X(kswapd_high_wmark_hit_quickly)                                                                                   \
    X(pswpin) /* pages read from a swap area */                                                                        \
    X(pswpout)                                                                                                         \
    X(zswpin)          /* pages decompressed */                                                                        \
    X(zswpout)         /* pages compressed */                                                                          \
    X(swap_ra)         /* pages brought along by readahead */                                                          \
    X(swap_ra_hit)     /* of these, found resident when the sequence came to them */                                   \
    X(thp_fault_alloc) /* first touches answered with 2 MiB */                                                         \
    X(thp_fault_fallback)                                                                                              \
    X(thp_split_page)             /* 2 MiB frames whose pages went separate ways */                                    \
    X(thp_split_trial)            /* of these, split to see what of it is hot although there was room for all of it */ \
    X(thp_swpout)                 /* 2 MiB taken home as one */                                                        \
    X(thp_collapse_alloc)         /* 2 MiB frames got to rebuild a block in */                                         \
    X(thp_collapse_alloc_failed)  /* a block was fit for it, but there was no room for a frame */                      \
    X(thp_collapse_failed)        /* given up with the frame in hand: a page that stays, an error of I/O */            \
    X(thp_collapse_keeps_tables)  /* rounds with nothing to do, for the host keeps page tables: no huge page fits */   \
    X(thp_collapse_busy_ns)       /* CPU time of rebuilding and of looking for what to rebuild */                      \
    X(thp_collapse_held_ns)       /* of these, with a block locked that was being rebuilt: faults on it waited */      \
    X(khugepaged_pages_scanned)   /* pages looked at for rebuilding */                                                 \
    X(khugepaged_pages_collapsed) /* 2 MiB frames that blocks were rebuilt as (khugepaged/pages_collapsed) */          \
    X(khugepaged_full_scans)      /* times all blocks of all VMs have been looked at */                                \
    X(pgalloc_normal)                                                                                                  \
    X(pgfree)                                                                                                          \
    X(pool_grow)              /* pages got from the kernel */                                                          \
    X(pool_release)           /* pages given back to it */                                                             \
    X(pgdrop)                 /* pages that guests gave up: freed, or given to the balloon */                          \
    X(balloon_inflate)        /* pages that went into a balloon; inflate - deflate = pages that are in one */          \
    X(balloon_deflate)        /* pages that left one, by whatever way */                                               \
    X(balloon_fault)          /* of these, by a touch */                                                               \
    X(take_pinned)            /* blocks that reclaim passed over for a pin (mm_pin) */                                 \
    X(take_busy)              /* pages the kernel would not move */                                                    \
    X(pgdemote_kswapd)        /* pages that went to a slower node instead of a store */                                \
    X(pgdemote_direct)        /* the same, by faults that had to reclaim by themselves */                              \
    X(pgdemote_khugepaged)    /* the same, to make room for blocks that are rebuilt */                                 \
    X(pgpromote_success)      /* pages that came to a faster node, for they were touched twice in a short time */      \
    X(pgpromote_candidate)    /* pages of slower nodes that were touched twice in a short time */                      \
    X(numa_pte_updates)       /* pages taken home to see who touches them next */                                      \
    X(numa_hint_faults)       /* touches of such pages */                                                              \
    X(numa_hint_faults_local) /* of these, by who runs on the page's node */                                           \
    X(numa_pages_migrated)    /* pages that moved to the node of who touches them */                                   \
    X(pgmigrate_success)      /* pages that changed their frame, for whatever reason */                                \
    X(pgmigrate_fail)         /* pages that stayed where they were: no room, or the kernel refused */                  \
    X(compact_stall)          /* 2 MiB wanted, none in one piece: compaction in the fault */                           \
    X(compact_success)        /* of these, there was one afterwards */                                                 \
    X(compact_fail)                                                                                                    \
    X(compact_migrate_scanned) /* frames looked at for pages to move */                                                \
    X(compact_free_scanned)    /* frames looked at for a place */                                                      \
    X(compact_isolated)        /* frames taken for either */                                                           \
    X(compact_daemon_wake)     /* background compaction began */                                                       \
    X(swap_write_error)                                                                                                \
    X(swap_read_error)                                                                                                 \
    X(oom_kill)

enum vm_event {
#define X(name) EV_##name,
    VM_EVENTS(X)
#undef X
        NR_VM_EVENTS,
};
extern const char *const vm_event_names[NR_VM_EVENTS];

#endif
