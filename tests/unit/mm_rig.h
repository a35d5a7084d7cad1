/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One memory host over the fake host with one VM, and what its guest wrote. For tests that watch what happens under
 * pressure; several thread handles may be used in turn from one test thread.
 */
#ifndef TESTS_UNIT_MM_RIG_H
#define TESTS_UNIT_MM_RIG_H

#include "mm/reclaim/host.h"
#include "tests/fake/fake_host.h"
#include "tests/fake/fake_swap.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#define MIB (UINT64_C(1) << 20)
#define RIG_MAX_THREADS 16u

/* What a page holds. TEXT compresses about 6:1, HALF to a little more than half a page, RANDOM not at all. */
enum content { NOTHING, TEXT, HALF, RANDOM };

/*
 * As ck_assert_msg, for what is looked at page by page: each of Check's own assertions writes to a file, well or not,
 * which was three quarters of the time of a test with many pages.
 */
#define rig_assert(condition, ...)                                                                                     \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            ck_abort_msg(__VA_ARGS__);                                                                                 \
    } while (0)

struct mm_rig {
    struct fake_host *fh;
    struct mm_host *host;
    struct mm_thread *thread[RIG_MAX_THREADS];
    unsigned nr_threads;
    struct mm_vm *vm;
    uint32_t nr_pages;
    uint8_t *content; /* by gfn: enum content */
};

static inline void rig_make_page(uint64_t *page, gfn_t gfn, enum content content)
{
    static const unsigned share[] = {[NOTHING] = 0, [TEXT] = 48, [HALF] = 290, [RANDOM] = 512};
    uint64_t x = gfn + UINT64_C(0x9e3779b97f4a7c15);
    memset(page, 0, PAGE_BYTES);
    for (unsigned i = 0; i < share[content]; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        page[i] = x;
    }
}

/* On @fh, which was made for the slots of @config. */
static inline struct mm_rig *mm_rig_create_on(struct fake_host *fh, const struct mm_config *config, uint64_t vm_bytes,
                                              unsigned nr_threads)
{
    struct mm_rig *rig = calloc(1, sizeof(*rig));
    const struct mm_region region = {.start = {0}, .bytes = vm_bytes};
    rig->fh = fh;
    rig->nr_pages = (uint32_t)(vm_bytes / PAGE_BYTES);
    rig->content = calloc(rig->nr_pages, 1);
    fake_host_set_budget(rig->fh, (uint32_t)(config->budget_bytes / PAGE_BYTES));
    fn_t start[MM_MAX_NODES + 1];
    fake_host_set_nodes(rig->fh, mm_arena_layout(config, start), start);
    ck_assert_int_eq(mm_host_create(config, fake_host_ops(rig->fh), rig->fh, fake_host_arena(rig->fh), &rig->host), 0);
    for (; rig->nr_threads < nr_threads; rig->nr_threads++)
        ck_assert_int_eq(mm_thread_create(rig->host, &rig->thread[rig->nr_threads]), 0);
    ck_assert_int_eq(mm_vm_create(rig->host, &region, 1, &rig->vm), 0);
    fake_host_add_vm(rig->fh, mm_vm_id(rig->vm), rig->nr_pages);
    return rig;
}

static inline struct mm_rig *mm_rig_create(const struct mm_config *config, uint64_t vm_bytes, unsigned nr_threads)
{
    return mm_rig_create_on(fake_host_create(mm_arena_slots(config)), config, vm_bytes, nr_threads);
}

static inline void mm_rig_check(struct mm_rig *rig)
{
    const char *why = NULL;
    rig_assert(mm_check(rig->host, &why), "%s", why);
    rig_assert(!fake_host_breach(rig->fh), "%s", fake_host_breach(rig->fh));
}

static inline void mm_rig_destroy(struct mm_rig *rig)
{
    struct fake_host_stat fake;
    mm_rig_check(rig);
    mm_vm_destroy(rig->thread[0], rig->vm);
    mm_rig_check(rig);
    for (unsigned i = 0; i < rig->nr_threads; i++)
        mm_thread_destroy(rig->thread[i]);
    for (unsigned n = 0; n < rig->host->nr_nodes; n++)
        ck_assert_uint_eq(pool_nr_free(&rig->host->node[n].pool), rig->host->node[n].pool.budget_pages);
    mm_host_destroy(rig->host);
    fake_host_stat(rig->fh, &fake);
    ck_assert_uint_eq(fake.physical_pages, 0);
    fake_host_destroy(rig->fh);
    free(rig->content);
    free(rig);
}

static inline bool mm_rig_is_present(struct mm_rig *rig, gfn_t gfn)
{
    return fake_host_is_present(rig->fh, mm_vm_id(rig->vm), gfn);
}

static inline int mm_rig_touch(struct mm_rig *rig, unsigned thread, gfn_t gfn)
{
    for (unsigned tries = 0; !mm_rig_is_present(rig, gfn); tries++) {
        int err = mm_fault(rig->thread[thread], rig->vm, gpa_of(gfn), MM_FAULT_WRITE);
        if (err)
            return err;
        rig_assert(tries < 1000, "page %u goes each time it has come", gfn);
    }
    return 0;
}

/* Other threads may take the page away between the fault and the access: then there is another fault. */
static inline int mm_rig_write(struct mm_rig *rig, unsigned thread, gfn_t gfn, enum content content)
{
    uint64_t page[PAGE_BYTES / 8];
    rig_make_page(page, gfn, content);
    do {
        int err = mm_rig_touch(rig, thread, gfn);
        if (err)
            return err;
    } while (fake_host_guest_write(rig->fh, mm_vm_id(rig->vm), gfn, 0, page, (uint32_t)PAGE_BYTES));
    rig->content[gfn] = (uint8_t)content;
    return 0;
}

static inline void mm_rig_fill(struct mm_rig *rig, gfn_t start, gfn_t end, enum content content)
{
    for (gfn_t gfn = start; gfn < end; gfn++)
        rig_assert(!mm_rig_write(rig, 0, gfn, content), "page %u refused", gfn);
}

static inline void mm_rig_verify(struct mm_rig *rig, unsigned thread, gfn_t gfn)
{
    uint64_t want[PAGE_BYTES / 8], got[PAGE_BYTES / 8];
    rig_make_page(want, gfn, (enum content)rig->content[gfn]);
    do
        rig_assert(!mm_rig_touch(rig, thread, gfn), "page %u refused", gfn);
    while (fake_host_guest_read(rig->fh, mm_vm_id(rig->vm), gfn, 0, got, (uint32_t)PAGE_BYTES));
    rig_assert(!memcmp(want, got, PAGE_BYTES), "page %u", gfn);
}

static inline const char *mm_rig_state(struct mm_rig *rig, gfn_t gfn)
{
    struct mm_page_info info;
    rig_assert(!mm_page_info(rig->vm, gpa_of(gfn), &info), "page %u", gfn);
    return info.state;
}

static inline struct fake_swap *mm_rig_swapon(struct mm_rig *rig, const char *name, uint64_t slots)
{
    struct fake_swap *disk = fake_swap_create(slots);
    ck_assert_int_ge(swap_area_add(mm_swap_set(rig->host), name, "file", slots, -1, &fake_swap_backend, disk), 0);
    return disk;
}

static inline uint32_t mm_rig_free_pages(struct mm_rig *rig)
{
    return (uint32_t)host_nr_free(rig->host);
}

/* As after @nr epochs in a row of nothing but mistakes, the last of which took @last_ns and ended now. */
static inline void mm_rig_has_thrashed(struct mm_rig *rig, uint32_t nr, uint64_t last_ns)
{
    struct mm_lru *lru = &rig->host->lru;
    uint64_t now_ns = rig->host->ops->clock_ns(rig->fh);
    lru->epoch_ns[lru->epoch & S2_STAMP_MAX] = now_ns - last_ns;
    lru->epoch_ns[++lru->epoch & S2_STAMP_MAX] = now_ns;
    lru->epoch_pages = lru->mistakes = 0;
    lru->nr_thrashing = nr;
}

#endif
