/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who owns what, in the order in which it is made; it goes in the opposite order.
 *
 *   memory (memhost) -> ports with the shared pages -> serial -> KVM VM with its memslots -> vCPUs -> their threads
 *
 * A machine ends once, by whoever calls end() first: the guest (done, trap, bad pages), a vCPU (triple fault), a fault
 * thread (no memory) or machine_stop. The vCPU thread that leaves last signals done_fd.
 */
#include "vmm/machine.h"

#include "devices/serial.h"
#include "vmm/guest_ports.h"
#include "vmm/thread.h"
#include "vmm/vcpu.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

/* The guest kernel, from guest-images/ebbguest: whole pages. */
extern const uint8_t ebbguest_image[], ebbguest_image_end[];

#define NAME_BYTES 12

struct machine {
    char name[NAME_BYTES];
    uint64_t low_bytes, high_bytes;
    struct memhost_vm *memory;
    struct bus bus;
    struct guest_ports ports;
    struct serial serial;
    bool has_ports, has_kvm;
    struct kvm kvm;
    struct vcpu_env env;
    struct vcpu *vcpus;
    int *cpus; /* CPU of each vCPU */
    unsigned nr_vcpus;
    int done_fd;
    uint64_t start_ns;
    bool joined;
    atomic_bool stop;       /* release in end(): partner of the acquire in the vCPU loop */
    atomic_uint nr_running; /* vCPU threads in their loop */
    pthread_mutex_t lock;
    /* guarded by lock until the vCPUs are joined */
    bool ended;
    uint64_t end_ns;
    struct machine_result result;
};

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/* --- the end --------------------------------------------------------------------------------------- */

/* The first call decides how the machine has ended. Any thread; does not wait for the vCPUs. */
static void end(struct machine *m, enum machine_state state, int error, const char *reason)
{
    pthread_mutex_lock(&m->lock);
    if (!m->ended) {
        m->ended = true;
        m->end_ns = now_ns();
        m->result.state = state;
        m->result.error = error;
        snprintf(m->result.reason, sizeof(m->result.reason), "%s", reason);
        /* Release: partner is the acquire in the vCPU loop. */
        atomic_store_explicit(&m->stop, true, memory_order_release);
        guest_ports_stop(&m->ports);
        for (unsigned i = 0; i < m->nr_vcpus; i++)
            vcpu_kick(&m->vcpus[i]);
    }
    pthread_mutex_unlock(&m->lock);
}

static void on_guest_exit(void *ctx, const char *error)
{
    end(ctx, error ? MACHINE_FAILED : MACHINE_DONE, 0, error ? error : "");
}

static void on_vcpu_failure(void *ctx, const char *reason)
{
    end(ctx, MACHINE_FAILED, 0, reason);
}

/* @nr threads are not in their loop any more. The last ones make done_fd readable. */
static void leave(struct machine *m, unsigned nr)
{
    uint64_t one = 1;

    /* Acquire and release: whoever sees done_fd sees what every vCPU thread did. */
    if (atomic_fetch_sub_explicit(&m->nr_running, nr, memory_order_acq_rel) == nr)
        (void)!write(m->done_fd, &one, sizeof(one)); /* cannot fail: the counter is far from full */
}

static void on_vcpu_leave(void *ctx)
{
    leave(ctx, 1);
}

/* From a fault thread. */
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
    end(m, MACHINE_FAILED, err, reason);
    memhost_vm_release_waiters(m->memory);
}

/* --- making ---------------------------------------------------------------------------------------- */

static int check_config(const struct machine_config *config, struct diag *diag)
{
    if (config->nr_cpus < 1 || config->nr_cpus > EBB_MAX_CPUS)
        return diag_set(diag, EXIT_USAGE, "a VM can have 1 to %d CPUs, not %u", EBB_MAX_CPUS, config->nr_cpus);
    if (config->memory_bytes < EBB_MIN_MEMORY_BYTES || config->memory_bytes > EBB_MAX_MEMORY_BYTES)
        return diag_set(diag, EXIT_USAGE, "a VM can have 32M to 256G of memory");
    if (config->memory_bytes % BLOCK_BYTES != 0)
        return diag_set(diag, EXIT_USAGE, "the memory of a VM must be a multiple of 2M");
    return 0;
}

static int add_memory(struct machine *m, struct memhost *mh, const struct machine_config *config, struct diag *diag)
{
    const struct mm_region regions[] = {{.start = {0}, .bytes = m->low_bytes},
                                        {.start = {EBB_HIGH_GPA}, .bytes = m->high_bytes}};
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    struct memhost_vm_config vm = {
        .regions = regions,
        .nr_regions = m->high_bytes > 0 ? 2 : 1,
        .nr_fault_threads = online > 0 ? MIN_OF(config->nr_cpus, (unsigned)online) : 1,
        .fault_cpus = config->cpus,
        .on_fatal = on_fatal_fault,
        .ctx = m,
    };

    return memhost_vm_add(mh, &vm, &m->memory, diag);
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

/* VMs of one process differ in content: FNV-1a of the name. */
static uint64_t name_seed(const char *name)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);

    for (; *name; name++)
        hash = (hash ^ (uint8_t)*name) * UINT64_C(0x100000001b3);
    return hash;
}

static int add_devices(struct machine *m, const struct machine_config *config, struct diag *diag)
{
    const struct bus_device serial = {.read = serial_port_read, .write = serial_port_write, .ctx = &m->serial};
    struct guest_ports_config ports = {
        .nr_cpus = config->nr_cpus,
        .workload = config->workload,
        .seed = name_seed(config->name),
        .low_bytes = m->low_bytes,
        .high_bytes = m->high_bytes,
        .on_line = config->on_line,
        .line_ctx = config->ctx,
        .on_exit = on_guest_exit,
        .exit_ctx = m,
    };

    if (guest_ports_init(&m->ports, &ports))
        return diag_set(diag, EXIT_HOST, "out of memory");
    m->has_ports = true;
    serial_init(&m->serial, config->on_line, config->ctx);
    bus_init(&m->bus);
    int err = guest_ports_attach(&m->ports, &m->bus);
    if (!err)
        err = bus_add(&m->bus, BUS_PORT, SERIAL_PORT, SERIAL_PORTS, &serial);
    return err ? diag_set(diag, EXIT_HOST, "the bus: %s", strerror(-err)) : 0;
}

static int map_memory(struct machine *m, struct diag *diag)
{
    size_t image_bytes = (size_t)(ebbguest_image_end - ebbguest_image);
    void *low = memhost_vm_hva(m->memory, (gpa_t){0}, m->low_bytes);

    if (kvm_map(&m->kvm, (gpa_t){0}, low, m->low_bytes, false, diag))
        return -1;
    if (m->high_bytes > 0) {
        gpa_t gpa = {EBB_HIGH_GPA};
        if (kvm_map(&m->kvm, gpa, memhost_vm_hva(m->memory, gpa, m->high_bytes), m->high_bytes, false, diag))
            return -1;
    }
    if (kvm_map(&m->kvm, (gpa_t){EBB_SHARED_GPA}, m->ports.shared, m->ports.shared_bytes, false, diag))
        return -1;
    return kvm_map(&m->kvm, (gpa_t){EBB_ROM_GPA}, ebbguest_image, image_bytes, true, diag);
}

static int add_vcpus(struct machine *m, const struct machine_config *config, struct diag *diag)
{
    m->vcpus = calloc(config->nr_cpus, sizeof(*m->vcpus));
    m->cpus = malloc(config->nr_cpus * sizeof(*m->cpus));
    if (!m->vcpus || !m->cpus)
        return diag_set(diag, EXIT_HOST, "out of memory");
    for (; m->nr_vcpus < config->nr_cpus; m->nr_vcpus++) {
        unsigned i = m->nr_vcpus;
        struct kvm_vcpu kvm;

        m->cpus[i] = config->cpus ? config->cpus[i] : THREAD_ANY_CPU;
        if (kvm_vcpu_open(&m->kvm, i, &kvm, diag))
            return -1;
        vcpu_init(&m->vcpus[i], &kvm, i, &m->env);
        if (kvm_vcpu_set_entry(&kvm, (gpa_t){EBB_ROM_GPA}, (gpa_t){EBB_ROM_CR3}, i, diag)) {
            vcpu_fini(&m->vcpus[i]);
            return -1;
        }
    }
    return 0;
}

static int build(struct machine *m, struct memhost *mh, const struct machine_config *config, struct diag *diag)
{
    m->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (m->done_fd < 0)
        return diag_set(diag, EXIT_HOST, "eventfd: %s", strerror(errno));
    if (add_memory(m, mh, config, diag) || add_devices(m, config, diag) || kvm_open(&m->kvm, diag))
        return -1;
    m->has_kvm = true;
    if (map_memory(m, diag))
        return -1;
    return add_vcpus(m, config, diag);
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
    m->env = (struct vcpu_env){&m->bus, &m->stop, on_vcpu_failure, on_vcpu_leave, m};
    pthread_mutex_init(&m->lock, NULL);
    if (build(m, mh, config, diag)) {
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
    m->start_ns = now_ns();
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
    end(m, MACHINE_STOPPED, 0, "stopped");
}

int machine_done_fd(const struct machine *m)
{
    return m->done_fd;
}

void machine_progress(struct machine *m, unsigned *step, uint64_t *done, uint64_t *total)
{
    guest_ports_progress(&m->ports, step, done, total);
}

struct memhost_vm *machine_memory(struct machine *m)
{
    return m->memory;
}

static void collect_result(struct machine *m)
{
    struct machine_result *result = &m->result;
    struct guest_counts counts;

    guest_ports_counts(&m->ports, &counts);
    result->pages_verified = counts.verified;
    result->pages_bad = counts.bad;
    result->run_ns = m->end_ns - m->start_ns;
    result->boot_ns = m->ports.boot_ns > 0 ? m->ports.boot_ns - m->start_ns : 0;
    result->nr_unanswered = bus_nr_unanswered(&m->bus, BUS_PORT) + bus_nr_unanswered(&m->bus, BUS_MMIO);
    result->nr_steps = m->ports.nr_done;
    memcpy(result->steps, m->ports.results, sizeof(result->steps));
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
    for (unsigned i = 0; i < m->nr_vcpus; i++)
        vcpu_fini(&m->vcpus[i]);
    if (m->has_kvm)
        kvm_close(&m->kvm);
    if (m->memory)
        memhost_vm_remove(m->memory);
    if (m->has_ports) {
        serial_fini(&m->serial);
        guest_ports_fini(&m->ports);
    }
    if (m->done_fd >= 0)
        close(m->done_fd);
    pthread_mutex_destroy(&m->lock);
    free(m->vcpus);
    free(m->cpus);
    free(m);
}
