/* SPDX-License-Identifier: Apache-2.0 */
/*
 * oom: which VM goes when budget, zram and swap are all full.
 *
 * One at a time: the first thread that finds no memory names a victim, and every other one waits until the victim's
 * memory is free, then tries again. So one VM that wants too much costs one VM, not each that happened to fault then.
 * The victim is one that has ended and only keeps its memory for the closing table, else the one that holds most: of what
 * the thread that found nothing may use, for memory on another node would not help it.
 */
#ifndef VMM_OOM_H
#define VMM_OOM_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct oom_vm {
    /* set by the owner before oom_add */
    uint64_t (*bytes)(void *ctx, uint8_t nodes); /* what it holds in memory of @nodes (bit i: node i), zram and swap */
    void (*stop)(void *ctx); /* it is the victim and runs: it has to end; must not block nor call oom */
    void *ctx;
    /* guarded by oom.lock */
    struct oom_vm *next;
    bool ended; /* it needs no page any more */
};

struct oom {
    pthread_mutex_t lock;
    pthread_cond_t change;
    /* guarded by lock */
    struct oom_vm *vms;    /* those whose memory is not being freed yet */
    struct oom_vm *victim; /* its memory will be free soon; NULL: none's */
    uint64_t nr_freed;     /* VMs whose memory came free */
};

void oom_init(struct oom *oom);
void oom_fini(struct oom *oom);

void oom_add(struct oom *oom, struct oom_vm *vm);
/* The VM runs no more: its waiting threads give up, and it is not stopped. True: its memory is wanted now. */
bool oom_end(struct oom *oom, struct oom_vm *vm);
/* True: others wait for this VM's memory. */
bool oom_is_victim(struct oom *oom, const struct oom_vm *vm);
/* Its memory is about to be freed, which others may wait for; oom_freed follows, or never came to be added. */
void oom_leave(struct oom *oom, struct oom_vm *vm);
void oom_freed(struct oom *oom, struct oom_vm *vm);

/*
 * oom_wait - a thread of @vm found no memory of @nodes since *seen VMs' memory came free: 0 before its first try, written
 * here for the next one. Waits while another VM's memory is coming free. True: try again. False: @vm is the victim, or has
 * ended.
 */
bool oom_wait(struct oom *oom, struct oom_vm *vm, uint8_t nodes, uint64_t *seen);

#endif
