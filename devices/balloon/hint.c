/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rounds of hints. The guest answers a new command id with a buffer that holds the id, then buffers that name free pages,
 * then a buffer that holds VIRTIO_BALLOON_CMD_ID_STOP. Pages between an id that is not the present one and the next id
 * are stale.
 *
 * Linux keeps the id that it sends in one place: a buffer that it sent for an earlier round reads as the new id when the
 * device is slow. So a round begins by throwing away what is in the queue. What comes into the queue after that was free
 * after the round began, whatever id stands before it.
 */
#include "devices/balloon/internal.h"

#include <endian.h>
#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

static void set_command(struct balloon *balloon, uint32_t id)
{
    balloon->config.free_page_hint_cmd_id = htole32(id);
    virtio_config_changed(&balloon->device);
}

static void take_id(struct balloon *balloon, const struct virtq *q, const struct virtq_chain *chain)
{
    __le32 id;
    if (chain->out_bytes != sizeof(id) || virtq_read(q, chain, 0, &id, sizeof(id)) != sizeof(id)) {
        balloon->count.nr_bad_buffers++;
        balloon->hint_current = false;
        return;
    }
    if (le32toh(id) != VIRTIO_BALLOON_CMD_ID_STOP) {
        balloon->hint_current = le32toh(id) == balloon->hint_id;
        return;
    }
    if (balloon->hint_current && balloon->hint_state == BALLOON_HINT_RUNNING) {
        balloon->hint_state = BALLOON_HINT_ENDED;
        eventfd_write(balloon->hint_fd, 1);
    }
    balloon->hint_current = false;
}

static void take_chain(struct balloon *balloon, const struct virtq *q, const struct virtq_chain *chain)
{
    if (chain->nr_out)
        take_id(balloon, q, chain);
    if (!chain->nr_in)
        return;
    bool open = balloon->hint_state == BALLOON_HINT_RUNNING || balloon->hint_state == BALLOON_HINT_ENDED;
    if (!open || !balloon->hint_current) {
        balloon->count.nr_stale_hints++;
        return;
    }
    for (unsigned i = chain->nr_out; i < (unsigned)chain->nr_out + chain->nr_in; i++)
        balloon_add_range(balloon, &balloon->hints, chain->segment[i].gpa, chain->segment[i].bytes,
                          &balloon->count.nr_hint_pages);
}

/* Up to a queue full of chains; @discard: they are only answered. True when there may be more. */
static bool take_chains(struct balloon *balloon, bool discard)
{
    struct virtio_device *device = &balloon->device;
    unsigned index = balloon->queue_of[ROLE_HINT], nr = 0;
    struct virtq_chain chain;

    while (nr < VIRTQ_MAX_SIZE && virtio_pop(device, index, &chain)) {
        nr++;
        if (!discard)
            take_chain(balloon, &device->queue[index], &chain);
        else if (chain.nr_in)
            balloon->count.nr_stale_hints++;
        balloon_answer(balloon, ROLE_HINT, (struct balloon_held){chain.id, chain.nr_slots});
    }
    if (nr && virtio_is_live(device))
        virtio_announce(device, index);
    return nr == VIRTQ_MAX_SIZE;
}

bool balloon_hint_take(struct balloon *balloon)
{
    return take_chains(balloon, false);
}

static int start_locked(struct balloon *balloon)
{
    eventfd_t ignored;
    if (!virtio_is_live(&balloon->device) || !balloon_queue(balloon, ROLE_HINT))
        return -ENOTSUP;
    if (balloon->hint_state != BALLOON_HINT_IDLE)
        return -EBUSY;
    /* A queue holds no more than VIRTQ_MAX_SIZE chains: all that were there. */
    (void)take_chains(balloon, true);
    if (!virtio_is_live(&balloon->device))
        return -ENOTSUP;
    int err = page_set_init(&balloon->hints, balloon->device.env->mem);
    if (err)
        return err;
    (void)eventfd_read(balloon->hint_fd, &ignored); /* not blocking: of the round before */
    do
        balloon->hint_id++;
    while (balloon->hint_id == VIRTIO_BALLOON_CMD_ID_STOP || balloon->hint_id == VIRTIO_BALLOON_CMD_ID_DONE);
    balloon->hint_state = BALLOON_HINT_RUNNING;
    balloon->hint_current = false;
    set_command(balloon, balloon->hint_id);
    return 0;
}

int balloon_hint_start(struct balloon *balloon)
{
    pthread_mutex_lock(&balloon->device.lock);
    int err = start_locked(balloon);
    pthread_mutex_unlock(&balloon->device.lock);
    return err;
}

void balloon_hint_stop(struct balloon *balloon)
{
    pthread_mutex_lock(&balloon->device.lock);
    if (balloon->hint_state == BALLOON_HINT_RUNNING || balloon->hint_state == BALLOON_HINT_ENDED) {
        balloon->hint_state = BALLOON_HINT_STOPPED;
        set_command(balloon, VIRTIO_BALLOON_CMD_ID_STOP);
    }
    pthread_mutex_unlock(&balloon->device.lock);
}

int balloon_hint_fd(const struct balloon *balloon)
{
    return balloon->hint_fd;
}

enum balloon_hint_state balloon_hint_state(struct balloon *balloon)
{
    pthread_mutex_lock(&balloon->device.lock);
    enum balloon_hint_state state = balloon->hint_state;
    pthread_mutex_unlock(&balloon->device.lock);
    return state;
}

int balloon_hint_for_each(struct balloon *balloon, void (*each)(void *ctx, gpa_t gpa, uint64_t bytes), void *ctx)
{
    static const int error[] = {[BALLOON_HINT_IDLE] = -ENOENT,
                                [BALLOON_HINT_RUNNING] = -EBUSY,
                                [BALLOON_HINT_ENDED] = 0,
                                [BALLOON_HINT_STOPPED] = 0,
                                [BALLOON_HINT_CANCELED] = -ECANCELED};
    pthread_mutex_lock(&balloon->device.lock);
    int err = error[balloon->hint_state];
    if (!err)
        page_set_for_each(&balloon->hints, each, ctx);
    pthread_mutex_unlock(&balloon->device.lock);
    return err;
}

void balloon_hint_done(struct balloon *balloon)
{
    pthread_mutex_lock(&balloon->device.lock);
    if (balloon->hint_state != BALLOON_HINT_IDLE) {
        page_set_fini(&balloon->hints);
        if (balloon->hint_state != BALLOON_HINT_CANCELED)
            set_command(balloon, VIRTIO_BALLOON_CMD_ID_DONE);
        balloon->hint_state = BALLOON_HINT_IDLE;
    }
    pthread_mutex_unlock(&balloon->device.lock);
}

void balloon_hint_reset(struct balloon *balloon)
{
    balloon->config.free_page_hint_cmd_id = htole32(VIRTIO_BALLOON_CMD_ID_STOP);
    balloon->hint_current = false;
    if (balloon->hint_state == BALLOON_HINT_IDLE)
        return;
    page_set_fini(&balloon->hints);
    balloon->hint_state = BALLOON_HINT_CANCELED;
    eventfd_write(balloon->hint_fd, 1);
}
