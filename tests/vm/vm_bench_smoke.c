/* SPDX-License-Identifier: Apache-2.0 */
/* Every benchmark still builds and runs: one small round of each, no figure is looked at. Needs what they need. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm/kernel_cgroup.h"

static const char *const programs[] = {"bench_store", "bench_block", "bench_zipf",
                                       "bench_vm",    "bench_scale", "bench_tiers"};

/* Exit code of a command, its output left alone. */
static int run(char *const argv[])
{
    int status;

    fflush(NULL);
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        unsetenv("MAKEFLAGS");
        execvp(argv[0], argv);
        _exit(127);
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

START_TEST(test_bench_quick_round_runs)
{
    char path[64];

    snprintf(path, sizeof(path), "build/bench/%s", programs[_i]);
    char *argv[] = {path, "--quick", NULL};
    ck_assert_int_eq(run(argv), 0);
}
END_TEST

START_TEST(test_bench_programs_build)
{
    char *argv[] = {"make", "-s", "all", "bench-programs", NULL};

    ck_assert_int_eq(run(argv), 0);
}
END_TEST

/* NULL when the benchmarks can run here. */
static const char *why_not(void)
{
    struct kernel_cgroup cg;
    struct diag diag = {0};

    if (geteuid() != 0)
        return "benchmarks need root";
    if (access("/sys/class/zram-control/hot_add", R_OK) != 0)
        return "the kernel has no zram (modprobe zram)";
    return kernel_cgroup_find(&cg, &diag) ? "no memory cgroup controller" : NULL;
}

START_TEST(test_bench_skipped)
{
    printf("SKIP: %s\n", why_not());
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("bench_smoke");
    TCase *tc = tcase_create("bench_smoke");

    tcase_set_timeout(tc, 200);
    tcase_add_test(tc, test_bench_programs_build);
    if (why_not())
        tcase_add_test(tc, test_bench_skipped);
    else
        tcase_add_loop_test(tc, test_bench_quick_round_runs, 0, (int)(sizeof(programs) / sizeof(programs[0])));
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
