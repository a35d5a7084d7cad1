/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of host memory share: a small host with one VM of two regions, and a look at pagemap. */
#ifndef TESTS_UNIT_HOSTMEM_FIXTURE_H
#define TESTS_UNIT_HOSTMEM_FIXTURE_H

#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "vmm/hostmem.h"
#include "vmm/uffd.h"

/* Both transports, as the values of Check's loop variable _i. */
enum { FIX_COPY, FIX_MOVE, NR_FIX };

#define FIX_SLOTS (6 * BLOCK_PAGES)
#define FIX_LOW_BLOCKS 4u
#define FIX_HIGH_BLOCKS 2u
#define FIX_HIGH_GFN (UINT32_C(1) << 20) /* 4 GiB */
#define FIX_VM 7

struct fix {
    struct hostmem *hm;
    struct hostmem_vm *vm;
    const struct host_ops *ops;
    int pagemap;
};

static const struct mm_region fix_regions[] = {
    {.start = {0}, .bytes = FIX_LOW_BLOCKS * BLOCK_BYTES},
    {.start = {(uint64_t)FIX_HIGH_GFN << PAGE_SHIFT}, .bytes = FIX_HIGH_BLOCKS * BLOCK_BYTES},
};

static inline void fix_open_config(struct fix *fix, const struct hostmem_config *config)
{
    struct diag diag = {0};
    uint64_t features = 0;
    ck_assert_msg(uffd_probe(&features, &diag) == 0, "%s", diag.text);
    ck_assert_msg(hostmem_create(config, &fix->hm, &diag) == 0, "%s", diag.text);
    ck_assert_msg(hostmem_vm_create(fix->hm, fix_regions, ARRAY_LEN(fix_regions), &fix->vm, &diag) == 0, "%s",
                  diag.text);
    hostmem_vm_attach(fix->vm, FIX_VM);
    fix->ops = &fix->hm->ops;
    fix->pagemap = open("/proc/self/pagemap", O_RDONLY);
    ck_assert_int_ge(fix->pagemap, 0);
}

static inline void fix_open(struct fix *fix, int transport)
{
    struct hostmem_config config = {.nr_slots = FIX_SLOTS, .move = transport == FIX_MOVE};
    fix_open_config(fix, &config);
}

static inline void fix_close(struct fix *fix)
{
    close(fix->pagemap);
    hostmem_vm_destroy(fix->vm);
    hostmem_destroy(fix->hm);
}

/* present[i]: page i of the @nr pages at @base has a physical page. */
static inline void fix_look(const struct fix *fix, const char *base, uint32_t nr, bool *present)
{
    uint64_t entries[BLOCK_PAGES];
    for (uint32_t at = 0; at < nr; at += BLOCK_PAGES) {
        uint32_t step = MIN_OF(nr - at, BLOCK_PAGES);
        off_t offset = (off_t)(((uintptr_t)base / PAGE_BYTES + at) * sizeof(entries[0]));
        ck_assert_int_eq(pread(fix->pagemap, entries, step * sizeof(entries[0]), offset),
                         (ssize_t)(step * sizeof(entries[0])));
        for (uint32_t i = 0; i < step; i++)
            present[at + i] = entries[i] >> 63;
    }
}

/* Exactly the pages [from, to) of the @nr pages at @base are present. */
static inline void fix_expect(const struct fix *fix, const char *base, uint32_t nr, uint32_t from, uint32_t to)
{
    bool *present = calloc(nr, sizeof(*present));
    fix_look(fix, base, nr, present);
    for (uint32_t i = 0; i < nr; i++)
        if (present[i] != (i >= from && i < to))
            ck_abort_msg("page %u of [%u, %u)", i, from, to);
    free(present);
}

static inline void fix_expect_slots(const struct fix *fix, fn_t from, fn_t to)
{
    fix_expect(fix, fix->hm->arena, FIX_SLOTS, from, to);
}

/* The same for guest pages of the low region. */
static inline void fix_expect_guest(const struct fix *fix, gfn_t from, gfn_t to)
{
    fix_expect(fix, fix->vm->range.base, FIX_LOW_BLOCKS * BLOCK_PAGES, from, to);
}

/* A page's content by number: at its start, its end and somewhere between. 0: a page of zeros. */
static inline void fix_write(char *page, uint64_t number)
{
    uint64_t *words = (uint64_t *)(void *)page;
    words[0] = words[200] = words[PAGE_BYTES / 8 - 1] = number;
}

static inline bool fix_holds(const char *page, uint64_t number)
{
    const uint64_t *words = (const uint64_t *)(const void *)page;
    return words[0] == number && words[200] == number && words[PAGE_BYTES / 8 - 1] == number && words[1] == 0;
}

static inline char *fix_slot(const struct fix *fix, fn_t fn)
{
    return hostmem_slot(fix->hm, fn);
}

static inline char *fix_guest(const struct fix *fix, gfn_t gfn)
{
    return hostmem_guest(fix->vm, gfn, 1);
}

/* Filled slots [fn, fn + nr) with contents number, number + 1, ... */
static inline void fix_fill(const struct fix *fix, fn_t fn, uint32_t nr, uint64_t number)
{
    ck_assert_int_eq(fix->ops->populate(fix->hm, fn, nr), 0);
    for (uint32_t i = 0; i < nr; i++)
        fix_write(fix_slot(fix, fn + i), number + i);
}

/* First value of the loop variable: leaves UFFDIO_MOVE out, loudly, where the kernel has none. */
static inline int fix_end(void)
{
    struct diag diag = {0};
    uint64_t features = 0;
    if (uffd_probe(&features, &diag) || hostmem_can_move(features))
        return NR_FIX;
    puts("SKIP: this kernel has no UFFDIO_MOVE: the moving transport was not tested");
    return FIX_MOVE;
}

#endif
