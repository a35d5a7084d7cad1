/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who owns what, in the order in which it is made; it goes in the opposite order.
 *
 *   memory (memhost) -> ports, serial -> KVM VM with its memslots -> devices -> kernel in memory -> vCPUs -> threads
 *
 * A machine ends once, by whoever calls machine_end() first: the guest (done, trap, bad pages, power off, reset, panic),
 * a vCPU (triple fault), a fault thread or a device (no memory), or machine_stop. The vCPU thread that leaves last
 * signals done_fd. The device thread ends when the machine is joined.
 */
#include "vmm/machine_parts.h"

#include "devices/mem/mem.h"
#include "vmm/thread.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

uint64_t machine_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/* --- the end --------------------------------------------------------------------------------------- */

void machine_end(struct machine *m, enum machine_state state, enum machine_ending ending, int error, const char *reason)
{
    pthread_mutex_lock(&m->lock);
    if (!m->ended) {
        m->ended = true;
        m->end_ns = machine_now_ns();
        m->result.state = state;
        m->result.ending = ending;
        m->result.error = error;
        snprintf(m->result.reason, sizeof(m->result.reason), "%s", reason);
        /* Release: partner is the acquire in the vCPU loop. */
        atomic_store_explicit(&m->stop, true, memory_order_release);
        if (m->has_ports)
            guest_ports_stop(&m->ports);
        if (m->devices)
            machine_devices_stop(m->devices);
        for (unsigned i = 0; i < m->nr_vcpus; i++)
            vcpu_kick(&m->vcpus[i]);
        pthread_cond_broadcast(&m->changed);
    }
    pthread_mutex_unlock(&m->lock);
}

/* Its faults are known by its thread from now on. */
static void on_vcpu_enter(void *ctx, const struct vcpu *vcpu)
{
    struct machine *m = ctx;

    memhost_vm_add_vcpu(m->memory, vcpu->index, m->cpus[vcpu->index]);
}

static void on_vcpu_failure(void *ctx, const char *reason)
{
    struct machine *m = ctx;

    if (m->linux)
        linux_failed(m, reason);
    else
        machine_end(m, MACHINE_FAILED, ENDING_NONE, 0, reason);
}

/* @nr threads are not in their loop any more. The last ones make done_fd readable. */
static void leave(struct machine *m, unsigned nr)
{
    uint64_t one = 1;

    pthread_mutex_lock(&m->lock);
    /* Acquire and release: whoever sees done_fd sees what every vCPU thread did. */
    bool last = atomic_fetch_sub_explicit(&m->nr_running, nr, memory_order_acq_rel) == nr;
    pthread_cond_broadcast(&m->changed);
    /* Under the lock: who was woken by done_fd takes it once before the machine goes. */
    if (last)
        (void)!write(m->done_fd, &one, sizeof(one)); /* cannot fail: the counter is far from full */
    pthread_mutex_unlock(&m->lock);
}

static void on_vcpu_leave(void *ctx)
{
    leave(ctx, 1);
}

/* From a fault thread, or a device thread. */
static void on_fatal_fault(void *ctx, int err, gpa_t gpa)
{
    struct machine *m = ctx;
    const char *what = strerror(-err);
    char reason[160];

    if (err == -ENOMEM)
        what = "the budget, zram and swap are full: a larger --budget, --zram or --swap mends it";
    else if (err == -EIO)
        what = "its content could not be read back from the store or the swap area";
    snprintf(reason, sizeof(reason), "page gpa 0x%" PRIx64 ": %s", gpa.v & ~(PAGE_BYTES - 1), what);
    machine_end(m, MACHINE_FAILED, ENDING_NONE, err, reason);
    memhost_vm_release_waiters(m->memory);
}

/* From the device thread. */
static bool on_no_page(void *ctx, int err, gpa_t gpa, uint64_t *seen)
{
    const struct machine *m = ctx;

    return memhost_vm_no_page(m->memory, err, gpa, seen);
}

/* --- making ---------------------------------------------------------------------------------------- */

/* Which devices there are to be, or NULL. */
static const struct linux_config *wanted(const struct machine_config *config)
{
    return config->linux ? config->linux : config->devices;
}

static int check_config(const struct machine_config *config, struct diag *diag)
{
    const struct linux_config *want = wanted(config);

    if (config->linux && linux_check_config(config, diag))
        return -1;
    if (want && want->hotplug_bytes % BLOCK_BYTES)
        return diag_set(diag, EXIT_USAGE, "memory to be plugged must be a multiple of 2M");
    if (want && want->hotplug_bytes > EBB_MAX_MEMORY_BYTES)
        return diag_set(diag, EXIT_USAGE, "at most 256G of memory can be plugged");
    if (config->nr_cpus < 1 || config->nr_cpus > EBB_MAX_CPUS)
        return diag_set(diag, EXIT_USAGE, "a VM can have 1 to %d CPUs, not %u", EBB_MAX_CPUS, config->nr_cpus);
    if (config->memory_bytes < EBB_MIN_MEMORY_BYTES || config->memory_bytes > EBB_MAX_MEMORY_BYTES)
        return diag_set(diag, EXIT_USAGE, "a VM can have 32M to 256G of memory");
    if (config->memory_bytes % BLOCK_BYTES != 0)
        return diag_set(diag, EXIT_USAGE, "the memory of a VM must be a multiple of 2M");
    return 0;
}

/* Low, high, and what virtio-mem may plug. Returns how many there are. */
static unsigned list_regions(const struct machine *m, struct mm_region regions[3])
{
    unsigned nr = 0;

    regions[nr++] = (struct mm_region){.start = {0}, .bytes = m->low_bytes};
    if (m->high_bytes > 0)
        regions[nr++] = (struct mm_region){.start = {EBB_HIGH_GPA}, .bytes = m->high_bytes};
    if (m->hotplug_bytes > 0)
        regions[nr++] = (struct mm_region){.start = m->hotplug_gpa, .bytes = m->hotplug_bytes, .unplugged = true};
    return nr;
}

static int add_memory(struct machine *m, struct memhost *mh, const struct machine_config *config, struct diag *diag)
{
    struct mm_region regions[3];
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    struct memhost_vm_config vm = {
        .regions = regions,
        .nr_regions = list_regions(m, regions),
        .nr_fault_threads = online > 0 ? MIN_OF(config->nr_cpus, (unsigned)online) : 1,
        .fault_cpus = config->cpus,
        .on_fatal = on_fatal_fault,
        .ctx = m,
    };

    if (memhost_vm_add(mh, &vm, &m->memory, diag))
        return -1;
    for (unsigned i = 0; i < vm.nr_regions; i++)
        m->mem.region[m->mem.nr++] = (struct guest_mem_region){
            regions[i].start, regions[i].bytes, memhost_vm_hva(m->memory, regions[i].start, regions[i].bytes)};
    return 0;
}

static void serial_port_write(void *ctx, const struct bus_access *access, uint64_t value)
{
    for (unsigned i = 0; i < access->bytes; i++, value >>= 8)
        serial_write(ctx, (unsigned)access->offset + i, (uint8_t)value);
}

static uint64_t serial_port_read(void *ctx, const struct bus_access *access)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < access->bytes; i++)
        value |= (uint64_t)serial_read(ctx, (unsigned)access->offset + i) << (8 * i);
    return value;
}

int machine_add_serial(struct machine *m, void (*on_line)(void *ctx, const char *line), void *ctx, struct diag *diag)
{
    const struct bus_device serial = {.read = serial_port_read, .write = serial_port_write, .ctx = &m->serial};

    serial_init(&m->serial, on_line, ctx);
    m->has_serial = true;
    int err = bus_add(&m->bus, BUS_PORT, SERIAL_PORT, SERIAL_PORTS, &serial);
    return err ? diag_host(diag, -err, "the bus") : 0;
}

static int map_memory(struct machine *m, struct diag *diag)
{
    for (unsigned i = 0; i < m->mem.nr; i++) {
        const struct guest_mem_region *region = &m->mem.region[i];

        if (kvm_map(&m->kvm, region->start, region->hva, region->bytes, false, diag))
            return -1;
    }
    return m->linux ? 0 : ebbguest_map(m, diag);
}

static int add_devices(struct machine *m, struct memhost *mh, const struct machine_config *config, struct diag *diag)
{
    const struct machine_devices_config devices = {
        .name = m->name,
        .want = m->want,
        .interrupts = m->linux != NULL,
        .mem = &m->mem,
        .memory_bytes = config->memory_bytes,
        .hotplug_gpa = m->hotplug_gpa,
        .mm = memhost_mm(mh),
        .vm = memhost_vm_mm(m->memory),
        .bus = &m->bus,
        .kvm = &m->kvm,
        .no_page = on_no_page,
        .ctx = m,
        .console_line = m->linux ? linux_console_line : NULL,
        .console_ctx = m,
        .tell = config->on_line,
        .tell_ctx = config->ctx,
    };

    struct machine_devices *made;

    if (!m->want)
        return 0;
    if (machine_devices_create(&devices, &made, diag))
        return -1;
    if (m->hotplug_bytes > 0)
        m->mem.plugged = mem_map(machine_devices_mem(made));
    /* From here on a fault may fail, and its thread ends the machine. */
    pthread_mutex_lock(&m->lock);
    m->devices = made;
    pthread_mutex_unlock(&m->lock);
    return 0;
}

static int set_registers(const struct machine *m, struct kvm_vcpu *kvm, unsigned index, struct diag *diag)
{
    if (!m->linux)
        return kvm_vcpu_set_entry(kvm, (gpa_t){EBB_ROM_GPA}, (gpa_t){EBB_ROM_CR3}, index, diag);
    return index == 0 ? kvm_vcpu_set_boot(kvm, &m->entry, diag) : 0;
}

static int add_vcpus(struct machine *m, const struct machine_config *config, struct diag *diag)
{
    m->vcpus = calloc(config->nr_cpus, sizeof(*m->vcpus));
    m->cpus = malloc(config->nr_cpus * sizeof(*m->cpus));
    if (!m->vcpus || !m->cpus)
        return diag_set(diag, EXIT_HOST, "out of memory");
    for (unsigned i = 0; i < config->nr_cpus; i++) {
        struct kvm_vcpu kvm;

        m->cpus[i] = config->cpus ? config->cpus[i] : THREAD_ANY_CPU;
        if (kvm_vcpu_open(&m->kvm, i, &kvm, diag))
            return -1;
        vcpu_init(&m->vcpus[i], &kvm, i, &m->env);
        if (set_registers(m, &kvm, i, diag)) {
            vcpu_fini(&m->vcpus[i]);
            return -1;
        }
        pthread_mutex_lock(&m->lock);
        m->nr_vcpus++;
        pthread_mutex_unlock(&m->lock);
    }
    return 0;
}

static int build(struct machine *m, struct memhost *mh, const struct machine_config *config, struct diag *diag)
{
    m->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (m->done_fd < 0)
        return diag_host(diag, errno, "eventfd");
    if (add_memory(m, mh, config, diag) || machine_bind_nodes(m, diag))
        return -1;
    if (m->linux ? linux_add_ports(m, config, diag) : ebbguest_add_ports(m, config, diag))
        return -1;
    if (kvm_open(&m->kvm, diag))
        return -1;
    m->has_kvm = true;
    if (m->linux && kvm_add_platform(&m->kvm, config->nr_cpus, diag))
        return -1;
    if (m->numa.nr_nodes > 0)
        m->kvm.package_cpus = guest_numa_package_cpus(&m->numa, config->nr_cpus);
    if (map_memory(m, diag) || add_devices(m, mh, config, diag))
        return -1;
    if (m->linux && linux_load(m, config, diag))
        return -1;
    return add_vcpus(m, config, diag);
}

/* virtio-mem's region begins at the first 2 GiB boundary above everything else. */
static int copy_wanted(struct machine *m, const struct machine_config *config, struct diag *diag)
{
    const uint64_t step = UINT64_C(2) << 30;
    uint64_t end = EBB_HIGH_GPA + m->high_bytes;

    if (!wanted(config))
        return 0;
    m->want = malloc(sizeof(*m->want));
    if (!m->want)
        return diag_set(diag, EXIT_HOST, "out of memory");
    *m->want = *wanted(config);
    if (config->linux)
        m->linux = m->want;
    m->hotplug_bytes = m->want->hotplug_bytes;
    m->hotplug_gpa = (gpa_t){(end + step - 1) / step * step};
    return 0;
}

int machine_create(struct memhost *mh, const struct machine_config *config, struct machine **out, struct diag *diag)
{
    if (check_config(config, diag))
        return -1;
    struct machine *m = calloc(1, sizeof(*m));
    if (!m)
        return diag_set(diag, EXIT_HOST, "out of memory");
    m->done_fd = -1;
    snprintf(m->name, sizeof(m->name), "%s", config->name);
    workload_split_memory(config->memory_bytes, &m->low_bytes, &m->high_bytes);
    if (config->numa)
        m->numa = *config->numa;
    m->env = (struct vcpu_env){
        .bus = &m->bus,
        .stop = &m->stop,
        .on_enter = on_vcpu_enter,
        .on_failure = on_vcpu_failure,
        .on_leave = on_vcpu_leave,
        .ctx = m,
        .on_pause = machine_vcpu_pause,
    };
    pthread_mutex_init(&m->lock, NULL);
    pthread_cond_init(&m->changed, NULL);
    bus_init(&m->bus);
    if (copy_wanted(m, config, diag) || build(m, mh, config, diag)) {
        machine_destroy(m);
        return -1;
    }
    *out = m;
    return 0;
}

/* --- running --------------------------------------------------------------------------------------- */

int machine_start(struct machine *m, struct diag *diag)
{
    vcpu_prepare_signals();
    if (m->devices && machine_devices_start(m->devices, diag))
        return -1;
    m->start_ns = machine_now_ns();
    atomic_store(&m->nr_running, m->nr_vcpus);
    for (unsigned i = 0; i < m->nr_vcpus; i++) {
        char name[16];

        snprintf(name, sizeof(name), "%.9s/%u", m->name, i % 1000);
        /* A vCPU that started already may end the machine: it must find this one started or not yet. */
        pthread_mutex_lock(&m->lock);
        int err = vcpu_start(&m->vcpus[i], name, m->cpus[i], diag);
        pthread_mutex_unlock(&m->lock);
        if (err) {
            machine_stop(m);
            leave(m, m->nr_vcpus - i);
            machine_join(m);
            return -1;
        }
    }
    return 0;
}

void machine_stop(struct machine *m)
{
    machine_end(m, MACHINE_STOPPED, ENDING_NONE, 0, "stopped");
}

int machine_done_fd(const struct machine *m)
{
    return m->done_fd;
}

void machine_progress(struct machine *m, unsigned *step, uint64_t *done, uint64_t *total)
{
    *step = 0;
    *done = *total = 0;
    if (m->has_ports)
        guest_ports_progress(&m->ports, step, done, total);
}

struct memhost_vm *machine_memory(struct machine *m)
{
    return m->memory;
}

static void collect_steps(struct machine *m)
{
    struct machine_result *result = &m->result;
    struct guest_counts counts;

    guest_ports_counts(&m->ports, &counts);
    result->pages_verified = counts.verified;
    result->pages_bad = counts.bad;
    result->nr_steps = m->ports.nr_done;
    memcpy(result->steps, m->ports.results, sizeof(result->steps));
}

static void collect_result(struct machine *m)
{
    struct machine_result *result = &m->result;
    uint64_t boot_ns = m->has_ports ? m->ports.boot_ns : m->init_ns;

    if (m->has_ports)
        collect_steps(m);
    /* It may have been ended before it was started: for its memory, by a fault of another VM. */
    result->run_ns = m->end_ns > m->start_ns ? m->end_ns - m->start_ns : 0;
    result->boot_ns = boot_ns > 0 ? boot_ns - m->start_ns : 0;
    result->nr_unanswered = bus_nr_unanswered(&m->bus, BUS_PORT) + bus_nr_unanswered(&m->bus, BUS_MMIO);
    for (unsigned i = 0; i < m->nr_vcpus; i++) {
        result->nr_exits_io += m->vcpus[i].nr_io;
        result->nr_exits_mmio += m->vcpus[i].nr_mmio;
        result->nr_exits_other += m->vcpus[i].nr_other;
    }
}

/* No vCPU thread is in its loop, and end() kicks nobody any more. */
static void wait_for_end(struct machine *m)
{
    struct pollfd done = {.fd = m->done_fd, .events = POLLIN};

    while (poll(&done, 1, -1) != 1)
        ;
    pthread_mutex_lock(&m->lock);
    pthread_mutex_unlock(&m->lock);
}

const struct machine_result *machine_join(struct machine *m)
{
    if (!m->joined) {
        wait_for_end(m);
        for (unsigned i = 0; i < m->nr_vcpus; i++)
            vcpu_join(&m->vcpus[i]);
        if (m->devices) {
            memhost_vm_end(m->memory); /* the thread may wait for a page that waits for another VM's memory */
            machine_devices_join(m->devices);
        }
        collect_result(m);
        m->joined = true;
    }
    return &m->result;
}

void machine_destroy(struct machine *m)
{
    if (m->start_ns > 0) {
        machine_stop(m);
        machine_join(m);
    }
    if (m->devices)
        machine_devices_destroy(m->devices);
    guest_mem_log_free(&m->mem);
    for (unsigned i = 0; i < m->nr_vcpus; i++)
        vcpu_fini(&m->vcpus[i]);
    if (m->has_kvm)
        kvm_close(&m->kvm);
    if (m->memory)
        memhost_vm_remove(m->memory);
    if (m->has_serial)
        serial_fini(&m->serial);
    if (m->has_ports)
        guest_ports_fini(&m->ports);
    if (m->has_platform)
        platform_ports_fini(&m->platform);
    if (m->done_fd >= 0)
        close(m->done_fd);
    pthread_cond_destroy(&m->changed);
    pthread_mutex_destroy(&m->lock);
    free(m->want);
    free(m->vcpus);
    free(m->cpus);
    free(m);
}
