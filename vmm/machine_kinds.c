/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/machine_kinds.h"

#include "devices/balloon/balloon.h"
#include "devices/blk/blk.h"
#include "devices/console/console.h"
#include "devices/mem/mem.h"
#include "devices/net/net.h"
#include "devices/rng/rng.h"
#include "devices/vsock/vsock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WHY_BYTES 300 /* a line of a device that could not be made */

static void put(json_t *o, const char *key, uint64_t value)
{
    json_object_set_new(o, key, json_integer((json_int_t)value));
}

/* --- balloon --------------------------------------------------------------------------------------- */

static unsigned count_balloon(const struct machine_devices_config *config)
{
    return !config->want->balloon.off;
}

static int create_balloon(struct machine_devices *devices, const struct machine_devices_config *config, unsigned index,
                          struct slot *slot, struct diag *diag)
{
    const struct linux_balloon *want = &config->want->balloon;
    const struct balloon_config balloon = {
        .stats = true,
        .deflate_on_oom = !want->no_deflate_on_oom,
        .hints = !want->no_hinting,
        .poison = true,
        .must_tell_host = true, /* pages of a block leave together: devices/balloon/balloon.h */
        .reporting = !want->no_reporting,
        .stats_period_ms = want->stats_seconds * 1000,
        .memory_bytes = config->memory_bytes,
    };
    int err = balloon_create(&balloon, &devices->env, &devices->balloon);

    (void)index;
    if (err)
        return diag_host(diag, -err, "balloon");
    slot->owner = devices->balloon;
    slot->device = balloon_device(devices->balloon);
    return 0;
}

static void destroy_balloon(void *owner)
{
    balloon_destroy(owner);
}

static void stats_balloon(void *owner, json_t *out)
{
    struct balloon_info info;

    balloon_info(owner, &info);
    put(out, "target_bytes", info.target_bytes);
    put(out, "actual_bytes", info.actual_bytes);
    put(out, "inflated_pages", info.nr_inflate_pages);
    put(out, "deflated_pages", info.nr_deflate_pages);
    put(out, "reported_pages", info.nr_report_pages);
    put(out, "hinted_pages", info.nr_hint_pages);
    put(out, "dropped_pages", info.nr_dropped_pages);
    put(out, "bad_pages", info.nr_bad_pages);
    put(out, "bad_buffers", info.nr_bad_buffers);
}

/* --- random numbers -------------------------------------------------------------------------------- */

static unsigned count_rng(const struct machine_devices_config *config)
{
    (void)config;
    return 1;
}

static int create_rng(struct machine_devices *devices, const struct machine_devices_config *config, unsigned index,
                      struct slot *slot, struct diag *diag)
{
    struct rng *rng = calloc(1, sizeof(*rng));

    (void)config;
    (void)index;
    if (!rng)
        return diag_set(diag, EXIT_HOST, "out of memory");
    rng_init(rng, &devices->env);
    slot->owner = rng;
    slot->device = &rng->virtio;
    return 0;
}

static void destroy_rng(void *owner)
{
    rng_fini(owner);
    free(owner);
}

/* --- disks ----------------------------------------------------------------------------------------- */

/* A file or socket that cannot be used as asked is the option's fault; what is left is the host's. */
static enum exit_code code_of_path(int err)
{
    return err == -ENOMEM || err == -EMFILE || err == -ENFILE ? EXIT_HOST : EXIT_USAGE;
}

static unsigned count_disks(const struct machine_devices_config *config)
{
    return config->want->nr_disks;
}

/* Pins may hold an eighth of the budget: enough for two windows of a disk, far from all that reclaim can take. */
static uint64_t pin_limit(const struct machine_devices_config *config)
{
    struct mm_host_stat host = {0};

    if (!config->mm)
        return 0;
    mm_host_stat(config->mm, &host);
    return MAX_OF(host.budget_bytes / 8, 2 * BLOCK_BYTES);
}

static int create_disk(struct machine_devices *devices, const struct machine_devices_config *config, unsigned index,
                       struct slot *slot, struct diag *diag)
{
    const struct linux_disk *want = &config->want->disk[index];
    struct blk_config blk = {
        .path = want->path,
        .id = want->id,
        .read_only = want->read_only,
        .direct = want->direct,
        .nr_queues = MAX_OF(want->nr_queues, 1u),
        .pin_limit_bytes = pin_limit(config),
        .tell = config->tell,
        .tell_ctx = config->tell_ctx,
        .name = slot->name,
    };
    char why[BLK_WHY_BYTES];
    struct blk *out;

    snprintf(slot->name, sizeof(slot->name), "disk%u", index);
    int err = blk_open(&blk, &devices->env, &out, why, sizeof(why));
    if (err)
        return diag_set(diag, code_of_path(err), "%s", why);
    slot->owner = out;
    slot->device = blk_device(out);
    return 0;
}

static void destroy_disk(void *owner)
{
    blk_close(owner);
}

static void stats_disk(void *owner, json_t *out)
{
    struct blk_stat stat;

    blk_stat(owner, &stat);
    put(out, "capacity_bytes", stat.capacity_bytes);
    put(out, "reads", stat.nr_reads);
    put(out, "writes", stat.nr_writes);
    put(out, "flushes", stat.nr_flushes);
    put(out, "discards", stat.nr_discards);
    put(out, "write_zeroes", stat.nr_write_zeroes);
    put(out, "read_bytes", stat.read_bytes);
    put(out, "written_bytes", stat.written_bytes);
    put(out, "errors", stat.nr_errors);
    put(out, "bad_requests", stat.nr_bad);
    put(out, "waits", stat.nr_waits);
}

/* --- network --------------------------------------------------------------------------------------- */

/* A host that lacks something, or an option that names what is not there, is no tap, or belongs to another? */
static enum exit_code code_of_tap(int err)
{
    return err == -EINVAL || err == -ENODEV || err == -EBUSY ? EXIT_USAGE : EXIT_HOST;
}

static unsigned count_nets(const struct machine_devices_config *config)
{
    return config->want->nr_nets;
}

static int create_net(struct machine_devices *devices, const struct machine_devices_config *config, unsigned index,
                      struct slot *slot, struct diag *diag)
{
    const struct linux_net *want = &config->want->net[index];
    struct net_config net = {.tap = want->tap, .fd = -1};
    char why[WHY_BYTES];
    struct net *out;

    if (want->has_mac)
        memcpy(net.mac, want->mac, sizeof(net.mac));
    int err = net_create(&net, &devices->env, &out, why, sizeof(why));
    if (err)
        return diag_set(diag, code_of_tap(err), "%s", why);
    slot->owner = out;
    slot->device = net_device(out);
    return 0;
}

static void destroy_net(void *owner)
{
    net_destroy(owner);
}

static void stats_net(void *owner, json_t *out)
{
    struct net_stat stat;

    net_stats(owner, &stat);
    put(out, "rx_packets", stat.rx_packets);
    put(out, "rx_bytes", stat.rx_bytes);
    put(out, "rx_dropped", stat.rx_dropped);
    put(out, "tx_packets", stat.tx_packets);
    put(out, "tx_bytes", stat.tx_bytes);
    put(out, "tx_dropped", stat.tx_dropped);
    put(out, "malformed", stat.nr_malformed);
}

/* --- console --------------------------------------------------------------------------------------- */

/* The serial port is the console of most; this one is there for its ports, or when the kernel is told to use it. */
static unsigned count_console(const struct machine_devices_config *config)
{
    return config->want->nr_ports > 0 || strstr(config->want->cmdline, "hvc0");
}

static int create_console(struct machine_devices *devices, const struct machine_devices_config *config, unsigned index,
                          struct slot *slot, struct diag *diag)
{
    struct console_port_config port[LINUX_MAX_PORTS];
    const struct console_config console = {
        .on_line = config->console_line,
        .ctx = config->console_ctx,
        .input_fd = -1,
        .nr_ports = config->want->nr_ports,
        .ports = port,
    };
    char why[WHY_BYTES];
    struct console *out;

    (void)index;
    for (unsigned i = 0; i < config->want->nr_ports; i++)
        port[i] = (struct console_port_config){config->want->port[i].name, config->want->port[i].path};
    int err = console_create(&console, &devices->env, &out, why, sizeof(why));
    if (err)
        return diag_set(diag, code_of_path(err), "%s", why);
    slot->owner = out;
    slot->device = console_device(out);
    return 0;
}

static void destroy_console(void *owner)
{
    console_destroy(owner);
}

static void stats_console(void *owner, json_t *out)
{
    struct console_stat stat;

    console_stats(owner, &stat);
    put(out, "out_bytes", stat.out_bytes);
    put(out, "in_bytes", stat.in_bytes);
    put(out, "discarded_bytes", stat.discarded_bytes);
    put(out, "connections", stat.nr_connections);
    put(out, "malformed", stat.nr_malformed);
}

/* --- sockets between guest and host ---------------------------------------------------------------- */

static unsigned count_vsock(const struct machine_devices_config *config)
{
    return config->want->vsock_cid > 0;
}

static int create_vsock(struct machine_devices *devices, const struct machine_devices_config *config, unsigned index,
                        struct slot *slot, struct diag *diag)
{
    const struct vsock_config vsock = {.guest_cid = config->want->vsock_cid, .path = config->want->vsock_path};
    char why[WHY_BYTES];
    struct vsock *out;
    int err = vsock_create(&vsock, &devices->env, &out, why, sizeof(why));

    (void)index;
    if (err)
        return diag_set(diag, code_of_path(err), "%s", why);
    slot->owner = out;
    slot->device = vsock_device(out);
    return 0;
}

static void destroy_vsock(void *owner)
{
    vsock_destroy(owner);
}

static void stats_vsock(void *owner, json_t *out)
{
    struct vsock_stat stat;

    vsock_stats(owner, &stat);
    put(out, "from_host", stat.nr_from_host);
    put(out, "from_guest", stat.nr_from_guest);
    put(out, "refused", stat.nr_refused);
    put(out, "in_bytes", stat.in_bytes);
    put(out, "out_bytes", stat.out_bytes);
    put(out, "malformed", stat.nr_malformed);
}

/* --- memory ---------------------------------------------------------------------------------------- */

static unsigned count_mem(const struct machine_devices_config *config)
{
    return config->want->hotplug_bytes > 0;
}

static int create_mem(struct machine_devices *devices, const struct machine_devices_config *config, unsigned index,
                      struct slot *slot, struct diag *diag)
{
    const struct mem_config mem = {
        .name = "mem0",
        .start = config->hotplug_gpa,
        .region_bytes = config->want->hotplug_bytes,
        .node = config->want->has_hotplug_node ? (int)config->want->hotplug_node : MEM_NO_NODE,
    };
    int err = mem_create(&mem, &devices->env, &devices->mem);

    (void)index;
    if (err)
        return diag_host(diag, -err, "virtio-mem");
    slot->owner = devices->mem;
    slot->device = mem_device(devices->mem);
    return 0;
}

static void destroy_mem(void *owner)
{
    mem_destroy(owner);
}

static void stats_mem(void *owner, json_t *out)
{
    struct mem_info info;

    mem_info(owner, &info);
    put(out, "region_bytes", info.region_bytes);
    put(out, "requested_bytes", info.requested_bytes);
    put(out, "plugged_bytes", info.plugged_bytes);
    put(out, "plugged_blocks", info.nr_plugged_blocks);
    put(out, "unplugged_blocks", info.nr_unplugged_blocks);
    put(out, "errors", info.nr_errors);
}

/* In the order in which the guest finds them. */
const struct kind machine_kinds[] = {
    {"balloon", count_balloon, create_balloon, destroy_balloon, stats_balloon},
    {"rng", count_rng, create_rng, destroy_rng, NULL},
    {"disk", count_disks, create_disk, destroy_disk, stats_disk},
    {"net", count_nets, create_net, destroy_net, stats_net},
    {"console", count_console, create_console, destroy_console, stats_console},
    {"vsock", count_vsock, create_vsock, destroy_vsock, stats_vsock},
    {"mem", count_mem, create_mem, destroy_mem, stats_mem},
};
const unsigned machine_nr_kinds = ARRAY_LEN(machine_kinds);
