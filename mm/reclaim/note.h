/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the entry of a page says of who touched it last. 2 MiB frames have theirs in struct block.
 *
 *   RESIDENT 4 KiB   payload = node (3 bits) | vcpu (7) | when (5) | heat (4)
 *   STANDBY 4 KiB    payload = fn (32 bits)  | armed (1) | vcpu (7) | when (5) | heat (4)
 *
 * Armed: the page was taken home to see who touches it next, not because it was cold.
 */
#ifndef MM_RECLAIM_NOTE_H
#define MM_RECLAIM_NOTE_H

#include "mm/map/stage2.h"

#define NOTE_MAX_VCPUS 126u
#define NOTE_WHEN_MAX 31u
/* A step of the clock in a note: 2^32 ns. It wraps after two minutes: a page forgotten for so long may look touched. */
#define NOTE_WHEN_SHIFT 32
#define NOTE_HEAT_MAX 15u

#define NOTE_NODE_BITS 3
#define NOTE_VCPU_BITS 7
#define NOTE_WHEN_BITS 5
#define NOTE_HEAT_BITS 4
#define NOTE_STANDBY_SHIFT 32

struct page_note {
    uint8_t vcpu; /* who touched it last, + 1; 0: nobody known */
    uint8_t when; /* note_clock() then; without a vcpu it means nothing */
    uint8_t heat; /* 0..NOTE_HEAT_MAX: how soon it is touched after it was taken home, over several times; numa.c */
};

static inline uint8_t note_clock(uint64_t now_ns)
{
    return (uint8_t)(now_ns >> NOTE_WHEN_SHIFT & NOTE_WHEN_MAX);
}

/* When a single page was taken home, in its frame: in steps of 2^25 ns, 34 ms. It wraps after 8.6 s. */
#define TAKEN_SHIFT 25

static inline uint8_t taken_clock(uint64_t now_ns)
{
    return (uint8_t)(now_ns >> TAKEN_SHIFT);
}

static inline uint64_t note_pack(struct page_note note)
{
    return note.vcpu | (uint64_t)note.when << NOTE_VCPU_BITS | (uint64_t)note.heat << (NOTE_VCPU_BITS + NOTE_WHEN_BITS);
}

static inline struct page_note note_unpack(uint64_t bits)
{
    return (struct page_note){.vcpu = (uint8_t)(bits & ((1u << NOTE_VCPU_BITS) - 1)),
                              .when = (uint8_t)(bits >> NOTE_VCPU_BITS & NOTE_WHEN_MAX),
                              .heat = (uint8_t)(bits >> (NOTE_VCPU_BITS + NOTE_WHEN_BITS) & NOTE_HEAT_MAX)};
}

static inline uint64_t resident_payload(unsigned node, struct page_note note)
{
    return node | note_pack(note) << NOTE_NODE_BITS;
}

static inline unsigned resident_payload_node(uint64_t payload)
{
    return payload & (MM_MAX_NODES - 1);
}

static inline uint64_t standby_payload(fn_t fn, bool armed, struct page_note note)
{
    return fn | (uint64_t)armed << NOTE_STANDBY_SHIFT | note_pack(note) << (NOTE_STANDBY_SHIFT + 1);
}

static inline bool standby_is_armed(uint64_t payload)
{
    return payload >> NOTE_STANDBY_SHIFT & 1;
}

/* The note of a single page, RESIDENT or STANDBY. */
static inline struct page_note note_of(const struct s2_entry *entry)
{
    if (entry->state == S2_RESIDENT)
        return note_unpack(entry->payload >> NOTE_NODE_BITS);
    if (entry->state == S2_STANDBY)
        return note_unpack(entry->payload >> (NOTE_STANDBY_SHIFT + 1));
    return (struct page_note){0};
}

_Static_assert(NOTE_STANDBY_SHIFT + 1 + NOTE_VCPU_BITS + NOTE_WHEN_BITS + NOTE_HEAT_BITS <= S2_PAYLOAD_BITS,
               "a note fits beside a frame number");
_Static_assert(MM_MAX_NODES == 1 << NOTE_NODE_BITS, "a node fits");

#endif
