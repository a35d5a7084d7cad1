/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/sysfile.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int open_path(int flags, const char *format, va_list args)
{
    char path[PATH_MAX];
    int len = vsnprintf(path, sizeof(path), format, args);

    if (len < 0 || (size_t)len >= sizeof(path))
        return -ENAMETOOLONG;
    int fd = open(path, flags | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int sysfile_write(const char *text, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    int fd = open_path(O_WRONLY, format, args);
    va_end(args);
    if (fd < 0)
        return fd;
    ssize_t n;
    do
        n = write(fd, text, strlen(text));
    while (n < 0 && errno == EINTR);
    int err = n < 0 ? -errno : 0;
    close(fd);
    return err;
}

static int read_path(char *out, size_t bytes, const char *format, va_list args)
{
    out[0] = '\0';
    int fd = open_path(O_RDONLY, format, args);
    if (fd < 0)
        return fd;
    size_t have = 0;
    int err = 0;
    while (have < bytes - 1) {
        ssize_t n = read(fd, out + have, bytes - 1 - have);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            err = -errno;
        if (n <= 0)
            break;
        have += (size_t)n;
    }
    close(fd);
    if (err)
        have = 0;
    if (have && out[have - 1] == '\n')
        have--;
    out[have] = '\0';
    return err;
}

int sysfile_read(char *out, size_t bytes, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    int err = read_path(out, bytes, format, args);
    va_end(args);
    return err;
}

uint64_t sysfile_number(const char *format, ...)
{
    char text[64];
    va_list args;

    va_start(args, format);
    int err = read_path(text, sizeof(text), format, args);
    va_end(args);
    return err ? 0 : strtoull(text, NULL, 10);
}
