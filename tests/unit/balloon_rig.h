/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A balloon over an mm host in arrays, and the driver's side of it. Rings and buffers are plain memory; what the balloon
 * drops is the fake host's. Host operations that drop are counted.
 */
#ifndef TESTS_UNIT_BALLOON_RIG_H
#define TESTS_UNIT_BALLOON_RIG_H

#include "devices/balloon/balloon.h"
#include "tests/fake/fail_alloc.h"
#include "tests/fake/fake_driver.h"
#include "tests/unit/mm_rig.h"

#include <endian.h>
#include <errno.h>

enum { INFLATE, DEFLATE, STATS, HINT, REPORT, NR_QUEUES };

#define BALLOON_VM_BYTES (64 * MIB)
#define BALLOON_VM_PAGES ((uint32_t)(BALLOON_VM_BYTES / PAGE_BYTES))
#define SCRATCH_BYTES (MIB)
#define F(bit) (UINT64_C(1) << VIRTIO_BALLOON_F_##bit)
#define ALL_FEATURES                                                                                                   \
    (F(MUST_TELL_HOST) | F(STATS_VQ) | F(DEFLATE_ON_OOM) | F(FREE_PAGE_HINT) | F(PAGE_POISON) | F(REPORTING))
/* All but the one that makes drops late. */
#define AT_ONCE (ALL_FEATURES & ~F(MUST_TELL_HOST))
#define RING_FEATURES                                                                                                  \
    (UINT64_C(1) << VIRTIO_RING_F_INDIRECT_DESC | UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX |                             \
     UINT64_C(1) << VIRTIO_F_RING_PACKED)

struct balloon_rig {
    struct mm_rig *mm; /* NULL: env.vm is, too */
    struct fake_memory memory;
    struct device_env env;
    struct balloon *balloon;
    struct virtio_mmio mmio;
    struct fake_driver driver;
    gpa_t scratch;
};

/* The fake host's drop, counted. One rig at a time. */
static struct {
    void (*drop)(void *ctx, vmid_t vm, gfn_t gfn, uint32_t nr);
    uint64_t nr_calls, nr_pages;
} host_drops;

static inline void counting_drop(void *ctx, vmid_t vm, gfn_t gfn, uint32_t nr)
{
    host_drops.nr_calls++;
    host_drops.nr_pages += nr;
    host_drops.drop(ctx, vm, gfn, nr);
}

static inline struct mm_rig *counted_mm_rig(void)
{
    const struct mm_config config = {.budget_bytes = 96 * MIB, .zram = {.limit_bytes = 8 * MIB}};
    struct mm_rig *mm = mm_rig_create(&config, BALLOON_VM_BYTES, 1);
    host_drops.drop = fake_host_ops(mm->fh)->drop;
    host_drops.nr_calls = host_drops.nr_pages = 0;
    fake_host_ops(mm->fh)->drop = counting_drop;
    return mm;
}

static inline void balloon_rig_init(struct balloon_rig *rig, const struct balloon_config *config, bool with_mm)
{
    *rig = (struct balloon_rig){.mm = with_mm ? counted_mm_rig() : NULL};
    fake_memory_init(&rig->memory, 0, BALLOON_VM_BYTES);
    rig->env.mem = &rig->memory.mem;
    rig->env.vm = with_mm ? rig->mm->vm : NULL;
    rig->env.thread = with_mm ? rig->mm->thread[0] : NULL;
    ck_assert_int_eq(loop_create(&rig->env.loop), 0);
    ck_assert_int_eq(balloon_create(config, &rig->env, &rig->balloon), 0);
    ck_assert_int_eq(virtio_mmio_init(&rig->mmio, balloon_device(rig->balloon)), 0);
    fake_driver_init(&rig->driver, &rig->mmio, &rig->memory);
    rig->scratch = fake_memory_alloc(&rig->memory, SCRATCH_BYTES, PAGE_BYTES);
}

static inline void balloon_rig_fini(struct balloon_rig *rig)
{
    virtio_mmio_fini(&rig->mmio);
    balloon_destroy(rig->balloon);
    loop_destroy(rig->env.loop);
    fake_memory_fini(&rig->memory);
    if (rig->mm)
        mm_rig_destroy(rig->mm);
}

/* Everything offered, @features accepted, all queues made. */
static inline void balloon_rig_start(struct balloon_rig *rig, uint64_t features)
{
    static const struct balloon_config config = {.stats = true,
                                                 .deflate_on_oom = true,
                                                 .hints = true,
                                                 .poison = true,
                                                 .reporting = true,
                                                 .must_tell_host = true};
    balloon_rig_init(rig, &config, true);
    ck_assert_int_eq(fake_driver_start(&rig->driver, features, 0), 0);
    fake_driver_run(&rig->driver); /* DRIVER_OK looks at each queue once */
}

/* Page numbers into guest memory, at @offset of the scratch area. */
static inline struct fake_buffer pfn_buffer(struct balloon_rig *rig, uint64_t offset, const uint32_t *pfn, uint32_t nr)
{
    const struct fake_buffer buffer = {{rig->scratch.v + offset}, nr * (uint32_t)sizeof(*pfn)};
    uint32_t *to = fake_memory_at(&rig->memory, buffer.gpa, buffer.bytes);
    ck_assert_uint_le(offset + buffer.bytes, SCRATCH_BYTES);
    for (uint32_t i = 0; i < nr; i++)
        to[i] = htole32(pfn[i]);
    return buffer;
}

/* [first, first + nr), falling as Linux sends them. */
static inline struct fake_buffer run_buffer(struct balloon_rig *rig, uint64_t offset, uint32_t first, uint32_t nr)
{
    uint32_t pfn[1024];
    ck_assert_uint_le(nr, ARRAY_LEN(pfn));
    for (uint32_t i = 0; i < nr; i++)
        pfn[i] = first + nr - 1 - i;
    return pfn_buffer(rig, offset, pfn, nr);
}

static inline void send_run(struct balloon_rig *rig, unsigned queue, uint32_t first, uint32_t nr)
{
    const struct fake_buffer buffer = run_buffer(rig, 0, first, nr);
    ck_assert_int_eq(fake_driver_request(&rig->driver, queue, &buffer, 1, 0), 0);
}

static inline uint64_t in_balloon(struct balloon_rig *rig)
{
    struct mm_vm_stat stat;
    mm_vm_stat(rig->mm->vm, &stat);
    return stat.balloon_bytes / PAGE_BYTES;
}

static inline uint64_t resident(struct balloon_rig *rig)
{
    struct mm_vm_stat stat;
    mm_vm_stat(rig->mm->vm, &stat);
    return stat.resident_bytes / PAGE_BYTES;
}

static inline struct balloon_info info_of(struct balloon_rig *rig)
{
    struct balloon_info info;
    balloon_info(rig->balloon, &info);
    return info;
}

/* Every word of the page, once it is touched. */
static inline void ck_page_is(struct balloon_rig *rig, gfn_t gfn, uint32_t word)
{
    uint32_t page[PAGE_BYTES / 4];
    ck_assert_int_eq(mm_rig_touch(rig->mm, 0, gfn), 0);
    ck_assert_int_eq(fake_host_guest_read(rig->mm->fh, mm_vm_id(rig->mm->vm), gfn, 0, page, (uint32_t)PAGE_BYTES), 0);
    for (unsigned i = 0; i < ARRAY_LEN(page); i++)
        ck_assert_msg(page[i] == word, "page %u word %u: %#x, not %#x", gfn, i, page[i], word);
}

static inline void ck_broken(struct balloon_rig *rig)
{
    ck_assert_uint_ne(fake_driver_status(&rig->driver) & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
}

#endif
