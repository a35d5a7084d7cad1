/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/outfile.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
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

/*
 * A name beside @path that no other file has, not of this process either: it may write to @path twice at once. Nothing
 * of @path's own name is in it, which may be as long as a name can be.
 */
static char *temporary_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    int directory = slash ? (int)(slash - path) + 1 : 0;
    uint64_t random;
    char *name;

    if (getrandom(&random, sizeof(random), 0) != sizeof(random) ||
        asprintf(&name, "%.*sebb-%016" PRIx64 ".tmp", directory, path, random) < 0)
        return NULL;
    return name;
}

/* As open_beside, with a name that outfile_commit or outfile_cancel removes. */
static int open_temporary(struct outfile *out)
{
    out->temporary = temporary_name(out->path);
    int fd = out->temporary ? open(out->temporary, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644) : -1;
    int error = out->temporary ? errno : ENOMEM;

    if (fd >= 0)
        return fd;
    free(out->temporary);
    out->temporary = NULL;
    return -error;
}

int outfile_open(const char *what, const char *path, struct outfile *out, struct diag *diag)
{
    struct stat st;

    *out = (struct outfile){.fd = -1};
    if (strcmp(path, "-") == 0)
        return 0;
    bool exists = stat(path, &st) == 0;
    if (!exists && errno == ENAMETOOLONG)
        return diag_set(diag, EXIT_USAGE, "%s %.80s...: the name is too long; take a shorter one", what, path);
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
        out->fd = open_temporary(out);
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
static int name_file(struct outfile *out)
{
    char from[64];

    if (!out->temporary) {
        char *name = temporary_name(out->path);
        snprintf(from, sizeof(from), "/proc/self/fd/%d", out->fd);
        if (!name || linkat(AT_FDCWD, from, AT_FDCWD, name, AT_SYMLINK_FOLLOW)) {
            free(name);
            return -1;
        }
        out->temporary = name;
    }
    if (rename(out->temporary, out->path))
        return -1;
    free(out->temporary);
    out->temporary = NULL;
    return 0;
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
    if (!out->path)
        return;
    if (out->temporary)
        unlink(out->temporary);
    close(out->fd);
    free(out->temporary);
    free(out->path);
    out->path = out->temporary = NULL;
}
