/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Everything that happens ends in serve(), which moves what can be moved and says what the device waits for next. It
 * runs in the device thread; other threads wake it.
 */
#include "devices/net/state.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>

#define QUEUE_SIZE 256
#define FEATURE(name) (UINT64_C(1) << VIRTIO_NET_F_##name)
#define HOST_OFFLOADS (FEATURE(CSUM) | FEATURE(HOST_TSO4) | FEATURE(HOST_TSO6) | FEATURE(HOST_ECN))
#define GUEST_OFFLOADS (FEATURE(GUEST_CSUM) | FEATURE(GUEST_TSO4) | FEATURE(GUEST_TSO6) | FEATURE(GUEST_ECN))

static struct net *net_of(struct virtio_device *device)
{
    return container_of(device, struct net, device);
}

void net_lose_link(struct net *net)
{
    watch_close(&net->tap);
    net->stat.link_up = false;
    virtio_config_changed(&net->device);
}

static void serve(struct net *net)
{
    uint32_t wanted = 0;

    if (virtio_is_live(&net->device)) {
        net_transmit(net);
        net_receive(net);
    }
    if (net->tap.fd < 0)
        return;
    if (virtio_is_live(&net->device))
        wanted = (net->starved ? 0u : EPOLLIN) | (net->has_tx ? EPOLLOUT : 0u);
    if (watch_set(&net->tap, wanted))
        net_lose_link(net); /* no memory for it: better than a wire that is silent */
}

static void on_wake(void *ctx, uint32_t events)
{
    struct net *net = ctx;

    (void)events;
    pthread_mutex_lock(&net->device.lock);
    wake_clear(&net->wake);
    serve(net);
    pthread_mutex_unlock(&net->device.lock);
}

static void on_tap(void *ctx, uint32_t events)
{
    struct net *net = ctx;

    (void)events;
    pthread_mutex_lock(&net->device.lock);
    serve(net);
    pthread_mutex_unlock(&net->device.lock);
}

/* --- the device's ops ------------------------------------------------------------------------------ */

static void activate(struct virtio_device *device)
{
    struct net *net = net_of(device);

    /* Where the tap cannot, the features were not offered; where it refuses a mix that makes no sense (segmentation
     * without checksums), it gives plain frames, which every driver takes. */
    if (net->tap.fd >= 0 && device->features & GUEST_OFFLOADS)
        (void)!tap_set_offload(net->tap.fd, device->driver_features);
    wake_up(&net->wake);
}

static void reset(struct virtio_device *device)
{
    struct net *net = net_of(device);

    /* Plain frames until the next driver has said more. */
    if (net->tap.fd >= 0 && device->features & GUEST_OFFLOADS)
        (void)!tap_set_offload(net->tap.fd, 0);
    net->has_tx = net->starved = false;
    net->rx_bytes = net->nr_chains = 0;
    net->room_bytes = 0;
    wake_up(&net->wake);
}

static void notify(struct virtio_device *device, unsigned index)
{
    (void)index;
    serve(net_of(device));
}

static void config_read(struct virtio_device *device, unsigned offset, void *to, unsigned bytes)
{
    const struct net *net = net_of(device);
    struct virtio_net_config config = {.status = net->stat.link_up ? VIRTIO_NET_S_LINK_UP : 0,
                                       .max_virtqueue_pairs = 1};

    memcpy(config.mac, net->mac, sizeof(config.mac));
    memcpy(to, (const char *)&config + offset, bytes);
}

static const struct virtio_ops ops = {
    .activate = activate, .reset = reset, .notify = notify, .config_read = config_read};

/* --- making ---------------------------------------------------------------------------------------- */

static int choose_mac(struct net *net, const uint8_t mac[NET_MAC_BYTES], char *why, size_t why_bytes)
{
    static const uint8_t none[NET_MAC_BYTES];

    memcpy(net->mac, mac, NET_MAC_BYTES);
    if (memcmp(mac, none, NET_MAC_BYTES) == 0) {
        if (getrandom(net->mac, NET_MAC_BYTES, 0) != NET_MAC_BYTES) {
            snprintf(why, why_bytes, "net: no random address: %s", strerror(errno));
            return -EIO;
        }
        net->mac[0] = (uint8_t)((net->mac[0] & 0xfc) | 0x02); /* locally administered, not a group */
    }
    if (net->mac[0] & 1) {
        snprintf(why, why_bytes, "net: mac %02x:...: the address of a group, not of a machine", mac[0]);
        return -EINVAL;
    }
    return 0;
}

static void describe(struct net *net, const struct device_env *env)
{
    struct virtio_device *device = &net->device;

    device->ops = &ops;
    device->name = "net";
    device->env = env;
    device->id = VIRTIO_ID_NET;
    device->features = FEATURE(MAC) | FEATURE(STATUS) | FEATURE(MRG_RXBUF) | HOST_OFFLOADS;
    device->nr_queues = 2;
    device->queue_size = QUEUE_SIZE;
    device->config_bytes = offsetof(struct virtio_net_config, mtu);
    virtio_init(device);
}

static int open_wire(struct net *net, const struct net_config *config, char *why, size_t why_bytes)
{
    int fd = config->fd;

    if (config->tap)
        fd = tap_open(config->tap, why, why_bytes);
    if (fd < 0)
        return fd;
    /* Plain frames until a driver has said more. */
    if (tap_set_offload(fd, GUEST_OFFLOADS) == 0 && tap_set_offload(fd, 0) == 0)
        net->device.features |= GUEST_OFFLOADS;
    net->tap.fd = fd;
    net->stat.link_up = true;
    return 0;
}

int net_create(const struct net_config *config, const struct device_env *env, struct net **out, char *why,
               size_t why_bytes)
{
    struct net *net = calloc(1, sizeof(*net));

    if (!net) {
        snprintf(why, why_bytes, "net: out of memory");
        return -ENOMEM;
    }
    describe(net, env);
    net->wake = (struct watch){.loop = env->loop, .fd = -1, .ready = on_wake, .ctx = net};
    net->tap = (struct watch){.loop = env->loop, .fd = -1, .ready = on_tap, .ctx = net};
    int err = choose_mac(net, config->mac, why, why_bytes);
    if (!err) {
        err = wake_init(&net->wake);
        if (err)
            snprintf(why, why_bytes, "net: %s", strerror(-err));
    }
    if (!err)
        err = open_wire(net, config, why, why_bytes);
    if (err) {
        net_destroy(net);
        return err;
    }
    *out = net;
    return 0;
}

void net_destroy(struct net *net)
{
    watch_close(&net->tap);
    watch_close(&net->wake);
    virtio_fini(&net->device);
    free(net);
}

struct virtio_device *net_device(struct net *net)
{
    return &net->device;
}

void net_mac(const struct net *net, uint8_t mac[NET_MAC_BYTES])
{
    memcpy(mac, net->mac, NET_MAC_BYTES);
}

void net_stats(struct net *net, struct net_stat *out)
{
    pthread_mutex_lock(&net->device.lock);
    *out = net->stat;
    pthread_mutex_unlock(&net->device.lock);
}
