/* SPDX-License-Identifier: Apache-2.0 */
/* Operations in batches; a ring that is refused at first, or later on. */
#include "devices/blk/io.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define NR_OPS 64u

static struct blk_io io;
static struct blk_op ops[NR_OPS];
static struct iovec iov[NR_OPS][2];
static char data[NR_OPS][1024];
static int fd;

static void setup(void)
{
    char path[] = "/tmp/ebb-blk-io-XXXXXX";
    fd = mkostemp(path, O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    unlink(path);
}

static void teardown(void)
{
    blk_io_fini(&io);
    close(fd);
}

/* Even ones have one element, odd ones two. */
static void queue(unsigned i, enum blk_op_kind kind)
{
    iov[i][0] = (struct iovec){data[i], i % 2 ? 512 : 1024};
    iov[i][1] = (struct iovec){data[i] + 512, 512};
    ops[i] = (struct blk_op){.kind = kind, .iov = iov[i], .nr_iov = 1 + i % 2, .offset_bytes = i * 1024u};
    blk_io_queue(&io, &ops[i]);
}

static unsigned reap_all(int64_t result)
{
    struct blk_op *op;
    unsigned nr = 0;
    while ((op = blk_io_wait(&io))) {
        ck_assert_int_eq(op->result, result);
        nr++;
    }
    ck_assert_uint_eq(io.nr_sent, 0);
    ck_assert_ptr_null(blk_io_reap(&io));
    return nr;
}

static void write_and_read_back(void)
{
    for (unsigned i = 0; i < NR_OPS; i++) {
        memset(data[i], (int)i + 1, sizeof(data[i]));
        queue(i, BLK_OP_WRITE);
    }
    blk_io_submit(&io);
    ck_assert_uint_eq(reap_all(1024), NR_OPS);
    memset(data, 0, sizeof(data));
    for (unsigned i = 0; i < NR_OPS; i++)
        queue(i, BLK_OP_READ);
    blk_io_submit(&io);
    ck_assert_uint_eq(reap_all(1024), NR_OPS);
    for (unsigned i = 0; i < NR_OPS; i++)
        ck_assert(data[i][0] == (char)(i + 1) && data[i][511] == (char)(i + 1) && data[i][1023] == (char)(i + 1));
}

/* @call answers @err from now on, in this process. */
static void forbid(unsigned call, unsigned err)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | err),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = ARRAY_LEN(filter), .filter = filter};
    ck_assert_int_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    ck_assert_int_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
}

/* _i: with a ring. */
START_TEST(test_blk_io_every_operation_is_done)
{
    ck_assert_int_eq(blk_io_init(&io, fd, NR_OPS, _i), 0);
    ck_assert(_i || !io.has_ring);
    write_and_read_back();
    queue(0, BLK_OP_SYNC);
    ops[1] = (struct blk_op){.kind = BLK_OP_FALLOCATE,
                             .mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                             .offset_bytes = 4096,
                             .bytes = 4096};
    blk_io_queue(&io, &ops[1]);
    blk_io_submit(&io);
    ck_assert_uint_eq(reap_all(0), 2);
    queue(4, BLK_OP_READ);
    blk_io_submit(&io);
    ck_assert_uint_eq(reap_all(1024), 1);
    ck_assert_int_eq(data[4][0], 0);
    queue(NR_OPS - 1, BLK_OP_READ);
    ops[NR_OPS - 1].offset_bytes = NR_OPS * 1024;
    blk_io_submit(&io);
    ck_assert_uint_eq(reap_all(0), 1);
}
END_TEST

START_TEST(test_blk_io_without_io_uring_makes_plain_calls)
{
    forbid(SYS_io_uring_setup, ENOSYS);
    ck_assert_int_eq(blk_io_init(&io, fd, NR_OPS, true), 0);
    ck_assert(!io.has_ring);
    ck_assert_int_eq(blk_io_ring_fd(&io), -1);
    write_and_read_back();
    ck_assert_uint_eq(io.nr_submits, 0);
}
END_TEST

/* Refused at once, or after a second of "try again". */
START_TEST(test_blk_io_ring_refused_later_goes_on_with_plain_calls)
{
    ck_assert_int_eq(blk_io_init(&io, fd, NR_OPS, true), 0);
    if (!io.has_ring) {
        printf("SKIP: this host has no io_uring\n");
        return;
    }
    write_and_read_back();
    forbid(SYS_io_uring_enter, _i ? EAGAIN : EPERM);
    write_and_read_back();
    ck_assert(io.refused);
    write_and_read_back();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("blk_io");
    TCase *tcase = tcase_create("blk_io");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_loop_test(tcase, test_blk_io_every_operation_is_done, 0, 2);
    tcase_add_test(tcase, test_blk_io_without_io_uring_makes_plain_calls);
    tcase_add_loop_test(tcase, test_blk_io_ring_refused_later_goes_on_with_plain_calls, 0, 2);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
