/* SPDX-License-Identifier: Apache-2.0 */
/* What a step of a workload used: the truth beside which the estimate of `ebb show idle` can be put. */
#include "vmm/workload.h"

#include <math.h>

/* So many of the hottest pages are looked at one by one, those behind in groups of a part so large of their rank. */
#define ALONE 1024u

static uint32_t group_at(uint32_t rank, uint32_t nr_ranks)
{
    uint32_t width = rank < ALONE ? 1 : rank / ALONE;

    return MIN_OF(width, nr_ranks - rank);
}

/* How often the pages of the group are accessed, beside the hottest one. */
static double weight_of(uint32_t rank, uint32_t width, double theta)
{
    return pow(rank + (width + 1) / 2.0, -theta);
}

/* Of @nr_ranks pages, the n-th of which is accessed 1/n^theta times as often as the first, those that @ops accesses meet. */
static double zipf_met(uint32_t nr_ranks, double theta, double ops)
{
    double all = 0, met = 0;

    for (uint32_t rank = 0, width; rank < nr_ranks; rank += width) {
        width = group_at(rank, nr_ranks);
        all += width * weight_of(rank, width, theta);
    }
    for (uint32_t rank = 0, width; rank < nr_ranks; rank += width) {
        width = group_at(rank, nr_ranks);
        met -= width * expm1(-ops * weight_of(rank, width, theta) / all);
    }
    return met;
}

/* All that one pass touches. */
static uint32_t stream_pages(const struct ebb_step *step)
{
    uint32_t period = step->take_pages + step->skip_pages;

    return step->size_pages / period * step->take_pages + MIN_OF(step->size_pages % period, step->take_pages);
}

uint64_t workload_working_set(const struct ebb_step *step, const struct workload_step_result *result,
                              uint64_t window_ns)
{
    double share = result->ns > window_ns ? (double)window_ns / (double)result->ns : 1.0;
    double touched = (double)result->pages * share, most;

    switch (step->kind) {
    case EBB_STEP_FILL:
    case EBB_STEP_VERIFY:
        most = step->size_pages;
        break;
    case EBB_STEP_STREAM:
        most = stream_pages(step);
        break;
    case EBB_STEP_ZIPF:
        most = zipf_met(step->size_pages, step->theta_milli / 1000.0, (double)result->ops * share);
        touched = most;
        break;
    default:
        return 0;
    }
    return (uint64_t)(MIN_OF(touched, most) + 0.5) * PAGE_BYTES;
}
