/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Slab caches: objects of one size, cut from slabs of a few pages; after Bonwick's design and Linux's kmem_cache.
 * full / partial / free slab lists, colouring, an optional constructor, shrink, periodic reap. Freestanding.
 * Pages come from a callback: the host gives metadata pages (counted), the guest kernel its buddy.
 *
 * Invariants (slab_check):
 *   a slab stands on partial, full or free, as its count of used objects says
 *   the free objects of a slab are one chain without loops; an object off the chain is marked used
 *   sum of used objects == nr_objects_used; number of slabs == nr_slabs; nr_free_untouched <= nr_free_slabs
 */
#ifndef MM_FRAME_SLAB_H
#define MM_FRAME_SLAB_H

#include "mm/base/lock.h"

struct slab_pages {
    /* 2^order pages, aligned to their size; NULL when there is none. */
    void *(*get)(void *ctx, unsigned order);
    void (*put)(void *ctx, void *pages, unsigned order);
    void *ctx;
};

struct slab;

struct slab_cache {
    const char *name;
    uint32_t object_bytes; /* as asked */
    uint32_t align_bytes;
    uint32_t stride_bytes; /* object_bytes rounded up to align_bytes */
    uint32_t nr_per_slab;
    uint32_t order; /* pages a slab: 2^order */
    uint32_t colour_next;
    void (*ctor)(void *object);
    struct slab_pages pages;
    struct slab_cache *next_cache; /* slab_set.caches */
    struct mm_lock lock;
    /* guarded by lock */
    struct slab *partial, *full, *free;
    uint32_t nr_slabs, nr_objects_used;
    uint32_t nr_free_slabs, nr_free_untouched; /* slabs free since the last reap */
    struct offslab *offslab;                   /* where the slab headers are, if not in the slabs */
};

/*
 * slab_cache_init - @object_bytes 8..4096, @align_bytes a power of two up to 4096, or 0 for 8.
 * @ctor: NULL, or called once for each object when its slab is made; an object is given back as constructed.
 * Objects that fill whole pages (4096 bytes aligned to 4096: page tables) leave no room for a header, it then stands
 * off-slab. @name is kept, @pages copied.
 * @pages is called under cache.lock: it may take locks of a higher rank only, and nothing of this cache.
 * Returns 0 or -EINVAL. No page is taken before the first slab_alloc.
 */
must_check int slab_cache_init(struct slab_cache *cache, const char *name, uint32_t object_bytes, uint32_t align_bytes,
                               void (*ctor)(void *), const struct slab_pages *pages);
/* Every object must have been freed (traps otherwise). Gives all slabs back. */
void slab_cache_fini(struct slab_cache *cache);
/* NULL when there is no memory; the cache is then unchanged. Content: the ctor's, or undefined. Takes cache.lock. */
void *slab_alloc(struct slab_cache *cache);
/* Traps when @object is not one of this cache's used objects. Takes cache.lock. */
void slab_free(struct slab_cache *cache, void *object);
/* Gives every free slab back; returns pages given back. */
uint32_t slab_shrink(struct slab_cache *cache);
/* Periodic: gives back the slabs that stayed free since the last call. Returns pages. */
uint32_t slab_reap(struct slab_cache *cache);
/* True when every invariant above holds; otherwise false and *why (a static string). Takes cache.lock. */
bool slab_check(struct slab_cache *cache, const char **why);

struct slab_stat {
    const char *name;
    uint32_t object_bytes, nr_used, nr_total, nr_per_slab, pages_per_slab, nr_slabs;
};
void slab_stat(struct slab_cache *cache, struct slab_stat *out);

/* General caches: powers of two 16..4096, as kmalloc. Objects are aligned to their size. */
#define NR_KMALLOC 9
struct kmalloc {
    struct slab_cache cache[NR_KMALLOC];
};
must_check int kmalloc_init(struct kmalloc *km, const struct slab_pages *pages);
void kmalloc_fini(struct kmalloc *km);
/* @bytes 1..4096. NULL for any other size, and when there is no memory. */
void *kmalloc_alloc(struct kmalloc *km, uint32_t bytes);
/* @bytes: as at kmalloc_alloc, or any size of the same power of two. */
void kmalloc_free(struct kmalloc *km, void *object, uint32_t bytes);

#endif
