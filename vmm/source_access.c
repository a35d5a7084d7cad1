/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/source_access.h"

#include "vmm/heatmap.h"

#include <stdlib.h>

json_t *source_idle(const struct source *source)
{
    struct view_idle *vms = calloc(source->nr_vms + 1, sizeof(*vms));
    struct access_stat stat;
    unsigned nr = 0;

    if (!vms)
        return NULL;
    for (unsigned i = 0; i < source->nr_vms; i++) {
        if (!source->vms[i].there)
            continue;
        vms[nr].name = source->vms[i].name;
        access_idle(source->vms[i].mm, &vms[nr++].idle);
    }
    access_stat(source->mm, &stat);
    json_t *view = view_idle(&stat, vms, nr);
    free(vms);
    return view;
}

json_t *source_heatmap(const struct source_vm *vm)
{
    struct access_map *map = malloc(sizeof(*map));

    if (!map)
        return NULL;
    access_map(vm->mm, map);
    json_t *view = heatmap_json(vm->name, map);
    free(map);
    return view;
}
