/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The picture:
 *
 *      +--------------------------------------------------+
 *      | title, and what it shows                          |
 *      |  MiB +-------------------------------+   +--+ 100%|
 *      |      | cells, low addresses below    |   |  |     |
 *      |      +-------------------------------+   +--+ 0   |
 *      |      0        seconds                    never    |
 *      +--------------------------------------------------+
 *
 * Colours go by the square root of the share, so that a little is seen. They rise in lightness, for those who do not
 * tell hues apart and for print.
 */
#include "vmm/heatmap.h"

#include "vmm/size.h"

#include <cairo/cairo.h>
#include <dlfcn.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

const struct heatmap_box heatmap_plot = {.x = 110, .y = 90, .width = 940, .height = 620};

#define BAR_X 1085.0
#define BAR_WIDTH 22.0
#define TEXT_PIXELS 15.0
#define MAX_TICKS 9u

struct colour {
    double red, green, blue;
};

/* Of no hue, and of one that is none of those of a share. */
static const struct colour never_grey = {0.90, 0.90, 0.90}, unseen_blue = {0.55, 0.76, 0.90};

static struct colour colour_of(double pct)
{
    /* black-violet, violet, magenta, orange, light yellow: of rising lightness */
    static const struct colour stops[] = {
        {0.07, 0.05, 0.20}, {0.32, 0.07, 0.48}, {0.70, 0.18, 0.40}, {0.95, 0.48, 0.16}, {0.99, 0.95, 0.60},
    };
    const unsigned last = ARRAY_LEN(stops) - 1;
    double at = sqrt(pct / 100.0) * last;
    unsigned i = (unsigned)MIN_OF(at, last - 1.0);
    double part = at - i;

    return (struct colour){stops[i].red + part * (stops[i + 1].red - stops[i].red),
                           stops[i].green + part * (stops[i + 1].green - stops[i].green),
                           stops[i].blue + part * (stops[i + 1].blue - stops[i].blue)};
}

static uint32_t pixel_of(int cell)
{
    struct colour c = cell == HEATMAP_NEVER ? never_grey : cell == HEATMAP_UNSEEN ? unseen_blue : colour_of(cell);

    return (uint32_t)lround(c.red * 255) << 16 | (uint32_t)lround(c.green * 255) << 8 | (uint32_t)lround(c.blue * 255);
}

/*
 * libcairo brings a dozen libraries along, window systems among them, that a VM's process has no use for: it is loaded
 * when a picture is drawn.
 */
#define CAIRO_CALLS(X)                                                                                                 \
    X(create)                                                                                                          \
    X(destroy)                                                                                                         \
    X(fill)                                                                                                            \
    X(fill_preserve)                                                                                                   \
    X(font_extents)                                                                                                    \
    X(get_source)                                                                                                      \
    X(image_surface_create)                                                                                            \
    X(image_surface_get_data)                                                                                          \
    X(image_surface_get_stride)                                                                                        \
    X(line_to)                                                                                                         \
    X(move_to)                                                                                                         \
    X(paint)                                                                                                           \
    X(pattern_set_filter)                                                                                              \
    X(rectangle)                                                                                                       \
    X(restore)                                                                                                         \
    X(rotate)                                                                                                          \
    X(save)                                                                                                            \
    X(scale)                                                                                                           \
    X(select_font_face)                                                                                                \
    X(set_font_size)                                                                                                   \
    X(set_line_width)                                                                                                  \
    X(set_source_rgb)                                                                                                  \
    X(set_source_surface)                                                                                              \
    X(show_text)                                                                                                       \
    X(status)                                                                                                          \
    X(stroke)                                                                                                          \
    X(surface_destroy)                                                                                                 \
    X(surface_flush)                                                                                                   \
    X(surface_mark_dirty)                                                                                              \
    X(surface_status)                                                                                                  \
    X(surface_write_to_png_stream)                                                                                     \
    X(text_extents)                                                                                                    \
    X(translate)

struct cairo_calls {
#define X(name) __typeof__(&cairo_##name) name;
    CAIRO_CALLS(X)
#undef X
};

struct pen {
    struct cairo_calls cairo;
    cairo_t *cr;
};

static int load_cairo(struct cairo_calls *calls, struct diag *diag)
{
    void *library = dlopen("libcairo.so.2", RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return diag_set(diag, EXIT_HOST,
                        "heatmap: libcairo is missing here (%s); Debian has it in libcairo2, or take --json",
                        dlerror());
#define X(name)                                                                                                        \
    if (!(*(void **)(void *)&calls->name = dlsym(library, "cairo_" #name)))                                            \
        return diag_set(diag, EXIT_HOST, "heatmap: this libcairo is too old, it has no cairo_" #name);
    CAIRO_CALLS(X)
#undef X
    return 0;
}

/* ---- text ---- */

enum align { LEFT, CENTRE, RIGHT };

/* @y: the middle of the line. */
static void put_text(const struct pen *p, double x, double y, enum align align, double pixels, const char *text)
{
    cairo_text_extents_t extents;
    cairo_font_extents_t font;

    p->cairo.set_font_size(p->cr, pixels);
    p->cairo.text_extents(p->cr, text, &extents);
    p->cairo.font_extents(p->cr, &font);
    x -= align == RIGHT ? extents.x_advance : align == CENTRE ? extents.x_advance / 2 : 0;
    p->cairo.move_to(p->cr, x, y + (font.ascent - font.descent) / 2);
    p->cairo.show_text(p->cr, text);
}

static void put_line(const struct pen *p, double x0, double y0, double x1, double y1)
{
    p->cairo.move_to(p->cr, x0, y0);
    p->cairo.line_to(p->cr, x1, y1);
    p->cairo.stroke(p->cr);
}

/* 1, 2 or 5 times a power of ten, so that @range has at most MAX_TICKS steps. */
static double nice_step(double range)
{
    double power = pow(10, floor(log10(range / MAX_TICKS)));

    for (unsigned i = 0; i < 3; i++)
        if (range / (power * (double[]){1, 2, 5}[i]) <= MAX_TICKS)
            return power * (double[]){1, 2, 5}[i];
    return power * 10;
}

/* ---- cells ---- */

static int draw_cells(const struct pen *p, const struct heatmap *map)
{
    cairo_surface_t *cells = p->cairo.image_surface_create(CAIRO_FORMAT_RGB24, (int)map->nr_columns, (int)map->nr_rows);
    if (p->cairo.surface_status(cells)) {
        p->cairo.surface_destroy(cells);
        return -ENOMEM;
    }
    unsigned char *data = p->cairo.image_surface_get_data(cells);
    size_t stride = (size_t)p->cairo.image_surface_get_stride(cells);
    p->cairo.surface_flush(cells);
    for (unsigned row = 0; row < map->nr_rows; row++)
        for (unsigned column = 0; column < map->nr_columns; column++) {
            uint32_t pixel = pixel_of(map->cells[(size_t)row * map->nr_columns + column]);
            /* low addresses are below */
            memcpy(data + (map->nr_rows - 1 - row) * stride + column * sizeof(pixel), &pixel, sizeof(pixel));
        }
    p->cairo.surface_mark_dirty(cells);
    p->cairo.save(p->cr);
    p->cairo.translate(p->cr, heatmap_plot.x, heatmap_plot.y);
    p->cairo.scale(p->cr, heatmap_plot.width / map->nr_columns, heatmap_plot.height / map->nr_rows);
    p->cairo.set_source_surface(p->cr, cells, 0, 0);
    p->cairo.pattern_set_filter(p->cairo.get_source(p->cr), CAIRO_FILTER_NEAREST);
    p->cairo.rectangle(p->cr, 0, 0, map->nr_columns, map->nr_rows);
    p->cairo.fill(p->cr);
    p->cairo.restore(p->cr);
    p->cairo.surface_destroy(cells);
    return 0;
}

/* ---- axes ---- */

static double row_y(const struct heatmap *map, double row)
{
    return heatmap_plot.y + heatmap_plot.height * (1 - row / map->nr_rows);
}

static void put_address_tick(const struct pen *p, double y, uint64_t address)
{
    char text[40];
    bool gib = address >= UINT64_C(1) << 30;

    snprintf(text, sizeof(text), "%.4g %s", (double)address / (double)(UINT64_C(1) << (gib ? 30 : 20)),
             gib ? "GiB" : "MiB");
    put_line(p, heatmap_plot.x - 6, y, heatmap_plot.x, y);
    put_text(p, heatmap_plot.x - 11, y, RIGHT, TEXT_PIXELS, text);
}

/* A tick at each multiple of a power of two, and a line across where a hole lies between two regions. */
static void draw_addresses(const struct pen *p, const struct heatmap *map)
{
    const struct heatmap_row *rows = map->rows;
    uint64_t all = 0, step = UINT64_C(1) << 20;
    double last_y = 1e9;

    for (unsigned row = 0; row < map->nr_rows; row++)
        all += rows[row].bytes;
    while (all / step > MAX_TICKS)
        step *= 2;
    for (unsigned row = 0; row < map->nr_rows; row++) {
        bool hole = row > 0 && rows[row - 1].start + rows[row - 1].bytes != rows[row].start;
        uint64_t next = (rows[row].start + step - 1) / step * step;
        if (hole) {
            p->cairo.set_source_rgb(p->cr, 1, 1, 1);
            p->cairo.set_line_width(p->cr, 3);
            put_line(p, heatmap_plot.x, row_y(map, row), heatmap_plot.x + heatmap_plot.width, row_y(map, row));
            p->cairo.set_source_rgb(p->cr, 0.15, 0.15, 0.15);
            p->cairo.set_line_width(p->cr, 1);
        }
        if (hole)
            next = rows[row].start;
        if (next >= rows[row].start + rows[row].bytes)
            continue;
        double y = row_y(map, row + (double)(next - rows[row].start) / (double)rows[row].bytes);
        if (last_y - y < 1.6 * TEXT_PIXELS)
            continue;
        put_address_tick(p, y, next);
        last_y = y;
    }
    const struct heatmap_row *top = &rows[map->nr_rows - 1];
    if (last_y - heatmap_plot.y >= 1.6 * TEXT_PIXELS)
        put_address_tick(p, heatmap_plot.y, top->start + top->bytes);
}

static void draw_times(const struct pen *p, const struct heatmap *map)
{
    double seconds = map->nr_columns * map->column_s, unit = 1;
    const char *name = "seconds since the first look";
    char text[40];

    if (seconds > 600) {
        unit = 60;
        name = "minutes since the first look";
    }
    if (seconds > 36000) {
        unit = 3600;
        name = "hours since the first look";
    }
    double step = nice_step(seconds / unit);
    for (double at = 0; at <= seconds / unit * 1.0001; at += step) {
        double x = heatmap_plot.x + heatmap_plot.width * at * unit / seconds;
        double y = heatmap_plot.y + heatmap_plot.height;
        put_line(p, x, y, x, y + 6);
        snprintf(text, sizeof(text), "%.4g", at);
        put_text(p, x, y + 18, CENTRE, TEXT_PIXELS, text);
    }
    put_text(p, heatmap_plot.x + heatmap_plot.width / 2, heatmap_plot.y + heatmap_plot.height + 46, CENTRE, TEXT_PIXELS,
             name);
}

static void draw_axes(const struct pen *p, const struct heatmap *map)
{
    p->cairo.set_source_rgb(p->cr, 0.15, 0.15, 0.15);
    p->cairo.set_line_width(p->cr, 1);
    draw_addresses(p, map);
    draw_times(p, map);
    p->cairo.rectangle(p->cr, heatmap_plot.x - 0.5, heatmap_plot.y - 0.5, heatmap_plot.width + 1,
                       heatmap_plot.height + 1);
    p->cairo.stroke(p->cr);
    p->cairo.save(p->cr);
    p->cairo.translate(p->cr, 22, heatmap_plot.y + heatmap_plot.height / 2);
    p->cairo.rotate(p->cr, -acos(0));
    put_text(p, 0, 0, CENTRE, TEXT_PIXELS, "guest physical address");
    p->cairo.restore(p->cr);
}

/* ---- legend and title ---- */

/* @y: its middle. */
static void draw_key(const struct pen *p, double y, struct colour c)
{
    p->cairo.set_source_rgb(p->cr, c.red, c.green, c.blue);
    p->cairo.rectangle(p->cr, BAR_X, y - BAR_WIDTH / 2, BAR_WIDTH, BAR_WIDTH);
    p->cairo.fill_preserve(p->cr);
    p->cairo.set_source_rgb(p->cr, 0.15, 0.15, 0.15);
    p->cairo.stroke(p->cr);
}

static void draw_legend(const struct pen *p)
{
    static const int ticks[] = {0, 1, 10, 25, 50, 75, 100};
    const double top = heatmap_plot.y + 30, height = heatmap_plot.height - 130;
    char text[16];

    for (unsigned i = 0; i < (unsigned)height; i++) {
        double share = i / height;
        struct colour c = colour_of(100 * share * share);
        p->cairo.set_source_rgb(p->cr, c.red, c.green, c.blue);
        p->cairo.rectangle(p->cr, BAR_X, top + height - 1 - i, BAR_WIDTH, 1);
        p->cairo.fill(p->cr);
    }
    p->cairo.set_source_rgb(p->cr, 0.15, 0.15, 0.15);
    for (unsigned i = 0; i < ARRAY_LEN(ticks); i++) {
        double y = top + height * (1 - sqrt(ticks[i] / 100.0));
        snprintf(text, sizeof(text), "%d%%", ticks[i]);
        put_line(p, BAR_X + BAR_WIDTH, y, BAR_X + BAR_WIDTH + 5, y);
        put_text(p, BAR_X + BAR_WIDTH + 10, y, LEFT, TEXT_PIXELS, text);
    }
    put_text(p, BAR_X, heatmap_plot.y + 8, LEFT, TEXT_PIXELS, "touched");
    draw_key(p, top + height + 46, never_grey);
    put_text(p, BAR_X + BAR_WIDTH + 10, top + height + 46, LEFT, TEXT_PIXELS, "never");
    draw_key(p, top + height + 84, unseen_blue);
    put_text(p, BAR_X + BAR_WIDTH + 10, top + height + 84 - 9, LEFT, TEXT_PIXELS, "not looked");
    put_text(p, BAR_X + BAR_WIDTH + 10, top + height + 84 + 9, LEFT, TEXT_PIXELS, "at yet");
}

static void draw_title(const struct pen *p, const struct heatmap *map)
{
    char text[200], size[SIZE_TEXT], row[SIZE_TEXT];
    uint64_t all = 0;

    for (unsigned i = 0; i < map->nr_rows; i++)
        all += map->rows[i].bytes;
    p->cairo.set_source_rgb(p->cr, 0.1, 0.1, 0.1);
    snprintf(text, sizeof(text), "Memory that %s touched", map->vm);
    put_text(p, heatmap_plot.x, 34, LEFT, 24, text);
    snprintf(text, sizeof(text),
             "%s of memory over %.4g s; a cell is %s by %.4g s, its colour the share that was touched",
             size_text(size, all), map->nr_columns * map->column_s, size_text(row, map->rows[0].bytes), map->column_s);
    put_text(p, heatmap_plot.x, 66, LEFT, TEXT_PIXELS, text);
}

/* ---- */

struct buffer {
    unsigned char *bytes;
    size_t nr;
};

static cairo_status_t append(void *ctx, const unsigned char *data, unsigned nr)
{
    struct buffer *buffer = ctx;
    unsigned char *more = realloc(buffer->bytes, buffer->nr + nr);

    if (!more)
        return CAIRO_STATUS_NO_MEMORY;
    memcpy(more + buffer->nr, data, nr);
    buffer->bytes = more;
    buffer->nr += nr;
    return CAIRO_STATUS_SUCCESS;
}

int heatmap_draw(const struct heatmap *map, unsigned char **png, size_t *png_bytes, struct diag *diag)
{
    struct pen pen;
    struct buffer buffer = {0};
    if (load_cairo(&pen.cairo, diag))
        return -1;
    cairo_surface_t *surface = pen.cairo.image_surface_create(CAIRO_FORMAT_RGB24, HEATMAP_WIDTH, HEATMAP_HEIGHT);
    pen.cr = pen.cairo.create(surface);
    pen.cairo.set_source_rgb(pen.cr, 1, 1, 1);
    pen.cairo.paint(pen.cr);
    pen.cairo.select_font_face(pen.cr, "sans-serif", CAIRO_FONT_SLANT_NORMAL, CAIRO_FONT_WEIGHT_NORMAL);
    int err = draw_cells(&pen, map);
    draw_axes(&pen, map);
    draw_legend(&pen);
    draw_title(&pen, map);
    if (!err && (pen.cairo.status(pen.cr) || pen.cairo.surface_write_to_png_stream(surface, append, &buffer)))
        err = -ENOMEM;
    pen.cairo.destroy(pen.cr);
    pen.cairo.surface_destroy(surface);
    if (err) {
        free(buffer.bytes);
        return diag_set(diag, EXIT_GUEST, "heatmap: out of memory while drawing");
    }
    *png = buffer.bytes;
    *png_bytes = buffer.nr;
    return 0;
}
