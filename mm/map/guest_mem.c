/* SPDX-License-Identifier: Apache-2.0 */
#include "mm/map/guest_mem.h"

#include <errno.h>
#include <string.h>

void *guest_mem_hva(const struct guest_mem *mem, gpa_t gpa, uint64_t bytes)
{
    for (unsigned i = 0; i < mem->nr; i++) {
        const struct guest_mem_region *region = &mem->region[i];
        /* Wraps when gpa is below the region: then it is larger than any region. */
        uint64_t offset = gpa.v - region->start.v;

        if (gpa.v >= region->start.v && offset < region->bytes)
            return bytes <= region->bytes - offset ? region->hva + offset : NULL;
    }
    return NULL;
}

int guest_mem_read(const struct guest_mem *mem, gpa_t gpa, void *to, uint64_t bytes)
{
    const void *from = guest_mem_hva(mem, gpa, bytes);

    if (!from)
        return -EFAULT;
    memcpy(to, from, bytes);
    return 0;
}

int guest_mem_write(const struct guest_mem *mem, gpa_t gpa, const void *from, uint64_t bytes)
{
    void *to = guest_mem_hva(mem, gpa, bytes);

    if (!to)
        return -EFAULT;
    memcpy(to, from, bytes);
    return 0;
}
