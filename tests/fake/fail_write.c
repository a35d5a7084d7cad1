/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fake/fail_write.h"

#include <errno.h>
#include <stdatomic.h>
#include <unistd.h>

static atomic_int left;
static atomic_int with;

ssize_t __real_write(int fd, const void *from, size_t bytes);
ssize_t __wrap_write(int fd, const void *from, size_t bytes);

void fail_write_next(int nr, int error)
{
    atomic_store(&with, error);
    atomic_store(&left, nr);
}

int fail_write_left(void)
{
    return atomic_load(&left);
}

ssize_t __wrap_write(int fd, const void *from, size_t bytes)
{
    int nr = atomic_load(&left);

    while (nr > 0)
        if (atomic_compare_exchange_weak(&left, &nr, nr - 1)) {
            errno = atomic_load(&with);
            return -1;
        }
    return __real_write(fd, from, bytes);
}
