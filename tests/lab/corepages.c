/* SPDX-License-Identifier: Apache-2.0 */
/*
 * corepages FILE: how many pages of the guest's workload (guest-images/linux/memory.c) a dump of `ebb dump` holds, whole and
 * each once: a page says whose it is and carries a sum over itself. Prints "whole N" and "distinct N".
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "guest-images/linux/guest.h"

#define MAX_PAGES (UINT64_C(1) << 22)

int main(int argc, char **argv)
{
    static uint8_t seen[MAX_PAGES / 8];
    uint64_t page[GUEST_PAGE_BYTES / sizeof(uint64_t)], nr_whole = 0, nr_distinct = 0;
    int fd = argc == 2 ? open(argv[1], O_RDONLY) : -1;
    off_t at = 0;
    ssize_t got;

    if (fd < 0) {
        fprintf(stderr, "usage: corepages FILE\n");
        return 2;
    }
    /* holes hold nothing */
    while ((at = lseek(fd, at, SEEK_DATA)) >= 0) {
        at &= ~(off_t)(GUEST_PAGE_BYTES - 1);
        got = pread(fd, page, sizeof(page), at);
        at += (off_t)GUEST_PAGE_BYTES;
        if (got != (ssize_t)sizeof(page) || page[1] == 0 || page[0] >= MAX_PAGES || page[2] != area_page_sum(page))
            continue;
        nr_whole++;
        nr_distinct += !(seen[page[0] / 8] >> (page[0] % 8) & 1);
        seen[page[0] / 8] |= (uint8_t)(1u << (page[0] % 8));
    }
    printf("whole %llu\ndistinct %llu\n", (unsigned long long)nr_whole, (unsigned long long)nr_distinct);
    return 0;
}
