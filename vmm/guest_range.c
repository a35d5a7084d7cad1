/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/guest_range.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGEMAP_PRESENT (UINT64_C(1) << 63) /* Documentation/admin-guide/mm/pagemap.rst */

void *block_map(uint64_t bytes)
{
    uint64_t room = bytes + BLOCK_BYTES;
    char *raw = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (raw == MAP_FAILED)
        return NULL;
    uint64_t head = (BLOCK_BYTES - (uintptr_t)raw % BLOCK_BYTES) % BLOCK_BYTES;
    if (head > 0)
        munmap(raw, head);
    munmap(raw + head + bytes, room - head - bytes);
    /* A fork would share every page, and shared pages cannot be moved. */
    madvise(raw + head, bytes, MADV_DONTFORK);
    madvise(raw + head, bytes, MADV_DONTDUMP);
    return raw + head;
}

void block_unmap(void *base, uint64_t bytes)
{
    if (base)
        munmap(base, bytes);
}

static bool region_ok(const struct mm_region *region, const struct mm_region *others, unsigned nr)
{
    if (region->bytes == 0 || region->bytes % BLOCK_BYTES || region->start.v % BLOCK_BYTES)
        return false;
    /* gfn_t has 32 bits */
    if (region->start.v > UINT64_C(1) << 44 || region->bytes > (UINT64_C(1) << 44) - region->start.v)
        return false;
    for (unsigned i = 0; i < nr; i++)
        if (region->start.v < others[i].start.v + others[i].bytes &&
            others[i].start.v < region->start.v + region->bytes)
            return false;
    return true;
}

int guest_range_map(struct guest_range *range, const struct mm_region *regions, unsigned nr, uint64_t tail_bytes)
{
    if (nr == 0 || nr > MM_MAX_REGIONS)
        return -EINVAL;
    uint64_t bytes = 0;
    for (unsigned i = 0; i < nr; i++) {
        if (!region_ok(&regions[i], regions, i))
            return -EINVAL;
        bytes += regions[i].bytes;
    }
    char *base = block_map(bytes + tail_bytes);
    if (!base)
        return -ENOMEM;
    *range = (struct guest_range){.base = base, .bytes = bytes, .tail_bytes = tail_bytes, .nr_regions = nr};
    memcpy(range->regions, regions, nr * sizeof(*regions));
    return 0;
}

void guest_range_unmap(struct guest_range *range)
{
    block_unmap(range->base, range->bytes + range->tail_bytes);
    range->base = NULL;
}

void *guest_range_hva(const struct guest_range *range, gpa_t gpa, uint64_t bytes)
{
    char *base = range->base;
    for (unsigned i = 0; i < range->nr_regions; i++) {
        const struct mm_region *region = &range->regions[i];
        uint64_t offset = gpa.v - region->start.v;
        if (gpa.v >= region->start.v && offset < region->bytes)
            return bytes <= region->bytes - offset ? base + offset : NULL;
        base += region->bytes;
    }
    return NULL;
}

bool guest_range_gpa(const struct guest_range *range, const void *hva, gpa_t *out)
{
    uint64_t offset = (uintptr_t)hva - (uintptr_t)range->base;
    if ((uintptr_t)hva < (uintptr_t)range->base || offset >= range->bytes)
        return false;
    unsigned i = 0;
    for (; offset >= range->regions[i].bytes; i++)
        offset -= range->regions[i].bytes;
    *out = (gpa_t){range->regions[i].start.v + offset};
    return true;
}

uint64_t guest_range_resident_bytes(const struct guest_range *range)
{
    int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    uint64_t entries[BLOCK_PAGES], resident = 0;
    for (uint64_t at = 0; at < range->bytes; at += BLOCK_BYTES) {
        off_t offset = (off_t)(((uintptr_t)range->base + at) / PAGE_BYTES * sizeof(uint64_t));
        if (pread(fd, entries, sizeof(entries), offset) != (ssize_t)sizeof(entries))
            break;
        for (unsigned i = 0; i < BLOCK_PAGES; i++)
            resident += entries[i] & PAGEMAP_PRESENT ? PAGE_BYTES : 0;
    }
    close(fd);
    return resident;
}
