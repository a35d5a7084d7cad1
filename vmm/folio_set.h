/* SPDX-License-Identifier: Apache-2.0 */
/*
 * folio_set: folios of the host, by their first frame, and whether each was idle. For access_page_idle.c, which may ask the
 * kernel once a poll, however many places the folio's pages stand in. A hash table that grows; no lock: the owner's.
 */
#ifndef VMM_FOLIO_SET_H
#define VMM_FOLIO_SET_H

#include "mm/base/types.h"

/* All zero: empty. */
struct folio_set {
    uint64_t *slots; /* head * 2 + is_idle + 2, or 0; nr_slots of them, at most half of them in use */
    unsigned order;  /* nr_slots == 1 << order */
    uint64_t nr;
};

/* Frees what it holds; empty afterwards. */
void folio_set_fini(struct folio_set *set);
/* Empty, for as many again. */
void folio_set_clear(struct folio_set *set);
/* @head: < 2^62. 0, or -ENOMEM with the set as it was. It must not be there yet. */
must_check int folio_set_add(struct folio_set *set, uint64_t head, bool is_idle);
/* False: it is not there. */
bool folio_set_find(const struct folio_set *set, uint64_t head, bool *is_idle);

#endif
