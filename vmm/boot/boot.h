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
#include "vmm/boot/acpi_numa.h"
#include "vmm/diag.h"

#include <stdatomic.h>

#define BOOT_MAX_CMDLINE_BYTES 2048 /* with its end */
#define BOOT_MAX_DEVICES 18
#define BOOT_MAX_CPUS 255 /* that a local APIC's 8-bit id can name */

struct boot_config {
    const char *kernel_path;
    const char *initrd_path; /* NULL: none */
    const char *cmdline;
    /* Region 0 starts at 0 and ends at PLATFORM_HOLE_GPA or below; region 1, if any, starts at 4 GiB. All of it is RAM,
     * and new: zeros. What virtio-mem may plug is left out. */
    const struct guest_mem *mem;
    unsigned nr_cpus; /* APIC ids 0 .. nr_cpus - 1 */
    /* The guest's nodes, for nr_cpus and mem. NULL: it is told of none. */
    const struct acpi_numa *numa;
    unsigned nr_devices; /* virtio-mmio devices 0 .. nr_devices - 1, as vmm/platform.h places them */
    /* [gpa, gpa + bytes), whole pages, is to be zeros again and to take no memory. NULL: zeros are written. */
    void (*forget)(void *ctx, gpa_t gpa, uint64_t bytes);
    void *ctx;
    /* True: a page could not be had, and what is written from now on may be memory beyond the budget: give up. NULL: never. */
    const atomic_bool *stop;
};

enum boot_mode {
    BOOT_LONG, /* 64-bit mode, identity-mapped tables at @page_tables, rsi = @data (boot_params) */
    BOOT_PVH,  /* 32-bit protected mode without paging, ebx = @data (hvm_start_info) */
};

/*
 * The first vCPU before its first KVM_RUN; the others wait for their start-up interrupt.
 *
 *            BOOT_LONG                                   BOOT_PVH
 *   rip      @rip                                        @rip
 *   data in  rsi = @data                                 rbx = @data
 *   other general registers 0, rflags 0x2 (interrupts off) in both
 *   cr0      PG | PE (0x80000001)                        PE (0x1); KVM adds ET
 *   cr3      @page_tables                                0
 *   cr4      PAE (0x20)                                  0
 *   efer     LME | LMA (0x500)                           0
 *   cs       selector 0x10, base 0, limit 0xffffffff, type 0xb, s 1, dpl 0, present 1, g 1
 *            l 1, db 0                                   l 0, db 1
 *   ds es fs gs ss   selector 0x18, base 0, limit 0xffffffff, type 0x3, s 1, dpl 0, present 1, g 1, l 0, db 1
 *   tr       selector 0x20, base 0, limit 0x67, type 0xb, s 0, dpl 0, present 1, g 0
 *   ldt      unusable
 *   gdt      base @gdt, limit @gdt_bytes - 1;  idt: base 0, limit 0
 *
 * KVM wants the CPUID first, then the segments and control registers in one call.
 */
struct boot_entry {
    enum boot_mode mode;
    gpa_t rip, data, page_tables;
    gpa_t gdt; /* of the loader: code at selector 0x10, data at 0x18, TSS at 0x20 */
    uint16_t gdt_bytes;
};

/*
 * boot_load - reads the files and fills guest memory below and above 1 MiB (docs/boot.md has the map). Waits for fault
 * threads where memory is not resident. 0; or -1 with @diag, *out zeros, and a part of all that in guest memory:
 * EXIT_USAGE where a file is not there, not what it should be, or does not fit (which, why, and what would be right),
 * EXIT_HOST where it cannot be read, for want of memory, or when told to stop: then no more than 8 MiB is written.
 */
must_check int boot_load(const struct boot_config *config, struct boot_entry *out, struct diag *diag);

#endif
