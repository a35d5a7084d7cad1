/* SPDX-License-Identifier: Apache-2.0 */
/* Heat maps from cells to JSON, to a picture that is decoded again, and to letters. */
#include "tests/fake/fail_alloc.h"
#include "vmm/heatmap.h"

#include <cairo/cairo.h>
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MIB (UINT64_C(1) << 20)

/* Read by the leak sanitizer: fontconfig keeps what it read of its configuration until the process ends. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libfontconfig\n";
}

static struct access_map cells;

/* 64 rows of 2 MiB, 100 columns of 0.5 s: rows 0-15 hot, 16-31 cold, 32-47 warm, 48-63 never touched. */
static void make_cells(void)
{
    memset(&cells, 0, sizeof(cells));
    cells.nr_rows = 64;
    cells.nr_columns = 100;
    cells.column_ns = 500000000;
    cells.age_ns = UINT64_C(50200000000);
    for (unsigned row = 0; row < 64; row++) {
        cells.row_start[row].v = row * 2 * MIB;
        cells.row_bytes[row] = 2 * MIB;
        for (unsigned column = 0; column < 100; column++)
            cells.cell[row][column] = (uint8_t)(row < 16   ? ACCESS_CELL_FULL
                                                : row < 32 ? 0
                                                : row < 48 ? ACCESS_CELL_FULL / 10
                                                           : ACCESS_CELL_NEVER);
    }
}

/* As make_cells, and nobody has looked at rows 16-31 in columns 50-99. */
static void make_unseen_cells(void)
{
    make_cells();
    for (unsigned row = 16; row < 32; row++)
        memset(&cells.cell[row][50], ACCESS_CELL_UNSEEN, 50);
}

static void parse_cells(struct heatmap *map)
{
    struct diag diag = {0};
    json_t *json = heatmap_json("vm0", &cells);
    ck_assert_ptr_nonnull(json);
    ck_assert_msg(heatmap_parse(json, map, &diag) == 0, "%s", diag.text);
    json_decref(json);
}

START_TEST(test_heatmap_json_holds_every_cell)
{
    struct heatmap map;
    make_cells();
    cells.cell[5][7] = 1; /* a little is not nothing */
    parse_cells(&map);
    ck_assert_str_eq(map.vm, "vm0");
    ck_assert_uint_eq(map.nr_rows, 64);
    ck_assert_uint_eq(map.nr_columns, 100);
    ck_assert_double_eq_tol(map.column_s, 0.5, 1e-9);
    ck_assert_uint_eq(map.rows[63].start, 126 * MIB);
    ck_assert_uint_eq(map.rows[63].bytes, 2 * MIB);
    ck_assert_int_eq(map.cells[0], 100);
    ck_assert_int_eq(map.cells[5 * 100 + 7], 1);
    ck_assert_int_eq(map.cells[16 * 100], 0);
    ck_assert_int_eq(map.cells[32 * 100 + 99], 10);
    ck_assert_int_eq(map.cells[63 * 100 + 99], HEATMAP_NEVER);
    heatmap_fini(&map);
}
END_TEST

START_TEST(test_heatmap_json_of_memory_that_nobody_has_looked_at_is_null)
{
    struct heatmap map;
    make_unseen_cells();
    json_t *json = heatmap_json("vm0", &cells);
    const json_t *touched = json_object_get(json_array_get(json_object_get(json, "rows"), 16), "touched_pct");
    ck_assert_int_eq(json_integer_value(json_array_get(touched, 49)), 0);
    ck_assert(json_is_integer(json_array_get(touched, 49)));
    ck_assert(json_is_null(json_array_get(touched, 50)));
    json_decref(json);
    parse_cells(&map);
    ck_assert_int_eq(map.cells[16 * 100 + 49], 0);
    ck_assert_int_eq(map.cells[16 * 100 + 50], HEATMAP_UNSEEN);
    heatmap_fini(&map);
}
END_TEST

static const char *const bad[] = {
    "{}",
    "[]",
    "{\"vm\": 5, \"rows\": []}",
    "{\"vm\": \"vm0\", \"column_seconds\": 0.5, \"rows\": []}",
    "{\"vm\": \"vm0\", \"column_seconds\": 0.5, \"rows\": [{\"start\": \"0x0\", \"bytes\": 4096, \"touched_pct\": "
    "[]}]}",
    "{\"vm\": \"vm0\", \"column_seconds\": 0, \"rows\": [{\"start\": \"0x0\", \"bytes\": 4096, \"touched_pct\": [1]}]}",
    "{\"vm\": \"vm0\", \"column_seconds\": 1, \"rows\": [{\"start\": \"0x0\", \"bytes\": 4096, \"touched_pct\": "
    "[101]}]}",
    "{\"vm\": \"vm0\", \"column_seconds\": 1, \"rows\": [{\"start\": \"0x0\", \"bytes\": 4096, \"touched_pct\": "
    "[-2]}]}",
    "{\"vm\": \"vm0\", \"column_seconds\": 1, \"rows\": [{\"start\": \"0x0\", \"bytes\": 4096, \"touched_pct\": "
    "[\"7\"]}]}",
    "{\"vm\": \"vm0\", \"column_seconds\": 1, \"rows\": [{\"start\": \"0x0\", \"bytes\": 0, \"touched_pct\": [1]}]}",
    "{\"vm\": \"vm0\", \"column_seconds\": 1, \"rows\": [{\"bytes\": 4096, \"touched_pct\": [1]}]}",
    "{\"vm\": \"vm0\", \"column_seconds\": 1, \"rows\": [{\"start\": \"0x0\", \"bytes\": 4096, \"touched_pct\": [1, "
    "2]},"
    " {\"start\": \"0x1000\", \"bytes\": 4096, \"touched_pct\": [1]}]}",
};

START_TEST(test_heatmap_answer_that_is_none_is_refused_in_words)
{
    struct diag diag = {0};
    struct heatmap map;
    json_t *json = json_loads(bad[_i], 0, NULL);
    ck_assert_ptr_nonnull(json);
    ck_assert_int_eq(heatmap_parse(json, &map, &diag), -1);
    ck_assert_int_eq(diag.code, EXIT_GUEST);
    ck_assert_uint_gt(strlen(diag.text), 10);
    json_decref(json);
}
END_TEST

/* ---- the picture ---- */

struct reader {
    const unsigned char *bytes;
    size_t left;
};

static cairo_status_t read_bytes(void *ctx, unsigned char *data, unsigned nr)
{
    struct reader *reader = ctx;
    if (nr > reader->left)
        return CAIRO_STATUS_READ_ERROR;
    memcpy(data, reader->bytes, nr);
    reader->bytes += nr;
    reader->left -= nr;
    return CAIRO_STATUS_SUCCESS;
}

static cairo_surface_t *draw(const struct heatmap *map)
{
    struct diag diag = {0};
    unsigned char *png;
    size_t nr;
    ck_assert_msg(heatmap_draw(map, &png, &nr, &diag) == 0, "%s", diag.text);
    struct reader reader = {png, nr};
    cairo_surface_t *surface = cairo_image_surface_create_from_png_stream(read_bytes, &reader);
    ck_assert_int_eq(cairo_surface_status(surface), CAIRO_STATUS_SUCCESS);
    ck_assert_uint_eq(reader.left, 0);
    free(png);
    ck_assert_int_eq(cairo_image_surface_get_width(surface), HEATMAP_WIDTH);
    ck_assert_int_eq(cairo_image_surface_get_height(surface), HEATMAP_HEIGHT);
    return surface;
}

static uint32_t pixel(cairo_surface_t *surface, double x, double y)
{
    uint32_t value;
    size_t stride = (size_t)cairo_image_surface_get_stride(surface);
    memcpy(&value, cairo_image_surface_get_data(surface) + (size_t)y * stride + (size_t)x * 4, 4);
    return value & 0xffffff;
}

/* The middle of a cell. */
static uint32_t cell_pixel(cairo_surface_t *surface, const struct heatmap *map, unsigned row, unsigned column)
{
    return pixel(surface, heatmap_plot.x + heatmap_plot.width * (column + 0.5) / map->nr_columns,
                 heatmap_plot.y + heatmap_plot.height * (1 - (row + 0.5) / map->nr_rows));
}

/* Rec. 709, without gamma: an order is all that is asked. */
static double lightness(uint32_t pixel_value)
{
    return 0.21 * (pixel_value >> 16 & 255) + 0.72 * (pixel_value >> 8 & 255) + 0.07 * (pixel_value & 255);
}

static bool is_grey(uint32_t pixel_value)
{
    uint32_t red = pixel_value >> 16, green = pixel_value >> 8 & 255, blue = pixel_value & 255;
    return red == green && green == blue && red > 200 && red < 250;
}

START_TEST(test_heatmap_picture_shows_hot_cold_and_never_apart)
{
    struct heatmap map;
    make_cells();
    parse_cells(&map);
    cairo_surface_t *surface = draw(&map);
    for (unsigned column = 0; column < 100; column += 9) {
        double hot = lightness(cell_pixel(surface, &map, 8, column));
        double cold = lightness(cell_pixel(surface, &map, 24, column));
        double warm = lightness(cell_pixel(surface, &map, 40, column));
        ck_assert_double_gt(hot, warm + 30);
        ck_assert_double_gt(warm, cold + 10);
        ck_assert(is_grey(cell_pixel(surface, &map, 56, column)));
        ck_assert(!is_grey(cell_pixel(surface, &map, 24, column)));
    }
    cairo_surface_destroy(surface);
    heatmap_fini(&map);
}
END_TEST

static unsigned count_pixels(cairo_surface_t *surface, double x0, double x1, uint32_t value)
{
    unsigned nr = 0;
    for (double y = 0; y < HEATMAP_HEIGHT; y++)
        for (double x = x0; x < x1; x++)
            nr += pixel(surface, x, y) == value;
    return nr;
}

/* It was as dark as what is known to be cold. */
START_TEST(test_heatmap_picture_of_memory_that_nobody_has_looked_at_has_its_own_colour)
{
    struct heatmap map;
    make_unseen_cells();
    parse_cells(&map);
    cairo_surface_t *surface = draw(&map);
    uint32_t unseen = cell_pixel(surface, &map, 24, 70);
    ck_assert_uint_ne(unseen, cell_pixel(surface, &map, 24, 30)); /* cold */
    ck_assert_uint_ne(unseen, cell_pixel(surface, &map, 56, 70)); /* never touched */
    ck_assert(!is_grey(unseen));
    /* bluer than red, and light: no share has such a colour */
    ck_assert_uint_gt(unseen & 255, (unseen >> 16) + 40);
    ck_assert_double_gt(lightness(unseen), 150);
    /* and the legend has it */
    double right = heatmap_plot.x + heatmap_plot.width;
    ck_assert_uint_gt(count_pixels(surface, right + 2, HEATMAP_WIDTH, unseen), 200);
    cairo_surface_destroy(surface);
    heatmap_fini(&map);
}
END_TEST

/* Whether anything dark is drawn in a box. */
static bool has_ink(cairo_surface_t *surface, double x0, double y0, double x1, double y1)
{
    for (double y = y0; y < y1; y++)
        for (double x = x0; x < x1; x++)
            if (lightness(pixel(surface, x, y)) < 128)
                return true;
    return false;
}

START_TEST(test_heatmap_picture_has_title_axes_and_legend)
{
    struct heatmap map;
    make_cells();
    parse_cells(&map);
    cairo_surface_t *surface = draw(&map);
    double bottom = heatmap_plot.y + heatmap_plot.height, right = heatmap_plot.x + heatmap_plot.width;
    ck_assert(has_ink(surface, heatmap_plot.x, 10, 500, 50));                                /* title */
    ck_assert(has_ink(surface, 40, heatmap_plot.y, heatmap_plot.x - 8, bottom));             /* addresses */
    ck_assert(has_ink(surface, heatmap_plot.x, bottom + 8, right, bottom + 30));             /* times */
    ck_assert(has_ink(surface, heatmap_plot.x, bottom + 34, right, bottom + 60));            /* their unit */
    ck_assert(has_ink(surface, 10, heatmap_plot.y, 35, bottom));                             /* what addresses */
    ck_assert(has_ink(surface, right + 60, heatmap_plot.y + 20, HEATMAP_WIDTH - 1, bottom)); /* legend */
    ck_assert(!has_ink(surface, 0, 0, HEATMAP_WIDTH, 4));
    cairo_surface_destroy(surface);
    heatmap_fini(&map);
}
END_TEST

/* One cell, all cells, hours of time, a hole of memory, an odd number of rows. */
START_TEST(test_heatmap_picture_of_any_size_is_drawn)
{
    static const struct {
        unsigned rows, columns;
        uint64_t column_ns, row_bytes;
    } sizes[] = {
        {1, 1, 250000000, 2 * MIB},
        {512, 512, 250000000, 2 * MIB},
        {3, 511, UINT64_C(128000000000), UINT64_C(1) << 36},
        {511, 2, UINT64_C(1), 4096},
    };
    struct heatmap map;
    memset(&cells, 0, sizeof(cells));
    cells.nr_rows = sizes[_i].rows;
    cells.nr_columns = sizes[_i].columns;
    cells.column_ns = sizes[_i].column_ns;
    for (unsigned row = 0; row < cells.nr_rows; row++) {
        cells.row_start[row].v = (row + (row > cells.nr_rows / 2 ? 1000u : 0)) * sizes[_i].row_bytes;
        cells.row_bytes[row] = sizes[_i].row_bytes;
        memset(cells.cell[row], (int)(row % 251), ACCESS_MAP_COLUMNS);
    }
    parse_cells(&map);
    cairo_surface_destroy(draw(&map));
    heatmap_fini(&map);
}
END_TEST

START_TEST(test_heatmap_in_letters_shows_hot_cold_and_never_apart)
{
    struct heatmap map;
    char *text = NULL, *line;
    size_t nr;
    unsigned hot = 0, cold = 0, never = 0;
    make_cells();
    parse_cells(&map);
    FILE *out = open_memstream(&text, &nr);
    heatmap_print(&map, out);
    fclose(out);
    ck_assert_ptr_nonnull(strstr(text, "vm0: guest address over 50 s\n"));
    for (line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        hot += strstr(line, "|@@@@@@") != NULL;
        cold += strstr(line, "|......") != NULL;
        never += strstr(line, "|      ") != NULL;
    }
    ck_assert_uint_eq(hot, 6);
    ck_assert_uint_eq(cold, 6);
    ck_assert_uint_eq(never, 6);
    free(text);
    heatmap_fini(&map);
}
END_TEST

/* 64 rows of 100 columns as 24 of 64: a letter is what most of its cells are, and what is touched is not lost. */
START_TEST(test_heatmap_in_letters_of_memory_that_nobody_has_looked_at_has_its_own_letter)
{
    struct heatmap map;
    char *text = NULL;
    size_t nr;
    unsigned unseen = 0, touched = 0;
    make_unseen_cells();
    cells.cell[20][99] = 1;
    parse_cells(&map);
    FILE *out = open_memstream(&text, &nr);
    heatmap_print(&map, out);
    fclose(out);
    ck_assert_ptr_nonnull(strstr(text, "?: not looked at yet"));
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        unseen += strstr(line, "|................................??????????????????????????????") != NULL;
        touched += strstr(line, "???:|") != NULL;
    }
    ck_assert_uint_eq(unseen, 6);
    ck_assert_uint_eq(touched, 1);
    free(text);
    heatmap_fini(&map);
}
END_TEST

START_TEST(test_heatmap_out_of_memory_is_said)
{
    struct heatmap map;
    make_cells();
    json_t *json = heatmap_json("vm0", &cells);
    for (long nth = 1; nth <= 2; nth++) {
        struct diag diag = {0};
        fail_alloc_at(nth);
        ck_assert_int_eq(heatmap_parse(json, &map, &diag), -1);
        ck_assert(fail_alloc_fired());
        ck_assert_str_eq(diag.text, "out of memory");
    }
    fail_alloc_at(-1);
    struct diag diag = {0};
    unsigned char *png;
    size_t nr;
    parse_cells(&map);
    fail_alloc_at(1); /* the first part of the PNG; cairo's own allocations are not seen */
    ck_assert_int_eq(heatmap_draw(&map, &png, &nr, &diag), -1);
    ck_assert_int_eq(diag.code, EXIT_GUEST);
    heatmap_fini(&map);
    json_decref(json);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("heatmap");
    TCase *tc = tcase_create("heatmap");
    tcase_add_test(tc, test_heatmap_json_holds_every_cell);
    tcase_add_test(tc, test_heatmap_json_of_memory_that_nobody_has_looked_at_is_null);
    tcase_add_loop_test(tc, test_heatmap_answer_that_is_none_is_refused_in_words, 0, (int)ARRAY_LEN(bad));
    tcase_add_test(tc, test_heatmap_picture_shows_hot_cold_and_never_apart);
    tcase_add_test(tc, test_heatmap_picture_of_memory_that_nobody_has_looked_at_has_its_own_colour);
    tcase_add_test(tc, test_heatmap_picture_has_title_axes_and_legend);
    tcase_add_loop_test(tc, test_heatmap_picture_of_any_size_is_drawn, 0, 4);
    tcase_add_test(tc, test_heatmap_in_letters_shows_hot_cold_and_never_apart);
    tcase_add_test(tc, test_heatmap_in_letters_of_memory_that_nobody_has_looked_at_has_its_own_letter);
    tcase_add_test(tc, test_heatmap_out_of_memory_is_said);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
