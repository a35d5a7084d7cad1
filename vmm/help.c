/* SPDX-License-Identifier: Apache-2.0 */
/* What `ebb help`, `ebb COMMAND --help` and `ebb version` print, and the list of commands. */
#include "vmm/commands.h"

#include "vmm/options.h"
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
    "\n";

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
    "  ebb heatmap --json               as numbers: percent touched, -1 where nothing ever was,\n"
    "                                   null where nobody has looked yet\n"
    "\n"
    "At most 512 columns of time, each twice as long when there are more. --png FILE is written whole or not at all, - "
    "is\n"
    "standard output. --vm NAME: which VM, default the first one. --api SOCKET: which run; default the youngest.\n"
    "`ebb show idle` says how long how much memory has been idle.\n";

static const char version_help[] = "ebb version - print the version\n";
static const char help_help[] = "ebb help [COMMAND] - explain Ebb, or one command\n";

const struct command commands[] = {
    {"run", cmd_run, "launch VMs and show where their memory went", run_help}, /* and options_print_help */
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
        if (strcmp(command->name, name) == 0) {
            fputs(command->help, stdout);
            if (command->run == cmd_run)
                options_print_help(stdout);
        }
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
