/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a page holds and how it is checked. Freestanding and without state: the guest kernel, the unit tests and the
 * benchmarks use the same code.
 *
 *   zero     512 zero words
 *   same     one word 512 times: page address (32 bits), generation (16), check over both (16)
 *   text     header, then English fragments: each page draws 16-byte phrases of its own and repeats them (lz4 about
 * 3:1) random   header, then words that no compressor shortens
 *
 *   header:  magic | gfn, generation | seed | checksum over words 4..511
 *
 * Content is a function of (run seed, gfn, generation), so that a check compares every word with what it must be.
 */
#ifndef EBBGUEST_PATTERN_H
#define EBBGUEST_PATTERN_H

#include "guest-images/ebbguest/abi.h"

#include <stdbool.h>

#define PAGE_WORDS 512

/* What a page should be. */
struct page_id {
    uint32_t gfn;
    uint16_t generation; /* 1..65535; ZERO pages carry none and count as 0 */
    uint8_t pattern;     /* enum ebb_pattern, not MIXED */
    uint64_t seed;       /* of the run */
};

/* 64 bits to 64 bits, each output bit depends on each input bit. */
static inline uint64_t mix64(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9); /* constants: splitmix64's finalizer */
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

/* The pattern that page @index of a workload has: for MIXED its share, otherwise @pattern itself. */
uint8_t pattern_of(uint32_t pattern, uint32_t index);

/* Writes all 4096 bytes. */
void page_write(uint64_t *page, const struct page_id *id);

/*
 * page_check - true when every word is right. Otherwise false, and *bad says what the page is instead (all but step).
 * page_check_quick - the header and 32 bytes that @pick chooses; a page that fails is checked in full.
 */
bool page_check(const uint64_t *page, const struct page_id *id, struct ebb_bad *bad);
bool page_check_quick(const uint64_t *page, const struct page_id *id, uint32_t pick, struct ebb_bad *bad);

#endif
