/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The words every other file is written in. Freestanding: the embedded guest kernel includes this too.
 *
 * Guest memory is described in pages of 4 KiB (PAGE_BYTES) and blocks of 2 MiB (BLOCK_BYTES, 512 pages).
 * Ranges are half-open, [start, end).
 */
#ifndef MM_BASE_TYPES_H
#define MM_BASE_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE_SHIFT 12
#define PAGE_BYTES (UINT64_C(1) << PAGE_SHIFT)
#define BLOCK_ORDER 9
#define BLOCK_PAGES (1u << BLOCK_ORDER)
#define BLOCK_SHIFT (PAGE_SHIFT + BLOCK_ORDER)
#define BLOCK_BYTES (UINT64_C(1) << BLOCK_SHIFT)
#define MAX_ORDER 10 /* largest buddy order, as Linux: 4 MiB */

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define MIN_OF(a, b) ((a) < (b) ? (a) : (b))
#define MAX_OF(a, b) ((a) > (b) ? (a) : (b))
#define container_of(p, type, member) ((type *)(void *)((char *)(p)-offsetof(type, member)))

/* A result that must be looked at. Functions that return int return 0 or -errno unless they say otherwise. */
#define must_check __attribute__((warn_unused_result))

/* Guest physical address, guest virtual address, address in this process: bytes. */
typedef struct {
    uint64_t v;
} gpa_t;
typedef struct {
    uint64_t v;
} gva_t;
typedef struct {
    uint64_t v;
} hva_t;

/* Guest frame number: gpa >> 12. 32 bits describe 16 TiB of guest. */
typedef uint32_t gfn_t;
/* Frame number: index of a slot of the arena, in pages from its base. */
typedef uint32_t fn_t;
#define FN_NONE UINT32_MAX
#define NS_PER_MS UINT64_C(1000000)
/* Nodes of memory that one memory host uses. */
#define MM_MAX_NODES 8
/* Number of a VM inside one memory host. 0 is never a VM. */
typedef uint16_t vmid_t;

static inline gfn_t gfn_of(gpa_t gpa)
{
    return (gfn_t)(gpa.v >> PAGE_SHIFT);
}

static inline gpa_t gpa_of(gfn_t gfn)
{
    return (gpa_t){(uint64_t)gfn << PAGE_SHIFT};
}

#endif
