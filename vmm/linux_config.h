/* SPDX-License-Identifier: Apache-2.0 */
/* What a Linux guest is made of: the kernel and its devices, as options say it and the machine builds it. */
#ifndef VMM_LINUX_CONFIG_H
#define VMM_LINUX_CONFIG_H

#include "vmm/boot/boot.h"

#define LINUX_MAX_DISKS 8
#define LINUX_MAX_NETS 2
#define LINUX_MAX_PORTS 3 /* beside the console itself */
#define LINUX_PATH_BYTES 512
#define LINUX_SOCKET_BYTES 108 /* of struct sockaddr_un */
#define LINUX_MIN_MEMORY_BYTES (UINT64_C(64) << 20)

struct linux_disk {
    char path[LINUX_PATH_BYTES];
    bool read_only, direct;
    unsigned nr_queues; /* 0: one */
    char id[21];        /* what the guest reads as serial number; "" for none */
};

struct linux_net {
    char tap[16];
    bool has_mac;
    uint8_t mac[6];
};

/* A port of the virtio console: /dev/virtio-ports/NAME in the guest, a listening Unix socket here. */
struct linux_port {
    char name[64]; /* as long as the console takes it: CONSOLE_NAME_BYTES */
    char path[LINUX_SOCKET_BYTES];
};

struct linux_balloon {
    bool off;
    bool no_reporting, no_hinting, no_deflate_on_oom;
    unsigned stats_seconds; /* ask for statistics that often; 0: when somebody wants them */
};

struct linux_config {
    char kernel_path[LINUX_PATH_BYTES];
    char initrd_path[LINUX_PATH_BYTES]; /* "": none */
    char cmdline[BOOT_MAX_CMDLINE_BYTES];
    unsigned nr_disks, nr_nets, nr_ports;
    struct linux_disk disk[LINUX_MAX_DISKS];
    struct linux_net net[LINUX_MAX_NETS];
    struct linux_port port[LINUX_MAX_PORTS];
    uint64_t vsock_cid; /* 0: no vsock */
    char vsock_path[LINUX_SOCKET_BYTES];
    struct linux_balloon balloon;
    uint64_t hotplug_bytes; /* of virtio-mem's region; 0: none */
    bool has_hotplug_node;  /* the guest is told of which node it is */
    unsigned hotplug_node;
};

#endif
