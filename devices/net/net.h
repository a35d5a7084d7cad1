/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-net, virtio 1.2 section 5.1, over a tap device of the host: one pair of queues.
 *
 *   guest -> transmit queue -> frame buffer, header checked -> tap     the tap is full: the queue waits
 *   guest <- receive queue  <- frame buffer <- tap                     no buffers: the tap is not read, and drops
 *
 * Checksums and segmentation are left to whom the guest and the tap agree on: the header in front of each frame says it,
 * and the tap understands the same header.
 *
 * What a hostile driver can do: send any frame, with any address, as a machine on that wire can; the host's bridge and
 * filters decide about it. A header that asks for what was not negotiated is refused. Buffers are fixed: one frame in
 * each direction, and the chains that a frame is collected into.
 */
#ifndef DEVICES_NET_NET_H
#define DEVICES_NET_NET_H

#include "devices/virtio/device.h"

#define NET_MAC_BYTES 6

struct net;

struct net_config {
    /* The tap: it exists already. NULL: fd is one that somebody else has opened, with IFF_VNET_HDR and a header of 12
     * bytes; or anything that carries a frame behind such a header per read and write. It becomes the device's. */
    const char *tap;
    int fd;
    uint8_t mac[NET_MAC_BYTES]; /* all 0: a random one, locally administered */
};

struct net_stat {
    uint64_t rx_packets, rx_bytes; /* to the guest; bytes without header */
    uint64_t tx_packets, tx_bytes; /* to the tap */
    uint64_t rx_dropped;           /* too large for the guest's buffers, too short for a frame, not for this driver */
    uint64_t tx_dropped;           /* the tap refused it: the link is down there, say */
    uint64_t nr_malformed;         /* frames and buffers of the driver that made no sense */
    bool link_up;
};

/*
 * net_create - @config is copied. @env->loop need not run yet. 0, or -errno with one line in @why, which says how to mend
 * it, and nothing left (but @config->fd stays open): -EINVAL name or address, -ENODEV no such tap, -EBUSY used by
 * somebody, -ENXIO this kernel has no taps at all, -EPERM, -ENOMEM, others of /dev/net/tun.
 */
must_check int net_create(const struct net_config *config, const struct device_env *env, struct net **out, char *why,
                          size_t why_bytes);
/* The loop does not run any more, no transport is attached. */
void net_destroy(struct net *net);
struct virtio_device *net_device(struct net *net);
/* The address that the guest has. */
void net_mac(const struct net *net, uint8_t mac[NET_MAC_BYTES]);
/* Any thread. */
void net_stats(struct net *net, struct net_stat *out);

#endif
