/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A slab is 2^order pages, aligned to its size, so that an object leads to it by a mask:
 *
 *     base                 objects
 *     | struct slab, links | colour | object 0 | object 1 | ... | rest |      header in the slab
 *     | object 0 | object 1 | ...                               |             header off-slab
 *
 * link[i] chains the free objects by index and marks the used ones, outside the objects: a constructed object keeps
 * its content while it is free, and a second free is seen.
 *
 * Off-slab headers are objects of a second cache, `heads`. It and the hash table that finds a header by the slab's
 * base share one page, which lives while the cache has slabs. 480 buckets: chains stay at one up to 15 MiB of 4 KiB
 * objects (7.5 GiB of guest in 4 KiB page tables), and only slab_free walks them.
 */
#include <errno.h>

#include "mm/frame/slab.h"

#define MAX_SLAB_ORDER 3 /* 8 pages, chosen, unmeasured: Linux's slab takes as much for large objects */
#define MIN_ALIGN_BYTES 8
#define LINK_END 0xffff  /* last free object */
#define LINK_USED 0xfffe /* not free */
#define NR_BUCKETS 480

struct slab {
    struct slab *next, *prev; /* one of the cache's three lists */
    struct slab *next_hash;   /* offslab.bucket */
    struct slab_cache *cache;
    char *base, *objects;
    uint16_t nr_used, first_free;
    uint16_t link[];
};

struct offslab {
    struct slab_cache heads; /* guarded by the lock of the cache it serves; its own is not used */
    struct slab *bucket[NR_BUCKETS];
};
_Static_assert(sizeof(struct offslab) <= PAGE_BYTES, "it is given one page");

static void require(bool ok)
{
    if (!ok)
        __builtin_trap();
}

static size_t round_up(size_t bytes, size_t align)
{
    return (bytes + align - 1) & ~(align - 1);
}

static size_t slab_bytes(const struct slab_cache *cache)
{
    return (size_t)PAGE_BYTES << cache->order;
}

static size_t header_bytes(uint32_t nr_objects)
{
    return sizeof(struct slab) + nr_objects * sizeof(uint16_t);
}

static bool is_offslab(const struct slab_cache *cache)
{
    return cache->stride_bytes == PAGE_BYTES;
}

/* Bytes of a slab that hold neither an object nor its link: alignment and rest. Sets nr_per_slab for the order. */
static size_t fit_objects(struct slab_cache *cache)
{
    size_t bytes = slab_bytes(cache), stride = cache->stride_bytes;
    uint32_t nr = (uint32_t)((bytes - sizeof(struct slab)) / (stride + sizeof(uint16_t)));
    while (round_up(header_bytes(nr), cache->align_bytes) + nr * stride > bytes)
        nr--;
    cache->nr_per_slab = nr;
    return bytes - nr * (stride + sizeof(uint16_t));
}

/* Smallest order that wastes at most an eighth, else the largest. */
static void choose_order(struct slab_cache *cache)
{
    if (is_offslab(cache)) {
        cache->order = MAX_SLAB_ORDER;
        cache->nr_per_slab = 1u << MAX_SLAB_ORDER;
        return;
    }
    for (cache->order = 0; fit_objects(cache) * 8 > slab_bytes(cache); cache->order++) {
        if (cache->order == MAX_SLAB_ORDER)
            break;
    }
}

int slab_cache_init(struct slab_cache *cache, const char *name, uint32_t object_bytes, uint32_t align_bytes,
                    void (*ctor)(void *), const struct slab_pages *pages)
{
    if (object_bytes < 8 || object_bytes > PAGE_BYTES)
        return -EINVAL;
    if (align_bytes > PAGE_BYTES || (align_bytes & (align_bytes - 1)))
        return -EINVAL;
    uint32_t align = MAX_OF(align_bytes, (uint32_t)MIN_ALIGN_BYTES);
    *cache = (struct slab_cache){
        .name = name, .object_bytes = object_bytes, .align_bytes = align, .ctor = ctor, .pages = *pages};
    cache->stride_bytes = (uint32_t)round_up(object_bytes, align);
    choose_order(cache);
    lock_init(&cache->lock, LOCK_SLAB);
    return 0;
}

/* Lists. */

static struct slab **list_of(struct slab_cache *cache, const struct slab *slab)
{
    if (!slab->nr_used)
        return &cache->free;
    return slab->nr_used == cache->nr_per_slab ? &cache->full : &cache->partial;
}

static void enlist(struct slab_cache *cache, struct slab *slab)
{
    struct slab **list = list_of(cache, slab);
    slab->prev = NULL;
    slab->next = *list;
    if (*list)
        (*list)->prev = slab;
    *list = slab;
    if (list == &cache->free)
        cache->nr_free_slabs++;
}

static void delist(struct slab_cache *cache, struct slab *slab)
{
    struct slab **list = list_of(cache, slab);
    if (slab->prev)
        slab->prev->next = slab->next;
    else
        *list = slab->next;
    if (slab->next)
        slab->next->prev = slab->prev;
    if (list == &cache->free)
        cache->nr_free_slabs--;
    cache->nr_free_untouched = MIN_OF(cache->nr_free_untouched, cache->nr_free_slabs);
}

/* Off-slab headers. */

static void *alloc_locked(struct slab_cache *cache);
static void free_locked(struct slab_cache *cache, void *object);
static uint32_t release_free_locked(struct slab_cache *cache, uint32_t nr);

static struct slab **bucket_of(const struct slab_cache *cache, const char *base)
{
    return &cache->offslab->bucket[(uintptr_t)base / slab_bytes(cache) % NR_BUCKETS];
}

static bool get_offslab(struct slab_cache *cache)
{
    if (cache->offslab)
        return true;
    struct offslab *off = cache->pages.get(cache->pages.ctx, 0);
    if (!off)
        return false;
    *off = (struct offslab){.bucket = {NULL}};
    int err =
        slab_cache_init(&off->heads, cache->name, (uint32_t)header_bytes(cache->nr_per_slab), 0, NULL, &cache->pages);
    require(!err);
    cache->offslab = off;
    return true;
}

/* Gives back what the headers do not need any more; returns pages. */
static uint32_t trim_offslab(struct slab_cache *cache)
{
    struct offslab *off = cache->offslab;
    if (!off)
        return 0;
    uint32_t pages = release_free_locked(&off->heads, off->heads.nr_free_slabs);
    if (cache->nr_slabs)
        return pages;
    lock_fini(&off->heads.lock);
    cache->offslab = NULL;
    cache->pages.put(cache->pages.ctx, off, 0);
    return pages + 1;
}

/* The header of the slab that has @object; NULL when no slab of this cache has. */
static struct slab *slab_of(const struct slab_cache *cache, const void *object)
{
    char *base = (char *)((uintptr_t)object & ~(slab_bytes(cache) - 1));
    if (!is_offslab(cache)) {
        struct slab *slab = (void *)base;
        return slab->cache == cache ? slab : NULL;
    }
    if (!cache->offslab)
        return NULL;
    struct slab *slab = *bucket_of(cache, base);
    while (slab && slab->base != base)
        slab = slab->next_hash;
    return slab;
}

/* Slabs. */

static struct slab *get_header(struct slab_cache *cache, char *base)
{
    if (!is_offslab(cache))
        return (void *)base;
    struct slab *slab = alloc_locked(&cache->offslab->heads);
    if (!slab)
        return NULL;
    struct slab **bucket = bucket_of(cache, base);
    slab->next_hash = *bucket;
    *bucket = slab;
    return slab;
}

static void put_header(struct slab_cache *cache, struct slab *slab)
{
    if (!is_offslab(cache))
        return;
    struct slab **at = bucket_of(cache, slab->base);
    while (*at != slab)
        at = &(*at)->next_hash;
    *at = slab->next_hash;
    free_locked(&cache->offslab->heads, slab);
}

/* First object's offset: the next colour, so that objects of one index differ in cache lines from slab to slab. */
static size_t next_colour(struct slab_cache *cache)
{
    if (is_offslab(cache))
        return 0;
    size_t first = round_up(header_bytes(cache->nr_per_slab), cache->align_bytes);
    size_t rest = slab_bytes(cache) - first - cache->nr_per_slab * cache->stride_bytes;
    uint32_t nr_colours = (uint32_t)(rest / cache->align_bytes) + 1;
    uint32_t colour = cache->colour_next;
    cache->colour_next = (colour + 1) % nr_colours;
    return first + colour * cache->align_bytes;
}

static void fill_slab(struct slab_cache *cache, struct slab *slab, char *base)
{
    slab->cache = cache;
    slab->base = base;
    slab->objects = base + next_colour(cache);
    slab->nr_used = 0;
    slab->first_free = 0;
    for (uint32_t i = 0; i < cache->nr_per_slab; i++) {
        slab->link[i] = i + 1 < cache->nr_per_slab ? (uint16_t)(i + 1) : LINK_END;
        if (cache->ctor)
            cache->ctor(slab->objects + i * cache->stride_bytes);
    }
}

/* A new slab on the free list, or NULL with everything as it was. */
static struct slab *grow(struct slab_cache *cache)
{
    if (is_offslab(cache) && !get_offslab(cache))
        return NULL;
    char *base = cache->pages.get(cache->pages.ctx, cache->order);
    struct slab *slab = base ? get_header(cache, base) : NULL;
    if (!slab) {
        if (base)
            cache->pages.put(cache->pages.ctx, base, cache->order);
        trim_offslab(cache);
        return NULL;
    }
    fill_slab(cache, slab, base);
    cache->nr_slabs++;
    enlist(cache, slab);
    return slab;
}

/* Gives back @nr free slabs, those that became free longest ago; returns pages. */
static uint32_t release_free_locked(struct slab_cache *cache, uint32_t nr)
{
    struct slab *slab = cache->free;
    for (uint32_t keep = cache->nr_free_slabs - nr; keep; keep--)
        slab = slab->next;
    while (slab) {
        struct slab *next = slab->next;
        char *base = slab->base;
        delist(cache, slab);
        put_header(cache, slab);
        cache->pages.put(cache->pages.ctx, base, cache->order);
        cache->nr_slabs--;
        slab = next;
    }
    cache->nr_free_untouched = cache->nr_free_slabs;
    return (nr << cache->order) + trim_offslab(cache);
}

/* Objects. */

static void *alloc_locked(struct slab_cache *cache)
{
    struct slab *slab = cache->partial ? cache->partial : cache->free;
    if (!slab)
        slab = grow(cache);
    if (!slab)
        return NULL;
    delist(cache, slab);
    uint32_t index = slab->first_free;
    slab->first_free = slab->link[index];
    slab->link[index] = LINK_USED;
    slab->nr_used++;
    cache->nr_objects_used++;
    enlist(cache, slab);
    return slab->objects + index * cache->stride_bytes;
}

static void free_locked(struct slab_cache *cache, void *object)
{
    struct slab *slab = slab_of(cache, object);
    require(slab && (char *)object >= slab->objects);
    size_t offset = (size_t)((char *)object - slab->objects);
    uint32_t index = (uint32_t)(offset / cache->stride_bytes);
    require(offset % cache->stride_bytes == 0 && index < cache->nr_per_slab && slab->link[index] == LINK_USED);
    delist(cache, slab);
    slab->link[index] = slab->first_free;
    slab->first_free = (uint16_t)index;
    slab->nr_used--;
    cache->nr_objects_used--;
    enlist(cache, slab);
}

void *slab_alloc(struct slab_cache *cache)
{
    lock_acquire(&cache->lock);
    void *object = alloc_locked(cache);
    lock_release(&cache->lock);
    return object;
}

void slab_free(struct slab_cache *cache, void *object)
{
    lock_acquire(&cache->lock);
    free_locked(cache, object);
    lock_release(&cache->lock);
}

uint32_t slab_shrink(struct slab_cache *cache)
{
    lock_acquire(&cache->lock);
    uint32_t pages = release_free_locked(cache, cache->nr_free_slabs);
    lock_release(&cache->lock);
    return pages;
}

uint32_t slab_reap(struct slab_cache *cache)
{
    lock_acquire(&cache->lock);
    uint32_t pages = release_free_locked(cache, cache->nr_free_untouched);
    lock_release(&cache->lock);
    return pages;
}

void slab_cache_fini(struct slab_cache *cache)
{
    require(!cache->nr_objects_used);
    slab_shrink(cache);
    lock_fini(&cache->lock);
}

void slab_stat(struct slab_cache *cache, struct slab_stat *out)
{
    lock_acquire(&cache->lock);
    *out = (struct slab_stat){
        .name = cache->name,
        .object_bytes = cache->object_bytes,
        .nr_used = cache->nr_objects_used,
        .nr_total = cache->nr_slabs * cache->nr_per_slab,
        .nr_per_slab = cache->nr_per_slab,
        .pages_per_slab = 1u << cache->order,
        .nr_slabs = cache->nr_slabs,
    };
    lock_release(&cache->lock);
}

/* Checks. */

static const char *check_slab(struct slab_cache *cache, const struct slab *slab)
{
    uint32_t nr_free = 0, nr_used = 0;
    if (slab_of(cache, slab->objects) != slab)
        return "an object does not lead to its slab";
    for (uint32_t i = slab->first_free; i != LINK_END; i = slab->link[i]) {
        if (i >= cache->nr_per_slab || ++nr_free > cache->nr_per_slab)
            return "the free chain of a slab is broken";
    }
    for (uint32_t i = 0; i < cache->nr_per_slab; i++)
        nr_used += slab->link[i] == LINK_USED;
    if (nr_used != slab->nr_used || nr_used + nr_free != cache->nr_per_slab)
        return "the objects of a slab do not add up";
    return NULL;
}

/* Adds the list's slabs and objects to the counts. */
static const char *check_list(struct slab_cache *cache, struct slab *const *list, uint32_t *nr_slabs, uint32_t *nr_used)
{
    const struct slab *prev = NULL;
    for (const struct slab *slab = *list; slab; prev = slab, slab = slab->next) {
        const char *why = check_slab(cache, slab);
        if (why)
            return why;
        if (list_of(cache, slab) != list)
            return "a slab stands on the wrong list";
        if (slab->prev != prev)
            return "a slab's back link is wrong";
        *nr_slabs += 1;
        *nr_used += slab->nr_used;
    }
    return NULL;
}

static const char *check_locked(struct slab_cache *cache)
{
    uint32_t nr_slabs = 0, nr_used = 0;
    const char *why = check_list(cache, &cache->free, &nr_slabs, &nr_used);
    if (why)
        return why;
    if (nr_slabs != cache->nr_free_slabs || cache->nr_free_untouched > nr_slabs)
        return "the count of free slabs is wrong";
    why = check_list(cache, &cache->partial, &nr_slabs, &nr_used);
    if (!why)
        why = check_list(cache, &cache->full, &nr_slabs, &nr_used);
    if (why)
        return why;
    if (nr_slabs != cache->nr_slabs || nr_used != cache->nr_objects_used)
        return "slabs or objects were lost";
    if (!cache->offslab)
        return NULL;
    return cache->offslab->heads.nr_objects_used == nr_slabs ? check_locked(&cache->offslab->heads)
                                                             : "a slab has no header, or a header no slab";
}

bool slab_check(struct slab_cache *cache, const char **why)
{
    lock_acquire(&cache->lock);
    *why = check_locked(cache);
    lock_release(&cache->lock);
    return !*why;
}
