/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/boot/boot.h"

#include "vmm/boot/acpi.h"
#include "vmm/boot/kernel.h"
#include "vmm/platform.h"

#include <elf.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define LEAST_MEMORY_BYTES (UINT64_C(2) << 20)
/* Type of loader for one without a number of its own. */
#define LOADER_UNDEFINED 0xff

#define MAX_MAP 4
enum { E820_RAM = 1, E820_RESERVED = 2 };

struct memory_map {
    unsigned nr;
    struct {
        uint64_t start, bytes;
        uint32_t type;
    } entry[MAX_MAP];
};

/* PVH: xen/include/public/arch-x86/hvm/start_info.h, version 1. */
struct start_info {
    uint32_t magic, version, flags, nr_modules;
    uint64_t modules, cmdline, rsdp, memory_map;
    uint32_t nr_memory_map, reserved;
};
struct start_module {
    uint64_t start, bytes, cmdline, reserved;
};
struct start_memory {
    uint64_t start, bytes;
    uint32_t type, reserved; /* types as in e820 */
};
struct start_page {
    struct start_info info;
    struct start_module initrd;
    struct start_memory memory[MAX_MAP];
};
#define START_INFO_MAGIC 0x336ec578u

/* Where boot_load has put things, for the kernel to be told. */
struct placed {
    struct memory_map map;
    uint64_t initrd, initrd_bytes; /* 0: none */
    uint64_t rsdp;
};

/* --- what is given --------------------------------------------------------------------------------- */

static int check_config(const struct boot_config *config, struct diag *diag)
{
    const struct guest_mem *mem = config->mem;

    if (mem->nr < 1 || mem->nr > 2 || mem->region[0].start.v != 0 || mem->region[0].bytes < LEAST_MEMORY_BYTES ||
        mem->region[0].bytes > PLATFORM_HOLE_GPA || (mem->nr == 2 && mem->region[1].start.v != PLATFORM_HIGH_GPA))
        return diag_set(diag, EXIT_USAGE,
                        "a Linux guest needs memory from address 0 on, at least 2M; give more --memory");
    if (config->nr_cpus < 1 || config->nr_cpus > BOOT_MAX_CPUS)
        return diag_set(diag, EXIT_USAGE, "a Linux guest can have 1 to %d CPUs, not %u", BOOT_MAX_CPUS,
                        config->nr_cpus);
    if (config->nr_devices > BOOT_MAX_DEVICES)
        return diag_set(diag, EXIT_USAGE, "a Linux guest can have %d devices, not %u; give fewer disks and networks",
                        BOOT_MAX_DEVICES, config->nr_devices);
    return 0;
}

static void map_add(struct memory_map *map, uint64_t start, uint64_t end, uint32_t type)
{
    map->entry[map->nr].start = start;
    map->entry[map->nr].bytes = end - start;
    map->entry[map->nr++].type = type;
}

/* The hole with the devices is not in the map: what is in no entry is not memory. */
static void make_map(const struct boot_config *config, struct memory_map *map)
{
    map_add(map, 0, BOOT_LOW_END_GPA, E820_RAM);
    map_add(map, BOOT_LOW_END_GPA, BOOT_KERNEL_GPA, E820_RESERVED);
    map_add(map, BOOT_KERNEL_GPA, config->mem->region[0].bytes, E820_RAM);
    if (config->mem->nr > 1)
        map_add(map, PLATFORM_HIGH_GPA, PLATFORM_HIGH_GPA + config->mem->region[1].bytes, E820_RAM);
}

/* --- files ----------------------------------------------------------------------------------------- */

/* Says what a file that is no kernel is instead. */
static int refuse(const struct boot_image *image, const uint8_t *head, uint64_t bytes, struct diag *diag)
{
    static const struct {
        uint16_t offset;
        uint8_t nr;
        const char *magic, *text;
    } known[] = {
        {0x38, 4, "ARM\x64", "a kernel for arm64; give one for x86-64"},
        {0x30, 5, "RISCV", "a kernel for riscv; give one for x86-64"},
        {4, 4, "zimg", "an EFI image of another architecture's kernel; give one for x86-64"},
        {0, 2, "\x1f\x8b", "compressed by gzip; unpack it with gunzip, or give the vmlinuz of an x86-64 kernel"},
        {0, 6,
         "\xfd"
         "7zXZ",
         "compressed by xz; unpack it with unxz, or give the vmlinuz of an x86-64 kernel"},
        {0, 4, "\x28\xb5\x2f\xfd",
         "compressed by zstd; unpack it with unzstd, or give the vmlinuz of an x86-64 kernel"},
        {0, 4, "\x04\x22\x4d\x18", "compressed by lz4; unpack it with unlz4, or give the vmlinuz of an x86-64 kernel"},
        {0, 4, "\x02\x21\x4c\x18", "compressed by lz4; unpack it with unlz4, or give the vmlinuz of an x86-64 kernel"},
        {0, 3, "BZh", "compressed by bzip2; unpack it with bunzip2, or give the vmlinuz of an x86-64 kernel"},
        {0, 2, "MZ", "an EFI program without a Linux setup header, or cut off; give the vmlinuz of an x86-64 kernel"},
        {257, 5, "ustar", "a tar archive; give the vmlinuz of an x86-64 kernel"},
        {0, 6, "070701", "a cpio archive, as an initrd is one; give it as --initrd"},
    };

    for (unsigned i = 0; i < ARRAY_LEN(known); i++)
        if (bytes >= (uint64_t)known[i].offset + known[i].nr &&
            memcmp(head + known[i].offset, known[i].magic, known[i].nr) == 0)
            return boot_image_bad(image, diag, "%s", known[i].text);
    return boot_image_bad(image, diag,
                          "not a kernel (neither bzImage nor ELF); give the vmlinuz or vmlinux of an x86-64 kernel");
}

static int load_kernel(const struct boot_config *config, struct boot_kernel *kernel, struct diag *diag)
{
    const struct boot_room room = {
        .mem = config->mem, .end = config->mem->region[0].bytes, .forget = config->forget, .ctx = config->ctx};
    struct boot_image image;
    uint8_t head[1024];

    if (boot_image_open(&image, "kernel", config->kernel_path, diag))
        return -1;
    image.stop = config->stop;
    uint64_t bytes = MIN_OF(image.size_bytes, sizeof(head));
    int err = boot_image_read(&image, 0, head, bytes, diag);
    if (!err) {
        if (bytes >= SELFMAG && memcmp(head, ELFMAG, SELFMAG) == 0)
            err = boot_elf_load(&image, &room, kernel, diag);
        else if (boot_bzimage_is(head, bytes))
            err = boot_bzimage_load(&image, &room, kernel, diag);
        else
            err = refuse(&image, head, bytes, diag);
    }
    boot_image_close(&image);
    return err;
}

/* As high as the kernel allows: what is above it is free for the kernel to spread in. */
static int load_initrd(const struct boot_config *config, const struct boot_kernel *kernel, struct placed *placed,
                       struct diag *diag)
{
    uint64_t end = MIN_OF(config->mem->region[0].bytes, kernel->initrd_last + 1);
    uint64_t first = MAX_OF(kernel->end, BOOT_KERNEL_GPA), start = 0;
    struct boot_image image;

    if (!config->initrd_path)
        return 0;
    if (boot_image_open(&image, "initrd", config->initrd_path, diag))
        return -1;
    image.stop = config->stop;
    if (image.size_bytes <= end)
        start = (end - image.size_bytes) & ~(PAGE_BYTES - 1);
    int err = -1;
    if (start < first)
        boot_image_bad(&image, diag,
                       "too large: 0x%" PRIx64 " bytes do not fit between the kernel's end at 0x%" PRIx64
                       " and 0x%" PRIx64 "; give more --memory or a smaller initrd",
                       image.size_bytes, first, end);
    else
        err = boot_image_load(&image, 0, config->mem, (gpa_t){start}, image.size_bytes, diag);
    boot_image_close(&image);
    placed->initrd = start;
    placed->initrd_bytes = image.size_bytes;
    return err;
}

/* --- what the kernel is told ----------------------------------------------------------------------- */

/* check_config has seen that there is memory below 1 MiB. */
static int put(const struct boot_config *config, uint64_t gpa, const void *data, uint64_t bytes, struct diag *diag)
{
    if (guest_mem_write(config->mem, (gpa_t){gpa}, data, bytes))
        return diag_set(diag, EXIT_HOST, "no guest memory at 0x%" PRIx64, gpa);
    return 0;
}

static int put_cmdline(const struct boot_config *config, const struct boot_kernel *kernel, struct diag *diag)
{
    size_t bytes = strlen(config->cmdline);

    if (bytes > kernel->cmdline_max_bytes)
        return diag_set(diag, EXIT_USAGE,
                        "kernel %.150s: the command line has %zu characters, it takes at most %" PRIu64 "; shorten it",
                        config->kernel_path, bytes, kernel->cmdline_max_bytes);
    return put(config, BOOT_CMDLINE_GPA, config->cmdline, bytes + 1, diag);
}

static int put_acpi(const struct boot_config *config, struct placed *placed, struct diag *diag)
{
    struct acpi_tables tables;

    acpi_start(&tables, config->mem, (gpa_t){BOOT_ACPI_GPA}, (gpa_t){BOOT_KERNEL_GPA});
    int err = acpi_add_platform(&tables, config->nr_cpus, config->nr_devices);
    if (!err && config->numa)
        err = acpi_add_numa(&tables, config->numa);
    if (!err)
        err = acpi_finish(&tables);
    if (err)
        return diag_host(diag, -err, "the guest's ACPI tables");
    placed->rsdp = BOOT_ACPI_GPA;
    return 0;
}

static int put_zero_page(const struct boot_config *config, const struct boot_kernel *kernel,
                         const struct placed *placed, struct diag *diag)
{
    struct boot_params params = {.hdr = kernel->header};

    params.hdr.type_of_loader = LOADER_UNDEFINED;
    params.hdr.setup_data = 0;
    params.hdr.cmd_line_ptr = (uint32_t)BOOT_CMDLINE_GPA;
    params.hdr.ramdisk_image = (uint32_t)placed->initrd;
    params.hdr.ramdisk_size = (uint32_t)placed->initrd_bytes;
    params.acpi_rsdp_addr = placed->rsdp;
    params.e820_entries = (uint8_t)placed->map.nr;
    for (unsigned i = 0; i < placed->map.nr; i++)
        params.e820_table[i] = (struct boot_e820_entry){
            .addr = placed->map.entry[i].start, .size = placed->map.entry[i].bytes, .type = placed->map.entry[i].type};
    return put(config, BOOT_DATA_GPA, &params, sizeof(params), diag);
}

static int put_start_info(const struct boot_config *config, const struct placed *placed, struct diag *diag)
{
    struct start_page start = {
        .info = {.magic = START_INFO_MAGIC,
                 .version = 1,
                 .cmdline = BOOT_CMDLINE_GPA,
                 .rsdp = placed->rsdp,
                 .memory_map = BOOT_DATA_GPA + offsetof(struct start_page, memory),
                 .nr_memory_map = placed->map.nr},
        .initrd = {.start = placed->initrd, .bytes = placed->initrd_bytes},
    };

    if (placed->initrd_bytes > 0) {
        start.info.nr_modules = 1;
        start.info.modules = BOOT_DATA_GPA + offsetof(struct start_page, initrd);
    }
    for (unsigned i = 0; i < placed->map.nr; i++)
        start.memory[i] = (struct start_memory){.start = placed->map.entry[i].start,
                                                .bytes = placed->map.entry[i].bytes,
                                                .type = placed->map.entry[i].type};
    return put(config, BOOT_DATA_GPA, &start, sizeof(start), diag);
}

/* --- what the processor starts with ---------------------------------------------------------------- */

/* 0 .. 4 GiB one to one: a PML4, a PDPT and four tables of 2 MiB pages. Accessed and dirty bits are set, so that walking
 * the tables writes nothing. */
static int put_page_tables(const struct boot_config *config, struct diag *diag)
{
    enum { PRESENT = 1 << 0, WRITE = 1 << 1, ACCESSED = 1 << 5, DIRTY = 1 << 6, LARGE = 1 << 7 };
    enum { NR_DIRECTORIES = 4, TABLE = PRESENT | WRITE | ACCESSED, LEAF = TABLE | DIRTY | LARGE };
    uint64_t table[512] = {(BOOT_TABLES_GPA + PAGE_BYTES) | TABLE};

    if (put(config, BOOT_TABLES_GPA, table, sizeof(table), diag))
        return -1;
    for (unsigned i = 0; i < NR_DIRECTORIES; i++)
        table[i] = (BOOT_TABLES_GPA + (2 + i) * PAGE_BYTES) | TABLE;
    if (put(config, BOOT_TABLES_GPA + PAGE_BYTES, table, sizeof(table), diag))
        return -1;
    for (unsigned i = 0; i < NR_DIRECTORIES; i++) {
        for (unsigned j = 0; j < ARRAY_LEN(table); j++)
            table[j] = (uint64_t)(i * ARRAY_LEN(table) + j) << BLOCK_SHIFT | LEAF;
        if (put(config, BOOT_TABLES_GPA + (2 + i) * PAGE_BYTES, table, sizeof(table), diag))
            return -1;
    }
    return 0;
}

static int put_gdt(const struct boot_config *config, struct boot_entry *entry, struct diag *diag)
{
    const uint64_t gdt[6] = {
        [2] = entry->mode == BOOT_LONG ? UINT64_C(0x00af9b000000ffff) : UINT64_C(0x00cf9b000000ffff), /* code */
        [3] = UINT64_C(0x00cf93000000ffff),                                                           /* data */
        [4] = UINT64_C(0x00008b0000000067), /* busy TSS at 0; the 64-bit one goes on in [5] */
    };

    entry->gdt = (gpa_t){BOOT_GDT_GPA};
    entry->gdt_bytes = sizeof(gdt);
    return put(config, BOOT_GDT_GPA, gdt, sizeof(gdt), diag);
}

int boot_load(const struct boot_config *config, struct boot_entry *out, struct diag *diag)
{
    struct boot_kernel kernel;
    struct placed placed = {.initrd = 0};

    memset(out, 0, sizeof(*out));
    if (check_config(config, diag) || load_kernel(config, &kernel, diag) || put_cmdline(config, &kernel, diag) ||
        load_initrd(config, &kernel, &placed, diag) || put_acpi(config, &placed, diag))
        return -1;
    make_map(config, &placed.map);
    struct boot_entry entry = {.mode = kernel.mode, .rip = kernel.entry, .data = {BOOT_DATA_GPA}};
    int err =
        kernel.mode == BOOT_PVH ? put_start_info(config, &placed, diag) : put_zero_page(config, &kernel, &placed, diag);
    if (!err && kernel.mode == BOOT_LONG) {
        entry.page_tables.v = BOOT_TABLES_GPA;
        err = put_page_tables(config, diag);
    }
    if (err || put_gdt(config, &entry, diag))
        return -1;
    *out = entry;
    return 0;
}
