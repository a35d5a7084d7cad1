/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The disk under a hostile driver, over a file in memory. The first byte chooses the disk: queues, read-only, direct,
 * with io_uring or without. The file never changes its size, and a read-only one not at all.
 */
#include "tests/fuzz/fuzz.h"

#include "devices/blk/blk.h"

#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_BYTES (64 << 10)

static struct fuzz_rig rig;
static int fd = -1;

static bool is_whole(bool read_only)
{
    char sector[512];
    struct stat st;

    if (fstat(fd, &st) != 0 || st.st_size != FILE_BYTES)
        return false;
    if (!read_only)
        return true;
    for (off_t at = 0; at < FILE_BYTES; at += (off_t)sizeof(sector)) {
        if (pread(fd, sector, sizeof(sector), at) != (ssize_t)sizeof(sector))
            return false;
        for (unsigned i = 0; i < sizeof(sector); i++) {
            if (sector[i] != 0)
                return false;
        }
    }
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct fuzz_input in = {.at = data, .left = bytes};
    uint8_t how = fuzz_u8(&in);
    char path[32], why[BLK_WHY_BYTES];
    struct blk_config config = {
        .path = path,
        .read_only = how & 1,
        .direct = how & 2,
        .no_uring = how & 4,
        .nr_queues = how & 8 ? 3 : 1,
        .pin_limit_bytes = BLOCK_BYTES,
    };
    struct blk *blk;
    struct blk_stat stat;

    if (fd < 0)
        fd = memfd_create("fuzz_blk", MFD_CLOEXEC);
    /* Zeros again. */
    if (fd < 0 || ftruncate(fd, 0) != 0 || ftruncate(fd, FILE_BYTES) != 0)
        fuzz_fail("no file in memory");
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    fuzz_prepare(&rig);
    if (blk_open(&config, &rig.env, &blk, why, sizeof(why)) != 0)
        fuzz_fail(why);
    fuzz_run(&rig, blk_device(blk), in.at, in.left, NULL, NULL);
    blk_stat(blk, &stat);
    if (stat.nr_busy > 0 || stat.pinned_bytes > 0)
        fuzz_fail("requests are under way after a reset");
    blk_close(blk);
    if (!is_whole(config.read_only))
        fuzz_fail("the file has changed where it must not");
    return 0;
}
