/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Content comes in chunks of 16 words (two cache lines), each from the page's seed and its own number alone: writing,
 * checking and sampling share one generator. The header overlays the first four words.
 */
#include "guest-images/ebbguest/pattern.h"

#define CHUNK_WORDS 16
#define NR_CHUNKS (PAGE_WORDS / CHUNK_WORDS)
#define HEADER_WORDS 4
#define MAGIC UINT64_C(0x6567617062626500) /* low byte: the pattern */
#define WEYL UINT64_C(0x9e3779b97f4a7c15)  /* 2^64 over the golden ratio, odd: steps that visit every word */

#define NR_FRAGMENTS 64
#define FRAGMENT_BYTES 8
#define NR_PHRASES 40 /* a page. Measured with lz4: 32 give 3.2:1, 48 give 2.8:1 */

static const char fragments[NR_FRAGMENTS * FRAGMENT_BYTES + 1] = "the page"
                                                                 " of the "
                                                                 "and then"
                                                                 " a frame"
                                                                 ", which "
                                                                 "is free."
                                                                 " memory "
                                                                 "that was"
                                                                 " in use "
                                                                 "when it "
                                                                 "came to "
                                                                 "the host"
                                                                 " kernel,"
                                                                 " so that"
                                                                 " no more"
                                                                 " than a "
                                                                 "few can "
                                                                 "be found"
                                                                 ".\nEvery "
                                                                 "table of"
                                                                 " entries"
                                                                 " points "
                                                                 "to lower"
                                                                 " levels "
                                                                 "and back"
                                                                 " again; "
                                                                 "a guest "
                                                                 "which is"
                                                                 " waiting"
                                                                 " for its"
                                                                 " turn on"
                                                                 " the cpu"
                                                                 ".\nWhere "
                                                                 "one list"
                                                                 " ends an"
                                                                 "other is"
                                                                 " started"
                                                                 ", older "
                                                                 "parts go"
                                                                 " to disk"
                                                                 " and new"
                                                                 " ones to"
                                                                 " a store"
                                                                 " in RAM."
                                                                 "\nBlocks "
                                                                 "are made"
                                                                 " of many"
                                                                 " pages, "
                                                                 "and many"
                                                                 " blocks "
                                                                 "make one"
                                                                 " region "
                                                                 "with its"
                                                                 " number."
                                                                 "\nWho re"
                                                                 "ads this"
                                                                 " finds a"
                                                                 " pattern"
                                                                 " between"
                                                                 " words, "
                                                                 "as lines"
                                                                 " repeat "
                                                                 "what has"
                                                                 " gone by";

/* Order spreads the kinds: neighbours differ, as in a heap. */
static const uint8_t mixed_share[16] = {
    EBB_PATTERN_TEXT, EBB_PATTERN_RANDOM, EBB_PATTERN_TEXT, EBB_PATTERN_ZERO,   EBB_PATTERN_TEXT, EBB_PATTERN_RANDOM,
    EBB_PATTERN_TEXT, EBB_PATTERN_SAME,   EBB_PATTERN_TEXT, EBB_PATTERN_ZERO,   EBB_PATTERN_TEXT, EBB_PATTERN_RANDOM,
    EBB_PATTERN_TEXT, EBB_PATTERN_SAME,   EBB_PATTERN_TEXT, EBB_PATTERN_RANDOM,
};

uint8_t pattern_of(uint32_t pattern, uint32_t index)
{
    return pattern == EBB_PATTERN_MIXED ? mixed_share[index % 16] : (uint8_t)pattern;
}

static uint64_t content_seed(const struct page_id *id)
{
    return mix64(id->seed ^ ((uint64_t)id->gfn << 16 | id->generation));
}

static uint64_t same_word(uint32_t gfn, uint32_t generation)
{
    uint64_t body = (uint64_t)gfn << 32 | generation << 16;

    return body | (mix64(body) >> 48) | 1; /* never zero */
}

static inline uint64_t fragment(uint64_t number)
{
    uint64_t word;

    __builtin_memcpy(&word, fragments + number % NR_FRAGMENTS * FRAGMENT_BYTES, sizeof(word));
    return word;
}

static inline void text_chunk(uint64_t seed, uint32_t chunk, uint64_t out[CHUNK_WORDS])
{
    uint64_t draw = mix64(seed + chunk * WEYL);

    for (unsigned i = 0; i < CHUNK_WORDS; i += 2, draw >>= 8) {
        uint64_t phrase = mix64(~seed + ((draw & 255) * NR_PHRASES >> 8));

        out[i] = fragment(phrase);
        out[i + 1] = fragment(phrase >> 32);
    }
}

static inline void random_chunk(uint64_t seed, uint32_t chunk, uint64_t out[CHUNK_WORDS])
{
    for (unsigned i = 0; i < CHUNK_WORDS; i++)
        out[i] = mix64(seed + (chunk * CHUNK_WORDS + i) * WEYL);
}

static inline void content_chunk(uint8_t pattern, uint64_t seed, uint32_t chunk, uint64_t out[CHUNK_WORDS])
{
    if (pattern == EBB_PATTERN_TEXT)
        text_chunk(seed, chunk, out);
    else
        random_chunk(seed, chunk, out);
}

/* Two sums, the second over the first: words that changed places are found too. */
static uint64_t checksum(const uint64_t *page)
{
    uint64_t a = 0, b = 0;

    for (unsigned i = HEADER_WORDS; i < PAGE_WORDS; i++) {
        a += page[i];
        b += a;
    }
    return a ^ mix64(b);
}

static void write_repeated(uint64_t *page, uint64_t word)
{
    for (unsigned i = 0; i < PAGE_WORDS; i++)
        page[i] = word;
}

static void write_content(uint64_t *page, const struct page_id *id)
{
    uint64_t seed = content_seed(id);

    for (uint32_t chunk = 0; chunk < NR_CHUNKS; chunk++)
        content_chunk(id->pattern, seed, chunk, page + chunk * CHUNK_WORDS);
    page[0] = MAGIC | id->pattern;
    page[1] = (uint64_t)id->gfn << 32 | id->generation;
    page[2] = seed;
    page[3] = checksum(page);
}

void page_write(uint64_t *page, const struct page_id *id)
{
    if (id->pattern == EBB_PATTERN_ZERO)
        write_repeated(page, 0);
    else if (id->pattern == EBB_PATTERN_SAME)
        write_repeated(page, same_word(id->gfn, id->generation));
    else
        write_content(page, id);
}

static bool all_words(const uint64_t *page, uint64_t word)
{
    uint64_t differs = 0;

    for (unsigned i = 0; i < PAGE_WORDS; i++)
        differs |= page[i] ^ word;
    return differs == 0;
}

static bool header_right(const uint64_t *page, const struct page_id *id, uint64_t seed)
{
    return page[0] == (MAGIC | id->pattern) && page[1] == ((uint64_t)id->gfn << 32 | id->generation) && page[2] == seed;
}

static bool content_right(const uint64_t *page, const struct page_id *id)
{
    uint64_t seed = content_seed(id);
    uint64_t want[CHUNK_WORDS];
    uint64_t differs = 0, a = 0, b = 0;

    for (uint32_t chunk = 0; chunk < NR_CHUNKS; chunk++) {
        content_chunk(id->pattern, seed, chunk, want);
        for (unsigned i = chunk == 0 ? HEADER_WORDS : 0; i < CHUNK_WORDS; i++) {
            differs |= page[chunk * CHUNK_WORDS + i] ^ want[i];
            a += want[i];
            b += a;
        }
    }
    return differs == 0 && header_right(page, id, seed) && page[3] == (a ^ mix64(b));
}

/* Whether the page is whole, whosever it is; says whose. */
static bool page_whole(const uint64_t *page, struct ebb_bad *bad)
{
    bool has_header = (page[0] & ~UINT64_C(255)) == MAGIC;
    uint64_t owner = has_header ? page[1] : page[0];

    bad->found_gfn = (uint32_t)(owner >> 32);
    bad->found_generation = has_header ? (uint16_t)owner : (uint16_t)(owner >> 16);
    if (has_header)
        return page[3] == checksum(page);
    return page[0] == same_word(bad->found_gfn, bad->found_generation) && all_words(page, page[0]);
}

static void classify(const uint64_t *page, const struct page_id *id, struct ebb_bad *bad)
{
    bad->gfn = id->gfn;
    bad->expected_generation = id->pattern == EBB_PATTERN_ZERO ? 0 : id->generation;
    if (all_words(page, 0)) {
        bad->kind = EBB_BAD_LOST;
        bad->found_gfn = 0;
        bad->found_generation = 0;
        return;
    }
    bool whole = page_whole(page, bad);
    if (whole && bad->found_gfn != id->gfn)
        bad->kind = EBB_BAD_SWAPPED;
    else if (whole && bad->found_generation != bad->expected_generation)
        bad->kind = EBB_BAD_STALE;
    else
        bad->kind = EBB_BAD_TORN;
}

bool page_check(const uint64_t *page, const struct page_id *id, struct ebb_bad *bad)
{
    bool right;

    if (id->pattern == EBB_PATTERN_ZERO)
        right = all_words(page, 0);
    else if (id->pattern == EBB_PATTERN_SAME)
        right = all_words(page, same_word(id->gfn, id->generation));
    else
        right = content_right(page, id);
    if (!right)
        classify(page, id, bad);
    return right;
}

/* Whether the words [at, at + 4) are right; not for chunk 0, where the header stands. */
static bool sample_right(const uint64_t *page, const struct page_id *id, uint64_t seed, uint32_t at)
{
    uint64_t want[CHUNK_WORDS];
    uint64_t differs = 0;

    content_chunk(id->pattern, seed, at / CHUNK_WORDS, want);
    for (uint32_t i = at; i < at + 4; i++)
        differs |= page[i] ^ want[i % CHUNK_WORDS];
    return differs == 0;
}

bool page_check_quick(const uint64_t *page, const struct page_id *id, uint32_t pick, struct ebb_bad *bad)
{
    uint32_t at = CHUNK_WORDS + pick % ((PAGE_WORDS - CHUNK_WORDS) / 4) * 4;
    bool right;

    if (id->pattern == EBB_PATTERN_ZERO || id->pattern == EBB_PATTERN_SAME) {
        uint64_t word = id->pattern == EBB_PATTERN_ZERO ? 0 : same_word(id->gfn, id->generation);
        right = page[0] == word && page[at] == word && page[at + 3] == word;
    } else {
        uint64_t seed = content_seed(id);
        right = header_right(page, id, seed) && sample_right(page, id, seed, at);
    }
    return right || page_check(page, id, bad);
}
