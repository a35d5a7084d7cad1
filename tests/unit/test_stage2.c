/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stage-2 table: the EPT entry bit by bit (Intel SDM vol. 3C, 29.3.2), the walker, split and merge, failing
 * allocations, and random operations against one array entry a page.
 */
#include "mm/map/stage2.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define GIB_PAGES 0x40000u
/* Eight blocks around the first GiB boundary, so that two level-2 tables are at work. */
#define MODEL_BLOCKS 8u
#define MODEL_PAGES (MODEL_BLOCKS * BLOCK_PAGES)
#define MODEL_START (GIB_PAGES - 4 * BLOCK_PAGES)

static const struct s2_format *const ept = &s2_format_ept;

/* --- tables from a page source that can run dry --- */

static struct {
    long left; /* pages until it fails; -1: never */
    long nr_out;
} source;

static void *source_get(void *ctx, unsigned order)
{
    (void)ctx;
    size_t bytes = (size_t)PAGE_BYTES << order;
    if (source.left == 0)
        return NULL;
    if (source.left > 0)
        source.left--;
    void *pages = aligned_alloc(bytes, bytes);
    ck_assert_ptr_nonnull(pages);
    source.nr_out++;
    return memset(pages, 0xa5, bytes);
}

static void source_put(void *ctx, void *pages, unsigned order)
{
    (void)ctx;
    (void)order;
    source.nr_out--;
    free(pages);
}

static struct slab_cache tables;
static struct stage2 s2;

static void tables_setup(void)
{
    const struct slab_pages pages = {.get = source_get, .put = source_put};
    source.left = -1;
    ck_assert_int_eq(slab_cache_init(&tables, "stage2", 4096, 4096, NULL, &pages), 0);
}

static void tables_teardown(void)
{
    source.left = -1;
    slab_cache_fini(&tables);
    ck_assert_int_eq(source.nr_out, 0);
}

static void setup(void)
{
    tables_setup();
    ck_assert_int_eq(stage2_init(&s2, ept, &tables), 0);
}

static void teardown(void)
{
    stage2_fini(&s2);
    ck_assert_uint_eq(s2.nr_tables, 0);
    tables_teardown();
}

static struct s2_entry decode(uint64_t raw, unsigned level)
{
    struct s2_entry entry;
    memset(&entry, 0xff, sizeof(entry));
    ept->decode(raw, level, &entry);
    return entry;
}

static void assert_same(const struct s2_entry *a, const struct s2_entry *b)
{
    ck_assert_uint_eq(a->state, b->state);
    ck_assert_uint_eq(a->payload, b->payload);
    ck_assert_uint_eq(a->age, b->age);
    ck_assert_uint_eq(a->stamp, b->stamp);
    ck_assert_uint_eq(a->perm, b->perm);
    ck_assert(a->accessed == b->accessed && a->dirty == b->dirty);
}

static void split(gfn_t gfn)
{
    uint64_t *table = stage2_table_alloc(&s2);
    ck_assert_ptr_nonnull(table);
    stage2_split(&s2, stage2_pmd(&s2, gfn), table, 0);
}

/* --- the entry --- */

START_TEST(test_stage2_ept_small_leaf_bits)
{
    struct s2_entry entry = {.state = S2_RESIDENT, .perm = S2_R};
    ck_assert_uint_eq(ept->make_leaf(&entry, 1), 0x31); /* R bit 0, WB = 6 in bits 5:3 */
    entry.perm = S2_W | S2_R;
    ck_assert_uint_eq(ept->make_leaf(&entry, 1), 0x33);
    entry.perm = S2_RWX;
    ck_assert_uint_eq(ept->make_leaf(&entry, 1), 0x37);
    entry.accessed = true;
    ck_assert_uint_eq(ept->make_leaf(&entry, 1), 0x137);
    entry.dirty = true;
    ck_assert_uint_eq(ept->make_leaf(&entry, 1), 0x337);
    entry.payload = 3;
    ck_assert_uint_eq(ept->make_leaf(&entry, 1), 0x3337);
    entry.age = 10;
    ck_assert_uint_eq(ept->make_leaf(&entry, 1), UINT64_C(0x00a0000000003337));
    entry.payload = (UINT64_C(1) << 40) - 1; /* address bits 51:12 */
    ck_assert_uint_eq(ept->make_leaf(&entry, 1), UINT64_C(0x00affffffffff337));
}
END_TEST

START_TEST(test_stage2_ept_large_leaf_bits)
{
    struct s2_entry entry = {.state = S2_RESIDENT, .perm = S2_RWX, .payload = 512};
    ck_assert_uint_eq(ept->make_leaf(&entry, 2), 0x2000b7); /* bit 7: large page; address from bit 21 */
    entry.payload = UINT32_MAX - 511;                       /* the last block that a fn_t names */
    uint64_t raw = ept->make_leaf(&entry, 2);
    ck_assert_uint_eq(raw, UINT64_C(0x00000fffffe000b7));
    ck_assert_uint_eq(raw & 0x1ff000, 0);
    entry.payload = GIB_PAGES;
    ck_assert_uint_eq(ept->make_leaf(&entry, 3), 0x400000b7);
    ck_assert_uint_eq(decode(0x400000b7, 3).state, S2_RESIDENT);
}
END_TEST

START_TEST(test_stage2_ept_away_bits)
{
    for (unsigned state = S2_STANDBY; state < S2_TABLE; state++) {
        struct s2_entry entry = {.state = (uint8_t)state, .age = 9, .stamp = 6, .payload = 5};
        uint64_t raw = ept->make_leaf(&entry, 1);
        ck_assert_uint_eq(raw, 5u << 15 | 6u << 11 | 9u << 7 | state << 3);
        ck_assert_uint_eq(raw & 7, 0);
        entry.payload = (UINT64_C(1) << S2_PAYLOAD_BITS) - 1;
        raw = ept->make_leaf(&entry, 1);
        ck_assert_uint_eq(raw, UINT64_C(0xffffffffffff8000) | 6u << 11 | 9u << 7 | state << 3);
        ck_assert_uint_eq(raw & 7, 0);
    }
}
END_TEST

START_TEST(test_stage2_ept_absent_is_zero)
{
    struct s2_entry entry = {.state = S2_ABSENT};
    for (unsigned level = 1; level <= 3; level++)
        ck_assert_uint_eq(ept->make_leaf(&entry, level), 0);
    for (unsigned level = 1; level <= 4; level++) {
        struct s2_entry got = decode(0, level);
        assert_same(&got, &entry);
    }
}
END_TEST

START_TEST(test_stage2_ept_table_bits)
{
    uint64_t pa = UINT64_C(0x000ffffffffff000);
    ck_assert_uint_eq(ept->make_table(0x5000), 0x5007);
    ck_assert_uint_eq(ept->make_table(pa), UINT64_C(0x000ffffffffff007));
    for (unsigned level = 2; level <= 4; level++) {
        struct s2_entry entry = decode(ept->make_table(pa), level);
        ck_assert_uint_eq(entry.state, S2_TABLE);
        ck_assert_uint_eq(entry.payload, pa);
        ck_assert_uint_eq(decode(pa | 0x87, level).state, S2_RESIDENT);
    }
    ck_assert_uint_eq(decode(pa | 7, 1).state, S2_RESIDENT); /* at level 1 bit 7 means nothing */
}
END_TEST

START_TEST(test_stage2_ept_any_permission_bit_is_present)
{
    for (unsigned perm = 1; perm <= S2_RWX; perm++) {
        struct s2_entry entry = {.state = S2_RESIDENT, .perm = (uint8_t)perm, .payload = 1};
        struct s2_entry got = decode(ept->make_leaf(&entry, 1), 1);
        assert_same(&got, &entry);
    }
}
END_TEST

static void round_trip(const struct s2_entry *entry, unsigned level)
{
    struct s2_entry got = decode(ept->make_leaf(entry, level), level);
    assert_same(&got, entry);
}

START_TEST(test_stage2_ept_round_trip_every_state)
{
    static const uint64_t payloads[] = {0, 1, 511, 512, UINT32_MAX, (UINT64_C(1) << 48) - 1, (UINT64_C(1) << 49) - 1};
    for (unsigned level = 1; level <= 2; level++)
        for (unsigned age = 0; age <= S2_AGE_MAX; age++)
            for (unsigned i = 0; i < ARRAY_LEN(payloads); i++) {
                struct s2_entry entry = {.age = (uint8_t)age, .stamp = (uint8_t)(15 - age), .payload = payloads[i]};
                for (entry.state = S2_STANDBY; entry.state < S2_TABLE; entry.state++)
                    round_trip(&entry, level);
                entry.state = S2_RESIDENT;
                entry.stamp = 0;
                entry.perm = S2_R | S2_W;
                entry.payload &= (UINT64_C(1) << 40) - 1;
                if (level == 2)
                    entry.payload &= ~UINT64_C(511);
                for (unsigned bits = 0; bits < 4; bits++) {
                    entry.accessed = bits & 1;
                    entry.dirty = bits & 2;
                    round_trip(&entry, level);
                }
            }
}
END_TEST

/* --- the walker --- */

START_TEST(test_stage2_cover_first_last_one_past)
{
    static const struct {
        gfn_t start;
        uint32_t nr;
        unsigned nr_gib;
    } cases[] = {
        {0, 1, 1},
        {0, GIB_PAGES, 1},
        {0, GIB_PAGES + 1, 2},
        {GIB_PAGES - 1, 2, 2},
        {3 * GIB_PAGES + BLOCK_PAGES, 2 * GIB_PAGES, 3},
        {512 * GIB_PAGES - BLOCK_PAGES, 2 * BLOCK_PAGES, 2}, /* two level-3 tables */
        {0xfffc0000u, GIB_PAGES, 1},                         /* the last GiB that a gfn_t names */
    };
    const gfn_t start = cases[_i].start, last = start + (cases[_i].nr - 1);
    const gfn_t low = start & ~(GIB_PAGES - 1), high = last | (GIB_PAGES - 1);
    ck_assert_ptr_null(stage2_pmd(&s2, start));
    ck_assert_int_eq(stage2_cover(&s2, start, cases[_i].nr), 0);
    ck_assert_ptr_nonnull(stage2_pmd(&s2, start));
    ck_assert_ptr_nonnull(stage2_pmd(&s2, last));
    ck_assert_ptr_nonnull(stage2_pmd(&s2, low));
    ck_assert_ptr_nonnull(stage2_pmd(&s2, high));
    if (low > 0)
        ck_assert_ptr_null(stage2_pmd(&s2, low - 1));
    if (high < UINT32_MAX)
        ck_assert_ptr_null(stage2_pmd(&s2, high + 1));
    unsigned nr_level3 = (start >> 27) == (last >> 27) ? 1 : 2;
    ck_assert_uint_eq(s2.nr_tables, 1 + nr_level3 + cases[_i].nr_gib);
    ck_assert_uint_eq(stage2_metadata_bytes(&s2), s2.nr_tables * PAGE_BYTES);
    uint32_t before = s2.nr_tables;
    ck_assert_int_eq(stage2_cover(&s2, start, cases[_i].nr), 0); /* again: nothing new */
    ck_assert_uint_eq(s2.nr_tables, before);
}
END_TEST

START_TEST(test_stage2_pmd_one_entry_a_block)
{
    ck_assert_int_eq(stage2_cover(&s2, 0, GIB_PAGES), 0);
    uint64_t *first = stage2_pmd(&s2, 0);
    for (gfn_t gfn = 0; gfn < GIB_PAGES; gfn += BLOCK_PAGES) {
        ck_assert_ptr_eq(stage2_pmd(&s2, gfn), first + gfn / BLOCK_PAGES);
        ck_assert_ptr_eq(stage2_pmd(&s2, gfn + BLOCK_PAGES - 1), first + gfn / BLOCK_PAGES);
    }
    ck_assert_int_eq(stage2_cover(&s2, GIB_PAGES, GIB_PAGES), 0);
    ck_assert_ptr_eq(stage2_pmd(&s2, 0), first); /* constant */
}
END_TEST

START_TEST(test_stage2_pte_only_below_a_table)
{
    ck_assert_int_eq(stage2_cover(&s2, 0, GIB_PAGES), 0);
    ck_assert_ptr_null(stage2_pte(&s2, BLOCK_PAGES));
    ck_assert_ptr_null(stage2_pte(&s2, GIB_PAGES)); /* not covered */
    *stage2_pmd(&s2, 0) = ept->make_leaf(&(struct s2_entry){.state = S2_RESIDENT, .perm = S2_RWX}, 2);
    ck_assert_ptr_null(stage2_pte(&s2, 0));
    split(BLOCK_PAGES);
    uint64_t *pte = stage2_pte(&s2, BLOCK_PAGES);
    ck_assert_ptr_nonnull(pte);
    ck_assert_ptr_eq(stage2_pte(&s2, 2 * BLOCK_PAGES - 1), pte + BLOCK_PAGES - 1);
    ck_assert_ptr_null(stage2_pte(&s2, BLOCK_PAGES - 1));
    ck_assert_ptr_null(stage2_pte(&s2, 2 * BLOCK_PAGES));
}
END_TEST

START_TEST(test_stage2_walk_counts_references)
{
    struct s2_walk walk;
    stage2_walk(&s2, 5, &walk);
    ck_assert_uint_eq(walk.nr_refs, 1);
    ck_assert_uint_eq(walk.level, 4);
    ck_assert_uint_eq(walk.leaf.state, S2_ABSENT);

    ck_assert_int_eq(stage2_cover(&s2, 0, 1), 0);
    stage2_walk(&s2, GIB_PAGES, &walk); /* a level-3 entry that is absent */
    ck_assert_uint_eq(walk.nr_refs, 2);
    ck_assert_uint_eq(walk.level, 3);

    struct s2_entry leaf = {.state = S2_RESIDENT, .perm = S2_RWX, .payload = 1024, .age = 2};
    *stage2_pmd(&s2, 5) = ept->make_leaf(&leaf, 2);
    stage2_walk(&s2, 5, &walk);
    ck_assert_uint_eq(walk.nr_refs, 3);
    ck_assert_uint_eq(walk.level, 2);
    ck_assert_uint_eq(walk.raw[2], *stage2_pmd(&s2, 5));
    assert_same(&walk.leaf, &leaf);

    split(5);
    stage2_walk(&s2, 5, &walk);
    ck_assert_uint_eq(walk.nr_refs, 4);
    ck_assert_uint_eq(walk.level, 1);
    ck_assert_uint_eq(walk.raw[0], s2.root[0]);
    ck_assert_uint_eq(walk.raw[3], *stage2_pte(&s2, 5));
}
END_TEST

START_TEST(test_stage2_walk_huge_1g_leaf_ends_at_level_3)
{
    struct s2_walk walk;
    ck_assert_int_eq(stage2_cover(&s2, 0, 1), 0);
    uint64_t *level3 = (uint64_t *)(uintptr_t)decode(s2.root[0], 4).payload;
    struct s2_entry leaf = {.state = S2_RESIDENT, .perm = S2_RWX, .payload = 2 * GIB_PAGES};
    level3[1] = ept->make_leaf(&leaf, 3);
    stage2_walk(&s2, GIB_PAGES + 77, &walk);
    ck_assert_uint_eq(walk.nr_refs, 2);
    ck_assert_uint_eq(walk.level, 3);
    assert_same(&walk.leaf, &leaf);
}
END_TEST

/* --- split and merge --- */

START_TEST(test_stage2_split_keeps_state_age_permission)
{
    static const struct s2_entry leaves[] = {
        {.state = S2_ABSENT},
        {.state = S2_RESIDENT, .payload = 4096, .age = 7, .perm = S2_R | S2_W, .accessed = true, .dirty = true},
        {.state = S2_STANDBY, .payload = 4096, .age = 15},
        {.state = S2_BALLOON, .payload = UINT32_MAX},
        {.state = S2_FILL, .payload = 0xaaaaaaaa},
    };
    const struct s2_entry *leaf = &leaves[_i];
    uint64_t kept = leaf->state == S2_RESIDENT ? 5 : leaf->payload;
    ck_assert_int_eq(stage2_cover(&s2, 0, GIB_PAGES), 0);
    uint64_t *pmd = stage2_pmd(&s2, BLOCK_PAGES);
    *pmd = ept->make_leaf(leaf, 2);
    uint64_t *table = stage2_table_alloc(&s2);
    ck_assert_ptr_nonnull(table);
    uint32_t before = s2.nr_tables;
    stage2_split(&s2, pmd, table, 5);
    ck_assert_uint_eq(s2.nr_tables, before);
    ck_assert_uint_eq(decode(*pmd, 2).state, S2_TABLE);
    for (unsigned i = 0; i < BLOCK_PAGES; i++) {
        struct s2_entry got = decode(*stage2_pte(&s2, BLOCK_PAGES + i), 1);
        ck_assert_uint_eq(got.state, leaf->state);
        ck_assert_uint_eq(got.age, leaf->age);
        ck_assert_uint_eq(got.perm, leaf->perm);
        ck_assert_uint_eq(got.payload, leaf->state == S2_STANDBY ? kept + i : kept);
    }
    ck_assert_uint_eq(decode(*stage2_pmd(&s2, 0), 2).state, S2_ABSENT); /* neighbours are as they were */
    ck_assert_uint_eq(decode(*stage2_pmd(&s2, 2 * BLOCK_PAGES), 2).state, S2_ABSENT);

    ck_assert_ptr_eq(stage2_merge(&s2, pmd, leaf), table);
    struct s2_entry got = decode(*pmd, 2);
    assert_same(&got, leaf);
    ck_assert_ptr_null(stage2_pte(&s2, BLOCK_PAGES));
    ck_assert_uint_eq(s2.nr_tables, before);
    stage2_table_free(&s2, table);
    ck_assert_uint_eq(s2.nr_tables, before - 1);
}
END_TEST

START_TEST(test_stage2_count_by_state_partial_blocks)
{
    uint64_t pages[S2_TABLE] = {0};
    ck_assert_int_eq(stage2_cover(&s2, 0, GIB_PAGES), 0);
    *stage2_pmd(&s2, 0) = ept->make_leaf(&(struct s2_entry){.state = S2_RESIDENT, .perm = S2_RWX}, 2);
    split(BLOCK_PAGES);
    *stage2_pte(&s2, BLOCK_PAGES) = ept->make_leaf(&(struct s2_entry){.state = S2_ZRAM, .payload = 1}, 1);
    *stage2_pte(&s2, BLOCK_PAGES + 1) = ept->make_leaf(&(struct s2_entry){.state = S2_SWAP, .payload = 1}, 1);
    stage2_count(&s2, 500, 20, pages);
    ck_assert_uint_eq(pages[S2_RESIDENT], 12);
    ck_assert_uint_eq(pages[S2_ZRAM], 1);
    ck_assert_uint_eq(pages[S2_SWAP], 1);
    ck_assert_uint_eq(pages[S2_ABSENT], 6);
    memset(pages, 0, sizeof(pages));
    stage2_count(&s2, GIB_PAGES - 1, 3, pages); /* runs past what is covered */
    ck_assert_uint_eq(pages[S2_ABSENT], 3);
    memset(pages, 0, sizeof(pages));
    stage2_count(&s2, 0, 0, pages);
    ck_assert_uint_eq(pages[S2_RESIDENT], 0);
}
END_TEST

/* --- out of memory --- */

START_TEST(test_stage2_no_memory_state_unchanged)
{
    /* A slab holds several tables: use up what is left of it, then every further table has to fail. */
    uint64_t *spare[64];
    unsigned nr = 0;
    ck_assert_int_eq(stage2_cover(&s2, 0, BLOCK_PAGES), 0);
    struct s2_entry leaf = {.state = S2_STANDBY, .payload = 512, .age = 3};
    *stage2_pmd(&s2, 0) = ept->make_leaf(&leaf, 2);
    source.left = 0;
    while (nr < ARRAY_LEN(spare) && (spare[nr] = stage2_table_alloc(&s2)))
        nr++;
    ck_assert_uint_lt(nr, ARRAY_LEN(spare));
    uint32_t before = s2.nr_tables;
    ck_assert_ptr_null(stage2_table_alloc(&s2));
    ck_assert_int_eq(stage2_cover(&s2, GIB_PAGES, 1), -ENOMEM);
    ck_assert_ptr_null(stage2_pmd(&s2, GIB_PAGES));
    ck_assert_uint_eq(s2.nr_tables, before);
    struct s2_entry got = decode(*stage2_pmd(&s2, 0), 2);
    assert_same(&got, &leaf);
    source.left = -1;
    ck_assert_int_eq(stage2_cover(&s2, GIB_PAGES, 1), 0);
    ck_assert_ptr_nonnull(stage2_pmd(&s2, GIB_PAGES));
    while (nr)
        stage2_table_free(&s2, spare[--nr]);
}
END_TEST

START_TEST(test_stage2_init_and_cover_fail_at_every_page)
{
    bool covered = false;
    for (long n = 0; !covered; n++) {
        struct stage2 t;
        tables_setup();
        source.left = n;
        int err = stage2_init(&t, ept, &tables);
        if (!err) {
            err = stage2_cover(&t, 511 * GIB_PAGES, 2 * GIB_PAGES);
            covered = !err;
            ck_assert(covered == (stage2_pmd(&t, 512 * GIB_PAGES) != NULL));
            uint32_t after = t.nr_tables;
            source.left = -1;
            ck_assert_int_eq(stage2_cover(&t, 511 * GIB_PAGES, 2 * GIB_PAGES), 0);
            ck_assert_uint_le(after, t.nr_tables);
            ck_assert_uint_eq(t.nr_tables, 5); /* root, two of level 3, two of level 2 */
            stage2_fini(&t);
        }
        ck_assert(!err || err == -ENOMEM);
        ck_assert_uint_eq(t.nr_tables, 0);
        tables_teardown();
        ck_assert_int_lt(n, 100);
    }
}
END_TEST

/* --- random operations against one array entry a page --- */

struct model {
    struct s2_entry page[MODEL_PAGES];
    bool is_table[MODEL_BLOCKS];
    uint64_t seed;
};

static uint32_t model_rand(struct model *m, uint32_t below)
{
    m->seed = m->seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (uint32_t)(m->seed >> 33) % below;
}

static struct s2_entry random_leaf(struct model *m, bool whole_block)
{
    struct s2_entry entry = {.age = (uint8_t)model_rand(m, S2_AGE_MAX + 1)};
    /* What stage2.h allows at level 2. */
    static const uint8_t whole[] = {S2_ABSENT, S2_RESIDENT, S2_STANDBY, S2_BALLOON, S2_FILL, S2_UNPLUGGED};
    entry.state = whole_block ? whole[model_rand(m, ARRAY_LEN(whole))] : (uint8_t)model_rand(m, S2_TABLE);
    entry.payload = model_rand(m, 1u << 20) & (whole_block ? ~(BLOCK_PAGES - 1) : UINT32_MAX);
    if (entry.state == S2_ABSENT)
        entry = (struct s2_entry){.state = S2_ABSENT};
    if (entry.state == S2_RESIDENT)
        entry.perm = (uint8_t)(1 + model_rand(m, S2_RWX));
    return entry;
}

static void model_set_block(struct model *m, unsigned block, const struct s2_entry *leaf)
{
    for (unsigned i = 0; i < BLOCK_PAGES; i++)
        m->page[block * BLOCK_PAGES + i] = *leaf;
}

static void model_split(struct model *m, unsigned block)
{
    split(MODEL_START + block * BLOCK_PAGES);
    m->is_table[block] = true;
    for (unsigned i = 0; i < BLOCK_PAGES; i++) {
        struct s2_entry *page = &m->page[block * BLOCK_PAGES + i];
        if (page->state == S2_RESIDENT)
            page->payload = 0;
        if (page->state == S2_STANDBY)
            page->payload += i;
    }
}

static void model_merge(struct model *m, unsigned block)
{
    struct s2_entry leaf = random_leaf(m, true);
    uint64_t *pmd = stage2_pmd(&s2, MODEL_START + block * BLOCK_PAGES);
    stage2_table_free(&s2, stage2_merge(&s2, pmd, &leaf));
    m->is_table[block] = false;
    model_set_block(m, block, &leaf);
}

static void model_step(struct model *m)
{
    unsigned block = model_rand(m, MODEL_BLOCKS);
    gfn_t gfn = MODEL_START + block * BLOCK_PAGES;
    if (!m->is_table[block] && model_rand(m, 2)) {
        struct s2_entry leaf = random_leaf(m, true);
        *stage2_pmd(&s2, gfn) = ept->make_leaf(&leaf, 2);
        model_set_block(m, block, &leaf);
    } else if (!m->is_table[block]) {
        model_split(m, block);
    } else if (model_rand(m, 16) == 0) {
        model_merge(m, block);
    } else {
        unsigned i = model_rand(m, BLOCK_PAGES);
        struct s2_entry leaf = random_leaf(m, false);
        *stage2_pte(&s2, gfn + i) = ept->make_leaf(&leaf, 1);
        m->page[block * BLOCK_PAGES + i] = leaf;
    }
}

static void model_compare(const struct model *m)
{
    uint64_t expected[S2_TABLE] = {0}, counted[S2_TABLE] = {0};
    unsigned nr_tables = 4; /* root, level 3, two of level 2 */
    for (unsigned i = 0; i < MODEL_PAGES; i++) {
        struct s2_walk walk;
        stage2_walk(&s2, MODEL_START + i, &walk);
        bool below = m->is_table[i / BLOCK_PAGES];
        if (walk.level != (below ? 1 : 2) || walk.nr_refs != 5 - walk.level ||
            (stage2_pte(&s2, MODEL_START + i) != NULL) != below)
            ck_abort_msg("page %u: level %u, %u references", i, walk.level, walk.nr_refs);
        if (memcmp(&walk.leaf, &m->page[i], sizeof(walk.leaf)) != 0)
            assert_same(&walk.leaf, &m->page[i]);
        expected[m->page[i].state]++;
    }
    for (unsigned block = 0; block < MODEL_BLOCKS; block++)
        nr_tables += m->is_table[block];
    ck_assert_uint_eq(s2.nr_tables, nr_tables);
    stage2_count(&s2, MODEL_START, MODEL_PAGES, counted);
    ck_assert_mem_eq(counted, expected, sizeof(counted));
}

START_TEST(test_stage2_random_operations_match_model)
{
    static const uint64_t seeds[] = {1, 20, 300, 4000};
    static struct model m;
    memset(&m, 0, sizeof(m));
    m.seed = seeds[_i];
    ck_assert_int_eq(stage2_cover(&s2, MODEL_START, MODEL_PAGES), 0);
    for (unsigned step = 0; step < 1000; step++) {
        model_step(&m);
        model_compare(&m);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("stage2");
    TCase *entry = tcase_create("ept");
    tcase_add_test(entry, test_stage2_ept_small_leaf_bits);
    tcase_add_test(entry, test_stage2_ept_large_leaf_bits);
    tcase_add_test(entry, test_stage2_ept_away_bits);
    tcase_add_test(entry, test_stage2_ept_absent_is_zero);
    tcase_add_test(entry, test_stage2_ept_table_bits);
    tcase_add_test(entry, test_stage2_ept_any_permission_bit_is_present);
    tcase_add_test(entry, test_stage2_ept_round_trip_every_state);
    suite_add_tcase(suite, entry);
    TCase *table = tcase_create("table");
    tcase_add_checked_fixture(table, setup, teardown);
    tcase_set_timeout(table, 60);
    tcase_add_loop_test(table, test_stage2_cover_first_last_one_past, 0, 7);
    tcase_add_test(table, test_stage2_pmd_one_entry_a_block);
    tcase_add_test(table, test_stage2_pte_only_below_a_table);
    tcase_add_test(table, test_stage2_walk_counts_references);
    tcase_add_test(table, test_stage2_walk_huge_1g_leaf_ends_at_level_3);
    tcase_add_loop_test(table, test_stage2_split_keeps_state_age_permission, 0, 5);
    tcase_add_test(table, test_stage2_count_by_state_partial_blocks);
    tcase_add_test(table, test_stage2_no_memory_state_unchanged);
    tcase_add_loop_test(table, test_stage2_random_operations_match_model, 0, 4);
    suite_add_tcase(suite, table);
    TCase *memory = tcase_create("memory");
    tcase_add_test(memory, test_stage2_init_and_cover_fail_at_every_page);
    suite_add_tcase(suite, memory);
    SRunner *sr = srunner_create(suite);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}
