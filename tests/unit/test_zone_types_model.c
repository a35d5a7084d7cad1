/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Migrate types beside a naive reference: a byte a frame says where it is, a byte a pageblock of which type it is. From
 * these follow the free blocks of each list (the largest aligned runs of one plane and, at order 10, one type), from those
 * the block that an allocation may get, whether its pageblock changes sides, and when there is none.
 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "mm/frame/zone.h"
#include "tests/unit/model_rng.h"

#define START_FN 300
#define NR_FRAMES 4500
#define END_FN (START_FN + NR_FRAMES)
#define NR_PAGEBLOCKS (END_FN / BLOCK_PAGES + 1)
#define MAX_HELD 600

enum where { FREE_FILLED = PLANE_FILLED, FREE_EMPTY = PLANE_EMPTY, HELD, OUTSIDE };

struct model {
    struct rng rng;
    struct zone zone;
    struct frame frames[END_FN + 8];
    uint8_t zone_types[NR_PAGEBLOCKS];
    uint8_t where[END_FN + 8], types[NR_PAGEBLOCKS];
    uint32_t nr[NR_PLANES][MIGRATE_TYPES][MAX_ORDER + 1]; /* free blocks, by count_blocks */
    uint8_t order_at[END_FN + 8];                         /* of the free block that starts here */
    struct {
        fn_t fn;
        unsigned order;
    } held[MAX_HELD];
    uint32_t nr_held;
    unsigned nr_claims, nr_small, nr_refused; /* that the cases occurred */
};

static uint8_t type_at(const struct model *m, fn_t fn)
{
    return m->types[fn / BLOCK_PAGES];
}

static bool is_run(const struct model *m, fn_t fn, unsigned order, uint8_t where)
{
    uint32_t nr = 1u << order;
    if (fn + nr > END_FN || m->where[fn] != where || memcmp(&m->where[fn], &m->where[fn + 1], nr - 1))
        return false;
    return type_at(m, fn) == type_at(m, fn + nr - 1);
}

static void count_blocks(struct model *m)
{
    memset(m->nr, 0, sizeof(m->nr));
    for (fn_t fn = START_FN; fn < END_FN;) {
        if (m->where[fn] >= NR_PLANES) {
            fn++;
            continue;
        }
        unsigned order = 0;
        while (order < MAX_ORDER && !(fn & ((2u << order) - 1)) && is_run(m, fn, order + 1, m->where[fn]))
            order++;
        m->order_at[fn] = (uint8_t)order;
        m->nr[m->where[fn]][type_at(m, fn)][order]++;
        fn += 1u << order;
    }
}

/* The zone has the lists and types that the reference says. */
static bool matches(struct model *m)
{
    struct zone_types stat;
    uint32_t nr_pageblocks[MIGRATE_TYPES] = {0};
    count_blocks(m);
    zone_types(&m->zone, &stat);
    for (fn_t fn = START_FN; fn < END_FN; fn++) {
        if (get_pageblock_migratetype(&m->zone, fn) != type_at(m, fn))
            return false;
        if (fn == START_FN || fn % BLOCK_PAGES == 0)
            nr_pageblocks[type_at(m, fn)]++;
    }
    for (enum plane plane = PLANE_FILLED; plane < NR_PLANES; plane++) {
        uint32_t nr[MAX_ORDER + 1];
        zone_count_free(&m->zone, plane, nr);
        for (unsigned order = 0; order <= MAX_ORDER; order++)
            if (nr[order] != m->nr[plane][0][order] + m->nr[plane][1][order] + m->nr[plane][2][order])
                return false;
    }
    return !memcmp(stat.nr_blocks, m->nr, sizeof(m->nr)) &&
           !memcmp(stat.nr_pageblocks, nr_pageblocks, sizeof(nr_pageblocks));
}

/* Lowest or highest order from @order on of which there are blocks in either list; -1: none. */
static int find_order(const uint32_t *a, const uint32_t *b, unsigned order, bool highest)
{
    int found = -1;
    for (unsigned o = order; o <= MAX_ORDER; o++)
        if ((a[o] || b[o]) && (found < 0 || highest))
            found = (int)o;
    return found;
}

/* Would an allocation of @type take the pageblock over? By page. */
static bool claimable(const struct model *m, fn_t fn, uint8_t type)
{
    fn_t first = MAX_OF(fn & ~(BLOCK_PAGES - 1), (fn_t)START_FN), end = (fn & ~(BLOCK_PAGES - 1)) + BLOCK_PAGES;
    uint32_t nr_free = 0, nr_movable = 0, nr = 0;
    for (fn_t at = first; at < MIN_OF(end, (fn_t)END_FN); at++, nr++) {
        nr_free += m->where[at] < NR_PLANES;
        nr_movable += m->where[at] == HELD && m->frames[at].use == FRAME_STANDBY;
    }
    uint32_t alike = type == MIGRATE_MOVABLE             ? nr_movable
                     : type_at(m, fn) == MIGRATE_MOVABLE ? nr - nr_free - nr_movable
                                                         : 0;
    return nr_free + alike >= (nr + 1) / 2;
}

/* Smallest sufficient order of the free blocks of one plane in one pageblock. */
static unsigned smallest_in(const struct model *m, fn_t fn, uint8_t plane, unsigned order)
{
    unsigned best = MAX_ORDER + 1;
    fn_t first = MAX_OF(fn & ~(BLOCK_PAGES - 1), (fn_t)START_FN), end = (fn & ~(BLOCK_PAGES - 1)) + BLOCK_PAGES;
    for (fn_t at = first; at < MIN_OF(end, (fn_t)END_FN);) {
        if (m->where[at] >= NR_PLANES) {
            at++;
            continue;
        }
        if (m->where[at] == plane && m->order_at[at] >= order)
            best = MIN_OF(best, m->order_at[at]);
        at += 1u << m->order_at[at];
    }
    return best;
}

/* Is there a block of @from of this plane and type in the pageblock? */
static bool has_block(const struct model *m, fn_t fn, uint8_t plane, unsigned from)
{
    fn_t first = MAX_OF(fn & ~(BLOCK_PAGES - 1), (fn_t)START_FN), end = (fn & ~(BLOCK_PAGES - 1)) + BLOCK_PAGES;
    for (fn_t at = first; at < MIN_OF(end, (fn_t)END_FN);) {
        if (m->where[at] == plane && m->order_at[at] == from)
            return true;
        at += m->where[at] < NR_PLANES ? 1u << m->order_at[at] : 1;
    }
    return false;
}

/* Was @fn the right thing to give? @m->types follows. Called with the counts of before. */
static bool right_block(struct model *m, fn_t fn, unsigned order, uint8_t plane, uint8_t type)
{
    static const uint8_t fallback[MIGRATE_PCPTYPES][2] = {{2, 1}, {2, 0}, {0, 1}};
    const uint32_t(*nr)[MAX_ORDER + 1] = m->nr[plane];
    unsigned given = m->order_at[fn];
    int own = find_order(nr[type], nr[type], order, false);
    if (own >= 0)
        return type_at(m, fn) == type && given == (unsigned)own;
    const uint8_t *other = fallback[type];
    int from = find_order(nr[other[0]], nr[other[1]], order, true);
    bool steal = from >= 4 || type != MIGRATE_MOVABLE;
    if (!steal)
        from = find_order(nr[other[0]], nr[other[1]], order, false);
    uint8_t victim = nr[other[0]][from] ? other[0] : other[1];
    if (type_at(m, fn) != victim)
        return false;
    if (from >= BLOCK_ORDER) {
        for (fn_t at = fn; at < fn + (1u << from); at += BLOCK_PAGES)
            m->types[at / BLOCK_PAGES] = type;
        return given == (unsigned)from;
    }
    if (!steal || !claimable(m, fn, type)) {
        m->nr_small += !steal;
        m->nr_refused += steal;
        return given == (unsigned)from;
    }
    m->nr_claims++;
    bool right = has_block(m, fn, plane, (unsigned)from) && given == smallest_in(m, fn, plane, order);
    m->types[fn / BLOCK_PAGES] = type;
    return right;
}

static bool step_alloc(struct model *m)
{
    unsigned limit = rng_below(&m->rng, MAX_ORDER + 1), order = rng_below(&m->rng, limit + 1);
    uint8_t plane = rng_below(&m->rng, 4) == 0, type = rng_below(&m->rng, MIGRATE_PCPTYPES) & 3;
    fn_t fn = FN_NONE;
    bool possible = false;
    for (unsigned t = 0; t < MIGRATE_PCPTYPES; t++)
        possible |= find_order(m->nr[plane][t], m->nr[plane][t], order, false) >= 0;
    int err = zone_alloc_type(&m->zone, order, (enum plane)plane, (enum migratetype)type, &fn);
    if (!possible || err)
        return !possible && err == -ENOMEM && fn == FN_NONE;
    if (m->frames[fn].use != FRAME_USED || m->frames[fn].order != order || m->frames[fn].flags)
        return false;
    if (m->where[fn] != plane || !right_block(m, fn, order, plane, type))
        return false;
    memset(&m->where[fn], HELD, 1u << order);
    if (order == 0 && type == MIGRATE_MOVABLE)
        m->frames[fn].use = FRAME_STANDBY;
    m->held[m->nr_held].fn = fn;
    m->held[m->nr_held++].order = order;
    return true;
}

static void step_free(struct model *m)
{
    uint32_t at = rng_below(&m->rng, m->nr_held);
    fn_t fn = m->held[at].fn;
    unsigned order = m->held[at].order;
    uint8_t plane = rng_below(&m->rng, 4) == 0;
    m->held[at] = m->held[--m->nr_held];
    if (rng_below(&m->rng, 2))
        zone_free(&m->zone, fn, order, (enum plane)plane);
    else
        zone_free_range(&m->zone, fn, 1u << order, (enum plane)plane);
    memset(&m->where[fn], plane, 1u << order);
}

static bool step_retype(struct model *m)
{
    fn_t fn = START_FN + rng_below(&m->rng, NR_FRAMES);
    uint8_t type = rng_below(&m->rng, MIGRATE_TYPES) & 3, old = type_at(m, fn);
    m->types[fn / BLOCK_PAGES] = type;
    return set_pageblock_migratetype(&m->zone, fn, (enum migratetype)type) == old;
}

static bool step(struct model *m)
{
    unsigned what = rng_below(&m->rng, 20);
    /* isolated pageblocks come back, or nothing is left to play with */
    if (what == 0)
        return step_retype(m);
    if (what == 1) {
        for (fn_t fn = START_FN; fn < END_FN; fn++)
            if (type_at(m, fn) == MIGRATE_ISOLATE) {
                m->types[fn / BLOCK_PAGES] = MIGRATE_MOVABLE;
                return set_pageblock_migratetype(&m->zone, fn, MIGRATE_MOVABLE) == MIGRATE_ISOLATE;
            }
        return true;
    }
    if (m->nr_held == MAX_HELD || (m->nr_held && what < 9)) {
        step_free(m);
        return true;
    }
    return step_alloc(m);
}

START_TEST(test_zone_types_model_random_operations_match_reference)
{
    struct model *m = calloc(1, sizeof(*m));
    m->rng.state = (uint64_t)_i + 1;
    enum plane plane = _i % 2 ? PLANE_EMPTY : PLANE_FILLED;
    memset(m->where, OUTSIDE, sizeof(m->where));
    memset(&m->where[START_FN], (int)plane, NR_FRAMES);
    memset(m->types, MIGRATE_MOVABLE, sizeof(m->types));
    zone_init(&m->zone, "Model", m->frames, m->zone_types, START_FN, NR_FRAMES, plane);
    count_blocks(m);
    for (unsigned i = 0; i < 2000; i++) {
        const char *why = "the operation's result is wrong";
        bool right = step(m) && zone_check(&m->zone, &why);
        ck_assert_msg(right, "seed %d step %u: %s", _i + 1, i, why);
        ck_assert_msg(matches(m), "seed %d step %u: lists or types", _i + 1, i);
    }
    ck_assert_uint_gt(m->nr_claims, 0);
    ck_assert_uint_gt(m->nr_small + m->nr_refused, 0);
    zone_fini(&m->zone);
    free(m);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("zone_types_model");
    TCase *tc = tcase_create("zone_types_model");
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, test_zone_types_model_random_operations_match_reference, 0, 8);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
