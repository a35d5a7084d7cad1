/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel backend on the real kernel: needs root, a memory cgroup controller and the zram module. Each test compares
 * what stands in the host's cgroups and zram devices before and after.
 */
#include "vmm/kernel_backend.h"

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm/kernel_cgroup.h"
#include "vmm/sysfile.h"

#define MIB (UINT64_C(1) << 20)

static const struct zram_config lz4_64m = {.algo = ZRAM_LZ4, .limit_bytes = 64 * MIB};

/* What tests must leave as it was: our own groups and the host's zram devices, initialised ones apart. */
struct host_state {
    unsigned nr_groups, nr_devices, nr_ready_devices;
};

static unsigned count_names(const char *dir_path, const char *prefix)
{
    DIR *dir = opendir(dir_path);
    unsigned nr = 0;

    for (struct dirent *entry; dir && (entry = readdir(dir)) != NULL;)
        nr += strncmp(entry->d_name, prefix, strlen(prefix)) == 0;
    if (dir)
        closedir(dir);
    return nr;
}

static struct host_state look(void)
{
    struct host_state state = {.nr_devices = count_names("/sys/block", "zram")};
    struct kernel_cgroup cg;
    struct diag diag = {0};

    ck_assert_int_eq(kernel_cgroup_find(&cg, &diag), 0);
    state.nr_groups = count_names(cg.base, "ebb-");
    for (int number = 0; number < 100; number++)
        state.nr_ready_devices += sysfile_number("/sys/block/zram%d/initstate", number) == 1;
    return state;
}

static void assert_same(struct host_state before)
{
    struct host_state now = look();

    ck_assert_uint_eq(now.nr_groups, before.nr_groups);
    ck_assert_uint_eq(now.nr_devices, before.nr_devices);
    ck_assert_uint_eq(now.nr_ready_devices, before.nr_ready_devices);
}

static struct kernel_backend *create(uint64_t budget_bytes, const struct zram_config *zram)
{
    struct kernel_backend *kb = NULL;
    struct diag diag = {0};

    ck_assert_msg(kernel_backend_create(budget_bytes, zram, &kb, &diag) == 0, "%s", diag.text);
    return kb;
}

/* Half of each page repeats: about 2:1 under lz4. */
static uint64_t word_of(uint64_t page, unsigned word)
{
    return word & 1 ? page : (page + word) * UINT64_C(0x9e3779b97f4a7c15);
}

static void fill(uint64_t *memory, uint64_t bytes)
{
    for (uint64_t i = 0; i < bytes / sizeof(*memory); i++)
        memory[i] = word_of(i / 512, (unsigned)(i % 512));
}

static uint64_t count_wrong(const uint64_t *memory, uint64_t bytes)
{
    uint64_t wrong = 0;

    for (uint64_t i = 0; i < bytes / sizeof(*memory); i++)
        wrong += memory[i] != word_of(i / 512, (unsigned)(i % 512));
    return wrong;
}

/* Runs @body in a child, so that the cgroup is the child's; its exit code is the result. */
static int in_child(int (*body)(void))
{
    int status;

    fflush(NULL);
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0)
        _exit(body());
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* What processes left that were killed before these tests goes now, and not between two looks. */
static void sweep_others(void)
{
    kernel_backend_destroy(create(64 * MIB, NULL));
}

START_TEST(test_kernel_backend_create_destroy_leaves_nothing)
{
    struct host_state before = look();
    struct kernel_backend_stat stat;

    struct kernel_backend *kb = create(64 * MIB, &lz4_64m);
    kernel_backend_stat(kb, &stat);
    ck_assert_uint_eq(stat.limit_bytes, 64 * MIB);
    ck_assert(stat.has_zram);
    ck_assert_uint_eq(stat.zram.mem_limit_bytes, 64 * MIB);
    ck_assert_uint_ge(stat.swap_bytes, 64 * MIB);
    struct host_state during = look();
    ck_assert_uint_eq(during.nr_groups, before.nr_groups + 1);
    ck_assert_uint_eq(during.nr_ready_devices, before.nr_ready_devices + 1);
    kernel_backend_destroy(kb);
    assert_same(before);
    kernel_backend_destroy(NULL);
}
END_TEST

START_TEST(test_kernel_backend_two_in_one_process_have_their_own)
{
    struct host_state before = look();

    struct kernel_backend *a = create(64 * MIB, &lz4_64m), *b = create(32 * MIB, NULL);
    ck_assert_uint_eq(look().nr_groups, before.nr_groups + 2);
    ck_assert_uint_eq(look().nr_devices, before.nr_devices + 1);
    kernel_backend_destroy(a);
    kernel_backend_destroy(b);
    assert_same(before);
}
END_TEST

static int overcommit(void)
{
    struct kernel_backend *kb = NULL;
    struct kernel_backend_stat stat;
    struct diag diag = {0};
    uint64_t bytes = 96 * MIB;

    if (kernel_backend_create(48 * MIB, &lz4_64m, &kb, &diag) || kernel_backend_enter(kb))
        return 10;
    uint64_t *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return 11;
    fill(memory, bytes);
    kernel_backend_stat(kb, &stat);
    if (stat.usage_bytes > 48 * MIB || stat.zram.orig_data_bytes < 40 * MIB || !stat.nr_limit_hits)
        return 12;
    if (stat.swap_used_bytes < 40 * MIB || stat.zram.mem_used_bytes < stat.zram.compr_data_bytes)
        return 13;
    if (count_wrong(memory, bytes))
        return 14;
    if (kernel_backend_set_limit(kb, 32 * MIB) || count_wrong(memory, bytes))
        return 15;
    kernel_backend_stat(kb, &stat);
    if (stat.limit_bytes != 32 * MIB || stat.usage_bytes > 32 * MIB)
        return 16;
    munmap(memory, bytes);
    kernel_backend_destroy(kb);
    return 0;
}

START_TEST(test_kernel_backend_holds_the_limit_and_the_data)
{
    struct host_state before = look();

    ck_assert_int_eq(in_child(overcommit), 0);
    assert_same(before);
}
END_TEST

/* Swap still full when the backend goes: every page comes back. */
static int destroy_with_data(void)
{
    struct kernel_backend *kb = NULL;
    struct diag diag = {0};
    uint64_t bytes = 64 * MIB;

    if (kernel_backend_create(32 * MIB, &lz4_64m, &kb, &diag) || kernel_backend_enter(kb))
        return 10;
    uint64_t *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return 11;
    fill(memory, bytes);
    if (kernel_backend_set_limit(kb, UINT64_C(1) << 40))
        return 12;
    kernel_backend_destroy(kb);
    return count_wrong(memory, bytes) ? 13 : 0;
}

START_TEST(test_kernel_backend_destroy_brings_swapped_pages_back)
{
    struct host_state before = look();

    ck_assert_int_eq(in_child(destroy_with_data), 0);
    assert_same(before);
}
END_TEST

START_TEST(test_kernel_backend_killed_process_is_swept)
{
    struct host_state before = look();
    int ready[2];
    char byte;

    ck_assert_int_eq(pipe(ready), 0);
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        struct kernel_backend *kb = NULL;
        struct diag diag = {0};
        if (kernel_backend_create(64 * MIB, &lz4_64m, &kb, &diag) || kernel_backend_enter(kb) ||
            write(ready[1], "r", 1) != 1)
            _exit(1);
        pause();
        _exit(2);
    }
    ck_assert_int_eq(read(ready[0], &byte, 1), 1);
    /* Another backend leaves what a living process holds. */
    kernel_backend_destroy(create(64 * MIB, NULL));
    ck_assert_uint_eq(look().nr_ready_devices, before.nr_ready_devices + 1);
    ck_assert_int_eq(kill(pid, SIGKILL), 0);
    ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
    ck_assert_uint_eq(look().nr_groups, before.nr_groups + 1);
    kernel_backend_destroy(create(64 * MIB, NULL));
    assert_same(before);
    close(ready[0]);
    close(ready[1]);
}
END_TEST

static int create_as_nobody(void)
{
    struct kernel_backend *kb = NULL;
    struct diag diag = {0};

    if (setgid(65534) || setuid(65534))
        return 10;
    if (kernel_backend_create(64 * MIB, &lz4_64m, &kb, &diag) != -1 || kb)
        return 11;
    return diag.code == EXIT_HOST && strstr(diag.text, "root") ? 0 : 12;
}

START_TEST(test_kernel_backend_without_permission_says_so)
{
    struct host_state before = look();

    ck_assert_int_eq(in_child(create_as_nobody), 0);
    assert_same(before);
}
END_TEST

START_TEST(test_kernel_backend_missing_compressor_names_those_there_are)
{
    struct host_state before = look();
    struct zram_config config = {.algo = ZRAM_ZSTD, .limit_bytes = 64 * MIB};
    struct kernel_backend *kb = NULL;
    struct diag diag = {0};

    if (kernel_backend_create(64 * MIB, &config, &kb, &diag) == 0) {
        kernel_backend_destroy(kb);
    } else {
        ck_assert_int_eq(diag.code, EXIT_HOST);
        ck_assert_msg(strstr(diag.text, "zstd") && strstr(diag.text, "lz4"), "%s", diag.text);
    }
    assert_same(before);
}
END_TEST

START_TEST(test_kernel_backend_only_stale_names_are_stale)
{
    char name[32];

    snprintf(name, sizeof(name), "ebb-%d-0", (int)getpid());
    ck_assert(!kernel_name_is_stale(name));
    ck_assert(!kernel_name_is_stale("ebb-1-0"));
    ck_assert(!kernel_name_is_stale("ebb-"));
    ck_assert(!kernel_name_is_stale("ebb-4194303"));
    ck_assert(!kernel_name_is_stale("ebb-4194303-0-x"));
    ck_assert(!kernel_name_is_stale("other-4194303-0"));
    ck_assert(!kernel_name_is_stale("ebb--1-0"));
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0)
        _exit(0);
    ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
    snprintf(name, sizeof(name), "ebb-%d-12", (int)pid);
    ck_assert(kernel_name_is_stale(name));
}
END_TEST

/* NULL when the tests can run here. */
static const char *why_not(void)
{
    struct kernel_cgroup cg;
    struct diag diag = {0};

    if (geteuid() != 0)
        return "the kernel backend needs root";
    if (access("/sys/class/zram-control/hot_add", R_OK) != 0)
        return "the kernel has no zram (modprobe zram)";
    return kernel_cgroup_find(&cg, &diag) ? "no memory cgroup controller" : NULL;
}

/* Stands for the tests that cannot run, so that the runner counts a check for the skip. */
START_TEST(test_kernel_backend_skipped)
{
    printf("SKIP: %s\n", why_not());
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("kernel_backend");
    TCase *tc = tcase_create("kernel_backend");
    const char *why = why_not();

    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, test_kernel_backend_only_stale_names_are_stale);
    if (why) {
        tcase_add_test(tc, test_kernel_backend_skipped);
    } else {
        tcase_add_checked_fixture(tc, sweep_others, NULL);
        tcase_add_test(tc, test_kernel_backend_create_destroy_leaves_nothing);
        tcase_add_test(tc, test_kernel_backend_two_in_one_process_have_their_own);
        tcase_add_test(tc, test_kernel_backend_holds_the_limit_and_the_data);
        tcase_add_test(tc, test_kernel_backend_destroy_brings_swapped_pages_back);
        tcase_add_test(tc, test_kernel_backend_killed_process_is_swept);
        tcase_add_test(tc, test_kernel_backend_without_permission_says_so);
        tcase_add_test(tc, test_kernel_backend_missing_compressor_names_those_there_are);
    }
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
