/* SPDX-License-Identifier: Apache-2.0 */
/* render: a view's JSON (views.h) as a table to read, in the shape of Linux's /proc file where there is one. */
#ifndef VMM_RENDER_H
#define VMM_RENDER_H

#include <jansson.h>
#include <stdio.h>

/*
 * render_view - @view: its name. What is missing in @json, or of another type, reads as 0 or "-".
 * Returns 0; -EINVAL: no such view; -ENOMEM: lines are missing.
 */
int render_view(const char *view, const json_t *json, FILE *out);
/* One of them, in view_idle.c. */
int render_idle(const json_t *json, FILE *out);

#endif
