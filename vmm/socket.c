/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/socket.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "devices/unix_socket.h"

#define BACKLOG 16

static int fill_address(const char *path, struct sockaddr_un *address, struct diag *diag)
{
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(address->sun_path))
        return diag_set(diag, EXIT_USAGE, "API socket %.60s...: the path is longer than %zu bytes; take a shorter one",
                        path, sizeof(address->sun_path) - 1);
    memcpy(address->sun_path, path, strlen(path) + 1);
    return 0;
}

/* Descriptor, or -errno. -EAGAIN: who listens there has taken no connection for @wait_ms, 0 .. 60000. */
static int try_connect(const struct sockaddr_un *address, unsigned wait_ms)
{
    const struct timeval wait = {.tv_sec = wait_ms / 1000, .tv_usec = (suseconds_t)(wait_ms % 1000) * 1000};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | (wait_ms ? 0 : SOCK_NONBLOCK), 0);

    if (fd < 0)
        return -errno;
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait));
    if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0)
        return fd;
    int error = -errno;
    close(fd);
    return error;
}

/* Makes way for a socket at @address: 0, or -1 with diag when something that lives is there. */
static int clear_way(const struct sockaddr_un *address, struct diag *diag)
{
    const char *path = address->sun_path;
    struct stat st;

    if (lstat(path, &st))
        return 0;
    if (!S_ISSOCK(st.st_mode))
        return diag_set(diag, EXIT_USAGE, "API socket %s: a file that is no socket is there; take another path", path);
    int fd = try_connect(address, 0);
    if (fd >= 0)
        close(fd);
    if (fd >= 0 || fd == -EAGAIN)
        return diag_set(diag, EXIT_USAGE, "API socket %s is in use by another process; take another path", path);
    if (fd != -ECONNREFUSED || unlink(path))
        return diag_set(diag, EXIT_USAGE, "API socket %s: there is one that cannot be replaced: %s; take another path",
                        path, strerror(fd != -ECONNREFUSED ? -fd : errno));
    return 0;
}

int socket_listen(const char *path, struct diag *diag)
{
    struct sockaddr_un address;

    if (fill_address(path, &address, diag) || clear_way(&address, diag))
        return -1;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return diag_host(diag, errno, "API socket");
    mode_t mask = umask(0177);
    int error = bind(fd, (struct sockaddr *)&address, sizeof(address)) ? errno : 0;
    umask(mask);
    if (error == 0 && listen(fd, BACKLOG)) {
        error = errno;
        unlink(path);
    }
    if (error == 0)
        return fd;
    close(fd);
    if (unix_path_refused(error))
        return diag_set(diag, EXIT_USAGE, "API socket %s: %s; take a path in a directory that can be written", path,
                        strerror(error));
    if (error == EADDRINUSE) /* since clear_way */
        return diag_set(diag, EXIT_USAGE, "API socket %s is in use by another process; take another path", path);
    return diag_host(diag, error, "API socket %s", path);
}

/* --- the default place --------------------------------------------------------------------------------- */

/* 0, or -1 when this user has none. */
static int default_directory(char *out, size_t out_bytes)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    int nr = -1;

    if (geteuid() == 0)
        nr = snprintf(out, out_bytes, "/run/ebb");
    else if (runtime && *runtime == '/')
        nr = snprintf(out, out_bytes, "%s/ebb", runtime);
    return nr < 0 || (size_t)nr >= out_bytes ? -1 : 0;
}

/* True for "PID.sock"; *pid is its number. */
static bool socket_name(const char *name, pid_t *pid)
{
    char *end;
    long number = strtol(name, &end, 10);

    *pid = (pid_t)number;
    return number > 0 && strcmp(end, ".sock") == 0;
}

/* False when nobody listens at @path: its process was killed and not waited for, or the number is another's by now. */
static bool is_listened_at(const char *path)
{
    struct sockaddr_un address;
    struct diag unused = {0};

    if (fill_address(path, &address, &unused))
        return false;
    int fd = try_connect(&address, 0);
    if (fd >= 0)
        close(fd);
    return fd != -ECONNREFUSED;
}

/*
 * Looks at every socket in @directory. Those of dead processes are removed; *newest (SOCKET_PATH_BYTES) becomes the
 * youngest of the rest that somebody listens at, or "". Others stay: a process that begins to listen looks the same.
 */
static void scan(const char *directory, char *newest)
{
    struct timespec youngest = {0};
    char path[SOCKET_PATH_BYTES];
    struct dirent *entry;
    struct stat st;
    pid_t pid;

    *newest = '\0';
    DIR *dir = opendir(directory);
    if (!dir)
        return;
    while ((entry = readdir(dir))) {
        if (!socket_name(entry->d_name, &pid) ||
            snprintf(path, sizeof(path), "%s/%.24s", directory, entry->d_name) >= (int)sizeof(path) ||
            lstat(path, &st) || !S_ISSOCK(st.st_mode))
            continue;
        if (kill(pid, 0) && errno == ESRCH) {
            unlink(path);
            continue;
        }
        if (*newest && (st.st_mtim.tv_sec < youngest.tv_sec ||
                        (st.st_mtim.tv_sec == youngest.tv_sec && st.st_mtim.tv_nsec < youngest.tv_nsec)))
            continue;
        if (!is_listened_at(path))
            continue;
        youngest = st.st_mtim;
        memcpy(newest, path, strlen(path) + 1);
    }
    closedir(dir);
}

int socket_listen_default(char path[SOCKET_PATH_BYTES])
{
    char directory[SOCKET_PATH_BYTES - 32], newest[SOCKET_PATH_BYTES];
    struct diag unused = {0};

    if (default_directory(directory, sizeof(directory)))
        return -1;
    if (mkdir(directory, 0700) && errno != EEXIST)
        return -1;
    scan(directory, newest);
    snprintf(path, SOCKET_PATH_BYTES, "%s/%ld.sock", directory, (long)getpid());
    return socket_listen(path, &unused);
}

int socket_find(char path[SOCKET_PATH_BYTES], struct diag *diag)
{
    char directory[SOCKET_PATH_BYTES - 32];

    *path = '\0';
    if (default_directory(directory, sizeof(directory)) == 0)
        scan(directory, path);
    if (*path)
        return 0;
    return diag_set(diag, EXIT_USAGE, "no running ebb was found; start one with `ebb run`, or name its --api SOCKET");
}

int socket_connect(const char *path, unsigned wait_ms, struct diag *diag)
{
    struct sockaddr_un address;

    if (fill_address(path, &address, diag))
        return -1;
    int fd = try_connect(&address, wait_ms);
    if (fd == -EAGAIN)
        return diag_set(diag, EXIT_GUEST,
                        "API socket %s: that ebb takes no more requests: it is stopped (then `kill -CONT` lets it go "
                        "on) or hangs (then `kill` ends it)",
                        path);
    if (fd < 0)
        return diag_set(diag, EXIT_USAGE, "API socket %s: %s; is that ebb still running?", path, strerror(-fd));
    return fd;
}
