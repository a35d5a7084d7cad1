/* SPDX-License-Identifier: Apache-2.0 */
/*
 * views: what the memory manager says about itself, as JSON. Pure: statistics in, a new object out. The API sends these
 * objects, `ebb show` renders them, the report of a run holds some of them.
 *
 * Names are Linux's where Linux has one; elsewhere the unit stands in the name. A missing part (a VM that is gone) is
 * left out, never made up. Each returns a new reference, NULL only when memory ran out.
 */
#ifndef VMM_VIEWS_H
#define VMM_VIEWS_H

#include "devices/balloon/balloon.h"
#include "devices/mem/mem.h"
#include "mm/mm.h"
#include "mm/policy/access.h"

#include <jansson.h>

/* A page's state by name and the order in which views list them; the name is that of mm_page_info. */
enum view_state {
    VIEW_RESIDENT,
    VIEW_STANDBY,
    VIEW_ZRAM,
    VIEW_SWAP,
    VIEW_DISK,
    VIEW_BALLOON,
    VIEW_POISON,
    VIEW_FILL,
    VIEW_ABSENT,
    VIEW_UNPLUGGED,
    NR_VIEW_STATES,
};
extern const char *const view_state_names[NR_VIEW_STATES];

/* Pages of a range by state, counted by walking it. */
struct view_region {
    gpa_t start;
    uint64_t bytes;
    uint64_t pages[NR_VIEW_STATES];
};

/* What the views about VMs are made of. */
struct view_vm_stat {
    const char *name;
    struct mm_vm_stat stat;
    unsigned nr_regions;
    struct view_region regions[MM_MAX_REGIONS];
    uint64_t age_pages[16]; /* resident pages by age */
    uint32_t age_stride;    /* one page of so many was looked at */
};

json_t *view_vmstat(const struct mm_host_stat *host, const struct zram_stat *zram);
json_t *view_zoneinfo(const struct mm_host_stat *host, const struct mm_zone_stat *zones, unsigned nr);
json_t *view_buddyinfo(const struct mm_zone_stat *zones, unsigned nr);
/* Free blocks by type, plane and order, and pageblocks by type: vmm/views_frag.c. */
json_t *view_pagetypeinfo(const struct mm_zone_stat *zones, unsigned nr);
/* Fragmentation by plane and order, in thousandths (mm/frame/fragindex.h). */
json_t *view_extfrag(const struct mm_zone_stat *zones, unsigned nr);
json_t *view_slabinfo(const struct slab_stat *caches, unsigned nr);
json_t *view_lru(const struct mm_host_stat *host, const struct view_vm_stat *vms, unsigned nr);
json_t *view_pageclass(const uint64_t pages[MM_NR_PAGE_CLASSES]);
/* @algo: NULL when there is no store; then @stat is zeros and @nr is 0. */
json_t *view_zram(const char *algo, const struct zram_stat *stat, const struct zram_class_stat *classes, unsigned nr);
json_t *view_swaps(const struct swap_area_stat *areas, unsigned nr);
json_t *view_stage2(const struct mm_host_stat *host, const struct view_vm_stat *vms, unsigned nr);
json_t *view_regions(const struct view_vm_stat *vms, unsigned nr);
json_t *view_free(const struct mm_host_stat *host, const struct zram_stat *zram, const struct swap_area_stat *areas,
                  unsigned nr_areas, const struct view_vm_stat *vms, unsigned nr_vms);
json_t *view_page(const char *vm_name, gpa_t gpa, const struct mm_page_info *info);

/* view_idle.c: what is known of accesses, and what of each VM. */
struct view_idle {
    const char *name;
    struct access_idle idle;
};
json_t *view_idle(const struct access_stat *access, const struct view_idle *vms, unsigned nr);

/* Members of @out: a VM's balloon, and the statistics that the guest gave; its virtio-mem. */
void view_put_balloon(json_t *out, const struct balloon_info *info, const struct balloon_stats *stats);
void view_put_mem(json_t *out, const struct mem_info *info);

/* @text as a JSON string; bytes beyond ASCII become ? when it is not UTF-8, as a path may be. */
json_t *view_text(const char *text);
/* object[name] = value. */
void view_put(json_t *object, const char *name, uint64_t value);

#endif
