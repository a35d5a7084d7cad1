/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The generic walker. Tables are named by their address in this process: the table is Ebb's own record in hardware's
 * format, KVM keeps the one that the CPU reads.
 */
#include "mm/map/stage2.h"

#include <errno.h>
#include <string.h>

#define TABLE_ENTRIES 512u

static unsigned index_at(gfn_t gfn, unsigned level)
{
    return (unsigned)(((uint64_t)gfn >> (BLOCK_ORDER * (level - 1))) & (TABLE_ENTRIES - 1));
}

/* The table that @raw, an entry of @level, points to, or NULL. */
static uint64_t *lower_table(const struct stage2 *s2, uint64_t raw, unsigned level)
{
    struct s2_entry entry;
    s2->format->decode(raw, level, &entry);
    return entry.state == S2_TABLE ? (uint64_t *)(uintptr_t)entry.payload : NULL;
}

uint64_t *stage2_table_alloc(struct stage2 *s2)
{
    uint64_t *table = slab_alloc(s2->tables);
    if (!table)
        return NULL;
    memset(table, 0, PAGE_BYTES);
    __atomic_add_fetch(&s2->nr_tables, 1, __ATOMIC_RELAXED);
    return table;
}

void stage2_table_free(struct stage2 *s2, uint64_t *table)
{
    if (!table)
        return;
    slab_free(s2->tables, table);
    __atomic_sub_fetch(&s2->nr_tables, 1, __ATOMIC_RELAXED);
}

int stage2_init(struct stage2 *s2, const struct s2_format *format, struct slab_cache *tables)
{
    *s2 = (struct stage2){.format = format, .tables = tables};
    s2->root = stage2_table_alloc(s2);
    return s2->root ? 0 : -ENOMEM;
}

static void free_below(struct stage2 *s2, uint64_t *table, unsigned level)
{
    for (unsigned i = 0; level > 1 && i < TABLE_ENTRIES; i++)
        if (table[i]) {
            uint64_t *lower = lower_table(s2, table[i], level);
            if (lower)
                free_below(s2, lower, level - 1);
        }
    stage2_table_free(s2, table);
}

void stage2_fini(struct stage2 *s2)
{
    if (s2->root)
        free_below(s2, s2->root, s2->format->levels);
    s2->root = NULL;
}

int stage2_cover(struct stage2 *s2, gfn_t start, uint32_t nr)
{
    uint64_t end = (uint64_t)start + nr;
    uint64_t step = UINT64_C(1) << (2 * BLOCK_ORDER); /* pages under one level-2 table: 1 GiB */
    for (uint64_t gfn = start & ~(step - 1); gfn < end; gfn += step) {
        uint64_t *table = s2->root;
        for (unsigned level = s2->format->levels; level > 2; level--) {
            uint64_t *entry = &table[index_at((gfn_t)gfn, level)];
            if (!*entry) {
                uint64_t *lower = stage2_table_alloc(s2);
                if (!lower)
                    return -ENOMEM;
                *entry = s2->format->make_table((uintptr_t)lower);
            }
            table = lower_table(s2, *entry, level);
        }
    }
    return 0;
}

uint64_t *stage2_pmd(const struct stage2 *s2, gfn_t gfn)
{
    uint64_t *table = s2->root;
    for (unsigned level = s2->format->levels; table && level > 2; level--)
        table = lower_table(s2, table[index_at(gfn, level)], level);
    return table ? &table[index_at(gfn, 2)] : NULL;
}

uint64_t *stage2_pte(const struct stage2 *s2, gfn_t gfn)
{
    uint64_t *pmd = stage2_pmd(s2, gfn);
    uint64_t *table = pmd ? lower_table(s2, *pmd, 2) : NULL;
    return table ? &table[index_at(gfn, 1)] : NULL;
}

void stage2_split(struct stage2 *s2, uint64_t *pmd, uint64_t *table, uint32_t payload)
{
    struct s2_entry entry;
    s2->format->decode(*pmd, 2, &entry);
    if (entry.state == S2_RESIDENT)
        entry.payload = payload;
    for (unsigned i = 0; i < TABLE_ENTRIES; i++) {
        table[i] = s2->format->make_leaf(&entry, 1);
        if (entry.state == S2_STANDBY)
            entry.payload++;
    }
    *pmd = s2->format->make_table((uintptr_t)table);
}

uint64_t *stage2_merge(struct stage2 *s2, uint64_t *pmd, const struct s2_entry *leaf)
{
    uint64_t *table = lower_table(s2, *pmd, 2);
    *pmd = s2->format->make_leaf(leaf, 2);
    return table;
}

void stage2_walk(const struct stage2 *s2, gfn_t gfn, struct s2_walk *out)
{
    *out = (struct s2_walk){.level = s2->format->levels};
    uint64_t *table = s2->root;
    for (;;) {
        uint64_t raw = table[index_at(gfn, out->level)];
        out->raw[out->nr_refs++] = raw;
        s2->format->decode(raw, out->level, &out->leaf);
        if (out->leaf.state != S2_TABLE)
            return;
        table = (uint64_t *)(uintptr_t)out->leaf.payload;
        out->level--;
    }
}

void stage2_count(const struct stage2 *s2, gfn_t start, uint32_t nr, uint64_t pages[S2_TABLE])
{
    struct s2_entry entry;
    uint64_t end = (uint64_t)start + nr;
    for (uint64_t gfn = start; gfn < end;) {
        const uint64_t *pmd = stage2_pmd(s2, (gfn_t)gfn);
        uint64_t block_end = MIN_OF(end, (gfn | (BLOCK_PAGES - 1)) + 1);
        const uint64_t *table = pmd ? lower_table(s2, *pmd, 2) : NULL;
        if (!table) {
            entry.state = S2_ABSENT;
            if (pmd)
                s2->format->decode(*pmd, 2, &entry);
            pages[entry.state] += block_end - gfn;
            gfn = block_end;
            continue;
        }
        for (; gfn < block_end; gfn++) {
            s2->format->decode(table[gfn & (BLOCK_PAGES - 1)], 1, &entry);
            pages[entry.state]++;
        }
    }
}

uint64_t stage2_metadata_bytes(const struct stage2 *s2)
{
    return __atomic_load_n(&s2->nr_tables, __ATOMIC_RELAXED) * PAGE_BYTES;
}
