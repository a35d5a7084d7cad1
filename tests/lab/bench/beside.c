/* SPDX-License-Identifier: Apache-2.0 */
/*
 * beside ebb|qemu reports|balloon
 *
 * One life of a Linux guest under one VMM, both with the same kernel, initramfs, command line, memory and devices. Prints
 * what it counted as one line "BENCH: {...}", flat JSON, for tests/lab/bench/table.sh. The VMM's own output goes to
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
#include <unistd.h>

#define MEMORY_MIB 512
#define FILL_MIB 300
#define BALLOON_MIB 256
#define LINE_SECONDS 150 /* to wait for a line of the guest */
#define STEP_MS 20       /* between two looks at resident memory */
#define QUIET_MS 500     /* without a change: it has come to its end */
#define GIVE_BACK_MS 10000

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

/* What it answers is read to the end of a line, or of the connection; only then it is done. */
static void ask(int fd, const char *request, char *answer, size_t bytes)
{
    size_t used = 0;

    if (*request && write(fd, request, strlen(request)) != (ssize_t)strlen(request))
        die("a request was not taken");
    for (ssize_t got; used < bytes - 1 && (got = read(fd, answer + used, bytes - 1 - used)) > 0;) {
        used += (size_t)got;
        if (*request != 'P' && answer[used - 1] == '\n')
            break;
    }
    answer[used] = '\0';
}

/* Both VMMs say "ok" at once; the guest follows as it can. */
static void set_balloon(struct life *life, int mib)
{
    char answer[8192];
    /* QEMU counts what is left to the guest. */
    int64_t bytes = (int64_t)(life->is_ebb ? mib : MEMORY_MIB - mib) << 20;

    if (!life->is_ebb) {
        ask(life->monitor, text("{\"execute\":\"balloon\",\"arguments\":{\"value\":%" PRId64 "}}\n", bytes), answer,
            sizeof(answer));
        if (!strstr(answer, "\"return\""))
            die("QEMU: %s", answer);
        return;
    }
    char *body = text("{\"target_bytes\":%" PRId64 "}", bytes);
    int fd = connect_to(text("%s/api", life->work));
    ask(fd,
        text("PUT /memory/balloon HTTP/1.0\r\nHost: ebb\r\nContent-Type: application/json\r\nContent-Length: "
             "%zu\r\n\r\n%s",
             strlen(body), body),
        answer, sizeof(answer));
    close(fd);
    if (!strstr(answer, " 200 "))
        die("ebb: %s", answer);
}

static void open_monitor(struct life *life)
{
    char answer[8192];

    if (life->is_ebb)
        return;
    life->monitor = connect_to(text("%s/qmp", life->work));
    ask(life->monitor, "", answer, sizeof(answer));
    ask(life->monitor, "{\"execute\":\"qmp_capabilities\"}\n", answer, sizeof(answer));
    if (!strstr(answer, "\"return\""))
        die("QEMU: %s", answer);
}

/* --- figures -------------------------------------------------------------------------------------- */

static void put(const char *prefix, const char *name, int64_t value)
{
    printf(",\"%s_%s\":%" PRId64, prefix, name, value);
}

static void put_difference(const char *prefix, const struct counts *from, const struct counts *to)
{
    for (unsigned i = 0; i < NR_COUNTERS; i++)
        if (from->value[i] >= 0 && to->value[i] >= 0)
            put(prefix, counter_names[i], to->value[i] - from->value[i]);
}

static int64_t rss_kib(const struct life *life)
{
    return proc_number(life->pid, "status", "VmRSS:");
}

/* Until resident memory has fallen by at least @kib and stands still. us from @begin_us to the last change. */
static int64_t wait_given_back(const struct life *life, int64_t before_kib, int64_t kib, int64_t begin_us)
{
    int64_t last_kib = before_kib, changed_us = begin_us;
    struct counts now;

    for (;;) {
        usleep(STEP_MS * 1000);
        counters_read(&life->counters, &now);
        int64_t now_us = now.value[COUNT_WALL_US], now_kib = rss_kib(life);
        if (llabs(now_kib - last_kib) > 512) {
            last_kib = now_kib;
            changed_us = now_us;
        }
        if (before_kib - now_kib >= kib && now_us - changed_us > QUIET_MS * 1000)
            return changed_us - begin_us;
        if (now_us - begin_us > (int64_t)GIVE_BACK_MS * 1000)
            return -1;
    }
}

/* --- lives ---------------------------------------------------------------------------------------- */

static void boot(struct life *life, const char *workloads, bool reports)
{
    struct counts zero = {0}, now;
    struct memory memory;

    counters_read(&(struct counters){.pid = -1, .fd = {-1, -1, -1, -1, -1, -1, -1, -1, -1}, .vcpu_mark = "-"}, &now);
    zero.value[COUNT_WALL_US] = now.value[COUNT_WALL_US];
    start(life, workloads, reports);
    const char *line = wait_line(life, "EBB: boot ok");
    counters_read(&life->counters, &now);
    printf("BENCH: {\"arm\":\"%s\",\"life\":\"%s\"", life->is_ebb ? "ebb" : "qemu", life->name);
    put_difference("boot", &zero, &now);
    put("boot", "guest_ms", value_of(line, "uptime_ms="));
    wait_line(life, "EBB: waiting for first");
    memory_read(life->pid, MEMORY_MIB * 1024, &memory);
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

static void reports_life(struct life *life)
{
    struct counts before, after;

    boot(life, text("boot;wait,first;fill,%d;wait,free;free;wait,idle;touch,%d;rate,64,5;wait,end", FILL_MIB, FILL_MIB),
         true);
    wait_line(life, "EBB: waiting for free");
    int64_t before_kib = rss_kib(life);
    counters_read(&life->counters, &before);
    tell(life, "free");
    int64_t us = wait_given_back(life, before_kib, FILL_MIB * 1024 * 9 / 10, before.value[COUNT_WALL_US]);
    counters_read(&life->counters, &after);
    put("report", "back_us", us);
    put("report", "back_kib", before_kib - rss_kib(life));
    put_difference("report", &before, &after);
    tell(life, "idle");
    rate(life, "rate_report", 0);
}

static void move_balloon(struct life *life, const char *prefix, int mib, int64_t back_kib)
{
    struct counts before, after;

    wait_line(life, "EBB: balloon begins");
    int64_t before_kib = rss_kib(life);
    counters_read(&life->counters, &before);
    set_balloon(life, mib);
    const char *line = wait_line(life, "EBB: balloon ok");
    counters_read(&life->counters, &after);
    int64_t line_us = after.value[COUNT_WALL_US] - before.value[COUNT_WALL_US];
    put(prefix, "guest_us", value_of(line, " us="));
    put(prefix, "line_us", line_us);
    if (back_kib) {
        put(prefix, "back_us", wait_given_back(life, before_kib, back_kib, before.value[COUNT_WALL_US]));
        put(prefix, "back_kib", before_kib - rss_kib(life));
        counters_read(&life->counters, &after);
    }
    put_difference(prefix, &before, &after);
}

static void balloon_life(struct life *life)
{
    boot(life,
         text("boot;wait,first;touch,420;balloon,%d;wait,deflate;balloon,0;touch,420;rate,64,4;rate,64,4;wait,end",
              BALLOON_MIB),
         false);
    move_balloon(life, "inflate", BALLOON_MIB, BALLOON_MIB * 1024 * 9 / 10);
    tell(life, "deflate");
    move_balloon(life, "deflate", 0, 0);
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
