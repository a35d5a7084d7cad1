/* SPDX-License-Identifier: Apache-2.0 */
/* What the files that render views share: members of JSON objects as cells of a table. */
#ifndef VMM_RENDER_PARTS_H
#define VMM_RENDER_PARTS_H

#include <inttypes.h>
#include <jansson.h>
#include <string.h>

#include "vmm/table.h"

/* render_numa.c */
int render_numa(const json_t *json, FILE *out);
int render_tiers(const json_t *json, FILE *out);
/* render_frag.c: as Linux has them in /proc/pagetypeinfo and debugfs */
int render_pagetypeinfo(const json_t *json, FILE *out);
int render_extfrag(const json_t *json, FILE *out);

static inline uint64_t number(const json_t *object, const char *name)
{
    return (uint64_t)json_integer_value(json_object_get(object, name));
}

static inline const char *text(const json_t *object, const char *name)
{
    const char *value = json_string_value(json_object_get(object, name));

    return value ? value : "-";
}

/* One line of column titles, words separated by single blanks. */
static inline void titles(struct table *table, const char *words)
{
    while (*words) {
        int nr = (int)strcspn(words, " ");
        table_cell(table, "%.*s", nr, words);
        words += nr + (words[nr] == ' ');
    }
}

static inline void put_number(struct table *table, const json_t *object, const char *name)
{
    table_cell(table, "%" PRIu64, number(object, name));
}

/* Prints and frees. */
static inline int finish(struct table *table, unsigned indent, FILE *out)
{
    int error = table_print(table, indent, out);

    table_fini(table);
    return error;
}

#endif
