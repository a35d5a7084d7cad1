/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/render.h"

#include "vmm/render_parts.h"
#include "vmm/heatmap.h"
#include "vmm/size.h"
#include "vmm/views.h"

#include <errno.h>
#include <string.h>

/* name value, as in /proc/vmstat. */
static int render_vmstat(const json_t *json, FILE *out)
{
    const char *name;
    json_t *value;

    json_object_foreach((json_t *)(uintptr_t)json, name, value)
        fprintf(out, "%s %" PRIu64 "\n", name, (uint64_t)json_integer_value(value));
    return 0;
}

/* "name  size  text" for members of @object; @rows: name, label, remark, triplets. */
struct size_row {
    const char *name, *label, *remark;
};

static int render_sizes(const json_t *object, const struct size_row *rows, size_t nr, FILE *out)
{
    struct table table;

    table_init(&table, "lrl");
    for (size_t i = 0; i < nr; i++) {
        size_t len = strlen(rows[i].name);
        table_cell(&table, "%s", rows[i].label);
        if (len > 6 && strcmp(rows[i].name + len - 6, "_bytes") == 0)
            table_size(&table, number(object, rows[i].name));
        else
            table_count(&table, number(object, rows[i].name));
        table_cell(&table, "%s", rows[i].remark);
    }
    return finish(&table, 2, out);
}

static int render_zoneinfo(const json_t *json, FILE *out)
{
    static const struct size_row rows[] = {
        {"budget_bytes", "budget", "the most this process may use for guests and stores"},
        {"charged_bytes", "charged", "physical pages in use or in stock"},
        {"free_bytes", "free", "may be used at once"},
        {"filled_free_bytes", "free, with pages", "frames ready in the arena"},
        {"units_free_bytes", "free, without pages", "budget that no page was taken for"},
        {"zeroed_stock_bytes", "zeroed stock", "2 MiB frames ready for a first touch"},
        {"min_pages", "min", "pages: below this a fault reclaims by itself"},
        {"low_pages", "low", "pages: below this kswapd wakes"},
        {"high_pages", "high", "pages: here kswapd sleeps again"},
    };
    const json_t *zones = json_object_get(json, "zones");
    struct table table;

    fprintf(out, "Pool\n");
    int error = render_sizes(json_object_get(json, "pool"), rows, ARRAY_LEN(rows), out);
    fprintf(out, "Zones (pages)\n");
    table_init(&table, "rlrrrrrrr");
    titles(&table, "node zone start spanned free-filled free-empty min low high");
    for (size_t i = 0; i < json_array_size(zones); i++) {
        const json_t *zone = json_array_get(zones, i);
        put_number(&table, zone, "node");
        table_cell(&table, "%s", text(zone, "zone"));
        put_number(&table, zone, "start_pfn");
        put_number(&table, zone, "spanned_pages");
        put_number(&table, zone, "free_filled_pages");
        put_number(&table, zone, "free_empty_pages");
        put_number(&table, zone, "min_pages");
        put_number(&table, zone, "low_pages");
        put_number(&table, zone, "high_pages");
    }
    int error2 = finish(&table, 2, out);
    return error ? error : error2;
}

/* One row per node, zone and plane with a column per order, as in /proc/buddyinfo. */
static int render_buddyinfo(const json_t *json, FILE *out)
{
    const json_t *zones = json_object_get(json, "zones");

    for (size_t i = 0; i < json_array_size(zones); i++) {
        const json_t *zone = json_array_get(zones, i), *blocks = json_object_get(zone, "free_blocks");
        fprintf(out, "Node %" PRIu64 ", zone %8s, %6s ", number(zone, "node"), text(zone, "zone"), text(zone, "plane"));
        for (size_t order = 0; order <= MAX_ORDER; order++)
            fprintf(out, " %6" PRIu64, (uint64_t)json_integer_value(json_array_get(blocks, order)));
        fputc('\n', out);
    }
    return 0;
}

static int render_slabinfo(const json_t *json, FILE *out)
{
    const json_t *caches = json_object_get(json, "caches");
    struct table table;

    table_init(&table, "lrrrrrr");
    titles(&table, "name active_objs num_objs objsize objperslab pagesperslab num_slabs");
    for (size_t i = 0; i < json_array_size(caches); i++) {
        const json_t *cache = json_array_get(caches, i);
        table_cell(&table, "%s", text(cache, "name"));
        put_number(&table, cache, "active_objs");
        put_number(&table, cache, "num_objs");
        put_number(&table, cache, "objsize");
        put_number(&table, cache, "objperslab");
        put_number(&table, cache, "pagesperslab");
        put_number(&table, cache, "num_slabs");
    }
    return finish(&table, 0, out);
}

/* Classes in the order in which they are reclaimed. */
static int render_pageclass(const json_t *json, FILE *out)
{
    const json_t *classes = json_object_get(json, "classes");
    struct table table;

    table_init(&table, "lr");
    titles(&table, "class pages");
    for (size_t i = 0; i < json_array_size(classes); i++) {
        table_cell(&table, "%s", text(json_array_get(classes, i), "name"));
        put_number(&table, json_array_get(classes, i), "pages");
    }
    return finish(&table, 0, out);
}

/* Resident pages by age, one row an age that occurs. */
static int render_ages(const json_t *vm, FILE *out)
{
    const json_t *ages = json_object_get(vm, "resident_pages_by_age");
    uint64_t all = 0, stride = number(vm, "sampled_one_of_pages");
    struct table table;

    for (size_t age = 0; age < json_array_size(ages); age++)
        all += (uint64_t)json_integer_value(json_array_get(ages, age));
    fprintf(out, "%s: %" PRIu64 " resident, %" PRIu64 " standby; resident pages by age", text(vm, "name"),
            number(vm, "resident_pages"), number(vm, "standby_pages"));
    fprintf(out, stride > 1 ? " (one of %" PRIu64 " looked at)\n" : "\n", stride);
    table_init(&table, "rrr");
    for (size_t age = 0; age < json_array_size(ages); age++) {
        uint64_t pages = (uint64_t)json_integer_value(json_array_get(ages, age));
        if (!pages)
            continue;
        table_cell(&table, "%zu", age);
        table_count(&table, pages);
        table_cell(&table, "%.1f%%", 100.0 * (double)pages / (double)all);
    }
    return finish(&table, 2, out);
}

static int render_lru(const json_t *json, FILE *out)
{
    static const struct size_row rows[] = {
        {"active_blocks", "active blocks", "2 MiB blocks with pages in a guest"},
        {"active_pages", "active pages", "in a guest"},
        {"standby_pages", "standby pages", "taken home, content kept, next to leave"},
        {"pgdeactivate", "taken to standby", "pages so far"},
        {"pgrefault", "given back", "pages so far: they were wanted after all"},
        {"pgscan_kswapd", "scanned by kswapd", "pages so far"},
        {"pgscan_direct", "scanned by faults", "pages so far"},
    };
    const json_t *vms = json_object_get(json, "vms");
    int error = render_sizes(json, rows, ARRAY_LEN(rows), out);

    for (size_t i = 0; i < json_array_size(vms) && !error; i++)
        error = render_ages(json_array_get(vms, i), out);
    return error;
}

static int render_zram(const json_t *json, FILE *out)
{
    static const struct size_row rows[] = {
        {"orig_data_bytes", "orig_data", "what the guests stored"},
        {"compr_data_bytes", "compr_data", "the same, compressed"},
        {"mem_used_bytes", "mem_used", "memory it takes in all"},
        {"mem_limit_bytes", "mem_limit", "the most it may take"},
        {"mem_used_max_bytes", "mem_used_max", "the most it took"},
        {"same_pages", "same_pages", "filled with one word: no storage"},
        {"pages_compacted", "pages_compacted", "freed by compaction"},
        {"huge_pages", "huge_pages", "refused: they do not compress"},
        {"failed_reads", "failed_reads", "checksum or decoder refused"},
    };
    const json_t *classes = json_object_get(json, "classes");
    struct table table;

    if (!json_is_string(json_object_get(json, "algorithm"))) {
        fprintf(out, "no compressed store; `ebb run --zram SIZE` makes one\n");
        return 0;
    }
    fprintf(out, "%s\n", text(json, "algorithm"));
    int error = render_sizes(json, rows, ARRAY_LEN(rows), out);
    table_init(&table, "rrrrr");
    titles(&table, "object_bytes objects used use pages");
    for (size_t i = 0; i < json_array_size(classes); i++) {
        const json_t *row = json_array_get(classes, i);
        uint64_t objects = number(row, "objects");
        if (!objects)
            continue;
        put_number(&table, row, "object_bytes");
        put_number(&table, row, "objects");
        put_number(&table, row, "used");
        table_cell(&table, "%.0f%%", 100.0 * (double)number(row, "used") / (double)objects);
        put_number(&table, row, "pages");
    }
    int error2 = finish(&table, 2, out);
    return error ? error : error2;
}

static int render_swaps(const json_t *json, FILE *out)
{
    const json_t *swaps = json_object_get(json, "swaps");
    struct table table;

    table_init(&table, "llrrrrrr");
    titles(&table, "Filename Type Size Used Priority Read Written Errors");
    for (size_t i = 0; i < json_array_size(swaps); i++) {
        const json_t *row = json_array_get(swaps, i);
        table_cell(&table, "%s", text(row, "filename"));
        table_cell(&table, "%s", text(row, "type"));
        table_size(&table, number(row, "size_bytes"));
        table_size(&table, number(row, "used_bytes"));
        table_cell(&table, "%" JSON_INTEGER_FORMAT, json_integer_value(json_object_get(row, "priority")));
        table_count(&table, number(row, "read_pages"));
        table_count(&table, number(row, "written_pages"));
        table_count(&table, number(row, "read_errors") + number(row, "write_errors"));
    }
    return finish(&table, 0, out);
}

static void put_state_pages(struct table *table, const json_t *row)
{
    char name[32];

    for (unsigned s = 0; s < NR_VIEW_STATES; s++) {
        snprintf(name, sizeof(name), "%s_pages", view_state_names[s]);
        put_number(table, row, name);
    }
}

static int render_stage2(const json_t *json, FILE *out)
{
    const json_t *vms = json_object_get(json, "vms");
    struct table table;

    table_init(&table, "lrrrrrrrrrrrrrrr");
    titles(&table,
           "vm levels tables cost blocks huge resident standby zram swap disk balloon poison fill absent unplugged");
    for (size_t i = 0; i < json_array_size(vms); i++) {
        const json_t *vm = json_array_get(vms, i);
        uint64_t memory = number(vm, "memory_bytes");
        table_cell(&table, "%s", text(vm, "name"));
        put_number(&table, vm, "levels");
        put_number(&table, vm, "tables");
        table_cell(&table, "%.2f%%", memory ? 100.0 * (double)number(vm, "tables_bytes") / (double)memory : 0.0);
        put_number(&table, vm, "blocks");
        put_number(&table, vm, "huge_blocks");
        put_state_pages(&table, vm);
    }
    return finish(&table, 0, out);
}

static int render_regions(const json_t *json, FILE *out)
{
    const json_t *vms = json_object_get(json, "vms");
    struct table table;

    table_init(&table, "lrrrrrrrrrrrrr");
    titles(&table, "vm start end size resident standby zram swap disk balloon poison fill absent unplugged");
    for (size_t i = 0; i < json_array_size(vms); i++) {
        const json_t *vm = json_array_get(vms, i), *regions = json_object_get(vm, "regions");
        for (size_t r = 0; r < json_array_size(regions); r++) {
            const json_t *region = json_array_get(regions, r);
            table_cell(&table, "%s", text(vm, "name"));
            table_cell(&table, "%s", text(region, "start"));
            table_cell(&table, "%s", text(region, "end"));
            table_size(&table, number(region, "bytes"));
            put_state_pages(&table, region);
        }
    }
    return finish(&table, 0, out);
}

/* free(1) for the budget, zram and swap, then a row for each VM. */
static int render_free(const json_t *json, FILE *out)
{
    const json_t *budget = json_object_get(json, "budget"), *zram = json_object_get(json, "zram");
    const json_t *swap = json_object_get(json, "swap"), *vms = json_object_get(json, "vms");
    static const char *const columns[] = {"memory_bytes", "resident_bytes", "standby_bytes",  "zram_bytes",
                                          "swap_bytes",   "balloon_bytes",  "untouched_bytes"};
    static const char *const uses[] = {"total_bytes",   "used_bytes", "free_bytes",     "guests_bytes",
                                       "standby_bytes", "zram_bytes", "available_bytes"};
    struct table table;

    table_init(&table, "lrrrrrrr");
    titles(&table, " total used free guests standby zram available");
    table_cell(&table, "Budget:");
    for (size_t i = 0; i < ARRAY_LEN(uses); i++)
        table_size(&table, number(budget, uses[i]));
    for (int row = 0; row < 2; row++) {
        table_cell(&table, row ? "Swap:" : "Zram:");
        for (size_t i = 0; i < ARRAY_LEN(uses); i++)
            if (i < 3)
                table_size(&table, number(row ? swap : zram, uses[i]));
            else
                table_cell(&table, "%s", "");
    }
    titles(&table, "VM memory resident standby zram swap balloon untouched");
    for (size_t i = 0; i < json_array_size(vms); i++) {
        const json_t *vm = json_array_get(vms, i);
        table_cell(&table, "%s", text(vm, "name"));
        for (size_t c = 0; c < ARRAY_LEN(columns); c++)
            table_size(&table, number(vm, columns[c]));
    }
    return finish(&table, 0, out);
}

static int render_page(const json_t *json, FILE *out)
{
    const json_t *frame = json_object_get(json, "frame"), *node = json_object_get(json, "node");

    fprintf(out, "vm       %s\n", text(json, "vm"));
    fprintf(out, "gpa      %s\n", text(json, "gpa"));
    fprintf(out, "state    %s%s\n", text(json, "state"),
            json_is_true(json_object_get(json, "huge")) && json_is_integer(frame) ? ", in a 2 MiB frame" : "");
    fprintf(out, "age      %" PRIu64 "\n", number(json, "age"));
    if (json_is_integer(node))
        fprintf(out, "node     %" JSON_INTEGER_FORMAT "\n", json_integer_value(node));
    if (json_is_integer(frame))
        fprintf(out, "frame    %" JSON_INTEGER_FORMAT "\n", json_integer_value(frame));
    fprintf(out, "level 2  %s\n", text(json, "level2_entry"));
    fprintf(out, "level 1  %s\n", text(json, "level1_entry"));
    return 0;
}

/* "name value" for every member: sizes with a unit, counts, yes or no. */
static int render_members(const json_t *object, unsigned indent, FILE *out)
{
    struct table table;
    const char *name;
    json_t *value;

    table_init(&table, "lr");
    json_object_foreach((json_t *)(uintptr_t)object, name, value)
    {
        size_t len = strlen(name);
        bool size = len > 6 && strcmp(name + len - 6, "_bytes") == 0;

        if (json_is_object(value))
            continue;
        table_cell(&table, "%.*s", (int)(size ? len - 6 : len), name);
        if (json_is_boolean(value))
            table_cell(&table, "%s", json_is_true(value) ? "yes" : "no");
        else if (json_is_string(value))
            table_cell(&table, "%s", json_string_value(value));
        else if (size)
            table_size(&table, (uint64_t)json_integer_value(value));
        else
            table_count(&table, (uint64_t)json_integer_value(value));
    }
    return finish(&table, indent, out);
}

static int render_balloon(const json_t *json, FILE *out)
{
    const json_t *vms = json_object_get(json, "vms");
    int error = 0;

    for (size_t i = 0; i < json_array_size(vms) && !error; i++) {
        const json_t *vm = json_array_get(vms, i);
        const json_t *balloon = json_object_get(vm, "balloon"), *mem = json_object_get(vm, "virtio_mem");

        fprintf(out, "%s\n", text(vm, "vm"));
        if (balloon)
            error = render_members(balloon, 2, out);
        else
            fprintf(out, "  no balloon; `ebb run --balloon` gives it one\n");
        if (balloon && json_object_size(json_object_get(balloon, "stats")) && !error) {
            fprintf(out, "  What the guest says\n");
            error = render_members(json_object_get(balloon, "stats"), 4, out);
        }
        if (mem && !error) {
            fprintf(out, "  Plugged memory (virtio-mem)\n");
            error = render_members(mem, 4, out);
        }
    }
    return error;
}

static int render_devices(const json_t *json, FILE *out)
{
    const json_t *vms = json_object_get(json, "vms");
    int error = 0;

    for (size_t i = 0; i < json_array_size(vms) && !error; i++) {
        const json_t *vm = json_array_get(vms, i), *devices = json_object_get(vm, "devices");

        fprintf(out, "%s\n", text(vm, "vm"));
        if (!json_array_size(devices))
            fprintf(out, "  no devices\n");
        for (size_t k = 0; k < json_array_size(devices) && !error; k++) {
            fputs(k ? "\n" : "", out);
            error = render_members(json_array_get(devices, k), 2, out);
        }
    }
    return error;
}

static int render_heatmap(const json_t *json, FILE *out)
{
    struct diag diag = {0};
    struct heatmap map;

    if (heatmap_parse(json, &map, &diag)) {
        fprintf(out, "%s\n", diag.text);
        return 0;
    }
    heatmap_print(&map, out);
    heatmap_fini(&map);
    return 0;
}

int render_view(const char *view, const json_t *json, FILE *out)
{
    static const struct {
        const char *name;
        int (*render)(const json_t *json, FILE *out);
    } rows[] = {
        {"vmstat", render_vmstat},
        {"zoneinfo", render_zoneinfo},
        {"buddyinfo", render_buddyinfo},
        {"slabinfo", render_slabinfo},
        {"lru", render_lru},
        {"zram", render_zram},
        {"swaps", render_swaps},
        {"stage2", render_stage2},
        {"regions", render_regions},
        {"free", render_free},
        {"page", render_page},
        {"pageclass", render_pageclass},
        {"balloon", render_balloon},
        {"devices", render_devices},
        {"numa", render_numa},
        {"tiers", render_tiers},
        {"pagetypeinfo", render_pagetypeinfo},
        {"extfrag", render_extfrag},
        {"idle", render_idle},
        {"heatmap", render_heatmap},
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (strcmp(rows[i].name, view) == 0)
            return rows[i].render(json, out);
    return -EINVAL;
}
