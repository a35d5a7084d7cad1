/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LZ4: the block API with its 16 KiB hash table kept in the codec. Clearing the table costs 0.12-0.15 us of the 5 us
 * that a page of text takes; the streaming API, which need not clear it, takes at least 1 us longer a page (32-bit
 * table entries, half as many of them).
 *
 * zstd: a frame without checksum (the store has its own). The contexts size their workspace at the first call, so
 * codec_create makes one: from then on the same level and length fit and nothing is allocated.
 */
#include "mm/swap/codec.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <lz4.h>
#include <zstd.h>

#define LZ4_ACCELERATION_DEFAULT 1
#define LZ4_ACCELERATION_MAX 65537 /* lz4.c, LZ4_ACCELERATION_MAX */
#define ZSTD_LEVEL_DEFAULT 1
#define ZSTD_LEVEL_LARGEST 19

struct codec {
    enum zram_algo algo;
    int level;
    void *lz4; /* LZ4 only */
    ZSTD_CCtx *cctx;
    ZSTD_DCtx *dctx; /* zstd only, both */
};

bool codec_valid(enum zram_algo algo, int level)
{
    switch (algo) {
    case ZRAM_LZ4:
        return level >= 0 && level <= LZ4_ACCELERATION_MAX;
    case ZRAM_ZSTD:
        return level >= 0 && level <= ZSTD_LEVEL_LARGEST;
    }
    return false;
}

/* Makes both zstd contexts allocate all they will ever need. */
static int zstd_warm_up(struct codec *codec)
{
    static const unsigned char page[PAGE_BYTES];
    unsigned char packed[64], unpacked[PAGE_BYTES];
    uint32_t len = codec_compress(codec, page, packed, sizeof(packed));

    return len && !codec_decompress(codec, packed, len, unpacked) ? 0 : -ENOMEM;
}

static int codec_init(struct codec *codec)
{
    if (codec->algo == ZRAM_LZ4) {
        codec->lz4 = malloc((size_t)LZ4_sizeofState());
        return codec->lz4 ? 0 : -ENOMEM;
    }
    codec->cctx = ZSTD_createCCtx();
    codec->dctx = ZSTD_createDCtx();
    if (!codec->cctx || !codec->dctx)
        return -ENOMEM;
    return zstd_warm_up(codec);
}

int codec_create(enum zram_algo algo, int level, struct codec **out)
{
    if (!codec_valid(algo, level))
        return -EINVAL;
    struct codec *codec = calloc(1, sizeof(*codec));
    if (!codec)
        return -ENOMEM;

    codec->algo = algo;
    codec->level = level;
    if (!level)
        codec->level = algo == ZRAM_LZ4 ? LZ4_ACCELERATION_DEFAULT : ZSTD_LEVEL_DEFAULT;

    int rc = codec_init(codec);
    if (rc) {
        codec_destroy(codec);
        return rc;
    }
    *out = codec;
    return 0;
}

void codec_destroy(struct codec *codec)
{
    if (!codec)
        return;
    free(codec->lz4);
    ZSTD_freeCCtx(codec->cctx);
    ZSTD_freeDCtx(codec->dctx);
    free(codec);
}

uint32_t codec_compress(struct codec *codec, const void *page, void *dst, uint32_t cap_bytes)
{
    if (codec->algo == ZRAM_LZ4)
        return (uint32_t)LZ4_compress_fast_extState(codec->lz4, page, dst, (int)PAGE_BYTES, (int)cap_bytes,
                                                    codec->level);

    size_t len = ZSTD_compressCCtx(codec->cctx, dst, cap_bytes, page, PAGE_BYTES, codec->level);
    return ZSTD_isError(len) ? 0 : (uint32_t)len;
}

int codec_decompress(struct codec *codec, const void *src, uint32_t len_bytes, void *page)
{
    if (codec->algo == ZRAM_LZ4) {
        int len = LZ4_decompress_safe(src, page, (int)len_bytes, (int)PAGE_BYTES);
        return len == (int)PAGE_BYTES ? 0 : -EIO;
    }

    size_t len = ZSTD_decompressDCtx(codec->dctx, page, PAGE_BYTES, src, len_bytes);
    return len == PAGE_BYTES ? 0 : -EIO;
}
