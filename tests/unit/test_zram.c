/* SPDX-License-Identifier: Apache-2.0 */
#include "mm/swap/zram.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "mm/base/lock.h"
#include "mm/swap/checksum.h"
#include "mm/swap/zpool.h"
#include "tests/fake/fail_alloc.h"
#include "tests/fake/run_source.h"

#define NR_FRAMES 256u
#define NR_ENTRIES 300u

static const enum zram_algo algos[] = {ZRAM_LZ4, ZRAM_ZSTD};

enum kind { KIND_ZERO, KIND_SAME, KIND_SAME_LARGE, KIND_TEXT, KIND_HALF, KIND_NOISE, NR_KINDS };

/* What a block's entries are to the real owner: where each page is, and here also what it holds. */
struct entry {
    struct mm_lock lock;
    /* guarded by lock */
    bool used;
    uint64_t payload;
    unsigned char page[PAGE_BYTES];
};

struct rig {
    struct run_source source;
    struct zram *zram;
    struct zram_thread *thread;
    struct entry entries[NR_ENTRIES];
    uint32_t refuse_modulo; /* relocate leaves every n-th page where it is; 0: none */
    uint32_t nr_asked;
};

static struct rig *rig;

static void setup_algo(enum zram_algo algo, uint64_t limit_pages)
{
    rig = calloc(1, sizeof(*rig));
    ck_assert_ptr_nonnull(rig);
    run_source_init(&rig->source, NR_FRAMES);
    for (unsigned i = 0; i < NR_ENTRIES; i++)
        lock_init(&rig->entries[i].lock, LOCK_BLOCK);

    struct zram_pages pages = run_source_pages(&rig->source);
    struct zram_config config = {.algo = algo, .limit_bytes = limit_pages * PAGE_BYTES};
    ck_assert_int_eq(zram_create(&config, &pages, &rig->zram), 0);
    ck_assert_int_eq(zram_thread_create(rig->zram, &rig->thread), 0);
}

static void setup(void)
{
    setup_algo(ZRAM_LZ4, NR_FRAMES);
}

static void teardown(void)
{
    zram_thread_destroy(rig->thread);
    zram_destroy(rig->zram);
    ck_assert_uint_eq(rig->source.nr_taken, 0);
    ck_assert_uint_eq(rig->source.nr_bad_puts, 0);
    for (unsigned i = 0; i < NR_ENTRIES; i++)
        lock_fini(&rig->entries[i].lock);
    run_source_fini(&rig->source);
    free(rig);
}

static void assert_sound(void)
{
    const char *why;
    struct zram_stat stat;
    ck_assert_msg(zram_check(rig->zram, &why), "%s", why);
    zram_stat(rig->zram, &stat);
    ck_assert_uint_eq(stat.mem_used_bytes, rig->source.nr_taken * PAGE_BYTES);
    ck_assert_uint_le(stat.mem_used_bytes, stat.mem_used_max_bytes);
    ck_assert_uint_le(stat.mem_used_max_bytes, stat.mem_limit_bytes);
}

static struct zram_stat stat_now(void)
{
    struct zram_stat stat;
    zram_stat(rig->zram, &stat);
    return stat;
}

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void fill_words(unsigned char *page, uint64_t word)
{
    for (size_t i = 0; i < PAGE_BYTES; i += sizeof(word))
        memcpy(page + i, &word, sizeof(word));
}

static void fill_text(unsigned char *page, uint64_t seed)
{
    static const char *const words[] = {"frame ", "of ", "the ",  "page ",  "table ",
                                        "walks ", "in ", "slow ", "orders "};
    size_t at = 0;
    while (at < PAGE_BYTES) {
        const char *word = words[next_random(&seed) % ARRAY_LEN(words)];
        size_t len = MIN_OF(strlen(word), PAGE_BYTES - at);
        memcpy(page + at, word, len);
        at += len;
    }
}

static void fill_noise(unsigned char *page, uint64_t seed, size_t start)
{
    for (size_t i = start; i < PAGE_BYTES; i++)
        page[i] = (unsigned char)(next_random(&seed) >> 11);
}

static void page_make(unsigned char *page, enum kind kind, uint64_t seed)
{
    switch (kind) {
    case KIND_ZERO:
        fill_words(page, 0);
        break;
    case KIND_SAME:
        fill_words(page, seed & 0xffff);
        break;
    case KIND_SAME_LARGE:
        fill_words(page, UINT64_C(0x4000000000000000) | seed);
        break;
    case KIND_TEXT:
        fill_text(page, seed);
        break;
    case KIND_HALF:
        fill_text(page, seed);
        fill_noise(page, seed, 2048 + seed % 2048);
        break;
    default:
        fill_noise(page, seed, 0);
        break;
    }
}

static int put_page(gfn_t gfn, enum kind kind, uint64_t seed)
{
    struct entry *entry = &rig->entries[gfn];
    page_make(entry->page, kind, seed);
    int rc = zram_store(rig->zram, rig->thread, 1, gfn, entry->page, &entry->payload);
    entry->used = !rc;
    return rc;
}

static void assert_page(gfn_t gfn)
{
    unsigned char back[PAGE_BYTES];
    struct entry *entry = &rig->entries[gfn];
    ck_assert_uint_lt(entry->payload, UINT64_C(1) << ZRAM_PAYLOAD_BITS);
    ck_assert_int_eq(zram_load(rig->zram, rig->thread, entry->payload, back), 0);
    ck_assert_mem_eq(back, entry->page, PAGE_BYTES);
}

static void free_page(gfn_t gfn)
{
    zram_free(rig->zram, rig->entries[gfn].payload);
    rig->entries[gfn].used = false;
}

static struct zobject *object_of(gfn_t gfn)
{
    return (struct zobject *)(void *)(rig->source.arena + (rig->entries[gfn].payload >> 1) * ZPOOL_UNIT);
}

START_TEST(test_zram_zero_page_needs_no_storage)
{
    ck_assert_int_eq(put_page(0, KIND_ZERO, 0), 0);
    ck_assert_uint_eq(rig->entries[0].payload, 1);
    assert_page(0);
    ck_assert_uint_eq(rig->source.nr_taken, 0);
    ck_assert_uint_eq(stat_now().same_pages, 1);
    ck_assert_uint_eq(stat_now().orig_data_bytes, PAGE_BYTES);
    free_page(0);
    ck_assert_uint_eq(stat_now().same_pages, 0);
    ck_assert_uint_eq(stat_now().orig_data_bytes, 0);
}
END_TEST

START_TEST(test_zram_same_word_of_48_bits_is_the_payload)
{
    static const uint64_t words[] = {
        1, 0xff, UINT64_C(0x00007fffffffffff), UINT64_C(0xffff800000000000), UINT64_MAX, UINT64_MAX - 1};
    struct entry *entry = &rig->entries[3];

    for (unsigned i = 0; i < ARRAY_LEN(words); i++) {
        uint64_t word = 0;
        fill_words(entry->page, words[i]);
        ck_assert_int_eq(zram_store(rig->zram, rig->thread, 1, 3, entry->page, &entry->payload), 0);
        ck_assert(zram_is_same(entry->payload, &word));
        ck_assert_uint_eq(word, words[i]);
        assert_page(3);
        ck_assert_uint_eq(rig->source.nr_taken, 0);
        ck_assert_uint_eq(zram_move(rig->zram, entry->payload), entry->payload);
        free_page(3);
    }
}
END_TEST

START_TEST(test_zram_same_word_beyond_48_bits_is_a_small_object)
{
    static const uint64_t words[] = {UINT64_C(0x0000800000000000), UINT64_C(0xffff7fffffffffff),
                                     UINT64_C(0x8000000000000000), UINT64_C(0x7fffffffffffffff),
                                     UINT64_C(0xdeadbeefdeadbeef)};
    struct entry *entry = &rig->entries[3];

    for (unsigned i = 0; i < ARRAY_LEN(words); i++) {
        uint64_t word;
        fill_words(entry->page, words[i]);
        ck_assert_int_eq(zram_store(rig->zram, rig->thread, 1, 3, entry->page, &entry->payload), 0);
        ck_assert(!zram_is_same(entry->payload, &word));
        assert_page(3);
        ck_assert_uint_eq(stat_now().compr_data_bytes, sizeof(word));
        ck_assert_uint_eq(stat_now().same_pages, 0);
        assert_sound();
        free_page(3);
    }
}
END_TEST

START_TEST(test_zram_page_with_one_odd_byte_is_not_same)
{
    static const size_t odd[] = {0, 7, 8, 15, 16, 2047, 4080, 4087, 4088, 4095};
    struct entry *entry = &rig->entries[5];

    for (unsigned i = 0; i < ARRAY_LEN(odd); i++) {
        uint64_t word;
        fill_words(entry->page, 0);
        entry->page[odd[i]] = 1;
        ck_assert_int_eq(zram_store(rig->zram, rig->thread, 1, 5, entry->page, &entry->payload), 0);
        ck_assert(!zram_is_same(entry->payload, &word));
        assert_page(5);
        free_page(5);
    }
}
END_TEST

START_TEST(test_zram_each_algorithm_round_trips)
{
    teardown();
    setup_algo(algos[_i], NR_FRAMES);
    uint64_t nr = 0;
    for (gfn_t gfn = 0; gfn < 200; gfn++)
        nr += !put_page(gfn, (enum kind)(gfn % NR_KINDS), gfn * 977 + 1);
    for (gfn_t gfn = 0; gfn < 200; gfn++) {
        if (rig->entries[gfn].used)
            assert_page(gfn);
    }
    assert_sound();
    struct zram_stat stat = stat_now();
    ck_assert_uint_eq(stat.orig_data_bytes, nr * PAGE_BYTES);
    ck_assert_uint_eq(stat.huge_pages, 200 - nr);
    ck_assert_uint_gt(stat.huge_pages, 32);
    ck_assert_uint_lt(stat.huge_pages, 67);
    ck_assert_uint_lt(stat.compr_data_bytes, stat.mem_used_bytes);
    ck_assert_uint_eq(stat.mem_limit_bytes, NR_FRAMES * PAGE_BYTES);
    ck_assert_uint_eq(stat.failed_reads, 0);
}
END_TEST

START_TEST(test_zram_random_page_is_refused_and_counted)
{
    ck_assert_int_eq(put_page(1, KIND_TEXT, 5), 0);
    struct zram_stat before = stat_now();
    ck_assert_int_eq(put_page(2, KIND_NOISE, 9), -E2BIG);
    before.huge_pages++;
    struct zram_stat after = stat_now();
    ck_assert_mem_eq(&before, &after, sizeof(before));
    assert_page(1);
    assert_sound();
}
END_TEST

START_TEST(test_zram_limit_is_enospc_and_what_is_stored_stays)
{
    gfn_t gfn = 0;
    int rc;

    teardown();
    setup_algo(ZRAM_LZ4, 9);
    while (gfn < NR_ENTRIES && !(rc = put_page(gfn, KIND_HALF, gfn * 31 + 7)))
        gfn++;
    ck_assert_int_eq(rc, -ENOSPC);
    ck_assert_uint_gt(gfn, 4);
    struct zram_stat before = stat_now();
    ck_assert_int_eq(put_page(gfn, KIND_HALF, gfn * 31 + 7), -ENOSPC);
    struct zram_stat after = stat_now();
    ck_assert_mem_eq(&before, &after, sizeof(before));
    ck_assert_int_eq(put_page(gfn, KIND_ZERO, 0), 0);
    for (gfn_t i = 0; i <= gfn; i++)
        assert_page(i);
    assert_sound();
}
END_TEST

START_TEST(test_zram_each_failed_get_is_enomem_and_what_is_stored_stays)
{
    for (long n = 1; n <= 12; n++) {
        gfn_t gfn = 0;
        int rc = 0;
        rig->source.fail_at = n;
        rig->source.max_order = 2;
        while (gfn < 100 && !(rc = put_page(gfn, KIND_TEXT, gfn + 1)))
            gfn++;
        rig->source.fail_at = 0;
        ck_assert_int_eq(rc, -ENOMEM);
        assert_sound();
        ck_assert_uint_eq(stat_now().orig_data_bytes, gfn * PAGE_BYTES);
        for (gfn_t i = 0; i < gfn; i++) {
            assert_page(i);
            free_page(i);
        }
        ck_assert_uint_eq(rig->source.nr_taken, 0);
    }
}
END_TEST

START_TEST(test_zram_damaged_object_is_eio_and_counted)
{
    unsigned char back[PAGE_BYTES];
    uint64_t nr = 0;

    for (unsigned kind = KIND_SAME_LARGE; kind <= KIND_TEXT; kind++) {
        ck_assert_int_eq(put_page(kind, (enum kind)kind, 3), 0);
        struct zobject *object = object_of(kind);
        size_t bytes = sizeof(*object) + (object->len & ZOBJECT_LEN_MASK);
        for (size_t i = offsetof(struct zobject, checksum); i < bytes; i++) {
            ((unsigned char *)object)[i] ^= 0x10;
            ck_assert_int_eq(zram_load(rig->zram, rig->thread, rig->entries[kind].payload, back), -EIO);
            ((unsigned char *)object)[i] ^= 0x10;
            ck_assert_uint_eq(stat_now().failed_reads, ++nr);
        }
        assert_page(kind);
    }
    assert_sound();
}
END_TEST

START_TEST(test_zram_damaged_length_is_eio)
{
    unsigned char back[PAGE_BYTES];

    ck_assert_int_eq(put_page(1, KIND_TEXT, 3), 0);
    ck_assert_int_eq(put_page(2, KIND_SAME_LARGE, 3), 0);
    for (gfn_t gfn = 1; gfn <= 2; gfn++) {
        struct zobject *object = object_of(gfn);
        uint16_t len = object->len;
        for (uint32_t bad = 0; bad <= UINT16_MAX; bad += 3) {
            /* bits between length and flag mean nothing */
            if ((bad & ZOBJECT_LEN_MASK) == (len & ZOBJECT_LEN_MASK))
                continue;
            object->len = (uint16_t)bad;
            if (zram_load(rig->zram, rig->thread, rig->entries[gfn].payload, back) != -EIO)
                ck_abort_msg("length %u was taken for %u", bad, len);
        }
        object->len = len;
        assert_page(gfn);
    }
}
END_TEST

START_TEST(test_zram_forged_checksum_is_left_to_the_decoder)
{
    unsigned char back[PAGE_BYTES];

    ck_assert_int_eq(put_page(1, KIND_TEXT, 3), 0);
    struct zobject *object = object_of(1);
    uint16_t len = object->len;

    memset(object->data, 0xff, len);
    object->checksum = checksum32(object->data, len);
    ck_assert_int_eq(zram_load(rig->zram, rig->thread, rig->entries[1].payload, back), -EIO);
    /* a repeated word that is not a word long */
    object->len = ZOBJECT_FLAG | 16;
    object->checksum = checksum32(object->data, 16);
    ck_assert_int_eq(zram_load(rig->zram, rig->thread, rig->entries[1].payload, back), -EIO);
    ck_assert_uint_eq(stat_now().failed_reads, 2);
    object->len = len;
}
END_TEST

START_TEST(test_zram_bad_config_is_refused)
{
    struct zram_pages pages = run_source_pages(&rig->source);
    struct zram_config none = {.algo = ZRAM_LZ4};
    struct zram_config level = {.algo = ZRAM_ZSTD, .level = 20, .limit_bytes = 1 << 20};
    struct zram_config algo = {.algo = (enum zram_algo)7, .limit_bytes = 1 << 20};
    struct zram *zram;

    ck_assert_int_eq(zram_create(&none, &pages, &zram), -EINVAL);
    ck_assert_int_eq(zram_create(&level, &pages, &zram), -EINVAL);
    ck_assert_int_eq(zram_create(&algo, &pages, &zram), -EINVAL);
    ck_assert_str_eq(zram_algo_name(ZRAM_LZ4), "lz4");
    ck_assert_str_eq(zram_algo_name(ZRAM_ZSTD), "zstd");
    ck_assert_str_eq(zram_algo_name(algo.algo), "unknown");
    zram_destroy(NULL);
    zram_thread_destroy(NULL);
}
END_TEST

/* Creates and destroys a store and a thread of it. */
static int create_both(enum zram_algo algo)
{
    struct zram_pages pages = run_source_pages(&rig->source);
    struct zram_config config = {.algo = algo, .limit_bytes = 1 << 20};
    struct zram *zram;
    struct zram_thread *thread;

    int rc = zram_create(&config, &pages, &zram);
    if (rc)
        return rc;
    rc = zram_thread_create(zram, &thread);
    if (!rc)
        zram_thread_destroy(thread);
    zram_destroy(zram);
    return rc;
}

START_TEST(test_zram_failed_allocation_is_enomem)
{
    long n = 1;

    for (;; n++) {
        fail_alloc_at(n);
        int rc = create_both(algos[_i]);
        bool failed = fail_alloc_fired();
        fail_alloc_at(-1);
        ck_assert_int_eq(rc, failed ? -ENOMEM : 0);
        if (!failed)
            break;
    }
    ck_assert_int_gt(n, 3);
}
END_TEST

START_TEST(test_zram_store_and_load_allocate_nothing)
{
    unsigned char back[PAGE_BYTES];

    teardown();
    setup_algo(algos[_i], NR_FRAMES);
    fail_alloc_at(1);
    int stored = put_page(1, KIND_TEXT, 3);
    int loaded = zram_load(rig->zram, rig->thread, rig->entries[1].payload, back);
    long nr = fail_alloc_count();
    fail_alloc_at(-1);
    ck_assert_int_eq(stored | loaded, 0);
    ck_assert_int_eq(nr, 0);
}
END_TEST

/* As the owner does it: under the entry's lock, if that is free, and only if the entry still says so. */
static int relocate(void *ctx, vmid_t vm, gfn_t gfn, uint64_t payload)
{
    struct rig *r = ctx;
    struct entry *entry = &r->entries[gfn];

    __atomic_fetch_add(&r->nr_asked, 1, __ATOMIC_RELAXED);
    if (vm != 1 || gfn >= NR_ENTRIES || (r->refuse_modulo && gfn % r->refuse_modulo == 0))
        return -EAGAIN;
    if (!lock_try(&entry->lock))
        return -EAGAIN;
    int rc = -EAGAIN;
    if (entry->used && entry->payload == payload) {
        entry->payload = zram_move(r->zram, payload);
        rc = 0;
    }
    lock_release(&entry->lock);
    return rc;
}

/* 300 objects, then two of three freed: most zspages are sparse. */
static void make_sparse(void)
{
    for (gfn_t gfn = 0; gfn < NR_ENTRIES; gfn++)
        ck_assert_int_eq(put_page(gfn, KIND_TEXT, gfn + 1), 0);
    for (gfn_t gfn = 0; gfn < NR_ENTRIES; gfn++) {
        if (gfn % 3)
            free_page(gfn);
    }
}

static void assert_all_pages(void)
{
    for (gfn_t gfn = 0; gfn < NR_ENTRIES; gfn++) {
        if (rig->entries[gfn].used)
            assert_page(gfn);
    }
    assert_sound();
}

/* No class has as many unused objects as four of its pages hold. */
static void assert_packed(void)
{
    struct zram_class_stat rows[ZPOOL_MAX_CLASSES];
    unsigned nr = zram_class_stat(rig->zram, rows, ZPOOL_MAX_CLASSES);

    for (unsigned i = 0; i < nr; i++) {
        if (rows[i].nr_pages)
            ck_assert_uint_lt((rows[i].nr_objects - rows[i].nr_used) * rows[i].nr_pages,
                              rows[i].nr_objects << ZPOOL_MAX_ORDER);
    }
}

START_TEST(test_zram_compact_packs_every_class)
{
    make_sparse();
    uint32_t before = rig->source.nr_taken;
    uint32_t freed = zram_compact(rig->zram, relocate, rig, UINT32_MAX);
    ck_assert_uint_gt(freed, before / 3);
    ck_assert_uint_eq(rig->source.nr_taken, before - freed);
    assert_packed();
    ck_assert_uint_eq(stat_now().pages_compacted, freed);
    assert_all_pages();
    ck_assert_uint_eq(zram_compact(rig->zram, relocate, rig, UINT32_MAX), 0);
}
END_TEST

START_TEST(test_zram_compact_stops_at_the_pages_asked_for)
{
    make_sparse();
    uint32_t freed = zram_compact(rig->zram, relocate, rig, 5);
    ck_assert_uint_ge(freed, 5);
    ck_assert_uint_le(freed, 5 + (1u << ZPOOL_MAX_ORDER) - 1);
    assert_all_pages();
    rig->nr_asked = 0;
    ck_assert_uint_eq(zram_compact(rig->zram, relocate, rig, 0), 0);
    ck_assert_uint_eq(rig->nr_asked, 0);
}
END_TEST

START_TEST(test_zram_compact_leaves_busy_pages)
{
    make_sparse();
    rig->refuse_modulo = 1;
    uint32_t before = rig->source.nr_taken;
    ck_assert_uint_eq(zram_compact(rig->zram, relocate, rig, UINT32_MAX), 0);
    ck_assert_uint_eq(rig->source.nr_taken, before);
    rig->refuse_modulo = 7;
    for (unsigned n = 0; n < 20; n++) {
        zram_compact(rig->zram, relocate, rig, UINT32_MAX);
        assert_all_pages();
    }
    ck_assert_uint_lt(rig->source.nr_taken, before);
}
END_TEST

START_TEST(test_zram_destroy_gives_all_frames_back)
{
    make_sparse();
    ck_assert_uint_gt(rig->source.nr_taken, 0);
    zram_destroy(rig->zram);
    ck_assert_uint_eq(rig->source.nr_taken, 0);
    rig->zram = NULL;
}
END_TEST

static void model_step(uint64_t *seed, uint64_t *nr_stored)
{
    gfn_t gfn = (gfn_t)(next_random(seed) % NR_ENTRIES);
    uint64_t dice = next_random(seed) % 200;

    if (dice == 0) {
        rig->refuse_modulo = (uint32_t)(next_random(seed) % 9);
        zram_compact(rig->zram, relocate, rig, (uint32_t)(next_random(seed) % 20));
    } else if (!rig->entries[gfn].used) {
        enum kind kind = (enum kind)(next_random(seed) % NR_KINDS);
        rig->source.fail_at = dice % 11 == 0;
        rig->source.max_order = dice % 5 ? ZPOOL_MAX_ORDER : 0;
        int rc = put_page(gfn, kind, next_random(seed) >> 8);
        ck_assert(rc == 0 || rc == -ENOMEM || rc == -ENOSPC || (rc == -E2BIG && kind >= KIND_HALF));
        rig->source.fail_at = 0;
        *nr_stored += !rc;
    } else {
        assert_page(gfn);
        if (dice % 2) {
            free_page(gfn);
            --*nr_stored;
        }
    }
}

START_TEST(test_zram_random_operations_match_the_model)
{
    uint64_t seed = 77 + 1000 * (uint64_t)_i, nr_stored = 0;

    teardown();
    setup_algo(algos[_i % 2], _i < 2 ? NR_FRAMES : 40);
    for (unsigned step = 0; step < 2500; step++) {
        model_step(&seed, &nr_stored);
        assert_sound();
        ck_assert_uint_eq(stat_now().orig_data_bytes, nr_stored * PAGE_BYTES);
    }
    assert_all_pages();
    for (gfn_t gfn = 0; gfn < NR_ENTRIES; gfn++) {
        if (rig->entries[gfn].used)
            free_page(gfn);
    }
    assert_sound();
    ck_assert_uint_eq(rig->source.nr_taken, 0);
    ck_assert_uint_eq(stat_now().compr_data_bytes, 0);
    ck_assert_uint_eq(stat_now().same_pages, 0);
}
END_TEST

struct worker {
    pthread_t thread;
    struct zram_thread *state;
    uint64_t seed;
    uint32_t nr_wrong; /* Check's assertions are not for threads */
};

/* Three workers share all entries; whoever holds the entry's lock owns the payload. */
static void worker_step(struct worker *worker, unsigned char *back)
{
    struct entry *entry = &rig->entries[next_random(&worker->seed) % 60];
    gfn_t gfn = (gfn_t)(entry - rig->entries);

    lock_acquire(&entry->lock);
    if (entry->used) {
        worker->nr_wrong += zram_load(rig->zram, worker->state, entry->payload, back) != 0;
        worker->nr_wrong += memcmp(back, entry->page, PAGE_BYTES) != 0;
        zram_free(rig->zram, entry->payload);
        entry->used = false;
    } else {
        page_make(entry->page, (enum kind)(next_random(&worker->seed) % KIND_NOISE), worker->seed >> 8);
        int rc = zram_store(rig->zram, worker->state, 1, gfn, entry->page, &entry->payload);
        entry->used = !rc;
    }
    lock_release(&entry->lock);
}

static void *worker_main(void *arg)
{
    struct worker *worker = arg;
    unsigned char back[PAGE_BYTES];

    for (unsigned n = 0; n < 1500; n++)
        worker_step(worker, back);
    return NULL;
}

static void *compactor_main(void *arg)
{
    struct zram_stat stat;
    struct zram_class_stat rows[ZPOOL_MAX_CLASSES];

    for (unsigned n = 0; n < 100; n++) {
        zram_compact(rig->zram, relocate, rig, 8);
        zram_stat(rig->zram, &stat);
        zram_class_stat(rig->zram, rows, ZPOOL_MAX_CLASSES);
    }
    return arg;
}

START_TEST(test_zram_threads_and_compaction_lose_nothing)
{
    struct worker workers[3] = {0};
    pthread_t compactor;

    for (unsigned i = 0; i < ARRAY_LEN(workers); i++) {
        workers[i].seed = 5 + i;
        ck_assert_int_eq(zram_thread_create(rig->zram, &workers[i].state), 0);
        ck_assert_int_eq(pthread_create(&workers[i].thread, NULL, worker_main, &workers[i]), 0);
    }
    ck_assert_int_eq(pthread_create(&compactor, NULL, compactor_main, NULL), 0);
    pthread_join(compactor, NULL);
    for (unsigned i = 0; i < ARRAY_LEN(workers); i++) {
        pthread_join(workers[i].thread, NULL);
        ck_assert_uint_eq(workers[i].nr_wrong, 0);
        zram_thread_destroy(workers[i].state);
    }
    assert_all_pages();
}
END_TEST

static Suite *zram_suite(void)
{
    Suite *suite = suite_create("zram");
    TCase *tcase = tcase_create("zram");
    const int nr = (int)ARRAY_LEN(algos);

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, test_zram_zero_page_needs_no_storage);
    tcase_add_test(tcase, test_zram_same_word_of_48_bits_is_the_payload);
    tcase_add_test(tcase, test_zram_same_word_beyond_48_bits_is_a_small_object);
    tcase_add_test(tcase, test_zram_page_with_one_odd_byte_is_not_same);
    tcase_add_loop_test(tcase, test_zram_each_algorithm_round_trips, 0, nr);
    tcase_add_test(tcase, test_zram_random_page_is_refused_and_counted);
    tcase_add_test(tcase, test_zram_limit_is_enospc_and_what_is_stored_stays);
    tcase_add_test(tcase, test_zram_each_failed_get_is_enomem_and_what_is_stored_stays);
    tcase_add_test(tcase, test_zram_damaged_object_is_eio_and_counted);
    tcase_add_test(tcase, test_zram_damaged_length_is_eio);
    tcase_add_test(tcase, test_zram_forged_checksum_is_left_to_the_decoder);
    tcase_add_test(tcase, test_zram_bad_config_is_refused);
    tcase_add_loop_test(tcase, test_zram_failed_allocation_is_enomem, 0, nr);
    tcase_add_loop_test(tcase, test_zram_store_and_load_allocate_nothing, 0, nr);
    tcase_add_test(tcase, test_zram_compact_packs_every_class);
    tcase_add_test(tcase, test_zram_compact_stops_at_the_pages_asked_for);
    tcase_add_test(tcase, test_zram_compact_leaves_busy_pages);
    tcase_add_test(tcase, test_zram_destroy_gives_all_frames_back);
    tcase_add_loop_test(tcase, test_zram_random_operations_match_the_model, 0, 4);
    tcase_add_test(tcase, test_zram_threads_and_compaction_lose_nothing);
    suite_add_tcase(suite, tcase);
    return suite;
}

int main(void)
{
    SRunner *runner = srunner_create(zram_suite());
    srunner_run_all(runner, CK_NORMAL);
    int nr_failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return nr_failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
