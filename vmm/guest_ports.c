/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/guest_ports.h"

#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S UINT64_C(1000000000)
#define ERROR_BYTES 160
/* Page table entries: present, writable, user, accessed; dirty and 2 MiB for leaves. */
#define TABLE_BYTES UINT64_C(4096)
#define TABLE_FLAGS UINT64_C(0x27)
#define LEAF_FLAGS UINT64_C(0xe7)

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

/* --- set-up ---------------------------------------------------------------------------------------- */

_Static_assert(GUEST_NUMA_MAX_NODES == EBB_MAX_NODES, "each has room");

/* Without nodes of its own the guest has one, of all that there is. */
static void fill_nodes(struct ebb_shared *shared, const struct guest_ports_config *config)
{
    struct guest_numa one = {.nr_nodes = 1,
                             .node[0] = {.cpus = UINT64_MAX >> (GUEST_NUMA_MAX_CPUS - config->nr_cpus),
                                         .memory_bytes = config->low_bytes + config->high_bytes}};
    const struct guest_numa *numa = config->numa && config->numa->nr_nodes > 0 ? config->numa : &one;

    shared->nr_nodes = numa->nr_nodes;
    for (unsigned i = 0; i < numa->nr_nodes; i++) {
        struct guest_numa_range range[2];
        unsigned nr = guest_numa_range(numa, i, config->low_bytes, range);

        for (unsigned j = 0; j < nr; j++) {
            shared->nodes[i].range[j].start = range[j].start.v;
            shared->nodes[i].range[j].bytes = range[j].bytes;
        }
        shared->nodes[i].cpus = numa->node[i].cpus;
        guest_numa_order(numa, i, shared->nodes[i].order);
    }
}

static void fill_parameters(struct ebb_shared *shared, const struct guest_ports_config *config)
{
    shared->magic = EBB_MAGIC;
    shared->low_bytes = config->low_bytes;
    shared->high_bytes = config->high_bytes;
    shared->seed = config->seed;
    shared->nr_cpus = config->nr_cpus;
    shared->nr_steps = config->workload->nr_steps;
    memcpy(shared->steps, config->workload->steps, sizeof(shared->steps));
    fill_nodes(shared, config);
}

/* Identity: the first GiB, where vCPU areas are, and the fourth, where shared pages and ROM are. */
static void fill_tables(struct ebb_shared *shared)
{
    static const uint64_t gib[] = {0, 3};

    shared->boot_tables[0][0] = (EBB_ROM_CR3 + TABLE_BYTES) | TABLE_FLAGS;
    for (unsigned i = 0; i < ARRAY_LEN(gib); i++) {
        shared->boot_tables[1][gib[i]] = (EBB_ROM_CR3 + (2 + i) * TABLE_BYTES) | TABLE_FLAGS;
        for (uint64_t j = 0; j < 512; j++)
            shared->boot_tables[2 + i][j] = gib[i] << 30 | j << 21 | LEAF_FLAGS;
    }
}

int guest_ports_init(struct guest_ports *ports, const struct guest_ports_config *config)
{
    const struct workload *workload = config->workload;
    pthread_condattr_t attr;

    memset(ports, 0, sizeof(*ports));
    ports->config = *config;
    ports->config.workload = NULL;
    ports->config.numa = NULL;
    ports->shared_bytes = sizeof(*ports->shared);
    void *map = mmap(NULL, ports->shared_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED)
        return -ENOMEM;
    ports->shared = map;
    fill_parameters(ports->shared, config);
    fill_tables(ports->shared);
    ports->nr_steps = workload->nr_steps;
    memcpy(ports->steps, workload->steps, sizeof(ports->steps));
    for (unsigned i = 0; i < workload->nr_steps; i++)
        snprintf(ports->results[i].name, sizeof(ports->results[i].name), "%s",
                 workload_step_name(workload->steps[i].kind));
    pthread_mutex_init(&ports->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&ports->changed, &attr);
    pthread_condattr_destroy(&attr);
    return 0;
}

void guest_ports_fini(struct guest_ports *ports)
{
    pthread_cond_destroy(&ports->changed);
    pthread_mutex_destroy(&ports->lock);
    munmap(ports->shared, ports->shared_bytes);
}

void guest_ports_stop(struct guest_ports *ports)
{
    pthread_mutex_lock(&ports->lock);
    ports->stopped = true;
    pthread_cond_broadcast(&ports->changed);
    pthread_mutex_unlock(&ports->lock);
}

/* --- what the guest has counted -------------------------------------------------------------------- */

static uint64_t peek(const uint64_t *counter)
{
    return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

void guest_ports_counts(const struct guest_ports *ports, struct guest_counts *out)
{
    *out = (struct guest_counts){0};
    for (unsigned i = 0; i < ports->config.nr_cpus; i++) {
        const struct ebb_vcpu_shared *vcpu = &ports->shared->vcpu[i];

        out->pages += peek(&vcpu->nr_pages);
        out->ops += peek(&vcpu->nr_ops);
        out->verified += peek(&vcpu->nr_verified);
        out->bad += peek(&vcpu->nr_bad);
    }
}

static uint64_t step_total(const struct ebb_step *step)
{
    switch (step->kind) {
    case EBB_STEP_ZIPF:
    case EBB_STEP_CHURN:
        return step->ops;
    case EBB_STEP_STREAM:
        return (uint64_t)step->size_pages * step->passes;
    case EBB_STEP_IDLE:
        return step->ns / NS_PER_MS;
    default:
        return step->size_pages;
    }
}

void guest_ports_progress(struct guest_ports *ports, unsigned *step, uint64_t *done, uint64_t *total)
{
    pthread_mutex_lock(&ports->lock);
    unsigned at = ports->step;
    bool ended = ports->nr_done > at;
    pthread_mutex_unlock(&ports->lock);

    uint64_t sum = 0;
    for (unsigned i = 0; i < ports->config.nr_cpus; i++)
        sum += peek(&ports->shared->vcpu[i].done);
    *step = at;
    *total = step_total(&ports->steps[at]);
    *done = ended ? *total : MIN_OF(sum, *total);
}

/* --- ports ----------------------------------------------------------------------------------------- */

static void port_line(void *ctx, const struct bus_access *access, uint64_t value)
{
    struct guest_ports *ports = ctx;
    char line[EBB_LINE_BYTES];

    (void)value;
    memcpy(line, ports->shared->vcpu[access->cpu].line, sizeof(line));
    line[sizeof(line) - 1] = 0;
    for (char *at = line; *at; at++) {
        if (*at < ' ' || *at == 0x7f)
            *at = '?';
    }
    ports->config.on_line(ports->config.line_ctx, line);
}

static void begin_step_locked(struct guest_ports *ports, unsigned step)
{
    uint64_t now = now_ns();

    if (ports->boot_ns == 0)
        ports->boot_ns = now;
    ports->step = step;
    ports->step_start_ns = now;
    guest_ports_counts(ports, &ports->step_start);
}

static void end_step_locked(struct guest_ports *ports, unsigned step)
{
    struct workload_step_result *result = &ports->results[step];
    struct guest_counts counts;

    guest_ports_counts(ports, &counts);
    result->pages = counts.pages - ports->step_start.pages;
    result->ops = counts.ops - ports->step_start.ops;
    result->pages_bad = counts.bad - ports->step_start.bad;
    result->ns = now_ns() - ports->step_start_ns;
    ports->nr_done = step + 1;
}

/* Steps come in order, each begun and ended once; a guest that says otherwise is not heard. */
static void port_step(void *ctx, const struct bus_access *access, uint64_t value)
{
    struct guest_ports *ports = ctx;
    uint64_t step = value >> 1;

    (void)access;
    pthread_mutex_lock(&ports->lock);
    if (step == ports->nr_done && step < ports->nr_steps) {
        if (value & 1)
            end_step_locked(ports, (unsigned)step);
        else
            begin_step_locked(ports, (unsigned)step);
    }
    pthread_mutex_unlock(&ports->lock);
}

static void tell_wait(const struct guest_ports *ports, bool waits)
{
    if (ports->config.on_wait)
        ports->config.on_wait(ports->config.exit_ctx, waits);
}

static void port_barrier(void *ctx, const struct bus_access *access, uint64_t value)
{
    struct guest_ports *ports = ctx;

    (void)access;
    (void)value;
    tell_wait(ports, true);
    pthread_mutex_lock(&ports->lock);
    uint64_t round = ports->round;
    if (++ports->nr_waiting >= ports->config.nr_cpus) {
        ports->nr_waiting = 0;
        ports->round++;
        pthread_cond_broadcast(&ports->changed);
    }
    while (ports->round == round && !ports->stopped)
        pthread_cond_wait(&ports->changed, &ports->lock);
    pthread_mutex_unlock(&ports->lock);
    tell_wait(ports, false);
}

static void port_yield(void *ctx, const struct bus_access *access, uint64_t value)
{
    (void)ctx;
    (void)access;
    (void)value;
    sched_yield();
}

static void port_idle(void *ctx, const struct bus_access *access, uint64_t ms)
{
    struct guest_ports *ports = ctx;
    uint64_t until_ns = now_ns() + ms * NS_PER_MS; /* ms has 32 bits */
    struct timespec until = {(time_t)(until_ns / NS_PER_S), (long)(until_ns % NS_PER_S)};
    int err = 0;

    (void)access;
    tell_wait(ports, true);
    pthread_mutex_lock(&ports->lock);
    while (!ports->stopped && err != ETIMEDOUT)
        err = pthread_cond_timedwait(&ports->changed, &ports->lock, &until);
    pthread_mutex_unlock(&ports->lock);
    tell_wait(ports, false);
}

/* --- the end --------------------------------------------------------------------------------------- */

static void describe_bad(const struct ebb_bad *bad, char *text, size_t bytes)
{
    static const char *const names[EBB_NR_BAD_KINDS] = {"stale", "lost", "torn", "swapped-over"};
    char owner[40] = "";

    if (bad->kind == EBB_BAD_SWAPPED)
        snprintf(owner, sizeof(owner), " of page gpa 0x%" PRIx64, (uint64_t)bad->found_gfn << 12);
    snprintf(text, bytes, "page gpa 0x%" PRIx64 ": expected generation %u, found %u%s: %s", (uint64_t)bad->gfn << 12,
             bad->expected_generation, bad->found_generation, owner,
             bad->kind < EBB_NR_BAD_KINDS ? names[bad->kind] : "wrong");
}

static bool describe_bad_pages(const struct guest_ports *ports, char *text, size_t bytes)
{
    struct guest_counts counts;
    char first[ERROR_BYTES] = "";

    guest_ports_counts(ports, &counts);
    if (counts.bad == 0)
        return false;
    for (unsigned i = 0; i < ports->config.nr_cpus && !first[0]; i++) {
        struct ebb_bad bad = ports->shared->vcpu[i].bad[0];

        if (peek(&ports->shared->vcpu[i].nr_bad) > 0)
            describe_bad(&bad, first, sizeof(first));
    }
    snprintf(text, bytes, "%" PRIu64 " bad page%s; the first: %s", counts.bad, counts.bad == 1 ? "" : "s", first);
    return true;
}

static void describe_trap(const struct guest_ports *ports, unsigned cpu, char *text, size_t bytes)
{
    struct ebb_trap trap = ports->shared->vcpu[cpu].trap;

    snprintf(text, bytes,
             "vCPU %u: exception %" PRIu64 " in the guest kernel, error 0x%" PRIx64 ", rip 0x%" PRIx64 " rsp 0x%" PRIx64
             " cs 0x%" PRIx64 " cr2 0x%" PRIx64,
             cpu, trap.vector, trap.error, trap.rip, trap.rsp, trap.cs, trap.cr2);
}

static void port_exit(void *ctx, const struct bus_access *access, uint64_t value)
{
    struct guest_ports *ports = ctx;
    char error[2 * ERROR_BYTES];
    bool bad = true;

    switch (value) {
    case EBB_EXIT_DONE:
        bad = describe_bad_pages(ports, error, sizeof(error));
        break;
    case EBB_EXIT_EXCEPTION:
        describe_trap(ports, access->cpu, error, sizeof(error));
        break;
    case EBB_EXIT_NO_MEMORY:
        snprintf(error, sizeof(error), "the guest has no free pages left for step %u", ports->nr_done + 1);
        break;
    default:
        snprintf(error, sizeof(error), "the guest ended with code %" PRIu64 " at step %u", value, ports->nr_done + 1);
        break;
    }
    ports->config.on_exit(ports->config.exit_ctx, bad ? error : NULL);
}

int guest_ports_attach(struct guest_ports *ports, struct bus *bus)
{
    const struct {
        uint64_t port;
        void (*write)(void *ctx, const struct bus_access *access, uint64_t value);
    } list[] = {
        {EBB_PORT_LINE, port_line},   {EBB_PORT_STEP, port_step}, {EBB_PORT_BARRIER, port_barrier},
        {EBB_PORT_YIELD, port_yield}, {EBB_PORT_IDLE, port_idle}, {EBB_PORT_EXIT, port_exit},
    };

    for (size_t i = 0; i < ARRAY_LEN(list); i++) {
        const struct bus_device device = {.write = list[i].write, .ctx = ports};
        int err = bus_add(bus, BUS_PORT, list[i].port, 4, &device);

        if (err)
            return err;
    }
    return 0;
}
