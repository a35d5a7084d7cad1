/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fake/fake_swap.h"

#include <stdlib.h>
#include <string.h>

static void add(uint64_t *counter, uint64_t nr)
{
    __atomic_fetch_add(counter, nr, __ATOMIC_RELAXED);
}

static char *page_of(const struct fake_swap *disk, uint64_t slot)
{
    return disk->data + slot * PAGE_BYTES;
}

/* The error that this page is to have. */
static int injected(struct fake_swap *disk, bool write, uint64_t slot)
{
    int64_t before = __atomic_load_n(&disk->fail_at, __ATOMIC_RELAXED);
    if (before > 0 && __atomic_fetch_sub(&disk->fail_at, 1, __ATOMIC_RELAXED) == 1)
        return disk->fail_error;
    return (write ? disk->write_error : disk->read_error)[slot];
}

static int fake_transfer(void *ctx, bool write, struct swap_io *io, unsigned nr)
{
    struct fake_swap *disk = ctx;
    int err = 0;
    add(&disk->nr_transfers, 1);
    for (unsigned i = 0; i < nr; i++) {
        io[i].error = injected(disk, write, io[i].slot);
        if (io[i].error) {
            err = err ? err : io[i].error;
            continue;
        }
        void *at = page_of(disk, io[i].slot);
        memcpy(write ? at : io[i].page, write ? io[i].page : at, PAGE_BYTES);
        add(write ? &disk->nr_written : &disk->nr_read, 1);
    }
    return err;
}

static void fake_discard(void *ctx, uint64_t slot, uint64_t nr)
{
    struct fake_swap *disk = ctx;
    if (disk->at_discard)
        disk->at_discard(disk->at_discard_ctx);
    memset(page_of(disk, slot), 0xdd, nr * PAGE_BYTES);
    add(&disk->nr_discarded, nr);
}

static void fake_close(void *ctx)
{
    struct fake_swap *disk = ctx;
    if (disk->closed)
        *disk->closed = true;
    fake_swap_destroy(disk);
}

static const char *fake_transport(void *ctx)
{
    (void)ctx;
    return "memory";
}

const struct swap_backend fake_swap_backend = {
    .transfer = fake_transfer,
    .discard = fake_discard,
    .close = fake_close,
    .transport = fake_transport,
};

const struct swap_backend fake_swap_backend_keeps = {
    .transfer = fake_transfer,
    .close = fake_close,
};

struct fake_swap *fake_swap_create(uint64_t nr_slots)
{
    struct fake_swap *disk = calloc(1, sizeof(*disk));
    if (!disk)
        return NULL;
    disk->nr_slots = nr_slots;
    disk->data = calloc(nr_slots, PAGE_BYTES);
    disk->read_error = calloc(nr_slots, sizeof(int));
    disk->write_error = calloc(nr_slots, sizeof(int));
    if (disk->data && disk->read_error && disk->write_error)
        return disk;
    fake_swap_destroy(disk);
    return NULL;
}

void fake_swap_destroy(struct fake_swap *disk)
{
    if (!disk)
        return;
    free(disk->data);
    free(disk->read_error);
    free(disk->write_error);
    free(disk);
}

void fake_swap_corrupt(struct fake_swap *disk, uint64_t slot)
{
    page_of(disk, slot)[slot % PAGE_BYTES] ^= 1;
}
