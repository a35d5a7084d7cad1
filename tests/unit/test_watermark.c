/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <stdlib.h>

#include "mm/frame/zone.h"

/* Linux's min_free_kbytes for memory of this size, as its table in mm/page_alloc.c has it (16 MB: 512k, ...). */
static const struct {
    uint32_t managed_mb, min_kb;
} linux_table[] = {{16, 512},    {32, 724},    {64, 1024},   {128, 1448},   {256, 2048},   {512, 2896},
                   {1024, 4096}, {2048, 5792}, {4096, 8192}, {8192, 11584}, {16384, 16384}};

START_TEST(test_watermark_usual_sizes_match_linux)
{
    uint32_t wmark[NR_WMARK];
    watermark_compute(linux_table[_i].managed_mb * 256, wmark);
    uint32_t min = linux_table[_i].min_kb / 4;
    ck_assert_uint_eq(wmark[WMARK_MIN], min);
    ck_assert_uint_eq(wmark[WMARK_LOW], min * 5 / 4);
    ck_assert_uint_eq(wmark[WMARK_HIGH], min * 6 / 4);
}
END_TEST

/* floor(sqrt(x)) by search, no square root. */
static uint64_t naive_sqrt(uint64_t x)
{
    uint64_t low = 0, high = UINT32_MAX;
    while (low < high) {
        uint64_t mid = low + (high - low + 1) / 2;
        if (mid * mid <= x)
            low = mid;
        else
            high = mid - 1;
    }
    return low;
}

START_TEST(test_watermark_every_size_keeps_the_rule)
{
    for (uint64_t pages = 768; pages <= UINT32_MAX; pages += pages / 37 + 1) {
        uint32_t wmark[NR_WMARK];
        watermark_compute((uint32_t)pages, wmark);
        uint64_t min_kb = naive_sqrt(pages * 4 * 16);
        min_kb = min_kb < 128 ? 128 : min_kb > 262144 ? 262144 : min_kb;
        bool right = wmark[WMARK_MIN] == min_kb / 4 && wmark[WMARK_LOW] == wmark[WMARK_MIN] + wmark[WMARK_MIN] / 4 &&
                     wmark[WMARK_HIGH] == wmark[WMARK_MIN] + wmark[WMARK_MIN] / 2;
        ck_assert_msg(right, "%llu pages", (unsigned long long)pages);
    }
}
END_TEST

START_TEST(test_watermark_lower_clamp_is_128_kb)
{
    uint32_t wmark[NR_WMARK];
    watermark_compute(200, wmark); /* sqrt(16 * 800) = 113 */
    ck_assert_uint_eq(wmark[WMARK_MIN], 32);
    watermark_compute(256, wmark); /* sqrt(16 * 1024) = 128 */
    ck_assert_uint_eq(wmark[WMARK_MIN], 32);
}
END_TEST

START_TEST(test_watermark_upper_clamp_is_256_mb)
{
    uint32_t wmark[NR_WMARK];
    watermark_compute(UINT32_C(1) << 30, wmark); /* 4 TiB: exactly 262144 */
    ck_assert_uint_eq(wmark[WMARK_MIN], 65536);
    watermark_compute(UINT32_MAX, wmark);
    ck_assert_uint_eq(wmark[WMARK_MIN], 65536);
}
END_TEST

START_TEST(test_watermark_tiny_pool_high_at_most_a_quarter)
{
    for (uint32_t pages = 0; pages <= 300; pages++) {
        uint32_t wmark[NR_WMARK];
        watermark_compute(pages, wmark);
        bool right = wmark[WMARK_MIN] <= wmark[WMARK_LOW] && wmark[WMARK_LOW] <= wmark[WMARK_HIGH] &&
                     wmark[WMARK_HIGH] <= pages / 4;
        ck_assert_msg(right, "%u pages", pages);
    }
}
END_TEST

START_TEST(test_watermark_set_fills_the_zone)
{
    static struct frame frames[16];
    static uint8_t types[1];
    struct zone zone;
    uint32_t wmark[NR_WMARK];
    zone_init(&zone, "Normal", frames, types, 0, ARRAY_LEN(frames), PLANE_FILLED);
    ck_assert_uint_eq(zone.wmark[WMARK_HIGH], 0);
    watermark_set(&zone, 65536);
    watermark_compute(65536, wmark);
    ck_assert_mem_eq(zone.wmark, wmark, sizeof(wmark));
    ck_assert_uint_eq(wmark[WMARK_MIN], 512);
    zone_fini(&zone);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("watermark");
    TCase *tc = tcase_create("watermark");
    tcase_add_loop_test(tc, test_watermark_usual_sizes_match_linux, 0, ARRAY_LEN(linux_table));
    tcase_add_test(tc, test_watermark_every_size_keeps_the_rule);
    tcase_add_test(tc, test_watermark_lower_clamp_is_128_kb);
    tcase_add_test(tc, test_watermark_upper_clamp_is_256_mb);
    tcase_add_test(tc, test_watermark_tiny_pool_high_at_most_a_quarter);
    tcase_add_test(tc, test_watermark_set_fills_the_zone);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
