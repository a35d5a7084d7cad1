/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/control.h"

#include "vmm/size.h"
#include "vmm/swapfile.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Text member @name of @body, or NULL with diag. */
static const char *get_text(const json_t *body, const char *name, struct diag *diag)
{
    const char *text = json_string_value(json_object_get(body, name));

    if (!text || !*text)
        diag_set(diag, EXIT_USAGE, "the request needs \"%s\", a text", name);
    return text && *text ? text : NULL;
}

/* Whole number @name of @body between @least and @most; @unset when it is not there. -1 with diag. */
static int get_number(const json_t *body, const char *name, json_int_t least, json_int_t most, json_int_t unset,
                      json_int_t *out, struct diag *diag)
{
    const json_t *value = json_object_get(body, name);

    *out = value ? json_integer_value(value) : unset;
    if (value && (!json_is_integer(value) || *out < least || *out > most))
        return diag_set(diag, EXIT_USAGE, "\"%s\" must be a whole number from %lld to %lld", name, (long long)least,
                        (long long)most);
    return 0;
}

static int need_mm(const struct control *control, struct diag *diag)
{
    if (memhost_mm(control->mh))
        return 0;
    return diag_set(diag, EXIT_GUEST, "with --backend kernel the kernel keeps the guests' memory; use swapon(8)");
}

static int swapon(const struct control *control, const json_t *body, json_t **out, struct diag *diag)
{
    json_int_t size, priority;
    const char *path = get_text(body, "path", diag);

    *out = NULL;
    if (!path || get_number(body, "size_bytes", 0, INT64_MAX, 0, &size, diag) ||
        get_number(body, "priority", -1, 32767, -1, &priority, diag) || need_mm(control, diag))
        return -1;
    unsigned flags = json_is_true(json_object_get(body, "discard")) ? SWAPFILE_DISCARD : 0;
    return swapfile_add(mm_swap_set(memhost_mm(control->mh)), path, (uint64_t)size, (int)priority, flags, diag);
}

/* True when @name, as an area was given, and @path mean one file: by text, or by directory and last part. */
static bool same_file(const char *name, const char *path)
{
    const char *slash = strrchr(name, '/'), *path_slash = strrchr(path, '/');
    char directory[SWAP_NAME_BYTES + 2];

    if (strcmp(name, path) == 0)
        return true;
    if (!path_slash || strcmp(slash ? slash + 1 : name, path_slash + 1) != 0)
        return false;
    snprintf(directory, sizeof(directory), "%.*s", slash ? (int)(slash - name + 1) : 2, slash ? name : "./");
    char *real = realpath(directory, NULL);
    size_t bytes = !real || strcmp(real, "/") == 0 ? 0 : strlen(real);
    bool same = real && bytes == (size_t)(path_slash - path) && strncmp(real, path, bytes) == 0;
    free(real);
    return same;
}

static int swapoff(const struct control *control, const json_t *body, json_t **out, struct diag *diag)
{
    const char *path = get_text(body, "path", diag);
    struct swap_area_stat areas[MAX_SWAP_AREAS];
    int error = -ENOENT;

    *out = NULL;
    if (!path || need_mm(control, diag))
        return -1;
    unsigned nr = swap_stat(mm_swap_set(memhost_mm(control->mh)), areas, MAX_SWAP_AREAS);
    for (unsigned i = 0; i < nr && error == -ENOENT; i++)
        if (same_file(areas[i].name, path)) {
            struct mm_thread *thread = memhost_lock_thread(control->mh);
            error = mm_swapoff(thread, areas[i].name);
            memhost_unlock_thread(control->mh);
        }
    switch (error) {
    case 0:
        return 0;
    case -ENOENT:
        return diag_set(diag, EXIT_USAGE, "%.200s is no swap area here; `ebb show swaps` lists them", path);
    case -ENOMEM:
        return diag_set(diag, EXIT_GUEST,
                        "%.200s stays in use: its pages do not fit elsewhere; add another area or free memory", path);
    case -ECANCELED:
        return diag_set(diag, EXIT_GUEST, "%.200s stays in use: the run is over", path);
    default:
        return diag_set(diag, EXIT_GUEST, "%.200s stays in use: %s", path, strerror(-error));
    }
}

static int reclaim(const struct control *control, const json_t *body, json_t **out, struct diag *diag)
{
    json_int_t bytes;

    *out = NULL;
    if (get_number(body, "bytes", 1, INT64_MAX, 0, &bytes, diag) || need_mm(control, diag))
        return -1;
    if (bytes == 0)
        return diag_set(diag, EXIT_USAGE, "the request needs \"bytes\", how much to reclaim");
    uint64_t pages = ((uint64_t)bytes + PAGE_BYTES - 1) / PAGE_BYTES;
    struct mm_thread *thread = memhost_lock_thread(control->mh);
    pages = source_reclaim(control->source, thread, pages);
    memhost_unlock_thread(control->mh);
    *out = json_object();
    view_put(*out, "reclaimed_bytes", pages * PAGE_BYTES);
    return 0;
}

const struct control_action control_actions[] = {
    {"swapon", "{\"path\": FILE, \"size_bytes\": N, \"priority\": N, \"discard\": BOOL}", swapon},
    {"swapoff", "{\"path\": FILE}", swapoff},
    {"reclaim", "{\"bytes\": N}", reclaim},
    {NULL, NULL, NULL},
};
