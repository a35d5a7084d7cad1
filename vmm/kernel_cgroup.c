/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/kernel_cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "vmm/sysfile.h"

#define MAX_GROUPS_PER_PROCESS 1000u

/* True when @word is one of the words of @list, which @separators divide. @list is taken apart. */
static bool list_has(char *list, const char *separators, const char *word)
{
    char *save = NULL;

    for (char *at = strtok_r(list, separators, &save); at; at = strtok_r(NULL, separators, &save))
        if (strcmp(at, word) == 0)
            return true;
    return false;
}

static bool dir_has_controller(const char *dir, const char *file)
{
    char list[512];

    return sysfile_read(list, sizeof(list), "%s/%s", dir, file) == 0 && list_has(list, " ", "memory");
}

/*
 * The mount of the hierarchy with the memory controller, from /proc/self/mountinfo:
 *   id parent major:minor ROOT MOUNT options [tags] - TYPE source SUPER
 */
static bool find_mount(struct kernel_cgroup *cg, char root[PATH_MAX], char mount[PATH_MAX])
{
    FILE *file = fopen("/proc/self/mountinfo", "re");
    char *line = NULL;
    size_t room = 0;
    bool found = false;

    while (file && !found && getline(&line, &room, file) > 0) {
        char type[32], super[512];
        char *tail = strstr(line, " - ");
        /* The field widths are PATH_MAX - 1 and those of the arrays above. */
        if (!tail || sscanf(line, "%*s %*s %*s %4095s %4095s", root, mount) != 2 ||
            sscanf(tail, " - %31s %*s %511s", type, super) != 2)
            continue;
        cg->v2 = strcmp(type, "cgroup2") == 0;
        found = (cg->v2 && dir_has_controller(mount, "cgroup.controllers")) ||
                (strcmp(type, "cgroup") == 0 && list_has(super, ",", "memory"));
    }
    free(line);
    if (file)
        fclose(file);
    return found;
}

/* The path of our own group in that hierarchy, from /proc/self/cgroup: "0::PATH" (v2), "N:controllers:PATH" (v1). */
static bool find_own_path(bool v2, char path[PATH_MAX])
{
    FILE *file = fopen("/proc/self/cgroup", "re");
    char *line = NULL;
    size_t room = 0;
    bool found = false;

    while (file && !found && getline(&line, &room, file) > 0) {
        char *controllers = strchr(line, ':');
        char *at = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!at)
            continue;
        *at++ = '\0';
        at[strcspn(at, "\n")] = '\0';
        found = v2 ? strcmp(line, "0:") == 0 : list_has(controllers + 1, ",", "memory");
        if (found)
            snprintf(path, PATH_MAX, "%s", at);
    }
    free(line);
    if (file)
        fclose(file);
    return found;
}

/* v2: up from home to the group that hands memory down; at the top of the mount it is asked to. */
static int find_base_v2(struct kernel_cgroup *cg, const char *mount, struct diag *diag)
{
    snprintf(cg->base, sizeof(cg->base), "%s", cg->home);
    while (!dir_has_controller(cg->base, "cgroup.subtree_control")) {
        char *slash = strrchr(cg->base, '/');
        if (strlen(cg->base) > strlen(mount) && slash > cg->base) {
            *slash = '\0';
            continue;
        }
        int err = sysfile_write("+memory", "%s/cgroup.subtree_control", cg->base);
        if (err)
            return diag_set(diag, EXIT_HOST,
                            "cannot switch the memory controller on in %s (%s): run as root, outside a container, or "
                            "under systemd-run --scope -p Delegate=yes",
                            cg->base, strerror(-err));
    }
    return 0;
}

int kernel_cgroup_find(struct kernel_cgroup *cg, struct diag *diag)
{
    char root[PATH_MAX], mount[PATH_MAX], own[PATH_MAX];

    memset(cg, 0, sizeof(*cg));
    if (!find_mount(cg, root, mount) || !find_own_path(cg->v2, own))
        return diag_set(diag, EXIT_HOST,
                        "this host has no memory cgroup controller, which --backend kernel needs to hold the budget: "
                        "mount one (mount -t cgroup2 none /sys/fs/cgroup), or boot with cgroup_enable=memory");
    /* In a container the mount shows only what is below root. */
    size_t skip = strcmp(root, "/") != 0 && strncmp(own, root, strlen(root)) == 0 ? strlen(root) : 0;
    const char *tail = strcmp(own + skip, "/") == 0 ? "" : own + skip;
    if (strlen(mount) + strlen(tail) + 80 > PATH_MAX)
        return diag_set(diag, EXIT_HOST, "the path of this process's memory cgroup is too long");
    stpcpy(stpcpy(cg->home, mount), tail);
    if (access(cg->home, F_OK) != 0)
        strcpy(cg->home, mount);
    if (cg->v2)
        return find_base_v2(cg, mount, diag);
    strcpy(cg->base, cg->home);
    return 0;
}

int kernel_cgroup_make(struct kernel_cgroup *cg, uint64_t limit_bytes, struct diag *diag)
{
    int err = 0;

    for (unsigned n = 0; n < MAX_GROUPS_PER_PROCESS; n++) {
        char path[PATH_MAX + sizeof(cg->name)];
        snprintf(cg->name, sizeof(cg->name), "ebb-%d-%u", (int)getpid(), n);
        snprintf(path, sizeof(path), "%s/%s", cg->base, cg->name);
        err = mkdir(path, 0755) ? -errno : 0;
        if (err != -EEXIST)
            break;
    }
    if (err) {
        cg->name[0] = '\0';
        return diag_set(diag, EXIT_HOST, "cannot make a memory cgroup in %s (%s)%s", cg->base, strerror(-err),
                        err == -EACCES || err == -EPERM || err == -EROFS ? ": --backend kernel needs root" : "");
    }
    err = kernel_cgroup_set_limit(cg, limit_bytes);
    if (err) {
        kernel_cgroup_remove(cg);
        return diag_set(diag, EXIT_HOST, "cannot limit memory cgroup %s/%s to %" PRIu64 " bytes (%s)", cg->base,
                        cg->name, limit_bytes, strerror(-err));
    }
    return 0;
}

static int move_here(const char *dir)
{
    char pid[16];

    snprintf(pid, sizeof(pid), "%d", (int)getpid());
    return sysfile_write(pid, "%s/cgroup.procs", dir);
}

int kernel_cgroup_enter(const struct kernel_cgroup *cg)
{
    char dir[PATH_MAX + sizeof(cg->name)];

    snprintf(dir, sizeof(dir), "%s/%s", cg->base, cg->name);
    return move_here(dir);
}

int kernel_cgroup_leave(const struct kernel_cgroup *cg)
{
    return move_here(cg->home);
}

int kernel_cgroup_set_limit(const struct kernel_cgroup *cg, uint64_t limit_bytes)
{
    char text[24];

    snprintf(text, sizeof(text), "%" PRIu64, limit_bytes);
    if (cg->v2) {
        /* Pages are to go to our zram, not into the kernel's zswap in front of it. Older kernels have no such file. */
        int err = sysfile_write("0", "%s/%s/memory.zswap.max", cg->base, cg->name);
        if (err && err != -ENOENT)
            return err;
    }
    return sysfile_write(text, "%s/%s/%s", cg->base, cg->name, cg->v2 ? "memory.max" : "memory.limit_in_bytes");
}

static void remove_dir(const char *base, const char *name)
{
    char path[PATH_MAX + NAME_MAX + 2];
    const struct timespec pause = {.tv_nsec = 10 * 1000 * 1000};

    snprintf(path, sizeof(path), "%s/%s", base, name);
    for (unsigned tries = 0; rmdir(path) != 0 && errno == EBUSY && tries < 100; tries++)
        nanosleep(&pause, NULL);
}

void kernel_cgroup_remove(const struct kernel_cgroup *cg)
{
    if (cg->name[0])
        remove_dir(cg->base, cg->name);
}

bool kernel_name_is_stale(const char *name)
{
    int pid, len = 0;
    unsigned n;

    if (sscanf(name, "ebb-%d-%u%n", &pid, &n, &len) != 2 || name[len] || pid <= 0)
        return false;
    return kill(pid, 0) != 0 && errno == ESRCH;
}

void kernel_cgroup_sweep(const struct kernel_cgroup *cg)
{
    DIR *dir = opendir(cg->base);

    for (struct dirent *entry; dir && (entry = readdir(dir)) != NULL;)
        if (kernel_name_is_stale(entry->d_name))
            remove_dir(cg->base, entry->d_name);
    if (dir)
        closedir(dir);
}

void kernel_cgroup_refresh(const struct kernel_cgroup *cg)
{
    char one[2];
    int err = sysfile_read(one, sizeof(one), "%s/%s/memory.stat", cg->base, cg->name);

    (void)err; /* one byte is enough: the sum is made before the text */
}

uint64_t kernel_cgroup_usage_bytes(const struct kernel_cgroup *cg)
{
    return sysfile_number("%s/%s/%s", cg->base, cg->name, cg->v2 ? "memory.current" : "memory.usage_in_bytes");
}

uint64_t kernel_cgroup_peak_bytes(const struct kernel_cgroup *cg)
{
    return sysfile_number("%s/%s/%s", cg->base, cg->name, cg->v2 ? "memory.peak" : "memory.max_usage_in_bytes");
}

uint64_t kernel_cgroup_limit_hits(const struct kernel_cgroup *cg)
{
    char events[512];

    if (!cg->v2)
        return sysfile_number("%s/%s/memory.failcnt", cg->base, cg->name);
    if (sysfile_read(events, sizeof(events), "%s/%s/memory.events", cg->base, cg->name))
        return 0;
    const char *at = strstr(events, "\nmax ");
    return at ? strtoull(at + 5, NULL, 10) : 0;
}
