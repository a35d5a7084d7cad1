/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Slab caches: objects of one size, cut from slabs of a few pages; after Bonwick's design and Linux's kmem_cache.
 * full / partial / free slab lists, colouring, an optional constructor, shrink, periodic reap. Freestanding.
 * Pages come from a callback: the host gives metadata pages (counted), the guest kernel its buddy.
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
    uint32_t stride_bytes; /* with alignment */
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
};

/*
 * slab_cache_init - @object_bytes 8..4096, @align_bytes a power of two or 0 for 8.
 * Objects of 4096 bytes aligned to 4096 are allowed (page tables): the slab header then stands off-slab.
 * Returns 0 or -EINVAL.
 */
must_check int slab_cache_init(struct slab_cache *cache, const char *name, uint32_t object_bytes, uint32_t align_bytes,
                               void (*ctor)(void *), const struct slab_pages *pages);
/* Every object must have been freed. Gives all slabs back. */
void slab_cache_fini(struct slab_cache *cache);
/* NULL when there is no memory. Takes cache.lock. */
void *slab_alloc(struct slab_cache *cache);
void slab_free(struct slab_cache *cache, void *object);
/* Gives every free slab back; returns pages given back. */
uint32_t slab_shrink(struct slab_cache *cache);
/* Periodic: gives back the slabs that stayed free since the last call. Returns pages. */
uint32_t slab_reap(struct slab_cache *cache);
bool slab_check(struct slab_cache *cache, const char **why);

struct slab_stat {
    const char *name;
    uint32_t object_bytes, nr_used, nr_total, nr_per_slab, pages_per_slab, nr_slabs;
};
void slab_stat(struct slab_cache *cache, struct slab_stat *out);

/* General caches: powers of two 16..4096, as kmalloc. */
#define NR_KMALLOC 9
struct kmalloc {
    struct slab_cache cache[NR_KMALLOC];
};
must_check int kmalloc_init(struct kmalloc *km, const struct slab_pages *pages);
void kmalloc_fini(struct kmalloc *km);
void *kmalloc_alloc(struct kmalloc *km, uint32_t bytes); /* 1..4096 */
void kmalloc_free(struct kmalloc *km, void *object, uint32_t bytes);

#endif
