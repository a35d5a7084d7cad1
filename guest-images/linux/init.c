/* SPDX-License-Identifier: Apache-2.0 */
/* See guest.h. Here: what comes before the first workload, finding the workloads, and the end. */
#include "guest-images/linux/guest.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define MAX_CMDLINE_BYTES 4096
#define MAX_DEVICE_TYPES 64

static const struct {
    const char *name;
    workload_fn *run;
    unsigned min_args, max_args;
} workloads[] = {
    {"boot", work_boot, 0, 0},
    {"fill", work_fill, 1, 1},
    {"verify", work_verify, 0, 0},
    {"rewrite", work_rewrite, 0, 0},
    {"free", work_free, 0, 0},
    {"touch", work_touch, 1, 1},
    {"oom", work_oom, 1, 1},
    {"rate", work_rate, 2, 2},
    {"memtester", work_memtester, 2, 3},
    {"disk-sum", work_disk_sum, 1, 2},
    {"disk-flush", work_disk_flush, 1, 2},
    {"disk-check", work_disk_check, 2, 2},
    {"net", work_net, 4, 4},
    {"vsock", work_vsock, 2, 2},
    {"vsock-listen", work_vsock_listen, 1, 1},
    {"port", work_port, 2, 2},
    {"meminfo", work_meminfo, 0, 0},
    {"numa", work_numa, 0, 2},
    {"numactl", work_numactl, 0, 0},
    {"balloon", work_balloon, 1, 1},
    {"sleep", work_sleep, 1, 1},
    {"spin", work_spin, 1, 1},
    {"wait", work_wait, 1, 1},
    {"write", work_write, 2, 2},
    {"rng", work_rng, 0, 0},
    {"shell", work_shell, 0, 0},
    {"panic", work_panic, 0, 0},
    {"reboot", work_reboot, 0, 0},
    {"poweroff", work_poweroff, 0, 0},
    {"triple", work_triple, 0, 0},
};

static void say_line(const char *name, const char *middle, const char *format, va_list args)
{
    char line[1024];
    int used = snprintf(line, sizeof(line) - 1, "EBB: %s%s", name, middle);
    int more = vsnprintf(line + used, sizeof(line) - 1 - (size_t)used, format, args);

    used += more > 0 ? more : 0;
    if ((size_t)used > sizeof(line) - 2)
        used = (int)sizeof(line) - 2;
    line[used++] = '\n';
    /* A console that takes nothing leaves nobody to tell. */
    if (write(STDOUT_FILENO, line, (size_t)used) != used)
        sync();
}

void say(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    say_line("", "", format, args);
    va_end(args);
}

int passed(const struct words *words, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    say_line(words->arg[0], format ? " ok " : " ok", format ? format : "", args);
    va_end(args);
    return 0;
}

int failed(const struct words *words, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    say_line(words->arg[0], " failed: ", format, args);
    va_end(args);
    return -1;
}

bool number_arg(const struct words *words, unsigned i, uint64_t max, uint64_t standard, uint64_t *out)
{
    char *end;

    *out = standard;
    if (i >= words->nr)
        return true;
    errno = 0;
    *out = strtoull(words->arg[i], &end, 0);
    return errno == 0 && end != words->arg[i] && *end == '\0' && words->arg[i][0] != '-' && *out <= max;
}

uint64_t number_in(const char *path, const char *key)
{
    char line[512];
    uint64_t number = 0;
    FILE *file = fopen(path, "re");

    while (file && fgets(line, sizeof(line), file)) {
        if (strncmp(line, key, strlen(key)) != 0)
            continue;
        const char *digits = line + strlen(key);
        digits += strcspn(digits, "0123456789");
        number = strtoull(digits, NULL, 10);
        break;
    }
    if (file)
        fclose(file);
    return number;
}

uint64_t now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

int write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    int error = 0;

    if (fd < 0)
        return -errno;
    if (write(fd, text, strlen(text)) < 0)
        error = -errno;
    close(fd);
    return error;
}

/* The first console: raw enough that what the host sends is not sent back. */
static void open_console(void)
{
    struct termios termios;
    int fd = open("/dev/console", O_RDWR | O_NOCTTY);

    if (fd < 0)
        return;
    for (int i = 0; i < 3; i++)
        if (fd != i)
            dup2(fd, i);
    if (fd > 2)
        close(fd);
    if (tcgetattr(STDIN_FILENO, &termios) == 0) {
        termios.c_lflag &= ~(tcflag_t)ECHO;
        tcsetattr(STDIN_FILENO, TCSANOW, &termios);
    }
}

static void mount_all(void)
{
    static const struct {
        const char *type, *path;
    } mounts[] = {{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/tmp"}};

    for (size_t i = 0; i < sizeof(mounts) / sizeof(*mounts); i++) {
        mkdir(mounts[i].path, 0755);
        /* EBUSY: the kernel has mounted devtmpfs itself. */
        if (mount(mounts[i].type, mounts[i].path, mounts[i].type, 0, "") != 0 && errno != EBUSY)
            say("init: cannot mount %s: %s", mounts[i].path, strerror(errno));
    }
}

/* True when a virtio device of type @type is there. */
static bool has_virtio(unsigned type)
{
    char path[64], text[32];

    for (unsigned i = 0; i < MAX_DEVICE_TYPES; i++) {
        snprintf(path, sizeof(path), "/sys/bus/virtio/devices/virtio%u/device", i);
        FILE *file = fopen(path, "re");
        bool is = file && fgets(text, sizeof(text), file) && strtoul(text, NULL, 16) == type;
        if (file)
            fclose(file);
        if (is)
            return true;
    }
    return false;
}

/* @wanted: "-", or numbers of virtio device types. */
static bool is_wanted(char *wanted)
{
    for (char *end, *at = wanted; *at; at = end) {
        unsigned long type = strtoul(at, &end, 10);
        if (end == at)
            return *wanted == '-';
        if (has_virtio((unsigned)type))
            return true;
    }
    return false;
}

/* Those of /modules/list that this machine needs, in its order: virtio_mmio, which finds the devices, stands first. */
static void load_modules(void)
{
    char line[256], path[300];
    FILE *list = fopen("/modules/list", "re");

    while (list && fgets(line, sizeof(line), list)) {
        char *wanted = strchr(line, ' ');
        if (!wanted)
            continue;
        *wanted++ = '\0';
        wanted[strcspn(wanted, "\n")] = '\0';
        if (!is_wanted(wanted))
            continue;
        snprintf(path, sizeof(path), "/modules/%s", line);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) != 0 && errno != EEXIST && errno != ENODEV))
            say("init: cannot load %s: %s", line, strerror(errno));
        if (fd >= 0)
            close(fd);
    }
    if (list)
        fclose(list);
}

/* The value of @key in the kernel's command line, copied to @out; false when it is not there. */
static bool cmdline_value(const char *key, char *out, size_t out_bytes)
{
    char line[MAX_CMDLINE_BYTES], *rest = line;
    FILE *file = fopen("/proc/cmdline", "re");
    bool found = false;

    if (!file || !fgets(line, sizeof(line), file))
        line[0] = '\0';
    if (file)
        fclose(file);
    for (char *word; (word = strtok_r(rest, " \n", &rest));)
        if (strncmp(word, key, strlen(key)) == 0) {
            /* The kernel keeps quotes that enclose a whole word, or a value. */
            char *value = word + strlen(key);
            value += *value == '"';
            value[strcspn(value, "\"")] = '\0';
            snprintf(out, out_bytes, "%s", value);
            found = true;
        }
    return found;
}

static int run_one(struct guest *guest, char *text)
{
    struct words words = {0};

    for (char *word; words.nr <= GUEST_MAX_ARGS && (word = strsep(&text, ","));)
        words.arg[words.nr++] = word;
    if (text) {
        say("%s failed: more than %d arguments", words.arg[0], GUEST_MAX_ARGS);
        return -1;
    }
    for (size_t i = 0; i < sizeof(workloads) / sizeof(*workloads); i++) {
        if (strcmp(workloads[i].name, words.arg[0]) != 0)
            continue;
        if (words.nr - 1 < workloads[i].min_args || words.nr - 1 > workloads[i].max_args)
            return failed(&words, "it takes %u to %u arguments", workloads[i].min_args, workloads[i].max_args);
        return workloads[i].run(guest, &words);
    }
    return failed(&words, "there is no such workload");
}

int main(void)
{
    static struct guest guest;
    char list[MAX_CMDLINE_BYTES] = "boot", *rest = list;
    int result = 0;

    mount_all();
    open_console();
    load_modules();
    if (getrandom(&guest.seed, sizeof(guest.seed), GRND_INSECURE) != sizeof(guest.seed))
        guest.seed = 1;
    cmdline_value("ebb.run=", list, sizeof(list));
    for (char *text; result == 0 && (text = strsep(&rest, ";"));)
        if (*text)
            result = run_one(&guest, text);
    if (result != 0) {
        say("failed");
        return 1;
    }
    say("done");
    sync();
    reboot(RB_POWER_OFF);
    return 1;
}
