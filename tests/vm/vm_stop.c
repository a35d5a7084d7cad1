/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end at any moment: SIGINT and SIGKILL after random times, while guests fill, use, churn or run out of memory, while
 * a swap area is emptied. The closing table comes or the process is dead; nothing is left behind.
 */
#include "mm/base/types.h"
#include "tests/fake/run_ebb.h"
#include "tests/unit/model_rng.h"

#include <check.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NR_STOPS 16
#define NR_KILLS 10
#define MAX_DELAY_MS 1200u
/* A stop takes tens of milliseconds; the rest is for a machine that has other things to do. */
#define STOP_LIMIT_MS 10000u

/* What goes on when the end comes; none ends by itself. */
static const char *const lines[] = {
    "run --memory 64M --budget 16M --zram 6M --swap a.swap,size=128M "
    "--workload 'fill:48M,pattern=mixed;zipf,ops=1000000000,write=30'",
    "run --memory 64M --budget 16M --zram 6M --swap a.swap,size=128M --cpus 2 --transport copy "
    "--workload 'fill:48M,pattern=text;stream,passes=1000000,write=50'",
    "run --memory 32M --vms 4 --budget 24M --zram 6M --swap a.swap,size=192M "
    "--workload 'fill:24M,pattern=mixed;churn,ops=1000000000'",
    "run --memory 64M --vms 2 --cpus 2 --budget 32M --swap a.swap,size=64M --swap b.swap,size=128M --transport copy "
    "--workload 'fill:56M,pattern=random;zipf,ops=1000000000,write=50'",
    "run --memory 64M --budget 64M --workload 'fill:48M,pattern=text;idle:1m;idle:1m;idle:1m;idle:1m'",
};

static struct rng seeded(unsigned seed)
{
    return (struct rng){.state = seed * UINT64_C(0x9e3779b97f4a7c15)};
}

/* --- what must not be left behind -------------------------------------------------------------------------------- */

/* Children of the process that has died come to this one. */
static void adopt_orphans(void)
{
    ck_assert_int_eq(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), 0);
}

static void check_no_child(void)
{
    ck_assert_int_eq(waitpid(-1, NULL, WNOHANG), -1);
    ck_assert_int_eq(errno, ECHILD);
}

/* Bit i: zram device i, or loop device i in use. */
struct devices {
    uint64_t zram, loop;
};

static struct devices look_at_devices(void)
{
    struct devices devices = {0};
    char path[64];

    for (unsigned i = 0; i < 64; i++) {
        snprintf(path, sizeof(path), "/sys/block/zram%u", i);
        devices.zram |= (uint64_t)(access(path, F_OK) == 0) << i;
        snprintf(path, sizeof(path), "/sys/block/loop%u/loop/backing_file", i);
        devices.loop |= (uint64_t)(access(path, F_OK) == 0) << i;
    }
    return devices;
}

/* Other programs of this host may have a device for a while. */
static void check_no_device_more(struct devices before)
{
    struct devices now = look_at_devices();

    for (unsigned i = 0; i < 100 && (now.zram & ~before.zram || now.loop & ~before.loop); i++) {
        run_nap(100);
        now = look_at_devices();
    }
    ck_assert_uint_eq(now.zram & ~before.zram, 0);
    ck_assert_uint_eq(now.loop & ~before.loop, 0);
}

/* --- SIGINT ------------------------------------------------------------------------------------------------------ */

static uint64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Stops p and waits for its end. */
static void interrupt(struct program *p)
{
    uint64_t start_ms = now_ms();

    kill(p->pid, SIGINT);
    program_wait(p);
    ck_assert_msg(now_ms() - start_ms < STOP_LIMIT_MS, "it took %u ms", (unsigned)(now_ms() - start_ms));
}

/* @code: what the exit code may be besides 0. */
static void check_stopped(struct program *p, int code)
{
    ck_assert_msg(p->code == 0 || p->code == code, "exit code %d\n%s%s", p->code, p->out_text, p->err_text);
    ck_assert_ptr_nonnull(strstr(p->out_text, "Where the guest"));
    ck_assert_ptr_nonnull(strstr(p->out_text, "never touched"));
    json_t *json = run_load(p, "out.json");
    if (p->code == 0)
        ck_assert_str_eq(run_text(json, "result"), "stopped");
    json_decref(json);
    program_fini(p, "out.json");
}

START_TEST(test_stop_at_any_moment_ends_with_the_closing_table)
{
    struct rng rng = seeded(1 + (unsigned)_i);
    struct program p;
    char line[512];
    if (!program_has_kvm("stop at any moment"))
        return;
    adopt_orphans();
    program_init(&p);
    snprintf(line, sizeof(line), "%s --api a.sock --json out.json", lines[_i % (int)ARRAY_LEN(lines)]);
    program_start(&p, line);
    run_nap((unsigned)rng_below(&rng, MAX_DELAY_MS));
    interrupt(&p);
    check_no_child();
    if (p.code != -SIGINT) {
        check_stopped(&p, 0);
        return;
    }
    /* It had not come as far as to listen to signals. */
    ck_assert_str_eq(p.out_text, "");
    ck_assert_str_eq(p.err_text, "");
    program_fini(&p, NULL);
}
END_TEST

START_TEST(test_stop_while_memory_runs_out_ends)
{
    struct rng rng = seeded(100 + (unsigned)_i);
    struct program p;
    char line[512];
    if (!program_has_kvm("stop while memory runs out"))
        return;
    adopt_orphans();
    snprintf(line, sizeof(line),
             "run --memory 48M --vms 3 --cpus %d --budget 24M --zram 4M --swap a.swap,size=32M --api a.sock "
             "--json out.json --workload 'fill:40M,pattern=random;idle:10m'",
             1 + _i % 2);
    run_start_filled(&p, line, 2);
    run_nap((unsigned)rng_below(&rng, MAX_DELAY_MS));
    interrupt(&p);
    check_no_child();
    check_stopped(&p, 1);
}
END_TEST

START_TEST(test_stop_while_a_swap_area_is_emptied_ends)
{
    struct rng rng = seeded(200 + (unsigned)_i);
    struct program p, swapoff;
    char line[512];
    if (!program_has_kvm("stop during swapoff"))
        return;
    adopt_orphans();
    snprintf(line, sizeof(line), "%s --swap c.swap,size=192M,prio=1 --api a.sock --json out.json", lines[_i % 4]);
    run_start_filled(&p, line, 20);
    program_init(&swapoff);
    snprintf(line, sizeof(line), "swapoff %s/c.swap --api %s/a.sock", p.directory, p.directory);
    program_start(&swapoff, line);
    run_nap((unsigned)rng_below(&rng, 300));
    interrupt(&p);
    program_wait(&swapoff);
    ck_assert_msg(swapoff.code >= 0 && swapoff.code <= 2, "exit code %d", swapoff.code);
    program_fini(&swapoff, NULL);
    check_no_child();
    check_stopped(&p, 0);
}
END_TEST

/* --- SIGKILL ----------------------------------------------------------------------------------------------------- */

START_TEST(test_stop_by_kill_at_any_moment_leaves_nothing)
{
    struct rng rng = seeded(300 + (unsigned)_i);
    struct devices before = look_at_devices();
    struct program p;
    char socket[64];
    if (!program_has_kvm("kill -9"))
        return;
    adopt_orphans();
    program_init(&p);
    program_start(&p, lines[_i % (int)ARRAY_LEN(lines)]);
    snprintf(socket, sizeof(socket), "/run/ebb/%ld.sock", (long)p.pid);
    run_nap((unsigned)rng_below(&rng, MAX_DELAY_MS));
    kill(p.pid, SIGKILL);
    program_wait(&p);
    ck_assert_int_eq(p.code, -SIGKILL);
    check_no_child();
    /* Whoever looks for a socket next, to serve or to ask, removes that of the dead. */
    program_run(&p, _i % 2 ? "show free" : "run --memory 32M --budget 16M --quiet --workload fill:8M");
    ck_assert_msg(_i % 2 || p.code == 0, "exit code %d\n%s", p.code, p.err_text);
    ck_assert_msg(access(socket, F_OK) == -1, "%s is still there", socket);
    check_no_device_more(before);
    program_fini(&p, NULL);
}
END_TEST

START_TEST(test_stop_by_kill_of_the_kernel_backend_leaves_nothing_after_the_next)
{
    static const char *const line = "run --backend kernel --memory 64M --budget 32M --zram 16M --api none "
                                    "--workload 'fill:40M,pattern=text;%s'";
    struct rng rng = seeded(400 + (unsigned)_i);
    struct devices before = look_at_devices();
    struct program p;
    char all[256];
    if (!program_has_kvm("kill -9 of the kernel backend"))
        return;
    adopt_orphans();
    program_init(&p);
    snprintf(all, sizeof(all), line, "verify");
    program_run(&p, all); /* may this host do it; what others left behind goes away, too */
    if (p.code == 3 && program_lines(p.err_text) == 1) {
        printf("SKIP: kill -9 of the kernel backend: %s", p.err_text);
        program_fini(&p, NULL);
        return;
    }
    snprintf(all, sizeof(all), line, "zipf,ops=1000000000");
    program_start(&p, all);
    run_nap(100 + (unsigned)rng_below(&rng, MAX_DELAY_MS));
    kill(p.pid, SIGKILL);
    program_wait(&p);
    snprintf(all, sizeof(all), line, "verify");
    program_run(&p, all);
    ck_assert_msg(p.code == 0, "exit code %d\n%s", p.code, p.err_text);
    check_no_child();
    check_no_device_more(before);
    program_fini(&p, NULL);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("stop");
    TCase *interrupts = tcase_create("interrupts"), *kills = tcase_create("kills");
    tcase_set_timeout(interrupts, 280);
    tcase_set_timeout(kills, 280);
    tcase_add_loop_test(interrupts, test_stop_at_any_moment_ends_with_the_closing_table, 0, NR_STOPS);
    tcase_add_loop_test(interrupts, test_stop_while_memory_runs_out_ends, 0, 6);
    tcase_add_loop_test(interrupts, test_stop_while_a_swap_area_is_emptied_ends, 0, 8);
    tcase_add_loop_test(kills, test_stop_by_kill_at_any_moment_leaves_nothing, 0, NR_KILLS);
    tcase_add_loop_test(kills, test_stop_by_kill_of_the_kernel_backend_leaves_nothing_after_the_next, 0, 2);
    suite_add_tcase(suite, interrupts);
    suite_add_tcase(suite, kills);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
