/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/source_numa.h"

#include <stdlib.h>

/* The host's nodes as they are now; NULL: no memory. */
static struct numa_host *collect_nodes(const struct source *source, struct view_numa *out)
{
    struct numa_host *host = malloc(sizeof(*host));

    *out = (struct view_numa){.host = host, .options = source->numa, .policy = source->policy};
    if (!host)
        return NULL;
    numa_host_read(host);
    out->nr_nodes = mm_nr_nodes(source->mm);
    for (unsigned i = 0; i < out->nr_nodes; i++)
        mm_node_stat(source->mm, i, &out->nodes[i]);
    mm_host_stat(source->mm, &out->stat);
    return host;
}

static void collect_numa_vm(const struct source_vm *vm, struct view_numa_vm *out)
{
    out->name = vm->name;
    mm_vm_nodes(vm->mm, out->pages);
    mm_vm_standby_nodes(vm->mm, out->standby_pages);
    for (unsigned i = 0; i < ARRAY_LEN(out->vcpus); i++) {
        struct view_numa_vcpu *vcpu = &out->vcpus[out->nr_vcpus];
        vcpu->vcpu = i;
        if (mm_vcpu_stat(vm->mm, i, &vcpu->stat))
            out->nr_vcpus++;
    }
}

json_t *source_numa(const struct source *source)
{
    struct view_numa_vm *vms = calloc(source->nr_vms + 1, sizeof(*vms));
    struct view_numa numa;
    struct numa_host *host = collect_nodes(source, &numa);
    json_t *view = NULL;
    unsigned nr = 0;

    for (unsigned i = 0; vms && i < source->nr_vms; i++) {
        if (!source->vms[i].there)
            continue;
        collect_numa_vm(&source->vms[i], &vms[nr++]);
    }
    if (vms && host)
        view = view_numa(&numa, vms, nr);
    free(host);
    free(vms);
    return view;
}

json_t *source_tiers(const struct source *source)
{
    struct view_numa numa;
    struct numa_host *host = collect_nodes(source, &numa);
    json_t *view = host ? view_tiers(&numa) : NULL;

    free(host);
    return view;
}
