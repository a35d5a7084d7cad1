/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/mm_rig.h"
#include "vmm/dump.h"

#define MIB (UINT64_C(1) << 20)
#define VM_BYTES (8 * MIB)
#define VM_PAGES (VM_BYTES / PAGE_BYTES)

/* A VM with pages in the guest, on standby, in zram and never touched; @shadow is what dump reads of those in the guest. */
struct fixture {
    struct mm_rig *rig;
    char *shadow;
    struct guest_mem mem;
    int fd;
    uint64_t free_pages[VM_PAGES / 64];
};

static void set_up(struct fixture *f)
{
    const struct mm_config config = {.budget_bytes = 16 * MIB, .zram = {.limit_bytes = 8 * MIB}};
    char name[] = "/tmp/ebb-dump-XXXXXX";
    *f = (struct fixture){.rig = mm_rig_create(&config, VM_BYTES, 1), .shadow = calloc(1, VM_BYTES)};
    f->mem = (struct guest_mem){.nr = 1, .region = {{.bytes = VM_BYTES, .hva = f->shadow}}};
    f->fd = mkstemp(name);
    ck_assert_int_ge(f->fd, 0);
    unlink(name);
    mm_rig_fill(f->rig, 0, 100, TEXT);
    mm_reclaim(f->rig->thread[0], f->rig->vm, 100, true);
    mm_rig_fill(f->rig, 600, 700, HALF);
    mm_reclaim(f->rig->thread[0], f->rig->vm, 100, false);
    mm_rig_fill(f->rig, 1500, 1600, RANDOM);
    for (gfn_t gfn = 1500; gfn < 1600; gfn++)
        rig_make_page((uint64_t *)(void *)(f->shadow + gfn * PAGE_BYTES), gfn, RANDOM);
}

static void tear_down(struct fixture *f)
{
    close(f->fd);
    free(f->shadow);
    mm_rig_destroy(f->rig);
}

static atomic_bool run_is_over;

static int dump(struct fixture *f, struct dump_stat *stat, struct diag *diag)
{
    const struct dump_config config = {.thread = f->rig->thread[0],
                                       .vm = f->rig->vm,
                                       .mem = &f->mem,
                                       .free_pages = f->free_pages,
                                       .nr_free_bits = VM_PAGES,
                                       .stop = &run_is_over};
    return dump_write(&config, f->fd, "file", stat, diag);
}

static void expect_page(struct fixture *f, gfn_t gfn, enum content content)
{
    uint64_t want[PAGE_BYTES / 8], got[PAGE_BYTES / 8];
    rig_make_page(want, gfn, content);
    ck_assert_int_eq(pread(f->fd, got, PAGE_BYTES, (off_t)(4096 + gfn * PAGE_BYTES)), PAGE_BYTES);
    ck_assert_msg(!memcmp(want, got, PAGE_BYTES), "page %u", gfn);
}

START_TEST(test_dump_every_page_is_in_the_file_wherever_it_was)
{
    struct fixture f;
    struct dump_stat stat;
    struct diag diag = {0};
    Elf64_Ehdr head;
    Elf64_Phdr load;
    struct stat file;
    set_up(&f);
    ck_assert_str_eq(mm_rig_state(f.rig, 50), "zram");
    ck_assert_str_eq(mm_rig_state(f.rig, 650), "standby");
    ck_assert_msg(dump(&f, &stat, &diag) == 0, "%s", diag.text);
    for (gfn_t gfn = 0; gfn < VM_PAGES; gfn++)
        expect_page(&f, gfn, (enum content)f.rig->content[gfn]);
    ck_assert_str_eq(mm_rig_state(f.rig, 50), "zram");
    ck_assert_uint_eq(stat.memory_bytes, VM_BYTES);
    ck_assert_uint_eq(stat.written_bytes, 300 * PAGE_BYTES);
    ck_assert_uint_eq(stat.zero_bytes, VM_BYTES - 300 * PAGE_BYTES);
    ck_assert_int_eq(pread(f.fd, &head, sizeof(head), 0), sizeof(head));
    ck_assert_mem_eq(head.e_ident, ELFMAG, SELFMAG);
    ck_assert_uint_eq(head.e_type, ET_CORE);
    ck_assert_uint_eq(head.e_phnum, 1);
    ck_assert_int_eq(pread(f.fd, &load, sizeof(load), (off_t)head.e_phoff), sizeof(load));
    ck_assert_uint_eq(load.p_paddr, 0);
    ck_assert_uint_eq(load.p_filesz, VM_BYTES);
    ck_assert_uint_eq(load.p_offset, 4096);
    ck_assert_int_eq(fstat(f.fd, &file), 0);
    ck_assert_uint_eq((uint64_t)file.st_size, 4096 + VM_BYTES);
    ck_assert_uint_lt((uint64_t)file.st_blocks * 512, 400 * PAGE_BYTES);
    tear_down(&f);
}
END_TEST

START_TEST(test_dump_free_pages_are_left_out_and_no_others)
{
    struct fixture f;
    struct dump_stat stat;
    struct diag diag = {0};
    set_up(&f);
    for (gfn_t gfn = 20; gfn < 40; gfn++)
        f.free_pages[gfn / 64] |= UINT64_C(1) << (gfn % 64);
    f.free_pages[1599 / 64] |= UINT64_C(1) << (1599 % 64);
    ck_assert_int_eq(dump(&f, &stat, &diag), 0);
    ck_assert_uint_eq(stat.free_bytes, 21 * PAGE_BYTES);
    ck_assert_uint_eq(stat.written_bytes, 279 * PAGE_BYTES);
    expect_page(&f, 19, TEXT);
    expect_page(&f, 20, NOTHING);
    expect_page(&f, 39, NOTHING);
    expect_page(&f, 40, TEXT);
    expect_page(&f, 1598, RANDOM);
    expect_page(&f, 1599, NOTHING);
    tear_down(&f);
}
END_TEST

/* Of virtio-mem's region, which may be 256 GiB, no page is asked for: the guest waits meanwhile. */
START_TEST(test_dump_blocks_that_are_not_plugged_are_passed_over)
{
    const uint64_t plugged = ~(UINT64_C(1) << (650 / BLOCK_PAGES));
    struct fixture f;
    struct dump_stat stat;
    struct diag diag = {0};
    set_up(&f);
    f.mem.plugged = &plugged;
    ck_assert_int_eq(dump(&f, &stat, &diag), 0);
    ck_assert_uint_eq(stat.written_bytes, 200 * PAGE_BYTES);
    ck_assert_uint_eq(stat.zero_bytes, VM_BYTES - 200 * PAGE_BYTES);
    expect_page(&f, 50, TEXT);
    expect_page(&f, 650, NOTHING);
    expect_page(&f, 1550, RANDOM);
    tear_down(&f);
}
END_TEST

START_TEST(test_dump_file_that_cannot_grow_is_told)
{
    struct fixture f;
    struct dump_stat stat;
    struct diag diag = {0};
    set_up(&f);
    signal(SIGXFSZ, SIG_IGN);
    const struct rlimit limit = {.rlim_cur = MIB, .rlim_max = MIB};
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    ck_assert_int_eq(dump(&f, &stat, &diag), -1);
    ck_assert_int_eq(diag.code, EXIT_GUEST);
    ck_assert_ptr_nonnull(strstr(diag.text, strerror(EFBIG)));
    tear_down(&f);
}
END_TEST

START_TEST(test_dump_lost_page_is_named)
{
    struct fixture f;
    struct dump_stat stat;
    struct diag diag = {0};
    set_up(&f);
    struct fake_swap *disk = mm_rig_swapon(f.rig, "disk", 4096);
    mm_reclaim(f.rig->thread[0], f.rig->vm, 2000, true);
    ck_assert_str_eq(mm_rig_state(f.rig, 1500), "swap");
    disk->fail_at = 1;
    disk->fail_error = -EIO;
    ck_assert_int_eq(dump(&f, &stat, &diag), -1);
    ck_assert_ptr_nonnull(strstr(diag.text, "page gpa 0x"));
    tear_down(&f);
}
END_TEST

START_TEST(test_dump_of_a_run_that_is_over_is_not_begun)
{
    struct fixture f;
    struct dump_stat stat;
    struct diag diag = {0};
    struct stat file;
    set_up(&f);
    atomic_store(&run_is_over, true);
    ck_assert_int_eq(dump(&f, &stat, &diag), -1);
    ck_assert_ptr_nonnull(strstr(diag.text, "run is over"));
    ck_assert_int_eq(fstat(f.fd, &file), 0);
    ck_assert_int_eq(file.st_size, 0);
    tear_down(&f);
}
END_TEST

static char *last_page;

/* The page cannot be had any more: the VM is told to end, and the reader gets zeros instead. */
static void give_zeros(int number)
{
    (void)number;
    atomic_store(&run_is_over, true);
    if (mprotect(last_page, PAGE_BYTES, PROT_READ))
        _exit(1);
}

/* In the last pages of all, so that nothing is looked at after it. */
START_TEST(test_dump_page_that_came_as_zeros_because_the_vm_ends_is_no_dump)
{
    struct fixture f;
    struct dump_stat stat;
    struct diag diag = {0};
    const struct sigaction action = {.sa_handler = give_zeros};
    set_up(&f);
    mm_rig_fill(f.rig, VM_PAGES - 1, VM_PAGES, RANDOM);
    char *shadow = mmap(NULL, VM_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(shadow, MAP_FAILED);
    f.mem.region[0].hva = shadow;
    last_page = shadow + VM_BYTES - PAGE_BYTES;
    ck_assert_int_eq(mprotect(last_page, PAGE_BYTES, PROT_NONE), 0);
    ck_assert_int_eq(sigaction(SIGSEGV, &action, NULL), 0);
    ck_assert_int_eq(dump(&f, &stat, &diag), -1);
    ck_assert_ptr_nonnull(strstr(diag.text, "run is over"));
    munmap(shadow, VM_BYTES);
    tear_down(&f);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("dump");
    TCase *cases = tcase_create("cases");
    tcase_add_test(cases, test_dump_every_page_is_in_the_file_wherever_it_was);
    tcase_add_test(cases, test_dump_free_pages_are_left_out_and_no_others);
    tcase_add_test(cases, test_dump_blocks_that_are_not_plugged_are_passed_over);
    tcase_add_test(cases, test_dump_file_that_cannot_grow_is_told);
    tcase_add_test(cases, test_dump_lost_page_is_named);
    tcase_add_test(cases, test_dump_of_a_run_that_is_over_is_not_begun);
    tcase_add_test(cases, test_dump_page_that_came_as_zeros_because_the_vm_ends_is_no_dump);
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
