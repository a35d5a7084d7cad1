/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Workloads on a virtio disk: a tree of files on the file system that it holds, and numbered blocks on the bare device.
 *
 * Numbered blocks: block number n of a device of N blocks holds the last number s with s % N = n that was written. So
 * whoever knows that all up to s have been flushed knows for each block which number it must hold at least.
 */
#include "guest-images/linux/guest.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLOCK_WORDS (GUEST_PAGE_BYTES / sizeof(uint64_t))
#define BATCH_BLOCKS 16u
#define NR_FILES 32u
#define NR_FOLDERS 4u
#define TREE_MIB 16u
#define MAX_TREE_MIB 4096u
#define PATH_BYTES 64
#define BLOCK_MAGIC UINT64_C(0x6b636f6c62626265) /* "ebbblock" */

struct tree {
    uint64_t seed, bytes;
};

/* --- the tree --------------------------------------------------------------------------------- */

/* Files grow in size, and but for the last none ends with a block. */
static uint64_t file_bytes(const struct tree *tree, unsigned i)
{
    return tree->bytes * 2 * (i + 1) / (NR_FILES * (NR_FILES + 1)) + i % 7;
}

static char *file_path(unsigned i, char path[PATH_BYTES])
{
    snprintf(path, PATH_BYTES, "/disk/tree/%u/file%u", i % NR_FOLDERS, i);
    return path;
}

/* Writes or compares one file; 0, or -errno, -EILSEQ when the content is wrong. */
static int file_do(const struct tree *tree, unsigned i, bool is_write)
{
    char path[PATH_BYTES];
    uint64_t expect[BLOCK_WORDS], found[BLOCK_WORDS], left = file_bytes(tree, i);
    int fd = open(file_path(i, path), is_write ? O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC : O_RDONLY | O_CLOEXEC, 0644);
    int error = 0;

    if (fd < 0)
        return -errno;
    for (uint64_t block = 0; left > 0 && error == 0; block++) {
        size_t part = left < sizeof(expect) ? (size_t)left : sizeof(expect);
        fill_random(expect, BLOCK_WORDS, tree->seed, i, block);
        ssize_t n = is_write ? write(fd, expect, part) : read(fd, found, part);
        if (n < 0)
            error = -errno;
        else if ((size_t)n != part || (!is_write && memcmp(expect, found, part) != 0))
            error = -EILSEQ;
        left -= part;
    }
    if (!is_write && error == 0 && read(fd, found, 1) != 0)
        error = -EILSEQ;
    if (is_write && error == 0 && fsync(fd) != 0)
        error = -errno;
    close(fd);
    return error;
}

static int tree_do(const struct words *words, const struct tree *tree, bool is_write)
{
    char path[PATH_BYTES];

    for (unsigned i = 0; i < NR_FILES; i++) {
        int error = file_do(tree, i, is_write);
        if (error == -EILSEQ)
            return failed(words, "%s: wrong content", file_path(i, path));
        if (error != 0)
            return failed(words, "%s: %s", file_path(i, path), strerror(-error));
    }
    return 0;
}

/* Written last: a tree without it is made anew. */
static int write_manifest(const struct words *words, const struct tree *tree)
{
    FILE *file = fopen("/disk/tree/manifest", "we");
    bool good = file && fprintf(file, "%" PRIu64 " %" PRIu64 "\n", tree->seed, tree->bytes) > 0 && fflush(file) == 0 &&
                fsync(fileno(file)) == 0;

    if (file)
        fclose(file);
    return good ? 0 : failed(words, "/disk/tree/manifest: %s", strerror(errno));
}

static bool read_manifest(struct tree *tree)
{
    FILE *file = fopen("/disk/tree/manifest", "re");
    bool good = file && fscanf(file, "%" SCNu64 " %" SCNu64, &tree->seed, &tree->bytes) == 2;

    if (file)
        fclose(file);
    return good;
}

/* Makes the tree if there is none, then reads all of it from the disk. */
static int check_tree(const struct words *words, struct tree *tree)
{
    char path[PATH_BYTES];
    bool is_new = !read_manifest(tree);

    if (is_new) {
        mkdir("/disk/tree", 0755);
        for (unsigned i = 0; i < NR_FOLDERS; i++) {
            snprintf(path, sizeof(path), "/disk/tree/%u", i);
            mkdir(path, 0755);
        }
        if (tree_do(words, tree, true) != 0 || write_manifest(words, tree) != 0)
            return -1;
    }
    sync();
    write_text("/proc/sys/vm/drop_caches", "3");
    if (tree_do(words, tree, false) != 0)
        return -1;
    return passed(words, "%s files=%u bytes=%" PRIu64, is_new ? "made" : "found", NR_FILES, tree->bytes);
}

int work_disk_sum(struct guest *guest, const struct words *words)
{
    struct tree tree = {.seed = guest->seed};
    char path[PATH_BYTES];
    uint64_t mib;

    if (!number_arg(words, 2, MAX_TREE_MIB, TREE_MIB, &mib) || mib == 0)
        return failed(words, "'%s' is no number of MiB up to %u", words->arg[2], MAX_TREE_MIB);
    tree.bytes = mib * GUEST_MIB;
    snprintf(path, sizeof(path), "/dev/%s", words->arg[1]);
    mkdir("/disk", 0755);
    if (mount(path, "/disk", "ext4", MS_NOATIME, "") != 0)
        return failed(words, "cannot mount %s: %s%s", path, strerror(errno),
                      errno == EINVAL ? "; make a file system on it first: mke2fs IMAGE" : "");
    int result = check_tree(words, &tree);
    if (umount("/disk") != 0 && result == 0)
        result = failed(words, "cannot unmount %s: %s", path, strerror(errno));
    return result;
}

/* --- numbered blocks ------------------------------------------------------------------------------ */

static void make_block(uint64_t *block, uint64_t number)
{
    block[0] = BLOCK_MAGIC;
    block[1] = number;
    fill_random(block + 2, BLOCK_WORDS - 2, BLOCK_MAGIC, number, 1);
}

/* A descriptor, and *nr_blocks of the device; -1 after failed(). */
static int open_device(const struct words *words, int flags, uint64_t *nr_blocks)
{
    char path[PATH_BYTES];
    uint64_t bytes = 0;

    snprintf(path, sizeof(path), "/dev/%s", words->arg[1]);
    int fd = open(path, flags | O_CLOEXEC);
    if (fd < 0 || ioctl(fd, BLKGETSIZE64, &bytes) != 0 || bytes / GUEST_PAGE_BYTES < BATCH_BLOCKS) {
        failed(words, "%s: %s", path, fd < 0 ? strerror(errno) : "no block device, or too small");
        if (fd >= 0)
            close(fd);
        return -1;
    }
    *nr_blocks = bytes / GUEST_PAGE_BYTES;
    return fd;
}

/* Ends only with an error: whoever runs the guest ends it. */
int work_disk_flush(struct guest *guest, const struct words *words)
{
    uint64_t block[BLOCK_WORDS], nr_blocks, number;

    (void)guest;
    if (!number_arg(words, 2, UINT64_C(1) << 48, 1, &number) || number == 0)
        return failed(words, "'%s' is no number of a block", words->arg[2]);
    int fd = open_device(words, O_RDWR, &nr_blocks);
    if (fd < 0)
        return -1;
    say("flushing from=%" PRIu64 " blocks=%" PRIu64, number, nr_blocks);
    for (;;) {
        for (unsigned i = 0; i < BATCH_BLOCKS; i++, number++) {
            make_block(block, number);
            if (pwrite(fd, block, sizeof(block), (off_t)(number % nr_blocks * sizeof(block))) != sizeof(block)) {
                close(fd);
                return failed(words, "block %" PRIu64 ": %s", number, strerror(errno));
            }
        }
        if (fdatasync(fd) != 0) {
            close(fd);
            return failed(words, "flush after %" PRIu64 ": %s", number - 1, strerror(errno));
        }
        say("flushed %" PRIu64, number - 1);
    }
}

/* The least number that block @slot holds once all up to @flushed are on the disk; 0: nothing need be there. */
static uint64_t least_number(uint64_t slot, uint64_t flushed, uint64_t nr_blocks)
{
    uint64_t back = (flushed % nr_blocks + nr_blocks - slot) % nr_blocks;

    return flushed >= back ? flushed - back : 0;
}

int work_disk_check(struct guest *guest, const struct words *words)
{
    uint64_t found[BLOCK_WORDS], expect[BLOCK_WORDS], nr_blocks, flushed, nr_newer = 0;

    (void)guest;
    if (!number_arg(words, 2, UINT64_C(1) << 48, 0, &flushed))
        return failed(words, "'%s' is no number of a block", words->arg[2]);
    int fd = open_device(words, O_RDONLY, &nr_blocks);
    if (fd < 0)
        return -1;
    for (uint64_t slot = 0; slot < nr_blocks; slot++) {
        uint64_t least = least_number(slot, flushed, nr_blocks);
        const char *wrong = NULL;
        if (pread(fd, found, sizeof(found), (off_t)(slot * sizeof(found))) != sizeof(found))
            wrong = "cannot be read";
        else if (found[0] != BLOCK_MAGIC)
            wrong = least > 0 ? "was never written" : NULL;
        else {
            make_block(expect, found[1]);
            if (memcmp(found, expect, sizeof(found)) != 0 || found[1] % nr_blocks != slot)
                wrong = "is damaged";
            else if (found[1] < least)
                wrong = "is older than what was flushed";
            nr_newer += found[1] > flushed;
        }
        if (wrong) {
            close(fd);
            return failed(words, "block %" PRIu64 " of %" PRIu64 " %s; flushed %" PRIu64, slot, nr_blocks, wrong,
                          flushed);
        }
    }
    close(fd);
    return passed(words, "flushed=%" PRIu64 " newer=%" PRIu64, flushed, nr_newer);
}
