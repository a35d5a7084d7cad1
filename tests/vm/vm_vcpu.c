/* SPDX-License-Identifier: Apache-2.0 */
/*
 * KVM and one vCPU with hand-made code instead of the guest kernel: exits, read-only memory, triple fault, and leaving
 * a page fault that nobody answers.
 *
 *   memory   0x0000  page tables: 1 GiB table, 2 MiB pages, one to one
 *            0x8000  code; entered in ring 0 with rdi = 0x3f8
 */
#include <check.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "tests/fake/program.h"
#include "vmm/guest_ports.h"
#include "vmm/thread.h"
#include "vmm/vcpu.h"

extern const uint8_t ebbguest_image[], ebbguest_image_end[];

#define MIB (UINT64_C(1) << 20)
#define MEMORY_BYTES (4 * MIB)
#define ROM_GPA UINT64_C(0x10000000)
#define CODE 0x8000
#define PORT 0x3f8

struct rig {
    uint8_t *memory;
    struct kvm kvm;
    struct bus bus;
    struct vcpu vcpu;
    struct vcpu_env env;
    atomic_bool stop, left;
    char sent[64]; /* bytes written to PORT */
    unsigned nr_sent;
    char reason[240];
};

static void port_write(void *ctx, const struct bus_access *access, uint64_t value)
{
    struct rig *rig = ctx;

    for (unsigned i = 0; i < access->bytes && rig->nr_sent < sizeof(rig->sent) - 1; i++, value >>= 8)
        rig->sent[rig->nr_sent++] = (char)value;
    if (access->offset == 7)
        atomic_store(&rig->stop, true);
}

static void on_failure(void *ctx, const char *reason)
{
    struct rig *rig = ctx;

    snprintf(rig->reason, sizeof(rig->reason), "%s", reason);
    atomic_store(&rig->stop, true);
}

static void on_leave(void *ctx)
{
    atomic_store(&((struct rig *)ctx)->left, true);
}

static uint8_t *map_memory(uint64_t bytes)
{
    /* one more block, so that an aligned start can be had */
    uint8_t *map = mmap(NULL, bytes + 2 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    ck_assert_ptr_ne(map, MAP_FAILED);
    return (uint8_t *)(((uintptr_t)map + 2 * MIB - 1) & ~(uintptr_t)(2 * MIB - 1));
}

static void make_page_tables(uint8_t *memory)
{
    uint64_t *root = (uint64_t *)memory, *pdpt = root + 512, *directory = pdpt + 512;

    root[0] = 0x1027;
    pdpt[0] = 0x2027;
    for (uint64_t i = 0; i < 512; i++)
        directory[i] = i * 2 * MIB | 0xe7;
}

static void rig_open(struct rig *rig, uint64_t bytes)
{
    struct diag diag = {0};

    memset(rig, 0, sizeof(*rig));
    rig->memory = map_memory(bytes);
    vcpu_prepare_signals();
    bus_init(&rig->bus);
    rig->env = (struct vcpu_env){
        .bus = &rig->bus,
        .stop = &rig->stop,
        .on_failure = on_failure,
        .on_leave = on_leave,
        .ctx = rig,
    };
    ck_assert_msg(kvm_open(&rig->kvm, &diag) == 0, "%s", diag.text);
    ck_assert_msg(kvm_map(&rig->kvm, (gpa_t){0}, rig->memory, bytes, false, &diag) == 0, "%s", diag.text);
}

static void rig_start(struct rig *rig, uint64_t entry, uint64_t page_tables, uint64_t rdi)
{
    struct diag diag = {0};
    struct kvm_vcpu kvm;

    ck_assert_msg(kvm_vcpu_open(&rig->kvm, 0, &kvm, &diag) == 0, "%s", diag.text);
    vcpu_init(&rig->vcpu, &kvm, 0, &rig->env);
    ck_assert_msg(kvm_vcpu_set_entry(&kvm, (gpa_t){entry}, (gpa_t){page_tables}, rdi, &diag) == 0, "%s", diag.text);
    ck_assert_msg(vcpu_start(&rig->vcpu, "test", THREAD_ANY_CPU, &diag) == 0, "%s", diag.text);
}

static void run_code(struct rig *rig, const void *code, size_t bytes)
{
    const struct bus_device port = {.write = port_write, .ctx = rig};

    ck_assert_int_eq(bus_add(&rig->bus, BUS_PORT, PORT, 8, &port), 0);
    make_page_tables(rig->memory);
    memcpy(rig->memory + CODE, code, bytes);
    rig_start(rig, CODE, 0, PORT);
}

static void rig_close(struct rig *rig)
{
    vcpu_join(&rig->vcpu);
    vcpu_fini(&rig->vcpu);
    kvm_close(&rig->kvm);
}

/* Last instructions of all code: mov edx, PORT + 7; out dx, al; then jump to itself. */
#define END_CODE "\xba\xff\x03\x00\x00\xee\xeb\xfe"

START_TEST(test_vcpu_ports_of_every_width_are_served)
{
    /* mov edx, edi; mov eax, "Ebb\n"; out dx, eax; out dx, ax; out dx, al; in al, 0x99; out dx, al */
    static const char code[] = "\x89\xfa\xb8"
                               "Ebb\n"
                               "\xef\x66\xef\xee\xe4\x99\xee" END_CODE;
    struct rig rig;

    rig_open(&rig, MEMORY_BYTES);
    run_code(&rig, code, sizeof(code));
    rig_close(&rig);
    ck_assert_str_eq(rig.reason, "");
    ck_assert_mem_eq(rig.sent, "Ebb\nEbE\xff", 8);
    ck_assert_uint_eq(bus_nr_unanswered(&rig.bus, BUS_PORT), 1);
    ck_assert_uint_eq(rig.vcpu.nr_io, 6);
}
END_TEST

START_TEST(test_vcpu_nothing_at_an_address_reads_ones)
{
    /* mov edx, edi; mov ebx, 0x20000000; mov eax, [rbx]; mov [rbx], eax; out dx, eax */
    static const char code[] = "\x89\xfa\xbb\x00\x00\x00\x20\x8b\x03\x89\x03\xef" END_CODE;
    struct rig rig;

    rig_open(&rig, MEMORY_BYTES);
    run_code(&rig, code, sizeof(code));
    rig_close(&rig);
    ck_assert_str_eq(rig.reason, "");
    ck_assert_mem_eq(rig.sent, "\xff\xff\xff\xff", 4);
    ck_assert_uint_eq(bus_nr_unanswered(&rig.bus, BUS_MMIO), 2);
}
END_TEST

START_TEST(test_vcpu_read_only_memory_keeps_its_content)
{
    /* mov edx, edi; mov ebx, ROM_GPA; mov dword [rbx], 0x21212121; mov eax, [rbx]; out dx, eax */
    static const char code[] = "\x89\xfa\xbb\x00\x00\x00\x10\xc7\x03!!!!\x8b\x03\xef" END_CODE;
    struct rig rig;
    struct diag diag = {0};

    rig_open(&rig, MEMORY_BYTES);
    uint8_t *rom = map_memory(2 * MIB);
    memcpy(rom, "kept", 4);
    ck_assert_msg(kvm_map(&rig.kvm, (gpa_t){ROM_GPA}, rom, 2 * MIB, true, &diag) == 0, "%s", diag.text);
    run_code(&rig, code, sizeof(code));
    rig_close(&rig);
    ck_assert_str_eq(rig.reason, "");
    ck_assert_mem_eq(rig.sent, "kept", 4);
    ck_assert_mem_eq(rom, "kept", 4);
    ck_assert_uint_eq(bus_nr_unanswered(&rig.bus, BUS_MMIO), 1);
}
END_TEST

START_TEST(test_vcpu_triple_fault_is_told_with_registers)
{
    static const char code[] = "\x0f\x0b"; /* ud2, and there is no IDT */
    struct rig rig;

    rig_open(&rig, MEMORY_BYTES);
    run_code(&rig, code, sizeof(code));
    rig_close(&rig);
    /* on AMD the registers are those after KVM's reset, and the line says so */
    ck_assert_msg(strstr(rig.reason, "vCPU 0: triple fault; "), "%s", rig.reason);
    ck_assert_msg(strstr(rig.reason, "rip 0x"), "%s", rig.reason);
    ck_assert(atomic_load(&rig.left));
}
END_TEST

START_TEST(test_vcpu_kick_ends_an_endless_loop)
{
    static const char code[] = "\xeb\xfe";
    struct rig rig;

    rig_open(&rig, MEMORY_BYTES);
    run_code(&rig, code, sizeof(code));
    usleep(20000);
    ck_assert(!atomic_load(&rig.left));
    atomic_store(&rig.stop, true);
    vcpu_kick(&rig.vcpu);
    rig_close(&rig);
    ck_assert_str_eq(rig.reason, "");
}
END_TEST

START_TEST(test_vcpu_kick_before_the_start_is_not_lost)
{
    static const char code[] = "\xeb\xfe";
    struct rig rig;

    for (unsigned i = 0; i < 50; i++) {
        rig_open(&rig, MEMORY_BYTES);
        run_code(&rig, code, sizeof(code));
        atomic_store(&rig.stop, true);
        vcpu_kick(&rig.vcpu);
        rig_close(&rig);
    }
}
END_TEST

START_TEST(test_kvm_bad_memory_is_refused)
{
    struct rig rig;
    struct diag diag = {0};

    rig_open(&rig, MEMORY_BYTES);
    ck_assert_int_eq(kvm_map(&rig.kvm, (gpa_t){0}, rig.memory, MEMORY_BYTES, false, &diag), -1);
    ck_assert_int_eq(diag.code, EXIT_HOST);
    ck_assert_msg(strstr(diag.text, "KVM refuses"), "%s", diag.text);
    kvm_close(&rig.kvm);
}
END_TEST

/* --- a page that does not come --------------------------------------------------------------------- */

/* Missing pages of [at, at + bytes) wait for whoever reads the descriptor: nobody does. */
static int register_missing(uint8_t *at, uint64_t bytes)
{
    struct uffdio_api api = {.api = UFFD_API};
    struct uffdio_register range = {
        .range = {(uintptr_t)at, bytes},
        .mode = UFFDIO_REGISTER_MODE_MISSING,
    };
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

    ck_assert_msg(fd >= 0, "no userfaultfd: run as root");
    ck_assert_int_eq(ioctl(fd, UFFDIO_API, &api), 0);
    ck_assert_int_eq(ioctl(fd, UFFDIO_REGISTER, &range), 0);
    return fd;
}

static void wait_for_fault(int uffd)
{
    struct uffd_msg message;

    while (read(uffd, &message, sizeof(message)) != (ssize_t)sizeof(message))
        usleep(1000);
    ck_assert_int_eq(message.event, UFFD_EVENT_PAGEFAULT);
}

static void no_line(void *ctx, const char *line)
{
    (void)ctx;
    (void)line;
}

static void no_exit(void *ctx, const char *error)
{
    (void)ctx;
    (void)error;
}

/* The guest kernel in ring 3 touches its first page of metadata, which never comes. */
START_TEST(test_vcpu_kick_ends_a_wait_for_a_page)
{
    const uint64_t bytes = 32 * MIB;
    struct workload workload;
    struct guest_ports ports;
    struct guest_ports_config config = {
        .nr_cpus = 1, .workload = &workload, .low_bytes = bytes, .on_line = no_line, .on_exit = no_exit};
    struct diag diag = {0};
    struct rig rig;

    ck_assert_int_eq(workload_parse("fill", bytes, &workload, &diag), 0);
    rig_open(&rig, bytes);
    ck_assert_int_eq(guest_ports_init(&ports, &config), 0);
    ck_assert_int_eq(guest_ports_attach(&ports, &rig.bus), 0);
    memset(rig.memory, 0, 2 * MIB); /* ring 0 and the stacks find theirs */
    int uffd = register_missing(rig.memory + 2 * MIB, bytes - 2 * MIB);
    ck_assert_int_eq(kvm_map(&rig.kvm, (gpa_t){EBB_SHARED_GPA}, ports.shared, ports.shared_bytes, false, &diag), 0);
    ck_assert_int_eq(kvm_map(&rig.kvm, (gpa_t){EBB_ROM_GPA}, ebbguest_image,
                             (uint64_t)(ebbguest_image_end - ebbguest_image), true, &diag),
                     0);
    rig_start(&rig, EBB_ROM_GPA, EBB_ROM_CR3, 0);
    wait_for_fault(uffd);
    usleep(20000);
    ck_assert(!atomic_load(&rig.left));
    atomic_store(&rig.stop, true);
    vcpu_kick(&rig.vcpu);
    rig_close(&rig);
    ck_assert_str_eq(rig.reason, "");
    close(uffd);
    guest_ports_fini(&ports);
}
END_TEST

/*
 * Ring 0 touches the page. Where the processor runs ring 0 itself this is as above; where KVM emulates it the kernel
 * may wait without hearing signals, and the vCPU leaves when the page has come (memhost_vm_release_waiters).
 */
START_TEST(test_vcpu_kick_and_page_end_a_wait_in_ring_0)
{
    /* mov ebx, 2 MiB; mov [rbx], eax; jump to itself */
    static const char code[] = "\xbb\x00\x00\x20\x00\x89\x03\xeb\xfe";
    struct uffdio_zeropage zero = {0};
    struct rig rig;

    rig_open(&rig, MEMORY_BYTES);
    memset(rig.memory, 0, 2 * MIB);
    int uffd = register_missing(rig.memory + 2 * MIB, MEMORY_BYTES - 2 * MIB);
    run_code(&rig, code, sizeof(code));
    wait_for_fault(uffd);
    atomic_store(&rig.stop, true);
    vcpu_kick(&rig.vcpu);
    for (unsigned i = 0; i < 100 && !atomic_load(&rig.left); i++)
        usleep(1000);
    printf("a wait in ring 0 %s by the kick alone\n", atomic_load(&rig.left) ? "ends" : "does not end");
    zero.range = (struct uffdio_range){(uintptr_t)rig.memory + 2 * MIB, PAGE_BYTES};
    ioctl(uffd, UFFDIO_ZEROPAGE, &zero);
    rig_close(&rig);
    close(uffd);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("vcpu");
    TCase *tcase = tcase_create("vcpu");

    if (!program_has_kvm("vCPUs on /dev/kvm"))
        return EXIT_SUCCESS;
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, test_vcpu_ports_of_every_width_are_served);
    tcase_add_test(tcase, test_vcpu_nothing_at_an_address_reads_ones);
    tcase_add_test(tcase, test_vcpu_read_only_memory_keeps_its_content);
    tcase_add_test(tcase, test_vcpu_triple_fault_is_told_with_registers);
    tcase_add_test(tcase, test_vcpu_kick_ends_an_endless_loop);
    tcase_add_test(tcase, test_vcpu_kick_before_the_start_is_not_lost);
    tcase_add_test(tcase, test_kvm_bad_memory_is_refused);
    tcase_add_test(tcase, test_vcpu_kick_ends_a_wait_for_a_page);
    tcase_add_test(tcase, test_vcpu_kick_and_page_end_a_wait_in_ring_0);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
