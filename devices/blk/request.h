/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inside of blk: what device.c, request.c and window.c share. Everything under device.lock.
 *
 *   free -> begin -> [parked ->] window made -> queued, under way -> step -> ... -> end -> free
 *
 * A request is on the free list, or parked (waiting for pins or for the bounce buffer, with neither), or has exactly one
 * blk_op with the io. Parked requests exist only while others are under way, whose end wakes them.
 */
#ifndef DEVICES_BLK_REQUEST_H
#define DEVICES_BLK_REQUEST_H

#include "devices/blk/blk.h"
#include "devices/blk/io.h"
#include "devices/blk/open.h"

#include <linux/virtio_blk.h>
#include <sys/uio.h>

#define BLK_SECTOR_BYTES UINT64_C(512) /* of the protocol, whatever the block size */
#define BLK_HEADER_BYTES sizeof(struct virtio_blk_outhdr)
/* Ranges of one discard or write-zeroes request, and their largest size. Chosen. */
#define BLK_MAX_RANGES 16u
#define BLK_MAX_RANGE_SECTORS (UINT32_C(1) << 21) /* 1 GiB */
/* Linux sends at most 1280 KiB at once unless told otherwise: one window. */
#define BLK_WINDOW_BYTES (UINT64_C(4) << 20)
#define BLK_BOUNCE_BYTES (UINT64_C(256) << 10)
#define BLK_ZEROS_BYTES (UINT64_C(64) << 10) /* repeated in a vector */

enum blk_stage { BLK_STAGE_DATA, BLK_STAGE_RANGE, BLK_STAGE_ZEROS, BLK_STAGE_SYNC };

/* What is under way of a request's data: merged segments, whole or in part. */
struct blk_window {
    unsigned nr_runs;
    uint64_t bytes, nr_blocks;
    bool pinned, misaligned;
    struct virtq_segment run[VIRTQ_MAX_SEGMENTS];
};

struct blk_request {
    struct blk_op op;
    struct blk_request *next; /* free or parked */
    unsigned queue;
    uint32_t type; /* VIRTIO_BLK_T_* */
    enum blk_stage stage;
    unsigned nr_tries;                /* in a row that moved nothing */
    bool bounced;                     /* its data goes through the buffer */
    uint64_t offset_bytes;            /* in the disk, of the data */
    uint64_t data_bytes, done_bytes;  /* data: IN, OUT */
    uint64_t op_bytes, op_done_bytes; /* of the read or write under way */
    unsigned nr_ranges, range;        /* DISCARD, WRITE_ZEROES: the current one */
    uint64_t zero_bytes;              /* of the current range, written as zeros so far */
    struct virtio_blk_discard_write_zeroes ranges[BLK_MAX_RANGES];
    struct blk_window window;
    struct iovec iov[VIRTQ_MAX_SEGMENTS];
    struct virtq_chain chain;
};

struct blk {
    struct virtio_device device;
    struct blk_file file;
    struct blk_io io;
    struct virtio_blk_config space;
    char id[VIRTIO_BLK_ID_BYTES];
    uint64_t max_pinned_blocks;
    void (*tell)(void *ctx, const char *line);
    void *tell_ctx;
    char *bounce; /* NULL: never needed */
    char *zeros;
    struct blk_request *requests; /* BLK_MAX_REQUESTS */
    /* guarded by device.lock */
    struct blk_request *free, *parked, *parked_tail;
    struct blk_request *bounce_owner; /* or NULL */
    uint64_t pinned_blocks;
    uint32_t starved, announce; /* queues: more to take there; to be announced */
    bool no_punch, no_zero_range;
    int sync_error; /* of a flush that failed, for good; see request.c */
    struct blk_stat stat;
};

/* --- request.c --- */

/* @r: taken from the free list; its chain and queue are set. */
void blk_request_begin(struct blk *b, struct blk_request *r);
/* Its op is done. */
void blk_request_step(struct blk *b, struct blk_request *r);
/* Parked requests go on, in their order, as long as the first can. */
void blk_requests_unpark(struct blk *b);
/* Gives pins and buffer back, and the request; no answer. */
void blk_request_drop(struct blk *b, struct blk_request *r);

/* --- window.c --- */

/*
 * blk_window_make - the next window of @r's data: pinned, or in the bounce buffer, and its vector made. 0; -EBUSY: others
 * must end first, nothing is held; -EFAULT: the guest has unplugged the data's memory; else the error of mm_pin, and
 * env->no_page saw no way.
 */
must_check int blk_window_make(struct blk *b, struct blk_request *r);
/* It ended; @good: all of it was transferred. Unpins; data that was read leaves the buffer, which @r keeps. */
void blk_window_end(struct blk *b, struct blk_request *r, bool good);

#endif
