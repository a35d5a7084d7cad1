/* SPDX-License-Identifier: Apache-2.0 */
/* Aligned text tables: cells are collected, columns get the width of their widest cell. */
#ifndef VMM_TABLE_H
#define VMM_TABLE_H

#include "mm/base/types.h"

#include <stdio.h>

#define TABLE_MAX_COLUMNS 16

struct table {
    unsigned nr_columns;
    char align[TABLE_MAX_COLUMNS + 1]; /* 'l' or 'r' for each column */
    size_t nr_cells, max_cells;
    char **cells; /* row after row */
    bool failed;  /* memory ran out: printing says so */
};

/* @align: one letter a column, "lrr" has three. */
void table_init(struct table *table, const char *align);
void table_fini(struct table *table);
/* The next cell, left to right, row by row (printf). */
void table_cell(struct table *table, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The next cell: bytes as size_text, pages or objects as count_text, ns as time_text. */
void table_size(struct table *table, uint64_t bytes);
void table_count(struct table *table, uint64_t count);
void table_time(struct table *table, uint64_t ns);
/* Two blanks between columns, @indent before the first, none at a line's end. Returns 0, or -ENOMEM: cells are missing.
 */
must_check int table_print(const struct table *table, unsigned indent, FILE *out);

#endif
