/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/outfile.h"

#include "mm/base/types.h"

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

struct place {
    char directory[32], path[64];
    struct outfile file;
    struct diag diag;
};

static void set_up(struct place *p)
{
    memset(p, 0, sizeof(*p));
    strcpy(p->directory, "/tmp/ebb-outfile-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(p->directory));
    snprintf(p->path, sizeof(p->path), "%s/out.json", p->directory);
}

/* Files in the directory. */
static unsigned count(const struct place *p)
{
    unsigned nr = 0;
    struct dirent *entry;
    DIR *dir = opendir(p->directory);

    while ((entry = readdir(dir)))
        nr += entry->d_name[0] != '.';
    closedir(dir);
    return nr;
}

static void tear_down(struct place *p)
{
    unlink(p->path);
    ck_assert_uint_eq(count(p), 0);
    ck_assert_int_eq(rmdir(p->directory), 0);
}

static int commit(struct place *p, int value)
{
    json_t *json = json_pack("{s:i}", "value", value);
    int error = outfile_commit(&p->file, json, &p->diag);

    json_decref(json);
    return error;
}

static int value(const struct place *p)
{
    json_t *json = json_load_file(p->path, 0, NULL);
    int out = (int)json_integer_value(json_object_get(json, "value"));

    json_decref(json);
    return out;
}

START_TEST(test_outfile_appears_at_the_commit_only)
{
    struct place p;
    set_up(&p);
    ck_assert_msg(outfile_open("--json", p.path, &p.file, &p.diag) == 0, "%s", p.diag.text);
    ck_assert_uint_eq(count(&p), 0);
    ck_assert_int_eq(commit(&p, 7), 0);
    ck_assert_int_eq(value(&p), 7);
    ck_assert_uint_eq(count(&p), 1);
    tear_down(&p);
}
END_TEST

START_TEST(test_outfile_bytes_of_any_kind_appear_whole)
{
    static const char bytes[5] = {'a', 0, '\n', (char)0xff, 'b'};
    char got[8];
    struct place p;
    set_up(&p);
    ck_assert_int_eq(outfile_open("--png", p.path, &p.file, &p.diag), 0);
    ck_assert_int_eq(outfile_commit_bytes(&p.file, bytes, sizeof(bytes), &p.diag), 0);
    FILE *file = fopen(p.path, "rb");
    ck_assert_uint_eq(fread(got, 1, sizeof(got), file), sizeof(bytes));
    ck_assert_int_eq(memcmp(got, bytes, sizeof(bytes)), 0);
    fclose(file);
    tear_down(&p);
}
END_TEST

START_TEST(test_outfile_replaces_the_old_one_whole)
{
    struct place p;
    set_up(&p);
    for (int i = 1; i < 4; i++) {
        ck_assert_int_eq(outfile_open("--json", p.path, &p.file, &p.diag), 0);
        ck_assert_int_eq(commit(&p, i), 0);
        ck_assert_int_eq(value(&p), i);
    }
    ck_assert_uint_eq(count(&p), 1);
    tear_down(&p);
}
END_TEST

/* A kernel or file system that has no files without a name. */
static void forbid_files_without_name(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_openat, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, (uint32_t)(O_TMPFILE & ~O_DIRECTORY), 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EOPNOTSUPP),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = ARRAY_LEN(code), .filter = code};
    ck_assert_int_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    ck_assert_int_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
}

START_TEST(test_outfile_two_open_for_one_path_are_written_each_whole)
{
    struct place p, second;
    set_up(&p);
    if (_i == 1)
        forbid_files_without_name();
    second = p;
    ck_assert_msg(outfile_open("dump", p.path, &p.file, &p.diag) == 0, "%s", p.diag.text);
    ck_assert_msg(outfile_open("dump", p.path, &second.file, &second.diag) == 0, "%s", second.diag.text);
    ck_assert_uint_eq(count(&p), _i == 1 ? 2 : 0);
    ck_assert_msg(commit(&p, 7) == 0, "%s", p.diag.text);
    ck_assert_int_eq(value(&p), 7);
    ck_assert_msg(commit(&second, 8) == 0, "%s", second.diag.text);
    ck_assert_int_eq(value(&p), 8);
    ck_assert_uint_eq(count(&p), 1);
    tear_down(&p);
}
END_TEST

#define NR_COMMITS 300

static void *commit_main(void *arg)
{
    struct place p = *(struct place *)arg;
    for (int i = 0; i < NR_COMMITS; i++)
        if (outfile_open("dump", p.path, &p.file, &p.diag) || commit(&p, i))
            return strdup(p.diag.text);
    return NULL;
}

/* They had one temporary name, and took it from each other. */
START_TEST(test_outfile_threads_that_write_to_one_path_do_not_disturb_each_other)
{
    struct place p;
    pthread_t threads[2];
    void *fault;
    set_up(&p);
    for (unsigned i = 0; i < 2; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, commit_main, &p), 0);
    for (unsigned i = 0; i < 2; i++) {
        pthread_join(threads[i], &fault);
        ck_assert_msg(!fault, "%s", (const char *)fault);
    }
    ck_assert_int_eq(value(&p), NR_COMMITS - 1);
    tear_down(&p);
}
END_TEST

START_TEST(test_outfile_cancel_leaves_what_was_there)
{
    struct place p;
    set_up(&p);
    ck_assert_int_eq(outfile_open("--json", p.path, &p.file, &p.diag), 0);
    outfile_cancel(&p.file);
    outfile_cancel(&p.file);
    ck_assert_uint_eq(count(&p), 0);
    ck_assert_int_eq(outfile_open("--json", p.path, &p.file, &p.diag), 0);
    ck_assert_int_eq(commit(&p, 1), 0);
    ck_assert_int_eq(outfile_open("--json", p.path, &p.file, &p.diag), 0);
    outfile_cancel(&p.file);
    ck_assert_int_eq(value(&p), 1);
    tear_down(&p);
}
END_TEST

START_TEST(test_outfile_through_a_link_writes_its_target)
{
    char link_path[64];
    struct place p;
    struct stat st;
    set_up(&p);
    snprintf(link_path, sizeof(link_path), "%s/link", p.directory);
    ck_assert_int_eq(outfile_open("--json", p.path, &p.file, &p.diag), 0);
    ck_assert_int_eq(commit(&p, 1), 0);
    ck_assert_int_eq(symlink(p.path, link_path), 0);
    ck_assert_int_eq(outfile_open("--json", link_path, &p.file, &p.diag), 0);
    ck_assert_int_eq(commit(&p, 2), 0);
    ck_assert_int_eq(value(&p), 2);
    ck_assert_int_eq(lstat(link_path, &st), 0);
    ck_assert(S_ISLNK(st.st_mode));
    unlink(link_path);
    tear_down(&p);
}
END_TEST

/* The temporary name was longer than the file's own: the results of a long run were lost at its end. */
START_TEST(test_outfile_with_the_longest_name_is_written_and_a_longer_one_refused_at_once)
{
    struct place p;
    char path[sizeof(p.directory) + NAME_MAX + 3];
    set_up(&p);
    if (_i == 1)
        forbid_files_without_name();
    int end = snprintf(path, sizeof(path), "%s/", p.directory);
    memset(path + end, 'n', NAME_MAX + 1);
    path[end + NAME_MAX + 1] = '\0';
    ck_assert_int_eq(outfile_open("--json", path, &p.file, &p.diag), -1);
    ck_assert_int_eq(p.diag.code, EXIT_USAGE);
    ck_assert_msg(strstr(p.diag.text, "shorter") != NULL, "%s", p.diag.text);
    path[end + NAME_MAX] = '\0';
    ck_assert_msg(outfile_open("--json", path, &p.file, &p.diag) == 0, "%s", p.diag.text);
    ck_assert_msg(commit(&p, 5) == 0, "%s", p.diag.text);
    ck_assert_int_eq(unlink(path), 0);
    tear_down(&p);
}
END_TEST

START_TEST(test_outfile_device_stays_a_device)
{
    struct place p;
    struct stat st;
    set_up(&p);
    ck_assert_int_eq(outfile_open("--json", "/dev/null", &p.file, &p.diag), 0);
    ck_assert_int_eq(commit(&p, 1), 0);
    ck_assert_int_eq(stat("/dev/null", &st), 0);
    ck_assert(S_ISCHR(st.st_mode));
    tear_down(&p);
}
END_TEST

START_TEST(test_outfile_full_device_is_told)
{
    struct place p;
    set_up(&p);
    ck_assert_int_eq(outfile_open("--json", "/dev/full", &p.file, &p.diag), 0);
    ck_assert_int_eq(commit(&p, 1), -1);
    ck_assert_int_eq(p.diag.code, EXIT_GUEST);
    ck_assert_ptr_nonnull(strstr(p.diag.text, "No space"));
    tear_down(&p);
}
END_TEST

START_TEST(test_outfile_full_standard_output_is_called_by_its_name)
{
    struct place p;
    set_up(&p);
    int was = dup(1), full = open("/dev/full", O_WRONLY);
    ck_assert(was >= 0 && full >= 0);
    ck_assert_int_eq(dup2(full, 1), 1);
    int opened = outfile_open("--json", "-", &p.file, &p.diag), error = opened ? 0 : commit(&p, 1);
    ck_assert_int_eq(dup2(was, 1), 1);
    close(full);
    close(was);
    ck_assert_int_eq(opened, 0);
    ck_assert_int_eq(error, -1);
    ck_assert_ptr_nonnull(strstr(p.diag.text, "to standard output: No space"));
    tear_down(&p);
}
END_TEST

static const char *const refused[] = {"", "/", "/missing-directory/out.json", "/dev/null/out.json", "/proc/out.json"};

START_TEST(test_outfile_that_cannot_be_written_is_found_at_once)
{
    struct place p;
    set_up(&p);
    const char *path = *refused[_i] ? refused[_i] : p.directory;
    ck_assert_int_eq(outfile_open("--json", path, &p.file, &p.diag), -1);
    ck_assert_int_eq(p.diag.code, EXIT_USAGE);
    outfile_cancel(&p.file);
    tear_down(&p);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("outfile");
    TCase *tc = tcase_create("outfile");
    tcase_add_test(tc, test_outfile_appears_at_the_commit_only);
    tcase_add_test(tc, test_outfile_bytes_of_any_kind_appear_whole);
    tcase_add_test(tc, test_outfile_replaces_the_old_one_whole);
    tcase_add_loop_test(tc, test_outfile_two_open_for_one_path_are_written_each_whole, 0, 2);
    tcase_add_test(tc, test_outfile_threads_that_write_to_one_path_do_not_disturb_each_other);
    tcase_add_test(tc, test_outfile_cancel_leaves_what_was_there);
    tcase_add_test(tc, test_outfile_through_a_link_writes_its_target);
    tcase_add_loop_test(tc, test_outfile_with_the_longest_name_is_written_and_a_longer_one_refused_at_once, 0, 2);
    tcase_add_test(tc, test_outfile_device_stays_a_device);
    tcase_add_test(tc, test_outfile_full_device_is_told);
    tcase_add_test(tc, test_outfile_full_standard_output_is_called_by_its_name);
    tcase_add_loop_test(tc, test_outfile_that_cannot_be_written_is_found_at_once, 0,
                        (int)(sizeof(refused) / sizeof(refused[0])));
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
