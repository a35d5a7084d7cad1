/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/heatmap.h"

#include "vmm/size.h"

#include <stdlib.h>
#include <string.h>

/* ---- to JSON and back ---- */

static json_t *cell_json(uint8_t cell)
{
    if (cell == ACCESS_CELL_UNSEEN)
        return json_null();
    if (cell == ACCESS_CELL_NEVER)
        return json_integer(HEATMAP_NEVER);
    return json_integer(cell == 0 ? 0 : MAX_OF(cell * 100u / ACCESS_CELL_FULL, 1u));
}

json_t *heatmap_json(const char *vm, const struct access_map *map)
{
    json_t *rows = json_array();

    for (unsigned row = 0; row < map->nr_rows; row++) {
        json_t *cells = json_array();
        for (unsigned column = 0; column < map->nr_columns; column++)
            json_array_append_new(cells, cell_json(map->cell[row][column]));
        json_array_append_new(rows, json_pack("{s:o, s:I, s:o}", "start",
                                              json_sprintf("0x%llx", (unsigned long long)map->row_start[row].v),
                                              "bytes", (json_int_t)map->row_bytes[row], "touched_pct", cells));
    }
    return json_pack("{s:s, s:f, s:f, s:o}", "vm", vm, "column_seconds", (double)map->column_ns / 1e9, "age_seconds",
                     (double)map->age_ns / 1e9, "rows", rows);
}

static int no_map(struct diag *diag)
{
    return diag_set(diag, EXIT_GUEST, "the answer is no heat map; is that ebb of another version?");
}

static int parse_row(struct heatmap *map, unsigned row, const json_t *json)
{
    const json_t *cells = json_object_get(json, "touched_pct");
    const char *start = json_string_value(json_object_get(json, "start"));

    if (!start || json_array_size(cells) != map->nr_columns)
        return -1;
    map->rows[row].start = strtoull(start, NULL, 16);
    map->rows[row].bytes = (uint64_t)json_integer_value(json_object_get(json, "bytes"));
    for (unsigned column = 0; column < map->nr_columns; column++) {
        const json_t *cell = json_array_get(cells, column);
        json_int_t value = json_integer_value(cell);
        if (!json_is_null(cell) && (!json_is_integer(cell) || value < HEATMAP_NEVER || value > 100))
            return -1;
        map->cells[(size_t)row * map->nr_columns + column] = (int8_t)(json_is_null(cell) ? HEATMAP_UNSEEN : value);
    }
    return map->rows[row].bytes ? 0 : -1;
}

int heatmap_parse(const json_t *json, struct heatmap *out, struct diag *diag)
{
    const json_t *rows = json_object_get(json, "rows");
    const char *vm = json_string_value(json_object_get(json, "vm"));
    struct heatmap map = {.column_s = json_number_value(json_object_get(json, "column_seconds"))};

    if (!vm || !json_is_array(rows) || json_array_size(rows) > ACCESS_MAP_ROWS)
        return no_map(diag);
    snprintf(map.vm, sizeof(map.vm), "%s", vm);
    map.nr_rows = (unsigned)json_array_size(rows);
    size_t nr_columns = json_array_size(json_object_get(json_array_get(rows, 0), "touched_pct"));
    if (nr_columns == 0)
        return diag_set(diag, EXIT_GUEST, "%s has no heat map yet; ask again in a second", map.vm);
    if (nr_columns > ACCESS_MAP_COLUMNS || !(map.column_s > 0))
        return no_map(diag);
    map.nr_columns = (unsigned)nr_columns;
    map.rows = calloc(map.nr_rows, sizeof(*map.rows));
    map.cells = malloc((size_t)map.nr_rows * map.nr_columns);
    bool good = map.rows && map.cells;
    if (!good)
        diag_set(diag, EXIT_GUEST, "out of memory");
    for (unsigned row = 0; row < map.nr_rows && good; row++)
        good = parse_row(&map, row, json_array_get(rows, row)) == 0;
    if (!good) {
        heatmap_fini(&map);
        return no_map(diag); /* unless something is said already */
    }
    *out = map;
    return 0;
}

void heatmap_fini(struct heatmap *map)
{
    free(map->rows);
    free(map->cells);
    map->rows = NULL;
    map->cells = NULL;
}

/* ---- to a terminal ---- */

#define TEXT_COLUMNS 64u
#define TEXT_ROWS 24u

/*
 * The mean of cells [row, row_end) x [column, column_end) of which something is known; HEATMAP_UNSEEN where these are few
 * and nothing was touched in them, HEATMAP_NEVER.
 */
static int mean(const struct heatmap *map, unsigned row, unsigned row_end, unsigned column, unsigned column_end)
{
    int sum = 0, nr = 0, nr_unseen = 0;

    for (unsigned r = row; r < row_end; r++)
        for (unsigned c = column; c < column_end; c++) {
            int cell = map->cells[(size_t)r * map->nr_columns + c];
            sum += MAX_OF(cell, 0);
            nr += cell >= 0;
            nr_unseen += cell == HEATMAP_UNSEEN;
        }
    if (sum == 0 && nr_unseen > nr)
        return HEATMAP_UNSEEN;
    return nr ? (sum + nr - 1) / nr : HEATMAP_NEVER;
}

static char letter_of(int cell)
{
    static const char shades[] = ".:-=+*#%@";

    if (cell < 0)
        return cell == HEATMAP_UNSEEN ? '?' : ' ';
    return shades[((unsigned)cell * (sizeof(shades) - 2) + 99) / 100];
}

void heatmap_print(const struct heatmap *map, FILE *out)
{
    unsigned rows = MIN_OF(map->nr_rows, TEXT_ROWS), columns = MIN_OF(map->nr_columns, TEXT_COLUMNS);
    char size[SIZE_TEXT];

    fprintf(out, "%s: guest address over %.0f s\n", map->vm, map->nr_columns * map->column_s);
    for (unsigned i = rows; i-- > 0;) {
        unsigned row = i * map->nr_rows / rows, row_end = (i + 1) * map->nr_rows / rows;
        fprintf(out, "%10s |", size_text(size, map->rows[row].start));
        for (unsigned c = 0; c < columns; c++) {
            int cell = mean(map, row, row_end, c * map->nr_columns / columns, (c + 1) * map->nr_columns / columns);
            fputc(letter_of(cell), out);
        }
        fputs("|\n", out);
    }
    fprintf(out, "touched in that time: . nothing, @ all of it; ?: not looked at yet; blank: never touched.\n"
                 "`ebb heatmap --png FILE` draws it\n");
}
