/* SPDX-License-Identifier: Apache-2.0 */
/* The view idle: how long memory has not been touched, and how much of it is in use. As JSON, and that as a table. */
#include "vmm/render.h"
#include "vmm/size.h"
#include "vmm/table.h"
#include "vmm/views.h"

#include <string.h>

/* ---- to JSON ---- */

static void put_idle(json_t *row, const struct access_idle *idle)
{
    json_t *ages = json_array(), *sets = json_array();

    view_put(row, "memory_bytes", idle->memory_bytes);
    view_put(row, "never_touched_bytes", idle->never_bytes);
    view_put(row, "unwatched_bytes", idle->unwatched_bytes);
    json_object_set_new(row, "idle", ages);
    for (unsigned i = 0; i < ACCESS_IDLE_STEPS; i++)
        json_array_append_new(
            ages, json_pack("{s:I, s:I}", "seconds", (json_int_t)1 << i, "bytes", (json_int_t)idle->idle_bytes[i]));
    json_object_set_new(row, "working_set", sets);
    for (unsigned i = 0; i < ACCESS_NR_WINDOWS; i++)
        json_array_append_new(sets, json_pack("{s:I, s:I, s:I, s:I}", "seconds", (json_int_t)access_windows_s[i],
                                              "bytes", (json_int_t)idle->working_set[i].bytes, "error_bytes",
                                              (json_int_t)access_error_bytes(idle->working_set[i].variance),
                                              "left_bytes", (json_int_t)idle->working_set[i].left_bytes));
}

json_t *view_idle(const struct access_stat *access, const struct view_idle *vms, unsigned nr)
{
    json_t *o = json_object(), *list = json_array(), *all = json_object();
    struct access_idle sum = {0};

    json_object_set_new(o, "source", view_text(access->source));
    if (access->source_err)
        json_object_set_new(o, "source_error", view_text(strerror(-access->source_err)));
    json_object_set_new(o, "sample_quota_pct", json_real(access->quota_pct));
    json_object_set_new(o, "sample_cpu_pct", json_real(access->sample_cpu_pct));
    view_put(o, "sample_ns", access->sample_ns);
    view_put(o, "nr_samples", access->nr_samples);
    view_put(o, "nr_sample_hits", access->nr_hits);
    view_put(o, "nr_sample_late_hits", access->nr_late_hits);
    json_object_set_new(o, "all", all);
    json_object_set_new(o, "vms", list);
    for (unsigned i = 0; i < nr; i++) {
        json_t *row = json_object();
        json_array_append_new(list, row);
        json_object_set_new(row, "name", view_text(vms[i].name));
        put_idle(row, &vms[i].idle);
        access_idle_add(&sum, &vms[i].idle);
    }
    put_idle(all, &sum);
    return o;
}

/* ---- to text ---- */

static uint64_t bytes_of(const json_t *object, const char *name)
{
    return (uint64_t)json_integer_value(json_object_get(object, name));
}

/* "1 s", "2 min", "4.6 h"; whole where it is. */
static void age_cell(struct table *table, uint64_t seconds)
{
    if (seconds < 60)
        table_cell(table, "%llu s", (unsigned long long)seconds);
    else if (seconds < 3600)
        table_cell(table, "%.3g min", (double)seconds / 60);
    else
        table_cell(table, "%.3g h", (double)seconds / 3600);
}

static const json_t *vm_or_all(const json_t *json, size_t index)
{
    const json_t *vms = json_object_get(json, "vms");

    return index < json_array_size(vms) ? json_array_get(vms, index) : json_object_get(json, "all");
}

/* VMs shown as columns; the sum is one, too, when there are several. */
static size_t nr_shown(const json_t *json)
{
    size_t nr = json_array_size(json_object_get(json, "vms"));

    return nr > 1 && nr < TABLE_MAX_COLUMNS - 2 ? nr + 1 : 1;
}

/* With more VMs than fit, the sum alone. */
static const json_t *shown(const json_t *json, size_t index)
{
    size_t nr = json_array_size(json_object_get(json, "vms"));

    return nr_shown(json) == 1 && nr != 1 ? json_object_get(json, "all") : vm_or_all(json, index);
}

static void size_row(struct table *table, const json_t *json, const char *name, const char *label)
{
    table_cell(table, "%s", label);
    for (size_t i = 0; i < nr_shown(json); i++)
        table_size(table, bytes_of(shown(json, i), name));
}

/* The ages that say something: up to the first at which nothing is left. */
static void age_rows(struct table *table, const json_t *json)
{
    const json_t *all = json_object_get(json_object_get(json, "all"), "idle");

    for (size_t step = 0; step < json_array_size(all); step++) {
        age_cell(table, bytes_of(json_array_get(all, step), "seconds"));
        for (size_t i = 0; i < nr_shown(json); i++)
            table_size(table, bytes_of(json_array_get(json_object_get(shown(json, i), "idle"), step), "bytes"));
        if (!bytes_of(json_array_get(all, step), "bytes"))
            break;
    }
}

static void left_text(char *out, size_t size, uint64_t bytes)
{
    char text[SIZE_TEXT];

    out[0] = '\0';
    if (bytes)
        snprintf(out, size, ", %s left", size_text(text, bytes));
}

static void window_rows(struct table *table, const json_t *json)
{
    const json_t *all = json_object_get(json_object_get(json, "all"), "working_set");
    char bytes[SIZE_TEXT], error[SIZE_TEXT], left[SIZE_TEXT + 16];

    for (size_t window = 0; window < json_array_size(all); window++) {
        age_cell(table, bytes_of(json_array_get(all, window), "seconds"));
        for (size_t i = 0; i < nr_shown(json); i++) {
            const json_t *set = json_array_get(json_object_get(shown(json, i), "working_set"), window);
            left_text(left, sizeof(left), bytes_of(set, "left_bytes"));
            table_cell(table, "%s +- %s%s", size_text(bytes, bytes_of(set, "bytes")),
                       size_text(error, bytes_of(set, "error_bytes")), left);
        }
    }
}

static int put_table(const json_t *json, const char *title, void (*rows)(struct table *table, const json_t *json),
                     FILE *out)
{
    struct table table;
    char align[TABLE_MAX_COLUMNS + 1];
    size_t nr = nr_shown(json);

    memset(align, 'r', nr + 1);
    align[nr + 1] = '\0';
    table_init(&table, align);
    fprintf(out, "%s\n", title);
    table_cell(&table, "%s", "");
    for (size_t i = 0; i < nr; i++) {
        const char *name = json_string_value(json_object_get(shown(json, i), "name"));
        table_cell(&table, "%s", name ? name : "all");
    }
    rows(&table, json);
    int error = table_print(&table, 2, out);
    table_fini(&table);
    return error;
}

static void memory_rows(struct table *table, const json_t *json)
{
    size_row(table, json, "memory_bytes", "memory");
    size_row(table, json, "never_touched_bytes", "never touched");
    size_row(table, json, "unwatched_bytes", "not looked at yet");
}

int render_idle(const json_t *json, FILE *out)
{
    const char *error = json_string_value(json_object_get(json, "source_error"));
    const char *source = json_string_value(json_object_get(json, "source"));

    fprintf(out, "Accesses seen by %s", source ? source : "-");
    if (error)
        fprintf(out, " (another source broke: %s)", error);
    fprintf(out, "; %llu samples, %.3f%% of one CPU of at most %.4g%%\n",
            (unsigned long long)bytes_of(json, "nr_samples"),
            json_number_value(json_object_get(json, "sample_cpu_pct")),
            json_number_value(json_object_get(json, "sample_quota_pct")));
    int failed = put_table(json, "Memory", memory_rows, out);
    if (!failed)
        failed = put_table(json, "Not touched for at least", age_rows, out);
    if (!failed)
        failed = put_table(json, "Working set: touched in the last; what left memory since then may belong to it",
                           window_rows, out);
    return failed;
}
