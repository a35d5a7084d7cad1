/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The payload of a bzImage. gzip, xz and the rest are left to the kernel, which unpacks itself at its 64-bit entry: these two are
 * what Debian's kernels use, and our libraries are there for zram anyway.
 */
#include "vmm/boot/kernel.h"

#include <errno.h>
#include <limits.h>
#include <lz4.h>
#include <string.h>
#include <zstd.h>

static const uint8_t zstd_magic[] = {0x28, 0xb5, 0x2f, 0xfd};
/* The "legacy" frame (lz4 -l): magic, then blocks, each with its size before it and at most 8 MiB when unpacked. */
static const uint8_t lz4_magic[] = {0x02, 0x21, 0x4c, 0x18};

static int unpack_lz4(const uint8_t *packed, uint64_t bytes, uint8_t *out, uint64_t out_bytes)
{
    uint64_t done = 0;
    uint32_t block;

    for (uint64_t at = sizeof(lz4_magic); at < bytes; at += block) {
        if (bytes - at < sizeof(block))
            return -EINVAL;
        memcpy(&block, packed + at, sizeof(block));
        at += sizeof(block);
        if (block > bytes - at || block > INT_MAX)
            return -EINVAL;
        int got = LZ4_decompress_safe((const char *)packed + at, (char *)out + done, (int)block,
                                      (int)MIN_OF(out_bytes - done, INT_MAX));
        if (got < 0)
            return -EINVAL;
        done += (uint64_t)got;
    }
    return done == out_bytes ? 0 : -EINVAL;
}

int boot_unpack(const uint8_t *packed, uint64_t bytes, uint8_t *out, uint64_t out_bytes)
{
    if (bytes >= sizeof(zstd_magic) && memcmp(packed, zstd_magic, sizeof(zstd_magic)) == 0)
        /* An error is a huge number, never out_bytes. */
        return ZSTD_decompress(out, out_bytes, packed, bytes) == out_bytes ? 0 : -EINVAL;
    if (bytes >= sizeof(lz4_magic) && memcmp(packed, lz4_magic, sizeof(lz4_magic)) == 0)
        return unpack_lz4(packed, bytes, out, out_bytes);
    return -ENOTSUP;
}
