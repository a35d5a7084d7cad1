/* SPDX-License-Identifier: Apache-2.0 */
/* Files that are no disks, hosts that fail, guests that ask for nonsense. */
#include "tests/fake/fail_alloc.h"
#include "tests/unit/blk_rig.h"

#include <linux/filter.h>
#include <linux/loop.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define FILE_BYTES (UINT64_C(1) << 20)
#define MEMORY_BYTES (UINT64_C(8) << 20)
#define LAST_SECTOR (FILE_BYTES / RIG_SECTOR - 1)

static struct blk_rig rig;

static void setup(void)
{
    blk_rig_init(&rig, NULL, FILE_BYTES, MEMORY_BYTES);
}

static void teardown(void)
{
    blk_rig_fini(&rig);
}

static struct fake_buffer buffer_of(uint64_t bytes)
{
    return (struct fake_buffer){fake_memory_alloc(&rig.memory, bytes, 512), (uint32_t)bytes};
}

/* --- opening -------------------------------------------------------------------------------------- */

/* Refused with @err and a line that has @words, and nothing is left open. */
static void refused(int err, const char *words)
{
    struct blk *blk = NULL;
    int before = dup(0), after;
    close(before);
    ck_assert_int_eq(blk_open(&rig.config, &rig.env, &blk, rig.why, sizeof(rig.why)), -err);
    ck_assert_ptr_null(blk);
    ck_assert_msg(strstr(rig.why, words), "%s", rig.why);
    ck_assert_ptr_null(strchr(rig.why, '\n'));
    after = dup(0);
    close(after);
    ck_assert_int_eq(before, after);
}

START_TEST(test_blk_open_what_is_no_disk_is_refused_with_a_reason)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/none", rig.folder);
    rig.config.path = path;
    refused(ENOENT, "is not there");
    rig.config.path = rig.folder;
    refused(EISDIR, "is a directory");
    rig.config.read_only = true;
    refused(EISDIR, "is a directory");
    rig.config.read_only = false;
    rig.config.path = "/dev/null";
    refused(EINVAL, "neither a file nor a block device");
    ck_assert_int_eq(mkfifo(path, 0600), 0);
    rig.config.path = path;
    refused(EINVAL, "neither a file nor a block device");
    unlink(path);
    rig.config.path = rig.path;
    ck_assert_int_eq(truncate(rig.path, 511), 0);
    refused(EINVAL, "shorter than a sector");
    ck_assert_int_eq(truncate(rig.path, 0), 0);
    refused(EINVAL, "shorter than a sector");
    ck_assert_int_eq(truncate(rig.path, 512), 0);
    ck_assert_int_eq(blk_open(&rig.config, &rig.env, &rig.blk, rig.why, sizeof(rig.why)), 0);
    blk_close(rig.blk);
    rig.blk = NULL;
    rig.config.nr_queues = 0;
    refused(EINVAL, "1 to 8");
    rig.config.nr_queues = BLK_MAX_QUEUES + 1;
    refused(EINVAL, "1 to 8");
}
END_TEST

START_TEST(test_blk_open_a_file_that_may_only_be_read_says_readonly)
{
    ck_assert_int_eq(chmod(rig.folder, 0755), 0);
    ck_assert_int_eq(chmod(rig.path, _i ? 0 : 0444), 0);
    if (geteuid() == 0)
        ck_assert_int_eq(seteuid(65534), 0);
    refused(EACCES, _i ? "may not be used by this user" : "add readonly");
    rig.config.read_only = true;
    if (_i) {
        refused(EACCES, "may not be used by this user");
    } else {
        ck_assert_int_eq(blk_open(&rig.config, &rig.env, &rig.blk, rig.why, sizeof(rig.why)), 0);
        blk_close(rig.blk);
        rig.blk = NULL;
    }
    if (getuid() == 0)
        ck_assert_int_eq(seteuid(0), 0);
}
END_TEST

/* A file of sysfs has a size and can be locked, but has no direct I/O. */
START_TEST(test_blk_open_without_direct_io_says_so)
{
    rig.config.path = "/sys/kernel/mm/transparent_hugepage/enabled";
    rig.config.read_only = true;
    if (access(rig.config.path, R_OK) != 0) {
        printf("SKIP: %s is not there\n", rig.config.path);
        return;
    }
    rig.config.direct = true;
    refused(EINVAL, "leave direct out");
}
END_TEST

/* Before Linux 6.1 nobody says what direct I/O wants: it is tried. */
START_TEST(test_blk_open_direct_on_an_old_kernel_finds_the_block_size)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_statx, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = ARRAY_LEN(filter), .filter = filter};
    ck_assert_int_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    ck_assert_int_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
    rig.config.direct = true;
    blk_rig_start(&rig, BLK_COMMON);
    ck_assert(blk_rig_stat(&rig).direct);
    ck_assert_uint_ge(blk_rig_stat(&rig).block_bytes, 512);
    struct fake_buffer data = {fake_memory_alloc(&rig.memory, 4096, 4096), 4096};
    ck_assert_uint_eq(blk_rig_request(&rig, VIRTIO_BLK_T_OUT, 0, &data, 1), VIRTIO_BLK_S_OK);
    ck_assert_uint_eq(blk_rig_stat(&rig).nr_bounced_windows, 0);
}
END_TEST

/* A loop device over the file, or -1. */
static int loop_device(char *name, size_t name_bytes)
{
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC), number = -1, file = open(rig.path, O_RDWR | O_CLOEXEC);
    if (control >= 0)
        number = ioctl(control, LOOP_CTL_GET_FREE);
    snprintf(name, name_bytes, "/dev/loop%d", number);
    int device = number < 0 ? -1 : open(name, O_RDWR | O_CLOEXEC);
    if (device >= 0 && ioctl(device, LOOP_SET_FD, file) != 0) {
        close(device);
        device = -1;
    }
    close(control);
    close(file);
    return device;
}

/* _i: direct. */
START_TEST(test_blk_block_device_is_a_disk)
{
    char name[32], data[4096], zeros[4096] = "";
    struct virtio_blk_discard_write_zeroes range = {64, 8, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP};
    uint8_t status[5];
    int device = loop_device(name, sizeof(name));
    if (device < 0) {
        printf("SKIP: loop devices need root, and a free one\n");
        return;
    }
    rig.config.path = name;
    rig.config.direct = _i;
    blk_rig_start(&rig, BLK_COMMON);
    struct fake_buffer buffer = {fake_memory_alloc(&rig.memory, 4096, 4096), 4096}, ranges = buffer_of(16);
    rig_fill(data, sizeof(data), 9);
    memcpy(blk_rig_at(&rig, buffer.gpa, 4096), data, sizeof(data));
    memcpy(blk_rig_at(&rig, ranges.gpa, 16), &range, 16);
    status[0] = blk_rig_request(&rig, VIRTIO_BLK_T_OUT, 8, &buffer, 1);
    status[1] = blk_rig_request(&rig, VIRTIO_BLK_T_WRITE_ZEROES, 0, &ranges, 1);
    range.sector = 128;
    range.flags = 0;
    memcpy(blk_rig_at(&rig, ranges.gpa, 16), &range, 16);
    status[2] = blk_rig_request(&rig, VIRTIO_BLK_T_WRITE_ZEROES, 0, &ranges, 1);
    range.sector = 256;
    memcpy(blk_rig_at(&rig, ranges.gpa, 16), &range, 16);
    status[3] = blk_rig_request(&rig, VIRTIO_BLK_T_DISCARD, 0, &ranges, 1);
    status[4] = blk_rig_request(&rig, VIRTIO_BLK_T_FLUSH, 0, NULL, 0);
    struct blk_stat stat = blk_rig_stat(&rig);
    blk_rig_stop(&rig);
    int gone = ioctl(device, LOOP_CLR_FD); /* before anything is asserted: it must not stay */
    close(device);
    ck_assert_int_eq(gone, 0);
    for (unsigned i = 0; i < ARRAY_LEN(status); i++)
        ck_assert_msg(status[i] == VIRTIO_BLK_S_OK, "request %u", i);
    ck_assert_uint_eq(stat.capacity_bytes, FILE_BYTES);
    ck_assert(blk_rig_file_has(&rig, 8 * RIG_SECTOR, data, sizeof(data)));
    ck_assert(blk_rig_file_has(&rig, 64 * RIG_SECTOR, zeros, sizeof(zeros)));
    ck_assert(blk_rig_file_has(&rig, 128 * RIG_SECTOR, zeros, sizeof(zeros)));
    ck_assert(blk_rig_file_untouched(&rig, 16 * RIG_SECTOR, 64 * RIG_SECTOR));
    ck_assert(blk_rig_file_untouched(&rig, 136 * RIG_SECTOR, 256 * RIG_SECTOR));
    ck_assert(blk_rig_file_untouched(&rig, 264 * RIG_SECTOR, FILE_BYTES));
}
END_TEST

START_TEST(test_blk_open_a_file_above_the_size_limit_is_refused)
{
    struct rlimit limit = {.rlim_cur = FILE_BYTES - 1, .rlim_max = RLIM_INFINITY};
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = FILE_BYTES - 1;
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    refused(EFBIG, "ulimit -f");
}
END_TEST

START_TEST(test_blk_open_without_memory_leaves_nothing)
{
    struct blk *blk = NULL;
    long n;
    rig.config.direct = true;
    for (n = 1;; n++) {
        fail_alloc_at(n);
        int err = blk_open(&rig.config, &rig.env, &blk, rig.why, sizeof(rig.why));
        bool failed = fail_alloc_fired();
        fail_alloc_at(-1);
        if (!failed) {
            ck_assert_int_eq(err, 0);
            break;
        }
        ck_assert_int_eq(err, -ENOMEM);
        ck_assert_ptr_nonnull(strstr(rig.why, "no room for a disk"));
    }
    blk_close(blk);
    ck_assert_int_ge(n, 5);
}
END_TEST

START_TEST(test_blk_open_without_descriptors_leaves_nothing)
{
    struct rlimit limit;
    int top = dup(0);
    close(top);
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = (rlim_t)top + 1; /* the file itself, and no more */
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    refused(EMFILE, "ulimit -n");
}
END_TEST

/* --- the host fails --------------------------------------------------------------------------------- */

/* _i: plain calls. */
START_TEST(test_blk_file_made_shorter_gives_io_errors_told_once)
{
    rig.config.no_uring = _i;
    blk_rig_start(&rig, BLK_COMMON);
    struct fake_buffer data = buffer_of(4096);
    ck_assert_int_eq(truncate(rig.path, 8192), 0);
    ck_assert_uint_eq(blk_rig_request(&rig, VIRTIO_BLK_T_IN, 16, &data, 1), VIRTIO_BLK_S_IOERR);
    ck_assert_uint_eq(rig.written_bytes, 0);
    ck_assert_uint_eq(blk_rig_request(&rig, VIRTIO_BLK_T_IN, 12, &data, 1), VIRTIO_BLK_S_IOERR);
    ck_assert_uint_eq(rig.written_bytes, 0);
    struct blk_stat stat = blk_rig_stat(&rig);
    ck_assert_uint_eq(stat.nr_errors, 2);
    ck_assert_uint_eq(stat.nr_bad + stat.nr_reads, 0);
    ck_assert_int_eq(stat.first_error, EIO);
    ck_assert_uint_eq(rig.nr_told, 1);
    ck_assert_ptr_nonnull(strstr(rig.told, "disk0: read at byte 8192"));
    ck_assert_uint_eq(blk_rig_request(&rig, VIRTIO_BLK_T_IN, 8, &data, 1), VIRTIO_BLK_S_OK);
}
END_TEST

/* _i: plain calls. The limit comes after the disk was opened, in the middle of the second write. */
START_TEST(test_blk_write_beyond_the_size_limit_is_an_io_error)
{
    struct rlimit limit;
    rig.config.no_uring = _i;
    signal(SIGXFSZ, SIG_IGN);
    blk_rig_start(&rig, BLK_COMMON);
    struct fake_buffer data = buffer_of(8192);
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = 65536;
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    ck_assert_uint_eq(blk_rig_request(&rig, VIRTIO_BLK_T_OUT, 112, &data, 1), VIRTIO_BLK_S_OK);
    ck_assert_uint_eq(blk_rig_request(&rig, VIRTIO_BLK_T_OUT, 120, &data, 1), VIRTIO_BLK_S_IOERR);
    ck_assert_uint_eq(blk_rig_request(&rig, VIRTIO_BLK_T_OUT, 512, &data, 1), VIRTIO_BLK_S_IOERR);
    ck_assert_int_eq(blk_rig_stat(&rig).first_error, EFBIG);
    ck_assert_uint_eq(blk_rig_stat(&rig).nr_errors, 2);
    ck_assert(blk_rig_file_untouched(&rig, 136 * RIG_SECTOR, FILE_BYTES));
}
END_TEST

/* A sparse file on a file system without room for it. */
START_TEST(test_blk_full_host_is_an_io_error)
{
    char where[128];
    strcpy(where, rig.folder);
    if (geteuid() != 0 || mount("ebb-test", where, "tmpfs", 0, "size=64k") != 0) {
        printf("SKIP: mounting a tmpfs needs root\n");
        return;
    }
    int fd = open(rig.path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    int err = fd < 0 ? errno : ftruncate(fd, (off_t)FILE_BYTES);
    close(fd);
    blk_rig_start(&rig, BLK_COMMON);
    struct fake_buffer data = buffer_of(128 << 10);
    uint8_t status = blk_rig_request(&rig, VIRTIO_BLK_T_OUT, 8, &data, 1);
    struct blk_stat stat = blk_rig_stat(&rig);
    blk_rig_stop(&rig);
    int gone = umount2(where, MNT_DETACH); /* before anything is asserted: it must not stay */
    ck_assert_int_eq(err, 0);
    ck_assert_int_eq(gone, 0);
    ck_assert_uint_eq(status, VIRTIO_BLK_S_IOERR);
    ck_assert_int_eq(stat.first_error, ENOSPC);
}
END_TEST

/* --- the guest's mistakes ---------------------------------------------------------------------------- */

struct mistake {
    uint32_t type;
    uint64_t sector;
    uint32_t out_bytes, in_bytes; /* beside header and status */
    uint8_t status;
};

static const struct mistake mistakes[] = {
    {VIRTIO_BLK_T_IN, LAST_SECTOR + 1, 0, 512, VIRTIO_BLK_S_IOERR},
    {VIRTIO_BLK_T_IN, LAST_SECTOR, 0, 1024, VIRTIO_BLK_S_IOERR},
    {VIRTIO_BLK_T_IN, UINT64_MAX, 0, 512, VIRTIO_BLK_S_IOERR},
    {VIRTIO_BLK_T_IN, UINT64_MAX / 512 + 1, 0, 512, VIRTIO_BLK_S_IOERR},
    {VIRTIO_BLK_T_IN, 0, 0, 511, VIRTIO_BLK_S_IOERR},
    {VIRTIO_BLK_T_IN, 0, 0, 513, VIRTIO_BLK_S_IOERR},
    {VIRTIO_BLK_T_IN, 0, 512, 512, VIRTIO_BLK_S_IOERR},
    {VIRTIO_BLK_T_IN, 0, 512, 0, VIRTIO_BLK_S_IOERR},
    {VIRTIO_BLK_T_OUT, LAST_SECTOR + 1, 512, 0, VIRTIO_BLK_S_IOERR},
    {VIRTIO_BLK_T_OUT, LAST_SECTOR, 1024, 0, VIRTIO_BLK_S_IOERR},
    {VIRTIO_BLK_T_OUT, UINT64_MAX - 1, 1024, 0, VIRTIO_BLK_S_IOERR},
    {VIRTIO_BLK_T_OUT, 0, 100, 0, VIRTIO_BLK_S_IOERR},
    {VIRTIO_BLK_T_OUT, 0, 512, 512, VIRTIO_BLK_S_IOERR},
    {VIRTIO_BLK_T_OUT, 0, 0, 512, VIRTIO_BLK_S_IOERR},
    {VIRTIO_BLK_T_FLUSH, 0, 0, 1, VIRTIO_BLK_S_IOERR},
    {VIRTIO_BLK_T_GET_ID, 0, 0, 0, VIRTIO_BLK_S_IOERR},
    {VIRTIO_BLK_T_DISCARD, 0, 0, 0, VIRTIO_BLK_S_IOERR},
    {VIRTIO_BLK_T_DISCARD, 0, 15, 0, VIRTIO_BLK_S_IOERR},
    {VIRTIO_BLK_T_DISCARD, 0, 17 * 16, 0, VIRTIO_BLK_S_IOERR},
    {VIRTIO_BLK_T_DISCARD, 0, 16, 16, VIRTIO_BLK_S_IOERR},
    {VIRTIO_BLK_T_WRITE_ZEROES, 0, 0, 16, VIRTIO_BLK_S_IOERR},
    {VIRTIO_BLK_T_SCSI_CMD, 0, 0, 512, VIRTIO_BLK_S_UNSUPP},
    {3, 0, 512, 0, VIRTIO_BLK_S_UNSUPP},
    {10, 0, 0, 24, VIRTIO_BLK_S_UNSUPP},
    {VIRTIO_BLK_T_SECURE_ERASE, 0, 16, 0, VIRTIO_BLK_S_UNSUPP},
    {VIRTIO_BLK_T_BARRIER | VIRTIO_BLK_T_OUT, 0, 512, 0, VIRTIO_BLK_S_UNSUPP},
    {UINT32_MAX, 0, 512, 512, VIRTIO_BLK_S_UNSUPP},
};

/* A header of @header_bytes, then what @m says. */
static uint8_t ask(const struct mistake *m, uint32_t header_bytes)
{
    struct fake_buffer chain[4] = {{rig.header, header_bytes}}, data = buffer_of(1024);
    unsigned nr = 1, nr_out;
    blk_rig_header(&rig, rig.header, m->type, m->sector);
    if (m->out_bytes)
        chain[nr++] = (struct fake_buffer){data.gpa, m->out_bytes};
    nr_out = nr;
    if (m->in_bytes)
        chain[nr++] = (struct fake_buffer){data.gpa, m->in_bytes};
    chain[nr++] = (struct fake_buffer){rig.status, 1};
    return blk_rig_chain(&rig, 0, chain, nr_out, nr - nr_out, rig.status);
}

START_TEST(test_blk_mistakes_are_answered_and_counted)
{
    blk_rig_start(&rig, BLK_COMMON);
    for (unsigned i = 0; i < ARRAY_LEN(mistakes); i++) {
        ck_assert_msg(ask(&mistakes[i], 16) == mistakes[i].status, "mistake %u", i);
        ck_assert_uint_eq(rig.written_bytes, mistakes[i].in_bytes ? 0 : 1);
        ck_assert_uint_eq(blk_rig_stat(&rig).nr_bad, i + 1);
    }
    ck_assert_uint_eq(ask(&(struct mistake){.in_bytes = 512}, 15), VIRTIO_BLK_S_IOERR);
    ck_assert_uint_eq(blk_rig_stat(&rig).nr_errors, 0);
    ck_assert(blk_rig_file_untouched(&rig, 0, FILE_BYTES));
    ck_assert_uint_eq(ask(&(struct mistake){VIRTIO_BLK_T_IN, LAST_SECTOR, 0, 512, 0}, 16), VIRTIO_BLK_S_OK);
    ck_assert_uint_eq(ask(&(struct mistake){VIRTIO_BLK_T_IN, LAST_SECTOR + 1, 0, 0, 0}, 16), VIRTIO_BLK_S_OK);
}
END_TEST

struct bad_ranges {
    uint32_t type;
    unsigned nr;
    struct virtio_blk_discard_write_zeroes ranges[2];
    uint8_t status;
};

static const struct bad_ranges bad_ranges[] = {
    {VIRTIO_BLK_T_DISCARD, 1, {{0, 8, 1}}, VIRTIO_BLK_S_UNSUPP},
    {VIRTIO_BLK_T_DISCARD, 1, {{0, 8, 2}}, VIRTIO_BLK_S_UNSUPP},
    {VIRTIO_BLK_T_WRITE_ZEROES, 1, {{0, 8, 2}}, VIRTIO_BLK_S_UNSUPP},
    {VIRTIO_BLK_T_WRITE_ZEROES, 1, {{0, 8, UINT32_MAX}}, VIRTIO_BLK_S_UNSUPP},
    {VIRTIO_BLK_T_DISCARD, 1, {{LAST_SECTOR, 2, 0}}, VIRTIO_BLK_S_IOERR},
    {VIRTIO_BLK_T_DISCARD, 1, {{UINT64_MAX, 8, 0}}, VIRTIO_BLK_S_IOERR},
    {VIRTIO_BLK_T_DISCARD, 1, {{0, UINT32_MAX, 0}}, VIRTIO_BLK_S_IOERR},
    {VIRTIO_BLK_T_DISCARD, 2, {{0, 8, 0}, {LAST_SECTOR + 1, 1, 0}}, VIRTIO_BLK_S_IOERR},
    {VIRTIO_BLK_T_WRITE_ZEROES, 2, {{0, 8, 1}, {8, 8, 4}}, VIRTIO_BLK_S_UNSUPP},
};

START_TEST(test_blk_one_bad_range_and_nothing_is_done)
{
    blk_rig_start(&rig, BLK_COMMON);
    struct fake_buffer data = buffer_of(32);
    for (unsigned i = 0; i < ARRAY_LEN(bad_ranges); i++) {
        const struct bad_ranges *bad = &bad_ranges[i];
        data.bytes = 16 * bad->nr;
        memcpy(blk_rig_at(&rig, data.gpa, 32), bad->ranges, sizeof(bad->ranges));
        ck_assert_msg(blk_rig_request(&rig, bad->type, 0, &data, 1) == bad->status, "ranges %u", i);
    }
    ck_assert(blk_rig_file_untouched(&rig, 0, FILE_BYTES));
    ck_assert_uint_eq(blk_rig_stat(&rig).nr_bad, ARRAY_LEN(bad_ranges));
}
END_TEST

/* _i: read-only; otherwise nothing was negotiated. */
START_TEST(test_blk_what_was_not_offered_is_refused)
{
    rig.config.read_only = _i;
    blk_rig_start(&rig, _i ? BLK_COMMON : 0);
    struct fake_buffer data = buffer_of(512);
    data.bytes = 16;
    ck_assert_uint_eq(blk_rig_request(&rig, VIRTIO_BLK_T_DISCARD, 0, &data, 1), VIRTIO_BLK_S_UNSUPP);
    ck_assert_uint_eq(blk_rig_request(&rig, VIRTIO_BLK_T_WRITE_ZEROES, 0, &data, 1), VIRTIO_BLK_S_UNSUPP);
    data.bytes = 512;
    if (_i) {
        ck_assert_uint_eq(blk_rig_request(&rig, VIRTIO_BLK_T_OUT, 0, &data, 1), VIRTIO_BLK_S_IOERR);
        ck_assert(blk_rig_file_untouched(&rig, 0, FILE_BYTES));
    }
    ck_assert_uint_eq(blk_rig_request(&rig, VIRTIO_BLK_T_IN, 0, &data, 1), VIRTIO_BLK_S_OK);
    ck_assert_uint_eq(blk_rig_request(&rig, VIRTIO_BLK_T_FLUSH, 0, NULL, 0), VIRTIO_BLK_S_OK);
}
END_TEST

/* While others are under way: their pins and their places come back, and after a reset the disk is as new. */
START_TEST(test_blk_chain_without_status_needs_reset)
{
    blk_rig_start(&rig, BLK_COMMON);
    struct fake_buffer data = buffer_of(4096);
    struct fake_buffer good[] = {{rig.header, 16}, data, {rig.status, 1}}, bad[] = {{rig.header, 16}, data};
    blk_rig_header(&rig, rig.header, VIRTIO_BLK_T_IN, 8);
    for (unsigned i = 0; i < 5; i++)
        ck_assert_int_eq(fake_driver_add(&rig.driver, 0, good, 1, 2, true, NULL), 0);
    ck_assert_int_eq(fake_driver_add(&rig.driver, 0, bad, 2, 0, true, NULL), 0);
    ck_assert_int_eq(fake_driver_add(&rig.driver, 0, good, 1, 2, true, NULL), 0);
    fake_driver_kick(&rig.driver, 0);
    blk_rig_turn(&rig);
    for (unsigned i = 0; blk_rig_stat(&rig).nr_busy > 0; i++) {
        ck_assert_uint_lt(i, 100);
        loop_turn(rig.loop, RIG_TURN_MS);
    }
    ck_assert(fake_driver_status(&rig.driver) & VIRTIO_CONFIG_S_NEEDS_RESET);
    ck_assert_uint_eq(blk_rig_stat(&rig).nr_bad, 1);
    ck_assert_int_eq(fake_driver_start(&rig.driver, BLK_COMMON, 0), 0);
    ck_assert_uint_eq(blk_rig_request(&rig, VIRTIO_BLK_T_IN, 8, &data, 1), VIRTIO_BLK_S_OK);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("blk_errors");
    TCase *tcase = tcase_create("blk_errors");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_blk_open_what_is_no_disk_is_refused_with_a_reason);
    tcase_add_loop_test(tcase, test_blk_open_a_file_that_may_only_be_read_says_readonly, 0, 2);
    tcase_add_test(tcase, test_blk_open_without_direct_io_says_so);
    tcase_add_test(tcase, test_blk_open_direct_on_an_old_kernel_finds_the_block_size);
    tcase_add_loop_test(tcase, test_blk_block_device_is_a_disk, 0, 2);
    tcase_add_test(tcase, test_blk_open_a_file_above_the_size_limit_is_refused);
    tcase_add_test(tcase, test_blk_open_without_memory_leaves_nothing);
    tcase_add_test(tcase, test_blk_open_without_descriptors_leaves_nothing);
    tcase_add_loop_test(tcase, test_blk_file_made_shorter_gives_io_errors_told_once, 0, 2);
    tcase_add_loop_test(tcase, test_blk_write_beyond_the_size_limit_is_an_io_error, 0, 2);
    tcase_add_test(tcase, test_blk_full_host_is_an_io_error);
    tcase_add_test(tcase, test_blk_mistakes_are_answered_and_counted);
    tcase_add_test(tcase, test_blk_one_bad_range_and_nothing_is_done);
    tcase_add_loop_test(tcase, test_blk_what_was_not_offered_is_refused, 0, 2);
    tcase_add_test(tcase, test_blk_chain_without_status_needs_reset);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
