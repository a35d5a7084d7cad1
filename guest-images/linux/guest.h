/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The init of Linux guests: process 1 of the initramfs. It runs the workloads that the kernel's command line names,
 *
 *   ebb.run=boot;fill,300;wait,go;verify
 *
 * and prints one line on the console for each, and one at the end:
 *
 *   EBB: fill ok pages=76800          or          EBB: verify failed: 1 of 76800 pages is bad: ...
 *   EBB: done
 *
 * After the last the guest powers off. After one that failed init ends, so that the kernel panics and whoever runs the
 * guest learns of it. A line is one write: the kernel's own messages may stand before or after it, never inside.
 */
#ifndef LINUX_GUEST_H
#define LINUX_GUEST_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GUEST_PAGE_BYTES 4096u
#define GUEST_MIB (UINT64_C(1) << 20)
#define GUEST_MAX_ARGS 6
#define GUEST_MAX_AREAS 16
#define GUEST_MAX_INPUTS 8
#define GUEST_LINE_BYTES 256

/* Memory that a workload filled and keeps. */
struct area {
    uint64_t *words;
    uint64_t nr_pages;
    uint64_t generation; /* of all its pages */
};

/* Something that lines from the host come from. */
struct input {
    int fd;
    char name[NAME_MAX + 1];
    char line[GUEST_LINE_BYTES];
    size_t used;
};

struct guest {
    uint64_t seed; /* another one in each guest: a page of another guest is not mistaken for an own one */
    uint64_t generation;
    struct area area[GUEST_MAX_AREAS];
    unsigned nr_areas;
    struct input input[GUEST_MAX_INPUTS];
    unsigned nr_inputs;
    uint64_t read_at; /* links.c: how far it has read what was filled */
};

/* The words of one workload: argv[0] is its name. */
struct words {
    unsigned nr;
    char *arg[GUEST_MAX_ARGS + 1];
};

/* Returns 0 after passed(), -1 after failed(). */
typedef int workload_fn(struct guest *guest, const struct words *words);

/* Prints "EBB: ..." as one line. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* "EBB: NAME ok ..."; returns 0. @format NULL: no more to say. */
int passed(const struct words *words, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* "EBB: NAME failed: ..."; returns -1. */
int failed(const struct words *words, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Argument @i as a number of 0 .. @max; false when it is none. Absent: @standard. */
bool number_arg(const struct words *words, unsigned i, uint64_t max, uint64_t standard, uint64_t *out);
/* The first number after the line's beginning @key in the file @path; 0 when there is none. */
uint64_t number_in(const char *path, const char *key);
/* CLOCK_MONOTONIC. */
uint64_t now_us(void);
/* 0, or -errno. */
int write_text(const char *path, const char *text);

/* The next of a sequence of pseudo-random words. */
uint64_t next_random(uint64_t *state);
/* @nr_words words that depend on @a, @b and @c only and do not compress. */
void fill_random(uint64_t *words, size_t nr_words, uint64_t a, uint64_t b, uint64_t c);
/* Sum of @nr_words words, in which their order counts. */
uint64_t sum_words(const uint64_t *words, size_t nr_words);
/* What word 2 of a page of an area (memory.c) must be. */
uint64_t area_page_sum(const uint64_t *page);
/* Looks at the next @nr_pages pages of what was filled, in a circle; false when one is damaged. */
bool area_pages_are_whole(struct guest *guest, uint64_t nr_pages);

workload_fn work_fill, work_verify, work_rewrite, work_free, work_touch, work_oom, work_rate;      /* memory.c */
workload_fn work_disk_sum, work_disk_flush, work_disk_check;                                       /* disk.c */
workload_fn work_boot, work_meminfo, work_numa, work_memtester, work_sleep, work_spin, work_wait;  /* system.c */
workload_fn work_write, work_rng, work_shell, work_panic, work_reboot, work_poweroff, work_triple; /* system.c */
workload_fn work_balloon, work_numactl;                                                            /* system.c */
workload_fn work_net, work_vsock, work_vsock_listen, work_port;                                    /* links.c */

#endif
