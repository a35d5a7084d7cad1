/* SPDX-License-Identifier: Apache-2.0 */
#include "devices/unix_socket.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static int make(const char *path, struct sockaddr_un *address)
{
    memset(address, 0, sizeof(*address));
    address->sun_family = AF_UNIX;
    if (strlen(path) >= sizeof(address->sun_path))
        return -ENAMETOOLONG;
    strcpy(address->sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    return fd < 0 ? -errno : fd;
}

int unix_connect(const char *path)
{
    struct sockaddr_un address;
    int fd = make(path, &address);

    if (fd < 0)
        return fd;
    if (connect(fd, (const struct sockaddr *)&address, sizeof(address))) {
        int err = -errno;

        close(fd);
        return err;
    }
    return fd;
}

/* A socket at @path that refuses connections was left by a process that is gone. */
static void remove_stale(const char *path)
{
    struct stat st;

    if (lstat(path, &st) || !S_ISSOCK(st.st_mode))
        return;
    int fd = unix_connect(path);
    if (fd == -ECONNREFUSED)
        unlink(path);
    if (fd >= 0)
        close(fd);
}

bool unix_path_refused(int err)
{
    switch (err) {
    case EACCES:
    case EPERM:
    case ENOENT:
    case ENOTDIR:
    case ELOOP:
    case EROFS:
    case ENOSPC:
    case EDQUOT:
        return true;
    default:
        return false;
    }
}

static int fail(char *why, size_t why_bytes, const char *path, int err)
{
    if (err == -EADDRINUSE)
        snprintf(why, why_bytes, "socket %s: a program listens there, or a file is there; take another path", path);
    else if (err == -ENAMETOOLONG)
        snprintf(why, why_bytes, "socket %s: the path is too long; take one of at most %zu characters", path,
                 sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1);
    else
        snprintf(why, why_bytes, "socket %s: %s%s", path, strerror(-err),
                 unix_path_refused(-err) ? "; take a path in a directory that can be written" : "");
    return err;
}

int unix_listen(const char *path, int backlog, char *why, size_t why_bytes)
{
    struct sockaddr_un address;
    int fd = make(path, &address);

    if (fd < 0)
        return fail(why, why_bytes, path, fd);
    remove_stale(path);
    /* The mode of the descriptor becomes that of the file: there is no moment when others may connect. */
    if (fchmod(fd, 0600) || bind(fd, (const struct sockaddr *)&address, sizeof(address))) {
        int err = -errno;

        close(fd);
        return fail(why, why_bytes, path, err);
    }
    if (listen(fd, backlog)) {
        int err = -errno;

        unix_unlisten(fd, path);
        return fail(why, why_bytes, path, err);
    }
    return fd;
}

void unix_unlisten(int fd, const char *path)
{
    if (fd < 0)
        return;
    /* In this order: once it is closed, another process may have put its own socket there. */
    unlink(path);
    close(fd);
}

int unix_accept(int listen_fd)
{
    int fd;

    do
        fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    while (fd < 0 && errno == EINTR);
    return fd < 0 ? -errno : fd;
}

ptrdiff_t unix_send(int fd, const void *bytes, size_t nr)
{
    ptrdiff_t sent;

    do
        sent = send(fd, bytes, nr, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent < 0 ? -errno : sent;
}

ptrdiff_t unix_recv(int fd, void *bytes, size_t nr)
{
    ptrdiff_t received;

    do
        received = recv(fd, bytes, nr, MSG_DONTWAIT);
    while (received < 0 && errno == EINTR);
    return received < 0 ? -errno : received;
}
