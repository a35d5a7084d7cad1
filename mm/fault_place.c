/* SPDX-License-Identifier: Apache-2.0 */
/* See fault_parts.h: pages are in the guest. */
#include "mm/fault_parts.h"
#include "mm/policy/access_note.h"
#include "mm/reclaim/age.h"
#include "mm/reclaim/evict.h"

void fault_enter_resident(struct fault *f, unsigned index, uint32_t nr, unsigned node)
{
    access_came_pages(f->block, nr, f->index - index < nr, f->locked_ns);
    for (unsigned i = index; i < index + nr; i++) {
        struct s2_entry old = pte_read(f->block, i);
        struct s2_entry new = {.state = S2_RESIDENT, .perm = S2_RWX};
        if (f->block->access.panel)
            f->sampled |= access_came(f->block, i, &old, i == f->index, f->locked_ns);
        /* those that come along are about to be touched by the same one */
        new.payload = resident_payload(node, fault_touch_note(f));
        if (old.state == S2_STANDBY)
            new.age = standby_is_armed(old.payload) ? old.age : age_from_standby(old.age);
        else if (old.state == S2_ZRAM || old.state == S2_SWAP)
            new.age = evict_age_back(f->host, &old);
        pte_write(f->block, i, &old, &new);
    }
    lru_add_block(f->host, f->block, node);
}

int fault_place_copy(struct fault *f, unsigned index, const void *src, uint32_t nr, uint32_t *done)
{
    *done = 0;
    int err =
        f->host->ops->place_copy(f->host->ops_ctx, f->block->vm->id, f->block->start + index, src, nr, f->node, done);
    f->thread->charged[f->node] -= *done;
    wish_count(f->host, &f->wish, f->node, *done);
    return err;
}

/* ---- sequences ---- */

/* Pages that a sequence may have run over, because they were there, between two faults. Chosen, unmeasured. */
#define SEQUENCE_MAX_GAP 64u

static bool all_resident(const struct block *block, unsigned start, unsigned end)
{
    if (pmd_read(block).state != S2_TABLE)
        return start == end;
    while (start < end && pte_read(block, start).state == S2_RESIDENT)
        start++;
    return start == end;
}

uint32_t fault_sequence_window(const struct fault *f)
{
    const struct block *block = f->block, *before = NULL;
    unsigned next = block->ra_next;
    if (next > 0 && next <= f->index && f->index - next < SEQUENCE_MAX_GAP && all_resident(block, next, f->index))
        return block->ra_window * 2u;
    if (f->index < SEQUENCE_MAX_GAP && block->start >= BLOCK_PAGES)
        before = vm_block(block->vm, block->start - BLOCK_PAGES);
    if (!before || __atomic_load_n(&before->ra_next, __ATOMIC_RELAXED) < BLOCK_PAGES - SEQUENCE_MAX_GAP ||
        !all_resident(block, 0, f->index))
        return 0;
    return __atomic_load_n(&before->ra_window, __ATOMIC_RELAXED) * 2u;
}

void fault_sequence_note(struct fault *f, unsigned end, uint32_t window)
{
    __atomic_store_n(&f->block->ra_next, (uint16_t)end, __ATOMIC_RELAXED);
    __atomic_store_n(&f->block->ra_window, (uint8_t)MIN_OF(window, MM_BUFFER_PAGES), __ATOMIC_RELAXED);
}
