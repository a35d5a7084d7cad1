/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host's end of what the guest's links.c does, on Unix sockets, which busybox's nc does not have.
 *
 *   peer serve SOCKET               listens; each connection gets back what it sends
 *   peer answer SOCKET              connects, and sends back what comes until the end
 *   peer call SOCKET PORT KIB       connects to PORT in a guest with vsock, sends KIB KiB, compares what comes back
 *
 * Prints a line for what went well, "peer: ready" when it listens.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "guest-images/linux/exchange.h"

static int fail(const char *what, const char *why)
{
    fprintf(stderr, "peer: %s: %s\n", what, why);
    return 1;
}

static bool set_path(struct sockaddr_un *address, const char *path)
{
    address->sun_family = AF_UNIX;
    return (size_t)snprintf(address->sun_path, sizeof(address->sun_path), "%s", path) < sizeof(address->sun_path);
}

static int serve(int fd, const struct sockaddr_un *address)
{
    int connection;

    signal(SIGCHLD, SIG_IGN);
    if (bind(fd, (const struct sockaddr *)address, sizeof(*address)) != 0 || listen(fd, 8) != 0)
        return fail(address->sun_path, strerror(errno));
    puts("peer: ready");
    fflush(stdout);
    while ((connection = accept(fd, NULL, NULL)) >= 0) {
        if (fork() == 0) {
            int64_t nr_bytes = exchange_echo(connection);
            if (nr_bytes < 0)
                _exit(fail("a connection", strerror((int)-nr_bytes)));
            printf("peer: sent back %lld bytes\n", (long long)nr_bytes);
            fflush(stdout);
            _exit(0);
        }
        close(connection);
    }
    return fail("accept", strerror(errno));
}

static int answer(int fd)
{
    int64_t nr_bytes = exchange_echo(fd);

    if (nr_bytes < 0)
        return fail("answer", strerror((int)-nr_bytes));
    printf("peer: sent back %lld bytes\n", (long long)nr_bytes);
    return 0;
}

/* The line that a connection begins with: byte by byte, because the stream follows. */
static bool read_line(int fd, char *line, size_t line_bytes)
{
    size_t used = 0;

    while (used + 1 < line_bytes && read(fd, line + used, 1) == 1)
        if (line[used++] == '\n') {
            line[used - 1] = '\0';
            return true;
        }
    return false;
}

static int call(int fd, const char *port, const char *kib)
{
    struct exchange exchange = {
        .fd = fd, .nr_bytes = strtoull(kib, NULL, 10) << 10, .seed = (uint64_t)time(NULL), .has_end = true};
    char line[64], why[256];

    if (dprintf(fd, "CONNECT %s\n", port) < 0 || !read_line(fd, line, sizeof(line)) || strncmp(line, "OK ", 3) != 0)
        return fail("call", "nobody listens there");
    if (exchange_run(&exchange, why, sizeof(why)) != 0)
        return fail("call", why);
    printf("peer: %llu bytes came back right\n", (unsigned long long)exchange.nr_bytes);
    return 0;
}

int main(int argc, char **argv)
{
    const char *what = argc > 2 ? argv[1] : "";
    struct sockaddr_un address = {0};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    signal(SIGPIPE, SIG_IGN);
    if (fd < 0 || argc < 3 || !set_path(&address, argv[2]))
        return fail("usage", "peer serve|answer SOCKET, peer call SOCKET PORT KIB");
    if (strcmp(what, "serve") == 0)
        return serve(fd, &address);
    if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) != 0)
        return fail(argv[2], strerror(errno));
    if (strcmp(what, "answer") == 0)
        return answer(fd);
    if (strcmp(what, "call") == 0 && argc == 5)
        return call(fd, argv[3], argv[4]);
    return fail("usage", "peer call SOCKET PORT KIB");
}
