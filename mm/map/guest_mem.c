/* SPDX-License-Identifier: Apache-2.0 */
#include "mm/map/guest_mem.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* [offset, offset + bytes) of region @index, and the byte at offset. */
static bool is_plugged(const struct guest_mem *mem, unsigned index, uint64_t offset, uint64_t bytes)
{
    if (!mem->plugged || index + 1 < mem->nr)
        return true;
    for (uint64_t block = offset / BLOCK_BYTES; block <= (offset + MAX_OF(bytes, 1u) - 1) / BLOCK_BYTES; block++)
        if (!(__atomic_load_n(&mem->plugged[block / 64], __ATOMIC_RELAXED) >> block % 64 & 1))
            return false;
    return true;
}

void *guest_mem_hva(const struct guest_mem *mem, gpa_t gpa, uint64_t bytes)
{
    for (unsigned i = 0; i < mem->nr; i++) {
        const struct guest_mem_region *region = &mem->region[i];
        /* Wraps when gpa is below the region: then it is larger than any region. */
        uint64_t offset = gpa.v - region->start.v;

        if (gpa.v >= region->start.v && offset < region->bytes)
            return bytes <= region->bytes - offset && is_plugged(mem, i, offset, bytes) ? region->hva + offset : NULL;
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
    guest_mem_note_write(mem, gpa, bytes);
    memcpy(to, from, bytes);
    return 0;
}

/* --- log of writes by devices ------------------------------------------------------------------------- */

static uint64_t end_page(const struct guest_mem *mem)
{
    uint64_t pages = 0;

    for (unsigned i = 0; i < mem->nr; i++)
        pages = MAX_OF(pages, (mem->region[i].start.v + mem->region[i].bytes) / PAGE_BYTES);
    return pages;
}

int guest_mem_log_start(struct guest_mem *mem)
{
    if (!mem->log_words) {
        mem->nr_written_words = (end_page(mem) + 63) / 64;
        mem->log_words = calloc(mem->nr_written_words, sizeof(*mem->log_words));
        if (!mem->log_words)
            return -ENOMEM;
    }
    /* Whoever began to note a write before the last stop may still do so: a bit too many. */
    for (uint64_t i = 0; i < mem->nr_written_words; i++)
        __atomic_store_n(&mem->log_words[i], 0, __ATOMIC_RELAXED);
    __atomic_store_n(&mem->written, mem->log_words, __ATOMIC_RELEASE); /* with the loads below */
    return 0;
}

void guest_mem_log_stop(struct guest_mem *mem)
{
    __atomic_store_n(&mem->written, NULL, __ATOMIC_RELAXED);
}

void guest_mem_log_free(struct guest_mem *mem)
{
    guest_mem_log_stop(mem);
    free(mem->log_words);
    mem->log_words = NULL;
}

void guest_mem_note_write(const struct guest_mem *mem, gpa_t gpa, uint64_t bytes)
{
    uint64_t *words = __atomic_load_n(&mem->written, __ATOMIC_ACQUIRE);

    if (!words || bytes == 0)
        return;
    for (uint64_t gfn = gpa.v >> PAGE_SHIFT; gfn <= (gpa.v + bytes - 1) >> PAGE_SHIFT; gfn++)
        __atomic_fetch_or(&words[gfn / 64], UINT64_C(1) << (gfn % 64), __ATOMIC_RELAXED);
}

bool guest_mem_was_written(const struct guest_mem *mem, gfn_t gfn)
{
    const uint64_t *words = __atomic_load_n(&mem->written, __ATOMIC_ACQUIRE);

    return words && gfn / 64 < mem->nr_written_words &&
           __atomic_load_n(&words[gfn / 64], __ATOMIC_RELAXED) >> (gfn % 64) & 1;
}
