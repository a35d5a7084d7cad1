/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parts of a fault, between the files that make it. Internal to mm/.
 *
 *   fault.c        what it needs is charged, the state of the page says which way it comes in
 *   fault_zero.c   first touch
 *   fault_back.c   from standby and from the stores
 *   fault_place.c  the last step of all of them: the pages are in the guest, and what that says of a sequence
 *
 * All of them: the caller holds block.lock.
 */
#ifndef MM_FAULT_PARTS_H
#define MM_FAULT_PARTS_H

#include "mm/fault.h"
#include "mm/reclaim/lru.h"
#include "mm/reclaim/place.h"

struct fault {
    struct mm_thread *thread;
    struct mm_host *host;
    struct block *block;
    gfn_t gfn;
    unsigned index;  /* of the page in its block */
    unsigned node;   /* where its thread has charged pages */
    unsigned target; /* where a page at home should be from now on */
    bool moves;      /* it is to go there: its thread has charged pages on @target, too */
    bool home;       /* it is at home on the node wished for */
    bool in_place;   /* nothing is charged there: a page at home goes back as it is */
    bool again;      /* it was not at home, or on its way to a store: once more, with a charge */
    uint8_t heat;    /* of the page, with this touch */
    unsigned vcpu;   /* who touched the page, + 1; 0: nobody known */
    uint64_t start_ns, locked_ns;
    uint64_t cpu_ns; /* of its thread, when it was seen that a scan is to pay for this fault; 0: it was not */
    struct wish wish;
    bool major;
    bool huge;    /* a 2 MiB frame came back */
    bool sampled; /* it was out to be seen to come back */
    bool hinted;  /* armed, on a host where who touches what matters */
};

/* This touch, for the next one to know. */
static inline struct page_note fault_touch_note(const struct fault *f)
{
    return (struct page_note){.vcpu = (uint8_t)f->vcpu, .when = note_clock(f->start_ns), .heat = f->heat};
}

/* Pages [index, index + nr) are in the guest now, on @node. */
void fault_enter_resident(struct fault *f, unsigned index, uint32_t nr, unsigned node);
/* Pages from @src, which this thread has charged, become resident. *done as host_ops.place_copy. */
must_check int fault_place_copy(struct fault *f, unsigned index, const void *src, uint32_t nr, uint32_t *done);
/*
 * The window of a fault that comes where the last one's ended, or after pages that were there: twice as long as that.
 * 0: it is not one of a sequence. The last block's sequence goes on in this one.
 */
uint32_t fault_sequence_window(const struct fault *f);
/* This fault brought pages in up to @end of its block, of the @window it had. */
void fault_sequence_note(struct fault *f, unsigned end, uint32_t window);

/* @entry: of the page, or of its whole block. ABSENT, FILL or BALLOON. */
must_check int fault_zero(struct fault *f, struct s2_entry entry);

/*
 * A 2 MiB frame at home goes back as one: the pool has room, or the frame is out for a moment only.
 * fault_goes_in_pages: it is to go to a faster node that has no 2 MiB to spare.
 */
must_check int fault_refault_huge(struct fault *f, struct s2_entry entry);
bool fault_goes_in_pages(const struct fault *f, const struct s2_entry *entry);
/* A page of standby, zram or swap. */
must_check int fault_come_back(struct fault *f, struct s2_entry entry);

#endif
