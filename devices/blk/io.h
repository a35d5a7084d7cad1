/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blk_io: operations on one open file, sent in batches and done in any order. By io_uring; or, where the host has none
 * or comes to refuse it, by plain calls at the time of blk_io_submit. Allocates nothing after blk_io_init. No lock: the
 * owner's.
 *
 *   blk_io_queue -> unsent -> blk_io_submit -> in the ring -> done -> blk_io_reap
 */
#ifndef DEVICES_BLK_IO_H
#define DEVICES_BLK_IO_H

#include "mm/base/types.h"

#include <liburing.h>

enum blk_op_kind { BLK_OP_READ, BLK_OP_WRITE, BLK_OP_SYNC, BLK_OP_FALLOCATE };

/* The owner's memory, and with it the vector and the buffers, until blk_io_reap returns it. */
struct blk_op {
    enum blk_op_kind kind;
    int mode; /* of fallocate */
    unsigned nr_iov;
    struct iovec *iov;
    uint64_t offset_bytes, bytes; /* bytes: of fallocate */
    int64_t result;               /* bytes, 0 or -errno */
    struct blk_op *next;
};

struct blk_op_list {
    struct blk_op *head, *tail;
};

struct blk_io {
    int fd;                                  /* the caller's */
    int event_fd;                            /* readable after blk_io_signal, until blk_io_consume */
    bool has_ring, refused;                  /* refused: the ring takes nothing any more */
    unsigned nr_sent;                        /* in the ring */
    struct blk_op_list unsent, queued, done; /* queued: in the submission queue, not yet taken by the kernel */
    uint64_t nr_submits;
    struct io_uring ring;
};

/* The ring's descriptor, readable while there is something to reap in it; -1: no ring. */
static inline int blk_io_ring_fd(const struct blk_io *io)
{
    return io->has_ring ? io->ring.ring_fd : -1;
}

/* @depth: operations that may be under way at once. 0 or -errno (-EMFILE, -ENFILE, -ENOMEM), of event_fd. */
must_check int blk_io_init(struct blk_io *io, int fd, unsigned depth, bool want_ring);
/* Nothing is under way. */
void blk_io_fini(struct blk_io *io);
void blk_io_queue(struct blk_io *io, struct blk_op *op);
/* Sends all that is unsent. */
void blk_io_submit(struct blk_io *io);
/* One that is done, or NULL. */
struct blk_op *blk_io_reap(struct blk_io *io);
/* The same, and waits for one: NULL only when nothing is under way. Any thread. */
struct blk_op *blk_io_wait(struct blk_io *io);
void blk_io_signal(struct blk_io *io);
void blk_io_consume(struct blk_io *io);

#endif
