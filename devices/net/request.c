/* SPDX-License-Identifier: Apache-2.0 */
#include "devices/net/state.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/* What one turn does in one direction, so that a busy wire does not keep the loop: chosen, unmeasured. */
#define TURN_FRAMES 128

/* The next chain of queue @index: when there is none, the driver is asked to kick, and what came meanwhile is taken. */
static bool next_chain(struct net *net, unsigned index, struct virtq_chain *chain)
{
    do {
        if (!virtio_is_live(&net->device))
            return false;
        if (virtio_pop(&net->device, index, chain) == 1)
            return true;
    } while (virtq_enable_kicks(&net->device.queue[index]));
    return false;
}

static bool is_gone(int err)
{
    return err == EBADFD || err == EBADF || err == ENODEV || err == ENXIO || err == EPIPE || err == ECONNRESET ||
           err == ENOTCONN;
}

/* The features that segmentation needs, in one direction. */
struct gso_features {
    unsigned tso4, tso6, ecn;
};

/* Which kinds of segmentation were agreed on. */
static bool is_gso_good(const struct net *net, uint8_t type, struct gso_features needs)
{
    if (type & VIRTIO_NET_HDR_GSO_ECN && !virtio_has(&net->device, needs.ecn))
        return false;
    switch (type & ~VIRTIO_NET_HDR_GSO_ECN) {
    case VIRTIO_NET_HDR_GSO_NONE:
        return type == VIRTIO_NET_HDR_GSO_NONE;
    case VIRTIO_NET_HDR_GSO_TCPV4:
        return virtio_has(&net->device, needs.tso4);
    case VIRTIO_NET_HDR_GSO_TCPV6:
        return virtio_has(&net->device, needs.tso6);
    default:
        return false;
    }
}

/* --- from the guest -------------------------------------------------------------------------------- */

/* The header is ours to judge before the kernel sees it; where offsets point is checked there, too. */
static bool is_header_good(const struct net *net, struct virtio_net_hdr_v1 *header, uint32_t frame_bytes)
{
    static const struct gso_features needs = {VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_HOST_ECN};

    header->num_buffers = 0;
    header->flags &= VIRTIO_NET_HDR_F_NEEDS_CSUM; /* the others are the device's to set */
    if (header->flags) {
        if (!virtio_has(&net->device, VIRTIO_NET_F_CSUM))
            return false;
        if ((uint32_t)header->csum_start + header->csum_offset + 2u > frame_bytes)
            return false;
    }
    if (!is_gso_good(net, header->gso_type, needs))
        return false;
    if (header->gso_type == VIRTIO_NET_HDR_GSO_NONE) {
        header->gso_size = header->hdr_len = 0;
        return true;
    }
    return header->flags && header->gso_size > 0 && header->hdr_len <= frame_bytes;
}

/* Chain to frame buffer, checked. False: it makes no sense. */
static bool load_frame(struct net *net)
{
    struct virtio_net_hdr_v1 header;
    const struct virtq_chain *tx = &net->tx;

    if (tx->out_bytes < TAP_HEADER_BYTES + NET_ETHER_BYTES || tx->out_bytes > sizeof(net->tx_frame))
        return false;
    net->tx_bytes = (uint32_t)virtq_read(&net->device.queue[NET_TX], tx, 0, net->tx_frame, tx->out_bytes);
    if (net->tx_bytes < tx->out_bytes)
        return false;
    memcpy(&header, net->tx_frame, sizeof(header));
    if (!is_header_good(net, &header, net->tx_bytes - TAP_HEADER_BYTES))
        return false;
    memcpy(net->tx_frame, &header, sizeof(header));
    return true;
}

/* False: the tap takes none now. */
static bool send_frame(struct net *net)
{
    ssize_t written;

    if (net->tap.fd < 0) {
        net->stat.tx_dropped++;
        return true;
    }
    do
        written = write(net->tap.fd, net->tx_frame, net->tx_bytes);
    while (written < 0 && errno == EINTR);
    int err = written < 0 ? errno : 0;
    if (err == EAGAIN)
        return false;
    if (err) {
        net->stat.tx_dropped++;
        if (is_gone(err))
            net_lose_link(net);
        return true;
    }
    net->stat.tx_packets++;
    net->stat.tx_bytes += net->tx_bytes - TAP_HEADER_BYTES;
    return true;
}

void net_transmit(struct net *net)
{
    struct virtq *q = &net->device.queue[NET_TX];
    unsigned nr = 0;

    while (nr < TURN_FRAMES) {
        if (!net->has_tx) {
            if (!next_chain(net, NET_TX, &net->tx))
                break;
            net->has_tx = load_frame(net);
            if (!net->has_tx)
                net->stat.nr_malformed++;
        }
        if (net->has_tx && !send_frame(net))
            break;
        net->has_tx = false;
        virtq_push(q, &net->tx, 0);
        nr++;
    }
    if (nr > 0)
        virtio_announce(&net->device, NET_TX);
    if (nr == TURN_FRAMES)
        wake_up(&net->wake);
}

/* --- to the guest ---------------------------------------------------------------------------------- */

/* False: nothing to read. */
static bool read_frame(struct net *net)
{
    ssize_t got;

    do
        got = net->tap.fd < 0 ? 0 : read(net->tap.fd, net->rx_frame, sizeof(net->rx_frame));
    while (got < 0 && errno == EINTR);
    if (got > 0) {
        net->rx_bytes = (uint32_t)got;
        return true;
    }
    /* A tap never ends; what else may carry frames does. */
    if (net->tap.fd >= 0 && (got == 0 || is_gone(errno)))
        net_lose_link(net);
    return false;
}

/*
 * What the driver did not agree to must not stand in a header (5.1.6.4.2). The tap says of any driver's frame that its
 * checksum was looked at: that is left out. And it may hold frames for the driver before this one, in pieces that are
 * still to be cut, or without a checksum. False: such a frame.
 */
static bool agree_header(struct net *net)
{
    static const struct gso_features needs = {VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_ECN};
    struct virtio_net_hdr_v1 header;

    memcpy(&header, net->rx_frame, sizeof(header));
    if (!is_gso_good(net, header.gso_type, needs))
        return false;
    if (virtio_has(&net->device, VIRTIO_NET_F_GUEST_CSUM))
        return true;
    if (header.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)
        return false;
    header.flags = 0;
    memcpy(net->rx_frame, &header, sizeof(header));
    return true;
}

static void drop_frame(struct net *net)
{
    net->stat.rx_dropped++;
    net->rx_bytes = 0;
}

enum fit { FITS, NEVER_FITS, STARVED };

/*
 * Takes chains until the frame fits. Without MRG_RXBUF it has one. Chains that were taken stay for the next frame
 * when this one is dropped. A chain too small for the header is given back empty.
 */
static enum fit find_room(struct net *net)
{
    unsigned max = virtio_has(&net->device, VIRTIO_NET_F_MRG_RXBUF) ? NET_MAX_MERGED : 1;
    struct virtq *q = &net->device.queue[NET_RX];

    for (unsigned nr_small = 0; net->room_bytes < net->rx_bytes;) {
        if (net->nr_chains == max)
            return NEVER_FITS;
        struct virtq_chain *chain = &net->chain[net->nr_chains];
        if (nr_small == TURN_FRAMES || !next_chain(net, NET_RX, chain))
            return STARVED;
        if (chain->in_bytes < TAP_HEADER_BYTES) {
            net->stat.nr_malformed++;
            virtq_push(q, chain, 0);
            nr_small++;
            continue;
        }
        net->room_bytes += chain->in_bytes;
        net->nr_chains++;
    }
    return FITS;
}

/* The frame into the first chains. Their number stands in the header, so they are pushed as one. */
static void deliver(struct net *net)
{
    struct virtq *q = &net->device.queue[NET_RX];
    uint32_t written[NET_MAX_MERGED];
    unsigned nr = 0;
    uint16_t nr_buffers;

    for (uint32_t room = 0; room < net->rx_bytes; nr++) {
        written[nr] = (uint32_t)MIN_OF(net->chain[nr].in_bytes, net->rx_bytes - room);
        room += written[nr];
    }
    nr_buffers = (uint16_t)nr;
    memcpy(net->rx_frame + offsetof(struct virtio_net_hdr_v1, num_buffers), &nr_buffers, sizeof(nr_buffers));
    for (uint32_t i = 0, from = 0; i < nr; from += written[i], i++) {
        (void)virtq_write(q, &net->chain[i], 0, net->rx_frame + from, written[i]);
        net->room_bytes -= net->chain[i].in_bytes;
    }
    virtq_push_many(q, net->chain, written, nr);
    net->nr_chains -= nr;
    memmove(net->chain, net->chain + nr, net->nr_chains * sizeof(net->chain[0]));
    net->stat.rx_packets++;
    net->stat.rx_bytes += net->rx_bytes - TAP_HEADER_BYTES;
    net->rx_bytes = 0;
}

void net_receive(struct net *net)
{
    unsigned nr = 0;

    net->starved = false;
    for (; nr < TURN_FRAMES; nr++) {
        if (net->rx_bytes == 0 && !read_frame(net))
            break;
        if (net->rx_bytes < TAP_HEADER_BYTES + NET_ETHER_BYTES || !agree_header(net)) {
            drop_frame(net);
            continue;
        }
        enum fit fit = find_room(net);
        if (fit == STARVED) {
            net->starved = true;
            break;
        }
        if (fit == NEVER_FITS)
            drop_frame(net);
        else
            deliver(net);
    }
    virtio_announce(&net->device, NET_RX);
    if (nr == TURN_FRAMES)
        wake_up(&net->wake);
}
