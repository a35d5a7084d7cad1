/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/options_guest_numa.h"

#include "vmm/options.h"

#include "vmm/size.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NUMA_FORM "write --guest-numa node=N,memory=SIZE[,cpus=0-1:3][,host=N]"
#define DISTANCE_FORM "write --guest-distance A,B,N, as in 0,1,20"
#define MAX_TEXT 512
#define MAX_HOST_NODE 1023 /* MAX_NUMNODES of x86-64 kernels is 1024 at most */

/* One --guest-numa: what has been read of it so far. */
struct node_option {
    const char *text;
    bool has_node, has_memory, has_cpus, has_host;
    unsigned number;
    struct guest_numa_node node;
};

/* A whole decimal number from 0 to @max that ends at one of the characters of @ends, or with the text; *end: where. */
static bool read_number(const char *text, unsigned max, const char *ends, unsigned *out, const char **end)
{
    unsigned long number;
    char *stop;

    if (*text < '0' || *text > '9')
        return false;
    errno = 0;
    number = strtoul(text, &stop, 10);
    if (errno || number > max || (*stop && !strchr(ends, *stop)))
        return false;
    *out = (unsigned)number;
    *end = stop;
    return true;
}

static bool read_whole(const char *text, unsigned max, unsigned *out)
{
    const char *end;

    return read_number(text, max, "", out, &end);
}

bool options_read_guest_node(const char *text, unsigned *out)
{
    return read_whole(text, GUEST_NUMA_MAX_NODES - 1, out);
}

/* "0-1:3" as a set of bits. */
static bool read_cpus(const char *text, uint64_t *out)
{
    uint64_t cpus = 0;

    for (;; text++) {
        unsigned first, last;

        if (!read_number(text, GUEST_NUMA_MAX_CPUS - 1, "-:", &first, &text))
            return false;
        last = first;
        if (*text == '-' && !read_number(text + 1, GUEST_NUMA_MAX_CPUS - 1, ":", &last, &text))
            return false;
        if (last < first)
            return false;
        for (unsigned cpu = first; cpu <= last; cpu++)
            cpus |= UINT64_C(1) << cpu;
        if (!*text)
            break;
    }
    *out = cpus;
    return true;
}

static int read_memory(const char *value, struct node_option *option, struct diag *diag)
{
    char next[SIZE_TEXT];
    uint64_t bytes;

    if (size_parse(value, &bytes) || bytes == 0)
        return diag_set(diag, EXIT_USAGE, "--guest-numa %.80s: %.40s is not a size; write it as memory=512M",
                        option->text, value);
    if (bytes > UINT64_MAX / 2 / GUEST_NUMA_MAX_NODES) /* the nodes' sum must fit */
        return diag_set(diag, EXIT_USAGE, "--guest-numa %.80s: memory=%.40s is more than a guest can have",
                        option->text, value);
    if (bytes % BLOCK_BYTES)
        return diag_set(diag, EXIT_USAGE, "--guest-numa %.80s: memory must be a multiple of 2M; the next one is %s",
                        option->text, size_option(next, (bytes / BLOCK_BYTES + 1) * BLOCK_BYTES));
    option->node.memory_bytes = bytes;
    return 0;
}

/* False where it stood there already. */
static bool first_time(bool *has)
{
    bool first = !*has;

    *has = true;
    return first;
}

static int twice(const struct node_option *option, const char *key, struct diag *diag)
{
    return diag_set(diag, EXIT_USAGE, "--guest-numa %.80s: %s= stands there twice; leave one out", option->text, key);
}

static int read_key(const char *key, const char *value, struct node_option *option, struct diag *diag)
{
    unsigned number;

    if (strcmp(key, "memory") == 0)
        return first_time(&option->has_memory) ? read_memory(value, option, diag) : twice(option, key, diag);
    if (strcmp(key, "node") == 0) {
        if (!options_read_guest_node(value, &option->number))
            return diag_set(diag, EXIT_USAGE, "--guest-numa %.80s: node must be a whole number from 0 to %d",
                            option->text, GUEST_NUMA_MAX_NODES - 1);
        return first_time(&option->has_node) ? 0 : twice(option, key, diag);
    }
    if (strcmp(key, "cpus") == 0) {
        if (!read_cpus(value, &option->node.cpus))
            return diag_set(diag, EXIT_USAGE,
                            "--guest-numa %.80s: %.40s is no list of vCPUs; write 0, 0-1 or 0-1:3, up to %d",
                            option->text, value, GUEST_NUMA_MAX_CPUS - 1);
        return first_time(&option->has_cpus) ? 0 : twice(option, key, diag);
    }
    if (strcmp(key, "host") == 0) {
        if (!read_whole(value, MAX_HOST_NODE, &number))
            return diag_set(diag, EXIT_USAGE, "--guest-numa %.80s: host must be the number of a node of this host",
                            option->text);
        option->node.host = (int)number;
        return first_time(&option->has_host) ? 0 : twice(option, key, diag);
    }
    return diag_set(diag, EXIT_USAGE, "--guest-numa %.80s: %.40s is not known; " NUMA_FORM, option->text, key);
}

static int read_parts(struct node_option *option, struct diag *diag)
{
    char copy[MAX_TEXT], *rest = copy, *part;

    if (snprintf(copy, sizeof(copy), "%s", option->text) >= (int)sizeof(copy))
        return diag_set(diag, EXIT_USAGE, "--guest-numa %.60s...: is too long; " NUMA_FORM, option->text);
    while ((part = strsep(&rest, ","))) {
        char *value = strchr(part, '=');

        if (!value)
            return diag_set(diag, EXIT_USAGE, "--guest-numa %.80s: %.40s is not known; " NUMA_FORM, option->text, part);
        *value++ = '\0';
        if (read_key(part, value, option, diag))
            return -1;
    }
    return 0;
}

int options_parse_guest_numa(const char *text, struct guest_numa *numa, struct diag *diag)
{
    struct node_option option = {.text = text, .node.host = GUEST_NUMA_NO_HOST};

    if (read_parts(&option, diag))
        return -1;
    if (!option.has_node || !option.has_memory)
        return diag_set(diag, EXIT_USAGE, "--guest-numa %.80s: needs %s; " NUMA_FORM, text,
                        option.has_node ? "memory=" : "node=");
    if (numa->node[option.number].memory_bytes > 0)
        return diag_set(diag, EXIT_USAGE, "--guest-numa %.80s: node %u stands there twice; each needs its own number",
                        text, option.number);
    numa->node[option.number] = option.node;
    numa->nr_nodes = MAX_OF(numa->nr_nodes, option.number + 1);
    return 0;
}

int options_parse_guest_distance(const char *text, struct guest_numa *numa, struct diag *diag)
{
    const unsigned last = GUEST_NUMA_MAX_NODES - 1;
    const char *at = text;
    unsigned a, b, distance;

    if (!read_number(at, last, ",", &a, &at) || *at != ',' || !read_number(at + 1, last, ",", &b, &at) || *at != ',')
        return diag_set(diag, EXIT_USAGE,
                        "--guest-distance %.80s: two nodes from 0 to %u and a distance; " DISTANCE_FORM, text, last);
    if (!read_whole(at + 1, GUEST_NUMA_FARTHEST, &distance) || distance < GUEST_NUMA_SELF ||
        (a != b && distance == GUEST_NUMA_SELF))
        return diag_set(diag, EXIT_USAGE, "--guest-distance %.80s: the distance to another node must be from %d to %d",
                        text, GUEST_NUMA_SELF + 1, GUEST_NUMA_FARTHEST);
    if (a == b && distance != GUEST_NUMA_SELF)
        return diag_set(diag, EXIT_USAGE, "--guest-distance %.80s: from a node to itself it is %d; leave it out", text,
                        GUEST_NUMA_SELF);
    if (numa->distance[a][b] != 0 && numa->distance[a][b] != distance)
        return diag_set(diag, EXIT_USAGE,
                        "--guest-distance %.80s: between nodes %u and %u it was %u before; it is the same both ways",
                        text, a, b, numa->distance[a][b]);
    numa->distance[a][b] = numa->distance[b][a] = (uint8_t)distance;
    return 0;
}

/* How much guest memory is to be on which node of the host. */
static int count_hosts(const struct guest_numa *guest, uint64_t memory_bytes, struct numa_options *out,
                       struct diag *diag)
{
    out->guest_other_bytes = memory_bytes;
    for (unsigned i = 0; i < guest->nr_nodes; i++) {
        int host = guest->node[i].host;
        if (host == GUEST_NUMA_NO_HOST)
            continue;
        if (host >= NUMA_MAX_NODES)
            return diag_set(diag, EXIT_USAGE, "--guest-numa: host=%d: Ebb knows nodes of this host below %d", host,
                            NUMA_MAX_NODES);
        out->guest_bytes[host] += guest->node[i].memory_bytes;
        out->guest_other_bytes -= guest->node[i].memory_bytes;
    }
    return 0;
}

int options_check_guest_numa(struct run_options *options, struct diag *diag)
{
    struct linux_config *linux = &options->linux;

    if (guest_numa_finish(&options->guest_numa, options->memory_bytes, options->nr_cpus, diag))
        return -1;
    if (linux->has_hotplug_node && linux->hotplug_node >= options->guest_numa.nr_nodes)
        return diag_set(diag, EXIT_USAGE, "--hotplug-memory node=%u: there is no guest node %u; give --guest-numa",
                        linux->hotplug_node, linux->hotplug_node);
    linux->has_hotplug_node = options->guest_numa.nr_nodes > 0 && linux->hotplug_bytes > 0;
    return count_hosts(&options->guest_numa, options->memory_bytes, &options->numa, diag);
}
