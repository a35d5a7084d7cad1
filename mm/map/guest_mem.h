/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guest_mem: guest physical memory as a device or a loader may use it: checked addresses, checked copies.
 *
 * The guest writes while we read. So nothing is used where it stands: a structure is copied once, checked, then used.
 * Touching a page that is not resident makes this thread wait for a fault thread, which is why fault threads never
 * come here, and why nobody may hold a lock that mm_fault takes.
 */
#ifndef MM_MAP_GUEST_MEM_H
#define MM_MAP_GUEST_MEM_H

#include "mm/base/types.h"

#define GUEST_MEM_MAX_REGIONS 8

struct guest_mem_region {
    gpa_t start;
    uint64_t bytes;
    char *hva; /* of start, in this process */
};

/* Regions do not overlap, and are constant once the vCPUs run. */
struct guest_mem {
    unsigned nr;
    struct guest_mem_region region[GUEST_MEM_MAX_REGIONS];
    /* The last region comes and goes: bit i, atomic, is set while its block i of BLOCK_BYTES is there. NULL: it stays. */
    const uint64_t *plugged;
    /* Log of pages given to devices to be written: bit gfn. Atomic; NULL: nobody asks. */
    uint64_t *written;
    uint64_t *log_words; /* written, while there is a log */
    uint64_t nr_written_words;
};

/*
 * Address of [gpa, gpa + bytes), or NULL when that is not inside one region, wraps, or is not plugged. @bytes may be 0:
 * then gpa itself has to be inside. Blocks are unplugged by the device thread, and pinned ones are not: so what was found
 * there in one callback, and is not kept, stays.
 */
void *guest_mem_hva(const struct guest_mem *mem, gpa_t gpa, uint64_t bytes);
/* 0, or -EFAULT with nothing copied: a part of [gpa, gpa + bytes) is not inside one region. */
must_check int guest_mem_read(const struct guest_mem *mem, gpa_t gpa, void *to, uint64_t bytes);
must_check int guest_mem_write(const struct guest_mem *mem, gpa_t gpa, const void *from, uint64_t bytes);

/*
 * The log. KVM's dirty log has what vCPUs write; what devices write is noted here, before it is written: by virtq_write, by
 * the rings of virtq, by whoever pins memory for I/O, and by guest_mem_write. Both together are all that can change memory.
 *
 * guest_mem_log_start - empty, and on. One user at a time. 0 or -ENOMEM. guest_mem_log_stop - off. Any thread, whatever
 * devices do meanwhile: the log's memory stays until guest_mem_log_free, when no device is at work any more.
 */
must_check int guest_mem_log_start(struct guest_mem *mem);
void guest_mem_log_stop(struct guest_mem *mem);
void guest_mem_log_free(struct guest_mem *mem);
/* The pages of [gpa, gpa + bytes), inside memory, may be written from now on. Does nothing while the log is off. */
void guest_mem_note_write(const struct guest_mem *mem, gpa_t gpa, uint64_t bytes);
/* False while the log is off. */
bool guest_mem_was_written(const struct guest_mem *mem, gfn_t gfn);

#endif
