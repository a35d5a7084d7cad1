/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory between guard pages, files in a folder of its own, and small kernels: what the boot tests share.
 * A kernel here is as small as the formats allow; its code is bytes that say where they came from.
 */
#ifndef TESTS_UNIT_BOOT_RIG_H
#define TESTS_UNIT_BOOT_RIG_H

#include "vmm/boot/boot.h"
#include "vmm/boot/kernel.h"
#include "vmm/platform.h"

#include <check.h>
#include <elf.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#define RIG_MIB (UINT64_C(1) << 20)
#define RIG_FILE_BYTES (1u << 20)

/* The small vmlinux: two segments and the notes. */
#define RIG_TEXT_GPA UINT64_C(0x1000000)
#define RIG_TEXT_BYTES 0x900u
#define RIG_DATA_GPA UINT64_C(0x1200080)
#define RIG_DATA_BYTES 0x180u
#define RIG_DATA_MEMORY 0x5000u
#define RIG_TEXT_OFFSET 0x200u
#define RIG_DATA_OFFSET (RIG_TEXT_OFFSET + RIG_TEXT_BYTES)
#define RIG_NOTES_OFFSET (RIG_DATA_OFFSET + RIG_DATA_BYTES)
#define RIG_NOTES_BYTES 44u /* "Linux", then the PVH entry */
#define RIG_ELF_BYTES (RIG_NOTES_OFFSET + RIG_NOTES_BYTES)
#define RIG_PVH_ENTRY (RIG_TEXT_GPA + 0x30)
#define RIG_ELF_ENTRY (RIG_TEXT_GPA + 0x10)

/* The small bzImage. */
#define RIG_SETUP_SECTORS 2u
#define RIG_CODE_OFFSET ((RIG_SETUP_SECTORS + 1) * 512)
#define RIG_PAYLOAD_OFFSET 0x240u /* from the code */
#define RIG_INIT_BYTES 0x300000u

struct boot_rig {
    char folder[64], kernel[96], initrd[96];
    struct guest_mem mem;
    char *map[3];
    size_t map_bytes[3];
    struct boot_config config;
    struct boot_entry entry;
    struct diag diag;
    uint8_t *file; /* RIG_FILE_BYTES, for building */
};

static inline void rig_memory_add(struct boot_rig *rig, uint64_t start, uint64_t bytes)
{
    unsigned i = rig->mem.nr++;

    rig->map_bytes[i] = bytes + 2 * PAGE_BYTES;
    rig->map[i] = mmap(NULL, rig->map_bytes[i], PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    ck_assert_ptr_ne(rig->map[i], MAP_FAILED);
    ck_assert_int_eq(mprotect(rig->map[i] + PAGE_BYTES, bytes, PROT_READ | PROT_WRITE), 0);
    rig->mem.region[i] = (struct guest_mem_region){{start}, bytes, rig->map[i] + PAGE_BYTES};
}

static inline void rig_memory_drop(struct boot_rig *rig)
{
    for (unsigned i = 0; i < rig->mem.nr; i++)
        munmap(rig->map[i], rig->map_bytes[i]);
    rig->mem.nr = 0;
}

/* Memory of this size from now on, all zeros. */
static inline void rig_memory(struct boot_rig *rig, uint64_t bytes)
{
    rig_memory_drop(rig);
    rig_memory_add(rig, 0, MIN_OF(bytes, PLATFORM_HOLE_GPA));
    if (bytes > PLATFORM_HOLE_GPA)
        rig_memory_add(rig, PLATFORM_HIGH_GPA, bytes - PLATFORM_HOLE_GPA);
}

static inline void rig_init(struct boot_rig *rig)
{
    const char *tmp = getenv("TMPDIR");

    memset(rig, 0, sizeof(*rig));
    snprintf(rig->folder, sizeof(rig->folder), "%.40s/ebb-boot-XXXXXX", tmp ? tmp : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(rig->folder));
    snprintf(rig->kernel, sizeof(rig->kernel), "%s/vmlinuz", rig->folder);
    snprintf(rig->initrd, sizeof(rig->initrd), "%s/initrd", rig->folder);
    rig->file = calloc(1, RIG_FILE_BYTES);
    ck_assert_ptr_nonnull(rig->file);
    rig_memory(rig, 32 * RIG_MIB);
    rig->config = (struct boot_config){
        .kernel_path = rig->kernel, .cmdline = "console=ttyS0", .mem = &rig->mem, .nr_cpus = 2, .nr_devices = 3};
}

static inline void rig_fini(struct boot_rig *rig)
{
    rig_memory_drop(rig);
    free(rig->file);
    unlink(rig->kernel);
    unlink(rig->initrd);
    ck_assert_int_eq(rmdir(rig->folder), 0);
}

static inline void rig_write(const char *path, const void *data, size_t bytes)
{
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, data, bytes), (ssize_t)bytes);
    close(fd);
}

/* Loads what is in the files; the result is boot_load's, and diag fits to it. */
static inline int rig_load(struct boot_rig *rig)
{
    memset(&rig->diag, 0, sizeof(rig->diag));
    int err = boot_load(&rig->config, &rig->entry, &rig->diag);
    if (err == 0) {
        ck_assert_str_eq(rig->diag.text, "");
        ck_assert_msg(guest_mem_hva(&rig->mem, rig->entry.rip, 1) != NULL, "rip 0x%lx",
                      (unsigned long)rig->entry.rip.v);
    } else {
        ck_assert_int_eq(err, -1);
        ck_assert_uint_gt(strlen(rig->diag.text), 20);
        ck_assert_uint_lt(strlen(rig->diag.text), 390);
        ck_assert_uint_eq(rig->entry.rip.v, 0);
    }
    return err;
}

static inline void rig_load_ok(struct boot_rig *rig)
{
    ck_assert_msg(rig_load(rig) == 0, "%s", rig->diag.text);
}

/* Refused as wrong usage, in a line with @word that names the file. */
static inline void rig_load_refused(struct boot_rig *rig, const char *word)
{
    ck_assert_msg(rig_load(rig) == -1, "loaded, where \"%s\" was expected", word);
    ck_assert_msg(rig->diag.code == EXIT_USAGE, "code %d: %s", (int)rig->diag.code, rig->diag.text);
    ck_assert_msg(strstr(rig->diag.text, word) != NULL, "no \"%s\" in: %s", word, rig->diag.text);
}

static inline const void *rig_at(const struct boot_rig *rig, uint64_t gpa, uint64_t bytes)
{
    const void *at = guest_mem_hva(&rig->mem, (gpa_t){gpa}, bytes);

    ck_assert_ptr_nonnull(at);
    return at;
}

/* Byte @i of what is loaded: never 0, differs with @seed. */
static inline uint8_t rig_byte(unsigned seed, size_t i)
{
    return (uint8_t)(1 + (i * 7 + (i >> 8) + seed * 31) % 255);
}

static inline void rig_fill(uint8_t *to, unsigned seed, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        to[i] = rig_byte(seed, i);
}

static inline bool rig_is_filled(const struct boot_rig *rig, uint64_t gpa, unsigned seed, size_t bytes)
{
    const uint8_t *at = rig_at(rig, gpa, bytes);

    for (size_t i = 0; i < bytes; i++)
        if (at[i] != rig_byte(seed, i))
            return false;
    return true;
}

/* The small vmlinux at @to; RIG_ELF_BYTES. */
static inline void rig_elf(uint8_t *to, bool pvh)
{
    Elf64_Ehdr header = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
                         .e_type = ET_EXEC,
                         .e_machine = EM_X86_64,
                         .e_version = EV_CURRENT,
                         .e_entry = RIG_ELF_ENTRY,
                         .e_phoff = sizeof(Elf64_Ehdr),
                         .e_ehsize = sizeof(Elf64_Ehdr),
                         .e_phentsize = sizeof(Elf64_Phdr),
                         .e_phnum = 3};
    const Elf64_Phdr program[3] = {{.p_type = PT_LOAD,
                                    .p_offset = RIG_TEXT_OFFSET,
                                    .p_paddr = RIG_TEXT_GPA,
                                    .p_filesz = RIG_TEXT_BYTES,
                                    .p_memsz = RIG_TEXT_BYTES},
                                   {.p_type = PT_LOAD,
                                    .p_offset = RIG_DATA_OFFSET,
                                    .p_paddr = RIG_DATA_GPA,
                                    .p_filesz = RIG_DATA_BYTES,
                                    .p_memsz = RIG_DATA_MEMORY},
                                   {.p_type = PT_NOTE,
                                    .p_offset = RIG_NOTES_OFFSET,
                                    .p_filesz = RIG_NOTES_BYTES,
                                    .p_memsz = RIG_NOTES_BYTES,
                                    .p_align = 4}};
    const struct {
        Elf64_Nhdr linux_note;
        char linux_name[8];
        uint32_t linux_value;
        Elf64_Nhdr xen_note;
        char xen_name[4];
        uint32_t xen_value;
    } notes = {{6, 4, 257}, "Linux", 0, {4, 4, pvh ? 18 : 17}, "Xen", (uint32_t)RIG_PVH_ENTRY};
    _Static_assert(sizeof(notes) == RIG_NOTES_BYTES, "no padding");

    memset(to, 0, RIG_ELF_BYTES);
    memcpy(to, &header, sizeof(header));
    memcpy(to + sizeof(header), program, sizeof(program));
    rig_fill(to + RIG_TEXT_OFFSET, 1, RIG_TEXT_BYTES);
    rig_fill(to + RIG_DATA_OFFSET, 2, RIG_DATA_BYTES);
    memcpy(to + RIG_NOTES_OFFSET, &notes, sizeof(notes));
}

/* The setup header of a small bzImage, to be changed in place. */
static inline struct setup_header *rig_header(uint8_t *bzimage)
{
    return (struct setup_header *)(void *)(bzimage + offsetof(struct boot_params, hdr));
}

/* A small bzImage at @to around @payload (@bytes, then the size when unpacked); returns its bytes. */
static inline size_t rig_bzimage(uint8_t *to, const void *payload, size_t bytes, uint32_t unpacked_bytes)
{
    size_t code_bytes = RIG_PAYLOAD_OFFSET + bytes + sizeof(unpacked_bytes) + 32;

    memset(to, 0, RIG_CODE_OFFSET);
    *rig_header(to) = (struct setup_header){.setup_sects = RIG_SETUP_SECTORS,
                                            .syssize = (uint32_t)(code_bytes + 15) / 16,
                                            .boot_flag = 0xaa55,
                                            .jump = 0x6aeb,
                                            .header = 0x53726448,
                                            .version = 0x20f,
                                            .loadflags = LOADED_HIGH,
                                            .initrd_addr_max = 0x7fffffff,
                                            .kernel_alignment = 0x200000,
                                            .relocatable_kernel = 1,
                                            .xloadflags = XLF_KERNEL_64,
                                            .cmdline_size = 2047,
                                            .payload_offset = RIG_PAYLOAD_OFFSET,
                                            .payload_length = (uint32_t)(bytes + sizeof(unpacked_bytes)),
                                            .pref_address = RIG_TEXT_GPA,
                                            .init_size = RIG_INIT_BYTES};
    rig_fill(to + RIG_CODE_OFFSET, 3, code_bytes);
    memcpy(to + RIG_CODE_OFFSET + RIG_PAYLOAD_OFFSET, payload, bytes);
    memcpy(to + RIG_CODE_OFFSET + RIG_PAYLOAD_OFFSET + bytes, &unpacked_bytes, sizeof(unpacked_bytes));
    return RIG_CODE_OFFSET + code_bytes;
}

/* The small vmlinux, packed by zstd, in a small bzImage at @to. */
static inline size_t rig_zstd_bzimage(uint8_t *to, bool pvh)
{
    uint8_t elf[RIG_ELF_BYTES], packed[2 * RIG_ELF_BYTES];

    rig_elf(elf, pvh);
    size_t bytes = ZSTD_compress(packed, sizeof(packed), elf, sizeof(elf), 3);
    ck_assert(!ZSTD_isError(bytes));
    return rig_bzimage(to, packed, bytes, sizeof(elf));
}

#endif
