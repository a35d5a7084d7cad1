/* SPDX-License-Identifier: Apache-2.0 */
/* bzImages and what stands around a kernel: initrd, command line, memory map, tables; memory sizes; files that are wrong. */
#include "tests/fake/fail_alloc.h"
#include "tests/unit/boot_rig.h"

#include <errno.h>
#include <lz4.h>

/* hvm_start_info and its lists, as 32- and 64-bit words. */
struct start_info {
    uint32_t magic, version, flags, nr_modules;
    uint64_t modules, cmdline, rsdp, map;
    uint32_t nr_map, reserved;
};
struct start_entry {
    uint64_t start, bytes;
    uint32_t type, reserved;
};

static struct boot_rig rig;
static size_t file_bytes;

static void setup(void)
{
    rig_init(&rig);
    file_bytes = rig_zstd_bzimage(rig.file, true);
}

static void teardown(void)
{
    rig_fini(&rig);
}

static void write_kernel(void)
{
    rig_write(rig.kernel, rig.file, file_bytes);
}

static struct setup_header *header(void)
{
    return rig_header(rig.file);
}

static void refused(const char *word)
{
    write_kernel();
    rig_load_refused(&rig, word);
    ck_assert_ptr_nonnull(strstr(rig.diag.text, rig.kernel));
    file_bytes = rig_zstd_bzimage(rig.file, true);
}

static const struct start_info *start_info(void)
{
    const struct start_info *info = rig_at(&rig, rig.entry.data.v, sizeof(*info));

    ck_assert_uint_eq(info->magic, 0x336ec578);
    ck_assert_uint_eq(info->version, 1);
    return info;
}

static const struct boot_params *zero_page(void)
{
    return rig_at(&rig, rig.entry.data.v, sizeof(struct boot_params));
}

/* A kernel that is left to unpack itself. */
static void make_64bit(void)
{
    file_bytes = rig_bzimage(rig.file, "\x1f\x8b gzip, for instance", 20, 4096);
}

/* --- which entry ------------------------------------------------------------------------------------ */

START_TEST(test_boot_zstd_bzimage_is_unpacked_and_entered_by_pvh)
{
    write_kernel();
    rig_load_ok(&rig);
    ck_assert_int_eq(rig.entry.mode, BOOT_PVH);
    ck_assert_uint_eq(rig.entry.rip.v, RIG_PVH_ENTRY);
    ck_assert(rig_is_filled(&rig, RIG_TEXT_GPA, 1, RIG_TEXT_BYTES));
    ck_assert(rig_is_filled(&rig, RIG_DATA_GPA, 2, RIG_DATA_BYTES));
}
END_TEST

/* The small vmlinux in two blocks, as for a kernel of more than 8 MiB. Returns the bzImage's bytes. */
static size_t make_lz4(void)
{
    uint8_t elf[RIG_ELF_BYTES], packed[2 * RIG_ELF_BYTES];
    uint32_t magic = 0x184c2102;
    size_t at = sizeof(magic);

    rig_elf(elf, true);
    memcpy(packed, &magic, sizeof(magic));
    for (unsigned i = 0; i < 2; i++) {
        const char *from = (const char *)elf + (i ? 1000 : 0);
        int bytes = i ? (int)RIG_ELF_BYTES - 1000 : 1000;
        int got = LZ4_compress_default(from, (char *)packed + at + 4, bytes, (int)(sizeof(packed) - at - 4));
        ck_assert_int_gt(got, 0);
        memcpy(packed + at, &got, 4);
        at += 4 + (size_t)got;
    }
    return rig_bzimage(rig.file, packed, at, sizeof(elf));
}

START_TEST(test_boot_lz4_bzimage_is_unpacked_and_entered_by_pvh)
{
    file_bytes = make_lz4();
    write_kernel();
    rig_load_ok(&rig);
    ck_assert_int_eq(rig.entry.mode, BOOT_PVH);
    ck_assert(rig_is_filled(&rig, RIG_TEXT_GPA, 1, RIG_TEXT_BYTES));
    ck_assert(rig_is_filled(&rig, RIG_DATA_GPA, 2, RIG_DATA_BYTES));
}
END_TEST

static void check_64bit_entry(void)
{
    write_kernel();
    rig_load_ok(&rig);
    ck_assert_int_eq(rig.entry.mode, BOOT_LONG);
    ck_assert_uint_eq(rig.entry.rip.v, RIG_TEXT_GPA + 0x200);
    ck_assert(rig_is_filled(&rig, RIG_TEXT_GPA, 3, RIG_PAYLOAD_OFFSET));
    ck_assert_int_eq(memcmp(rig_at(&rig, RIG_TEXT_GPA, 1), rig.file + RIG_CODE_OFFSET, file_bytes - RIG_CODE_OFFSET),
                     0);
}

START_TEST(test_boot_other_bzimages_are_entered_at_64_bits)
{
    uint8_t zeros[64] = {0}, packed[256];

    make_64bit(); /* a payload that is not unpacked here */
    check_64bit_entry();
    file_bytes = rig_zstd_bzimage(rig.file, false); /* a vmlinux without PVH */
    check_64bit_entry();
    size_t bytes = ZSTD_compress(packed, sizeof(packed), zeros, sizeof(zeros), 3); /* not a vmlinux */
    file_bytes = rig_bzimage(rig.file, packed, bytes, sizeof(zeros));
    check_64bit_entry();
    header()->payload_length = 0;
    check_64bit_entry();
}
END_TEST

START_TEST(test_boot_payload_that_is_damaged_is_refused)
{
    rig.file[RIG_CODE_OFFSET + RIG_PAYLOAD_OFFSET + 6] ^= 0xff;
    refused("damaged");
    uint8_t lz4[12] = {0x02, 0x21, 0x4c, 0x18, 0xff, 0xff, 0xff, 0xff};
    file_bytes = rig_bzimage(rig.file, lz4, sizeof(lz4), 4096);
    refused("damaged");
    file_bytes = rig_bzimage(rig.file, lz4, 6, 4096); /* the size of the block is cut off */
    refused("damaged");
    file_bytes = rig_bzimage(rig.file, lz4, 4, 4096); /* no block */
    refused("damaged");
    header()->payload_offset = (uint32_t)file_bytes;
    refused("payload");
    header()->payload_offset = UINT32_MAX;
    refused("payload");
    header()->payload_length = UINT32_MAX;
    refused("payload");
    header()->payload_length = 4;
    refused("payload");
}
END_TEST

START_TEST(test_boot_header_that_is_not_of_a_64_bit_bzimage_is_refused)
{
    header()->boot_flag = 0;
    refused("damaged");
    header()->version = 0x20b;
    refused("2.11");
    header()->xloadflags = 0;
    refused("i386");
    header()->loadflags = 0;
    refused("zImage");
    header()->jump = 0x00eb;
    refused("damaged");
    header()->kernel_alignment = 0;
    refused("damaged");
    header()->kernel_alignment = 0x300000;
    refused("damaged");
    header()->pref_address = BOOT_KERNEL_GPA - 1;
    refused("damaged");
    header()->setup_sects = 255;
    refused("truncated");
    header()->syssize += 1;
    refused("truncated");
    header()->syssize = UINT32_MAX;
    refused("truncated");
}
END_TEST

START_TEST(test_boot_code_behind_a_short_setup_header_is_not_copied)
{
    make_64bit();
    header()->jump = 0x62eb; /* to 0x264: init_size is the last field */
    header()->handover_offset = 0x12345678;
    check_64bit_entry();
    ck_assert_uint_eq(zero_page()->hdr.handover_offset, 0);
    ck_assert_uint_eq(zero_page()->hdr.init_size, RIG_INIT_BYTES);
}
END_TEST

START_TEST(test_boot_64_bit_kernel_is_placed_where_it_fits_and_not_one_past)
{
    uint64_t end = rig.mem.region[0].bytes, last = end - RIG_INIT_BYTES;

    make_64bit();
    header()->relocatable_kernel = 0;
    header()->pref_address = last;
    write_kernel();
    rig_load_ok(&rig);
    ck_assert_uint_eq(rig.entry.rip.v, last + 0x200);
    header()->pref_address = last + 1;
    write_kernel();
    rig_load_refused(&rig, "--memory");
    header()->pref_address = BOOT_KERNEL_GPA;
    write_kernel();
    rig_load_ok(&rig);
    ck_assert_uint_eq(rig.entry.rip.v, BOOT_KERNEL_GPA + 0x200);
    header()->pref_address = RIG_TEXT_GPA;
    header()->init_size = (uint32_t)(end - RIG_TEXT_GPA) + 1;
    write_kernel();
    rig_load_refused(&rig, "--memory");
    header()->init_size = 0; /* then its own bytes count */
    write_kernel();
    rig_load_ok(&rig);
    header()->pref_address = UINT64_MAX;
    header()->relocatable_kernel = 1;
    write_kernel();
    rig_load_refused(&rig, "--memory");
    /* Relocatable: it moves up to its alignment, and must fit there. */
    header()->init_size = RIG_INIT_BYTES;
    header()->pref_address = last - 1;
    write_kernel();
    rig_load_refused(&rig, "--memory");
}
END_TEST

START_TEST(test_boot_bzimage_of_every_shorter_length_is_refused)
{
    write_kernel();
    for (off_t bytes = (off_t)file_bytes - 16; bytes > 0; bytes--) {
        ck_assert_int_eq(truncate(rig.kernel, bytes), 0);
        ck_assert_int_eq(rig_load(&rig), -1);
        ck_assert_int_eq(rig.diag.code, EXIT_USAGE);
        ck_assert_msg(strstr(rig.diag.text, bytes < 0x206 ? "not a kernel" : "truncated") != NULL, "%s", rig.diag.text);
    }
}
END_TEST

START_TEST(test_boot_bzimage_with_any_corrupt_byte_is_answered)
{
    static const uint8_t values[] = {0x00, 0x01, 0x7f, 0x80, 0xff};
    unsigned nr_loaded = 0, nr_refused = 0;

    write_kernel();
    int fd = open(rig.kernel, O_WRONLY | O_CLOEXEC);
    for (off_t at = 0x1f1; at < (off_t)file_bytes; at++) {
        if (at == 0x270)
            at = RIG_CODE_OFFSET + RIG_PAYLOAD_OFFSET;
        for (unsigned i = 0; i < ARRAY_LEN(values); i++) {
            ck_assert_int_eq(pwrite(fd, &values[i], 1, at), 1);
            if (rig_load(&rig) == 0) {
                nr_loaded++;
            } else {
                ck_assert_int_eq(rig.diag.code, EXIT_USAGE);
                nr_refused++;
            }
        }
        ck_assert_int_eq(pwrite(fd, rig.file + at, 1, at), 1);
    }
    close(fd);
    ck_assert_uint_gt(nr_loaded, 100);
    ck_assert_uint_gt(nr_refused, 100);
}
END_TEST

/* --- what is around it ------------------------------------------------------------------------------ */

START_TEST(test_boot_initrd_stands_as_high_as_it_may)
{
    uint8_t initrd[5000];

    rig_fill(initrd, 5, sizeof(initrd));
    rig_write(rig.initrd, initrd, sizeof(initrd));
    rig.config.initrd_path = rig.initrd;
    write_kernel();
    rig_load_ok(&rig);
    const struct start_info *info = start_info();
    ck_assert_uint_eq(info->nr_modules, 1);
    const uint64_t *module = rig_at(&rig, info->modules, 32);
    ck_assert_uint_eq(module[0], 32 * RIG_MIB - 2 * PAGE_BYTES);
    ck_assert_uint_eq(module[1], sizeof(initrd));
    ck_assert_uint_eq(module[2], 0);
    ck_assert(rig_is_filled(&rig, module[0], 5, sizeof(initrd)));
    make_64bit();
    header()->initrd_addr_max = 20 * RIG_MIB - 1;
    write_kernel();
    rig_load_ok(&rig);
    ck_assert_uint_eq(zero_page()->hdr.ramdisk_image, 20 * RIG_MIB - 2 * PAGE_BYTES);
    ck_assert_uint_eq(zero_page()->hdr.ramdisk_size, sizeof(initrd));
    ck_assert(rig_is_filled(&rig, 20 * RIG_MIB - 2 * PAGE_BYTES, 5, sizeof(initrd)));
}
END_TEST

START_TEST(test_boot_initrd_fits_to_the_last_page_and_not_one_byte_more)
{
    uint64_t room = 32 * RIG_MIB - (RIG_TEXT_GPA + RIG_INIT_BYTES);

    make_64bit();
    write_kernel();
    rig.config.initrd_path = rig.initrd;
    rig_write(rig.initrd, "x", 1);
    ck_assert_int_eq(truncate(rig.initrd, (off_t)room), 0);
    rig_load_ok(&rig);
    ck_assert_uint_eq(zero_page()->hdr.ramdisk_image, RIG_TEXT_GPA + RIG_INIT_BYTES);
    static const uint64_t more[] = {1, RIG_TEXT_GPA, UINT64_C(1) << 32, UINT64_C(1) << 40};
    for (unsigned i = 0; i < ARRAY_LEN(more); i++) {
        ck_assert_int_eq(truncate(rig.initrd, (off_t)(room + more[i])), 0);
        rig_load_refused(&rig, "do not fit");
        ck_assert_ptr_nonnull(strstr(rig.diag.text, rig.initrd));
    }
    header()->initrd_addr_max = 0;
    write_kernel();
    ck_assert_int_eq(truncate(rig.initrd, 1), 0);
    rig_load_refused(&rig, "do not fit");
}
END_TEST

START_TEST(test_boot_command_line_fits_as_long_as_the_kernel_takes)
{
    char line[BOOT_MAX_CMDLINE_BYTES + 1];

    memset(line, 'a', sizeof(line));
    line[BOOT_MAX_CMDLINE_BYTES - 1] = '\0';
    rig.config.cmdline = line;
    write_kernel();
    rig_load_ok(&rig);
    ck_assert_str_eq(rig_at(&rig, start_info()->cmdline, sizeof(line)), line);
    line[BOOT_MAX_CMDLINE_BYTES - 1] = 'a';
    line[BOOT_MAX_CMDLINE_BYTES] = '\0';
    rig_load_refused(&rig, "2048 characters");
    header()->cmdline_size = UINT32_MAX; /* our own limit still holds */
    write_kernel();
    rig_load_refused(&rig, "at most 2047");
    header()->cmdline_size = 100;
    write_kernel();
    line[101] = '\0';
    rig_load_refused(&rig, "at most 100");
    line[100] = '\0';
    rig_load_ok(&rig);
    rig.config.cmdline = "";
    rig_load_ok(&rig);
    ck_assert_str_eq(rig_at(&rig, start_info()->cmdline, 1), "");
}
END_TEST

/* Start and end of each range by type, as the kernel reads them. */
static void check_map(uint64_t memory_bytes)
{
    uint64_t low = MIN_OF(memory_bytes, PLATFORM_HOLE_GPA);
    const struct start_entry expected[] = {{0, 0xa0000, 1, 0},
                                           {0xa0000, 0x60000, 2, 0},
                                           {RIG_MIB, low - RIG_MIB, 1, 0},
                                           {PLATFORM_HIGH_GPA, memory_bytes - low, 1, 0}};
    uint32_t nr = memory_bytes > low ? 4 : 3;

    file_bytes = rig_zstd_bzimage(rig.file, true);
    write_kernel();
    rig_load_ok(&rig);
    const struct start_info *info = start_info();
    ck_assert_uint_eq(info->nr_map, nr);
    ck_assert_int_eq(memcmp(rig_at(&rig, info->map, sizeof(expected)), expected, nr * sizeof(expected[0])), 0);
    make_64bit();
    write_kernel();
    rig_load_ok(&rig);
    ck_assert_uint_eq(zero_page()->e820_entries, nr);
    for (uint32_t i = 0; i < nr; i++) {
        ck_assert_uint_eq(zero_page()->e820_table[i].addr, expected[i].start);
        ck_assert_uint_eq(zero_page()->e820_table[i].size, expected[i].bytes);
        ck_assert_uint_eq(zero_page()->e820_table[i].type, expected[i].type);
    }
}

START_TEST(test_boot_memory_map_leaves_the_hole_out)
{
    static const uint64_t sizes[] = {128, 512, 3070, 3072, 3074, 4096, 6144};

    for (unsigned i = 0; i < ARRAY_LEN(sizes); i++) {
        rig_memory(&rig, sizes[i] * RIG_MIB);
        check_map(sizes[i] * RIG_MIB);
    }
}
END_TEST

START_TEST(test_boot_initrd_stays_below_two_gigabytes_in_large_memory)
{
    rig_memory(&rig, 6144 * RIG_MIB);
    rig_write(rig.initrd, "initrd", 6);
    rig.config.initrd_path = rig.initrd;
    write_kernel();
    rig_load_ok(&rig);
    ck_assert_uint_eq(*(const uint64_t *)rig_at(&rig, start_info()->modules, 8), 2048 * RIG_MIB - PAGE_BYTES);
}
END_TEST

START_TEST(test_boot_tables_of_the_64_bit_entry_map_four_gigabytes_one_to_one)
{
    static const uint64_t at[] = {0, 0x9000, RIG_TEXT_GPA, 0xbfffffff, 0xd1000000, 0xffffffff};

    make_64bit();
    write_kernel();
    rig_load_ok(&rig);
    for (unsigned i = 0; i < ARRAY_LEN(at); i++) {
        uint64_t entry = rig.entry.page_tables.v | 1;
        for (int level = 3; level >= 1; level--) {
            const uint64_t *table = rig_at(&rig, entry & ~UINT64_C(0xfff), PAGE_BYTES);
            entry = table[at[i] >> (12 + 9 * level) & 511];
            ck_assert_uint_eq(entry & 3, 3);
            ck_assert_int_eq(entry >> 7 & 1, level == 1);
        }
        ck_assert_uint_eq((entry & ~UINT64_C(0x1fffff)) | (at[i] & 0x1fffff), at[i]);
    }
    const uint64_t *top = rig_at(&rig, rig.entry.page_tables.v, 2 * PAGE_BYTES);
    ck_assert_uint_eq(top[1] | top[511] | top[512 + 4], 0);
}
END_TEST

/* Limit, base and the bits of a descriptor as KVM's struct kvm_segment would have them. */
static void check_descriptor(uint64_t descriptor, uint64_t limit, unsigned type, unsigned l, unsigned db)
{
    uint64_t got = (descriptor & 0xffff) | (descriptor >> 32 & 0xf0000);
    bool pages = descriptor >> 55 & 1;

    ck_assert_uint_eq(pages ? got << 12 | 0xfff : got, limit);
    ck_assert_uint_eq((descriptor >> 16 & 0xffffff) | (descriptor >> 32 & 0xff000000), 0);
    ck_assert_uint_eq(descriptor >> 40 & 0xf, type);
    ck_assert_uint_eq(descriptor >> 44 & 1, limit != 0x67);
    ck_assert_uint_eq(descriptor >> 45 & 3, 0);
    ck_assert_uint_eq(descriptor >> 47 & 1, 1);
    ck_assert_uint_eq(descriptor >> 53 & 1, l);
    ck_assert_uint_eq(descriptor >> 54 & 1, db);
}

START_TEST(test_boot_gdt_has_the_segments_of_each_mode)
{
    for (unsigned l = 0; l < 2; l++) {
        if (l)
            make_64bit();
        write_kernel();
        rig_load_ok(&rig);
        ck_assert_uint_eq(rig.entry.gdt_bytes, 48);
        const uint64_t *gdt = rig_at(&rig, rig.entry.gdt.v, 48);
        ck_assert_uint_eq(gdt[0] | gdt[1] | gdt[5], 0);
        check_descriptor(gdt[2], UINT32_MAX, 0xb, l, !l);
        check_descriptor(gdt[3], UINT32_MAX, 0x3, 0, 1);
        check_descriptor(gdt[4], 0x67, 0xb, 0, 0);
    }
}
END_TEST

START_TEST(test_boot_both_ways_name_the_acpi_tables)
{
    write_kernel();
    rig_load_ok(&rig);
    ck_assert_int_eq(memcmp(rig_at(&rig, start_info()->rsdp, 8), "RSD PTR ", 8), 0);
    ck_assert_uint_eq(start_info()->nr_modules, 0);
    ck_assert_uint_eq(start_info()->modules, 0);
    make_64bit();
    write_kernel();
    rig_load_ok(&rig);
    ck_assert_int_eq(memcmp(rig_at(&rig, zero_page()->acpi_rsdp_addr, 8), "RSD PTR ", 8), 0);
    ck_assert_uint_eq(zero_page()->hdr.code32_start, RIG_TEXT_GPA);
    ck_assert_uint_eq(zero_page()->hdr.ramdisk_size, 0);
    ck_assert_uint_eq(zero_page()->sentinel, 0);
    ck_assert_str_eq(rig_at(&rig, zero_page()->hdr.cmd_line_ptr, 64), "console=ttyS0");
}
END_TEST

/* Names of the tables that the XSDT lists, in its order, one after the other. */
static void list_tables(char out[64])
{
    const uint8_t *rsdp = rig_at(&rig, start_info()->rsdp, 36);
    uint64_t xsdt, at;
    uint32_t bytes;

    out[0] = '\0';
    memcpy(&xsdt, rsdp + 24, sizeof(xsdt));
    memcpy(&bytes, (const uint8_t *)rig_at(&rig, xsdt, 36) + 4, sizeof(bytes));
    for (uint32_t i = 36; i < bytes; i += 8) {
        memcpy(&at, (const uint8_t *)rig_at(&rig, xsdt + i, 8), sizeof(at));
        snprintf(out + strlen(out), 64 - strlen(out), "%.4s ", (const char *)rig_at(&rig, at, 4));
    }
}

START_TEST(test_boot_tables_of_nodes_are_there_only_when_asked_for)
{
    const struct guest_numa nodes = {.nr_nodes = 1, .node = {{3, 32 * RIG_MIB, -1}}, .distance = {{10}}};
    const struct acpi_numa numa = {.nodes = &nodes, .nr_cpus = 2, .low_bytes = 32 * RIG_MIB};
    char tables[64];

    write_kernel();
    rig_load_ok(&rig);
    list_tables(tables);
    ck_assert_str_eq(tables, "FACP APIC ");
    rig.config.numa = &numa;
    rig_load_ok(&rig);
    list_tables(tables);
    ck_assert_str_eq(tables, "FACP APIC SRAT SLIT HMAT ");
}
END_TEST

/* --- wrong use --------------------------------------------------------------------------------------- */

START_TEST(test_boot_files_that_are_no_kernels_are_named_for_what_they_are)
{
    static const struct {
        unsigned offset;
        const char *bytes, *word;
    } files[] = {{0x38, "ARM\x64", "arm64"},
                 {0x30, "RISCV", "riscv"},
                 {4, "zimg", "another architecture"},
                 {0, "\x1f\x8b", "gunzip"},
                 {0,
                  "\xfd"
                  "7zXZ",
                  "unxz"},
                 {0, "\x28\xb5\x2f\xfd", "unzstd"},
                 {0, "\x02\x21\x4c\x18", "lz4"},
                 {0, "\x04\x22\x4d\x18", "lz4"},
                 {0, "BZh", "bunzip2"},
                 {0, "MZ", "EFI program"},
                 {257, "ustar", "tar archive"},
                 {0, "070701", "--initrd"},
                 {0, "#!/bin/sh", "not a kernel"}};

    for (unsigned i = 0; i < ARRAY_LEN(files); i++) {
        memset(rig.file, 0, 4096);
        memcpy(rig.file + files[i].offset, files[i].bytes, strlen(files[i].bytes));
        file_bytes = 4096;
        refused(files[i].word);
    }
}
END_TEST

START_TEST(test_boot_files_that_cannot_be_opened_are_refused)
{
    rig_load_refused(&rig, "No such file");
    rig.config.kernel_path = rig.folder;
    rig_load_refused(&rig, "not a regular file");
    rig.config.kernel_path = "/dev/zero";
    rig_load_refused(&rig, "not a regular file");
    rig.config.kernel_path = rig.kernel;
    ck_assert_int_eq(mkfifo(rig.kernel, 0600), 0);
    rig_load_refused(&rig, "not a regular file");
    unlink(rig.kernel);
    ck_assert_int_eq(mknod(rig.kernel, S_IFSOCK | 0600, 0), 0);
    rig_load_refused(&rig, "not a regular file");
    unlink(rig.kernel);
    rig_write(rig.kernel, "", 0);
    rig_load_refused(&rig, "empty");
    write_kernel();
    rig.config.initrd_path = rig.initrd;
    rig_load_refused(&rig, "initrd");
    rig_write(rig.initrd, "", 0);
    rig_load_refused(&rig, "empty");
}
END_TEST

/* Between the look at its size and the reading of it. */
START_TEST(test_boot_file_that_becomes_shorter_cannot_be_read)
{
    struct boot_image image;
    struct diag diag = {0};
    char bytes[200];

    write_kernel();
    ck_assert_int_eq(boot_image_open(&image, "kernel", rig.kernel, &diag), 0);
    ck_assert_int_eq(boot_image_read(&image, 0, bytes, sizeof(bytes), &diag), 0);
    ck_assert_int_eq(truncate(rig.kernel, 100), 0);
    ck_assert_int_eq(boot_image_read(&image, 0, bytes, sizeof(bytes), &diag), -1);
    ck_assert_int_eq(diag.code, EXIT_HOST);
    ck_assert_ptr_nonnull(strstr(diag.text, "shorter"));
    diag = (struct diag){0};
    ck_assert_int_eq(boot_image_load(&image, 0, &rig.mem, (gpa_t){BOOT_KERNEL_GPA}, sizeof(bytes), &diag), -1);
    ck_assert_int_eq(diag.code, EXIT_HOST);
    boot_image_close(&image);
}
END_TEST

/* Every alignment to guest pages: what is not zero is written, and nothing else is touched. */
START_TEST(test_boot_pages_of_zeros_are_not_written)
{
    const size_t bytes = 3 * PAGE_BYTES;
    const struct boot_room room = {.mem = &rig.mem, .end = 32 * RIG_MIB};
    struct boot_image image = {
        .role = "kernel", .path = "memory", .fd = -1, .size_bytes = bytes, .room = &room, .gpa = {8 * RIG_MIB}};
    char *from = guest_mem_hva(&rig.mem, image.gpa, bytes);
    struct diag diag = {0};

    for (uint64_t shift = 0; shift < PAGE_BYTES; shift += 511) {
        char *to = guest_mem_hva(&rig.mem, (gpa_t){BOOT_KERNEL_GPA}, 5 * PAGE_BYTES);
        memset(from, 0, bytes);
        from[bytes - 1] = 7; /* in the last guest page that is reached */
        memset(to, '#', 5 * PAGE_BYTES);
        ck_assert_int_eq(boot_image_load(&image, 0, &rig.mem, (gpa_t){BOOT_KERNEL_GPA + shift}, bytes, &diag), 0);
        uint64_t last = shift + bytes - 1, written = last & ~(PAGE_BYTES - 1);
        for (uint64_t i = 0; i < 5 * PAGE_BYTES; i++)
            if (to[i] != (i == last ? 7 : i >= written && i < last ? 0 : '#'))
                ck_abort_msg("byte %lu at shift %lu", (unsigned long)i, (unsigned long)shift);
    }
}
END_TEST

START_TEST(test_boot_long_path_keeps_the_reason_in_one_line)
{
    char path[600];

    memset(path, 'p', sizeof(path));
    path[10] = '\n';
    path[sizeof(path) - 1] = '\0';
    rig.config.kernel_path = path;
    rig_load_refused(&rig, "File name too long");
    ck_assert_ptr_null(strchr(rig.diag.text, '\n'));
}
END_TEST

START_TEST(test_boot_limits_of_the_machine_are_checked)
{
    write_kernel();
    rig.config.nr_cpus = 0;
    rig_load_refused(&rig, "CPUs");
    rig.config.nr_cpus = BOOT_MAX_CPUS + 1;
    rig_load_refused(&rig, "CPUs");
    rig.config.nr_cpus = BOOT_MAX_CPUS;
    rig.config.nr_devices = BOOT_MAX_DEVICES;
    rig_load_ok(&rig);
    rig.config.nr_devices = BOOT_MAX_DEVICES + 1;
    rig_load_refused(&rig, "devices");
    rig.config.nr_devices = 0;
    rig_memory_add(&rig, PLATFORM_HIGH_GPA + RIG_MIB, RIG_MIB);
    rig_load_refused(&rig, "memory");
    rig.mem.region[1].start.v = PLATFORM_HIGH_GPA;
    rig_load_ok(&rig);
    rig_memory_add(&rig, PLATFORM_HIGH_GPA + RIG_MIB, RIG_MIB); /* a third one */
    rig_load_refused(&rig, "memory");
    rig_memory(&rig, RIG_MIB);
    rig_load_refused(&rig, "memory");
    rig_memory(&rig, 16 * RIG_MIB);
    rig_load_refused(&rig, "--memory");
    rig.mem.region[0].start.v = PAGE_BYTES;
    rig_load_refused(&rig, "memory");
    rig_memory_drop(&rig);
    rig_load_refused(&rig, "memory");
}
END_TEST

/* The kernel, packed in each way or not at all, and what comes after it. */
START_TEST(test_boot_that_is_told_to_stop_gives_up)
{
    atomic_bool stop = true;

    rig.config.stop = &stop;
    for (unsigned i = 0; i < 3; i++) {
        if (i == 1)
            file_bytes = make_lz4();
        else if (i == 2)
            make_64bit();
        write_kernel();
        ck_assert_int_eq(rig_load(&rig), -1);
        ck_assert_int_eq(rig.diag.code, EXIT_HOST);
        ck_assert_ptr_nonnull(strstr(rig.diag.text, "the run is over"));
    }
    stop = false;
    rig_load_ok(&rig);
}
END_TEST

START_TEST(test_boot_any_failed_allocation_is_the_hosts_fault)
{
    file_bytes = make_lz4();
    write_kernel();
    for (long n = 1;; n++) {
        struct diag diag = {0};
        fail_alloc_at(n);
        int err = boot_load(&rig.config, &rig.entry, &diag);
        bool failed = fail_alloc_fired();
        fail_alloc_at(-1);
        if (!failed) {
            ck_assert_int_gt(n, 1); /* a packed block; what zstd allocates is not seen here */
            ck_assert_int_eq(err, 0);
            break;
        }
        ck_assert_int_eq(err, -1);
        ck_assert_int_eq(diag.code, EXIT_HOST);
        ck_assert_str_eq(diag.text, "out of memory");
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("boot");
    TCase *tcase = tcase_create("boot");

    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_boot_zstd_bzimage_is_unpacked_and_entered_by_pvh);
    tcase_add_test(tcase, test_boot_lz4_bzimage_is_unpacked_and_entered_by_pvh);
    tcase_add_test(tcase, test_boot_other_bzimages_are_entered_at_64_bits);
    tcase_add_test(tcase, test_boot_payload_that_is_damaged_is_refused);
    tcase_add_test(tcase, test_boot_header_that_is_not_of_a_64_bit_bzimage_is_refused);
    tcase_add_test(tcase, test_boot_code_behind_a_short_setup_header_is_not_copied);
    tcase_add_test(tcase, test_boot_64_bit_kernel_is_placed_where_it_fits_and_not_one_past);
    tcase_add_test(tcase, test_boot_bzimage_of_every_shorter_length_is_refused);
    tcase_add_test(tcase, test_boot_bzimage_with_any_corrupt_byte_is_answered);
    tcase_add_test(tcase, test_boot_initrd_stands_as_high_as_it_may);
    tcase_add_test(tcase, test_boot_initrd_fits_to_the_last_page_and_not_one_byte_more);
    tcase_add_test(tcase, test_boot_command_line_fits_as_long_as_the_kernel_takes);
    tcase_add_test(tcase, test_boot_memory_map_leaves_the_hole_out);
    tcase_add_test(tcase, test_boot_initrd_stays_below_two_gigabytes_in_large_memory);
    tcase_add_test(tcase, test_boot_tables_of_the_64_bit_entry_map_four_gigabytes_one_to_one);
    tcase_add_test(tcase, test_boot_gdt_has_the_segments_of_each_mode);
    tcase_add_test(tcase, test_boot_both_ways_name_the_acpi_tables);
    tcase_add_test(tcase, test_boot_tables_of_nodes_are_there_only_when_asked_for);
    tcase_add_test(tcase, test_boot_files_that_are_no_kernels_are_named_for_what_they_are);
    tcase_add_test(tcase, test_boot_files_that_cannot_be_opened_are_refused);
    tcase_add_test(tcase, test_boot_file_that_becomes_shorter_cannot_be_read);
    tcase_add_test(tcase, test_boot_pages_of_zeros_are_not_written);
    tcase_add_test(tcase, test_boot_long_path_keeps_the_reason_in_one_line);
    tcase_add_test(tcase, test_boot_limits_of_the_machine_are_checked);
    tcase_add_test(tcase, test_boot_that_is_told_to_stop_gives_up);
    tcase_add_test(tcase, test_boot_any_failed_allocation_is_the_hosts_fault);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
