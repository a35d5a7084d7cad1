/* SPDX-License-Identifier: Apache-2.0 */
/* Transfers: scattered slots, errors page by page, several threads, a block device that fails. */
#include "tests/fake/fail_uring.h"
#include "vmm/swapfile.h"
#include "vmm/swapio.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define NR_SLOTS 1024u

static char folder[128], path[192];

static void setup(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(folder, sizeof(folder), "%.100s/ebb-swapio-XXXXXX", tmp ? tmp : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/swap", folder);
}

static void teardown(void)
{
    unlink(path);
    ck_assert_int_eq(rmdir(folder), 0);
}

/* A file of NR_SLOTS with a swap header. */
static void file_make(uint64_t nr_slots)
{
    uint8_t page[PAGE_BYTES], uuid[16] = {2};
    int fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    ck_assert_int_ge(fd, 0);
    swap_header_make(page, nr_slots, uuid, NULL);
    ck_assert_int_eq(pwrite(fd, page, sizeof(page), 0), (ssize_t)sizeof(page));
    ck_assert_int_eq(ftruncate(fd, (off_t)(nr_slots * PAGE_BYTES)), 0);
    close(fd);
}

static struct swapio *io_open(int mode, bool uring)
{
    struct swapio *io;
    struct swapio_config config = {.uring = uring};
    int fd = open(path, mode | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(swapio_create(fd, &config, &io), 0);
    return io;
}

static uint64_t *pages_alloc(unsigned nr)
{
    uint64_t *pages = aligned_alloc(PAGE_BYTES, nr * PAGE_BYTES);
    ck_assert_ptr_nonnull(pages);
    return pages;
}

#define WORDS (PAGE_BYTES / sizeof(uint64_t))

static void stamp(uint64_t *page, uint64_t value)
{
    for (unsigned i = 0; i < WORDS; i++)
        page[i] = value * (2 * i + 1);
}

static bool stamped(const uint64_t *page, uint64_t value)
{
    for (unsigned i = 0; i < WORDS; i++)
        if (page[i] != value * (2 * i + 1))
            return false;
    return true;
}

/* --- one caller ------------------------------------------------------------------------------- */

static const bool uring[] = {true, false};

/* Slots in runs, alone and backwards; addresses adjacent, apart and backwards. */
START_TEST(test_swapio_scattered_slots_go_where_they_belong)
{
    static const uint64_t slots[] = {10, 11, 12, 13, 40, 39, 38, 100, 101, 102, 103, 7, 1023, 1, 2, 3};
    static const unsigned places[] = {0, 1, 2, 3, 4, 5, 6, 10, 9, 8, 7, 15, 11, 12, 14, 13};
    struct swap_io io[ARRAY_LEN(slots)];
    uint64_t *pages = pages_alloc(ARRAY_LEN(slots));
    file_make(NR_SLOTS);
    struct swapio *s = io_open(O_RDWR, uring[_i]);
    const struct swap_backend *backend = swapio_backend(s);
    for (unsigned i = 0; i < ARRAY_LEN(slots); i++) {
        io[i] = (struct swap_io){.slot = slots[i], .page = pages + places[i] * WORDS, .error = -1};
        stamp(io[i].page, slots[i]);
    }
    ck_assert_int_eq(backend->transfer(s, true, io, ARRAY_LEN(slots)), 0);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    for (unsigned i = 0; i < ARRAY_LEN(slots); i++) {
        ck_assert_int_eq(io[i].error, 0);
        ck_assert_int_eq(pread(fd, pages, PAGE_BYTES, (off_t)(slots[i] * PAGE_BYTES)), (ssize_t)PAGE_BYTES);
        ck_assert(stamped(pages, slots[i]));
    }
    close(fd);
    memset(pages, 0, ARRAY_LEN(slots) * PAGE_BYTES);
    ck_assert_int_eq(backend->transfer(s, false, io, ARRAY_LEN(slots)), 0);
    for (unsigned i = 0; i < ARRAY_LEN(slots); i++)
        ck_assert(io[i].error == 0 && stamped(io[i].page, slots[i]));
    swapio_destroy(s);
    free(pages);
}
END_TEST

START_TEST(test_swapio_refused_writes_are_reported_for_each_page)
{
    struct swap_io io[SWAP_MAX_IO];
    uint64_t *pages = pages_alloc(SWAP_MAX_IO);
    file_make(NR_SLOTS);
    struct swapio *s = io_open(O_RDONLY, uring[_i]);
    for (unsigned i = 0; i < SWAP_MAX_IO; i++)
        io[i] = (struct swap_io){.slot = 5 + i, .page = pages + i * WORDS};
    ck_assert_int_eq(swapio_backend(s)->transfer(s, true, io, SWAP_MAX_IO), -EBADF);
    for (unsigned i = 0; i < SWAP_MAX_IO; i++)
        ck_assert_int_eq(io[i].error, -EBADF);
    ck_assert_int_eq(swapio_backend(s)->transfer(s, false, io, SWAP_MAX_IO), 0);
    swapio_destroy(s);
    free(pages);
}
END_TEST

START_TEST(test_swapio_pages_beyond_the_end_fail_alone)
{
    struct swap_io io[8];
    uint64_t *pages = pages_alloc(8);
    file_make(NR_SLOTS);
    struct swapio *s = io_open(O_RDWR, uring[_i]);
    for (unsigned i = 0; i < 8; i++)
        io[i] = (struct swap_io){.slot = NR_SLOTS - 3 + i, .page = pages + i * WORDS};
    ck_assert_int_eq(swapio_backend(s)->transfer(s, false, io, 8), -EIO);
    for (unsigned i = 0; i < 8; i++)
        ck_assert_int_eq(io[i].error, i < 3 ? 0 : -EIO);
    ck_assert_ptr_null(swapio_backend(s)->discard);
    swapio_destroy(s);
    swapio_destroy(NULL);
    free(pages);
}
END_TEST

/* Every second slot, so that each page is a request of its own. */
START_TEST(test_swapio_ring_that_breaks_after_a_part_was_sent_loses_and_repeats_nothing)
{
    struct swap_io io[8];
    uint64_t *pages = pages_alloc(8);
    file_make(NR_SLOTS);
    struct swapio *s = io_open(O_RDWR, true);
    const struct swap_backend *backend = swapio_backend(s);
    for (unsigned ring = 0; ring <= SWAPIO_RINGS; ring++) { /* at the end there is none */
        for (unsigned i = 0; i < 8; i++) {
            io[i] = (struct swap_io){.slot = 5 + 2 * i, .page = pages + i * WORDS, .error = -1};
            stamp(io[i].page, 100 * ring + i);
        }
        fail_uring_after(_i);
        int err = backend->transfer(s, true, io, 8);
        int nr_failed = fail_uring_count();
        fail_uring_after(-1);
        ck_assert_int_eq(err, 0);
        ck_assert_int_le(nr_failed, 1);
        ck_assert(_i == 8 || nr_failed == (ring < SWAPIO_RINGS));
        memset(pages, 0, 8 * PAGE_BYTES);
        ck_assert_int_eq(backend->transfer(s, false, io, 8), 0);
        for (unsigned i = 0; i < 8; i++)
            ck_assert(io[i].error == 0 && stamped(io[i].page, 100 * ring + i));
    }
    swapio_destroy(s);
    free(pages);
}
END_TEST

/* --- threads ---------------------------------------------------------------------------------- */

#define NR_THREADS 6u /* more than there are rings */

struct worker {
    struct swap_set *set;
    unsigned number, nr_bad;
    uint64_t *pages; /* SWAP_MAX_IO */
};

/* Each thread has at most two batches of slots at a time; every page is verified. */
static void worker_round(struct worker *w, unsigned round)
{
    void *pages[SWAP_MAX_IO];
    int error[SWAP_MAX_IO];
    struct swap_ref ref;
    unsigned want = 1 + (round * 7 + w->number * 13) % SWAP_MAX_IO;
    uint64_t first = ((uint64_t)w->number << 32 | round) * SWAP_MAX_IO;
    unsigned nr = swap_alloc(w->set, want, &ref);
    for (unsigned i = 0; i < nr; i++) {
        pages[i] = w->pages + (i * 5 + round) % SWAP_MAX_IO * WORDS; /* 5 and 64 share no factor: all different */
        stamp(pages[i], first + i);
    }
    w->nr_bad += nr == 0 || swap_write(w->set, ref, pages, nr, error) != 0;
    memset(w->pages, 0, SWAP_MAX_IO * PAGE_BYTES);
    for (unsigned i = 0; i < nr; i += 9) {
        unsigned part = MIN_OF(9u, nr - i);
        struct swap_ref at = {ref.area, ref.slot + i};
        w->nr_bad += swap_read(w->set, at, pages + i, part, error) != 0;
    }
    for (unsigned i = 0; i < nr; i++) {
        w->nr_bad += !stamped(pages[i], first + i);
        swap_free(w->set, (struct swap_ref){ref.area, ref.slot + i});
    }
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    for (unsigned round = 0; round < 60; round++)
        worker_round(w, round);
    return NULL;
}

static const unsigned thread_ways[] = {0, SWAPFILE_NO_URING, SWAPFILE_NO_DIRECT | SWAPFILE_DISCARD};

START_TEST(test_swapio_threads_each_find_their_pages)
{
    struct swap_set *set;
    struct diag diag = {0};
    struct worker w[NR_THREADS];
    pthread_t thread[NR_THREADS];
    const char *why = "";
    ck_assert_int_eq(swap_set_create(&set), 0);
    ck_assert_msg(swapfile_add(set, path, NR_SLOTS * PAGE_BYTES, -1, thread_ways[_i], &diag) == 0, "%s", diag.text);
    for (unsigned i = 0; i < NR_THREADS; i++) {
        w[i] = (struct worker){.set = set, .number = i, .pages = pages_alloc(SWAP_MAX_IO)};
        ck_assert_int_eq(pthread_create(&thread[i], NULL, worker_main, &w[i]), 0);
    }
    for (unsigned i = 0; i < NR_THREADS; i++) {
        ck_assert_int_eq(pthread_join(thread[i], NULL), 0);
        ck_assert_uint_eq(w[i].nr_bad, 0);
        free(w[i].pages);
    }
    ck_assert_msg(swap_check(set, &why), "%s", why);
    ck_assert_uint_eq(swap_nr_free(set), NR_SLOTS - 1);
    swap_set_destroy(set);
}
END_TEST

/* --- a block device --------------------------------------------------------------------------- */

static void skip(const char *reason)
{
    printf("SKIP: %s\n", reason);
    fflush(stdout);
}

/* A loop device over the file, that goes when it is closed. Its descriptor, or -1. */
static int loop_open(char *name, size_t name_bytes)
{
    struct loop_config config = {.info.lo_flags = LO_FLAGS_AUTOCLEAR};
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    int number = control < 0 ? -1 : ioctl(control, LOOP_CTL_GET_FREE);
    if (control >= 0)
        close(control);
    if (number < 0)
        return -1;
    snprintf(name, name_bytes, "/dev/loop%d", number);
    int fd = open(name, O_RDWR | O_CLOEXEC), file = open(path, O_RDWR | O_CLOEXEC);
    config.fd = (uint32_t)file;
    if (fd >= 0 && (file < 0 || ioctl(fd, LOOP_CONFIGURE, &config) != 0)) {
        close(fd);
        fd = -1;
    }
    if (file >= 0)
        close(file);
    return fd;
}

/* A file with holes on a tmpfs that has room for half of it, as a block device: some of its pages cannot be written. */
START_TEST(test_swapio_device_that_fails_reports_its_pages)
{
    char name[32];
    void *pages[SWAP_MAX_IO];
    struct swap_set *set;
    struct swap_ref ref;
    struct swap_area_stat stat;
    struct diag diag = {0};
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("ebb-test", folder, "tmpfs", 0, "size=160k") != 0) {
        skip("a failing block device needs the right to mount a tmpfs");
        return;
    }
    file_make(64);
    int loop = loop_open(name, sizeof(name));
    if (loop < 0) {
        skip("a failing block device needs a free loop device");
        ck_assert_int_eq(umount(folder), 0);
        return;
    }
    ck_assert_int_eq(swap_set_create(&set), 0);
    ck_assert_msg(swapfile_add(set, name, 0, -1, SWAPFILE_DISCARD, &diag) == 0, "%s", diag.text);
    ck_assert_uint_eq(swap_stat(set, &stat, 1), 1);
    ck_assert_str_eq(stat.kind, "partition");
    ck_assert_uint_eq(stat.size_bytes, 63 * PAGE_BYTES);

    uint64_t *memory = pages_alloc(63);
    ck_assert_uint_eq(swap_alloc(set, 63, &ref), 63);
    for (unsigned i = 0; i < 63; i++) {
        pages[i] = memory + i * WORDS;
        stamp(pages[i], i + 1);
    }
    /* One page at a time: the loop driver takes a longer request that was written in part for done. */
    unsigned nr_safe = 0;
    for (unsigned i = 0; i < 63; i++) {
        int error;
        struct swap_ref at = {ref.area, ref.slot + i};
        if (swap_write(set, at, &pages[i], 1, &error) != 0) {
            ck_assert(error == -EIO || error == -ENOSPC);
            continue;
        }
        nr_safe++;
        memset(pages[i], 0, PAGE_BYTES);
        ck_assert_int_eq(swap_read(set, at, &pages[i], 1, &error), 0);
        ck_assert(stamped(pages[i], i + 1));
    }
    ck_assert_uint_ge(nr_safe, 1);
    ck_assert_uint_lt(nr_safe, 40);
    for (unsigned i = 0; i < 63; i++) /* the last one discards */
        swap_free(set, (struct swap_ref){ref.area, ref.slot + i});
    swap_set_destroy(set);
    close(loop);
    free(memory);
    ck_assert_int_eq(umount2(folder, MNT_DETACH), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("swapio");
    TCase *one = tcase_create("one caller");
    tcase_add_checked_fixture(one, setup, teardown);
    tcase_add_loop_test(one, test_swapio_scattered_slots_go_where_they_belong, 0, (int)ARRAY_LEN(uring));
    tcase_add_loop_test(one, test_swapio_refused_writes_are_reported_for_each_page, 0, (int)ARRAY_LEN(uring));
    tcase_add_loop_test(one, test_swapio_pages_beyond_the_end_fail_alone, 0, (int)ARRAY_LEN(uring));
    tcase_add_loop_test(one, test_swapio_ring_that_breaks_after_a_part_was_sent_loses_and_repeats_nothing, 0, 9);
    tcase_add_test(one, test_swapio_device_that_fails_reports_its_pages);
    suite_add_tcase(suite, one);

    TCase *threads = tcase_create("threads");
    tcase_set_timeout(threads, 60);
    tcase_add_checked_fixture(threads, setup, teardown);
    tcase_add_loop_test(threads, test_swapio_threads_each_find_their_pages, 0, (int)ARRAY_LEN(thread_ways));
    suite_add_tcase(suite, threads);

    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
