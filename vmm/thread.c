/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/thread.h"

#include <errno.h>
#include <signal.h>

/* Enough for zstd's and io_uring's frames, eight times what was seen in use. Sanitizers need several times as much. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STACK_BYTES ((size_t)4 << 20)
#else
#define STACK_BYTES ((size_t)256 << 10)
#endif

int thread_start(pthread_t *out, const char *name, int cpu, void *(*run)(void *), void *arg)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    if (cpu == THREAD_ANY_CPU)
        return thread_start_on(out, name, NULL, run, arg);
    if (cpu < 0 || cpu >= CPU_SETSIZE)
        return -EINVAL;
    CPU_SET((unsigned)cpu, &set);
    return thread_start_on(out, name, &set, run, arg);
}

int thread_start_on(pthread_t *out, const char *name, const cpu_set_t *cpus, void *(*run)(void *), void *arg)
{
    pthread_attr_t attr;
    int err = pthread_attr_init(&attr);
    if (err)
        return -err;
    sigset_t all;
    sigfillset(&all);
    pthread_attr_setsigmask_np(&attr, &all);
    err = pthread_attr_setstacksize(&attr, STACK_BYTES);
    if (!err && cpus && CPU_COUNT(cpus))
        err = pthread_attr_setaffinity_np(&attr, sizeof(*cpus), cpus);
    if (!err)
        err = pthread_create(out, &attr, run, arg);
    pthread_attr_destroy(&attr);
    if (!err)
        pthread_setname_np(*out, name);
    return -err;
}
