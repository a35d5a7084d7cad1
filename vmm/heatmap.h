/* SPDX-License-Identifier: Apache-2.0 */
/*
 * heatmap: how much of a VM's memory was touched, address over time, as JSON, as a picture, as text.
 *
 * JSON: vm, column_seconds, age_seconds (from the first column's begin until now), rows[], each with start (hexadecimal
 * text), bytes and touched_pct[]: a number a column, 0 to 100, -1 where none of it had ever been touched, null where most
 * of it was not looked at yet and nobody knows. Rows rise by address; a row ends where a region of memory does.
 */
#ifndef VMM_HEATMAP_H
#define VMM_HEATMAP_H

#include "mm/policy/access.h"
#include "vmm/diag.h"

#include <jansson.h>
#include <stdio.h>

#define HEATMAP_NEVER (-1)
#define HEATMAP_UNSEEN (-2) /* null in the JSON */

struct heatmap_row {
    uint64_t start, bytes;
};

/* What was read from the JSON. */
struct heatmap {
    char vm[20];
    double column_s;
    unsigned nr_rows, nr_columns;
    struct heatmap_row *rows;
    int8_t *cells; /* percent, HEATMAP_NEVER or HEATMAP_UNSEEN; row after row */
};

/* A new object, NULL when memory ran out. */
json_t *heatmap_json(const char *vm, const struct access_map *map);
/*
 * heatmap_parse - 0 and *out (heatmap_fini), or -1 with @diag (EXIT_GUEST): not what heatmap_json makes, or no columns
 * yet.
 */
must_check int heatmap_parse(const json_t *json, struct heatmap *out, struct diag *diag);
void heatmap_fini(struct heatmap *map);

#define HEATMAP_WIDTH 1200
#define HEATMAP_HEIGHT 800
/*
 * heatmap_draw - a PNG of HEATMAP_WIDTH by HEATMAP_HEIGHT at *png, the caller's to free. 0, or -1 with @diag (EXIT_GUEST).
 */
must_check int heatmap_draw(const struct heatmap *map, unsigned char **png, size_t *png_bytes, struct diag *diag);
/* The part of the picture that cells fill, in pixels; for tests. */
struct heatmap_box {
    double x, y, width, height;
};
extern const struct heatmap_box heatmap_plot;

/* For a terminal: at most 64 by 24 characters. */
void heatmap_print(const struct heatmap *map, FILE *out);

#endif
