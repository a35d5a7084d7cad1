/* SPDX-License-Identifier: Apache-2.0 */
/*
 * access_source: who else can say which guest pages were touched. Without one, accesses are learnt from faults alone:
 * pages that were taken home come back when they are touched (mm/policy/access.h). With one, nothing is taken home to
 * learn that. vmm/access_damon.c and vmm/access_page_idle.c are two, on kernels that have what they need.
 */
#ifndef MM_POLICY_ACCESS_SOURCE_H
#define MM_POLICY_ACCESS_SOURCE_H

#include "mm/base/types.h"

/* Pages [gfn, gfn + nr) of the VM were touched since the last poll, all of them as far as is known, or none was. */
typedef void access_report_fn(void *ctx, vmid_t vm, gfn_t gfn, uint32_t nr, bool touched);

struct access_source {
    const char *name; /* "damon" */
    unsigned period_ms;
    /*
     * poll - @report is called for what is known of the time since the last poll; pages of which nothing is known are
     * left out, and a VM that is gone may be named. Called by the scanner alone, no lock held. Returns 0, or -errno: the
     * source is broken, is not asked again, and sampling takes its place.
     */
    int (*poll)(void *ctx, access_report_fn *report, void *report_ctx);
    void *ctx;
};

#endif
