/* SPDX-License-Identifier: Apache-2.0 */
/*
 * struct frame: one per slot of the arena (or, in the guest kernel, per page frame). 16 bytes, 0.39% of 4 KiB.
 *
 *     frames[fn]  <->  arena + fn * PAGE_BYTES
 *
 * A compound frame of order n is 2^n frames: the head at a multiple of 2^n carries order and use, the rest are
 * marked FRAME_TAIL. Lists link frames by number, so a list needs the frames array beside it.
 */
#ifndef MM_FRAME_FRAME_H
#define MM_FRAME_FRAME_H

#include "mm/base/types.h"

enum frame_use {
    FRAME_TAIL = 0,  /* inside a larger block; look at the head. Zero: what never was apart takes no memory */
    FRAME_FREE,      /* head of a free buddy block: order says its size */
    FRAME_PCP,       /* free, on a per-thread list */
    FRAME_USED,      /* allocated, user not yet named */
    FRAME_STANDBY,   /* holds guest page (vm, gfn), taken from the guest; on the standby list */
    FRAME_WRITEBACK, /* standby, and being written to swap or compressed; off the list */
    FRAME_HOME,      /* head of a 2 MiB frame whose pages are in guest block (vm, gfn); slots empty */
    FRAME_ZEROED,    /* head of a 2 MiB frame, filled with zeros, waiting in the stock */
    FRAME_ZPOOL,     /* page of the compressed store */
    FRAME_SLAB,      /* page of a slab cache (guest kernel) */
};

#define FRAME_F_EMPTY 0x1u          /* free block: its slots hold no page. Set on the head of a free block only */
#define FRAME_F_INCOMPRESSIBLE 0x2u /* standby page that the store refused; only swap can take it */
#define FRAME_F_ORPHAN 0x4u         /* writeback page that its guest took back meanwhile: the writer frees it */
#define FRAME_F_HUGE 0x8u           /* standby: part of a 2 MiB frame at home (order 9 on the head) */

struct frame {
    fn_t next, prev; /* list links; FN_NONE at the ends */
    union {
        gfn_t gfn;     /* STANDBY WRITEBACK HOME: the guest page */
        uint32_t data; /* any other user */
    };
    union {
        vmid_t vm;
        uint16_t data16;
    };
    uint8_t use : 4;   /* enum frame_use */
    uint8_t flags : 4; /* FRAME_F_* */
    union {
        uint8_t order; /* head: log2 of pages */
        uint8_t taken; /* STANDBY WRITEBACK, single: when it was taken from its guest, see reclaim/note.h */
    };
};
_Static_assert(sizeof(struct frame) == 16, "frame metadata is 0.39% of what it describes");

/*
 * The use of a frame that may be somebody else's: it is one byte, so the value is one that it had or has. A use that is
 * written and removed under one lock only (FREE: zone.lock; STANDBY: lru.lock) is certain to who holds that lock. The one
 * read that is exempt from the thread sanitizer.
 */
__attribute__((no_sanitize("thread"))) static inline unsigned frame_use(const struct frame *frame)
{
    return ((const volatile struct frame *)frame)->use;
}

/* Doubly linked list of frames by number. The lock that guards it is its owner's. */
struct frame_list {
    fn_t head, tail;
    uint32_t nr; /* entries (blocks, not pages) */
};

void frame_list_init(struct frame_list *list);
void frame_list_push_tail(struct frame_list *list, struct frame *frames, fn_t fn);
/* These two are the allocator's steps. */
static inline void frame_list_push_head(struct frame_list *list, struct frame *frames, fn_t fn)
{
    frames[fn].prev = FN_NONE;
    frames[fn].next = list->head;
    if (list->head == FN_NONE)
        list->tail = fn;
    else
        frames[list->head].prev = fn;
    list->head = fn;
    list->nr++;
}

static inline void frame_list_remove(struct frame_list *list, struct frame *frames, fn_t fn)
{
    fn_t next = frames[fn].next, prev = frames[fn].prev;
    if (prev == FN_NONE)
        list->head = next;
    else
        frames[prev].next = next;
    if (next == FN_NONE)
        list->tail = prev;
    else
        frames[next].prev = prev;
    frames[fn].next = FN_NONE;
    frames[fn].prev = FN_NONE;
    list->nr--;
}

/* @by takes the place of @fn, which is on no list afterwards. */
void frame_list_replace(struct frame_list *list, struct frame *frames, fn_t fn, fn_t by);
/* Removes and returns the head (tail), or FN_NONE when the list is empty. */
fn_t frame_list_pop_head(struct frame_list *list, struct frame *frames);
fn_t frame_list_pop_tail(struct frame_list *list, struct frame *frames);

#endif
