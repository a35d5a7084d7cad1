/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory manager under a device that is fuzzed: the real one over a host in arrays, which checks every call. Making
 * it takes a tenth of a second, so it is made once a process, and is as new at the end of each input.
 */
#ifndef TESTS_FUZZ_FUZZ_MM_H
#define TESTS_FUZZ_FUZZ_MM_H

#include "mm/mm.h"
#include "tests/fake/fake_host.h"
#include "tests/fuzz/fuzz.h"

#define FUZZ_MIB (UINT64_C(1) << 20)

struct fuzz_mm {
    struct fake_host *fh;
    struct mm_host *host;
    struct mm_thread *thread;
    struct mm_vm *vm;
};

/* The first time: makes host and VM. Each time: they are the environment's. */
static inline void fuzz_mm_prepare(struct fuzz_mm *mm, struct fuzz_rig *rig, const struct mm_region *regions,
                                   unsigned nr)
{
    const struct mm_config config = {.budget_bytes = 16 * FUZZ_MIB, .zram = {.limit_bytes = FUZZ_MIB}};
    uint64_t end = regions[nr - 1].start.v + regions[nr - 1].bytes;
    if (!mm->vm) {
        mm->fh = fake_host_create(mm_arena_slots(&config));
        if (mm_host_create(&config, fake_host_ops(mm->fh), mm->fh, fake_host_arena(mm->fh), &mm->host) ||
            mm_thread_create(mm->host, &mm->thread) || mm_vm_create(mm->host, regions, nr, &mm->vm))
            fuzz_fail("no memory host");
        fake_host_add_vm(mm->fh, mm_vm_id(mm->vm), (uint32_t)(end >> PAGE_SHIFT));
    }
    rig->env.vm = mm->vm;
    rig->env.thread = mm->thread;
}

static inline void fuzz_mm_touch(struct fuzz_mm *mm, gpa_t gpa)
{
    if (mm_fault(mm->thread, mm->vm, gpa, MM_FAULT_WRITE))
        return; /* not memory: the VM would stop here */
}

static inline void fuzz_mm_check(struct fuzz_mm *mm)
{
    const char *why = NULL;
    if (!mm_check(mm->host, &why))
        fuzz_fail(why);
    if (fake_host_breach(mm->fh))
        fuzz_fail(fake_host_breach(mm->fh));
}

/* All that the guest had is gone. */
static inline void fuzz_mm_renew(struct fuzz_mm *mm)
{
    struct mm_region region[MM_MAX_REGIONS];
    uint64_t ignored;
    unsigned nr = mm_regions(mm->vm, region, MM_MAX_REGIONS);
    for (unsigned i = 0; i < nr; i++)
        if (mm_drop(mm->thread, mm->vm, region[i].start, region[i].bytes, MM_DROP_FREE, 0, &ignored))
            fuzz_fail("whole blocks need no table");
}

#endif
