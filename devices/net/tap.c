/* SPDX-License-Identifier: Apache-2.0 */
#include "devices/net/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define TUN_PATH "/dev/net/tun"

/* '%' would be a pattern to the kernel: it would make a tap of its own. */
static bool is_name_good(const char *name)
{
    size_t bytes = strlen(name);

    return bytes > 0 && bytes < IFNAMSIZ && !strpbrk(name, "/%: \t\n") && strcmp(name, ".") && strcmp(name, "..");
}

static int open_tun(char *why, size_t why_bytes)
{
    int fd = open(TUN_PATH, O_RDWR | O_NONBLOCK | O_CLOEXEC);

    if (fd >= 0)
        return fd;
    int err = -errno;
    if (err == -ENOENT || err == -ENODEV || err == -ENXIO)
        snprintf(why, why_bytes, "%s: this kernel has no tap devices loaded: modprobe tun", TUN_PATH);
    else if (err == -EACCES || err == -EPERM)
        snprintf(why, why_bytes, "%s: no permission: as root, chmod 0666 %s", TUN_PATH, TUN_PATH);
    else
        snprintf(why, why_bytes, "%s: %s", TUN_PATH, strerror(-err));
    return err == -ENOENT || err == -ENODEV ? -ENXIO : err; /* -ENODEV would be a tap that is not there */
}

static void explain(const char *name, int err, char *why, size_t why_bytes)
{
    switch (err) {
    case -EBUSY:
        snprintf(why, why_bytes, "tap %s: another program uses it", name);
        break;
    case -EPERM:
        snprintf(why, why_bytes,
                 "tap %s: not yours: ip tuntap del dev %s mode tap; ip tuntap add dev %s mode tap user %u", name, name,
                 name, (unsigned)geteuid());
        break;
    case -EINVAL:
        snprintf(why, why_bytes, "tap %s: not a tap device with one queue: ip tuntap add dev NAME mode tap", name);
        break;
    default:
        snprintf(why, why_bytes, "tap %s: %s", name, strerror(-err));
        break;
    }
}

static int attach(int fd, const char *name)
{
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    int header_bytes = TAP_HEADER_BYTES, little = 1;

    strncpy(request.ifr_name, name, IFNAMSIZ - 1);
    if (ioctl(fd, TUNSETIFF, &request) || ioctl(fd, TUNSETVNETHDRSZ, &header_bytes) || ioctl(fd, TUNSETVNETLE, &little))
        return -errno;
    return 0;
}

int tap_open(const char *name, char *why, size_t why_bytes)
{
    if (!is_name_good(name)) {
        snprintf(why, why_bytes, "tap \"%.40s\": a name has 1 to %d characters, no space / %% :", name, IFNAMSIZ - 1);
        return -EINVAL;
    }
    int fd = open_tun(why, why_bytes);
    if (fd < 0)
        return fd;
    /* TUNSETIFF would make one, if it may, that nothing is connected to and that is gone with us. */
    if (if_nametoindex(name) == 0) {
        close(fd);
        snprintf(why, why_bytes, "no tap %s: ip tuntap add dev %s mode tap user %u; ip link set %s up", name, name,
                 (unsigned)geteuid(), name);
        return -ENODEV;
    }
    int err = attach(fd, name);
    if (err) {
        close(fd);
        explain(name, err, why, why_bytes);
        return err;
    }
    return fd;
}

int tap_set_offload(int fd, uint64_t guest_features)
{
    static const struct {
        unsigned feature, flag;
    } map[] = {
        {VIRTIO_NET_F_GUEST_CSUM, TUN_F_CSUM},
        {VIRTIO_NET_F_GUEST_TSO4, TUN_F_TSO4},
        {VIRTIO_NET_F_GUEST_TSO6, TUN_F_TSO6},
        {VIRTIO_NET_F_GUEST_ECN, TUN_F_TSO_ECN},
    };
    unsigned flags = 0;

    for (unsigned i = 0; i < ARRAY_LEN(map); i++)
        if (guest_features >> map[i].feature & 1)
            flags |= map[i].flag;
    if (ioctl(fd, TUNSETOFFLOAD, (unsigned long)flags) == 0)
        return 0;
    int err = -errno;
    (void)ioctl(fd, TUNSETOFFLOAD, 0ul); /* as it was after opening: cannot fail where the first could */
    return err;
}
