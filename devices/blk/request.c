/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Header and status may stand in any segments, split or together with data: they are read and written by their place in
 * the chain. Only data is looked at as segments.
 *
 *   IN, OUT             window after window; then, written through, a sync
 *   DISCARD             a hole for each range
 *   WRITE_ZEROES        for each range a hole (if it may be unmapped), else zeroed extents, else zeros are written
 *   FLUSH               a sync, which covers what has ended before it was sent: all that virtio asks for
 *
 * How much was written is said of whole answers only; of a failed read the guest is told nothing but the status.
 */
#include "devices/blk/request.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <string.h>

/* EINTR and EAGAIN in a row, before they are an error. Chosen. */
#define MAX_TRIES 1000u

enum outcome { OUTCOME_GOOD, OUTCOME_BAD, OUTCOME_ERROR };

/* --- the end of a request ------------------------------------------------------------------------- */

void blk_request_drop(struct blk *b, struct blk_request *r)
{
    blk_window_end(b, r, false);
    if (b->bounce_owner == r)
        b->bounce_owner = NULL;
    r->next = b->free;
    b->free = r;
    b->stat.nr_busy--;
}

static void answer(struct blk *b, struct blk_request *r, uint8_t status)
{
    struct virtq *q = &b->device.queue[r->queue];
    const struct virtq_chain *c = &r->chain;
    uint64_t written = 1;
    if (r->type == VIRTIO_BLK_T_IN || r->type == VIRTIO_BLK_T_GET_ID)
        written += r->data_bytes;
    if (written < c->in_bytes)
        written = status == VIRTIO_BLK_S_OK ? r->data_bytes : 0;
    else if (status != VIRTIO_BLK_S_OK && written > 1)
        written = 0;
    if (virtio_is_live(&b->device)) {
        virtq_write(q, c, c->in_bytes - 1, &status, 1);
        virtq_push(q, c, (uint32_t)MIN_OF(written, UINT32_MAX));
        b->announce |= 1u << r->queue;
    }
    blk_request_drop(b, r);
}

static void count_good(struct blk *b, const struct blk_request *r)
{
    struct blk_stat *s = &b->stat;
    switch (r->type) {
    case VIRTIO_BLK_T_IN:
        s->nr_reads++;
        break;
    case VIRTIO_BLK_T_OUT:
        s->nr_writes++;
        break;
    case VIRTIO_BLK_T_FLUSH:
        s->nr_flushes++;
        break;
    case VIRTIO_BLK_T_GET_ID:
        s->nr_ids++;
        break;
    case VIRTIO_BLK_T_DISCARD:
        s->nr_discards++;
        break;
    default:
        s->nr_write_zeroes++;
        break;
    }
}

static void end_good(struct blk *b, struct blk_request *r)
{
    count_good(b, r);
    answer(b, r, VIRTIO_BLK_S_OK);
}

/* The guest's mistake. */
static void end_bad(struct blk *b, struct blk_request *r, uint8_t status)
{
    b->stat.nr_bad++;
    answer(b, r, status);
}

/* The host's error, -@err; told once. */
static void end_error(struct blk *b, struct blk_request *r, int err)
{
    static const char *const names[] = {
        [BLK_OP_READ] = "read", [BLK_OP_WRITE] = "write", [BLK_OP_SYNC] = "flush", [BLK_OP_FALLOCATE] = "discard"};
    if (b->stat.nr_errors++ == 0) {
        char line[160];
        b->stat.first_error = -err;
        snprintf(line, sizeof(line), "%s: %s at byte %llu: %s; the guest sees I/O errors, more are only counted",
                 b->device.name, names[r->op.kind], (unsigned long long)r->op.offset_bytes, strerror(-err));
        if (b->tell)
            b->tell(b->tell_ctx, line);
    }
    answer(b, r, VIRTIO_BLK_S_IOERR);
}

/* --- what is sent --------------------------------------------------------------------------------- */

static void send_op(struct blk *b, struct blk_request *r, enum blk_stage stage, enum blk_op_kind kind)
{
    r->stage = stage;
    r->op.kind = kind;
    r->nr_tries = 0;
    blk_io_queue(&b->io, &r->op);
}

static bool is_writeback(const struct blk *b)
{
    return virtio_has(&b->device, VIRTIO_BLK_F_FLUSH) &&
           (!virtio_has(&b->device, VIRTIO_BLK_F_CONFIG_WCE) || b->space.wce);
}

/*
 * Linux tells of a failed write-back once (lib/errseq.c), and may take the pages that it could not write for clean: the
 * next fdatasync succeeds though they are lost. So with the page cache in between, every flush fails from then on.
 */
static void send_sync(struct blk *b, struct blk_request *r)
{
    r->op.offset_bytes = 0;
    if (b->sync_error) {
        r->op.kind = BLK_OP_SYNC;
        end_error(b, r, b->sync_error);
        return;
    }
    b->stat.nr_syncs++;
    send_op(b, r, BLK_STAGE_SYNC, BLK_OP_SYNC);
}

static void sync_done(struct blk *b, struct blk_request *r)
{
    if (r->op.result == 0) {
        end_good(b, r);
        return;
    }
    if (!b->file.direct)
        b->sync_error = (int)r->op.result;
    end_error(b, r, (int)r->op.result);
}

/* What was written is with the host; where the guest sees no cache it must be on the disk. */
static void end_write(struct blk *b, struct blk_request *r)
{
    if (is_writeback(b))
        end_good(b, r);
    else
        send_sync(b, r);
}

static void park(struct blk *b, struct blk_request *r)
{
    r->next = NULL;
    if (b->parked)
        b->parked_tail->next = r;
    else
        b->parked = r;
    b->parked_tail = r;
    b->stat.nr_waits++;
}

/* False: others must end first. */
static bool try_next_window(struct blk *b, struct blk_request *r)
{
    int err = blk_window_make(b, r);
    if (err == -EBUSY)
        return false;
    if (err == -EFAULT) {
        end_bad(b, r, VIRTIO_BLK_S_IOERR);
        return true;
    }
    if (err) {
        r->op.kind = r->type == VIRTIO_BLK_T_IN ? BLK_OP_READ : BLK_OP_WRITE;
        r->op.offset_bytes = r->offset_bytes + r->done_bytes;
        end_error(b, r, err);
        return true;
    }
    b->stat.nr_windows++;
    r->op.iov = r->iov;
    r->op.offset_bytes = r->offset_bytes + r->done_bytes;
    r->op_bytes = r->window.bytes;
    r->op_done_bytes = 0;
    send_op(b, r, BLK_STAGE_DATA, r->type == VIRTIO_BLK_T_IN ? BLK_OP_READ : BLK_OP_WRITE);
    return true;
}

static void next_window(struct blk *b, struct blk_request *r)
{
    if (r->done_bytes < r->data_bytes) {
        /* Who came first goes first, but whoever has the buffer must end. */
        if ((b->parked && b->bounce_owner != r) || !try_next_window(b, r))
            park(b, r);
    } else if (r->type == VIRTIO_BLK_T_IN) {
        b->stat.read_bytes += r->data_bytes;
        end_good(b, r);
    } else {
        b->stat.written_bytes += r->data_bytes;
        end_write(b, r);
    }
}

void blk_requests_unpark(struct blk *b)
{
    struct blk_request *r;
    while ((r = b->parked)) {
        /* Taken off first: it may end here, and be used again. */
        b->parked = r->next;
        if (try_next_window(b, r))
            continue;
        r->next = b->parked;
        if (!b->parked)
            b->parked_tail = r;
        b->parked = r;
        return;
    }
}

/* --- ranges: discard, write zeroes ---------------------------------------------------------------- */

static uint64_t range_bytes(const struct blk_request *r)
{
    return (uint64_t)le32toh(r->ranges[r->range].num_sectors) * BLK_SECTOR_BYTES;
}

static uint64_t range_offset(const struct blk_request *r)
{
    return le64toh(r->ranges[r->range].sector) * BLK_SECTOR_BYTES;
}

/* As much as a vector of one buffer of zeros, repeated, holds. */
static void send_zeros(struct blk *b, struct blk_request *r)
{
    uint64_t bytes = MIN_OF(range_bytes(r) - r->zero_bytes, BLK_WINDOW_BYTES);
    unsigned nr = 0;
    for (uint64_t done = 0; done < bytes; done += BLK_ZEROS_BYTES)
        r->iov[nr++] = (struct iovec){.iov_base = b->zeros, .iov_len = MIN_OF(bytes - done, BLK_ZEROS_BYTES)};
    r->op.iov = r->iov;
    r->op.nr_iov = nr;
    r->op.offset_bytes = range_offset(r) + r->zero_bytes;
    r->op_bytes = bytes;
    r->op_done_bytes = 0;
    send_op(b, r, BLK_STAGE_ZEROS, BLK_OP_WRITE);
}

static void send_range(struct blk *b, struct blk_request *r)
{
    bool zeroes = r->type == VIRTIO_BLK_T_WRITE_ZEROES;
    bool unmap = le32toh(r->ranges[r->range].flags) & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
    int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    r->zero_bytes = 0;
    if (zeroes && (!unmap || b->no_punch)) {
        if (b->no_zero_range) {
            send_zeros(b, r);
            return;
        }
        mode = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
    }
    r->op.mode = mode;
    r->op.offset_bytes = range_offset(r);
    r->op.bytes = range_bytes(r);
    send_op(b, r, BLK_STAGE_RANGE, BLK_OP_FALLOCATE);
}

/* From r->range on; ranges of no sectors are nothing to do. */
static void next_range(struct blk *b, struct blk_request *r)
{
    while (r->range < r->nr_ranges && range_bytes(r) == 0)
        r->range++;
    if (r->range == r->nr_ranges)
        end_write(b, r);
    else
        send_range(b, r);
}

static void end_range(struct blk *b, struct blk_request *r)
{
    if (r->type == VIRTIO_BLK_T_DISCARD)
        b->stat.discarded_bytes += range_bytes(r);
    else
        b->stat.zeroed_bytes += range_bytes(r);
    r->range++;
    next_range(b, r);
}

static void range_done(struct blk *b, struct blk_request *r)
{
    if (r->op.result == 0) {
        end_range(b, r);
    } else if (r->op.result != -EOPNOTSUPP) {
        end_error(b, r, (int)r->op.result);
    } else if (r->type == VIRTIO_BLK_T_DISCARD) {
        end_range(b, r); /* a hint that this host cannot take */
    } else {
        /* The next best way, now and from now on. */
        *(r->op.mode & FALLOC_FL_PUNCH_HOLE ? &b->no_punch : &b->no_zero_range) = true;
        send_range(b, r);
    }
}

/* --- reads and writes ------------------------------------------------------------------------------ */

/* Moves the vector on by @bytes, less than it holds. */
static void advance(struct blk_op *op, uint64_t bytes)
{
    op->offset_bytes += bytes;
    while (bytes >= op->iov->iov_len) {
        bytes -= op->iov->iov_len;
        op->iov++;
        op->nr_iov--;
    }
    op->iov->iov_base = (char *)op->iov->iov_base + bytes;
    op->iov->iov_len -= bytes;
}

/* After a read or write. True: all of it is done. Otherwise it goes on, or the request has ended. */
static bool transfer_done(struct blk *b, struct blk_request *r)
{
    int64_t result = r->op.result;
    if (result == 0 || result < 0) {
        end_error(b, r, result == 0 ? -EIO : (int)result); /* 0: the file ends here, it was made shorter */
        return false;
    }
    r->op_done_bytes += (uint64_t)result;
    if (r->op_done_bytes == r->op_bytes)
        return true;
    uint64_t odd = r->op_done_bytes % b->file.block_bytes;
    if ((uint64_t)result <= odd) {
        end_error(b, r, -EIO);
        return false;
    }
    r->op_done_bytes -= odd;
    advance(&r->op, (uint64_t)result - odd);
    blk_io_queue(&b->io, &r->op);
    return false;
}

static void data_done(struct blk *b, struct blk_request *r)
{
    if (!transfer_done(b, r))
        return;
    blk_window_end(b, r, true);
    r->done_bytes += r->op_bytes;
    next_window(b, r);
}

static void zeros_done(struct blk *b, struct blk_request *r)
{
    if (!transfer_done(b, r))
        return;
    r->zero_bytes += r->op_bytes;
    if (r->zero_bytes < range_bytes(r))
        send_zeros(b, r);
    else
        end_range(b, r);
}

void blk_request_step(struct blk *b, struct blk_request *r)
{
    bool again = r->op.result == -EINTR || r->op.result == -EAGAIN;
    if (again && ++r->nr_tries < MAX_TRIES) {
        blk_io_queue(&b->io, &r->op);
        return;
    }
    if (!again)
        r->nr_tries = 0;
    switch (r->stage) {
    case BLK_STAGE_DATA:
        data_done(b, r);
        break;
    case BLK_STAGE_RANGE:
        range_done(b, r);
        break;
    case BLK_STAGE_ZEROS:
        zeros_done(b, r);
        break;
    case BLK_STAGE_SYNC:
        sync_done(b, r);
        break;
    }
}

/* --- the beginning --------------------------------------------------------------------------------- */

static bool in_disk(const struct blk *b, uint64_t sector, uint64_t bytes)
{
    uint64_t capacity = b->file.capacity_bytes;
    return sector <= capacity / BLK_SECTOR_BYTES && bytes <= capacity - sector * BLK_SECTOR_BYTES;
}

static void begin_data(struct blk *b, struct blk_request *r, uint64_t sector)
{
    const struct virtq_chain *c = &r->chain;
    bool in = r->type == VIRTIO_BLK_T_IN;
    uint64_t bytes = in ? c->in_bytes - 1 : c->out_bytes - BLK_HEADER_BYTES;
    bool good = (in ? c->out_bytes == BLK_HEADER_BYTES : c->in_bytes == 1 && !b->file.read_only) &&
                bytes % b->file.block_bytes == 0 && in_disk(b, sector, bytes) &&
                sector * BLK_SECTOR_BYTES % b->file.block_bytes == 0;
    if (!good) {
        end_bad(b, r, VIRTIO_BLK_S_IOERR);
        return;
    }
    r->data_bytes = bytes;
    r->offset_bytes = sector * BLK_SECTOR_BYTES;
    next_window(b, r);
}

static void begin_id(struct blk *b, struct blk_request *r)
{
    const struct virtq_chain *c = &r->chain;
    if (c->in_bytes - 1 < VIRTIO_BLK_ID_BYTES) {
        end_bad(b, r, VIRTIO_BLK_S_IOERR);
        return;
    }
    r->data_bytes = VIRTIO_BLK_ID_BYTES;
    virtq_write(&b->device.queue[r->queue], c, 0, b->id, VIRTIO_BLK_ID_BYTES);
    end_good(b, r);
}

/* OK, or what is wrong with the current range. */
static uint8_t check_range(const struct blk *b, const struct blk_request *r)
{
    const struct virtio_blk_discard_write_zeroes *range = &r->ranges[r->range];
    uint32_t known = r->type == VIRTIO_BLK_T_WRITE_ZEROES ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0;
    if (le32toh(range->flags) & ~known)
        return VIRTIO_BLK_S_UNSUPP;
    bool good = le32toh(range->num_sectors) <= BLK_MAX_RANGE_SECTORS &&
                in_disk(b, le64toh(range->sector), range_bytes(r)) && range_bytes(r) % b->file.block_bytes == 0 &&
                range_offset(r) % b->file.block_bytes == 0;
    return good ? VIRTIO_BLK_S_OK : VIRTIO_BLK_S_IOERR;
}

/* All ranges are good before the first is done. */
static void begin_ranges(struct blk *b, struct blk_request *r, unsigned feature)
{
    const struct virtq_chain *c = &r->chain;
    uint64_t bytes = c->out_bytes - BLK_HEADER_BYTES;
    uint8_t status = VIRTIO_BLK_S_OK;
    if (!virtio_has(&b->device, feature)) {
        status = VIRTIO_BLK_S_UNSUPP;
    } else if (b->file.read_only || c->in_bytes != 1 || bytes == 0 || bytes > sizeof(r->ranges) ||
               bytes % sizeof(r->ranges[0])) {
        status = VIRTIO_BLK_S_IOERR;
    } else {
        virtq_read(&b->device.queue[r->queue], c, BLK_HEADER_BYTES, r->ranges, bytes);
        r->nr_ranges = (unsigned)(bytes / sizeof(r->ranges[0]));
        for (r->range = 0; r->range < r->nr_ranges && status == VIRTIO_BLK_S_OK; r->range++)
            status = check_range(b, r);
    }
    if (status != VIRTIO_BLK_S_OK) {
        end_bad(b, r, status);
        return;
    }
    r->range = 0;
    next_range(b, r);
}

static void begin_flush(struct blk *b, struct blk_request *r)
{
    if (r->chain.in_bytes != 1)
        end_bad(b, r, VIRTIO_BLK_S_IOERR);
    else
        send_sync(b, r);
}

void blk_request_begin(struct blk *b, struct blk_request *r)
{
    struct virtio_blk_outhdr header;
    b->stat.nr_busy++;
    r->type = UINT32_MAX;
    r->data_bytes = r->done_bytes = 0;
    r->bounced = r->window.pinned = false;
    if (r->chain.in_bytes == 0) {
        /* No place for a status: nothing can be answered. */
        b->stat.nr_bad++;
        virtio_broken(&b->device);
        blk_request_drop(b, r);
        return;
    }
    if (virtq_read(&b->device.queue[r->queue], &r->chain, 0, &header, sizeof(header)) < sizeof(header)) {
        end_bad(b, r, VIRTIO_BLK_S_IOERR);
        return;
    }
    r->type = le32toh(header.type);
    switch (r->type) {
    case VIRTIO_BLK_T_IN:
    case VIRTIO_BLK_T_OUT:
        begin_data(b, r, le64toh(header.sector));
        break;
    case VIRTIO_BLK_T_FLUSH:
        begin_flush(b, r);
        break;
    case VIRTIO_BLK_T_GET_ID:
        begin_id(b, r);
        break;
    case VIRTIO_BLK_T_DISCARD:
        begin_ranges(b, r, VIRTIO_BLK_F_DISCARD);
        break;
    case VIRTIO_BLK_T_WRITE_ZEROES:
        begin_ranges(b, r, VIRTIO_BLK_F_WRITE_ZEROES);
        break;
    default:
        end_bad(b, r, VIRTIO_BLK_S_UNSUPP);
        break;
    }
}
