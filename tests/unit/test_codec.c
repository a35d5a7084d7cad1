/* SPDX-License-Identifier: Apache-2.0 */
#include "mm/swap/codec.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>
#include "mm/swap/checksum.h"
#include "tests/fake/fail_alloc.h"

#define CAP 3071u

static const enum zram_algo algos[] = {ZRAM_LZ4, ZRAM_ZSTD};

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* The first @random_bytes are noise, the rest counts up slowly. */
static void page_make(unsigned char *page, uint64_t seed, size_t random_bytes)
{
    for (size_t i = 0; i < PAGE_BYTES; i++)
        page[i] = i < random_bytes ? (unsigned char)next_random(&seed) : (unsigned char)(i / 64);
}

/* A copy of exactly @len bytes, so that the sanitizer sees a read behind its end. */
static unsigned char *exact_copy(const unsigned char *data, size_t len)
{
    unsigned char *copy = malloc(len ? len : 1);
    ck_assert_ptr_nonnull(copy);
    memcpy(copy, data, len);
    return copy;
}

static struct codec *codec_make(enum zram_algo algo, int level)
{
    struct codec *codec;
    ck_assert_int_eq(codec_create(algo, level, &codec), 0);
    return codec;
}

START_TEST(test_codec_every_level_round_trips)
{
    static const int levels[2][5] = {{0, 1, 2, 4, 8}, {0, 1, 3, 12, 19}};
    unsigned char page[PAGE_BYTES], packed[CAP], back[PAGE_BYTES];

    for (unsigned l = 0; l < 5; l++) {
        struct codec *codec = codec_make(algos[_i], levels[_i][l]);
        for (size_t noise = 0; noise <= 2560; noise += 512) {
            page_make(page, noise + 1, noise);
            uint32_t len = codec_compress(codec, page, packed, CAP);
            ck_assert_uint_gt(len, 0);
            ck_assert_uint_le(len, CAP);
            ck_assert_int_eq(codec_decompress(codec, packed, len, back), 0);
            ck_assert_mem_eq(page, back, PAGE_BYTES);
        }
        codec_destroy(codec);
    }
}
END_TEST

START_TEST(test_codec_random_page_does_not_fit)
{
    unsigned char page[PAGE_BYTES], packed[CAP + 1];
    struct codec *codec = codec_make(algos[_i], 0);

    page_make(page, 7, PAGE_BYTES);
    packed[CAP] = 0x5a;
    ck_assert_uint_eq(codec_compress(codec, page, packed, CAP), 0);
    ck_assert_uint_eq(packed[CAP], 0x5a);
    /* and the state is good for the next page */
    page_make(page, 7, 100);
    ck_assert_uint_gt(codec_compress(codec, page, packed, CAP), 0);
    codec_destroy(codec);
}
END_TEST

START_TEST(test_codec_small_capacity_does_not_fit)
{
    unsigned char page[PAGE_BYTES], packed[CAP];
    struct codec *codec = codec_make(algos[_i], 0);

    page_make(page, 11, 1000);
    uint32_t len = codec_compress(codec, page, packed, CAP);
    ck_assert_uint_gt(len, 0);
    ck_assert_uint_eq(codec_compress(codec, page, packed, len / 2), 0);
    codec_destroy(codec);
}
END_TEST

START_TEST(test_codec_truncated_input_is_refused)
{
    unsigned char page[PAGE_BYTES], packed[CAP], back[PAGE_BYTES];
    struct codec *codec = codec_make(algos[_i], 0);

    page_make(page, 3, 600);
    uint32_t len = codec_compress(codec, page, packed, CAP);
    for (uint32_t cut = 0; cut < len; cut++) {
        unsigned char *copy = exact_copy(packed, cut);
        ck_assert_int_eq(codec_decompress(codec, copy, cut, back), -EIO);
        free(copy);
    }
    codec_destroy(codec);
}
END_TEST

START_TEST(test_codec_damaged_input_stays_in_bounds)
{
    unsigned char page[PAGE_BYTES], packed[CAP];
    unsigned char *back = malloc(PAGE_BYTES);
    struct codec *codec = codec_make(algos[_i], 0);
    uint64_t seed = 5;

    page_make(page, 3, 600);
    uint32_t len = codec_compress(codec, page, packed, CAP);
    for (unsigned n = 0; n < 3000; n++) {
        unsigned char *copy = exact_copy(packed, len);
        for (unsigned k = 0; k <= n % 4; k++)
            copy[next_random(&seed) % len] = (unsigned char)next_random(&seed);
        int rc = codec_decompress(codec, copy, len, back);
        ck_assert(rc == 0 || rc == -EIO);
        for (uint32_t i = 0; i < len; i++)
            copy[i] = (unsigned char)next_random(&seed);
        rc = codec_decompress(codec, copy, len, back);
        ck_assert(rc == 0 || rc == -EIO);
        free(copy);
    }
    /* and the state is good for a sound page */
    ck_assert_int_eq(codec_decompress(codec, packed, len, back), 0);
    ck_assert_mem_eq(page, back, PAGE_BYTES);
    free(back);
    codec_destroy(codec);
}
END_TEST

START_TEST(test_codec_wrong_page_length_is_refused)
{
    /* LZ4: one literal run of four bytes. A sound block of less than a page. */
    static const unsigned char lz4_short[] = {0x40, 'a', 'b', 'c', 'd'};
    /* zstd: frame of one raw block of one byte, content size 1. */
    static const unsigned char zstd_short[] = {0x28, 0xb5, 0x2f, 0xfd, 0x20, 0x01, 0x09, 0x00, 0x00, 'a'};
    unsigned char back[PAGE_BYTES];
    struct codec *codec = codec_make(algos[_i], 0);

    if (algos[_i] == ZRAM_LZ4)
        ck_assert_int_eq(codec_decompress(codec, lz4_short, sizeof(lz4_short), back), -EIO);
    else
        ck_assert_int_eq(codec_decompress(codec, zstd_short, sizeof(zstd_short), back), -EIO);
    codec_destroy(codec);
}
END_TEST

START_TEST(test_codec_bad_level_or_algorithm_is_refused)
{
    struct codec *codec;

    ck_assert_int_eq(codec_create(ZRAM_LZ4, -1, &codec), -EINVAL);
    ck_assert_int_eq(codec_create(ZRAM_LZ4, 65538, &codec), -EINVAL);
    ck_assert_int_eq(codec_create(ZRAM_ZSTD, -1, &codec), -EINVAL);
    ck_assert_int_eq(codec_create(ZRAM_ZSTD, 20, &codec), -EINVAL);
    ck_assert_int_eq(codec_create((enum zram_algo)2, 0, &codec), -EINVAL);
    codec_destroy(NULL);
    codec_destroy(codec_make(ZRAM_LZ4, 65537));
}
END_TEST

START_TEST(test_codec_failed_allocation_is_enomem)
{
    for (long n = 1;; n++) {
        struct codec *codec;
        fail_alloc_at(n);
        int rc = codec_create(algos[_i], 0, &codec);
        bool failed = fail_alloc_fired();
        fail_alloc_at(-1);
        if (!failed) {
            ck_assert_int_eq(rc, 0);
            codec_destroy(codec);
            ck_assert_int_gt(n, 1);
            break;
        }
        ck_assert_int_eq(rc, -ENOMEM);
    }
}
END_TEST

START_TEST(test_codec_use_allocates_nothing)
{
    unsigned char page[PAGE_BYTES], packed[CAP], back[PAGE_BYTES];
    struct codec *codec = codec_make(algos[_i], 0);

    page_make(page, 9, 700);
    fail_alloc_at(1);
    uint32_t len = codec_compress(codec, page, packed, CAP);
    int rc = codec_decompress(codec, packed, len, back);
    long nr = fail_alloc_count();
    fail_alloc_at(-1);
    ck_assert_uint_gt(len, 0);
    ck_assert_int_eq(rc, 0);
    ck_assert_int_eq(nr, 0);
    codec_destroy(codec);
}
END_TEST

/* The library's own vectors are chosen at run time; the plain code is the reference. */
START_TEST(test_checksum_same_as_plain_code)
{
    unsigned char data[PAGE_BYTES + 16];
    uint64_t seed = 21;

    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (unsigned char)next_random(&seed);
    for (size_t len = 0; len <= PAGE_BYTES; len += 1 + len / 16)
        ck_assert_uint_eq(checksum32(data + len % 13, len), (uint32_t)XXH3_64bits(data + len % 13, len));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("codec");
    TCase *tcase = tcase_create("codec");
    const int nr = (int)ARRAY_LEN(algos);

    tcase_set_timeout(tcase, 60);
    tcase_add_loop_test(tcase, test_codec_every_level_round_trips, 0, nr);
    tcase_add_loop_test(tcase, test_codec_random_page_does_not_fit, 0, nr);
    tcase_add_loop_test(tcase, test_codec_small_capacity_does_not_fit, 0, nr);
    tcase_add_loop_test(tcase, test_codec_truncated_input_is_refused, 0, nr);
    tcase_add_loop_test(tcase, test_codec_damaged_input_stays_in_bounds, 0, nr);
    tcase_add_loop_test(tcase, test_codec_wrong_page_length_is_refused, 0, nr);
    tcase_add_test(tcase, test_codec_bad_level_or_algorithm_is_refused);
    tcase_add_loop_test(tcase, test_codec_failed_allocation_is_enomem, 0, nr);
    tcase_add_loop_test(tcase, test_codec_use_allocates_nothing, 0, nr);
    tcase_add_test(tcase, test_checksum_same_as_plain_code);
    suite_add_tcase(suite, tcase);

    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int nr_failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return nr_failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
