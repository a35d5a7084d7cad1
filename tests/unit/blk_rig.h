/* SPDX-License-Identifier: Apache-2.0 */
/* A disk over a new file, its driver, and guest memory. Everything is undone by blk_rig_fini. */
#ifndef TESTS_UNIT_BLK_RIG_H
#define TESTS_UNIT_BLK_RIG_H

#include "devices/blk/blk.h"
#include "tests/fake/fake_driver.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RIG_SECTOR UINT64_C(512)
#define RIG_NO_STATUS 0xee /* not answered */
#define RIG_TURN_MS 500

#define EVENT_IDX (UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX)
#define INDIRECT (UINT64_C(1) << VIRTIO_RING_F_INDIRECT_DESC)
#define PACKED (UINT64_C(1) << VIRTIO_F_RING_PACKED)
#define BLK_FEATURE(name) (UINT64_C(1) << VIRTIO_BLK_F_##name)
#define BLK_COMMON                                                                                                     \
    (INDIRECT | EVENT_IDX | BLK_FEATURE(FLUSH) | BLK_FEATURE(DISCARD) | BLK_FEATURE(WRITE_ZEROES) |                    \
     BLK_FEATURE(CONFIG_WCE))

struct blk_rig {
    char folder[128], path[192];
    struct fake_memory memory;
    struct device_env env;
    struct loop *loop;
    struct blk_config config;
    struct blk *blk;
    struct virtio_mmio mmio;
    struct fake_driver driver;
    gpa_t header, status; /* of blk_rig_request */
    uint32_t written_bytes;
    char told[200], why[BLK_WHY_BYTES];
    unsigned nr_told, nr_fatal;
    int fatal_err;
    gpa_t fatal_gpa;
    void (*make_room)(void); /* when a page cannot be had for the first time; NULL: that is fatal */
};

static inline bool rig_no_page(void *ctx, int err, gpa_t gpa, uint64_t *seen)
{
    struct blk_rig *rig = ctx;
    if (rig->make_room && (*seen)++ == 0) {
        rig->make_room();
        return true;
    }
    rig->nr_fatal++;
    rig->fatal_err = err;
    rig->fatal_gpa = gpa;
    return false;
}

static inline void rig_tell(void *ctx, const char *line)
{
    struct blk_rig *rig = ctx;
    snprintf(rig->told, sizeof(rig->told), "%s", line);
    rig->nr_told++;
}

static inline void rig_fill(char *to, uint64_t bytes, uint64_t seed)
{
    for (uint64_t i = 0; i < bytes; i++) {
        seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
        to[i] = (char)(seed >> 56);
    }
}

/* A file of @file_bytes in @parent (NULL: $TMPDIR), each sector with its own content; memory, no device yet. */
static inline void blk_rig_init(struct blk_rig *rig, const char *parent, uint64_t file_bytes, uint64_t memory_bytes)
{
    const char *tmp = parent ? parent : getenv("TMPDIR");
    char sector[RIG_SECTOR];
    memset(rig, 0, sizeof(*rig));
    snprintf(rig->folder, sizeof(rig->folder), "%.100s/ebb-blk-XXXXXX", tmp ? tmp : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(rig->folder));
    snprintf(rig->path, sizeof(rig->path), "%s/disk", rig->folder);
    int fd = open(rig->path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    ck_assert_int_ge(fd, 0);
    for (uint64_t at = 0; at < file_bytes; at += sizeof(sector)) {
        rig_fill(sector, sizeof(sector), at);
        ck_assert_int_eq(pwrite(fd, sector, sizeof(sector), (off_t)at), (ssize_t)sizeof(sector));
    }
    close(fd);
    if (memory_bytes)
        fake_memory_init(&rig->memory, 0x100000, memory_bytes);
    ck_assert_int_eq(loop_create(&rig->loop), 0);
    rig->env = (struct device_env){.mem = &rig->memory.mem, .loop = rig->loop, .no_page = rig_no_page, .ctx = rig};
    rig->config = (struct blk_config){
        .path = rig->path, .id = "serial", .nr_queues = 1, .tell = rig_tell, .tell_ctx = rig, .name = "disk0"};
}

/* Opens it as rig->config says, and a driver with @features. */
static inline void blk_rig_start(struct blk_rig *rig, uint64_t features)
{
    int err = blk_open(&rig->config, &rig->env, &rig->blk, rig->why, sizeof(rig->why));
    ck_assert_msg(err == 0, "%s", rig->why);
    ck_assert_int_eq(virtio_mmio_init(&rig->mmio, blk_device(rig->blk)), 0);
    fake_driver_init(&rig->driver, &rig->mmio, &rig->memory);
    rig->header = fake_memory_alloc(&rig->memory, 16, 16);
    rig->status = fake_memory_alloc(&rig->memory, 1, 1);
    ck_assert_int_eq(fake_driver_start(&rig->driver, features & fake_driver_offered(&rig->driver), 0), 0);
}

static inline void blk_rig_stop(struct blk_rig *rig)
{
    virtio_mmio_fini(&rig->mmio);
    blk_close(rig->blk);
    rig->blk = NULL;
}

static inline void blk_rig_fini(struct blk_rig *rig)
{
    if (rig->blk)
        blk_rig_stop(rig);
    loop_destroy(rig->loop);
    if (rig->memory.mem.nr)
        fake_memory_fini(&rig->memory);
    unlink(rig->path);
    ck_assert_int_eq(rmdir(rig->folder), 0);
}

static inline void *blk_rig_at(struct blk_rig *rig, gpa_t gpa, uint64_t bytes)
{
    return fake_memory_at(&rig->memory, gpa, bytes);
}

static inline void blk_rig_header(struct blk_rig *rig, gpa_t at, uint32_t type, uint64_t sector)
{
    struct virtio_blk_outhdr header = {.type = type, .sector = sector};
    memcpy(blk_rig_at(rig, at, sizeof(header)), &header, sizeof(header));
}

/* One turn that calls somebody. A completion may interrupt the wait: that is a turn for nothing. */
static inline void blk_rig_turn(struct blk_rig *rig)
{
    for (unsigned i = 0; i < 100; i++)
        if (loop_turn(rig->loop, RIG_TURN_MS) > 0)
            return;
    ck_abort_msg("nothing happens");
}

/* Turns the loop until a chain of @queue came back. */
static inline void blk_rig_wait(struct blk_rig *rig, unsigned queue, struct fake_used *used)
{
    while (!fake_driver_collect(&rig->driver, queue, used))
        blk_rig_turn(rig);
    rig->written_bytes = used->written_bytes;
}

/* One chain as it is; its last writable byte is the status, at @status. Returns it. */
static inline uint8_t blk_rig_chain(struct blk_rig *rig, unsigned queue, const struct fake_buffer *buffers,
                                    unsigned nr_out, unsigned nr_in, gpa_t status)
{
    uint8_t *at = blk_rig_at(rig, status, 1);
    struct fake_used used;
    *at = RIG_NO_STATUS;
    ck_assert_int_eq(fake_driver_add(&rig->driver, queue, buffers, nr_out, nr_in, rig->driver.indirect, NULL), 0);
    ck_assert(fake_driver_kick(&rig->driver, queue));
    blk_rig_wait(rig, queue, &used);
    return *at;
}

/* A request as Linux lays it out. @data: readable, but for IN and GET_ID. Returns its status. */
static inline uint8_t blk_rig_request(struct blk_rig *rig, uint32_t type, uint64_t sector,
                                      const struct fake_buffer *data, unsigned nr_data)
{
    struct fake_buffer buffers[FAKE_MAX_SEGMENTS];
    bool in = type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_GET_ID;
    blk_rig_header(rig, rig->header, type, sector);
    buffers[0] = (struct fake_buffer){rig->header, 16};
    for (unsigned i = 0; i < nr_data; i++)
        buffers[i + 1] = data[i];
    buffers[nr_data + 1] = (struct fake_buffer){rig->status, 1};
    return blk_rig_chain(rig, 0, buffers, in ? 1 : 1 + nr_data, in ? nr_data + 1 : 1, rig->status);
}

/* The file has @bytes of @want at @offset. */
static inline bool blk_rig_file_has(struct blk_rig *rig, uint64_t offset, const void *want, uint64_t bytes)
{
    char *got = malloc(bytes + 1);
    int fd = open(rig->path, O_RDONLY | O_CLOEXEC);
    bool same = pread(fd, got, bytes, (off_t)offset) == (ssize_t)bytes && memcmp(got, want, bytes) == 0;
    close(fd);
    free(got);
    return same;
}

/* It has what blk_rig_init put there. */
static inline bool blk_rig_file_untouched(struct blk_rig *rig, uint64_t start, uint64_t end)
{
    char sector[RIG_SECTOR];
    for (uint64_t at = start; at < end; at += sizeof(sector)) {
        rig_fill(sector, sizeof(sector), at);
        if (!blk_rig_file_has(rig, at, sector, sizeof(sector)))
            return false;
    }
    return true;
}

static inline struct blk_stat blk_rig_stat(struct blk_rig *rig)
{
    struct blk_stat stat;
    blk_stat(rig->blk, &stat);
    return stat;
}

#endif
