/* SPDX-License-Identifier: Apache-2.0 */
/*
 * swapio: pages to and from one open file or block device, the backend of a swap area. Opening and checking the file is
 * swapfile.c's work.
 *
 *   transfer of up to 64 pages -> requests: neighbouring slots -> one vector each -> a ring, or pwritev/preadv
 *
 * Up to SWAPIO_RINGS callers have a ring of their own at a time; who finds none free, or works where io_uring is
 * refused, makes the plain calls instead and never waits for another caller.
 */
#ifndef VMM_SWAPIO_H
#define VMM_SWAPIO_H

#include "mm/swap/area.h"

#define SWAPIO_RINGS 4u

struct swapio_config {
    bool direct;  /* @fd has O_DIRECT; for swapio to say */
    bool device;  /* block device: discards are BLKDISCARD */
    bool discard; /* discards are wanted */
    bool uring;   /* io_uring where the host lets us */
};

struct swapio;

/* Takes over @fd, which is readable and writable. -ENOMEM: @fd is still the caller's. */
must_check int swapio_create(int fd, const struct swapio_config *config, struct swapio **out);
/* The backend's close. Nothing may be under way. */
void swapio_destroy(struct swapio *swapio);
/* Table for swap_area_add, whose ctx is the swapio. */
const struct swap_backend *swapio_backend(const struct swapio *swapio);

#endif
