/* SPDX-License-Identifier: Apache-2.0 */
/* Which accesses this run sees: --access and --sample, told to the memory manager. */
#include "vmm/run.h"

#include <stdlib.h>

/* The memory of one VM; returns how many ranges. */
static unsigned put_ranges(struct memhost_vm *memory, struct access_range *out)
{
    struct mm_vm *mm = memhost_vm_mm(memory);
    struct mm_region regions[MM_MAX_REGIONS];
    unsigned nr = mm_regions(mm, regions, MM_MAX_REGIONS);

    for (unsigned i = 0; i < nr; i++)
        out[i] = (struct access_range){
            .vm = mm_vm_id(mm),
            .gpa = regions[i].start,
            .bytes = regions[i].bytes,
            .start = (uint64_t)(uintptr_t)memhost_vm_hva(memory, regions[i].start, regions[i].bytes),
        };
    return nr;
}

int run_access_start(struct run *run)
{
    const struct run_options *o = &run->options;
    struct mm_host *mm = memhost_mm(run->mh);
    unsigned nr = 0;

    if (!mm)
        return 0;
    struct access_range *ranges = calloc((size_t)run->nr_vms * MM_MAX_REGIONS, sizeof(*ranges));
    if (!ranges)
        return diag_set(run->diag, EXIT_HOST, "out of memory");
    for (unsigned i = 0; i < run->nr_vms; i++)
        nr += put_ranges(machine_memory(run->vms[i].machine), ranges + nr);
    int error = access_choose(o->access, &access_kernel_paths, ranges, nr, &run->access, run->diag);
    free(ranges);
    if (!error)
        access_configure(mm, o->sample_mpct, run->access.source);
    return error;
}
