/* SPDX-License-Identifier: Apache-2.0 */
/* Workloads that look at the machine, wait for the host, or end the machine. */
#include "guest-images/linux/guest.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX_SECONDS 86400u
#define MAX_NODES 16u
#define MEMTESTER_LOG "/tmp/memtester"

int work_boot(struct guest *guest, const struct words *words)
{
    struct utsname name;
    struct timespec time;

    (void)guest;
    uname(&name);
    clock_gettime(CLOCK_BOOTTIME, &time);
    return passed(words, "cpus=%ld memory_kib=%llu kernel=%s uptime_ms=%lld", sysconf(_SC_NPROCESSORS_ONLN),
                  (unsigned long long)number_in("/proc/meminfo", "MemTotal:"), name.release,
                  (long long)time.tv_sec * 1000 + time.tv_nsec / 1000000);
}

int work_meminfo(struct guest *guest, const struct words *words)
{
    (void)guest;
    return passed(
        words,
        "total_kib=%llu free_kib=%llu available_kib=%llu balloon_inflate_pages=%llu balloon_deflate_pages=%llu "
        "oom_kills=%llu",
        (unsigned long long)number_in("/proc/meminfo", "MemTotal:"),
        (unsigned long long)number_in("/proc/meminfo", "MemFree:"),
        (unsigned long long)number_in("/proc/meminfo", "MemAvailable:"),
        (unsigned long long)number_in("/proc/vmstat", "balloon_inflate "),
        (unsigned long long)number_in("/proc/vmstat", "balloon_deflate "),
        (unsigned long long)number_in("/proc/vmstat", "oom_kill "));
}

/* What the firmware said (HMAT) of the nearest nodes with CPUs, and of the way from them; nothing where it did not. */
static void say_access(unsigned node)
{
    static const char *const words[] = {"read_latency", "write_latency", "read_bandwidth", "write_bandwidth"};
    char folder[64], path[96], line[256] = "";
    size_t used = 0;

    snprintf(folder, sizeof(folder), "/sys/devices/system/node/node%u/access0/initiators", node);
    if (access(folder, R_OK) != 0)
        return;
    for (unsigned i = 0; i < MAX_NODES; i++) {
        snprintf(path, sizeof(path), "%s/node%u", folder, i);
        if (access(path, F_OK) == 0)
            used += (size_t)snprintf(line + used, sizeof(line) - used, "%s%u", used ? "," : " from=", i);
    }
    for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++) {
        snprintf(path, sizeof(path), "%s/%s", folder, words[i]);
        used += (size_t)snprintf(line + used, sizeof(line) - used, " %s=%llu", words[i],
                                 (unsigned long long)number_in(path, ""));
    }
    say("numa node=%u access0%s", node, line);
}

static uint64_t node_kib(unsigned node)
{
    char path[64], key[32];

    snprintf(path, sizeof(path), "/sys/devices/system/node/node%u/meminfo", node);
    snprintf(key, sizeof(key), "Node %u MemTotal:", node);
    return number_in(path, key);
}

/* With NODE and MIB: first waits until that node has so much. Memory that was plugged is in use a moment later. */
int work_numa(struct guest *guest, const struct words *words)
{
    const struct timespec nap = {.tv_nsec = 5000000};
    unsigned nr_nodes = 0;
    uint64_t wanted, mib;
    char path[64];

    (void)guest;
    if (!number_arg(words, 1, MAX_NODES - 1, 0, &wanted) || !number_arg(words, 2, UINT64_C(1) << 24, 0, &mib))
        return failed(words, "it takes a node and a number of MiB");
    while (node_kib((unsigned)wanted) < mib << 10)
        nanosleep(&nap, NULL);
    for (unsigned node = 0; node < MAX_NODES; node++) {
        snprintf(path, sizeof(path), "/sys/devices/system/node/node%u/meminfo", node);
        if (access(path, R_OK) != 0)
            continue;
        say("numa node=%u memory_kib=%llu", node, (unsigned long long)node_kib(node));
        say_access(node);
        nr_nodes++;
    }
    return passed(words, "nodes=%u", nr_nodes);
}

/* What numactl says of the machine stands on the console as it is. */
int work_numactl(struct guest *guest, const struct words *words)
{
    int status = 0;
    pid_t child = fork();

    (void)guest;
    if (child == 0) {
        execl("/bin/numactl", "numactl", "-H", (char *)NULL);
        perror("/bin/numactl");
        _exit(127);
    }
    if (child < 0 || waitpid(child, &status, 0) != child)
        return failed(words, "no child process: %s", strerror(errno));
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return failed(words, "numactl ended with status 0x%x", (unsigned)status);
    return passed(words, NULL);
}

static uint64_t balloon_pages(void)
{
    return number_in("/proc/vmstat", "balloon_inflate ") - number_in("/proc/vmstat", "balloon_deflate ");
}

/* Until MIB MiB are in the balloon. The time is from the first page that moved to the last, as the guest sees it. */
int work_balloon(struct guest *guest, const struct words *words)
{
    const struct timespec nap = {.tv_nsec = 5000000};
    uint64_t mib, first = balloon_pages(), pages, begin_us = 0, last_us = now_us();

    (void)guest;
    if (!number_arg(words, 1, UINT64_C(1) << 24, 0, &mib))
        return failed(words, "'%s' is no number of MiB", words->arg[1]);
    say("balloon begins at pages=%llu", (unsigned long long)first);
    while ((pages = balloon_pages()) != mib * (GUEST_MIB / GUEST_PAGE_BYTES)) {
        if (begin_us == 0 && pages != first)
            begin_us = last_us;
        nanosleep(&nap, NULL);
        last_us = now_us();
    }
    return passed(words, "pages=%llu us=%llu", (unsigned long long)pages,
                  (unsigned long long)(begin_us ? now_us() - begin_us : 0));
}

/* The last line with something in it of a file; "" when there is none. */
static void last_line(const char *path, char *out, int out_bytes)
{
    char line[GUEST_LINE_BYTES];
    FILE *file = fopen(path, "re");

    *out = '\0';
    while (file && fgets(line, sizeof(line), file)) {
        line[strcspn(line, "\n")] = '\0';
        if (*line)
            snprintf(out, (size_t)out_bytes, "%s", line);
    }
    if (file)
        fclose(file);
}

int work_memtester(struct guest *guest, const struct words *words)
{
    char mib[32], line[GUEST_LINE_BYTES];
    int status;
    pid_t child = fork();

    (void)guest;
    if (child == 0) {
        snprintf(mib, sizeof(mib), "%sM", words->arg[1]);
        int fd = open(MEMTESTER_LOG, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        dup2(fd, STDOUT_FILENO);
        dup2(fd, STDERR_FILENO);
        /* Which tests: all of them take minutes for a few MiB where the CPU is software. */
        if (words->nr > 3)
            setenv("MEMTESTER_TEST_MASK", words->arg[3], 1);
        execl("/bin/memtester", "memtester", mib, words->arg[2], (char *)NULL);
        perror("/bin/memtester");
        _exit(127);
    }
    if (child < 0 || waitpid(child, &status, 0) != child)
        return failed(words, "no child process: %s", strerror(errno));
    last_line(MEMTESTER_LOG, line, sizeof(line));
    if (WIFSIGNALED(status))
        return failed(words, "signal=%d: %s", WTERMSIG(status), line);
    if (WEXITSTATUS(status) != 0)
        return failed(words, "exit=%d: %s", WEXITSTATUS(status), line);
    return passed(words, "exit=0 mib=%s loops=%s", words->arg[1], words->arg[2]);
}

static bool seconds_arg(const struct words *words, time_t *seconds)
{
    uint64_t number;

    if (!number_arg(words, 1, MAX_SECONDS, 0, &number)) {
        failed(words, "'%s' is no number of seconds", words->arg[1]);
        return false;
    }
    *seconds = (time_t)number;
    return true;
}

int work_sleep(struct guest *guest, const struct words *words)
{
    struct timespec time = {0};

    (void)guest;
    if (!seconds_arg(words, &time.tv_sec))
        return -1;
    while (nanosleep(&time, &time) != 0)
        ;
    return passed(words, NULL);
}

/* Keeps every CPU busy. */
int work_spin(struct guest *guest, const struct words *words)
{
    time_t seconds;
    long nr_cpus = sysconf(_SC_NPROCESSORS_ONLN);
    struct timespec end, now;

    (void)guest;
    if (!seconds_arg(words, &seconds))
        return -1;
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += seconds;
    for (long i = 0; i < nr_cpus; i++) {
        pid_t child = fork();
        if (child < 0)
            return failed(words, "no child process: %s", strerror(errno));
        if (child > 0)
            continue;
        do
            clock_gettime(CLOCK_MONOTONIC, &now);
        while (now.tv_sec < end.tv_sec || (now.tv_sec == end.tv_sec && now.tv_nsec < end.tv_nsec));
        _exit(0);
    }
    while (wait(NULL) > 0)
        ;
    return passed(words, "cpus=%ld", nr_cpus);
}

static void add_input(struct guest *guest, int fd, const char *name)
{
    if (fd < 0)
        return;
    if (guest->nr_inputs == GUEST_MAX_INPUTS) {
        close(fd);
        return;
    }
    struct input *input = &guest->input[guest->nr_inputs++];
    *input = (struct input){.fd = fd};
    snprintf(input->name, sizeof(input->name), "%s", name);
}

/* The console and each port of a virtio console; those that are open already stay so, with what has come. */
static void open_inputs(struct guest *guest)
{
    char path[300];
    DIR *dir = opendir("/dev");
    struct dirent *entry;

    if (guest->nr_inputs == 0)
        add_input(guest, STDIN_FILENO, "console");
    while (dir && (entry = readdir(dir))) {
        bool is_open = strncmp(entry->d_name, "vport", 5) != 0;
        for (unsigned i = 0; i < guest->nr_inputs; i++)
            is_open |= strcmp(guest->input[i].name, entry->d_name) == 0;
        if (is_open)
            continue;
        snprintf(path, sizeof(path), "/dev/%s", entry->d_name);
        add_input(guest, open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC), entry->d_name);
    }
    if (dir)
        closedir(dir);
}

/* Takes whole lines out of @input until one is @token; what comes after it stays for the next time. */
static bool find_token(struct input *input, const char *token)
{
    char *end;

    while ((end = memchr(input->line, '\n', input->used))) {
        *end = '\0';
        input->line[strcspn(input->line, "\r")] = '\0';
        bool found = strcmp(input->line, token) == 0;
        input->used -= (size_t)(end + 1 - input->line);
        memmove(input->line, end + 1, input->used);
        if (found)
            return true;
    }
    /* A line that is too long for any token. */
    if (input->used == sizeof(input->line))
        input->used = 0;
    return false;
}

int work_wait(struct guest *guest, const struct words *words)
{
    struct pollfd fds[GUEST_MAX_INPUTS];
    const struct timespec nap = {.tv_nsec = 50000000};

    open_inputs(guest);
    say("waiting for %s", words->arg[1]);
    for (;;) {
        bool is_idle = true;
        for (unsigned i = 0; i < guest->nr_inputs; i++) {
            if (find_token(&guest->input[i], words->arg[1]))
                return passed(words, "%s from=%s", words->arg[1], guest->input[i].name);
            fds[i] = (struct pollfd){.fd = guest->input[i].fd, .events = POLLIN};
        }
        if (poll(fds, guest->nr_inputs, -1) < 0)
            return failed(words, "%s", strerror(errno));
        for (unsigned i = 0; i < guest->nr_inputs; i++) {
            struct input *input = &guest->input[i];
            if (!(fds[i].revents & POLLIN))
                continue;
            ssize_t n = read(input->fd, input->line + input->used, sizeof(input->line) - input->used);
            input->used += n > 0 ? (size_t)n : 0;
            is_idle &= n <= 0;
        }
        /* A port that nobody holds at the other end hangs up again and again. */
        if (is_idle)
            nanosleep(&nap, NULL);
    }
}

int work_write(struct guest *guest, const struct words *words)
{
    int error = write_text(words->arg[1], words->arg[2]);

    (void)guest;
    if (error != 0)
        return failed(words, "%s: %s", words->arg[1], strerror(-error));
    return passed(words, "%s", words->arg[1]);
}

int work_rng(struct guest *guest, const struct words *words)
{
    uint8_t bytes[64] = {0};
    unsigned nr_set = 0;
    int fd = open("/dev/hwrng", O_RDONLY | O_CLOEXEC);

    (void)guest;
    if (fd < 0)
        return failed(words, "/dev/hwrng: %s", strerror(errno));
    ssize_t n = read(fd, bytes, sizeof(bytes));
    close(fd);
    if (n != sizeof(bytes))
        return failed(words, "/dev/hwrng gave %zd of %zu bytes", n, sizeof(bytes));
    for (size_t i = 0; i < sizeof(bytes) * 8; i++)
        nr_set += bytes[i / 8] >> i % 8 & 1;
    /* Of 512 fair bits 256 are set; 11 in a million runs lie further off than 50. */
    if (nr_set < 206 || nr_set > 306)
        return failed(words, "%u of 512 bits are set", nr_set);
    return passed(words, "bits_set=%u", nr_set);
}

/* For a person: works only in an image with a busybox. */
int work_shell(struct guest *guest, const struct words *words)
{
    int status;
    pid_t child = fork();

    (void)guest;
    if (child == 0) {
        setenv("PATH", "/bin", 1);
        execl("/bin/busybox", "busybox", "setsid", "busybox", "cttyhack", "busybox", "sh", (char *)NULL);
        perror("/bin/busybox");
        _exit(127);
    }
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0)
        return failed(words, "it ended with an error");
    return passed(words, NULL);
}

int work_panic(struct guest *guest, const struct words *words)
{
    (void)guest;
    write_text("/proc/sys/kernel/sysrq", "1");
    int error = write_text("/proc/sysrq-trigger", "c");
    return failed(words, "the kernel did not panic: %s", strerror(-error));
}

int work_reboot(struct guest *guest, const struct words *words)
{
    (void)guest;
    sync();
    reboot(RB_AUTOBOOT);
    return failed(words, "%s", strerror(errno));
}

int work_poweroff(struct guest *guest, const struct words *words)
{
    (void)guest;
    sync();
    reboot(RB_POWER_OFF);
    return failed(words, "%s", strerror(errno));
}

/* A reboot of this type loads an empty interrupt table and takes an interrupt. */
int work_triple(struct guest *guest, const struct words *words)
{
    int error = write_text("/sys/kernel/reboot/type", "triple");

    if (error != 0)
        return failed(words, "/sys/kernel/reboot/type: %s", strerror(-error));
    return work_reboot(guest, words);
}
