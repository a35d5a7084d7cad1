/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The embedded guest's hostile driver against all devices at once, from outside: Ebb lives, the guest's pages are as they
 * were, the disk has its size, and nothing is left behind. Also under the address sanitizer.
 */
#include "mm/base/types.h"
#include "tests/fake/program.h"

#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MIB (UINT64_C(1) << 20)
#define DISK_BYTES (16 * MIB)
#define NR_DEVICES 7 /* balloon, rng, two disks, console, vsock, mem */
#define LINE_END "devices, which asked for a reset "

static void make_disk(const struct program *p, const char *name)
{
    char path[160];
    int fd = open(program_path(p, name, path), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, DISK_BYTES), 0);
    close(fd);
}

static void expect_disk(const struct program *p, const char *name, bool untouched)
{
    char path[160];
    struct stat st;

    ck_assert_int_eq(stat(program_path(p, name, path), &st), 0);
    ck_assert_int_eq(st.st_size, DISK_BYTES);
    if (untouched)
        ck_assert_int_eq(st.st_blocks, 0);
}

/* "hostile: vCPU 0 attacked 7 devices, which asked for a reset 41 times": the sum over all vCPUs, which saw all devices. */
static unsigned long nr_resets(const struct program *p, unsigned nr_cpus)
{
    unsigned long sum = 0;
    const char *at = p->out_text;

    for (unsigned cpu = 0; cpu < nr_cpus; cpu++) {
        char line[80];

        snprintf(line, sizeof(line), "hostile: vCPU %u attacked %d " LINE_END, cpu, NR_DEVICES);
        at = strstr(p->out_text, line);
        ck_assert_msg(at != NULL, "no line \"%s\"\n%s", line, p->out_text);
        sum += strtoul(at + strlen(line), NULL, 10);
    }
    return sum;
}

START_TEST(test_hostile_driver_of_all_devices_harms_only_itself)
{
    char line[600], path[160];
    struct program p;
    unsigned nr_cpus = (unsigned)_i;

    if (!program_has_kvm("the hostile driver"))
        return;
    program_init(&p);
    make_disk(&p, "disk");
    make_disk(&p, "readonly");
    /* Half of the guest's memory: what devices touch comes out of swap, too. */
    snprintf(line, sizeof(line),
             "run --memory 64M --cpus %u --budget 16M --zram 4M --swap a.swap,size=64M --api none --disk disk "
             "--disk readonly,readonly,queues=2 --console-port name=port,path=port.sock --vsock cid=3,path=vsock.sock "
             "--hotplug-memory 64M --balloon --workload 'fill:20M,pattern=mixed;hostile,ops=%u;verify'",
             nr_cpus, 3000 / nr_cpus);
    program_run(&p, line);
    ck_assert_msg(p.code == 0, "exit code %d\n%s%s", p.code, p.out_text, p.err_text);
    ck_assert_msg(strstr(p.out_text, "5,120 pages verified, none bad") != NULL, "%s", p.out_text);
    ck_assert_uint_gt(nr_resets(&p, nr_cpus), 0);
    expect_disk(&p, "disk", false);
    expect_disk(&p, "readonly", true);
    ck_assert_int_eq(unlink(program_path(&p, "readonly", path)), 0);
    program_fini(&p, "disk");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("vm_hostile");
    TCase *tcase = tcase_create("driver");
    SRunner *runner;

    tcase_set_timeout(tcase, 180);
    tcase_add_loop_test(tcase, test_hostile_driver_of_all_devices_harms_only_itself, 1, 3);
    suite_add_tcase(suite, tcase);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int nr_failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return nr_failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
