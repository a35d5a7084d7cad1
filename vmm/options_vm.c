/* SPDX-License-Identifier: Apache-2.0 */
/* Options of `ebb run`: what the VMs are. */
#include "vmm/option_table.h"
#include "vmm/options_guest_numa.h"
#include "vmm/size.h"

#include <string.h>

static int read_memory(struct option_parse *p, const char *value)
{
    char below[SIZE_TEXT], linux[SIZE_TEXT];
    uint64_t bytes = 0;

    if (option_parse_size(p, value, &bytes))
        return -1;
    if (bytes == 0)
        return option_bad(p, value, "a VM needs memory; the default is 256M");
    if (bytes < EBB_MIN_MEMORY_BYTES)
        return diag_set(p->diag, EXIT_USAGE, "--memory %.80s: is too small for a guest; the least is %s, %s for Linux",
                        value, size_text(below, EBB_MIN_MEMORY_BYTES), size_text(linux, LINUX_MIN_MEMORY_BYTES));
    if (bytes > EBB_MAX_MEMORY_BYTES)
        return diag_set(p->diag, EXIT_USAGE, "--memory %.80s: is above what the guest's address space holds, %s", value,
                        size_text(below, EBB_MAX_MEMORY_BYTES));
    if (bytes % BLOCK_BYTES)
        return diag_set(p->diag, EXIT_USAGE, "--memory %.80s: must be a multiple of 2M; the next one is %s", value,
                        size_option(below, (bytes / BLOCK_BYTES + 1) * BLOCK_BYTES));
    p->out->memory_bytes = bytes;
    return 0;
}

static int read_guest_numa(struct option_parse *p, const char *value)
{
    return options_parse_guest_numa(value, &p->out->guest_numa, p->diag);
}

static int read_guest_distance(struct option_parse *p, const char *value)
{
    return options_parse_guest_distance(value, &p->out->guest_numa, p->diag);
}

/* Its steps are read when the memory is known. */
static int read_workload(struct option_parse *p, const char *value)
{
    if (strcmp(value, "help") == 0)
        p->out->want_workload_help = true;
    return 0;
}

static const struct option options[] = {
    {"memory", HAS_VALUE, 0, read_memory,
     .help = "  --memory SIZE       memory each VM believes it has, a multiple of 2M; default 256M\n"},
    {"cpus", HAS_VALUE, 0, option_read_count, .help = "  --cpus N            vCPUs of each VM, 1 to 64; default 1\n",
     OPTION_AT(nr_cpus), .most = OPTIONS_MAX_CPUS},
    {"guest-numa", HAS_VALUE, 0, read_guest_numa,
     .help = "  --guest-numa node=N,memory=SIZE[,cpus=LIST][,host=N]\n"
             "                      a NUMA node that the guest sees, up to 8, numbered from 0; together they have\n"
             "                      all memory and each vCPU once. LIST: vCPUs and ranges joined by colons, as in\n"
             "                      0-1:3; without it the node is memory only. host: the host's node it stands for\n"},
    {"guest-distance", HAS_VALUE, 0, read_guest_distance,
     .help = "  --guest-distance A,B,N\n"
             "                      how far nodes A and B are, both ways, 11 to 254; default 20\n"},
    {"vms", HAS_VALUE, 0, option_read_count,
     .help = "  --vms N             VMs in this process, 1 to 256; they share budget, zram and swap; default 1\n",
     OPTION_AT(nr_vms), .most = OPTIONS_MAX_VMS},
    {"workload", HAS_VALUE, 0, read_workload,
     .help = "  --workload SPEC     what the guest does; default: fill 25/32 of its memory, use it unevenly,\n"
             "                      verify every page\n"},
};

const struct option_group option_group_vm = {"What the VMs are", options, ARRAY_LEN(options), NULL};
