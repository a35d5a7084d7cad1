/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mem: virtio-mem, virtio 1.2 section 5.15. A region of guest physical addresses whose 2 MiB blocks are memory or not;
 * the host says how much it wants to be, the guest which blocks. One device a guest node.
 *
 *   a bit of the map set   <=>   that block is memory for mm, too (mm_plug)
 *   plugged_size = blocks of the map <= region_size;  a PLUG never lifts it above requested_size
 *
 * The whole region is usable at all times (usable_region_size = region_size): unplugged blocks cost nothing here, and
 * guests whose own blocks are larger than ours (Linux: up to 2 GiB) can use all of it.
 *
 * What a hostile driver can do: plug up to what is asked for, and unplug what it uses, which is its own loss. All else
 * is answered with ERROR or NACK, and changes nothing. Touching an unplugged block stops the VM (mm_fault: -EFAULT), so
 * a driver that does not accept UNPLUGGED_INACCESSIBLE is refused: NEEDS_RESET.
 *
 * A reset of the device leaves the blocks as they are (5.15.5.2); a reset of the system unplugs them (5.15.6.2): that is
 * mem_system_reset. With env.vm == NULL the protocol is kept, and mm told of nothing.
 */
#ifndef DEVICES_MEM_MEM_H
#define DEVICES_MEM_MEM_H

#include "devices/virtio/device.h"

#include <linux/virtio_mem.h>

#ifndef VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE
#define VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE 1
#endif

#define MEM_BLOCK_BYTES BLOCK_BYTES
#define MEM_NO_NODE (-1)

struct mem;

struct mem_config {
    const char *name;         /* "mem0"; outlives the device */
    gpa_t start;              /* a region of mm that began unplugged, all of it */
    uint64_t region_bytes;    /* start and size: multiples of MEM_BLOCK_BYTES; for Linux better of 128 MiB */
    uint64_t requested_bytes; /* at first */
    int node;                 /* the guest's node (ACPI proximity domain) 0..65535, or MEM_NO_NODE */
};

/*
 * 0; -EINVAL: misaligned, empty, a node out of range, or more requested than there is; -ENOMEM. Nothing is left after an
 * error. @env outlives it. All blocks are unplugged.
 */
must_check int mem_create(const struct mem_config *config, const struct device_env *env, struct mem **out);
/* No transport, no vCPU, and the loop does not run. Blocks stay as they are: the VM goes, too. */
void mem_destroy(struct mem *mem);
/* To be attached to a transport. */
struct virtio_device *mem_device(struct mem *mem);
/* As guest_mem.plugged has it, for all devices: whatever names an unplugged block names no memory. */
const uint64_t *mem_map(const struct mem *mem);

/*
 * All below: any thread; they take the device's lock.
 *
 * mem_set_requested - how much is wanted to be plugged. The guest is told at once and follows as it can. -EINVAL: above
 * the region; or no multiple of MEM_BLOCK_BYTES, then *next_bytes is the next one that is, or the region's size.
 * @next_bytes may be NULL.
 */
must_check int mem_set_requested(struct mem *mem, uint64_t requested_bytes, uint64_t *next_bytes);
/* The guest starts anew: all blocks are unplugged, except when one is pinned (-EBUSY: none is). @thread is the caller's. */
must_check int mem_system_reset(struct mem *mem, struct mm_thread *thread);

struct mem_info {
    gpa_t start;
    uint64_t region_bytes, requested_bytes, plugged_bytes;
    int node;
    bool live; /* a driver is there */
    /* counts since create, by answer */
    uint64_t nr_acks, nr_nacks, nr_busy, nr_errors;
    uint64_t nr_plugged_blocks, nr_unplugged_blocks; /* by requests */
    uint64_t nr_bad_buffers;                         /* too short for a request or for an answer */
};
void mem_info(struct mem *mem, struct mem_info *out);
/* Is the block of @gpa plugged? False outside the region. */
bool mem_is_plugged(struct mem *mem, gpa_t gpa);

#endif
