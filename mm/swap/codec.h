/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One page in, fewer bytes out: liblz4 and libzstd behind one face. A codec is the compressor state of one thread;
 * everything it needs is allocated by codec_create, nothing afterwards.
 */
#ifndef MM_SWAP_CODEC_H
#define MM_SWAP_CODEC_H

#include "mm/swap/zram.h"

struct codec;

/*
 * codec_create - @level as in struct zram_config.
 * Returns 0; -EINVAL: no such algorithm or level; -ENOMEM. Nothing remains after an error.
 */
must_check int codec_create(enum zram_algo algo, int level, struct codec **out);
/* NULL is fine. */
void codec_destroy(struct codec *codec);
/* True when codec_create would take them. */
bool codec_valid(enum zram_algo algo, int level);

/*
 * codec_compress - @page (PAGE_BYTES, only read) into @dst.
 * Returns the length, 1..cap_bytes; 0 when it does not fit into @cap_bytes: gives up as soon as that is known.
 */
must_check uint32_t codec_compress(struct codec *codec, const void *page, void *dst, uint32_t cap_bytes);

/*
 * codec_decompress - @src may hold anything: nothing outside src[0..len_bytes) is read, nothing outside
 * page[0..PAGE_BYTES) written. Returns 0; -EIO: @src does not decode to exactly one page, whose content is then
 * undefined.
 */
must_check int codec_decompress(struct codec *codec, const void *src, uint32_t len_bytes, void *page);

#endif
