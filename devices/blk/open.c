/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Steps that may refuse come in the order in which a user would ask: is it there, may it be used, is it a disk, is it
 * free, is it large enough, can it be used as asked. Nothing of the file is changed.
 */
#include "devices/blk/open.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/stat.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECTOR_BYTES 512u
#define MAX_ALIGN_BYTES 4096u /* a window can be cut down to this, and buffers have it */

/* A path in a message: long ones lose their end. */
#define PATH_FORMAT "disk %.150s"

struct opening {
    const struct blk_config *config;
    struct blk_file *file;
    char *why;
    size_t why_bytes;
    bool device;
};

/* @format has one %s, the path. Returns -@err. */
static int refuse(const struct opening *o, int err, const char *what)
{
    snprintf(o->why, o->why_bytes, PATH_FORMAT " %s", o->config->path, what);
    return -err;
}

static int cannot_open(const struct opening *o, int err)
{
    switch (err) {
    case ENOENT:
    case ENOTDIR:
        return refuse(o, err, "is not there: give the path of a raw image, or make one with truncate -s 1G FILE");
    case EACCES:
    case EPERM:
        if (!o->config->read_only && faccessat(AT_FDCWD, o->config->path, R_OK, AT_EACCESS) == 0)
            return refuse(o, err, "may only be read: add readonly, or change its permissions");
        return refuse(o, err, "may not be used by this user: change its permissions, or run as root");
    case EROFS:
        return refuse(o, err, "is on a read-only file system: add readonly");
    case EISDIR:
        return refuse(o, err, "is a directory: give the path of a raw image or a block device");
    case EBUSY:
    case ETXTBSY:
        return refuse(o, err, "is in use by this host (mounted, or running): unmount it, or choose another");
    default:
        snprintf(o->why, o->why_bytes, "cannot open " PATH_FORMAT ": %s; choose another file", o->config->path,
                 strerror(err));
        return -err;
    }
}

/*
 * O_NONBLOCK: a pipe must not hold us up. It is taken away again, or io_uring would give EAGAIN back. O_EXCL: a block
 * device that is mounted says EBUSY.
 */
static int open_it(const struct opening *o)
{
    struct stat st;
    int flags = (o->config->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
    if (stat(o->config->path, &st) < 0)
        return cannot_open(o, errno);
    if (S_ISBLK(st.st_mode) && !o->config->read_only)
        flags |= O_EXCL;
    if (S_ISDIR(st.st_mode))
        return cannot_open(o, EISDIR);
    if (!S_ISBLK(st.st_mode) && !S_ISREG(st.st_mode))
        return refuse(o, EINVAL, "is neither a file nor a block device: give the path of a raw image");
    o->file->fd = open(o->config->path, flags);
    if (o->file->fd < 0)
        return cannot_open(o, errno);
    return 0;
}

/* What was opened, in case it was changed meanwhile. */
static int look(struct opening *o, struct stat *st)
{
    if (fstat(o->file->fd, st) < 0)
        return cannot_open(o, errno);
    o->device = S_ISBLK(st->st_mode);
    if (!o->device && !S_ISREG(st->st_mode))
        return refuse(o, EINVAL, "is neither a file nor a block device: give the path of a raw image");
    if (fcntl(o->file->fd, F_SETFL, 0) < 0)
        return cannot_open(o, errno);
    return 0;
}

static int lock_it(const struct opening *o)
{
    if (flock(o->file->fd, (o->config->read_only ? LOCK_SH : LOCK_EX) | LOCK_NB) == 0)
        return 0;
    if (errno != EWOULDBLOCK)
        return 0; /* a file system without locks: as any file there */
    if (o->config->read_only)
        return refuse(o, EBUSY,
                      "is being written, by another process or as another disk of this one: end that, or use a copy");
    return refuse(
        o, EBUSY,
        "is in use, by another process or as another disk of this one: end that, or use a copy (readonly disks can be "
        "shared)");
}

static int measure(const struct opening *o, const struct stat *st)
{
    uint64_t bytes = (uint64_t)st->st_size;
    struct rlimit limit;
    if (o->device && ioctl(o->file->fd, BLKGETSIZE64, &bytes) < 0)
        return cannot_open(o, errno);
    if (bytes < o->file->block_bytes)
        return refuse(o, EINVAL, "is shorter than a sector: give a raw image, or make it larger with truncate -s 1G");
    /* Writing past this limit would end the process (SIGXFSZ). */
    if (!o->device && !o->config->read_only && getrlimit(RLIMIT_FSIZE, &limit) == 0 && bytes > limit.rlim_cur)
        return refuse(o, EFBIG, "is larger than `ulimit -f` allows to write: raise the limit, or add readonly");
    o->file->capacity_bytes = bytes - bytes % o->file->block_bytes;
    return 0;
}

/* The smallest block that can be read with O_DIRECT, where the kernel does not say: 0 when there is none. */
static uint32_t probe_direct(int fd)
{
    uint32_t bytes = 0;
    char *page = NULL;
    if (posix_memalign((void **)&page, MAX_ALIGN_BYTES, MAX_ALIGN_BYTES))
        return 0;
    for (uint32_t size = SECTOR_BYTES; !bytes && size <= MAX_ALIGN_BYTES; size *= 2)
        if (pread(fd, page, size, 0) >= 0)
            bytes = size;
    free(page);
    return bytes;
}

static bool is_alignment(uint32_t bytes)
{
    return bytes && (bytes & (bytes - 1)) == 0 && bytes <= MAX_ALIGN_BYTES;
}

/* Linux 6.1 says what it wants (STATX_DIOALIGN); before that we try. */
static int make_direct(const struct opening *o)
{
    struct blk_file *file = o->file;
    const char *none = "has no direct I/O (its file system, or its block size): leave direct out";
    struct statx stx;
    memset(&stx, 0, sizeof(stx));
    if (fcntl(file->fd, F_SETFL, O_DIRECT) < 0)
        return refuse(o, EINVAL, none);
    if (statx(file->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) == 0 && stx.stx_mask & STATX_DIOALIGN) {
        file->align_bytes = stx.stx_dio_mem_align;
        file->block_bytes = MAX_OF(stx.stx_dio_offset_align, SECTOR_BYTES);
    } else {
        file->block_bytes = file->align_bytes = probe_direct(file->fd);
    }
    if (!is_alignment(file->align_bytes) || !is_alignment(file->block_bytes))
        return refuse(o, EINVAL, none);
    file->direct = true;
    return 0;
}

/* A hole beyond the end changes nothing, and says whether holes can be. A device says EINVAL there. */
static bool can_punch(const struct blk_file *file, const struct stat *st)
{
    uint64_t end = ((uint64_t)st->st_size + BLOCK_BYTES) & ~(BLOCK_BYTES - 1);
    if (S_ISBLK(st->st_mode))
        return true;
    return fallocate(file->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)end, (off_t)PAGE_BYTES) == 0;
}

int blk_file_open(const struct blk_config *config, struct blk_file *file, char *why, size_t why_bytes)
{
    struct opening o = {.config = config, .file = file, .why = why, .why_bytes = why_bytes};
    struct stat st;
    *file = (struct blk_file){.fd = -1, .read_only = config->read_only, .block_bytes = SECTOR_BYTES, .align_bytes = 1};
    int err = open_it(&o);
    if (!err)
        err = look(&o, &st);
    if (!err)
        err = lock_it(&o);
    if (!err && config->direct)
        err = make_direct(&o);
    if (!err)
        err = measure(&o, &st);
    if (err) {
        blk_file_close(file);
        return err;
    }
    file->can_punch = !config->read_only && can_punch(file, &st);
    file->hole_bytes = MAX_OF((uint32_t)st.st_blksize, file->block_bytes);
    return 0;
}

void blk_file_close(struct blk_file *file)
{
    if (file->fd >= 0)
        close(file->fd);
    file->fd = -1;
}
