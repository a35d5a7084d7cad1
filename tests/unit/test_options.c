/* SPDX-License-Identifier: Apache-2.0 */
/* Options of `ebb run`, the words that are near a wrong one, and the one line that says what is wrong. */
#include "vmm/option_table.h"
#include "vmm/options_linux.h"
#include "vmm/suggest.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MIB (UINT64_C(1) << 20)
#define MAX_WORDS 32

/* Options as one text, words separated by single blanks. */
static int parse(const char *line, struct run_options *out, struct diag *diag)
{
    static char copy[4096];
    char *words[MAX_WORDS], *rest = copy, *word;
    int nr = 0;

    memset(diag, 0, sizeof(*diag));
    snprintf(copy, sizeof(copy), "%s", line);
    while (*line && (word = strsep(&rest, " ")))
        words[nr++] = word;
    return options_parse_run(nr, words, out, diag);
}

START_TEST(test_options_help_says_something_of_each_and_each_is_read)
{
    char *help = NULL, name[64];
    const struct option *seen[OPTIONS_MAX];
    size_t bytes;
    unsigned nr = 0;
    FILE *out = open_memstream(&help, &bytes);
    options_print_help(out);
    fclose(out);
    for (const struct option_group *const *group = option_groups; *group; group++)
        for (unsigned i = 0; i < (*group)->nr; i++) {
            const struct option *option = &(*group)->options[i];
            snprintf(name, sizeof(name), "--%s ", option->name);
            ck_assert_msg(strstr(help, name) || strcmp(option->name, "help") == 0, "%s", name);
            ck_assert_msg(option->read && (option->read != option_read_word || option->words), "%s", name);
            for (unsigned k = 0; k < nr; k++)
                ck_assert_str_ne(seen[k]->name, option->name);
            ck_assert_uint_lt(nr, OPTIONS_MAX);
            seen[nr++] = option;
        }
    free(help);
}
END_TEST

START_TEST(test_options_none_is_the_demonstration)
{
    struct run_options o;
    struct diag diag;
    ck_assert_int_eq(parse("", &o, &diag), 0);
    ck_assert(o.demonstration);
    ck_assert_uint_eq(o.memory_bytes, 256 * MIB);
    ck_assert_uint_eq(o.mm.budget_bytes, 64 * MIB);
    ck_assert_uint_eq(o.mm.zram.limit_bytes, 32 * MIB);
    ck_assert_uint_eq(o.nr_swaps, 1);
    ck_assert_uint_eq(o.swaps[0].size_bytes, 512 * MIB);
    ck_assert_uint_eq(o.workload.nr_steps, 3);
    ck_assert(o.mm.thp);
    ck_assert_int_eq(o.pin, PIN_AUTO);
    ck_assert_int_eq(o.backend, BACKEND_EBB);
    ck_assert_int_eq(o.transport, TRANSPORT_AUTO);
}
END_TEST

START_TEST(test_options_memory_alone_gets_a_budget_for_all_of_it)
{
    struct run_options o;
    struct diag diag;
    ck_assert_int_eq(parse("--memory 128M --vms 2", &o, &diag), 0);
    ck_assert(!o.demonstration);
    ck_assert_uint_eq(o.mm.budget_bytes, options_whole_budget(128 * MIB, 2));
    ck_assert_uint_ge(o.mm.budget_bytes, 256 * MIB + MM_MIN_BUDGET);
    ck_assert_uint_eq(o.mm.budget_bytes % BLOCK_BYTES, 0);
    ck_assert_uint_eq(o.mm.zram.limit_bytes, 0);
    ck_assert_uint_eq(o.nr_swaps, 0);
}
END_TEST

START_TEST(test_options_every_option_is_read)
{
    struct run_options o;
    struct diag diag;
    ck_assert_int_eq(parse("--memory=512M --cpus 2 --vms 3 --budget 128M --zram 64M,algo=zstd,level=5 "
                           "--workload fill:100M;verify",
                           &o, &diag),
                     0);
    ck_assert_uint_eq(o.memory_bytes, 512 * MIB);
    ck_assert_uint_eq(o.nr_cpus, 2);
    ck_assert_uint_eq(o.nr_vms, 3);
    ck_assert_uint_eq(o.mm.budget_bytes, 128 * MIB);
    ck_assert_int_eq(o.mm.zram.algo, ZRAM_ZSTD);
    ck_assert_int_eq(o.mm.zram.level, 5);
    ck_assert_uint_eq(o.mm.zram.limit_bytes, 64 * MIB);
    ck_assert_uint_eq(o.mm.collapse_pct, 1);
    ck_assert_uint_eq(o.workload.nr_steps, 2);
    ck_assert(!o.default_workload);
    ck_assert_int_eq(parse("--transport copy --api a.sock --json - --no-thp --readahead 8 --fault-around 16 --pin none "
                           "--thp-collapse 0 --quiet",
                           &o, &diag),
                     0);
    ck_assert_int_eq(o.transport, TRANSPORT_COPY);
    ck_assert_str_eq(o.api_path, "a.sock");
    ck_assert_str_eq(o.json_path, "-");
    ck_assert(!o.mm.thp);
    ck_assert_uint_eq(o.mm.collapse_pct, 0);
    ck_assert_uint_eq(o.mm.readahead_pages, 8);
    ck_assert_uint_eq(o.mm.fault_around_pages, 16);
    ck_assert_int_eq(o.pin, PIN_NONE);
    ck_assert(o.quiet);
    ck_assert_int_eq(o.access, ACCESS_REFAULT);
    ck_assert_uint_eq(o.sample_mpct, 1000);
    ck_assert_int_eq(parse("--access auto --sample 0.25", &o, &diag), 0);
    ck_assert_int_eq(o.access, ACCESS_AUTO);
    ck_assert_uint_eq(o.sample_mpct, 250);
    ck_assert_int_eq(parse("--access page_idle --sample 0", &o, &diag), 0);
    ck_assert_int_eq(o.access, ACCESS_PAGE_IDLE);
    ck_assert_uint_eq(o.sample_mpct, 0);
    ck_assert_int_eq(parse("--access damon --sample 100", &o, &diag), 0);
    ck_assert_int_eq(o.access, ACCESS_DAMON);
    ck_assert_uint_eq(o.sample_mpct, 100000);
    ck_assert_int_eq(parse("--backend kernel --zram 8M --budget 64M", &o, &diag), 0);
    ck_assert_int_eq(o.backend, BACKEND_KERNEL);
}
END_TEST

START_TEST(test_options_swap_areas_add_up)
{
    struct run_options o;
    struct diag diag;
    ck_assert_int_eq(parse("--swap a,size=64M,prio=5 --swap b,discard --swap=c", &o, &diag), 0);
    ck_assert_uint_eq(o.nr_swaps, 3);
    ck_assert_str_eq(o.swaps[0].path, "a");
    ck_assert_uint_eq(o.swaps[0].size_bytes, 64 * MIB);
    ck_assert_int_eq(o.swaps[0].priority, 5);
    ck_assert(!o.swaps[0].discard);
    ck_assert(o.swaps[1].discard);
    ck_assert_int_eq(o.swaps[1].priority, -1);
    ck_assert_uint_eq(o.swaps[2].size_bytes, 0);
}
END_TEST

START_TEST(test_options_too_many_swap_areas_are_refused)
{
    char *words[2 * (MAX_SWAP_AREAS + 1)], names[MAX_SWAP_AREAS + 1][16], option[] = "--swap";
    struct run_options *o = malloc(sizeof(*o));
    struct diag diag = {0};
    for (int i = 0; i <= MAX_SWAP_AREAS; i++) {
        snprintf(names[i], sizeof(names[i]), "f%d", i);
        words[2 * i] = option;
        words[2 * i + 1] = names[i];
    }
    ck_assert_int_eq(options_parse_run(2 * MAX_SWAP_AREAS, words, o, &diag), 0);
    ck_assert_int_eq(options_parse_run(2 * MAX_SWAP_AREAS + 2, words, o, &diag), -1);
    ck_assert_int_eq(diag.code, EXIT_USAGE);
    free(o);
}
END_TEST

/* What is wrong, and a word that the line about it must have. */
static const struct {
    const char *line, *says;
} wrong[] = {
    {"--budget 0", "8M"},
    {"--budget 7M", "8M"},
    {"--budget 8388609", "4K"},
    {"--budget 9T", "8T"},
    {"--budget 64MM", "is not a size"},
    {"--budget -64M", "is not a size"},
    {"--budget 99999999999999999999", "64 bits"},
    {"--memory 0", "256M"},
    {"--memory 1M", "32 MiB"},
    {"--memory 255K", "32 MiB"},
    {"--memory 65M", "66M"},
    {"--memory 16T", "256 GiB"},
    {"--memory 9999999T", "256 GiB"},
    {"--memory", "needs a value"},
    {"--memory lots", "256M"},
    {"--cpus 0", "1 to 64"},
    {"--cpus 65", "1 to 64"},
    {"--cpus two", "1 to 64"},
    {"--cpus 1x", "1 to 64"},
    {"--vms 0", "1 to 256"},
    {"--vms 257", "1 to 256"},
    {"--vms 99999999999999999999", "1 to 256"},
    {"--zram 128M --budget 64M", "counts"},
    {"--zram 32M,algo=lz5", "did you mean lz4?"},
    {"--zram 32M,algo=gzip", "lz4, zstd"},
    {"--zram 32M,algo=zstd,level=20", "1 to 19"},
    {"--zram 32M,level=0", "level"},
    {"--zram 32M,speed=5", "algo"},
    {"--zram ,algo=lz4", "is not a size"},
    {"--swap ,size=1G", "needs a file"},
    {"--swap a,size=lots", "size=512M"},
    {"--swap a,size=0", "size=512M"},
    {"--swap a,prio=-5", "0 to 32767"},
    {"--swap a,prio=32768", "0 to 32767"},
    {"--swap a,fast", "not known"},
    {"--swap a,size=1M --swap a", "twice"},
    {"--transport mvoe", "did you mean move?"},
    {"--backend kvm", "ebb, kernel"},
    {"--backend kernel --swap a,size=64M", "swapon"},
    {"--backend kernel --transport copy", "leave it out"},
    {"--pin always", "auto, none"},
    {"--access demon", "did you mean damon?"},
    {"--access damon --backend kernel", "leave it out"},
    {"--sample 1 --backend kernel", "leave it out"},
    {"--thp-collapse 1 --backend kernel", "leave it out"},
    {"--sample 101", "0 to 100"},
    {"--sample -1", "0 to 100"},
    {"--sample 1%", "0 to 100"},
    {"--sample nan", "0 to 100"},
    {"--sample 0x1", "0 to 100"},
    {"--sample=", "0 to 100"},
    {"--readahead 3", "power of two"},
    {"--readahead 128", "1 to 64"},
    {"--fault-around 0", "1 to 64"},
    {"--no-thp=yes", "takes no value"},
    {"--thp-collapse 101", "0 (never) to 100"},
    {"--thp-collapse -1", "0 (never) to 100"},
    {"--thp-collapse 1%", "0 (never) to 100"},
    {"--memroy 1G", "--memory"},
    {"--xyzzy", "--help"},
    {"memory 1G", "start with --"},
    {"--api=", "socket"},
    {"--json=", "file"},
    {"--workload fly:1M", "fly"},
    {"--workload fill:1T", "fill"},
    {"--memory 256G --vms 256", "largest budget"},
    {"--kernel", "needs a value"},
    {"--kernel=", "needs the name of a file"},
    {"--kernel k --workload fill:1M", "take one"},
    {"--kernel k --memory 32M", "64M"},
    {"--initrd i", "--kernel"},
    {"--disk d", "--kernel"},
    {"--disk d", "--workload"},
    {"--workload hostile --vms 2 --disk d", "readonly"},
    {"--workload hostile --initrd i", "--kernel"},
    {"--console", "--kernel"},
    {"--no-balloon", "--kernel"},
    {"--hotplug-memory 1G", "--kernel"},
    {"--kernel k --disk d,fast", "readonly"},
    {"--kernel k --disk ,readonly", "name of a file"},
    {"--kernel k --disk d,queues=9", "1 to 8"},
    {"--kernel k --disk d,queues=0", "1 to 8"},
    {"--kernel k --disk d,queues=+1", "1 to 8"},
    {"--kernel k --disk d,id=", "1 to 20"},
    {"--kernel k --disk d,id=123456789012345678901", "1 to 20"},
    {"--kernel k --disk d --disk d", "twice"},
    {"--kernel k --disk d,readonly --disk d", "twice"},
    {"--kernel k --vms 2 --disk d", "readonly"},
    {"--kernel k --vms 2 --net tap=t0", "%d"},
    {"--kernel k --vms 2 --console", "leave it out"},
    {"--kernel k --vms 2 --vsock cid=3,path=s", "%d"},
    {"--kernel k --vms 2 --console-port name=a,path=s", "%d"},
    {"--kernel k --net t0", "tap=NAME"},
    {"--kernel k --net mac=02:00:00:00:00:01", "needs a tap"},
    {"--kernel k --net tap=", "1 to 15"},
    {"--kernel k --net tap=abcdefghijklmnop", "1 to 15"},
    {"--kernel k --net tap=t,mac=02:00:00:00:00", "mac=02:"},
    {"--kernel k --net tap=t,mac=03:00:00:00:00:01", "mac=02:"},
    {"--kernel k --net tap=t,mac=00:00:00:00:00:00", "mac=02:"},
    {"--kernel k --net tap=t,mac=02:00:00:00:00:01:02", "mac=02:"},
    {"--kernel k --net tap=a --net tap=b --net tap=c", "at most 2"},
    {"--kernel k --net tap=a --net tap=a,mac=02:00:00:00:00:01", "twice"},
    {"--kernel k --console-port name=a", "a name and a path"},
    {"--kernel k --console-port name=a/b,path=s", "no /"},
    {"--kernel k --console-port name=a123456789b123456789c123456789d123456789e123456789f123456789abcd,path=s",
     "1 to 63"},
    {"--kernel k --console-port name=a,path=s --console-port name=a,path=r", "twice"},
    {"--kernel k --vsock cid=2,path=s", "3 to"},
    {"--kernel k --vsock cid=4294967295,path=s", "3 to"},
    {"--kernel k --vsock cid=3", "a cid and a path"},
    {"--kernel k --vsock cid=3,path=s --vsock cid=4,path=r", "one vsock"},
    {"--kernel k --balloon reporting=yes", "on or off"},
    {"--kernel k --balloon stats=-1", "seconds"},
    {"--kernel k --balloon size=5", "not known"},
    {"--kernel k --balloon --no-balloon", "exclude"},
    {"--kernel k --hotplug-memory 3M", "4M"},
    {"--kernel k --hotplug-memory 0", "512M"},
    {"--kernel k --hotplug-memory 1T", "256 GiB"},
};

START_TEST(test_options_wrong_is_one_line_that_says_what_is_right)
{
    struct run_options o;
    struct diag diag;
    ck_assert_int_eq(parse(wrong[_i].line, &o, &diag), -1);
    ck_assert_int_eq(diag.code, EXIT_USAGE);
    ck_assert_msg(strstr(diag.text, wrong[_i].says), "\"%s\" does not say \"%s\"", diag.text, wrong[_i].says);
    ck_assert_ptr_null(strchr(diag.text, '\n'));
}
END_TEST

START_TEST(test_options_linux_guest_has_what_was_asked)
{
    struct run_options o;
    struct diag diag;
    ck_assert_msg(parse("--kernel vmlinux --initrd rd --memory 1G --disk a,readonly,queues=4,id=root --disk=b,direct "
                        "--net tap=t0,mac=02:00:00:00:0a:ff --console-port name=agent,path=a.sock --console "
                        "--vsock cid=5,path=v.sock --balloon reporting=off,stats=5 --hotplug-memory 2G",
                        &o, &diag) == 0,
                  "%s", diag.text);
    ck_assert(o.has_kernel && o.console && !o.demonstration);
    ck_assert_str_eq(o.linux.kernel_path, "vmlinux");
    ck_assert_str_eq(o.linux.initrd_path, "rd");
    ck_assert_uint_eq(o.linux.nr_disks, 2);
    ck_assert_str_eq(o.linux.disk[0].path, "a");
    ck_assert_str_eq(o.linux.disk[0].id, "root");
    ck_assert(o.linux.disk[0].read_only && !o.linux.disk[0].direct);
    ck_assert_uint_eq(o.linux.disk[0].nr_queues, 4);
    ck_assert(!o.linux.disk[1].read_only && o.linux.disk[1].direct);
    ck_assert_uint_eq(o.linux.disk[1].nr_queues, 1);
    ck_assert_str_eq(o.linux.net[0].tap, "t0");
    ck_assert(o.linux.net[0].has_mac);
    ck_assert_mem_eq(o.linux.net[0].mac, "\x02\0\0\0\x0a\xff", 6);
    ck_assert_str_eq(o.linux.port[0].name, "agent");
    ck_assert_str_eq(o.linux.port[0].path, "a.sock");
    ck_assert_uint_eq(o.linux.vsock_cid, 5);
    ck_assert(o.linux.balloon.no_reporting && !o.linux.balloon.no_hinting && !o.linux.balloon.off);
    ck_assert_uint_eq(o.linux.balloon.stats_seconds, 5);
    ck_assert_uint_eq(o.linux.hotplug_bytes, 2048 * MIB);
    ck_assert_uint_eq(o.mm.budget_bytes, options_whole_budget(3072 * MIB, 1));
    ck_assert_uint_eq(o.nr_swaps, 0);
}
END_TEST

START_TEST(test_options_cmdline_replaces_all_but_the_console)
{
    char *words[] = {"--kernel", "k", "--cmdline", NULL};
    char longest[BOOT_MAX_CMDLINE_BYTES] = "";
    struct run_options o;
    struct diag diag = {0};

    ck_assert_int_eq(parse("--kernel k", &o, &diag), 0);
    ck_assert_str_eq(o.linux.cmdline, "console=ttyS0 reboot=k panic=-1 random.trust_cpu=on 8250.nr_uarts=1 pci=off");
    words[3] = "quiet root=/dev/vda ro";
    ck_assert_int_eq(options_parse_run(4, words, &o, &diag), 0);
    ck_assert_str_eq(o.linux.cmdline, "console=ttyS0 quiet root=/dev/vda ro");
    words[3] = "quiet console=hvc0";
    ck_assert_int_eq(options_parse_run(4, words, &o, &diag), 0);
    ck_assert_str_eq(o.linux.cmdline, "quiet console=hvc0");
    words[3] = "";
    ck_assert_int_eq(options_parse_run(4, words, &o, &diag), 0);
    ck_assert_str_eq(o.linux.cmdline, "console=ttyS0 ");
    words[3] = longest;
    memset(longest, 'x', sizeof(longest) - sizeof("console=ttyS0 "));
    ck_assert_int_eq(options_parse_run(4, words, &o, &diag), 0);
    longest[strlen(longest)] = 'x';
    ck_assert_int_eq(options_parse_run(4, words, &o, &diag), -1);
    ck_assert_int_eq(diag.code, EXIT_USAGE);
    ck_assert_msg(strstr(diag.text, "2047"), "%s", diag.text);
}
END_TEST

START_TEST(test_options_workload_may_have_devices)
{
    struct run_options o;
    struct diag diag = {0};

    ck_assert_msg(parse("--workload hostile --disk d --console-port name=p,path=p --vsock cid=3,path=v "
                        "--hotplug-memory 64M",
                        &o, &diag) == 0,
                  "%s", diag.text);
    ck_assert(o.devices && !o.has_kernel);
    ck_assert_uint_eq(o.linux.nr_disks, 1);
    ck_assert_uint_eq(o.linux.nr_ports, 1);
    ck_assert_uint_eq(o.linux.vsock_cid, 3);
    ck_assert_uint_eq(o.linux.hotplug_bytes, 64 * MIB);
    ck_assert_int_eq(parse("--workload fill:1M", &o, &diag), 0);
    ck_assert(!o.devices);
}
END_TEST

START_TEST(test_options_several_linux_guests_get_names_by_number)
{
    struct linux_config one;
    struct run_options o;
    struct diag diag;

    ck_assert_msg(parse("--kernel k --vms 12 --disk base.img,readonly --disk d%d.img --net tap=ebb%d "
                        "--console-port name=a,path=p%d.sock --vsock cid=3,path=%d.sock",
                        &o, &diag) == 0,
                  "%s", diag.text);
    ck_assert_int_eq(options_linux_of(&o.linux, 11, &one, &diag), 0);
    ck_assert_str_eq(one.disk[0].path, "base.img");
    ck_assert_str_eq(one.disk[1].path, "d11.img");
    ck_assert_str_eq(one.net[0].tap, "ebb11");
    ck_assert_str_eq(one.port[0].path, "p11.sock");
    ck_assert_str_eq(one.vsock_path, "11.sock");
    ck_assert_int_eq(parse("--kernel k --vms 200 --net tap=abcdefghijkl%d", &o, &diag), 0);
    ck_assert_int_eq(options_linux_of(&o.linux, 199, &one, &diag), 0); /* 15 characters, as many as there can be */
    ck_assert_int_eq(parse("--kernel k --vms 200 --net tap=abcdefghijklm%d", &o, &diag), 0);
    ck_assert_int_eq(options_linux_of(&o.linux, 99, &one, &diag), 0);
    ck_assert_int_eq(options_linux_of(&o.linux, 199, &one, &diag), -1);
    ck_assert_msg(strstr(diag.text, "199"), "%s", diag.text);
}
END_TEST

START_TEST(test_options_balloon_alone_is_for_the_embedded_guest)
{
    struct run_options o;
    struct diag diag;

    ck_assert_int_eq(parse("--balloon --memory 64M", &o, &diag), 0);
    ck_assert(o.devices && !o.has_kernel);
    ck_assert_uint_eq(o.memory_bytes, 64 * MIB);
}
END_TEST

START_TEST(test_options_help_needs_nothing_else_to_be_right)
{
    struct run_options o;
    struct diag diag;
    ck_assert_int_eq(parse("--help", &o, &diag), 0);
    ck_assert(o.want_help);
    ck_assert_int_eq(parse("-h --memory 65M", &o, &diag), 0);
    ck_assert(o.want_help);
    ck_assert_int_eq(parse("--workload help", &o, &diag), 0);
    ck_assert(o.want_workload_help);
}
END_TEST

START_TEST(test_options_long_text_is_refused_whole)
{
    char line[2000];
    struct run_options o;
    struct diag diag;
    memset(line, 'a', sizeof(line));
    memcpy(line, "--swap ", 7);
    line[sizeof(line) - 1] = '\0';
    ck_assert_int_eq(parse(line, &o, &diag), -1);
    ck_assert_ptr_nonnull(strstr(diag.text, "too long"));
    memcpy(line, "--zram ", 7);
    ck_assert_int_eq(parse(line, &o, &diag), -1);
    ck_assert_int_eq(diag.code, EXIT_USAGE);
}
END_TEST

START_TEST(test_options_default_workload_fits_every_memory)
{
    static const char *const sizes[] = {"32M", "34M", "48M", "64M", "256M", "3G", "4G", "256G"};
    char line[64];
    struct run_options o;
    struct diag diag;
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        snprintf(line, sizeof(line), "--budget 64M --memory %s", sizes[i]);
        ck_assert_msg(parse(line, &o, &diag) == 0, "%s: %s", sizes[i], diag.text);
        ck_assert(o.default_workload);
    }
}
END_TEST

START_TEST(test_diag_keeps_the_first_and_is_one_line)
{
    struct diag diag = {0};
    ck_assert_int_eq(diag_set(&diag, EXIT_HOST, "a\nb\033[2J %d", 7), -1);
    ck_assert_str_eq(diag.text, "a?b?[2J 7");
    ck_assert_int_eq(diag_set(&diag, EXIT_USAGE, "later"), -1);
    ck_assert_str_eq(diag.text, "a?b?[2J 7");
    ck_assert_int_eq(diag.code, EXIT_HOST);
}
END_TEST

START_TEST(test_diag_host_of_a_limit_says_how_to_have_more)
{
    static const struct {
        int err;
        const char *says;
    } limits[] = {{EMFILE, "vm7: Too many open files; raise `ulimit -n`"},
                  {ENFILE, "fs.file-max"},
                  {EAGAIN, "`ulimit -u`"},
                  {ENOMEM, "`ulimit -v`"}};
    struct diag plain = {0};
    for (size_t i = 0; i < ARRAY_LEN(limits); i++) {
        struct diag diag = {0};
        ck_assert_int_eq(diag_host(&diag, limits[i].err, "vm%d", 7), -1);
        ck_assert_int_eq(diag.code, EXIT_HOST);
        ck_assert_msg(strstr(diag.text, limits[i].says), "%s", diag.text);
    }
    diag_host(&plain, ENODEV, "vm%d", 7);
    ck_assert_str_eq(plain.text, "vm7: No such device");
}
END_TEST

START_TEST(test_suggest_finds_near_words_only)
{
    static const char *const words[] = {"vmstat", "zram", "swaps", "free", "page", NULL};
    char text[SUGGEST_TEXT];
    ck_assert_str_eq(suggest_word("vmstats", words), "vmstat");
    ck_assert_str_eq(suggest_word("zrma", words), "zram");
    ck_assert_str_eq(suggest_word("swap", words), "swaps");
    ck_assert_str_eq(suggest_word("fre", words), "free");
    ck_assert_str_eq(suggest_word("noth", (const char *const[]){"net", "no-thp", NULL}), "no-thp");
    ck_assert_ptr_null(suggest_word("xyzzy", words));
    ck_assert_ptr_null(suggest_word("", words));
    ck_assert_ptr_null(suggest_word("a-word-that-is-longer-than-any-word-could-ever-be-here", words));
    ck_assert_str_eq(suggest_text(text, "pgae", words), "; did you mean page?");
    ck_assert_str_eq(suggest_text(text, "xyzzy", words), "");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("options");
    TCase *tc = tcase_create("options");
    tcase_add_test(tc, test_options_help_says_something_of_each_and_each_is_read);
    tcase_add_test(tc, test_options_none_is_the_demonstration);
    tcase_add_test(tc, test_options_memory_alone_gets_a_budget_for_all_of_it);
    tcase_add_test(tc, test_options_every_option_is_read);
    tcase_add_test(tc, test_options_swap_areas_add_up);
    tcase_add_test(tc, test_options_too_many_swap_areas_are_refused);
    tcase_add_loop_test(tc, test_options_wrong_is_one_line_that_says_what_is_right, 0, ARRAY_LEN(wrong));
    tcase_add_test(tc, test_options_help_needs_nothing_else_to_be_right);
    tcase_add_test(tc, test_options_long_text_is_refused_whole);
    tcase_add_test(tc, test_options_default_workload_fits_every_memory);
    tcase_add_test(tc, test_options_linux_guest_has_what_was_asked);
    tcase_add_test(tc, test_options_cmdline_replaces_all_but_the_console);
    tcase_add_test(tc, test_options_workload_may_have_devices);
    tcase_add_test(tc, test_options_several_linux_guests_get_names_by_number);
    tcase_add_test(tc, test_options_balloon_alone_is_for_the_embedded_guest);
    tcase_add_test(tc, test_diag_keeps_the_first_and_is_one_line);
    tcase_add_test(tc, test_diag_host_of_a_limit_says_how_to_have_more);
    tcase_add_test(tc, test_suggest_finds_near_words_only);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
