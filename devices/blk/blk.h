/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blk: a virtio disk (virtio 1.2 section 5.2) over a raw file or a block device of the host.
 *
 *   blk.h       how to make it; what it counts
 *   open.c      opens the file; says what is wrong with it
 *   device.c    features, configuration space, queues, reset
 *   request.c   one request of the guest: copied, checked, then done
 *   window.c    the part of a request's data that is pinned, or in the bounce buffer, and under way
 *   io.c        io_uring, or plain calls where the host has none
 *
 *   notify -> chains -> requests -> windows -> one io_uring_submit -> completions -> status byte, used ring -> interrupt
 *
 * Data goes straight between the file and guest memory. What a request touches is resident and pinned from before it is
 * sent until it has ended, so the kernel never waits for a fault thread in the middle of an I/O. Two limits keep pins
 * from eating the budget: a window has at most 4 MiB, and all windows together hold at most pin_limit_bytes. When a page
 * cannot be had, the request waits until others have ended; alone, it goes on in ever smaller windows; and only when
 * one page is too much, env->no_page is asked.
 *
 * Nothing waits in a circle. The device thread waits for fault threads (mm_pin, the status byte, the rings), and in
 * env->no_page, with nothing pinned for what it is to send, for the end of another VM; fault
 * threads, kswapd and swap I/O take no device lock, wait for no completion of a disk, and skip what is pinned. Whoever
 * resets the device waits for the kernel's I/O alone, which needs pinned memory only. The kernel hands completions to
 * the thread that sent them; where that sleeps meanwhile, for the lock or for guest memory, it is woken to take them.
 *
 * What a hostile driver can do: read and write its own disk and its own memory, in any order; be told IOERR or UNSUPP;
 * break its device until it resets it; keep up to BLK_MAX_REQUESTS requests and pin_limit_bytes busy. It cannot reach
 * outside the disk's capacity or guest memory, write to a read-only file, or make the device thread allocate.
 */
#ifndef DEVICES_BLK_BLK_H
#define DEVICES_BLK_BLK_H

#include "devices/virtio/device.h"

#define BLK_MAX_REQUESTS 256 /* under way, over all queues */
#define BLK_MAX_QUEUES 8
#define BLK_WHY_BYTES 300 /* enough for any line of blk_open */

struct blk_config {
    const char *path;
    const char *id; /* what GET_ID answers: its first 20 bytes; NULL or "": the end of the path's name */
    bool read_only;
    bool direct;        /* O_DIRECT: past the host's page cache */
    unsigned nr_queues; /* 1..BLK_MAX_QUEUES */
    /* Guest memory that pins may hold, counted in blocks of BLOCK_BYTES; at least one request always goes on. 0: no
     * limit. A small part of the budget. */
    uint64_t pin_limit_bytes;
    bool no_uring; /* plain calls in the device thread */
    /* One line, the first time that the host refuses an I/O; in the device thread, with the lock held. May be NULL. */
    void (*tell)(void *ctx, const char *line);
    void *tell_ctx;
    const char *name; /* of the device in messages; outlives it; NULL: "disk" */
};

struct blk;

/*
 * blk_open - opens and locks the file (flock: one writer, or any number of readers), and makes the device, not yet
 * attached to a transport. @config may go afterwards, its path and id too.
 * Returns 0, or -errno with nothing left and one line in @why (BLK_WHY_BYTES) that says what to do.
 */
must_check int blk_open(const struct blk_config *config, const struct device_env *env, struct blk **out, char *why,
                        size_t why_bytes);
/* The transport is gone and the loop does not run. Waits for what is under way. NULL is fine. */
void blk_close(struct blk *blk);
struct virtio_device *blk_device(struct blk *blk);

struct blk_stat {
    uint64_t capacity_bytes;
    uint32_t block_bytes;
    bool read_only, direct, uring;
    /* requests that ended well */
    uint64_t nr_reads, nr_writes, nr_flushes, nr_discards, nr_write_zeroes, nr_ids;
    uint64_t read_bytes, written_bytes, discarded_bytes, zeroed_bytes;
    uint64_t nr_errors;                                /* the host could not: IOERR */
    uint64_t nr_bad;                                   /* the guest's mistakes: IOERR, UNSUPP, or no answer at all */
    uint64_t nr_windows, nr_bounced_windows, nr_waits; /* nr_waits: requests that waited for pins or the buffer */
    uint64_t nr_submits;                               /* calls of io_uring_submit */
    uint64_t nr_syncs;                                 /* fdatasync: of flushes, and of writes that go through */
    uint64_t pinned_bytes;                             /* now; whole blocks, upper bound */
    unsigned nr_busy;                                  /* requests under way now */
    int first_error;                                   /* errno of the first of nr_errors, 0: none */
};
/* Any thread. */
void blk_stat(struct blk *blk, struct blk_stat *out);

#endif
