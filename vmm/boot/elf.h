/* SPDX-License-Identifier: Apache-2.0 */
/* elf: an ELF64 x86-64 vmlinux. Read and checked first, then placed. */
#ifndef VMM_BOOT_ELF_H
#define VMM_BOOT_ELF_H

#include "vmm/boot/kernel.h"

#define BOOT_ELF_MAX_SEGMENTS 32

struct boot_elf {
    uint64_t entry;     /* 64-bit, with a zero page; physical, as Linux's linker script makes it */
    uint64_t pvh_entry; /* 0: none */
    uint64_t end;       /* of the highest segment */
    unsigned nr;
    struct boot_elf_segment {
        uint64_t offset, file_bytes; /* inside the file */
        uint64_t gpa, memory_bytes;  /* >= file_bytes, not 0; the sum does not wrap; segments do not overlap */
    } segment[BOOT_ELF_MAX_SEGMENTS];
};

/* 0, or -1 with @diag (EXIT_USAGE): another architecture, truncated, inconsistent. */
must_check int boot_elf_parse(const struct boot_image *image, struct boot_elf *out, struct diag *diag);
/* Loads what boot_elf_parse found, and forgets of @image what has been loaded. 0, or -1 with @diag: a segment lies outside
 * of @room, or cannot be read. */
must_check int boot_elf_place(struct boot_image *image, const struct boot_elf *elf, const struct boot_room *room,
                              struct diag *diag);

#endif
