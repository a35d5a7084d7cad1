/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the benchmarks share. Each benchmark is a program; each side of a comparison is an arm: a child process, because
 * the kernel's side lives in a memory cgroup. The parent asks the arms for rounds in turn, A B A B, so that both see
 * the same machine; a row keeps one figure a round and compares round by round.
 *
 *   parent                    child (arm)
 *   harness_round(arm, 3) ->  body(ctx, 3, out)     0: set up, before the first round; -1: tear down
 *   out[]                 <-
 *
 * Everything runs on one CPU unless a benchmark says otherwise.
 */
#ifndef TESTS_BENCH_HARNESS_H
#define TESTS_BENCH_HARNESS_H

#include <errno.h>
#include <getopt.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "guest-images/ebbguest/pattern.h"
#include "guest-images/ebbguest/zipf.h"
#include "mm/base/types.h"
#include "vmm/diag.h"
#include "vmm/memhost.h"

#define HARNESS_MAX_PAIRS 101
#define HARNESS_MAX_OUT 16
#define HARNESS_SETUP 0
#define HARNESS_TEARDOWN (-1)
#define MIB (UINT64_C(1) << 20)

struct harness {
    bool quick;        /* smoke: one pair, small sizes, figures mean nothing */
    unsigned nr_pairs; /* rounds of each arm */
    int cpu;           /* where everything runs */
    FILE *json;        /* one object a line, or NULL */
    const char *ebb;   /* path of the program */
};

/* Returns 0, or -1: the arm cannot run here (said on stderr). @out: figures of the round. */
typedef int (*harness_body)(void *ctx, int command, double out[HARNESS_MAX_OUT]);

struct harness_arm {
    pid_t pid;
    int to, from;
};

struct harness_answer {
    int status;
    double out[HARNESS_MAX_OUT];
};

enum harness_kind {
    ROW_TIME,  /* smaller is better: ratio = other / ebb, "times as fast" */
    ROW_RATE,  /* larger is better: ratio = ebb / other */
    ROW_COUNT, /* figures side by side; ratio = other / ebb; no aim */
};

struct harness_row {
    const char *work, *unit;
    enum harness_kind kind;
    double aim;        /* the ratio to reach; 0: none */
    double aim_ebb;    /* ROW_RATE: the rate to reach; 0: none */
    const char *other; /* what stands beside Ebb; NULL: "kernel" */
    unsigned nr;
    double ebb[HARNESS_MAX_PAIRS], beside[HARNESS_MAX_PAIRS];
};

static inline uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/*
 * User and system time of all threads of this process so far. All of an arm runs on one CPU and neither side waits for
 * anything but its own threads, so on an idle machine this is the time that passes; on a busy one it still is what the
 * work takes.
 */
static inline uint64_t cpu_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline _Noreturn void harness_die(const char *what)
{
    fprintf(stderr, "bench: %s\n", what);
    exit(1);
}

static inline void harness_pin(int cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    if (sched_setaffinity(0, sizeof(set), &set))
        harness_die("cannot bind to the CPU");
}

static inline int harness_last_cpu(void)
{
    cpu_set_t set;
    int last = 0;

    if (sched_getaffinity(0, sizeof(set), &set))
        return 0;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET((size_t)cpu, &set))
            last = cpu;
    return last;
}

static inline struct harness harness_init(int argc, char **argv)
{
    static const struct option options[] = {
        {"quick", no_argument, NULL, 'q'},         {"pairs", required_argument, NULL, 'p'},
        {"cpu", required_argument, NULL, 'c'},     {"json", required_argument, NULL, 'j'},
        {"program", required_argument, NULL, 'e'}, {0},
    };
    struct harness h = {.nr_pairs = 11, .cpu = harness_last_cpu(), .ebb = "build/ebb"};

    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c == 'q')
            h.quick = true;
        else if (c == 'p')
            h.nr_pairs = (unsigned)MIN_OF(strtoul(optarg, NULL, 10), (unsigned long)HARNESS_MAX_PAIRS);
        else if (c == 'c')
            h.cpu = atoi(optarg);
        else if (c == 'j')
            h.json = fopen(optarg, "ae");
        else if (c == 'e')
            h.ebb = optarg;
        else
            exit(2);
    }
    if (h.quick)
        h.nr_pairs = 1;
    setvbuf(stdout, NULL, _IOLBF, 0);
    return h;
}

/* --- arms --- */

static inline void harness_serve(harness_body body, void *ctx, int from, int to)
{
    int command;

    while (read(from, &command, sizeof(command)) == (ssize_t)sizeof(command)) {
        struct harness_answer answer = {0};
        answer.status = body(ctx, command, answer.out);
        if (write(to, &answer, sizeof(answer)) != (ssize_t)sizeof(answer) || command == HARNESS_TEARDOWN)
            break;
    }
}

/* One round; false when the arm failed or is gone. */
static inline bool harness_round(const struct harness_arm *arm, int command, double out[HARNESS_MAX_OUT])
{
    struct harness_answer answer;

    if (write(arm->to, &command, sizeof(command)) != (ssize_t)sizeof(command) ||
        read(arm->from, &answer, sizeof(answer)) != (ssize_t)sizeof(answer))
        return false;
    if (out)
        memcpy(out, answer.out, sizeof(answer.out));
    return answer.status == 0;
}

/* Starts the child and lets it set up. False: it cannot run here. */
static inline bool harness_arm_start(const struct harness *h, struct harness_arm *arm, harness_body body, void *ctx)
{
    int down[2], up[2];

    fflush(NULL);
    if (pipe(down) || pipe(up))
        harness_die("no pipe");
    arm->pid = fork();
    if (arm->pid < 0)
        harness_die("cannot fork");
    if (arm->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(down[1]);
        close(up[0]);
        harness_pin(h->cpu);
        harness_serve(body, ctx, down[0], up[1]);
        _exit(0);
    }
    close(down[0]);
    close(up[1]);
    arm->to = down[1];
    arm->from = up[0];
    return harness_round(arm, HARNESS_SETUP, NULL);
}

static inline void harness_arm_stop(struct harness_arm *arm)
{
    harness_round(arm, HARNESS_TEARDOWN, NULL);
    close(arm->to);
    close(arm->from);
    waitpid(arm->pid, NULL, 0);
}

/* --- figures --- */

static inline int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

/* @pct of the @nr figures, which are sorted by it. */
static inline double percentile(double *figures, size_t nr, double pct)
{
    qsort(figures, nr, sizeof(*figures), compare_doubles);
    return nr ? figures[(size_t)((double)(nr - 1) * pct / 100.0 + 0.5)] : 0;
}

static inline double median(const double *figures, unsigned nr)
{
    double copy[HARNESS_MAX_PAIRS];

    memcpy(copy, figures, nr * sizeof(*figures));
    return percentile(copy, nr, 50);
}

static inline void row_add(struct harness_row *row, double ebb, double beside)
{
    if (row->nr == HARNESS_MAX_PAIRS)
        harness_die("too many rounds");
    row->ebb[row->nr] = ebb;
    row->beside[row->nr++] = beside;
}

static inline void harness_heading(const char *title)
{
    printf("\n%-52s %11s %11s %-7s %6s %15s %8s\n", title, "Ebb", "beside", "", "ratio", "min-max", "aim");
}

/* A line of the table and of the JSON. Ratios are taken pair by pair. */
static inline void row_print(const struct harness *h, const struct harness_row *row)
{
    double ratio[HARNESS_MAX_PAIRS], ebb = median(row->ebb, row->nr), beside = median(row->beside, row->nr);
    char aim[32] = "-";
    bool met = true;

    for (unsigned i = 0; i < row->nr; i++) {
        double up = row->kind == ROW_RATE ? row->ebb[i] : row->beside[i];
        double down = row->kind == ROW_RATE ? row->beside[i] : row->ebb[i];
        ratio[i] = down > 0 ? up / down : 0;
    }
    double lowest = percentile(ratio, row->nr, 0), highest = percentile(ratio, row->nr, 100);
    double middle = percentile(ratio, row->nr, 50);
    if (row->aim > 0) {
        met = middle >= row->aim;
        snprintf(aim, sizeof(aim), "%.2f", row->aim);
    } else if (row->aim_ebb > 0) {
        met = ebb >= row->aim_ebb;
        snprintf(aim, sizeof(aim), "%.0f %s", row->aim_ebb, row->unit);
    }
    printf("%-52s %11.2f %11.2f %-7s %6.2f %7.2f-%-7.2f %8s %s\n", row->work, ebb, beside, row->unit, middle, lowest,
           highest, aim,
           strcmp(aim, "-") == 0 ? ""
           : met                 ? "met"
                                 : "missed");
    if (!h->json)
        return;
    fprintf(h->json,
            "{\"work\": \"%s\", \"beside\": \"%s\", \"unit\": \"%s\", \"pairs\": %u, \"ebb_median\": %.4f, "
            "\"beside_median\": %.4f, \"ratio_median\": %.4f, \"ratio_min\": %.4f, \"ratio_max\": %.4f, "
            "\"aim\": \"%s\", \"met\": %s}\n",
            row->work, row->other ? row->other : "kernel", row->unit, row->nr, ebb, beside, middle, lowest, highest,
            aim,
            strcmp(aim, "-") == 0 ? "null"
            : met                 ? "true"
                                  : "false");
    fflush(h->json);
}

/* --- memory --- */

/*
 * Touches @bytes of free RAM and gives them back. Where this machine is a virtual one that reports free pages to its
 * host, a page that was free for two seconds costs several times the fault that is to be measured; so this comes right
 * before.
 */
static inline void harness_warm(uint64_t bytes)
{
    char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (memory == MAP_FAILED)
        return;
    madvise(memory, bytes, MADV_HUGEPAGE);
    for (uint64_t at = 0; at < bytes; at += PAGE_BYTES)
        *(volatile char *)(memory + at) = 1;
    munmap(memory, bytes);
}

/* The thread that waits for the page would wait for ever. */
static inline void harness_fatal(void *ctx, int err, gpa_t gpa)
{
    (void)ctx;
    fprintf(stderr, "bench: page at %#llx cannot be had: %s\n", (unsigned long long)gpa.v, strerror(-err));
    _exit(1);
}

/* A memory host of either backend with one VM of @bytes; its memory is *hva. -1 with a line on stderr. */
static inline int harness_memory(const struct harness *h, const struct memhost_config *config, uint64_t bytes,
                                 struct memhost **mh, struct memhost_vm **vm, void **hva)
{
    struct diag diag = {0};
    struct mm_region region = {.start = {0}, .bytes = bytes};
    struct memhost_vm_config vm_config = {
        .regions = &region, .nr_regions = 1, .nr_fault_threads = 1, .fault_cpus = &h->cpu, .on_fatal = harness_fatal};

    harness_warm(MAX_OF(config->mm.budget_bytes, bytes));
    if (memhost_create(config, mh, &diag) || memhost_vm_add(*mh, &vm_config, vm, &diag)) {
        fprintf(stderr, "bench: %s\n", diag.text);
        return -1;
    }
    *hva = memhost_vm_hva(*vm, region.start, bytes);
    return *hva ? 0 : -1;
}

/* Fills @pages pages as the embedded guest does. */
static inline void harness_fill(void *memory, uint64_t pages, uint32_t pattern)
{
    for (uint64_t i = 0; i < pages; i++) {
        struct page_id id = {.gfn = (uint32_t)i, .generation = 1, .seed = 1};
        id.pattern = pattern_of(pattern, (uint32_t)i);
        page_write((uint64_t *)((char *)memory + i * PAGE_BYTES), &id);
    }
}

#include "guest-images/ebbguest/pattern.c"
#include "guest-images/ebbguest/zipf.c"

#endif
