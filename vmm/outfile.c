/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/outfile.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int cannot(struct diag *diag, const char *what, const char *path, const char *why)
{
    return diag_set(diag, EXIT_USAGE, "%s %.200s: %s; name a file in a directory that can be written", what, path, why);
}

/* A file without a name beside @path: descriptor, or -errno (-EOPNOTSUPP: not on this file system). */
static int open_beside(const char *path)
{
    char *copy = strdup(path);
    int fd = copy ? open(dirname(copy), O_TMPFILE | O_WRONLY | O_CLOEXEC, 0644) : -1;
    int error = copy ? errno : ENOMEM;

    free(copy);
    return fd >= 0 ? fd : -error;
}

/* What is no regular file: descriptor or -errno. */
static int open_direct(const char *path)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC | O_NONBLOCK);

    return fd >= 0 ? fd : -errno;
}

static char *temporary_name(const char *path)
{
    char *name;

    return asprintf(&name, "%s.%ld.tmp", path, (long)getpid()) < 0 ? NULL : name;
}

/* As open_beside, with a name that outfile_commit or outfile_cancel removes. */
static int open_temporary(const char *path)
{
    char *name = temporary_name(path);
    int fd = name ? open(name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644) : -1;
    int error = name ? errno : ENOMEM;

    free(name);
    return fd >= 0 ? fd : -error;
}

int outfile_open(const char *what, const char *path, struct outfile *out, struct diag *diag)
{
    struct stat st;

    *out = (struct outfile){.fd = -1};
    if (strcmp(path, "-") == 0)
        return 0;
    bool exists = stat(path, &st) == 0;
    if ((exists && S_ISDIR(st.st_mode)) || path[strlen(path) - 1] == '/')
        return cannot(diag, what, path, "is a directory");
    if (exists && access(path, W_OK))
        return cannot(diag, what, path, strerror(errno));
    out->path = exists ? realpath(path, NULL) : strdup(path);
    if (!out->path)
        return cannot(diag, what, path, strerror(errno));
    out->rename = !exists || S_ISREG(st.st_mode);
    out->fd = out->rename ? open_beside(out->path) : open_direct(out->path);
    if (out->fd == -EOPNOTSUPP || out->fd == -EISDIR)
        out->fd = open_temporary(out->path);
    if (out->fd >= 0)
        return 0;
    cannot(diag, what, path, strerror(-out->fd));
    free(out->path);
    out->path = NULL;
    return -1;
}

static int write_bytes(int fd, const char *bytes, size_t left)
{
    while (left) {
        ssize_t nr = write(fd, bytes, left);
        if (nr < 0 && errno == EINTR)
            continue;
        if (nr < 0)
            return -1;
        bytes += nr;
        left -= (size_t)nr;
    }
    return 0;
}

/* Gives the file its temporary name, if it has none, then its own: the old one is there until the new one is. */
static int name_file(const struct outfile *out)
{
    char from[64], *name = temporary_name(out->path);
    struct stat st;
    int error = 0;

    if (!name)
        return -1;
    snprintf(from, sizeof(from), "/proc/self/fd/%d", out->fd);
    if (fstat(out->fd, &st) == 0 && st.st_nlink == 0) {
        unlink(name);
        error = linkat(AT_FDCWD, from, AT_FDCWD, name, AT_SYMLINK_FOLLOW);
    }
    if (!error && rename(name, out->path)) {
        error = -1;
        int saved = errno;
        unlink(name);
        errno = saved;
    }
    free(name);
    return error;
}

/* What could not be written is told, and the file closed, named or not. */
static int finish(struct outfile *out, int error, struct diag *diag)
{
    if (error)
        diag_set(diag, EXIT_GUEST, "the results could not be written to %.200s: %s",
                 out->path ? out->path : "standard output", strerror(errno));
    outfile_cancel(out);
    return error;
}

int outfile_commit(struct outfile *out, const json_t *json, struct diag *diag)
{
    char *text = json ? json_dumps(json, JSON_INDENT(2)) : NULL;
    int error = text ? 0 : -1;

    if (!text)
        errno = ENOMEM;
    else if (!out->path)
        error = puts(text) < 0 || fflush(stdout) ? -1 : 0;
    else if (write_bytes(out->fd, text, strlen(text)) || write_bytes(out->fd, "\n", 1) ||
             (out->rename && name_file(out)))
        error = -1;
    int saved = errno;
    free(text);
    errno = saved;
    return finish(out, error, diag);
}

int outfile_commit_bytes(struct outfile *out, const void *bytes, size_t nr, struct diag *diag)
{
    int error = 0;

    if (!out->path)
        error = fwrite(bytes, 1, nr, stdout) != nr || fflush(stdout) ? -1 : 0;
    else if (write_bytes(out->fd, bytes, nr) || (out->rename && name_file(out)))
        error = -1;
    return finish(out, error, diag);
}

int outfile_keep(struct outfile *out, struct diag *diag)
{
    return finish(out, fsync(out->fd) || (out->rename && name_file(out)) ? -1 : 0, diag);
}

void outfile_cancel(struct outfile *out)
{
    struct stat st, named;

    if (!out->path)
        return;
    /* A temporary name that was not used any more: the file system has no files without one. */
    char *name = out->rename ? temporary_name(out->path) : NULL;
    if (name && fstat(out->fd, &st) == 0 && lstat(name, &named) == 0 && st.st_ino == named.st_ino &&
        st.st_dev == named.st_dev)
        unlink(name);
    free(name);
    close(out->fd);
    free(out->path);
    out->path = NULL;
}
