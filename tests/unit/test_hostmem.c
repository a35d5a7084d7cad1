/* SPDX-License-Identifier: Apache-2.0 */
/* Every host operation over the real kernel, both transports: exact residency and contents after each step. */
#include <errno.h>
#include <liburing.h>
#include <string.h>
#include <sys/mman.h>

#include "tests/fake/fail_alloc.h"
#include "tests/unit/hostmem_fixture.h"
#include "tests/unit/model_rng.h"

START_TEST(test_hostmem_populate_block_fills_that_block)
{
    struct fix fix;
    fix_open(&fix, _i);
    ck_assert_int_eq(fix.ops->populate(fix.hm, BLOCK_PAGES, BLOCK_PAGES), 0);
    fix_expect_slots(&fix, BLOCK_PAGES, 2 * BLOCK_PAGES);
    for (fn_t fn = BLOCK_PAGES; fn < 2 * BLOCK_PAGES; fn++)
        ck_assert(fix_holds(fix_slot(&fix, fn), 0));
    fix.ops->release(fix.hm, BLOCK_PAGES, BLOCK_PAGES);
    fix_expect_slots(&fix, 0, 0);
    fix_close(&fix);
}
END_TEST

START_TEST(test_hostmem_populate_one_slot_of_an_empty_block_fills_one)
{
    struct fix fix;
    fix_open(&fix, _i);
    ck_assert_int_eq(fix.ops->populate(fix.hm, 700, 1), 0);
    fix_expect_slots(&fix, 700, 701);
    ck_assert(fix_holds(fix_slot(&fix, 700), 0));
    fix.ops->release(fix.hm, 700, 1);
    fix_expect_slots(&fix, 0, 0);
    fix_close(&fix);
}
END_TEST

START_TEST(test_hostmem_populate_run_across_blocks_fills_the_run)
{
    static const struct {
        fn_t fn;
        uint32_t nr;
    } runs[] = {{500, 24}, {511, 2}, {1, 511}, {0, 511}, {300, 1000}, {512, 1025}, {FIX_SLOTS - 1, 1}};
    struct fix fix;
    fix_open(&fix, _i);
    for (unsigned i = 0; i < ARRAY_LEN(runs); i++) {
        ck_assert_int_eq(fix.ops->populate(fix.hm, runs[i].fn, runs[i].nr), 0);
        fix_expect_slots(&fix, runs[i].fn, runs[i].fn + runs[i].nr);
        fix.ops->release(fix.hm, runs[i].fn, runs[i].nr);
        fix_expect_slots(&fix, 0, 0);
    }
    fix_close(&fix);
}
END_TEST

START_TEST(test_hostmem_populate_of_a_reused_block_is_zero_again)
{
    struct fix fix;
    fix_open(&fix, _i);
    fix_fill(&fix, 0, BLOCK_PAGES, 1000);
    fix.ops->release(fix.hm, 0, BLOCK_PAGES);
    ck_assert_int_eq(fix.ops->populate(fix.hm, 5, 3), 0);
    ck_assert(fix_holds(fix_slot(&fix, 6), 0));
    fix.ops->release(fix.hm, 5, 3);
    ck_assert_int_eq(fix.ops->populate(fix.hm, 0, BLOCK_PAGES), 0);
    fix_expect_slots(&fix, 0, BLOCK_PAGES);
    ck_assert(fix_holds(fix_slot(&fix, 6), 0));
    fix_close(&fix);
}
END_TEST

START_TEST(test_hostmem_populate_over_a_filled_slot_fails)
{
    struct fix fix;
    fix_open(&fix, _i);
    ck_assert_int_eq(fix.ops->populate(fix.hm, 130, 1), 0);
    ck_assert_int_eq(fix.ops->populate(fix.hm, 0, 200), -ENOMEM);
    fix_close(&fix);
}
END_TEST

/* Slots of which place leaves some behind; sizes and alignments that take every path. */
static const struct {
    fn_t fn;
    gfn_t gfn;
    uint32_t nr;
} trips[] = {
    {0, 0, 1},
    {0, 0, BLOCK_PAGES},
    {BLOCK_PAGES, 3 * BLOCK_PAGES, BLOCK_PAGES},
    {17, 900, 64},
    {510, 510, 5},
    {510, 3, 600},
    {0, 0, 3 * BLOCK_PAGES},
    {100, FIX_HIGH_GFN, 1},
    {0, FIX_HIGH_GFN + BLOCK_PAGES, BLOCK_PAGES},
    {FIX_SLOTS - 1, FIX_HIGH_GFN + FIX_HIGH_BLOCKS *BLOCK_PAGES - 1, 1},
};

START_TEST(test_hostmem_place_and_take_bring_the_pages_there_and_back)
{
    struct fix fix;
    fix_open(&fix, _i);
    for (unsigned t = 0; t < ARRAY_LEN(trips); t++) {
        fn_t fn = trips[t].fn;
        gfn_t gfn = trips[t].gfn;
        uint32_t nr = trips[t].nr, done = 99;
        fix_fill(&fix, fn, nr, 5000);
        ck_assert_int_eq(fix.ops->place(fix.hm, FIX_VM, gfn, fn, nr, &done), 0);
        ck_assert_uint_eq(done, nr);
        fix_expect_slots(&fix, 0, 0);
        for (uint32_t i = 0; i < nr; i++) {
            ck_assert(fix_holds(fix_guest(&fix, gfn + i), 5000 + i));
            fix_write(fix_guest(&fix, gfn + i), 9000 + i);
        }
        ck_assert_uint_eq(guest_range_resident_bytes(&fix.vm->range), nr * PAGE_BYTES);
        done = 99;
        ck_assert_int_eq(fix.ops->take(fix.hm, FIX_VM, gfn, fn, nr, &done), 0);
        ck_assert_uint_eq(done, nr);
        fix_expect_slots(&fix, fn, fn + nr);
        for (uint32_t i = 0; i < nr; i++)
            ck_assert(fix_holds(fix_slot(&fix, fn + i), 9000 + i));
        ck_assert_uint_eq(guest_range_resident_bytes(&fix.vm->range), 0);
        fix.ops->release(fix.hm, fn, nr);
    }
    fix_close(&fix);
}
END_TEST

START_TEST(test_hostmem_take_skips_holes)
{
    struct fix fix;
    fix_open(&fix, _i);
    struct rng rng = {.state = 42};
    bool there[BLOCK_PAGES], home[BLOCK_PAGES];
    uint32_t done;
    char *page = calloc(1, PAGE_BYTES);
    for (uint32_t i = 0; i < BLOCK_PAGES; i++) {
        there[i] = rng_below(&rng, 3) > 0 && i != 0 && (i < 200 || i >= 300);
        fix_write(page, 100 + i);
        if (there[i])
            ck_assert_int_eq(fix.ops->place_copy(fix.hm, FIX_VM, BLOCK_PAGES + i, page, 1, 0, &done), 0);
    }
    ck_assert_int_eq(fix.ops->take(fix.hm, FIX_VM, BLOCK_PAGES, 0, BLOCK_PAGES, &done), 0);
    ck_assert_uint_eq(done, BLOCK_PAGES);
    fix_look(&fix, fix_slot(&fix, 0), BLOCK_PAGES, home);
    for (uint32_t i = 0; i < BLOCK_PAGES; i++) {
        ck_assert_int_eq(home[i], there[i]);
        ck_assert(!there[i] || fix_holds(fix_slot(&fix, i), 100 + i));
    }
    ck_assert_uint_eq(guest_range_resident_bytes(&fix.vm->range), 0);
    /* a range of nothing but holes, with and without a page table */
    ck_assert_int_eq(fix.ops->take(fix.hm, FIX_VM, BLOCK_PAGES, 2 * BLOCK_PAGES, BLOCK_PAGES, &done), 0);
    ck_assert_int_eq(fix.ops->take(fix.hm, FIX_VM, 3 * BLOCK_PAGES, 2 * BLOCK_PAGES, BLOCK_PAGES, &done), 0);
    ck_assert_uint_eq(done, BLOCK_PAGES);
    free(page);
    fix_close(&fix);
}
END_TEST

START_TEST(test_hostmem_place_over_a_present_page_stops_there)
{
    struct fix fix;
    fix_open(&fix, _i);
    uint32_t done;
    fix_fill(&fix, 0, 201, 1);
    ck_assert_int_eq(fix.ops->place(fix.hm, FIX_VM, 300, 200, 1, &done), 0);
    ck_assert_int_eq(fix.ops->place(fix.hm, FIX_VM, 200, 0, 200, &done), -EEXIST);
    ck_assert_uint_eq(done, 100);
    fix_expect_slots(&fix, 100, 200);
    fix_expect_guest(&fix, 200, 301);
    ck_assert(fix_holds(fix_guest(&fix, 299), 100));
    ck_assert(fix_holds(fix_guest(&fix, 300), 201));
    ck_assert(fix_holds(fix_slot(&fix, 100), 101));
    fix_close(&fix);
}
END_TEST

START_TEST(test_hostmem_place_copy_over_a_present_page_stops_there)
{
    struct fix fix;
    fix_open(&fix, _i);
    uint32_t done;
    char *pages = calloc(64, PAGE_BYTES);
    fix_write(pages, 77);
    fix_write(pages + 9 * PAGE_BYTES, 79);
    ck_assert_int_eq(fix.ops->place_copy(fix.hm, FIX_VM, 20, pages, 1, 0, &done), 0);
    ck_assert_int_eq(fix.ops->place_copy(fix.hm, FIX_VM, 10, pages, 64, 0, &done), -EEXIST);
    ck_assert_uint_eq(done, 10);
    fix_expect_guest(&fix, 10, 21);
    ck_assert(fix_holds(fix_guest(&fix, 10), 77));
    ck_assert(fix_holds(fix_guest(&fix, 19), 79));
    ck_assert(fix_holds(fix_guest(&fix, 20), 77));
    free(pages);
    fix_close(&fix);
}
END_TEST

START_TEST(test_hostmem_take_into_a_filled_slot_leaves_the_rest_writable)
{
    struct fix fix;
    fix_open(&fix, _i);
    uint32_t done;
    fix_fill(&fix, 0, 201, 1);
    ck_assert_int_eq(fix.ops->place(fix.hm, FIX_VM, 0, 0, 200, &done), 0);
    /* slot 200 is filled: 110 of 200 pages fit below it */
    ck_assert_int_eq(fix.ops->take(fix.hm, FIX_VM, 0, 90, 200, &done), -EEXIST);
    ck_assert_uint_eq(done, 110);
    fix_expect_slots(&fix, 90, 201);
    fix_expect_guest(&fix, 110, 200);
    for (gfn_t gfn = 110; gfn < 200; gfn++) {
        ck_assert(fix_holds(fix_guest(&fix, gfn), gfn + 1));
        fix_write(fix_guest(&fix, gfn), 3); /* nobody serves faults: a protected page would hang the test */
    }
    fix_close(&fix);
}
END_TEST

/* As Linux 6.18 leaves it when an attempt inside a call of its own has to begin again. */
START_TEST(test_hostmem_pages_that_the_kernel_moved_but_did_not_count_are_counted)
{
    struct fix fix;
    fix_open(&fix, FIX_MOVE);
    uint32_t done;
    uint64_t bytes;
    fix_fill(&fix, 0, 200, 1);
    ck_assert_int_eq(uffd_move(fix.vm->uffd, fix_guest(&fix, 0), fix_slot(&fix, 0), 70 * PAGE_BYTES, false, &bytes), 0);
    ck_assert_int_eq(fix.ops->place(fix.hm, FIX_VM, 0, 0, 200, &done), 0);
    ck_assert_uint_eq(done, 200);
    fix_expect_slots(&fix, 0, 0);
    fix_expect_guest(&fix, 0, 200);
    ck_assert_int_eq(uffd_move(fix.hm->uffd, fix_slot(&fix, 300), fix_guest(&fix, 0), 64 * PAGE_BYTES, false, &bytes),
                     0);
    ck_assert_int_eq(fix.ops->take(fix.hm, FIX_VM, 0, 300, 200, &done), 0);
    ck_assert_uint_eq(done, 200);
    fix_expect_slots(&fix, 300, 500);
    fix_expect_guest(&fix, 0, 0);
    for (fn_t fn = 300; fn < 500; fn++)
        ck_assert(fix_holds(fix_slot(&fix, fn), fn - 299));
    fix_close(&fix);
}
END_TEST

START_TEST(test_hostmem_drop_makes_pages_absent)
{
    struct fix fix;
    fix_open(&fix, _i);
    uint32_t done;
    fix_fill(&fix, 0, 2 * BLOCK_PAGES, 1);
    ck_assert_int_eq(fix.ops->place(fix.hm, FIX_VM, 0, 0, BLOCK_PAGES, &done), 0);
    fix.ops->drop(fix.hm, FIX_VM, 100, 3000 % BLOCK_PAGES);
    fix.ops->drop(fix.hm, FIX_VM, 0, 10);
    fix.ops->drop(fix.hm, FIX_VM, 0, 50);
    fix_expect_guest(&fix, 50, 100);
    fix.ops->drop(fix.hm, FIX_VM, 0, FIX_LOW_BLOCKS * BLOCK_PAGES);
    fix_expect_guest(&fix, 0, 0);
    ck_assert_int_eq(fix.ops->place(fix.hm, FIX_VM, 0, BLOCK_PAGES, BLOCK_PAGES, &done), 0);
    ck_assert(fix_holds(fix_guest(&fix, 5), BLOCK_PAGES + 6));
    fix_close(&fix);
}
END_TEST

/* A pin, as swap I/O or a device has it: the kernel will not move the page. */
static void pin(struct io_uring *ring, char *page)
{
    struct iovec buffer = {page, PAGE_BYTES};
    ck_assert_int_eq(io_uring_queue_init(2, ring, 0), 0);
    ck_assert_int_eq(io_uring_register_buffers(ring, &buffer, 1), 0);
}

START_TEST(test_hostmem_place_of_a_pinned_slot_copies_it)
{
    struct fix fix;
    struct io_uring ring;
    fix_open(&fix, _i);
    uint32_t done;
    fix_fill(&fix, 0, 20, 1);
    pin(&ring, fix_slot(&fix, 7));
    ck_assert_int_eq(fix.ops->place(fix.hm, FIX_VM, 40, 0, 20, &done), 0);
    ck_assert_uint_eq(done, 20);
    fix_expect_slots(&fix, 0, 0);
    fix_expect_guest(&fix, 40, 60);
    for (uint32_t i = 0; i < 20; i++)
        ck_assert(fix_holds(fix_guest(&fix, 40 + i), 1 + i));
    io_uring_queue_exit(&ring);
    fix_close(&fix);
}
END_TEST

START_TEST(test_hostmem_take_of_a_pinned_page_says_busy)
{
    struct fix fix;
    struct io_uring ring;
    fix_open(&fix, FIX_MOVE);
    uint32_t done;
    fix_fill(&fix, 0, 20, 1);
    ck_assert_int_eq(fix.ops->place(fix.hm, FIX_VM, 40, 0, 20, &done), 0);
    pin(&ring, fix_guest(&fix, 47));
    ck_assert_int_eq(fix.ops->take(fix.hm, FIX_VM, 40, 0, 20, &done), -EBUSY);
    ck_assert_uint_eq(done, 7);
    fix_expect_slots(&fix, 0, 7);
    fix_expect_guest(&fix, 47, 60);
    ck_assert_int_eq(io_uring_unregister_buffers(&ring), 0);
    ck_assert_int_eq(fix.ops->take(fix.hm, FIX_VM, 47, 7, 13, &done), 0);
    fix_expect_slots(&fix, 0, 20);
    io_uring_queue_exit(&ring);
    fix_close(&fix);
}
END_TEST

START_TEST(test_hostmem_released_vm_keeps_nothing)
{
    struct fix fix;
    fix_open(&fix, _i);
    uint32_t done;
    fix_fill(&fix, 0, 10, 1);
    ck_assert_int_eq(fix.ops->place(fix.hm, FIX_VM, 0, 0, 2, &done), 0);
    hostmem_vm_release(fix.vm);
    ck_assert_int_eq(fix.ops->take(fix.hm, FIX_VM, 0, 0, 2, &done), -EBUSY);
    ck_assert_uint_eq(done, 0);
    hostmem_vm_answer(fix.vm, gpa_of(3));
    hostmem_vm_answer(fix.vm, gpa_of(3));
    ck_assert(fix_holds(fix_guest(&fix, 3), 0));
    ck_assert_int_eq(fix.ops->place(fix.hm, FIX_VM, 2, 2, 8, &done), 0);
    ck_assert_uint_eq(done, 8);
    fix_expect_slots(&fix, 0, 0);
    fix.ops->drop(fix.hm, FIX_VM, 0, 10);
    fix_expect_guest(&fix, 0, 0);
    fix_close(&fix);
}
END_TEST

/* --- model --- */

#define MODEL_GUEST (FIX_LOW_BLOCKS * BLOCK_PAGES)

struct model {
    struct fix fix;
    struct rng rng;
    uint64_t next;
    /* content + 1 by page; 0: empty, absent */
    uint64_t slot[FIX_SLOTS], guest[MODEL_GUEST];
    char *buffer;
};

static bool all(const uint64_t *pages, uint32_t nr, bool filled)
{
    for (uint32_t i = 0; i < nr; i++)
        if ((pages[i] != 0) != filled)
            return false;
    return true;
}

/* Every page is where the model has it, with the content that it has there. */
static void compare(const struct fix *fix, const char *base, const uint64_t *pages, uint32_t nr)
{
    bool *present = calloc(nr, sizeof(*present));
    fix_look(fix, base, nr, present);
    for (uint32_t i = 0; i < nr; i++) {
        if (present[i] != (pages[i] != 0))
            ck_abort_msg("page %u is %s", i, present[i] ? "present" : "absent");
        if (present[i] && !fix_holds(base + i * PAGE_BYTES, pages[i] - 1))
            ck_abort_msg("page %u has another content", i);
    }
    free(present);
}

static void model_check(const struct model *m)
{
    compare(&m->fix, fix_slot(&m->fix, 0), m->slot, FIX_SLOTS);
    compare(&m->fix, fix_guest(&m->fix, 0), m->guest, MODEL_GUEST);
}

static void model_populate(struct model *m, fn_t fn, uint32_t nr)
{
    if (!all(m->slot + fn, nr, false))
        return;
    ck_assert_int_eq(m->fix.ops->populate(m->fix.hm, fn, nr), 0);
    for (uint32_t i = 0; i < nr; i++) {
        m->slot[fn + i] = ++m->next;
        fix_write(fix_slot(&m->fix, fn + i), m->next - 1);
    }
}

static void model_place(struct model *m, fn_t fn, gfn_t gfn, uint32_t nr)
{
    uint32_t done = 0;
    if (!all(m->slot + fn, nr, true) || !all(m->guest + gfn, nr, false))
        return;
    ck_assert_int_eq(m->fix.ops->place(m->fix.hm, FIX_VM, gfn, fn, nr, &done), 0);
    ck_assert_uint_eq(done, nr);
    memcpy(m->guest + gfn, m->slot + fn, nr * sizeof(uint64_t));
    memset(m->slot + fn, 0, nr * sizeof(uint64_t));
}

static void model_place_copy(struct model *m, gfn_t gfn, uint32_t nr)
{
    uint32_t done = 0;
    if (!all(m->guest + gfn, nr, false))
        return;
    for (uint32_t i = 0; i < nr; i++) {
        m->guest[gfn + i] = ++m->next;
        fix_write(m->buffer + i * PAGE_BYTES, m->next - 1);
    }
    ck_assert_int_eq(m->fix.ops->place_copy(m->fix.hm, FIX_VM, gfn, m->buffer, nr, 0, &done), 0);
    ck_assert_uint_eq(done, nr);
}

static void model_take(struct model *m, fn_t fn, gfn_t gfn, uint32_t nr)
{
    uint32_t done = 0;
    if (!all(m->slot + fn, nr, false))
        return;
    ck_assert_int_eq(m->fix.ops->take(m->fix.hm, FIX_VM, gfn, fn, nr, &done), 0);
    ck_assert_uint_eq(done, nr);
    memcpy(m->slot + fn, m->guest + gfn, nr * sizeof(uint64_t));
    memset(m->guest + gfn, 0, nr * sizeof(uint64_t));
}

static void model_step(struct model *m)
{
    bool block = rng_below(&m->rng, 2);
    uint32_t nr = block ? BLOCK_PAGES : 1 + rng_below(&m->rng, rng_below(&m->rng, 4) ? 16 : 100);
    fn_t fn = rng_below(&m->rng, FIX_SLOTS - nr + 1);
    gfn_t gfn = rng_below(&m->rng, MODEL_GUEST - nr + 1);
    if (block && rng_below(&m->rng, 8)) { /* aligned, as the memory manager asks for */
        fn -= fn % BLOCK_PAGES;
        gfn -= gfn % BLOCK_PAGES;
    }
    switch (rng_below(&m->rng, 6)) {
    case 0:
        model_populate(m, fn, nr);
        break;
    case 1:
        if (all(m->slot + fn, nr, true)) {
            m->fix.ops->release(m->fix.hm, fn, nr);
            memset(m->slot + fn, 0, nr * sizeof(uint64_t));
        }
        break;
    case 2:
        model_place(m, fn, gfn, nr);
        break;
    case 3:
        model_place_copy(m, gfn, nr);
        break;
    case 4:
        model_take(m, fn, gfn, nr);
        break;
    default:
        m->fix.ops->drop(m->fix.hm, FIX_VM, gfn, nr);
        memset(m->guest + gfn, 0, nr * sizeof(uint64_t));
    }
}

START_TEST(test_hostmem_model_random_operations_agree)
{
    for (uint64_t seed = 1; seed <= 3; seed++) {
        struct model *m = calloc(1, sizeof(*m));
        fix_open(&m->fix, _i);
        m->rng.state = seed * 7919;
        m->buffer = calloc(BLOCK_PAGES, PAGE_BYTES);
        for (unsigned step = 0; step < 1000; step++) {
            model_step(m);
            if (step % 8 == 7)
                model_check(m);
        }
        ck_assert_uint_gt(m->next, 1000);
        free(m->buffer);
        fix_close(&m->fix);
        free(m);
    }
}
END_TEST

/* --- making and unmaking --- */

START_TEST(test_hostmem_create_out_of_memory_leaves_nothing)
{
    for (long n = 1;; n++) {
        struct diag diag = {0};
        struct hostmem_config config = {.nr_slots = 1000, .move = _i == FIX_MOVE};
        struct hostmem *hm;
        struct hostmem_vm *vm;
        fail_alloc_at(n);
        int err = hostmem_create(&config, &hm, &diag);
        int vm_err = err ? 0 : hostmem_vm_create(hm, fix_regions, 2, &vm, &diag);
        bool fired = fail_alloc_fired();
        fail_alloc_at(-1);
        if (!err && !vm_err)
            hostmem_vm_destroy(vm);
        if (!err)
            hostmem_destroy(hm);
        if (!fired)
            break;
        ck_assert(err || vm_err);
        ck_assert_int_eq(diag.code, EXIT_HOST);
    }
}
END_TEST

START_TEST(test_hostmem_vm_bad_regions_are_refused)
{
    static const struct mm_region bad[][2] = {
        {{.start = {0}, .bytes = 0}, {.start = {0}, .bytes = 0}},
        {{.start = {0}, .bytes = 4096}, {.start = {0}, .bytes = 0}},
        {{.start = {4096}, .bytes = 2 << 20}, {.start = {0}, .bytes = 0}},
        {{.start = {0}, .bytes = 4 << 20}, {.start = {2 << 20}, .bytes = 2 << 20}},
        {{.start = {UINT64_C(1) << 44}, .bytes = 2 << 20}, {.start = {0}, .bytes = 0}},
        {{.start = {0}, .bytes = UINT64_MAX - BLOCK_BYTES + 1}, {.start = {0}, .bytes = 0}},
    };
    struct fix fix;
    fix_open(&fix, FIX_COPY);
    for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
        struct diag diag = {0};
        struct hostmem_vm *vm;
        ck_assert_int_eq(hostmem_vm_create(fix.hm, bad[i], bad[i][1].bytes ? 2 : 1, &vm, &diag), -1);
        ck_assert_int_eq(diag.code, EXIT_USAGE);
    }
    fix_close(&fix);
}
END_TEST

START_TEST(test_guest_range_addresses_translate_both_ways)
{
    struct guest_range range;
    gpa_t gpa;
    ck_assert_int_eq(guest_range_map(&range, fix_regions, 2, PAGE_BYTES), 0);
    ck_assert_uint_eq((uintptr_t)range.base % BLOCK_BYTES, 0);
    uint64_t low = fix_regions[0].bytes, high = fix_regions[1].start.v, end = high + fix_regions[1].bytes;
    ck_assert_ptr_eq(guest_range_hva(&range, (gpa_t){0}, low), range.base);
    ck_assert_ptr_null(guest_range_hva(&range, (gpa_t){0}, low + 1));
    ck_assert_ptr_null(guest_range_hva(&range, (gpa_t){low}, 1));
    ck_assert_ptr_eq(guest_range_hva(&range, (gpa_t){low - 1}, 1), range.base + low - 1);
    ck_assert_ptr_eq(guest_range_hva(&range, (gpa_t){end - 1}, 1), range.base + range.bytes - 1);
    ck_assert_ptr_null(guest_range_hva(&range, (gpa_t){end}, 1));
    ck_assert_ptr_null(guest_range_hva(&range, (gpa_t){high + 1}, UINT64_MAX));
    ck_assert(guest_range_gpa(&range, range.base + low, &gpa) && gpa.v == high);
    ck_assert(guest_range_gpa(&range, range.base + low - 1, &gpa) && gpa.v == low - 1);
    ck_assert(!guest_range_gpa(&range, range.base + range.bytes, &gpa));
    ck_assert(!guest_range_gpa(&range, range.base - 1, &gpa));
    range.base[low] = 1;
    ck_assert_uint_eq(guest_range_resident_bytes(&range), PAGE_BYTES);
    guest_range_unmap(&range);
}
END_TEST

int main(void)
{
    int end = fix_end();
    Suite *suite = suite_create("hostmem");
    TCase *ops = tcase_create("operations");
    tcase_set_timeout(ops, 60);
    tcase_add_loop_test(ops, test_hostmem_populate_block_fills_that_block, 0, end);
    tcase_add_loop_test(ops, test_hostmem_populate_one_slot_of_an_empty_block_fills_one, 0, end);
    tcase_add_loop_test(ops, test_hostmem_populate_run_across_blocks_fills_the_run, 0, end);
    tcase_add_loop_test(ops, test_hostmem_populate_of_a_reused_block_is_zero_again, 0, end);
    tcase_add_loop_test(ops, test_hostmem_populate_over_a_filled_slot_fails, 0, end);
    tcase_add_loop_test(ops, test_hostmem_place_and_take_bring_the_pages_there_and_back, 0, end);
    tcase_add_loop_test(ops, test_hostmem_take_skips_holes, 0, end);
    tcase_add_loop_test(ops, test_hostmem_place_over_a_present_page_stops_there, 0, end);
    tcase_add_loop_test(ops, test_hostmem_place_copy_over_a_present_page_stops_there, 0, end);
    tcase_add_loop_test(ops, test_hostmem_take_into_a_filled_slot_leaves_the_rest_writable, 0, end);
    tcase_add_loop_test(ops, test_hostmem_drop_makes_pages_absent, 0, end);
    tcase_add_loop_test(ops, test_hostmem_place_of_a_pinned_slot_copies_it, 0, end);
    if (end == NR_FIX) {
        tcase_add_test(ops, test_hostmem_take_of_a_pinned_page_says_busy);
        tcase_add_test(ops, test_hostmem_pages_that_the_kernel_moved_but_did_not_count_are_counted);
    }
    tcase_add_loop_test(ops, test_hostmem_released_vm_keeps_nothing, 0, end);
    tcase_add_loop_test(ops, test_hostmem_model_random_operations_agree, 0, end);
    tcase_add_loop_test(ops, test_hostmem_create_out_of_memory_leaves_nothing, 0, end);
    tcase_add_test(ops, test_hostmem_vm_bad_regions_are_refused);
    tcase_add_test(ops, test_guest_range_addresses_translate_both_ways);
    suite_add_tcase(suite, ops);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
