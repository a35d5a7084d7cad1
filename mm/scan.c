/* SPDX-License-Identifier: Apache-2.0 */
/* What looks, in the background, for where pages belong. */
#include "mm/policy/numa.h"

unsigned mm_scan(struct mm_thread *thread)
{
    return numa_scan(thread);
}
