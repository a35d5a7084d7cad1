/* SPDX-License-Identifier: Apache-2.0 */
/* The balloon: all queues, configuration, rounds of hints, statistics, with a driver that does anything. */
#include "devices/balloon/balloon.h"
#include "tests/fuzz/fuzz_mm.h"

#include <stdlib.h>

/* A third region of guest memory, behind the high one, with room for whole blocks. */
#define LARGE_START (FUZZ_HIGH_START + FUZZ_HIGH_BYTES)
#define LARGE_BYTES (5 * FUZZ_MIB)
/* Where the host's part of the input writes page numbers for the driver to send. */
#define PFN_GPA UINT64_C(0x8000)
#define MAX_PFNS 1024u

static struct fuzz_rig rig;
static struct fuzz_mm mm;

static void see_hint(void *ctx, gpa_t gpa, uint64_t bytes)
{
    (void)ctx;
    if (!bytes || (gpa.v | bytes) & (PAGE_BYTES - 1) || !guest_mem_hva(&rig.mem, gpa, bytes))
        fuzz_fail("a hint outside memory");
}

/* A run of page numbers, rising or falling. */
static void write_pfns(struct fuzz_input *in)
{
    uint32_t pfn[MAX_PFNS], nr = fuzz_u16(in) % MAX_PFNS + 1, first = fuzz_u16(in);
    bool falls = first & 1;
    first = first & 2 ? (first >> 2) % 16 : (uint32_t)(LARGE_START >> PAGE_SHIFT) + (first >> 2) % 1400;
    for (uint32_t i = 0; i < nr; i++)
        pfn[i] = first + (falls ? nr - 1 - i : i);
    if (guest_mem_write(&rig.mem, (gpa_t){PFN_GPA}, pfn, nr * sizeof(*pfn)))
        fuzz_fail("the low region is too small");
}

static void check_info(struct balloon *balloon)
{
    struct balloon_info info;
    struct balloon_stats stats;
    balloon_info(balloon, &info);
    balloon_stats(balloon, &stats);
    if (info.dropped_bytes > FUZZ_LOW_BYTES + FUZZ_HIGH_BYTES + LARGE_BYTES)
        fuzz_fail("more in the balloon than there is");
    if (stats.valid >> BALLOON_NR_STATS)
        fuzz_fail("a statistic that is none");
}

/* What the host asks meanwhile. */
static void poke(void *ctx, struct fuzz_input *in)
{
    struct balloon *balloon = ctx;
    uint8_t what = fuzz_u8(in);
    switch (what % 10) {
    case 0:
        if (balloon_set_target(balloon, fuzz_u32(in)))
            return;
        break;
    case 1:
        if (balloon_hint_start(balloon))
            return;
        break;
    case 2:
        balloon_hint_stop(balloon);
        break;
    case 3:
        balloon_hint_done(balloon);
        break;
    case 4:
        if (balloon_hint_for_each(balloon, see_hint, NULL))
            return;
        break;
    case 5:
        if (balloon_poll_stats(balloon))
            return;
        break;
    case 6:
        check_info(balloon);
        break;
    case 7:
        fuzz_mm_touch(&mm, (gpa_t){fuzz_gpa(in)});
        break;
    case 8:
        fuzz_mm_touch(&mm, (gpa_t){LARGE_START + fuzz_u16(in) % 1400 * PAGE_BYTES});
        break;
    default:
        write_pfns(in);
    }
}

static void add_large_region(void)
{
    if (rig.mem.nr == 3)
        return;
    char *hva = aligned_alloc(PAGE_BYTES, LARGE_BYTES); /* the sanitizer watches its ends */
    if (!hva)
        fuzz_fail("no memory");
    rig.mem.region[rig.mem.nr++] = (struct guest_mem_region){{LARGE_START}, LARGE_BYTES, hva};
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static const struct mm_region regions[] = {{.start = {FUZZ_LOW_START}, .bytes = BLOCK_BYTES},
                                               {.start = {FUZZ_HIGH_START}, .bytes = 8 * FUZZ_MIB}};
    static const struct balloon_config config = {.stats = true,
                                                 .deflate_on_oom = true,
                                                 .hints = true,
                                                 .poison = true,
                                                 .reporting = true,
                                                 .must_tell_host = true};
    struct balloon *balloon;
    struct mm_vm_stat stat;

    fuzz_prepare(&rig);
    add_large_region();
    fuzz_mm_prepare(&mm, &rig, regions, ARRAY_LEN(regions));
    if (balloon_create(&config, &rig.env, &balloon))
        fuzz_fail("no balloon");
    fuzz_run(&rig, balloon_device(balloon), data, bytes, poke, balloon);
    fuzz_mm_check(&mm);
    mm_vm_stat(mm.vm, &stat);
    if (stat.balloon_bytes)
        fuzz_fail("a reset left pages in the balloon");
    balloon_destroy(balloon);
    fuzz_mm_renew(&mm);
    return 0;
}
