/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/table.h"

#include "vmm/size.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

void table_init(struct table *table, const char *align)
{
    memset(table, 0, sizeof(*table));
    table->nr_columns = (unsigned)strnlen(align, TABLE_MAX_COLUMNS);
    memcpy(table->align, align, table->nr_columns);
}

void table_fini(struct table *table)
{
    for (size_t i = 0; i < table->nr_cells; i++)
        free(table->cells[i]);
    free(table->cells);
}

/* Takes @text, which is from the heap or NULL. */
static void table_add(struct table *table, char *text)
{
    if (text && table->nr_cells == table->max_cells) {
        size_t max = table->max_cells ? 2 * table->max_cells : 64;
        char **cells = realloc(table->cells, max * sizeof(*cells));
        if (cells) {
            table->cells = cells;
            table->max_cells = max;
        }
    }
    if (!text || table->nr_cells == table->max_cells) {
        table->failed = true;
        free(text);
        return;
    }
    table->cells[table->nr_cells++] = text;
}

void table_cell(struct table *table, const char *format, ...)
{
    va_list args;
    char *text;

    va_start(args, format);
    if (vasprintf(&text, format, args) < 0)
        text = NULL;
    va_end(args);
    table_add(table, text);
}

void table_size(struct table *table, uint64_t bytes)
{
    char text[SIZE_TEXT];
    table_add(table, strdup(size_text(text, bytes)));
}

void table_count(struct table *table, uint64_t count)
{
    char text[SIZE_TEXT];
    table_add(table, strdup(count_text(text, count)));
}

void table_time(struct table *table, uint64_t ns)
{
    char text[SIZE_TEXT];
    table_add(table, strdup(time_text(text, ns)));
}

static void print_row(const struct table *table, size_t row, const int *width, unsigned indent, FILE *out)
{
    char *const *cells = table->cells + row * table->nr_columns;
    unsigned last = table->nr_columns;
    int gap = (int)indent;

    while (last && !*cells[last - 1])
        last--;
    for (unsigned i = 0; i < last; i++) {
        if (table->align[i] == 'r')
            fprintf(out, "%*s%*s", gap, "", width[i], cells[i]);
        else if (i + 1 == last)
            fprintf(out, "%*s%s", gap, "", cells[i]);
        else
            fprintf(out, "%*s%-*s", gap, "", width[i], cells[i]);
        gap = 2;
    }
    fputc('\n', out);
}

int table_print(const struct table *table, unsigned indent, FILE *out)
{
    int width[TABLE_MAX_COLUMNS] = {0};

    if (table->failed)
        return -ENOMEM;
    for (size_t i = 0; i < table->nr_cells; i++) {
        int len = (int)strlen(table->cells[i]);
        width[i % table->nr_columns] = MAX_OF(width[i % table->nr_columns], len);
    }
    for (size_t row = 0; row < table->nr_cells / table->nr_columns; row++)
        print_row(table, row, width, indent, out);
    return 0;
}
