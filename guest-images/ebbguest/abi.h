/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the embedded guest kernel and the machine that runs it agree on. Included by both: freestanding, C and
 * assembly.
 *
 *   guest physical address
 *   0 ...................... memory, up to 3 GiB; the rest from 4 GiB on
 *   EBB_SHARED_GPA ......... struct ebb_shared: host memory, outside the guest's; never reclaimed, read without exits
 *   EBB_ROM_GPA ............ the kernel image, read-only: one copy for all VMs of a process
 *   EBB_DEVICES_GPA ........ virtio-mmio devices
 *
 * Both sides distrust: the guest writes its own counters and lines, the host copies and checks before it uses them.
 */
#ifndef EBBGUEST_ABI_H
#define EBBGUEST_ABI_H

#define EBB_LOW_BYTES 0xc0000000  /* memory below the hole: at most 3 GiB */
#define EBB_HIGH_GPA 0x100000000  /* the rest starts here */
#define EBB_SHARED_GPA 0xd0000000 /* 2 MiB aligned */
/* 2 MiB aligned; at most 64 KiB. Every vCPU starts here, in ring 0, its number in rdi. */
#define EBB_ROM_GPA 0xd0200000
/*
 * Page tables to start with: the first GiB and the fourth, identity. In the shared pages, since hardware with nested
 * paging walks them as if it wrote (AMD: nested paging; Intel: EPT with accessed and dirty flags): in read-only
 * memory each walk would fault.
 */
#define EBB_ROM_CR3 0xd0041000
#define EBB_NR_BOOT_TABLES 4
#define EBB_ROM_MAX_BYTES 0x10000
#define EBB_DEVICES_GPA 0xd1000000 /* virtio-mmio devices, a page each; what vmm/platform.h says */
#define EBB_MAX_DEVICES 18
#define EBB_MAX_CPUS 64
#define EBB_MAX_STEPS 32
#define EBB_MAX_NODES 8

/* Ports. All take 32 bits except the byte ports of the serial line at 0x3f8. */
#define EBB_PORT_LINE 0xeb0    /* value: vCPU. vcpu[].line holds one console line */
#define EBB_PORT_STEP 0xeb4    /* value: step << 1 | end. vCPU 0 only, between barriers */
#define EBB_PORT_BARRIER 0xeb8 /* value: vCPU. Returns when every vCPU has come */
#define EBB_PORT_YIELD 0xebc   /* value: anything. Lets another thread of the host run */
#define EBB_PORT_IDLE 0xec0    /* value: ms to sleep */
#define EBB_PORT_EXIT 0xec4    /* value: enum ebb_exit. Ends the machine */
#define EBB_PORT_SERIAL 0x3f8  /* a 16550; bytes */

/* Low memory that the kernel keeps: vCPU areas, then the DMA zone from 1 MiB to 16 MiB, then metadata. */
#define EBB_CPU_AREA_GPA 0x10000
#define EBB_CPU_AREA_BYTES 0x3000 /* 8 KiB stack of ring 3, then 4 KiB of ring 0 */
#define EBB_DMA_GPA 0x100000
#define EBB_META_GPA 0x1000000
#define EBB_MIN_MEMORY_BYTES 0x2000000    /* 32 MiB */
#define EBB_MAX_MEMORY_BYTES 0x4000000000 /* 256 GiB: its metadata still fits below the hole */
#define EBB_META_FIXED_BYTES 0x80000      /* struct kernel and the zipf table */
#define EBB_META_PAGE_BYTES 24            /* struct frame and struct page_slot, a page */

/* Segments, the same in the descriptors that the host loads and in the guest's own table. */
#define EBB_SEL_CODE0 0x08
#define EBB_SEL_DATA0 0x10
#define EBB_SEL_DATA3 0x1b
#define EBB_SEL_CODE3 0x23
#define EBB_SEL_TSS 0x28

#define EBB_EXIT_TRAP 1    /* enum ebb_exit, for assembly */
#define EBB_TRAP_OFFSET 40 /* of struct ebb_vcpu_shared.trap */

#ifndef __ASSEMBLER__
#include <stdint.h>

enum ebb_exit {
    EBB_EXIT_DONE = 0,                  /* every step ran; bad pages are counted in vcpu[].nr_bad */
    EBB_EXIT_EXCEPTION = EBB_EXIT_TRAP, /* a processor exception: vcpu[].trap says which */
    EBB_EXIT_NO_MEMORY,                 /* the guest's buddy has fewer free pages than a step needs */
    EBB_EXIT_BAD_WORKLOAD,              /* a step that the kernel does not know */
};

enum ebb_step_kind {
    EBB_STEP_FILL,    /* write pages [start, start + size) */
    EBB_STEP_VERIFY,  /* check every word of the pages */
    EBB_STEP_ZIPF,    /* ops accesses, skewed by theta, write_pct of them rewrite the page */
    EBB_STEP_STREAM,  /* passes from first to last, write_pct of the pages rewritten */
    EBB_STEP_IDLE,    /* sleep for ns */
    EBB_STEP_FREE,    /* give the pages back to the guest's buddy */
    EBB_STEP_CHURN,   /* ops times: free a run of pages, take other ones, fill them */
    EBB_STEP_HOSTILE, /* ops times: nonsense to the virtio devices of the machine */
    EBB_NR_STEP_KINDS,
};

enum ebb_pattern {
    EBB_PATTERN_ZERO,
    EBB_PATTERN_SAME,
    EBB_PATTERN_TEXT,
    EBB_PATTERN_RANDOM,
    EBB_PATTERN_MIXED, /* of 16 pages 2 zero, 2 same, 8 text, 4 random */
    EBB_NR_PATTERNS,
};

/* Pages of the workload are numbered from 0; what is filled is always [0, n) for some n. */
struct ebb_step {
    uint32_t kind;    /* enum ebb_step_kind */
    uint32_t pattern; /* enum ebb_pattern: FILL; CHURN keeps each page's own */
    uint32_t start_pages, size_pages;
    uint64_t ops;
    uint32_t write_pct;   /* 0..100 */
    uint32_t theta_milli; /* 990 is 0.99; 0 is uniform; at most 2000 */
    uint32_t passes;
    uint32_t turn;   /* STREAM: each vCPU works on the share of the vCPU so many after it */
    uint32_t linear; /* ZIPF: page 0 is the hottest, page 1 the next; otherwise ranks are scattered */
    uint32_t take_pages,
        skip_pages; /* STREAM: so many pages are touched, so many left out, and so on; take at least 1 */
    uint32_t work;  /* ZIPF: rounds of computing before each access */
    uint32_t unused;
    uint64_t ns; /* IDLE */
    uint64_t seed;
};

/* How a page is wrong. */
enum ebb_bad_kind {
    EBB_BAD_STALE,   /* whole and its own, but of another generation */
    EBB_BAD_LOST,    /* all zeros where content belongs */
    EBB_BAD_TORN,    /* its checksum does not hold */
    EBB_BAD_SWAPPED, /* whole, but the content of another page */
    EBB_NR_BAD_KINDS,
};

struct ebb_bad {
    uint32_t gfn, found_gfn;
    uint32_t expected_generation, found_generation;
    uint32_t kind; /* enum ebb_bad_kind */
    uint32_t step;
};

struct ebb_trap {
    uint64_t vector, error, rip, cs, rflags, rsp, ss; /* as the processor pushed them, in this order */
    uint64_t cr2;
};

#define EBB_LINE_BYTES 240
#define EBB_BAD_RECORDS 16

/* Written by one vCPU of the guest, read by the host at any time. One page, so that no line is shared. */
struct ebb_vcpu_shared {
    uint64_t done;                       /* of the running step, in pages or operations */
    uint64_t nr_pages, nr_ops;           /* since boot: pages worked on, accesses */
    uint64_t nr_verified;                /* since boot: pages whose every word was checked */
    uint64_t nr_bad;                     /* since boot */
    struct ebb_trap trap;                /* EBB_EXIT_TRAP */
    struct ebb_bad bad[EBB_BAD_RECORDS]; /* the first ones */
    char line[EBB_LINE_BYTES];           /* ends with 0 */
    uint64_t
        slots_gpa; /* of vCPU 0, from its first step on: struct page_slot (kernel.h) of each page of the workload */
    uint8_t unused[4096 - 48 - 64 - EBB_BAD_RECORDS * 24 - EBB_LINE_BYTES];
};
_Static_assert(sizeof(struct ebb_vcpu_shared) == 4096, "one page a vCPU");
_Static_assert(__builtin_offsetof(struct ebb_vcpu_shared, trap) == EBB_TRAP_OFFSET, "entry.S stores there");

/* A node of the guest's memory and vCPUs. */
struct ebb_node {
    struct {
        uint64_t start, bytes; /* whole 2 MiB; 0 bytes: none */
    } range[2];
    uint64_t cpus;                /* bit i: vCPU i */
    uint8_t order[EBB_MAX_NODES]; /* all nodes, the nearest first, which is itself */
};

#define EBB_MAGIC UINT64_C(0x31747365756762be)

struct ebb_shared {
    /* first page: written by the host before the machine starts */
    uint64_t magic;
    uint64_t low_bytes, high_bytes; /* memory from 0, and from EBB_HIGH_GPA */
    uint64_t seed;                  /* of all content */
    uint32_t nr_cpus, nr_steps;
    struct ebb_step steps[EBB_MAX_STEPS];
    uint64_t nr_nodes; /* 1..EBB_MAX_NODES: together all memory and all vCPUs */
    struct ebb_node nodes[EBB_MAX_NODES];
    uint8_t unused[4096 - 48 - EBB_MAX_STEPS * sizeof(struct ebb_step) - EBB_MAX_NODES * sizeof(struct ebb_node)];
    struct ebb_vcpu_shared vcpu[EBB_MAX_CPUS];
    /* written by the host before the machine starts: of level 4, 3, and for each GiB of level 2 */
    uint64_t boot_tables[EBB_NR_BOOT_TABLES][512];
};
_Static_assert(sizeof(struct ebb_shared) == 4096 * (1 + EBB_MAX_CPUS + EBB_NR_BOOT_TABLES), "whole pages");
_Static_assert(__builtin_offsetof(struct ebb_shared, boot_tables) == EBB_ROM_CR3 - EBB_SHARED_GPA, "where CR3 points");

/* Where memory ends, in bytes. */
static inline uint64_t ebb_memory_end(uint64_t low_bytes, uint64_t high_bytes)
{
    return high_bytes > 0 ? EBB_HIGH_GPA + high_bytes : low_bytes;
}

/* Memory from EBB_META_GPA on that the kernel keeps for itself; whole 2 MiB blocks. */
static inline uint64_t ebb_meta_bytes(uint64_t low_bytes, uint64_t high_bytes)
{
    uint64_t end = ebb_memory_end(low_bytes, high_bytes);
    uint64_t tables = ((end >> 30) + 4) << 12;
    uint64_t types = ((end >> 21) + 7) & ~UINT64_C(7); /* a byte for each 2 MiB */
    uint64_t bytes = EBB_META_FIXED_BYTES + tables + types + (end >> 12) * EBB_META_PAGE_BYTES;

    return (bytes + 0x1fffff) & ~UINT64_C(0x1fffff);
}

/* Pages that a workload can fill: every zone, to the last page. */
static inline uint64_t ebb_usable_pages(uint64_t low_bytes, uint64_t high_bytes)
{
    uint64_t kept = EBB_DMA_GPA + ebb_meta_bytes(low_bytes, high_bytes);

    return (low_bytes + high_bytes - kept) >> 12;
}
#endif

#endif
