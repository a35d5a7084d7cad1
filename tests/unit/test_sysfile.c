/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/sysfile.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char path[] = "/tmp/ebb-sysfile-XXXXXX";

static void make_file(void)
{
    int fd = mkstemp(path);

    ck_assert_int_ge(fd, 0);
    close(fd);
}

static void remove_file(void)
{
    unlink(path);
}

START_TEST(test_sysfile_write_then_read_gives_the_text_without_newline)
{
    char text[16];

    ck_assert_int_eq(sysfile_write("lz4 lzo\n", "%s", path), 0);
    ck_assert_int_eq(sysfile_read(text, sizeof(text), "%s", path), 0);
    ck_assert_str_eq(text, "lz4 lzo");
}
END_TEST

START_TEST(test_sysfile_read_longer_than_buffer_is_cut)
{
    char text[4];

    ck_assert_int_eq(sysfile_write("123456", "%s", path), 0);
    ck_assert_int_eq(sysfile_read(text, sizeof(text), "%s", path), 0);
    ck_assert_str_eq(text, "123");
}
END_TEST

START_TEST(test_sysfile_missing_file_is_reported)
{
    char text[4] = "x";

    ck_assert_int_eq(sysfile_read(text, sizeof(text), "%s.none", path), -ENOENT);
    ck_assert_str_eq(text, "");
    ck_assert_int_eq(sysfile_write("1", "%s.none", path), -ENOENT);
    ck_assert_uint_eq(sysfile_number("%s.none", path), 0);
}
END_TEST

START_TEST(test_sysfile_number_reads_the_first_word)
{
    ck_assert_int_eq(sysfile_write("18446744073709551615 7\n", "%s", path), 0);
    ck_assert_uint_eq(sysfile_number("%s", path), UINT64_MAX);
}
END_TEST

START_TEST(test_sysfile_path_too_long_is_refused)
{
    char text[4];

    ck_assert_int_eq(sysfile_read(text, sizeof(text), "/%05000d", 1), -ENAMETOOLONG);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("sysfile");
    TCase *tc = tcase_create("sysfile");

    tcase_add_unchecked_fixture(tc, make_file, remove_file);
    tcase_add_test(tc, test_sysfile_write_then_read_gives_the_text_without_newline);
    tcase_add_test(tc, test_sysfile_read_longer_than_buffer_is_cut);
    tcase_add_test(tc, test_sysfile_missing_file_is_reported);
    tcase_add_test(tc, test_sysfile_number_reads_the_first_word);
    tcase_add_test(tc, test_sysfile_path_too_long_is_refused);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
