/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What keeps the lab alive, on its CPU 0:
 *
 * - One idle VM with a vCPU. KVM patches kernel code when the first VM is created and when the last one goes; under the
 *   software CPU that can panic. With this VM open there is no first and no last.
 * - A beat: it wakes a thread on each other CPU all the time. QEMU (7.2 to 10.1) changes a CPU's word of pending
 *   interrupts without a lock at each entry and exit of a guest, and can lose one; was it the timer's, which the kernel
 *   sets for one time only, that CPU has no timer any more, and all stands still. Any other interrupt mends it.
 * - A line "LAB: alive" on standard error each 20 seconds in which all CPUs answered, for tests/lab/run.sh.
 */
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define MAX_CPUS 8
#define BEAT_US 200000
#define BEATS_OF_A_LINE 100

struct cpu {
    sem_t beat;
    atomic_bool has_answered;
};

static int stay_on(int cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    return pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
}

static void *answer(void *arg)
{
    struct cpu *cpu = arg;

    for (;;)
        if (sem_wait(&cpu->beat) == 0)
            cpu->has_answered = true;
    return NULL;
}

/* A thread that starts on the CPU which its maker has chosen stays there. */
static int start_answers(struct cpu *cpus, int nr_cpus)
{
    pthread_t thread;
    int err = 0;

    for (int i = 1; i < nr_cpus && !err; i++) {
        sem_init(&cpus[i].beat, 0, 0);
        err = stay_on(i);
        if (!err)
            err = pthread_create(&thread, NULL, answer, &cpus[i]);
    }
    return err ? err : stay_on(0);
}

static void beat(struct cpu *cpus, int nr_cpus)
{
    static const char line[] = "LAB: alive\n";

    for (unsigned nr = 1;; nr++) {
        bool all = true;

        for (int i = 1; i < nr_cpus; i++)
            sem_post(&cpus[i].beat);
        usleep(BEAT_US);
        if (nr % BEATS_OF_A_LINE)
            continue;
        for (int i = 1; i < nr_cpus; i++)
            all &= atomic_exchange(&cpus[i].has_answered, false);
        if (all)
            (void)!write(STDERR_FILENO, line, strlen(line)); /* nobody to tell if it fails */
    }
}

int main(void)
{
    static struct cpu cpus[MAX_CPUS];
    int nr_cpus = (int)sysconf(_SC_NPROCESSORS_ONLN);
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    int vm = kvm < 0 ? -1 : ioctl(kvm, KVM_CREATE_VM, 0);

    if (vm < 0 || ioctl(vm, KVM_CREATE_VCPU, 0) < 0) {
        perror("keeper: no VM");
        return 1;
    }
    if (nr_cpus > MAX_CPUS || start_answers(cpus, nr_cpus)) {
        fprintf(stderr, "keeper: no thread for each of %d CPUs\n", nr_cpus);
        return 1;
    }
    puts("keeper: ready");
    fflush(stdout);
    beat(cpus, nr_cpus);
}
