/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The slot map of one swap area: which slots are in use, how often, and what their content's checksum is.
 *
 *   slot      0 is the header; 1 .. nr_slots-1 hold a page each
 *   cluster   256 neighbouring slots with a bitmap; the unit in which room is looked for
 *
 *     opened ------------------------------------------->|<-- never used: memory not touched yet
 *     [current] [full] [bucket 8: empty] [bucket 0..7: by free slots] ...
 *
 * Slots come from the current cluster in rising order. When its rest has no run that is long enough, the cluster goes
 * to the bucket of its free slots, and the next one is: an empty one, one never used, the one with most room. So an
 * allocation looks at two bitmaps of 256 bits at most, however full and however large the area is.
 *
 * Invariants (slots_check):
 *   bit set in cluster.used  <=>  count[slot] > 0, or no such slot (0, and past the end)
 *   nr_free = clear bits;  nr_used = sum over clusters of slots in use;  nr_uses = sum of count[]
 *   a cluster is on the list of its bucket, or current, or full, or held
 *
 * No lock: swap_set.lock guards it all but sum[], whose entry belongs to the slot's user.
 */
#ifndef MM_SWAP_SLOTS_H
#define MM_SWAP_SLOTS_H

#include "mm/swap/area.h"

#define SLOTS_CLUSTER SWAP_CLUSTER_SLOTS
#define SLOTS_NR_BUCKETS 9u /* 0..7: 1-32, 33-64 .. free slots; 8: all free */

struct slot_cluster {
    uint64_t used[SLOTS_CLUSTER / 64];
    uint32_t next, prev; /* bucket list */
    uint16_t nr_free;
    uint8_t place; /* bucket, or one of enum cluster_place */
};

struct slot_map {
    uint64_t nr_slots; /* header included */
    uint64_t nr_used;  /* slots with a count */
    uint64_t nr_uses;  /* sum of the counts */
    uint32_t nr_clusters, nr_opened;
    uint32_t nr_held; /* clusters that slots_hold took out */
    uint32_t current; /* cluster, or none */
    uint32_t cursor;  /* next slot to look at in the current cluster, 0..256 */
    uint32_t bucket[SLOTS_NR_BUCKETS];
    struct slot_cluster *clusters;
    uint16_t *count;
    uint32_t *sum;
};

/* @nr_slots 2..2^32. -EINVAL, -ENOMEM: nothing remains. The memory is touched only as clusters are used. */
must_check int slots_init(struct slot_map *map, uint64_t nr_slots);
void slots_fini(struct slot_map *map);

/* Up to @want (at least 1) neighbouring free slots, each with count 1 afterwards. Returns how many; 0: full. */
unsigned slots_alloc(struct slot_map *map, unsigned want, uint64_t *first);
/* One use more. -EOVERFLOW at 65535: unchanged. */
must_check int slots_dup(struct slot_map *map, uint64_t slot);
/* One use less. True when the slot's whole cluster is empty now. */
bool slots_put(struct slot_map *map, uint64_t slot);

/*
 * slots_hold - takes the empty cluster of @slot out of allocation; [*first, *first + *nr) are its slots.
 * slots_unhold - puts it back.
 */
void slots_hold(struct slot_map *map, uint64_t slot, uint64_t *first, uint64_t *nr);
void slots_unhold(struct slot_map *map, uint64_t slot);

/* Memory of the clusters opened so far, and of the map itself. */
uint64_t slots_metadata_bytes(const struct slot_map *map);
bool slots_check(const struct slot_map *map, const char **why);

#endif
