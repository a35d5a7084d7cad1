/* SPDX-License-Identifier: Apache-2.0 */
/* The slot map: see the picture in slots.h. */
#include "mm/swap/slots.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#define NONE UINT32_MAX
#define EMPTY_BUCKET (SLOTS_NR_BUCKETS - 1)
#define BUCKET_SLOTS (SLOTS_CLUSTER / EMPTY_BUCKET)
#define WORD_BITS 64u

enum cluster_place { AT_CURRENT = SLOTS_NR_BUCKETS, AT_FULL, AT_HELD };

/* --- bitmaps of a cluster: set bits are in use ------------------------------------------------ */

/* First bit at or after @from that is @value, at most @end. */
static unsigned next_bit(const uint64_t *bits, unsigned from, unsigned end, bool value)
{
    while (from < end) {
        uint64_t word = value ? bits[from / WORD_BITS] : ~bits[from / WORD_BITS];
        word >>= from % WORD_BITS;
        if (word) {
            from += (unsigned)__builtin_ctzll(word);
            return MIN_OF(from, end);
        }
        from = (from / WORD_BITS + 1) * WORD_BITS;
    }
    return end;
}

/* The first free run of @want slots at or after @from, else the longest there is. Returns its length. */
static unsigned find_run(const struct slot_cluster *cluster, unsigned from, unsigned want, unsigned *start)
{
    unsigned best = 0;
    while (best < want) {
        unsigned first = next_bit(cluster->used, from, SLOTS_CLUSTER, false);
        if (first == SLOTS_CLUSTER)
            break;
        unsigned end = next_bit(cluster->used, first, MIN_OF(first + want, SLOTS_CLUSTER), true);
        if (end - first > best) {
            best = end - first;
            *start = first;
        }
        from = end;
    }
    return best;
}

static void set_used(struct slot_cluster *cluster, unsigned bit)
{
    cluster->used[bit / WORD_BITS] |= UINT64_C(1) << bit % WORD_BITS;
}

/* --- clusters and their lists ----------------------------------------------------------------- */

/* The slots of cluster @c that hold pages: [*first, *first + result). */
static uint64_t cluster_slots(const struct slot_map *map, uint32_t c, uint64_t *first)
{
    uint64_t start = (uint64_t)c * SLOTS_CLUSTER;
    uint64_t end = MIN_OF(start + SLOTS_CLUSTER, map->nr_slots);
    *first = MAX_OF(start, 1u);
    return end - *first;
}

static bool cluster_empty(const struct slot_map *map, uint32_t c)
{
    uint64_t first;
    return map->clusters[c].nr_free == cluster_slots(map, c, &first);
}

static unsigned place_of(const struct slot_map *map, uint32_t c)
{
    unsigned nr_free = map->clusters[c].nr_free;
    if (nr_free == 0)
        return AT_FULL;
    return cluster_empty(map, c) ? EMPTY_BUCKET : (nr_free - 1) / BUCKET_SLOTS;
}

static void unfile(struct slot_map *map, uint32_t c)
{
    struct slot_cluster *cluster = &map->clusters[c];
    if (cluster->place >= SLOTS_NR_BUCKETS)
        return;
    if (cluster->prev == NONE)
        map->bucket[cluster->place] = cluster->next;
    else
        map->clusters[cluster->prev].next = cluster->next;
    if (cluster->next != NONE)
        map->clusters[cluster->next].prev = cluster->prev;
}

/* Puts a cluster that is on no list where its free slots say. */
static void file(struct slot_map *map, uint32_t c)
{
    struct slot_cluster *cluster = &map->clusters[c];
    cluster->place = (uint8_t)place_of(map, c);
    if (cluster->place >= SLOTS_NR_BUCKETS)
        return;
    uint32_t *head = &map->bucket[cluster->place];
    cluster->prev = NONE;
    cluster->next = *head;
    if (*head != NONE)
        map->clusters[*head].prev = c;
    *head = c;
}

static uint32_t open_cluster(struct slot_map *map)
{
    if (map->nr_opened == map->nr_clusters)
        return NONE;
    uint32_t c = map->nr_opened++;
    struct slot_cluster *cluster = &map->clusters[c];
    uint64_t first, nr = cluster_slots(map, c, &first);
    cluster->nr_free = (uint16_t)nr;
    if (c == 0)
        set_used(cluster, 0);
    for (unsigned bit = (unsigned)(first % SLOTS_CLUSTER + nr); bit < SLOTS_CLUSTER; bit++)
        set_used(cluster, bit);
    cluster->place = AT_HELD;
    return c;
}

static uint32_t find_empty(struct slot_map *map)
{
    uint32_t c = map->bucket[EMPTY_BUCKET];
    return c != NONE ? c : open_cluster(map);
}

static uint32_t find_roomiest(const struct slot_map *map)
{
    for (unsigned b = EMPTY_BUCKET; b-- > 0;)
        if (map->bucket[b] != NONE)
            return map->bucket[b];
    return NONE;
}

static void make_current(struct slot_map *map, uint32_t c)
{
    if (map->current != NONE)
        file(map, map->current);
    unfile(map, c);
    map->clusters[c].place = AT_CURRENT;
    map->current = c;
    map->cursor = 0;
}

/* --- what slots.h offers ---------------------------------------------------------------------- */

int slots_init(struct slot_map *map, uint64_t nr_slots)
{
    if (nr_slots < 2 || nr_slots > UINT64_C(1) << 32)
        return -EINVAL;
    *map = (struct slot_map){.nr_slots = nr_slots, .current = NONE};
    map->nr_clusters = (uint32_t)((nr_slots + SLOTS_CLUSTER - 1) / SLOTS_CLUSTER);
    for (unsigned b = 0; b < SLOTS_NR_BUCKETS; b++)
        map->bucket[b] = NONE;
    map->clusters = calloc(map->nr_clusters, sizeof(*map->clusters));
    map->count = calloc(nr_slots, sizeof(*map->count));
    map->sum = calloc(nr_slots, sizeof(*map->sum));
    if (map->clusters && map->count && map->sum)
        return 0;
    slots_fini(map);
    return -ENOMEM;
}

void slots_fini(struct slot_map *map)
{
    free(map->clusters);
    free(map->count);
    free(map->sum);
    *map = (struct slot_map){0};
}

/* Finds a run in the current cluster, or in one that becomes current. */
static unsigned find_slots(struct slot_map *map, unsigned want, unsigned *start)
{
    unsigned nr = map->current == NONE ? 0 : find_run(&map->clusters[map->current], map->cursor, want, start);
    if (nr == want)
        return nr;
    uint32_t c = find_empty(map);
    if (c == NONE && nr == 0) {
        c = find_roomiest(map);
        /* Slots may have come free behind the cursor of a current cluster that is the last with room. */
        if (c == NONE && map->current != NONE)
            c = map->current;
    }
    if (c == NONE)
        return nr;
    make_current(map, c);
    return find_run(&map->clusters[c], 0, want, start);
}

unsigned slots_alloc(struct slot_map *map, unsigned want, uint64_t *first)
{
    unsigned start = 0;
    if (map->nr_used == map->nr_slots - 1)
        return 0;
    unsigned nr = find_slots(map, MIN_OF(want, SLOTS_CLUSTER), &start);
    if (nr == 0)
        return 0;
    struct slot_cluster *cluster = &map->clusters[map->current];
    *first = (uint64_t)map->current * SLOTS_CLUSTER + start;
    for (unsigned i = 0; i < nr; i++) {
        set_used(cluster, start + i);
        map->count[*first + i] = 1;
    }
    cluster->nr_free = (uint16_t)(cluster->nr_free - nr);
    map->cursor = start + nr;
    map->nr_used += nr;
    map->nr_uses += nr;
    return nr;
}

int slots_dup(struct slot_map *map, uint64_t slot)
{
    assert(slot < map->nr_slots && map->count[slot] > 0);
    if (map->count[slot] == UINT16_MAX)
        return -EOVERFLOW;
    map->count[slot]++;
    map->nr_uses++;
    return 0;
}

bool slots_put(struct slot_map *map, uint64_t slot)
{
    assert(slot < map->nr_slots && map->count[slot] > 0);
    map->nr_uses--;
    if (--map->count[slot] > 0)
        return false;
    uint32_t c = (uint32_t)(slot / SLOTS_CLUSTER);
    struct slot_cluster *cluster = &map->clusters[c];
    unsigned bit = slot % SLOTS_CLUSTER;
    cluster->used[bit / WORD_BITS] &= ~(UINT64_C(1) << bit % WORD_BITS);
    cluster->nr_free++;
    map->nr_used--;
    if (cluster->place != AT_CURRENT && cluster->place != place_of(map, c)) {
        unfile(map, c);
        file(map, c);
    }
    bool empty = cluster_empty(map, c);
    if (empty && c == map->current)
        map->cursor = 0;
    return empty;
}

void slots_hold(struct slot_map *map, uint64_t slot, uint64_t *first, uint64_t *nr)
{
    uint32_t c = (uint32_t)(slot / SLOTS_CLUSTER);
    assert(cluster_empty(map, c));
    if (map->current == c)
        map->current = NONE;
    unfile(map, c);
    map->clusters[c].place = AT_HELD;
    map->nr_held++;
    *nr = cluster_slots(map, c, first);
}

void slots_unhold(struct slot_map *map, uint64_t slot)
{
    uint32_t c = (uint32_t)(slot / SLOTS_CLUSTER);
    assert(map->clusters[c].place == AT_HELD);
    map->nr_held--;
    file(map, c);
}

uint64_t slots_metadata_bytes(const struct slot_map *map)
{
    uint64_t per_cluster = sizeof(*map->clusters) + SLOTS_CLUSTER * (sizeof(*map->count) + sizeof(*map->sum));
    return map->nr_opened * per_cluster;
}

/* --- check ------------------------------------------------------------------------------------ */

static bool fail(const char **why, const char *text)
{
    *why = text;
    return false;
}

static bool check_cluster(const struct slot_map *map, uint32_t c, uint64_t *nr_used, uint64_t *nr_uses,
                          const char **why)
{
    const struct slot_cluster *cluster = &map->clusters[c];
    unsigned nr_free = 0;
    for (unsigned bit = 0; bit < SLOTS_CLUSTER; bit++) {
        uint64_t slot = (uint64_t)c * SLOTS_CLUSTER + bit;
        bool used = cluster->used[bit / WORD_BITS] >> bit % WORD_BITS & 1;
        bool exists = slot > 0 && slot < map->nr_slots;
        if (!exists && !used)
            return fail(why, "slots: a slot that is not there is free");
        if (exists && used != (map->count[slot] > 0))
            return fail(why, "slots: bitmap and use count differ");
        nr_free += !used;
        *nr_used += exists && used;
        *nr_uses += exists ? map->count[slot] : 0;
    }
    if (nr_free != cluster->nr_free)
        return fail(why, "slots: wrong number of free slots in a cluster");
    if (cluster->place == AT_CURRENT)
        return c == map->current || fail(why, "slots: two current clusters");
    if (cluster->place == AT_HELD)
        return cluster_empty(map, c) || fail(why, "slots: a held cluster is not empty");
    return cluster->place == place_of(map, c) || fail(why, "slots: cluster in the wrong bucket");
}

static bool check_lists(const struct slot_map *map, const char **why)
{
    uint64_t nr_listed = 0, nr_filed = 0, nr_held = 0;
    for (unsigned b = 0; b < SLOTS_NR_BUCKETS; b++) {
        uint32_t prev = NONE;
        for (uint32_t c = map->bucket[b]; c != NONE; prev = c, c = map->clusters[c].next) {
            if (c >= map->nr_opened || map->clusters[c].place != b || map->clusters[c].prev != prev)
                return fail(why, "slots: broken bucket list");
            nr_listed++;
        }
    }
    for (uint32_t c = 0; c < map->nr_opened; c++) {
        nr_filed += map->clusters[c].place < SLOTS_NR_BUCKETS;
        nr_held += map->clusters[c].place == AT_HELD;
    }
    if (nr_held != map->nr_held)
        return fail(why, "slots: wrong number of held clusters");
    return nr_listed == nr_filed || fail(why, "slots: a cluster is lost from its bucket");
}

bool slots_check(const struct slot_map *map, const char **why)
{
    uint64_t nr_used = 0, nr_uses = 0;
    if (map->nr_opened > map->nr_clusters)
        return fail(why, "slots: more clusters opened than there are");
    if (map->current != NONE && (map->current >= map->nr_opened || map->clusters[map->current].place != AT_CURRENT))
        return fail(why, "slots: the current cluster does not know it");
    for (uint32_t c = 0; c < map->nr_opened; c++)
        if (!check_cluster(map, c, &nr_used, &nr_uses, why))
            return false;
    if (nr_used != map->nr_used)
        return fail(why, "slots: nr_used is not the number of slots in use");
    if (nr_uses != map->nr_uses)
        return fail(why, "slots: nr_uses is not the sum of the use counts");
    return check_lists(map, why);
}
