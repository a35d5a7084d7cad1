/* SPDX-License-Identifier: Apache-2.0 */
/* What looks, in the background, for where pages belong and for blocks to be made 2 MiB frames of. */
#include "mm/policy/numa.h"
#include "mm/policy/page_size.h"

/* The sooner of two waits, of which 0 is for ever. */
static unsigned sooner(unsigned a_ms, unsigned b_ms)
{
    return !a_ms || (b_ms && b_ms < a_ms) ? b_ms : a_ms;
}

unsigned mm_scan(struct mm_thread *thread)
{
    return sooner(numa_scan(thread), collapse_scan(thread));
}
