/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bad input and a host that lacks something, from outside: the exit code, exactly one line on standard error that says
 * what is wrong, nothing left behind. No guest runs here.
 */
#include "mm/base/types.h"
#include "mm/swap/area.h"
#include "tests/fake/program.h"

#include <check.h>
#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/un.h>
#include <unistd.h>

static void expect_fault(const struct program *p, int code, const char *says)
{
    ck_assert_msg(p->code == code, "exit code %d, not %d: %s", p->code, code, p->err_text);
    ck_assert_msg(program_lines(p->err_text) == 1, "not one line: %s", p->err_text);
    ck_assert_msg(strncmp(p->err_text, "ebb: ", 5) == 0, "%s", p->err_text);
    ck_assert_msg(strstr(p->err_text, says), "\"%s\" does not say \"%s\"", p->err_text, says);
    ck_assert_msg(!*p->out_text, "on standard output: %s", p->out_text);
}

static const struct {
    const char *line, *says;
} wrong[] = {
    {"", "ebb help"},
    {"rnu", "did you mean run?"},
    {"frobnicate", "ebb help"},
    {"run --budget 0", "8M"},
    {"run --budget 4M", "8M"},
    {"run --memory 0", "256M"},
    {"run --memory 3M", "32 MiB, 64 MiB for Linux"},
    {"run --memory 100M1", "is not a size"},
    {"run --memory 65M", "66M"},
    {"run --memory 1024T", "address space"},
    {"run --vms 256 --memory 256G", "--budget"},
    {"run --vms 200 --memory 200G --budget 2T", "memory"},
    {"run --memroy 64M", "--memory"},
    {"run --swap", "needs a value"},
    {"run --swap .", "directory"},
    {"run --swap ./,size=64M", "directory"},
    {"run --swap a.swap", "size"},
    {"run --swap a.swap,size=4K", "64 KiB"},
    {"run --swap missing/a.swap,size=64M", "missing"},
    {"run --swap /dev/null", "/dev/null"},
    {"run --swap a.swap,size=64M --json /missing/out.json", "--json"},
    {"run --json .", "directory"},
    {"run --json out/", "directory"},
    {"run --json /proc/out.json", "--json"},
    {"run --api .", "no socket"},
    {"run --api missing/api.sock", "missing"},
    {"run --api "
     "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
     "longer than 107"},
    {"run --workload jump:1M", "jump"},
    {"run --workload 'fill:1G;verify'", "fill"},
    {"run --kernel k --memory 32M", "64M"},
    {"run --kernel k --workload fill:1M", "take one"},
    {"run --disk d", "--kernel"},
    {"run --kernel k --vms 2 --disk d", "readonly"},
    {"run --kernel k --hotplug-memory 3M", "4M"},
    {"run --kernel k --net tap=", "1 to 15"},
    {"run --numa bind", "policy="},
    {"run --numa policy=bind,nodes=63", "no node 63"},
    {"run --numa policy=bind,nodes=0 --node-budget 0=8M", "must be equal"},
    {"run --tiers fast=62,slow=63", "no node 62"},
    {"run --tiers fast=0,slow=1 --demote-rate 0", "nothing would ever move"},
    {"show", "ebb show help"},
    {"show vmstats", "did you mean vmstat?"},
    {"show free zram", "one view"},
    {"show page", "address"},
    {"show page 12z", "address"},
    {"show free --api missing.sock", "missing.sock"},
    {"show free --apo x", "ebb help show"},
    {"show free --vm vm0", "all VMs"},
    {"heatmap vm0", "too many"},
    {"heatmap --png", "file name"},
    {"heatmap --png missing/h.png --api missing.sock", "missing"},
    {"heatmap --png h.png --api missing.sock", "missing.sock"},
    {"heatmap --png h.png --json", "one at a time"},
    {"heatmap --vm VM! --api missing.sock", "vm0"},
    {"run --sample 200", "0 to 100"},
    {"run --access demon", "did you mean damon?"},
    {"swapon", "one swap file"},
    {"swapon a,size=x --api missing.sock", "size"},
    {"swapoff a --api missing.sock", "missing.sock"},
    {"reclaim much --api missing.sock", "64M"},
    {"reclaim 0 --api missing.sock", "64M"},
    {"sysctl vm.compact_memroy=1 --api missing.sock", "did you mean vm.compact_memory?"},
    {"sysctl vm.compact_memory --api missing.sock", "only be written"},
    {"sysctl vm.extfrag_threshold=1001 --api missing.sock", "from 0 to 1000"},
    {"sysctl vm.extfrag_threshold=many --api missing.sock", "whole number"},
    {"sysctl vm.extfrag_threshold= --api missing.sock", "whole number"},
    {"sysctl vm.min_free_kbytes=1 --api missing.sock", "only be read"},
    {"sysctl vm.extfrag_threshold vm.min_free_kbytes", "one setting"},
    {"sysctl --api missing.sock", "missing.sock"},
    {"help rnu", "did you mean run?"},
    {"version please", "too many"},
};

START_TEST(test_cli_wrong_usage_is_one_line_and_code_2)
{
    struct program p;
    program_init(&p);
    program_run(&p, wrong[_i].line);
    expect_fault(&p, 2, wrong[_i].says);
    program_fini(&p, NULL);
}
END_TEST

static const struct {
    const char *line, *says;
} helps[] = {
    {"help", "ebb show free"},
    {"--help", "ebb run"},
    {"-h", "ebb run"},
    {"help run", "--budget SIZE"},
    {"run --help", "--budget SIZE"},
    {"run --workload help", "fill"},
    {"help show", "vmstat"},
    {"show --help", "vmstat"},
    {"show help", "buddyinfo"},
    {"swapon --help", "size="},
    {"swapoff --help", "exit code"},
    {"reclaim -h", "64M"},
    {"sysctl --help", "vm.compact_memory=1"},
    {"version", "ebb "},
    {"heatmap --help", "--png"},
    {"help heatmap", "--png"},
    {"--version", "ebb "},
};

START_TEST(test_cli_help_is_on_standard_output_and_code_0)
{
    struct program p;
    program_init(&p);
    program_run(&p, helps[_i].line);
    ck_assert_int_eq(p.code, 0);
    ck_assert_str_eq(p.err_text, "");
    ck_assert_msg(strstr(p.out_text, helps[_i].says), "%s", p.out_text);
    program_fini(&p, NULL);
}
END_TEST

static bool output_is_full(void)
{
    int fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
    return fd >= 0 && dup2(fd, STDOUT_FILENO) == STDOUT_FILENO;
}

/* What `| head -1` is when it has seen its line. */
static bool reader_is_gone(void)
{
    int ends[2];
    return pipe2(ends, O_CLOEXEC) == 0 && dup2(ends[1], STDOUT_FILENO) == STDOUT_FILENO && close(ends[0]) == 0;
}

START_TEST(test_cli_output_that_is_lost_on_a_full_disk_is_told)
{
    struct program p;
    program_init(&p);
    p.prepare = output_is_full;
    program_run(&p, helps[_i].line);
    expect_fault(&p, 1, "disk full");
    program_fini(&p, NULL);
}
END_TEST

START_TEST(test_cli_output_whose_reader_has_seen_enough_is_no_error)
{
    struct program p;
    program_init(&p);
    p.prepare = reader_is_gone;
    program_run(&p, helps[_i].line);
    ck_assert_int_eq(p.code, 0);
    ck_assert_str_eq(p.err_text, "");
    program_fini(&p, NULL);
}
END_TEST

/* Not even a header is read of a file that another process has locked, as every ebb does. */
START_TEST(test_cli_swap_file_of_another_process_is_refused)
{
    char path[160];
    struct program p;
    program_init(&p);
    int fd = open(program_path(&p, "busy.swap", path), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    ck_assert_int_eq(flock(fd, LOCK_EX), 0);
    program_run(&p, "run --swap busy.swap");
    expect_fault(&p, 2, "in use by another process");
    close(fd);
    program_fini(&p, "busy.swap");
}
END_TEST

/* 1 MiB of swap that the kernel would take, without holes. */
static void put_swap(const char *path)
{
    static const uint8_t uuid[16] = {1};
    static uint8_t bytes[1 << 20];
    FILE *file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    swap_header_make(bytes, sizeof(bytes) / PAGE_BYTES, uuid, "test");
    ck_assert_uint_eq(fwrite(bytes, sizeof(bytes), 1, file), 1);
    fflush(file);
    ck_assert_int_eq(fchmod(fileno(file), 0600), 0);
    ck_assert_int_eq(fsync(fileno(file)), 0);
    fclose(file);
}

START_TEST(test_cli_swap_file_of_the_host_is_refused)
{
    char path[160];
    struct program p;
    program_init(&p);
    put_swap(program_path(&p, "host.swap", path));
    if (swapon(path, 0) == 0) { /* the lowest priority */
        program_run(&p, "run --swap host.swap");
        swapoff(path);
        expect_fault(&p, 2, "run swapoff");
    } else {
        printf("SKIP: swap file of the host: swapon: %s\n", strerror(errno));
    }
    program_fini(&p, "host.swap");
}
END_TEST

START_TEST(test_cli_swap_file_that_is_no_swap_is_left_alone)
{
    char path[160], text[64] = "";
    struct program p;
    program_init(&p);
    FILE *file = fopen(program_path(&p, "notes.txt", path), "w");
    fputs("not to be lost\n", file);
    fclose(file);
    program_run(&p, "run --swap notes.txt,size=64M");
    expect_fault(&p, 2, "notes.txt");
    file = fopen(path, "r");
    ck_assert_ptr_nonnull(fgets(text, sizeof(text), file));
    fclose(file);
    ck_assert_str_eq(text, "not to be lost\n");
    program_fini(&p, "notes.txt");
}
END_TEST

START_TEST(test_cli_api_socket_in_use_is_refused)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct program p;
    program_init(&p);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    program_path(&p, "busy.sock", address.sun_path);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    ck_assert_int_eq(listen(fd, 1), 0);
    program_run(&p, "run --api busy.sock");
    expect_fault(&p, 2, "in use");
    ck_assert_int_eq(access(address.sun_path, F_OK), 0);
    close(fd);
    program_fini(&p, "busy.sock");
}
END_TEST

START_TEST(test_cli_sockets_of_dead_processes_are_removed_and_its_own_too)
{
    /* The largest number that Linux gives a process is one less. */
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "/run/ebb/4194304.sock"};
    char own[64];
    struct program p;
    if (geteuid() != 0) {
        printf("SKIP: sockets in /run/ebb: needs root\n");
        return;
    }
    program_init(&p);
    mkdir("/run/ebb", 0700);
    unlink(address.sun_path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    close(fd);
    program_run(&p, "run --swap .");
    expect_fault(&p, 2, "directory");
    ck_assert_int_eq(access(address.sun_path, F_OK), -1);
    snprintf(own, sizeof(own), "/run/ebb/%ld.sock", (long)p.pid);
    ck_assert_int_eq(access(own, F_OK), -1);
    program_fini(&p, NULL);
}
END_TEST

/* As after kill -9 when nobody has waited for the process yet, or when its number has gone to another one. */
START_TEST(test_cli_socket_nobody_listens_at_does_not_hide_a_running_ebb)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct program p;
    if (geteuid() != 0) {
        printf("SKIP: sockets in /run/ebb: needs root\n");
        return;
    }
    program_init(&p);
    mkdir("/run/ebb", 0700);
    snprintf(address.sun_path, sizeof(address.sun_path), "/run/ebb/%ld.sock", (long)getpid());
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    close(fd);
    program_run(&p, "show free");
    unlink(address.sun_path);
    ck_assert_msg(strstr(p.err_text, address.sun_path) == NULL, "%s", p.err_text);
    program_fini(&p, NULL);
}
END_TEST

/* --- files of Linux guests that are not what they should be: made here, found by ebb -------------------------- */

static const struct {
    const char *line, *says;
} bad_files[] = {
    {"run --api none --memory 64M --kernel missing", "missing"},
    {"run --api none --memory 64M --kernel .", "."},
    {"run --api none --memory 64M --kernel text", "kernel"},
    {"run --api none --memory 64M --kernel empty", "empty"},
    {"run --api none --memory 64M --kernel arm", "aarch64"},
    {"run --api none --memory 64M --kernel half", "half"},
    {"run --api none --memory 64M --kernel large", "large"},
    {"run --api none --memory 64M --kernel good --initrd missing", "missing"},
    {"run --api none --memory 64M --kernel good --initrd large", "large"},
    {"run --api none --memory 64M --kernel good --disk missing", "missing"},
    {"run --api none --memory 64M --kernel good --disk .", "."},
    {"run --api none --memory 64M --kernel good --disk empty", "empty"},
    {"run --api none --memory 64M --kernel good --disk tiny", "tiny"},
    {"run --api none --memory 64M --kernel good --disk large --disk ./large", "large"},
    {"run --api none --memory 64M --kernel good --console-port name=a,path=missing/a.sock", "missing/a.sock"},
    {"run --api none --memory 64M --kernel good --vsock cid=3,path=missing/v.sock", "can be written"},
    {"run --api none --memory 64M --kernel good --vsock cid=3,path=text", "take another path"},
    {"run --api none --memory 64M --kernel good --console-port name=a,path=text", "take another path"},
};

static void put_file(const struct program *p, const char *name, const void *bytes, size_t nr, off_t size)
{
    char path[160];
    FILE *file = fopen(program_path(p, name, path), "w");

    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(bytes, 1, nr, file), nr);
    fflush(file);
    ck_assert_int_eq(ftruncate(fileno(file), size), 0);
    fclose(file);
}

/* An ELF file for @machine whose one segment has its bytes in the file only when @whole. */
static void put_elf(const struct program *p, const char *name, uint16_t machine, bool whole)
{
    struct {
        Elf64_Ehdr header;
        Elf64_Phdr segment;
        uint8_t code[16];
    } elf = {
        .header = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
                   .e_type = ET_EXEC,
                   .e_machine = machine,
                   .e_version = EV_CURRENT,
                   .e_entry = 0x1000000,
                   .e_phoff = sizeof(Elf64_Ehdr),
                   .e_ehsize = sizeof(Elf64_Ehdr),
                   .e_phentsize = sizeof(Elf64_Phdr),
                   .e_phnum = 1},
        .segment = {.p_type = PT_LOAD, .p_vaddr = 0x1000000, .p_paddr = 0x1000000},
        .code = {0xeb, 0xfe},
    };

    elf.segment.p_offset = (uint64_t)((char *)elf.code - (char *)&elf);
    elf.segment.p_filesz = elf.segment.p_memsz = sizeof(elf.code);
    put_file(p, name, &elf, sizeof(elf), (off_t)(whole ? sizeof(elf) : sizeof(elf) - sizeof(elf.code)));
}

START_TEST(test_cli_bad_file_of_a_linux_guest_is_one_line_and_code_2)
{
    static const char *const names[] = {"text", "empty", "arm", "half", "large", "good", "tiny"};
    static const char large[] = "\x7f"
                                "ELF: as long as it says nothing";
    char path[160];
    struct program p;

    if (access("/dev/kvm", R_OK | W_OK)) {
        printf("SKIP: files of Linux guests: needs /dev/kvm\n");
        return;
    }
    program_init(&p);
    put_file(&p, "text", "This is no kernel.\n", 19, 8192);
    put_file(&p, "empty", "", 0, 0);
    put_file(&p, "tiny", "x", 1, 100);
    put_file(&p, "large", large, sizeof(large), 100 << 20);
    put_elf(&p, "arm", EM_AARCH64, true);
    put_elf(&p, "half", EM_X86_64, false);
    put_elf(&p, "good", EM_X86_64, true);
    program_run(&p, bad_files[_i].line);
    expect_fault(&p, 2, bad_files[_i].says);
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        unlink(program_path(&p, names[i], path));
    program_fini(&p, NULL);
}
END_TEST

/* --- hosts that lack something: a mount namespace of the child's own, or another user ----------------------- */

static bool own_mounts(void)
{
    return unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
}

static bool small_disk(void)
{
    return own_mounts() && mkdir("disk", 0700) == 0 && mount("small", "disk", "tmpfs", 0, "size=1m") == 0;
}

static bool no_devices(void)
{
    return own_mounts() && mount("empty", "/dev", "tmpfs", 0, "size=64k") == 0;
}

/* /dev/kvm is there and is something else. */
static bool kvm_is_a_file(void)
{
    return own_mounts() && access("/dev/kvm", F_OK) == 0 && mount("/dev/null", "/dev/kvm", NULL, MS_BIND, NULL) == 0;
}

static bool few_descriptors(void)
{
    struct rlimit limit = {10, 10};
    return setrlimit(RLIMIT_NOFILE, &limit) == 0;
}

static bool other_user(void)
{
    return setgroups(0, NULL) == 0 && setgid(65534) == 0 && setuid(65534) == 0;
}

/* @keep: what the preparation itself leaves in the directory. */
static void expect_with(program_prepare *prepare, const char *line, int code, const char *says)
{
    char path[160];
    struct program p;
    program_init(&p);
    p.prepare = prepare;
    program_run(&p, line);
    rmdir(program_path(&p, "disk", path));
    if (p.cannot_prepare)
        printf("SKIP: `ebb %s`: the host cannot be made so; needs root\n", line);
    else
        expect_fault(&p, code, says);
    program_fini(&p, NULL);
}

START_TEST(test_cli_full_disk_is_found_before_the_run)
{
    expect_with(small_disk, "run --swap disk/a.swap,size=64M", 3, "a.swap");
}
END_TEST

START_TEST(test_cli_without_dev_kvm_says_so)
{
    expect_with(no_devices, "run --api none --budget 16M --memory 32M --workload fill:8M", 3, "/dev/");
}
END_TEST

START_TEST(test_cli_dev_kvm_that_is_not_kvm_says_so)
{
    expect_with(kvm_is_a_file, "run --api none --budget 16M --memory 32M --workload fill:8M", 3, "mknod /dev/kvm");
}
END_TEST

START_TEST(test_cli_user_without_rights_is_told_which)
{
    expect_with(other_user, "run --api none --budget 16M --memory 32M --workload fill:8M", 3, "");
}
END_TEST

START_TEST(test_cli_without_descriptors_says_how_to_have_more)
{
    expect_with(few_descriptors, "run --api none --budget 16M --memory 32M --workload fill:8M", 3, "ulimit -n");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cli");
    TCase *usage = tcase_create("usage"), *host = tcase_create("host");
    tcase_set_timeout(usage, 150);
    tcase_set_timeout(host, 150);
    tcase_add_loop_test(usage, test_cli_wrong_usage_is_one_line_and_code_2, 0, ARRAY_LEN(wrong));
    tcase_add_loop_test(usage, test_cli_help_is_on_standard_output_and_code_0, 0, ARRAY_LEN(helps));
    tcase_add_loop_test(usage, test_cli_output_that_is_lost_on_a_full_disk_is_told, 0, ARRAY_LEN(helps));
    tcase_add_loop_test(usage, test_cli_output_whose_reader_has_seen_enough_is_no_error, 0, ARRAY_LEN(helps));
    tcase_add_test(usage, test_cli_swap_file_of_another_process_is_refused);
    tcase_add_test(usage, test_cli_swap_file_of_the_host_is_refused);
    tcase_add_test(usage, test_cli_swap_file_that_is_no_swap_is_left_alone);
    tcase_add_test(usage, test_cli_api_socket_in_use_is_refused);
    tcase_add_test(usage, test_cli_sockets_of_dead_processes_are_removed_and_its_own_too);
    tcase_add_test(usage, test_cli_socket_nobody_listens_at_does_not_hide_a_running_ebb);
    tcase_add_loop_test(usage, test_cli_bad_file_of_a_linux_guest_is_one_line_and_code_2, 0, ARRAY_LEN(bad_files));
    tcase_add_test(host, test_cli_full_disk_is_found_before_the_run);
    tcase_add_test(host, test_cli_without_dev_kvm_says_so);
    tcase_add_test(host, test_cli_dev_kvm_that_is_not_kvm_says_so);
    tcase_add_test(host, test_cli_user_without_rights_is_told_which);
    tcase_add_test(host, test_cli_without_descriptors_says_how_to_have_more);
    suite_add_tcase(suite, usage);
    suite_add_tcase(suite, host);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
