/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The idle page bitmap (Linux Documentation/admin-guide/mm/idle_page_tracking.rst): a bit a frame of the host, in words of
 * 64. A set bit is cleared by the kernel when the page is touched, by a guest as well. Each poll reads the bits that the
 * last one set, and sets them again.
 *
 *   pagemap      8 bytes a page of this process: bit 63 present, bits 0-54 the frame
 *   kpageflags   8 bytes a frame: bit 22 is set in a huge page, of which the first frame alone has an idle bit
 */
#include "vmm/access_source.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PRESENT (UINT64_C(1) << 63)
#define FRAME_MASK ((UINT64_C(1) << 55) - 1)
#define KPF_THP (UINT64_C(1) << 22)

/* A poll costs about two system calls a page: it is made so seldom that it takes at most a hundredth of a CPU. */
#define MIN_PERIOD_MS 1000u
#define SHARE 100u

struct access_page_idle {
    int bitmap, pagemap, kpageflags;
    struct access_source source;
    unsigned nr;
    struct access_range *ranges;
    uint64_t *set; /* bit a page of all ranges, in their order: the last poll set its idle bit */
};

static int read_words(int fd, uint64_t word, uint64_t *out, uint32_t nr)
{
    ssize_t got = pread(fd, out, nr * sizeof(*out), (off_t)(word * sizeof(*out)));
    if (got == (ssize_t)(nr * sizeof(*out)))
        return 0;
    return got < 0 ? -errno : -ENODATA;
}

static bool was_set(const struct access_page_idle *idle, uint64_t page)
{
    return idle->set[page / 64] >> (page % 64) & 1;
}

static void note_set(struct access_page_idle *idle, uint64_t page, bool set)
{
    uint64_t bit = UINT64_C(1) << (page % 64);
    idle->set[page / 64] = set ? idle->set[page / 64] | bit : idle->set[page / 64] & ~bit;
}

/* Whether the frame is idle still, and from now on. A frame that the kernel does not track stays idle for nobody. */
static int look_at_frame(const struct access_page_idle *idle, uint64_t frame, bool *is_idle)
{
    uint64_t word, bit = UINT64_C(1) << (frame % 64);
    int err = read_words(idle->bitmap, frame / 64, &word, 1);
    if (err)
        return err;
    *is_idle = word & bit;
    /* zeros are left alone by the kernel */
    ssize_t put = pwrite(idle->bitmap, &bit, sizeof(bit), (off_t)(frame / 64 * sizeof(bit)));
    if (put != (ssize_t)sizeof(bit))
        return put < 0 ? -errno : -EIO;
    return 0;
}

/* [first, first + nr) of a block, by its first frame; @page: its number for was_set. */
static int look_at_run(struct access_page_idle *idle, const struct access_range *range, gfn_t gfn, uint64_t page,
                       uint32_t nr, uint64_t frame, access_report_fn *report, void *report_ctx)
{
    bool known = was_set(idle, page), is_idle = false;
    int err = look_at_frame(idle, frame, &is_idle);
    if (err == -ENODATA || err == -ENXIO) {
        note_set(idle, page, false); /* beyond the bitmap: no memory of the page allocator */
        return 0;
    }
    if (err)
        return err;
    note_set(idle, page, true);
    if (known)
        report(report_ctx, range->vm, gfn, nr, !is_idle);
    return 0;
}

static int poll_block(struct access_page_idle *idle, const struct access_range *range, uint64_t offset, uint64_t page,
                      access_report_fn *report, void *report_ctx)
{
    uint64_t map[BLOCK_PAGES], flags = 0;
    gfn_t gfn = gfn_of((gpa_t){range->gpa.v + offset});
    int err = read_words(idle->pagemap, (range->start + offset) >> PAGE_SHIFT, map, BLOCK_PAGES);
    if (err)
        return err;
    uint64_t first = map[0] & FRAME_MASK;
    if (map[0] & PRESENT && first == 0)
        return -EPERM;
    if (map[0] & PRESENT && first % BLOCK_PAGES == 0)
        err = read_words(idle->kpageflags, first, &flags, 1);
    if (!err && flags & KPF_THP)
        return look_at_run(idle, range, gfn, page, BLOCK_PAGES, first, report, report_ctx);
    for (uint32_t i = 0; i < BLOCK_PAGES && !err; i++) {
        if (map[i] & PRESENT)
            err = look_at_run(idle, range, gfn + i, page + i, 1, map[i] & FRAME_MASK, report, report_ctx);
        else
            note_set(idle, page + i, false);
    }
    return err;
}

static uint64_t cpu_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static int poll_pages(void *ctx, access_report_fn *report, void *report_ctx)
{
    struct access_page_idle *idle = ctx;
    uint64_t start_ms = cpu_ms(), page = 0;
    for (unsigned i = 0; i < idle->nr; i++)
        for (uint64_t at = 0; at < idle->ranges[i].bytes; at += BLOCK_BYTES, page += BLOCK_PAGES) {
            int err = poll_block(idle, &idle->ranges[i], at, page, report, report_ctx);
            if (err)
                return err;
        }
    uint64_t period_ms = (cpu_ms() - start_ms) * SHARE;
    idle->source.period_ms = (unsigned)MIN_OF(MAX_OF(period_ms, (uint64_t)MIN_PERIOD_MS), UINT64_C(3600000));
    return 0;
}

/* ---- */

static int open_one(const char *path, int flags, int *out, struct diag *diag)
{
    *out = open(path, flags | O_CLOEXEC);
    if (*out >= 0)
        return 0;
    if (errno == ENOENT)
        return diag_set(diag, EXIT_HOST,
                        "this kernel has no %.80s (CONFIG_IDLE_PAGE_TRACKING); run with --access refault", path);
    return diag_set(diag, EXIT_HOST, "%.80s: %s; idle page tracking is root's, or run with --access refault", path,
                    strerror(errno));
}

static int open_all(struct access_page_idle *idle, const struct access_paths *paths, const struct access_range *ranges,
                    unsigned nr, struct diag *diag)
{
    uint64_t pages = 0;
    if (open_one(paths->idle, O_RDWR, &idle->bitmap, diag) ||
        open_one(paths->pagemap, O_RDONLY, &idle->pagemap, diag) ||
        open_one(paths->kpageflags, O_RDONLY, &idle->kpageflags, diag))
        return -1;
    for (unsigned i = 0; i < nr; i++)
        pages += ranges[i].bytes >> PAGE_SHIFT;
    idle->set = calloc(pages / 64 + 1, sizeof(*idle->set));
    idle->ranges = calloc(nr, sizeof(*ranges));
    if (!idle->set || !idle->ranges)
        return diag_set(diag, EXIT_HOST, "out of memory");
    memcpy(idle->ranges, ranges, nr * sizeof(*ranges));
    idle->nr = nr;
    return 0;
}

int access_page_idle_open(const struct access_paths *paths, const struct access_range *ranges, unsigned nr,
                          struct access_page_idle **out, struct diag *diag)
{
    struct access_page_idle *idle = calloc(1, sizeof(*idle));
    if (!idle)
        return diag_set(diag, EXIT_HOST, "out of memory");
    idle->bitmap = idle->pagemap = idle->kpageflags = -1;
    idle->source =
        (struct access_source){.name = "page_idle", .period_ms = MIN_PERIOD_MS, .poll = poll_pages, .ctx = idle};
    if (open_all(idle, paths, ranges, nr, diag)) {
        access_page_idle_close(idle);
        return -1;
    }
    *out = idle;
    return 0;
}

void access_page_idle_close(struct access_page_idle *idle)
{
    int fds[] = {idle->bitmap, idle->pagemap, idle->kpageflags};
    for (size_t i = 0; i < ARRAY_LEN(fds); i++)
        if (fds[i] >= 0)
            close(fds[i]);
    free(idle->ranges);
    free(idle->set);
    free(idle);
}

const struct access_source *access_page_idle_source(const struct access_page_idle *idle)
{
    return &idle->source;
}
