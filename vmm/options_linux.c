/* SPDX-License-Identifier: Apache-2.0 */
/* Options of `ebb run`: a Linux guest and its devices. */
#include "vmm/options_linux.h"

#include "devices/blk/blk.h"
#include "guest-images/ebbguest/abi.h"
#include "vmm/option_table.h"
#include "vmm/options_guest_numa.h"
#include "vmm/size.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DISK_FORM "write --disk FILE[,readonly][,direct][,queues=N][,id=TEXT]"
#define NET_FORM "write --net tap=NAME[,mac=02:00:00:00:00:01]"
#define PORT_FORM "write --console-port name=NAME,path=SOCKET"
#define VSOCK_FORM "write --vsock cid=N,path=SOCKET"
#define BALLOON_FORM "write --balloon [reporting=on|off][,hinting=on|off][,deflate-on-oom=on|off][,stats=SECONDS]"
#define HOTPLUG_FORM "write --hotplug-memory SIZE[,node=N], as in 512M"

/* Copies @text where it fits with its end. False: too long, nothing is copied. */
static bool fits(char *out, size_t out_bytes, const char *text)
{
    if (strlen(text) >= out_bytes)
        return false;
    strcpy(out, text);
    return true;
}

/* A whole number from @min to @max. */
static bool read_number(const char *text, unsigned long min, unsigned long max, unsigned long *out)
{
    char *end;

    if (*text < '0' || *text > '9')
        return false;
    errno = 0;
    *out = strtoul(text, &end, 10);
    return !errno && !*end && *out >= min && *out <= max;
}

/* The value of "NAME=VALUE", or NULL when @part is not that. */
static const char *value_of(const char *part, const char *name)
{
    size_t len = strlen(name);

    return strncmp(part, name, len) == 0 && part[len] == '=' ? part + len + 1 : NULL;
}

static int read_path(const char *option, const char *text, char *out, struct diag *diag)
{
    if (!*text)
        return diag_set(diag, EXIT_USAGE, "--%s needs the name of a file", option);
    if (!fits(out, LINUX_PATH_BYTES, text))
        return diag_set(diag, EXIT_USAGE, "--%s %.80s...: the path is too long; at most %d characters", option, text,
                        LINUX_PATH_BYTES - 1);
    return 0;
}

static int read_file(struct option_parse *p, const char *text)
{
    return read_path(p->option->name, text, option_target(p), p->diag);
}

int options_set_cmdline(const char *text, struct linux_config *linux, struct diag *diag)
{
    bool has_console = strncmp(text, "console=", 8) == 0 || strstr(text, " console=");
    const char *console = has_console ? "" : OPTIONS_CONSOLE " ";

    if (strlen(console) + strlen(text) >= sizeof(linux->cmdline))
        return diag_set(diag, EXIT_USAGE, "--cmdline is too long: %zu characters; the kernel takes %zu",
                        strlen(console) + strlen(text), sizeof(linux->cmdline) - 1);
    strcpy(linux->cmdline, console);
    strcat(linux->cmdline, text);
    return 0;
}

static int read_cmdline(struct option_parse *p, const char *text)
{
    return options_set_cmdline(text, &p->out->linux, p->diag);
}

/* --- values of several parts ----------------------------------------------------------------------------- */

/*
 * Splits @text at commas and gives each part to @read. @form: what is right. 0, or -1 with diag.
 */
static int for_parts(const char *text, const char *form, void *out,
                     int (*read)(const char *part, void *out, struct diag *diag), struct diag *diag)
{
    char copy[LINUX_PATH_BYTES + 128], *rest = copy, *part;

    if (!fits(copy, sizeof(copy), text))
        return diag_set(diag, EXIT_USAGE, "%.60s...: is too long; %s", text, form);
    while ((part = strsep(&rest, ",")))
        if (read(part, out, diag))
            return -1;
    return 0;
}

static int disk_part(const char *part, void *out, struct diag *diag)
{
    struct linux_disk *disk = out;
    const char *value;
    unsigned long number;

    if (!disk->path[0])
        return read_path("disk", part, disk->path, diag);
    if (strcmp(part, "readonly") == 0) {
        disk->read_only = true;
    } else if (strcmp(part, "direct") == 0) {
        disk->direct = true;
    } else if ((value = value_of(part, "queues"))) {
        if (!read_number(value, 1, BLK_MAX_QUEUES, &number))
            return diag_set(diag, EXIT_USAGE, "disk %.200s: queues must be a whole number from 1 to %d", disk->path,
                            BLK_MAX_QUEUES);
        disk->nr_queues = (unsigned)number;
    } else if ((value = value_of(part, "id"))) {
        if (!*value || !fits(disk->id, sizeof(disk->id), value))
            return diag_set(diag, EXIT_USAGE, "disk %.200s: the id must have 1 to 20 characters", disk->path);
    } else {
        return diag_set(diag, EXIT_USAGE, "disk %.200s: %.40s is not known; " DISK_FORM, disk->path, part);
    }
    return 0;
}

static int read_disk(struct option_parse *p, const char *text)
{
    struct linux_config *linux = &p->out->linux;
    struct linux_disk disk = {.nr_queues = 1};

    if (linux->nr_disks == LINUX_MAX_DISKS)
        return diag_set(p->diag, EXIT_USAGE, "--disk: a VM has at most %d disks", LINUX_MAX_DISKS);
    if (for_parts(text, DISK_FORM, &disk, disk_part, p->diag))
        return -1;
    for (unsigned i = 0; i < linux->nr_disks; i++)
        if (strcmp(linux->disk[i].path, disk.path) == 0 && !(linux->disk[i].read_only && disk.read_only))
            return diag_set(p->diag, EXIT_USAGE,
                            "disk %.200s: stands there twice, and is written to; each disk needs a file of its own",
                            disk.path);
    linux->disk[linux->nr_disks++] = disk;
    return 0;
}

/* Six bytes in hexadecimal, of one card: not of a group, not all zero. */
static bool read_mac(const char *text, uint8_t mac[6])
{
    unsigned byte[6];
    int end = 0;

    if (sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x%n", &byte[0], &byte[1], &byte[2], &byte[3], &byte[4], &byte[5], &end) !=
            6 ||
        text[end] || end != 17)
        return false;
    for (unsigned i = 0; i < 6; i++)
        mac[i] = (uint8_t)byte[i];
    return !(mac[0] & 1) && (byte[0] | byte[1] | byte[2] | byte[3] | byte[4] | byte[5]);
}

static int net_part(const char *part, void *out, struct diag *diag)
{
    struct linux_net *net = out;
    const char *value;

    if ((value = value_of(part, "tap"))) {
        if (!*value || !fits(net->tap, sizeof(net->tap), value) || strchr(value, '/'))
            return diag_set(diag, EXIT_USAGE, "--net tap=%.40s: a tap's name has 1 to 15 characters", value);
    } else if ((value = value_of(part, "mac"))) {
        if (!read_mac(value, net->mac))
            return diag_set(diag, EXIT_USAGE,
                            "--net mac=%.40s: is not the address of a card; write it as mac=02:00:00:00:00:01", value);
        net->has_mac = true;
    } else {
        return diag_set(diag, EXIT_USAGE, "--net: %.40s is not known; " NET_FORM, part);
    }
    return 0;
}

static int read_net(struct option_parse *p, const char *text)
{
    struct linux_config *linux = &p->out->linux;
    struct linux_net net = {.has_mac = false};

    if (linux->nr_nets == LINUX_MAX_NETS)
        return diag_set(p->diag, EXIT_USAGE, "--net: a VM has at most %d network cards", LINUX_MAX_NETS);
    if (for_parts(text, NET_FORM, &net, net_part, p->diag))
        return -1;
    if (!net.tap[0])
        return diag_set(p->diag, EXIT_USAGE, "--net needs a tap; " NET_FORM);
    for (unsigned i = 0; i < linux->nr_nets; i++)
        if (strcmp(linux->net[i].tap, net.tap) == 0)
            return diag_set(p->diag, EXIT_USAGE, "--net: tap %s stands there twice; each card needs a tap of its own",
                            net.tap);
    linux->net[linux->nr_nets++] = net;
    return 0;
}

static int read_socket(const char *option, const char *value, char *out, struct diag *diag)
{
    if (!*value || !fits(out, LINUX_SOCKET_BYTES, value))
        return diag_set(diag, EXIT_USAGE, "--%s path=%.80s: the path of a socket has 1 to %d characters", option, value,
                        LINUX_SOCKET_BYTES - 1);
    return 0;
}

static int port_part(const char *part, void *out, struct diag *diag)
{
    struct linux_port *port = out;
    const char *value;

    if ((value = value_of(part, "path")))
        return read_socket("console-port", value, port->path, diag);
    if (!(value = value_of(part, "name")))
        return diag_set(diag, EXIT_USAGE, "--console-port: %.40s is not known; " PORT_FORM, part);
    if (!*value || strchr(value, '/') || !fits(port->name, sizeof(port->name), value))
        return diag_set(diag, EXIT_USAGE, "--console-port name=%.60s: a name has 1 to %zu characters, and no /", value,
                        sizeof(port->name) - 1);
    return 0;
}

static int read_port(struct option_parse *p, const char *text)
{
    struct linux_config *linux = &p->out->linux;
    struct linux_port port = {.name = ""};

    if (linux->nr_ports == LINUX_MAX_PORTS)
        return diag_set(p->diag, EXIT_USAGE, "--console-port: a VM has at most %d ports", LINUX_MAX_PORTS);
    if (for_parts(text, PORT_FORM, &port, port_part, p->diag))
        return -1;
    if (!port.name[0] || !port.path[0])
        return diag_set(p->diag, EXIT_USAGE, "--console-port needs a name and a path; " PORT_FORM);
    for (unsigned i = 0; i < linux->nr_ports; i++)
        if (strcmp(linux->port[i].name, port.name) == 0 || strcmp(linux->port[i].path, port.path) == 0)
            return diag_set(p->diag, EXIT_USAGE, "--console-port: %.60s stands there twice", text);
    linux->port[linux->nr_ports++] = port;
    return 0;
}

static int vsock_part(const char *part, void *out, struct diag *diag)
{
    struct linux_config *linux = out;
    const char *value;
    unsigned long number;

    if ((value = value_of(part, "path")))
        return read_socket("vsock", value, linux->vsock_path, diag);
    if (!(value = value_of(part, "cid")))
        return diag_set(diag, EXIT_USAGE, "--vsock: %.40s is not known; " VSOCK_FORM, part);
    /* 0 to 2 are the hypervisor, local and the host; the last one means any. */
    if (!read_number(value, 3, UINT32_MAX - 1ul, &number))
        return diag_set(diag, EXIT_USAGE, "--vsock cid=%.40s: must be a whole number from 3 to 4294967294", value);
    linux->vsock_cid = number;
    return 0;
}

static int read_vsock(struct option_parse *p, const char *text)
{
    struct linux_config *linux = &p->out->linux;

    if (linux->vsock_cid)
        return diag_set(p->diag, EXIT_USAGE, "--vsock: a VM has one vsock; leave the second out");
    if (for_parts(text, VSOCK_FORM, linux, vsock_part, p->diag))
        return -1;
    if (!linux->vsock_cid || !linux->vsock_path[0])
        return diag_set(p->diag, EXIT_USAGE, "--vsock needs a cid and a path; " VSOCK_FORM);
    return 0;
}

static int balloon_part(const char *part, void *out, struct diag *diag)
{
    struct linux_balloon *balloon = out;
    const struct {
        const char *name;
        bool *off;
    } switches[] = {{"reporting", &balloon->no_reporting},
                    {"hinting", &balloon->no_hinting},
                    {"deflate-on-oom", &balloon->no_deflate_on_oom}};
    const char *value = value_of(part, "stats");
    unsigned long number;

    if (value) {
        if (!read_number(value, 0, 86400, &number))
            return diag_set(diag, EXIT_USAGE, "--balloon stats=%.40s: must be seconds, from 0 to 86400", value);
        balloon->stats_seconds = (unsigned)number;
        return 0;
    }
    for (size_t i = 0; i < ARRAY_LEN(switches); i++) {
        value = value_of(part, switches[i].name);
        if (value && strcmp(value, "on") != 0 && strcmp(value, "off") != 0)
            return diag_set(diag, EXIT_USAGE, "--balloon %.40s: must be on or off", part);
        if (value) {
            *switches[i].off = strcmp(value, "off") == 0;
            return 0;
        }
    }
    return diag_set(diag, EXIT_USAGE, "--balloon: %.40s is not known; " BALLOON_FORM, part);
}

static int read_balloon(struct option_parse *p, const char *text)
{
    if (!text || !*text)
        return 0;
    return for_parts(text, BALLOON_FORM, &p->out->linux.balloon, balloon_part, p->diag);
}

static int hotplug_part(const char *part, void *out, struct diag *diag)
{
    struct linux_config *linux = out;
    const char *value = value_of(part, "node");
    char next[SIZE_TEXT];
    uint64_t bytes;

    if (value) {
        linux->has_hotplug_node = options_read_guest_node(value, &linux->hotplug_node);
        return linux->has_hotplug_node
                   ? 0
                   : diag_set(diag, EXIT_USAGE, "--hotplug-memory node=%.40s: must be the number of a guest node",
                              value);
    }
    if (linux->hotplug_bytes > 0 || size_parse(part, &bytes) || bytes == 0)
        return diag_set(diag, EXIT_USAGE, "--hotplug-memory: %.80s is not a size; " HOTPLUG_FORM, part);
    if (bytes > EBB_MAX_MEMORY_BYTES)
        return diag_set(diag, EXIT_USAGE, "--hotplug-memory %.80s: is more than a guest can have; the most is %s", part,
                        size_text(next, EBB_MAX_MEMORY_BYTES));
    if (bytes % BLOCK_BYTES)
        return diag_set(diag, EXIT_USAGE, "--hotplug-memory %.80s: must be a multiple of 2M; the next one is %s", part,
                        size_option(next, (bytes / BLOCK_BYTES + 1) * BLOCK_BYTES));
    linux->hotplug_bytes = bytes;
    return 0;
}

static int read_hotplug(struct option_parse *p, const char *text)
{
    struct linux_config *linux = &p->out->linux;

    linux->hotplug_bytes = 0;
    linux->has_hotplug_node = false;
    linux->hotplug_node = 0;
    if (for_parts(text, HOTPLUG_FORM, linux, hotplug_part, p->diag))
        return -1;
    return linux->hotplug_bytes > 0 ? 0 : diag_set(p->diag, EXIT_USAGE, "--hotplug-memory needs a size; " HOTPLUG_FORM);
}

static const struct option options[] = {
    {"kernel", HAS_VALUE, 0, read_file, .help = "  --kernel FILE       bzImage or ELF vmlinux\n",
     OPTION_AT(linux.kernel_path)},
    {"initrd", HAS_VALUE, USE_LINUX, read_file, .help = "  --initrd FILE       initial RAM disk\n",
     OPTION_AT(linux.initrd_path)},
    {"cmdline", HAS_VALUE, USE_LINUX, read_cmdline,
     .help = "  --cmdline TEXT      replaces \"reboot=k panic=-1 random.trust_cpu=on 8250.nr_uarts=1 pci=off\";\n"
             "                      console=ttyS0 stays before it unless TEXT names a console. A guest that you\n"
             "                      trust boots faster with mitigations=off, and any with quiet\n"},
    {"disk", HAS_VALUE, USE_DEVICE | USE_DRIVER, read_disk,
     .help = "  --disk FILE[,readonly][,direct][,queues=N][,id=TEXT]\n"
             "                      raw file or block device; direct: past the host's page cache; up to 8\n"},
    {"net", HAS_VALUE, USE_DEVICE | USE_DRIVER, read_net,
     .help = "  --net tap=NAME[,mac=02:00:00:00:00:01]\n"
             "                      a tap device that exists; up to 2\n"},
    {"console", NO_VALUE, USE_LINUX, option_set,
     .help = "  --console           standard input is typed into the guest's console; on a terminal the guest has\n"
             "                      it, and Ctrl-A x ends the run\n",
     OPTION_AT(console)},
    {"console-port", HAS_VALUE, USE_DEVICE | USE_DRIVER, read_port,
     .help = "  --console-port name=NAME,path=SOCKET\n"
             "                      /dev/virtio-ports/NAME in the guest is a Unix socket here; up to 3\n"},
    {"vsock", HAS_VALUE, USE_DEVICE | USE_DRIVER, read_vsock,
     .help = "  --vsock cid=N,path=SOCKET\n"
             "                      sockets between guest and host\n"},
    {"balloon", MAY_HAVE_VALUE, USE_DEVICE, read_balloon,
     .help = "  --balloon [reporting=on|off][,hinting=on|off][,deflate-on-oom=on|off][,stats=SECONDS]\n"
             "                      what the balloon offers; default all of it, statistics only when asked\n"},
    {"no-balloon", NO_VALUE, USE_LINUX, option_set, .help = "  --no-balloon        none at all\n",
     OPTION_AT(linux.balloon.off)},
    {"hotplug-memory", HAS_VALUE, USE_DEVICE | USE_DRIVER, read_hotplug,
     .help = "  --hotplug-memory SIZE[,node=N]\n"
             "                      memory that can be plugged while it runs (virtio-mem); default none. node: of\n"
             "                      which node of --guest-numa it is; default the first\n"},
};

const struct option_group option_group_linux = {
    "Linux guests, instead of a workload", options, ARRAY_LEN(options),
    "  Devices may be given with a workload, too: for its step hostile, which attacks them.\n"
    "  With --vms, %d in the name of a disk, tap or socket becomes the VM's number; disks without it\n"
    "  must be readonly.\n"};

/* --- several VMs ----------------------------------------------------------------------------------------- */

static int check_name(const char *what, const char *name, struct diag *diag)
{
    if (strstr(name, "%d"))
        return 0;
    return diag_set(diag, EXIT_USAGE,
                    "%s %.200s: several VMs cannot share it; put %%d into the name, which becomes the VM's number",
                    what, name);
}

int options_check_linux(const struct linux_config *linux, unsigned nr_vms, struct diag *diag)
{
    for (unsigned i = 0; i < linux->nr_disks && nr_vms > 1; i++) {
        const struct linux_disk *disk = &linux->disk[i];

        if (!disk->read_only && !strstr(disk->path, "%d"))
            return diag_set(diag, EXIT_USAGE,
                            "disk %.200s: several VMs cannot write to one disk; add ,readonly, or put %%d into the "
                            "name, which becomes the VM's number",
                            disk->path);
    }
    for (unsigned i = 0; i < linux->nr_nets && nr_vms > 1; i++)
        if (check_name("tap", linux->net[i].tap, diag))
            return -1;
    for (unsigned i = 0; i < linux->nr_ports && nr_vms > 1; i++)
        if (check_name("socket", linux->port[i].path, diag))
            return -1;
    if (linux->vsock_cid && nr_vms > 1)
        return check_name("socket", linux->vsock_path, diag);
    return 0;
}

/* Replaces the first %d in @name. False: no room for it. */
static bool number_name(char *name, size_t bytes, unsigned number)
{
    char copy[LINUX_PATH_BYTES];
    const char *at = strstr(name, "%d");

    if (!at)
        return true;
    snprintf(copy, sizeof(copy), "%s", name);
    int before = (int)(at - name);
    return snprintf(name, bytes, "%.*s%u%s", before, copy, number, copy + before + 2) < (int)bytes;
}

int options_linux_of(const struct linux_config *linux, unsigned index, struct linux_config *out, struct diag *diag)
{
    bool good = true;

    *out = *linux;
    for (unsigned i = 0; i < out->nr_disks; i++)
        good &= number_name(out->disk[i].path, sizeof(out->disk[i].path), index);
    for (unsigned i = 0; i < out->nr_nets; i++)
        good &= number_name(out->net[i].tap, sizeof(out->net[i].tap), index);
    for (unsigned i = 0; i < out->nr_ports; i++)
        good &= number_name(out->port[i].path, sizeof(out->port[i].path), index);
    good &= number_name(out->vsock_path, sizeof(out->vsock_path), index);
    return good ? 0 : diag_set(diag, EXIT_USAGE, "a name is too long once %%d has become %u", index);
}
