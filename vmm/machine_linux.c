/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A Linux guest: the ports of its platform, its console, its kernel in memory, and how it ends.
 *
 *   powers off          sleep register                          -> done
 *   reboots             reset port, keyboard controller,
 *                       triple fault (reboot=t)                 -> done, "the guest rebooted"
 *   panics              panic port; or a line of the console
 *                       that says so, and then any reset        -> failed, with that line
 *   anything else       triple fault, KVM error, no memory      -> failed
 *
 * A line of a panic alone is not the end: a program may print it, and what follows it is worth reading.
 */
#include "vmm/machine_parts.h"

#include "vmm/boot/disasm.h"
#include "vmm/platform.h"
#include "vmm/size.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define PANIC_WORDS "Kernel panic - not syncing"
#define INIT_WORDS " as init process" /* Linux init/main.c: "Run %s as init process" */

/* --- console --------------------------------------------------------------------------------------- */

/* Printable bytes only: screen and report take care of the rest. Under the lock of the serial port. */
void linux_console_line(void *ctx, const char *line)
{
    struct machine *m = ctx;
    const char *panic = strstr(line, PANIC_WORDS);

    if (panic || strstr(line, INIT_WORDS)) {
        pthread_mutex_lock(&m->lock);
        if (!panic && m->init_ns == 0)
            m->init_ns = machine_now_ns();
        if (panic && !m->panic[0])
            snprintf(m->panic, sizeof(m->panic), "%s", panic);
        pthread_mutex_unlock(&m->lock);
    }
    if (m->on_line)
        m->on_line(m->ctx, line);
}

/* Under the lock of the serial port. */
static void on_serial_irq(void *ctx, bool level)
{
    const struct machine *m = ctx;

    (void)kvm_irq_line(&m->kvm, PLATFORM_SERIAL_GSI, level); /* fails only without interrupt controllers */
}

/* --- the ends -------------------------------------------------------------------------------------- */

static bool has_panicked(struct machine *m, char line[SERIAL_LINE_BYTES])
{
    pthread_mutex_lock(&m->lock);
    memcpy(line, m->panic, SERIAL_LINE_BYTES);
    pthread_mutex_unlock(&m->lock);
    return line[0];
}

static void end_panicked(struct machine *m, const char *line)
{
    char reason[SERIAL_LINE_BYTES + 40];

    if (line[0])
        snprintf(reason, sizeof(reason), "the guest's kernel panicked: %s", line);
    else
        snprintf(reason, sizeof(reason), "the guest's kernel panicked; its console does not say why");
    machine_end(m, MACHINE_FAILED, ENDING_PANIC, 0, reason);
}

static void on_platform_end(void *ctx, enum platform_end end)
{
    struct machine *m = ctx;
    char line[SERIAL_LINE_BYTES];
    bool panicked = has_panicked(m, line);

    if (end == PLATFORM_PANIC || (end == PLATFORM_RESET && panicked))
        end_panicked(m, line);
    else
        machine_end(m, MACHINE_DONE, end == PLATFORM_RESET ? ENDING_REBOOT : ENDING_POWEROFF, 0, "");
}

void linux_system_event(void *ctx, uint32_t type)
{
    on_platform_end(ctx, type == KVM_SYSTEM_EVENT_SHUTDOWN ? PLATFORM_POWEROFF
                         : type == KVM_SYSTEM_EVENT_RESET  ? PLATFORM_RESET
                                                           : PLATFORM_PANIC);
}

void linux_failed(struct machine *m, const char *reason)
{
    char line[SERIAL_LINE_BYTES];

    if (has_panicked(m, line))
        end_panicked(m, line);
    else
        machine_end(m, MACHINE_FAILED, ENDING_NONE, 0, reason);
}

#define CODE_BYTES 16 /* looked at; enough for one instruction of any length */

/* vcpu_env.describe_code */
static void describe_code(void *ctx, gpa_t gpa, uint64_t rip, unsigned bits, char *text, size_t bytes)
{
    const struct machine *m = ctx;
    uint8_t code[CODE_BYTES];
    uint64_t nr = MIN_OF(sizeof(code), PAGE_BYTES - gpa.v % PAGE_BYTES);

    *text = '\0';
    if (guest_mem_read(&m->mem, gpa, code, nr) == 0)
        disasm_text(code, nr, rip, bits, text, bytes);
}

/* --- making ---------------------------------------------------------------------------------------- */

int linux_check_config(const struct machine_config *config, struct diag *diag)
{
    char least[SIZE_TEXT];

    if (config->memory_bytes < LINUX_MIN_MEMORY_BYTES)
        return diag_set(diag, EXIT_USAGE, "a Linux guest needs %s of memory or more",
                        size_text(least, LINUX_MIN_MEMORY_BYTES));
    return 0;
}

int linux_add_ports(struct machine *m, const struct machine_config *config, struct diag *diag)
{
    const struct serial_wires wires = {
        .irq = on_serial_irq,
        .irq_ctx = m,
        .on_byte = config->on_byte,
        .on_room = config->on_room,
        .host_ctx = config->ctx,
    };

    m->on_line = config->on_byte ? NULL : config->on_line;
    m->ctx = config->ctx;
    if (machine_add_serial(m, linux_console_line, m, diag))
        return -1;
    serial_connect(&m->serial, &wires);
    m->platform = (struct platform_ports){.on_end = on_platform_end, .ctx = m};
    platform_ports_init(&m->platform);
    m->has_platform = true;
    m->env.on_system_event = linux_system_event;
    m->env.describe_code = describe_code;
    int err = platform_ports_attach(&m->platform, &m->bus);
    return err ? diag_host(diag, -err, "the bus") : 0;
}

/* A page that the loader touched could not be had: for want of memory, or it was lost. */
static bool has_ended(struct machine *m, int *error, char reason[sizeof(m->result.reason)])
{
    pthread_mutex_lock(&m->lock);
    bool ended = m->ended;
    *error = m->result.error;
    memcpy(reason, m->result.reason, sizeof(m->result.reason));
    pthread_mutex_unlock(&m->lock);
    return ended;
}

/* boot_config.forget */
static void forget(void *ctx, gpa_t gpa, uint64_t bytes)
{
    const struct machine *m = ctx;

    memhost_vm_forget(m->memory, gpa, bytes);
}

int linux_load(struct machine *m, const struct machine_config *config, struct diag *diag)
{
    char reason[sizeof(m->result.reason)];
    int error;
    struct guest_mem ram = m->mem; /* what virtio-mem may plug is not memory yet */
    const struct acpi_numa numa = {
        .nodes = &m->numa,
        .nr_cpus = config->nr_cpus,
        .low_bytes = m->low_bytes,
        .hotplug_gpa = m->hotplug_gpa,
        .hotplug_bytes = m->linux->has_hotplug_node ? m->hotplug_bytes : 0,
        .hotplug_node = m->linux->hotplug_node,
    };
    const struct boot_config boot = {
        .kernel_path = m->linux->kernel_path,
        .initrd_path = m->linux->initrd_path[0] ? m->linux->initrd_path : NULL,
        .cmdline = m->linux->cmdline,
        .mem = &ram,
        .nr_cpus = config->nr_cpus,
        .numa = m->numa.nr_nodes > 0 ? &numa : NULL,
        .nr_devices = m->devices ? machine_devices_nr(m->devices) : 0,
        .forget = forget,
        .ctx = m,
        .stop = &m->stop,
    };

    if (m->hotplug_bytes > 0)
        ram.nr--;
    ram.plugged = NULL;
    memhost_vm_load(m->memory, true);
    int err = boot_load(&boot, &m->entry, diag);
    memhost_vm_load(m->memory, false);
    if (!has_ended(m, &error, reason))
        return err;
    *diag = (struct diag){0}; /* what the loader made of the pages that it got instead */
    return error == -ENOMEM ? diag_set(diag, EXIT_USAGE, "kernel and initrd do not fit: %s", reason)
                            : diag_set(diag, EXIT_HOST, "kernel and initrd cannot be loaded: %s", reason);
}
