/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `ebb run` from outside, with guests: what the JSON says, that the budget holds, that signals stop it, that one VM's
 * failure is its own, that a running one can be looked into and told what to do, and that nothing is left behind.
 */
#include "mm/base/types.h"
#include "mm/swap/area.h"
#include "tests/fake/run_ebb.h"

#include <check.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct {
    const char *line, *transport;
    unsigned nr_vms;
    uint64_t memory_mib;
} good[] = {
    {"run --memory 64M --workload 'fill:40M,pattern=text;verify'", NULL, 1, 64},
    {"run --memory 64M --budget 20M --zram 8M --swap a.swap,size=128M --transport move "
     "--workload 'fill:40M,pattern=mixed;zipf:40M,ops=3000,write=30;verify'",
     "move", 1, 64},
    {"run --memory 64M --budget 20M --zram 8M --swap a.swap,size=128M --transport copy "
     "--workload 'fill:40M,pattern=mixed;zipf:40M,ops=3000,write=30;verify'",
     "copy", 1, 64},
    {"run --memory 64M --cpus 2 --budget 20M --swap a.swap,size=128M --no-thp --readahead 1 --fault-around 1 "
     "--workload 'fill:40M,pattern=random;zipf:40M,ops=2000;verify'",
     NULL, 1, 64},
    {"run --memory 64M --budget 24M --zram 20M,algo=zstd,level=3 --pin none "
     "--workload 'fill:40M,pattern=text;stream:40M,passes=1;verify'",
     NULL, 1, 64},
    {"run --memory 48M --vms 2 --budget 32M --zram 12M --swap a.swap,size=64M,prio=1 --swap b.swap,size=64M,prio=2 "
     "--workload 'fill:24M,pattern=mixed;zipf:24M,ops=1000;verify'",
     NULL, 2, 48},
    {"run --memory 64M --budget 20M --zram 8M --swap a.swap,size=64M --numa policy=bind,nodes=0 "
     "--workload 'fill:32M,pattern=mixed;zipf:32M,ops=2000,write=30;verify'",
     NULL, 1, 64},
    {"run --memory 64M --budget 20M --zram 8M --swap a.swap,size=64M --numa policy=local --transport copy "
     "--workload 'fill:32M,pattern=mixed;zipf:32M,ops=2000,write=30;verify'",
     "copy", 1, 64},
};

START_TEST(test_run_verifies_every_page_and_says_where_all_is)
{
    char line[512];
    struct program p;
    if (!program_has_kvm("run"))
        return;
    program_init(&p);
    snprintf(line, sizeof(line), "%s --json out.json", good[_i].line);
    program_run(&p, line);
    ck_assert_msg(p.code == 0, "exit code %d\n%s%s", p.code, p.out_text, p.err_text);
    ck_assert_str_eq(p.err_text, "");
    ck_assert_ptr_nonnull(strstr(p.out_text, "Result: ok"));
    json_t *json = run_load(&p, "out.json");
    run_check_result(json, good[_i].nr_vms, good[_i].memory_mib * RUN_MIB, good[_i].transport);
    json_decref(json);
    program_fini(&p, "out.json");
}
END_TEST

START_TEST(test_run_memory_that_is_not_plugged_is_none_that_the_guest_has)
{
    struct program p;

    if (!program_has_kvm("a run with memory to be plugged"))
        return;
    program_init(&p);
    program_run(&p, "run --memory 64M --hotplug-memory 128M --api none --workload fill:1M");
    ck_assert_msg(p.code == 0, "exit code %d\n%s%s", p.code, p.out_text, p.err_text);
    const char *row = strstr(p.out_text, "the guest believes it has");
    ck_assert_msg(row && strncmp(row + strcspn(row, "0123456789"), "64 MiB", 6) == 0, "%s", p.out_text);
    program_fini(&p, NULL);
}
END_TEST

START_TEST(test_run_json_to_standard_output_is_all_there_is_on_it)
{
    struct program p;
    if (!program_has_kvm("run --json -"))
        return;
    program_init(&p);
    program_run(&p, "run --memory 32M --quiet --json - --workload 'fill:8M;verify'");
    ck_assert_msg(p.code == 0, "exit code %d\n%s", p.code, p.err_text);
    ck_assert_str_eq(p.err_text, "");
    json_t *json = json_loads(p.out_text, JSON_REJECT_DUPLICATES, NULL);
    ck_assert_msg(json != NULL, "no JSON: %s", p.out_text);
    run_check_result(json, 1, 32 * RUN_MIB, NULL);
    json_decref(json);
    program_fini(&p, NULL);
}
END_TEST

START_TEST(test_run_out_of_memory_stops_the_vm_and_says_what_is_full)
{
    struct program p;
    if (!program_has_kvm("out of memory"))
        return;
    program_init(&p);
    program_run(&p, "run --memory 64M --budget 16M --zram 4M --swap a.swap,size=8M --json out.json "
                    "--workload 'fill:48M,pattern=random;verify'");
    ck_assert_msg(p.code == 1, "exit code %d\n%s%s", p.code, p.out_text, p.err_text);
    ck_assert_msg(program_lines(p.err_text) == 1, "not one line: %s", p.err_text);
    ck_assert_msg(strstr(p.err_text, "ebb: vm0: out of memory: budget 16 MiB, zram 4 MiB and swap"), "%s", p.err_text);
    json_t *json = run_load(&p, "out.json");
    ck_assert_ptr_nonnull(strstr(run_text(json, "result"), "out of memory"));
    ck_assert_int_eq(json_integer_value(json_object_get(json_object_get(json, "vmstat"), "oom_kill")), 1);
    json_decref(json);
    program_fini(&p, "out.json");
}
END_TEST

static bool streams_are_closed(void)
{
    return close(STDIN_FILENO) == 0 && close(STDOUT_FILENO) == 0 && close(STDERR_FILENO) == 0;
}

/* Their numbers would go to the next files that are opened. */
START_TEST(test_run_without_standard_streams_writes_only_results_into_the_results)
{
    struct program p;
    if (!program_has_kvm("closed standard streams"))
        return;
    program_init(&p);
    p.prepare = streams_are_closed;
    program_run(&p, "run --memory 32M --json out.json --workload 'fill:8M;verify'");
    ck_assert_int_eq(p.code, 0);
    json_t *json = run_load(&p, "out.json");
    run_check_result(json, 1, 32 * RUN_MIB, NULL);
    json_decref(json);
    program_fini(&p, "out.json");
}
END_TEST

static bool few_descriptors_at_first(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit))
        return false;
    limit.rlim_cur = 16;
    return limit.rlim_max >= 256 && setrlimit(RLIMIT_NOFILE, &limit) == 0;
}

START_TEST(test_run_of_more_vms_than_the_soft_limit_of_descriptors_works)
{
    struct program p;
    if (!program_has_kvm("descriptors"))
        return;
    program_init(&p);
    p.prepare = few_descriptors_at_first;
    program_run(&p, "run --vms 4 --memory 32M --workload 'fill:4M;verify'");
    ck_assert_msg(p.code == 0, "exit code %d: %s", p.code, p.err_text);
    program_fini(&p, NULL);
}
END_TEST

/* Its metadata, 24 bytes a page, is more than the 1 GiB that is mapped when it begins. */
START_TEST(test_run_largest_embedded_guest_starts_and_verifies)
{
    struct program p;
    if (!program_has_kvm("the largest guest"))
        return;
    program_init(&p);
    program_run(&p, "run --memory 256G --budget 128M --zram 32M --workload 'fill:4M;verify'");
    ck_assert_msg(p.code == 0, "exit code %d: %s", p.code, p.err_text);
    program_fini(&p, NULL);
}
END_TEST

/* Room for the closing table and not for the results. */
static bool small_files(void)
{
    const struct rlimit limit = {3072, 3072};

    return signal(SIGXFSZ, SIG_DFL) != SIG_ERR && setrlimit(RLIMIT_FSIZE, &limit) == 0;
}

START_TEST(test_run_results_larger_than_ulimit_f_are_told_and_nothing_is_left)
{
    struct program p;
    if (!program_has_kvm("the limit of files"))
        return;
    program_init(&p);
    p.prepare = small_files;
    program_run(&p, "run --memory 32M --vms 2 --api a.sock --json a.json --quiet --workload fill:4M");
    ck_assert_int_eq(p.code, 1);
    ck_assert_ptr_nonnull(strstr(p.err_text, "the results could not be written to"));
    program_fini(&p, NULL);
}
END_TEST

/* --- swap that fails ----------------------------------------------------------------------------------------- */

#define SWAP_BYTES (128 * RUN_MIB)

/* Makes the empty file @fd swap, as mkswap does; nothing but the header takes room on the disk yet. */
static void put_swap(int fd)
{
    static const uint8_t uuid[16] = {1};
    uint8_t header[PAGE_BYTES];

    swap_header_make(header, SWAP_BYTES / PAGE_BYTES, uuid, "test");
    ck_assert_int_eq(pwrite(fd, header, sizeof(header), 0), sizeof(header));
    ck_assert_int_eq(ftruncate(fd, (off_t)SWAP_BYTES), 0);
}

/* Changes one page of the swap file @fd: of those that were written the one in the middle, whose frame is long gone. */
static void damage_one_page(int fd)
{
    static uint64_t written[SWAP_BYTES / PAGE_BYTES];
    uint64_t page[PAGE_BYTES / 8];
    size_t nr = 0;

    for (uint64_t at = PAGE_BYTES; at < SWAP_BYTES; at += PAGE_BYTES) {
        ck_assert_int_eq(pread(fd, page, sizeof(page), (off_t)at), sizeof(page));
        if (page[1] != 0)
            written[nr++] = at;
    }
    ck_assert_uint_gt(nr, 1000);
    ck_assert_int_eq(pwrite(fd, "damage", 6, (off_t)written[nr / 2] + 1000), 6);
}

START_TEST(test_run_page_that_cannot_be_read_back_stops_only_the_vm_that_needs_it)
{
    char path[] = "/var/tmp/ebb-damage-XXXXXX", line[256];
    struct program p;
    if (!program_has_kvm("damaged swap"))
        return;
    int fd = mkstemp(path);
    put_swap(fd);
    snprintf(line, sizeof(line),
             "run --vms 2 --memory 64M --budget 32M --swap %s --api a.sock --json out.json "
             "--workload 'fill:40M,pattern=random;idle:4s;verify'",
             path);
    run_start_filled(&p, line, 40);
    unlink(path);
    damage_one_page(fd);
    close(fd);
    program_wait(&p);
    ck_assert_msg(p.code == 1, "exit code %d: %s", p.code, p.err_text);
    ck_assert_msg(program_lines(p.err_text) == 1, "not one line: %s", p.err_text);
    ck_assert_msg(strstr(p.err_text, "could not be read back"), "%s", p.err_text);
    json_t *json = run_load(&p, "out.json"), *vms = json_object_get(json, "vms");
    unsigned failed = strncmp(p.err_text, "ebb: vm0: ", 10) == 0 ? 0 : 1;
    const json_t *other = json_array_get(vms, 1 - failed);
    ck_assert_ptr_nonnull(strstr(run_text(json_array_get(vms, failed), "result"), "could not be read back"));
    ck_assert_str_eq(run_text(other, "result"), "ok");
    ck_assert_uint_eq(run_number(other, "pages_verified"), 40 * RUN_MIB / PAGE_BYTES);
    json_decref(json);
    program_fini(&p, "out.json");
}
END_TEST

/* A disk with room for a part of the swap file on it. */
static bool swap_on_a_small_disk(void)
{
    if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) || mkdir("disk", 0700) ||
        mount("small", "disk", "tmpfs", 0, "size=4m"))
        return false;
    int fd = open("disk/a.swap", O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0)
        put_swap(fd);
    return close(fd) == 0;
}

START_TEST(test_run_pages_that_a_full_disk_refuses_stay_in_memory)
{
    char path[160];
    struct program p;
    if (!program_has_kvm("full disk"))
        return;
    program_init(&p);
    p.prepare = swap_on_a_small_disk;
    program_run(&p, "run --memory 64M --budget 32M --zram 16M --swap disk/a.swap --json out.json "
                    "--workload 'fill:40M,pattern=mixed;verify'");
    rmdir(program_path(&p, "disk", path));
    if (p.cannot_prepare) {
        puts("SKIP: swap on a full disk: needs root, for a mount");
        program_fini(&p, NULL);
        return;
    }
    ck_assert_msg(p.code == 0, "exit code %d: %s", p.code, p.err_text);
    ck_assert_msg(program_lines(p.err_text) == 1, "not one line: %s", p.err_text);
    ck_assert_msg(strstr(p.err_text, "ebb: warning: swap disk/a.swap: ") && strstr(p.err_text, " writes failed"), "%s",
                  p.err_text);
    json_t *json = run_load(&p, "out.json");
    run_check_result(json, 1, 64 * RUN_MIB, NULL);
    ck_assert_uint_gt(run_number(json_array_get(json_object_get(json, "swaps"), 0), "write_errors"), 0);
    json_decref(json);
    program_fini(&p, "out.json");
}
END_TEST

START_TEST(test_run_out_of_memory_by_a_full_disk_says_so)
{
    char path[160];
    struct program p;
    if (!program_has_kvm("full disk"))
        return;
    program_init(&p);
    p.prepare = swap_on_a_small_disk;
    program_run(&p, "run --memory 64M --budget 16M --swap disk/a.swap --workload 'fill:40M,pattern=random;verify'");
    rmdir(program_path(&p, "disk", path));
    if (p.cannot_prepare) {
        puts("SKIP: out of memory by a full disk: needs root, for a mount");
    } else {
        ck_assert_msg(p.code == 1, "exit code %d: %s", p.code, p.err_text);
        ck_assert_msg(strstr(p.err_text, "swap 128.0 MiB are full or refuse writes"), "%s", p.err_text);
    }
    program_fini(&p, NULL);
}
END_TEST

/* --- while it runs ------------------------------------------------------------------------------------------- */

#define IDLE_RUN                                                                                                       \
    "run --memory 64M --budget 24M --zram 8M --swap a.swap,size=128M --api a.sock --json out.json "                    \
    "--workload 'fill:40M,pattern=mixed;idle:600s;verify'"

static const int signals[] = {SIGINT, SIGTERM, SIGHUP};

START_TEST(test_run_signal_stops_it_with_the_closing_table)
{
    struct program p;
    if (!program_has_kvm("signals"))
        return;
    run_start_filled(&p, IDLE_RUN, 40);
    kill(p.pid, signals[_i]);
    program_wait(&p);
    ck_assert_msg(p.code == 0, "exit code %d\n%s%s", p.code, p.out_text, p.err_text);
    ck_assert_ptr_nonnull(strstr(p.out_text, "Result: stopped"));
    ck_assert_ptr_nonnull(strstr(p.out_text, "never touched"));
    json_t *json = run_load(&p, "out.json");
    ck_assert_str_eq(run_text(json, "result"), "stopped");
    json_decref(json);
    program_fini(&p, "out.json");
}
END_TEST

START_TEST(test_run_signal_while_many_vms_start_does_not_wait_for_the_last)
{
    struct stat out = {0};
    struct program p;
    if (!program_has_kvm("signals"))
        return;
    program_init(&p);
    program_start(&p, "run --vms 64 --memory 32M --budget 512M --api none --json out.json --workload idle:600s");
    while (!run_has_ended(&p) && out.st_size == 0) { /* the first line: all are made, none has begun */
        run_nap(1);
        ck_assert_int_eq(fstat(p.out, &out), 0);
    }
    kill(p.pid, SIGINT);
    program_wait(&p);
    ck_assert_msg(p.code == 0, "exit code %d\n%s%s", p.code, p.out_text, p.err_text);
    json_t *json = run_load(&p, "out.json");
    ck_assert_str_eq(run_text(json, "result"), "stopped");
    ck_assert_uint_ge(json_array_size(json_object_get(json, "vms")), 1);
    ck_assert_uint_lt(json_array_size(json_object_get(json, "vms")), 64);
    json_decref(json);
    program_fini(&p, "out.json");
}
END_TEST

/* Who asked waited for the last of them, and was told after a while that ebb hangs. */
START_TEST(test_run_answers_who_asks_while_many_vms_start)
{
    struct program p, answer = {.code = -1};
    unsigned nr_refused = 0;
    if (!program_has_kvm("answers while VMs start"))
        return;
    program_init(&p);
    program_start(&p, "run --vms 64 --memory 32M --budget 512M --api a.sock --json out.json --workload idle:600s");
    while (!run_has_ended(&p) && answer.code) {
        run_ask(&p, "show balloon --api a.sock", &answer);
        if (answer.code == 1) {
            ck_assert_msg(strstr(answer.err_text, "that ebb is not ready yet: it is "), "%s", answer.err_text);
            nr_refused++;
        }
    }
    ck_assert_msg(answer.code == 0, "%s", answer.err_text);
    ck_assert_uint_gt(nr_refused, 0);
    kill(p.pid, SIGTERM);
    program_wait(&p);
    ck_assert_msg(p.code == 0, "exit code %d\n%s%s", p.code, p.out_text, p.err_text);
    program_fini(&p, "out.json");
}
END_TEST

START_TEST(test_run_killed_leaves_no_swap_file)
{
    char path[160];
    struct program p;
    if (!program_has_kvm("kill -9"))
        return;
    run_start_filled(&p, IDLE_RUN, 40);
    kill(p.pid, SIGKILL);
    program_wait(&p);
    ck_assert_int_eq(p.code, -SIGKILL);
    ck_assert_int_eq(access(program_path(&p, "a.swap", path), F_OK), -1);
    ck_assert_int_eq(access(program_path(&p, "out.json", path), F_OK), -1);
    /* The socket's file cannot go by itself; whoever comes next at its place replaces it. */
    program_run(&p, "run --memory 32M --api a.sock --workload fill:8M");
    ck_assert_msg(p.code == 0, "%s", p.err_text);
    program_fini(&p, NULL);
}
END_TEST

START_TEST(test_run_shows_every_view_while_it_runs)
{
    static const char *const views[] = {
        "vmstat", "zoneinfo",       "buddyinfo", "slabinfo", "lru",   "zram",         "swaps",   "stage2", "regions",
        "free",   "page 0x1000000", "pageclass", "numa",     "tiers", "pagetypeinfo", "extfrag", "idle"};
    struct program p, answer;
    char line[128];
    if (!program_has_kvm("show"))
        return;
    run_start_filled(&p, IDLE_RUN, 40);
    for (size_t i = 0; i < 2 * ARRAY_LEN(views); i++) {
        snprintf(line, sizeof(line), "show %s --api a.sock%s", views[i / 2], i % 2 ? " --json" : "");
        run_ask(&p, line, &answer);
        ck_assert_msg(answer.code == 0, "%s: %s", line, answer.err_text);
        ck_assert_str_eq(answer.err_text, "");
        ck_assert_msg(strlen(answer.out_text) > 20, "%s: %s", line, answer.out_text);
        json_t *json = i % 2 ? json_loads(answer.out_text, 0, NULL) : NULL;
        ck_assert_msg(i % 2 == 0 || json, "%s: no JSON", line);
        json_decref(json);
    }
    kill(p.pid, SIGTERM);
    program_wait(&p);
    ck_assert_int_eq(p.code, 0);
    program_fini(&p, "out.json");
}
END_TEST

/* Is @word in a line of /proc/PID/NAME? */
static bool proc_has(const struct program *p, const char *name, const char *word)
{
    char path[64], line[512];
    bool found = false;

    snprintf(path, sizeof(path), "/proc/%d/%s", p->pid, name);
    FILE *file = fopen(path, "re");
    while (file && !found && fgets(line, sizeof(line), file))
        found = strstr(line, word) != NULL;
    if (file)
        fclose(file);
    return found;
}

/* Each costs a VM's process 2 MiB and more. */
START_TEST(test_run_has_libraries_in_memory_only_when_it_has_used_them)
{
    static const char *const libraries[] = {"libmicrohttpd", "libgnutls", "libcapstone", "libcairo"};
    struct program p, answer;
    if (!program_has_kvm("libraries"))
        return;
    program_init(&p);
    program_start(&p, IDLE_RUN);
    for (int i = 0; i < 1500 && !run_has_ended(&p) && !proc_has(&p, "maps", "kvm-vcpu"); i++)
        run_nap(20);
    ck_assert_msg(proc_has(&p, "maps", "kvm-vcpu"), "no vCPU");
    for (size_t i = 0; i < ARRAY_LEN(libraries); i++)
        ck_assert_msg(!proc_has(&p, "maps", libraries[i]), "%s is loaded", libraries[i]);
    run_ask(&p, "show free --api a.sock", &answer);
    ck_assert_msg(answer.code == 0, "%s", answer.err_text);
    ck_assert(proc_has(&p, "maps", libraries[0]));
    kill(p.pid, SIGTERM);
    program_wait(&p);
    ck_assert_int_eq(p.code, 0);
    program_fini(&p, "out.json");
}
END_TEST

START_TEST(test_run_draws_a_heat_map_while_it_runs)
{
    struct program p, answer;
    char path[160], signature[8];
    if (!program_has_kvm("heatmap"))
        return;
    run_start_filled(&p, IDLE_RUN, 40);
    run_nap(600); /* two columns */
    run_ask(&p, "heatmap --png h.png --api a.sock", &answer);
    ck_assert_msg(answer.code == 0, "%s", answer.err_text);
    FILE *file = fopen(program_path(&p, "h.png", path), "rb");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fread(signature, 1, 8, file), 8);
    ck_assert_int_eq(memcmp(signature, "\x89PNG\r\n\x1a\n", 8), 0);
    fclose(file);
    run_ask(&p, "heatmap --vm vm0 --api a.sock", &answer);
    ck_assert_msg(answer.code == 0 && strstr(answer.out_text, "vm0: guest address"), "%s", answer.err_text);
    run_ask(&p, "heatmap --png - --api a.sock", &answer);
    ck_assert_int_eq(memcmp(answer.out_text, "\x89PNG", 4), 0);
    /* who does not exist is named, and the file stays as it was */
    run_ask(&p, "heatmap --vm vm7 --png h.png --api a.sock", &answer);
    ck_assert_msg(answer.code == 2 && strstr(answer.err_text, "vm7"), "%d %s", answer.code, answer.err_text);
    ck_assert_int_eq(access(path, R_OK), 0);
    unlink(path);
    kill(p.pid, SIGTERM);
    program_wait(&p);
    ck_assert_int_eq(p.code, 0);
    program_fini(&p, "out.json");
}
END_TEST

START_TEST(test_run_takes_and_gives_back_a_swap_area_while_it_runs)
{
    struct program p, answer;
    if (!program_has_kvm("swapon, swapoff"))
        return;
    run_start_filled(&p, IDLE_RUN, 40);
    run_ask(&p, "swapon b.swap,size=128M,prio=5 --api a.sock", &answer);
    ck_assert_msg(answer.code == 0, "%s", answer.err_text);
    run_ask(&p, "swapon b.swap,size=128M --api a.sock", &answer);
    ck_assert_int_eq(answer.code, 2);
    ck_assert_uint_eq(program_lines(answer.err_text), 1);
    run_ask(&p, "swapon c.swap,size=8T --api a.sock", &answer);
    ck_assert_msg(answer.code == 3 && strstr(answer.err_text, "no room"), "%d %s", answer.code, answer.err_text);
    run_ask(&p, "swapoff a.swap --api a.sock", &answer);
    ck_assert_msg(answer.code == 0, "%s", answer.err_text);
    run_ask(&p, "show swaps --api a.sock", &answer);
    ck_assert_ptr_null(strstr(answer.out_text, "a.swap"));
    ck_assert_ptr_nonnull(strstr(answer.out_text, "b.swap"));
    run_ask(&p, "swapoff a.swap --api a.sock", &answer);
    ck_assert_int_eq(answer.code, 2);
    ck_assert_ptr_nonnull(strstr(answer.err_text, "ebb show swaps"));
    run_ask(&p, "reclaim 4M --api a.sock", &answer);
    ck_assert_msg(answer.code == 0, "%s", answer.err_text);
    ck_assert_ptr_nonnull(strstr(answer.out_text, "reclaimed"));
    run_ask(&p, "show lru --api nowhere.sock", &answer);
    ck_assert_int_eq(answer.code, 2);
    kill(p.pid, SIGTERM);
    program_wait(&p);
    ck_assert_int_eq(p.code, 0);
    program_fini(&p, "out.json");
}
END_TEST

START_TEST(test_run_swapoff_that_does_not_fit_changes_nothing)
{
    struct program p, answer;
    if (!program_has_kvm("swapoff that does not fit"))
        return;
    run_start_filled(&p,
                     "run --memory 64M --budget 16M --swap a.swap,size=128M --api a.sock "
                     "--workload 'fill:40M,pattern=random;idle:600s;verify'",
                     40);
    run_ask(&p, "swapoff a.swap --api a.sock", &answer);
    ck_assert_int_eq(answer.code, 1);
    ck_assert_msg(program_lines(answer.err_text) == 1, "%s", answer.err_text);
    ck_assert_ptr_nonnull(strstr(answer.err_text, "do not fit"));
    run_ask(&p, "show swaps --api a.sock", &answer);
    ck_assert_ptr_nonnull(strstr(answer.out_text, "a.swap"));
    kill(p.pid, SIGTERM);
    program_wait(&p);
    ck_assert_int_eq(p.code, 0);
    program_fini(&p, NULL);
}
END_TEST

START_TEST(test_run_kernel_backend_gives_the_same_result)
{
    struct program p;
    if (!program_has_kvm("--backend kernel"))
        return;
    program_init(&p);
    program_run(&p, "run --backend kernel --memory 64M --budget 64M --json out.json "
                    "--workload 'fill:32M,pattern=mixed;verify'");
    if (p.code == 3 && program_lines(p.err_text) == 1) {
        printf("SKIP: --backend kernel: %s", p.err_text);
        program_fini(&p, NULL);
        return;
    }
    ck_assert_msg(p.code == 0, "exit code %d\n%s%s", p.code, p.out_text, p.err_text);
    json_t *json = run_load(&p, "out.json");
    const json_t *vm = json_array_get(json_object_get(json, "vms"), 0);
    ck_assert_str_eq(run_text(json, "result"), "ok");
    ck_assert_str_eq(run_text(json, "transport"), "kernel");
    ck_assert_uint_gt(run_number(vm, "pages_verified"), 0);
    ck_assert_uint_eq(run_number(vm, "pages_bad"), 0);
    ck_assert(json_is_null(json_object_get(vm, "standby_bytes")));
    ck_assert(json_is_null(json_object_get(json, "vmstat")));
    json_decref(json);
    program_fini(&p, "out.json");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("run");
    TCase *runs = tcase_create("runs"), *live = tcase_create("live");
    tcase_set_timeout(runs, 150);
    tcase_set_timeout(live, 150);
    tcase_add_loop_test(runs, test_run_verifies_every_page_and_says_where_all_is, 0, ARRAY_LEN(good));
    tcase_add_test(runs, test_run_memory_that_is_not_plugged_is_none_that_the_guest_has);
    tcase_add_test(runs, test_run_json_to_standard_output_is_all_there_is_on_it);
    tcase_add_test(runs, test_run_out_of_memory_stops_the_vm_and_says_what_is_full);
    tcase_add_test(runs, test_run_without_standard_streams_writes_only_results_into_the_results);
    tcase_add_test(runs, test_run_of_more_vms_than_the_soft_limit_of_descriptors_works);
    tcase_add_test(runs, test_run_largest_embedded_guest_starts_and_verifies);
    tcase_add_test(runs, test_run_results_larger_than_ulimit_f_are_told_and_nothing_is_left);
    tcase_add_test(runs, test_run_page_that_cannot_be_read_back_stops_only_the_vm_that_needs_it);
    tcase_add_test(runs, test_run_pages_that_a_full_disk_refuses_stay_in_memory);
    tcase_add_test(runs, test_run_out_of_memory_by_a_full_disk_says_so);
    tcase_add_test(runs, test_run_kernel_backend_gives_the_same_result);
    tcase_add_loop_test(live, test_run_signal_stops_it_with_the_closing_table, 0, ARRAY_LEN(signals));
    tcase_add_test(live, test_run_signal_while_many_vms_start_does_not_wait_for_the_last);
    tcase_add_test(live, test_run_killed_leaves_no_swap_file);
    tcase_add_test(live, test_run_shows_every_view_while_it_runs);
    tcase_add_test(live, test_run_answers_who_asks_while_many_vms_start);
    tcase_add_test(live, test_run_has_libraries_in_memory_only_when_it_has_used_them);
    tcase_add_test(live, test_run_draws_a_heat_map_while_it_runs);
    tcase_add_test(live, test_run_takes_and_gives_back_a_swap_area_while_it_runs);
    tcase_add_test(live, test_run_swapoff_that_does_not_fit_changes_nothing);
    suite_add_tcase(suite, runs);
    suite_add_tcase(suite, live);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
