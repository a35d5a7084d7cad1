/* SPDX-License-Identifier: Apache-2.0 */
/* What others ask of a machine that runs: to rest, what it wrote, its console's input, its devices. */
#include "vmm/machine_parts.h"

/* --- pause ----------------------------------------------------------------------------------------- */

static void unpark_locked(struct machine *m)
{
    while (m->nr_pauses > 0 && !m->ended)
        pthread_cond_wait(&m->changed, &m->lock);
    m->nr_parked--;
}

void machine_vcpu_pause(void *ctx, struct vcpu *vcpu)
{
    struct machine *m = ctx;

    pthread_mutex_lock(&m->lock);
    m->nr_parked++;
    pthread_cond_broadcast(&m->changed);
    unpark_locked(m);
    if (!m->ended)
        vcpu_unkick(vcpu);
    pthread_mutex_unlock(&m->lock);
}

void machine_port_waits(void *ctx, bool waits)
{
    struct machine *m = ctx;

    pthread_mutex_lock(&m->lock);
    if (waits) {
        m->nr_parked++;
        pthread_cond_broadcast(&m->changed);
    } else {
        unpark_locked(m);
    }
    pthread_mutex_unlock(&m->lock);
}

void machine_pause(struct machine *m)
{
    pthread_mutex_lock(&m->lock);
    if (m->nr_pauses++ == 0 && !m->ended) {
        for (unsigned i = 0; i < m->nr_vcpus; i++)
            vcpu_kick(&m->vcpus[i]);
    }
    while (m->nr_parked < atomic_load_explicit(&m->nr_running, memory_order_relaxed))
        pthread_cond_wait(&m->changed, &m->lock);
    pthread_mutex_unlock(&m->lock);
}

void machine_resume(struct machine *m)
{
    pthread_mutex_lock(&m->lock);
    if (--m->nr_pauses == 0)
        pthread_cond_broadcast(&m->changed);
    pthread_mutex_unlock(&m->lock);
}

/* --- what others ask ------------------------------------------------------------------------------- */

size_t machine_console_input(struct machine *m, const void *bytes, size_t nr)
{
    return serial_input(&m->serial, bytes, nr);
}

int machine_dirty_log_start(struct machine *m)
{
    return kvm_dirty_log_start(&m->kvm);
}

int machine_dirty_log_get(struct machine *m, gpa_t gpa, uint64_t *bitmap)
{
    return kvm_dirty_log_get(&m->kvm, gpa, bitmap);
}

void machine_dirty_log_stop(struct machine *m)
{
    kvm_dirty_log_stop(&m->kvm);
}

struct balloon *machine_balloon(const struct machine *m)
{
    return m->devices ? machine_devices_balloon(m->devices) : NULL;
}

struct mem *machine_mem(const struct machine *m)
{
    return m->devices ? machine_devices_mem(m->devices) : NULL;
}

json_t *machine_devices_json(const struct machine *m)
{
    return m->devices ? machine_devices_stats(m->devices) : json_array();
}
