/* SPDX-License-Identifier: Apache-2.0 */
/*
 * beside ebb|qemu reports|balloon
 *
 * One life of a Linux guest under one VMM, both with the same kernel, initramfs, command line, memory and devices. Prints
 * what it counted as one line "BENCH: {...}", flat JSON. The VMM's own words go to WORK/vmm.log, threads to
 * stderr. Fails when the guest does not do what it is told.
 *
 * GUEST, QEMU: folders with the guest's files and with QEMU's; WORDS: of the guest's command line; WORK: where sockets go.
 */
#include "tests/lab/bench/counters.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MEMORY_MIB 512
#define FILL_MIB 300
#define BALLOON_MIB 256
#define LINE_SECONDS 150 /* to wait for a line of the guest */
#define LOOK_MS 50       /* between two looks at resident memory */
#define MAX_LOOKS 400
/* What reports give back is counted for so long: Linux reports what is free every two seconds, and takes several turns. */
#define REPORT_MS 9000
#define SETTLE_MS 500 /* after the guest's last word: what the VMM still does */
#define IDLE_MS 8000  /* until a VMM that tidies up when its guest rests has done so */

struct life {
    bool is_ebb;
    const char *name, *guest, *qemu, *words, *work;
    pid_t pid;
    int to, from; /* the guest's console */
    char text[8192];
    size_t used;
    int monitor;
    struct counters counters;
};

static pid_t running; /* killed at the end, whatever end it is */

static _Noreturn void die(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    fputs("beside: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    if (running > 0)
        kill(running, SIGKILL);
    exit(1);
}

static const char *env(const char *name)
{
    const char *value = getenv(name);

    if (!value)
        die("%s is not set", name);
    return value;
}

/* A text that lives as long as the program. */
static char *text(const char *format, ...)
{
    char *out;
    va_list args;

    va_start(args, format);
    if (vasprintf(&out, format, args) < 0)
        die("out of memory");
    va_end(args);
    return out;
}

/* --- the VMMs ----------------------------------------------------------------------------------- */

static _Noreturn void exec_ebb(const struct life *life, const char *cmdline, bool reports)
{
    execlp("ebb", "ebb", "run", "--kernel", text("%s/vmlinux", life->guest), "--initrd",
           text("%s/guest.cpio", life->guest), "--cmdline", cmdline, "--memory", text("%dM", MEMORY_MIB), "--console",
           "--balloon", reports ? "reporting=on,hinting=off" : "reporting=off,hinting=off", "--api",
           text("%s/api", life->work), (char *)NULL);
    die("ebb: %s", strerror(errno));
}

/* The smaller of Debian's two builds, with nothing that this guest does not need. */
static _Noreturn void exec_qemu(const struct life *life, const char *cmdline, bool reports)
{
    setenv("LD_LIBRARY_PATH", text("%s/lib", life->qemu), 1);
    execl(text("%s/bin/qemu-system-x86_64-microvm", life->qemu), "qemu", "-L", text("%s/share", life->qemu), "-name",
          "guest,debug-threads=on", "-machine", "microvm,acpi=on,x-option-roms=off,pit=off,pic=off,rtc=off", "-accel",
          "kvm", "-cpu", "host", "-smp", "1", "-m", text("%dM", MEMORY_MIB), "-nodefaults", "-no-user-config",
          "-nographic", "-no-reboot", "-global", "virtio-mmio.force-legacy=false", "-device",
          text("virtio-balloon-device,deflate-on-oom=on,free-page-reporting=%s", reports ? "on" : "off"), "-device",
          "virtio-rng-device", "-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console", "-qmp",
          text("unix:%s/qmp,server=on,wait=off", life->work), "-kernel", text("%s/vmlinux", life->guest), "-initrd",
          text("%s/guest.cpio", life->guest), "-append", text("console=ttyS0 %s", cmdline), (char *)NULL);
    die("qemu: %s", strerror(errno));
}

static void start(struct life *life, const char *workloads, bool reports)
{
    int in[2], out[2], go[2];
    char byte = 0;

    int log = open(text("%s/vmm.log", life->work), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    if (log < 0 || pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC) || pipe2(go, O_CLOEXEC))
        die("cannot start it: %s", strerror(errno));
    life->pid = fork();
    if (life->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(in[0], STDIN_FILENO);
        dup2(out[1], STDOUT_FILENO);
        dup2(log, STDERR_FILENO);
        if (read(go[0], &byte, 1) != 1)
            _exit(1);
        const char *cmdline = text("%s ebb.run=%s", life->words, workloads);
        if (life->is_ebb)
            exec_ebb(life, cmdline, reports);
        exec_qemu(life, cmdline, reports);
    }
    if (life->pid < 0)
        die("fork: %s", strerror(errno));
    running = life->pid;
    close(in[0]);
    close(out[1]);
    close(log);
    life->to = in[1];
    life->from = out[0];
    counters_open(&life->counters, life->pid, life->is_ebb ? "/0" : "CPU ");
    if (write(go[1], &byte, 1) != 1)
        die("it did not start");
    close(go[0]);
    close(go[1]);
}

static void stop(struct life *life)
{
    kill(life->pid, SIGKILL);
    waitpid(life->pid, NULL, 0);
    running = 0;
    counters_close(&life->counters);
}

/* --- its console --------------------------------------------------------------------------------- */

/* The first line of those that have come with @mark in it; false when there is none. Lines are used up. */
static bool take_line(struct life *life, const char *mark, char out[512])
{
    bool found = false;

    for (char *end; !found && (end = memchr(life->text, '\n', life->used));) {
        *end = '\0';
        found = strstr(life->text, mark) != NULL;
        if (found)
            snprintf(out, 512, "%s", strstr(life->text, mark));
        const char *said = strstr(life->text, "EBB: ");
        if (said || strstr(life->text, "Kernel panic"))
            fprintf(stderr, "%s\n", life->text);
        if (said && strstr(said, " failed"))
            die("the guest: %s", life->text);
        life->used -= (size_t)(end + 1 - life->text);
        memmove(life->text, end + 1, life->used);
    }
    if (life->used == sizeof(life->text))
        life->used = 0;
    return found;
}

/* Returns the line in a buffer that the next call uses again. */
static const char *wait_line(struct life *life, const char *mark)
{
    static char line[512];
    struct pollfd fd = {.fd = life->from, .events = POLLIN};

    while (!take_line(life, mark, line)) {
        if (poll(&fd, 1, LINE_SECONDS * 1000) != 1)
            die("no line '%s' within %d s; the last: %.*s", mark, LINE_SECONDS, (int)life->used, life->text);
        ssize_t got = read(life->from, life->text + life->used, sizeof(life->text) - life->used);
        if (got <= 0)
            die("it has ended before a line '%s'; the last: %.*s", mark, (int)life->used, life->text);
        life->used += (size_t)got;
    }
    return line;
}

static void tell(struct life *life, const char *token)
{
    if (dprintf(life->to, "%s\n", token) < 0)
        die("the guest's console is closed");
}

/* "KEY=number" of a line; -1 when it is not there. */
static int64_t value_of(const char *line, const char *key)
{
    const char *at = strstr(line, key);

    return at ? strtoll(at + strlen(key), NULL, 10) : -1;
}

/* --- its balloon --------------------------------------------------------------------------------- */

static int connect_to(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0)
        die("%s: %s", path, strerror(errno));
    return fd;
}

/* Sends @request and reads until @mark has come, or the other end hangs up. Dies unless @good is in it. */
static void ask(int fd, const char *request, const char *mark, const char *good)
{
    char answer[16384];
    size_t used = 0;

    if (write(fd, request, strlen(request)) != (ssize_t)strlen(request))
        die("a request was not taken");
    for (ssize_t got; used < sizeof(answer) - 1; used += (size_t)got) {
        answer[used] = '\0';
        if (strstr(answer, mark) || strstr(answer, "\"error\""))
            break;
        got = read(fd, answer + used, sizeof(answer) - 1 - used);
        if (got <= 0)
            break;
    }
    answer[used] = '\0';
    if (!strstr(answer, good))
        die("the answer to a request is: %s", answer);
}

/* Both VMMs say yes at once; the guest follows as it can. */
static void set_balloon(const struct life *life, int mib)
{
    /* QEMU counts what is left to the guest, and says on the same line of its own accord how that changes. */
    if (!life->is_ebb) {
        ask(life->monitor,
            text("{\"execute\":\"balloon\",\"arguments\":{\"value\":%" PRId64 "}}\n", (int64_t)(MEMORY_MIB - mib)
                                                                                          << 20),
            "\"return\"", "\"return\"");
        return;
    }
    char *body = text("{\"target_bytes\":%" PRId64 "}", (int64_t)mib << 20);
    int fd = connect_to(text("%s/api", life->work));
    ask(fd,
        text("PUT /memory/balloon HTTP/1.0\r\nHost: ebb\r\nContent-Type: application/json\r\nContent-Length: "
             "%zu\r\n\r\n%s",
             strlen(body), body),
        "nothing that it says: until it hangs up", " 200 ");
    close(fd);
}

/* Pages of the guest that Ebb has taken home for a look, and gives back when they are touched: they are the guest's. */
static int64_t standby_kib(const struct life *life)
{
    char answer[4096];
    size_t used = 0;
    int fd = connect_to(text("%s/api", life->work));

    if (dprintf(fd, "GET /memory/free HTTP/1.0\r\nHost: ebb\r\n\r\n") < 0)
        die("a request was not taken");
    for (ssize_t got; used < sizeof(answer) - 1; used += (size_t)got)
        if ((got = read(fd, answer + used, sizeof(answer) - 1 - used)) <= 0)
            break;
    answer[used] = '\0';
    close(fd);
    const char *at = strstr(answer, "\"standby_bytes\": ");
    if (!at)
        die("the answer to a request is: %s", answer);
    return value_of(at, "\"standby_bytes\": ") / 1024;
}

static void open_monitor(struct life *life)
{
    if (life->is_ebb)
        return;
    life->monitor = connect_to(text("%s/qmp", life->work));
    ask(life->monitor, "{\"execute\":\"qmp_capabilities\"}\n", "\"return\"", "\"return\"");
}

/* --- figures -------------------------------------------------------------------------------------- */

static void put(const char *prefix, const char *name, int64_t value)
{
    printf(",\"%s_%s\":%" PRId64, prefix, name, value);
}

/* Threads are named on stderr, for whoever wonders where the time went. */
static void put_difference(const char *prefix, const struct counts *from, const struct counts *to)
{
    fprintf(stderr, "%s:", prefix);
    for (unsigned i = 0; i < to->nr_threads; i++) {
        int64_t us = to->thread[i].us;
        for (unsigned j = 0; j < from->nr_threads; j++)
            us -= from->thread[j].tid == to->thread[i].tid ? from->thread[j].us : 0;
        fprintf(stderr, " %s=%" PRId64, to->thread[i].name, us);
    }
    fprintf(stderr, "\n");
    for (unsigned i = 0; i < NR_COUNTERS; i++)
        if (from->value[i] >= 0 && to->value[i] >= 0)
            put(prefix, counter_names[i], to->value[i] - from->value[i]);
}

static int64_t rss_kib(const struct life *life)
{
    return proc_number(life->pid, "status", "VmRSS:");
}

static int64_t now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* Resident memory at each look. */
struct looks {
    int64_t us[MAX_LOOKS], kib[MAX_LOOKS];
    unsigned nr;
};

static void look(const struct life *life, struct looks *looks)
{
    if (looks->nr < MAX_LOOKS) {
        looks->us[looks->nr] = now_us();
        looks->kib[looks->nr++] = rss_kib(life);
    }
}

/* Looks for @ms. */
static void look_for(const struct life *life, struct looks *looks, int ms)
{
    int64_t end_us = now_us() + (int64_t)ms * 1000;

    do {
        look(life, looks);
        usleep(LOOK_MS * 1000);
    } while (now_us() < end_us);
    look(life, looks);
}

/* How much has come back between the first look and the last, and when nine tenths of it had. */
static void put_given_back(const char *prefix, const struct looks *looks)
{
    int64_t first = looks->kib[0], all = first - looks->kib[looks->nr - 1];
    unsigned i = 0;

    while (i < looks->nr - 1 && (first - looks->kib[i]) * 10 < all * 9)
        i++;
    put(prefix, "back_kib", all);
    put(prefix, "back_us", looks->us[i] - looks->us[0]);
}

/* --- lives ---------------------------------------------------------------------------------------- */

static void boot(struct life *life, const char *workloads, bool reports)
{
    struct counts zero = {0}, now;
    struct memory memory;

    zero.value[COUNT_WALL_US] = now_us();
    start(life, workloads, reports);
    const char *line = wait_line(life, "EBB: boot ok");
    counters_read(&life->counters, &now);
    printf("BENCH: {\"arm\":\"%s\",\"life\":\"%s\"", life->is_ebb ? "ebb" : "qemu", life->name);
    put_difference("boot", &zero, &now);
    put("boot", "guest_ms", value_of(line, "uptime_ms="));
    wait_line(life, "EBB: waiting for first");
    usleep(IDLE_MS * 1000);
    if (getenv("SMAPS"))
        memory_print(life->pid, stderr);
    memory_read(life->pid, MEMORY_MIB * 1024, &memory);
    if (life->is_ebb) {
        int64_t standby = standby_kib(life);
        memory.guest += standby;
        memory.rest -= standby;
    }
    put("memory", "all_kib", memory.all);
    put("memory", "guest_kib", memory.guest);
    put("memory", "rest_kib", memory.rest);
    put("memory", "file_kib", memory.file);
    put("memory", "tables_kib", memory.tables);
    open_monitor(life);
    tell(life, "first");
}

/* The guest's own rate in a window of a fixed length, in which @mib go into the balloon (0: nothing happens). */
static void rate(struct life *life, const char *prefix, int mib)
{
    struct counts before, after;

    wait_line(life, "EBB: rate begins");
    counters_read(&life->counters, &before);
    if (mib)
        set_balloon(life, mib);
    const char *line = wait_line(life, "EBB: rate ok");
    counters_read(&life->counters, &after);
    put(prefix, "pages", value_of(line, " pages="));
    put(prefix, "window_us", value_of(line, " us="));
    put(prefix, "longest_us", value_of(line, " longest_us="));
    put_difference(prefix, &before, &after);
}

/* What a VMM does in any case, its timers and a look at idle pages, is counted in a window of the same length at rest. */
static void reports_life(struct life *life)
{
    struct counts rest, before, after;
    struct looks looks = {.nr = 0};

    boot(life, text("boot;wait,first;fill,%d;wait,free;free;wait,idle;touch,%d;rate,64,5;wait,end", FILL_MIB, FILL_MIB),
         true);
    wait_line(life, "EBB: waiting for free");
    counters_read(&life->counters, &rest);
    usleep(REPORT_MS * 1000);
    counters_read(&life->counters, &before);
    put_difference("rest", &rest, &before);
    look(life, &looks);
    tell(life, "free");
    look_for(life, &looks, REPORT_MS);
    counters_read(&life->counters, &after);
    put_given_back("report", &looks);
    put_difference("report", &before, &after);
    tell(life, "idle");
    rate(life, "rate_report", 0);
}

static void move_balloon(struct life *life, const char *prefix, int mib)
{
    struct counts before, after;
    struct looks looks = {.nr = 0};

    wait_line(life, "EBB: balloon begins");
    counters_read(&life->counters, &before);
    look(life, &looks);
    set_balloon(life, mib);
    const char *line = wait_line(life, "EBB: balloon ok");
    put(prefix, "guest_us", value_of(line, " us="));
    put(prefix, "line_us", now_us() - before.value[COUNT_WALL_US]);
    look_for(life, &looks, SETTLE_MS);
    counters_read(&life->counters, &after);
    put_given_back(prefix, &looks);
    put_difference(prefix, &before, &after);
}

static void balloon_life(struct life *life)
{
    boot(life,
         text("boot;wait,first;touch,420;balloon,%d;wait,deflate;balloon,0;touch,420;rate,64,4;rate,64,4;wait,end",
              BALLOON_MIB),
         false);
    move_balloon(life, "inflate", BALLOON_MIB);
    tell(life, "deflate");
    move_balloon(life, "deflate", 0);
    rate(life, "rate_idle", 0);
    rate(life, "rate_balloon", BALLOON_MIB);
}

int main(int argc, char *argv[])
{
    if (argc != 3 || (strcmp(argv[1], "ebb") != 0 && strcmp(argv[1], "qemu") != 0))
        die("ebb|qemu reports|balloon");
    struct life life = {.is_ebb = strcmp(argv[1], "ebb") == 0,
                        .name = argv[2],
                        .guest = env("GUEST"),
                        .qemu = env("QEMU"),
                        .words = env("WORDS"),
                        .work = env("WORK")};
    signal(SIGPIPE, SIG_IGN);
    if (strcmp(argv[2], "reports") == 0)
        reports_life(&life);
    else
        balloon_life(&life);
    puts("}");
    stop(&life);
    return 0;
}
