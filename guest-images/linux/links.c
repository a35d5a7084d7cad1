/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Workloads that talk to the host: network, sockets, console ports. While bytes are under way, what `fill` left is read
 * page by page: where memory is scarce, the queues and the packets take part in the moving.
 */
#include "guest-images/linux/exchange.h"
#include "guest-images/linux/guest.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

#define NET_INTERFACE "eth0"
#define PORTS_DIR "/sys/class/virtio-ports"
#define MAX_PORT 65535u
#define MAX_KIB (UINT64_C(1) << 24)
#define PAGES_EACH_TIME 256u

static bool read_pages(void *ctx)
{
    return area_pages_are_whole(ctx, PAGES_EACH_TIME);
}

/* Sends and compares argument @i, a number of KiB; closes @fd. */
static int run_exchange(struct guest *guest, const struct words *words, unsigned i, int fd, bool has_end)
{
    struct exchange exchange = {
        .fd = fd, .seed = guest->seed + now_us(), .has_end = has_end, .meanwhile = read_pages, .ctx = guest};
    uint64_t kib, begin_us = now_us();
    char why[GUEST_LINE_BYTES];
    int result = -1;

    signal(SIGPIPE, SIG_IGN);
    if (!number_arg(words, i, MAX_KIB, 0, &kib)) {
        failed(words, "'%s' is no number of KiB", words->arg[i]);
    } else {
        exchange.nr_bytes = kib << 10;
        result = exchange_run(&exchange, why, sizeof(why));
        if (result != 0)
            failed(words, "%s", why);
    }
    close(fd);
    if (result != 0)
        return -1;
    return passed(words, "kib=%llu us=%llu", (unsigned long long)kib, (unsigned long long)(now_us() - begin_us));
}

/* "ADDRESS/BITS" in @text, which is taken apart. */
static bool parse_address(char *text, struct in_addr *address, struct in_addr *mask)
{
    char *bits = strchr(text, '/'), *end;

    if (!bits)
        return false;
    *bits++ = '\0';
    unsigned long nr_bits = strtoul(bits, &end, 10);
    if (end == bits || *end != '\0' || nr_bits < 1 || nr_bits > 32)
        return false;
    mask->s_addr = htonl(UINT32_MAX << (32 - nr_bits));
    return inet_pton(AF_INET, text, address) == 1;
}

static int set_address(int fd, unsigned long request, struct in_addr address)
{
    struct ifreq ifreq = {.ifr_name = NET_INTERFACE};
    struct sockaddr_in inet = {.sin_family = AF_INET, .sin_addr = address};

    memcpy(&ifreq.ifr_addr, &inet, sizeof(inet));
    return ioctl(fd, request, &ifreq) == 0 ? 0 : -errno;
}

static int set_up(struct in_addr address, struct in_addr mask)
{
    struct ifreq ifreq = {.ifr_name = NET_INTERFACE};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int error = fd < 0 ? -errno : set_address(fd, SIOCSIFADDR, address);

    if (error == 0)
        error = set_address(fd, SIOCSIFNETMASK, mask);
    if (error == 0 && ioctl(fd, SIOCGIFFLAGS, &ifreq) != 0)
        error = -errno;
    ifreq.ifr_flags |= IFF_UP;
    if (error == 0 && ioctl(fd, SIOCSIFFLAGS, &ifreq) != 0)
        error = -errno;
    if (fd >= 0)
        close(fd);
    return error;
}

/* A socket that is connected; -1 after failed(). */
static int connect_to(const struct words *words, const void *address, socklen_t address_bytes)
{
    int fd = socket(((const struct sockaddr *)address)->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd >= 0 && connect(fd, address, address_bytes) == 0)
        return fd;
    failed(words, "cannot %s: %s", fd < 0 ? "make a socket" : "connect", strerror(errno));
    if (fd >= 0)
        close(fd);
    return -1;
}

int work_net(struct guest *guest, const struct words *words)
{
    struct sockaddr_in host = {.sin_family = AF_INET};
    struct in_addr address, mask;
    uint64_t port;

    if (!parse_address(words->arg[1], &address, &mask) || inet_pton(AF_INET, words->arg[2], &host.sin_addr) != 1 ||
        !number_arg(words, 3, MAX_PORT, 0, &port))
        return failed(words, "it takes ADDRESS/BITS,HOST,PORT,KIB");
    host.sin_port = htons((uint16_t)port);
    int error = set_up(address, mask);
    if (error != 0)
        return failed(words, NET_INTERFACE ": %s", strerror(-error));
    int fd = connect_to(words, &host, sizeof(host));
    return fd < 0 ? -1 : run_exchange(guest, words, 4, fd, true);
}

static bool vsock_address(const struct words *words, unsigned cid, struct sockaddr_vm *out)
{
    uint64_t port;

    if (!number_arg(words, 1, UINT32_MAX - 1, 0, &port)) {
        failed(words, "'%s' is no port", words->arg[1]);
        return false;
    }
    *out = (struct sockaddr_vm){.svm_family = AF_VSOCK, .svm_cid = cid, .svm_port = (unsigned)port};
    return true;
}

int work_vsock(struct guest *guest, const struct words *words)
{
    struct sockaddr_vm host;

    if (!vsock_address(words, VMADDR_CID_HOST, &host))
        return -1;
    int fd = connect_to(words, &host, sizeof(host));
    return fd < 0 ? -1 : run_exchange(guest, words, 2, fd, true);
}

/* One connection from the host: it gets back what it sends. */
int work_vsock_listen(struct guest *guest, const struct words *words)
{
    struct sockaddr_vm self;
    int fd = -1, listener;

    (void)guest;
    if (!vsock_address(words, VMADDR_CID_ANY, &self))
        return -1;
    listener = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener >= 0 && bind(listener, (const struct sockaddr *)&self, sizeof(self)) == 0 &&
        listen(listener, 1) == 0) {
        say("listening at %s", words->arg[1]);
        fd = accept(listener, NULL, NULL);
    }
    int64_t nr_bytes = fd < 0 ? -errno : exchange_echo(fd);
    if (fd >= 0)
        close(fd);
    if (listener >= 0)
        close(listener);
    if (nr_bytes < 0)
        return failed(words, "%s", strerror((int)-nr_bytes));
    return passed(words, "bytes=%lld", (long long)nr_bytes);
}

/* The device of the port that the host calls @name, opened; -1 with errno. There is no udev that makes links. */
static int open_port(const char *name)
{
    char path[sizeof(PORTS_DIR) + NAME_MAX + 8], text[NAME_MAX + 1];
    DIR *dir = opendir(PORTS_DIR);
    struct dirent *entry;
    bool found = false;

    while (dir && !found && (entry = readdir(dir))) {
        snprintf(path, sizeof(path), PORTS_DIR "/%s/name", entry->d_name);
        FILE *file = fopen(path, "re");
        found = file && fgets(text, sizeof(text), file) && strcspn(text, "\n") == strlen(name) &&
                strncmp(text, name, strlen(name)) == 0;
        if (file)
            fclose(file);
        snprintf(path, sizeof(path), "/dev/%s", entry->d_name);
    }
    if (dir)
        closedir(dir);
    errno = found ? 0 : ENOENT;
    return found ? open(path, O_RDWR | O_CLOEXEC) : -1;
}

/* Not after `wait`, which keeps all ports open: a port can be opened once. */
int work_port(struct guest *guest, const struct words *words)
{
    const struct timespec nap = {.tv_nsec = 50000000};
    struct pollfd poller = {.events = POLLOUT};

    poller.fd = open_port(words->arg[1]);
    if (poller.fd < 0)
        return failed(words, "no port '%s': %s", words->arg[1], strerror(errno));
    say("port %s is open", words->arg[1]);
    /* Until somebody is at the other end reading finds the end of the file. */
    while (poll(&poller, 1, -1) >= 0 && (poller.revents & POLLHUP))
        nanosleep(&nap, NULL);
    return run_exchange(guest, words, 2, poller.fd, false);
}
