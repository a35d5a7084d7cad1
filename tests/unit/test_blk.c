/* SPDX-License-Identifier: Apache-2.0 */
/* What a driver that keeps to the rules gets: every request, any layout, all rings, several queues, resets. */
#include "tests/unit/blk_rig.h"

#include <sys/stat.h>
#include <sys/vfs.h>
#include <linux/magic.h>

#define FILE_BYTES (UINT64_C(1) << 20)
#define MEMORY_BYTES (UINT64_C(24) << 20)

static struct blk_rig rig;

static void setup(void)
{
    blk_rig_init(&rig, NULL, FILE_BYTES, MEMORY_BYTES);
}

static void teardown(void)
{
    blk_rig_fini(&rig);
}

static struct fake_buffer buffer_of(uint64_t bytes, uint64_t align)
{
    return (struct fake_buffer){fake_memory_alloc(&rig.memory, bytes, align), (uint32_t)bytes};
}

static uint8_t *at(struct fake_buffer buffer)
{
    return blk_rig_at(&rig, buffer.gpa, buffer.bytes);
}

static bool is_zero(const void *bytes, uint64_t nr)
{
    const char *p = bytes;
    return nr == 0 || (p[0] == 0 && memcmp(p, p + 1, nr - 1) == 0);
}

static uint64_t file_blocks(void)
{
    struct stat st;
    ck_assert_int_eq(stat(rig.path, &st), 0);
    return (uint64_t)st.st_blocks;
}

/* _i: split, packed / event index / indirect / direct / plain calls. */
START_TEST(test_blk_what_was_written_is_read)
{
    uint64_t features = (_i & 1 ? PACKED : 0) | (_i & 2 ? EVENT_IDX : 0) | (_i & 4 ? INDIRECT : 0);
    rig.config.direct = _i & 8;
    rig.config.no_uring = _i & 16;
    blk_rig_start(&rig, features | BLK_FEATURE(FLUSH));
    struct fake_buffer out[3] = {buffer_of(4096, 4096), buffer_of(8192, 4096), buffer_of(4096, 4096)}, in[2];
    in[0] = buffer_of(8192, 4096);
    in[1] = buffer_of(8192, 4096);
    for (unsigned round = 0; round < 3; round++) {
        uint64_t sector = 8 + 64 * round;
        for (unsigned i = 0; i < 3; i++)
            rig_fill((char *)at(out[i]), out[i].bytes, round * 3 + i);
        ck_assert_uint_eq(blk_rig_request(&rig, VIRTIO_BLK_T_OUT, sector, out, 3), VIRTIO_BLK_S_OK);
        ck_assert_uint_eq(rig.written_bytes, 1);
        ck_assert_uint_eq(blk_rig_request(&rig, VIRTIO_BLK_T_FLUSH, 0, NULL, 0), VIRTIO_BLK_S_OK);
        ck_assert_uint_eq(blk_rig_request(&rig, VIRTIO_BLK_T_IN, sector, in, 2), VIRTIO_BLK_S_OK);
        ck_assert_uint_eq(rig.written_bytes, 16385);
        ck_assert_mem_eq(at(in[0]), at(out[0]), 4096);
        ck_assert_mem_eq(at(in[0]) + 4096, at(out[1]), 4096);
        ck_assert_mem_eq(at(in[1]), at(out[1]) + 4096, 4096);
        ck_assert_mem_eq(at(in[1]) + 4096, at(out[2]), 4096);
        ck_assert(blk_rig_file_has(&rig, sector * RIG_SECTOR, at(out[0]), 4096));
        ck_assert(blk_rig_file_untouched(&rig, (sector + 32) * RIG_SECTOR, (sector + 64) * RIG_SECTOR));
    }
    struct blk_stat stat = blk_rig_stat(&rig);
    ck_assert_uint_eq(stat.nr_reads, 3);
    ck_assert_uint_eq(stat.nr_writes, 3);
    ck_assert_uint_eq(stat.nr_flushes, 3);
    ck_assert_uint_eq(stat.nr_syncs, 3);
    ck_assert_uint_eq(stat.read_bytes, 3 * 16384);
    ck_assert_uint_eq(stat.written_bytes, 3 * 16384);
    ck_assert_uint_eq(stat.nr_errors + stat.nr_bad + stat.nr_bounced_windows + stat.nr_busy, 0);
    ck_assert(stat.direct == !!(_i & 8) && (stat.nr_submits > 0) == stat.uring && (!stat.uring || !(_i & 16)));
    ck_assert_uint_ge(fake_driver_interrupts(&rig.driver), VIRTIO_INT_USED);
}
END_TEST

/* Header in parts, header and data in one, data and status in one, segments of nothing. _i: direct. */
START_TEST(test_blk_odd_layout_is_the_same_request)
{
    rig.config.direct = _i;
    blk_rig_start(&rig, BLK_COMMON);
    gpa_t area = fake_memory_alloc(&rig.memory, 8192, 4096);
    char *bytes = blk_rig_at(&rig, area, 8192), data[1024];
    rig_fill(data, sizeof(data), 77);
    blk_rig_header(&rig, area, VIRTIO_BLK_T_OUT, 3);
    memcpy(bytes + 16, data, sizeof(data));
    struct fake_buffer out[] = {{area, 1},           {{area.v + 1}, 7},     {{area.v + 8}, 0},
                                {{area.v + 8}, 108}, {{area.v + 116}, 924}, {rig.status, 1}};
    ck_assert_uint_eq(blk_rig_chain(&rig, 0, out, 5, 1, rig.status), VIRTIO_BLK_S_OK);
    ck_assert(blk_rig_file_has(&rig, 3 * RIG_SECTOR, data, sizeof(data)));
    ck_assert(blk_rig_file_untouched(&rig, 0, 3 * RIG_SECTOR));
    ck_assert(blk_rig_file_untouched(&rig, 5 * RIG_SECTOR, 16 * RIG_SECTOR));

    blk_rig_header(&rig, area, VIRTIO_BLK_T_IN, 3);
    struct fake_buffer in[] = {{area, 16}, {{area.v + 16}, 0}, {{area.v + 1000}, 3}, {{area.v + 2000}, 1022}};
    gpa_t status = {area.v + 2000 + 1021};
    memset(bytes + 900, 0, 4000);
    ck_assert_uint_eq(blk_rig_chain(&rig, 0, in, 1, 3, status), VIRTIO_BLK_S_OK);
    ck_assert_uint_eq(rig.written_bytes, 1025);
    ck_assert_mem_eq(bytes + 1000, data, 3);
    ck_assert_mem_eq(bytes + 2000, data + 3, 1021);
    ck_assert(is_zero(bytes + 1003, 997) && is_zero(bytes + 3022, 1000));
    ck_assert_uint_eq(blk_rig_stat(&rig).nr_bounced_windows, _i ? 2 : 0);
}
END_TEST

/* More than a window, and in direct mode more than the bounce buffer. */
START_TEST(test_blk_large_request_goes_in_windows)
{
    uint64_t bytes = UINT64_C(6) << 20;
    rig.config.direct = _i & 1;
    ck_assert_int_eq(truncate(rig.path, (off_t)(8 << 20)), 0);
    blk_rig_start(&rig, BLK_COMMON);
    /* An odd start: direct I/O cannot take it as it is. */
    struct fake_buffer whole = buffer_of(bytes + 4096, 4096), data[3];
    uint64_t start = whole.gpa.v + (_i & 2 ? 100 : 0);
    data[0] = (struct fake_buffer){{start}, 3 << 20};
    data[1] = (struct fake_buffer){{start + (3 << 20)}, 1 << 20};
    data[2] = (struct fake_buffer){{start + (4 << 20)}, 2 << 20};
    char *hva = blk_rig_at(&rig, (gpa_t){start}, bytes), *want = malloc(bytes);
    rig_fill(want, bytes, 5);
    memcpy(hva, want, bytes);
    ck_assert_uint_eq(blk_rig_request(&rig, VIRTIO_BLK_T_OUT, 16, data, 3), VIRTIO_BLK_S_OK);
    ck_assert(blk_rig_file_has(&rig, 16 * RIG_SECTOR, want, bytes));
    memset(hva, 0, bytes);
    ck_assert_uint_eq(blk_rig_request(&rig, VIRTIO_BLK_T_IN, 16, data, 3), VIRTIO_BLK_S_OK);
    ck_assert_mem_eq(hva, want, bytes);
    struct blk_stat stat = blk_rig_stat(&rig);
    ck_assert_uint_eq(stat.nr_windows, _i == 3 ? 48 : 4);
    ck_assert_uint_eq(stat.nr_bounced_windows, _i == 3 ? 48 : 0);
    free(want);
}
END_TEST

START_TEST(test_blk_id_is_the_serial_or_the_end_of_the_path)
{
    struct fake_buffer id = buffer_of(32, 1);
    const char *name = strrchr(rig.path, '/') + 1;
    char want[VIRTIO_BLK_ID_BYTES] = "";
    rig.config.id = _i == 0 ? "serial" : _i == 1 ? "" : "a serial that is longer than the field";
    blk_rig_start(&rig, BLK_COMMON);
    const char *id_text = _i == 1 ? name : rig.config.id;
    memcpy(want, id_text, strnlen(id_text, sizeof(want)));
    id.bytes = 20;
    ck_assert_uint_eq(blk_rig_request(&rig, VIRTIO_BLK_T_GET_ID, 0, &id, 1), VIRTIO_BLK_S_OK);
    ck_assert_uint_eq(rig.written_bytes, 21);
    ck_assert_mem_eq(at(id), want, 20);
    id.bytes = 32;
    memset(at(id), 'x', 32);
    ck_assert_uint_eq(blk_rig_request(&rig, VIRTIO_BLK_T_GET_ID, 0, &id, 1), VIRTIO_BLK_S_OK);
    ck_assert_uint_eq(rig.written_bytes, 20);
    ck_assert_int_eq(at(id)[20], 'x');
    id.bytes = 19;
    ck_assert_uint_eq(blk_rig_request(&rig, VIRTIO_BLK_T_GET_ID, 0, &id, 1), VIRTIO_BLK_S_IOERR);
    ck_assert_uint_eq(blk_rig_stat(&rig).nr_ids, 2);
}
END_TEST

static void put_ranges(struct fake_buffer buffer, const struct virtio_blk_discard_write_zeroes *ranges)
{
    memcpy(at(buffer), ranges, buffer.bytes);
}

START_TEST(test_blk_discard_makes_holes)
{
    struct virtio_blk_discard_write_zeroes ranges[3] = {{128, 128, 0}, {512, 0, 0}, {1024, 256, 0}};
    char zeros[4096] = "";
    rig.config.no_uring = _i;
    blk_rig_start(&rig, BLK_COMMON);
    struct fake_buffer data = buffer_of(sizeof(ranges), 1);
    uint64_t before = file_blocks();
    put_ranges(data, ranges);
    ck_assert_uint_eq(blk_rig_request(&rig, VIRTIO_BLK_T_DISCARD, 0, &data, 1), VIRTIO_BLK_S_OK);
    ck_assert_uint_le(file_blocks() + 384, before);
    ck_assert(blk_rig_file_has(&rig, 128 * RIG_SECTOR, zeros, sizeof(zeros)));
    ck_assert(blk_rig_file_has(&rig, 1272 * RIG_SECTOR, zeros, sizeof(zeros)));
    ck_assert(blk_rig_file_untouched(&rig, 0, 128 * RIG_SECTOR));
    ck_assert(blk_rig_file_untouched(&rig, 256 * RIG_SECTOR, 1024 * RIG_SECTOR));
    ck_assert(blk_rig_file_untouched(&rig, 1280 * RIG_SECTOR, FILE_BYTES));
    struct blk_stat stat = blk_rig_stat(&rig);
    ck_assert_uint_eq(stat.nr_discards, 1);
    ck_assert_uint_eq(stat.discarded_bytes, 384 * RIG_SECTOR);
}
END_TEST

/* _i: unmap, plain calls. */
START_TEST(test_blk_write_zeroes_gives_zeros_and_unmaps_when_it_may)
{
    struct virtio_blk_discard_write_zeroes ranges[2] = {{64, 128, 0}, {1001, 3, 0}};
    char *zeros = calloc(1, 128 * RIG_SECTOR);
    rig.config.no_uring = _i & 2;
    blk_rig_start(&rig, BLK_COMMON);
    struct fake_buffer data = buffer_of(sizeof(ranges), 1);
    uint64_t before = file_blocks();
    for (unsigned i = 0; i < 2; i++)
        ranges[i].flags = _i & 1;
    put_ranges(data, ranges);
    ck_assert_uint_eq(blk_rig_request(&rig, VIRTIO_BLK_T_WRITE_ZEROES, 0, &data, 1), VIRTIO_BLK_S_OK);
    ck_assert_uint_eq(blk_rig_request(&rig, VIRTIO_BLK_T_FLUSH, 0, NULL, 0), VIRTIO_BLK_S_OK);
    if (_i & 1)
        ck_assert_uint_le(file_blocks() + 128, before);
    else
        ck_assert_uint_ge(file_blocks(), before);
    ck_assert(blk_rig_file_has(&rig, 64 * RIG_SECTOR, zeros, 128 * RIG_SECTOR));
    ck_assert(blk_rig_file_has(&rig, 1001 * RIG_SECTOR, zeros, 3 * RIG_SECTOR));
    ck_assert(blk_rig_file_untouched(&rig, 0, 64 * RIG_SECTOR));
    ck_assert(blk_rig_file_untouched(&rig, 192 * RIG_SECTOR, 1001 * RIG_SECTOR));
    ck_assert(blk_rig_file_untouched(&rig, 1004 * RIG_SECTOR, FILE_BYTES));
    ck_assert_uint_eq(blk_rig_stat(&rig).zeroed_bytes, 131 * RIG_SECTOR);
    free(zeros);
}
END_TEST

/* tmpfs has holes but no zeroed extents: zeros are written. More than one vector of them. */
START_TEST(test_blk_write_zeroes_without_the_hosts_help_writes_them)
{
    struct virtio_blk_discard_write_zeroes range = {1, 12000, 0};
    struct statfs fs;
    if (statfs("/dev/shm", &fs) != 0 || fs.f_type != TMPFS_MAGIC) {
        printf("SKIP: /dev/shm is no tmpfs\n");
        return;
    }
    blk_rig_fini(&rig);
    blk_rig_init(&rig, "/dev/shm", UINT64_C(8) << 20, MEMORY_BYTES);
    blk_rig_start(&rig, BLK_COMMON);
    char *zeros = calloc(12000, RIG_SECTOR);
    struct fake_buffer data = buffer_of(sizeof(range), 1);
    put_ranges(data, &range);
    for (unsigned i = 0; i < 2; i++) {
        ck_assert_uint_eq(blk_rig_request(&rig, VIRTIO_BLK_T_WRITE_ZEROES, 0, &data, 1), VIRTIO_BLK_S_OK);
        ck_assert(blk_rig_file_has(&rig, RIG_SECTOR, zeros, 12000 * RIG_SECTOR));
        ck_assert(blk_rig_file_untouched(&rig, 0, RIG_SECTOR));
        ck_assert(blk_rig_file_untouched(&rig, 12001 * RIG_SECTOR, UINT64_C(8) << 20));
    }
    ck_assert_uint_eq(blk_rig_stat(&rig).zeroed_bytes, 2 * 12000 * RIG_SECTOR);
    ck_assert_uint_eq(blk_rig_stat(&rig).nr_errors, 0);
    free(zeros);
}
END_TEST

START_TEST(test_blk_without_flush_or_cache_every_write_is_synced)
{
    uint8_t wce = 1;
    unsigned place = offsetof(struct virtio_blk_config, wce);
    blk_rig_start(&rig, _i ? BLK_FEATURE(FLUSH) | BLK_FEATURE(CONFIG_WCE) : 0);
    struct fake_buffer data = buffer_of(512, 512);
    fake_driver_config_read(&rig.driver, place, &wce, 1);
    ck_assert_uint_eq(wce, 1);
    if (_i) {
        ck_assert_uint_eq(blk_rig_request(&rig, VIRTIO_BLK_T_OUT, 0, &data, 1), VIRTIO_BLK_S_OK);
        ck_assert_uint_eq(blk_rig_stat(&rig).nr_syncs, 0);
        wce = 0;
        fake_driver_config_write(&rig.driver, place, &wce, 1);
        fake_driver_config_read(&rig.driver, place, &wce, 1);
        ck_assert_uint_eq(wce, 0);
    }
    ck_assert_uint_eq(blk_rig_request(&rig, VIRTIO_BLK_T_OUT, 0, &data, 1), VIRTIO_BLK_S_OK);
    ck_assert_uint_eq(blk_rig_stat(&rig).nr_syncs, 1);
    ck_assert_uint_eq(blk_rig_stat(&rig).nr_flushes, 0);
    fake_driver_reset(&rig.driver);
    fake_driver_config_read(&rig.driver, place, &wce, 1);
    ck_assert_uint_eq(wce, 1);
}
END_TEST

/* 5.2.5.2. A cache that nobody can flush would lose what a driver believes to be on the disk. */
START_TEST(test_blk_driver_that_cannot_flush_sees_no_cache_and_cannot_switch_it_on)
{
    uint8_t wce = 1;
    unsigned place = offsetof(struct virtio_blk_config, wce);
    blk_rig_start(&rig, BLK_FEATURE(CONFIG_WCE));
    struct fake_buffer data = buffer_of(512, 512);
    fake_driver_config_read(&rig.driver, place, &wce, 1);
    ck_assert_uint_eq(wce, 0);
    wce = 1;
    fake_driver_config_write(&rig.driver, place, &wce, 1);
    fake_driver_config_read(&rig.driver, place, &wce, 1);
    ck_assert_uint_eq(wce, 0);
    ck_assert_uint_eq(blk_rig_request(&rig, VIRTIO_BLK_T_OUT, 0, &data, 1), VIRTIO_BLK_S_OK);
    ck_assert_uint_eq(blk_rig_stat(&rig).nr_syncs, 1);
}
END_TEST

START_TEST(test_blk_configuration_says_what_the_disk_is)
{
    struct virtio_blk_config c;
    ck_assert_int_eq(truncate(rig.path, (off_t)FILE_BYTES + 700), 0);
    rig.config.nr_queues = _i ? 4 : 1;
    rig.config.read_only = _i;
    blk_rig_start(&rig, BLK_COMMON);
    uint64_t offered = fake_driver_offered(&rig.driver);
    fake_driver_config_read(&rig.driver, 0, &c, sizeof(c));
    ck_assert_uint_eq(c.capacity, FILE_BYTES / RIG_SECTOR + 1);
    ck_assert_uint_eq(c.seg_max, VIRTQ_MAX_SEGMENTS - 2);
    ck_assert_uint_eq(c.blk_size, 512);
    ck_assert_uint_eq(c.physical_block_exp, 3);
    ck_assert_uint_eq(c.num_queues, _i ? 4 : 1);
    ck_assert(!!(offered & BLK_FEATURE(MQ)) == _i && !!(offered & BLK_FEATURE(RO)) == _i);
    ck_assert(!!(offered & BLK_FEATURE(FLUSH)) == !_i && !!(offered & BLK_FEATURE(WRITE_ZEROES)) == !_i);
    ck_assert_uint_eq(c.max_write_zeroes_seg, _i ? 0 : 16);
    ck_assert_uint_eq(c.wce, !_i);
}
END_TEST

/* More chains than there are requests, over all queues: each comes back on its own queue. _i: plain calls. */
START_TEST(test_blk_more_chains_than_requests_all_come_back)
{
    enum { QUEUES = 3, CHAINS = 250 };
    struct fake_used used;
    unsigned nr[QUEUES] = {0}, all = 0;
    rig.config.nr_queues = QUEUES;
    rig.config.no_uring = _i;
    blk_rig_start(&rig, BLK_COMMON | BLK_FEATURE(MQ));
    uint8_t *statuses = blk_rig_at(&rig, fake_memory_alloc(&rig.memory, QUEUES * CHAINS, 1), QUEUES * CHAINS);
    gpa_t status_gpa = {rig.memory.next - QUEUES * CHAINS};
    struct fake_buffer area = buffer_of(QUEUES * CHAINS * 512, 512);
    memset(statuses, RIG_NO_STATUS, QUEUES * CHAINS);
    for (unsigned i = 0; i < QUEUES * CHAINS; i++) {
        gpa_t header = fake_memory_alloc(&rig.memory, 16, 16);
        blk_rig_header(&rig, header, i % 50 ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_FLUSH, i);
        struct fake_buffer chain[] = {{header, 16}, {{area.gpa.v + i * 512}, 512}, {{status_gpa.v + i}, 1}};
        if (i % 50 == 0)
            chain[1] = chain[2];
        ck_assert_int_eq(fake_driver_add(&rig.driver, i % QUEUES, chain, 1, i % 50 ? 2 : 1, true, &statuses[i]), 0);
    }
    for (unsigned i = 0; i < QUEUES; i++)
        fake_driver_kick(&rig.driver, i);
    while (all < QUEUES * CHAINS) {
        for (unsigned i = 0; i < QUEUES; i++)
            while (fake_driver_collect(&rig.driver, i, &used)) {
                ck_assert_uint_eq((unsigned)((uint8_t *)used.token - statuses) % QUEUES, i);
                ck_assert_uint_eq(*(uint8_t *)used.token, VIRTIO_BLK_S_OK);
                nr[i]++;
                all++;
            }
        if (all < QUEUES * CHAINS)
            blk_rig_turn(&rig);
    }
    for (unsigned i = 0; i < QUEUES; i++)
        ck_assert_uint_eq(nr[i], CHAINS);
    for (unsigned i = 0; i < QUEUES * CHAINS; i++) {
        char want[512];
        rig_fill(want, sizeof(want), i * 512);
        if (i % 50)
            ck_assert_mem_eq(at(area) + i * 512, want, sizeof(want));
    }
    ck_assert_uint_eq(blk_rig_stat(&rig).nr_busy, 0);
    /* The queues are asked for their next kick. */
    ck_assert_uint_eq(blk_rig_request(&rig, VIRTIO_BLK_T_FLUSH, 0, NULL, 0), VIRTIO_BLK_S_OK);
}
END_TEST

/* _i: direct, closed instead of reset. */
START_TEST(test_blk_reset_ends_what_is_under_way)
{
    rig.config.direct = _i & 1;
    blk_rig_start(&rig, BLK_COMMON);
    struct fake_buffer area = buffer_of(200 * 4096, 4096);
    for (unsigned round = 0; round < 20; round++) {
        for (unsigned i = 0; i < 200; i++) {
            /* Every second one cannot be taken directly, so they wait for the buffer. */
            struct fake_buffer chain[] = {{rig.header, 16}, {{area.gpa.v + i * 4096 + i % 2}, 4000}, {rig.status, 1}};
            chain[1].bytes = 3584;
            ck_assert_int_eq(fake_driver_add(&rig.driver, 0, chain, 2, 1, true, NULL), 0);
        }
        blk_rig_header(&rig, rig.header, round % 2 ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_FLUSH, 0);
        fake_driver_kick(&rig.driver, 0);
        ck_assert_int_eq(loop_turn(rig.loop, 0), 1);
        if (_i & 2)
            break;
        fake_driver_reset(&rig.driver);
        ck_assert_uint_eq(blk_rig_stat(&rig).nr_busy, 0);
        ck_assert_int_eq(fake_driver_start(&rig.driver, BLK_COMMON & fake_driver_offered(&rig.driver), 0), 0);
        ck_assert_uint_eq(blk_rig_request(&rig, VIRTIO_BLK_T_IN, round, &(struct fake_buffer){area.gpa, 512}, 1),
                          VIRTIO_BLK_S_OK);
    }
    blk_rig_stop(&rig);
}
END_TEST

/* Answers each answer with a new request, as a driver on another CPU can. */
static unsigned nr_again, nr_answers;

static void ask_again(void *transport, uint32_t bits)
{
    struct fake_buffer chain[] = {{rig.header, 16}, {{rig.header.v + 64}, 20}, {rig.status, 1}};
    struct fake_used used;
    (void)transport;
    (void)bits;
    for (; fake_driver_collect(&rig.driver, 0, &used); nr_answers++) {
        if (nr_again == 0)
            continue;
        nr_again--;
        ck_assert_int_eq(fake_driver_add(&rig.driver, 0, chain, 1, 2, true, NULL), 0);
    }
}

START_TEST(test_blk_busy_driver_leaves_the_loop_to_others)
{
    struct fake_buffer chain[] = {{{0}, 16}, {{0}, 20}, {{0}, 1}};
    blk_rig_start(&rig, BLK_COMMON);
    fake_memory_alloc(&rig.memory, 128, 1);
    rig.header = fake_memory_alloc(&rig.memory, 128, 16);
    chain[0].gpa = rig.header;
    chain[1].gpa.v = rig.header.v + 64;
    chain[2].gpa = rig.status;
    blk_rig_header(&rig, rig.header, VIRTIO_BLK_T_GET_ID, 0);
    blk_device(rig.blk)->interrupt = ask_again;
    nr_again = 40 * VIRTQ_MAX_SIZE;
    nr_answers = 0;
    for (unsigned i = 0; i < VIRTQ_MAX_SIZE; i++)
        ck_assert_int_eq(fake_driver_add(&rig.driver, 0, chain, 1, 2, true, NULL), 0);
    fake_driver_kick(&rig.driver, 0);
    blk_rig_turn(&rig);
    ck_assert_uint_lt(nr_answers, 20 * VIRTQ_MAX_SIZE);
    for (unsigned turns = 0; nr_answers < 41 * VIRTQ_MAX_SIZE; turns++) {
        ck_assert_uint_lt(turns, 5);
        blk_rig_turn(&rig);
    }
    ck_assert_uint_eq(blk_rig_stat(&rig).nr_ids, 41 * VIRTQ_MAX_SIZE);
    ck_assert_int_eq(loop_turn(rig.loop, 0), 0);
}
END_TEST

/* The disk is written by one, or read by many. */
START_TEST(test_blk_shared_only_by_readers)
{
    struct blk *other;
    rig.config.read_only = true;
    blk_rig_start(&rig, 0);
    ck_assert_int_eq(blk_open(&rig.config, &rig.env, &other, rig.why, sizeof(rig.why)), 0);
    blk_close(other);
    rig.config.read_only = false;
    ck_assert_int_eq(blk_open(&rig.config, &rig.env, &other, rig.why, sizeof(rig.why)), -EBUSY);
    ck_assert_ptr_nonnull(strstr(rig.why, "in use, by another process or as another disk"));
    blk_rig_stop(&rig);
    ck_assert_int_eq(blk_open(&rig.config, &rig.env, &rig.blk, rig.why, sizeof(rig.why)), 0);
    rig.config.read_only = true;
    ck_assert_int_eq(blk_open(&rig.config, &rig.env, &other, rig.why, sizeof(rig.why)), -EBUSY);
    ck_assert_ptr_nonnull(strstr(rig.why, "being written"));
    blk_close(rig.blk);
    rig.blk = NULL;
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("blk");
    TCase *tcase = tcase_create("blk");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_loop_test(tcase, test_blk_what_was_written_is_read, 0, 32);
    tcase_add_loop_test(tcase, test_blk_odd_layout_is_the_same_request, 0, 2);
    tcase_add_loop_test(tcase, test_blk_large_request_goes_in_windows, 0, 4);
    tcase_add_loop_test(tcase, test_blk_id_is_the_serial_or_the_end_of_the_path, 0, 3);
    tcase_add_loop_test(tcase, test_blk_discard_makes_holes, 0, 2);
    tcase_add_loop_test(tcase, test_blk_write_zeroes_gives_zeros_and_unmaps_when_it_may, 0, 4);
    tcase_add_test(tcase, test_blk_write_zeroes_without_the_hosts_help_writes_them);
    tcase_add_loop_test(tcase, test_blk_without_flush_or_cache_every_write_is_synced, 0, 2);
    tcase_add_test(tcase, test_blk_driver_that_cannot_flush_sees_no_cache_and_cannot_switch_it_on);
    tcase_add_loop_test(tcase, test_blk_configuration_says_what_the_disk_is, 0, 2);
    tcase_add_loop_test(tcase, test_blk_more_chains_than_requests_all_come_back, 0, 2);
    tcase_add_loop_test(tcase, test_blk_reset_ends_what_is_under_way, 0, 4);
    tcase_add_test(tcase, test_blk_busy_driver_leaves_the_loop_to_others);
    tcase_add_test(tcase, test_blk_shared_only_by_readers);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
