/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-net under a hostile driver, over a pair of sockets, while frames of all lengths come from the wire. */
#include "tests/fuzz/fuzz.h"

#include "devices/net/net.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct fuzz_rig rig;

/* The other end of the wire: 0 or more frames to the guest, and all that it sent are taken. */
static void poke(void *ctx, struct fuzz_input *in)
{
    static uint8_t frame[70000];
    const int *wire = ctx;
    uint8_t what = fuzz_u8(in);
    size_t bytes = fuzz_u16(in);

    for (unsigned i = 0; i < (what & 3u); i++)
        (void)!send(*wire, frame, bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (what & 4)
        while (recv(*wire, frame, sizeof(frame), MSG_DONTWAIT) > 0)
            ;
    if (what == 0xff)
        shutdown(*wire, SHUT_RDWR);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct net_config config = {.mac = {2, 0, 0, 0, 0, 1}};
    struct net_stat stat;
    struct net *net;
    char why[200];
    int ends[2];

    fuzz_prepare(&rig);
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) != 0)
        fuzz_fail("no sockets");
    config.fd = ends[0];
    if (net_create(&config, &rig.env, &net, why, sizeof(why)) != 0)
        fuzz_fail(why);
    fuzz_run(&rig, net_device(net), data, bytes, poke, &ends[1]);
    net_stats(net, &stat);
    if (stat.tx_bytes < 14 * stat.tx_packets || stat.rx_bytes < 14 * stat.rx_packets)
        fuzz_fail("a frame passed that is none");
    net_destroy(net);
    close(ends[1]);
    return 0;
}
