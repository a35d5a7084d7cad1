/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of slab caches share: a page source that can fail, a cache on it, and patterns for objects. */
#ifndef TESTS_UNIT_SLAB_SOURCE_H
#define TESTS_UNIT_SLAB_SOURCE_H

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "mm/frame/slab.h"

/* A page source that counts, and whose n-th call fails once. */
struct source {
    long nr_pages; /* out now */
    long fail_at;  /* 1: the next get fails; 0: none */
    bool wrong;    /* a put that does not fit */
};
static struct source source;

static inline void *source_get(void *ctx, unsigned order)
{
    struct source *src = ctx;
    if (src->fail_at && --src->fail_at == 0)
        return NULL;
    void *pages = aligned_alloc(PAGE_BYTES << order, PAGE_BYTES << order);
    if (pages)
        memset(pages, 0xee, PAGE_BYTES << order);
    src->nr_pages += 1L << order;
    return pages;
}

static inline void source_put(void *ctx, void *pages, unsigned order)
{
    struct source *src = ctx;
    src->wrong |= (uintptr_t)pages % (PAGE_BYTES << order) != 0;
    src->nr_pages -= 1L << order;
    free(pages);
}

static const struct slab_pages pages = {source_get, source_put, &source};
static struct slab_cache cache;

static inline void make(uint32_t bytes, uint32_t align, void (*ctor)(void *))
{
    ck_assert_int_eq(slab_cache_init(&cache, "test", bytes, align, ctor, &pages), 0);
    ck_assert_int_eq(source.nr_pages, 0);
}

static inline void check(void)
{
    const char *why = NULL;
    bool ok = slab_check(&cache, &why);
    ck_assert_msg(ok, "%s", why);
}

/* Takes the cache down: every page must have come back. */
static inline void finish(void)
{
    check();
    slab_cache_fini(&cache);
    ck_assert_int_eq(source.nr_pages, 0);
    ck_assert(!source.wrong);
}

static inline struct slab_stat stat_of_cache(void)
{
    struct slab_stat stat;
    slab_stat(&cache, &stat);
    return stat;
}

static inline void fill(void *object, uint32_t bytes, uint8_t tag)
{
    for (uint32_t i = 0; i < bytes; i++)
        ((uint8_t *)object)[i] = (uint8_t)(tag + i);
}

static inline bool is_filled(const void *object, uint32_t bytes, uint8_t tag)
{
    for (uint32_t i = 0; i < bytes; i++) {
        if (((const uint8_t *)object)[i] != (uint8_t)(tag + i))
            return false;
    }
    return true;
}

#endif
