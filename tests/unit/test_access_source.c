/* SPDX-License-Identifier: Apache-2.0 */
/* DAMON and the idle page bitmap over trees of files that look like the kernel's. */
#include "vmm/access_source.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/fake/fail_alloc.h"
#include "tests/fake/fail_write.h"
#include "vmm/sysfile.h"

#define MIB (UINT64_C(1) << 20)

static char root[64];

static void make_root(void)
{
    strcpy(root, "/tmp/ebb-access-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(root));
}

static void remove_root(void)
{
    char line[100];
    snprintf(line, sizeof(line), "rm -rf %s", root);
    ck_assert_int_eq(system(line), 0);
}

/* A file below the root, with its directories. */
static void put_file(const char *name, const char *text)
{
    char path[300];
    int used = snprintf(path, sizeof(path), "%s/%s", root, name);
    ck_assert_int_lt(used, (int)sizeof(path));
    for (char *at = path + strlen(root) + 1; (at = strchr(at, '/')); *at++ = '/') {
        *at = '\0';
        mkdir(path, 0700);
    }
    FILE *file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    ck_assert_int_ge(fputs(text, file), 0);
    fclose(file);
}

static void check_file(const char *name, const char *want)
{
    char text[100];
    ck_assert_int_eq(sysfile_read(text, sizeof(text), "%s/%s", root, name), 0);
    ck_assert_msg(strcmp(text, want) == 0, "%s is %s, not %s", name, text, want);
}

/* ---- what a source says ---- */

struct heard {
    struct {
        vmid_t vm;
        gfn_t gfn;
        uint32_t nr;
        bool touched;
    } row[2000];
    unsigned nr;
};

static void hear(void *ctx, vmid_t vm, gfn_t gfn, uint32_t nr, bool touched)
{
    struct heard *heard = ctx;
    ck_assert_uint_lt(heard->nr, 2000);
    heard->row[heard->nr].vm = vm;
    heard->row[heard->nr].gfn = gfn;
    heard->row[heard->nr].nr = nr;
    heard->row[heard->nr++].touched = touched;
}

static void check_row(const struct heard *heard, vmid_t vm, gfn_t gfn, uint32_t nr, bool touched)
{
    for (unsigned i = 0; i < heard->nr; i++)
        if (heard->row[i].vm == vm && heard->row[i].gfn == gfn) {
            ck_assert_uint_eq(heard->row[i].nr, nr);
            ck_assert_int_eq(heard->row[i].touched, touched);
            return;
        }
    ck_abort_msg("nothing was said of page %u of VM %u", gfn, vm);
}

static const struct access_range ranges[] = {
    {.vm = 1, .gpa = {0}, .bytes = 64 * MIB, .start = UINT64_C(0x7f0000000000)},
    {.vm = 2, .gpa = {UINT64_C(1) << 32}, .bytes = 32 * MIB, .start = UINT64_C(0x7f0010000000)},
};

/* ---- DAMON ---- */

#define CONTEXT "kdamonds/0/contexts/0/"
#define SCHEME CONTEXT "schemes/0/"

/* What a kernel shows once nr_* have been written; here it is there from the start. */
static void put_damon(const char *nr_kdamonds, const char *operations)
{
    static const char *const files[] = {
        "kdamonds/0/state",
        "kdamonds/0/contexts/nr_contexts",
        CONTEXT "operations",
        CONTEXT "monitoring_attrs/intervals/sample_us",
        CONTEXT "monitoring_attrs/intervals/aggr_us",
        CONTEXT "monitoring_attrs/intervals/update_us",
        CONTEXT "monitoring_attrs/nr_regions/min",
        CONTEXT "monitoring_attrs/nr_regions/max",
        CONTEXT "targets/nr_targets",
        CONTEXT "targets/0/pid_target",
        CONTEXT "targets/0/regions/nr_regions",
        CONTEXT "targets/0/regions/0/start",
        CONTEXT "targets/0/regions/0/end",
        CONTEXT "targets/0/regions/1/start",
        CONTEXT "targets/0/regions/1/end",
        CONTEXT "schemes/nr_schemes",
        SCHEME "action",
        SCHEME "access_pattern/sz/min",
        SCHEME "access_pattern/sz/max",
        SCHEME "access_pattern/nr_accesses/min",
        SCHEME "access_pattern/nr_accesses/max",
        SCHEME "access_pattern/age/min",
        SCHEME "access_pattern/age/max",
    };
    for (size_t i = 0; i < ARRAY_LEN(files); i++)
        put_file(files[i], "");
    put_file("kdamonds/nr_kdamonds", nr_kdamonds);
    put_file(CONTEXT "avail_operations", operations);
}

static void put_region(unsigned i, uint64_t start, uint64_t end, unsigned nr_accesses)
{
    char name[100], text[30];
    snprintf(name, sizeof(name), SCHEME "tried_regions/%u/start", i);
    snprintf(text, sizeof(text), "%llu\n", (unsigned long long)start);
    put_file(name, text);
    snprintf(name, sizeof(name), SCHEME "tried_regions/%u/end", i);
    snprintf(text, sizeof(text), "%llu\n", (unsigned long long)end);
    put_file(name, text);
    snprintf(name, sizeof(name), SCHEME "tried_regions/%u/nr_accesses", i);
    snprintf(text, sizeof(text), "%u\n", nr_accesses);
    put_file(name, text);
}

START_TEST(test_access_damon_watches_this_process_over_the_guests)
{
    static const char *const wanted[] = {"fvaddr", "fvaddr", "vaddr"};
    static const char *const offered[] = {"vaddr\nfvaddr\npaddr\n", "fvaddr\n", "paddr\nvaddr\n"};
    struct diag diag = {0};
    struct access_damon *damon;
    char pid[20];
    put_damon("0\n", offered[_i]);
    ck_assert_msg(access_damon_open(root, ranges, 2, &damon, &diag) == 0, "%s", diag.text);
    ck_assert_str_eq(access_damon_source(damon)->name, "damon");
    snprintf(pid, sizeof(pid), "%d", (int)getpid());
    check_file("kdamonds/nr_kdamonds", "1");
    check_file("kdamonds/0/contexts/nr_contexts", "1");
    check_file(CONTEXT "operations", wanted[_i]);
    check_file(CONTEXT "targets/0/pid_target", pid);
    check_file(CONTEXT "targets/0/regions/nr_regions", "2");
    check_file(CONTEXT "targets/0/regions/0/start", "139637976727552");
    check_file(CONTEXT "targets/0/regions/1/end", "139638278717440");
    check_file(SCHEME "action", "stat");
    check_file(SCHEME "access_pattern/sz/max", "18446744073709551615");
    check_file("kdamonds/0/state", "on");
    access_damon_close(damon);
    check_file("kdamonds/0/state", "off");
    check_file("kdamonds/nr_kdamonds", "0");
}
END_TEST

/* The kernel takes a target's regions by rising address only; mmap goes down from one VM to the next. */
START_TEST(test_access_damon_of_two_vms_was_refused_for_their_order)
{
    const struct access_range falling[] = {ranges[1], ranges[0]};
    struct diag diag = {0};
    struct access_damon *damon;
    static struct heard heard;
    put_damon("0\n", "vaddr\nfvaddr\n");
    ck_assert_int_eq(access_damon_open(root, falling, 2, &damon, &diag), 0);
    check_file(CONTEXT "targets/0/regions/0/start", "139637976727552");
    check_file(CONTEXT "targets/0/regions/0/end", "139638043836416");
    check_file(CONTEXT "targets/0/regions/1/start", "139638245163008");
    check_file(CONTEXT "targets/0/regions/1/end", "139638278717440");
    const struct access_source *source = access_damon_source(damon);
    put_region(0, ranges[0].start, ranges[0].start + MIB, 3);
    put_region(1, ranges[1].start, ranges[1].start + 2 * MIB, 0);
    ck_assert_int_eq(source->poll(source->ctx, hear, &heard), 0);
    ck_assert_uint_eq(heard.nr, 2);
    check_row(&heard, 1, 0, 256, true);
    check_row(&heard, 2, 1u << 20, 2 * 256, false);
    access_damon_close(damon);
}
END_TEST

START_TEST(test_access_damon_regions_are_told_as_guest_pages)
{
    struct diag diag = {0};
    struct access_damon *damon;
    static struct heard heard;
    put_damon("0\n", "vaddr\nfvaddr\n");
    ck_assert_int_eq(access_damon_open(root, ranges, 2, &damon, &diag), 0);
    const struct access_source *source = access_damon_source(damon);
    put_region(0, ranges[0].start, ranges[0].start + 6 * MIB, 3);
    put_region(1, ranges[0].start + 6 * MIB, ranges[0].start + 64 * MIB, 0);
    put_region(2, ranges[1].start + 4096, ranges[1].start + 8192, 1);
    put_region(3, ranges[1].start + 30 * MIB, ranges[1].start + 40 * MIB, 0); /* more than is the guest's */
    put_region(4, 4096, 8192, 9);                                             /* no guest's */
    put_file(SCHEME "tried_regions/total_bytes", "1\n");
    ck_assert_int_eq(source->poll(source->ctx, hear, &heard), 0);
    ck_assert_uint_eq(heard.nr, 4);
    check_row(&heard, 1, 0, 6 * 256, true);
    check_row(&heard, 1, 6 * 256, 58 * 256, false);
    check_row(&heard, 2, (1u << 20) + 1, 1, true);
    check_row(&heard, 2, (1u << 20) + 30 * 256, 2 * 256, false);
    char state[100];
    ck_assert_int_eq(sysfile_read(state, sizeof(state), "%s/kdamonds/0/state", root), 0);
    ck_assert_int_eq(strncmp(state, "clear_schemes_tried_regions", 27), 0); /* a file is not cut where a word ends */
    access_damon_close(damon);
}
END_TEST

/* A 2 MiB frame with a boundary in it was of no region as a whole, and never looked at. */
START_TEST(test_access_damon_regions_side_by_side_that_are_the_same_are_told_as_one)
{
    struct diag diag = {0};
    struct access_damon *damon;
    static struct heard heard;
    put_damon("0\n", "vaddr\nfvaddr\n");
    ck_assert_int_eq(access_damon_open(root, ranges, 2, &damon, &diag), 0);
    const struct access_source *source = access_damon_source(damon);
    for (unsigned i = 0; i < 21; i++) /* each between the middles of two blocks */
        put_region(i, ranges[0].start + (2 * i + 1) * MIB, ranges[0].start + (2 * i + 3) * MIB, i == 20);
    put_region(21, ranges[0].start + 50 * MIB, ranges[0].start + 51 * MIB, 1);
    put_region(22, ranges[0].start + 51 * MIB, ranges[0].start + 52 * MIB, 7);
    put_region(23, ranges[0].start + 53 * MIB, ranges[0].start + 54 * MIB, 7); /* behind a gap */
    ck_assert_int_eq(source->poll(source->ctx, hear, &heard), 0);
    ck_assert_uint_eq(heard.nr, 4);
    check_row(&heard, 1, 256, 40 * 256, false);
    check_row(&heard, 1, 41 * 256, 2 * 256, true);
    check_row(&heard, 1, 50 * 256, 2 * 256, true);
    check_row(&heard, 1, 53 * 256, 256, true);
    access_damon_close(damon);
}
END_TEST

START_TEST(test_access_damon_without_memory_is_an_error)
{
    struct diag diag = {0};
    struct access_damon *damon;
    static struct heard heard;
    put_damon("0\n", "vaddr\nfvaddr\n");
    ck_assert_int_eq(access_damon_open(root, ranges, 2, &damon, &diag), 0);
    const struct access_source *source = access_damon_source(damon);
    put_region(0, ranges[0].start, ranges[0].start + MIB, 0);
    fail_alloc_at(1);
    int err = source->poll(source->ctx, hear, &heard);
    fail_alloc_at(-1);
    ck_assert_int_eq(err, -ENOMEM);
    ck_assert_uint_eq(heard.nr, 0);
    access_damon_close(damon);
}
END_TEST

START_TEST(test_access_damon_that_stops_answering_is_an_error)
{
    struct diag diag = {0};
    struct access_damon *damon;
    static struct heard heard;
    put_damon("0\n", "vaddr\nfvaddr\n");
    ck_assert_int_eq(access_damon_open(root, ranges, 2, &damon, &diag), 0);
    const struct access_source *source = access_damon_source(damon);
    ck_assert_int_eq(source->poll(source->ctx, hear, &heard), -ENOENT); /* no tried_regions */
    char path[200];
    snprintf(path, sizeof(path), "%s/kdamonds/0/state", root);
    unlink(path);
    ck_assert_int_eq(source->poll(source->ctx, hear, &heard), -ENOENT);
    ck_assert_uint_eq(heard.nr, 0);
    access_damon_close(damon);
}
END_TEST

/* Somebody else at DAMON's files: the kernel does not wait for its lock, it says EBUSY. */
START_TEST(test_access_damon_ended_when_its_lock_was_taken_once)
{
    struct diag diag = {0};
    struct access_damon *damon;
    static struct heard heard;
    put_damon("0\n", "vaddr\nfvaddr\n");
    fail_write_next(3, EBUSY);
    ck_assert_msg(access_damon_open(root, ranges, 2, &damon, &diag) == 0, "%s", diag.text);
    ck_assert_int_eq(fail_write_left(), 0);
    const struct access_source *source = access_damon_source(damon);
    put_region(0, ranges[0].start, ranges[0].start + MIB, 3);
    fail_write_next(3, EBUSY);
    ck_assert_int_eq(source->poll(source->ctx, hear, &heard), 0);
    ck_assert_int_eq(fail_write_left(), 0);
    ck_assert_uint_eq(heard.nr, 1);
    fail_write_next(3, EBUSY);
    access_damon_close(damon);
    ck_assert_int_eq(fail_write_left(), 0);
    check_file("kdamonds/nr_kdamonds", "0");
}
END_TEST

START_TEST(test_access_damon_whose_lock_stays_taken_is_an_error)
{
    struct diag diag = {0};
    struct access_damon *damon;
    static struct heard heard;
    put_damon("0\n", "vaddr\nfvaddr\n");
    ck_assert_int_eq(access_damon_open(root, ranges, 2, &damon, &diag), 0);
    const struct access_source *source = access_damon_source(damon);
    fail_write_next(1000, EBUSY);
    int err = source->poll(source->ctx, hear, &heard);
    bool bounded = fail_write_left() > 0;
    fail_write_next(0, 0);
    ck_assert_int_eq(err, -EBUSY);
    ck_assert(bounded);
    access_damon_close(damon);
}
END_TEST

static void refused(const char *word)
{
    struct diag diag = {0};
    struct access_damon *damon;
    ck_assert_int_eq(access_damon_open(root, ranges, 2, &damon, &diag), -1);
    ck_assert_int_eq(diag.code, EXIT_HOST);
    ck_assert_msg(strstr(diag.text, word) != NULL, "%s", diag.text);
}

START_TEST(test_access_damon_missing_is_said)
{
    refused("CONFIG_DAMON_SYSFS");
}
END_TEST

START_TEST(test_access_damon_of_physical_addresses_alone_is_said_and_left_as_it_was)
{
    put_damon("0\n", "paddr\n");
    refused("CONFIG_DAMON_VADDR");
    check_file("kdamonds/nr_kdamonds", "0");
    put_damon("1\n", "paddr\n");
    refused("CONFIG_DAMON_VADDR");
    check_file("kdamonds/nr_kdamonds", "1");
}
END_TEST

START_TEST(test_access_damon_in_use_is_left_alone)
{
    put_damon("1\n", "vaddr\nfvaddr\n");
    put_file("kdamonds/0/state", "on\n");
    refused("in use");
    check_file("kdamonds/nr_kdamonds", "1");
    check_file("kdamonds/0/state", "on");
}
END_TEST

/* The kernel stops a kdamond whose process is gone, and keeps its files. */
START_TEST(test_access_damon_left_by_a_killed_run_was_said_to_be_in_use)
{
    char command[200];
    put_damon("1\n", "vaddr\nfvaddr\n");
    put_file("kdamonds/0/state", "off\n");
    snprintf(command, sizeof(command), "echo 0 >%s/kdamonds/nr_kdamonds", root);
    refused(command);
    check_file("kdamonds/nr_kdamonds", "1");
    check_file("kdamonds/0/state", "off");
    put_file("kdamonds/nr_kdamonds", "2\n"); /* Ebb has one */
    refused("in use");
}
END_TEST

/* Any file that is missing: nothing is left on. */
START_TEST(test_access_damon_half_set_up_is_taken_down)
{
    static const char *const files[] = {CONTEXT "operations", CONTEXT "targets/0/pid_target",
                                        CONTEXT "targets/0/regions/1/end", SCHEME "action"};
    char path[300];
    put_damon("0\n", "vaddr\nfvaddr\n");
    snprintf(path, sizeof(path), "%s/%s", root, files[_i]);
    unlink(path);
    refused("DAMON cannot be set up");
    check_file("kdamonds/nr_kdamonds", "0");
    check_file("kdamonds/0/state", "off");
}
END_TEST

/* "on" fails, and so does "off" then: the kernel has nothing to stop. */
START_TEST(test_access_damon_that_never_ran_was_left_on_the_host)
{
    char path[300];
    put_damon("0\n", "vaddr\nfvaddr\n");
    snprintf(path, sizeof(path), "%s/kdamonds/0/state", root);
    unlink(path);
    ck_assert_int_eq(symlink("/dev/full", path), 0);
    refused("DAMON cannot be set up");
    check_file("kdamonds/nr_kdamonds", "0");
}
END_TEST

/* ---- page_idle ---- */

#define PRESENT (UINT64_C(1) << 63)
#define COMPOUND_HEAD (UINT64_C(1) << 15)
#define COMPOUND_TAIL (UINT64_C(1) << 16)

static struct access_paths paths;
static char path_text[3][100];

static void put_words(const char *name, uint64_t first, const uint64_t *words, unsigned nr)
{
    char path[200];
    snprintf(path, sizeof(path), "%s/%s", root, name);
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(pwrite(fd, words, nr * sizeof(*words), (off_t)(first * sizeof(*words))), nr * sizeof(*words));
    close(fd);
}

static uint64_t get_word(const char *name, uint64_t at)
{
    char path[200];
    uint64_t word = 0;
    snprintf(path, sizeof(path), "%s/%s", root, name);
    int fd = open(path, O_RDONLY);
    ck_assert_int_eq(pread(fd, &word, sizeof(word), (off_t)(at * sizeof(word))), sizeof(word));
    close(fd);
    return word;
}

/* A process of two blocks at 4 MiB: one huge page at frame 1024, and single pages with every third one absent. */
static const struct access_range small_range = {.vm = 3, .gpa = {2 * MIB}, .bytes = 4 * MIB, .start = 4 * MIB};

static uint64_t frame_of(unsigned i)
{
    return 2048 + (i * 7) % 512;
}

/* @nr neighbouring frames are one folio. */
static void put_folio(uint64_t *flags, unsigned frame, unsigned nr)
{
    flags[frame] = COMPOUND_HEAD;
    for (unsigned i = 1; i < nr; i++)
        flags[frame + i] = COMPOUND_TAIL;
}

static void put_page_idle(void)
{
    uint64_t map[1024], zeros[64] = {0}, flags[3072] = {0};
    for (unsigned i = 0; i < 512; i++) {
        map[i] = PRESENT | (1024 + i);
        map[512 + i] = i % 3 ? PRESENT | frame_of(i) : 0;
    }
    put_folio(flags, 1024, 512);
    put_words("pagemap", 1024, map, 1024);
    put_words("kpageflags", 0, flags, 3072);
    put_words("bitmap", 0, zeros, 64);
    snprintf(path_text[0], sizeof(path_text[0]), "%s/bitmap", root);
    snprintf(path_text[1], sizeof(path_text[1]), "%s/pagemap", root);
    snprintf(path_text[2], sizeof(path_text[2]), "%s/kpageflags", root);
    paths =
        (struct access_paths){.damon = root, .idle = path_text[0], .pagemap = path_text[1], .kpageflags = path_text[2]};
}

START_TEST(test_access_page_idle_tells_touched_from_idle_pages)
{
    struct diag diag = {0};
    struct access_page_idle *idle;
    static struct heard heard;
    put_page_idle();
    ck_assert_msg(access_page_idle_open(&paths, &small_range, 1, &idle, &diag) == 0, "%s", diag.text);
    const struct access_source *source = access_page_idle_source(idle);
    ck_assert_str_eq(source->name, "page_idle");
    /* the first time nothing is known */
    ck_assert_int_eq(source->poll(source->ctx, hear, &heard), 0);
    ck_assert_uint_eq(heard.nr, 0);
    ck_assert_uint_ge(source->period_ms, 1000);
    /* a write to a file replaces the word, where the kernel adds bits: so all are set by hand, and one is not */
    uint64_t ones = UINT64_MAX, touched = ~(UINT64_C(1) << (frame_of(10) % 64));
    for (unsigned word = 0; word < 48; word++)
        put_words("bitmap", word, &ones, 1);
    put_words("bitmap", frame_of(10) / 64, &touched, 1);
    ck_assert_int_eq(source->poll(source->ctx, hear, &heard), 0);
    check_row(&heard, 3, 512, 512, false); /* the huge page as one */
    ck_assert_uint_eq(heard.nr, 1 + 512 - 171);
    for (unsigned i = 0; i < heard.nr; i++)
        ck_assert_uint_eq(heard.row[i].vm, 3);
    for (unsigned i = 0; i < heard.nr; i++)
        ck_assert(heard.row[i].gfn < 1024 || (heard.row[i].gfn - 1024) % 3 != 0);
    ck_assert_uint_ne(get_word("bitmap", frame_of(10) / 64), 0);
    /* and a huge page that was touched */
    uint64_t zero = 0;
    put_words("bitmap", 1024 / 64, &zero, 1);
    heard.nr = 0;
    ck_assert_int_eq(source->poll(source->ctx, hear, &heard), 0);
    check_row(&heard, 3, 512, 512, true);
    access_page_idle_close(idle);
}
END_TEST

/* A page that came or went since the last poll: nothing is known of it. */
START_TEST(test_access_page_idle_page_that_is_new_is_left_out)
{
    struct diag diag = {0};
    struct access_page_idle *idle;
    static struct heard heard;
    put_page_idle();
    ck_assert_int_eq(access_page_idle_open(&paths, &small_range, 1, &idle, &diag), 0);
    const struct access_source *source = access_page_idle_source(idle);
    ck_assert_int_eq(source->poll(source->ctx, hear, &heard), 0);
    uint64_t here = PRESENT | 2050, gone = 0;
    put_words("pagemap", 1024 + 512 + 3, &here, 1);
    put_words("pagemap", 1024 + 512 + 4, &gone, 1);
    ck_assert_int_eq(source->poll(source->ctx, hear, &heard), 0);
    for (unsigned i = 0; i < heard.nr; i++)
        ck_assert(heard.row[i].gfn != 1024 + 3 && heard.row[i].gfn != 1024 + 4);
    check_row(&heard, 3, 1024 + 5, 1, heard.row[2].touched);
    access_page_idle_close(idle);
}
END_TEST

/* The second block in frames [2048, 2560), folios of 64: a word of the bitmap each, of which one bit is tracked. */
static void put_small_folios(void)
{
    uint64_t map[512], flags[512] = {0};
    put_page_idle();
    for (unsigned i = 0; i < 512; i++)
        map[i] = i < 80 || i >= 85 ? PRESENT | (2048 + i) : 0; /* of folio 1 some pages are missing */
    map[128] = PRESENT | 3000;                                 /* of folio 2 the first one is */
    for (unsigned i = 0; i < 512; i += 64)
        put_folio(flags, i, 64);
    put_words("pagemap", 1024 + 512, map, 512);
    put_words("kpageflags", 2048, flags, 512);
}

START_TEST(test_access_page_idle_pages_of_small_folios_are_as_idle_as_their_head)
{
    struct diag diag = {0};
    struct access_page_idle *idle;
    static struct heard heard;
    uint64_t touched = 0, here = PRESENT | (2048 + 80);
    put_small_folios();
    ck_assert_int_eq(access_page_idle_open(&paths, &small_range, 1, &idle, &diag), 0);
    const struct access_source *source = access_page_idle_source(idle);
    ck_assert_int_eq(source->poll(source->ctx, hear, &heard), 0);
    ck_assert_uint_eq(heard.nr, 0);
    for (unsigned word = 2048 / 64; word < 2560 / 64; word++)
        ck_assert_uint_eq(get_word("bitmap", word), 1);
    put_words("bitmap", 2048 / 64 + 1, &touched, 1);
    ck_assert_int_eq(source->poll(source->ctx, hear, &heard), 0);
    check_row(&heard, 3, 1024, 64, false);
    check_row(&heard, 3, 1024 + 64, 16, true);
    check_row(&heard, 3, 1024 + 85, 43, true);
    check_row(&heard, 3, 1024 + 128, 1, false);
    check_row(&heard, 3, 1024 + 129, 63, false);
    ck_assert_uint_eq(heard.nr, 1 + 10);
    /* what is new in a folio was not watched so far */
    put_words("pagemap", 1024 + 512 + 80, &here, 1);
    heard.nr = 0;
    ck_assert_int_eq(source->poll(source->ctx, hear, &heard), 0);
    check_row(&heard, 3, 1024 + 85, 43, false);
    ck_assert_uint_eq(heard.nr, 1 + 9);
    access_page_idle_close(idle);
}
END_TEST

/* The second block in two folios of 256 whose pages take turns, but for one of the first folio in place of a huge page. */
static void put_folios_in_turns(void)
{
    uint64_t map[1024] = {0}, flags[512] = {0};
    put_page_idle();
    map[7] = PRESENT | (2048 + 255);
    for (unsigned i = 0; i < 512; i++)
        map[512 + i] = PRESENT | (2048 + i % 2 * 256 + i / 2);
    put_folio(flags, 0, 256);
    put_folio(flags, 256, 256);
    put_words("pagemap", 1024, map, 1024);
    put_words("kpageflags", 2048, flags, 512);
}

/* The bit that was set for a page of one folio was taken, behind a page of the other one, for that of an idle folio. */
START_TEST(test_access_page_idle_pages_of_two_folios_that_take_turns_are_as_idle_as_their_heads)
{
    struct diag diag = {0};
    struct access_page_idle *idle;
    static struct heard heard;
    put_folios_in_turns();
    ck_assert_int_eq(access_page_idle_open(&paths, &small_range, 1, &idle, &diag), 0);
    const struct access_source *source = access_page_idle_source(idle);
    ck_assert_int_eq(source->poll(source->ctx, hear, &heard), 0);
    for (unsigned touched = 0; touched < 2; touched++) {
        uint64_t word = 0;
        heard.nr = 0;
        put_words("bitmap", (2048 + touched * 256) / 64, &word, 1);
        ck_assert_int_eq(source->poll(source->ctx, hear, &heard), 0);
        ck_assert_uint_eq(heard.nr, 1 + 512);
        check_row(&heard, 3, 512 + 7, 1, touched == 0);
        for (unsigned i = 0; i < 512; i++)
            check_row(&heard, 3, 1024 + i, 1, touched == i % 2);
    }
    access_page_idle_close(idle);
}
END_TEST

START_TEST(test_access_page_idle_without_memory_is_an_error)
{
    struct diag diag = {0};
    struct access_page_idle *idle;
    static struct heard heard;
    put_folios_in_turns();
    ck_assert_int_eq(access_page_idle_open(&paths, &small_range, 1, &idle, &diag), 0);
    const struct access_source *source = access_page_idle_source(idle);
    fail_alloc_at(1);
    int err = source->poll(source->ctx, hear, &heard);
    fail_alloc_at(-1);
    ck_assert_int_eq(err, -ENOMEM);
    access_page_idle_close(idle);
}
END_TEST

START_TEST(test_access_page_idle_without_frame_numbers_is_an_error)
{
    struct diag diag = {0};
    struct access_page_idle *idle;
    static struct heard heard;
    put_page_idle();
    uint64_t hidden = PRESENT; /* as the kernel shows it to who is not root */
    put_words("pagemap", 1024, &hidden, 1);
    ck_assert_int_eq(access_page_idle_open(&paths, &small_range, 1, &idle, &diag), 0);
    const struct access_source *source = access_page_idle_source(idle);
    ck_assert_int_eq(source->poll(source->ctx, hear, &heard), -EPERM);
    access_page_idle_close(idle);
}
END_TEST

START_TEST(test_access_page_idle_missing_is_said)
{
    struct diag diag = {0};
    struct access_page_idle *idle;
    put_page_idle();
    unlink(path_text[_i]);
    ck_assert_int_eq(access_page_idle_open(&paths, &small_range, 1, &idle, &diag), -1);
    ck_assert_int_eq(diag.code, EXIT_HOST);
    ck_assert_ptr_nonnull(strstr(diag.text, "CONFIG_IDLE_PAGE_TRACKING"));
}
END_TEST

/* ---- the choice ---- */

static const char *chosen(enum access_mode mode)
{
    struct diag diag = {0};
    struct access_choice choice;
    static char name[20];
    if (access_choose(mode, &paths, &small_range, 1, &choice, &diag))
        return "refused";
    snprintf(name, sizeof(name), "%s", choice.source ? choice.source->name : "refault");
    access_choice_close(&choice);
    ck_assert_str_eq(diag.text, "");
    return name;
}

START_TEST(test_access_auto_takes_the_first_that_there_is)
{
    put_page_idle();
    put_damon("0\n", "vaddr\nfvaddr\n");
    ck_assert_str_eq(chosen(ACCESS_REFAULT), "refault");
    ck_assert_str_eq(chosen(ACCESS_DAMON), "damon");
    ck_assert_str_eq(chosen(ACCESS_PAGE_IDLE), "page_idle");
    ck_assert_str_eq(chosen(ACCESS_AUTO), "damon");
    put_damon("0\n", "paddr\n");
    ck_assert_str_eq(chosen(ACCESS_DAMON), "refused");
    ck_assert_str_eq(chosen(ACCESS_AUTO), "page_idle");
    unlink(path_text[0]);
    ck_assert_str_eq(chosen(ACCESS_PAGE_IDLE), "refused");
    ck_assert_str_eq(chosen(ACCESS_AUTO), "refault");
}
END_TEST

/* ---- a source that waits ---- */

/* Answers when it is let, with one row whose page is the answer's number. */
struct waiting {
    sem_t go, asked;
    gfn_t nr_answers;
    int err;
};

static int wait_and_answer(void *ctx, access_report_fn *report, void *report_ctx)
{
    struct waiting *waiting = ctx;
    sem_post(&waiting->asked);
    while (sem_wait(&waiting->go))
        ;
    report(report_ctx, 1, waiting->nr_answers++, 512, true);
    report(report_ctx, 2, 7, 1, false);
    return waiting->err;
}

static struct access_thread *start_waiting(struct waiting *waiting, struct access_source *inner)
{
    struct diag diag = {0};
    struct access_thread *thread;
    *waiting = (struct waiting){0};
    sem_init(&waiting->go, 0, 0);
    sem_init(&waiting->asked, 0, 0);
    *inner = (struct access_source){.name = "slow", .period_ms = 20, .poll = wait_and_answer, .ctx = waiting};
    ck_assert_int_eq(access_thread_start(inner, &thread, &diag), 0);
    ck_assert_str_eq(access_thread_source(thread)->name, "slow");
    sem_wait(&waiting->asked);
    return thread;
}

/* The inner source answers, and is asked once more. */
static void let_answer(struct waiting *waiting)
{
    sem_post(&waiting->go);
    sem_wait(&waiting->asked);
}

static int poll_thread(const struct access_thread *thread, struct heard *heard)
{
    const struct access_source *source = access_thread_source(thread);
    heard->nr = 0;
    return source->poll(source->ctx, hear, heard);
}

static void stop_waiting(struct waiting *waiting, struct access_thread *thread)
{
    sem_post(&waiting->go);
    access_thread_stop(thread);
    sem_destroy(&waiting->go);
    sem_destroy(&waiting->asked);
}

START_TEST(test_the_scanner_stood_still_while_damon_counted)
{
    static struct heard heard;
    struct waiting waiting;
    struct access_source inner;
    struct access_thread *thread = start_waiting(&waiting, &inner);
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_int_eq(poll_thread(thread, &heard), 0); /* would wait for ever */
        ck_assert_uint_eq(heard.nr, 0);
    }
    let_answer(&waiting);
    ck_assert_int_eq(poll_thread(thread, &heard), 0);
    ck_assert_uint_eq(heard.nr, 2);
    check_row(&heard, 1, 0, 512, true);
    check_row(&heard, 2, 7, 1, false);
    ck_assert_int_eq(poll_thread(thread, &heard), 0);
    ck_assert_uint_eq(heard.nr, 0); /* it was told once */
    let_answer(&waiting);
    let_answer(&waiting);
    ck_assert_int_eq(poll_thread(thread, &heard), 0);
    ck_assert_uint_eq(heard.nr, 4); /* both: what was touched may have been so in one of them only */
    check_row(&heard, 1, 1, 512, true);
    check_row(&heard, 1, 2, 512, true);
    stop_waiting(&waiting, thread);
}
END_TEST

START_TEST(test_access_thread_of_a_source_that_breaks_says_so_and_asks_no_more)
{
    static struct heard heard;
    struct waiting waiting;
    struct access_source inner;
    struct access_thread *thread = start_waiting(&waiting, &inner);
    let_answer(&waiting);
    waiting.err = -EIO;
    sem_post(&waiting.go);
    while (!poll_thread(thread, &heard))
        usleep(1000);
    ck_assert_int_eq(poll_thread(thread, &heard), -EIO);
    ck_assert_uint_eq(heard.nr, 0);
    ck_assert_int_ne(sem_trywait(&waiting.asked), 0);
    stop_waiting(&waiting, thread);
}
END_TEST

START_TEST(test_access_thread_without_memory_is_an_error)
{
    static struct heard heard;
    struct waiting waiting;
    struct access_source inner;
    struct access_thread *thread = start_waiting(&waiting, &inner);
    fail_alloc_at(1);
    sem_post(&waiting.go);
    int err;
    while (!(err = poll_thread(thread, &heard)))
        usleep(1000);
    fail_alloc_at(-1);
    ck_assert_int_eq(err, -ENOMEM);
    ck_assert_uint_eq(heard.nr, 0);
    stop_waiting(&waiting, thread);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("access_source");
    TCase *tc = tcase_create("access_source");
    tcase_add_checked_fixture(tc, make_root, remove_root);
    tcase_add_loop_test(tc, test_access_damon_watches_this_process_over_the_guests, 0, 3);
    tcase_add_test(tc, test_access_damon_of_two_vms_was_refused_for_their_order);
    tcase_add_test(tc, test_access_damon_regions_are_told_as_guest_pages);
    tcase_add_test(tc, test_access_damon_regions_side_by_side_that_are_the_same_are_told_as_one);
    tcase_add_test(tc, test_access_damon_without_memory_is_an_error);
    tcase_add_test(tc, test_access_damon_that_stops_answering_is_an_error);
    tcase_add_test(tc, test_access_damon_ended_when_its_lock_was_taken_once);
    tcase_add_test(tc, test_access_damon_whose_lock_stays_taken_is_an_error);
    tcase_add_test(tc, test_access_damon_missing_is_said);
    tcase_add_test(tc, test_access_damon_of_physical_addresses_alone_is_said_and_left_as_it_was);
    tcase_add_test(tc, test_access_damon_in_use_is_left_alone);
    tcase_add_test(tc, test_access_damon_left_by_a_killed_run_was_said_to_be_in_use);
    tcase_add_loop_test(tc, test_access_damon_half_set_up_is_taken_down, 0, 4);
    tcase_add_test(tc, test_access_damon_that_never_ran_was_left_on_the_host);
    tcase_add_test(tc, test_access_page_idle_tells_touched_from_idle_pages);
    tcase_add_test(tc, test_access_page_idle_page_that_is_new_is_left_out);
    tcase_add_test(tc, test_access_page_idle_pages_of_small_folios_are_as_idle_as_their_head);
    tcase_add_test(tc, test_access_page_idle_pages_of_two_folios_that_take_turns_are_as_idle_as_their_heads);
    tcase_add_test(tc, test_access_page_idle_without_memory_is_an_error);
    tcase_add_test(tc, test_access_page_idle_without_frame_numbers_is_an_error);
    tcase_add_loop_test(tc, test_access_page_idle_missing_is_said, 0, 3);
    tcase_add_test(tc, test_access_auto_takes_the_first_that_there_is);
    tcase_add_test(tc, test_the_scanner_stood_still_while_damon_counted);
    tcase_add_test(tc, test_access_thread_of_a_source_that_breaks_says_so_and_asks_no_more);
    tcase_add_test(tc, test_access_thread_without_memory_is_an_error);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
