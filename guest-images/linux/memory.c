/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Workloads on anonymous memory. A page of an area says whose it is, and each of its words follows from that:
 *
 *   word 0     its number in the area, and which area
 *   word 1     generation: changes with each rewrite, and differs from guest to guest
 *   word 2     sum of all others
 *   3 .. 255   pseudo-random
 *   256 .. 511 one word again and again: the page compresses to about half
 *
 * So a page that is lost, torn, stale or another's is found, and what is there instead says which of them it is.
 */
#include "guest-images/linux/guest.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE_WORDS (GUEST_PAGE_BYTES / sizeof(uint64_t))
#define MAX_MIB (UINT64_C(1) << 24)
#define MAX_SECONDS 3600u

static void make_page(uint64_t *page, uint64_t owner, uint64_t generation)
{
    page[0] = owner;
    page[1] = generation;
    fill_random(page + 3, PAGE_WORDS / 2 - 3, owner, generation, 0);
    for (size_t i = PAGE_WORDS / 2; i < PAGE_WORDS; i++)
        page[i] = owner ^ generation;
    page[2] = area_page_sum(page);
}

static uint64_t owner_of(const struct guest *guest, const struct area *area, uint64_t page)
{
    return ((uint64_t)(area - guest->area) << 48) | page;
}

/* Generations never repeat, and their upper half is the guest's. */
static uint64_t next_generation(struct guest *guest)
{
    return (guest->seed << 32) | ++guest->generation;
}

static void fill_area(const struct guest *guest, struct area *area, uint64_t generation)
{
    area->generation = generation;
    for (uint64_t i = 0; i < area->nr_pages; i++)
        make_page(area->words + i * PAGE_WORDS, owner_of(guest, area, i), generation);
}

/* Adds an area of @mib MiB, nothing in it yet; NULL after failed(). */
static struct area *map_area(struct guest *guest, const struct words *words)
{
    struct area *area = &guest->area[guest->nr_areas];
    uint64_t mib;

    if (!number_arg(words, 1, MAX_MIB, 0, &mib) || mib == 0) {
        failed(words, "'%s' is no number of MiB", words->arg[1]);
        return NULL;
    }
    if (guest->nr_areas == GUEST_MAX_AREAS) {
        failed(words, "%d areas are all", GUEST_MAX_AREAS);
        return NULL;
    }
    area->nr_pages = mib * GUEST_MIB / GUEST_PAGE_BYTES;
    area->words =
        mmap(NULL, mib * GUEST_MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (area->words == MAP_FAILED) {
        failed(words, "no address space for %s MiB: %s", words->arg[1], strerror(errno));
        return NULL;
    }
    guest->nr_areas++;
    return area;
}

static void unmap_last(struct guest *guest)
{
    struct area *area = &guest->area[--guest->nr_areas];

    munmap(area->words, area->nr_pages * GUEST_PAGE_BYTES);
}

/* 0 with all pages counted in @nr_pages; -1 after failed(). */
static int check_areas(struct guest *guest, const struct words *words, uint64_t *nr_pages)
{
    uint64_t nr_bad = 0, expect[PAGE_WORDS], bad[3] = {0}, bad_sum = 0, bad_page = 0;

    *nr_pages = 0;
    for (struct area *area = guest->area; area < guest->area + guest->nr_areas; area++)
        for (uint64_t i = 0; i < area->nr_pages; i++) {
            const uint64_t *page = area->words + i * PAGE_WORDS;
            ++*nr_pages;
            make_page(expect, owner_of(guest, area, i), area->generation);
            if (memcmp(page, expect, sizeof(expect)) == 0)
                continue;
            if (nr_bad++ == 0) {
                memcpy(bad, page, sizeof(bad));
                bad_sum = area_page_sum(page);
                bad_page = owner_of(guest, area, i);
            }
        }
    if (nr_bad == 0)
        return 0;
    return failed(words, "bad=%llu pages=%llu first=%#llx holds owner=%#llx generation=%#llx %s",
                  (unsigned long long)nr_bad, (unsigned long long)*nr_pages, (unsigned long long)bad_page,
                  (unsigned long long)bad[0], (unsigned long long)bad[1], bad[2] == bad_sum ? "undamaged" : "damaged");
}

bool area_pages_are_whole(struct guest *guest, uint64_t nr_pages)
{
    uint64_t nr_all = 0;

    for (const struct area *area = guest->area; area < guest->area + guest->nr_areas; area++)
        nr_all += area->nr_pages;
    for (; nr_all > 0 && nr_pages > 0; nr_pages--) {
        const struct area *area = guest->area;
        uint64_t page = guest->read_at++ % nr_all;
        for (; page >= area->nr_pages; area++)
            page -= area->nr_pages;
        const uint64_t *words = area->words + page * PAGE_WORDS;
        if (words[0] != owner_of(guest, area, page) || words[1] != area->generation || words[2] != area_page_sum(words))
            return false;
    }
    return true;
}

int work_fill(struct guest *guest, const struct words *words)
{
    uint64_t nr_pages;
    struct area *area = map_area(guest, words);

    if (!area)
        return -1;
    fill_area(guest, area, next_generation(guest));
    if (check_areas(guest, words, &nr_pages) != 0)
        return -1;
    return passed(words, "pages=%llu", (unsigned long long)nr_pages);
}

int work_verify(struct guest *guest, const struct words *words)
{
    uint64_t nr_pages;

    if (guest->nr_areas == 0)
        return failed(words, "nothing was filled");
    if (check_areas(guest, words, &nr_pages) != 0)
        return -1;
    return passed(words, "pages=%llu", (unsigned long long)nr_pages);
}

int work_rewrite(struct guest *guest, const struct words *words)
{
    uint64_t generation = next_generation(guest), nr_pages = 0;

    if (guest->nr_areas == 0)
        return failed(words, "nothing was filled");
    for (struct area *area = guest->area; area < guest->area + guest->nr_areas; area++) {
        fill_area(guest, area, generation);
        nr_pages += area->nr_pages;
    }
    return passed(words, "pages=%llu", (unsigned long long)nr_pages);
}

int work_free(struct guest *guest, const struct words *words)
{
    uint64_t nr_pages = 0;

    while (guest->nr_areas > 0) {
        nr_pages += guest->area[guest->nr_areas - 1].nr_pages;
        unmap_last(guest);
    }
    return passed(words, "pages=%llu", (unsigned long long)nr_pages);
}

int work_touch(struct guest *guest, const struct words *words)
{
    struct area *area = map_area(guest, words);

    if (!area)
        return -1;
    uint64_t nr_pages = area->nr_pages, nr_bad = 0;
    for (uint64_t i = 0; i < nr_pages; i++)
        area->words[i * PAGE_WORDS] = owner_of(guest, area, i) + 1;
    for (uint64_t i = 0; i < nr_pages; i++) {
        const uint64_t *page = area->words + i * PAGE_WORDS;
        /* What nobody wrote is zero, however often the page has changed hands. */
        nr_bad += page[0] != owner_of(guest, area, i) + 1 || page[1] != 0 || page[PAGE_WORDS - 1] != 0;
    }
    unmap_last(guest);
    if (nr_bad > 0)
        return failed(words, "bad=%llu pages=%llu", (unsigned long long)nr_bad, (unsigned long long)nr_pages);
    return passed(words, "pages=%llu", (unsigned long long)nr_pages);
}

/* A child asks for the memory, so that init outlives an OOM kill. */
int work_oom(struct guest *guest, const struct words *words)
{
    int status;
    pid_t child = fork();

    if (child == 0) {
        struct area *area = map_area(guest, words);
        uint64_t nr_pages;
        /* If one has to go, it is this one. */
        write_text("/proc/self/oom_score_adj", "1000");
        if (area)
            fill_area(guest, area, next_generation(guest));
        _exit(area && check_areas(guest, words, &nr_pages) == 0 ? 0 : 1);
    }
    if (child < 0 || waitpid(child, &status, 0) != child)
        return failed(words, "no child process: %s", strerror(errno));
    if (WIFSIGNALED(status))
        return failed(words, "survived=no signal=%d%s", WTERMSIG(status), WTERMSIG(status) == SIGKILL ? " (OOM)" : "");
    if (WEXITSTATUS(status) != 0)
        return failed(words, "survived=yes but its memory was not right");
    return passed(words, "survived=yes mib=%s", words->arg[1]);
}

/*
 * Sums the pages of MIB MiB again and again for S seconds: how fast is a guest that only reads memory it has, and how
 * long was its longest pause?
 */
int work_rate(struct guest *guest, const struct words *words)
{
    uint64_t seconds, nr_pages = 0, longest_us = 0, sum = 0;

    if (!number_arg(words, 2, MAX_SECONDS, 0, &seconds) || seconds == 0)
        return failed(words, "'%s' is no number of seconds", words->arg[2]);
    struct area *area = map_area(guest, words);
    if (!area)
        return -1;
    fill_area(guest, area, next_generation(guest));
    say("rate begins");
    uint64_t begin = now_us(), last = begin, now = begin;
    while (now - begin < seconds * 1000000) {
        const uint64_t *page = area->words + nr_pages % area->nr_pages * PAGE_WORDS;
        sum += area_page_sum(page) - page[2];
        nr_pages++;
        now = now_us();
        if (now - last > longest_us)
            longest_us = now - last;
        last = now;
    }
    unmap_last(guest);
    if (sum != 0)
        return failed(words, "a page is bad");
    return passed(words, "pages=%llu us=%llu longest_us=%llu", (unsigned long long)nr_pages,
                  (unsigned long long)(now - begin), (unsigned long long)longest_us);
}
