/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/size.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>

static const struct {
    const char *text;
    uint64_t bytes;
} good[] = {
    {"0", 0},
    {"1", 1},
    {"4096", 4096},
    {"64K", 65536},
    {"64k", 65536},
    {"64KiB", 65536},
    {"64kb", 65536},
    {"256M", UINT64_C(256) << 20},
    {"1G", UINT64_C(1) << 30},
    {"2T", UINT64_C(2) << 40},
    {"18446744073709551615", UINT64_MAX},
    {"16777215T", UINT64_C(16777215) << 40},
    {"007M", UINT64_C(7) << 20},
};

START_TEST(test_size_parse_good_text_gives_bytes)
{
    uint64_t bytes = 12345;
    ck_assert_int_eq(size_parse(good[_i].text, &bytes), 0);
    ck_assert_uint_eq(bytes, good[_i].bytes);
}
END_TEST

static const struct {
    const char *text;
    int error;
} wrong[] = {
    {"", -EINVAL},
    {"M", -EINVAL},
    {"-1", -EINVAL},
    {"+1", -EINVAL},
    {" 1", -EINVAL},
    {"1 M", -EINVAL},
    {"1.5G", -EINVAL},
    {"12X", -EINVAL},
    {"12MM", -EINVAL},
    {"12Mi", -EINVAL},
    {"0x10", -EINVAL},
    {"1P", -EINVAL},
    {"18446744073709551616", -ERANGE},
    {"16777216T", -ERANGE},
    {"99999999999999999999999", -ERANGE},
};

START_TEST(test_size_parse_wrong_text_is_refused_and_leaves_out_alone)
{
    uint64_t bytes = 12345;
    ck_assert_int_eq(size_parse(wrong[_i].text, &bytes), wrong[_i].error);
    ck_assert_uint_eq(bytes, 12345);
}
END_TEST

START_TEST(test_size_text_has_a_unit)
{
    char text[SIZE_TEXT];
    ck_assert_str_eq(size_text(text, 0), "0 bytes");
    ck_assert_str_eq(size_text(text, 1023), "1023 bytes");
    ck_assert_str_eq(size_text(text, 1024), "1 KiB");
    ck_assert_str_eq(size_text(text, 1536), "1.5 KiB");
    ck_assert_str_eq(size_text(text, UINT64_C(256) << 20), "256 MiB");
    ck_assert_str_eq(size_text(text, UINT64_C(5) << 40), "5 TiB");
    ck_assert_str_eq(size_text(text, UINT64_MAX), "16777216.0 TiB");
}
END_TEST

START_TEST(test_size_option_reads_back_the_same)
{
    char text[SIZE_TEXT];
    uint64_t back;
    ck_assert_str_eq(size_option(text, UINT64_C(200) << 20), "200M");
    ck_assert_str_eq(size_option(text, 0), "0");
    for (uint64_t bytes = 1; bytes < UINT64_C(1) << 62; bytes = bytes * 3 + (bytes & 7)) {
        ck_assert_int_eq(size_parse(size_option(text, bytes), &back), 0);
        ck_assert_uint_eq(back, bytes);
        ck_assert_int_eq(size_parse(size_option(text, bytes & ~UINT64_C(0xfffff)), &back), 0);
        ck_assert_uint_eq(back, bytes & ~UINT64_C(0xfffff));
    }
}
END_TEST

START_TEST(test_count_text_groups_by_three)
{
    char text[SIZE_TEXT];
    ck_assert_str_eq(count_text(text, 0), "0");
    ck_assert_str_eq(count_text(text, 999), "999");
    ck_assert_str_eq(count_text(text, 1000), "1,000");
    ck_assert_str_eq(count_text(text, 51200), "51,200");
    ck_assert_str_eq(count_text(text, UINT64_MAX), "18,446,744,073,709,551,615");
}
END_TEST

START_TEST(test_time_text_takes_the_unit_that_fits)
{
    char text[SIZE_TEXT];
    ck_assert_str_eq(time_text(text, 0), "0 ns");
    ck_assert_str_eq(time_text(text, 999), "999 ns");
    ck_assert_str_eq(time_text(text, 12100), "12.1 us");
    ck_assert_str_eq(time_text(text, 3200000), "3.20 ms");
    ck_assert_str_eq(time_text(text, UINT64_C(1500000000)), "1.50 s");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("size");
    TCase *tc = tcase_create("size");
    tcase_add_loop_test(tc, test_size_parse_good_text_gives_bytes, 0, ARRAY_LEN(good));
    tcase_add_loop_test(tc, test_size_parse_wrong_text_is_refused_and_leaves_out_alone, 0, ARRAY_LEN(wrong));
    tcase_add_test(tc, test_size_text_has_a_unit);
    tcase_add_test(tc, test_size_option_reads_back_the_same);
    tcase_add_test(tc, test_count_text_groups_by_three);
    tcase_add_test(tc, test_time_text_takes_the_unit_that_fits);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
