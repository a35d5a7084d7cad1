/* SPDX-License-Identifier: Apache-2.0 */
/* The set of pages against one byte a page: three regions, one of them with a hole before it, one no whole block. */
#include "devices/balloon/page_set.h"
#include "tests/fake/fail_alloc.h"
#include "tests/unit/model_rng.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const struct guest_mem memory = {
    .nr = 3,
    .region = {{.start = {0}, .bytes = 3 * BLOCK_BYTES},
               {.start = {3 * BLOCK_BYTES}, .bytes = 2 * BLOCK_BYTES + 7 * PAGE_BYTES}, /* next to the first */
               {.start = {64 * BLOCK_BYTES}, .bytes = 4 * BLOCK_BYTES}}};
#define MODEL_PAGES (70 * BLOCK_PAGES)

struct model {
    struct page_set set;
    uint8_t has[MODEL_PAGES];
    uint8_t seen[MODEL_PAGES];
    uint64_t last_end;
    bool whole_blocks;
};

static const struct guest_mem_region *region_of(gfn_t gfn)
{
    for (unsigned i = 0; i < memory.nr; i++)
        if (gpa_of(gfn).v >= memory.region[i].start.v &&
            gpa_of(gfn).v - memory.region[i].start.v < memory.region[i].bytes)
            return &memory.region[i];
    return NULL;
}

static void see(void *ctx, gpa_t gpa, uint64_t bytes)
{
    struct model *model = ctx;
    gfn_t first = gfn_of(gpa), end = first + (gfn_t)(bytes >> PAGE_SHIFT);
    ck_assert_uint_gt(end, first);
    ck_assert_uint_ge(gpa.v, model->last_end);
    /* as long as it can be: not next to the run before, but at a region's edge */
    ck_assert(model->last_end == 0 || gpa.v > model->last_end || region_of(first - 1) != region_of(first));
    ck_assert_ptr_eq(region_of(first), region_of(end - 1));
    ck_assert(!model->whole_blocks || !(gpa.v % BLOCK_BYTES || bytes % BLOCK_BYTES));
    memset(model->seen + first, 1, end - first);
    model->last_end = gpa.v + bytes;
}

static void ck_same(struct model *model)
{
    uint64_t nr = 0;
    memset(model->seen, 0, sizeof(model->seen));
    model->last_end = 0;
    model->whole_blocks = false;
    page_set_for_each(&model->set, see, model);
    ck_assert_int_eq(memcmp(model->seen, model->has, sizeof(model->has)), 0);
    for (unsigned i = 0; i < MODEL_PAGES; i++)
        nr += model->has[i];
    ck_assert_uint_eq(model->set.nr_pages, nr);
}

static void take_blocks(struct model *model)
{
    memset(model->seen, 0, sizeof(model->seen));
    model->last_end = 0;
    model->whole_blocks = true;
    page_set_take_blocks(&model->set, see, model);
    for (unsigned block = 0; block < MODEL_PAGES; block += BLOCK_PAGES) {
        bool full = !memchr(model->has + block, 0, BLOCK_PAGES);
        for (unsigned i = block; i < block + BLOCK_PAGES; i++) {
            ck_assert_uint_eq(model->seen[i], full);
            model->has[i] = (uint8_t)(model->has[i] && !full);
        }
    }
}

static void add(struct model *model, gfn_t gfn, uint32_t pages)
{
    uint64_t added = 77, want = 0;
    const struct guest_mem_region *region = region_of(gfn);
    bool inside = region && gpa_of(gfn).v + pages * PAGE_BYTES <= region->start.v + region->bytes;
    int err = page_set_add(&model->set, gpa_of(gfn), pages, &added);
    ck_assert_int_eq(err, inside ? 0 : -EFAULT);
    for (gfn_t i = gfn; inside && i < gfn + pages; i++) {
        want += !model->has[i];
        model->has[i] = 1;
    }
    ck_assert_uint_eq(added, want);
}

START_TEST(test_page_set_is_as_the_model)
{
    struct model *model = calloc(1, sizeof(*model));
    struct rng rng = {(uint64_t)_i + 1};
    ck_assert_int_eq(page_set_init(&model->set, &memory), 0);
    for (unsigned step = 0; step < 400; step++) {
        gfn_t gfn = (gfn_t)rng_below(&rng, rng_below(&rng, 4) ? 6 * BLOCK_PAGES : MODEL_PAGES - 1600);
        uint32_t pages = (uint32_t)rng_below(&rng, rng_below(&rng, 3) ? 70 : 1600);
        switch (rng_below(&rng, 16)) {
        case 0:
            page_set_clear(&model->set);
            memset(model->has, 0, sizeof(model->has));
            break;
        case 1:
        case 2:
            take_blocks(model);
            break;
        case 3:
        case 4:
            if (region_of(gfn) && region_of(gfn + pages) == region_of(gfn)) {
                page_set_remove(&model->set, gpa_of(gfn), pages);
                memset(model->has + gfn, 0, pages);
            }
            break;
        default:
            add(model, gfn, pages);
        }
        ck_same(model);
    }
    page_set_fini(&model->set);
    page_set_fini(&model->set);
    free(model);
}
END_TEST

START_TEST(test_page_set_range_must_be_inside_one_region)
{
    struct model *model = calloc(1, sizeof(*model));
    ck_assert_int_eq(page_set_init(&model->set, &memory), 0);
    add(model, 0, 3 * BLOCK_PAGES);
    add(model, 0, 3 * BLOCK_PAGES + 1); /* two regions, though neighbours */
    add(model, 3 * BLOCK_PAGES, 2 * BLOCK_PAGES + 7);
    add(model, 3 * BLOCK_PAGES, 2 * BLOCK_PAGES + 8);
    add(model, 5 * BLOCK_PAGES + 7, 1);
    add(model, 68 * BLOCK_PAGES - 1, 1);
    add(model, 68 * BLOCK_PAGES - 1, 2);
    add(model, 68 * BLOCK_PAGES, 1);
    ck_same(model);
    uint64_t added;
    ck_assert_int_eq(page_set_add(&model->set, (gpa_t){0}, UINT64_MAX, &added), -EFAULT);
    ck_assert_int_eq(page_set_add(&model->set, (gpa_t){-PAGE_BYTES}, 1, &added), -EFAULT);
    page_set_remove(&model->set, (gpa_t){-PAGE_BYTES}, 1);
    page_set_remove(&model->set, (gpa_t){0}, UINT64_MAX);
    ck_same(model);
    page_set_fini(&model->set);
    free(model);
}
END_TEST

START_TEST(test_page_set_without_memory_is_none)
{
    struct page_set set;
    for (long n = 1; n <= 2; n++) {
        fail_alloc_at(n);
        int err = page_set_init(&set, &memory);
        fail_alloc_at(-1);
        ck_assert_int_eq(err, -ENOMEM);
        page_set_fini(&set);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("page_set");
    TCase *tc = tcase_create("page_set");
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, test_page_set_is_as_the_model, 0, 4);
    tcase_add_test(tc, test_page_set_range_must_be_inside_one_region);
    tcase_add_test(tc, test_page_set_without_memory_is_none);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
