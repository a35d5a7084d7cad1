/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the balloon share. */
#ifndef DEVICES_BALLOON_INTERNAL_H
#define DEVICES_BALLOON_INTERNAL_H

#include "devices/balloon/balloon.h"
#include "devices/balloon/page_set.h"

/* Numbers as in the specification. Which queue plays which role: see roles_assign. */
enum balloon_role { ROLE_INFLATE, ROLE_DEFLATE, ROLE_STATS, ROLE_HINT, ROLE_REPORT, NR_ROLES };

/* A chain that is not answered yet. */
struct balloon_held {
    uint16_t id, nr_slots;
};

struct balloon {
    struct virtio_device device;
    uint64_t memory_bytes;
    int stats_fd, late_fd; /* timerfds: statistics are due; pages of `late` are */
    int hint_fd;           /* eventfd */
    /* guarded by device.lock */
    struct virtio_balloon_config config; /* little endian, as the guest sees it */
    uint32_t poison;                     /* what reported pages hold from now on; fixed while the driver is live */
    uint8_t role_of[VIRTIO_MAX_QUEUES];  /* by queue; NR_ROLES: none */
    uint8_t queue_of[NR_ROLES];          /* by role; VIRTIO_MAX_QUEUES: none */
    bool may_hold_pages;                 /* something was dropped into the balloon since the last return */
    struct page_set batch;               /* empty between batches */
    struct page_set late;                /* pages that the guest gave up and still has, see request.c */
    unsigned nr_held;
    struct balloon_held held[VIRTQ_MAX_SIZE];
    struct balloon_info count; /* the counts of it */

    bool has_stats_buffer;
    struct balloon_held stats_buffer;
    struct balloon_stats stats;

    enum balloon_hint_state hint_state;
    bool hint_current; /* the guest's last command id was that of the round */
    uint32_t hint_id;
    struct page_set hints; /* there is one unless IDLE or CANCELED */
};

static inline struct balloon *balloon_of(struct virtio_device *device)
{
    return container_of(device, struct balloon, device);
}

/* The queue of @role, or NULL: there is none, or it is not ready. */
struct virtq *balloon_queue(struct balloon *balloon, enum balloon_role role);
/* Answers one chain; the caller announces. */
void balloon_answer(struct balloon *balloon, enum balloon_role role, struct balloon_held held);
/* Whole pages inside [gpa, gpa + bytes) into the set; counts. Lock held. */
void balloon_add_range(struct balloon *balloon, struct page_set *set, gpa_t gpa, uint64_t bytes, uint64_t *count);

/* request.c: one batch of a queue. True when there may be more. Lock held, queue ready, device thread. */
bool balloon_batch(struct balloon *balloon, enum balloon_role role);
void balloon_late_timer(void *ctx, uint32_t events); /* without lock */

/* stats.c; lock held */
void balloon_stats_take(struct balloon *balloon);
void balloon_stats_reset(struct balloon *balloon);
void balloon_stats_timer(void *ctx, uint32_t events); /* without lock */

/* hint.c; lock held */
bool balloon_hint_take(struct balloon *balloon);
void balloon_hint_reset(struct balloon *balloon);

#endif
