/* SPDX-License-Identifier: Apache-2.0 */
/* Free memory as Linux shows it in /proc/pagetypeinfo and debugfs. */
#include "vmm/render_parts.h"

#include "mm/base/types.h"

/* As Linux lists them. */
static const char *const types[] = {"Unmovable", "Movable", "Reclaimable", "Isolate"};

static void put_zone(const json_t *row, FILE *out)
{
    fprintf(out, "Node %4" PRIu64 ", zone %8s, ", number(row, "node"), text(row, "zone"));
}

int render_pagetypeinfo(const json_t *json, FILE *out)
{
    const json_t *rows = json_object_get(json, "free");

    fprintf(out, "Page block order: %" PRIu64 "\nPages per block:  %" PRIu64 "\n\n", number(json, "page_block_order"),
            number(json, "pages_per_block"));
    fprintf(out, "%-54s", "Free pages count per migrate type at order");
    for (int order = 0; order <= MAX_ORDER; order++)
        fprintf(out, " %6d", order);
    fputc('\n', out);
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i), *blocks = json_object_get(row, "free_blocks");
        put_zone(row, out);
        fprintf(out, "%6s, type %12s ", text(row, "plane"), text(row, "type"));
        for (size_t order = 0; order <= MAX_ORDER; order++)
            fprintf(out, " %6" PRId64, (int64_t)json_integer_value(json_array_get(blocks, order)));
        fputc('\n', out);
    }
    rows = json_object_get(json, "blocks");
    fprintf(out, "\n%-23s", "Number of blocks type");
    for (size_t i = 0; i < ARRAY_LEN(types); i++)
        fprintf(out, " %12s", types[i]);
    fputc('\n', out);
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        put_zone(row, out);
        for (size_t type = 0; type < ARRAY_LEN(types); type++)
            fprintf(out, type ? " %12" PRIu64 : "%11" PRIu64, number(row, types[type]));
        fputc('\n', out);
    }
    return 0;
}

static void put_index(const json_t *json, const char *title, const char *name, FILE *out)
{
    const json_t *rows = json_object_get(json, "zones");

    fprintf(out, "%s\n", title);
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i), *values = json_object_get(row, name);
        put_zone(row, out);
        fprintf(out, "%6s ", text(row, "plane"));
        for (size_t order = 0; order <= MAX_ORDER; order++) {
            int64_t value = json_integer_value(json_array_get(values, order)), size = value < 0 ? -value : value;
            fprintf(out, " %s%" PRId64 ".%03" PRId64, value < 0 ? "-" : " ", size / 1000, size % 1000);
        }
        fputc('\n', out);
    }
}

int render_extfrag(const json_t *json, FILE *out)
{
    put_index(json, "extfrag_index by order: -1.000 would succeed; towards 0 lack of memory, towards 1 fragmentation",
              "extfrag_index_thousandths", out);
    put_index(json, "unusable_index by order: share of free memory in blocks that are too small",
              "unusable_index_thousandths", out);
    return 0;
}
