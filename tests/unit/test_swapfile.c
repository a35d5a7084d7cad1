/* SPDX-License-Identifier: Apache-2.0 */
/* Swap files on real files in a folder of their own: what is accepted, what is refused and how, what is left behind. */
#include "tests/fake/fail_alloc.h"
#include "vmm/swapfile.h"

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <sched.h>
#include <unistd.h>

#define AREA_PAGES 64u
#define AREA_BYTES (AREA_PAGES * PAGE_BYTES)

static char folder[128], path[192];
static struct swap_set *set;
static struct diag diag;
static uint8_t *buffer; /* AREA_PAGES pages */

static void setup(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(folder, sizeof(folder), "%.100s/ebb-swapfile-XXXXXX", tmp ? tmp : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/ebb.swap", folder);
    ck_assert_int_eq(swap_set_create(&set), 0);
    buffer = aligned_alloc(PAGE_BYTES, AREA_BYTES);
    ck_assert_ptr_nonnull(buffer);
}

/* Names in the folder. */
static unsigned nr_names(void)
{
    unsigned nr = 0;
    DIR *dir = opendir(folder);
    ck_assert_ptr_nonnull(dir);
    for (const struct dirent *entry; (entry = readdir(dir)) != NULL;)
        nr += entry->d_name[0] != '.';
    closedir(dir);
    return nr;
}

static void teardown(void)
{
    swap_set_destroy(set);
    free(buffer);
    unlink(path);
    ck_assert_int_eq(rmdir(folder), 0);
}

static unsigned nr_fds(void)
{
    unsigned nr = 0;
    DIR *dir = opendir("/proc/self/fd");
    ck_assert_ptr_nonnull(dir);
    while (readdir(dir))
        nr++;
    closedir(dir);
    return nr;
}

static void skip(const char *reason)
{
    printf("SKIP: %s\n", reason);
    fflush(stdout);
}

static void add_ok(const char *name, uint64_t size_bytes, unsigned flags)
{
    memset(&diag, 0, sizeof(diag));
    ck_assert_msg(swapfile_add(set, name, size_bytes, -1, flags, &diag) == 0, "%s", diag.text);
    ck_assert_str_eq(diag.text, "");
}

/* Adding is refused with @code in one line that has @word, and leaves nothing. */
static void add_refused(const char *name, uint64_t size_bytes, unsigned flags, enum exit_code code, const char *word)
{
    struct swap_area_stat stat[2];
    unsigned fds = nr_fds(), names = nr_names(), areas = swap_stat(set, stat, 2);
    memset(&diag, 0, sizeof(diag));
    ck_assert_int_eq(swapfile_add(set, name, size_bytes, -1, flags, &diag), -1);
    ck_assert_msg(strstr(diag.text, word) != NULL, "no \"%s\" in: %s", word, diag.text);
    ck_assert_msg(strchr(diag.text, '\n') == NULL && strlen(diag.text) < 390, "not one short line: %s", diag.text);
    ck_assert_msg(diag.code == code, "code %d: %s", (int)diag.code, diag.text);
    ck_assert_uint_eq(nr_fds(), fds);
    ck_assert_uint_eq(nr_names(), names);
    ck_assert_uint_eq(swap_stat(set, stat, 2), areas);
}

/* A file of @file_bytes with a header that says @nr_slots; without a header when that is 0. */
static void file_make(const char *name, uint64_t file_bytes, uint64_t nr_slots)
{
    uint8_t page[PAGE_BYTES], uuid[16] = {1};
    int fd = open(name, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, (off_t)file_bytes), 0);
    if (nr_slots) {
        swap_header_make(page, nr_slots, uuid, "user");
        ck_assert_int_eq(pwrite(fd, page, sizeof(page), 0), (ssize_t)sizeof(page));
    }
    close(fd);
}

static void file_poke(const char *name, off_t at, const void *bytes, size_t nr)
{
    int fd = open(name, O_WRONLY | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(pwrite(fd, bytes, nr, at), (ssize_t)nr);
    close(fd);
}

static void fill(uint8_t salt, unsigned nr)
{
    for (unsigned i = 0; i < nr * PAGE_BYTES; i++)
        buffer[i] = (uint8_t)(i * 31 + i / PAGE_BYTES * 7 + salt);
}

static bool is_filled(uint8_t salt, unsigned page)
{
    for (unsigned i = page * (unsigned)PAGE_BYTES; i < (page + 1) * PAGE_BYTES; i++)
        if (buffer[i] != (uint8_t)(i * 31 + i / PAGE_BYTES * 7 + salt))
            return false;
    return true;
}

static void buffer_pages(void *pages[], unsigned nr)
{
    for (unsigned i = 0; i < nr; i++)
        pages[i] = buffer + i * PAGE_BYTES;
}

/* Writes and reads back @nr pages. */
static void round_trip(unsigned nr)
{
    void *pages[SWAP_MAX_IO];
    int error[SWAP_MAX_IO];
    struct swap_ref ref;
    ck_assert_uint_eq(swap_alloc(set, nr, &ref), nr);
    buffer_pages(pages, nr);
    fill(3, nr);
    ck_assert_int_eq(swap_write(set, ref, pages, nr, error), 0);
    memset(buffer, 0, AREA_BYTES);
    ck_assert_int_eq(swap_read(set, ref, pages, nr, error), 0);
    for (unsigned i = 0; i < nr; i++)
        ck_assert(is_filled(3, i));
    for (unsigned i = 0; i < nr; i++)
        swap_free(set, (struct swap_ref){ref.area, ref.slot + i});
}

/* --- files that Ebb makes --------------------------------------------------------------------- */

static const unsigned ways[] = {
    0,
    SWAPFILE_NO_TMPFILE,
    SWAPFILE_NO_DIRECT,
    SWAPFILE_NO_URING,
    SWAPFILE_NO_URING | SWAPFILE_NO_DIRECT,
    SWAPFILE_DISCARD,
};

START_TEST(test_swapfile_made_has_no_name_and_is_gone_after_close)
{
    unsigned fds = nr_fds();
    struct swap_area_stat stat;
    add_ok(path, AREA_BYTES + 100, ways[_i]);
    ck_assert_uint_eq(nr_names(), 0);
    ck_assert_uint_eq(swap_stat(set, &stat, 1), 1);
    ck_assert_str_eq(stat.name, path);
    ck_assert_str_eq(stat.kind, "file");
    ck_assert_uint_eq(stat.size_bytes, AREA_BYTES - PAGE_BYTES);
    if (ways[_i] & SWAPFILE_NO_URING)
        ck_assert_ptr_nonnull(strstr(stat.transport, "pread, "));
    if (ways[_i] & SWAPFILE_NO_DIRECT)
        ck_assert_ptr_nonnull(strstr(stat.transport, ", buffered"));
    round_trip(AREA_PAGES - 1);
    round_trip(1);
    swap_area_enable(set, 0, false);
    ck_assert_int_eq(swap_area_remove(set, 0), 0);
    ck_assert_uint_eq(nr_fds(), fds);
    ck_assert_uint_eq(nr_names(), 0);
}
END_TEST

/* The open descriptor of a nameless file in our folder. */
static int find_nameless(void)
{
    for (int fd = 0; fd < 256; fd++) {
        char link[32], target[512];
        snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
        ssize_t got = readlink(link, target, sizeof(target) - 1);
        target[got > 0 ? got : 0] = 0;
        if (strncmp(target, folder, strlen(folder)) == 0 && strstr(target, "(deleted)"))
            return fd;
    }
    ck_abort_msg("no nameless file is open");
    return -1;
}

START_TEST(test_swapfile_made_is_private_and_has_its_room_and_header)
{
    add_ok(path, AREA_BYTES, ways[_i]);
    int fd = find_nameless();
    struct stat st;
    uint64_t nr_slots;
    ck_assert_int_eq(fstat(fd, &st), 0);
    ck_assert_uint_eq(st.st_mode & 07777, 0600);
    ck_assert_uint_eq(st.st_nlink, 0);
    ck_assert_uint_eq((uint64_t)st.st_size, AREA_BYTES);
    ck_assert_uint_ge((uint64_t)st.st_blocks * 512, AREA_BYTES);
    ck_assert_int_eq(pread(fd, buffer, PAGE_BYTES, 0), (ssize_t)PAGE_BYTES);
    ck_assert_int_eq(swap_header_read(buffer, &nr_slots), 0);
    ck_assert_uint_eq(nr_slots, AREA_PAGES);
}
END_TEST

START_TEST(test_swapfile_of_a_killed_process_leaves_nothing)
{
    int ready[2];
    char byte;
    ck_assert_int_eq(pipe(ready), 0);
    pid_t child = fork();
    if (child == 0) {
        bool ok = swapfile_add(set, path, AREA_BYTES, -1, ways[_i], &diag) == 0;
        ok = write(ready[1], ok ? "y" : "n", 1) == 1 && ok;
        pause();
        _exit(1);
    }
    ck_assert_int_eq(read(ready[0], &byte, 1), 1);
    ck_assert_int_eq(byte, 'y');
    ck_assert_int_eq(kill(child, SIGKILL), 0);
    ck_assert_int_eq(waitpid(child, NULL, 0), child);
    ck_assert_uint_eq(nr_names(), 0);
    close(ready[0]);
    close(ready[1]);
}
END_TEST

START_TEST(test_swapfile_discard_gives_room_back)
{
    struct stat st;
    struct swap_ref ref;
    void *pages[SWAP_MAX_IO];
    int error[SWAP_MAX_IO];
    add_ok(path, 1024 * PAGE_BYTES, SWAPFILE_DISCARD);
    int fd = find_nameless();
    buffer_pages(pages, 64);
    fill(1, 64);
    for (unsigned i = 0; i < 8; i++) {
        ck_assert_uint_eq(swap_alloc(set, 64, &ref), 64);
        ck_assert_int_eq(swap_write(set, ref, pages, 64, error), 0);
    }
    for (uint64_t slot = 256; slot < 512; slot++)
        swap_free(set, (struct swap_ref){0, slot});
    ck_assert_int_eq(fstat(fd, &st), 0);
    ck_assert_uint_eq((uint64_t)st.st_size, 1024 * PAGE_BYTES);
    ck_assert_uint_le((uint64_t)st.st_blocks * 512, 800 * PAGE_BYTES);
}
END_TEST

/* --- names and sizes that are refused --------------------------------------------------------- */

START_TEST(test_swapfile_names_that_cannot_be_are_refused)
{
    char name[300];
    add_refused(folder, AREA_BYTES, 0, EXIT_USAGE, "is a directory");
    add_refused("", AREA_BYTES, 0, EXIT_USAGE, "needs a name");
    add_refused("/dev/null", AREA_BYTES, 0, EXIT_USAGE, "neither a file nor a block device");
    snprintf(name, sizeof(name), "%s/none/ebb.swap", folder);
    add_refused(name, AREA_BYTES, 0, EXIT_USAGE, "no such directory");
    add_refused(name, AREA_BYTES, SWAPFILE_NO_TMPFILE, EXIT_USAGE, "mkdir -p");
    snprintf(name, sizeof(name), "%s/none/", folder);
    add_refused(name, AREA_BYTES, 0, EXIT_USAGE, "choose another name");
    memset(name, 'n', sizeof(name) - 1);
    name[sizeof(name) - 1] = 0;
    add_refused(name, AREA_BYTES, 0, EXIT_USAGE, "at most 255 bytes");
    ck_assert_int_eq(symlink("nowhere", path), 0);
    add_refused(path, AREA_BYTES, 0, EXIT_USAGE, "link to nothing");
}
END_TEST

START_TEST(test_swapfile_sizes_that_cannot_be_are_refused)
{
    add_refused(path, 0, 0, EXIT_USAGE, "size=1G");
    add_refused(path, 1, 0, EXIT_USAGE, "too small");
    add_refused(path, 15 * PAGE_BYTES + 4095, 0, EXIT_USAGE, "at least 64 KiB");
    add_refused(path, (UINT64_C(16) << 40) + PAGE_BYTES, 0, EXIT_USAGE, "at most 16T");
    add_refused(path, UINT64_MAX, 0, EXIT_USAGE, "at most 16T");
    add_ok(path, 16 * PAGE_BYTES, 0);
}
END_TEST

START_TEST(test_swapfile_named_twice_is_refused)
{
    add_ok(path, AREA_BYTES, 0);
    add_refused(path, AREA_BYTES, 0, EXIT_USAGE, "already");
}
END_TEST

START_TEST(test_swapfile_one_too_many_is_refused)
{
    char name[200];
    for (unsigned i = 0; i < MAX_SWAP_AREAS; i++) {
        snprintf(name, sizeof(name), "%s/swap%u", folder, i);
        add_ok(name, 16 * PAGE_BYTES, SWAPFILE_NO_URING);
    }
    add_refused(path, AREA_BYTES, 0, EXIT_USAGE, "one too many");
}
END_TEST

START_TEST(test_swapfile_above_the_file_size_limit_is_refused)
{
    struct rlimit limit = {.rlim_cur = AREA_BYTES - 1, .rlim_max = RLIM_INFINITY};
    file_make(path, AREA_BYTES, AREA_PAGES);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    add_refused(path, 0, 0, EXIT_USAGE, "ulimit -f");
    unlink(path);
    add_refused(path, AREA_BYTES, 0, EXIT_USAGE, "ulimit -f");
    add_ok(path, AREA_BYTES - PAGE_BYTES, 0);
}
END_TEST

START_TEST(test_swapfile_without_permission_is_refused)
{
    char other[192];
    snprintf(other, sizeof(other), "%s/other.swap", folder);
    file_make(other, AREA_BYTES, AREA_PAGES);
    ck_assert_int_eq(chmod(other, 0400), 0);
    ck_assert_int_eq(chmod(folder, 0555), 0);
    if (geteuid() == 0)
        ck_assert_int_eq(seteuid(65534), 0);
    add_refused(path, AREA_BYTES, 0, EXIT_USAGE, "no permission");
    add_refused(other, 0, 0, EXIT_USAGE, "no permission");
    if (getuid() == 0)
        ck_assert_int_eq(seteuid(0), 0);
    ck_assert_int_eq(chmod(folder, 0700), 0);
    unlink(other);
}
END_TEST

/* --- files that are there --------------------------------------------------------------------- */

START_TEST(test_swapfile_that_is_not_swap_is_refused_and_untouched)
{
    struct stat before, after;
    file_make(path, AREA_BYTES, 0);
    file_poke(path, 0, "precious", 8);
    ck_assert_int_eq(stat(path, &before), 0);
    add_refused(path, AREA_BYTES, 0, EXIT_USAGE, "mkswap");
    add_refused(path, 0, 0, EXIT_USAGE, "is not swap");
    ck_assert_int_eq(stat(path, &after), 0);
    ck_assert_int_eq(memcmp(&before.st_mtim, &after.st_mtim, sizeof(before.st_mtim)), 0);
    ck_assert_int_eq(before.st_size, after.st_size);
    char text[9] = "";
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ck_assert_int_eq(read(fd, text, 8), 8);
    close(fd);
    ck_assert_str_eq(text, "precious");
    ck_assert_int_eq(truncate(path, 0), 0);
    add_refused(path, AREA_BYTES, 0, EXIT_USAGE, "is not swap");
}
END_TEST

START_TEST(test_swapfile_with_a_header_is_used_and_kept)
{
    struct swap_area_stat stat;
    uint64_t nr_slots;
    file_make(path, AREA_BYTES, AREA_PAGES);
    add_ok(path, 0, 0);
    ck_assert_uint_eq(swap_stat(set, &stat, 1), 1);
    ck_assert_uint_eq(stat.size_bytes, AREA_BYTES - PAGE_BYTES);
    round_trip(AREA_PAGES - 1);
    swap_area_enable(set, 0, false);
    ck_assert_int_eq(swap_area_remove(set, 0), 0);
    ck_assert_uint_eq(nr_names(), 1);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ck_assert_int_eq(read(fd, buffer, PAGE_BYTES), (ssize_t)PAGE_BYTES);
    close(fd);
    ck_assert_int_eq(swap_header_read(buffer, &nr_slots), 0);
    ck_assert_mem_eq(buffer + 1052, "user", 5);
    add_ok(path, 20 * PAGE_BYTES, 0);
    ck_assert_uint_eq(swap_stat(set, &stat, 1), 1);
    ck_assert_uint_eq(stat.size_bytes, 19 * PAGE_BYTES);
}
END_TEST

START_TEST(test_swapfile_whose_header_does_not_fit_is_refused)
{
    file_make(path, AREA_BYTES, AREA_PAGES);
    add_refused(path, AREA_BYTES + PAGE_BYTES, 0, EXIT_USAGE, "leave size= out");
    file_make(path, AREA_BYTES - 1, AREA_PAGES);
    add_refused(path, 0, 0, EXIT_USAGE, "mkswap");
    file_make(path, AREA_BYTES, 15);
    add_refused(path, 0, 0, EXIT_USAGE, "at least 64 KiB");
    file_make(path, AREA_BYTES, AREA_PAGES);
    file_poke(path, 1032, "\1", 1);
    add_refused(path, 0, 0, EXIT_USAGE, "bad pages");
    file_make(path, AREA_BYTES, AREA_PAGES);
    file_poke(path, 4086, "S1SUSPEND", 10);
    add_refused(path, 0, 0, EXIT_USAGE, "hibernated");
}
END_TEST

START_TEST(test_swapfile_in_use_is_refused)
{
    int said[2], go[2];
    char byte, again[256];
    file_make(path, AREA_BYTES, AREA_PAGES);
    ck_assert_int_eq(pipe(said), 0);
    ck_assert_int_eq(pipe(go), 0);
    pid_t child = fork();
    if (child == 0) {
        bool ok = swapfile_add(set, path, 0, -1, 0, &diag) == 0;
        ok = write(said[1], ok ? "y" : "n", 1) == 1 && read(go[0], &byte, 1) == 1 && ok;
        _exit(ok ? 0 : 1);
    }
    ck_assert_int_eq(read(said[0], &byte, 1), 1);
    ck_assert_int_eq(byte, 'y');
    add_refused(path, 0, 0, EXIT_USAGE, "in use by another process");
    ck_assert_int_eq(write(go[1], "g", 1), 1);
    ck_assert_int_eq(waitpid(child, NULL, 0), child);
    add_ok(path, 0, 0);
    snprintf(again, sizeof(again), "%s/./ebb.swap", folder); /* the same file by another name */
    add_refused(again, 0, 0, EXIT_USAGE, "in use");
}
END_TEST

/* Descriptors run out: rings are refused first, then the file. */
START_TEST(test_swapfile_without_rings_works_and_without_descriptors_is_refused)
{
    struct rlimit limit = {.rlim_max = RLIM_INFINITY};
    struct swap_area_stat stat;
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    rlim_t before = limit.rlim_cur;
    int next = dup(0);
    ck_assert_int_ge(next, 0);
    close(next);
    limit.rlim_cur = (rlim_t)next;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    int err = swapfile_add(set, path, AREA_BYTES, -1, 0, &diag);
    limit.rlim_cur = before;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    ck_assert_int_eq(err, -1);
    ck_assert_int_eq(diag.code, EXIT_HOST);

    limit.rlim_cur = (rlim_t)next + 1;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    add_ok(path, AREA_BYTES, 0);
    limit.rlim_cur = before;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    ck_assert_uint_eq(swap_stat(set, &stat, 1), 1);
    ck_assert_ptr_nonnull(strstr(stat.transport, "pread, "));
    round_trip(AREA_PAGES - 1);
}
END_TEST

START_TEST(test_swapfile_failed_allocations_leave_nothing)
{
    unsigned fds = nr_fds();
    bool failed = true;
    for (long n = 1; failed; n++) {
        memset(&diag, 0, sizeof(diag));
        fail_alloc_at(n);
        int err = swapfile_add(set, path, AREA_BYTES, -1, 0, &diag);
        failed = fail_alloc_fired();
        fail_alloc_at(-1);
        if (err) {
            ck_assert_int_eq(diag.code, EXIT_HOST);
        } else { /* the probe for O_DIRECT may do without its page */
            swap_area_enable(set, 0, false);
            ck_assert_int_eq(swap_area_remove(set, 0), 0);
        }
        ck_assert(err == 0 || failed);
        ck_assert_uint_eq(nr_fds(), fds);
        ck_assert_uint_eq(nr_names(), 0);
    }
}
END_TEST

/* --- disks that are full or bad --------------------------------------------------------------- */

/* A tmpfs of @bytes on the folder, seen by this process only. False: not allowed, said as a skip. */
static bool mount_tmpfs(uint64_t bytes)
{
    char options[64];
    snprintf(options, sizeof(options), "size=%llu", (unsigned long long)bytes);
    if (unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
        mount("ebb-test", folder, "tmpfs", 0, options) == 0)
        return true;
    skip("a full disk needs the right to mount a tmpfs");
    return false;
}

START_TEST(test_swapfile_on_a_full_disk_is_refused)
{
    struct statvfs before, after;
    if (!mount_tmpfs(1 << 20))
        return;
    ck_assert_int_eq(statvfs(folder, &before), 0);
    add_refused(path, 4 << 20, 0, EXIT_HOST, "no room");
    add_refused(path, 4 << 20, SWAPFILE_NO_TMPFILE, EXIT_HOST, "has 1 MiB free");
    ck_assert_int_eq(statvfs(folder, &after), 0);
    ck_assert_uint_eq(before.f_bfree, after.f_bfree);
    add_ok(path, 1 << 20, 0);
    ck_assert_int_eq(statvfs(folder, &after), 0);
    ck_assert_uint_eq(after.f_bfree, 0);
    round_trip(64);
    swap_area_enable(set, 0, false);
    ck_assert_int_eq(swap_area_remove(set, 0), 0);
    ck_assert_int_eq(umount(folder), 0);
}
END_TEST

/* A file with holes: its room runs out while pages are written. Each page knows whether it is safe. */
START_TEST(test_swapfile_disk_that_fills_up_fails_the_pages_without_room)
{
    void *pages[SWAP_MAX_IO];
    int error[SWAP_MAX_IO];
    struct swap_ref ref;
    if (!mount_tmpfs(40 * PAGE_BYTES))
        return;
    file_make(path, AREA_BYTES, AREA_PAGES);
    add_ok(path, 0, ways[_i]);
    ck_assert_uint_eq(swap_alloc(set, 63, &ref), 63);
    buffer_pages(pages, 63);
    fill(9, 63);
    ck_assert_int_eq(swap_write(set, ref, pages, 63, error), -ENOSPC);
    unsigned nr_safe = 0;
    memset(buffer, 0, AREA_BYTES);
    for (unsigned i = 0; i < 63; i++) {
        int read_error;
        if (error[i]) {
            ck_assert_int_eq(error[i], -ENOSPC);
            continue;
        }
        nr_safe++;
        ck_assert_int_eq(swap_read(set, (struct swap_ref){ref.area, ref.slot + i}, &pages[i], 1, &read_error), 0);
        ck_assert(is_filled(9, i));
    }
    ck_assert_uint_ge(nr_safe, 30);
    ck_assert_uint_lt(nr_safe, 40);
    swap_area_enable(set, 0, false);
    for (unsigned i = 0; i < 63; i++)
        swap_free(set, (struct swap_ref){ref.area, ref.slot + i});
    ck_assert_int_eq(swap_area_remove(set, 0), 0);
    ck_assert_int_eq(umount2(folder, MNT_DETACH), 0);
}
END_TEST

START_TEST(test_swapfile_cut_short_by_somebody_fails_the_pages_that_are_gone)
{
    void *pages[SWAP_MAX_IO];
    int error[SWAP_MAX_IO];
    struct swap_ref ref;
    file_make(path, AREA_BYTES, AREA_PAGES);
    add_ok(path, 0, ways[_i]);
    ck_assert_uint_eq(swap_alloc(set, 40, &ref), 40);
    buffer_pages(pages, 40);
    fill(5, 40);
    ck_assert_int_eq(swap_write(set, ref, pages, 40, error), 0);
    ck_assert_int_eq(truncate(path, (off_t)((ref.slot + 25) * PAGE_BYTES + 1024)), 0);
    memset(buffer, 0, AREA_BYTES);
    ck_assert_int_eq(swap_read(set, ref, pages, 40, error), -EIO);
    for (unsigned i = 0; i < 40; i++) {
        ck_assert_int_eq(error[i], i < 25 ? 0 : -EIO);
        ck_assert(i >= 25 || is_filled(5, i));
    }
}
END_TEST

/* The limit ends a write in the middle of page 4: a short write, then an error for each page from there on. */
START_TEST(test_swapfile_short_write_is_continued_and_its_error_is_found)
{
    void *pages[SWAP_MAX_IO];
    int error[SWAP_MAX_IO];
    struct swap_ref ref;
    struct rlimit limit = {.rlim_cur = 5 * PAGE_BYTES + 2048, .rlim_max = RLIM_INFINITY};
    file_make(path, AREA_BYTES, AREA_PAGES);
    add_ok(path, 0, ways[_i]);
    ck_assert_uint_eq(swap_alloc(set, 8, &ref), 8);
    ck_assert_uint_eq(ref.slot, 1);
    buffer_pages(pages, 8);
    fill(6, 8);
    signal(SIGXFSZ, SIG_IGN);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    ck_assert_int_eq(swap_write(set, ref, pages, 8, error), -EFBIG);
    for (unsigned i = 0; i < 8; i++)
        ck_assert_int_eq(error[i], i < 4 ? 0 : -EFBIG);
    memset(buffer, 0, AREA_BYTES);
    ck_assert_int_eq(swap_read(set, ref, pages, 4, error), 0);
    for (unsigned i = 0; i < 4; i++)
        ck_assert(is_filled(6, i));
}
END_TEST

static void add_loop(TCase *tcase, const TTest *test, unsigned nr)
{
    tcase_add_loop_test(tcase, test, 0, (int)nr);
}

int main(void)
{
    Suite *suite = suite_create("swapfile");
    TCase *made = tcase_create("made");
    tcase_add_checked_fixture(made, setup, teardown);
    add_loop(made, test_swapfile_made_has_no_name_and_is_gone_after_close, ARRAY_LEN(ways));
    add_loop(made, test_swapfile_made_is_private_and_has_its_room_and_header, 2);
    add_loop(made, test_swapfile_of_a_killed_process_leaves_nothing, 2);
    tcase_add_test(made, test_swapfile_discard_gives_room_back);
    tcase_add_test(made, test_swapfile_without_rings_works_and_without_descriptors_is_refused);
    tcase_add_test(made, test_swapfile_failed_allocations_leave_nothing);
    suite_add_tcase(suite, made);

    TCase *refused = tcase_create("refused");
    tcase_add_checked_fixture(refused, setup, teardown);
    tcase_add_test(refused, test_swapfile_names_that_cannot_be_are_refused);
    tcase_add_test(refused, test_swapfile_sizes_that_cannot_be_are_refused);
    tcase_add_test(refused, test_swapfile_named_twice_is_refused);
    tcase_add_test(refused, test_swapfile_one_too_many_is_refused);
    tcase_add_test(refused, test_swapfile_above_the_file_size_limit_is_refused);
    tcase_add_test(refused, test_swapfile_without_permission_is_refused);
    suite_add_tcase(suite, refused);

    TCase *existing = tcase_create("existing");
    tcase_add_checked_fixture(existing, setup, teardown);
    tcase_add_test(existing, test_swapfile_that_is_not_swap_is_refused_and_untouched);
    tcase_add_test(existing, test_swapfile_with_a_header_is_used_and_kept);
    tcase_add_test(existing, test_swapfile_whose_header_does_not_fit_is_refused);
    tcase_add_test(existing, test_swapfile_in_use_is_refused);
    suite_add_tcase(suite, existing);

    TCase *bad = tcase_create("bad disks");
    tcase_add_checked_fixture(bad, setup, teardown);
    tcase_add_test(bad, test_swapfile_on_a_full_disk_is_refused);
    add_loop(bad, test_swapfile_disk_that_fills_up_fails_the_pages_without_room, ARRAY_LEN(ways));
    add_loop(bad, test_swapfile_cut_short_by_somebody_fails_the_pages_that_are_gone, ARRAY_LEN(ways));
    add_loop(bad, test_swapfile_short_write_is_continued_and_its_error_is_found, ARRAY_LEN(ways));
    suite_add_tcase(suite, bad);

    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
