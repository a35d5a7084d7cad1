/* SPDX-License-Identifier: Apache-2.0 */
#include "mm/map/guest_mem.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
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
    guest_mem_note_write(mem, gpa, bytes);
    memcpy(to, from, bytes);
    return 0;
}

/* --- log of writes by devices ------------------------------------------------------------------------- */

int guest_mem_log_start(struct guest_mem *mem)
{
    uint64_t pages = 0;

    for (unsigned i = 0; i < mem->nr; i++)
        pages = MAX_OF(pages, (mem->region[i].start.v + mem->region[i].bytes) / PAGE_BYTES);
    mem->nr_written_words = (pages + 63) / 64;
    uint64_t *words = calloc(mem->nr_written_words, sizeof(*words));
    if (!words)
        return -ENOMEM;
    __atomic_store_n(&mem->written, words, __ATOMIC_RELEASE); /* with the loads below */
    return 0;
}

void guest_mem_log_stop(struct guest_mem *mem)
{
    uint64_t *words = __atomic_exchange_n(&mem->written, NULL, __ATOMIC_SEQ_CST);

    /* Whoever counted itself before may have the words; who does so now finds NULL: both are in one order. */
    while (__atomic_load_n(&mem->nr_noting, __ATOMIC_SEQ_CST))
        sched_yield();
    free(words);
}

void guest_mem_note_write(const struct guest_mem *mem, gpa_t gpa, uint64_t bytes)
{
    unsigned *nr_noting = (unsigned *)&mem->nr_noting; /* memory as such is constant to who notes */

    if (!__atomic_load_n(&mem->written, __ATOMIC_RELAXED) || bytes == 0)
        return;
    __atomic_fetch_add(nr_noting, 1, __ATOMIC_SEQ_CST);
    uint64_t *words = __atomic_load_n(&mem->written, __ATOMIC_SEQ_CST);
    for (uint64_t gfn = gpa.v >> PAGE_SHIFT; words && gfn <= (gpa.v + bytes - 1) >> PAGE_SHIFT; gfn++)
        __atomic_fetch_or(&words[gfn / 64], UINT64_C(1) << (gfn % 64), __ATOMIC_RELAXED);
    __atomic_fetch_sub(nr_noting, 1, __ATOMIC_SEQ_CST);
}

bool guest_mem_was_written(const struct guest_mem *mem, gfn_t gfn)
{
    const uint64_t *words = __atomic_load_n(&mem->written, __ATOMIC_ACQUIRE);

    return words && gfn / 64 < mem->nr_written_words &&
           __atomic_load_n(&words[gfn / 64], __ATOMIC_RELAXED) >> (gfn % 64) & 1;
}
