/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A swap backend in memory, with errors on demand. Several threads may transfer different slots; what injects errors is
 * set while nobody transfers.
 *
 *     struct fake_swap *disk = fake_swap_create(1024);
 *     int area = swap_area_add(set, "fake", "file", 1024, -1, &fake_swap_backend, disk);    (the set closes it)
 */
#ifndef TESTS_FAKE_FAKE_SWAP_H
#define TESTS_FAKE_FAKE_SWAP_H

#include "mm/swap/area.h"

struct fake_swap {
    uint64_t nr_slots;
    char *data;
    /* Errors. Any number of bad slots; and one page in the future, counted from 1 over all transfers (0: none). */
    int *read_error, *write_error; /* by slot: 0 or -errno */
    int64_t fail_at;
    int fail_error;
    /* What happened: relaxed atomics. */
    uint64_t nr_read, nr_written; /* pages without an error */
    uint64_t nr_discarded;        /* slots */
    uint64_t nr_transfers;
    bool *closed; /* set to true by close, when not NULL */
    /* When not NULL: called by each discard before it does anything, as a device that takes its time. */
    void (*at_discard)(void *ctx);
    void *at_discard_ctx;
};

extern const struct swap_backend fake_swap_backend;
/* The same, but does not want discards. */
extern const struct swap_backend fake_swap_backend_keeps;

/* NULL: no memory. Discarded slots are filled with 0xdd. */
struct fake_swap *fake_swap_create(uint64_t nr_slots);
/* For a disk that no set has taken. */
void fake_swap_destroy(struct fake_swap *disk);
/* Flips one bit of the content of @slot. */
void fake_swap_corrupt(struct fake_swap *disk, uint64_t slot);

#endif
