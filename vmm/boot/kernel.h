/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernel: what the loaders of kernel formats tell boot_load, and where boot_load keeps what it makes itself. Everything of
 * its own stands below 1 MiB, where no kernel is loaded:
 *
 *   0x1000            GDT
 *   0x2000 .. 0x8000  page tables: 0 .. 4 GiB mapped one to one (64-bit entry)
 *   0x8000            zero page, or hvm_start_info with its lists (PVH)
 *   0x9000            command line
 *   0xa0000           end of memory below 1 MiB
 *   0xe0000           RSDP and the other ACPI tables
 *
 * While a bzImage is loaded, its vmlinux stands unpacked at the end of low memory, and goes block by block as its segments
 * are copied to their places: it never is in our own memory, which no budget covers.
 */
#ifndef VMM_BOOT_KERNEL_H
#define VMM_BOOT_KERNEL_H

#include "vmm/boot/boot.h"
#include "vmm/boot/image.h"

#include <asm/bootparam.h>

#define BOOT_GDT_GPA UINT64_C(0x1000)
#define BOOT_TABLES_GPA UINT64_C(0x2000)
#define BOOT_DATA_GPA UINT64_C(0x8000)
#define BOOT_CMDLINE_GPA UINT64_C(0x9000)
#define BOOT_LOW_END_GPA UINT64_C(0xa0000)
#define BOOT_ACPI_GPA UINT64_C(0xe0000)
#define BOOT_KERNEL_GPA UINT64_C(0x100000) /* kernels stand here or above */

/* Setup headers: Documentation/arch/x86/boot.rst. */
#define BOOT_HEADER_MAGIC 0x53726448u /* "HdrS" */
#define BOOT_HEADER_FLAG 0xaa55u
#define BOOT_HEADER_VERSION 0x20cu /* the oldest protocol with a 64-bit entry */

/* A kernel in guest memory. */
struct boot_kernel {
    enum boot_mode mode;
    gpa_t entry;
    uint64_t end;               /* no byte from here on is the kernel's when it starts */
    uint64_t initrd_last;       /* last address that may be the initrd's */
    uint64_t cmdline_max_bytes; /* without its end */
    struct setup_header header; /* for the zero page */
};

/* An initrd may reach this far when the kernel does not say: what every kernel since 2.6.14 accepts. */
#define BOOT_INITRD_LAST UINT64_C(0x7fffffff)

/* True when @head, the first @bytes of a file, are those of a bzImage, whole or cut off after its signature. */
bool boot_bzimage_is(const uint8_t *head, uint64_t bytes);
/*
 * boot_bzimage_load - by PVH when its vmlinux can be unpacked here and has that entry, else by the 64-bit entry.
 * boot_elf_load - by PVH when it has that entry, else by e_entry.
 * 0, or -1 with @diag; a part may have been loaded then.
 */
must_check int boot_bzimage_load(const struct boot_image *image, const struct boot_room *room, struct boot_kernel *out,
                                 struct diag *diag);
must_check int boot_elf_load(struct boot_image *image, const struct boot_room *room, struct boot_kernel *out,
                             struct diag *diag);

/*
 * boot_unpack - the payload of a bzImage, [offset, offset + bytes) of @image: zstd, or lz4 as the kernel packs it.
 * @out_bytes: what must come out. Holds a few 100 KiB beside @out for zstd, a packed block (8 MiB at most) for lz4.
 * 0; 1: neither of the two, nothing is written; -1 with @diag: damaged, not of that size, cannot be read.
 */
must_check int boot_unpack(const struct boot_image *image, uint64_t offset, uint64_t bytes, void *out,
                           uint64_t out_bytes, struct diag *diag);

#endif
