/* SPDX-License-Identifier: Apache-2.0 */
/* Contents and sums: of init, and of what looks for its pages elsewhere (tests/lab/corepages.c). */
#include "guest-images/linux/guest.h"

uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

void fill_random(uint64_t *words, size_t nr_words, uint64_t a, uint64_t b, uint64_t c)
{
    uint64_t state = (a * 0x9e3779b97f4a7c15u) ^ (b * 0xc2b2ae3d27d4eb4fu) ^ (c * 0x165667b19e3779f9u);

    /* Zero is the one state from which nothing comes. */
    state = state ? state : 1;
    next_random(&state);
    for (size_t i = 0; i < nr_words; i++)
        words[i] = next_random(&state);
}

uint64_t sum_words(const uint64_t *words, size_t nr_words)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < nr_words; i++)
        sum = ((sum << 5) | (sum >> 59)) + words[i];
    return sum;
}

uint64_t area_page_sum(const uint64_t *page)
{
    return sum_words(page, 2) ^ sum_words(page + 3, GUEST_PAGE_BYTES / sizeof(*page) - 3);
}
