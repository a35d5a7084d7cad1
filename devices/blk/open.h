/* SPDX-License-Identifier: Apache-2.0 */
/* The file behind a disk, opened, locked and measured. */
#ifndef DEVICES_BLK_OPEN_H
#define DEVICES_BLK_OPEN_H

#include "devices/blk/blk.h"

struct blk_file {
    int fd;
    bool read_only, direct;
    bool can_punch;          /* holes: discard */
    uint32_t block_bytes;    /* of offsets and sizes: 512, or what O_DIRECT asks for */
    uint32_t align_bytes;    /* of addresses, with O_DIRECT */
    uint32_t hole_bytes;     /* what a hole is best aligned to */
    uint64_t capacity_bytes; /* whole blocks; the rest of the file is out of reach */
};

/* 0, or -errno with nothing left and a line in @why. */
must_check int blk_file_open(const struct blk_config *config, struct blk_file *file, char *why, size_t why_bytes);
/* And unlocked. */
void blk_file_close(struct blk_file *file);

#endif
