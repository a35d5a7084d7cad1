/* SPDX-License-Identifier: Apache-2.0 */
/* What device.c and request.c share. */
#ifndef DEVICES_NET_STATE_H
#define DEVICES_NET_STATE_H

#include "devices/net/net.h"
#include "devices/net/tap.h"
#include "devices/watch.h"

#include <linux/virtio_net.h>

#define NET_RX 0
#define NET_TX 1
#define NET_ETHER_BYTES 14 /* the shortest that we pass on */
/* Ethernet header with a VLAN tag, and the largest IP packet, GSO or not. */
#define NET_FRAME_BYTES (18 + 65535)
/* Chains that one frame is merged into. Linux posts buffers of 1.5 KiB and more: 44 for the largest. */
#define NET_MAX_MERGED 64

_Static_assert(sizeof(struct virtio_net_hdr_v1) == TAP_HEADER_BYTES, "the tap's header is the device's");

/* All guarded by device.lock. */
struct net {
    struct virtio_device device;
    struct watch wake, tap;
    uint8_t mac[NET_MAC_BYTES];
    bool starved; /* the guest has no buffers: the tap is not read */
    struct net_stat stat;
    /* To the guest: a frame that was read, 0 bytes = none, and chains that were taken for it. */
    uint32_t rx_bytes;
    unsigned nr_chains;
    uint64_t room_bytes; /* of these chains together */
    struct virtq_chain chain[NET_MAX_MERGED];
    uint8_t rx_frame[TAP_HEADER_BYTES + NET_FRAME_BYTES];
    /* From the guest: a frame that the tap did not take yet. */
    bool has_tx;
    uint32_t tx_bytes;
    struct virtq_chain tx;
    uint8_t tx_frame[TAP_HEADER_BYTES + NET_FRAME_BYTES];
};

/* request.c. Lock held, device thread. Each does a bounded piece and wakes the device when something is left. */
void net_transmit(struct net *net);
void net_receive(struct net *net);

/* device.c: the tap is gone. Device thread. */
void net_lose_link(struct net *net);

#endif
