/* SPDX-License-Identifier: Apache-2.0 */
/* Calls into the device thread: before it starts, while it does, and when it has ended. The devices are made by hand: none. */
#include "vmm/machine_kinds.h"

#include <check.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

static struct machine_devices *devices_new(void)
{
    struct machine_devices *devices = calloc(1, sizeof(*devices));

    ck_assert_ptr_nonnull(devices);
    ck_assert_int_eq(loop_create(&devices->loop), 0);
    pthread_mutex_init(&devices->lock, NULL);
    pthread_cond_init(&devices->changed, NULL);
    return devices;
}

static void start(struct machine_devices *devices)
{
    struct diag diag = {0};

    ck_assert_msg(machine_devices_start(devices, &diag) == 0, "%s", diag.text);
}

static void note_thread(void *ctx, struct mm_thread *thread)
{
    (void)thread;
    *(pthread_t *)ctx = pthread_self();
}

START_TEST(test_machine_devices_call_runs_in_their_thread_while_there_is_one)
{
    struct machine_devices *devices = devices_new();
    pthread_t thread;

    ck_assert_int_eq(machine_devices_call(devices, note_thread, &thread), -ECANCELED);
    start(devices);
    thread = pthread_self();
    ck_assert_int_eq(machine_devices_call(devices, note_thread, &thread), 0);
    ck_assert(pthread_equal(thread, devices->thread));
    machine_devices_stop(devices);
    machine_devices_join(devices);
    ck_assert_int_eq(machine_devices_call(devices, note_thread, &thread), -ECANCELED);
    machine_devices_destroy(devices);
}
END_TEST

static void *call_until_it_runs(void *arg)
{
    pthread_t thread;
    int err;

    while ((err = machine_devices_call(arg, note_thread, &thread)) == -ECANCELED)
        sched_yield();
    return err ? arg : NULL;
}

/* The API is there before the VMs start. For the thread sanitizer, too. */
START_TEST(test_machine_devices_call_while_they_start_is_run_or_canceled)
{
    for (unsigned i = 0; i < 20; i++) {
        struct machine_devices *devices = devices_new();
        pthread_t caller;
        void *failed;

        ck_assert_int_eq(pthread_create(&caller, NULL, call_until_it_runs, devices), 0);
        start(devices);
        pthread_join(caller, &failed);
        ck_assert_ptr_null(failed);
        machine_devices_destroy(devices);
    }
}
END_TEST

/* What the user is told of a network card over @tap. */
static struct diag net_refused(const char *tap)
{
    struct linux_config want = {.nr_nets = 1};
    const struct machine_devices_config config = {.want = &want};
    struct machine_devices *devices = devices_new();
    const struct kind *kind = machine_kinds;
    struct slot slot = {0};
    struct diag diag = {0};

    while (strcmp(kind->name, "net") != 0)
        kind++;
    devices->env.loop = devices->loop;
    snprintf(want.net[0].tap, sizeof(want.net[0].tap), "%s", tap);
    ck_assert_int_eq(kind->create(devices, &config, 0, &slot, &diag), -1);
    machine_devices_destroy(devices);
    return diag;
}

/* In a mount and a network namespace of its own (Check forks one a test). */
START_TEST(test_machine_devices_kernel_without_taps_is_wrong_usage)
{
    if (geteuid() != 0 || unshare(CLONE_NEWNS | CLONE_NEWNET) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
        access("/dev/net/tun", F_OK)) {
        printf("SKIP: tap: needs root, namespaces and /dev/net/tun\n");
        return;
    }
    struct diag missing = net_refused("ebbnone");
    ck_assert_msg(missing.code == EXIT_USAGE && strstr(missing.text, "ip tuntap add"), "%s", missing.text);
    ck_assert_int_eq(mount("none", "/dev/net", "tmpfs", 0, NULL), 0);
    struct diag lacks = net_refused("ebbnone");
    ck_assert_msg(lacks.code == EXIT_HOST && strstr(lacks.text, "modprobe tun"), "%s", lacks.text);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("machine_devices");
    TCase *tcase = tcase_create("machine_devices");

    tcase_add_test(tcase, test_machine_devices_call_runs_in_their_thread_while_there_is_one);
    tcase_add_test(tcase, test_machine_devices_call_while_they_start_is_run_or_canceled);
    tcase_add_test(tcase, test_machine_devices_kernel_without_taps_is_wrong_usage);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
