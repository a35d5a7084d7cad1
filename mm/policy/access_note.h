/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the fault path tells mm/policy/access*.c, and what those files share. Internal to mm/. All of it under block.lock
 * but where it says otherwise.
 */
#ifndef MM_POLICY_ACCESS_NOTE_H
#define MM_POLICY_ACCESS_NOTE_H

#include "mm/policy/access.h"
#include "mm/reclaim/host.h"

/* What is sampled: costs differ. */
enum access_kind { ACCESS_HUGE, ACCESS_PAGE, ACCESS_NR_KINDS };

struct access_cost {
    uint32_t arm_ns, fault_ns; /* running means; atomic */
};

/* The CPU time of samples in a stretch of ACCESS_STRETCH_NS. */
struct access_stretch {
    uint64_t start_ns, sample_ns;
};

struct access {
    uint32_t quota_mpct;                /* atomic */
    const struct access_source *source; /* NULL: none, or broken; atomic */
    int source_err;
    /* atomic */
    int64_t purse_ns; /* what samples may still cost now; negative: they wait */
    uint64_t sample_ns, nr_samples, nr_hits, nr_late_hits;
    struct access_cost cost[ACCESS_NR_KINDS];
    struct access_stretch stretch, last_stretch; /* written by the scanner */
    /* scanner's own */
    uint64_t start_ns, pass_ns;
    uint64_t filled_ns, wait_ns; /* when the last round was; how long it is to the next */
    uint64_t polled_ns;
    vmid_t vm; /* where the pass is; 0: at its begin */
    uint64_t block;
    uint64_t random;
    /* guards the heat maps of all VMs */
    struct mm_lock lock;
};

/* -ENOMEM. access_destroy: of a host without, too. */
must_check int access_create(struct mm_host *host);
void access_destroy(struct mm_host *host);

struct access_history;
void access_history_free(struct mm_vm *vm);
/* A column of the VM's heat map, if it is due at @now_ns; the first call begins the first one. Scanner only. */
void access_history_note(struct mm_vm *vm, uint64_t now_ns);

/* Blocks of a VM by number, through all its regions. */
struct block *access_block_at(const struct mm_vm *vm, uint64_t number);
uint64_t access_nr_blocks(const struct mm_vm *vm);

/* A page that was taken home only to see who touches it counts as in the guest. */
static inline bool access_is_out(const struct s2_entry *entry)
{
    return entry->state == S2_STANDBY && standby_is_armed(entry->payload);
}

/* The panel's entry stands for no page any more. */
void access_strike(struct block *block, struct access_watch *watch);
/* Of the panel: those whose pages are in the guest, or out to be watched; the others are struck off. Returns how many. */
unsigned access_check_panel(struct block *block, unsigned *nr_out);

/* Strikes off as access_check_panel, now and then changes a page for another, and draws what is missing. Scanner only. */
void access_renew_panel(struct access *access, struct block *block);

/*
 * Of what is in the guest: before the first look all that is known is that it came in. It may have been used ever since,
 * or not.
 */
static inline bool access_is_unseen(const struct access_watch *watch)
{
    return !watch->armed_ns && !watch->wait_ns;
}

/* It was touched. */
void access_touch(struct access_watch *watch, uint64_t now_ns);

/*
 * access_came_pages - @nr pages of the block come into the guest; @touched: one of them because of an access. Each then
 * says for itself, where there is a panel: access_came - page @index, which was @old; @touched: it is the one.
 * Returns whether it was out for a sample of the access scanner. access_came_huge: all of a 2 MiB frame, by an access.
 */
void access_came_pages(struct block *block, uint32_t nr, bool touched, uint64_t now_ns);
bool access_came(struct block *block, unsigned index, const struct s2_entry *old, bool touched, uint64_t now_ns);
bool access_came_huge(struct block *block, const struct s2_entry *old, uint64_t now_ns);
/* When the single page @index, which is @entry, was taken home for a sample; 0: it is not out for one. */
uint64_t access_sampled_ns(const struct block *block, unsigned index, const struct s2_entry *entry);
/*
 * access_rebuilt - pages of the block come home to make one 2 MiB frame of it, whatever comes of it: single pages are not
 * watched any more. When it was touched last stays; it is taken to be touched as often as the most used page of its panel.
 */
void access_rebuilt(struct block *block);
/* What is kept of the block agrees with its entries. No lock needed: no other thread is in mm. */
bool access_check(const struct block *block, const char **why);
/* The fault that gave a sampled page or frame back took @ns of CPU time. No lock held. */
void access_pay_fault(struct mm_host *host, enum access_kind kind, uint64_t ns);

#endif
