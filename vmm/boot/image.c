/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/boot/image.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A copy goes through a buffer of this size: a file system's read never waits for a page of the guest. */
#define CHUNK_BYTES (16 * PAGE_BYTES)
/* Paths are cut to this, so that what is wrong and what mends it still stand in the line. */
#define PATH_FORMAT "%.150s"

static int cannot_open(const struct boot_image *image, int err, struct diag *diag)
{
    bool usage = err == ENOENT || err == ENOTDIR || err == EACCES || err == ELOOP || err == ENAMETOOLONG;

    return diag_set(diag, usage ? EXIT_USAGE : EXIT_HOST,
                    "%s " PATH_FORMAT ": cannot be opened: %s; name a file that can be read", image->role, image->path,
                    strerror(err));
}

int boot_image_open(struct boot_image *image, const char *role, const char *path, struct diag *diag)
{
    struct stat stat;

    /* Not blocking: a FIFO without a writer is refused below, it does not hang us. */
    *image = (struct boot_image){.role = role, .path = path, .fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
    /* ENXIO: a socket, or a device that is not there */
    if (image->fd < 0 && errno != ENXIO)
        return cannot_open(image, errno, diag);
    if (image->fd >= 0 && fstat(image->fd, &stat))
        cannot_open(image, errno, diag);
    else if (image->fd < 0 || !S_ISREG(stat.st_mode))
        boot_image_bad(image, diag, "not a regular file; name the %s itself", role);
    else if (stat.st_size <= 0)
        boot_image_bad(image, diag, "the file is empty; name a whole %s", role);
    else {
        image->size_bytes = (uint64_t)stat.st_size;
        return 0;
    }
    boot_image_close(image);
    return -1;
}

void boot_image_close(struct boot_image *image)
{
    if (image->fd >= 0)
        close(image->fd);
    image->fd = -1;
}

int boot_image_bad(const struct boot_image *image, struct diag *diag, const char *format, ...)
{
    char text[256];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    return diag_set(diag, EXIT_USAGE, "%s " PATH_FORMAT ": %s", image->role, image->path, text);
}

static int truncated(const struct boot_image *image, uint64_t offset, uint64_t bytes, struct diag *diag)
{
    return boot_image_bad(image, diag,
                          "truncated: %" PRIu64 " bytes of 0x%" PRIx64 " from 0x%" PRIx64
                          " on are missing; get the whole file",
                          offset > image->size_bytes ? bytes : bytes - (image->size_bytes - offset), bytes, offset);
}

int boot_image_go_on(const struct boot_image *image, struct diag *diag)
{
    if (!image->stop || !atomic_load(image->stop))
        return 0;
    return diag_set(diag, EXIT_HOST, "%s " PATH_FORMAT ": not loaded to its end: the run is over", image->role,
                    image->path);
}

int boot_image_read(const struct boot_image *image, uint64_t offset, void *to, uint64_t bytes, struct diag *diag)
{
    if (offset > image->size_bytes || bytes > image->size_bytes - offset)
        return truncated(image, offset, bytes, diag);
    if (boot_image_go_on(image, diag))
        return -1;
    if (image->fd < 0)
        return guest_mem_read(image->room->mem, (gpa_t){image->gpa.v + offset}, to, bytes)
                   ? diag_set(diag, EXIT_HOST, "no guest memory at 0x%" PRIx64, image->gpa.v + offset)
                   : 0;
    for (uint64_t done = 0; done < bytes;) {
        ssize_t got = pread(image->fd, (char *)to + done, bytes - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return diag_set(diag, EXIT_HOST, "%s " PATH_FORMAT ": cannot be read: %s; try another copy", image->role,
                            image->path, got < 0 ? strerror(errno) : "it became shorter meanwhile");
        done += (uint64_t)got;
    }
    return 0;
}

static bool is_zero(const uint8_t *at, size_t bytes)
{
    return at[0] == 0 && memcmp(at, at + 1, bytes - 1) == 0;
}

int boot_image_load(const struct boot_image *image, uint64_t offset, const struct guest_mem *mem, gpa_t gpa,
                    uint64_t bytes, struct diag *diag)
{
    uint8_t chunk[CHUNK_BYTES];

    for (uint64_t done = 0; done < bytes;) {
        uint64_t nr = MIN_OF(bytes - done, CHUNK_BYTES);
        if (boot_image_read(image, offset + done, chunk, nr, diag))
            return -1;
        for (uint64_t at = 0, piece; at < nr; at += piece) {
            gpa_t to = {gpa.v + done + at};
            piece = MIN_OF(nr - at, PAGE_BYTES - to.v % PAGE_BYTES);
            if (!is_zero(chunk + at, piece) && guest_mem_write(mem, to, chunk + at, piece))
                return boot_image_bad(image, diag, "does not fit into the memory; give more --memory");
        }
        done += nr;
    }
    return 0;
}

void boot_image_forget(struct boot_image *image, uint64_t end)
{
    uint64_t from = image->gpa.v + image->forgotten, to = image->gpa.v + end;

    if (image->fd >= 0 || !image->room)
        return;
    to = end < image->size_bytes ? to & ~(BLOCK_BYTES - 1) : image->room->end;
    if (to <= from)
        return;
    image->forgotten = to - image->gpa.v;
    if (image->room->forget)
        image->room->forget(image->room->ctx, (gpa_t){from}, to - from);
    else
        memset(guest_mem_hva(image->room->mem, (gpa_t){from}, to - from), 0, to - from);
}
