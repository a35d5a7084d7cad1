/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/progress.h"

#include "vmm/size.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* The step's word in the workload's text: steps are separated by ; and their words end at : or , */
static int step_word(const char *text, unsigned step, const char **word)
{
    for (; step && *text; text++)
        step -= *text == ';';
    text += strspn(text, " ");
    *word = text;
    return (int)strcspn(text, ":,; ");
}

struct place {
    unsigned step;
    uint64_t done, total;
};

static bool is_behind(const struct place *a, const struct place *b)
{
    if (a->step != b->step)
        return a->step < b->step;
    return (double)a->done * (double)b->total < (double)b->done * (double)a->total;
}

/* Work a second since the last line about the same step of the same machine; 0 when there was none. */
static uint64_t rate(struct progress *progress, const void *machine, const struct place *at)
{
    uint64_t now = now_ns(), per_second = 0;

    if (progress->machine == machine && progress->step == at->step && at->done >= progress->done &&
        now > progress->at_ns)
        per_second = (uint64_t)((double)(at->done - progress->done) * 1e9 / (double)(now - progress->at_ns));
    *progress = (struct progress){
        .machine = machine, .step = at->step, .done = at->done, .at_ns = now, .start_ns = progress->start_ns};
    return per_second;
}

static void add_memory(struct mm_host *mm, char *out, size_t out_bytes)
{
    char a[SIZE_TEXT], b[SIZE_TEXT], c[SIZE_TEXT];
    struct swap_area_stat areas[MAX_SWAP_AREAS];
    struct mm_host_stat host;
    uint64_t swap_bytes = 0;

    mm_host_stat(mm, &host);
    unsigned nr = swap_stat(mm_swap_set(mm), areas, MAX_SWAP_AREAS);
    for (unsigned i = 0; i < nr; i++)
        swap_bytes += areas[i].used_bytes;
    snprintf(out, out_bytes, "  resident %s  zram %s  swap %s", size_text(a, host.resident_bytes),
             size_text(b, host.zram_used_bytes), size_text(c, swap_bytes));
}

/* Since the first line, in whole seconds: it is seen a few times in each. */
static int elapsed(struct progress *progress, char *out, size_t out_bytes)
{
    uint64_t now = now_ns();

    if (!progress->start_ns)
        progress->start_ns = now;
    uint64_t seconds = (now - progress->start_ns) / 1000000000u;
    return snprintf(out, out_bytes, "%u:%02u:%02u", (unsigned)(seconds / 3600), (unsigned)(seconds / 60 % 60),
                    (unsigned)(seconds % 60));
}

void progress_text(struct progress *progress, struct machine *const *machines, unsigned nr,
                   const struct workload *workload, struct mm_host *mm, char *out)
{
    struct place last = {0};
    unsigned running = 0, at = 0;
    char count[SIZE_TEXT];
    const char *word;

    *out = '\0';
    for (unsigned i = 0; i < nr; i++) {
        struct place place = {0};
        if (!machines[i])
            continue;
        machine_progress(machines[i], &place.step, &place.done, &place.total);
        if (running++ == 0 || is_behind(&place, &last)) {
            last = place;
            at = i;
        }
    }
    if (!running)
        return;
    int used = 0;
    if (nr > 1 && workload)
        used = snprintf(out, PROGRESS_BYTES, "%u of %u VMs running, last vm%u: ", running, nr, at);
    else if (nr > 1)
        used = snprintf(out, PROGRESS_BYTES, "%u of %u VMs running, ", running, nr);
    if (!workload) {
        used += elapsed(progress, out + used, PROGRESS_BYTES - (size_t)used);
        if (mm && used < PROGRESS_BYTES)
            add_memory(mm, out + used, PROGRESS_BYTES - (size_t)used);
        return;
    }
    int len = step_word(workload->text, last.step, &word);
    used += snprintf(out + used, PROGRESS_BYTES - (size_t)used, "step %u/%u %.*s %.0f%%", last.step + 1,
                     workload->nr_steps, len, word, last.total ? 100.0 * (double)last.done / (double)last.total : 0.0);
    uint64_t per_second = rate(progress, machines[at], &last);
    if (per_second && used < PROGRESS_BYTES)
        used += snprintf(out + used, PROGRESS_BYTES - (size_t)used, "  %s/s", count_text(count, per_second));
    if (mm && used < PROGRESS_BYTES)
        add_memory(mm, out + used, PROGRESS_BYTES - (size_t)used);
}
