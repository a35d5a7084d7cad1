/* SPDX-License-Identifier: Apache-2.0 */
/* Open addressing: the next free slot after the hash's. */
#include "vmm/folio_set.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_ORDER 8u

static uint64_t nr_slots(const struct folio_set *set)
{
    return set->slots ? UINT64_C(1) << set->order : 0;
}

/* The slot that has @head, or the free one where it belongs: there is one, for half of them are free. */
static uint64_t *slot_of(const struct folio_set *set, uint64_t head)
{
    uint64_t mask = nr_slots(set) - 1, at = head * UINT64_C(0x9e3779b97f4a7c15) >> (64 - set->order);
    while (set->slots[at] && set->slots[at] / 2 - 1 != head)
        at = (at + 1) & mask;
    return &set->slots[at];
}

void folio_set_fini(struct folio_set *set)
{
    free(set->slots);
    *set = (struct folio_set){0};
}

void folio_set_clear(struct folio_set *set)
{
    if (set->nr)
        memset(set->slots, 0, nr_slots(set) * sizeof(*set->slots));
    set->nr = 0;
}

static int grow(struct folio_set *set)
{
    struct folio_set more = {.order = set->slots ? set->order + 1 : FIRST_ORDER, .nr = set->nr};
    more.slots = calloc(UINT64_C(1) << more.order, sizeof(*more.slots));
    if (!more.slots)
        return -ENOMEM;
    for (uint64_t i = 0; i < nr_slots(set); i++)
        if (set->slots[i])
            *slot_of(&more, set->slots[i] / 2 - 1) = set->slots[i];
    free(set->slots);
    *set = more;
    return 0;
}

int folio_set_add(struct folio_set *set, uint64_t head, bool is_idle)
{
    int err = 2 * (set->nr + 1) > nr_slots(set) ? grow(set) : 0;
    if (err)
        return err;
    *slot_of(set, head) = head * 2 + is_idle + 2;
    set->nr++;
    return 0;
}

bool folio_set_find(const struct folio_set *set, uint64_t head, bool *is_idle)
{
    uint64_t slot = set->nr ? *slot_of(set, head) : 0;
    *is_idle = slot & 1;
    return slot;
}
