/* SPDX-License-Identifier: Apache-2.0 */
/* What looks, in the background, for where pages belong, and which are in use. */
#include "mm/policy/access.h"
#include "mm/policy/numa.h"

unsigned mm_scan(struct mm_thread *thread)
{
    unsigned numa_ms = numa_scan(thread), access_ms = access_scan(thread);
    return numa_ms ? MIN_OF(numa_ms, access_ms) : access_ms;
}
