/* SPDX-License-Identifier: Apache-2.0 */
/* A zram device of the kernel's, made for us and in use as swap. Its swap header carries our name and pid namespace. */
#ifndef VMM_KERNEL_ZRAM_H
#define VMM_KERNEL_ZRAM_H

#include "mm/swap/zram.h"
#include "vmm/diag.h"

struct kernel_zram {
    int number; /* /dev/zram<number>; -1: none */
    uint64_t disk_bytes;
};

/*
 * kernel_zram_make - a new device with config's compressor, level and limit, as swap before every other area, labelled
 * @name (at most 15 characters). 0, or -1 with @diag (EXIT_HOST) and no device.
 */
must_check int kernel_zram_make(struct kernel_zram *kz, const char *name, const struct zram_config *config,
                                struct diag *diag);
/* Swap off, reset, removed. */
void kernel_zram_remove(struct kernel_zram *kz);
/* Removes devices with the name of a process of this pid namespace which is gone. */
void kernel_zram_sweep(void);

void kernel_zram_stat(const struct kernel_zram *kz, struct zram_stat *out);
/* Bytes of slots in use, from /proc/swaps. */
uint64_t kernel_zram_used_bytes(const struct kernel_zram *kz);

#endif
