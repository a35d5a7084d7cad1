/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `ebb balloon`, `mem`, `hint` and `dump` beside a running embedded guest, which has no driver for any of them: clear
 * answers; a dump of memory that is mostly elsewhere, page by page; and what is left when a dump is cut short.
 */
#include "mm/base/types.h"
#include "tests/fake/run_ebb.h"

#include <check.h>
#include <elf.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "guest-images/ebbguest/pattern.c"

#define FILLED_MIB 40
#define GUEST(devices)                                                                                                 \
    "run --memory 64M --budget 24M --zram 8M --swap a.swap,size=128M --api a.sock --json out.json " devices            \
    " --workload 'fill:40M,pattern=mixed;idle:600s;verify'"

static void start(struct program *p)
{
    run_start_filled(p, GUEST("--balloon"), FILLED_MIB);
}

static void stop(struct program *p)
{
    kill(p->pid, SIGTERM);
    program_wait(p);
    ck_assert_msg(p->code == 0, "exit code %d\n%s", p->code, p->err_text);
    program_fini(p, "out.json");
}

/* --- answers ------------------------------------------------------------------------------------------------- */

static const struct {
    const char *line;
    int code;
    const char *says; /* on standard output where the code is 0, else in one line on standard error */
} answers[] = {
    {"balloon 16M --api a.sock", 0, "0 bytes of 16 MiB in the balloon; the guest has no driver for it yet"},
    {"balloon 0 --api a.sock", 0, "0 bytes in the balloon"},
    {"balloon 65M --api a.sock", 2, "64 MiB"},
    {"balloon x --api a.sock", 2, "write it as 64M"},
    {"balloon --api a.sock", 2, "ebb help balloon"},
    {"balloon 1M --vm vm7 --api a.sock", 2, "ebb show free"},
    {"mem 16M --api a.sock", 2, "--hotplug-memory"},
    {"mem x --api a.sock", 2, "write it as 64M"},
    {"hint --api a.sock", 1, "no driver"},
    {"hint now --api a.sock", 2, "ebb help hint"},
    {"hint --vm vm7 --api a.sock", 2, "ebb show free"},
    {"dump --api a.sock", 2, "ebb help dump"},
    {"dump . --api a.sock", 2, "is a directory; name a file"},
    {"dump missing/core --api a.sock", 2, "name a file in a directory that exists"},
    {"dump /proc/core --api a.sock", 2, "name a file in a directory that can be written"},
    {"dump /dev/full --api a.sock", 2, "is no regular file; name a file"},
    {"dump core --vm vm7 --api a.sock", 2, "ebb show free"},
    {"dump core --api missing.sock", 2, "missing.sock"},
    {"show balloon --api a.sock", 0, "driver"},
    {"show devices --api a.sock", 0, "rng"},
};

START_TEST(test_guestctl_without_a_driver_is_answered_clearly)
{
    struct program p, answer;

    if (!program_has_kvm("balloon, mem, hint, dump"))
        return;
    start(&p);
    for (size_t i = 0; i < ARRAY_LEN(answers); i++) {
        run_ask(&p, answers[i].line, &answer);
        const char *text = answers[i].code ? answer.err_text : answer.out_text;
        ck_assert_msg(answer.code == answers[i].code, "%s: %d: %s", answers[i].line, answer.code, answer.err_text);
        ck_assert_msg(strstr(text, answers[i].says) != NULL, "%s: %s", answers[i].line, text);
        ck_assert_msg(program_lines(answer.err_text) == (answers[i].code != 0), "%s: %s", answers[i].line,
                      answer.err_text);
    }
    stop(&p);
}
END_TEST

START_TEST(test_guestctl_guest_without_devices_says_how_to_get_them)
{
    static const char *const lines[] = {"balloon 1M --api a.sock", "mem 2M --api a.sock", "hint --api a.sock",
                                        "dump core --api a.sock"};
    struct program p, answer;

    if (!program_has_kvm("no devices"))
        return;
    run_start_filled(&p, GUEST(""), 1);
    for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
        run_ask(&p, lines[i], &answer);
        ck_assert_msg(answer.code == 2, "%s: %d: %s", lines[i], answer.code, answer.err_text);
        ck_assert_msg(strstr(answer.err_text, "start it with") != NULL, "%s: %s", lines[i], answer.err_text);
    }
    stop(&p);
}
END_TEST

START_TEST(test_guestctl_stopped_ebb_is_told_and_answers_when_it_goes_on)
{
    struct program p, answer;
    char how[40];

    if (!program_has_kvm("a stopped ebb"))
        return;
    start(&p);
    snprintf(how, sizeof(how), "`kill -CONT %ld`", (long)p.pid);
    kill(p.pid, SIGSTOP);
    run_ask(&p, "show free --api a.sock", &answer);
    kill(p.pid, SIGCONT);
    ck_assert_int_eq(answer.code, 1);
    ck_assert_msg(strstr(answer.err_text, how) != NULL, "%s", answer.err_text);
    ck_assert_uint_eq(program_lines(answer.err_text), 1);
    run_ask(&p, "show free --api a.sock", &answer);
    ck_assert_msg(answer.code == 0, "%s", answer.err_text);
    stop(&p);
}
END_TEST

/* --- dumps --------------------------------------------------------------------------------------------------- */

struct core {
    unsigned nr_right, nr_wrong; /* pages with a header: every word is what address and generation say, or is not */
};

/* Content of vm0 begins with its name: FNV-1a. */
static uint64_t seed_of_vm0(void)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);

    for (const char *name = "vm0"; *name; name++)
        hash = (hash ^ (uint8_t)*name) * UINT64_C(0x100000001b3);
    return hash;
}

static void check_pages(int fd, const Elf64_Phdr *load, struct core *core)
{
    uint64_t page[PAGE_WORDS];
    struct ebb_bad bad;

    for (uint64_t at = 0; at < load->p_filesz; at += sizeof(page)) {
        const struct page_id id = {.gfn = (uint32_t)((load->p_paddr + at) >> PAGE_SHIFT), .seed = seed_of_vm0()};

        ck_assert_int_eq(pread(fd, page, sizeof(page), (off_t)(load->p_offset + at)), sizeof(page));
        if (page[0] >> 8 != MAGIC >> 8)
            continue;
        const struct page_id want = {id.gfn, (uint16_t)page[1], (uint8_t)page[0], id.seed};
        if (page_check(page, &want, &bad))
            core->nr_right++;
        else
            core->nr_wrong++;
    }
}

/* What the file holds; it is removed. */
static struct core take_core(const struct program *p, const char *name)
{
    char path[160];
    Elf64_Ehdr head;
    Elf64_Phdr load;
    struct stat st;
    struct core core = {0};
    int fd = open(program_path(p, name, path), O_RDONLY | O_CLOEXEC);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(fstat(fd, &st), 0);
    ck_assert_uint_eq(st.st_mode & 07777, 0600);
    ck_assert_int_eq(pread(fd, &head, sizeof(head), 0), sizeof(head));
    ck_assert_mem_eq(head.e_ident, ELFMAG, SELFMAG);
    for (unsigned i = 0; i < head.e_phnum; i++) {
        ck_assert_int_eq(pread(fd, &load, sizeof(load), (off_t)(head.e_phoff + i * sizeof(load))), sizeof(load));
        check_pages(fd, &load, &core);
    }
    close(fd);
    unlink(path);
    return core;
}

/* `ebb dump` that is waited for later. */
static void start_dump(const struct program *p, struct program *dumper)
{
    *dumper = *p;
    dumper->out = memfd_create("answer", MFD_CLOEXEC);
    dumper->err = memfd_create("fault", MFD_CLOEXEC);
    program_start(dumper, "dump core --api a.sock");
    run_nap(150);
}

static void wait_dump(struct program *dumper)
{
    program_wait(dumper);
    close(dumper->out);
    close(dumper->err);
}

/* 40 MiB in a budget of 24: a part is in the guest, the rest in zram and swap. Of mixed pages 12 of 16 have a header. */
START_TEST(test_guestctl_dump_of_an_overcommitted_guest_has_every_page)
{
    struct program p, answer;

    if (!program_has_kvm("dump"))
        return;
    start(&p);
    for (unsigned i = 0; i < 2; i++) {
        /* the second time over a file that is there, and may not be written: its directory may */
        run_ask(&p, "dump core --api a.sock", &answer);
        ck_assert_msg(answer.code == 0, "%s", answer.err_text);
        ck_assert_ptr_nonnull(strstr(answer.out_text, "64 MiB of memory: "));
        if (i == 0) {
            char path[160];
            ck_assert_int_eq(chmod(program_path(&p, "core", path), 0400), 0);
        }
    }
    struct core core = take_core(&p, "core");
    ck_assert_uint_eq(core.nr_wrong, 0);
    ck_assert_uint_ge(core.nr_right, FILLED_MIB * RUN_MIB / PAGE_BYTES * 12 / 16);
    stop(&p);
}
END_TEST

/*
 * The guest goes on, and its pages are right, after a dump in the middle of its work. In the dump each vCPU may be half way
 * through one page, and the guest through its filling; what was there once is there the next time.
 */
START_TEST(test_guestctl_guest_dumped_at_work_verifies_every_page)
{
    struct program p, answer;
    unsigned nr_before = 1;

    if (!program_has_kvm("dump of a guest at work"))
        return;
    run_start_filled(&p,
                     "run --memory 64M --budget 24M --zram 8M --swap a.swap,size=128M --cpus 2 --balloon --api a.sock "
                     "--json out.json --workload 'fill:40M,pattern=mixed;zipf:40M,ops=60000,write=50;verify'",
                     FILLED_MIB);
    for (unsigned i = 0; i < 3 && !run_has_ended(&p); i++) {
        run_ask(&p, "dump core --api a.sock", &answer);
        ck_assert_msg(answer.code == 0 || run_has_ended(&p) || strstr(answer.err_text, "ended") ||
                          strstr(answer.err_text, "run is over") || strstr(answer.err_text, "no VM"),
                      "%s", answer.err_text);
        if (answer.code != 0)
            break;
        struct core core = take_core(&p, "core");
        ck_assert_uint_le(core.nr_wrong, 2);
        ck_assert_uint_ge(core.nr_right + 2, nr_before);
        nr_before = core.nr_right;
    }
    program_wait(&p);
    ck_assert_msg(p.code == 0, "exit code %d\n%s", p.code, p.err_text);
    json_t *json = run_load(&p, "out.json");
    run_check_result(json, 1, 64 * RUN_MIB, NULL);
    json_decref(json);
    program_fini(&p, "out.json");
}
END_TEST

static const int ends[] = {SIGINT, SIGKILL};

/* 128 MiB of noise come from a swap file page by page: the dump is still under way. It is whole, or not there. */
START_TEST(test_guestctl_dump_cut_short_leaves_nothing)
{
    struct program p, dumper;
    char path[160];

    if (!program_has_kvm("a dump cut short"))
        return;
    run_start_filled(&p,
                     "run --memory 192M --budget 24M --swap a.swap,size=256M --balloon --api a.sock --quiet "
                     "--workload 'fill:128M,pattern=random;idle:600s'",
                     128);
    start_dump(&p, &dumper);
    kill(p.pid, ends[_i]);
    program_wait(&p);
    wait_dump(&dumper);
    ck_assert_int_eq(p.code, ends[_i] == SIGKILL ? -SIGKILL : 0);
    ck_assert_msg(dumper.code == 1 && program_lines(dumper.err_text) == 1, "exit code %d: %s%s", dumper.code,
                  dumper.out_text, dumper.err_text);
    ck_assert_int_ne(access(program_path(&p, "core", path), F_OK), 0);
    unlink(program_path(&p, "a.sock", path)); /* after SIGKILL */
    program_fini(&p, NULL);
}
END_TEST

START_TEST(test_guestctl_second_dump_of_a_vm_is_refused_while_the_first_goes_on)
{
    struct program p, dumper, answer;
    char path[160];

    if (!program_has_kvm("two dumps"))
        return;
    run_start_filled(&p,
                     "run --memory 192M --budget 24M --swap a.swap,size=256M --balloon --api a.sock --json out.json "
                     "--workload 'fill:128M,pattern=random;idle:600s'",
                     128);
    start_dump(&p, &dumper);
    run_ask(&p, "dump other --api a.sock", &answer);
    ck_assert_int_eq(answer.code, 1);
    ck_assert_msg(strstr(answer.err_text, "already") != NULL, "%s", answer.err_text);
    ck_assert_int_ne(access(program_path(&p, "other", path), F_OK), 0);
    wait_dump(&dumper);
    ck_assert_msg(dumper.code == 0, "%s", dumper.err_text);
    unlink(program_path(&p, "core", path));
    stop(&p);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("guestctl");
    TCase *tcase = tcase_create("guestctl");

    tcase_set_timeout(tcase, 120);
    tcase_add_test(tcase, test_guestctl_without_a_driver_is_answered_clearly);
    tcase_add_test(tcase, test_guestctl_guest_without_devices_says_how_to_get_them);
    tcase_add_test(tcase, test_guestctl_stopped_ebb_is_told_and_answers_when_it_goes_on);
    tcase_add_test(tcase, test_guestctl_dump_of_an_overcommitted_guest_has_every_page);
    tcase_add_test(tcase, test_guestctl_guest_dumped_at_work_verifies_every_page);
    tcase_add_loop_test(tcase, test_guestctl_dump_cut_short_leaves_nothing, 0, (int)ARRAY_LEN(ends));
    tcase_add_test(tcase, test_guestctl_second_dump_of_a_vm_is_refused_while_the_first_goes_on);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
