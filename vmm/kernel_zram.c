/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/kernel_zram.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <time.h>
#include <unistd.h>

#include "mm/swap/area.h"
#include "vmm/kernel_cgroup.h"
#include "vmm/sysfile.h"

#define CONTROL "/sys/class/zram-control"
/* Of the device over its memory limit: lz4 reaches 3:1 on text, same-filled pages take nothing; chosen, unmeasured. */
#define DISK_PER_LIMIT 8u
/* include/linux/swap.h, union swap_header: version, last_page and nr_badpages follow 1024 boot bytes. */
#define UUID_OFFSET 1036u
#define LABEL_OFFSET 1052u
#define LABEL_BYTES 16u

static void device_path(int number, char path[32])
{
    snprintf(path, 32, "/dev/zram%d", number);
}

/* Inode of the pid namespace: a pid in a label means something only inside it. */
static uint64_t pid_namespace(void)
{
    struct stat st;

    return stat("/proc/self/ns/pid", &st) ? 0 : (uint64_t)st.st_ino;
}

/* The device's nodes and its memory go. Retried: udev may have it open for a moment. */
static void remove_number(int number)
{
    char text[16], path[32];
    const struct timespec pause = {.tv_nsec = 10 * 1000 * 1000};

    device_path(number, path);
    (void)swapoff(path);
    snprintf(text, sizeof(text), "%d", number);
    for (unsigned tries = 0; tries < 100; tries++) {
        int err = sysfile_write("1", "/sys/block/zram%d/reset", number);
        if (!err)
            err = sysfile_write(text, CONTROL "/hot_remove");
        if (err != -EBUSY)
            return;
        nanosleep(&pause, NULL);
    }
}

static int set_algorithm(int number, const struct zram_config *config, struct diag *diag)
{
    const char *name = zram_algo_name(config->algo);
    char text[64], list[200];

    int err = sysfile_write(name, "/sys/block/zram%d/comp_algorithm", number);
    if (err) {
        if (sysfile_read(list, sizeof(list), "/sys/block/zram%d/comp_algorithm", number))
            snprintf(list, sizeof(list), "an unreadable list");
        return diag_set(diag, EXIT_HOST, "the kernel's zram has no %s, it has: %s. Choose with --zram SIZE,algo=lz4",
                        name, list);
    }
    if (!config->level)
        return 0;
    snprintf(text, sizeof(text), "algo=%s level=%d", name, config->level);
    err = sysfile_write(text, "/sys/block/zram%d/algorithm_params", number);
    if (err)
        return diag_set(diag, EXIT_HOST, "the kernel's zram cannot set a level for %s (%s): leave the level out", name,
                        strerror(-err));
    return 0;
}

static int set_sizes(struct kernel_zram *kz, uint64_t limit_bytes, struct diag *diag)
{
    char text[24];

    kz->disk_bytes = limit_bytes * DISK_PER_LIMIT & ~(PAGE_BYTES - 1);
    snprintf(text, sizeof(text), "%" PRIu64, kz->disk_bytes);
    int err = sysfile_write(text, "/sys/block/zram%d/disksize", kz->number);
    if (!err) {
        snprintf(text, sizeof(text), "%" PRIu64, limit_bytes);
        err = sysfile_write(text, "/sys/block/zram%d/mem_limit", kz->number);
    }
    if (err)
        return diag_set(diag, EXIT_HOST, "cannot size /dev/zram%d (%s)", kz->number, strerror(-err));
    return 0;
}

static int write_header(const char *path, const char *name, uint64_t nr_slots)
{
    uint64_t space = pid_namespace();
    uint8_t uuid[16] = {0};
    int err = 0;

    void *page = aligned_alloc(PAGE_BYTES, PAGE_BYTES);
    if (!page)
        return -ENOMEM;
    memcpy(uuid, &space, sizeof(space));
    swap_header_make(page, nr_slots, uuid, name);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        err = -errno;
    else if (pwrite(fd, page, PAGE_BYTES, 0) != (ssize_t)PAGE_BYTES)
        err = errno ? -errno : -EIO;
    if (fd >= 0 && close(fd) != 0 && !err)
        err = -errno;
    free(page);
    return err;
}

int kernel_zram_make(struct kernel_zram *kz, const char *name, const struct zram_config *config, struct diag *diag)
{
    char text[16], path[32];

    kz->number = -1;
    int err = sysfile_read(text, sizeof(text), CONTROL "/hot_add");
    if (err == -ENOENT)
        return diag_set(diag, EXIT_HOST,
                        "the kernel has no zram, which --backend kernel needs for --zram: modprobe zram");
    if (err)
        return diag_set(diag, EXIT_HOST, "cannot add a zram device (%s)%s", strerror(-err),
                        err == -EACCES || err == -EPERM ? ": --backend kernel needs root" : "");
    kz->number = atoi(text);
    device_path(kz->number, path);
    if (set_algorithm(kz->number, config, diag) || set_sizes(kz, config->limit_bytes, diag))
        goto fail;
    err = write_header(path, name, kz->disk_bytes / PAGE_BYTES);
    if (!err && swapon(path, SWAP_FLAG_PREFER | SWAP_FLAG_PRIO_MASK) != 0)
        err = -errno;
    if (!err)
        return 0;
    diag_set(diag, EXIT_HOST, "cannot use %s as swap (%s)%s", path, strerror(-err),
             err == -ENOENT ? ": mount devtmpfs on /dev" : "");
fail:
    kernel_zram_remove(kz);
    return -1;
}

void kernel_zram_remove(struct kernel_zram *kz)
{
    if (kz->number >= 0)
        remove_number(kz->number);
    kz->number = -1;
}

/* True when the device's swap header names a process of our pid namespace which is gone. */
static bool is_stale(int number)
{
    uint64_t nr_slots, space;
    char path[32], label[LABEL_BYTES + 1] = "";
    bool stale = false;

    if (sysfile_number("/sys/block/zram%d/initstate", number) != 1)
        return false;
    char *page = aligned_alloc(PAGE_BYTES, PAGE_BYTES);
    if (!page)
        return false;
    device_path(number, path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0 && pread(fd, page, PAGE_BYTES, 0) == (ssize_t)PAGE_BYTES && swap_header_read(page, &nr_slots) == 0) {
        memcpy(&space, page + UUID_OFFSET, sizeof(space));
        memcpy(label, page + LABEL_OFFSET, LABEL_BYTES);
        stale = space == pid_namespace() && kernel_name_is_stale(label);
    }
    if (fd >= 0)
        close(fd);
    free(page);
    return stale;
}

void kernel_zram_sweep(void)
{
    DIR *dir = opendir("/sys/block");

    for (struct dirent *entry; dir && (entry = readdir(dir)) != NULL;) {
        int number, len = 0;
        if (sscanf(entry->d_name, "zram%d%n", &number, &len) == 1 && !entry->d_name[len] && is_stale(number))
            remove_number(number);
    }
    if (dir)
        closedir(dir);
}

void kernel_zram_stat(const struct kernel_zram *kz, struct zram_stat *out)
{
    char text[256];

    memset(out, 0, sizeof(*out));
    /* Documentation/admin-guide/blockdev/zram.rst, mm_stat and io_stat. */
    if (sysfile_read(text, sizeof(text), "/sys/block/zram%d/mm_stat", kz->number) == 0)
        (void)sscanf(text, "%" SCNu64 "%" SCNu64 "%" SCNu64 "%" SCNu64 "%" SCNu64 "%" SCNu64 "%" SCNu64 "%" SCNu64,
                     &out->orig_data_bytes, &out->compr_data_bytes, &out->mem_used_bytes, &out->mem_limit_bytes,
                     &out->mem_used_max_bytes, &out->same_pages, &out->pages_compacted, &out->huge_pages);
    out->failed_reads = sysfile_number("/sys/block/zram%d/io_stat", kz->number);
}

uint64_t kernel_zram_used_bytes(const struct kernel_zram *kz)
{
    FILE *file = fopen("/proc/swaps", "re");
    char *line = NULL, path[32];
    size_t room = 0;
    uint64_t used_kib = 0;

    device_path(kz->number, path);
    while (file && getline(&line, &room, file) > 0) {
        char name[256];
        uint64_t used;
        if (sscanf(line, "%255s %*s %*s %" SCNu64, name, &used) == 2 && strcmp(name, path) == 0)
            used_kib = used;
    }
    free(line);
    if (file)
        fclose(file);
    return used_kib << 10;
}
