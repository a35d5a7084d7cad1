/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/oom.h"

#include <stddef.h>

void oom_init(struct oom *oom)
{
    *oom = (struct oom){0};
    pthread_mutex_init(&oom->lock, NULL);
    pthread_cond_init(&oom->change, NULL);
}

void oom_fini(struct oom *oom)
{
    pthread_cond_destroy(&oom->change);
    pthread_mutex_destroy(&oom->lock);
}

void oom_add(struct oom *oom, struct oom_vm *vm)
{
    pthread_mutex_lock(&oom->lock);
    vm->ended = false;
    vm->next = oom->vms;
    oom->vms = vm;
    pthread_mutex_unlock(&oom->lock);
}

bool oom_end(struct oom *oom, struct oom_vm *vm)
{
    pthread_mutex_lock(&oom->lock);
    vm->ended = true;
    bool wanted = oom->victim == vm;
    pthread_cond_broadcast(&oom->change);
    pthread_mutex_unlock(&oom->lock);
    return wanted;
}

bool oom_is_victim(struct oom *oom, const struct oom_vm *vm)
{
    pthread_mutex_lock(&oom->lock);
    bool wanted = oom->victim == vm;
    pthread_mutex_unlock(&oom->lock);
    return wanted;
}

void oom_leave(struct oom *oom, struct oom_vm *vm)
{
    pthread_mutex_lock(&oom->lock);
    for (struct oom_vm **link = &oom->vms; *link; link = &(*link)->next)
        if (*link == vm) {
            *link = vm->next;
            break;
        }
    vm->ended = true;
    if (!oom->victim)
        oom->victim = vm;
    pthread_cond_broadcast(&oom->change);
    pthread_mutex_unlock(&oom->lock);
}

void oom_freed(struct oom *oom, struct oom_vm *vm)
{
    pthread_mutex_lock(&oom->lock);
    if (oom->victim == vm)
        oom->victim = NULL;
    oom->nr_freed++;
    pthread_cond_broadcast(&oom->change);
    pthread_mutex_unlock(&oom->lock);
}

/* One that has ended before one that runs, the larger before the smaller. @vm, which asks, where none is larger. */
static struct oom_vm *choose_locked(const struct oom *oom, struct oom_vm *vm, uint8_t nodes)
{
    struct oom_vm *best = vm;
    uint64_t best_bytes = vm->bytes(vm->ctx, nodes);
    for (struct oom_vm *other = oom->vms; other; other = other->next) {
        uint64_t bytes = other->bytes(other->ctx, nodes);
        bool better = other->ended == best->ended ? bytes > best_bytes : other->ended && bytes > 0;
        if (better) {
            best = other;
            best_bytes = bytes;
        }
    }
    return best;
}

bool oom_wait(struct oom *oom, struct oom_vm *vm, uint8_t nodes, uint64_t *seen)
{
    pthread_mutex_lock(&oom->lock);
    if (!oom->victim && oom->nr_freed == *seen && !vm->ended) {
        oom->victim = choose_locked(oom, vm, nodes);
        if (oom->victim != vm && !oom->victim->ended)
            oom->victim->stop(oom->victim->ctx);
    }
    while (oom->victim && oom->victim != vm && oom->nr_freed == *seen && !vm->ended)
        pthread_cond_wait(&oom->change, &oom->lock);
    *seen = oom->nr_freed;
    bool again = oom->victim != vm && !vm->ended;
    pthread_mutex_unlock(&oom->lock);
    return again;
}
