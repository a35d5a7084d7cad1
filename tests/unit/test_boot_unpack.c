/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A vmlinux of several blocks, unpacked at the end of guest memory: where there is room for it and where there is not, how
 * it is given back, and that nothing of it stays.
 */
#include "tests/unit/boot_rig.h"

#define MEMORY_BYTES (64 * RIG_MIB)
#define NR_SEGMENTS 2u
#define NOTES_OFFSET 0x400u
#define NOISE_BYTES (400u << 10) /* packed, more than is read at once */

static const struct {
    uint64_t offset, bytes, gpa;
} segments[NR_SEGMENTS] = {{0x1000, 5 * RIG_MIB + 0x123, 16 * RIG_MIB}, {6 * RIG_MIB, 3 * RIG_MIB, 24 * RIG_MIB}};

#define VMLINUX_BYTES (9 * RIG_MIB)
#define SCRATCH_BYTES (10 * RIG_MIB) /* whole blocks */
#define SCRATCH_GPA (MEMORY_BYTES - SCRATCH_BYTES)

static struct boot_rig rig;
static uint8_t *vmlinux;
static size_t file_bytes;
/* What the callback was told. */
static struct {
    unsigned nr;
    uint64_t start, end, max_bytes;
} forgotten;

static Elf64_Phdr *program(unsigned i)
{
    return (Elf64_Phdr *)(void *)(vmlinux + sizeof(Elf64_Ehdr)) + i;
}

static void make_vmlinux(void)
{
    const Elf64_Ehdr header = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
                               .e_type = ET_EXEC,
                               .e_machine = EM_X86_64,
                               .e_phoff = sizeof(Elf64_Ehdr),
                               .e_phentsize = sizeof(Elf64_Phdr),
                               .e_phnum = NR_SEGMENTS + 1};
    const struct {
        Elf64_Nhdr note;
        char name[4];
        uint32_t entry;
    } notes = {{4, 4, 18}, "Xen", (uint32_t)segments[0].gpa};
    uint32_t noise = 1;

    memcpy(vmlinux, &header, sizeof(header));
    for (unsigned i = 0; i < NR_SEGMENTS; i++) {
        *program(i) = (Elf64_Phdr){.p_type = PT_LOAD,
                                   .p_offset = segments[i].offset,
                                   .p_paddr = segments[i].gpa,
                                   .p_filesz = segments[i].bytes,
                                   .p_memsz = segments[i].bytes + PAGE_BYTES};
        rig_fill(vmlinux + segments[i].offset, i, segments[i].bytes);
    }
    *program(NR_SEGMENTS) =
        (Elf64_Phdr){.p_type = PT_NOTE, .p_offset = NOTES_OFFSET, .p_filesz = sizeof(notes), .p_align = 4};
    memcpy(vmlinux + NOTES_OFFSET, &notes, sizeof(notes));
    for (size_t i = 0; i < NOISE_BYTES; i++)
        vmlinux[segments[1].offset + i] = (uint8_t)((noise = noise * 1664525 + 1013904223) >> 24);
}

/* The vmlinux as it is now, in a bzImage that says it unpacks to @unpacked_bytes. */
static void write_kernel(uint32_t unpacked_bytes)
{
    uint8_t *packed = malloc(RIG_FILE_BYTES);

    ck_assert_ptr_nonnull(packed);
    size_t bytes = ZSTD_compress(packed, RIG_FILE_BYTES / 2, vmlinux, VMLINUX_BYTES, 1);
    ck_assert(!ZSTD_isError(bytes));
    ck_assert_uint_gt(bytes, NOISE_BYTES);
    file_bytes = rig_bzimage(rig.file, packed, bytes, unpacked_bytes);
    rig_header(rig.file)->init_size = 0; /* by the 64-bit entry it needs its own bytes only */
    rig_write(rig.kernel, rig.file, file_bytes);
    free(packed);
}

/* As the machine does: zeros. In order, whole pages, no page twice. */
static void forget(void *ctx, gpa_t gpa, uint64_t bytes)
{
    ck_assert_ptr_eq(ctx, &forgotten);
    ck_assert_uint_eq((gpa.v | bytes) % PAGE_BYTES, 0);
    ck_assert_uint_gt(bytes, 0);
    if (forgotten.nr++ == 0)
        forgotten.start = gpa.v;
    else
        ck_assert_uint_eq(gpa.v, forgotten.end);
    forgotten.end = gpa.v + bytes;
    forgotten.max_bytes = MAX_OF(forgotten.max_bytes, bytes);
    memset(guest_mem_hva(&rig.mem, gpa, bytes), 0, bytes);
}

static void setup(void)
{
    rig_init(&rig);
    rig_memory(&rig, MEMORY_BYTES);
    memset(&forgotten, 0, sizeof(forgotten));
    rig.config.forget = forget;
    rig.config.ctx = &forgotten;
    vmlinux = calloc(1, VMLINUX_BYTES);
    ck_assert_ptr_nonnull(vmlinux);
    make_vmlinux();
}

static void teardown(void)
{
    free(vmlinux);
    rig_fini(&rig);
}

static bool is_zero(uint64_t gpa, uint64_t bytes)
{
    const char *at = rig_at(&rig, gpa, bytes);

    return at[0] == 0 && memcmp(at, at + 1, bytes - 1) == 0;
}

/* Loaded by PVH, each segment as it is in the file, zeros where it was unpacked. */
static void check_loaded(void)
{
    rig_load_ok(&rig);
    ck_assert_int_eq(rig.entry.mode, BOOT_PVH);
    for (unsigned i = 0; i < NR_SEGMENTS; i++) {
        const Elf64_Phdr *segment = program(i);
        ck_assert_msg(memcmp(rig_at(&rig, segment->p_paddr, segment->p_filesz), vmlinux + segment->p_offset,
                             segment->p_filesz) == 0,
                      "segment %u", i);
        ck_assert(is_zero(segment->p_paddr + segment->p_filesz, PAGE_BYTES));
    }
    ck_assert(is_zero(SCRATCH_GPA, SCRATCH_BYTES));
}

static void check_all_forgotten(void)
{
    ck_assert_uint_eq(forgotten.start, SCRATCH_GPA);
    ck_assert_uint_eq(forgotten.end, MEMORY_BYTES);
}

START_TEST(test_boot_unpack_is_given_back_block_by_block)
{
    write_kernel(VMLINUX_BYTES);
    check_loaded();
    check_all_forgotten();
    ck_assert_uint_ge(forgotten.nr, VMLINUX_BYTES / BLOCK_BYTES);
    ck_assert_uint_le(forgotten.max_bytes, 2 * BLOCK_BYTES);
}
END_TEST

START_TEST(test_boot_unpack_without_a_callback_leaves_zeros)
{
    rig.config.forget = NULL;
    write_kernel(VMLINUX_BYTES);
    check_loaded();
    ck_assert_uint_eq(forgotten.nr, 0);
}
END_TEST

/* What a later segment still reads is kept. */
START_TEST(test_boot_unpack_takes_segments_in_any_order)
{
    Elf64_Phdr first = *program(0);

    *program(0) = *program(1);
    *program(1) = first;
    write_kernel(VMLINUX_BYTES);
    check_loaded();
    check_all_forgotten();
    program(1)->p_offset = program(0)->p_offset - 3 * RIG_MIB; /* bytes that both have */
    memset(&forgotten, 0, sizeof(forgotten));
    rig_memory(&rig, MEMORY_BYTES);
    write_kernel(VMLINUX_BYTES);
    check_loaded();
    check_all_forgotten();
}
END_TEST

/* The kernel ends where the unpacked one begins; one page less, and it unpacks itself. */
START_TEST(test_boot_unpack_fits_exactly_and_not_into_a_page_less)
{
    uint64_t end = segments[1].gpa + segments[1].bytes + PAGE_BYTES;

    write_kernel(VMLINUX_BYTES);
    rig_memory(&rig, end + SCRATCH_BYTES);
    rig_load_ok(&rig);
    ck_assert_int_eq(rig.entry.mode, BOOT_PVH);
    ck_assert(is_zero(end, SCRATCH_BYTES));
    memset(&forgotten, 0, sizeof(forgotten));
    rig_memory(&rig, end + SCRATCH_BYTES - PAGE_BYTES);
    rig_load_ok(&rig);
    ck_assert_int_eq(rig.entry.mode, BOOT_LONG);
    ck_assert_uint_eq(forgotten.nr, 1);
    ck_assert(is_zero(end - PAGE_BYTES, SCRATCH_BYTES));
    ck_assert_int_eq(memcmp(rig_at(&rig, RIG_TEXT_GPA, 1), rig.file + RIG_CODE_OFFSET, file_bytes - RIG_CODE_OFFSET),
                     0);
}
END_TEST

/* Not even the unpacked one: memory of 1 MiB and its blocks is the least in which it is tried. */
START_TEST(test_boot_unpack_is_not_tried_where_memory_is_smaller)
{
    write_kernel(VMLINUX_BYTES);
    rig_header(rig.file)->pref_address = BOOT_KERNEL_GPA;
    rig_write(rig.kernel, rig.file, file_bytes);
    for (unsigned less = 0; less < 2; less++) {
        memset(&forgotten, 0, sizeof(forgotten));
        rig_memory(&rig, BOOT_KERNEL_GPA + SCRATCH_BYTES - less * PAGE_BYTES);
        rig_load_ok(&rig);
        ck_assert_int_eq(rig.entry.mode, BOOT_LONG);
        ck_assert_uint_eq(forgotten.nr, !less);
        ck_assert_int_eq(
            memcmp(rig_at(&rig, BOOT_KERNEL_GPA, 1), rig.file + RIG_CODE_OFFSET, file_bytes - RIG_CODE_OFFSET), 0);
    }
}
END_TEST

/* Zeros of a file are not written: they have to be there. */
START_TEST(test_boot_unpack_leaves_room_for_the_initrd)
{
    uint8_t initrd[5 * PAGE_BYTES];

    rig_fill(initrd, 9, sizeof(initrd));
    memset(initrd + PAGE_BYTES, 0, 2 * PAGE_BYTES);
    rig_write(rig.initrd, initrd, sizeof(initrd));
    rig.config.initrd_path = rig.initrd;
    write_kernel(VMLINUX_BYTES);
    rig_load_ok(&rig);
    ck_assert_int_eq(rig.entry.mode, BOOT_PVH);
    ck_assert_int_eq(memcmp(rig_at(&rig, MEMORY_BYTES - sizeof(initrd), sizeof(initrd)), initrd, sizeof(initrd)), 0);
    ck_assert(is_zero(SCRATCH_GPA, SCRATCH_BYTES - sizeof(initrd)));
}
END_TEST

START_TEST(test_boot_unpack_to_another_size_is_damage)
{
    static const uint32_t wrong[] = {1, VMLINUX_BYTES - 1, VMLINUX_BYTES + 1, VMLINUX_BYTES + 4 * PAGE_BYTES,
                                     SCRATCH_BYTES};

    for (unsigned i = 0; i < ARRAY_LEN(wrong); i++) {
        memset(&forgotten, 0, sizeof(forgotten));
        write_kernel(wrong[i]);
        rig_load_refused(&rig, "damaged");
        ck_assert_uint_eq(forgotten.nr, 1);
        ck_assert_uint_eq(forgotten.end, MEMORY_BYTES);
        ck_assert(is_zero(SCRATCH_GPA - RIG_MIB, SCRATCH_BYTES + RIG_MIB));
    }
}
END_TEST

START_TEST(test_boot_unpack_of_a_payload_cut_off_or_flipped_is_damage)
{
    write_kernel(VMLINUX_BYTES);
    rig_header(rig.file)->payload_length -= 4096; /* its last 4 bytes are then anything: make them right */
    uint32_t length = rig_header(rig.file)->payload_length, size = VMLINUX_BYTES;
    memcpy(rig.file + RIG_CODE_OFFSET + RIG_PAYLOAD_OFFSET + length - sizeof(size), &size, sizeof(size));
    rig_write(rig.kernel, rig.file, file_bytes);
    rig_load_refused(&rig, "damaged");
    memset(&forgotten, 0, sizeof(forgotten));
    write_kernel(VMLINUX_BYTES);
    rig.file[RIG_CODE_OFFSET + RIG_PAYLOAD_OFFSET + 4] |= 0x08; /* a reserved bit of the frame header */
    rig_write(rig.kernel, rig.file, file_bytes);
    rig_load_refused(&rig, "damaged");
    ck_assert(is_zero(SCRATCH_GPA, SCRATCH_BYTES));
}
END_TEST

/* After its header has been read; the payload then ends in the middle. */
START_TEST(test_boot_unpack_of_a_file_that_becomes_shorter_cannot_be_read)
{
    const struct boot_room room = {.mem = &rig.mem, .end = MEMORY_BYTES, .forget = forget, .ctx = &forgotten};
    struct boot_kernel kernel;
    struct boot_image image;
    struct diag diag = {0};

    write_kernel(VMLINUX_BYTES);
    ck_assert_int_eq(boot_image_open(&image, "kernel", rig.kernel, &diag), 0);
    ck_assert_int_eq(truncate(rig.kernel, (off_t)file_bytes / 2), 0);
    ck_assert_int_eq(boot_bzimage_load(&image, &room, &kernel, &diag), -1);
    ck_assert_int_eq(diag.code, EXIT_HOST);
    ck_assert_ptr_nonnull(strstr(diag.text, "shorter"));
    boot_image_close(&image);
    /* Its end is there, the middle of it is not. */
    diag = (struct diag){0};
    char *out = malloc(VMLINUX_BYTES);
    uint64_t offset = RIG_CODE_OFFSET + RIG_PAYLOAD_OFFSET;
    ck_assert_int_eq(boot_image_open(&image, "kernel", rig.kernel, &diag), 0);
    image.size_bytes = file_bytes;
    ck_assert_int_eq(boot_unpack(&image, offset, file_bytes - offset, out, VMLINUX_BYTES, &diag), -1);
    ck_assert_int_eq(diag.code, EXIT_HOST);
    boot_image_close(&image);
    free(out);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("boot_unpack");
    TCase *tcase = tcase_create("boot_unpack");

    tcase_set_timeout(tcase, 120);
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_boot_unpack_is_given_back_block_by_block);
    tcase_add_test(tcase, test_boot_unpack_without_a_callback_leaves_zeros);
    tcase_add_test(tcase, test_boot_unpack_takes_segments_in_any_order);
    tcase_add_test(tcase, test_boot_unpack_fits_exactly_and_not_into_a_page_less);
    tcase_add_test(tcase, test_boot_unpack_is_not_tried_where_memory_is_smaller);
    tcase_add_test(tcase, test_boot_unpack_leaves_room_for_the_initrd);
    tcase_add_test(tcase, test_boot_unpack_to_another_size_is_damage);
    tcase_add_test(tcase, test_boot_unpack_of_a_payload_cut_off_or_flipped_is_damage);
    tcase_add_test(tcase, test_boot_unpack_of_a_file_that_becomes_shorter_cannot_be_read);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
