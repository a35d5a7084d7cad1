/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/views.h"

#include <stdlib.h>
#include <string.h>

const char *const view_state_names[NR_VIEW_STATES] = {
    "resident", "standby", "zram", "swap", "disk", "balloon", "poison", "fill", "absent", "unplugged",
};

void view_put(json_t *object, const char *name, uint64_t value)
{
    json_object_set_new(object, name, json_integer((json_int_t)value));
}

json_t *view_text(const char *text)
{
    json_t *string = json_string(text);
    char *plain = string ? NULL : strdup(text);

    if (plain) {
        for (char *at = plain; *at; at++)
            if (*at & 0x80)
                *at = '?';
        string = json_string(plain);
        free(plain);
    }
    return string;
}

static void put_text(json_t *object, const char *name, const char *text)
{
    json_object_set_new(object, name, view_text(text));
}

/* Linux writes entries and addresses in hexadecimal; so do we, as text: JSON numbers have 53 bits. */
static void put_hex(json_t *object, const char *name, uint64_t value)
{
    json_object_set_new(object, name, json_sprintf("0x%llx", (unsigned long long)value));
}

static json_t *add_list(json_t *object, const char *name)
{
    json_t *list = json_array();

    json_object_set_new(object, name, list);
    return list;
}

static json_t *add_row(json_t *list)
{
    json_t *row = json_object();

    json_array_append_new(list, row);
    return row;
}

json_t *view_vmstat(const struct mm_host_stat *host, const struct zram_stat *zram)
{
    json_t *o = json_object();

    view_put(o, "nr_free_pages", host->free_bytes / PAGE_BYTES);
    view_put(o, "nr_active_anon", host->resident_bytes / PAGE_BYTES);
    view_put(o, "nr_inactive_anon", host->standby_bytes / PAGE_BYTES);
    view_put(o, "nr_zspages", zram->mem_used_bytes / PAGE_BYTES);
    view_put(o, "nr_page_table_pages", host->metadata_stage2_bytes / PAGE_BYTES);
    for (unsigned i = 0; i < NR_VM_EVENTS; i++)
        view_put(o, vm_event_names[i], host->event[i]);
    return o;
}

json_t *view_zoneinfo(const struct mm_host_stat *host, const struct mm_zone_stat *zones, unsigned nr)
{
    json_t *o = json_object(), *pool = json_object(), *list = add_list(o, "zones");

    json_object_set_new(o, "pool", pool);
    view_put(pool, "budget_bytes", host->budget_bytes);
    view_put(pool, "charged_bytes", host->charged_bytes);
    view_put(pool, "free_bytes", host->free_bytes);
    view_put(pool, "filled_free_bytes", host->filled_free_bytes);
    view_put(pool, "units_free_bytes", host->units_free_bytes);
    view_put(pool, "zeroed_stock_bytes", host->zeroed_stock_bytes);
    view_put(pool, "min_pages", host->wmark_pages[WMARK_MIN]);
    view_put(pool, "low_pages", host->wmark_pages[WMARK_LOW]);
    view_put(pool, "high_pages", host->wmark_pages[WMARK_HIGH]);
    for (unsigned i = 0; i < nr; i++) {
        json_t *zone = add_row(list);
        view_put(zone, "node", zones[i].node);
        put_text(zone, "zone", zones[i].name);
        view_put(zone, "start_pfn", zones[i].start_fn);
        view_put(zone, "spanned_pages", zones[i].nr_frames);
        view_put(zone, "free_filled_pages", zones[i].nr_free[PLANE_FILLED]);
        view_put(zone, "free_empty_pages", zones[i].nr_free[PLANE_EMPTY]);
        view_put(zone, "min_pages", zones[i].wmark[WMARK_MIN]);
        view_put(zone, "low_pages", zones[i].wmark[WMARK_LOW]);
        view_put(zone, "high_pages", zones[i].wmark[WMARK_HIGH]);
    }
    return o;
}

json_t *view_buddyinfo(const struct mm_zone_stat *zones, unsigned nr)
{
    static const char *const planes[NR_PLANES] = {"filled", "empty"};
    json_t *o = json_object(), *list = add_list(o, "zones");

    for (unsigned i = 0; i < nr; i++)
        for (unsigned plane = 0; plane < NR_PLANES; plane++) {
            json_t *row = add_row(list);
            view_put(row, "node", zones[i].node);
            put_text(row, "zone", zones[i].name);
            put_text(row, "plane", planes[plane]);
            json_t *blocks = add_list(row, "free_blocks");
            for (unsigned order = 0; order <= MAX_ORDER; order++)
                json_array_append_new(blocks, json_integer(zones[i].nr_blocks[plane][order]));
        }
    return o;
}

json_t *view_slabinfo(const struct slab_stat *caches, unsigned nr)
{
    json_t *o = json_object(), *list = add_list(o, "caches");

    for (unsigned i = 0; i < nr; i++) {
        json_t *row = add_row(list);
        put_text(row, "name", caches[i].name);
        view_put(row, "active_objs", caches[i].nr_used);
        view_put(row, "num_objs", caches[i].nr_total);
        view_put(row, "objsize", caches[i].object_bytes);
        view_put(row, "objperslab", caches[i].nr_per_slab);
        view_put(row, "pagesperslab", caches[i].pages_per_slab);
        view_put(row, "num_slabs", caches[i].nr_slabs);
    }
    return o;
}

json_t *view_lru(const struct mm_host_stat *host, const struct view_vm_stat *vms, unsigned nr)
{
    json_t *o = json_object(), *list;

    view_put(o, "active_blocks", host->nr_active_blocks);
    view_put(o, "active_pages", host->resident_bytes / PAGE_BYTES);
    view_put(o, "standby_pages", host->standby_bytes / PAGE_BYTES);
    view_put(o, "pgactivate", host->event[EV_pgactivate]);
    view_put(o, "pgdeactivate", host->event[EV_pgdeactivate]);
    view_put(o, "pgrefault", host->event[EV_pgrefault]);
    view_put(o, "pgscan_kswapd", host->event[EV_pgscan_kswapd]);
    view_put(o, "pgscan_direct", host->event[EV_pgscan_direct]);
    list = add_list(o, "vms");
    for (unsigned i = 0; i < nr; i++) {
        json_t *row = add_row(list), *ages;
        put_text(row, "name", vms[i].name);
        view_put(row, "resident_pages", vms[i].stat.resident_bytes / PAGE_BYTES);
        view_put(row, "standby_pages", vms[i].stat.standby_bytes / PAGE_BYTES);
        view_put(row, "sampled_one_of_pages", vms[i].age_stride);
        ages = add_list(row, "resident_pages_by_age");
        for (unsigned age = 0; age < ARRAY_LEN(vms[i].age_pages); age++)
            json_array_append_new(ages, json_integer((json_int_t)vms[i].age_pages[age]));
    }
    return o;
}

json_t *view_pageclass(const uint64_t pages[MM_NR_PAGE_CLASSES])
{
    json_t *o = json_object(), *list = add_list(o, "classes");

    for (unsigned i = 0; i < MM_NR_PAGE_CLASSES; i++) {
        json_t *row = add_row(list);
        put_text(row, "name", mm_page_class_names[i]);
        view_put(row, "pages", pages[i]);
    }
    return o;
}

json_t *view_zram(const char *algo, const struct zram_stat *stat, const struct zram_class_stat *classes, unsigned nr)
{
    json_t *o = json_object(), *list;

    json_object_set_new(o, "algorithm", algo ? view_text(algo) : json_null());
    view_put(o, "orig_data_bytes", stat->orig_data_bytes);
    view_put(o, "compr_data_bytes", stat->compr_data_bytes);
    view_put(o, "mem_used_bytes", stat->mem_used_bytes);
    view_put(o, "mem_limit_bytes", stat->mem_limit_bytes);
    view_put(o, "mem_used_max_bytes", stat->mem_used_max_bytes);
    view_put(o, "same_pages", stat->same_pages);
    view_put(o, "pages_compacted", stat->pages_compacted);
    view_put(o, "huge_pages", stat->huge_pages);
    view_put(o, "failed_reads", stat->failed_reads);
    list = add_list(o, "classes");
    for (unsigned i = 0; i < nr; i++) {
        json_t *row = add_row(list);
        view_put(row, "object_bytes", classes[i].object_bytes);
        view_put(row, "objects", classes[i].nr_objects);
        view_put(row, "used", classes[i].nr_used);
        view_put(row, "pages", classes[i].nr_pages);
    }
    return o;
}

json_t *view_swaps(const struct swap_area_stat *areas, unsigned nr)
{
    json_t *o = json_object(), *list = add_list(o, "swaps");

    for (unsigned i = 0; i < nr; i++) {
        json_t *row = add_row(list);
        put_text(row, "filename", areas[i].name);
        put_text(row, "type", areas[i].kind);
        view_put(row, "size_bytes", areas[i].size_bytes);
        view_put(row, "used_bytes", areas[i].used_bytes);
        json_object_set_new(row, "priority", json_integer(areas[i].priority));
        view_put(row, "read_pages", areas[i].nr_reads);
        view_put(row, "written_pages", areas[i].nr_writes);
        view_put(row, "read_errors", areas[i].nr_read_errors);
        view_put(row, "write_errors", areas[i].nr_write_errors);
    }
    return o;
}

static void put_states(json_t *row, const uint64_t pages[NR_VIEW_STATES])
{
    char name[32];

    for (unsigned s = 0; s < NR_VIEW_STATES; s++) {
        snprintf(name, sizeof(name), "%s_pages", view_state_names[s]);
        view_put(row, name, pages[s]);
    }
}

json_t *view_stage2(const struct mm_host_stat *host, const struct view_vm_stat *vms, unsigned nr)
{
    json_t *o = json_object(), *list;

    view_put(o, "metadata_bytes", host->metadata_stage2_bytes);
    list = add_list(o, "vms");
    for (unsigned i = 0; i < nr; i++) {
        const struct mm_vm_stat *s = &vms[i].stat;
        uint64_t pages[NR_VIEW_STATES] = {0};
        json_t *row = add_row(list);
        put_text(row, "name", vms[i].name);
        view_put(row, "levels", 4);
        view_put(row, "memory_bytes", s->memory_bytes);
        view_put(row, "tables_bytes", s->stage2_tables_bytes);
        view_put(row, "tables", s->stage2_tables_bytes / PAGE_BYTES);
        view_put(row, "blocks", s->nr_blocks);
        view_put(row, "huge_blocks", s->nr_huge_blocks);
        for (unsigned r = 0; r < vms[i].nr_regions; r++)
            for (unsigned state = 0; state < NR_VIEW_STATES; state++)
                pages[state] += vms[i].regions[r].pages[state];
        put_states(row, pages);
    }
    return o;
}

json_t *view_regions(const struct view_vm_stat *vms, unsigned nr)
{
    json_t *o = json_object(), *list = add_list(o, "vms");

    for (unsigned i = 0; i < nr; i++) {
        json_t *vm = add_row(list), *regions;
        put_text(vm, "name", vms[i].name);
        regions = add_list(vm, "regions");
        for (unsigned r = 0; r < vms[i].nr_regions; r++) {
            const struct view_region *region = &vms[i].regions[r];
            json_t *row = add_row(regions);
            put_hex(row, "start", region->start.v);
            put_hex(row, "end", region->start.v + region->bytes);
            view_put(row, "bytes", region->bytes);
            put_states(row, region->pages);
        }
    }
    return o;
}

static void put_areas(json_t *o, const struct swap_area_stat *areas, unsigned nr)
{
    uint64_t size = 0, used = 0;
    json_t *swap = json_object();

    for (unsigned i = 0; i < nr; i++) {
        size += areas[i].size_bytes;
        used += areas[i].used_bytes;
    }
    json_object_set_new(o, "swap", swap);
    view_put(swap, "total_bytes", size);
    view_put(swap, "used_bytes", used);
    view_put(swap, "free_bytes", size - used);
}

json_t *view_free(const struct mm_host_stat *host, const struct zram_stat *zram, const struct swap_area_stat *areas,
                  unsigned nr_areas, const struct view_vm_stat *vms, unsigned nr_vms)
{
    json_t *o = json_object(), *budget = json_object(), *list;

    json_object_set_new(o, "budget", budget);
    view_put(budget, "total_bytes", host->budget_bytes);
    view_put(budget, "used_bytes", host->budget_bytes - host->free_bytes);
    view_put(budget, "free_bytes", host->free_bytes);
    view_put(budget, "guests_bytes", host->resident_bytes);
    view_put(budget, "standby_bytes", host->standby_bytes);
    view_put(budget, "zram_bytes", zram->mem_used_bytes);
    view_put(budget, "available_bytes", host->free_bytes + host->standby_bytes);
    json_t *store = json_object();
    json_object_set_new(o, "zram", store);
    view_put(store, "total_bytes", zram->mem_limit_bytes);
    view_put(store, "used_bytes", zram->mem_used_bytes);
    view_put(store, "free_bytes", zram->mem_limit_bytes - MIN_OF(zram->mem_used_bytes, zram->mem_limit_bytes));
    view_put(store, "orig_data_bytes", zram->orig_data_bytes);
    put_areas(o, areas, nr_areas);
    list = add_list(o, "vms");
    for (unsigned i = 0; i < nr_vms; i++) {
        const struct mm_vm_stat *s = &vms[i].stat;
        json_t *row = add_row(list);
        put_text(row, "name", vms[i].name);
        view_put(row, "memory_bytes", s->memory_bytes);
        view_put(row, "resident_bytes", s->resident_bytes);
        view_put(row, "standby_bytes", s->standby_bytes);
        view_put(row, "zram_bytes", s->zram_bytes);
        view_put(row, "swap_bytes", s->swap_bytes);
        view_put(row, "balloon_bytes", s->balloon_bytes);
        view_put(row, "untouched_bytes", s->untouched_bytes);
        view_put(row, "unplugged_bytes", s->unplugged_bytes);
    }
    return o;
}

json_t *view_page(const char *vm_name, gpa_t gpa, const struct mm_page_info *info)
{
    json_t *o = json_object();

    put_text(o, "vm", vm_name);
    put_hex(o, "gpa", gpa.v);
    put_text(o, "state", info->state);
    view_put(o, "age", info->age);
    json_object_set_new(o, "huge", json_boolean(info->huge));
    json_object_set_new(o, "node", info->node == MM_NODE_ANY ? json_null() : json_integer(info->node));
    json_object_set_new(o, "frame", info->fn == FN_NONE ? json_null() : json_integer(info->fn));
    put_hex(o, "level2_entry", info->raw_pmd);
    put_hex(o, "level1_entry", info->raw_pte);
    return o;
}

void view_put_balloon(json_t *out, const struct balloon_info *info, const struct balloon_stats *stats)
{
    json_t *o = json_object(), *values = json_object();

    json_object_set_new(out, "balloon", o);
    json_object_set_new(o, "driver", json_boolean(info->live));
    view_put(o, "target_bytes", info->target_bytes);
    view_put(o, "actual_bytes", info->actual_bytes);
    view_put(o, "dropped_bytes", info->dropped_bytes);
    json_object_set_new(o, "deflates_on_oom", json_boolean(info->oom_deflates));
    view_put(o, "poison", info->poison);
    view_put(o, "inflate_pages", info->nr_inflate_pages);
    view_put(o, "deflate_pages", info->nr_deflate_pages);
    view_put(o, "reported_pages", info->nr_report_pages);
    view_put(o, "hinted_pages", info->nr_hint_pages);
    view_put(o, "dropped_pages", info->nr_dropped_pages);
    view_put(o, "drop_calls", info->nr_runs);
    view_put(o, "bad_pages", info->nr_bad_pages);
    json_object_set_new(o, "stats", values);
    view_put(o, "stats_updates", stats->nr_updates);
    for (unsigned tag = 0; tag < BALLOON_NR_STATS; tag++)
        if (stats->valid >> tag & 1)
            view_put(values, balloon_stat_names[tag], stats->value[tag]);
}

void view_put_mem(json_t *out, const struct mem_info *info)
{
    json_t *o = json_object();

    json_object_set_new(out, "virtio_mem", o);
    json_object_set_new(o, "driver", json_boolean(info->live));
    put_hex(o, "start", info->start.v);
    view_put(o, "region_bytes", info->region_bytes);
    view_put(o, "requested_bytes", info->requested_bytes);
    view_put(o, "plugged_bytes", info->plugged_bytes);
}
