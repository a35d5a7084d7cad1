/* SPDX-License-Identifier: Apache-2.0 */
/* How free memory is cut up: pagetypeinfo and extfrag. */
#include "vmm/views.h"

#include "mm/frame/fragindex.h"

static const char *const plane_names[NR_PLANES] = {[PLANE_FILLED] = "filled", [PLANE_EMPTY] = "empty"};
/* Linux mm/page_alloc.c, migratetype_names. */
static const char *const type_names[MIGRATE_TYPES] = {
    [MIGRATE_UNMOVABLE] = "Unmovable",
    [MIGRATE_MOVABLE] = "Movable",
    [MIGRATE_RECLAIMABLE] = "Reclaimable",
    [MIGRATE_ISOLATE] = "Isolate",
};

static json_t *zone_row(const struct mm_zone_stat *zone)
{
    return json_pack("{s:I, s:s}", "node", (json_int_t)zone->node, "zone", zone->name);
}

json_t *view_pagetypeinfo(const struct mm_zone_stat *zones, unsigned nr)
{
    json_t *blocks = json_array(), *pageblocks = json_array();

    for (unsigned i = 0; i < nr; i++) {
        json_t *row = zone_row(&zones[i]);
        for (unsigned type = 0; type < MIGRATE_TYPES; type++)
            view_put(row, type_names[type], zones[i].types.nr_pageblocks[type]);
        json_array_append_new(pageblocks, row);
        for (unsigned plane = 0; plane < NR_PLANES; plane++)
            for (unsigned type = 0; type < MIGRATE_TYPES; type++) {
                json_t *orders = json_array();
                for (unsigned order = 0; order <= MAX_ORDER; order++)
                    json_array_append_new(orders, json_integer(zones[i].types.nr_blocks[plane][type][order]));
                row = zone_row(&zones[i]);
                json_object_set_new(row, "plane", json_string(plane_names[plane]));
                json_object_set_new(row, "type", json_string(type_names[type]));
                json_object_set_new(row, "free_blocks", orders);
                json_array_append_new(blocks, row);
            }
    }
    return json_pack("{s:i, s:i, s:o, s:o}", "page_block_order", BLOCK_ORDER, "pages_per_block", (int)BLOCK_PAGES,
                     "free", blocks, "blocks", pageblocks);
}

/* Free blocks that can be given out, of all types. */
static void usable_blocks(const struct mm_zone_stat *zone, unsigned plane, uint32_t out[MAX_ORDER + 1])
{
    for (unsigned order = 0; order <= MAX_ORDER; order++) {
        out[order] = 0;
        for (unsigned type = 0; type < MIGRATE_PCPTYPES; type++)
            out[order] += zone->types.nr_blocks[plane][type][order];
    }
}

json_t *view_extfrag(const struct mm_zone_stat *zones, unsigned nr)
{
    json_t *list = json_array();

    for (unsigned i = 0; i < nr; i++)
        for (unsigned plane = 0; plane < NR_PLANES; plane++) {
            json_t *row = zone_row(&zones[i]), *extfrag = json_array(), *unusable = json_array();
            uint32_t blocks[MAX_ORDER + 1];
            usable_blocks(&zones[i], plane, blocks);
            for (unsigned order = 0; order <= MAX_ORDER; order++) {
                json_array_append_new(extfrag, json_integer(extfrag_index(blocks, order)));
                json_array_append_new(unusable, json_integer(unusable_index(blocks, order)));
            }
            json_object_set_new(row, "plane", json_string(plane_names[plane]));
            json_object_set_new(row, "extfrag_index_thousandths", extfrag);
            json_object_set_new(row, "unusable_index_thousandths", unusable);
            json_array_append_new(list, row);
        }
    return json_pack("{s:o}", "zones", list);
}
