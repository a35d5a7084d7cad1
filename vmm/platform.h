/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a Linux guest finds where: agreed between the machine (which answers), the loader and ACPI (which announce).
 *
 *   0 .. 3 GiB            memory                       (PLATFORM_HOLE_GPA: end of low memory at most)
 *   0xd1000000            virtio-mmio devices, a page each
 *   0xfec00000            IOAPIC, 0xfee00000 local APICs (KVM's)
 *   4 GiB ..              the rest of the memory, then, at the next 2 GiB, memory of virtio-mem
 *
 * The embedded guest has the same memory; its own pages stand at 0xd0000000 (guest-images/ebbguest/abi.h).
 */
#ifndef VMM_PLATFORM_H
#define VMM_PLATFORM_H

#define PLATFORM_HOLE_GPA UINT64_C(0xc0000000)
#define PLATFORM_HIGH_GPA UINT64_C(0x100000000)

/* virtio-mmio device i: page PLATFORM_VIRTIO_GPA + i * 4096, edge-triggered GSI PLATFORM_VIRTIO_GSI + i */
#define PLATFORM_VIRTIO_GPA UINT64_C(0xd1000000)
#define PLATFORM_VIRTIO_GSI 5u
#define PLATFORM_MAX_VIRTIO 18u

#define PLATFORM_SERIAL_PORT 0x3f8u /* 16550, 8 ports */
#define PLATFORM_SERIAL_GSI 4u
#define PLATFORM_CMOS_PORT 0x70u   /* index and data; the clock reads as UTC */
#define PLATFORM_I8042_PORT 0x64u  /* command 0xfe: reset */
#define PLATFORM_RESET_PORT 0xcf9u /* bit 2: reset; FADT's RESET_REG writes 6 */
#define PLATFORM_SLEEP_PORT 0x600u /* ACPI SLEEP_CONTROL_REG; SLEEP_STATUS_REG is the next one. SLP_TYP 5: off */
#define PLATFORM_PANIC_PORT 0x505u /* pvpanic: bit 0 written: the guest's kernel panicked */

#endif
