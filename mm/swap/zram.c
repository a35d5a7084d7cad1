/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The compressed store: same-filled pages in the payload itself, all others through the codec into zpool.
 *
 *   store:  same? -> payload.  Else compress into the thread's buffer, checksum, take an object, copy.
 *   load:   payload, or check length and checksum and decode straight from the object.
 *
 * Compressing, hashing and copying run without a lock: an object belongs to whoever holds its payload, see zpool.c.
 * In an object the flag of zobject.len says that the data is a repeated word, not the codec's.
 */
#include "mm/swap/zram.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "mm/map/stage2.h"
#include "mm/swap/checksum.h"
#include "mm/swap/codec.h"
#include "mm/swap/zpool.h"

#define SAME_WORD_BITS (ZRAM_PAYLOAD_BITS - 1)
_Static_assert(ZRAM_PAYLOAD_BITS <= S2_PAYLOAD_BITS, "an entry keeps the payload");
#define PAGE_WORDS (PAGE_BYTES / sizeof(uint64_t))
/* Longest data that is kept: below 3/4 of a page, Linux's huge class rule (zs_huge_class_size). */
#define MAX_DATA_BYTES ((uint32_t)PAGE_BYTES * 3 / 4 - 1)
_Static_assert(MAX_DATA_BYTES <= ZPOOL_MAX_DATA_BYTES, "every page that is kept has a class");

struct zram {
    struct zram_config config;
    /* atomic, relaxed: figures only */
    uint64_t nr_same, nr_compacted, nr_huge, nr_failed_reads;
    struct zpool pool;
};

struct zram_thread {
    struct codec *codec;
    unsigned char buffer[MAX_DATA_BYTES];
};

static void count(uint64_t *counter, uint64_t n)
{
    __atomic_fetch_add(counter, n, __ATOMIC_RELAXED);
}

static uint64_t counted(const uint64_t *counter)
{
    return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

static uint64_t payload_of_place(uint64_t place)
{
    return place << 1;
}

static uint64_t place_of(uint64_t payload)
{
    return payload >> 1;
}

static int64_t sign_extend(uint64_t word)
{
    return (int64_t)(word << (64 - SAME_WORD_BITS)) >> (64 - SAME_WORD_BITS);
}

static uint64_t payload_of_word(uint64_t word)
{
    return ((word << 1) & ((UINT64_C(1) << (SAME_WORD_BITS + 1)) - 1)) | 1;
}

bool zram_is_same(uint64_t payload, uint64_t *word)
{
    if (!(payload & 1))
        return false;
    *word = (uint64_t)sign_extend(payload >> 1);
    return true;
}

int zram_create(const struct zram_config *config, const struct zram_pages *pages, struct zram **out)
{
    if (config->limit_bytes < PAGE_BYTES || !codec_valid(config->algo, config->level))
        return -EINVAL;
    struct zram *zram = aligned_alloc(_Alignof(struct zram), sizeof(*zram));
    if (!zram)
        return -ENOMEM;

    memset(zram, 0, sizeof(*zram));
    zram->config = *config;
    zpool_init(&zram->pool, pages, config->limit_bytes / PAGE_BYTES);
    *out = zram;
    return 0;
}

void zram_destroy(struct zram *zram)
{
    if (!zram)
        return;
    zpool_fini(&zram->pool);
    free(zram);
}

int zram_thread_create(const struct zram *zram, struct zram_thread **out)
{
    struct zram_thread *thread = malloc(sizeof(*thread));
    if (!thread)
        return -ENOMEM;
    int rc = codec_create(zram->config.algo, zram->config.level, &thread->codec);
    if (rc) {
        free(thread);
        return rc;
    }
    *out = thread;
    return 0;
}

void zram_thread_destroy(struct zram_thread *thread)
{
    if (!thread)
        return;
    codec_destroy(thread->codec);
    free(thread);
}

static uint64_t word_at(const void *page, size_t index)
{
    uint64_t word;
    memcpy(&word, (const char *)page + index * sizeof(word), sizeof(word));
    return word;
}

/* Most pages that are not same-filled differ in the first or last word already. */
static bool page_is_same(const void *page, uint64_t *word)
{
    *word = word_at(page, 0);
    if (word_at(page, PAGE_WORDS - 1) != *word || word_at(page, 1) != *word)
        return false;
    return !memcmp(page, (const char *)page + sizeof(*word), PAGE_BYTES - sizeof(*word));
}

static void page_fill(void *page, uint64_t word)
{
    if (!word) {
        memset(page, 0, PAGE_BYTES);
        return;
    }
    for (size_t i = 0; i < PAGE_WORDS; i++)
        memcpy((char *)page + i * sizeof(word), &word, sizeof(word));
}

/* @flag: 0 or ZOBJECT_FLAG. */
static int store_object(struct zram *zram, vmid_t vm, gfn_t gfn, const void *data, uint32_t len_bytes, unsigned flag,
                        uint64_t *payload)
{
    struct zobject header = {
        .gfn = gfn,
        .vm = vm,
        .len = (uint16_t)(len_bytes | flag),
        .checksum = checksum32(data, len_bytes),
    };
    uint64_t place;
    int rc = zpool_alloc(&zram->pool, &header, &place);
    if (rc)
        return rc;
    memcpy(zpool_object(&zram->pool, place)->data, data, len_bytes);
    *payload = payload_of_place(place);
    return 0;
}

int zram_store(struct zram *zram, struct zram_thread *thread, vmid_t vm, gfn_t gfn, const void *page, uint64_t *payload)
{
    uint64_t word;

    if (page_is_same(page, &word)) {
        if ((uint64_t)sign_extend(word) != word)
            return store_object(zram, vm, gfn, &word, sizeof(word), ZOBJECT_FLAG, payload);
        *payload = payload_of_word(word);
        count(&zram->nr_same, 1);
        return 0;
    }
    uint32_t len = codec_compress(thread->codec, page, thread->buffer, sizeof(thread->buffer));
    if (!len) {
        count(&zram->nr_huge, 1);
        return -E2BIG;
    }
    return store_object(zram, vm, gfn, thread->buffer, len, 0, payload);
}

/* The header may hold anything; nothing beyond the object is read. */
static int load_object(const struct zram *zram, struct zram_thread *thread, uint64_t place, void *page)
{
    const struct zobject *object = zpool_object(&zram->pool, place);
    uint32_t len = object->len & ZOBJECT_LEN_MASK;

    if (!len || len > zpool_room(&zram->pool, place) || checksum32(object->data, len) != object->checksum)
        return -EIO;
    if (!(object->len & ZOBJECT_FLAG))
        return codec_decompress(thread->codec, object->data, len, page);
    if (len != sizeof(uint64_t))
        return -EIO;
    page_fill(page, word_at(object->data, 0));
    return 0;
}

int zram_load(struct zram *zram, struct zram_thread *thread, uint64_t payload, void *page)
{
    uint64_t word;

    if (zram_is_same(payload, &word)) {
        page_fill(page, word);
        return 0;
    }
    int rc = load_object(zram, thread, place_of(payload), page);
    if (rc)
        count(&zram->nr_failed_reads, 1);
    return rc;
}

void zram_free(struct zram *zram, uint64_t payload)
{
    if (payload & 1)
        count(&zram->nr_same, (uint64_t)-1);
    else
        zpool_free(&zram->pool, place_of(payload));
}

uint64_t zram_move(struct zram *zram, uint64_t payload)
{
    uint32_t freed_pages;

    if (payload & 1)
        return payload;
    uint64_t place = zpool_move(&zram->pool, place_of(payload), &freed_pages);
    if (freed_pages)
        count(&zram->nr_compacted, freed_pages);
    return payload_of_place(place);
}

/* One class, until it needs no fewer pages, @max_pages came free, or a zspage could not be emptied. */
static uint32_t compact_class(struct zram *zram, unsigned class,
                              int (*relocate)(void *ctx, vmid_t vm, gfn_t gfn, uint64_t payload), void *ctx,
                              uint32_t max_pages)
{
    struct zpool_item items[ZPOOL_MAX_OBJECTS];
    uint32_t freed = 0, freed_now;
    bool all;

    do {
        uint64_t before = counted(&zram->nr_compacted);
        unsigned nr = zpool_sparsest(&zram->pool, class, items);
        all = true;
        for (unsigned i = 0; i < nr; i++)
            all &= !relocate(ctx, items[i].vm, items[i].gfn, payload_of_place(items[i].place));
        freed_now = (uint32_t)(counted(&zram->nr_compacted) - before);
        freed += freed_now;
    } while (all && freed_now && freed < max_pages);
    return freed;
}

uint32_t zram_compact(struct zram *zram, int (*relocate)(void *ctx, vmid_t vm, gfn_t gfn, uint64_t payload), void *ctx,
                      uint32_t max_pages)
{
    uint32_t freed = 0;

    for (unsigned c = 0; c < zram->pool.nr_classes && freed < max_pages; c++)
        freed += compact_class(zram, c, relocate, ctx, max_pages - freed);
    return freed;
}

void zram_stat(const struct zram *zram, struct zram_stat *out)
{
    uint64_t nr_used, data_bytes, nr_same = counted(&zram->nr_same);

    zpool_count(&zram->pool, &nr_used, &data_bytes);
    *out = (struct zram_stat){
        .orig_data_bytes = (nr_used + nr_same) * PAGE_BYTES,
        .compr_data_bytes = data_bytes,
        .mem_used_bytes = counted(&zram->pool.used_pages) * PAGE_BYTES,
        .mem_limit_bytes = zram->config.limit_bytes,
        .mem_used_max_bytes = counted(&zram->pool.max_pages) * PAGE_BYTES,
        .same_pages = nr_same,
        .pages_compacted = counted(&zram->nr_compacted),
        .huge_pages = counted(&zram->nr_huge),
        .failed_reads = counted(&zram->nr_failed_reads),
    };
}

unsigned zram_class_stat(struct zram *zram, struct zram_class_stat *out, unsigned max)
{
    return zpool_class_stat(&zram->pool, out, max);
}

const char *zram_algo_name(enum zram_algo algo)
{
    switch (algo) {
    case ZRAM_LZ4:
        return "lz4";
    case ZRAM_ZSTD:
        return "zstd";
    }
    return "unknown";
}

bool zram_check(struct zram *zram, const char **why)
{
    return zpool_check(&zram->pool, why);
}
