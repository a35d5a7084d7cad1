/* SPDX-License-Identifier: Apache-2.0 */
/*
 * x86 EPT entries (Intel SDM vol. 3C, 29.3.2, tables 29-1 to 29-7).
 *
 *   present   63:56 0 | 55:52 age | 51:12 address | 11:10 0 | 9 D | 8 A | 7 large | 6 0 | 5:3 memory type | 2:0 XWR
 *   absent    63:15 payload | 14:11 stamp | 10:7 age | 6:3 state | 2:0 zero
 *
 * Hardware looks at no other bit of an entry whose bits 2:0 are zero, so all of the rest is ours. In a present entry
 * bits 52..55 are ignored by hardware in every mode.
 */
#include "mm/map/stage2.h"

#define EPT_MEMTYPE_WB (UINT64_C(6) << 3)
#define EPT_LARGE (UINT64_C(1) << 7)
#define EPT_ACCESSED (UINT64_C(1) << 8)
#define EPT_DIRTY (UINT64_C(1) << 9)
#define EPT_AGE_SHIFT 52
#define EPT_ADDRESS UINT64_C(0x000ffffffffff000)

#define AWAY_STATE_SHIFT 3
#define AWAY_AGE_SHIFT 7
#define AWAY_STAMP_SHIFT 11
#define AWAY_PAYLOAD_SHIFT 15

static uint64_t ept_make_leaf(const struct s2_entry *entry, unsigned level)
{
    if (entry->state == S2_ABSENT)
        return 0;
    if (entry->state != S2_RESIDENT)
        return (entry->payload << AWAY_PAYLOAD_SHIFT) | ((uint64_t)entry->stamp << AWAY_STAMP_SHIFT) |
               ((uint64_t)entry->age << AWAY_AGE_SHIFT) | ((uint64_t)entry->state << AWAY_STATE_SHIFT);
    uint64_t raw = ((entry->payload << PAGE_SHIFT) & EPT_ADDRESS) | ((uint64_t)entry->age << EPT_AGE_SHIFT) |
                   EPT_MEMTYPE_WB | (entry->perm & S2_RWX);
    if (level > 1)
        raw |= EPT_LARGE;
    if (entry->accessed)
        raw |= EPT_ACCESSED;
    if (entry->dirty)
        raw |= EPT_DIRTY;
    return raw;
}

static uint64_t ept_make_table(uint64_t table_pa)
{
    return (table_pa & EPT_ADDRESS) | S2_RWX;
}

static void ept_decode(uint64_t raw, unsigned level, struct s2_entry *out)
{
    *out = (struct s2_entry){.state = S2_ABSENT};
    if (!(raw & S2_RWX)) {
        out->state = (uint8_t)((raw >> AWAY_STATE_SHIFT) & 15u);
        out->age = (uint8_t)((raw >> AWAY_AGE_SHIFT) & S2_AGE_MAX);
        out->stamp = (uint8_t)((raw >> AWAY_STAMP_SHIFT) & S2_STAMP_MAX);
        out->payload = raw >> AWAY_PAYLOAD_SHIFT;
        return;
    }
    if (level > 1 && !(raw & EPT_LARGE)) {
        out->state = S2_TABLE;
        out->payload = raw & EPT_ADDRESS;
        return;
    }
    out->state = S2_RESIDENT;
    out->payload = (raw & EPT_ADDRESS) >> PAGE_SHIFT;
    out->age = (uint8_t)((raw >> EPT_AGE_SHIFT) & S2_AGE_MAX);
    out->perm = (uint8_t)(raw & S2_RWX);
    out->accessed = raw & EPT_ACCESSED;
    out->dirty = raw & EPT_DIRTY;
}

const struct s2_format s2_format_ept = {
    .name = "ept",
    .levels = 4,
    .make_leaf = ept_make_leaf,
    .make_table = ept_make_table,
    .decode = ept_decode,
};
