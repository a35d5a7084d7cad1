/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-vsock under a hostile driver, while programs of the host connect, listen, talk and go. */
#include "tests/fuzz/fuzz.h"

#include "devices/unix_socket.h"
#include "devices/vsock/vsock.h"

#include <linux/virtio_vsock.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define NR_PROGRAMS 4
#define CID 3
#define LISTEN_PORT 7

static struct fuzz_rig rig;
static char folder[32], path[48], listen_path[64];

struct host {
    struct vsock *vsock;
    int listener;
    int fd[NR_PROGRAMS]; /* -1: none */
};

static void remove_folder(void)
{
    rmdir(folder);
}

static void make_folder(void)
{
    if (folder[0])
        return;
    strcpy(folder, "/tmp/ebb-fuzz-XXXXXX");
    if (!mkdtemp(folder))
        fuzz_fail("no folder");
    atexit(remove_folder);
    snprintf(path, sizeof(path), "%s/v", folder);
    snprintf(listen_path, sizeof(listen_path), "%s_%d", path, LISTEN_PORT);
}

static void hang_up(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* A packet that makes some sense, into guest memory: the driver may send it or not. */
static void write_packet(struct fuzz_input *in)
{
    struct virtio_vsock_hdr header = {.src_cid = CID, .dst_cid = 2, .type = VIRTIO_VSOCK_TYPE_STREAM};
    uint64_t gpa = fuzz_gpa(in);

    header.op = fuzz_u8(in) % 9;
    header.src_port = fuzz_u8(in) % 4;
    header.dst_port = fuzz_u8(in) & 1 ? LISTEN_PORT : (1u << 30) + fuzz_u8(in) % 4;
    header.len = fuzz_u16(in);
    header.flags = fuzz_u8(in);
    header.buf_alloc = fuzz_u32(in);
    header.fwd_cnt = fuzz_u32(in);
    if (guest_mem_write(&rig.mem, (gpa_t){gpa}, &header, sizeof(header)) != 0)
        return; /* no memory there */
}

static void poke(void *ctx, struct fuzz_input *in)
{
    static char bytes[32768];
    struct host *host = ctx;
    uint8_t what = fuzz_u8(in);
    int *fd = &host->fd[what >> 3 & (NR_PROGRAMS - 1)];
    char line[32];

    switch (what & 7) {
    case 0:
        hang_up(fd);
        *fd = unix_connect(path);
        snprintf(line, sizeof(line), "CONNECT %u\n", fuzz_u8(in) % 4);
        if (*fd >= 0 && unix_send(*fd, line, strlen(line)) < 0)
            hang_up(fd);
        break;
    case 1:
        hang_up(fd);
        *fd = unix_accept(host->listener);
        break;
    case 2:
        hang_up(fd);
        break;
    case 3:
        if (*fd >= 0)
            shutdown(*fd, what & 0x80 ? SHUT_RD : SHUT_WR);
        break;
    case 4:
        if (*fd >= 0 && unix_send(*fd, bytes, fuzz_u16(in) / 2) < 0)
            hang_up(fd);
        break;
    case 5:
        if (*fd >= 0 && unix_recv(*fd, bytes, sizeof(bytes)) < 0 && what & 0x80)
            hang_up(fd);
        break;
    default:
        write_packet(in);
        break;
    }
    const char *breach;
    if (!vsock_check(host->vsock, &breach))
        fuzz_fail(breach);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct host host = {.fd = {-1, -1, -1, -1}};
    const char *breach;
    char why[200];

    fuzz_prepare(&rig);
    make_folder();
    const struct vsock_config config = {.guest_cid = CID, .path = path};
    if (vsock_create(&config, &rig.env, &host.vsock, why, sizeof(why)) != 0)
        fuzz_fail(why);
    host.listener = unix_listen(listen_path, 4, why, sizeof(why));
    if (host.listener < 0)
        fuzz_fail(why);
    fuzz_run(&rig, vsock_device(host.vsock), data, bytes, poke, &host);
    if (!vsock_check(host.vsock, &breach))
        fuzz_fail(breach);
    vsock_destroy(host.vsock);
    unix_unlisten(host.listener, listen_path);
    for (unsigned i = 0; i < NR_PROGRAMS; i++)
        hang_up(&host.fd[i]);
    return 0;
}
