/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/phase.h"

#include <stdio.h>
#include <time.h>

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void phase_init(struct phase *phase)
{
    *phase = (struct phase){.step = PHASE_HOST, .begin_ns = now_ns()};
    pthread_mutex_init(&phase->lock, NULL);
}

void phase_fini(struct phase *phase)
{
    pthread_mutex_destroy(&phase->lock);
}

uint64_t phase_set(struct phase *phase, enum phase_step step, unsigned at, unsigned of)
{
    uint64_t now = now_ns();

    pthread_mutex_lock(&phase->lock);
    if (phase->step != step)
        phase->begin_ns = now;
    phase->step = step;
    phase->at = at;
    phase->of = of;
    uint64_t lasts = now - phase->begin_ns;
    pthread_mutex_unlock(&phase->lock);
    return lasts;
}

enum phase_step phase_read(struct phase *phase, char *text)
{
    pthread_mutex_lock(&phase->lock);
    enum phase_step step = phase->step;
    unsigned at = phase->at, of = phase->of;
    pthread_mutex_unlock(&phase->lock);

    switch (step) {
    case PHASE_HOST:
        snprintf(text, PHASE_TEXT, "preparing memory and swap areas");
        break;
    case PHASE_MAKE:
        snprintf(text, PHASE_TEXT, "making VM %u of %u", at, of);
        break;
    case PHASE_START:
        snprintf(text, PHASE_TEXT, "starting VM %u of %u", at, of);
        break;
    case PHASE_RUN:
        *text = '\0';
        break;
    case PHASE_END:
        snprintf(text, PHASE_TEXT, "giving back the memory of VM %u of %u", at, of);
    }
    return step;
}
