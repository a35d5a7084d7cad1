/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file is not registered with the ring: the kernel lets go of a registered file some time after the process has
 * ended, and until then the lock on it would keep the next one out.
 */
#include "devices/blk/io.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* Tries to submit while the kernel is short of something, each after a pause of 1 ms; chosen, unmeasured. */
#define MAX_SUBMIT_TRIES 1000u

static void list_push(struct blk_op_list *list, struct blk_op *op)
{
    op->next = NULL;
    if (list->head)
        list->tail->next = op;
    else
        list->head = op;
    list->tail = op;
}

static struct blk_op *list_pop(struct blk_op_list *list)
{
    struct blk_op *op = list->head;
    if (op)
        list->head = op->next;
    return op;
}

/*
 * COOP_TASKRUN (Linux 5.19): completions do not interrupt the device thread, which sees them at its next call. Not
 * SINGLE_ISSUER or DEFER_TASKRUN: a reset reaps from another thread. The loop waits for the ring's own descriptor: an
 * eventfd would have to be read after each batch.
 */
static bool ring_init(struct io_uring *ring, unsigned depth)
{
    int rc = io_uring_queue_init(depth, ring, IORING_SETUP_COOP_TASKRUN);
    if (rc == -EINVAL)
        rc = io_uring_queue_init(depth, ring, 0);
    return rc == 0;
}

int blk_io_init(struct blk_io *io, int fd, unsigned depth, bool want_ring)
{
    memset(io, 0, sizeof(*io));
    io->fd = fd;
    io->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (io->event_fd < 0)
        return -errno;
    io->has_ring = want_ring && ring_init(&io->ring, depth);
    return 0;
}

void blk_io_fini(struct blk_io *io)
{
    if (io->has_ring)
        io_uring_queue_exit(&io->ring);
    close(io->event_fd);
}

void blk_io_queue(struct blk_io *io, struct blk_op *op)
{
    list_push(&io->unsent, op);
}

static void run_plain(struct blk_io *io, struct blk_op *op)
{
    int nr = (int)op->nr_iov;
    off_t offset = (off_t)op->offset_bytes;
    int64_t result = -1;
    switch (op->kind) {
    case BLK_OP_READ:
        result = preadv(io->fd, op->iov, nr, offset);
        break;
    case BLK_OP_WRITE:
        result = pwritev(io->fd, op->iov, nr, offset);
        break;
    case BLK_OP_SYNC:
        result = fdatasync(io->fd);
        break;
    case BLK_OP_FALLOCATE:
        result = fallocate(io->fd, op->mode, offset, (off_t)op->bytes);
        break;
    }
    op->result = result < 0 ? -errno : result;
    list_push(&io->done, op);
}

static void ring_prepare(struct blk_io *io, const struct blk_op *op, struct io_uring_sqe *sqe)
{
    bool single = op->nr_iov == 1;
    switch (op->kind) {
    case BLK_OP_READ:
        if (single)
            io_uring_prep_read(sqe, io->fd, op->iov->iov_base, (unsigned)op->iov->iov_len, op->offset_bytes);
        else
            io_uring_prep_readv(sqe, io->fd, op->iov, op->nr_iov, op->offset_bytes);
        break;
    case BLK_OP_WRITE:
        if (single)
            io_uring_prep_write(sqe, io->fd, op->iov->iov_base, (unsigned)op->iov->iov_len, op->offset_bytes);
        else
            io_uring_prep_writev(sqe, io->fd, op->iov, op->nr_iov, op->offset_bytes);
        break;
    case BLK_OP_SYNC:
        io_uring_prep_fsync(sqe, io->fd, IORING_FSYNC_DATASYNC);
        break;
    case BLK_OP_FALLOCATE:
        io_uring_prep_fallocate(sqe, io->fd, op->mode, (off_t)op->offset_bytes, (off_t)op->bytes);
        break;
    }
}

/* False: the kernel takes nothing from this ring, now and later. */
static bool ring_send(struct blk_io *io)
{
    unsigned tries = 0;
    while (io->queued.head) {
        int rc = io_uring_submit(&io->ring);
        io->nr_submits++;
        for (int i = 0; i < rc; i++, io->nr_sent++)
            list_pop(&io->queued);
        if (rc > 0)
            continue;
        bool passing = rc == -EINTR || rc == -EAGAIN || rc == -EBUSY;
        if (!passing || ++tries == MAX_SUBMIT_TRIES)
            return false;
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    return true;
}

void blk_io_submit(struct blk_io *io)
{
    struct blk_op *op;
    struct io_uring_sqe *sqe;
    while (io->has_ring && !io->refused && io->unsent.head && (sqe = io_uring_get_sqe(&io->ring))) {
        op = list_pop(&io->unsent);
        ring_prepare(io, op, sqe);
        io_uring_sqe_set_data(sqe, op);
        list_push(&io->queued, op);
    }
    /* What is left in a refused submission queue stays there: nobody submits again. */
    if (io->queued.head && !ring_send(io))
        io->refused = true;
    while ((op = list_pop(&io->queued)))
        run_plain(io, op);
    while ((op = list_pop(&io->unsent)))
        run_plain(io, op);
}

static struct blk_op *take(struct blk_io *io, struct io_uring_cqe *cqe)
{
    struct blk_op *op = io_uring_cqe_get_data(cqe);
    op->result = cqe->res;
    io_uring_cqe_seen(&io->ring, cqe);
    io->nr_sent--;
    return op;
}

struct blk_op *blk_io_reap(struct blk_io *io)
{
    struct io_uring_cqe *cqe;
    if (io->done.head)
        return list_pop(&io->done);
    return io->nr_sent && io_uring_peek_cqe(&io->ring, &cqe) == 0 ? take(io, cqe) : NULL;
}

struct blk_op *blk_io_wait(struct blk_io *io)
{
    struct io_uring_cqe *cqe;
    if (io->done.head)
        return list_pop(&io->done);
    while (io->nr_sent)
        if (io_uring_wait_cqe(&io->ring, &cqe) == 0)
            return take(io, cqe);
    return NULL;
}

void blk_io_signal(struct blk_io *io)
{
    eventfd_write(io->event_fd, 1);
}

void blk_io_consume(struct blk_io *io)
{
    eventfd_t count;
    (void)!eventfd_read(io->event_fd, &count);
}
