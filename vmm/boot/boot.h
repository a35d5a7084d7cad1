/* SPDX-License-Identifier: Apache-2.0 */
/*
 * boot: a Linux kernel, its initrd, command line, memory map and ACPI tables into guest memory, before the vCPUs run.
 *
 *   bzImage   64-bit boot protocol (Documentation/arch/x86/boot.rst), or its vmlinux by PVH where that is quicker
 *   ELF       vmlinux: PVH entry where it has the note, else 64-bit entry with a zero page
 */
#ifndef VMM_BOOT_BOOT_H
#define VMM_BOOT_BOOT_H

#include "mm/map/guest_mem.h"
#include "vmm/diag.h"

#define BOOT_MAX_CMDLINE_BYTES 2048 /* with its end */
#define BOOT_MAX_DEVICES 18

struct boot_config {
    const char *kernel_path;
    const char *initrd_path; /* NULL: none */
    const char *cmdline;
    const struct guest_mem *mem; /* region 0 starts at 0; region 1, if there is one, at 4 GiB. Others are not RAM yet */
    unsigned nr_cpus;            /* APIC ids 0 .. nr_cpus - 1 */
    unsigned nr_devices;         /* virtio-mmio devices 0 .. nr_devices - 1, as vmm/platform.h places them */
};

enum boot_mode {
    BOOT_LONG, /* 64-bit mode, identity-mapped tables at @page_tables, rsi = @data (boot_params) */
    BOOT_PVH,  /* 32-bit protected mode without paging, ebx = @data (hvm_start_info) */
};

/* Registers of the first vCPU. The others wait for their start-up interrupt. */
struct boot_entry {
    enum boot_mode mode;
    gpa_t rip, data, page_tables;
    gpa_t gdt; /* of the loader: code at selector 0x10, data at 0x18, TSS at 0x20 */
    uint16_t gdt_bytes;
};

/*
 * boot_load - 0, or -1 with @diag: EXIT_USAGE where a file is not what it should be or does not fit (which, why, and what
 * would be right), EXIT_HOST where it cannot be read.
 */
must_check int boot_load(const struct boot_config *config, struct boot_entry *out, struct diag *diag);

#endif
