/* SPDX-License-Identifier: Apache-2.0 */
/* A guest whose every access is known, beside what mm/policy/access makes of it. The clock is the fake host's. */
#ifndef TESTS_UNIT_ACCESS_RIG_H
#define TESTS_UNIT_ACCESS_RIG_H

#include "mm/policy/access.h"
#include "tests/unit/mm_rig.h"
#include "tests/unit/model_rng.h"

#define MS UINT64_C(1000000)
#define SECOND (1000 * MS)

struct access_rig {
    struct mm_rig *rig;
    struct rng rng;
    uint64_t *last_ns; /* by gfn: the last access; 0: none */
    uint64_t next_scan_ns;
    bool unchecked; /* no mm_check after each step */
};

static inline uint64_t access_now(const struct access_rig *a)
{
    return a->rig->host->ops->clock_ns(a->rig->host->ops_ctx);
}

static inline struct access_rig *access_rig_create(const struct mm_config *config, uint64_t vm_bytes)
{
    struct access_rig *a = calloc(1, sizeof(*a));
    a->rig = mm_rig_create(config, vm_bytes, 2);
    a->rng.state = 12345;
    a->last_ns = calloc(a->rig->nr_pages, sizeof(*a->last_ns));
    fake_host_advance_ns(a->rig->fh, 1000 * SECOND);
    return a;
}

static inline void access_rig_destroy(struct access_rig *a)
{
    mm_rig_destroy(a->rig);
    free(a->last_ns);
    free(a);
}

static inline void access_touch_page(struct access_rig *a, gfn_t gfn)
{
    rig_assert(!mm_rig_touch(a->rig, 0, gfn), "page %u refused", gfn);
    a->last_ns[gfn] = access_now(a);
}

static inline void access_touch_pages(struct access_rig *a, gfn_t start, gfn_t end)
{
    for (gfn_t gfn = start; gfn < end; gfn++)
        access_touch_page(a, gfn);
}

/* Time passes, and the scanner does what is due. */
static inline void access_pass(struct access_rig *a, uint64_t ns)
{
    fake_host_advance_ns(a->rig->fh, ns);
    if (access_now(a) < a->next_scan_ns)
        return;
    unsigned ms = access_scan(a->rig->thread[1]);
    ck_assert_uint_ge(ms, 1);
    ck_assert_uint_le(ms, 10000);
    a->next_scan_ns = access_now(a) + ms * MS;
    if (!a->unchecked)
        mm_rig_check(a->rig);
}

static inline struct access_idle access_look(const struct access_rig *a)
{
    struct access_idle idle;
    access_idle(a->rig->vm, &idle);
    return idle;
}

/* The truth, in units of @pages pages: bytes of units of which a page was touched within @ns, or, @idle, not. */
static inline uint64_t access_truth(const struct access_rig *a, uint32_t pages, uint64_t ns, bool idle)
{
    uint64_t bytes = 0, now_ns = access_now(a);
    for (gfn_t gfn = 0; gfn < a->rig->nr_pages; gfn += pages) {
        uint64_t last_ns = 0;
        for (gfn_t i = gfn; i < gfn + pages; i++)
            last_ns = MAX_OF(last_ns, a->last_ns[i]);
        bytes += last_ns && (now_ns - last_ns >= ns) == idle ? pages * PAGE_BYTES : 0;
    }
    return bytes;
}

#define ck_assert_within(got, want, pct)                                                                               \
    do {                                                                                                               \
        double got_ = (double)(got), want_ = (double)(want);                                                           \
        ck_assert_msg(got_ >= want_ * (100 - (pct)) / 100 && got_ <= want_ * (100 + (pct)) / 100,                      \
                      "%s is %.0f, not within %d%% of %.0f", #got, got_, (pct), want_);                                \
    } while (0)

#endif
