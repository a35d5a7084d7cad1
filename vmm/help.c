/* SPDX-License-Identifier: Apache-2.0 */
/* What `ebb help`, `ebb COMMAND --help` and `ebb version` print, and the list of commands. */
#include "vmm/commands.h"

#include "vmm/suggest.h"

#include <stdio.h>
#include <string.h>

#ifndef EBB_VERSION
#define EBB_VERSION "0.1"
#endif

static const char run_help[] =
    "ebb run - launch VMs, give them more memory than the host has, show where it went\n"
    "\n"
    "  ebb run                           a demonstration: 256 MiB in a budget of 64 MiB\n"
    "  ebb run --memory 1G --budget 256M --zram 128M --swap /var/tmp/ebb.swap,size=2G\n"
    "  ebb run --vms 4 --memory 128M --budget 128M --zram 64M --workload \"fill:96M;verify\"\n"
    "  ebb run --workload help           the little language of workloads\n"
    "  ebb run --kernel vmlinuz --initrd initrd.img --memory 512M --disk disk.img\n"
    "\n"
    "What the VMs are\n"
    "  --memory SIZE       memory each VM believes it has, a multiple of 2M; default 256M\n"
    "  --cpus N            vCPUs of each VM, 1 to 64; default 1\n"
    "  --guest-numa node=N,memory=SIZE[,cpus=LIST][,host=N]\n"
    "                      a NUMA node that the guest sees, up to 8, numbered from 0; together they have\n"
    "                      all memory and each vCPU once. LIST: vCPUs and ranges joined by colons, as in\n"
    "                      0-1:3; without it the node is memory only. host: the host's node it stands for\n"
    "  --guest-distance A,B,N\n"
    "                      how far nodes A and B are, both ways, 11 to 254; default 20\n"
    "  --vms N             VMs in this process, 1 to 256; they share budget, zram and swap; default 1\n"
    "  --workload SPEC     what the guest does; default: fill 25/32 of its memory, use it unevenly,\n"
    "                      verify every page\n"
    "\n"
    "Linux guests, instead of a workload\n"
    "  --kernel FILE       bzImage or ELF vmlinux\n"
    "  --initrd FILE       initial RAM disk\n"
    "  --cmdline TEXT      replaces \"reboot=k panic=-1 random.trust_cpu=on 8250.nr_uarts=1 pci=off\";\n"
    "                      console=ttyS0 stays before it unless TEXT names a console. A guest that you\n"
    "                      trust boots faster with mitigations=off, and any with quiet\n"
    "  --disk FILE[,readonly][,direct][,queues=N][,id=TEXT]\n"
    "                      raw file or block device; direct: past the host's page cache; up to 8\n"
    "  --net tap=NAME[,mac=02:00:00:00:00:01]\n"
    "                      a tap device that exists; up to 2\n"
    "  --console           standard input is typed into the guest's console; on a terminal the guest has\n"
    "                      it, and Ctrl-A x ends the run\n"
    "  --console-port name=NAME,path=SOCKET\n"
    "                      /dev/virtio-ports/NAME in the guest is a Unix socket here; up to 3\n"
    "  --vsock cid=N,path=SOCKET\n"
    "                      sockets between guest and host\n"
    "  --balloon [reporting=on|off][,hinting=on|off][,deflate-on-oom=on|off][,stats=SECONDS]\n"
    "                      what the balloon offers; default all of it, statistics only when asked\n"
    "  --no-balloon        none at all\n"
    "  --hotplug-memory SIZE[,node=N]\n"
    "                      memory that can be plugged while it runs (virtio-mem); default none. node: of\n"
    "                      which node of --guest-numa it is; default the first\n"
    "  Devices may be given with a workload, too: for its step hostile, which attacks them.\n"
    "  With --vms, %d in the name of a disk, tap or socket becomes the VM's number; disks without it\n"
    "  must be readonly.\n"
    "\n"
    "What they get\n"
    "  --budget SIZE       host memory for all guests, zram included, at least 8M. The limit is hard.\n"
    "                      Default: all guest memory and a little more, so that nothing has to leave\n"
    "  --zram SIZE[,algo=lz4|zstd][,level=N]\n"
    "                      part of the budget that may hold compressed pages; default none\n"
    "  --swap FILE[,size=SIZE][,prio=N][,discard]\n"
    "                      swap file or block device; may be given several times; default none.\n"
    "                      A FILE that does not exist needs a size, and is gone afterwards\n"
    "\n"
    "Where it is, on hosts with several NUMA nodes (numactl -H lists them, and ebb show numa)\n"
    "  --numa policy=bind,nodes=0-1          on these nodes and nowhere else\n"
    "  --numa policy=preferred,node=1        on this one while it has room, then on the nearest\n"
    "  --numa policy=interleave,nodes=0-1[,unit=2M|4K]\n"
    "                                        on these in turn\n"
    "  --numa policy=local[,nodes=0-1]       on the node of the vCPU that touches a page first\n"
    "                      Default: none of these, the kernel places pages. Sets of nodes: 0-1, or 0-1+3;\n"
    "                      they are joined by +, as commas come between the parts of an option\n"
    "  --node-budget NODE=SIZE\n"
    "                      how much of the budget is on a node; once for each, the rest is divided\n"
    "  --tiers fast=0-1,slow=2\n"
    "                      nodes by speed, the fastest first: cold pages go to the next slower ones\n"
    "                      before they go to zram and swap. Names are yours\n"
    "  --demote-rate 200M/s, --promote-rate 100M/s\n"
    "                      the most that moves between tiers in a second; default 256M/s\n"
    "  --numa-balancing on|off\n"
    "                      pages follow the vCPUs that use them; default off\n"
    "\n"
    "How\n"
    "  --backend ebb|kernel      who manages the memory; kernel: a memory cgroup with the budget as\n"
    "                            limit and the kernel's own zram, for comparison; default ebb\n"
    "  --transport auto|move|copy  how pages travel; auto takes move where the kernel has it (6.8)\n"
    "  --no-thp                  no 2 MiB frames at all\n"
    "  --thp-collapse PCT        how much of one CPU may go into making 2 MiB frames again of blocks that are\n"
    "                            hot in single pages, 0 to 100 percent; 0 for never; default 1\n"
    "  --readahead PAGES         the most pages that come along with one from zram or swap, 1 to 64\n"
    "  --fault-around PAGES      pages brought in at a first touch, 1 to 64\n"
    "  --pin auto|none           auto: vCPUs, and the threads that answer their faults, stay on one CPU\n"
    "  --access refault|damon|page_idle|auto\n"
    "                            by what it is learnt which memory is in use: by taking a little of it\n"
    "                            home for a moment (refault, the default), or by the kernel's DAMON or\n"
    "                            idle page bitmap where it has them; auto: the first of those, or refault\n"
    "  --sample PCT              what refault may cost, in percent of one CPU; 0: nothing is taken for that\n"
    "                            alone; default 1\n"
    "\n"
    "What you see\n"
    "  --api SOCKET        where `ebb show` finds this run; none for no API; default: a socket in\n"
    "                      /run/ebb or $XDG_RUNTIME_DIR/ebb, which `ebb show` finds by itself\n"
    "  --json FILE         all results as JSON at the end; - for standard output\n"
    "  --quiet             nothing but errors\n"
    "\n"
    "Sizes take K M G T, powers of 1024. Ctrl-C stops the VMs and prints the closing table.\n"
    "Exit codes: 0 done, powered off, rebooted or stopped; 1 a guest or a check failed; 2 wrong usage; 3 the host "
    "lacks something.\n";

static const char show_help[] = "ebb show - look into a running ebb\n"
                                "\n"
                                "  ebb show free                     one screen about it all\n"
                                "  ebb show vmstat --json            counters, with Linux's names, as JSON\n"
                                "  ebb show page 0x1200000 --vm vm1  where one guest page is\n"
                                "  ebb show help                     all views\n"
                                "\n"
                                "  --api SOCKET   which run; default: the youngest one\n"
                                "  --json         as the API sends it\n"
                                "  --vm NAME      page, heatmap: the VM, default the first one\n"
                                "\n"
                                "The same by hand: curl --unix-socket SOCKET http://ebb/memory/free\n";

static const char swapon_help[] =
    "ebb swapon - give a running ebb another swap area\n"
    "\n"
    "  ebb swapon /var/tmp/more.swap,size=1G\n"
    "  ebb swapon /dev/vdb,prio=10 --api SOCKET\n"
    "\n"
    "FILE[,size=SIZE][,prio=N][,discard] as for `ebb run --swap`. --api SOCKET: which run; default the youngest.\n";

static const char swapoff_help[] =
    "ebb swapoff - bring every page of a swap area back and take the area away\n"
    "\n"
    "  ebb swapoff /var/tmp/more.swap\n"
    "\n"
    "Where the pages do not fit, the area stays in use and the exit code is 1. --api SOCKET: which run.\n";

static const char reclaim_help[] = "ebb reclaim - push memory out of a running ebb's guests into zram and swap\n"
                                   "\n"
                                   "  ebb reclaim 64M\n"
                                   "\n"
                                   "Prints how much came free. --api SOCKET: which run; default the youngest.\n";

static const char balloon_help[] =
    "ebb balloon - ask a guest to give memory up, or let it have it back\n"
    "\n"
    "  ebb balloon 128M          the guest keeps 128 MiB less than it has\n"
    "  ebb balloon 0             all of it is the guest's again\n"
    "  ebb show balloon          how far it is, and how the guest fares\n"
    "\n"
    "SIZE is how much the balloon shall hold. Waits while the guest makes progress. --vm NAME: which VM, default the\n"
    "first one. --api SOCKET: which run; default the youngest.\n";

static const char mem_help[] =
    "ebb mem - plug memory into a running VM, or take it out again\n"
    "\n"
    "  ebb mem 512M              the guest has 512 MiB beyond its --memory\n"
    "  ebb mem 0                 and none any more\n"
    "\n"
    "SIZE is a multiple of 2M, at most what `ebb run --hotplug-memory` gave room for. Waits while the guest makes\n"
    "progress. --vm NAME: which VM, default the first one. --api SOCKET: which run; default the youngest.\n";

static const char hint_help[] =
    "ebb hint - ask a guest which of its pages are free, and take those\n"
    "\n"
    "  ebb hint\n"
    "\n"
    "The guest names its free pages once; those that it or a device wrote to meanwhile are kept. A guest whose driver\n"
    "reports free pages does so by itself and needs no hint. --vm NAME, --api SOCKET as for `ebb balloon`.\n";

static const char dump_help[] = "ebb dump - write the memory of a VM into an ELF core file\n"
                                "\n"
                                "  ebb dump vm.core          for crash(8), gdb(1), or to look at pages\n"
                                "\n"
                                "The VM stands still meanwhile. Pages of zeros, and those that the guest says are "
                                "free, are holes in the file. Pages in\n"
                                "zram or swap stay there. --vm NAME, --api SOCKET as for `ebb balloon`.\n";

static const char sysctl_help[] =
    "ebb sysctl - read or change a setting of a running ebb\n"
    "\n"
    "  ebb sysctl                            all that can be read\n"
    "  ebb sysctl vm.extfrag_threshold       one of them\n"
    "  ebb sysctl vm.compact_memory=1        move pages together now; says how many free blocks of 2 MiB it made\n"
    "\n"
    "  vm.compact_memory            written only: 1\n"
    "  vm.compaction_proactiveness  how early free memory is compacted unasked: 0 never .. 100; default 20\n"
    "  vm.extfrag_threshold         a first touch that wants 2 MiB compacts when `ebb show extfrag` is above\n"
    "                               this, in thousandths: 0 .. 1000; default 500\n"
    "  vm.min_free_kbytes           read only: below this a fault reclaims by itself\n"
    "\n"
    "--json as the API sends it. --api SOCKET: which run; default the youngest.\n";

static const char heatmap_help[] =
    "ebb heatmap - which memory a VM touched when: guest address over time\n"
    "\n"
    "  ebb heatmap --png heat.png       a picture\n"
    "  ebb heatmap --vm vm1             the same in letters\n"
    "  ebb heatmap --json               as numbers: percent touched, -1 where nothing ever was\n"
    "\n"
    "At most 512 columns of time, each twice as long when there are more. --png FILE is written whole or not at all, - "
    "is\n"
    "standard output. --vm NAME: which VM, default the first one. --api SOCKET: which run; default the youngest.\n"
    "`ebb show idle` says how long how much memory has been idle.\n";

static const char version_help[] = "ebb version - print the version\n";
static const char help_help[] = "ebb help [COMMAND] - explain Ebb, or one command\n";

const struct command commands[] = {
    {"run", cmd_run, "launch VMs and show where their memory went", run_help},
    {"show", cmd_show, "look into a running ebb", show_help},
    {"swapon", cmd_swapon, "give a running ebb another swap area", swapon_help},
    {"swapoff", cmd_swapoff, "take a swap area away again", swapoff_help},
    {"reclaim", cmd_reclaim, "push memory out of a running ebb's guests", reclaim_help},
    {"sysctl", cmd_sysctl, "read or change a setting of a running ebb", sysctl_help},
    {"balloon", cmd_balloon, "ask a guest to give memory up, or back", balloon_help},
    {"mem", cmd_mem, "plug memory into a running VM", mem_help},
    {"hint", cmd_hint, "take the pages that a guest says are free", hint_help},
    {"dump", cmd_dump, "write the memory of a VM into a file", dump_help},
    {"heatmap", cmd_heatmap, "draw which memory a VM touched when", heatmap_help},
    {"version", cmd_version, "print the version", version_help},
    {"help", cmd_help, "explain a command", help_help},
    {NULL, NULL, NULL, NULL},
};

int help_print(const char *name)
{
    for (const struct command *command = commands; command->name; command++)
        if (strcmp(command->name, name) == 0)
            fputs(command->help, stdout);
    return 0;
}

static void print_overview(void)
{
    printf("Ebb launches lightweight VMs, gives them more memory than the host has,\n"
           "and shows page by page where it went.\n\n");
    for (const struct command *command = commands; command->name; command++)
        printf("  ebb %-8s  %s\n", command->name, command->what);
    printf("\nStart with `ebb run`; while it runs, `ebb show free` in another window.\n"
           "`ebb help COMMAND` explains a command, with examples.\n");
}

int cmd_help(int argc, char *const argv[], struct diag *diag)
{
    const char *names[sizeof(commands) / sizeof(commands[0])];
    char near[SUGGEST_TEXT];

    if (argc == 0) {
        print_overview();
        return 0;
    }
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        names[i] = commands[i].name;
        if (names[i] && strcmp(names[i], argv[0]) == 0)
            return help_print(argv[0]);
    }
    return diag_set(diag, EXIT_USAGE, "help: there is no command %.40s%s `ebb help` lists them", argv[0],
                    *suggest_text(near, argv[0], names) ? near : ";");
}

int cmd_version(int argc, char *const argv[], struct diag *diag)
{
    if (argc && (strcmp(argv[0], "--help") == 0 || strcmp(argv[0], "-h") == 0))
        return help_print("version");
    if (argc)
        return diag_set(diag, EXIT_USAGE, "version: %.40s is one word too many", argv[0]);
    printf("ebb " EBB_VERSION "\n");
    return 0;
}
