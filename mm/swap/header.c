/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The header in slot 0: include/linux/swap.h, union swap_header, version 1.
 *
 *   0     boot block, untouched      1036  uuid, 16 bytes
 *   1024  version                    1052  label, 16 bytes, zero terminated
 *   1028  last page                  1536  bad pages
 *   1032  number of bad pages        4086  "SWAPSPACE2"
 */
#include "mm/swap/area.h"

#include <errno.h>
#include <string.h>

#define VERSION 1u
#define MAGIC_BYTES 10

struct header {
    uint8_t boot[1024];
    uint32_t version, last_page, nr_badpages; /* byte order of the machine */
    uint8_t uuid[16];
    char label[16];
    uint8_t rest[4096 - 1068 - MAGIC_BYTES];
    char magic[MAGIC_BYTES];
};
_Static_assert(sizeof(struct header) == PAGE_BYTES, "the header is one page");
_Static_assert(offsetof(struct header, label) == 1052, "no padding");

static const char magic_swap[MAGIC_BYTES + 1] = "SWAPSPACE2";
/* What a kernel or a suspend program puts there while an image is in the area: kernel/power/swap.c, uswsusp. */
static const char magic_image[][MAGIC_BYTES] = {"S1SUSPEND", "S2SUSPEND", "ULSUSPEND", "LINHIB0001"};

void swap_header_make(void *page, uint64_t nr_slots, const uint8_t uuid[16], const char *label)
{
    struct header *header = page;
    memset(header, 0, sizeof(*header));
    header->version = VERSION;
    header->last_page = (uint32_t)(nr_slots - 1);
    memcpy(header->uuid, uuid, sizeof(header->uuid));
    if (label)
        memcpy(header->label, label, strnlen(label, sizeof(header->label) - 1));
    memcpy(header->magic, magic_swap, MAGIC_BYTES);
}

int swap_header_read(const void *page, uint64_t *nr_slots)
{
    const struct header *header = page;
    for (unsigned i = 0; i < ARRAY_LEN(magic_image); i++)
        if (memcmp(header->magic, magic_image[i], 9) == 0)
            return -EBUSY;
    if (memcmp(header->magic, magic_swap, MAGIC_BYTES) != 0 || header->version != VERSION || header->last_page == 0)
        return -EINVAL;
    if (header->nr_badpages != 0)
        return -ENOTSUP;
    *nr_slots = (uint64_t)header->last_page + 1;
    return 0;
}
