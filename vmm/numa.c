/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/numa.h"

#include <errno.h>
#include <numa.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm/sysfile.h"

/* The number behind @name in text of lines "name number"; 0 when there is none. */
static uint64_t value_of(const char *text, const char *name)
{
    size_t len = strlen(name);
    for (const char *line = text; line; line = strchr(line, '\n'), line += line != NULL)
        if (strncmp(line, name, len) == 0 && line[len] == ' ')
            return strtoull(line + len, NULL, 10);
    return 0;
}

/* File pages, by the counters of the node, or of all memory (@id < 0). */
static uint64_t file_bytes(int id)
{
    char text[16384];
    int err = id < 0 ? sysfile_read(text, sizeof(text), "/proc/vmstat")
                     : sysfile_read(text, sizeof(text), "/sys/devices/system/node/node%d/vmstat", id);
    if (err)
        return 0;
    return (value_of(text, "nr_active_file") + value_of(text, "nr_inactive_file")) * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void set_available(struct numa_node *node, int vmstat_id)
{
    uint64_t bytes = node->free_bytes + file_bytes(vmstat_id);
    node->available_bytes = MIN_OF(bytes, node->total_bytes);
}

static void read_cpus(struct numa_node *node, const cpu_set_t *allowed)
{
    struct bitmask *mask = numa_allocate_cpumask();
    if (mask && numa_node_to_cpus(node->id, mask) == 0)
        for (unsigned cpu = 0; cpu < CPU_SETSIZE; cpu++)
            if (numa_bitmask_isbitset(mask, cpu) && CPU_ISSET(cpu, allowed))
                CPU_SET(cpu, &node->cpus);
    if (mask)
        numa_free_cpumask(mask);
    node->nr_cpus = (unsigned)CPU_COUNT(&node->cpus);
}

static void read_memory(struct numa_node *node, struct bitmask *allowed)
{
    long long free_bytes = 0, total = numa_node_size64(node->id, &free_bytes);
    if (total <= 0 || !numa_bitmask_isbitset(allowed, (unsigned)node->id))
        return;
    node->total_bytes = (uint64_t)total;
    node->free_bytes = free_bytes > 0 ? (uint64_t)free_bytes : 0;
    set_available(node, node->id);
}

static void read_distances(struct numa_host *host)
{
    for (unsigned i = 0; i < host->nr; i++)
        for (unsigned j = 0; j < host->nr; j++) {
            int to = host->nodes[j].id, distance = numa_distance(host->nodes[i].id, to);
            /* 0: not known. Twice as far is what the kernel assumes then, REMOTE_DISTANCE. */
            if (distance <= 0 || distance > UINT8_MAX)
                distance = i == j ? NUMA_LOCAL_DISTANCE : 2 * NUMA_LOCAL_DISTANCE;
            host->nodes[i].distance[to] = (uint8_t)distance;
        }
}

static void read_all_memory(struct numa_node *node)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    node->total_bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * page;
    node->free_bytes = (uint64_t)sysconf(_SC_AVPHYS_PAGES) * page;
    set_available(node, -1);
}

/* All memory, all CPUs. */
static void read_one(struct numa_host *host, const cpu_set_t *allowed)
{
    host->nr = 1;
    host->nodes[0] = (struct numa_node){
        .nr_cpus = (unsigned)CPU_COUNT(allowed),
        .cpus = *allowed,
        .distance = {NUMA_LOCAL_DISTANCE},
    };
}

void numa_host_read(struct numa_host *out)
{
    cpu_set_t cpus;
    memset(out, 0, sizeof(*out));
    CPU_ZERO(&cpus);
    (void)!sched_getaffinity(0, sizeof(cpus), &cpus);
    struct bitmask *allowed = numa_available() < 0 ? NULL : numa_get_mems_allowed();
    for (int id = 0; allowed && id <= numa_max_node() && id < NUMA_MAX_NODES; id++) {
        if (!numa_bitmask_isbitset(numa_nodes_ptr, (unsigned)id))
            continue; /* numbers may have gaps */
        struct numa_node *node = &out->nodes[out->nr];
        node->id = id;
        read_cpus(node, &cpus);
        read_memory(node, allowed);
        if (node->total_bytes > 0 || node->nr_cpus > 0)
            out->nr++;
        else
            memset(node, 0, sizeof(*node));
    }
    if (allowed)
        numa_bitmask_free(allowed);
    read_distances(out);
    if (out->nr == 0)
        read_one(out, &cpus);
    /* The one node there is has all memory, also such as a hypervisor added, of which Linux 6.18 tells no node. */
    if (out->nr == 1)
        read_all_memory(&out->nodes[0]);
}

const struct numa_node *numa_host_node(const struct numa_host *host, int id)
{
    for (unsigned i = 0; i < host->nr; i++)
        if (host->nodes[i].id == id)
            return &host->nodes[i];
    return NULL;
}

int numa_host_node_of_cpu(const struct numa_host *host, int cpu)
{
    if (cpu < 0 || cpu >= CPU_SETSIZE)
        return -1;
    for (unsigned i = 0; i < host->nr; i++)
        if (CPU_ISSET((unsigned)cpu, &host->nodes[i].cpus))
            return host->nodes[i].id;
    return -1;
}

uint64_t numa_host_with_memory(const struct numa_host *host)
{
    uint64_t set = 0;
    for (unsigned i = 0; i < host->nr; i++)
        if (host->nodes[i].total_bytes > 0)
            set |= UINT64_C(1) << host->nodes[i].id;
    return set;
}

uint64_t numa_host_with_cpus(const struct numa_host *host)
{
    uint64_t set = 0;
    for (unsigned i = 0; i < host->nr; i++)
        if (host->nodes[i].nr_cpus > 0)
            set |= UINT64_C(1) << host->nodes[i].id;
    return set;
}

/* A decimal number at *text, which moves behind it. */
static int parse_id(const char **text, unsigned *out)
{
    char *end;
    if (**text < '0' || **text > '9')
        return -EINVAL;
    errno = 0;
    unsigned long id = strtoul(*text, &end, 10);
    if (errno || id >= NUMA_MAX_NODES)
        return -ERANGE;
    *text = end;
    *out = (unsigned)id;
    return 0;
}

int numa_set_parse(const char *text, uint64_t *out)
{
    uint64_t set = 0;
    for (;; text++) {
        unsigned first, last;
        int err = parse_id(&text, &first);
        last = first;
        if (!err && *text == '-') {
            text++;
            err = parse_id(&text, &last);
        }
        if (err)
            return err;
        if (last < first)
            return -EINVAL;
        for (unsigned id = first; id <= last; id++)
            set |= UINT64_C(1) << id;
        if (!*text)
            break;
        if (*text != '+' && *text != ':')
            return -EINVAL;
    }
    *out = set;
    return 0;
}

/* @nr members, of which is_set says which are in the set, as ranges; @comma between them. */
static char *ranges_text(char *out, size_t bytes, unsigned nr, bool (*is_set)(const void *set, unsigned i),
                         const void *set, char comma)
{
    size_t used = 0;
    snprintf(out, bytes, "none");
    for (unsigned i = 0, last; i < nr && used < bytes; i = last + 1) {
        last = i;
        if (!is_set(set, i))
            continue;
        while (last + 1 < nr && is_set(set, last + 1))
            last++;
        if (used)
            used += (size_t)snprintf(out + used, bytes - used, "%c", comma);
        if (used < bytes)
            used += (size_t)snprintf(out + used, bytes - used, last > i ? "%u-%u" : "%u", i, last);
    }
    return out;
}

static bool node_is_set(const void *set, unsigned i)
{
    return *(const uint64_t *)set >> i & 1;
}

static bool cpu_is_set(const void *set, unsigned i)
{
    return CPU_ISSET(i, (const cpu_set_t *)set);
}

char *numa_set_text(char *out, uint64_t set)
{
    return ranges_text(out, NUMA_SET_TEXT, NUMA_MAX_NODES, node_is_set, &set, '+');
}

char *numa_cpus_text(char *out, size_t bytes, const cpu_set_t *cpus)
{
    return ranges_text(out, bytes, CPU_SETSIZE, cpu_is_set, cpus, ',');
}
