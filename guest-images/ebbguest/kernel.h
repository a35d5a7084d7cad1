/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest kernel's own state. It starts as zeros at EBB_META_GPA; there is no other writable data but stacks.
 *
 *   EBB_META_GPA   struct kernel | page tables | types[] by 2 MiB | frames[] by gfn | slots[] by workload page | up to 2 MiB boundary
 */
#ifndef EBBGUEST_KERNEL_H
#define EBBGUEST_KERNEL_H

#include "guest-images/ebbguest/abi.h"
#include "guest-images/ebbguest/pattern.h"
#include "guest-images/ebbguest/zipf.h"
#include "mm/frame/zone.h"

/* What the guest remembers of one page of the workload: enough to say every word it must hold. */
struct page_slot {
    uint32_t gfn; /* 0: not filled */
    uint16_t generation;
    uint8_t pattern; /* enum ebb_pattern; SLOT_BAD: reported already, not checked until it is rewritten */
    uint8_t lock;    /* 1: a vCPU is at this page */
};
#define SLOT_BAD 0x80
_Static_assert(sizeof(struct page_slot) + sizeof(struct frame) == EBB_META_PAGE_BYTES, "abi.h counts with it");

struct kernel {
    uint32_t nr_nodes;
    struct node nodes[EBB_MAX_NODES];
    struct frame *frames;
    uint8_t *types; /* of pageblocks, for the zones */
    struct page_slot *slots;
    uint32_t nr_slots, nr_filled; /* pages of the workload: possible, and filled: [0, nr_filled) */
    uint32_t nr_cpus;
    uint64_t page_tables; /* root, for CR3 */
    uint64_t seed;
    uint64_t scratch; /* address of the hostile driver's block; 0: none was taken yet */
    struct zipf zipf; /* of the running step; made by vCPU 0 between barriers */
};
_Static_assert(sizeof(struct kernel) <= EBB_META_FIXED_BYTES, "abi.h counts with it");

/* One vCPU. On its stack. */
struct cpu {
    uint32_t number;
    uint32_t node;
    uint32_t step;
    uint64_t rng;
    struct kernel *k;
    struct ebb_vcpu_shared *shared;
};

static inline uint64_t *page_address(uint32_t gfn)
{
    return (uint64_t *)((uintptr_t)gfn << PAGE_SHIFT); /* memory is mapped one to one */
}

/* memory.c */

/*
 * memory_map - page tables for the memory that the host gave; returns where they end. memory_init - zones, frames and
 * slots, from @at on, which of the largest guests are more than the first tables have: k->page_tables is in use. vCPU 0,
 * before the others start.
 */
uint64_t memory_map(struct kernel *k);
void memory_init(struct kernel *k, uint64_t at);
/* The node of vCPU @number. */
uint32_t memory_node_of(const struct kernel *k, uint32_t number);
/*
 * Pages for the slots [from, to): of @node first, then of the nearest others; of each the highest zone and the largest
 * blocks first. 0 or -ENOMEM, and the slots are without.
 */
must_check int memory_take(struct kernel *k, uint32_t node, uint32_t from, uint32_t to);
/* The pages of the slots [from, to) go back to their zones. */
void memory_give(struct kernel *k, uint32_t from, uint32_t to);
/* Single pages for the slots [from, to), of @node first; any vCPU. As many pages must be free. */
void memory_refill(struct kernel *k, uint32_t node, uint32_t from, uint32_t to);

/* steps.c */

/* Before the vCPUs start on @step; vCPU 0. */
void step_prepare(struct cpu *cpu, const struct ebb_step *step);
/* This vCPU's share of @step. */
void step_run(struct cpu *cpu, const struct ebb_step *step);

/* hostile.c */

/* Takes the block that hostile drivers work in. 0 or -ENOMEM. vCPU 0. */
must_check int hostile_prepare(struct kernel *k);
/* @ops attacks on the devices of the machine; resets them all at the end. */
void hostile_run(struct cpu *cpu, uint64_t ops, void (*progress)(struct cpu *cpu, uint64_t done));

/* console.c */

/* One line to the host: %s, %u (uint32_t), %lu (uint64_t), %lx. */
void print_line(struct cpu *cpu, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Ends the machine. */
_Noreturn void leave(enum ebb_exit code);

/* entry.S comes here, in ring 3. */
_Noreturn void kernel_main(uint32_t number);

#endif
