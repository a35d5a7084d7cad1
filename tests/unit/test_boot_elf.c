/* SPDX-License-Identifier: Apache-2.0 */
/* A small vmlinux: both entries, where the segments land, and everything that can be wrong with the file. */
#include "tests/unit/boot_rig.h"

static struct boot_rig rig;

static void setup(void)
{
    rig_init(&rig);
    rig_elf(rig.file, true);
}

static void teardown(void)
{
    rig_fini(&rig);
}

static Elf64_Ehdr *header(void)
{
    return (Elf64_Ehdr *)(void *)rig.file;
}

static Elf64_Phdr *program(unsigned i)
{
    return (Elf64_Phdr *)(void *)(rig.file + sizeof(Elf64_Ehdr)) + i;
}

static void write_elf(void)
{
    rig_write(rig.kernel, rig.file, RIG_ELF_BYTES);
}

static void refused(const char *word)
{
    write_elf();
    rig_load_refused(&rig, word);
    rig_elf(rig.file, true);
}

START_TEST(test_boot_elf_with_note_is_entered_by_pvh)
{
    write_elf();
    rig_load_ok(&rig);
    ck_assert_int_eq(rig.entry.mode, BOOT_PVH);
    ck_assert_uint_eq(rig.entry.rip.v, RIG_PVH_ENTRY);
    ck_assert_uint_eq(rig.entry.page_tables.v, 0);
    ck_assert(rig_is_filled(&rig, RIG_TEXT_GPA, 1, RIG_TEXT_BYTES));
    ck_assert(rig_is_filled(&rig, RIG_DATA_GPA, 2, RIG_DATA_BYTES));
    const uint8_t *bss = rig_at(&rig, RIG_DATA_GPA, RIG_DATA_MEMORY);
    for (size_t i = RIG_DATA_BYTES; i < RIG_DATA_MEMORY; i++)
        ck_assert_uint_eq(bss[i], 0);
    ck_assert_uint_eq(*(const uint8_t *)rig_at(&rig, RIG_TEXT_GPA - 1, 1), 0);
    ck_assert_uint_eq(*(const uint8_t *)rig_at(&rig, RIG_TEXT_GPA + RIG_TEXT_BYTES, 1), 0);
}
END_TEST

START_TEST(test_boot_elf_note_of_eight_bytes_is_read)
{
    /* The value as 8 bytes: the note grows into what was the end of the file. */
    Elf64_Nhdr *note = (Elf64_Nhdr *)(void *)(rig.file + RIG_NOTES_OFFSET + 24);
    note->n_descsz = 8;
    program(2)->p_filesz += 4;
    rig_write(rig.kernel, rig.file, RIG_ELF_BYTES + 4);
    rig_load_ok(&rig);
    ck_assert_int_eq(rig.entry.mode, BOOT_PVH);
    ck_assert_uint_eq(rig.entry.rip.v, RIG_PVH_ENTRY);
}
END_TEST

START_TEST(test_boot_elf_without_note_is_entered_in_long_mode)
{
    rig_elf(rig.file, false);
    write_elf();
    rig_load_ok(&rig);
    ck_assert_int_eq(rig.entry.mode, BOOT_LONG);
    ck_assert_uint_eq(rig.entry.rip.v, RIG_ELF_ENTRY);
    const struct boot_params *zero_page = rig_at(&rig, rig.entry.data.v, sizeof(*zero_page));
    ck_assert_uint_eq(zero_page->hdr.boot_flag, 0xaa55);
    ck_assert_uint_eq(zero_page->hdr.header, 0x53726448);
    ck_assert_uint_eq(zero_page->hdr.type_of_loader, 0xff);
}
END_TEST

START_TEST(test_boot_elf_of_another_architecture_is_refused)
{
    header()->e_machine = EM_AARCH64;
    refused("aarch64");
    header()->e_machine = EM_386;
    header()->e_ident[EI_CLASS] = ELFCLASS32;
    refused("i386");
    header()->e_ident[EI_CLASS] = ELFCLASS32; /* x32 */
    refused("32 bits");
    header()->e_machine = 0x1600; /* s390x, big-endian */
    header()->e_ident[EI_DATA] = ELFDATA2MSB;
    refused("s390x");
    header()->e_machine = 0xfffe;
    refused("machine 65534");
}
END_TEST

START_TEST(test_boot_elf_that_is_no_program_is_refused)
{
    header()->e_type = ET_REL;
    refused("cannot be run");
    header()->e_phnum = 0;
    refused("program headers");
    header()->e_phnum = 33;
    refused("program headers");
    header()->e_phentsize = 32;
    refused("program headers");
    header()->e_phoff = UINT64_MAX - 8;
    refused("truncated");
    header()->e_phoff = RIG_ELF_BYTES - 3 * sizeof(Elf64_Phdr) + 1;
    refused("truncated");
}
END_TEST

START_TEST(test_boot_elf_segment_that_is_inconsistent_is_refused)
{
    program(0)->p_filesz = RIG_TEXT_BYTES + 1;
    refused("damaged");
    program(0)->p_memsz = UINT64_MAX - RIG_TEXT_GPA + 1;
    refused("damaged");
    program(0)->p_offset = RIG_ELF_BYTES - RIG_TEXT_BYTES + 1;
    refused("truncated");
    program(0)->p_offset = UINT64_MAX;
    refused("truncated");
    program(1)->p_paddr = RIG_TEXT_GPA + RIG_TEXT_BYTES - 1;
    refused("two segments");
    program(1)->p_paddr = RIG_TEXT_GPA - RIG_DATA_MEMORY + 1;
    refused("two segments");
    program(2)->p_offset = RIG_NOTES_OFFSET + 1;
    refused("truncated");
    program(2)->p_offset = UINT64_MAX;
    refused("truncated");
}
END_TEST

START_TEST(test_boot_elf_segments_may_touch)
{
    program(1)->p_paddr = RIG_TEXT_GPA + RIG_TEXT_BYTES;
    write_elf();
    rig_load_ok(&rig);
    ck_assert(rig_is_filled(&rig, RIG_TEXT_GPA + RIG_TEXT_BYTES, 2, RIG_DATA_BYTES));
}
END_TEST

START_TEST(test_boot_elf_segment_is_placed_first_last_and_not_one_past)
{
    uint64_t end = rig.mem.region[0].bytes;

    program(1)->p_paddr = BOOT_KERNEL_GPA - 1;
    refused("1M or above");
    program(1)->p_paddr = 0;
    refused("1M or above");
    program(1)->p_paddr = BOOT_KERNEL_GPA;
    write_elf();
    rig_load_ok(&rig);
    ck_assert(rig_is_filled(&rig, BOOT_KERNEL_GPA, 2, RIG_DATA_BYTES));
    program(1)->p_paddr = end - RIG_DATA_MEMORY;
    write_elf();
    rig_load_ok(&rig);
    ck_assert(rig_is_filled(&rig, end - RIG_DATA_MEMORY, 2, RIG_DATA_BYTES));
    program(1)->p_paddr = end - RIG_DATA_MEMORY + 1;
    refused("--memory");
    program(1)->p_paddr = PLATFORM_HIGH_GPA;
    refused("--memory");
    program(1)->p_memsz = UINT64_MAX - RIG_DATA_GPA;
    refused("--memory");
}
END_TEST

START_TEST(test_boot_elf_empty_segment_is_left_out)
{
    program(1)->p_paddr = 0;
    program(1)->p_filesz = program(1)->p_memsz = 0;
    write_elf();
    rig_load_ok(&rig);
}
END_TEST

/* As linkers make it for a .bss of its own: it has an offset, but nothing stands there. */
START_TEST(test_boot_elf_segment_of_zeros_alone_may_begin_behind_the_file)
{
    program(1)->p_offset = RIG_ELF_BYTES + 1;
    program(1)->p_filesz = 0;
    write_elf();
    rig_load_ok(&rig);
    const uint8_t *bss = rig_at(&rig, RIG_DATA_GPA, RIG_DATA_MEMORY);
    for (size_t i = 0; i < RIG_DATA_MEMORY; i++)
        ck_assert_uint_eq(bss[i], 0);
}
END_TEST

START_TEST(test_boot_elf_entry_outside_of_its_code_is_refused)
{
    uint32_t *entry = (uint32_t *)(void *)(rig.file + RIG_ELF_BYTES - 4);

    *entry = (uint32_t)(RIG_TEXT_GPA + RIG_TEXT_BYTES);
    refused("entry");
    *entry = (uint32_t)RIG_TEXT_GPA - 1;
    refused("entry");
    *entry = (uint32_t)(RIG_DATA_GPA + RIG_DATA_BYTES); /* in the zeros */
    refused("entry");
    rig_elf(rig.file, false);
    header()->e_entry = UINT64_C(0xffffffff81000000);
    refused("entry");
    *entry = (uint32_t)(RIG_TEXT_GPA + RIG_TEXT_BYTES - 1);
    write_elf();
    rig_load_ok(&rig);
}
END_TEST

START_TEST(test_boot_elf_bad_notes_are_no_entry)
{
    Elf64_Nhdr *first = (Elf64_Nhdr *)(void *)(rig.file + RIG_NOTES_OFFSET);

    for (unsigned i = 0; i < 4; i++) {
        rig_elf(rig.file, true);
        if (i == 0)
            first->n_namesz = UINT32_MAX;
        else if (i == 1)
            first->n_descsz = UINT32_MAX - 3;
        else if (i == 2)
            rig.file[RIG_NOTES_OFFSET + 24 + sizeof(Elf64_Nhdr)] = 'x'; /* not Xen's */
        else
            (first + 2)->n_type = 1, program(2)->p_filesz = 40; /* cut off in its value */
        write_elf();
        rig_load_ok(&rig);
        ck_assert_int_eq(rig.entry.mode, BOOT_LONG);
    }
}
END_TEST

START_TEST(test_boot_elf_of_every_shorter_length_is_refused)
{
    write_elf();
    for (off_t bytes = RIG_ELF_BYTES - 1; bytes > 0; bytes--) {
        ck_assert_int_eq(truncate(rig.kernel, bytes), 0);
        rig_load_refused(&rig, bytes < SELFMAG ? "not a kernel" : "truncated");
    }
    ck_assert_int_eq(truncate(rig.kernel, 0), 0);
    rig_load_refused(&rig, "empty");
}
END_TEST

/* Any byte of the headers and notes, at values that are limits: an answer, and no access outside of the memory. */
START_TEST(test_boot_elf_with_any_corrupt_byte_is_answered)
{
    static const uint8_t values[] = {0x00, 0x01, 0x7f, 0x80, 0xff};
    unsigned nr_loaded = 0, nr_refused = 0;
    int fd;

    write_elf();
    fd = open(rig.kernel, O_WRONLY | O_CLOEXEC);
    for (off_t at = 0; at < RIG_ELF_BYTES; at++) {
        if (at == sizeof(Elf64_Ehdr) + 3 * sizeof(Elf64_Phdr))
            at = RIG_NOTES_OFFSET;
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

int main(void)
{
    Suite *suite = suite_create("boot_elf");
    TCase *tcase = tcase_create("boot_elf");

    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_boot_elf_with_note_is_entered_by_pvh);
    tcase_add_test(tcase, test_boot_elf_note_of_eight_bytes_is_read);
    tcase_add_test(tcase, test_boot_elf_without_note_is_entered_in_long_mode);
    tcase_add_test(tcase, test_boot_elf_of_another_architecture_is_refused);
    tcase_add_test(tcase, test_boot_elf_that_is_no_program_is_refused);
    tcase_add_test(tcase, test_boot_elf_segment_that_is_inconsistent_is_refused);
    tcase_add_test(tcase, test_boot_elf_segments_may_touch);
    tcase_add_test(tcase, test_boot_elf_segment_is_placed_first_last_and_not_one_past);
    tcase_add_test(tcase, test_boot_elf_empty_segment_is_left_out);
    tcase_add_test(tcase, test_boot_elf_segment_of_zeros_alone_may_begin_behind_the_file);
    tcase_add_test(tcase, test_boot_elf_entry_outside_of_its_code_is_refused);
    tcase_add_test(tcase, test_boot_elf_bad_notes_are_no_entry);
    tcase_add_test(tcase, test_boot_elf_of_every_shorter_length_is_refused);
    tcase_add_test(tcase, test_boot_elf_with_any_corrupt_byte_is_answered);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
