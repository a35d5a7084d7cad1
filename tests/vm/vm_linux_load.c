/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Large bzImages are unpacked in guest memory, and so under the budget: no process needs more than that and its fixed
 * share beside it, whatever is packed in the file. The kernel is a few instructions and many pages, none of zeros; the
 * budget has room for them once.
 */
#include "tests/fake/run_ebb.h"
#include "tests/unit/boot_rig.h"
#include "vmm/machine_parts.h"

#include <errno.h>
#include <lz4.h>

#define BUDGET_BYTES (56 * RUN_MIB)
#define MEMORY_BYTES (128 * RUN_MIB)
#define VMLINUX_BYTES (48 * RUN_MIB)
#define SCRATCH_GPA (MEMORY_BYTES - VMLINUX_BYTES)
#define NOISE_BYTES (10 * RUN_MIB) /* about what a packed kernel has */
#define NOTES_OFFSET 0x400u
#define CODE_OFFSET 0x1000u
#define CODE_BYTES (VMLINUX_BYTES - CODE_OFFSET)
#define CODE_GPA UINT64_C(0x1000000)
#define POWEROFF "\x66\xba\x00\x06\xb0\x34\xee\xeb\xfe" /* mov dx, 0x600; mov al, 0x34; out dx, al; for ever */
#define LZ4_BLOCK_BYTES (8u << 20)
#define MAX_PACKED_BYTES (16 * RUN_MIB)

static void make_vmlinux(uint8_t *to)
{
    const Elf64_Ehdr header = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
                               .e_type = ET_EXEC,
                               .e_machine = EM_X86_64,
                               .e_phoff = sizeof(Elf64_Ehdr),
                               .e_phentsize = sizeof(Elf64_Phdr),
                               .e_phnum = 2};
    const Elf64_Phdr program[2] = {{.p_type = PT_LOAD,
                                    .p_offset = CODE_OFFSET,
                                    .p_paddr = CODE_GPA,
                                    .p_filesz = CODE_BYTES,
                                    .p_memsz = CODE_BYTES},
                                   {.p_type = PT_NOTE, .p_offset = NOTES_OFFSET, .p_filesz = 20, .p_align = 4}};
    const struct {
        Elf64_Nhdr note;
        char name[4];
        uint32_t entry;
    } notes = {{4, 4, 18}, "Xen", (uint32_t)CODE_GPA};
    uint32_t noise = 1;

    memset(to, 0, CODE_OFFSET);
    memcpy(to, &header, sizeof(header));
    memcpy(to + sizeof(header), program, sizeof(program));
    memcpy(to + NOTES_OFFSET, &notes, sizeof(notes));
    for (size_t i = 0; i < CODE_BYTES; i += PAGE_BYTES) {
        memset(to + CODE_OFFSET + i, 1 + (int)(i >> PAGE_SHIFT) % 255, PAGE_BYTES);
        memcpy(to + CODE_OFFSET + i + 64, &i, sizeof(i));
    }
    for (size_t i = 0; i < NOISE_BYTES; i++)
        to[VMLINUX_BYTES - NOISE_BYTES + i] = (uint8_t)((noise = noise * 1664525 + 1013904223) >> 24);
    memcpy(to + CODE_OFFSET, POWEROFF, sizeof(POWEROFF) - 1);
}

static size_t pack_lz4(uint8_t *to, const uint8_t *vmlinux)
{
    static const uint8_t magic[4] = {0x02, 0x21, 0x4c, 0x18};
    size_t at = sizeof(magic);

    memcpy(to, magic, sizeof(magic));
    for (size_t done = 0; done < VMLINUX_BYTES; done += LZ4_BLOCK_BYTES) {
        int got = LZ4_compress_default((const char *)vmlinux + done, (char *)to + at + 4, (int)LZ4_BLOCK_BYTES,
                                       (int)(MAX_PACKED_BYTES - at - 4));
        ck_assert_int_gt(got, 0);
        memcpy(to + at, &got, 4);
        at += 4 + (size_t)got;
    }
    return at;
}

/* The vmlinux, the caller's to free; the bzImage around it is in the file. */
static uint8_t *write_kernel(const char *path, bool lz4)
{
    uint8_t *vmlinux = malloc(VMLINUX_BYTES), *packed = malloc(MAX_PACKED_BYTES),
            *file = malloc(MAX_PACKED_BYTES + RUN_MIB);

    ck_assert(vmlinux && packed && file);
    make_vmlinux(vmlinux);
    size_t bytes = lz4 ? pack_lz4(packed, vmlinux) : ZSTD_compress(packed, MAX_PACKED_BYTES, vmlinux, VMLINUX_BYTES, 1);
    ck_assert(!ZSTD_isError(bytes));
    ck_assert_uint_ge(bytes, NOISE_BYTES);
    rig_write(path, file, rig_bzimage(file, packed, bytes, VMLINUX_BYTES));
    free(packed);
    free(file);
    return vmlinux;
}

/* zstd and lz4. */
START_TEST(test_linux_load_keeps_the_process_within_the_budget)
{
    struct program p;
    char path[160];

    program_init(&p);
    free(write_kernel(program_path(&p, "vmlinuz", path), _i));
    program_start(&p, "run --kernel vmlinuz --memory 128M --budget 56M --quiet --api none --json out.json");
    uint64_t most = run_watch(&p);
    ck_assert_msg(p.code == 0, "exit code %d\n%s%s", p.code, p.out_text, p.err_text);
    json_t *json = run_load(&p, "out.json");
    uint64_t peak = run_number(json, "peak_resident_bytes");
    ck_assert_str_eq(run_text(json, "result"), "ok");
    ck_assert_uint_ge(peak, CODE_BYTES); /* it was all there */
    ck_assert_uint_le(MAX_OF(peak, most), BUDGET_BYTES + RUN_OVERHEAD_BYTES + RUN_OVERHEAD_VM_BYTES);
    json_decref(json);
    unlink(path);
    program_fini(&p, "out.json");
}
END_TEST

START_TEST(test_linux_load_leaves_the_kernel_and_nothing_else)
{
    struct memhost_config host = {.backend = BACKEND_EBB,
                                  .transport = _i ? TRANSPORT_COPY : TRANSPORT_AUTO,
                                  .mm = {.budget_bytes = BUDGET_BYTES, .thp = true}};
    struct linux_config linux = {.cmdline = "console=ttyS0"};
    struct machine_config config = {.name = "test", .memory_bytes = MEMORY_BYTES, .nr_cpus = 1, .linux = &linux};
    struct machine *machine;
    struct memhost *mh;
    struct mm_vm_stat stat;
    struct diag diag = {0};
    char path[] = "/tmp/ebb-linux-load-XXXXXX";

    close(mkstemp(path));
    uint8_t *vmlinux = write_kernel(path, _i);
    snprintf(linux.kernel_path, sizeof(linux.kernel_path), "%s", path);
    ck_assert_msg(memhost_create(&host, &mh, &diag) == 0, "%s", diag.text);
    ck_assert_msg(machine_create(mh, &config, &machine, &diag) == 0, "%s", diag.text);
    struct memhost_vm *memory = machine_memory(machine);
    mm_vm_stat(memhost_vm_mm(memory), &stat);
    /* A block of 2 MiB at each end of the kernel, and below 1 MiB. */
    ck_assert_uint_ge(stat.untouched_bytes, MEMORY_BYTES - CODE_BYTES - 3 * BLOCK_BYTES);
    ck_assert_int_eq(memcmp(memhost_vm_hva(memory, (gpa_t){CODE_GPA}, CODE_BYTES), vmlinux + CODE_OFFSET, CODE_BYTES),
                     0);
    const char *first = memhost_vm_hva(memory, (gpa_t){SCRATCH_GPA}, 1);
    for (uint64_t at = 0; at < VMLINUX_BYTES; at += VMLINUX_BYTES / 16)
        ck_assert_int_eq(first[at], 0);
    ck_assert_int_eq(machine_start(machine, &diag), 0);
    ck_assert_int_eq(machine_join(machine)->state, MACHINE_DONE);
    machine_destroy(machine);
    memhost_destroy(mh);
    free(vmlinux);
    unlink(path);
}
END_TEST

/* A damaged payload or zeros that replaced it: what is wrong is the memory, and that is what is said. */
START_TEST(test_linux_load_into_too_small_a_budget_says_so)
{
    struct program p;
    char path[160];

    program_init(&p);
    free(write_kernel(program_path(&p, "vmlinuz", path), _i));
    program_run(&p, "run --kernel vmlinuz --memory 128M --budget 32M --quiet --api none");
    ck_assert_int_eq(p.code, 2);
    ck_assert_msg(strstr(p.err_text, "--budget"), "%s", p.err_text);
    ck_assert_uint_eq(program_lines(p.err_text), 1);
    unlink(path);
    program_fini(&p, NULL);
}
END_TEST

/* Three files that grow far beyond the budget: an initrd, and payloads of one byte over and over. */
#define GROWN_BYTES (144 * RUN_MIB)

static void write_growing(const struct program *p, unsigned which)
{
    uint8_t *file = malloc(2 * RUN_MIB), *packed = malloc(RUN_MIB), *grown = malloc(GROWN_BYTES);
    static const uint8_t magic[4] = {0x02, 0x21, 0x4c, 0x18};
    size_t bytes = sizeof(magic);
    char path[160];

    ck_assert(file && packed && grown);
    memset(grown, 'x', GROWN_BYTES);
    if (which == 0)
        rig_write(program_path(p, "initrd", path), grown, GROWN_BYTES);
    if (which == 1)
        bytes = ZSTD_compress(packed, RUN_MIB, grown, GROWN_BYTES, 1);
    ck_assert(!ZSTD_isError(bytes));
    memcpy(packed, magic, which == 2 ? sizeof(magic) : 0);
    for (size_t done = 0; done < GROWN_BYTES && which == 2; done += LZ4_BLOCK_BYTES) {
        int got = LZ4_compress_default((const char *)grown + done, (char *)packed + bytes + 4, (int)LZ4_BLOCK_BYTES,
                                       (int)(RUN_MIB - bytes - 4));
        ck_assert_int_gt(got, 0);
        memcpy(packed + bytes, &got, 4);
        bytes += 4 + (size_t)got;
    }
    bytes = which ? rig_bzimage(file, packed, bytes, GROWN_BYTES) : rig_zstd_bzimage(file, true);
    rig_write(program_path(p, "vmlinuz", path), file, bytes);
    free(grown);
    free(packed);
    free(file);
}

START_TEST(test_linux_load_beyond_the_budget_does_not_go_on_outside_of_it)
{
    struct program p;
    char path[160];

    program_init(&p);
    write_growing(&p, (unsigned)_i);
    program_start(&p, _i ? "run --kernel vmlinuz --memory 256M --budget 32M --quiet --api none"
                         : "run --kernel vmlinuz --initrd initrd --memory 256M --budget 32M --quiet --api none");
    uint64_t most = run_watch(&p);
    ck_assert_int_eq(p.code, 2);
    ck_assert_msg(strstr(p.err_text, "--budget"), "%s", p.err_text);
    /* of lz4 one block is unpacked at once */
    ck_assert_uint_le(most,
                      32 * RUN_MIB + RUN_OVERHEAD_BYTES + RUN_OVERHEAD_VM_BYTES + (_i == 2 ? LZ4_BLOCK_BYTES : 0));
    unlink(program_path(&p, "vmlinuz", path));
    program_fini(&p, _i ? NULL : "initrd");
}
END_TEST

/* A page of what is loaded had left, and its swap file cannot be read: more memory would not help. */
START_TEST(test_linux_load_that_lost_a_page_is_not_called_too_large)
{
    struct memhost_config host = {.backend = BACKEND_EBB, .mm = {.budget_bytes = BUDGET_BYTES, .thp = true}};
    struct linux_config linux = {.cmdline = "console=ttyS0"};
    struct machine_config config = {.name = "test", .memory_bytes = MEMORY_BYTES, .nr_cpus = 1, .linux = &linux};
    struct machine *machine;
    struct memhost *mh;
    struct diag diag = {0};
    uint8_t *file = malloc(RIG_FILE_BYTES);
    char path[] = "/tmp/ebb-linux-load-XXXXXX";

    ck_assert_ptr_nonnull(file);
    close(mkstemp(path));
    rig_write(path, file, rig_zstd_bzimage(file, true));
    snprintf(linux.kernel_path, sizeof(linux.kernel_path), "%s", path);
    ck_assert_msg(memhost_create(&host, &mh, &diag) == 0, "%s", diag.text);
    ck_assert_msg(machine_create(mh, &config, &machine, &diag) == 0, "%s", diag.text);
    machine_end(machine, MACHINE_FAILED, ENDING_NONE, _i ? -EIO : -ENOMEM, "page gpa 0x1000000: why");
    ck_assert_int_eq(linux_load(machine, &config, &diag), -1);
    ck_assert_int_eq(diag.code, _i ? EXIT_HOST : EXIT_USAGE);
    ck_assert_str_eq(diag.text, _i ? "kernel and initrd cannot be loaded: page gpa 0x1000000: why"
                                   : "kernel and initrd do not fit: page gpa 0x1000000: why");
    machine_destroy(machine);
    memhost_destroy(mh);
    free(file);
    unlink(path);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("linux_load");
    TCase *tcase = tcase_create("linux_load");

    if (!program_has_kvm("large kernels on /dev/kvm"))
        return EXIT_SUCCESS;
    tcase_set_timeout(tcase, 120);
    tcase_add_loop_test(tcase, test_linux_load_keeps_the_process_within_the_budget, 0, 2);
    tcase_add_loop_test(tcase, test_linux_load_leaves_the_kernel_and_nothing_else, 0, 2);
    tcase_add_loop_test(tcase, test_linux_load_into_too_small_a_budget_says_so, 0, 2);
    tcase_add_loop_test(tcase, test_linux_load_beyond_the_budget_does_not_go_on_outside_of_it, 0, 3);
    tcase_add_loop_test(tcase, test_linux_load_that_lost_a_page_is_not_called_too_large, 0, 2);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
