/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lab/bench/counters.h"

#include <dirent.h>
#include <linux/perf_event.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define TRACEPOINTS "/sys/kernel/tracing/events/"
#define KVM_STATS "/sys/kernel/debug/kvm"

const char *const counter_names[NR_COUNTERS] = {
    [COUNT_WALL_US] = "wall_us", [COUNT_CPU_US] = "cpu_us",         [COUNT_VCPU_US] = "vcpu_us",
    [COUNT_SYSCALLS] = "calls",  [COUNT_MADVISE] = "madvise",       [COUNT_IOCTL] = "ioctl",
    [COUNT_EXITS] = "exits",     [COUNT_USER_EXITS] = "user_exits", [COUNT_STAGE2] = "stage2_faults",
};

static int64_t number_of_file(const char *path)
{
    long long number = -1;
    FILE *file = fopen(path, "re");

    if (file && fscanf(file, "%lld", &number) != 1)
        number = -1;
    if (file)
        fclose(file);
    return number;
}

static int event_open(pid_t pid, uint32_t type, uint64_t config)
{
    struct perf_event_attr attr = {.type = type, .size = sizeof(attr), .config = config, .inherit = 1};

    return (int)syscall(SYS_perf_event_open, &attr, pid, -1, -1, PERF_FLAG_FD_CLOEXEC);
}

static int tracepoint_open(pid_t pid, const char *name)
{
    char path[160];

    snprintf(path, sizeof(path), TRACEPOINTS "%s/id", name);
    int64_t id = number_of_file(path);
    return id < 0 ? -1 : event_open(pid, PERF_TYPE_TRACEPOINT, (uint64_t)id);
}

void counters_open(struct counters *counters, pid_t pid, const char *vcpu_mark)
{
    *counters = (struct counters){.pid = pid, .vcpu_mark = vcpu_mark};
    for (unsigned i = 0; i < NR_COUNTERS; i++)
        counters->fd[i] = -1;
    counters->fd[COUNT_CPU_US] = event_open(pid, PERF_TYPE_SOFTWARE, PERF_COUNT_SW_TASK_CLOCK);
    counters->fd[COUNT_SYSCALLS] = tracepoint_open(pid, "raw_syscalls/sys_enter");
    counters->fd[COUNT_MADVISE] = tracepoint_open(pid, "syscalls/sys_enter_madvise");
    counters->fd[COUNT_IOCTL] = tracepoint_open(pid, "syscalls/sys_enter_ioctl");
}

void counters_close(struct counters *counters)
{
    for (unsigned i = 0; i < NR_COUNTERS; i++)
        if (counters->fd[i] >= 0)
            close(counters->fd[i]);
}

static int64_t event_read(int fd)
{
    uint64_t value;

    return fd >= 0 && read(fd, &value, sizeof(value)) == sizeof(value) ? (int64_t)value : -1;
}

static void read_threads(pid_t pid, struct counts *out)
{
    char path[320];

    snprintf(path, sizeof(path), "/proc/%d/task", pid);
    DIR *dir = opendir(path);
    out->nr_threads = 0;
    for (struct dirent *entry; dir && out->nr_threads < MAX_THREADS && (entry = readdir(dir));) {
        if (entry->d_name[0] == '.')
            continue;
        unsigned i = out->nr_threads++;
        out->thread[i].tid = atoi(entry->d_name);
        snprintf(path, sizeof(path), "/proc/%d/task/%s/comm", pid, entry->d_name);
        FILE *file = fopen(path, "re");
        if (!file || !fgets(out->thread[i].name, sizeof(out->thread[i].name), file))
            out->thread[i].name[0] = '\0';
        out->thread[i].name[strcspn(out->thread[i].name, "\n")] = '\0';
        if (file)
            fclose(file);
        snprintf(path, sizeof(path), "/proc/%d/task/%s/schedstat", pid, entry->d_name);
        int64_t ns = number_of_file(path);
        out->thread[i].us = ns > 0 ? ns / 1000 : 0;
    }
    if (dir)
        closedir(dir);
}

/* Sum of a counter over all VMs of the process; -1: it has none. */
static int64_t kvm_count(pid_t pid, const char *name)
{
    char path[320], mark[16];
    int64_t sum = -1;
    DIR *dir = opendir(KVM_STATS);

    snprintf(mark, sizeof(mark), "%d-", pid);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        if (strncmp(entry->d_name, mark, strlen(mark)) != 0)
            continue;
        snprintf(path, sizeof(path), KVM_STATS "/%s/%s", entry->d_name, name);
        int64_t number = number_of_file(path);
        if (number >= 0)
            sum = (sum < 0 ? 0 : sum) + number;
    }
    if (dir)
        closedir(dir);
    return sum;
}

void counters_read(const struct counters *counters, struct counts *out)
{
    struct timespec now;
    pid_t pid = counters->pid;

    for (unsigned i = 0; i < NR_COUNTERS; i++)
        out->value[i] = event_read(counters->fd[i]);
    if (out->value[COUNT_CPU_US] >= 0)
        out->value[COUNT_CPU_US] /= 1000;
    read_threads(pid, out);
    out->value[COUNT_VCPU_US] = 0;
    for (unsigned i = 0; i < out->nr_threads; i++)
        out->value[COUNT_VCPU_US] += strstr(out->thread[i].name, counters->vcpu_mark) ? out->thread[i].us : 0;
    out->value[COUNT_EXITS] = kvm_count(pid, "exits");
    out->value[COUNT_USER_EXITS] = kvm_count(pid, "io_exits") + kvm_count(pid, "mmio_exits");
    out->value[COUNT_STAGE2] = kvm_count(pid, "pf_fixed");
    clock_gettime(CLOCK_MONOTONIC, &now);
    out->value[COUNT_WALL_US] = (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int64_t proc_number(pid_t pid, const char *file, const char *key)
{
    char path[64], line[256];
    int64_t number = -1;

    snprintf(path, sizeof(path), "/proc/%d/%s", pid, file);
    FILE *in = fopen(path, "re");
    while (in && number < 0 && fgets(line, sizeof(line), in))
        if (strncmp(line, key, strlen(key)) == 0)
            number = strtoll(line + strlen(key), NULL, 10);
    if (in)
        fclose(in);
    return number;
}

void memory_read(pid_t pid, int64_t guest_kib, struct memory *out)
{
    char path[64], line[512];
    uint64_t start, end;
    bool is_guest = false;

    *out = (struct memory){.all = proc_number(pid, "status", "VmRSS:"),
                           .file = proc_number(pid, "status", "RssFile:"),
                           .tables = proc_number(pid, "status", "VmPTE:")};
    snprintf(path, sizeof(path), "/proc/%d/smaps", pid);
    FILE *in = fopen(path, "re");
    while (in && fgets(line, sizeof(line), in)) {
        if (sscanf(line, "%" SCNx64 "-%" SCNx64 " ", &start, &end) == 2) {
            int64_t kib = (int64_t)((end - start) >> 10);
            is_guest = kib >= guest_kib && kib <= guest_kib + 1024;
        } else if (is_guest && strncmp(line, "Rss:", 4) == 0) {
            out->guest += strtoll(line + 4, NULL, 10);
        }
    }
    if (in)
        fclose(in);
    out->rest = out->all - out->file - out->guest;
}

void memory_print(pid_t pid, FILE *out)
{
    char path[64], line[512], head[600] = "";

    snprintf(path, sizeof(path), "/proc/%d/smaps", pid);
    FILE *in = fopen(path, "re");
    while (in && fgets(line, sizeof(line), in)) {
        uint64_t start, end;
        if (sscanf(line, "%" SCNx64 "-%" SCNx64 " ", &start, &end) == 2)
            snprintf(head, sizeof(head), "%8" PRIu64 " KiB %s", (end - start) >> 10, line);
        else if (strncmp(line, "Rss:", 4) == 0 && strtol(line + 4, NULL, 10) >= 256)
            fprintf(out, "rss %8ld of %s", strtol(line + 4, NULL, 10), head);
    }
    if (in)
        fclose(in);
}
