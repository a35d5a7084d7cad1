/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/access_source.h"

const struct access_paths access_kernel_paths = {
    .damon = "/sys/kernel/mm/damon/admin",
    .idle = "/sys/kernel/mm/page_idle/bitmap",
    .pagemap = "/proc/self/pagemap",
    .kpageflags = "/proc/kpageflags",
};

/* DAMON, with a thread that waits for it. */
static int start_damon(struct access_choice *choice, const char *root, const struct access_range *ranges, unsigned nr,
                       struct diag *diag)
{
    if (access_damon_open(root, ranges, nr, &choice->damon, diag))
        return -1;
    if (access_thread_start(access_damon_source(choice->damon), &choice->thread, diag)) {
        access_choice_close(choice);
        return -1;
    }
    choice->source = access_thread_source(choice->thread);
    return 0;
}

int access_choose(enum access_mode mode, const struct access_paths *paths, const struct access_range *ranges,
                  unsigned nr, struct access_choice *out, struct diag *diag)
{
    struct diag unheard = {0};

    *out = (struct access_choice){0};
    if (mode == ACCESS_REFAULT || nr == 0)
        return 0;
    if (mode != ACCESS_PAGE_IDLE && start_damon(out, paths->damon, ranges, nr, mode == ACCESS_AUTO ? &unheard : diag) &&
        mode == ACCESS_DAMON)
        return -1;
    if (!out->source) {
        if (access_page_idle_open(paths, ranges, nr, &out->idle, mode == ACCESS_AUTO ? &unheard : diag) == 0)
            out->source = access_page_idle_source(out->idle);
        else if (mode == ACCESS_PAGE_IDLE)
            return -1;
    }
    return 0;
}

void access_choice_close(struct access_choice *choice)
{
    if (choice->thread)
        access_thread_stop(choice->thread);
    if (choice->damon)
        access_damon_close(choice->damon);
    if (choice->idle)
        access_page_idle_close(choice->idle);
    *choice = (struct access_choice){0};
}
