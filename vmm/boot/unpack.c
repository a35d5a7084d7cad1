/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The payload of a bzImage, read in pieces: nothing here holds all of it, packed or unpacked. gzip, xz and the rest are left
 * to the kernel, which unpacks itself at its 64-bit entry: these two are what Debian's kernels use, and our libraries are
 * there for zram anyway.
 */
#include "vmm/boot/kernel.h"

/* ZSTD_d_stableOutBuffer; where a library does not know it, we unpack nothing. */
#define ZSTD_STATIC_LINKING_ONLY
#include <lz4.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#define MAGIC_BYTES 4
static const uint8_t zstd_magic[MAGIC_BYTES] = {0x28, 0xb5, 0x2f, 0xfd};
/* The "legacy" frame (lz4 -l): magic, then blocks, each with its size before it and at most 8 MiB when unpacked. */
static const uint8_t lz4_magic[MAGIC_BYTES] = {0x02, 0x21, 0x4c, 0x18};
#define LZ4_BLOCK_BYTES (8u << 20)
#define LZ4_PACKED_BYTES ((uint32_t)LZ4_COMPRESSBOUND(LZ4_BLOCK_BYTES))

#define CHUNK_BYTES (16 * PAGE_BYTES)

static int damaged(const struct boot_image *image, struct diag *diag)
{
    return boot_image_bad(image, diag, "damaged: its payload cannot be unpacked; get another copy");
}

/* The output is the window, too: zstd keeps no copy of it. Windows may be as large as the library can have them. */
static bool set_up(ZSTD_DCtx *zstd)
{
    ZSTD_bounds log = ZSTD_dParam_getBounds(ZSTD_d_windowLogMax);

    return !ZSTD_isError(log.error) && !ZSTD_isError(ZSTD_DCtx_setParameter(zstd, ZSTD_d_stableOutBuffer, 1)) &&
           !ZSTD_isError(ZSTD_DCtx_setParameter(zstd, ZSTD_d_windowLogMax, log.upperBound));
}

static int unpack_zstd(const struct boot_image *image, uint64_t at, uint64_t end, ZSTD_outBuffer out, struct diag *diag)
{
    uint8_t chunk[CHUNK_BYTES];
    size_t missing = 0; /* of the input, for the next step; 0: a frame is complete */
    ZSTD_DCtx *zstd = ZSTD_createDCtx();

    if (!zstd)
        return diag_set(diag, EXIT_HOST, "out of memory");
    int err = set_up(zstd) ? 0 : 1;
    while (at < end && !err) {
        uint64_t bytes = MIN_OF(end - at, CHUNK_BYTES);
        ZSTD_inBuffer in = {chunk, 0, 0};
        err = boot_image_read(image, at, chunk, bytes, diag);
        /* One block at a time, 128 KiB when unpacked: all that a chunk holds may be gigabytes. */
        while (in.pos < bytes && !err && !(err = boot_image_go_on(image, diag))) {
            in.size = MIN_OF(bytes, in.pos + MAX_OF(missing, 1u));
            missing = ZSTD_decompressStream(zstd, &out, &in);
            if (ZSTD_isError(missing))
                err = damaged(image, diag);
        }
        at += bytes;
    }
    ZSTD_freeDCtx(zstd);
    return err ? err : missing == 0 && out.pos == out.size ? 0 : damaged(image, diag);
}

/* The block at *at, which is behind it afterwards. Returns how much came out, at most @room; -1 with @diag. */
static int unpack_block(const struct boot_image *image, uint64_t *at, uint64_t end, char *packed, char *out,
                        uint64_t room, struct diag *diag)
{
    uint32_t bytes;

    if (end - *at < sizeof(bytes))
        return damaged(image, diag);
    if (boot_image_read(image, *at, &bytes, sizeof(bytes), diag))
        return -1;
    *at += sizeof(bytes);
    if (bytes > MIN_OF(end - *at, LZ4_PACKED_BYTES))
        return damaged(image, diag);
    if (boot_image_read(image, *at, packed, bytes, diag))
        return -1;
    *at += bytes;
    int got = LZ4_decompress_safe(packed, out, (int)bytes, (int)MIN_OF(room, LZ4_BLOCK_BYTES));
    return got < 0 ? damaged(image, diag) : got;
}

static int unpack_lz4(const struct boot_image *image, uint64_t at, uint64_t end, char *out, uint64_t out_bytes,
                      struct diag *diag)
{
    char *packed = malloc(LZ4_PACKED_BYTES);
    uint64_t done = 0;
    int got = 0;

    if (!packed)
        return diag_set(diag, EXIT_HOST, "out of memory");
    for (at += MAGIC_BYTES; at < end && got >= 0; done += (uint64_t)MAX_OF(got, 0))
        got = unpack_block(image, &at, end, packed, out + done, out_bytes - done, diag);
    free(packed);
    return got < 0 ? -1 : done == out_bytes ? 0 : damaged(image, diag);
}

int boot_unpack(const struct boot_image *image, uint64_t offset, uint64_t bytes, void *out, uint64_t out_bytes,
                struct diag *diag)
{
    uint8_t magic[MAGIC_BYTES];

    if (bytes < sizeof(magic))
        return 1;
    if (boot_image_read(image, offset, magic, sizeof(magic), diag))
        return -1;
    if (memcmp(magic, zstd_magic, sizeof(magic)) == 0)
        return unpack_zstd(image, offset, offset + bytes, (ZSTD_outBuffer){out, out_bytes, 0}, diag);
    if (memcmp(magic, lz4_magic, sizeof(magic)) == 0)
        return unpack_lz4(image, offset, offset + bytes, out, out_bytes, diag);
    return 1;
}
