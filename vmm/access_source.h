/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which accesses Ebb sees, and by what: the sources of mm/policy/access_source.h that a kernel may offer.
 *
 *   damon      sysfs interface of DAMON, operations fvaddr (or vaddr) on this process over the guests' ranges; it answers
 *              when a period of its own is over
 *   page_idle  the idle page bitmap, with pagemap for the frame numbers; root
 *
 * Both look at what the kernel thinks of pages that are in a guest; nothing is taken home to learn it.
 */
#ifndef VMM_ACCESS_SOURCE_H
#define VMM_ACCESS_SOURCE_H

#include "mm/policy/access.h"
#include "vmm/diag.h"

/* --access */
enum access_mode { ACCESS_REFAULT, ACCESS_DAMON, ACCESS_PAGE_IDLE, ACCESS_AUTO };

/* A guest's memory in this process: [start, start + bytes) is guest memory from @gpa on. Whole blocks. */
struct access_range {
    vmid_t vm;
    gpa_t gpa;
    uint64_t bytes;
    uint64_t start;
};

/* Where the kernel's files are: below /sys and /proc, or below a test's directory. */
struct access_paths {
    const char *damon;      /* "/sys/kernel/mm/damon/admin" */
    const char *idle;       /* "/sys/kernel/mm/page_idle/bitmap" */
    const char *pagemap;    /* "/proc/self/pagemap" */
    const char *kpageflags; /* "/proc/kpageflags" */
};
extern const struct access_paths access_kernel_paths;

struct access_damon;
struct access_page_idle;

/*
 * access_damon_open - @ranges are copied. Starts monitoring. 0, or -1 with @diag (EXIT_HOST): why this kernel cannot, or
 * somebody else uses DAMON; nothing has changed then. access_damon_close stops it and takes down what was set up.
 */
must_check int access_damon_open(const char *root, const struct access_range *ranges, unsigned nr,
                                 struct access_damon **out, struct diag *diag);
void access_damon_close(struct access_damon *damon);
const struct access_source *access_damon_source(const struct access_damon *damon);

/* The same for the idle page bitmap. */
must_check int access_page_idle_open(const struct access_paths *paths, const struct access_range *ranges, unsigned nr,
                                     struct access_page_idle **out, struct diag *diag);
void access_page_idle_close(struct access_page_idle *idle);
const struct access_source *access_page_idle_source(const struct access_page_idle *idle);

struct access_thread;
/*
 * access_thread_start - a source that is told by what a thread of its own hears from @inner, which may wait as long as it
 * likes and outlives it: the scanner, which has other work, does not. Several answers are told one after the other.
 * 0, or -1 with @diag (EXIT_HOST). access_thread_stop: waits for @inner's answer.
 */
must_check int access_thread_start(const struct access_source *inner, struct access_thread **out, struct diag *diag);
void access_thread_stop(struct access_thread *thread);
const struct access_source *access_thread_source(const struct access_thread *thread);

struct access_choice {
    struct access_damon *damon;
    struct access_thread *thread; /* asks damon */
    struct access_page_idle *idle;
    const struct access_source *source; /* NULL: refaults and samples */
};
/*
 * access_choose - what --access asks for. AUTO: the first that there is, of DAMON, page_idle, refaults; it cannot fail.
 * 0, or -1 with @diag. access_choice_close: when the scanner has ended.
 */
must_check int access_choose(enum access_mode mode, const struct access_paths *paths, const struct access_range *ranges,
                             unsigned nr, struct access_choice *out, struct diag *diag);
void access_choice_close(struct access_choice *choice);

#endif
