/* SPDX-License-Identifier: Apache-2.0 */
/* One request of the guest: copied, checked, done, answered. Answers as 5.15.6.3 to 5.15.6.6 have them. */
#include "devices/mem/internal.h"

#include <endian.h>
#include <errno.h>

/* 24 and 10 bytes on the wire; the C struct of the answer has no padding at its end. */
_Static_assert(sizeof(struct virtio_mem_req) == 24 && sizeof(struct virtio_mem_resp) == 10, "virtio 1.2, 5.15.6");

/* The blocks that a request names. False: misaligned, none, or not inside the region. */
static bool range_of(const struct mem *mem, uint64_t addr, uint16_t nr_blocks, uint64_t *first)
{
    if (addr % MEM_BLOCK_BYTES || addr < mem->start.v || !nr_blocks)
        return false;
    *first = (addr - mem->start.v) / MEM_BLOCK_BYTES;
    return *first < mem->nr_blocks && nr_blocks <= mem->nr_blocks - *first;
}

static uint16_t answer_of(int err)
{
    return err == 0 ? VIRTIO_MEM_RESP_ACK : err == -EBUSY ? VIRTIO_MEM_RESP_BUSY : VIRTIO_MEM_RESP_ERROR;
}

static uint16_t plug(struct mem *mem, uint64_t addr, uint16_t nr)
{
    uint64_t first;
    if (!range_of(mem, addr, nr, &first) || mem_map_count(mem, first, nr))
        return VIRTIO_MEM_RESP_ERROR;
    if (mem->plugged_blocks + nr > mem->requested_blocks)
        return VIRTIO_MEM_RESP_NACK;
    uint16_t answer = answer_of(mem_plug(mem, mem->device.env->thread, first, nr, true));
    if (answer == VIRTIO_MEM_RESP_ACK)
        mem->count.nr_plugged_blocks += nr;
    return answer;
}

static uint16_t unplug(struct mem *mem, uint64_t addr, uint16_t nr)
{
    uint64_t first;
    if (!range_of(mem, addr, nr, &first) || mem_map_count(mem, first, nr) != nr)
        return VIRTIO_MEM_RESP_ERROR;
    uint16_t answer = answer_of(mem_plug(mem, mem->device.env->thread, first, nr, false));
    if (answer == VIRTIO_MEM_RESP_ACK)
        mem->count.nr_unplugged_blocks += nr;
    return answer;
}

/* One call for the whole region: all of it or, when a block is pinned, nothing. */
static uint16_t unplug_all(struct mem *mem)
{
    uint64_t plugged = mem->plugged_blocks;
    uint16_t answer = answer_of(mem_plug(mem, mem->device.env->thread, 0, mem->nr_blocks, false));
    if (answer == VIRTIO_MEM_RESP_ACK)
        mem->count.nr_unplugged_blocks += plugged;
    return answer;
}

static uint16_t state(const struct mem *mem, uint64_t addr, uint16_t nr, uint16_t *out)
{
    uint64_t first;
    if (!range_of(mem, addr, nr, &first))
        return VIRTIO_MEM_RESP_ERROR;
    uint64_t plugged = mem_map_count(mem, first, nr);
    *out = plugged == 0    ? VIRTIO_MEM_STATE_UNPLUGGED
           : plugged == nr ? VIRTIO_MEM_STATE_PLUGGED
                           : VIRTIO_MEM_STATE_MIXED;
    return VIRTIO_MEM_RESP_ACK;
}

/* The three ranges have one layout. */
static uint16_t dispatch(struct mem *mem, const struct virtio_mem_req *req, uint16_t *state_out)
{
    uint64_t addr = le64toh(req->u.plug.addr);
    uint16_t nr = le16toh(req->u.plug.nb_blocks);
    switch (le16toh(req->type)) {
    case VIRTIO_MEM_REQ_PLUG:
        return plug(mem, addr, nr);
    case VIRTIO_MEM_REQ_UNPLUG:
        return unplug(mem, addr, nr);
    case VIRTIO_MEM_REQ_UNPLUG_ALL:
        return unplug_all(mem);
    case VIRTIO_MEM_REQ_STATE:
        return state(mem, addr, nr, state_out);
    default:
        return VIRTIO_MEM_RESP_ERROR;
    }
}

uint32_t mem_request(struct mem *mem, const struct virtq_chain *chain)
{
    const struct virtq *q = &mem->device.queue[0];
    struct virtio_mem_req req;
    struct virtio_mem_resp resp = {0};
    uint16_t answer = VIRTIO_MEM_RESP_ERROR, found = 0;

    /* What cannot be answered is not done. */
    if (chain->in_bytes < sizeof(resp) || virtq_read(q, chain, 0, &req, sizeof(req)) != sizeof(req))
        mem->count.nr_bad_buffers++;
    else
        answer = dispatch(mem, &req, &found);
    mem->count.nr_acks += answer == VIRTIO_MEM_RESP_ACK;
    mem->count.nr_nacks += answer == VIRTIO_MEM_RESP_NACK;
    mem->count.nr_busy += answer == VIRTIO_MEM_RESP_BUSY;
    mem->count.nr_errors += answer == VIRTIO_MEM_RESP_ERROR;
    resp.type = htole16(answer);
    resp.u.state.state = htole16(found);
    return (uint32_t)virtq_write(q, chain, 0, &resp, sizeof(resp));
}
