/* SPDX-License-Identifier: Apache-2.0 */
/* What looks, in the background, for where pages belong, which are in use, and what is to be a 2 MiB frame again. */
#include "mm/policy/access.h"
#include "mm/policy/numa.h"
#include "mm/policy/page_size.h"

/* The sooner of two waits, of which 0 is for ever. */
static unsigned sooner(unsigned a_ms, unsigned b_ms)
{
    return !a_ms || (b_ms && b_ms < a_ms) ? b_ms : a_ms;
}

unsigned mm_scan(struct mm_thread *thread)
{
    unsigned ms = sooner(numa_scan(thread), access_scan(thread));
    return sooner(ms, collapse_scan(thread));
}
