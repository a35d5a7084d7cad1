/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/uffd.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00) /* Linux 6.1 */
#endif

/* EAGAIN: so many times give the CPU away, then sleep, about a second in all. A real-time thread that only yielded
 * would never let the holder of a folio lock run. Chosen, unmeasured: more than one retry was never seen. */
#define AGAIN_YIELDS 16u
#define AGAIN_TRIES 20016u
#define AGAIN_SLEEP_NS 50000

/* The device node grants by file permission what the system call grants by capability or sysctl: try both. */
static int open_raw(void)
{
    int dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    if (dev >= 0) {
        int fd = ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC);
        close(dev);
        if (fd >= 0)
            return fd;
    }
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
    return fd >= 0 ? fd : -errno;
}

/* Handshake: agrees on *features, and fills in all that the kernel offers. */
static int handshake(int fd, uint64_t *features)
{
    struct uffdio_api api = {.api = UFFD_API, .features = *features};
    if (ioctl(fd, UFFDIO_API, &api) < 0)
        return -errno;
    *features = api.features;
    return 0;
}

int uffd_probe(uint64_t *features, struct diag *diag)
{
    int fd = open_raw();
    if (fd == -EPERM || fd == -EACCES)
        return diag_set(diag, EXIT_HOST,
                        "no right to userfaultfd: run as root (CAP_SYS_PTRACE), or give this user /dev/userfaultfd, "
                        "or `sysctl vm.unprivileged_userfaultfd=1`; or use --backend kernel");
    if (fd == -ENOSYS)
        return diag_set(diag, EXIT_HOST, "this kernel has no userfaultfd (CONFIG_USERFAULTFD): use --backend kernel");
    if (fd < 0)
        return diag_host(diag, -fd, "userfaultfd");
    *features = 0;
    int err = handshake(fd, features);
    close(fd);
    if (err < 0)
        return diag_set(diag, EXIT_HOST, "userfaultfd handshake: %s: use --backend kernel", strerror(-err));
    return 0;
}

int uffd_open(uint64_t features)
{
    int fd = open_raw();
    if (fd < 0)
        return fd;
    int err = handshake(fd, &features);
    if (err < 0) {
        close(fd);
        return err;
    }
    return fd;
}

int uffd_register(int fd, const void *start, uint64_t bytes, uint64_t mode)
{
    struct uffdio_register reg = {.range = {(uintptr_t)start, bytes}, .mode = mode};
    return ioctl(fd, UFFDIO_REGISTER, &reg) < 0 ? -errno : 0;
}

/* True: try again. @tries counts failures in a row. */
static bool again(int err, unsigned *tries)
{
    if (err != EAGAIN || ++*tries > AGAIN_TRIES)
        return false;
    if (*tries <= AGAIN_YIELDS)
        sched_yield();
    else
        nanosleep(&(struct timespec){.tv_nsec = AGAIN_SLEEP_NS}, NULL);
    return true;
}

int uffd_copy(int fd, void *dst, const void *src, uint64_t bytes, uint64_t *done)
{
    unsigned tries = 0;
    *done = 0;
    for (;;) {
        struct uffdio_copy arg = {.dst = (uintptr_t)dst + *done, .src = (uintptr_t)src + *done, .len = bytes - *done};
        if (ioctl(fd, UFFDIO_COPY, &arg) == 0) {
            *done = bytes;
            return 0;
        }
        int err = errno;
        if (arg.copy > 0) {
            *done += (uint64_t)arg.copy;
            tries = 0;
        } else if (!again(err, &tries)) {
            return -err;
        }
    }
}

int uffd_move(int fd, void *dst, void *src, uint64_t bytes, bool holes, uint64_t *done)
{
    unsigned tries = 0;
    *done = 0;
    for (;;) {
        struct uffdio_move arg = {
            .dst = (uintptr_t)dst + *done,
            .src = (uintptr_t)src + *done,
            .len = bytes - *done,
            .mode = holes ? UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES : 0,
        };
        if (ioctl(fd, UFFDIO_MOVE, &arg) == 0) {
            *done = bytes;
            return 0;
        }
        int err = errno;
        if (arg.move > 0) {
            *done += (uint64_t)arg.move;
            tries = 0;
        } else if (!again(err, &tries)) {
            return -err;
        }
    }
}

int uffd_zeropage(int fd, void *dst, uint64_t bytes)
{
    struct uffdio_zeropage arg = {.range = {(uintptr_t)dst, bytes}};
    unsigned tries = 0;
    while (ioctl(fd, UFFDIO_ZEROPAGE, &arg) < 0) {
        int err = errno;
        if (arg.zeropage > 0) {
            arg.range.start += (uint64_t)arg.zeropage;
            arg.range.len -= (uint64_t)arg.zeropage;
        } else if (!again(err, &tries)) {
            return -err;
        }
    }
    return 0;
}

void uffd_wake(int fd, void *start, uint64_t bytes)
{
    struct uffdio_range range = {(uintptr_t)start, bytes};
    (void)!ioctl(fd, UFFDIO_WAKE, &range); /* fails for a malformed range only */
}

int uffd_protect(int fd, void *start, uint64_t bytes, bool on)
{
    struct uffdio_writeprotect arg = {
        .range = {(uintptr_t)start, bytes},
        .mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
    };
    unsigned tries = 0;
    while (ioctl(fd, UFFDIO_WRITEPROTECT, &arg) < 0) {
        int err = errno;
        if (!again(err, &tries))
            return -err;
    }
    return 0;
}
