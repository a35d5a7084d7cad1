/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bzImage: real-mode sectors with the setup header, then the 64-bit code that unpacks the payload, a vmlinux.
 * Source: Documentation/arch/x86/boot.rst, protocol 2.12 and later.
 *
 * Unpacked here and entered by PVH, the kernel starts about as fast as it can: nothing is unpacked in the guest, and only
 * pages that are not zeros are ever written.
 */
#include "vmm/boot/elf.h"

#include <inttypes.h>
#include <string.h>

#define SECTOR_BYTES 512u
#define HEADER_OFFSET offsetof(struct boot_params, hdr)
#define MAGIC_OFFSET (HEADER_OFFSET + offsetof(struct setup_header, header))
/* The jump over the header says where the header ends: its second byte counts from the byte after it. */
#define HEADER_END(header) (MAGIC_OFFSET + ((header)->jump >> 8))
/* Protocol 2.12 has all fields up to init_size. */
#define SHORTEST_END (HEADER_OFFSET + offsetof(struct setup_header, handover_offset))
#define ENTRY_OFFSET 0x200u /* of the 64-bit entry, from where the code is loaded */

struct bzimage {
    struct setup_header header;
    uint64_t code_offset, code_bytes; /* what follows the real-mode sectors */
};

bool boot_bzimage_is(const uint8_t *head, uint64_t bytes)
{
    const uint32_t magic = BOOT_HEADER_MAGIC;

    return bytes >= MAGIC_OFFSET + sizeof(magic) && memcmp(head + MAGIC_OFFSET, &magic, sizeof(magic)) == 0;
}

static int check_header(const struct boot_image *image, const struct setup_header *header, struct diag *diag)
{
    if (header->boot_flag != BOOT_HEADER_FLAG || header->header != BOOT_HEADER_MAGIC)
        return boot_image_bad(image, diag, "damaged: no boot signature; get another copy");
    if (header->version < BOOT_HEADER_VERSION)
        return boot_image_bad(image, diag,
                              "boot protocol %u.%02u is too old; give a kernel of Linux 3.8 or later (2.12)",
                              header->version >> 8, header->version & 0xffu);
    if (!(header->xloadflags & XLF_KERNEL_64))
        return boot_image_bad(image, diag,
                              "a bzImage without a 64-bit entry, as i386 has it; give a kernel for x86-64");
    if (!(header->loadflags & LOADED_HIGH))
        return boot_image_bad(image, diag, "a zImage, which is loaded below 1M; give a bzImage");
    if (HEADER_END(header) < SHORTEST_END)
        return boot_image_bad(image, diag, "damaged: its setup header ends at 0x%zx; get another copy",
                              HEADER_END(header));
    if (header->pref_address < BOOT_KERNEL_GPA || header->kernel_alignment == 0 ||
        (header->kernel_alignment & (header->kernel_alignment - 1)) != 0)
        return boot_image_bad(image, diag,
                              "damaged: it wants to stand at 0x%" PRIx64 ", aligned to 0x%x; get another copy",
                              (uint64_t)header->pref_address, header->kernel_alignment);
    return 0;
}

static int parse(const struct boot_image *image, struct bzimage *out, struct diag *diag)
{
    struct setup_header *header = &out->header;

    if (boot_image_read(image, HEADER_OFFSET, header, sizeof(*header), diag) || check_header(image, header, diag))
        return -1;
    /* What stands behind the end of the header is code. */
    size_t known = HEADER_END(header) - HEADER_OFFSET;
    if (known < sizeof(*header))
        memset((char *)header + known, 0, sizeof(*header) - known);
    out->code_offset = ((header->setup_sects ? header->setup_sects : 4u) + 1) * SECTOR_BYTES;
    if (out->code_offset >= image->size_bytes)
        return boot_image_bad(image, diag, "truncated: it ends before its code; get the whole file");
    out->code_bytes = image->size_bytes - out->code_offset;
    /* In units of 16 bytes; the last one need not be full. */
    if ((out->code_bytes + 15) / 16 < header->syssize || out->code_bytes <= ENTRY_OFFSET)
        return boot_image_bad(
            image, diag, "truncated: 0x%" PRIx64 " bytes of code, where 0x%" PRIx64 " should be; get the whole file",
            out->code_bytes, (uint64_t)header->syssize * 16);
    return 0;
}

static void describe(const struct bzimage *bz, struct boot_kernel *out)
{
    out->initrd_last = bz->header.initrd_addr_max;
    out->cmdline_max_bytes = MIN_OF(bz->header.cmdline_size, (uint32_t)BOOT_MAX_CMDLINE_BYTES - 1);
    out->header = bz->header;
}

static int load_64bit(const struct boot_image *image, const struct bzimage *bz, const struct boot_room *room,
                      struct boot_kernel *out, struct diag *diag)
{
    const struct setup_header *header = &bz->header;
    /* A relocatable kernel that stands below its preferred address moves up to it, so there is no point in another one. */
    uint64_t start = header->pref_address, run = start, bytes = MAX_OF(header->init_size, bz->code_bytes);

    if (header->relocatable_kernel && start < room->end)
        run = (start + header->kernel_alignment - 1) & ~((uint64_t)header->kernel_alignment - 1);
    if (run > room->end || bytes > room->end - run)
        return boot_image_bad(image, diag,
                              "too large: it needs 0x%" PRIx64 " bytes from 0x%" PRIx64 " on, memory ends at 0x%" PRIx64
                              "; give more --memory",
                              bytes, run, room->end);
    if (boot_image_load(image, bz->code_offset, room->mem, (gpa_t){start}, bz->code_bytes, diag))
        return -1;
    *out = (struct boot_kernel){.mode = BOOT_LONG, .entry = {start + ENTRY_OFFSET}, .end = run + bytes};
    describe(bz, out);
    out->header.code32_start = (uint32_t)start;
    return 0;
}

/*
 * The payload at the end of low memory. 0; 1: it is not one that we unpack, or there is no room for it beside a kernel;
 * -1 with @diag. @vmlinux is to be forgotten in each case.
 */
static int unpack(const struct boot_image *image, const struct bzimage *bz, const struct boot_room *room,
                  struct boot_image *vmlinux, struct diag *diag)
{
    uint64_t offset = bz->header.payload_offset, bytes = bz->header.payload_length;
    uint32_t unpacked;

    if (bytes == 0)
        return 1;
    if (bytes <= sizeof(unpacked) || offset > bz->code_bytes || bytes > bz->code_bytes - offset)
        return boot_image_bad(image, diag, "truncated or damaged: its payload is not all there; get the whole file");
    /* Its size when unpacked stands in its last 4 bytes. */
    offset += bz->code_offset;
    bytes -= sizeof(unpacked);
    if (boot_image_read(image, offset + bytes, &unpacked, sizeof(unpacked), diag))
        return -1;
    /* Whole blocks, which come and go at once. */
    uint64_t scratch = ((uint64_t)unpacked + BLOCK_BYTES - 1) & ~(BLOCK_BYTES - 1);
    if (unpacked == 0 || scratch > room->end - BOOT_KERNEL_GPA)
        return 1;
    *vmlinux = (struct boot_image){.role = image->role,
                                   .path = image->path,
                                   .fd = -1,
                                   .size_bytes = unpacked,
                                   .stop = image->stop,
                                   .room = room,
                                   .gpa = {room->end - scratch}};
    return boot_unpack(image, offset, bytes, guest_mem_hva(room->mem, vmlinux->gpa, unpacked), unpacked, diag);
}

/* The unpacked vmlinux, by PVH. 0; 1: not such a kernel, or it would stand where it is unpacked, nothing is loaded; -1
 * with @diag. */
static int load_unpacked(struct boot_image *vmlinux, const struct bzimage *bz, const struct boot_room *room,
                         struct boot_kernel *out, struct diag *diag)
{
    struct diag unused = {0};
    struct boot_elf elf;

    if (boot_elf_parse(vmlinux, &elf, &unused) || !elf.pvh_entry || elf.end > vmlinux->gpa.v)
        return 1;
    if (boot_elf_place(vmlinux, &elf, room, diag))
        return -1;
    *out = (struct boot_kernel){.mode = BOOT_PVH, .entry = {elf.pvh_entry}, .end = elf.end};
    describe(bz, out);
    return 0;
}

int boot_bzimage_load(const struct boot_image *image, const struct boot_room *room, struct boot_kernel *out,
                      struct diag *diag)
{
    struct boot_image vmlinux = {.fd = -1};
    struct bzimage bz;

    if (parse(image, &bz, diag))
        return -1;
    int err = unpack(image, &bz, room, &vmlinux, diag);
    if (!err)
        err = load_unpacked(&vmlinux, &bz, room, out, diag);
    boot_image_forget(&vmlinux, vmlinux.size_bytes);
    return err > 0 ? load_64bit(image, &bz, room, out, diag) : err;
}
