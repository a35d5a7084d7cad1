/* SPDX-License-Identifier: Apache-2.0 */
/*
 * balloon: the traditional memory balloon, virtio 1.2 section 5.5. Through it a guest gives memory up (inflate), takes it
 * back (deflate), reports free pages by itself, hints at free pages before a save, and tells how it fares (statistics).
 *
 *   inflate, report:  collect the pages of all buffers of a notification -> runs -> mm_drop, one call a run -> answer
 *   deflate:          the same with mm_balloon_return
 *   with must_tell_host accepted, pages of a block that is not whole yet wait for the rest of it, 50 ms at most
 *
 * What a hostile driver can do: give up or take back its own pages, any of them, in any order, those that hold its queues
 * as well: it hurts itself. Page numbers outside guest memory, and odd sizes, are counted and passed over. One
 * notification does bounded work; more is done in later turns of the loop. Memory used is two bits a guest page, three
 * while a round of hints is on.
 *
 * Nothing here can wait in a circle: requests run in the device thread under the device's lock, and a vCPU that touches
 * a page on its way out is served by a fault thread, which knows no device. Pinned blocks are passed over by mm_drop.
 *
 * With env.vm == NULL the protocol is kept and nothing is dropped.
 */
#ifndef DEVICES_BALLOON_BALLOON_H
#define DEVICES_BALLOON_BALLOON_H

#include "devices/virtio/device.h"

#include <linux/virtio_balloon.h>

/* Statistics of Linux 6.12 that the header of Debian 12 does not have. */
#ifndef VIRTIO_BALLOON_S_OOM_KILL
#define VIRTIO_BALLOON_S_OOM_KILL 10
#define VIRTIO_BALLOON_S_ALLOC_STALL 11
#define VIRTIO_BALLOON_S_ASYNC_SCAN 12
#define VIRTIO_BALLOON_S_DIRECT_SCAN 13
#define VIRTIO_BALLOON_S_ASYNC_RECLAIM 14
#define VIRTIO_BALLOON_S_DIRECT_RECLAIM 15
#endif
#define BALLOON_NR_STATS 16

struct balloon;

struct balloon_config {
    /* Features that are offered. None of them is needed for the balloon itself. */
    bool stats, deflate_on_oom, hints, poison, reporting;
    /*
     * The guest asks before it uses a page of the balloon, as Linux always does. Not needed for being right: a page that
     * is touched leaves the balloon by itself. With it blocks are dropped whole that come in pieces (request.c).
     */
    bool must_tell_host;
    uint32_t stats_period_ms; /* 0: only when asked, balloon_poll_stats */
    uint64_t memory_bytes;    /* the largest target; 0: all guest memory. Without what virtio-mem may plug */
    uint64_t target_bytes;    /* at first; at most memory_bytes */
};

/*
 * 0; -EINVAL: target above memory; -ENOMEM, -EMFILE. Nothing is left after an error. @env outlives it; each region of
 * env.mem lies inside one region of env.vm.
 */
must_check int balloon_create(const struct balloon_config *config, const struct device_env *env, struct balloon **out);
/* The loop does not run, no vCPU, no transport. What is in the balloon is returned. */
void balloon_destroy(struct balloon *balloon);
/* To be attached to a transport. */
struct virtio_device *balloon_device(struct balloon *balloon);

/*
 * All below: any thread. They take the device's lock, which may be held while the device waits for a page of the guest.
 *
 * balloon_set_target - how much the guest is asked to give up, rounded down to pages. The guest is told at once, follows
 * as it can, and sees the target again after a reset. -EINVAL: above memory_bytes.
 */
must_check int balloon_set_target(struct balloon *balloon, uint64_t target_bytes);

struct balloon_info {
    uint64_t target_bytes;
    uint64_t memory_bytes; /* the largest target */
    /* As the guest says, less what waits for the rest of its 2 MiB; with deflate_on_oom it may fall below the target. */
    uint64_t actual_bytes;
    uint64_t dropped_bytes; /* in the balloon as mm counts them: without pages that were touched or pinned */
    bool live;              /* a driver is there */
    bool oom_deflates;      /* it has accepted deflate_on_oom */
    uint32_t poison;        /* 0: none */
    /* counts since create */
    uint64_t nr_inflate_pages, nr_deflate_pages, nr_report_pages, nr_hint_pages;
    uint64_t nr_dropped_pages;     /* by inflate and reports: pages that were something else before */
    uint64_t nr_runs;              /* calls of mm that inflate, deflate and reports took */
    uint64_t nr_failed_runs;       /* of them those that failed, for want of a table: the pages stay */
    uint64_t nr_bad_pages;         /* named by the guest, outside its memory */
    uint64_t nr_duplicate_pages;   /* named twice in one batch */
    uint64_t nr_bad_buffers;       /* of a size or a direction that makes no sense */
    uint64_t nr_stale_hints;       /* buffers that belong to no round, or to one that is over */
    uint64_t nr_bad_config_writes; /* bytes */
    uint64_t nr_stray_kicks;       /* of queues that do not exist with the features accepted; one each at DRIVER_OK */
};
void balloon_info(struct balloon *balloon, struct balloon_info *out);

/* ---- statistics ---- */

struct balloon_stats {
    uint64_t time_ns;                 /* CLOCK_MONOTONIC when they came; 0: never */
    uint32_t valid;                   /* bit by tag: the guest gave it */
    uint64_t value[BALLOON_NR_STATS]; /* by tag, VIRTIO_BALLOON_S_*; bytes or counts, as the tag says */
    uint64_t nr_updates;
};
extern const char *const balloon_stat_names[BALLOON_NR_STATS]; /* "swap_in_bytes", ... */
/* The last ones. All zero after a reset. */
void balloon_stats(struct balloon *balloon, struct balloon_stats *out);
/* Ask the guest for new ones, which come soon. -ENOTSUP: not negotiated; -EAGAIN: it has been asked already. */
must_check int balloon_poll_stats(struct balloon *balloon);
/* Poll by @period_ms from now on; 0: not any more. */
void balloon_set_stats_period(struct balloon *balloon, uint32_t period_ms);

/* ---- hints at free pages: one round at a time ---- */

/*
 * A hint says that the page was free at some time since the round began, no more: the guest may have taken it back and
 * written it before anybody looks. So a hinted page may be left out of a save, or dropped, only if nobody has written to
 * it since the round began. The owner has to
 *
 *   1. begin the dirty log of all vCPUs;                then  2. balloon_hint_start;
 *   3. wait for balloon_hint_fd, as long as it likes;   then  4. balloon_hint_stop;
 *   5. pause the vCPUs, and let the devices come to rest;
 *   6. balloon_hint_for_each, and of what it names drop only pages that are in neither of
 *        - the dirty log since 1,
 *        - pages that this process wrote for a device since 1 (disk and network reads, used rings): KVM's log does
 *          not have them;
 *   7. balloon_hint_done, before the vCPUs run again: the guest takes its pages back.
 *
 * The order of 1 and 2 matters: a page that was hinted, taken back and written between 2 and 1 would be lost. Hints that
 * were still on their way from an earlier round are thrown away by balloon_hint_start.
 */
enum balloon_hint_state {
    BALLOON_HINT_IDLE,     /* no round */
    BALLOON_HINT_RUNNING,  /* the guest has been asked */
    BALLOON_HINT_ENDED,    /* the guest says that these were all */
    BALLOON_HINT_STOPPED,  /* by balloon_hint_stop */
    BALLOON_HINT_CANCELED, /* the device was reset: no hint is left */
};

/* -ENOTSUP: no driver, or it has not accepted the feature; -EBUSY: there is a round; -ENOMEM. */
must_check int balloon_hint_start(struct balloon *balloon);
/* No hint is taken any more; the guest keeps the pages. */
void balloon_hint_stop(struct balloon *balloon);
/* Readable (eventfd; the caller reads it) when the guest has come to an end, or the round was canceled. */
int balloon_hint_fd(const struct balloon *balloon);
enum balloon_hint_state balloon_hint_state(struct balloon *balloon);
/*
 * Each run of hinted pages, rising; with the device's lock held, so that @each calls no device. 0; -ENOENT: no round;
 * -EBUSY: it is running; -ECANCELED. Also while the round has ENDED, but the guest may then still send more.
 */
must_check int balloon_hint_for_each(struct balloon *balloon, void (*each)(void *ctx, gpa_t gpa, uint64_t bytes),
                                     void *ctx);
/* The round is over, whatever its state: hints are forgotten, the guest may use the pages. */
void balloon_hint_done(struct balloon *balloon);

#endif
