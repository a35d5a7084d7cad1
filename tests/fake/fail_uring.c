/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fake/fail_uring.h"

#include <errno.h>
#include <liburing.h>
#include <stdatomic.h>

static atomic_int send_first = -1;
static atomic_bool broken;
static atomic_int nr_failed;

int __real_io_uring_submit_and_wait(struct io_uring *ring, unsigned nr_wait);
int __wrap_io_uring_submit_and_wait(struct io_uring *ring, unsigned nr_wait);

void fail_uring_after(int nr)
{
    atomic_store(&broken, false);
    atomic_store(&nr_failed, 0);
    atomic_store(&send_first, nr);
}

int fail_uring_count(void)
{
    return atomic_load(&nr_failed);
}

int __wrap_io_uring_submit_and_wait(struct io_uring *ring, unsigned nr_wait)
{
    if (atomic_load(&broken)) {
        atomic_fetch_add(&nr_failed, 1);
        return -EIO;
    }
    int nr = atomic_exchange(&send_first, -1);
    if (nr < 0)
        return __real_io_uring_submit_and_wait(ring, nr_wait);
    unsigned tail = ring->sq.sqe_tail;
    ring->sq.sqe_tail = ring->sq.sqe_head + (unsigned)nr;
    int rc = __real_io_uring_submit_and_wait(ring, 0);
    ring->sq.sqe_tail = tail;
    atomic_store(&broken, true);
    return rc;
}
