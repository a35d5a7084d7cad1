/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stage-2 table of one VM: the ONE record of where each guest page is.
 *
 * A radix tree of 512-entry tables, levels 4 (top) to 1 (4 KiB), walked by generic code over an entry format
 * (stage2_ept.c: x86 EPT, Intel SDM vol. 3, 29.3). Level 4..2 tables exist for every region from the start; a level-1
 * table appears with the first page of its block. A level-2 entry is guarded by the lock of its block, and so is the
 * level-1 table under it.
 *
 *   level-2 entry:  ABSENT | TABLE | RESIDENT 2 MiB leaf (fn = its home) | STANDBY 2 MiB (fn)
 *                   | BALLOON, FILL or UNPLUGGED: all of the block is that
 *   level-1 entry:  any state but UNPLUGGED
 *
 * What an entry says:
 */
#ifndef MM_MAP_STAGE2_H
#define MM_MAP_STAGE2_H

#include "mm/base/types.h"
#include "mm/frame/slab.h"

enum s2_state {
    S2_ABSENT = 0, /* never touched, dropped, or freed: reads as zeros. The whole entry is 0 */
    S2_RESIDENT,   /* in the guest. 2 MiB: payload = fn of its home. 4 KiB: payload = its node */
    S2_STANDBY,    /* at home in slot payload = fn, content intact */
    S2_ZRAM,       /* payload: zram.h */
    S2_SWAP,       /* payload: swap_ref */
    S2_DISK,       /* payload: block of the virtual disk */
    S2_BALLOON, /* in the balloon; payload: the 32-bit word that its pages hold when they are touched, as FILL's or 0 */
    S2_POISON,  /* content lost by an I/O error: whoever touches it stops */
    S2_FILL,    /* given up by the guest: reads as the 32-bit word in payload, repeated; not 0 */
    S2_UNPLUGGED, /* not memory: nobody may touch it */
    S2_TABLE,     /* not a leaf: a lower table */
};

#define S2_R 1u
#define S2_W 2u
#define S2_X 4u
#define S2_RWX 7u
#define S2_AGE_MAX 15u
#define S2_STAMP_MAX 15u
#define S2_PAYLOAD_BITS 49

/* A decoded entry. */
struct s2_entry {
    uint64_t payload;
    uint8_t state; /* enum s2_state */
    uint8_t age;   /* 0..S2_AGE_MAX: how hot the page is, see mm/reclaim/age.h */
    uint8_t stamp; /* 0..S2_STAMP_MAX: when it left; 0 for RESIDENT */
    uint8_t perm;  /* S2_R W X; kept for RESIDENT, 0 otherwise */
    bool accessed, dirty;
};

/* Entry format: value in, value out, no memory access. */
struct s2_format {
    const char *name; /* "ept" */
    unsigned levels;  /* 4 */
    uint64_t (*make_leaf)(const struct s2_entry *entry,
                          unsigned level); /* any state but S2_TABLE; level 1 or 2 (3: 1 GiB) */
    uint64_t (*make_table)(uint64_t table_pa);
    void (*decode)(uint64_t raw, unsigned level, struct s2_entry *out); /* TABLE: payload = table_pa */
};
extern const struct s2_format s2_format_ept;

struct stage2 {
    const struct s2_format *format;
    struct slab_cache *tables; /* 4096-byte objects */
    uint64_t *root;
    uint32_t nr_tables; /* atomic; all levels */
};

/* Empty table. -ENOMEM. */
must_check int stage2_init(struct stage2 *s2, const struct s2_format *format, struct slab_cache *tables);
/* Frees all tables; what leaves name is the caller's. */
void stage2_fini(struct stage2 *s2);
/* Level 4..2 tables for [start, start + nr) exist afterwards. -ENOMEM: what was made stays and is freed by fini. */
must_check int stage2_cover(struct stage2 *s2, gfn_t start, uint32_t nr);

/*
 * stage2_pmd - address of the level-2 entry of @gfn's block; NULL outside what is covered. Constant for the VM's life.
 * stage2_pte - address of the level-1 entry, NULL when the level-2 entry is not a table.
 */
uint64_t *stage2_pmd(const struct stage2 *s2, gfn_t gfn);
uint64_t *stage2_pte(const struct stage2 *s2, gfn_t gfn);

/*
 * stage2_table_alloc - a level-1 table made beforehand (prepare), stage2_table_free gives it back unused.
 * stage2_split - the level-2 leaf or absent entry *pmd becomes @table: 512 entries of the same state, age and
 * permission; STANDBY fn, fn+1, ...; RESIDENT: @payload instead of the home. Cannot fail (commit). stage2_merge - the
 * other way: *pmd becomes @leaf; returns the table, to be freed by the caller.
 */
uint64_t *stage2_table_alloc(struct stage2 *s2);
void stage2_table_free(struct stage2 *s2, uint64_t *table);
void stage2_split(struct stage2 *s2, uint64_t *pmd, uint64_t *table, uint32_t payload);
uint64_t *stage2_merge(struct stage2 *s2, uint64_t *pmd, const struct s2_entry *leaf);

/* One walk, for show and for tests: every entry read from the root. Returns the level it ended at (4..1). */
struct s2_walk {
    unsigned nr_refs;
    uint64_t raw[4];
    unsigned level;
    struct s2_entry leaf;
};
void stage2_walk(const struct stage2 *s2, gfn_t gfn, struct s2_walk *out);

/* Pages by state. Not atomic against faults: a figure, not a proof. */
void stage2_count(const struct stage2 *s2, gfn_t start, uint32_t nr, uint64_t pages[S2_TABLE]);
uint64_t stage2_metadata_bytes(const struct stage2 *s2);

#endif
