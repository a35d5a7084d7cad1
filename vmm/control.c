/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/control.h"

#include "devices/balloon/balloon.h"
#include "devices/mem/mem.h"
#include "vmm/dump.h"
#include "vmm/outfile.h"
#include "vmm/quiesce.h"
#include "vmm/size.h"
#include "vmm/swapfile.h"
#include "vmm/sysctl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* How long a guest has to name its free pages; what came until then counts. Chosen, unmeasured. */
#define HINT_MS 30000u

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

static int act_sysctl(const struct control *control, const json_t *body, json_t **out, struct diag *diag)
{
    const json_t *name = json_object_get(body, "name"), *value = json_object_get(body, "value");

    *out = NULL;
    if ((name || value) && !json_is_string(name))
        return diag_set(diag, EXIT_USAGE, "the request needs \"name\", a text");
    if (value && !json_is_integer(value))
        return diag_set(diag, EXIT_USAGE, "\"value\" must be a whole number");
    if (need_mm(control, diag))
        return -1;
    if (!value) {
        *out = sysctl_read(memhost_mm(control->mh), json_string_value(name), diag);
        return *out ? 0 : -1;
    }
    struct mm_thread *thread = memhost_lock_thread(control->mh);
    int error =
        sysctl_write(thread, memhost_mm(control->mh), json_string_value(name), json_integer_value(value), out, diag);
    memhost_unlock_thread(control->mh);
    return error;
}

/* The machine of "vm", or the first one, kept; NULL with diag. */
static struct source_vm *get_vm(const struct control *control, const json_t *body, struct diag *diag)
{
    return source_vm_get(control->source, json_string_value(json_object_get(body, "vm")), diag);
}

static int balloon_locked(struct source_vm *vm, uint64_t bytes, json_t **out, struct diag *diag)
{
    struct balloon *balloon = machine_balloon(vm->machine);
    struct balloon_info info;
    struct balloon_stats stats;
    char most[SIZE_TEXT];

    if (!balloon)
        return diag_set(diag, EXIT_USAGE, "%s has no balloon: start it with one (`ebb help run`)", vm->name);
    if (balloon_set_target(balloon, bytes)) {
        balloon_info(balloon, &info);
        return diag_set(diag, EXIT_USAGE, "the balloon of %s cannot be larger than its memory, %s", vm->name,
                        size_text(most, info.memory_bytes));
    }
    balloon_info(balloon, &info);
    balloon_stats(balloon, &stats);
    *out = json_object();
    view_put_balloon(*out, &info, &stats);
    return 0;
}

static int set_balloon(const struct control *control, const json_t *body, json_t **out, struct diag *diag)
{
    json_int_t bytes;
    struct source_vm *vm;

    *out = NULL;
    if (get_number(body, "target_bytes", 0, INT64_MAX, -1, &bytes, diag))
        return -1;
    if (bytes < 0)
        return diag_set(diag, EXIT_USAGE, "the request needs \"target_bytes\", how large the balloon shall be");
    vm = get_vm(control, body, diag);
    if (!vm)
        return -1;
    int result = balloon_locked(vm, (uint64_t)bytes, out, diag);
    source_vm_put(control->source, vm);
    return result;
}

static int mem_locked(struct source_vm *vm, uint64_t bytes, json_t **out, struct diag *diag)
{
    struct mem *mem = machine_mem(vm->machine);
    struct mem_info info;
    uint64_t next;
    char text[SIZE_TEXT];

    if (!mem)
        return diag_set(diag, EXIT_USAGE, "%s has no room for more memory: start it with --hotplug-memory SIZE",
                        vm->name);
    int err = mem_set_requested(mem, bytes, &next);
    mem_info(mem, &info);
    if (err && bytes > info.region_bytes)
        return diag_set(diag, EXIT_USAGE, "%s can get at most %s more memory (--hotplug-memory)", vm->name,
                        size_text(text, info.region_bytes));
    if (err)
        return diag_set(diag, EXIT_USAGE, "memory comes in blocks of 2M; the next size is %s", size_option(text, next));
    *out = json_object();
    view_put_mem(*out, &info);
    return 0;
}

static int set_mem(const struct control *control, const json_t *body, json_t **out, struct diag *diag)
{
    json_int_t bytes;
    struct source_vm *vm;

    *out = NULL;
    if (get_number(body, "requested_bytes", 0, INT64_MAX, -1, &bytes, diag))
        return -1;
    if (bytes < 0)
        return diag_set(diag, EXIT_USAGE, "the request needs \"requested_bytes\", how much to plug");
    vm = get_vm(control, body, diag);
    if (!vm)
        return -1;
    int result = mem_locked(vm, (uint64_t)bytes, out, diag);
    source_vm_put(control->source, vm);
    return result;
}

static bool is_free(const struct quiesced *q, uint64_t gfn)
{
    return gfn < q->nr_free_bits && q->free_pages[gfn / 64] >> (gfn % 64) & 1;
}

/* Runs of free pages of one region leave. Returns pages. */
static uint64_t drop_region(const struct quiesced *q, const struct guest_mem_region *region)
{
    uint64_t end = (region->start.v + region->bytes) / PAGE_BYTES, pages = 0, dropped;

    for (uint64_t from = region->start.v / PAGE_BYTES, to; from < end; from = to + 1) {
        for (to = from; to < end && is_free(q, to);)
            to++;
        /* -ENOMEM: they stay */
        if (to > from && mm_drop(q->thread, q->vm, gpa_of((gfn_t)from), (to - from) * PAGE_BYTES, MM_DROP_FREE,
                                 q->poison, &dropped) == 0)
            pages += dropped;
    }
    return pages;
}

/* quiesce.run: pages that are free leave. */
static int drop_free(void *ctx, const struct quiesced *q, struct diag *diag)
{
    json_t *out = ctx;
    uint64_t pages = 0;

    if (!q->has_balloon)
        return diag_set(diag, EXIT_USAGE, "the VM has no balloon: start it with one (`ebb help run`)");
    if (!q->free_pages)
        return diag_set(diag, EXIT_GUEST, "the guest has no driver that says which pages are free");
    for (unsigned i = 0; i < q->mem->nr; i++)
        pages += drop_region(q, &q->mem->region[i]);
    view_put(out, "hinted_bytes", q->hinted_pages * PAGE_BYTES);
    view_put(out, "kept_bytes", q->kept_pages * PAGE_BYTES);
    view_put(out, "freed_bytes", pages * PAGE_BYTES);
    json_object_set_new(out, "complete", json_boolean(q->complete));
    return 0;
}

static int run_quiesced(const struct control *control, const json_t *body, const struct quiesce *how, struct diag *diag)
{
    struct source_vm *vm = get_vm(control, body, diag);

    if (!vm)
        return -1;
    int result = machine_quiesce(vm->machine, how, diag);
    source_vm_put(control->source, vm);
    return result;
}

static int hint(const struct control *control, const json_t *body, json_t **out, struct diag *diag)
{
    *out = NULL;
    if (need_mm(control, diag))
        return -1;
    json_t *result = json_object();
    const struct quiesce how = {.hints = true, .hint_ms = HINT_MS, .run = drop_free, .ctx = result};
    if (run_quiesced(control, body, &how, diag)) {
        json_decref(result);
        return -1;
    }
    *out = result;
    return 0;
}

struct dump_work {
    struct outfile file;
    struct dump_stat stat;
};

/* quiesce.run */
static int write_dump(void *ctx, const struct quiesced *q, struct diag *diag)
{
    struct dump_work *work = ctx;
    const struct dump_config config = {
        .thread = q->thread,
        .vm = q->vm,
        .mem = q->mem,
        .free_pages = q->free_pages,
        .nr_free_bits = q->nr_free_bits,
        .stop = q->stop,
    };

    return dump_write(&config, work->file.fd, work->file.path, &work->stat, diag);
}

static int dump(const struct control *control, const json_t *body, json_t **out, struct diag *diag)
{
    const char *path = get_text(body, "path", diag);
    const json_t *hints = json_object_get(body, "hints");
    struct dump_work work = {0};
    const struct quiesce how = {
        .hints = !hints || json_is_true(hints), .hint_ms = HINT_MS, .run = write_dump, .ctx = &work};

    *out = NULL;
    if (!path || need_mm(control, diag) || outfile_open("dump", path, &work.file, diag))
        return -1;
    if (work.file.rename && fchmod(work.file.fd, 0600)) { /* whatever stands in a guest's memory */
        diag_set(diag, EXIT_GUEST, "dump %.200s: %s", path, strerror(errno));
        outfile_cancel(&work.file);
        return -1;
    }
    int result =
        work.file.rename
            ? run_quiesced(control, body, &how, diag)
            : diag_set(diag, EXIT_USAGE,
                       "dump %.200s: is no regular file; name a file in a directory that can be written", path);
    if (result) {
        outfile_cancel(&work.file);
        return -1;
    }
    if (outfile_keep(&work.file, diag))
        return -1;
    *out = json_object();
    view_put(*out, "memory_bytes", work.stat.memory_bytes);
    view_put(*out, "written_bytes", work.stat.written_bytes);
    view_put(*out, "zero_bytes", work.stat.zero_bytes);
    view_put(*out, "free_bytes", work.stat.free_bytes);
    return 0;
}

const struct control_action control_actions[] = {
    {"swapon", "{\"path\": FILE, \"size_bytes\": N, \"priority\": N, \"discard\": BOOL}", swapon},
    {"swapoff", "{\"path\": FILE}", swapoff},
    {"reclaim", "{\"bytes\": N}", reclaim},
    {"sysctl", "{\"name\": NAME, \"value\": N}", act_sysctl},
    {"balloon", "{\"target_bytes\": N, \"vm\": NAME}", set_balloon},
    {"mem", "{\"requested_bytes\": N, \"vm\": NAME}", set_mem},
    {"hint", "{\"vm\": NAME}", hint},
    {"dump", "{\"path\": FILE, \"vm\": NAME, \"hints\": BOOL}", dump},
    {NULL, NULL, NULL},
};
