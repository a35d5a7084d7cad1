/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Touches the machine's free memory once. Where the machine is itself a virtual one its host backs a page when it is
 * touched first, for several times the price of the page fault that a benchmark means to measure.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

/* Stays free, for the rest of the machine. */
#define RESERVE_BYTES (UINT64_C(3) << 30)
#define BLOCK (UINT64_C(2) << 20)

static uint64_t available_bytes(void)
{
    FILE *file = fopen("/proc/meminfo", "re");
    char line[128];
    unsigned long long kib = 0;

    while (file && fgets(line, sizeof(line), file) && sscanf(line, "MemAvailable: %llu", &kib) != 1)
        continue;
    if (file)
        fclose(file);
    return (uint64_t)kib << 10;
}

int main(void)
{
    uint64_t available = available_bytes();
    uint64_t bytes = available > RESERVE_BYTES ? (available - RESERVE_BYTES) / BLOCK * BLOCK : 0;
    char *memory = bytes ? mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
                         : MAP_FAILED;

    if (memory == MAP_FAILED)
        return 0;
    madvise(memory, bytes, MADV_HUGEPAGE);
    for (uint64_t at = 0; at < bytes; at += 4096)
        *(volatile char *)(memory + at) = 1;
    printf("touched %.1f GiB of RAM\n", (double)bytes / (double)(1u << 30));
    return 0;
}
