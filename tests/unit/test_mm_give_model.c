/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random operations on memory that its guest gives up, takes back, pins and plugs, under pressure, beside a naive model:
 * what each page holds, whether it is in the balloon, plugged, pinned. mm_check after every step.
 */
#include "mm/mm.h"
#include "tests/fake/fake_host.h"
#include "tests/fake/fake_swap.h"
#include "tests/unit/model_rng.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MIB (UINT64_C(1) << 20)
#define NR_PAGES 6144u /* of guest addresses; a hole between the regions */
#define MAX_PINS 6u

static const struct mm_region regions[2] = {{.start = {0}, .bytes = 8 * MIB},
                                            {.start = {12 * MIB}, .bytes = 12 * MIB, .unplugged = true}};

struct page {
    uint32_t generation; /* 0: not written since it was given up or plugged; it then reads as word, repeated */
    uint32_t word;
    bool balloon;
    bool plugged;
};

struct world {
    struct fake_host *fh;
    struct mm_host *host;
    struct mm_thread *thread;
    struct mm_vm *vm;
    vmid_t id;
    struct rng rng;
    struct page page[NR_PAGES];
    struct {
        uint64_t gpa, bytes; /* bytes 0: unused */
    } pin[MAX_PINS];
    uint32_t next_generation;
    bool swap;
};

static uint32_t below(struct world *w, uint32_t n)
{
    return rng_below(&w->rng, n);
}

static void make_page(const struct world *w, gfn_t gfn, uint32_t *words)
{
    const struct page *page = &w->page[gfn];
    uint32_t x = page->generation * 2654435761u + gfn;
    for (unsigned i = 0; i < PAGE_BYTES / 4; i++) {
        words[i] = page->word;
        if (!page->generation)
            continue;
        /* every other page is hard to compress */
        if (gfn % 2 || i % 8 == 0)
            x = x * 1664525u + 1013904223u;
        words[i] = x;
    }
}

static bool is_pinned(const struct world *w, gfn_t gfn)
{
    for (unsigned i = 0; i < MAX_PINS; i++)
        if (w->pin[i].bytes && gfn >> BLOCK_ORDER >= w->pin[i].gpa >> BLOCK_SHIFT &&
            gfn >> BLOCK_ORDER <= (w->pin[i].gpa + w->pin[i].bytes - 1) >> BLOCK_SHIFT)
            return true;
    return false;
}

static bool in_region(gfn_t gfn)
{
    return gfn < 2048 || (gfn >= 3072 && gfn < NR_PAGES);
}

/* ---- the model against mm ---- */

static void check_pins(struct world *w)
{
    for (unsigned i = 0; i < MAX_PINS; i++)
        for (uint64_t at = w->pin[i].gpa & ~(PAGE_BYTES - 1); w->pin[i].bytes && at < w->pin[i].gpa + w->pin[i].bytes;
             at += PAGE_BYTES)
            ck_assert(fake_host_is_present(w->fh, w->id, (gfn_t)(at >> PAGE_SHIFT)));
}

static void check(struct world *w)
{
    const char *why = NULL;
    struct mm_vm_stat stat;
    uint64_t balloon = 0, plugged = 0;
    ck_assert_msg(mm_check(w->host, &why), "%s", why);
    ck_assert_msg(!fake_host_breach(w->fh), "%s", fake_host_breach(w->fh));
    check_pins(w);
    for (gfn_t gfn = 0; gfn < NR_PAGES; gfn++) {
        balloon += w->page[gfn].balloon;
        plugged += w->page[gfn].plugged;
    }
    mm_vm_stat(w->vm, &stat);
    ck_assert_uint_eq(stat.balloon_bytes, balloon * PAGE_BYTES);
    ck_assert_uint_eq(stat.memory_bytes, plugged * PAGE_BYTES);
    ck_assert_uint_eq(stat.resident_bytes + stat.standby_bytes + stat.zram_bytes + stat.swap_bytes +
                          stat.untouched_bytes + stat.balloon_bytes + stat.poisoned_bytes,
                      stat.memory_bytes);
}

/* ---- the guest ---- */

static int touch(struct world *w, gfn_t gfn)
{
    for (unsigned tries = 0; !fake_host_is_present(w->fh, w->id, gfn); tries++) {
        int err = mm_fault(w->thread, w->vm, gpa_of(gfn), MM_FAULT_WRITE);
        ck_assert_int_eq(err == -EFAULT, !w->page[gfn].plugged);
        ck_assert_uint_lt(tries, 4);
        if (err)
            return err;
    }
    w->page[gfn].balloon = false;
    return 0;
}

static void access_page(struct world *w, gfn_t gfn, bool write)
{
    uint32_t want[PAGE_BYTES / 4], got[PAGE_BYTES / 4];
    int err = touch(w, gfn);
    if (err) {
        ck_assert(!w->page[gfn].plugged || fake_host_failed(w->fh) || err == -ENOMEM);
        return;
    }
    make_page(w, gfn, want);
    ck_assert_int_eq(fake_host_guest_read(w->fh, w->id, gfn, 0, got, (uint32_t)PAGE_BYTES), 0);
    ck_assert_msg(!memcmp(want, got, PAGE_BYTES), "page %u: %#x, not %#x", gfn, got[9], want[9]);
    if (!write)
        return;
    w->page[gfn].generation = ++w->next_generation;
    make_page(w, gfn, want);
    ck_assert_int_eq(fake_host_guest_write(w->fh, w->id, gfn, 0, want, (uint32_t)PAGE_BYTES), 0);
}

/* ---- ranges ---- */

struct range {
    gfn_t start;
    uint32_t nr;
};

/* Single pages, whole blocks, anything; inside one region. */
static struct range random_range(struct world *w)
{
    gfn_t first = below(w, 2) ? 0 : 3072, end = first ? NR_PAGES : 2048;
    struct range range = {.start = first + below(w, end - first), .nr = 1};
    uint32_t most = end - range.start;
    switch (below(w, 4)) {
    case 0:
        break;
    case 1:
        range.start &= ~(BLOCK_PAGES - 1);
        range.nr = BLOCK_PAGES * (1 + below(w, 2));
        most = end - range.start;
        break;
    case 2:
        range.nr = 1 + below(w, 64);
        break;
    default:
        range.nr = 1 + below(w, 1200);
    }
    range.nr = MIN_OF(range.nr, most);
    return range;
}

static const char *state_of(struct world *w, gfn_t gfn)
{
    struct mm_page_info info;
    ck_assert_int_eq(mm_page_info(w->vm, gpa_of(gfn), &info), 0);
    return info.state;
}

static void step_drop(struct world *w)
{
    static const uint32_t words[] = {0, 0, 0xaaaaaaaau, 1};
    struct range range = random_range(w);
    enum mm_drop_how how = below(w, 2) ? MM_DROP_BALLOON : MM_DROP_FREE;
    uint32_t word = words[below(w, ARRAY_LEN(words))];
    const char *what = how == MM_DROP_BALLOON ? "balloon" : word ? "fill" : "absent";
    uint64_t dropped, expected = 0;
    for (gfn_t gfn = range.start; gfn < range.start + range.nr; gfn++) {
        struct page *page = &w->page[gfn];
        if (!page->plugged || is_pinned(w, gfn))
            continue;
        expected += strcmp(state_of(w, gfn), what) || page->word != word;
        *page = (struct page){.word = word, .balloon = how == MM_DROP_BALLOON, .plugged = true};
    }
    ck_assert_int_eq(mm_drop(w->thread, w->vm, gpa_of(range.start), range.nr * PAGE_BYTES, how, word, &dropped), 0);
    ck_assert_uint_eq(dropped, expected);
}

static void step_return(struct world *w)
{
    struct range range = random_range(w);
    ck_assert_int_eq(mm_balloon_return(w->vm, gpa_of(range.start), range.nr * PAGE_BYTES), 0);
    for (gfn_t gfn = range.start; gfn < range.start + range.nr; gfn++)
        w->page[gfn].balloon = false;
}

static void step_plug(struct world *w)
{
    bool plugged = below(w, 3) > 0, busy = false;
    gfn_t start = 3072 + below(w, 6) * BLOCK_PAGES;
    uint32_t nr = (1 + below(w, 3)) * BLOCK_PAGES;
    nr = MIN_OF(nr, NR_PAGES - start);
    for (gfn_t gfn = start; gfn < start + nr; gfn++)
        busy |= !plugged && is_pinned(w, gfn);
    int err = mm_plug(w->thread, w->vm, gpa_of(start), nr * PAGE_BYTES, plugged);
    ck_assert_int_eq(err, busy ? -EBUSY : 0);
    for (gfn_t gfn = start; gfn < start + nr && !err; gfn++)
        if (w->page[gfn].plugged != plugged)
            w->page[gfn] = (struct page){.plugged = plugged};
}

static void step_pin(struct world *w)
{
    unsigned i = below(w, MAX_PINS);
    if (w->pin[i].bytes) {
        mm_unpin(w->vm, (gpa_t){w->pin[i].gpa}, w->pin[i].bytes);
        w->pin[i].bytes = 0;
        return;
    }
    struct range range = random_range(w);
    uint64_t gpa = range.start * PAGE_BYTES + below(w, 4096), bytes = 1 + below(w, 100) * (uint64_t)below(w, 9000);
    bool plugged = true;
    gfn_t end = (gfn_t)((gpa + bytes - 1) >> PAGE_SHIFT) + 1;
    if (!in_region(end - 1) || (range.start < 2048) != (end - 1 < 2048)) {
        ck_assert_int_eq(mm_pin(w->thread, w->vm, (gpa_t){gpa}, bytes), -EFAULT);
        return;
    }
    for (gfn_t gfn = range.start; gfn < end; gfn++)
        plugged &= w->page[gfn].plugged;
    int err = mm_pin(w->thread, w->vm, (gpa_t){gpa}, bytes);
    ck_assert(plugged || err);
    ck_assert(!err || !plugged || err == -ENOMEM || fake_host_failed(w->fh));
    for (gfn_t gfn = range.start; gfn < end; gfn++)
        w->page[gfn].balloon &= !fake_host_is_present(w->fh, w->id, gfn);
    if (!err) {
        w->pin[i].gpa = gpa;
        w->pin[i].bytes = bytes;
    }
}

static void step_swap(struct world *w)
{
    if (w->swap)
        w->swap = mm_swapoff(w->thread, "disk") != 0;
    else
        w->swap = swap_area_add(mm_swap_set(w->host), "disk", "file", 16384, -1, &fake_swap_backend,
                                fake_swap_create(16384)) >= 0;
}

static void step_access(struct world *w)
{
    gfn_t gfn = below(w, NR_PAGES);
    for (unsigned n = below(w, 40); n > 0 && gfn < NR_PAGES; n--, gfn++)
        if (in_region(gfn))
            access_page(w, gfn, below(w, 2));
}

static void step(struct world *w)
{
    switch (below(w, 40)) {
    case 0:
        mm_kswapd(w->thread, 0);
        break;
    case 1:
        mm_housekeep(w->thread);
        break;
    case 2:
    case 3:
        mm_reclaim(w->thread, below(w, 2) ? w->vm : NULL, below(w, 900), below(w, 2));
        break;
    case 4:
        if (below(w, 8) == 0)
            step_swap(w);
        break;
    case 5:
    case 6:
    case 7:
        step_drop(w);
        break;
    case 8:
    case 9:
        step_return(w);
        break;
    case 10:
        step_plug(w);
        break;
    case 11:
    case 12:
    case 13:
        step_pin(w);
        break;
    default:
        step_access(w);
    }
}

/* ---- runs ---- */

static struct world *world_create(const struct mm_config *config, uint64_t seed)
{
    struct world *w = calloc(1, sizeof(*w));
    w->rng.state = seed;
    w->fh = fake_host_create(mm_arena_slots(config));
    fake_host_set_budget(w->fh, (uint32_t)(config->budget_bytes / PAGE_BYTES));
    ck_assert_int_eq(mm_host_create(config, fake_host_ops(w->fh), w->fh, fake_host_arena(w->fh), &w->host), 0);
    ck_assert_int_eq(mm_thread_create(w->host, &w->thread), 0);
    ck_assert_int_eq(mm_vm_create(w->host, regions, 2, &w->vm), 0);
    w->id = mm_vm_id(w->vm);
    fake_host_add_vm(w->fh, w->id, NR_PAGES);
    for (gfn_t gfn = 0; gfn < 2048; gfn++)
        w->page[gfn].plugged = true;
    step_swap(w);
    return w;
}

static void world_destroy(struct world *w)
{
    struct fake_host_stat fake;
    struct mm_host_stat stat;
    for (unsigned i = 0; i < MAX_PINS; i++)
        mm_unpin(w->vm, (gpa_t){w->pin[i].gpa}, w->pin[i].bytes);
    mm_vm_destroy(w->thread, w->vm);
    fake_host_remove_vm(w->fh, w->id);
    mm_thread_destroy(w->thread);
    mm_host_stat(w->host, &stat);
    ck_assert_uint_eq(stat.free_bytes, stat.budget_bytes);
    mm_host_destroy(w->host);
    fake_host_stat(w->fh, &fake);
    ck_assert_uint_eq(fake.physical_pages, 0);
    ck_assert_msg(!fake_host_breach(w->fh), "%s", fake_host_breach(w->fh));
    fake_host_destroy(w->fh);
    free(w);
}

static void run(const struct mm_config *config, uint64_t seed, unsigned steps, bool failures)
{
    struct world *w = world_create(config, seed);
    for (unsigned i = 0; i < steps; i++) {
        if (failures && i % 3 == 0)
            fake_host_fail(w->fh, &(struct fake_failure){.op = (enum fake_op)below(w, FAKE_NR_OPS + 1),
                                                         .nth = 1 + (long)below(w, 8),
                                                         .err = ENOMEM,
                                                         .after_pages = below(w, 600)});
        step(w);
        check(w);
    }
    fake_host_fail(w->fh, &(struct fake_failure){.op = FAKE_ANY, .nth = -1, .err = EIO});
    if (!w->swap)
        step_swap(w);
    for (gfn_t gfn = 0; gfn < NR_PAGES; gfn++)
        if (in_region(gfn))
            access_page(w, gfn, false);
    check(w);
    world_destroy(w);
}

static const struct mm_config small = {.budget_bytes = 10 * MIB, .zram = {.limit_bytes = 3 * MIB}, .thp = true};
static const struct mm_config plain = {.budget_bytes = 10 * MIB, .zram = {.limit_bytes = 3 * MIB}};
/* All fits: most blocks are and stay whole. */
static const struct mm_config roomy = {.budget_bytes = 40 * MIB, .zram = {.limit_bytes = 3 * MIB}, .thp = true};

START_TEST(test_mm_model_given_memory_under_pressure_is_right)
{
    run(&small, (uint64_t)_i + 1, 1500, false);
}
END_TEST

START_TEST(test_mm_model_given_memory_with_room_is_right)
{
    run(&roomy, (uint64_t)_i + 50, 1500, false);
}
END_TEST

START_TEST(test_mm_model_given_memory_with_failing_host_is_right)
{
    run(_i % 2 ? &small : &roomy, (uint64_t)_i + 100, 1500, true);
}
END_TEST

START_TEST(test_mm_model_given_memory_without_thp_is_right)
{
    run(&plain, (uint64_t)_i + 200, 1500, true);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("mm_give_model");
    TCase *model = tcase_create("model");
    tcase_set_timeout(model, 300);
    tcase_add_loop_test(model, test_mm_model_given_memory_under_pressure_is_right, 0, 3);
    tcase_add_loop_test(model, test_mm_model_given_memory_with_room_is_right, 0, 3);
    tcase_add_loop_test(model, test_mm_model_given_memory_with_failing_host_is_right, 0, 4);
    tcase_add_loop_test(model, test_mm_model_given_memory_without_thp_is_right, 0, 2);
    suite_add_tcase(suite, model);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
