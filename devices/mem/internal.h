/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of virtio-mem share. */
#ifndef DEVICES_MEM_INTERNAL_H
#define DEVICES_MEM_INTERNAL_H

#include "devices/mem/mem.h"

struct mem {
    struct virtio_device device;
    gpa_t start;
    uint64_t nr_blocks;
    int node;
    /* guarded by device.lock */
    struct virtio_mem_config config; /* little endian, as the guest sees it */
    uint64_t requested_blocks, plugged_blocks;
    uint64_t *map;         /* one bit a block: plugged; written atomically, others read it without the lock */
    struct mem_info count; /* the counts of it */
};

static inline bool mem_map_has(const struct mem *mem, uint64_t block)
{
    return mem->map[block / 64] >> block % 64 & 1;
}

/* Blocks [first, first + nr) are @plugged from now on, map and configuration alone. Lock held. */
void mem_map_set(struct mem *mem, uint64_t first, uint64_t nr, bool plugged);
/* Blocks of [first, first + nr) that are plugged. */
uint64_t mem_map_count(const struct mem *mem, uint64_t first, uint64_t nr);
/* Tells mm, then the map. 0, or what mm_plug returns, with nothing changed. Lock held. */
must_check int mem_plug(struct mem *mem, struct mm_thread *thread, uint64_t first, uint64_t nr, bool plugged);

/* request.c: one chain, answered and counted. Lock held, device thread. Bytes written. */
uint32_t mem_request(struct mem *mem, const struct virtq_chain *chain);

#endif
