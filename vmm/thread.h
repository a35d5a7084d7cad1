/* SPDX-License-Identifier: Apache-2.0 */
/* The process's own service threads: small stack, no signals, a name, perhaps a CPU. */
#ifndef VMM_THREAD_H
#define VMM_THREAD_H

#include <pthread.h>
#include <sched.h>

#include "mm/base/types.h"

#define THREAD_ANY_CPU (-1)

/*
 * thread_start - @run(@arg) in a thread of its own, all signals blocked (they are the main thread's).
 * @name: at most 15 characters. @cpu: the only CPU it may use, or THREAD_ANY_CPU.
 * Returns 0 and *out, to be joined; -EINVAL: no such CPU; -EAGAIN, -ENOMEM.
 */
must_check int thread_start(pthread_t *out, const char *name, int cpu, void *(*run)(void *), void *arg);

/* thread_start_on - the same for a thread that may use several CPUs, @cpus; NULL or the empty set: any. */
must_check int thread_start_on(pthread_t *out, const char *name, const cpu_set_t *cpus, void *(*run)(void *),
                               void *arg);

#endif
