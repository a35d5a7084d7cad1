/* SPDX-License-Identifier: Apache-2.0 */
/* The options of `ebb run`: read, checked against each other, defaults filled in. */
#ifndef VMM_OPTIONS_H
#define VMM_OPTIONS_H

#include "vmm/access_source.h"
#include "vmm/guest_numa.h"
#include "vmm/linux_config.h"
#include "vmm/memhost.h"
#include "vmm/options_numa.h"
#include "vmm/workload.h"

#include <stdio.h>

#define OPTIONS_MAX_VMS 256
#define OPTIONS_MAX_CPUS 64
/* 8 TiB: 32-bit frame numbers, and an arena with more slots than the budget has pages. */
#define OPTIONS_MAX_BUDGET_BYTES (UINT64_C(8) << 40)

struct swap_option {
    char path[512];
    uint64_t size_bytes; /* 0: as large as the file or device is */
    int priority;        /* -1: automatic */
    bool discard;
};

enum pin { PIN_AUTO, PIN_NONE };

struct run_options {
    uint64_t memory_bytes; /* of each VM */
    unsigned nr_cpus;      /* of each VM */
    unsigned nr_vms;
    struct guest_numa guest_numa; /* of each VM; its host nodes are not checked yet: guest_numa_check_hosts */
    enum backend backend;
    enum transport transport;
    struct mm_config mm;
    struct swap_option swaps[MAX_SWAP_AREAS];
    unsigned nr_swaps;
    struct workload workload; /* without kernel */
    bool has_kernel;
    struct linux_config linux; /* has_kernel or devices; names may hold %d: see options_linux_of */
    bool console;              /* the guest's console is this process's terminal, or reads its standard input */
    bool devices;              /* those of linux for the embedded guest, too */
    enum pin pin;
    struct numa_options numa;
    enum access_mode access;
    uint32_t sample_mpct;  /* thousandths of a percent of one CPU */
    const char *api_path;  /* NULL: a socket where `ebb show` looks; "none": no API */
    const char *json_path; /* NULL: none; "-": standard output */
    bool quiet;
    bool demonstration;    /* nothing about memory was asked: the values of README's example */
    bool default_workload; /* --workload was not given */
    bool want_help, want_workload_help;
};

/*
 * options_parse_run - @argv: what stands behind "run", strings that outlive @out.
 * Returns 0, or -1 with @diag (EXIT_USAGE): which option, what is wrong with it, what would be right.
 * With --help or --workload help nothing else is checked.
 */
int options_parse_run(int argc, char *const argv[], struct run_options *out, struct diag *diag);

/* options_parse_swap - "FILE[,size=SIZE][,prio=N][,discard]". As above. */
int options_parse_swap(const char *text, struct swap_option *out, struct diag *diag);

/* options_print_help - what `ebb run --help` says of each option. */
void options_print_help(FILE *out);

/* Budget with which nothing ever has to leave: all guest memory, and room for the watermarks and the zeroed stock. */
uint64_t options_whole_budget(uint64_t memory_bytes, unsigned nr_vms);

#endif
