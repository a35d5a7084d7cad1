/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/machine_parts.h"

/* The guest kernel, from guest-images/ebbguest: whole pages. */
extern const uint8_t ebbguest_image[], ebbguest_image_end[];

static void on_guest_exit(void *ctx, const char *error)
{
    machine_end(ctx, error ? MACHINE_FAILED : MACHINE_DONE, ENDING_NONE, 0, error ? error : "");
}

/* VMs of one process differ in content: FNV-1a of the name. */
static uint64_t name_seed(const char *name)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);

    for (; *name; name++)
        hash = (hash ^ (uint8_t)*name) * UINT64_C(0x100000001b3);
    return hash;
}

int ebbguest_add_ports(struct machine *m, const struct machine_config *config, struct diag *diag)
{
    struct guest_ports_config ports = {
        .nr_cpus = config->nr_cpus,
        .workload = config->workload,
        .seed = name_seed(config->name),
        .low_bytes = m->low_bytes,
        .high_bytes = m->high_bytes,
        .numa = &m->numa,
        .on_line = config->on_line,
        .line_ctx = config->ctx,
        .on_exit = on_guest_exit,
        .on_wait = machine_port_waits,
        .exit_ctx = m,
    };

    if (guest_ports_init(&m->ports, &ports))
        return diag_set(diag, EXIT_HOST, "out of memory");
    pthread_mutex_lock(&m->lock); /* a fault thread may end the machine from now on */
    m->has_ports = true;
    pthread_mutex_unlock(&m->lock);
    int err = guest_ports_attach(&m->ports, &m->bus);
    if (err)
        return diag_host(diag, -err, "the bus");
    return machine_add_serial(m, config->on_line, config->ctx, diag);
}

int ebbguest_map(struct machine *m, struct diag *diag)
{
    size_t image_bytes = (size_t)(ebbguest_image_end - ebbguest_image);

    if (kvm_map(&m->kvm, (gpa_t){EBB_SHARED_GPA}, m->ports.shared, m->ports.shared_bytes, false, diag))
        return -1;
    return kvm_map(&m->kvm, (gpa_t){EBB_ROM_GPA}, ebbguest_image, image_bytes, true, diag);
}
