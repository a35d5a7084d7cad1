/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The idle page bitmap (Linux Documentation/admin-guide/mm/idle_page_tracking.rst): a bit a frame of the host, in words of
 * 64. A set bit is cleared by the kernel when the page is touched, by a guest as well. Each poll reads the bits that the
 * last one set, and sets them again.
 *
 *   pagemap      8 bytes a page of this process: bit 63 present, bits 0-54 the frame
 *   kpageflags   8 bytes a frame: which are in one folio, of which the first frame alone has an idle bit, for all of them
 */
#include "vmm/access_source.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "vmm/folio_set.h"

#define PRESENT (UINT64_C(1) << 63)
#define FRAME_MASK ((UINT64_C(1) << 55) - 1)
/* Linux include/uapi/linux/kernel-page-flags.h */
#define KPF_COMPOUND_HEAD (UINT64_C(1) << 15)
#define KPF_COMPOUND_TAIL (UINT64_C(1) << 16)

/* A poll costs up to three system calls a page: it is made so seldom that it takes at most a hundredth of a CPU. */
#define MIN_PERIOD_MS 1000u
#define SHARE 100u

struct access_page_idle {
    int bitmap, pagemap, kpageflags;
    struct access_source source;
    unsigned nr;
    struct access_range *ranges;
    struct folio_set looked_at; /* in this poll, of the folios that may have pages elsewhere */
    uint64_t *set;              /* bit a page of all ranges, in their order: the last poll set its idle bit */
};

/* Where a poll is. */
struct poll {
    struct access_page_idle *idle;
    access_report_fn *report;
    void *report_ctx;
    vmid_t vm;
    gfn_t gfn;     /* of the block */
    uint64_t page; /* the block's first one, for was_set */
};

/* Pages of a block that stand side by side in one folio. */
struct piece {
    unsigned page, nr;
    uint64_t head; /* the folio's first frame */
    bool is_part;  /* there may be others of its pages elsewhere */
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

/* A folio that this poll has looked at, for another piece of it, would seem idle: its bit was set then. */
static int look_at_folio(struct access_page_idle *idle, const struct piece *piece, bool *is_idle)
{
    if (piece->is_part && folio_set_find(&idle->looked_at, piece->head, is_idle))
        return 0;
    int err = look_at_frame(idle, piece->head, is_idle);
    if (!err && piece->is_part)
        err = folio_set_add(&idle->looked_at, piece->head, *is_idle);
    return err;
}

static int look_at_piece(struct poll *poll, const struct piece *piece)
{
    bool is_idle;
    int err = look_at_folio(poll->idle, piece, &is_idle);
    bool known = true, tracked = !err;
    for (unsigned i = piece->page; i < piece->page + piece->nr; i++) {
        known = known && was_set(poll->idle, poll->page + i);
        note_set(poll->idle, poll->page + i, tracked);
    }
    if (err == -ENODATA || err == -ENXIO)
        return 0; /* beyond the bitmap: no memory of the page allocator */
    if (!err && known)
        poll->report(poll->report_ctx, poll->vm, poll->gfn + piece->page, piece->nr, !is_idle);
    return err;
}

/* Where the folio of the tail page @frame begins: folios are aligned to their size, and anonymous ones at most a block. */
static int find_head(const struct access_page_idle *idle, uint64_t frame, uint64_t *out)
{
    uint64_t flags = 0;
    for (unsigned order = 1; order <= BLOCK_ORDER && !(flags & KPF_COMPOUND_HEAD); order++) {
        *out = frame >> order << order;
        int err = read_words(idle->kpageflags, *out, &flags, 1);
        if (err)
            return err;
    }
    return 0;
}

/* Pages whose frames are neighbours, the first of them @frame: folio by folio. */
static int look_at_run(struct poll *poll, unsigned page, unsigned nr, uint64_t frame)
{
    uint64_t flags[BLOCK_PAGES] = {0}, head = frame;
    int err = frame ? read_words(poll->idle->kpageflags, frame, flags, nr) : -EPERM;
    if (err == -ENODATA)
        err = 0; /* the rest has no flags */
    if (!err && flags[0] & KPF_COMPOUND_TAIL)
        err = find_head(poll->idle, frame, &head);
    for (unsigned i = 0, end; i < nr && !err; i = end, head = frame + i) {
        for (end = i + 1; end < nr && flags[end] & KPF_COMPOUND_TAIL;)
            end++;
        struct piece piece = {.page = page + i, .nr = end - i, .head = head};
        bool may_go_on = end == nr && flags[i] & KPF_COMPOUND_HEAD && end - i < BLOCK_PAGES;
        piece.is_part = flags[i] & KPF_COMPOUND_TAIL || may_go_on;
        err = look_at_piece(poll, &piece);
    }
    return err;
}

static int poll_block(struct poll *poll, uint64_t address)
{
    uint64_t map[BLOCK_PAGES];
    int err = read_words(poll->idle->pagemap, address >> PAGE_SHIFT, map, BLOCK_PAGES);
    for (unsigned i = 0, end; i < BLOCK_PAGES && !err; i = end) {
        uint64_t first = map[i] & FRAME_MASK;
        end = i + 1;
        if (!(map[i] & PRESENT)) {
            note_set(poll->idle, poll->page + i, false);
            continue;
        }
        while (end < BLOCK_PAGES && map[end] & PRESENT && (map[end] & FRAME_MASK) == first + (end - i))
            end++;
        err = look_at_run(poll, i, end - i, first);
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
    struct poll poll = {.idle = idle, .report = report, .report_ctx = report_ctx};
    uint64_t start_ms = cpu_ms();
    folio_set_clear(&idle->looked_at);
    for (unsigned i = 0; i < idle->nr; i++) {
        const struct access_range *range = &idle->ranges[i];
        poll.vm = range->vm;
        for (uint64_t at = 0; at < range->bytes; at += BLOCK_BYTES, poll.page += BLOCK_PAGES) {
            poll.gfn = gfn_of((gpa_t){range->gpa.v + at});
            int err = poll_block(&poll, range->start + at);
            if (err)
                return err;
        }
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
    folio_set_fini(&idle->looked_at);
    free(idle->ranges);
    free(idle->set);
    free(idle);
}

const struct access_source *access_page_idle_source(const struct access_page_idle *idle)
{
    return &idle->source;
}
