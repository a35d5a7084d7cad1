/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "mm/frame/pcp.h"

/* Linux mm/page_alloc.c, zone_batchsize: 31 for small zones; high is six batches. */
#define DEFAULT_BATCH 31
#define DEFAULT_HIGH (6 * DEFAULT_BATCH)
#define CHUNK 64 /* frames moved in one hold of zone.lock at most; bounds the array on the stack */

void pcp_init(struct pcp *pcp, struct zone *zone, uint32_t high, uint32_t batch)
{
    *pcp = (struct pcp){.zone = zone, .high = high ? high : DEFAULT_HIGH, .batch = batch ? batch : DEFAULT_BATCH};
    frame_list_init(&pcp->list);
}

/* Puts up to pcp.batch frames at the cold end. */
static void refill(struct pcp *pcp)
{
    fn_t fns[CHUNK];
    for (uint32_t left = pcp->batch; left;) {
        uint32_t want = MIN_OF(left, (uint32_t)CHUNK);
        uint32_t got = zone_alloc_bulk(pcp->zone, PLANE_FILLED, fns, want);
        for (uint32_t i = 0; i < got; i++) {
            pcp->zone->frames[fns[i]].use = FRAME_PCP;
            frame_list_push_tail(&pcp->list, pcp->zone->frames, fns[i]);
        }
        left = got == want ? left - got : 0;
    }
}

/* Gives @nr frames of the cold end back. */
static void drain(struct pcp *pcp, uint32_t nr)
{
    fn_t fns[CHUNK];
    while (nr) {
        uint32_t chunk = MIN_OF(nr, (uint32_t)CHUNK);
        for (uint32_t i = 0; i < chunk; i++)
            fns[i] = frame_list_pop_tail(&pcp->list, pcp->zone->frames);
        zone_free_bulk(pcp->zone, PLANE_FILLED, fns, chunk);
        nr -= chunk;
    }
}

int pcp_alloc(struct pcp *pcp, fn_t *out)
{
    if (pcp->list.nr) {
        pcp->nr_hit++;
    } else {
        pcp->nr_refill++;
        refill(pcp);
    }
    fn_t fn = frame_list_pop_head(&pcp->list, pcp->zone->frames);
    if (fn == FN_NONE)
        return -ENOMEM;
    pcp->zone->frames[fn].use = FRAME_USED;
    *out = fn;
    return 0;
}

void pcp_free(struct pcp *pcp, fn_t fn, bool hot)
{
    struct frame *frame = &pcp->zone->frames[fn];
    frame->use = FRAME_PCP;
    frame->flags = 0;
    frame->order = 0;
    if (hot)
        frame_list_push_head(&pcp->list, pcp->zone->frames, fn);
    else
        frame_list_push_tail(&pcp->list, pcp->zone->frames, fn);
    if (pcp->list.nr > pcp->high) {
        pcp->nr_drain++;
        drain(pcp, MIN_OF(pcp->batch, pcp->list.nr));
    }
}

void pcp_drain(struct pcp *pcp)
{
    drain(pcp, pcp->list.nr);
}
