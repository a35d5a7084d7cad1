/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The buddy allocator beside a naive reference: one byte a frame says where the frame is. From it follow the blocks
 * that must be on each list, because eager merging leaves exactly the largest aligned runs of one plane:
 *
 *     [fn, fn + 2^o) is a listed block  iff  all of it is free in one plane and the aligned run of order o + 1 around
 *                                            it is not, or reaches outside the zone, or o is MAX_ORDER
 */
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "mm/frame/pcp.h"
#include "mm/frame/zone.h"
#include "tests/unit/model_rng.h"

#define START_FN 37
#define NR_FRAMES 3500
#define NR_ALL (START_FN + NR_FRAMES + 11)
#define MAX_HELD 400

enum where { FREE_FILLED = PLANE_FILLED, FREE_EMPTY = PLANE_EMPTY, HELD, OUTSIDE };

struct model {
    struct rng rng;
    struct zone zone;
    struct frame frames[NR_ALL];
    uint8_t types[NR_ALL / BLOCK_PAGES + 1];
    uint8_t where[NR_ALL];
    struct {
        fn_t fn;
        unsigned order;
    } held[MAX_HELD];
    uint32_t nr_held;
};

static bool all_are(const struct model *model, fn_t fn, unsigned order, uint8_t where)
{
    uint32_t nr = 1u << order;
    if (fn + nr > NR_ALL)
        return false;
    return !memcmp(&model->where[fn], &model->where[fn + 1], nr - 1) && model->where[fn] == where;
}

/* Does the zone list exactly the blocks that the reference says? */
static bool lists_match(const struct model *model, enum plane plane)
{
    uint32_t nr_blocks[MAX_ORDER + 1] = {0}, nr_free = 0;
    for (fn_t fn = START_FN; fn < START_FN + NR_FRAMES;) {
        if (model->where[fn] != (uint8_t)plane) {
            fn++;
            continue;
        }
        unsigned order = 0;
        while (order < MAX_ORDER && !(fn & ((2u << order) - 1)) && all_are(model, fn, order + 1, (uint8_t)plane))
            order++;
        const struct frame *head = &model->frames[fn];
        if (head->use != FRAME_FREE || head->order != order)
            return false;
        nr_blocks[order]++;
        nr_free += 1u << order;
        fn += 1u << order;
    }
    for (unsigned order = 0; order <= MAX_ORDER; order++) {
        if (nr_blocks[order] != model->zone.area[plane][MIGRATE_MOVABLE].blocks[order].nr)
            return false;
    }
    return nr_free == zone_nr_free(&model->zone, plane);
}

static bool can_alloc(const struct model *model, unsigned order, enum plane plane)
{
    fn_t size = 1u << order, fn = (START_FN + size - 1) & ~(size - 1);
    for (; fn + size <= START_FN + NR_FRAMES; fn += size) {
        if (all_are(model, fn, order, (uint8_t)plane))
            return true;
    }
    return false;
}

/* True when all of the run was where it should have been. */
static bool move(struct model *model, fn_t fn, uint32_t nr, uint8_t from, uint8_t to)
{
    bool right = true;
    for (uint32_t i = 0; i < nr; i++) {
        right &= model->where[fn + i] == from;
        model->where[fn + i] = to;
    }
    return right;
}

static void hold(struct model *model, fn_t fn, unsigned order)
{
    model->held[model->nr_held].fn = fn;
    model->held[model->nr_held].order = order;
    model->nr_held++;
}

static enum plane any_plane(struct model *model)
{
    return rng_below(&model->rng, 2) ? PLANE_EMPTY : PLANE_FILLED;
}

/* Small orders are usual; large ones come too. */
static unsigned any_order(struct model *model)
{
    unsigned limit = rng_below(&model->rng, MAX_ORDER + 1);
    return rng_below(&model->rng, limit + 1);
}

static bool step_alloc(struct model *model)
{
    fn_t fn = FN_NONE;
    unsigned order = any_order(model);
    enum plane plane = any_plane(model);
    if (model->nr_held == MAX_HELD)
        return true;
    bool possible = can_alloc(model, order, plane);
    int err = zone_alloc(&model->zone, order, plane, &fn);
    if (!possible)
        return err == -ENOMEM && fn == FN_NONE;
    if (err || model->frames[fn].use != FRAME_USED || model->frames[fn].order != order || model->frames[fn].flags)
        return false;
    for (uint32_t i = 1; i < 1u << order; i++) {
        if (model->frames[fn + i].use != FRAME_TAIL)
            return false;
    }
    hold(model, fn, order);
    return move(model, fn, 1u << order, (uint8_t)plane, HELD);
}

static bool step_bulk(struct model *model)
{
    fn_t out[64];
    enum plane plane = any_plane(model);
    uint32_t room = MIN_OF(MAX_HELD - model->nr_held, (uint32_t)ARRAY_LEN(out));
    uint32_t want = rng_below(&model->rng, room + 1), had = zone_nr_free(&model->zone, plane);
    uint32_t got = zone_alloc_bulk(&model->zone, plane, out, want);
    if (got != MIN_OF(want, had))
        return false;
    for (uint32_t i = 0; i < got; i++) {
        if (model->frames[out[i]].use != FRAME_USED || !move(model, out[i], 1, (uint8_t)plane, HELD))
            return false;
        hold(model, out[i], 0);
    }
    return true;
}

static bool step_free(struct model *model)
{
    static const enum frame_use uses[] = {FRAME_USED, FRAME_HOME, FRAME_ZEROED, FRAME_STANDBY, FRAME_ZPOOL};
    if (!model->nr_held)
        return true;
    uint32_t at = rng_below(&model->rng, model->nr_held);
    fn_t fn = model->held[at].fn;
    unsigned order = model->held[at].order;
    enum plane plane = any_plane(model);
    model->held[at] = model->held[--model->nr_held];
    model->frames[fn].use = uses[rng_below(&model->rng, ARRAY_LEN(uses))] & 0xf;
    model->frames[fn].flags = rng_below(&model->rng, 16) & 0xf;
    zone_free(&model->zone, fn, order, plane);
    return move(model, fn, 1u << order, HELD, (uint8_t)plane);
}

/* A held block is used page by page, then given back in runs of either plane. */
static bool step_free_in_runs(struct model *model)
{
    bool right = true;
    if (!model->nr_held)
        return true;
    uint32_t at = rng_below(&model->rng, model->nr_held);
    fn_t fn = model->held[at].fn;
    fn_t end = fn + (1u << model->held[at].order);
    if (rng_below(&model->rng, 2))
        zone_split(&model->zone, fn, model->held[at].order);
    model->held[at] = model->held[--model->nr_held];
    for (fn_t used = fn; used < end; used++) {
        model->frames[used].use = FRAME_STANDBY;
        model->frames[used].next = rng_below(&model->rng, NR_ALL);
    }
    while (fn < end) {
        uint32_t nr = 1 + rng_below(&model->rng, end - fn);
        enum plane plane = any_plane(model);
        zone_free_range(&model->zone, fn, nr, plane);
        right &= move(model, fn, nr, HELD, (uint8_t)plane);
        fn += nr;
    }
    return right;
}

static bool step_free_bulk(struct model *model)
{
    fn_t fns[32];
    uint32_t nr = 0;
    enum plane plane = any_plane(model);
    for (uint32_t i = 0; i < model->nr_held && nr < ARRAY_LEN(fns);) {
        if (model->held[i].order || rng_below(&model->rng, 2)) {
            i++;
            continue;
        }
        fns[nr++] = model->held[i].fn;
        model->held[i] = model->held[--model->nr_held];
    }
    zone_free_bulk(&model->zone, plane, fns, nr);
    bool right = true;
    for (uint32_t i = 0; i < nr; i++)
        right &= move(model, fns[i], 1, HELD, (uint8_t)plane);
    return right;
}

static bool step(struct model *model)
{
    switch (rng_below(&model->rng, 10)) {
    case 0:
    case 1:
    case 2:
    case 3:
        return step_alloc(model);
    case 4:
        return step_bulk(model);
    case 5:
        return step_free_bulk(model);
    case 6:
        return step_free_in_runs(model);
    default:
        return step_free(model);
    }
}

START_TEST(test_zone_model_random_operations_match_reference)
{
    struct model *model = calloc(1, sizeof(*model));
    ck_assert_ptr_nonnull(model);
    model->rng.state = (uint64_t)_i + 1;
    enum plane plane = _i % 2 ? PLANE_EMPTY : PLANE_FILLED;
    memset(model->where, OUTSIDE, sizeof(model->where));
    memset(&model->where[START_FN], (int)plane, NR_FRAMES);
    zone_init(&model->zone, "Model", model->frames, model->types, START_FN, NR_FRAMES, plane);
    for (unsigned i = 0; i < 700; i++) {
        const char *why = "the operation's result is wrong";
        bool right = step(model) && zone_check(&model->zone, &why);
        ck_assert_msg(right, "seed %d step %u: %s", _i + 1, i, why);
        right = lists_match(model, PLANE_FILLED) && lists_match(model, PLANE_EMPTY);
        ck_assert_msg(right, "seed %d step %u: lists", _i + 1, i);
    }
    zone_fini(&model->zone);
    free(model);
}
END_TEST

/* Threads share a zone and write to their frames without its lock, as holders do. */

#define NR_THREADS 3
static struct frame shared_frames[2048];
static uint8_t shared_types[2048 / BLOCK_PAGES];
static struct zone shared_zone;

static void *use_zone(void *seed)
{
    struct rng rng = {(uint64_t)(uintptr_t)seed};
    struct pcp pcp;
    fn_t held[64], block;
    pcp_init(&pcp, &shared_zone, 20, 8);
    for (unsigned round = 0; round < 300; round++) {
        uint32_t nr = 0, want = rng_below(&rng, ARRAY_LEN(held));
        while (nr < want && !pcp_alloc(&pcp, &held[nr]))
            nr++;
        unsigned order = rng_below(&rng, 6);
        int err = zone_alloc(&shared_zone, order, PLANE_FILLED, &block);
        for (uint32_t i = 0; i < nr; i++) {
            shared_frames[held[i]].use = FRAME_STANDBY;
            shared_frames[held[i]].flags = rng_below(&rng, 16) & 0xf;
            shared_frames[held[i]].gfn = round;
        }
        if (!err)
            zone_free(&shared_zone, block, order, PLANE_FILLED);
        while (nr)
            pcp_free(&pcp, held[--nr], rng_below(&rng, 2));
    }
    pcp_drain(&pcp);
    return NULL;
}

START_TEST(test_zone_model_threads_lose_no_frame)
{
    pthread_t threads[NR_THREADS];
    const char *why = NULL;
    zone_init(&shared_zone, "Shared", shared_frames, shared_types, 0, ARRAY_LEN(shared_frames), PLANE_FILLED);
    for (uintptr_t i = 0; i < NR_THREADS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, use_zone, (void *)(i + 1)), 0);
    for (unsigned i = 0; i < NR_THREADS; i++)
        pthread_join(threads[i], NULL);
    bool right = zone_check(&shared_zone, &why);
    ck_assert_msg(right, "%s", why);
    ck_assert_uint_eq(shared_zone.area[PLANE_FILLED][MIGRATE_MOVABLE].blocks[MAX_ORDER].nr, 2);
    zone_fini(&shared_zone);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("zone_model");
    TCase *tc = tcase_create("zone_model");
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, test_zone_model_random_operations_match_reference, 0, 8);
    tcase_add_test(tc, test_zone_model_threads_lose_no_frame);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
