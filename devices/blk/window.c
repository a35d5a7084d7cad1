/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A window is the next part of a request's data, as much as may be held at a time. Pins hold whole blocks of guest
 * memory, so that many small segments hold much more than they transfer: the limit counts blocks.
 */
#include "devices/blk/request.h"

#include <errno.h>
#include <string.h>

/* Windows are not cut smaller; a multiple of every alignment. */
#define MIN_WINDOW_BYTES PAGE_BYTES

/* Where the data of @r stands in its chain: these segments, after a number of bytes. */
struct data {
    const struct virtq_segment *segment;
    unsigned nr;
    uint64_t skip_bytes;
};

static struct data data_of(const struct blk_request *r)
{
    const struct virtq_chain *c = &r->chain;
    if (r->type == VIRTIO_BLK_T_IN)
        return (struct data){&c->segment[c->nr_out], c->nr_in, 0};
    return (struct data){c->segment, c->nr_out, BLK_HEADER_BYTES};
}

static uint64_t block_of(gpa_t gpa)
{
    return gpa.v / BLOCK_BYTES;
}

static uint64_t last_block(const struct virtq_segment *run)
{
    return block_of((gpa_t){run->gpa.v + run->bytes - 1});
}

/* Blocks that [gpa, gpa + bytes) adds to those of the window's last run. */
static uint64_t blocks_more(const struct blk_window *w, gpa_t gpa, uint64_t bytes)
{
    uint64_t nr = block_of((gpa_t){gpa.v + bytes - 1}) - block_of(gpa) + 1;
    return w->nr_runs > 0 && last_block(&w->run[w->nr_runs - 1]) == block_of(gpa) ? nr - 1 : nr;
}

/* Neighbours become one run when they are neighbours in this process too. */
static void add_piece(struct blk *b, struct blk_window *w, gpa_t gpa, uint32_t bytes)
{
    const struct guest_mem *mem = b->device.env->mem;
    struct virtq_segment *last = &w->run[w->nr_runs - (w->nr_runs > 0)];
    w->nr_blocks += blocks_more(w, gpa, bytes);
    w->bytes += bytes;
    if (w->nr_runs > 0 && last->gpa.v + last->bytes == gpa.v &&
        guest_mem_hva(mem, last->gpa, (uint64_t)last->bytes + bytes))
        last->bytes += bytes;
    else
        w->run[w->nr_runs++] = (struct virtq_segment){gpa, bytes};
}

/* How much of [gpa, gpa + bytes) the window may still take: 0 when it is full. */
static uint32_t piece_bytes(const struct blk_window *w, gpa_t gpa, uint64_t bytes, uint64_t max_bytes,
                            uint64_t max_blocks)
{
    bytes = MIN_OF(bytes, max_bytes - w->bytes);
    while (bytes > 0 && w->nr_blocks + blocks_more(w, gpa, bytes) > max_blocks) {
        uint64_t cut = (gpa.v + bytes - 1) % BLOCK_BYTES + 1; /* the part in its last block */
        if (cut >= bytes)
            return w->nr_runs > 0 ? 0 : (uint32_t)bytes; /* one block is always allowed */
        bytes -= cut;
    }
    return (uint32_t)bytes;
}

/* The window from done_bytes on. Segments were checked by virtq_pop to lie inside guest memory. */
static void gather(struct blk *b, struct blk_request *r, uint64_t max_bytes, uint64_t max_blocks)
{
    struct blk_window *w = &r->window;
    struct data data = data_of(r);
    uint64_t skip = data.skip_bytes + r->done_bytes;
    uint64_t left = r->data_bytes - r->done_bytes;
    w->nr_runs = 0;
    w->bytes = w->nr_blocks = 0;
    for (unsigned i = 0; i < data.nr && left > 0; i++) {
        const struct virtq_segment *s = &data.segment[i];
        uint64_t from = MIN_OF(skip, s->bytes), bytes = MIN_OF(s->bytes - from, left);
        gpa_t gpa = {s->gpa.v + from};
        skip -= from;
        if (bytes == 0)
            continue;
        uint32_t piece = piece_bytes(w, gpa, bytes, max_bytes, max_blocks);
        if (piece > 0)
            add_piece(b, w, gpa, piece);
        if (piece < bytes)
            break;
        left -= piece;
    }
}

/* The vector of the window. 0; -EINVAL: O_DIRECT would not take it; -EFAULT: its memory was unplugged meanwhile. */
static int make_vector(struct blk *b, struct blk_request *r)
{
    const struct blk_file *f = &b->file;
    const struct blk_window *w = &r->window;
    for (unsigned i = 0; i < w->nr_runs; i++) {
        void *hva = guest_mem_hva(b->device.env->mem, w->run[i].gpa, w->run[i].bytes);
        if (!hva)
            return -EFAULT;
        if (f->direct && ((uintptr_t)hva % f->align_bytes || w->run[i].bytes % f->block_bytes))
            return -EINVAL;
        r->iov[i] = (struct iovec){.iov_base = hva, .iov_len = w->run[i].bytes};
    }
    r->op.nr_iov = w->nr_runs;
    return 0;
}

static void unpin(struct blk *b, const struct blk_window *w, unsigned nr)
{
    for (unsigned i = 0; i < nr; i++)
        mm_unpin(b->device.env->vm, w->run[i].gpa, w->run[i].bytes);
}

/* All or nothing. *at: the run that cannot be had. */
static int pin(struct blk *b, struct blk_window *w, gpa_t *at)
{
    const struct device_env *env = b->device.env;
    if (!env->vm)
        return 0;
    for (unsigned i = 0; i < w->nr_runs; i++) {
        int err = mm_pin(env->thread, env->vm, w->run[i].gpa, w->run[i].bytes);
        if (err) {
            *at = w->run[i].gpa;
            unpin(b, w, i);
            return err;
        }
    }
    /* noted before it is written, and what is only read as well: it is in use */
    for (unsigned i = 0; i < w->nr_runs; i++)
        guest_mem_note_write(env->mem, w->run[i].gpa, w->run[i].bytes);
    w->pinned = true;
    b->pinned_blocks += w->nr_blocks;
    return 0;
}

static int make_bounced(struct blk *b, struct blk_request *r)
{
    uint64_t bytes = MIN_OF(r->data_bytes - r->done_bytes, BLK_BOUNCE_BYTES);
    if (b->bounce_owner && b->bounce_owner != r)
        return -EBUSY;
    b->bounce_owner = r;
    b->stat.nr_bounced_windows++;
    r->window.bytes = bytes;
    r->iov[0] = (struct iovec){.iov_base = b->bounce, .iov_len = bytes};
    r->op.nr_iov = 1;
    if (r->type == VIRTIO_BLK_T_OUT &&
        virtq_read(&b->device.queue[r->queue], &r->chain, BLK_HEADER_BYTES + r->done_bytes, b->bounce, bytes) < bytes)
        return -EFAULT; /* as make_vector */
    return 0;
}

int blk_window_make(struct blk *b, struct blk_request *r)
{
    struct blk_window *w = &r->window;
    uint64_t max_bytes = BLK_WINDOW_BYTES, seen = 0;
    w->pinned = false;
    for (;;) {
        gpa_t at = {0};
        int err = 0;
        if (!r->bounced) {
            gather(b, r, max_bytes, b->max_pinned_blocks);
            err = make_vector(b, r);
        }
        if (r->bounced || err == -EINVAL) {
            r->bounced = true;
            return make_bounced(b, r);
        }
        if (err)
            return err;
        if (b->pinned_blocks > 0 && b->pinned_blocks + w->nr_blocks > b->max_pinned_blocks)
            return -EBUSY;
        err = pin(b, w, &at);
        if (!err)
            return 0;
        /* What others hold comes back when they end; alone, less may fit. */
        if (err == -ENOMEM && b->pinned_blocks > 0)
            return -EBUSY;
        if (err == -ENOMEM && w->bytes > MIN_WINDOW_BYTES) {
            max_bytes = MAX_OF(w->bytes / 2 / MIN_WINDOW_BYTES * MIN_WINDOW_BYTES, MIN_WINDOW_BYTES);
            continue;
        }
        if (!b->device.env->no_page(b->device.env->ctx, err, at, &seen))
            return err;
        max_bytes = BLK_WINDOW_BYTES;
    }
}

void blk_window_end(struct blk *b, struct blk_request *r, bool good)
{
    struct blk_window *w = &r->window;
    if (r->bounced) {
        if (good && r->type == VIRTIO_BLK_T_IN)
            virtq_write(&b->device.queue[r->queue], &r->chain, r->done_bytes, b->bounce, w->bytes);
    } else if (w->pinned) {
        unpin(b, w, w->nr_runs);
        b->pinned_blocks -= w->nr_blocks;
        w->pinned = false;
    }
}
