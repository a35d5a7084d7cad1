/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a VMM process costs, counted from outside and in the same way for each of them: CPU time by thread, system calls,
 * KVM's counters, memory. Needs root, debugfs at /sys/kernel/debug and tracefs at /sys/kernel/tracing.
 */
#ifndef TESTS_LAB_BENCH_COUNTERS_H
#define TESTS_LAB_BENCH_COUNTERS_H

#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

enum counter {
    COUNT_WALL_US,
    COUNT_CPU_US,     /* all threads, those that have ended too */
    COUNT_VCPU_US,    /* of it vCPU threads: the guest itself, and its exits */
    COUNT_SYSCALLS,   /* all of them but KVM_RUN's ioctl are host calls of the VMM */
    COUNT_MADVISE,    /* of them: memory given back */
    COUNT_IOCTL,      /* of them: KVM_RUN, userfaultfd */
    COUNT_EXITS,      /* all that KVM saw */
    COUNT_USER_EXITS, /* of them: port and MMIO exits that went to the VMM */
    COUNT_STAGE2,     /* stage-2 faults that mapped something */
    NR_COUNTERS
};
extern const char *const counter_names[NR_COUNTERS];

struct counters {
    pid_t pid;
    int fd[NR_COUNTERS];   /* perf events; -1 for what is read elsewhere */
    const char *vcpu_mark; /* in the name of each vCPU thread and of no other */
};

#define MAX_THREADS 32

struct counts {
    int64_t value[NR_COUNTERS]; /* since the process began; -1: not to be had here */
    unsigned nr_threads;
    struct {
        int tid;
        char name[20];
        int64_t us;        /* of CPU */
    } thread[MAX_THREADS]; /* those that are alive */
};

/* Counts @pid, which has no thread yet but one and waits to be let go: its later threads are counted too. */
void counters_open(struct counters *counters, pid_t pid, const char *vcpu_mark);
void counters_close(struct counters *counters);
void counters_read(const struct counters *counters, struct counts *out);

/* KiB of a process. */
struct memory {
    int64_t all, file, guest, rest, tables;
};
/* @guest_kib: a mapping of this size, or up to 1 MiB more, is guest memory. all = guest + file + rest. */
void memory_read(pid_t pid, int64_t guest_kib, struct memory *out);
/* Each mapping of 256 KiB and more that are resident. */
void memory_print(pid_t pid, FILE *out);
/* The first number after the line's beginning @key in /proc/PID/@file; -1 when there is none. */
int64_t proc_number(pid_t pid, const char *file, const char *key);

#endif
