/* SPDX-License-Identifier: Apache-2.0 */
/* The header in slot 0: read back, refused when damaged, and recognised by the system's own tools where installed. */
#include "mm/swap/area.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NR_SLOTS 256u

static const uint8_t uuid[16] = {0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0x4d, 0xef,
                                 0x81, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef};
#define UUID_TEXT "12345678-9abc-4def-8123-456789abcdef"

/* --- by itself -------------------------------------------------------------------------------- */

START_TEST(test_swap_header_made_reads_back)
{
    static const uint64_t sizes[] = {2, 16, 65536, UINT64_C(1) << 32};
    uint8_t page[PAGE_BYTES];
    for (unsigned i = 0; i < ARRAY_LEN(sizes); i++) {
        uint64_t nr = 0;
        swap_header_make(page, sizes[i], uuid, "ebb");
        ck_assert_int_eq(swap_header_read(page, &nr), 0);
        ck_assert_uint_eq(nr, sizes[i]);
    }
}
END_TEST

START_TEST(test_swap_header_fields_stand_where_linux_has_them)
{
    uint8_t page[PAGE_BYTES];
    uint32_t info[3];
    memset(page, 0xff, sizeof(page));
    swap_header_make(page, 1000, uuid, "a label that is too long");
    memcpy(info, page + 1024, sizeof(info));
    ck_assert_uint_eq(info[0], 1);
    ck_assert_uint_eq(info[1], 999);
    ck_assert_uint_eq(info[2], 0);
    ck_assert_mem_eq(page + 1036, uuid, 16);
    ck_assert_mem_eq(page + 1052, "a label that is", 16);
    ck_assert_mem_eq(page + 4086, "SWAPSPACE2", 10);
    swap_header_make(page, 1000, uuid, NULL);
    ck_assert_int_eq(page[1052], 0);
}
END_TEST

/* Where one byte is changed, and what reading says then. */
static const struct {
    unsigned at;
    uint8_t value;
    int err;
} damages[] = {
    {4086, 'T', -EINVAL}, {4095, '1', -EINVAL}, {1024, 2, -EINVAL},
    {1024, 0, -EINVAL},   {1027, 1, -EINVAL}, /* version of the other byte order */
    {1032, 1, -ENOTSUP},
};

START_TEST(test_swap_header_damaged_is_refused)
{
    uint8_t page[PAGE_BYTES];
    uint64_t nr = 77;
    swap_header_make(page, NR_SLOTS, uuid, "ebb");
    page[damages[_i].at] = damages[_i].value;
    ck_assert_int_eq(swap_header_read(page, &nr), damages[_i].err);
    ck_assert_uint_eq(nr, 77);
}
END_TEST

START_TEST(test_swap_header_without_pages_or_with_an_image_is_refused)
{
    uint8_t page[PAGE_BYTES];
    uint64_t nr;
    memset(page, 0, sizeof(page));
    ck_assert_int_eq(swap_header_read(page, &nr), -EINVAL);
    swap_header_make(page, NR_SLOTS, uuid, NULL);
    memset(page + 1028, 0, 4); /* last page 0 */
    ck_assert_int_eq(swap_header_read(page, &nr), -EINVAL);
    swap_header_make(page, NR_SLOTS, uuid, NULL);
    memcpy(page + 4086, "S1SUSPEND", 10);
    ck_assert_int_eq(swap_header_read(page, &nr), -EBUSY);
}
END_TEST

/* --- beside util-linux and file --------------------------------------------------------------- */

static char path[64];

static void file_make(void)
{
    strcpy(path, "/tmp/ebb-header-XXXXXX");
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, NR_SLOTS * PAGE_BYTES), 0);
    close(fd);
}

static void file_remove(void)
{
    unlink(path);
}

static void file_write_header(void)
{
    uint8_t page[PAGE_BYTES];
    swap_header_make(page, NR_SLOTS, uuid, "ebb");
    FILE *f = fopen(path, "r+");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fwrite(page, 1, sizeof(page), f), sizeof(page));
    ck_assert_int_eq(fclose(f), 0);
}

/* What @tool, called with @args and the file, prints. False: the tool is not installed, said as a skip. */
static bool tool_says(const char *tool, const char *args, char *text, size_t text_bytes)
{
    char command[256];
    snprintf(command, sizeof(command), "PATH=$PATH:/usr/sbin:/sbin; command -v %s >/dev/null || exit 99; %s %s %s 2>&1",
             tool, tool, args, path);
    FILE *pipe = popen(command, "r");
    ck_assert_ptr_nonnull(pipe);
    size_t got = fread(text, 1, text_bytes - 1, pipe);
    text[got] = 0;
    if (pclose(pipe) >> 8 != 99)
        return true;
    printf("SKIP: %s is not installed\n", tool);
    fflush(stdout);
    return false;
}

static void assert_has(const char *text, const char *word)
{
    ck_assert_msg(strstr(text, word) != NULL, "no \"%s\" in: %s", word, text);
}

START_TEST(test_swap_header_is_known_to_blkid)
{
    char text[512];
    file_write_header();
    if (!tool_says("blkid", "-p -o export", text, sizeof(text)))
        return;
    assert_has(text, "TYPE=swap\n");
    assert_has(text, "VERSION=1\n");
    assert_has(text, "LABEL=ebb\n");
    assert_has(text, "UUID=" UUID_TEXT "\n");
}
END_TEST

START_TEST(test_swap_header_is_known_to_file)
{
    char text[512];
    file_write_header();
    if (!tool_says("file", "-b", text, sizeof(text)))
        return;
    assert_has(text, "swap file");
    assert_has(text, "version 1");
    assert_has(text, "255 pages");
    assert_has(text, "UUID=" UUID_TEXT);
}
END_TEST

START_TEST(test_swap_header_is_known_to_swaplabel)
{
    char text[512];
    file_write_header();
    if (!tool_says("swaplabel", "", text, sizeof(text)))
        return;
    assert_has(text, "ebb");
    assert_has(text, UUID_TEXT);
}
END_TEST

START_TEST(test_swap_header_of_mkswap_is_read)
{
    char text[512];
    uint8_t page[PAGE_BYTES];
    uint64_t nr = 0;
    if (!tool_says("mkswap", "-L other", text, sizeof(text)))
        return;
    FILE *f = fopen(path, "r");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fread(page, 1, sizeof(page), f), sizeof(page));
    fclose(f);
    ck_assert_int_eq(swap_header_read(page, &nr), 0);
    ck_assert_uint_eq(nr, NR_SLOTS);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("swap_header");
    TCase *alone = tcase_create("alone");
    tcase_add_test(alone, test_swap_header_made_reads_back);
    tcase_add_test(alone, test_swap_header_fields_stand_where_linux_has_them);
    tcase_add_loop_test(alone, test_swap_header_damaged_is_refused, 0, (int)ARRAY_LEN(damages));
    tcase_add_test(alone, test_swap_header_without_pages_or_with_an_image_is_refused);
    suite_add_tcase(suite, alone);

    TCase *tools = tcase_create("tools");
    tcase_add_checked_fixture(tools, file_make, file_remove);
    tcase_add_test(tools, test_swap_header_is_known_to_blkid);
    tcase_add_test(tools, test_swap_header_is_known_to_file);
    tcase_add_test(tools, test_swap_header_is_known_to_swaplabel);
    tcase_add_test(tools, test_swap_header_of_mkswap_is_read);
    suite_add_tcase(suite, tools);

    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
