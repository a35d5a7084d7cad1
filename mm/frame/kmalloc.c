/* SPDX-License-Identifier: Apache-2.0 */
/* General caches: one slab cache for each power of two. */
#include <errno.h>

#include "mm/frame/slab.h"

#define LEAST_SHIFT 4 /* 16 bytes */

static const char *const names[NR_KMALLOC] = {"kmalloc-16",   "kmalloc-32",   "kmalloc-64",
                                              "kmalloc-128",  "kmalloc-256",  "kmalloc-512",
                                              "kmalloc-1024", "kmalloc-2048", "kmalloc-4096"};

/* NULL when no cache has objects of @bytes. */
static struct slab_cache *cache_for(struct kmalloc *km, uint32_t bytes)
{
    if (bytes < 1 || bytes > 1u << (LEAST_SHIFT + NR_KMALLOC - 1))
        return NULL;
    if (bytes <= 1u << LEAST_SHIFT)
        return &km->cache[0];
    return &km->cache[32 - __builtin_clz(bytes - 1) - LEAST_SHIFT];
}

int kmalloc_init(struct kmalloc *km, const struct slab_pages *pages)
{
    for (unsigned i = 0; i < NR_KMALLOC; i++) {
        uint32_t bytes = 1u << (LEAST_SHIFT + i);
        int err = slab_cache_init(&km->cache[i], names[i], bytes, bytes, NULL, pages);
        if (err)
            return err;
    }
    return 0;
}

void kmalloc_fini(struct kmalloc *km)
{
    for (unsigned i = 0; i < NR_KMALLOC; i++)
        slab_cache_fini(&km->cache[i]);
}

void *kmalloc_alloc(struct kmalloc *km, uint32_t bytes)
{
    struct slab_cache *cache = cache_for(km, bytes);
    return cache ? slab_alloc(cache) : NULL;
}

void kmalloc_free(struct kmalloc *km, void *object, uint32_t bytes)
{
    struct slab_cache *cache = cache_for(km, bytes);
    if (!cache)
        __builtin_trap();
    slab_free(cache, object);
}
