/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A transfer runs in rounds: every request is sent, every result is settled. Settling finishes a request, shortens it
 * by what was done, or breaks it into single pages so that an error is found with the page that has it.
 */
#include "vmm/swapio.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* What a short direct transfer may end at: the smallest sector there is. */
#define SECTOR_BYTES 512u
/* Rounds in which nothing moved for want of something that will come (EAGAIN), each after a pause of 1 ms; chosen. */
#define MAX_IDLE_ROUNDS 1000u

/* A request's result before it has one. */
#define NOT_RUN ((ssize_t)INT64_MIN)

struct swapio {
    int fd;
    struct swapio_config config;
    unsigned nr_rings;
    unsigned free_rings; /* atomic bitmap: taken with acquire, given back with release */
    struct io_uring ring[SWAPIO_RINGS];
};

/* io[first .. first + nr), neighbours in slots, of which done_bytes are transferred. */
struct request {
    unsigned first, nr;
    uint64_t done_bytes;
};

struct batch {
    bool write;
    struct swap_io *io;
    unsigned nr_requests;
    struct request request[SWAP_MAX_IO];
    ssize_t result[SWAP_MAX_IO];   /* of each request, bytes or -errno */
    struct iovec iov[SWAP_MAX_IO]; /* request r uses those from r->first on */
};

/* --- rings ------------------------------------------------------------------------------------ */

/* A free ring's number, or -1. */
static int ring_take(struct swapio *s)
{
    unsigned free_rings = __atomic_load_n(&s->free_rings, __ATOMIC_RELAXED);
    while (free_rings) {
        unsigned rest = free_rings & (free_rings - 1);
        if (__atomic_compare_exchange_n(&s->free_rings, &free_rings, rest, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
            return __builtin_ctz(free_rings);
    }
    return -1;
}

static void ring_give(struct swapio *s, int number)
{
    __atomic_fetch_or(&s->free_rings, 1u << number, __ATOMIC_RELEASE);
}

/*
 * The file is not registered with the rings: the kernel lets go of a registered file some time after the process has
 * ended, and until then the lock on a user's swap file would keep the next ebb out.
 */
static void rings_create(struct swapio *s)
{
    while (s->nr_rings < SWAPIO_RINGS) {
        if (io_uring_queue_init(SWAP_MAX_IO, &s->ring[s->nr_rings], 0) < 0)
            break;
        s->nr_rings++;
    }
    s->free_rings = (1u << s->nr_rings) - 1;
}

/* --- one round -------------------------------------------------------------------------------- */

/* The vector of what is left of @r. Adjacent addresses become one element. Returns the number of elements. */
static unsigned request_vector(struct batch *b, const struct request *r)
{
    struct iovec *iov = &b->iov[r->first];
    unsigned nr = 0;
    for (unsigned i = (unsigned)(r->done_bytes / PAGE_BYTES); i < r->nr; i++) {
        uint64_t skip = nr == 0 ? r->done_bytes % PAGE_BYTES : 0;
        char *start = (char *)b->io[r->first + i].page + skip;
        if (nr > 0 && (char *)iov[nr - 1].iov_base + iov[nr - 1].iov_len == start)
            iov[nr - 1].iov_len += PAGE_BYTES;
        else
            iov[nr++] = (struct iovec){.iov_base = start, .iov_len = PAGE_BYTES - skip};
    }
    return nr;
}

static off_t request_offset(const struct batch *b, const struct request *r)
{
    return (off_t)(b->io[r->first].slot * PAGE_BYTES + r->done_bytes);
}

/* What no ring has run. */
static void run_plain(struct swapio *s, struct batch *b)
{
    for (unsigned i = 0; i < b->nr_requests; i++) {
        if (b->result[i] != NOT_RUN)
            continue;
        const struct request *r = &b->request[i];
        int nr = (int)request_vector(b, r);
        const struct iovec *iov = &b->iov[r->first];
        off_t offset = request_offset(b, r);
        b->result[i] = b->write ? pwritev(s->fd, iov, nr, offset) : preadv(s->fd, iov, nr, offset);
        if (b->result[i] < 0)
            b->result[i] = -errno;
    }
}

static void ring_prepare(struct swapio *s, struct io_uring *ring, struct batch *b, unsigned i)
{
    const struct request *r = &b->request[i];
    struct io_uring_sqe *sqe = io_uring_get_sqe(ring); /* there is one: as many as a batch has pages */
    unsigned nr = request_vector(b, r);
    const struct iovec *iov = &b->iov[r->first];
    uint64_t offset = (uint64_t)request_offset(b, r);
    if (nr == 1 && b->write)
        io_uring_prep_write(sqe, s->fd, iov->iov_base, (unsigned)iov->iov_len, offset);
    else if (nr == 1)
        io_uring_prep_read(sqe, s->fd, iov->iov_base, (unsigned)iov->iov_len, offset);
    else if (b->write)
        io_uring_prep_writev(sqe, s->fd, iov, nr, offset);
    else
        io_uring_prep_readv(sqe, s->fd, iov, nr, offset);
    io_uring_sqe_set_data64(sqe, i);
}

static bool is_passing(int rc)
{
    return rc == -EINTR || rc == -EAGAIN || rc == -EBUSY;
}

/*
 * False: the ring is broken, and its queue may hold requests that must not be sent any more. What was sent has its
 * result all the same: until then the kernel may use the pages.
 */
static bool run_ring(struct swapio *s, struct io_uring *ring, struct batch *b)
{
    unsigned nr_sent = 0, nr_back = 0;
    bool works = true;
    for (unsigned i = 0; i < b->nr_requests; i++)
        ring_prepare(s, ring, b, i);
    while (nr_back < (works ? b->nr_requests : nr_sent)) {
        struct io_uring_cqe *cqe;
        int rc = works ? io_uring_submit_and_wait(ring, b->nr_requests - nr_back) : io_uring_wait_cqe(ring, &cqe);
        nr_sent += works && rc > 0 ? (unsigned)rc : 0;
        works &= rc >= 0 || is_passing(rc);
        while (io_uring_peek_cqe(ring, &cqe) == 0) {
            b->result[io_uring_cqe_get_data64(cqe)] = cqe->res;
            io_uring_cqe_seen(ring, cqe);
            nr_back++;
        }
    }
    return works;
}

static void run(struct swapio *s, struct batch *b)
{
    int number = ring_take(s);
    for (unsigned i = 0; i < b->nr_requests; i++)
        b->result[i] = NOT_RUN;
    if (number >= 0 && run_ring(s, &s->ring[number], b))
        ring_give(s, number); /* a broken one stays taken */
    run_plain(s, b);
}

/* --- settling --------------------------------------------------------------------------------- */

/* Breaks what is left of @r into requests of one page, from @out on. Returns their number. */
static unsigned break_up(const struct request *r, struct request *out)
{
    unsigned nr = 0;
    for (unsigned i = (unsigned)(r->done_bytes / PAGE_BYTES); i < r->nr; i++)
        out[nr++] = (struct request){.first = r->first + i, .nr = 1};
    return nr;
}

/* What follows from @result of @r: requests still to be run, written to @out. Returns their number. */
static unsigned settle(struct batch *b, struct request r, ssize_t result, bool patient, struct request *out)
{
    bool again = result == -EINTR || (result == -EAGAIN && patient);
    if (again) {
        *out = r;
        return 1;
    }
    if (result > 0) {
        uint64_t before = r.done_bytes;
        r.done_bytes += (uint64_t)result;
        if (r.done_bytes == r.nr * PAGE_BYTES)
            return 0;
        r.done_bytes -= r.done_bytes % SECTOR_BYTES;
        *out = r;
        if (r.done_bytes > before)
            return 1;
    }
    if (r.nr - r.done_bytes / PAGE_BYTES > 1)
        return break_up(&r, out);
    /* 0: the file ends here. */
    b->io[r.first + r.nr - 1].error = result < 0 ? (int)result : -EIO;
    return 0;
}

/* Settles a round. False: every request waits for something, so the caller had better pause. */
static bool settle_all(struct batch *b, bool patient)
{
    struct request todo[SWAP_MAX_IO]; /* requests do not share pages, so there are at most as many */
    unsigned nr = 0;
    bool moved = false;
    for (unsigned i = 0; i < b->nr_requests; i++) {
        moved |= b->result[i] != -EAGAIN;
        nr += settle(b, b->request[i], b->result[i], patient, &todo[nr]);
    }
    for (unsigned i = 0; i < nr; i++)
        b->request[i] = todo[i];
    b->nr_requests = nr;
    return moved;
}

static void gather(struct batch *b, unsigned nr)
{
    for (unsigned i = 0; i < nr; i++) {
        b->io[i].error = 0;
        if (i > 0 && b->io[i].slot == b->io[i - 1].slot + 1)
            b->request[b->nr_requests - 1].nr++;
        else
            b->request[b->nr_requests++] = (struct request){.first = i, .nr = 1};
    }
}

static int swapio_transfer(void *ctx, bool write, struct swap_io *io, unsigned nr)
{
    struct batch b;
    unsigned idle_rounds = 0;
    b.write = write;
    b.io = io;
    b.nr_requests = 0;
    gather(&b, nr);
    while (b.nr_requests > 0) {
        run(ctx, &b);
        if (!settle_all(&b, idle_rounds < MAX_IDLE_ROUNDS)) {
            idle_rounds++;
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        }
    }
    for (unsigned i = 0; i < nr; i++)
        if (io[i].error)
            return io[i].error;
    return 0;
}

/* --- the rest of the backend ------------------------------------------------------------------ */

/* Advice only: a file system or device that cannot is none the worse. */
static void swapio_discard(void *ctx, uint64_t slot, uint64_t nr)
{
    const struct swapio *s = ctx;
    uint64_t range[2] = {slot * PAGE_BYTES, nr * PAGE_BYTES};
    int rc = s->config.device
                 ? ioctl(s->fd, BLKDISCARD, range)
                 : fallocate(s->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)range[0], (off_t)range[1]);
    (void)rc;
}

static void swapio_close(void *ctx)
{
    swapio_destroy(ctx);
}

static const char *swapio_transport(void *ctx)
{
    static const char *const names[2][2] = {{"pread, buffered", "pread, direct"},
                                            {"io_uring, buffered", "io_uring, direct"}};
    const struct swapio *s = ctx;
    return names[s->nr_rings > 0][s->config.direct];
}

static const struct swap_backend backends[2] = {
    {.transfer = swapio_transfer, .close = swapio_close, .transport = swapio_transport},
    {.transfer = swapio_transfer, .discard = swapio_discard, .close = swapio_close, .transport = swapio_transport},
};

const struct swap_backend *swapio_backend(const struct swapio *swapio)
{
    return &backends[swapio->config.discard];
}

int swapio_create(int fd, const struct swapio_config *config, struct swapio **out)
{
    struct swapio *s = calloc(1, sizeof(*s));
    if (!s)
        return -ENOMEM;
    s->fd = fd;
    s->config = *config;
    if (config->uring)
        rings_create(s);
    *out = s;
    return 0;
}

void swapio_destroy(struct swapio *s)
{
    if (!s)
        return;
    for (unsigned i = 0; i < s->nr_rings; i++)
        io_uring_queue_exit(&s->ring[i]);
    close(s->fd);
    free(s);
}
