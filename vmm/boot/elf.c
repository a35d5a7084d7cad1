/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/boot/elf.h"

#include <elf.h>
#include <inttypes.h>
#include <string.h>

/* Xen's note with the physical address of the PVH entry: 4 or 8 bytes (xen/include/public/elfnote.h). */
#define NOTE_PHYS32_ENTRY 18
/* Chosen: the notes of a vmlinux have about 500 bytes. */
#define MAX_NOTE_BYTES 65536u
#define ALIGN_UP(value, to) (((value) + (to)-1) & ~((uint64_t)(to)-1))

static const char *machine_name(unsigned machine)
{
    static const struct {
        unsigned machine;
        const char *name;
    } names[] = {{EM_386, "i386"},    {EM_AARCH64, "aarch64"}, {EM_ARM, "arm"},   {EM_RISCV, "riscv"},
                 {EM_PPC64, "ppc64"}, {EM_S390, "s390x"},      {EM_MIPS, "mips"}, {EM_SPARCV9, "sparc64"}};

    for (unsigned i = 0; i < ARRAY_LEN(names); i++)
        if (names[i].machine == machine)
            return names[i].name;
    return "another architecture";
}

static int check_header(const struct boot_image *image, const Elf64_Ehdr *header, struct diag *diag)
{
    bool little = header->e_ident[EI_DATA] == ELFDATA2LSB;
    unsigned machine = little ? header->e_machine : (unsigned)__builtin_bswap16(header->e_machine);

    if (machine != EM_X86_64 || !little)
        return boot_image_bad(image, diag, "an ELF file for %s (machine %u); give a kernel for x86-64",
                              machine_name(machine), machine);
    if (header->e_ident[EI_CLASS] != ELFCLASS64)
        return boot_image_bad(image, diag, "an ELF file of 32 bits; give a 64-bit x86-64 kernel");
    if (header->e_type != ET_EXEC && header->e_type != ET_DYN)
        return boot_image_bad(image, diag, "an ELF file of type %u, which cannot be run; give a vmlinux or a bzImage",
                              header->e_type);
    if (header->e_phentsize != sizeof(Elf64_Phdr) || header->e_phnum == 0 || header->e_phnum > BOOT_ELF_MAX_SEGMENTS)
        return boot_image_bad(image, diag,
                              "%u program headers of %u bytes, where 1 to %d of %zu can be; give a vmlinux",
                              header->e_phnum, header->e_phentsize, BOOT_ELF_MAX_SEGMENTS, sizeof(Elf64_Phdr));
    return 0;
}

static int add_segment(const struct boot_image *image, const Elf64_Phdr *header, struct boot_elf *elf,
                       struct diag *diag)
{
    /* Of zeros alone nothing stands in the file, wherever its offset points: at the end, nothing is kept for it. */
    const uint64_t offset = header->p_filesz ? header->p_offset : image->size_bytes;
    const struct boot_elf_segment new = {offset, header->p_filesz, header->p_paddr, header->p_memsz};

    if (new.memory_bytes == 0 && new.file_bytes == 0)
        return 0;
    if (new.file_bytes > new.memory_bytes || new.memory_bytes > UINT64_MAX - new.gpa)
        return boot_image_bad(image, diag,
                              "damaged: a segment of 0x%" PRIx64 " bytes in 0x%" PRIx64 " at 0x%" PRIx64
                              "; get the whole file",
                              new.file_bytes, new.memory_bytes, new.gpa);
    if (new.offset > image->size_bytes || new.file_bytes > image->size_bytes - new.offset)
        return boot_image_bad(image, diag,
                              "truncated: a segment of 0x%" PRIx64 " bytes from 0x%" PRIx64
                              " on, in a file of 0x%" PRIx64 " bytes; get the whole file",
                              new.file_bytes, new.offset, image->size_bytes);
    for (unsigned i = 0; i < elf->nr; i++) {
        const struct boot_elf_segment *old = &elf->segment[i];
        if (new.gpa < old->gpa + old->memory_bytes && old->gpa < new.gpa + new.memory_bytes)
            return boot_image_bad(image, diag, "damaged: two segments at 0x%" PRIx64 "; get another copy",
                                  MAX_OF(new.gpa, old->gpa));
    }
    elf->segment[elf->nr++] = new;
    elf->end = MAX_OF(elf->end, new.gpa + new.memory_bytes);
    return 0;
}

/* The PVH entry in @notes, or 0. Sizes are 32 bits in 64-bit sums: nothing wraps. */
static uint64_t find_pvh_entry(const uint8_t *notes, uint64_t bytes, uint64_t align)
{
    Elf64_Nhdr note;

    for (uint64_t at = 0; at + sizeof(note) <= bytes;) {
        memcpy(&note, notes + at, sizeof(note));
        uint64_t name = at + sizeof(note);
        uint64_t value = at + ALIGN_UP(sizeof(note) + note.n_namesz, align);
        uint64_t end = value + note.n_descsz, entry = 0;
        if (end > bytes)
            return 0;
        if (note.n_type == NOTE_PHYS32_ENTRY && note.n_namesz == 4 && memcmp(notes + name, "Xen", 4) == 0) {
            memcpy(&entry, notes + value, MIN_OF(note.n_descsz, sizeof(entry)));
            return note.n_descsz == 4 || note.n_descsz == 8 ? entry : 0;
        }
        at += ALIGN_UP(end - at, align);
    }
    return 0;
}

static int read_notes(const struct boot_image *image, const Elf64_Phdr *header, struct boot_elf *elf, struct diag *diag)
{
    uint8_t notes[MAX_NOTE_BYTES];

    if (elf->pvh_entry || header->p_filesz > sizeof(notes))
        return 0;
    if (boot_image_read(image, header->p_offset, notes, header->p_filesz, diag))
        return -1;
    elf->pvh_entry = find_pvh_entry(notes, header->p_filesz, header->p_align == 8 ? 8 : 4);
    return 0;
}

/* In the bytes that the file brings, so not in zeros. */
static bool is_code(const struct boot_elf *elf, uint64_t gpa)
{
    for (unsigned i = 0; i < elf->nr; i++)
        if (gpa >= elf->segment[i].gpa && gpa - elf->segment[i].gpa < elf->segment[i].file_bytes)
            return true;
    return false;
}

int boot_elf_parse(const struct boot_image *image, struct boot_elf *out, struct diag *diag)
{
    Elf64_Ehdr header;
    Elf64_Phdr program[BOOT_ELF_MAX_SEGMENTS];

    memset(out, 0, sizeof(*out));
    if (boot_image_read(image, 0, &header, sizeof(header), diag))
        return -1;
    if (memcmp(header.e_ident, ELFMAG, SELFMAG) != 0)
        return boot_image_bad(image, diag, "not an ELF file; give a vmlinux or a bzImage");
    if (check_header(image, &header, diag) ||
        boot_image_read(image, header.e_phoff, program, header.e_phnum * sizeof(program[0]), diag))
        return -1;
    for (unsigned i = 0; i < header.e_phnum; i++) {
        if (program[i].p_type == PT_LOAD && add_segment(image, &program[i], out, diag))
            return -1;
        if (program[i].p_type == PT_NOTE && read_notes(image, &program[i], out, diag))
            return -1;
    }
    out->entry = header.e_entry;
    uint64_t entry = out->pvh_entry ? out->pvh_entry : out->entry;
    if (!is_code(out, entry))
        return boot_image_bad(
            image, diag, "its entry 0x%" PRIx64 " is not in what it loads; give a Linux vmlinux or a bzImage", entry);
    return 0;
}

/* A block at a time, so that of an image in guest memory at most one stands there twice. @needed: offset from which on
 * later segments read. */
static int place_segment(struct boot_image *image, const struct boot_elf_segment *segment, uint64_t needed,
                         const struct boot_room *room, struct diag *diag)
{
    for (uint64_t done = 0, nr; done < segment->file_bytes; done += nr) {
        uint64_t offset = segment->offset + done;
        nr = MIN_OF(segment->file_bytes - done, BLOCK_BYTES);
        if (boot_image_load(image, offset, room->mem, (gpa_t){segment->gpa + done}, nr, diag))
            return -1;
        boot_image_forget(image, MIN_OF(offset + nr, needed));
    }
    return 0;
}

/* Segments from @i on read nothing before this offset. */
static uint64_t first_offset(const struct boot_elf *elf, unsigned i)
{
    uint64_t first = UINT64_MAX;

    for (; i < elf->nr; i++)
        first = MIN_OF(first, elf->segment[i].offset);
    return first;
}

int boot_elf_place(struct boot_image *image, const struct boot_elf *elf, const struct boot_room *room,
                   struct diag *diag)
{
    for (unsigned i = 0; i < elf->nr; i++) {
        const struct boot_elf_segment *segment = &elf->segment[i];
        if (segment->gpa < BOOT_KERNEL_GPA)
            return boot_image_bad(image, diag,
                                  "a segment at 0x%" PRIx64 "; give a Linux kernel: they stand at 1M or above",
                                  segment->gpa);
        if (segment->gpa + segment->memory_bytes > room->end)
            return boot_image_bad(image, diag,
                                  "too large: it reaches to 0x%" PRIx64 ", memory to 0x%" PRIx64 "; give more --memory",
                                  segment->gpa + segment->memory_bytes, room->end);
    }
    for (unsigned i = 0; i < elf->nr; i++)
        if (place_segment(image, &elf->segment[i], first_offset(elf, i + 1), room, diag))
            return -1;
    return 0;
}

int boot_elf_load(struct boot_image *image, const struct boot_room *room, struct boot_kernel *out, struct diag *diag)
{
    struct boot_elf elf;

    if (boot_elf_parse(image, &elf, diag) || boot_elf_place(image, &elf, room, diag))
        return -1;
    *out = (struct boot_kernel){
        .mode = elf.pvh_entry ? BOOT_PVH : BOOT_LONG,
        .entry = {elf.pvh_entry ? elf.pvh_entry : elf.entry},
        .end = elf.end,
        .initrd_last = BOOT_INITRD_LAST,
        .cmdline_max_bytes = BOOT_MAX_CMDLINE_BYTES - 1,
        /* A vmlinux has no setup header; the kernel wants to see that of a loader. */
        .header = {.boot_flag = BOOT_HEADER_FLAG,
                   .header = BOOT_HEADER_MAGIC,
                   .version = BOOT_HEADER_VERSION,
                   .loadflags = LOADED_HIGH,
                   .xloadflags = XLF_KERNEL_64,
                   .cmdline_size = BOOT_MAX_CMDLINE_BYTES - 1,
                   .initrd_addr_max = (uint32_t)BOOT_INITRD_LAST},
    };
    return 0;
}
