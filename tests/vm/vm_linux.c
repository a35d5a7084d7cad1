/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine that runs Linux, with kernels of a few instructions: they run on every KVM, also where ring 0 is emulated.
 * How a guest ends, its console in both directions, pause, the dirty log, its devices, and what is refused. A whole Linux
 * boots in the lab (tests/lab/steps/linux-boot.sh).
 */
#include "devices/mem/mem.h"
#include "tests/fake/fail_alloc.h"
#include "tests/fake/program.h"
#include "vmm/machine.h"
#include "vmm/quiesce.h"

#include <check.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <pty.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MIB (UINT64_C(1) << 20)
#define MEMORY_BYTES (64 * MIB)
#define CODE_GPA UINT64_C(0x1000000)
#define COUNTER_GPA UINT64_C(0x1800000)
#define MAX_CODE 4096

/* Code of 32-bit protected mode, where PVH begins. */
#define POWEROFF "\x66\xba\x00\x06\xb0\x34\xee"               /* mov dx, 0x600; mov al, 0x34; out dx, al */
#define RESET_KEYBOARD "\xb0\xfe\xe6\x64"                     /* mov al, 0xfe; out 0x64, al */
#define RESET_PORT "\x66\xba\xf9\x0c\xb0\x06\xee"             /* mov dx, 0xcf9; mov al, 6; out dx, al */
#define PANIC_PORT "\x66\xba\x05\x05\xb0\x01\xee"             /* mov dx, 0x505; mov al, 1; out dx, al */
#define TRIPLE_FAULT "\x0f\x0b"                               /* ud2; there is no interrupt table */
#define SPIN "\xeb\xfe"                                       /* jump to itself */
#define COUNT "\xff\x05\x00\x00\x80\x01\xeb\xf8"              /* again: inc dword [COUNTER_GPA]; jmp again */
#define WAIT_FOR_INPUT "\x66\xba\xfd\x03\xec\xa8\x01\x74\xfb" /* again: in al, 0x3fd; test al, 1; jz again */
#define SEND_BACK "\x66\xba\xf8\x03\xec\xee"                  /* in al, 0x3f8; out 0x3f8, al */
#define PANIC_LINE "[    1.0] Kernel panic - not syncing: out of coffee\n"

struct rig {
    char kernel[64];
    uint8_t code[MAX_CODE];
    size_t code_bytes;
    struct memhost *mh;
    struct linux_config linux;
    struct machine_config config;
    struct machine *machine;
    struct diag diag;
    pthread_mutex_t lock;
    char console[4096]; /* guarded by lock */
};

static void keep_line(void *ctx, const char *line)
{
    struct rig *rig = ctx;

    pthread_mutex_lock(&rig->lock);
    size_t at = strlen(rig->console);
    snprintf(rig->console + at, sizeof(rig->console) - at, "%s\n", line);
    pthread_mutex_unlock(&rig->lock);
}

#define add(rig, text) add_code(rig, text, sizeof(text) - 1)

static void add_code(struct rig *rig, const char *code, size_t bytes)
{
    ck_assert_uint_le(rig->code_bytes + bytes, sizeof(rig->code));
    memcpy(rig->code + rig->code_bytes, code, bytes);
    rig->code_bytes += bytes;
}

static void add_print(struct rig *rig, const char *text)
{
    add(rig, "\x66\xba\xf8\x03"); /* mov dx, 0x3f8 */
    for (; *text; text++) {
        const char put[] = {'\xb0', *text, '\xee'}; /* mov al, *text; out dx, al */
        add_code(rig, put, sizeof(put));
    }
}

/* A vmlinux as small as it can be: one segment with the code, one note with the PVH entry. */
static void write_kernel(const struct rig *rig)
{
    struct {
        Elf64_Ehdr header;
        Elf64_Phdr segment, note;
        struct {
            uint32_t name_bytes, bytes, type;
            char name[4];
            uint64_t entry;
        } xen;
    } file = {
        .header = {.e_type = ET_EXEC,
                   .e_machine = EM_X86_64,
                   .e_version = EV_CURRENT,
                   .e_entry = CODE_GPA,
                   .e_phoff = sizeof(Elf64_Ehdr),
                   .e_ehsize = sizeof(Elf64_Ehdr),
                   .e_phentsize = sizeof(Elf64_Phdr),
                   .e_phnum = 2},
        .segment = {.p_type = PT_LOAD,
                    .p_flags = PF_R | PF_X,
                    .p_offset = sizeof(file),
                    .p_vaddr = CODE_GPA,
                    .p_paddr = CODE_GPA,
                    .p_filesz = rig->code_bytes,
                    .p_memsz = rig->code_bytes},
        .xen = {4, 8, 18, "Xen", CODE_GPA},
    };
    FILE *out = fopen(rig->kernel, "w");

    memcpy(file.header.e_ident, ELFMAG, SELFMAG);
    file.header.e_ident[EI_CLASS] = ELFCLASS64;
    file.header.e_ident[EI_DATA] = ELFDATA2LSB;
    file.header.e_ident[EI_VERSION] = EV_CURRENT;
    file.note = (Elf64_Phdr){.p_type = PT_NOTE,
                             .p_offset = (uint64_t)((char *)&file.xen - (char *)&file),
                             .p_filesz = sizeof(file.xen),
                             .p_memsz = sizeof(file.xen),
                             .p_align = 4};
    ck_assert_ptr_nonnull(out);
    ck_assert_uint_eq(fwrite(&file, sizeof(file), 1, out), 1);
    ck_assert_uint_eq(fwrite(rig->code, rig->code_bytes, 1, out), 1);
    fclose(out);
}

static struct rig *rig_new(void)
{
    struct memhost_config host = {.backend = BACKEND_EBB, .mm = {.budget_bytes = 2 * MEMORY_BYTES, .thp = true}};
    struct rig *rig = calloc(1, sizeof(*rig));

    ck_assert_ptr_nonnull(rig);
    pthread_mutex_init(&rig->lock, NULL);
    snprintf(rig->kernel, sizeof(rig->kernel), "/tmp/ebb-vm-linux-%ld", (long)getpid());
    snprintf(rig->linux.kernel_path, sizeof(rig->linux.kernel_path), "%s", rig->kernel);
    snprintf(rig->linux.cmdline, sizeof(rig->linux.cmdline), "console=ttyS0");
    rig->config = (struct machine_config){.name = "test",
                                          .memory_bytes = MEMORY_BYTES,
                                          .nr_cpus = 1,
                                          .linux = &rig->linux,
                                          .on_line = keep_line,
                                          .ctx = rig};
    ck_assert_msg(memhost_create(&host, &rig->mh, &rig->diag) == 0, "%s", rig->diag.text);
    return rig;
}

static void rig_start(struct rig *rig)
{
    write_kernel(rig);
    ck_assert_msg(machine_create(rig->mh, &rig->config, &rig->machine, &rig->diag) == 0, "%s", rig->diag.text);
    ck_assert_msg(machine_start(rig->machine, &rig->diag) == 0, "%s", rig->diag.text);
}

static void rig_free(struct rig *rig)
{
    if (rig->machine)
        machine_destroy(rig->machine);
    memhost_destroy(rig->mh);
    unlink(rig->kernel);
    pthread_mutex_destroy(&rig->lock);
    free(rig);
}

static void sleep_ms(unsigned ms)
{
    struct timespec time = {ms / 1000, (long)(ms % 1000) * 1000000};

    nanosleep(&time, NULL);
}

/* --- ends ------------------------------------------------------------------------------------------ */

#define CODE(text) text, sizeof(text) - 1

static const struct {
    const char *print, *code;
    size_t code_bytes;
    enum machine_state state;
    enum machine_ending ending;
    const char *reason;
} ends[] = {
    {"", CODE(POWEROFF), MACHINE_DONE, ENDING_POWEROFF, ""},
    {"", CODE(RESET_KEYBOARD), MACHINE_DONE, ENDING_REBOOT, ""},
    {"", CODE(RESET_PORT), MACHINE_DONE, ENDING_REBOOT, ""},
    {PANIC_LINE, CODE(RESET_KEYBOARD), MACHINE_FAILED, ENDING_PANIC,
     "panicked: Kernel panic - not syncing: out of coffee"},
    {PANIC_LINE, CODE(PANIC_PORT), MACHINE_FAILED, ENDING_PANIC, "out of coffee"},
    {PANIC_LINE, CODE(TRIPLE_FAULT), MACHINE_FAILED, ENDING_PANIC, "out of coffee"},
    {"", CODE(PANIC_PORT), MACHINE_FAILED, ENDING_PANIC, "does not say why"},
    {PANIC_LINE, CODE(POWEROFF), MACHINE_DONE, ENDING_POWEROFF,
     ""}, /* a program said so: no panicked kernel powers off */
    {"", CODE(TRIPLE_FAULT), MACHINE_FAILED, ENDING_NONE, "triple fault"},
};

START_TEST(test_linux_guest_ends_as_it_says)
{
    struct rig *rig = rig_new();

    add_print(rig, ends[_i].print);
    add_code(rig, ends[_i].code, ends[_i].code_bytes);
    add(rig, SPIN);
    rig_start(rig);
    const struct machine_result *result = machine_join(rig->machine);
    ck_assert_msg(result->state == ends[_i].state, "state %d: %s", result->state, result->reason);
    ck_assert_int_eq(result->ending, ends[_i].ending);
    ck_assert_msg(strstr(result->reason, ends[_i].reason), "\"%s\" does not say \"%s\"", result->reason,
                  ends[_i].reason);
    ck_assert_str_eq(rig->console, ends[_i].print);
    ck_assert_uint_eq(result->nr_unanswered, 0);
    rig_free(rig);
}
END_TEST

/* Of TRIPLE_FAULT, in 32-bit code. */
#ifdef EBB_CAPSTONE
#define FIRST_INSTRUCTION "ud2"
#else
#define FIRST_INSTRUCTION "0f 0b"
#endif

START_TEST(test_linux_triple_fault_names_registers_and_code)
{
    struct rig *rig = rig_new();

    add(rig, TRIPLE_FAULT);
    rig_start(rig);
    const char *reason = machine_join(rig->machine)->reason;
    ck_assert_msg(strstr(reason, "rip 0x"), "%s", reason);
    ck_assert_msg(strstr(reason, " cr4 0x") && strstr(reason, " rbp 0x"), "%s", reason);
    if (strstr(reason, "rip 0x1000000")) /* AMD's KVM has reset the vCPU by then */
        ck_assert_msg(strstr(reason, "triple fault at " FIRST_INSTRUCTION), "%s", reason);
    rig_free(rig);
}
END_TEST

START_TEST(test_linux_init_line_is_the_end_of_booting)
{
    struct rig *rig = rig_new();

    add_print(rig, "[    4.56] Run /init as init process\n");
    add(rig, POWEROFF);
    rig_start(rig);
    const struct machine_result *result = machine_join(rig->machine);
    ck_assert_uint_gt(result->boot_ns, 0);
    ck_assert_uint_le(result->boot_ns, result->run_ns);
    rig_free(rig);
}
END_TEST

START_TEST(test_linux_stop_ends_a_guest_that_runs_for_ever)
{
    struct rig *rig = rig_new();
    struct timespec from, to;

    rig->config.nr_cpus = 2; /* the second waits for its start-up interrupt */
    add(rig, SPIN);
    rig_start(rig);
    sleep_ms(20);
    clock_gettime(CLOCK_MONOTONIC, &from);
    machine_stop(rig->machine);
    ck_assert_int_eq(machine_join(rig->machine)->state, MACHINE_STOPPED);
    clock_gettime(CLOCK_MONOTONIC, &to);
    ck_assert_int_lt(to.tv_sec - from.tv_sec, 3); /* one second is promised; a busy test machine gets three */
    rig_free(rig);
}
END_TEST

/* --- console --------------------------------------------------------------------------------------- */

START_TEST(test_linux_console_input_reaches_the_guest)
{
    static const char typed[] = "go\n";
    struct rig *rig = rig_new();

    for (unsigned i = 0; i < 3; i++) {
        add(rig, WAIT_FOR_INPUT);
        add(rig, SEND_BACK);
    }
    add(rig, POWEROFF);
    rig_start(rig);
    for (size_t done = 0; done < 3; sleep_ms(1))
        done += machine_console_input(rig->machine, &typed[done], 3 - done);
    ck_assert_int_eq(machine_join(rig->machine)->state, MACHINE_DONE);
    ck_assert_str_eq(rig->console, "go\n");
    rig_free(rig);
}
END_TEST

static void keep_byte(void *ctx, uint8_t byte)
{
    struct rig *rig = ctx;

    pthread_mutex_lock(&rig->lock);
    size_t at = strlen(rig->console);
    rig->console[at] = (char)byte;
    pthread_mutex_unlock(&rig->lock);
}

START_TEST(test_linux_raw_console_has_bytes_and_no_lines)
{
    struct rig *rig = rig_new();

    rig->config.on_byte = keep_byte;
    add_print(rig, "\033[1mlogin: ");
    add_print(rig, PANIC_LINE);
    add(rig, RESET_PORT);
    rig_start(rig);
    ck_assert_int_eq(machine_join(rig->machine)->ending, ENDING_PANIC); /* lines are still read for that */
    ck_assert_str_eq(rig->console, "\033[1mlogin: " PANIC_LINE);
    rig_free(rig);
}
END_TEST

/* --- ebb run --console, from outside -------------------------------------------------------------------- */

/* Reads what ebb prints until @word is among it; false when ebb ends or 30 s pass before. */
static bool read_until(int fd, const char *word, char *text, size_t bytes)
{
    size_t used = 0;
    struct pollfd ready = {.fd = fd, .events = POLLIN};

    text[0] = '\0';
    while (!strstr(text, word) && used + 1 < bytes && poll(&ready, 1, 30000) == 1) {
        ssize_t nr = read(fd, text + used, bytes - used - 1);
        if (nr <= 0)
            return false;
        used += (size_t)nr;
        text[used] = '\0';
    }
    return strstr(text, word);
}

/* A guest that sends back each byte, behind a terminal of its own: Ctrl-C is a byte, Ctrl-A x is the end. */
START_TEST(test_linux_terminal_is_the_guests_console)
{
    struct rig *rig = rig_new();
    struct program p;
    char text[8192];
    int fd, status;

    add(rig, WAIT_FOR_INPUT);
    add(rig, SEND_BACK);
    add(rig, "\xeb\xef"); /* jump back over both */
    write_kernel(rig);
    program_init(&p);
    pid_t pid = forkpty(&fd, NULL, NULL, NULL);
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        char *const words[] = {"ebb", "run",      "--api",     "none",      "--memory",
                               "64M", "--kernel", rig->kernel, "--console", NULL};
        fexecve(p.binary, words, environ);
        _exit(127);
    }
    ck_assert_msg(read_until(fd, "Ctrl-A x", text, sizeof(text)), "%s", text);
    sleep_ms(200); /* the terminal changes hands right after that line */
    ck_assert_int_eq(write(fd,
                           "a\x03"
                           "b\x01\x01"
                           "c",
                           6),
                     6);
    ck_assert_msg(read_until(fd,
                             "a\x03"
                             "b\x01"
                             "c",
                             text, sizeof(text)),
                  "%s", text);
    ck_assert_int_eq(write(fd, "\x01x", 2), 2);
    ck_assert_msg(read_until(fd, "Result: stopped", text, sizeof(text)), "%s", text);
    read_until(fd, "never said", text, sizeof(text));
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
    close(fd);
    program_fini(&p, NULL);
    rig_free(rig);
}
END_TEST

/* --- pause and dirty log --------------------------------------------------------------------------- */

static uint32_t counter(struct rig *rig)
{
    const uint32_t *at = memhost_vm_hva(machine_memory(rig->machine), (gpa_t){COUNTER_GPA}, sizeof(*at));

    return __atomic_load_n(at, __ATOMIC_RELAXED);
}

static void wait_for_count(struct rig *rig, uint32_t from)
{
    for (unsigned i = 0; counter(rig) == from; i++) {
        ck_assert_uint_lt(i, 5000);
        sleep_ms(1);
    }
}

START_TEST(test_linux_paused_guest_does_nothing_until_resumed)
{
    struct rig *rig = rig_new();

    rig->config.nr_cpus = 2;
    add(rig, COUNT);
    rig_start(rig);
    for (unsigned i = 0; i < 20; i++) {
        wait_for_count(rig, counter(rig));
        machine_pause(rig->machine);
        machine_pause(rig->machine);
        uint32_t at = counter(rig);
        sleep_ms(3);
        ck_assert_uint_eq(counter(rig), at);
        machine_resume(rig->machine);
        sleep_ms(1);
        ck_assert_uint_eq(counter(rig), at);
        machine_resume(rig->machine);
        wait_for_count(rig, at);
    }
    machine_pause(rig->machine);
    machine_stop(rig->machine);
    ck_assert_int_eq(machine_join(rig->machine)->state, MACHINE_STOPPED);
    machine_pause(rig->machine); /* at rest anyway */
    machine_resume(rig->machine);
    machine_resume(rig->machine);
    rig_free(rig);
}
END_TEST

static unsigned nr_bits(const uint64_t *bitmap, size_t nr_words)
{
    unsigned nr = 0;

    for (size_t i = 0; i < nr_words; i++)
        nr += (unsigned)__builtin_popcountll(bitmap[i]);
    return nr;
}

#define BITMAP_WORDS (MEMORY_BYTES / PAGE_BYTES / 64)
#define COUNTER_PAGE (COUNTER_GPA / PAGE_BYTES)

START_TEST(test_linux_dirty_log_has_the_pages_written)
{
    uint64_t *bitmap = calloc(BITMAP_WORDS, sizeof(*bitmap));
    struct rig *rig = rig_new();
    gpa_t low = {0};

    add(rig, COUNT);
    rig_start(rig);
    wait_for_count(rig, 0);
    ck_assert_int_eq(machine_dirty_log_start(rig->machine), 0);
    wait_for_count(rig, counter(rig));
    sleep_ms(50);
    machine_pause(rig->machine);
    ck_assert_int_eq(machine_dirty_log_get(rig->machine, low, bitmap), 0);
    ck_assert_uint_eq(nr_bits(bitmap, BITMAP_WORDS), 1);
    ck_assert(bitmap[COUNTER_PAGE / 64] >> COUNTER_PAGE % 64 & 1);
    ck_assert_int_eq(machine_dirty_log_get(rig->machine, low, bitmap), 0); /* nobody has written since */
    ck_assert_uint_eq(nr_bits(bitmap, BITMAP_WORDS), 0);
    ck_assert_int_eq(machine_dirty_log_get(rig->machine, (gpa_t){MEMORY_BYTES}, bitmap), -EFAULT);
    machine_dirty_log_stop(rig->machine);
    ck_assert_int_ne(machine_dirty_log_get(rig->machine, low, bitmap), 0);
    machine_resume(rig->machine);
    wait_for_count(rig, counter(rig));
    rig_free(rig);
    free(bitmap);
}
END_TEST

/* --- devices, and what is refused ------------------------------------------------------------------ */

static bool has_device(const struct rig *rig, const char *name)
{
    json_t *list = machine_devices_json(rig->machine), *device;
    bool found = false;
    size_t i;

    json_array_foreach(list, i, device) found |= strcmp(json_string_value(json_object_get(device, "name")), name) == 0;
    json_decref(list);
    return found;
}

START_TEST(test_linux_devices_are_those_asked_for)
{
    struct rig *rig = rig_new();

    rig->linux.balloon.off = true;
    rig->linux.hotplug_bytes = 64 * MIB;
    rig->linux.nr_disks = 1;
    rig->linux.disk[0] = (struct linux_disk){.read_only = true};
    add(rig, POWEROFF);
    write_kernel(rig);
    ck_assert_int_eq(truncate(rig->kernel, 4096), 0); /* as disk: whole sectors */
    snprintf(rig->linux.disk[0].path, sizeof(rig->linux.disk[0].path), "%s.disk", rig->kernel);
    ck_assert_int_eq(rename(rig->kernel, rig->linux.disk[0].path), 0);
    rig_start(rig);
    ck_assert(!has_device(rig, "balloon"));
    ck_assert_ptr_null(machine_balloon(rig->machine));
    ck_assert(has_device(rig, "rng"));
    ck_assert(has_device(rig, "disk0"));
    ck_assert(has_device(rig, "mem0"));
    ck_assert_ptr_nonnull(machine_mem(rig->machine));
    ck_assert_int_eq(machine_join(rig->machine)->state, MACHINE_DONE);
    unlink(rig->linux.disk[0].path);
    rig_free(rig);
}
END_TEST

/* quiesce.run */
static int note_balloon(void *ctx, const struct quiesced *q, struct diag *diag)
{
    bool *has_balloon = ctx;

    (void)diag;
    *has_balloon = q->has_balloon;
    return 0;
}

/* `ebb hint` said of a VM without a balloon that its guest lacks a driver. */
START_TEST(test_linux_vm_without_a_balloon_is_not_taken_for_one_without_a_driver)
{
    struct rig *rig = rig_new();
    bool has_balloon = true;
    const struct quiesce how = {.hints = true, .run = note_balloon, .ctx = &has_balloon};
    struct diag diag = {0};

    rig->linux.balloon.off = true;
    add(rig, SPIN);
    rig_start(rig);
    ck_assert_msg(machine_quiesce(rig->machine, &how, &diag) == 0, "%s", diag.text);
    ck_assert(!has_balloon);
    machine_stop(rig->machine);
    ck_assert_int_eq(machine_join(rig->machine)->state, MACHINE_STOPPED);
    rig_free(rig);
}
END_TEST

START_TEST(test_linux_plugged_memory_is_of_the_node_that_was_said)
{
    const struct guest_numa numa = {.nr_nodes = 2,
                                    .node = {{1, MEMORY_BYTES / 2, -1}, {0, MEMORY_BYTES / 2, -1}},
                                    .distance = {{10, 20}, {20, 10}}};
    struct rig *rig = rig_new();
    struct mem_info info;

    rig->linux.hotplug_bytes = 64 * MIB;
    rig->linux.has_hotplug_node = true;
    rig->linux.hotplug_node = 1;
    rig->config.numa = &numa;
    add(rig, POWEROFF);
    write_kernel(rig);
    rig_start(rig);
    mem_info(machine_mem(rig->machine), &info);
    ck_assert_int_eq(info.node, 1);
    ck_assert_int_eq(machine_join(rig->machine)->state, MACHINE_DONE);
    rig_free(rig);
}
END_TEST

START_TEST(test_linux_bad_config_is_refused_and_leaves_nothing)
{
    static const struct {
        uint64_t memory_bytes, hotplug_bytes;
        unsigned nr_cpus;
        const char *says;
    } wrong[] = {
        {62 * MIB, 0, 1, "64 MiB"},
        {65 * MIB, 0, 1, "multiple of 2M"},
        {64 * MIB, 3 * MIB, 1, "multiple of 2M"},
        {64 * MIB, UINT64_C(512) << 30, 1, "256G"},
        {64 * MIB, 0, 65, "1 to 64"},
    };
    struct rig *rig = rig_new();

    add(rig, POWEROFF);
    write_kernel(rig);
    for (unsigned i = 0; i < ARRAY_LEN(wrong); i++) {
        rig->config.memory_bytes = wrong[i].memory_bytes;
        rig->config.nr_cpus = wrong[i].nr_cpus;
        rig->linux.hotplug_bytes = wrong[i].hotplug_bytes;
        rig->diag = (struct diag){0};
        ck_assert_int_eq(machine_create(rig->mh, &rig->config, &rig->machine, &rig->diag), -1);
        ck_assert_int_eq(rig->diag.code, EXIT_USAGE);
        ck_assert_msg(strstr(rig->diag.text, wrong[i].says), "%s", rig->diag.text);
    }
    rig_free(rig);
}
END_TEST

/* 16 MiB for everything, and an initrd of @bytes that does not compress. */
static struct rig *rig_with_initrd(uint64_t bytes)
{
    struct memhost_config host = {.backend = BACKEND_EBB, .mm = {.budget_bytes = 16 * MIB}};
    struct rig *rig = rig_new();
    char *noise = malloc(bytes);
    uint64_t state = 1;

    ck_assert_ptr_nonnull(noise);
    for (uint64_t i = 0; i < bytes; i++)
        noise[i] = (char)((state = state * UINT64_C(6364136223846793005) + 1) >> 56);
    memhost_destroy(rig->mh);
    ck_assert_int_eq(memhost_create(&host, &rig->mh, &rig->diag), 0);
    snprintf(rig->linux.initrd_path, sizeof(rig->linux.initrd_path), "%s.initrd", rig->kernel);
    FILE *file = fopen(rig->linux.initrd_path, "w");
    ck_assert_uint_eq(fwrite(noise, bytes, 1, file), 1);
    fclose(file);
    free(noise);
    add(rig, POWEROFF);
    write_kernel(rig);
    return rig;
}

static void expect_too_large(struct rig *rig, struct machine **machine)
{
    ck_assert_int_eq(machine_create(rig->mh, &rig->config, machine, &rig->diag), -1);
    ck_assert_int_eq(rig->diag.code, EXIT_USAGE);
    ck_assert_msg(strstr(rig->diag.text, "--budget"), "%s", rig->diag.text);
    unlink(rig->linux.initrd_path);
}

START_TEST(test_linux_initrd_above_the_budget_is_refused)
{
    struct rig *rig = rig_with_initrd(32 * MIB);

    expect_too_large(rig, &rig->machine);
    rig_free(rig);
}
END_TEST

/* The first VM holds more than the second, and nobody could take it down: who makes them waits for the second. */
START_TEST(test_linux_second_initrd_above_the_budget_is_refused_and_does_not_hang)
{
    struct rig *rig = rig_with_initrd(10 * MIB);
    struct machine *second = NULL;

    ck_assert_msg(machine_create(rig->mh, &rig->config, &rig->machine, &rig->diag) == 0, "%s", rig->diag.text);
    expect_too_large(rig, &second);
    ck_assert_msg(machine_start(rig->machine, &rig->diag) == 0, "%s", rig->diag.text);
    ck_assert_int_eq(machine_join(rig->machine)->state, MACHINE_DONE);
    rig_free(rig);
}
END_TEST

START_TEST(test_linux_create_survives_each_failed_allocation)
{
    struct rig *rig = rig_new();
    unsigned nr_failed = 0;
    bool failed = true;

    rig->linux.hotplug_bytes = 64 * MIB;
    add(rig, POWEROFF);
    write_kernel(rig);
    for (long n = 1; failed; n++) {
        rig->diag = (struct diag){0};
        fail_alloc_at(n);
        int err = machine_create(rig->mh, &rig->config, &rig->machine, &rig->diag);
        failed = fail_alloc_fired();
        fail_alloc_at(-1);
        ck_assert_msg(failed || err == 0, "%s", rig->diag.text);
        ck_assert_msg((err == -1) == (rig->diag.text[0] != 0), "allocation %ld", n);
        /* What failed in a thread of the memory host may have been tried again: the machine is whole then. */
        nr_failed += err == -1;
        if (failed && err == 0)
            machine_destroy(rig->machine);
        if (failed)
            rig->machine = NULL;
    }
    ck_assert_uint_ge(nr_failed, 15); /* those of this thread */
    rig_free(rig);
}
END_TEST

START_TEST(test_embedded_guest_runs_beside_devices)
{
    struct rig *rig = rig_new();
    struct workload workload;

    ck_assert_int_eq(workload_parse("fill:8M;idle:300ms;verify", MEMORY_BYTES, &workload, &rig->diag), 0);
    rig->config.linux = NULL;
    rig->config.workload = &workload;
    rig->config.devices = &rig->linux;
    rig->config.nr_cpus = 2;
    ck_assert_msg(machine_create(rig->mh, &rig->config, &rig->machine, &rig->diag) == 0, "%s", rig->diag.text);
    ck_assert(has_device(rig, "balloon"));
    ck_assert(has_device(rig, "rng"));
    ck_assert_int_eq(machine_start(rig->machine, &rig->diag), 0);
    /* A vCPU that waits for the other one in a port is at rest, too. */
    for (unsigned i = 0; i < 20; i++) {
        machine_pause(rig->machine);
        machine_resume(rig->machine);
        sleep_ms(2);
    }
    const struct machine_result *result = machine_join(rig->machine);
    ck_assert_msg(result->state == MACHINE_DONE, "%s", result->reason);
    ck_assert_uint_eq(result->pages_verified, 8 * MIB / PAGE_BYTES);
    rig_free(rig);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("linux");
    TCase *tcase = tcase_create("linux");

    if (!program_has_kvm("small kernels on /dev/kvm"))
        return EXIT_SUCCESS;
    tcase_set_timeout(tcase, 120);
    tcase_add_loop_test(tcase, test_linux_guest_ends_as_it_says, 0, (int)ARRAY_LEN(ends));
    tcase_add_test(tcase, test_linux_triple_fault_names_registers_and_code);
    tcase_add_test(tcase, test_linux_init_line_is_the_end_of_booting);
    tcase_add_test(tcase, test_linux_stop_ends_a_guest_that_runs_for_ever);
    tcase_add_test(tcase, test_linux_console_input_reaches_the_guest);
    tcase_add_test(tcase, test_linux_raw_console_has_bytes_and_no_lines);
    tcase_add_test(tcase, test_linux_terminal_is_the_guests_console);
    tcase_add_test(tcase, test_linux_paused_guest_does_nothing_until_resumed);
    tcase_add_test(tcase, test_linux_dirty_log_has_the_pages_written);
    tcase_add_test(tcase, test_linux_devices_are_those_asked_for);
    tcase_add_test(tcase, test_linux_vm_without_a_balloon_is_not_taken_for_one_without_a_driver);
    tcase_add_test(tcase, test_linux_plugged_memory_is_of_the_node_that_was_said);
    tcase_add_test(tcase, test_linux_bad_config_is_refused_and_leaves_nothing);
    tcase_add_test(tcase, test_linux_initrd_above_the_budget_is_refused);
    tcase_add_test(tcase, test_linux_second_initrd_above_the_budget_is_refused_and_does_not_hang);
    tcase_add_test(tcase, test_linux_create_survives_each_failed_allocation);
    tcase_add_test(tcase, test_embedded_guest_runs_beside_devices);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
