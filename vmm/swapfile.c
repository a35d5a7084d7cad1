/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opens what a swap area lies on. Steps that may refuse come first, in the order in which a user would ask: may this be
 * used at all, is it free, is it swap, is it large enough.
 *
 * O_DIRECT is set on the open descriptor: as a flag of open() it would make a file before it is refused.
 */
#include "vmm/swapfile.h"

#include "vmm/size.h"
#include "vmm/swapio.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define MAX_SLOTS (UINT64_C(1) << 32) /* the header's last page has 32 bits */
#define LABEL "ebb"

/* A path in a message: long ones lose their end. */
#define PATH_FORMAT "%.150s"

struct opening {
    const char *path;
    uint64_t want_bytes; /* 0: as it is */
    unsigned flags;
    struct diag *diag;
    /* the result */
    int fd; /* -1: none */
    bool device;
    uint64_t nr_slots;
};

/* --- messages --------------------------------------------------------------------------------- */

static int cannot_open(struct opening *o, int err)
{
    struct diag *diag = o->diag;
    switch (err) {
    case EACCES:
    case EPERM:
        return diag_set(diag, EXIT_USAGE,
                        "no permission for swap file " PATH_FORMAT ": choose a place you may write to, or run as root",
                        o->path);
    case ENOENT:
    case ENOTDIR:
        return diag_set(
            diag, EXIT_USAGE,
            "swap file " PATH_FORMAT ": there is no such directory; make it with mkdir -p, or choose another", o->path);
    case EROFS:
        return diag_set(diag, EXIT_USAGE,
                        "swap file " PATH_FORMAT " is on a read-only file system: choose another place", o->path);
    case EBUSY:
    case ETXTBSY:
        return diag_set(diag, EXIT_USAGE,
                        "swap file " PATH_FORMAT " is in use (mounted, or swap of this host): choose another", o->path);
    case ENAMETOOLONG:
    case ELOOP:
    case EISDIR:
        return diag_set(diag, EXIT_USAGE, "swap file " PATH_FORMAT ": %s; choose another name", o->path, strerror(err));
    default:
        return diag_set(diag, EXIT_HOST, "cannot open swap file " PATH_FORMAT ": %s; choose another place", o->path,
                        strerror(err));
    }
}

static uint64_t room_bytes(const struct statvfs *fs)
{
    return (geteuid() == 0 ? fs->f_bfree : fs->f_bavail) * fs->f_frsize;
}

static int disk_full(struct opening *o, const struct statvfs *fs)
{
    char need[SIZE_TEXT], room[SIZE_TEXT];
    return diag_set(o->diag, EXIT_HOST,
                    "no room for swap file " PATH_FORMAT
                    ": it needs %s, its disk has %s free; free some, or choose a smaller size= or another place",
                    o->path, size_text(need, o->want_bytes), size_text(room, room_bytes(fs)));
}

static int too_small(struct opening *o, uint64_t bytes)
{
    char has[SIZE_TEXT], least[SIZE_TEXT];
    return diag_set(o->diag, EXIT_USAGE, "swap file " PATH_FORMAT " is too small with %s: it needs at least %s",
                    o->path, size_text(has, bytes), size_text(least, SWAPFILE_MIN_PAGES * PAGE_BYTES));
}

static int too_large(struct opening *o)
{
    return diag_set(o->diag, EXIT_USAGE,
                    "swap file " PATH_FORMAT
                    " is larger than `ulimit -f` or its file system allows: raise the limit, or choose a smaller size=",
                    o->path);
}

/* Writing past this limit would end the process (SIGXFSZ). */
static bool within_limit(uint64_t bytes)
{
    struct rlimit limit;
    return getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY || bytes <= limit.rlim_cur;
}

/* --- a file of our own ------------------------------------------------------------------------ */

/* A descriptor of a new file without a name, or -errno. */
static int open_nameless(const struct opening *o)
{
    char directory[4096];
    const char *slash = strrchr(o->path, '/');
    if (!slash)
        strcpy(directory, ".");
    else if ((size_t)snprintf(directory, sizeof(directory), "%.*s", (int)(slash - o->path + 1), o->path) >=
             sizeof(directory))
        return -ENAMETOOLONG;
    int fd = -1;
    if (!(o->flags & SWAPFILE_NO_TMPFILE))
        fd = open(directory, O_TMPFILE | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0)
        return fd;
    /* The file system may have no nameless files; whatever else is wrong shows again here. */
    fd = open(o->path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    unlink(o->path);
    return fd;
}

static bool write_header(const struct opening *o)
{
    uint8_t page[PAGE_BYTES], uuid[16] = {0};
    (void)!getrandom(uuid, sizeof(uuid), GRND_NONBLOCK);
    uuid[6] = (uint8_t)((uuid[6] & 0x0f) | 0x40); /* RFC 9562: version 4, variant 10 */
    uuid[8] = (uint8_t)((uuid[8] & 0x3f) | 0x80);
    swap_header_make(page, o->nr_slots, uuid, LABEL);
    return pwrite(o->fd, page, sizeof(page), 0) == (ssize_t)sizeof(page);
}

/* All of the file's room is taken now, so that a full disk is found now. */
static int fill_new(struct opening *o)
{
    struct statvfs fs;
    if (fstatvfs(o->fd, &fs) != 0)
        return cannot_open(o, errno);
    /* Asked first: a try that fails would fill the disk for a moment. Without limit, a tmpfs says 0 of 0. */
    if (fs.f_blocks > 0 && room_bytes(&fs) < o->want_bytes)
        return disk_full(o, &fs);
    int err = posix_fallocate(o->fd, 0, (off_t)o->want_bytes);
    if (err == ENOSPC || err == EDQUOT)
        return disk_full(o, &fs);
    if (err == EFBIG)
        return too_large(o);
    if (err)
        return cannot_open(o, err);
    return write_header(o) ? 0 : cannot_open(o, errno);
}

static int open_new(struct opening *o)
{
    struct stat st;
    if (lstat(o->path, &st) == 0)
        return diag_set(o->diag, EXIT_USAGE, "swap file " PATH_FORMAT " is a link to nothing: choose another name",
                        o->path);
    if (o->want_bytes == 0)
        return diag_set(o->diag, EXIT_USAGE,
                        "swap file " PATH_FORMAT " does not exist: say how large it is to be, as in size=1G", o->path);
    if (!within_limit(o->want_bytes))
        return too_large(o);
    o->fd = open_nameless(o);
    if (o->fd < 0)
        return cannot_open(o, -o->fd);
    o->nr_slots = o->want_bytes / PAGE_BYTES;
    return fill_new(o);
}

/* --- what is there already -------------------------------------------------------------------- */

/* Undoes the octal escapes of /proc files, in place. */
static void unescape(char *text)
{
    char *to = text;
    for (const char *at = text; *at; to++) {
        unsigned code;
        if (*at == '\\' && sscanf(at + 1, "%3o", &code) == 1) {
            *to = (char)code;
            at += 4;
        } else {
            *to = *at++;
        }
    }
    *to = 0;
}

/* True when the kernel itself swaps to what @st describes. */
static bool is_active_swap(const struct stat *st)
{
    FILE *swaps = fopen("/proc/swaps", "re");
    char *line = NULL;
    size_t line_bytes = 0;
    bool active = false;
    if (!swaps)
        return false;
    while (!active && getline(&line, &line_bytes, swaps) > 0) {
        struct stat other;
        line[strcspn(line, " \t\n")] = 0;
        unescape(line);
        if (line[0] != '/' || stat(line, &other) != 0)
            continue;
        active = S_ISBLK(st->st_mode) ? S_ISBLK(other.st_mode) && other.st_rdev == st->st_rdev
                                      : other.st_dev == st->st_dev && other.st_ino == st->st_ino;
    }
    free(line);
    fclose(swaps);
    return active;
}

static int open_for_us(struct opening *o, const struct stat *st)
{
    struct stat opened;
    if (is_active_swap(st))
        return diag_set(o->diag, EXIT_USAGE,
                        "swap file " PATH_FORMAT " is in use as swap of this host: run swapoff " PATH_FORMAT
                        ", or choose another",
                        o->path, o->path);
    o->fd = open(o->path, O_RDWR | O_CLOEXEC | (S_ISBLK(st->st_mode) ? O_EXCL : 0));
    if (o->fd < 0)
        return cannot_open(o, errno);
    if (fstat(o->fd, &opened) != 0 || opened.st_dev != st->st_dev || opened.st_ino != st->st_ino)
        return diag_set(o->diag, EXIT_USAGE, "swap file " PATH_FORMAT " was replaced meanwhile: try again", o->path);
    if (flock(o->fd, LOCK_EX | LOCK_NB) == 0)
        return 0;
    if (errno != EWOULDBLOCK)
        return diag_set(o->diag, EXIT_HOST, "swap file " PATH_FORMAT " cannot be locked: %s; choose another place",
                        o->path, strerror(errno));
    return diag_set(o->diag, EXIT_USAGE,
                    "swap file " PATH_FORMAT " is in use by another process: end it, or choose another file", o->path);
}

static int read_header(struct opening *o)
{
    uint8_t page[PAGE_BYTES];
    ssize_t got = pread(o->fd, page, sizeof(page), 0);
    int err = got < 0 ? -errno : got < (ssize_t)sizeof(page) ? -EINVAL : swap_header_read(page, &o->nr_slots);
    switch (err) {
    case 0:
        return 0;
    case -EINVAL:
        return diag_set(o->diag, EXIT_USAGE,
                        PATH_FORMAT " exists and is not swap, so it is left alone: choose another name, or, if its "
                                    "content may go, run mkswap " PATH_FORMAT,
                        o->path, o->path);
    case -EBUSY:
        return diag_set(o->diag, EXIT_USAGE, "swap file " PATH_FORMAT " holds a hibernated system: choose another",
                        o->path);
    case -ENOTSUP:
        return diag_set(o->diag, EXIT_USAGE,
                        "swap file " PATH_FORMAT " has a list of bad pages: choose another, or run mkswap on it again",
                        o->path);
    default:
        return cannot_open(o, -err);
    }
}

static int check_size(struct opening *o, const struct stat *st)
{
    uint64_t has_bytes = (uint64_t)st->st_size;
    char says[SIZE_TEXT], has[SIZE_TEXT];
    if (o->device && ioctl(o->fd, BLKGETSIZE64, &has_bytes) != 0)
        return cannot_open(o, errno);
    if (o->nr_slots > has_bytes / PAGE_BYTES)
        return diag_set(o->diag, EXIT_USAGE,
                        "swap file " PATH_FORMAT " has %s but its header says %s: run mkswap on it again", o->path,
                        size_text(has, has_bytes), size_text(says, o->nr_slots * PAGE_BYTES));
    if (o->nr_slots < SWAPFILE_MIN_PAGES)
        return too_small(o, o->nr_slots * PAGE_BYTES);
    if (o->want_bytes / PAGE_BYTES > o->nr_slots)
        return diag_set(o->diag, EXIT_USAGE,
                        "swap file " PATH_FORMAT " has %s, not the %s asked for: leave size= out, or choose another",
                        o->path, size_text(has, o->nr_slots * PAGE_BYTES), size_text(says, o->want_bytes));
    if (o->want_bytes)
        o->nr_slots = o->want_bytes / PAGE_BYTES;
    return o->device || within_limit(o->nr_slots * PAGE_BYTES) ? 0 : too_large(o);
}

static int open_existing(struct opening *o, const struct stat *st)
{
    if (S_ISDIR(st->st_mode))
        return diag_set(o->diag, EXIT_USAGE, "swap file " PATH_FORMAT " is a directory: name a file in it", o->path);
    if (!S_ISREG(st->st_mode) && !S_ISBLK(st->st_mode))
        return diag_set(o->diag, EXIT_USAGE,
                        "swap file " PATH_FORMAT " is neither a file nor a block device: choose another name", o->path);
    o->device = S_ISBLK(st->st_mode);
    if (open_for_us(o, st) || read_header(o))
        return -1;
    return check_size(o, st);
}

/* --- the area --------------------------------------------------------------------------------- */

/* Past the page cache, where the file system can. */
static bool set_direct(const struct opening *o)
{
    int status = fcntl(o->fd, F_GETFL);
    if (o->flags & SWAPFILE_NO_DIRECT || status < 0 || fcntl(o->fd, F_SETFL, status | O_DIRECT) != 0)
        return false;
    void *page;
    if (posix_memalign(&page, PAGE_BYTES, PAGE_BYTES) != 0)
        page = NULL;
    bool works = page && pread(o->fd, page, PAGE_BYTES, 0) == (ssize_t)PAGE_BYTES;
    free(page);
    if (!works)
        (void)fcntl(o->fd, F_SETFL, status);
    return works;
}

static int add_area(struct swap_set *set, struct opening *o, int priority)
{
    bool direct = set_direct(o);
    struct swapio_config config = {
        .direct = direct,
        .device = o->device,
        .discard = o->flags & SWAPFILE_DISCARD,
        /* Into the page cache, plain calls cost half of what io_uring's do (docs/parts/swap.md). */
        .uring = direct && !(o->flags & SWAPFILE_NO_URING),
    };
    struct swapio *io;
    int err = swapio_create(o->fd, &config, &io);
    if (!err) {
        o->fd = -1;
        const char *kind = o->device ? "partition" : "file";
        err = swap_area_add(set, o->path, kind, o->nr_slots, priority, swapio_backend(io), io);
        if (err >= 0)
            return 0;
        swapio_destroy(io);
    }
    if (err == -ENOSPC)
        return diag_set(o->diag, EXIT_USAGE, "swap file " PATH_FORMAT " is one too many: at most %d areas", o->path,
                        MAX_SWAP_AREAS);
    return diag_set(o->diag, EXIT_HOST, "swap file " PATH_FORMAT ": %s", o->path, strerror(-err));
}

/* What can be said without looking at the file. */
static int check_request(struct swap_set *set, struct opening *o)
{
    if (o->path[0] == 0)
        return diag_set(o->diag, EXIT_USAGE, "a swap file needs a name, as in --swap ebb.swap,size=1G");
    if (strlen(o->path) >= SWAP_NAME_BYTES)
        return diag_set(o->diag, EXIT_USAGE, "swap file " PATH_FORMAT "...: names have at most %d bytes", o->path,
                        SWAP_NAME_BYTES - 1);
    if (swap_area_find(set, o->path) >= 0)
        return diag_set(o->diag, EXIT_USAGE, "swap file " PATH_FORMAT " is a swap area here already: name each once",
                        o->path);
    if (o->want_bytes != 0 && o->want_bytes < SWAPFILE_MIN_PAGES * PAGE_BYTES)
        return too_small(o, o->want_bytes);
    o->want_bytes -= o->want_bytes % PAGE_BYTES;
    if (o->want_bytes / PAGE_BYTES > MAX_SLOTS)
        return diag_set(o->diag, EXIT_USAGE, "swap file " PATH_FORMAT " is too large: at most 16T", o->path);
    return 0;
}

static int open_any(struct opening *o)
{
    struct stat st;
    if (stat(o->path, &st) == 0)
        return open_existing(o, &st);
    return errno == ENOENT ? open_new(o) : cannot_open(o, errno);
}

int swapfile_add(struct swap_set *set, const char *path, uint64_t size_bytes, int priority, unsigned flags,
                 struct diag *diag)
{
    struct opening o = {.path = path, .want_bytes = size_bytes, .flags = flags, .diag = diag, .fd = -1};
    int err = check_request(set, &o);
    if (!err)
        err = open_any(&o);
    if (!err)
        err = add_area(set, &o, priority);
    if (o.fd >= 0)
        close(o.fd);
    return err;
}
