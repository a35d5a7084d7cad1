/* SPDX-License-Identifier: Apache-2.0 */
#include "mm/frame/fragindex.h"

struct free_sum {
    uint64_t pages, blocks;
    uint64_t suitable_pages; /* in blocks of the order asked for, or larger */
};

static struct free_sum add_up(const uint32_t nr_blocks[MAX_ORDER + 1], unsigned order)
{
    struct free_sum sum = {0};
    for (unsigned o = 0; o <= MAX_ORDER; o++) {
        uint64_t pages = (uint64_t)nr_blocks[o] << o;
        sum.blocks += nr_blocks[o];
        sum.pages += pages;
        sum.suitable_pages += o >= order ? pages : 0;
    }
    return sum;
}

/*
 * 1 - (1 + pages / wanted) / blocks: the free pages could make pages / wanted blocks of the wanted size; the more
 * pieces they are in beyond that, the more is it the pieces' fault and not the amount's.
 */
int extfrag_index(const uint32_t nr_blocks[MAX_ORDER + 1], unsigned order)
{
    struct free_sum sum = add_up(nr_blocks, order);
    if (sum.suitable_pages)
        return -1000;
    if (!sum.blocks)
        return 0;
    /* one block that is too small is a lack of memory: the formula would say less than 0 */
    uint64_t lack = (1000 + (sum.pages * 1000 >> order)) / sum.blocks;
    return 1000 - (int)MIN_OF(lack, UINT64_C(1000));
}

int unusable_index(const uint32_t nr_blocks[MAX_ORDER + 1], unsigned order)
{
    struct free_sum sum = add_up(nr_blocks, order);
    return sum.pages ? (int)((sum.pages - sum.suitable_pages) * 1000 / sum.pages) : 1000;
}
